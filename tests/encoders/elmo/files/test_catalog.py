"""What a specification names: a bundled, published, local or untrained model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from featurestore import load_encoder
from featurestore.encoders.elmo.files.catalog import LocalSource, parse_source
from featurestore.encoders.loading import encoder_recipe, outline_encoder, warm_up_encoder
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


class TestFolders:
    """Files by other names than ours, as people publish them."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "model").mkdir()
        return tmp_path / "model"

    @pytest.fixture
    def put(self, folder, tiny_elmo):
        local = parse_source(tiny_elmo.spec.removeprefix("elmo:"))

        def copied(options: str, weights: str) -> None:
            for source, name in ((local.options, options), (local.weights, weights)):
                if name:
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copy(source, folder / name)

        return copied

    @pytest.mark.parametrize(
        ("options", "weights", "beside"),
        [
            ("options.json", "model.hdf5", ["meta.json", "README", "vocab.txt", "LICENSE"]),  # NLPL
            ("options.json", "weights.h5", []),
            ("elmo_2x16_options.json", "elmo_2x16_weights.hdf5", ["elmo_2x16_weights.warm.hdf5"]),
            ("de_options.json", "de_weights.hdf5", ["fr_options.json", "list.json"]),
            ("config.json", "de.hdf5", []),
            ("options.json", "weights.hdf5", ["other.hdf5", "old_options.json"]),
        ],
    )
    def test_are_read_where_only_two_files_can_be_meant(
        self, folder, put, tiny_elmo, options, weights, beside
    ):
        put(options, weights)
        for name in beside:
            if name.endswith("options.json"):
                shutil.copy(folder / options, folder / name)
            else:
                (folder / name).write_text('{"algorithm": "elmo"}')
        encoder = load_encoder(f"elmo:{folder}", device="cpu")
        assert encoder.recipe == tiny_elmo.recipe
        assert encoder.spec == f"elmo:{folder / options},{folder / weights}"
        assert encoder_recipe(f"elmo:{folder}/") == tiny_elmo.recipe
        assert outline_encoder(f"elmo:{folder}").dim == 32

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({}, "holds no ELMo: expected options.json and weights.hdf5.*found nothing"),
            ({"notes.txt": "", "b.json": "{}"}, "found b.json, notes.txt"),
            ({"options.json": "{}"}, "found options.json"),
            ({"136.zip": "PK"}, r"136\.zip is an archive: unpack it.*elmo:\./FOLDER"),
            ({"encoder.pkl": "", "token_embedder.pkl": "", "config.json": "{}"}, "ELMoForManyLangs"),
            ({"checkpoint": "", "model.ckpt-1.index": "", "options.json": "{}"}, "dump_weights"),
        ],
    )
    @pytest.mark.parametrize("door", [load_encoder, encoder_recipe, outline_encoder])
    def test_say_what_they_hold_where_there_is_no_model(self, folder, files, said, door):
        for name, text in files.items():
            (folder / name).write_text(text)
        with pytest.raises(EncoderError, match=f"(?s){said}"):
            door(f"elmo:{folder}")

    def test_of_several_models_name_them(self, folder, put):
        for language in ("de", "fr"):
            put(f"{language}_options.json", f"{language}_weights.hdf5")
        with pytest.raises(
            EncoderError,
            match=r"more than one model \(options: de_options\.json, fr_options\.json; weights: de_.*fr_.*\)"
            r": "
            r"name the two, elmo:OPTIONS\.json,WEIGHTS\.hdf5",
        ):
            load_encoder(f"elmo:{folder}")

    def test_one_below_is_named(self, folder, put):
        put("136/options.json", "136/model.hdf5")
        with pytest.raises(EncoderError, match=rf"There is one in the folder {folder / '136'}: name that"):
            load_encoder(f"elmo:{folder}")

    @pytest.mark.parametrize(
        ("name", "said"), [("136.zip", "is an archive: unpack it"), ("weights.hdf5", "is one file")]
    )
    def test_one_file_is_no_folder(self, folder, name, said):
        (folder / name).write_text("x")
        with pytest.raises(EncoderError, match=said):
            load_encoder(f"elmo:{folder / name}")

    def test_an_archive_without_a_slash_is_told_the_same(self, folder, monkeypatch):
        (folder / "136.zip").write_text("PK")
        monkeypatch.chdir(folder)
        with pytest.raises(EncoderError, match="is an archive: unpack it"):
            load_encoder("elmo:136.zip")

    def test_the_warm_state_lies_beside_weights_of_any_name(self, folder, put):
        put("options.json", "model.hdf5")
        made = warm_up_encoder(f"elmo:{folder}", [("a", "b")] * 20, device="cpu")
        assert (made.path, made.in_place) == (folder / "model.warm.hdf5", True)
        assert load_encoder(f"elmo:{folder}", initial_state="warm").recipe["initial_state"] == "warm"
