"""Bad input through the command line: the exit code, what the message names, and that nothing is left behind.

A traceback would be an exception other than SystemExit, and so fail the test by itself.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from featurestore import Store, extract
from featurestore.cli.main import main
from featurestore.store.verification import verify


class Case:
    """A command with ``{names}`` of the place's files, the exit code, and what the message says."""

    def __init__(self, name: str, command: str, code: int, *says: str) -> None:
        self.name, self.command, self.code, self.says = name, command, code, says


def new_store(name: str, arguments: str, code: int, *says: str) -> Case:
    return Case(name, f"extract {arguments} --store {{new}} --encoder {{tiny}}", code, *says)


def encoder(name: str, spec: str, code: int, *says: str) -> Case:
    return Case(name, f"extract {{good.txt}} --store {{new}} --encoder {spec}", code, *says)


CORPORA = [
    new_store("no such file", "{nowhere.txt}", 1, "{nowhere.txt}", "no such file"),
    new_store("a directory without corpora", "{store}", 1, "{store}", "no file in the folder has a name"),
    new_store(
        "a pattern that nothing matches", "{new}/*.txt", 1, "{new}/*.txt", "no file matches the pattern"
    ),
    new_store(
        "what is no Parquet", "{good.txt} --format parquet", 1, "{good.txt}", "cannot be read as Parquet"
    ),
    new_store("no such file, of a name without format", "{new}", 1, "{new}", "no such file"),
    new_store("CoNLL-2003 called text", "{docstart.txt}", 1, "{docstart.txt}, line 1", "--format conll"),
    new_store("CoNLL-X called CoNLL", "{numbered.conll}", 1, "{numbered.conll}, line 1", "--text-column 2"),
    new_store("line ends of an old Mac", "{mac.txt}", 1, "{mac.txt}", "carriage returns"),
    new_store("an empty text column", "{moods.tsv} --text-column=", 2, "text column is empty"),
    new_store("an empty file", "{empty.txt}", 1, "{empty.txt}", "no sentences", "text"),
    new_store("only blank lines", "{blank.txt}", 1, "{blank.txt}", "no sentences"),
    new_store("a header and no rows", "{header.tsv}", 1, "{header.tsv}", "no sentences"),
    new_store("Latin-1", "{latin1.txt}", 1, "{latin1.txt}, line 3", "0xe9", "UTF-8", "iconv"),
    new_store("a binary", "{binary.txt}", 1, "{binary.txt}, line 1", "NUL"),
    new_store("truncated gzip", "{cut.txt.gz}", 1, "{cut.txt.gz}", "ends too early"),
    new_store("not gzip", "{fake.txt.gz}", 1, "{fake.txt.gz}", "not sound gzip"),
    new_store("the second corpus is bad", "{good.txt} {latin1.txt}", 1, "{latin1.txt}, line 3"),
    new_store(
        "a wrong text column",
        "{moods.tsv} --text-column sentence",
        1,
        "{moods.tsv}, line 1",
        "'sentence'",
        "'text', 'mood'",
    ),
    new_store(
        "a wrong label column",
        "{moods.tsv} --label feeling",
        1,
        "{moods.tsv}, line 1",
        "'feeling'",
        "'text', 'mood'",
    ),
    new_store(
        "a missing label",
        "{unlabelled.tsv} --label mood",
        1,
        "{unlabelled.tsv}, line 3",
        "'mood'",
        "is empty",
    ),
    new_store("a missing field", "{short.tsv}", 1, "{short.tsv}, line 2", "expected 2 fields"),
    new_store("a column CoNLL has not", "{tags.conll} --label 7", 1, "{tags.conll}, line 1", "7"),
    new_store("a column CoNLL-U has not", "{words.conllu} --label pos", 2, "{words.conllu}", "pos", "upos"),
    new_store(
        "a broken CoNLL-U line",
        "{broken.conllu}",
        1,
        "{broken.conllu}, line 2",
        "10 tab-separated columns",
        "found 2",
    ),
    new_store("broken JSON", "{broken.jsonl}", 1, "{broken.jsonl}, line 2", "JSON"),
    new_store("an open quote", "{quote.csv}", 1, "{quote.csv}, line 2", "CSV", "quotes"),
    new_store(
        "an unknown format", "{good.txt} --format xml", 2, "'xml'", "text, conll, conllu, csv, tsv, jsonl"
    ),
    new_store("a file name without format", "{notes.md}", 2, "{notes.md}", "--format", "conllu"),
    new_store("tokenised CoNLL-U", "{words.conllu} --tokenize", 2, "CoNLL-U", "leave tokenize out"),
    new_store("labels of plain text", "{good.txt} --label 2", 2, "plain text", "'2'"),
]

ENCODERS = [
    encoder(
        "an unknown family",
        "bert:base",
        2,
        "'bert:base'",
        "elmo:small",
        "elmo:original",
        "elmo:OPTIONS.json,WEIGHTS.hdf5",
    ),
    encoder(
        "an unknown model",
        "elmo:large",
        2,
        "'large'",
        "small, medium, original",
        "elmo:OPTIONS.json,WEIGHTS.hdf5",
    ),
    Case(
        "an unknown shape",
        "plan {good.txt} --store {new} --encoder elmo:untrained-huge",
        2,
        "'huge'",
        "untrained-small",
    ),
    encoder("a hash for the bundled model", "elmo:demo#sha256=1", 2, "elmo:demo"),
    encoder("a warm state that was not made", "{tiny} --initial-state warm", 1, "warm-up {tiny} CORPUS"),
    encoder("a state that is carried", "{tiny} --initial-state carry", 2, "depend on everything encoded"),
    encoder("an unknown initial state", "{tiny} --initial-state hot", 2, "'hot'", "auto, zero, warm"),
    encoder(
        "a warm state without files",
        "elmo:untrained-small --initial-state warm",
        2,
        "elmo:untrained-small?seed=0",
        "'zero'",
    ),
    Case("a warm-up of random weights", "warm-up elmo:untrained-small {good.txt}", 2, "untrained"),
    Case("a warm-up of nothing", "warm-up bert:base {good.txt}", 2, "'bert:base'"),
    Case("a warm-up with too little text", "warm-up {tiny} {good.txt}", 1, "too short", "at least"),
    Case("a warm-up without text", "warm-up {tiny} {empty.txt}", 1, "{empty.txt}", "no sentences"),
    encoder(
        "weights of other options",
        "elmo:{other.json},{weights.hdf5}",
        1,
        "{weights.hdf5}",
        "CNN_proj/W_proj",
        "(96, 8)",
        "(96, 16)",
    ),
    encoder("truncated weights", "elmo:{options.json},{cut.hdf5}", 1, "{cut.hdf5}", "HDF5"),
    encoder("weights that are text", "elmo:{options.json},{good.txt}", 1, "{good.txt}", "not an HDF5 file"),
    encoder("no weights", "elmo:{options.json},{none.hdf5}", 1, "{none.hdf5}", "No such file"),
    encoder("options that are no JSON", "elmo:{good.txt},{weights.hdf5}", 1, "{good.txt}", "JSON"),
    new_store("layers of no sense", "{good.txt} --layers best", 2, "'best'", "average, top, all"),
    new_store("a layer too many", "{good.txt} --layers 0,3", 2, "no layer 3", "from 0 to 2"),
    new_store("an unknown device", "{good.txt} --device toaster", 2, "'toaster'", "cpu, cuda"),
    new_store(
        "a device that is not here",
        "{good.txt} --device cuda:99",
        2,
        "'cuda:99'",
        "CUDA devices",
        "--device cpu",
    ),
    new_store("an unknown precision", "{good.txt} --precision float8", 2, "float8", "bfloat16"),
    new_store("an unknown codec", "{good.txt} --codec zip", 2, "zip", "int8"),
    new_store("a shard size of no sense", "{good.txt} --shard-size huge", 2, "'huge'", "64MiB"),
    new_store("a shard size of nothing", "{good.txt} --shard-size 0", 2, "'0'", "less than a byte"),
    new_store(
        "a shard size over the bound",
        "{good.txt} --shard-size 2TiB",
        2,
        "2,199,023,255,552",
        "1,099,511,627,776",
    ),
    Case(
        "a plan with a shard size over the bound",
        "plan {good.txt} --store {new} --encoder {tiny} --shard-size 2TiB",
        2,
        "2,199,023,255,552",
        "1,099,511,627,776",
    ),
    new_store("a token budget of nothing", "{good.txt} --token-budget 0", 2, "token-budget"),
]

STORES = [
    Case("a file", "extract {good.txt} --store {good.txt} --encoder {tiny}", 2, "{good.txt}", "choose a new"),
    Case(
        "a directory of something else",
        "extract {good.txt} --store {folder} --encoder {tiny}",
        2,
        "{folder}",
        "something else is there",
    ),
    Case("info on a directory of something else", "info {folder}", 2, "{folder} is not a store"),
    Case("verify on nothing", "verify {new}", 2, "there is no store at {new}"),
    Case("a newer format", "extract {good.txt} --store {newer}", 1, "version 99", "upgrade"),
    Case(
        "a damaged manifest",
        "extract {good.txt} --store {damaged}",
        3,
        "00000002.json",
        "is damaged",
        "checksum",
    ),
    Case("a missing shard", "verify {shardless}", 3, ".h5"),
]

LEARN = "train tagger --store {store} --train {tags.conll} --dev {tags.conll} --epochs 1 --device cpu"

MODELS = [
    Case("a place to save below a file", f"{LEARN} --label 2 --out {{good.txt}}/model.h5", 1, "{good.txt}"),
    Case(
        "a place to save that is a directory",
        f"{LEARN} --label 2 --out {{folder}}",
        2,
        "{folder}",
        "directory",
    ),
    Case(
        "a label column that is not there", f"{LEARN} --label 5 --out {{new}}", 1, "{tags.conll}, line 1", "5"
    ),
    Case(
        "a corpus not in the store",
        "train tagger --store {store} --train {words.conllu} --dev {tags.conll} --label upos --out {new}",
        1,
        "1 of 1 sentences are not in the store",
        "featurestore extract {words.conllu} --store {store}",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_elmo, tiny_elmo_spec) -> dict[str, str]:
    """Files that are wrong in one way each, by name."""
    folder = tmp_path_factory.mktemp("bad")
    word = "\t".join
    files = {
        "good.txt": b"The cat sat\nIt purred\n",
        "notes.md": b"The cat sat\n",
        "empty.txt": b"",
        "blank.txt": b"\n  \n\t\n",
        "header.tsv": b"text\tmood\n",
        "docstart.txt": b"-DOCSTART- -X- O\n\nThe DT O\n",
        "numbered.conll": b"1\tThe\tDET\n2\tcat\tNOUN\n",
        "mac.txt": b"The cat sat\rIt purred\r",
        "latin1.txt": b"The cat sat\nIt purred\nat the caf\xe9\n",
        "binary.txt": bytes(range(8)) * 40,
        "cut.txt.gz": gzip.compress(b"The cat sat\n" * 500)[:-20],
        "fake.txt.gz": b"The cat sat\n",
        "moods.tsv": b"text\tmood\nThe cat sat\tgood\n",
        "unlabelled.tsv": b"text\tmood\nThe cat sat\tgood\nIt purred\t\n",
        "short.tsv": b"text\tmood\nThe cat sat\n",
        "quote.csv": b'text,mood\n"The cat sat,good\n',
        "tags.conll": b"The\tDET\ncat\tNOUN\n\nIt\tPRON\n",
        "words.conllu": word(["1", "cats", "cat", "NOUN", *"______"]).encode() + b"\n\n",
        "broken.conllu": word(["1", "cats", "cat", "NOUN", *"______"]).encode() + b"\n2\tpurr\n",
        "broken.jsonl": b'{"text": "The cat sat"}\n{"text": \n',
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    options, weights = map(Path, tiny_elmo_spec.removeprefix("elmo:").split(","))
    shutil.copy(options, folder / "options.json")
    shutil.copy(weights, folder / "weights.hdf5")
    other = json.loads(options.read_text())
    other["lstm"]["projection_dim"] = 8
    (folder / "other.json").write_text(json.dumps(other))
    (folder / "cut.hdf5").write_bytes(weights.read_bytes()[:100_000])
    (folder / "folder").mkdir()
    (folder / "folder" / "thesis.txt").write_text("precious")
    for name in ("store", "newer", "damaged", "shardless"):
        extract(folder / "good.txt", tiny_elmo, folder / name, progress=False)
    extract([["The", "cat"], ["It"]], tiny_elmo, folder / "store", progress=False)
    manifest = folder / "newer" / "manifests" / "00000002.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 99'))
    manifest = folder / "damaged" / "manifests" / "00000002.json"
    manifest.write_text(manifest.read_text().replace('"n_sentences": 2', '"n_sentences": 3'))
    next((folder / "shardless" / "shards").iterdir()).unlink()
    return {
        "tiny": tiny_elmo_spec,
        **{name: str(folder / name) for name in ("new", "nowhere.txt", "none.hdf5")},
        **{path.name: str(path) for path in folder.iterdir()},
    }


def named(text: str, place: dict[str, str]) -> str:
    for name, path in place.items():
        text = text.replace(f"{{{name}}}", path)
    return text


def contents(path: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file() and "index" not in p.parts}


@pytest.mark.parametrize("case", [*CORPORA, *ENCODERS, *STORES, *MODELS], ids=lambda case: case.name)
def test_bad_input_is_explained_and_leaves_nothing_behind(capsys, place, case):
    folder = Path(place["good.txt"]).parent
    before = contents(folder)
    with pytest.raises(SystemExit) as stop:
        main([named(part, place) for part in case.command.split()])
    out, err = capsys.readouterr()
    assert stop.value.code == case.code, err
    for fragment in case.says:
        assert named(fragment, place) in out + err  # what verify finds is its output
    assert contents(folder) == before
    assert not Path(place["new"]).exists()


def test_a_disk_too_small_is_refused_with_its_bytes_before_anything_is_made(capsys, tmpfs, place):
    disk = tmpfs("64k")
    words = disk.parent / "many.txt"
    words.write_text("".join(f"word{i} word{i + 1}\n" for i in range(1000)))
    with pytest.raises(SystemExit) as stop:
        main(["extract", str(words), "--store", str(disk / "store"), "--encoder", place["tiny"]])
    err = capsys.readouterr().err
    assert stop.value.code == 1
    assert "the vectors will not fit" in err
    assert "65,536 free" in err
    assert str(disk / "store") in err
    assert list(disk.iterdir()) == []


def test_a_disk_too_small_even_for_an_empty_store_is_an_error_and_a_bigger_one_is_fine(capsys, tmpfs, place):
    disk = tmpfs("4k")
    command = ["extract", place["good.txt"], "--store", str(disk / "store"), "--encoder", place["tiny"]]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 1
    assert str(disk / "store") in capsys.readouterr().err
    tmpfs.resize(disk, "1m")
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 0
    assert len(Store.open(disk / "store")) == 2


def test_a_read_only_disk_is_an_error_and_the_store_on_it_can_be_read(capsys, tmpfs, place, tiny_elmo):
    disk = tmpfs("1m")
    extract([["The", "cat"]], tiny_elmo, disk / "store", progress=False)
    tmpfs.resize(disk, "1m,ro")
    for store in ("store", "another"):
        with pytest.raises(SystemExit) as stop:
            main(["extract", place["good.txt"], "--store", str(disk / store), "--encoder", place["tiny"]])
        err = capsys.readouterr().err
        assert stop.value.code == 1
        assert str(disk / store) in err
        assert "Read-only file system" in err
    store = Store.open(disk / "store")
    assert list(verify(store)) == []
    assert store.get(["The", "cat"]).shape == (2, 32)
