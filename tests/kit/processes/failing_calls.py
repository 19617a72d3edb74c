"""System calls that really fail on some files: a small library, preloaded into a program of its own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.programs import environment, program

_SWITCH = "FAILING_CALLS"


@contextmanager
def failing(call: str, error: int, where: str) -> Iterator[None]:
    """In a program that :func:`run_preloaded` runs: have a call fail on files whose path contains ``where``.

    Parameters
    ----------
    call : {"flock", "pread", "mmap", "fstat"}
    error : int
        What errno says.
    where : str
    """
    os.environ[_SWITCH] = f"{call}:{error}:{where}"
    try:
        yield
    finally:
        del os.environ[_SWITCH]


def run_preloaded(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module in which calls can fail; skip where there is no compiler, or another C library."""
    run = subprocess.run(
        program(module, *arguments), env=environment(LD_PRELOAD=_library()), capture_output=True, text=True
    )
    if "cannot be preloaded" in run.stderr:
        pytest.skip("this C library takes no preloaded calls by these names")
    return run


@functools.cache
def _library() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = Path(__file__).with_suffix(".c")
    built = Path(tempfile.mkdtemp(prefix="featurestore-calls-")) / "calls.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", str(source), "-o", str(built), "-ldl"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"the library of failing calls does not compile here: {done.stderr[-200:]}")
    return str(built)
