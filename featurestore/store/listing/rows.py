"""Entries of shards as rows of fixed size, which NumPy reads a hundred thousand at a time.

A row says what an entry says, and no more: where its datasets lie follows from the counts, the codec and the
shape of the store's vectors, but for their offsets. Each row has a checksum, so that of a damaged list the
other rows can still be believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore import limits
from featurestore.errors import StoreError
from featurestore.keys import KEY_BYTES
from featurestore.store.format.codec import CodecError, get_codec
from featurestore.store.format.layout import ALIGNMENT, Extent, ShardEntry, datasets_of

DATASETS = (
    "checksums", "condition_offsets", "conditions", "keys", "norms", "offsets", "scales", "token_offsets",
    "tokens", "values",
)  # fmt: skip
"""Datasets of a shard, in the order of :data:`ROW`'s offsets; 0 for those that it does not have."""

CODECS = ("float32", "float16", "int8")
"""Codecs, in the order of their numbers in a row."""

ROW = np.dtype(
    [
        ("sha256", "u1", (32,)),
        ("head_sha256", "u1", (32,)),
        ("n_bytes", "<u8"),
        ("n_tokens", "<u8"),
        ("n_sentences", "<u4"),
        ("codec", "<u4"),
        ("offsets", "<u4", (len(DATASETS),)),
        ("token_bytes", "<u4"),
        ("condition_bytes", "<u4"),
        ("measured", "<u8"),
        ("error", "<f8", (4,)),
        ("check", "<u8"),
    ]
)
"""One shard, 184 bytes. ``measured`` and ``error`` are the fields of its CodecError, ``check`` is XXH3-64 of
the bytes before it."""

Rows = NDArray[np.void]

_CHECKED = ROW.itemsize - 8

_MOST_TOKENS = limits.MAX_HEAD_BYTES // 8
"""Tokens of a shard at most: its head has eight bytes for each."""


def rows_of(entries: Sequence[ShardEntry], token_shape: tuple[int, ...]) -> Rows:
    """Return entries as rows; (n,) ROW.

    Raises
    ------
    StoreError
        If an entry contradicts itself, so that a row cannot say the same.
    """
    rows = np.zeros(len(entries), ROW)
    for row, entry in zip(rows, entries, strict=True):
        try:
            _put(row, entry)
        except (KeyError, OverflowError, ValueError) as error:
            raise _contradictory(entry) from error
        if entry_of(row, token_shape) != entry:
            raise _contradictory(entry)
        row["check"] = xxhash.xxh3_64_intdigest(row.tobytes()[:_CHECKED])
    return rows


def entry_of(row: np.void, token_shape: tuple[int, ...]) -> ShardEntry:
    """Return the entry of a row.

    Parameters
    ----------
    row : ROW
    token_shape : tuple of int
        Of the store: ``(dim,)``, or ``(n_layers, dim)``.
    """
    (sha, head, n_bytes, n_tokens, n_sentences, codec, offsets, token_bytes, condition_bytes, measured, error,
     _) = row.tolist()  # fmt: skip
    # A tuple's arrays come as arrays, not as lists.
    at = dict(zip(DATASETS, np.asarray(offsets).tolist(), strict=True))
    name = CODECS[codec]
    datasets = datasets_of(n_sentences, n_tokens, name, token_shape, token_bytes, condition_bytes or None)
    return ShardEntry(
        sha256=bytes(sha).hex(),
        head_sha256=bytes(head).hex(),
        n_bytes=n_bytes,
        n_sentences=n_sentences,
        n_tokens=n_tokens,
        codec=name,
        error=CodecError(measured, *np.asarray(error).tolist()),
        extents={each: Extent(at[each], dtype, shape) for each, (dtype, shape) in datasets.items()},
    )


def problem_of(rows: Rows) -> str:
    """Return what no row of a list may say, or an empty string."""
    for name, least, most in (
        ("n_bytes", 0, limits.MAX_SHARD_BYTES),
        ("n_tokens", 0, limits.MAX_COUNT),
        ("n_sentences", 0, limits.MAX_SHARD_SENTENCES),
        ("codec", 0, len(CODECS) - 1),
        ("measured", 0, limits.MAX_COUNT),
    ):
        column = rows[name]
        wrong = np.flatnonzero((column < least) | (column > most))
        if len(wrong):
            value = int(column[wrong[0]])
            return f"{name} of row {wrong[0]:,} is {value:,}, expected {least} to {most:,}"
    wrong = np.flatnonzero(~np.isfinite(rows["error"]).all(1))
    if len(wrong):
        return f"the error of row {wrong[0]:,} is not finite"
    return ""


def contradictory(rows: Rows, token_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which rows a reader would refuse, or might: their datasets overlap, or lie elsewhere; (n,) bool.

    What :func:`~featurestore.store.format.layout.check_extents` finds, of all rows at once.
    """
    n_sentences, n_tokens = rows["n_sentences"].astype(np.int64), rows["n_tokens"].astype(np.int64)
    offsets, codecs = rows["offsets"].astype(np.int64), rows["codec"]
    width = math.prod(token_shape)
    itemsize = np.array([np.dtype(get_codec(name).value_dtype).itemsize for name in CODECS])[codecs]
    is_int8, has_conditions = codecs == CODECS.index("int8"), rows["condition_bytes"] > 0
    sizes = {
        "checksums": 8 * n_sentences,
        "condition_offsets": np.where(has_conditions, 8 * (n_sentences + 1), 0),
        "conditions": rows["condition_bytes"].astype(np.int64),
        "keys": KEY_BYTES * n_sentences,
        "norms": np.where(is_int8, 4 * width, 0),
        "offsets": 8 * (n_sentences + 1),
        "scales": np.where(is_int8, 4 * n_tokens * (width // token_shape[-1]), 0),
        "token_offsets": 8 * (n_tokens + 1),
        "tokens": rows["token_bytes"].astype(np.int64),
    }
    absent = np.zeros((len(rows), len(sizes)), bool)
    for column, name in enumerate(sizes):
        if name.startswith("condition"):
            absent[:, column] = ~has_conditions
        elif name in ("norms", "scales"):
            absent[:, column] = ~is_int8
    values = offsets[:, -1]
    starts = np.where(absent, values[:, None], offsets[:, :-1])
    ends = starts + np.stack(list(sizes.values()), axis=1)
    order = np.lexsort((ends, starts), axis=1)
    ordered_starts, ordered_ends = (np.take_along_axis(each, order, axis=1) for each in (starts, ends))
    wrong: NDArray[np.bool_] = (
        (n_sentences < 1)
        | (n_tokens > _MOST_TOKENS)  # more do not fit a shard, and would overflow here
        | (offsets[:, :-1][:, :] * absent != 0).any(axis=1)
        | (ordered_ends[:, :-1] > ordered_starts[:, 1:]).any(axis=1)
        | (ends > values[:, None]).any(axis=1)
        | (values > limits.MAX_HEAD_BYTES)
        | (values % ALIGNMENT != 0)
        | (values + n_tokens * width * itemsize != rows["n_bytes"].astype(np.int64))
    )
    return wrong


def intact(rows: Rows) -> NDArray[np.bool_]:
    """Return which rows have the checksum that was written with them; (n,) bool."""
    raw, size = rows.tobytes(), ROW.itemsize
    found = [xxhash.xxh3_64_intdigest(raw[start : start + _CHECKED]) for start in range(0, len(raw), size)]
    same: NDArray[np.bool_] = np.array(found, np.uint64) == rows["check"]
    return same


def names_of(rows: Rows) -> NDArray[np.uint8]:
    """Return the first 16 bytes of each shard's hash, which name its file; (n, 16) uint8."""
    return np.ascontiguousarray(rows["sha256"][:, :16])


def _put(row: np.void, entry: ShardEntry) -> None:
    extents = entry.extents
    row["sha256"] = np.frombuffer(bytes.fromhex(entry.sha256), np.uint8)
    row["head_sha256"] = np.frombuffer(bytes.fromhex(entry.head_sha256), np.uint8)
    row["n_bytes"], row["n_tokens"], row["n_sentences"] = entry.n_bytes, entry.n_tokens, entry.n_sentences
    row["codec"] = CODECS.index(entry.codec)
    row["offsets"] = [extents[name].offset if name in extents else 0 for name in DATASETS]
    row["token_bytes"] = extents["tokens"].n_bytes
    row["condition_bytes"] = extents["conditions"].n_bytes if "conditions" in extents else 0
    error = entry.error
    row["measured"] = error.n_tokens
    row["error"] = (error.squared_error, error.squared_norm, error.max_abs, error.cosine_distance)


def _contradictory(entry: ShardEntry) -> StoreError:
    return StoreError(
        f"the entry of shard {entry.name} contradicts itself, and no list can hold it: run `featurestore "
        "verify`, which says what is wrong with it"
    )
