"""Files of lists: immutable, named by their hash, read whole and believed only if no byte differs."""

from __future__ import annotations

import errno
import hashlib
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurestore.disk.storage import Storage
from featurestore.disk.temporary import temporary_name
from featurestore.errors import DamagedStoreError
from featurestore.store.format.access import refuse_unreadable
from featurestore.store.format.layout import NAME_DIGITS
from featurestore.store.listing.rows import ROW, Rows, intact, problem_of

logger = logging.getLogger(__name__)

LISTS = "lists"
"""Directory of a store."""

_MAGIC = b"FSLIST02"
_HEADER = struct.Struct("<8sQII32s8x")


@dataclass(frozen=True)
class Kind:
    """What all shards of a store have in common; a list says it, so that no other store's is taken for it.

    Attributes
    ----------
    fingerprint : str
        Of the recipe.
    token_shape : tuple of int
        ``(dim,)``, or ``(n_layers, dim)``.
    """

    fingerprint: str
    token_shape: tuple[int, ...]

    def header(self, n_shards: int) -> bytes:
        """Return the beginning of the file of a list."""
        n_layers = self.token_shape[0] if len(self.token_shape) > 1 else 1
        recipe = bytes.fromhex(self.fingerprint)
        return _HEADER.pack(_MAGIC, n_shards, n_layers, self.token_shape[-1], recipe)


@dataclass(frozen=True)
class Reference:
    """A list as a manifest names it.

    Attributes
    ----------
    sha256 : str
        Of the whole file; its first 32 digits name it.
    n_shards : int
        Shards in the list.
    n_sentences, n_tokens, n_bytes : int
        Of these shards together.
    """

    sha256: str
    n_shards: int
    n_sentences: int
    n_tokens: int
    n_bytes: int

    @property
    def name(self) -> str:
        """File name in ``lists/``: hexadecimal digits, so never a path."""
        return f"{self.sha256[:NAME_DIGITS]}.list"

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return _HEADER.size + self.n_shards * ROW.itemsize


def list_file(rows: Rows, kind: Kind) -> tuple[Reference, list[bytes]]:
    """Return the reference to a list, and the parts of its file."""
    parts = [kind.header(len(rows)), rows.tobytes()]
    digest = hashlib.sha256(parts[0])
    digest.update(parts[1])
    return Reference(digest.hexdigest(), len(rows), *totals(rows)), parts


def totals(rows: Rows) -> tuple[int, int, int]:
    """Return the sentences, tokens and bytes of shards together."""
    return (
        int(rows["n_sentences"].sum(dtype=np.uint64)),
        int(rows["n_tokens"].sum(dtype=np.uint64)),
        int(rows["n_bytes"].sum(dtype=np.uint64)),
    )


class Lists:
    """The lists of a store, in its directory.

    Parameters
    ----------
    store : Path
    filesystem : Storage
    """

    def __init__(self, store: Path, filesystem: Storage) -> None:
        self._store, self._filesystem = store.absolute(), filesystem

    def path(self, reference: Reference) -> Path:
        """Return where a list lies."""
        return self._store / LISTS / reference.name

    def read(self, reference: Reference, kind: Kind) -> Rows:
        """Return the rows of a list.

        Raises
        ------
        DamagedStoreError
            If it is missing, not what was written, or of another kind of store.
        UnreadableStoreError
            If this process may not open it.
        """
        raw = self._content(reference)
        found = hashlib.sha256(raw).hexdigest()
        if found != reference.sha256:
            raise self._damaged(reference, f"has hash {found[:16]}..., expected {reference.sha256[:16]}...")
        if raw[: _HEADER.size] != kind.header(reference.n_shards):
            raise self._damaged(reference, f"is not of {reference.n_shards:,} shards of this store's recipe")
        rows = np.frombuffer(raw, ROW, offset=_HEADER.size)
        problem = problem_of(rows)
        if not problem and totals(rows) != (reference.n_sentences, reference.n_tokens, reference.n_bytes):
            problem = "the shards do not add up to what the manifest says"
        if problem:
            raise self._damaged(reference, f"cannot be: {problem}")
        return rows

    def salvaged(self, reference: Reference) -> Rows:
        """Return the rows of a damaged list whose own checksums are right, in their order."""
        try:
            raw = self._content(reference, damaged=True)
        except DamagedStoreError:
            return np.empty(0, ROW)
        n_rows = max(0, len(raw) - _HEADER.size) // ROW.itemsize
        rows = np.frombuffer(raw, ROW, n_rows, _HEADER.size) if n_rows else np.empty(0, ROW)
        kept: Rows = rows[intact(rows)]
        return kept[:0] if problem_of(kept) else kept

    def write(self, reference: Reference, parts: list[bytes], temporary: Path) -> None:
        """Put a list into the store, complete and synced, and never over a sound one.

        Parameters
        ----------
        reference : Reference
        parts : list of bytes
            Of its file, end to end.
        temporary : Path
            Directory for the file until it is complete.

        Raises
        ------
        StoreWriteError
            If the disk is full or failing.
        """
        target = self.path(reference)
        self._filesystem.make_directory(target.parent)
        file = temporary / temporary_name(".list")
        with self._filesystem.temporary_file(file, parts, name=target):
            # The name is the hash, so a file of that name is this list, or was damaged since.
            if not self._filesystem.link_new(file, target) and not self._is_sound(reference):
                logger.warning("replacing the damaged file %s", target)
                self._filesystem.replace(file, target)

    def _is_sound(self, reference: Reference) -> bool:
        try:
            return hashlib.sha256(self._content(reference)).hexdigest() == reference.sha256
        except DamagedStoreError:
            return False

    def _content(self, reference: Reference, *, damaged: bool = False) -> bytes:
        path = self.path(reference)
        try:
            file = self._filesystem.open(path)
            n_bytes = file.n_bytes
            if n_bytes != reference.file_bytes and not damaged:
                raise self._damaged(reference, f"has {n_bytes:,} bytes, expected {reference.file_bytes:,}")
            raw = file.read(0, min(n_bytes, reference.file_bytes))
        except OSError as error:
            is_gone = error.errno in (errno.ENOENT, errno.ESTALE)
            if not is_gone:
                refuse_unreadable(path, error)
            raise self._damaged(
                reference, f"cannot be read: {error.strerror or error}", is_gone=is_gone
            ) from error
        return raw

    def _damaged(self, reference: Reference, what: str, *, is_gone: bool = False) -> DamagedStoreError:
        path = self.path(reference)
        return DamagedStoreError(
            f"list {path} of {reference.n_shards:,} shards {what}. Restore it from a copy, or run "
            f"`featurestore repair {self._store}`, which makes it again from the shards",
            path=path,
            is_gone=is_gone,
        )
