"""Batches of like length under a token budget."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from featurestore.extraction.batching import batches_by_length

lengths_and_budget = st.lists(st.integers(1, 60), max_size=80), st.integers(1, 100)


@given(*lengths_and_budget)
def test_every_sentence_is_in_exactly_one_batch(lengths, budget):
    batches = list(batches_by_length(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(batches)


@given(*lengths_and_budget)
def test_a_batch_keeps_the_budget_unless_it_is_one_sentence(lengths, budget):
    for batch in batches_by_length(lengths, budget):
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget


@given(*lengths_and_budget)
def test_the_longest_come_first_and_equal_ones_in_order(lengths, budget):
    order = [i for batch in batches_by_length(lengths, budget) for i in batch]
    assert order == sorted(order, key=lambda i: (-lengths[i], i))


@given(*lengths_and_budget)
def test_no_batch_could_take_the_next_sentence_too(lengths, budget):
    batches = list(batches_by_length(lengths, budget))
    for batch, following in pairwise(batches):
        assert sum(lengths[i] for i in batch) + lengths[following[0]] > budget
