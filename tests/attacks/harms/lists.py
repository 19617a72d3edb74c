"""Hostile lists of shards: forged, nested, huge, of other stores; hashes fit unless that is the attack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.store.format.directory import read_manifest
from featurestore.store.listing.files import Kind, list_file
from featurestore.store.listing.rows import ROW, Rows, rows_of
from tests.attacks.hostile import HARMLESS, OPEN, READ, Attack, manifest_body, manifest_file, signed

VALUES, KEYS, TOKENS = 9, 3, 8
"""Places of datasets among a row's offsets."""


def listed(
    change: Callable[[Rows], Rows] = lambda rows: rows,
    *,
    file: Callable[[bytes], bytes] = lambda content: content,
    body: Callable[[dict[str, Any]], object] = lambda body: None,
    kind: Callable[[Kind], Kind] = lambda kind: kind,
    **reference: Any,
) -> Callable[[Path], None]:
    """Return the harm of moving the shard into a list, and of changing its rows, its file, its manifest."""

    def harm(store: Path) -> None:
        manifest = read_manifest(store)
        rows = change(rows_of(tuple(manifest.shards), manifest.token_shape).copy())
        found, parts = list_file(rows, kind(manifest.kind))
        (store / "lists").mkdir(exist_ok=True)
        (store / "lists" / found.name).write_bytes(file(b"".join(parts)))
        changed = {**manifest_body(store), "shards": [], "lists": [{**asdict(found), **reference}]}
        body(changed)
        manifest_file(store).write_bytes(signed(changed))

    return harm


def cell(name: str, value: Any, place: int | None = None) -> Callable[[Rows], Rows]:
    """Return a change of one number of the row."""

    def change(rows: Rows) -> Rows:
        if place is None:
            rows[name][0] = value
        else:
            rows[name][0, place] = value
        return rows

    return change


def in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return the harm of something else in place of the file of a sound list."""

    def harm(store: Path) -> None:
        listed()(store)
        (path,) = (store / "lists").iterdir()
        kept = store.parent / "outside.list"
        path.rename(kept)
        make(path)

    return harm


def folder_a_link(store: Path) -> None:
    listed()(store)
    (store / "lists").rename(store.parent / "outside")
    (store / "lists").symlink_to(store.parent / "outside")


def twice(store: Path) -> None:
    own = manifest_body(store)["shards"]
    listed(body=lambda body: body.update(shards=own))(store)


def many(n: int, n_shards: int) -> Callable[[dict[str, Any]], object]:
    """Return a change of a manifest: it names lists that nobody has."""

    def change(body: dict[str, Any]) -> None:
        body["lists"] = [{**body["lists"][0], "sha256": f"{i:064x}", "n_shards": n_shards} for i in range(n)]

    return change


def deep(levels: int) -> Any:
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


LIST_ATTACKS = {
    "a sound list": Attack(listed(), HARMLESS),
    "a row whose own checksum is wrong": Attack(listed(cell("check", 7)), HARMLESS),
    "lists in version 1": Attack(
        lambda store: manifest_file(store).write_bytes(
            signed({**manifest_body(store), "format_version": 1, "lists": [{"sha256": "../x"}]})
        ),
        HARMLESS,
    ),
    # -- shards that are there twice
    "shard twice in a list": Attack(
        listed(lambda rows: np.concatenate([rows, rows])), OPEN, "lists a shard twice"
    ),
    "shard in a list and in the manifest": Attack(
        twice,
        OPEN,
        "lists a shard twice",
    ),
    "list named twice": Attack(
        listed(body=lambda b: b["lists"].append(b["lists"][0])), OPEN, "names a list twice"
    ),
    "list named twice with other sums": Attack(
        listed(body=lambda b: b["lists"].append({**b["lists"][0], "n_tokens": 0})),
        OPEN,
        "add up|lists a shard twice",
    ),
    "65,536 equal rows": Attack(listed(lambda rows: np.repeat(rows, 1 << 16)), OPEN, "lists a shard twice"),
    # -- lists of something else
    "list of another recipe": Attack(
        listed(kind=lambda k: Kind("f" * 64, k.token_shape)), OPEN, "not of 1 shards of this store"
    ),
    "list of vectors of another shape": Attack(
        listed(kind=lambda k: Kind(k.fingerprint, (2, 8))), OPEN, "not of 1 shards of this store"
    ),
    "list that is a manifest": Attack(
        in_place(lambda path: shutil.copy(manifest_file(path.parent.parent), path)), OPEN, "bytes, expected"
    ),
    # -- numbers
    "more shards than it has": Attack(listed(n_shards=2), OPEN, "bytes, expected"),
    "no shards": Attack(listed(n_shards=0), OPEN, "0 is not a number between"),
    "too many shards": Attack(listed(n_shards=(1 << 16) + 1), OPEN, "is not a number between"),
    "a boolean number of shards": Attack(listed(n_shards=True), OPEN, "True is not a number"),
    "other sums": Attack(listed(n_tokens=1), OPEN, "do not add up"),
    "negative sums": Attack(listed(n_bytes=-1), OPEN, "-1 is not a number between"),
    "two thousand lists": Attack(listed(body=many(2000, 1)), OPEN, "not a list or too many"),
    "lists of more shards than a store has": Attack(
        listed(body=many(1000, 1 << 16)), OPEN, "too many shards"
    ),
    "lists that are not there": Attack(listed(body=many(1000, 1)), OPEN, "cannot be read"),
    "lists no list": Attack(listed(body=lambda b: b.update(lists={"0": 1})), OPEN, "not a list or too many"),
    "lists of null": Attack(listed(body=lambda b: b.update(lists=[None])), OPEN, "TypeError"),
    "lists in lists": Attack(listed(body=lambda b: b.update(lists=deep(20))), OPEN, "TypeError"),
    "lists in lists, 50,000 deep": Attack(
        lambda store: (
            listed()(store),
            manifest_file(store).write_bytes(
                manifest_file(store).read_bytes().replace(b'"lists": [', b'"lists": [' + b"[" * 50_000)
            ),
        ),
        OPEN,
        "over the bound|nested too deeply|not JSON",
    ),
    "no lists in version 2": Attack(listed(body=lambda b: b.pop("lists")), OPEN, "KeyError"),
    # -- names
    "path in the name of a list": Attack(
        listed(sha256="../" * 20 + "etc"), OPEN, "not 64 hexadecimal digits"
    ),
    "list of another hash": Attack(listed(sha256="0" * 64), OPEN, "cannot be read"),
    # -- files
    "flipped bit": Attack(
        listed(file=lambda content: bytes([content[0] ^ 1]) + content[1:]), OPEN, "has hash .* expected"
    ),
    "cut list": Attack(listed(file=lambda content: content[:-1]), OPEN, "bytes, expected"),
    "longer list": Attack(listed(file=lambda content: content + bytes(9)), OPEN, "bytes, expected"),
    "empty list": Attack(listed(file=lambda content: b""), OPEN, "bytes, expected"),
    "list of two gigabytes": Attack(
        in_place(lambda path: path.touch() or os.truncate(path, 2 << 30)), OPEN, "bytes, expected"
    ),
    "list missing": Attack(in_place(lambda path: None), OPEN, "cannot be read"),
    "list a link": Attack(
        in_place(lambda path: path.symlink_to(path.parent.parent.parent / "outside.list")),
        OPEN,
        "cannot be read",
    ),
    "list a link to an endless device": Attack(
        in_place(lambda path: path.symlink_to("/dev/zero")), OPEN, "cannot be read"
    ),
    "list a pipe": Attack(in_place(os.mkfifo), OPEN, "cannot be read"),
    "list a directory": Attack(in_place(Path.mkdir), OPEN, "cannot be read"),
    "lists a link": Attack(folder_a_link, OPEN, "lists is a symbolic link"),
    "lists a file": Attack(
        lambda store: (listed()(store), shutil.rmtree(store / "lists"), (store / "lists").touch()),
        OPEN,
        "cannot be read",
    ),
    # -- rows
    "a codec of no name": Attack(listed(cell("codec", 7)), OPEN, "codec of row 0 is 7"),
    "2^27 sentences": Attack(listed(cell("n_sentences", 1 << 27)), OPEN, "n_sentences of row 0"),
    "2^60 bytes": Attack(listed(cell("n_bytes", 1 << 60)), OPEN, "n_bytes of row 0"),
    "2^63 tokens": Attack(listed(cell("n_tokens", 1 << 63), n_tokens=0), OPEN, "n_tokens of row 0"),
    "an error that is no number": Attack(listed(cell("error", np.nan, 1)), OPEN, "not finite"),
    "an infinite error": Attack(listed(cell("error", np.inf, 3)), OPEN, "not finite"),
    "no sentences in a row": Attack(listed(cell("n_sentences", 0)), READ, "contradicts itself"),
    "one sentence fewer in a row": Attack(listed(cell("n_sentences", 13)), READ, "does not ascend"),
    "2^47 tokens in a row": Attack(listed(cell("n_tokens", 1 << 47)), READ, "contradicts itself"),
    "values over the head in a row": Attack(listed(cell("offsets", 0, VALUES)), READ, "contradicts itself"),
    "values at an odd place in a row": Attack(
        listed(cell("offsets", 4097, VALUES)), READ, "contradicts itself"
    ),
    "tokens behind the file in a row": Attack(
        listed(cell("offsets", 1 << 31, TOKENS)), READ, "contradicts itself"
    ),
    "keys over the superblock's end": Attack(
        listed(lambda rows: cell("offsets", rows["offsets"][0, TOKENS], KEYS)(rows)), READ, "overlap"
    ),
    "gigabytes of tokens in a row": Attack(
        listed(cell("token_bytes", (1 << 32) - 1)), READ, "contradicts itself"
    ),
    "another codec in a row": Attack(listed(cell("codec", 1)), READ, "contradicts itself"),
    "hash of another head in a row": Attack(
        listed(cell("head_sha256", 7, 3)), READ, "not what was committed"
    ),
    "hash of another shard in a row": Attack(listed(cell("sha256", 7, 3)), READ, "is missing"),
    "zeros for a row": Attack(listed(lambda rows: np.zeros(1, ROW)), READ, "contradicts itself"),
}
