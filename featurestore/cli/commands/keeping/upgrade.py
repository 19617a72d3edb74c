"""``upgrade``: a store in the newest version of the format. Loads no torch."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.display import render
from featurestore.cli.flags import json_option
from featurestore.cli.project.command import command
from featurestore.cli.selecting import store_argument


@command()
@store_argument
@json_option
def upgrade(store: Path, as_json: bool) -> None:
    """Go on in the newest version of the format; older versions of featurestore then refuse the store.

    One commit; no shard is read or written. Version 2 writes what a commit adds, version 1 the list of all
    shards. A store never changes its version by itself: upgrade it when everybody who uses it has a
    featurestore that reads the new one.
    """
    from featurestore.store.store import Store
    from featurestore.store.upgrading import upgrade as upgrade_store

    opened = Store.open(store)
    before = opened.manifest.version
    after = upgrade_store(opened)
    version = after.manifest.version
    if as_json:
        render.echo_json(
            {
                "store": str(store),
                "format_version_before": before,
                "format_version": version,
                "snapshot": after.snapshot,
            }
        )
    elif version == before:
        click.echo(f"{store} has version {version} of the format already, the newest there is")
    else:
        since = f"from snapshot {after.snapshot} on"
        click.echo(f"{store} has version {version} of the format, {since}; it had {before}")
