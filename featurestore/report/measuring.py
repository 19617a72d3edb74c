"""Everything a report says of a store, as data; the page and ``--json`` are drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from featurestore.corpora.contract.example import Example
from featurestore.errors import MissingSentencesError, UsageError
from featurestore.inspection.json_values import json_value
from featurestore.report.contents import Contents, Health, contents_of, health_of
from featurestore.report.drawing import Sample
from featurestore.report.geometry import Geometry, Kept, measure
from featurestore.report.probe import Probe, labelled, probe
from featurestore.report.projecting import TokenMap, map_of_kept, token_map
from featurestore.report.sentences import Sentences, measure_sentences
from featurestore.report.words import Words, measure_words
from featurestore.store.maintenance.statistics import Statistics, gather_statistics
from featurestore.store.store import Store

DEFAULT_SAMPLE = 2_000


@dataclass
class StoreReport:
    """What a report says.

    Attributes
    ----------
    store, encoder, fingerprint : str
    snapshot, dim, n_layers : int
    recipe : dict
    codec_error : dict
        What the codec lost: relative L2, cosine distance, tokens it was measured on.
    n_sampled : int
        Sentences whose vectors were read; the same as those stored if all were.
    seed : int
    contents : Contents
    health : Health
    statistics : Statistics or None
        Lengths and norms; None where nothing of the store could be read.
    geometry : Geometry or None
    words : Words or None
    sentences : Sentences or None
    map : TokenMap or None
    probe : Probe or None
        Where a labelled corpus was given.
    """

    store: str
    encoder: str
    fingerprint: str
    snapshot: int
    dim: int
    n_layers: int
    recipe: dict[str, Any]
    codec_error: dict[str, float]
    n_sampled: int
    seed: int
    contents: Contents
    health: Health
    statistics: Statistics | None = None
    geometry: Geometry | None = None
    words: Words | None = None
    sentences: Sentences | None = None
    map: TokenMap | None = None
    probe: Probe | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report for ``--json``: null for what is not a number."""
        found: dict[str, Any] = json_value(asdict(self))
        found["health"]["is_sound"] = self.health.is_sound
        return found


def report_on(
    store: Store,
    *,
    sample: int = DEFAULT_SAMPLE,
    seed: int = 0,
    examples: Iterable[Example] | None = None,
    label: str = "",
    whole: bool = False,
    progress: Callable[[str], object] | None = None,
) -> StoreReport:
    """Look into a store.

    Memory: that of a few thousand vectors, whatever the store's size.

    Parameters
    ----------
    store : Store
    sample : int
        Sentences drawn at random whose vectors are read; 0 reads all.
    seed : int
        Of the random draw, and of the map.
    examples : iterable of Example, optional
        A labelled corpus, for the probe and the colours of the map.
    label : str
        What its labels are called.
    whole : bool
        Compare every byte with what was committed, as ``featurestore verify`` does.
    progress : callable, optional
        Called with the name of each step before it begins.

    Raises
    ------
    MissingSentencesError
        If the store is empty.
    LabelError
        If no stored sentence of the corpus has a label.
    UsageError
        If the sample is smaller than 0.
    """
    say = progress or (lambda _: None)
    if sample < 0:
        raise UsageError(f"sample is {sample}: expected 0 (all) or more")
    if not len(store):
        raise MissingSentencesError(
            f"{store.path} holds no sentences yet: there is nothing to report",
            n_missing=0, n_wanted=0, store=store.path,
        )  # fmt: skip
    say("contents")
    drawn = Sample.of(store, sample, seed)
    error = store.codec_error
    report = StoreReport(
        store=str(store.path), encoder=store.encoder, fingerprint=store.fingerprint, snapshot=store.snapshot,
        dim=store.dim, n_layers=store.n_layers, recipe=store.recipe.to_dict(),
        codec_error={"relative_l2": error.relative_l2, "cosine_distance": error.cosine_distance,
                     "n_tokens": error.n_tokens},
        n_sampled=drawn.n_sentences, seed=seed, contents=contents_of(store), health=Health(""),
    )  # fmt: skip
    n_tokens = sum(len(one.tokens) for one in drawn)
    layer = f"layer {store.n_layers - 1}" if store.n_layers > 1 else "the stored vectors"
    if n_tokens:
        kept = Kept(n_tokens, seed)
        say("vectors")
        report.geometry = measure(drawn, kept)
        say("words")
        report.words = measure_words(drawn)
        say("sentences")
        report.sentences = measure_sentences(drawn)
        if not drawn.damage:
            report.statistics = gather_statistics(store, sample=sample or len(store))
        if examples is not None:
            say("labels")
            data = labelled(store, examples, label, seed=seed)
            report.probe = probe(data, label)
            say("map")
            report.map = token_map(data.vectors[:, -1], data.words, data.labels, layer, seed)
        else:
            say("map")
            report.map = map_of_kept(kept, layer, seed)
    say("health")
    report.health = health_of(store, drawn.damage, whole=whole)
    return report
