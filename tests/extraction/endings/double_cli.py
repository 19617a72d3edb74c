"""The featurestore command with ``double:SECONDS`` as one more encoder: a real process, slow on purpose.

``double:SECONDS,LOADING`` also takes LOADING seconds to load, and says when it begins.
"""

from __future__ import annotations

import sys
import time

from featurestore import families
from featurestore.cli.main import main
from featurestore.encoders.base import EncoderOutline
from featurestore.recipe import Recipe
from tests.kit.doubles import DoubleEncoder


def load_double(rest: str, **_: object) -> DoubleEncoder:
    seconds, _, loading = rest.partition(",")
    if loading:
        print("loading", file=sys.stderr, flush=True)
        time.sleep(float(loading))
    return DoubleEncoder(seconds=float(seconds), spec=f"double:{rest}")


def outline_double(rest: str, **_: object) -> EncoderOutline:
    return EncoderOutline(dim=8, n_layers=1)


def double_recipe(rest: str, **_: object) -> Recipe:
    return DoubleEncoder().recipe


families.FAMILIES += (
    families.Family(
        "double",
        load="tests.extraction.endings.double_cli:load_double",
        outline="tests.extraction.endings.double_cli:outline_double",
        recipe="tests.extraction.endings.double_cli:double_recipe",
        forms=("double:SECONDS",),
    ),
)

if __name__ == "__main__":
    main(sys.argv[1:])
