"""Planning: one pass over the corpora that says what an extraction would do, before any model is loaded."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from featurestore import keys
from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.cut_tokens import CutTokens
from featurestore.corpora.reading import Observer, Reading, ReadingWarning
from featurestore.disk.places import free_bytes
from featurestore.encoders.base import EncoderOutline
from featurestore.errors import CorpusError, StoreWriteError
from featurestore.extraction.destination import Destination
from featurestore.extraction.planning.estimate import Speed
from featurestore.extraction.planning.new import SENTENCES_AT_ONCE
from featurestore.extraction.planning.parts import Division, Groups
from featurestore.extraction.progress import Progress
from featurestore.keyarrays import keys_array
from featurestore.store.canaries import canary_bytes
from featurestore.store.format.codec import get_codec
from featurestore.store.format.directory import TMP
from featurestore.store.format.layout import ALIGNMENT
from featurestore.store.index.keyset import KeySet
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

_LEAST_CUT_SHARE = 0.01
"""Share of the text in cut tokens that is warned of: less may be a web address here and there."""

_MOST_CUT_SHARE = 0.5
"""Share of the text in cut tokens that is refused."""

_PART_THEM = (
    "Tokenise the text first: --tokenize icu splits Chinese, Japanese, Thai, Lao, Khmer and Burmese, "
    "--tokenize characters makes each character a token (proteins)"
)

_BLOCK = 256
"""Sentences whose words are inspected at a time."""

_SENTENCE_BYTES = keys.KEY_BYTES + 8 + 8 + 24
"""What a sentence costs beside its tokens: key, offset, checksum, and its place in the index."""

_CONDITION_OFFSET_BYTES = 8
"""What each sentence of a shard costs more where some have conditions."""

_SHARD_BYTES = 3 * ALIGNMENT
"""HDF5's own structure in a shard, its padding, and the shard's lines in the manifest."""


@dataclass(frozen=True)
class CorpusCount:
    """How much a corpus holds, duplicates included."""

    path: str
    n_sentences: int
    n_tokens: int


@dataclass(frozen=True)
class Plan:
    """What an extraction would do.

    Attributes
    ----------
    corpora : tuple of CorpusCount
    n_sentences, n_tokens : int
        In all corpora, duplicates included.
    n_distinct : int
        Distinct sentences; equal tokens in different contexts are different sentences, where a corpus gives
        contexts.
    n_conditioned : int
        Sentences that come with more than their tokens, duplicates included.
    n_cached : int
        Of the distinct ones, already in the store.
    n_new, n_new_tokens : int
        To be encoded.
    longest, longest_place : int, str
        Tokens of the longest sentence to be encoded, and where it stands.
    n_bytes : int
        To be written, the canaries of a store that has none included.
    free_bytes : int or None
        Free on the store's disk; None where the disk does not say.
    seconds : float or None
        Estimated encoding time; None where nothing is known.
    seconds_low, seconds_high : float or None
        The least and most that it may be.
    seconds_basis : str
        What the estimate rests on.
    n_weighted_tokens : float
        The tokens to be encoded, each weighted by what it costs more in a sentence of its length.
    readings : tuple of Reading
        What was read of each corpus, with warnings of what is implausible.
    n_cut_tokens : int
        Tokens of which the encoder sees only the beginning, duplicates included.
    max_token_bytes : int or None
        Bytes of a token that it sees; None for all.
    cut_share, most_cut : float, str
        Share of the text that stands in such tokens, of the corpus where it is largest, and which that is.
    codec : str
        Of the shards to be written.
    other_codecs : tuple of str
        Of shards that the store has already, if another than its own is asked for.
    division : Division or None
        Where this is one of several parts: the numbers of what is to be encoded are those of this part alone.
    """

    corpora: tuple[CorpusCount, ...]
    n_sentences: int
    n_tokens: int
    n_distinct: int
    n_conditioned: int
    n_cached: int
    n_new: int
    n_new_tokens: int
    longest: int
    longest_place: str
    n_bytes: int
    free_bytes: int | None
    seconds: float | None = None
    seconds_low: float | None = None
    # The next two change with what else the machine does.
    seconds_high: float | None = field(default=None, compare=False)
    seconds_basis: str = field(default="", compare=False)
    n_weighted_tokens: float = 0.0
    readings: tuple[Reading, ...] = ()
    n_cut_tokens: int = 0
    max_token_bytes: int | None = None
    cut_share: float = 0.0
    most_cut: str = ""
    codec: str = ""
    other_codecs: tuple[str, ...] = ()
    division: Division | None = field(default=None, compare=False, repr=False)

    @property
    def warnings(self) -> tuple[ReadingWarning, ...]:
        """What is implausible about what was read, of all corpora."""
        return tuple(warning for reading in self.readings for warning in reading.warnings)

    @property
    def codec_note(self) -> str:
        """What to know of the codec; empty where the store's shards and those to be written share one."""
        if not (self.n_new and self.other_codecs):
            return ""
        return (
            f"the shards to be written are {self.codec}, those of the store "
            f"{' and '.join(self.other_codecs)}: their vectors differ in precision. Leave --codec out "
            "to go on with the store's own"
        )

    @property
    def fits(self) -> bool:
        """Whether the disk has room, as far as it says."""
        return self.free_bytes is None or self.n_bytes <= self.free_bytes

    def timed(self, speed: Speed | None) -> Plan:
        """Return the plan with the time that encoding takes at an expected speed, if there is one."""
        if speed is None:
            return self
        seconds = self.n_weighted_tokens / speed.tokens_per_second
        return replace(
            self,
            seconds=seconds,
            seconds_low=seconds / speed.faster,
            seconds_high=seconds * speed.slower,
            seconds_basis=speed.basis,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for ``--json``."""
        values = {**asdict(self), "fits": self.fits}
        values.pop("division")
        if self.division is not None:
            values["part"] = str(self.division.part)
            values["parts"] = [asdict(share) for share in self.division.shares]
        return values

    def require_space(self, path: Path) -> None:
        """Raise unless the disk has room.

        Raises
        ------
        StoreWriteError
            Naming the disk, the bytes needed and the bytes free.
        """
        if not self.fits:
            raise StoreWriteError(
                f"the vectors will not fit: {self.n_bytes:,} bytes to write to {path}, {self.free_bytes:,} "
                "free. Free some space, choose another disk, or a smaller codec (--codec int8)",
                path=path,
                n_bytes=self.n_bytes,
                errno=errno.ENOSPC,
            )

    @property
    def is_mostly_cut(self) -> bool:
        """Whether most of a corpus stands in tokens of which the encoder sees only the beginning."""
        return self.n_new > 0 and self.cut_share > _MOST_CUT_SHARE

    def require_seen(self) -> None:
        """Raise if most of a corpus stands in tokens of which the encoder sees only the beginning.

        Raises
        ------
        CorpusError
            Saying the share, and how to part them.
        """
        if self.is_mostly_cut:
            raise CorpusError(
                f"{self.cut_share:.0%} of the text stands in tokens of more than {self.max_token_bytes} "
                "bytes, of which the encoder sees no more: different tokens would get the same vectors. "
                f"{_PART_THEM}, or extract all the same: --allow-cut (in Python allow_cut=True)",
                path=self.most_cut,
            )


@dataclass
class _Tally:
    n_sentences: int = 0
    n_tokens: int = 0
    n_distinct: int = 0
    n_conditioned: int = 0
    n_cached: int = 0
    n_new: int = 0
    n_new_tokens: int = 0
    n_token_bytes: int = 0
    n_condition_bytes: int = 0
    n_weighted_tokens: float = 0.0
    longest: int = 0
    longest_place: str = ""
    corpora: list[CorpusCount] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    n_cut: int = 0
    most_cut: tuple[float, str] = (0.0, "")
    groups: Groups | None = None


def make_plan(
    corpora: Iterable[Corpus],
    destination: Destination,
    outline: EncoderOutline,
    *,
    codec: str,
    shard_bytes: int,
    cost: Callable[[int], float] = lambda n_tokens: 1.0,
    groups: Groups | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Read the corpora once and say what extracting them would do, but not how long it takes.

    Memory: two bytes for each distinct sentence, once they are many, and 16 on the store's disk.

    Parameters
    ----------
    corpora : iterable of Corpus
    destination : Destination
    outline : EncoderOutline
        Shape of the vectors.
    codec, shard_bytes
        As the shards will be written.
    cost : callable
        From the length of a sentence to what each of its tokens costs, relative to one of a short sentence.
    groups : Groups, optional
        Empty; makes the plan one of a part.

    Raises
    ------
    CorpusError
        If a corpus cannot be read.
    """
    store, progress = destination.store, progress or Progress()
    seen, tally = KeySet(destination.location / TMP), _Tally(groups=groups)
    for corpus in corpora:
        iterator, observer = iter(corpus), Observer(corpus)
        cut = CutTokens(outline.max_token_bytes) if outline.max_token_bytes else None
        while (chunk := _chunk(iterator, observer, cut))[0]:
            _count(*chunk, store, seen, tally)
            progress.planned(corpus.path, tally.n_sentences)
        reading = observer.reading()
        if cut is not None:
            tally.n_cut += cut.n_cut
            tally.most_cut = max(tally.most_cut, (cut.share, corpus.path))
            if cut.share > _LEAST_CUT_SHARE:
                reading = replace(reading, warnings=(*reading.warnings, _cut_warning(corpus.path, cut)))
        tally.corpora.append(CorpusCount(corpus.path, reading.n_sentences, reading.n_tokens))
        tally.readings.append(reading)
    tally.n_weighted_tokens = float(sum(n * length * cost(length) for length, n in tally.lengths.items()))
    division = None
    if groups is not None:
        division, mine = groups.divided()
        tally = replace(tally, **mine)
    per_token = get_codec(codec).bytes_per_token(outline.n_layers, outline.dim)
    n_shards = -(-tally.n_new_tokens * per_token // shard_bytes)
    n_bytes = tally.n_new_tokens * (per_token + 8) + tally.n_token_bytes + tally.n_new * _SENTENCE_BYTES
    if tally.n_condition_bytes:
        n_bytes += tally.n_condition_bytes + tally.n_new * _CONDITION_OFFSET_BYTES
    if tally.n_new and (store is None or store.manifest.canaries is None):
        n_bytes += canary_bytes(outline.dim, outline.n_layers)
    return Plan(
        corpora=tuple(tally.corpora),
        n_sentences=tally.n_sentences,
        n_tokens=tally.n_tokens,
        n_distinct=tally.n_distinct,
        n_conditioned=tally.n_conditioned,
        n_cached=tally.n_cached,
        n_new=tally.n_new,
        n_new_tokens=tally.n_new_tokens,
        longest=tally.longest,
        longest_place=tally.longest_place,
        n_bytes=n_bytes + n_shards * _SHARD_BYTES,
        free_bytes=free_bytes(destination.location),
        seconds=None if tally.n_new else 0.0,
        seconds_low=None if tally.n_new else 0.0,
        seconds_high=None if tally.n_new else 0.0,
        n_weighted_tokens=tally.n_weighted_tokens,
        readings=tuple(tally.readings),
        n_cut_tokens=tally.n_cut,
        max_token_bytes=outline.max_token_bytes,
        cut_share=tally.most_cut[0],
        most_cut=tally.most_cut[1] if tally.n_cut else "",
        codec=codec,
        other_codecs=_other_codecs(store, codec),
        division=division,
    )


def _other_codecs(store: Store | None, codec: str) -> tuple[str, ...]:
    """Return the codecs of a store's shards, if another one than its own is asked for."""
    if store is None or codec == store.manifest.codec:
        return ()
    return tuple(sorted(store.manifest.shards.codecs().keys() - {codec}))


def _cut_warning(path: str, cut: CutTokens) -> ReadingWarning:
    return ReadingWarning(
        "cut-tokens",
        path,
        cut.n_cut,
        f"{cut.n_cut:,} of {cut.n_tokens:,} tokens ({cut.share:.0%} of the text) have more than "
        f"{cut.max_token_bytes} bytes, and the encoder sees no more of each, such as {cut.first!r}. "
        f"{_PART_THEM}",
    )


def _chunk(
    iterator: Iterator[Example], observer: Observer, cut: CutTokens | None
) -> tuple[list[Example], list[bytes]]:
    """Return the next examples, after showing them to the observer, and what their keys are hashed from."""
    chunk: list[Example] = []
    messages: list[bytes] = []
    # A few at a time, so that their words are still in the processor's cache when they are looked up again.
    while block := list(islice(iterator, min(_BLOCK, SENTENCES_AT_ONCE - len(chunk)))):
        messages += [keys.sentence_message(example.tokens) for example in block]
        observer.see(block)
        if cut is not None:
            cut.see([example.tokens for example in block])
        chunk += block
    return chunk, messages


def _count(
    chunk: list[Example], messages: list[bytes], store: Store | None, seen: KeySet, tally: _Tally
) -> None:
    conditions = [keys.condition_of(example.tokens) for example in chunk]
    chunk_keys = keys_array(map(keys.key_of_message, messages, conditions))
    new = seen.add(chunk_keys)
    cached = store.locate(chunk_keys).found if store is not None else np.zeros(len(chunk), bool)
    tally.n_sentences += len(chunk)
    tally.n_tokens += sum(len(example.tokens) for example in chunk)
    tally.n_distinct += int(new.sum())
    tally.n_conditioned += sum(map(bool, conditions))
    tally.n_cached += int((new & cached).sum())
    if tally.groups is not None:
        tally.groups.see(chunk_keys[new], [len(chunk[i].tokens) for i in np.flatnonzero(new)])
    for i in np.flatnonzero(new & ~cached):
        n_tokens = len(chunk[i].tokens)
        tally.n_new += 1
        tally.n_new_tokens += n_tokens
        tally.lengths[n_tokens] += 1
        tally.n_token_bytes += len(messages[i]) - 4 * n_tokens
        tally.n_condition_bytes += len(conditions[i])
        if tally.groups is not None:
            n_bytes = len(messages[i]) - 4 * n_tokens
            tally.groups.add(chunk_keys[i], n_tokens, n_bytes, len(conditions[i]), chunk[i].place)
        if n_tokens > tally.longest:
            tally.longest, tally.longest_place = n_tokens, chunk[i].place
