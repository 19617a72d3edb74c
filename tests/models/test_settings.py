"""Training settings that are left open: by the size of the training data, and saved as they were used."""

from __future__ import annotations

import pytest

from featurestore.models.settings import TrainConfig
from featurestore.models.training import train
from tests.models.separable import datasets


@pytest.mark.parametrize(
    ("n_tokens", "model", "expected"),
    [
        (1_600, "linear-tagger", (100, 15, 256, 1e-2)),
        (1_600, "bilstm-tagger", (100, 15, 256, 3e-3)),
        (16_000, "bilstm-crf-tagger", (40, 6, 512, 3e-3)),
        (16_000, "linear-tagger", (40, 6, 512, 3e-3)),
        (160_000, "linear-tagger", (30, 4, 2048, 1e-3)),
        (180_000, "meanpool-classifier", (30, 4, 2048, 1e-3)),
    ],
)
def test_settings_left_open_are_those_that_suit_the_size(n_tokens, model, expected):
    sized = TrainConfig(model, hidden=7).sized(n_tokens)
    assert (sized.epochs, sized.patience, sized.token_budget, sized.lr) == expected
    assert sized.hidden == 7
    given = TrainConfig(model, epochs=3, patience=2, lr=0.5, token_budget=99).sized(n_tokens)
    assert (given.epochs, given.patience, given.token_budget, given.lr) == (3, 2, 99, 0.5)
    assert all(f"{number:g}" in TrainConfig.sized.__doc__ for number in expected)


def test_the_settings_used_are_saved(store):
    training = train(*datasets(store), TrainConfig("linear-tagger", epochs=2)).model.training
    assert {name: training[name] for name in ("epochs", "patience", "token_budget", "lr")} == {
        "epochs": 2, "patience": 15, "token_budget": 256, "lr": 1e-2
    }  # fmt: skip
