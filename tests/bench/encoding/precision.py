"""What a compute type costs: vectors against those in float32, and the tagging score on them.

    python -m tests.bench.encoding.precision --corpus ../shared/corpora/ud-ewt
    python -m tests.bench.encoding.precision --corpus ../shared/corpora/ud-ewt --quick

Vectors are compared on the test split, token by token and layer by layer, before any codec: relative L2
(norm of the difference over norm of the float32 vector) and cosine, their mean and worst token. The score is
that of a linear tagger (`train tagger --model linear`, upos) on stores that `extract` fills in that compute
type with the codec float16 for all of them. In the first rows what the codec costs.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from featurestore import load_encoder, open_corpus
from featurestore.extraction.batching import batches_by_length
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.training.end_to_end import featurestore

COMPUTE_TYPES = ("float32", "bfloat16", "float16")
QUICK_TOKENS = 2_000


def encode(encoder: str, precision: str, device: str, sentences: list[tuple[str, ...]]) -> np.ndarray:
    """Return the vectors of all layers, (n_tokens, n_layers, dim)."""
    loaded = load_encoder(encoder, layers="all", precision=precision, device=device)
    vectors: list[np.ndarray] = [np.empty(0)] * len(sentences)
    for batch in batches_by_length(list(map(len, sentences)), loaded.token_budget):
        for i, array in zip(batch, loaded.encode([sentences[i] for i in batch]), strict=True):
            vectors[i] = array
    return np.concatenate(vectors)


def compare(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare two (n, dim) arrays row by row."""
    a, b = found.astype(np.float64), truth.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    relative = np.linalg.norm(a - b, axis=1) / lengths[1]
    cosine = (a * b).sum(1) / (lengths[0] * lengths[1])
    return {
        "mean_l2": float(relative.mean()),
        "worst_l2": float(relative.max()),
        "mean_cosine": float(cosine.mean()),
        "worst_cosine": float(cosine.min()),
    }


def tagging_scores(
    encoder: str, precision: str, device: str, splits: dict[str, str], seeds: int, epochs: int | None
) -> list[float]:
    """Extract, train and evaluate with the ordinary commands; return the accuracy on test of each seed."""
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        featurestore(
            "extract", *splits.values(), "--store", store, "--encoder", encoder,
            "--precision", precision, "--device", device,
        )  # fmt: skip
        for seed in range(seeds):
            out = f"{folder}/{seed}.h5"
            featurestore(
                "train", "tagger", "--store", store, "--train", splits["train"], "--dev", splits["dev"],
                "--label", "upos", "--model", "linear", "--seed", str(seed), "--out", out,
                *(["--epochs", str(epochs)] if epochs else []),
            )  # fmt: skip
            scores.append(featurestore("evaluate", out, splits["test"], "--store", store)["accuracy"])
    return scores


def heads(corpus: Path, folder: Path, n_tokens: int) -> dict[str, str]:
    """Write the first sentences of each split, at least so many tokens."""
    found = {}
    for name in ("train", "dev", "test"):
        path = next(corpus.glob(f"*-{name}.conllu"))
        taken, n = [], 0
        for block in path.read_text().split("\n\n"):
            taken.append(block)
            n += sum(line[:1].isdigit() for line in block.splitlines())
            if n >= n_tokens:
                break
        (folder / path.name).write_text("\n\n".join(taken) + "\n\n")
        found[name] = str(folder / path.name)
    return found


def table_of(rows: list[dict[str, Any]], encoder: str, n_tokens: int, where: str) -> Table:
    """Return the table; cells are text, for the figures span six orders of magnitude."""
    columns = ["relative L2", "worst token", "1 - cosine", "worst token's", "linear tagger, UPOS"]
    table = Table("What a compute type costs", columns)
    for row in rows:
        scores = [100 * accuracy for accuracy in row["accuracy"]]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        name = f"{row['precision']}, stored as float16" if row["precision"] == "float32" else row["precision"]
        for number, layer in enumerate(row["layers"]):
            cells = (layer["mean_l2"], layer["worst_l2"], 1 - layer["mean_cosine"], 1 - layer["worst_cosine"])
            score = f"{statistics.mean(scores):.2f}{spread}" if not number else None
            table.add(f"{name}, layer {number}", "ours", *(f"{max(cell, 0):.1e}" for cell in cells), score)
    table.note = (
        f"{encoder}, {n_tokens:,} tokens of the test split; vectors against those computed in float32, "
        "before any codec but in the first rows. Accuracy in percent: the average of layers in float16, mean "
        f"of {len(rows[0]['accuracy'])} seeds. {where}."
    )
    return table


@click.command()
@click.option("--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="UD splits.")
@click.option("--encoder", default="elmo:demo", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--seeds", default=2, show_default=True, help=f"With --quick one, and {QUICK_TOKENS:,} tokens.")
@part_options
def main(corpus: Path, encoder: str, device: str, seeds: int, quick: bool, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if quick:
            splits = heads(corpus, Path(folder), QUICK_TOKENS)
        else:
            splits = {name: str(next(corpus.glob(f"*-{name}.conllu"))) for name in ("train", "dev", "test")}
        sentences = [example.tokens for example in open_corpus(splits["test"])]
        truth = encode(encoder, "float32", device, sentences)
        with np.errstate(over="raise"):
            stored = truth.astype(np.float16).astype(np.float32)
        for precision in COMPUTE_TYPES:
            found = stored if precision == "float32" else encode(encoder, precision, device, sentences)
            layers = [compare(found[:, layer], truth[:, layer]) for layer in range(truth.shape[1])]
            scores = tagging_scores(
                encoder, precision, device, splits, 1 if quick else seeds, 2 if quick else None
            )
            rows.append({"precision": precision, "layers": layers, "accuracy": scores})
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "No GPU"
    table = table_of(rows, encoder, len(truth), where)
    print_part(PartResult(tables=[table], settings={"encoder": encoder, "rows": rows}), as_json)


if __name__ == "__main__":
    main()
