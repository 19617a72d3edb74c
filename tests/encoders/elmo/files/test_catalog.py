"""What a specification names: a bundled, published, local or untrained model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from featurestore import load_encoder
from featurestore.encoders.elmo.files.catalog import LocalSource, parse_source
from featurestore.errors import EncoderError, UnknownEncoderError


def test_a_folder_names_its_options_and_weights(tiny_elmo, tmp_path, monkeypatch):
    local = parse_source(tiny_elmo.spec.removeprefix("elmo:"))
    folder = tmp_path / "my-model"
    folder.mkdir()
    shutil.copy(local.options, folder / "options.json")
    shutil.copy(local.weights, folder / "weights.hdf5")
    monkeypatch.chdir(tmp_path)
    sentence = ("A", "folder", "will", "do")
    expected = tiny_elmo.encode([sentence])[0]
    for spec in ("elmo:./my-model", f"elmo:{folder}", f"elmo:{folder}/", "elmo:my-model/"):
        encoder = load_encoder(spec)
        np.testing.assert_array_equal(encoder.encode([sentence])[0], expected)
        # Stores keep a specification that holds wherever the next command runs.
        assert encoder.spec == f"elmo:{folder / 'options.json'},{folder / 'weights.hdf5'}"
    monkeypatch.chdir(folder)
    assert parse_source(".") == LocalSource(folder / "options.json", folder / "weights.hdf5")


def test_a_folder_without_a_model_names_the_missing_file(tmp_path):
    with pytest.raises(EncoderError, match=r"nowhere/options\.json"):
        load_encoder(f"elmo:{tmp_path}/nowhere")


def test_an_unknown_name_says_how_to_name_a_folder():
    with pytest.raises(UnknownEncoderError, match=r"elmo:\./FOLDER"):
        parse_source("my-model")
