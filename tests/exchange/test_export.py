"""Exports read back by the libraries whose formats they are: the same vectors, tokens and labels."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurestore import Example, Store
from featurestore.corpora.contract.example import IGNORED
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.errors import DamagedStoreError, MissingSentencesError, StoreWriteError, UsageError
from featurestore.exchange.exporting import FORMATS, export
from featurestore.keys import sentence_key
from featurestore.store.maintenance.selection import select
from tests.kit.damage import flip_bit, value_offset
from tests.kit.stores import ODD_SENTENCES, create, fill, sentences, shard_path, stored_sentences

WORDS = [*sentences(30), ("é", "naïve", "漢字"), ("a/b", "..", "\\")]
DTYPES = {"float32": "float32", "float16": "float16", "int8": "float32"}


@pytest.fixture(scope="module", params=["float32", "float16", "int8", "layers"])
def store(request, tmp_path_factory) -> Store:
    codec, n_layers = (request.param, 1) if request.param != "layers" else ("float16", 3)
    path = tmp_path_factory.mktemp("stores") / "store"
    filled = fill(create(path, codec=codec, n_layers=n_layers, shard_bytes=500), WORDS)
    assert len(filled.manifest.shards) > 1
    return filled


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("plain") / "store"
    return fill(create(path, codec="float16", shard_bytes=500), WORDS)


def flat(store: Store, wanted=None) -> np.ndarray:
    return np.concatenate(store.get_many(stored_sentences(store) if wanted is None else wanted))


def origin_is_told(text: str, store: Store) -> None:
    origin = json.loads(text)
    assert origin["fingerprint"] == store.fingerprint
    assert origin["recipe"] == store.recipe.to_dict()


def test_npy(store, tmp_path):
    report = export(store, tmp_path / "out", "npy")
    vectors = np.load(tmp_path / "out" / "vectors.npy", mmap_mode="r")
    offsets = np.load(tmp_path / "out" / "offsets.npy")
    records = [json.loads(line) for line in (tmp_path / "out" / "sentences.jsonl").read_text().splitlines()]
    assert vectors.dtype == DTYPES[store.manifest.codec]
    assert np.array_equal(vectors, flat(store))
    assert [tuple(record["tokens"]) for record in records] == stored_sentences(store)
    assert [record["key"] for record in records] == [sentence_key(t).hex() for t in stored_sentences(store)]
    assert np.diff(offsets).tolist() == [len(tokens) for tokens in stored_sentences(store)]
    assert report.n_bytes == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    origin_is_told((tmp_path / "out" / "origin.json").read_text(), store)


def test_safetensors(store, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    export(store, tmp_path / "out.safetensors", "safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert np.array_equal(found["vectors"], flat(store))
    assert found["vectors"].dtype == DTYPES[store.manifest.codec]
    text, edges = found["tokens"].tobytes(), found["token_offsets"]
    tokens = [text[a:b].decode() for a, b in itertools.pairwise(edges)]
    read = [tuple(tokens[a:b]) for a, b in zip(found["offsets"], found["offsets"][1:], strict=False)]
    assert read == stored_sentences(store)
    assert [key.tobytes() for key in found["keys"]] == [sentence_key(t) for t in read]
    with safe_open(tmp_path / "out.safetensors", "np") as file:
        origin_is_told(file.metadata()["origin"], store)


def test_allennlp(store, tmp_path):
    export(store, tmp_path / "out.hdf5", "allennlp-hdf5")
    with h5py.File(tmp_path / "out.hdf5") as file:
        numbers = json.loads(file["sentence_to_index"][0])
        assert len(numbers) == len(file) - 1 == len(WORDS)
        for tokens in WORDS:
            found = file[numbers[" ".join(tokens)]][...]
            assert found.dtype == np.float32
            expected = store.get(tokens)
            assert np.array_equal(found, expected if expected.ndim == 2 else expected.transpose(1, 0, 2))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("rows", ["sentence", "token"])
def test_tables(store, tmp_path, kind, rows):
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'featurestore[arrow]'")
    from pyarrow import parquet

    export(store, tmp_path / "out", kind, rows=rows)
    table = (
        parquet.read_table(tmp_path / "out")
        if kind == "parquet"
        else pa.ipc.open_file(pa.memory_map(str(tmp_path / "out"))).read_all()
    )
    origin_is_told(table.schema.metadata[b"featurestore"].decode(), store)
    expected = flat(store)
    if rows == "sentence":
        assert [tuple(t) for t in table["tokens"].to_pylist()] == stored_sentences(store)
        assert table["key"].to_pylist() == [sentence_key(t) for t in stored_sentences(store)]
        found = [np.array(vectors) for vectors in table["vectors"].to_pylist()]
        assert np.array_equal(np.concatenate(found), expected)
    else:
        assert table["token"].to_pylist() == [token for tokens in stored_sentences(store) for token in tokens]
        assert np.array_equal(np.array(table["vector"].to_pylist()), expected)
        lengths = np.bincount(table["sentence"].to_numpy())
        assert lengths.tolist() == [len(tokens) for tokens in stored_sentences(store)]
        assert table["position"].to_pylist() == [i for n in lengths for i in range(n)]


def test_polars_and_duckdb_read_the_half_floats(plain, tmp_path):
    polars = pytest.importorskip("polars", reason="needs polars")
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    path = tmp_path / "out.parquet"
    export(plain, path, "parquet", rows="token")
    expected = flat(plain)
    frame = polars.read_parquet(path)
    assert np.array_equal(np.array(frame["vector"].to_list(), np.float32), expected)
    rows = duckdb.sql(f"select token, vector from '{path}'").fetchall()
    assert [token for token, _ in rows] == [token for tokens in stored_sentences(plain) for token in tokens]
    assert np.array_equal(np.array([vector for _, vector in rows], np.float32), expected)


@pytest.mark.parametrize("kind", ["word2vec", "word2vec-binary"])
def test_word2vec(plain, tmp_path, kind):
    keyed = pytest.importorskip("gensim.models.keyedvectors", reason="needs gensim")
    export(plain, tmp_path / "out", kind)
    found = keyed.KeyedVectors.load_word2vec_format(str(tmp_path / "out"), binary=kind.endswith("binary"))
    tokens = [token for sentence in stored_sentences(plain) for token in sentence]
    assert set(found.key_to_index) == set(tokens)
    for word in set(tokens):
        of_word = flat(plain)[[token == word for token in tokens]]
        np.testing.assert_allclose(found[word], of_word.astype(np.float64).mean(0), atol=1e-6)
    assert found.index_to_key[0] == max(set(tokens), key=tokens.count)


def test_word2vec_words_have_no_spaces(tmp_path):
    keyed = pytest.importorskip("gensim.models.keyedvectors", reason="needs gensim")
    store = fill(create(tmp_path / "store"), ODD_SENTENCES)
    for kind in ("word2vec", "word2vec-binary"):
        export(store, tmp_path / kind, kind)
        found = keyed.KeyedVectors.load_word2vec_format(str(tmp_path / kind), binary=kind.endswith("binary"))
        assert "two_words" in found
        assert len(found) == int((tmp_path / kind).read_bytes().split()[0])


def test_tensorboard(plain, tmp_path):
    export(plain, tmp_path / "out", "tensorboard")
    vectors = np.loadtxt(tmp_path / "out" / "vectors.tsv", delimiter="\t")
    metadata = (tmp_path / "out" / "metadata.tsv").read_text().splitlines()
    assert len(metadata) - 1 == len(vectors) == len({token for tokens in WORDS for token in tokens})
    assert 'tensor_path: "vectors.tsv"' in (tmp_path / "out" / "projector_config.pbtxt").read_text()


def test_tensorboard_shows_it(plain, tmp_path):
    """Read by the plugin of TensorBoard that serves it to the browser."""
    projector = pytest.importorskip("tensorboard.plugins.projector.projector_plugin")
    from tensorboard.plugins.base_plugin import TBContext
    from werkzeug.test import Client

    export(plain, tmp_path / "out", "tensorboard")
    routes = projector.ProjectorPlugin(TBContext(logdir=str(tmp_path / "out"))).get_plugin_apps()

    def served(route: str, **query: str) -> bytes:
        return Client(routes[route]).get("/", query_string=query).data

    [embedding] = json.loads(served("/info", run="."))["embeddings"]
    named = {"run": ".", "name": embedding["tensorName"]}
    vectors = np.frombuffer(served("/tensor", **named), np.float32).reshape(embedding["tensorShape"])
    assert np.allclose(vectors, np.loadtxt(tmp_path / "out" / "vectors.tsv", delimiter="\t"))
    header, *words = served("/metadata", **named).decode().splitlines()
    assert header == "word\tcount"
    assert {word.split("\t")[0] for word in words} == {token for tokens in WORDS for token in tokens}


# -- a corpus in its own order, with labels


def labelled(kind: str) -> list[Example]:
    order = [WORDS[4], WORDS[9], WORDS[4], WORDS[30]]
    if kind == "sentence":
        return [Example(tokens, f"class {len(tokens)}") for tokens in order]
    return [Example(t, tuple("X" if i else IGNORED for i, _ in enumerate(t))) for t in order]


@pytest.mark.parametrize("kind", ["token", "sentence"])
@pytest.mark.parametrize("to", ["npy", "safetensors", "parquet", "arrow", "tensorboard"])
def test_a_corpus_goes_out_in_its_order_with_its_labels(plain, tmp_path, kind, to):
    if to in ("parquet", "arrow"):
        pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'featurestore[arrow]'")
    examples = labelled(kind)
    export(plain, tmp_path / "out", to, corpus=corpus_from_sentences(examples))
    expected = [
        e.labels if isinstance(e.labels, str) else [None if label is IGNORED else label for label in e.labels]
        for e in examples
    ]
    if to == "npy":
        lines = (tmp_path / "out" / "sentences.jsonl").read_text().splitlines()
        found, vectors = (
            [json.loads(line)["labels"] for line in lines],
            np.load(tmp_path / "out" / "vectors.npy"),
        )
    elif to == "safetensors":
        from safetensors.numpy import load_file

        tensors = load_file(tmp_path / "out")
        found = [json.loads(line) for line in tensors["labels"].tobytes().decode().splitlines()]
        vectors = tensors["vectors"]
    elif to == "tensorboard":
        vectors = np.loadtxt(tmp_path / "out" / "vectors.tsv", delimiter="\t")
        rows = [line.split("\t") for line in (tmp_path / "out" / "metadata.tsv").read_text().splitlines()]
        if kind == "sentence":
            assert rows[0] == ["word", "count"]
            return
        found, flat_labels = expected, [row[1] for row in rows[1:]]
        assert flat_labels == [label or "" for labels in expected for label in labels]
    else:
        pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'featurestore[arrow]'")
        from pyarrow import parquet

        table = (
            parquet.read_table(tmp_path / "out")
            if to == "parquet"
            else pa.ipc.open_file(str(tmp_path / "out")).read_all()
        )
        found = table["labels" if kind == "token" else "label"].to_pylist()
        vectors = np.concatenate([np.array(v) for v in table["vectors"].to_pylist()])
    assert found == expected
    assert np.array_equal(np.asarray(vectors, np.float32), flat(plain, [e.tokens for e in examples]))


def test_a_selection_and_a_type_are_as_asked(plain, tmp_path):
    export(plain, tmp_path / "out", "npy", selection=select(plain, sample=5, seed=1), dtype="float32")
    vectors = np.load(tmp_path / "out" / "vectors.npy")
    assert vectors.dtype == np.float32
    assert len(np.load(tmp_path / "out" / "offsets.npy")) == 6


# -- wrong input


def test_what_cannot_be_exported_is_one_error_and_leaves_nothing(plain, tmp_path):
    layered = fill(create(tmp_path / "layered", n_layers=2), WORDS[:3])
    empty, spaced = create(tmp_path / "empty"), fill(create(tmp_path / "spaced"), ODD_SENTENCES)
    missing = corpus_from_sentences([WORDS[0], ("not", "there")])
    for store, to, options, error, says in (
        (plain, "pickle", {}, UsageError, "no format 'pickle'.*expected one of npy"),
        (plain, "npy", {"rows": "token"}, UsageError, "npy has no rows"),
        (plain, "parquet", {"rows": "word"}, UsageError, "rows='word'"),
        (plain, "npy", {"dtype": "float64"}, UsageError, "dtype 'float64'"),
        (layered, "word2vec", {}, UsageError, "featurestore layers"),
        (layered, "tensorboard", {}, UsageError, "featurestore layers"),
        (spaced, "allennlp-hdf5", {}, UsageError, "'two words' contains a space"),
        (empty, "npy", {}, UsageError, "nothing to export"),
        (plain, "npy", {"corpus": missing}, MissingSentencesError, "1 of 2 sentences are not in"),
    ):
        with pytest.raises(error, match=says):
            export(store, tmp_path / "out", to, **options)
        assert not list(tmp_path.glob("*out*"))
        assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_is_overwritten(plain, tmp_path, to):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="already something at"):
        export(plain, tmp_path / "out", to)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("to", [name for name in FORMATS if name not in ("parquet", "arrow")])
def test_damage_and_a_full_disk_leave_nothing(tmp_path, tmpfs, to):
    store = fill(create(tmp_path / "store", dim=512, shard_bytes=1 << 20), sentences(300))
    with pytest.raises(StoreWriteError, match="out"):
        export(store, tmpfs("400k") / "out", to)
    flip_bit(shard_path(store), value_offset(store, 0, 3))
    with pytest.raises(DamagedStoreError):
        export(store.path, tmp_path / "out", to)
    assert [path.name for path in Path(tmp_path).glob("*out*")] == []
