"""Hostile HDF5 files: the hashes fit, the vectors are where the manifest says, the structure is an attack."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.attacks.hostile import VERIFY, Attack, republish, shard_bytes
from tests.attacks.shard_edits import (
    NOWHERE,
    Places,
    edited,
    patched,
    put,
    relaid,
    rewritten,
    set_number,
    tokens_as,
)


def external_link(file: h5py.File) -> None:
    del file["tokens"]
    file["tokens"] = h5py.ExternalLink("/etc/passwd", "/tokens")


def soft_link(file: h5py.File) -> None:
    del file["tokens"]
    file["tokens"] = h5py.SoftLink("/keys")


def external_storage(file: h5py.File) -> None:
    shape = file["tokens"].shape
    del file["tokens"]
    file.create_dataset("tokens", shape, "u1", external=[("/etc/passwd", 0, shape[0])])


def virtual(file: h5py.File) -> None:
    shape = file["tokens"].shape
    del file["tokens"]
    layout = h5py.VirtualLayout(shape, "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=shape)
    file.create_virtual_dataset("tokens", layout)


def bomb(file: h5py.File) -> None:
    """A gigabyte of zeros in a kilobyte or so."""
    del file["tokens"]
    chunk = 64 << 20
    tokens = file.create_dataset("tokens", (16 * chunk,), "u1", chunks=(chunk,), compression="gzip")
    packer = zlib.compressobj(9)
    block = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    tokens.id.write_direct_chunk((0,), block)


def unknown_filter(file: h5py.File) -> None:
    del file["tokens"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((64,))
    plan.set_filter(40_000, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    space = h5py.h5s.create_simple((64,))
    h5py.h5d.create(file.id, b"tokens", h5py.h5t.NATIVE_UINT8, space, plan)


def references(kind: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        reference = file["keys"].ref if kind == "object" else file["keys"].regionref[:2]
        del file["tokens"]
        dtype = h5py.ref_dtype if kind == "object" else h5py.regionref_dtype
        tokens = file.create_dataset("tokens", (4,), dtype)
        tokens[0] = reference

    return change


def cycle(file: h5py.File) -> None:
    del file["tokens"]
    file.create_group("tokens")["round"] = file["/"]


def alias(file: h5py.File) -> None:
    del file["tokens"]
    file["tokens"] = file["conditions"]


def committed_type(file: h5py.File) -> None:
    file["conditions_type"] = np.dtype("u1")
    del file["tokens"]
    file.create_dataset("tokens", (8,), dtype=file["conditions_type"])


def many_attributes(file: h5py.File) -> None:
    for number in range(3000):
        file.attrs[f"a{number}"] = np.uint8(1)


def timed(file: h5py.File) -> None:
    data = file["tokens"][:]
    del file["tokens"]
    file.create_dataset("tokens", data=data, track_times=True)


def user_block(store: Path) -> None:
    relaid(store, bytes(512) + shard_bytes(store))


def cut_superblock(store: Path) -> None:
    content = bytearray(shard_bytes(store))
    content[50:96] = bytes(46)
    republish(store, bytes(content))


def foreign_fingerprint(content: bytearray, places: Places) -> None:
    at = content.index(b"fingerprint") + 40
    content[at - 8 : at + 56] = b"f" * 64


def same_node_twice(content: bytearray, places: Places) -> None:
    tree = places.address(places.tree)
    put(content, tree + 6, 2, form="H")
    put(content, tree + 48, places.node())


def continued_for_ever(content: bytearray, places: Places) -> None:
    """The fill message of /tokens becomes one that continues the header with itself."""
    header = places.header("tokens")
    messages = content[header + 16 : header + 16 + 256]
    # Shape, type (16 + 8 bytes each and more) stay; the layout gives way.
    at = header + 16 + messages.index(struct.pack("<HH", 8, 24))
    content[at : at + 32] = (
        struct.pack("<HHI", 16, 16, 0) + struct.pack("<QQ", header + 16, 256) + struct.pack("<HHI", 0, 0, 0)
    )
    put(content, header + 2, 6, form="H")


SHARD_ATTACKS = {
    # -- links, and bytes from elsewhere
    "external link": Attack(edited(external_link), VERIFY, "too many continuations|a link|link information"),
    "soft link": Attack(edited(soft_link), VERIFY, "a link to somewhere else"),
    "external storage": Attack(edited(external_storage), VERIFY, "external storage"),
    "virtual dataset": Attack(edited(virtual), VERIFY, "not a shard of this format"),
    "the same object under two names": Attack(edited(alias), VERIFY, "is linked 2 times"),
    "a group that holds the root": Attack(edited(cycle), VERIFY, "is a group|is linked 2 times"),
    # -- types
    "object references": Attack(edited(references("object")), VERIFY, "is a reference"),
    "region references": Attack(edited(references("region")), VERIFY, "is a reference"),
    "strings of variable length": Attack(
        tokens_as(data=["a", "b"], dtype=h5py.string_dtype()), VERIFY, "of variable length"
    ),
    "data of variable length": Attack(
        tokens_as(data=None, shape=(4,), dtype=h5py.vlen_dtype("u1")), VERIFY, "of variable length"
    ),
    "compound type": Attack(tokens_as(data=np.zeros(4, [("a", "u1"), ("b", "u1")])), VERIFY, "is compound"),
    "opaque type": Attack(tokens_as(data=np.zeros(4, "V3")), VERIFY, "is opaque"),
    "enumeration": Attack(
        tokens_as(data=None, shape=(4,), dtype=h5py.enum_dtype({"a": 1}, "u1")), VERIFY, "is an enumeration"
    ),
    "array type": Attack(
        tokens_as(data=None, shape=(4,), dtype=np.dtype(("u1", (1000, 1000)))),
        VERIFY,
        "type of another version",
    ),
    "fixed strings": Attack(tokens_as(data=np.zeros(4, "S7")), VERIFY, "is a string"),
    "big-endian numbers": Attack(tokens_as(data=np.zeros(4, ">u8")), VERIFY, "no type that shards hold"),
    "committed type": Attack(edited(committed_type), VERIFY, "shares a message|is linked 2 times"),
    "complex numbers": Attack(tokens_as(data=np.zeros(4, "c8")), VERIFY, "is compound|another version"),
    "wider type than said": Attack(tokens_as(data=np.zeros(4, "<u4")), VERIFY, "/tokens is <u4"),
    # -- layouts
    "chunked": Attack(tokens_as(chunks=(8,)), VERIFY, "is not contiguous"),
    "gzip": Attack(tokens_as(chunks=(8,), compression="gzip"), VERIFY, "a filter"),
    "decompression bomb": Attack(edited(bomb), VERIFY, "a filter"),
    "unknown filter": Attack(edited(unknown_filter), VERIFY, "a filter"),
    "a dataset that grows": Attack(tokens_as(maxshape=(None,), chunks=(8,)), VERIFY, "can grow"),
    "no dimensions": Attack(tokens_as(data=np.uint8(1)), VERIFY, "no plain shape"),
    "null dataspace": Attack(tokens_as(data=h5py.Empty("u1")), VERIFY, "no plain shape|not contiguous"),
    "five dimensions": Attack(tokens_as(data=np.zeros((1, 2, 1, 2, 1), "u1")), VERIFY, "no plain shape"),
    "two dimensions": Attack(tokens_as(data=np.zeros((4, 4), "u1")), VERIFY, r"/tokens is \|u1 \(4, 4\)"),
    "fill value": Attack(tokens_as(fillvalue=7), VERIFY, "fill value"),
    "no bytes": Attack(tokens_as(data=np.zeros(0, "u1")), VERIFY, "not a shard of this format"),
    # -- attributes and names
    "thousands of attributes": Attack(
        edited(many_attributes),
        VERIFY,
        "has [0-9,]+ bytes|continues|more than a symbol table|attribute information",
    ),
    "huge attribute": Attack(
        edited(lambda file: file.attrs.create("huge", np.zeros(60_000, "u1"))),
        VERIFY,
        "continues for|not a single value",
    ),
    "one more attribute": Attack(
        edited(lambda file: file.attrs.create("more", np.uint8(1))), VERIFY, "attributes .*more"
    ),
    "attribute of a dataset": Attack(
        edited(lambda file: file["tokens"].attrs.create("a", 1)), VERIFY, "is no plain dataset"
    ),
    "text of variable length as an attribute": Attack(
        edited(lambda file: file.attrs.create("codec", "float32")), VERIFY, "attribute 'codec'"
    ),
    "modification time": Attack(edited(timed), VERIFY, "a modification time"),
    "one more dataset": Attack(
        edited(lambda file: file.create_dataset("more", data=np.zeros(3, "u1"), track_times=False)),
        VERIFY,
        "datasets|fill value",
    ),
    "escape codes in a name": Attack(
        edited(lambda file: file.create_dataset("\x1b[2J", data=np.zeros(3, "u1"))),
        VERIFY,
        r"named '\\x1b\[2J'",
    ),
    "fingerprint of another store": Attack(
        patched(foreign_fingerprint), VERIFY, "of recipe ffffffffffffffff"
    ),
    "codec of another store": Attack(
        edited(lambda file: file.attrs.create("codec", np.bytes_(b"float16"))), VERIFY, "/values is <f4"
    ),
    # -- the file
    "superblock version 2": Attack(rewritten(libver=("v108", "v108")), VERIFY, "superblock version 2"),
    "superblock version 3": Attack(rewritten(libver=("v110", "latest")), VERIFY, "superblock version 3"),
    "pages and a free-space manager": Attack(
        rewritten(fs_strategy="page", fs_persist=True), VERIFY, "superblock version"
    ),
    "user block": Attack(user_block, VERIFY, "signature of HDF5"),
    "superblock cut off": Attack(cut_superblock, VERIFY, "not a shard of this format"),
    "superblock says more bytes": Attack(
        set_number(lambda p: 40, 1 << 40), VERIFY, "superblock says 1,099,511,627,776 bytes"
    ),
    "base address": Attack(set_number(lambda p: 24, 4096), VERIFY, "base address"),
    "driver block": Attack(set_number(lambda p: 48, 96), VERIFY, "driver"),
    "offsets of two bytes": Attack(set_number(lambda p: 13, 2, form="B"), VERIFY, "unusual sizes"),
    # -- numbers
    "bytes outside the file": Attack(
        set_number(lambda p: p.layout("tokens"), 1 << 40), VERIFY, "/tokens .*lies outside"
    ),
    "address that overflows": Attack(
        set_number(lambda p: p.layout("tokens"), NOWHERE - 8), VERIFY, "/tokens .*lies outside"
    ),
    "address of nothing": Attack(
        set_number(lambda p: p.layout("tokens"), NOWHERE), VERIFY, "/tokens .*lies outside"
    ),
    "bytes of another dataset": Attack(
        patched(lambda c, p: put(c, p.layout("tokens"), p.address(p.layout("conditions")))), VERIFY, "overlap"
    ),
    "bytes of the superblock": Attack(set_number(lambda p: p.layout("tokens"), 0), VERIFY, "overlap"),
    "huge shape": Attack(
        set_number(lambda p: p.shape("tokens"), 1 << 62, 1 << 62), VERIFY, "/tokens is .* bytes, expected"
    ),
    "huge shape and size": Attack(
        patched(
            lambda c, p: (
                put(c, p.shape("tokens"), 1 << 62, 1 << 62),
                put(c, p.layout("tokens") + 8, 1 << 62),
            )
        ),
        VERIFY,
        "/tokens .*lies outside",
    ),
    "negative size": Attack(
        set_number(lambda p: p.shape("tokens"), NOWHERE, NOWHERE), VERIFY, "/tokens is .* bytes, expected"
    ),
    "size zero": Attack(
        set_number(lambda p: p.shape("tokens"), 0, 0), VERIFY, "/tokens is .* bytes, expected 0"
    ),
    "huge element": Attack(
        set_number(lambda p: p.type("tokens") + 4, 1 << 31, form="I"), VERIFY, "no type that shards hold"
    ),
    "type of class 15": Attack(
        set_number(lambda p: p.type("tokens"), 0x1F, form="B"), VERIFY, "type of another version"
    ),
    "B-tree that holds itself": Attack(
        patched(lambda c, p: put(c, p.address(p.tree) + 32, p.address(p.tree))),
        VERIFY,
        "leads to no symbol node",
    ),
    "B-tree of 256 levels": Attack(
        set_number(lambda p: p.address(p.tree) + 5, 255, form="B"), VERIFY, "not a single leaf"
    ),
    "B-tree of 65,535 nodes": Attack(
        set_number(lambda p: p.address(p.tree) + 6, 65_535, form="H"), VERIFY, "not a single leaf"
    ),
    "B-tree with a neighbour": Attack(
        set_number(lambda p: p.address(p.tree) + 8, 4096), VERIFY, "not a single leaf"
    ),
    "node of 65,535 names": Attack(
        set_number(lambda p: p.node() + 6, 65_535, form="H"), VERIFY, "leads to no symbol node"
    ),
    "the same node twice": Attack(patched(same_node_twice), VERIFY, "stands twice"),
    "name outside the heap": Attack(set_number(lambda p: p.node() + 8, 1 << 40), VERIFY, "name lies outside"),
    "heap of 2^63 bytes": Attack(
        set_number(lambda p: p.address(p.heap) + 8, 1 << 63), VERIFY, "heap of names, or a huge one"
    ),
    "header of four gigabytes": Attack(
        set_number(lambda p: p.header("tokens") + 8, (1 << 32) - 1, form="I"),
        VERIFY,
        "the header of /tokens has",
    ),
    "header of 65,535 messages": Attack(
        set_number(lambda p: p.header("tokens") + 2, 65_535, form="H"), VERIFY, "messages, its header says"
    ),
    "header that continues in itself": Attack(
        patched(continued_for_ever), VERIFY, "ends outside the header of /tokens|overlap"
    ),
    "header of another version": Attack(
        set_number(lambda p: p.header("tokens"), 2, form="B"), VERIFY, "no object header of version 1"
    ),
    "message longer than its header": Attack(
        set_number(lambda p: p.header("tokens") + 18, 65_000, form="H"), VERIFY, "ends outside the header"
    ),
}
