"""Which two files of a folder are an ELMo's options and weights, whatever they are called.

By name ``options.json`` and ``weights.hdf5``. Else by content: options are JSON with the objects ``lstm`` and
``char_cnn``, weights are HDF5 that is no warm state (NLPL calls them ``model.hdf5``). Of several, a pair of
names such as ``de_options.json`` and ``de_weights.hdf5`` is taken if it is the only one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from featurestore.disk.opening import opened
from featurestore.errors import EncoderError
from featurestore.limits import MAX_OPTIONS_BYTES

OPTIONS, WEIGHTS = "options.json", "weights.hdf5"
WARM_STATE = ".warm.hdf5"
"""How the name of a warm state ends."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z")
_HDF5 = (".hdf5", ".h5", ".hdf")
_MOST_FILES = 1000
_SHOWN = 12

_OTHERS = (
    (("encoder.pkl", "token_embedder.pkl"),
     "These are the files of ELMoForManyLangs, another network, which is not read here"),
    (("checkpoint",),
     "This is a TensorFlow checkpoint: have bilm-tf write its weights as HDF5 (python bin/dump_weights.py "
     "--save_dir FOLDER --outfile FOLDER/weights.hdf5)"),
)  # fmt: skip
"""Files by which other kinds of models are known, and what to say of them."""


def model_in(folder: Path) -> tuple[Path, Path]:
    """Return the options and weights of the model in a folder.

    If the folder is missing or cannot be listed, the usual names are returned, and opening them raises.

    Raises
    ------
    EncoderError
        If it holds no model, or several, or is a file: with what was found and what is expected.
    """
    usual = folder / OPTIONS, folder / WEIGHTS
    if _is_file(folder):
        raise EncoderError(_about_file(folder))
    if all(map(_is_file, usual)):
        return usual
    try:
        files = sorted(path for path, _ in zip(folder.iterdir(), range(_MOST_FILES), strict=False))
    except (OSError, ValueError):
        return usual
    options = [path for path in files if path.suffix == ".json" and _is_options(path)]
    weights = [
        path
        for path in files
        if path.suffix in _HDF5 and not path.name.endswith(WARM_STATE) and _is_file(path)
    ]
    if len(options) == len(weights) == 1:
        return options[0], weights[0]
    pairs = [(o, w) for o in options for w in weights if _stem(o, "options") == _stem(w, "weights")]
    if len(pairs) == 1:
        return pairs[0]
    raise EncoderError(_about_folder(folder, files, options, weights))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_options(path: Path) -> bool:
    """Return whether a file looks like the options of an ELMo; others may lie beside it (``meta.json``)."""
    try:
        with opened(path, "ELMo options") as file:
            text = file.read(MAX_OPTIONS_BYTES + 1)
        parsed = json.loads(text) if len(text) <= MAX_OPTIONS_BYTES else None
    except (EncoderError, ValueError, RecursionError):
        return path.name == OPTIONS  # reading it says what is wrong
    return isinstance(parsed, dict) and {"lstm", "char_cnn"} <= parsed.keys()


def _stem(path: Path, part: str) -> str:
    """Return a name without the part that says which of the two files it is."""
    return path.stem.replace(part, "").strip("._-")


def _listed(paths: Iterable[Path]) -> str:
    names = [path.name + ("/" if path.is_dir() else "") for path in paths]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _about_file(path: Path) -> str:
    if path.suffix in ARCHIVES:
        return (
            f"{path} is an archive: unpack it (such as unzip {path.name} -d FOLDER) and name the folder, "
            "elmo:./FOLDER"
        )
    return (
        f"{path} is one file: expected a folder with {OPTIONS} and {WEIGHTS}, or both files, "
        "elmo:OPTIONS.json,WEIGHTS.hdf5"
    )


def _about_folder(folder: Path, files: list[Path], options: list[Path], weights: list[Path]) -> str:
    names = {path.name for path in files}
    expected = (
        f"expected {OPTIONS} and {WEIGHTS}, or one file of options (JSON with lstm and char_cnn) and one of "
        "weights (HDF5)"
    )
    if len(options) > 1 or len(weights) > 1:
        found = f"options: {_listed(options) or 'none'}; weights: {_listed(weights) or 'none'}"
        return f"{folder} holds more than one model ({found}): name the two, elmo:OPTIONS.json,WEIGHTS.hdf5"
    message = f"{folder} holds no ELMo: {expected}; found {_listed(files) or 'nothing'}"
    for marks, said in _OTHERS:
        if names.issuperset(marks):
            return f"{message}. {said}"
    archives = [path for path in files if path.suffix in ARCHIVES]
    if archives:
        return f"{message}. {_about_file(archives[0])}"
    inside = next((path for path in files if path.is_dir() and _holds_model(path)), None)
    return f"{message}. There is one in the folder {inside}: name that" if inside else message


def _holds_model(folder: Path) -> bool:
    try:
        return all(map(_is_file, model_in(folder)))
    except EncoderError:
        return False
