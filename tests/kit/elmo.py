"""Things several ELMo test files use: the golden model, a tiny shape, and how results are compared."""

from __future__ import annotations

import json

import h5py
import numpy as np
import torch

from featurestore.encoders.elmo.files.weights import read_weights
from featurestore.encoders.elmo.model.network import BiLM
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.encoders.elmo.model.packing import Packing
from tests.kit.places import TINY_ELMO

GOLDEN = TINY_ELMO
GOLDEN_SPEC = f"elmo:{GOLDEN / 'options.json'},{GOLDEN / 'weights.hdf5'}"

TINY = ElmoOptions(
    lstm_dim=24,
    projection_dim=8,
    n_layers=2,
    cell_clip=3.0,
    proj_clip=3.0,
    use_skip_connections=True,
    character_dim=4,
    filters=((1, 4), (2, 6), (3, 8)),
    n_highway=1,
    activation="relu",
)


def golden_sentences():
    return json.loads((GOLDEN / "sentences.json").read_text(encoding="utf-8"))


def golden_network(precision="float32"):
    options = ElmoOptions.read(GOLDEN / "options.json")
    return BiLM(options, read_weights(GOLDEN / "weights.hdf5", options), precision=precision)


def run(network, sentences):
    """All layers of one batch with fresh states: per sentence (n_layers, n_tokens, dim) in float64."""
    with torch.inference_mode():
        lengths = [len(sentence) for sentence in sentences]
        packing = Packing.of(lengths)
        layers = torch.stack(network.layers(sentences, packing, n_layers=network.n_layers))
        in_order = layers[:, torch.from_numpy(packing.positions)]
        return [part.double().numpy() for part in in_order.split(lengths, dim=1)]


def run_carrying(network, batches, carried, after_batch=lambda number: None):
    with torch.inference_mode():
        results = []
        for number, batch in enumerate(batches):
            results += [
                torch.stack(layers).double().numpy() for layers in network.layers_carrying(batch, carried)
            ]
            after_batch(number)
        return results


def golden_vectors(name):
    with h5py.File(GOLDEN / name) as file:
        return [file[str(i)][()].astype(np.float64) for i in range(len(file))]


def differences(ours, theirs):
    """Return the largest absolute and the relative L2 difference over all values; shapes must agree."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    difference = np.concatenate([(a - b).ravel() for a, b in zip(ours, theirs, strict=True)])
    reference = np.concatenate([b.ravel() for b in theirs])
    assert reference.size
    return np.abs(difference).max(), np.linalg.norm(difference) / np.linalg.norm(reference)


def in_batches(sentences, sizes):
    batches, start = [], 0
    for size in sizes:
        batches.append(sentences[start : start + size])
        start += size
    assert start >= len(sentences)
    return batches
