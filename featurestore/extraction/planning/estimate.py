"""Estimating encoding time before a model is loaded: the speed of short sentences, and what long ones cost.

The speed comes from the store's last run, else from arithmetic. A recurrent network walks a sentence step by
step, so that a batch of few long sentences takes longer than the same words in many short ones; what a token
costs by the length of its sentence was measured (:data:`LENGTH_COSTS`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path

import numpy as np

from featurestore import encoders
from featurestore.encoders.base import EncoderOutline
from featurestore.native import switched_off
from featurestore.store.format.manifest import Manifest

LENGTH_COSTS: Mapping[str, tuple[tuple[int, float], ...]] = {
    "elmo": ((20, 1.0), (60, 1.1), (125, 1.35), (250, 1.5), (500, 2.0), (1000, 3.0), (6000, 3.2)),
    "elmo, not compiled": (
        (20, 1.0), (60, 1.1), (125, 1.35), (250, 1.5), (500, 2.0), (1000, 3.0), (2000, 5.8), (6000, 14.6)
    ),
}  # fmt: skip
"""By family: what a token costs in sentences of a length, relative to sentences of 20 tokens, with the
default token budget; between the lengths by interpolation over their logarithms, beyond constant.

Measured by ``python -m tests.bench.encoding.length_costs`` with elmo:demo in float32 on two cores of an AMD
EPYC (30 November 2026); in the table is the middle of one thread (1.07, 1.31, 1.36, 1.75, 2.55 up to 1,000
tokens) and two (1.11, 1.40, 1.60, 2.18, 3.33). From 1,024 on, where the recurrence is compiled, a token costs
1.5 to 2.7, in bfloat16 up to 3.7, with the shape of ``original`` 3.3 to 4.2; 3.2 stands for all of them."""

_SHARE_OF_PEAK = 0.8
"""Share of NumPy's matrix product speed that an encoder reaches: on an AMD EPYC 0.82 with elmo:demo, 0.96
with ``original``, whose products are faster than NumPy's."""

_SPREAD_OF_RUNS, _SPREAD_OF_ARITHMETIC = 1.5, 2.5
"""Factors by which an estimate from an earlier run, or from arithmetic, may be off in either direction."""


@dataclass(frozen=True)
class Speed:
    """How fast sentences of usual length are expected to be encoded.

    Attributes
    ----------
    tokens_per_second : float
    basis : str
        What that rests on.
    faster, slower : float
        Factors by which the true time may be shorter or longer.
    """

    tokens_per_second: float
    basis: str
    faster: float = 1.0
    slower: float = 1.0


def expected_speed(
    manifest: Manifest | None, outline: EncoderOutline, device: str, precision: str = "auto"
) -> Speed | None:
    """Return the speed to expect; None where nothing is known.

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
    earlier = None if manifest is None else _earlier_speed(manifest, device)
    if earlier is not None:
        return earlier
    if outline.megaflops_per_token and device in ("auto", "cpu"):
        speed = _SHARE_OF_PEAK * _matrix_flops() / (outline.megaflops_per_token * 1e6)
        basis = "a matrix product timed on this CPU"
        if precision not in ("auto", "float32"):
            basis += f" in float32; {precision} may be several times slower"
        else:
            basis += "; a GPU is far faster"
        return _on_this_machine(Speed(speed, basis, _SPREAD_OF_ARITHMETIC, _SPREAD_OF_ARITHMETIC), "cpu")
    return None


def _earlier_speed(manifest: Manifest, device: str) -> Speed | None:
    """Return the speed of a store's last commit, if it says one and was made on such a device."""
    last = manifest.commit
    if not last.tokens_per_second or not (device == "auto" or last.device.startswith(device)):
        return None
    # That commit may have been of long sentences, which are slower.
    mean = manifest.n_tokens / max(1, manifest.n_sentences)
    kind, precision = str(manifest.recipe["kind"]), str(manifest.recipe.get("precision", "auto"))
    speed = last.tokens_per_second * cost_by_length(kind, last.device, mean, precision=precision)
    basis = f"this store's last commit, on {last.device}"
    return _on_this_machine(Speed(speed, basis, _SPREAD_OF_RUNS, _SPREAD_OF_RUNS), last.device)


def cost_by_length(family: str, device: str, n_tokens: float, *, precision: str = "auto") -> float:
    """Return what a token of a sentence costs, relative to one of a short sentence.

    Parameters
    ----------
    family : str
        Of the encoder; 1 for one that was not measured.
    device : str
        1 for a GPU, whose batches hold enough long sentences to keep it busy.
    n_tokens : float
        Length of the sentence.
    precision : str
        What the encoder computes in; the compiled recurrence has no float16.
    """
    compiled = "" if _recurrence_is_compiled() and precision != "float16" else ", not compiled"
    costs = LENGTH_COSTS.get(f"{family}{compiled}", LENGTH_COSTS.get(family))
    return _interpolated(costs, device, n_tokens)


def cost_anywhere(family: str, device: str, n_tokens: float) -> float:
    """Return about what a token of a sentence costs, the same on every machine, however it is installed.

    Parameters are those of :func:`cost_by_length`.
    """
    return _interpolated(LENGTH_COSTS.get(family), device, n_tokens)


def _interpolated(costs: tuple[tuple[int, float], ...] | None, device: str, n_tokens: float) -> float:
    if costs is None or device.startswith("cuda"):
        return 1.0
    lengths, factors = zip(*costs, strict=True)
    return float(np.interp(log(max(1.0, n_tokens)), np.log(lengths), factors))


@cache
def _recurrence_is_compiled() -> bool:
    """Return whether an ELMo's long sentences are walked by compiled code, without loading torch."""
    folder = Path(encoders.__file__).parent / "elmo" / "model"
    return not switched_off() and any(folder.glob("_recurrence.*"))


def _on_this_machine(speed: Speed, device: str) -> Speed:
    """Widen an estimate for a CPU that others use, too."""
    if device != "cpu" or not hasattr(os, "getloadavg"):
        return speed
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return widened(speed, os.getloadavg()[0], n_cores)


def widened(speed: Speed, load: float, n_cores: int) -> Speed:
    """Return a speed with the time it may take longer where other processes use the processor.

    Parameters
    ----------
    speed : Speed
    load : float
        Processes that want to run, on average.
    n_cores : int
    """
    if load < n_cores / 2:
        return speed
    return Speed(
        speed.tokens_per_second,
        f"{speed.basis}; this machine is busy now: load {load:.0f} on {n_cores} cores",
        speed.faster,
        speed.slower * (1 + load / n_cores),
    )


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
