"""An index in which no run is too small to stay."""

from __future__ import annotations

import pytest

from featurestore.store.index import covering


@pytest.fixture
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(covering, "SMALL", 0)
