"""Tokens to character ids, as bilm-tf and AllenNLP define them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BEGIN_SENTENCE = "<S>"
END_SENTENCE = "</S>"

N_CHARACTER_IDS = 262
"""Rows of the character table once the row of the mask (id 0) is prepended."""

_BEGIN_SENTENCE_ID, _END_SENTENCE_ID = 256, 257
_BEGIN_WORD_ID, _END_WORD_ID, _PADDING_ID = 258, 259, 260
_MARKERS = {BEGIN_SENTENCE: _BEGIN_SENTENCE_ID, END_SENTENCE: _END_SENTENCE_ID}


def character_ids(
    tokens: Sequence[str], max_characters: int = 50
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the character ids of tokens and how many positions of each are not padding.

    A token is its UTF-8 bytes, cut to ``max_characters - 2`` bytes even in the middle of a character, between
    a begin-of-word and an end-of-word id, padded to ``max_characters``. One is added to every id, because 0
    means masked; it never occurs here. ``<S>`` and ``</S>`` stand for the sentence markers, wherever they
    come from: the published code did the same. What has no UTF-8 form (lone surrogates) is left out.

    Parameters
    ----------
    tokens : sequence of str
        Usually word types: each is computed on its own.
    max_characters : int
        Positions per token.

    Returns
    -------
    ids : ndarray of int64, shape (n_tokens, max_characters)
    n_positions : ndarray of int64, shape (n_tokens,)
        Positions up to and including the end-of-word id.
    """
    n_bytes = max_characters - 2
    encoded = [token.encode("utf-8", "ignore")[:n_bytes] for token in tokens]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    # A NumPy byte string pads with zeros, which the mask below leaves out; a zero byte inside a token stays.
    byte_values = np.array(encoded, dtype=f"S{n_bytes}").view(np.uint8).reshape(len(encoded), n_bytes)

    ids = np.full((len(encoded), max_characters), _PADDING_ID, dtype=np.int64)
    ids[:, 0] = _BEGIN_WORD_ID
    is_byte = np.arange(n_bytes) < lengths[:, None]
    ids[:, 1:-1][is_byte] = byte_values[is_byte]
    ids[np.arange(len(encoded)), lengths + 1] = _END_WORD_ID

    for row, token in enumerate(tokens):
        if token in _MARKERS:
            ids[row] = _PADDING_ID
            ids[row, :3] = _BEGIN_WORD_ID, _MARKERS[token], _END_WORD_ID
            lengths[row] = 1
    return ids + 1, lengths + 2
