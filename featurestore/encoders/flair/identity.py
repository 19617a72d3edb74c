"""The recipe of a Flair embedding: what its vectors are made with, the same in every process.

Of each embedding in it: its class, those of its options that change a vector, hashes of its tokenizer or
dictionary and of its weights. Names, paths, devices, dropout and training options stay out; so do weights
that are never read, some of which are random (poolers, decoders, the separator where there is no context).

The first two numbers of Flair's version are in it, because Flair's classes are what is computed, and a new
minor version may change them. The versions of torch and transformers are not: they agree within rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flair
import torch
from flair.data import Dictionary
from flair.embeddings import (
    BytePairEmbeddings,
    CharacterEmbeddings,
    FastTextEmbeddings,
    FlairEmbeddings,
    HashEmbeddings,
    MuseCrosslingualEmbeddings,
    OneHotEmbeddings,
    TransformerWordEmbeddings,
    WordEmbeddings,
)
from flair.embeddings.base import TokenEmbeddings
from torch import Tensor
from transformers import PretrainedConfig

from featurestore.encoders.flair.conditions import Dependence
from featurestore.encoders.flair.vocabulary import (
    SEPARATOR,
    runs_of,
    subword_ids,
    subword_table,
    uses_separator,
)
from featurestore.recipe import Recipe, canonical_json

RECIPE_VERSION = 1

_SAYING = ("model_type", "is_decoder", "is_encoder_decoder", "pad_token_id")
"""Fields which every transformer's configuration has, and on which vectors depend."""

_SILENT = ("drop", "init", "cache", "checkpoint", "classifier", "summary")
"""Parts of the names of other fields on which no frozen vector depends."""

Identity = dict[str, Any]


def flair_recipe(members: Sequence[TokenEmbeddings], dependence: Dependence) -> Recipe:
    """Return the recipe of vectors concatenated from embeddings, in their order."""
    fields: Identity = {
        "kind": "flair",
        "version": RECIPE_VERSION,
        "flair": ".".join(str(flair.__version__).split(".")[:2]),
        # By number and not as a list, so that a difference is named field by field.
        "embeddings": {str(number): identity_of(member) for number, member in enumerate(members)},
    }
    if dependence:
        fields["depends_on"] = dependence.to_dict()
    return Recipe(fields)


def identity_of(member: TokenEmbeddings) -> Identity:
    """Return what makes an embedding's vectors, as JSON."""
    identity: Identity = {"weights_sha256": tensors_sha256(member.state_dict().items())}
    for kind, known in _IDENTITIES.items():
        if isinstance(member, kind):
            identity = known(member)
            if _is_of_flair(type(member)):
                # Flair's own subclasses differ only in where they fetch their files.
                return {"class": kind.__name__, **identity}
            break
    own = type(member)
    return {"class": f"{own.__module__}.{own.__qualname__}", **identity, "attributes": _scalars(member)}


def tensors_sha256(tensors: Iterable[tuple[str, Tensor | Sequence[Tensor]]]) -> str:
    """Return a hash of named tensors: of names, types, shapes and bytes.

    Parameters
    ----------
    tensors : iterable of (str, Tensor or sequence of Tensor)
        In any order; a sequence is parts of one tensor.
    """
    digest = hashlib.sha256()
    for name, given in sorted(tensors, key=lambda pair: pair[0]):
        parts = [given] if isinstance(given, Tensor) else given
        shapes = [list(part.shape) for part in parts]
        digest.update(canonical_json([name, [str(part.dtype) for part in parts], shapes]))
        for part in parts:
            flat = part.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_of_flair(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "flair"


def _scalars(member: TokenEmbeddings) -> Identity:
    """Return the public settings of an embedding of unknown class, save for names and paths."""
    return {
        name: value
        for name, value in vars(member).items()
        if isinstance(value, (bool, int, float, str))
        and not name.startswith("_")
        and name not in ("name", "training", "embeddings", "base_model_name")
        and not (isinstance(value, str) and os.path.exists(value))
    }


def _words(member: WordEmbeddings) -> Identity:
    return {
        "options": {"stable": bool(member.stable)},
        "vocabulary_sha256": _numbered_sha256(member.vocab),
        "weights_sha256": tensors_sha256(member.state_dict().items()),
    }


def _characters_in_context(member: FlairEmbeddings) -> Identity:
    model = member.lm
    read = ((name, tensor) for name, tensor in model.state_dict().items() if not name.startswith("decoder."))
    return {
        "options": {
            "with_whitespace": bool(member.with_whitespace),
            "tokenized_lm": bool(member.tokenized_lm),
            "is_lower": bool(member.is_lower),
            "is_forward_lm": bool(member.is_forward_lm),
            "document_delimiter": str(getattr(model, "document_delimiter", "\n")),
            "recurrent_type": str(getattr(model, "recurrent_type", "LSTM")).upper(),
        },
        "vocabulary_sha256": _dictionary_sha256(model.dictionary),
        "weights_sha256": tensors_sha256(read),
    }


def _byte_pairs(member: BytePairEmbeddings) -> Identity:
    return {
        "options": {"preprocess": bool(member.do_preproc)},
        "tokenizer_sha256": hashlib.sha256(member.spm.serialized_model_proto()).hexdigest(),
        "weights_sha256": tensors_sha256(member.state_dict().items()),
    }


def _muse(_: MuseCrosslingualEmbeddings) -> Identity:
    # Its tables are fetched one by one as languages turn up, from addresses that its class holds.
    return {"tables": "as published"}


def _subword_vectors(member: FastTextEmbeddings) -> Identity:
    model = member.precomputed_word_embeddings
    arrays = {"words": model.vectors_vocab, "parts": model.vectors_ngrams}
    return {
        "options": {name: int(getattr(model, name)) for name in ("min_n", "max_n", "bucket")},
        "vocabulary_sha256": _numbered_sha256(model.key_to_index),
        "weights_sha256": tensors_sha256((name, torch.as_tensor(array)) for name, array in arrays.items()),
    }


def _characters(member: CharacterEmbeddings) -> Identity:
    return {
        "vocabulary_sha256": _dictionary_sha256(member.char_dictionary),
        "weights_sha256": tensors_sha256(member.state_dict().items()),
    }


def _one_hot(member: OneHotEmbeddings) -> Identity:
    return {
        "vocabulary_sha256": _dictionary_sha256(member.vocab_dictionary),
        "weights_sha256": tensors_sha256(member.state_dict().items()),
    }


def _hashed(member: HashEmbeddings) -> Identity:
    return {
        "options": {"hash_method": str(member.to_params()["hash_method"])},
        "weights_sha256": tensors_sha256(member.state_dict().items()),
    }


def _transformer(member: TransformerWordEmbeddings) -> Identity:
    options: Identity = {
        "layers": [int(index) for index in member.layer_indexes],
        "layer_mean": bool(member.layer_mean),
        "subtoken_pooling": str(member.subtoken_pooling),
        "context_length": max(int(member.context_length), 0),
        "force_max_length": bool(member.force_max_length),
    }
    if member.context_length > 0:
        options["use_context_separator"] = bool(member.use_context_separator)
    if member.truncate:
        options["max_length"] = int(member.tokenizer.model_max_length)
        options["allow_long_sentences"] = bool(member.allow_long_sentences)
        options["truncation_side"] = str(member.tokenizer.truncation_side)
    identity: Identity = {
        "options": options,
        "config": _config(member.model.config),
        "tokenizer": str(type(member.tokenizer).__name__),
        "tokenizer_sha256": _tokenizer_sha256(member),
        "weights_sha256": _transformer_sha256(member),
    }
    table = subword_table(member)
    if table is not None and uses_separator(member):
        # By itself: Flair draws it at random for a model that was never trained with it.
        row = table[int(member.tokenizer.convert_tokens_to_ids(SEPARATOR))]
        identity["separator_sha256"] = tensors_sha256([("separator", row)])
    return identity


def _transformer_sha256(member: TransformerWordEmbeddings) -> str:
    table = subword_table(member)
    read: dict[str, Tensor | list[Tensor]] = {}
    for name, tensor in member.model.state_dict().items():
        if "pooler" in name.split("."):
            continue
        if table is not None and tensor.shape == table.shape and tensor.data_ptr() == table.data_ptr():
            ids = subword_ids(member.tokenizer, n_rows=len(tensor))
            read[name] = [tensor[run] for run in runs_of(ids)]
        else:
            read[name] = tensor
    return tensors_sha256(read.items())


def _config(config: PretrainedConfig) -> Identity:
    """Return the fields of a configuration that say how weights are used."""
    general = PretrainedConfig().to_dict()
    kept = {}
    for name, value in config.to_dict().items():
        if name in general and name not in _SAYING:
            continue
        if value is None or name.startswith("_") or name == "vocab_size" or any(s in name for s in _SILENT):
            continue
        kept[name] = json.loads(json.dumps(value, default=str))
    return kept


def _tokenizer_sha256(member: TransformerWordEmbeddings) -> str:
    """Return a hash of how a tokenizer cuts, without the truncation and padding that the last call left."""
    tokenizer = member.tokenizer
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules["truncation"] = rules["padding"] = None
        if not uses_separator(member):
            rules["added_tokens"] = [t for t in rules["added_tokens"] if t["content"] != SEPARATOR]
        return hashlib.sha256(canonical_json(rules)).hexdigest()
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(map(Path, tokenizer.save_vocabulary(folder))):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    vocabulary = tokenizer.get_vocab()
    if not uses_separator(member):
        vocabulary.pop(SEPARATOR, None)
    options = {
        name: value
        for name, value in tokenizer.init_kwargs.items()
        if isinstance(value, (bool, int)) and name not in ("model_max_length", "use_fast")
    }
    special = [token for token in tokenizer.all_special_tokens if token != SEPARATOR]
    digest.update(canonical_json([options, special]))
    digest.update(_numbered_sha256(vocabulary).encode())
    return digest.hexdigest()


def _dictionary_sha256(dictionary: Dictionary) -> str:
    return _numbered_sha256(dictionary.item2idx)


def _numbered_sha256(numbers: Mapping[Any, int]) -> str:
    """Return a hash of words and the number of each."""
    digest = hashlib.sha256()
    for word, number in sorted(numbers.items(), key=lambda pair: (pair[1], pair[0])):
        raw = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
        digest.update(int(number).to_bytes(8, "little", signed=True) + len(raw).to_bytes(4, "little") + raw)
    return digest.hexdigest()


_IDENTITIES: dict[type, Callable[[Any], Identity]] = {
    TransformerWordEmbeddings: _transformer,
    FlairEmbeddings: _characters_in_context,
    WordEmbeddings: _words,
    BytePairEmbeddings: _byte_pairs,
    MuseCrosslingualEmbeddings: _muse,
    FastTextEmbeddings: _subword_vectors,
    CharacterEmbeddings: _characters,
    OneHotEmbeddings: _one_hot,
    HashEmbeddings: _hashed,
}
