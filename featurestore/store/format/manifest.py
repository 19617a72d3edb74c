"""Manifests: immutable, numbered JSON files, each the complete list of a store's shards at one commit.

A commit publishes the next free number with link(2), which never overwrites; readers keep the manifest they
opened. The highest number is the store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from featurestore import limits
from featurestore._version import __version__
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.opening import open_for_reading
from featurestore.disk.strict_json import parse_json
from featurestore.disk.temporary import temporary_name
from featurestore.errors import (
    DamagedStoreError,
    FormatVersionError,
    NotAStoreError,
    StoreLimitError,
    UsageError,
)
from featurestore.recipe import Recipe, canonical_json
from featurestore.store.format.access import inspecting, refuse_unreadable
from featurestore.store.format.codec import CODECS, CodecError
from featurestore.store.format.layout import FORMAT_VERSION, CanaryEntry, Extent, ShardEntry
from featurestore.vectors import token_shape

MANIFESTS, SHARDS, CANARIES, INDEX, TMP = "manifests", "shards", "canaries", "index", "tmp"
DAMAGED = "damaged"
"""Directory of a store to which repair moves what is damaged; nothing reads or removes it."""

_FILE_NAME = re.compile(r"([0-9]{8}|[1-9][0-9]{8,15})\.json")
_MOST_EXTENTS = 16
_MOST_TEXT = 1000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Commit:
    """Who made a commit and how fast; for people and for estimates, decides nothing.

    Attributes
    ----------
    time : str
        ISO 8601, UTC.
    software : str
        Such as ``featurestore 0.1.0``.
    device : str
        Where the encoder ran, empty if unknown.
    tokens_per_second : float
        Encoding speed, 0 if unknown.
    n_read, n_distinct, n_cached : int
        Sentences in the corpora of the extraction that made the commit, how many of them differ, and how many
        were in the store before it; 0 if unknown.
    """

    time: str = ""
    software: str = ""
    device: str = ""
    tokens_per_second: float = 0.0
    n_read: int = 0
    n_distinct: int = 0
    n_cached: int = 0


def commit_note(last: Commit | None = None) -> Commit:
    """Return who is committing, now; of a commit that encodes nothing, what the last one knew of speed."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    note = Commit(now, f"featurestore {__version__}")
    if last is None:
        return note
    return replace(note, device=last.device, tokens_per_second=last.tokens_per_second)


@dataclass(frozen=True)
class Manifest:
    """A snapshot of a store.

    Attributes
    ----------
    number : int
        From 1.
    recipe : Recipe
    encoder : str
        The specification that loads the encoder again, for later appends.
    dim, n_layers : int
        Shape of a vector.
    codec : str
        For shards to come; each shard names its own.
    shard_bytes : int
        Payload at which a shard is full.
    shards : tuple of ShardEntry
    canaries : CanaryEntry or None
        What an encoder must give again before it may add to the store.
    commit : Commit
    """

    number: int
    recipe: Recipe
    encoder: str
    dim: int
    n_layers: int
    codec: str
    shard_bytes: int
    shards: tuple[ShardEntry, ...] = ()
    canaries: CanaryEntry | None = None
    commit: Commit = field(default_factory=Commit)

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of a token's vectors: ``(dim,)``, or ``(n_layers, dim)``."""
        return token_shape(self.n_layers, self.dim)

    @property
    def n_sentences(self) -> int:
        """Sentences stored."""
        return sum(shard.n_sentences for shard in self.shards)

    @property
    def n_tokens(self) -> int:
        """Tokens stored."""
        return sum(shard.n_tokens for shard in self.shards)

    @property
    def n_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.n_bytes for shard in self.shards)

    def to_json(self) -> bytes:
        """Return the manifest as it is written, its own checksum included."""
        body: dict[str, Any] = {
            "format": "featurestore",
            "format_version": FORMAT_VERSION,
            "number": self.number,
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.recipe.fingerprint,
            "encoder": self.encoder,
            "dim": self.dim,
            "n_layers": self.n_layers,
            "codec": self.codec,
            "shard_bytes": self.shard_bytes,
            "shards": [],
            "commit": asdict(self.commit),
        }
        if self.canaries is not None:
            body["canaries"] = _canaries_to_json(self.canaries)
        # Every commit writes all shards: their text is made once. No string holds a line end, and no other
        # object is indented so, so each list below is found in one place only.
        texts = [shard.texts for shard in self.shards]
        canonical = canonical_json(body).removesuffix(b'"shards":[]}')
        digest = hashlib.sha256(canonical + b'"shards":[')
        digest.update(b",".join(canonical for canonical, _ in texts))
        digest.update(b"]}")
        body["checksum"] = digest.hexdigest()
        start, end = json.dumps(body, indent=1, ensure_ascii=True).encode().split(b'\n "shards": []')
        listed = b"[\n  " + b",\n  ".join(indented for _, indented in texts) + b"\n ]" if texts else b"[]"
        return start + b'\n "shards": ' + listed + end + b"\n"


def require_own_directories(store: Path) -> None:
    """Raise if one of a store's directories is a link: reading, and worse sweeping, would happen elsewhere.

    Raises
    ------
    DamagedStoreError
    """
    for name in (MANIFESTS, SHARDS, CANARIES, INDEX, TMP, DAMAGED):
        if (store / name).is_symlink():
            raise DamagedStoreError(
                f"{store / name} is a symbolic link, expected a directory of the store's own: a store never "
                "leads outside itself. If the link is yours, link to the whole store instead"
            )


def list_numbers(store: Path) -> list[int]:
    """Return the numbers of a store's manifests, ascending.

    Raises
    ------
    NotAStoreError
        If the path does not exist, or is not a store.
    UnreadableStoreError
        If it may not be looked at.
    DamagedStoreError
        See :func:`require_own_directories`.
    """
    directory = store / MANIFESTS
    with inspecting(store):
        require_own_directories(store)
        if not directory.is_dir():
            if not store.exists():
                raise NotAStoreError(
                    f"there is no store at {store}: `featurestore extract ... --store {store}` makes one"
                )
            raise NotAStoreError(f"{store} is not a store: it has no directory {MANIFESTS}/")
        numbers = [int(m[1]) for path in directory.iterdir() if (m := _FILE_NAME.fullmatch(path.name))]
    if not numbers:
        raise NotAStoreError(f"{store} is not a store: {directory} holds no manifest")
    return sorted(numbers)


def read_manifest(store: Path, number: int | None = None) -> Manifest:
    """Read one manifest, the latest by default.

    Raises
    ------
    NotAStoreError
        If there is none.
    FormatVersionError
        If a newer featurestore wrote it.
    DamagedStoreError
        If it is not what was committed.
    """
    numbers = list_numbers(store)
    if number is None:
        number = numbers[-1]
    elif number not in numbers:
        raise UsageError(f"store {store} has no snapshot {number}; it has {numbers[0]} to {numbers[-1]}")
    return _read(store, number)


def read_listed(store: Path, number: int) -> Manifest | None:
    """Return a manifest that :func:`list_numbers` named, None if gc removed it since.

    Errors as in :func:`read_manifest`.
    """
    try:
        return _read(store, number)
    except DamagedStoreError as error:
        if error.is_gone:
            return None
        raise


def _read(store: Path, number: int) -> Manifest:
    path = manifest_path(store, number)
    try:
        with open(open_for_reading(path), "rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes > limits.MAX_MANIFEST_BYTES:
                raise DamagedStoreError(
                    f"manifest {path} has {n_bytes:,} bytes, over the bound of {limits.MAX_MANIFEST_BYTES:,}"
                )
            raw = file.read(n_bytes)
    except OSError as error:
        # Over a network, a file that another computer removed may be stale instead.
        is_gone = error.errno in (errno.ENOENT, errno.ESTALE)
        if not is_gone:
            refuse_unreadable(path, error)
        raise DamagedStoreError(
            f"manifest {path} cannot be read: {error.strerror or error}", path=path, is_gone=is_gone
        ) from error
    return parse_manifest(raw, path, number)


def parse_manifest(raw: bytes, path: Path, number: int) -> Manifest:
    """Parse a manifest's bytes; ``path`` is for messages. Errors as in :func:`read_manifest`."""

    def damaged(what: str) -> DamagedStoreError:
        return DamagedStoreError(
            f"manifest {path} is damaged: {what}. `featurestore repair` goes on from the last sound "
            "manifest; until then `Store.open(path, snapshot=N)` or `--snapshot N` reads an earlier one"
        )

    try:
        # As we write them, values take ten bytes on average. Brackets alone would take a hundred in memory.
        body = parse_json(raw, most_values=1024 + len(raw) // 4)
    except ValueError as error:
        raise damaged(f"not JSON as expected ({error})") from error
    if not isinstance(body, dict) or body.get("format") != "featurestore":
        raise damaged("not a featurestore manifest")
    version = body.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version}; this featurestore reads up to {FORMAT_VERSION}: "
            "upgrade it (pip install --upgrade featurestore)"
        )
    stated = body.pop("checksum", None)
    try:
        found = hashlib.sha256(canonical_json(body)).hexdigest()
    except (ValueError, RecursionError) as error:
        raise damaged(f"values JSON does not allow ({error})") from error
    if stated != found:
        raise damaged(f"checksum {found[:16]}..., expected {str(stated)[:16]}...")
    try:
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"format version {version!r}, expected {FORMAT_VERSION}")
        manifest = _from_json(body)
        if manifest.recipe.fingerprint != body["fingerprint"]:
            raise ValueError(f"fingerprint {body['fingerprint']!r} is not that of its recipe")
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise damaged(f"{type(error).__name__}: {error}") from error
    if manifest.number != number:
        raise damaged(f"it says it is number {manifest.number}")
    return manifest


def publish(store: Path, manifest: Manifest, filesystem: FileSystem = LOCAL) -> bool:
    """Make a manifest the store's next snapshot.

    Returns
    -------
    bool
        False if another writer took the number first; read the latest and try again.

    Raises
    ------
    StoreLimitError
        If no reader would take it.
    DamagedStoreError
        See :func:`require_own_directories`.
    """
    require_own_directories(store)
    raw = manifest.to_json()
    if len(manifest.shards) > limits.MAX_SHARDS or len(raw) > limits.MAX_MANIFEST_BYTES:
        raise StoreLimitError(
            f"the manifest of {store} would list {len(manifest.shards):,} shards in {len(raw):,} bytes, over "
            f"the bounds of {limits.MAX_SHARDS:,} and {limits.MAX_MANIFEST_BYTES:,}: make another store, of "
            "larger shards"
        )
    filesystem.make_directory(store / TMP, lasting=False)  # copying may have left out what is empty
    temporary = store / TMP / temporary_name(".json")
    with filesystem.temporary_file(temporary, [raw]):
        return filesystem.link_new(temporary, manifest_path(store, manifest.number))


def manifest_path(store: Path, number: int) -> Path:
    """Return where a manifest lies."""
    return store / MANIFESTS / f"{number:08d}.json"


def following(manifest: Manifest, shards: tuple[ShardEntry, ...], commit: Commit, codec: str) -> Manifest:
    """Return the next manifest: the given one with more shards."""
    return replace(
        manifest, number=manifest.number + 1, shards=(*manifest.shards, *shards), commit=commit, codec=codec
    )


def _canaries_to_json(canaries: CanaryEntry) -> dict[str, Any]:
    return {
        **canaries.shard.to_dict(),
        "tolerance": canaries.tolerance,
        "made_with": canaries.made_with,
    }


def _from_json(body: Mapping[str, Any]) -> Manifest:
    shards = body["shards"]
    if not isinstance(shards, list) or len(shards) > limits.MAX_SHARDS:
        raise ValueError("the list of shards is not a list or too long")
    if body["codec"] not in CODECS:
        raise ValueError(f"unknown codec {body['codec']!r}")
    if not isinstance(body["recipe"], dict) or not isinstance(body["encoder"], str):
        raise ValueError("the recipe is no object, or the encoder no string")
    entries = tuple(_shard_from_json(shard) for shard in shards)
    if len({entry.name for entry in entries}) != len(entries):
        raise ValueError("it lists a shard twice")
    dim, n_layers = (
        _count(body["dim"], limits.MAX_DIM, least=1),
        _count(body["n_layers"], limits.MAX_LAYERS, least=1),
    )
    shape = token_shape(n_layers, dim)
    canaries = None if body.get("canaries") is None else _canaries_from_json(body["canaries"])
    for entry in entries if canaries is None else (*entries, canaries.shard):
        if "values" in entry.extents and entry.extents["values"].shape[1:] != shape:
            raise ValueError(f"shard {entry.name} is said to hold vectors of another shape than {shape}")
    return Manifest(
        number=_count(body["number"], least=1),
        recipe=Recipe(body["recipe"]),
        encoder=body["encoder"],
        dim=dim,
        n_layers=n_layers,
        codec=body["codec"],
        shard_bytes=_count(body["shard_bytes"], least=1),
        shards=entries,
        canaries=canaries,
        commit=Commit(**_typed(body["commit"], Commit())),
    )


def _shard_from_json(body: Mapping[str, Any]) -> ShardEntry:
    for name in ("sha256", "head_sha256"):
        if not isinstance(body[name], str) or not _SHA256.fullmatch(body[name]):
            raise ValueError(f"{name} is not 64 hexadecimal digits")
    if body["codec"] not in CODECS:
        raise ValueError(f"unknown codec {body['codec']!r}")
    if len(body["extents"]) > _MOST_EXTENTS or any(len(extent) > 5 for extent in body["extents"].values()):
        raise ValueError("too many extents, or one of too many dimensions")
    extents = {}
    for name, (offset, dtype, *shape) in body["extents"].items():
        if dtype not in ("<u8", "|u1", "<f2", "<f4", "|i1"):
            raise ValueError(f"type {dtype!r} of /{name}")
        extents[str(name)] = Extent(_count(offset), dtype, tuple(_count(size) for size in shape))
    return ShardEntry(
        sha256=body["sha256"],
        head_sha256=body["head_sha256"],
        n_bytes=_count(body["n_bytes"], limits.MAX_SHARD_BYTES),
        n_sentences=_count(body["n_sentences"], limits.MAX_SHARD_SENTENCES),
        n_tokens=_count(body["n_tokens"]),
        codec=body["codec"],
        error=CodecError(**_typed(body["error"], CodecError())),
        extents=extents,
    )


def _canaries_from_json(body: Mapping[str, Any]) -> CanaryEntry:
    shard, tolerance, made_with = _shard_from_json(body), body["tolerance"], body["made_with"]
    if shard.codec != "float32":
        raise ValueError(f"canaries of codec {shard.codec!r}, expected float32")
    _count(shard.n_sentences, limits.MAX_CANARIES, least=1)
    _count(shard.n_tokens, limits.MAX_CANARY_TOKENS)
    _count(shard.n_bytes, limits.MAX_CANARY_BYTES)
    if not isinstance(tolerance, float) or not 0 < tolerance < 1:
        raise ValueError(f"the canaries may differ by {tolerance!r}, expected a number between 0 and 1")
    if not isinstance(made_with, str) or len(made_with) > _MOST_TEXT or not made_with.isprintable():
        raise ValueError("what the canaries were made with is no short, printable text")
    return CanaryEntry(shard, tolerance, made_with)


def _count(value: Any, bound: int = 1 << 48, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= bound:
        raise ValueError(f"{value!r} is not a number between {least} and {bound}")
    return value


def _typed(body: Mapping[str, Any], example: Commit | CodecError) -> Mapping[str, Any]:
    """Return the known fields of a record after checking that each has the type of an example's."""
    known = {name: value for name, value in body.items() if name in vars(example)}
    for name, value in known.items():
        expected = type(getattr(example, name))
        allowed = (int, float) if expected is float else expected
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, expected {expected.__name__}")
    return known
