"""The stores that a dataset is made of: one or several, by name, and which do not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from featurestore.errors import UsageError
from featurestore.store.store import Store

StoreLike = Store | str | Path
StoresLike = StoreLike | Sequence[StoreLike] | Mapping[str, StoreLike]


def opened(given: StoresLike) -> dict[str, Store]:
    """Return stores by name, in the order given, opened where paths were given.

    A store is called as its folder; where several folders are called alike, as many folders above are named
    as it takes to tell them apart.

    Raises
    ------
    UsageError
        If there is none, one is given twice or is none, or a name is no text.
    NotAStoreError
        If there is no store at a path.
    """
    if isinstance(given, (Store, str, Path)):
        given = [given]
    elif isinstance(given, Mapping):
        unnamed = [name for name in given if not isinstance(name, str) or not name]
        if unnamed:
            raise UsageError(f"stores are named by text, found {unnamed[0]!r}")
    elif not isinstance(given, Sequence):
        raise UsageError(
            f"found a {type(given).__name__}, expected a store: a Store or the path of one; several as a "
            'list, or by name: {"elmo": store, "glove": other}'
        )
    stores = [_opened(one) for one in (given.values() if isinstance(given, Mapping) else given)]
    if not stores:
        raise UsageError("there are no stores, expected one or several: Store.open(path), or paths")
    _require_different(stores)
    names = list(given) if isinstance(given, Mapping) else _names([store.location for store in stores])
    return dict(zip(names, stores, strict=True))


def needs_dict(stores: Mapping[str, Store]) -> bool:
    """Return whether there are several stores, and one keeps layers apart: as one tensor they cannot be."""
    return len(stores) > 1 and any(store.n_layers > 1 for store in stores.values())


def require_one_layer(stores: Mapping[str, Store]) -> None:
    """Refuse several stores whose vectors cannot stand one after the other.

    Raises
    ------
    UsageError
        If one of several stores keeps layers apart.
    """
    if needs_dict(stores):
        apart = {name: store.n_layers for name, store in stores.items() if store.n_layers > 1}
        listed = ", ".join(f"{name} {n_layers}" for name, n_layers in apart.items())
        raise UsageError(
            f"stores that keep layers apart ({listed}) cannot be put one after the other: ask for a dict by "
            "name, as_dict=True (the light models mix the layers of each), or extract with --layers average"
        )


def _opened(given: object) -> Store:
    if isinstance(given, Store):
        return given
    if isinstance(given, (str, Path)):
        return Store.open(given)
    raise UsageError(f"found a {type(given).__name__} among the stores, expected a Store or the path of one")


def _require_different(stores: Sequence[Store]) -> None:
    """Refuse stores of one recipe: the same vectors twice, or halves of what should be one store."""
    seen: dict[str, Store] = {}
    for store in stores:
        other = seen.get(store.recipe.fingerprint)
        if other is None:
            seen[store.recipe.fingerprint] = store
            continue
        if other.location.resolve() == store.location.resolve():
            raise UsageError(f"the store {store.path} is given twice: its vectors would be in a batch twice")
        raise UsageError(
            f"the stores {other.path} and {store.path} are of one recipe, so a token has the same vector in "
            "both: give one of them. If each holds some of the sentences, featurestore merge makes one store "
            "of them"
        )


def _names(locations: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart."""
    for n_parts in range(1, max(len(path.parts) for path in locations) + 1):
        names = ["/".join(path.parts[-n_parts:]) for path in locations]
        if len(set(names)) == len(names):
            break
    return names
