"""The compiled LSTM: what torch.nn.LSTM computes, and autograd's gradients of it, on ragged batches."""

from __future__ import annotations

import pickle

import pytest
import torch

from featurestore import native
from featurestore.models.heads import HeadConfig, build_head
from featurestore.models.recurrent.bilstm import BiLSTM
from featurestore.models.recurrent.compiled import CompiledLstm, Inputs, compiled_lstm


@pytest.fixture
def lstm() -> CompiledLstm:
    found = compiled_lstm()
    if found is None:
        pytest.skip("lstm.c was not compiled here, or not for this processor")
    return found


# Sentences, dimensions, units; none of the sizes need be whole vectors of sixteen. The last two have more
# tokens than are added up at once without dropout, in many sentences and in one.
SHAPES = [([1], 1, 1), ([3, 1, 7, 1, 2], 5, 4), ([9] * 13, 64, 32), ([2, 30, 17], 70, 50), ([1] * 40, 33, 70),
          ([25] * 11, 20, 16), ([2001], 20, 16)]  # fmt: skip


def case(lengths: list[int], dim: int, hidden: int, *, dropout: float, plain: bool = False):
    """Return a module and what it reads; padding is junk."""
    torch.manual_seed(dim + hidden)
    module = BiLSTM(dim, hidden)
    features = torch.randn(len(lengths), max(lengths), dim)
    features[torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)] = 50.0
    factors = (torch.rand(len(lengths), dim) >= dropout) / (1 - dropout) if dropout else None
    mean, scale = (None, None) if plain else (torch.randn(dim), torch.rand(dim) + 0.5)
    return module, Inputs(features, torch.tensor(lengths), mean, scale, factors)


def results(run, inputs: Inputs, module: BiLSTM, *, of: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return outputs where there are tokens, states, and the gradients of a weighted sum of some of them."""
    features = inputs.features.to(dtype, copy=True).requires_grad_()
    others = (t if t is None else t.to(dtype) for t in (inputs.mean, inputs.scale, inputs.factors))
    outputs, states = run(Inputs(features, inputs.lengths, *others))
    mask = torch.arange(outputs.shape[1]) < inputs.lengths.unsqueeze(1)
    generator = torch.Generator().manual_seed(1)
    loss = outputs.new_zeros(())
    for name, part in (("outputs", outputs[mask]), ("states", states)):
        weights = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(dtype)
        loss = loss + (part * weights).sum() * (name in of)
    wanted = [features, *module.parameters()]
    names = ["features", *dict(module.named_parameters())]
    gradients = dict(zip(names, torch.autograd.grad(loss, wanted), strict=True))
    return {"outputs": outputs[mask].detach(), "states": states.detach(), **gradients}


def furthest(found, expected) -> float:
    """Return the largest difference, relative to the largest value of its tensor."""
    return max(
        float((found[name].double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30))
        for name, exact in expected.items()
    )


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("of", ["outputs", "states", "outputs and states"])
def test_float32_is_torchs_in_float64_but_for_rounding(lstm, monkeypatch, of, dropout, narrow):
    if narrow:
        monkeypatch.setattr(lstm, "narrow", True)
    for shape in SHAPES:
        module, inputs = case(*shape, dropout=dropout, plain=of == "states")
        found = results(module, inputs, module, of=of, dtype=torch.float32)
        exact = by_torch_in_float64(module, inputs, of)
        assert furthest(found, exact) < 2e-5, shape


def by_torch_in_float64(module: BiLSTM, inputs: Inputs, of: str) -> dict[str, torch.Tensor]:
    """Return what torch.nn.LSTM gives for a packed sequence."""
    double = BiLSTM(module.lstm.input_size, module.lstm.hidden_size).double()
    double.load_state_dict(module.state_dict())

    def run(given: Inputs):
        return double._packed(given.read(), given.lengths)

    return results(run, inputs, double, of=of, dtype=torch.float64)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_bfloat16_is_no_further_from_float64_than_torchs(lstm, monkeypatch, dropout):
    far: dict[str, list[float]] = {"1": [], "0": []}
    for shape in SHAPES:
        module, inputs = case(*shape, dropout=dropout)
        weights = list(module.parameters())
        if not lstm.takes(inputs, weights, torch.bfloat16):
            pytest.skip("this processor does not multiply bfloat16")
        exact = by_torch_in_float64(module, inputs, "outputs and states")
        for switch, found in far.items():
            monkeypatch.setenv(native.SWITCH, switch)
            run = results(
                lambda given, module=module: module(given, torch.bfloat16), inputs, module,
                of="outputs and states", dtype=torch.float32,
            )  # fmt: skip
            found.append(furthest(run, exact))
    assert max(far["1"]) < 1.5 * max(far["0"])
    assert max(far["1"]) < 0.1


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(lstm, products):
    module, inputs = case([2, 30, 17, 5, 5, 9, 9, 1, 12], 70, 50, dropout=0.5)
    if not lstm.takes(inputs, list(module.parameters()), products):
        pytest.skip("this processor does not multiply bfloat16")
    before, runs = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 16):
            torch.set_num_threads(n_threads)
            runs.append(
                results(lambda i: module(i, products), inputs, module, of="outputs", dtype=torch.float32)
            )
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(run[name], first) for name, first in runs[0].items())


def test_a_sentence_has_the_same_bits_alone_and_in_a_batch(lstm):
    module, inputs = case([2, 30, 17, 5], 70, 50, dropout=0.0)
    outputs, states = module(inputs)
    for row, n in enumerate([2, 30, 17, 5]):
        one = slice(row, row + 1)
        alone = module(Inputs(inputs.features[one, :n], inputs.lengths[one], inputs.mean, inputs.scale))
        assert torch.equal(outputs[row, :n], alone[0][0])
        assert torch.equal(states[row], alone[1][0])
        assert not outputs[row, n:].any()


def test_batches_in_flight_keep_their_own_memory(lstm):
    """Two forward passes, then their gradients, twice: as a user of gradient accumulation might."""
    module, first = case([60] * 9, 70, 50, dropout=0.5)
    second = Inputs(first.features * 2, first.lengths, first.mean, first.scale, first.factors)
    expected = [
        results(module, i, module, of="outputs", dtype=torch.float32)["outputs"] for i in (first, second)
    ]
    losses = []
    for inputs in (first, second):
        outputs, _ = module(inputs)
        assert torch.equal(outputs.flatten(0, 1), expected[len(losses)])
        losses.append(outputs.square().sum())
    weights = list(module.parameters())
    once = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
    again = [torch.autograd.grad(loss, weights) for loss in losses]
    for one, other in zip(once, again, strict=True):
        assert all(map(torch.equal, one, other))
    assert not torch.equal(once[0][0], once[1][0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(losses[0], weights)


def test_what_is_not_compiled_torch_computes(lstm):
    module, inputs = case([3, 2], 6, 4, dropout=0.0)
    weights = list(module.parameters())
    assert lstm.takes(inputs, weights, torch.float32)
    assert not lstm.takes(inputs, weights, torch.float16)
    double = Inputs(inputs.features.double(), inputs.lengths)
    assert not lstm.takes(double, [w.double() for w in weights], torch.float32)
    assert module.double()(double)[0].dtype == torch.float32
    for lengths in ([3, 0], [3, 4], [3], []):
        assert not lstm.takes(Inputs(inputs.features, torch.tensor(lengths)), weights, torch.float32)


def test_the_switch_does_without_it(lstm, monkeypatch):
    module, inputs = case([3, 2], 6, 4, dropout=0.5)
    compiled = module(inputs)
    monkeypatch.setenv(native.SWITCH, "0")
    plain = module(inputs)
    assert not torch.equal(compiled[1], plain[1]) or not torch.equal(compiled[0], plain[0])
    torch.testing.assert_close(compiled[1], plain[1])


def test_a_head_is_copied_and_pickled_as_before(lstm):
    head = build_head("bilstm-tagger", HeadConfig(dim=6, n_labels=3, hidden=4)).eval()
    inputs = torch.randn(2, 5, 6), torch.tensor([5, 3]), torch.ones(2, 5, dtype=torch.bool)
    expected = head(*inputs)
    assert torch.equal(pickle.loads(pickle.dumps(head))(*inputs), expected)
    assert [name for name in head.state_dict() if "encoder" in name] == [
        f"encoder.lstm.{kind}_{part}_l0{end}"
        for end in ("", "_reverse")
        for kind in ("weight", "bias")
        for part in ("ih", "hh")
    ]
