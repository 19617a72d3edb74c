"""setuptools, with the README as a package index shows it: there, links into the repository lead nowhere.

The package brings the files they lead to, so the page names them instead. pyproject.toml takes the page from
build/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent.parent


def index_page(text: str) -> str:
    """Return a Markdown page whose links to files of the repository are the files' names."""
    return re.sub(r"\[([^\]\n]*)\]\((?!https?:)([^)\s]+)\)", r"\1 (`\2`)", text)


def _with_page(hook: Any) -> Any:
    def build(*arguments: Any, **options: Any) -> Any:
        page = ROOT / "build" / "README.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(index_page((ROOT / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
        return hook(*arguments, **options)

    return build


build_editable = _with_page(build_meta.build_editable)
build_sdist = _with_page(build_meta.build_sdist)
build_wheel = _with_page(build_meta.build_wheel)
prepare_metadata_for_build_editable = _with_page(build_meta.prepare_metadata_for_build_editable)
prepare_metadata_for_build_wheel = _with_page(build_meta.prepare_metadata_for_build_wheel)
