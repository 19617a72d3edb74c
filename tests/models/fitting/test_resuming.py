"""Trainings that are stopped go on to the model of one that never was; checkpoints of others are refused."""

from __future__ import annotations

import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from featurestore.corpora.contract.example import Example
from featurestore.dataset.features import FeatureDataset
from featurestore.errors import ModelError, StateError, UsageError
from featurestore.models.fitting.unfinished import FORMAT
from featurestore.models.training import train
from featurestore.resuming.checkpoint import FORMAT_VERSION
from featurestore.store.store import Store
from featurestore.tensorfile import read_tensor_file, tensor_file_image
from tests.kit.damage import flip_bit
from tests.models.separable import DIM, datasets, make_store, quick, tagged

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")


def config(**settings):
    return quick(
        "bilstm-tagger", **{"epochs": 3, "anneal_patience": 1, "dropout": 0.3, "hidden": 8, **settings}
    )


def go_on(store, path, **options):
    return train(*datasets(store), config(), checkpoint=path, resume=True, checkpoint_seconds=0, **options)


@contextmanager
def ctrl_c_in_call(number: int, *, training: bool):
    """Raise the signal of Ctrl-C within the n-th call of a head, while it learns or while it is scored."""
    calls = 0

    def hook(module, arguments, output):
        nonlocal calls
        if isinstance(module, torch.nn.Linear) and module.training is training:
            calls += 1
            if calls == number:
                signal.raise_signal(signal.SIGINT)

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_a_training_stopped_anywhere_goes_on_to_the_same_model(store, tmp_path, caplog):
    whole = train(*datasets(store), config())
    path = tmp_path / "model.checkpoint.h5"
    with ctrl_c_in_call(3, training=True), pytest.raises(KeyboardInterrupt):
        go_on(store, path)  # in a step of the first epoch
    assert f"there is no checkpoint {path}: the training begins anew" in caplog.text
    with ctrl_c_in_call(1, training=False), pytest.raises(KeyboardInterrupt):
        go_on(store, path)  # while the first epoch is scored
    seen = []

    def break_off(epoch):
        seen.append(epoch.epoch)
        raise ZeroDivisionError  # as a crash would, after an epoch

    with pytest.raises(ZeroDivisionError):
        go_on(store, path, on_epoch=break_off)
    with ctrl_c_in_call(5, training=True):
        stopped = go_on(store, path)  # in a step of the second epoch
    assert isinstance(stopped.interrupted, KeyboardInterrupt)
    assert len(stopped.history) == stopped.best_epoch == 1

    def interrupt(epoch):
        raise KeyboardInterrupt

    stopped = go_on(store, path, on_epoch=interrupt)  # before it has gone on
    assert len(stopped.history) == 1
    with ctrl_c_in_call(3, training=False):  # the first two score the best epoch again, and the second epoch
        stopped = go_on(store, path)
    assert len(stopped.history) < 3
    result = go_on(store, path, on_epoch=lambda epoch: seen.append(epoch.epoch))
    assert seen == [1, 1, 2, 3]
    assert result.model.to_bytes() == whole.model.to_bytes()
    for mine, theirs in zip(result.history, whole.history, strict=True):
        assert {**vars(mine), "seconds": 0} == {**vars(theirs), "seconds": 0}
    assert not path.exists()


@pytest.fixture(scope="module")
def broken_off(store, tmp_path_factory):
    """The checkpoint of a training that broke off after its first epoch."""
    path = tmp_path_factory.mktemp("unfinished") / "checkpoint.h5"
    with pytest.raises(ZeroDivisionError):
        go_on(store, path, on_epoch=lambda epoch: 1 / 0)
    return path.read_bytes()


@pytest.fixture
def unfinished(broken_off, tmp_path):
    path = tmp_path / "checkpoint.h5"
    path.write_bytes(broken_off)
    return path


def one_label_changed(n, seed):
    first, *others = tagged(n, seed)
    return [Example(first.tokens, ("NOUN", *first.labels[1:])), *others[:-1], others[-1]]


def test_a_checkpoint_of_another_training_is_refused_with_the_field_and_both_values(
    store, unfinished, tmp_path
):
    def refused(*data, field, **settings):
        before = unfinished.read_bytes()
        with pytest.raises(StateError) as error:
            train(*data, config(**settings), checkpoint=unfinished, resume=True)
        assert error.value.field == field
        assert error.value.expected != error.value.found
        for part in (str(unfinished), field, repr(error.value.found)[:300], repr(error.value.expected)[:300]):
            assert part in str(error.value)
        assert unfinished.read_bytes() == before

    dataset, dev = datasets(store)
    refused(dataset, dev, lr=0.01, field="settings.lr")
    refused(dataset, dev, hidden=9, field="head.hidden")
    refused(
        dataset,
        FeatureDataset(store, tagged(60, 2)[:-1], labels=dataset.labels),
        field="development data.labels",
    )
    dev = FeatureDataset(store, [*reversed(tagged(60, 2))], labels=dataset.labels)
    refused(dataset, dev, field="development data.labels")
    refused(*datasets(store, one_label_changed), field="development data.labels")
    refused(*datasets(make_store(tmp_path / "v2.fs", version=2)), field="recipe")
    with make_store(tmp_path / "one.fs").write() as session:
        session.add(("one", "more"), np.ones((2, DIM), np.float32))
    refused(*datasets(Store.open(tmp_path / "one.fs")), field="snapshot")


def rewritten(path, to, change):
    """Write a checkpoint again, with all its hashes right, after a change to its metadata and tensors."""
    file = read_tensor_file(path, format_name=FORMAT, format_version=FORMAT_VERSION, noun="checkpoint")
    change(file.metadata, file.tensors)
    to.write_bytes(tensor_file_image(file.metadata, file.tensors))


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, tensors: metadata["progress"].pop("stopping"),
        lambda metadata, tensors: metadata["progress"].update(at=[1]),
        lambda metadata, tensors: metadata["progress"].update(at={"number": "1"}),
        lambda metadata, tensors: metadata["progress"].update(history=[{"epoch": 1}]),
        lambda metadata, tensors: metadata.update(progress=[]),
        lambda metadata, tensors: tensors.pop("generators.host"),
        lambda metadata, tensors: tensors.update({"generators.host": tensors["generators.host"][:7]}),
        lambda metadata, tensors: tensors.pop("head.output.weight"),
        lambda metadata, tensors: tensors.update({"average.0": tensors["average.0"][:1]}),
        lambda metadata, tensors: tensors.pop("optimizer.0.exp_avg"),
        lambda metadata, tensors: tensors.update({"optimizer.0.exp_avg": tensors["optimizer.0.exp_avg"][:1]}),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused(store, unfinished, tmp_path, change):
    path = tmp_path / "hostile.h5"
    rewritten(unfinished, path, change)
    with pytest.raises(ModelError, match="checkpoint") as refused:
        go_on(store, path)
    assert str(path) in str(refused.value)


def test_a_checkpoint_of_another_version_or_a_damaged_one_is_refused(store, unfinished, tmp_path):
    path = tmp_path / "other.h5"
    rewritten(unfinished, path, lambda metadata, _: metadata["identity"]["version"].update(torch="1.0"))
    with pytest.raises(StateError, match=r"version\.torch: '1\.0' there") as refused:
        go_on(store, path)
    assert (refused.value.found, refused.value.expected) == ("1.0", torch.__version__)
    path.write_bytes(unfinished.read_bytes())
    file = read_tensor_file(path, format_name=FORMAT, format_version=FORMAT_VERSION, noun="checkpoint")
    flip_bit(path, path.read_bytes().index(file.tensors["average.0"].tobytes()))
    with pytest.raises(ModelError, match="checkpoint"):
        go_on(store, path)


def test_an_unfinished_training_is_not_overwritten(store, unfinished):
    before = unfinished.read_bytes()
    with pytest.raises(UsageError, match="holds an unfinished training, which would be overwritten"):
        train(*datasets(store), config(), checkpoint=unfinished)
    assert unfinished.read_bytes() == before
    with pytest.raises(UsageError, match="give checkpoint="):
        train(*datasets(store), config(), resume=True)
    with pytest.raises(UsageError, match="at least 0, found -1"):
        train(*datasets(store), config(), checkpoint=unfinished, resume=True, checkpoint_seconds=-1)


def test_a_training_goes_on_where_its_checkpoint_cannot_be_written(store, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "checkpoint.h5"
    result = train(*datasets(store), config(epochs=1), checkpoint=path, checkpoint_seconds=0)
    assert len(result.history) == 1
    assert "no checkpoint was written" in caplog.text
