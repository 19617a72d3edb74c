"""Objects of other libraries that are no corpus: the error says what to give instead, and its code works."""

# ruff: noqa: S307 (the code in the errors is run)
from __future__ import annotations

import pytest

from featurestore import Example
from featurestore.corpora.given import as_corpora, read_examples
from featurestore.errors import UsageError

AS_TEXTS = [Example(("a", "b"), "1"), Example(("c",), "0")]
AS_TAGGED = [Example(("a", "b"), ("1", "0")), Example(("c",), ("0",))]


def refused(given: object, said: str) -> str:
    """Return what both ways of reading say of an object."""
    with pytest.raises(UsageError, match=said) as caught:
        as_corpora(given)
    with pytest.raises(UsageError, match=said):
        list(read_examples(given))
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "said", "expected"),
    [
        ([{"text": "a b", "label": 1}, {"text": "c", "label": 0}], "a dict is no sentence", AS_TEXTS),
        ([(["a", "b"], ["1", "0"]), (["c"], ["0"])], "tokens with their labels are an Example", AS_TAGGED),
    ],
)
def test_the_code_in_the_error_makes_a_corpus(given, said, expected):
    scope: dict[str, object] = {"given": given}
    *lines, last = refused(given, said).split("write\n")[1].split("\n")
    exec("\n".join(lines), scope)
    examples = list(eval(last, scope))
    assert examples == expected
    assert list(read_examples(examples))


@pytest.mark.parametrize(
    ("library", "make", "said"),
    [
        ("polars", lambda polars: polars.LazyFrame({"tokens": [["a"]]}), "a LazyFrame of polars"),
        ("pandas", lambda pandas: pandas.Index(["a"]), "an? Index of pandas is no corpus: give a DataFrame"),
        ("pyarrow", lambda pyarrow: pyarrow.array([["a"]]), "a ListArray of pyarrow"),
        ("pyarrow", lambda pa: pa.table({"tokens": [["a"]]}).to_reader(), "a RecordBatchReader of pyarrow"),
    ],
)
def test_what_is_no_table_is_made_one(library, make, said):
    given = make(pytest.importorskip(library))
    message = refused(given, said)
    if library != "pandas":
        scope = {"given": given, library: pytest.importorskip(library)}
        instead = eval(message.split("give ")[1].split("table: ")[-1], scope)
        assert [example.tokens for example in read_examples(instead)] == [("a",)]


def test_a_generator_is_read_once():
    generator = ([word] for word in "ab")
    assert len(as_corpora(generator)[0]) == 2
    for read in (as_corpora, lambda given: list(read_examples(given))):
        with pytest.raises(UsageError, match="the generator was used up before: make a list"):
            read(generator)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"a b\n", r"bytes are no corpus: .*\.decode\(\)"),
        (bytearray(b"a"), "bytes are no corpus"),
        ({"a": ["b"]}, "a dict is no corpus: expected a path"),
    ],
)
def test_other_objects(given, said):
    refused(given, said)


def test_an_open_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a b\n")
    with path.open() as file, pytest.raises(UsageError, match="an open file is no corpus: give its path"):
        as_corpora(file)
