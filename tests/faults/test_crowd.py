"""Many processes in one store, a short form: nothing lost, nothing twice, no reader disturbed."""

from __future__ import annotations

import errno

import pytest

from featurestore.disk.filesystem import LOCAL
from tests.faults.trials.crowd import crowd
from tests.kit.faulty import WithoutLinks


@pytest.mark.parametrize(
    "filesystem", [LOCAL, WithoutLinks(errno.EPERM)], ids=["with links", "without links"]
)
def test_a_crowd_loses_nothing_and_stores_nothing_twice(tmp_path, filesystem):
    found = crowd(tmp_path, n_writers=4, n_commits=8, n_readers=2, n_kills=3, filesystem=filesystem)
    assert found.problems == []
    assert found.n_killed >= 1
    assert min(found.n_reads, found.n_collected, found.n_merged, found.n_repaired, found.n_verified) > 0
    assert found.n_sentences > 4 * 8
