"""Formats side by side: bytes a token, and seconds to write a store into each and to load it back.

One store of made-up 1024-d vectors of a text's sentences; for each format, our export, then all of it read
back by what its users read it with: NumPy, safetensors, h5py, pyarrow, datasets, and our import into a new
store. The row of ours is `copy`-like: the vectors stored again, and read sentence by sentence. Files lie in
the page cache, as after writing; no format compresses. Best of the turns.

    python -m tests.bench.store.formats --tokens 200000
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import h5py
import numpy as np

from featurestore import Recipe, Store
from featurestore.exchange.exporting import export
from featurestore.exchange.importing import FORMATS as IMPORTED
from featurestore.exchange.importing import import_vectors
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.serving.serve_layouts import size_of
from tests.bench.texts import enough_sentences, source

DIM, CODEC = 1024, "float16"
KEEPS = {
    "npy": "all; no checksums",
    "safetensors": "all; no checksums",
    "parquet": "all; no lone surrogates",
    "arrow": "all; no lone surrogates",
    "datasets": "all; no lone surrogates",
    "allennlp-hdf5": "float32 only; tokens joined by spaces, no labels",
}


def filled(path: Path, sentences: list[tuple[str, ...]]) -> Store:
    """Return a store of the sentences, their vectors drawn once and taken in slices."""
    drawn = np.random.default_rng(0).standard_normal((20_000, DIM), np.float32)
    store = Store.create(path, recipe=Recipe({"kind": "bench", "version": 1}), dim=DIM, codec=CODEC)
    start = 0
    with store.write() as session:
        for tokens in sentences:
            start = (start + 7) % (len(drawn) - len(tokens))
            session.add(tokens, drawn[start : start + len(tokens)])
    return store.refreshed()


def load_npy(path: Path) -> int:
    vectors = np.load(path / "vectors.npy")
    lines = (path / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    return len(vectors) if sum(len(json.loads(line)["tokens"]) for line in lines) == len(vectors) else 0


def load_safetensors(path: Path) -> int:
    from safetensors.numpy import load_file

    found = load_file(path)
    text = found["tokens"].tobytes()
    return len([text[a:b].decode() for a, b in itertools.pairwise(found["token_offsets"].tolist())])


def load_parquet(path: Path) -> int:
    from pyarrow import parquet

    return len(parquet.read_table(path)["vectors"].combine_chunks().flatten())


def load_arrow(path: Path) -> int:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:  # read, not mapped, as the others are
        return len(pa.ipc.open_file(file).read_all()["vectors"].combine_chunks().flatten())


def load_data_set(path: Path) -> int:
    import datasets

    table = datasets.load_from_disk(str(path), keep_in_memory=True).data
    return len(table["vectors"].combine_chunks().flatten())


def load_allennlp(path: Path) -> int:
    with h5py.File(path) as file:
        numbers = json.loads(file["sentence_to_index"][0])
        return sum(len(file[number][...]) for number in numbers.values())


LOADERS: dict[str, Callable[[Path], int]] = {
    "npy": load_npy,
    "safetensors": load_safetensors,
    "parquet": load_parquet,
    "arrow": load_arrow,
    "datasets": load_data_set,
    "allennlp-hdf5": load_allennlp,
}


def timed(action: Callable[[], object], best: float | None) -> float:
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    return seconds if best is None else min(best, seconds)


def measured(n_tokens: int, turns: int, folder: Path | None) -> PartResult:
    table = Table(
        "Formats",
        ["bytes/token", "write, s/M tokens", "load back, s/M", "import, s/M"],
        lower_is_better=True,
    )
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401 - loaded before the clock starts, as all the others
    import safetensors.numpy  # noqa: F401

    with tempfile.TemporaryDirectory(dir=folder) as name:
        path, again = Path(name) / "out", Path(name) / "again"
        sentences = list(dict.fromkeys(enough_sentences(n_tokens)))
        store = filled(Path(name) / "store", sentences)
        million = 1e6 / store.n_tokens
        best: dict[tuple[str, str], float] = {}
        sizes = {"ours": size_of(store.path / "shards")}
        for _ in range(turns):
            best["ours", "write"] = timed(lambda: filled(again, sentences), best.get(("ours", "write")))
            best["ours", "load"] = timed(lambda: list(Store.open(again)), best.get(("ours", "load")))
            shutil.rmtree(again)
            for kind, load in LOADERS.items():

                def written(kind: str = kind) -> None:
                    export(store, path, kind)

                def loaded(load: Callable[[Path], int] = load) -> None:
                    if load(path) != store.n_tokens:
                        raise AssertionError("not all tokens were read")

                best[kind, "write"] = timed(written, best.get((kind, "write")))
                best[kind, "load"] = timed(loaded, best.get((kind, "load")))
                sizes[kind] = size_of(path) if path.is_dir() else path.stat().st_size
                if kind in IMPORTED:

                    def taken(kind: str = kind) -> None:
                        import_vectors(path, kind, again, note="bench")

                    best[kind, "import"] = timed(taken, best.get((kind, "import")))
                    shutil.rmtree(again)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        for kind in ("ours", *LOADERS):
            label = f"ours, {CODEC}" if kind == "ours" else f"{kind} ({KEEPS[kind]})"
            table.add(
                label,
                "ours" if kind == "ours" else "alternative",
                sizes[kind] / store.n_tokens,
                *(
                    best[kind, step] * million if (kind, step) in best else None
                    for step in ("write", "load", "import")
                ),
            )
        table.note = (
            f"{store.n_tokens:,} tokens of {source()}, {len(store):,} sentences, {DIM}-d made-up vectors, a "
            f"store of {CODEC}; best of {turns} turns. Ours: checksums, sentence by sentence; importing "
            "compares keys, hashes the file and commits with fsync; others read without checks."
        )
    return PartResult(tables=[table], settings={"n_tokens": n_tokens, "turns": turns, "text": source()})


@click.command()
@click.option("--tokens", default=200_000, show_default=True)
@click.option("--turns", default=2, show_default=True)
@click.option("--folder", type=click.Path(exists=True, path_type=Path), help="On the disk in question.")
@part_options
def main(tokens: int, turns: int, folder: Path | None, quick: bool, as_json: bool) -> None:
    print_part(measured(*((20_000, 1) if quick else (tokens, turns)), folder), as_json)


if __name__ == "__main__":
    main()
