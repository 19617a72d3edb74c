"""HDF5 files of vectors from strangers: which parts of HDF5 such a file may use, and nothing beyond.

A dataset is reached by hard links alone, lies in the file as a whole, and is packed by nothing but gzip, LZF,
shuffle and Fletcher32. So reading follows no link out of the file, loads no filter, and allocates no more
than a bounded multiple of what is stored.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.errors import CorpusError
from featurestore.exchange.incoming.source import require_file, require_shape

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
_MOST_PACKED = 256
"""Bytes that a stored byte may unpack to: zeros take more, vectors never."""

_SMALL_BYTES = 1 << 20
_CACHE_BYTES = 1 << 20
_MOST_CHUNK_BYTES = 1 << 30
_MOST_ATTRIBUTES, _MOST_ATTRIBUTE_BYTES = 32, 1 << 16
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)
"""What h5py raises of a damaged file."""


class VectorFile:
    """An HDF5 file of one dataset a sentence.

    Parameters
    ----------
    path : Path

    Raises
    ------
    CorpusError
        If it is not an HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.n_bytes = path, require_file(path)
        try:
            self._file = h5py.File(path, "r", locking=False)
            self._limit_cache()
            self._links = self._file.id.links
            self.n_names = int(self._file.id.get_num_objs())
        except _BROKEN as error:
            raise CorpusError(f"is not a complete HDF5 file ({_first_line(error)})", path=path) from error

    def _limit_cache(self) -> None:
        """Let HDF5 keep few of the names and headers that it has read: by itself it keeps ever more of them."""
        config = self._file.id.get_mdc_config()
        config.set_initial_size = True
        config.initial_size = config.min_size = _CACHE_BYTES
        config.max_size = 2 * _CACHE_BYTES
        self._file.id.set_mdc_config(config)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def names(self) -> list[str]:
        """Return the names in the root, in the file's order."""
        try:
            return list(self._file)
        except _BROKEN as error:
            raise self._damaged("the list of names", error) from error

    def has(self, name: str) -> bool:
        """Return whether there is something of a name; ``/`` leads into groups, as in HDF5."""
        return self._find(name) is not None

    def vectors(self, name: str) -> NDArray[np.floating]:
        """Return a dataset of two or three dimensions, as it is stored.

        Raises
        ------
        CorpusError
            If there is none of that name, it is not one of floats, or uses more of HDF5 than it may.
        """
        dataset = self._dataset(name)
        try:
            values: NDArray[np.floating] = dataset[()]
        except _BROKEN as error:
            raise self._damaged(f"dataset {name[:80]!r}", error) from error
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a dataset of vectors, checked as :meth:`vectors` does."""
        return tuple(self._dataset(name).shape)

    def is_text(self, name: str) -> bool:
        """Return whether there is a dataset of that name that is not one of numbers."""
        found = self._find(name)
        return found is not None and found.dtype.kind not in "iufc"

    def text(self, name: str) -> str | None:
        """Return a dataset that is one string, None if there is none of that name."""
        found = self._find(name)
        if found is None:
            return None
        self._require_plain(found, name)
        if h5py.check_string_dtype(found.dtype) is None or found.shape not in ((), (1,)):
            raise CorpusError(f"{name} is not one string ({found.dtype}, {found.shape})", path=self.path)
        try:
            value = found[()] if found.shape == () else found[0]
            return bytes(value).decode("utf-8") if isinstance(value, bytes) else str(value)
        except _BROKEN as error:
            raise self._damaged(name, error) from error

    def attributes(self, name: str | None = None) -> dict[str, Any]:
        """Return the attributes of the file, or of a dataset, as JSON values; large ones by their type."""
        found = self._file if name is None else self._find(name)
        stated: dict[str, Any] = {}
        if found is None:
            return stated
        try:
            for number in range(min(h5py.h5a.get_num_attrs(found.id), _MOST_ATTRIBUTES)):
                attribute = h5py.h5a.open(found.id, index=number)
                key = attribute.name.decode("utf-8", "replace")[:200]
                size = attribute.get_storage_size() if attribute.shape is not None else 0
                if size > _MOST_ATTRIBUTE_BYTES or attribute.dtype.kind not in "iufbSO":
                    stated[key] = f"({attribute.dtype}, {size:,} bytes)"
                    continue
                stated[key] = _plain(found.attrs[attribute.name.decode("utf-8")])
        except (*_BROKEN, UnicodeDecodeError) as error:
            raise self._damaged("an attribute", error) from error
        return stated

    def _find(self, name: str) -> h5py.Dataset | None:
        """Return what has a name, None if nothing has; every step of the way must be a hard link."""
        here = self._file.id
        try:
            steps = [part for part in name.split("/") if part not in ("", ".")]
            for number, part in enumerate(steps):
                step = part.encode("utf-8", "surrogateescape")
                if b"\0" in step or not here.links.exists(step):
                    return None
                if here.links.get_info(step).type != h5py.h5l.TYPE_HARD:
                    raise CorpusError(
                        f"{name[:80]!r} is a link to somewhere else, which is refused: copy the data into "
                        "the file",
                        path=self.path,
                    )
                here = h5py.h5o.open(here, step)
                if number < len(steps) - 1 and not isinstance(here, h5py.h5g.GroupID):
                    return None
        except _BROKEN as error:
            raise self._damaged(f"{name[:80]!r}", error) from error
        return h5py.Dataset(here) if isinstance(here, h5py.h5d.DatasetID) else None

    def _dataset(self, name: str) -> h5py.Dataset:
        found = self._find(name)
        if found is None:
            raise CorpusError(f"there is no dataset {name[:80]!r}", path=self.path)
        shown = f"dataset {name[:80]!r}"
        try:
            if found.shape is None:
                raise CorpusError(f"{shown} is empty", path=self.path)
            require_shape(self.path, shown, tuple(found.shape), found.dtype)
            self._require_plain(found, name)
            n_bytes, stored = math.prod(found.shape) * found.dtype.itemsize, found.id.get_storage_size()
        except _BROKEN as error:
            raise self._damaged(shown, error) from error
        most = stored if found.chunks is None else _MOST_PACKED * stored + (_SMALL_BYTES if stored else 0)
        if n_bytes > most or stored > self.n_bytes or max(found.shape) > limits.MAX_SENTENCE_TOKENS:
            raise CorpusError(
                f"{shown} is {found.dtype} {found.shape}, {n_bytes:,} bytes, but the file holds {stored:,} "
                "for it: it was not written to its end, or is no file of vectors",
                path=self.path,
            )
        return found

    def _require_plain(self, found: h5py.Dataset, name: str) -> None:
        plan = found.id.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
            raise CorpusError(
                f"the data of {name[:80]!r} lie outside the file, which is refused: copy them into it",
                path=self.path,
            )
        used = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if used - _FILTERS:
            raise CorpusError(
                f"{name[:80]!r} is packed by filter {min(used - _FILTERS)}: expected none, gzip, lzf, "
                "shuffle or fletcher32 (h5repack -f NONE unpacks it)",
                path=self.path,
            )
        if found.chunks is None:
            return
        n_chunk = math.prod(found.chunks) * found.dtype.itemsize
        most = min(_MOST_CHUNK_BYTES, max(_SMALL_BYTES, 4 * found.nbytes))
        if n_chunk > most:
            raise CorpusError(
                f"{name[:80]!r} has chunks of {n_chunk:,} bytes, expected at most {most:,} (h5repack -l CONTI"
                " stores it in one piece)",
                path=self.path,
            )
        n_chunks = math.prod(-(-size // chunk) for size, chunk in zip(found.shape, found.chunks, strict=True))
        if found.id.get_num_chunks() != n_chunks:
            raise CorpusError(
                f"{name[:80]!r} has {found.id.get_num_chunks():,} of its {n_chunks:,} chunks: it was not "
                "written to its end",
                path=self.path,
            )

    def _damaged(self, what: str, error: BaseException) -> CorpusError:
        return CorpusError(
            f"{what} cannot be read, the file is damaged ({_first_line(error)})", path=self.path
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")[:_MOST_ATTRIBUTE_BYTES]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()[:_MOST_ATTRIBUTE_BYTES]
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "iufb":
        listed = value.tolist()
        return listed if np.isfinite(value).all() else str(listed)
    if isinstance(value, np.bytes_ | np.ndarray):
        return str(value)[:_MOST_ATTRIBUTE_BYTES]
    return f"({type(value).__name__})"
