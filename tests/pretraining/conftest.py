"""Fixtures of the pretraining tests: one thread, a small corpus file, and a finished training of it."""

from __future__ import annotations

import pytest
from pretrainkit import drawn_text, training, write_text


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny tensors gain nothing from threads, and threads that wait for a busy core take seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("corpus") / "corpus.txt", drawn_text(40))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, corpus):
    """The report of a training from start to end."""
    return training(corpus, tmp_path_factory.mktemp("undisturbed") / "model").run()
