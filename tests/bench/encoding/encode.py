"""Tokens encoded per second with ELMo `original`: our extraction, AllenNLP 0.9.0, the limit of the machine.

Ours is the whole job, from sentences in memory to committed shards; AllenNLP's is its ElmoEmbedder alone,
batches of 64, which writes nothing. Same weights (random: speed does not depend on what they are), same
text, all cores. The ceiling is the arithmetic that every implementation must do, at the speed of the best
matrix product measured here, with the weight prepacked beforehand or not: the LSTMs for every token, the
character network once for every word type.

    python -m tests.bench.encoding.encode --peer peer/bin/python

How to make the peer: see beside_allennlp.py. Without one its figures are those of recorded.json, and the
rows say from which day and machine. A full run with a peer writes that file anew.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from featurestore import extract, load_encoder
from featurestore.encoders.elmo.files.catalog import UntrainedSource
from featurestore.encoders.elmo.model.linear import PrepackedLinear
from tests.bench.encoding.beside_allennlp import SETTINGS, first_vectors, in_batches, peer_speed, write_model
from tests.bench.figures import Table
from tests.bench.machine import processor
from tests.bench.report import PartResult, part_options, print_part, use_cores
from tests.bench.texts import sentences as real_sentences
from tests.bench.texts import source
from tests.kit.places import ROOT

RECORDED = ROOT / "tests" / "bench" / "recorded.json"
BATCH_SIZE = 64
LEAST_SHARE = 0.7
"""Of the cores, for AllenNLP's figures to be kept: below it other programs had them."""

PRECISIONS = ("float32", "bfloat16")
PROMISES = {
    "checksums": "of every sentence, written beside the vectors",
    "fsync": "each shard and manifest, before the clock stops",
    "batch invariance": "a vector is its sentence's alone: within 1e-5, to the bit with AVX2 and AVX-512",
}


def product_speed(precision: str, seconds: float) -> float:
    """Return the best speed of matrix products of several shapes, by either library, in GFLOP/s."""
    dtype = getattr(torch, precision)
    best = 0.0
    for m, k, n in ((256, 1024, 16384), (1024, 1024, 8192), (2048, 2048, 2048)):
        left, right = torch.ones(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
        prepacked = PrepackedLinear(right.t())
        for multiply in (partial(torch.mm, left, right, out=left @ right), partial(prepacked, left)):
            until = time.perf_counter() + seconds / 6
            while (started := time.perf_counter()) < until:
                multiply()
                best = max(best, 2 * m * k * n / (time.perf_counter() - started) / 1e9)
    return best


def extraction_speed(sentences: Sequence[tuple[str, ...]], spec: str, precision: str) -> float:
    """Return the tokens per second of an extraction, the encoder loaded and warm before."""
    encoder = load_encoder(spec, precision=precision, device="cpu")
    encoder.encode(sorted(sentences, key=len)[:64])
    if hasattr(encoder, "forget_types"):
        encoder.forget_types()
    with tempfile.TemporaryDirectory() as name:
        report = extract(sentences, encoder, Path(name) / "store", device="cpu", progress=False)
    return report.tokens_per_second


def peer_speeds(
    peer: str, folder: Path, sentences: Sequence[tuple[str, ...]], ours: np.ndarray
) -> tuple[dict[str, float], float]:
    """Return AllenNLP's tokens per second by setting, and the least share of the cores that it had.

    Raises
    ------
    click.ClickException
        If its vectors are not ours: then there is nothing to compare.
    """
    batches = in_batches(sentences, BATCH_SIZE)
    measured = {label: peer_speed(peer, folder, batches, setting) for label, setting in SETTINGS.items()}
    theirs = first_vectors(folder).mean(axis=1)  # layers averaged, as ours are
    difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    if difference > 1e-5:
        raise click.ClickException(
            f"the first sentence's vectors differ by a relative L2 of {difference:.1e}"
        )
    speeds = {label: speed for label, (speed, _) in measured.items()}
    return speeds, min(share for _, share in measured.values())


def recorded() -> dict[str, Any]:
    """Return the peer's figures of another day."""
    values: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return values


def measured(
    shape: str,
    sentences: Sequence[tuple[str, ...]],
    peer: str | None,
    peer_tokens: int,
    record: bool,
    seconds: float,
) -> PartResult:
    """Measure everything there is a way to."""
    options = UntrainedSource(shape, 0).options()
    n_tokens = sum(map(len, sentences))
    n_types = len({token for sentence in sentences for token in sentence})
    table = Table("Encoding", ["tokens/s"])
    with tempfile.TemporaryDirectory() as name:
        spec = write_model(Path(name), shape)
        speeds = {precision: extraction_speed(sentences, spec, precision) for precision in PRECISIONS}
        if peer:
            ends = np.cumsum([len(sentence) for sentence in sentences])
            part = sentences[: int(np.searchsorted(ends, peer_tokens)) + 1]
            first = load_encoder(spec, precision="float32", device="cpu").encode(part[:1])[0]
            theirs, share = peer_speeds(peer, Path(name), part, first)
            kind, day = "alternative", ""
            if share < LEAST_SHARE:
                click.echo(f"AllenNLP had {share:.0%} of the cores: measure again, alone", err=True)
            elif record:
                values = {"date": date.today().isoformat(), "machine": processor(), "cores": os.cpu_count()}
                values["tokens_per_second"] = {label: round(speed, 1) for label, speed in theirs.items()}
                RECORDED.write_text(json.dumps(values, indent=1) + "\n")
        else:
            values = recorded()
            theirs, kind = values["tokens_per_second"], "recorded"
            day = f" (recorded {values['date']}, {values['cores']} x {values['machine']})"
    for label, speed in theirs.items():
        table.add(f"AllenNLP 0.9.0, {label}{day}", kind, speed)
    table.base = f"AllenNLP 0.9.0, {max(theirs, key=lambda label: theirs[label])}{day}"
    megaflops = options.megaflops_per_position + options.megaflops_per_type * n_types / n_tokens
    products = {precision: product_speed(precision, seconds) for precision in PRECISIONS}
    for precision, speed in speeds.items():
        limit = f"{precision} products, {products[precision]:,.0f} GFLOP/s"
        table.add(f"featurestore, {precision}, to committed shards", "ours", speed, limit=limit)
        table.add(limit, "ceiling", products[precision] * 1e3 / megaflops)
    of_peer = f"on the first {peer_tokens:,}" if peer else "(`original`) not measured in this run"
    table.note = (
        f"ELMo `{shape}`, {torch.get_num_threads()} threads; {n_tokens:,} tokens, {n_types:,} types of "
        f"{source()}, {megaflops:.0f} MFLOP a token; "
        f"AllenNLP's ElmoEmbedder in batches of {BATCH_SIZE}, {of_peer}."
    )
    return PartResult(
        tables=[table], promises=PROMISES, settings={"n_tokens": n_tokens, "peer": peer and "measured here"}
    )


@click.command()
@click.option("--tokens", default=10_000, show_default=True)
@click.option("--peer", help="Python 3.7 with AllenNLP 0.9.0.")
@click.option(
    "--peer-tokens",
    default=2_000,
    show_default=True,
    help="AllenNLP's part of the text; its speed does not depend on it.",
)
@part_options
def main(tokens: int, peer: str | None, peer_tokens: int, quick: bool, as_json: bool) -> None:
    use_cores(quick)
    if quick:
        result = measured("small", real_sentences(200), peer, 200, False, 0.1)
    else:
        result = measured("original", real_sentences(tokens), peer, peer_tokens, True, 6)
    print_part(result, as_json)


if __name__ == "__main__":
    main()
