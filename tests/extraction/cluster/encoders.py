"""Encoders for actors: slow ones, and some that go wrong at a word. Each actor makes one of its own."""

from __future__ import annotations

import os
from pathlib import Path

from featurestore.errors import EncoderOutOfMemory
from tests.kit.doubles import DoubleEncoder


class Slow(DoubleEncoder):
    """Takes a tenth of a second for a batch; differs on nodes where an environment variable says so."""

    def __init__(self, spec: str = "tests.extraction.cluster.encoders:Slow", seconds: float = 0.1) -> None:
        super().__init__(seconds=seconds, spec=spec, drift=float(os.environ.get("TEST_DRIFT", "0")))


class Sick(DoubleEncoder):
    """Raises, ends its process or runs out of memory where a sentence holds a word that says so."""

    def __init__(self) -> None:
        super().__init__(spec="tests.extraction.cluster.encoders:Sick", seconds=0.02)

    def submit(self, sentences):
        words = {word for sentence in sentences for word in sentence}
        if "raise" in words:
            raise ValueError("a word that I do not like")
        if "exit" in words:
            os._exit(0)
        if "large" in words and len(sentences) > 1:
            raise EncoderOutOfMemory("too large beside others")
        return super().submit(sentences)


class Locked(DoubleEncoder):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("cannot pickle a Locked")


class Missing(DoubleEncoder):
    """Cannot be loaded on another node than the driver's."""

    def __init__(self) -> None:
        if "ray::" in Path("/proc/self/cmdline").read_text():
            raise FileNotFoundError("weights.hdf5 is not on this node")
        super().__init__(spec="tests.extraction.cluster.encoders:Missing")
