"""The folder a training makes: options, weights, vocabulary, and the card that says where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from featurestore._version import __version__
from featurestore.disk.atomic import write_atomic
from featurestore.disk.hashes import file_sha256
from featurestore.encoders.elmo.files.weights import Weights, read_weights, write_weights
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import EncoderError, UsageError
from featurestore.pretraining.progress import EpochReport
from featurestore.pretraining.vocabulary import Vocabulary


class ModelFolder:
    """Where a trained model lies; every file is replaced whole.

    Parameters
    ----------
    path : Path
        Made with its parents.
    options : ElmoOptions
    vocabulary : Vocabulary
    facts : mapping
        What the card tells besides results: plain JSON values.
    weights_dtype : str
        ``float32`` or ``float16``.
    """

    def __init__(
        self,
        path: Path,
        options: ElmoOptions,
        vocabulary: Vocabulary,
        *,
        facts: Mapping[str, Any],
        weights_dtype: str,
    ) -> None:
        self.path = path
        self._options = options
        self._vocabulary = vocabulary
        self._facts = dict(facts)
        self._dtype = cast(Literal["float16", "float32"], weights_dtype)

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / "weights.hdf5"

    def weights_sha256(self) -> str | None:
        """Return the hash of the weights file, None where there is none yet."""
        return file_sha256(self.weights) if self.weights.exists() else None

    def check(self) -> None:
        """Check that weights are there and can be kept by a training that goes on.

        Raises
        ------
        EncoderError
            If they are gone or damaged.
        UsageError
            If they are of another type than the one asked for.
        """
        found = read_weights(self.weights, self._options)["char_embed"].dtype.name
        if found != self._dtype:
            raise UsageError(
                f"{self.weights} is {found}, and {self._dtype} was asked for: go on with --weights-dtype "
                f"{found}, or choose another --out"
            )

    def write(self, weights: Weights) -> None:
        """Write a model that AllenNLP, bilm-tf's readers and this package load.

        Raises
        ------
        StoreWriteError, EncoderError
            Disk full, read-only, or failing.
        """
        write_atomic(self.path / "options.json", _json(self._options.to_dict()))
        write_atomic(self.path / "vocabulary.txt", "".join(map(_line, self._vocabulary.words)).encode())
        write_weights(self.weights, weights, dtype=self._dtype)

    def describe(self, history: Sequence[EpochReport], seconds: float) -> None:
        """Write ``card.json`` and ``CARD.md``.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing.
        """
        best = next((report for report in reversed(history) if report.best), None)
        digest = self.weights_sha256()
        if best is None or digest is None:
            raise EncoderError(f"{self.path} has no weights to describe")
        card = {
            "featurestore_version": __version__,
            "weights_sha256": digest,
            "weights_dtype": self._dtype,
            "options_sha256": self._options.sha256,
            "n_classes": len(self._vocabulary),
            "best": best.to_dict(),
            "history": [report.to_dict() for report in history],
            "seconds": seconds,
            **self._facts,
        }
        write_atomic(self.path / "card.json", _json(card))
        write_atomic(self.path / "CARD.md", card_text(card).encode("utf-8", "backslashreplace"))


def card_text(card: Mapping[str, Any]) -> str:
    """Return a model card as Markdown."""
    options, settings, best = card["options"], card["settings"], card["best"]
    lstm, cnn = options["lstm"], options["char_cnn"]
    lines = [
        "# A bidirectional language model in the ELMo format",
        "",
        f"Trained by featurestore {card['featurestore_version']} (`featurestore pretrain`). Files: "
        f"`options.json`, `weights.hdf5` ({card['weights_dtype']}), `vocabulary.txt` (the words it learnt to "
        "predict; computing vectors does not need it).",
        "",
        "| | |",
        "|---|---|",
        f"| vectors | {2 * lstm['projection_dim']} dimensions, {lstm['n_layers'] + 1} layers |",
        f"| LSTM | {lstm['n_layers']} layers of {lstm['dim']} cells a direction, projected to "
        f"{lstm['projection_dim']}; clips {lstm['cell_clip']} and {lstm['proj_clip']} |",
        f"| characters | {sum(n for _, n in cnn['filters'])} filters, {cnn['n_highway']} highway layer(s) |",
        f"| vocabulary | {card['n_classes']:,} classes |",
        f"| held-out perplexity | forward {best['forward']:.1f}, backward {best['backward']:.1f} "
        f"({card['n_held_out_tokens']:,} tokens; best of {len(card['history'])} passes: {best['epoch']}) |",
        f"| training time | {card['seconds'] / 60:.0f} min |",
        f"| SHA-256 of the weights | `{card['weights_sha256']}` |",
        "",
        "## Data",
        "",
        "| text | sentences | tokens | SHA-256 of its tokens |",
        "|---|---|---|---|",
        *(
            f"| {_cell(c['name'])} | {c['n_sentences']:,} | {c['n_tokens']:,} | "
            f"`{c['tokens_sha256'][:16]}...` |"
            for c in card["corpora"]
        ),
        "",
        f"Of these, {card['n_train_tokens']:,} tokens were trained on; the rest measured perplexity.",
        "",
        *(f"- {' '.join(line.split())}" for line in card["licences"]),
        *([""] if card["licences"] else []),
        "## Training",
        "",
        "    " + (card["command"] or "through the Python API").replace("\n", "\n    "),
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
        "",
        "| pass | training loss (nats a word) | held-out forward | held-out backward |",
        "|---|---|---|---|",
        *(
            f"| {r['epoch']} | {r['loss']:.3f} | {r['forward']:.1f} | {r['backward']:.1f} |"
            for r in card["history"]
        ),
        "",
    ]
    return "\n".join(lines)


def _line(word: str) -> str:
    """Return a word as a line: what would end one is escaped, as is what UTF-8 lacks."""
    escaped = word.replace("\r", "\\r").replace("\n", "\\n")
    return escaped.encode("utf-8", "backslashreplace").decode() + "\n"


def _cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
