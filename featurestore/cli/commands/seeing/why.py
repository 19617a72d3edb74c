"""``why``: is a sentence cached for an encoder, and if not, what differs. Loads no torch."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.completing import encoders, words
from featurestore.cli.display import render
from featurestore.cli.flags import encoder_words, json_option, options
from featurestore.cli.lookup import (
    condition_text,
    conditioned_copies,
    find_sentence,
    listed_copies,
    near_sentences,
    parse_sentence,
    spelled,
)
from featurestore.cli.project.command import command
from featurestore.cli.store import open_store, store_argument, tokens_option


@command()
@store_argument
@click.argument("text")
@tokens_option
@options(
    click.option("--encoder", metavar="SPEC", shell_complete=encoders,
                 help="Encoder you want.  [default: the store's own]"),
    click.option("--layers", metavar="WHICH", shell_complete=encoder_words["layers"],
                 help="Layers you want.  [default: the store's own]"),
    click.option("--precision", metavar="NAME",
                 shell_complete=words("auto", "float32", "bfloat16", "float16"),
                 help="Precision you want; auto fits any.  [default: the store's own]"),
    click.option("--initial-state", metavar="auto|zero|warm", shell_complete=encoder_words["initial_state"],
                 help="Initial state you want.  [default: the store's own]"),
)  # fmt: skip
@json_option
def why(
    store: Path,
    snapshot: int | None,
    text: str,
    as_tokens: bool,
    encoder: str | None,
    layers: str | None,
    precision: str | None,
    initial_state: str | None,
    as_json: bool,
) -> None:
    """Say whether a sentence is cached for an encoder, and if not, why.

    Exits with 0 if it is cached, 1 if the sentence is missing, 4 if the recipe differs.
    """
    from featurestore.extraction.choice import EncoderChoice
    from featurestore.keys import sentence_key

    opened = open_store(store, snapshot)
    sentence = parse_sentence(text, as_tokens)
    cached = sentence in opened
    differences = []
    if encoder or layers or precision or initial_state:
        choice = EncoderChoice.for_store(opened, encoder, layers, precision, initial_state)
        stored, wanted = choice.known_recipe().beside(opened.recipe)
        differences = stored.diff(wanted)
    code = 4 if differences else 0 if cached else 1
    copies = [] if cached else conditioned_copies(opened, sentence)
    nearest = [] if cached or copies else near_sentences(opened, sentence)
    if as_json:
        render.echo_json(
            {
                "cached": cached and not differences,
                "in_store": cached,
                "key": sentence_key(sentence).hex(),
                "tokens": sentence,
                "differences": [difference._asdict() for difference in differences],
                "nearest": [list(tokens) for tokens in nearest],
                "with_conditions": [
                    {"key": copy.key.hex(), "condition": condition_text(copy.condition)} for copy in copies
                ],
            }
        )
    else:
        click.echo(f"sentence  {render.printable(' '.join(sentence))}  ({len(sentence)} tokens)")
        click.echo(f"key       {sentence_key(sentence).hex()}")
        for difference in differences:
            click.echo(f"recipe    {difference.field}: {render.value(difference.ours)} in the store, "
                       f"{render.value(difference.theirs)} wanted")  # fmt: skip
        if differences:
            click.echo("not cached for this encoder: the recipe differs in the fields above")
        elif cached:
            shard, row = find_sentence(opened, sentence)
            click.echo(f"cached: {opened.reader(shard).path}, sentence {row}")
        elif copies:
            found = render.count(len(copies), "time")
            click.echo(f"not cached without a context; with one the store has it {found}")
            click.echo("".join(f"  {line}\n" for line in listed_copies(copies)), nl=False)
        else:
            click.echo("not cached: no sentence of the store has exactly these tokens")
            for tokens in nearest:
                click.echo(f"  like it  {spelled(tokens)}")
    if code:
        raise click.exceptions.Exit(code)
