"""A store: one directory, one recipe, many sentences; opened at a snapshot and read from any process."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import DamagedStoreError, MissingSentencesError, UsageError
from featurestore.keyarrays import keys_array
from featurestore.keys import Sentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.dependence import how_to_add, missing_note
from featurestore.store.format.access import looking_at
from featurestore.store.format.codec import DEFAULT_CODEC, CodecError, Floats
from featurestore.store.format.manifest import (
    INDEX,
    MANIFESTS,
    SHARDS,
    TMP,
    Manifest,
    commit_note,
    list_numbers,
    manifest_path,
    publish,
    read_manifest,
)
from featurestore.store.format.reader import Access, Check, ShardReader
from featurestore.store.index.filerows import DamagedIndexError
from featurestore.store.index.loading import load_index
from featurestore.store.index.lookup import Index, Locations
from featurestore.store.locks import Hold, hold
from featurestore.store.preconditions import require_bounds, require_creatable

if TYPE_CHECKING:
    from featurestore.store.canaries import Canaries
    from featurestore.store.writer import WriteSession

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
_TRIES = 100
"""How often to look for the latest manifest again because gc removed the one that was."""


class Store:
    """A snapshot of a store, for reading; :meth:`write` adds to it.

    Open one with :meth:`open`, make one with :meth:`create`. It can be pickled and used after ``fork``:
    beside memory maps it holds nothing open but its manifest, which keeps ``featurestore gc`` from removing
    the snapshot, and another process opens its own.

    Parameters
    ----------
    path : Path
        For messages; :attr:`location` is the same, absolute, wherever the working directory is.
    manifest : Manifest
        The snapshot.
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
        cls,
        path: str | Path,
        *,
        snapshot: int | None = None,
        access: Access = "mmap",
        check: Check = "first",
        filesystem: FileSystem = LOCAL,
    ) -> Store:
        """Open a store at its latest commit, or at an earlier one.

        Raises
        ------
        NotAStoreError
            If the path does not exist or is not a store.
        FormatVersionError
            If a newer featurestore wrote it.
        DamagedStoreError
            If the manifest is not what was committed.
        """
        path = Path(path)
        for attempt in itertools.count(1):
            try:
                manifest = read_manifest(path, snapshot)
            except DamagedStoreError as error:
                if not (isinstance(error.__cause__, FileNotFoundError) and attempt < _TRIES):
                    raise
                continue  # gc removed it after it was listed: there is a later one
            store = cls(path, manifest, access=access, check=check, filesystem=filesystem)
            if store._held() or snapshot is not None or attempt == _TRIES:
                break
        return store

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        recipe: Recipe,
        dim: int,
        n_layers: int = 1,
        encoder: str = "",
        codec: str = DEFAULT_CODEC,
        shard_bytes: int = limits.DEFAULT_SHARD_BYTES,
        canaries: Canaries | None = None,
        filesystem: FileSystem = LOCAL,
    ) -> Store:
        """Make an empty store.

        Parameters
        ----------
        path : str or Path
            A directory that does not exist, or is empty.
        recipe : Recipe
            Of the vectors to come.
        dim, n_layers : int
            Their shape: ``(n_tokens, dim)`` if ``n_layers`` is 1, else ``(n_tokens, n_layers, dim)``.
        encoder : str
            Specification that loads the encoder again.
        codec : {"float16", "float32", "int8"}
        shard_bytes : int
            Bytes of vectors at which a shard is full.
        canaries : Canaries, optional
            What an encoder must give again before it may add to the store.

        Raises
        ------
        UsageError
            If something else lies at the path, or another process just made a store there.
        StoreWriteError
            If the disk is full or read-only.
        """
        path = Path(path)
        require_bounds(dim=dim, n_layers=n_layers, codec=codec, shard_bytes=shard_bytes, encoder=encoder)
        require_creatable(path)
        for name in (MANIFESTS, SHARDS, INDEX, TMP):
            filesystem.make_directory(path / name)
        filesystem.sync_directory(path)
        manifest = Manifest(
            number=1, recipe=recipe, encoder=encoder, dim=dim, n_layers=n_layers, codec=codec,
            shard_bytes=shard_bytes, commit=commit_note(),
            canaries=canaries.put(path, recipe, filesystem) if canaries is not None else None,
        )  # fmt: skip
        if not publish(path, manifest, filesystem):
            raise UsageError(f"there is already a store at {path}: open it, or choose another directory")
        store = cls(path, manifest, filesystem=filesystem)
        store._held()
        return store

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether a store lies at a path."""
        directory = Path(path) / MANIFESTS
        with looking_at(directory):
            return directory.is_dir() and any(directory.iterdir())

    def __repr__(self) -> str:
        return (
            f"Store({str(self.path)!r}, snapshot {self.snapshot}: {len(self):,} sentences, "
            f"{self.n_tokens:,} tokens, {self.manifest.n_layers} x {self.dim}, {self.manifest.codec})"
        )

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
        """Whether another store lies at the path now."""
        path = manifest_path(self.location, self.snapshot)
        return self._hold is not None and path.exists() and not self._hold.is_at(path)

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
        return sum((shard.error for shard in self.manifest.shards), CodecError())

    def __len__(self) -> int:
        return self.manifest.n_sentences

    def vector_shape(self, n_tokens: int) -> tuple[int, ...]:
        """Return the shape of a sentence's vectors."""
        return (n_tokens, self.dim) if self.n_layers == 1 else (n_tokens, self.n_layers, self.dim)

    @property
    def index(self) -> Index:
        """Keys of all sentences; mapped, extended or rebuilt when first used.

        Ask it through :meth:`locate` and :meth:`with_prefix`, which build it again where it is damaged.
        """
        if self._index is None:
            self._index = self._load_index()
        return self._index

    def _load_index(self, *, believe: bool = True) -> Index:
        shards, directory = self.manifest.shards, self.location / INDEX
        names, sizes = [shard.name for shard in shards], [shard.n_sentences for shard in shards]
        return load_index(
            directory, names, self.keys_of, sizes=sizes, filesystem=self.filesystem,
            access=self._access, believe=believe,
        )  # fmt: skip

    def _ask_index(self, question: Callable[[Index], Answer]) -> Answer:
        try:
            return question(self.index)
        except DamagedIndexError as damage:
            logger.warning("%s (%s); building it again", damage, self.path / INDEX)
            self._index = self._load_index(believe=False)
            return question(self._index)

    def reader(self, shard: int) -> ShardReader:
        """Return the open shard of a number in the manifest.

        Raises
        ------
        DamagedStoreError
            If it is missing or not what was committed.
        """
        reader = self._readers[shard]
        if reader is None:
            entry = self.manifest.shards[shard]
            path = self.location / SHARDS / entry.name
            reader = ShardReader(path, entry, access=self._access, check=self._check)
            shape, expected = reader.entry.extents["values"].shape[1:], self.vector_shape(0)[1:]
            if shape != expected:
                raise DamagedStoreError(
                    f"shard {reader.path} holds vectors of shape {shape}, the store of {expected}"
                )
            self._readers[shard] = reader
        return reader

    def keys_of(self, shard: int) -> NDArray[np.uint8]:
        """Return the keys of a shard's sentences, (n, 16) uint8, without keeping the shard open.

        Raises
        ------
        DamagedStoreError
            If it is missing or not what was committed.
        """
        opened = self._readers[shard]
        keys = self.reader(shard).keys
        self._readers[shard] = opened
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
        return Locations.nowhere(len(wanted))

    def with_prefix(self, digits: str) -> list[tuple[int, int]]:
        """Return (shard, row) of the keys that begin with these hexadecimal digits, of which 16 count."""
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

    def __contains__(self, tokens: Sequence[str]) -> bool:
        return bool(self.locate([sentence_key(tokens)]).found[0])

    def get(self, tokens: Sequence[str]) -> Floats:
        """Return the vectors of a sentence.

        Parameters
        ----------
        tokens : sequence of str
            With a condition (:class:`~featurestore.keys.ConditionedSentence`) it is another sentence than
            without.

        Returns
        -------
        (n_tokens, dim) or (n_tokens, n_layers, dim) float32

        Raises
        ------
        MissingSentencesError
            If the sentence is not in the store.
        DamagedStoreError
            If its bytes are not those that were committed.
        """
        return self.get_many([tokens])[0]

    def get_many(self, sentences: Iterable[Sequence[str]]) -> list[Floats]:
        """Return the vectors of several sentences, in their order; as :meth:`get`."""
        # A tuple stays as it is, for it may have a condition.
        wanted = [tokens if isinstance(tokens, (str, tuple)) else tuple(tokens) for tokens in sentences]
        keys = [sentence_key(tokens) for tokens in wanted]
        locations = self.locate(keys)
        if not locations.found.all():
            missing = np.flatnonzero(~locations.found)
            shown = "".join(f"\n  {' '.join(wanted[i][:12])}" for i in missing[:3])
            raise MissingSentencesError(
                f"{len(missing):,} of {len(wanted):,} sentences are not in {self.path}; the first:{shown}\n"
                f"{how_to_add(self.recipe, self.path)}{missing_note(self)}"
            )
        return [
            self.reader_of(shard, row, key).read(row)
            for shard, row, key in zip(locations.shard.tolist(), locations.row.tolist(), keys, strict=True)
        ]

    def get_by_key(self, key: bytes) -> Floats:
        """Return the vectors of the sentence with a key; as :meth:`get`."""
        locations = self.locate([key])
        if not locations.found[0]:
            raise MissingSentencesError(f"no sentence with key {key.hex()} in {self.path}")
        row = int(locations.row[0])
        return self.reader_of(int(locations.shard[0]), row, key).read(row)

    def sentences(self) -> Iterator[tuple[int, int, Sentence]]:
        """Iterate over (shard, row, sentence) in stored order, without reading vectors."""
        for shard in range(len(self.manifest.shards)):
            reader = self.reader(shard)
            for row in range(len(reader)):
                yield shard, row, reader.tokens(row)

    def __iter__(self) -> Iterator[tuple[Sentence, Floats]]:
        """Iterate over (sentence, vectors) in stored order."""
        for shard, row, tokens in self.sentences():
            yield tokens, self.reader(shard).read(row)

    def write(self, *, codec: str | None = None) -> WriteSession:
        """Return a session that adds sentences; use it as a context manager.

        Parameters
        ----------
        codec : str, optional
            For the shards of this session; by default the store's.
        """
        from featurestore.store.writer import WriteSession

        return WriteSession(self, codec=codec)

    def refreshed(self) -> Store:
        """Return the store at its latest commit."""
        if list_numbers(self.location)[-1] == self.snapshot and not self.replaced:
            return self
        newer = Store.open(self.location, access=self._access, check=self._check, filesystem=self.filesystem)
        newer.path = self.path
        return newer

    def reader_of(self, shard: int, row: int, key: bytes) -> ShardReader:
        """Return the open shard of a located sentence, after making sure that the index told the truth.

        Raises
        ------
        DamagedStoreError
            If another sentence lies at the row, or the shard is damaged.
        """
        reader = self.reader(shard)
        if row >= len(reader) or reader.key(row) != key:
            raise DamagedStoreError(
                f"the index of {self.path} points to the wrong sentence: delete {self.path / INDEX} (it is "
                "derived and will be rebuilt)"
            )
        return reader
