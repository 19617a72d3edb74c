"""The HDF5 layout of ``allennlp elmo``: a dataset for each sentence, named by its number.

As AllenNLP 0.9 writes it (``allennlp/commands/elmo.py``): ``"0"``, ``"1"``, ... float32, (n_layers, n_tokens,
dim) or (n_tokens, dim), and ``sentence_to_index``, one string: a JSON object from the sentence, its tokens
joined by spaces, to its number. Tokens that contain spaces would make two sentences one, and are refused.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featurestore.errors import UsageError
from featurestore.exchange.origin import origin_text
from featurestore.exchange.sentences import Exported


def write_allennlp(exported: Exported, path: Path, step: Any) -> None:
    """Write one file in AllenNLP's layout; ``step`` is called with each sentence written.

    Raises
    ------
    UsageError
        If a token contains a space.
    """
    numbers: dict[str, str] = {}
    try:
        with h5py.File(path, "x") as file:
            file.attrs["origin"] = origin_text(exported)
            for number, sentence in enumerate(exported):
                _require_no_spaces(sentence.tokens)
                vectors = np.asarray(sentence.vectors, np.float32)
                if vectors.ndim == 3:
                    vectors = vectors.transpose(1, 0, 2)
                file.create_dataset(str(number), data=np.ascontiguousarray(vectors))
                numbers[" ".join(sentence.tokens)] = str(number)
                step(sentence)
            text = file.create_dataset("sentence_to_index", (1,), dtype=h5py.string_dtype())
            text[0] = json.dumps(numbers)
    except RuntimeError as error:  # what HDF5 makes of a disk that is full or fails
        raise OSError(errno.EIO, str(error).splitlines()[0], str(path)) from error


def _require_no_spaces(tokens: Sequence[str]) -> None:
    for token in tokens:
        if " " in token:
            raise UsageError(
                f"the token {token!r} contains a space, but AllenNLP's files name a sentence by its tokens "
                "joined by spaces: export to npy or safetensors, or leave the sentence out"
            )
