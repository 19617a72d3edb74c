"""Hostile files of vectors: refused with one error, at little cost, and nothing outside them is read."""

from __future__ import annotations

import json
import os
import resource
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurestore import Store
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.errors import AlignmentError, CorpusError, FeaturestoreError
from featurestore.exchange.exporting import export
from featurestore.exchange.importing import import_vectors
from tests.kit.stores import create, fill, sentences, vectors_of

WORDS = sentences(6)
SECRET = "secret"


def refused(path, format, into, corpus=None, says="", error=(CorpusError, AlignmentError)):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=says or None) as caught:
        import_vectors(
            path, format, into, note="x", corpus=None if corpus is None else corpus_from_sentences(corpus)
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert SECRET not in str(caught.value)
    assert not Store.exists(into) or not len(Store.open(into))


# -- HDF5


def external_link(file, outside):
    file["1"] = h5py.ExternalLink(str(outside), "/1")


def soft_link(file, outside):
    file["1"] = h5py.SoftLink("/0")


def external_storage(file, outside):
    file.create_dataset("1", (2, 8), "f4", external=[(str(outside), 0, 64)])


def virtual(file, outside):
    layout = h5py.VirtualLayout((2, 8), "f4")
    layout[:] = h5py.VirtualSource(str(outside), "1", shape=(2, 8))
    file.create_virtual_dataset("1", layout)


def bomb(file, outside):
    rows = 1 << 20
    dataset = file.create_dataset("1", (rows, 1024), "f4", chunks=(1 << 12, 1024), compression="gzip")
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(1 << 24)) + packer.flush()
    for start in range(0, rows, 1 << 12):
        dataset.id.write_direct_chunk((start, 0), block)


def huge_chunk(file, outside):
    dataset = file.create_dataset(
        "1", (2, 8), "f4", maxshape=(None, None), chunks=(1 << 14, 1 << 14), compression="gzip"
    )
    dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(64)))


def never_written(file, outside):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple((1 << 19, 1 << 16))
    h5py.h5d.create(file.id, b"1", h5py.h5t.IEEE_F32LE, space, plan)


def unknown_filter(file, outside):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((2, 8))
    plan.set_scaleoffset(h5py.h5z.SO_FLOAT_DSCALE, 3)
    h5py.h5d.create(file.id, b"1", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2, 8)), plan)
    file["1"][...] = 0


def group(file, outside):
    file.create_group("1/2")


def text(file, outside):
    file.create_dataset("1", (2,), h5py.string_dtype())[...] = SECRET


def references(file, outside):
    file.create_dataset("1", (2, 8), h5py.ref_dtype)[...] = file["0"].ref


def integers(file, outside):
    file["1"] = np.zeros((2, 8), "u2")


def compound(file, outside):
    file["1"] = np.zeros((2, 8), [("a", "f4"), ("b", "f4")])


def one_vector(file, outside):
    file["1"] = np.zeros(8, "f4")


def other_width(file, outside):
    file["1"] = vectors_of(WORDS[1], dim=9)


HDF5 = [external_link, soft_link, external_storage, virtual, bomb, huge_chunk, never_written, unknown_filter,
        group, text, references, integers, compound, one_vector, other_width]  # fmt: skip


@pytest.mark.parametrize("harm", HDF5, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("format", ["bilm-tf", "elmoformanylangs"])
def test_hdf5(tmp_path, format, harm):
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["1"] = vectors_of(WORDS[1])
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["0"] = vectors_of(WORDS[0])
        harm(file, outside)
        if format == "elmoformanylangs":
            for name, tokens in (("0", WORDS[0]), ("1", WORDS[1])):
                file.move(name, "\t".join(tokens))
    refused(tmp_path / "x.hdf5", format, tmp_path / "store", WORDS[:2])


def test_a_cut_file_and_what_is_no_file(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for number, tokens in enumerate(WORDS):
            file[str(number)] = vectors_of(tokens)
    whole = path.read_bytes()
    for size in (0, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, "bilm-tf", tmp_path / "store", WORDS, "not a complete HDF5 file")
    os.mkfifo(tmp_path / "pipe")
    for format in ("bilm-tf", "npy", "safetensors"):
        refused(tmp_path / "pipe", format, tmp_path / "store", None, "expected a file", FeaturestoreError)


@pytest.mark.parametrize(
    "index",
    ["", "[]", '{"a": "0", "a": "1"}', '{"a": "-1"}', '{"a": {}}', '{"a": "0"', "[" * 100_000, '{"": "0"}'],
    ids=range(8),
)
def test_sentence_to_index(tmp_path, index):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["0"] = vectors_of(WORDS[0])
        file.create_dataset("sentence_to_index", (1,), h5py.string_dtype())[0] = index
    refused(tmp_path / "x.hdf5", "allennlp-hdf5", tmp_path / "store")


# -- npy


class Attack:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['MARK']}",)


def header(shape="(14, 8)", descr="'<f4'", fortran="False", version=b"\1\0") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text) + 1) + text + b"\n"


def test_no_pickle_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    np.save(tmp_path / "x.npy", np.array([[Attack()]], object), allow_pickle=True)
    refused(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS, "Python objects are never read")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\x93NUMPY", header("(1 << 60, 8)"), header("(10**15, 8)"), header("(-1, 8)"),
        header("(14, -8)"),
        header("(True, 8)"), header("()"), header("(14,)"), header("(14, 0)"), header("(14, 1, 1, 8)"),
        header(fortran="True"), header(descr="'<i4'"), header(descr="'|O'"), header(descr="[('a', '<f4')]"),
        header(descr="'<f16'"), header(descr="'>f3'"), header(version=b"\3\0"), header("__import__('os')"),
        header("(" * 500 + ")" * 500),
    ],
    ids=range(20),
)  # fmt: skip
def test_npy(tmp_path, head):
    (tmp_path / "x.npy").write_bytes(head + bytes(14 * 8 * 4))
    refused(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    store = fill(create(folder / "store"), WORDS)
    export(store, folder / "out", "npy")
    export(store, folder / "out.safetensors", "safetensors")
    return folder


@pytest.mark.parametrize(
    "offsets", [[0, 1], [0, 3, 2, 5, 9, 10, 11], [1, 2, 3, 4, 5, 6, 7], [0, 1, 3, 6, 10, 15, 1 << 62], []]
)
def test_offsets_of_the_folder(tmp_path, exported, offsets):
    for name in ("vectors.npy", "sentences.jsonl"):
        (tmp_path / name).write_bytes((exported / "out" / name).read_bytes())
    np.save(tmp_path / "offsets.npy", np.array(offsets, np.int64))
    refused(tmp_path, "npy", tmp_path / "store")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{}",
        '{"tokens": []}',
        '{"tokens": "abc"}',
        '{"tokens": [1]}',
        '{"tokens": ["a"], "key": "0"}',
    ],
)
def test_sentences_of_the_folder(tmp_path, exported, line):
    for name in ("vectors.npy", "offsets.npy"):
        (tmp_path / name).write_bytes((exported / "out" / name).read_bytes())
    lines = (exported / "out" / "sentences.jsonl").read_text().splitlines()
    (tmp_path / "sentences.jsonl").write_text("\n".join([line, *lines[1:]]))
    refused(tmp_path, "npy", tmp_path / "store")


# -- safetensors


def edit(exported, change) -> bytes:
    raw = (exported / "out.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8 : 8 + length])
    body = bytearray(raw[8 + length :])
    change(head, body)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def put(name, position, value):
    def change(head, body):
        start = head[name]["data_offsets"][0] + position
        body[start : start + len(value)] = value

    return change


def field(name, key, value):
    return lambda head, body: head[name].__setitem__(key, value)


EDITS = {
    "a type that is none": field("vectors", "dtype", "BF16"),
    "integers": field("vectors", "dtype", "I32"),
    "another shape": field("vectors", "shape", [1 << 40, 8]),
    "a negative shape": field("vectors", "shape", [-14, -8]),
    "a shape of floats": field("vectors", "shape", [14.0, 8]),
    "beyond the file": field("vectors", "data_offsets", [0, 1 << 60]),
    "backwards": field("vectors", "data_offsets", [448, 0]),
    "twice the same place": lambda head, body: head.update(more=dict(head["keys"])),
    "a missing tensor": lambda head, body: head.pop("keys"),
    "bytes behind": lambda head, body: body.extend(b"x"),
    "cut": lambda head, body: body.__delitem__(slice(-1, None)),
    "offsets that go back": put("offsets", 8, struct.pack("<q", 100)),
    "tokens elsewhere": put("token_offsets", 8, struct.pack("<q", 1 << 40)),
    "a negative token": put("token_offsets", 0, struct.pack("<q", -5)),
    "another key": put("keys", 0, b"\0\0\0\0"),
    "not UTF-8": put("tokens", 0, b"\xff\xfe"),
    "no tensors": lambda head, body: head.clear(),
}


@pytest.mark.parametrize("name", EDITS)
def test_safetensors(tmp_path, exported, name):
    (tmp_path / "x").write_bytes(edit(exported, EDITS[name]))
    refused(tmp_path / "x", "safetensors", tmp_path / "store")


@pytest.mark.parametrize("raw", [b"", b"\0" * 7, struct.pack("<Q", 1 << 63), struct.pack("<Q", 2) + b"[]",
                                 struct.pack("<Q", 200_000) + b"[" * 200_000])  # fmt: skip
def test_safetensors_headers(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    refused(tmp_path / "x", "safetensors", tmp_path / "store")
