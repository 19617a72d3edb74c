"""Directions side by side against one after the other, and the fused kernel against PyTorch's operations."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featurestore.encoders.elmo.files.weights import seeded_weights
from featurestore.encoders.elmo.model import gates
from featurestore.encoders.elmo.model.gates import choose_gates, disagreement, plain_gates
from featurestore.encoders.elmo.model.network import BiLM
from featurestore.encoders.elmo.model.packing import Packing
from tests.kit.elmo import TINY, differences, golden_sentences, run

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(LENGTHS)
def test_reversal_turns_every_sentence_round(lengths):
    packing = Packing.of(lengths)
    reversal = packing.reversal()
    starts = np.cumsum([0, *lengths])
    for start, length in zip(starts, lengths, strict=False):
        sentence = packing.positions[start : start + length]
        assert reversal[sentence].tolist() == sentence[::-1].tolist()


@given(LENGTHS, st.integers(1, 3))
def test_directions_side_by_side_give_the_same_vectors(lengths, n_layers):
    weights, sentences = (
        seeded_weights(TINY, 2),
        [[f"w{i * j % 7}" for j in range(n)] for i, n in enumerate(lengths)],
    )
    apart, together = (
        BiLM(TINY, weights, precision="float64", side_by_side=choice) for choice in (False, True)
    )
    packing = Packing.of(lengths)
    with torch.inference_mode():
        for ours, theirs in zip(
            together.layers(sentences, packing, n_layers=n_layers),
            apart.layers(sentences, packing, n_layers=n_layers),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("precision", "bound"), [("float32", 2e-6), ("bfloat16", 2e-2), ("float16", 3e-3)])
def test_directions_side_by_side_differ_by_rounding_only(precision, bound):
    weights, sentences = seeded_weights(TINY, 3), golden_sentences()
    truth = run(BiLM(TINY, weights, precision="float64"), sentences)
    for choice in (False, True):
        found = run(BiLM(TINY, weights, precision=precision, side_by_side=choice), sentences)
        assert differences(found, truth)[1] < bound


def wrong_order(product, bias, memory, cell_clip):
    """Gates in the order of PyTorch's own LSTM."""

    def swapped(values):
        write, candidate, forget, expose = values.chunk(4, -1)
        return torch.cat([write, forget, candidate, expose], -1)

    return plain_gates(swapped(product), swapped(bias), memory, cell_clip)


def rounded_cells(product, bias, memory, cell_clip):
    output = plain_gates(product, bias, memory, cell_clip)
    memory.copy_(memory.half())
    return output


def first_direction_only(product, bias, memory, cell_clip):
    return plain_gates(product, bias[:1].expand(2, -1), memory, cell_clip)


def one_row_too_many(product, bias, memory, cell_clip):
    output = plain_gates(product, bias, memory, cell_clip)
    memory.as_strided((1, 1, 1), (1, 1, 1), memory.storage_offset() + memory.stride(0) - 1).fill_(0.5)
    return output


def no_number(product, bias, memory, cell_clip):
    output = plain_gates(product, bias, memory, cell_clip)
    output[1, -1, -1] = float("nan")
    return output


@pytest.mark.parametrize(
    "wrong", [wrong_order, rounded_cells, first_direction_only, one_row_too_many, no_number]
)
@pytest.mark.parametrize("operands", [torch.float32, torch.float16])
def test_wrong_gates_are_noticed(wrong, operands):
    assert not disagreement(plain_gates, operands, 24, 3.0, CPU)
    assert "differ, by up to" in disagreement(wrong, operands, 24, 3.0, CPU)


def test_forgotten_clip_is_noticed():
    def unclipped(product, bias, memory, cell_clip):
        return plain_gates(product, bias, memory, None)

    assert "cells differ" in disagreement(unclipped, torch.float16, 24, 3.0, CPU)


def raising(product, bias, memory, cell_clip):
    raise RuntimeError("PTX of another architecture")


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (raising, "it failed: RuntimeError: PTX of another architecture"),
        (wrong_order, "cells differ"),
        (None, ""),
    ],
)
def test_kernel_that_fails_or_errs_is_not_used(monkeypatch, caplog, kernel, says):
    module = types.ModuleType("featurestore.encoders.elmo.model.fused_gates")
    if kernel is not None:
        module.fused_gates = kernel
    monkeypatch.setitem(sys.modules, module.__name__, module)  # without the name: as if Triton were missing
    real = gates.disagreement
    monkeypatch.setattr(gates, "disagreement", lambda *given: real(*given[:-1], CPU))
    with caplog.at_level(logging.WARNING):
        assert choose_gates(torch.float16, 24, 3.0, CUDA) is plain_gates
    assert says in caplog.text
    assert bool(caplog.text) == bool(says)


def test_right_kernel_is_used_on_a_gpu_alone(monkeypatch):
    def right(product, bias, memory, cell_clip):
        return plain_gates(product, bias, memory, cell_clip)

    module = types.ModuleType("featurestore.encoders.elmo.model.fused_gates")
    module.fused_gates = right
    monkeypatch.setitem(sys.modules, module.__name__, module)
    real = gates.disagreement
    monkeypatch.setattr(gates, "disagreement", lambda *given: real(*given[:-1], CPU))
    assert choose_gates(torch.float16, 24, 3.0, CUDA) is right
    assert choose_gates(torch.float64, 24, 3.0, CUDA) is plain_gates
    assert choose_gates(torch.float32, 24, 3.0, CPU) is plain_gates


INTERPRETED = """
import torch
from featurestore.encoders.elmo.model.fused_gates import fused_gates
from featurestore.encoders.elmo.model.gates import disagreement
for operands in (torch.float32, torch.float16, torch.bfloat16):
    for lstm_dim in (24, 1030):
        for cell_clip in (3.0, None):
            print(disagreement(fused_gates, operands, lstm_dim, cell_clip, "cpu") or "agree")
"""


def test_fused_kernel_agrees_in_tritons_interpreter():
    pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n") == ["agree"] * 12 + [""]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_vectors_of_a_gpu_are_those_of_the_cpu(precision):
    weights, sentences = seeded_weights(TINY, 3), golden_sentences()
    truth = run(BiLM(TINY, weights, precision="float64"), sentences)
    network = BiLM(TINY, weights, precision=precision, device="cuda")
    bound = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 3e-3}[precision]
    for chosen in (network.gates, plain_gates):
        network.gates = chosen
        lengths = list(map(len, sentences))
        packing = Packing.of(lengths)
        with torch.inference_mode():
            layers = torch.stack(network.layers(sentences, packing, n_layers=3)).cpu().double()
        found = layers[:, torch.from_numpy(packing.positions)].split(lengths, 1)
        assert differences([part.numpy() for part in found], truth)[1] < bound
