"""Attacks, flipped bits and mutated shards by the thousand, counted; ``bin/crashtest`` shows them."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.attacks.catalog import ATTACKS
from tests.attacks.damage import flip_trials, judge, mutate
from tests.attacks.hostile import copy_store, make_store, require_refused
from tests.attacks.victim import Victim

CODECS = ("float32", "float16", "int8")


@dataclass
class Trials:
    """What was tried and what came of it.

    Attributes
    ----------
    n : int
    bad : list of str
        What must not happen, each with what makes it happen again.
    counts : Counter
        By outcome, where there are several.
    memory, seconds : int, float
        Most that one of them took, where that was measured.
    """

    n: int = 0
    bad: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    memory: int = 0
    seconds: float = 0.0


def attack_all(folder: Path) -> Trials:
    """Use every hostile store in a process of its own."""
    found = Trials(len(ATTACKS))
    sound = make_store(folder / "attacked.fs").path
    with Victim() as victim:
        for number, (name, attack) in enumerate(ATTACKS.items()):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                store = copy_store(sound, Path(place) / f"{number}.fs")
                attack.harm(store)
                report = victim.use(store)
            found.memory = max(found.memory, report.memory)
            found.seconds = max(found.seconds, report.seconds)
            try:
                require_refused(attack, report)
            except AssertionError as error:
                found.bad.append(f"{name}: {str(error)[:300]}")
    return found


def flip_many(folder: Path, n: int, seed: int = 0) -> Trials:
    """Flip one bit anywhere in any file of a store, n times, over stores of every codec."""
    found = Trials(n)
    for number, codec in enumerate(CODECS):
        sound = make_store(folder / f"flipped-{codec}.fs", codec=codec)
        _ = sound.index
        share = n // len(CODECS) + (number < n % len(CODECS))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found.counts += flip_trials(sound.path, Path(place), n=share, seed=seed + number)
    found.bad = [f"{what}, {n} times" for what, n in found.counts.items() if what.startswith("silent")]
    return found


def mutate_many(folder: Path, n: int, seed: int = 0) -> Trials:
    """Mutate shards n times, and have each read and verified in a process with limits."""
    found = Trials(n)
    sounds = [make_store(folder / f"mutated-{codec}.fs", codec=codec).path for codec in CODECS]
    with Victim() as victim:
        for number in range(n):
            kind = mutate(sounds[number % len(sounds)], folder / "mutated.fs", seed=seed + number)
            verdict = judge(kind, victim.use(folder / "mutated.fs", stages=("mmap", "pread", "verify")))
            found.counts[verdict.split(":")[0]] += 1
            if verdict.startswith("bad"):
                found.bad.append(f"seed {seed + number}, {kind}: {verdict[:600]}")
    return found
