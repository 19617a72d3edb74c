"""Messages for missing sentences: the command that adds them, and what else decides their vectors."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from featurestore.families import family_of_recipe, is_imported
from featurestore.recipe import Recipe
from featurestore.store.format.directory import list_numbers
from featurestore.store.snapshot import Snapshot

DEPENDS_ON = "depends_on"
"""Field of a recipe: an object. The names of entries that are neither false nor 0 say what else decides."""

ADD_THEM = "Add them: featurestore extract"
"""Beginning of the line that :func:`how_to_add` returns; options may follow."""


def depends_on(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of what decides a vector beside the tokens, sorted; empty if the tokens alone do."""
    stated = recipe.get(DEPENDS_ON)
    if not isinstance(stated, Mapping):
        return ()
    return tuple(sorted(name for name, value in stated.items() if value))


def missing_note(store: Snapshot) -> str:
    """Return lines to add to a message about missing sentences, or an empty string."""
    note, newest = "", list_numbers(store.location, store.filesystem)[-1]
    if newest > store.snapshot:
        note = (
            f"\nThe store was opened at snapshot {store.snapshot} and has snapshot {newest} now: open it "
            "again, or take store.refreshed(), to see what was added since"
        )
    names = depends_on(store.recipe)
    if not names:
        return note
    return (
        f"{note}\nThe vectors of this store depend on more than the tokens ({', '.join(names)}): a sentence "
        "extracted with its context is found only by asking with the same context (CachedEmbeddings, or "
        "examples read from the same Flair corpus)"
    )


def how_to_add(recipe: Recipe, store: Path, corpora: str = "CORPUS") -> str:
    """Return the command that adds sentences to a store: one line, or two if the user must name the encoder.

    Parameters
    ----------
    recipe : Recipe
        Of the store.
    store : Path
    corpora : str
        Paths, quoted for a shell.
    """
    if is_imported(recipe):
        return (
            f"The vectors of {store} were imported, and no encoder here adds to them: import the others of "
            "the same tool into a store of their own, or extract all with one encoder (featurestore "
            "extract --store NEW)"
        )
    command = f"{ADD_THEM} {corpora} --store {shlex.quote(str(store))}"
    family = family_of_recipe(recipe)
    if not family.runs_code:
        return command
    # Not the specification that the store states: a stranger may have written it for people to paste.
    return (
        f"{command} --encoder {family.placeholder}\n"
        "(name the encoder that filled it yourself: loading it can run code that comes with it)"
    )
