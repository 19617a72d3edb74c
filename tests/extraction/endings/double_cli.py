"""The featurestore command with ``double:SECONDS`` as one more encoder: a real process, slow on purpose.

``double:SECONDS,LOADING`` also takes LOADING seconds to load, and says when it begins.
"""

from __future__ import annotations

import sys
import time

from featurestore.cli.main import main
from featurestore.encoders.base import EncoderOutline
from featurestore.extraction import api
from featurestore.recipe import Recipe
from tests.kit.doubles import DoubleEncoder


def load_encoder(spec: str, **_: object) -> DoubleEncoder:
    seconds, _, loading = spec.removeprefix("double:").partition(",")
    if loading:
        print("loading", file=sys.stderr, flush=True)
        time.sleep(float(loading))
    return DoubleEncoder(seconds=float(seconds), spec=spec)


def outline_encoder(spec: str, **_: object) -> EncoderOutline:
    return EncoderOutline(dim=8, n_layers=1)


def encoder_recipe(spec: str, **_: object) -> Recipe:
    return DoubleEncoder().recipe


api.load_encoder, api.outline_encoder, api.encoder_recipe = load_encoder, outline_encoder, encoder_recipe

if __name__ == "__main__":
    main(sys.argv[1:])
