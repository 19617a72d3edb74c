"""One training in memory: the step, the held-out perplexity, and all state that a resumption needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurestore.encoders.elmo.model.characters import character_ids
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import ModelError
from featurestore.pretraining.network import StreamState, TrainableBiLM
from featurestore.pretraining.objective import NextWord
from featurestore.pretraining.settings import PretrainConfig
from featurestore.pretraining.streams import Chunk, Streams, Text
from featurestore.pretraining.vocabulary import Vocabulary

_SHORT_POSITIONS = 16
"""Positions that most words fit into with a window of padding: the long ones are convolved apart."""

_HELD_OUT_STREAMS = 16
_HELD_OUT_STEPS = 35


class Diverged(ModelError):
    """The loss or its gradient is no longer finite."""


@dataclass(frozen=True)
class Perplexity:
    """How well each direction foresees held-out text: exp of the mean negative log-likelihood per word.

    Sentence ends count as words; unknown words as one word; the marker that begins a sentence does not count.
    """

    forward: float
    backward: float

    @property
    def mean(self) -> float:
        """Geometric mean of the two."""
        return math.sqrt(self.forward * self.backward)


class Trainer:
    """A biLM in training.

    Parameters
    ----------
    options : ElmoOptions
    config : PretrainConfig
        With a precision of its own, not ``auto``.
    train : Text
    vocabulary : Vocabulary
    device : torch.device

    Attributes
    ----------
    network : TrainableBiLM
    step, n_steps_in_all : int
        Updates done, and of the whole training.
    """

    def __init__(
        self,
        options: ElmoOptions,
        config: PretrainConfig,
        train: Text,
        vocabulary: Vocabulary,
        *,
        device: torch.device,
    ) -> None:
        self.config = config
        self.device = device
        self._text = train
        precision = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.precision]
        torch.manual_seed(config.seed)
        self.network = TrainableBiLM(
            options, dropout=config.dropout, character_dropout=config.character_dropout, precision=precision
        ).to(device)
        self.objective = NextWord(options.projection_dim, len(vocabulary), precision=precision).to(device)
        self._widest = max(width for width, _ in options.filters)
        ids, self._n_positions = character_ids(train.types, options.max_characters)
        self._character_ids = torch.from_numpy(ids.astype(np.int16))
        self._classes = torch.tensor(vocabulary.classes(train.types))
        self.parameters: dict[str, nn.Parameter] = {
            **{f"network.{name}": value for name, value in self.network.named_parameters()},
            **{f"objective.{name}": value for name, value in self.objective.named_parameters()},
        }
        self.optimizer = self._make_optimizer()
        self.step = 0
        self._streams = self._streams_of(epoch=0)
        self.state = self.network.initial_state(self._streams.n_streams)
        self.n_steps_in_all = config.epochs * len(self._streams)

    @property
    def epoch(self) -> int:
        """Passes begun before the next step, from 0."""
        return self.step // len(self._streams)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass."""
        return len(self._streams)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one update reads, markers included."""
        return self._streams.n_streams * self._streams.n_steps

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        n_warm = max(1, round(self.config.warmup * self.n_steps_in_all))
        if self.step < n_warm:
            return self.config.lr * (self.step + 1) / n_warm
        done = (self.step - n_warm) / max(1, self.n_steps_in_all - n_warm)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * done))

    def advance(self) -> tuple[float, int]:
        """Do one update.

        Returns
        -------
        loss : float
            Mean negative log-likelihood in nats.
        n_tokens : int
            Tokens that it read.

        Raises
        ------
        Diverged
            If the loss or its gradient is not finite; parameters are as before.
        """
        position = self.step % len(self._streams)
        if position == 0:
            self._streams = self._streams_of(self.epoch)
            self.state = self.network.initial_state(self._streams.n_streams)
        chunk = self._streams.chunk(position)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.network.train()
        self.objective.train()
        # Each step's dropout is of its own seed, so that a resumed training needs no generator's state.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        outputs, self.state = self.network(self._vectors(chunk.inputs), self.state)
        losses = self._losses(outputs, chunk)
        # A small chunk may hold nothing but sentence boundaries, which are not scored.
        loss = self._update(losses.mean()) if len(losses) else 0.0
        self.step += 1
        return loss, int(chunk.inputs[0].size)

    def perplexity(self, text: Text) -> Perplexity:
        """Return the perplexity on a text of the same word types, states carried through it in its order.

        Products are float32, whatever the training multiplies in.
        """
        streams = Streams(text, n_streams=_HELD_OUT_STREAMS, n_steps=_HELD_OUT_STEPS, order_seed=None)
        state = self.network.initial_state(streams.n_streams)
        total, n = np.zeros(2), np.zeros(2)
        self.network.eval()
        self.objective.eval()
        with torch.no_grad(), self.network.computing_in(torch.float32):
            for chunk in streams.whole():
                outputs, state = self.network(self._vectors(chunk.inputs), state)
                losses = self._losses(outputs, chunk).double().cpu().numpy()
                n_forward = int(chunk.scored[0].sum())
                total += losses[:n_forward].sum(), losses[n_forward:].sum()
                n += n_forward, len(losses) - n_forward
        with np.errstate(over="ignore"):
            return Perplexity(*np.exp(total / n).tolist())

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return parameters, optimizer state and stream state by name: everything a resumption needs."""
        tensors: dict[str, Tensor] = {"state.hidden": self.state.hidden, "state.memory": self.state.memory}
        for name, parameter in self.parameters.items():
            tensors[name] = parameter
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, NDArray[Any]], step: int) -> None:
        """Continue from what :meth:`tensors` returned at a step.

        Raises
        ------
        KeyError, ValueError
            If they are not the tensors of such a training.
        """
        self.step = step
        if step % len(self._streams):
            self._streams = self._streams_of(self.epoch)
        found = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
        # Cloned, for memory as torch aligns it: the same products to the last bit as without a restart.
        self.state = StreamState(
            found["state.hidden"].clone().to(self.device), found["state.memory"].clone().to(self.device)
        )
        # A fused optimizer counts its steps on the device, others on the CPU.
        fused = self.config.optimizer == "adamw"
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if found[name].shape != parameter.shape:
                    raise ValueError(f"{name} has shape {tuple(found[name].shape)}")
                parameter.copy_(found[name])
                prefix = "optimizer."
                self.optimizer.state[parameter] = {
                    key[len(prefix) : -len(name) - 1]: value
                    if key.startswith("optimizer.step.") and not fused
                    else value.to(self.device)
                    for key, value in found.items()
                    if key.startswith(prefix) and key.endswith(f".{name}")
                }

    def _update(self, loss: Tensor) -> float:
        """Change the parameters against the gradient of a loss, and return the loss."""
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip).item()
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(
                f"the training diverged in step {self.step + 1:,}: loss {value:g}, norm of its gradient "
                f"{norm:g}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _streams_of(self, epoch: int) -> Streams:
        return Streams(
            self._text,
            n_streams=self.config.n_streams,
            n_steps=self.config.n_steps,
            order_seed=self.config.seed + 7919 * (epoch + 1),
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        parameters = list(self.parameters.values())
        if self.config.optimizer == "adagrad":
            return torch.optim.Adagrad(parameters, lr=self.config.lr, initial_accumulator_value=1.0)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups,
            lr=self.config.lr,
            betas=(0.9, 0.99),
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def _vectors(self, types: NDArray[np.int32]) -> Tensor:
        """Return the vectors of word types, each type computed once."""
        distinct, rows = np.unique(types, return_inverse=True)
        groups = self._groups(distinct)
        table = torch.cat(
            [
                self.network.token_vectors(self._character_ids[group, :width].long().to(self.device))
                for group, width in groups
            ]
        )
        place = np.empty(len(distinct), np.int64)
        place[np.concatenate([np.searchsorted(distinct, group) for group, _ in groups])] = np.arange(
            len(distinct)
        )
        return table[torch.from_numpy(place[rows.reshape(types.shape)]).to(self.device)]

    def _groups(self, distinct: NDArray[np.int32]) -> list[tuple[NDArray[np.int32], int]]:
        """Return the types in one or two groups with the positions to convolve each over."""
        most = self._character_ids.shape[1]
        needed = np.minimum(self._n_positions[distinct] + self._widest, most)
        short = needed <= _SHORT_POSITIONS
        groups = [(distinct[short], min(_SHORT_POSITIONS, most)), (distinct[~short], int(needed.max()))]
        return [(group, width) for group, width in groups if len(group)]

    def _losses(self, outputs: Tensor, chunk: Chunk) -> Tensor:
        """Return the losses of the scored positions, forward ones first."""
        scored = torch.from_numpy(chunk.scored)
        classes = self._classes[torch.from_numpy(chunk.targets)[scored].long()]
        losses: Tensor = self.objective(outputs[scored.to(self.device)], classes.to(self.device))
        return losses
