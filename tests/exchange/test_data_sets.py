"""Folders of datasets, read back by the package itself, and our other tables by it too."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from featurestore import Example, Store, open_corpus
from featurestore.corpora.contract.example import IGNORED
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.errors import UsageError
from featurestore.exchange import data_sets
from featurestore.exchange.exporting import export
from featurestore.keys import sentence_key
from tests.kit.stores import create, fill, sentences, stored_sentences

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'featurestore[arrow]'")
datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'featurestore[datasets]'")
WORDS = [*sentences(30), ("é", "naïve", "漢字")]


@pytest.fixture(scope="module", params=["float32", "float16", "int8", "layers"])
def store(request, tmp_path_factory) -> Store:
    codec, n_layers = (request.param, 1) if request.param != "layers" else ("float16", 3)
    path = tmp_path_factory.mktemp("stores") / "store"
    return fill(create(path, codec=codec, n_layers=n_layers, shard_bytes=500), WORDS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("plain") / "store"
    return fill(create(path, codec="float16", shard_bytes=500), WORDS)


def loaded(path: Path):
    return datasets.load_from_disk(str(path))


@pytest.mark.parametrize("n_shards", [1, 4])
def test_sentences(store, tmp_path, monkeypatch, n_shards):
    bits = np.dtype("float16" if store.manifest.codec == "float16" else "float32").itemsize
    n_bytes = store.n_tokens * int(np.prod(store.token_shape)) * bits
    monkeypatch.setattr(data_sets, "_SHARD_BYTES", -(-n_bytes // n_shards))
    seen: list[int] = []
    report = export(store, tmp_path / "out", "datasets", progress=seen.append)
    assert len(list((tmp_path / "out").glob(f"data-*-of-0000{n_shards}.arrow"))) == n_shards
    assert report.n_tokens == sum(seen) == store.n_tokens
    found = loaded(tmp_path / "out")
    assert [tuple(tokens) for tokens in found["tokens"]] == stored_sentences(store)
    assert list(found["key"]) == [sentence_key(tokens) for tokens in stored_sentences(store)]
    origin = json.loads(found.info.description)
    assert origin["recipe"] == store.recipe.to_dict()
    for file in (tmp_path / "out").glob("*.arrow"):  # loaded, datasets drops what is not its own
        assert json.loads(pa.ipc.open_stream(file).schema.metadata[b"featurestore"]) == origin
    # Halves are halves on the disk, and float32 in the formats of NumPy and torch.
    value = found.features["vectors"]
    while not isinstance(value, datasets.Value):
        value = value.feature
    assert value.dtype == ("float16" if store.manifest.codec == "float16" else "float32")
    for name in ("numpy", "torch"):
        rows = found.with_format(name)
        for tokens, row in zip(stored_sentences(store), rows, strict=True):
            assert str(row["vectors"].dtype).endswith("float32")
            assert np.array_equal(np.asarray(row["vectors"]), store.get(tokens))


def test_tokens(store, tmp_path):
    export(store, tmp_path / "out", "datasets", rows="token")
    found = loaded(tmp_path / "out").with_format("numpy")[:]
    assert list(found["token"]) == [token for tokens in stored_sentences(store) for token in tokens]
    expected = np.concatenate(store.get_many(stored_sentences(store)))
    assert np.array_equal(np.stack(list(found["vector"])), expected)
    lengths = np.bincount(found["sentence"])
    assert lengths.tolist() == [len(tokens) for tokens in stored_sentences(store)]
    assert found["position"].tolist() == [i for n in lengths for i in range(n)]


EXAMPLES = [Example(t, tuple("XYZ"[i % 3] if i else IGNORED for i, _ in enumerate(t))) for t in WORDS[:5]]
OF_SENTENCES = [Example(tokens, f"class {len(tokens) % 2}") for tokens in WORDS[:5]]


@pytest.mark.parametrize("rows", ["sentence", "token"])
@pytest.mark.parametrize("examples", [EXAMPLES, OF_SENTENCES])
def test_labels_are_a_class_label_and_are_read_back(plain, tmp_path, examples, rows):
    export(plain, tmp_path / "out", "datasets", corpus=corpus_from_sentences(examples), rows=rows)
    found = loaded(tmp_path / "out")
    label = "labels" if examples is EXAMPLES and rows == "sentence" else "label"
    feature = found.features[label]
    names = (feature if isinstance(feature, datasets.ClassLabel) else feature.feature).names
    assert names == (["X", "Y", "Z"] if examples is EXAMPLES else ["class 0", "class 1"])
    again = list(open_corpus(tmp_path / "out", label=label, missing_label="ignore"))
    assert [e.tokens for e in again] == [e.tokens for e in examples]
    if rows == "token" and examples is OF_SENTENCES:
        assert [set(e.labels) for e in again] == [{e.labels} for e in examples]
    else:
        assert [e.labels for e in again] == [e.labels for e in examples]


def test_several_corpora_are_the_splits_of_a_dict(plain, tmp_path):
    splits = {"train": EXAMPLES[:3], "dev": [Example(WORDS[7], ("W",) * len(WORDS[7]))]}
    corpora = {name: corpus_from_sentences(examples) for name, examples in splits.items()}
    report = export(plain, tmp_path / "out", "datasets", splits=corpora)
    found = loaded(tmp_path / "out")
    assert list(found) == ["train", "dev"]
    assert report.n_sentences == 4
    for name, examples in splits.items():
        assert [tuple(tokens) for tokens in found[name]["tokens"]] == [e.tokens for e in examples]
        assert found[name].features["labels"].feature.names == ["W", "Y", "Z"]  # the same in all
        assert [e.labels for e in open_corpus(found[name], label="labels", missing_label="ignore")] == [
            e.labels for e in examples
        ]
    assert found["train"]._fingerprint != found["dev"]._fingerprint


def test_what_is_loaded_file_by_file(plain, tmp_path):
    export(plain, tmp_path / "out", "datasets")
    export(plain, tmp_path / "out.parquet", "parquet")
    export(plain, tmp_path / "out.arrow", "arrow")
    for kind, files in (("arrow", "out/*.arrow"), ("parquet", "out.parquet"), ("arrow", "out.arrow")):
        found = datasets.load_dataset(
            kind, data_files=str(tmp_path / files), cache_dir=str(tmp_path / "cache"), split="train"
        )
        assert [tuple(tokens) for tokens in found["tokens"]] == stored_sentences(plain)
        assert np.array_equal(found.with_format("numpy")[3]["vectors"], plain.get(tuple(found[3]["tokens"])))


def test_what_is_other_has_another_fingerprint(plain, tmp_path):
    prints = set()
    other = [Example(e.tokens, ("Z", *e.labels[1:])) for e in EXAMPLES]
    variants = itertools.product((EXAMPLES, other), ("sentence", "token"), (None, "float32"))
    for number, (examples, rows, dtype) in enumerate(variants):
        path = tmp_path / str(number)
        export(plain, path, "datasets", corpus=corpus_from_sentences(examples), rows=rows, dtype=dtype)
        prints.add(loaded(path)._fingerprint)
    assert len(prints) == 8
    export(plain, tmp_path / "again", "datasets", corpus=corpus_from_sentences(EXAMPLES))
    assert loaded(tmp_path / "again")._fingerprint in prints


def test_what_makes_no_splits(plain, tmp_path):
    corpus = corpus_from_sentences(EXAMPLES)
    for options, said in (
        ({"splits": {"a-b": corpus}}, r"\['a-b'\] are no names of splits"),
        ({"splits": {}}, "are no names of splits"),
        ({"splits": {"a": corpus}, "corpus": corpus}, "give splits, or a corpus"),
    ):
        with pytest.raises(UsageError, match=said):
            export(plain, tmp_path / "out", "datasets", **options)
    with pytest.raises(UsageError, match="splits= is for datasets"):
        export(plain, tmp_path / "out", "parquet", splits={"a": corpus})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu.gz"], ["train", "dev"]),
        (["train.conllu", "test.conllu"], ["train", "test"]),
        (["a-train.txt", "b-dev.txt"], ["a_train", "b_dev"]),
        (["train", "train-2"], ["train", "train_2"]),
    ],
)
def test_names_of_splits(paths, expected):
    assert data_sets.split_names(paths) == expected


def test_corpora_of_one_name_are_no_splits():
    with pytest.raises(UsageError, match="would be splits called train, train"):
        data_sets.split_names(["a/train.conllu", "b/train.conllu"])
