"""Extraction on a real cluster of three nodes: the bytes of one process, whoever dies."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import featurestore
from featurestore import Ray, Store, extract
from featurestore.errors import DriftError, EncoderError, StoreWriteError, UsageError
from featurestore.extraction.report import Report
from featurestore.store.verification import verify
from tests.extraction.cluster.encoders import Sick, Slow
from tests.kit.doubles import Recorder, draw_sentences, vectors_of
from tests.kit.places import DATA
from tests.kit.processes.ray_cluster import LocalCluster
from tests.kit.programs import environment, program

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")

SENTENCES = draw_sentences(250, longest=8)
SHARD_BYTES = 40 * 8 * 2
"""Forty tokens: some thirty shards."""


def hashes(store: Path) -> list[str]:
    return [shard.sha256 for shard in Store.open(store).manifest.shards]


def assert_same(store: Path, other: Path) -> None:
    """Assert that two stores have the same shards in the same order and the same canaries, and no rest."""
    ours, theirs = Store.open(store), Store.open(other)
    assert [shard.sha256 for shard in ours.manifest.shards] == [s.sha256 for s in theirs.manifest.shards]
    assert ours.manifest.canaries.shard == theirs.manifest.canaries.shard
    assert list(verify(ours)) == []
    assert list((store / "tmp").iterdir()) == []
    assert {path.name for path in (store / "shards").iterdir()} == {s.name for s in ours.manifest.shards}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in SENTENCES))
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory, corpus) -> Path:
    """The store that one process makes of the corpus."""
    path = tmp_path_factory.mktemp("alone") / "store"
    extract(corpus, Slow(seconds=0), path, shard_bytes=SHARD_BYTES, progress=False)
    assert len(hashes(path)) > 25
    return path


class Acting(Recorder):
    """Does something once so many commits were made; kept from the actors."""

    def __init__(self, act: Callable[[], object], after: int = 1) -> None:
        super().__init__()
        self._act, self._left = act, after

    def committed(self, n_sentences: int, n_tokens: int) -> None:
        super().committed(n_sentences, n_tokens)
        self._left -= 1
        if self._left == 0:
            self._act()


def started(cluster: LocalCluster, corpus: Path, store: Path) -> subprocess.Popen[str]:
    """Start the command as a process."""
    spec = "tests.extraction.cluster.encoders:Slow"
    chosen = ["--engine", "ray", "--address", cluster.address, "--actors", 2, "--shard-size", SHARD_BYTES]
    return subprocess.Popen(
        program(
            "featurestore", "extract", corpus, "--store", store, "--encoder", spec, *chosen, "--json"
        ),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_shards(process: subprocess.Popen[str], store: Path, n: int) -> None:
    """Wait until a store that a process is filling has so many shards."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(Exception):
            if len(hashes(store)) >= n:
                return
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"{store} has fewer than {n} shards: {process.communicate()}")


def test_an_elmo_gives_the_bytes_of_one_process(tmp_path, cluster, tiny_elmo_spec):
    corpora = [DATA / "tagging" / "train.conllu", DATA / "tagging" / "dev.conllu"]
    # int8, whose norms are those of a whole shard.
    chosen = {"codec": "int8", "shard_bytes": 8_000, "layers": "all"}
    extract(corpora, tiny_elmo_spec, tmp_path / "one", **chosen, progress=False)
    engine = Ray(cluster.address, actors=2)
    report = extract(corpora, tiny_elmo_spec, tmp_path / "many", **chosen, engine=engine, progress=False)
    assert_same(tmp_path / "many", tmp_path / "one")
    found = report.to_dict()
    assert found["n_encoded"] == len(Store.open(tmp_path / "many"))
    assert sum(actor["n_units"] for actor in found["actors"]) == found["n_shards"] > 8
    assert all(actor["tokens_per_second"] > 0 and actor["processor"] for actor in found["actors"])
    assert sum(event["event"] == "unit" for event in found["timeline"]) == found["n_shards"]
    # There is nothing left to do, which takes no cluster to find out.
    again = extract(corpora, tiny_elmo_spec, tmp_path / "many", engine=Ray("127.0.0.1:1"), progress=False)
    assert again.n_encoded == 0


def test_a_flair_encoder_gives_the_bytes_of_one_process(tmp_path, cluster, shared):
    pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")
    from tests.kit.flair_models import write_bert

    text = shared("corpora/ud-ewt/en_ewt-ud-dev.conllu").read_text(encoding="utf-8").split("\n\n")[:150]
    corpus = tmp_path / "ewt.conllu"
    corpus.write_text("\n\n".join(text) + "\n\n", encoding="utf-8")
    spec = f"flair:{write_bert(tmp_path / 'bert')}"
    extract(corpus, spec, tmp_path / "one", shard_bytes=30_000, progress=False)
    engine = Ray(cluster.address, actors=1)
    extract(corpus, spec, tmp_path / "many", shard_bytes=30_000, engine=engine, progress=False)
    assert_same(tmp_path / "many", tmp_path / "one")
    assert len(hashes(tmp_path / "many")) > 2


def test_ctrl_c_and_then_an_actor_and_a_node_die(tmp_path, cluster, corpus, alone):
    def kill() -> None:
        cluster.kill_actor()
        cluster.kill_node()

    def run(progress: Recorder) -> Report:
        return extract(
            corpus, Slow(), tmp_path / "store", shard_bytes=SHARD_BYTES, progress=progress,
            engine=Ray(cluster.address, actors=3),
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(Acting(lambda: signal.raise_signal(signal.SIGINT)))
    stored = hashes(tmp_path / "store")
    assert 0 < len(stored) < len(hashes(alone))
    assert stored == hashes(alone)[: len(stored)]
    until = time.monotonic() + 30
    while cluster.actors() and time.monotonic() < until:
        time.sleep(0.1)
    assert cluster.actors() == []

    progress = Acting(kill)
    report = run(progress)
    cluster.add_node()
    assert_same(tmp_path / "store", alone)
    lost = [event for event in report.timeline if event["event"] == "lost"]
    assert len(lost) >= 2
    assert report.n_redone <= 2 * len(lost)
    assert any("is gone" in notice for notice in progress.notices)
    assert sum(event[1] for event in progress.events if event[0] == "encoded") == report.n_encoded_tokens


def test_the_driver_dies_and_the_same_command_goes_on(tmp_path, cluster, corpus, alone):
    store = tmp_path / "store"
    for number, n_shards in ((signal.SIGKILL, 4), (signal.SIGTERM, 10)):
        process = started(cluster, corpus, store)
        wait_for_shards(process, store, n_shards)
        process.send_signal(number)
        printed, said = process.communicate(timeout=120)
        assert process.returncode == (-9 if number == signal.SIGKILL else 143), said
        if number == signal.SIGTERM:
            assert json.loads(printed)["status"] == "terminated"
        stored = hashes(store)
        assert stored == hashes(alone)[: len(stored)]
        assert n_shards <= len(stored) < len(hashes(alone))
    process = started(cluster, corpus, store)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    found = json.loads(printed)  # nothing but JSON on standard output
    assert found["status"] == "complete"
    assert found["report"]["n_encoded"] < len(SENTENCES)
    assert_same(store, alone)


def test_a_unit_that_fails_is_named_and_the_others_are_stored_first(tmp_path, cluster):
    sentences = [
        (*s, "raise") if i == 40 else (*s, "exit") if i == 90 else s for i, s in enumerate(SENTENCES)
    ]
    sentences[130] = (*sentences[130], "large")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences))
    engine, progress = Ray(cluster.address, actors=2), Recorder()
    with pytest.raises(EncoderError, match="2 units of sentences failed 3 times") as raised:
        extract(
            corpus, Sick(), tmp_path / "store", shard_bytes=SHARD_BYTES, token_budget=1000, engine=engine,
            progress=progress,
        )  # fmt: skip
    assert f"{corpus}, line " in str(raised.value)
    assert "a word that I do not like" in str(raised.value)
    assert any("out of memory with" in notice for notice in progress.notices)
    opened = Store.open(tmp_path / "store")
    assert list(verify(opened)) == []
    left_out = [sentence for sentence in sentences if sentence not in opened]
    assert {sentences[40], sentences[90]} <= set(left_out)
    assert len(left_out) < 40
    assert sentences[130] in opened
    for sentence in sentences[:30] + sentences[-30:]:
        assert np.array_equal(opened.get(sentence), vectors_of(sentence))


def test_nodes_that_cannot_take_part_are_named_before_anything_is_encoded(tmp_path, cluster, corpus):
    def refused(error: type[Exception], **chosen) -> str:
        with pytest.raises(error) as raised:
            extract(
                corpus, chosen.pop("encoder", "tests.extraction.cluster.encoders:Slow"), tmp_path / "store",
                engine=Ray(cluster.address, **chosen), progress=False,
            )  # fmt: skip
        return str(raised.value)

    assert "1 GPUs" in refused(UsageError, gpus_per_actor=1)
    assert "64 CPUs" in refused(UsageError, cpus_per_actor=64)
    said = refused(EncoderError, encoder="tests.extraction.cluster.encoders:Missing")
    assert "weights.hdf5 is not on this node" in said
    assert not (tmp_path / "store").exists()

    # Another version of featurestore on one node.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text(
        "import sys, types\n"
        "other = types.ModuleType('featurestore')\n"
        "other.__version__ = '0.0.1'\n"
        "sys.modules['featurestore'] = other\n"
    )
    node = cluster.add_node(PYTHONPATH=str(tmp_path / "other"))
    said = refused(UsageError)
    cluster.remove_node(node)
    assert "featurestore" in said
    assert "0.0.1 on" in said

    # A node whose encoder computes something else than what is stored: found by the canaries.
    extract(SENTENCES[:5], Slow(seconds=0), tmp_path / "store", progress=False)
    node = cluster.add_node(n_cpus=2, TEST_DRIFT="0.5")
    said = refused(DriftError, cpus_per_actor=2)
    cluster.remove_node(node)
    assert "actor 0" in said
    assert "differs by a relative L2" in said
    assert len(Store.open(tmp_path / "store")) == 5


def test_a_node_that_does_not_share_the_directory_is_named(tmp_path, cluster, corpus, tmpfs):
    tmpfs("1m")  # or skip: this needs the right to mount
    # Every Python process of that node sees an empty disk where the store is to be.
    (tmp_path / "hook").mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "if libc.unshare(0x20000) == 0:\n"
        "    libc.mount(b'none', b'/', None, 0x44000, None)\n"
        f"    libc.mount(b'none', {str(shared).encode()!r}, b'tmpfs', 0, None)\n"
    )
    node = cluster.add_node(PYTHONPATH=str(tmp_path / "hook"))
    with pytest.raises(StoreWriteError, match="not every node shares the directory") as raised:
        extract(corpus, Slow(), shared / "store", engine=Ray(cluster.address), progress=False)
    cluster.remove_node(node)
    assert raised.value.path == shared / "store"
    assert list(shared.iterdir()) == []


def test_the_code_of_the_page_runs_on_a_cluster_of_its_own(tmp_path, cluster):
    (tmp_path / "data").symlink_to(DATA)
    page = (Path(featurestore.__file__).parent / "extraction" / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"0 \S+ [1-9]\d* \d+ tokens/s\n", done.stdout)
    assert "ray" not in done.stderr.lower()
