"""Files of tensors: what is written comes back, and whatever is not exactly what was written is refused."""

from __future__ import annotations

import hashlib
import json

import h5py
import numpy as np
import pytest

from featurestore.errors import ModelError
from featurestore.recipe import canonical_json
from featurestore.tensorfile import open_tensor_file, read_tensor_file, tensor_file_image

METADATA = {
    "format": "cookbook",
    "format_version": 3,
    "step": 12,
    "text": "β\n",
    "nested": {"list": [1, 2.5]},
}
TENSORS = {
    "weights.w_0": np.arange(12, dtype="<f4").reshape(3, 4) - 0.5,
    "column": np.arange(4, dtype="<f4").reshape(4, 1),
    "scalar": np.array(-(2**62), "<i8"),
    "counts": np.arange(-2, 3, dtype="<i8"),
    "text": np.frombuffer(b"bytes\x00\xff", "u1"),
    "empty": np.zeros((0, 5), "<i8"),
}


def read(path, **changes):
    asked = {"format_name": "cookbook", "format_version": 3, "noun": "recipe book", **changes}
    return read_tensor_file(path, **asked)


def assert_as_written(contents):
    assert contents.metadata == METADATA
    assert set(contents.tensors) == set(TENSORS)
    for name, array in TENSORS.items():
        found = contents.tensors[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "book.h5"
    path.write_bytes(tensor_file_image(METADATA, TENSORS))
    return path


def test_round_trip(saved):
    assert_as_written(read(saved))


def test_special_floats_keep_their_bits(tmp_path):
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], "<u4").view("<f4")
    (tmp_path / "book.h5").write_bytes(tensor_file_image(METADATA, {"x": bits}))
    assert read(tmp_path / "book.h5").tensors["x"].tobytes() == bits.tobytes()


def test_order_of_bytes_memory_and_names_does_not_matter(saved):
    other = {
        name: np.asfortranarray(array.astype(array.dtype.newbyteorder(">")))
        for name, array in reversed(TENSORS.items())
    }
    other["scalar"] = TENSORS["scalar"]  # asfortranarray makes a vector of it
    assert tensor_file_image(dict(reversed(METADATA.items())), other) == saved.read_bytes()


def test_no_tensors_at_all(tmp_path):
    (tmp_path / "book.h5").write_bytes(tensor_file_image(METADATA, {}))
    assert read(tmp_path / "book.h5").tensors == {}


def test_a_reader_that_knows_the_shapes(tmp_path):
    path = tmp_path / "book.h5"
    path.write_bytes(tensor_file_image(METADATA, TENSORS, with_shapes=False))
    shapes = {name: array.shape for name, array in TENSORS.items()}
    asked = {"format_name": "cookbook", "format_version": 3, "noun": "recipe book"}
    with open_tensor_file(path, **asked) as file:
        assert set(file.metadata) == {*METADATA, "tensors"}
        assert file.read(shapes)["text"].tobytes() == b"bytes\x00\xff"
        with pytest.raises(ModelError, match=r"has shape \(3, 4\), expected \(4, 3\)"):
            file.read({**shapes, "weights.w_0": (4, 3)})
        with pytest.raises(ModelError, match="'scalar' has another type than <f4"):
            file.read(dict(sorted(shapes.items(), reverse=True)), types=("<f4", "|u1"))
        with pytest.raises(ModelError, match=r"those of a salad: \['text'\] missing or too many"):
            file.read({name: shape for name, shape in shapes.items() if name != "text"}, owner="a salad")
    with pytest.raises(ModelError, match="no shapes"):
        read(path)
    with (
        pytest.raises(ModelError, match=r"book\.h5 is not a recipe book file.*'oil'"),
        open_tensor_file(path, **asked) as file,
    ):
        file.metadata["oil"]


@pytest.mark.parametrize("name", ["", "a/b", ".", ".hidden", "a b", "ä", "a\n", "x" * 256, "metadata_sha256"])
def test_names_that_are_refused(name):
    with pytest.raises(ModelError, match="cannot be named"):
        tensor_file_image(METADATA, {name: np.zeros(1, "<f4")})


@pytest.mark.parametrize("kind", ["f8", "f2", "i4", "u8", "?", "c8", "S3", "O", "M8[s]"])
def test_types_that_are_refused(kind):
    with pytest.raises(ModelError, match=r"'x' is .*expected float32, int64 or uint8"):
        tensor_file_image(METADATA, {"x": np.zeros(2, kind)})


@pytest.mark.parametrize("field", ["tensors", "shapes"])
def test_fields_made_here_cannot_be_given(field):
    with pytest.raises(ModelError, match=field):
        tensor_file_image({**METADATA, field: {}}, TENSORS)


def test_over_the_bound_is_refused_when_written_and_when_read(saved):
    n_bytes = saved.stat().st_size
    assert tensor_file_image(METADATA, TENSORS, max_bytes=n_bytes) == saved.read_bytes()
    for bound in (n_bytes - 1, 100):
        with pytest.raises(ModelError, match=f"a recipe book of .* exceeds the bounds of {bound:,}.*: cook"):
            tensor_file_image(METADATA, TENSORS, max_bytes=bound, noun="recipe book", remedy="cook less")
    with pytest.raises(ModelError, match="metadata, exceeds"):
        tensor_file_image({**METADATA, "text": "x" * (33 << 20)}, {})
    assert_as_written(read(saved, max_bytes=n_bytes))
    with pytest.raises(ModelError, match=f"it has {n_bytes:,} bytes, at most {n_bytes - 1:,} are allowed"):
        read(saved, max_bytes=n_bytes - 1)


def test_another_version_or_format_is_refused(saved):
    with pytest.raises(ModelError, match=r"as a recipe book: it has format version 3.* reads 2: upgrade"):
        read(saved, format_version=2)
    with pytest.raises(ModelError, match="does not say that it is a novel"):
        read(saved, format_name="novel")


@pytest.mark.parametrize("content", [None, b"", b"not HDF5 at all"])
def test_what_is_no_such_file_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "thing.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"thing\.h5"):
        read(path)


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for n_bytes in range(0, len(whole), 53):
        saved.write_bytes(whole[:n_bytes])
        with pytest.raises(ModelError):
            read(saved)


def test_a_damaged_byte_anywhere_is_an_error_or_harmless(saved):
    """Those of the contents are always noticed, and none of the others can change what is read."""
    whole = bytearray(saved.read_bytes())
    contents = set()
    with h5py.File(saved) as file:
        for dataset in file.values():
            if dataset.size:
                start = dataset.id.get_offset()
                contents.update(range(start, start + dataset.nbytes))
    random = np.random.default_rng(0)
    others = random.choice(sorted(set(range(len(whole))) - contents), 600, replace=False)
    for position in sorted(contents) + others.tolist():
        mask = int(random.integers(1, 256))
        whole[position] ^= mask
        saved.write_bytes(whole)
        try:
            assert_as_written(read(saved))
            noticed = False
        except ModelError:
            noticed = True
        assert noticed or position not in contents
        whole[position] ^= mask


def test_a_dropped_dimension_is_noticed(saved):
    """The bytes of (4, 1) and (4,) are the same: only the metadata tells them apart."""
    with h5py.File(saved, "r+") as file:
        del file["column"]
        file["column"] = TENSORS["column"][:, 0]
    with pytest.raises(ModelError, match=r"'column' has shape \(4,\), expected \(4, 1\)"):
        read(saved)


def soft_link(file, array):
    file["counts"] = h5py.SoftLink("/scalar")


def external_link(file, array):
    file["counts"] = h5py.ExternalLink("/etc/passwd", "/x")


def external(file, array):
    file.create_dataset("counts", array.shape, "<i8", external=[(b"/etc/passwd", 0, array.nbytes)])


def virtual(file, array):
    layout = h5py.VirtualLayout(array.shape, "<i8")
    layout[...] = h5py.VirtualSource("other.h5", "x", array.shape)
    file.create_virtual_dataset("counts", layout)


def low_level(file, shape, layout):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(layout)
    plan.set_alloc_time(
        h5py.h5d.ALLOC_TIME_DEFAULT if layout == h5py.h5d.COMPACT else h5py.h5d.ALLOC_TIME_LATE
    )
    h5py.h5d.create(file.id, b"counts", h5py.h5t.STD_I64LE, h5py.h5s.create_simple(shape), plan)


def attribute_of_a_dataset(file, array):
    file["counts"] = array
    file["counts"].attrs["x"] = 1


def attribute_of_the_file(file, array):
    file["counts"] = array
    file.attrs["x"] = 1


def extra_dataset(file, array):
    file["counts"] = array
    file["extra"] = array


def extra_group(file, array):
    file["counts"] = array
    file.create_group("extra")


ATTACKS = {
    "soft link": (soft_link, "link"),
    "external link": (external_link, "link"),
    "external": (external, "external"),
    "virtual": (virtual, "virtual"),
    "compressed": (lambda f, a: f.create_dataset("counts", data=a, compression="gzip"), "filtered"),
    "chunked": (lambda f, a: f.create_dataset("counts", data=a, chunks=(2,)), "chunked"),
    "compact": (lambda f, a: low_level(f, a.shape, h5py.h5d.COMPACT), "chunked"),
    "unallocated": (lambda f, a: low_level(f, a.shape, h5py.h5d.CONTIGUOUS), "do not lie in this file"),
    "group": (lambda f, a: f.create_group("counts"), "not a dataset"),
    "named type": (lambda f, a: f.__setitem__("counts", np.dtype("<i8")), "not a dataset"),
    "nothing": (lambda f, a: f.create_dataset("counts", data=h5py.Empty("<i8")), "shape None"),
    "big-endian": (lambda f, a: f.create_dataset("counts", data=a, dtype=">i8"), "another type"),
    "double": (lambda f, a: f.create_dataset("counts", data=a.astype("<f8")), "another type"),
    "strings": (lambda f, a: f.create_dataset("counts", a.shape, h5py.string_dtype()), "another type"),
    "references": (lambda f, a: f.create_dataset("counts", a.shape, h5py.ref_dtype), "another type"),
    "reshaped": (lambda f, a: f.create_dataset("counts", data=a[:-1]), "has shape"),
    "other values": (lambda f, a: f.create_dataset("counts", data=a + 1), "not those that were written"),
    "missing": (lambda f, a: None, r"\['counts'\] missing or too many"),
    "extra dataset": (extra_dataset, r"\['extra'\] missing or too many"),
    "extra group": (extra_group, r"\['extra'\] missing or too many"),
    "attribute of a dataset": (attribute_of_a_dataset, "'counts' has attributes"),
    "attribute of the file": (attribute_of_the_file, "attributes or the list of tensors"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_forged_contents_are_refused(saved, attack):
    make, message = ATTACKS[attack]
    with h5py.File(saved, "r+") as file:
        del file["counts"]
        make(file, TENSORS["counts"])
    with pytest.raises(ModelError, match=message):
        read(saved)


def rewrite_metadata(file, change):
    """Change the metadata and everything that vouches for it, as a careful forger would."""
    metadata = json.loads(file["metadata"][...].tobytes())
    change(metadata)
    text = canonical_json(metadata)
    del file["metadata"]
    file["metadata"] = np.frombuffer(text, "u1")
    file["metadata_sha256"][...] = np.frombuffer(hashlib.sha256(text).digest(), "u1")


METADATA_ATTACKS = {
    "newer": (lambda m: m.update(format_version=4), "format version 4.* reads 3: upgrade"),
    "version of another type": (lambda m: m.update(format_version=3.0), "format version 3.0"),
    "no digests": (lambda m: m.pop("tensors"), "has the fields"),
    "digests of another type": (lambda m: m.update(tensors=[]), "'tensors' of its metadata is a list"),
    "unlisted tensor": (lambda m: m["tensors"].pop("counts"), "the list of tensors"),
    "no shapes": (lambda m: m.pop("shapes"), "no shapes"),
    "shapes of another type": (lambda m: m.update(shapes=[]), "no shapes"),
    "unlisted shape": (lambda m: m["shapes"].pop("counts"), r"\['counts'\] missing or too many"),
    "no list": (lambda m: m["shapes"].update(counts=5), "'counts' the shape 5"),
    "negative": (lambda m: m["shapes"].update(counts=[-5]), "'counts' the shape"),
    "no number": (lambda m: m["shapes"].update(counts=[True]), "'counts' the shape"),
    "other shape": (lambda m: m["shapes"].update(counts=[1 << 60]), "has shape"),
}


@pytest.mark.parametrize("attack", METADATA_ATTACKS)
def test_forged_metadata_is_refused(saved, attack):
    change, message = METADATA_ATTACKS[attack]
    with h5py.File(saved, "r+") as file:
        rewrite_metadata(file, change)
    with pytest.raises(ModelError, match=message):
        read(saved)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 32, 1 << 27)])
def test_a_huge_dataset_is_refused_before_it_is_allocated(saved, shape):
    with h5py.File(saved, "r+") as file:
        del file["counts"]
        low_level(file, shape, h5py.h5d.CONTIGUOUS)
        rewrite_metadata(file, lambda m: m["shapes"].update(counts=list(shape)))
    with pytest.raises(ModelError, match="do not lie in this file"):
        read(saved)


def test_one_dataset_under_many_names_is_refused(saved):
    """Each lies in the file; together they would take any memory."""
    names = [f"copy{number}" for number in range(40)]
    big = np.zeros(50_000, "u1")

    def list_them(metadata):
        for name in names:
            metadata["shapes"][name] = [len(big)]
            metadata["tensors"][name] = hashlib.sha256(big).hexdigest()

    with h5py.File(saved, "r+") as file:
        file[names[0]] = big
        for name in names[1:]:
            file[name] = file[names[0]]
        rewrite_metadata(file, list_them)
    with pytest.raises(ModelError, match="overlap"):
        read(saved)


def test_a_name_that_cannot_be_written_is_not_read(saved):
    def list_it(metadata):
        metadata["shapes"]["a b"] = [1]
        metadata["tensors"]["a b"] = hashlib.sha256(b"x").hexdigest()

    with h5py.File(saved, "r+") as file:
        file["a b"] = np.frombuffer(b"x", "u1")
        rewrite_metadata(file, list_it)
    with pytest.raises(ModelError, match="'a b' is no name of a tensor"):
        read(saved)


def test_deeply_nested_metadata_is_refused(saved):
    text = b"[" * 200_000
    with h5py.File(saved, "r+") as file:
        del file["metadata"]
        file["metadata"] = np.frombuffer(text, "u1")
        file["metadata_sha256"][...] = np.frombuffer(hashlib.sha256(text).digest(), "u1")
    with pytest.raises(ModelError, match="nested"):
        read(saved)
