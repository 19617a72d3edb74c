"""Ctrl-C and SIGTERM kept waiting while something is half done that must be whole or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals that arrive inside act when the block ends.

    Only those that Python code handles (Ctrl-C does, by ``KeyboardInterrupt``), and only in the main thread:
    in another they raise nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for each in held:
            signal.signal(each, remember)
        yield
    finally:
        for each, handler in held.items():
            signal.signal(each, handler)
        for number in dict.fromkeys(arrived):
            signal.raise_signal(number)


class Waiting:
    """Ctrl-C and SIGTERM that wait for a moment at which what they interrupt is whole: :func:`waiting`."""

    def __init__(self) -> None:
        self._arrived: list[int] = []
        self._at_once = False
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

    def check(self) -> None:
        """Let a signal act that has arrived."""
        if self._arrived:
            number = self._arrived.pop(0)
            self._handlers[number](number, None)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals act inside as they come, the first of them."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self._at_once:
            self._arrived.append(number)
            return
        self._at_once = False
        self._handlers[number](number, frame)

    def _begin(self) -> None:
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
        for number in self._handlers:
            signal.signal(number, self._take)

    def _end(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(self._arrived):
            signal.raise_signal(number)


@contextmanager
def waiting() -> Iterator[Waiting]:
    """Let the signals of :func:`held_back` wait until they are asked for, or until the block ends.

    For loops of many short steps, which cannot afford to change handlers at each. In another thread than the
    main one nothing waits.
    """
    signals = Waiting()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signals._begin()
    try:
        yield signals
    finally:
        signals._end()
