"""The rows of the table: what is tried against each kind of fault, and the figure it reaches."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from xml.etree import ElementTree

from tests.attacks.trials import attack_all, flip_many, mutate_many
from tests.faults.trials import exports as exporting
from tests.faults.trials.crowd import crowd
from tests.faults.trials.diskfaults import DISK_FAULTS, fail_everywhere
from tests.faults.trials.extractions import N_WRITTEN, Kill, kill_series, nursery
from tests.faults.trials.kills import kill_everywhere
from tests.faults.trials.powerloss import State, states
from tests.faults.trials.scenarios import SCENARIOS
from tests.kit.memory import memory_folder
from tests.kit.places import ROOT


@dataclass
class Row:
    """What was tried against one kind of fault, and what came of it.

    Attributes
    ----------
    fault : str
    goal : str
        The figure to reach.
    n_tried, unit : int, str
    good : str
        What "0 bad" means here.
    detail : str
    problems : list of str
    seconds : float
    """

    fault: str
    goal: str
    n_tried: int = 0
    unit: str = ""
    good: str = "0 bad"
    detail: str = ""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def reached(self) -> str:
        """The figure reached, in a few words."""
        what = f"{len(self.problems):,} bad" if self.problems else self.good
        return f"{self.n_tried:,} {self.unit}, {what}" + (f" ({self.detail})" if self.detail else "")


def kills(long: bool) -> Row:
    """Kill a process at every file operation of everything a store does."""
    row = Row(
        "a process killed before, amid and after every file operation",
        "every point, 150 or more; nothing lost, nothing wrong",
        unit="points",
        good="0 committed sentences lost, 0 wrong vectors",
    )
    by_scenario = {}
    for scenario in SCENARIOS:
        with memory_folder() as folder:
            points = list(kill_everywhere(scenario, folder))
        by_scenario[scenario.name] = len(points)
        row.n_tried += len(points)
        for point in points:
            row.problems += [f"{point.scenario}, {point.place}: {problem}" for problem in point.problems]
            if not point.killed:
                row.problems.append(f"{point.scenario}, {point.place}: the process was not killed")
    row.detail = ", ".join(f"{name} {n}" for name, n in by_scenario.items())
    return row


def exports(long: bool) -> Row:
    """Kill exports in every format at every point, and let their disk be full after any number of bytes."""
    row = Row(
        "exports in every format killed at every point, out of space after any number of bytes",
        "whole or not there, nothing left once it is run again",
        unit="points",
    )
    n_full = 0
    for to in exporting.KINDS:
        with memory_folder() as folder:
            store = exporting.prepared(folder)
            for point in exporting.kill_everywhere(store, to, folder / "killed"):
                row.n_tried += 1
                row.problems += [f"{to}, {point.place}: {problem}" for problem in point.problems]
            for place, problems in exporting.fill_everywhere(store, to, folder / "full", 40 if long else 8):
                n_full += 1
                row.problems += [f"{to}, {place}: {problem}" for problem in problems]
    row.detail = f"{row.n_tried} kills, {n_full} full disks; {len(exporting.KINDS)} formats and layouts"
    row.n_tried += n_full
    return row


def extractions(long: bool) -> Row:
    """Kill real extractions of a real encoder at random moments; compare bytes in the end."""
    row = Row(
        "real extractions killed at random moments, resumed under random options",
        "200 kills, at most the open shard and those being written redone, equal bytes in the end",
        unit="kills",
    )
    wanted, again = 200 if long else 5, 0.0
    with ExitStack() as stack:
        children = stack.enter_context(nursery(stack.enter_context(memory_folder())))
        for seed in itertools.count():
            with memory_folder() as folder:
                done: list[Kill] = list(kill_series(children, folder, Random(seed)))
            row.n_tried += len(done)
            row.problems += [f"series {seed}: {problem}" for kill in done for problem in kill.problems]
            again = max([again, *(kill.shards for kill in done)])
            if row.n_tried >= wanted:
                break
    row.good = f"{seed + 1} runs equal to undisturbed ones byte for byte"
    row.detail = f"at most {again:.2f} shards encoded again, of one open and {N_WRITTEN} being written"
    return row


def cluster(long: bool) -> Row:
    """Kill actors, raylets and drivers of real extractions on a real cluster; compare bytes in the end."""
    row = Row(
        "actors, raylets and drivers of a Ray cluster of three nodes killed at random moments, then resumed",
        "50 kills, 0 sentences lost, equal bytes in the end, redone at most the units in flight",
        unit="kills",
    )
    try:
        from tests.faults.trials.clusters import KINDS, killed_and_resumed
    except ImportError:
        row.good = "not run: Ray is not installed"
        return row
    wanted = 50 if long else 2
    kills: Counter[str] = Counter()
    redone, in_flight = 0.0, 0
    for seed in itertools.count(1):
        with memory_folder() as folder:
            n_kills = min(10, wanted - row.n_tried)
            done = killed_and_resumed(folder, Random(seed), n_kills, 700 if long else 200)
        row.n_tried += len(done.kills)
        kills.update(done.kills)
        redone, in_flight = redone + done.n_units_redone, in_flight + done.n_units_in_flight
        row.problems += [f"run {seed}: {problem}" for problem in done.problems]
        if row.n_tried >= wanted or row.problems:
            break
    row.good = f"{seed} runs equal to undisturbed ones byte for byte"
    row.detail = (
        f"{', '.join(f'{kind}s {kills[kind]}' for kind in KINDS)}; {redone:.0f} units encoded again, of "
        f"{in_flight} in flight when something was killed"
    )
    return row


def power_loss(long: bool) -> Row:
    """Check states that a power cut may leave, no two of them equal."""
    row = Row("power loss, replayed from the log of operations", "5,000 states, 0 bad", unit="states")
    for state in itertools.islice(_states(Random(0)), 5000 if long else 300):
        row.n_tried += 1
        row.problems += [f"{state.scenario}, {state.moment}: {problem}" for problem in state.problems]
    return row


def _states(random: Random) -> Iterator[State]:
    seen: set[bytes] = set()
    for scenario in itertools.cycle(SCENARIOS):
        with memory_folder() as folder:
            yield from states(scenario, random, folder, seen=seen)


def disks(long: bool) -> Row:
    """Let a disk fail at every operation of everything a store does."""
    row = Row(
        "disk full, over quota, read-only, failing to write or sync, at every operation",
        "a clear error with path and bytes, resumes when space returns",
        unit="points",
    )
    by_fault = dict.fromkeys(DISK_FAULTS, 0)
    for (name, fault), scenario in itertools.product(
        DISK_FAULTS.items(), SCENARIOS if long else SCENARIOS[:3]
    ):
        with memory_folder() as folder:
            for point in fail_everywhere(scenario, fault, folder):
                row.n_tried += 1
                by_fault[name] += 1
                row.problems += [f"{name}, {point.scenario}, {point.place}: {p}" for p in point.problems]
    row.detail = ", ".join(f"{name} {n}" for name, n in by_fault.items())
    return row


def small_disks(long: bool) -> Row:
    """Fill real disks of 2 MiB, take their inodes, make them read-only."""
    row = Row("the same on real, tiny disks (tmpfs of 2 MiB)", "0 segfaults, a clear error, resumes")
    files = (
        "tests/faults/test_disks.py",
        "tests/extraction/endings/test_processes.py",
        "tests/cli/test_bad_input.py",
    )
    return _tested(row, *files, "-k", "real or disk_too_small or read_only_disk")


def flips(long: bool) -> Row:
    """Flip one bit in any file of a store."""
    row = Row(
        "one flipped bit anywhere in any file", "10,000 trials, 0 silent", unit="trials", good="0 silent"
    )
    with memory_folder() as folder:
        found = flip_many(folder, 10_000 if long else 300)
    row.n_tried, row.problems = found.n, found.bad
    row.detail = f"{found.counts['named']:,} named, {found.counts['no effect']:,} where nothing depends on it"
    return row


def cuts(long: bool) -> Row:
    """Cut, take away, exchange and replace shards, also under their readers."""
    row = Row(
        "shard cut, missing, exchanged; cut while a reader has it open", "named, no crash of the process"
    )
    return _tested(row, "tests/attacks/test_cut_files.py", "tests/store/test_damage.py")


def attacks(long: bool) -> Row:
    """Use hostile stores."""
    row = Row(
        "hostile HDF5 files, manifests, indexes, canaries, directories",
        "30 or more, 0 accepted, each under 1 s and 50 MB",
        unit="attacks",
        good="0 accepted",
    )
    with memory_folder() as folder:
        found = attack_all(folder)
    row.n_tried, row.problems = found.n, found.bad
    if found.seconds >= 1:
        row.problems.append(f"one took {found.seconds:.2f} s")
    row.detail = f"at most {found.seconds:.2f} s of processor time and {found.memory / 1e6:.0f} MB"
    return row


def mutations(long: bool) -> Row:
    """Feed mutated shards to readers."""
    row = Row(
        "mutated shards fed to readers in processes with limits",
        "5,000, the parent never dies",
        unit="shards",
        good="0 deaths, 0 wrong vectors",
    )
    with memory_folder() as folder:
        found = mutate_many(folder, 5_000 if long else 150)
    row.n_tried, row.problems = found.n, found.bad
    row.detail = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(found.counts.items()))
    return row


def crowds(long: bool) -> Row:
    """Let many processes write, read, merge and collect garbage at once."""
    row = Row(
        "8 writers x 50 commits of overlapping sentences, 4 readers, through merges, gc, repair and verify, "
        "killed at random",
        "0 lost, 0 duplicates, 0 errors",
        unit="commits",
        good="0 lost, 0 twice, 0 errors",
    )
    size = {} if long else {"n_writers": 4, "n_commits": 8, "n_readers": 2, "n_kills": 2}
    with memory_folder() as folder:
        found = crowd(folder, **size)
    row.n_tried, row.problems, row.detail = found.n_commits, found.problems, found.detail
    return row


def workers(long: bool) -> Row:
    """Read epochs through DataLoader workers."""
    from tests.dataset.workers import START_METHODS, example_dataset, run_epochs

    row = Row(
        "DataLoader workers by fork, spawn and forkserver, 20 epochs",
        "bit-equal, memory grows by less than 5%",
        unit="batches",
        good="bit-equal",
    )
    grown = []
    with memory_folder() as folder:
        dataset = example_dataset(folder / "store", 3_000 if long else 300)
        for method in START_METHODS:
            found = run_epochs(dataset, method, n_epochs=20 if long else 4, token_budget=2048)
            row.n_tried += found.n_batches
            row.problems += [f"{method}: {which}" for which in found.different]
            grown.append(f"{method} {found.growth:+.1%}")
            if found.growth >= 0.05:
                row.problems.append(f"{method}: resident memory grew by {found.growth:.1%}")
    row.detail = f"resident memory from the second epoch on: {', '.join(grown)}"
    return row


def recipes(long: bool) -> Row:
    """Change every field of a recipe, and a bit of every tensor of the weights."""
    row = Row("every recipe field changed in turn; one weight byte changed", "refused, field named")
    return _tested(
        row,
        "tests/extraction/agreement/test_recipe_fields.py",
        "tests/encoders/flair/test_recipe.py",
        "tests/encoders/flair/test_extract.py",
    )


def canaries(long: bool) -> Row:
    """Let encoders drift."""
    row = Row("an encoder that gives other vectors by the same recipe", "refused, both figures named")
    return _tested(row, "tests/extraction/agreement/test_canary_checks.py", "tests/store/test_canaries.py")


def sentences(long: bool) -> Row:
    """Store odd sentences."""
    row = Row(
        "sentences: empty, one token, 10,000 tokens, emoji, NUL, `/`, lone surrogates, 300-byte tokens",
        "the rule in FORMAT.md, round trip exact",
    )
    return _tested(row, "tests/extraction/agreement/test_sentence_rule.py", "tests/test_keys.py")


def _tested(row: Row, *arguments: str) -> Row:
    """Run tests in a process of their own and count them."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode < 0:
            row.problems.append(f"pytest died of signal {-done.returncode}")
            return row
        cases = list(ElementTree.parse(report.name).iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    row.n_tried, row.unit, row.good = len(cases) - skipped, "tests", "all pass"
    row.detail = f"{skipped} skipped" if skipped else ""
    for case in cases:
        for outcome in (*case.iter("failure"), *case.iter("error")):
            row.problems.append(f"{case.get('name')}: {outcome.get('message', '')[:200]}")
    if not row.n_tried:
        row.problems.append(f"no test ran: {done.stdout[-300:]}")
    return row


ROWS: dict[str, Callable[[bool], Row]] = {
    "kills": kills,
    "exports": exports,
    "extractions": extractions,
    "cluster": cluster,
    "power-loss": power_loss,
    "disks": disks,
    "small-disks": small_disks,
    "flips": flips,
    "cuts": cuts,
    "attacks": attacks,
    "mutations": mutations,
    "crowd": crowds,
    "workers": workers,
    "recipes": recipes,
    "canaries": canaries,
    "sentences": sentences,
}
