"""Light heads over stored vectors: two sentence classifiers and two taggers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from featurestore.errors import ModelError, UsageError
from featurestore.models.crf import LinearChainCRF
from featurestore.models.dropout import Dropout, LockedDropout
from featurestore.models.inputs.mix import ScalarMix, Standardize
from featurestore.models.inputs.stores import Features, StoreMix
from featurestore.models.recurrent.bilstm import BiLSTM
from featurestore.models.recurrent.compiled import Inputs
from featurestore.models.sizes import HeadConfig as HeadConfig
from featurestore.vectors import token_shape

IGNORED = -100
"""The label id that stands in padding."""


class Head(nn.Module):
    """What every head does: standardise, mix layers if there are several, score labels.

    Subclasses name themselves (``name``), say what they label (``label_kind``) and which dropout suits them
    (``usual_dropout``: more for those with more to overfit with), and compute
    ``_scores(vectors, lengths, mask)``. Only tokens under the mask ever reach a result: a sentence gets the
    same scores alone and in any padded batch, up to float32 rounding.

    Parameters
    ----------
    config : HeadConfig
        The sizes.

    Attributes
    ----------
    learning_dtype : torch.dtype
        Type of an LSTM's matrix products in training mode, float32 or bfloat16; everything else, and all of
        it in evaluation mode, is float32.
    class_weights : (n_labels,) float32 Tensor, optional
        What each label weighs in the loss; by default all the same. No part of the saved model.
    """

    name: ClassVar[str]
    label_kind: ClassVar[Literal["token", "sentence"]]
    usual_dropout: ClassVar[float]

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.learning_dtype = torch.float32
        self.class_weights: Tensor | None = None
        self.standardize: Standardize
        self.mix: ScalarMix | StoreMix | None
        if config.inputs:  # which are standardised each by itself, before they are one
            self.standardize, self.mix = nn.Identity(), StoreMix(config.inputs)  # type: ignore[assignment]
        else:
            self.standardize = Standardize(*token_shape(config.n_layers, config.dim))
            self.mix = ScalarMix(config.n_layers) if config.n_layers > 1 else None
        self.dropout: nn.Module = Dropout(config.dropout)

    @property
    def n_parameters(self) -> int:
        """How many values training learns."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def layer_weights(self) -> tuple[float, ...] | dict[str, tuple[float, ...]] | None:
        """The share of each layer in what the head reads, or None if there is one layer only.

        Of several stores, those of each that keeps layers apart, by name.
        """
        if isinstance(self.mix, StoreMix):
            return {name: mix.shares() for name, mix in self.mix.layers()} or None
        return None if self.mix is None else self.mix.shares()

    @property
    def store_weights(self) -> dict[str, float] | None:
        """The weight of each of several stores, of which the mean is 1; None if there is one."""
        if not isinstance(self.mix, StoreMix):
            return None
        names = (name for name, _, _ in self.config.inputs)
        return dict(zip(names, self.mix.shares().tolist(), strict=True))

    def inputs(self, features: Features) -> Iterator[tuple[Standardize, Tensor]]:
        """Yield the standardisation of each store, and the features that it is of.

        Raises
        ------
        ModelError
            If the features have another shape than the head was built for.
        """
        if isinstance(self.mix, StoreMix):
            yield from self.mix.parts(features)
        else:
            yield self.standardize, self._of_one_store(features)

    def _of_one_store(self, features: Features) -> Tensor:
        names, vectors = None, features
        if not isinstance(vectors, Tensor):
            names, vectors = list(vectors), next(iter(vectors.values()))
        expected = token_shape(self.config.n_layers, self.config.dim)
        several = names is not None and len(names) > 1
        if several or vectors.dim() != 2 + len(expected) or tuple(vectors.shape[2:]) != expected:
            found = f"those of {', '.join(names)}" if names and several else str(tuple(vectors.shape))
            sizes = ", ".join(map(str, expected))
            raise ModelError(
                f"{self.name} reads features of shape (batch, longest, {sizes}), found "
                f"{found}: give it the store it was trained on"
            )
        return vectors

    def forward(self, features: Features, lengths: Tensor, mask: Tensor) -> Tensor:
        """Score every label.

        Parameters
        ----------
        features : Tensor or dict of Tensor
            float32 (batch, longest, dim), or (batch, longest, n_layers, dim) if the head has layers. Of
            several stores, (batch, longest, dim) of all together or, by their names, of each.
        lengths : LongTensor
            (batch,), each at least 1.
        mask : BoolTensor
            (batch, longest), true at tokens.

        Returns
        -------
        Tensor
            float32 logits: (batch, longest, n_labels) for taggers, where padding holds anything;
            (batch, n_labels) for classifiers.

        Raises
        ------
        ModelError
            If the features have another shape than the head was built for.
        """
        if not isinstance(self.mix, StoreMix):
            features = self._of_one_store(features)
        # Features of several stores go through the mix before anything else looks at them.
        return self._scores(cast("Tensor", features), lengths, mask)

    def loss(self, features: Features, lengths: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar training loss: the mean over labels of minus their log-probability.

        ``labels`` is (batch, longest) for taggers, with -100 in padding and for tokens that do not count,
        (batch,) for classifiers; the other arguments are those of :meth:`forward`.
        """
        logits = self(features, lengths, mask).flatten(0, -2)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return nn.functional.cross_entropy(logits, labels.flatten(), weights, ignore_index=IGNORED)

    @torch.no_grad()
    def decode(self, features: Features, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return the best label ids: (batch, longest) with -100 in padding, or (batch,)."""
        best: Tensor = self(features, lengths, mask).argmax(dim=-1)
        return best.masked_fill(~mask, IGNORED) if self.label_kind == "token" else best

    def _vectors(self, features: Tensor) -> Tensor:
        """Return vectors as they are read: standardised, layers mixed, elements dropped while learning."""
        vectors = self.standardize(features)
        if self.mix is not None:
            vectors = self.mix(vectors)
        dropped: Tensor = self.dropout(vectors)
        return dropped

    def _scores(self, features: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError


class MeanPoolClassifier(Head):
    """The mean of a sentence's vectors, then a linear layer: fast, and hard to overfit."""

    name = "meanpool-classifier"
    label_kind = "sentence"
    usual_dropout = 0.3

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.output = nn.Linear(config.dim, config.n_labels)

    def _scores(self, features: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        total = self._vectors(features).masked_fill(~mask.unsqueeze(2), 0).sum(dim=1)
        logits: Tensor = self.output(total / lengths.unsqueeze(1))
        return logits


class _BiLSTMHead(Head):
    """What the heads with a BiLSTM do alike: drop, run it."""

    dropout: LockedDropout

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.dropout = LockedDropout(config.dropout)
        self.encoder = BiLSTM(config.dim, config.hidden)
        self.output = nn.Linear(2 * config.hidden, config.n_labels)

    def _read(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the BiLSTM's outputs (batch, longest, 2 * hidden) and final states (batch, 2 * hidden)."""
        if self.mix is None:
            vectors, mean, scale = features, self.standardize.mean, self.standardize.scale
        else:
            vectors, mean, scale = self.mix(self.standardize(features)), None, None
        # What is done to every vector before, the LSTM does with it: a vector that is written once less.
        factors = self.dropout.factors(vectors)
        outputs, states = self.encoder(
            Inputs(vectors, lengths, mean, scale, factors),
            self.learning_dtype if self.training else torch.float32,
        )
        return outputs, states


class BiLSTMClassifier(_BiLSTMHead):
    """A BiLSTM's states at each sentence's true ends, then a linear layer."""

    name = "bilstm-classifier"
    label_kind = "sentence"
    usual_dropout = 0.5

    def _scores(self, features: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        _, states = self._read(features, lengths)
        logits: Tensor = self.output(self.dropout(states))
        return logits


class LinearTagger(Head):
    """One linear layer per token: the probe that shows what the vectors themselves hold."""

    name = "linear-tagger"
    label_kind = "token"
    usual_dropout = 0.1

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.output = nn.Linear(config.dim, config.n_labels)

    def _scores(self, features: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.output(self._vectors(features))
        return logits


class BiLSTMTagger(_BiLSTMHead):
    """A BiLSTM over the sentence, then a linear layer per token."""

    name = "bilstm-tagger"
    label_kind = "token"
    usual_dropout = 0.4

    def _scores(self, features: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        outputs, _ = self._read(features, lengths)
        logits: Tensor = self.output(self.dropout(outputs))
        return logits


class BiLSTMCRFTagger(BiLSTMTagger):
    """A BiLSTM tagger whose labels are chosen together, by a CRF (Huang et al. 2015).

    Pays off where labels constrain each other, as in BIO spans; :meth:`forward` returns the emissions.
    """

    name = "bilstm-crf-tagger"

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.crf = LinearChainCRF(config.n_labels)

    def loss(self, features: Features, lengths: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Return minus the log-likelihood of the label sequences, per label.

        Where some tokens have no label, of all sequences that agree with the labels there are.
        """
        emissions = self(features, lengths, mask)
        losses = self.crf.negative_log_likelihood(emissions, labels, mask, ignored=IGNORED)
        return losses.sum() / (labels != IGNORED).sum()

    def decode(self, features: Features, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return the label ids of the best sequence, (batch, longest) with -100 in padding."""
        with torch.no_grad():
            return self.crf.viterbi(self(features, lengths, mask), mask)


HEADS: dict[str, type[Head]] = {
    head.name: head
    for head in (MeanPoolClassifier, BiLSTMClassifier, LinearTagger, BiLSTMTagger, BiLSTMCRFTagger)
}


def build_head(name: str, config: HeadConfig) -> Head:
    """Return a new head.

    Raises
    ------
    UsageError
        If there is no head of that name.
    """
    if name not in HEADS:
        raise UsageError(f"there is no head {name!r}: choose one of {', '.join(HEADS)}")
    return HEADS[name](config)
