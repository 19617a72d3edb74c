"""``neighbors``: the stored tokens whose vectors are nearest to one token's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from featurestore.cli.display import render
from featurestore.cli.flags import device_option, json_option, progress_option, sample_option, seed_option
from featurestore.cli.lookup import condition_text, find_key, find_sentence, parse_sentence
from featurestore.cli.project.command import command
from featurestore.cli.selecting import bar
from featurestore.cli.store import open_store, store_argument, tokens_option
from featurestore.errors import MissingSentencesError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurestore.keys import Sentence
    from featurestore.store.store import Store

_CONTEXT = 6
"""Tokens shown on each side of a neighbour in its sentence."""


class _Query(NamedTuple):
    """The token that is asked for: its sentence, its position, its vector, its key where it is stored."""

    tokens: Sentence
    position: int
    vector: NDArray[np.floating]
    key: bytes | None


@command()
@store_argument
@click.option("--word", metavar="TOKEN", help="The token whose neighbours are wanted.")
@click.option(
    "--in",
    "sentence",
    metavar="TEXT",
    help="The sentence it stands in, split at spaces; one that is not stored is encoded now.",
)
@click.option(
    "--key", metavar="HEX", help="Instead of --in: a stored sentence, by its key or the first digits of it."
)
@click.option(
    "--position",
    type=click.IntRange(0),
    metavar="N",
    help="Which token of the sentence, from 0; needed where the word occurs more than once.",
)
@tokens_option
@click.option("-k", "--k", type=click.IntRange(1), default=10, show_default=True, help="How many neighbours.")
@click.option(
    "--metric",
    type=click.Choice(("cosine", "l2")),
    default="cosine",
    show_default=True,
    help="Cosine of the angle, or Euclidean distance.",
)
@click.option(
    "--layer",
    type=click.IntRange(0),
    metavar="N",
    help="Compare this layer only, of a store that keeps layers apart.  [default: all, end to end]",
)
@click.option("--exclude-same-word", is_flag=True, help="Leave the word itself out, in any case.")
@sample_option("Compare the tokens of N sentences only, drawn at random; 0 compares all.", default=0)
@seed_option()
@device_option
@progress_option
@json_option
def neighbors(
    store: Path, snapshot: int | None, word: str | None, sentence: str | None, key: str | None,
    position: int | None, as_tokens: bool, k: int, metric: str, layer: int | None, exclude_same_word: bool,
    sample: int, seed: int, device: str, no_progress: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the stored tokens whose vectors are nearest to those of a token in its sentence.

    Name the token by --word and --in, by --key and --position, or by --in and --position. Every stored
    token is compared, in one pass over the bytes of the store.
    """
    from featurestore.search.neighbors import find_neighbors
    from featurestore.store.maintenance.selection import select

    opened = open_store(store, snapshot)
    if not len(opened):
        raise MissingSentencesError(
            f"{store} holds no sentences yet: there are no neighbours", n_missing=0, n_wanted=0, store=store
        )
    query = _query(opened, word, sentence, key, position, as_tokens, device)
    selection = select(opened, sample=sample, seed=seed) if sample else None
    n_tokens = opened.n_tokens if selection is None else selection.n_tokens(opened)
    vector = query.vector
    if layer is not None and vector.ndim > 1 and layer < opened.n_layers:
        vector = vector[layer]
    with bar("comparing", n_tokens, no_progress, unit=" tokens") as moved:
        found = find_neighbors(
            opened, vector, k, metric="l2" if metric == "l2" else "cosine",
            layer=layer, exclude_words=[query.tokens[query.position]] if exclude_same_word else (),
            exclude_token=None if query.key is None else (query.key, query.position),
            selection=selection, progress=moved,
        )  # fmt: skip
    if as_json:
        render.echo_json(
            {
                "query": {
                    "tokens": list(query.tokens),
                    "position": query.position,
                    "key": None if query.key is None else query.key.hex(),
                    "is_stored": query.key is not None,
                },
                "metric": metric,
                "layer": layer,
                "n_compared": n_tokens,
                "n_tokens": opened.n_tokens,
                "sampled_sentences": None if selection is None else selection.n_sentences,
                "neighbors": [
                    {
                        "score": one.score,
                        "token": one.token,
                        "position": one.position,
                        "tokens": list(one.tokens),
                        "condition": condition_text(getattr(one.tokens, "condition", b"")),
                        "key": one.key.hex(),
                    }
                    for one in found
                ],
            }
        )
        return
    looked = (
        f"all {n_tokens:,} tokens"
        if selection is None
        else f"{n_tokens:,} tokens of {render.count(selection.n_sentences, 'sentence')} drawn at random"
    )
    new = "" if query.key is not None else "  (not stored: encoded now)"
    click.echo(f"token     {_in_context(query.tokens, query.position)}{new}")
    click.echo(f"compared  {looked}; {'cosine' if metric == 'cosine' else 'Euclidean distance'}\n")
    rows = [
        [f"{one.score:.4f}", render.printable(one.token), _in_context(one.tokens, one.position),
         one.key.hex()[:12]]
        for one in found
    ]  # fmt: skip
    click.echo(render.table([metric, "token", "in its sentence", "key"], rows, left=4))


def _query(
    store: Store, word: str | None, text: str | None, key: str | None, position: int | None, as_tokens: bool,
    device: str,
) -> _Query:  # fmt: skip
    if (text is None) == (key is None):
        raise UsageError("name the sentence by --in TEXT or by --key HEX, one of them")
    if word is None and position is None:
        raise UsageError("name the token by --word TOKEN or by --position N")
    if text is None:
        shard, row = find_key(store, key or "")
    else:
        tokens = parse_sentence(text, as_tokens)
        at = _position(tokens, word, position)
        try:
            shard, row = find_sentence(store, tokens)
        except MissingSentencesError:
            return _Query(tokens, at, _encoded(store, tokens, device)[at], None)
    reader = store.reader(shard)
    tokens = reader.tokens(row)
    at = _position(tokens, word, position)
    return _Query(tokens, at, reader.read(row)[at], reader.key(row))


def _position(tokens: Sentence, word: str | None, position: int | None) -> int:
    shown = render.printable(" ".join(tokens))
    if position is not None:
        if position >= len(tokens):
            raise UsageError(f"--position {position}: {shown!r} has {render.count(len(tokens), 'token')}, "
                             f"0 to {len(tokens) - 1}")  # fmt: skip
        if word is not None and tokens[position] != word:
            raise UsageError(f"--position {position} is {tokens[position]!r}, --word says {word!r}")
        return position
    places = [at for at, token in enumerate(tokens) if token == word]
    if not places:
        same = [token for token in tokens if word is not None and token.casefold() == word.casefold()]
        also = f"; it has {same[0]!r}" if same else ""
        raise UsageError(f"{word!r} is no token of {shown!r}{also}")
    if len(places) > 1:
        raise UsageError(
            f"{word!r} stands at {', '.join(map(str, places))} in {shown!r}: choose by --position"
        )
    return places[0]


def _encoded(store: Store, tokens: Sentence, device: str) -> NDArray[np.floating]:
    """Return the vectors of a sentence that is not stored, by the encoder that the store names."""
    from featurestore.extraction.choice import EncoderChoice, require_store_of
    from featurestore.extraction.destination import Destination
    from featurestore.vectors import encoded

    choice = EncoderChoice.for_store(store, None, None, None)
    click.echo(f"encoding the sentence by {choice.spec}", err=True) if sys.stderr.isatty() else None
    require_store_of(Destination.of(store), choice)
    encoder = choice.load(device)
    store.recipe.require_equal(encoder.recipe, where=str(store.path), remedy="")
    vectors: NDArray[np.floating] = encoded(encoder, [tokens])[0]
    return vectors


def _in_context(tokens: Sentence, position: int) -> str:
    """Return a token between brackets, with a few tokens on each side."""
    first, last = max(0, position - _CONTEXT), position + 1 + _CONTEXT
    before = ("... " if first else "") + " ".join(tokens[first:position])
    after = " ".join(tokens[position + 1 : last]) + (" ..." if last < len(tokens) else "")
    return render.printable(f"{before} [{tokens[position]}] {after}".strip())
