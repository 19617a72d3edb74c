"""scikit-learn: one vector a sentence out of a store, as the first step of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.whitespace import whitespace_tokens
from featurestore.errors import UsageError
from featurestore.store.store import Store

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError as error:
    raise UsageError("this needs scikit-learn: pip install 'featurestore[sklearn]'") from error

if TYPE_CHECKING:
    from typing_extensions import Self


class SentenceVectors(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Turns sentences into the pooled vectors that a store holds of them; it learns nothing.

    Clones share the store. Of a store that keeps layers apart, a row is its layers end to end.

    Parameters
    ----------
    store : Store, str or Path
    how : {"mean", "max", "first", "sum"}
        See :meth:`featurestore.Store.pooled`.
    mask : callable, optional
        From a sentence's tokens to (n_tokens,) bool: which of them count.

    Examples
    --------
    >>> model = make_pipeline(SentenceVectors(store), LogisticRegression())
    >>> model.fit([("a", "good", "film"), ("a", "bad", "film")], ["pos", "neg"])
    """

    def __init__(self, store: Any, how: str = "mean", mask: Any = None) -> None:
        self.store, self.how, self.mask = store, how, mask

    def __sklearn_clone__(self) -> Self:
        # A snapshot does not change, so it is shared: scikit-learn would copy it as deeply as it goes.
        return type(self)(self.store, self.how, self.mask)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit, tags.no_validation = False, True
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags

    def fit(self, sentences: Any, labels: Any = None) -> Self:
        """Return this; there is nothing to fit."""
        return self

    def transform(self, sentences: Iterable[Sequence[str] | str]) -> NDArray[np.float32]:
        """Return the vectors of sentences.

        Parameters
        ----------
        sentences : iterable of sequences of str, or of str
            A string is split at ASCII blanks, as a line of a plain text corpus is.

        Returns
        -------
        (n_sentences, dim) or (n_sentences, n_layers * dim) float32

        Raises
        ------
        MissingSentencesError
            If a sentence is not stored.
        """
        store = self._opened()
        tokens = [whitespace_tokens(s) if isinstance(s, str) else s for s in sentences]
        return store.pooled(self.how, mask=self.mask, sentences=tokens).reshape(len(tokens), -1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return a name for each column."""
        store = self._opened()
        return np.array([f"sentencevectors{i}" for i in range(store.n_layers * store.dim)], object)

    def _opened(self) -> Store:
        return self.store if isinstance(self.store, Store) else Store.open(self.store)
