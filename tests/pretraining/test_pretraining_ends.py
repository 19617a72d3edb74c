"""Trainings that cannot go on: damaged checkpoints, full disks, divergence, another corpus."""

from __future__ import annotations

import contextlib
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featurestore import load_encoder
from featurestore.errors import EncoderError, ModelError, StoreWriteError, UsageError
from featurestore.pretraining.progress import PretrainProgress
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.kit.pretraining import TINY, drawn_text, training, write_text
from tests.pretraining.folders import FILES, StopsAt, same_model


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, corpus):
    """The folder of a training that was stopped in its second pass."""
    made = training(corpus, tmp_path_factory.mktemp("stopped") / "model")
    made._progress = StopsAt(made.trainer.steps_per_epoch + 2)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    return made.report("interrupted").folder


@pytest.fixture
def unfinished(stopped, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(stopped, tmp_path / "unfinished"))


@pytest.mark.parametrize(
    ("changed", "options", "named"),
    [
        (
            {"lr": 0.5, "epochs": 9, "seed": 3},
            TINY,
            ["settings.lr: 0.01 there, 0.5", "settings.epochs: 3", "settings.seed: 0", "vocabulary_sha"],
        ),
        ({"precision": "bfloat16"}, TINY, ["settings.precision: 'float32' there, 'bfloat16' asked for"]),
        (
            {},
            replace(TINY, lstm_dim=13, cell_clip=None),
            ["options.lstm.dim: 12 there, 13", "options.lstm.cell_clip: 3.0 there, None"],
        ),
        ({"min_count": 15}, TINY, ["settings.min_count", "vocabulary_sha256"]),
    ],
)  # fmt: skip
def test_another_training_is_refused_with_all_that_differs(unfinished, corpus, changed, options, named):
    before = (unfinished / "checkpoint.h5").read_bytes()
    with pytest.raises(UsageError) as refused:
        training(corpus, unfinished, changed=changed, options=options)
    for name in named:
        assert name in str(refused.value)
    assert str(unfinished / "checkpoint.h5") in str(refused.value)
    assert len([line for line in str(refused.value).splitlines() if line.startswith("  ")]) == len(named)
    assert (unfinished / "checkpoint.h5").read_bytes() == before


def test_another_corpus_is_refused(unfinished, corpus, tmp_path):
    other = write_text(tmp_path / "corpus.txt", [*drawn_text(40), ["one", "more"]])
    with pytest.raises(UsageError, match=r"corpora\[0\].n_sentences: 40 there, 41 asked for") as refused:
        training(other, unfinished)
    assert "corpora[0].tokens_sha256" in str(refused.value)
    with pytest.raises(UsageError, match="corpora: "):
        training([corpus, other], unfinished)


def test_the_same_text_elsewhere_is_the_same_corpus(unfinished, corpus, tmp_path, undisturbed):
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(corpus, tmp_path / "moved")
    assert same_model(training(Path(moved), unfinished).run(), undisturbed)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_refused_and_stays(unfinished, corpus, damage):
    path = unfinished / "checkpoint.h5"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0x10
    damaged = {"cut": content[:-200], "flipped": content, "empty": b"", "text": b"no checkpoint"}[damage]
    path.write_bytes(damaged)
    others = {p: p.read_bytes() for p in unfinished.iterdir()}
    with pytest.raises(ModelError, match="checkpoint") as refused:
        training(corpus, unfinished)
    assert str(path) in str(refused.value)
    assert {p: p.read_bytes() for p in unfinished.iterdir()} == others


@pytest.mark.parametrize("spoil", ["tensor missing", "tensor shape", "field missing", "field type"])
def test_a_sound_file_of_the_wrong_contents_is_refused(unfinished, corpus, spoil):
    made = training(corpus, unfinished)
    saved = made._checkpoint.read()
    tensors, progress = dict(saved.tensors), dict(saved.progress)
    if spoil == "tensor missing":
        del tensors["network.projection"]
    elif spoil == "tensor shape":
        tensors["network.projection"] = np.zeros((2, 2), np.float32)
    elif spoil == "field missing":
        del progress["step"]
    else:
        progress["history"] = [{"epoch": 1}]
    made._checkpoint.write(tensors, progress)
    with pytest.raises(ModelError, match="no checkpoint of this training"):
        training(corpus, unfinished)


def test_kept_weights_of_another_type_are_not_mixed(unfinished, corpus):
    with pytest.raises(UsageError, match=r"weights\.hdf5 is float32, and float16 was asked for"):
        training(corpus, unfinished, weights_dtype="float16")


def test_kept_weights_that_are_gone_are_missed_at_once(unfinished, corpus):
    (unfinished / "weights.hdf5").unlink()
    with pytest.raises(ModelError, match=r"weights\.hdf5.*empty the folder"):
        training(corpus, unfinished)


def test_a_store_takes_no_model(corpus, tmp_path):
    Store.create(tmp_path / "store", recipe=Recipe({"kind": "test", "version": 1}), dim=8)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="is a store, and takes no model: choose another --out"):
        training(corpus, tmp_path / "store")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_without_checkpoint_is_not_overwritten(finished, corpus):
    (finished / "checkpoint.h5").unlink()
    before = (finished / "weights.hdf5").read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        training(corpus, finished)
    assert (finished / "weights.hdf5").read_bytes() == before


def test_a_divergence_leaves_the_checkpoint(corpus, tmp_path, undisturbed):
    class Poison(PretrainProgress):
        n = 0

        def advanced(self, n_tokens, loss):
            self.n += 1
            if self.n == 6:
                with torch.no_grad():
                    made.trainer.network.projection.fill_(math.nan)

    made = training(corpus, tmp_path / "model", checkpoint_seconds=1000, progress=Poison())
    with pytest.raises(ModelError, match=r"diverged in step 7.*checkpoint\.h5.*smaller --lr \(now 0\.01\)"):
        made.run()
    assert same_model(training(corpus, tmp_path / "model").run(), undisturbed)


def test_a_divergence_with_a_checkpoint_at_every_step_leaves_a_sound_one(corpus, tmp_path):
    made = training(corpus, tmp_path / "model", checkpoint_seconds=0)
    n = 0

    def poison(gradient):
        nonlocal n
        n += 1
        return gradient * (math.inf if n == 4 else 1)

    made.trainer.network.projection.register_hook(poison)
    with pytest.raises(ModelError, match="diverged in step 4"):
        made.run()
    again = training(corpus, tmp_path / "model")
    assert again.trainer.step == 3
    assert all(np.isfinite(array).all() for array in again.trainer.tensors().values())


def test_an_infinite_perplexity_is_a_divergence(corpus, tmp_path):
    made = training(corpus, tmp_path / "model")
    made.trainer.perplexity = lambda text: type("P", (), {"forward": math.inf, "backward": 2.0})
    with pytest.raises(ModelError, match="diverged in pass 1: held-out perplexities inf and 2"):
        made.run()
    assert training(corpus, tmp_path / "model").trainer.step == 0


def fill(disk: Path) -> None:
    for n_bytes in (1 << 20, 512):
        with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
            while filler.write(bytes(n_bytes)):
                pass


def test_a_full_disk_while_saving_leaves_the_last_checkpoint(tmpfs, corpus, tmp_path, undisturbed):
    disk = tmpfs("10m")
    out = disk / "model"

    class Fills(PretrainProgress):
        n = 0

        def advanced(self, n_tokens, loss):
            self.n += 1
            if self.n == 5:
                fill(disk)

    with pytest.raises(StoreWriteError, match=r"no space left while writing .*checkpoint\.h5"):
        training(corpus, out, checkpoint_seconds=0, progress=Fills()).run()
    assert [path.name for path in out.iterdir()] == ["checkpoint.h5"]
    (disk / "filler").unlink()
    again = training(corpus, out)
    assert again.trainer.step == 4
    assert same_model(again.run(), undisturbed)


def test_a_full_disk_while_writing_the_weights_leaves_the_last_ones(tmpfs, corpus, undisturbed):
    disk = tmpfs("10m")
    out = disk / "model"

    class Fills(PretrainProgress):
        def advanced(self, n_tokens, loss):
            if made.trainer.step == 2 * made.trainer.steps_per_epoch:
                fill(disk)

    made = training(corpus, out, progress=Fills(), checkpoint_seconds=1000)
    with pytest.raises((StoreWriteError, EncoderError), match=r"(?i)no space"):
        made.run()
    load_encoder(f"elmo:{out}/options.json,{out}/weights.hdf5")
    assert not [path for path in out.iterdir() if path.name not in FILES]
    (disk / "filler").unlink()
    assert same_model(training(corpus, out).run(), undisturbed)


def test_a_read_only_disk_shows_before_any_training(tmpfs, corpus):
    disk = tmpfs("1m")
    tmpfs.resize(disk, "1m,ro")
    progress = StopsAt(1)
    with pytest.raises(StoreWriteError, match=r"(?i)read-only"):
        training(corpus, disk / "model", progress=progress).run()


def test_a_file_in_the_place_of_the_folder(corpus, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreWriteError, match="file"):
        training(corpus, tmp_path / "file", progress=StopsAt(1)).run()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_text_that_was_read_the_wrong_way_is_warned_of(tmp_path, caplog):
    lines = [word for tokens in drawn_text(40) for word in tokens]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    training(tmp_path / "words.txt", tmp_path / "model")
    [message] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith(f"{tmp_path / 'words.txt'}: ")
    assert "sentences are a single word" in message
    assert "--format conll" in message
