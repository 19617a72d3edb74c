"""Writing sessions: sentences and vectors in, shards sealed, synced, linked and committed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.temporary import temporary_name
from featurestore.errors import DamagedStoreError, StoreError, StoreWriteError, UsageError, VectorError
from featurestore.keyarrays import keys_array
from featurestore.keys import Sentence, require_sentence, sentence_key
from featurestore.store.continuity import Signature, is_shorter, is_there, signature
from featurestore.store.format.codec import Array, get_codec
from featurestore.store.format.directory import MANIFESTS, SHARDS, TMP, list_numbers, publish, read_manifest
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import Manifest, commit_note, following
from featurestore.store.format.shard import ShardDraft, place_file
from featurestore.store.format.staging import Sample, StagingMemory, sample, stage
from featurestore.store.index.keyset import KeySet
from featurestore.store.locks import committing
from featurestore.store.snapshot import Snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedShard:
    """A shard that lies complete and synced under a temporary name: see :meth:`WriteSession.prepared`.

    Attributes
    ----------
    draft : ShardDraft
        What it was made of, for another one if sentences of it have to be left out.
    entry : ShardEntry
    path : Path
    """

    draft: ShardDraft
    entry: ShardEntry
    path: Path


@dataclass(frozen=True)
class ShardFile:
    """A complete, synced shard file on the store's disk: see :meth:`WriteSession.publish_files`.

    Attributes
    ----------
    entry : ShardEntry
    path : Path
    keys : (n, 16) uint8
        Of its sentences, none of them in another shard.
    """

    entry: ShardEntry
    path: Path
    keys: NDArray[np.uint8]


class WriteSession:
    """Adds sentences to a store; other sessions may add to it at the same time.

    Either fill whole drafts (:meth:`draft`, then :meth:`commit`), or :meth:`add` one sentence after the other
    and let the session make shards. Leaving the context commits what was added.

    Parameters
    ----------
    store : Snapshot
        Or a :class:`~featurestore.store.store.Store`.
    codec : str, optional
        Of this session's shards, by default the store's, which stays as it is.
    encoder : str, optional
        What loads the store's encoder from now on, where that has moved; by default what the store names.
    """

    def __init__(self, store: Snapshot, *, codec: str | None = None, encoder: str | None = None) -> None:
        self.store = store
        self.manifest: Manifest = store.manifest
        self._manifests = str(store.location / MANIFESTS)
        # Of that directory, when the manifest's content was last compared, and when it was the latest.
        self._seen: Signature | None = None
        self._latest: Signature | None = None
        self._codec = get_codec(codec or store.manifest.codec)
        self._encoder = encoder
        self._filesystem = store.filesystem
        self._since_opening = self._no_keys()
        self._pending: dict[bytes, tuple[Sentence, Array, Sample]] = {}
        self._pending_tokens = 0
        self._closed = False
        self._give_up = threading.Event()
        self._memory = StagingMemory(self.staged_bytes)
        self._filesystem.make_directory(store.location / SHARDS)
        self._filesystem.make_directory(store.location / TMP, lasting=False)
        self._filesystem.remove_orphaned(store.location / TMP)
        self._make_sure_of_commits()

    def __enter__(self) -> WriteSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Vectors that were added are right whatever went wrong later: they are kept, unless storing failed.
        if not isinstance(error, (StoreWriteError, DamagedStoreError)):
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_pending", None):
            logger.warning(
                "%d sentences were added to %s but not committed: close the session, or add in a with block",
                len(self._pending),
                self.store.path,
            )

    @property
    def tokens_per_shard(self) -> int:
        """Tokens at which a shard is full."""
        return max(
            1, self.manifest.shard_bytes // self._codec.bytes_per_token(self.store.n_layers, self.store.dim)
        )

    @property
    def staged_bytes(self) -> int:
        """Bytes of memory for a full draft: with int8, which waits as float32, four times its shard's."""
        values = self.tokens_per_shard * self.store.n_layers * self.store.dim
        return values * self._codec.staging_dtype.itemsize

    def stored(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which (n, 16) uint8 keys are committed, as far as this session has read; (n,) bool."""
        return self.store.locate(keys).found | self._since_opening.contains(keys)

    def draft(
        self, sentences: Sequence[Sentence], *, sentence_keys: Sequence[bytes] | None = None
    ) -> ShardDraft:
        """Return an empty shard for distinct sentences, to be filled and committed (:meth:`commit`).

        Release it afterwards (:meth:`ShardDraft.release`), so that the next one can use its memory.
        """
        return ShardDraft(
            sentences,
            dim=self.store.dim,
            n_layers=self.store.n_layers,
            codec=self._codec,
            sentence_keys=sentence_keys,
            memory=self._memory,
        )

    def add(self, tokens: Sequence[str], vectors: NDArray[np.floating]) -> bool:
        """Add a sentence; a full shard is committed at once.

        Parameters
        ----------
        tokens : sequence of str
            A condition (:class:`~featurestore.keys.ConditionedSentence`) is stored with them.
        vectors : (n_tokens, dim) or (n_tokens, n_layers, dim) float

        Returns
        -------
        bool
            False if the sentence was stored already; what is stored stays.

        Raises
        ------
        SentenceError
            If the sentence has no key.
        StoreError
            If the vectors have another shape, are not finite, or cannot be written.
        """
        if self._closed:
            raise UsageError(f"this session of {self.store.path} is closed: store.write() begins another")
        sentence = require_sentence(tokens)
        if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f":
            raise VectorError(
                f"vectors of {' '.join(sentence[:8])!r} are a {type(vectors).__name__}, expected a NumPy "
                "array of floats (of a tensor: tensor.cpu().numpy())"
            )
        expected = self.store.vector_shape(len(sentence))
        if vectors.shape != expected:
            raise VectorError(
                f"vectors of shape {vectors.shape}, expected {expected}, for {' '.join(sentence[:8])!r}"
            )
        key = sentence_key(sentence)
        if key in self._pending or self._is_stored(key):
            return False
        staged = np.empty(expected, self._codec.staging_dtype)
        # Checked now, not when the shard is sealed: one bad vector must not cost its neighbours.
        stage(staged, vectors, sentence, self._codec)
        start, self._pending_tokens = self._pending_tokens, self._pending_tokens + len(sentence)
        self._pending[key] = sentence, staged, sample(start, vectors, self._pending_tokens)
        if self._pending_tokens >= self.tokens_per_shard:
            self.flush()
        return True

    def _is_stored(self, key: bytes) -> bool:
        """Return whether a sentence is stored, and still is."""
        keys = keys_array([key])
        if not self.stored(keys)[0]:
            return False
        if self._seen is not None and signature(self._manifests) == self._seen:
            return True
        self.catch_up()  # it raises if the store was rolled back
        return bool(self.stored(keys)[0])

    def flush(self) -> None:
        """Commit the sentences added so far."""
        if self._pending:
            # Taken away first: if committing fails, leaving the context must not try the same again.
            pending, self._pending, self._pending_tokens = self._pending, {}, 0
            draft = self.draft([sentence for sentence, _, _ in pending.values()], sentence_keys=list(pending))
            for position, (_, staged, sampled) in enumerate(pending.values()):
                draft.put_staged(position, staged, sampled)
            del pending, staged, sampled  # a shard's worth of memory
            self.commit(draft)

    def commit(self, draft: ShardDraft, **note: Any) -> int:
        """Publish a full draft as a shard and a new snapshot: :meth:`prepared`, then :meth:`publish`.

        If other writers committed meanwhile, the sentences they stored are left out of this shard, and the
        commit follows theirs.

        Parameters
        ----------
        draft : ShardDraft
        **note
            Fields of :class:`~featurestore.store.format.manifest.Commit` beside time and software.

        Returns
        -------
        int
            Sentences that this commit added.

        Raises
        ------
        RecipeMismatchError
            If the store was replaced by one of another recipe.
        StoreWriteError
            If the disk is full or failing. Nothing is half-written, and earlier commits stand.
        """
        if not draft.sentences:
            return 0
        with self.prepared(draft) as shard:
            return self.publish(shard, **note)

    @contextmanager
    def prepared(self, draft: ShardDraft) -> Iterator[PreparedShard]:
        """Hash a full draft and write it, synced, under a temporary name; :meth:`publish` it inside.

        This is nearly all the work of a commit, and may run in any thread, for several drafts at once. The
        temporary name goes with the context: of a shard that was not published nothing is left.

        Raises
        ------
        StoreError
            If there are no sentences, or some lack their vectors.
        StoreWriteError
            As :meth:`commit`.
        """
        sealed = draft.seal(self.store.fingerprint)
        path = self.store.location / TMP / temporary_name(".h5")
        divisible = len(draft.sentences) > 1
        with self._filesystem.temporary_file(path, [sealed.head, sealed.values], divisible=divisible):
            yield PreparedShard(draft, sealed.entry, path)

    def publish(self, shard: PreparedShard, **note: Any) -> int:
        """Link a prepared shard into the store and publish a snapshot with it: the rest of :meth:`commit`.

        One at a time: the order of these calls is the order of the shards.
        """
        draft = shard.draft
        known = self.publish_files([ShardFile(shard.entry, shard.path, keys_array(draft.keys))], **note)
        if not known.any():
            return len(draft.sentences)
        return self.commit(draft.subset(np.flatnonzero(~known).tolist()), **note)

    def publish_files(self, files: Sequence[ShardFile], **note: Any) -> NDArray[np.bool_]:
        """Link shard files into the store and publish one snapshot with all of them, in their order.

        Returns
        -------
        (n,) bool
            Which of all their sentences others have stored: if any, nothing was published.
        """
        keys, placed = np.concatenate([file.keys for file in files]), False
        with committing(self.store.location, self._give_up):
            while True:
                self.catch_up()
                known = self.stored(keys)
                if known.any():
                    return known
                for file in [] if placed else files:
                    place_file(self.store.location, file.entry, file.path, self._filesystem)
                placed = True
                if self.commit_placed([file.entry for file in files], keys, self.manifest.codec, **note):
                    return known

    def commit_placed(
        self, entries: Sequence[ShardEntry], keys: NDArray[np.uint8], codec: str, **note: Any
    ) -> bool:
        """Publish a snapshot: the last one and shards that are already linked into the store.

        Parameters
        ----------
        entries : sequence of ShardEntry
        keys : (n, 16) uint8
            Of their sentences.
        codec : str
            For shards to come.
        **note
            As for :meth:`commit`.

        Returns
        -------
        bool
            False if another writer was first: :meth:`catch_up`, leave out what it stored, and try again.
        """
        manifest = following(
            self.manifest, tuple(entries), replace(commit_note(), **note), codec, self._encoder
        )
        published = publish(self.store.location, manifest, self._filesystem)
        if published is None:
            logger.info("another writer took snapshot %d; following it", manifest.number)
            self._latest = None
            return False
        # If another writer is quicker than the signature, the next number is taken, which publishing notices.
        self.manifest, self._seen, self._latest = published, None, signature(self._manifests)
        self._since_opening.add(keys)
        return True

    def stop_waiting(self) -> None:
        """Let commits fail that wait for a lock which another process holds; may be called in any thread."""
        self._give_up.set()

    def close(self) -> None:
        """Commit the sentences added, and bring the index up to date for the next reader."""
        self.flush()
        self._closed = True
        if self.manifest.number != self.store.manifest.number:
            self._begin_anew()
        _ = self.store.index

    def _begin_anew(self) -> None:
        """Forget what was read before, and start from the latest commit."""
        self.store = self.store.refreshed()
        self.manifest, self._seen, self._latest = self.store.manifest, None, None
        self._since_opening = self._no_keys()

    def _no_keys(self) -> KeySet:
        return KeySet(self.store.location / TMP, filesystem=self._filesystem)

    def catch_up(self) -> None:
        """Read what others committed since this session last did.

        Raises
        ------
        RecipeMismatchError, StoreError
            If another store lies at the path by now, or an earlier state of this one.
        """
        location, replaced = self.store.location, self.store.replaced
        found = signature(self._manifests)
        # Listing takes as long as there are snapshots, so it is not done where none came or went.
        unchanged = found is not None and found == self._latest
        is_latest = unchanged or list_numbers(location, self._filesystem)[-1] == self.manifest.number
        if is_latest and not replaced and is_there(location, self.manifest):
            self._seen = self._latest = found
            return
        latest = read_manifest(location, filesystem=self._filesystem, known=self.manifest.shards)
        self._make_sure_of_commits()
        remedy = "Use a store of its own for each recipe."
        latest.recipe.require_equal(self.store.recipe, where=f"store {self.store.path}", remedy=remedy)
        if replaced:
            raise StoreError(
                f"the store {self.store.path} was replaced by another while this process added to it: "
                "nothing was written to that one. Run the same again"
            )
        if is_shorter(location, self.manifest, latest):
            self._begin_anew()
            return
        view = Snapshot(self.store.location, latest, filesystem=self._filesystem)
        for number in latest.shards.besides(self.manifest.shards).tolist():
            self._since_opening.add(view.keys_of(number))
        self.manifest, self._seen, self._latest = latest, None, None

    def _make_sure_of_commits(self) -> None:
        """Wait until the manifests that were found are on the disk.

        Their writer may have been killed before it synced them, and this session never stores again what it
        finds stored.
        """
        self._filesystem.sync_directory(self.store.location / MANIFESTS)
