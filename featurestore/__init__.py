"""featurestore: contextual embeddings computed once, stored in sharded HDF5, streamed into PyTorch.

Importing this package loads neither torch nor flair; each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featurestore._version import __version__ as __version__

if TYPE_CHECKING:
    from featurestore.corpora.contract.example import Example
    from featurestore.corpora.corpus import Corpus, open_corpus
    from featurestore.dataset.batch import FeatureBatch, collate
    from featurestore.dataset.features import FeatureDataset
    from featurestore.dataset.labels import LabelSet
    from featurestore.dataset.loader import feature_loader
    from featurestore.dataset.prefetch import DevicePrefetcher
    from featurestore.dataset.sampling.sampler import BucketBatchSampler
    from featurestore.encoders.base import Encoder
    from featurestore.encoders.loading import load_encoder
    from featurestore.errors import FeaturestoreError
    from featurestore.extraction.api import extract
    from featurestore.extraction.cluster.engine import Ray
    from featurestore.keys import sentence_key
    from featurestore.recipe import Recipe
    from featurestore.store.store import Store

_HOMES = {
    "BucketBatchSampler": "featurestore.dataset.sampling.sampler",
    "Corpus": "featurestore.corpora.corpus",
    "DevicePrefetcher": "featurestore.dataset.prefetch",
    "Encoder": "featurestore.encoders.base",
    "Example": "featurestore.corpora.contract.example",
    "FeatureBatch": "featurestore.dataset.batch",
    "FeatureDataset": "featurestore.dataset.features",
    "FeaturestoreError": "featurestore.errors",
    "LabelSet": "featurestore.dataset.labels",
    "Ray": "featurestore.extraction.cluster.engine",
    "Recipe": "featurestore.recipe",
    "Store": "featurestore.store.store",
    "collate": "featurestore.dataset.batch",
    "extract": "featurestore.extraction.api",
    "feature_loader": "featurestore.dataset.loader",
    "load_encoder": "featurestore.encoders.loading",
    "open_corpus": "featurestore.corpora.corpus",
    "sentence_key": "featurestore.keys",
}

__all__ = [
    "BucketBatchSampler",
    "Corpus",
    "DevicePrefetcher",
    "Encoder",
    "Example",
    "FeatureBatch",
    "FeatureDataset",
    "FeaturestoreError",
    "LabelSet",
    "Ray",
    "Recipe",
    "Store",
    "collate",
    "extract",
    "feature_loader",
    "load_encoder",
    "open_corpus",
    "sentence_key",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featurestore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
