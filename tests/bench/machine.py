"""The machine a figure was measured on: in one line for people, in full for a report."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.kit.places import ROOT

LIBRARIES = (
    "torch", "numpy", "h5py", "flair", "xxhash", "lmdb", "datasets", "pyarrow", "safetensors", "matplotlib",
)  # fmt: skip


def machine() -> str:
    """Return the processor, its cores, and the versions that matter for speed."""
    import torch

    return f"{os.cpu_count()} x {processor()}, torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """Return the processor's name, and how its matrix products are done where that matters for bfloat16."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine()
    found: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = found.get("flags", "").split()
    units = [unit for flag, unit in (("avx512_bf16", "AVX-512 BF16"), ("amx_bf16", "AMX")) if flag in flags]
    return ", ".join([found.get("model name", platform.machine()), *units])


def details() -> dict[str, Any]:
    """Return the machine, the versions and the revision, as plain JSON values."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_bytes": memory,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "revision": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    """Return what git says of the repository, nothing where there is none."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
