"""``neighbors``, ``compare``, ``diff`` and ``report``: what they print, their JSON, their exit codes."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from featurestore.store.store import Store
from tests.cli.commands.seeing.json_schemas import COMPARE, DIFF, NEIGHBORS, REPORT
from tests.cli.commands.small_store import RECIPE, make_store


def as_json(out: str, schema: dict) -> dict:
    found = json.loads(out)
    jsonschema.validate(found, schema)
    return found


# -- neighbors


def test_neighbors_of_a_stored_token(run, store):
    code, out, _ = run("neighbors", store.path, "--word", "cat", "--in", "the cat sat", "-k", "3")
    assert code == 0
    assert "the [cat] sat" in out
    assert "all " in out
    found = as_json(
        run("neighbors", store.path, "--word", "cat", "--in", "the cat sat", "-k", "3", "--json")[1],
        NEIGHBORS,
    )
    assert found["query"]["is_stored"]
    assert found["n_compared"] == store.n_tokens
    vector = store.get(("the", "cat", "sat"))[1]
    scores = sorted(
        (
            float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector))
            for tokens, vectors in store
            for at, v in enumerate(vectors)
            if (tuple(tokens), at) != (("the", "cat", "sat"), 1)
        ),
        reverse=True,
    )
    assert [one["score"] for one in found["neighbors"]] == pytest.approx(scores[:3], abs=1e-6)


def test_neighbors_of_a_new_sentence_are_those_of_its_encoding(run, example_store, tiny_elmo):
    sentence = ("w1", "w2", "unheard", "w1")
    command = "neighbors", example_store, "--in", " ".join(sentence), "--position", "2", "--json"
    found = as_json(run(*command)[1], NEIGHBORS)
    assert not found["query"]["is_stored"]
    vector = tiny_elmo.encode([sentence])[0][2]
    best = max(
        float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector))
        for _, vectors in Store.open(example_store)
        for v in vectors
    )
    assert found["neighbors"][0]["score"] == pytest.approx(best, abs=1e-5)


def test_neighbors_by_key_sample_and_without_the_word(run, store):
    key = store.reader(0).key(5).hex()
    found = as_json(
        run("neighbors", store.path, "--key", key[:8], "--position", "0", "-k", "99", "--exclude-same-word",
            "--metric", "l2", "--sample", "3", "--seed", "1", "--json")[1], NEIGHBORS,
    )  # fmt: skip
    assert found["sampled_sentences"] == 3
    assert found["query"]["key"] == key
    assert "w0" not in {one["token"] for one in found["neighbors"]}
    assert [one["score"] for one in found["neighbors"]] == sorted(one["score"] for one in found["neighbors"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--in TEXT or by --key HEX"),
        (("--in", "the cat sat"), "--word TOKEN or by --position N"),
        (("--in", "the cat sat", "--key", "00ff", "--word", "cat"), "one of them"),
        (("--in", "the cat sat", "--word", "dog"), "'dog' is no token of 'the cat sat'"),
        (("--in", "the cat sat", "--word", "Cat"), "it has 'cat'"),
        (("--in", "the cat sat", "--position", "3"), "has 3 tokens, 0 to 2"),
        (("--in", "the cat sat", "--position", "1", "--word", "sat"), "is 'cat', --word says 'sat'"),
        (("--in", "a b a", "--word", "a"), "stands at 0, 2"),
        (("--in", "the cat sat", "--word", "cat", "--layer", "1"), "layer 1"),
    ],
)
def test_neighbors_says_what_it_needs(run, store, arguments, said):
    code, out, err = run("neighbors", store.path, *arguments)
    assert code == 2
    assert said in err
    assert not out


def test_neighbors_in_an_empty_store(run, tmp_path):
    Store.create(tmp_path / "s", recipe=RECIPE, dim=8)
    code, _, err = run("neighbors", tmp_path / "s", "--word", "a", "--in", "a b")
    assert code == 1
    assert "holds no sentences yet" in err


# -- compare


def test_compare_within_and_beyond(run, store, tmp_path):
    other = make_store(tmp_path / "int8", codec="int8")
    code, out, _ = run("compare", store.path, other.path)
    assert code == 0
    assert "stored as int8" in out
    assert "recipe       the same" in out
    assert run("compare", store.path, other.path, "--tolerance", "0.05", "--sample", "0")[0] == 0
    code, out, _ = run("compare", store.path, other.path, "--tolerance", "0.0001", "--json")
    assert code == 1
    found = as_json(out, COMPARE)
    assert not found["within"]
    assert found["n_both"] == len(store)
    assert 0.0001 < found["relative_l2"]["largest"] < 0.05


def test_compare_other_dimensions(run, store, tmp_path):
    other = Store.create(tmp_path / "wide", recipe={"kind": "test", "version": 2}, dim=9)
    with other.write() as session:
        for tokens, vectors in store:
            session.add(tokens, np.pad(vectors, ((0, 0), (0, 1))))
    code, out, _ = run("compare", store.path, other.path, "--tolerance", "1")
    assert code == 1
    assert "cannot be within" in out
    assert "version: 1 in a, 2 in b" in out
    assert as_json(run("compare", store.path, other.path, "--json")[1], COMPARE)["relative_l2"] is None


def test_compare_with_nothing_in_common(run, store, tmp_path):
    other = make_store(tmp_path / "other", [("quite", "another")])
    code, _, err = run("compare", store.path, other.path)
    assert code == 1
    assert "no sentence in common" in err


# -- diff


def test_diff_says_what_is_missing_and_what_it_costs(run, example_store, examples, tmp_path):
    corpus = tmp_path / "corpus.txt"
    lines = [" ".join(example.tokens) for example in examples[:50]]
    corpus.write_text("\n".join([*lines, lines[3].upper(), "brand new"]) + "\n")
    code, out, _ = run("diff", example_store, corpus)
    assert code == 1
    assert "2 not stored" in out
    assert f"stored, but for case: {lines[3]}" in out
    assert "corpus.txt, line 52: brand new" in out
    assert f"featurestore extract CORPUS --store {example_store}" in out
    code, out, _ = run("diff", example_store, corpus, "--unused", "--json")
    found = as_json(out, DIFF)
    assert code == 1
    assert (found["n_missing"], found["n_unused"]) == (2, 10)
    assert found["completing"]["n_bytes"] > 0
    # What is listed as unused can be given to remove.
    listed = [line.split()[0] for line in run("diff", example_store, corpus, "--unused")[1].splitlines()]
    assert listed == found["unused_keys"]


def test_diff_of_what_is_stored_is_0(run, example_store, examples, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(" ".join(example.tokens) for example in examples) + "\n")
    code, out, _ = run("diff", example_store, corpus)
    assert code == 0
    assert "missing   none" in out
    assert "not used  none" in out
    assert as_json(run("diff", example_store, corpus, "--json")[1], DIFF)["completing"] is None


def test_diff_of_a_store_that_names_no_encoder(run, store, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("unheard of\n")
    code, out, _ = run("diff", make_store(tmp_path / "s", encoder="").path, corpus)
    assert code == 1
    assert "cannot be told" in out


def test_diff_of_a_corpus_that_is_not_there(run, store):
    code, _, err = run("diff", store.path, "/nowhere/corpus.txt")
    assert code != 0
    assert "/nowhere/corpus.txt" in err


# -- report


def test_report_writes_a_page_or_json(run, store, tmp_path):
    code, out, _ = run("report", store.path, "-o", tmp_path / "page.html", "--sample", "0")
    assert code == 0
    assert f"wrote {tmp_path / 'page.html'}" in out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    found = as_json(run("report", store.path, "--json")[1], REPORT)
    assert found["contents"]["n_sentences"] == len(store)


def test_report_of_a_labelled_corpus(run, example_store, examples, tmp_path):
    corpus = tmp_path / "corpus.conll"
    corpus.write_text(
        "\n".join(
            "".join(f"{word}\t{tag}\n" for word, tag in zip(example.tokens, example.labels, strict=True))
            for example in examples
        )
    )
    found = as_json(run("report", example_store, "--corpus", corpus, "--label", "1", "--json")[1], REPORT)
    assert found["probe"]["label"] == "1"
    assert len(found["map"]["labels"]) == len(found["map"]["words"])
    code, _, err = run("report", example_store, "--corpus", corpus)
    assert code == 2
    assert "--corpus and --label together" in err


def test_report_of_a_damaged_store_is_written_and_says_so(run, damaged, tmp_path):
    code, _, err = run("report", damaged.path, "-o", tmp_path / "page.html", "--sample", "0")
    assert code == 3
    assert "damaged: " in err
    assert "featurestore repair" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_report_on_a_full_disk_leaves_nothing(run, store, tmpfs):
    disk = tmpfs("16k")
    code, _, err = run("report", store.path, "-o", disk / "page.html", "--sample", "0")
    assert code == 1
    assert str(disk / "page.html") in err
    assert list(disk.iterdir()) == []


def test_report_of_an_empty_store(run, tmp_path):
    Store.create(tmp_path / "s", recipe=RECIPE, dim=8)
    code, _, err = run("report", tmp_path / "s", "-o", tmp_path / "page.html")
    assert code == 1
    assert "nothing to report" in err
    assert not (tmp_path / "page.html").exists()
