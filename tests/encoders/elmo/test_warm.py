"""The warm initial state: what it is, that vectors start in it, and that recipes say so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from featurestore.encoders.elmo.encoder import BATCH_INVARIANCE
from featurestore.encoders.elmo.files.initial_state import read_state
from featurestore.encoders.elmo.files.weights import read_weights
from featurestore.encoders.elmo.model.network import BiLM, InitialState
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.encoders.elmo.warm import BURN_IN, N_STREAMS, split_streams, warm_state
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder, warm_up_encoder
from featurestore.errors import EncoderError, SentenceError, UsageError, WeightsError
from tests.kit.elmo import GOLDEN, differences, golden_network, golden_sentences, run

OPTIONS = ElmoOptions.read(GOLDEN / "options.json")
SENTENCES = [tuple(sentence) for sentence in golden_sentences()]


def text(n_sentences, seed=0):
    """Running text of the golden words."""
    random = np.random.default_rng(seed)
    words = sorted({word for sentence in SENTENCES for word in sentence})
    return [tuple(random.choice(words, size=random.integers(1, 9))) for _ in range(n_sentences)]


@pytest.fixture
def model(tmp_path):
    """The golden model's files in a folder of their own: (spec, folder)."""
    for name in ("options.json", "weights.hdf5"):
        shutil.copy(GOLDEN / name, tmp_path / name)
    return f"elmo:{tmp_path / 'options.json'},{tmp_path / 'weights.hdf5'}", tmp_path


@pytest.fixture
def warmed(model):
    """The same with a warm state: (spec, folder, what warm_up_encoder returned)."""
    return *model, warm_up_encoder(model[0], text(500), device="cpu")


class PlainLstm:
    """The two LSTM layers in both directions, one position after another, in NumPy and float64."""

    def __init__(self):
        self.weights = {
            name: array.astype(np.float64)
            for name, array in read_weights(GOLDEN / "weights.hdf5", OPTIONS).items()
        }
        self.characters = golden_network("float64")

    def read(self, sentence, states):
        """Read a sentence in both directions, changing ``states[layer, direction]``: hidden, memory."""
        table, rows = self.characters.types.lookup(["<S>", *sentence, "</S>"])
        vectors = table.numpy()[rows]
        for direction in (0, 1):
            inputs = vectors
            for layer in range(OPTIONS.n_layers):
                outputs = np.empty_like(inputs)
                positions = range(len(inputs))
                for position in reversed(positions) if direction else positions:
                    states[layer, direction] = self.step(
                        layer, direction, inputs[position], *states[layer, direction]
                    )
                    outputs[position] = states[layer, direction][0]
                inputs = outputs + inputs if layer else outputs

    def step(self, layer, direction, x, hidden, memory):
        scope = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        gates = np.concatenate([x, hidden]) @ self.weights[f"{scope}/W_0"] + self.weights[f"{scope}/B"]
        i, j, f, o = np.split(gates, 4)
        memory = memory / (1 + np.exp(-f - 1)) + np.tanh(j) / (1 + np.exp(-i))
        memory = memory.clip(-OPTIONS.cell_clip, OPTIONS.cell_clip)
        hidden = (np.tanh(memory) / (1 + np.exp(-o))) @ self.weights[f"{scope}/W_P_0"]
        return hidden.clip(-OPTIONS.proj_clip, OPTIONS.proj_clip), memory


def plain_mean(streams):
    """The mean state after a sentence, straightforwardly: one stream after the other."""
    lstm, kept = PlainLstm(), []
    for stream in streams:
        states = {
            (layer, direction): (np.zeros(OPTIONS.projection_dim), np.zeros(OPTIONS.lstm_dim))
            for layer in range(OPTIONS.n_layers)
            for direction in (0, 1)
        }
        for number, sentence in enumerate(stream):
            lstm.read(sentence, states)
            if number >= BURN_IN:
                kept.append(dict(states))
    return [
        np.array(
            [
                [np.mean([states[layer, direction][part] for states in kept], axis=0) for direction in (0, 1)]
                for layer in range(OPTIONS.n_layers)
            ]
        )
        for part in (0, 1)
    ]


class TestTheState:
    def test_is_the_mean_of_what_a_plain_float64_computation_leaves_behind(self):
        streams = split_streams(text(60))
        assert len(streams) == 5
        found = warm_state(golden_network(), streams)
        hidden, memory = plain_mean(streams)
        assert found.hidden.dtype == found.memory.dtype == torch.float32
        np.testing.assert_allclose(found.hidden, hidden, atol=1e-5)
        np.testing.assert_allclose(found.memory, memory, atol=1e-5)
        assert np.abs(hidden).max() > 0.1
        assert np.abs(memory).max() > 0.1

    def test_is_the_same_to_the_bit_whatever_torch_is_set_to(self):
        streams = split_streams(text(500))
        one = warm_state(golden_network(), streams)
        torch.set_num_threads(4)
        try:
            four = warm_state(golden_network(), streams)
            assert torch.get_num_threads() == 4
        finally:
            torch.set_num_threads(1)
        assert torch.equal(one.hidden, four.hidden)
        assert torch.equal(one.memory, four.memory)

    def test_streams_are_consecutive_equally_long_and_leave_out_a_rest(self):
        numbers = [(str(n),) for n in range(1000)]
        streams = split_streams(numbers)
        assert (len(streams), {len(stream) for stream in streams}) == (N_STREAMS, {31})
        assert [s for stream in streams for s in stream] == numbers[: 31 * 32]

    @pytest.mark.parametrize("n", [0, 1, BURN_IN, 3 * BURN_IN - 1])
    def test_too_little_text(self, n):
        with pytest.raises(EncoderError, match=f"{n} sentences is too short"):
            split_streams(text(n))
        assert len(split_streams(text(3 * BURN_IN))) == 1


class TestMakingOne:
    def test_lies_beside_the_weights_with_their_hash(self, warmed):
        spec, folder, made = warmed
        assert made.path == folder / "weights.warm.hdf5"
        assert (made.in_place, made.written, made.spec) == (True, True, spec)
        assert made.weights_sha256 == load_encoder(spec).recipe["weights_sha256"]
        state = read_state(made.path, OPTIONS, weights_sha256=made.weights_sha256)
        assert state.sha256 == made.sha256
        n_read = 500 // N_STREAMS * N_STREAMS
        assert (made.n_sentences, made.n_streams) == (n_read, N_STREAMS)
        assert made.n_tokens == sum(map(len, text(500)[:n_read]))
        assert sorted(path.name for path in folder.iterdir()) == [
            "options.json", "weights.hdf5", "weights.warm.hdf5",
        ]  # fmt: skip

    def test_reads_no_more_than_it_was_told_to(self, model):
        def endless():
            while True:
                yield ("ten", "tokens", *"abcdefgh")

        reported = []
        made = warm_up_encoder(model[0], endless(), max_tokens=1200, progress=reported.append)
        assert made.n_tokens == sum(reported) == 1200

    def test_again_changes_nothing_and_another_text_needs_force(self, warmed):
        spec, _, made = warmed
        before = made.path.read_bytes()
        again = warm_up_encoder(spec, text(500))
        assert (again.written, again.sha256) == (False, made.sha256)
        with pytest.raises(EncoderError, match="no longer match") as caught:
            warm_up_encoder(spec, text(500, seed=1))
        assert "--force" in str(caught.value)
        assert made.path.read_bytes() == before
        other = warm_up_encoder(spec, text(500, seed=1), force=True)
        assert other.written
        assert other.sha256 != made.sha256
        assert made.path.read_bytes() != before

    def test_a_file_that_is_no_state_is_not_replaced_unasked(self, model):
        spec, folder = model
        path = folder / "weights.warm.hdf5"
        path.write_bytes(b"precious")
        with pytest.raises(EncoderError, match="--force"):
            warm_up_encoder(spec, text(500))
        assert path.read_bytes() == b"precious"
        assert warm_up_encoder(spec, text(500), force=True).written

    def test_elsewhere(self, model, tmp_path):
        spec, folder = model
        made = warm_up_encoder(spec, text(500), out=tmp_path / "elsewhere.hdf5")
        assert not made.in_place
        assert not (folder / "weights.warm.hdf5").exists()
        with pytest.raises(EncoderError, match="there is no folder"):
            warm_up_encoder(spec, text(500), out=tmp_path / "nowhere" / "state.hdf5")

    def test_what_cannot_be_warmed_up(self, model, tmp_path):
        with pytest.raises(UsageError, match="untrained"):
            warm_up_encoder("elmo:untrained-demo", text(500))
        with pytest.raises(UsageError, match="unknown encoder"):
            warm_up_encoder("bert:base", text(500))
        with pytest.raises(EncoderError, match=r"gone\.json"):
            warm_up_encoder(f"elmo:{tmp_path / 'gone.json'},{tmp_path / 'weights.hdf5'}", text(500))
        with pytest.raises(SentenceError):
            warm_up_encoder(model[0], [("fine",), ("not", "")])


class TestVectors:
    def test_start_in_the_state(self, warmed):
        spec, folder, made = warmed
        state = read_state(made.path, OPTIONS, weights_sha256=made.weights_sha256)
        initial = InitialState(torch.from_numpy(state.hidden), torch.from_numpy(state.memory))
        weights = read_weights(folder / "weights.hdf5", OPTIONS)
        truth = run(BiLM(OPTIONS, weights, precision="float64", initial_state=initial), SENTENCES)
        ours = load_encoder(spec, layers="all", initial_state="warm").encode(SENTENCES)
        largest, relative = differences([v.transpose(1, 0, 2) for v in ours], truth)
        assert largest < 2e-4
        assert relative < 1e-5

    def test_differ_from_those_that_start_from_zeros_but_in_layer_0(self, warmed):
        spec = warmed[0]
        zero, warm = (
            load_encoder(spec, layers="all", initial_state=policy).encode(SENTENCES)
            for policy in ("zero", "warm")
        )
        by_layer = [
            differences([v[:, layer] for v in warm], [v[:, layer] for v in zero])[1] for layer in range(3)
        ]
        assert by_layer[0] == 0
        assert min(by_layer[1:]) > 0.01

    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    def test_are_those_of_the_sentence_alone_in_any_batch(self, warmed, precision):
        encoder = load_encoder(warmed[0], layers="top", precision=precision, initial_state="warm")
        together = encoder.encode(SENTENCES)
        for sentence, vectors in zip(SENTENCES, together, strict=True):
            (alone,) = encoder.encode([sentence])
            assert differences([vectors], [alone])[1] < BATCH_INVARIANCE[precision]
        reversed_order = encoder.encode(SENTENCES[::-1])[::-1]
        assert differences(reversed_order, together)[1] < BATCH_INVARIANCE[precision]

    def test_automatic_is_zero_for_files_of_ones_own(self, warmed):
        spec = warmed[0]
        assert load_encoder(spec).recipe == load_encoder(spec, initial_state="zero").recipe
        assert encoder_recipe(spec) == encoder_recipe(spec, initial_state="zero")


class TestRecipe:
    def test_has_the_hash_of_the_state(self, warmed):
        spec, _, made = warmed
        zero, warm = (
            load_encoder(spec, initial_state="zero").recipe,
            load_encoder(spec, initial_state="warm").recipe,
        )
        assert warm["initial_state"] == "warm"
        assert warm["initial_state_sha256"] == made.sha256
        assert "initial_state_sha256" not in zero
        assert [str(difference) for difference in zero.diff(warm)] == [
            'initial_state: "zero" here, "warm" there',
            f'initial_state_sha256: (absent) here, "{made.sha256}" there',
        ]
        assert encoder_recipe(spec, initial_state="warm") == warm

    def test_another_state_is_another_recipe_and_the_file_is_not(self, warmed):
        spec, _, made = warmed
        first = encoder_recipe(spec, initial_state="warm")
        made.path.write_bytes(made.path.read_bytes() + b"\0" * 8)  # what HDF5 does not read
        assert encoder_recipe(spec, initial_state="warm") == first
        warm_up_encoder(spec, text(500, seed=1), force=True)
        assert {d.field for d in first.diff(encoder_recipe(spec, initial_state="warm"))} == {
            "initial_state_sha256"
        }

    def test_needs_no_torch(self, warmed):
        program = (
            "import sys; from featurestore.encoders.loading import outline_encoder, encoder_recipe\n"
            f"outline_encoder({warmed[0]!r}, initial_state='warm')\n"
            f"encoder_recipe({warmed[0]!r}, initial_state='warm')\n"
            "sys.exit('torch' in sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=dict(os.environ))


class TestWithoutAState:
    def test_every_door_says_how_to_make_one(self, model):
        spec, folder = model
        for door in (load_encoder, encoder_recipe, outline_encoder):
            with pytest.raises(EncoderError) as caught:
                door(spec, initial_state="warm")
            message = str(caught.value)
            assert str(folder / "weights.warm.hdf5") in message
            assert f"featurestore warm-up {spec} CORPUS..." in message

    def test_a_state_of_other_weights_is_refused(self, warmed):
        spec, folder, made = warmed
        weights = folder / "weights.hdf5"
        weights.write_bytes(weights.read_bytes() + b"\0" * 8)
        for door in (load_encoder, encoder_recipe):
            with pytest.raises(WeightsError, match="belongs to its weights") as caught:
                door(spec, initial_state="warm")
            assert made.weights_sha256 in str(caught.value)
        assert load_encoder(spec, initial_state="zero").dim == 32
