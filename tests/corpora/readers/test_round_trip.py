"""What is written in a format is what is read back, for any tokens the format can hold."""

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpora.corpus import open_corpus

# Text and column files hold what UTF-8 can, except the characters that separate tokens and lines.
plain = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0 \t\r\n\v\f"), min_size=1, max_size=8
).filter(lambda token: not token.startswith(("\ufeff", "-DOCSTART-")))
sentences = st.lists(st.lists(plain, min_size=1, max_size=6), min_size=1, max_size=6)
labelled = st.lists(st.lists(st.tuples(plain, plain), min_size=1, max_size=6), min_size=1, max_size=6)
anything = st.text(st.characters(), min_size=1, max_size=8)


def read_back(content, name, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content.encode("utf-8"))
        return [(example.tokens, example.labels) for example in open_corpus(path, **options)]


@given(sentences, st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_text(written, line_end):
    content = line_end.join(" ".join(tokens) for tokens in written)
    assert read_back(content, "c.txt", format="text") == [(tuple(tokens), None) for tokens in written]


@given(labelled, st.sampled_from(["\t", " "]))
def test_conll(written, separator):
    # A last sentence that is surely no comment tells the number of columns.
    written = [*written, [("x", "y")]]
    content = "\n\n".join("\n".join(separator.join(pair) for pair in sentence) for sentence in written)
    expected = [tuple(zip(*sentence, strict=True)) for sentence in written]
    assert (
        read_back(content, "c.conll", text_column=1, label="last", comments=False, header=False) == expected
    )


@given(labelled)
def test_conllu(written):
    content = "".join(
        "".join(f"{n}\t{form}\t{tag}\t_\t_\t_\t_\t_\t_\t_\n" for n, (form, tag) in enumerate(sentence, 1))
        + "\n"
        for sentence in written
    )
    assert read_back(content, "c.conllu", label="lemma") == [tuple(zip(*s, strict=True)) for s in written]


@given(st.lists(st.lists(st.tuples(anything, anything), min_size=1, max_size=6), min_size=1, max_size=6))
def test_jsonl(written):
    expected = [tuple(zip(*sentence, strict=True)) for sentence in written]
    content = "\n".join(json.dumps({"tokens": tokens, "tags": tags}) for tokens, tags in expected)
    assert read_back(content, "c.jsonl", label="tags") == expected
