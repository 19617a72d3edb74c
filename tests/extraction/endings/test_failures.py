"""Extraction when memory, the encoder, the disk or the user's patience runs out: what stands."""

from __future__ import annotations

import errno
import os
import signal
import time

import numpy as np
import pytest

from featurestore import Store, extract
from featurestore.disk.filesystem import FileSystem
from featurestore.errors import EncoderError, StoreError, StoreWriteError
from featurestore.store.format.shard import ShardDraft
from featurestore.store.verification import verify
from tests.kit.doubles import DoubleEncoder, Recorder, draw_sentences, vectors_of

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")

SHARD_BYTES = 40 * 8 * 2
"""Forty tokens."""


def stored(path) -> list[tuple[str, ...]]:
    """The sentences of a sound store whose vectors are all right."""
    store = Store.open(path)
    assert list(verify(store)) == []
    assert len({tokens for _, _, tokens in store.sentences()}) == len(store)
    for tokens, vectors in store:
        assert np.allclose(vectors, vectors_of(tokens), atol=0.01)
    return [tokens for _, _, tokens in store.sentences()]


@pytest.mark.parametrize("fails_late", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_out_of_memory_halves_the_budget_and_goes_on(tmp_path, device, fails_late):
    sentences = draw_sentences(60, longest=8)
    encoder = DoubleEncoder(memory_tokens=25, token_budget=100, device=device, fails_late=fails_late)
    recorder = Recorder()
    report = extract(sentences, encoder, tmp_path / "store", progress=recorder)
    assert stored(tmp_path / "store") == sentences
    assert report.token_budget <= 25
    assert report.too_large == []
    assert "out of memory with" in recorder.notices[0]
    assert f"going on with {report.token_budget}" in recorder.notices[-1]


def test_an_encoder_that_returns_too_few_arrays_is_named(tmp_path):
    encoder = DoubleEncoder(returns_fewer=True)
    with pytest.raises(EncoderError, match="'double:' returned 1 arrays for 2 sentences"):
        extract([("a",), ("b", "c")], encoder, tmp_path / "store", progress=False)
    assert len(Store.open(tmp_path / "store")) == 0


def test_the_budget_found_is_kept_for_later_shards(tmp_path):
    encoder = DoubleEncoder(memory_tokens=20, token_budget=40)
    extract(draw_sentences(60), encoder, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    assert [n for n in encoder.batches if n > 20] == encoder.batches[:1]


@pytest.mark.parametrize("fails_late", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_sentences_that_do_not_fit_alone_are_named_and_all_others_committed(tmp_path, device, fails_late):
    small = draw_sentences(30, longest=6)
    huge = [tuple(f"h{n}.{i}" for i in range(30 + n)) for n in range(3)]
    sentences = [*small[:10], huge[0], huge[1], *small[10:], huge[2]]
    path = tmp_path / "corpus.txt"
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences))
    encoder = DoubleEncoder(memory_tokens=25, token_budget=50, device=device, fails_late=fails_late)
    with pytest.raises(EncoderError) as caught:
        extract(path, encoder, tmp_path / "store", progress=False)
    assert caught.value.exit_code == 1
    assert "3 sentences do not fit into memory even alone" in str(caught.value)
    for line in (11, 12, 33):
        assert f"{path}, line {line}: h" in str(caught.value)
    assert stored(tmp_path / "store") == small
    # On a device with more memory the same call adds just the three.
    report = extract(path, DoubleEncoder(), tmp_path / "store", progress=False)
    assert (report.n_cached, report.n_encoded) == (30, 3)


def test_a_sentence_that_only_failed_beside_another_is_not_given_up(tmp_path):
    # 20 tokens fit alone but not two such sentences in flight at once.
    sentences = [tuple(f"{n}.{i}" for i in range(20)) for n in range(4)]
    encoder = DoubleEncoder(memory_tokens=25, token_budget=20, device="cuda:0")
    report = extract(sentences, encoder, tmp_path / "store", progress=False)
    assert report.too_large == []
    assert stored(tmp_path / "store") == sentences


def test_nan_is_an_error_that_names_the_sentence_and_all_others_are_committed(tmp_path):
    sentences = draw_sentences(60, longest=6)
    encoder = DoubleEncoder(nan_in="s0.40")
    with pytest.raises(StoreError, match=r"NaN or infinity for token 0 \('s0\.40'\) of 's0\.40"):
        extract(sentences, encoder, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    bad = next(sentence for sentence in sentences if "s0.40" in sentence)
    assert stored(tmp_path / "store") == [sentence for sentence in sentences if sentence != bad]
    extract(sentences, DoubleEncoder(), tmp_path / "store", progress=False)
    assert set(stored(tmp_path / "store")) == set(sentences)


def test_an_encoder_that_returns_only_nan_ends_the_run_early(tmp_path):
    class Broken(DoubleEncoder):
        def submit(self, sentences):
            pending = super().submit(sentences)
            vectors = [array * np.nan for array in pending.result()]
            pending.result = lambda: vectors
            return pending

    encoder = Broken(token_budget=20)
    sentences = draw_sentences(3000, longest=6)
    with pytest.raises(StoreError, match="NaN or infinity"):
        extract(sentences, encoder, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    assert sum(encoder.batches) < sum(map(len, sentences)) / 2
    assert len(Store.open(tmp_path / "store")) == 0


def test_values_the_codec_cannot_hold_are_an_error_not_infinity(tmp_path):
    class Large(DoubleEncoder):
        def submit(self, sentences):
            pending = super().submit(sentences)
            vectors = [array * 1e6 for array in pending.result()]
            pending.result = lambda: vectors
            return pending

    with pytest.raises(StoreError, match=r"codec float16 cannot hold .*--codec float32"):
        extract([("a", "b")], Large(), tmp_path / "store", progress=False)
    assert len(Store.open(tmp_path / "store")) == 0


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 9)])
def test_vectors_of_another_shape_are_an_error(tmp_path, shape):
    class Misshapen(DoubleEncoder):
        def submit(self, sentences):
            pending = super().submit(sentences)
            pending.result = lambda: [np.zeros(shape, np.float32) for _ in sentences]
            return pending

    with pytest.raises(StoreError, match=r"expected \(2, 8\)"):
        extract([("a", "b")], Misshapen(), tmp_path / "store", progress=False)
    assert len(Store.open(tmp_path / "store")) == 0


@pytest.mark.parametrize("operation", ["write_all", "sync_file", "link_new"])
def test_a_disk_that_fills_up_is_an_error_soon_and_the_same_call_finishes_later(
    monkeypatch, tmp_path, operation
):
    sentences, encoder = draw_sentences(200, longest=6), DoubleEncoder(token_budget=10)
    working, calls = getattr(FileSystem, operation), []

    def full(self, *arguments):
        calls.append(arguments)
        if len(calls) <= 9:
            return working(self, *arguments)
        if operation == "link_new":
            raise StoreWriteError("no space left while writing")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileSystem, operation, full)
    with pytest.raises(StoreWriteError, match="no space left"):
        extract(sentences, encoder, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    found = stored(tmp_path / "store")
    assert 0 < len(found) < 200
    assert found == sentences[: len(found)]
    # It stopped encoding once it could not store: what waits in between is bounded.
    assert sum(encoder.batches) < sum(map(len, sentences))
    monkeypatch.undo()
    report = extract(sentences, DoubleEncoder(), tmp_path / "store", progress=False)
    assert report.n_encoded == 200 - len(found)
    assert stored(tmp_path / "store") == sentences


def test_an_error_of_the_encoder_goes_on_after_what_is_done_was_committed(tmp_path):
    def fail(number: int) -> None:
        if number == 5:
            raise RuntimeError("a broken kernel")

    encoder = DoubleEncoder(token_budget=20, before_batch=fail)
    with pytest.raises(RuntimeError, match="a broken kernel"):
        extract(draw_sentences(60), encoder, tmp_path / "store", progress=False)
    assert sum(map(len, stored(tmp_path / "store"))) == sum(encoder.batches)


def test_ctrl_c_commits_what_is_done(tmp_path):
    sentences = draw_sentences(60)

    def interrupt(number: int) -> None:
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)

    encoder = DoubleEncoder(token_budget=20, before_batch=interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(sentences, encoder, tmp_path / "store", progress=False)
    assert sum(map(len, stored(tmp_path / "store"))) == sum(encoder.batches)
    report = extract(sentences, DoubleEncoder(), tmp_path / "store", progress=False)
    assert report.n_cached + report.n_encoded == 60
    assert set(stored(tmp_path / "store")) == set(sentences)


def test_ctrl_c_while_the_last_shard_is_written_still_commits_it(monkeypatch, tmp_path):
    sentences, working = draw_sentences(10), ShardDraft.seal

    def interrupted(self, fingerprint):
        if self.sentences != sentences:
            return working(self, fingerprint)
        time.sleep(0.1)  # until the main thread waits for this one
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return working(self, fingerprint)

    monkeypatch.setattr(ShardDraft, "seal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(sentences, DoubleEncoder(), tmp_path / "store", progress=False)
    assert stored(tmp_path / "store") == sentences
