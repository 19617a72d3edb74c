"""Several stores a dataset: vectors one after the other or by name, and what does not go together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from featurestore import Example, FeatureDataset, Recipe, Store, collate, feature_loader, native
from featurestore.dataset import loader as loading
from featurestore.dataset.gathering import compiled
from featurestore.dataset.sampling import windows as windowing
from featurestore.dataset.sampling.window_reader import WindowReader
from featurestore.errors import (
    AlignmentError,
    DamagedStoreError,
    MissingSentencesError,
    NotAStoreError,
    UsageError,
)
from featurestore.keys import ConditionedSentence, sentence_key
from featurestore.store.format.shard import ShardDraft
from tests.dataset.batches import sentences, vectors

CORPUS = sentences(40, 9, 0)


def make(path, dim, corpus=CORPUS, *, codec="float16", n_layers=1, **recipe) -> Store:
    """Make a store of several shards; its recipe names its folder."""
    made_with = Recipe({"kind": path.name, "version": 1, **recipe})
    store = Store.create(path, recipe=made_with, dim=dim, n_layers=n_layers, codec=codec, shard_bytes=3_000)
    with store.write() as session:
        for tokens in corpus:
            session.add(tokens, vectors(tokens, *store.token_shape) * dim)
    return store.refreshed()


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[Store]:
    """Three stores of the same sentences in different order, dims, codecs."""
    folder = tmp_path_factory.mktemp("stores")
    return [
        make(folder / "elmo", 24),
        make(folder / "glove", 7, CORPUS[::-1], codec="int8"),
        make(folder / "bert", 5, CORPUS[20:] + CORPUS[:20], codec="float32"),
    ]


@pytest.fixture
def layered(tmp_path) -> Store:
    return make(tmp_path / "layered", 6, n_layers=3, codec="int8")


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    """Both ways of gathering."""
    if request.param == "torch":
        monkeypatch.setenv(native.SWITCH, "0")
    elif compiled.compiled_gather(1, (1,)) is None:
        pytest.skip("gather.c was not compiled here, or not for this processor")


def expected(stores, tokens, dtype=torch.float32) -> torch.Tensor:
    return torch.cat([torch.from_numpy(store.get(tokens)).to(dtype) for store in stores], dim=-1)


def labelled(corpus=CORPUS) -> list[Example]:
    return [Example(tokens, ("A",) * len(tokens), "corpus.txt", 1 + i) for i, tokens in enumerate(corpus)]


@pytest.mark.parametrize("resident", [None, "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_vectors_stand_one_after_the_other(stores, dtype, resident, way):
    dataset = FeatureDataset(stores, labelled(), dtype=dtype, resident=resident)
    assert (dataset.dim, dataset.n_layers, list(dataset.stores)) == (36, 1, ["elmo", "glove", "bert"])
    batch = dataset.gather([3, 17, 0, 3])
    for row, i in zip(batch.features, [3, 17, 0, 3], strict=True):
        n = len(CORPUS[i])
        assert torch.equal(row[:n], expected(stores, CORPUS[i], dtype))
        assert not row[n:].any()
    packed = dataset.gather([3, 17, 0], packed=True)
    assert torch.equal(packed.features.data, dataset.gather([3, 17, 0]).packed().features.data)
    jagged = dataset.gather([3, 17, 0], jagged=True)
    assert torch.equal(
        jagged.features.values(), torch.cat([expected(stores, CORPUS[i], dtype) for i in (3, 17, 0)])
    )
    assert torch.equal(dataset[17].features, expected(stores, CORPUS[17], dtype))
    assert len(dataset.gather([])) == 0
    assert dataset.stored_bytes == sum(FeatureDataset(store, CORPUS).stored_bytes for store in stores)


@pytest.mark.parametrize("resident", [None, "cpu"])
def test_or_by_name_each_with_its_layers(stores, layered, resident, way):
    by_name = {"small": stores[1], "layers": layered}
    dataset = FeatureDataset(by_name, labelled(), as_dict=True, resident=resident)
    each = {name: FeatureDataset(store, labelled()) for name, store in by_name.items()}
    indices = [3, 17, 0]
    batch = dataset.gather(indices)
    assert list(batch.features) == ["small", "layers"]
    forms = {
        "features": batch,
        "packed": batch.packed(),
        "read packed": dataset.gather(indices, packed=True),
        "jagged": batch.jagged(),
        "read jagged": dataset.gather(indices, jagged=True),
        "items": collate([dataset[i] for i in indices]),
    }
    for name, one in each.items():
        plain = one.gather(indices)
        assert torch.equal(batch.features[name], plain.features)
        assert torch.equal(forms["items"].features[name], plain.features)
        for form in ("packed", "read packed"):
            assert torch.equal(forms[form].features[name].data, plain.packed().features.data)
        for form in ("jagged", "read jagged"):
            assert torch.equal(forms[form].features[name].values(), plain.jagged().features.values())
    moved = batch.to("meta")
    assert {one.device.type for one in moved.features.values()} == {moved.mask.device.type} == {"meta"}
    assert forms["packed"].to("meta").features["small"].data.device.type == "meta"
    assert forms["packed"].packed() is forms["packed"]
    assert forms["jagged"].jagged() is forms["jagged"]
    for form in ("features", "packed"):
        restored = forms[form].restore(
            {
                name: getattr(f, "data", f) if form == "packed" else f
                for name, f in forms[form].features.items()
            },
            per="token",
        )
        assert torch.equal(restored[17]["layers"], each["layers"][17].features)
    again = type(batch)(dict(batch.items()))
    assert again["features"]["small"] is batch.features["small"]
    with pytest.raises(UsageError, match=r"dataset\.n_layers: this dataset reads 2 stores \(small, layers\)"):
        _ = dataset.n_layers


def test_the_loader_serves_them_in_any_process(stores, layered):
    dataset = FeatureDataset(stores, labelled())
    part = Subset(dataset, range(5, 35))
    for options in ({}, {"packed": True}, {"num_workers": 1}, {"order": "corpus"}):
        loader = feature_loader(part, token_budget=40, **options)
        seen = [i for batch in loader for i in batch.indices.tolist()]
        assert sorted(seen) == list(range(30)) or sorted(seen) == list(range(5, 35))
    by_name = FeatureDataset([*stores, layered], labelled(), as_dict=True)
    copy = pickle.loads(pickle.dumps(by_name))
    for one, other in zip(
        feature_loader(by_name, token_budget=40),
        feature_loader(copy, token_budget=40, num_workers=1),
        strict=True,
    ):
        for name, features in one.features.items():
            assert torch.equal(features, other.features[name])


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("order", ["alike", "another"])
def test_windows_are_of_all_stores(tmp_path, monkeypatch, order, as_dict):
    monkeypatch.setattr(windowing, "_WINDOW_BYTES", 1500)
    monkeypatch.setattr(loading, "_LEAST_MEMORY", 1)
    corpus = sentences(150, 9, 0)
    shuffled = [corpus[i] for i in np.random.default_rng(0).permutation(150)]
    stores = [
        make(tmp_path / "small", 4, corpus[10:], codec="int8"),
        make(tmp_path / "large", 24, (corpus if order == "alike" else shuffled)[:140]),
    ]
    examples = [*corpus, *corpus[:30]]
    dataset = FeatureDataset(stores, examples, on_missing="zeros", as_dict=as_dict)
    plain = FeatureDataset(stores, examples, on_missing="zeros", as_dict=as_dict)
    served, rows = [], WindowReader.rows

    def remembering(self, *place):
        found = rows(self, *place)
        served.append(found is not None)
        return found

    monkeypatch.setattr(WindowReader, "rows", remembering)
    loader = feature_loader(dataset, token_budget=40, window=12_000)
    windows = loader.batch_sampler.windows
    assert windows.stores == stores[::-1], "windows are stretches of the store of most bytes"
    assert len(loader.batch_sampler.pools(0)) > 2
    for pool in loader.batch_sampler.pools(0):
        read = sum(
            windows.stores[r.store].manifest.shards[r.shard].extents["values"].rows(r.first, r.stop)[1]
            for r in windows.regions_of(pool)
        )
        assert read <= windows.n_bytes[pool].sum() < 6_000 + 2 * 1500
    n_pieces = sum(map(len, windows.beside))
    assert n_pieces < 1.5 * len(windows.regions) if order == "alike" else n_pieces > 50
    for _ in range(2):
        seen = []
        for batch in loader:
            seen += batch.indices.tolist()
            wanted = plain.gather(batch.indices).features
            for one, other in zip(
                *(f.values() if as_dict else [f] for f in (batch.features, wanted)), strict=True
            ):
                assert torch.equal(one, other)
        assert sorted(seen) == list(range(180))
    assert all(served)
    assert len(served) > 2 * 300


def test_all_batches_of_an_epoch_can_be_kept(stores):
    for options in ({}, {"as_dict": True}):
        dataset = FeatureDataset(stores, CORPUS * 40, **options)
        kept = list(feature_loader(dataset, token_budget=2000))
        for batch in kept:
            i = int(batch.indices[0])
            features = batch.features
            whole = torch.cat(list(features.values()), -1) if options else features
            n = int(batch.lengths[0])
            assert torch.equal(whole[0, :n], expected(stores, dataset.tokens(i)))


def test_one_store_can_be_asked_by_name_too(stores):
    dataset = FeatureDataset(stores[0], CORPUS, as_dict=True)
    assert (dataset.store, dataset.recipe) == (stores[0], stores[0].recipe)
    assert dataset[0].features["elmo"].shape == (len(CORPUS[0]), 24)


def test_one_store_is_what_code_for_one_gets_and_of_several_it_is_told(stores):
    dataset = FeatureDataset(stores, CORPUS)
    assert dataset.recipes == {store.path.name: store.recipe for store in stores}
    for attribute in ("store", "recipe"):
        with pytest.raises(UsageError, match=rf"dataset\.{attribute}: this dataset reads 3 stores"):
            getattr(dataset, attribute)


def test_names_are_those_of_the_folders_as_short_as_tells_them_apart(tmp_path):
    paths = [tmp_path / folder / "ewt" for folder in ("one", "two")]
    for i, path in enumerate(paths):
        path.parent.mkdir()
        make(path, 3, CORPUS[:2], number=i)
    assert list(FeatureDataset(paths, CORPUS[:2]).stores) == ["one/ewt", "two/ewt"]
    assert list(FeatureDataset(dict(zip("ab", map(str, paths), strict=True)), CORPUS[:2]).stores) == [
        "a",
        "b",
    ]


def test_what_is_no_set_of_stores_is_refused(stores, layered, tmp_path):
    for given, message in (
        ([], "there are no stores"),
        ({}, "there are no stores"),
        (None, "found a NoneType, expected a store"),
        ([stores[0], 7], "found a int among the stores"),
        ({3: stores[0]}, "stores are named by text, found 3"),
        ([stores[0], stores[0]], "is given twice"),
        ([stores[0], str(stores[0].path)], "is given twice"),
        ([*stores, layered], r"keep layers apart \(layered 3\).*as_dict=True"),
        ([layered, stores[0]], r"keep layers apart"),
    ):
        with pytest.raises(UsageError, match=message):
            FeatureDataset(given, CORPUS)
    with pytest.raises(NotAStoreError):
        FeatureDataset([stores[0], tmp_path / "nothing"], CORPUS)
    (tmp_path / "copy").mkdir()
    twin = make(tmp_path / "copy" / "elmo", 24, CORPUS[:3])
    with pytest.raises(UsageError, match=r"are of one recipe.*featurestore merge"):
        FeatureDataset([stores[0], twin], CORPUS[:3])


def test_what_is_missing_in_any_store_is_named_with_the_command_for_each(tmp_path, stores):
    few = make(tmp_path / "few", 3, CORPUS[:30])
    corpus = [*labelled(), Example(("not", "stored"), ("A", "A"), "corpus.txt", 99)]
    with pytest.raises(MissingSentencesError) as caught:
        FeatureDataset([stores[0], few], corpus)
    error, message = caught.value, str(caught.value)
    assert f"1 of 41 sentences are not in the store {stores[0].path}" in message
    assert f"11 of 41 sentences are not in the store {few.path}" in message
    assert message.count("featurestore extract corpus.txt --store") == 2
    assert message.count("Or leave them out") == 1
    assert (error.store, error.n_missing) == (stores[0].path, 1)
    assert [(other.store, other.n_missing) for other in error.in_other_stores] == [(few.path, 11)]
    kept = FeatureDataset([stores[0], few], corpus, on_missing="skip")
    assert (len(kept), kept.n_missing, kept.tokens(29)) == (30, 11, CORPUS[29])
    zeros = FeatureDataset([few, stores[0]], corpus, on_missing="zeros")
    assert (len(zeros), zeros.n_missing) == (41, 11)
    batch = zeros.gather([35, 40, 2])
    n = len(CORPUS[35])
    assert not batch.features[0, :, :3].any()
    assert torch.equal(batch.features[0, :n, 3:], expected([stores[0]], CORPUS[35]))
    assert not batch.features[1].any()
    assert torch.equal(batch.features[2, : len(CORPUS[2])], expected([few, stores[0]], CORPUS[2]))
    assert [zeros.tokens(i) for i in (35, 40)] == [CORPUS[35], ("not", "stored")]


def test_other_tokens_in_one_store_are_an_alignment_error_that_names_it(tmp_path, stores, monkeypatch):
    asked, stored = ("the", "cat"), ("the", "dog")
    seal = ShardDraft.seal

    def mislabelled(draft, fingerprint):
        draft.keys = [sentence_key(asked if s == stored else s) for s in draft.sentences]
        return seal(draft, fingerprint)

    right = make(tmp_path / "right", 3, [asked])
    monkeypatch.setattr(ShardDraft, "seal", mislabelled)
    wrong = make(tmp_path / "wrong", 2, [stored])
    with pytest.raises(AlignmentError) as caught:
        FeatureDataset([right, wrong], [Example(asked, path="corpus.txt", line=5)])
    message = str(caught.value)
    assert message.startswith("corpus.txt, line 5: token 1 is 'cat' in the corpus but 'dog' in the store")
    assert str(wrong.path) in message
    assert str(right.path) not in message


def test_damage_in_one_store_is_an_error_before_anything_is_served(tmp_path, stores, way):
    damaged = make(tmp_path / "damaged", 3)
    entry = damaged.manifest.shards[0]
    path = damaged.path / "shards" / entry.name
    content = bytearray(path.read_bytes())
    content[entry.extents["values"].offset + 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    dataset = FeatureDataset([stores[0], Store.open(damaged.path)], CORPUS)
    for _ in range(2):
        with pytest.raises(DamagedStoreError, match="checksum"):
            dataset.gather([1, 0])
    assert torch.equal(dataset[5].features, expected(dataset.stores.values(), CORPUS[5]))


def test_context_is_asked_of_the_stores_that_keep_it(tmp_path, stores):
    here, there = (ConditionedSentence(CORPUS[0], side) for side in (b"left", b"right"))
    context = make(tmp_path / "flert", 4, [here, there, *CORPUS[1:]], depends_on={"context": 8})
    corpus = [there, CORPUS[1], here]
    for order in ([stores[0], context], [context, stores[0]]):
        dataset = FeatureDataset(order, corpus)
        assert [dataset.tokens(i) for i in range(3)] == corpus
        by_name = FeatureDataset(order, corpus, as_dict=True).gather([0, 2]).features
        n = len(here)
        assert torch.equal(by_name["elmo"][0], by_name["elmo"][1])
        assert torch.equal(by_name["flert"][0, :n], torch.from_numpy(context.get(there)))
        assert torch.equal(by_name["flert"][1, :n], torch.from_numpy(context.get(here)))
    # Without its context the sentence is missing there, and only there.
    with pytest.raises(MissingSentencesError, match=r"depend on more than the tokens") as caught:
        FeatureDataset([stores[0], context], [CORPUS[0]])
    assert (caught.value.store, caught.value.in_other_stores) == (context.path, ())


def test_datasets_put_together_read_the_same_stores(stores):
    one, other = (FeatureDataset(some, CORPUS, as_dict=True) for some in (stores[:2], stores[1:]))
    for mixed in (
        [one, other],
        [one, FeatureDataset(stores[0], CORPUS)],
        [FeatureDataset(stores[0], CORPUS), one],
    ):
        with pytest.raises(UsageError, match="item 1 of the batch has"):
            collate([dataset[0] for dataset in mixed])
    [batch] = DataLoader(ConcatDataset([one, one]), batch_size=80, collate_fn=collate)
    assert batch.features["glove"].shape[0] == 80
    assert np.array_equal(batch.lengths, np.concatenate([one.lengths] * 2))


def test_stores_are_put_into_an_order_that_names_each_of_them(stores):
    dataset = FeatureDataset(stores[:2], CORPUS)
    names = list(dataset.stores)
    other = dataset.arranged({"a": names[1], "b": names[0]})
    assert list(other.stores.values()) == list(dataset.stores.values())[::-1]
    for wrong in ({"a": names[0]}, {"a": names[0], "b": names[0]}, {"a": names[0], "b": "none"}):
        with pytest.raises(UsageError, match="expected an order of the stores"):
            dataset.arranged(wrong)


def test_windows_of_a_store_that_holds_none_of_the_sentences(tmp_path):
    corpus = sentences(40, 9, 0)
    stores = [make(tmp_path / "full", 4, corpus), make(tmp_path / "other", 6, sentences(5, 9, 1))]
    dataset = FeatureDataset(stores, corpus, on_missing="zeros")
    plain = FeatureDataset(stores, corpus, on_missing="zeros")
    for batch in feature_loader(dataset, token_budget=40, window=1 << 20):
        assert torch.equal(batch.features, plain.gather(batch.indices).features)
        assert not batch.features[..., 4:].any()
