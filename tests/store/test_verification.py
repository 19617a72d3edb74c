"""Store.verify: what it finds, and what errors say of damage and of missing sentences as attributes."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest

from featurestore.errors import (
    DamagedStoreError,
    DriftError,
    MissingSentencesError,
    StoreWriteError,
)
from featurestore.keys import sentence_key
from featurestore.store.canaries import make_canaries, require_canaries
from featurestore.store.store import Store
from tests.kit.damage import flip_bit, forge_head, value_offset
from tests.kit.stores import KitEncoder, create, fill, sentence, sentences, shard_path


@pytest.fixture
def store(tmp_path) -> Store:
    return fill(create(tmp_path / "store.fs", shard_bytes=512), sentences(30))


def test_sound_store_has_no_findings_and_every_shard_is_counted(store):
    counted = []
    assert list(store.verify(progress=counted.append)) == []
    assert sum(counted) == store.n_bytes
    assert list(store.verify(quick=True)) == list(store.verify(sample=5, seed=1)) == []


def test_verify_names_shard_sentence_and_key(store):
    locations = store.locate([sentence_key(sentence(7))])
    shard, row = int(locations.shard[0]), int(locations.row[0])
    flip_bit(shard_path(store, shard), value_offset(store, shard, row))
    (found,) = store.verify()
    assert (found.shard, found.sentence) == (store.manifest.shards[shard].name, row)
    assert found.key == sentence_key(sentence(7)).hex()
    assert list(store.verify(quick=True)) == []
    assert list(store.verify(sample=30)) == [found]


@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_damage_carries_path_shard_and_row(store, access):
    locations = store.locate([sentence_key(sentence(7))])
    shard, row = int(locations.shard[0]), int(locations.row[0])
    path = shard_path(store, shard)
    flip_bit(path, value_offset(store, shard, row))
    with pytest.raises(DamagedStoreError) as caught:
        Store.open(store.path, access=access).get(sentence(7))
    error = caught.value
    assert (error.path, error.shard, error.row, error.is_gone) == (path, path.name, row, False)
    path.unlink()
    with pytest.raises(DamagedStoreError) as caught:
        Store.open(store.path, access=access).get(sentence(7))
    error = caught.value
    assert (error.path, error.shard, error.row, error.is_gone) == (path, path.name, None, True)


def test_cut_shard_carries_its_path(store):
    path = shard_path(store, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedStoreError) as caught:
        store.reader(0)
    assert (caught.value.path, caught.value.shard, caught.value.row) == (path, path.name, None)


def test_missing_sentences_are_carried_in_the_order_asked_for(store):
    wanted = [sentence(3), ("not", "there"), sentence(4), ("nor", "this")]
    with pytest.raises(MissingSentencesError) as caught:
        store.get_many(wanted)
    error = caught.value
    assert [missing.tokens for missing in error.sentences] == [wanted[1], wanted[3]]
    assert [missing.key for missing in error.sentences] == [sentence_key(wanted[1]), sentence_key(wanted[3])]
    assert (error.n_missing, error.n_wanted, error.store) == (2, 4, store.path)
    key = sentence_key(wanted[1])
    with pytest.raises(MissingSentencesError) as caught:
        store.get_by_key(key)
    assert [(missing.tokens, missing.key) for missing in caught.value.sentences] == [((), key)]


def test_of_very_many_missing_sentences_the_first_are_carried(store):
    wanted = [(f"absent{i}",) for i in range(1000)]
    with pytest.raises(MissingSentencesError) as caught:
        store.get_many(wanted)
    assert caught.value.n_missing == 1000
    assert [missing.tokens for missing in caught.value.sentences] == wanted[:100]


def test_drift_carries_the_sentence_and_the_difference(tmp_path):
    encoder = KitEncoder()
    store = create(tmp_path / "store.fs", canaries=make_canaries(encoder))
    with pytest.raises(DriftError) as caught:
        require_canaries(store, KitEncoder(drift=1.01))
    assert caught.value.tokens in make_canaries(encoder).sentences
    assert caught.value.difference == pytest.approx(0.01 / 1.01, rel=1e-5)


def test_vectors_that_are_not_numbers_drift(tmp_path):
    store = create(tmp_path / "store.fs", canaries=make_canaries(KitEncoder()))
    with pytest.raises(DriftError) as caught:
        require_canaries(store, KitEncoder(drift=np.nan))
    assert caught.value.difference == np.inf


def test_what_cannot_be_written_carries_path_size_and_number(store, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    session = store.write()
    session.add(("new",), np.zeros((1, store.dim), np.float32))
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StoreWriteError) as caught:
        session.flush()
    assert caught.value.path.parent == store.path / "tmp"
    assert caught.value.n_bytes > 4096
    assert (caught.value.errno, caught.value.reason) == (errno.ENOSPC, "No space left on device")


def test_where_the_manifest_and_hdf5_disagree_is_found(store):
    entry = store.manifest.shards[0]
    moved = replace(entry.extents["checksums"], offset=0)  # where the file's own structure begins
    forged = replace(entry, extents={**entry.extents, "checksums": moved})
    findings = list(Store(store.path, replace(store.manifest, shards=(forged,))).verify())
    assert findings[0].problem == "HDF5 finds its datasets elsewhere than the manifest says"


def test_of_a_sentence_that_cannot_be_read_at_all_only_the_key_is_said(store):
    forged = forge_head(store, "tokens", 0, b"\xff")
    flip_bit(shard_path(forged), value_offset(forged, 0, 0))
    of_first = [finding for finding in forged.verify() if finding.row == 0]
    assert [finding.text for finding in of_first] == ["", ""]
    assert {finding.key for finding in of_first} == {sentence_key(sentence(0)).hex()}


def test_a_shard_of_sound_sentences_under_another_name_is_found(store):
    path, forged = shard_path(store), replace(store.manifest.shards[0], sha256="0" * 64)
    path.rename(path.with_name(forged.name))
    (finding,) = Store(store.path, replace(store.manifest, shards=(forged,))).verify()
    assert finding.row is None
    assert "the file has hash" in finding.problem
