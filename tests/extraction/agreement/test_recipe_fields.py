"""Every field of a recipe changed in turn, one byte of the weights changed: refused, the field named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from featurestore import Store, load_encoder
from featurestore.cli.main import main
from featurestore.recipe import Recipe
from tests.kit.places import TINY_ELMO as TINY

KINDS = ["zero", "warm", "untrained"]
OTHER = {"precision": "bfloat16", "layers": [2], "kind": "flair"}
"""Values that make sense; elsewhere any other one of the same type is taken."""
TEXT = "the cat sat on the mat\na dog barks\n" * 40


def changes(fields: dict[str, Any], outer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each field, inner ones included, and the fields with another value there."""
    for name, value in fields.items():
        if isinstance(value, dict):
            for inner, changed in changes(value, f"{outer}{name}."):
                yield inner, {**fields, name: changed}
            continue
        other: Any
        if name in OTHER:
            other = OTHER[name]
        elif isinstance(value, str):
            other = ("0" if value[0] != "0" else "1") + value[1:]
        else:
            other = value + 1
        yield outer + name, {**fields, name: other}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The folder of a model with a warm state."""
    folder = tmp_path_factory.mktemp("model")
    for name in ("options.json", "weights.hdf5"):
        shutil.copy(TINY / name, folder / name)
    (folder / "text.txt").write_text(TEXT)
    assert run("warm-up", f"elmo:{folder}", folder / "text.txt") == 0
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def choices(kind: str, model: Path) -> dict[str, str]:
    if kind == "untrained":
        return {"spec": f"elmo:untrained:{model / 'options.json'}?seed=0", "initial_state": "zero"}
    return {"spec": f"elmo:{model}", "initial_state": kind}


def extract_into(store: Path, kind: str, model: Path) -> int:
    """Run the command that names all there is to choose, so that nothing is taken from the store."""
    chosen = choices(kind, model)
    return run(
        "extract", model / "text.txt", "--store", store, "--encoder", chosen["spec"], "--layers", "average",
        "--precision", "float32", "--initial-state", chosen["initial_state"], "--device", "cpu",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_changed_in_turn_is_refused_and_named(tmp_path, capsys, model, kind):
    encoder = load_encoder(**choices(kind, model), precision="float32", device="cpu")
    fields, n_changed = encoder.recipe.to_dict(), 0
    for name, changed in changes(fields):
        path = tmp_path / name
        Store.create(path, recipe=Recipe(changed), dim=encoder.dim)
        before = [*path.rglob("*")]
        assert extract_into(path, kind, model) == 4, name
        message = capsys.readouterr().err
        assert f"  {name}: " in message
        assert message.count(" asked for") == 1, message
        assert [*path.rglob("*")] == before
        n_changed += 1
    assert n_changed >= {"zero": 7, "warm": 8, "untrained": 9}[kind]
    # The same command takes a store of the very recipe.
    Store.create(tmp_path / "same", recipe=Recipe(fields), dim=encoder.dim)
    assert extract_into(tmp_path / "same", kind, model) == 0


def test_one_bit_of_any_tensor_of_the_weights_is_refused(tmp_path, capsys, model):
    store, copy = tmp_path / "store", tmp_path / "model"
    assert extract_into(store, "zero", model) == 0
    shutil.copytree(model, copy)
    (copy / "text.txt").write_text(TEXT + "something new\n")
    with h5py.File(copy / "weights.hdf5") as file:
        tensors: list[tuple[str, int, int]] = []
        file.visititems(
            lambda name, found: (
                tensors.append((name, found.id.get_offset(), found.id.get_storage_size()))
                if isinstance(found, h5py.Dataset)
                else None
            )
        )
    assert len(tensors) > 20
    content = bytearray((copy / "weights.hdf5").read_bytes())
    for name, offset, n_bytes in tensors:
        place = offset + n_bytes // 2
        content[place] ^= 1
        (copy / "weights.hdf5").write_bytes(content)
        assert extract_into(store, "zero", copy) == 4, name
        assert "  weights_sha256: " in capsys.readouterr().err
        content[place] ^= 1
    (copy / "weights.hdf5").write_bytes(content)
    assert extract_into(store, "zero", copy) == 0
    assert ("something", "new") in Store.open(store)
