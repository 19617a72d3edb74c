"""feature_loader: dataset, bucketed batches and collate put together as a plain PyTorch DataLoader."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from featurestore.dataset.batch import FeatureItem, collate, collate_packed
from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.sampler import BucketBatchSampler
from featurestore.errors import UsageError


def feature_loader(
    dataset: FeatureDataset,
    *,
    token_budget: int = 2048,
    max_sentences: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    drop_last: bool = False,
    packed: bool = False,
    num_workers: int = 0,
    **options: Any,
) -> DataLoader[FeatureItem]:
    """Return a DataLoader over length-bucketed batches.

    Each pass is another epoch of the same seed; ``loader.batch_sampler.set_epoch(n)`` goes to a given one.

    Parameters
    ----------
    dataset : FeatureDataset
    token_budget : int
        Padded tokens a batch may hold.
    max_sentences : int, optional
        Sentences a batch may hold.
    shuffle, seed, drop_last
        As in :class:`~featurestore.dataset.sampler.BucketBatchSampler`.
    packed : bool
        Features as a ``PackedSequence``.
    num_workers : int
        0 is fastest: reading is a copy from mapped memory, and worker processes would have to send whole
        batches back. Useful only if your own transforms are slow.
    **options
        For :class:`torch.utils.data.DataLoader`.

    Returns
    -------
    torch.utils.data.DataLoader
        Of :class:`~featurestore.dataset.batch.FeatureBatch`.
    """
    if num_workers and dataset.resident_bytes:
        raise UsageError(
            f"num_workers={num_workers}: the vectors are resident on {dataset.device}, for which worker "
            "processes have no use: leave num_workers out"
        )
    sampler = BucketBatchSampler(
        dataset.lengths,
        token_budget=token_budget,
        max_sentences=max_sentences,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_packed if packed else collate,
        num_workers=num_workers,
        **options,
    )
