"""The HDF5 layout of ``allennlp elmo``: a dataset for each sentence, named by its number.

As AllenNLP 0.9 writes it (``allennlp/commands/elmo.py``): ``"0"``, ``"1"``, ... float32, (n_layers, n_tokens,
dim) or (n_tokens, dim), and ``sentence_to_index``, one string: a JSON object from the sentence, its tokens
joined by spaces, to its number. Tokens that contain spaces would make two sentences one, and are refused.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

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
    with open(path, "x+b", buffering=0) as raw:
        remembering = _Remembering(raw)
        with h5py.File(remembering, "w") as file:
            file.attrs["origin"] = origin_text(exported)
            for number, sentence in enumerate(exported):
                _require_no_spaces(sentence.tokens)
                if remembering.error is not None:
                    raise remembering.error
                vectors = np.asarray(sentence.vectors, np.float32)
                if vectors.ndim == 3:
                    vectors = vectors.transpose(1, 0, 2)
                file.create_dataset(str(number), data=np.ascontiguousarray(vectors))
                numbers[" ".join(sentence.tokens)] = str(number)
                step(sentence)
            text = file.create_dataset("sentence_to_index", (1,), dtype=h5py.string_dtype())
            text[0] = json.dumps(numbers)
        if remembering.error is not None:
            raise remembering.error


class _Remembering(io.RawIOBase):
    """A file for HDF5 to write to, which remembers that the disk failed.

    HDF5 itself cannot close a file that it cannot write to: it says so past Python, for every object it has
    open, and loses the reason. Here it goes on as if nothing were wrong, and the error is raised afterwards.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.error is None:
                return self._file.truncate(size)
        except OSError as error:
            self.error = error
        return 0 if size is None else size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        position = 0
        try:
            while position < view.nbytes and self.error is None:
                position += self._file.write(view[position:])
        except OSError as error:
            self.error = error
        return view.nbytes


def _require_no_spaces(tokens: Sequence[str]) -> None:
    for token in tokens:
        if " " in token:
            raise UsageError(
                f"the token {token!r} contains a space, but AllenNLP's files name a sentence by its tokens "
                "joined by spaces: export to npy or safetensors, or leave the sentence out"
            )
