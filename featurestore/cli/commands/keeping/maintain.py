"""``repair``, ``gc``, ``forget`` and ``merge``: looking after stores. Loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.display import render
from featurestore.cli.flags import json_option, progress_option
from featurestore.cli.project.command import command
from featurestore.cli.selecting import bar, store_argument
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.store.maintenance.repair import Repair

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_KINDS = {
    "manifest": ("old snapshot", ""),
    "list": ("unreferenced list of shards", ""),
    "shard": ("unreferenced shard", ""),
    "canaries": ("unreferenced canary file", ""),
    "index": ("unreferenced index file", ""),
    "temporary": ("orphaned temporary file", ""),
}


def parse_duration(text: str) -> float:
    """Return the seconds that a duration such as ``24h``, ``30min`` or ``7d`` means.

    Raises
    ------
    UsageError
        If it is not a duration.
    """
    stripped = text.strip().lower()
    unit = stripped.lstrip("0123456789.")
    try:
        return float(stripped.removesuffix(unit)) * _SECONDS[unit.strip() or "s"]
    except (ValueError, KeyError) as error:
        raise UsageError(f"{text!r} is not a duration: write 24h, 30min, 7d or 0s") from error


@command()
@store_argument
@click.option(
    "--keep-last",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="N",
    help="Snapshots that stay whatever their age.",
)
@click.option(
    "--older-than",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Keep what was needed more recently: 30min, 24h, 7d. 0s is safe where all readers and writers of "
    "the store are on this computer.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def gc(store: Path, keep_last: int, older_than: str, dry_run: bool, as_json: bool) -> None:
    """Remove what a store does not need any more.

    Old snapshots, unreferenced shards and index files, temporary files of dead writers. A snapshot that
    somebody has open stays, and what a writer is about to commit; so do quarantined files.
    """
    from featurestore.store.maintenance.gc import collect

    done = collect(store, keep_last=keep_last, older_than=parse_duration(older_than), dry_run=dry_run)
    if as_json:
        render.echo_json(
            {
                "store": str(store),
                "dry_run": dry_run,
                "n_removed": len(done.removed),
                "n_bytes": done.n_bytes,
                "removed": [vars(garbage) for garbage in done.removed],
                "too_young": [vars(garbage) for garbage in done.too_young],
                "in_use": done.in_use,
                "kept": done.kept,
            }
        )
        return
    for kind, (noun, which) in _KINDS.items():
        files = [garbage for garbage in done.removed if garbage.kind == kind]
        if files:
            n_bytes = sum(garbage.n_bytes for garbage in files)
            click.echo(f"{render.count(len(files), noun)}{which}: {render.size(n_bytes)}")
    if done.too_young:
        n_bytes = sum(garbage.n_bytes for garbage in done.too_young)
        files_kept = render.count(len(done.too_young), "file")
        click.echo(f"kept {files_kept} without use, {render.size(n_bytes)}: younger than {older_than}")
    if done.in_use:
        click.echo(f"kept {render.count(len(done.in_use), 'old snapshot')} that somebody has open")
    verb = "would remove" if dry_run else "removed"
    click.echo(f"{verb} {render.count(len(done.removed), 'file')}, {render.size(done.n_bytes)}; "
               f"{render.count(len(done.kept), 'snapshot')} left")  # fmt: skip


@command()
@json_option
def forget(as_json: bool) -> None:
    """Forget what was found when datasets were opened.

    A dataset of a corpus in a file remembers where its sentences lie in the store, in the user's cache
    folder, and opens at once the next time. Forgetting costs no more than finding them again. What a process
    reads stays.
    """
    from featurestore.dataset.opening.folder import forget

    done = forget()
    if as_json:
        render.echo_json({**vars(done), "folder": str(done.folder)})
        return
    if done.n_in_use:
        click.echo(f"kept {render.count(done.n_in_use, 'opening')} in use")
    removed = render.count(done.n_removed, "remembered opening")
    click.echo(f"removed {removed} from {done.folder}, {render.size(done.n_bytes)}")


@command()
@store_argument
@click.option("--dry-run", is_flag=True, help="Only say what would be done. Exits with 3 if there is damage.")
@click.option(
    "--list",
    "list_",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the sentences to extract again, as JSON Lines that extract reads.",
)
@progress_option
@json_option
def repair(store: Path, dry_run: bool, list_: Path | None, no_progress: bool, as_json: bool) -> None:
    """Make a damaged store usable again, without what is damaged.

    Verifies everything; makes a snapshot without the damaged files, on top of the last one whose manifest is
    intact; quarantines them in STORE/damaged; builds the index again. Extracting the same corpora afterwards
    heals the store.
    """
    from featurestore.disk.destination import require_writable
    from featurestore.store.maintenance.repair import repair as repair_store

    if list_ is not None:
        require_writable(list_)  # now: once repaired, nothing is lost any more
    with bar("verifying", None, no_progress or as_json) as progress:
        done = repair_store(store, dry_run=dry_run, progress=progress)
    lost = _list_lost(done, list_)
    if as_json:
        render.echo_json(
            {
                "store": str(store),
                "dry_run": dry_run,
                "sound": done.sound,
                "snapshot": done.result.number,
                "damaged": [
                    {
                        "name": damaged.name,
                        "problem": damaged.problem,
                        "missing": damaged.missing,
                        "n_sentences": damaged.entry.n_sentences if damaged.entry else None,
                        "moved_to": done.moved.get(damaged.name),
                    }
                    for damaged in done.damaged
                ],
                "adopted": [entry.name for entry in done.adopted],
                "index_rebuilt": done.index_rebuilt,
                "n_sentences": done.result.n_sentences,
                "lost": lost,
            }
        )
    else:
        _show_repair(done, lost, dry_run, list_)
    if dry_run and done.damaged:
        raise click.exceptions.Exit(3)


def _list_lost(done: Repair, file: Path | None) -> dict[str, int]:
    """Count the sentences to extract again, and write those that can be written."""
    from featurestore.disk.atomic import write_atomic
    from featurestore.disk.destination import regular_file
    from featurestore.keys import condition_of

    lines: list[str] = []
    n_listed, n_conditioned = 0, 0
    for tokens in done.lost_sentences():
        if condition_of(tokens):
            n_conditioned += 1
            continue
        n_listed += 1
        if file is not None:
            lines.append(json.dumps({"tokens": tokens}))
    # Where nothing was lost, an existing list may be that of the repair before.
    if file is not None and (lines or not file.exists()):
        write_atomic(regular_file(file), "".join(f"{line}\n" for line in lines).encode())
    n_unreadable = sum(shard.entry.n_sentences for shard in done.unreadable() if shard.entry is not None)
    return {"n_listed": n_listed, "n_with_conditions": n_conditioned, "n_unreadable": n_unreadable}


def _show_repair(done: Repair, lost: dict[str, int], dry_run: bool, list_: Path | None) -> None:
    for damaged in done.damaged:
        click.echo(f"damaged: {render.printable(damaged.name)}: {render.printable(damaged.problem)}")
    if done.sound:
        click.echo(f"nothing to repair: {render.count(done.result.n_sentences, 'sentence')}")
        return
    if done.moved:
        click.echo(f"quarantined {render.count(len(done.moved), 'file')} in {done.path / 'damaged'}")
    if done.canaries:
        click.echo("the store has no canaries now: the next extraction makes new ones")
    if done.adopted:
        shards = render.count(len(done.adopted), "sound shard")
        n = render.count(sum(entry.n_sentences for entry in done.adopted), "sentence")
        click.echo(f"{'would adopt' if dry_run else 'adopted'} {shards} that no sound snapshot lists: {n}")
    if done.index_rebuilt:
        click.echo("would build the index again" if dry_run else "built the index again")
    left = f"{render.count(done.result.n_sentences, 'sentence')} {'would be ' if dry_run else ''}left"
    click.echo(f"snapshot {done.result.number}: {left}")
    if not any(lost.values()):
        return
    click.echo(f"to extract again: {render.count(sum(lost.values()), 'sentence')}")
    if lost["n_with_conditions"]:
        click.echo(f"  {lost['n_with_conditions']:,} with context, which a list cannot hold")
    if lost["n_unreadable"]:
        click.echo(f"  {lost['n_unreadable']:,} whose tokens cannot be read")
    click.echo(f"run `featurestore extract` on the same corpora with --store {done.path}")
    if list_ is not None:
        click.echo(
            f"{render.count(lost['n_listed'], 'sentence')} written to {list_}, which extract reads too"
        )


@command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="STORE...")
@click.option(
    "-o",
    "--output",
    "--into",
    "into",
    type=click.Path(path_type=Path),
    required=True,
    help="The other store; made if it does not exist.",
)
@progress_option
@json_option
def merge(stores: tuple[Path, ...], into: Path, no_progress: bool, as_json: bool) -> None:
    """Add the sentences of one or more stores to another store of the same recipe.

    For stores filled on several machines. The sources do not change. Shards are linked or copied whole where
    no sentence is stored already. After a kill, run the same command again: it goes on.
    """
    from featurestore.store.maintenance.merge import merge as merge_stores
    from featurestore.store.store import Store

    with bar("merging", None, no_progress or as_json) as progress:
        merged = merge_stores(stores, into, progress=progress)
    target = Store.open(into)
    if as_json:
        result: dict[str, Any] = {"into": str(into), **vars(merged)}
        render.echo_json({**result, "snapshot": target.snapshot, "n_total": len(target)})
        return
    click.echo(
        f"added {render.count(merged.n_sentences, 'sentence')}, {render.size(merged.n_bytes)}: "
        f"{render.count(merged.n_whole, 'shard')} whole, {merged.n_part:,} in part; "
        f"{render.count(merged.n_repeated, 'sentence')} already stored"
    )
    click.echo(f"{into} holds {render.count(len(target), 'sentence')}, {render.size(target.n_bytes)}")
