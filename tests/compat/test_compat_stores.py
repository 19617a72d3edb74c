"""Stores that earlier versions wrote, sound and damaged in known ways: opened by this and all later ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from featurestore.cli.main import main
from featurestore.errors import DamagedStoreError, DriftError, FormatVersionError
from featurestore.keys import Sentence, sentence_key, sentence_with
from featurestore.store.canaries import read_canaries, require_canaries
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.compat.make_stores import CompatEncoder, sha256, vectors_of

FOLDERS = sorted(path for path in Path(__file__).parent.glob("v*/*") if path.is_dir())
EXPECTED: dict[Path, dict[str, Any]] = {
    path: json.loads(path.with_suffix(".json").read_text()) for path in FOLDERS
}
NEW = ("a", "new", "sentence")


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


sound = pytest.mark.parametrize("kept", [p for p in FOLDERS if "lost" not in EXPECTED[p]], ids=named)
damaged = pytest.mark.parametrize("kept", [p for p in FOLDERS if "lost" in EXPECTED[p]], ids=named)


@pytest.fixture
def copied(tmp_path, kept) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "store"))


def sentences(expected: dict[str, Any]) -> dict[Sentence, str]:
    """Return what a store should hold: sentences, and the hashes of their vectors."""
    return {
        sentence_with(entry["tokens"], bytes.fromhex(entry["condition"])): entry["sha256"]
        for entry in expected["sentences"]
    }


def require_held(store: Store, wanted: dict[Sentence, str]) -> None:
    assert [tokens for _, _, tokens in store.sentences()] == list(wanted)
    for tokens, digest in wanted.items():
        assert sha256(store.get(tokens)) == digest, tokens


def before_last(expected: dict[str, Any]) -> dict[Sentence, str]:
    return dict(list(sentences(expected).items())[: sum(expected["shards"][:-1])])


def in_first_shard(expected: dict[str, Any]) -> dict[Sentence, str]:
    return dict(list(sentences(expected).items())[: expected["shards"][0]])


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_there_are_some_of_every_kind():
    assert len(FOLDERS) >= 21
    assert {Store.open(path).manifest.version for path in FOLDERS if "lost" not in EXPECTED[path]} == {1, 2}
    assert {expected["codec"] for expected in EXPECTED.values()} == {"float32", "float16", "int8"}
    for version in {path.parent for path in FOLDERS}:
        assert sum(file.stat().st_size for file in version.rglob("*")) < 900_000


@sound
@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_sound_store_reads_as_it_was_written(kept, copied, access):
    expected = EXPECTED[kept]
    store = Store.open(copied, access=access)
    assert store.recipe.to_dict() == expected["recipe"]
    assert (store.snapshot, store.n_layers, store.manifest.codec) == (
        expected["snapshot"], expected["n_layers"], expected["codec"],
    )  # fmt: skip
    assert [entry.n_sentences for entry in store.manifest.shards] == expected["shards"]
    require_held(store, sentences(expected))
    for entry, tokens in zip(expected["sentences"], sentences(expected), strict=True):
        assert sentence_key(tokens).hex() == entry["key"]
    assert list(verify(store)) == []
    assert repair(copied, dry_run=True).damaged == []
    canaries = read_canaries(store)
    if expected["canaries"] is None:
        assert canaries is None
    else:
        assert [list(tokens) for tokens in canaries.sentences] == expected["canaries"]["tokens"]
        assert list(map(sha256, canaries.vectors)) == expected["canaries"]["sha256"]
        assert canaries.tolerance == expected["canaries"]["tolerance"]


@sound
def test_sound_store_grows_is_merged_and_cleaned(kept, copied, tmp_path):
    wanted, encoder = sentences(EXPECTED[kept]), CompatEncoder(EXPECTED[kept]["n_layers"])
    if EXPECTED[kept]["canaries"] is not None:
        with pytest.raises(DriftError):
            require_canaries(Store.open(copied), CompatEncoder(encoder.n_layers, drift=1.01))
    store = require_canaries(Store.open(copied), encoder)
    with store.write() as session:
        assert session.add(NEW, vectors_of(NEW, encoder.n_layers))
        for tokens in wanted:
            assert not session.add(tokens, vectors_of(tokens, encoder.n_layers))
    assert store.refreshed().manifest.version == store.manifest.version
    require_held(store.refreshed(), {**wanted, NEW: sha256(store.refreshed().get(NEW))})
    merge([copied], tmp_path / "merged")
    assert len(Store.open(tmp_path / "merged")) == len(wanted) + 1
    collect(copied, keep_last=1, older_than=0)
    assert list(verify(Store.open(copied))) == []


@sound
def test_sound_store_is_shown_by_the_commands(copied):
    for command in ("info", "verify", *(("ls", "stats") if len(Store.open(copied)) else ())):
        assert run(command, copied) == 0


@damaged
def test_damage_is_named(kept, copied, capsys):
    expected = EXPECTED[kept]
    lost, says = expected["lost"], expected["says"]
    code = run("verify", copied)
    shown = capsys.readouterr()
    assert code == (1 if lost == "version" else 3)
    assert says in shown.out + shown.err
    if lost in ("manifest", "version", "list"):
        with pytest.raises(FormatVersionError if lost == "version" else DamagedStoreError, match=says):
            Store.open(copied)
        # The commit before is still there.
        require_held(Store.open(copied, snapshot=expected["snapshot"] - 1), before_last(expected))
        return
    store = Store.open(copied)
    if lost == "canaries":
        require_held(store, sentences(expected))
        with pytest.raises(DamagedStoreError, match=says):
            require_canaries(store, CompatEncoder())
        return
    served, refused = set(), {}
    places = [(shard, row) for shard, n in enumerate(expected["shards"]) for row in range(n)]
    for (shard, row), (tokens, digest) in zip(places, sentences(expected).items(), strict=True):
        try:
            assert sha256(store.reader(shard).read(row)) == digest
            served.add(tokens)
        except DamagedStoreError as error:
            refused[tokens] = str(error)
    assert served >= set(in_first_shard(expected))
    assert len(refused) == (1 if lost == "value" else expected["shards"][1])
    assert all(says in message for message in refused.values())


@damaged
def test_damage_is_repaired_and_what_is_sound_stays(kept, copied):
    expected = EXPECTED[kept]
    if expected["lost"] == "version":
        with pytest.raises(FormatVersionError):
            repair(copied)
        return
    assert repair(copied).damaged
    store = Store.open(copied)
    assert list(verify(store)) == []
    whole = expected["lost"] in ("canaries", "manifest", "list")
    require_held(store, sentences(expected) if whole else in_first_shard(expected))
    assert repair(copied).sound
