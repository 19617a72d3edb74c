"""``diff``: what corpora and a store have that the other has not. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.display import render
from featurestore.cli.flags import json_option, progress_option
from featurestore.cli.lookup import spelled
from featurestore.cli.options import Reading, reading_options
from featurestore.cli.project.command import command
from featurestore.cli.selecting import bar
from featurestore.cli.store import open_store, store_argument
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.corpora.corpus import Corpus
    from featurestore.extraction.planning.plan import Plan
    from featurestore.inspection.differing import CorpusDifference, StoreDifference
    from featurestore.store.store import Store


@command()
@store_argument
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Missing sentences listed for each corpus, at most N.",
)
@click.option(
    "--unused",
    "list_unused",
    is_flag=True,
    help="List the stored sentences that none of the corpora has, as ls does; what was found goes to "
    "standard error.",
)
@reading_options
@progress_option
@json_option
def diff(
    store: Path, snapshot: int | None, corpora: tuple[str, ...], limit: int, list_unused: bool,
    reading: Reading, no_progress: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say what corpora need that is not stored, what is stored that none of them needs, and what extracting
    the rest would cost.

    A missing sentence is listed with stored ones that are it but for a space, a quote, case or Unicode form:
    the usual reasons. Exits with 1 if a sentence is missing. Reads no vectors.
    """
    from featurestore.inspection.differing import diff_corpora

    opened = open_store(store, snapshot)
    read = [reading.open(path) for path in corpora]
    with bar("reading", None, no_progress or as_json, unit=" sentences") as moved:
        found = diff_corpora(opened, read, most=limit, progress=moved)
    plan, unknown = _completing(opened, read) if found.n_missing else (None, "")
    if as_json:
        render.echo_json(_as_dict(found, opened, plan, unknown, list_unused))
    elif list_unused:
        for key, n_tokens, text in _unused(found, opened):
            click.echo(f"{key}  {n_tokens:4}  {render.printable(text)}")
        click.echo(_text(found, opened, plan, unknown), err=True)
    else:
        click.echo(_text(found, opened, plan, unknown))
    if found.n_missing:
        raise click.exceptions.Exit(1)


def _completing(store: Store, corpora: list[Corpus]) -> tuple[Plan | None, str]:
    """Return what extracting the corpora would do, or why nothing can say."""
    from featurestore.extraction.choice import EncoderChoice
    from featurestore.extraction.destination import Destination
    from featurestore.extraction.job import Job

    destination = Destination.of(store.path)
    try:
        return Job(corpora, destination).plan(EncoderChoice.for_store(destination, None, None, None)), ""
    except UsageError as error:
        return None, str(error)


def _text(found: StoreDifference, store: Store, plan: Plan | None, unknown: str) -> str:
    n_unused = found.unused.n_sentences
    rows = [
        (
            "corpora",
            "\n".join(
                f"{corpus.path}: {render.count(corpus.n_sentences, 'sentence')}, "
                f"{corpus.n_distinct:,} distinct, {corpus.n_missing:,} not stored"
                for corpus in found.corpora
            ),
        ),
        ("stored", f"{found.n_stored:,}, of which these corpora have {found.n_stored - n_unused:,}"),
        (
            "not used",
            f"{render.count(n_unused, 'sentence')}, {render.count(found.n_unused_tokens, 'token')}, "
            f"{render.size(found.n_unused_bytes)}" if n_unused else "none",
        ),
        (
            "missing",
            f"{render.count(found.n_missing, 'sentence')}, "
            f"{render.count(found.n_missing_tokens, 'token')}" if found.n_missing else "none",
        ),
    ]  # fmt: skip
    if found.n_missing:
        rows.append(("completing", _cost(plan, unknown)))
    text = render.facts(rows)
    for corpus in found.corpora:
        text += _missing_text(corpus)
    if found.n_missing and plan is not None:
        from featurestore.store.missing import how_to_add

        text += "\n\n" + how_to_add(store.recipe, store.path)
    return text


def _cost(plan: Plan | None, unknown: str) -> str:
    if plan is None:
        return f"cannot be told: {unknown}"
    time = "time unknown"
    if plan.seconds is not None:
        time = render.estimate(plan.seconds, plan.seconds_low, plan.seconds_high, plan.seconds_basis)
    return f"{render.size(plan.n_bytes)}, {time}"


def _missing_text(corpus: CorpusDifference) -> str:
    lines = []
    for one in corpus.missing:
        lines.append(f"  {one.place}: {spelled(one.tokens)}")
        lines += [
            f"      stored, but for {' and '.join(like.differs_in)}: {spelled(like.tokens)}"
            for like in one.likes
        ]
    more = corpus.n_missing - len(corpus.missing)
    if lines and more:
        lines.append(f"  and {more:,} more (--limit N lists more)")
    return "".join(f"\n{line}" for line in ["", f"missing of {corpus.path}", *lines]) if lines else ""


def _unused(found: StoreDifference, store: Store) -> Iterator[tuple[str, int, str]]:
    for shard, rows in enumerate(found.unused.rows):
        reader = store.passing(shard) if len(rows) else None
        for row in rows.tolist():
            if reader is not None:
                yield reader.key(row).hex(), reader.length(row), " ".join(reader.tokens(row))


def _as_dict(
    found: StoreDifference, store: Store, plan: Plan | None, unknown: str, list_unused: bool
) -> dict[str, Any]:
    return {
        "store": str(store.path),
        "snapshot": store.snapshot,
        "corpora": [
            {
                "path": corpus.path,
                "n_sentences": corpus.n_sentences,
                "n_tokens": corpus.n_tokens,
                "n_distinct": corpus.n_distinct,
                "n_missing": corpus.n_missing,
                "n_missing_tokens": corpus.n_missing_tokens,
                "missing": [
                    {
                        "tokens": list(one.tokens),
                        "key": one.key,
                        "place": one.place,
                        "like": [
                            {"tokens": list(like.tokens), "differs_in": list(like.differs_in)}
                            for like in one.likes
                        ],
                    }
                    for one in corpus.missing
                ],
            }
            for corpus in found.corpora
        ],
        "n_stored": found.n_stored,
        "n_missing": found.n_missing,
        "n_missing_tokens": found.n_missing_tokens,
        "n_unused": found.unused.n_sentences,
        "n_unused_tokens": found.n_unused_tokens,
        "n_unused_bytes": found.n_unused_bytes,
        "unused_keys": [key for key, *_ in _unused(found, store)] if list_unused else None,
        "completing": None
        if not found.n_missing
        else {"unknown": unknown}
        if plan is None
        else {
            "n_bytes": plan.n_bytes,
            "free_bytes": plan.free_bytes,
            "seconds": plan.seconds,
            "seconds_low": plan.seconds_low,
            "seconds_high": plan.seconds_high,
            "basis": plan.seconds_basis,
        },
    }
