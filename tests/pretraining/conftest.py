"""Fixtures of the pretraining tests: one thread, a small corpus file, and a finished training of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.kit.pretraining import drawn_text, training, write_text
from tests.kit.threads import one_thread  # noqa: F401


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("corpus") / "corpus.txt", drawn_text(40))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, corpus):
    """The report of a training from start to end."""
    return training(corpus, tmp_path_factory.mktemp("undisturbed") / "model").run()


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of the finished training's folder."""
    return Path(shutil.copytree(undisturbed.folder, tmp_path / "finished"))
