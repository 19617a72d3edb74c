"""The LSTM layer with its hand-written gradient against plain automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from featurestore.pretraining.recurrence import lstm_layer

DIM, CELL, STEPS, STREAMS = 3, 5, 4, 6
NAMES = ("inputs", "weight", "bias", "projection")
CLIPS = [(None, None), (0.4, 0.15), (0.4, None), (None, 0.15)]


def reference(inputs, hidden, memory, weight, bias, projection, cell_clip, proj_clip):
    """The layer written as a textbook would; also whether each clip changed anything."""
    by_direction, ends, bites = [], [], [False, False]
    for direction in (0, 1):
        h, c = hidden[direction], memory[direction]
        outputs = []
        for x in inputs[direction]:
            gates = torch.cat([x, h], 1) @ weight[direction] + bias[direction]
            write, candidate, forget, expose = gates.split(CELL, 1)
            c = torch.sigmoid(forget + 1.0) * c + torch.sigmoid(write) * torch.tanh(candidate)
            if cell_clip is not None:
                bites[0] |= bool((c.abs() > cell_clip).any() and (c.abs() < cell_clip).any())
                c = c.clamp(-cell_clip, cell_clip)
            h = (torch.sigmoid(expose) * torch.tanh(c)) @ projection[direction]
            if proj_clip is not None:
                bites[1] |= bool((h.abs() > proj_clip).any() and (h.abs() < proj_clip).any())
                h = h.clamp(-proj_clip, proj_clip)
            outputs.append(h)
        by_direction.append(torch.stack(outputs))
        ends.append(c)
    assert bites == [cell_clip is not None, proj_clip is not None]
    return torch.stack(by_direction), torch.stack(ends)


@pytest.fixture
def layer():
    """Start state far from zero, and parameters that let the clips below bite."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "inputs": normal(2, STEPS, STREAMS, DIM).requires_grad_(),
        "hidden": normal(2, STREAMS, DIM),
        "memory": normal(2, STREAMS, CELL),
        "weight": normal(2, 2 * DIM, 4 * CELL).requires_grad_(),
        "bias": normal(2, 4 * CELL).requires_grad_(),
        "projection": normal(2, CELL, DIM).requires_grad_(),
    }


@pytest.mark.parametrize(("cell_clip", "proj_clip"), CLIPS)
def test_outputs_state_and_gradients_are_those_of_autograd(layer, cell_clip, proj_clip):
    outputs, hidden, memory = lstm_layer(**layer, cell_clip=cell_clip, proj_clip=proj_clip)
    expected, expected_memory = reference(**layer, cell_clip=cell_clip, proj_clip=proj_clip)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(memory, expected_memory.detach(), rtol=1e-12, atol=1e-13)
    assert torch.equal(hidden, outputs[:, -1])
    assert not hidden.requires_grad
    assert not memory.requires_grad

    arriving = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    leaves = [layer[name] for name in NAMES]
    ours = torch.autograd.grad(outputs, leaves, arriving)
    theirs = torch.autograd.grad(expected, leaves, arriving)
    for name, gradient, wanted in zip(NAMES, ours, theirs, strict=True):
        assert wanted.abs().max() > 1e-3, name
        torch.testing.assert_close(
            gradient, wanted, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("cell_clip", "proj_clip"), [CLIPS[0], CLIPS[1]])
def test_gradcheck(layer, cell_clip, proj_clip):
    small = {name: value.detach()[..., :] for name, value in layer.items()}
    small["inputs"], small["hidden"] = small["inputs"][:, :3, :2], small["hidden"][:, :2]
    small["memory"] = small["memory"][:, :2]
    leaves = [small[name].clone().requires_grad_() for name in NAMES]

    def outputs(inputs, weight, bias, projection):
        return lstm_layer(
            inputs, small["hidden"], small["memory"], weight, bias, projection,
            cell_clip=cell_clip, proj_clip=proj_clip,
        )[0]  # fmt: skip

    assert torch.autograd.gradcheck(outputs, leaves, fast_mode=True)


def test_two_chunks_are_one_longer_one(layer):
    whole, hidden, memory = lstm_layer(**layer, cell_clip=0.4, proj_clip=0.15)
    first = {**layer, "inputs": layer["inputs"][:, :1]}
    begun, between_hidden, between_memory = lstm_layer(**first, cell_clip=0.4, proj_clip=0.15)
    second = {**layer, "inputs": layer["inputs"][:, 1:], "hidden": between_hidden, "memory": between_memory}
    ended, end_hidden, end_memory = lstm_layer(**second, cell_clip=0.4, proj_clip=0.15)
    torch.testing.assert_close(torch.cat([begun, ended], 1), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(end_hidden, hidden, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(end_memory, memory, rtol=1e-12, atol=1e-13)


def test_directions_stay_apart(layer):
    outputs, _, _ = lstm_layer(**layer, cell_clip=None, proj_clip=None)
    (gradient,) = torch.autograd.grad(outputs[1].sum(), layer["weight"])
    assert not gradient[0].any()
    assert gradient[1].any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_lower_precisions_are_close(layer, dtype, tolerance):
    exact, _ = reference(**layer, cell_clip=1.5, proj_clip=0.9)
    arriving = torch.ones_like(exact)
    leaves = [layer[name] for name in NAMES]
    wanted = torch.autograd.grad(exact, leaves, arriving)

    # Parameters and state stay float32; the inputs' type decides the products'.
    low = {name: value.detach().float().requires_grad_(value.requires_grad) for name, value in layer.items()}
    low["inputs"] = low["inputs"].detach().to(dtype).requires_grad_()
    outputs, hidden, memory = lstm_layer(**low, cell_clip=1.5, proj_clip=0.9)
    assert (outputs.dtype, hidden.dtype, memory.dtype) == (dtype, dtype, torch.float32)
    outputs.backward(arriving.to(dtype))
    for name, found, expected in zip(
        ["outputs", *NAMES], [outputs, *(low[name].grad for name in NAMES)], [exact, *wanted], strict=True
    ):
        assert name in ("outputs", "inputs") or found.dtype == torch.float32
        difference = torch.linalg.vector_norm(found.double() - expected) / torch.linalg.vector_norm(expected)
        assert difference < tolerance, name
