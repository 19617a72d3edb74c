"""The page for Flair users: its code runs, in order, with models small enough to lie here."""

from __future__ import annotations

import logging
import re

import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Corpus, Sentence
from flair.datasets import FlairDatapointDataset

from featurestore import open_corpus


def page(root):
    return (root / "featurestore" / "integrations" / "FLAIR.md").read_text(encoding="utf-8")


def sentences(root, split, n):
    """Flair sentences of the sample corpus, their entities labelled as ``ner``."""
    found = []
    for example in list(open_corpus(root / f"data/tagging/{split}.conllu", label="misc.NER"))[:n]:
        sentence = Sentence(list(example.tokens))
        for token, label in zip(sentence, example.labels, strict=True):
            if label.startswith("B-"):
                sentence[token.idx - 1 : token.idx].add_label("ner", label[2:])
        found.append(sentence)
    return FlairDatapointDataset(found)


def test_the_code_of_the_page_runs_in_order(tiny_bert, pytestconfig, tmp_path, monkeypatch):
    root = pytestconfig.rootpath
    blocks = re.findall(r"```python\n(.*?)```", page(root), re.DOTALL)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)
    logging.getLogger("flair").setLevel(logging.ERROR)
    corpus = Corpus(
        train=sentences(root, "train", 12), dev=sentences(root, "dev", 6), test=sentences(root, "dev", 6),
        sample_missing_splits=False,
    )  # fmt: skip
    names = {"corpus": corpus, "labels": corpus.make_label_dictionary("ner", add_unk=False)}
    # Published models are not here; one epoch is enough.
    smaller = {'"original"': '"untrained-small?seed=0"', '"bert-base-cased"': repr(str(tiny_bert))}
    for block in blocks:
        for published, here in smaller.items():
            block = block.replace(published, here)
        exec(re.sub(r"max_epochs=\d+", "max_epochs=1", block), names)
    assert (tmp_path / "runs/elmo/final-model.pt").exists()
    assert names["tagger"].embeddings.is_cached is False
