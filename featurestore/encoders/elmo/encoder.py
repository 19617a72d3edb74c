"""ELMo as an encoder: sentences in, NumPy arrays out, with the recipe that decides them.

How far a sentence's vectors may depend on the batch it was in, as relative L2 difference per sentence and
layer: at most :data:`BATCH_INVARIANCE`. On a CPU with AVX2 or AVX-512 they do not depend on it at all: the
same bits in any batch, order, process and number of threads, for every product adds up each row the same
way (:mod:`featurestore.encoders.elmo.model.linear`; observed with oneDNN told that it runs on either, not yet
on one with AMX). Elsewhere a product over other rows may add up in another order, and the recurrence
carries that on. The largest differences seen where it did, between sentences of UD EWT alone and in batches
of hundreds, with the ``original`` shape: float32 2e-6, bfloat16 7e-3, float16 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.devices import choose_device, on_device, out_of_memory_as_ours
from featurestore.encoders.elmo.files.identity import PRECISIONS, elmo_recipe
from featurestore.encoders.elmo.files.initial_state import WarmState
from featurestore.encoders.elmo.files.layers import CanonicalLayers, n_layers_kept, parse_layers
from featurestore.encoders.elmo.files.resolving import resolve
from featurestore.encoders.elmo.files.weights import Weights
from featurestore.encoders.elmo.model.network import BiLM, InitialState
from featurestore.encoders.elmo.model.numerics import full_float32_products
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.encoders.elmo.model.packing import Packing
from featurestore.encoders.vectors import BatchVectors
from featurestore.errors import UsageError
from featurestore.keys import Sentence, check_sentence

BATCH_INVARIANCE = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}
"""Bound on the relative L2 difference of a sentence's vectors between any two batches, by precision."""

TOKEN_BUDGET = {"cpu": 8_192, "cuda": 131_072}
"""Tokens per batch by default: on a CPU more tokens only cost memory, a GPU wants more rows per step."""


class ElmoEncoder:
    """An ELMo model as :class:`featurestore.encoders.base.Encoder`.

    Parameters
    ----------
    spec : str
        The specification that loads it again.
    options : ElmoOptions
    weights : dict of str to ndarray
    identity : dict
        The recipe fields that name the weights.
    layers : str
        As for :func:`featurestore.encoders.elmo.files.layers.parse_layers`.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.
    device : torch.device
    warm_state : WarmState, optional
        What every sentence starts in, instead of zeros.
    """

    def __init__(
        self,
        spec: str,
        options: ElmoOptions,
        weights: Weights,
        *,
        identity: dict[str, Any],
        layers: str,
        precision: str,
        device: torch.device,
        warm_state: WarmState | None = None,
    ) -> None:
        self._layers: CanonicalLayers = parse_layers(layers, options.n_layers + 1)
        self._device = device
        self._options = options
        with out_of_memory_as_ours(f"the weights of {spec}", "Choose a smaller model or another device"):
            self._network = BiLM(
                options,
                weights,
                precision=precision,
                device=device,
                initial_state=_as_tensors(warm_state) if warm_state else None,
            )
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.spec = spec
        self.recipe = elmo_recipe(
            options,
            identity,
            layers=layers,
            precision=precision,
            warm_state_sha256=warm_state.sha256 if warm_state else None,
        )
        self.dim = options.dim
        self.max_token_bytes = options.max_token_bytes
        self.n_layers = n_layers_kept(self._layers)
        self.device = str(device)
        self.token_budget = TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cpu"])

    def submit(self, sentences: Sequence[Sentence]) -> PendingElmoVectors:
        """Start encoding a batch; on a GPU return before it is done.

        Parameters
        ----------
        sentences : sequence of tuple of str
            In any order; sorting by length happens inside.

        Raises
        ------
        SentenceError
            For an empty sentence, an empty token, or something that is no list of strings.
        EncoderOutOfMemory
            If the batch does not fit.
        """
        sentences = list(sentences)
        for sentence in sentences:
            check_sentence(sentence)
        lengths = [len(sentence) for sentence in sentences]
        if not lengths:
            return PendingElmoVectors(None, [])
        subject = f"a batch of {sum(lengths):,} tokens in {len(lengths):,} sentences on {self.device}"
        with (
            out_of_memory_as_ours(subject, "Use a smaller token budget"),
            torch.inference_mode(),
            full_float32_products(),
        ):
            packing = Packing.of(lengths)
            vectors = self._choose(sentences, packing)
            order = on_device(packing.positions, self._device)
            return PendingElmoVectors(vectors[order], lengths, self._copies)

    def encode(self, sentences: Sequence[Sentence]) -> list[NDArray[np.floating]]:
        """Return one ``(n_tokens, dim)`` or ``(n_tokens, n_layers, dim)`` float32 array per sentence."""
        return list(self.submit(sentences).result())

    @contextmanager
    def watched(self, report: Callable[[int], None]) -> Iterator[None]:
        """Report progress within a sentence of thousands of tokens while the context lasts.

        Parameters
        ----------
        report : callable
            Takes how many more tokens' worth of work is done; not called for short sentences.
        """
        self._network.report_long = report
        try:
            yield
        finally:
            self._network.report_long = None

    def forget_types(self) -> None:
        """Drop the kept vectors of word types, so that the next batch computes its own."""
        self._network.types.clear()

    def _choose(self, sentences: Sequence[Sentence], packing: Packing) -> Tensor:
        """Return the layers of the recipe, packed, (n_tokens, [n_layers,] dim) float32."""
        if self._layers == "average":
            n_layers = self._network.n_layers
            total, *others = self._network.layers(sentences, packing, n_layers=n_layers)
            total = total.float()
            for layer in others:
                total = total + layer.float()
            return total / n_layers
        outputs = self._network.layers(sentences, packing, n_layers=max(self._layers) + 1)
        chosen = [outputs[index].float() for index in self._layers]
        return chosen[0] if len(chosen) == 1 else torch.stack(chosen, 1)


class PendingElmoVectors:
    """Vectors of one batch on their way from the device.

    Parameters
    ----------
    vectors : Tensor or None
        (n_tokens, ...) float32, sentence by sentence as given; None for a batch without sentences.
    lengths : list of int
        Tokens of each sentence.
    copies : torch.cuda.Stream, optional
        The stream that brings vectors from a GPU.
    """

    def __init__(
        self, vectors: Tensor | None, lengths: list[int], copies: torch.cuda.Stream | None = None
    ) -> None:
        self._lengths = lengths
        self._copied: torch.cuda.Event | None = None
        host = vectors
        if vectors is not None and copies is not None:
            # On a stream of its own, so that the next batch is computed meanwhile.
            copies.wait_stream(torch.cuda.current_stream(vectors.device))
            host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
            with torch.cuda.stream(copies):
                host.copy_(vectors, non_blocking=True)
                self._copied = copies.record_event()
            # Its memory may be used again when the copy is done, not when this tensor is dropped.
            vectors.record_stream(copies)
        self._host = host

    def result(self) -> Sequence[NDArray[np.floating]]:
        """Wait for the copy, then return one array per sentence, in the order given."""
        if self._copied is not None:
            with out_of_memory_as_ours("a batch on its way from the GPU", "Use a smaller token budget"):
                self._copied.synchronize()
            self._copied = None
        return [] if self._host is None else BatchVectors(self._host.numpy(), self._lengths)


def load_elmo(rest: str, *, layers: str, precision: str, device: str, initial_state: str) -> ElmoEncoder:
    """Load the ELMo model that a specification names.

    Parameters
    ----------
    rest : str
        The specification after ``elmo:``: see :func:`featurestore.encoders.elmo.files.catalog.parse_source`.
    layers, precision, device, initial_state : str
        As for :func:`featurestore.encoders.loading.load_encoder`.

    Raises
    ------
    UsageError
        If an argument makes no sense.
    EncoderError
        If the model cannot be fetched, read or placed on the device.
    """
    chosen_device = choose_device(device)
    if precision == "auto":
        precision = "float16" if chosen_device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: expected auto, {', '.join(PRECISIONS)}")
    model = resolve(rest, initial_state=initial_state, published="download")
    parse_layers(layers, model.options.n_layers + 1)  # before the weights are read
    weights, identity, warm_state = model.read()
    return ElmoEncoder(
        model.source.spec,
        model.options,
        weights,
        identity=identity,
        layers=layers,
        precision=precision,
        device=chosen_device,
        warm_state=warm_state,
    )


def _as_tensors(state: WarmState) -> InitialState:
    return InitialState(torch.from_numpy(state.hidden), torch.from_numpy(state.memory))
