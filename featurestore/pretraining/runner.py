"""A training from texts to a folder with a model: data, checkpoints, resumption, the model card."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from featurestore.corpora.corpus import Corpus
from featurestore.encoders.elmo.encoder import choose_device, out_of_memory_as_ours
from featurestore.encoders.elmo.options import ElmoOptions
from featurestore.errors import ModelError
from featurestore.pretraining.checkpoint import Checkpoint
from featurestore.pretraining.output import ModelFolder
from featurestore.pretraining.progress import EpochReport, PretrainProgress
from featurestore.pretraining.settings import PretrainConfig
from featurestore.pretraining.streams import Text
from featurestore.pretraining.trainer import Trainer
from featurestore.pretraining.vocabulary import Vocabulary

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 300.0
"""A kill costs at most so much work."""


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
        If the folder holds a checkpoint of another training: naming what differs.
    ModelError
        If its checkpoint is damaged.
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
        chosen = choose_device(device)
        config = dataclasses.replace(config, precision=_precision(config.precision, chosen))
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
            "vocabulary_sha256": hashlib.sha256("\n".join(self._vocabulary.words).encode()).hexdigest(),
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
        self._checkpoint = Checkpoint(Path(out) / "checkpoint.h5", identity)
        saved = self._checkpoint.read()
        with out_of_memory_as_ours("this model in training", "Choose a smaller shape, or fewer streams"):
            self.trainer = Trainer(options, config, train, self._vocabulary, device=chosen)
        self._history: list[EpochReport] = []
        self._seconds = 0.0
        self._epoch_loss, self._epoch_seconds = 0.0, 0.0
        if saved is not None:
            self._history = [EpochReport(**report) for report in saved.progress["history"]]
            self._seconds = saved.progress["seconds"]
            self._epoch_loss = saved.progress["epoch_loss"]
            self._epoch_seconds = saved.progress["epoch_seconds"]
            self.trainer.restore(saved.tensors, saved.progress["step"])
            self._progress.notice(
                f"going on from {self._checkpoint.path}: step {self.trainer.step:,} of "
                f"{self.trainer.n_steps_in_all:,}"
            )
        self._text = train

    def run(self) -> PretrainReport:
        """Train to the end, or until ``KeyboardInterrupt`` (or another exception) arrives between updates.

        Whatever ends it, the last checkpoint is whole; Ctrl-C writes one more.

        Raises
        ------
        ModelError
            If the loss is no longer finite.
        EncoderOutOfMemory
            If a batch does not fit into memory.
        StoreWriteError
            If the disk is full or failing: the last checkpoint is untouched.
        """
        trainer = self.trainer
        per_step = trainer.tokens_per_step
        self._progress.started(trainer.n_steps_in_all * per_step, trainer.step * per_step)
        state = torch.random.get_rng_state()
        try:
            self._train()
        except BaseException as error:
            # A generator exit of any kind (Ctrl-C, SIGTERM) is a chance to lose nothing; a failure is not.
            if not isinstance(error, Exception):
                self._save()
            raise
        finally:
            torch.random.set_rng_state(state)
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
        while trainer.step < trainer.n_steps_in_all:
            started = time.perf_counter()
            with out_of_memory_as_ours("a batch of this training", "Use fewer --streams or --steps"):
                loss, n_tokens = trainer.advance()
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss became {loss} at step {trainer.step:,}: the checkpoint before it is "
                    f"untouched ({self._checkpoint.path}). Try a smaller --lr (now {trainer.config.lr:g}) in "
                    "another folder"
                )
            elapsed = time.perf_counter() - started
            self._seconds += elapsed
            self._epoch_seconds += elapsed
            self._epoch_loss += loss
            self._progress.advanced(n_tokens, loss)
            if trainer.step % trainer.steps_per_epoch == 0:
                self._finish_epoch()
            elif time.monotonic() - saved < self._checkpoint_seconds:
                continue
            self._save()
            saved = time.monotonic()

    def _finish_epoch(self) -> None:
        trainer = self.trainer
        measured = trainer.perplexity(self._held_out)
        best = min((report.forward * report.backward for report in self._history), default=math.inf)
        report = EpochReport(
            epoch=trainer.step // trainer.steps_per_epoch,
            loss=self._epoch_loss / trainer.steps_per_epoch,
            forward=measured.forward,
            backward=measured.backward,
            seconds=self._epoch_seconds,
            best=measured.forward * measured.backward < best,
        )
        self._epoch_loss = self._epoch_seconds = 0.0
        self._history.append(report)
        if report.best:
            self._folder.write(trainer.network.weights())
        self._folder.describe(self._history, self._seconds)
        self._progress.epoch_finished(report)

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
        for corpus in corpora:
            digest, n_sentences, n_tokens = hashlib.sha256(), 0, 0
            for example in corpus:
                digest.update("\t".join(example.tokens).encode("utf-8", "surrogatepass") + b"\n")
                n_sentences += 1
                n_tokens += len(example.tokens)
                yield example.tokens
            progress.notice(f"{corpus.path}: {n_sentences:,} sentences, {n_tokens:,} tokens")
            sources.append(
                {
                    "name": Path(corpus.path).name,
                    "n_sentences": n_sentences,
                    "n_tokens": n_tokens,
                    "tokens_sha256": digest.hexdigest(),
                }
            )

    return Text.of(sentences()), sources


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # Without the instructions the processor emulates bfloat16, slower than float32.
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
