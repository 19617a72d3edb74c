"""A URL is no path: every door that takes the path of a store or a model refuses one, and makes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import FeatureDataset, FeaturestoreError, Store, extract
from featurestore.cli.main import main
from featurestore.disk.destination import require_writable
from featurestore.disk.places import local_path
from featurestore.errors import UsageError
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.repair import repair

URL = "s3://bucket/features"

DOORS = {
    "open": Store.open,
    "exists": Store.exists,
    "create": lambda url: Store.create(url, recipe={"kind": "test", "version": 1}, dim=2),
    "extract": lambda url: extract([["a", "word"]], "elmo:demo", url, progress=False),
    "dataset": lambda url: FeatureDataset(url, [["a", "word"]]),
    "merge from": lambda url: merge([url], "new"),
    "merge into": lambda url: merge(["store"], url),
    "gc": collect,
    "repair": repair,
    "a model to write": require_writable,
}

COMMANDS = [
    f"extract words.txt --store {URL}",
    f"plan words.txt --store {URL}",
    *(f"{command} {URL}" for command in ("info", "ls", "stats", "verify", "repair", "gc")),
    f"show {URL} word",
    f"why {URL} word",
    f"merge {URL} --into new",
    f"merge store --into {URL}",
    f"train tagger --store {URL} --train tags.conll --dev tags.conll --label 1 --out model.h5",
    f"train tagger --store store --train tags.conll --dev tags.conll --label 1 --out {URL}",
    f"pretrain words.txt --out {URL}",
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory: a URL taken for a path would become a folder of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("a word\n")
    (tmp_path / "tags.conll").write_text("a\tX\nword\tY\n")
    Store.create("store", recipe={"kind": "test", "version": 1}, dim=2)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", [str, Path])
def test_from_python(folder, door, kind):
    before = names(folder)
    with pytest.raises(UsageError, match=f"{URL} is a URL, expected a path: .* local or shared disk"):
        DOORS[door](kind(URL))
    assert names(folder) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_from_the_command_line(folder, capsys, command):
    before = names(folder)
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    err = capsys.readouterr().err
    assert stop.value.code == 2, err
    assert f"{URL} is a URL, expected a path" in err
    assert names(folder) == before


@pytest.mark.parametrize(
    "url",
    ["gs://b/x", "az://b/x", "abfs://c@a/x", "https://h/x", "simplecache::s3://b/x", "S3:/b", "hf://d/x"],
)
def test_any_scheme(url):
    with pytest.raises(UsageError, match="is a URL, expected a path"):
        local_path(url)


@pytest.mark.parametrize("url", ["file:///a/b", "file:/a/b", Path("file:///a/b")])
def test_of_a_file_url_the_path_is_named(url):
    with pytest.raises(UsageError, match=r"give the path itself, /a/b$"):
        local_path(url)


@pytest.mark.parametrize("path", ["a", "/a/b", "../a", "C:/a", "a:b", "s3", "s3:", "/s3:/b", "a/s3://b", "."])
def test_a_path_stays_as_it_is(path):
    assert local_path(path) == local_path(Path(path)) == Path(path)


def test_a_folder_that_a_url_once_made_is_named_by_its_path(folder):
    made = folder / "s3:" / "bucket"
    made.mkdir(parents=True)
    with pytest.raises(UsageError, match=f"is here, {made}$"):
        Store.open("s3://bucket")
    with pytest.raises(FeaturestoreError, match="is not a store"):
        Store.open(made)
