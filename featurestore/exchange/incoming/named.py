"""HDF5 files with datasets named by sentence or sequence: elmoformanylangs' and bio_embeddings'.

elmoformanylangs (``elmoformanylangs/__main__.py``, ``test_main``, ``--output_format hdf5``): a dataset for
each distinct sentence, named by its tokens joined by tabs, ``.`` written ``$period$`` and ``/`` written
``$backslash$``; float32 (n_tokens, dim), or (3, n_tokens, dim) for layer -2. The file is called
``PREFIX.lyLAYER.hdf5``: 0 to 2, -1 for their average, -2 for all.

bio_embeddings (``bio_embeddings/embed/pipeline.py``, ``embed_and_write_batched``): ``embeddings_file.h5``, a
dataset for each sequence, named by a number or hash, whose attribute ``original_id`` is the name in the
FASTA file; float32, or float16 with ``half_precision``; (n_residues, dim), of SeqVec (3, n_residues, 1024).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.errors import AlignmentError, CorpusError, UsageError
from featurestore.exchange.incoming.numbered import Hdf5Source
from featurestore.exchange.incoming.source import Arrival
from featurestore.keys import Sentence

_ESCAPES = ((".", "$period$"), ("/", "$backslash$"))
_LAYER = re.compile(r"\.ly(-?\d)\.(?:hdf5|h5)$")
_LAYERS = {"-1": "average", "-2": "all"}
_ID = "original_id"


class ElmoForManyLangs(Hdf5Source):
    """What ``elmoformanylangs test --output_format hdf5`` writes."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        super().__init__(path, corpus)
        self.refuse_allennlp()
        if layer := _LAYER.search(path.name):
            self.stated["layer"] = _LAYERS.get(layer[1], layer[1])

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences of the corpus; without one those that the names spell."""
        if self.corpus is not None:
            return self.present(Arrival.of(example, escaped(example)) for example in self.corpus)
        return self._spelled()

    def _spelled(self) -> Iterator[Arrival]:
        for name in self.file.names():
            tokens = unescaped(name)
            if not all(tokens):
                raise CorpusError(f"the name {name[:80]!r} has an empty token", path=self.path)
            yield Arrival(tokens, name, f"{self.path}, {name[:80]!r}", str(self.path))


def escaped(example: Example) -> str:
    """Return the name that elmoformanylangs gives a sentence's dataset.

    Raises
    ------
    AlignmentError
        If a token contains an escape itself: its dataset may be another sentence's.
    """
    name = "\t".join(example.tokens)
    for sign, escape in _ESCAPES:
        if escape in name:
            raise Arrival.of(example, name).misaligned(
                f"a token contains {escape!r}, by which elmoformanylangs writes {sign!r}: the file cannot "
                "tell the two apart; leave the sentence out"
            )
        name = name.replace(sign, escape)
    return name


def unescaped(name: str) -> Sentence:
    """Return the tokens that a dataset's name spells."""
    for sign, escape in _ESCAPES:
        name = name.replace(escape, sign)
    return tuple(name.split("\t"))


class BioEmbeddings(Hdf5Source):
    """``embeddings_file.h5`` of bio_embeddings, with the FASTA file of its sequences."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        super().__init__(path, corpus)
        self.refuse_allennlp()
        self._names: dict[str, str] = {}
        self._twice: set[str] = set()
        for name in self.file.names():
            stated = self.file.attributes(name).get(_ID)
            if stated is not None and self._names.setdefault(str(stated), name) != name:
                self._twice.add(str(stated))

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sequences of the FASTA file."""
        return self.present(map(self._arrival, self.examples("it does not hold the sequences")))

    def _arrival(self, example: Example) -> Arrival:
        if not example.id:
            raise UsageError(
                f"{example.place}: bio_embeddings finds vectors by the name of a sequence, and this has "
                "none: give the FASTA file (--format fasta)"
            )
        if example.id in self._twice:
            raise AlignmentError(
                f"{example.place}: two datasets of {self.path} are of {example.id!r} (their {_ID})",
                path=example.path or None,
                line=example.line or None,
            )
        return Arrival.of(example, self._names.get(example.id, example.id))
