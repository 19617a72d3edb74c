"""Which epoch is kept and when training ends; trainings that learn nothing say so."""

from __future__ import annotations

import pytest

from featurestore.models.fitting.stopping import Best, Stopping, doubts
from featurestore.models.scoring import Scorer


def scores_of(accuracy: float):
    """Scores on a hundred tokens, of which sixty are O: the baseline is 0.6."""
    n = round(100 * accuracy)
    scorer = Scorer("token", ["NOUN", "VERB"])
    gold = ["VERB"] * 60 + ["NOUN"] * 40
    scorer.add(gold, gold[:n] + ["wrong"] * (100 - n))
    return scorer.scores()


def kept_and_last(accuracies, losses, patience=2):
    """Return the epoch that is kept, and the one after which training stops."""
    stopping: Stopping[str] = Stopping(patience, None)
    number = 0
    for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), 1):
        scores = scores_of(accuracy)
        best = Best(number, loss, scores, f"weights {number}") if stopping.keeps(loss, scores) else None
        stopping.take(best, number, loss)
        if stopping.should_stop(number):
            break
    assert stopping.best.state == f"weights {stopping.best.epoch}"
    return stopping.best.epoch, number


FALLING = [9, 8, 7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize(
    ("accuracies", "losses", "kept", "last"),
    [
        # Above the baseline, patience alone decides.
        ([0.7, 0.8, 0.7, 0.7, 0.9, 0.9, 0.9, 0.9], FALLING, 2, 4),
        ([0.7, 0.8, 0.7, 0.9, 0.7, 0.7, 0.9, 0.9], FALLING, 4, 6),
        # Not above it, training goes on while the loss falls, and of equal scores the lowest loss is kept.
        ([0.6, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7], FALLING, 8, 8),
        ([0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], FALLING, 8, 8),
        ([0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], [9, 8, 7, 7, 7, 7, 7, 7], 3, 5),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1], [9, 8, 8, 8, 8, 8, 8, 8], 1, 4),
        # Of equal scores the lower loss, whichever came first; that is no reason to go on.
        ([0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], FALLING, 3, 3),
        ([0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], [5, 6, 7, 8, 9, 9, 9, 9], 1, 3),
    ],
)
def test_what_is_kept_and_when_training_stops(accuracies, losses, kept, last):
    assert kept_and_last(accuracies, losses) == (kept, last)


def test_the_learning_rate_falls_once_for_each_wait():
    stopping: Stopping[None] = Stopping(10, 2)
    lowered = []
    for number, accuracy in enumerate([0.7, 0.7, 0.7, 0.7, 0.9, 0.8, 0.8], 1):
        scores = scores_of(accuracy)
        stopping.take(Best(number, 1.0, scores, None) if stopping.keeps(1.0, scores) else None, number, 1.0)
        lowered.append(stopping.should_anneal(number))
    assert lowered == [False, False, True, False, False, False, True]


def test_what_makes_a_result_doubtful_is_said():
    (nothing,) = doubts(scores_of(0.6), 3, 10)
    assert nothing.startswith(
        "the model has learned nothing: accuracy 0.6000 on development data, 0.6000 for "
    )
    (last,) = doubts(scores_of(0.9), 10, 10)
    assert last.startswith("the last of the 10 epochs allowed was the best")
    assert list(doubts(scores_of(0.9), 9, 10)) == []
    assert list(doubts(scores_of(1.0), 10, 10)) == []
