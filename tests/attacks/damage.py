"""Random damage to a sound store, byte by byte or knowing the structure, and whether any of it is silent."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featurestore.errors import FeaturestoreError
from featurestore.keys import Sentence
from featurestore.store.format.codec import Floats
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.attacks.hostile import copy_store, manifest_body, republish
from tests.attacks.victim import Report
from tests.kit.damage import flip_bit

# -- flipped bits


def flip_trials(sound: Path, folder: Path, *, n: int, seed: int = 0) -> Counter[str]:
    """Flip one bit anywhere in a store, n times, and count what came of it.

    Every file is as likely as any other, every bit of it too: half of the flips fall on what is not vectors.

    Returns
    -------
    Counter
        ``named`` (an error or a finding), ``no effect`` (all vectors served exactly, nothing to find), and,
        of which there must be none, ``silent``: a wrong vector, or sentences that nobody misses.
    """
    draw, counts = random.Random(seed), Counter[str]()
    committed = dict(Store.open(sound))
    store = copy_store(sound, folder / "flipped.fs")
    assert _outcome(store, committed) == "no effect"
    files = sorted(p.relative_to(store) for p in store.rglob("*") if p.is_file() and p.stat().st_size)
    for _ in range(n):
        path = store / draw.choice(files)
        before = path.read_bytes()
        offset, bit = draw.randrange(len(before)), draw.randrange(8)
        flip_bit(path, offset, bit)
        outcome = _outcome(store, committed)
        counts[outcome] += 1
        counts[f"{outcome}: {path.parent.name}"] += 1
        if outcome == "silent":
            counts[f"silent: byte {offset}, bit {bit} of {path.name}"] += 1
        # A damaged index is replaced by its reader.
        for other in path.parent.iterdir():
            other.unlink()
        shutil.copytree(sound / path.parent.name, path.parent, dirs_exist_ok=True)
    return counts


def _outcome(path: Path, committed: dict[Sentence, Floats]) -> str:
    try:
        store = Store.open(path)
        vectors = store.get_many(committed)
        findings = list(verify(Store.open(path)))
    except FeaturestoreError:
        return "named"
    if len(store) != len(committed) or not all(map(np.array_equal, vectors, committed.values())):
        return "silent"
    return "named" if findings else "no effect"


# -- mutated shards

Mutation = Callable[[random.Random, bytearray, int], None]
"""Changes a shard's bytes in place; the number is where its values begin."""

INTERESTING = (0, 1, 7, 8, 255, 256, 4096, 65_535, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)


def flip_bytes(draw: random.Random, content: bytearray, start: int) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        content[draw.randrange(len(content))] = draw.randrange(256)


def flip_structure(draw: random.Random, content: bytearray, start: int) -> None:
    """Change bytes that are not zero before the values, where structure is."""
    places = [place for place in range(start) if content[place]]
    for place in draw.sample(places, draw.choice((1, 1, 2, 4))):
        content[place] ^= 1 << draw.randrange(8)


def set_number(draw: random.Random, content: bytearray, start: int) -> None:
    """Put an interesting number where one may be: at a multiple of 8 in the structure."""
    places = [place for place in range(0, start, 8) if any(content[place : place + 8])]
    form, value = draw.choice(("<Q", "<I", "<H")), draw.choice(INTERESTING)
    struct.pack_into(form, content, draw.choice(places), value % (1 << 8 * struct.calcsize(form)))


def swap_numbers(draw: random.Random, content: bytearray, start: int) -> None:
    places = [place for place in range(0, start, 8) if any(content[place : place + 8])]
    one, other = draw.sample(places, 2)
    content[one : one + 8], content[other : other + 8] = content[other : other + 8], content[one : one + 8]


def move_block(draw: random.Random, content: bytearray, start: int) -> None:
    source, target = draw.randrange(0, start - 8, 8), draw.randrange(0, start - 8, 8)
    size = min(draw.choice((8, 16, 40, 256, 4096)), len(content) - max(source, target))
    content[target : target + size] = content[source : source + size]


def clear_block(draw: random.Random, content: bytearray, start: int) -> None:
    size, place = draw.choice((8, 64, 512, 4096)), draw.randrange(start)
    size = min(size, len(content) - place)
    content[place : place + size] = draw.choice((b"\0", b"\xff")) * size


MUTATIONS: tuple[Mutation, ...] = (
    flip_bytes,
    flip_structure,
    set_number,
    swap_numbers,
    move_block,
    clear_block,
)


def mutate(sound: Path, path: Path, *, seed: int) -> str:
    """Make a copy of a store whose shard is mutated.

    Returns
    -------
    str
        ``"committed"`` where the manifest's hashes are left as they were, ``"pinned"`` where they fit the
        mutated file: then its author means it, and only what it says can be wrong.
    """
    draw = random.Random(seed)
    shutil.rmtree(path, ignore_errors=True)
    store = copy_store(sound, path)
    (shard,) = (store / "shards").iterdir()
    content, start = bytearray(shard.read_bytes()), manifest_body(store)["shards"][0]["extents"]["values"][0]
    n_bytes = len(content)
    draw.choice(MUTATIONS)(draw, content, start)
    assert len(content) == n_bytes
    if seed % 2:
        republish(store, bytes(content))
        return "pinned"
    if draw.random() < 0.1:
        del content[draw.randrange(len(content)) :]
    shard.write_bytes(content)
    return "committed"


def judge(kind: str, report: Report) -> str:
    """Return what became of a mutated shard: ``"named"``, ``"served"``, or what must not happen."""
    if report.died:
        return f"bad: died of {report.died}"
    if "WRONG VECTOR" in report.foreign and kind == "pinned" and report.exit_code("verify") == 3:
        # Its author gave a sentence the key of another. Readers go by the key; verify compares it.
        return "named by verify"
    if report.foreign or report.outside:
        return f"bad: {json.dumps([report.foreign, report.outside])}"
    codes = [code for code, _ in report.stages.values()]
    if not set(codes) <= {0, 1, 2, 3, 4}:
        return f"bad: exit codes {codes}"
    return "named" if any(codes) else "served"
