"""Datasets that do without the compiled gather: what people get where it could not be compiled."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from unittest.mock import patch

from featurestore.dataset.gathering.compiled import compiled_gather
from featurestore.native import SWITCH

THERE_IS_A_CHOICE = compiled_gather(1, (1,)) is not None
"""Whether datasets have it here at all."""


def uncompiled() -> AbstractContextManager[object]:
    """Let torch gather the batches of datasets that are made meanwhile."""
    return patch.dict(os.environ, {SWITCH: "0"})


def gather_note() -> str:
    """Return who gathers the batches of ours, for a table's note."""
    return (
        "Ours gather by gather.c" if THERE_IS_A_CHOICE else "Ours gather by torch: gather.c is not compiled"
    )
