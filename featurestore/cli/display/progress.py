"""Progress of an extraction as plain lines, for logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import click

from featurestore.cli.display import render
from featurestore.extraction.progress import Progress, speeds_text

_SECONDS_BETWEEN_LINES = 10.0


class LineProgress(Progress):
    """Writes a line to standard error every ten seconds, and one per commit."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._speeds: Mapping[str, float] = {}
        self._started = self._shown = time.monotonic()

    def started(self, n_tokens: int, share_cached: float) -> None:
        """Say how much there is to do."""
        self._total, self._started = n_tokens, time.monotonic()
        cached = f", {share_cached:.0%} of the sentences are cached" if share_cached else ""
        click.echo(f"encoding {render.count(n_tokens, 'token')}{cached}", err=True)

    def encoded(self, n_tokens: int) -> None:
        """Count, and say so now and then."""
        self._done += n_tokens
        now = time.monotonic()
        if now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        beside = f" ({speeds_text(self._speeds)})" if self._speeds else ""
        speed = self._done / max(now - self._started, 1e-9)
        left = render.duration(max(0, self._total - self._done) / speed)
        click.echo(
            f"encoded {self._done:,} of {self._total:,} tokens ({self._done / max(1, self._total):.0%}), "
            f"{speed:,.0f} tokens/s{beside}, {left} left",
            err=True,
        )

    def committed(self, n_sentences: int, n_tokens: int) -> None:
        """Say what is safe."""
        if n_sentences:
            click.echo(
                f"committed {render.count(n_sentences, 'sentence')} ({render.count(n_tokens, 'token')})",
                err=True,
            )

    def speeds(self, tokens_per_second: Mapping[str, float]) -> None:
        """Keep them for the next line."""
        self._speeds = dict(tokens_per_second)

    def notice(self, message: str) -> None:
        """Pass a message on."""
        click.echo(message, err=True)
