"""The readers on the real corpora of ../shared."""

import pytest

from featurestore.corpora.corpus import open_corpus

pytestmark = pytest.mark.shared

UPOS_COUNT = 17


@pytest.mark.parametrize(
    ("part", "n_sentences", "n_tokens"),
    [("train", 12_544, 204_577), ("dev", 2_001, 25_147), ("test", 2_077, 25_094)],
)
def test_english_web_treebank(shared, part, n_sentences, n_tokens):
    corpus = open_corpus(shared(f"corpora/ud-ewt/en_ewt-ud-{part}.conllu"), label="upos")
    examples = list(corpus)
    assert len(examples) == n_sentences
    assert sum(len(example.tokens) for example in examples) == n_tokens
    assert len({label for example in examples for label in example.labels}) == UPOS_COUNT
    assert corpus.bytes_read == corpus.n_bytes


def test_english_web_treebank_columns_agree(shared):
    path = shared("corpora/ud-ewt/en_ewt-ud-dev.conllu")
    by_name = list(open_corpus(path, label="xpos"))
    assert by_name == list(open_corpus(path, label="5"))
    assert by_name[0].path == str(path)
    with path.open(encoding="utf-8") as file:
        lines = file.read().split("\n")
    for example in by_name[:100]:
        assert lines[example.line - 1].split("\t")[:2] == ["1", example.tokens[0]]


# The file has 8,530 lines, of which the first is the header.
@pytest.mark.parametrize(("part", "n_rows"), [("train", 8_529), ("dev", 1_066), ("test", 1_067)])
def test_sentence_polarity(shared, part, n_rows):
    examples = list(open_corpus(shared(f"corpora/sentence-polarity/{part}.tsv"), label="label"))
    assert len(examples) == n_rows
    assert {example.labels for example in examples} == {"pos", "neg"}
    assert examples[-1].line == n_rows + 1
    # TSV has no quoting: the quotation marks of the reviews are tokens.
    assert any('"' in example.tokens for example in examples)


@pytest.mark.parametrize("name", ["wikitext-2/valid.txt", "wikitext-2/test.txt", "pretraining/masc.txt"])
def test_plain_text(shared, name):
    path = shared(f"corpora/{name}")
    with path.open("rb") as file:
        # Splitting bytes knows ASCII whitespace only, which is our rule.
        lines = [line.split() for line in file.read().split(b"\n")]
    examples = list(open_corpus(path))
    assert [example.line for example in examples] == [n for n, line in enumerate(lines, 1) if line]
    found = [[token.encode() for token in example.tokens] for example in examples]
    assert found == [line for line in lines if line]


def test_tokenising_tokenised_text_changes_few_sentences(shared):
    path = shared("corpora/sentence-polarity/dev.tsv")
    split = [example.tokens for example in open_corpus(path)]
    ours = [example.tokens for example in open_corpus(path, tokenize=True)]
    assert len(split) == len(ours)
    kept = sum(len(a) == len(b) for a, b in zip(split, ours, strict=True)) / len(split)
    assert kept > 0.5
