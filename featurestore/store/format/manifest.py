"""Manifests: what a store holds at one commit, as JSON; checked wherever it is parsed.

One of version 1 lists every shard itself. One of version 2 names lists of shards and holds the newest entries
only, so that a commit writes what it adds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from featurestore import limits
from featurestore._version import __version__
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.strict_json import parse_json
from featurestore.errors import (
    DamagedStoreError,
    FormatVersionError,
    UsageError,
)
from featurestore.recipe import Recipe, canonical_json
from featurestore.store.format.codec import CODECS, CodecError
from featurestore.store.format.layout import CanaryEntry, Extent, ShardEntry
from featurestore.store.listing.files import Kind, Lists, Reference
from featurestore.store.listing.shards import Part, Shards
from featurestore.vectors import token_shape

NEWEST_VERSION = 2
"""Of new stores. A store of version 1 stays one until somebody upgrades it."""

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
    """Return the Commit record for now; ``last`` carries its device and speed over, if nothing is encoded."""
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
    shards : Shards
        A sequence of ShardEntry; may be given as any other one.
    canaries : CanaryEntry or None
        Vectors that an encoder must reproduce before it may add to the store.
    commit : Commit
    version : int
        Of the format.
    left_out : Shards
        Shards that somebody took out on purpose, whose files may still be there: `repair` does not take them
        for those of a writer that was killed. All lie in lists; a store of version 1 does not keep them.
    """

    number: int
    recipe: Recipe
    encoder: str
    dim: int
    n_layers: int
    codec: str
    shard_bytes: int
    shards: Shards = field(default_factory=Shards)
    canaries: CanaryEntry | None = None
    commit: Commit = field(default_factory=Commit)
    version: int = NEWEST_VERSION
    left_out: Shards = field(default_factory=Shards, compare=False)

    def __post_init__(self) -> None:
        given: object = self.shards
        if isinstance(given, (tuple, list)):
            object.__setattr__(self, "shards", Shards(given))

    @property
    def kind(self) -> Kind:
        """What its lists say of their store."""
        return Kind(self.recipe.fingerprint, self.token_shape)

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of a token's vectors: ``(dim,)``, or ``(n_layers, dim)``."""
        return token_shape(self.n_layers, self.dim)

    @property
    def n_sentences(self) -> int:
        """Sentences stored."""
        return self.shards.n_sentences

    @property
    def n_tokens(self) -> int:
        """Tokens stored."""
        return self.shards.n_tokens

    @property
    def n_bytes(self) -> int:
        """Bytes of all shards."""
        return self.shards.n_bytes

    def to_json(self) -> bytes:
        """Return the manifest as it is written, its own checksum included."""
        body: dict[str, Any] = {
            "format": "featurestore",
            "format_version": self.version,
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
        if self.version > 1:
            body["lists"] = [asdict(each) for each in self.shards.references]
            if self.left_out.references:
                body["left_out"] = [asdict(each) for each in self.left_out.references]
        # Several commits write an entry, so its text is made once. No string holds a line end and nothing
        # else is indented so: each list below is found in one place only.
        entries = self.shards.inline if self.version > 1 else self.shards
        texts = [shard.texts for shard in entries]
        canonical = canonical_json(body).removesuffix(b'"shards":[]}')
        digest = hashlib.sha256(canonical + b'"shards":[')
        digest.update(b",".join(canonical for canonical, _ in texts))
        digest.update(b"]}")
        body["checksum"] = digest.hexdigest()
        start, end = json.dumps(body, indent=1, ensure_ascii=True).encode().split(b'\n "shards": []')
        listed = b"[\n  " + b",\n  ".join(indented for _, indented in texts) + b"\n ]" if texts else b"[]"
        return start + b'\n "shards": ' + listed + end + b"\n"


def parse_manifest(
    raw: bytes, path: Path, number: int, lists: Lists | None = None, known: Shards | None = None
) -> Manifest:
    """Parse a manifest's bytes; its lists are read when they are first needed.

    Parameters
    ----------
    raw : bytes
    path : Path
        For messages.
    number : int
        As in the name.
    lists : Lists, optional
        Of the store; by default the one in which the path lies.
    known : Shards, optional
        Of another snapshot: lists that this one names too are taken from there.

    Raises
    ------
    FormatVersionError, DamagedStoreError
        See :func:`~featurestore.store.format.directory.read_manifest`.
    """

    def damaged(what: str) -> DamagedStoreError:
        return DamagedStoreError(
            f"manifest {path} is damaged: {what}. `featurestore repair` goes on from the last sound "
            "manifest; until then `Store.open(path, snapshot=N)` or `--snapshot N` reads an earlier one",
            path=path,
        )

    try:
        # Our manifests have ten bytes a JSON value on average. A file of brackets would take a hundred times
        # its size in memory.
        body = parse_json(raw, most_values=1024 + len(raw) // 4)
    except ValueError as error:
        raise damaged(f"not JSON as expected ({error})") from error
    if not isinstance(body, dict) or body.get("format") != "featurestore":
        raise damaged("not a featurestore manifest")
    version = body.get("format_version")
    if isinstance(version, int) and version > NEWEST_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version}; this featurestore reads up to {NEWEST_VERSION}: "
            "upgrade it (pip install --upgrade featurestore)"
        )
    stated = body.pop("checksum", None)
    try:
        found = hashlib.sha256(canonical_json(body)).hexdigest()
    except RecursionError as error:  # levels that were read may be too many to be written
        raise damaged("nested too deeply") from error
    if stated != found:
        raise damaged(f"checksum {found[:16]}..., expected {str(stated)[:16]}...")
    try:
        if type(version) is not int or version < 1:
            raise ValueError(f"format version {version!r}, expected 1 to {NEWEST_VERSION}")
        manifest = _from_json(body, lists or Lists(path.parent.parent, LOCAL), known or Shards())
        if manifest.recipe.fingerprint != body["fingerprint"]:
            raise ValueError(f"fingerprint {body['fingerprint']!r} is not that of its recipe")
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise damaged(f"{type(error).__name__}: {error}") from error
    if manifest.number != number:
        raise damaged(f"it says it is number {manifest.number}")
    return manifest


def following(
    manifest: Manifest, shards: tuple[ShardEntry, ...], commit: Commit, codec: str, encoder: str | None = None
) -> Manifest:
    """Return the next manifest: more shards, and what loads the encoder now if that has moved."""
    return replace(
        manifest,
        number=manifest.number + 1,
        shards=manifest.shards.appended(shards),
        commit=commit,
        codec=codec,
        encoder=encoder or manifest.encoder,
    )


def _canaries_to_json(canaries: CanaryEntry) -> dict[str, Any]:
    return {
        **canaries.shard.to_dict(),
        "tolerance": canaries.tolerance,
        "made_with": canaries.made_with,
    }


def _from_json(body: Mapping[str, Any], lists: Lists, known: Shards) -> Manifest:
    shards = body["shards"]
    if not isinstance(shards, list) or len(shards) > limits.MAX_LISTED_SHARDS:
        raise ValueError("the list of shards is not a list or too long")
    is_first = body["format_version"] == 1
    references = [] if is_first else _references_from_json(body["lists"])
    left_out = [] if is_first else _references_from_json(body.get("left_out", []))
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
    recipe = Recipe(body["recipe"])
    kind, parts = Kind(recipe.fingerprint, shape), {part.reference: part for part in known.parts}
    return Manifest(
        number=_count(body["number"], least=1),
        recipe=recipe,
        encoder=body["encoder"],
        dim=dim,
        n_layers=n_layers,
        codec=body["codec"],
        shard_bytes=_count(body["shard_bytes"], least=1),
        shards=Shards(
            entries, [parts.get(each) or Part(kind, reference=each, lists=lists) for each in references]
        ),
        canaries=canaries,
        commit=Commit(**_typed(body["commit"], Commit())),
        version=body["format_version"],
        left_out=Shards((), [Part(kind, reference=each, lists=lists) for each in left_out]),
    )


def _references_from_json(body: Any) -> list[Reference]:
    if not isinstance(body, list) or len(body) > limits.MAX_LISTS:
        raise ValueError("the lists are not a list or too many")
    found = []
    for each in body:
        if not isinstance(each["sha256"], str) or not _SHA256.fullmatch(each["sha256"]):
            raise ValueError("the sha256 of a list is not 64 hexadecimal digits")
        n_shards = _count(each["n_shards"], limits.MAX_LIST_SHARDS, least=1)
        sums = (_count(each[name], 1 << 62) for name in ("n_sentences", "n_tokens", "n_bytes"))
        found.append(Reference(each["sha256"], n_shards, *sums))
    if len(set(found)) < len(found):
        raise ValueError("it names a list twice")
    if sum(each.n_shards for each in found) > limits.MAX_SHARDS:
        raise ValueError("its lists hold too many shards")
    return found


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


def _count(value: Any, bound: int = limits.MAX_COUNT, least: int = 0) -> int:
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


def entry_from_json(body: Mapping[str, Any]) -> ShardEntry:
    """Return the entry of which :meth:`ShardEntry.to_dict` made an object of JSON.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        If it is something else.
    """
    return _shard_from_json(body)
