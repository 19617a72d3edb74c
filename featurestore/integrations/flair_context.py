"""The context of sentences, set once so that extraction, training and evaluation agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flair.data import ConcatFlairDataset, FlairDataset, Sentence
from torch.utils.data import ConcatDataset, Subset

from featurestore.errors import UsageError
from featurestore.integrations.flair_corpora import SPLITS, splits_of


def set_context(corpus: Any, *, alone: bool = False, splits: Sequence[str] = SPLITS) -> Any:
    """Give every sentence of a corpus that has no context one: its neighbours, or none.

    An embedding such as ``TransformerWordEmbeddings(use_context=True)`` looks at neighbouring sentences. Of
    Flair's corpora only ``ColumnCorpus`` says which they are. Where nothing is said, Flair's embeddings take
    what happens to be in the same batch, and so do, before any embedding is asked, ``predict`` and the
    evaluation in training; an extraction and featurestore's embeddings take such a sentence as standing
    alone. Call this before extraction and training, and all of them mean the same.

    Parameters
    ----------
    corpus : flair.data.Corpus or list of flair.data.Sentence
        Sentences in memory are linked; a lazy dataset is wrapped in one that links what it gives.
    alone : bool
        Take every sentence without a context as standing alone, as for tweets or single questions. By
        default it has the sentences before and after it in its split, or, if the split was sampled from
        another one, in that.
    splits : sequence of str

    Returns
    -------
    flair.data.Corpus or list
        The same one.

    Raises
    ------
    UsageError
        If it is neither, or has none of the splits.
    """
    datasets = splits_of(corpus, splits)
    linked = {name: _linked(dataset, alone) for name, dataset in datasets.items()}
    for name, dataset in linked.items():
        if dataset is datasets[name]:
            continue
        if not name:
            raise UsageError(
                f"a {type(corpus).__name__} that is not in memory cannot be linked by itself: put it into a "
                "flair.data.Corpus"
            )
        setattr(corpus, f"_{name}", dataset)
    return corpus


class LinkedDataset(FlairDataset):  # type: ignore[misc]
    """A lazy dataset whose sentences find their neighbours by their position in it, as Flair does.

    Parameters
    ----------
    dataset : flair.data.FlairDataset
    alone : bool
        Say of each sentence that it has no neighbours instead.
    """

    def __init__(self, dataset: Any, alone: bool) -> None:
        self.dataset, self.alone = dataset, alone

    def is_in_memory(self) -> bool:
        """Return False."""
        return False

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int = 0) -> Any:
        index = index + len(self) if index < 0 else index
        sentence = self.dataset[index]
        if isinstance(sentence, Sentence) and not sentence.is_context_set():
            sentence._has_context = True
            if not self.alone:
                sentence._position_in_dataset = (self, index)
        return sentence


def _linked(dataset: Any, alone: bool) -> Any:
    """Link what is in memory, and return the dataset, or the one to use instead."""
    if isinstance(dataset, Subset):
        whole = _linked(dataset.dataset, alone)
        return dataset if whole is dataset.dataset else Subset(whole, dataset.indices)
    if isinstance(dataset, (ConcatFlairDataset, ConcatDataset)):
        dataset.datasets = [_linked(part, alone) for part in dataset.datasets]
        return dataset
    first = dataset[0] if len(dataset) else None
    if first is not None and first is not dataset[0]:
        # A lazy dataset makes each sentence anew; if one of them states its context, all do.
        settled = isinstance(first, Sentence) and first.is_context_set()
        return dataset if settled else LinkedDataset(dataset, alone)
    sentences = [item for item in (dataset[i] for i in range(len(dataset))) if isinstance(item, Sentence)]
    if alone:
        for sentence in sentences:
            sentence._has_context = True
    else:
        Sentence.set_context_for_sentences(sentences)
    return dataset
