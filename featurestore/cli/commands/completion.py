"""``completion``: the script that makes a shell complete commands, options and their values."""

from __future__ import annotations

import click

from featurestore.cli.completing import SHELLS, script


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes a shell complete featurestore.

    It completes commands, options, their values and the names of files. In bash, write
    eval "$(featurestore completion bash)" into ~/.bashrc; zsh likewise into ~/.zshrc, behind compinit; for
    fish save it as ~/.config/fish/completions/featurestore.fish. bin/setup does it for its environment.
    """
    click.echo(script(shell, context.find_root().command), nl=False)
