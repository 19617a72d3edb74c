"""The figures of a report, against NumPy, SciPy's distances and scikit-learn on the same vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from featurestore.corpora.contract.example import Example
from featurestore.errors import LabelError, MissingSentencesError, UsageError
from featurestore.report.measuring import report_on
from featurestore.report.probe import ridge
from featurestore.store.store import Store
from tests.kit.damage import flip_bit, value_offset
from tests.kit.stores import sentences
from tests.report.conftest import DIM, N_LAYERS, fill, labelled_by_vectors, vectors


@pytest.fixture(scope="module")
def report(reported):
    return report_on(reported, sample=0)


@pytest.fixture(scope="module")
def tokens_and_vectors(reported):
    words, found = [], []
    for tokens, array in reported:
        words += tokens
        found.append(array)
    return words, np.concatenate(found).astype(np.float64)


def test_geometry_is_that_of_numpy(report, tokens_and_vectors):
    _, x = tokens_and_vectors
    assert report.geometry.n_tokens == len(x)
    for number, layer in enumerate(report.geometry.layers):
        v = x[:, number]
        norms = np.linalg.norm(v, axis=1)
        assert layer.norms.mean == pytest.approx(norms.mean())
        assert layer.norms.largest == pytest.approx(norms.max())
        cosines = cosine_similarity(v)
        assert layer.anisotropy == pytest.approx(cosines[np.triu_indices(len(v), 1)].mean(), abs=1e-9)
        eigenvalues = np.linalg.eigvalsh(np.cov(v.T))
        ratio = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        assert layer.effective_dimension == pytest.approx(ratio, rel=1e-4)
        shares = v.var(axis=0) / v.var(axis=0).sum()
        assert [one.dimension for one in layer.dominant] == np.argsort(-shares)[:8].tolist()
        assert layer.dominant[0].share == pytest.approx(shares.max())
        assert layer.share_of_five == pytest.approx(np.sort(shares)[-5:].sum())
    assert report.geometry.layers[1].dominant[0].dimension == 3
    assert report.geometry.layers[1].dead == [5]
    assert report.geometry.layers[1].saturated == [11]
    assert report.geometry.layers[0].dead == report.geometry.layers[0].saturated == []


def test_self_similarity_is_the_mean_cosine_of_pairs(report, tokens_and_vectors):
    words, x = tokens_and_vectors
    often = sorted({word for word in words if words.count(word) >= 5})
    assert report.words.n_words == len(often)
    for layer in range(N_LAYERS):
        of_words = []
        for word in often:
            v = x[[i for i, one in enumerate(words) if one == word], layer]
            of_words.append(cosine_similarity(v)[np.triu_indices(len(v), 1)].mean())
        assert report.words.self_similarity[layer] == pytest.approx(np.mean(of_words), abs=1e-5)
    for one in report.words.ambiguous:
        assert any(map(str.isalpha, one.word))
        places = [(occurrence.tokens[occurrence.position]) for occurrence in one.occurrences]
        assert places == [one.word, one.word]


def test_outliers_are_farthest_from_their_nearest(report, reported):
    means = np.stack([array.mean(axis=0).ravel() for _, array in reported]).astype(np.float64)
    cosines = cosine_similarity(means - means.mean(axis=0))
    np.fill_diagonal(cosines, -2)
    near = np.sort(cosines, axis=1)[:, -5:].mean(axis=1)
    stored = [tuple(tokens) for tokens, _ in reported]
    assert [one.tokens for one in report.sentences.outliers] == [stored[i] for i in np.argsort(near)[:10]]
    assert report.sentences.outliers[0].cosine == pytest.approx(near.min(), abs=1e-5)


def test_near_duplicates_say_what_their_spelling_differs_in(tmp_path):
    stored = [*sentences(20), ("Same", "words"), ("same", "words")]
    store = Store.create(tmp_path / "s", recipe={"kind": "test", "version": 1}, dim=DIM, n_layers=N_LAYERS)
    with store.write() as session:
        for tokens in stored:
            session.add(tokens, vectors(tuple(token.lower() for token in tokens)))
    found = report_on(Store.open(tmp_path / "s"), sample=0).sentences
    assert found.near_duplicates[0].cosine == pytest.approx(1)
    assert {found.near_duplicates[0].tokens, found.near_duplicates[0].other} == {stored[-1], stored[-2]}
    assert found.near_duplicates[0].differs_in == ("case",)


def test_contents_are_those_of_the_store(report, reported):
    contents = report.contents
    assert (contents.n_sentences, contents.n_tokens) == (len(reported), reported.n_tokens)
    assert contents.vector_bytes == reported.n_tokens * N_LAYERS * DIM * 4
    assert (
        contents.vector_bytes + contents.head_bytes
        == contents.n_bytes
        == sum(file.stat().st_size for file in (reported.path / "shards").iterdir())
    )
    assert [one.number for one in contents.commits] == list(range(1, reported.snapshot + 1))
    assert contents.commits[-1].n_sentences == len(reported)
    assert report.health.is_sound
    json.loads(json.dumps(report.to_dict(), allow_nan=False))


@pytest.mark.parametrize("layer", [0, 1])
def test_the_probe_finds_the_layer_that_tells_a_label(reported, layer):
    examples = labelled_by_vectors(reported, layer)
    found = report_on(reported, sample=10, examples=examples, label="sign").probe
    by_name = {one.name: one.accuracy for one in found.scores}
    assert max(by_name, key=by_name.get) == f"layer {layer}"
    assert by_name[f"layer {layer}"] > 0.85
    assert by_name[f"layer {1 - layer}"] < 0.75
    assert (found.of, found.n_labels) == ("token", 2)


def test_the_probe_is_a_ridge_regression():
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(120, 6)).astype(np.float32), random.integers(0, 3, 120)
    x[np.arange(120), labels] += 1
    test = random.normal(size=(50, 6)).astype(np.float32)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    fitted = Ridge(alpha=0.01 * 120).fit(scaled, np.eye(3)[labels])
    expected = fitted.predict((test - x.mean(axis=0)) / x.std(axis=0)).argmax(axis=1)
    assert ridge(x, labels, test, 3).tolist() == expected.tolist()


def test_a_damaged_sentence_is_named_and_left_out(tmp_path):
    store = fill(tmp_path / "s", sentences(30), shard_bytes=2000)
    assert len(store.manifest.shards) > 2
    flip_bit(store.reader(0).path, value_offset(store, 0, 1))
    made = report_on(Store.open(tmp_path / "s", check="always"), sample=0)
    assert not made.health.is_sound
    assert store.manifest.shards[0].name in made.health.findings[0]
    assert made.geometry.n_tokens == store.n_tokens - store.reader(0).length(1)


def test_a_shard_that_is_gone_is_named_and_left_out(tmp_path):
    store = fill(tmp_path / "s", sentences(30), shard_bytes=2000)
    (store.path / "shards" / store.manifest.shards[1].name).unlink()
    made = report_on(Store.open(tmp_path / "s", check="always"), sample=12)
    assert [store.manifest.shards[1].name in one for one in made.health.findings] == [True]
    assert made.n_sampled == 12
    (store.path / "shards" / store.manifest.shards[0].name).write_bytes(b"cut")
    assert len(report_on(Store.open(tmp_path / "s", check="always"), sample=0).health.findings) == 2


def test_one_sentence_of_one_token_has_a_report(tmp_path):
    made = report_on(fill(tmp_path / "s", [("alone",)]), sample=0)
    assert made.geometry.n_tokens == 1
    assert made.to_dict()["geometry"]["layers"][0]["anisotropy"] is None
    assert made.map is None


def test_what_cannot_be_reported(tmp_path, reported):
    empty = Store.create(tmp_path / "s", recipe={"kind": "test", "version": 1}, dim=3)
    with pytest.raises(MissingSentencesError):
        report_on(empty)
    with pytest.raises(UsageError):
        report_on(reported, sample=-1)
    with pytest.raises(LabelError) as refused:
        report_on(reported, sample=5, examples=[Example(("not", "stored"), ("A", "B"))], label="upos")
    assert "1 sentences tried are not stored" in str(refused.value)
