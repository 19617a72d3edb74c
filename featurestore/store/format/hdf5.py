"""The part of HDF5 that shards are written in, parsed without the HDF5 library.

``lay_out`` uses very little of the format: a version 0 superblock, one group with a symbol table, datasets
whose headers hold a shape, a type, a fill setting and the place of their bytes. This parser knows that little
and refuses the rest by not knowing it: links, groups, filters, chunks, heaps, committed types, extensions.
It reads a few kilobytes, lets no two things share a byte (so nothing goes round in circles), and allocates
nothing that a file could make large. A stranger's file is refused here, before a library that knows all of
HDF5 sees it.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from featurestore.store.format.layout import Extent

Read = Callable[[int, int], bytes]
"""Offset and size to that many bytes of the file, or fewer where it ends."""

_NOWHERE = (1 << 64) - 1
_NAME = re.compile("[a-z_]{1,40}")
_MOST_NAMES = 64
_MOST_HEADER_BYTES = 4096
_MOST_HEAP_BYTES = 4096

_NIL, _DATASPACE, _DATATYPE, _FILL, _LAYOUT = 0x00, 0x01, 0x03, 0x05, 0x08
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 0x0C, 0x10, 0x11
_MESSAGES = {
    0x02: "link information", 0x04: "an old fill value", 0x06: "a link", 0x07: "external storage",
    0x0A: "group information", 0x0B: "a filter", 0x0D: "a comment", 0x0E: "an old modification time",
    0x0F: "a table of shared messages", 0x10: "too many continuations", 0x12: "a modification time",
    0x13: "B-tree parameters", 0x14: "driver information", 0x15: "attribute information",
    0x16: "a reference count",
}  # fmt: skip
_CLASSES = ("an integer", "a float", "a time", "a string", "a bit field", "opaque", "compound", "a reference",
            "an enumeration", "of variable length", "an array")  # fmt: skip

# NumPy type -> what the datatype message says after its version: class bits, size, properties.
_TYPES = {
    "|u1": "000000 01000000 00000800",
    "|i1": "080000 01000000 00000800",
    "<u4": "000000 04000000 00002000",
    "<u8": "000000 08000000 00004000",
    "<f2": "200f00 02000000 00001000 0a05000a 0f000000",
    "<f4": "201f00 04000000 00002000 17080017 7f000000",
}
_KNOWN_TYPES = {bytes.fromhex(text): name for name, text in _TYPES.items()}


class RefusedError(Exception):
    """The file uses something of HDF5 that shards do not; the message says what and where."""


@dataclass(frozen=True)
class Structure:
    """What a shard's structure says.

    Attributes
    ----------
    attributes : dict of str to bytes
        Of the root; the raw bytes of fixed-length strings and of numbers.
    attribute_types : dict of str to str
        ``"string"``, or the NumPy type.
    extents : dict of str to Extent
        Where each dataset lies.
    """

    attributes: dict[str, bytes]
    attribute_types: dict[str, str]
    extents: dict[str, Extent]


def parse(read: Read, n_bytes: int) -> Structure:
    """Parse the structure of a file.

    Parameters
    ----------
    read : callable
        See :data:`Read`.
    n_bytes : int
        Size of the file.

    Raises
    ------
    RefusedError
        If the file holds anything that shards do not.
    """
    return _Parser(read, n_bytes).parse()


class _Parser:
    def __init__(self, read: Read, n_bytes: int) -> None:
        self._read, self._n_bytes = read, n_bytes
        self._claimed: list[tuple[int, int, str]] = []

    def parse(self) -> Structure:
        root, tree, heap = self._superblock()
        messages = self._header(root, "the root group")
        tables = [body for kind, body in messages if kind == _SYMBOL_TABLE]
        if [kind for kind, _ in messages if kind not in (_SYMBOL_TABLE, _ATTRIBUTE)] or len(tables) != 1:
            raise RefusedError("the root group's header holds more than a symbol table and attributes")
        if tables[0][:16] != struct.pack("<QQ", tree, heap):
            raise RefusedError("superblock and root group name different symbol tables")
        attributes, types = self._attributes([body for kind, body in messages if kind == _ATTRIBUTE])
        extents = {}
        for name, address in self._names(tree, heap).items():
            extents[name] = self._dataset(name, address)
        self._require_disjoint()
        return Structure(attributes, types, extents)

    # -- bytes

    def _claim(self, offset: int, size: int, what: str) -> None:
        """Note that a range of the file belongs to something; ranges must not overlap."""
        if offset > self._n_bytes or size > self._n_bytes - offset:
            raise RefusedError(
                f"{what} ({size:,} bytes from byte {offset:,}) lies outside the {self._n_bytes:,} bytes"
            )
        if size:
            self._claimed.append((offset, offset + size, what))

    def _bytes(self, offset: int, size: int, what: str) -> bytes:
        self._claim(offset, size, what)
        found = self._read(offset, size)
        if len(found) != size:
            raise RefusedError(f"the file ends within {what}")
        return found

    def _require_disjoint(self) -> None:
        ordered = sorted(self._claimed)
        for (_, end, what), (start, _, other) in itertools.pairwise(ordered):
            if start < end:
                raise RefusedError(f"{what} and {other} overlap at byte {start:,}")

    # -- parts

    def _superblock(self) -> tuple[int, int, int]:
        """Return the addresses of the root's header, its B-tree and its heap."""
        raw = self._bytes(0, min(96, self._n_bytes), "the superblock")
        if raw[:8] != b"\x89HDF\r\n\x1a\n":
            raise RefusedError("it does not begin with the signature of HDF5 (or has a user block)")
        if len(raw) < 96:
            raise RefusedError("the file ends within the superblock")
        if raw[8] != 0:
            raise RefusedError(f"superblock version {raw[8]}, expected 0")
        if raw[9:16] != b"\0\0\0\0\x08\x08\0" or raw[16:24] != struct.pack("<HHI", 4, 16, 0):
            raise RefusedError("the superblock has unusual sizes or versions")
        base, free, end, driver, name, root, cached, reserved, tree, heap = struct.unpack("<6QIIQQ", raw[24:])
        if base or free != _NOWHERE or driver != _NOWHERE or name or cached != 1 or reserved:
            raise RefusedError("the superblock has a base address, free space, a driver or no cached group")
        if end != self._n_bytes:
            raise RefusedError(f"the superblock says {end:,} bytes, the file has {self._n_bytes:,}")
        return root, tree, heap

    def _header(self, address: int, what: str) -> list[tuple[int, bytes]]:
        """Return the messages of an object header, those that fill space left out."""
        version, zero, n_messages, n_links, size = struct.unpack("<BBHII", self._bytes(address, 12, what))
        if (version, zero) != (1, 0):
            raise RefusedError(f"{what} has no object header of version 1")
        if n_links != 1:
            raise RefusedError(f"{what} is linked {n_links} times")
        if size > _MOST_HEADER_BYTES:
            raise RefusedError(f"the header of {what} has {size:,} bytes")
        blocks = [self._bytes(address + 16, size, f"the header of {what}")]
        messages: list[tuple[int, bytes]] = []
        n_seen = 0
        for block in blocks:
            at = 0
            while at < len(block):
                if len(block) - at < 8:
                    raise RefusedError(f"a message ends outside the header of {what}")
                kind, n, flags, *reserved = struct.unpack("<HHBBBB", block[at : at + 8])
                body, at = block[at + 8 : at + 8 + n], at + 8 + n
                n_seen += 1
                if len(body) != n or n_seen > n_messages:
                    raise RefusedError(f"a message ends outside the header of {what}")
                if flags & ~1 or any(reserved):
                    raise RefusedError(f"{what} shares a message with another object (flags {flags:#x})")
                if kind == _CONTINUATION and len(blocks) < 3 and n == 16:
                    start, length = struct.unpack("<QQ", body)
                    if length > _MOST_HEADER_BYTES:
                        raise RefusedError(f"the header of {what} continues for {length:,} bytes")
                    blocks.append(self._bytes(start, length, f"the continued header of {what}"))
                elif kind != _NIL:
                    if kind not in (_DATASPACE, _DATATYPE, _FILL, _LAYOUT, _ATTRIBUTE, _SYMBOL_TABLE):
                        raise RefusedError(f"{what} has {_MESSAGES.get(kind, f'message {kind:#x}')}")
                    messages.append((kind, body))
        if n_seen != n_messages:
            raise RefusedError(f"{what} has {n_seen} messages, its header says {n_messages}")
        return messages

    def _names(self, tree: int, heap: int) -> dict[str, int]:
        """Return the names in the root and the addresses of their headers."""
        signature, kind, level, n_nodes, left, right = struct.unpack(
            "<4sBBHQQ", self._bytes(tree, 24, "the B-tree")
        )
        if (signature, kind, level, left, right) != (b"TREE", 0, 0, _NOWHERE, _NOWHERE) or n_nodes > 32:
            raise RefusedError("the root's B-tree is not a single leaf of names")
        keys_and_nodes = self._bytes(tree + 24, 16 * n_nodes + 8, "the entries of the B-tree")
        signature, heap_size, _, heap_start = struct.unpack("<8sQQQ", self._bytes(heap, 32, "the heap"))
        if signature != b"HEAP\0\0\0\0" or heap_size > _MOST_HEAP_BYTES:
            raise RefusedError("the root has no heap of names, or a huge one")
        text = self._bytes(heap_start, heap_size, "the heap's names")
        names: dict[str, int] = {}
        for number in range(n_nodes):
            (node,) = struct.unpack_from("<Q", keys_and_nodes, 16 * number + 8)
            raw = self._bytes(node, 8, "a symbol node")
            signature, version, _, n_names = struct.unpack("<4sBBH", raw)
            if (signature, version) != (b"SNOD", 1) or n_names > 8:
                raise RefusedError("an address leads to no symbol node")
            entries = self._bytes(node + 8, 40 * n_names, "the entries of a symbol node")
            for entry in range(n_names):
                place, address, cached, _ = struct.unpack_from("<QQII", entries, 40 * entry)
                end = text.find(b"\0", place) if place < heap_size else -1
                if end < 0:
                    raise RefusedError("a name lies outside the heap")
                name = text[place:end].decode("ascii", "backslashreplace")
                if not _NAME.fullmatch(name):
                    raise RefusedError(f"a dataset is named {name[:80]!r}")
                if cached != 0:
                    raise RefusedError(f"/{name} is a group or a link to somewhere else")
                if name in names or len(names) == _MOST_NAMES:
                    raise RefusedError(f"/{name} stands twice in the root, or among too many")
                names[name] = address
        return names

    def _attributes(self, bodies: list[bytes]) -> tuple[dict[str, bytes], dict[str, str]]:
        values: dict[str, bytes] = {}
        types: dict[str, str] = {}
        for body in bodies:
            if len(body) < 8 or body[0] != 1:
                raise RefusedError("an attribute is of another version than 1")
            pieces, at = [], 8
            for size in struct.unpack("<HHH", body[2:8]):
                pieces.append(body[at : at + size])
                at += -(-size // 8) * 8
            name = pieces[0].rstrip(b"\0").decode("ascii", "backslashreplace")
            # One value: a dataspace of no dimensions.
            if pieces[2] != b"\x01\0\0\0\0\0\0\0":
                raise RefusedError(f"attribute {name!r} is not a single value")
            if pieces[1][:1] == b"\x13" and len(pieces[1]) == 8:
                kind, size = "string", int.from_bytes(pieces[1][4:8], "little")
            else:
                kind = self._type(pieces[1], f"attribute {name!r}")
                size = int(kind[2:])
            if name in values or not size or len(body[at:]) < size:
                raise RefusedError(f"attribute {name!r} stands twice, is empty, or ends outside its header")
            values[name], types[name] = body[at : at + size], kind
        return values, types

    def _dataset(self, name: str, address: int) -> Extent:
        what = f"/{name}"
        messages = self._header(address, what)
        found = dict(messages)
        if sorted(kind for kind, _ in messages) != [_DATASPACE, _DATATYPE, _FILL, _LAYOUT]:
            kinds = ", ".join(f"{kind:#x}" for kind, _ in messages)
            raise RefusedError(f"{what} is no plain dataset (messages {kinds})")
        fill = found[_FILL]
        if fill[:1] not in (b"\x01", b"\x02") or any(fill[4:8]):
            raise RefusedError(f"{what} has a fill value")
        dtype = self._type(found[_DATATYPE], what)
        shape = self._shape(found[_DATASPACE], what)
        layout = found[_LAYOUT]
        if len(layout) < 18 or layout[:2] != b"\x03\x01":
            raise RefusedError(f"{what} is not contiguous")
        offset, n_bytes = struct.unpack_from("<QQ", layout, 2)
        extent = Extent(offset, dtype, shape)
        if extent.n_bytes != n_bytes:
            raise RefusedError(f"{what} is {dtype} {shape} in {n_bytes:,} bytes, expected {extent.n_bytes:,}")
        self._claim(offset, n_bytes, what)
        return extent

    def _type(self, body: bytes, what: str) -> str:
        if len(body) >= 8 and body[0] >> 4 == 1:
            group = body[0] & 15
            for known, name in _KNOWN_TYPES.items():
                # The message is padded; a float has class 1, an integer class 0.
                if body[1 : 1 + len(known)] == known and group == (name[1] == "f"):
                    return name
            if group < len(_CLASSES):
                size = int.from_bytes(body[4:8], "little")
                raise RefusedError(
                    f"{what} is {_CLASSES[group]} of {size:,} bytes, of no type that shards hold"
                )
        raise RefusedError(f"{what} has a type of another version than 1")

    def _shape(self, body: bytes, what: str) -> tuple[int, ...]:
        if len(body) < 8 or body[0] != 1 or not 1 <= body[1] <= 3 or body[2] & ~1 or any(body[3:8]):
            raise RefusedError(f"{what} has no plain shape of one to three dimensions")
        rank = body[1]
        n_words = rank * (1 + body[2])
        if len(body) < 8 + 8 * n_words:
            raise RefusedError(f"the shape of {what} ends outside its header")
        words = struct.unpack_from(f"<{n_words}Q", body, 8)
        if body[2] and words[rank:] != words[:rank]:
            raise RefusedError(f"{what} can grow")
        return words[:rank]
