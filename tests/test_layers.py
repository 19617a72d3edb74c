"""The arrows: which room of the package may import which, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import featurestore

PACKAGE = Path(featurestore.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {".".join(("featurestore", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in MODULES}
MAX_LINES = 400
MAX_FILES = 12

LEAVES = {"errors", "limits", "keys", "recipe", "keyarrays", "vectors", "families", "notebook", "_version"}
EVERYTHING = None
STORE = {"store", "store/format"}
CORPORA = {"corpora", "corpora/contract"}
# Room -> the other rooms it may import; a room is a folder of the package, or a module of its top. A room may
# always import itself.
ARROWS: dict[str, set[str] | None] = {
    "__init__": EVERYTHING,
    "__main__": {"cli"},
    "_version": set(),
    "errors": set(),
    "limits": set(),
    "keys": {"limits", "errors"},
    "keyarrays": {"keys"},
    "vectors": {"keys", "families", "errors"},
    "recipe": {"limits", "errors", "notebook"},
    "notebook": set(),
    "families": {"recipe", "keys", "errors"},
    "tensorfile": {"recipe", "limits", "errors"},
    "devices": {"errors"},
    "native": set(),
    "disk": {"errors"},
    "store/index": {"disk", "native", *LEAVES},
    "store/format": {"store/listing", "disk", *LEAVES},
    "store/listing": {"store/format", "disk", *LEAVES},
    "store": {"store/format", "store/index", "store/listing", "disk", *LEAVES},
    "store/maintenance": {"store", "store/format", "store/index", "store/listing", "disk", *LEAVES},
    "corpora/contract": {*LEAVES},
    "corpora/tokenizing": {"corpora/contract", *LEAVES},
    "corpora/readers": {"corpora/contract", "corpora/tokenizing", *LEAVES},
    "corpora/columns": {"corpora/contract", *LEAVES},
    "corpora/tables": {"corpora/contract", "corpora/readers", "corpora/tokenizing", *LEAVES},
    "corpora/files": {*LEAVES},
    "corpora/libraries": {"corpora/contract", "corpora/files", "corpora/readers", *LEAVES},
    "corpora": {
        "corpora/columns", "corpora/contract", "corpora/files", "corpora/libraries", "corpora/readers",
        "corpora/tables", *LEAVES,
    },
    "encoders": {*LEAVES},
    "testing": {"encoders", "store", "disk", *LEAVES},
    "encoders/elmo/model": {"native", "disk", "devices", *LEAVES},
    "encoders/elmo/files": {"encoders", "encoders/elmo/model", "disk", *LEAVES},
    "encoders/elmo": {"encoders", "encoders/elmo/files", "encoders/elmo/model", "devices", *LEAVES},
    "encoders/flair": {"encoders", "encoders/elmo/model", "devices", *LEAVES},
    "extraction/planning": {
        "extraction", *CORPORA, "encoders", "store/index", "disk", "native", *STORE, *LEAVES,
    },
    "extraction/engines": {"extraction", "extraction/planning", *CORPORA, "encoders", *STORE, *LEAVES},
    "extraction/cluster": {
        "extraction", "extraction/engines", "extraction/planning", "corpora", "encoders", "disk", *STORE,
        *LEAVES,
    },
    "extraction": {
        "extraction/engines", "extraction/planning", *CORPORA, "encoders", "store/maintenance", *STORE,
        *LEAVES,
    },
    "search": {"native", "store/maintenance", *STORE, *LEAVES},
    "inspection": {*CORPORA, "store/maintenance", "store/index", *STORE, *LEAVES},
    "report/page": {"report", "store/maintenance", *LEAVES},
    "report": {
        "report/page", "inspection", "notebook", "corpora/contract", "store/maintenance", *STORE, *LEAVES,
    },
    "exchange/incoming": {"disk", *CORPORA, *LEAVES},
    "exchange": {"exchange/incoming", *CORPORA, "store/maintenance", "disk", "store", *LEAVES},
    "dataset/gathering": {"native", *STORE, *LEAVES},
    "dataset/opening": {"dataset", "disk", *CORPORA, "store", *LEAVES},
    "dataset/sampling": {"disk", *STORE, *LEAVES},
    "dataset": {
        "notebook",
        "dataset/gathering", "dataset/opening", "dataset/sampling", "devices", *CORPORA, *STORE, *LEAVES,
    },
    "models/recurrent": {"dataset/gathering", "native"},
    "models/inputs": {*LEAVES},
    "resuming": {"disk", "tensorfile", *LEAVES},
    "models/fitting": {"models", "models/inputs", "dataset", "resuming", "disk", *LEAVES},
    "models": {
        "models/fitting", "models/inputs", "models/recurrent", "dataset", "devices", *CORPORA, "tensorfile",
        "disk", "store", "resuming", *LEAVES,
    },
    "pretraining": {
        "encoders/elmo/files", "encoders/elmo/model", "devices", "corpora", "store", "disk", "resuming",
        *LEAVES,
    },
    "integrations": {"dataset", "dataset/gathering", "encoders", "encoders/flair", *CORPORA, *STORE, *LEAVES},
    "cli": EVERYTHING,
    "cli/commands": EVERYTHING,
    "cli/commands/keeping": EVERYTHING,
    "cli/commands/seeing": EVERYTHING,
    "cli/project": {"cli", "cli/display", *LEAVES},
    "cli/display": {*CORPORA, "disk", "extraction", "models", "models/fitting", *LEAVES},
    "examples": EVERYTHING,
    "examples/frameworks": EVERYTHING,
}  # fmt: skip
CIRCLES: list[set[str]] = [
]  # fmt: skip
"""Circles of imports that are known: none is the aim."""

NO_TORCH = (
    "errors",
    "limits",
    "keys",
    "keyarrays",
    "recipe",
    "vectors",
    "tensorfile",
    "disk",
    "store",
    "corpora",
)
FLAIR_USERS = ("encoders/flair/", "integrations/flair", "examples/")  # beginnings of paths
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.save", "numpy.load", "np.load"}


def module_id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    """Return the folder a module lies in; of a module at the top, its own name."""
    folder = path.parent.relative_to(PACKAGE).as_posix()
    return path.stem if folder == "." else folder


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


def imported_modules(path: Path) -> set[Path]:
    """Return the modules of featurestore a file imports at any depth, lazily and for types included."""
    modules = set()
    for name in imported_names(path):
        while name and name not in NAMES and f"{name}.__init__" not in NAMES:
            name = name.rpartition(".")[0]
        if name:
            modules.add(NAMES[name] if name in NAMES else NAMES[f"{name}.__init__"])
    return modules - {path}


def imported_rooms(path: Path) -> set[str]:
    return {room_of(module) for module in imported_modules(path)} - {room_of(path)}


def top_level_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)}


def circles(imports: dict[Path, set[Path]]) -> Iterator[set[Path]]:
    """Yield the sets of modules that import each other, directly or through others (Tarjan 1972)."""
    order: dict[Path, int] = {}
    lowest: dict[Path, int] = {}
    stack: list[Path] = []

    def visit(module: Path) -> Iterator[set[Path]]:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in sorted(imports[module]):
            if other not in order:
                yield from visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            found = set(stack[stack.index(module) :])
            del stack[stack.index(module) :]
            if len(found) > 1:
                yield found

    for module in imports:
        if module not in order:
            yield from visit(module)


every_module = pytest.mark.parametrize("path", MODULES, ids=module_id)


@every_module
def test_imports_follow_the_arrows(path):
    room = room_of(path)
    assert room in ARROWS, f"{room} is a new room of the package: say here what it may import"
    allowed = ARROWS[room]
    if allowed is not EVERYTHING:
        assert imported_rooms(path) <= allowed


def test_no_arrow_is_left_over():
    used: dict[str, set[str]] = {}
    for path in MODULES:
        used.setdefault(room_of(path), set()).update(imported_rooms(path))
    assert set(ARROWS) == set(used)
    unused = {
        room: allowed - used[room] - LEAVES for room, allowed in ARROWS.items() if allowed is not EVERYTHING
    }
    assert {room: rooms for room, rooms in unused.items() if rooms} == {}


def test_no_modules_import_each_other():
    found = circles({path: imported_modules(path) for path in MODULES})
    names = [{module_id(path) for path in circle} for circle in found]
    assert sorted(names, key=min) == sorted(CIRCLES, key=min)


def test_nothing_but_the_command_line_imports_it():
    for path in MODULES:
        if room_of(path).split("/")[0] not in ("cli", "__main__"):
            assert not any(room.split("/")[0] == "cli" for room in imported_rooms(path)), path


@every_module
def test_heavy_packages_stay_where_they_belong(path):
    packages = top_level_packages(path)
    if room_of(path).split("/")[0] in NO_TORCH:
        assert "torch" not in packages
    if room_of(path).split("/")[0] == "corpora":
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
    assert len(source.splitlines()) <= MAX_LINES, f"{path} has become two modules"


def test_a_room_has_a_dozen_files_at_most():
    counts: dict[str, int] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            folder = path.parent.relative_to(PACKAGE).as_posix()
            counts[folder] = counts.get(folder, 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MAX_FILES} == {}


def test_only_the_filesystem_module_writes_to_a_store():
    writing = {"link", "rename", "replace", "unlink", "remove", "fsync", "mkdir", "write_bytes", "write_text"}
    for path in (path for path in MODULES if room_of(path).split("/")[0] in ("store", "disk")):
        calls = {
            ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        }  # fmt: skip
        direct = {call for call in calls if call.split(".")[-1] in writing and "filesystem." not in call}
        if path.name != "filesystem.py":
            assert not direct, f"{path.name} writes past FileSystem: {direct}"


def test_files_are_put_in_place_by_the_disk_alone():
    """Everywhere else, whole files go through disk/atomic; only a download keeps a part to be resumed."""
    past_it = {"os.replace", "os.rename", "os.renames", "os.link", "os.fsync", "shutil.move"}
    methods = {"write_text", "write_bytes", "rename"}
    for path in (path for path in MODULES if room_of(path) != "disk"):
        called = {
            ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
        }
        found = {call for call in called if call in past_it or call.split(".")[-1] in methods}
        allowed = (
            {"self._notes.write_text"} if module_id(path) == "encoders/elmo/files/download.py" else set()
        )
        assert found <= allowed, f"{path} writes past disk/: {found}"
