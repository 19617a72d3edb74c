"""State files: written and read back exactly, and refused when they are not this model's."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from featurestore.encoders.elmo.files.initial_state import WarmState, read_state, same_state, write_state
from featurestore.errors import EncoderError, WeightsError
from tests.kit.elmo import TINY

WEIGHTS = "ab" * 32
SHAPES = {"hidden": (2, 2, TINY.projection_dim), "memory": (2, 2, TINY.lstm_dim)}


def a_state(seed=0, weights_sha256=WEIGHTS):
    random = np.random.default_rng(seed)
    return WarmState(
        *(random.standard_normal(shape).astype(np.float32) for shape in SHAPES.values()), weights_sha256
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.warm.hdf5"
    write_state(path, a_state())
    return path


def refused(path):
    with pytest.raises(WeightsError) as caught:
        read_state(path, TINY, weights_sha256=WEIGHTS)
    assert not same_state(path, TINY, a_state())
    message = str(caught.value)
    assert str(path) in message
    return message


def test_round_trip_is_exact(path):
    again = read_state(path, TINY, weights_sha256=WEIGHTS)
    np.testing.assert_array_equal(again.hidden, a_state().hidden)
    np.testing.assert_array_equal(again.memory, a_state().memory)
    assert again.hidden.dtype == again.memory.dtype == np.float32
    assert again.sha256 == a_state().sha256
    assert list(path.parent.iterdir()) == [path]


def test_layout_is_three_contiguous_datasets(path):
    with h5py.File(path) as file:
        assert {name: (item.shape, item.dtype.str, item.chunks) for name, item in file.items()} == {
            "hidden": (SHAPES["hidden"], "<f4", None),
            "memory": (SHAPES["memory"], "<f4", None),
            "weights_sha256": ((32,), "|u1", None),
        }


def test_same_state_same_bytes(path):
    before = path.read_bytes()
    write_state(path, a_state())
    assert path.read_bytes() == before


def test_hash_is_of_the_tensors_alone(tmp_path):
    assert a_state().sha256 == a_state(weights_sha256="cd" * 32).sha256
    assert a_state(0).sha256 != a_state(1).sha256
    with h5py.File(tmp_path / "big-endian.hdf5", "w") as file:
        for name in SHAPES:
            file[name] = getattr(a_state(), name).astype(">f4")
        file["weights_sha256"] = np.frombuffer(bytes.fromhex(WEIGHTS), np.uint8)
    assert read_state(tmp_path / "big-endian.hdf5", TINY, weights_sha256=WEIGHTS).sha256 == a_state().sha256


def test_same_state(path):
    assert same_state(path, TINY, a_state())
    assert not same_state(path, TINY, a_state(1))
    assert not same_state(path, TINY, a_state(weights_sha256="cd" * 32))


def test_of_other_weights(path):
    with pytest.raises(WeightsError, match="belongs to its weights") as caught:
        read_state(path, TINY, weights_sha256="cd" * 32)
    for fragment in (WEIGHTS, "cd" * 32, "warm-up"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", [*SHAPES, "weights_sha256"])
def test_missing(path, name):
    with h5py.File(path, "a") as file:
        del file[name]
    message = refused(path)
    assert name in message
    assert "featurestore warm-up" in message


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("hidden", np.zeros((2, 2, 9), np.float32), "(2, 2, 9)"),
        ("memory", np.zeros((1, 2, TINY.lstm_dim), np.float32), "(1, 2, 24)"),
        ("hidden", np.zeros(SHAPES["hidden"], np.float64), "float64"),
        ("memory", np.zeros(SHAPES["memory"], np.int32), "int32"),
        ("memory", b"text", "type"),
        ("weights_sha256", np.zeros(31, np.uint8), "(31,)"),
        ("weights_sha256", np.zeros(32, np.float32), "float32"),
    ],
    ids=str,
)
def test_wrong_shape_or_type_names_both(path, name, value, found):
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    message = refused(path)
    assert name in message
    assert found in message
    assert str(SHAPES.get(name, (32,))) in message


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite(path, number):
    with h5py.File(path, "a") as file:
        file["memory"][1, 1, 3] = number
    assert "memory holds numbers that are not finite" in refused(path)


@pytest.mark.parametrize("kind", ["external", "soft", "virtual", "elsewhere", "group"])
def test_nothing_leads_elsewhere(path, tmp_path, kind):
    other = tmp_path / "other.hdf5"
    write_state(other, a_state(1))
    shape = SHAPES["hidden"]
    with h5py.File(path, "a") as file:
        file.move("hidden", "moved")
        if kind == "external":
            file["hidden"] = h5py.ExternalLink(other, "hidden")
        elif kind == "soft":
            file["hidden"] = h5py.SoftLink("/moved")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, np.float32)
            layout[:] = h5py.VirtualSource(other, "hidden", shape)
            file.create_virtual_dataset("hidden", layout)
        elif kind == "elsewhere":
            file.create_dataset("hidden", shape, np.float32, external=[(str(other), 0, 4 * np.prod(shape))])
        else:
            file.create_group("hidden")
    assert "hidden" in refused(path)


@pytest.mark.parametrize("content", [b"", b"not an HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_garbage(path, content):
    path.write_bytes(content)
    assert "warm-up" in refused(path)


def test_truncated_anywhere(path):
    content = path.read_bytes()
    for n_bytes in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:n_bytes])
        refused(path)


def test_absent_and_a_folder(tmp_path):
    for path in (tmp_path / "nowhere.hdf5", tmp_path):
        with pytest.raises(EncoderError, match=path.name):
            read_state(path, TINY, weights_sha256=WEIGHTS)


def test_write_into_nowhere(tmp_path):
    with pytest.raises(EncoderError, match="nowhere"):
        write_state(tmp_path / "nowhere" / "state.hdf5", a_state())
