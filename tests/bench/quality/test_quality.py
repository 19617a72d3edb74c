"""The plan, the resumption and the table of the quality benchmark, without training anything."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
from click.testing import CliRunner

from featurestore import load_encoder
from tests.bench.quality.carried_store import carried_vectors
from tests.bench.quality.plan import COLUMNS, ROWS, Results, Setup, make_plan
from tests.bench.quality.quality import main, score, table

CONLLU = "1\t{}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n"


@pytest.fixture
def corpora(tmp_path):
    folder = tmp_path / "corpora"
    for split in ("train", "dev", "test"):
        for name, text in (
            (f"ud-ewt/en_ewt-ud-{split}.conllu", CONLLU.format(split)),
            (f"sentence-polarity/{split}.tsv", f"label\ttext\npos\ta {split} film\nneg\ta film\n"),
        ):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@pytest.fixture
def setup(corpora, tmp_path, tiny_elmo_spec):
    options = tiny_elmo_spec.removeprefix("elmo:").split(",")[0]
    untrained = f"elmo:untrained:{options}?seed=0"
    return Setup(
        corpora, tmp_path / "work", tiny_elmo_spec, untrained, options={"linear-upos": ("--lr", "1")}
    )


def result(cell, accuracy, **more):
    return {
        "row": cell.row, "column": cell.column, "seed": cell.seed, "source": cell.source,
        "options": list(cell.options), "corpora": cell.corpora, "accuracy": accuracy, **more,
    }  # fmt: skip


def plan(setup, rows=("untrained", "average", "zero", "carried", "int8", "plain"), seeds=2):
    return {step.row: step for step in make_plan(setup, rows, list(COLUMNS), seeds, "average")}


def test_a_plan_has_a_training_for_every_cell(setup):
    steps = plan(setup)
    assert len(steps["average"].cells) == len(COLUMNS) * 2
    assert {cell.column for cell in steps["plain"].cells} == {"bilstm-upos", "bilstm-sentiment"}
    train, test = next(cell for cell in steps["int8"].cells if cell.column == "linear-upos").commands
    assert train[train.index("--lr") + 1] == "1"
    assert test[test.index("evaluate") + 1] == train[train.index("--out") + 1]
    assert steps["int8"].command[steps["int8"].command.index("--codec") + 1] == "int8"
    assert "carried_store" in steps["carried"].command[2]


def test_rows_of_the_same_recipe_share_store_and_results_and_others_do_not(setup):
    steps = plan(setup)
    assert steps["average"].store == steps["zero"].store
    stores = {steps[row].store for row in ("untrained", "average", "carried", "int8")}
    assert len(stores) == 4
    results = Results(setup.work / "results.jsonl")
    results.add(result(steps["average"].cells[0], 0.9))
    assert results.get(steps["zero"].cells[0])["accuracy"] == 0.9
    assert results.get(steps["int8"].cells[0]) is None


def test_results_survive_and_count_only_for_the_same_experiment(setup, corpora):
    path = setup.work / "results.jsonl"
    cell = plan(setup)["average"].cells[0]
    results = Results(path)
    results.add(result(cell, 0.5))
    with path.open("a") as file:
        file.write('{"row": "average", "colu')  # killed while it wrote
    again = Results(path)
    assert again.get(cell)["accuracy"] == 0.5
    again.add(result(plan(setup)["int8"].cells[0], 0.4))
    assert Results(path).get(cell)["accuracy"] == 0.5
    assert Results(path).get(plan(setup)["int8"].cells[0])["accuracy"] == 0.4

    other_options = Setup(corpora, setup.work, setup.encoder, setup.untrained)
    assert again.get(plan(other_options)["average"].cells[0]) is None
    file = corpora / "ud-ewt/en_ewt-ud-test.conllu"
    file.write_text(CONLLU.format("other"))
    assert again.get(plan(setup)["average"].cells[0]) is None


def test_the_table_has_means_spreads_and_the_seeds_where_they_differ(setup):
    steps = plan(setup, rows=("average", "plain"))
    results = Results(setup.work / "results.jsonl")
    for row in ("average", "plain"):
        for cell in steps[row].cells:
            if not (row == "plain" and cell.seed and cell.column == "bilstm-upos"):
                results.add(result(cell, 0.9 + 0.01 * cell.seed, layer_weights=[0.25, 0.75]))
    text = table(list(steps.values()), list(COLUMNS), results, "elmo:x", "average").splitlines()
    spread = f"90.50 ± {statistics.stdev([90, 91]):.2f}"
    assert text[2] == f"| elmo:x, average of layers | {' | '.join([spread] * 4)} |"
    assert text[3].split(" | ")[1:] == ["–", "90.00 (1)", "–", f"{spread} |"]
    assert "over 2 seeds" in text[5]
    assert "Layers weigh 0.25, 0.75 in average, linear probe UPOS." in text


def test_score_of_one_seed_has_no_spread():
    assert score([{"accuracy": 0.5}], 1) == "50.00"
    assert score([], 1) == "–"


def test_dry_run_says_what_is_left_and_runs_nothing(setup):
    steps = plan(setup, rows=("average",), seeds=1)
    results = Results(setup.work / "results.jsonl")
    results.add(result(steps["average"].cells[1], 0.75))
    arguments = ["--corpora", setup.corpora, "--work", setup.work, "--encoder", setup.encoder]
    arguments += ["--results", results.path]
    arguments += ["--rows", "average", "--seeds", 1, "--column-options", "linear-upos", "--lr 1", "--dry-run"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "average: 1 of 4 trainings done" in done.output
    assert "bilstm-upos, seed 0" not in done.output
    assert "| – | 75.00 | – | – |" in done.output
    assert "linear-upos: --lr 1" in done.output
    assert not (setup.work / "stores").exists()
    assert len(json.loads((setup.work / "results.jsonl").read_text())) > 5


def test_names_of_rows_and_columns_are_checked():
    for option in ("--rows", "--columns"):
        done = CliRunner().invoke(main, ["--corpora", ".", option, "nonsense"])
        assert done.exit_code == 2
        assert "no nonsense" in done.output
    assert "untrained" in ROWS


@pytest.mark.parametrize("layers", ["average", "all", "top"])
def test_carried_vectors_start_as_ordinary_ones_and_then_differ(corpora, tiny_elmo_spec, layers):
    file = corpora / "sentence-polarity/train.tsv"
    found = list(carried_vectors([file, file], tiny_elmo_spec, layers=layers, precision="float32"))
    encoder = load_encoder(tiny_elmo_spec, layers=layers, device="cpu", initial_state="zero")
    first, second, again, _ = (vectors for _, vectors in found)
    plain = encoder.encode([tokens for tokens, _ in found[:2]])
    np.testing.assert_allclose(first, plain[0], atol=1e-5)
    np.testing.assert_allclose(again, plain[0], atol=1e-5)
    assert second.shape == plain[1].shape
    assert np.abs(second - plain[1]).max() > 1e-3
