"""Folders of trainings: their files, what interrupts a training, whether two ended the same."""

from __future__ import annotations

from featurestore.pretraining.progress import PretrainProgress
from tests.kit.pretraining import history

FILES = {"options.json", "weights.hdf5", "vocabulary.txt", "card.json", "CARD.md", "checkpoint.h5"}


class StopsAt(PretrainProgress):
    """Interrupts after some updates, or once a pass is finished."""

    def __init__(self, n_updates: int | None = None, *, epoch: int | None = None) -> None:
        self._n, self._epoch = n_updates, epoch

    def advanced(self, n_tokens: int, loss: float) -> None:
        if self._n is not None:
            self._n -= 1
            if self._n <= 0:
                raise KeyboardInterrupt

    def epoch_finished(self, report) -> None:
        if report.epoch == self._epoch:
            raise KeyboardInterrupt


def same_model(report, other) -> bool:
    return history(report) == history(other) and report.weights_sha256 == other.weights_sha256
