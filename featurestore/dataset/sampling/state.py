"""The state of a sampler as plain values: what a checkpoint keeps, and the refusal of another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import xxhash
from numpy.typing import NDArray

from featurestore.dataset.sampling.passes import Position, Stepped
from featurestore.errors import StateError

FORMAT = 2

_CHUNK = 1 << 22

_COUNTS = ("epoch", "pool", "before", "quanta", "taken", "flight", "shift")
_OTHERS = ("ends", "stepped", "batches", "of")
_MEANING = {
    "n_sentences": "another dataset: it has {found} sentences, this one {expected}",
    "lengths": "another dataset: its sentences have other lengths",
    "places": "another dataset: its sentences lie elsewhere in the store",
    "snapshot": "another snapshot of the store: {found}, this one is {expected}",
    "store": "another store, or of one that was changed since",
}
_REMEDY = {
    "snapshot": "open the one it is of: Store.open(path, snapshot=...)",
    "window": "give window= the number it was saved with, None for no windows",
}
_DATASET = "open the store and the corpus it is of"


def digest_of(numbers: NDArray[Any], dtype: str = "<u4") -> str:
    """Return a hash of numbers, whatever type they are kept in."""
    hashed = xxhash.xxh3_64()
    for start in range(0, len(numbers), _CHUNK):
        hashed.update(numbers[start : start + _CHUNK].astype(dtype).tobytes())
    return hashed.hexdigest()


def as_state(position: Position, identity: Mapping[str, Any], digest: str | None) -> dict[str, Any]:
    """Return a position as plain values: integers, strings, lists.

    Parameters
    ----------
    position : Position
    identity : mapping
        What decides the batches: settings, and what tells the dataset from others.
    digest : str or None
        Of the pool the position is in; None at the start of an epoch.
    """
    counts = {name: getattr(position, name) for name in _COUNTS}
    return {
        "format": FORMAT,
        **counts,
        "ends": [list(pair) for pair in position.ends],
        "stepped": None if position.stepped is None else list(position.stepped),
        "batches": digest,
        "of": dict(identity),
    }


def read_state(state: object, identity: Mapping[str, Any]) -> tuple[Position, str | None]:
    """Return the position of a state, and the digest of its pool.

    Raises
    ------
    StateError
        If it is not a state, is of another version, or of a sampler with another identity.
    """
    if not isinstance(state, Mapping) or "format" not in state:
        found = sorted(map(str, state))[:8] if isinstance(state, Mapping) else type(state).__name__
        raise StateError(
            f"load_state_dict takes what state_dict() returned, found {found}", field="format", found=found
        )
    if state["format"] != FORMAT:
        raise StateError(
            f"the state has format {state['format']!r}, this featurestore reads {FORMAT}: go on with the "
            "version that saved it, or begin at the next epoch with set_epoch()",
            field="format",
            expected=FORMAT,
            found=state["format"],
        )
    if set(state) != {"format", *_COUNTS, *_OTHERS} or not isinstance(state["of"], Mapping):
        _refuse_contents(sorted(map(str, state)))
    saved = state["of"]
    for name in [*identity, *saved]:
        if name == "snapshot" and (
            identity.get("store") == saved.get("store")  # a later commit of the same shards
            or not _of_as_many_stores(identity.get(name), saved.get(name))
        ):
            continue
        if name not in identity or name not in saved or identity[name] != saved[name]:
            _refuse(name, identity.get(name), saved.get(name))
    counts = [state[name] for name in _COUNTS]
    ends = state["ends"]
    if not all(type(count) is int and count >= 0 for count in counts):
        _refuse_contents(dict(zip(_COUNTS, counts, strict=True)))
    if not isinstance(ends, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
        and pair[0] > 0 for pair in ends
    ):  # fmt: skip
        _refuse_contents(ends)
    if not isinstance(state["batches"], (str, type(None))):
        _refuse_contents(state["batches"])
    stepped = state["stepped"]
    if (stepped is None) != (identity.get("steps_per_epoch") is None):
        _refuse_contents(stepped)
    if stepped is not None and not (
        isinstance(stepped, (list, tuple)) and len(stepped) == len(Stepped._fields)
        and all(type(n) is int and n >= 0 for n in stepped) and not ends
    ):  # fmt: skip
        _refuse_contents(stepped)
    position = Position(
        **dict(zip(_COUNTS, counts, strict=True)),
        ends=tuple((n, k) for n, k in ends),
        stepped=None if stepped is None else Stepped(*stepped),
    )
    return position, state["batches"]


def refuse_batches(expected: str | None, found: str | None) -> NoReturn:
    """Raise the error for a state whose pool has other batches here."""
    raise StateError(
        "the state is of other batches than this loader makes of the same settings: another version of "
        "featurestore saved it, or it was changed. Begin at the next epoch with set_epoch()",
        field="batches",
        expected=expected,
        found=found,
    )


def _of_as_many_stores(one: object, other: object) -> bool:
    """Return whether snapshots are of as many stores, and not the same in another order."""
    if isinstance(one, list) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and sorted(map(str, one)) != sorted(map(str, other))
    return type(one) is type(other)


def _refuse(name: str, expected: Any, found: Any) -> NoReturn:
    if name in _MEANING:
        what = f"the state is of {_MEANING[name].format(expected=expected, found=found)}"
        remedy = _REMEDY.get(name, _DATASET)
    else:
        what = f"the state was saved with {name}={found!r}, this loader has {name}={expected!r}"
        remedy = _REMEDY.get(name, f"give it {name}={found!r}")
    raise StateError(
        f"{what}: {remedy}; or begin at an epoch of your choice with set_epoch()",
        field=name,
        expected=expected,
        found=found,
    )


def _refuse_contents(found: object) -> NoReturn:
    raise StateError(f"the state is not one that state_dict() returned: {found!r:.200}", field="contents")
