"""Canaries through the doors that encode: ``extract`` from Python, and as a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featurestore import Store, extract, load_encoder
from featurestore.cli.main import main
from featurestore.encoders.elmo.encoder import ElmoEncoder
from featurestore.errors import DriftError, EncoderError, RecipeMismatchError
from featurestore.keys import ConditionedSentence
from featurestore.store.canaries import SENTENCES, make_canaries, read_canaries
from tests.kit.doubles import CONTEXT_RECIPE, DoubleEncoder, draw_sentences

OLD, NEW = draw_sentences(6), draw_sentences(12)


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def store(tmp_path, tiny_elmo) -> Path:
    extract(OLD, tiny_elmo, tmp_path / "store", progress=False)
    return tmp_path / "store"


class Asked(DoubleEncoder):
    """Keeps which sentences were encoded by themselves: the canaries."""

    def encode(self, sentences):
        self.__dict__.setdefault("canaries", []).extend(sentences)
        return super().encode(sentences)


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_the_first_snapshot_has_them_exactly_whatever_the_codec(tmp_path, tiny_elmo, codec):
    extract(OLD, tiny_elmo, tmp_path / "store", codec=codec, progress=False)
    born = Store.open(tmp_path / "store", snapshot=1)
    assert len(born) == 0
    found = read_canaries(born)
    assert found.sentences == SENTENCES
    for vectors, again in zip(found.vectors, map(tiny_elmo.encode, [[s] for s in SENTENCES]), strict=True):
        assert np.array_equal(vectors, again[0])


def test_they_are_encoded_twice_for_a_new_store_and_then_once_also_where_nothing_is_new(tmp_path):
    each = len(SENTENCES)
    for sentences, n_asked in ((OLD, 2 * each), (OLD, each), (NEW, each), (NEW, each)):
        encoder = Asked()
        extract(sentences, encoder, tmp_path / "store", progress=False)
        assert len(vars(encoder).get("canaries", [])) == n_asked


@pytest.mark.parametrize("fault", ["dropout", "the batch's size", "state"])
def test_an_encoder_that_gives_a_sentence_other_vectors_each_time_makes_no_store(tmp_path, fault):
    class Faulty(DoubleEncoder):
        def encode(self, sentences):
            random, self.__dict__["calls"] = np.random.default_rng(), vars(self).get("calls", 0) + 1
            off = {
                "dropout": lambda array: array * (random.random(array.shape) > 0.5),
                "the batch's size": lambda array: array + len(sentences),
                "state": lambda array: array + self.calls,
            }[fault]
            return [off(array).astype(np.float32) for array in super().encode(sentences)]

    with pytest.raises(EncoderError, match=r"other vectors when it is encoded again.*model\.eval\(\)"):
        extract(OLD, Faulty(), tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()


def test_a_store_of_which_only_canaries_are_there_says_so(tmp_path):
    Store.create(
        tmp_path / "store", recipe=DoubleEncoder().recipe, dim=8, canaries=make_canaries(DoubleEncoder())
    )
    with pytest.raises(DriftError, match="holds no sentence yet: if the encoder was mended since, delete it"):
        extract(OLD, DoubleEncoder(drift=0.5), tmp_path / "store", progress=False)


def test_a_store_made_of_nothing_gets_them_with_its_first_sentences(tmp_path):
    encoder = Asked()
    extract([], encoder, tmp_path / "store", progress=False)
    assert Store.open(tmp_path / "store").manifest.canaries is None
    extract(OLD, encoder, tmp_path / "store", progress=False)
    assert read_canaries(Store.open(tmp_path / "store")).sentences == SENTENCES


def test_drift_is_refused_before_anything_is_encoded_or_written(tmp_path):
    extract(OLD, DoubleEncoder(), tmp_path / "store", progress=False)
    before, encoder = tree(tmp_path / "store"), DoubleEncoder(drift=0.1)
    with pytest.raises(DriftError, match=r"relative L2 of .*expected at most 0\.0001"):
        extract(NEW, encoder, tmp_path / "store", progress=False)
    assert encoder.batches == []
    assert tree(tmp_path / "store") == before
    # Also where nothing would be added: its code may have changed, and what is stored be another's.
    with pytest.raises(DriftError, match=r"relative L2 of .*expected at most 0\.0001"):
        extract(OLD, encoder, tmp_path / "store", progress=False)


def test_another_recipe_is_named_as_that_not_as_drift(store, tiny_elmo_spec):
    with pytest.raises(RecipeMismatchError, match="layers"):
        extract(NEW, load_encoder(tiny_elmo_spec, layers="top", device="cpu"), store, progress=False)


def test_an_encoder_that_looks_at_surroundings(tmp_path):
    wanted = [ConditionedSentence(tokens, b"after a storm") for tokens in NEW]
    for sentences in (wanted[:6], wanted):
        extract(sentences, DoubleEncoder(recipe=CONTEXT_RECIPE), tmp_path / "store", progress=False)
    assert len(Store.open(tmp_path / "store")) == len(NEW)
    with pytest.raises(DriftError):
        extract(NEW, DoubleEncoder(recipe=CONTEXT_RECIPE, drift=0.1), tmp_path / "store", progress=False)


def test_whoever_comes_second_to_a_new_store_is_held_to_the_firsts(monkeypatch, tmp_path):
    create = Store.create

    def other_was_faster(path, **options):
        extract(OLD, DoubleEncoder(), path, progress=False)
        return create(path, **options)

    drifted = DoubleEncoder(drift=0.1)
    monkeypatch.setattr(Store, "create", other_was_faster)
    monkeypatch.setattr("featurestore.extraction.runner.make_canaries", lambda _: monkeypatch.undo())
    with pytest.raises(DriftError):
        extract(NEW, drifted, tmp_path / "store", progress=False)
    assert len(Store.open(tmp_path / "store")) == len(OLD)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_operands_of_fewer_bits_than_the_recipe_says_are_drift(store, tiny_elmo, tiny_elmo_spec, precision):
    """What a GPU does where somebody switched TF32 on: float16 has as many bits."""
    rounding = load_encoder(tiny_elmo_spec, precision=precision, device="cpu")
    rounding.recipe = tiny_elmo.recipe
    with pytest.raises(DriftError, match=r"expected at most 0\.0001"):
        extract(NEW, rounding, store, progress=False)


def in_bfloat16(self, sentences, encode=ElmoEncoder.encode):
    """What a library gives that multiplies in bfloat16, whatever it was told."""
    return [(a.view(np.uint32) & 0xFFFF0000).view(np.float32) for a in encode(self, sentences)]


def test_the_command_exits_with_4_names_both_figures_and_changes_nothing(
    monkeypatch, capsys, tmp_path, store, tiny_elmo_spec
):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a new sentence\n")
    before = tree(store)
    monkeypatch.setattr(ElmoEncoder, "encode", in_bfloat16)
    with pytest.raises(SystemExit) as stop:
        main(["extract", str(corpus), "--store", str(store), "--no-progress"])
    assert stop.value.code == 4
    message = capsys.readouterr().err
    assert "expected at most 0.0001" in message
    assert "go back to what made the store, or extract into a new one" in message
    assert tree(store) == before
    monkeypatch.undo()
    with pytest.raises(SystemExit) as stop:
        main(["extract", str(corpus), "--store", str(store), "--no-progress"])
    assert stop.value.code == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["info", str(store)])
    assert "canaries     3 sentences within 0.0001 of torch" in capsys.readouterr().out


def test_verify_encodes_them_again_too(monkeypatch, capsys, store):
    monkeypatch.setattr(ElmoEncoder, "encode", in_bfloat16)
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(store), "--encode", "1", "--device", "cpu"])
    assert stop.value.code == 3
    assert "differs: 'Canaries sing .'" in capsys.readouterr().out


def test_code_for_another_processor_is_no_drift(store, tiny_elmo_spec):
    """The same command, where torch and its libraries may not use what this processor has."""
    older = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", "extract", "-", "--format", "text", "--store", str(store)],
        input="one more sentence\n", env={**os.environ, **older}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(Store.open(store)) == len(OLD) + 1
