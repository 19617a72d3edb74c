"""What is known of an ELMo without reading its weights: enough to plan an extraction."""

from __future__ import annotations

from featurestore.encoders.base import EncoderOutline
from featurestore.encoders.elmo.files.layers import n_layers_kept, parse_layers
from featurestore.encoders.elmo.files.resolving import resolve


def outline_elmo(rest: str, *, layers: str, initial_state: str) -> EncoderOutline:
    """Return what is known of a model without its weights: no torch, no download.

    Parameters
    ----------
    rest : str
        As for :func:`featurestore.encoders.elmo.files.catalog.parse_source`; local options files are read.
    layers : str
        As for :func:`featurestore.encoders.elmo.files.layers.parse_layers`.
    initial_state : str
        As for :func:`featurestore.encoders.loading.load_encoder`.

    Raises
    ------
    UsageError
        If an argument makes no sense.
    EncoderError
        If an options file cannot be read, or the initial state was not made yet.
    """
    options = resolve(rest, initial_state=initial_state, published="anywhere").shape
    kept = parse_layers(layers, options.n_layers + 1)
    return EncoderOutline(
        options.dim, n_layers_kept(kept), options.megaflops_per_token, options.max_token_bytes
    )
