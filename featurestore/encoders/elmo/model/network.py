"""The bidirectional language model: token vectors, then LSTM layers, each direction on its own."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.devices import on_device
from featurestore.encoders.elmo.model.bidirectional import BidirectionalLayer
from featurestore.encoders.elmo.model.characternet import CharacterNetwork, TypeTable
from featurestore.encoders.elmo.model.characters import BEGIN_SENTENCE, END_SENTENCE
from featurestore.encoders.elmo.model.gates import choose_gates
from featurestore.encoders.elmo.model.long_sentences import (
    LONG_SENTENCE,
    MAX_ROWS,
    LongLayer,
    can_be_compiled,
    recurrence_library,
)
from featurestore.encoders.elmo.model.lstm import LstmDirection, LstmState, LstmWeights
from featurestore.encoders.elmo.model.numerics import Numerics
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.encoders.elmo.model.packing import Packing

_DIRECTIONS = (0, 1)
_MARKER_READ_FIRST = (BEGIN_SENTENCE, END_SENTENCE)


@dataclass(frozen=True)
class InitialState:
    """The state in which every sentence starts, before its first marker is read.

    Attributes
    ----------
    hidden : Tensor, shape (n_layers, 2, projection_dim)
        Axis 1 is the direction: forward, backward.
    memory : Tensor, shape (n_layers, 2, lstm_dim)
    """

    hidden: Tensor
    memory: Tensor

    @classmethod
    def zeros(cls, options: ElmoOptions) -> InitialState:
        """Return the state of policy ``zero``."""
        return cls(
            torch.zeros(options.n_layers, 2, options.projection_dim),
            torch.zeros(options.n_layers, 2, options.lstm_dim),
        )


class CarriedState:
    """LSTM states carried from batch to batch, as the published implementation does.

    A state belongs to a row of the batch as given. A smaller batch leaves the other rows unchanged; a larger
    one starts its additional rows at zero.

    Attributes
    ----------
    states : list of list of LstmState
        By layer, then direction; rows in the order of the batch as given.
    """

    def __init__(self, network: BiLM) -> None:
        options = network.options
        self._network = network
        empty = torch.zeros(0, 1, dtype=network.numerics.state, device=network.device)
        self.states = [
            [
                LstmState(empty.expand(0, options.projection_dim), empty.expand(0, options.lstm_dim))
                for _ in _DIRECTIONS
            ]
            for _ in range(options.n_layers)
        ]

    @property
    def n_rows(self) -> int:
        """Rows that have a state."""
        return len(self.states[0][0].hidden)

    def start(self, layer: int, direction: int, packing: Packing) -> LstmState:
        """Return a copy of the states of the batch's rows, in rank order, new rows at zero."""
        state = self.states[layer][direction]
        order = torch.from_numpy(packing.ranking).to(self._network.device)
        return LstmState(*(_grown(part, packing.n_rows)[order] for part in state))

    def keep(self, layer: int, direction: int, packing: Packing, end: LstmState) -> None:
        """Store the states after a batch, given in rank order."""
        order = torch.from_numpy(packing.ranking).to(self._network.device)
        kept = []
        for old, new in zip(self.states[layer][direction], end, strict=True):
            rows = _grown(old, packing.n_rows).clone()
            rows[order] = new.to(rows.dtype)
            kept.append(rows)
        self.states[layer][direction] = LstmState(*kept)

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return hidden and memory, each (n_layers, n_rows, 2 * size): forward, then backward."""
        hidden = torch.stack([torch.cat([state.hidden for state in layer], 1) for layer in self.states])
        memory = torch.stack([torch.cat([state.memory for state in layer], 1) for layer in self.states])
        return hidden, memory


def _grown(rows: Tensor, n_rows: int) -> Tensor:
    missing = max(0, n_rows - len(rows))
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])


class BiLM:
    """A pretrained bidirectional language model of one shape, precision and device.

    With a fixed initial state the first marker of a direction (begin for forward, end for backward) leads to
    the same state in every sentence, so it is computed once per network. The other marker follows the last
    token and changes no token's vector, so it is not computed. Only tokens pass through the LSTMs.

    Parameters
    ----------
    options : ElmoOptions
    weights : mapping of str to ndarray
        Every tensor that :func:`featurestore.encoders.elmo.files.weights.expected_shapes` names.
    precision : str
        ``float32``, ``bfloat16``, ``float16`` or ``float64``: see
        :mod:`featurestore.encoders.elmo.model.numerics`.
    device : torch.device or str
    initial_state : InitialState, optional
        Zeros by default.
    side_by_side : bool, optional
        Run both directions of a layer at once, which rounds differently with other row counts; by default on
        a GPU.

    Attributes
    ----------
    gates : Gates
        Compute the pointwise half of a step where both directions run at once.
    report_long : callable or None
        Told of progress within long sentences, as a number of tokens: a token counts when as many steps are
        done as it takes.
    """

    def __init__(
        self,
        options: ElmoOptions,
        weights: Mapping[str, NDArray[Any]],
        *,
        precision: str = "float32",
        device: torch.device | str = "cpu",
        initial_state: InitialState | None = None,
        side_by_side: bool | None = None,
    ) -> None:
        self.options = options
        self.device = torch.device(device)
        self.numerics = Numerics.of(precision, self.device)
        self.types = TypeTable(CharacterNetwork(options, weights, self.numerics, self.device))
        if side_by_side is None:
            side_by_side = self.device.type == "cuda"
        clips = {"cell_clip": options.cell_clip, "proj_clip": options.proj_clip}
        self._layers: list[list[LstmDirection]] = []
        self._pairs: list[BidirectionalLayer] = []
        for layer in range(options.n_layers):
            self._layers.append([])
            pair = []
            for direction in _DIRECTIONS:
                backward = bool(direction)
                part = LstmWeights.of(
                    weights, layer=layer, backward=backward, numerics=self.numerics, device=self.device
                )
                self._layers[layer].append(
                    LstmDirection(options, part, backward=backward, numerics=self.numerics)
                )
                if side_by_side:
                    pair.append(part)
            if side_by_side:
                self._pairs.append(BidirectionalLayer(pair, self.numerics, **clips))
        self.gates = choose_gates(self.numerics.operands, options.lstm_dim, options.cell_clip, self.device)
        self._initial = InitialState.zeros(options) if initial_state is None else initial_state
        self._after_marker: list[list[LstmState]] | None = None
        self._long_layers: list[LongLayer] | None = None
        self._walks_compiled = not side_by_side and can_be_compiled(
            self.numerics.operands, self.numerics.rounding, self.device
        )
        self.report_long: Callable[[int], None] | None = None

    @property
    def n_layers(self) -> int:
        """Layers of output: token vectors and one per LSTM layer."""
        return self.options.n_layers + 1

    def layers(self, sentences: Sequence[Sequence[str]], packing: Packing, *, n_layers: int) -> list[Tensor]:
        """Return the first output layers of a batch, every sentence starting in the initial state.

        Parameters
        ----------
        sentences : sequence of sequence of str
            Without markers.
        packing : Packing
            The layout of these sentences.
        n_layers : int
            Number of output layers wanted; LSTM layers above them are not run.

        Returns
        -------
        list of Tensor
            ``n_layers`` tensors (n_tokens, 2 * projection_dim), packed, in the operands' type: token
            vectors twice over, then forward and backward outputs of each LSTM layer.
        """
        start = self._states_after_marker() if n_layers > 1 else []
        if start and packing.longest >= LONG_SENTENCE and (library := self._recurrence()) is not None:
            return self._layers_with_long(sentences, packing, start[: n_layers - 1], library)
        vectors = self._token_vectors(sentences, packing)
        if self._pairs:
            return self._layers_side_by_side(vectors, packing, start[: n_layers - 1])
        outputs = [torch.cat([vectors, vectors], 1)]
        halves = [vectors, vectors]
        for layer in range(n_layers - 1):
            for direction in _DIRECTIONS:
                halves[direction], _ = self._run(
                    layer, direction, halves[direction], packing, start[layer][direction]
                )
            outputs.append(torch.cat(halves, 1))
        return outputs

    def _recurrence(self) -> ctypes.CDLL | None:
        return recurrence_library() if self._walks_compiled else None

    def _layers_with_long(
        self,
        sentences: Sequence[Sequence[str]],
        packing: Packing,
        start: list[list[LstmState]],
        library: ctypes.CDLL,
    ) -> list[Tensor]:
        """Return the layers of a batch in which a few long sentences are walked by compiled code."""
        ranked = packing.ranking.tolist()
        n_long = sum(len(sentences[number]) >= LONG_SENTENCE for number in ranked)
        ends = np.cumsum([len(sentence) for sentence in sentences])
        outputs = [
            torch.empty(
                packing.n_tokens, 2 * self.options.projection_dim, dtype=self.numerics.operands,
                device=self.device,
            )
            for _ in range(len(start) + 1)
        ]  # fmt: skip

        def keep(numbers: Sequence[int], computed: list[Tensor]) -> None:
            """Put layers of some sentences, one after the other, where the batch's packing has them."""
            places = [packing.positions[ends[i] - len(sentences[i]) : ends[i]] for i in numbers]
            here = on_device(np.concatenate(places), self.device)
            for output, part in zip(outputs, computed, strict=True):
                output[here] = part

        for first in range(0, n_long, MAX_ROWS):
            numbers = ranked[first : min(first + MAX_ROWS, n_long)]
            keep(numbers, self._layers_of_long([sentences[number] for number in numbers], start, library))
        if short := sorted(ranked[n_long:]):
            others = [sentences[number] for number in short]
            their_packing = Packing.of([len(sentence) for sentence in others])
            computed = self.layers(others, their_packing, n_layers=len(start) + 1)
            order = on_device(their_packing.positions, self.device)
            keep(short, [part[order] for part in computed])
        return outputs

    def _layers_of_long(
        self, sentences: Sequence[Sequence[str]], start: list[list[LstmState]], library: ctypes.CDLL
    ) -> list[Tensor]:
        """Return the layers of a few long sentences, the longest first, token by token as they are given."""
        if self._long_layers is None:
            self._long_layers = [LongLayer(directions, library) for directions in self._layers]
        table, rows = self.types.lookup([token for sentence in sentences for token in sentence])
        vectors = table[on_device(rows, self.device)]
        outputs = [torch.cat([vectors, vectors], 1)]
        halves = [vectors, vectors]
        lengths = [len(sentence) for sentence in sentences]
        n_steps, n_reported, n_walks = 0, 0, 2 * len(start)

        def report(n_more: int) -> None:
            nonlocal n_steps, n_reported
            n_steps += n_more
            if self.report_long is not None and n_steps // n_walks > n_reported:
                self.report_long(n_steps // n_walks - n_reported)
                n_reported = n_steps // n_walks

        for layer, states in enumerate(start):
            walked = self._long_layers[layer].run(halves, lengths, states, report)
            halves = [self._skipped(layer, *parts) for parts in zip(walked, halves, strict=True)]
            outputs.append(torch.cat(halves, 1))
        return outputs

    def _layers_side_by_side(
        self, vectors: Tensor, packing: Packing, start: list[list[LstmState]]
    ) -> list[Tensor]:
        reversal = on_device(packing.reversal(), self.device)
        outputs = [torch.cat([vectors, vectors], 1)]
        halves = torch.stack([vectors, vectors[reversal]])
        for layer, states in enumerate(start):
            inputs = halves
            halves = self._pairs[layer].run(inputs, packing, states, self.gates)
            if self.options.use_skip_connections and layer > 0:
                halves = self.numerics.round(halves + inputs)
            outputs.append(torch.cat([halves[0], halves[1, reversal]], 1))
        return outputs

    def layers_carrying(
        self, sentences: Sequence[Sequence[str]], carried: CarriedState
    ) -> list[list[Tensor]]:
        """Return all output layers of a batch as the published implementation computes them: statefully.

        Both markers are ordinary positions. The vectors depend on all earlier batches, so no recipe offers
        this; it exists for comparison with reference outputs.

        Returns
        -------
        list of list of Tensor
            Per sentence as given, per output layer, (n_tokens, 2 * projection_dim) without the markers.
        """
        marked = [[BEGIN_SENTENCE, *sentence, END_SENTENCE] for sentence in sentences]
        packing = Packing.of([len(sentence) for sentence in marked])
        vectors = self._token_vectors(marked, packing)
        outputs = [torch.cat([vectors, vectors], 1)]
        halves = [vectors, vectors]
        for layer in range(self.options.n_layers):
            for direction in _DIRECTIONS:
                start = carried.start(layer, direction, packing)
                halves[direction], end = self._run(layer, direction, halves[direction], packing, start)
                carried.keep(layer, direction, packing, end)
            outputs.append(torch.cat(halves, 1))
        order = torch.from_numpy(packing.positions).to(self.device)
        sizes = [len(sentence) for sentence in marked]
        by_layer = [[part[1:-1] for part in torch.split(output[order], sizes)] for output in outputs]
        return [list(layers) for layers in zip(*by_layer, strict=True)]

    def _run(
        self, layer: int, direction: int, inputs: Tensor, packing: Packing, start: LstmState
    ) -> tuple[Tensor, LstmState]:
        outputs, end = self._layers[layer][direction].run(inputs, packing, start)
        return self._skipped(layer, outputs, inputs), end

    def _skipped(self, layer: int, outputs: Tensor, inputs: Tensor) -> Tensor:
        # The recurrent state is the one before the skip connection.
        if self.options.use_skip_connections and layer > 0:
            return self.numerics.round(outputs + inputs)
        return outputs

    def _token_vectors(self, sentences: Sequence[Sequence[str]], packing: Packing) -> Tensor:
        tokens = [token for sentence in sentences for token in sentence]
        table, rows = self.types.lookup(tokens)
        packed_rows = np.empty_like(rows)
        packed_rows[packing.positions] = rows
        return table[on_device(packed_rows, self.device)]

    def _states_after_marker(self) -> list[list[LstmState]]:
        if self._after_marker is None:
            packing = Packing.of([1])
            halves = [self._token_vectors([[marker]], packing) for marker in _MARKER_READ_FIRST]
            states: list[list[LstmState]] = []
            for layer in range(self.options.n_layers):
                states.append([])
                for direction in _DIRECTIONS:
                    start = LstmState(
                        self.numerics.round(self._initial.hidden[layer, direction].to(self.device))[None],
                        self._initial.memory[layer, direction].to(self.device, self.numerics.state)[None],
                    )
                    halves[direction], end = self._run(layer, direction, halves[direction], packing, start)
                    states[layer].append(end)
            self._after_marker = states
        return self._after_marker
