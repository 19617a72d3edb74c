"""Random numbers by hashing: any part of an epoch's shuffle is drawn alone, alike on every machine.

A generator's stream has to be followed from its beginning, and NumPy keeps no promise that the next version
shuffles alike. Here each number is a hash of a key and a counter, so that a state restored in the middle of
an epoch, on another machine, draws what would have been drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_ROUNDS = 6
_SMALLEST = 2
"""Bits of the smallest domain that has two halves."""


class Key:
    """What decides random numbers: a few integers, at least 0, such as seed and epoch."""

    def __init__(self, *numbers: int) -> None:
        self._words = np.random.SeedSequence(numbers).generate_state(_ROUNDS + 1, np.uint64)

    def hashes(self, counters: NDArray[np.int64]) -> Words:
        """Return a random 64-bit number for each counter: (n,) uint64."""
        return _mixed(_mixed(counters.astype(np.uint64) + self._words[:1]) ^ self._words[1:2])

    def order(self, n: int) -> NDArray[np.int64]:
        """Return the numbers below ``n`` in random order: (n,) int64."""
        return np.argsort(self.hashes(np.arange(n)))  # no two are equal: the hash is a permutation

    def permuted(self, positions: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return what a random permutation of the numbers below ``n`` has at some positions.

        A Feistel network over the next power of two, walked until it comes back below ``n`` (Black and
        Rogaway 2002): of a hundred million numbers it costs only those that are asked for.
        """
        bits = max(_SMALLEST, (n - 1).bit_length())
        found = self._through_network(positions.astype(np.uint64), bits)
        beyond = np.flatnonzero(found >= n)
        while len(beyond):
            walked = self._through_network(found[beyond], bits)
            found[beyond] = walked
            beyond = beyond[walked >= n]
        return found.astype(np.int64)

    def _through_network(self, numbers: Words, bits: int) -> Words:
        n_low = np.uint64(bits // 2)
        low_mask = (np.uint64(1) << n_low) - np.uint64(1)
        high_mask = (np.uint64(1) << np.uint64(bits - bits // 2)) - np.uint64(1)
        high, low = numbers >> n_low, numbers & low_mask
        for number in range(_ROUNDS):
            word = self._words[number : number + 1]
            if number % 2:
                low ^= _mixed(high + word) & low_mask
            else:
                high ^= _mixed(low + word) & high_mask
        joined: Words = (high << n_low) | low
        return joined


def _mixed(words: Words) -> Words:
    """Return the finisher of splitmix64 (Steele, Lea and Flood 2014), in the memory of the words."""
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= np.right_shift(words, np.uint64(27), out=shifted)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= np.right_shift(words, np.uint64(31), out=shifted)
    return words
