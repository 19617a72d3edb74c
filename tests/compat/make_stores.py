"""Made the stores of this folder, once, by the featurestore whose format version their folder names.

Later versions open them for ever, so what lies here is never made again: a format that changes gets a folder
of its own beside ``v1``. ``python tests/compat/make_stores.py FOLDER`` makes a folder of them.

Each store comes with ``NAME.json``: what is in it, sentence by sentence, and of a damaged one what is wrong.
Everything is a function of the tokens alone, so no random numbers of some library are needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.keys import ConditionedSentence, Sentence, condition_of, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.canaries import make_canaries, read_canaries
from featurestore.store.store import Store

DIM = 16
LAST = Path("manifests", "00000003.json")
RECIPE = Recipe({"kind": "compat", "version": 1, "layers": "average", "precision": "float32"})
SENTENCES: list[Sentence] = [
    ("The", "first", "sentence", "."),
    ("one",),
    ("\ud800", "nul\0", "/", "😀", "x" * 300, "two words"),
    ("The", "second", "shard", "begins", "here"),
    tuple(f"w{number}" for number in range(40)),
]
CONDITIONED: list[Sentence] = [
    ConditionedSentence(("the", "same"), b'{"left":["Before"]}'),
    ConditionedSentence(("the", "same"), b"\xff\0 no text"),
    ("the", "same"),
]


def vectors_of(tokens: Sentence, n_layers: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return vectors that tokens, their places and the condition decide; any codec but int8 keeps them."""
    rows = []
    for place, token in enumerate(tokens):
        message = f"{place} ".encode() + token.encode("utf-8", "surrogatepass") + condition_of(tokens)
        rows.append(hashlib.shake_128(message).digest(n_layers * DIM))
    values = np.frombuffer(b"".join(rows), np.uint8).astype(np.float32) / 8 - 16
    return values.reshape((len(tokens), DIM) if n_layers == 1 else (len(tokens), n_layers, DIM))


class CompatEncoder:
    """Gives :func:`vectors_of`, by the recipe of the stores here."""

    spec, recipe, device, dim = "compat:", RECIPE, "cpu", DIM

    def __init__(self, n_layers: int = 1, drift: float = 1.0) -> None:
        self.n_layers, self.drift = n_layers, drift

    def encode(self, sentences: Sequence[Sentence]) -> list[Any]:
        return [vectors_of(tokens, self.n_layers) * np.float32(self.drift) for tokens in sentences]


def sha256(vectors: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors, "<f4").tobytes()).hexdigest()


def make(
    path: Path, wanted: list[list[Sentence]], *, n_layers: int = 1, canaries: bool = True, **options: Any
) -> Store:
    """Make a store, a shard and a commit for each list of sentences."""
    encoder = CompatEncoder(n_layers)
    store = Store.create(
        path,
        recipe=RECIPE,
        dim=DIM,
        n_layers=n_layers,
        canaries=make_canaries(encoder) if canaries else None,
        **options,
    )
    for sentences in wanted:
        with store.refreshed().write() as session:
            for tokens, vectors in zip(sentences, encoder.encode(sentences), strict=True):
                session.add(tokens, vectors)
    return store.refreshed()


def describe(store: Store) -> dict[str, Any]:
    """Return what a store holds."""
    canaries = read_canaries(store)
    return {
        "recipe": store.recipe.to_dict(),
        "n_layers": store.n_layers,
        "codec": store.manifest.codec,
        "snapshot": store.snapshot,
        "shards": [entry.n_sentences for entry in store.manifest.shards],
        "sentences": [
            {
                "tokens": tokens,
                "condition": condition_of(tokens).hex(),
                "key": sentence_key(tokens).hex(),
                "sha256": sha256(store.get(tokens)),
            }
            for _, _, tokens in store.sentences()
        ],
        "canaries": None
        if canaries is None
        else {
            "tokens": canaries.sentences,
            "sha256": [sha256(vectors) for vectors in canaries.vectors],
            "tolerance": canaries.tolerance,
        },
    }


# -- damage


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def second_shard(path: Path) -> Path:
    return path / "shards" / Store.open(path).manifest.shards[1].name


def first_manifest_as_last(path: Path) -> None:
    """Put an old manifest under the number of the last one."""
    shutil.copy(path / "manifests" / "00000002.json", path / LAST)


def higher_version(path: Path) -> None:
    manifest = path / LAST
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 99'))


# Name -> harm, what is lost: a shard, the last manifest, the canaries or nothing, and what the error says.
DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "flipped-value": (lambda path: flip(second_shard(path), -5), "value", "checksum"),
    "flipped-structure": (lambda path: flip(second_shard(path), 1000), "shard", "structure"),
    "cut-shard": (lambda path: os.truncate(second_shard(path), 4100), "shard", "was cut"),
    "missing-shard": (lambda path: second_shard(path).unlink(), "shard", "is missing"),
    "flipped-manifest": (lambda path: flip(path / LAST, 400), "manifest", "is damaged"),
    "wrong-manifest": (first_manifest_as_last, "manifest", "it says it is number 2"),
    "higher-version": (higher_version, "version", "upgrade"),
    "flipped-canary": (lambda path: flip(next((path / "canaries").iterdir()), -3), "canaries", "checksum"),
}  # fmt: skip


def main() -> None:
    (folder,) = map(Path, sys.argv[1:])
    folder.mkdir()
    two = [SENTENCES[:3], SENTENCES[3:]]
    stores = {
        "float32": make(folder / "float32", [*two, CONDITIONED], codec="float32"),
        "float16-layers": make(folder / "float16-layers", two, n_layers=3, codec="float16"),
        "int8": make(folder / "int8", two, codec="int8"),
        "mixed-codecs": make(folder / "mixed-codecs", two[:1], codec="float16", canaries=False),
        "nothing": make(folder / "nothing", [], codec="float16", canaries=False),
    }
    with stores["mixed-codecs"].write(codec="int8") as session:
        for tokens in two[1]:
            session.add(tokens, vectors_of(tokens, 1))
    for name, store in stores.items():
        (folder / f"{name}.json").write_text(json.dumps(describe(store.refreshed()), indent=1) + "\n")
    for name, (harm, lost, says) in DAMAGE.items():
        store = make(folder / name, two, codec="float32", canaries=lost == "canaries")
        described = {**describe(store), "lost": lost, "says": says}
        (folder / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n")
        del store
        harm(folder / name)
    for path in [*folder.glob("*/index"), *folder.glob("*/tmp")]:
        # Derived, and empty: a store does without.
        shutil.rmtree(path)
    for path in folder.glob("*/lock"):
        path.unlink()


if __name__ == "__main__":
    main()
