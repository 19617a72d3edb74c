"""The plan: what it counts, how many bytes it foresees, and that it costs no model."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import Store, extract, open_corpus
from featurestore.corpora.given import as_corpora
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import StoreWriteError, UsageError
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.planning import plan as planning
from featurestore.extraction.planning.plan import Plan


def plan_of(corpora, store, encoder, **options) -> Plan:
    source = encoder if isinstance(encoder, EncoderChoice) else LoadedEncoder.of(encoder)
    return Job(as_corpora(corpora), Destination.of(store), **options).plan(source)


@pytest.fixture
def corpora(tmp_path) -> list[Path]:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("a b c\nd e\na b c\nf\n")
    second.write_text("d e\ng h i j\na b c\ng h i j\n")
    return [first, second]


def test_counts_of_two_files_that_repeat_each_other(corpora, tmp_path, tiny_elmo):
    plan = plan_of(corpora, tmp_path / "store", tiny_elmo)
    assert [(c.path, c.n_sentences, c.n_tokens) for c in plan.corpora] == [
        (str(corpora[0]), 4, 9),
        (str(corpora[1]), 4, 13),
    ]
    assert (plan.n_sentences, plan.n_tokens) == (8, 22)
    assert (plan.n_distinct, plan.n_cached) == (4, 0)
    assert (plan.n_new, plan.n_new_tokens) == (4, 3 + 2 + 1 + 4)
    assert (plan.longest, plan.longest_place) == (4, f"{corpora[1]}, line 2")


def test_what_the_store_holds_is_cached_and_not_planned_again(corpora, tmp_path, tiny_elmo):
    extract(corpora[0], tiny_elmo, tmp_path / "store", progress=False)
    plan = plan_of(corpora, tmp_path / "store", tiny_elmo)
    assert (plan.n_distinct, plan.n_cached, plan.n_new, plan.n_new_tokens) == (4, 3, 1, 4)
    assert (plan.longest, plan.longest_place) == (4, f"{corpora[1]}, line 2")
    everything = plan_of(corpora[0], tmp_path / "store", tiny_elmo)
    assert (everything.n_cached, everything.n_new, everything.n_bytes) == (3, 0, 0)


def test_a_corpus_given_twice_is_read_twice_and_encoded_once(corpora, tmp_path, tiny_elmo):
    plan = plan_of([corpora[0], corpora[0]], tmp_path / "store", tiny_elmo)
    assert (plan.n_sentences, plan.n_distinct) == (8, 3)


def test_counts_do_not_depend_on_how_sentences_are_looked_up(monkeypatch, tmp_path, tiny_elmo):
    sentences = [("w", str(number % 700)) for number in range(2000)]
    whole = plan_of(sentences, tmp_path / "store", tiny_elmo)
    monkeypatch.setattr(planning, "SENTENCES_AT_ONCE", 7)
    assert plan_of(sentences, tmp_path / "store", tiny_elmo).n_distinct == whole.n_distinct == 700


def test_the_plan_makes_no_store(corpora, tmp_path, tiny_elmo):
    plan_of(corpora, tmp_path / "store", tiny_elmo)
    assert not (tmp_path / "store").exists()


@pytest.mark.shared
@pytest.mark.parametrize(("codec", "shard_bytes"), [("float16", None), ("float32", 200_000), ("int8", None)])
def test_planned_bytes_are_within_one_percent_of_the_written_ones(
    shared, tmp_path, tiny_elmo, codec, shard_bytes
):
    corpus = open_corpus(shared("corpora/ud-ewt/en_ewt-ud-dev.conllu"))
    store = tmp_path / "store"
    plan = plan_of(corpus, store, tiny_elmo, codec=codec, shard_bytes=shard_bytes)
    report = extract(corpus, tiny_elmo, store, codec=codec, shard_bytes=shard_bytes, progress=False)
    assert report.n_encoded == plan.n_new == plan.n_distinct > 1000
    written = sum(path.stat().st_size for path in (store / "shards").iterdir())
    index = sum(path.stat().st_size for path in (store / "index").iterdir())
    assert report.n_bytes == written
    assert plan.n_bytes == pytest.approx(written + index, rel=0.01)


def test_time_is_foreseen_from_arithmetic_and_then_from_the_last_run(corpora, tmp_path, tiny_elmo_spec):
    choice = EncoderChoice(tiny_elmo_spec, "average", "auto")
    store = tmp_path / "store"
    before = plan_of(corpora, store, choice)
    assert before.seconds > 0
    assert "CPU" in before.seconds_basis
    extract(corpora[0], tiny_elmo_spec, store, progress=False)
    speed = Store.open(store).manifest.commit.tokens_per_second
    after = plan_of(corpora, store, choice)
    assert after.seconds == pytest.approx(after.n_new_tokens / speed)
    assert after.seconds_basis.startswith("this store's last commit, on cpu")
    assert plan_of(corpora, store, choice, device="cuda").seconds is None


def test_a_plan_that_does_not_fit_says_the_bytes_and_what_to_do(monkeypatch, corpora, tmp_path, tiny_elmo):
    monkeypatch.setattr(planning, "free_bytes", lambda path: 1000)
    plan = plan_of(corpora, tmp_path / "store", tiny_elmo)
    assert not plan.fits
    with pytest.raises(StoreWriteError) as caught:
        plan.require_space(tmp_path / "store")
    error = caught.value
    assert (error.path, error.n_bytes, error.errno) == (tmp_path / "store", plan.n_bytes, errno.ENOSPC)
    for fragment in (
        f"{plan.n_bytes:,} bytes to write",
        "1,000 free",
        str(tmp_path / "store"),
        "--codec int8",
    ):
        assert fragment in str(caught.value)


def test_extract_refuses_a_full_disk_before_it_loads_the_encoder(
    monkeypatch, corpora, tmp_path, tiny_elmo_spec
):
    monkeypatch.setattr(planning, "free_bytes", lambda path: 1000)
    monkeypatch.setattr(EncoderChoice, "load", lambda *_: pytest.fail("the encoder was loaded"))
    with pytest.raises(StoreWriteError, match="will not fit"):
        extract(corpora, tiny_elmo_spec, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()


def test_an_empty_corpus_in_memory_plans_nothing(tmp_path, tiny_elmo):
    plan = plan_of(corpus_from_sentences([]), tmp_path / "store", tiny_elmo)
    assert (plan.n_sentences, plan.n_new, plan.n_bytes, plan.fits) == (0, 0, 0, True)


def test_what_is_implausible_is_logged_once_by_extract(tmp_path, tiny_elmo, caplog):
    (tmp_path / "words.txt").write_text("a\nb\nc\nd\ne\n")
    extract(tmp_path / "words.txt", tiny_elmo, tmp_path / "store", progress=False)
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{tmp_path / 'words.txt'}: 5 of 5 sentences are a single word")


def test_another_codec_is_logged_by_extract(tmp_path, tiny_elmo, caplog):
    extract([("a",)], tiny_elmo, tmp_path / "store", progress=False)
    extract([("b",)], tiny_elmo, tmp_path / "store", progress=False, codec="float16")
    assert caplog.messages == []
    extract([("c",)], tiny_elmo, tmp_path / "store", progress=False, codec="float32")
    [message] = caplog.messages
    assert message.startswith("the shards to be written are float32, those of the store float16")


def test_an_unknown_codec_is_refused_before_the_corpora_are_read(corpora, tmp_path, tiny_elmo):
    with pytest.raises(UsageError, match=r"unknown codec 'float8'.*float32, float16, int8"):
        plan_of(corpora, tmp_path / "store", tiny_elmo, codec="float8")


def test_the_plan_command_loads_neither_torch_nor_weights(corpora, tmp_path, tiny_elmo_spec):
    code = (
        "import sys\n"
        "from featurestore.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*sorted({'torch', 'flair'} & set(sys.modules)), file=sys.stderr)"
    )
    # The weights need not even exist: only the options are read.
    spec = tiny_elmo_spec.replace("weights.hdf5", "nowhere.hdf5")
    command = [sys.executable, "-c", code, "plan", *map(str, corpora), "--store", str(tmp_path / "store")]
    result = subprocess.run(
        [*command, "--encoder", spec, "--json"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "\n")
    plan = json.loads(result.stdout)
    assert (plan["n_new"], plan["fits"]) == (4, True)
