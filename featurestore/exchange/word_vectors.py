"""One vector a word type, the mean of its tokens' vectors: word2vec files and TensorBoard's projector.

word2vec's formats (https://code.google.com/archive/p/word2vec): a line with the number of words and the
dimension, then each word and its values, as text or as float32. A word ends at the first space, so spaces
within tokens become ``_``. The projector reads ``vectors.tsv`` and ``metadata.tsv``
(https://projector.tensorflow.org).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import IGNORED
from featurestore.errors import UsageError
from featurestore.exchange.sentences import Exported

_FORBIDDEN = str.maketrans(dict.fromkeys(" \t\n\r\x0b\x0c\x00\x1c\x1d\x1e\x1f\x85\u2028\u2029\xa0", "_"))


def _word(token: str) -> str:
    return token.translate(_FORBIDDEN).encode("utf-8", "replace").decode()


def _means(exported: Exported, step: Any) -> tuple[list[str], NDArray[np.float32], Counter[str]]:
    """Return the words, most frequent first, the mean of each one's vectors, and their counts."""
    if exported.store.n_layers > 1:
        raise UsageError(
            f"{exported.store.path} keeps {exported.store.n_layers} layers apart, and a word has one vector: "
            "make a store of one layer, or of their average, with `featurestore layers`"
        )
    counts: Counter[str] = Counter()
    for sentence in exported:
        counts.update(map(_word, sentence.tokens))
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    rows = {word: row for row, word in enumerate(words)}
    sums = np.zeros((len(words), exported.store.dim), np.float32)
    for sentence in exported:
        # Divided before they are added, so that float32 neither overflows nor loses the small ones.
        at = [rows[_word(token)] for token in sentence.tokens]
        shares = np.array([1 / counts[words[row]] for row in at], np.float32)
        np.add.at(sums, at, sentence.vectors.astype(np.float32) * shares[:, None])
        step(sentence)
    return words, sums, counts


def write_word2vec(exported: Exported, path: Path, step: Any, *, binary: bool = False) -> None:
    """Write a word2vec file; ``step`` is called with each sentence read the second time.

    Raises
    ------
    UsageError
        If the store keeps layers apart.
    """
    words, means, _ = _means(exported, step)
    with open(path, "xb") as file:
        file.write(f"{len(words)} {means.shape[1]}\n".encode())
        for word, mean in zip(words, means, strict=True):
            if binary:
                file.write(word.encode() + b" " + mean.astype("<f4").tobytes() + b"\n")
            else:
                file.write(f"{word} {' '.join(map(_text, mean.tolist()))}\n".encode())


def write_projector(exported: Exported, path: Path, step: Any) -> None:
    """Write a folder for TensorBoard's projector; ``step`` is called with each sentence written.

    With labels for tokens, a point is a token with its label, so that classes show; without, a word type.

    Raises
    ------
    UsageError
        If the store keeps layers apart.
    """
    path.mkdir()
    with (
        open(path / "vectors.tsv", "x", encoding="utf-8") as vectors,
        open(path / "metadata.tsv", "x", encoding="utf-8") as metadata,
    ):
        if exported.label_kind == "token" and exported.store.n_layers == 1:
            metadata.write("token\tlabel\tsentence\n")
            for number, sentence in enumerate(exported):
                for token, label, values in zip(
                    sentence.tokens, sentence.labels or (), sentence.vectors.tolist(), strict=True
                ):
                    vectors.write("\t".join(map(_text, values)) + "\n")
                    shown = "" if label is IGNORED else _word(str(label))
                    metadata.write(f"{_word(token)}\t{shown}\t{number}\n")
                step(sentence)
        else:
            words, means, counts = _means(exported, step)
            metadata.write("word\tcount\n")
            for word, mean in zip(words, means.tolist(), strict=True):
                vectors.write("\t".join(map(_text, mean)) + "\n")
                metadata.write(f"{word}\t{counts[word]}\n")
    with open(path / "projector_config.pbtxt", "x", encoding="utf-8") as config:
        config.write(
            'embeddings {\n  tensor_name: "featurestore"\n  tensor_path: "vectors.tsv"\n'
            '  metadata_path: "metadata.tsv"\n}\n'
        )


def _text(value: float) -> str:
    # Nine digits tell any two float32 apart.
    return f"{value:.9g}"
