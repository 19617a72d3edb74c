"""Made what lies in ``models/``, once, by the featurestore of 30 November 2026 (ffad4bc): never made again.

``python -m tests.compat.make_models FOLDER`` makes a folder of it, beside a copy of
``tests/golden/elmo-tiny``: a small corpus, a store of it by a real ELMo, a tagger of each kind, a classifier
trained on it, an ELMo trained on it, and a tagger of Flair's on stored vectors. ``expected.json`` says what
each of them gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore import Store, load_encoder
from featurestore.cli.main import main as featurestore
from featurestore.models.checkpoint import TrainedModel

ROWS = [
    ("Anna lives in Lisbon .", "B-PER O O B-LOC O", "calm"),
    ("Our neighbour met Anna Berg", "O O O B-PER I-PER", "glad"),
    ("Lisbon is far !", "B-LOC O O O", "sad"),
    ("She likes the sea .", "O O O O O", "glad"),
    ("New York sleeps", "B-LOC I-LOC O", "calm"),
    ("Nobody met her in New York .", "O O O O B-LOC I-LOC O", "sad"),
]
NEW = [tuple(text.split()) for text, _, _ in ROWS]
TAGGERS = ("linear", "bilstm", "bilstm-crf")
OPTIONS = {
    "lstm": {
        "use_skip_connections": True, "projection_dim": 8, "cell_clip": 3, "proj_clip": 3, "dim": 12,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu", "filters": [[1, 4], [2, 6], [3, 6]], "n_highway": 1, "embedding": {"dim": 4},
        "n_characters": 262, "max_characters_per_token": 50, "min_padding_length": 3,
    },
}  # fmt: skip


def run(*arguments: object) -> str:
    """Run a command; return what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        featurestore([str(argument) for argument in arguments])
    assert not stop.value.code, arguments
    return out.getvalue()


def parameters_sha256(path: Path) -> str:
    """Return the hash of a trained model's labels and tensors."""
    model = TrainedModel.load(path)
    digest = hashlib.sha256(json.dumps(model.label_names).encode())
    for name, tensor in sorted(model.head.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def shard_hashes(store: Path) -> list[str]:
    return [entry.sha256 for entry in Store.open(store).manifest.shards]


def flair_scores(model: Any) -> list[list[list[float]]]:
    """Return what a tagger of Flair's says of every label, before the CRF or softmax."""
    from flair.data import Sentence

    scores = []
    for tokens in NEW:
        sentence = Sentence(list(tokens))
        with torch.no_grad():
            found, *_ = model.forward(*model._prepare_tensors([sentence]))
        scores.append(found.reshape(-1, found.shape[-1]).tolist())
    return scores


def main(folder: Path) -> None:
    folder.mkdir()
    store, expected = folder / "store", {}
    tiny = folder.with_name("elmo-tiny")
    spec = f"elmo:{tiny / 'options.json'},{tiny / 'weights.hdf5'}"
    lines = [
        "".join(f"{w} {t}\n" for w, t in zip(text.split(), tags.split(), strict=True))
        for text, tags, _ in ROWS
    ]
    (folder / "tags.conll").write_text("\n".join(lines))
    (folder / "moods.tsv").write_text("text\tmood\n" + "".join(f"{text}\t{mood}\n" for text, _, mood in ROWS))
    run("extract", folder / "tags.conll", "--store", store, "--encoder", spec, "--codec", "float32")
    expected["recipe"], expected["shards"] = Store.open(store).recipe.to_dict(), shard_hashes(store)
    common = (
        "--store",
        store,
        "--epochs",
        60,
        "--patience",
        60,
        "--token-budget",
        32,
        "--lr",
        0.03,
        "--precision",
        "float32",
    )
    tags, moods = folder / "tags.conll", folder / "moods.tsv"
    for name in TAGGERS:
        sized = ("--hidden", 4) if name != "linear" else ()
        run("train", "tagger", "--train", tags, "--dev", tags, "--label", "2", "--model", name, "--out",
            folder / f"{name}.h5", *common, *sized)  # fmt: skip
        expected[name] = [json.loads(line) for line in predict(folder, f"{name}.h5", tags)]
    run("train", "classifier", "--train", moods, "--dev", moods, "--label", "mood", "--out",
        folder / "classifier.h5", *common)  # fmt: skip
    expected["classifier"] = [json.loads(line) for line in predict(folder, "classifier.h5", moods)]
    models = [*TAGGERS, "classifier"]
    expected["parameters"] = {name: parameters_sha256(folder / f"{name}.h5") for name in models}
    (folder / "options.json").write_text(json.dumps(OPTIONS))
    how = ("--epochs", 1, "--streams", 2, "--steps", 4, "--min-count", 1, "--held-out", 0.2)
    options = ("--options", folder / "options.json", "--precision", "float32")
    run("pretrain", tags, "--out", folder / "elmo", *options, *how)
    vectors = load_encoder(f"elmo:{folder / 'elmo'}", layers="all").encode(NEW)
    expected["elmo"] = [np.round(array, 6).tolist() for array in vectors]
    (folder / "elmo" / "checkpoint.h5").unlink()
    expected["flair"] = make_flair_tagger(folder, store)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    for path in (store / "index", store / "tmp"):
        shutil.rmtree(path)  # derived, and empty


def predict(folder: Path, model: str, corpus: Path) -> list[str]:
    return run("predict", folder / model, corpus, "--store", folder / "store", "--json").splitlines()


def make_flair_tagger(folder: Path, store: Path) -> list[list[list[float]]]:
    import flair
    from flair.data import Dictionary
    from flair.models import SequenceTagger

    from featurestore.integrations.flair import CachedEmbeddings

    flair.set_seed(0)
    labels = Dictionary(add_unk=False)
    for label in ("O", "S-PER", "S-LOC"):
        labels.add_item(label)
    tagger = SequenceTagger(
        embeddings=CachedEmbeddings(store),
        tag_dictionary=labels,
        tag_type="ner",
        hidden_size=4,
        use_crf=False,
    ).eval()
    tagger.save(folder / "flair.pt")
    return flair_scores(tagger)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
