"""What a sampler asks of a dataset: where its documents begin, weights that balance its labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.indices import Part
from featurestore.errors import UsageError


def document_starts(dataset: FeatureDataset, part: Part, group_by: object) -> NDArray[np.int64]:
    """Return where documents begin in a part of a dataset, in the order of the part."""
    if group_by != "document":
        raise UsageError(f"group_by={group_by!r}: expected 'document' or None")
    documents = dataset.documents
    if documents is None:
        raise UsageError(
            "group_by='document': the corpus does not tell documents apart, by '# newdoc', '-DOCSTART-' or "
            "'#begin document' in a column file, open_corpus(document=COLUMN) for a table or JSON Lines, or "
            "Example(document=NAME)"
        )
    return np.flatnonzero(np.diff(documents[part], prepend=-1))


def balanced_weights(dataset: FeatureDataset, part: Part) -> NDArray[np.float64]:
    """Return weights of a part of a dataset by which each label of sentences is equally likely."""
    labels = dataset.sentence_labels
    if labels is None:
        what = "a label for each token" if dataset.label_kind == "token" else "no labels"
        raise UsageError(
            f"weights='balanced' balances the labels of sentences, these examples have {what}: give a number "
            "for each example, such as how many of its tokens have a rare label"
        )
    of_part = labels[part]
    return 1 / np.bincount(of_part)[of_part]
