"""The compiled bidirectional LSTM, where installing found a C compiler: forward, and all gradients.

It is optional: without it, or on a processor that ``lstm.c`` has no code for, torch gives the same numbers
up to rounding, from the same parameters.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.dataset.gathering.buffers import BufferPool
from featurestore.native import load_library, switched_off

_VERSION = 1
"""Of the functions in lstm.c."""

_TYPES = {torch.float32: 0, torch.bfloat16: 1}

_WIDTH = 16
"""Values of a vector of lstm.c."""

_PANEL = 64
"""Columns of a panel in lstm.c: the four gates of sixteen cells."""

_MOST_VALUES = 1 << 31
"""Places are counted in 32 bits there."""

_NUMBERS = (
    "n_sentences", "n_tokens", "n_steps", "longest", "dim", "hidden", "cells", "n_threads", "type", "narrow",
)  # fmt: skip
_GIVEN = ("order", "lengths", "firsts", "counts", "offsets", "features", "mean", "scale", "factors")
_WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
_RESULTS = ("outputs", "states")
_KEPT = (
    "inputs", "kept", "n_kept", "rows", "gates", "memory", "hidden_rows", "packed_ih", "packed_hh",
)  # fmt: skip
_SCRATCH = (
    "d_gates", "d_hidden", "d_memory", "packed_back", "packed_in", "before", "rows_after", "iota", "pairs",
    "d_packed",
)  # fmt: skip

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class _Lstm(ctypes.Structure):
    """What lstm.c calls an Lstm."""

    _fields_ = [
        *((name, _NUMBER) for name in _NUMBERS),
        *((name, _POINTER) for name in _GIVEN),
        *((name, _POINTER * 2) for name in _WEIGHTS),
        *((name, _POINTER) for name in (*_RESULTS, *_KEPT, "d_outputs", "d_states")),
        *((name, _POINTER * 2) for name in ("d_w_ih", "d_w_hh", "d_bias")),
        *((name, _POINTER) for name in ("d_features", *_SCRATCH)),
    ]


@dataclass(frozen=True)
class Inputs:
    """What a layer reads.

    Attributes
    ----------
    features : (batch, longest, dim) float32
    lengths : (batch,) int64
        Each at least 1.
    mean, scale : (dim,) float32, optional
        Read are ``(features - mean) * scale``.
    factors : (batch, dim) float32, optional
        And that times a sentence's factors: of locked dropout. Columns whose factor is 0 cost nothing.
    """

    features: Tensor
    lengths: Tensor
    mean: Tensor | None = None
    scale: Tensor | None = None
    factors: Tensor | None = None

    def read(self) -> Tensor:
        """Return what is read, (batch, longest, dim)."""
        vectors = self.features
        if self.mean is not None and self.scale is not None:
            vectors = (vectors - self.mean) * self.scale
        return vectors if self.factors is None else vectors * self.factors.unsqueeze(1)


class CompiledLstm:
    """A bidirectional layer; :func:`compiled_lstm` makes one.

    Parameters
    ----------
    library : CDLL

    Attributes
    ----------
    narrow : bool
        Whether it leaves out the widest instructions in float32; false, but for tests.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._forward, self._backward = library.featurestore_lstm_forward, library.featurestore_lstm_backward
        self._multiplies, self.narrow = library.featurestore_lstm_multiplies, False
        # Memory of a batch, kept for the next: new memory costs a page fault every 4 KiB.
        self._pools = BufferPool(), BufferPool(), BufferPool()

    def takes(self, inputs: Inputs, weights: Sequence[Tensor], products: torch.dtype) -> bool:
        """Return whether it computes this: float32 on a CPU, and products that the processor has."""
        features, lengths = inputs.features, inputs.lengths
        if not all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (features, *weights)):
            return False
        if products not in _TYPES or not self._multiplies(_TYPES[products]):
            return False
        if products == torch.bfloat16 and _torch_multiplies_tiles():
            return False
        n_sentences, longest, dim = features.shape
        if (
            not n_sentences
            or len(lengths) != n_sentences
            or _PANEL * max(n_sentences * longest, dim) >= _MOST_VALUES
        ):
            return False
        shortest, farthest = torch.aminmax(lengths)
        return int(shortest) >= 1 and int(farthest) <= longest

    def __call__(
        self, inputs: Inputs, weights: Sequence[Tensor], products: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Parameters
        ----------
        inputs : Inputs
            That it takes; gradients go to the features and to no other of them.
        weights : sequence of Tensor
            Of ``torch.nn.LSTM``: input's and recurrent weights and their biases, of both directions.
        products : torch.dtype
            Type of the two operands of every product, float32 or bfloat16; the rest is float32.

        Returns
        -------
        outputs : (batch, longest, 2 * hidden) float32
            Zeros in padding.
        states : (batch, 2 * hidden) float32
            Output forward at each sentence's last token, and backward at its first.
        """
        given = self, inputs, products, inputs.features, *weights
        outputs, states = _Run.apply(*given)  # type: ignore[no-untyped-call]  # untyped in torch
        return outputs, states

    def forward(
        self, inputs: Inputs, weights: Sequence[Tensor], products: torch.dtype
    ) -> tuple[Tensor, Tensor, _Sizes, dict[str, Tensor]]:
        """Run the layer forward; return outputs, states, and what the gradients need."""
        sizes, arrays = _sizes(inputs, weights[1].shape[1], products, narrow=self.narrow)
        n, cells, stride = sizes.n_tokens, sizes.cells, sizes.stride
        shapes = {
            "inputs": ((n, stride), products),
            "kept": ((sizes.n_sentences, stride), torch.int32),
            "n_kept": ((sizes.n_sentences,), torch.int64),
            "rows": ((2, n + 1), torch.int32),
            "gates": ((2, cells, 4, n), torch.float32),
            "memory": ((2, n, cells), torch.float32),
            "hidden_rows": ((2, n, cells), products),
            **{name: ((len(array),), torch.int64) for name, array in arrays.items()},
        }
        kept = _allocated(self._pools[0], shapes)
        for name, array in arrays.items():
            kept[name].copy_(torch.from_numpy(array))
        for name in ("mean", "scale", "factors"):
            if (tensor := getattr(inputs, name)) is not None:
                kept[name] = tensor.detach().float().contiguous()
        packed = {
            "packed_ih": ((2, 4 * cells, sizes.dim), products),
            "packed_hh": ((2, 4 * cells, cells), products),
        }
        outputs = torch.empty(sizes.n_sentences, sizes.longest, 2 * sizes.hidden)
        states = torch.empty(sizes.n_sentences, 2 * sizes.hidden)
        given = {"features": inputs.features.detach().contiguous(), "outputs": outputs, "states": states}
        tensors = {**kept, **given, **_allocated(self._pools[1], packed)}
        self._call(self._forward, sizes, tensors, _by_name(weights, _WEIGHTS))
        return outputs, states, sizes, kept

    def backward(
        self,
        sizes: _Sizes,
        kept: dict[str, Tensor],
        weights: Sequence[Tensor],
        d_outputs: Tensor | None,
        d_states: Tensor | None,
        *,
        of_features: bool,
    ) -> list[Tensor | None]:
        """Return the gradients of the features, if wanted, and of the weights, as they were given."""
        products = kept["inputs"].dtype
        n, cells, dim, n_sentences = sizes.n_tokens, sizes.cells, sizes.dim, sizes.n_sentences
        shapes = {
            "d_gates": ((2, cells, 4, n), products),
            "d_hidden": ((2, n_sentences, cells), torch.float32),
            "d_memory": ((2, n_sentences, cells), torch.float32),
            "packed_back": ((2, cells, 4 * cells), products),
            "before": ((2, n + 1, cells + _WIDTH), products),
            "rows_after": ((n + 1,), torch.int32),
            "iota": ((cells,), torch.int32),
            "d_packed": ((2, 4 * cells, dim + cells), torch.float32),
        }
        if products == torch.bfloat16:
            shapes["pairs"] = ((n + n_sentences + 2, sizes.stride), products)
        if of_features:
            shapes["packed_in"] = ((-(-dim // 32), 2, 4 * cells, 32), products)
        tensors = kept | _allocated(self._pools[1], shapes)
        for name, gradient in (("d_outputs", d_outputs), ("d_states", d_states)):
            if gradient is not None:
                tensors[name] = gradient.float().contiguous()
        if of_features:
            tensors["d_features"] = torch.empty(n_sentences, sizes.longest, dim)
        like = {str(i): (tuple(weight.shape), torch.float32) for i, weight in enumerate(weights)}
        gradients = [*_allocated(self._pools[2], like).values()]
        pairs = {**_by_name(weights, _WEIGHTS), **_by_name(gradients, ("d_w_ih", "d_w_hh", "d_bias"))}
        self._call(self._backward, sizes, tensors, pairs)
        for first in (0, 4):  # both biases are added to the same
            gradients[first + 3].copy_(gradients[first + 2])
        return [tensors.get("d_features"), *gradients]

    def _call(
        self,
        function: Any,
        sizes: _Sizes,
        tensors: dict[str, Tensor],
        pairs: dict[str, tuple[Tensor, Tensor]],
    ) -> None:
        struct = _Lstm(**{name: getattr(sizes, name) for name in _NUMBERS})
        for name, tensor in tensors.items():
            setattr(struct, name, tensor.data_ptr())
        held = {name: [tensor.detach().contiguous() for tensor in pair] for name, pair in pairs.items()}
        for name, (forth, back) in held.items():
            setattr(struct, name, (_POINTER * 2)(forth.data_ptr(), back.data_ptr()))
        if function(ctypes.byref(struct)):
            raise ValueError(f"products of type {sizes.type} are not multiplied here")


class _Run(torch.autograd.Function):
    """The layer as autograd sees it."""

    @staticmethod
    def forward(
        ctx: Any,
        lstm: CompiledLstm,
        inputs: Inputs,
        products: torch.dtype,
        features: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        outputs, states, sizes, kept = lstm.forward(inputs, weights, products)
        ctx.set_materialize_grads(False)
        ctx.lstm, ctx.sizes, ctx.names = lstm, sizes, list(kept)
        ctx.save_for_backward(*weights, *kept.values())
        return outputs, states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, d_states: Tensor | None) -> tuple[Any, ...]:
        weights, kept = ctx.saved_tensors[:8], dict(zip(ctx.names, ctx.saved_tensors[8:], strict=True))
        wanted = ctx.needs_input_grad[3]
        gradients = ctx.lstm.backward(ctx.sizes, kept, weights, d_outputs, d_states, of_features=wanted)
        return None, None, None, *gradients


@dataclass(frozen=True)
class _Sizes:
    """The numbers of an Lstm of lstm.c."""

    n_sentences: int
    n_tokens: int
    n_steps: int
    longest: int
    dim: int
    hidden: int
    cells: int
    n_threads: int
    type: int
    narrow: int

    @property
    def stride(self) -> int:
        """Length of a vector as it is laid out."""
        return -(-self.dim // _WIDTH) * _WIDTH + _WIDTH


def _sizes(
    inputs: Inputs, hidden: int, products: torch.dtype, *, narrow: bool
) -> tuple[_Sizes, dict[str, NDArray[np.int64]]]:
    """Return the sizes of a batch, and where its sentences and steps lie."""
    n_sentences, longest, dim = inputs.features.shape
    lengths = inputs.lengths.numpy().astype(np.int64)
    order = np.argsort(-lengths, kind="stable")
    by_rank = lengths[order]
    counts = np.searchsorted(-by_rank, -np.arange(int(by_rank[0])), side="left")
    ends = np.cumsum(by_rank)
    arrays = {
        "order": order,
        "lengths": by_rank,
        "firsts": np.concatenate([[0], ends]),
        "counts": counts,
        "offsets": np.cumsum(counts) - counts,
    }
    sizes = _Sizes(
        n_sentences, int(ends[-1]), len(counts), longest, dim, hidden, -(-hidden // 32) * 32,
        torch.get_num_threads(), _TYPES[products], int(narrow),
    )  # fmt: skip
    return sizes, arrays


def _by_name(weights: Sequence[Tensor], names: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return of each name the weight forward and the weight backward."""
    return {name: (weights[i], weights[4 + i]) for i, name in enumerate(names)}


def compiled_lstm() -> CompiledLstm | None:
    """Return the compiled layer, or None where there is none or it is switched off."""
    return None if switched_off() else _compiled()


@functools.cache
def _torch_multiplies_tiles() -> bool:
    """Return whether torch has AMX, whose bfloat16 products are several times as fast as lstm.c's."""
    capabilities: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(capabilities().get("amx_bf16", False))


@functools.cache
def _compiled() -> CompiledLstm | None:
    library = load_library(
        Path(__file__).parent, "_lstm", prefix="featurestore_lstm", version=_VERSION,
        instead="torch trains the LSTMs of light models, which takes twice as long",
        functions={
            "featurestore_lstm_multiplies": (ctypes.c_int, _NUMBER),
            "featurestore_lstm_forward": (ctypes.c_int, _POINTER),
            "featurestore_lstm_backward": (ctypes.c_int, _POINTER),
        },
    )  # fmt: skip
    return None if library is None else CompiledLstm(library)


def _allocated(
    pool: BufferPool, shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> dict[str, Tensor]:
    """Return uninitialised tensors that share one buffer, each at the beginning of a cache line."""
    sizes = {name: int(np.prod(shape)) * dtype.itemsize for name, (shape, dtype) in shapes.items()}
    starts = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes.values())]).tolist()
    whole = pool.empty((starts[-1],), torch.uint8)
    return {
        name: whole[start : start + sizes[name]].view(dtype).view(shape)
        for start, (name, (shape, dtype)) in zip(starts, shapes.items(), strict=False)
    }
