"""Hostile canaries: what is read whole before every append, beside a sound shard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attacks.harms.manifests import changed, in_place, link, sparse
from tests.attacks.hostile import APPEND, OPEN, VERIFY, Attack, manifest_body, manifest_file, signed

CANARIES = "canaries/*.h5"


def canaries(**new: Any) -> Callable[[Path], None]:
    """Return the harm of changing what the manifest says of the canaries."""
    return changed(lambda body: body["canaries"].update(new))


def extent(name: str, *new: Any) -> Callable[[Path], None]:
    return changed(lambda body: body["canaries"]["extents"].update({name: list(new)}))


def file_of(store: Path) -> Path:
    (path,) = store.glob(CANARIES)
    return path


def edited(old: bytes, new: bytes, *, pinned: bool) -> Callable[[Path], None]:
    """Return the harm of changing bytes of the file; ``pinned``, every hash fits."""

    def harm(store: Path) -> None:
        path, body = file_of(store), manifest_body(store)
        content = path.read_bytes()
        assert content.count(old) == 1
        content = content.replace(old, new)
        path.write_bytes(content)
        if pinned:
            start = body["canaries"]["extents"]["values"][0]
            whole, head = (hashlib.sha256(part).hexdigest() for part in (content, content[:start]))
            body["canaries"].update(sha256=whole, head_sha256=head)
            path.rename(path.with_name(f"{whole[:32]}.h5"))
            manifest_file(store).write_bytes(signed(body))

    return harm


def flipped_value(store: Path) -> None:
    path = file_of(store)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


CANARY_ATTACKS = {
    "vector changed": Attack(flipped_value, APPEND, "checksum"),
    "sentence changed": Attack(edited(b"Canaries", b"Sparrows", pinned=False), APPEND, "is damaged"),
    "sentence of another key": Attack(
        edited(b"Canaries", b"Sparrows", pinned=True), VERIFY, "the key is not that"
    ),
    "token that is no text": Attack(
        edited(b"Canaries", b"\xff" * 8, pinned=True), APPEND, "is not UTF-8", exit_code=3
    ),
    "gone": Attack(lambda store: file_of(store).unlink(), APPEND, "is missing"),
    "a link": Attack(link(CANARIES), APPEND, "cannot be opened"),
    "a pipe": Attack(in_place(CANARIES, os.mkfifo), APPEND, "cannot be opened"),
    "a directory": Attack(in_place(CANARIES, Path.mkdir), APPEND, "cannot be opened"),
    "two terabytes": Attack(
        lambda store: sparse(file_of(store), 2 << 40), APPEND, "it was cut or overwritten"
    ),
    "their directory a link": Attack(link("canaries", "/etc"), OPEN, "is a symbolic link"),
    "more than any encoder needs": Attack(canaries(n_sentences=65), OPEN, "between 1 and 64"),
    "none": Attack(canaries(n_sentences=0), OPEN, "between 1 and 64"),
    "a gigabyte": Attack(canaries(n_bytes=1 << 30), OPEN, "between 0 and 16777216"),
    "of another codec": Attack(canaries(codec="float16"), OPEN, "expected float32"),
    "of another shape": Attack(extent("values", 4096, "<f4", 48, 9), OPEN, "another shape"),
    "outside their file": Attack(extent("values", 1 << 20, "<f4", 48, 8), APPEND, "contradicts itself"),
    "a path for a name": Attack(canaries(sha256="../" * 20 + "etc"), OPEN, "not 64 hexadecimal digits"),
    "no limit to drift": Attack(canaries(tolerance=1e300), OPEN, "between 0 and 1"),
    "no drift allowed": Attack(canaries(tolerance=0.0), OPEN, "between 0 and 1"),
    "a tolerance that is no number": Attack(canaries(tolerance=True), OPEN, "between 0 and 1"),
    "a tolerance of text": Attack(canaries(tolerance="0.1"), OPEN, "between 0 and 1"),
    "a novel": Attack(canaries(made_with="x" * 10_000), OPEN, "no short, printable text"),
    "escapes for a terminal": Attack(canaries(made_with="\x1b[2J"), OPEN, "no short, printable text"),
    "more tokens than any encoder needs": Attack(canaries(n_tokens=4097), OPEN, "between 0 and 4096"),
    "a list of them": Attack(changed(lambda body: body.update(canaries=[1])), OPEN, "TypeError"),
    "half of what belongs to them": Attack(
        changed(lambda body: body["canaries"].pop("tolerance")), OPEN, "tolerance"
    ),
}
