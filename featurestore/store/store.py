"""A store: one directory, one recipe, many sentences; opened at a snapshot and read from any process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore import limits
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.places import local_path
from featurestore.errors import MissingSentence, MissingSentencesError, UsageError
from featurestore.keys import Sentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.format.access import inspecting
from featurestore.store.format.codec import DEFAULT_CODEC, Floats
from featurestore.store.format.directory import INDEX, MANIFESTS, SHARDS, TMP, publish
from featurestore.store.format.manifest import Manifest, commit_note
from featurestore.store.missing import how_to_add, missing_note
from featurestore.store.preconditions import require_bounds, require_creatable
from featurestore.store.snapshot import Snapshot

if TYPE_CHECKING:
    from featurestore.store.canaries import Canaries
    from featurestore.store.verification import Finding
    from featurestore.store.writer import WriteSession

_MOST_NAMED = 100
"""Missing sentences that an error carries."""


# Named, not imported: they lie above the store, and need torch or pyarrow.
_IN_MEMORY, _POOLING = "featurestore.exchange.in_memory", "featurestore.exchange.pooling"
_REPORT = "featurestore.report.shown"


def _named(module: str, function: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


class Store(Snapshot):
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

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        recipe: Mapping[str, Any],
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
        recipe : Recipe or mapping
            Of the vectors to come.
        dim, n_layers : int
            Their shape: ``(n_tokens, dim)`` if ``n_layers`` is 1, else ``(n_tokens, n_layers, dim)``.
        encoder : str
            Specification that loads the encoder again.
        codec : {"float16", "float32", "int8"}
        shard_bytes : int
            Bytes of vectors at which a shard is full.
        canaries : Canaries, optional
            Vectors that an encoder must reproduce before it may add to the store.

        Raises
        ------
        UsageError
            If the path is a URL, something else is there, or another process just made a store there; if the
            recipe or another argument makes no sense.
        StoreWriteError
            If the disk is full or read-only.
        """
        path, made_with = local_path(path), Recipe.of(recipe)
        require_bounds(dim=dim, n_layers=n_layers, codec=codec, shard_bytes=shard_bytes, encoder=encoder)
        require_creatable(path)
        for name in (MANIFESTS, SHARDS, INDEX, TMP):
            filesystem.make_directory(path / name)
        filesystem.sync_directory(path)
        manifest = Manifest(
            number=1, recipe=made_with, encoder=encoder, dim=dim, n_layers=n_layers, codec=codec,
            shard_bytes=shard_bytes, commit=commit_note(),
            canaries=canaries.put(path, made_with, filesystem) if canaries is not None else None,
        )  # fmt: skip
        if publish(path, manifest, filesystem) is None:
            raise UsageError(f"there is already a store at {path}: open it, or choose another directory")
        store = cls(path, manifest, filesystem=filesystem)
        store._held()
        return store

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether there is a store at a path.

        Raises
        ------
        UsageError
            If it is a URL.
        UnreadableStoreError
            If it cannot be inspected.
        """
        directory = local_path(path) / MANIFESTS
        with inspecting(directory):
            return directory.is_dir() and any(directory.iterdir())

    def __repr__(self) -> str:
        return (
            f"Store({str(self.path)!r}, snapshot {self.snapshot}: {len(self):,} sentences, "
            f"{self.n_tokens:,} tokens, {self.manifest.n_layers} x {self.dim}, {self.manifest.codec})"
        )

    def _repr_html_(self) -> str:
        from featurestore.notebook.facts import facts_table  # only where there is a notebook

        error = self.codec_error
        lost = f", relative L2 {error.relative_l2:.2g}" if error.n_tokens else ""
        return facts_table(
            f"Store {self.path}, snapshot {self.snapshot}",
            [
                ("sentences", f"{len(self):,}"), ("tokens", f"{self.n_tokens:,}"),
                ("vectors", f"{self.n_layers} x {self.dim}, {self.manifest.codec}{lost}"),
                ("bytes", f"{self.n_bytes:,} in {len(self.manifest.shards):,} shards"),
                ("encoder", self.encoder or "has no specification"), ("fingerprint", self.fingerprint),
            ],
        )  # fmt: skip

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
            first = [MissingSentence(tuple(wanted[i]), keys[i]) for i in missing[:_MOST_NAMED].tolist()]
            shown = "".join(f"\n  {' '.join(tokens[:12])}" for tokens, _, _ in first[:3])
            raise MissingSentencesError(
                f"{len(missing):,} of {len(wanted):,} sentences are not in {self.path}; the first:{shown}\n"
                f"{how_to_add(self.recipe, self.path)}{missing_note(self)}",
                sentences=first,
                n_missing=len(missing),
                n_wanted=len(wanted),
                store=self.path,
            )
        return [
            self.reader_of(shard, row, key).read(row)
            for shard, row, key in zip(locations.shard.tolist(), locations.row.tolist(), keys, strict=True)
        ]

    def get_by_key(self, key: bytes) -> Floats:
        """Return the vectors of the sentence with a key; as :meth:`get`."""
        locations = self.locate([key])
        if not locations.found[0]:
            raise MissingSentencesError(
                f"no sentence with key {key.hex()} in {self.path}",
                sentences=[MissingSentence((), key)],
                n_missing=1,
                n_wanted=1,
                store=self.path,
            )
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

    def to_numpy(self, sentences: Iterable[Sequence[str]] | None = None, *, dtype: str | None = None) -> Any:
        """Return all vectors end to end in memory; see :func:`featurestore.exchange.in_memory.to_numpy`.

        Returns
        -------
        (vectors, offsets, sentences)
            (n_tokens, [n_layers,] dim), (n_sentences + 1,) int64, list of tuple of str
        """
        return _named(_IN_MEMORY, "to_numpy")(self, sentences, dtype=dtype)

    def to_torch(self, sentences: Iterable[Sequence[str]] | None = None, *, dtype: str | None = None) -> Any:
        """Return :meth:`to_numpy` as tensors on the CPU."""
        return _named(_IN_MEMORY, "to_torch")(self, sentences, dtype=dtype)

    def to_arrow(self, *, dtype: str | None = None, rows: str = "sentence") -> Any:
        """Return a ``pyarrow.Table`` with a row a sentence or a token, as ``export`` writes it."""
        return _named(_IN_MEMORY, "to_arrow")(self, dtype=dtype, rows=rows)

    def report(self, **options: Any) -> Any:
        """Return what :func:`featurestore.report.measuring.report_on` finds; a notebook shows it as a page.

        Parameters
        ----------
        **options
            Of that function: ``sample``, ``seed``, ``examples`` with ``label``, ``whole``.

        Returns
        -------
        ShownReport
        """
        return _named(_REPORT, "shown_report")(self, **options)

    def pooled(
        self, how: str = "mean", *, mask: Any = None, sentences: Iterable[Sequence[str]] | None = None
    ) -> Floats:
        """Return one vector a sentence, added up in float64.

        Parameters
        ----------
        how : {"mean", "max", "first", "sum"}
        mask : callable, or iterable of (n_tokens,) bool, optional
            Which tokens count: called with each sentence, or one array for each, in their order.
        sentences : iterable of sequences of str, optional
            By default all, in stored order.

        Returns
        -------
        (n_sentences, dim) or (n_sentences, n_layers, dim) float32

        Raises
        ------
        UsageError
            If there is no such ``how``, or a mask does not fit its sentence or leaves no token of it.
        MissingSentencesError
            If a sentence is not stored.
        """
        pooled: Floats = _named(_POOLING, "pooled")(self, how, mask=mask, sentences=sentences)
        return pooled

    def verify(
        self,
        *,
        quick: bool = False,
        sample: int | None = None,
        seed: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Finding]:
        """Compare the store with what was committed and yield what differs; nothing if it is sound.

        Every byte of every shard, the canaries and the manifests of all snapshots are read, as by
        ``featurestore verify``; nothing is written.

        Parameters
        ----------
        quick : bool
            Check that every shard is there, has its size and a sound structure, without reading the vectors.
        sample : int, optional
            As ``quick``, and the vectors of this many sentences drawn at random.
        seed : int
            Of the draw.
        progress : callable, optional
            Called with the bytes of each shard checked.

        Yields
        ------
        Finding
            With the shard, the sentence where it is one, and the problem.

        Raises
        ------
        UnreadableStoreError
            If a file may not be opened, which may be sound.

        Examples
        --------
        >>> assert not list(Store.open("ner.store").verify())
        """
        from featurestore.store.verification import verify  # readers start without it

        return verify(self, quick=quick, sample=sample, seed=seed, progress=progress)

    def write(self, *, codec: str | None = None, encoder: str | None = None) -> WriteSession:
        """Return a session that adds sentences; use it as a context manager.

        Parameters
        ----------
        codec : str, optional
            For the shards of this session; by default the store's.
        encoder : str, optional
            What loads the encoder from now on, where it has moved; by default what the store names.
        """
        from featurestore.store.writer import WriteSession  # readers start without it

        return WriteSession(self, codec=codec, encoder=encoder)
