"""What a shell completes: names of files, encoders, formats; and click's scripts, bash's with whole words.

Loaded by what declares options, so that it imports nothing of weight; the lists come when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

VARIABLE = "_FEATURESTORE_COMPLETE"
"""Set by the shells' scripts when they ask for completions."""

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response type value
    # The line as it was typed: bash's own words end at every : and =, in the midst of elmo:small.
    response=$(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD="$2" \
%(complete_var)s=bash_complete "${1/#\\~/$HOME}")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the names of files and folders."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def words(*known: str) -> Completer:
    """Return what completes words that are known."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in known if word.startswith(incomplete)]

    return complete


def encoders(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete encoders by their names, and behind ``elmo:.`` folders."""
    from featurestore.encoders.elmo.files.catalog import BUNDLED_NAME, PUBLISHED

    names = [f"elmo:{name}" for name in (BUNDLED_NAME, *PUBLISHED)]
    return words(*names, "elmo:./", "flair:")(_context, _parameter, incomplete)


def formats(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the corpus formats."""
    from featurestore.corpora.formats import FORMAT_NAMES

    return words(*FORMAT_NAMES)(_context, _parameter, incomplete)


def register() -> None:
    """Tell click how bash asks, before it answers."""
    from click.shell_completion import BashComplete, add_completion_class, split_arg_string

    class Bash(BashComplete):
        """Click's, but for words that contain what bash takes for the end of one."""

        source_template = _BASH

        def get_completion_args(self) -> tuple[list[str], str]:
            line, self._current = os.environ["COMP_WORDS"], os.environ["COMP_CWORD"]
            typed = split_arg_string(line)[1:]
            if not line[-1:].isspace() and typed:
                self._incomplete = typed.pop()
            else:
                self._incomplete = ""
            return typed, self._incomplete

        def format_completion(self, item: CompletionItem[str]) -> str:
            value = item.value
            typed = self._incomplete.rpartition("=")[2] if value[:1] != "-" else self._incomplete
            if item.type == "plain" and value.startswith(typed):
                # Bash puts what it gets in the place of the part that it takes for a word.
                value = value[len(typed) - len(self._current.strip(":=")) if typed else 0 :]
            return f"{item.type},{value}"

    add_completion_class(Bash)


def script(shell: str, cli: click.Command) -> str:
    """Return the script that makes a shell complete ``featurestore``, whose command is given."""
    from click.shell_completion import get_completion_class

    register()
    found = get_completion_class(shell)
    if found is None:
        raise ValueError(f"no completion for {shell!r}: expected one of {', '.join(SHELLS)}")
    return found(cli, {}, "featurestore", VARIABLE).source()
