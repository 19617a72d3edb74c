"""Heads: shapes, independence of padding, true ends, layers, standardisation."""

from __future__ import annotations

import pytest
import torch

from featurestore.errors import ModelError, UsageError
from featurestore.models.heads import HEADS, HeadConfig, build_head
from featurestore.models.inputs.mix import Moments, ScalarMix, Standardize

LENGTHS = [5, 1, 7, 2]


def batch(lengths: list[int], *shape: int, padding: float = 0.0):
    generator = torch.Generator().manual_seed(3)
    sentences = [torch.randn(n, *shape, generator=generator) for n in lengths]
    features = torch.full((len(lengths), max(lengths), *shape), padding)
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
    for row, sentence in enumerate(sentences):
        features[row, : len(sentence)] = sentence
        mask[row, : len(sentence)] = True
    return features, torch.tensor(lengths), mask


def head_of(name: str, n_layers: int = 1):
    torch.manual_seed(0)
    head = build_head(name, HeadConfig(dim=6, n_labels=3, n_layers=n_layers, hidden=4)).eval()
    if name == "bilstm-crf-tagger":
        torch.nn.init.normal_(head.crf.transitions)
    return head


def feature_shape(n_layers: int) -> tuple[int, ...]:
    return (6,) if n_layers == 1 else (n_layers, 6)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_shapes(name, n_layers):
    head = head_of(name, n_layers)
    features, lengths, mask = batch(LENGTHS, *feature_shape(n_layers))
    per_token = head.label_kind == "token"
    assert head(features, lengths, mask).shape == ((4, 7, 3) if per_token else (4, 3))
    decoded = head.decode(features, lengths, mask)
    assert decoded.dtype == torch.int64
    if per_token:
        assert torch.equal(decoded >= 0, mask)
        assert (decoded[~mask] == -100).all()
    else:
        assert decoded.shape == (4,)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_a_sentence_scores_the_same_alone_and_padded(name, n_layers):
    """Padding is filled with junk, so a head that reads it at all is caught; so is one that reads too far."""
    head = head_of(name, n_layers)
    features, lengths, mask = batch(LENGTHS, *feature_shape(n_layers), padding=50.0)
    together = head(features, lengths, mask)
    for row, n in enumerate(LENGTHS):
        alone = head(features[row : row + 1, :n], lengths[row : row + 1], mask[row : row + 1, :n])[0]
        padded = together[row, :n] if head.label_kind == "token" else together[row]
        torch.testing.assert_close(padded, alone, atol=1e-6, rtol=0)
        decoded = head.decode(features, lengths, mask)[row]
        decoded = decoded[:n] if head.label_kind == "token" else decoded
        assert torch.equal(decoded, head.decode(features[row : row + 1, :n], lengths[row : row + 1],
                                                mask[row : row + 1, :n])[0])  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_ignores_padding_and_has_gradients_everywhere(name):
    head = head_of(name, 3)
    features, lengths, mask = batch(LENGTHS, 3, 6)
    other, _, _ = batch(LENGTHS, 3, 6, padding=50.0)
    labels = torch.ones(4, 7, dtype=torch.int64).masked_fill(~mask, -100)
    labels = labels if head.label_kind == "token" else torch.tensor([0, 1, 2, 1])
    loss = head.loss(features, lengths, mask, labels)
    torch.testing.assert_close(head.loss(other, lengths, mask, labels), loss)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.parametrize("dim", [6, 1024])
@pytest.mark.parametrize("name", [name for name in HEADS if "bilstm" in name])
def test_learning_in_bfloat16_is_learning_in_float32_but_for_rounding(name, dim):
    """At a toy width and at ELMo's; padding is junk."""

    def learn(dtype):
        torch.manual_seed(0)
        head = build_head(name, HeadConfig(dim=dim, n_labels=3, hidden=8, dropout=0.0)).train()
        head.learning_dtype = dtype
        features, lengths, mask = batch(LENGTHS, dim, padding=9.0)
        labels = torch.ones(4, 7, dtype=torch.int64).masked_fill(~mask, -100)
        labels = labels if head.label_kind == "token" else torch.tensor([0, 1, 2, 1])
        scores = head(features, lengths, mask)
        loss = head.loss(features, lengths, mask, labels)
        loss.backward()
        assert scores.dtype == loss.dtype == torch.float32
        scores = scores[mask] if head.label_kind == "token" else scores
        return scores.detach(), {key: p.grad for key, p in head.named_parameters()}, head

    exact, gradients, head = learn(torch.float32)
    rounded, rounded_gradients, lowered = learn(torch.bfloat16)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, atol=0.03, rtol=0)
    for key, expected in gradients.items():
        assert rounded_gradients[key].dtype == torch.float32
        error = (rounded_gradients[key] - expected).norm() / expected.norm()
        assert error < 0.05, key
    inputs = batch(LENGTHS, dim)
    assert torch.equal(lowered.eval()(*inputs), head.eval()(*inputs)), "used, both are float32"


def test_a_packed_lstm_gives_what_the_faster_ways_give():
    head = head_of("bilstm-classifier")
    features, lengths, mask = batch(LENGTHS, 6, padding=50.0)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        features, lengths, batch_first=True, enforce_sorted=False
    )
    _, (states, _) = head.encoder.lstm(packed)
    expected = head.output(torch.cat([states[0], states[1]], dim=1))
    torch.testing.assert_close(head(features, lengths, mask), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("position", [0, 6])
def test_the_bilstm_classifier_reads_both_true_ends(position):
    head = head_of("bilstm-classifier")
    features, lengths, mask = batch([7, 9], 6)
    before = head(features, lengths, mask)[0]
    features[0, position] += 1
    assert (head(features, lengths, mask)[0] - before).abs().max() > 1e-3


def test_the_mean_is_over_tokens_only():
    head = head_of("meanpool-classifier")
    features, lengths, mask = batch([2, 8], 6, padding=9.0)
    expected = head.output(features[0, :2].mean(dim=0))
    torch.testing.assert_close(head(features, lengths, mask)[0], expected)


def test_wrong_features_are_refused_by_name_and_shape():
    features, lengths, mask = batch([2, 3], 5)
    with pytest.raises(ModelError, match=r"linear-tagger.*\(batch, longest, 6\), found \(2, 3, 5\)"):
        head_of("linear-tagger")(features, lengths, mask)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dim", 0), ("n_labels", True), ("hidden", 1 << 40), ("dropout", 1.0), ("n_layers", "2")],
)
def test_impossible_sizes_are_refused(field, value):
    with pytest.raises(UsageError, match=field):
        HeadConfig(**{"dim": 4, "n_labels": 2, field: value})


def test_an_unknown_head_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="linear-tagger"):
        build_head("transformer", HeadConfig(dim=4, n_labels=2))


def test_the_mix_starts_as_the_mean_and_obeys_its_weights():
    mix = ScalarMix(3)
    layers = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(mix(layers), layers.mean(dim=2))
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.0, 50.0, 0.0]))
        mix.gamma.fill_(2.0)
    torch.testing.assert_close(mix(layers), 2 * layers[:, :, 1])


def test_layer_weights_are_shares():
    head = head_of("linear-tagger", 3)
    with torch.no_grad():
        head.mix.weights.copy_(torch.tensor([0.0, 0.0, 1.0]).log1p())
    assert head.layer_weights == pytest.approx((0.25, 0.25, 0.5))
    assert head_of("linear-tagger").layer_weights is None


def test_standardisation_fitted_in_pieces_gives_mean_zero_and_variance_one():
    vectors = torch.randn(1000, 2, 3) * torch.tensor([0.01, 1.0, 100.0]) + torch.tensor([5.0, 0.0, -900.0])
    moments = Moments(2, 3)
    for piece in vectors.split([1, 0, 99, 900]):
        moments.add(piece)
    module = Standardize(2, 3)
    moments.fit(module)
    result = module(vectors)
    torch.testing.assert_close(result.mean(dim=0), torch.zeros(2, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(result.std(dim=0, correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)


def test_a_constant_dimension_is_shifted_but_not_blown_up():
    moments = Moments(2)
    moments.add(torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    module = Standardize(2)
    moments.fit(module)
    assert module(torch.tensor([3.5, 1.5]))[0] == 0.5
