"""Tokens served per second from two stores of 512 dimensions beside one of 1024, of the same sentences.

One thread, warm, the loader's default settings, by turns in one run, the best of the turns; all checksums
have been compared before. The two stores give one tensor of 1024, or two by name.

    python -m tests.bench.serving.several_stores --tokens 100000
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from featurestore import FeatureDataset, feature_loader
from tests.bench.figures import Table
from tests.bench.random_store import write_store
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.serving.serve_loader import seconds_of
from tests.bench.serving.uncompiled import THERE_IS_A_CHOICE, gather_note, uncompiled
from tests.bench.texts import enough_sentences, source

DIM = 1024
CODECS = ("float16", "int8")
FORMS = ("two stores of 512, one tensor", "two stores of 512, by name")


def measured(tokens: int, repeats: int) -> PartResult:
    torch.set_num_threads(1)
    logging.getLogger("featurestore").setLevel(logging.ERROR)
    sentences = enough_sentences(tokens)
    n_tokens = sum(map(len, sentences))
    vectors = np.random.default_rng(0).standard_normal((1 << 14, DIM), np.float32)
    table = Table("Several stores a token", ["thousand tokens/s", "times one store's"])
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for codec in CODECS:
            paths = {}
            for name, part in (("one", slice(None)), ("left", slice(512)), ("right", slice(512, None))):
                paths[name] = Path(folder) / f"{codec}-{name}"
                write_store(paths[name], sentences, vectors[:, part], codec, version=name)
            halves = [paths["left"], paths["right"]]
            datasets = {
                "one store of 1024": FeatureDataset(paths["one"], sentences),
                FORMS[0]: FeatureDataset(halves, sentences),
                FORMS[1]: FeatureDataset(halves, sentences, as_dict=True),
            }
            loaders = {name: feature_loader(dataset, window=None) for name, dataset in datasets.items()}
            if THERE_IS_A_CHOICE:
                with uncompiled():
                    by_torch = (FeatureDataset(paths["one"], sentences), FeatureDataset(halves, sentences))
                for name, dataset in zip(("one store of 1024", FORMS[0]), by_torch, strict=True):
                    loaders[f"{name}, by torch"] = feature_loader(dataset, window=None)
            best = dict.fromkeys(loaders, float("inf"))
            for _ in range(repeats + 1):  # the first pass compares checksums
                for name, loader in loaders.items():
                    best[name] = min(best[name], seconds_of(loader, n_tokens))
            for name, seconds in best.items():
                one = best[
                    "one store of 1024, by torch" if name.endswith("by torch") else "one store of 1024"
                ]
                times[f"{codec}, {name}"] = seconds / one
                table.add(f"{codec}, {name}", "ours", n_tokens / seconds / 1000, f"{seconds / one:.2f}")
    table.note = (
        f"One thread; {n_tokens:,} tokens of {DIM} values in {len(sentences):,} sentences of {source()}, "
        f"default loader, float32 batches. {gather_note()}, but in the rows by torch."
    )
    return PartResult(
        tables=[table],
        promises={
            f"{codec}, two stores": f"{times[f'{codec}, {FORMS[0]}']:.2f} of one's time" for codec in CODECS
        },
        settings={"n_tokens": n_tokens, "dim": DIM, "repeats": repeats, "threads": 1},
    )


@click.command()
@click.option("--tokens", default=100_000, show_default=True)
@click.option("--repeats", default=7, show_default=True)
@part_options
def main(tokens: int, repeats: int, quick: bool, as_json: bool) -> None:
    print_part(measured(5_000, 2) if quick else measured(tokens, repeats), as_json)


if __name__ == "__main__":
    main()
