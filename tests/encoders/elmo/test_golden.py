"""Our network against the outputs of AllenNLP 0.9.0 and of the original TensorFlow code."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch

from featurestore.encoders.elmo.files.weights import read_weights
from featurestore.encoders.elmo.model.network import BiLM, CarriedState
from featurestore.encoders.elmo.model.options import ElmoOptions
from tests.kit.elmo import (
    GOLDEN,
    differences,
    golden_network,
    golden_sentences,
    golden_vectors,
    in_batches,
    run,
    run_carrying,
)

MAX_ABS, RELATIVE_L2 = 2e-4, 1e-5
VARYING = [1, 3, 2, 5, 8, 4, 1, 7, 6, 1, 3, 2]


def assert_close(ours, theirs):
    largest, relative = differences(ours, theirs)
    assert largest < MAX_ABS
    assert relative < RELATIVE_L2


def test_sentences_alone():
    network = golden_network()
    ours = [run(network, [sentence])[0] for sentence in golden_sentences()]
    assert_close(ours, golden_vectors("stateless_single.hdf5"))


def test_all_sentences_in_one_batch():
    assert_close(run(golden_network(), golden_sentences()), golden_vectors("stateless_padded_batch.hdf5"))


@pytest.mark.parametrize("together", [False, True])
def test_float64_agrees_to_the_last_digits(together):
    network, sentences = golden_network("float64"), golden_sentences()
    ours = run(network, sentences) if together else [run(network, [sentence])[0] for sentence in sentences]
    largest, _ = differences(ours, golden_vectors("stateless_single_fp64.hdf5"))
    assert largest < 1e-9


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("batch8", [8] * 6), ("varbatch", VARYING), ("batch1", [1] * 43)],
    ids=lambda value: "",
)
def test_carried_state(name, sizes):
    network = golden_network()
    carried = CarriedState(network)
    states_file = GOLDEN / f"stateful_{name}_states.hdf5"
    checked = []

    def compare_states(number):
        if not states_file.exists():
            return
        with h5py.File(states_file) as file:
            group = file[f"after_batch_{number}"]
            hidden, memory = carried.merged()
            assert_close([hidden.numpy(), memory.numpy()], [group["hidden"][()], group["memory"][()]])
        checked.append(number)

    batches = in_batches(golden_sentences(), sizes)
    ours = run_carrying(network, batches, carried, compare_states)
    assert_close(ours, golden_vectors(f"stateful_{name}.hdf5"))
    assert checked == ([] if name == "batch1" else list(range(len(sizes))))


def test_carried_state_really_differs():
    largest, relative = differences(
        golden_vectors("stateful_batch8.hdf5"), golden_vectors("stateless_single.hdf5")
    )
    assert largest > 1
    assert relative > 0.1


@pytest.mark.parametrize(
    ("field", "value"), [("cell_clip", None), ("proj_clip", None), ("use_skip_connections", False)]
)
def test_clips_and_skip_matter(field, value):
    """Without the switch the golden vectors are missed by far: the golden data would notice."""
    options = ElmoOptions.read(GOLDEN / "options.json")
    weights = read_weights(GOLDEN / "weights.hdf5", options)
    mutant = BiLM(dataclasses.replace(options, **{field: value}), weights)
    _, relative = differences(run(mutant, golden_sentences()), golden_vectors("stateless_single.hdf5"))
    assert relative > 0.01


def test_outputs_and_states_stay_within_the_clips():
    network = golden_network()
    carried = CarriedState(network)
    run_carrying(network, [golden_sentences()], carried)
    hidden, memory = carried.merged()
    for state in (hidden, memory):
        assert float(state.abs().max()) == 3.0
        assert float((state.abs() == 3.0).double().mean()) > 0.02


class TestTensorFlowFixtures:
    """The fixtures of bilm-tf, read in place: third-party data this project does not redistribute."""

    pytestmark = pytest.mark.shared

    @pytest.fixture
    def folder(self, shared):
        return shared("golden/bilm-tf")

    @pytest.fixture
    def network(self, folder) -> BiLM:
        options = ElmoOptions.read(folder / "options.json")
        return BiLM(options, read_weights(folder / "lm_weights.hdf5", options))

    def test_top_layer_with_carried_state(self, folder, network):
        texts = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
        batches = [[texts[row][number].split() for row in range(3)] for number in range(10)]
        ours = run_carrying(network, batches, CarriedState(network))
        for row in range(3):
            with h5py.File(folder / f"lm_embeddings_{row}.hdf5") as file:
                for number in range(10):
                    reference = file[str(number)][()]
                    top = ours[3 * number + row][-1]
                    forward_backward = np.stack([top[:, :16], top[:, 16:]])
                    np.testing.assert_allclose(forward_backward, reference, atol=1e-6, rtol=1e-7)

    def test_token_vectors(self, folder, network):
        words = (folder / "vocab_test.txt").read_text(encoding="utf-8").split()
        with h5py.File(folder / "elmo_token_embeddings.hdf5") as file:
            reference = file["embedding"][()]
        assert len(words) == len(reference)
        vectors = np.concatenate([run(network, [[word]])[0][0] for word in words])
        np.testing.assert_array_equal(vectors[:, :16], vectors[:, 16:])
        np.testing.assert_allclose(vectors[:, :16], reference, atol=1e-6, rtol=1e-6)


def test_token_layer_is_the_token_vector_twice():
    for vectors in run(golden_network(), golden_sentences()[:5]):
        np.testing.assert_array_equal(vectors[0, :, :16], vectors[0, :, 16:])


def test_golden_network_runs_without_gradients_only_where_asked():
    """Plain tensors: the network keeps no graph even outside inference mode."""
    network = golden_network()
    vectors, _ = network.types.lookup(["a"])
    assert isinstance(vectors, torch.Tensor)
    assert not vectors.requires_grad
