"""``subset``, ``copy``, ``remove``, ``recode``, ``layers`` and ``compact``: stores made of stores.

Loads no torch, except where ``layers`` asks an encoder other than an ELMo for its recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.completing import files, words
from featurestore.cli.display import render
from featurestore.cli.flags import CODECS, json_option, progress_option
from featurestore.cli.options import Reading, reading_options
from featurestore.cli.project.command import command
from featurestore.cli.selecting import (
    Asked,
    bar,
    opened_to_copy,
    selection_options,
    store_argument,
)
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.store.maintenance.recoding import Recoded

_output_option = click.option(
    "-o", "--output", "into", type=click.Path(path_type=Path), required=True, metavar="NEW",
    help="The new store: a directory that does not exist, or is empty.",
)  # fmt: skip
_again_option = click.option(
    "--again", is_flag=True, help="Permit rounding vectors a second time that are stored as int8."
)


def _report(into: Path, facts: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        render.echo_json({"output": str(into), **facts})
    else:
        click.echo(text)
        click.echo(f"{into} holds {render.count(facts['n_sentences'], 'sentence')}, "
                   f"{render.size(facts['n_bytes'])}")  # fmt: skip


@command()
@store_argument
@selection_options
@_output_option
@reading_options
@progress_option
@json_option
def subset(
    store: Path, into: Path, reading: Reading, no_progress: bool, as_json: bool, **selection: Any
) -> None:
    """Make a store of some sentences of another.

    Vectors are taken as they are. Shards that are wanted whole are linked where the disk allows.
    """
    from featurestore.store.maintenance.subset import subset as take

    opened = opened_to_copy(store)
    wanted = Asked(**selection).of(opened, reading)
    if not wanted.n_sentences:
        tried = f" ({render.count(wanted.n_missing, 'key')} tried)" if wanted.n_missing else ""
        raise UsageError(f"{store} holds none of the sentences asked for{tried}")
    with bar("copying", opened.n_bytes, no_progress or as_json) as progress:
        taken = take(opened, wanted, into, progress=progress)
    missing = f"; {wanted.n_missing:,} of those asked for are not stored" if wanted.n_missing else ""
    text_of = (
        f"took {render.count(taken.n_sentences, 'sentence')}: {render.count(taken.n_whole, 'shard')} whole, "
        f"{taken.n_part:,} in part{missing}"
    )
    _report(into, {**vars(taken), "n_missing": wanted.n_missing}, text_of, as_json)


@command()
@store_argument
@click.argument("into", type=click.Path(path_type=Path), metavar="NEW")
@progress_option
@json_option
def copy(store: Path, into: Path, no_progress: bool, as_json: bool) -> None:
    """Copy a store: its latest snapshot, each shard checked on the way."""
    from featurestore.store.maintenance.selection import select
    from featurestore.store.maintenance.subset import subset as take

    opened = opened_to_copy(store)
    with bar("copying", opened.n_bytes, no_progress or as_json) as progress:
        taken = take(opened, select(opened), into, progress=progress)
    _report(into, vars(taken), f"copied {render.count(taken.n_whole, 'shard')}", as_json)


@command()
@store_argument
@selection_options
@click.option(
    "--keep",
    multiple=True,
    metavar="FILE",
    shell_complete=files,
    help="Leave the sentences of this corpus in the store; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@reading_options
@progress_option
@json_option
def remove(
    store: Path,
    keep: tuple[str, ...],
    dry_run: bool,
    reading: Reading,
    no_progress: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Make a snapshot without some sentences.

    Readers keep the snapshot they have open. The sentences are on the disk, in earlier snapshots, until gc
    has deleted the old shards.
    """
    from featurestore.store.maintenance.replacing import remove as leave_out

    opened = opened_to_copy(store)
    wanted = Asked(**selection).of(opened, reading, keep)
    with bar("rewriting", None, no_progress or as_json) as progress:
        done = leave_out(opened, wanted, dry_run=dry_run, progress=progress)
    if as_json:
        found = {"n_missing": wanted.n_missing, "n_kept": wanted.n_besides}
        render.echo_json({"store": str(store), "dry_run": dry_run, **vars(done), **found})
        return
    verb = "would remove" if dry_run else "removed"
    click.echo(
        f"{verb} {render.count(done.n_sentences, 'sentence')}, {done.n_tokens:,} tokens: "
        f"{render.count(done.n_shards, 'shard')} whole, {done.n_rewritten:,} rewritten"
    )
    if keep:
        click.echo(f"kept {render.count(wanted.n_besides, 'sentence')} that other corpora need")
    if wanted.n_missing:
        click.echo(f"{render.count(wanted.n_missing, 'sentence')} asked for are not stored")
    frees = "" if dry_run or not done.n_sentences else f"; `featurestore gc {store}` frees the bytes"
    click.echo(f"snapshot {done.snapshot}: {render.count(done.n_left, 'sentence')} left{frees}")


def _echo_recoded(into: Path, done: Recoded, as_json: bool) -> None:
    facts = {
        "n_sentences": done.n_sentences,
        "n_tokens": done.n_tokens,
        "n_bytes": done.n_bytes,
        "added_relative_l2": done.added.relative_l2,
        "relative_l2": done.error.relative_l2,
    }
    text = (
        f"wrote {render.count(done.n_sentences, 'sentence')}; relative L2 added "
        f"{done.added.relative_l2:.2g}, with what was lost before at most {done.error.relative_l2:.2g}"
    )
    _report(into, facts, text, as_json)


@command()
@store_argument
@click.option(
    "--codec",
    required=True,
    metavar=f"[{'|'.join(CODECS)}]",
    shell_complete=words(*CODECS),
    help="How the new store's vectors are stored.",
)
@_output_option
@_again_option
@progress_option
@json_option
def recode(store: Path, codec: str, into: Path, again: bool, no_progress: bool, as_json: bool) -> None:
    """Make a store of the same sentences in another codec.

    What the codec loses is measured and added to what the source had lost.
    """
    from featurestore.store.maintenance.recoding import recode as write_recoded

    opened = opened_to_copy(store)
    with bar("recoding", opened.n_bytes, no_progress or as_json) as progress:
        done = write_recoded(opened, into, codec, again=again, progress=progress)
    _echo_recoded(into, done, as_json)


@command()
@store_argument
@click.option("--layers", metavar="N,...", help="The layers to take, of those the store keeps apart.")
@click.option("--average", is_flag=True, help="Their average instead, as extract stores by default.")
@_output_option
@_again_option
@progress_option
@json_option
def layers(
    store: Path, layers: str | None, average: bool, into: Path, again: bool, no_progress: bool, as_json: bool
) -> None:
    """Make a store of some layers of one that keeps several apart, or of their average.

    The new store is what extract would have made, as exactly as the codec holds vectors; extract goes on
    with it. The encoder's files are needed, for its recipe.
    """
    from featurestore.extraction.layers import take_layers

    if (layers is None) == (not average):
        raise UsageError("give --layers N,... or --average")
    opened = opened_to_copy(store)
    with bar("taking layers", opened.n_bytes, no_progress or as_json) as progress:
        done = take_layers(
            opened, into, "average" if layers is None else layers, again=again, progress=progress
        )
    _echo_recoded(into, done, as_json)


@command()
@store_argument
@click.option("--dry-run", is_flag=True, help="Only say what would be joined.")
@progress_option
@json_option
def compact(store: Path, dry_run: bool, no_progress: bool, as_json: bool) -> None:
    """Join small shards to full ones.

    Committing a sentence at a time leaves thousands of shards, each a file to open. Readers keep the
    snapshot they have open; gc frees the bytes later.
    """
    from featurestore.store.maintenance.replacing import compact as join

    opened = opened_to_copy(store)
    with bar("joining", None, no_progress or as_json) as progress:
        done = join(opened, dry_run=dry_run, progress=progress)
    if as_json:
        render.echo_json({"store": str(store), "dry_run": dry_run, **vars(done)})
        return
    verb = "would join" if dry_run else "joined"
    click.echo(f"{verb} {done.n_joined:,} of {render.count(done.n_before, 'shard')}: {done.n_after:,} then")
    if done.n_apart:
        click.echo(f"{done.n_apart:,} small shards of int8 stay apart: each has norms of its own")
    if done.n_joined and not dry_run:
        click.echo(f"snapshot {done.snapshot}; `featurestore gc {store}` frees the old shards")
