"""Dropout: how many elements go, which go together, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from featurestore.models.dropout import Dropout, LockedDropout


def share_dropped(vectors: torch.Tensor) -> float:
    return float((vectors == 0).double().mean())


@pytest.mark.parametrize("shape", [(1_000_001,), (40, 50, 501)])
@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.99])
def test_drops_its_share_and_makes_up_for_it(shape, probability):
    torch.manual_seed(0)
    dropped = Dropout(probability).train()(torch.full(shape, 3.0))
    # Five standard deviations of a million draws, and the step of the probabilities.
    allowed = 5 * (probability * (1 - probability) / 1e6) ** 0.5 + 2**-16
    assert abs(share_dropped(dropped) - probability) < allowed
    kept = dropped[dropped != 0]
    assert torch.all(kept == kept[0])
    assert kept[0].item() == pytest.approx(3 / (1 - probability), rel=2e-3)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 64, 1024])
def test_elements_go_independently(distance):
    """Numbers are cut out of longer ones: neighbours must not know of each other."""
    torch.manual_seed(0)
    gone = (Dropout(0.5).train()(torch.ones(1_000_000)) == 0).double() - 0.5
    correlation = float((gone[distance:] * gone[:-distance]).mean() * 4)
    assert abs(correlation) < 0.005


def test_elements_are_dropped_alike_at_every_place():
    torch.manual_seed(0)
    columns = (Dropout(0.3).train()(torch.ones(20_000, 64)) == 0).double().mean(0)
    assert (columns - 0.3).abs().max() < 0.02


def test_the_seed_decides():
    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        dropout = Dropout(0.3).train()
        return torch.stack([dropout(torch.ones(8, 33)) for _ in range(2)])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert not torch.equal(*run(1))


def test_gradients_go_where_elements_stay():
    torch.manual_seed(0)
    vectors = torch.randn(7, 5, 9, requires_grad=True)
    result = Dropout(0.4).train()(vectors)
    result.sum().backward()
    torch.testing.assert_close(vectors.grad, (result / vectors).detach())
    assert 0 < share_dropped(vectors.grad) < 1


@pytest.mark.parametrize("module", [Dropout, LockedDropout])
def test_nothing_is_dropped_while_scoring_or_with_probability_zero(module):
    vectors = torch.randn(3, 4, 5)
    assert module(0.5).eval()(vectors) is vectors
    assert module(0.0).train()(vectors) is vectors


def test_locked_drops_the_same_elements_in_all_tokens_of_a_sentence():
    torch.manual_seed(0)
    gone = LockedDropout(0.5).train()(torch.ones(6, 11, 200)) == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert not torch.equal(gone[0], gone[1])
    assert 0.4 < float(gone.double().mean()) < 0.6


def test_locked_drops_elements_of_one_vector_a_sentence_on_their_own():
    torch.manual_seed(0)
    gone = LockedDropout(0.5).train()(torch.ones(600, 200)) == 0
    assert 0.45 < float(gone.double().mean()) < 0.55
    assert float(gone.double().mean(0).std()) < 0.1
