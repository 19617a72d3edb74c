"""Files of one JSON object a line that survive a run killed while it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole objects of a file, none if it is not there."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # a run was killed while it wrote


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add an object, on a line of its own also after a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(row) + "\n")
