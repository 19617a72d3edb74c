"""What the network promises beyond the golden vectors: padding, markers, states, skip, type table."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from featurestore.encoders.elmo.files.weights import expected_shapes, seeded_weights
from featurestore.encoders.elmo.model.characternet import CharacterNetwork, TypeTable
from featurestore.encoders.elmo.model.characters import character_ids
from featurestore.encoders.elmo.model.network import BiLM, CarriedState, InitialState
from featurestore.encoders.elmo.model.numerics import Numerics
from featurestore.encoders.elmo.model.packing import Packing
from tests.kit.elmo import (
    TINY,
    differences,
    golden_network,
    golden_sentences,
    in_batches,
    run,
    run_carrying,
)

CPU = torch.device("cpu")
WORDS = ["a", "bc", "def", "naïve", "字" * 30, "x" * 50, "."]


def plain_token_vector(options, weights, token):
    """The character network as its definition reads, one token, all positions, in float64 NumPy."""
    table = np.concatenate([np.zeros((1, options.character_dim)), weights["char_embed"].astype(np.float64)])
    characters = table[character_ids([token], options.max_characters)[0][0]]
    pooled = []
    for i, (width, _) in enumerate(options.filters):
        kernel = weights[f"CNN/W_cnn_{i}"][0].astype(np.float64)
        windows = [characters[p : p + width] for p in range(options.max_characters - width + 1)]
        responses = [np.einsum("wd,wdf->f", window, kernel) for window in windows]
        pooled.append(np.max(responses, 0) + weights[f"CNN/b_cnn_{i}"])
    values = np.concatenate(pooled)
    values = np.maximum(values, 0) if options.activation == "relu" else np.tanh(values)
    for i in range(options.n_highway):
        part = {name: weights[f"CNN_high_{i}/{name}"].astype(np.float64) for name in
                ("W_carry", "b_carry", "W_transform", "b_transform")}  # fmt: skip
        gate = 1 / (1 + np.exp(-(values @ part["W_carry"] + part["b_carry"])))
        candidate = np.maximum(values @ part["W_transform"] + part["b_transform"], 0)
        values = gate * candidate + (1 - gate) * values
    return values @ weights["CNN_proj/W_proj"] + weights["CNN_proj/b_proj"]


def test_character_network_by_its_definition():
    for activation in ("relu", "tanh"):
        options = dataclasses.replace(TINY, activation=activation, n_highway=2)
        weights = seeded_weights(options, 5)
        vectors = CharacterNetwork(options, weights, Numerics.of("float64", CPU), CPU)(WORDS)
        expected = [plain_token_vector(options, weights, word) for word in WORDS]
        np.testing.assert_allclose(vectors.numpy(), expected, rtol=0, atol=1e-12)


def test_padding_takes_part_in_the_max_pool():
    weights = seeded_weights(TINY, 5)
    changed = {**weights, "char_embed": weights["char_embed"].copy()}
    changed["char_embed"][260] += 10  # the padding's row; ids are one higher than rows
    before, after = (
        CharacterNetwork(TINY, w, Numerics.of("float32", CPU), CPU)(["a", "x" * 48])
        for w in (weights, changed)
    )
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])  # 48 bytes fill all positions


def test_markers_read_once_equal_markers_run_in_full():
    network, sentences = golden_network("float64"), golden_sentences()
    # Fresh carried states start at zero, and run both markers as ordinary positions.
    in_full = run_carrying(network, [sentences], CarriedState(network))
    largest, _ = differences(run(network, sentences), in_full)
    assert largest < 1e-12


def test_fixed_initial_state_other_than_zero():
    """The door for stored states: given as a parameter it acts as if carried into every sentence."""
    weights = seeded_weights(TINY, 1)
    generator = torch.Generator().manual_seed(0)
    initial = InitialState(
        torch.rand(2, 2, TINY.projection_dim, generator=generator),
        torch.rand(2, 2, TINY.lstm_dim, generator=generator),
    )
    network = BiLM(TINY, weights, precision="float64", initial_state=initial)
    sentences = [["a", "b"], ["c"], ["d", "e", "f"]]
    carried = CarriedState(network)
    for layer in range(2):
        for direction in range(2):
            state = carried.states[layer][direction]
            carried.states[layer][direction] = state._replace(
                hidden=initial.hidden[layer, direction].double().expand(3, -1).clone(),
                memory=initial.memory[layer, direction].double().expand(3, -1).clone(),
            )
    largest, _ = differences(run(network, sentences), run_carrying(network, [sentences], carried))
    assert largest < 1e-12
    from_zero = run(BiLM(TINY, weights, precision="float64"), sentences)
    assert differences(run(network, sentences), from_zero)[0] > 1e-3


def test_smaller_batch_leaves_other_rows_and_larger_starts_at_zero():
    network = BiLM(TINY, seeded_weights(TINY, 1))
    carried = CarriedState(network)
    sentences = [["a", "b"], ["c"], ["d"], ["e", "f", "g"]]
    run_carrying(network, in_batches(sentences, [3, 1]), carried)
    _, memory = carried.merged()
    reference = CarriedState(network)
    run_carrying(network, [sentences[:3]], reference)
    torch.testing.assert_close(memory[:, 1:], reference.merged()[1][:, 1:], rtol=0, atol=0)
    assert not torch.allclose(memory[:, 0], reference.merged()[1][:, 0])
    # A fourth row has no state yet: it gives what a fresh network gives.
    grown = run_carrying(network, [[["x"], ["x"], ["x"], ["x"]]], carried)
    fresh = run_carrying(network, [[["x"]]], CarriedState(network))
    np.testing.assert_allclose(grown[3], fresh[0], atol=1e-6)
    assert not np.allclose(grown[0], fresh[0])


def test_first_layer_has_no_skip_and_further_layers_have():
    """With every LSTM weight at zero a layer's own output is zero: what remains is the skip."""
    options = dataclasses.replace(TINY, n_layers=3)
    weights = seeded_weights(options, 2)
    for name in weights:
        if "Cell1" in name or "Cell2" in name:
            weights[name] = np.zeros_like(weights[name])
    layers = run(BiLM(options, weights), [["a", "b"]])[0]
    assert np.abs(layers[1] - layers[0]).max() > 1e-3
    np.testing.assert_array_equal(layers[2], layers[1])
    np.testing.assert_array_equal(layers[3], layers[1])


def test_directions_see_their_side_only():
    network = BiLM(TINY, seeded_weights(TINY, 3), precision="float64")
    ours, other_start, other_end = run(network, [["a", "b", "c"], ["X", "b", "c"], ["a", "b", "X"]])
    half = TINY.projection_dim
    # At the middle token the forward half depends on the left, the backward half on the right.
    np.testing.assert_allclose(ours[1:, 1, :half], other_end[1:, 1, :half], atol=1e-12)
    np.testing.assert_allclose(ours[1:, 1, half:], other_start[1:, 1, half:], atol=1e-12)
    assert np.abs(ours[2, 1, :half] - other_start[2, 1, :half]).max() > 1e-6
    assert np.abs(ours[2, 1, half:] - other_end[2, 1, half:]).max() > 1e-6


def test_more_rows_than_one_product_takes():
    """Steps of several row blocks give what single sentences give."""
    network = BiLM(TINY, seeded_weights(TINY, 4), precision="float64")
    sentences = [[WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 3)] for i in range(600)]
    together = run(network, sentences)
    for i in (0, 1, 255, 256, 257, 511, 599):
        np.testing.assert_allclose(together[i], run(network, [sentences[i]])[0], atol=1e-12)


def test_untrained_outputs_are_alive():
    """Random weights are of a scale at which every layer varies and the LSTM is not saturated."""
    options = dataclasses.replace(TINY, lstm_dim=256, projection_dim=32, filters=((1, 16), (2, 32), (3, 64)))
    layers = np.concatenate(run(BiLM(options, seeded_weights(options, 0)), golden_sentences()), axis=1)
    for layer in layers:
        assert 0.05 < layer.std(0).mean() < 5
    assert (np.abs(layers[1]) >= options.proj_clip).mean() < 0.05


@given(st.lists(st.integers(1, 12), min_size=1, max_size=20))
def test_packing_is_a_bijection_in_time_major_order(lengths):
    packing = Packing.of(lengths)
    assert sorted(packing.positions.tolist()) == list(range(sum(lengths)))
    assert sum(packing.counts) == packing.n_tokens == sum(lengths)
    assert packing.counts == sorted(packing.counts, reverse=True)
    assert packing.n_rows == packing.counts[0] == len(lengths)
    start = 0
    for number, length in enumerate(lengths):
        rank = packing.ranking.tolist().index(number)
        expected = [packing.offsets[step] + rank for step in range(length)]
        assert packing.positions[start : start + length].tolist() == expected
        start += length


class TestTypeTable:
    def table(self, max_types):
        return TypeTable(
            CharacterNetwork(TINY, seeded_weights(TINY, 0), Numerics.of("float32", CPU), CPU),
            max_types=max_types,
        )

    def test_each_type_has_its_own_vector_whatever_came_before(self):
        table, other = self.table(100), self.table(100)
        other.lookup(["z", "y", "bc"])
        for tokens in (["a", "bc", "a"], ["def", "a", "."]):
            vectors, rows = table.lookup(tokens)
            other_vectors, other_rows = other.lookup(tokens)
            torch.testing.assert_close(vectors[rows], other_vectors[other_rows])
        assert rows[1] == 0  # "a" was computed first and not again
        assert len(table) == 4

    def test_is_emptied_rather_than_exceeding_its_bound(self):
        table = self.table(3)
        table.lookup(["a", "bc"])
        vectors, rows = table.lookup(["def", "a", "."])
        assert len(table) == 3
        table.lookup(["new", "a"])
        assert len(table) == 2
        fresh_vectors, fresh_rows = self.table(100).lookup(["def", "a", "."])
        torch.testing.assert_close(vectors[rows], fresh_vectors[fresh_rows])

    def test_one_batch_may_exceed_the_bound(self):
        table = self.table(2)
        _, rows = table.lookup(["a", "b", "c", "d"])
        assert sorted(rows.tolist()) == [0, 1, 2, 3]

    def test_many_types_grow_the_table_without_changing_old_rows(self):
        table = self.table(100_000)
        before, rows = table.lookup(["a", "bc"])
        kept = before[rows].clone()
        table.lookup([f"w{i}" for i in range(3000)])
        after, rows = table.lookup(["a", "bc"])
        torch.testing.assert_close(after[rows], kept, rtol=0, atol=0)


def test_seeded_weights_depend_on_the_seed_alone():
    first, again, other = (seeded_weights(TINY, seed) for seed in (7, 7, 8))
    assert {name: array.shape for name, array in first.items()} == expected_shapes(TINY)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert first[name].dtype == np.float32
    assert not np.array_equal(first["char_embed"], other["char_embed"])
