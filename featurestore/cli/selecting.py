"""What commands that make stores or files of a store share: which sentences are meant, the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.completing import files
from featurestore.cli.flags import options, seed_option
from featurestore.cli.options import Reading
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.store.maintenance.selection import Selection
    from featurestore.store.store import Store

_KEY_DIGITS = 32

store_argument = click.argument("store", type=click.Path(path_type=Path))
selection_options = options(
    click.option("--corpus", "corpora", multiple=True, metavar="FILE", shell_complete=files,
                 help="The sentences of a corpus; may be given several times."),
    click.option("--keys", "key_files", multiple=True, metavar="FILE", shell_complete=files,
                 help="The sentences with these keys: one at the beginning of each line, as ls prints them; "
                 "- is standard input."),
    click.option("--text", metavar="PATTERN",
                 help="Of those, the sentences in whose tokens, joined by spaces, this regular expression "
                 "is found."),
    click.option("--sample", type=click.IntRange(1), metavar="N", help="Of those, N drawn at random."),
    seed_option(),
)  # fmt: skip


def _keys_of_corpora(paths: tuple[str, ...], reading: Reading) -> Iterator[bytes]:
    from featurestore.keys import sentence_key

    for path in paths:
        for example in reading.open(path):
            yield sentence_key(example.tokens)


def _keys_of_files(paths: tuple[str, ...]) -> Iterator[bytes]:
    for path in paths:
        try:
            with click.open_file(path, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    digits = line.split()[0]
                    try:
                        if len(digits) != _KEY_DIGITS:
                            raise ValueError
                        yield bytes.fromhex(digits)
                    except ValueError as error:
                        raise UsageError(
                            f"{path}, line {number}: {digits[:40]!r} is no key: expected {_KEY_DIGITS} "
                            "hexadecimal digits at the beginning of the line, as ls prints them"
                        ) from error
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise UsageError(f"{path} cannot be read: {reason}") from error


@dataclass(frozen=True)
class Asked:
    """The values of the options that select sentences."""

    corpora: tuple[str, ...]
    key_files: tuple[str, ...]
    text: str | None
    sample: int | None
    seed: int

    @property
    def any(self) -> bool:
        """Whether a selection was asked for."""
        return bool(self.corpora or self.key_files) or self.text is not None or self.sample is not None

    def of(self, store: Store, reading: Reading, besides: tuple[str, ...] = ()) -> Selection:
        """Return the sentences of a store that are meant, without those of some corpora."""
        from itertools import chain

        from featurestore.store.maintenance.selection import select

        keys = None
        if self.corpora or self.key_files:
            keys = chain(_keys_of_corpora(self.corpora, reading), _keys_of_files(self.key_files))
        elif not self.any:
            raise UsageError("say which sentences: --corpus FILE, --keys FILE, --text PATTERN or --sample N")
        return select(
            store,
            keys=keys,
            besides=_keys_of_corpora(besides, reading),
            text=self.text,
            sample=self.sample,
            seed=self.seed,
        )


@contextmanager
def bar(what: str, total: int | None, hidden: bool, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """Show a progress bar where standard error is a terminal; yield what moves it on."""
    from tqdm import tqdm

    off = hidden or not sys.stderr.isatty()
    with tqdm(total=total, unit=unit, unit_scale=True, desc=what, disable=off) as progress:
        yield progress.update


def opened_to_copy(store: Path) -> Store:
    """Open a store with every checksum compared."""
    from featurestore.store.store import Store

    return Store.open(store, access="pread", check="always")
