"""A store of vectors whose LSTM state was carried from sentence to sentence: for comparison only.

    python -m tests.bench.quality.carried_store FILE... --store DIR --encoder elmo:demo

This is how ELMo was trained and how AllenNLP runs it, here with one row: each file's sentences in their
order, both markers read, zeros before the first sentence of a file. A vector then depends on everything
before it in the file, which is why `featurestore extract` refuses it. A sentence that occurs again keeps the
vectors of its first place, though the state runs on through it. The recipe says so, and names the files'
contents: it can be trained on and evaluated like any other store, and is never taken for one of `extract`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from featurestore import Recipe, Store, open_corpus
from featurestore.encoders.loading import encoder_recipe
from featurestore.keys import sentence_key


def carried_recipe(files: Sequence[str | Path], spec: str, *, layers: str, precision: str) -> Recipe:
    """Return the recipe of such vectors; loads no model."""
    through = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    base = encoder_recipe(spec, layers=layers, precision=precision, initial_state="zero")
    return Recipe({**base, "initial_state": "carried", "carried_through": through})


def carried_vectors(
    files: Sequence[str | Path], spec: str, *, layers: str, precision: str
) -> Iterator[tuple[tuple[str, ...], NDArray[np.float32]]]:
    """Yield every sentence of every file with its (n_tokens, [n_layers,] dim) vectors."""
    import torch

    from featurestore.encoders.elmo.encoder import load_elmo
    from featurestore.encoders.elmo.model.network import CarriedState

    # The network of the ordinary encoder: the very weights and numbers, only the state differs.
    encoder = load_elmo(
        spec.removeprefix("elmo:"), layers=layers, precision=precision, device="cpu", initial_state="zero"
    )
    network, chosen = encoder._network, encoder._layers
    for file in files:
        carried = CarriedState(network)
        for example in open_corpus(file):
            with torch.inference_mode():
                outputs = torch.stack(network.layers_carrying([example.tokens], carried)[0], 1).float()
                vectors = outputs.mean(1) if chosen == "average" else outputs[:, chosen].squeeze(1)
            yield example.tokens, vectors.numpy()


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--store", "path", type=click.Path(path_type=Path), required=True)
@click.option("--encoder", default="elmo:demo", show_default=True)
@click.option("--layers", default="average", show_default=True)
@click.option("--codec", default="float32", show_default=True)
@click.option("--precision", default="float32", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    files: tuple[str, ...],
    path: Path,
    encoder: str,
    layers: str,
    codec: str,
    precision: str,
    as_json: bool,
) -> None:
    started = time.perf_counter()
    recipe = carried_recipe(files, encoder, layers=layers, precision=precision)
    if Store.exists(path):
        store = Store.open(path)
        store.recipe.require_equal(recipe, where=f"the store {path}", remedy="Choose another --store.")
    else:
        store = make_store(path, recipe, encoder, layers=layers, codec=codec)
    keys = [sentence_key(example.tokens) for file in files for example in open_corpus(file)]
    if not store.locate(keys).found.all():
        with store.write() as session:
            # From the start even if some are there: the state comes from all sentences before.
            for tokens, vectors in carried_vectors(files, encoder, layers=layers, precision=precision):
                session.add(tokens, vectors)
        store = Store.open(path)
    facts = {
        "store": str(path),
        "fingerprint": store.fingerprint,
        "n_sentences": len(store),
        "n_tokens": store.n_tokens,
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


def make_store(path: Path, recipe: Recipe, encoder: str, *, layers: str, codec: str) -> Store:
    """Return a new store for such vectors."""
    from featurestore.encoders.loading import outline_encoder

    outline = outline_encoder(encoder, layers=layers, initial_state="zero")
    return Store.create(
        path, recipe=recipe, dim=outline.dim, n_layers=outline.n_layers, encoder=encoder, codec=codec
    )


if __name__ == "__main__":
    main()
