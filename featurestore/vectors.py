"""Vectors of a sentence: their shape, how far they may differ, and what an encoder must return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import EncoderRuleError
from featurestore.families import Encodes
from featurestore.keys import Sentence

PRECISION_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Relative L2 difference, per sentence and layer, allowed to another batch, processor or library, by the
recipe's precision. Code for processors without AVX and with AVX-512 differs by 1e-6 in float32, 7e-4 in
float16, 5e-3 in bfloat16 (tests/bench/encoding/processors.py); the rest is room for GPUs, which are not
measured. TF32, which rounds operands to ten bits, exceeds the tolerance of float32."""

_TENSORS = (
    "of tensors: [vectors.detach().float().cpu().numpy() for vectors in ...]; of one padded array: "
    "[array[:len(tokens)] for array, tokens in zip(padded, sentences)]"
)
_SHOWN = 6
"""Arrays or sentences that a message lists."""


def vector_shape(n_tokens: int, n_layers: int, dim: int) -> tuple[int, ...]:
    """Return the shape of a sentence's vectors.

    Returns
    -------
    tuple of int
        ``(n_tokens, dim)`` if ``n_layers`` is 1, else ``(n_tokens, n_layers, dim)``.
    """
    return (n_tokens, *token_shape(n_layers, dim))


def token_shape(n_layers: int, dim: int) -> tuple[int, ...]:
    """Return the shape of one token's vectors: ``(dim,)`` if ``n_layers`` is 1, else ``(n_layers, dim)``."""
    return (dim,) if n_layers == 1 else (n_layers, dim)


def layers_and_dim(shape: Sequence[int]) -> tuple[int, int]:
    """Return ``n_layers`` and ``dim`` of a shape that :func:`vector_shape` returned."""
    return (shape[1] if len(shape) == 3 else 1), shape[-1]


@overload
def exceeds(difference: float, tolerance: float) -> bool: ...


@overload
def exceeds(difference: Any, tolerance: Any) -> Any: ...


def exceeds(difference: Any, tolerance: Any) -> Any:
    """Return whether a difference exceeds a tolerance or is NaN; elementwise for arrays and tensors."""
    within = difference <= tolerance
    return not within if isinstance(within, bool) else ~within


def tolerance_of(recipe: Mapping[str, Any]) -> float:
    """Return the tolerance for vectors of a recipe; that of float32 if the recipe states no precision."""
    return PRECISION_TOLERANCE.get(str(recipe.get("precision")), PRECISION_TOLERANCE["float32"])


def relative_l2(now: NDArray[np.floating], stored: NDArray[np.floating]) -> float:
    """Return the maximum over layers of ||now - stored|| / ||now||; infinite if the shapes differ.

    Parameters
    ----------
    now, stored : (n_tokens, dim) or (n_tokens, n_layers, dim) float
    """
    if now.shape != stored.shape:
        return float("inf")
    a, b = now.astype(np.float64), stored.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference, norm = (np.sqrt(np.sum(x * x, axis=(0, -1))) for x in (a - b, a))
        ratio = np.divide(difference, norm, out=np.where(difference == 0, 0.0, np.inf), where=norm > 0)
    return float(np.max(ratio))


def require_arrays(
    given: object, n_sentences: int, encoder: str, shapes: Sequence[tuple[int, ...]] | None = None
) -> Sequence[NDArray[np.floating]]:
    """Return what an encoder gave, after checking that it is one array of floats per sentence.

    Parameters
    ----------
    given : object
    n_sentences : int
    encoder : str
        What messages call it.
    shapes : sequence of tuple of int, optional
        Of the arrays; not checked by default.

    Raises
    ------
    EncoderRuleError
        Naming what was returned and expected; of a tensor also what to write.
    """
    rule, found = "arrays", f"a {_described(given)}"
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        whole = all(isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in given)
        if len(given) != n_sentences:
            rule, found = "one array per sentence", f"{len(given):,} arrays" if given else "[]"
        elif whole and (shapes is None or [array.shape for array in given] == list(shapes)):
            return given
        else:
            rule = ("order" if _is_permuted(given, shapes) else "shapes") if whole else "arrays"
            found = f"[{', '.join(map(_described, given[:_SHOWN]))}{', ...' if len(given) > _SHOWN else ''}]"
    listed = "" if shapes is None else f" of shape {', '.join(map(str, shapes[:_SHOWN]))}"
    listed += ", ..." if shapes is not None and len(shapes) > _SHOWN else ""
    said = ", as its dim and n_layers say" if shapes is not None else ""
    raise EncoderRuleError(
        f"{_named(encoder)} returned {found} for {n_sentences:,} sentence{'s' if n_sentences != 1 else ''}: "
        f"expected a list with one NumPy array of floats each, in their order{listed}{said} ({_TENSORS}). "
        "This is an error in the encoder",
        rule=rule,
    )


def _is_permuted(arrays: Sequence[NDArray[np.floating]], shapes: Sequence[tuple[int, ...]] | None) -> bool:
    """Return whether arrays have the expected shapes in another order."""
    found = [array.shape for array in arrays]
    return shapes is not None and found != list(shapes) and sorted(found) == sorted(shapes)


def encoded(encoder: Encodes, sentences: Sequence[Sentence]) -> list[NDArray[np.float32]]:
    """Encode a batch and return copies of its vectors, float32, checked to be what the encoder says it gives.

    Raises
    ------
    EncoderRuleError
        If they are not.
    """
    shapes = [vector_shape(len(tokens), encoder.n_layers, encoder.dim) for tokens in sentences]
    given = require_arrays(encoder.encode(sentences), len(sentences), encoder.spec, shapes)
    return [np.array(array, np.float32) for array in given]


def require_same(
    encoder: str,
    sentences: Sequence[Sentence],
    now: Sequence[NDArray[np.floating]],
    before: Sequence[NDArray[np.floating]],
    tolerance: float,
    *,
    rule: str = "depends on the sentence alone",
    when: str = "when it is encoded again, beside others",
    remedy: str = (
        "turn dropout off (model.eval()), carry no state from batch to batch, and mask the padding"
    ),
) -> float:
    """Raise unless sentences have the same vectors as before, within a tolerance.

    Parameters
    ----------
    encoder : str
        What messages call it.
    sentences : sequence of tuple of str
    now, before : sequence of arrays
    tolerance : float
        Relative L2, per sentence and layer.
    rule, when, remedy : str
        The rule that is tested, when the vectors differ, and what to do.

    Returns
    -------
    float
        The largest relative L2.

    Raises
    ------
    EncoderRuleError
    """
    errors = [relative_l2(one, other) for one, other in zip(now, before, strict=True)]
    if any(exceeds(error, tolerance) for error in errors):
        worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
        tokens = sentences[worst]
        raise EncoderRuleError(
            f"{_named(encoder)} gives a sentence other vectors {when}: those of {' '.join(tokens[:8])!r} "
            f"({len(tokens)} tokens) differ by a relative L2 of {errors[worst]:.3g}, expected at most "
            f"{tolerance:.3g}. A store needs vectors that depend on the sentence alone: {remedy}",
            rule=rule,
            tokens=tokens,
            difference=errors[worst],
        )
    return max(errors, default=0.0)


def _described(given: object) -> str:
    """Return what messages call something that an encoder returned."""
    kind = type(given).__name__
    shape, dtype = getattr(given, "shape", None), getattr(given, "dtype", None)
    if shape is None or dtype is None:
        return kind
    if isinstance(given, np.ndarray):
        return f"{dtype} array of shape {shape}"
    return f"{kind} of {dtype} and shape {tuple(shape)} on {getattr(given, 'device', 'its device')}"


def _named(encoder: str) -> str:
    return f"the encoder {encoder!r}" if encoder else "the encoder"
