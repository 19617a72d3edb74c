"""``repair``, ``gc``, ``merge`` and what ``verify`` says beside damage, on real stores."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from featurestore import Store, extract
from featurestore.cli.commands.keeping.maintain import parse_duration
from featurestore.disk.temporary import temporary_name
from featurestore.errors import UsageError
from featurestore.keys import ConditionedSentence
from featurestore.recipe import Recipe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Distinct sentences as text."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("".join(f"s{i} {' '.join(f'w{i * j % 17}' for j in range(i % 9))}\n" for i in range(60)))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus, tiny_elmo) -> Path:
    """A store of the corpus in several shards."""
    path = tmp_path_factory.mktemp("whole") / "store"
    extract(corpus, tiny_elmo, path, shard_bytes=5_000, progress=False)
    assert len(Store.open(path).manifest.shards) > 3
    return path


@pytest.fixture
def store(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "store")


def shards(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "shards").iterdir()}


def damage(path: Path, number: int) -> Path:
    """Overwrite the last byte of a shard."""
    file = path / "shards" / Store.open(path).manifest.shards[number].name
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    return file


def remove(path: Path, number: int) -> None:
    (path / "shards" / Store.open(path).manifest.shards[number].name).unlink()


# -- repair and extract


def test_repair_and_extract_heal_a_store_to_the_same_bytes(run, store, whole, corpus):
    damage(store, 1)
    remove(store, 2)
    manifests = sorted((store / "manifests").iterdir())
    manifests[-1].write_bytes(manifests[-1].read_bytes()[:-9])
    assert run("verify", store)[0] == 3
    assert run("extract", corpus, "--store", store)[0] == 3
    code, out, _ = run("repair", store)
    assert code == 0
    assert "quarantined 2 files" in out
    assert "adopted 1 sound shard" in out
    assert run("verify", store)[0] == 0
    assert run("extract", corpus, "--store", store)[0] == 0
    assert shards(store) == shards(whole)
    assert run("verify", store)[0] == 0
    assert len(Store.open(store)) == len(Store.open(whole)) == 60


def test_list_of_a_repair_is_a_corpus_that_heals_too(run, store, whole, tmp_path):
    damage(store, 1)
    lost = [tokens for shard, _, tokens in Store.open(whole).sentences() if shard == 1]
    listed = tmp_path / "lost.jsonl"
    code, out, _ = run("repair", store, "--list", listed)
    assert code == 0
    assert f"{len(lost)} sentences written to {listed}" in out
    assert [tuple(json.loads(line)["tokens"]) for line in listed.read_text().splitlines()] == lost
    assert run("extract", listed, "--store", store)[0] == 0
    assert shards(store) == shards(whole)


def test_repair_as_json(run, store):
    file = damage(store, 1)
    remove(store, 2)
    n_lost = [entry.n_sentences for entry in Store.open(store).manifest.shards][1:3]
    code, out, _ = run("repair", store, "--dry-run", "--json")
    planned = json.loads(out)
    assert code == 3
    assert file.exists()
    code, out, _ = run("repair", store, "--json")
    done = json.loads(out)
    assert code == 0
    assert [entry["name"] for entry in done["damaged"]] == [entry["name"] for entry in planned["damaged"]]
    assert [entry["missing"] for entry in done["damaged"]] == [False, True]
    assert [entry["moved_to"] for entry in done["damaged"]] == [f"damaged/{file.name}", None]
    assert done["lost"] == {"n_listed": n_lost[0], "n_with_conditions": 0, "n_unreadable": n_lost[1]}
    assert done["lost"] == planned["lost"]
    assert done["n_sentences"] == 60 - sum(n_lost)
    sound = json.loads(run("repair", store, "--json")[1])
    assert (sound["sound"], sound["damaged"]) == (True, [])


def test_repair_of_a_sound_store_says_so(run, store):
    assert run("repair", store)[:2] == (0, "nothing to repair: 60 sentences\n")
    assert run("repair", store, "--dry-run")[0] == 0


def test_a_list_is_neither_lost_to_a_second_repair_nor_to_a_place_that_is_not_there(run, store, tmp_path):
    damage(store, 1)
    (tmp_path / "file").write_text("")
    code, _, err = run("repair", store, "--list", tmp_path / "file" / "lost.jsonl")
    assert (code, "cannot write" in err) == (1, True)
    assert run("repair", store, "--dry-run")[0] == 3  # nothing was quarantined
    listed = tmp_path / "lost.jsonl"
    run("repair", store, "--list", listed)
    before = listed.read_bytes()
    assert before
    run("repair", store, "--list", listed)
    assert listed.read_bytes() == before


def test_sentences_with_surroundings_are_counted_not_listed(run, tmp_path):
    import numpy as np

    made = Store.create(tmp_path / "s", recipe=Recipe({"kind": "test", "version": 1}), dim=4, codec="float32")
    with made.write() as session:
        session.add(("a", "b\ud800"), np.ones((2, 4), np.float32))
        session.add(ConditionedSentence(("a",), b"{}"), np.ones((1, 4), np.float32))
    damage(made.path, 0)
    listed = tmp_path / "lost.jsonl"
    out = run("repair", made.path, "--list", listed)[1]
    assert "1 with context, which a list cannot hold" in out
    assert [json.loads(line) for line in listed.read_text().splitlines()] == [{"tokens": ["a", "b\ud800"]}]


# -- gc


def test_gc_says_what_it_removed(run, store):
    n_manifests = len(list((store / "manifests").iterdir()))
    orphan = store / "shards" / ("0" * 32 + ".h5")
    orphan.write_bytes(bytes(1500))
    (store / "tmp" / temporary_name(".h5")).write_bytes(b"half")
    code, out, _ = run("gc", store, "--older-than", "0s", "--dry-run")
    assert code == 0
    assert f"would remove {n_manifests} files" in out
    assert orphan.exists()
    code, out, _ = run("gc", store, "--older-than", "0s")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"{n_manifests - 2} old snapshots: ")
    assert "1 unreferenced shard: 1.5 kB" in lines
    assert "1 orphaned temporary file: 4 bytes" in lines
    assert lines[-1].endswith("2 snapshots left")
    assert not orphan.exists()
    assert run("verify", store)[1].startswith("every byte as committed")


def test_gc_keeps_what_is_young_or_open(run, store):
    (store / "shards" / ("0" * 32 + ".h5")).write_bytes(bytes(1500))
    opened = Store.open(store, snapshot=3)
    assert "kept 1 file without use, 1.5 kB: younger than 24h" in run("gc", store)[1]
    done = json.loads(run("gc", store, "--older-than", "0", "--keep-last", 1, "--json")[1])
    assert done["in_use"] == [opened.snapshot]
    assert done["kept"] == [opened.snapshot, Store.open(store).snapshot]
    assert done["n_removed"] == len(done["removed"])
    assert done["n_bytes"] == sum(entry["n_bytes"] for entry in done["removed"])
    out = run("gc", store, "--older-than", "0", "--keep-last", 1)[1]
    assert "kept 1 old snapshot that somebody has open" in out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("0", 0), ("90", 90), ("1.5h", 5400), ("30min", 1800), ("7 d", 604800)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1y", "-1h", "1.2.3s", "nan", "inf"])
def test_what_is_no_duration_is_refused(run, store, text):
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)
    assert run("gc", store, "--older-than", text)[0] == 2


# -- merge


def test_halves_of_a_corpus_merge_to_the_whole(run, tmp_path, corpus, tiny_elmo, whole):
    lines = corpus.read_text().splitlines(keepends=True)
    halves = []
    for number, part in enumerate((lines[:35], lines[25:])):
        text = tmp_path / f"{number}.txt"
        text.write_text("".join(part))
        halves.append(tmp_path / f"half{number}")
        extract(text, tiny_elmo, halves[-1], shard_bytes=5_000, progress=False)
    into = tmp_path / "into"
    done = json.loads(run("merge", *halves, "--into", into, "--json")[1])
    assert (done["n_sentences"], done["n_repeated"], done["n_total"]) == (60, 10, 60)
    assert done["n_part"] > 0
    merged, expected = Store.open(into), Store.open(whole)
    for tokens, vectors in expected:
        assert abs(merged.get(tokens) - vectors).max() <= 2**-9 * abs(vectors).max()
    assert run("verify", into)[0] == 0
    assert run("extract", corpus, "--store", into)[1].splitlines()[-2].startswith("nothing to encode")
    assert "10 sentences already stored" in run("merge", *halves, "--into", tmp_path / "again")[1]


def test_other_recipe_exits_with_4(run, store, tmp_path, corpus, tiny_elmo_spec):
    other = tmp_path / "other"
    arguments = ["--encoder", tiny_elmo_spec, "--layers", "top", "--no-progress"]
    assert run("extract", corpus, "--store", other, *arguments)[0] == 0
    code, out, err = run("merge", store, other, "--into", tmp_path / "into")
    assert (code, out) == (4, "")
    assert "layers: " in err
    assert not (tmp_path / "into").exists()


# -- verify


def test_verify_mentions_a_damaged_index_and_calls_it_no_damage(run, store):
    (index,) = (store / "index").iterdir()
    sound = index.read_bytes()
    for damage in (sound[:-24] + bytes(24), sound[:100], b"", sound[:60] + b"?" + sound[61:]):
        index.write_bytes(damage)
        code, out, _ = run("verify", store)
        assert code == 0
        (note,) = (line for line in out.splitlines() if line.startswith("note: "))
        assert note.startswith(f"note: the index index/{index.name} is damaged; nothing is lost")
        assert json.loads(run("verify", store, "--json")[1])["sound"]
    assert run("ls", store)[0] == 0
    next(iter(Store.open(store).locate([bytes(16)]).found))
    assert index.read_bytes() == sound
    assert "note" not in run("verify", store)[1]


def test_verify_mentions_what_is_not_needed_and_calls_it_no_damage(run, store):
    (store / "shards" / ("0" * 32 + ".h5")).write_bytes(bytes(1500))
    (store / "index" / ("0" * 16 + ".idx")).write_bytes(b"old")
    (store / "tmp" / temporary_name(".h5")).write_bytes(b"half")
    code, out, _ = run("verify", store)
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert code == 0
    assert [note.split(" (")[0] for note in notes] == [
        "note: 1 file that no snapshot references",
        "note: 1 file of an index that no snapshot references",
        "note: 1 file of a writer that is dead",
    ]
    found = json.loads(run("verify", store, "--json")[1])
    assert (found["sound"], len(found["notes"])) == (True, 3)
    run("gc", store, "--older-than", "0s")
    assert "note" not in run("verify", store)[1]


def test_verify_of_a_sample_reads_so_many_sentences(run, store):
    assert "structure sound, 7 sentences of them read" in run("verify", store, "--sample", 7)[1]
    damage(store, 1)
    last = sum(entry.n_sentences for entry in Store.open(store).manifest.shards[:2]) - 1
    codes = {seed: run("verify", store, "--sample", 30, "--seed", seed)[0] for seed in range(8)}
    assert set(codes.values()) == {0, 3}, last
    assert {seed: run("verify", store, "--sample", 30, "--seed", seed)[0] for seed in range(8)} == codes
    assert run("verify", store, "--sample", 60)[0] == 3
    assert run("verify", store, "--sample", 6000)[0] == 3


def test_verify_encodes_again_with_the_named_encoder(run, store):
    code, out, _ = run("verify", store, "--encode", 25)
    assert code == 0
    assert "encoded again: 25 sentences and the store's canaries, 0 beyond the tolerance" in out
    code, out, _ = run("verify", store, "--encode", 25, "--tolerance", 1e-6)
    assert code == 3
    assert "differs: " in out
    assert "allowed 1e-06" in out


def test_verify_with_another_encoder_exits_with_4(run, store):
    code, _, err = run("verify", store, "--encode", 5, "--encoder", "elmo:untrained-demo?seed=3")
    assert code == 4
    assert "weights_sha256" in err


def test_encoder_that_could_run_code_is_not_loaded_because_a_store_says_so(run, tmp_path):
    made = Store.create(
        tmp_path / "s", recipe=Recipe({"kind": "flair", "version": 1}), dim=4, encoder="flair:evil.pt"
    )
    code, _, err = run("verify", made.path, "--encode", 5)
    assert code == 2
    assert "can run code" in err


@pytest.mark.parametrize(
    "arguments",
    [["--quick", "--sample", "3"], ["--encoder", "elmo:demo"], ["--tolerance", "0.1"], ["--sample", "0"]],
)
def test_verify_options_that_make_no_sense_together_are_refused(run, store, arguments):
    assert run("verify", store, *arguments)[0] == 2


# -- every command


@pytest.mark.parametrize("command", ["gc", "repair", "merge"])
def test_path_that_is_no_store_exits_with_2(run, tmp_path, command):
    for path in (tmp_path / "absent", tmp_path):
        more = ["--into", tmp_path / "into"] if command == "merge" else []
        code, out, err = run(command, path, *more)
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ")
    assert os.listdir(tmp_path) == []
