"""NumPy arrays and safetensors: all vectors end to end, with offsets, tokens and labels.

``npy`` is a folder: ``vectors.npy`` (n_tokens, [n_layers,] dim), ``offsets.npy`` (n_sentences + 1,) int64,
``sentences.jsonl`` with tokens, key and labels, ``origin.json``. ``safetensors`` is one file (format of
https://github.com/huggingface/safetensors): ``vectors``, ``offsets``, ``tokens`` (their UTF-8 bytes end to
end) with ``token_offsets``, ``keys``, ``labels`` (a line of JSON a sentence), and the origin as metadata.
Sentence ``i`` is rows ``offsets[i]`` to ``offsets[i + 1]``.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from featurestore.corpora.contract.example import IGNORED, Labels
from featurestore.exchange.origin import origin, origin_text
from featurestore.exchange.sentences import Exported, ExportedSentence
from featurestore.keys import token_bytes

_HEADER_ROOM = 2048 - 8
"""Bytes for the tensors' names, types, shapes and places; the header is padded with spaces to its size."""

_SAFETENSORS = {"float16": "F16", "float32": "F32", "int64": "I64", "uint8": "U8"}


def plain_labels(labels: Labels | int) -> Any:
    """Return labels as JSON holds them: null for a token whose label is ignored."""
    if labels is None or isinstance(labels, (str, int)):
        return labels
    return [None if label is IGNORED else label for label in labels]


def write_npy(exported: Exported, path: Path, step: Any) -> None:
    """Write a folder of arrays; ``step`` is called with each sentence written."""
    path.mkdir()
    offsets = [0]
    with open(path / "vectors.npy", "xb") as vectors, open(path / "sentences.jsonl", "xb") as sentences:
        shape = (exported.n_tokens, *exported.token_shape)
        header = {"descr": exported.value_type.newbyteorder("<").str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(vectors, header)
        for sentence in exported:
            vectors.write(np.ascontiguousarray(sentence.vectors, exported.value_type.newbyteorder("<")).data)
            sentences.write(_line(sentence))
            offsets.append(offsets[-1] + len(sentence.tokens))
            step(sentence)
    with open(path / "offsets.npy", "xb") as file:
        np.lib.format.write_array(file, np.array(offsets, "<i8"), allow_pickle=False)
    with open(path / "origin.json", "xb") as file:
        file.write(json.dumps(origin(exported), indent=1, sort_keys=True).encode() + b"\n")


def _line(sentence: ExportedSentence) -> bytes:
    record = {"key": sentence.key.hex(), "tokens": list(sentence.tokens)}
    if sentence.labels is not None:
        record["labels"] = plain_labels(sentence.labels)
    return json.dumps(record).encode() + b"\n"


def write_safetensors(exported: Exported, path: Path, step: Any) -> None:
    """Write one safetensors file, the vectors as they come; ``step`` is called with each sentence written."""
    metadata = {"format": "np", "origin": origin_text(exported)}
    room = len(json.dumps(metadata)) + _HEADER_ROOM
    value_type = exported.value_type.newbyteorder("<")
    n_sentences, n_tokens = exported.counts
    with open(path, "xb") as file, ExitStack() as stack:
        file.write(bytes(8 + room))
        names = ("offsets", "keys", "tokens", "token_offsets", "labels")
        parts = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in names}
        _put(parts["offsets"], 0)
        _put(parts["token_offsets"], 0)
        n_seen = n_bytes = 0
        for sentence in exported:
            file.write(np.ascontiguousarray(sentence.vectors, value_type).data)
            encoded = token_bytes(sentence.tokens)
            n_seen += len(encoded)
            ends = n_bytes + np.cumsum(list(map(len, encoded)), dtype="<i8")
            n_bytes = int(ends[-1])
            parts["tokens"].write(b"".join(encoded))
            parts["token_offsets"].write(ends.tobytes())
            parts["keys"].write(sentence.key)
            _put(parts["offsets"], n_seen)
            if sentence.labels is not None:
                parts["labels"].write(json.dumps(plain_labels(sentence.labels)).encode() + b"\n")
            step(sentence)
        n_label_bytes = parts["labels"].tell()
        shapes: dict[str, tuple[str, list[int]]] = {
            "vectors": (value_type.name, [n_tokens, *exported.token_shape]),
            "offsets": ("int64", [n_sentences + 1]),
            "token_offsets": ("int64", [n_tokens + 1]),
            "keys": ("uint8", [n_sentences, 16]),
            "tokens": ("uint8", [n_bytes]),
        }
        if n_label_bytes:
            shapes["labels"] = ("uint8", [n_label_bytes])
        header: dict[str, Any] = {"__metadata__": metadata}
        end = 0
        for name, (dtype, shape) in shapes.items():
            begin, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
            header[name] = {"dtype": _SAFETENSORS[dtype], "shape": shape, "data_offsets": [begin, end]}
            if name != "vectors":
                parts[name].seek(0)
                shutil.copyfileobj(parts[name], file)
        text = json.dumps(header).encode()
        file.seek(0)
        file.write(struct.pack("<Q", room) + text.ljust(room))


def _put(file: IO[bytes], number: int) -> None:
    file.write(struct.pack("<q", number))
