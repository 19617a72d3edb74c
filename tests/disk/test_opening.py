"""Files that a stranger's specification may name: what is no file is refused, without waiting for it."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from featurestore import Store, extract, load_encoder
from featurestore.cli.main import main
from featurestore.encoders.elmo.files import weights as weights_module
from featurestore.encoders.loading import encoder_recipe, outline_encoder
from featurestore.errors import EncoderError, FeaturestoreError
from featurestore.recipe import Recipe
from tests.kit.elmo import GOLDEN

OPTIONS, WEIGHTS = GOLDEN / "options.json", GOLDEN / "weights.hdf5"
KINDS = {"pipe": "a named pipe", "device": "a device", "folder": "a folder", "socket": "a socket"}


@pytest.fixture(autouse=True)
def no_waiting():
    """Ends a test that waits for a pipe."""

    def waited(*_):
        raise TimeoutError("the test waited for what is no file")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def no_file(tmp_path, request) -> Path:
    """What is no file, of the kind that the test is called with."""
    path = tmp_path / "x"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/null")  # any device: if it were read after all, this one ends
    elif request.param == "folder":
        path.mkdir()
    else:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("x")
        os.chdir(here)
    return path


def of_each_kind(test):
    cases = [pytest.param(kind, text, id=kind) for kind, text in KINDS.items()]
    return pytest.mark.parametrize(("no_file", "text"), cases, indirect=["no_file"])(test)


@of_each_kind
@pytest.mark.parametrize("door", [load_encoder, outline_encoder, encoder_recipe])
def test_options_that_are_no_file_are_refused(no_file, text, door):
    for spec in (f"elmo:{no_file},{WEIGHTS}", f"elmo:untrained:{no_file}?seed=1"):
        with pytest.raises(EncoderError) as caught:
            door(spec)
        assert str(caught.value) == f"cannot read ELMo options {no_file}: it is {text}, expected a file"


@of_each_kind
@pytest.mark.parametrize("door", [load_encoder, encoder_recipe])
def test_weights_that_are_no_file_are_refused(no_file, text, door):
    with pytest.raises(EncoderError) as caught:
        door(f"elmo:{OPTIONS},{no_file}")
    assert str(caught.value) == f"cannot read ELMo weights {no_file}: it is {text}, expected a file"


@pytest.mark.parametrize("no_file", ["pipe", "folder"], indirect=True)
def test_a_warm_state_that_is_no_file_is_not_there(no_file, tmp_path):
    for name in ("options.json", "weights.hdf5"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    no_file.rename(tmp_path / "weights.warm.hdf5")
    with pytest.raises(EncoderError, match=r"weights\.warm\.hdf5, which is not here"):
        load_encoder(f"elmo:{tmp_path}", initial_state="warm")


@pytest.mark.parametrize("door", [load_encoder, encoder_recipe])
def test_weights_too_large_to_be_any_are_refused_unread(tmp_path, door):
    with (tmp_path / "huge.hdf5").open("wb") as file:
        file.truncate((4 << 30) + 1)
    with pytest.raises(EncoderError, match=r"4,294,967,297 bytes, over the bound"):
        door(f"elmo:{OPTIONS},{tmp_path / 'huge.hdf5'}")


def test_no_more_is_read_than_the_file_had(tmp_path, monkeypatch):
    """A file that grows while it is read ends where it ended when it was opened."""
    path = tmp_path / "weights.hdf5"
    path.write_bytes(WEIGHTS.read_bytes())
    expected = encoder_recipe(f"elmo:{OPTIONS},{path}")
    size = path.stat().st_size

    def grown(descriptor):
        with path.open("ab") as file:
            file.write(b"more")
        return os.stat_result((*os.stat(descriptor)[:6], size, 0, 0, 0))

    monkeypatch.setattr(weights_module.os, "fstat", grown)
    assert encoder_recipe(f"elmo:{OPTIONS},{path}") == expected
    assert load_encoder(f"elmo:{OPTIONS},{path}", device="cpu").recipe == expected


@pytest.mark.parametrize("command", ["plan", "extract"])
@pytest.mark.parametrize("no_file", ["pipe", "device"], indirect=True)
@pytest.mark.parametrize("at", ["options", "weights"])
def test_a_strangers_store_cannot_make_a_command_wait(tmp_path, no_file, command, at, capsys):
    spec = f"elmo:{no_file},{WEIGHTS}" if at == "options" else f"elmo:{OPTIONS},{no_file}"
    recipe = Recipe({"kind": "elmo", "version": 1, "layers": "average", "precision": "float32"})
    Store.create(tmp_path / "store", recipe=recipe, dim=32, n_layers=1, encoder=spec, codec="float16")
    (tmp_path / "corpus.txt").write_text("It purred\n")
    with pytest.raises(SystemExit) as stop:
        main([command, str(tmp_path / "corpus.txt"), "--store", str(tmp_path / "store"), "--device", "cpu"])
    error = capsys.readouterr().err
    if (command, at) == ("plan", "weights"):
        assert stop.value.code == 0  # it looks at the options alone
    else:
        assert stop.value.code == 1
        assert f"error: cannot read ELMo {at} {no_file}: it is " in error


@pytest.mark.parametrize(
    "spec",
    [
        f"elmo:{OPTIONS},/",
        f"elmo:{OPTIONS},a\0b",
        f"elmo:a\0b,{WEIGHTS}",
        f"elmo:{OPTIONS},\udcff\ud800",
        f"elmo:{OPTIONS},{'x' * 5000}",
        f"elmo:~nobody-of-that-name/options.json,{WEIGHTS}",
        "elmo:~nobody-of-that-name/",
    ],
    ids=["root", "nul", "nul-options", "surrogates", "long", "nobodys-home", "nobodys-folder"],
)
@pytest.mark.parametrize("initial_state", ["zero", "warm"])
def test_a_strangers_names_are_errors_of_ours(tmp_path, spec, initial_state):
    recipe = Recipe(
        {
            "kind": "elmo",
            "version": 1,
            "layers": "average",
            "precision": "float32",
            "initial_state": initial_state,
        }
    )
    try:
        Store.create(tmp_path / "store", recipe=recipe, dim=32, n_layers=1, encoder=spec, codec="float16")
    except (FeaturestoreError, UnicodeError):
        pytest.skip("no store can hold this name")
    with pytest.raises(FeaturestoreError):
        extract([["It", "purred"]], None, tmp_path / "store", progress=False, device="cpu")
