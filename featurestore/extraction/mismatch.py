"""An encoder and a store that exists: both must have the same recipe."""

from __future__ import annotations

from pathlib import Path

from featurestore.families import family_of_recipe, remedy_for
from featurestore.recipe import Recipe


def require_recipe(stored: Recipe, wanted: Recipe, store: Path) -> None:
    """Raise unless an encoder has the recipe of a store.

    Parameters
    ----------
    stored, wanted : Recipe
        The store's and the encoder's.
    store : Path

    Raises
    ------
    RecipeMismatchError
        Naming every field that differs, and what to do.
    """
    if family_of_recipe(stored).runs_code:  # so it is not loaded because a store names it
        remedy = "Name the encoder that filled the store, or another --store."
    else:
        remedy = (
            "Use the store's own recipe (leave --encoder, --layers, --precision and --initial-state out), or "
            "another --store."
        )
    stored.require_equal(wanted, where=f"store {store}", remedy=remedy_for(stored, wanted, remedy))
