"""Encoders of your own by specification: ``package.module:Class``, ``package.module:function``.

The module is imported as Python does, and from the working directory if it is found nowhere else. A class or
function is called without arguments, or with ``device`` if it takes one; an object that is an encoder already
is taken as it is. All of this runs the module's code: it happens only for a specification that the user
gives, never for one that a store names (:func:`featurestore.encoders.loading.require_no_code`).
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from dataclasses import dataclass
from typing import Any

from featurestore.encoders.checked import CheckedEncoder, checked_encoder
from featurestore.errors import EncoderError, FeaturestoreError, UnknownEncoderError, UsageError
from featurestore.families import OWN_FORM, expected_forms


@dataclass(frozen=True)
class _Kept:
    """The encoder that was made last."""

    spec: str
    made_by: object
    device: str | None
    encoder: CheckedEncoder


_last: _Kept | None = None


def load_own(spec: str, *, device: str | None = "auto") -> CheckedEncoder:
    """Make the encoder that a specification names; the one made last if it is the same.

    Parameters
    ----------
    spec : str
        ``package.module:name``; the name may be dotted.
    device : str or None
        Handed on if the class or function has a parameter of that name; None for any, where only what is
        known of the encoder is asked for.

    Returns
    -------
    CheckedEncoder
        Its ``spec`` is this specification.

    Raises
    ------
    UnknownEncoderError
        If there is no such module, or no such name in it.
    UsageError
        If that makes no encoder, or one on another device.
    EncoderError
        If importing or calling it fails.
    """
    global _last
    found = _found(spec)
    kept = _last
    if kept is not None and kept.spec == spec and kept.made_by is found and device in (None, kept.device):
        return kept.encoder
    _last = kept = None  # before another one is made: two may not fit into memory
    encoder = checked_encoder(_made(found, spec, device or "auto"), spec=spec)
    if device not in (None, "auto") and not encoder.device.startswith(str(device)):
        raise UsageError(
            f"the encoder {spec} runs on {encoder.device}, not on {device}: give it a parameter `device`, "
            "which is handed on, or leave the device out"
        )
    _last = _Kept(spec, found, device or "auto", encoder)
    return encoder


def _found(spec: str) -> Any:
    """Return the object that a specification names."""
    module, _, path = spec.partition(":")
    found: Any = _imported(module, spec)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise UnknownEncoderError(
                f"{spec}: {getattr(found, '__file__', None) or module} has no {name!r}: expected {OWN_FORM}, "
                "or a function that returns an encoder"
            ) from error
    return found


def _imported(module: str, spec: str) -> Any:
    working_directory = os.getcwd()
    try:
        if importlib.util.find_spec(module.partition(".")[0]) is None and working_directory not in sys.path:
            sys.path.append(working_directory)  # for what the module imports later, too
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise UnknownEncoderError(
                f"unknown encoder {spec!r}: expected {expected_forms()}. There is no module {error.name!r}, "
                f"installed or in {working_directory}"
                + (f". Name the module, not its file: {spec.replace('.py:', ':')}" if ".py:" in spec else "")
            ) from error
        raise EncoderError(
            f"{spec}: the module {module} needs {error.name}, which is not installed"
        ) from error
    except Exception as error:
        raise EncoderError(f"{spec}: importing {module} fails ({type(error).__name__}: {error})") from error


def _made(found: Any, spec: str, device: str) -> Any:
    """Return the encoder that a class or function makes; an encoder as it is."""
    if not isinstance(found, type) and callable(getattr(found, "encode", None)):
        return found
    if not callable(found):
        raise UsageError(
            f"{spec} is a {type(found).__name__}: expected an encoder, or a class or function that makes one"
        )
    try:
        takes_device = "device" in inspect.signature(found).parameters
    except (TypeError, ValueError):
        takes_device = False  # something built in, which shows no signature
    try:
        return found(device=device) if takes_device else found()
    except FeaturestoreError:
        raise
    except Exception as error:
        raise EncoderError(
            f"{spec}: {_name(found)} cannot be called without arguments, or fails ({type(error).__name__}: "
            f"{error}). Name a class or function that needs none (but perhaps device=)"
        ) from error


def _name(found: Any) -> str:
    """Return what messages call a class or function."""
    return str(getattr(found, "__qualname__", type(found).__name__))
