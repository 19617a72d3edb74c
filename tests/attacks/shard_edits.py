"""Ways to change a shard's file so that its hashes fit and its structure is another."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.attacks.hostile import manifest_body, republish, shard_bytes

NOWHERE = (1 << 64) - 1


def relaid(store: Path, content: bytes) -> None:
    """Publish a changed file, copies of what the manifest lists laid behind it.

    So readers find every byte, and only who looks at the HDF5 structure can notice.
    """
    (entry,) = manifest_body(store)["shards"]
    sound, laid, extents = shard_bytes(store), bytearray(content), {}
    for name, (offset, dtype, *shape) in sorted(
        entry["extents"].items(), key=lambda item: item[0] == "values"
    ):
        n_bytes = int(np.dtype(dtype).itemsize * np.prod(shape))
        laid += bytes(-len(laid) % 4096)
        extents[name] = [len(laid), dtype, *shape]
        laid += sound[offset : offset + n_bytes]
    if laid[8] == 0:
        laid[40:48] = struct.pack("<Q", len(laid))
    republish(store, bytes(laid), extents=extents)


def edited(change: Callable[[h5py.File], object], **options: Any) -> Callable[[Path], None]:
    """Return the harm that h5py does to a copy of the file."""

    def harm(store: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edited.h5"
            path.write_bytes(shard_bytes(store))
            with h5py.File(path, "r+", **options) as file:
                change(file)
            relaid(store, path.read_bytes())

    return harm


def rewritten(**options: Any) -> Callable[[Path], None]:
    """Return the harm of writing the whole file again in another form of HDF5."""

    def harm(store: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source, path = Path(folder) / "source.h5", Path(folder) / "path.h5"
            source.write_bytes(shard_bytes(store))
            with h5py.File(source) as old, h5py.File(path, "w", **options) as new:
                new.attrs.update(old.attrs)
                for name in old:
                    new[name] = old[name][...]
            relaid(store, path.read_bytes())

    return harm


def tokens_as(**how: Any) -> Callable[[Path], None]:
    """Return the harm of laying /tokens down in another way."""

    def change(file: h5py.File) -> None:
        data = file["tokens"][:]
        del file["tokens"]
        file.create_dataset("tokens", **{"data": data, **how})

    return edited(change)


def patched(change: Callable[[bytearray, Any], object]) -> Callable[[Path], None]:
    """Return the harm of changing bytes of the structure in place; :class:`Places` says where things are."""

    def harm(store: Path) -> None:
        content = bytearray(shard_bytes(store))
        change(content, Places(content, manifest_body(store)["shards"][0]))
        republish(store, bytes(content))

    return harm


class Places:
    """Where the parts of a sound shard's structure lie."""

    tree, heap, root = 80, 88, 64
    """Places of addresses in the superblock."""

    def __init__(self, content: bytearray, entry: dict[str, Any]) -> None:
        self._content, self._entry = content, entry

    def address(self, place: int) -> int:
        return int.from_bytes(self._content[place : place + 8], "little")

    def layout(self, name: str) -> int:
        """Return where the header of a dataset has the address of its bytes; their number follows."""
        offset, dtype, *shape = self._entry["extents"][name]
        n_bytes = int(np.dtype(dtype).itemsize * np.prod(shape))
        return self._content.index(b"\x03\x01" + struct.pack("<QQ", offset, n_bytes)) + 2

    def header(self, name: str) -> int:
        """Return where the object header of a dataset begins."""
        return self._content.rindex(b"\x01\0\x05\0", 0, self.layout(name))

    def shape(self, name: str) -> int:
        """Return where the header has the first size of a dataset."""
        return self.header(name) + 16 + 8 + 8

    def type(self, name: str) -> int:
        """Return where the header has the datatype of a one-dimensional dataset."""
        return self.shape(name) + 16 + 8

    def node(self) -> int:
        """Return where the first symbol node begins."""
        return self.address(self.address(self.tree) + 32)


def put(content: bytearray, place: int, *numbers: int, form: str = "Q") -> None:
    content[place : place + struct.calcsize(f"<{len(numbers)}{form}")] = struct.pack(
        f"<{len(numbers)}{form}", *numbers
    )


def set_number(find: Callable[[Places], int], *numbers: int, form: str = "Q") -> Callable[[Path], None]:
    return patched(lambda content, places: put(content, find(places), *numbers, form=form))
