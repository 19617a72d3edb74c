"""A store, models and an ELMo that an earlier version wrote: opened by this one, and they say the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from featurestore import Store, extract, load_encoder
from featurestore.corpora.corpus import open_corpus
from featurestore.store.verification import verify
from tests.compat.make_models import NEW, TAGGERS, flair_scores, parameters_sha256, predict, shard_hashes
from tests.compat.make_several import predict_by_both
from tests.kit.places import TINY_ELMO

KEPT = Path(__file__).parent / "models"
EXPECTED = json.loads((KEPT / "expected.json").read_text())
TINY = f"elmo:{TINY_ELMO / 'options.json'},{TINY_ELMO / 'weights.hdf5'}"


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of it all: opening a store builds its index."""
    return Path(shutil.copytree(KEPT, tmp_path / "models"))


def test_store_is_sound_and_byte_for_byte_the_same(copied):
    store = Store.open(copied / "store")
    assert store.recipe.to_dict() == EXPECTED["recipe"]
    assert shard_hashes(store.path) == EXPECTED["shards"]
    assert list(verify(store)) == []


def test_store_is_what_the_encoder_gives_today_and_goes_on(copied):
    corpus = copied / "tags.conll"
    report = extract(corpus, load_encoder(TINY, device="cpu"), copied / "store", progress=False)
    assert report.n_encoded == 0
    extract(corpus, load_encoder(TINY, device="cpu"), copied / "again", codec="float32", progress=False)
    sentences = [example.tokens for example in open_corpus(corpus)]
    old, new = (Store.open(copied / name).get_many(sentences) for name in ("store", "again"))
    for one, other in zip(old, new, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*TAGGERS, "classifier"])
def test_model_has_its_parameters_and_predicts_what_it_did(copied, name):
    assert parameters_sha256(copied / f"{name}.h5") == EXPECTED["parameters"][name]
    corpus = copied / ("moods.tsv" if name == "classifier" else "tags.conll")
    assert [json.loads(line) for line in predict(copied, f"{name}.h5", corpus)] == EXPECTED[name]


def test_model_of_several_stores_has_its_parameters_and_predicts_what_it_did(copied, tmp_path):
    several = Path(shutil.copytree(KEPT.with_name("several"), tmp_path / "several"))
    expected = json.loads((several / "expected.json").read_text())
    assert shard_hashes(several / "words") == expected["shards"]
    assert parameters_sha256(several / "both.h5") == expected["parameters"]
    found = predict_by_both(several, copied / "store", copied / "tags.conll")
    assert [json.loads(line) for line in found] == expected["predicted"]


def test_pretrained_elmo_gives_the_same_vectors():
    vectors = load_encoder(f"elmo:{KEPT / 'elmo'}", layers="all", device="cpu").encode(NEW)
    for found, expected in zip(vectors, EXPECTED["elmo"], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_flair_model_of_stored_vectors_scores_the_same(copied):
    pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")
    from featurestore.integrations.flair import bind, load

    model = bind(load(copied / "flair.pt", trusted=True), copied / "store")
    for found, expected in zip(flair_scores(model), EXPECTED["flair"], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
