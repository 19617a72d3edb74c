"""``subset``, ``copy``, ``remove``, ``recode``, ``layers`` and ``compact`` on a real store."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from featurestore import Store, extract
from featurestore.keys import sentence_key


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> list[Path]:
    """Two texts that share ten of their thirty sentences each."""
    folder = tmp_path_factory.mktemp("corpora")
    lines = [f"s{i} {' '.join(f'w{i * j % 17}' for j in range(i % 9))}\n" for i in range(50)]
    paths = [folder / "one.txt", folder / "two.txt"]
    for path, start in zip(paths, (0, 20), strict=True):
        path.write_text("".join(lines[start : start + 30]))
    return paths


@pytest.fixture(scope="module")
def filled(tmp_path_factory, corpora, tiny_elmo_spec) -> Path:
    path = tmp_path_factory.mktemp("filled") / "store"
    extract(corpora, tiny_elmo_spec, path, layers="all", codec="float16", device="cpu",
            shard_bytes=20_000, progress=False)  # fmt: skip
    return path


@pytest.fixture
def store(filled, tmp_path) -> Path:
    return shutil.copytree(filled, tmp_path / "store")


def texts(path: Path) -> set[str]:
    return {" ".join(tokens) for _, _, tokens in Store.open(path).sentences()}


def lines(path: Path) -> set[str]:
    return {" ".join(line.split()) for line in path.read_text().splitlines()}


def test_a_subset_by_corpus(run, store, corpora, tmp_path):
    code, out, _ = run("subset", store, "--corpus", corpora[0], "-o", tmp_path / "new")
    assert code == 0
    assert "took 30 sentences" in out
    assert texts(tmp_path / "new") == lines(corpora[0])
    assert run("extract", corpora[0], "--store", tmp_path / "new")[0] == 0
    assert run("verify", tmp_path / "new")[0] == 0


def test_a_subset_by_keys_that_ls_printed(run, store, tmp_path, monkeypatch):
    listed = run("ls", store, "--contains", "s1")[1]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed.encode()), encoding="utf-8"))
    code, out, _ = run("subset", store, "--keys", "-", "-o", tmp_path / "new", "--json")
    assert code == 0
    assert json.loads(out)["n_sentences"] == listed.count("\n") == len(texts(tmp_path / "new"))
    assert texts(tmp_path / "new") == {text for text in texts(store) if "s1" in text}


def test_a_subset_by_text_and_by_chance(run, store, tmp_path):
    assert run("subset", store, "--text", "^s2", "--sample", 4, "--seed", 3, "-o", tmp_path / "new")[0] == 0
    found = texts(tmp_path / "new")
    assert len(found) == 4
    assert all(text.startswith("s2") for text in found)


def test_a_copy(run, store, tmp_path):
    code, out, _ = run("copy", store, tmp_path / "new")
    assert code == 0
    assert f"{tmp_path / 'new'} holds 50 sentences" in out
    assert texts(tmp_path / "new") == texts(store)


def test_removing_a_corpus_but_not_what_another_needs(run, store, corpora):
    arguments = ("remove", store, "--corpus", corpora[0], "--keep", corpora[1])
    code, out, _ = run(*arguments, "--dry-run")
    assert code == 0
    assert "would remove 20 sentences" in out
    assert len(texts(store)) == 50
    code, out, _ = run(*arguments)
    assert code == 0
    assert "removed 20 sentences" in out
    assert "kept 10 sentences that other corpora need" in out
    assert "frees the bytes" in out
    assert texts(store) == lines(corpora[1])
    assert json.loads(run(*arguments, "--json")[1])["n_missing"] == 20
    assert run("gc", store, "--older-than", "0s", "--keep-last", 1)[0] == 0
    assert run("verify", store)[0] == 0


def test_recoding(run, store, tmp_path):
    code, out, _ = run("recode", store, "--codec", "int8", "-o", tmp_path / "new", "--json")
    assert code == 0
    facts = json.loads(out)
    assert 0 < facts["added_relative_l2"] < facts["relative_l2"] < 0.02
    assert Store.open(tmp_path / "new").manifest.codec == "int8"
    code, _, err = run("recode", tmp_path / "new", "--codec", "float16", "-o", tmp_path / "back")
    assert code == 2
    assert "give --again" in err
    assert run("recode", tmp_path / "new", "--codec", "float16", "-o", tmp_path / "back", "--again")[0] == 0


def test_layers(run, store, tmp_path):
    assert run("layers", store, "--layers", "1", "-o", tmp_path / "one")[0] == 0
    assert Store.open(tmp_path / "one").n_layers == 1
    code, out, _ = run("layers", store, "--average", "-o", tmp_path / "average")
    assert code == 0
    assert "50 sentences" in out
    assert Store.open(tmp_path / "average").recipe["layers"] == "average"


def test_compacting(run, store, corpora):
    for text in ("one more\n", "and another\n"):
        corpora[0].with_name("more.txt").write_text(text)
        assert run("extract", corpora[0].with_name("more.txt"), "--store", store)[0] == 0
    before = json.loads(run("info", store, "--json")[1])["n_shards"]
    planned = json.loads(run("compact", store, "--dry-run", "--json")[1])
    code, out, _ = run("compact", store)
    assert code == 0
    assert f"of {before} shards: {planned['n_after']} then" in out
    assert json.loads(run("info", store, "--json")[1])["n_shards"] == planned["n_after"] < before
    assert run("verify", store)[0] == 0
    assert len(texts(store)) == 52


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("subset", "{store}", "-o", "{new}"), "say which sentences"),
        (("remove", "{store}"), "say which sentences"),
        (("subset", "{store}", "--text", "(", "-o", "{new}"), "no regular expression"),
        (("subset", "{store}", "--text", "nowhere", "-o", "{new}"), "holds none of the sentences"),
        (("subset", "{store}", "--keys", "{bad}", "-o", "{new}"), "bad.txt, line 2: 'abc' is no key"),
        (("subset", "{store}", "--keys", "{gone}", "-o", "{new}"), "gone.txt cannot be read: No such file"),
        (("subset", "{store}", "--corpus", "{gone}", "-o", "{new}"), "no such file"),
        (("subset", "{store}", "--sample", "3", "-o", "{store}"), "already a store"),
        (("copy", "{store}", "s3://bucket/x"), "s3://bucket/x"),
        (("copy", "{gone}", "{new}"), "gone.txt"),
        (("recode", "{store}", "--codec", "int2", "-o", "{new}"), "int2"),
        (("layers", "{store}", "-o", "{new}"), "--layers N,... or --average"),
        (("layers", "{store}", "--layers", "x", "-o", "{new}"), "layers 'x' make no sense"),
    ],
)
def test_wrong_input_is_one_clear_error_and_leaves_nothing(run, store, tmp_path, arguments, says):
    (tmp_path / "bad.txt").write_text(f"{sentence_key(('a',)).hex()}  1  a\nabc\n")
    places = {
        "store": store,
        "new": tmp_path / "new",
        "bad": tmp_path / "bad.txt",
        "gone": tmp_path / "gone.txt",
    }
    code, out, err = run(*(argument.format(**places) for argument in arguments))
    assert code == 2 or "no such file" in says
    assert says in err
    assert out == ""
    assert err.count("\n") <= 2
    assert not (tmp_path / "new").exists()
    assert len(texts(store)) == 50


def test_exporting_a_labelled_corpus(run, store, corpora, tmp_path):
    tagged = tmp_path / "tagged.conll"
    words = corpora[0].read_text().split("\n")[3].split()
    tagged.write_text("".join(f"{word}\tX{i}\n" for i, word in enumerate(words)))
    code, out, _ = run("export", store, "--to", "npy", "-o", tmp_path / "out", "--corpus", tagged,
                       "--label", 2)  # fmt: skip
    assert code == 0
    assert f"wrote 1 sentence, {len(words)} tokens to {tmp_path / 'out'}" in out
    record = json.loads((tmp_path / "out" / "sentences.jsonl").read_text())
    assert (record["tokens"], record["labels"]) == (words, [f"X{i}" for i in range(len(words))])
    other = tmp_path / "tagged-too.conll"
    other.write_text(tagged.read_text().splitlines()[0])
    code, _, err = run("export", store, "--to", "datasets", "-o", tmp_path / "parts", "--corpus", tagged,
                       "--corpus", other, "--label", 2)  # fmt: skip
    assert (code, "featurestore extract" in err, (tmp_path / "parts").exists()) == (1, True, False)
    shutil.copy(tagged, other)
    code, out, _ = run("export", store, "--to", "datasets", "-o", tmp_path / "parts", "--corpus", tagged,
                       "--corpus", other, "--label", 2)  # fmt: skip
    assert (code, f"wrote 2 sentences, {2 * len(words)} tokens" in out) == (0, True)
    assert json.loads((tmp_path / "parts" / "dataset_dict.json").read_text()) == {
        "splits": ["tagged", "tagged_too"]
    }
    code, out, _ = run("export", store, "--to", "npy", "-o", tmp_path / "some", "--sample", 3, "--json")
    assert (code, json.loads(out)["n_sentences"]) == (0, 3)
    for arguments, says in (
        (("--to", "npy", "-o", tmp_path / "out"), "already something at"),
        (("--to", "hdf", "-o", tmp_path / "new"), "no format 'hdf'"),
        (("--to", "npy", "-o", tmp_path / "new", "--label", "upos"), "--label goes with one --corpus"),
    ):
        code, _, err = run("export", store, *arguments)
        assert (code, says in err) == (2, True)
