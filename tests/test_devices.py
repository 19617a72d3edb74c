"""Devices by name, and the precision that each multiplies fast."""

from __future__ import annotations

import pytest
import torch

from featurestore.devices import choose_device, out_of_memory_as_ours, training_precision
from featurestore.errors import EncoderOutOfMemory, UsageError


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("meta", "cuda:99", "toaster"):
        with pytest.raises(UsageError, match=name):
            choose_device(name)


def test_auto_precision_is_bfloat16_only_where_the_hardware_multiplies_it(monkeypatch):
    cpu = torch.device("cpu")
    for found, expected in [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert training_precision("auto", cpu) == expected
    assert training_precision("bfloat16", cpu) == "bfloat16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert training_precision("auto", cpu) == "float32"


@pytest.mark.parametrize("raised", [MemoryError("no"), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_is_ours_and_says_what_to_do(raised):
    with (
        pytest.raises(EncoderOutOfMemory, match=r"a batch does not fit .* Use fewer"),
        out_of_memory_as_ours("a batch", "Use fewer"),
    ):
        raise raised


def test_a_real_allocation_that_fails():
    with pytest.raises(EncoderOutOfMemory), out_of_memory_as_ours("a tensor", "Use less"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="another"), out_of_memory_as_ours("a batch", "Use fewer"):
        raise RuntimeError("another")
