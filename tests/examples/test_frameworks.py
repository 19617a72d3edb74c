"""Each training framework, run by its example: what its users rely on, in one process and in two."""

from __future__ import annotations

import logging
import re

import pytest
import torch

from featurestore import FeatureDataset
from featurestore.errors import UsageError
from featurestore.examples.frameworks.tagger import Tagger
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


def test_the_code_of_the_page_runs_in_order(
    dataset, example_store, examples, pytestconfig, tmp_path, monkeypatch
):
    for name in NEEDS:
        require(name)
    from transformers import TrainingArguments

    from featurestore.examples.frameworks.with_lightning import LightningTagger

    page = pytestconfig.rootpath / "featurestore" / "integrations" / "FRAMEWORKS.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = Tagger(dataset.dim, len(dataset.labels))
    module = LightningTagger(model)
    module.validation_step = module.training_step
    names = {
        "train": dataset, "dev": dataset, "train_corpus": examples[:30], "dev_corpus": examples[30:],
        "model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1), "module": module,
        "first_epoch": 0, "first_batch": 0,
        "arguments": TrainingArguments(
            "runs/trainer", use_cpu=True, report_to=[], disable_tqdm=True, num_train_epochs=1,
            save_strategy="no",
        ),
    }  # fmt: skip
    for block in blocks:
        exec(block.replace('"features/demo"', repr(str(example_store))), names)
    assert len(names["right"]) == int(dataset.lengths.sum())
    assert names["scores"]["eval_loss"] > 0
    assert names["engine"].state.epoch == 2


class TestFeatureDataModule:
    @pytest.fixture
    def module(self):
        require("with_lightning")
        from featurestore.integrations.lightning import FeatureDataModule

        return FeatureDataModule

    def test_corpora_are_numbered_by_the_labels_of_training(self, module, example_store, examples):
        nouns = [e for e in examples if "VERB" not in e.labels]
        assert nouns
        data = module(example_store, train=examples, val=nouns, test=nouns, token_budget=48)
        assert data.dataset("val").labels == data.labels == data.dataset("test").labels
        assert data.dim == data.dataset("train").dim
        first, second = ([b.indices.tolist() for b in data.val_dataloader()] for _ in range(2))
        assert first == second
        assert sorted(index for batch in first for index in batch) == list(range(len(nouns)))
        assert data.train_dataloader().batch_sampler.token_budget == 48

    def test_what_is_not_there_or_not_its_users_affair_is_refused(self, module, example_store, examples):
        with pytest.raises(UsageError, match="no predict corpus: give it one, predict="):
            module(example_store, train=examples).predict_dataloader()
        with pytest.raises(UsageError, match="takes no num_replicas"):
            module(example_store, train=examples, num_replicas=2)

    def test_lightning_is_not_let_replace_the_sampler(self, module, example_store, examples):
        import lightning

        data = module(example_store, train=examples)
        data.trainer = lightning.Trainer(overfit_batches=2, accelerator="cpu", logger=False)
        with pytest.raises(UsageError, match=r"limit_train_batches=.*shuffle=False"):
            data.train_dataloader()


@pytest.mark.parametrize("version", ["2.4.0", "2.10.0.dev1", "3.0"])
def test_a_lightning_that_is_new_enough_is_taken(version):
    require("with_lightning")
    from featurestore.integrations.lightning import require_version

    require_version(version)


@pytest.mark.parametrize("version", ["2.3.3", "1.9.0"])
def test_an_old_lightning_is_refused_in_one_line(version):
    require("with_lightning")
    from featurestore.integrations.lightning import require_version

    with pytest.raises(UsageError, match=rf"from 2\.4 on, found {version}: pip install --upgrade"):
        require_version(version)
