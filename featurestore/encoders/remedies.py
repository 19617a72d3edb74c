"""What to do where an encoder gives other vectors than those that are asked for or stored."""

from __future__ import annotations

from featurestore.recipe import Recipe


def remedy_for(found: Recipe, wanted: Recipe, remedy: str) -> str:
    """Return what to do about two recipes that differ: as given, if it is not only separators that differ."""
    if not all(difference.field.endswith(".separator_sha256") for difference in found.diff(wanted)):
        return remedy
    return (
        "Only the separator between a sentence and its context differs, which Flair draws at random whenever "
        "it makes the embedding. Make it the same every time: fix_separator(embedding), of "
        "featurestore.encoders.flair, before extraction and training. For a model that is trained already, "
        "fill a store with the embedding that it has: FlairEncoder(embedding)."
    )
