"""Lines of the package that the tests reach, by room; bin/check --coverage runs it.

python -m tests.bench.coverage_by_room                 a line per room
python -m tests.bench.coverage_by_room store dataset   and the lines of these rooms that were not reached
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import coverage

from tests.kit.places import ROOT

PACKAGE = ROOT / "featurestore"


def unreached(measured: coverage.Coverage, path: Path) -> tuple[int, list[int], str]:
    """Return a file's number of lines, those that were not reached, and these as text (``7-9, 12``)."""
    _, lines, _, missing, text = measured.analysis2(str(path))
    return len(lines), missing, text


def main(rooms: list[str]) -> None:
    measured = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
    measured.load()
    n_lines: dict[str, int] = defaultdict(int)
    n_missing: dict[str, int] = defaultdict(int)
    places = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.parent.relative_to(PACKAGE).as_posix()
        n, missing, text = unreached(measured, path)
        for name in (room, "everything"):
            n_lines[name] += n
            n_missing[name] += len(missing)
        if missing and any(room == wanted or room.startswith(f"{wanted}/") for wanted in rooms):
            places.append(f"{path.relative_to(ROOT)}: {text}")
    print(f"{'room':22} {'lines':>6} {'unreached':>9}  reached")
    for room, n in n_lines.items():
        print(f"{room:22} {n:6} {n_missing[room]:9} {1 - n_missing[room] / max(1, n):8.1%}")
    print("\n".join(["", *places]) if places else "", end="\n" if places else "")


if __name__ == "__main__":
    main(sys.argv[1:])
