"""Progress of an extraction: what the runner reports, and a bar that shows it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

_MOST_SPEEDS = 8
"""Actors whose speeds are shown one by one."""


class Progress:
    """Receives what happens during an extraction, from several threads; this one shows nothing."""

    def planned(self, path: str, n_sentences: int) -> None:
        """The plan has read ``n_sentences`` in all, the last of them from ``path``."""

    def started(self, n_tokens: int, share_cached: float) -> None:
        """Encoding of ``n_tokens`` begins; ``share_cached`` of the distinct sentences are stored already."""

    def encoded(self, n_tokens: int) -> None:
        """``n_tokens`` more are encoded; negative where progress within a batch gives way to its end."""

    def committed(self, n_sentences: int, n_tokens: int) -> None:
        """A shard of ``n_sentences`` is committed."""

    def notice(self, message: str) -> None:
        """The user should know of something that happened, such as a batch that did not fit into memory."""

    def speeds(self, tokens_per_second: Mapping[str, float]) -> None:
        """On a cluster, now and then: how fast each actor is."""

    def finished(self) -> None:
        """Encoding has ended, in whatever way."""


def speeds_text(tokens_per_second: Mapping[str, float]) -> str:
    """Return tokens per second by actor; of many the number, the slowest and the fastest."""
    found = tokens_per_second
    if len(found) > _MOST_SPEEDS:
        return f"{len(found)} actors of {min(found.values()):,.0f} to {max(found.values()):,.0f} tokens/s"
    return ", ".join(f"{name}: {speed:,.0f}/s" for name, speed in found.items())


class BarProgress(Progress):
    """A tqdm bar on standard error: tokens, tokens per second, time left, share cached."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def started(self, n_tokens: int, share_cached: float) -> None:
        """Show the bar."""
        self._bar = tqdm(
            total=n_tokens,
            unit=" tokens",
            unit_scale=True,
            smoothing=0.1,
            dynamic_ncols=True,
            desc="encoding",
            postfix=f"{share_cached:.0%} cached" if share_cached else None,
        )

    def encoded(self, n_tokens: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(n_tokens)

    def speeds(self, tokens_per_second: Mapping[str, float]) -> None:
        """Show them behind the bar; of many actors the slowest and the fastest."""
        if self._bar is not None:
            self._bar.set_postfix_str(speeds_text(tokens_per_second), refresh=False)

    def notice(self, message: str) -> None:
        """Show a message above the bar."""
        tqdm.write(message, file=sys.stderr)

    def finished(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
