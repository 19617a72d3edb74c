"""The command line itself: help, version, exit codes, and one message for every error."""

from __future__ import annotations

import shlex
import subprocess
import sys

import click
import pytest

import featurestore
from featurestore.cli.display.render import count, duration, facts, printable, size, table
from featurestore.cli.epilogs import EXAMPLES
from featurestore.cli.main import COMMANDS, cli, main
from featurestore.cli.options import parse_size
from featurestore.errors import FeaturestoreError, UsageError


def run_featurestore(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "featurestore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


def test_help_lists_every_command_and_exit_code(capsys):
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert name in out
        assert text in out
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130 "):
        assert f"\n    {code}" in out


def test_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"featurestore {featurestore.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(capsys, name):
    assert exit_code(name, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: ")
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"


@pytest.mark.parametrize(
    "arguments",
    [["unknown"], ["info"], ["info", "--unknown", "x"], ["ls", "x", "--limit", "many"], ["--unknown"]],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_says_how(capsys, arguments):
    assert exit_code(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: " in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["extrac"], "No such command 'extrac'. Did you mean 'extract'?"),
        (["Verify", "x"], "Did you mean 'verify'?"),
        (["encode", "x"], "Did you mean 'extract'?"),
        (["list", "x"], "Did you mean 'ls'?"),
        (["train", "taggr"], "Did you mean 'tagger'?"),
        (["--store", "x", "extract"], "Options of a command follow its name."),
        (["--versoin"], "--version"),
        (["extract", "x", "--codek", "int8"], "--codec"),
        (["xyzzy"], "No such command 'xyzzy'.\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_mistyped_is_told_what_was_meant(capsys, arguments, hint):
    assert exit_code(*arguments) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_ends_with_examples_that_can_be_typed(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code(*name.split(), "-h") == 0
    out = capsys.readouterr().out
    assert len(max(out.splitlines(), key=len)) <= 80
    assert set(COMMANDS) | {""} <= set(EXAMPLES)
    for example in EXAMPLES[name]:
        for line in example.split("\n"):
            assert f"\n    {line}\n" in out
        words = [word for word in shlex.split(example) if word != "-h"]
        words = words[words.index("featurestore") + 1 :]
        command: click.Command | None = cli
        names = ["-h", "--help"]  # which a command keeps, from its first context on
        while isinstance(command, click.Group):
            word = words.pop(0)
            command = command.get_command(click.Context(command, help_option_names=names), word)
            assert command is not None, word
        command.make_parser(click.Context(command, help_option_names=names)).parse_args(words)


def test_error_is_one_message_without_a_traceback(tmp_path):
    done = run_featurestore("info", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no store at")
    assert "Traceback" not in done.stderr


def test_a_failing_file_system_is_one_message_without_a_traceback(tmp_path):
    name = "x" * 300
    for arguments in (
        ("info", str(tmp_path / name)),
        ("evaluate", str(tmp_path / name), "-", "--store", "s"),
    ):
        done = run_featurestore(*arguments)
        assert done.returncode in (1, 2), arguments
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr


def test_exit_codes_of_errors_are_the_documented_ones():
    def tree(kind: type[FeaturestoreError]) -> list[type[FeaturestoreError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]

    codes = {kind.__name__: kind.exit_code for kind in tree(FeaturestoreError) if kind.exit_code != 1}
    assert codes == {
        "UsageError": 2,
        "UnknownEncoderError": 2,
        "NotReadBackError": 2,
        "StateError": 2,
        "NotAStoreError": 2,
        "DamagedStoreError": 3,
        "RecipeMismatchError": 4,
        "DriftError": 4,
    }


def test_error_tree_in_the_docstring_is_complete():
    import featurestore.errors as errors

    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type)]
    kinds = [name for name in kinds if issubclass(getattr(errors, name), FeaturestoreError)]
    for name in kinds:
        assert f" {name} " in errors.__doc__, f"{name} is not in the tree"


# -- how things are shown


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2 * 10**15, "2,000.0 TB")],
)
def test_size(n_bytes, text):
    assert size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (12.4, "12 s"), (250, "4 min 10 s"), (7265, "2 h 1 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_count_agrees_with_its_noun():
    assert [count(n, "shard") for n in (0, 1, 1200)] == ["0 shards", "1 shard", "1,200 shards"]


def test_printable_escapes_what_a_terminal_would_obey():
    assert printable("naïve 😀") == "naïve 😀"
    assert printable("a\x1b[31m\n\ud800\u202e") == r"a\x1b[31m\n\ud800\u202e"


def test_facts_are_aligned_over_several_lines():
    assert facts([("a", "1"), ("long", "2\n3")]) == "a     1\nlong  2\n      3"


def test_table_aligns_names_left_and_numbers_right():
    assert table(["name", "n"], [["a", "10"], ["bcdef", "7"]]) == "name    n\na      10\nbcdef   7"


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("64", 64),
        ("64MiB", 64 << 20),
        ("64M", 64 << 20),
        ("500 MB", 500_000_000),
        ("1.5kB", 1500),
        ("2g", 2 << 30),
    ],
)
def test_sizes_are_read(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "MB", "64 apples", "-1", "0", "nan", "inf", "1e999", "1..5"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError):
        parse_size(text)
