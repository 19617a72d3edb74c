"""Flair and featurestore: stored vectors and ELMo as Flair embeddings, models trained on them, corpora."""

from __future__ import annotations

try:
    import flair  # noqa: F401 - to say what is missing before anything else does
except ModuleNotFoundError as error:
    if error.name != "flair":
        raise
    raise ModuleNotFoundError(
        "featurestore.integrations.flair needs Flair: pip install 'featurestore[flair]'", name="flair"
    ) from error

from featurestore.integrations.flair_context import set_context
from featurestore.integrations.flair_corpora import from_flair
from featurestore.integrations.flair_embeddings import (
    CachedEmbeddings,
    ElmoEmbeddings,
    LiveEmbeddings,
    VectorEmbeddings,
)
from featurestore.integrations.flair_models import bind, load, to_cached, to_live

__all__ = [
    "CachedEmbeddings",
    "ElmoEmbeddings",
    "LiveEmbeddings",
    "VectorEmbeddings",
    "bind",
    "from_flair",
    "load",
    "set_context",
    "to_cached",
    "to_live",
]
