"""Extraction where vectors depend on more than the tokens: each sentence in each of its surroundings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore import Example, Store, extract
from featurestore.corpora.given import as_corpora
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import UsageError
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.planning.plan import Plan
from featurestore.keys import ConditionedSentence, sentence_key, sentence_with
from featurestore.store.verification import verify
from tests.kit.doubles import CONTEXT_RECIPE, DoubleEncoder, draw_sentences, vectors_of

SURROUNDINGS = [b"", b'{"left":["Look","!"]}', b'{"left":["No","."]}']


def in_surroundings(n: int) -> list[Example]:
    """Sentences of which each stands in three places, and once more in the first of them."""
    drawn = draw_sentences(n, longest=6)
    places = [*SURROUNDINGS, SURROUNDINGS[0]]
    return [
        Example(sentence_with(tokens, condition), path="corpus.txt", line=number + 1)
        for number, (condition, tokens) in enumerate((c, t) for c in places for t in drawn)
    ]


def encoder_of_context(**options) -> DoubleEncoder:
    return DoubleEncoder(recipe=CONTEXT_RECIPE, **options)


def plan_of(examples, store: Path, **options) -> Plan:
    job = Job(as_corpora(examples), Destination.of(store), **options)
    return job.plan(LoadedEncoder.of(encoder_of_context()))


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_each_sentence_gets_the_vectors_of_its_surroundings(tmp_path, device):
    examples = in_surroundings(20)
    encoder = encoder_of_context(device=device, token_budget=15)
    report = extract(examples, encoder, tmp_path / "store", codec="float32", shard_bytes=640, progress=False)
    store = Store.open(tmp_path / "store")
    assert (report.n_sentences, report.n_distinct, report.n_encoded) == (80, 60, 60)
    assert [tokens for _, _, tokens in store.sentences()] == [e.tokens for e in examples[:60]]
    for example in examples:
        np.testing.assert_array_equal(store.get(example.tokens), vectors_of(example.tokens))
    plain, left = examples[0].tokens, examples[20].tokens
    assert tuple(left) == plain
    assert not np.array_equal(store.get(plain), store.get(left))
    assert list(verify(store)) == []


def test_sentences_given_as_they_are_keep_their_surroundings(tmp_path):
    sentences = [example.tokens for example in in_surroundings(5)[:15]]
    extract([*sentences, ["a", "list"]], encoder_of_context(), tmp_path / "store", progress=False)
    stored = [tokens for _, _, tokens in Store.open(tmp_path / "store").sentences()]
    assert stored == [*sentences, ("a", "list")]


def test_the_plan_counts_surroundings_as_the_run_does(tmp_path):
    examples = in_surroundings(20)
    plan = plan_of(examples, tmp_path / "store")
    assert (plan.n_sentences, plan.n_distinct, plan.n_cached, plan.n_new) == (80, 60, 0, 60)
    assert plan.n_new_tokens == sum(len(e.tokens) for e in examples[:60])
    extract(examples[:40], encoder_of_context(), tmp_path / "store", progress=False)
    plan = plan_of(examples, tmp_path / "store")
    assert (plan.n_distinct, plan.n_cached, plan.n_new) == (60, 40, 20)


def test_planned_bytes_cover_the_conditions(tmp_path):
    conditions = [f'{{"left":["{number}"]}}'.encode() * 20 for number in range(500)]
    examples = [Example(ConditionedSentence(("a", "b"), condition)) for condition in conditions]
    plan = plan_of(examples, tmp_path / "store")
    report = extract(examples, encoder_of_context(), tmp_path / "store", progress=False)
    beside = [*(tmp_path / "store" / "index").iterdir(), *(tmp_path / "store" / "canaries").iterdir()]
    assert report.n_bytes > sum(map(len, conditions))
    assert plan.n_bytes == pytest.approx(
        report.n_bytes + sum(path.stat().st_size for path in beside), rel=0.02
    )


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    examples = in_surroundings(20)

    def stop(number: int) -> None:
        if number == 12:
            raise KeyboardInterrupt

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {"shard_bytes": 640, "progress": False}
    extract(examples, encoder_of_context(token_budget=10), whole, **options)
    with pytest.raises(KeyboardInterrupt):
        extract(examples, encoder_of_context(token_budget=10, before_batch=stop), cut, **options)
    n_committed = len(Store.open(cut))
    assert 0 < n_committed < 60
    encoder = encoder_of_context(token_budget=10)
    report = extract(examples, encoder, cut, **options)
    assert (report.n_cached, report.n_encoded) == (n_committed, 60 - n_committed)
    left, right = Store.open(whole), Store.open(cut)
    assert {sentence_key(tokens) for tokens, _ in left} == {sentence_key(tokens) for tokens, _ in right}
    for tokens, vectors in left:
        np.testing.assert_array_equal(right.get(tokens), vectors)
    assert list(verify(right)) == []


def test_the_same_surroundings_give_byte_identical_shards(tmp_path):
    for name in ("one", "two"):
        extract(in_surroundings(20), encoder_of_context(), tmp_path / name, shard_bytes=640, progress=False)
    one, two = ([s.sha256 for s in Store.open(tmp_path / n).manifest.shards] for n in ("one", "two"))
    assert len(one) > 2
    assert one == two


def test_surroundings_are_refused_where_vectors_do_not_depend_on_them(tmp_path):
    with pytest.raises(UsageError) as caught:
        extract(in_surroundings(5), DoubleEncoder(), tmp_path / "store", progress=False)
    assert "corpus.txt, line 6 (" in str(caught.value)
    assert "depend on tokens alone" in str(caught.value)
    stored = [tokens for _, _, tokens in Store.open(tmp_path / "store").sentences()]
    assert not any(isinstance(tokens, ConditionedSentence) for tokens in stored)


def test_a_corpus_of_flair_is_refused_with_the_name_of_what_reads_it(tmp_path):
    data = pytest.importorskip("flair.data", reason="needs the extra flair")

    class OwnCorpus(data.Corpus):
        pass

    sentences = [data.Sentence(["a", "b"]), data.Sentence(["c"])]
    corpus = OwnCorpus(train=sentences, sample_missing_splits=False)
    for given in (corpus, [corpus, corpus], sentences):
        with pytest.raises(UsageError, match=r"integrations\.flair_corpora\.from_flair\(corpus\)"):
            extract(given, DoubleEncoder(), tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()
