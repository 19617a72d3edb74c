"""Commands that take what they are not told from the project's file; the command line comes first."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from featurestore.cli.display.render import PROJECT

_METAVARS: dict[type[Any], str] = {
    click.IntRange: "N", click.FloatRange: "X", type(click.FLOAT): "X", type(click.INT): "N",
}  # fmt: skip
"""What help calls a number, instead of INTEGER RANGE."""

CONFIG_FILE, NO_CONFIG = "featurestore.config", "featurestore.no_config"


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        context.meta[NO_CONFIG if parameter.name == "no_config" else CONFIG_FILE] = value


def config_options(hidden: bool) -> list[click.Option]:
    """Return the options that say which project file is read, or that none is."""
    return [
        click.Option(
            ["--config", "config_file"], type=click.Path(dir_okay=False, path_type=Path), hidden=hidden,
            expose_value=False, is_eager=True, callback=_remember, metavar="FILE",
            help="The project's file.  [default: featurestore.toml, or pyproject.toml with "
            "[tool.featurestore], in this folder or above]",
        ),
        click.Option(
            ["--no-config"], is_flag=True, hidden=hidden, expose_value=False, is_eager=True,
            callback=_remember, help="Read no project file.",
        ),
    ]  # fmt: skip


class ProjectCommand(click.Command):
    """A click command whose options and arguments may stand in the project's file."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, with those that say which file is read."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if isinstance(parameter, click.Option) and parameter.metavar is None:
                parameter.metavar = _METAVARS.get(type(parameter.type))
        return [*config_options(hidden=True), *parameters]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line, filled up from the project's file."""
        if not ctx.resilient_parsing:
            args = self._filled(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = error.param.name if error.param is not None else None
            if name and ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
                raise click.BadParameter(
                    f"{error.message} ({ctx.meta[PROJECT]['file']})",
                    ctx=error.ctx, param=error.param, param_hint=error.param_hint,
                ) from error  # fmt: skip
            raise

    def _filled(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the arguments with those that the file has, and give the context its options."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        help_option = self.get_help_option(ctx)
        if help_option is not None and given.get(str(help_option.name)) is True:
            return args
        config = given.get("config_file") or ctx.meta.get(CONFIG_FILE)
        if given.get("no_config") is True or ctx.meta.get(NO_CONFIG):
            if isinstance(config, (str, Path)):
                raise click.UsageError("--config and --no-config exclude each other", ctx)
            return args
        from featurestore.cli.project import finding

        if isinstance(config, (str, Path)):
            project = finding.read_project(Path(config))
            if project is None:
                raise click.UsageError(f"{config} has no table [tool.featurestore]", ctx)
        else:
            project, note = finding.find_project()
            if note:
                click.echo(f"note: {note}", err=True)
        if project is None:
            return args
        from featurestore.cli.project import settings

        values = settings.values_for(project, _name(ctx), super().get_params(ctx), _commands(ctx))
        words, used = self._words(ctx, given, values)
        options = settings.of_options(values, super().get_params(ctx))
        ctx.default_map = {name: value for name, value in options.items() if not _is_given(given.get(name))}
        used += [
            settings.key_of(parameter)
            for parameter in super().get_params(ctx)
            if isinstance(parameter, click.Option) and parameter.name in ctx.default_map
        ]
        if used:
            ctx.meta[PROJECT] = {"file": str(project.path), "keys": used}
            click.echo(f"using {project.name}: {', '.join(used)}", err=True)
        before = words.pop("before", [])
        return [*before, *args, *words.pop("after", [])]

    def _words(
        self, ctx: click.Context, given: dict[str, Any], values: dict[str, Any]
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Return what the file adds before and after the arguments that were given, and the keys of it.

        Where fewer are given than the command takes, those that the file has are the ones left out, the first
        before the others: ``show TEXT`` needs no STORE.
        """
        wanted = [param for param in super().get_params(ctx) if isinstance(param, click.Argument)]
        if _is_given(given.get("key")):  # of show, instead of a text
            wanted = [param for param in wanted if param.required]
        n_given = sum(_is_given(given.get(str(param.name))) for param in wanted)
        absent = len(wanted) - n_given
        left_out = [param for param in wanted if param.name in values][:absent]
        words: dict[str, list[str]] = {"before": [], "after": []}
        for param in left_out:
            # Those that are given fill the places from the first that is not left out.
            before = n_given and wanted.index(param) < len(wanted) - 1
            value = values[str(param.name)]
            words["before" if before or not n_given else "after"] += (
                value if isinstance(value, list) else [value]
            )
        return words, [str(param.name) for param in left_out]


def _is_given(value: Any) -> bool:
    """Whether the parser found a value: click marks what it did not find by None, () or a sentinel."""
    return isinstance(value, (str, int, float, list, tuple)) and value != () and value != []


def _name(ctx: click.Context) -> str:
    names = []
    at: click.Context | None = ctx
    while at is not None and at.parent is not None:
        names.append(str(at.info_name))
        at = at.parent
    return " ".join(reversed(names))


def _commands(ctx: click.Context) -> list[str]:
    root = ctx.find_root().command
    return root.list_commands(ctx.find_root()) if isinstance(root, click.Group) else []


command = partial(click.command, cls=ProjectCommand)
"""``click.command`` for commands that read the project's file."""
