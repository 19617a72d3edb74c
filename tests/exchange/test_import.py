"""Vectors of others become stores: their layouts as those tools write them, exactly, and never as our own."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from featurestore import Store
from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.errors import (
    AlignmentError,
    CorpusError,
    RecipeMismatchError,
    UsageError,
)
from featurestore.exchange.exporting import export
from featurestore.exchange.importing import import_vectors
from featurestore.extraction.api import extract
from featurestore.extraction.layers import take_layers
from tests.exchange.imports import (
    GOLDEN,
    NOTE,
    WORDS,
    assert_same,
    imported,
    layers_first,
    write_hdf5,
    write_text,
)
from tests.kit.doubles import DoubleEncoder
from tests.kit.stores import (
    ODD_SENTENCES,
    assert_holds,
    create,
    fill,
    stored_sentences,
    vectors_of,
)

# -- there and back again


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("format", ["npy", "safetensors", "allennlp-hdf5"])
def test_what_we_export_comes_back_bit_for_bit(tmp_path, format, n_layers, codec):
    odd = [] if format == "allennlp-hdf5" else ODD_SENTENCES
    store = fill(
        create(tmp_path / "store", codec=codec, n_layers=n_layers, shard_bytes=1 << 20),
        [*WORDS, ("a\xa0b", "x"), *odd],
    )
    export(store, tmp_path / "out", format)
    back = imported(tmp_path / "out", format, tmp_path / "back", shard_bytes=500 * n_layers)
    assert len(back.manifest.shards) > 1
    assert stored_sentences(back) == stored_sentences(store)
    for tokens in stored_sentences(store):
        assert np.array_equal(back.get(tokens), store.get(tokens)), tokens
    assert back.manifest.codec == (
        "float16" if codec == "float16" and format != "allennlp-hdf5" else "float32"
    )
    assert not list(back.verify())
    # Known is what the export said; the recipe is another all the same.
    stated = back.recipe["stated"]
    origin = stated["origin"] if "origin" in stated else json.loads(stated["attributes"]["origin"])
    assert origin["fingerprint"] == store.fingerprint != back.fingerprint


def test_a_codec_loses_what_it_says(tmp_path):
    store = fill(create(tmp_path / "store"), WORDS)
    export(store, tmp_path / "out", "npy")
    report = import_vectors(tmp_path / "out", "npy", tmp_path / "back", note=NOTE, codec="int8")
    back = Store.open(tmp_path / "back")
    assert report.relative_l2 == back.codec_error.relative_l2 > 0
    assert_holds(back, WORDS)


# -- AllenNLP


@pytest.fixture(scope="module")
def golden():
    return [tuple(tokens) for tokens in json.loads((GOLDEN / "sentences.json").read_text())]


@pytest.mark.parametrize("rule", ["first", "last", "mean"])
def test_repeats_whose_vectors_differ_in_a_real_file(tmp_path, golden, rule):
    path, places = GOLDEN / "stateful_batch1.hdf5", {}
    for number, tokens in enumerate(golden):
        places.setdefault(tokens, []).append(number)
    with pytest.raises(CorpusError, match=r"3 of 3 repeats.*relative L2 of 0.451 on average and 0.721"):
        imported(path, "allennlp-hdf5", tmp_path / "store", golden)
    assert not (tmp_path / "store").exists()
    report = import_vectors(
        path,
        "allennlp-hdf5",
        tmp_path / "store",
        corpus=corpus_from_sentences(golden),
        note=NOTE,
        duplicates=rule,
    )
    assert (report.n_repeats, report.n_differing, report.n_sentences, report.n_unused) == (
        3,
        3,
        len(places),
        0,
    )
    store = Store.open(tmp_path / "store")
    assert store.recipe["duplicates"] == rule
    with h5py.File(path) as file:
        for tokens, numbers in places.items():
            each = [file[str(number)][...].transpose(1, 0, 2) for number in numbers]
            expected = {"first": each[0], "last": each[-1], "mean": np.mean(each, 0, np.float64)}[rule]
            assert np.array_equal(store.get(tokens), expected.astype(np.float32)), tokens


def test_repeats_that_are_equal_need_no_rule(tmp_path, golden):
    report = import_vectors(
        GOLDEN / "stateless_single_fp64.hdf5", "allennlp-hdf5", tmp_path / "store",
        corpus=corpus_from_sentences(golden), note=NOTE,
    )  # fmt: skip
    assert (report.n_repeats, report.n_differing, report.codec) == (3, 0, "float32")
    store = Store.open(tmp_path / "store")
    assert store.recipe["source_dtype"] == "float64"
    assert "duplicates" not in store.recipe
    with h5py.File(GOLDEN / "stateless_single_fp64.hdf5") as file:
        expected = file["5"][...].transpose(1, 0, 2).astype(np.float32)
    assert np.array_equal(store.get(golden[5]), expected)


def allennlp(path, lines, *, n_layers=3, forget=False, by_sentence=False):
    """Write what embed_file of AllenNLP 0.9 writes for a text."""
    arrays, index = {}, {}
    for number, line in enumerate(lines):
        arrays[line if by_sentence else str(number)] = (
            layers_first(tuple(line.split())) if n_layers == 3 else vectors_of(tuple(line.split()))
        )
        index[line] = str(number)
    said = {} if forget or by_sentence else {"sentence_to_index": json.dumps(index)}
    return write_hdf5(path, arrays, **said)


LINES = ["the cat sat down", "a/b c.d $x", "the cat sat down", "é 漢字  twice", "no\xa0break space"]


@pytest.mark.parametrize("kind", ["named", "in order", "another order", "forgotten", "by sentence"])
def test_allennlp(tmp_path, kind):
    lines = list(dict.fromkeys(LINES)) if kind in ("by sentence", "named") else LINES
    path = allennlp(tmp_path / "x.hdf5", lines, forget=kind == "forgotten", by_sentence=kind == "by sentence")
    wanted = [tuple(line.split()) for line in lines]
    corpus = wanted
    if kind == "named":
        corpus = None
    elif kind == "another order":
        corpus = wanted = [wanted[3], wanted[0]]
    elif kind == "by sentence":  # a no-break space and a doubled blank are found by their very line alone
        corpus = wanted = wanted[:2]
    store = imported(path, "allennlp-hdf5", tmp_path / "store", corpus)
    assert store.n_layers == 3
    assert_same(store, wanted, 3)


def test_allennlp_misaligned(tmp_path):
    path = allennlp(tmp_path / "x.hdf5", LINES, forget=True)
    for lines, says in (
        (LINES[1:], r"y.txt, line 1: the sentence has 3 tokens.*holds 4"),
        (LINES[:4], "'4' .3 tokens. belongs to no sentence"),
        ([*LINES, "x"], "y.txt, line 6: .* no dataset 5"),
        (LINES, r"line 5: the sentence has 2 tokens.*3 vectors.*Unicode blank, and 'no\\xa0break'"),
        (None, "does not say which sentences it is of: give the corpus"),
    ):
        corpus = lines and open_corpus(write_text(tmp_path / "y.txt", lines))
        with pytest.raises((AlignmentError, UsageError), match=says):
            imported(path, "allennlp-hdf5", tmp_path / "store", corpus)
        assert not Store.exists(tmp_path / "store") or not len(Store.open(tmp_path / "store"))
    path = allennlp(tmp_path / "named.hdf5", LINES[:3])
    corpus = open_corpus(write_text(tmp_path / "y.txt", [LINES[0], "not there", "x"]))
    with pytest.raises(AlignmentError, match="2 of 3 sentences have no vectors") as caught:
        imported(path, "allennlp-hdf5", tmp_path / "named", corpus)
    assert caught.value.line == 2


def test_a_sentence_called_as_the_index_of_allennlp_is_a_sentence(tmp_path):
    """Only a string of that name makes a file AllenNLP's; of numbers it is what the others made of a line."""
    tokens = ("sentence_to_index",)
    named = {tokens[0]: vectors_of(tokens), "plain": vectors_of(("plain",))}
    path, wanted = write_hdf5(tmp_path / "named.hdf5", named), [tokens, ("plain",)]
    for format, corpus in (("elmoformanylangs", None), ("allennlp-hdf5", None), ("allennlp-hdf5", wanted)):
        store = imported(path, format, tmp_path / f"{format} {corpus is None}", corpus)
        assert sorted(stored_sentences(store)) == sorted(wanted)
        assert np.array_equal(store.get(tokens), vectors_of(tokens))
    beside = {**named, "0": layers_first(tokens)}
    store = imported(write_hdf5(tmp_path / "b.hdf5", beside), "bilm-tf", tmp_path / "bilm", [tokens])
    assert np.array_equal(store.get(tokens), vectors_of(tokens, n_layers=3))
    (tmp_path / "x.fasta").write_text(">sentence_to_index\nMKV\n")
    path = write_hdf5(tmp_path / "bio.h5", {tokens[0]: vectors_of(tuple("MKV"))})
    store = imported(path, "bio-embeddings", tmp_path / "bio", open_corpus(tmp_path / "x.fasta"))
    assert np.array_equal(store.get(tuple("MKV")), vectors_of(tuple("MKV")))
    # Beside numbered lines it is a damaged index, as before.
    path = write_hdf5(tmp_path / "both.hdf5", beside)
    with pytest.raises(CorpusError, match="sentence_to_index is not one string"):
        imported(path, "allennlp-hdf5", tmp_path / "w", [tokens])


@pytest.mark.parametrize("format", ["bilm-tf", "elmoformanylangs", "bio-embeddings"])
def test_a_file_of_allennlp_is_sent_to_its_own_format(tmp_path, format):
    path = allennlp(tmp_path / "x.hdf5", LINES[:1])
    with pytest.raises(UsageError, match="as AllenNLP writes it: --from allennlp-hdf5"):
        imported(path, format, tmp_path / "store", [tuple(LINES[0].split())])


# -- bilm-tf


def test_bilm_tf_numbers_blank_lines_too(tmp_path):
    lines = ["the cat", "", "a b c", "the cat", ""]
    arrays = {str(i): layers_first(tuple(line.split())) if line else np.zeros((3, 0, 8), "f4")
              for i, line in enumerate(lines)}  # fmt: skip
    path = write_hdf5(tmp_path / "x.hdf5", arrays)
    corpus = open_corpus(write_text(tmp_path / "x.txt", lines))
    assert_same(imported(path, "bilm-tf", tmp_path / "store", corpus), [("the", "cat"), ("a", "b", "c")], 3)
    without = open_corpus(write_text(tmp_path / "y.txt", [line for line in lines if line]))
    with pytest.raises(AlignmentError, match=r"y.txt, line 2: the sentence has 3 tokens.*holds 0 vectors"):
        imported(path, "bilm-tf", tmp_path / "y", without)
    fewer = open_corpus(write_text(tmp_path / "z.txt", lines[:3]))
    with pytest.raises(AlignmentError, match=r"'3' .2 tokens. belongs to no sentence"):
        imported(path, "bilm-tf", tmp_path / "z", fewer)
    with pytest.raises(UsageError, match=r"do not hold the sentences: give the corpus"):
        imported(path, "bilm-tf", tmp_path / "w")


# -- elmoformanylangs


def test_elmoformanylangs(tmp_path):
    wanted = [("two words", "U.S.", "and/or"), ("...", "/"), ("plain",)]
    named = {"\t".join(t).replace(".", "$period$").replace("/", "$backslash$"): vectors_of(t) for t in wanted}
    path = write_hdf5(tmp_path / "x.ly-1.hdf5", named)
    for name, corpus in (("names", None), ("corpus", wanted)):
        store = imported(path, "elmoformanylangs", tmp_path / name, corpus)
        assert sorted(stored_sentences(store)) == sorted(wanted)
        assert all(np.array_equal(store.get(tokens), vectors_of(tokens)) for tokens in wanted)
        assert store.recipe["stated"]["layer"] == "average"
    with pytest.raises(AlignmentError, match=r"contains '\$period\$', by which elmoformanylangs writes '\.'"):
        imported(path, "elmoformanylangs", tmp_path / "w", [("plain",), ("$period$$period$$period$", "/")])
    report = import_vectors(
        path, "elmoformanylangs", tmp_path / "some", corpus=corpus_from_sentences(wanted[:1]), note=NOTE
    )
    assert report.n_unused == 2


# -- bio_embeddings


def bio_file(path, records, n_layers=1, dtype="f4"):
    with h5py.File(path, "w") as file:
        for number, (name, sequence) in enumerate(records):
            array = vectors_of(tuple(sequence)) if n_layers == 1 else layers_first(tuple(sequence))
            dataset = file.create_dataset(str(number), data=array.astype(dtype))
            dataset.attrs["original_id"] = name
    return path


@pytest.mark.parametrize(("n_layers", "dtype"), [(1, "f2"), (3, "f4")])
def test_bio_embeddings(tmp_path, n_layers, dtype):
    records = [("sp|P1|A", "MKV"), ("sp|P2|B", "SEQVENCE"), ("same", "MKV")]
    path = bio_file(tmp_path / "embeddings_file.h5", records, n_layers, dtype)
    fasta = write_text(tmp_path / "x.fasta", [f">{name} words\n{seq}" for name, seq in reversed(records)])
    store = imported(path, "bio-embeddings", tmp_path / "store", open_corpus(fasta))
    assert store.manifest.codec == ("float16" if dtype == "f2" else "float32")
    for tokens in (tuple("MKV"), tuple("SEQVENCE")):
        assert np.array_equal(store.get(tokens), vectors_of(tokens, n_layers=n_layers).astype(dtype))
    longer = write_text(tmp_path / "y.fasta", [">sp|P2|B\nSEQVENCES"])
    with pytest.raises(
        AlignmentError, match=r"y.fasta, line 1 \(sp\|P2\|B\): the sentence has 9 tokens.*holds 8"
    ):
        imported(path, "bio-embeddings", tmp_path / "w", open_corpus(longer))
    other = write_text(tmp_path / "z.fasta", [">absent\nMKV"])
    with pytest.raises(AlignmentError, match=r"1 of 1 sentences have no vectors.*\n.*'absent'"):
        imported(path, "bio-embeddings", tmp_path / "v", open_corpus(other))
    with pytest.raises(UsageError, match="by the name of a sequence"):
        imported(path, "bio-embeddings", tmp_path / "u", [tuple("MKV")])


# -- one array and a corpus


@pytest.mark.parametrize("n_layers", [1, 2])
def test_an_array_and_its_corpus(tmp_path, n_layers):
    np.save(tmp_path / "x.npy", np.concatenate([vectors_of(t, n_layers=n_layers) for t in WORDS]))
    assert_same(imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS), WORDS, n_layers)
    for corpus, says in (
        (WORDS[:-1], r"33 vectors, and \(memory\) 31 tokens"),
        ([*WORDS, ("x",)], "33 vectors, and the sentences up to this one have 34"),
    ):
        with pytest.raises(AlignmentError, match=says):
            imported(tmp_path / "x.npy", "npy", tmp_path / "w", corpus)
    with pytest.raises(UsageError, match="does not say of which sentences"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "w")


# -- never taken for ours


def test_no_encoder_adds_to_an_imported_store(tmp_path):
    np.save(tmp_path / "x.npy", np.concatenate([vectors_of(t) for t in WORDS]))
    store = imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS)
    assert store.recipe["kind"] == "imported"
    assert store.recipe["note"] == NOTE
    with pytest.raises(RecipeMismatchError, match="imported, and no encoder adds to them"):
        extract([("new", "one")], DoubleEncoder(), tmp_path / "store")
    with pytest.raises(UsageError, match="imported, and no encoder adds"):
        extract([("new", "one")], None, tmp_path / "store")
    with pytest.raises(UsageError, match="imported, and do not say which layers"):
        take_layers(store, tmp_path / "layers", "average")
    assert len(store.refreshed()) == len(WORDS)


def test_another_file_or_note_is_another_recipe(tmp_path):
    fingerprints = set()
    for number, (scale, note) in enumerate([(1, NOTE), (2, NOTE), (1, "another")]):
        np.save(tmp_path / "x.npy", scale * np.concatenate([vectors_of(t) for t in WORDS]))
        store = imported(tmp_path / "x.npy", "npy", tmp_path / str(number), WORDS, note=note)
        fingerprints.add(store.fingerprint)
    assert len(fingerprints) == 3
