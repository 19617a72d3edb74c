"""Real extractions killed at random moments: the bytes of an undisturbed run, few shards done twice."""

from __future__ import annotations

from random import Random

from tests.faults.trials.extractions import N_WRITTEN, kill_series, nursery


def test_killed_at_random_moments_and_resumed_under_other_options(tmp_path):
    kills = []
    with nursery(tmp_path) as children:
        for seed in range(10):
            folder = tmp_path / str(seed)
            folder.mkdir()
            kills += kill_series(children, folder, Random(seed), n_kills=3)
            if len(kills) >= 3:  # a run may end before its kill comes
                break
    assert [kill.problems for kill in kills if kill.problems] == []
    assert len(kills) >= 2
    assert max(kill.shards for kill in kills) <= 1 + N_WRITTEN
