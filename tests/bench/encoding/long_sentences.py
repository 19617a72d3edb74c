"""What one long sentence costs beside the same words in sentences of 20, in one run.

    python -m tests.bench.encoding.long_sentences FILE --spec elmo:demo --tokens 6000

FILE is plain text, whose words are taken in their order. FEATURESTORE_COMPILED=0 shows what it costs without
the compiled recurrence.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch

from featurestore import load_encoder
from tests.bench.machine import machine


@click.command(help=__doc__)
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--spec", default="elmo:demo", show_default=True)
@click.option("--precision", default="float32", show_default=True)
@click.option("--tokens", default=6000, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(file: Path, spec: str, precision: str, tokens: int, threads: int) -> None:
    torch.set_num_threads(threads)
    words = file.read_text(encoding="utf-8").split()[:tokens]
    encoder = load_encoder(spec, precision=precision)
    short = [tuple(words[i : i + 20]) for i in range(0, len(words), 20)]
    # Word types are computed, weights laid out and threads started before the clock.
    encoder.encode(short)
    encoder.encode([tuple(words[:1100])])
    seconds = []
    for sentences in (short, [tuple(words)]):
        started = time.perf_counter()
        encoder.encode(sentences)
        seconds.append(time.perf_counter() - started)
    click.echo(machine())
    click.echo(
        f"{spec}, {precision}, {len(words):,} tokens: {seconds[0]:.2f} s in sentences of 20, "
        f"{seconds[1]:.2f} s in one: {seconds[1] / seconds[0]:.1f} x"
    )


if __name__ == "__main__":
    main()
