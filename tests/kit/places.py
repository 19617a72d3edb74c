"""Where things lie: the repository, its sample data, the corpora beside it, the golden model."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
SHARED = ROOT.parent / "shared"
TINY_ELMO = ROOT / "tests" / "golden" / "elmo-tiny"
