"""The trainable biLM: parameters of a weights file, and the chunk-by-chunk pass that training needs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featurestore.encoders.elmo.files.weights import Weights
from featurestore.encoders.elmo.model.characters import N_CHARACTER_IDS
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.pretraining.recurrence import lstm_layer

_SCOPE = "RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
_CARRY_BIAS = -2.0
"""Highway gates start nearly shut, as bilm-tf starts them: layers begin as the identity."""


class StreamState(NamedTuple):
    """LSTM states of every stream, carried from chunk to chunk.

    Attributes
    ----------
    hidden : Tensor, shape (n_layers, 2, n_streams, projection_dim)
    memory : Tensor, shape (n_layers, 2, n_streams, lstm_dim)
    """

    hidden: Tensor
    memory: Tensor


class TrainableBiLM(nn.Module):
    """A biLM of the AllenNLP architecture with gradients.

    Parameters
    ----------
    options : ElmoOptions
    dropout : float
        Share of features zeroed in token vectors, between LSTM layers and in the top layer's output.
    character_dropout : float
        Share of a word's characters zeroed, anew for each word of each chunk. Without it the network knows
        every word of its text by its exact spelling, and does worse on words it never met.
    precision : torch.dtype
        Type in which matrix products are computed; parameters and cells stay float32.
    """

    def __init__(
        self,
        options: ElmoOptions,
        *,
        dropout: float = 0.0,
        character_dropout: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.options = options
        self.dropout = dropout
        self.character_dropout = character_dropout
        self.precision = precision
        dim, cell, n_filters = options.projection_dim, options.lstm_dim, options.n_filters

        def matrix(*shape: int, gain: float = 1.0) -> nn.Parameter:
            """Normal numbers that keep the size of what they multiply; fan-in is the last axis but one."""
            return nn.Parameter(torch.randn(*shape) * gain / math.sqrt(shape[-2]))

        self.characters = nn.Parameter(torch.empty(N_CHARACTER_IDS, options.character_dim).uniform_(-1, 1))
        self.filters = nn.ParameterList(
            matrix(width * options.character_dim, n) for width, n in options.filters
        )
        self.filter_biases = nn.ParameterList(nn.Parameter(torch.zeros(n)) for _, n in options.filters)
        self.transforms = nn.ParameterList(matrix(n_filters, n_filters) for _ in range(options.n_highway))
        self.transform_biases = nn.ParameterList(
            nn.Parameter(torch.zeros(n_filters)) for _ in range(options.n_highway)
        )
        self.carries = nn.ParameterList(matrix(n_filters, n_filters) for _ in range(options.n_highway))
        self.carry_biases = nn.ParameterList(
            nn.Parameter(torch.full((n_filters,), _CARRY_BIAS)) for _ in range(options.n_highway)
        )
        self.projection = matrix(n_filters, dim)
        self.projection_bias = nn.Parameter(torch.zeros(dim))
        # By layer; axis 0 is the direction.
        self.gates = nn.ParameterList(matrix(2, 2 * dim, 4 * cell) for _ in range(options.n_layers))
        self.gate_biases = nn.ParameterList(
            nn.Parameter(torch.zeros(2, 4 * cell)) for _ in range(options.n_layers)
        )
        self.cell_projections = nn.ParameterList(
            matrix(2, cell, dim, gain=2.0) for _ in range(options.n_layers)
        )

    def initial_state(self, n_streams: int) -> StreamState:
        """Return zeros for every stream."""
        options, device = self.options, self.characters.device
        return StreamState(
            torch.zeros(options.n_layers, 2, n_streams, options.projection_dim, device=device),
            torch.zeros(options.n_layers, 2, n_streams, options.lstm_dim, device=device),
        )

    @contextlib.contextmanager
    def computing_in(self, precision: torch.dtype) -> Iterator[None]:
        """Multiply in another type within this context."""
        before, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = before

    def token_vectors(self, character_ids: Tensor) -> Tensor:
        """Return the vectors of word types.

        Parameters
        ----------
        character_ids : Tensor of int64, shape (n_types, n_positions)
            All positions, or fewer where the rest would be padding only: the widest filter needs room for
            one window of padding.

        Returns
        -------
        Tensor, shape (n_types, projection_dim)
            In the type of products.
        """
        vectors = functional.embedding(character_ids, self.characters.to(self.precision))
        if self.training and self.character_dropout:
            keep = 1 - self.character_dropout
            mask = torch.rand((*character_ids.shape, 1), device=vectors.device) < keep
            vectors = vectors * mask.to(vectors.dtype)
        pooled = []
        for (width, _), filters, bias in zip(
            self.options.filters, self.filters, self.filter_biases, strict=True
        ):
            windows = vectors.unfold(1, width, 1).transpose(2, 3).flatten(2)
            # The maximum over positions sends its gradient to one of them, as a max-pool does.
            pooled.append((windows @ filters.to(self.precision)).max(1).values + bias.to(self.precision))
        activation = torch.relu if self.options.activation == "relu" else torch.tanh
        values = activation(torch.cat(pooled, 1))
        for transform, transform_bias, carry, carry_bias in zip(
            self.transforms, self.transform_biases, self.carries, self.carry_biases, strict=True
        ):
            gate = torch.sigmoid(self._affine(values, carry, carry_bias))
            values = torch.lerp(values, torch.relu(self._affine(values, transform, transform_bias)), gate)
        return self._affine(values, self.projection, self.projection_bias)

    def forward(self, vectors: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Run a chunk of every stream.

        Parameters
        ----------
        vectors : Tensor, shape (2, n_steps, n_streams, projection_dim)
            Token vectors; axis 0 is the direction, steps in the order in which it reads.
        state : StreamState
            Before the chunk.

        Returns
        -------
        outputs : Tensor, like ``vectors``
            Of the top layer.
        state : StreamState
            After the chunk, detached.
        """
        hidden, memory = [], []
        values = self._drop(vectors)
        for layer in range(self.options.n_layers):
            outputs, end_hidden, end_memory = lstm_layer(
                values,
                state.hidden[layer],
                state.memory[layer],
                self.gates[layer],
                self.gate_biases[layer],
                self.cell_projections[layer],
                cell_clip=self.options.cell_clip,
                proj_clip=self.options.proj_clip,
            )
            hidden.append(end_hidden.to(state.hidden.dtype))
            memory.append(end_memory)
            if layer and self.options.use_skip_connections:
                outputs = outputs + values
            values = self._drop(outputs)
        return values, StreamState(torch.stack(hidden), torch.stack(memory))

    def weights(self) -> Weights:
        """Return the parameters by the names and in the shapes of a weights file, float32."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._named_tensors().items()}

    def load(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a file: what :meth:`weights` returns, or another model's."""
        with torch.no_grad():
            for name, tensor in self._named_tensors().items():
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))

    def _named_tensors(self) -> dict[str, Tensor]:
        """Return views of the parameters as a weights file names and shapes them."""
        options = self.options
        named = {
            # The file has no row for the mask.
            "char_embed": self.characters[1:],
            "CNN_proj/W_proj": self.projection,
            "CNN_proj/b_proj": self.projection_bias,
        }
        for i, (width, n) in enumerate(options.filters):
            named[f"CNN/W_cnn_{i}"] = self.filters[i].view(1, width, options.character_dim, n)
            named[f"CNN/b_cnn_{i}"] = self.filter_biases[i]
        for i in range(options.n_highway):
            # AllenNLP's highway reads x W + b with W as the file has it.
            named[f"CNN_high_{i}/W_transform"] = self.transforms[i]
            named[f"CNN_high_{i}/b_transform"] = self.transform_biases[i]
            named[f"CNN_high_{i}/W_carry"] = self.carries[i]
            named[f"CNN_high_{i}/b_carry"] = self.carry_biases[i]
        for layer in range(options.n_layers):
            for direction in (0, 1):
                scope = _SCOPE.format(direction=direction, layer=layer)
                named[f"{scope}/W_0"] = self.gates[layer][direction]
                named[f"{scope}/B"] = self.gate_biases[layer][direction]
                named[f"{scope}/W_P_0"] = self.cell_projections[layer][direction]
        return named

    def _affine(self, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias.to(self.precision), values, weight.to(self.precision))

    def _drop(self, values: Tensor) -> Tensor:
        """Zero the same features of a stream at every step of a chunk (Gal and Ghahramani 2016).

        Better for a recurrence than fresh zeros at every step, and a mask costs a twentieth as much.
        """
        if not self.training or not self.dropout:
            return values
        keep = 1 - self.dropout
        mask = torch.rand((2, 1, *values.shape[2:]), device=values.device) < keep
        return values * (mask / keep).to(values.dtype)
