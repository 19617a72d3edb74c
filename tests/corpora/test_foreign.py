"""Objects of other libraries and other things that are no corpus: what the error says to write works."""

# ruff: noqa: S307 (the code in the errors is run)
from __future__ import annotations

import pytest

from featurestore import Example
from featurestore.corpora.given import as_corpora, read_examples
from featurestore.errors import UsageError

# The libraries are no dependencies: these classes have of theirs what is used.


def of(module: str, name: str, base: type = object, **attributes: object) -> type:
    return type(name, (base,), {"__module__": module, **attributes})


Frame = of(
    "pandas.core.frame",
    "DataFrame",
    dict,
    columns=property(lambda self: list(self.keys())),
    __iter__=lambda self: iter(self.keys()),
)
Series = of("pandas.core.series", "Series", list)


class _Feature:
    def __init__(self, names: list[str]) -> None:
        self.feature = self
        self.names = names


def dataset(columns: dict[str, list[object]], names: list[str] | None = None) -> object:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    features = {"ner_tags": _Feature(names)} if names else {}
    return of("datasets.arrow_dataset", "Dataset", list, column_names=list(columns), features=features)(rows)


TEXTS = {"text": ["a b", "c"], "label": [1, 0]}
TAGGED = {"tokens": [["a", "b"], ["c"]], "ner_tags": [[1, 0], [0]]}
AS_TEXTS = [Example(("a", "b"), "1"), Example(("c",), "0")]
AS_TAGGED = [Example(("a", "b"), ("1", "0")), Example(("c",), ("0",))]
AS_NAMED = [Example(("a", "b"), ("B-X", "O")), Example(("c",), ("O",))]


def written(given: object, said: str) -> list[object]:
    """Return what the code in the error makes of the object."""
    with pytest.raises(UsageError, match=said) as caught:
        as_corpora(given)
    with pytest.raises(UsageError, match=said):
        list(read_examples(given))
    scope: dict[str, object] = {"given": given}
    *lines, last = str(caught.value).split("write\n")[1].split("\n")
    exec("\n".join(lines), scope)
    return list(eval(last, scope))


@pytest.mark.parametrize(
    ("given", "said", "expected"),
    [
        (Frame(TEXTS), "a DataFrame of pandas is no corpus", AS_TEXTS),
        (Frame(TAGGED), "a DataFrame of pandas is no corpus", AS_TAGGED),
        (Frame({"sentence": ["a b"]}), "a DataFrame of pandas is no corpus", [Example(("a", "b"))]),
        (Series(["a b", "c"]), "a Series of pandas is no corpus", [["a", "b"], ["c"]]),
        (dataset(TEXTS), "a Dataset is no corpus", AS_TEXTS),
        (dataset(TAGGED), "a Dataset is no corpus", AS_TAGGED),
        (dataset(TAGGED, ["O", "B-X"]), "a Dataset is no corpus", AS_NAMED),
        ([{"text": "a b", "label": 1}, {"text": "c", "label": 0}], "a dict is no sentence", AS_TEXTS),
        ([(["a", "b"], ["1", "0"]), (["c"], ["0"])], "tokens with their labels are an Example", AS_TAGGED),
    ],
)
def test_the_code_in_the_error_makes_a_corpus(given, said, expected):
    examples = written(given, said)
    assert examples == expected
    assert list(read_examples(examples))


def test_a_dataset_dict_names_a_part():
    parts = of("datasets.dataset_dict", "DatasetDict", dict)({"train": dataset(TEXTS)})
    with pytest.raises(UsageError, match=r"give one of its parts, such as given\['train'\]: write") as caught:
        as_corpora(parts)
    assert eval(str(caught.value).split("\n")[-1], {"Example": Example, "given": parts["train"]}) == AS_TEXTS


@pytest.mark.parametrize("name", ["pandas", "polars", "datasets"])
def test_the_real_thing(name):
    library = pytest.importorskip(name)
    make = library.Dataset.from_dict if name == "datasets" else library.DataFrame
    assert written(make(TEXTS), "is no corpus") == AS_TEXTS
    assert written(make(TAGGED), "is no corpus") == AS_TAGGED


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
    with pytest.raises(UsageError, match=said):
        as_corpora(given)


def test_an_open_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a b\n")
    with path.open() as file, pytest.raises(UsageError, match="an open file is no corpus: give its path"):
        as_corpora(file)
