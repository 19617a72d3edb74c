"""Disks without locks, files that cannot be mapped, and shards that another computer removed."""

from __future__ import annotations

import json

import pytest

from tests.kit.processes.failing_calls import run_preloaded
from tests.kit.stores import create, fill, sentences
from tests.store import failing


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, str]:
    store = fill(create(tmp_path_factory.mktemp("failing") / "store.fs"), sentences(failing.N))
    assert len(store.index) == failing.N
    run = run_preloaded("tests.store.failing", store.path)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", failing.CASES)
def test_what_a_disk_does_not_do_is_an_error_of_ours_and_no_damage(found, case):
    assert not found[case], found[case]
