"""Hostile manifests and directories around a sound shard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attacks.hostile import (
    CONTENT,
    HARMLESS,
    OPEN,
    READ,
    Attack,
    manifest_body,
    manifest_file,
    republish,
    shard_bytes,
    signed,
)

DEEP = 100_000
SPARSE = 2 << 30


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return the harm of changing a manifest's fields; its checksum and fingerprint fit."""

    def harm(store: Path) -> None:
        body = manifest_body(store)
        change(body)
        manifest_file(store).write_bytes(signed(body))

    return harm


def fields(**new: Any) -> Callable[[Path], None]:
    return changed(lambda body: body.update(new))


def entry(**new: Any) -> Callable[[Path], None]:
    return changed(lambda body: body["shards"][0].update(new))


def extents(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return changed(lambda body: change(body["shards"][0]["extents"]))


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return the harm of changing a manifest's text."""
    return lambda store: manifest_file(store).write_bytes(change(manifest_file(store).read_bytes()))


def spliced(text: bytes) -> Callable[[Path], None]:
    """Return the harm of putting text in place of the number of the manifest."""
    return raw(lambda old: old.replace(b'"number": 2', b'"number": ' + text))


def sparse(path: Path, n_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(n_bytes)


def nested(depth: int) -> dict[str, Any]:
    recipe: dict[str, Any] = {"kind": "test", "version": 1}
    inner = recipe
    for _ in range(depth):
        inner["deeper"] = inner = {}
    return recipe


def doubled_name(old: bytes) -> bytes:
    return old.replace(b'"dim": 8', b'"dim": 8, "dim": 8')


def number_mismatch(store: Path) -> None:
    shutil.copy(manifest_file(store), store / "manifests" / "00000003.json")


MANIFEST_ATTACKS = {
    # -- names
    "path in a hash": Attack(entry(sha256="../" * 20 + "etc"), OPEN, "not 64 hexadecimal digits"),
    "absolute path in a hash": Attack(
        entry(sha256="/etc/passwd" + "0" * 53), OPEN, "not 64 hexadecimal digits"
    ),
    "NUL in a hash": Attack(entry(sha256="0" * 63 + "\0"), OPEN, "not 64 hexadecimal digits"),
    "line end after a hash": Attack(entry(sha256="0" * 64 + "\n"), OPEN, "not 64 hexadecimal digits"),
    "digits of another script": Attack(entry(sha256="٣" * 64), OPEN, "not 64 hexadecimal digits"),
    "hash of another shard": Attack(entry(sha256="0" * 64), READ, "is missing"),
    "path in an extent's name": Attack(
        extents(lambda e: e.update({"../x": [0, "|u1", 1]})), READ, "contradicts itself"
    ),
    "shard listed twice": Attack(
        changed(lambda b: b["shards"].append(b["shards"][0])), OPEN, "lists a shard twice"
    ),
    "shard listed twice under one name": Attack(
        changed(
            lambda b: b["shards"].append(
                {**b["shards"][0], "sha256": b["shards"][0]["sha256"][:32] + "0" * 32}
            )
        ),
        OPEN,
        "lists a shard twice",
    ),
    "manifest of a number with zeros before it": Attack(
        lambda store: shutil.copy(manifest_file(store), store / "manifests" / "000000000000003.json"),
        HARMLESS,
    ),
    "manifest of a number of another script": Attack(
        lambda store: shutil.copy(manifest_file(store), store / "manifests" / "٠٠٠٠٠٠٠٣.json"), HARMLESS
    ),
    "manifest of a huge number": Attack(
        lambda store: shutil.copy(manifest_file(store), store / "manifests" / f"{'9' * 200}.json"), HARMLESS
    ),
    # -- JSON
    "name twice in an object": Attack(raw(doubled_name), OPEN, "'dim' occurs twice"),
    "depth of 100,000": Attack(spliced(b"[" * DEEP + b"]" * DEEP), OPEN, "over the bound|nested too deeply"),
    "depth of 100,000, spaced": Attack(spliced(b"[        " * DEEP + b"]" * DEEP), OPEN, "nested too deeply"),
    "objects in objects": Attack(
        spliced(b'{"aaaaaaaaaaaaaaaa":' * 5000 + b"1" + b"}" * 5000), OPEN, "nested too deeply"
    ),
    "four million empty lists": Attack(spliced(b"[" + b"[]," * 4_000_000 + b"1]"), OPEN, "over the bound"),
    "five thousand digits": Attack(spliced(b"9" * 5000), OPEN, "does not fit 64 bits|digits"),
    "ten million digits": Attack(spliced(b"9" * 10_000_000), OPEN, "does not fit 64 bits|digits"),
    "65 bits": Attack(fields(number=1 << 64), OPEN, "does not fit 64 bits"),
    "64 bits": Attack(fields(number=(1 << 64) - 1), OPEN, "is not a number between"),
    "1e400": Attack(spliced(b"1e400"), OPEN, "1e400 is not finite"),
    "NaN": Attack(spliced(b"NaN"), OPEN, "NaN is not JSON"),
    "Infinity": Attack(spliced(b"-Infinity"), OPEN, "-Infinity is not JSON"),
    "UTF-16": Attack(raw(lambda old: old.decode().encode("utf-16")), OPEN, "not JSON as expected"),
    "UTF-8 with a mark": Attack(raw(lambda old: b"\xef\xbb\xbf" + old), OPEN, "not JSON as expected"),
    "not UTF-8": Attack(raw(lambda old: old.replace(b'"test"', b'"\xff"')), OPEN, "not JSON as expected"),
    "text after the end": Attack(raw(lambda old: old + b"{}"), OPEN, "not JSON as expected"),
    "two gigabytes": Attack(lambda store: sparse(manifest_file(store), SPARSE), OPEN, "over the bound"),
    "a list": Attack(raw(lambda old: b"[]"), OPEN, "not a featurestore manifest"),
    "empty": Attack(raw(lambda old: b""), OPEN, "not JSON as expected"),
    "checksum of another manifest": Attack(
        raw(lambda old: old.replace(b'"dim": 8', b'"dim": 9')), OPEN, "checksum .* expected"
    ),
    "checksum a list": Attack(
        raw(lambda old: old.replace(b'"checksum": "', b'"checksum": [], "x": "')), OPEN, "checksum"
    ),
    # -- fields
    "negative sentences": Attack(entry(n_sentences=-1), OPEN, "-1 is not a number between"),
    "negative bytes": Attack(entry(n_bytes=-(1 << 62)), OPEN, "is not a number between"),
    "no sentences": Attack(entry(n_sentences=0), READ, "contradicts itself"),
    "one sentence fewer": Attack(entry(n_sentences=13), READ, "contradicts itself"),
    "2^48 tokens": Attack(entry(n_tokens=1 << 48), READ, "contradicts itself"),
    "a boolean number": Attack(fields(dim=True), OPEN, "True is not a number"),
    "a version that is true": Attack(fields(format_version=True), OPEN, "format version True"),
    "a fractional number": Attack(fields(dim=8.0), OPEN, "8.0 is not a number"),
    "another dimension": Attack(fields(dim=16), OPEN, "vectors of another shape"),
    "shards no list": Attack(fields(shards={"0": 1}), OPEN, "not a list"),
    "shards of null": Attack(fields(shards=[None]), OPEN, "TypeError"),
    "number of another manifest": Attack(number_mismatch, OPEN, "says it is number 2"),
    "newer version": Attack(fields(format_version=3), OPEN, "upgrade", exit_code=1),
    "unknown fields": Attack(
        changed(
            lambda b: (
                b.update(surprise=[1]),
                b["shards"][0].update(surprise={}),
                b["commit"].update(surprise=1),
            )
        ),
        HARMLESS,
    ),
    "encoder an object": Attack(fields(encoder={"a": 1}), OPEN, "the encoder no string"),
    "encoder that runs code": Attack(
        fields(encoder="flair:/etc/passwd,__import__('os').system('id')"), HARMLESS
    ),
    "time with escape codes": Attack(
        changed(lambda b: b["commit"].update(time=["\x1b[2J"])), OPEN, "time is"
    ),
    "speed of 10^300": Attack(changed(lambda b: b["commit"].update(tokens_per_second=1e300)), HARMLESS),
    # -- recipes
    "recipe of two megabytes": Attack(
        fields(recipe={"kind": "test", "version": 1, "x": "x" * (2 << 20)}), OPEN, "exceeds 1,048,576"
    ),
    "recipe 500 deep": Attack(fields(recipe=nested(500)), OPEN, "nested at most 32 deep"),
    "recipe a list of pairs": Attack(
        fields(recipe=[["kind", "test"], ["version", 1]]), OPEN, "recipe is no object"
    ),
    "recipe of another fingerprint": Attack(
        raw(lambda old: signed_again(old, fingerprint="f" * 64)), OPEN, "is not that of its recipe"
    ),
    # -- extents
    "extents no object": Attack(entry(extents=[]), OPEN, "damaged"),
    "a million dimensions": Attack(
        extents(lambda e: e.update(values=[0, "<f4", *[1 << 48] * 100_000])), OPEN, "too many dimensions"
    ),
    "a thousand extents": Attack(
        extents(lambda e: e.update({f"x{i}": [0, "|u1", 1] for i in range(1000)})), OPEN, "too many extents"
    ),
    "extents that overlap": Attack(
        extents(lambda e: e["tokens"].__setitem__(0, e["conditions"][0])), READ, "overlap"
    ),
    "values over the head": Attack(
        extents(lambda e: e["values"].__setitem__(0, 0)), READ, "contradicts itself"
    ),
    "tokens behind the file": Attack(
        extents(lambda e: e["tokens"].__setitem__(0, 1 << 40)), READ, "lies outside the file"
    ),
    "an object type": Attack(extents(lambda e: e["tokens"].__setitem__(1, "O")), OPEN, "type 'O'"),
    "a structured type": Attack(extents(lambda e: e["tokens"].__setitem__(1, "u1,u1")), OPEN, "type 'u1,u1'"),
    "big-endian values": Attack(extents(lambda e: e["values"].__setitem__(1, ">f4")), OPEN, "type '>f4'"),
    "a negative size": Attack(extents(lambda e: e["tokens"].__setitem__(2, -1)), OPEN, "-1 is not a number"),
}


def signed_again(old: bytes, **new: Any) -> bytes:
    import hashlib

    from featurestore.recipe import canonical_json

    body = json.loads(old)
    del body["checksum"]
    body.update(new)
    body["checksum"] = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps(body).encode()


# -- shards whose hashes fit and whose numbers do not make sense


def head(dataset: str, at: int, data: bytes) -> Callable[[Path], None]:
    """Return the harm of other bytes in a dataset of the head, every hash fitting."""

    def harm(store: Path) -> None:
        content = bytearray(shard_bytes(store))
        start = manifest_body(store)["shards"][0]["extents"][dataset][0] + at
        content[start : start + len(data)] = data
        republish(store, bytes(content))

    return harm


def sparse_shard(store: Path) -> None:
    """A terabyte of nothing, and a manifest that calls it head."""
    body = manifest_body(store)
    (only,) = body["shards"]
    (path,) = (store / "shards").iterdir()
    sparse(path, 1 << 40)
    shift = (1 << 40) - only["n_bytes"]
    only["n_bytes"] = 1 << 40
    only["extents"]["values"][0] += shift
    manifest_file(store).write_bytes(signed(body))


HEAD_ATTACKS = {
    "offsets that descend": Attack(
        head("offsets", 8, (1 << 63).to_bytes(8, "little")), READ, "/offsets does not ascend"
    ),
    "offsets that stand still": Attack(head("offsets", 8, bytes(8)), READ, "/offsets does not ascend"),
    "token offsets outside": Attack(
        head("token_offsets", 8, b"\xff" * 8), READ, "/token_offsets does not ascend"
    ),
    "condition offsets outside": Attack(
        head("condition_offsets", 16, b"\xff" * 8), READ, "/condition_offsets does not ascend"
    ),
    "condition offsets that descend": Attack(
        head("condition_offsets", 8, (9).to_bytes(8, "little")), READ, "/condition_offsets does not ascend"
    ),
    "a condition of another sentence": Attack(
        head("conditions", 0, b"X"), CONTENT, "not that of the tokens and condition|are not in"
    ),
    "a key of another sentence": Attack(
        head("keys", 0, bytes(16)), CONTENT, "not that of the tokens|are not in"
    ),
    "tokens that are not text": Attack(head("tokens", 0, b"\xff"), CONTENT, "not UTF-8"),
    "checksums of other vectors": Attack(
        head("checksums", 0, bytes(8)), CONTENT, "checksum|not what was committed"
    ),
    "terabyte of head": Attack(sparse_shard, READ, "over the bound"),
}


# -- the directory


def link(name: str, target: str = "") -> Callable[[Path], None]:
    """Return the harm of a symbolic link in place of a file or directory, to a copy outside unless told."""

    def harm(store: Path) -> None:
        (path,) = store.glob(name)
        outside = store.parent / "outside"
        outside.mkdir(exist_ok=True)
        copy = outside / path.name
        path.rename(copy)
        path.symlink_to(target or copy)

    return harm


def in_place(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return the harm of something else in place of a file or directory."""

    def harm(store: Path) -> None:
        (path,) = store.glob(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return harm


def store_in_store(store: Path) -> None:
    for place in ("shards", "manifests", "index", "tmp"):
        copy = store.parent / "copy"
        shutil.copytree(store, copy)
        copy.rename(store / place / "00000003.json")


MANIFEST, SHARD, INDEX = "manifests/00000002.json", "shards/*.h5", "index/*.idx"
DIRECTORY_ATTACKS = {
    "manifests a link": Attack(link("manifests"), OPEN, "manifests is a symbolic link"),
    "shards a link": Attack(link("shards"), OPEN, "shards is a symbolic link"),
    "index a link": Attack(link("index"), OPEN, "index is a symbolic link"),
    "tmp a link": Attack(link("tmp"), OPEN, "tmp is a symbolic link"),
    "damaged a link": Attack(
        lambda store: (store / "damaged").symlink_to(store.parent), OPEN, "damaged is a symbolic link"
    ),
    "manifests a file": Attack(in_place("manifests", Path.touch), OPEN, "is not a store", exit_code=2),
    "manifests a pipe": Attack(in_place("manifests", os.mkfifo), OPEN, "is not a store", exit_code=2),
    "manifest a link": Attack(link(MANIFEST), OPEN, "cannot be read"),
    "manifest a link to an endless device": Attack(link(MANIFEST, "/dev/zero"), OPEN, "cannot be read"),
    "manifest a pipe": Attack(in_place(MANIFEST, os.mkfifo), OPEN, "cannot be read"),
    "manifest a directory": Attack(in_place(MANIFEST, Path.mkdir), OPEN, "cannot be read"),
    "manifest a link to itself": Attack(
        in_place(MANIFEST, lambda path: path.symlink_to(path.name)), OPEN, "cannot be read"
    ),
    "shard a link": Attack(link(SHARD), READ, "cannot be opened"),
    "shard a link to an endless device": Attack(link(SHARD, "/dev/zero"), READ, "cannot be opened"),
    "shard a pipe": Attack(in_place(SHARD, os.mkfifo), READ, "cannot be opened"),
    "shard a directory": Attack(in_place(SHARD, Path.mkdir), READ, "cannot be opened"),
    "shard of two terabytes": Attack(
        lambda store: sparse(next((store / "shards").iterdir()), 2 << 40), READ, "it was cut or overwritten"
    ),
    "a store in a store": Attack(store_in_store, OPEN, "00000003.json cannot be read"),
    "files of others in shards": Attack(
        lambda store: (store / "shards" / ("0" * 32 + ".h5")).symlink_to("/etc/passwd"), HARMLESS
    ),
}
