"""Fixtures of the extraction tests."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """Ctrl-C interrupts tests and the processes they start, also where a shell made it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
