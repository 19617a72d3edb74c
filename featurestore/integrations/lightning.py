"""Lightning and featurestore: a data module of stored vectors; ``feature_loader`` itself needs none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

try:
    import lightning
except ModuleNotFoundError as error:
    if error.name != "lightning":
        raise
    raise ModuleNotFoundError(
        "featurestore.integrations.lightning needs Lightning: pip install 'featurestore[lightning]'",
        name="lightning",
    ) from error

from lightning.pytorch import LightningDataModule

from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.labels import LabelSet
from featurestore.dataset.loader import FeatureLoader, feature_loader
from featurestore.errors import UsageError
from featurestore.store.store import Store

_LEAST = (2, 4)
"""The oldest that the examples were run with."""


def require_version(found: str) -> None:
    """Refuse a version of Lightning that does not keep a loader's place.

    Raises
    ------
    UsageError
        If it is too old.
    """
    if tuple(int(part) for part in found.split(".")[:2]) < _LEAST:
        raise UsageError(
            f"featurestore needs Lightning from {_LEAST[0]}.{_LEAST[1]} on, found {found}: "
            "pip install --upgrade 'featurestore[lightning]'"
        )


require_version(lightning.__version__)


class FeatureDataModule(LightningDataModule):
    """The corpora of an experiment, their vectors read from a store, for ``Trainer.fit`` and its siblings.

    Training batches are shuffled anew each epoch; those of the other splits come in an order that stays. In
    several processes each gets its share, and a checkpoint holds the place in the epoch.

    Parameters
    ----------
    store : Store, str or Path
    train, val, test, predict : FeatureDataset, or what FeatureDataset takes as examples, optional
        The corpora, with labels where the model needs them. They are looked up in the store when they are
        first needed. A dataset of your own is used as it is.
    labels : LabelSet or sequence of str, optional
        By default those of the training corpus; the other corpora are numbered by them, and labels of theirs
        that it has not count as mistakes.
    **options
        For :func:`featurestore.feature_loader`: ``token_budget``, ``seed``, ``packed`` ...

    Raises
    ------
    UsageError
        If a loader is asked for of a corpus that was not given, or for ``shuffle``, ``num_replicas`` or
        ``rank``, which are the data module's affair.
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        train: Any = None,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
        labels: LabelSet | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name in ("shuffle", "num_replicas", "rank"):
            if name in options:
                raise UsageError(
                    f"FeatureDataModule takes no {name}: training is shuffled and shared out anyway"
                )
        self._store, self._labels, self._options = store, labels, options
        self._given = {"train": train, "val": val, "test": test, "predict": predict}
        self._opened: dict[str, FeatureDataset] = {}

    def dataset(self, split: str) -> FeatureDataset:
        """Return the dataset of a split, looked up in the store at the first call.

        Raises
        ------
        UsageError
            If there is no such corpus.
        """
        if split not in self._opened:
            given = self._given.get(split)
            if given is None:
                raise UsageError(f"this FeatureDataModule has no {split} corpus: give it one, {split}=...")
            self._opened[split] = given if isinstance(given, FeatureDataset) else self._look_up(split, given)
        return self._opened[split]

    @property
    def labels(self) -> LabelSet:
        """The labels of the training corpus, or those that were given."""
        return self.dataset("train").labels

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.dataset("train").dim

    def train_dataloader(self) -> FeatureLoader:
        """Return the loader of ``Trainer.fit``.

        Raises
        ------
        UsageError
            If the trainer has ``overfit_batches``, for which Lightning replaces samplers.
        """
        if self.trainer is not None and self.trainer.overfit_batches:
            raise UsageError(
                "overfit_batches makes Lightning replace the sampler, which ends batches by length: for the "
                "same few batches each epoch, give Trainer(limit_train_batches=...) and fit(model, "
                "feature_loader(dataset, shuffle=False))"
            )
        return feature_loader(self.dataset("train"), **self._options)

    def val_dataloader(self) -> FeatureLoader | list[FeatureLoader]:
        """Return the loader of validation, or none."""
        return self._in_order("val") if self._given["val"] is not None else []

    def test_dataloader(self) -> FeatureLoader:
        """Return the loader of ``Trainer.test``."""
        return self._in_order("test")

    def predict_dataloader(self) -> FeatureLoader:
        """Return the loader of ``Trainer.predict``."""
        return self._in_order("predict")

    def _in_order(self, split: str) -> FeatureLoader:
        return feature_loader(self.dataset(split), **{**self._options, "shuffle": False})

    def _look_up(self, split: str, given: Any) -> FeatureDataset:
        if split == "train" or self._labels is not None:
            labels: LabelSet | Sequence[str] | None = self._labels
        else:
            labels = self.labels if self._given["train"] is not None else None
        unseen: Literal["error", "keep"] = "error" if split == "train" or labels is None else "keep"
        return FeatureDataset(self._store, given, labels=labels, unseen_labels=unseen)
