"""What an exported file says of where its vectors come from: one JSON object, in every format."""

from __future__ import annotations

import json
from typing import Any

from featurestore._version import __version__
from featurestore.exchange.sentences import Exported


def origin(exported: Exported) -> dict[str, Any]:
    """Return the recipe, fingerprint, encoder and shape of the vectors, as plain JSON values."""
    store = exported.store
    return {
        "software": f"featurestore {__version__}",
        "encoder": store.encoder,
        "fingerprint": store.fingerprint,
        "recipe": store.recipe.to_dict(),
        "codec": store.manifest.codec,
        "relative_l2": store.codec_error.relative_l2,
        "snapshot": store.snapshot,
        "dtype": exported.value_type.name,
        "dim": store.dim,
        "n_layers": store.n_layers,
        "n_sentences": exported.n_sentences,
        "n_tokens": exported.n_tokens,
        "labels": exported.label_kind,
    }


def origin_text(exported: Exported) -> str:
    """Return :func:`origin` as JSON."""
    return json.dumps(origin(exported), sort_keys=True)
