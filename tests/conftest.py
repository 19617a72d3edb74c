"""Fixtures that many tests share: where the shared corpora are, and an encoder small enough for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def require_shared(relative: str) -> Path:
    """Return a path under ../shared, or skip the test with the reason."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {path}, which is not here")
    return path
