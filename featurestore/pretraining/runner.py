"""A training from texts to a folder with a model: data, checkpoints, resumption, the model card."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from featurestore.corpora.corpus import Corpus
from featurestore.corpora.observed import ObservedCorpus
from featurestore.devices import choose_device, out_of_memory_as_ours, training_precision
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import EncoderError, ModelError, UsageError
from featurestore.pretraining.output import ModelFolder
from featurestore.pretraining.progress import EpochReport, PretrainProgress
from featurestore.pretraining.settings import CHECKPOINT_FORMAT, PretrainConfig
from featurestore.pretraining.streams import Text
from featurestore.pretraining.trainer import Diverged, Trainer
from featurestore.pretraining.vocabulary import Vocabulary
from featurestore.resuming.checkpoint import Checkpoint, SavedTraining
from featurestore.resuming.interrupts import held_back
from featurestore.store.store import Store

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 300.0
"""Seconds of work that a kill costs at most."""


@dataclass(frozen=True)
class PretrainReport:
    """What a training came to.

    Attributes
    ----------
    folder : Path
        Holds ``options.json``, ``weights.hdf5``, ``vocabulary.txt``, ``card.json`` and ``CARD.md``.
    history : tuple of EpochReport
        Every finished pass, those of earlier processes included.
    n_tokens, n_types, n_classes, n_parameters : int
        Training tokens of one pass, distinct words, predictable words, parameters of the biLM.
    weights_sha256 : str or None
        Of the weights file; None if no pass was finished.
    seconds : float
        Of training, all processes together.
    status : str
        ``complete``, ``interrupted`` or ``terminated``.
    """

    folder: Path
    history: tuple[EpochReport, ...]
    n_tokens: int
    n_types: int
    n_classes: int
    n_parameters: int
    weights_sha256: str | None
    seconds: float
    status: str

    @property
    def best(self) -> EpochReport | None:
        """The pass whose weights were kept."""
        return next((report for report in reversed(self.history) if report.best), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "folder": str(self.folder),
            "history": [report.to_dict() for report in self.history],
            "best": self.best.to_dict() if self.best else None,
        }


class Pretraining:
    """A training that can be stopped at any moment and goes on from its last checkpoint.

    Parameters
    ----------
    corpora : sequence of Corpus
        Read whole into memory, four bytes a token.
    out : Path
        Folder of the model; a checkpoint in it is resumed.
    options : ElmoOptions
        Shape of the model.
    config : PretrainConfig
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    weights_dtype : str
        ``float32``, which AllenNLP reads, or ``float16``, half the size.
    licences : sequence of str
        Lines on the texts' sources and licences, for the model card.
    command : str
        How the training was started, for the model card.
    checkpoint_seconds : float
        Time between checkpoints.
    progress : PretrainProgress, optional

    Raises
    ------
    CorpusError
        If a corpus cannot be read, holds no sentence, or gives no vocabulary.
    UsageError
        If the folder holds a checkpoint of another training: naming what differs; or a model and no
        checkpoint, which would be overwritten; or is a store.
    ModelError
        If its checkpoint is damaged, or the weights that go with it are.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        out: Path,
        options: ElmoOptions,
        config: PretrainConfig,
        *,
        device: str = "auto",
        weights_dtype: str = "float32",
        licences: Iterable[str] = (),
        command: str = "",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        progress: PretrainProgress | None = None,
    ) -> None:
        self._progress = progress or PretrainProgress()
        if Store.exists(out):
            raise UsageError(f"{out} is a store, and takes no model: choose another --out")
        chosen = choose_device(device)
        config = dataclasses.replace(config, precision=training_precision(config.precision, chosen))
        self._checkpoint_seconds = checkpoint_seconds
        text, sources = _read(corpora, self._progress)
        train, self._held_out = text.split(config.held_out, config.seed)
        self._vocabulary = Vocabulary.of_counts(
            train.counts(), min_count=config.min_count, max_words=config.max_words
        )
        identity = {
            "options": options.to_dict(),
            "settings": config.to_dict(),
            "corpora": sources,
            "vocabulary_sha256": _sha256("\n".join(self._vocabulary.words)),
        }
        self._folder = ModelFolder(
            Path(out),
            options,
            self._vocabulary,
            facts={
                **identity,
                "n_train_sentences": train.n_sentences,
                "n_train_tokens": train.n_tokens,
                "n_held_out_tokens": self._held_out.n_tokens,
                "licences": list(licences),
                "command": command,
            },
            weights_dtype=weights_dtype,
        )
        self._checkpoint = Checkpoint(
            Path(out) / "checkpoint.h5",
            identity,
            format_name=CHECKPOINT_FORMAT,
            smaller="choose a smaller shape or vocabulary",
            anew="Go on with its settings, choose another --out, or empty that folder to begin anew",
        )
        saved = self._checkpoint.read()
        if saved is None and self._folder.weights.exists():
            raise UsageError(
                f"{self._folder.weights} is there without a checkpoint of its training, and would be "
                "overwritten: choose another --out, or move it away"
            )
        with (
            out_of_memory_as_ours("this model in training", "Choose a smaller shape, or fewer streams"),
            self._own_random_numbers(chosen),
        ):
            self.trainer = Trainer(options, config, train, self._vocabulary, device=chosen)
        self._history: list[EpochReport] = []
        self._seconds = 0.0
        self._epoch_loss, self._epoch_seconds = 0.0, 0.0
        self._text = train
        self._resumed = saved is not None
        if saved is not None:
            self._restore(saved)

    def run(self) -> PretrainReport:
        """Train to the end, or until ``KeyboardInterrupt`` (or another exception) arrives between updates.

        Whatever ends it, the last checkpoint is whole; Ctrl-C writes one more.

        Raises
        ------
        ModelError
            If the loss, its gradient or a perplexity is no longer finite.
        EncoderOutOfMemory
            If a batch does not fit into memory.
        StoreWriteError
            If the disk is full or failing: the last checkpoint is untouched.
        """
        trainer = self.trainer
        if not self._resumed:
            # A disk that is full or read-only, or a model too large for a checkpoint, shows now and not after
            # hours; and nobody else begins another training in this folder.
            self._save()
        per_step = trainer.tokens_per_step
        self._progress.started(trainer.n_steps_in_all * per_step, trainer.step * per_step)
        try:
            with self._own_random_numbers(trainer.device):
                self._train()
        except Diverged as error:
            raise ModelError(
                f"{error}. The checkpoint before it is untouched ({self._checkpoint.path}). Try a smaller "
                f"--lr (now {trainer.config.lr:g}) in another folder"
            ) from error
        except BaseException as error:
            # An end from outside (Ctrl-C, SIGTERM) is a chance to lose nothing; a failure is not.
            if not isinstance(error, Exception):
                with held_back():
                    self._save()
            raise
        finally:
            self._progress.finished()
        return self.report("complete")

    def report(self, status: str) -> PretrainReport:
        """Return where the training stands."""
        return PretrainReport(
            folder=self._folder.path,
            history=tuple(self._history),
            n_tokens=self._text.n_tokens,
            n_types=len(self._text.types),
            n_classes=len(self._vocabulary),
            n_parameters=sum(p.numel() for p in self.trainer.network.parameters()),
            weights_sha256=self._folder.weights_sha256(),
            seconds=self._seconds,
            status=status,
        )

    def _train(self) -> None:
        trainer = self.trainer
        saved = time.monotonic()
        while True:
            at_end_of_pass = trainer.step % trainer.steps_per_epoch == 0
            # Not only after an update: a stop between a pass and the end of its measurement leaves it due.
            if at_end_of_pass and self._n_measured < trainer.step // trainer.steps_per_epoch:
                self._finish_epoch()
            elif trainer.step < trainer.n_steps_in_all:
                self._update()
                if trainer.step % trainer.steps_per_epoch == 0:
                    continue
                if time.monotonic() - saved < self._checkpoint_seconds:
                    continue
            else:
                return
            self._save()
            saved = time.monotonic()

    @property
    def _n_measured(self) -> int:
        """Passes that are finished and measured."""
        return self._history[-1].epoch if self._history else 0

    def _update(self) -> None:
        # An interrupt must not find an update half done: a checkpoint of that would be of no training.
        with held_back():
            started = time.perf_counter()
            with out_of_memory_as_ours("a batch of this training", "Use fewer --streams or --steps"):
                loss, n_tokens = self.trainer.advance()
            elapsed = time.perf_counter() - started
            self._seconds += elapsed
            self._epoch_seconds += elapsed
            self._epoch_loss += loss
        self._progress.advanced(n_tokens, loss)

    def _finish_epoch(self) -> None:
        trainer = self.trainer
        epoch = trainer.step // trainer.steps_per_epoch
        measured = trainer.perplexity(self._held_out)
        product = measured.forward * measured.backward
        if not math.isfinite(product):
            raise Diverged(
                f"the training diverged in pass {epoch}: held-out perplexities {measured.forward:g} and "
                f"{measured.backward:g}"
            )
        best = min((report.forward * report.backward for report in self._history), default=math.inf)
        report = EpochReport(
            epoch=epoch,
            loss=self._epoch_loss / trainer.steps_per_epoch,
            forward=measured.forward,
            backward=measured.backward,
            seconds=self._epoch_seconds,
            best=product < best,
        )
        if report.best:
            self._folder.write(trainer.network.weights())
        self._folder.describe([*self._history, report], self._seconds)
        # Last, for what stops before is done again.
        with held_back():
            self._history.append(report)
            self._epoch_loss = self._epoch_seconds = 0.0
        self._progress.epoch_finished(report)

    def _restore(self, saved: SavedTraining) -> None:
        path, trainer = self._checkpoint.path, self.trainer
        try:
            self._history = [EpochReport(**report) for report in saved.progress["history"]]
            self._seconds = float(saved.progress["seconds"])
            self._epoch_loss = float(saved.progress["epoch_loss"])
            self._epoch_seconds = float(saved.progress["epoch_seconds"])
            trainer.restore(saved.tensors, int(saved.progress["step"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{path} is no checkpoint of this training ({type(error).__name__}: {error}): restore it, or "
                "empty its folder to begin anew"
            ) from error
        if self._history:
            try:
                self._folder.check()
            except EncoderError as error:
                raise ModelError(
                    f"{path} goes with weights that cannot be read: {error}. Restore them, or empty the "
                    "folder to begin anew"
                ) from error
        if self._n_measured == trainer.config.epochs:
            notice = f"{self._folder.path}: the training is finished, nothing is left to do"
        else:
            notice = f"going on from {path}: step {trainer.step:,} of {trainer.n_steps_in_all:,}"
        self._progress.notice(notice)

    @staticmethod
    def _own_random_numbers(device: torch.device) -> AbstractContextManager[None]:
        """Return a context that leaves torch's generators as it found them."""
        return torch.random.fork_rng([device] if device.type == "cuda" else [])

    def _save(self) -> None:
        self._checkpoint.write(
            self.trainer.tensors(),
            {
                "step": self.trainer.step,
                "seconds": self._seconds,
                "epoch_loss": self._epoch_loss,
                "epoch_seconds": self._epoch_seconds,
                "history": [report.to_dict() for report in self._history],
            },
        )


def _read(corpora: Sequence[Corpus], progress: PretrainProgress) -> tuple[Text, list[dict[str, Any]]]:
    """Return the text of all corpora, and what identifies each: name, sentences, tokens, hash."""
    sources: list[dict[str, Any]] = []

    def sentences() -> Iterable[Sequence[str]]:
        for corpus in map(ObservedCorpus, corpora):
            digest, n_sentences, n_tokens = hashlib.sha256(), 0, 0
            for example in corpus:
                digest.update("\t".join(example.tokens).encode("utf-8", "surrogatepass") + b"\n")
                n_sentences += 1
                n_tokens += len(example.tokens)
                yield example.tokens
            reading = corpus.reading
            first = " ".join(reading.first_tokens[:12])
            progress.notice(
                f"{corpus.path}: {n_sentences:,} sentences, {n_tokens:,} tokens; the first begins: {first}"
            )
            for warning in reading.warnings:
                log.warning("%s", warning)
            sources.append(
                {
                    "name": Path(corpus.path).name,
                    "n_sentences": n_sentences,
                    "n_tokens": n_tokens,
                    "tokens_sha256": digest.hexdigest(),
                }
            )

    text = Text.of(sentences())
    seen: dict[str, str] = {}
    for source in sources:
        name, digest = source["name"], source["tokens_sha256"]
        if digest in seen:
            progress.notice(
                f"{name} holds the same sentences as {seen[digest]} before it: those held out are trained on "
                "too, and their perplexity will look better than it is"
            )
        seen[digest] = name
    return text, sources


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
