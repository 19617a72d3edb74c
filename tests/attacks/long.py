"""The long forms: attacks, flipped bits and mutated shards, counted. Run by hand; ``--help`` says how."""

# ruff: noqa: E402  (run by hand, it has to find its neighbours itself)

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "store")]

from damage import flip_trials, judge, mutate
from hostile import copy_store, make_store, require_refused
from test_attacks import ATTACKS
from victim import MOST_MEMORY, Victim

CODECS = ("float32", "float16", "int8")


def figures(*, n_flips: int = 10_000, n_mutations: int = 5_000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return the figures about hostile and damaged files, by row; each row's ``bad`` must be 0."""
    memory_disk = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory_disk) as name, Victim() as victim:
        folder = Path(name)
        return {
            "hostile HDF5 and manifests": _attacks(folder, victim),
            "one flipped bit anywhere in any file": _flips(folder, n_flips, seed),
            "mutated shards fed to the reader": _mutations(folder, victim, n_mutations, seed),
        }


def _attacks(folder: Path, victim: Victim) -> dict[str, Any]:
    sound, accepted, memory, seconds = make_store(folder / "attacked.fs").path, [], 0, 0.0
    for number, (name, attack) in enumerate(ATTACKS.items()):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            store = copy_store(sound, Path(place) / f"{number}.fs")
            attack.harm(store)
            report = victim.use(store)
        memory, seconds = max(memory, report.memory), max(seconds, report.seconds)
        try:
            require_refused(attack, report)
        except AssertionError as error:
            accepted.append(f"{name}: {str(error)[:300]}")
    return {
        "n": len(ATTACKS),
        "bad": len(accepted),
        "most memory": memory,
        "allowed memory": MOST_MEMORY,
        "most seconds": round(seconds, 3),
        "which": accepted,
    }


def _flips(folder: Path, n: int, seed: int) -> dict[str, Any]:
    counts = Counter[str]()
    for number, codec in enumerate(CODECS):
        sound = make_store(folder / f"flipped-{codec}.fs", codec=codec)
        _ = sound.index
        share = n // len(CODECS) + (number < n % len(CODECS))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            counts += flip_trials(sound.path, Path(place), n=share, seed=seed + number)
    return {"n": n, "bad": counts["silent"], "counts": dict(counts)}


def _mutations(folder: Path, victim: Victim, n: int, seed: int) -> dict[str, Any]:
    counts, bad = Counter[str](), []
    sounds = [make_store(folder / f"mutated-{codec}.fs", codec=codec).path for codec in CODECS]
    for number in range(n):
        kind = mutate(sounds[number % len(sounds)], folder / "mutated.fs", seed=seed + number)
        verdict = judge(kind, victim.use(folder / "mutated.fs", stages=("mmap", "pread", "verify")))
        counts[f"{kind}: {verdict.split(':')[0]}"] += 1
        if verdict.startswith("bad"):
            bad.append(f"seed {seed + number}, {kind}: {verdict[:600]}")
    return {"n": n, "bad": len(bad), "counts": dict(counts), "which": bad}


def main() -> int:
    """Print the figures as JSON; exit with 1 if anything was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--mutations", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Every flipped bit of an index is logged.
    logging.disable(logging.WARNING)
    found = figures(n_flips=options.flips, n_mutations=options.mutations, seed=options.seed)
    print(json.dumps(found, indent=1))
    return int(any(row["bad"] for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
