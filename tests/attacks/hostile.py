"""Sound stores made hostile by an author who controls everything: shards, manifests and their hashes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.recipe import canonical_json
from featurestore.store.canaries import make_canaries
from featurestore.store.store import Store
from tests.kit.stores import CONDITIONED_SENTENCES, KitEncoder, create, fill, sentences

OPEN, READ, CONTENT, APPEND, VERIFY, HARMLESS = "opened", "read", "searched", "added to", "verified", "never"
"""When an attack is refused; what does not refuse it serves exactly what was committed.

CONTENT: the sentence concerned is not found or refused, the others are served.
"""

_READING = ("mmap", "pread")
_REFUSING = {
    OPEN: ("info", *_READING, "verify", "quick", "append", "write"),
    READ: (*_READING, "verify", "quick"),
    CONTENT: (*_READING, "verify"),
    APPEND: ("verify", "quick", "append"),
    VERIFY: ("verify",),
    HARMLESS: (),
}
_SERVING = {
    OPEN: (),
    READ: ("info",),
    CONTENT: ("info", "quick"),
    APPEND: ("info", *_READING),
    VERIFY: ("info", *_READING),
    HARMLESS: ("info", *_READING, "verify", "quick", "append", "write"),
}


@dataclass(frozen=True)
class Attack:
    """One hostile store.

    Attributes
    ----------
    harm : callable
        Path of a sound store, to be made hostile.
    refused : str
        Where, at the latest.
    says : str
        Regular expression found in the message.
    exit_code : int
    """

    harm: Callable[[Path], object]
    refused: str
    says: str = ""
    exit_code: int = 3


def make_store(path: Path, *, codec: str = "float32") -> Store:
    """Make the store that is harmed: canaries, and one shard, conditions included."""
    made = create(path, codec=codec, shard_bytes=1 << 20, canaries=make_canaries(KitEncoder()))
    return fill(made, [*sentences(9), *CONDITIONED_SENTENCES])


def copy_store(sound: Path, path: Path) -> Path:
    shutil.copytree(sound, path, symlinks=True)
    return path


def manifest_file(store: Path) -> Path:
    return store / "manifests" / "00000002.json"


def manifest_body(store: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(manifest_file(store).read_bytes())
    del body["checksum"]
    return body


def signed(body: dict[str, Any]) -> bytes:
    """Return a manifest whose checksum and fingerprint fit."""
    if isinstance(body.get("recipe"), dict):
        body["fingerprint"] = hashlib.sha256(canonical_json(body["recipe"])).hexdigest()
    body["checksum"] = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps(body, indent=1).encode()


def republish(store: Path, content: bytes, *, extents: dict[str, Any] | None = None, **changes: Any) -> None:
    """Put a shard in place of the store's, and a manifest whose every hash fits."""
    body = manifest_body(store)
    (entry,) = body["shards"]
    entry["extents"].update(extents or {})
    start = entry["extents"]["values"][0]
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    entry["head_sha256"] = hashlib.sha256(content[:start]).hexdigest()
    entry["n_bytes"] = len(content)
    entry.update(changes)
    for path in (store / "shards").iterdir():
        path.unlink()
    (store / "shards" / f"{entry['sha256'][:32]}.h5").write_bytes(content)
    manifest_file(store).write_bytes(signed(body))
    shutil.rmtree(store / "index")


def shard_bytes(store: Path) -> bytes:
    (path,) = (store / "shards").iterdir()
    return path.read_bytes()


def require_refused(attack: Attack, report: Any) -> None:
    """Check a :class:`victim.Report`: refused where it should be, else served, and nothing else done."""
    from tests.attacks.victim import MOST_MEMORY

    assert not report.died, report.died
    assert not report.foreign, report.foreign
    assert not report.outside, report.outside
    assert report.memory <= MOST_MEMORY, f"{report.memory:,} bytes"
    for stage in _REFUSING[attack.refused]:
        # Who looks for the tokens of a sentence that has another's key finds none, which is no damage yet.
        searching = attack.refused == CONTENT and stage in _READING
        codes = (attack.exit_code, 1) if searching else (attack.exit_code,)
        assert report.exit_code(stage) in codes, (stage, report.stages[stage])
        assert re.search(attack.says, report.message(stage)), (stage, report.stages[stage])
    for stage in _SERVING[attack.refused]:
        assert report.exit_code(stage) == 0, (stage, report.stages[stage])
