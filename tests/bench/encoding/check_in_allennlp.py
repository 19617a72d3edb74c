"""Checks that AllenNLP 0.9.0 itself loads a model of `featurestore pretrain` and gives the vectors we give.

    python -m tests.bench.encoding.check_in_allennlp MODEL_FOLDER FILE --peer peer/bin/python

Both run the first sentences of FILE in the same batches, with the state carried from batch to batch as
AllenNLP does; every layer of every token is compared. How to make the peer: see beside_allennlp.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import click
import h5py
import numpy as np
import torch

from featurestore import open_corpus
from featurestore.encoders.elmo.files.weights import read_weights
from featurestore.encoders.elmo.model.network import BiLM, CarriedState
from featurestore.encoders.elmo.model.numerics import full_float32_products
from featurestore.encoders.elmo.model.options import ElmoOptions

PEER = """
import json, sys
import h5py
from allennlp.commands.elmo import ElmoEmbedder
options, weights, sentences, out, batch_size = sys.argv[1:]
sentences = json.load(open(sentences))
embedder = ElmoEmbedder(options, weights)
with h5py.File(out, "w") as file:
    for start in range(0, len(sentences), int(batch_size)):
        for number, layers in enumerate(embedder.embed_batch(sentences[start : start + int(batch_size)])):
            file[str(start + number)] = layers
"""
TOLERANCE = 2e-5
"""Largest relative L2 difference of a sentence and layer that different float32 libraries explain."""


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(exists=True))
@click.option("--peer", required=True, help="Python 3.7 with AllenNLP 0.9.0.")
@click.option("--sentences", "n_sentences", default=96, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
def main(folder: Path, file: str, peer: str, n_sentences: int, batch_size: int) -> None:
    sentences = [list(example.tokens) for example in islice(open_corpus(file), n_sentences)]
    options_file, weights_file = folder / "options.json", folder / "weights.hdf5"
    options = ElmoOptions.read(options_file)
    network = BiLM(options, read_weights(weights_file, options))
    carried = CarriedState(network)
    with tempfile.TemporaryDirectory() as name:
        listed, out = Path(name) / "sentences.json", Path(name) / "out.hdf5"
        listed.write_text(json.dumps(sentences))
        paths = map(str, (options_file, weights_file, listed, out, batch_size))
        subprocess.run([peer, "-c", PEER, *paths], check=True)
        worst = np.zeros(options.n_layers + 1)
        with h5py.File(out, "r") as theirs, torch.inference_mode(), full_float32_products():
            for start in range(0, len(sentences), batch_size):
                batch = sentences[start : start + batch_size]
                for number, layers in enumerate(network.layers_carrying(batch, carried), start):
                    for layer, ours in enumerate(layers):
                        expected = theirs[str(number)][layer]
                        difference = np.linalg.norm(ours.numpy() - expected) / np.linalg.norm(expected)
                        worst[layer] = max(worst[layer], difference)
    n_tokens = sum(map(len, sentences))
    print(
        f"{len(sentences)} sentences, {n_tokens:,} tokens of {Path(file).name}, AllenNLP 0.9.0 against ours,"
    )
    print(
        "largest relative L2 difference of a sentence: "
        + ", ".join(f"layer {layer}: {value:.1e}" for layer, value in enumerate(worst))
    )
    if worst.max() > TOLERANCE:
        sys.exit(f"that is more than {TOLERANCE:g}: these are not the same vectors")


if __name__ == "__main__":
    main()
