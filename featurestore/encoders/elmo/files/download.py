"""One file over HTTP into a folder: resumed where it stopped, checked before it appears under its name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from featurestore.disk.filesystem import LOCAL
from featurestore.disk.hashes import file_sha256
from featurestore.errors import DownloadError, StoreWriteError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 30.0
_ATTEMPTS_WITHOUT_PROGRESS = 4
_BACKOFF_SECONDS = 0.5
_RETRIED_STATUS = {408, 429, 500, 502, 503, 504}


def download(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    expectation: str = "the pinned hash",
    backoff_seconds: float = _BACKOFF_SECONDS,
) -> str:
    """Fetch a file, unless it is already there, and return its SHA-256 if it was fetched now.

    The body goes to ``NAME.part``. An interrupted transfer is resumed, by this call or a later one, only if
    the server vouches (ETag or Last-Modified) that the file is still the same. One process at a time
    downloads to a destination; others wait and then find the file.

    Parameters
    ----------
    url : str
        http or https; proxies are taken from the usual environment variables.
    destination : Path
        Appears complete and checked, or not at all.
    sha256 : str, optional
        Expected hash. Without it anything that arrives in full is accepted.
    expectation : str
        What the expected hash is, for the error message.
    backoff_seconds : float
        Pause before the second attempt; doubled before each further one without progress.

    Returns
    -------
    str
        Hash of the file fetched; an empty string if it was there before.

    Raises
    ------
    DownloadError
        Unreachable, refused, truncated time and again, not the expected file, or no room on the disk: with
        URL, path and remedy.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is no http or https address: check FEATURESTORE_ELMO_BASE_URL")
    transfer = Transfer(url, destination)
    try:
        LOCAL.make_directory(destination.parent, lasting=False)
        with _exclusive(destination):
            if destination.exists():
                return ""
            transfer.fetch(backoff_seconds)
            found = file_sha256(transfer.part)
            if sha256 is not None and found != sha256:
                transfer.discard()
                raise DownloadError(
                    f"{url} is not the file it should be: {expectation} is SHA-256 {sha256}, found {found}. "
                    f"Nothing was kept. Try again; if it stays so, the server has a different file"
                )
            transfer.publish()
            return found
    except OSError as error:
        raise _disk_error(error.errno, error.strerror or str(error), url, destination) from error
    except StoreWriteError as error:
        raise _disk_error(error.errno, error.reason, url, destination) from error


class Transfer:
    """The unfinished file, what the server said of it, and the attempts to complete it."""

    def __init__(self, url: str, destination: Path) -> None:
        self.url = url
        self.destination = destination
        self.part = destination.with_name(destination.name + ".part")
        self._notes = destination.with_name(destination.name + ".part.json")

    def fetch(self, backoff_seconds: float) -> None:
        """Complete the part file, resuming and retrying while there is progress or hope."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._attempt()
                return
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416:
                    # The part is as long as the file, or longer: it cannot be its beginning.
                    self.discard()
                elif error.code not in _RETRIED_STATUS:
                    raise DownloadError(
                        f"{self.url}: the server answers {error.code} {error.reason}. A mirror "
                        f"can be named by FEATURESTORE_ELMO_BASE_URL, or put the file at {self.destination}"
                    ) from error
                problem: Exception = error
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                problem = error
            failures = 0 if self._size() > before else failures + 1
            if failures >= _ATTEMPTS_WITHOUT_PROGRESS:
                raise DownloadError(
                    f"{self.url} cannot be fetched after {failures} attempts without progress: {problem}. "
                    f"Check the network and the proxy variables; what arrived is kept in {self.part} and "
                    f"will be resumed. Or fetch it elsewhere and put it at {self.destination}"
                ) from problem
            logger.warning("%s: %s; trying again", self.url, problem)
            time.sleep(backoff_seconds * 2 ** max(0, failures - 1))

    def publish(self) -> None:
        """Give the complete part its name."""
        LOCAL.sync(self.part)
        LOCAL.replace(self.part, self.destination)
        self._notes.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the part and what is known of it."""
        self.part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        headers = {"User-Agent": "featurestore", "Accept-Encoding": "identity"}
        validator = self._read_validator()
        n_have = self._size() if validator else 0
        if n_have:
            # If-Range: the server sends the rest only if the file is unchanged, else all of it.
            headers |= {"Range": f"bytes={n_have}-", "If-Range": validator}
        request = urllib.request.Request(self.url, headers=headers)
        # An opener of its own: urlopen would keep the proxies that were set when it was first called.
        opener = urllib.request.build_opener()
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            if response.status == 206:
                n_total = self._check_continuation(response, n_have, validator)
            else:
                n_have = 0
                length = response.headers.get("Content-Length", "")
                n_total = int(length) if length.isdigit() else None
            with self.part.open("ab" if n_have else "wb") as part:
                if not n_have:
                    self._write_validator(response)
                self._copy(response, part, n_have, n_total)
        if n_total is not None and self._size() != n_total:
            raise http.client.HTTPException(f"the transfer ended at {self._size():,} of {n_total:,} bytes")

    def _check_continuation(self, response: Any, n_have: int, validator: str) -> int | None:
        """Return the total size, or discard the part if the answer does not continue it."""
        unit_and_range, _, total = response.headers.get("Content-Range", "").partition("/")
        current = {response.headers.get("ETag"), response.headers.get("Last-Modified")} - {None}
        # A server that ignores If-Range would send the end of another file.
        if not unit_and_range.startswith(f"bytes {n_have}-") or (current and validator not in current):
            self.discard()
            raise http.client.HTTPException("the file changed on the server since the first part was fetched")
        return int(total) if total.isdigit() else None

    def _copy(self, response: Any, part: BinaryIO, n_have: int, n_total: int | None) -> None:
        bar = tqdm(
            total=n_total, initial=n_have, unit="B", unit_scale=True, desc=self.destination.name, disable=None
        )
        with bar:
            while block := response.read(_BLOCK):
                part.write(block)
                bar.update(len(block))

    def _read_validator(self) -> str:
        """Return what must be unchanged for the part to be continued; empty if it cannot be."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        same_address = isinstance(notes, dict) and notes.get("url") == self.url
        validator = notes.get("validator") if same_address else None
        return validator if isinstance(validator, str) else ""

    def _write_validator(self, response: Any) -> None:
        etag = response.headers.get("ETag") or ""
        # A weak ETag does not promise the same bytes.
        strong = etag if etag.startswith('"') else ""
        validator = strong or response.headers.get("Last-Modified") or ""
        self._notes.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")


@contextlib.contextmanager
def _exclusive(destination: Path) -> Iterator[None]:
    """Hold the download lock of a destination; the operating system frees it if we die."""
    with destination.with_name(destination.name + ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _disk_error(number: int | None, reason: str, url: str, destination: Path) -> DownloadError:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            f"no room for {url} in {destination.parent}: free some space, or name another folder by "
            "FEATURESTORE_CACHE; what arrived will be resumed"
        )
    return DownloadError(
        f"cannot write {destination} ({reason}): name a writable folder by FEATURESTORE_CACHE"
    )
