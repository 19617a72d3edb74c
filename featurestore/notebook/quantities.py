"""Bytes and seconds as people read them."""

from __future__ import annotations


def size(n_bytes: float) -> str:
    """Return bytes for people: 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:,.0f} {unit}" if unit == "bytes" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds for people: 4 min 10 s."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def whole_numbers(low: float, high: float, dash: str = " - ") -> str:
    """Return the whole numbers from ``low`` up to, not including, ``high``: 4 - 7, or 4 if that is all."""
    first, last = int(low), int(high) - 1
    return f"{first:,}" if first == last else f"{first:,}{dash}{last:,}"
