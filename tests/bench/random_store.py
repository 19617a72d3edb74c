"""A store of random vectors: what reading costs does not depend on what the vectors are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore import Recipe, Store


def write_store(
    path: Path,
    sentences: Sequence[tuple[str, ...]],
    vectors: NDArray[np.floating],
    codec: str = "float16",
    version: int | str = 1,
) -> Store:
    """Write sentences through a session's ``add``, each with the next of (n, dim) vectors, as float32.

    Where the vectors end before the sentences do, they begin again. Stores of different versions have
    different recipes.
    """
    store = Store.create(
        path, recipe=Recipe({"kind": "bench", "version": version}), dim=vectors.shape[1], codec=codec
    )
    start = 0
    with store.write() as session:
        for tokens in sentences:
            if start + len(tokens) > len(vectors):
                start = 0
            session.add(tokens, vectors[start : start + len(tokens)].astype(np.float32))
            start += len(tokens)
    return store
