"""A store, a corpus, and a cache folder of each test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featurestore import Store
from tests.dataset.opening.remembered import write_corpus, write_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FEATURESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def sound_store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("sound") / "store").path


@pytest.fixture
def store(sound_store, tmp_path) -> Store:
    return Store.open(shutil.copytree(sound_store, tmp_path / "store"))


@pytest.fixture
def corpus(tmp_path) -> Path:
    return write_corpus(tmp_path / "corpus.conll")
