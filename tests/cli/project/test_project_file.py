"""A project's file: who gets what from it, where it is found, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from featurestore.cli.main import COMMANDS, cli
from featurestore.cli.project import finding
from featurestore.cli.project.command import ProjectCommand
from featurestore.cli.project.settings import SHARED, key_of
from tests.cli.commands.small_store import make_store
from tests.kit.places import ROOT


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A repository with a store and a corpus, in which the test stands."""
    (tmp_path / ".git").mkdir()
    make_store(tmp_path / "features")
    (tmp_path / "cat.txt").write_text("the cat sat\nThe CAT sat\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = finding.OWN_FILE) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_the_store_may_be_left_out_and_what_was_used_is_said_once(place, run):
    file = write(place, 'store = "features"\nencoder = "elmo:demo"\n')
    code, out, err = run("info", "--json")
    assert code == 0
    assert json.loads(out)["project"] == {"file": str(file), "keys": ["store"]}
    assert err == "using featurestore.toml: store\n"
    for arguments in (
        ["ls"],
        ["stats"],
        ["verify"],
        ["show", "the cat sat"],
        ["gc", "--dry-run"],
        ["compact"],
    ):
        code, _, err = run(*arguments)
        assert (code, err) == (0, "using featurestore.toml: store\n"), arguments
    key = run("ls", "--limit", "1")[1].split()[0]
    assert run("show", "--key", key)[0] == 0
    assert run("why", "no such sentence", "--no-config")[0] == 2
    # The encoder of the project is the one that why asks about.
    assert run("why", "the cat sat")[2] == "using featurestore.toml: store, encoder\n"


def test_the_command_line_comes_first_then_the_commands_table_then_the_top(place, run, tmp_path):
    make_store(place / "other", [("just", "this")])
    make_store(place / "third", [("and", "that", "too")])
    write(place, 'store = "other"\n[info]\nstore = "third"\n')
    assert json.loads(run("info", "features", "--json")[1])["n_sentences"] == 6
    assert "project" not in json.loads(run("info", "features", "--json")[1])
    assert json.loads(run("info", "--json")[1])["n_tokens"] == 3
    assert json.loads(run("stats", "--json")[1])["n_tokens"] == 2
    for arguments in (["--no-config", "info"], ["info", "--no-config"]):
        code, _, err = run(*arguments)
        assert code == 2
        assert "Missing argument 'STORE'" in err


def test_paths_are_relative_to_the_file_which_is_found_upwards(place, run, monkeypatch):
    write(place, 'store = "features"\n')
    below = place / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    code, out, err = run("info", "--json")
    assert (code, err) == (0, "using ../../featurestore.toml: store\n")
    assert json.loads(out)["store"] == "../../features"
    # A file that is named is read wherever it lies; the nearest of several is read alone.
    write(below, 'store = "../nothing"\n')
    assert run("info")[0] == 2
    assert run("info", "--config", "../../featurestore.toml")[0] == 0
    assert run("--config", "../../featurestore.toml", "info")[0] == 0
    assert "exclude each other" in run("--no-config", "info", "--config", "../../featurestore.toml")[2]
    # The root of a repository ends the search.
    (below / "featurestore.toml").unlink()
    (below / ".git").touch()
    assert "Missing argument 'STORE'" in run("info")[2]


def test_the_home_folder_ends_the_search(place, run, monkeypatch):
    (place / ".git").rmdir()
    home = place / "home"
    (home / "work").mkdir(parents=True)
    write(place, 'store = "features"\n')
    monkeypatch.chdir(home / "work")
    assert run("info")[0] == 0
    monkeypatch.setenv("HOME", str(home))
    assert run("info")[0] == 2


def test_pyproject_may_have_the_table(place, run):
    write(place, '[project]\nname = "x"\n', "pyproject.toml")
    assert run("info")[0] == 2
    write(place, '[tool.featurestore]\nstore = "features"\n', "pyproject.toml")
    assert run("info")[2] == "using pyproject.toml [tool.featurestore]: store\n"
    write(place, 'store = "nothing"\n')
    assert run("info")[0] == 2  # our own file goes before


def test_extract_alone_does_the_job(place, run):
    settings = ['store = "made/here"', 'corpora = ["cat.txt"]', 'codec = "float32"']
    write(place, "\n".join([*settings, 'encoder = "elmo:untrained-small?seed=0"']))
    code, _, err = run("plan", "--json")
    assert (code, err) == (0, "using featurestore.toml: corpora, store, encoder, codec\n")
    assert run("extract")[0] == 0
    facts = json.loads(run("info", "--json")[1])
    assert (facts["n_sentences"], facts["codec"]) == (2, "float32")
    code, _, err = run("extract", "cat.txt", "--codec", "int8", "--store", "made/here")
    assert err.startswith("using featurestore.toml: encoder\n")


def test_paths_in_an_encoders_name_are_the_files_too(place, run, monkeypatch):
    from featurestore.cli.project.settings import encoder_of_project

    (place / "mine").mkdir()
    project = finding.Project(place / "featurestore.toml", {})
    monkeypatch.chdir(place / "mine")
    assert encoder_of_project(project, "elmo:./mine") == "elmo:./."
    assert encoder_of_project(project, "elmo:small") == "elmo:small"
    assert encoder_of_project(project, "elmo:untrained-small?seed=0") == "elmo:untrained-small?seed=0"
    assert encoder_of_project(project, "elmo:./o.json,./w.hdf5") == "elmo:../o.json,../w.hdf5"
    assert encoder_of_project(project, "flair:glove+flair:./x.pt") == "flair:glove+flair:../x.pt"
    assert encoder_of_project(project, "package.module:Class") == "package.module:Class"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stroe = 'x'", "no such key 'stroe': did you mean store"),
        ("text_column = 'x'", "did you mean text-column"),
        ("[extarct]\nstore = 'x'", "no such table [extarct]: did you mean extract"),
        ("limit = 3", "no such key 'limit'; of one command, it goes into its table: [ls]"),
        ("[ls]\nlimti = 3", "no such key 'limti' in [ls]: did you mean limit"),
        ("store = true", "store must be a text or a number, found 'True'"),
        ("store = ['a', 'b']", "store names 2, and ls wants one"),
        ("[ls]\nignore-case = 'yes'", "ignore-case must be true or false, found 'yes'"),
        ("store = ", "featurestore.toml is no TOML: "),
        ("store = 'features'\n[ls]\nlimit = 'many'", "'many' is not a valid integer"),
    ],
)
def test_what_a_file_may_not_hold_is_named_with_the_nearest_known(place, run, text, message):
    write(place, text + "\n")
    code, out, err = run("ls")
    assert (code, out) == (2, "")
    assert message in err
    assert "featurestore.toml" in err


def test_a_file_that_is_not_there_or_has_no_table_is_refused_by_name(place, run):
    assert "absent.toml cannot be read: No such file" in run("ls", "features", "--config", "absent.toml")[2]
    write(place, "", "pyproject.toml")
    assert "has no table [tool.featurestore]" in run("ls", "--config", "pyproject.toml")[2]
    (place / "featurestore.toml").write_bytes(b"\xff\xfe")
    assert "featurestore.toml is no TOML" in run("ls")[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_above_is_not_used(place, run, monkeypatch):
    below = place / "mine"
    below.mkdir()
    file = write(place, 'store = "features"\n')
    os.chown(file, 12345, 12345)
    monkeypatch.chdir(below)
    code, _, err = run("info")
    assert code == 2
    assert f"note: {file} is another user's and is not used" in err
    assert run("info", "--config", str(file))[0] == 0
    os.chown(below, 12345, 12345)  # whoever works in another's folder works with their settings
    assert run("info")[0] == 0


def test_help_and_completion_read_no_file(place, run):
    write(place, "this is no TOML")
    assert run("info", "-h")[0] == 0
    environment = {
        **os.environ, "_FEATURESTORE_COMPLETE": "bash_complete", "COMP_WORDS": "featurestore info --",
        "COMP_CWORD": "--", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "featurestore"], env=environment, capture_output=True, text=True, cwd=place
    )
    assert done.stderr == ""
    assert "plain,--snapshot" in done.stdout


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        below = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {inner}": one for inner, one in below.items()} or {name: command}
    return found


def test_every_command_reads_the_file_but_those_that_have_nothing_in_it():
    without = {name for name, command in commands().items() if not isinstance(command, ProjectCommand)}
    assert without == {"completion"}


def test_every_shared_key_is_an_option_or_argument_of_some_command():
    known = {key_of(parameter) for command in commands().values() for parameter in command.params}
    assert set(SHARED) <= known


def test_one_thing_has_one_name_in_all_commands():
    """Options of one name are of one kind in every command, and each says the same in them."""
    kinds: dict[str, dict[str, str]] = {}
    for name, command in commands().items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                kind = "flag" if parameter.is_flag else type(parameter.type).__name__
                kinds.setdefault(key_of(parameter), {})[name] = kind
    assert {key: of for key, of in kinds.items() if len(set(of.values())) > 1} == {
        # These refuse another word themselves, and say more than click does.
        "precision": kinds["precision"],
        "codec": kinds["codec"],
    }
    for command in commands().values():
        for parameter in command.params:
            assert "--out" not in parameter.opts or "--output" in parameter.opts
