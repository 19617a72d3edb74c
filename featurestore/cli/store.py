"""What commands that look into a store share: its argument, how it is opened, how tokens are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.flags import options

if TYPE_CHECKING:
    from featurestore.store.store import Store

store_argument = options(
    click.argument("store", type=click.Path(path_type=Path)),
    click.option(
        "--snapshot", type=click.IntRange(1), metavar="N", help="Read commit N instead of the latest."
    ),
)

tokens_option = click.option(
    "--tokens", "as_tokens", is_flag=True,
    help="TEXT is a JSON list of tokens (for tokens that contain spaces).",
)  # fmt: skip


def open_store(path: Path, snapshot: int | None) -> Store:
    """Open a store at its latest commit, or at an earlier one."""
    from featurestore.store.store import Store

    return Store.open(path, snapshot=snapshot)
