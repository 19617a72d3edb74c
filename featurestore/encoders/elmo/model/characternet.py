"""The character network: a word type's characters to its vector, computed once per type and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from featurestore.devices import on_device
from featurestore.encoders.elmo.model.characters import N_CHARACTER_IDS, character_ids
from featurestore.encoders.elmo.model.linear import PrepackedLinear
from featurestore.encoders.elmo.model.numerics import Numerics
from featurestore.encoders.elmo.model.options import ElmoOptions

MAX_TYPES = 1 << 16
"""Word types whose vectors are kept (128 MiB at 512-d float32); the table is emptied before it exceeds that.

A batch with more types than this is served all the same: the table always holds the types of the batch.
"""

_TYPES_PER_BLOCK = {"cpu": 64, "cuda": 1024}
"""Types computed at once; a smaller block is filled up to this size.

Products then have a few fixed shapes, and a type's vector is the same to the bit whatever types are computed
with it. Vectors are kept from batch to batch, so they must not depend on which batch came first: a run that
was killed and resumed, with an empty table, must write the same bytes as one that was not.
"""

_WIDTHS = (16, 24)
"""Narrow block widths tried before the full width: most words are short."""


class CharacterNetwork:
    """Convolutions over characters, max-pool, activation, highway layers, projection.

    Parameters
    ----------
    options : ElmoOptions
    weights : mapping of str to ndarray
        Tensors by their names in a weights file.
    numerics : Numerics
    device : torch.device
    """

    def __init__(
        self,
        options: ElmoOptions,
        weights: Mapping[str, NDArray[Any]],
        numerics: Numerics,
        device: torch.device,
    ) -> None:
        self._options = options
        self._device = device
        self._numerics = numerics

        def operand(array: NDArray[Any]) -> Tensor:
            return numerics.operand(array, device)

        # The file has no row for id 0 (masked), which no token contains; ids are one higher than file rows.
        table = np.zeros((N_CHARACTER_IDS, options.character_dim), weights["char_embed"].dtype)
        table[1:] = weights["char_embed"]
        self._character_vectors = operand(table)
        # (1, width, character_dim, n_filters) -> (n_filters, character_dim, width)
        self._convolutions = [
            (operand(weights[f"CNN/W_cnn_{i}"][0].transpose(2, 1, 0)), operand(weights[f"CNN/b_cnn_{i}"]))
            for i in range(len(options.filters))
        ]
        self._highways = [
            (
                PrepackedLinear(
                    operand(weights[f"CNN_high_{i}/W_transform"].T),
                    operand(weights[f"CNN_high_{i}/b_transform"]),
                    "relu",
                ),
                PrepackedLinear(
                    operand(weights[f"CNN_high_{i}/W_carry"].T),
                    operand(weights[f"CNN_high_{i}/b_carry"]),
                    "sigmoid" if numerics.products_are_states else "none",
                ),
            )
            for i in range(options.n_highway)
        ]
        self._projection = PrepackedLinear(
            operand(weights["CNN_proj/W_proj"].T), operand(weights["CNN_proj/b_proj"])
        )
        self._activation = torch.relu if options.activation == "relu" else torch.tanh

    def __call__(self, types: Sequence[str]) -> Tensor:
        """Return the vectors of word types, shape (n_types, projection_dim), in the operands' type."""
        ids, n_positions = character_ids(types, self._options.max_characters)
        vectors = torch.empty(
            len(types), self._options.projection_dim, dtype=self._numerics.operands, device=self._device
        )
        block_size = _TYPES_PER_BLOCK.get(self._device.type, _TYPES_PER_BLOCK["cpu"])
        widths = self._widths(n_positions)
        for width in np.unique(widths):
            members = np.flatnonzero(widths == width)
            for start in range(0, len(members), block_size):
                block = members[start : start + block_size]
                full = np.resize(ids[block, :width], (block_size, width))
                computed = self._vectors(on_device(full, self._device))[: len(block)]
                vectors[on_device(block, self._device)] = computed
        return vectors

    def _widths(self, n_positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return how many positions each type is convolved over; depends on the type alone; (n_types,) int64.

        Padding takes part in the max-pool, but all windows of padding alone are equal: room for one such
        window of the widest filter is enough, more of them change no maximum.
        """
        most = self._options.max_characters
        needed = n_positions + max(width for width, _ in self._options.filters)
        choices = np.array([width for width in _WIDTHS if width < most] + [most])
        return choices[np.minimum(np.searchsorted(choices, needed), len(choices) - 1)]

    def _vectors(self, ids: Tensor) -> Tensor:
        round_ = self._numerics.round
        characters = functional.embedding(ids, self._character_vectors).transpose(1, 2)
        # Adding the bias after the maximum gives the same numbers: rounding keeps order.
        pooled = torch.cat(
            [functional.conv1d(characters, weight).amax(2) + bias for weight, bias in self._convolutions], 1
        )
        values = round_(self._activation(pooled))
        for transform, carry in self._highways:
            candidate, gate = transform(values), carry(values)
            if not self._numerics.products_are_states:
                gate = torch.sigmoid(gate)
            values = round_(gate * candidate + (1 - gate) * values)
        return round_(self._projection(values))


class TypeTable:
    """Vectors of recent word types, kept on the device so that each is computed once.

    Parameters
    ----------
    network : CharacterNetwork
    max_types : int
        The table is emptied before a batch that would make it hold more.
    """

    def __init__(self, network: CharacterNetwork, *, max_types: int = MAX_TYPES) -> None:
        self._network = network
        self._max_types = max_types
        self._rows: dict[str, int] = {}
        self._vectors: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget every type."""
        self._rows, self._vectors = {}, None

    def lookup(self, tokens: Sequence[str]) -> tuple[Tensor, NDArray[np.int64]]:
        """Return the table and the row of each token in it, after computing the types that are new.

        Returns
        -------
        vectors : Tensor, shape (capacity, projection_dim)
        rows : ndarray of int64, shape (n_tokens,)
        """
        rows = np.fromiter(map(self._rows.get, tokens, repeat(-1)), np.int64, len(tokens))
        missing = np.flatnonzero(rows < 0).tolist()
        unknown = list(dict.fromkeys(tokens[i] for i in missing))
        if unknown and len(self._rows) + len(unknown) > self._max_types:
            self.clear()
            missing, unknown = list(range(len(tokens))), list(dict.fromkeys(tokens))
        if unknown or self._vectors is None:
            self._append(unknown)
            rows[missing] = [self._rows[tokens[i]] for i in missing]
        if self._vectors is None:  # only for a call without tokens on an empty table
            raise ValueError("lookup needs at least one token")
        return self._vectors, rows

    def _append(self, types: list[str]) -> None:
        # The dictionary is updated last: if memory runs out before, the table stays as it was.
        new = self._network(types)
        n_before = len(self._rows)
        n_after = n_before + len(types)
        if self._vectors is None or n_after > len(self._vectors):
            grown = new.new_empty((max(1024, 2 * n_after), new.shape[1]))
            if self._vectors is not None:
                grown[:n_before] = self._vectors[:n_before]
            self._vectors = grown
        self._vectors[n_before:n_after] = new
        self._rows.update(zip(types, range(n_before, n_after), strict=True))
