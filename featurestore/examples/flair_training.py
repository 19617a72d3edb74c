"""Our corpora as Flair's, and what Flair's trainer says on the terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flair
from flair.data import Corpus, Sentence
from flair.datasets import FlairDatapointDataset
from flair.embeddings import WordEmbeddings
from flair.trainers.plugins import TrainerPlugin

from featurestore import Example
from featurestore.errors import LabelError, UsageError
from featurestore.examples.common import labelled
from featurestore.models.scoring import spans


def sentence_corpus(files: Mapping[str, Path], label: str, label_type: str) -> Corpus:
    """Read files of labelled sentences as a Flair corpus.

    Parameters
    ----------
    files : mapping of str to Path
        By split; see :func:`featurestore.examples.common.split_files`.
    label : str
        Which column or field of the files.
    label_type : str
        What Flair is to call the label.

    Raises
    ------
    CorpusError
        If a file cannot be read, or has no label for each sentence.
    """

    def judged(example: Example) -> Sentence:
        # A list of tokens: Flair would tokenise a text in its own way, and other tokens have other vectors.
        sentence = Sentence(list(example.tokens))
        sentence.add_label(label_type, example.labels)
        return sentence

    return _corpus(files, lambda path: labelled(path, label, "sentence"), judged)


def span_corpus(files: Mapping[str, Path], label: str, label_type: str) -> Corpus:
    """Read files with a BIO or IOBES label for each token as a Flair corpus of labelled spans.

    Parameters are those of :func:`sentence_corpus`.

    Raises
    ------
    CorpusError
        If a file cannot be read, has no label for each token, or no span in it.
    """

    def read(path: Path) -> list[Example]:
        examples = labelled(path, label, "token")
        if not any(spans(list(map(str, example.labels or ()))) for example in examples):
            raise LabelError(f"the label {label!r} has no spans: expected labels such as B-PER", path=path)
        return examples

    def marked(example: Example) -> Sentence:
        sentence = Sentence(list(example.tokens))
        for kind, first, last in spans(list(map(str, example.labels or ()))):
            sentence[first : last + 1].add_label(label_type, kind)
        return sentence

    return _corpus(files, read, marked)


def _corpus(
    files: Mapping[str, Path], read: Callable[[Path], list[Example]], made: Callable[[Example], Sentence]
) -> Corpus:
    splits = {
        split: FlairDatapointDataset([made(example) for example in read(path)])
        for split, path in files.items()
    }
    # Otherwise Flair takes a missing test set out of the training sentences.
    return Corpus(**splits, sample_missing_splits=False)


def word_vectors(path: Path) -> WordEmbeddings:
    """Load pretrained word vectors from a file.

    Parameters
    ----------
    path : Path
        Of gensim's own format (a pickle: loading one runs whatever code its maker put in), or of word2vec's,
        as ``.txt`` or ``.bin``.

    Raises
    ------
    UsageError
        If it is not one, or gensim is not installed.
    """
    try:
        # A name of its own: Flair would take the path and save it with the model.
        return WordEmbeddings(str(path), name="words")
    except ImportError as error:
        raise UsageError("word vectors are read by gensim: pip install gensim") from error
    except Exception as error:  # gensim and what it unpickles raise anything
        raise UsageError(
            f"{path} cannot be read as word vectors ({type(error).__name__}: {error}): expected gensim's own "
            "format, or word2vec's as .txt or .bin"
        ) from error


def quiet_flair() -> None:
    """Keep Flair's own long report off the terminal; its trainer writes it to ``training.log`` as well."""
    for handler in flair.logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)


class EpochLines(TrainerPlugin):  # type: ignore[misc]
    """Prints a line per epoch.

    Parameters
    ----------
    metric : str
        What to call the score.
    """

    def __init__(self, metric: str) -> None:
        super().__init__()
        self._metric = metric
        self._start = time.perf_counter()

    @TrainerPlugin.hook  # type: ignore[untyped-decorator]
    def before_training_epoch(self, **_: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    @TrainerPlugin.hook  # type: ignore[untyped-decorator]
    def after_evaluation(self, epoch: int, validation_scores: tuple[float, ...], **_: Any) -> None:
        """Print the epoch's score and its seconds, scoring included."""
        seconds = time.perf_counter() - self._start
        print(f"epoch {epoch}: {self._metric} on dev {validation_scores[0]:.3f}, {seconds:.1f} s")


def finish(model: Any, corpus: Corpus, out: Path, metric: str) -> None:
    """Save a trained Flair model, score it on the test set, or the development set if there is none."""
    path = out / "model.pt"
    model.eval()
    model.save(path)
    # The same weights; Flair keeps them only where a score was above 0.
    (out / "best-model.pt").unlink(missing_ok=True)
    name, split = ("test", corpus.test) if corpus.test else ("dev", corpus.dev)
    result = model.evaluate(
        split, gold_label_type=model.label_type, mini_batch_size=32, embedding_storage_mode="none"
    )
    print(f"{metric} on {name} {result.main_score:.3f}, model in {path}")
