"""Each training framework, run by its example: what its users rely on, in one process and in two."""

from __future__ import annotations

import pytest
import torch

from featurestore import FeatureDataset
from tests.examples.ranks import Run, run_alone, run_together

N_EPOCHS = 3
TOGETHER = ("with_lightning", "with_accelerate", "with_trainer", "with_torchdata", "with_ignite")
NEEDS = {
    "with_lightning": "lightning", "with_accelerate": "accelerate", "with_trainer": "transformers",
    "with_torchdata": "torchdata", "with_ignite": "ignite", "with_skorch": "skorch",
}  # fmt: skip
EXTRA = {"with_trainer": "trainer"}


@pytest.fixture
def dataset(example_store, examples) -> FeatureDataset:
    return FeatureDataset(example_store, examples)


def require(name: str) -> None:
    package = NEEDS[name]
    pytest.importorskip(package, reason=f"pip install 'featurestore[{EXTRA.get(name, package)}]'")


def assert_right(dataset: FeatureDataset, ranks: list[list[Run]], n_first: int) -> None:
    """Check a run from beginning to end, one that stopped after ``n_first`` steps, and its resumption."""
    whole = [runs[0].steps for runs in ranks]
    n_steps, remainder = divmod(len(whole[0]), N_EPOCHS)
    assert n_steps > 4
    assert remainder == 0
    assert {len(steps) for steps in whole} == {N_EPOCHS * n_steps}
    orders = []
    for epoch in range(N_EPOCHS):
        mine = slice(epoch * n_steps, (epoch + 1) * n_steps)
        seen = [index for steps in whole for step in steps[mine] for index in step.indices]
        assert sorted(seen) == list(range(len(dataset)))  # every sentence once, over all ranks
        orders.append([[step.indices for step in steps[mine]] for steps in whole])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    for step in (step for steps in whole for step in steps):
        for index, length, labels, total in zip(*step, strict=True):
            item = dataset[index]
            assert length == len(item.features)
            assert labels[:length] == item.label.tolist()
            assert set(labels[length:]) <= {-100}
            assert total == pytest.approx(item.features.sum().item(), abs=1e-3)
    for runs in ranks:
        through, stopped, resumed = runs
        assert len(stopped.steps) == n_first
        assert stopped.steps + resumed.steps == through.steps


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_two_processes_share_each_epoch_and_resume_in_the_second(name, dataset, tmp_path):
    require(name)
    n_first = 10
    runs = [
        (tmp_path / "through", {"max_epochs": N_EPOCHS}),
        (tmp_path / "stopped", {"max_epochs": N_EPOCHS, "max_steps": n_first}),
        (tmp_path / "stopped", {"max_epochs": N_EPOCHS}),
    ]
    if name == "with_lightning":
        runs = [(out, {**options, "devices": 2}) for out, options in runs]
    ranks = run_together(name, dataset, runs)
    assert_right(dataset, ranks, n_first)
    assert len(ranks[0][0].steps) / N_EPOCHS < n_first < 2 * len(ranks[0][0].steps) / N_EPOCHS
    if name != "with_torchdata":  # whose example saves no model
        assert all(through.weights == resumed.weights for through, _, resumed in ranks)
    assert ranks[0][0].weights == ranks[1][0].weights


def test_skorch_goes_on_after_the_last_epoch(dataset, tmp_path):
    require("with_skorch")
    runs = [
        (tmp_path / "through", {"max_epochs": N_EPOCHS}),
        (tmp_path / "stopped", {"max_epochs": 1}),
        (tmp_path / "stopped", {"max_epochs": N_EPOCHS}),
    ]
    runs_made = run_alone("with_skorch", dataset, runs)
    assert_right(dataset, [runs_made], len(runs_made[1].steps))
    assert runs_made[0].weights == runs_made[2].weights
