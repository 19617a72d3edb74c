"""merge: one store of several, their bytes as they were, each sentence once."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from featurestore.disk.filesystem import FileSystem
from featurestore.errors import (
    DamagedStoreError,
    NotAStoreError,
    RecipeMismatchError,
    StoreError,
    StoreWriteError,
    UsageError,
)
from featurestore.recipe import Recipe
from featurestore.store.format.directory import manifest_path
from featurestore.store.maintenance import merge as merge_module
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit
from tests.kit.stores import (
    CONDITIONED_SENTENCES,
    ODD_SENTENCES,
    assert_holds,
    create,
    fill,
    sentences,
    shard_path,
    vectors_of,
)

EVERY = 1 if os.environ.get("FEATURESTORE_LONG_TESTS") else 5
"""Operations from one stop of a merge to the next."""


def make(path: Path, wanted, **options) -> Path:
    return fill(create(path, **{"shard_bytes": 400, **options}), wanted).path


def stored(path: Path) -> list[tuple[str, ...]]:
    return [tokens for _, _, tokens in Store.open(path).sentences()]


def shard_names(path: Path) -> list[str]:
    return [shard.name for shard in Store.open(path).manifest.shards]


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.suffix in (".h5", ".json")
    }


def test_stores_without_repeats_are_merged_shard_by_shard(tmp_path):
    one, other = make(tmp_path / "1", sentences(12)), make(tmp_path / "2", sentences(9, start=100))
    before = tree(one), tree(other)
    into = tmp_path / "into"
    done = merge([one, other], into)
    assert shard_names(into) == [*shard_names(one), *shard_names(other)]
    assert (done.n_whole, done.n_part, done.n_known) == (len(shard_names(into)), 0, 0)
    assert (done.n_sentences, done.n_repeated) == (21, 0)
    merged = Store.open(into)
    assert merged.manifest.shards == (*Store.open(one).manifest.shards, *Store.open(other).manifest.shards)
    assert_holds(merged, [*sentences(12), *sentences(9, start=100)])
    assert list(verify(merged)) == []
    assert (tree(one), tree(other)) == before


def test_repeated_sentence_is_stored_once_with_the_first_vectors(tmp_path):
    one = make(tmp_path / "1", sentences(12))
    other = create(tmp_path / "2", shard_bytes=400)
    with other.write() as session:
        for tokens in sentences(12, start=6):
            session.add(tokens, vectors_of(tokens) + 1)
    done = merge([one, other.path], tmp_path / "into")
    assert (done.n_sentences, done.n_repeated) == (18, 6)
    assert done.n_part > 0
    merged = Store.open(tmp_path / "into")
    assert len(merged) == 18
    assert_holds(merged, sentences(12))
    for tokens in sentences(6, start=12):
        np.testing.assert_array_equal(merged.get(tokens), vectors_of(tokens) + 1)
    assert list(verify(merged)) == []


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_part_of_a_shard_has_the_very_vectors_of_the_whole(tmp_path, codec, n_layers):
    wanted = [*ODD_SENTENCES, *CONDITIONED_SENTENCES, *sentences(6)]
    options = {"codec": codec, "n_layers": n_layers, "shard_bytes": 1 << 20}
    source = Store.open(make(tmp_path / "1", wanted, **options))
    into = make(tmp_path / "into", wanted[::2], **options)
    done = merge([source.path], into)
    assert (done.n_part, done.n_sentences) == (1, len(wanted[1::2]))
    merged = Store.open(into)
    for tokens in wanted[1::2]:
        np.testing.assert_array_equal(merged.get(tokens), source.get(tokens))
    assert len(merged) == len(wanted)
    assert set(stored(into)) == set(wanted)
    assert list(verify(merged)) == []
    assert merged.manifest.shards[-1].error == source.manifest.shards[0].error


def test_codecs_may_differ(tmp_path):
    one = make(tmp_path / "1", sentences(5), codec="float32")
    other = make(tmp_path / "2", sentences(5, start=50), codec="int8")
    merge([one, other], tmp_path / "into")
    merged = Store.open(tmp_path / "into")
    assert merged.manifest.codec == "float32"
    assert {shard.codec for shard in merged.manifest.shards} == {"float32", "int8"}
    np.testing.assert_array_equal(merged.get(sentences(1, start=50)[0]), Store.open(other).get(("s50",)))


def test_merging_again_adds_nothing(tmp_path):
    one, into = make(tmp_path / "1", sentences(12)), tmp_path / "into"
    merge([one, one], into)
    snapshot = Store.open(into).snapshot
    done = merge([one], into)
    assert (done.n_sentences, done.n_known, done.n_repeated) == (0, len(shard_names(one)), 12)
    assert Store.open(into).snapshot == snapshot
    assert stored(into) == sentences(12)


def test_what_the_target_has_stays_first(tmp_path):
    into = make(tmp_path / "into", sentences(5))
    names = shard_names(into)
    merge([make(tmp_path / "1", sentences(9))], into)
    assert shard_names(into)[: len(names)] == names
    assert sorted(stored(into)) == sorted(sentences(9))


def test_sentence_that_a_source_has_twice_is_stored_once(tmp_path):
    source = Store.open(make(tmp_path / "1", sentences(6)))
    other = Store.open(make(tmp_path / "2", sentences(6, start=5)))
    for shard in other.manifest.shards:
        shutil.copy(other.path / "shards" / shard.name, source.path / "shards")
    manifest_path(source.path, source.snapshot + 1).write_bytes(b"{}")
    repair(source.path)  # takes in what may have been committed, repeats included
    assert len(Store.open(source.path)) == 12
    done = merge([source.path], tmp_path / "into")
    assert (done.n_sentences, done.n_repeated) == (11, 1)
    assert_holds(Store.open(tmp_path / "into"), sentences(11))


def test_empty_stores_are_merged_to_an_empty_one(tmp_path):
    assert merge([create(tmp_path / "1").path], tmp_path / "into").n_sentences == 0
    assert len(Store.open(tmp_path / "into")) == 0


# -- what is refused


def test_other_recipe_is_refused_naming_the_field_before_anything_is_made(tmp_path):
    one = make(tmp_path / "1", sentences(3))
    other = make(tmp_path / "2", sentences(3), recipe=Recipe({"kind": "test", "version": 2}))
    for into in (tmp_path / "into", make(tmp_path / "there", sentences(2, start=70))):
        before = tree(into)
        with pytest.raises(RecipeMismatchError, match=r"version: 2 in store .*2, 1 asked for"):
            merge([one, other], into)
        assert tree(into) == before
    assert not (tmp_path / "into").exists()


def test_other_shape_is_refused(tmp_path):
    one, other = make(tmp_path / "1", sentences(3)), make(tmp_path / "2", sentences(3), dim=4)
    with pytest.raises(StoreError, match="1 x 4"):
        merge([one, other], tmp_path / "into")


def test_nothing_to_merge_or_a_place_that_cannot_be_a_store_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([], tmp_path / "merged.fs")
    one = fill(create(tmp_path / "one.fs"), sentences(4))
    (tmp_path / "file").write_text("text")
    with pytest.raises(UsageError, match="file"):
        merge([one.path], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "text"


def test_store_into_itself_is_refused(tmp_path):
    one = make(tmp_path / "1", sentences(3))
    (tmp_path / "link").symlink_to(one)
    for into in (one, tmp_path / "link"):
        with pytest.raises(UsageError, match="leave it out"):
            merge([one], into)


def test_source_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(NotAStoreError):
        merge([make(tmp_path / "1", sentences(3)), tmp_path / "absent"], tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("repeats", [0, 1], ids=["whole", "part"])
def test_damaged_source_is_refused_and_named(tmp_path, repeats):
    one = make(tmp_path / "1", sentences(6), shard_bytes=1 << 20)
    path = shard_path(Store.open(one))
    flip_bit(path, path.stat().st_size - 1)
    into = make(tmp_path / "into", sentences(repeats))
    with pytest.raises(DamagedStoreError, match=path.name) as caught:
        merge([one], into)
    assert (caught.value.path, caught.value.shard) == (path, path.name)
    assert stored(into) == sentences(repeats)


# -- files


def test_whole_shards_are_one_file_of_two_names_on_one_disk(tmp_path):
    one, into = make(tmp_path / "1", sentences(6)), tmp_path / "into"
    merge([one], into)
    for name in shard_names(into):
        assert os.path.samefile(one / "shards" / name, into / "shards" / name)
    shutil.rmtree(one)
    assert_holds(Store.open(into), sentences(6))


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_files_may_not_have_two_names_shards_are_copied(tmp_path, code):
    one, into = make(tmp_path / "1", sentences(6)), tmp_path / "into"

    class OneName(FileSystem):
        def operate(self, operation, call, *arguments):
            if operation.kind == "link" and one in operation.source.parents:
                raise OSError(code, os.strerror(code))
            return super().operate(operation, call, *arguments)

    merge([one], into, filesystem=OneName())
    for name in shard_names(one):
        assert not os.path.samefile(one / "shards" / name, into / "shards" / name)
        assert (one / "shards" / name).read_bytes() == (into / "shards" / name).read_bytes()
    assert_holds(Store.open(into), sentences(6))


def test_damaged_file_in_the_way_is_replaced(tmp_path):
    one, into = make(tmp_path / "1", sentences(6)), create(tmp_path / "into").path
    for name in shard_names(one):
        (into / "shards" / name).write_bytes(b"half a shard")
    merge([one], into)
    assert_holds(Store.open(into), sentences(6))
    assert_holds(Store.open(one), sentences(6))


# -- interrupted, and at the same time as others


class Stopping(FileSystem):
    def __init__(self, step: int) -> None:
        self.step, self.n_steps = step, 0

    def operate(self, operation, call, *arguments):
        self.n_steps += 1
        if self.n_steps > self.step:
            raise OSError(errno.EIO, "stopped")
        return super().operate(operation, call, *arguments)


def test_merge_stopped_at_any_operation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(merge_module, "_SHARDS_A_COMMIT", 2)
    one = make(tmp_path / "1", sentences(8), shard_bytes=200)
    other = make(tmp_path / "2", sentences(6, start=5), shard_bytes=200)
    for step in itertools.count(0, EVERY):
        into, stopping = tmp_path / f"{step}.fs", Stopping(step)
        with contextlib.suppress(StoreWriteError):
            merge([one, other], into, filesystem=stopping)
        if Store.exists(into):
            assert_holds(Store.open(into), stored(into))
        merge([one, other], into)
        assert sorted(stored(into)) == sorted(sentences(11))
        assert list(verify(Store.open(into))) == []
        assert (stored(one), stored(other)) == (sentences(8), sentences(6, start=5))
        if stopping.n_steps <= step:
            break
        shutil.rmtree(into)
    assert step > 40


def test_what_another_writer_commits_meanwhile_is_left_out(tmp_path):
    one, into = make(tmp_path / "1", sentences(12)), create(tmp_path / "into").path

    class Overtaken(FileSystem):
        overtaken = False

        def operate(self, operation, call, *arguments):
            if operation.kind == "link" and operation.path.suffix == ".json" and not self.overtaken:
                self.overtaken = True
                fill(Store.open(into), sentences(4, start=10))
            return super().operate(operation, call, *arguments)

    done = merge([one], into, filesystem=Overtaken())
    assert (done.n_sentences, done.n_repeated) == (10, 2)
    assert sorted(stored(into)) == sorted(sentences(14))
    assert_holds(Store.open(into), sentences(14))


def test_two_merges_into_one_new_store_both_succeed(tmp_path, monkeypatch):
    one = fill(create(tmp_path / "one.fs"), sentences(4))
    two = fill(create(tmp_path / "two.fs"), sentences(4, start=4))
    create_store, into = Store.create, tmp_path / "merged.fs"

    def just_made_by_another(path, **options):
        monkeypatch.undo()
        merge([two.path], into)
        return create_store(path, **options)

    monkeypatch.setattr(Store, "create", just_made_by_another)
    merge([one.path], into)
    assert sorted(tokens for _, _, tokens in Store.open(into).sentences()) == sorted(sentences(8))
