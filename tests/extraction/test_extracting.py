"""Extraction with a real encoder: what is stored, how it is appended to, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurestore import Store, extract, load_encoder, open_corpus
from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.corpus import FileCorpus
from featurestore.errors import (
    CorpusChangedError,
    DamagedStoreError,
    RecipeMismatchError,
    StoreWriteError,
    UsageError,
)
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.planning import new
from featurestore.extraction.planning import plan as planning
from featurestore.extraction.progress import BarProgress
from featurestore.store.verification import verify
from tests.extraction.shards import BOUND, CODEC_BOUND, assert_near, files_of
from tests.kit.doubles import DoubleEncoder, Recorder, draw_sentences, vectors_of
from tests.kit.users import open_to_all, ordinary_user


def write_text(path: Path, sentences) -> Path:
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences))
    return path


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("layers", ["average", "all"])
def test_stored_vectors_are_those_of_each_sentence_encoded_alone(tmp_path, tiny_elmo_spec, codec, layers):
    sentences = draw_sentences(40)
    extract(
        sentences, tiny_elmo_spec, tmp_path / "store", layers=layers, codec=codec, device="cpu",
        token_budget=60, progress=False,
    )  # fmt: skip
    store = Store.open(tmp_path / "store")
    assert store.manifest.codec == codec
    encoder = load_encoder(tiny_elmo_spec, layers=layers, device="cpu")
    for sentence in sentences:
        [alone] = encoder.encode([sentence])
        assert alone.shape[1:] == ((32,) if layers == "average" else (3, 32))
        assert_near(store.get(sentence), alone, CODEC_BOUND[codec])
    assert list(verify(store)) == []


def test_batches_and_the_order_of_corpora_change_vectors_by_less_than_the_bound(tmp_path, tiny_elmo):
    first, second = draw_sentences(30, seed=1), draw_sentences(30, seed=2)
    one, two = tmp_path / "one", tmp_path / "two"
    extract([*first, *second], tiny_elmo, one, codec="float32", token_budget=7, progress=False)
    extract([*second, *first], tiny_elmo, two, codec="float32", token_budget=4000, progress=False)
    left, right = Store.open(one), Store.open(two)
    assert len(left) == len(right) == 60
    for sentence in [*first, *second]:
        assert_near(left.get(sentence), right.get(sentence), BOUND)


def test_the_same_input_gives_byte_identical_shards(tmp_path, tiny_elmo):
    corpus = write_text(tmp_path / "corpus.txt", draw_sentences(50))
    for name in ("one", "two"):
        extract(corpus, tiny_elmo, tmp_path / name, shard_bytes=8_000, progress=False)
    shards = [
        {name: data for name, data in files_of(tmp_path / store).items() if name.startswith("shards/")}
        for store in ("one", "two")
    ]
    assert len(shards[0]) > 2
    assert shards[0] == shards[1]


@pytest.mark.parametrize("looked_up_at_a_time", [4096, 5])
def test_duplicates_within_and_across_corpora_are_encoded_once(monkeypatch, tmp_path, looked_up_at_a_time):
    for module in (planning, new):
        monkeypatch.setattr(module, "SENTENCES_AT_ONCE", looked_up_at_a_time)
    sentences = draw_sentences(20)
    one = write_text(tmp_path / "one.txt", [*sentences[:12], *sentences[:12]])
    two = write_text(tmp_path / "two.txt", sentences[8:])
    encoder = DoubleEncoder()
    report = extract([one, two], encoder, tmp_path / "store", progress=False)
    assert sum(encoder.batches) == sum(map(len, sentences))
    assert (report.n_sentences, report.n_distinct, report.n_encoded) == (36, 20, 20)
    assert report.n_encoded_tokens == sum(map(len, sentences))
    assert [tokens for _, _, tokens in Store.open(tmp_path / "store").sentences()] == sentences


def test_a_second_run_encodes_nothing_and_needs_no_encoder(monkeypatch, tmp_path, tiny_elmo_spec):
    corpus = write_text(tmp_path / "corpus.txt", draw_sentences(10))
    store = tmp_path / "store"
    extract(corpus, tiny_elmo_spec, store, progress=False)
    before = files_of(store)
    monkeypatch.setattr(EncoderChoice, "load", lambda *_: pytest.fail("the encoder was loaded"))
    for encoder, options in ((None, {}), (tiny_elmo_spec, {}), (tiny_elmo_spec, {"precision": "float32"})):
        report = extract(corpus, encoder, store, progress=False, **options)
        assert (report.n_encoded, report.n_cached, report.n_distinct) == (0, 10, 10)
    assert files_of(store) == before
    with pytest.raises(RecipeMismatchError, match="layers"):
        extract(corpus, tiny_elmo_spec, store, layers="top", progress=False)


def test_with_nothing_new_a_named_encoder_is_still_compared_by_its_weights(tmp_path, tiny_elmo_spec):
    weights = shutil.copy(tiny_elmo_spec.partition(",")[2], tmp_path / "weights.hdf5")
    spec = f"{tiny_elmo_spec.partition(',')[0]},{weights}"
    sentences = draw_sentences(3)
    extract(sentences, spec, tmp_path / "store", progress=False)
    assert extract(sentences, spec, tmp_path / "store", progress=False).n_cached == 3
    with h5py.File(weights, "r+") as file:
        file["CNN_proj/b_proj"][0] += 1
    with pytest.raises(RecipeMismatchError, match="weights_sha256"):
        extract(sentences, spec, tmp_path / "store", progress=False)


@pytest.mark.parametrize("named", [True, False])
def test_corpora_are_read_once_where_nothing_is_new(tmp_path, named):
    class Counted(FileCorpus):
        n_passes = 0

        def __iter__(self):
            self.n_passes += 1
            return super().__iter__()

    path = write_text(tmp_path / "corpus.txt", draw_sentences(4))
    for n_passes, n_encoded in ((2, 4), (1, 0)):
        corpus = Counted(ReadOptions(str(path)), "text")
        encoder = DoubleEncoder() if named or n_encoded else None
        assert extract(corpus, encoder, tmp_path / "store", progress=False).n_encoded == n_encoded
        assert corpus.n_passes == n_passes


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_store_whose_shards_are_gone_is_not_called_complete_or_added_to(tmp_path, damage):
    sentences = draw_sentences(9)
    extract(sentences, DoubleEncoder(), tmp_path / "store", shard_bytes=160, progress=False)
    damage(sorted((tmp_path / "store" / "shards").iterdir())[0])
    before = files_of(tmp_path / "store")
    for corpus in (sentences, [*sentences, ("new",)]):
        with pytest.raises(DamagedStoreError, match=r"1 of \d+ shards of .*featurestore repair"):
            extract(corpus, DoubleEncoder(), tmp_path / "store", progress=False)
    assert files_of(tmp_path / "store") == before


def test_a_store_that_may_not_be_written_is_said_before_anything_is_encoded(tmp_path, tiny_elmo_spec):
    open_to_all(tmp_path)
    extract([("a",)], tiny_elmo_spec, tmp_path / "store", progress=False)
    was_root = os.geteuid() == 0
    (tmp_path / "store" / "shards").chmod(0o555)
    try:
        with ordinary_user():
            for store in (tmp_path / "store", tmp_path / "other"):
                if store.exists() or was_root:
                    with pytest.raises(StoreWriteError, match=r"Permission denied.*Nothing was encoded"):
                        extract([("b",)], tiny_elmo_spec, store, progress=False)
    finally:
        (tmp_path / "store" / "shards").chmod(0o755)


@pytest.mark.parametrize("options", [{"shard_bytes": 1e6}, {"shard_bytes": "64MiB"}, {"token_budget": "100"}])
def test_sizes_are_whole_numbers(tmp_path, options):
    with pytest.raises(UsageError, match="int"):
        extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False, **options)


def test_shards_keep_their_size_and_are_committed_while_the_rest_is_encoded(tmp_path):
    sentences = draw_sentences(60, longest=6)
    shard_bytes, recorder = 40 * 8 * 2, Recorder()
    report = extract(sentences, DoubleEncoder(token_budget=10), tmp_path / "store",
                     shard_bytes=shard_bytes, progress=recorder)  # fmt: skip
    shards = Store.open(tmp_path / "store").manifest.shards
    assert report.n_shards == len(shards) > 4
    assert all(30 < shard.n_tokens <= 40 for shard in shards[:-1])
    commits = [i for i, event in enumerate(recorder.events) if event[0] == "committed"]
    assert len(commits) == len(shards)
    assert any(event[0] == "encoded" for event in recorder.events[commits[0] :])


def test_a_sentence_longer_than_a_shard_gets_its_own(tmp_path):
    sentences = [("a",), tuple(f"w{i}" for i in range(30)), ("b", "c")]
    extract(sentences, DoubleEncoder(), tmp_path / "store", shard_bytes=4 * 8 * 2, progress=False)
    store = Store.open(tmp_path / "store")
    assert [shard.n_tokens for shard in store.manifest.shards] == [1, 30, 2]
    assert np.allclose(store.get(sentences[1]), vectors_of(sentences[1]), atol=0.01)


def test_asynchronous_devices_give_each_sentence_its_own_vectors(tmp_path):
    sentences = draw_sentences(50)
    encoder = DoubleEncoder(device="cuda:0", token_budget=9)
    extract(sentences, encoder, tmp_path / "store", codec="float32", progress=False)
    store = Store.open(tmp_path / "store")
    for sentence in sentences:
        assert np.array_equal(store.get(sentence), vectors_of(sentence))
    assert encoder.in_flight == 0


def test_the_report_and_the_commit_say_what_was_done(tmp_path, tiny_elmo):
    sentences = draw_sentences(12)
    report = extract([*sentences, *sentences], tiny_elmo, tmp_path / "store", progress=False)
    store = Store.open(tmp_path / "store")
    assert report.n_bytes == store.n_bytes
    assert report.seconds > 0
    assert report.tokens_per_second > 0
    commit = store.manifest.commit
    assert (commit.n_read, commit.n_distinct, commit.n_cached, commit.device) == (24, 12, 0, "cpu")
    assert commit.tokens_per_second > 0
    assert report.to_dict().keys() >= {"n_encoded", "n_shards", "too_large", "tokens_per_second"}


def test_a_tiny_commit_does_not_change_what_is_known_of_the_speed(tmp_path, tiny_elmo):
    extract(draw_sentences(400, seed=1), tiny_elmo, tmp_path / "store", progress=False)
    first = Store.open(tmp_path / "store").manifest.commit
    extract(draw_sentences(3, seed=2), tiny_elmo, tmp_path / "store", progress=False)
    assert Store.open(tmp_path / "store").manifest.commit.tokens_per_second == first.tokens_per_second > 0


def test_what_another_extraction_commits_meanwhile_is_not_stored_twice(monkeypatch, tmp_path):
    for module in (planning, new):
        monkeypatch.setattr(module, "SENTENCES_AT_ONCE", 5)
    sentences = draw_sentences(80, longest=5)

    def other_run(number: int) -> None:
        if number == 2:
            extract(sentences[20:], DoubleEncoder(), tmp_path / "store", progress=False)

    encoder = DoubleEncoder(before_batch=other_run, token_budget=10)
    report = extract(sentences, encoder, tmp_path / "store", shard_bytes=160, progress=False)
    store = Store.open(tmp_path / "store")
    assert sorted(tokens for _, _, tokens in store.sentences()) == sorted(sentences)
    # What it had begun before the other committed is encoded and left out; later sentences are skipped.
    assert (report.n_encoded, report.n_encoded_tokens) == (20, sum(map(len, sentences[:20])))
    assert sum(encoder.batches) < sum(map(len, sentences))
    assert list(verify(store)) == []


def test_a_corpus_that_changes_after_planning_is_an_error_and_what_was_committed_is_right(tmp_path):
    sentences = draw_sentences(40, longest=4)
    path = write_text(tmp_path / "corpus.txt", sentences)

    class ChangesTheFile(Recorder):
        def started(self, n_tokens: int, share_cached: float) -> None:
            write_text(path, [*sentences[:-1], ("another", "end")])

    with pytest.raises(CorpusChangedError, match=r"corpus\.txt: the file changed between two passes"):
        extract(
            path, DoubleEncoder(), tmp_path / "store", shard_bytes=320, progress=ChangesTheFile(),
            codec="float32",
        )  # fmt: skip
    store = Store.open(tmp_path / "store")
    stored = [tokens for _, _, tokens in store.sentences()]
    assert 0 < len(stored) < 41
    for sentence in stored:
        assert np.array_equal(store.get(sentence), vectors_of(sentence))
    assert list(verify(store)) == []
    # The file is left alone now: the same call finishes.
    extract(path, DoubleEncoder(), tmp_path / "store", progress=False)
    assert all(example.tokens in Store.open(tmp_path / "store") for example in open_corpus(path))


@pytest.mark.parametrize("make", [str, Path, open_corpus, lambda path: [str(path)], lambda path: [path]])
def test_corpora_come_as_paths_or_opened_or_several(tmp_path, make):
    path = write_text(tmp_path / "corpus.txt", [("a", "b"), ("c",)])
    assert extract(make(path), DoubleEncoder(), tmp_path / "store", progress=False).n_encoded == 2


@pytest.mark.parametrize("options", [{"token_budget": 0}, {"shard_bytes": 0}, {"shard_bytes": -5}])
def test_sizes_that_hold_nothing_are_usage_errors(tmp_path, options):
    with pytest.raises(UsageError):
        extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False, **options)
    assert not (tmp_path / "store").exists()


def test_the_bar_goes_to_standard_error_only(tmp_path, capsys):
    bar = BarProgress()
    extract(draw_sentences(20), DoubleEncoder(memory_tokens=20), tmp_path / "store", progress=bar)
    out, err = capsys.readouterr()
    assert out == ""
    assert "encoding" in err
    assert "out of memory with" in err
