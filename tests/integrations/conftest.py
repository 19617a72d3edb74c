"""Fixtures for tests that run Flair for real: a corpus of each kind and stores of the tiny ELMo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore import Store, extract, load_encoder, open_corpus
from tests.integrations.sources import SENTENCES

N_TRAIN, N_DEV = 40, 12


@pytest.fixture(scope="session")
def layered(tiny_elmo_spec):
    """The tiny ELMo with its three layers kept apart."""
    return load_encoder(tiny_elmo_spec, layers="all", device="cpu")


@pytest.fixture(scope="session")
def tagged():
    """Training and development examples with a part of speech per token."""
    return tuple(
        list(open_corpus(f"data/tagging/{split}.conllu", label="4"))[:n]
        for split, n in (("train", N_TRAIN), ("dev", N_DEV))
    )


@pytest.fixture(scope="session")
def judged():
    """Training and development examples with a label per sentence."""
    return tuple(
        list(open_corpus(f"data/sentiment/{split}.tsv", label="label"))[:n]
        for split, n in (("train", N_TRAIN), ("dev", N_DEV))
    )


@pytest.fixture(scope="session")
def full_store(tmp_path_factory, tiny_elmo, tagged, judged):
    """A float32 store of the averaged tiny ELMo that holds all examples; nobody writes to it."""
    path = tmp_path_factory.mktemp("flair") / "full"
    extract(
        [e for part in (*tagged, *judged) for e in part], tiny_elmo, path, codec="float32", progress=False
    )
    return Store.open(path)


@pytest.fixture(scope="session")
def layered_store(tmp_path_factory, layered, tagged, judged):
    """The same with three layers kept apart."""
    path = tmp_path_factory.mktemp("flair") / "layered"
    examples = [example for part in (*tagged, *judged) for example in part]
    extract(examples, layered, path, codec="float32", progress=False)
    return Store.open(path)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A folder with a two-layer BERT of 16 dimensions, random weights and one word piece per letter."""
    transformers = pytest.importorskip(
        "transformers", reason="needs Flair: pip install 'featurestore[flair]'"
    )
    folder = tmp_path_factory.mktemp("bert")
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=512,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def store(tmp_path, tiny_elmo):
    """A small store that a test may write to."""
    extract(SENTENCES, tiny_elmo, tmp_path / "store", codec="float32", progress=False)
    return Store.open(tmp_path / "store")


@pytest.fixture(scope="session")
def some(tagged):
    """A few of the examples with a part of speech per token."""
    return tagged[0][:6]


@pytest.fixture(scope="session")
def expected(tiny_elmo, some):
    """The vectors of :func:`some`, one row per token."""
    return torch.from_numpy(np.concatenate(tiny_elmo.encode([example.tokens for example in some])))


@pytest.fixture(scope="session")
def letters(tmp_path_factory):
    """The file of a character model with random weights."""
    from flair.data import Dictionary
    from flair.models import LanguageModel

    torch.manual_seed(0)
    dictionary = Dictionary()
    for letter in "abcdefghijklmnopqrstuvwxyz .":
        dictionary.add_item(letter)
    path = str(tmp_path_factory.mktemp("letters") / "lm.pt")
    LanguageModel(dictionary, True, hidden_size=6, nlayers=1, embedding_size=4).save(path)
    return path


@pytest.fixture(scope="session")
def tagging(tagged):
    """The examples with a part of speech per token as a corpus of Flair's."""
    from tests.integrations.flair_models import tagging_corpus

    return tagging_corpus(tagged)
