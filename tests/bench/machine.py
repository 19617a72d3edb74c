"""The machine a figure was measured on, in one line."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Return the processor, its cores, and the versions that matter for speed."""
    import torch

    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), name)
    return f"{os.cpu_count()} x {name}, torch {torch.__version__}, Python {platform.python_version()}"
