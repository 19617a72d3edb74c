"""Options that need nothing of what reads corpora: commands that look into stores start without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from featurestore.cli.completing import files, words

_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(*decorators: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Return one decorator for several options, listed in the order in which help shows them."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
progress_option = click.option("--no-progress", is_flag=True, help="Show no progress bar.")
corpora_argument = click.argument(
    "corpora", nargs=-1, required=True, metavar="CORPUS...", shell_complete=files
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, ...",
    shell_complete=words("auto", "cpu", "cuda"),
)  # fmt: skip


def seed_option(what: str = "the random draw") -> Callable[[Any], Any]:
    """Return ``--seed`` for what a command draws at random."""
    return click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help=f"Seed of {what}."
    )


def sample_option(help: str, *, default: int = 2000) -> Callable[[Any], Any]:
    """Return ``--sample N``, how many sentences are drawn at random; 0 means all."""
    return click.option(
        "--sample", type=click.IntRange(0), default=default, show_default=True, metavar="N", help=help
    )


CODECS = ("float16", "float32", "int8")
encoder_words = {"layers": words("average", "top", "all"), "initial_state": words("auto", "zero", "warm")}
"""What completes options that say which vectors are meant."""
