"""safetensors files of our export, their header checked by ourselves before a byte of a tensor is read.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's length, JSON with type,
shape and place of each tensor, then the tensors end to end.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from featurestore import limits
from featurestore.corpora.corpus import Corpus
from featurestore.disk.strict_json import parse_json
from featurestore.errors import CorpusError, SentenceError, UsageError
from featurestore.exchange.incoming.arrays import FlatSource, Rows, require_offsets
from featurestore.exchange.incoming.source import Arrival, require_file
from featurestore.keys import sentence_key

_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "|u1"}
_MOST_HEADER_BYTES = 100_000_000
"""The format's own bound."""

_NEEDED = {
    "vectors": ("<f2", "<f4", "<f8"),
    "offsets": ("<i8",),
    "token_offsets": ("<i8",),
    "tokens": ("|u1",),
    "keys": ("|u1",),
}


class SafeTensors(FlatSource):
    """The file that our export writes."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        if corpus is not None:
            raise UsageError(f"{path} brings its sentences along: leave the corpus out")
        self.path = path
        header, start, n_bytes = _header(path)
        self.stated = _stated(header.pop("__metadata__", {}))
        opened = _tensors(path, header, start, n_bytes)
        self._opened = list(opened.values())
        self.rows, self._keys = opened["vectors"], opened["keys"]
        self._tokens, self._token_offsets = opened["tokens"], opened["token_offsets"]
        self.require_rows()
        with closing(opened["offsets"]) as offsets:
            self._offsets = offsets.read(0, len(offsets))
        if any(len(opened[name].shape) != 1 for name in ("offsets", "token_offsets", "tokens")):
            raise CorpusError("offsets, tokens and token_offsets: expected one dimension each", path=path)
        require_offsets(self._offsets, len(self.rows), path)
        self.n_stored = len(self._offsets) - 1
        if self._keys.shape != (self.n_stored, 16) or len(self._token_offsets) != len(self.rows) + 1:
            raise CorpusError(
                f"keys are {self._keys.shape}, token_offsets {self._token_offsets.shape}: expected "
                f"({self.n_stored}, 16) and ({len(self.rows) + 1},) of these offsets and vectors",
                path=path,
            )

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]

    def close(self) -> None:
        """Close the file."""
        for rows in self._opened:
            rows.close()

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences, their keys compared."""
        end = 0
        for number, (start, stop) in enumerate(itertools.pairwise(self._offsets.tolist())):
            place = f"{self.path}, sentence {number}"
            bounds = self._token_offsets.read(start, stop + 1)
            if bounds[0] != end or (bounds[1:] <= bounds[:-1]).any() or bounds[-1] > len(self._tokens):
                raise CorpusError(
                    f"the tokens of sentence {number} are not where they should be", path=self.path
                )
            end = int(bounds[-1])
            text = self._tokens.read(int(bounds[0]), end).tobytes()
            at = (bounds - bounds[0]).tolist()
            try:
                tokens = tuple(text[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(at))
                key = sentence_key(tokens)
            except (UnicodeDecodeError, SentenceError) as error:
                raise CorpusError(
                    f"sentence {number} has no tokens in UTF-8 ({error})", path=self.path
                ) from error
            if self._keys.read(number, number + 1).tobytes() != key:
                raise CorpusError(f"the key of sentence {number} is not that of its tokens", path=self.path)
            yield Arrival(tokens, start, place, str(self.path))


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return the header, where the tensors begin, and the size of the file."""
    n_bytes = require_file(path)
    with open(path, "rb") as file:
        raw = file.read(8)
        length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else n_bytes
        if length > min(_MOST_HEADER_BYTES, n_bytes - 8):
            raise CorpusError(
                f"is no safetensors file: a header of {length:,} bytes in a file of {n_bytes:,}", path=path
            )
        text = file.read(length)
    try:
        header = parse_json(text, most_values=1 << 20)
        if not isinstance(header, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise CorpusError(f"is no safetensors file: its header is damaged ({error})", path=path) from error
    return header, 8 + length, n_bytes


def _tensors(path: Path, header: dict[str, Any], start: int, n_bytes: int) -> dict[str, Rows]:
    """Return the tensors that an export has, after checking that all of the file's lie end to end."""
    places: list[tuple[int, int]] = []
    found: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
    try:
        for name, entry in header.items():
            dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            if any(type(n) is not int or n < 0 for n in (*shape, begin, end)) or len(shape) > 8:
                raise ValueError(f"{name} has impossible numbers")
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} is {entry['dtype']} {shape} in {end - begin:,} bytes")
            places.append((begin, end))
            found[name] = dtype, shape, begin
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorpusError(f"is no safetensors file of vectors: {error}", path=path) from error
    places.sort()
    edges = [0, *itertools.chain.from_iterable(places), n_bytes - start]
    if edges[0::2] != edges[1::2]:
        raise CorpusError("its tensors do not lie end to end up to the end of the file", path=path)
    opened: dict[str, Rows] = {}
    for name, types in _NEEDED.items():
        if name not in found or found[name][0].str not in types or not found[name][1]:
            raise CorpusError(
                f"has no tensor {name!r} as `featurestore export --to safetensors` writes it: of others' "
                "files save the vectors as .npy, and import them with their corpus",
                path=path,
            )
        dtype, shape, begin = found[name]
        opened[name] = Rows(path, dtype, shape, start + begin, n_bytes)
    return opened


def _stated(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        return {}
    stated: dict[str, Any] = {str(k)[:200]: str(v)[:65536] for k, v in metadata.items() if k != "origin"}
    origin = metadata.get("origin")
    if isinstance(origin, str) and len(origin) < limits.MAX_RECIPE_BYTES:
        try:
            stated["origin"] = parse_json(origin.encode(), most_values=limits.MAX_RECIPE_BYTES)
        except (ValueError, UnicodeEncodeError):
            stated["origin"] = json.dumps(origin)[:200]
    return stated
