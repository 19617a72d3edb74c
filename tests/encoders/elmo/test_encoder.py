"""The encoder by its public door: specifications, layers, recipes, shapes, and how far batches may matter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.encoders.base import Encoder
from featurestore.encoders.elmo.encoder import BATCH_INVARIANCE
from featurestore.encoders.elmo.files.layers import parse_layers
from featurestore.encoders.elmo.model.linear import PrepackedLinear, prepacking_works
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder
from featurestore.errors import (
    EncoderError,
    EncoderOutOfMemory,
    SentenceError,
    UnknownEncoderError,
    UsageError,
    WeightsError,
)
from tests.kit.elmo import GOLDEN, GOLDEN_SPEC, differences, golden_sentences, golden_vectors

SENTENCES = [tuple(sentence) for sentence in golden_sentences()]
OPTIONS = GOLDEN / "options.json"
UNTRAINED = f"elmo:untrained:{OPTIONS}?seed=3"


def relative_l2(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def rows_are_multiplied_alike(dtype):
    """Whether products of this processor's are the same for a row whatever rows come with it."""
    if not prepacking_works(dtype):
        return False
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(200, 4096, generator=generator), torch.randn(64, 4096, generator=generator)
    rows, product = rows.to(dtype), PrepackedLinear(weight.to(dtype))
    together = product(rows)
    return all(torch.equal(product(rows[:n]), together[:n]) for n in (1, 2, 3, 8, 31, 64, 100))


class TestLayers:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("average", "average"),
            ("top", [2]),
            ("all", [0, 1, 2]),
            ("0,2", [0, 2]),
            ("2, 0", [2, 0]),
            ("1", [1]),
        ],
    )
    def test_canonical_form(self, text, canonical):
        assert parse_layers(text, 3) == canonical

    @pytest.mark.parametrize("text", ["", "3", "-1", "0,0", "0,", "first", "0-2", "1.0", "²", "9" * 40])
    def test_nonsense_says_what_is_valid(self, text):
        with pytest.raises(UsageError, match="from 0 to 2"):
            parse_layers(text, 3)

    def test_served_in_the_order_asked_for(self):
        reference = golden_vectors("stateless_padded_batch.hdf5")
        for layers, expected in {
            "all": [vectors.transpose(1, 0, 2) for vectors in reference],
            "2,0": [vectors[[2, 0]].transpose(1, 0, 2) for vectors in reference],
            "top": [vectors[2] for vectors in reference],
            "0": [vectors[0] for vectors in reference],
            "average": [vectors.mean(0) for vectors in reference],
        }.items():
            encoder = load_encoder(GOLDEN_SPEC, layers=layers)
            ours = encoder.encode(SENTENCES)
            assert differences(ours, expected)[0] < 2e-4
            assert encoder.n_layers == (1 if ours[0].ndim == 2 else ours[0].shape[1])
            assert {vectors.dtype for vectors in ours} == {np.dtype(np.float32)}


class TestRecipe:
    def test_fields(self):
        recipe = load_encoder(GOLDEN_SPEC, layers="top").recipe
        assert recipe.to_dict() == {
            "kind": "elmo",
            "version": 1,
            "weights_sha256": hashlib.sha256((GOLDEN / "weights.hdf5").read_bytes()).hexdigest(),
            "options_sha256": recipe["options_sha256"],
            "layers": [2],
            "initial_state": "zero",
            "precision": "float32",
        }

    def test_says_nothing_of_paths(self, tmp_path):
        for name in ("options.json", "weights.hdf5"):
            (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
        moved = load_encoder(f"elmo:{tmp_path / 'options.json'},{tmp_path / 'weights.hdf5'}")
        assert moved.recipe == load_encoder(GOLDEN_SPEC).recipe
        assert moved.spec != GOLDEN_SPEC

    def test_spec_loads_the_same_again_from_anywhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(GOLDEN)
        encoder = load_encoder("elmo:options.json,weights.hdf5")
        monkeypatch.chdir(tmp_path)
        assert load_encoder(encoder.spec).recipe == encoder.recipe
        untrained = load_encoder(UNTRAINED)
        assert load_encoder(untrained.spec).recipe == untrained.recipe

    def test_every_choice_shows(self):
        choices = [
            {"spec": GOLDEN_SPEC},
            {"spec": GOLDEN_SPEC, "layers": "top"},
            {"spec": GOLDEN_SPEC, "precision": "bfloat16"},
            {"spec": UNTRAINED},
            {"spec": UNTRAINED.replace("seed=3", "seed=4")},
        ]
        fingerprints = {load_encoder(**choice).recipe.fingerprint for choice in choices}
        assert len(fingerprints) == len(choices)

    def test_fingerprints_of_existing_stores_stay(self):
        """As the first release of the format wrote them: another value here makes every store useless."""
        assert encoder_recipe(GOLDEN_SPEC).fingerprint == (
            "8c64e63319be30dd1442ae8c7580d85db7cdac502ff369f97868061edccd1da0"
        )
        untrained = encoder_recipe("elmo:untrained-small?seed=0", layers="top", precision="float16")
        assert untrained.fingerprint == "90c8c19224c24b7326d08e519e45c4a5f046ecddaac099b4979f669389a32b46"

    @pytest.mark.parametrize("spec", [GOLDEN_SPEC, UNTRAINED])
    def test_known_without_the_network(self, spec):
        assert encoder_recipe(spec, layers="0,2") == load_encoder(spec, layers="0,2").recipe


class TestBatchInvariance:
    """The stated bound, and that it is not hollow: different sentences differ by far more."""

    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    @pytest.mark.parametrize("layers", ["average", "top"])
    def test_alone_or_in_any_company(self, precision, layers):
        encoder = load_encoder(GOLDEN_SPEC, layers=layers, precision=precision)
        alone = [encoder.encode([sentence])[0] for sentence in SENTENCES]
        bound = BATCH_INVARIANCE[precision]

        @settings(max_examples=25, deadline=None)
        @given(st.lists(st.integers(0, len(SENTENCES) - 1), min_size=1, max_size=60))
        def check(numbers):
            together = encoder.encode([SENTENCES[number] for number in numbers])
            for number, vectors in zip(numbers, together, strict=True):
                assert relative_l2(vectors, alone[number]) < bound

        check()
        assert relative_l2(alone[0][:4], alone[3]) > 10 * bound

    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    def test_to_the_bit_where_products_are(self, precision):
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        if not rows_are_multiplied_alike(dtype):
            pytest.skip("this processor adds up the products of a row in another order beside other rows")
        encoder = load_encoder(GOLDEN_SPEC, layers="all", precision=precision)
        alone = [encoder.encode([sentence])[0] for sentence in SENTENCES]
        encoder.forget_types()
        torch.set_num_threads(2)
        try:
            together = encoder.encode(SENTENCES[::-1] * 7)
        finally:
            torch.set_num_threads(1)
        for ours, theirs in zip(together, alone[::-1] * 7, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_bit_equal_in_another_process(self, tmp_path):
        program = (
            "import sys, numpy as np\n"
            "import torch; torch.set_num_threads(1)\n"
            "from featurestore.encoders.loading import load_encoder\n"
            f"vectors = load_encoder({UNTRAINED!r}).encode({SENTENCES!r})\n"
            "np.save(sys.argv[1], np.concatenate(vectors))\n"
        )
        results = []
        for number, hash_seed in enumerate(("1", "2")):
            path = tmp_path / f"{number}.npy"
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
            subprocess.run(
                [sys.executable, "-c", program, str(path)], check=True, env=environment, timeout=120
            )
            results.append(np.load(path))
        np.testing.assert_array_equal(results[0], results[1])
        assert np.abs(results[0]).max() > 0

    def test_the_programs_own_matmul_setting_changes_nothing(self):
        encoder = load_encoder(GOLDEN_SPEC)
        before = encoder.encode(SENTENCES)
        torch.set_float32_matmul_precision("medium")
        try:
            after = encoder.encode(SENTENCES)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision("highest")
        for ours, theirs in zip(before, after, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.02), ("float16", 0.004)])
def test_sixteen_bit_precisions_stay_near_float32(precision, bound):
    ours = load_encoder(GOLDEN_SPEC, layers="all", precision=precision).encode(SENTENCES)
    truth = [v.transpose(1, 0, 2) for v in golden_vectors("stateless_single_fp64.hdf5")]
    _, relative = differences(ours, truth)
    assert 1e-5 < relative < bound


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_gpu_agrees_with_cpu(precision):
    gpu, cpu = (
        load_encoder(GOLDEN_SPEC, layers="all", precision=precision, device=d) for d in ("cuda", "cpu")
    )
    pending = [gpu.submit(SENTENCES[:20]), gpu.submit(SENTENCES[20:])]
    ours = [vectors for part in pending for vectors in part.result()]
    assert gpu.recipe == cpu.recipe
    bound = {"float32": 1e-5, "float16": 0.004, "bfloat16": 0.02}[precision]
    assert differences(ours, cpu.encode(SENTENCES))[1] < bound


def test_protocol_and_shapes():
    encoder = load_encoder(GOLDEN_SPEC)
    assert isinstance(encoder, Encoder)
    assert (encoder.dim, encoder.n_layers, encoder.device) == (32, 1, "cpu")
    assert encoder.token_budget >= 4096
    pending = encoder.submit(SENTENCES[:3])
    assert [v.shape for v in pending.result()] == [(len(s), 32) for s in SENTENCES[:3]]
    assert encoder.encode([]) == []


def test_outline_agrees_with_the_encoder():
    for spec in (GOLDEN_SPEC, UNTRAINED):
        for layers in ("average", "all", "0,2", "top"):
            outline, encoder = outline_encoder(spec, layers=layers), load_encoder(spec, layers=layers)
            assert (outline.dim, outline.n_layers) == (encoder.dim, encoder.n_layers)
            assert outline.megaflops_per_token > 0
    dims = {"small": 256, "medium": 512, "original": 1024, "original-5.5b": 1024, "portuguese": 1024}
    dims |= {"pubmed": 1024, "untrained-small": 256, "untrained-original?seed=4": 1024}
    dims |= {"untrained-demo": 1024}
    for name, dim in dims.items():
        assert outline_encoder(f"elmo:{name}").dim == dim


def test_outline_needs_no_torch():
    program = (
        "import sys; from featurestore.encoders.loading import outline_encoder, encoder_recipe\n"
        f"outline_encoder('elmo:original'); outline_encoder({GOLDEN_SPEC!r})\n"
        f"encoder_recipe({GOLDEN_SPEC!r})\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    "spec",
    ["elmo:huge", "elmo:", "elmo:Small", "elmo:untrained-huge", "bert:x", "elmo:small#md5=1", "elmo:small#",
     "elmo:untrained-small?seed=x", "elmo:untrained-small?seed=-1", "elmo:untrained-small?sead=1",
     "elmo:untrained:", "elmo:,", "elmo:a.json,", "elmo:a,b,c"],
)  # fmt: skip
def test_nonsense_specifications(spec):
    for door in (load_encoder, outline_encoder):
        with pytest.raises(UsageError):
            door(spec)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownEncoderError, match=r"original-5\.5b"):
        load_encoder("elmo:huge")


def test_arguments_that_make_no_sense():
    with pytest.raises(UsageError, match="float16"):
        load_encoder(GOLDEN_SPEC, precision="float8")
    with pytest.raises(UsageError, match="cuda"):
        load_encoder(GOLDEN_SPEC, device="abacus")
    with pytest.raises(UsageError, match="supported"):
        load_encoder(GOLDEN_SPEC, device="meta")
    with pytest.raises(UsageError, match="depend on everything encoded before"):
        load_encoder(GOLDEN_SPEC, initial_state="carry")
    with pytest.raises(UsageError, match="auto, zero, warm"):
        load_encoder(GOLDEN_SPEC, initial_state="hot")
    with pytest.raises(UsageError, match="untrained"):
        load_encoder(UNTRAINED, initial_state="warm")
    with pytest.raises(UsageError, match="cuda:99"):
        load_encoder(GOLDEN_SPEC, device="cuda:99")


def test_files_that_do_not_belong_together(tmp_path):
    fields = json.loads(OPTIONS.read_text(encoding="utf-8"))
    fields["lstm"]["dim"] = 32
    other = tmp_path / "options.json"
    other.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"W_0.*\(32, 128\).*\(32, 256\)"):
        load_encoder(f"elmo:{other},{GOLDEN / 'weights.hdf5'}")


@pytest.mark.parametrize("sentence", [(), ("a", ""), "text", ("a", 3)])
def test_sentences_that_are_none(sentence):
    with pytest.raises(SentenceError):
        load_encoder(GOLDEN_SPEC).encode([("fine",), sentence])


def test_out_of_memory_is_ours(tmp_path):
    """A model whose gates for one batch exceed any address space: the real allocator refuses."""
    resource = pytest.importorskip("resource")
    program = (
        "import resource, torch\n"
        "from featurestore.encoders.loading import load_encoder\n"
        "from featurestore.errors import EncoderOutOfMemory\n"
        f"encoder = load_encoder({UNTRAINED!r}, layers='all')\n"
        "encoder.encode([('a',)])\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))\n"
        "try:\n"
        "    encoder.encode([('a',) * 100] * 20_000)\n"
        "except EncoderOutOfMemory as error:\n"
        "    assert '2,000,000 tokens' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    if not os.path.exists("/proc/self/statm") or resource is None:
        pytest.skip("needs /proc")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120, cwd=tmp_path)
    assert issubclass(EncoderOutOfMemory, EncoderError)
