"""Exports killed at any point or out of space at any byte: whole or not there, and the next one finishes."""

from __future__ import annotations

import pytest

from featurestore.exchange.exporting import export
from tests.faults.trials.exports import KINDS, export_as, fill_everywhere, in_child, kill_everywhere, prepared
from tests.kit.faulty import FaultyFileSystem, ignore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("exports"))


@pytest.mark.parametrize("to", KINDS)
def test_killed_at_any_point(store, tmp_path, to):
    points = list(kill_everywhere(store, to, tmp_path / "trials"))
    assert [(point.place, point.problems) for point in points if point.problems] == []
    assert [point.place for point in points if not point.killed] == []
    assert len(points) > 12


@pytest.mark.parametrize("to", KINDS)
def test_out_of_space_at_any_byte(store, tmp_path, to):
    points = list(fill_everywhere(store, to, tmp_path / "trials", 8))
    assert [(place, problems) for place, problems in points if problems] == []
    assert len(points) == 8


@pytest.mark.parametrize("to", KINDS)
def test_everything_is_synced_before_it_gets_its_name_and_the_name_afterwards(store, tmp_path, to):
    watching = FaultyFileSystem(-1, ignore)
    export_as(store, tmp_path / "out", to, filesystem=watching)
    done = [(operation.kind, operation.path.name) for operation in watching.operations]
    (named,) = (number for number, (kind, _) in enumerate(done) if kind in ("link", "rename"))
    assert done[named][1] == "out"
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert ("sync directory" if path.is_dir() else "sync", path.name) in done[:named]
    assert done[named + 1] == ("sync directory", tmp_path.name)


def test_what_somebody_else_is_building_stays(store, tmp_path):
    """Two exports to one name at a time: the second one wins, the first one is told."""
    from featurestore.disk import atomic
    from featurestore.errors import StoreWriteError

    def export_too(n_tokens):
        if not (tmp_path / "out").exists():
            atomic._NEW_SECONDS, kept = 0.0, atomic._NEW_SECONDS
            assert in_child(lambda: export(store, tmp_path / "out", "npy")) == 0
            atomic._NEW_SECONDS = kept

    with pytest.raises(StoreWriteError, match="out"):
        export(store, tmp_path / "out", "npy", progress=export_too)
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
