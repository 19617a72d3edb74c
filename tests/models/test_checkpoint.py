"""Model files: what is saved comes back; what is damaged, hostile, newer or of another recipe is refused."""

from __future__ import annotations

import hashlib
import time

import h5py
import numpy as np
import pytest
import torch

from featurestore.errors import ModelError, RecipeMismatchError, StoreWriteError
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HEADS, HeadConfig, build_head
from featurestore.recipe import Recipe
from tests.models.forged import rewrite_metadata

RECIPE = Recipe({"kind": "test", "version": 1, "layers": "all"})


def model_of(name: str = "bilstm-crf-tagger", n_layers: int = 3) -> TrainedModel:
    torch.manual_seed(4)
    head = build_head(name, HeadConfig(dim=6, n_labels=3, n_layers=n_layers, hidden=4, dropout=0.25))
    return TrainedModel(head.eval(), ("A", "β", "C\n"), RECIPE, label="upos", seed=7, scores={"value": 0.5})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.h5"
    model_of().save(path)
    return path


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_round_trip(tmp_path, name, n_layers):
    model = model_of(name, n_layers)
    model.save(tmp_path / "deep" / "model.h5")
    loaded = TrainedModel.load(tmp_path / "deep" / "model.h5")
    for field in ("label_names", "recipe", "label", "seed", "scores", "training", "featurestore_version"):
        assert getattr(loaded, field) == getattr(model, field)
    assert loaded.head.config == model.head.config
    assert not loaded.head.training
    shape = (2, 5, 6) if n_layers == 1 else (2, 5, n_layers, 6)
    features, lengths = torch.randn(shape), torch.tensor([5, 3])
    mask = torch.arange(5) < lengths[:, None]
    for compute in ("forward", "decode"):
        assert torch.equal(
            getattr(loaded.head, compute)(features, lengths, mask),
            getattr(model.head, compute)(features, lengths, mask),
        )


def test_a_loaded_head_can_be_trained_on(saved):
    head = TrainedModel.load(saved).head
    features, lengths, mask = torch.randn(1, 4, 3, 6), torch.tensor([4]), torch.ones(1, 4, dtype=torch.bool)
    head.loss(features, lengths, mask, torch.zeros(1, 4, dtype=torch.int64)).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_loading_draws_no_random_numbers(saved):
    before = torch.get_rng_state()
    TrainedModel.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_model_gives_the_same_bytes_at_another_second():
    first = model_of().to_bytes()
    time.sleep(1.1)
    assert model_of().to_bytes() == first


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    old = saved.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(StoreWriteError):
        model_of("linear-tagger").save(saved)
    assert saved.read_bytes() == old
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_another_recipe_is_refused_field_by_field(saved):
    model = TrainedModel.load(saved)
    model.require_recipe(Recipe(RECIPE.to_dict()), where="the store here")
    other = Recipe({**RECIPE.to_dict(), "layers": "top"})
    message = 'layers: "top" in the store here, "all" asked for'
    with pytest.raises(RecipeMismatchError, match=message) as caught:
        model.require_recipe(other, where="the store here")
    assert caught.value.exit_code == 4


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for n_bytes in range(0, len(whole), 97):
        saved.write_bytes(whole[:n_bytes])
        with pytest.raises(ModelError, match=r"model\.h5"):
            TrainedModel.load(saved)


def test_no_flipped_bit_changes_a_model_unnoticed(saved):
    """Most flips are refused; one in a byte that HDF5 does not use must leave the model as it was."""
    whole = bytearray(saved.read_bytes())
    original = model_of()
    n_refused = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 150):
        whole[position] ^= 0x10
        saved.write_bytes(whole)
        try:
            loaded = TrainedModel.load(saved)
        except ModelError:
            n_refused += 1
        else:
            assert loaded.to_bytes() == original.to_bytes()
        whole[position] ^= 0x10
    assert n_refused > 50


def test_a_changed_label_name_is_noticed(saved):
    whole = saved.read_bytes()
    assert whole.count(b'"upos"') == 1
    saved.write_bytes(whole.replace(b'"upos"', b'"xpos"'))
    with pytest.raises(ModelError, match="metadata are not those that were written"):
        TrainedModel.load(saved)


METADATA_ATTACKS = {
    "newer": (lambda m: m.update(format_version=2), "format version 2.*upgrade"),
    "other format": (lambda m: m.update(format="cookbook"), "does not say"),
    "not JSON": (lambda m: m.update(scores={"value": "NaN"}), "NaN is not JSON"),
    "missing field": (lambda m: m.pop("recipe"), "fields"),
    "extra field": (lambda m: m.update(hook="os.system"), "hook"),
    "wrong type": (lambda m: m.update(seed="7"), "'seed'.*str"),
    "boolean seed": (lambda m: m.update(seed=True), "'seed'.*bool"),
    "unknown head": (lambda m: m.update(head="os.system"), "no head 'os.system'"),
    "huge head": (lambda m: m["config"].update(hidden=60_000, dim=60_000), "has shape"),
    "impossible head": (lambda m: m["config"].update(hidden=1 << 60), "hidden"),
    "extra size": (lambda m: m["config"].update(device="cuda"), "sizes"),
    "too few names": (lambda m: m["label_names"].pop(), "2 labels for 3"),
    "names twice": (lambda m: m.update(label_names=["A", "A", "B"]), "distinct"),
    "other recipe": (lambda m: m["recipe"].update(layers="top"), "fingerprint"),
    "no recipe": (lambda m: m.update(recipe={}), "kind"),
    "unlisted tensor": (lambda m: m["tensors"].pop("mix.gamma"), "tensors"),
}


@pytest.mark.parametrize("attack", METADATA_ATTACKS)
def test_forged_metadata_is_refused(saved, attack):
    change, message = METADATA_ATTACKS[attack]
    rewrite_metadata(saved, change)
    with pytest.raises(ModelError, match=message):
        TrainedModel.load(saved)


def test_deeply_nested_metadata_is_refused(saved):
    text = b"[" * 200_000
    with h5py.File(saved, "r+") as file:
        del file["metadata"]
        file["metadata"] = np.frombuffer(text, "u1")
        file["metadata_sha256"][...] = np.frombuffer(hashlib.sha256(text).digest(), "u1")
    with pytest.raises(ModelError, match="nested"):
        TrainedModel.load(saved)


def replace(file, name, make):
    array = file[name][...]
    del file[name]
    make(file, name, array)


def external(file, name, array):
    file.create_dataset(name, array.shape, "<f4", external=[(b"/etc/passwd", 0, array.nbytes)])


def virtual(file, name, array):
    layout = h5py.VirtualLayout(array.shape, "<f4")
    layout[...] = h5py.VirtualSource("other.h5", "x", array.shape)
    file.create_virtual_dataset(name, layout)


def unallocated(file, name, array):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple(array.shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plan)


def soft_link(file, name, array):
    file[name] = h5py.SoftLink("/output.weight")


def external_link(file, name, array):
    file[name] = h5py.ExternalLink("/etc/passwd", "/x")


TENSOR_ATTACKS = {
    "missing": (lambda f, n, a: None, "missing or too many"),
    "shape": (lambda f, n, a: f.create_dataset(n, data=a[:-1]), r"has shape \(2, 3\), expected \(3, 3\)"),
    "double": (lambda f, n, a: f.create_dataset(n, data=a.astype("<f8")), "another type"),
    "big-endian": (lambda f, n, a: f.create_dataset(n, data=a, dtype=">f4"), "another type"),
    "strings": (lambda f, n, a: f.create_dataset(n, a.shape, h5py.string_dtype()), "another type"),
    "references": (lambda f, n, a: f.create_dataset(n, a.shape, h5py.ref_dtype), "another type"),
    "other values": (lambda f, n, a: f.create_dataset(n, data=a + 1), "not those that were written"),
    "compressed": (lambda f, n, a: f.create_dataset(n, data=a, compression="gzip"), "filtered"),
    "group": (lambda f, n, a: f.create_group(n), "not a dataset"),
    "external": (external, "external"),
    "virtual": (virtual, "virtual"),
    "unallocated": (unallocated, "do not lie in this file"),
    "soft link": (soft_link, "link"),
    "external link": (external_link, "link"),
}


@pytest.mark.parametrize("attack", TENSOR_ATTACKS)
def test_forged_tensors_are_refused(saved, attack):
    make, message = TENSOR_ATTACKS[attack]
    with h5py.File(saved, "r+") as file:
        replace(file, "crf.transitions", make)
    with pytest.raises(ModelError, match=message):
        TrainedModel.load(saved)


def test_extra_contents_are_refused(saved):
    with h5py.File(saved, "r+") as file:
        file["extra"] = np.zeros(3, "<f4")
    with pytest.raises(ModelError, match="extra"):
        TrainedModel.load(saved)


def test_values_that_are_not_finite_are_refused(tmp_path):
    model = model_of("linear-tagger")
    with torch.no_grad():
        model.head.output.bias[1] = torch.nan
    model.save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"'output\.bias' holds NaN"):
        TrainedModel.load(tmp_path / "model.h5")


@pytest.mark.parametrize("content", [None, b"", b"not HDF5 at all"])
def test_what_is_no_model_file_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "thing.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"thing\.h5"):
        TrainedModel.load(path)


def test_an_hdf5_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "shard.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(3)
    with pytest.raises(ModelError, match="metadata"):
        TrainedModel.load(path)
