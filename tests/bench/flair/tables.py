"""The tables of the Flair benchmark, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tests.bench.flair.plan import Block, Extent, Results
from tests.bench.flair.tasks import BATCH_SIZE, SIDES, TASKS, Setup

MB = 1e6
NOTHING = "–"
TRAINING = (
    "vectors of", "in training", "trained on", "first epoch, s", "later epochs, s", "of it vectors, s",
    "peak memory, MB", "saved model, MB", "test accuracy, %",
)  # fmt: skip
STORE = (
    "vectors of", "sentences", "extraction, once, s", "store, MB", "lookup on one core, tokens/s",
    "(first pass)", "one tensor a batch, tokens/s", "epoch, live ÷ cached", "accuracy, cached − live",
    "predictions that differ once live, per 1,000",
)  # fmt: skip


def tables(setup: Setup, blocks: Sequence[Block], sides: Sequence[str], results: Results) -> str:
    """Return two tables for each task: what training costs, and what the store adds."""
    parts = []
    for task in dict.fromkeys(block.task for block in blocks):
        mine = [block for block in blocks if block.task == task]
        parts += [f"### {TASKS[task].title}, {TASKS[task].training}", ""]
        parts += _header(TRAINING)
        parts += [line for block in mine for line in training_lines(setup, block, sides, results)]
        parts += ["", *_header(STORE)]
        parts += [store_line(setup, block, results) for block in mine]
        parts.append("")
    return "\n".join([*parts, *notes(setup, blocks, results)])


def training_lines(setup: Setup, block: Block, sides: Sequence[str], results: Results) -> list[str]:
    """Return a line for each side of a row."""
    lines = []
    for side in sides:
        found = list(_trained(block, side, results).values())
        cells = training_cells(found, block.extent, is_random=setup.is_random(block.row))
        lines.append(f"| {setup.title(block.row)} | {SIDES[side]} | {' | '.join(cells)} |")
    return lines


def training_cells(found: Sequence[dict[str, Any]], extent: Extent, *, is_random: bool) -> list[str]:
    """Return the cells of a side, from its results by seed."""
    if not found:
        return [NOTHING] * (len(TRAINING) - 2)
    one = found[0]
    trained_on = f"{one['train_sentences']:,} sentences × {extent.epochs}"
    whole = one["all_train_tokens"] / one["train_tokens"]
    first = statistics.median(each["seconds"][0] for each in found)
    later = [seconds for each in found for seconds in each["seconds"][1:]]
    vectors = [seconds for each in found for seconds in each["vector_seconds"][1:]]
    if not later:
        vectors = [each["vector_seconds"][0] for each in found]
    return [
        trained_on,
        _epoch(first, whole),
        _epoch(statistics.median(later), whole) if later else NOTHING,
        f"{statistics.median(vectors):.2f}",
        f"{max(each['peak'] for each in found) / MB:,.0f}",
        f"{one['model_bytes'] / MB:.2f}",
        _spread([100 * each["accuracy"] for each in found]) + (" †" if is_random else ""),
    ]


def store_line(setup: Setup, block: Block, results: Results) -> str:
    """Return what the store of a row costs and gives."""
    cells = [NOTHING] * (len(STORE) - 1)
    extracted = [found for each in block.extractions if (found := results.get(each)) is not None]
    if len(extracted) == len(block.extractions):
        cells[0] = f"{extracted[0]['n_sentences']:,}"
        cells[1] = f"{sum(each['seconds'] for each in extracted):.0f}"
    if looked_up := results.get(block.lookup):
        cells[2] = f"{looked_up['store_bytes'] / MB:,.0f}"
        cells[3] = f"{looked_up['tokens_per_second']:,.0f}"
        cells[4] = f"{looked_up['first']:,.0f}"
        cells[5] = f"{looked_up['vectors_alone']:,.0f}"
    live, cached = (_trained(block, side, results) for side in ("live", "cached"))
    if live and cached:
        cells[6] = f"{_usual_epoch(live) / _usual_epoch(cached):.1f} x"
    shared = sorted(live.keys() & cached.keys())
    if shared:
        differences = [100 * (cached[seed]["accuracy"] - live[seed]["accuracy"]) for seed in shared]
        cells[7] = _spread(differences, signed=True)
    swapped = [found for each in block.swaps if (found := results.get(each)) is not None]
    if swapped:
        n, differing = (sum(each[name] for each in swapped) for name in ("n", "differing"))
        cells[8] = f"{1000 * differing / n:.2f} ({differing:,} of {n:,} {TASKS[block.task].unit}s)"
    return f"| {setup.title(block.row)} | {' | '.join(cells)} |"


def notes(setup: Setup, blocks: Sequence[Block], results: Results) -> list[str]:
    """Return what the tables mean."""
    found = [result for block in blocks for each in block.trainings if (result := results.get(each))]
    lines = [
        f"An epoch is a pass over train in batches of {BATCH_SIZE}, the evaluation on dev, and saving the "
        "model where it is the best so far; medians over epochs and seeds. The model kept is the best on "
        "dev. Accuracy and differences: mean ± sample standard deviation over the seeds. Live and cached "
        "begin with the same weights and see the same batches. ElmoEmbeddings saves no weights of ELMo."
    ]
    if any(result["train_tokens"] < result["all_train_tokens"] for result in found):
        lines.append(
            "A row that was trained on some of the sentences was also scored on such a share of dev and "
            'test. What stands after "all: ≈" is extrapolated by tokens from the epoch measured.'
        )
    if found:
        before = statistics.median(result["memory_before"] for result in found)
        mapped = max(result["mapped"] for result in found)
        lines.append(
            f"Of the peak memory {before / MB:,.0f} MB (median) are Python, torch, Flair and the corpus, "
            f"before any embedding; of that of the cached rows up to {mapped / MB:,.0f} MB are pages of the "
            "store, which the system takes back when it needs them."
        )
    if any(setup.is_random(block.row) for block in blocks):
        lines.append(
            "† Random weights: the accuracy says nothing about the embedding; it is there to show that live "
            "and cached agree. A live transformer is trained through the dropout that Flair leaves on, a "
            "cached one is not."
        )
    return lines


def _header(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _trained(block: Block, side: str, results: Results) -> dict[int, dict[str, Any]]:
    """Return what is there of a side, by seed."""
    found = {each.seed: results.get(each) for each in block.trainings if each.side == side}
    return {seed: result for seed, result in found.items() if result is not None}


def _usual_epoch(found: dict[int, dict[str, Any]]) -> float:
    """Return the median of the epochs after the first; of the first ones if there are no others."""
    later = [seconds for each in found.values() for seconds in each["seconds"][1:]]
    return statistics.median(later or [each["seconds"][0] for each in found.values()])


def _epoch(seconds: float, whole: float) -> str:
    """Return the time of an epoch, and of one over the whole corpus if it was over a part."""
    shown = f"{seconds:.1f}"
    return shown if whole == 1 else f"{shown} (all: ≈ {seconds * whole:.0f})"


def _spread(values: Sequence[float], *, signed: bool = False) -> str:
    mean = statistics.mean(values)
    text = f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return f"{text} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{text} (1 seed)"
