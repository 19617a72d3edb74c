"""Which embeddings can be cached at all, and what the vectors of each depend on.

A cached vector is a function of its sentence and the recipe. An embedding that is trained along
with a model, remembers the texts it has seen, or embeds a label gives no such vectors, and is refused with
the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from flair.embeddings import (
    BytePairEmbeddings,
    CharacterEmbeddings,
    FastTextEmbeddings,
    FlairEmbeddings,
    HashEmbeddings,
    MuseCrosslingualEmbeddings,
    NILCEmbeddings,
    OneHotEmbeddings,
    PooledFlairEmbeddings,
    TransformerWordEmbeddings,
    WordEmbeddings,
)
from flair.embeddings.base import TokenEmbeddings
from flair.embeddings.legacy import CharLMEmbeddings, ELMoEmbeddings
from flair.embeddings.transformer import TransformerJitEmbeddings, TransformerOnnxEmbeddings

from featurestore.encoders.flair.conditions import Dependence
from featurestore.errors import UsageError

TRAINED_ALONG = (CharacterEmbeddings, HashEmbeddings, OneHotEmbeddings)
"""Classes whose weights are random until a model is trained with them."""

KNOWN = (
    BytePairEmbeddings,
    FastTextEmbeddings,
    FlairEmbeddings,
    MuseCrosslingualEmbeddings,
    NILCEmbeddings,
    TransformerWordEmbeddings,
    WordEmbeddings,
    *TRAINED_ALONG,
)
"""Classes of which it is known what their vectors depend on; a subclass may do anything."""


_TRAINED = (
    "trained along with a model, and vectors in a store stay as they are. Make it with fine_tune=False where "
    "its class has that option; to take its weights as they are now: allow_trainable=True "
    "(?allow_trainable=true in a specification)"
)


def dependence_of(
    members: Sequence[TokenEmbeddings], *, allow_trainable: bool = False, told: Dependence | None = None
) -> Dependence:
    """Return what vectors concatenated from embeddings depend on besides the tokens.

    Parameters
    ----------
    members : sequence of TokenEmbeddings
        As :func:`featurestore.encoders.flair.members.members_of` returns them.
    allow_trainable : bool
        Take embeddings that would be trained along with a model, as they are now.
    told : Dependence, optional
        Of members that are of no class known here.

    Raises
    ------
    UsageError
        If the vectors of one cannot be cached, with the reason and what to do.
    """
    found = []
    for member in members:
        _require_encodable(member, allow_trainable=allow_trainable)
        if type(member) in KNOWN:
            found.append(_of_known(member))
        elif told is not None:
            found.append(told)
        else:
            raise _refused(
                type(member),
                member.name,
                "of no class that is known here, so what its vectors depend on is not known either. If it is "
                "the tokens alone: FlairEncoder(embedding, dependence=Dependence())",
            )
    return _together(found)


def _together(found: Sequence[Dependence]) -> Dependence:
    reading = [dependence for dependence in found if dependence.context > 0]
    boundaries = {dependence.document_boundaries for dependence in reading}
    if len(boundaries) > 1:
        raise UsageError(
            "embeddings of a stack read their context differently: respect_document_boundaries is true for "
            "one and false for another. Give all the same"
        )
    return Dependence(
        context=max((dependence.context for dependence in reading), default=0),
        document_boundaries=boundaries == {True},
        language=any(dependence.language for dependence in found),
        whitespace=any(dependence.whitespace for dependence in found),
    )


def _of_known(member: TokenEmbeddings) -> Dependence:
    if isinstance(member, TransformerWordEmbeddings):
        language = bool(member.use_lang_emb) and getattr(member.tokenizer, "lang2id", None) is not None
        if member.context_length <= 0:
            return Dependence(language=language)
        return Dependence(
            context=int(member.context_length),
            document_boundaries=bool(member.respect_document_boundaries),
            language=language,
        )
    if isinstance(member, FlairEmbeddings):
        return Dependence(whitespace=not member.tokenized_lm)
    return Dependence(language=isinstance(member, MuseCrosslingualEmbeddings))


def require_class(kind: type, *, name: str = "", allow_trainable: bool = False) -> None:
    """Raise unless embeddings of a class can be cached, as far as that depends on the class.

    Raises
    ------
    UsageError
        With the reason and what to do.
    """
    reason = None
    if not issubclass(kind, TokenEmbeddings):
        reason = "not a token embedding: give the token embeddings that it is made of"
    elif kind.__module__.partition(".")[0] == "featurestore":
        reason = "one of ours, over a store or an encoder: extract with that encoder itself"
    elif issubclass(kind, PooledFlairEmbeddings):
        reason = (
            "stateful: a word's vector pools all that was seen of it before, so it depends on the order of "
            "the corpus. Give the FlairEmbeddings inside it (.context_embeddings)"
        )
    elif issubclass(kind, ELMoEmbeddings):
        reason = "an ELMo that needs AllenNLP: use the encoder elmo:original, or another elmo:NAME"
    elif issubclass(kind, CharLMEmbeddings):
        reason = "what FlairEmbeddings was called once: use that"
    elif issubclass(kind, (TransformerJitEmbeddings, TransformerOnnxEmbeddings)):
        reason = (
            "compiled, so it cannot be told what it computes: give the TransformerWordEmbeddings that it was "
            "exported from"
        )
    elif issubclass(kind, TRAINED_ALONG) and not allow_trainable:
        reason = _TRAINED
    if reason is not None:
        raise _refused(kind, name, reason)


def _require_encodable(member: TokenEmbeddings, *, allow_trainable: bool) -> None:
    """Raise UsageError if an embedding gives no vector per token that is a function of the sentence."""
    kind, name = type(member), str(getattr(member, "name", ""))
    require_class(kind, name=name, allow_trainable=allow_trainable)
    field = getattr(member, "field", None)
    if field not in (None, "text"):
        label = f"the embedding of a label (field={field!r}), and sentences are cached without labels"
        raise _refused(kind, name, label)
    if isinstance(member, TransformerWordEmbeddings):
        _require_text_model(member)
    if getattr(member, "fine_tune", False) and not allow_trainable:
        raise _refused(kind, name, _TRAINED)


def _require_text_model(member: TransformerWordEmbeddings) -> None:
    if member.tokenizer_needs_ocr_boxes or member.needs_manual_ocr or member.feature_extractor is not None:
        raise _refused(
            type(member),
            member.name,
            "made for images or boxes beside the text, which a sentence does not hold",
        )
    if hasattr(member.model, "peft_config"):
        raise _refused(
            type(member),
            member.name,
            "a model with adapters: merge them first (embedding.model = model.merge_and_unload())",
        )
    if member.allow_long_sentences and not member.tokenizer.is_fast:
        raise _refused(
            type(member),
            member.name,
            "one with a slow tokenizer, which cannot cut long sentences into pieces that overlap: make it "
            "with allow_long_sentences=False",
        )
    if member.context_length < 0:
        raise _refused(type(member), member.name, f"made with a context of {member.context_length} tokens")
    masked = "attention_mask" in member.tokenizer.model_input_names
    if not masked and not member.force_max_length:
        raise _refused(
            type(member),
            member.name,
            "a model without an attention mask, so that its vectors depend on the longest sentence of the "
            "batch: make it with force_max_length=True",
        )


def _refused(kind: type, name: str, reason: str) -> UsageError:
    named = f" {name!r}" if name else ""
    return UsageError(f"the embedding{named} ({kind.__name__}) cannot be cached: it is {reason}")
