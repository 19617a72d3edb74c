"""File systems that fail, stop half-way, kill their process, or leave out what they were asked to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from typing import Any, Literal

from featurestore.disk.filesystem import FileSystem
from featurestore.disk.operation import Operation

Fault = Callable[[Operation], None]
Moment = Literal["before", "half", "after", "instead"]


class FaultyFileSystem(FileSystem):
    """Counts operations from 0 and does something at one of them.

    Parameters
    ----------
    at : int
        Which one; none if it is never reached.
    fault : callable
        Called with the operation. If it returns, the work goes on.
    moment : {"before", "half", "after", "instead"}
        When it is called. "half" writes half the bytes of a write, and is "before" for everything else;
        "instead" leaves the operation out and says that it was done.
    kinds : collection of str, optional
        Count only these operations.
    for_good : bool
        Do the same at every later operation.
    """

    def __init__(
        self,
        at: int,
        fault: Fault,
        moment: Moment = "before",
        *,
        kinds: Collection[str] | None = None,
        for_good: bool = False,
    ) -> None:
        self.at, self.fault, self.moment, self.kinds, self.for_good = at, fault, moment, kinds, for_good
        self.operations: list[Operation] = []

    def operate(self, operation: Operation, call: Callable[..., Any], *arguments: object) -> Any:
        if self.kinds is not None and operation.kind not in self.kinds:
            return super().operate(operation, call, *arguments)
        number = len(self.operations)
        self.operations.append(operation)
        if not (number == self.at or (self.for_good and number > self.at)):
            return super().operate(operation, call, *arguments)
        if self.moment == "half" and operation.kind == "write":
            written = os.write(operation.descriptor, operation.data[: max(1, operation.n_bytes // 2)])
            self.fault(operation)
            return written
        if self.moment in ("before", "half"):
            self.fault(operation)
        if self.moment == "instead":
            self.fault(operation)
            return 0
        try:
            return super().operate(operation, call, *arguments)
        finally:
            if self.moment == "after":
                self.fault(operation)


class InterruptedFileSystem(FileSystem):
    """Does something once, before the first operation that fits; everything passes on to another one."""

    def __init__(
        self, inner: FileSystem, fits: Callable[[Operation], bool], act: Callable[[], object]
    ) -> None:
        self.inner, self.fits, self.act = inner, fits, act
        self.happened = False

    def operate(self, operation: Operation, call: Callable[..., Any], *arguments: object) -> Any:
        if not self.happened and self.fits(operation):
            self.happened = True
            self.act()
        return self.inner.operate(operation, call, *arguments)


class WithoutLinks(FileSystem):
    """A disk on which a file has one name."""

    def __init__(self, code: int) -> None:
        self.code, self.n_renames = code, 0

    def operate(self, operation: Operation, call: Callable[..., Any], *arguments: object) -> Any:
        if operation.kind == "link":
            raising(self.code)(operation)
        self.n_renames += operation.kind == "rename"
        return super().operate(operation, call, *arguments)


def kill(_: Operation) -> None:
    """End this process as the kernel does, without a chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


def ignore(_: Operation) -> None:
    """Do nothing."""


def raising(code: int) -> Fault:
    """Return a fault that is an error of the operating system."""

    def fault(operation: Operation) -> None:
        raise OSError(code, os.strerror(code), str(operation.path))

    return fault


class Stopping(FileSystem):
    """A disk that fails after ``step`` operations."""

    def __init__(self, step: int) -> None:
        self.step, self.n_steps = step, 0

    def operate(self, operation, call, *arguments):
        self.n_steps += 1
        if self.n_steps > self.step:
            raise OSError(5, "stopped")
        return super().operate(operation, call, *arguments)
