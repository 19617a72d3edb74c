"""Every layout gives back what was written, in every kind of batch; a speed counts only right answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.bench.serving.layouts import LAYOUTS, Layout, missing
from tests.bench.serving.serve_layouts import RandomBatches, require_right, speed

LENGTHS = np.array([3, 1, 7, 2, 5])
BOUNDS = np.concatenate([[0], np.cumsum(LENGTHS)])


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((BOUNDS[-1], 16)).astype(np.float16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_batch_holds_what_was_written_and_zeros(layout: type[Layout], dtype, vectors, tmp_path):
    if missing(layout):
        pytest.skip(f"needs {layout.library}, which is not installed")
    stored = layout(tmp_path, BOUNDS, 16)
    stored.write(vectors)
    stored.open()
    indices = [4, 0, 2]
    out = torch.full((3, 7, 16), torch.nan, dtype=dtype)
    stored.fill(out, indices)
    stored.close()
    for row, index in zip(out, indices, strict=True):
        expected = torch.from_numpy(vectors[BOUNDS[index] : BOUNDS[index + 1]]).to(dtype)
        assert torch.equal(row[: len(expected)], expected)
        assert not row[len(expected) :].any()


def test_a_wrong_answer_is_no_figure(vectors, tmp_path):
    class Wrong(Layout):
        name = "wrong"

        def fill(self, out, indices):
            out.zero_()

    with pytest.raises(RuntimeError, match="wrong: sentence 2"):
        require_right(Wrong(tmp_path, BOUNDS, 16), vectors, [2])


def test_random_batches_are_a_partition():
    batches = RandomBatches(70)
    assert sorted(index for batch in batches for index in batch) == list(range(70))
    assert max(map(len, batches)) == 32
    assert batches == RandomBatches(70)


def test_speed_counts_the_tokens_served(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("tests.bench.serving.serve_layouts.time.perf_counter", lambda: float(next(clock)))
    assert speed(lambda: iter([500, 500, 700]), 2, 1) == 0.5
