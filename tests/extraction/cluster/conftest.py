"""One real cluster of three nodes for the tests of a module, and one module at a time on a machine."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Ray: pip install 'featurestore[ray]'")

from tests.kit.processes.ray_cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    # Processes that run tests beside this one wait: clusters find each other's addresses, and take memory.
    with (Path(tempfile.gettempdir()) / "featurestore-tests-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = LocalCluster(3)
        try:
            yield started
        finally:
            started.shut_down()
