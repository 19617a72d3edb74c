"""The user's folder of published models: what lies where, and that a file stays the file it was."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from featurestore.disk.atomic import write_atomic
from featurestore.disk.hashes import file_sha256
from featurestore.disk.places import cache_folder
from featurestore.encoders.elmo.files.catalog import BASE_URL, PublishedSource
from featurestore.encoders.elmo.files.download import download
from featurestore.errors import DownloadError, EncoderError, StoreWriteError


@dataclass(frozen=True)
class CachedModel:
    """The files of a published model on this machine.

    Attributes
    ----------
    options, weights : Path
    source : PublishedSource
    """

    options: Path
    weights: Path
    source: PublishedSource

    def confirm_weights(self, found: str) -> None:
        """Check the hash of the weights as they were read; see :func:`fetch_published`.

        Raises
        ------
        DownloadError
            If they are not the weights that are pinned or recorded.
        """
        _confirm(self.weights, found, _pinned_weights(self.source))


def fetch_published(source: PublishedSource) -> CachedModel:
    """Return the files of a published model, downloading what is not there yet.

    A file's hash is checked against, in this order: the one in the specification
    (``elmo:medium#sha256=...``), the one in the catalog, the one recorded beside the file (``NAME.sha256``)
    when it first came. Weights that are already here are checked as they are read
    (:meth:`CachedModel.confirm_weights`), so that nothing is read twice.
    ``FEATURESTORE_ELMO_BASE_URL`` names a mirror; with ``FEATURESTORE_OFFLINE=1`` nothing is fetched.

    Raises
    ------
    DownloadError
        If a file cannot be fetched, or is not the one it should be.
    """
    base = os.environ.get("FEATURESTORE_ELMO_BASE_URL") or BASE_URL
    files = published_places(source)

    def fetch(relative: str, path: Path, pinned: str | None) -> None:
        url = f"{base.rstrip('/')}/{relative}"
        if path.exists():
            return
        if os.environ.get("FEATURESTORE_OFFLINE", "0") not in ("", "0"):
            raise DownloadError(
                f"{path} is not here and FEATURESTORE_OFFLINE forbids fetching it: download {url} on another "
                f"machine and put it at {path}, or unset FEATURESTORE_OFFLINE"
            )
        recorded = _recorded(path)
        expectation = (
            "the pinned hash" if pinned else f"the hash of the first download, in {_record_of(path)},"
        )
        digest = download(url, path, sha256=pinned or recorded, expectation=expectation)
        if digest:
            _confirm(path, digest, pinned)

    fetch(source.model.options_path, files.options, None)
    _confirm(files.options, file_sha256(files.options), None)
    fetch(source.model.weights_path, files.weights, _pinned_weights(source))
    return files


def cached_files(source: PublishedSource) -> CachedModel:
    """Return the files of a published model that is here already.

    Raises
    ------
    EncoderError
        If one is not.
    """
    files = published_places(source)
    for path in (files.options, files.weights):
        if not path.exists():
            raise EncoderError(f"{path} is not here: load {source.spec} once to fetch it")
    return files


def recorded_sha256(files: CachedModel) -> str | None:
    """Return the hash that the weights must have: pinned, or recorded at the download; None if neither."""
    return _pinned_weights(files.source) or _recorded(files.weights)


def published_places(source: PublishedSource) -> CachedModel:
    """Return where the files of a published model belong, whether they are there or not."""
    folder = cache_folder() / "elmo" / source.model.name
    relative_paths = (source.model.options_path, source.model.weights_path)
    options, weights = (folder / relative.rsplit("/", 1)[-1] for relative in relative_paths)
    return CachedModel(options, weights, source)


def _pinned_weights(source: PublishedSource) -> str | None:
    return source.pinned_sha256 or source.model.weights_sha256


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _recorded(path: Path) -> str | None:
    """Return the hash recorded when the file first came, if any (``sha256sum`` reads these files too)."""
    record = _record_of(path)
    try:
        text = record.read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DownloadError(
            f"cannot read {record} ({error.strerror}): make it readable or delete it"
        ) from error
    if not text or len(text[0]) != 64:
        raise DownloadError(
            f"{record} should begin with a SHA-256 in hexadecimal, found {text[:1]}: delete it"
        )
    return text[0].lower()


def _confirm(path: Path, found: str, pinned: str | None) -> None:
    """Compare a file's hash with what is pinned or recorded; record it the first time."""
    expected = pinned or _recorded(path)
    if expected is None:
        record = _record_of(path)
        try:
            write_atomic(record, f"{found}  {path.name}\n".encode())
        except StoreWriteError as error:
            raise DownloadError(
                f"cannot write {record} ({error.reason}): name a writable folder by FEATURESTORE_CACHE"
            ) from error
    elif expected != found:
        origin = "pinned" if pinned else f"recorded in {_record_of(path)}"
        raise DownloadError(
            f"{path} is not the file it should be: SHA-256 {expected} is {origin}, found {found}. "
            f"Delete {path} to fetch it again"
            + ("" if pinned else ", and the record too if you accept another file")
        )
