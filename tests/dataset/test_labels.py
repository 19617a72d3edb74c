"""Labels of a FeatureDataset: kinds, numbers, and what is refused by name and line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from featurestore import Example, FeatureDataset, LabelSet, Store, open_corpus
from featurestore.corpora.contract.example import IGNORED
from featurestore.errors import LabelError, UsageError


@pytest.fixture
def store(example_store) -> Store:
    return Store.open(example_store)


def labelled(example: Example, labels, line: int = 7) -> Example:
    return Example(example.tokens, labels, "corpus.conll", line)


def test_token_labels_are_one_number_a_token(store, examples):
    dataset = FeatureDataset(store, examples)
    assert dataset.label_kind == "token"
    assert dataset.labels == LabelSet(("NOUN", "VERB"))
    for position, example in enumerate(examples):
        assert dataset[position].label.dtype == torch.int64
        assert dataset.gold(position) == example.labels
        assert [dataset.labels.id(name) for name in example.labels] == dataset[position].label.tolist()


def test_a_missing_label_that_is_ignored_is_no_label(store, examples):
    ignored = [labelled(e, (IGNORED, *e.labels[1:])) for e in examples]
    dataset = FeatureDataset(store, ignored)
    assert dataset.labels == LabelSet.from_names(name for e in examples for name in e.labels[1:])
    for position, example in enumerate(ignored):
        expected = [-100, *(dataset.labels.id(name) for name in example.labels[1:])]
        assert dataset[position].label.tolist() == expected
        assert dataset.gold(position) == example.labels
    batch = dataset.gather([0, 1])
    assert batch.labels[:, 0].tolist() == [-100, -100]


def test_sentence_labels_are_one_number_a_sentence(store, examples):
    moods = ["good", "bad", "fair"]
    dataset = FeatureDataset(store, [labelled(e, moods[i % 3]) for i, e in enumerate(examples)])
    assert dataset.label_kind == "sentence"
    assert dataset.label_names == ("bad", "fair", "good")
    assert dataset[4].label.shape == ()
    assert dataset.gold(4) == "bad"
    batch = dataset.gather([0, 1, 2])
    assert batch.labels.tolist() == [2, 0, 1]
    assert batch.labels.dtype == torch.int64


def test_examples_without_labels_have_none(store, examples):
    dataset = FeatureDataset(store, [example.tokens for example in examples])
    assert (dataset.label_kind, len(dataset.labels), dataset.label_names) == (None, 0, ())
    assert dataset[0].label is None
    assert dataset.gather([0, 1]).labels is None
    with pytest.raises(LabelError, match="no labels: read the corpus with a label"):
        dataset.gold(0)


def test_numbers_do_not_depend_on_the_order_of_the_corpus(store, examples):
    one, other = FeatureDataset(store, examples), FeatureDataset(store, examples[::-1])
    assert one.labels == other.labels
    for position in range(60):
        assert torch.equal(one[position].label, other[59 - position].label)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (("A",), "A", "has a label for the sentence, but the examples before it have a label for each token"),
        ("A", None, "has no labels, but the examples before it have a label for the sentence"),
        (None, ("A",), "has a label for each token, but the examples before it have no labels"),
    ],
)
def test_mixed_kinds_are_refused_with_the_place(store, examples, first, second, says):
    short = [example for example in examples if len(example.tokens) == 1]
    with pytest.raises(LabelError) as caught:
        FeatureDataset(store, [labelled(short[0], first), labelled(short[1], second, line=12)])
    assert str(caught.value) == f"corpus.conll, line 12: the sentence {says}"
    assert (caught.value.path, caught.value.line) == ("corpus.conll", 12)


def test_a_wrong_number_of_labels_is_refused_with_the_place(store, examples):
    example = next(e for e in examples if len(e.tokens) == 5)
    with pytest.raises(LabelError, match=r"corpus\.conll, line 7: the sentence has 4 labels for 5 tokens"):
        FeatureDataset(store, [labelled(example, ("A",) * 4)])


def test_an_unseen_label_is_refused_with_the_place_and_the_known_ones(store, examples):
    known = LabelSet(("NOUN", "VERB"))
    odd = labelled(examples[5], ("ODD",) * len(examples[5].tokens), line=99)
    with pytest.raises(
        LabelError, match=r"corpus\.conll, line 99: the sentence has the label 'ODD'.*NOUN, VERB"
    ):
        FeatureDataset(store, [examples[0], odd], labels=known)


def test_an_unseen_label_can_be_kept_behind_the_known_ones(store, examples):
    # In the order of the model, not the alphabet's.
    known = LabelSet(("VERB", "NOUN"))
    odd = labelled(examples[5], ("ODD",) * len(examples[5].tokens))
    dataset = FeatureDataset(store, [odd, examples[0]], labels=known, unseen_labels="keep")
    assert dataset.labels is known
    assert dataset.label_names == ("VERB", "NOUN", "ODD")
    assert set(dataset[0].label.tolist()) == {2}
    assert dataset.gold(0) == odd.labels
    assert dataset.gold(1) == examples[0].labels


def test_a_models_labels_may_be_a_list_of_names(store, examples):
    dataset = FeatureDataset(store, examples, labels=["VERB", "NOUN"])
    assert dataset.labels == LabelSet(("VERB", "NOUN"))
    assert dataset.gold(3) == examples[3].labels
    for wrong in ("VERB", {"VERB", "NOUN"}, {"VERB": 1, "NOUN": 0}):
        with pytest.raises(UsageError, match=f"type {type(wrong).__name__}, expected a list or tuple of str"):
            FeatureDataset(store, examples, labels=wrong)


def test_what_to_do_with_unseen_labels_is_one_of_two_things(store, examples):
    with pytest.raises(UsageError, match="unseen_labels is 'keeep', expected error or keep"):
        FeatureDataset(store, examples, labels=["NOUN", "VERB"], unseen_labels="keeep")


def test_changing_the_labels_of_an_item_or_a_batch_changes_no_other(store, examples):
    for given in (examples, [labelled(e, e.labels[0]) for e in examples]):
        dataset = FeatureDataset(store, given)
        for read in (lambda d=dataset: d[3].label, lambda d=dataset: d.gather([3]).labels):
            before = read().clone()
            read().fill_(-100)
            assert torch.equal(read(), before)
        assert dataset.gold(3) == given[3].labels


@pytest.mark.parametrize("wrong", [1, 0.5, True, b"A", torch.tensor([0, 1]), {"A"}])
def test_labels_of_another_type_are_refused_with_the_place(store, examples, wrong):
    says = f"of type {type(wrong).__name__}, expected a str for the sentence, or a tuple with a str for each"
    with pytest.raises(LabelError, match=f"corpus.conll, line 7: label .* is {says} token"):
        FeatureDataset(store, [labelled(examples[0], wrong)])
    with pytest.raises(LabelError, match=says):
        FeatureDataset(store, [examples[0], labelled(examples[1], wrong)], labels=["NOUN", "VERB"])


@pytest.mark.parametrize("wrong", [1, None, b"A", ["A"], torch.tensor(1)])
def test_a_token_label_of_another_type_is_refused_with_the_place(store, examples, wrong):
    example = next(e for e in examples if len(e.tokens) == 5)
    mixed = Example(example.tokens, ("NOUN", "NEW", wrong, "VERB", wrong))
    place = rf"an example made in memory \({' '.join(example.tokens)}\)"
    for options in ({}, {"labels": ["NOUN", "VERB", "NEW"]}, {"labels": ["NOUN"], "unseen_labels": "keep"}):
        with pytest.raises(
            LabelError, match=f"{place}: label .* is of type {type(wrong).__name__}, expected str"
        ):
            FeatureDataset(store, [examples[0], mixed], **options)


def test_a_models_labels_keep_their_numbers_when_some_do_not_occur(store, examples):
    known = LabelSet(("X", "VERB", "NOUN"))
    dataset = FeatureDataset(store, examples, labels=known)
    assert dataset.label_names == known.names
    assert dataset.gold(3) == examples[3].labels
    assert set(dataset.gather(range(60)).labels.unique().tolist()) == {-100, 1, 2}


def test_labels_of_a_file_are_aligned_with_its_vectors(tmp_path, store, examples):
    path = tmp_path / "corpus.conll"
    path.write_text(
        "\n".join(
            "".join(f"{w}\t{tag}\n" for w, tag in zip(e.tokens, e.labels, strict=True)) for e in examples
        )
    )
    dataset = FeatureDataset(store, open_corpus(path, label="2"))
    assert [dataset.gold(i) for i in range(60)] == [example.labels for example in examples]


def test_label_sets_number_names_and_refuse_repeats_and_strangers():
    labels = LabelSet.from_names(["b", "a", "b"])
    assert labels.names == ("a", "b")
    assert (len(labels), labels.id("b"), "a" in labels, "c" in labels) == (2, 1, True, False)
    with pytest.raises(LabelError, match="'c' is not one of a, b"):
        labels.id("c")
    with pytest.raises(LabelError, match=r"repeated: \['a'\]"):
        LabelSet(("a", "b", "a"))


def test_label_sets_are_equal_and_hashed_by_their_names():
    assert LabelSet(["B", "A"]) == LabelSet(("B", "A")) != LabelSet(("A", "B"))
    assert len({LabelSet(["B", "A"]), LabelSet(("B", "A"))}) == 1
    assert repr(LabelSet(["A"])) == "LabelSet(names=('A',))"
    assert pickle.loads(pickle.dumps(LabelSet(["B", "A"]))).id("A") == 1


def test_label_sets_take_only_str():
    for make in (LabelSet, LabelSet.from_names):
        with pytest.raises(LabelError, match="label 1 is of type int, expected str"):
            make(["A", 1])


def test_labels_of_sentences_are_told_from_the_names_of_labels():
    with pytest.raises(UsageError, match=r"hold a list, \['X', 'Y'\].*Example\(tokens, labels\)"):
        LabelSet([["X", "Y"], ["X"]])


@pytest.mark.parametrize("label", [3, np.int64(3)])
def test_integer_labels_are_told_how_to_become_names(label):
    with pytest.raises(LabelError, match=r"expected str: str\(label\), or, .* names\[label\]"):
        LabelSet.from_names(["X", label])
