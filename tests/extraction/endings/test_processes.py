"""Extractions as real processes that are interrupted, terminated, killed, and run two at a time."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurestore import Store, extract
from featurestore.errors import RecipeMismatchError
from featurestore.recipe import Recipe
from featurestore.store.verification import verify
from tests.kit.doubles import DoubleEncoder, draw_sentences, vectors_of
from tests.kit.programs import environment, program

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")

SHARD_BYTES = 40 * 8 * 2
"""Forty tokens: some thirty shards for the corpus below."""
SENTENCES = draw_sentences(250, longest=8)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in SENTENCES))
    return path


@pytest.fixture
def start():
    """Start ``featurestore extract``; nothing outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            program("tests.extraction.endings.double_cli", "extract", *arguments),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def arguments(corpus: Path, store: Path, encoder: str = "double:0.01") -> list[object]:
    return [corpus, "--store", store, "--encoder", encoder, "--shard-size", SHARD_BYTES]


def wait_for(process: subprocess.Popen[str], word: str, times: int = 1) -> None:
    """Read the process's progress until a word has begun so many lines."""
    for line in process.stderr:
        times -= line.startswith(word)
        if times == 0:
            return
    pytest.fail(f"the process ended before it said {word!r}: {process.communicate()}")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def fill_the_disk(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def stored(path: Path) -> list[tuple[str, ...]]:
    """The sentences of a sound store, each there once, whose vectors are all right."""
    store = Store.open(path)
    assert list(verify(store)) == []
    found = [tokens for _, _, tokens in store.sentences()]
    assert len(set(found)) == len(found) == len(store)
    for tokens, vectors in store:
        assert np.array_equal(vectors, vectors_of(tokens))
    return found


def shard_files(path: Path) -> dict[str, bytes]:
    return {shard.name: shard.read_bytes() for shard in (path / "shards").iterdir()}


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_command_commits_what_is_done_and_the_same_command_finishes(
    start, corpus, tmp_path, number, code, word
):
    store = tmp_path / "store"
    process = start(*arguments(corpus, store, "double:0.02"))
    wait_for(process, "committed", 2)
    process.send_signal(number)
    found, out, err = ended(process)
    assert found == code, err
    assert "Traceback" not in err
    assert f"{word}: what is done is committed; the same command goes on from here" in out
    done = len(stored(store))
    assert 0 < done < len(SENTENCES)
    found, out, err = ended(start(*arguments(corpus, store)))
    assert found == 0, err
    assert f"cached     {done}" in out
    assert set(stored(store)) == set(SENTENCES)


@pytest.mark.parametrize("there_is_a_store", [False, True])
def test_termination_while_the_encoder_loads_is_no_error_of_its_own(
    start, corpus, tmp_path, there_is_a_store
):
    store = tmp_path / "store"
    if there_is_a_store:
        extract(SENTENCES[:9], DoubleEncoder(), store, progress=False)
    process = start(*arguments(corpus, store, "double:0,60"))
    wait_for(process, "loading")
    process.terminate()
    code, out, err = ended(process)
    assert code == 143
    assert "Traceback" not in err
    assert "terminated" in out + err
    assert Store.exists(store) == there_is_a_store
    assert not there_is_a_store or stored(store) == SENTENCES[:9]


def test_killed_again_and_again_a_run_ends_with_the_bytes_of_an_undisturbed_one(start, corpus, tmp_path):
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    extract(corpus, DoubleEncoder(), undisturbed, shard_bytes=SHARD_BYTES, progress=False)
    moments, n_stored = random.Random(20240), 0
    for _ in range(6):
        process = start(*arguments(corpus, store))
        wait_for(process, "committed", moments.randint(1, 3))
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        found = stored(store)
        assert found == SENTENCES[: len(found)]
        assert len(found) > n_stored  # committed work is never done again
        n_stored = len(found)
    code, out, err = ended(start(*arguments(corpus, store)))
    assert code == 0, err
    assert f"cached     {n_stored}" in out
    assert stored(store) == SENTENCES
    assert list((store / "tmp").iterdir()) == []
    committed = {shard.name for shard in Store.open(store).manifest.shards}
    assert committed == set(shard_files(undisturbed))
    left = shard_files(store)
    assert {name: left[name] for name in committed} == shard_files(undisturbed)


def test_a_real_disk_that_fills_up_costs_nothing_committed_and_the_same_command_finishes(
    start, tmpfs, corpus
):
    disk = tmpfs("2m")
    store, ballast = disk / "store", disk / "ballast"
    process = start(*arguments(corpus, store, "double:0.03"))
    wait_for(process, "committed", 2)
    fill_the_disk(ballast)
    code, _, err = ended(process)
    assert code == 1, err
    assert "Traceback" not in err
    # Which file it was: a shard, a manifest or the index; the path and the bytes are there either way.
    assert re.search(rf"no space left while writing {store}/\S+ \([\d,]+ bytes\); [\d,]+ bytes are free", err)
    assert "free some space and run the same command again" in err
    done = stored(store)
    assert len(done) >= 10
    assert done == SENTENCES[: len(done)]
    ballast.unlink()
    code, out, err = ended(start(*arguments(corpus, store)))
    assert code == 0, err
    assert f"cached     {len(done)}" in out
    assert stored(store) == SENTENCES


def test_two_extractions_of_overlapping_corpora_share_a_new_store(start, tmp_path):
    halves = SENTENCES[:170], SENTENCES[80:]
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for path, sentences in zip(paths, halves, strict=True):
        path.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences))
    store = tmp_path / "store"
    processes = [start(*arguments(path, store)) for path in paths]
    for process in processes:
        code, _, err = ended(process)
        assert code == 0, err
    assert set(stored(store)) == set(SENTENCES)


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_that_another_extraction_made_meanwhile_is_used_if_its_recipe_is_ours(
    monkeypatch, tmp_path, version
):
    create = Store.create

    def other_was_faster(path, *, recipe, **options):
        create(path, recipe=Recipe({"kind": "double", "version": version}), **options)
        return create(path, recipe=recipe, **options)

    monkeypatch.setattr(Store, "create", other_was_faster)
    if version == 1:
        assert extract(SENTENCES, DoubleEncoder(), tmp_path / "store", progress=False).n_encoded == 250
    else:
        with pytest.raises(RecipeMismatchError, match=r"version: 2 in store .*1 asked for"):
            extract(SENTENCES, DoubleEncoder(), tmp_path / "store", progress=False)
