"""Our encoder beside AllenNLP 0.9.0's ElmoEmbedder: same weights, same file, same machine, one run.

AllenNLP needs a Python 3.7 of its own::

    python3.7 -m venv peer
    peer/bin/pip install --prefer-binary allennlp==0.9.0 torch==1.7.1 'jsonnet<0.18'
    peer/bin/pip install overrides==3.1.0 urllib3==1.26.20
    python -m tests.bench.encoding.beside_allennlp FILE --peer peer/bin/python

Both read the same options and weights files, written here with random weights in the shape asked for. The
peer runs twice: as it comes, and with MKL_DEBUG_CPU_TYPE=5, which takes its old MKL off the slow path it
chooses on AMD processors. The first sentence's vectors are compared: before any state leaks, the peer's are a
function of the sentence as ours are.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from featurestore import load_encoder, open_corpus
from featurestore.encoders.elmo.files.catalog import UntrainedSource
from featurestore.encoders.elmo.files.weights import seeded_weights, write_weights
from featurestore.extraction.batching import batches_by_length
from tests.bench.machine import machine

PEER = """
import json, sys, time
import h5py, torch
from allennlp.commands.elmo import ElmoEmbedder
options, weights, batches, out = sys.argv[1:]
torch.set_num_threads(2)
batches = json.load(open(batches))
embedder = ElmoEmbedder(options, weights)
first = embedder.embed_batch(batches[0][:1])[0]
with h5py.File(out, "w") as file:
    file["first"] = first
started, started_cpu = time.perf_counter(), time.process_time()
for batch in batches:
    embedder.embed_batch(batch)
seconds = time.perf_counter() - started
n_tokens = sum(len(sentence) for batch in batches for sentence in batch)
print(n_tokens / seconds, (time.process_time() - started_cpu) / seconds / 2)
"""

SETTINGS = {"as it comes": {}, "MKL_DEBUG_CPU_TYPE=5": {"MKL_DEBUG_CPU_TYPE": "5"}}
"""Its old MKL takes a slow path on AMD processors unless told otherwise."""


def write_model(folder: Path, shape: str) -> str:
    """Write options and random weights in AllenNLP's format; return the specification that reads them."""
    options = UntrainedSource(shape, 0).options()
    write_weights(folder / "weights.hdf5", seeded_weights(options, 0))
    (folder / "options.json").write_text(json.dumps(options.to_dict()))
    return f"elmo:{folder / 'options.json'},{folder / 'weights.hdf5'}"


Sentences = Sequence[Sequence[str]]


def in_batches(sentences: Sentences, batch_size: int) -> list[Sentences]:
    return [sentences[start : start + batch_size] for start in range(0, len(sentences), batch_size)]


def peer_speed(
    peer: str, folder: Path, batches: Sequence[Sentences], setting: dict[str, str]
) -> tuple[float, float]:
    """Run AllenNLP with the model of a folder; first.hdf5 gets the first sentence's vectors.

    Returns
    -------
    tokens_per_second, share : float
        The share of the two cores that it had: far less than 1 where other programs ran too.
    """
    (folder / "batches.json").write_text(json.dumps(batches))
    files = [str(folder / n) for n in ("options.json", "weights.hdf5", "batches.json", "first.hdf5")]
    done = subprocess.run(
        [peer, "-W", "ignore", "-c", PEER, *files],
        env={**os.environ, **setting},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    speed, share = map(float, done.stdout.split()[-2:])
    return speed, share


def first_vectors(folder: Path) -> NDArray[np.float32]:
    """Return what AllenNLP gave for the first sentence, (n_tokens, n_layers, dim)."""
    with h5py.File(folder / "first.hdf5") as stored:
        return stored["first"][()].transpose(1, 0, 2)


@click.command()
@click.argument("file", type=click.Path(exists=True))
@click.option("--peer", required=True, help="Python 3.7 with AllenNLP 0.9.0.")
@click.option("--shape", default="original", show_default=True)
@click.option("--batch-size", default=64, show_default=True, help="Sentences in the peer's batches.")
def main(file: str, peer: str, shape: str, batch_size: int) -> None:
    torch.set_num_threads(2)
    sentences = [example.tokens for example in open_corpus(file)]
    n_tokens = sum(map(len, sentences))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = write_model(folder, shape)
        print(
            f"{machine()}, 2 threads; {n_tokens:,} tokens of {Path(file).name}; ELMo {shape}, random weights"
        )

        rows = []
        for precision in ("float32", "bfloat16"):
            encoder = load_encoder(spec, layers="all", precision=precision, device="cpu")
            if precision == "float32":
                ours = encoder.encode(sentences[:1])[0]
                encoder.forget_types()
            started = time.perf_counter()
            for batch in batches_by_length([len(s) for s in sentences], encoder.token_budget):
                encoder.encode([sentences[i] for i in batch])
            rows.append((f"featurestore, {precision}", n_tokens / (time.perf_counter() - started)))

        for label, setting in SETTINGS.items():
            speed, _ = peer_speed(peer, folder, in_batches(sentences, batch_size), setting)
            rows.append((f"AllenNLP 0.9.0, batches of {batch_size}, {label}", speed))
        theirs = first_vectors(folder)
    fair = rows[-1][1]
    for label, speed in rows:
        print(f"{label:55} {speed:8,.0f} tokens/s  {speed / fair:6.2f} x")
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    largest = np.abs(ours - theirs).max()
    print(f"first sentence, all layers: relative L2 {error:.1e}, largest difference {largest:.1e}")


if __name__ == "__main__":
    main()
