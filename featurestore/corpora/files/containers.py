"""Files that hold text in a form that is not read here or under another format, and what to do with each."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 512
"""How many of its first bytes tell such a file."""

_GIVE = "give --format {0} (in Python format={0!r}), uncompressed"


@dataclass(frozen=True, slots=True)
class _Container:
    what: str
    extensions: tuple[str, ...]
    remedy: str
    magic: re.Pattern[bytes] | None = None


_UNPACK = "unpack it and give the files in it"
_AS_LINES = "write it as JSON Lines, one object per line with tokens and labels"
_CONTAINERS = (
    _Container("a tar archive", (".tar", ".tgz", ".tbz2", ".txz"), _UNPACK + ": `tar -xf FILE`",
               re.compile(rb"(?=.{0,256}\0).{257}ustar", re.DOTALL)),
    _Container("a spreadsheet", (".xlsx", ".xls", ".ods"), "save the sheet as CSV in UTF-8"),
    _Container("a document", (".docx", ".doc", ".odt", ".rtf", ".pdf", ".epub"),
               "save its text in UTF-8, one sentence per line, as .txt",
               re.compile(rb"%PDF-[0-9]|\{\\rtf[0-9]")),
    _Container("an office file of the old kind", (), "save it as CSV or as text in UTF-8",
               re.compile(rb"\xd0\xcf\x11\xe0")),
    _Container("a zip archive (.xlsx and .docx are such)", (".zip",),
               _UNPACK + ": `unzip FILE`; or save the sheet as CSV", re.compile(rb"PK\x03\x04")),
    _Container("a 7-Zip or RAR archive", (".7z", ".rar"), _UNPACK,
               re.compile(rb"7z\xbc\xaf|Rar!\x1a")),
    _Container("Parquet", (), _GIVE.format("parquet"), re.compile(rb"PAR1[\x00-\x1f]")),
    _Container("Arrow", (), _GIVE.format("arrow"), re.compile(rb"ARROW1\0")),
    _Container("HDF5", (".h5", ".hdf5"), "give the corpus that it was made of", re.compile(rb"\x89HDF\r\n")),
    _Container("SQLite", (".db", ".sqlite", ".sqlite3"), "write the sentences as CSV or JSON Lines",
               re.compile(rb"SQLite format 3\0")),
    _Container("a pickle", (".pkl", ".pickle", ".joblib"), "reading one can run code: " + _AS_LINES),
    _Container("a NumPy file", (".npy", ".npz"), _AS_LINES, re.compile(rb"\x93NUMPY")),
    _Container("JSON", (".json",),
               "if each line is an object, give --format jsonl (in Python format='jsonl'); a list of objects "
               "becomes that by `jq -c '.[]' FILE > OUT.jsonl`"),
    _Container("markup", (".xml", ".html", ".htm", ".tei"), "save its text, one sentence per line, as .txt"),
)  # fmt: skip


def advice_by_name(name: str) -> str | None:
    """Return what a file that is not read is by its name, and what to do; None if the name tells nothing."""
    return next((_advice(c) for c in _CONTAINERS if name.lower().endswith(c.extensions)), None)


def advice_by_content(head: bytes) -> str | None:
    """Return the same by the first bytes of a file, uncompressed; None if they may be text."""
    return next((_advice(c) for c in _CONTAINERS if c.magic is not None and c.magic.match(head)), None)


def _advice(container: _Container) -> str:
    is_read = container.remedy.startswith("give --format")
    return f"is {container.what}, which is {'no text' if is_read else 'not read'}: {container.remedy}"
