"""What a node of a cluster says of itself, by code that needs no featurestore there.

Ray sends these functions as they are, so that a node without featurestore, or with another version, can say
so. They import nothing but the standard library, and what they are to report of.
"""

from __future__ import annotations

from typing import Any


def inspect_node(probe: str, nonce: str) -> dict[str, Any]:
    """Return the software of this process, and whether it shares a directory with whoever asks.

    Parameters
    ----------
    probe : str
        Path of a file that was written where the question comes from; an answer is written beside it.
    nonce : str
        What is in it.

    Returns
    -------
    dict
        ``host``, ``python``, ``ray``, ``featurestore`` (versions, None where it is not installed), ``reads``
        (whether the file is here), ``answer`` (the file written beside it, empty if that failed) and
        ``problem`` (what the disk said).
    """
    import os
    import platform
    import uuid
    from importlib import import_module

    versions: dict[str, Any] = {"python": platform.python_version()}
    for package in ("ray", "featurestore"):
        try:
            versions[package] = import_module(package).__version__
        except ImportError:
            versions[package] = None
    reads, answer, problem = False, "", ""
    try:
        with open(probe, encoding="ascii") as file:
            reads = file.read(200) == nonce
        written = f"{probe}.{uuid.uuid4().hex}"
        with open(written, "x", encoding="ascii") as file:
            file.write(nonce)
        answer = os.path.basename(written)
    except OSError as error:
        problem = str(error)
    return {**versions, "host": platform.node(), "reads": reads, "answer": answer, "problem": problem}


def processor() -> str:
    """Return what this machine's processor is called."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
