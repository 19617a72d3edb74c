"""Power loss at any moment: what was acknowledged is there, what is there is right; each sync is needed."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import pytest

from tests.faults.trials.powerloss import SECTOR, Disk, File, Killed, RecordingFileSystem, states, write_tree
from tests.faults.trials.scenarios import SCENARIOS, check, prepared_once
from tests.kit.memory import memory_folder

N_STATES = 200


def states_of(scenarios, seed, **options):
    """Yield states for ever, scenario after scenario, none twice."""
    random, seen = Random(seed), set()
    for scenario in itertools.cycle(scenarios):
        with memory_folder() as folder:
            yield from states(scenario, random, folder, seen=seen, **options)


def test_no_state_that_power_loss_may_leave_breaks_a_promise():
    checked = list(itertools.islice(states_of(SCENARIOS, 1), N_STATES))
    assert [state for state in checked if state.problems] == []
    assert {state.scenario for state in checked} == {scenario.name for scenario in SCENARIOS}


class _AllThatIsUnsyncedIsLost(Random):
    """Draws the worst for a disk that holds what was synced and nothing else."""

    def choice(self, options):
        return options[0]

    def random(self):
        return 0.5


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_job_that_was_killed_and_done_again_rests_on_nothing_unsynced(tmp_path, scenario):
    """Whoever comes second builds on what the first one made, and may not have come to syncing."""
    problems: dict[int, list[str]] = {}
    prepare = prepared_once(scenario, tmp_path / "prepared")
    for lives in itertools.count(1):
        with memory_folder() as place:
            folder = place / "living"
            prepare(folder)
            disk, acknowledged, killed = Disk.holding(folder), [], False
            try:
                scenario.act(folder, RecordingFileSystem(disk, lives=lives), acknowledged.extend)
            except Killed:
                killed = True
                scenario.act(folder, RecordingFileSystem(disk), acknowledged.extend)
            with memory_folder() as left:
                write_tree(left, disk.after_power_loss(_AllThatIsUnsyncedIsLost()))
                problems[lives] = check(left, scenario, acknowledged)
        if not killed:
            break
    assert len(problems) > 5
    assert {lives: wrong for lives, wrong in problems.items() if wrong} == {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_follows_a_manifest_that_is_not_on_the_disk_yet_may_stop_anywhere(tmp_path, scenario):
    """The first one was killed between naming a manifest and syncing it; the second one finds it there."""
    problems: dict[tuple[int, int], list[str]] = {}
    prepare = prepared_once(scenario, tmp_path / "prepared")
    for lives in itertools.count(1):
        with memory_folder() as place:
            folder = place / "living"
            prepare(folder)
            disk, acknowledged = Disk.holding(folder), []
            try:
                scenario.act(folder, RecordingFileSystem(disk, lives=lives), acknowledged.extend)
            except Killed:
                pass
            else:
                break
            if not disk.is_unsynced(folder / scenario.store / "manifests"):
                continue

            def power_is_lost(disk=disk, acknowledged=acknowledged, lives=lives):
                with memory_folder() as left:
                    write_tree(left, disk.after_power_loss(_AllThatIsUnsyncedIsLost()))
                    problems[lives, len(problems)] = check(left, scenario, acknowledged)

            scenario.act(folder, RecordingFileSystem(disk, after=power_is_lost), acknowledged.extend)
    assert {moment: wrong for moment, wrong in problems.items() if wrong} == {}


# What is left out -> the scenarios in which that must be noticed.
SYNCS = {
    "files": (lambda done: done.kind == "sync", {"append"}),
    "shards": (lambda done: done.kind == "sync directory" and done.path.name == "shards", {"append"}),
    "manifests": (lambda done: done.kind == "sync directory" and done.path.name == "manifests", {"append"}),
    "the store": (lambda done: done.kind == "sync directory" and done.path.name == "store.fs", {"create"}),
    "what holds the store": (
        lambda done: done.kind == "sync directory" and done.path.name == "new",
        {"create"},
    ),
}


@pytest.mark.parametrize("left_out", SYNCS)
def test_without_any_one_sync_some_state_loses_what_was_acknowledged(left_out):
    leaves_out, names = SYNCS[left_out]
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in names]
    checked = itertools.islice(states_of(scenarios, 2, leaves_out=leaves_out), 60)
    assert any(state.problems for state in checked)


# -- the disk the states are made on


def test_disk_that_lost_nothing_is_the_real_one(tmp_path):
    # The model followed every operation rightly if, all synced, it holds what the real folder holds.
    for scenario in SCENARIOS:
        folder = tmp_path / scenario.name
        folder.mkdir()
        scenario.prepare(folder)
        disk = Disk.holding(folder)
        scenario.act(folder, RecordingFileSystem(disk), lambda _: None)
        disk.sync()
        (tmp_path / "copy").mkdir()
        write_tree(tmp_path / "copy", disk.after_power_loss(Random(0)))
        assert _contents(tmp_path / "copy") == _contents(folder)
        tmp_path.joinpath("copy").rename(tmp_path / f"copy of {scenario.name}")


def _contents(folder: Path) -> dict[str, bytes | None]:
    # Lock files are made past the door: they hold nothing, and no promise rests on them.
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "lock"
    }


def test_unsynced_file_is_torn_by_sectors_and_a_synced_one_is_not():
    file = File()
    written = bytes(range(1, 256)) * 12
    file.since = [(0, 2000), (0, written)]
    left = [file.torn(Random(seed)) for seed in range(300)]
    assert {len(content) for content in left} >= {0, 2000, len(written)}
    whole, blank, torn = 0, 0, 0
    for content in left:
        for start in range(0, len(content) - SECTOR, SECTOR):
            sector = content[start : start + SECTOR]
            whole += sector == written[start : start + SECTOR]
            blank += sector in (bytes(SECTOR), b"\xa5" * SECTOR)
            torn += sector != written[start : start + SECTOR] and not set(sector) <= {0, 0xA5}
    assert whole > 100
    assert blank > 100
    assert torn == 0
    file.sync()
    assert {file.torn(Random(seed)) for seed in range(20)} == {written}
