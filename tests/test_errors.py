"""The exception tree: drawn complete, and errors that keep what they carry."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from featurestore import Store, errors, extract
from featurestore.cli.commands.seeing.inspect import stats
from featurestore.cli.lookup import find_key
from featurestore.errors import (
    AlignmentError,
    CorpusError,
    DamagedStoreError,
    DriftError,
    FeaturestoreError,
    FieldDifference,
    MissingSentence,
    MissingSentencesError,
    RecipeMismatchError,
    StateError,
    StoreWriteError,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, FeaturestoreError)
]
WITH_DATA = [
    CorpusError("no label", path="train.conllu", line=7),
    StoreWriteError("disk full", path="store/x", n_bytes=12),
    MissingSentencesError(
        "not there",
        sentences=[MissingSentence(("a", "b"), b"k" * 16, "x.txt, line 3")],
        n_missing=1,
        n_wanted=9,
        store="store",
        paths=["x.txt"],
    ),
    DamagedStoreError("damaged", path="store/shards/0.h5", shard="0.h5", row=3, is_gone=True),
    RecipeMismatchError("other", differences=[FieldDifference("layers", "average", "top")]),
    DriftError("drift", tokens=["a"], difference=0.25),
    StateError("another budget", field="token_budget", expected=2048, found=1024),
    AlignmentError("other tokens", path="x.conll", line=2, position=1, expected="a", found=None),
]


def test_the_tree_that_is_drawn_is_the_tree():
    drawn: dict[str, int] = {}
    for line in errors.__doc__.splitlines():
        if found := re.match(r"([ │├└─]*)(\w+Error|EncoderOutOfMemory)\b(?!\.)", line):
            drawn[found[2]] = len(found[1]) // 4 - 1
    root = len(FeaturestoreError.__mro__)
    assert drawn == {error.__name__: len(error.__mro__) - root for error in CLASSES}


@pytest.mark.parametrize("error", WITH_DATA, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_with_what_they_carry(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_another_recipe_names_each_field_with_both_values(tmp_path, tiny_elmo_spec):
    extract([["a", "b"]], tiny_elmo_spec, tmp_path / "store", layers="average", progress=False)
    with pytest.raises(RecipeMismatchError) as caught:
        extract([["a", "b"]], tiny_elmo_spec, tmp_path / "store", layers="top", progress=False)
    assert [d for d in caught.value.differences if d.field.startswith("layers")]


def test_the_command_line_says_of_which_store_a_sentence_is_missing(tmp_path):
    store = Store.create(tmp_path / "store", recipe={"kind": "test", "version": 1}, dim=2)
    with pytest.raises(MissingSentencesError, match="starts with abcd") as by_key:
        find_key(store, "abcd")
    with pytest.raises(MissingSentencesError, match="nothing to count") as empty:
        stats.callback(store.path, None, 10, False)
    assert by_key.value.store == empty.value.store == store.path
    assert (by_key.value.n_missing, empty.value.n_missing) == (1, 0)
