"""Fixtures that many tests share: where the shared corpora are, and an encoder small enough for tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch is imported, and for the processes that tests start: the tiny model gains nothing from threads,
# and threads that wait for each other on busy cores take seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TINY_ELMO = ROOT / "tests" / "golden" / "elmo-tiny"


def require_shared(relative: str) -> Path:
    """Return a path under ../shared, or skip the test with the reason."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {path}, which is not here")
    return path


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """:func:`require_shared`, for test modules beside another conftest."""
    return require_shared


@pytest.fixture(scope="session")
def tiny_elmo_spec() -> str:
    """A real ELMo of 32 dimensions with random weights in two files."""
    return f"elmo:{TINY_ELMO / 'options.json'},{TINY_ELMO / 'weights.hdf5'}"


@pytest.fixture(scope="session")
def tiny_elmo(tiny_elmo_spec):
    """The encoder of :func:`tiny_elmo_spec` on the CPU, layers averaged."""
    from featurestore import load_encoder

    return load_encoder(tiny_elmo_spec, device="cpu")
