"""The tests' own house: rooms of a dozen files, none too long, imports of public names by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.kit.places import ROOT

MODULES = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 400
MAX_FILES = 12
LONGER: set[str] = {
    "cli/commands/test_train.py",
    "corpora/readers/test_table_evidence.py",
}
"""Files that are still too long: none is the aim."""


def module_id(path: Path) -> str:
    return path.relative_to(ROOT / "tests").as_posix()


def test_every_module_is_short_and_says_what_it_is():
    sources = {module_id(path): path.read_text() for path in MODULES}
    assert [name for name, source in sources.items() if not ast.get_docstring(ast.parse(source))] == []
    assert {name for name, source in sources.items() if len(source.splitlines()) > MAX_LINES} == LONGER


def test_a_room_has_a_dozen_files_at_most():
    counts: dict[str, int] = {}
    for path in MODULES:
        if path.name not in ("__init__.py", "conftest.py"):
            room = path.parent.relative_to(ROOT).as_posix()
            counts[room] = counts.get(room, 0) + 1
    assert {room: count for room, count in counts.items() if count > MAX_FILES} == {}


def faults_of_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        place = f"{module_id(path)}:{getattr(node, 'lineno', 0)}"
        written = [node.func] if isinstance(node, ast.Call) else getattr(node, "targets", [])
        if any(ast.unparse(target).startswith(("sys.path.", "sys.path[")) for target in written):
            yield f"{place} edits sys.path: run modules by -m, import them from tests"
        if isinstance(node, ast.ImportFrom):
            module = str(node.module)
            if node.level:
                yield f"{place} imports relatively"
            if module.rpartition(".")[2].startswith("test_"):
                yield f"{place} imports from a test: what two of them need belongs in tests.kit"
            if module.startswith("featurestore.") and any(alias.name.startswith("_") for alias in node.names):
                yield f"{place} imports a private name of the package"


def test_imports_are_of_public_names_by_name():
    assert [fault for path in MODULES for fault in faults_of_imports(path)] == []
