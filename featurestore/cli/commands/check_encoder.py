"""``check-encoder``: does an encoder keep the rules that extraction relies on."""

from __future__ import annotations

import click

from featurestore.cli.completing import encoders
from featurestore.cli.display import render
from featurestore.cli.flags import device_option, json_option
from featurestore.cli.project.command import command


@command("check-encoder")
@click.argument("encoder", metavar="SPEC", shell_complete=encoders)
@device_option
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="Relative L2 by which the vectors of a sentence may differ.  "
    "[default: what the recipe's precision explains]",
)
@json_option
def check_encoder(encoder: str, device: str, tolerance: float | None, as_json: bool) -> None:
    """Check an encoder against the rules that extraction relies on.

    SPEC is an encoder as for extract, above all one of your own: PACKAGE.MODULE:CLASS, or a function that
    returns one, whose code is run. It encodes a few sentences alone, again, among others and in another
    order; shapes and types are checked, and vectors must depend on the sentence alone. Exits with 1 for the
    first rule that is broken. The same check for your own tests: featurestore.testing.check_encoder.
    """
    from featurestore.encoders.loading import load_encoder
    from featurestore.testing import check_encoder as check

    loaded = load_encoder(encoder, device=device)
    found = check(loaded, tolerance=tolerance)
    if as_json:
        render.echo_json(
            {
                "sound": True,
                "encoder": loaded.spec,
                "device": loaded.device,
                "dim": loaded.dim,
                "n_layers": loaded.n_layers,
                **vars(found),
            }
        )
        return
    click.echo(
        render.facts(
            [
                ("encoder", f"{loaded.spec} on {loaded.device}"),
                ("vectors", f"{loaded.dim} dimensions, {render.count(loaded.n_layers, 'layer')}"),
                (
                    "encoded",
                    f"{render.count(found.n_sentences, 'sentence')} in "
                    f"{render.count(found.n_batches, 'call')}"
                    + (", also by submit()" if found.has_submit else ""),
                ),
                ("differ", f"by a relative L2 of {found.largest:.2g} at most, allowed {found.tolerance:.2g}"),
            ]
        )
    )
    click.echo("sound: every rule is kept")
