"""Manifests: what was committed reads back, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from featurestore import limits
from featurestore.errors import DamagedStoreError, FormatVersionError, NotAStoreError, UsageError
from featurestore.recipe import Recipe, canonical_json
from featurestore.store.format.directory import list_numbers, manifest_path, read_manifest
from featurestore.store.format.manifest import parse_manifest
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentences


@pytest.fixture
def store(tmp_path) -> Store:
    return fill(create(tmp_path / "store.fs", shard_bytes=1 << 20), sentences(4))


def forged(store: Store, **changes) -> bytes:
    """Return the latest manifest with other fields and a fitting checksum, as a stranger could write it."""
    body = json.loads(manifest_path(store.path, store.snapshot).read_bytes())
    del body["checksum"]
    body.update(changes)
    body["checksum"] = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps(body).encode()


def parse(store: Store, raw: bytes):
    return parse_manifest(raw, Path("m.json"), store.snapshot)


def test_manifest_reads_back_as_it_was_committed(store):
    assert read_manifest(store.path) == store.manifest
    assert parse(store, forged(store)) == store.manifest


@pytest.mark.parametrize("n_shards", [0, 1, 3])
def test_a_manifest_has_the_bytes_of_plain_json(tmp_path, n_shards):
    # A recipe and an encoder may hold what looks like the list of shards.
    odd = Recipe({"kind": "test", "version": 1, "shards": [], "x": '\n "shards": []', "y": {"shards": []}})
    store = create(tmp_path / "odd.fs", recipe=odd, encoder='"shards":[]}\n "shards": []')
    for number in range(n_shards):
        store = fill(store, sentences(2, start=2 * number))
    raw = store.manifest.to_json()
    body = json.loads(raw)
    assert json.dumps(body, indent=1).encode() + b"\n" == raw
    assert parse(store, raw) == store.manifest
    assert len(body["shards"]) == n_shards


def test_manifests_are_numbered_from_one_without_gaps(store):
    latest = fill(store, sentences(2, start=50))
    assert list_numbers(store.path) == [1, 2, 3]
    assert latest.snapshot == 3
    assert [read_manifest(store.path, number).number for number in (1, 2, 3)] == [1, 2, 3]
    assert len(read_manifest(store.path, 2).shards) == 1


def test_commit_says_when_and_by_what(store):
    commit = store.manifest.commit
    assert commit.software.startswith("featurestore ")
    assert commit.time.endswith("+00:00")


@pytest.mark.parametrize("bit", [0, 3, 5, 7])
def test_flipped_bit_never_changes_what_a_manifest_says(store, bit):
    # The checksum covers what the JSON says, not how it is spelled: a flip may turn 1e-05 into 1E-05, say.
    # Such a manifest may be read, but only as exactly what was committed.
    raw = manifest_path(store.path, store.snapshot).read_bytes()
    refused = 0
    positions = range(bit, len(raw), 5)
    for position in positions:
        flipped = bytearray(raw)
        flipped[position] ^= 1 << bit
        try:
            assert parse(store, bytes(flipped)) == store.manifest, position
        except (DamagedStoreError, FormatVersionError):
            refused += 1
    assert refused > 0.6 * len(positions)


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
def test_cut_manifest_is_damaged(store, keep):
    raw = manifest_path(store.path, store.snapshot).read_bytes()
    with pytest.raises(DamagedStoreError, match="not JSON"):
        parse(store, raw[:keep])


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage",
        b"[]",
        b"null",
        b'{"format": "other"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"format":"featurestore","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"format":"featurestore","number":' + b"9" * 5000 + b"}",
        b'{"format":"featurestore","number":1e999}',
        b'{"format":"featurestore","dim":NaN}',
        b'{"format":"featurestore"}',
    ],
    ids=lambda raw: repr(raw[:32]),
)
def test_what_is_no_manifest_is_damaged_and_names_the_file(store, raw):
    with pytest.raises(DamagedStoreError, match=r"m\.json is damaged"):
        parse(store, raw)


def test_newer_format_says_to_upgrade(store):
    with pytest.raises(FormatVersionError, match=r"version 3; .* upgrade"):
        parse(store, forged(store, format_version=3))


@pytest.mark.parametrize("version", [0, "1", None, 1.5])
def test_impossible_format_version_is_damaged(store, version):
    with pytest.raises(DamagedStoreError, match="format version"):
        parse(store, forged(store, format_version=version))


def shard_with(store: Store, **changes) -> list[dict]:
    body = json.loads(manifest_path(store.path, store.snapshot).read_bytes())
    return [{**body["shards"][0], **changes}]


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 1},
        {"number": -1},
        {"number": True},
        {"dim": 0},
        {"dim": 10**9},
        {"dim": "8"},
        {"n_layers": 0},
        {"shard_bytes": 0},
        {"codec": "int4"},
        {"codec": ["float16"]},
        {"recipe": {}},
        {"recipe": None},
        {"recipe": {"kind": "other", "version": 1}},
        {"fingerprint": 7},
        {"shards": {}},
        {"shards": [1]},
        {"shards": [{}]},
        {"commit": None},
        {"commit": {"n_read": "many"}},
        {"commit": []},
    ],
    ids=str,
)
def test_forged_manifest_is_refused_although_its_checksum_fits(store, changes):
    with pytest.raises(DamagedStoreError):
        parse(store, forged(store, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "../../etc/passwd"},
        {"sha256": "A" * 64},
        {"head_sha256": 5},
        {"n_bytes": -1},
        {"n_bytes": 1 << 60},
        {"n_sentences": 1.5},
        {"codec": "zip"},
        {"extents": []},
        {"extents": {"values": [0]}},
        {"extents": {"values": [0, "O", 1]}},
        {"extents": {"values": ["0", "<f4", 1]}},
        {"error": {"max_abs": "small"}},
    ],
    ids=str,
)
def test_forged_shard_entry_is_refused(store, changes):
    with pytest.raises(DamagedStoreError):
        parse(store, forged(store, shards=shard_with(store, **changes)))


@pytest.mark.parametrize(
    "change",
    [
        lambda extents: extents.pop("keys"),
        lambda extents: extents.update(extra=[0, "|u1", 4]),
        lambda extents: extents.update(values=[extents["values"][0], "<f4", 10**9, 8]),
        lambda extents: extents.update(values=[0, *extents["values"][1:]]),
        lambda extents: extents.update(keys=[10**9, *extents["keys"][1:]]),
        lambda extents: extents.update(tokens=[0, "|u1", 1, 1]),
    ],
    ids=[
        "no keys",
        "extra",
        "huge values",
        "values over the head",
        "keys outside",
        "tokens of two dimensions",
    ],
)
def test_extents_that_contradict_the_counts_are_refused_on_reading(store, change):
    shards = shard_with(store)
    change(shards[0]["extents"])
    opened = Store(store.path, parse(store, forged(store, shards=shards)))
    with pytest.raises(DamagedStoreError, match="contradicts itself"):
        opened.reader(0)


def moved(shard: dict, n_bytes: int) -> None:
    """Let the values, and with them the end of the file, be said to lie further on."""
    shard["extents"]["values"][0] += n_bytes
    shard["n_bytes"] += n_bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda shard: shard["extents"].pop("values"), "no values of two or three dimensions"),
        (
            lambda shard: shard["extents"]["tokens"].__setitem__(0, shard["extents"]["keys"][0]),
            "/tokens and /keys overlap|/keys and /tokens overlap",
        ),
        (lambda shard: moved(shard, limits.MAX_HEAD_BYTES), "over the bound of"),
        (lambda shard: moved(shard, 8), "not at a multiple of 4096"),
        (lambda shard: shard.update(n_bytes=shard["n_bytes"] + 1), "the values do not end the file"),
    ],
    ids=[
        "no values", "overlapping", "a long head", "values anywhere", "something after the values",
    ],
)  # fmt: skip
def test_extents_that_cannot_be_are_refused_and_named(store, change, said):
    shards = shard_with(store)
    change(shards[0])
    opened = Store(store.path, parse(store, forged(store, shards=shards)))
    with pytest.raises(DamagedStoreError, match=said):
        opened.reader(0)


def test_nesting_of_any_depth_is_read_or_damage(store):
    # Between what the parser still reads and what can be written again, for the checksum, lie few levels.
    limit, refused = sys.getrecursionlimit(), 0
    for depth in range(limit - 150, limit + 50):
        raw = manifest_path(store.path, store.snapshot).read_bytes()
        for deep in (b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth + b"]" * depth):
            try:
                parse(store, raw.replace(b'"encoder":', b'"deep":' + deep + b',"encoder":', 1))
            except DamagedStoreError as error:
                refused += "nested too deeply" in str(error)
    assert refused > 80


def test_manifest_under_another_number_is_damaged(store):
    path = manifest_path(store.path, store.snapshot)
    manifest_path(store.path, 9).write_bytes(path.read_bytes())
    with pytest.raises(DamagedStoreError, match="says it is number 2"):
        Store.open(store.path)


def test_damaged_latest_manifest_names_the_way_back(store):
    manifest_path(store.path, 3).write_bytes(b"{}")
    with pytest.raises(DamagedStoreError, match="--snapshot N"):
        Store.open(store.path)
    assert len(Store.open(store.path, snapshot=2)) == 4


@pytest.mark.parametrize(
    "disguise",
    [
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.with_name("00000002.json")),
        os.mkfifo,
        lambda path: path.mkdir(),
    ],
    ids=["endless device", "link", "pipe", "directory"],
)
def test_what_is_no_plain_file_is_not_read(store, disguise):
    disguise(manifest_path(store.path, 3))
    with pytest.raises(DamagedStoreError, match=r"00000003\.json cannot be read"):
        Store.open(store.path)


def test_foreign_files_beside_manifests_are_ignored(store):
    for name in ("notes.txt", "3.json", ".00000009.json.tmp", "x00000009.json"):
        (store.path / "manifests" / name).write_text("?")
    assert Store.open(store.path).snapshot == store.snapshot


def make_file(path: Path) -> None:
    path.write_text("text")


def make_folder_of_files(path: Path) -> None:
    path.mkdir()
    (path / "a.txt").write_text("text")


def make_store_without_manifests(path: Path) -> None:
    (path / "manifests").mkdir(parents=True)


@pytest.mark.parametrize(
    "make",
    [lambda path: None, make_file, Path.mkdir, make_folder_of_files, make_store_without_manifests],
    ids=["absent", "file", "empty directory", "other directory", "no manifest"],
)
def test_path_that_is_no_store_says_so(tmp_path, make):
    path = tmp_path / "place"
    make(path)
    with pytest.raises(NotAStoreError, match="place") as caught:
        Store.open(path)
    assert caught.value.exit_code == 2
    assert not Store.exists(path)


def test_snapshot_that_was_never_committed_is_a_usage_error(store):
    with pytest.raises(UsageError, match="has no snapshot 7; it has 1 to 2"):
        read_manifest(store.path, 7)
