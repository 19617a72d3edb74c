"""The ``featurestore`` command: finds the subcommand, turns errors into one message and an exit code.

Subcommand modules are imported only when they run, so that ``featurestore --help`` starts at once.
"""

from __future__ import annotations

import importlib
import keyword
import os
import sys
from collections.abc import Sequence

import click

from featurestore._version import __version__
from featurestore.cli.completing import VARIABLE, register
from featurestore.cli.display.streams import Unread, ending_when_unread, prepare_streams
from featurestore.cli.epilogs import epilog
from featurestore.cli.groups import SuggestingGroup
from featurestore.cli.project.command import config_options
from featurestore.errors import FeaturestoreError

_C = "featurestore.cli.commands"
# command -> (module, one line of help), in the sections and the order of the help. The help stands here so
# that listing commands imports none of them.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Fill a store": {
        "extract": (f"{_C}.extract", "Encode corpora into a store; resumes where it stopped."),
        "plan": (f"{_C}.extract", "Say what extract would do: sentences, bytes, time."),
        "pretrain": (f"{_C}.pretrain", "Train an ELMo of your own on text; resumes."),
        "check-encoder": (f"{_C}.check_encoder", "Check an encoder of your own against extract's rules."),
        "warm-up": (f"{_C}.warm_up", "Make the fixed state in which a model starts each sentence."),
    },
    "Train on it": {
        "train": (f"{_C}.train", "Train a light tagger or classifier on stored vectors."),
        "evaluate": (f"{_C}.evaluate", "Score a trained model on a labelled corpus."),
        "predict": (f"{_C}.predict", "Label a corpus with a trained model."),
    },
    "Look inside": {
        "info": (f"{_C}.seeing.inspect", "Show a store's recipe, counts, bytes and commits."),
        "ls": (f"{_C}.seeing.inspect", "List stored sentences, or those that contain a text."),
        "show": (f"{_C}.seeing.inspect", "Show one sentence: its tokens, its vectors, where it lies."),
        "stats": (f"{_C}.seeing.inspect", "Show the distributions of lengths and vector norms."),
        "why": (f"{_C}.seeing.why", "Say whether a sentence is cached, and if not, why."),
        "report": (f"{_C}.seeing.report", "Make a page of a store: contents, health, vectors, words."),
        "diff": (f"{_C}.seeing.diff", "Say what corpora lack in a store, and what no corpus uses."),
        "compare": (f"{_C}.seeing.compare", "Compare the vectors of two stores, token by token."),
        "neighbors": (f"{_C}.seeing.neighbors", "Find the tokens whose vectors are nearest to one token's."),
    },
    "Make stores of it": {
        "subset": (f"{_C}.keeping.reshape", "Make a store of some sentences of another."),
        "copy": (f"{_C}.keeping.reshape", "Copy a store, each shard checked on the way."),
        "recode": (f"{_C}.keeping.reshape", "Make a store of the same sentences in another codec."),
        "layers": (
            f"{_C}.keeping.reshape",
            "Make a store of some layers of a store, or of their average.",
        ),
        "remove": (f"{_C}.keeping.reshape", "Make a snapshot without some sentences."),
        "compact": (f"{_C}.keeping.reshape", "Join small shards to full ones."),
    },
    "Carry it out, bring it in": {
        "export": (f"{_C}.keeping.exchange", "Write vectors, tokens and labels as Parquet, npy and others."),
        "import": (f"{_C}.keeping.bringing", "Make a store of vectors that another tool wrote."),
    },
    "Keep it sound": {
        "verify": (f"{_C}.keeping.verify", "Check every stored byte; name what is damaged."),
        "repair": (f"{_C}.keeping.maintain", "Quarantine damaged files; say what to extract again."),
        "gc": (f"{_C}.keeping.maintain", "Remove old snapshots and unreferenced files."),
        "upgrade": (f"{_C}.keeping.upgrade", "Go on in the newest version of the format."),
        "forget": (f"{_C}.keeping.maintain", "Forget what was found when datasets were opened."),
        "merge": (f"{_C}.keeping.maintain", "Add stores of one recipe, filled elsewhere, to another."),
    },
    "At the keyboard": {
        "completion": (f"{_C}.completion", "Print a script that completes commands in bash, zsh or fish."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

# What these print is all they do, and it may be long: they end when nobody reads it (``ls STORE | head``).
# All others go on, and end with the exit code of what they did.
_END_WHEN_UNREAD = frozenset({"ls", "predict"})

EXIT_CODES = """\b
Exit codes:
  0    done
  1    a problem was found (the message says which)
  2    wrong usage, or the path is no store (or a URL)
  3    the store is damaged
  4    the recipe is not the store's, or the vectors differ though it is
  130  interrupted (Ctrl-C), 143 terminated; what was done is committed"""


class _LazyGroup(SuggestingGroup):
    """A group whose commands are imported when they are first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        function = cmd_name.replace("-", "_") + "_" * keyword.iskeyword(cmd_name)
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), function)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        command.epilog = epilog(cmd_name)
        for name, below in getattr(command, "commands", {}).items():
            below.epilog = epilog(f"{cmd_name} {name}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", text) for name, (_, text) in commands.items()])


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"featurestore {__version__}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    params=[*config_options(hidden=False)],
    epilog=f"{epilog('')}\n\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option("-v", "--verbose", count=True, help="Log more (-vv for everything).")
@click.pass_context
def cli(context: click.Context, verbose: int) -> None:
    """Contextual embeddings computed once, stored in sharded HDF5, streamed into PyTorch.

    `featurestore COMMAND -h` explains each command and its options.
    """
    import logging

    if context.invoked_subcommand in _END_WHEN_UNREAD:
        context.with_resource(ending_when_unread())
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its documented code."""
    prepare_streams()
    if VARIABLE in os.environ:
        register()
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments), complete_var=VARIABLE, standalone_mode=False
        )
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except Unread:
        code = 0
    except click.Abort:
        click.echo("interrupted", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FeaturestoreError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        import logging

        logging.getLogger(__name__).debug("where it happened", exc_info=True)
        place = "" if error.filename is None else f"{error.filename}: "
        click.echo(f"error: {place}{error.strerror or error}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
