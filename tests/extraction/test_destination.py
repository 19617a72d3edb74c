"""The way of the data: how often a store is opened and a corpus read, and what a destination stands for."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from featurestore import Store, extract
from featurestore.cli.main import main
from featurestore.corpora.corpus import FileCorpus
from featurestore.errors import NotAStoreError, UsageError
from featurestore.extraction.destination import Destination
from featurestore.store import snapshot
from tests.kit.doubles import DoubleEncoder


@pytest.fixture
def counted(monkeypatch) -> Counter[str]:
    """Counts manifests read by stores that are opened, and passes over files."""
    counts: Counter[str] = Counter()

    def counting(owner, name: str, label: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments, **options):
            counts[label] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, wrapped)

    counting(snapshot, "read_manifest", "opened")
    counting(FileCorpus, "__iter__", "read")
    return counts


@pytest.fixture
def corpora(tmp_path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"one {name}\ntwo {name}\n")
    return [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]


def test_a_store_is_opened_once_and_once_more_where_something_is_added(
    counted, corpora, tmp_path, tiny_elmo_spec
):
    def counts(given: list[str], encoder, store) -> tuple[int, int]:
        counted.clear()
        extract(given, encoder, store, progress=False)
        return counted["opened"], counted["read"]

    path = tmp_path / "store"
    assert counts(corpora[:1], tiny_elmo_spec, path) == (1, 2)  # a new store: it is opened when it is done
    for encoder in (tiny_elmo_spec, None):
        assert counts(corpora[:1], encoder, path) == (1, 1)
    opened = Store.open(path)
    assert counts(corpora[:1], None, opened) == (0, 1)
    assert counts(corpora, None, path) == (2, 4)
    assert counts(corpora, None, opened) == (1, 2)  # which is behind by now
    counted.clear()
    with pytest.raises(SystemExit):
        main(["extract", *corpora, "--store", str(path), "--json"])
    assert (counted["opened"], counted["read"]) == (1, 2)


def test_an_object_is_compared_without_another_opening(counted, corpora, tmp_path):
    for given, opened in ((corpora[:1], 1), (corpora[:1], 1), (corpora, 2), (corpora, 1)):
        counted.clear()
        extract(given, DoubleEncoder(), tmp_path / "store", progress=False)
        assert counted["opened"] == opened


def test_a_store_that_is_handed_in_is_added_to_as_it_was_opened(tmp_path):
    extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False)
    opened = Store.open(tmp_path / "store", access="pread")
    extract([("b",)], DoubleEncoder(), tmp_path / "store", progress=False)
    assert extract([("a",), ("b",), ("c",)], DoubleEncoder(), opened, progress=False).n_encoded == 1
    assert len(opened) == 1  # it stays at its snapshot
    assert len(opened.refreshed()) == 3


def test_a_store_that_is_handed_in_and_gone_is_not_made_anew(tmp_path):
    extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False)
    opened = Store.open(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(NotAStoreError):
        extract([("a",)], DoubleEncoder(), opened, progress=False)
    assert not (tmp_path / "store").exists()


def test_a_store_that_another_process_makes_meanwhile_is_added_to(tmp_path):
    place = Destination.of(tmp_path / "store")
    assert place.store is None
    place.require_usable()
    extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False)
    assert place.store is None
    assert len(place.latest().store) == 1
    assert Destination.of(place) is place


def test_where_something_else_lies_no_store_can_be_made(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else is there"):
        Destination.of(tmp_path).require_usable()
