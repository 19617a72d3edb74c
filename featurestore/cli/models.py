"""What the commands for models share: options, how corpora are read and shown, what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.display.reading import say_reading, say_warnings
from featurestore.cli.flags import device_option, options
from featurestore.cli.options import Reading, reading_options

if TYPE_CHECKING:
    from featurestore.corpora.observed import ObservedCorpus
    from featurestore.dataset.features import FeatureDataset
    from featurestore.models.checkpoint import TrainedModel
    from featurestore.store.store import Store

FILE = click.Path(dir_okay=False, allow_dash=True)
CORPUS = click.Path(allow_dash=True)
MODEL_FILE = click.Path(path_type=Path)

stores_option = click.option(
    "--store",
    "stores",
    type=click.Path(file_okay=False, path_type=Path),
    multiple=True,
    required=True,
    help="Store with the sentences' vectors; several give each token the vectors of all.",
)

on_missing_option = click.option(
    "--on-missing",
    type=click.Choice(["error", "skip", "zeros"]),
    default="error",
    show_default=True,
    help="What to do with sentences the store does not hold.",
)

corpus_options = options(reading_options, on_missing_option)

scored_corpus_options = options(
    reading_options,
    on_missing_option,
    click.option("--max-missing", type=click.FloatRange(0, 1), default=0.5, show_default=True,
                 metavar="SHARE", help="With --on-missing skip or zeros, refuse to score a corpus of which a "
                 "larger share of the sentences is missing."),
)  # fmt: skip

inference_options = options(
    click.option("--token-budget", type=click.IntRange(1), default=8192, show_default=True,
                 help="Tokens in one batch, padding included."),
    device_option,
)  # fmt: skip

metric_option = click.option(
    "--metric",
    type=click.Choice(["auto", "accuracy", "macro_f1", "span_f1"]),
    default="auto",
    show_default=True,
    help="The score that counts; auto: span F1 for labels in IOB1, IOB2, IOBES, BILOU or BMES, accuracy for "
    "others.",
)


def stores_of(model: TrainedModel, paths: Sequence[Path]) -> dict[str, Store]:
    """Open the stores that a model reads, in its order and under its names, whatever the order they came in.

    This is done before the corpus is read: with another recipe, nothing in it matters.

    Raises
    ------
    RecipeMismatchError
        If the model was trained on others.
    """
    from featurestore.dataset.stores import opened

    given = opened(paths)
    where = {name: f"the store {store.path}" for name, store in given.items()}
    order = model.matched_stores({name: store.recipe for name, store in given.items()}, where=where)
    return {name: given[theirs] for name, theirs in order.items()}


def is_untrained(stores: Mapping[str, Store]) -> bool:
    """Return whether an encoder with random weights filled one of the stores."""
    return any(bool(store.recipe.get("untrained")) for store in stores.values())


def observed(files: Sequence[str], reading: Reading, label: str | None = None) -> list[ObservedCorpus]:
    """Open corpora so that what was read of them can be shown."""
    from featurestore.corpora.observed import ObservedCorpus

    return [ObservedCorpus(reading.open(file, label)) for file in files]


def say_what_was_read(corpora: Sequence[ObservedCorpus], as_json: bool) -> None:
    """Show what was read; of output for programs, only what is implausible, on standard error."""
    for corpus in corpora:
        if as_json:
            say_warnings(corpus.reading.warnings)
        else:
            say_reading(corpus.reading)


@contextmanager
def remedy_reads_alike(reading: Reading, stores: Iterable[Store]) -> Iterator[None]:
    """Add this command's reading options to the `extract` command that an error names."""
    from featurestore.dataset.opening.missing import MissingSentences, missing_error
    from featurestore.errors import MissingSentencesError

    try:
        yield
    except MissingSentencesError as error:
        missing = MissingSentences.of(error, stores)
        raise missing_error(missing, error.n_wanted or 0, reading.arguments()) from error


def require_enough(dataset: FeatureDataset, on_missing: str, max_missing: float, what: str) -> None:
    """Refuse to score a corpus of which too much is missing in the store.

    Raises
    ------
    MissingSentencesError
        Naming the share.
    """
    from featurestore.errors import MissingSentencesError

    n_wanted = n_sentences(dataset, on_missing)
    share = dataset.n_missing / max(n_wanted, 1)
    if share > max_missing:
        raise MissingSentencesError(
            f"{dataset.n_missing:,} of the {n_wanted:,} sentences of {what} ({share:.0%}) are not in "
            f"{stores_text(dataset.stores)}, and a score would tell little of the corpus: extract it first "
            "(featurestore extract), or allow it (--max-missing 1)",
            n_missing=dataset.n_missing,
            n_wanted=n_wanted,
            store=next(iter(dataset.stores.values())).path,
        )


def stores_text(stores: Mapping[str, Store]) -> str:
    """Return what messages call the stores of a command."""
    paths = [str(store.path) for store in stores.values()]
    return f"the store {paths[0]}" if len(paths) == 1 else f"all of the stores {', '.join(paths)}"


def n_sentences(dataset: FeatureDataset, on_missing: str) -> int:
    """Return how many sentences a dataset's corpus has, those that are missing in the store included."""
    return len(dataset) + (dataset.n_missing if on_missing == "skip" else 0)


def missing_text(dataset: FeatureDataset, on_missing: str) -> str:
    """Return what share of a corpus has vectors, for a line of scores; empty if all of it has."""
    if not dataset.n_missing:
        return ""
    n = n_sentences(dataset, on_missing)
    kind = "scored as zeros" if on_missing == "zeros" else "left out"
    where = "the store" if len(dataset.stores) == 1 else "all of the stores"
    return (
        f"only {1 - dataset.n_missing / n:.1%} of the corpus has vectors: {dataset.n_missing:,} of {n:,} "
        f"sentences are not in {where} and were {kind}"
    )
