"""The CRF against enumeration of every label sequence."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import ModelError
from featurestore.models.crf import LinearChainCRF


def random_crf(n_labels: int, seed: int, scale: float = 2.0, dtype=torch.float64) -> LinearChainCRF:
    generator = torch.Generator().manual_seed(seed)
    crf = LinearChainCRF(n_labels).to(dtype)
    for parameter in crf.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype) * scale
    return crf


def score(crf: LinearChainCRF, emissions: torch.Tensor, labels: tuple[int, ...]) -> torch.Tensor:
    """The definition, one term at a time."""
    total = crf.start[labels[0]] + crf.end[labels[-1]]
    for t, label in enumerate(labels):
        total = total + emissions[t, label]
        if t:
            total = total + crf.transitions[labels[t - 1], label]
    return total


def masked_batch(lengths: list[int], n_labels: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    emissions = torch.randn(len(lengths), longest, n_labels, generator=generator, dtype=torch.float64) * 3
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    labels = torch.randint(n_labels, (len(lengths), longest), generator=generator).masked_fill(~mask, -100)
    # Junk, infinities among it, where nothing may look.
    emissions[~mask] = torch.inf
    return emissions, labels, mask


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 2**31))
def test_likelihood_and_best_path_are_those_of_enumeration(n_labels, lengths, seed):
    crf = random_crf(n_labels, seed)
    emissions, labels, mask = masked_batch(lengths, n_labels, seed)
    losses = crf.negative_log_likelihood(emissions, labels, mask)
    paths = crf.viterbi(emissions, mask)
    for row, length in enumerate(lengths):
        scores = {
            path: score(crf, emissions[row], path)
            for path in itertools.product(range(n_labels), repeat=length)
        }
        gold = tuple(labels[row, :length].tolist())
        expected = torch.logsumexp(torch.stack(list(scores.values())), dim=0) - scores[gold]
        torch.testing.assert_close(losses[row], expected)
        found = tuple(paths[row, :length].tolist())
        torch.testing.assert_close(scores[found], max(scores.values()))
        assert (paths[row, length:] == -100).all()


def test_gradients_are_right():
    crf = random_crf(3, 1)
    emissions, labels, mask = masked_batch([4, 2], 3, 1)
    emissions = emissions.masked_fill(~mask.unsqueeze(2), 0).requires_grad_()

    def loss(emissions, start, end, transitions):
        crf_of = {"start": start, "end": end, "transitions": transitions}
        return torch.func.functional_call(_Loss(crf), {f"crf.{k}": v for k, v in crf_of.items()},
                                          (emissions, labels, mask))  # fmt: skip

    assert torch.autograd.gradcheck(loss, (emissions, crf.start, crf.end, crf.transitions))


class _Loss(torch.nn.Module):
    def __init__(self, crf):
        super().__init__()
        self.crf = crf

    def forward(self, emissions, labels, mask):
        return self.crf.negative_log_likelihood(emissions, labels, mask)


def test_probabilities_of_all_sequences_sum_to_one():
    crf = random_crf(3, 5)
    emissions = torch.randn(1, 4, 3, dtype=torch.float64)
    paths = torch.tensor(list(itertools.product(range(3), repeat=4)))
    mask = torch.ones_like(paths, dtype=torch.bool)
    losses = crf.negative_log_likelihood(emissions.expand(len(paths), -1, -1), paths, mask)
    torch.testing.assert_close(torch.exp(-losses).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_float32_stays_finite_and_close_on_long_sentences_with_large_scores():
    double = random_crf(5, 7, scale=30.0)
    single = random_crf(5, 7, scale=30.0).float()
    emissions = torch.randn(2, 400, 5, dtype=torch.float64) * 100
    labels = torch.randint(5, (2, 400))
    mask = torch.ones(2, 400, dtype=torch.bool)
    exact = double.negative_log_likelihood(emissions, labels, mask)
    rounded = single.negative_log_likelihood(emissions.float(), labels, mask)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-5, atol=0)


def test_forbidden_transitions_are_never_taken():
    crf = LinearChainCRF(3)
    with torch.no_grad():
        crf.transitions[0, 1] = -1e4
        crf.start[2] = -1e4
    path = crf.viterbi(torch.randn(20, 8, 3), torch.ones(20, 8, dtype=torch.bool))
    assert not ((path[:, :-1] == 0) & (path[:, 1:] == 1)).any()
    assert not (path[:, 0] == 2).any()


def test_a_token_without_a_label_is_refused():
    crf = LinearChainCRF(3)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for labels in ([[0, -100]], [[0, 3]]):
        with pytest.raises(ModelError, match=r"0\.\.2"):
            crf.negative_log_likelihood(torch.zeros(1, 2, 3), torch.tensor(labels), mask)


@pytest.mark.parametrize("mask", [[[True, False, True]], [[False, True, True]], [[False, False, False]]])
def test_masks_with_holes_are_refused(mask):
    with pytest.raises(ModelError, match="padded at their end"):
        LinearChainCRF(2).viterbi(torch.zeros(1, 3, 2), torch.tensor(mask))


def test_partly_labelled_sentences_have_the_likelihood_of_all_that_agrees():
    crf = random_crf(3, 4)
    emissions, labels, mask = masked_batch([4, 2, 3], 3, 4)
    labels[0, 1] = labels[0, 3] = labels[1, :2] = -100
    losses = crf.negative_log_likelihood(emissions, labels, mask, ignored=-100)
    for row, n in enumerate([4, 2, 3]):
        choices = [range(3) if label < 0 else [label] for label in labels[row, :n].tolist()]
        whole = [
            crf.negative_log_likelihood(
                emissions[row : row + 1, :n], torch.tensor([path]), mask[row : row + 1, :n]
            )
            for path in itertools.product(*choices)
        ]
        torch.testing.assert_close(losses[row], -torch.logsumexp(-torch.cat(whole), 0))
    losses.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in crf.parameters())
