"""Made what lies in ``several/``, once, by the featurestore of 30 November 2026 (a20a837): never made again.

``python -m tests.compat.make_several`` makes it beside ``models/``: a second store of the corpus there, word
vectors, and a tagger that was trained on the ELMo's store and this one. ``expected.json`` says what it gives.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from featurestore import Recipe, Store, open_corpus
from tests.compat.make_models import parameters_sha256, run, shard_hashes

HERE = Path(__file__).parent
WORDS = Recipe({"kind": "word vectors of a test", "version": 1, "depends_on": {"context": 0}})


def word_vector(word: str) -> np.ndarray:
    """Return three numbers that the letters of a word decide."""
    letters = [ord(letter) % 32 for letter in word]
    return np.array([len(word), sum(letters) % 7, letters[0]], np.float32) / 8


def predict_by_both(folder: Path, elmo: Path, corpus: Path) -> list[str]:
    model, stores = folder / "both.h5", ("--store", folder / "words", "--store", elmo)
    return run("predict", model, corpus, *stores, "--json").splitlines()


def main(folder: Path) -> None:
    folder.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        elmo = Path(shutil.copytree(HERE / "models" / "store", Path(scratch) / "store"))
        tags = HERE / "models" / "tags.conll"
        words = Store.create(folder / "words", recipe=WORDS, dim=3, codec="float16")
        with words.write() as session:
            for example in open_corpus(tags):
                session.add(example.tokens, np.stack(list(map(word_vector, example.tokens))))
        options = ("--hidden", 4, "--epochs", 60, "--patience", 60, "--token-budget", 32, "--lr", 0.03)
        run("train", "tagger", "--train", tags, "--dev", tags, "--label", "2", "--model", "bilstm",
            "--store", elmo, "--store", folder / "words", "--out", folder / "both.h5", *options,
            "--precision", "float32")  # fmt: skip
        expected = {
            "shards": shard_hashes(folder / "words"),
            "parameters": parameters_sha256(folder / "both.h5"),
            "predicted": [json.loads(line) for line in predict_by_both(folder, elmo, tags)],
        }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    for path in (folder / "words" / "index", folder / "words" / "tmp"):
        shutil.rmtree(path)  # derived, and empty


if __name__ == "__main__":
    main(HERE / "several")
