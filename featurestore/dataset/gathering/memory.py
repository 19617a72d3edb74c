"""How much memory is free: of the computer, of the control group the process is in, of a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Return the bytes that can be allocated on a device without evicting anything."""
    if device.type == "cuda":  # needs a GPU
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_machine_bytes(), _control_group_bytes())


def _machine_bytes() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    # Not Linux: all memory of the machine, as there is no portable way to ask for what is free.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_group_bytes() -> int:
    """Return what a container may still allocate, counting page cache as free; 2^62 outside of one."""
    try:
        most = (_CONTROL_GROUP / "memory.max").read_text().strip()
        used = int((_CONTROL_GROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (_CONTROL_GROUP / "memory.stat").read_text().splitlines())
        return 1 << 62 if most == "max" else max(0, int(most) - used + int(cached.get("file", 0)))
    except (OSError, ValueError):
        return 1 << 62
