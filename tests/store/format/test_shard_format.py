"""A shard is plain HDF5: readable by any tool, the same bytes every time, and nothing else is let in."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurestore import limits
from featurestore.errors import DamagedStoreError, StoreError
from featurestore.keys import sentence_key
from featurestore.store.format.codec import get_codec
from featurestore.store.format.layout import ALIGNMENT, STRUCTURE
from featurestore.store.format.shard import ShardDraft
from featurestore.store.format.structure import inspect, lay_out
from tests.kit.programs import environment
from tests.kit.stores import RECIPE, create, fill, sentence, sentences, shard_path, vectors_of


def filled_draft(order: list[int], *, codec: str = "float16", n: int = 6, n_layers: int = 1) -> ShardDraft:
    """Return a full draft of n sentences whose vectors were put in the given order."""
    draft = ShardDraft(sentences(n), dim=8, n_layers=n_layers, codec=get_codec(codec))
    for position in order:
        draft.put(position, vectors_of(sentence(position), n_layers=n_layers))
    return draft


def test_plain_h5py_reads_a_shard(tmp_path):
    store = fill(create(tmp_path / "store.fs"), [("the", "cat"), ("naïve", "😀", "!")])
    with h5py.File(shard_path(store)) as shard:
        start, stop = shard["offsets"][1:3]
        vectors = shard["values"][start:stop]
        edges = shard["token_offsets"][start : stop + 1]
        text = bytes(shard["tokens"])
        tokens = [text[a:b].decode() for a, b in itertools.pairwise(edges)]
        key = bytes(shard["keys"][1])
        assert shard.attrs["format"] == b"featurestore shard"
        assert shard.attrs["format_version"] == 1
        assert shard.attrs["fingerprint"].decode() == store.fingerprint
        assert shard.attrs["codec"] == b"float32"
    assert tokens == ["naïve", "😀", "!"]
    np.testing.assert_array_equal(vectors, vectors_of(("naïve", "😀", "!")))
    assert key == sentence_key(tokens)


def test_plain_h5py_decodes_int8(tmp_path):
    store = fill(create(tmp_path / "store.fs", codec="int8", n_layers=2), sentences(4))
    with h5py.File(shard_path(store)) as shard:
        vectors = shard["values"][:] * shard["scales"][:][..., None] * shard["norms"][:]
    np.testing.assert_allclose(vectors, np.concatenate([v for _, v in store]), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 40, 300], ids=lambda n: f"{n} sentences")
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_datasets_are_contiguous_little_endian_unfiltered_and_values_aligned(tmp_path, codec, n):
    store = fill(create(tmp_path / "store.fs", codec=codec, shard_bytes=1 << 20), sentences(n))
    path = shard_path(store)
    with h5py.File(path) as shard:
        extra = {"scales", "norms"} if codec == "int8" else set()
        assert set(shard) == {*STRUCTURE, "values"} | extra
        for name, dataset in shard.items():
            plan = dataset.id.get_create_plist()
            assert plan.get_layout() == h5py.h5d.CONTIGUOUS, name
            assert plan.get_nfilters() == 0, name
            assert dataset.dtype.newbyteorder("<") == dataset.dtype, name
        values = shard["values"]
        assert values.id.get_offset() % ALIGNMENT == 0
        assert values.id.get_offset() + values.nbytes == path.stat().st_size


def test_hdf5_and_the_manifest_agree_on_where_everything_lies(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(50))
    for number, entry in enumerate(store.manifest.shards):
        fingerprint, codec, extents = inspect(shard_path(store, number))
        assert (fingerprint, codec) == (store.fingerprint, entry.codec)
        assert extents == dict(entry.extents)


# -- identical input, identical bytes


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_order_in_which_vectors_arrive_does_not_show(codec):
    one = filled_draft([0, 1, 2, 3, 4, 5], codec=codec).seal("f" * 64)
    other = filled_draft([5, 3, 1, 0, 2, 4], codec=codec).seal("f" * 64)
    assert one.entry.sha256 == other.entry.sha256
    assert one.head == other.head
    assert one.values.tobytes() == other.values.tobytes()


def test_subset_of_a_draft_is_the_shard_of_those_sentences():
    subset = filled_draft([0, 1, 2, 3, 4, 5]).subset([0, 1, 2]).seal("f" * 64)
    assert subset.entry.sha256 == filled_draft([2, 0, 1], n=3).seal("f" * 64).entry.sha256


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_two_processes_write_the_same_bytes(tmp_path, codec):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.kit.stores import create, fill, sentences\n"
        "fill(create(Path(sys.argv[1]), codec=sys.argv[2]), sentences(40))"
    )
    for name in ("one.fs", "other.fs"):
        command = [sys.executable, "-c", code, str(tmp_path / name), codec]
        subprocess.run(command, env=environment(), check=True)
    one, other = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "shards").iterdir()} for n in ("one.fs", "other.fs")
    )
    assert len(one) > 1
    assert one == other


@pytest.mark.skipif(h5py.version.hdf5_version != "2.0.0", reason="bytes are promised for one HDF5 version")
@pytest.mark.parametrize(
    ("codec", "n_layers", "digest"),
    [
        ("float32", 1, "2657c9936cc135dfc889a22894c9ad0f98acf1940a6ff52f150feae4bcb59866"),
        ("float32", 2, "1abbbd7738e1aad8e13bd37003c3577fa82c0a1b5bcb399f344564d19a723b01"),
        ("float16", 1, "99e89d221c0a315c2b60da19ad7727255f53964dc439bcf66b867515051c05b0"),
        ("float16", 2, "b4afb3b9e2f2205551797182f5634351b4f1ffdbc8c453ec93ac2fc6f8d42981"),
        ("int8", 1, "bcbca294cc35f78d2ed85e68424282d42f3a5d1814228e0b7c7130458e94841d"),
        ("int8", 2, "a43fff1da144ff77235bc6dad86020bfae97a555e3e3cd2b37d41369c97a2d87"),
    ],
)
def test_bytes_of_a_shard_never_change(codec, n_layers, digest):
    listed = [("a",), ("The", "cat", "sat", "."), ("naïve", "😀")]
    draft = ShardDraft(listed, dim=8, n_layers=n_layers, codec=get_codec(codec))
    for position, tokens in enumerate(listed):
        shape = (len(tokens), 8) if n_layers == 1 else (len(tokens), n_layers, 8)
        # Sums of these are exact, so that no order of adding shows.
        draft.put(position, (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + position) / 8)
    assert draft.seal("f" * 64).entry.sha256 == digest


def test_other_recipe_makes_another_shard():
    draft = filled_draft([0, 1, 2, 3, 4, 5])
    assert draft.seal("a" * 64).entry.sha256 != draft.seal("b" * 64).entry.sha256


# -- drafts that cannot be sealed


def test_draft_without_all_vectors_is_not_sealed():
    draft = filled_draft([0, 2])
    with pytest.raises(StoreError, match="no vectors yet for 's1 the'"):
        draft.seal(RECIPE.fingerprint)


def test_empty_draft_is_not_sealed():
    with pytest.raises(StoreError, match="at least one sentence"):
        filled_draft([], n=0).seal(RECIPE.fingerprint)


def test_draft_refuses_vectors_of_another_shape():
    with pytest.raises(StoreError, match=r"shape \(3, 8\) for sentence 1 of the shard, expected \(2, 8\)"):
        filled_draft([]).put(1, np.zeros((3, 8), np.float32))


# -- the allow list


@pytest.fixture
def shard(tmp_path) -> Path:
    """A copy of a sound shard, outside its store."""
    store = fill(create(tmp_path / "store.fs"), sentences(5))
    copy = tmp_path / "shard.h5"
    copy.write_bytes(shard_path(store).read_bytes())
    inspect(copy)
    return copy


def replace_tokens(shard: Path, **how) -> None:
    """Write the tokens dataset again, laid down in another way."""
    with h5py.File(shard, "r+") as file:
        tokens = file["tokens"][:]
        del file["tokens"]
        file.create_dataset("tokens", **{"data": tokens, **how})


def add_soft_link(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file["tokens"]
        file["tokens"] = h5py.SoftLink("/offsets")


def add_external_link(shard: Path) -> None:
    with h5py.File(shard.parent / "other.h5", "w") as other:
        other["tokens"] = np.zeros(3, np.uint8)
    with h5py.File(shard, "r+") as file:
        del file["tokens"]
        file["tokens"] = h5py.ExternalLink("other.h5", "/tokens")


def store_externally(shard: Path) -> None:
    raw = shard.parent / "raw.bin"
    raw.write_bytes(bytes(64))
    with h5py.File(shard, "r+") as file:
        del file["tokens"]
        file.create_dataset("tokens", (64,), "u1", external=[(str(raw), 0, 64)])


def make_virtual(shard: Path) -> None:
    layout = h5py.VirtualLayout((3,), "u1")
    with h5py.File(shard.parent / "source.h5", "w") as source:
        source["x"] = np.zeros(3, np.uint8)
    layout[:] = h5py.VirtualSource(str(shard.parent / "source.h5"), "x", shape=(3,))
    with h5py.File(shard, "r+") as file:
        del file["tokens"]
        file.create_virtual_dataset("tokens", layout)


def replace_with_group(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file["tokens"]
        file.create_group("tokens")


def add_dataset(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file["extra"] = np.zeros(3)


def drop_dataset(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file["checksums"]


def set_attribute(name: str, value: object):
    def change(shard: Path) -> None:
        with h5py.File(shard, "r+") as file:
            file.attrs[name] = value

    return change


def drop_attribute(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file.attrs["codec"]


def cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-8])


@pytest.mark.parametrize(
    "change",
    [
        add_dataset,
        drop_dataset,
        add_soft_link,
        add_external_link,
        store_externally,
        make_virtual,
        replace_with_group,
        lambda shard: replace_tokens(shard, chunks=(4,)),
        lambda shard: replace_tokens(shard, chunks=(4,), compression="gzip"),
        lambda shard: replace_tokens(shard, data=["a", "b"], dtype=h5py.string_dtype()),
        lambda shard: replace_tokens(shard, data=np.zeros(4, ">u2")),
        lambda shard: replace_tokens(shard, data=np.zeros(4, [("a", "u1"), ("b", "u1")])),
        lambda shard: replace_tokens(shard, data=h5py.Empty("u1")),
        lambda shard: replace_tokens(shard, data=None, shape=(1,), dtype=h5py.ref_dtype),
        set_attribute("format", np.bytes_(b"something else")),
        set_attribute("format", 7),
        set_attribute("format_version", np.uint32(2)),
        set_attribute("format_version", np.array([1, 2])),
        set_attribute("codec", np.bytes_(b"int4")),
        set_attribute("codec", "float32"),
        set_attribute("fingerprint", 3),
        drop_attribute,
        cut_short,
        lambda shard: shard.write_bytes(b"not HDF5 at all"),
        lambda shard: shard.write_bytes(b""),
        lambda shard: shard.unlink(),
    ],
    ids=[
        "extra dataset", "missing dataset", "soft link", "external link", "external storage", "virtual",
        "group", "chunked", "gzip", "variable-length strings", "big endian", "compound", "null space",
        "references", "other format", "format a number", "newer version", "version an array", "other codec",
        "codec a variable-length string", "fingerprint a number", "no codec", "cut", "text", "empty",
        "absent",
    ],
)  # fmt: skip
def test_inspect_refuses_what_no_shard_holds(shard, change):
    change(shard)
    with pytest.raises(DamagedStoreError, match=r"shard\.h5"):
        inspect(shard)


def test_structure_that_hdf5_would_put_after_the_values_is_refused():
    # Eight names fill a node of the file's table of names; the ninth, "values", makes another one.
    eight = {f"d{number}": np.zeros(3, "<u8") for number in range(8)}
    with pytest.raises(StoreError, match=r"structure up to byte .* values of 128 bytes at"):
        lay_out(eight, np.zeros((4, 8), "<f4"), "float32", RECIPE.fingerprint)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((9,), "no values of two or three dimensions"),
        ((9, limits.MAX_DIM + 1), f"vectors of {limits.MAX_DIM + 1:,} values"),
        ((9, limits.MAX_LAYERS + 1, 2), f"{limits.MAX_LAYERS + 1:,} layers"),
    ],
    ids=["one dimension", "too many values", "too many layers"],
)
def test_inspect_refuses_vectors_that_no_store_holds(tmp_path, shape, said):
    values = np.zeros(shape, "<f4")
    head, _ = lay_out({"offsets": np.arange(10, dtype="<u8")}, values, "float32", RECIPE.fingerprint)
    (tmp_path / "shard.h5").write_bytes(head + values.tobytes())
    with pytest.raises(DamagedStoreError, match=said):
        inspect(tmp_path / "shard.h5")
