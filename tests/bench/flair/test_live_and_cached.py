"""The plan, the resumption and the tables of the Flair benchmark; and its measurements, on tiny models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from tests.bench.flair.live_and_cached import main
from tests.bench.flair.plan import Extent, Results, make_plan
from tests.bench.flair.tables import STORE, TRAINING, store_line, tables, training_lines
from tests.bench.flair.tasks import ROWS, SIDES, TASKS, Setup, read_splits

TRAINED, SPEED = Extent(0, 10, 3), Extent(20, 2, 2)
SMALL = {"characters": "1x8", "transformer": "1x16x2"}


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """The first sentences of the sample corpora, where the benchmark looks for its own."""
    folder = tmp_path_factory.mktemp("corpora")
    for sample, files, separator in (
        ("tagging/{}.conllu", TASKS["upos"].files, "\n\n"),
        ("sentiment/{}.tsv", TASKS["sentiment"].files, "\n"),
    ):
        for split, source, n in (("train", "train", 40), ("dev", "dev", 12), ("test", "train", 70)):
            with open("data/" + sample.format(source), encoding="utf-8") as file:
                blocks = file.read().rstrip("\n").split(separator)
            header = 0 if separator == "\n\n" else 1
            kept = blocks[:header] + blocks[header:][-n:]
            path = folder / files.format(split)
            path.parent.mkdir(exist_ok=True)
            path.write_text(separator.join(kept) + separator, encoding="utf-8")
    return folder


@pytest.fixture
def setup(corpora, tmp_path, tiny_elmo_spec):
    return Setup(corpora, tmp_path / "work", tiny_elmo_spec, SMALL)


def plan(setup, tasks=("upos",), rows=tuple(ROWS), sides=tuple(SIDES), trained=TRAINED, threads=2):
    blocks = make_plan(setup, tasks, rows, sides, trained=trained, speed=SPEED, threads=threads)
    return {(block.task, block.row): block for block in blocks}


def trained(seconds, accuracy, tokens=100, **more):
    return {
        "seconds": seconds, "vector_seconds": [s / 4 for s in seconds], "dev": [0.5], "accuracy": accuracy,
        "memory_before": 5e8, "peak": 9e8, "mapped": 2e6, "model_bytes": 1_500_000, "train_sentences": 40,
        "train_tokens": tokens, "all_train_sentences": 40, "all_train_tokens": 100, **more,
    }  # fmt: skip


def fill(block, results):
    """Invent results: live epochs take 12, 8, 8 seconds and cached ones 2, 1, 1; seeds differ in score."""
    for each in block.extractions:
        results.add(each, {"seconds": 30.2, "n_sentences": 60})
    for each in block.trainings:
        first, later = {"live": (12, 8), "kept": (12, 1.5), "cached": (2, 1)}[each.side]
        seconds = [first, *[later] * (block.extent.epochs - 1)]
        better = 0.004 * each.seed if each.side == "cached" else 0
        results.add(each, trained(seconds, 0.9 + 0.01 * each.seed + better))
    for each in block.swaps:
        results.add(each, {"n": 1000, "differing": each.seed})
    looked_up = {"store_bytes": 4.2e8, "tokens_per_second": 1_234_567.0, "first": 400_000.0}
    results.add(block.lookup, {**looked_up, "vectors_alone": 2_345_678.0})


class TestPlan:
    def test_trained_rows_are_measured_in_full_and_random_ones_on_a_part(self, setup):
        blocks = plan(setup)
        elmo, stack = blocks["upos", "elmo"], blocks["upos", "stack"]
        assert elmo.extent == TRAINED
        assert stack.extent == SPEED
        assert len(elmo.trainings) == 3 * len(SIDES)
        assert [each.what for each in stack.extractions] == ["elmo", "characters"]
        assert plan(replace(setup, elmo="elmo:untrained-small?seed=0"))["upos", "elmo"].extent == SPEED

    def test_live_and_cached_of_a_seed_run_one_after_the_other(self, setup):
        trainings = plan(setup, sides=("live", "cached"))["upos", "elmo"].trainings
        assert [(each.seed, each.side) for each in trainings[:3]] == [(0, "live"), (0, "cached"), (1, "live")]

    def test_a_swap_takes_the_model_that_was_trained_on_the_store(self, setup):
        block = plan(setup)["upos", "elmo"]
        for training, swap in zip(block.trainings[2::3], block.swaps, strict=True):
            out = training.command[training.command.index("--out") + 1]
            assert training.side == "cached"
            assert swap.command[swap.command.index("--model") + 1] == f"{out}/model.pt"
        assert not plan(setup, sides=("live",))["upos", "elmo"].swaps

    def test_lookup_has_one_thread_and_the_rest_what_was_asked_for(self, setup):
        block = plan(setup, threads=7)["upos", "elmo"]
        assert block.lookup.threads == 1
        assert {each.threads for each in block.measurements if each is not block.lookup} == {7}


class TestResults:
    def test_extractions_of_the_same_vectors_are_shared(self, setup):
        blocks = plan(setup)
        results = Results(setup.work / "results.jsonl")
        results.add(blocks["upos", "characters"].extractions[0], {"seconds": 1})
        assert results.get(blocks["upos", "stack"].extractions[1]) == {"seconds": 1}
        results.add(blocks["upos", "elmo"].extractions[0], {"seconds": 2})
        assert results.get(blocks["upos", "stack"].extractions[0]) is None  # of fewer sentences

    def test_they_survive_and_count_only_for_the_same_experiment(self, setup, corpora, tmp_path):
        path = setup.work / "results.jsonl"
        of = plan(setup)["upos", "elmo"].trainings
        Results(path).add(of[0], {"accuracy": 0.5}, seconds=3)
        with path.open("a") as file:
            file.write('{"of": {"kind": "tra')  # killed while it wrote
        again = Results(path)
        assert again.get(of[0]) == {"accuracy": 0.5}
        again.add(of[1], {"accuracy": 0.6})
        assert Results(path).get(of[1]) == {"accuracy": 0.6}
        assert Results(path).get(of[3]) is None

        others = (plan(setup, threads=3), plan(setup, trained=Extent(0, 9, 3)), plan(setup, ("sentiment",)))
        for other in others:
            assert again.get(next(iter(other.values())).trainings[0]) is None
        moved = tmp_path / "other"
        for task in TASKS:
            for file in setup.files(task):
                copy = moved / file.relative_to(corpora)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
        elsewhere = replace(setup, corpora=moved)
        assert again.get(plan(elsewhere)["upos", "elmo"].trainings[0]) == {"accuracy": 0.5}
        elsewhere.files("upos")[2].write_text("1\tother\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n")
        assert again.get(plan(elsewhere)["upos", "elmo"].trainings[0]) is None


class TestTables:
    def test_training_has_medians_peaks_and_spreads(self, setup):
        block = plan(setup)["upos", "elmo"]
        results = Results(setup.work / "results.jsonl")
        fill(block, results)
        live, kept, cached = training_lines(setup, block, list(SIDES), results)
        assert live.split(" | ")[1:] == [
            "live, for every batch", "40 sentences × 10", "12.0", "8.0", "2.00", "900", "1.50",
            "91.00 ± 1.00 |",
        ]  # fmt: skip
        assert "| 12.0 | 1.5 |" in kept
        assert "| 2.0 | 1.0 | 0.25 |" in cached
        assert live.count("|") == kept.count("|") == len(TRAINING) + 1

    def test_the_store_has_its_costs_and_differences_by_seed(self, setup):
        block = plan(setup)["upos", "elmo"]
        results = Results(setup.work / "results.jsonl")
        fill(block, results)
        line = store_line(setup, block, results)
        assert line.split(" | ")[1:] == [
            "60", "30", "420", "1,234,567", "400,000", "2,345,678", "8.0 x", "+0.40 ± 0.40",
            "1.00 (3 of 3,000 tokens) |",
        ]  # fmt: skip
        assert line.count("|") == len(STORE) + 1

    def test_a_part_is_extrapolated_and_random_weights_are_marked(self, setup):
        block = plan(setup)["upos", "transformer"]
        results = Results(setup.work / "results.jsonl")
        results.add(block.trainings[0], trained([12, 8], 0.3, tokens=25))
        (line,) = training_lines(setup, block, ["live"], results)
        assert line.startswith("| BERT 1x16x2 (random weights: speed only) |")
        assert "| 12.0 (all: ≈ 48) | 8.0 (all: ≈ 32) |" in line
        assert line.endswith("| 30.00 (1 seed) † |")
        text = tables(setup, [block], ["live"], results)
        assert "† Random weights" in text
        assert "extrapolated by tokens" in text

    def test_whole_and_trained_rows_need_no_such_notes(self, setup):
        block = plan(setup)["upos", "elmo"]
        results = Results(setup.work / "results.jsonl")
        fill(block, results)
        text = tables(setup, [block], list(SIDES), results)
        assert "†" not in text
        assert "extrapolated" not in text
        assert "up to 2 MB are pages of the store" in text

    def test_nothing_measured_is_a_table_of_dashes(self, setup):
        block = plan(setup)["upos", "elmo"]
        results = Results(setup.work / "results.jsonl")
        assert store_line(setup, block, results).endswith(" | –" * (len(STORE) - 1) + " |")
        assert "MB (median)" not in tables(setup, [block], list(SIDES), results)


def test_dry_run_says_what_is_left_and_runs_nothing(setup):
    block = plan(setup, rows=("transformer",))["upos", "transformer"]
    Results(setup.work / "results.jsonl").add(block.trainings[0], trained([12, 8], 0.3, tokens=25))
    arguments = ["--corpora", setup.corpora, "--work", setup.work, "--elmo", setup.elmo, "--threads", 2]
    arguments += ["--characters", SMALL["characters"], "--transformer", SMALL["transformer"]]
    arguments += ["--speed-sentences", 20, "--speed-epochs", 2, "--row", "transformer", "--task", "upos"]
    done = CliRunner().invoke(main, [str(argument) for argument in [*arguments, "--dry-run"]])
    assert done.exit_code == 0, done.output
    assert "upos transformer: 1 of 10 measurements done" in done.output
    assert f"write {setup.path('transformer')}" in done.output
    assert "| 12.0 (all: ≈ 48) |" in done.output
    assert not setup.stores.exists()


def test_a_part_of_a_corpus_is_the_same_share_of_each_split(setup):
    whole = read_splits(setup, "sentiment", 0)
    part = read_splits(setup, "sentiment", 20)
    assert [len(whole[split].examples) for split in ("train", "dev", "test")] == [40, 12, 70]
    assert [len(part[split].examples) for split in ("train", "dev", "test")] == [20, 6, 35]
    assert part["train"].examples == whole["train"].examples[::2]
    assert part["train"].all_tokens == whole["train"].n_tokens
    assert part["train"].all_sentences == 40


@pytest.mark.slow
class TestMeasurements:
    """Each for real, with the tiny ELMo, a tiny character model and a stack of both."""

    @pytest.fixture(scope="class")
    @staticmethod
    def measured(corpora, tmp_path_factory, tiny_elmo_spec):
        """A function that runs one measurement in this process and returns what it prints."""
        pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")
        from tests.bench.flair import measure as flair_measure
        from tests.bench.flair import random_models as flair_random_models

        work = tmp_path_factory.mktemp("flair-bench")
        setup = Setup(corpora, work, tiny_elmo_spec, SMALL)

        def output(command, *arguments):
            done = CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            return json.loads(done.stdout)

        def run(*arguments, task="upos"):
            told = [*setup.options, "--task", task, "--sentences", 20]
            return output(flair_measure.main, *told, *arguments)

        for part in SMALL:
            files = [setup.files(task)[0] for task in TASKS] if part == "transformer" else []
            out = ["--shape", SMALL[part], "--out", setup.path(part)]
            output(flair_random_models.main, part, *files, *out)
        run.setup = setup
        return run

    @pytest.mark.parametrize("task", TASKS)
    def test_a_stack_live_kept_and_cached(self, measured, task):
        setup = measured.setup
        for part in ROWS["stack"]:
            extracted = measured("extract", "--part", part, task=task)
            assert extracted["n_encoded"] == extracted["n_distinct"] > 40
        found = {}
        for side in SIDES:
            out = setup.work / "models" / f"{task}-{side}"
            options = ["--row", "stack", "--seed", 0, "--epochs", 2, "--out", out, "--side", side]
            found[side] = measured("train", *options, task=task)
            assert out.joinpath("model.pt").exists() == (side == "cached")
            assert len(found[side]["seconds"]) == len(found[side]["dev"]) == 2
            assert all(
                0 <= vectors < whole
                for vectors, whole in zip(found[side]["vector_seconds"], found[side]["seconds"], strict=True)
            )
            assert found[side]["peak"] >= found[side]["memory_before"] > 100 << 20
        live, kept, cached = found.values()
        # Kept vectors are looked at, not computed: the second epoch's take next to nothing.
        assert kept["vector_seconds"][1] < live["vector_seconds"][1]
        assert cached["mapped"] > 0
        assert cached["model_bytes"] < live["model_bytes"]
        # Same weights, batches and, but for float16, vectors.
        assert abs(cached["accuracy"] - live["accuracy"]) < 0.1
        assert live["train_sentences"] == 20
        assert live["all_train_sentences"] == 40

        model = setup.work / "models" / f"{task}-cached" / "model.pt"
        swapped = measured("swap", "--row", "stack", "--model", model, task=task)
        assert swapped["cached_accuracy"] == cached["accuracy"]
        assert swapped["differing"] < 0.1 * swapped["n"]
        if task == "sentiment":
            assert swapped["n"] == 35
        looked_up = measured("lookup", "--row", "stack", task=task)
        assert min(looked_up["vectors_alone"], looked_up["tokens_per_second"]) > 0
        assert looked_up["dim"] == 32 + 8
        assert looked_up["n_tokens"] == live["train_tokens"]

    def test_random_models_have_the_sizes_asked_for(self, measured):
        from featurestore import load_encoder

        setup = measured.setup
        assert load_encoder(setup.spec("characters")).dim == 8
        assert load_encoder(setup.spec("transformer")).dim == 16
        config = json.loads((setup.path("transformer") / "config.json").read_text())
        assert (config["vocab_size"], config["num_hidden_layers"]) == (30_522, 1)
        pieces = (setup.path("transformer") / "vocab.txt").read_text().splitlines()
        assert len([piece for piece in pieces if len(piece) > 4]) > 50

    def test_an_extraction_that_was_killed_is_measured_from_its_start(self, measured):
        first = measured("extract", "--part", "elmo", task="sentiment")
        again = measured("extract", "--part", "elmo", task="sentiment")
        assert again["n_encoded"] == first["n_encoded"] > 0
        assert again["n_cached"] == 0


def test_mapped_memory_is_that_of_the_files_of_a_folder(tmp_path):
    pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")
    from tests.bench.flair.measure import mapped_memory

    (tmp_path / "a folder" / "deep").mkdir(parents=True)
    file = tmp_path / "a folder" / "deep" / "file"
    file.write_bytes(bytes(1 << 20))
    assert mapped_memory(tmp_path / "a folder") == 0
    mapped = np.memmap(file, np.uint8, mode="r")
    assert mapped.sum() == 0
    assert mapped_memory(tmp_path / "a folder") == 1 << 20
    assert mapped_memory(tmp_path / "a") == 0


def test_a_wrong_shape_is_refused(tmp_path):
    from tests.bench.flair.random_models import main as write

    done = CliRunner().invoke(write, ["characters", "--shape", "1024", "--out", str(tmp_path / "lm.pt")])
    assert done.exit_code == 2
    assert "expected 2 numbers" in done.output
