"""The parts of an embedding, and running them: as they are, without gradients, on one device."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import flair
import torch
from flair.embeddings import StackedEmbeddings
from flair.embeddings.base import TokenEmbeddings

from featurestore.encoders.elmo.model.numerics import full_float32_products
from featurestore.errors import UsageError


def members_of(embedding: TokenEmbeddings) -> list[TokenEmbeddings]:
    """Return the embeddings of which a token's vector is concatenated, in that order.

    A stack's are sorted by name, as Flair does it, stacks within it taken apart; any other embedding is its
    own only member.

    Raises
    ------
    UsageError
        If two have one name, under which a token keeps only one vector.
    """
    members = sorted(_unstacked(embedding), key=lambda member: str(getattr(member, "name", "")))
    names = [getattr(member, "name", "") for member in members]
    for before, after in itertools.pairwise(names):
        if before == after:
            raise UsageError(
                f"two embeddings of a stack have the name {before!r}, so that Flair drops the vectors of "
                "one: give them different names, or stack them with overwrite_names=True"
            )
    return members


def _unstacked(embedding: TokenEmbeddings) -> Iterator[TokenEmbeddings]:
    if isinstance(embedding, StackedEmbeddings):
        for member in embedding.embeddings:
            yield from _unstacked(member)
    else:
        yield embedding


@contextlib.contextmanager
def flair_device(device: torch.device) -> Iterator[None]:
    """Set Flair's device inside: it has one for everything, in a module variable.

    Another thread that uses Flair at the same time sees it too.
    """
    before = flair.device
    flair.device = device
    try:
        yield
    finally:
        flair.device = before


@contextlib.contextmanager
def frozen(members: Sequence[TokenEmbeddings], device: torch.device) -> Iterator[None]:
    """Run embeddings inside as an encoder: evaluation mode, float32, no gradients, whatever is around it.

    Modes are set on each module and set back, past ``train()``, which in some classes does more than that.
    """
    modules = [module for member in members for module in member.modules()]
    training = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        with (
            flair_device(device),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            full_float32_products(),
        ):
            yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
