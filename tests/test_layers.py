"""The arrows: which part of the package may import which, read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import featurestore

PACKAGE = Path(featurestore.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 450

LEAVES = {"errors", "limits", "keys", "recipe"}
EVERYTHING = None
# Part of the package -> the other parts it may import. A part may always import itself.
ARROWS: dict[str, set[str] | None] = {
    "__init__": EVERYTHING,
    "__main__": {"cli"},
    "errors": set(),
    "limits": set(),
    "keys": {"limits", "errors"},
    "recipe": {"limits", "errors"},
    "tensorfile": {"recipe", "limits", "errors"},
    "store": LEAVES | {"__init__"},
    "corpora": {"keys", "limits", "errors"},
    "devices": {"errors"},
    "encoders": {"devices"} | LEAVES | {"__init__"},
    "extraction": {"corpora", "encoders", "store", *LEAVES},
    "dataset": {"devices", "corpora", "store", *LEAVES},
    "models": {"devices", "dataset", "store", "corpora", "tensorfile", "__init__", *LEAVES},
    "pretraining": {"devices", "encoders", "corpora", "store", "tensorfile", "__init__", *LEAVES},
    "integrations": {"dataset", "store", "encoders", "corpora", *LEAVES},
    "cli": EVERYTHING,
    "examples": EVERYTHING,
}
NO_TORCH = {"errors", "limits", "keys", "recipe", "tensorfile", "store", "corpora"}
FLAIR_USERS = ("encoders/flair/", "integrations/flair", "examples/")  # beginnings of paths
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.save", "numpy.load", "np.load"}


def module_id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    """Return which part of the package a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """Return the dotted names a file imports at any depth, type-checking imports included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "importlib.import_module",
            "__import__",
        ):
            names.update(arg.value for arg in node.args if isinstance(arg, ast.Constant))
    return names


def imported_parts(path: Path) -> set[str]:
    """Return the parts of featurestore a file imports."""
    parts = set()
    for name in imported_names(path):
        if name.split(".")[0] == "featurestore":
            part = name.split(".")[1] if "." in name else "__init__"
            parts.add(part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file() else "__init__")
    return parts


def top_level_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)}


every_module = pytest.mark.parametrize("path", MODULES, ids=module_id)


@every_module
def test_imports_follow_the_arrows(path):
    part = part_of(path)
    assert part in ARROWS, f"{part} is a new part of the package: say here what it may import"
    allowed = ARROWS[part]
    if allowed is not EVERYTHING:
        assert imported_parts(path) - {part} <= allowed


@every_module
def test_nothing_but_the_command_line_imports_it(path):
    if part_of(path) not in ("cli", "__main__"):
        assert "cli" not in imported_parts(path)


@every_module
def test_heavy_packages_stay_where_they_belong(path):
    packages = top_level_packages(path)
    if part_of(path) in NO_TORCH:
        assert "torch" not in packages
    if part_of(path) == "corpora":
        assert "numpy" not in packages
    if not module_id(path).startswith(FLAIR_USERS):
        assert "flair" not in packages


@every_module
def test_nothing_can_run_code_from_a_file(path):
    assert not top_level_packages(path) & UNSAFE_MODULES
    calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
    assert not calls & UNSAFE_CALLS


@every_module
def test_module_is_short_and_says_what_it_is(path):
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), f"{path} has no docstring"
    assert len(source.splitlines()) < MAX_LINES, f"{path} has become two modules"


def test_only_the_filesystem_module_of_the_store_writes():
    writing = {"link", "rename", "replace", "unlink", "remove", "fsync", "mkdir", "write_bytes", "write_text"}
    for path in sorted((PACKAGE / "store").glob("*.py")):
        calls = {
            ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        }  # fmt: skip
        direct = {call for call in calls if call.split(".")[-1] in writing and "filesystem." not in call}
        if path.name != "filesystem.py":
            assert not direct, f"{path.name} writes past FileSystem: {direct}"
