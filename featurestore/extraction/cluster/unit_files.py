"""Finished units on their way into a store: a sealed shard in ``tmp/``, and a record of what it is.

The shard's final name is the hash of its bytes, which nobody knows before they are computed; here it is named
by its unit. So a unit that is given out again, because whoever encoded it died before saying so, or because
the whole run did, is taken as it is after its bytes are compared with the record. What nobody asks for again
is removed like any other temporary file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from featurestore.disk.atomic import write_atomic
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.hashes import file_sha256
from featurestore.disk.strict_json import parse_json
from featurestore.disk.temporary import temporary_name
from featurestore.errors import FeaturestoreError, StoreWriteError
from featurestore.extraction.engines.units import Unit
from featurestore.keyarrays import keys_array
from featurestore.store.format.directory import TMP
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import entry_from_json
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.shard import ShardDraft
from featurestore.store.writer import PreparedShard

_MOST_RECORD_BYTES, _MOST_VALUES = 1 << 16, 1 << 12


class UnitFiles:
    """The finished units of one store.

    Parameters
    ----------
    store : Path
        Absolute.
    fingerprint : str
        Of the store's recipe.
    codec : str
        Of the shards.
    """

    def __init__(self, store: Path, fingerprint: str, codec: str, filesystem: FileSystem = LOCAL) -> None:
        self.fingerprint, self.codec = fingerprint, codec
        self._directory, self._filesystem = store / TMP, filesystem

    def name(self, unit: Unit) -> str:
        """Return what names a unit here."""
        return unit.digest(self.fingerprint, self.codec)

    def path(self, name: str) -> Path:
        """Return where the shard of a unit of that name lies when it is finished."""
        return self._directory / f"unit-{name}.h5"

    def find(self, unit: Unit) -> ShardEntry | None:
        """Return the entry of a unit's shard if it lies here, whole, with every sentence and every byte."""
        path = self.path(self.name(unit))
        try:
            with path.with_suffix(".json").open("rb") as file:
                raw = file.read(_MOST_RECORD_BYTES)
            entry = entry_from_json(parse_json(raw, most_values=_MOST_VALUES))
            if entry.codec != self.codec or path.stat().st_size != entry.n_bytes:
                return None
            if file_sha256(path) != entry.sha256:
                return None
            keys = ShardReader(path, entry, access="pread", check="never").keys
        except (OSError, KeyError, TypeError, ValueError, AttributeError, FeaturestoreError):
            return None  # it is encoded again
        return entry if np.array_equal(keys, keys_array(unit.keys)) else None

    def remove(self, name: str) -> None:
        """Remove what lies here of a unit; what cannot be removed now is removed as other garbage is."""
        path = self.path(name)
        with contextlib.suppress(StoreWriteError):
            self._filesystem.remove(path.with_suffix(".json"))
            self._filesystem.remove(path)

    @contextmanager
    def prepared(self, draft: ShardDraft) -> Iterator[PreparedShard]:
        """Write a full draft, synced, under a temporary name; :meth:`keep` it inside."""
        sealed = draft.seal(self.fingerprint)
        path = self._directory / temporary_name(".h5")
        divisible = len(draft.sentences) > 1
        with self._filesystem.temporary_file(path, [sealed.head, sealed.values], divisible=divisible):
            yield PreparedShard(draft, sealed.entry, path)

    def keep(self, unit: Unit, shard: PreparedShard) -> None:
        """Name a prepared shard by its unit and record what it is; another of the same unit makes way."""
        path = self.path(self.name(unit))
        self._filesystem.replace(shard.path, path)
        write_atomic(path.with_suffix(".json"), json.dumps(shard.entry.to_dict()).encode(), self._filesystem)
