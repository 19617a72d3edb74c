"""``compare``: two stores side by side, over the sentences that both hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.display import render
from featurestore.cli.flags import json_option, progress_option, sample_option, seed_option
from featurestore.cli.project.command import command
from featurestore.cli.selecting import bar
from featurestore.cli.store import open_store

if TYPE_CHECKING:
    from featurestore.inspection.comparing import Comparison, Spread


@command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    metavar="X",
    help="Exit with 1 if a token's relative L2 is larger, in any layer.",
)
@sample_option("Sentences compared, drawn at random from those in both; 0 compares all.")
@seed_option()
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Sentences and words listed, of each at most N.",
)
@progress_option
@json_option
def compare(
    a: Path, b: Path, tolerance: float | None, sample: int, seed: int, limit: int, no_progress: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare the vectors of two stores: another codec, precision, layer, state or model.

    Where layers and dimensions agree, each token's vectors are compared (cosine, relative L2); where they do
    not, what the stores say of the same tokens is: linear CKA of the layers, and how many of a token's ten
    nearest tokens are the same. Exits with 1 beyond --tolerance, also where vectors cannot be compared.
    """
    from featurestore.inspection.comparing import compare_stores

    first, second = open_store(a, None), open_store(b, None)
    with bar("comparing", None, no_progress or as_json, unit=" sentences") as moved:
        found = compare_stores(first, second, sample=sample, seed=seed, most=limit, progress=moved)
    beyond = tolerance is not None and found.exceeds(tolerance)
    if as_json:
        render.echo_json(
            {"a": str(a), "b": str(b), "tolerance": tolerance, "within": not beyond, **found.to_dict()}
        )
    else:
        click.echo(_text(found, a, b))
        if tolerance is not None:
            click.echo(f"\n{_verdict(found, tolerance, beyond)}")
    if beyond:
        raise click.exceptions.Exit(1)


def _text(found: Comparison, a: Path, b: Path) -> str:
    drawn = " drawn at random" if found.is_sample else ""
    rows = [
        ("a", f"{a}: {_store(found, 0)}"),
        ("b", f"{b}: {_store(found, 1)}"),
        ("in both", f"{found.n_both:,} (a has {found.n_a:,}, b {found.n_b:,})"),
        ("compared", f"{render.count(found.n_compared, 'sentence')}{drawn}, "
                     f"{render.count(found.n_tokens, 'token')}"),
        ("recipe", "\n".join(f"{d.field}: {render.value(d.ours)} in a, {render.value(d.theirs)} in b"
                             for d in found.recipe) or "the same"),
    ]  # fmt: skip
    if found.relative_l2 is not None and found.cosine is not None:
        rows.append(("relative L2", _spread(found.relative_l2)))
        low = found.cosine
        rows.append(("cosine", f"mean {low.mean:.6f}, median {low.median:.6f}, smallest {low.smallest:.6f}"))
        if len(found.by_layer) > 1:
            rows.append(("by layer", ", ".join(f"{i}: {x:.3g}" for i, x in enumerate(found.by_layer))))
    else:
        rows.append(("vectors", "of other shapes: compared by what they say of the same tokens"))
    rows.append(("linear CKA", "\n".join(_alignment(found))))
    if found.n_around:
        rows.append(("neighbours", f"{found.overlap:.1%} of a token's 10 nearest are the same "
                                   f"(among {found.n_around:,} tokens)"))  # fmt: skip
    text = render.facts(rows)
    if found.sentences:
        listed = [
            [f"{one.relative_l2:.3g}", render.printable(one.tokens[one.position]),
             render.printable(" ".join(one.tokens))[:70], one.key[:12]]
            for one in found.sentences
        ]  # fmt: skip
        text += "\n\nsentences that differ most\n"
        text += render.table(["relative L2", "at the token", "sentence", "key"], listed, left=4)
    if found.words:
        what = "relative L2" if found.same_shape else "other neighbours"
        words = [[f"{one.difference:.3g}", render.printable(one.word), f"{one.n_occurrences:,}"]
                 for one in found.words]  # fmt: skip
        text += "\n\nwords that differ most, of those met three times\n"
        text += render.table([what, "word", "times"], words, left=2)
    return text


def _store(found: Comparison, which: int) -> str:
    n_layers, dim = found.shapes[which]
    layers = f"{n_layers} layers of {dim} values" if n_layers > 1 else f"{dim} values"
    return f"{layers} a token, stored as {' and '.join(found.codecs[which])}"


def _spread(spread: Spread) -> str:
    return (
        f"mean {spread.mean:.3g}, median {spread.median:.3g}, 99th percentile {spread.p99:.3g}, "
        f"largest {spread.largest:.3g}"
    )


def _alignment(found: Comparison) -> list[str]:
    note = f"over {found.n_aligned:,} tokens"
    if found.n_aligned < 2 * max(dim for _, dim in found.shapes):
        note += ", too few for so many dimensions: it comes out too high"
    if len(found.alignment) == len(found.alignment[0]) == 1:
        return [f"{found.alignment[0][0]:.4f} ({note})"]
    return [
        *(
            f"layer {i} of a with those of b: {', '.join(f'{value:.4f}' for value in row)}"
            for i, row in enumerate(found.alignment)
        ),
        f"({note})",
    ]


def _verdict(found: Comparison, tolerance: float, beyond: bool) -> str:
    if found.relative_l2 is None:
        return f"cannot be within a relative L2 of {tolerance:g}: layers or dimensions differ"
    largest = found.relative_l2.largest
    said = "beyond" if beyond else "within"
    return f"{said} the tolerance: the largest relative L2 is {largest:.3g}, allowed {tolerance:g}"
