"""Encoders that users write themselves: the least they need, and what is said of those that lack it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore import Encoder, Recipe, Store, extract
from featurestore.errors import EncoderError, UsageError
from tests.kit.doubles import DoubleEncoder, draw_sentences, vectors_of

SENTENCES = draw_sentences(300)


class Least(Encoder):
    """All that a class has to say that inherits from Encoder."""

    spec, recipe, dim, n_layers = "least:", Recipe({"kind": "least", "version": 1}), 8, 1
    device, token_budget = "cpu", 60

    def encode(self, sentences):
        return [vectors_of(sentence) for sentence in sentences]


def assert_stores_its_vectors(encoder, path) -> None:
    extract(SENTENCES, encoder, path, codec="float32", progress=False)
    for sentence, found in zip(SENTENCES, Store.open(path).get_many(SENTENCES), strict=True):
        assert np.array_equal(found, vectors_of(sentence))


def test_encode_is_enough(tmp_path):
    assert_stores_its_vectors(Least(), tmp_path / "inheriting")
    assert_stores_its_vectors(Without("submit"), tmp_path / "not")


def test_its_arrays_may_be_used_again_for_the_next_batch(tmp_path):
    class Reusing(Least):
        room = np.zeros((200, 8), np.float32)

        def encode(self, sentences):
            ends = np.cumsum([len(sentence) for sentence in sentences])
            arrays = np.split(self.room[: ends[-1]], ends[:-1])
            for array, sentence in zip(arrays, sentences, strict=True):
                array[:] = vectors_of(sentence)
            return arrays

    assert_stores_its_vectors(Reusing(), tmp_path / "store")


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda sentences: None, "NoneType"),
        (lambda sentences: (vectors_of(s) for s in sentences), "generator"),
        (lambda sentences: [torch.from_numpy(vectors_of(s)) for s in sentences], r"torch\.Size|Tensor"),
        (lambda sentences: [vectors_of(s).tolist() for s in sentences], "list"),
        (lambda sentences: [vectors_of(s).astype(int) for s in sentences], "int64|shapes"),
        (lambda sentences: [vectors_of(s)[:, :5] for s in sentences], r"\(3, 5\).*\(3, 8\)"),
        (lambda sentences: [vectors_of(s)[1:] for s in sentences], r"\(2, 8\).*\(3, 8\)"),
        (lambda sentences: [], r"returned \[\]"),
    ],
)
@pytest.mark.parametrize("canaries_too", [True, False])
def test_what_it_may_not_return_is_named(tmp_path, returned, found, canaries_too):
    class Wrong(DoubleEncoder):
        def encode(self, sentences):
            return returned(sentences) if canaries_too else super().encode(sentences)

        def submit(self, sentences):
            pending = super().submit(sentences)
            pending.result = lambda: returned(sentences)
            return pending

    expected = found if canaries_too else "double:.*returned|expected"
    with pytest.raises(EncoderError if canaries_too else Exception, match=expected) as caught:
        extract(SENTENCES, Wrong(), tmp_path / "store", progress=False)
    assert "error in the encoder" in str(caught.value) or not canaries_too
    assert not isinstance(caught.value, (TypeError, AttributeError))
    if canaries_too:
        assert not (tmp_path / "store").exists()
    else:  # the canaries were right
        assert len(Store.open(tmp_path / "store")) == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DoubleEncoder, "the class DoubleEncoder is no encoder: expected an object of one"),
        (lambda: DoubleEncoder(device=torch.device("cpu")), r"device is device\(type='cpu'\), expected str"),
        (lambda: DoubleEncoder(dim=8.0), r"dim is 8\.0, expected int"),
        (lambda: DoubleEncoder(n_layers=True), "n_layers is True, expected int"),
        (lambda: DoubleEncoder(spec=None, token_budget=None), "spec is None.*token_budget is None"),
        (lambda: DoubleEncoder(recipe={"kind": "x"}), "a DoubleEncoder is no encoder"),
        (lambda: Without("encode"), r"encode\(\) is missing"),
        (lambda: Without("dim"), "dim is None, expected int"),
        (lambda: 3, "a int is no encoder"),
    ],
)
def test_what_is_not_a_whole_encoder_is_told_what_it_lacks_and_makes_nothing(tmp_path, make, said):
    with pytest.raises(UsageError, match=said):
        extract([("a",)], make(), tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()


class Without:
    """An encoder that lacks one thing."""

    def __init__(self, name: str) -> None:
        whole = DoubleEncoder()
        for each in ("spec", "recipe", "dim", "n_layers", "device", "token_budget", "submit", "encode"):
            if each != name:
                setattr(self, each, getattr(whole, each))
