"""A Ray cluster: connecting to one, and finding out before anything is encoded whether it can do the work."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from featurestore._version import __version__
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.temporary import temporary_name
from featurestore.errors import EncoderError, StoreWriteError, UsageError
from featurestore.extraction.cluster import inspection
from featurestore.store.format.directory import MANIFESTS, TMP

logger = logging.getLogger(__name__)

LOCAL_CLUSTER = "local"
_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_ANSWER = 120.0

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # a service that is no cluster is not asked twenty times
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def require_ray() -> Any:
    """Return the package.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError(
            "the engine ray needs Ray, which is not installed: pip install 'featurestore[ray]', the same "
            "version on every node"
        ) from error


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Hold a connection to a cluster; one that the program has made already is used and left as it is.

    Raises
    ------
    UsageError
        If there is no cluster at the address, or one of other versions.
    """
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    _require_answer(ray, address)
    before = _handlers()
    with _silent(ray):
        try:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
            if address == LOCAL_CLUSTER:
                options["include_dashboard"] = False
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError, ImportError, SystemExit) as error:
            # Of other versions Ray says both, its own and Python's; at no cluster it may end the process.
            raise UsageError(_no_cluster(address, str(error).strip())) from error
        finally:
            _restore(before)
        try:
            yield ray
        finally:
            with contextlib.suppress(Exception):
                ray.shutdown()
            _restore(before)


def require_room(ray: Any, n_actors: int | None, n_cpus: float, n_gpus: float) -> int:
    """Return how many actors to start: as many as asked for, by default as many as there is room for.

    Raises
    ------
    UsageError
        If no node has what one actor needs.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    fits = 0
    for node in nodes:
        has = node["Resources"]
        by = [has.get(name, 0.0) // each for name, each in (("CPU", n_cpus), ("GPU", n_gpus)) if each]
        fits += int(min(by)) if by else 1
    if not fits:
        listed = "; ".join(
            f"{node['NodeManagerHostname']}: {node['Resources'].get('CPU', 0):g} CPUs, "
            f"{node['Resources'].get('GPU', 0):g} GPUs"
            for node in nodes
        )
        raise UsageError(
            f"no node has what an actor takes, {n_cpus:g} CPUs and {n_gpus:g} GPUs ({listed}); "
            "ask for less (--cpus-per-actor, --gpus-per-actor), or start Ray with what is there "
            "(ray start --num-cpus, --num-gpus)"
        )
    if n_actors is not None and n_actors > fits:
        logger.warning(
            "%d actors are asked for, and the cluster has room for %d: the others start when there is more",
            n_actors, fits,
        )  # fmt: skip
    return fits if n_actors is None else n_actors


class Probe:
    """A file in the store's directory by which nodes show that they share it.

    Parameters
    ----------
    location : Path
        The store's directory, which may not exist yet.
    """

    def __init__(self, location: Path) -> None:
        self.location, self.nonce = location, secrets.token_hex(16)
        self.path = location / TMP / temporary_name(".probe")

    @contextmanager
    def laid(self) -> Iterator[Probe]:
        """Hold the file; what was made for it is removed where no store was made meanwhile."""
        made = [path for path in (self.location, self.path.parent) if not path.exists()]
        LOCAL.make_directory(self.path.parent, lasting=False)
        try:
            with LOCAL.temporary_file(self.path, [self.nonce.encode()]):
                yield self
        finally:
            for path in self.path.parent.glob(f"{self.path.name}*"):
                with contextlib.suppress(StoreWriteError):
                    LOCAL.remove(path)
            for path in reversed(made) if not (self.location / MANIFESTS).exists() else ():
                with contextlib.suppress(OSError):
                    path.rmdir()

    def is_answered(self, answer: str) -> bool:
        """Return whether an answer that a node says it wrote is here, and remove it."""
        path = self.path.with_name(answer)
        is_here = answer.startswith(self.path.name) and os.path.basename(answer) == answer and path.exists()
        if is_here:
            LOCAL.remove(path)
        return is_here


def require_same(ray: Any, probe: Probe) -> None:
    """Ask every node for its software and whether it shares the store's directory.

    Raises
    ------
    UsageError
        If a node has another version of Python, Ray or featurestore, naming both.
    StoreWriteError
        If nodes do not share the directory.
    EncoderError
        If a node does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.cloudpickle.register_pickle_by_value(inspection)
    try:
        ask = ray.remote(num_cpus=0, max_retries=0)(inspection.inspect_node)
        asked = [
            (
                node,
                ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)),
            )
            for node in _nodes_with_work(ray)
        ]
        answers = [(node, each.remote(str(probe.path), probe.nonce).future()) for node, each in asked]
    finally:
        ray.cloudpickle.unregister_pickle_by_value(inspection)
    found = [each for node, future in answers if (each := _answer(ray, node, future)) is not None]
    _require_versions(ray, found)
    apart = [each for each in found if not (each["reads"] and probe.is_answered(each["answer"]))]
    if apart:
        listed = "; ".join(
            f"{each['host']} ({each['problem'] or 'it has another directory there'})" for each in apart
        )
        raise StoreWriteError(
            f"not every node shares the directory of the store, {probe.location}: a file written here is not "
            f"the one at {listed}. Put the store on a disk that all nodes mount at the same path",
            path=probe.location,
        )


def _nodes_with_work(ray: Any) -> list[dict[str, Any]]:
    """Return the nodes on which an actor may run."""
    return [
        node for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) + node["Resources"].get("GPU", 0)
    ]  # fmt: skip


def _answer(ray: Any, node: dict[str, Any], future: Future[dict[str, Any]]) -> dict[str, Any] | None:
    """Wait for what a node says of itself; None if it dies meanwhile: that may take Ray a while to notice."""
    host = node["NodeManagerHostname"]
    until = time.monotonic() + _SECONDS_TO_ANSWER
    while True:
        try:
            # Not for long at a time, and not in Ray, so that signals are heard.
            return future.result(timeout=1.0)
        except FutureTimeoutError:
            problem: BaseException | None = None
        except ray.exceptions.RayError as error:
            problem = error
        if all(each["NodeID"] != node["NodeID"] for each in _nodes_with_work(ray)):
            return None
        if problem is not None or time.monotonic() > until:
            what = str(problem or f"no answer in {_SECONDS_TO_ANSWER:.0f} s").strip()
            raise EncoderError(
                f"node {host} of the cluster does not run what it is given: {what}"
            ) from problem


def _require_versions(ray: Any, found: Sequence[dict[str, Any]]) -> None:
    mine = {"python": platform.python_version(), "ray": ray.__version__, "featurestore": __version__}
    wrong = []
    for name, version in mine.items():
        others = sorted(
            {f"{each[name] or 'none'} on {each['host']}" for each in found if each[name] != version}
        )
        if others:
            wrong.append(f"{name} {version} here, {', '.join(others)}")
    if wrong:
        raise UsageError(
            f"the nodes of the cluster have other software than this process: {'; '.join(wrong)}. Install "
            "the same versions on all of them (pip install 'featurestore[ray]' with one constraints file)"
        )


def _require_answer(ray: Any, address: str) -> None:
    """Raise unless something listens at an address: Ray would try for minutes, then end the process."""
    if address == LOCAL_CLUSTER:
        return
    try:
        where = _resolved(ray, address)
    except ConnectionError as error:
        raise UsageError(_no_cluster(address, "none runs on this machine")) from error
    if where is None:
        return
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(
            f"{address!r} is no address of a Ray cluster: expected auto, local, HOST:PORT or ray://HOST:PORT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UsageError(_no_cluster(address, f"{where}: {error}")) from error


def _resolved(ray: Any, address: str) -> str | None:
    """Return what ``auto`` means here; None where Ray does not say so before connecting."""
    if address != "auto":
        return address
    if os.environ.get("RAY_ADDRESS"):
        return os.environ["RAY_ADDRESS"]
    resolve = getattr(import_module("ray._private.services"), "canonicalize_bootstrap_address", None)
    if resolve is None:
        return None
    found: str | None = resolve("auto")
    if found is None:
        raise ConnectionError
    return found


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"cannot connect to a Ray cluster at {address!r} ({reason}). Start one (ray start --head on a node, "
        "ray start --address=HEAD:6379 on the others) and name it (--address HEAD:6379), or let "
        "--address local use this machine alone"
    )


def _handlers() -> dict[int, Any]:
    """Return who handles signals, which connecting changes."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Keep what Ray prints of nodes that die off standard output, where results go: it is logged instead."""
    worker: Any = import_module("ray._private.worker")
    printing = getattr(worker, "print_to_stdstream", None)
    if printing is None:
        yield
        return
    worker.print_to_stdstream = lambda data, *_, **__: logger.debug(
        "ray: %s", "\n".join(data.get("lines", []))
    )
    try:
        yield
    finally:
        worker.print_to_stdstream = printing
