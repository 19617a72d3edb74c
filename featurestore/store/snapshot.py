"""A snapshot of a store: the shards that one manifest lists, the index over them, and its hold against gc."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.places import local_path
from featurestore.errors import DamagedStoreError, UsageError
from featurestore.keyarrays import keys_array
from featurestore.recipe import Recipe
from featurestore.store.continuity import is_there
from featurestore.store.format.codec import CodecError
from featurestore.store.format.directory import INDEX, SHARDS, list_numbers, manifest_path, read_manifest
from featurestore.store.format.manifest import Manifest
from featurestore.store.format.reader import Access, Check, ShardReader
from featurestore.store.listing.shards import Shards
from featurestore.store.locks import Hold, hold
from featurestore.store.pending import commit_pending
from featurestore.vectors import vector_shape

if TYPE_CHECKING:
    from featurestore.store.index.lookup import Index, Locations
    from featurestore.store.index.shardlist import ShardList

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
AnySnapshot = TypeVar("AnySnapshot", bound="Snapshot")

_TRIES = 100
"""Attempts to open the latest manifest while gc removes the one that was the latest a moment ago."""


def shard_list(manifest: Manifest) -> ShardList:
    """Return the shards of a snapshot as an index knows them."""
    from featurestore.store.index.shardlist import ShardList

    shards = manifest.shards
    return ShardList(shards.joined_names, len(shards), shards.sizes)


class Snapshot:
    """What a store held at one commit: where each sentence lies, and the open shards.

    :class:`~featurestore.store.store.Store` is what users open; writing sessions and canaries need no more
    than this. It can be pickled and used after ``fork``: beside memory maps it holds nothing open but its
    manifest, which keeps ``featurestore gc`` from removing the snapshot, and another process opens its own.

    Parameters
    ----------
    path : Path
        For messages; :attr:`location` is the same, absolute, wherever the working directory is.
    manifest : Manifest
    access : {"mmap", "pread"}
        How bytes are read: see :class:`~featurestore.store.format.reader.ShardReader`.
    check : {"first", "always", "never"}
        When a sentence's checksum is compared.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        access: Access = "mmap",
        check: Check = "first",
        filesystem: FileSystem = LOCAL,
    ) -> None:
        for option, value, choices in (("access", access, Access), ("check", check, Check)):
            if value not in get_args(choices):
                listed = ", ".join(get_args(choices))
                raise UsageError(f"unknown {option} {value!r}: expected one of {listed}")
        self.path, self.manifest, self.filesystem = path, manifest, filesystem
        self.location = path.absolute()
        self._access, self._check = access, check
        self._readers: list[ShardReader | None] = [None] * len(manifest.shards)
        self._index: Index | None = None
        self._hold: Hold | None = None

    @classmethod
    def open(
        cls: type[AnySnapshot],
        path: str | Path,
        *,
        snapshot: int | None = None,
        access: Access = "mmap",
        check: Check = "first",
        filesystem: FileSystem = LOCAL,
    ) -> AnySnapshot:
        """Open a store at its latest commit, or at an earlier one.

        What this process has computed for the store and holds back is committed first.

        Raises
        ------
        UsageError
            If the path is a URL, there is no such snapshot, or another argument makes no sense.
        NotAStoreError
            If the path does not exist or is not a store.
        FormatVersionError
            If a newer featurestore wrote it.
        DamagedStoreError
            If the manifest is not what was committed.
        """
        path = local_path(path)
        if snapshot is None:
            commit_pending(path.absolute())
        return cls._open(path, snapshot, access, check, filesystem)

    @classmethod
    def _open(
        cls: type[AnySnapshot],
        path: Path,
        snapshot: int | None,
        access: Access,
        check: Check,
        filesystem: FileSystem,
        known: Shards | None = None,
    ) -> AnySnapshot:
        for attempt in itertools.count(1):
            try:
                manifest = read_manifest(path, snapshot, filesystem, known)
            except DamagedStoreError as error:
                if not (error.is_gone and attempt < _TRIES):
                    raise
                continue  # gc removed it after it was listed: there is a later one
            opened = cls(path, manifest, access=access, check=check, filesystem=filesystem)
            if opened._held() or snapshot is not None or attempt == _TRIES:
                break
        return opened

    def __getstate__(self) -> dict[str, Any]:
        # Maps and arrays stay behind: the other process opens its own.
        return {**self.__dict__, "_readers": [None] * len(self._readers), "_index": None, "_hold": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._held()

    def _held(self) -> bool:
        """Keep gc from removing this snapshot while it is open; return False if it is gone already."""
        self._hold = hold(manifest_path(self.location, self.snapshot))
        return self._hold is not None and self._hold.exists

    @property
    def replaced(self) -> bool:
        """Whether another store is at the path now."""
        return self._hold is not None and self._hold.is_replaced(manifest_path(self.location, self.snapshot))

    @property
    def snapshot(self) -> int:
        """Number of the commit this store was opened at."""
        return self.manifest.number

    @property
    def recipe(self) -> Recipe:
        """What the vectors were made with."""
        return self.manifest.recipe

    @property
    def fingerprint(self) -> str:
        """Hash of the recipe, 64 hexadecimal digits."""
        return self.manifest.recipe.fingerprint

    @property
    def encoder(self) -> str:
        """Specification that loads the encoder again."""
        return self.manifest.encoder

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.manifest.dim

    @property
    def n_layers(self) -> int:
        """Layers kept apart."""
        return self.manifest.n_layers

    @property
    def n_tokens(self) -> int:
        """Tokens stored."""
        return self.manifest.n_tokens

    @property
    def n_bytes(self) -> int:
        """Bytes of all shards."""
        return self.manifest.n_bytes

    @property
    def codec_error(self) -> CodecError:
        """What the codecs lost, added up over all shards."""
        return self.manifest.shards.error()

    def __len__(self) -> int:
        return self.manifest.n_sentences

    def vector_shape(self, n_tokens: int) -> tuple[int, ...]:
        """Return the shape of a sentence's vectors."""
        return vector_shape(n_tokens, self.n_layers, self.dim)

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of a token's vectors: ``(dim,)``, or ``(n_layers, dim)``."""
        return self.manifest.token_shape

    @property
    def index(self) -> Index:
        """Keys of all sentences; opened, extended or rebuilt when first used.

        Use it through :meth:`locate` and :meth:`with_prefix`, which rebuild it where it is damaged.
        """
        if self._index is None:
            self._index = self._load_index()
        return self._index

    def _load_index(self, *, distrust: bool = False) -> Index:
        from featurestore.store.index.loading import load_index  # who asks for no sentence starts without it

        return load_index(
            self.location / INDEX, shard_list(self.manifest), self.keys_of, filesystem=self.filesystem,
            access=self._access, distrust=distrust,
        )  # fmt: skip

    def _ask_index(self, question: Callable[[Index], Answer]) -> Answer:
        from featurestore.store.index.filerows import DamagedIndexError

        try:
            return question(self.index)
        except DamagedIndexError as damage:
            logger.warning("%s (%s); building it again", damage, self.path / INDEX)
            self._index = self._load_index(distrust=True)
            return question(self._index)

    def reader(self, shard: int) -> ShardReader:
        """Return a shard by its number in the manifest; it stays open as long as this snapshot.

        Raises
        ------
        DamagedStoreError
            If it is missing or not what was committed.
        """
        reader = self._readers[shard] = self.passing(shard)
        return reader

    def passing(self, shard: int) -> ShardReader:
        """Return a shard as :meth:`reader` does, open only as long as the caller has it.

        Whoever goes through a store once holds one descriptor and one shard's head in memory, not all.
        """
        opened = self._readers[shard]
        if opened is not None:
            return opened
        entry = self.manifest.shards[shard]
        path = self.location / SHARDS / entry.name
        reader = ShardReader(path, entry, access=self._access, check=self._check, filesystem=self.filesystem)
        if entry.token_shape != self.token_shape:
            raise DamagedStoreError(
                f"shard {path} holds vectors of shape {entry.token_shape}, the store of {self.token_shape}",
                path=path,
                shard=entry.name,
            )
        return reader

    def open_shards(self) -> set[int]:
        """Return the numbers of the shards that are open."""
        return {shard for shard, reader in enumerate(self._readers) if reader is not None}

    def close_shards(self, *, but: Container[int] = ()) -> None:
        """Let go of open shards: each closes when nobody else has it; some of them may stay."""
        for shard in self.open_shards():
            if shard not in but:
                self._readers[shard] = None

    def keys_of(self, shard: int) -> NDArray[np.uint8]:
        """Return the keys of a shard's sentences, (n, 16) uint8, without keeping the shard open.

        Raises
        ------
        DamagedStoreError
            If it is missing or not what was committed.
        """
        keys: NDArray[np.uint8] = self.passing(shard).keys.copy()  # a view would keep the file mapped
        return keys

    def locate(self, keys: Iterable[bytes] | NDArray[np.uint8]) -> Locations:
        """Find sentences by key.

        Parameters
        ----------
        keys : iterable of bytes, or (n, 16) uint8
        """
        wanted = keys if isinstance(keys, np.ndarray) else keys_array(keys)
        if self.manifest.shards:
            return self._ask_index(lambda index: index.locate(wanted))
        from featurestore.store.index.lookup import Locations

        return Locations.nowhere(len(wanted))

    def with_prefix(self, digits: str) -> list[tuple[int, int]]:
        """Return (shard, row) of the keys that begin with these hexadecimal digits; only 16 are compared."""
        return self._ask_index(lambda index: index.with_prefix(digits))

    def lengths(self, locations: Locations) -> NDArray[np.int64]:
        """Return the number of tokens of each located sentence, 0 where it is missing; (n,) int64."""
        result = np.zeros(len(locations), np.int64)
        for shard in np.unique(locations.shard[locations.found]):
            here = np.flatnonzero(locations.shard == shard)
            offsets = self.reader(int(shard)).offsets
            rows = locations.row[here]
            result[here] = offsets[rows + 1] - offsets[rows]
        return result

    def reader_of(self, shard: int, row: int, key: bytes) -> ShardReader:
        """Return the open shard of a located sentence, after comparing its key with the one stored there.

        Raises
        ------
        DamagedStoreError
            If another sentence is stored at the row, or the shard is damaged.
        """
        reader = self.reader(shard)
        if row >= len(reader) or reader.key(row) != key:
            raise DamagedStoreError(
                f"the index of {self.path} points to the wrong sentence: delete {self.path / INDEX} (it is "
                "derived and will be rebuilt)",
                path=self.path / INDEX,
            )
        return reader

    def refreshed(self: AnySnapshot) -> AnySnapshot:
        """Return the store at its latest commit."""
        is_latest = list_numbers(self.location, self.filesystem)[-1] == self.snapshot and not self.replaced
        if is_latest and is_there(self.location, self.manifest):
            return self
        newer = type(self)._open(
            self.location, None, self._access, self._check, self.filesystem, self.manifest.shards
        )
        newer.path = self.path
        return newer
