"""Stores in memory and pooled: the vectors themselves, added up in float64, in the order asked for."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore import Store
from featurestore.errors import MissingSentencesError, UsageError
from tests.kit.stores import RECIPE, create, fill, sentences, stored_sentences

WORDS = sentences(20)


@pytest.fixture(scope="module", params=[1, 3])
def store(request, tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("stores") / "store"
    return fill(create(path, codec="float16", n_layers=request.param, shard_bytes=1000), WORDS)


def test_numpy_torch_and_arrow(store):
    torch = pytest.importorskip("torch")
    for wanted in (None, [WORDS[7], list(WORDS[2]), WORDS[7]]):
        listed = stored_sentences(store) if wanted is None else [tuple(tokens) for tokens in wanted]
        vectors, offsets, found = store.to_numpy(wanted)
        assert found == listed
        assert (vectors.dtype, offsets.dtype) == (np.float16, np.int64)
        for start, stop, tokens in zip(offsets, offsets[1:], listed, strict=False):
            assert np.array_equal(vectors[start:stop], store.get(tokens))
        tensors, bounds, _ = store.to_torch(wanted, dtype="float32")
        assert tensors.dtype == torch.float32
        assert np.array_equal(tensors.numpy(), vectors)
        assert bounds.tolist() == offsets.tolist()
    with pytest.raises(UsageError, match="dtype 'int8'"):
        store.to_numpy(dtype="int8")
    with pytest.raises(MissingSentencesError):
        store.to_torch([("not", "there")])


def test_arrow(store):
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'featurestore[arrow]'")
    table = store.to_arrow()
    assert [tuple(tokens) for tokens in table["tokens"].to_pylist()] == stored_sentences(store)
    found = np.concatenate([np.array(vectors) for vectors in table["vectors"].to_pylist()])
    assert np.array_equal(found, store.to_numpy().vectors)
    assert len(store.to_arrow(rows="token")) == store.n_tokens
    with pytest.raises(UsageError, match="rows='word'"):
        store.to_arrow(rows="word")


EXPECTED = {
    "mean": lambda v: v.astype(np.float64).mean(0),
    "sum": lambda v: v.astype(np.float64).sum(0),
    "max": lambda v: v.max(0),
    "first": lambda v: v[0],
}


@pytest.mark.parametrize("how", EXPECTED)
def test_pooled(store, how):
    listed = stored_sentences(store)
    expected = np.stack([EXPECTED[how](store.get(tokens)) for tokens in listed]).astype(np.float32)
    assert np.array_equal(store.pooled(how), expected)
    assert np.array_equal(store.pooled(how, sentences=reversed(listed)), expected[::-1])
    without = [[token != "the" for token in tokens] for tokens in listed]
    masked = np.stack(
        [EXPECTED[how](store.get(t)[m]) for t, m in zip(listed, without, strict=True)]
    ).astype(np.float32)  # fmt: skip
    assert np.array_equal(store.pooled(how, mask=without), masked)
    assert np.array_equal(store.pooled(how, mask=lambda tokens: [t != "the" for t in tokens]), masked)


def test_halves_are_not_added_up_as_halves(tmp_path):
    store = Store.create(tmp_path / "store", recipe=RECIPE, dim=2, codec="float16")
    with store.write() as session:
        session.add(["x"] * 5000, np.full((5000, 2), 30.0, np.float32))
    assert store.refreshed().pooled("sum").tolist() == [[150_000, 150_000]]
    assert store.refreshed().pooled("mean").tolist() == [[30, 30]]


def test_what_cannot_be_pooled(store):
    for options, says in (
        ({"how": "median"}, "how='median': expected mean, sum, max, first"),
        ({"mask": lambda tokens: [False] * len(tokens)}, "leaves no token of 's0'"),
        ({"mask": lambda tokens: [1] * len(tokens)}, "is int64 .* expected bool"),
        ({"mask": [[True]]}, "expected bool|has no array for"),
        ({"mask": [[True] * len(t) for t in [*WORDS, WORDS[0]]]}, "of more sentences than the 20"),
    ):
        with pytest.raises(UsageError, match=says):
            store.pooled(**options)
    with pytest.raises(MissingSentencesError):
        store.pooled(sentences=[("not", "there")])
    assert store.pooled(sentences=[]).shape == (0, *store.token_shape)
