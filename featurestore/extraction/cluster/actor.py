"""The actor: an encoder on a node of a cluster, which turns units into shards in the store's directory.

Two units are under way in it: while one is encoded, the one before is hashed, written and synced.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.checked import CheckedEncoder
from featurestore.encoders.sources import EncoderSource
from featurestore.errors import StoreWriteError
from featurestore.extraction.cluster.inspection import inspect_node, processor
from featurestore.extraction.cluster.unit_files import UnitFiles
from featurestore.extraction.engines.units import Unit
from featurestore.extraction.pipeline import EncodingPipeline
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.extraction.writing import ShardWriter
from featurestore.recipe import Recipe
from featurestore.store.canaries import Canaries, make_canaries, read_canaries, require_canaries
from featurestore.store.format.codec import get_codec
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.shard import ShardDraft
from featurestore.store.format.staging import StagingMemory
from featurestore.store.store import Store
from featurestore.store.writer import PreparedShard
from featurestore.vectors import encoded

UNITS_AT_ONCE = 2
"""Units that an actor works on, one of them being written."""


@dataclass(frozen=True)
class ActorFacts:
    """What an actor says of itself once its encoder is loaded.

    Attributes
    ----------
    host, processor, node : str
        Of the machine; ``node`` is Ray's name for it.
    spec, recipe, dim, n_layers, device, token_budget
        Of the encoder.
    canaries : Canaries or None
        As it encodes them; None where none were asked for, or it can encode none.
    """

    host: str
    processor: str
    node: str
    spec: str
    recipe: Recipe
    dim: int
    n_layers: int
    device: str
    token_budget: int
    canaries: Canaries | None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.host} ({self.processor})"


@dataclass(frozen=True)
class Finished:
    """What became of a unit.

    Attributes
    ----------
    entry : ShardEntry or None
        None if none of its sentences could be stored.
    kept : list of int or None
        Positions of the sentences that are in the shard; None for all.
    was_there : bool
        Whether the shard lay in the store's directory already.
    seconds : float
        Time spent on the unit.
    token_budget : int
        The actor's at the end of the unit.
    too_large, refused, notices : list of str
        As in :class:`~featurestore.extraction.report.Report`, and what the user should know.
    """

    entry: ShardEntry | None
    kept: list[int] | None = None
    was_there: bool = False
    seconds: float = 0.0
    token_budget: int = 0
    too_large: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class EncodingActor:
    """Loads an encoder (:meth:`load`), is compared with a store (:meth:`join`), takes units (:meth:`run`)."""

    def load(
        self, sent: bytes, device: str, folder: str, paths: Sequence[str], n_threads: int, *, canaries: bool
    ) -> ActorFacts:
        """Load the encoder.

        Parameters
        ----------
        sent : bytes
            A pickled :class:`~featurestore.encoders.sources.EncoderSource`.
        device : str
        folder, paths : str, sequence of str
            Working directory and module search path of the process that drives the run.
        n_threads : int
            Threads for the arithmetic on a CPU.
        canaries : bool
            Whether to encode the canaries of a new store.
        """
        import ray

        sys.path.extend(path for path in paths if path not in sys.path)
        with suppress(OSError):  # relative paths of a specification are those of the driver
            os.chdir(folder)
        source: EncoderSource = ray.cloudpickle.loads(sent)
        self._encoder: CheckedEncoder = source.load(device)
        self._n_threads = n_threads
        _use_threads(n_threads)
        encoder = self._encoder
        return ActorFacts(
            platform.node(),
            processor(),
            ray.get_runtime_context().get_node_id(),
            encoder.spec,
            encoder.recipe,
            encoder.dim,
            encoder.n_layers,
            encoder.device,
            encoder.token_budget,
            make_canaries(encoder) if canaries else None,
        )

    def join(self, location: str, codec: str, token_budget: int, probe: str, nonce: str) -> str:
        """Make ready for units, after encoding the store's canaries; return a hash of their vectors.

        Raises
        ------
        StoreWriteError
            If the store's directory is not the driver's.
        RecipeMismatchError, DriftError
            If the encoder is not the store's, or computes other vectors here.
        """
        found = inspect_node(probe, nonce)
        if not (found["reads"] and found["answer"]):
            raise StoreWriteError(
                f"{found['host']} does not share the directory {location} with this process"
                f" ({found['problem'] or 'it has another one at that path'})",
                path=location,
            )
        store = Store.open(Path(location))
        store.recipe.require_equal(
            self._encoder.recipe,
            where=f"store {location}",
            remedy="The encoder is another one on this node: make the same files and versions available.",
        )
        store = require_canaries(store, self._encoder)
        self._codec, self._shape = get_codec(codec), (store.dim, store.n_layers)
        self._token_budget = token_budget
        self._files = UnitFiles(store.location, store.fingerprint, codec)
        per_shard = max(
            1, store.manifest.shard_bytes // self._codec.bytes_per_token(store.n_layers, store.dim)
        )
        values = per_shard * store.n_layers * store.dim
        self._memory = StagingMemory(values * self._codec.staging_dtype.itemsize)
        self._encoding = threading.Lock()
        self._under_way: dict[int, int] = {}
        stored = read_canaries(store)
        return vectors_digest(
            [encoded(self._encoder, [tokens])[0] for tokens in stored.sentences] if stored else []
        )

    def run(self, unit: Unit, halvings: int) -> Finished:
        """Encode a unit and leave its sealed shard in the store's directory, unless it lies there already.

        Parameters
        ----------
        unit : Unit
        halvings : int
            How often its token budget is halved, beside what this actor has learnt of its memory.
        """
        started = time.perf_counter()
        if (entry := self._files.find(unit)) is not None:
            return Finished(entry, was_there=True, seconds=time.perf_counter() - started)
        given = max(1, self._token_budget >> halvings)
        report = Report(token_budget=given)
        progress, sealing = _Told(self._under_way, unit.number), _UnitSealing(self._files, unit)
        writer = ShardWriter(sealing, report, progress, 1)
        try:
            with self._encoding:
                _use_threads(self._n_threads)
                draft = ShardDraft(
                    unit.sentences,
                    dim=self._shape[0],
                    n_layers=self._shape[1],
                    codec=self._codec,
                    sentence_keys=unit.keys,
                    memory=self._memory,
                )
                pipeline = EncodingPipeline(self._encoder, writer, report, progress)
                pipeline.encode(draft, unit.window)
                pipeline.finish()
                if report.token_budget < given:
                    self._token_budget = report.token_budget
        except BaseException:
            sealing.given_up = True
            with suppress(Exception):
                writer.finish()
            raise
        finally:
            self._under_way.pop(unit.number, None)
        writer.finish()
        shard = sealing.shard
        kept = None if shard is None or len(shard.draft.keys) == len(unit.keys) else _positions(shard, unit)
        return Finished(
            None if shard is None else shard.entry,
            kept,
            False,
            time.perf_counter() - started,
            report.token_budget,
            report.too_large,
            report.refused,
            progress.notices,
        )

    def progress(self) -> dict[int, int]:
        """Return the tokens encoded of each unit under way."""
        return dict(self._under_way)


def vectors_digest(vectors: Sequence[NDArray[np.floating]]) -> str:
    """Return a hash of vectors, bit by bit."""
    digest = hashlib.sha256()
    for array in vectors:
        digest.update(np.ascontiguousarray(array, np.float32).view(np.uint8).data)
    return digest.hexdigest()


def _use_threads(n_threads: int) -> None:
    """Bound the threads of arithmetic started from this one: OpenMP counts them for each thread."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(n_threads)


def _positions(shard: PreparedShard, unit: Unit) -> list[int]:
    stored = set(shard.draft.keys)
    return [position for position, key in enumerate(unit.keys) if key in stored]


class _UnitSealing:
    """Leaves the one shard of a unit in the store's directory."""

    def __init__(self, files: UnitFiles, unit: Unit) -> None:
        self._files, self._unit = files, unit
        self.shard: PreparedShard | None = None
        self.given_up = False

    def prepared(self, draft: ShardDraft) -> AbstractContextManager[PreparedShard]:
        """Write it."""
        if self.given_up:
            raise InterruptedError("the unit was given up")
        return self._files.prepared(draft)

    def publish(self, shard: PreparedShard) -> tuple[int, int]:
        """Name it by its unit."""
        self._files.keep(self._unit, shard)
        self.shard = shard
        return shard.entry.n_sentences, shard.entry.n_tokens

    def stop_waiting(self) -> None:
        """Nothing is waited for."""


class _Told(Progress):
    """Keeps what a unit's encoding says, for whoever asks."""

    def __init__(self, under_way: dict[int, int], number: int) -> None:
        self._under_way, self._number = under_way, number
        self.notices: list[str] = []

    def encoded(self, n_tokens: int) -> None:
        """Count."""
        self._under_way[self._number] = self._under_way.get(self._number, 0) + n_tokens

    def notice(self, message: str) -> None:
        """Keep it."""
        self.notices.append(message)
