"""Encoders by specification, the last one kept: to plan an extraction takes the same model as to run it."""

from __future__ import annotations

from dataclasses import dataclass

import flair
import torch

from featurestore.devices import choose_device, out_of_memory_as_ours
from featurestore.encoders.flair.building import allows_trainable, build
from featurestore.encoders.flair.encoder import FlairEncoder
from featurestore.encoders.flair.members import flair_device
from featurestore.encoders.flair.specs import FlairSource, parse_flair, spec_of


@dataclass(frozen=True)
class _Kept:
    """An encoder and the files it was loaded from, as they were."""

    sources: tuple[FlairSource, ...]
    stamps: tuple[tuple[tuple[str, int, int], ...], ...]
    encoder: FlairEncoder


_last: _Kept | None = None


def load_flair(rest: str, *, device: str | None = "auto") -> FlairEncoder:
    """Load the encoder that a specification names; the one loaded last if it is the same.

    Parameters
    ----------
    rest : str
        The specification after ``flair:``; see :mod:`featurestore.encoders.flair.specs`.
    device : str or None
        As for :func:`featurestore.load_encoder`, where ``auto`` is ``flair.device``; None for any, where only
        what is known of the encoder is asked for.

    Raises
    ------
    UsageError
        If the specification makes no sense, or the vectors of the embedding cannot be cached.
    EncoderError
        If the model cannot be fetched, read or placed on the device.
    """
    global _last
    sources = parse_flair(rest)
    chosen = torch.device(flair.device) if device in ("auto", None) else choose_device(str(device))
    stamps = tuple(tuple(source.stamps()) for source in sources)
    kept = _last
    if (
        kept is not None
        and (kept.sources, kept.stamps) == (sources, stamps)
        and (device is None or kept.encoder.device == str(chosen))
    ):
        return kept.encoder
    _last = kept = None  # before another one is loaded: two may not fit into memory
    spec = spec_of(sources)
    trainable = allows_trainable(sources)
    with out_of_memory_as_ours(f"the weights of {spec}", "Choose a smaller model or another device"):
        embedding = build(sources, chosen)
        with flair_device(chosen):
            encoder = FlairEncoder(embedding, spec=spec, allow_trainable=trainable)
    _last = _Kept(sources, stamps, encoder)
    return encoder
