"""What the tests of stored vectors share: sentences, their source, what it should give."""

from __future__ import annotations

import numpy as np
import torch

from featurestore.integrations.stored import StoredVectors

SENTENCES = [["a", "b", "c"], ["d"], ["e", "f"]]


NEW = [["g", "h"], ["i", "j", "k"]]


def source_of(store, on_missing="error", layers="all", **options):
    return StoredVectors.of(store, layers, on_missing=on_missing, **options)


def encoded(encoder, sentences):
    return torch.from_numpy(np.concatenate(encoder.encode([tuple(s) for s in sentences])))


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-5, atol=1e-5)
