"""A word type's vector is the same to the bit whatever types it is computed with, and in whatever order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore import load_encoder
from featurestore.encoders.elmo.files.weights import read_weights, seeded_weights
from featurestore.encoders.elmo.model.characternet import CharacterNetwork
from featurestore.encoders.elmo.model.numerics import Numerics
from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
from tests.kit.elmo import GOLDEN

CPU = torch.device("cpu")
TYPES = [f"{'abcdefgh' * (n % 9)}{n}" for n in range(150)] + ["a", "é", "<S>", "x" * 60]


def network(shape: str, precision: str) -> CharacterNetwork:
    if shape == "tiny":
        options = ElmoOptions.read(GOLDEN / "options.json")
        weights = read_weights(GOLDEN / "weights.hdf5", options)
    else:
        options = PRESETS[shape]
        weights = seeded_weights(options, 0)
    return CharacterNetwork(options, weights, Numerics.of(precision, CPU), CPU)


@pytest.mark.parametrize(
    ("shape", "precision"), [("tiny", "float32"), ("small", "float32"), ("small", "bfloat16")]
)
def test_neighbours_change_no_bit(shape, precision):
    characters = network(shape, precision)
    with torch.inference_mode():
        together = characters(TYPES)
        for start, stop in ((0, 1), (3, 70), (100, 154), (153, 154)):
            assert torch.equal(characters(TYPES[start:stop]), together[start:stop])
        order = np.random.default_rng(0).permutation(len(TYPES))
        assert torch.equal(characters([TYPES[i] for i in order]), together[torch.from_numpy(order)])


def test_a_batch_gives_the_same_bits_with_an_empty_and_a_filled_table():
    encoder = load_encoder("elmo:untrained-small", device="cpu")
    batch = [tuple(TYPES[start : start + 7]) for start in range(0, 150, 5)]
    fresh = encoder.encode(batch)
    encoder.forget_types()
    encoder.encode([tuple(TYPES[40:43]), (TYPES[99],)])
    for first, second in zip(fresh, encoder.encode(batch), strict=True):
        np.testing.assert_array_equal(first, second)
