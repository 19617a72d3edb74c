"""Tokens encoded per second with ELMo `original` against the batch (token budget) and the sentence length.

Extraction to committed shards, all cores, vectors of word types known before. Lengths are those of
sentences cut from running text, all of one length.

    python -m tests.bench.encoding.encode_curves
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from featurestore import Encoder, extract, load_encoder
from tests.bench.encoding.encode import PRECISIONS, PROMISES
from tests.bench.figures import Table
from tests.bench.report import Curve, PartResult, part_options, print_part, use_cores
from tests.bench.texts import sentences as real_sentences
from tests.bench.texts import source

BUDGETS = (32, 128, 512, 2048, 8192)
LENGTHS = (1, 2, 5, 10, 20, 40, 80)


def speed(encoder: Encoder, sentences: Sequence[tuple[str, ...]], token_budget: int) -> float:
    """Return the tokens per second of an extraction."""
    with tempfile.TemporaryDirectory() as name:
        report = extract(
            sentences, encoder, Path(name) / "store",
            device="cpu", token_budget=token_budget, progress=False,
        )  # fmt: skip
    return report.tokens_per_second


def up_to(sentences: Sequence[tuple[str, ...]], n_tokens: int) -> list[tuple[str, ...]]:
    """Return the first sentences that hold so many tokens."""
    ends = itertools.accumulate(map(len, sentences))
    return [sentence for sentence, end in zip(sentences, ends, strict=True) if end - len(sentence) < n_tokens]


def of_length(sentences: Sequence[tuple[str, ...]], length: int, n_tokens: int) -> list[tuple[str, ...]]:
    """Return distinct sentences of one length, cut from running text."""
    running = [token for sentence in sentences for token in sentence]
    cut = [tuple(running[start : start + length]) for start in range(0, len(running) - length + 1, length)]
    return up_to(list(dict.fromkeys(cut)), n_tokens)


def measured(
    spec: str, n_tokens: int, budgets: Sequence[int], lengths: Sequence[int], precisions: Sequence[str]
) -> PartResult:
    """Measure both curves in each precision."""
    text = real_sentences(max(n_tokens, *budgets))
    curves: dict[str, list[Curve]] = {"budget": [], "length": []}
    for precision in precisions:
        encoder = load_encoder(spec, precision=precision, device="cpu")
        encoder.encode(text)  # every word type once
        by_budget = [speed(encoder, up_to(text, max(n_tokens, budget)), budget) for budget in budgets]
        by_length = [speed(encoder, of_length(text, n, n_tokens), encoder.token_budget) for n in lengths]
        curves["budget"].append(Curve(precision, list(budgets), by_budget))
        curves["length"].append(Curve(precision, list(lengths), by_length))
    tables = []
    for title, points, lines in (
        ("Encoding against the token budget", budgets, curves["budget"]),
        ("Encoding against the sentence length", lengths, curves["length"]),
    ):
        table = Table(title, [f"{point:,}" for point in points])
        for line in lines:
            table.add(f"featurestore, {line.name}, tokens/s", "ours", *line.y)
        tables.append(table)
    return PartResult(
        tables=tables, curves=curves, promises=PROMISES,
        settings={"encoder": spec, "n_tokens": n_tokens, "text": source()},
    )  # fmt: skip


@click.command()
@click.option(
    "--tokens", default=2_500, show_default=True, help="Of each point, or the budget if that is more."
)
@click.option("--spec", default="elmo:untrained-original", show_default=True)
@part_options
def main(tokens: int, spec: str, quick: bool, as_json: bool) -> None:
    use_cores(quick)
    if quick:
        result = measured("elmo:untrained-small", 100, BUDGETS[:2], LENGTHS[2:4], PRECISIONS[:1])
    else:
        result = measured(spec, tokens, BUDGETS, LENGTHS, PRECISIONS)
    print_part(result, as_json)


if __name__ == "__main__":
    main()
