"""Made the stores of this folder, once, by the featurestore whose format version their folder names.

Later versions open them for ever, so what lies here is never made again: a format that changes gets a folder
of its own beside ``v1``. ``python -m tests.compat.make_stores FOLDER`` makes a folder of them; of version 2
those in which the versions differ: stores with lists, and one of version 1 that was upgraded.

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
from featurestore.store.upgrading import upgrade

DIM = 16
RECIPE = Recipe({"kind": "compat", "version": 1, "layers": "average", "precision": "float32"})
SENTENCES: list[Sentence] = [
    ("The", "first", "sentence", "."),
    ("one",),
    ("\ud800", "nul\0", "/", "😀", "x" * 300, "two words"),
    ("The", "second", "shard", "begins", "here"),
    tuple(f"w{number}" for number in range(40)),
]
NUMBERED: list[Sentence] = [tuple(f"{number}.{place}" for place in range(72)) for number in range(9)]
"""One more than a manifest lists itself, and long enough for heads without padding."""
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


def last_manifest(path: Path) -> Path:
    return max((path / "manifests").iterdir())


def first_manifest_as_last(path: Path) -> None:
    """Put an old manifest under the number of the last one."""
    shutil.copy(path / "manifests" / "00000002.json", last_manifest(path))


def higher_version(path: Path) -> None:
    manifest = last_manifest(path)
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 99'))


def last_row(path: Path) -> None:
    """Flip a bit of the last row of the only list."""
    (only,) = (path / "lists").iterdir()
    flip(only, -150)


# Name -> harm, what is lost: a shard, the last manifest, the canaries or nothing, and what the error says.
DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "flipped-value": (lambda path: flip(second_shard(path), -5), "value", "checksum"),
    "flipped-structure": (lambda path: flip(second_shard(path), 1000), "shard", "structure"),
    "cut-shard": (lambda path: os.truncate(second_shard(path), 4100), "shard", "was cut"),
    "missing-shard": (lambda path: second_shard(path).unlink(), "shard", "is missing"),
    "flipped-manifest": (lambda path: flip(last_manifest(path), 400), "manifest", "is damaged"),
    "wrong-manifest": (first_manifest_as_last, "manifest", "it says it is number 2"),
    "higher-version": (higher_version, "version", "upgrade"),
    "flipped-canary": (lambda path: flip(next((path / "canaries").iterdir()), -3), "canaries", "checksum"),
    "flipped-list": (last_row, "list", "has hash"),
}  # fmt: skip
IN_VERSION_2 = ("flipped-manifest", "wrong-manifest", "higher-version", "flipped-list")
"""Of these, the damage that another form of the manifest makes another damage."""


def main() -> None:
    (folder,) = map(Path, sys.argv[1:])
    folder.mkdir()
    each = [[tokens] for tokens in NUMBERED]
    stores = {
        "listed": make(folder / "listed", each, codec="float32"),
        "listed-int8-layers": make(folder / "listed-int8-layers", each, n_layers=4, codec="int8"),
        "listed-conditions": make(folder / "listed-conditions", [*each[:8], CONDITIONED], codec="float32"),
        "upgraded": upgrade(
            Store.open(shutil.copytree(Path(__file__).parent / "v1" / "mixed-codecs", folder / "upgraded"))
        ),
    }
    for name, store in stores.items():
        (folder / f"{name}.json").write_text(json.dumps(describe(store.refreshed()), indent=1) + "\n")
    for name in IN_VERSION_2:
        harm, lost, says = DAMAGE[name]
        store = make(folder / name, each if lost == "list" else each[:2], codec="float32", canaries=False)
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
