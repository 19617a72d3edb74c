"""What a compute type costs: vectors against those in float32, and the tagging score on them.

    python tests/bench/precision.py --corpus ../shared/corpora/ud-ewt
    python tests/bench/precision.py --corpus ../shared/corpora/ud-ewt --quick

Vectors are compared on the test split, token by token and layer by layer, before any codec: relative L2
(norm of the difference over norm of the float32 vector) and cosine, their mean and worst token. The score is
that of a linear tagger (`train tagger --model linear`, upos) on stores that `extract` fills in that compute
type with the codec float16 for all of them. Prints a Markdown table; in the first row what the codec costs.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from end_to_end import featurestore
from machine import machine

from featurestore import load_encoder, open_corpus
from featurestore.extraction.batching import batches_by_length

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


@click.command()
@click.option("--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="UD splits.")
@click.option("--encoder", default="elmo:demo", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--seeds", default=2, show_default=True)
@click.option("--quick", is_flag=True, help=f"{QUICK_TOKENS:,} tokens of each split, one seed, two epochs.")
@click.option("--json", "as_json", is_flag=True)
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
    where = f"{machine()}; {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}"
    if as_json:
        print(
            json.dumps({"machine": where, "encoder": encoder, "n_tokens": len(truth), "rows": rows}, indent=2)
        )
        return
    print(f"{encoder}, {len(truth):,} tokens of {Path(splits['test']).name}; {where}\n")
    print("| compute type | layer | relative L2, mean | worst | 1 - cosine, mean | worst | accuracy |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        name = "float32, stored as float16" if row["precision"] == "float32" else row["precision"]
        accuracy = f"{100 * statistics.mean(row['accuracy']):.2f}"
        for number, layer in enumerate(row["layers"]):
            print(
                f"| {name if not number else ''} | {number} "
                f"| {layer['mean_l2']:.1e} | {layer['worst_l2']:.1e} "
                f"| {1 - layer['mean_cosine']:.1e} | {1 - layer['worst_cosine']:.1e} "
                f"| {accuracy if not number else ''} |"
            )


if __name__ == "__main__":
    main()
