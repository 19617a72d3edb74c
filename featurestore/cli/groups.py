"""Groups of commands that say which command was meant when there is none of that name."""

from __future__ import annotations

import click

_OTHER_WORDS = {
    "encode": "extract", "embed": "extract", "add": "extract", "create": "extract", "estimate": "plan",
    "fit": "train", "eval": "evaluate", "score": "evaluate", "test": "evaluate", "tag": "predict",
    "label": "predict", "classify": "predict", "list": "ls", "search": "ls", "find": "ls", "get": "show",
    "inspect": "info", "status": "info", "describe": "info", "check": "verify", "validate": "verify",
    "fix": "repair", "clean": "gc", "prune": "gc", "explain": "why", "ner": "tagger", "pos": "tagger",
    "sentiment": "classifier",
}  # fmt: skip
"""What people type who know other tools."""


class SuggestingGroup(click.Group):
    """A click group whose errors suggest a command, or say where options go."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; fail with a suggestion."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            word = name.casefold()
            from difflib import get_close_matches  # only where somebody mistyped

            near = [_OTHER_WORDS[word]] if _OTHER_WORDS.get(word) in known else get_close_matches(word, known)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group; of an option that is a command's, say where it goes."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = "" if error.possibilities else " Options of a command follow its name."
            raise click.UsageError(f"{error.format_message()}{hint}", ctx) from error
