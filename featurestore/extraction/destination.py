"""Where vectors go: an open store, or the place where one will be made; found out once for a whole run."""

from __future__ import annotations

from pathlib import Path

from featurestore.families import family_of_recipe, is_imported, remedy_for
from featurestore.recipe import Recipe
from featurestore.store.format.manifest import Manifest
from featurestore.store.preconditions import require_addable, require_creatable, require_shards
from featurestore.store.store import Store


class Destination:
    """A store to extract into, which may have to be made.

    The store is kept open, so that gc leaves its shards alone while corpora are read.

    Parameters
    ----------
    path : Path
        As given, for messages.
    store : Store or None
        None where there is none yet.
    """

    def __init__(self, path: Path, store: Store | None) -> None:
        self.path, self.store = path, store

    @classmethod
    def of(cls, given: str | Path | Store | Destination) -> Destination:
        """Return the destination that a path or a store means; a store at the snapshot it has open.

        Raises
        ------
        UsageError
            If the path is a URL.
        DamagedStoreError, FormatVersionError, UnreadableStoreError
            If a store lies there that cannot be opened.
        """
        if isinstance(given, Destination):
            return given
        if isinstance(given, Store):
            return cls(given.path, given)
        store = Store.open(given) if Store.exists(given) else None
        return cls(Path(given), store)

    @property
    def location(self) -> Path:
        """Where it lies, wherever the working directory is."""
        return self.path.absolute() if self.store is None else self.store.location

    @property
    def manifest(self) -> Manifest | None:
        """Of the store, None where there is none yet."""
        return None if self.store is None else self.store.manifest

    def latest(self) -> Destination:
        """Return the destination as it is now: another process may have made the store, or added to it."""
        if self.store is None:
            return Destination.of(self.path)
        return Destination(self.path, self.store.refreshed())

    def require_usable(self) -> None:
        """Raise unless a store can be made here, or all shards of the one that is here are in their place.

        Raises
        ------
        UsageError, UnreadableStoreError
            If something else lies here.
        DamagedStoreError
            If a shard is missing or of another size.
        """
        if self.store is None:
            require_creatable(self.path)
        else:
            require_shards(self.store.location, self.store.manifest)

    def require_addable(self) -> None:
        """Raise unless permissions allow making the store, or adding to it.

        Raises
        ------
        StoreWriteError
        """
        require_addable(self.path if self.store is None else self.store.location)

    def require_recipe(self, wanted: Recipe, stored: Recipe | None = None) -> None:
        """Raise unless an encoder has the recipe of the store, if there is one.

        Parameters
        ----------
        wanted : Recipe
            The encoder's.
        stored : Recipe, optional
            What to compare it with; by default the whole recipe of the store.

        Raises
        ------
        RecipeMismatchError
            Naming every field that differs, and what to do.
        """
        if self.store is None:
            return
        recipe = self.store.recipe if stored is None else stored
        if is_imported(recipe):
            remedy = "Its vectors were imported, and no encoder adds to them: extract into another --store."
        elif family_of_recipe(recipe).runs_code:  # so it is not loaded because a store names it
            remedy = "Name the encoder that filled the store, or another --store."
        else:
            remedy = (
                "Use the store's own recipe (leave --encoder, --layers, --precision and --initial-state "
                "out), or another --store."
            )
        recipe.require_equal(wanted, where=f"store {self.path}", remedy=remedy_for(recipe, wanted, remedy))
