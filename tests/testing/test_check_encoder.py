"""``check_encoder`` with encoders that break one rule each, and what they share with extraction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from featurestore import Recipe, Store, extract, load_encoder
from featurestore.encoders.vectors import BatchVectors
from featurestore.errors import EncoderOutOfMemory, EncoderRuleError, UsageError
from featurestore.testing import RULES, check_encoder
from tests.kit.doubles import CONTEXT_RECIPE, DoubleEncoder, draw_sentences, vectors_of


class Sound:
    """The least that an encoder is; those below break one rule each."""

    spec, recipe = "sound:", {"kind": "sound", "version": 1}
    dim, n_layers, device, token_budget = 8, 1, "cpu", 60

    def encode(self, sentences):
        return [vectors_of(sentence) for sentence in sentences]


class Dropout(Sound):
    generator = np.random.default_rng(0)

    def encode(self, sentences):
        return [v * (self.generator.random(v.shape) > 0.1) / 0.9 for v in super().encode(sentences)]


class CarriesState(Sound):
    def __init__(self):
        self.state = 0.0

    def encode(self, sentences):
        found = []
        for vectors in super().encode(sentences):
            found.append(vectors + self.state)
            self.state = 0.5 * self.state + float(vectors.mean())
        return found


class Learns(Sound):
    """Like normalisation left in training: the same call gives the same, until others came between."""

    def __init__(self):
        self.seen, self.kept = set(), {}

    def encode(self, sentences):
        new = set(sentences) - self.seen
        self.seen |= new
        if new:
            self.kept = {}
        return [v * (1 + 0.01 * len(self.seen)) for v in super().encode(sentences)]


class SeesNeighbours(Sound):
    def encode(self, sentences):
        vectors = super().encode(sentences)
        return [v - 0.1 * np.concatenate(vectors).mean(0) for v in vectors]


class CountsPadding(Sound):
    def encode(self, sentences):
        longest = max(map(len, sentences))
        return [v + v.sum(0) / longest for v in super().encode(sentences)]


class SortsByLength(Sound):
    def encode(self, sentences):
        return super().encode(sorted(sentences, key=len))


class SwapsEqualOnes(Sound):
    def encode(self, sentences):
        return super().encode(sorted(sentences, key=lambda tokens: (len(tokens), tokens))[::-1])[::-1]


class SortsTheList(Sound):
    def encode(self, sentences):
        sentences.sort(key=len)
        return super().encode(sentences)


class NotFinite(Sound):
    def encode(self, sentences):
        return [np.where(v > 13, np.inf, v) for v in super().encode(sentences)]


class KnowsFewWords(Sound):
    def encode(self, sentences):
        return [{"w1": 1}[token] for sentence in sentences for token in sentence]


class RandomRecipe(Sound):
    numbers = itertools.count()

    @property
    def recipe(self):
        return {"kind": "sound", "version": next(self.numbers)}


class ReusesValues(Sound):
    room = np.zeros((4000, 8), np.float32)

    def encode(self, sentences):
        lengths = list(map(len, sentences))
        values = self.room[: sum(lengths)]
        values[:] = np.concatenate(super().encode(sentences))
        return BatchVectors(values, lengths)


class ReusesArrays(ReusesValues):
    """Which is allowed: they are copied."""

    def encode(self, sentences):
        return list(super().encode(sentences))


class AliasesArrays(Sound):
    def encode(self, sentences):
        room = np.zeros((100, 8), np.float32)
        for sentence in sentences:
            room[: len(sentence)] = vectors_of(sentence)
        return [room[: len(sentence)] for sentence in sentences]


@dataclass
class _Late:
    encoder: Sound
    sentences: list
    newest: list = field(default_factory=list)

    def result(self):
        return self.encoder.encode(self.newest[-1][: len(self.sentences)])


class SubmitsTheLastBatch(Sound):
    def __init__(self):
        self.newest = []

    def submit(self, sentences):
        self.newest.append(list(sentences))
        return _Late(self, list(sentences), self.newest)


class SubmitsNothing(Sound):
    def submit(self, sentences):
        return self.encode(sentences)


def returning(change):
    class Returning(Sound):
        def encode(self, sentences):
            return change(super().encode(sentences))

    return Returning


FAULTY = [
    (Dropout, "repeatable", r"model\.eval\(\)"),
    (CarriesState, "repeatable", "carry no state"),
    (Learns, "no state", "after others were encoded"),
    (SeesNeighbours, "neighbours", "beside others as long"),
    (CountsPadding, "padding", "beside a longer one.*mask what pads"),
    (SortsByLength, "order", "in their order of shape"),
    (SwapsEqualOnes, "order", "the vectors of another sentence"),
    (SortsTheList, "sentences left alone", "changes the list"),
    (NotFinite, "finite", "not finite"),
    (KnowsFewWords, "encodes every sentence", "raises KeyError"),
    (RandomRecipe, "recipe", "another recipe"),
    (ReusesValues, "BatchVectors left alone", "plain list, which is copied"),
    (AliasesArrays, "neighbours", "beside others as long"),
    (SubmitsTheLastBatch, "submit|order|shapes", ""),
    (SubmitsNothing, "submit", r"returns a list: expected an object with result\(\)"),
    (returning(lambda arrays: None), "arrays", "returned a NoneType"),
    (returning(lambda arrays: iter(arrays)), "arrays", "returned a list_iterator"),
    (returning(lambda arrays: arrays[1:]), "one array per sentence", r"returned \[\] for 1 sentence"),
    (returning(lambda arrays: [a[1:] for a in arrays]), "shapes", r"shape \(2, 8\).*shape \(3, 8\)"),
    (returning(lambda arrays: [a[:, None] for a in arrays]), "shapes", r"\(3, 1, 8\)"),
    (returning(lambda arrays: [a.astype(int) for a in arrays]), "arrays", "int64 array"),
    (returning(lambda arrays: [a.tolist() for a in arrays]), "arrays", r"returned \[list\]"),
    (
        returning(lambda arrays: [torch.from_numpy(a).bfloat16() for a in arrays]),
        "arrays",
        r"Tensor of torch\.bfloat16 and shape \(3, 8\) on cpu.*detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)",
    ),
    (
        returning(lambda arrays: torch.from_numpy(np.stack(arrays))),
        "arrays",
        r"returned a Tensor of torch\.float32 and shape \(1, 3, 8\).*of one padded array: \[array\[:len",
    ),
    (returning(np.stack), "arrays", r"returned a float32 array of shape \(1, 3, 8\)"),
]


@pytest.mark.parametrize(("make", "rule", "said"), FAULTY, ids=[f"{m.__name__}-{r}" for m, r, _ in FAULTY])
def test_each_fault_is_one_error_that_names_its_rule(make, rule, said):
    with pytest.raises(EncoderRuleError, match=f"(?s){said}") as caught:
        check_encoder(make())
    assert caught.value.rule in rule.split("|")
    assert caught.value.rule in RULES
    assert "sound:" in str(caught.value)


def test_every_rule_but_the_stores_own_is_broken_above():
    assert {rule for _, rules, _ in FAULTY for rule in rules.split("|")} == {*RULES} - {
        "depends on the sentence alone"
    }


@pytest.mark.parametrize("make", [Sound, ReusesArrays, DoubleEncoder])
def test_a_sound_one_passes_and_what_was_done_is_told(make):
    found = check_encoder(make())
    assert found.n_sentences == 10
    assert found.largest == 0
    assert found.has_submit == (make is DoubleEncoder)


@pytest.mark.parametrize("layers", ["average", "all"])
def test_our_own_pass(tiny_elmo_spec, layers):
    found = check_encoder(load_encoder(tiny_elmo_spec, layers=layers, device="cpu"))
    assert found.largest < 1e-5
    assert found.has_submit


def test_sentences_and_tolerance_may_be_given():
    class Rounds(Sound):
        def encode(self, sentences):
            return [v * (1 + 1e-3 * len(sentences)) for v in super().encode(sentences)]

    assert 0 < check_encoder(Rounds(), tolerance=0.1).largest < 0.1
    assert check_encoder(Sound(), [["a"], ["b", "c"]]).n_sentences == 2
    for few in ([], [("a", "b")], [("a",), ("b",)]):
        with pytest.raises(UsageError, match="at least two of different lengths"):
            check_encoder(Sound(), few)


def test_memory_that_runs_out_is_no_fault():
    class Full(Sound):
        def encode(self, sentences):
            raise EncoderOutOfMemory("the device is full")

    with pytest.raises(EncoderOutOfMemory):
        check_encoder(Full())


def test_what_is_missing_is_named_first():
    class Without:
        recipe = Sound.recipe

    with pytest.raises(UsageError, match=r"spec is None.*encode\(\) is missing"):
        check_encoder(Without())


@pytest.mark.parametrize(
    "make", [Dropout, CarriesState, SeesNeighbours, CountsPadding, SortsByLength, KnowsFewWords]
)
def test_what_extract_refuses_is_refused_here(tmp_path, make):
    with pytest.raises((EncoderRuleError, KeyError)):
        extract(draw_sentences(20), make(), tmp_path / "store", progress=False)
    assert not Store.exists(tmp_path / "store")


@pytest.mark.parametrize("recipe", [Recipe(Sound.recipe), CONTEXT_RECIPE])
def test_a_recipe_may_be_a_mapping_or_a_recipe(tmp_path, recipe):
    check_encoder(DoubleEncoder(recipe=recipe))
    check_encoder(DoubleEncoder(recipe=dict(recipe)))
    for number, given in enumerate((recipe, dict(recipe))):
        extract([("a", "b")], DoubleEncoder(recipe=given), tmp_path / str(number), progress=False)
        assert Store.open(tmp_path / str(number)).recipe == recipe


def test_arrays_in_another_order_are_never_stored_even_where_the_canaries_would_not_show_it(tmp_path):
    class Sorts(Sound):
        whole = False

        def encode(self, sentences):
            if len(sentences) <= 3:
                return super().encode(sentences)
            arrays = super().encode(sorted(sentences, key=len))
            return BatchVectors(np.concatenate(arrays), list(map(len, arrays))) if self.whole else arrays

    for whole in (False, True):  # a plain list, and one array for all
        encoder = Sorts()
        encoder.whole = whole
        sentences = [("a", "b", "c"), ("d",), ("e", "f"), ("g", "h"), ("i", "j", "k")]
        path = tmp_path / str(whole)
        with pytest.raises(EncoderRuleError, match="as its dim and n_layers say"):
            extract(sentences, encoder, path, progress=False)
        assert len(Store.open(path)) == 0
