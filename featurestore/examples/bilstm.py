"""A BiLSTM sentence classifier in plain PyTorch on ELMo: fed by Flair sentences live, or by a store.

Run it on the sample corpus; the cached version needs no Flair::

    python -m featurestore.examples.bilstm data/sentiment --cached
    python -m featurestore.examples.bilstm data/sentiment --live
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

from featurestore import BucketBatchSampler, Example, FeatureDataset, extract, feature_loader
from featurestore.dataset.labels import LabelSet
from featurestore.examples.common import ExampleCommand, example_options, labelled, split_files
from featurestore.examples.saving import save_module

TOKEN_BUDGET = 256
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class BiLSTMClassifier(nn.Module):
    """Reads a sentence in both directions and classifies the states at its two ends."""

    def __init__(self, dim: int, hidden: int, n_labels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * hidden, n_labels)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return (batch, n_labels) scores of (batch, longest, dim) features."""
        # Packed, so that no padding is read: the forward state is that after each sentence's own last token,
        # the backward one that after its first. The last row of a padded output, output[:, -1], is neither:
        # behind a short sentence it is padding, and backward it has read no other token.
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (states, _) = self.lstm(packed)
        scores: Tensor = self.output(torch.cat([states[0], states[1]], dim=1))
        return scores


class LiveBatch(NamedTuple):
    """(batch, longest, dim), (batch,) and (batch,): what the loop below needs of a batch."""

    features: Tensor
    lengths: Tensor
    labels: Tensor


def live_loader(examples: list[Example], labels: LabelSet, elmo: Any, seed: int) -> DataLoader[Any]:
    """Return the batches of feature_loader, made of Flair sentences that ELMo embeds each time."""
    from flair.data import Sentence

    def embedded(batch: list[Example]) -> LiveBatch:
        sentences = [Sentence(list(example.tokens)) for example in batch]
        elmo.embed(sentences)
        rows = [torch.stack([token.get_embedding() for token in sentence]) for sentence in sentences]
        numbers = [labels.id(str(example.labels)) for example in batch]
        lengths = torch.tensor([len(row) for row in rows])
        return LiveBatch(pad_sequence(rows, batch_first=True), lengths, torch.tensor(numbers))

    lengths = [len(example.tokens) for example in examples]
    sampler = BucketBatchSampler(lengths, token_budget=TOKEN_BUDGET, seed=seed)
    return DataLoader(examples, batch_sampler=sampler, collate_fn=embedded)  # type: ignore[arg-type]


@torch.no_grad()
def accuracy(model: BiLSTMClassifier, loader: DataLoader[Any]) -> float:
    """Return the share of sentences whose label is right."""
    right = total = 0
    for batch in loader:
        right += int((model(batch.features.to(DEVICE), batch.lengths).argmax(1).cpu() == batch.labels).sum())
        total += len(batch.labels)
    return right / total


@click.command(cls=ExampleCommand)
@example_options("bilstm", label="label", epochs=10)
def main(
    corpus: Path, cached: bool, encoder: str, store: str, label: str, epochs: int, seed: int, out: Path
) -> None:
    """Train a BiLSTM classifier on CORPUS, a folder with train, dev and perhaps test files."""
    files = split_files(corpus)
    splits = {split: labelled(path, label, "sentence") for split, path in files.items()}
    labels = LabelSet.from_names(str(example.labels) for example in splits["train"])

    if cached:
        report = extract(list(files.values()), encoder, store)  # once: what is stored already is skipped
        print(f"{report.n_encoded:,} sentences encoded into {store}, {report.n_cached:,} were there")
        sets = {split: FeatureDataset(store, examples, labels=labels) for split, examples in splits.items()}
        loaders: dict[str, DataLoader[Any]] = {
            split: feature_loader(s, token_budget=TOKEN_BUDGET, seed=seed) for split, s in sets.items()
        }
        dim = sets["train"].dim
    else:
        from featurestore.integrations.flair import ElmoEmbeddings

        elmo = ElmoEmbeddings(encoder, embedding_mode="average")
        loaders = {split: live_loader(examples, labels, elmo, seed) for split, examples in splits.items()}
        dim = elmo.embedding_length

    torch.manual_seed(seed)
    sizes = {"dim": dim, "hidden": 64, "n_labels": len(labels)}
    model = BiLSTMClassifier(**sizes).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    best, weights = -1.0, model.state_dict()
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        for batch in loaders["train"]:
            scores = model(batch.features.to(DEVICE), batch.lengths)
            loss = nn.functional.cross_entropy(scores, batch.labels.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
        score = accuracy(model, loaders["dev"])
        if score > best:
            best, weights = score, copy.deepcopy(model.state_dict())
        print(f"epoch {epoch}: accuracy on dev {score:.3f}, {time.perf_counter() - start:.1f} s")

    model.load_state_dict(weights)
    path = out / "model.h5"
    save_module(path, model, {"sizes": sizes, "labels": list(labels.names)})
    name = "test" if "test" in loaders else "dev"
    print(f"accuracy on {name} {accuracy(model, loaders[name]):.3f}, model in {path}")


if __name__ == "__main__":
    main()
