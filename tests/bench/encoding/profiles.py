"""Where the time goes: torch's profiler over an extraction with ELMo `original`, and over an epoch served.

Seconds are those of the main thread, which waits for the others in a product. What no torch operation took
is Python, NumPy and waiting: for sentences, for the writer. The compiled gather counts among the gathers.

    python -m tests.bench.encoding.profiles --tokens 10000
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from featurestore import FeatureDataset, extract, feature_loader, load_encoder
from featurestore.dataset.gathering import gather
from featurestore.dataset.gathering.compiled import gather_together
from tests.bench.encoding.encode import PRECISIONS
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part, use_cores
from tests.bench.texts import sentences as real_sentences
from tests.bench.texts import source

KINDS = {
    "matrix products, in float32 with their nonlinearities": (
        "addmm", "baddbmm", "bmm", "mm", "mkldnn_convolution", "mkldnn::_linear_pointwise",
    ),
    "gates: sigmoid, tanh, products, sums, clips": (
        "sigmoid_", "tanh_", "tanh", "mul_", "mul", "addcmul_", "add", "add_", "clamp_", "clamp_min",
    ),
    "copies, casts, gathers": (
        "copy_", "cat", "index_select", "index", "_index_put_impl_", "fill_", "zero_", "compiled_gather",
    ),
    "maximum over windows of characters": ("amax",),
}  # fmt: skip
OTHER, OUTSIDE = "other operations of torch", "outside torch"


def recorded_gather(*args: Any, **options: Any) -> bool:
    with record_function("aten::compiled_gather"):
        return gather_together(*args, **options)


def shares(job: Callable[[], object]) -> dict[str, float]:
    """Return the share of a job's time by kind; they add up to 1."""
    kind_of = {
        name if "::" in name else f"aten::{name}": kind for kind, names in KINDS.items() for name in names
    }
    started = time.perf_counter()
    counted = patch.object(gather, "gather_together", recorded_gather)
    with counted, profile(activities=[ProfilerActivity.CPU]) as profiled:
        job()
        seconds = time.perf_counter() - started
    found: Counter[str] = Counter()
    for event in profiled.key_averages():
        if event.key.startswith(("aten::", "mkldnn::")):
            found[kind_of.get(event.key, OTHER)] += event.self_cpu_time_total / 1e6
    found[OUTSIDE] = max(0.0, seconds - sum(found.values()))
    total = sum(found.values())
    return {kind: found[kind] / total for kind in (*KINDS, OTHER, OUTSIDE)}


def measured(spec: str, n_tokens: int) -> PartResult:
    text = real_sentences(n_tokens)
    n_tokens = sum(map(len, text))
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for precision in PRECISIONS:
            encoder = load_encoder(spec, precision=precision, device="cpu")
            encoder.encode(text[:8])
            if hasattr(encoder, "forget_types"):
                encoder.forget_types()
            store = Path(name) / precision

            def job(encoder=encoder, store=store) -> None:  # type: ignore[no-untyped-def]
                extract(text, encoder, store, device="cpu", progress=False)

            columns[f"extraction, {precision}"] = shares(job)
        torch.set_num_threads(1)
        loader = feature_loader(FeatureDataset(Path(name) / PRECISIONS[0], text))
        sum(len(batch.lengths) for batch in loader)  # checksums are behind it
        columns["serving"] = shares(lambda: [sum(len(batch.lengths) for batch in loader) for _ in range(5)])
    table = Table("Where the time goes", [f"{name}, %" for name in columns])
    for kind in (*KINDS, OTHER, OUTSIDE):
        table.add(kind, "ours", *(round(100 * column[kind]) for column in columns.values()))
    table.note = (
        f"Of the main thread's time, the profiler's own included; {n_tokens:,} tokens of {source()}. "
        f"Extraction with {spec}, all cores; serving: one thread, warm, float32 batches."
    )
    return PartResult(tables=[table], settings={"n_tokens": n_tokens, "encoder": spec})


@click.command()
@click.option("--tokens", default=10_000, show_default=True)
@part_options
def main(tokens: int, quick: bool, as_json: bool) -> None:
    use_cores(quick)
    if quick:
        result = measured("elmo:untrained-small?seed=0", 150)
    else:
        result = measured("elmo:untrained-original?seed=0", tokens)
    print_part(result, as_json)


if __name__ == "__main__":
    main()
