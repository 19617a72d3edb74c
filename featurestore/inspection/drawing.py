"""A random draw of tokens from sentences that are read one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class TokenDraw:
    """Tokens drawn from successive sentences, each with equal chance, so that only theirs need be kept.

    Parameters
    ----------
    n_tokens : int
        Tokens of all sentences together.
    most : int
        Tokens drawn at most.
    seed : int
        Of the random draw.
    """

    def __init__(self, n_tokens: int, most: int, seed: int) -> None:
        n = min(n_tokens, most)
        self._drawn = np.sort(np.random.default_rng(seed).choice(n_tokens, n, replace=False))
        self._seen = 0

    def positions(self, n_tokens: int) -> NDArray[np.int64]:
        """Pass on to the next sentence and return the positions of its drawn tokens, ascending; (n,) int64.

        Parameters
        ----------
        n_tokens : int
            Of this sentence.
        """
        first, last = np.searchsorted(self._drawn, [self._seen, self._seen + n_tokens])
        found: NDArray[np.int64] = self._drawn[first:last] - self._seen
        self._seen += n_tokens
        return found
