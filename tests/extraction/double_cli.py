"""The featurestore command with ``double:SECONDS`` as one more encoder: a real process, slow on purpose."""

from __future__ import annotations

import sys

from doubles import DoubleEncoder

from featurestore.cli.main import main
from featurestore.encoders.base import EncoderOutline
from featurestore.extraction import api


def load_encoder(spec: str, **_: object) -> DoubleEncoder:
    return DoubleEncoder(seconds=float(spec.removeprefix("double:")), spec=spec)


def outline_encoder(spec: str, **_: object) -> EncoderOutline:
    return EncoderOutline(dim=8, n_layers=1)


api.load_encoder, api.outline_encoder = load_encoder, outline_encoder

if __name__ == "__main__":
    main(sys.argv[1:])
