"""``verify``: is every stored byte as it was committed, and would the encoder give these vectors again."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.completing import encoders
from featurestore.cli.display import render
from featurestore.cli.flags import device_option, json_option, progress_option, seed_option
from featurestore.cli.project.command import command
from featurestore.cli.store import open_store, store_argument
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.extraction.recheck import Recheck
    from featurestore.store.store import Store


@command()
@store_argument
@click.option("--quick", is_flag=True, help="Structure only: do not read the vectors.")
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Structure, and the vectors of N sentences drawn at random.",
)
@click.option(
    "--encode",
    type=click.IntRange(1),
    metavar="N",
    help="Also encode N sentences drawn at random again, and compare.",
)
@seed_option("the random draws")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="With --encode: relative L2 by which a sentence may differ.  "
    "[default: what the recipe's precision and the shard's codec explain]",
)
@click.option(
    "--encoder",
    metavar="SPEC",
    shell_complete=encoders,
    help="With --encode: the encoder.  [default: the store's own]",
)
@device_option
@progress_option
@json_option
def verify(
    store: Path,
    snapshot: int | None,
    quick: bool,
    sample: int | None,
    encode: int | None,
    seed: int,
    tolerance: float | None,
    encoder: str | None,
    device: str,
    no_progress: bool,
    as_json: bool,
) -> None:
    """Check every stored byte against what was committed; name what is damaged.

    Files that the store does not need, and an index that it builds again, are mentioned and are no damage.
    Exits with 3 if something is damaged, or a sentence encoded again differs by more than the tolerance.
    """
    from tqdm import tqdm

    if quick and sample:
        raise UsageError("--quick reads no vectors, --sample reads some: choose one")
    if encode is None and (encoder or tolerance):
        raise UsageError("--encoder and --tolerance go with --encode N: how many sentences to encode again")
    opened = open_store(store, snapshot)
    hidden = no_progress or as_json or not sys.stderr.isatty()
    findings = []
    with tqdm(total=opened.n_bytes, unit="B", unit_scale=True, desc="verifying", disable=hidden) as progress:
        for finding in opened.verify(quick=quick, sample=sample, seed=seed, progress=progress.update):
            findings.append(finding)
            if not as_json:
                progress.write(f"damaged: {finding}", file=sys.stdout)
    notes = _notes(opened)  # before anything reads by the index, and builds it again
    # Vectors that are not what was committed say nothing about the encoder.
    again = _recheck(opened, encode, seed, tolerance, encoder, device) if encode and not findings else None
    if as_json:
        result: dict[str, Any] = {
            "store": str(store),
            "snapshot": opened.snapshot,
            "quick": quick,
            "sample": sample,
            "sound": not findings,
            "n_sentences": len(opened),
            "n_shards": len(opened.manifest.shards),
            "n_bytes": opened.n_bytes,
            "findings": [finding.to_dict() for finding in findings],
            "encoded_again": again.to_dict() if again else None,
            "notes": notes,
        }
        render.echo_json(result)
    else:
        shards = render.count(len(opened.manifest.shards), "shard")
        if findings:
            click.echo(
                f"{render.count(len(findings), 'finding')} in {shards}: restore the files named above from a "
                f"copy, or run `featurestore repair {store}` and extract the same corpora again"
            )
        else:
            what = "structure sound" if quick or sample else "every byte as committed"
            if sample:
                what += f", {render.count(min(sample, len(opened)), 'sentence')} of them read"
            click.echo(
                f"{what}: {shards}, {render.count(len(opened), 'sentence')}, {render.size(opened.n_bytes)}"
            )
        if again is not None:
            click.echo(_recheck_text(again))
        for note in notes:
            click.echo(f"note: {note}")
    if findings or (again is not None and again.differing):
        raise click.exceptions.Exit(3)


def _recheck(
    opened: Store, n: int, seed: int, tolerance: float | None, encoder: str | None, device: str
) -> Recheck:
    from featurestore.extraction.choice import EncoderChoice
    from featurestore.extraction.recheck import encode_again

    choice = EncoderChoice.for_store(opened, encoder, None, None)
    return encode_again(opened, choice.load(device), n, seed=seed, tolerance=tolerance)


def _recheck_text(again: Recheck) -> str:
    lines = [
        f"differs: {render.printable(' '.join(found.tokens[:8]))!r} (key {found.key}): relative L2 "
        f"{found.relative_l2:.3g}, allowed {found.tolerance:.3g}"
        for found in again.differing
    ]
    encoded = render.count(again.n_sentences, "sentence")
    canaries = " and the store's canaries" if again.n_canaries else ""
    lines.append(
        f"encoded again: {encoded}{canaries}, {len(again.differing)} beyond the tolerance; "
        f"relative L2 {again.mean:.3g} on average, {again.largest:.3g} at most"
    )
    if again.differing:
        lines.append(
            "the vectors are as committed, but this encoder on this machine does not give them again"
        )
    return "\n".join(lines)


def _notes(opened: Store) -> list[str]:
    """Return what the store does not need, and what it makes again by itself."""
    from featurestore.store.format.directory import DAMAGED, INDEX
    from featurestore.store.index.loading import damaged_files
    from featurestore.store.maintenance.gc import orphaned_files, unreferenced_files
    from featurestore.store.snapshot import shard_list

    path = opened.path
    notes = []
    damaged = damaged_files(path / INDEX, shard_list(opened.manifest))
    notes += [f"the index {INDEX}/{file.name} is damaged; nothing is lost: the next reader builds it again"
              for file in damaged]  # fmt: skip
    unreferenced, indexes = unreferenced_files(path)
    for files, what in (
        (unreferenced, "that no snapshot references"),
        ([file for file in indexes if file not in damaged], "of an index that no snapshot references"),
        (orphaned_files(path), "of a writer that is dead"),
    ):
        sizes = _sizes(files)
        if sizes:
            notes.append(f"{render.count(len(sizes), 'file')} {what} ({render.size(sum(sizes))}): "
                         f"`featurestore gc {path}` removes what is old enough")  # fmt: skip
    quarantined = list((path / DAMAGED).iterdir()) if (path / DAMAGED).is_dir() else []
    if quarantined:
        notes.append(f"{render.count(len(quarantined), 'file')} quarantined by repair in {path / DAMAGED}")
    return notes


def _sizes(files: list[Path]) -> list[int]:
    """Return the bytes of those files that gc has not removed meanwhile."""
    sizes = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(file.lstat().st_size)
    return sizes
