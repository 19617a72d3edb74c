"""An entity tagger: Flair's SequenceTagger on ELMo and word vectors, stacked; live or cached.

Run it on the sample corpus::

    python -m featurestore.examples.entities data/tagging --cached
    python -m featurestore.examples.entities data/tagging --live
"""

from __future__ import annotations

from pathlib import Path

import click
from torch.optim import AdamW

from featurestore import extract
from featurestore.examples.common import ExampleCommand, example_options, split_files


@click.command(cls=ExampleCommand)
@example_options("entities", label="misc.NER", epochs=10)
@click.option("--word-vectors", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Pretrained ones: a file of gensim's that you trust (it is a pickle) or of word2vec's. "
              "Without them word vectors are learned from the corpus.")  # fmt: skip
def main(
    corpus: Path, cached: bool, encoder: str, store: str, label: str, epochs: int, seed: int, out: Path,
    word_vectors: Path | None,
) -> None:  # fmt: skip
    """Train an entity tagger on CORPUS, a folder with train, dev and perhaps test files."""
    # Flair takes seconds to import; --help should not.
    import flair
    from flair.embeddings import OneHotEmbeddings, StackedEmbeddings
    from flair.models import SequenceTagger
    from flair.trainers import ModelTrainer

    from featurestore.examples import flair_training
    from featurestore.integrations.flair import CachedEmbeddings, ElmoEmbeddings

    flair_training.quiet_flair()
    files = split_files(corpus)
    data = flair_training.span_corpus(files, label, "ner")

    if cached:
        report = extract(list(files.values()), encoder, store)  # once: what is stored already is skipped
        print(f"{report.n_encoded:,} sentences encoded into {store}, {report.n_cached:,} were there")
        elmo = CachedEmbeddings(store)
    else:
        elmo = ElmoEmbeddings(encoder, embedding_mode="average")

    flair.set_seed(seed)
    if word_vectors is not None:
        words = flair_training.word_vectors(word_vectors)
    else:
        # One-hot with a layer behind it: a trainable vector for every word that occurs twice.
        words = OneHotEmbeddings.from_corpus(data, min_freq=2, embedding_length=50)
    tagger = SequenceTagger(
        embeddings=StackedEmbeddings([words, elmo]),
        tag_dictionary=data.make_label_dictionary("ner", add_unk=False),
        tag_type="ner",
        hidden_size=128,
        use_crf=True,
    )
    ModelTrainer(tagger, data).train(
        out,
        optimizer=AdamW,
        learning_rate=0.003,
        mini_batch_size=16,
        max_epochs=epochs,
        embeddings_storage_mode="none",  # the default, "cpu", keeps every vector in memory
        save_final_model=False,
        plugins=[flair_training.EpochLines("F1")],
    )
    flair_training.finish(tagger, data, out, "F1")


if __name__ == "__main__":
    main()
