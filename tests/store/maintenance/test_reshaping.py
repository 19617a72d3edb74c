"""Stores made of stores: some sentences, another codec, fewer shards; vectors as they were."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.errors import DamagedStoreError, StoreError, UsageError
from featurestore.keys import sentence_key
from featurestore.store.canaries import make_canaries, read_canaries
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.recoding import recode
from featurestore.store.maintenance.replacing import compact, remove
from featurestore.store.maintenance.selection import select
from featurestore.store.maintenance.subset import subset
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit, value_offset
from tests.kit.stores import (
    CONDITIONED_SENTENCES,
    ODD_SENTENCES,
    KitEncoder,
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    shard_path,
    stored_sentences,
    vectors_of,
)

EVERYTHING = [*sentences(40), *CONDITIONED_SENTENCES, *ODD_SENTENCES]


def keys(wanted) -> list[bytes]:
    return list(map(sentence_key, wanted))


def opened(store: Store) -> Store:
    return Store.open(store.path, access="pread", check="always")


@pytest.fixture(params=["float32", "float16", "int8"])
def store(request, tmp_path) -> Store:
    made = create(tmp_path / "store", codec=request.param, canaries=make_canaries(KitEncoder()))
    return opened(fill(made, EVERYTHING))


def small_shards(path, codec: str = "float32", n: int = 12) -> Store:
    store = create(path, codec=codec, shard_bytes=4096)
    for number in range(n):
        store = fill(store.refreshed(), [sentence(number)])
    return opened(store)


# -- selecting


def test_selecting_by_key_text_and_chance(store):
    chosen = select(store, keys=[*keys(sentences(9)), *keys(sentences(3)), b"\0" * 16])
    assert (chosen.n_sentences, chosen.n_missing) == (9, 1)
    assert select(store, keys=keys(sentences(9)), besides=keys(sentences(4))).n_besides == 4
    assert select(store, text=r"^s1\d? the cat").n_sentences == sum(
        " ".join(tokens).startswith("s1") and "the cat" in " ".join(tokens[1:3]) for tokens in sentences(20)
    )
    drawn = [select(store, sample=7, seed=seed) for seed in (1, 1, 2)]
    assert [d.n_sentences for d in drawn] == [7, 7, 7]
    assert all(map(np.array_equal, drawn[0].rows, drawn[1].rows))
    assert not all(map(np.array_equal, drawn[0].rows, drawn[2].rows))
    assert select(store, sample=1000).n_sentences == len(store)
    assert select(store, sample=0).n_sentences == 0


@pytest.mark.parametrize(
    ("options", "says"), [({"text": "("}, "no regular expression"), ({"sample": -1}, "sample is -1")]
)
def test_a_selection_that_makes_no_sense_is_refused(store, options, says):
    with pytest.raises(UsageError, match=says):
        select(store, **options)


# -- subset and copy


def test_a_subset_holds_the_same_bytes_of_its_sentences_alone(store, tmp_path):
    wanted = [*sentences(40)[::3], *CONDITIONED_SENTENCES[:2], *ODD_SENTENCES[:3]]
    taken = subset(store, select(store, keys=keys(wanted)), tmp_path / "new")
    new = Store.open(tmp_path / "new")
    assert set(stored_sentences(new)) == set(wanted)
    assert taken.n_sentences == len(wanted) == len(new)
    for tokens in wanted:
        assert np.array_equal(new.get(tokens), store.get(tokens))
    assert list(verify(new)) == []
    assert (new.recipe, new.encoder, new.manifest.codec) == (
        store.recipe,
        store.encoder,
        store.manifest.codec,
    )
    assert read_canaries(new).sentences == read_canaries(store).sentences
    assert_holds(fill(new, EVERYTHING), EVERYTHING)


def test_a_copy_has_the_same_shards(store, tmp_path):
    subset(store, select(store), tmp_path / "new")
    new = Store.open(tmp_path / "new")
    assert [shard.name for shard in new.manifest.shards] == [shard.name for shard in store.manifest.shards]
    assert stored_sentences(new) == stored_sentences(store)
    assert list(verify(new)) == []


def test_a_subset_goes_nowhere_but_to_a_new_place(store, tmp_path):
    subset(store, select(store, sample=3), tmp_path / "new")
    before = stored_sentences(Store.open(tmp_path / "new"))
    with pytest.raises(UsageError, match="already a store"):
        subset(store, select(store), tmp_path / "new")
    assert stored_sentences(Store.open(tmp_path / "new")) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="full"):
        subset(store, select(store), tmp_path / "full")
    for inside in (store.path / "new", store.path / "shards" / "deep" / "new"):
        with pytest.raises(UsageError, match="within the store"):
            subset(store, select(store), inside)
        assert not inside.exists()


def test_damage_is_not_carried_over(store, tmp_path):
    flip_bit(shard_path(store), value_offset(store, 0, 0))
    with pytest.raises(DamagedStoreError):
        subset(store, select(store), tmp_path / "new")
    assert len(Store.open(tmp_path / "new")) == 0
    bad = store.reader(0).tokens(0)
    subset(store, select(store, besides=keys([bad])), tmp_path / "new")
    assert set(stored_sentences(Store.open(tmp_path / "new"))) == set(EVERYTHING) - {bad}


# -- remove


def test_what_is_removed_is_gone_and_the_rest_as_it_was(store):
    unwanted = [*sentences(40)[::4], CONDITIONED_SENTENCES[0]]
    reader, session = Store.open(store.path), store.write()
    done = remove(store, select(store, keys=keys(unwanted)))
    new = Store.open(store.path)
    assert set(stored_sentences(new)) == set(EVERYTHING) - set(unwanted)
    assert (done.n_sentences, done.n_left) == (len(unwanted), len(new))
    for tokens in stored_sentences(new):
        assert np.array_equal(new.get(tokens), reader.get(tokens))
    assert list(verify(new)) == []
    assert_holds(reader, EVERYTHING)  # a snapshot that is open stays
    assert session.add(unwanted[0], vectors_of(unwanted[0]))  # and a writer that was open notices
    session.close()
    assert unwanted[0] in Store.open(store.path)
    del reader, session
    collect(store.path, keep_last=1, older_than=0)
    assert set(stored_sentences(Store.open(store.path))) == set(EVERYTHING) - set(unwanted[1:])


def test_everything_can_be_removed_and_put_back(store):
    done = remove(store, select(store))
    assert (done.n_left, done.n_rewritten) == (0, 0)
    assert stored_sentences(Store.open(store.path)) == []
    assert_holds(fill(Store.open(store.path), EVERYTHING), EVERYTHING)
    assert list(verify(Store.open(store.path))) == []


def test_a_dry_run_and_an_empty_selection_change_nothing(store):
    dry = remove(store, select(store, sample=5), dry_run=True)
    nothing = remove(store, select(store, keys=[]))
    assert (dry.n_sentences, nothing.n_sentences) == (5, 0)
    assert Store.open(store.path).snapshot == store.snapshot == dry.snapshot == nothing.snapshot


def test_two_who_remove_from_the_same_shard_do_not_undo_each_other(store):
    first, second = keys(sentences(1)), keys(sentences(1, start=1))
    chosen = select(store, keys=first), select(store, keys=second)
    remove(store, chosen[0])
    with pytest.raises(StoreError, match="another process removed, joined or repaired"):
        remove(store, chosen[1])
    assert set(stored_sentences(Store.open(store.path))) == set(EVERYTHING) - set(sentences(1))


def test_sentences_added_meanwhile_stay(store):
    chosen = select(store, keys=keys(sentences(2)))
    late = sentences(3, start=100)
    fill(Store.open(store.path), late)
    remove(store, chosen)
    assert set(stored_sentences(Store.open(store.path))) == (set(EVERYTHING) | set(late)) - set(sentences(2))


# -- compact


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_small_shards_become_full_ones(tmp_path, codec):
    store = small_shards(tmp_path / "store", codec)
    reader = Store.open(store.path)
    done = compact(store)
    new = Store.open(store.path)
    assert (done.n_before, done.n_joined) == (12, 12)
    assert done.n_after == len(new.manifest.shards) < 4
    assert stored_sentences(new) == sentences(12)
    assert_holds(new, sentences(12))
    assert_holds(reader, sentences(12))
    assert list(verify(new)) == []
    assert new.codec_error.n_tokens == store.codec_error.n_tokens
    assert compact(opened(new)).n_joined == 0
    dry = compact(small_shards(tmp_path / "other", codec), dry_run=True)
    assert dry.n_joined == 12
    assert len(Store.open(tmp_path / "other").manifest.shards) == 12


def test_shards_of_int8_are_joined_only_where_nothing_is_rounded_again(tmp_path):
    store = small_shards(tmp_path / "store", "int8")
    done = compact(store)
    assert (done.n_joined, done.n_apart, done.snapshot) == (0, 12, store.snapshot)
    one = opened(fill(create(tmp_path / "one", codec="int8", shard_bytes=1 << 20), sentences(12)))
    subset(one, select(one, keys=keys(sentences(2))), tmp_path / "a")
    before = one.get(sentence(0))
    assert np.array_equal(Store.open(tmp_path / "a").get(sentence(0)), before)


# -- recode


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_recoded_vectors_are_what_the_codec_makes_of_the_stored_ones(tmp_path, codec):
    source = opened(fill(create(tmp_path / "store", codec="float32"), EVERYTHING))
    done = recode(source, tmp_path / "new", codec)
    new = Store.open(tmp_path / "new")
    assert stored_sentences(new) == stored_sentences(source)
    assert new.manifest.codec == codec
    assert_holds(new, EVERYTHING)
    assert list(verify(new)) == []
    assert done.added.relative_l2 == done.error.relative_l2 == new.codec_error.relative_l2
    assert (codec == "float32") == (done.added.relative_l2 == 0)


def test_losses_are_added_up_and_the_sum_is_a_bound(tmp_path):
    source = opened(fill(create(tmp_path / "store", codec="float16"), sentences(40)))
    done = recode(source, tmp_path / "new", "int8")
    new = Store.open(tmp_path / "new")
    assert done.error.relative_l2 >= done.added.relative_l2 > source.codec_error.relative_l2 > 0
    differences = [new.get(tokens) - vectors_of(tokens) for tokens in sentences(40)]
    true = np.sqrt(sum((d * d).sum() for d in differences))
    length = np.sqrt(sum((vectors_of(tokens) ** 2).sum() for tokens in sentences(40)))
    assert true / length <= new.codec_error.relative_l2 * 1.01


def test_int8_is_rounded_a_second_time_only_if_asked(tmp_path):
    source = opened(fill(create(tmp_path / "store", codec="int8"), sentences(20)))
    for codec in ("float16", "int8"):
        with pytest.raises(UsageError, match=r"in int8, which lost 0\.0.*give --again"):
            recode(source, tmp_path / "new", codec)
    assert not (tmp_path / "new").exists()
    recode(source, tmp_path / "exact", "float32")
    exact = Store.open(tmp_path / "exact")
    assert all(np.array_equal(exact.get(t), source.get(t)) for t in sentences(20))
    assert exact.codec_error.relative_l2 == pytest.approx(source.codec_error.relative_l2)
    done = recode(source, tmp_path / "again", "int8", again=True)
    assert done.error.relative_l2 > source.codec_error.relative_l2


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_a_store_that_another_process_fills_meanwhile_is_left_to_it(tmp_path, codec):
    store = small_shards(tmp_path / "store")
    into, met = tmp_path / "into", []

    def meanwhile(_: int) -> None:
        if not met:
            met.append(fill(Store.open(into), [sentence(100)]))

    def make() -> object:
        if codec == "float32":
            return subset(store, select(store), into, progress=meanwhile)
        return recode(store, into, codec, progress=meanwhile)

    with pytest.raises(UsageError, match="another process wrote to"):
        make()
    assert stored_sentences(Store.open(into)) == [sentence(100)]
