"""One thread for the tests of models, and a store and a model that several of them use."""

from __future__ import annotations

import pytest

from featurestore.models.checkpoint import TrainedModel
from featurestore.models.training import train
from tests.kit.threads import one_thread  # noqa: F401
from tests.models.separable import datasets, make_store, quick


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "one.fs")


@pytest.fixture(scope="session")
def trained(store, tmp_path_factory) -> TrainedModel:
    path = tmp_path_factory.mktemp("models") / "tagger.h5"
    train(*datasets(store), quick("bilstm-tagger", epochs=3)).model.save(path)
    return TrainedModel.load(path)
