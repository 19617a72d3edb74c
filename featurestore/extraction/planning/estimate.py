"""Estimating encoding speed before a model is loaded: from the store's last run, else from arithmetic."""

from __future__ import annotations

import time

import numpy as np

from featurestore.encoders.base import EncoderOutline
from featurestore.store.format.manifest import Manifest

_SHARE_OF_PEAK = 0.8
"""What an encoder reaches of the speed that NumPy multiplies at: on an AMD EPYC 0.82 with elmo:demo, 0.96
with ``original``, whose products are faster than NumPy's."""


def expected_speed(
    manifest: Manifest | None, outline: EncoderOutline, device: str, precision: str = "auto"
) -> tuple[float | None, str]:
    """Return tokens per second to expect, and what that rests on; (None, "") where nothing is known.

    Parameters
    ----------
    manifest : Manifest or None
        Of the store; its last commit says how fast it was.
    outline : EncoderOutline
    device : str
        ``auto``, ``cpu`` or ``cuda...``; only a CPU can be probed without loading torch.
    precision : str
        What the encoder computes in. NumPy cannot time the sixteen-bit ones, which one processor has units
        for and the next emulates: they are estimated as float32, and the basis says so.
    """
    last = manifest.commit if manifest is not None else None
    if last is not None and last.tokens_per_second and (device == "auto" or last.device.startswith(device)):
        return last.tokens_per_second, f"this store's last commit, on {last.device}"
    if outline.megaflops_per_token and device in ("auto", "cpu"):
        speed = _SHARE_OF_PEAK * _matrix_flops() / (outline.megaflops_per_token * 1e6)
        timed = "a matrix product timed on this CPU"
        if precision not in ("auto", "float32"):
            return (
                speed,
                f"{timed} in float32; {precision} may be several times slower",
            )
        return speed, f"{timed}; a GPU is far faster"
    return None, ""


def _matrix_flops() -> float:
    """Return the floating point operations a second of a float32 matrix product here."""
    rows, inner, columns = 256, 1024, 4096
    a, b = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best
