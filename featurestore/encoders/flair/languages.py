"""The language of a sentence, guessed the same way every time.

Flair guesses with langdetect, which draws random numbers: a short sentence may be Dutch today and Afrikaans
tomorrow. Here the same detector draws from a fixed seed, and looks at the tokens alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langdetect import DetectorFactory, LangDetectException
from langdetect.detector_factory import PROFILES_DIRECTORY

UNKNOWN = "en"
"""What Flair takes where nothing can be guessed: numbers, punctuation."""


def guess_language(tokens: Sequence[str]) -> str:
    """Return the code of the language that tokens, joined by blanks, are probably in."""
    detector = _factory().create()
    detector.append(" ".join(tokens))
    try:
        return str(detector.detect())
    except LangDetectException:
        return UNKNOWN


@functools.cache
def _factory() -> Any:
    """Return a new factory: the library's own is global, and so would its seed be."""
    factory = DetectorFactory()
    # Sorted: a directory's own order differs between file systems, and sums with it.
    profiles = sorted(path for path in Path(PROFILES_DIRECTORY).iterdir() if path.is_file())
    factory.load_json_profile([path.read_text(encoding="utf-8") for path in profiles])
    factory.set_seed(0)
    return factory
