"""The recipes of the stores that a model reads: as one, apart again, matched with those that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from featurestore.errors import RecipeMismatchError, UsageError
from featurestore.recipe import Recipe

_KIND = "several stores"
_REMEDY = (
    "Use the store the model was trained on, extract the corpus with that encoder, or train a new model."
)


def joined(recipes: Mapping[str, Recipe]) -> Recipe:
    """Return the recipe of what is read from stores: of one, its own; of several, one that lists theirs.

    Parameters
    ----------
    recipes : mapping of str to Recipe
        By the names of the stores, in their order.
    """
    if len(recipes) == 1:
        return next(iter(recipes.values()))
    stores = [
        {"name": name, "fingerprint": recipe.fingerprint, "recipe": recipe.to_dict()}
        for name, recipe in recipes.items()
    ]
    return Recipe({"kind": _KIND, "version": 1, "stores": stores})


def parted(recipe: Recipe, names: list[str]) -> dict[str, Recipe]:
    """Return the recipes by the names of several stores, as :func:`joined` put them together.

    Raises
    ------
    UsageError
        If it did not.
    """
    stores: Any = recipe.get("stores")
    try:
        found = {store["name"]: Recipe(store["recipe"]) for store in stores}
        stated = [store["fingerprint"] for store in stores]
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"the recipe of several stores lists none: {error!r}") from error
    if list(found) != names or recipe.get("kind") != _KIND:
        raise UsageError(f"the recipe lists the stores {list(found)}, expected {names}")
    if stated != [one.fingerprint for one in found.values()]:
        raise UsageError("the recipe states fingerprints that are not those of the recipes it lists")
    return found


def matched(
    expected: Mapping[str, Recipe], given: Mapping[str, Recipe], *, where: Mapping[str, str]
) -> dict[str, str]:
    """Return by the name of each expected store the name of the given one of its recipe.

    Parameters
    ----------
    expected, given : mapping of str to Recipe
        By the names of the stores.
    where : mapping of str to str
        What messages call each of the given stores.

    Raises
    ------
    RecipeMismatchError
        Naming the store that is missing, or which other one was given and every field that differs.
    """
    by_fingerprint = {recipe.fingerprint: name for name, recipe in given.items()}
    found = {
        name: by_fingerprint[recipe.fingerprint]
        for name, recipe in expected.items()
        if recipe.fingerprint in by_fingerprint
    }
    missing = [name for name in expected if name not in found]
    spare = [name for name in given if name not in found.values()]
    if missing and spare:
        # Most likely the one of the same name was meant.
        name = next((one for one in missing if one in spare), missing[0])
        other = name if name in spare else spare[0]
        wanted = where[other] if len(expected) == 1 else f"{where[other]} in the place of {name!r}"
        given[other].require_equal(expected[name], where=wanted, remedy=_REMEDY)
    if missing or spare:
        wrong = f"{', '.join(missing)} not given" if missing else f"{', '.join(spare)} not among them"
        raise RecipeMismatchError(
            f"the model reads {_listed(expected)}, found {_listed(given)}: {wrong}. Give each of its stores "
            "once (--store), in any order"
        )
    return found


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return "one store" if len(listed) == 1 else f"the stores {', '.join(listed)}"
