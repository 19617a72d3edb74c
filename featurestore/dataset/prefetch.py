"""Batches copied to a device ahead of their use: to a GPU on a stream of its own, from pinned memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence

from featurestore.dataset.batch import FeatureBatch
from featurestore.devices import choose_device
from featurestore.errors import UsageError


class _Ahead(NamedTuple):
    """A batch on its way: its copy, what says that it has arrived, and where the loader stood after it."""

    batch: FeatureBatch
    arrived: torch.cuda.Event | None
    state: Any


class DevicePrefetcher:
    """The batches of a loader, each copied to a device while the one before is computed with.

    ::

        for batch in DevicePrefetcher(feature_loader(dataset), "cuda"):
            model(batch.features)

    The copy runs on a CUDA stream of its own, from pinned memory; a loader made with ``pin_memory=True``
    gathers features there, of others they are copied there first. The stream that is current when a batch is
    handed on waits for it, not the processor. On a CPU batches pass as they are.

    Parameters
    ----------
    loader : FeatureLoader
        Or any iterable of :class:`~featurestore.dataset.batch.FeatureBatch`.
    device : str or torch.device
        ``"cuda"``, ``"cuda:N"``, ``"cpu"`` or ``"auto"``.
    depth : int
        Batches that are copied ahead, at least 1; each takes its memory on the device.

    Raises
    ------
    UsageError
        If there is no such device, or ``depth`` is too small.
    """

    def __init__(
        self, loader: Iterable[FeatureBatch], device: str | torch.device = "auto", *, depth: int = 1
    ) -> None:
        if not isinstance(depth, int) or depth < 1:
            raise UsageError(f"depth={depth!r}: must be at least 1, an integer")
        self.loader, self.depth = loader, depth
        self.device = choose_device(str(device))
        self._stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":  # needs a GPU
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._state: Any = None

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, as the loader does."""
        self._state = None
        self._stateful().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the pass stands: behind the batch that was handed on last, not those copied ahead."""
        state = self._stateful().state_dict() if self._state is None else self._state
        return dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was taken, as the loader does."""
        self._state = None
        self._stateful().load_state_dict(state)

    def __iter__(self) -> Iterator[FeatureBatch]:
        has_state = hasattr(self.loader, "state_dict")
        waiting: deque[_Ahead] = deque()
        for batch in self.loader:
            waiting.append(self._copied(batch, self._stateful().state_dict() if has_state else None))
            if len(waiting) > self.depth:
                yield self._handed_on(waiting.popleft())
        while waiting:
            yield self._handed_on(waiting.popleft())
        self._state = None

    def _stateful(self) -> Any:
        if not hasattr(self.loader, "state_dict"):
            raise UsageError(
                f"a {type(self.loader).__name__} has no epochs and no state: give a loader of feature_loader"
            )
        return self.loader

    def _copied(self, batch: FeatureBatch, state: Any) -> _Ahead:
        if self._stream is None:
            return _Ahead(batch.to(self.device), None, state)
        with torch.cuda.stream(self._stream):  # needs a GPU
            # The allocator of pinned memory keeps a block until copies from it are done.
            copy = batch.pin_memory().to(self.device, non_blocking=True)
            return _Ahead(copy, self._stream.record_event(), state)

    def _handed_on(self, ahead: _Ahead) -> FeatureBatch:
        if ahead.arrived is not None:  # needs a GPU
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ahead.arrived)
            for tensor in _tensors(ahead.batch):
                # Its memory belongs to the copying stream, which must not use it again before this one did.
                tensor.record_stream(current)
        self._state = ahead.state
        return ahead.batch


def _tensors(value: Any) -> Iterator[torch.Tensor]:  # needs a GPU
    """Yield the tensors on a GPU that a batch, or a part of one, holds."""
    if isinstance(value, FeatureBatch):
        parts: Iterable[Any] = vars(value).values()
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, PackedSequence):
        parts = (value.data, value.sorted_indices, value.unsorted_indices)
    elif isinstance(value, torch.Tensor) and value.is_nested:
        nested: Any = value
        parts = (nested.values(), nested.offsets())
    else:
        if isinstance(value, torch.Tensor) and value.is_cuda:
            yield value
        return
    for part in parts:
        yield from _tensors(part)
