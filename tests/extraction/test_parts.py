"""Parts of an extraction: disjoint, complete, of equal cost, each a writer of its own into one store."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from featurestore import Store, extract, sentence_key
from featurestore.corpora.given import as_corpora
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import UsageError
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.planning.parts import Part
from featurestore.keyarrays import keys_array
from featurestore.store.verification import verify
from tests.kit.doubles import DoubleEncoder, draw_sentences, vectors_of


def plan_of(sentences, store, part, encoder=None):
    job = Job(as_corpora(sentences), Destination.of(store), part=Part.of(part))
    return job.plan(LoadedEncoder.of(encoder or DoubleEncoder()))


def test_parts_are_disjoint_and_complete_whatever_is_stored_already(tmp_path):
    sentences = draw_sentences(300)
    keys = keys_array([sentence_key(sentence) for sentence in sentences])
    store = tmp_path / "store"
    before = np.array([plan_of(sentences, store, (i, 7)).division.holds(keys) for i in range(7)])
    assert (before.sum(axis=0) == 1).all()

    for part in ("4/7", "0/7"):
        extract(sentences, DoubleEncoder(), store, part=part, progress=False)
    assert {sentence for sentence, _ in Store.open(store)} == {
        sentence for sentence, mine in zip(sentences, before[0] | before[4], strict=True) if mine
    }
    # Those that start later, when the store holds something, see the same division.
    after = np.array([plan_of(sentences, store, (i, 7)).division.holds(keys) for i in range(7)])
    assert (after == before).all()
    reports = [
        extract(sentences, DoubleEncoder(), store, part=(i, 7), shard_bytes=200, progress=False)
        for i in range(7)
    ]
    assert [report.n_encoded for report in reports] == [
        0 if i in (0, 4) else n for i, n in enumerate(before.sum(axis=1))
    ]
    opened = Store.open(store)
    assert list(verify(opened)) == []
    assert len(opened) == len(sentences)
    assert all(np.array_equal(opened.get(s), vectors_of(s)) for s in sentences)


def test_parts_cost_the_same_where_they_do_not_count_the_same(tmp_path, tiny_elmo):
    # A tenth of the text stands in one sentence, and a token of it costs an ELMo twice as much.
    sentences = [("long", *map(str, range(400))), *draw_sentences(600)]
    plans = [plan_of(sentences, tmp_path / "none", (i, 3), tiny_elmo) for i in range(3)]
    shares = plans[0].division.shares
    assert all(plan.division.shares == shares for plan in plans)
    assert [(plan.n_new, plan.n_new_tokens) for plan in plans] == [
        (share.n_sentences, share.n_tokens) for share in shares
    ]
    assert sum(share.n_sentences for share in shares) == 601
    assert sum(share.cost for share in shares) == pytest.approx(1)
    assert max(share.cost for share in shares) - min(share.cost for share in shares) < 0.003
    counts = [share.n_sentences for share in shares]
    assert max(counts) > 1.3 * min(counts)
    assert sorted(plan.longest for plan in plans)[-1] == 401
    assert {plan.n_distinct for plan in plans} == {601}


def test_the_bytes_planned_for_the_parts_are_those_of_the_whole(tmp_path):
    sentences = draw_sentences(200)
    whole = Job(as_corpora(sentences), Destination.of(tmp_path / "none")).plan(
        LoadedEncoder.of(DoubleEncoder())
    )
    one = plan_of(sentences, tmp_path / "none", "0/1")
    assert (one.n_bytes, one.n_new, one.longest, one.longest_place, one.n_weighted_tokens) == (
        whole.n_bytes, whole.n_new, whole.longest, whole.longest_place, whole.n_weighted_tokens,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("4/4", "0/4 to 3/4"), ("-1/4", "counted from 0"), ("1", "write I/N"), ("1/2/3", "write I/N"),
        ("a/b", "write I/N"), ("/", "SLURM_ARRAY_TASK_ID"), ("0/0", "0 parts"), ("0/5000", "4,096"),
        ((1, 2, 3), "write I/N"), ((True, 2), "write I/N"), ((0.0, 2), "write I/N"), (3, "write I/N"),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused_before_anything_is_read(tmp_path, part, said):
    with pytest.raises(UsageError, match=said):
        extract(tmp_path / "missing.txt", DoubleEncoder(), tmp_path / "store", part=part)


def test_every_task_of_a_slurm_array_counted_from_1_is_refused(monkeypatch):
    for name, value in {"ID": "1", "COUNT": "4", "MIN": "1", "MAX": "4"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    with pytest.raises(UsageError, match="--array=0-3"):
        Part.of("1/4")
    assert str(Part.of("1/8")) == "1/8"  # not what the array says
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "3")
    assert str(Part.of("1/4")) == "1/4"


def test_two_processes_make_one_store_at_once(tmp_path, tiny_elmo_spec):
    sentences = draw_sentences(120)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences))
    command = [sys.executable, "-m", "featurestore"]
    arguments = [corpus, "--store", tmp_path / "store", "--encoder", tiny_elmo_spec, "--json", "--part"]
    parts = [
        subprocess.Popen([*command, "extract", *arguments, f"{i}/2"], stdout=subprocess.PIPE)
        for i in range(2)
    ]
    printed = [json.loads(part.communicate(timeout=120)[0]) for part in parts]
    assert [part.returncode for part in parts] == [0, 0]
    assert [found["report"]["n_encoded"] for found in printed] == [
        share["n_sentences"] for share in printed[0]["plan"]["parts"]
    ]
    opened = Store.open(tmp_path / "store")
    assert list(verify(opened)) == []
    assert {sentence for sentence, _ in opened} == set(sentences)
    # A part that nothing is left of says so, and the command without parts finds nothing to do.
    again = subprocess.run([*command, "plan", *arguments, "1/2"], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["n_new"] == 0
