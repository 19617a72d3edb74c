"""What a token costs by the length of its sentence, beside sentences of 20: the table of estimate.py.

    python -m tests.bench.encoding.length_costs FILE --lengths 125,250,500 --threads 2

FILE is plain text, whose words are taken in their order, the same for each length: a batch of the default
token budget. Sentences of 20 and of the length are measured in turn, and the best of each counts.
FEATURESTORE_COMPILED=0 shows what long sentences cost without the compiled recurrence.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from featurestore import Encoder, load_encoder
from tests.bench.machine import machine

SHORT = 20


@click.command(help=__doc__)
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--spec", default="elmo:demo", show_default=True)
@click.option("--precision", default="float32", show_default=True)
@click.option("--lengths", default="60,125,250,500,750,1000,1024,2000,6000", show_default=True)
@click.option("--tokens", default=8192, show_default=True, help="Words measured, at the least.")
@click.option("--turns", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(file: Path, spec: str, precision: str, lengths: str, tokens: int, turns: int, threads: int) -> None:
    torch.set_num_threads(threads)
    words = file.read_text(encoding="utf-8").split()
    encoder = load_encoder(spec, precision=precision)
    # Word types are computed, weights laid out and threads started before the clock.
    encoder.encode(_cut(words[:tokens], SHORT))
    encoder.encode([tuple(words[:1100])])
    click.echo(machine())
    click.echo(f"{spec}, {precision}, {threads} threads, {encoder.token_budget:,} tokens a batch")
    for length in map(int, lengths.split(",")):
        taken = words[: -(-tokens // length) * length]
        short, long = _cut(taken, SHORT), _cut(taken, length)
        seconds = [(_seconds(encoder, short), _seconds(encoder, long)) for _ in range(turns)]
        usual, cost = map(min, zip(*seconds, strict=True))
        click.echo(f"{length:6,} tokens: {cost / usual:5.2f}  ({len(taken) / cost:,.0f} tokens/s)")


def _cut(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(0, len(words), length)]


def _seconds(encoder: Encoder, sentences: Sequence[tuple[str, ...]]) -> float:
    """Return how long the sentences take in batches of the encoder's token budget, as in extraction."""
    at_once = max(1, encoder.token_budget // len(sentences[0]))
    started = time.perf_counter()
    for first in range(0, len(sentences), at_once):
        encoder.encode(sentences[first : first + at_once])
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
