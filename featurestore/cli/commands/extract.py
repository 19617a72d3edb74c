"""``extract`` and ``plan``: corpora into a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.completing import encoders
from featurestore.cli.display import render
from featurestore.cli.display.reading import reading_rows, say_warnings
from featurestore.cli.flags import (
    CODECS,
    corpora_argument,
    device_option,
    encoder_words,
    json_option,
    options,
    progress_option,
)
from featurestore.cli.interrupts import Terminated, terminable
from featurestore.cli.options import Reading, parse_size, reading_options
from featurestore.cli.project.command import command
from featurestore.encoders.base import DEFAULT_ENCODER
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.extraction.choice import EncoderChoice
    from featurestore.extraction.cluster.engine import Ray
    from featurestore.extraction.job import Job
    from featurestore.extraction.planning.parts import Division
    from featurestore.extraction.planning.plan import Plan
    from featurestore.extraction.progress import Progress
    from featurestore.extraction.report import Report
    from featurestore.store.snapshot import Snapshot

_MOST_SHARES = 16
"""Parts of which ``plan`` shows each."""

_extract_options = options(
    corpora_argument,
    click.option("--store", type=click.Path(path_type=Path), required=True,
                 help="Directory of the store; made if it does not exist."),
    click.option("--encoder", metavar="SPEC", shell_complete=encoders,
                 help="elmo:demo (comes with featurestore); elmo:small, medium, original, original-5.5b, "
                 "portuguese or pubmed (downloaded once); elmo:./FOLDER or "
                 "elmo:OPTIONS.json,WEIGHTS.hdf5; elmo:untrained-small?seed=0 (random weights); "
                 "flair:PATH, flair:glove, flair:news-forward or flair:Class=NAME?option=value (needs Flair; "
                 "+ makes a stack); or one of your own, PACKAGE.MODULE:CLASS (runs its code).  "
                 f"[default: the store's own, else {DEFAULT_ENCODER}]"),
    click.option("--layers", metavar="WHICH", shell_complete=encoder_words["layers"],
                 help="Layers of an ELMo: average, top, all, or indices such as 0,2 (kept apart).  "
                 "[default: the store's own, else average]"),
    click.option("--codec", type=click.Choice(CODECS),
                 help="How vectors are stored: float32 is exact, float16 takes half, int8 a quarter.  "
                 "[default: the store's own, else float16]"),
    click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
                 help="What the encoder computes in.  [default: the store's own, else float32 on a CPU, "
                 "float16 on a GPU]"),
    click.option("--initial-state", metavar="auto|zero|warm", shell_complete=encoder_words["initial_state"],
                 help="LSTM state at the start of every sentence: zero, or warm as `featurestore warm-up` "
                 "made it for the model; auto is what suits the model.  "
                 "[default: the store's own, else auto]"),
    device_option,
    click.option("--token-budget", type=click.IntRange(1),
                 metavar="N", help="Tokens in a batch, padding not counted; halved when memory runs out.  "
                 "[default: by the device]"),
    click.option("--shard-size", metavar="SIZE",
                 help="Size of a shard of a new store, such as 64MiB. A kill costs the shard being filled "
                 "and those being written, nine at most.  [default: 128MiB]"),
    reading_options,
    click.option("--allow-cut", is_flag=True,
                 help="Extract also where most of the text stands in tokens whose end the encoder does not "
                 "see (an ELMo reads 48 bytes of a token)."),
    click.option("--part", metavar="I/N",
                 help="Encode only part I of N, counted from 0: N processes with the same corpora and store, "
                 "one part each, encode every sentence once, at equal cost. "
                 'In a SLURM array of 0 to N-1: "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT".'),
    click.option("--label", metavar="NAME|N", help="Also check that this label is there, as training will."),
    progress_option,
    json_option,
)  # fmt: skip


_engine_options = options(
    click.option("--engine", type=click.Choice(["ray"]),
                 help="Encode on a Ray cluster, all of whose nodes share the store's directory "
                 "(extra featurestore[ray])."),
    click.option("--address",
                 help="Of the cluster: auto, HOST:PORT, ray://HOST:PORT, or local, which starts one on this "
                 "machine for this run.  [default: auto]"),
    click.option("--actors", type=click.IntRange(1), metavar="N",
                 help="Actors, each of which loads the encoder.  [default: as many as there is room for]"),
    click.option("--cpus-per-actor", type=click.FloatRange(0), metavar="C",
                 help="Cores, and threads, of each.  [default: 1]"),
    click.option("--gpus-per-actor", type=click.FloatRange(0), metavar="G",
                 help="GPUs of each.  [default: 0]"),
)  # fmt: skip


@command()
@_extract_options
@_engine_options
def extract(
    as_json: bool,
    no_progress: bool,
    token_budget: int | None,
    allow_cut: bool,
    engine: str | None,
    address: str | None,
    actors: int | None,
    cpus_per_actor: float | None,
    gpus_per_actor: float | None,
    **arguments: Any,
) -> None:
    """Encode corpora into a store.

    Every distinct sentence is encoded once, in whichever corpora it stands. Shards are committed as they
    fill; after a kill the same command continues from the last commit. An encoder whose vectors differ from
    those it gave before, by another library or driver, is refused before anything is added (exit code 4).

    What was read is shown: the first sentence and the commonest labels; what is implausible is warned of.

    A CORPUS is a file (text, CoNLL, CoNLL-U, CSV, TSV, JSON Lines, fastText or FASTA, each also compressed)
    or - for standard input, which is read as text, a sentence on each line, unless --format names another
    format.
    """
    progress = _progress(no_progress or as_json)
    elsewhere = _engine(
        engine, address=address, actors=actors, cpus_per_actor=cpus_per_actor, gpus_per_actor=gpus_per_actor
    )
    job, choice = _job(**arguments)
    plan = job.plan(choice, progress=progress)
    if not as_json:
        click.echo(_plan_text(plan, choice.spec))
        _say_doubts(plan, allow_cut)
    if not allow_cut:
        plan.require_seen()
    plan.require_space(job.destination.path)
    report = job.done(choice, plan)
    store: Snapshot | None = job.destination.store
    status, code = "complete", 0
    if report is None:
        with terminable():
            try:
                extraction = job.extraction(
                    choice, plan, token_budget=token_budget, progress=progress, engine=elsewhere
                )
                report, store = extraction.report, extraction.store
                extraction.run()
                store = extraction.committed
            except Terminated:
                status, code = "terminated", 143
            except KeyboardInterrupt:
                status, code = "interrupted", 130
    if code:
        store = job.destination.latest().store
    if store is None:
        click.echo(f"{status} before the store was made", err=True)
        raise click.exceptions.Exit(code)
    if as_json:
        render.echo_json(
            {
                "status": status,
                "store": str(store.path),
                "snapshot": store.snapshot,
                "fingerprint": store.fingerprint,
                "encoder": store.encoder,
                "untrained": bool(store.recipe.get("untrained")),
                "plan": plan.to_dict(),
                "report": report.to_dict() if report else None,
                "n_sentences": len(store),
                "n_tokens": store.n_tokens,
                "n_bytes": store.n_bytes,
            }
        )
    else:
        click.echo(_report_text(report, plan, store, status))
    if code:
        raise click.exceptions.Exit(code)


@command()
@_extract_options
def plan(
    as_json: bool, no_progress: bool, token_budget: int | None, allow_cut: bool, **arguments: Any
) -> None:
    """Say what extract would do with the same arguments: sentences, bytes, time. Loads no model,
    except one of Flair.

    Exits with 1 if extract would refuse: the vectors do not fit on the disk, or the encoder would not see
    most of the text.
    """
    job, choice = _job(**arguments)
    made = job.plan(choice, progress=_progress(no_progress or as_json))
    if as_json:
        render.echo_json(made.to_dict())
    else:
        click.echo(_plan_text(made, choice.spec))
        if made.division is not None:
            click.echo(_shares_text(made.division))
        _say_doubts(made, allow_cut)
        if not made.fits:
            click.echo("it does not fit: free some space, choose another disk, or --codec int8")
    if not allow_cut:
        made.require_seen()
    if not made.fits:
        raise click.exceptions.Exit(1)


def _job(
    corpora: tuple[str, ...],
    store: Path,
    encoder: str | None,
    layers: str | None,
    codec: str | None,
    precision: str | None,
    initial_state: str | None,
    device: str,
    shard_size: str | None,
    reading: Reading,
    label: str | None,
    part: str | None,
) -> tuple[Job, EncoderChoice]:
    from featurestore.extraction.choice import EncoderChoice
    from featurestore.extraction.destination import Destination
    from featurestore.extraction.job import Job
    from featurestore.extraction.planning.parts import Part

    wanted = None if part is None else Part.of(part)  # before anything is read
    destination = Destination.of(store)
    choice = EncoderChoice.for_store(destination, encoder, layers, precision, initial_state)
    opened = [reading.open(path, label) for path in corpora]
    shard_bytes = parse_size(shard_size) if shard_size else None
    job = Job(opened, destination, codec=codec, shard_bytes=shard_bytes, device=device, part=wanted)
    return job, choice


def _engine(name: str | None, **chosen: Any) -> Ray | None:
    """Return the engine asked for; refuse options of one that is not."""
    given = {option: value for option, value in chosen.items() if value is not None}
    if name is None:
        if given:
            options = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise UsageError(f"{options} without --engine ray: this is said of a Ray cluster alone")
        return None
    from featurestore.extraction.cluster.engine import Ray

    return Ray(**given)


def _progress(silent: bool) -> Progress:
    from featurestore.cli.display.progress import LineProgress
    from featurestore.extraction.progress import BarProgress, Progress

    if silent:
        return Progress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def _say_doubts(made: Plan, allow_cut: bool) -> None:
    """Warn of what is implausible, unless a refusal says it, and of a codec that is not the store's."""
    refused = made.is_mostly_cut and not allow_cut
    say_warnings(
        w for w in made.warnings if not (refused and w.kind == "cut-tokens" and w.path == made.most_cut)
    )
    if made.codec_note:
        click.echo(f"note: {made.codec_note}", err=True)


def _plan_text(made: Plan, encoder: str) -> str:
    duplicates = made.n_sentences - made.n_distinct
    time = "unknown: no run yet to learn from" if made.n_new else "none"
    if made.seconds is not None and made.n_new:
        time = render.estimate(made.seconds, made.seconds_low, made.seconds_high, made.seconds_basis)
    rows = [
        ("encoder", encoder + ("  (UNTRAINED: random weights)" if "untrained" in encoder else "")),
        (
            "corpora",
            "\n".join(
                f"{c.path}: {render.count(c.n_sentences, 'sentence')}, {render.count(c.n_tokens, 'token')}"
                for c in made.corpora
            ),
        ),
        *reading_rows(made.readings),
        ("distinct", f"{render.count(made.n_distinct, 'sentence')} ({render.count(duplicates, 'repeat')})"),
        ("cached", f"{made.n_cached:,}"),
        ("to encode", f"{render.count(made.n_new, 'sentence')}, {render.count(made.n_new_tokens, 'token')}"),
    ]
    if made.division is not None:
        rows.append(("part", f"{made.division.part}, counted from 0; what is to encode is its own"))
    if made.n_new:
        rows.append(("longest", f"{made.longest:,} tokens ({made.longest_place})"))
    if made.n_cut_tokens:
        tokens = render.count(made.n_cut_tokens, "token")
        rows.append(
            ("cut", f"{tokens} of more than {made.max_token_bytes} bytes, the rest of which is not seen")
        )
    free = "free space unknown" if made.free_bytes is None else f"{render.size(made.free_bytes)} free"
    rows.append(("disk", f"{render.size(made.n_bytes)} to write, {free}"))
    rows.append(("time", time))
    return render.facts(rows)


def _shares_text(division: Division) -> str:
    """Return a line for each part; of many the first, this one and the last, and how far they differ."""
    last, mine = len(division.shares) - 1, division.part.index
    shown = range(last + 1) if last < _MOST_SHARES else sorted({*range(_MOST_SHARES // 2), mine, last})
    lines: list[str] = []
    for i in shown:
        if lines and i and i - 1 not in shown:
            lines.append("  ...")
        share = division.shares[i]
        lines.append(
            f"  part {i}/{last + 1}: {render.count(share.n_sentences, 'sentence')}, "
            f"{render.count(share.n_tokens, 'token')}, {share.cost:.2%} of the cost"
            + ("  <- this one" if i == mine else "")
        )
    costs = [share.cost for share in division.shares]
    return "\n".join(["parts", *lines, f"  smallest {min(costs):.2%}, largest {max(costs):.2%} of the cost"])


def _report_text(report: Report | None, plan: Plan, store: Snapshot, status: str) -> str:
    lines = []
    if report is not None and report.n_encoded:
        lines.append(
            f"encoded {render.count(report.n_encoded, 'sentence')}, "
            f"{render.count(report.n_encoded_tokens, 'token')} in "
            f"{render.duration(report.seconds)} ({report.tokens_per_second:,.0f} tokens/s): "
            f"{render.count(report.n_shards, 'shard')}, {render.size(report.n_bytes)}"
        )
    elif status != "complete":
        lines.append("nothing was encoded")
    elif plan.n_new:
        lines.append("nothing was added: another process stored the same sentences meanwhile")
    elif plan.division is not None:
        lines.append(f"nothing to encode: every sentence of part {plan.division.part} is in the store")
    else:
        lines.append("nothing to encode: every sentence is in the store")
    lines.append(
        f"{store.path} holds {render.count(len(store), 'sentence')}, "
        f"{render.count(store.n_tokens, 'token')}, "
        f"{render.size(store.n_bytes)}"
    )
    if report is not None and report.notice:
        lines.append(f"note: {report.notice}")
    if store.recipe.get("untrained"):
        lines.append(render.UNTRAINED_NOTE)
    if status != "complete":
        lines.append(f"{status}: what is done is committed; the same command goes on from here")
    return "\n".join(lines)
