"""Sentences of a thousand tokens and more: walked by compiled code, to the vectors they always had."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from featurestore import extract, load_encoder, native
from featurestore.encoders.elmo.files.weights import seeded_weights
from featurestore.encoders.elmo.model.long_sentences import (
    LONG_SENTENCE,
    MAX_ROWS,
    LongLayer,
    recurrence_library,
)
from featurestore.encoders.elmo.model.lstm import LstmState
from featurestore.encoders.elmo.model.network import BiLM, InitialState
from featurestore.extraction.progress import Progress
from tests.kit.elmo import GOLDEN_SPEC, TINY, run

WORDS = ["a", "bc", "def", "naïve", "字" * 30, "."]
# Neither the cells nor the projection fill whole vectors of sixteen.
UNEVEN = dataclasses.replace(TINY, lstm_dim=37, projection_dim=21)


@pytest.fixture(autouse=True)
def compiled():
    if recurrence_library() is None:
        pytest.skip("recurrence.c was not compiled here, or not for this processor")


def text(n_tokens: int, seed: int = 0) -> list[str]:
    return np.random.default_rng(seed).choice(WORDS, n_tokens).tolist()


def furthest(found, expected) -> float:
    """Return the largest relative L2 difference of a sentence."""
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("options", [TINY, UNEVEN], ids=["tiny", "uneven"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_vectors_are_as_near_to_float64s_as_step_by_step(options, precision, monkeypatch):
    # Two groups of long sentences, one of them as short as may be, beside short ones, one as long as may be.
    lengths = [3, LONG_SENTENCE, 1100, 1, LONG_SENTENCE - 1, 1100, 1200, 1500]
    assert sum(length >= LONG_SENTENCE for length in lengths) > MAX_ROWS
    sentences = [text(length, seed) for seed, length in enumerate(lengths)]
    weights = seeded_weights(options, 5)
    network = BiLM(options, weights, precision=precision)
    exact = run(BiLM(options, weights, precision="float64"), sentences)
    compiled = run(network, sentences)
    monkeypatch.setenv(native.SWITCH, "0")
    plain = run(network, sentences)
    assert [part.shape for part in compiled] == [part.shape for part in exact]
    assert furthest(compiled, exact) < 1.5 * furthest(plain, exact)
    for part, before in zip(compiled, plain, strict=True):
        assert np.array_equal(part, before) == (part.shape[1] < LONG_SENTENCE)


def test_clips_skip_and_initial_state_hold():
    sentences = [text(1200)]
    for cell_clip, proj_clip, skip in [(None, None, False), (0.05, None, True), (None, 0.02, True)]:
        options = dataclasses.replace(
            TINY, cell_clip=cell_clip, proj_clip=proj_clip, use_skip_connections=skip
        )
        weights = seeded_weights(options, 5)
        state = InitialState(torch.full((2, 2, 8), 0.01), torch.full((2, 2, 24), 0.04))
        found = run(BiLM(options, weights, initial_state=state), sentences)
        exact = run(BiLM(options, weights, precision="float64", initial_state=state), sentences)
        assert furthest(found, exact) < 2e-6


def test_without_compiled_code_vectors_differ_by_rounding_only(monkeypatch):
    encoder = load_encoder(GOLDEN_SPEC, layers="all", device="cpu")
    sentences = [tuple(text(1300)), ("a",)]
    compiled = encoder.encode(sentences)
    monkeypatch.setenv(native.SWITCH, "0")
    plain = encoder.encode(sentences)
    assert furthest(compiled[:1], plain[:1]) < 2e-6
    assert not np.array_equal(compiled[0], plain[0])  # else nothing was compared
    np.testing.assert_array_equal(compiled[1], plain[1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bits_depend_on_the_sentence_alone(precision):
    network = BiLM(TINY, seeded_weights(TINY, 5), precision=precision)
    sentences = [text(length, seed) for seed, length in enumerate([1100, 1024, 1200, 1030, 1100])]
    alone = [run(network, [sentence])[0] for sentence in sentences]
    n_threads = torch.get_num_threads()
    try:
        for threads, order in [(1, [4, 2, 0]), (2, [0, 1, 2, 3, 4]), (5, [1, 3])]:
            torch.set_num_threads(threads)
            together = run(network, [text(7), *(sentences[i] for i in order), text(3)])
            for i, part in zip(order, together[1:-1], strict=True):
                np.testing.assert_array_equal(part, alone[i])
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_narrow_instructions_give_the_same_bits(precision):
    from concurrent.futures import ThreadPoolExecutor

    network = BiLM(UNEVEN, seeded_weights(UNEVEN, 5), precision=precision)
    (direction, _), _ = network._layers
    layer = LongLayer([direction], recurrence_library())
    state = LstmState(torch.zeros(1, 21), torch.zeros(1, 37))
    inputs = torch.randn(9, 21, generator=torch.Generator().manual_seed(0)).to(network.numerics.operands)
    shares = direction.input_shares(inputs)
    results = []
    with ThreadPoolExecutor(1) as threads, torch.inference_mode():
        for narrow in (False, True):
            hidden, memory = layer.directions[0].start(state, 2)
            out = layer.directions[0].walk(shares, [5, 4], hidden, memory, threads, 1, narrow=narrow)
            results.append((out, hidden, memory))
    for wide, narrow in zip(*results, strict=True):
        assert torch.equal(wide, narrow)


def test_progress_adds_up_to_every_step():
    network = BiLM(TINY, seeded_weights(TINY, 5))
    reported: list[int] = []
    network.report_long = reported.append
    run(network, [text(1200), text(1100), text(4)])
    assert sum(reported) == 1200 + 1100
    assert len(reported) > 8


def test_an_extraction_moves_within_a_long_sentence(tmp_path):
    class Heard(Progress):
        def __init__(self):
            self.steps = []

        def encoded(self, n_tokens):
            self.steps.append(n_tokens)

    heard = Heard()
    extract([text(1500), ["a", "b"]], GOLDEN_SPEC, tmp_path / "store", progress=heard, allow_cut=True)
    assert sum(heard.steps) == 1502
    within = [n for n in heard.steps if 0 < n < 1000]
    assert len(within) > 4
    assert sum(within) == 1500


def test_values_that_are_not_numbers_stay_so():
    weights = seeded_weights(TINY, 5)
    broken = {**weights, "CNN_proj/b_proj": weights["CNN_proj/b_proj"] * np.nan}
    (found,) = run(BiLM(TINY, broken), [text(1030)])
    assert np.isnan(found).all()


def test_layer_zero_alone_is_not_walked():
    network = BiLM(TINY, seeded_weights(TINY, 5))
    network.report_long = lambda n: pytest.fail("walked")
    from featurestore.encoders.elmo.model.packing import Packing

    with torch.inference_mode():
        (layer,) = network.layers([text(1100)], Packing.of([1100]), n_layers=1)
    assert layer.shape == (1100, 16)
