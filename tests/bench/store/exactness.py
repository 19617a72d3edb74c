"""How exact what is made of a store is: layers taken out, their average, other codecs.

For each codec: by how much the new store differs from what an extraction makes in that codec (relative L2
over all sentences), and from the encoder's float32 (loss), beside the loss that the new store states.

    python -m tests.bench.store.exactness
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import click
import numpy as np

from featurestore import Store, extract
from featurestore.extraction.layers import take_layers
from featurestore.store.maintenance.recoding import Recoded, recode

CODECS = ("float32", "float16", "int8")


def relative_l2(found: Store, wanted: Store) -> float:
    """Return the length of the difference of all vectors, divided by that of those wanted."""
    squared = [0.0, 0.0]
    for sentence, vectors in wanted:
        expected = vectors.astype(np.float64)
        squared[0] += float(((found.get(sentence) - expected) ** 2).sum())
        squared[1] += float((expected**2).sum())
    return math.sqrt(squared[0] / squared[1])


def measured(corpus: str, encoder: str) -> list[str]:
    """Make every store and compare; return the lines of a table."""
    lines = ["| made | codec | differs from extract's | loss | stated loss |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def extracted(layers: str, codec: str) -> Store:
            path = folder / f"{layers}-{codec}"
            if not path.exists():
                extract([corpus], encoder, path, layers=layers, codec=codec, device="cpu", progress=False)
            return Store.open(path)

        def compare(title: str, layers: str, codec: str, made: Path, done: Recoded) -> None:
            store = Store.open(made)
            figures = (
                relative_l2(store, extracted(layers, codec)),
                relative_l2(store, extracted(layers, "float32")),
                done.error.relative_l2,
            )
            lines.append(f"| {title} | {codec} | " + " | ".join(f"{n:.1e}" for n in figures) + " |")

        for layers, title in (("1", "`layers --layers 1`"), ("average", "`layers --average`")):
            for codec in CODECS:
                made = folder / f"taken-{layers}-{codec}"
                done = take_layers(extracted("all", codec), made, layers, again=codec == "int8")
                compare(title, layers, codec, made, done)
        for codec in CODECS:
            made = folder / f"recoded-{codec}"
            done = recode(extracted("average", "float32"), made, codec)
            compare("`recode`, from float32", "average", codec, made, done)
        n_sentences = len(extracted("average", "float32"))
    return [*lines, f"\n{encoder}, {n_sentences} sentences of {corpus}"]


@click.command()
@click.option("--corpus", default="data/tagging/dev.conllu", show_default=True)
@click.option("--encoder", default="elmo:demo", show_default=True)
def main(corpus: str, encoder: str) -> None:
    """Print the table."""
    print("\n".join(measured(corpus, encoder)))


if __name__ == "__main__":
    main()
