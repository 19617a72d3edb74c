"""Encoding on a CUDA GPU, all in one go: speed by precision and batch, share of peak, end to end, errors.

    python -m tests.bench.encoding.gpu_encode
    python -m tests.bench.encoding.gpu_encode --file corpus.conllu --work /path/to/a/fast/disk --json

Sentences are made up (lengths as in English web text, words as frequent as real ones) unless a file is given.
Every speed is that of the second pass over the text: the first warms up libraries and kernels and fills the
table of word types, and its time is printed too. *Peak* is a large half-precision matrix product timed on the
spot; a token counts as the arithmetic of the LSTMs alone. *Plain* has PyTorch's operations in place of the
fused kernel. End to end goes through `featurestore.extract` to committed shards.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from featurestore import extract, load_encoder, open_corpus
from featurestore.encoders.elmo.encoder import ElmoEncoder
from featurestore.encoders.elmo.model.gates import plain_gates
from featurestore.extraction.batching import batches_by_length
from tests.bench.machine import machine

PRECISIONS = ("float16", "bfloat16", "float32")
BUDGETS = (16_384, 65_536, 131_072, 262_144)
SHARD_BYTES = 2 << 30
"""A shard of a million tokens: what is sorted by length together."""

Sentences = list[tuple[str, ...]]


def made_up(n_tokens: int) -> Sentences:
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.5, 0.75, n_tokens // 12).round(), 1, 120).astype(int)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), n_tokens)) + 1]
    words = [f"w{number}" for number in random.zipf(1.4, int(lengths.sum())).clip(max=1 << 20).tolist()]
    ends = np.cumsum(lengths).tolist()
    return [tuple(words[end - n : end]) for end, n in zip(ends, lengths.tolist(), strict=True)]


def peak_flops() -> float:
    """Return the operations a second of a half-precision product, the best of several."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            a @ a
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * 8192**3 / best


def one_pass(encoder: ElmoEncoder, batches: Sequence[Sentences], keep: bool = False) -> tuple[float, Any]:
    """Encode all batches, two in flight as extraction has them; return the seconds and, if kept, vectors."""
    in_flight: deque[Any] = deque()
    kept: list[np.ndarray] = []

    def collect() -> None:
        vectors = in_flight.popleft().result()
        if keep:
            kept.extend(vectors)

    torch.cuda.synchronize()
    started = time.perf_counter()
    for batch in batches:
        in_flight.append(encoder.submit(batch))
        if len(in_flight) >= 2:
            collect()
    while in_flight:
        collect()
    torch.cuda.synchronize()
    return time.perf_counter() - started, kept


def cut(sentences: Sentences, budget: int) -> list[Sentences]:
    return [[sentences[i] for i in batch] for batch in batches_by_length(list(map(len, sentences)), budget)]


def kernel_shares(encoder: ElmoEncoder, batches: Sequence[Sentences]) -> list[tuple[str, float]]:
    """Return the kernels that take most of the device's time, and their share."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        one_pass(encoder, batches)
    events = [(event.key, event.self_device_time_total) for event in profile.key_averages()]
    total = sum(seconds for _, seconds in events) or 1
    return [(name, seconds / total) for name, seconds in sorted(events, key=lambda e: -e[1])[:8]]


def speeds(spec: str, sentences: Sentences, budgets: Sequence[int], flops: float) -> list[dict[str, Any]]:
    n_tokens, rows = sum(map(len, sentences)), []
    for precision in PRECISIONS:
        encoder = load_encoder(spec, precision=precision, device="cuda")
        assert isinstance(encoder, ElmoEncoder)
        megaflops = lstm_megaflops(encoder)
        network = encoder._network
        kernels = {"fused": network.gates} if network.gates is not plain_gates else {}
        for name, network.gates in {**kernels, "plain": plain_gates}.items():
            for budget in budgets:
                batches = cut(sentences, budget)
                try:
                    first, _ = one_pass(encoder, batches)
                    seconds, _ = one_pass(encoder, batches)
                except Exception as error:  # noqa: BLE001 - a batch too large for this card is a result
                    rows.append(
                        {"precision": precision, "gates": name, "budget": budget, "error": str(error)}
                    )
                    continue
                rows.append(
                    {
                        "precision": precision, "gates": name, "budget": budget,
                        "tokens_per_second": n_tokens / seconds, "first_pass_seconds": first,
                        "share_of_peak": n_tokens / seconds * megaflops * 1e6 / flops,
                        "kernels": kernel_shares(encoder, batches[:2]) if budget == budgets[-1] else [],
                    }
                )  # fmt: skip
                torch.cuda.empty_cache()
    return rows


def lstm_megaflops(encoder: ElmoEncoder) -> float:
    """Return the arithmetic of the LSTMs for one token, in millions of operations."""
    options = encoder._options
    per_direction = (
        2 * options.projection_dim * 4 * options.lstm_dim + options.lstm_dim * options.projection_dim
    )
    return 2 * 2 * options.n_layers * per_direction / 1e6


def errors(spec: str, sentences: Sentences) -> list[dict[str, Any]]:
    """Compare the vectors of each precision, with and without the kernel, to float32 on the CPU."""
    found = []
    truth = np.concatenate(load_encoder(spec, precision="float32", device="cpu").encode(sentences))
    for precision in PRECISIONS:
        encoder = load_encoder(spec, precision=precision, device="cuda")
        chosen = encoder._network.gates
        for name, gates in (("chosen", chosen), ("plain", plain_gates)):
            encoder._network.gates = gates
            ours = np.concatenate(encoder.encode(sentences))
            alone = np.concatenate([encoder.encode([sentence])[0] for sentence in sentences[:20]])
            found.append(
                {
                    "precision": precision, "gates": name, "fused": gates is not plain_gates,
                    "relative_l2": float(np.linalg.norm(ours - truth) / np.linalg.norm(truth)),
                    "alone_and_together": float(
                        np.linalg.norm(ours[: len(alone)] - alone) / np.linalg.norm(alone)
                    ),
                }
            )  # fmt: skip
    return found


def end_to_end(spec: str, sentences: Sentences, work: Path | None, budget: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        encoder = load_encoder(spec, precision="float16", device="cuda")
        assert isinstance(encoder, ElmoEncoder)
        one_pass(encoder, cut(sentences, budget))  # warm, as the encode-only figure is
        path = Path(folder) / "speed"
        block = np.random.default_rng(0).bytes(256 << 20)
        started = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(8):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        disk = 8 * len(block) / (time.perf_counter() - started)
        path.unlink()
        started = time.perf_counter()
        report = extract(
            sentences, encoder, Path(folder) / "store",
            progress=False, token_budget=budget, shard_bytes=SHARD_BYTES,
        )  # fmt: skip
        return {
            "tokens_per_second": report.tokens_per_second,
            "with_plan": report.n_encoded_tokens / (time.perf_counter() - started),
            "disk_bytes_per_second": disk,
            "n_bytes": report.n_bytes,
        }


@click.command()
@click.option("--spec", default="elmo:untrained-original", show_default=True)
@click.option("--file", type=click.Path(path_type=Path, exists=True), help="Text; made up by default.")
@click.option("--tokens", default=2_000_000, show_default=True, help="Tokens made up.")
@click.option("--work", type=click.Path(path_type=Path, exists=True), help="Where end to end writes.")
@click.option("--quick", is_flag=True, help="A tenth of the tokens, one size of batch.")
@click.option("--json", "as_json", is_flag=True)
def main(spec: str, file: Path | None, tokens: int, work: Path | None, quick: bool, as_json: bool) -> None:
    if not torch.cuda.is_available():
        raise click.ClickException(
            f"no CUDA GPU here (torch {torch.__version__}): this script measures nothing else. "
            "tests/bench/encoding/elmo_speed.py measures the CPU"
        )
    budgets = BUDGETS[2:3] if quick else BUDGETS
    sentences = (
        [example.tokens for example in open_corpus(file)]
        if file
        else made_up(tokens // 10 if quick else tokens)
    )
    # Distinct, or extraction would encode each once.
    sentences = list(dict.fromkeys(sentences))
    n_tokens, flops = sum(map(len, sentences)), peak_flops()
    found: dict[str, Any] = {
        "machine": machine(), "gpu": torch.cuda.get_device_name(), "spec": spec, "n_tokens": n_tokens,
        "n_sentences": len(sentences), "peak_teraflops": flops / 1e12,
    }  # fmt: skip
    for name, step in (
        ("errors", lambda: errors(spec, sentences[:: max(1, len(sentences) // 200)])),
        ("speeds", lambda: speeds(spec, sentences, budgets, flops)),
        ("end_to_end", lambda: end_to_end(spec, sentences, work, budgets[-1] if quick else 131_072)),
    ):
        print(f"{name} ...", file=sys.stderr)
        found[name] = step()
    print(json.dumps(found, indent=2) if as_json else as_text(found))


def as_text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['gpu']}, {found['peak_teraflops']:.0f} TFLOP/s in half-precision products",
        found["machine"],
        f"{found['spec']}, {found['n_tokens']:,} tokens in {found['n_sentences']:,} sentences", "",
        "| precision | gates | tokens a batch | tokens/s | share of peak | first pass |",
        "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in found["speeds"]:
        start = f"| {row['precision']} | {row['gates']} | {row['budget']:,} |"
        if "error" in row:
            lines.append(f"{start} {row['error'][:60]} | | |")
            continue
        lines.append(
            f"{start} {row['tokens_per_second']:,.0f} | {row['share_of_peak']:.0%} "
            f"| {row['first_pass_seconds']:.1f} s |"
        )
    lines += ["", "Kernels, largest batch:"]
    for row in found["speeds"]:
        lines += [
            f"  {row['precision']} {row['gates']}: {share:5.1%} {name[:90]}"
            for name, share in row.get("kernels", [])
        ]
    whole = found["end_to_end"]
    lines += [
        "", f"end to end, float16: {whole['tokens_per_second']:,.0f} tokens/s to committed shards "
        f"({whole['with_plan']:,.0f} with the plan; {whole['n_bytes'] / 1e9:.1f} GB; the disk takes "
        f"{whole['disk_bytes_per_second'] / 1e9:.1f} GB/s)", "",
        "| precision | gates | relative L2 to float32 on the CPU | alone and in a batch |",
        "|---|---|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {row['precision']} | {'fused' if row['fused'] else 'plain'} | {row['relative_l2']:.1e} "
        f"| {row['alone_and_together']:.1e} |"
        for row in found["errors"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
