"""Long sentences: the recurrence of a layer by compiled code, a few sentences at a time.

A step over one row is bound by reading the weights and by the calls of a step. Here hundreds of steps are one
call (``recurrence.c``), whose threads share the cells, and the inputs' share of them is one product
beforehand. One direction is walked at a time, so that more of its weights stay in the processor's cache.

Whether a sentence is long depends on its own length alone, so its vectors are the same to the bit in any
batch. They differ from what :class:`~featurestore.encoders.elmo.model.lstm.LstmDirection` gives by rounding:
see :data:`featurestore.encoders.elmo.encoder.BATCH_INVARIANCE`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from featurestore.encoders.elmo.model.lstm import LstmDirection, LstmState
from featurestore.native import load_library, switched_off

LONG_SENTENCE = 1_024
"""Tokens from which a sentence is long. Batches of shorter ones have enough rows for full speed."""

MAX_ROWS = 4
"""Sentences walked together: their sums fit into the registers of a processor, and weights are read once."""

_TOKENS_AT_ONCE = 512
"""Tokens whose inputs' share is computed before they are walked: 32 MB with 4,096 cells in float32."""

_CACHED_BYTES = 20 << 20
"""Weights that are expected to stay in a processor's last cache from step to step.

With 4,096 cells in float32 a direction has 40 MB: a third of the gates' weights is kept, the rest is fetched
past the cache. On an AMD EPYC with 32 MB that takes two thirds of the time of caching all."""

_MAX_THREADS = 16
"""Upper bound on the threads that walk together: they wait for each other twice a step."""

_VERSION = 1
"""Of the functions in recurrence.c."""

_WIDTH = 16
"""Values of a vector in recurrence.c, to which dimensions are rounded up."""

_TYPES = {torch.float32: 0, torch.bfloat16: 1}

Report = Callable[[int], None]
"""Takes the number of tokens that were walked in one direction of one layer since it was last called."""


class _Direction(ctypes.Structure):
    """What recurrence.c calls a Direction."""

    _fields_ = [
        ("gates", ctypes.c_void_p),
        ("projection", ctypes.c_void_p),
        ("n_cells", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("type", ctypes.c_int64),
        ("cell_clip", ctypes.c_float),
        ("proj_clip", ctypes.c_float),
        ("kept", ctypes.c_float),
    ]


class LongDirection:
    """The compiled recurrence of one direction of one layer.

    Parameters
    ----------
    direction : LstmDirection
        Whose weights are copied into the order in which they are read.
    library : CDLL

    Attributes
    ----------
    n_bytes : int
        Of the weights.
    """

    def __init__(self, direction: LstmDirection, library: ctypes.CDLL) -> None:
        self._direction, self._call = direction, library.featurestore_recurrence
        recurrent, projection = direction.recurrent_weights()
        n_gates, self._dim = recurrent.shape
        self._n_cells = n_gates // 4
        self._padded_dim, self._padded_cells = _rounded_up(self._dim), _rounded_up(self._n_cells)
        # (4, C, K) -> (C, 4, K)
        gates = recurrent.new_zeros(self._n_cells, 4, self._padded_dim)
        gates[..., : self._dim] = recurrent.view(4, self._n_cells, self._dim).transpose(0, 1)
        self._gates = gates
        self._projection = recurrent.new_zeros(self._padded_dim, self._padded_cells)
        self._projection[: self._dim, : self._n_cells] = projection
        self.n_bytes = self._gates.nbytes + self._projection.nbytes
        no_limit = float("inf")
        self._struct = _Direction(
            self._gates.data_ptr(), self._projection.data_ptr(), self._n_cells, self._dim,
            _TYPES[recurrent.dtype],
            no_limit if direction.cell_clip is None else direction.cell_clip,
            no_limit if direction.proj_clip is None else direction.proj_clip,
            min(1.0, max(0.0, (_CACHED_BYTES - self._projection.nbytes) / self._gates.nbytes)),
        )  # fmt: skip

    def start(self, state: LstmState, n_rows: int) -> tuple[Tensor, Tensor]:
        """Return hidden and memory of rows that all start in one state, as the compiled code keeps them."""
        hidden = torch.zeros(n_rows, self._padded_dim)
        hidden[:, : self._dim] = state.hidden.float()
        memory = torch.zeros(n_rows, self._padded_cells)
        memory[:, : self._n_cells] = state.memory.float()
        return hidden, memory

    def walk(
        self,
        shares: Tensor,
        n_steps: Sequence[int],
        hidden: Tensor,
        memory: Tensor,
        threads: ThreadPoolExecutor,
        n_threads: int,
        *,
        narrow: bool = False,
    ) -> Tensor:
        """Take the next steps of a few sentences.

        Parameters
        ----------
        shares : Tensor, shape (sum of n_steps, 4 * lstm_dim)
            What inputs and bias add to the gates, sentence by sentence in the order walked.
        n_steps : sequence of int
            Steps of each sentence, the most first.
        hidden, memory : Tensor
            As from :meth:`start`; advanced in place.
        threads : ThreadPoolExecutor
            With room for ``n_threads - 1``.
        n_threads : int
            Threads that share the work, this one included; the results are the same for any number.
        narrow : bool
            Leave out the widest instructions, whose results are the same.

        Returns
        -------
        Tensor, shape (sum of n_steps, projection_dim)
            Of the operands' type.
        """
        shares = shares.contiguous()
        out = shares.new_empty(len(shares), self._dim)
        scratch = torch.zeros(len(n_steps), self._padded_cells)
        steps = (ctypes.c_int64 * len(n_steps))(*n_steps)
        meeting = (ctypes.c_int64 * 2)()

        def call(thread: int) -> int:
            refused: int = self._call(
                ctypes.byref(self._struct), len(n_steps), steps, shares.data_ptr(), hidden.data_ptr(),
                memory.data_ptr(), scratch.data_ptr(), out.data_ptr(), n_threads, thread, meeting,
                int(narrow),
            )  # fmt: skip
            return refused

        others = [threads.submit(call, thread) for thread in range(1, n_threads)]
        refused = [call(0), *(other.result() for other in others)]
        if any(refused):
            raise ValueError(f"steps {list(n_steps)}: expected at most {MAX_ROWS}, the most first")
        return out


class LongLayer:
    """Both directions of a layer over a few long sentences.

    Parameters
    ----------
    directions : (LstmDirection, LstmDirection)
        Forward, backward.
    library : CDLL

    Attributes
    ----------
    directions : list of LongDirection
    """

    def __init__(self, directions: Sequence[LstmDirection], library: ctypes.CDLL) -> None:
        self._plain = directions
        self.directions = [LongDirection(direction, library) for direction in directions]

    def run(
        self,
        inputs: Sequence[Tensor],
        lengths: Sequence[int],
        start: Sequence[LstmState],
        report: Report | None = None,
    ) -> list[Tensor]:
        """Run over at most :data:`MAX_ROWS` sentences.

        Parameters
        ----------
        inputs : (Tensor, Tensor), each of shape (n_tokens, projection_dim)
            For each direction, in the operands' type: sentence by sentence, in the order of the text.
        lengths : sequence of int
            Tokens of each sentence, the longest first.
        start : (LstmState, LstmState)
            The state before every sentence, one row.
        report : callable, optional

        Returns
        -------
        [Tensor, Tensor], each of shape (n_tokens, projection_dim)
            Laid out as the inputs are, without skip connection.
        """
        outputs = [torch.empty_like(part) for part in inputs]
        states = [
            compiled.start(state, len(lengths))
            for compiled, state in zip(self.directions, start, strict=True)
        ]
        at_once = _TOKENS_AT_ONCE // len(lengths)
        n_threads = min(torch.get_num_threads(), _MAX_THREADS)
        # Small weights stay in the cache of both directions; then nobody waits for the other half of a step.
        both = n_threads > 1 and sum(compiled.n_bytes for compiled in self.directions) <= _CACHED_BYTES
        team = n_threads // 2 if both else n_threads
        with ThreadPoolExecutor(n_threads) as threads:
            for first in range(0, lengths[0], at_once):
                n_steps = [min(at_once, length - first) for length in lengths if length > first]
                walks: list[tuple[Tensor, Tensor, Future[Tensor]]] = []
                for part, output, direction, compiled, (hidden, memory) in zip(
                    inputs, outputs, self._plain, self.directions, states, strict=True
                ):
                    here = _places(lengths, first, n_steps, from_the_end=direction.is_backward)
                    shares = direction.input_shares(part[here])
                    walk = threads.submit(compiled.walk, shares, n_steps, hidden, memory, threads, team)
                    walks.append((output, here, walk))
                    if not both:
                        walk.result()
                for output, here, walk in walks:
                    output[here] = walk.result()
                    if report is not None:
                        report(sum(n_steps))
        return outputs


def recurrence_library() -> ctypes.CDLL | None:
    """Return the compiled recurrence, or None where there is none or it is switched off."""
    return None if switched_off() else _library()


def can_be_compiled(operands: torch.dtype, rounding: torch.dtype | None, device: torch.device) -> bool:
    """Return whether recurrence.c follows the numeric rules of a network."""
    return device.type == "cpu" and operands in _TYPES and rounding is None


@functools.cache
def _library() -> ctypes.CDLL | None:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    takes = pointer, number, *(pointer,) * 6, number, number, pointer, ctypes.c_int
    return load_library(
        Path(__file__).parent, "_recurrence", prefix="featurestore_recurrence", version=_VERSION,
        instead="a sentence of thousands of tokens takes many times as long",
        functions={"featurestore_recurrence": (ctypes.c_int, *takes)},
    )  # fmt: skip


def _places(lengths: Sequence[int], first: int, n_steps: Sequence[int], *, from_the_end: bool) -> Tensor:
    """Return where the tokens of the next steps lie, sentence by sentence in the order walked."""
    places, begin = [], 0
    for row, length in enumerate(lengths):
        if row < len(n_steps):
            steps = torch.arange(first, first + n_steps[row])
            places.append(begin + (length - 1 - steps if from_the_end else steps))
        begin += length
    return torch.cat(places)


def _rounded_up(size: int) -> int:
    return -(-size // _WIDTH) * _WIDTH
