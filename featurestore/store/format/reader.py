"""Reading one shard: its bytes by memory map or positioned reads, verified before they are returned."""

from __future__ import annotations

import errno
import hashlib
import itertools
import mmap
import operator
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.opening import OpenFile
from featurestore.disk.storage import Storage, StoredFile
from featurestore.errors import DamagedStoreError, StoreError
from featurestore.keys import Sentence, sentence_with
from featurestore.store.format.access import refuse_unreadable
from featurestore.store.format.codec import Array, Floats, get_codec
from featurestore.store.format.layout import Extent, ShardEntry, check_extents, checksum

Access = Literal["mmap", "pread"]
Check = Literal["first", "always", "never"]
Opened = TypeVar("Opened")
File = TypeVar("File", bound=StoredFile)


class ShardReader:
    """One open shard.

    The size and the head's hash are checked on opening; a sentence's checksum when it is first read
    (``check="first"``), on each read (``"always"``) or not at all (``"never"``).

    Parameters
    ----------
    path : Path
        Of the shard file.
    entry : ShardEntry
        As the manifest lists it.
    access : {"mmap", "pread"}
        Memory map, or positioned reads: for file systems on which a file may change under its reader, and for
        a disk that may fail. The kernel ends a process (SIGBUS) that touches a mapped page which was cut away
        or cannot be read. :meth:`stored` and the first read of a sentence compare the file's size before they
        touch it, so that a cut shard is an error there too. A cut between that comparison and the access, or
        of a sentence that was compared before, still ends the process: only positioned reads are safe from
        it.
    check : {"first", "always", "never"}

    Attributes
    ----------
    values, scales, norms : array or None
        The stored arrays, over the map. ``values`` is None with ``access="pread"``, the others where the
        codec has none. Their bytes are not compared with anything: call :meth:`verify_row` first, or use
        :meth:`stored`.
    offsets : (n_sentences + 1,) uint64
    checksums : (n_sentences,) uint64
        XXH3-64 of each sentence's values, then its scales, as they are stored.
    keys : (n_sentences, 16) uint8
    verified : (n_sentences,) bytearray
        1 where :meth:`verify_row` need not compare again.

    Raises
    ------
    DamagedStoreError
        If the file is missing, has another size, or its head is not what was committed.
    """

    def __init__(
        self,
        path: Path,
        entry: ShardEntry,
        *,
        access: Access = "mmap",
        check: Check = "first",
        filesystem: Storage = LOCAL,
    ) -> None:
        self.path, self.entry, self.check = path, entry, check
        self.codec = get_codec(entry.codec)
        problem = check_extents(entry.extents, entry.n_sentences, entry.n_tokens, entry.n_bytes, entry.codec)
        if problem:
            raise self._damaged(f"the manifest's entry for shard {path} contradicts itself: {problem}")
        self._values_extent = entry.extents["values"]
        self._map: mmap.mmap | None = None
        self.values: Array | None = None
        self._head: memoryview | bytes
        if access == "mmap":
            # A plain ndarray over the map: np.memmap's subclass costs half the speed.
            self._map = self._mapped()
            mapped = memoryview(self._map)
            self._head = mapped[: self._values_extent.offset]
            self.values = self._array(mapped, self._values_extent)
        else:
            self._file: StoredFile = self._opened(filesystem.open)
            self._head = self._read(0, self._values_extent.offset)
        if hashlib.sha256(self._head).hexdigest() != entry.head_sha256:
            raise self._damaged(
                f"shard {path} is damaged: its structure (keys, offsets, tokens) is not what was committed. "
                "Restore the file from a copy, or run `featurestore repair` on the store and extract again"
            )
        self.offsets: NDArray[np.uint64] = self._structure("offsets")
        self.bounds: list[int] = self.offsets.tolist()
        self.keys: NDArray[np.uint8] = self._structure("keys").view(np.uint8)
        self.checksums: NDArray[np.uint64] = self._structure("checksums")
        self._token_offsets: NDArray[np.uint64] = self._structure("token_offsets")
        self._condition_offsets: NDArray[np.uint64] | None = None
        # The hash shows that the head is what its writer wrote, not that it is valid.
        self._require_ascending("offsets", entry.n_tokens, limits.MAX_SENTENCE_TOKENS)
        self._require_ascending("token_offsets", entry.extents["tokens"].n_bytes, limits.MAX_TOKEN_BYTES)
        if "conditions" in entry.extents:
            self._condition_offsets = self._structure("condition_offsets")
            end = entry.extents["conditions"].n_bytes
            self._require_ascending("condition_offsets", end, limits.MAX_CONDITION_BYTES, least=0)
        self.scales: Array | None = self._structure("scales") if "scales" in entry.extents else None
        self.norms: Array | None = self._structure("norms") if "norms" in entry.extents else None
        self.verified = bytearray([check == "never"]) * entry.n_sentences

    def verify_row(self, row: int) -> None:
        """Compare a sentence's bytes with what was committed, once or always as ``check`` says.

        Raises
        ------
        DamagedStoreError
            If they differ.
        """
        if not self.verified[row]:
            self.stored(row)

    def verify_rows(self, row: int, values: Array) -> None:
        """Do as :meth:`verify_row` with rows of a sentence that the caller has read from the file."""
        if not self.verified[row]:
            start, stop = self.bounds[row], self.bounds[row + 1]
            self._require_intact(row, values, None if self.scales is None else self.scales[start:stop])
            self.verified[row] = self.check == "first"

    def __len__(self) -> int:
        return self.entry.n_sentences

    def length(self, row: int) -> int:
        """Return the tokens of a sentence."""
        return self.bounds[row + 1] - self.bounds[row]

    def key(self, row: int) -> bytes:
        """Return the key of a sentence, 16 bytes."""
        key: bytes = self.keys[row].tobytes()
        return key

    def condition(self, row: int) -> bytes:
        """Return the condition of a sentence, empty if it has none."""
        if self._condition_offsets is None:
            return b""
        start = self.entry.extents["conditions"].offset
        first, last = int(self._condition_offsets[row]), int(self._condition_offsets[row + 1])
        return bytes(self._head[start + first : start + last])

    def tokens(self, row: int) -> Sentence:
        """Return the tokens of a sentence, with its condition if it has one."""
        edges = self._token_offsets[self.bounds[row] : self.bounds[row + 1] + 1].tolist()
        start = self.entry.extents["tokens"].offset
        text = bytes(self._head[start + edges[0] : start + edges[-1]])
        try:
            tokens = [
                text[a - edges[0] : b - edges[0]].decode("utf-8", "surrogatepass")
                for a, b in itertools.pairwise(edges)
            ]
        except UnicodeDecodeError as error:
            raise self._damaged(
                f"shard {self.path} is damaged: a token of sentence {row} is not UTF-8 ({error})", row
            ) from error
        return sentence_with(tokens, self.condition(row))

    @property
    def token_offsets(self) -> NDArray[np.uint64]:
        """Where each token begins in :attr:`token_text`, then where the last one ends; (n_tokens + 1,)."""
        return self._token_offsets

    @property
    def token_text(self) -> NDArray[np.uint8]:
        """The UTF-8 bytes of all tokens, end to end."""
        return self._structure("tokens").view(np.uint8)

    def token(self, number: int) -> str:
        """Return a token by its number in the shard."""
        start = self.entry.extents["tokens"].offset
        first, last = int(self._token_offsets[number]), int(self._token_offsets[number + 1])
        try:
            return bytes(self._head[start + first : start + last]).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self._damaged(
                f"shard {self.path} is damaged: token {number} is not UTF-8 ({error})"
            ) from error

    def same_tokens(self, row: int, tokens: Sequence[bytes]) -> bool:
        """Return whether a sentence's tokens are these, given as UTF-8 bytes."""
        start, stop = self.bounds[row], self.bounds[row + 1]
        if stop - start != len(tokens):
            return False
        first, last = int(self._token_offsets[start]), int(self._token_offsets[stop])
        base = self.entry.extents["tokens"].offset
        if bytes(self._head[base + first : base + last]) != b"".join(tokens):
            return False
        edges = self._token_offsets[start : stop + 1].tolist()
        return list(map(operator.sub, edges[1:], edges)) == list(map(len, tokens))

    def stored(self, row: int) -> tuple[Array, Array | None]:
        """Return a sentence's rows as they lie on disk, and its scales if the codec has them; checked.

        Raises
        ------
        DamagedStoreError
            If the bytes are not those that were committed.
        """
        self.require_uncut()
        values, scales = self._rows(row)
        if not self.verified[row]:
            self._require_intact(row, values, scales)
            self.verified[row] = self.check == "first"
        return values, scales

    def span(self, first: int, last: int) -> tuple[Array, Array | None]:
        """Return the rows of some tokens as they lie on disk, and their scales; no checksum is compared."""
        self.require_uncut()
        return self._span(first, last)

    def read_into(self, out: Floats, row: int) -> None:
        """Decode a sentence into a float array of its shape.

        Raises
        ------
        DamagedStoreError
            See :meth:`stored`.
        """
        values, scales = self.stored(row)
        self.codec.decode_into(out, values, scales, self.norms)

    def read(self, row: int) -> Floats:
        """Return a sentence's vectors, (n_tokens, dim) or (n_tokens, n_layers, dim) float32."""
        out = np.empty((self.length(row), *self._values_extent.shape[1:]), np.float32)
        self.read_into(out, row)
        return out

    def row_is_intact(self, row: int) -> bool:
        """Return whether a sentence's bytes have the checksum that was committed."""
        self.require_uncut()
        return checksum(*self._rows(row)) == int(self.checksums[row])

    def require_uncut(self) -> None:
        """Raise if the mapped file has become shorter: touching a page that is gone ends the process.

        Raises
        ------
        DamagedStoreError
            If it has.
        """
        if self._map is None:
            return
        try:
            size = self._map.size()
        except OSError as error:  # over a network, when another computer removed the file
            refuse_unreadable(self.path, error)
            raise self._damaged(f"shard {self.path} cannot be read: {error.strerror}") from error
        if size < self.entry.n_bytes:
            raise self._damaged(
                f"shard {self.path} has {size:,} bytes now, {self.entry.n_bytes:,} when it was opened: it "
                "was cut. Restore it from a copy; where files change under their readers, open stores with "
                'access="pread"'
            )

    def _damaged(self, message: str, row: int | None = None, *, is_gone: bool = False) -> DamagedStoreError:
        return DamagedStoreError(message, path=self.path, shard=self.entry.name, row=row, is_gone=is_gone)

    def _require_intact(self, row: int, values: Array, scales: Array | None) -> None:
        """Raise unless the bytes of a sentence are those that were committed."""
        found = checksum(values, scales)
        if found != self.checksums[row]:
            raise self._damaged(
                f"shard {self.path} is damaged: sentence {row} (key {self.key(row).hex()}, "
                f"{' '.join(self.tokens(row)[:8])!r}) has checksum {found:016x}, expected "
                f"{int(self.checksums[row]):016x}. `featurestore verify` lists everything damaged",
                row,
            )

    def _rows(self, row: int) -> tuple[Array, Array | None]:
        return self._span(self.bounds[row], self.bounds[row + 1])

    def _span(self, start: int, stop: int) -> tuple[Array, Array | None]:
        scales = None if self.scales is None else self.scales[start:stop]
        if self.values is not None:
            return self.values[start:stop], scales
        extent = self._values_extent
        raw = self._read(*extent.rows(start, stop))
        return np.frombuffer(raw, extent.dtype).reshape(stop - start, *extent.shape[1:]), scales

    def _opened(self, open_file: Callable[[Path], File]) -> File:
        """Return the file, open, after comparing its size."""
        try:
            file = _with_descriptors(lambda: open_file(self.path))
        except FileNotFoundError as error:
            raise self._damaged(
                f"shard {self.path} is missing ({self.entry.n_sentences:,} sentences): restore it from a "
                "copy, or run `featurestore repair` on the store and extract again",
                is_gone=True,
            ) from error
        except OSError as error:
            refuse_unreadable(self.path, error)
            raise self._damaged(f"shard {self.path} cannot be opened: {error.strerror}") from error
        self._require_size(file.n_bytes)
        return file

    def _require_size(self, n_bytes: int) -> None:
        if n_bytes != self.entry.n_bytes:
            raise self._damaged(
                f"shard {self.path} has {n_bytes:,} bytes, expected {self.entry.n_bytes:,}: "
                "it was cut or overwritten"
            )

    def _mapped(self) -> mmap.mmap:
        file = self._opened(OpenFile)  # only the local disk can be mapped
        try:
            return _with_descriptors(
                lambda: mmap.mmap(file.fileno(), self.entry.n_bytes, access=mmap.ACCESS_READ)
            )
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError):
                refuse_unreadable(self.path, error)
            raise StoreError(
                f"shard {self.path} ({self.entry.n_bytes:,} bytes) cannot be mapped into memory ({error}): "
                'open the store with access="pread"'
            ) from error

    def _array(self, buffer: memoryview | bytes, extent: Extent) -> Array:
        count = int(np.prod(extent.shape, dtype=np.int64))
        return np.frombuffer(buffer, extent.dtype, count, extent.offset).reshape(extent.shape)

    def _require_ascending(self, name: str, end: int, most: int, *, least: int = 1) -> None:
        """Raise unless a dataset of offsets goes from 0 to ``end`` in steps of ``least`` to ``most``."""
        offsets = self._structure(name)
        # Offsets are unsigned: a decrease wraps to a huge step, which the upper bound catches.
        steps = np.diff(offsets)
        if (
            offsets[0] != 0
            or offsets[-1] != end
            or steps.min(initial=most) < least
            or steps.max(initial=least) > most
        ):
            raise self._damaged(
                f"shard {self.path} is damaged: /{name} does not ascend from 0 to {end:,} in steps of "
                f"{least} to {most:,}"
            )

    def _structure(self, name: str) -> NDArray[np.uint64]:
        array: NDArray[np.uint64] = self._array(self._head, self.entry.extents[name])  # type: ignore[assignment]
        return array

    def _read(self, offset: int, n_bytes: int) -> bytes:
        try:
            found = self._file.read(offset, n_bytes)
        except OSError as error:
            refuse_unreadable(self.path, error)
            raise self._damaged(
                f"shard {self.path} cannot be read at byte {offset:,}: {error.strerror}. Restore it from "
                "a copy, on a disk that works"
            ) from error
        if len(found) != n_bytes:
            raise self._damaged(f"shard {self.path} ends before byte {offset + n_bytes:,}: it was cut")
        return found


def _with_descriptors(open_file: Callable[[], Opened]) -> Opened:
    """Open a file; where the process has as many open as it may, raise that limit and try again.

    Every shard in use holds one descriptor, mapped or not, and a large store has more shards than the usual
    limit of 1,024.
    """
    try:
        return open_file()
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = soft + limits.MAX_SHARDS if hard == resource.RLIM_INFINITY else hard
        if error.errno != errno.EMFILE or wanted <= soft:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, soft + limits.MAX_SHARDS), hard))
        return open_file()
