"""Extractions on a real cluster whose actors, nodes and driver are killed at random moments, then resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from featurestore import Store, extract
from featurestore.store.verification import verify
from tests.kit.doubles import DoubleEncoder, draw_sentences
from tests.kit.processes.ray_cluster import LocalCluster
from tests.kit.programs import environment, program

LOG = "FEATURESTORE_TEST_LOG"
ENCODER = "tests.faults.trials.clusters:Counted"
N_NODES = N_ACTORS = 3
UNITS_OF_AN_ACTOR = 2
TOKENS_OF_A_UNIT = 40
SHARD_BYTES = TOKENS_OF_A_UNIT * 8 * 2
KINDS = ("actor", "raylet", "driver")


class Counted(DoubleEncoder):
    """Takes its time, and writes down how many tokens it was given."""

    def __init__(self) -> None:
        super().__init__(spec=ENCODER, seconds=0.4)

    def submit(self, sentences):
        pending = super().submit(sentences)
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{sum(map(len, sentences))}\n")
        return pending


@dataclass
class Outcome:
    """What came of one extraction.

    Attributes
    ----------
    kills : list of str
        Who was killed, in order.
    n_units_redone : float
        Tokens that were encoded more often than once, in units.
    n_units_in_flight : int
        Units that those killed had, at most, when they were killed.
    problems : list of str
    """

    kills: list[str] = field(default_factory=list)
    n_units_redone: float = 0.0
    n_units_in_flight: int = 0
    problems: list[str] = field(default_factory=list)


def killed_and_resumed(folder: Path, random: Random, n_kills: int, n_sentences: int = 1500) -> Outcome:
    """Extract, killing up to so many processes one after another, and compare with an undisturbed store."""
    sentences = draw_sentences(n_sentences, seed=random.randrange(1 << 30), longest=8)
    corpus, store, log = folder / "corpus.txt", folder / "store", folder / "log"
    corpus.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences))
    extract(corpus, DoubleEncoder(), folder / "alone", shard_bytes=SHARD_BYTES, progress=False)
    os.environ[LOG] = str(log)
    outcome = Outcome()
    cluster = LocalCluster(N_NODES)
    try:
        while True:
            driver = _driver(cluster, corpus, store)
            while driver.poll() is None and len(outcome.kills) < n_kills:
                if not _wait(driver, cluster, random.uniform(0.2, 4.0)):
                    break
                kind = random.choice(KINDS)
                outcome.kills.append(kind)
                actors = cluster.actors()
                if kind == "driver":
                    driver.kill()
                    outcome.n_units_in_flight += UNITS_OF_AN_ACTOR * len(actors)
                    break
                if kind == "actor" and actors:
                    os.kill(random.choice(actors), signal.SIGKILL)
                elif kind == "raylet":
                    cluster.kill_node(random.choice(cluster.nodes))
                    cluster.add_node()
                outcome.n_units_in_flight += UNITS_OF_AN_ACTOR
            said = driver.communicate(timeout=600)[1]
            if driver.returncode == 0:
                break
            if driver.returncode not in (-signal.SIGKILL, 1):
                outcome.problems.append(f"the driver ended with {driver.returncode}: {said[-500:]}")
                return outcome
    finally:
        cluster.shut_down()
    _compare(outcome, store, folder / "alone", log, sum(map(len, sentences)))
    return outcome


def _driver(cluster: LocalCluster, corpus: Path, store: Path) -> subprocess.Popen[str]:
    chosen = ["--shard-size", SHARD_BYTES, "--encoder", ENCODER, "--json"]
    engine = ["--engine", "ray", "--address", cluster.address, "--actors", N_ACTORS]
    return subprocess.Popen(
        program("featurestore", "extract", corpus, "--store", store, *chosen, *engine),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _wait(driver: subprocess.Popen[str], cluster: LocalCluster, seconds: float) -> bool:
    """Wait until actors work, and some seconds more; return False if the driver ended before."""
    until = time.monotonic() + 120
    while not cluster.actors() and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.1)
    time.sleep(seconds)
    return driver.poll() is None


def _compare(outcome: Outcome, store: Path, alone: Path, log: Path, n_tokens: int) -> None:
    found, expected = Store.open(store), Store.open(alone)
    if [s.sha256 for s in found.manifest.shards] != [s.sha256 for s in expected.manifest.shards]:
        outcome.problems.append(f"other bytes: {len(found)} of {len(expected)} sentences")
    outcome.problems += [str(finding) for finding in verify(found)]
    encoded = sum(map(int, log.read_text().split()))
    outcome.n_units_redone = max(0, encoded - n_tokens) / TOKENS_OF_A_UNIT
    if outcome.n_units_redone > outcome.n_units_in_flight:
        outcome.problems.append(
            f"{outcome.n_units_redone:.1f} units done again, {outcome.n_units_in_flight} were in flight"
        )
