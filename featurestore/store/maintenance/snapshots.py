"""All snapshots of a store as repair finds them: which are sound, and what is left of the last one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, cast

from featurestore.disk.filesystem import LOCAL
from featurestore.errors import DamagedStoreError
from featurestore.store.format.directory import MANIFESTS, list_numbers, manifest_path, read_without_lists
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import Manifest
from featurestore.store.listing.files import LISTS, Lists, Reference
from featurestore.store.listing.rows import entry_of
from featurestore.store.listing.shards import Part, Shards


class Damage(NamedTuple):
    """A damaged file.

    Attributes
    ----------
    name : str
        Path below the store.
    problem : str
    entry : None
    missing : bool
        Whether there is no such file.
    """

    name: str
    problem: str
    entry: None = None
    missing: bool = False


@dataclass
class Snapshots:
    """What :func:`read_snapshots` found.

    Attributes
    ----------
    path : Path
        The store.
    numbers : list of int
        Of all manifests, ascending.
    base : Manifest
        Of the highest number whose manifest is sound; of lists of it that are damaged, what is left.
    is_whole : bool
        Whether no list of ``base`` is damaged.
    sound : list of int
        Those whose lists are sound too.
    damaged : list of Damage
        Manifests, also those that name a damaged list.
    damaged_lists : list of Damage
    """

    path: Path
    numbers: list[int]
    base: Manifest
    is_whole: bool = True
    sound: list[int] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    damaged_lists: list[Damage] = field(default_factory=list)

    def left_out(self) -> set[str]:
        """Return the names of shards that were taken out of the store on purpose, as far as ``base`` says."""
        return {name for part in self.base.left_out.parts for name in part.file_names()}

    def entries(self, names: set[str]) -> dict[str, ShardEntry]:
        """Return the entries of shards of these names that some sound snapshot lists."""
        found: dict[str, ShardEntry] = {}
        seen: set[Reference | None] = set()
        for number in self.sound if names else ():
            try:
                shards = read_without_lists(self.path, number).shards
                for part in shards.parts:
                    if part.reference in seen:
                        continue
                    seen.add(part.reference)
                    for row, name in zip(part.rows, part.file_names(), strict=True):
                        if name in names:
                            found[name] = entry_of(row, part.kind.token_shape)
            except DamagedStoreError as error:
                if not error.is_gone:
                    raise
                continue
            found.update((entry.name, entry) for entry in shards.inline if entry.name in names)
        return found


def read_snapshots(path: Path) -> Snapshots:
    """Read all manifests of a store, and each of their lists once.

    Raises
    ------
    DamagedStoreError
        If no manifest is sound, so that nothing says what the vectors were made with.
    FormatVersionError
        If a newer featurestore wrote one.
    UnreadableStoreError
        If a file that may be sound cannot be opened.
    """
    while True:
        numbers = list_numbers(path)
        found = _read(path, numbers)
        if found is not None:
            return found


def _read(path: Path, numbers: list[int]) -> Snapshots | None:
    """Return the snapshots of these numbers; None if gc removed something that matters meanwhile."""
    base: Manifest | None = None
    known: Shards | None = None
    named: dict[int, list[Reference]] = {}
    lists: dict[Reference, Damage | None] = {}
    damaged: list[Damage] = []
    gone: set[int] = set()
    for number in reversed(numbers):
        name = str(manifest_path(path, number).relative_to(path))
        try:
            manifest = read_without_lists(path, number, LOCAL, known)
            for part in (*manifest.shards.parts, *manifest.left_out.parts):
                if part.reference is not None and part.reference not in lists:
                    lists[part.reference] = _damage_of(part)
            if base is None:
                base = _salvaged(path, manifest, lists)
                base.shards.require_distinct()
        except DamagedStoreError as error:
            if error.is_gone:
                gone.add(number)
            else:
                damaged.append(Damage(name, str(error)))
            continue
        except ValueError as error:
            base = None
            damaged.append(Damage(name, f"manifest {manifest_path(path, number)} is damaged: {error}"))
            continue
        known = manifest.shards
        named[number] = [*known.references, *manifest.left_out.references]
    if numbers[-1] in gone:
        return None  # gc removes the last one only when there is a later one
    if base is None:
        raise DamagedStoreError(
            f"no manifest of {path} is sound, so nothing says what its vectors were made with: restore "
            f"one in {path / MANIFESTS} from a copy, or extract into a new store. The last: "
            f"{damaged[0].problem}",
            path=path / damaged[0].name,
        )
    lost = {each: damage for each, damage in lists.items() if damage is not None}
    if any(damage.missing for damage in lost.values()) and list_numbers(path) != numbers:
        return None  # gc removed a snapshot, and a list with it
    found = Snapshots(path, [number for number in numbers if number not in gone], base, damaged=damaged)
    found.damaged_lists = list(lost.values())
    for number, references in named.items():
        first = next((lost[each] for each in references if each in lost), None)
        if first is None:
            found.sound.append(number)
        else:
            name = str(manifest_path(path, number).relative_to(path))
            found.damaged.append(Damage(name, f"it names {first.name}, which is damaged"))
    found.is_whole = base.number in found.sound
    return found


def _damage_of(part: Part) -> Damage | None:
    try:
        _ = part.rows
    except DamagedStoreError as error:
        name = f"{LISTS}/{part.reference.name}" if part.reference is not None else LISTS
        return Damage(name, str(error), missing=error.is_gone)
    return None


def _salvaged(path: Path, manifest: Manifest, lists: dict[Reference, Damage | None]) -> Manifest:
    """Return a manifest whose damaged lists have the rows that can be believed."""
    parts, is_whole = [], True
    for part in manifest.shards.parts:
        if part.reference is not None and lists[part.reference] is not None:
            part, is_whole = Part(part.kind, Lists(path, LOCAL).salvaged(part.reference)), False
        parts.append(part)
    left = [part for part in manifest.left_out.parts if lists.get(cast(Reference, part.reference)) is None]
    if is_whole and len(left) == len(manifest.left_out.parts):
        return manifest
    return replace(
        manifest,
        shards=Shards(manifest.shards.inline, [part for part in parts if len(part)]),
        left_out=Shards((), left),
    )
