"""The parser of the HDF5 that shards hold: sees what the library sees, and only ever refuses the rest."""

from __future__ import annotations

import io
import random
import struct

import h5py
import pytest

from featurestore.store.format import hdf5, structure
from tests.kit.stores import CONDITIONED_SENTENCES, create, fill, sentences, shard_path


def parsed(content: bytes) -> hdf5.Structure:
    return hdf5.parse(lambda offset, size: content[offset : offset + size], len(content))


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_parser_sees_what_the_library_sees(tmp_path, codec, n_layers):
    wanted = [*sentences(40), *CONDITIONED_SENTENCES]
    store = fill(create(tmp_path / "store.fs", codec=codec, n_layers=n_layers, shard_bytes=512), wanted)
    assert len(store.manifest.shards) > 1
    for number in range(len(store.manifest.shards)):
        found = parsed(shard_path(store, number).read_bytes())
        with h5py.File(shard_path(store, number)) as file:
            assert set(found.extents) == set(file)
            for name, extent in found.extents.items():
                seen = file[name]
                assert (extent.offset, extent.dtype, extent.shape) == (
                    seen.id.get_offset(), seen.dtype.str, seen.shape
                )  # fmt: skip
            assert {name: file.attrs[name].tobytes() for name in file.attrs} == found.attributes


def test_damaged_structure_is_refused_or_read_within_bounds(tmp_path):
    store = fill(create(tmp_path / "store.fs", codec="int8", shard_bytes=1 << 20), sentences(8))
    sound, entry = shard_path(store).read_bytes(), store.manifest.shards[0]
    places = [at for at in range(entry.extents["values"].offset) if sound[at]]
    draw, n_refused = random.Random(0), 0
    for _ in range(2000):
        content = bytearray(sound)
        for place in draw.sample(places, draw.choice((1, 1, 2, 8))):
            content[place] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
        read = [0]

        def counted(offset: int, size: int, content: bytes = bytes(content), read: list[int] = read) -> bytes:
            read[0] += size
            return content[offset : offset + size]

        try:
            found = hdf5.parse(counted, len(content))
        except hdf5.RefusedError:
            n_refused += 1
        else:
            assert all(extent.offset + extent.n_bytes <= len(sound) for extent in found.extents.values())
        assert read[0] < 1 << 17
    assert n_refused > 1000


@pytest.mark.parametrize("keep", [0, 7, 8, 95, 96, 300, 5000])
def test_cut_structure_is_refused(tmp_path, keep):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    with pytest.raises(hdf5.RefusedError):
        parsed(shard_path(store).read_bytes()[:keep])


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path):
    content = shard_path(fill(create(tmp_path / "store.fs"), sentences(8))).read_bytes()
    with pytest.raises(hdf5.RefusedError, match="the file ends within"):
        hdf5.parse(lambda offset, size: content[:300][offset : offset + size], len(content))


def test_a_shape_of_more_dimensions_than_its_message_has_room_for_is_refused(tmp_path):
    content = bytearray(shard_path(fill(create(tmp_path / "store.fs"), sentences(8))).read_bytes())
    keys = parsed(bytes(content)).extents["keys"].shape
    shape = content.index(b"\1\2\1" + bytes(5) + struct.pack("<4Q", *keys, *keys))
    content[shape + 1] = 3
    with pytest.raises(hdf5.RefusedError, match="ends outside its header"):
        parsed(bytes(content))


def test_what_the_library_sees_otherwise_is_refused(tmp_path):
    one, other = (shard_path(fill(create(tmp_path / f"{n}.fs"), sentences(n))) for n in (8, 9))
    found = parsed(one.read_bytes())
    with open(one, "rb") as same:
        structure._require_agreement(same, found)
    with open(other, "rb") as another, pytest.raises(hdf5.RefusedError, match="the HDF5 library finds"):
        structure._require_agreement(another, found)
    with pytest.raises(hdf5.RefusedError, match="the HDF5 library does not read it"):
        structure._require_agreement(io.BytesIO(b"no HDF5"), found)
