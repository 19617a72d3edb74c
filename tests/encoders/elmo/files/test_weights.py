"""Weights files: written and read back exactly, and refused when they are not what the options call for."""

from __future__ import annotations

import dataclasses
import hashlib
import os

import h5py
import numpy as np
import pytest

from featurestore.encoders.elmo.files.weights import (
    expected_shapes,
    read_weights,
    read_weights_and_hash,
    seeded_weights,
    tensors_sha256,
    write_weights,
)
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import EncoderError, WeightsError
from tests.kit.elmo import GOLDEN, TINY

NAME = "CNN_proj/W_proj"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.hdf5"
    write_weights(path, seeded_weights(TINY, 0))
    return path


def layout(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.__setitem__(name, (item.shape, item.dtype.str))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def test_round_trip_is_exact(tmp_path):
    weights = seeded_weights(TINY, 3)
    write_weights(tmp_path / "w.hdf5", weights)
    again = read_weights(tmp_path / "w.hdf5", TINY)
    assert again.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == np.float32
    assert tensors_sha256(again) == tensors_sha256(weights)
    assert list(tmp_path.iterdir()) == [tmp_path / "w.hdf5"]


def test_same_layout_as_allennlp_reads(tmp_path):
    options = ElmoOptions.read(GOLDEN / "options.json")
    write_weights(tmp_path / "w.hdf5", read_weights(GOLDEN / "weights.hdf5", options))
    assert layout(tmp_path / "w.hdf5") == layout(GOLDEN / "weights.hdf5")
    assert len(layout(tmp_path / "w.hdf5")) == len(expected_shapes(options))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_float_types_are_read(tmp_path, dtype):
    weights = seeded_weights(TINY, 3)
    with h5py.File(tmp_path / "w.hdf5", "w") as file:
        for name, array in weights.items():
            file[name] = array.astype(dtype)
    again = read_weights(tmp_path / "w.hdf5", TINY)
    for name, array in weights.items():
        assert again[name].dtype.itemsize == int(dtype[-1])
        np.testing.assert_array_equal(again[name], array.astype(dtype))


def test_float16_on_disk(tmp_path):
    weights = seeded_weights(TINY, 3)
    write_weights(tmp_path / "w.hdf5", weights, dtype="float16")
    again = read_weights(tmp_path / "w.hdf5", TINY)
    np.testing.assert_array_equal(again[NAME], weights[NAME].astype(np.float16))


def test_float16_forget_biases_plus_one_are_exact_in_float16(tmp_path):
    # AllenNLP adds 1 in the file's type, we after widening: with any other rounding the two would differ.
    path = tmp_path / "half.hdf5"
    original = seeded_weights(TINY, 0)
    write_weights(path, original, dtype="float16")
    cell = TINY.lstm_dim
    n_biases = 0
    for name, bias in read_weights(path, TINY).items():
        if not name.endswith("/B"):
            continue
        forget = bias[2 * cell : 3 * cell]
        np.testing.assert_array_equal(
            (forget + np.float16(1)).astype(np.float32), forget.astype(np.float32) + 1
        )
        np.testing.assert_allclose(bias, original[name], atol=1e-3)
        np.testing.assert_array_equal(bias[: 2 * cell], original[name][: 2 * cell].astype(np.float16))
        n_biases += 1
    assert n_biases == 2 * TINY.n_layers


def test_hash_is_that_of_the_file(path):
    weights, digest = read_weights_and_hash(path, TINY)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tensors_sha256(weights) == tensors_sha256(read_weights(path, TINY))


def refused(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path, TINY)
    with pytest.raises(WeightsError):
        read_weights_and_hash(path, TINY)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_tensor(path):
    with h5py.File(path, "a") as file:
        del file[NAME]
    assert NAME in refused(path)


def test_wrong_shape_names_both(path):
    with h5py.File(path, "a") as file:
        shape = file[NAME].shape
        del file[NAME]
        file[NAME] = np.zeros((3, 5), np.float32)
    message = refused(path)
    assert NAME in message
    assert str(shape) in message
    assert "(3, 5)" in message


@pytest.mark.parametrize("value", [np.zeros((18, 8), np.int32), b"text", np.zeros((18, 8), np.complex64)])
def test_not_floats(path, value):
    with h5py.File(path, "a") as file:
        del file[NAME]
        file[NAME] = value
    assert NAME in refused(path)


def test_group_in_place_of_a_tensor_and_tensor_in_place_of_a_group(path):
    with h5py.File(path, "a") as file:
        del file[NAME]
        file.create_group(NAME)
    assert "group" in refused(path)
    with h5py.File(path, "a") as file:
        del file["CNN_proj"]
        file["CNN_proj"] = np.zeros(3)
    assert "group" in refused(path)


@pytest.mark.parametrize("place", [NAME, "CNN_proj"])
@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_are_refused(path, tmp_path, place, kind):
    other = tmp_path / "other.hdf5"
    write_weights(other, seeded_weights(TINY, 1))
    with h5py.File(path, "a") as file:
        file.move(place, "elsewhere")
        file[place] = h5py.ExternalLink(other, place) if kind == "external" else h5py.SoftLink("/elsewhere")
    assert "link to somewhere else" in refused(path)


def test_external_link_is_not_even_followed(path, tmp_path):
    """A link to a pipe would hang a reader that opens it."""
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "a") as file:
        del file[NAME]
        file[NAME] = h5py.ExternalLink(tmp_path / "pipe", NAME)
    assert "link to somewhere else" in refused(path)


def test_options_that_call_for_more_than_any_model(path):
    huge = dataclasses.replace(TINY, lstm_dim=1 << 16, projection_dim=1 << 15)
    for attempt in (lambda: read_weights(path, huge), lambda: seeded_weights(huge, 0)):
        with pytest.raises(WeightsError, match="bound"):
            attempt()


def test_external_storage_is_refused(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(18 * 8 * 4))
    with h5py.File(path, "a") as file:
        del file[NAME]
        file.create_dataset(NAME, (18, 8), np.float32, external=[(str(secret), 0, 18 * 8 * 4)])
    assert "outside" in refused(path)


def test_virtual_dataset_is_refused(path, tmp_path):
    other = tmp_path / "other.hdf5"
    write_weights(other, seeded_weights(TINY, 1))
    with h5py.File(path, "a") as file:
        del file[NAME]
        virtual = h5py.VirtualLayout((18, 8), np.float32)
        virtual[:] = h5py.VirtualSource(other, NAME, (18, 8))
        file.create_virtual_dataset(NAME, virtual)
    assert "outside" in refused(path)


@pytest.mark.parametrize("content", [b"", b"not an HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_garbage(tmp_path, content):
    path = tmp_path / "weights.hdf5"
    path.write_bytes(content)
    assert "HDF5" in refused(path)


def test_truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nowhere.hdf5", tmp_path):
        for read in (read_weights, read_weights_and_hash):
            with pytest.raises(EncoderError, match=path.name):
                read(path, TINY)


def test_write_into_nowhere(tmp_path):
    with pytest.raises(EncoderError, match="nowhere"):
        write_weights(tmp_path / "nowhere" / "w.hdf5", seeded_weights(TINY, 0))
