"""Everything that needs a CUDA GPU, in one command of under ten minutes: tests, encoding, resident vectors.

    python -m tests.bench.gpu_checks > gpu.json

The tests that are skipped without a GPU; ``gpu_encode`` (``original`` in float16, bfloat16 and float32, end
to end to shards); and training batches from vectors kept on the GPU (``resident="cuda"``), compared with
those of the CPU. Prints one JSON object; ends with 1 if something failed. What ran out of time says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

from featurestore import FeatureDataset, Store, extract, feature_loader
from tests.bench.machine import details, machine
from tests.bench.texts import sentences as real_sentences
from tests.kit.programs import environment, program

SECONDS = 540.0
TESTS = (
    "tests/encoders/elmo/model/test_gates.py", "tests/encoders/elmo/test_encoder.py",
    "tests/encoders/flair/test_encoder.py", "tests/dataset/test_prefetch.py",
)  # fmt: skip
N_SENTENCES = 20_000


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a command; return how it ended, what it printed, and how long it took."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment(), timeout=max(1.0, seconds)
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"not done after {seconds:.0f} s"}
    found: dict[str, Any] = {
        "ok": done.returncode == 0, "seconds": round(time.monotonic() - started, 1), "printed": done.stdout,
    }  # fmt: skip
    if done.returncode:
        found["error"] = done.stderr[-2000:]
    return found


def resident(device: str = "cuda", n_sentences: int = N_SENTENCES) -> dict[str, Any]:
    """Serve an epoch of batches from a device's memory and compare them with those from the store."""
    examples = real_sentences(n_sentences)
    with tempfile.TemporaryDirectory() as folder:
        extract(examples, "elmo:demo", Path(folder) / "store", device=device, progress=False)
        store = Store.open(Path(folder) / "store")
        there = FeatureDataset(store, examples, resident=device)
        here = FeatureDataset(store, examples)
        ours, theirs = feature_loader(there, seed=1), feature_loader(here, seed=1)
        n_batches = differing = 0
        for one, other in zip(ours, theirs, strict=True):
            n_batches += 1
            differing += not torch.equal(one.features.cpu(), other.features)
        speeds = {}
        for name, loader in (("resident", ours), ("from the store", theirs)):
            started, n_tokens = time.perf_counter(), 0
            for batch in loader:
                n_tokens += int(batch.lengths.sum())
                batch.features.to(device).sum().item()  # waits until it is there
            speeds[name] = round(n_tokens / (time.perf_counter() - started))
    return {"ok": not differing, "n_batches": n_batches, "differing": differing, "tokens_per_second": speeds}


@click.command()
@click.option("--only-resident", is_flag=True, hidden=True)
def main(only_resident: bool) -> None:
    if not torch.cuda.is_available():
        raise click.ClickException("this machine has no CUDA GPU that torch can use")
    if only_resident:
        click.echo(json.dumps(resident()))
        return
    until = time.monotonic() + SECONDS
    found: dict[str, Any] = {"machine": machine(), "gpu": details()["gpu"]}
    found["tests"] = run(program("pytest", "-rs", "-q", *TESTS), min(180.0, until - time.monotonic()))
    for name, module, arguments in (
        ("resident", "tests.bench.gpu_checks", ["--only-resident"]),
        ("encoding", "tests.bench.encoding.gpu_encode", ["--tokens", "500000", "--json"]),
    ):
        step = run(program(module, *arguments), until - time.monotonic())
        if step["ok"]:
            step |= {"printed": "", **json.loads(step["printed"])}
        found[name] = step
    click.echo(json.dumps(found, indent=2))
    if not all(found[name]["ok"] for name in ("tests", "resident", "encoding")):
        sys.exit(1)


if __name__ == "__main__":
    main()
