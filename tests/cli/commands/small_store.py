"""Small stores that commands inspect: odd words, contexts, two layers; and a shell to run commands in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from featurestore.keys import ConditionedSentence
from featurestore.recipe import Recipe
from featurestore.store.store import Store

RECIPE = Recipe({"kind": "test", "version": 1, "layers": [0, 1]})


SENTENCES = [
    ("the", "cat", "sat"),
    ("The", "CAT", "sat"),
    ("New York", "is", "big"),
    ("naïve", "😀"),
    ("odd\ud800", "tab\t", "esc\x1b[31m"),
    tuple(f"w{i}" for i in range(40)),
]


def vectors_of(tokens: tuple[str, ...]) -> np.ndarray:
    random = np.random.default_rng(len(tokens))
    return random.normal(size=(len(tokens), 8)).astype(np.float32)


def make_store(path: Path, sentences=SENTENCES, **options) -> Store:
    options = {"recipe": RECIPE, "dim": 8, "encoder": "test:encoder", **options}
    store = Store.create(path, **options)
    with store.write() as session:
        for tokens in sentences:
            session.add(tokens, vectors_of(tokens))
    return store.refreshed()


# -- sentences whose vectors depend on more than the tokens


CONTEXT = Recipe({"kind": "test", "version": 1, "depends_on": {"context": 8}})


LEFT, RIGHT, ALONE = (
    ConditionedSentence(tokens, condition)
    for tokens, condition in (
        (("the", "cat", "sat"), b'{"left":["Look","!"]}'),
        (("the", "cat", "sat"), b"\x1b[31m\xff" + b"x" * 500),
        (("only", "here"), b'{"right":["now"]}'),
    )
)


PLAIN = ("nothing", "special")


def in_a_shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which ``featurestore`` is the command."""
    define = f'featurestore() {{ "{sys.executable}" -m featurestore "$@"; }}; set -o pipefail; '
    return subprocess.run(["bash", "-c", define + command], capture_output=True, text=True, check=False)
