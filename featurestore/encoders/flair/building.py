"""Flair embeddings from what a specification asks for.

Flair's own constructors read the files, and most of its formats are pickles: reading one runs the code in it.
Name only files of people you trust.
"""

from __future__ import annotations

import inspect
import os
import zipfile
from collections.abc import Callable
from typing import Any

import flair.embeddings
import torch
from flair.embeddings import StackedEmbeddings, TransformerWordEmbeddings
from flair.embeddings.base import Embeddings, TokenEmbeddings, load_embeddings
from flair.file_utils import load_torch_state
from transformers import AutoTokenizer

from featurestore.encoders.flair.members import flair_device
from featurestore.encoders.flair.options import first_parameter, parameters_of, parse_bool, typed_options
from featurestore.encoders.flair.rules import require_class
from featurestore.encoders.flair.specs import ARCHIVE_ERRORS, SAVED, FlairSource, spec_of
from featurestore.encoders.flair.vocabulary import SEPARATOR, fix_separator, uses_separator
from featurestore.errors import (
    DownloadError,
    EncoderError,
    FeaturestoreError,
    UnknownEncoderError,
    UsageError,
    WeightsError,
)

ALLOW_TRAINABLE = "allow_trainable"
"""The option of a specification that is not one of the class."""


def build(sources: tuple[FlairSource, ...], device: torch.device) -> TokenEmbeddings:
    """Return the embedding, or stack, that a specification asks for, on a device.

    The same specification gives the same weights: what Flair draws at random is drawn from a fixed seed, and
    a separator that was never trained is fixed.

    Raises
    ------
    UnknownEncoderError
        If Flair has no class of that name.
    UsageError
        If an option is unknown or its value makes no sense.
    DownloadError, WeightsError
        If a model cannot be fetched or read.
    """
    cuda = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    with flair_device(device), torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        embeddings = [_built(source) for source in sources]
        return embeddings[0] if len(embeddings) == 1 else StackedEmbeddings(embeddings)


def allows_trainable(sources: tuple[FlairSource, ...]) -> bool:
    """Return whether the specification says so, for any of its parts."""
    stated = [dict(source.options).get(ALLOW_TRAINABLE, "false") for source in sources]
    return any(parse_bool(text, f"{spec_of(sources)}, {ALLOW_TRAINABLE}={text}") for text in stated)


def _built(source: FlairSource) -> TokenEmbeddings:
    _require_sound(source)
    options = {name: text for name, text in source.options if name != ALLOW_TRAINABLE}
    trainable = allows_trainable((source,))
    if source.kind == SAVED:
        if options:
            raise UsageError(f"flair:{source.text}: a saved embedding has its own options, expected none")
        return _called(source, lambda: _saved(source))
    kind = _class_named(source)
    require_class(kind, allow_trainable=trainable)
    keywords = typed_options(kind, options)
    if "fine_tune" in parameters_of(kind):
        keywords.setdefault("fine_tune", False)
    first = first_parameter(kind)
    if first is None and source.name:
        raise UsageError(f"flair:{source.text}: {kind.__name__} takes no name or path, only options")
    if first is not None and source.name:
        keywords[first] = str(source.path or source.name)
    elif first is not None and parameters_of(kind)[first].default is inspect.Parameter.empty:
        raise UsageError(f"flair:{source.text}: expected a name or path, {source.kind}=NAME")
    if _is_offline() and source.path is None and source.name:
        if not issubclass(kind, TransformerWordEmbeddings):
            raise DownloadError(
                f"flair:{source.text}: FEATURESTORE_OFFLINE forbids fetching it. Give the path of its file "
                f"(Flair keeps fetched ones under {flair.cache_root}), or unset FEATURESTORE_OFFLINE"
            )
        keywords["local_files_only"] = True
    embedding: TokenEmbeddings = _called(source, lambda: kind(**keywords))
    if isinstance(embedding, TransformerWordEmbeddings) and uses_separator(embedding):
        load: Callable[..., Any] = AutoTokenizer.from_pretrained
        published = _called(source, lambda: load(embedding.base_model_name, local_files_only=True))
        if SEPARATOR not in published.get_vocab():
            fix_separator(embedding)
    return embedding


def _require_sound(source: FlairSource) -> None:
    """Raise WeightsError if a torch file does not hold the bytes that were saved: torch does not check."""
    if source.path is None or not source.path.is_file():
        return
    try:
        with source.path.open("rb") as file:
            if file.read(2) != b"PK":
                return
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
    except ARCHIVE_ERRORS as error:
        damaged = str(error)
    if damaged:
        raise WeightsError(f"flair:{source.text}: {source.path} is damaged ({damaged}): get it again")


def _class_named(source: FlairSource) -> type[Embeddings]:
    kind = getattr(flair.embeddings, source.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, Embeddings)):
        known = sorted(
            name
            for name, value in vars(flair.embeddings).items()
            if isinstance(value, type) and issubclass(value, TokenEmbeddings) and value is not TokenEmbeddings
        )
        raise UnknownEncoderError(
            f"flair:{source.text}: Flair has no embedding {source.kind!r}: expected {', '.join(known)}"
        )
    return kind


def _saved(source: FlairSource) -> TokenEmbeddings:
    state: Any = load_torch_state(str(source.path))
    if isinstance(state, dict) and "__cls__" in state:
        state = load_embeddings(state)
    if not isinstance(state, TokenEmbeddings):
        raise WeightsError(
            f"flair:{source.text}: {source.path} holds a {type(state).__name__}, expected a token embedding "
            "or what its save_embeddings() returns"
        )
    return state.to(flair.device) or state


def _called(source: FlairSource, make: Callable[[], Any]) -> Any:
    """Call Flair; raise what fails in it as one of our errors."""
    try:
        return make()
    except (FeaturestoreError, torch.OutOfMemoryError, MemoryError):
        raise
    except ImportError as error:
        raise EncoderError(f"flair:{source.text} needs a package that is not installed: {error}") from error
    except Exception as error:
        # Flair, transformers, gensim and requests each raise their own.
        if source.path is not None:
            raise WeightsError(
                f"flair:{source.text}: Flair cannot make {source.kind} of {source.path} "
                f"({type(error).__name__}: {error}). Check that the options make sense, and that what lies "
                "there is complete and of this kind"
            ) from error
        raise DownloadError(
            f"flair:{source.text}: Flair cannot find or fetch {source.name or source.kind!r} "
            f"({type(error).__name__}: {error}). Check the name and the network, or give a path"
        ) from error


def _is_offline() -> bool:
    return os.environ.get("FEATURESTORE_OFFLINE", "0") not in ("", "0")
