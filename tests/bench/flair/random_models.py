"""Models of published sizes with random weights, in the files that Flair reads: for measuring speed only.

    python -m tests.bench.flair.random_models characters --shape 1x1024 --out features/lm.pt
    python -m tests.bench.flair.random_models transformer --shape 6x384x12 --out features/bert CORPUS...

A character model has the 275 characters of Flair's own; 1x1024 is the size of ``news-forward-fast``. A
transformer has BERT's 30,522 rows of word pieces, but the pieces are learned from the corpora, so that words
fall into about as many of them as they do with a published one. Nothing of either comes from elsewhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from featurestore import open_corpus

N_CHARACTERS = 275
N_PIECES = 30_522
MAX_LENGTH = 512


def write_character_model(path: Path, n_layers: int, n_cells: int) -> None:
    """Write a forward character model of so many layers and cells."""
    import torch
    from flair.data import Dictionary
    from flair.models import LanguageModel

    dictionary = Dictionary()
    codes = [*range(32, 127), *range(0xA1, 0x250)]
    for code in [ord("\n"), *codes][: N_CHARACTERS - len(dictionary)]:
        dictionary.add_item(chr(code))
    torch.manual_seed(0)
    LanguageModel(dictionary, is_forward_lm=True, hidden_size=n_cells, nlayers=n_layers).save(path)


def write_transformer(folder: Path, n_layers: int, width: int, n_heads: int, corpora: Sequence[str]) -> None:
    """Write a BERT of so many layers, width and heads, and word pieces learned from corpora."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(_texts(corpora), vocab_size=N_PIECES, min_frequency=2, show_progress=False)
    folder.mkdir(parents=True)
    pieces.save_model(str(folder))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=N_PIECES, hidden_size=width, num_hidden_layers=n_layers, num_attention_heads=n_heads,
        intermediate_size=4 * width, max_position_embeddings=MAX_LENGTH,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)


def numbers(shape: str, n: int) -> list[int]:
    """Return the numbers of a shape such as 1x1024."""
    parts = shape.split("x")
    if len(parts) != n or not all(part.isdigit() and int(part) for part in parts):
        raise click.BadParameter(f"{shape!r}: expected {n} numbers such as {'x'.join('248'[:n])}")
    return [int(part) for part in parts]


def _texts(corpora: Sequence[str]) -> Iterator[str]:
    for corpus in corpora:
        for example in open_corpus(corpus):
            yield " ".join(example.tokens)


@click.command()
@click.argument("kind", type=click.Choice(["characters", "transformer"]))
@click.argument("corpora", nargs=-1)
@click.option("--shape", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(kind: str, corpora: tuple[str, ...], shape: str, out: Path) -> None:
    sizes = numbers(shape, 2 if kind == "characters" else 3)
    unfinished = out.with_name(f"unfinished-{out.name}")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    if kind == "characters":
        write_character_model(unfinished, *sizes)
    else:
        write_transformer(unfinished, *sizes, corpora)
    os.replace(unfinished, out)
    print("{}")


if __name__ == "__main__":
    main()
