"""Options of a Flair class in a specification: which there are, and text to what they take."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from featurestore.errors import UsageError

_MEANINGLESS = ("name", "is_token_embedding", "embedding_length")
"""Constructor parameters that text cannot or need not set."""


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """Return the constructor's parameters by name, with those it passes on to the classes above it."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for parameter in named:
            found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def first_parameter(kind: type) -> str | None:
    """Return the parameter that takes a name or path: the first, if text can be one."""
    for name, parameter in parameters_of(kind).items():
        unstated = parameter.annotation is parameter.empty
        return name if unstated or str in _choices(parameter.annotation) else None
    return None


def typed_options(kind: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return options as the constructor of a class takes them.

    Parameters
    ----------
    kind : type
    texts : mapping of str to str
        Option to value, as written in a specification.

    Raises
    ------
    UsageError
        For an unknown option, naming those there are, or a value that it does not take.
    """
    allowed = {
        name: choices
        for name, parameter in parameters_of(kind).items()
        if name not in (*_MEANINGLESS, first_parameter(kind)) and (choices := _choices(parameter.annotation))
    }
    typed = {}
    for name, text in texts.items():
        if name not in allowed:
            raise UsageError(
                f"{kind.__name__} has no option {name!r}: expected {', '.join(sorted(allowed)) or 'none'}"
            )
        typed[name] = _typed(text, allowed[name], f"{kind.__name__}?{name}={text}")
    return typed


def parse_bool(text: str, where: str) -> bool:
    """Return what ``true`` or ``false`` says.

    Raises
    ------
    UsageError
    """
    if text.lower() not in ("true", "false"):
        raise UsageError(f"{where}: expected true or false")
    return text.lower() == "true"


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the types and literal texts that an annotation allows and that text can be; perhaps none."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return tuple(choice for part in get_args(annotation) for choice in _choices(part))
    if origin is Literal:
        return get_args(annotation)
    return (annotation,) if annotation in (bool, int, float, str, Path) else ()


def _typed(text: str, choices: tuple[Any, ...], where: str) -> Any:
    if text in choices:
        return text
    if bool in choices and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in choices:
            try:
                return number(text)
            except ValueError:
                continue
    if Path in choices or str in choices:
        return Path(text) if Path in choices else text
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    expected = ", ".join(names.get(choice, str(choice)) for choice in choices)
    raise UsageError(f"{where}: expected {expected}")
