"""``info``, ``ls``, ``show`` and ``stats``: looking into a store. Loads no torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.display import render
from featurestore.cli.flags import json_option
from featurestore.cli.lookup import (
    condition_text,
    find_key,
    find_sentence,
    parse_sentence,
    shown_condition,
)
from featurestore.cli.project.command import command
from featurestore.cli.store import open_store, store_argument, tokens_option
from featurestore.errors import MissingSentencesError, UsageError
from featurestore.notebook.quantities import whole_numbers

if TYPE_CHECKING:
    from featurestore.store.store import Store


@command()
@store_argument
@json_option
def info(store: Path, snapshot: int | None, as_json: bool) -> None:
    """Show a store's recipe, counts, bytes, codecs and commits."""
    from featurestore.store.format.directory import list_numbers

    opened = open_store(store, snapshot)
    manifest, error = opened.manifest, opened.codec_error
    numbers = list_numbers(store)
    codecs = manifest.shards.codecs()
    untrained, canaries = bool(opened.recipe.get("untrained")), manifest.canaries
    if as_json:
        render.echo_json(
            {
                "store": str(store),
                "format_version": manifest.version,
                "snapshot": opened.snapshot,
                "n_commits": len(numbers),
                "commit": vars(manifest.commit),
                "encoder": opened.encoder,
                "untrained": untrained,
                "fingerprint": opened.fingerprint,
                "recipe": opened.recipe.to_dict(),
                "dim": opened.dim,
                "n_layers": opened.n_layers,
                "codec": manifest.codec,
                "codecs": codecs,
                "canaries": canaries
                and {
                    "n_sentences": canaries.shard.n_sentences,
                    "tolerance": canaries.tolerance,
                    "made_with": canaries.made_with,
                },
                "codec_error": {"relative_l2": error.relative_l2, **vars(error)},
                "n_sentences": len(opened),
                "n_tokens": opened.n_tokens,
                "n_bytes": opened.n_bytes,
                "n_shards": len(manifest.shards),
                "shard_bytes": manifest.shard_bytes,
            }
        )
        return
    per_token = f", {opened.n_bytes / opened.n_tokens:,.0f} bytes a token" if opened.n_tokens else ""
    layers = (
        f"{opened.n_layers} layers of {opened.dim} values" if opened.n_layers > 1 else f"{opened.dim} values"
    )
    commit = manifest.commit
    speed = (
        f", {commit.tokens_per_second:,.0f} tokens/s on {commit.device}" if commit.tokens_per_second else ""
    )
    rows = [
        ("store", str(store)),
        ("encoder", opened.encoder + ("  (UNTRAINED: random weights)" if untrained else "")),
        ("fingerprint", opened.fingerprint),
        ("format", f"version {manifest.version}{_upgradable(manifest.version, store)}"),
        ("recipe", "\n".join(f"{name}: {render.value(value)}" for name, value in opened.recipe.items())),
        ("vectors", f"{layers} a token"),
        ("sentences", f"{len(opened):,}"),
        ("tokens", f"{opened.n_tokens:,}"),
        (
            "size",
            f"{render.size(opened.n_bytes)} in {render.count(len(manifest.shards), 'shard')}{per_token}",
        ),
        (
            "codec",
            ", ".join(f"{name} ({render.count(n, 'shard')})" for name, n in codecs.items()) or manifest.codec,
        ),
    ]
    if error.n_tokens:
        rows.append(
            (
                "codec error",
                f"relative L2 {error.relative_l2:.2g}, 1 - cosine {error.cosine_distance:.2g}, "
                f"largest {error.max_abs:.2g} (measured on {error.n_tokens:,} tokens)",
            )
        )
    if canaries is not None:
        n = render.count(canaries.shard.n_sentences, "sentence")
        rows.append(
            ("canaries", f"{n} within {canaries.tolerance:g} of {render.printable(canaries.made_with)}")
        )
    rows.append(("commit", f"{opened.snapshot} of {numbers[-1]}, {commit.time}, {commit.software}{speed}"))
    click.echo(render.facts(rows))
    if untrained:
        click.echo(render.UNTRAINED_NOTE)


@command()
@store_argument
@click.option(
    "--contains", metavar="TEXT", help="Only sentences whose text, tokens joined by spaces, contains TEXT."
)
@click.option("--ignore-case", is_flag=True, help="Compare without regard to case.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="List at most N sentences.  [default: all]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: one object per sentence.")
def ls(
    store: Path,
    snapshot: int | None,
    contains: str | None,
    ignore_case: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List stored sentences: key, number of tokens, text.

    What a sentence's vectors depend on beside its tokens, such as the sentences around it, follows on its
    line.
    """
    from featurestore.keys import condition_of

    wanted = contains.casefold() if contains and ignore_case else contains
    shown = 0
    opened = open_store(store, snapshot)
    for shard, row, tokens in opened.sentences():
        text = " ".join(tokens)
        if wanted and wanted not in (text.casefold() if ignore_case else text):
            continue
        key = opened.reader(shard).key(row).hex()
        if as_json:
            listed = {
                "key": key,
                "n_tokens": len(tokens),
                "tokens": tokens,
                "condition": condition_text(condition_of(tokens)),
            }
            click.echo(render.json_text(listed))
        else:
            condition = shown_condition(condition_of(tokens))
            also = f"  with {condition}" if condition else ""
            click.echo(f"{key}  {len(tokens):4}  {render.printable(text)}{also}")
        shown += 1
        if shown == limit:
            break
    if not shown:
        if not as_json:
            click.echo(f"no sentence contains {contains!r}" if contains else "the store is empty", err=True)
        raise click.exceptions.Exit(1)


@command()
@store_argument
@click.argument("text", required=False)
@click.option("--key", metavar="HEX", help="The sentence's key, as ls prints it (or its first digits).")
@tokens_option
@click.option("--vectors", is_flag=True, help="With --json: include the vectors.")
@json_option
def show(
    store: Path,
    snapshot: int | None,
    text: str | None,
    key: str | None,
    as_tokens: bool,
    vectors: bool,
    as_json: bool,
) -> None:
    """Show one sentence: its tokens, its vectors summarised, and where it lies.

    TEXT is split at spaces, as the sentences of a tokenised text are. Where vectors depend on more than the
    tokens, it finds the one sentence with these tokens; if there are several, choose by --key.
    """
    import numpy as np

    opened = open_store(store, snapshot)
    if (text is None) == (key is None):
        raise UsageError("give either the sentence's TEXT or its --key")
    shard, row = (
        find_sentence(opened, parse_sentence(text, as_tokens))
        if text is not None
        else find_key(opened, key or "")
    )
    reader = opened.reader(shard)
    tokens, values = reader.tokens(row), reader.read(row)
    entry, first = reader.entry, reader.bounds[row]
    offset, n_bytes = entry.extents["values"].rows(first, first + len(tokens))
    where = {
        "shard": entry.name,
        "row": row,
        "first_token": first,
        "byte_offset": offset,
        "n_bytes": n_bytes,
        "codec": entry.codec,
    }
    flat = values.reshape(len(tokens), -1).astype(np.float64)
    norms = np.sqrt((flat**2).sum(axis=1))
    if as_json:
        result: dict[str, Any] = {
            "key": reader.key(row).hex(),
            "tokens": tokens,
            "condition": condition_text(reader.condition(row)),
            "shape": list(values.shape),
            **where,
            "norms": [round(float(n), 6) for n in norms],
        }
        if vectors:
            result["vectors"] = [[float(v) for v in np.ravel(token)] for token in values]
        render.echo_json(result)
        return
    facts = [
        ("key", reader.key(row).hex()),
        ("text", render.printable(" ".join(tokens))),
        ("shape", f"{' x '.join(map(str, values.shape))}, stored as {entry.codec}"),
        ("where", f"{reader.path}, sentence {row}, tokens {first} to {first + len(tokens) - 1}"),
    ]
    if reader.condition(row):
        facts.insert(2, ("condition", shown_condition(reader.condition(row), 1000)))
    click.echo(render.facts(facts))
    rows = [
        [str(i), render.printable(token), f"{norm:.3f}", f"{v.mean():+.4f}", f"{v.std():.4f}",
         f"{v.min():+.3f}", f"{v.max():+.3f}", " ".join(f"{x:+.3f}" for x in v[:4])]
        for i, (token, norm, v) in enumerate(zip(tokens, norms, flat, strict=True))
    ]  # fmt: skip
    click.echo()
    click.echo(
        render.table(["#", "token", "norm", "mean", "std", "min", "max", "first values"], rows, left=2)
    )


@command()
@store_argument
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    help="Sentences whose vectors are read for the norms.",
)
@json_option
def stats(store: Path, snapshot: int | None, sample: int, as_json: bool) -> None:
    """Show the distributions of sentence lengths, token frequencies and vector norms."""
    from featurestore.store.maintenance.statistics import gather_statistics

    opened = open_store(store, snapshot)
    if not len(opened):
        raise MissingSentencesError(
            f"{store} holds no sentences yet: there is nothing to count", n_missing=0, n_wanted=0, store=store
        )
    found = gather_statistics(opened, sample=sample)
    if as_json:
        render.echo_json(found.to_dict())
        return
    click.echo(
        render.facts(
            [
                ("sentences", f"{found.n_sentences:,}"),
                ("tokens", f"{found.n_tokens:,}"),
                ("length", found.lengths.summary("{:.0f}")),
                ("norm", found.norms.summary("{:.3g}") + f"  (of {found.n_norms:,} tokens)"),
                ("per value", f"mean {found.value_mean:+.4f}, standard deviation {found.value_std:.4f}"),
                ("last run", _saved(opened)),
            ]
        )
    )
    for title, distribution in (("tokens in a sentence", found.lengths), ("norm of a vector", found.norms)):
        click.echo(f"\n{title}")
        most = max(distribution.counts)
        for (low, high), n in zip(distribution.bins(), distribution.counts, strict=True):
            span = whole_numbers(low, high) if distribution is found.lengths else f"{low:.4g} - {high:.4g}"
            click.echo(f"  {span:>15} {n:>10,}  {render.bar(n / most)}")


def _upgradable(version: int, store: Path) -> str:
    from featurestore.store.format.manifest import NEWEST_VERSION

    if version == NEWEST_VERSION:
        return ""
    return f": each commit lists all shards anew (featurestore upgrade {shlex.quote(str(store))})"


def _saved(store: Store) -> str:
    commit = store.manifest.commit
    if not commit.n_read:
        return "unknown"
    return (
        f"{commit.n_read:,} sentences read, {commit.n_distinct:,} distinct "
        f"({commit.n_read - commit.n_distinct:,} repeats encoded once), {commit.n_cached:,} cached before"
    )
