"""The options file of an ELMo model: its shape and the switches that change its arithmetic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore import limits
from featurestore.disk.opening import opened
from featurestore.errors import WeightsError
from featurestore.recipe import canonical_json

ACTIVATIONS = ("relu", "tanh")
CHARACTER_COUNTS = (261, 262)
"""bilm-tf writes 261 for training and 262 for use; the weights have 261 rows in both cases."""

TYPES_PER_TOKEN = 0.25
"""Distinct word types per running token assumed in estimates (UD EWT dev: 5,496 of 25,147)."""

_PUBLISHED_FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


@dataclass(frozen=True)
class ElmoOptions:
    """The contents of an options file; no field has a default.

    Attributes
    ----------
    lstm_dim, projection_dim, n_layers : int
        Cells of one LSTM layer and direction, length of its projected output, number of LSTM layers.
    cell_clip, proj_clip : float or None
        Bounds of the cell and of the projected output; None (``null`` in the file) clips nothing.
    use_skip_connections : bool
        Whether every LSTM layer but the first adds its input to its output.
    character_dim : int
        Length of a character's vector.
    filters : tuple of (width, n_filters)
        Convolutions over the characters.
    n_highway : int
        Highway layers after the convolutions.
    activation : str
        ``relu`` or ``tanh``, applied after the max-pool.
    n_characters, max_characters : int
        Character ids the file speaks of, and positions per token.
    """

    lstm_dim: int
    projection_dim: int
    n_layers: int
    cell_clip: float | None
    proj_clip: float | None
    use_skip_connections: bool
    character_dim: int
    filters: tuple[tuple[int, int], ...]
    n_highway: int
    activation: str
    n_characters: int = 262
    max_characters: int = 50

    @classmethod
    def read(cls, path: str | Path) -> ElmoOptions:
        """Read and validate an options file.

        Raises
        ------
        EncoderError
            If the file cannot be read or is too large.
        WeightsError
            If it is not the options of an ELMo model: see :meth:`from_json`.
        """
        path = Path(path)
        with opened(path, "ELMo options") as file:
            text = file.read(limits.MAX_OPTIONS_BYTES + 1)
        return cls.from_json(text, source=str(path))

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> ElmoOptions:
        """Parse and validate the text of an options file.

        Parameters
        ----------
        text : str or bytes
            JSON as bilm-tf and AllenNLP write it; fields that decide no vector (``dropout``) are ignored.
        source : str
            Name of the file for error messages.

        Raises
        ------
        WeightsError
            Malformed JSON, a missing field, or a value that is unsupported: naming file, field, what was
            expected and what was found.
        """
        if len(text) > limits.MAX_OPTIONS_BYTES:
            raise WeightsError(
                f"{source} exceeds {limits.MAX_OPTIONS_BYTES:,} bytes: it is not an ELMo options file "
                "(were options and weights swapped?)"
            )
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{source} is not JSON ({error}): expected an ELMo options.json") from error
        fields = _Fields(parsed, source)
        widths = fields.filters("char_cnn.filters")
        max_characters = fields.integer("char_cnn.max_characters_per_token", lowest=3, highest=4096)
        widest = max(width for width, _ in widths)
        if widest > max_characters:
            raise WeightsError(
                f"{source}: char_cnn.filters has a filter {widest} characters wide, but "
                f"char_cnn.max_characters_per_token is {max_characters}: expected at most that width"
            )
        return cls(
            lstm_dim=fields.integer("lstm.dim"),
            projection_dim=fields.integer("lstm.projection_dim", highest=limits.MAX_DIM // 2),
            n_layers=fields.integer("lstm.n_layers", highest=limits.MAX_LAYERS - 1),
            cell_clip=fields.clip("lstm.cell_clip"),
            proj_clip=fields.clip("lstm.proj_clip"),
            use_skip_connections=fields.boolean("lstm.use_skip_connections"),
            character_dim=fields.integer("char_cnn.embedding.dim"),
            filters=widths,
            n_highway=fields.integer("char_cnn.n_highway", lowest=0, highest=64),
            activation=fields.choice("char_cnn.activation", ACTIVATIONS),
            n_characters=fields.choice("char_cnn.n_characters", CHARACTER_COUNTS),
            max_characters=max_characters,
        )

    @property
    def dim(self) -> int:
        """Length of a token's vector: forward and backward."""
        return 2 * self.projection_dim

    @property
    def max_token_bytes(self) -> int:
        """Bytes of a token's UTF-8 that are read: all positions but the begin and the end of the word."""
        return self.max_characters - 2

    @property
    def n_filters(self) -> int:
        """Length of a token's vector after the max-pool."""
        return sum(n_filters for _, n_filters in self.filters)

    @property
    def megaflops_per_position(self) -> float:
        """Arithmetic of all LSTM layers for one token, in MFLOP."""
        gates = 2 * (2 * self.projection_dim) * (4 * self.lstm_dim)
        projection = 2 * self.lstm_dim * self.projection_dim
        return 2 * self.n_layers * (gates + projection) / 1e6

    @property
    def megaflops_per_type(self) -> float:
        """Arithmetic of the character network for one word type, over all positions, in MFLOP."""
        convolutions = sum(
            2 * width * self.character_dim * n_filters * (self.max_characters - width + 1)
            for width, n_filters in self.filters
        )
        highway = self.n_highway * 2 * 2 * self.n_filters**2
        projection = 2 * self.n_filters * self.projection_dim
        return (convolutions + highway + projection) / 1e6

    @property
    def megaflops_per_token(self) -> float:
        """Estimate for running text, where the character network runs once per word type."""
        return self.megaflops_per_position + TYPES_PER_TOKEN * self.megaflops_per_type

    def to_dict(self) -> dict[str, Any]:
        """Return the options in the structure of an options file."""
        return {
            "lstm": {
                "dim": self.lstm_dim,
                "projection_dim": self.projection_dim,
                "n_layers": self.n_layers,
                "cell_clip": self.cell_clip,
                "proj_clip": self.proj_clip,
                "use_skip_connections": self.use_skip_connections,
            },
            "char_cnn": {
                "embedding": {"dim": self.character_dim},
                "filters": [list(item) for item in self.filters],
                "n_highway": self.n_highway,
                "activation": self.activation,
                "n_characters": self.n_characters,
                "max_characters_per_token": self.max_characters,
            },
        }

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of :meth:`to_dict`.

        Not of the file: its blanks, the order of its keys and training settings decide no vector.
        """
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()


class _Fields:
    """Typed, validated access to nested fields; errors name file, field, expected and found."""

    def __init__(self, parsed: Any, source: str) -> None:
        self._parsed = parsed
        self._source = source

    def _get(self, field: str, expected: str) -> Any:
        value = self._parsed
        for name in field.split("."):
            if not isinstance(value, Mapping) or name not in value:
                raise WeightsError(
                    f"{self._source}: field {field} is missing, expected {expected}: "
                    "is this the options.json that belongs to the weights?"
                )
            value = value[name]
        return value

    def _refuse(self, field: str, expected: str, found: Any) -> WeightsError:
        shown = json.dumps(found)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return WeightsError(f"{self._source}: field {field} should be {expected}, found {shown}")

    def integer(self, field: str, *, lowest: int = 1, highest: int = limits.MAX_DIM) -> int:
        expected = f"an integer from {lowest} to {highest}"
        value = self._get(field, expected)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self._refuse(field, expected, value)
        return value

    def clip(self, field: str) -> float | None:
        expected = "a positive number, or null for no clipping"
        value = self._get(field, expected)
        if value is None:
            return None
        # A clip beyond 1e6 has no effect and does not fit the sixteen-bit precisions.
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1e6:
            raise self._refuse(field, expected, value)
        return float(value)

    def boolean(self, field: str) -> bool:
        value = self._get(field, "true or false")
        if not isinstance(value, bool):
            raise self._refuse(field, "true or false", value)
        return value

    def choice(self, field: str, choices: tuple[Any, ...]) -> Any:
        expected = " or ".join(json.dumps(choice) for choice in choices)
        value = self._get(field, expected)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value not in choices:
            raise self._refuse(field, expected, value)
        return value

    def filters(self, field: str) -> tuple[tuple[int, int], ...]:
        expected = "a list of [width, number of filters]"
        value = self._get(field, expected)
        if not isinstance(value, list) or not value:
            raise self._refuse(field, expected, value)
        for item in value:
            sound = isinstance(item, list) and len(item) == 2
            if not sound or not all(type(n) is int and 1 <= n <= limits.MAX_DIM for n in item):
                raise self._refuse(field, expected, value)
        return tuple((width, n_filters) for width, n_filters in value)


def _preset(
    lstm_dim: int,
    projection_dim: int,
    n_highway: int,
    filters: tuple[tuple[int, int], ...] = _PUBLISHED_FILTERS,
) -> ElmoOptions:
    return ElmoOptions(
        lstm_dim=lstm_dim,
        projection_dim=projection_dim,
        n_layers=2,
        cell_clip=3.0,
        proj_clip=3.0,
        use_skip_connections=True,
        character_dim=16,
        filters=filters,
        n_highway=n_highway,
        activation="relu",
    )


PRESETS = {
    "demo": _preset(336, 512, 1, filters=((1, 32), (2, 64), (3, 128), (4, 192), (5, 192), (6, 160))),
    "small": _preset(1024, 128, 1),
    "medium": _preset(2048, 256, 1),
    "original": _preset(4096, 512, 2),
}
"""The shapes of the bundled model and of the published ones, which untrained models take."""
