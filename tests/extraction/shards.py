"""Stored vectors near those expected, and the files of a store as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featurestore.encoders.elmo.encoder import BATCH_INVARIANCE

BOUND = BATCH_INVARIANCE["float32"]


CODEC_BOUND = {"float32": BOUND, "float16": 1e-3, "int8": 2e-2}


def assert_near(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected)


def files_of(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}
