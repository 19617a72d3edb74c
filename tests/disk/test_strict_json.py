"""JSON from a stranger: what is plain is read as Python reads it, the rest is a ValueError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import limits
from featurestore.disk.strict_json import parse_json
from featurestore.errors import StoreLimitError
from featurestore.store.format.directory import read_manifest
from tests.kit.stores import create, fill, sentences

NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=50)
@given(VALUES)
def test_plain_json_is_read(value):
    raw = json.dumps(value).encode()
    assert parse_json(raw, most_values=len(raw)) == value


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' occurs twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"1e999", "not finite"),
        (b"-1e999", "not finite"),
        (str(1 << 64).encode(), "does not fit 64 bits"),
        (str(-(1 << 63) - 1).encode(), "does not fit 64 bits"),
        (b"1" * 10_000, "does not fit 64 bits"),
        (b"[ " * 100_000, "nested too deeply"),
        (b"\xff\xfe[\0]\0", "utf-8"),
        (b"\xef\xbb\xbf[]", "BOM"),
        (b'"\xed\xa0\x80"', "utf-8"),
        (b"", "Expecting value"),
        (b"[1] [2]", "Extra data"),
    ],
)
def test_what_is_not_plain_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        parse_json(raw, most_values=1 << 20)


def test_values_are_counted_before_they_are_built():
    with pytest.raises(ValueError, match="about 2,001 values, over the bound of 2,000"):
        parse_json(b"[" + b"[]," * 1000 + b"1]", most_values=2000)


def test_a_manifest_that_no_reader_would_take_is_not_published(tmp_path, monkeypatch):
    store = fill(create(tmp_path / "store.fs", shard_bytes=1), sentences(3))
    monkeypatch.setattr(limits, "MAX_SHARDS", 3)
    with pytest.raises(StoreLimitError, match="would list 4 shards"):
        fill(store, sentences(1, start=50))
    assert len(read_manifest(store.path).shards) == 3


def test_the_longest_list_of_shards_is_read(tmp_path, monkeypatch):
    store = fill(create(tmp_path / "store.fs", shard_bytes=1), sentences(3))
    monkeypatch.setattr(limits, "MAX_SHARDS", 3)
    assert len(read_manifest(store.path).shards) == 3
