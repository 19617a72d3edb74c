"""A mean-pooled sentiment classifier: Flair's TextClassifier on ELMo, live or cached.

Run it on the sample corpus::

    python -m featurestore.examples.sentiment data/sentiment --cached
    python -m featurestore.examples.sentiment data/sentiment --live

To label new text with a model trained on a store, let it run ELMo itself::

    from featurestore.integrations.flair import load, to_live

    classifier = to_live(load("runs/sentiment/model.pt", trusted=True))
    classifier.predict(sentence)
"""

from __future__ import annotations

from pathlib import Path

import click
from torch.optim import AdamW

from featurestore import extract
from featurestore.examples.common import ExampleCommand, example_options, split_files


@click.command(cls=ExampleCommand)
@example_options("sentiment", label="label", epochs=10)
def main(
    corpus: Path, cached: bool, encoder: str, store: str, label: str, epochs: int, seed: int, out: Path
) -> None:
    """Train a mean-pooled classifier on CORPUS, a folder with train, dev and perhaps test files."""
    # Flair takes seconds to import; --help should not.
    import flair
    from flair.embeddings import DocumentPoolEmbeddings
    from flair.models import TextClassifier
    from flair.trainers import ModelTrainer

    from featurestore.examples.flair_training import EpochLines, finish, quiet_flair, sentence_corpus
    from featurestore.integrations.flair import CachedEmbeddings, ElmoEmbeddings

    quiet_flair()
    files = split_files(corpus)
    data = sentence_corpus(files, label, "sentiment")

    if cached:
        report = extract(list(files.values()), encoder, store)  # once: what is stored already is skipped
        print(f"{report.n_encoded:,} sentences encoded into {store}, {report.n_cached:,} were there")
        elmo = CachedEmbeddings(store)
    else:
        elmo = ElmoEmbeddings(encoder, embedding_mode="average")

    flair.set_seed(seed)
    classifier = TextClassifier(
        DocumentPoolEmbeddings(elmo, pooling="mean"),
        label_type="sentiment",
        label_dictionary=data.make_label_dictionary("sentiment"),
    )
    ModelTrainer(classifier, data).train(
        out,
        optimizer=AdamW,
        learning_rate=0.01,
        mini_batch_size=16,
        max_epochs=epochs,
        embeddings_storage_mode="none",  # the default, "cpu", keeps every vector in memory
        save_final_model=False,
        plugins=[EpochLines("accuracy")],
    )
    finish(classifier, data, out, "accuracy")


if __name__ == "__main__":
    main()
