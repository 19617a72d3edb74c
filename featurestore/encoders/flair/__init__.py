"""Any Flair token embedding as an encoder; everything here needs Flair, which is optional."""

from __future__ import annotations

try:
    import flair  # noqa: F401 - to say what is missing before anything else does
except ModuleNotFoundError as error:
    if error.name != "flair":
        raise
    raise ModuleNotFoundError(
        "featurestore.encoders.flair needs Flair: pip install 'featurestore[flair]'", name="flair"
    ) from error

from featurestore.encoders.flair.conditions import Dependence, condition_bytes, conditioned, flair_sentence
from featurestore.encoders.flair.encoder import FlairEncoder
from featurestore.encoders.flair.vocabulary import fix_separator

__all__ = [
    "Dependence",
    "FlairEncoder",
    "condition_bytes",
    "conditioned",
    "fix_separator",
    "flair_sentence",
]
