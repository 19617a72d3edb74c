"""Completion, asked for by the shells themselves: what stands on the line after a tab is what is run."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from featurestore.cli.commands.keeping import bringing, exchange
from featurestore.cli.main import cli
from featurestore.exchange import exporting, importing
from tests.kit.places import ROOT

SHIM = """#!/bin/bash
[ -n "$_FEATURESTORE_COMPLETE" ] || [ "$1" = completion ] && exec "{python}" -m featurestore "$@"
printf '%s\\n' "$@" > "$ANSWERS/line"
mv "$ANSWERS/line" "$ANSWERS/$(ls "$ANSWERS" | wc -l).line"
"""
"""A featurestore that completes as ours and else notes what it was called with."""

STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ['eval "$(featurestore completion bash)"']),
    "zsh": (
        ["zsh", "-f", "-i"],
        ["autoload -U compinit", "compinit -u -D", 'eval "$(featurestore completion zsh)"'],
    ),
    "fish": (["fish", "--no-config", "-i"], ["featurestore completion fish | source"]),
}

LINES = [
    ("featurestore rec\tx --codec in\t", ["recode", "x", "--codec", "int8"]),
    ("featurestore train tag\t--class-w\tbal\t", ["train", "tagger", "--class-weights", "balanced"]),
    ("featurestore export s --to all\t", ["export", "s", "--to", "allennlp-hdf5"]),
    ("featurestore extract corp\t--form\tfasta", ["extract", "corpus.txt", "--format", "fasta"]),
    ("featurestore info sto\t", ["info", "store"]),
]
IN_BASH = [
    ("featurestore extract c --encoder elmo:sm\t", ["extract", "c", "--encoder", "elmo:small"]),
    ("featurestore recode x --codec=in\t", ["recode", "x", "--codec=int8"]),
    ("featurestore subset x --corpus corp\t", ["subset", "x", "--corpus", "corpus.txt"]),
]


def typed(shell: str, folder: Path, lines: list[str]) -> list[list[str]]:
    """Type lines into an interactive shell, and return the words each was run with."""
    programs, answers = folder / "programs", folder / "answers"
    programs.mkdir()
    answers.mkdir()
    (programs / "featurestore").write_text(SHIM.format(python=sys.executable))
    (programs / "featurestore").chmod(0o755)
    work = folder / "work"
    (work / "store").mkdir(parents=True)
    (work / "corpus.txt").touch()
    command, setting_up = STARTS[shell]
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}", "ANSWERS": str(answers), "HOME": str(folder),
        "TERM": "dumb", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "PS1": "> ",
        "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder),
    }  # fmt: skip
    process, main = pty.fork()
    if not process:  # a terminal of its own, which fish insists on
        os.chdir(work)
        os.execvpe(command[0], command, environment)
    shown = b""

    def until(done) -> None:
        nonlocal shown
        end = time.monotonic() + 30
        while not done():
            assert time.monotonic() < end, shown.decode(errors="replace")
            if select.select([main], [], [], 0.02)[0]:
                shown += os.read(main, 65536)

    def n_answers() -> int:
        return len(list(answers.glob("*.line")))

    try:
        # A line that is no completion shows when the shell is ready for the next one.
        for line in [*setting_up, "featurestore ready"]:
            os.write(main, line.encode() + b"\r")
        until(lambda: n_answers() == 1)
        for number, line in enumerate(lines, 2):
            os.write(main, line.encode() + b"\r")
            until(lambda number=number: n_answers() == number)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(main)
    files = sorted(answers.glob("*.line"), key=lambda path: int(path.stem))
    # Zsh takes the slash behind a folder back.
    return [[word.rstrip("/") for word in file.read_text().splitlines()] for file in files[1:]]


@pytest.mark.parametrize("shell", STARTS)
def test_a_shell_completes_commands_options_values_and_files(tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    lines = LINES + (IN_BASH if shell == "bash" else [])
    assert typed(shell, tmp_path, [line for line, _ in lines]) == [words for _, words in lines]


def test_completing_loads_neither_torch_nor_numpy():
    code = (
        "import sys, atexit; from featurestore.cli.main import main; "
        "heavy = {'torch', 'numpy', 'h5py', 'flair'}; "
        "atexit.register(lambda: print(sorted(heavy & sys.modules.keys()))); main()"
    )
    environment = {**os.environ, "_FEATURESTORE_COMPLETE": "bash_complete"}
    for line in ("featurestore ", "featurestore extract --", "featurestore train tagger --precision "):
        environment |= {"COMP_WORDS": line, "COMP_CWORD": ""}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        answers, _, loaded = done.stdout.rstrip().rpartition("\n")
        assert loaded == "[]", done.stderr
        assert len(answers.splitlines()) >= 3


def test_what_help_and_completion_list_is_what_there_is():
    assert tuple(exporting.FORMATS) == exchange._FORMATS
    assert tuple(importing.FORMATS) == bringing._FORMATS


def test_every_word_of_a_value_completes():
    """Options that take one of a few words complete them, whatever the type that checks them."""
    expected = {
        ("extract", "--format"): "conllu", ("extract", "--separator"): "tab", ("why", "--layers"): "top",
        ("extract", "--encoder"): "elmo:demo", ("pretrain", "--shape"): "small",
        ("verify", "--device"): "cuda", ("import", "--from"): "bilm-tf", ("why", "--initial-state"): "warm",
    }  # fmt: skip
    for (name, option), word in expected.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        (parameter,) = (found for found in command.params if option in found.opts)
        items = parameter.shell_complete(click.Context(command), word[:-1])
        assert word in [item.value for item in items], (name, option)
