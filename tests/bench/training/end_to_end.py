"""The main job on real corpora, through the ordinary commands: extract, train, evaluate; prints one table.

    python -m tests.bench.training.end_to_end tagging --corpus ../shared/corpora/ud-ewt \\
        --encoder elmo:untrained-original
    python -m tests.bench.training.end_to_end sentiment --corpus ../shared/corpora/sentence-polarity

An untrained encoder measures speed; its scores say nothing about ELMo, and the table says so.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from tests.bench.machine import machine

TASKS: dict[str, dict[str, Any]] = {
    "tagging": {
        "train": "*-train.conllu", "dev": "*-dev.conllu", "test": "*-test.conllu",
        "command": "tagger", "label": "upos", "models": ("linear", "bilstm"),
    },
    "sentiment": {
        "train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv",
        "command": "classifier", "label": "label", "models": ("meanpool", "bilstm"),
    },
}  # fmt: skip


def featurestore(*arguments: str) -> dict[str, Any]:
    """Run a command with --json and return what it printed."""
    command = [sys.executable, "-m", "featurestore", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@click.command()
@click.argument("task", type=click.Choice(list(TASKS)))
@click.option(
    "--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the splits."
)
@click.option("--encoder", default="elmo:untrained-small?seed=0", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--store", type=click.Path(path_type=Path), default=Path("features/bench"), show_default=True)
@click.option("--seeds", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    task: str, corpus: Path, encoder: str, precision: str, store: Path, seeds: int, as_json: bool
) -> None:
    plan = TASKS[task]
    splits = {name: str(next(corpus.glob(plan[name]))) for name in ("train", "dev", "test")}
    started = time.perf_counter()
    extracted = featurestore(
        "extract", *splits.values(), "--store", str(store), "--encoder", encoder, "--precision", precision
    )
    extract_seconds = time.perf_counter() - started
    rows = []
    for model in plan["models"]:
        scores, epochs = [], []
        for seed in range(seeds):
            out = store.parent / f"{store.name}-{model}-{seed}.h5"
            trained = featurestore(
                "train", plan["command"], "--store", str(store),
                "--train", splits["train"], "--dev", splits["dev"], "--label", plan["label"],
                "--model", model, "--seed", str(seed), "--out", str(out),
            )  # fmt: skip
            tested = featurestore("evaluate", str(out), splits["test"], "--store", str(store))
            scores.append(tested["accuracy"])
            epochs.append(statistics.mean(epoch["seconds"] for epoch in trained["history"]))
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        rows.append((model, statistics.mean(scores), spread, statistics.mean(epochs)))
    report = extracted["report"]
    if as_json:
        print(json.dumps({"extract": extracted, "seconds": extract_seconds, "models": rows}, indent=2))
        return
    print(f"{machine()}; {encoder}, precision {precision}")
    if report:
        print(
            f"extract: {report['n_encoded']:,} sentences, {report['n_encoded_tokens']:,} tokens, "
            f"{report['seconds']:.0f} s ({report['tokens_per_second']:,.0f} tokens/s), "
            f"{report['n_bytes'] / 1e6:,.0f} MB"
        )
    print(f"{'model':10} {'test accuracy':>14} {'spread':>8} {'s/epoch':>8}   ({seeds} seeds)")
    for model, score, spread, seconds in rows:
        print(f"{model:10} {100 * score:14.2f} {100 * spread:8.2f} {seconds:8.1f}")
    if extracted["untrained"]:
        print("the encoder is UNTRAINED (random weights): these scores say nothing about ELMo")


if __name__ == "__main__":
    main()
