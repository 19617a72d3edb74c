"""Where the attacks are built and who is attacked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.victim import Victim
from tests.kit.memory import tmp_path  # noqa: F401


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with Victim() as victim:
        yield victim
