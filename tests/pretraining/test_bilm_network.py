"""The trainable network computes what the encoder computes with the weights that it exports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from featurestore.encoders.elmo.files.weights import expected_shapes, read_weights, write_weights
from featurestore.encoders.elmo.model.characters import character_ids
from featurestore.encoders.elmo.model.network import BiLM, CarriedState
from featurestore.pretraining.network import StreamState, TrainableBiLM
from tests.kit.pretraining import TINY

SHAPES = {
    "plain": TINY,
    "no skip, no clips, tanh": replace(
        TINY, use_skip_connections=False, cell_clip=None, proj_clip=None, activation="tanh"
    ),
    "three layers, clips that bite": replace(TINY, n_layers=3, cell_clip=0.5, proj_clip=0.2),
    "no highway, few characters": replace(TINY, n_highway=0, max_characters=7, filters=((7, 5), (1, 3))),
}
# Of one length, so that each is a stream of its own; two rounds, for the state between them.
ROUNDS = [
    [["The", "cat", "sat", "down"], ["straße", "x" * 70, "<S>", "</S>"], ["日本語", ".", "a\udc80b", "The"]],
    [["Then", "it", "slept", "."], ["w" * 46, "w" * 47, "w" * 48, "-"], ["\udc80", "😀", "é" * 30, "The"]],
]


def network_of(options, precision=torch.float32, **more) -> TrainableBiLM:
    torch.manual_seed(3)
    network = TrainableBiLM(options, precision=precision, **more).to(
        torch.float64 if precision == torch.float64 else torch.float32
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias" in name:
                parameter += torch.randn_like(parameter) / 5
    return network.eval()


def run(network: TrainableBiLM, sentences, state: StreamState):
    """Outputs (sentences, tokens, 2 * dim) without markers, and the state; one stream per sentence."""
    marked = [["<S>", *sentence, "</S>"] for sentence in sentences]
    both = [token for row in marked for token in row], [token for row in marked for token in row[::-1]]
    vectors = [
        network.token_vectors(torch.from_numpy(character_ids(tokens, network.options.max_characters)[0]))
        .view(len(marked), len(marked[0]), -1)
        .transpose(0, 1)
        for tokens in both
    ]
    with torch.no_grad():
        outputs, state = network(torch.stack(vectors), state)
    forward, backward = outputs.transpose(1, 2)
    return torch.cat([forward, backward.flip(1)], 2)[:, 1:-1], state


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_layers_are_those_of_the_encoder_state_carried(shape, precision, tolerance):
    options = SHAPES[shape]
    network = network_of(options, getattr(torch, precision))
    weights = network.weights()
    theirs = BiLM(options, weights, precision=precision)
    carried = CarriedState(theirs)
    # Forward returns the top layer: a network of fewer layers with the same weights returns the others.
    shorter = []
    for n_layers in range(1, options.n_layers + 1):
        part = network_of(replace(options, n_layers=n_layers), getattr(torch, precision))
        part.load(weights)
        start = part.initial_state(len(ROUNDS[0]))
        shorter.append([part, StreamState(*(each.to(getattr(torch, precision)) for each in start))])
    for sentences in ROUNDS:
        expected = theirs.layers_carrying(sentences, carried)
        tokens = [token for sentence in sentences for token in sentence]
        ids, _ = character_ids(tokens, options.max_characters)
        vectors = network.token_vectors(torch.from_numpy(ids)).detach()
        bottom = torch.cat([layers[0] for layers in expected])
        torch.testing.assert_close(torch.cat([vectors, vectors], 1), bottom, rtol=0, atol=tolerance)
        for layer, place in enumerate(shorter, 1):
            part, state = place
            outputs, place[1] = run(part, sentences, state)
            assert outputs.abs().max() > 0.05
            for found, layers in zip(outputs, expected, strict=True):
                torch.testing.assert_close(found, layers[layer], rtol=0, atol=tolerance)


def test_the_state_in_time_is_the_one_before_the_skip():
    network = network_of(TINY)
    outputs, state = run(network, ROUNDS[0], network.initial_state(3))
    theirs = BiLM(TINY, network.weights())
    carried = CarriedState(theirs)
    theirs.layers_carrying(ROUNDS[0], carried)
    for layer in (0, 1):
        for direction in (0, 1):
            there = carried.states[layer][direction]
            torch.testing.assert_close(state.hidden[layer, direction], there.hidden, rtol=0, atol=2e-6)
            torch.testing.assert_close(state.memory[layer, direction], there.memory, rtol=0, atol=2e-6)
    assert not state.hidden.requires_grad
    assert outputs.shape == (3, 4, 16)


@pytest.mark.parametrize("shape", SHAPES)
def test_positions_of_padding_may_be_left_out(shape):
    options = SHAPES[shape]
    network = network_of(options, torch.float64)
    words = [word for sentences in ROUNDS for sentence in sentences for word in sentence]
    ids, n_positions = character_ids(words, options.max_characters)
    everything = network.token_vectors(torch.from_numpy(ids))
    widest = max(width for width, _ in options.filters)
    for row, n in enumerate(n_positions):
        width = min(int(n) + widest, options.max_characters)
        trimmed = network.token_vectors(torch.from_numpy(ids[row : row + 1, :width]))
        torch.testing.assert_close(trimmed[0], everything[row], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_those_of_a_file_and_come_back(shape, tmp_path):
    options = SHAPES[shape]
    network = network_of(options)
    weights = network.weights()
    assert {name: array.shape for name, array in weights.items()} == expected_shapes(options)
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}
    write_weights(tmp_path / "weights.hdf5", weights)
    torch.manual_seed(99)
    other = TrainableBiLM(options)
    other.load(read_weights(tmp_path / "weights.hdf5", options))
    for name, array in other.weights().items():
        assert np.array_equal(array, weights[name]), name
    # What was returned is a copy: training on does not change it.
    with torch.no_grad():
        network.projection.zero_()
    assert weights["CNN_proj/W_proj"].any()


def test_bfloat16_is_close_to_float32():
    exact, low = network_of(TINY), network_of(TINY, torch.bfloat16)
    expected, _ = run(exact, ROUNDS[0], exact.initial_state(3))
    found, state = run(low, ROUNDS[0], low.initial_state(3))
    assert found.dtype == torch.bfloat16
    assert state.hidden.dtype == state.memory.dtype == torch.float32
    assert torch.linalg.vector_norm(found.float() - expected) < 0.05 * torch.linalg.vector_norm(expected)


def test_dropout_is_the_same_at_every_step_of_a_chunk():
    network = network_of(replace(TINY, n_layers=1), dropout=0.5).train()
    ones = torch.ones(2, 6, 40, TINY.projection_dim)
    outputs, _ = network(ones, network.initial_state(40))
    zeros = outputs == 0
    assert torch.equal(zeros, zeros[:, :1].expand_as(zeros))
    assert 0.4 < zeros.double().mean() < 0.6
    assert not torch.equal(zeros[0, 0], zeros[1, 0])
    again, _ = network(ones, network.initial_state(40))
    assert not torch.equal(again == 0, zeros)
    assert (network.eval()(ones, network.initial_state(40))[0] != 0).all()


def test_character_dropout_zeroes_whole_characters_of_each_word_anew():
    network = network_of(TINY, character_dropout=0.3)
    ids = torch.from_numpy(character_ids(["unbelievable", "unbelievable", "the"])[0])
    with torch.no_grad():
        # A row of zeros, which no character of a word uses, stands for a dropped one.
        network.characters[0] = 0
        plain = network.token_vectors(ids)
        network.train()
        torch.manual_seed(5)
        dropped = network.token_vectors(ids)
        torch.manual_seed(5)
        kept = torch.rand(*ids.shape, 1)[:, :, 0] < 0.7
        network.eval()
        expected = network.token_vectors(ids * kept)
    assert 0 < (~kept).sum() < ids.numel()
    torch.testing.assert_close(dropped, expected)
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(plain[0], plain[1])


def test_every_parameter_gets_a_gradient():
    network = network_of(TINY)
    ids = torch.from_numpy(character_ids([w for s in ROUNDS[0] for w in s])[0])
    vectors = network.token_vectors(ids).view(1, 4, 3, 8).expand(2, -1, -1, -1)
    network(vectors, network.initial_state(3))[0].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
