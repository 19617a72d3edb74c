"""Whether CoNLL-U files are read word for word as the ``conllu`` package reads them.

Compares the words (rows with a whole number as id), their FORM and UPOS. Prints how many files are equal, and
of each that differs the first difference; exit code 1 if any does, and 2 if there is no file.

    python -m tests.bench.store.ud_words FOLDER_OR_FILE...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import click

from featurestore import open_corpus
from featurestore.errors import FeaturestoreError

Sentence = list[tuple[str, str]]


def files_in(paths: tuple[Path, ...]) -> list[Path]:
    """Return the .conllu files among the paths and below them."""
    found = [sorted(path.rglob("*.conllu")) if path.is_dir() else [path] for path in paths]
    return [path for group in found for path in group]


def ours(path: Path) -> Iterator[Sentence]:
    """Yield each sentence's words and parts of speech, as this package reads them."""
    corpora = [open_corpus(path), open_corpus(path, label="upos", missing_label="ignore")]
    for plain, labelled in zip(*corpora, strict=True):
        assert plain.tokens == labelled.tokens
        upos = [label if isinstance(label, str) else "_" for label in labelled.labels or ()]
        yield list(zip(plain.tokens, upos, strict=True))


def theirs(path: Path) -> Iterator[Sentence]:
    """Yield the same of the ``conllu`` package."""
    from conllu import parse_incr

    with path.open(encoding="utf-8") as file:
        for sentence in parse_incr(file):
            words = [row for row in sentence if isinstance(row["id"], int)]
            if words:
                yield [(row["form"], row["upos"] or "_") for row in words]


def first_difference(path: Path) -> str | None:
    """Say where the two first differ in a file; None if they do not."""
    read = theirs(path)
    try:
        for number, our in enumerate(ours(path), 1):
            their = next(read, [])
            for at, (mine, other) in enumerate(zip_longest(our, their), 1):
                if mine != other:
                    return f"sentence {number}, word {at}: ours {mine}, theirs {other}"
    except FeaturestoreError as error:
        return f"refused: {error}"
    return None if next(read, None) is None else f"the conllu package reads more than {number} sentences"


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    """Compare every .conllu file of PATHS."""
    files = files_in(paths)
    if not files:
        click.echo("no .conllu file there", err=True)
        sys.exit(2)
    n_equal = 0
    for path in files:
        difference = first_difference(path)
        if difference is None:
            n_equal += 1
        else:
            click.echo(f"{path}: {difference}")
    click.echo(f"{n_equal} of {len(files)} files are equal word for word")
    sys.exit(n_equal < len(files))


if __name__ == "__main__":
    main()
