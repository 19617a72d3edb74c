"""What a command does where nobody reads what it prints, or where the encoding lacks what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featurestore.recipe import Recipe
from featurestore.store.store import Store


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "featurestore", *map(str, arguments)]


def unread(*arguments: object) -> int:
    """Run a command whose output nobody reads from the beginning; return its exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(command(*arguments), stdout=writing, stderr=writing, check=False).returncode
    finally:
        os.close(writing)


def make_store(path: Path, sentences) -> Store:
    store = Store.create(path, recipe=Recipe({"kind": "test", "version": 1}), dim=4)
    with store.write() as session:
        for tokens in sentences:
            session.add(tokens, np.ones((len(tokens), 4), np.float32))
    return store.refreshed()


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"one two three number {n}\n" for n in range(40)))
    return path


def test_extract_goes_on_to_its_end(corpus, tmp_path, tiny_elmo_spec):
    options = ["--store", tmp_path / "store", "--encoder", tiny_elmo_spec, "--shard-size", "2KiB"]
    assert unread("extract", corpus, *options) == 0
    store = Store.open(tmp_path / "store")
    assert (len(store), len(store.manifest.shards) > 5) == (40, True)
    assert unread("extract", corpus, "--store", tmp_path / "store", "--layers", "top") == 4


def test_extract_goes_on_where_its_reader_leaves_later(corpus, tmp_path, tiny_elmo_spec):
    options = ["--store", str(tmp_path / "store"), "--encoder", tiny_elmo_spec, "--shard-size", "2KiB"]
    with subprocess.Popen(
        command("extract", corpus, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout is not None
        while not running.stdout.readline().startswith(b"committed"):
            pass
        running.stdout.close()
    assert running.returncode == 0
    assert len(Store.open(tmp_path / "store")) == 40


def test_extract_goes_on_where_its_terminal_hangs_up(corpus, tmp_path, tiny_elmo_spec):
    terminal, end = os.openpty()
    os.close(terminal)
    line = command("extract", corpus, "--store", tmp_path / "store", "--encoder", tiny_elmo_spec)
    assert subprocess.run(line, stdout=end, stderr=end, check=False).returncode == 0
    os.close(end)
    assert len(Store.open(tmp_path / "store")) == 40


def test_what_is_found_decides_the_exit_code(tmp_path):
    store = make_store(tmp_path / "store", [("a", "b")])
    assert unread("why", store.path, "a b") == 0
    assert unread("why", store.path, "b a") == 1
    shard = store.path / "shards" / store.manifest.shards[0].name
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    assert unread("verify", store.path) == 3
    assert unread("repair", store.path) == 0
    assert unread("verify", store.path) == 0
    assert unread("info", tmp_path / "absent") == 2


def test_ls_ends_when_nobody_reads_it(tmp_path):
    store = make_store(tmp_path / "store", [("a", str(n)) for n in range(3)])
    assert unread("ls", store.path) == 0
    with subprocess.Popen(
        command("ls", store.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_log_stops_nothing_and_under_the_result_is_an_error(
    corpus, tmp_path, tiny_elmo_spec
):
    options = ["--store", tmp_path / "store", "--encoder", tiny_elmo_spec]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command("extract", corpus, *options), stderr=full, capture_output=False,
                              stdout=subprocess.DEVNULL, check=False)  # fmt: skip
        assert (done.returncode, len(Store.open(tmp_path / "store"))) == (0, 40)
        done = subprocess.run(
            command("ls", tmp_path / "store"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


def test_streams_that_are_closed_are_no_obstacle(corpus, tmp_path, tiny_elmo_spec):
    options = ["--store", tmp_path / "store", "--encoder", tiny_elmo_spec]
    script = 'exec "$@" >&- 2>&-'
    line = ["bash", "-c", script, "bash", *command("extract", corpus, *options)]
    assert subprocess.run(line, check=False).returncode == 0
    assert len(Store.open(tmp_path / "store")) == 40


def test_every_encoding_shows_every_text(tmp_path):
    sentence = ("naïve", "😀", "中")
    store = make_store(tmp_path / "store", [sentence])
    for encoding in ("iso8859-15", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        for options in ([], ["--json"]):
            done = subprocess.run(
                command("ls", store.path, *options), capture_output=True, env=environment, check=False
            )
            assert (done.returncode, done.stderr) == (0, b"")
        # click writes UTF-8 where the encoding is ASCII, which it takes for a mistake.
        listed = json.loads(done.stdout.decode("utf-8" if encoding == "ascii" else encoding))
        assert tuple(listed["tokens"]) == sentence
    done = subprocess.run(command("ls", tmp_path / "中"), capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
