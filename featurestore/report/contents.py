"""What a store is made of and whether it is sound: sizes, commits over time, checks, what gc would free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from featurestore.errors import DamagedStoreError, FeaturestoreError
from featurestore.store.format.directory import DAMAGED, list_numbers, read_listed
from featurestore.store.maintenance.gc import collect, orphaned_files, unreferenced_files
from featurestore.store.store import Store
from featurestore.store.verification import verify

_MOST_COMMITS = 500
"""The last commits that are read, of those gc left."""

_MOST_FINDINGS = 50


@dataclass(frozen=True)
class CommitFacts:
    """A snapshot: when it was made, what it holds, how fast its sentences were encoded (0: unknown)."""

    number: int
    time: str
    n_sentences: int
    n_tokens: int
    n_bytes: int
    tokens_per_second: float
    device: str


@dataclass
class Health:
    """Whether a store is sound.

    Attributes
    ----------
    checked : str
        What was compared with what was committed: "every byte", or the structure of all shards and the
        sentences of the sample.
    findings : list of str
        What is damaged; none if it is sound.
    n_canaries : int
        Sentences that guard against another encoder; 0 if the store has none.
    n_quarantined, n_orphaned, n_unreferenced : int
        Files that repair set aside, that dead writers left, that no snapshot lists.
    gc_files, gc_bytes : int
        What gc would remove now.
    notes : list of str
        What could not be found out, and why.
    """

    checked: str
    findings: list[str] = field(default_factory=list)
    n_canaries: int = 0
    n_quarantined: int = 0
    n_orphaned: int = 0
    n_unreferenced: int = 0
    gc_files: int = 0
    gc_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing damaged was found."""
        return not self.findings


@dataclass
class Contents:
    """What a store is made of.

    Attributes
    ----------
    n_sentences, n_tokens, n_shards, n_bytes : int
    vector_bytes, head_bytes : int
        Of vectors; of keys, tokens and everything else in the shards.
    codecs : dict of str to int
        Shards of each codec.
    n_repeats : int
        Repeats in the corpora of the last extraction, which were not encoded again; 0 if unknown.
    n_read : int
        Sentences that the last extraction read; 0 if unknown.
    repeat_bytes : int
        Bytes that the repeats would have taken, if they are as long as sentences are on average.
    commits : list of CommitFacts
        Those whose snapshots remain, the oldest first.
    """

    n_sentences: int
    n_tokens: int
    n_shards: int
    n_bytes: int
    vector_bytes: int
    head_bytes: int
    codecs: dict[str, int] = field(default_factory=dict)
    n_repeats: int = 0
    n_read: int = 0
    repeat_bytes: int = 0
    commits: list[CommitFacts] = field(default_factory=list)


def contents_of(store: Store) -> Contents:
    """Return what a store is made of, by its manifests alone."""
    manifest, commit = store.manifest, store.manifest.commit
    codecs: dict[str, int] = {}
    vector_bytes = 0
    for shard in manifest.shards:
        codecs[shard.codec] = codecs.get(shard.codec, 0) + 1
        vector_bytes += shard.extents["values"].n_bytes
    n_repeats = max(0, commit.n_read - commit.n_distinct)
    return Contents(
        n_sentences=len(store), n_tokens=store.n_tokens, n_shards=len(manifest.shards), n_bytes=store.n_bytes,
        vector_bytes=vector_bytes, head_bytes=store.n_bytes - vector_bytes, codecs=codecs,
        n_repeats=n_repeats, n_read=commit.n_read,
        repeat_bytes=round(n_repeats * store.n_bytes / max(1, len(store))), commits=_commits(store),
    )  # fmt: skip


def _commits(store: Store) -> list[CommitFacts]:
    found = []
    for number in list_numbers(store.location)[-_MOST_COMMITS:]:
        if number > store.snapshot:
            continue
        try:
            manifest = read_listed(store.location, number)
        except FeaturestoreError:  # gc removed it meanwhile, or it is damaged: health says so
            continue
        if manifest is None:
            continue
        commit = manifest.commit
        found.append(
            CommitFacts(
                number,
                commit.time,
                manifest.n_sentences,
                manifest.n_tokens,
                manifest.n_bytes,
                commit.tokens_per_second,
                commit.device,
            )
        )
    return found


def health_of(store: Store, damage: Sequence[DamagedStoreError] = (), *, whole: bool = False) -> Health:
    """Check a store: every byte, or all structure.

    Parameters
    ----------
    store : Store
    damage : sequence of DamagedStoreError
        What the caller met while it read sentences.
    whole : bool
        Compare every byte; by default the structure only.
    """
    health = Health(
        "every byte" if whole else "the structure of every shard, and the sentences of the sample"
    )
    named = set()
    for finding in verify(store, quick=not whole):
        named.add(finding.shard)
        health.findings.append(str(finding))
        if len(health.findings) >= _MOST_FINDINGS:
            health.notes.append(f"more than {_MOST_FINDINGS} findings: `featurestore verify` lists all")
            break
    health.findings += [str(error) for error in damage if error.shard not in named]
    canaries = store.manifest.canaries
    health.n_canaries = canaries.shard.n_sentences if canaries is not None else 0
    quarantine = store.location / DAMAGED
    health.n_quarantined = len(list(quarantine.iterdir())) if quarantine.is_dir() else 0
    try:
        unreferenced, _ = unreferenced_files(store.location)
        health.n_unreferenced, health.n_orphaned = len(unreferenced), len(orphaned_files(store.location))
        garbage = collect(store.location, dry_run=True)
        health.gc_files, health.gc_bytes = len(garbage.removed), garbage.n_bytes
    except FeaturestoreError as error:
        health.notes.append(str(error))
    return health
