"""Nearest tokens, against NumPy on the same vectors; with compiled code and without."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.errors import DamagedStoreError, UsageError
from featurestore.native import SWITCH
from featurestore.search.neighbors import find_neighbors
from featurestore.store.maintenance.selection import select
from featurestore.store.store import Store
from tests.attacks.harms.manifests import head
from tests.attacks.hostile import make_store
from tests.kit.damage import flip_bit, value_offset
from tests.kit.stores import RECIPE, sentences, vectors_of

N = 60


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def codec(request):
    return request.param


@pytest.fixture(scope="module", params=[1, 3], ids=["one layer", "three layers"])
def store(request, codec, tmp_path_factory) -> Store:
    """Of 37 dimensions, which no vector of the processor divides, in several shards."""
    path = tmp_path_factory.mktemp("search") / "store"
    made = Store.create(path, recipe=RECIPE, dim=37, n_layers=request.param, codec=codec, shard_bytes=1500)
    with made.write() as session:
        for tokens in sentences(N):
            session.add(tokens, vectors_of(tokens, dim=37, n_layers=request.param))
    opened = Store.open(path)
    assert len(opened.manifest.shards) >= 3
    return opened


@pytest.fixture(params=["compiled", "NumPy"])
def by(request, monkeypatch):
    if request.param == "NumPy":
        monkeypatch.setenv(SWITCH, "0")
    return request.param


def expected(
    store: Store, vector: np.ndarray, metric: str, layer: int | None
) -> list[tuple[float, str, bytes, int]]:
    """Every token of the store with its score, the nearest first, in plain float64."""
    query, scored = vector.astype(np.float64).ravel(), []
    for shard, row, tokens in store.sentences():
        reader = store.reader(shard)
        for position, found in enumerate(reader.read(row).astype(np.float64)):
            flat = (found if layer is None or found.ndim == 1 else found[layer]).ravel()
            score = (
                flat @ query / np.linalg.norm(flat) / np.linalg.norm(query)
                if metric == "cosine"
                else np.linalg.norm(flat - query)
            )
            scored.append((score, tokens[position], reader.key(row), position))
    return sorted(scored, key=lambda one: one[0], reverse=metric == "cosine")


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_nearest_are_those_of_numpy(store, by, metric):
    layers = [None] if store.n_layers == 1 else [None, 1]
    for layer in layers:
        vector = store.reader(1).read(0)[0]
        vector = vector if layer is None else vector[layer]
        found = find_neighbors(store, vector, 7, metric=metric, layer=layer)
        wanted = expected(store, vector, metric, layer)[:7]
        np.testing.assert_allclose([one.score for one in found], [one[0] for one in wanted], atol=1e-9)
        assert [(one.token, one.key, one.position) for one in found] == [one[1:] for one in wanted]
        assert found[0].score == pytest.approx(1 if metric == "cosine" else 0, abs=1e-6)


def test_what_is_left_out_is_not_found(store, by):
    shard, row = next((shard, row) for shard, row, tokens in store.sentences() if "cat" in tokens)
    reader = store.reader(shard)
    position = reader.tokens(row).index("cat")
    vector = reader.read(row)[position]
    own = (reader.key(row), position)
    assert own not in [
        (one.key, one.position) for one in find_neighbors(store, vector, 500, exclude_token=own)
    ]
    others = find_neighbors(store, vector, 500, exclude_words=["CAT"])
    assert {one.token for one in others} == {
        token for _, _, tokens in store.sentences() for token in tokens
    } - {"cat"}
    assert len(others) == sum(token != "cat" for _, _, tokens in store.sentences() for token in tokens)


def test_a_sample_is_searched_alone(store):
    selection = select(store, sample=9, seed=3)
    found = find_neighbors(store, store.reader(0).read(0)[0], 500, selection=selection)
    keys = {store.reader(shard).key(row) for shard, rows in enumerate(selection.rows) for row in rows}
    assert {one.key for one in found} == keys
    assert len(found) == selection.n_tokens(store)


def test_positioned_reads_find_the_same(store):
    vector = store.reader(0).read(0)[0]
    by_reads = find_neighbors(Store.open(store.path, access="pread"), vector, 5)
    assert by_reads == find_neighbors(store, vector, 5)


def test_a_damaged_vector_is_not_returned(tmp_path):
    store = Store.create(tmp_path / "s", recipe=RECIPE, dim=8)
    with store.write() as session:
        for tokens in sentences(5):
            session.add(tokens, vectors_of(tokens))
    store = Store.open(tmp_path / "s")
    vector = store.reader(0).read(3)[0].copy()
    flip_bit(store.reader(0).path, value_offset(store, 0, 3))
    with pytest.raises(DamagedStoreError):
        find_neighbors(Store.open(tmp_path / "s"), vector, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k is 0"),
        ({"metric": "manhattan"}, "unknown metric 'manhattan'"),
        ({"layer": 5}, "layer 5"),
        ({"vector": np.zeros(37)}, "zero or not finite"),
        ({"vector": np.full(37, np.nan)}, "zero or not finite"),
        ({"vector": np.ones(36)}, "expected (37,)"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, said):
    store = Store.create(tmp_path / "s", recipe=RECIPE, dim=37)
    vector = options.pop("vector", np.ones(37))
    with pytest.raises(UsageError) as refused:
        find_neighbors(store, vector, **options)
    assert said in str(refused.value)


def test_a_token_of_a_stranger_that_is_no_text_is_named(tmp_path):
    path = make_store(tmp_path / "store.fs").path
    head("tokens", 0, b"\xff")(path)
    opened = Store.open(path)
    query = opened.reader(0).read(0)[0]
    with pytest.raises(DamagedStoreError, match="token 0 is not UTF-8") as caught:
        find_neighbors(opened, query, k=9, exclude_words=["absent"])
    assert caught.value.shard == opened.manifest.shards[0].name
