"""Canaries of a store: kept exactly, asked again before anything is added, looked after like shards."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import DamagedStoreError, DriftError, EncoderError, EncoderRuleError
from featurestore.recipe import Recipe
from featurestore.store import canaries
from featurestore.store.canaries import SENTENCES, make_canaries, read_canaries, require_canaries
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from featurestore.vectors import PRECISION_TOLERANCE, relative_l2
from tests.kit.damage import flip_bit
from tests.kit.stores import DIM, KitEncoder, assert_holds, create, fill, sentences, vectors_of


def born(path: Path, **options) -> Store:
    return create(path, canaries=make_canaries(KitEncoder()), **options)


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def canary_file(store: Store) -> Path:
    return store.path / "canaries" / store.manifest.canaries.name


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_a_store_is_born_with_exact_canaries_whatever_its_codec(tmp_path, codec):
    store = born(tmp_path / "store.fs", codec=codec)
    assert store.snapshot == 1
    found = read_canaries(Store.open(store.path))
    assert found.sentences == SENTENCES
    assert found.tolerance == PRECISION_TOLERANCE["float32"]
    assert "on cpu" in found.made_with
    for tokens, vectors in zip(found.sentences, found.vectors, strict=True):
        assert np.array_equal(vectors, vectors_of(tokens))
    assert len(store) == 0
    assert list(verify(store)) == []


def test_layers_are_kept_apart(tmp_path):
    store = create(tmp_path / "store.fs", n_layers=3, canaries=make_canaries(KitEncoder(n_layers=3)))
    assert read_canaries(store).vectors[0].shape == (len(SENTENCES[0]), 3, DIM)
    assert require_canaries(store, KitEncoder(n_layers=3)) is store


def test_they_say_what_made_them_also_where_a_version_is_unknown(monkeypatch):
    known = importlib.metadata.version

    def version(package: str) -> str:
        if package == "flair":  # run from a folder of its sources
            raise importlib.metadata.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    encoder = KitEncoder()
    encoder.recipe = Recipe({"kind": "flair", "version": 1})
    made_with = make_canaries(encoder).made_with
    assert re.match(r"torch \d\S*, flair of unknown version, transformers .*, on cpu$", made_with)


def test_they_are_neither_served_nor_counted(tmp_path):
    store = fill(born(tmp_path / "store.fs"), sentences(9))
    assert SENTENCES[0] not in store
    assert [tokens for _, _, tokens in store.sentences()] == sentences(9)
    # Who stores one as a sentence finds it like any other.
    assert_holds(fill(store, [SENTENCES[0]]), [SENTENCES[0]])


def test_they_stay_through_commits(tmp_path):
    store = born(tmp_path / "store.fs")
    for n in (3, 6, 9):
        store = fill(store.refreshed(), sentences(n))
    assert store.manifest.canaries == Store.open(store.path, snapshot=1).manifest.canaries is not None


def test_a_drifted_encoder_is_refused_with_both_figures_and_nothing_is_written(tmp_path):
    store = born(tmp_path / "store.fs")
    before = tree(store.path)
    with pytest.raises(DriftError) as refused:
        require_canaries(store, KitEncoder(drift=1.001))
    message = str(refused.value)
    assert re.search(r"canary sentence '.+' differs by a relative L2 of 0\.000999, expected", message)
    assert "expected at most 0.0001. Nothing was written" in message
    assert str(store.path) in message
    assert "extract into a new one" in message
    assert tree(store.path) == before


@pytest.mark.parametrize("drift", [float("nan"), float("inf"), -1.0, 0.0])
def test_what_is_no_number_or_nothing_is_drift_too(tmp_path, drift):
    with pytest.raises(DriftError):
        require_canaries(born(tmp_path / "store.fs"), KitEncoder(drift=drift))


def test_an_encoder_of_another_shape_is_infinitely_different(tmp_path):
    with pytest.raises(DriftError, match="L2 of inf"):
        require_canaries(born(tmp_path / "store.fs"), KitEncoder(dim=DIM + 1))


def test_what_rounding_explains_is_let_through(tmp_path):
    store = born(tmp_path / "store.fs")
    assert require_canaries(store, KitEncoder(drift=1 + 5e-5)) is store


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 9e-5), ("float16", 9e-3), ("bfloat16", 4e-2)])
def test_the_tolerance_is_that_of_the_recipes_precision(tmp_path, precision, allowed):
    encoder = KitEncoder()
    encoder.recipe = Recipe({"kind": "test", "version": 1, "precision": precision})
    store = create(tmp_path / "store.fs", recipe=encoder.recipe, canaries=make_canaries(encoder))
    assert store.manifest.canaries.tolerance == PRECISION_TOLERANCE[precision]
    encoder.drift = 1 + allowed
    require_canaries(store, encoder)
    encoder.drift = 1 + 2 * allowed
    with pytest.raises(DriftError):
        require_canaries(store, encoder)


def test_drift_of_one_layer_is_not_hidden_by_the_others():
    a = np.ones((5, 3, DIM), np.float32) * [[[100], [1], [100]]]
    b = a.copy()
    b[:, 1] *= 1.1
    assert relative_l2(b, a) == pytest.approx(1 / 11, rel=1e-5)
    zeros = np.zeros((2, 3))
    assert relative_l2(zeros, zeros) == 0
    assert relative_l2(zeros, zeros + 1) == float("inf")


def test_a_store_without_canaries_opens_and_gets_some_before_it_grows(tmp_path, caplog):
    store = fill(create(tmp_path / "store.fs"), sentences(4))
    assert read_canaries(store) is None
    with caplog.at_level(logging.WARNING):
        grown = require_canaries(store, KitEncoder())
    assert grown.snapshot == store.snapshot + 1
    assert grown.manifest.shards == store.manifest.shards
    assert read_canaries(grown).sentences == SENTENCES
    (warning,) = caplog.messages
    assert "was not compared" in warning
    assert "verify" in warning
    with pytest.raises(DriftError):
        require_canaries(grown, KitEncoder(drift=1.1))


def test_two_that_give_a_store_canaries_at_once_agree_on_the_first_ones(tmp_path):
    store = create(tmp_path / "store.fs")
    assert require_canaries(store, KitEncoder()).snapshot == 2
    # The other one opened the store before.
    encoder = KitEncoder(drift=1 + 1e-6)
    assert require_canaries(store, encoder).snapshot == 2
    with pytest.raises(DriftError):
        require_canaries(store, KitEncoder(drift=1.1))
    assert list(verify(store.refreshed())) == []


class PartialEncoder(KitEncoder):
    """Cannot encode sentences with some token in them."""

    def __init__(self, *tokens: str) -> None:
        super().__init__()
        self.without = tokens

    def encode(self, sentences):
        listed = list(sentences)
        if any(token in tokens for tokens in listed for token in self.without):
            raise EncoderError("too long for me")
        return super().encode(listed)


def test_what_the_encoder_cannot_encode_is_no_canary(tmp_path):
    store = create(tmp_path / "store.fs", canaries=make_canaries(PartialEncoder("miner")))
    assert read_canaries(store).sentences == SENTENCES[:2]
    # What an encoder could encode once it has to encode again.
    with pytest.raises(EncoderError, match="too long"):
        require_canaries(store, PartialEncoder("Canaries"))


def test_an_encoder_of_other_sentences_does_without_and_says_so(tmp_path, caplog):
    store, encoder = create(tmp_path / "store.fs"), PartialEncoder("miner", "Canaries", "naïve")
    with caplog.at_level(logging.WARNING):
        assert require_canaries(store, encoder) is store
    assert "drift will not be noticed" in caplog.text


def test_an_encoder_that_breaks_the_rules_gets_no_canaries(tmp_path):
    class Short(KitEncoder):
        def encode(self, sentences):
            return [vectors[:-1] for vectors in super().encode(sentences)]

    store = create(tmp_path / "store.fs")
    before = tree(store.path)
    with pytest.raises(EncoderRuleError, match="shape"):
        require_canaries(store, Short())
    assert tree(store.path) == before


def test_old_canaries_are_those_of_their_store(tmp_path, monkeypatch):
    store = born(tmp_path / "store.fs")
    monkeypatch.setattr(canaries, "SENTENCES", (("Other", "birds"),))
    encoder = KitEncoder()
    require_canaries(store, encoder)
    assert encoder.n_encoded == len(SENTENCES)


# -- looked after


@pytest.mark.parametrize("offset", [8, 600, 4096, -1], ids=["superblock", "structure", "first", "last"])
def test_damage_is_named_refused_and_repaired(tmp_path, offset):
    store = fill(born(tmp_path / "store.fs"), sentences(9))
    file = canary_file(store)
    flip_bit(file, offset % file.stat().st_size)
    (finding, *_) = verify(store, quick=True)
    assert finding.shard == f"canaries/{file.name}"
    with pytest.raises(DamagedStoreError, match=file.name):
        require_canaries(store, KitEncoder())
    # Reading needs none.
    assert_holds(store, sentences(9))
    done = repair(store.path)
    assert [damaged.name for damaged in done.damaged] == [f"canaries/{file.name}"]
    assert (store.path / "damaged" / file.name).exists()
    assert done.result.shards == store.manifest.shards
    repaired = Store.open(store.path)
    assert repaired.manifest.canaries is None
    assert list(verify(repaired)) == []
    assert_holds(require_canaries(repaired, KitEncoder()), sentences(9))
    assert repair(store.path).sound


def test_lost_canaries_are_named_and_done_without(tmp_path):
    store = fill(born(tmp_path / "store.fs"), sentences(9))
    canary_file(store).unlink()
    assert [finding.shard for finding in verify(store)] == [f"canaries/{store.manifest.canaries.name}"]
    assert [damaged.missing for damaged in repair(store.path).damaged] == [True]
    assert list(verify(Store.open(store.path))) == []


def test_canaries_of_another_recipe_are_found(tmp_path):
    store = born(tmp_path / "store.fs")
    foreign = KitEncoder()
    foreign.recipe = Recipe({"kind": "test", "version": 2})
    other = create(tmp_path / "other.fs", recipe=foreign.recipe, canaries=make_canaries(foreign))
    canary_file(store).write_bytes(canary_file(other).read_bytes())
    assert list(verify(store))


def test_gc_keeps_those_that_a_snapshot_names(tmp_path):
    store = fill(born(tmp_path / "store.fs"), sentences(9))
    file = canary_file(store)
    stray = file.with_name(f"{7:032x}.h5")
    stray.write_bytes(b"of a writer that was not the first")
    done = collect(store.path, older_than=0, keep_last=1)
    assert [(gone.kind, gone.name) for gone in done.removed if gone.kind == "canaries"] == [
        ("canaries", f"canaries/{stray.name}")
    ]
    assert file.exists()
    assert list(verify(Store.open(store.path))) == []


def test_canaries_only_an_old_snapshot_names_stay_as_long_as_it(tmp_path):
    store = born(tmp_path / "store.fs")
    file = canary_file(store)
    flip_bit(file, 4096)
    repair(store.path)
    fill(Store.open(store.path), sentences(3))
    flip_bit(store.path / "damaged" / file.name, 4096)
    (store.path / "damaged" / file.name).rename(file)
    collect(store.path, older_than=0, keep_last=3)
    assert file.exists()
    del store  # which has the first snapshot open
    collect(tmp_path / "store.fs", older_than=0, keep_last=1)
    assert not file.exists()


def test_merging_into_a_new_store_takes_them_along(tmp_path):
    one, two = fill(born(tmp_path / "one.fs"), sentences(4)), fill(born(tmp_path / "two.fs"), sentences(9))
    merge([one.path, two.path], tmp_path / "all.fs")
    merged = Store.open(tmp_path / "all.fs")
    assert merged.manifest.canaries == one.manifest.canaries
    assert canary_file(merged).read_bytes() == canary_file(one).read_bytes()
    assert_holds(merged, sentences(9))
    assert list(verify(merged)) == []


@pytest.mark.parametrize("into_new", [True, False])
def test_stores_whose_encoders_differed_are_not_merged(tmp_path, into_new):
    one = fill(born(tmp_path / "one.fs"), sentences(4))
    drifted = create(tmp_path / "drifted.fs", canaries=make_canaries(KitEncoder(drift=1.01)))
    before = tree(one.path)
    sources, into = ([one.path, drifted.path], tmp_path / "new") if into_new else ([drifted.path], one.path)
    with pytest.raises(DriftError, match=r"relative L2 of 0\.0099, expected at most 0\.0001"):
        merge(sources, into)
    assert not (tmp_path / "new").exists()
    assert tree(one.path) == before


def test_stores_without_canaries_are_merged_as_ever(tmp_path):
    one, two = fill(create(tmp_path / "one.fs"), sentences(4)), fill(born(tmp_path / "two.fs"), sentences(9))
    merge([one.path, two.path], tmp_path / "all.fs")
    assert Store.open(tmp_path / "all.fs").manifest.canaries is None
