"""Trainings into a folder: stopped and gone on, refused, on full disks, and what the folder then holds."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from featurestore import load_encoder
from featurestore.corpora.corpus import open_corpus
from featurestore.encoders.elmo.files.weights import read_weights
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import CorpusError
from featurestore.pretraining.progress import PretrainProgress
from featurestore.pretraining.runner import Pretraining
from featurestore.pretraining.settings import PretrainConfig
from featurestore.pretraining.trainer import Perplexity
from tests.kit.pretraining import QUICK, TINY, drawn_text, training, write_text
from tests.pretraining.folders import FILES, StopsAt, same_model


class Notes(PretrainProgress):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, message: str) -> None:
        self.notices.append(message)


def test_the_folder_is_a_model(undisturbed):
    assert {path.name for path in undisturbed.folder.iterdir()} == FILES
    assert undisturbed.status == "complete"
    assert len(undisturbed.history) == 3
    encoder = load_encoder(f"elmo:{undisturbed.folder}/options.json,{undisturbed.folder}/weights.hdf5")
    (vectors,) = encoder.encode([("the", "bee", "sees", "nothing")])
    assert vectors.shape[-1] == 16
    assert np.isfinite(vectors).all()
    assert ElmoOptions.read(undisturbed.folder / "options.json") == TINY


def test_float16_weights_are_the_same_numbers_rounded(undisturbed, corpus, tmp_path):
    report = training(corpus, tmp_path / "half", weights_dtype="float16").run()
    half = read_weights(report.folder / "weights.hdf5", TINY)
    full = read_weights(undisturbed.folder / "weights.hdf5", TINY)
    for name, array in half.items():
        assert array.dtype == np.float16
        # Forget biases are rounded to what is exact with their 1 added.
        assert np.allclose(array, full[name].astype(np.float16), rtol=0, atol=5e-4 * name.endswith("/B")), (
            name
        )
    encoder = load_encoder(f"elmo:{report.folder}/options.json,{report.folder}/weights.hdf5")
    assert np.isfinite(encoder.encode([("the", "bee")])[0]).all()
    assert json.loads((report.folder / "card.json").read_text())["weights_dtype"] == "float16"


def test_the_kept_weights_are_those_of_the_best_pass(corpus, tmp_path, monkeypatch):
    kept = []

    class Weights(PretrainProgress):
        def epoch_finished(self, report):
            kept.append(made.trainer.network.weights())

    made = training(corpus, tmp_path / "model", changed={"epochs": 4}, progress=Weights())
    measured = iter(
        [Perplexity(9.0, 8.0), Perplexity(10.0, 7.0), Perplexity(8.0, 9.0), Perplexity(10.0, 7.0)]
    )
    monkeypatch.setattr(made.trainer, "perplexity", lambda text: next(measured))
    report = made.run()
    assert [each.best for each in report.history] == [True, True, False, False]
    assert report.best.epoch == 2
    found = read_weights(report.folder / "weights.hdf5", TINY)
    assert all(np.array_equal(array, kept[1][name]) for name, array in found.items())
    card = json.loads((report.folder / "card.json").read_text())
    assert card["best"] == report.best.to_dict()
    assert [each["forward"] for each in card["history"]] == [9.0, 10.0, 8.0, 10.0]


@pytest.mark.parametrize(("n_updates", "every"), [(1, 1000), (4, 0), ("pass", 1000), ("pass + 1", 0)])
def test_stopped_again_and_again_it_ends_the_same(undisturbed, corpus, tmp_path, n_updates, every):
    n_pass = training(corpus, tmp_path / "n").trainer.steps_per_epoch
    n_updates = {"pass": n_pass, "pass + 1": n_pass + 1}.get(n_updates, n_updates)
    n_stops = 0
    while True:
        made = training(corpus, tmp_path / "model", progress=StopsAt(n_updates), checkpoint_seconds=every)
        try:
            report = made.run()
        except KeyboardInterrupt:
            n_stops += 1
            continue
        break
    assert n_stops == 3 * n_pass // n_updates
    assert n_pass > 4
    assert same_model(report, undisturbed)
    assert (report.folder / "card.json").exists()


@pytest.mark.parametrize("epoch", [1, 3])
def test_stopped_after_a_pass(undisturbed, corpus, tmp_path, epoch):
    with pytest.raises(KeyboardInterrupt):
        training(corpus, tmp_path / "model", progress=StopsAt(epoch=epoch)).run()
    assert same_model(training(corpus, tmp_path / "model").run(), undisturbed)


@pytest.mark.parametrize("place", ["update", "measure", "describe", "save"])
@pytest.mark.parametrize("at", [2, 3])
def test_a_signal_in_the_middle_of_something(
    undisturbed, corpus, tmp_path, monkeypatch, ctrl_c_interrupts, place, at
):
    """Half an update, half a measurement, a model without its card: none of them may be taken for done."""
    made = training(corpus, tmp_path / "model", checkpoint_seconds=0)
    owner, name = {
        "update": (made.trainer.optimizer, "step"),
        "measure": (made.trainer.network, "forward"),
        "describe": (made._folder, "describe"),
        "save": (made._checkpoint, "write"),
    }[place]
    original, n_calls = getattr(owner, name), 0

    def interrupted(*arguments, **more):
        nonlocal n_calls
        # The network runs in training too: measuring is told by its mode.
        n_calls += place != "measure" or not made.trainer.network.training
        if n_calls == at:
            n_calls += 1
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **more)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    report = training(corpus, tmp_path / "model").run()
    assert same_model(report, undisturbed)
    assert json.loads((report.folder / "card.json").read_text())["weights_sha256"] == report.weights_sha256


def test_signals_are_handled_as_before_afterwards(corpus, tmp_path, ctrl_c_interrupts):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    training(corpus, tmp_path / "model", changed={"epochs": 1}).run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_trains_in_another_thread(undisturbed, corpus, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(lambda: training(corpus, tmp_path / "model").run()).result()
    assert same_model(report, undisturbed)


def test_a_finished_training_is_left_alone(finished, corpus, undisturbed):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished.iterdir()}
    notes = Notes()
    report = training(corpus, finished, progress=notes).run()
    assert same_model(report, undisturbed)
    assert report.status == "complete"
    assert "finished, nothing is left to do" in notes.notices[-1]
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished.iterdir()} == before


def test_the_global_random_numbers_are_as_before(corpus, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made = training(corpus, tmp_path / "model", changed={"epochs": 1})
    assert torch.equal(torch.get_rng_state(), before)
    made.run()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_card_tells_where_the_model_comes_from(corpus, tmp_path):
    licences = ["corpus.txt: written for\nthis test, public domain"]
    report = training(
        corpus,
        tmp_path / "model",
        changed={"epochs": 1},
        licences=licences,
        command="featurestore pretrain x",
    ).run()
    card = json.loads((report.folder / "card.json").read_text())
    sentences = drawn_text(40)
    n_tokens = sum(map(len, sentences))
    assert (
        card["corpora"][0].items() >= {"name": "corpus.txt", "n_sentences": 40, "n_tokens": n_tokens}.items()
    )
    assert card["n_train_tokens"] + card["n_held_out_tokens"] == n_tokens
    assert card["n_train_sentences"] == 36
    assert card["weights_sha256"] == report.weights_sha256
    assert card["options"] == TINY.to_dict()
    assert card["settings"] == replace(QUICK, epochs=1).to_dict()
    assert card["history"] == [each.to_dict() for each in report.history]
    assert (card["licences"], card["command"]) == (licences, "featurestore pretrain x")
    words = (report.folder / "vocabulary.txt").read_text().splitlines()
    assert words[:3] == ["</S>", "<S>", "<UNK>"]
    assert len(words) == card["n_classes"] == report.n_classes
    text = (report.folder / "CARD.md").read_text()
    for fragment in (
        report.weights_sha256, "16 dimensions, 3 layers", "corpus.txt | 40 |",
        "- corpus.txt: written for this test",
        "    featurestore pretrain x", "| dropout | 0.2 |", f"{report.best.forward:.1f}",
    ):  # fmt: skip
        assert fragment in text


def test_odd_words_and_names_reach_the_card(tmp_path):
    """Lone surrogates and line ends in tokens (JSON can write them), and names that are not UTF-8."""
    odd = ["a\ud800", "b\nc", "d\re", "<S>", "</S>", "x" * 5000, "\x00", "<unk>"]
    name = os.fsdecode(b"caf\xe9 | corpus.jsonl")
    with (tmp_path / name).open("w") as file:
        for _ in range(12):
            file.write(json.dumps({"tokens": odd}) + "\n")
    out = tmp_path / os.fsdecode(b"mod\xe9l")
    report = training(
        tmp_path / name, out, changed={"epochs": 1}, command=f"pretrain {name}\nx", licences=["\udce9"]
    ).run()
    card = json.loads((out / "card.json").read_text())
    assert card["corpora"][0]["name"] == name
    words = (out / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert len(words) == report.n_classes
    assert {"b\\nc", "d\\re", "a\\ud800"} <= set(words)
    assert "caf\\udce9 \\| corpus.jsonl" in (out / "CARD.md").read_text(encoding="utf-8")
    assert training(tmp_path / name, out, changed={"epochs": 1}).run().weights_sha256 == report.weights_sha256


def test_the_same_text_twice_is_noticed(corpus, tmp_path):
    notes = Notes()
    training([corpus, corpus], tmp_path / "model", progress=notes)
    assert any("same sentences" in notice for notice in notes.notices)


@pytest.mark.parametrize(
    ("text", "changed", "says"),
    [
        ("only one sentence here\n", {}, "1 sentence"),
        ("word word word\n" * 9, {}, "vocabulary of 1 word"),
        ("a b\n" * 3, {"min_count": 100}, "--min-count"),
        ("\n\n", {}, "no sentences"),
    ],
)
def test_too_little_text_is_one_clear_error(tmp_path, text, changed, says):
    (tmp_path / "little.txt").write_text(text)
    with pytest.raises(CorpusError, match=says):
        training(tmp_path / "little.txt", tmp_path / "model", changed=changed)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "changed",
    [{"n_streams": 100_000}, {"n_steps": 100_000}, {"n_streams": 1, "n_steps": 1}, {"max_words": 2**40}],
)
def test_extreme_settings_on_two_sentences(tmp_path, changed):
    path = write_text(tmp_path / "two.txt", [["a", "b"], ["b", "a"]])
    report = training(path, tmp_path / "model", changed={"epochs": 2, **changed}).run()
    assert len(report.history) == 2


def test_auto_precision_is_settled_before_it_is_compared(corpus, tmp_path):
    made = training(corpus, tmp_path / "model", changed={"precision": "auto", "epochs": 1})
    assert made.trainer.config.precision in ("float32", "bfloat16")
    made.run()
    training(corpus, tmp_path / "model", changed={"precision": made.trainer.config.precision, "epochs": 1})


def test_the_defaults_are_a_training(tmp_path):
    """Pretraining as the API offers it: a list of corpora, the defaults of everything else."""
    path = write_text(tmp_path / "c.txt", drawn_text(30))
    report = Pretraining([open_corpus(path)], tmp_path / "m", TINY, PretrainConfig(epochs=1)).run()
    assert report.status == "complete"
    assert report.to_dict()["best"]["epoch"] == 1
