"""A batch as a mapping of its tensors, which is what training frameworks take apart, move and make anew."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import Any

from torch import Tensor

from featurestore.notebook.facts import facts_table

_KEYS = ("lengths", "features", "mask", "labels", "indices")
"""Frameworks take the size of the first value for the batch's: of packed features that is the number of
tokens."""


class MappingOfTensors(MutableMapping[str, Any]):
    """The attributes of a batch by name; labels that are None are no key.

    ``len`` is the number of sentences, not of keys.
    """

    lengths: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.lengths)

    def _repr_html_(self) -> str:
        rows = [(name, _described(value)) for name, value in self.items()]
        return facts_table(f"Batch of {len(self):,} sentences, {int(self.lengths.sum()):,} tokens", rows)

    def __iter__(self) -> Iterator[str]:
        return (key for key in _KEYS if getattr(self, key) is not None)

    def __getitem__(self, key: str) -> Any:
        value = getattr(self, key) if key in _KEYS else None
        if value is None:
            raise KeyError(f"{key}: this batch has {', '.join(self)}")
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in _KEYS:
            raise KeyError(f"{key}: a batch has {', '.join(_KEYS)}; for more, make a dict of it: dict(batch)")
        setattr(self, key, value)

    def __delitem__(self, key: str) -> None:
        if key != "labels":
            raise KeyError(f"{key}: only labels can be taken out of a batch; from dict(batch) anything can")
        self.labels = None

    # Those of MutableMapping would be as long as the mapping itself.
    def keys(self) -> KeysView[str]:
        """Return the names of what the batch has."""
        return dict.fromkeys(self).keys()

    def values(self) -> ValuesView[Any]:
        """Return what the batch has."""
        return {key: getattr(self, key) for key in self}.values()

    def items(self) -> ItemsView[str, Any]:
        """Return what the batch has, by name."""
        return {key: getattr(self, key) for key in self}.items()


def _described(value: Any) -> str:
    """Return the shape, type and place of a tensor, of a packed sequence's data, or of each of a dict."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_described(one)}" for name, one in value.items())
    tensor = getattr(value, "data", value) if not isinstance(value, Tensor) else value
    packed = "packed, " if tensor is not value else ""
    shape = "jagged" if tensor.is_nested else " x ".join(map(str, tensor.shape))
    return f"{packed}{shape} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def changed(features: Any, change: Callable[[Any], Any]) -> Any:
    """Return features changed; of a dict of them by name, each."""
    if isinstance(features, dict):
        return {name: change(one) for name, one in features.items()}
    return change(features)


def one_of(features: Any) -> Any:
    """Return features; of a dict of them by name, the first: all have the same form."""
    return next(iter(features.values())) if isinstance(features, dict) else features
