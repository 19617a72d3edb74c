"""The sizes of a head: what decides the shapes of its tensors, and its dropout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from featurestore import limits
from featurestore.errors import UsageError
from featurestore.models.inputs.stores import StoreInput


@dataclass(frozen=True)
class HeadConfig:
    """The sizes of a head: what decides the shapes of its tensors, and its dropout.

    Attributes
    ----------
    dim : int
        Length of one stored vector.
    n_labels : int
        Number of labels.
    n_layers : int
        Vectors per token: more than 1 when the store keeps layers apart.
    hidden : int
        Units of the LSTM in each direction; no meaning for heads without one.
    dropout : float
        Probability in ``[0, 1)``, on the head's input and on the LSTM's output.
    inputs : tuple of StoreInput
        Of several stores, what is read of each, in order; empty for one. ``dim`` is the sum of theirs then,
        and ``n_layers`` 1.
    """

    dim: int
    n_labels: int
    n_layers: int = 1
    hidden: int = 256
    dropout: float = 0.3
    inputs: tuple[StoreInput, ...] = ()

    def __post_init__(self) -> None:
        bounds = {
            "dim": (1, limits.MAX_DIM),
            "n_labels": (1, limits.MAX_DIM),
            "n_layers": (1, limits.MAX_LAYERS),
            "hidden": (1, limits.MAX_DIM),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise UsageError(f"{name} must be a whole number in {least}..{most}, found {value!r}")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be a number in [0, 1), found {self.dropout!r}")
        if self.inputs:
            self._check_inputs()

    def _check_inputs(self) -> None:
        names, dims, _ = zip(*self.inputs, strict=True)
        if len(names) < 2 or len(set(names)) != len(names):
            raise UsageError(f"inputs must be of several stores of different names, found {list(names)}")
        for name, dim, n_layers in self.inputs:
            if not 1 <= dim <= limits.MAX_DIM or not 1 <= n_layers <= limits.MAX_LAYERS:
                raise UsageError(f"the store {name!r} cannot have {n_layers} layers of {dim}")
        if (sum(dims), 1) != (self.dim, self.n_layers):
            raise UsageError(
                f"stores of {', '.join(map(str, dims))} make one layer of {sum(dims)}, found "
                f"{self.n_layers} of {self.dim}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of plain JSON values; ``inputs`` only where there are some."""
        fields = asdict(self)
        inputs = [list(one) for one in fields.pop("inputs")]
        return {**fields, "inputs": inputs} if inputs else fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> HeadConfig:
        """Return the sizes of which :meth:`to_dict` made a dictionary.

        Raises
        ------
        UsageError
            If they are not all there, or not such.
        """
        expected = set(cls.__dataclass_fields__) - ({"inputs"} - set(fields))
        if set(fields) != expected:
            raise UsageError(f"expected the sizes {sorted(expected)}, found {sorted(fields)}")
        given, inputs = fields.get("inputs", []), []
        for one in given if isinstance(given, list) else [given]:
            if not isinstance(one, list) or [type(value) for value in one] != [str, int, int]:
                raise UsageError(f"inputs are lists of name, dim and number of layers, found {one!r:.80}")
            inputs.append(StoreInput(*one))
        return cls(**{**fields, "inputs": tuple(inputs)})
