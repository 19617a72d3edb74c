"""Fixtures of the tests of column files."""

import pytest

from featurestore.corpora.corpus import open_corpus


@pytest.fixture
def read(tmp_path):
    """Write a file and return what is read of it: a list of tokens, labels and first line."""

    def read_(content, name="corpus.conll", **options):
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return [(e.tokens, e.labels, e.line) for e in open_corpus(path, **options)]

    return read_
