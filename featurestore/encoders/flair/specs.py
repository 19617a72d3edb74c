"""What a specification such as ``flair:./bert?layers=-1`` asks for, text alone: nothing is loaded here.

::

    flair:PART+PART...        a stack, or one embedding if there is one part
    PART                      NAME, PATH, Class=NAME, Class=PATH or Class
                              and perhaps ?option=value&option=value

The class of a path that is named without one is found by reading the beginning of its files, which are not
loaded. ``+``, ``?`` and ``%`` in
a path are written ``%2B``, ``%3F`` and ``%25``.
"""

from __future__ import annotations

import glob
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from featurestore.errors import EncoderError, UnknownEncoderError, UsageError

_CLASS = re.compile(r"(?P<class>[A-Z]\w*)(=(?P<name>.*))?", re.DOTALL)
_CHARACTER_MODEL = re.compile(r"[a-z][\w.-]*-(forward|backward)(-fast)?", re.IGNORECASE)
_WORD_VECTORS = re.compile(
    r"((en-)?(glove|turian|extvec|pubmed|crawl|news|twitter))|[a-z]{2}(-wiki|-crawl)?", re.IGNORECASE
)
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE = b"\x80"
_HEAD_BYTES = 4 << 20
_PATH = "_path"
"""How the names of options end that take a path."""

ARCHIVE_ERRORS = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged or hostile archive raises."""

SAVED = "saved"
"""Stands for a class where a file holds an embedding as a whole, which says itself what it is."""


@dataclass(frozen=True)
class FlairSource:
    """One embedding that a specification asks for.

    Attributes
    ----------
    kind : str
        Name of a class of Flair, or :data:`SAVED`.
    name : str
        What its constructor is given first; empty for nothing.
    path : Path or None
        The same, absolute, if it is a file or folder.
    options : tuple of (str, str)
        As written.
    """

    kind: str
    name: str = ""
    path: Path | None = None
    options: tuple[tuple[str, str], ...] = field(default=())

    @property
    def text(self) -> str:
        """Its part of the full specification."""
        name = quote(str(self.path or self.name), safe="/:=@,~ ")
        if self.kind == SAVED:
            shown = name
        else:
            shown = self.kind + (f"={name}" if name else "")
        query = "&".join(f"{key}={quote(value, safe='/:,')}" for key, value in self.options)
        return shown + (f"?{query}" if query else "")

    def stamps(self) -> Iterator[tuple[str, int, int]]:
        """Return name, size and time of change of its files: if these differ, so may the embedding."""
        named = [Path(text) for name, text in self.options if name.endswith(_PATH)]
        for path in ([self.path] if self.path else []) + named:
            # A file of vectors may have parts of the same name beside it.
            files = path.iterdir() if path.is_dir() else path.parent.glob(f"{glob.escape(path.name)}*")
            for file in sorted(files):
                status = file.stat()
                yield file.name, status.st_size, status.st_mtime_ns


def parse_flair(rest: str) -> tuple[FlairSource, ...]:
    """Return what the part of a specification after ``flair:`` asks for, in its order.

    Raises
    ------
    UnknownEncoderError
        If a part names nothing.
    UsageError
        If it is malformed.
    EncoderError
        If a path is not there, or not an embedding.
    """
    return tuple(_source(part, f"flair:{rest}") for part in rest.split("+"))


def spec_of(sources: tuple[FlairSource, ...]) -> str:
    """Return the full specification: absolute paths, every class named."""
    return "flair:" + "+".join(source.text for source in sources)


def _source(part: str, spec: str) -> FlairSource:
    named, _, query = part.partition("?")
    options = tuple(
        (name, str(_absolute(text)) if name.endswith(_PATH) else text)
        for name, text in parse_qsl(query, keep_blank_values=True)
    )
    if query.count("=") != len(options) or len(dict(options)) != len(options):
        raise UsageError(f"{spec}: after ? expected option=value&option=value, each once, found ?{query}")
    if not named:
        raise UsageError(f"{spec}: expected a name or path on both sides of +; a + in a path is %2B")
    matched = _CLASS.fullmatch(named)
    if matched and (matched["name"] is not None or not Path(unquote(named)).exists()):
        kind, text = matched["class"], unquote(matched["name"] or "")
        if matched["name"] == "":
            raise UsageError(f"{spec}: expected a name or path after {kind}=")
        path = _path(text, spec) if text else None
        return FlairSource(kind, text, path, options)
    text = unquote(named)
    path = _path(text, spec)
    if path is not None:
        return FlairSource(_kind_of(path, spec), text, path, options)
    if _CHARACTER_MODEL.fullmatch(text):
        return FlairSource("FlairEmbeddings", text, None, options)
    if _WORD_VECTORS.fullmatch(text):
        return FlairSource("WordEmbeddings", text, None, options)
    raise UnknownEncoderError(
        f"{spec}: nothing lies at {text!r}, and it is no name of Flair's word vectors (glove, crawl, de, "
        "...) or character models (news-forward, ...). For a transformer by its name write "
        f"flair:TransformerWordEmbeddings={text}; a + in a path is written %2B"
    )


def _path(text: str, spec: str) -> Path | None:
    """Return an absolute path if the text is one: it exists, or its form allows nothing else."""
    path = _absolute(text)
    if path.exists():
        return path
    if text.startswith((".", "/", "~")) or text.endswith((".pt", ".bin", ".gensim")):
        raise EncoderError(f"{spec}: {path} is not here. A + in a path is written %2B, a ? %3F")
    return None


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(Path(text).expanduser()))


def _kind_of(path: Path, spec: str) -> str:
    """Return the class of the embedding that lies at a path."""
    if path.is_dir():
        if (path / "config.json").is_file():
            return "TransformerWordEmbeddings"
        raise EncoderError(f"{spec}: the folder {path} has no config.json, so it is no transformer")
    try:
        head = _head(path)
    except ARCHIVE_ERRORS as error:
        raise EncoderError(f"{spec}: cannot read {path} ({error}): is it damaged, or cut off?") from error
    if head.startswith((b"PK", _LEGACY_TORCH)):
        if b"__cls__" in head or b"flair.embeddings" in head:
            return SAVED
        if b"is_forward_lm" in head:
            return "FlairEmbeddings"
        raise EncoderError(f"{spec}: {path} is neither a LanguageModel of Flair nor a saved embedding")
    if path.suffix in (".bin", ".txt") or head.startswith(_PICKLE):
        return "WordEmbeddings"
    raise EncoderError(
        f"{spec}: {path} is nothing that Flair reads as an embedding: expected a transformer's folder, a "
        "LanguageModel (.pt), vectors in gensim's own format, or in word2vec's as .bin or .txt. Where you "
        "know better, name the class: flair:WordEmbeddings=PATH"
    )


def _head(path: Path) -> bytes:
    """Return the beginning of a file; of a torch file, of what is pickled in it, after the mark ``PK``."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(b"PK"):
        return head
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as member:
                    return b"PK" + member.read(_HEAD_BYTES)
    return head
