"""Flipped bits and mutated shards, a few hundred; ``bin/crashtest`` has the long form."""

from __future__ import annotations

import pytest

from tests.attacks.damage import flip_trials, judge, mutate
from tests.attacks.hostile import make_store

N_FLIPS, N_MUTATIONS = 100, 33


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_a_flipped_bit_is_named_or_without_effect(tmp_path, codec):
    sound = make_store(tmp_path / "sound.fs", codec=codec)
    _ = sound.index
    counts = flip_trials(sound.path, tmp_path, n=N_FLIPS, seed=1)
    assert counts["silent"] == 0, counts
    # None of an index or an earlier manifest matters, every one of a shard does.
    assert counts["named: shards"] > N_FLIPS // 10
    assert counts["no effect: shards"] == 0
    assert counts["named: index"] == 0
    assert counts["named: canaries"] > N_FLIPS // 10
    assert counts["no effect: canaries"] == 0


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_a_mutated_shard_is_named_or_served_as_committed(victim, tmp_path, codec):
    sound = make_store(tmp_path / "sound.fs", codec=codec).path
    n_named = 0
    for seed in range(N_MUTATIONS):
        kind = mutate(sound, tmp_path / "mutated.fs", seed=seed)
        verdict = judge(kind, victim.use(tmp_path / "mutated.fs", stages=("mmap", "pread", "verify")))
        assert not verdict.startswith("bad"), (seed, kind, verdict)
        n_named += verdict != "served"
    assert n_named > N_MUTATIONS // 2
