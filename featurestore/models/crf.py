"""A linear-chain conditional random field: the score of whole label sequences (Lafferty et al. 2001)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featurestore.errors import ModelError


class LinearChainCRF(nn.Module):
    """Label-to-label transitions over per-token scores, trained by likelihood, read by Viterbi.

    The score of labels ``y`` is ``start[y_0] + sum_t emission[t, y_t] + sum_t transition[y_t-1, y_t] +
    end[y_last]``; all sums over sequences stay in log space, so float32 neither overflows nor vanishes.

    Parameters
    ----------
    n_labels : int
        Number of labels.
    """

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(n_labels))
        self.end = nn.Parameter(torch.zeros(n_labels))
        self.transitions = nn.Parameter(torch.zeros(n_labels, n_labels))

    def negative_log_likelihood(
        self, emissions: Tensor, labels: Tensor, mask: Tensor, *, ignored: int | None = None
    ) -> Tensor:
        """Return ``-log p(labels | emissions)`` of each sentence.

        Parameters
        ----------
        emissions : Tensor
            float (batch, longest, n_labels).
        labels : LongTensor
            (batch, longest); anything in padding.
        mask : BoolTensor
            (batch, longest), true for the first tokens of each sentence, at least one.
        ignored : int, optional
            The label of tokens that have none: then the probability is that of all label sequences that
            agree with the rest (Tsuboi et al. 2008).

        Returns
        -------
        Tensor
            float (batch,).

        Raises
        ------
        ModelError
            If a label under the mask is not in ``0 .. n_labels - 1``, or a mask has holes or no token.
        """
        n_labels = len(self.start)
        _check_mask(mask)
        labels = labels.masked_fill(~mask, 0)
        unlabelled = labels == ignored if ignored is not None else torch.zeros_like(mask)
        labels = labels.masked_fill(unlabelled, 0)
        if labels.min() < 0 or labels.max() >= n_labels:
            raise ModelError(
                f"a CRF needs a label in 0..{n_labels - 1} for every token, found "
                f"{int(labels.min())}..{int(labels.max())}: leave out the sentences that are partly labelled"
            )
        if bool(unlabelled.any()):
            allowed = torch.nn.functional.one_hot(labels, n_labels).bool() | (unlabelled | ~mask).unsqueeze(2)
            agreeing = self._log_partition(emissions.masked_fill(~allowed, -torch.inf), mask)
            return self._log_partition(emissions, mask) - agreeing
        return self._log_partition(emissions, mask) - self._score(emissions, labels, mask)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best label sequence of each sentence.

        Parameters
        ----------
        emissions, mask : Tensor
            As in :meth:`negative_log_likelihood`.

        Returns
        -------
        LongTensor
            (batch, longest), -100 in padding. Of sequences with equal scores, one is returned.

        Raises
        ------
        ModelError
            If a mask has holes or no token.
        """
        _check_mask(mask)
        n_labels = len(self.start)
        best = self.start + emissions[:, 0]
        stay = torch.arange(n_labels, device=emissions.device).expand_as(best)
        came_from = []
        for t in range(1, emissions.shape[1]):
            score, previous = (best.unsqueeze(2) + self.transitions).max(dim=1)
            inside = mask[:, t, None]
            # In padding the path stands still, so that following it back needs no lengths.
            best = torch.where(inside, score + emissions[:, t], best)
            came_from.append(torch.where(inside, previous, stay))
        label = (best + self.end).argmax(dim=1, keepdim=True)
        path = [label]
        for previous in reversed(came_from):
            label = previous.gather(1, label)
            path.append(label)
        return torch.cat(path[::-1], dim=1).masked_fill(~mask, -100)

    def _score(self, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        emitted = emissions.gather(2, labels.unsqueeze(2)).squeeze(2)
        moved = self.transitions[labels[:, :-1], labels[:, 1:]]
        last = labels.gather(1, mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        # masked_fill rather than a product with the mask: 0 times an infinite padding value would be NaN.
        within = emitted.masked_fill(~mask, 0).sum(dim=1) + moved.masked_fill(~mask[:, 1:], 0).sum(dim=1)
        return within + self.start[labels[:, 0]] + self.end[last]

    def _log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        alpha = self.start + emissions[:, 0]
        for t in range(1, emissions.shape[1]):
            step = torch.logsumexp(alpha.unsqueeze(2) + self.transitions, dim=1) + emissions[:, t]
            alpha = torch.where(mask[:, t, None], step, alpha)
        return torch.logsumexp(alpha + self.end, dim=1)


def _check_mask(mask: Tensor) -> None:
    if not bool(mask[:, 0].all()) or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ModelError(
            "a CRF reads sentences padded at their end: each mask must be true for the first tokens, at "
            "least one, and for no others"
        )
