"""The sample corpora in data/: their form, and that data/README.md tells the truth about them."""

import re
from collections import Counter

import pytest

from featurestore.corpora.corpus import open_corpus
from tests.kit.places import DATA

UPOS = {
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT"),
    *("SCONJ", "SYM", "VERB", "X"),
}
ENTITIES = {"PER", "LOC", "ORG"}


def read(name, label):
    return list(open_corpus(DATA / name, label=label))


def stated(name):
    """The cells of a file's row in data/README.md: sentences, tokens, and the numbers about labels."""
    row = re.search(
        rf"^\| {re.escape(name)} \|(.*)\|$", (DATA / "README.md").read_text(encoding="utf-8"), re.M
    )
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", row[1])]


@pytest.mark.parametrize("part", ["train", "dev"])
def test_tagging(part):
    name = f"tagging/{part}.conllu"
    tagged = read(name, "upos")
    entities = read(name, "misc.NER")
    tags = {label for example in tagged for label in example.labels}
    assert tags <= UPOS
    n_entities = 0
    for example in entities:
        previous = "O"
        for label in example.labels:
            assert label == "O" or (label[:2] in ("B-", "I-") and label[2:] in ENTITIES), example.place
            if label.startswith("I-"):
                assert previous[2:] == label[2:], f"{example.place}: {label} after {previous}"
            n_entities += label.startswith("B-")
            previous = label
    n_tokens = sum(len(example.tokens) for example in tagged)
    assert stated(name) == [len(tagged), n_tokens, len(tags), n_entities]
    assert 9 <= n_tokens / len(tagged) <= 12


@pytest.mark.parametrize("part", ["train", "dev"])
def test_text_comments_are_the_tokens_put_together(part):
    sentences = (DATA / f"tagging/{part}.conllu").read_text(encoding="utf-8").strip().split("\n\n")
    for sentence in sentences:
        lines = sentence.split("\n")
        text = next(line for line in lines if line.startswith("# text = ")).removeprefix("# text = ")
        words = [line.split("\t") for line in lines if not line.startswith("#")]
        joined = "".join(word[1] + ("" if "SpaceAfter=No" in word[9] else " ") for word in words)
        assert joined.strip() == text


@pytest.mark.parametrize("part", ["train", "dev"])
def test_sentiment(part):
    name = f"sentiment/{part}.tsv"
    examples = read(name, "label")
    labels = Counter(example.labels for example in examples)
    n_tokens = sum(len(example.tokens) for example in examples)
    assert stated(name) == [len(examples), n_tokens, labels["pos"], labels["neg"]]
    assert labels["pos"] == labels["neg"] == len(examples) // 2


@pytest.mark.parametrize(("pattern", "label"), [("tagging/{}.conllu", "upos"), ("sentiment/{}.tsv", "label")])
def test_no_sentence_twice(pattern, label):
    sentences = [
        " ".join(example.tokens).lower()
        for part in ("train", "dev")
        for example in read(pattern.format(part), label)
    ]
    assert len(sentences) == len(set(sentences))


def test_no_word_form_alone_decides_the_sentiment():
    examples = read("sentiment/train.tsv", "label")
    sides = Counter((word.lower(), example.labels) for example in examples for word in set(example.tokens))
    for word in {word for word, _ in sides}:
        right = max(
            sides[word, "pos"] + 120 - sides[word, "neg"], sides[word, "neg"] + 120 - sides[word, "pos"]
        )
        assert right / len(examples) < 0.65, word
