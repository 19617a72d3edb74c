"""How long an extraction would take: what long sentences cost, and how sure the estimate is."""

from __future__ import annotations

from itertools import pairwise

import pytest

from featurestore import extract
from featurestore.corpora.given import as_corpora
from featurestore.encoders.sources import LoadedEncoder
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.planning.estimate import LENGTH_COSTS, Speed, cost_by_length, widened
from tests.kit.doubles import DoubleEncoder

SHORT = [tuple(f"{word}.{number}" for word in range(20)) for number in range(600)]
LONG = [tuple(word for sentence in SHORT for word in sentence)]


def plan_of(sentences, store, source):
    return Job(as_corpora(sentences), Destination.of(store)).plan(source)


def test_the_same_words_take_longer_in_one_sentence(tmp_path, tiny_elmo_spec):
    choice = EncoderChoice(tiny_elmo_spec)
    short, long = (plan_of(sentences, tmp_path / "store", choice) for sentences in (SHORT, LONG))
    assert short.n_new_tokens == long.n_new_tokens == 12_000
    assert short.n_weighted_tokens == 12_000
    assert long.n_weighted_tokens == pytest.approx(12_000 * cost_by_length("elmo", "cpu", 12_000))
    assert long.n_weighted_tokens > 2 * short.n_weighted_tokens
    for plan in (short, long):
        assert plan.seconds_low < plan.seconds < plan.seconds_high


@pytest.mark.parametrize("costs", LENGTH_COSTS.values(), ids=LENGTH_COSTS)
def test_a_token_never_costs_less_in_a_longer_sentence(costs):
    for (shorter, less), (longer, more) in pairwise(costs):
        assert shorter < longer
        assert 1 <= less <= more


def test_costs_lie_between_those_that_were_measured():
    costs = next(c for c in LENGTH_COSTS.values() if c[-1][1] == cost_by_length("elmo", "cpu", 10**6))
    (_, first), *_, (longest, last) = costs
    assert cost_by_length("elmo", "cpu", 1) == first == 1
    assert cost_by_length("elmo", "auto", 10 * longest) == last
    for (shorter, less), (longer, more) in pairwise(costs):
        assert cost_by_length("elmo", "cpu", shorter) == pytest.approx(less)
        assert less <= cost_by_length("elmo", "cpu", (shorter + longer) / 2) <= more
    # The compiled recurrence has no float16.
    not_compiled = LENGTH_COSTS["elmo, not compiled"][-1][1]
    assert cost_by_length("elmo", "cpu", 6000, precision="float16") == not_compiled
    assert cost_by_length("elmo", "cuda:0", 6000) == cost_by_length("flair", "cpu", 6000) == 1


def test_nothing_is_known_of_an_encoder_of_your_own_until_it_has_run(tmp_path):
    source = LoadedEncoder.of(DoubleEncoder())
    plan = plan_of(LONG, tmp_path / "store", source)
    assert (plan.seconds, plan.seconds_low, plan.seconds_high) == (None, None, None)
    assert plan.n_weighted_tokens == 12_000
    extract([("a", "b")], DoubleEncoder(), tmp_path / "store", progress=False)
    after = plan_of(LONG, tmp_path / "store", source)
    assert 0 < after.seconds_low < after.seconds < after.seconds_high


def test_a_busy_machine_may_take_longer_and_the_basis_says_so():
    speed = Speed(100.0, "a run", 1.5, 1.5)
    assert widened(speed, 0.9, 2) == speed
    busy = widened(speed, 8.2, 2)
    assert (busy.tokens_per_second, busy.faster) == (100.0, 1.5)
    assert busy.slower == pytest.approx(1.5 * 5.1)
    assert busy.basis == "a run; this machine is busy now: load 8 on 2 cores"
