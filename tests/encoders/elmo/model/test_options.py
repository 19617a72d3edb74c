"""Options files: read, validated, refused with reasons."""

from __future__ import annotations

import copy
import json

import pytest

from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
from featurestore.errors import EncoderError, WeightsError
from tests.kit.elmo import GOLDEN

SOUND = json.loads((GOLDEN / "options.json").read_text(encoding="utf-8"))


def changed(field, value):
    fields = copy.deepcopy(SOUND)
    *outer, last = field.split(".")
    target = fields
    for name in outer:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(fields)


def test_what_the_file_says():
    options = ElmoOptions.read(GOLDEN / "options.json")
    assert (options.lstm_dim, options.projection_dim, options.n_layers) == (64, 16, 2)
    assert options.filters == ((1, 4), (2, 8), (3, 12), (4, 16), (5, 24), (6, 32))
    assert options.dim == 32
    assert options.to_dict() == SOUND


def test_hash_ignores_layout_and_training_settings():
    padded = json.dumps({**SOUND, "n_train_tokens": 5}, indent=4)
    assert (
        ElmoOptions.from_json(padded, source="x").sha256
        == ElmoOptions.from_json(json.dumps(SOUND), source="y").sha256
    )
    other = ElmoOptions.from_json(changed("lstm.cell_clip", 5), source="x")
    assert other.sha256 != ElmoOptions.from_json(json.dumps(SOUND), source="x").sha256


def test_null_clip_means_no_clip():
    assert ElmoOptions.from_json(changed("lstm.proj_clip", None), source="x").proj_clip is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lstm.dim", ...),
        ("lstm", ...),
        ("char_cnn.embedding.dim", ...),
        ("lstm.use_skip_connections", ...),
        ("lstm.dim", 0),
        ("lstm.dim", True),
        ("lstm.dim", "64"),
        ("lstm.dim", 1 << 40),
        ("lstm.projection_dim", 1.5),
        ("lstm.n_layers", 0),
        ("lstm.cell_clip", -3),
        ("lstm.cell_clip", "3"),
        ("lstm.use_skip_connections", 1),
        ("char_cnn.filters", []),
        ("char_cnn.filters", [[1]]),
        ("char_cnn.filters", [[1, 0]]),
        ("char_cnn.filters", [[51, 4]]),
        ("char_cnn.activation", "selu"),
        ("char_cnn.activation", ["relu"]),
        ("char_cnn.n_characters", 300),
        ("char_cnn.max_characters_per_token", 2),
    ],
)
def test_faults_are_named(field, value):
    with pytest.raises(WeightsError) as caught:
        ElmoOptions.from_json(changed(field, value), source="some/options.json")
    message = str(caught.value)
    assert "some/options.json" in message
    assert field in message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", b"\xff\xfe", "[" * 100_000])
def test_garbage(text):
    with pytest.raises(WeightsError, match="some/options"):
        ElmoOptions.from_json(text, source="some/options.json")


def test_not_a_small_file(tmp_path):
    big = tmp_path / "weights.hdf5"
    big.write_bytes(b"\x89HDF" * (1 << 19))
    with pytest.raises(WeightsError, match="swapped"):
        ElmoOptions.read(big)


def test_missing_file(tmp_path):
    with pytest.raises(EncoderError, match="nowhere"):
        ElmoOptions.read(tmp_path / "nowhere.json")


def test_published_arithmetic():
    """The costs that the shapes are known for, in MFLOP a position."""
    original, small = PRESETS["original"], PRESETS["small"]
    assert original.megaflops_per_position == pytest.approx(67.1 + 67.1 + 16.8, abs=0.1)
    assert original.megaflops_per_type == pytest.approx(17.6 + 33.6 + 2.1, abs=0.1)
    assert small.megaflops_per_position + small.megaflops_per_type == pytest.approx(44.4, abs=0.2)
    assert [PRESETS[name].dim for name in ("small", "medium", "original")] == [256, 512, 1024]
