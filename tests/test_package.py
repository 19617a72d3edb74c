"""The package's face: complete, importable by name, and light to import."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featurestore
from featurestore.recipe import Recipe
from featurestore.store.store import Store

TOO_HEAVY = ("torch", "flair", "transformers", "gensim", "sklearn")
REPORT_HEAVY_MODULES = f"""
import sys
heavy = sorted(name for name in {TOO_HEAVY!r} if name in sys.modules)
sys.stderr.write("loaded:" + ",".join(heavy))
"""


def heavy_modules_after(code: str) -> str:
    """Run code in a fresh interpreter; return the names of heavy modules it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT_HEAVY_MODULES], capture_output=True, text=True, check=False
    )
    assert "loaded:" in done.stderr, done.stderr
    return done.stderr.rsplit("loaded:", 1)[1]


@pytest.fixture(scope="module")
def store_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("package") / "store.fs"
    with Store.create(path, recipe=Recipe({"kind": "test", "version": 1}), dim=8).write() as session:
        session.add(["the", "cat"], np.ones((2, 8), np.float32))
    return path


def test_all_is_sorted_and_without_repeats():
    assert sorted(set(featurestore.__all__)) == featurestore.__all__


@pytest.mark.parametrize("name", featurestore.__all__)
def test_every_public_name_is_imported_from_its_home(name):
    public = getattr(featurestore, name)
    home = importlib.import_module(public.__module__)
    assert public.__module__.startswith("featurestore.")
    assert getattr(home, name) is public
    assert name in dir(featurestore)


def test_every_public_name_is_known_to_type_checkers():
    source = Path(featurestore.__file__).read_text()
    typed = source.split("if TYPE_CHECKING:")[1].split("_HOMES")[0]
    declared = [name.strip() for line in typed.splitlines() if " import " in line
                for name in line.split(" import ")[1].split(",")]  # fmt: skip
    assert sorted(declared) == featurestore.__all__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Stroe'"):
        _ = featurestore.Stroe


def test_import_loads_nothing_heavy():
    assert heavy_modules_after("import featurestore") == ""


def test_store_is_usable_without_torch(store_path):
    code = f"import featurestore; featurestore.Store.open({str(store_path)!r}).get(['the', 'cat'])"
    assert heavy_modules_after(code) == ""


def test_reading_vectors_does_not_load_the_hdf5_library(store_path):
    code = f"""
import sys
from featurestore import FeatureDataset, Store, feature_loader
store = Store.open({str(store_path)!r})
store.get(["the", "cat"])
assert sum(len(batch) for batch in feature_loader(FeatureDataset(store, [["the", "cat"]]))) == 1
assert "h5py" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["info", "STORE"],
        ["ls", "STORE"],
        ["show", "STORE", "the cat"],
        ["stats", "STORE"],
        ["verify", "STORE"],
        ["why", "STORE", "the cat"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_inspection_commands_load_nothing_heavy(store_path, arguments):
    arguments = [str(store_path) if argument == "STORE" else argument for argument in arguments]
    code = f"""
from featurestore.cli.main import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert heavy_modules_after(code) == ""


def test_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", "--help"], capture_output=True, text=True, check=True
    )
    assert "Fill a store:" in done.stdout
    assert "Exit codes:" in done.stdout


def test_package_is_marked_as_typed():
    assert (Path(featurestore.__file__).parent / "py.typed").is_file()
