"""A real Ray cluster on this machine: several nodes, each with processes of its own, that can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")

_STORE_BYTES = 80 << 20
"""Of each node's object store, in shared memory."""

_TRIES = 4


class LocalCluster:
    """A head and further nodes with a CPU each.

    Parameters
    ----------
    n_nodes : int
        The head included.
    """

    def __init__(self, n_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        common = {"num_cpus": 1, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=common, connect=False)
        self._nodes: list[Any] = []
        for _ in range(n_nodes - 1):
            self.add_node()

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._cluster.address)

    def add_node(self, n_cpus: float = 1, **environment: str) -> Any:
        """Start a node, whose processes have these variables too."""
        for tries_left in reversed(range(_TRIES)):
            try:
                node = self._cluster.add_node(
                    num_cpus=n_cpus, object_store_memory=_STORE_BYTES, env_vars=environment or None
                )
                break
            except Exception as error:
                # Ray gives a node thirty seconds to start, which a busy machine may need.
                if "timed out during startup" not in str(error) or not tries_left:
                    raise
        self._nodes.append(node)
        return node

    def remove_node(self, node: Any) -> None:
        """End a node in good order."""
        self._nodes.remove(node)
        self._cluster.remove_node(node)

    def kill_node(self, node: Any | None = None) -> None:
        """Kill the raylet of a node, by default of the first that is not the head: its workers go with it."""
        node = node or self._nodes[0]
        node.kill_raylet()
        with contextlib.suppress(ValueError):
            self._nodes.remove(node)

    @property
    def nodes(self) -> list[Any]:
        """Those that are not the head."""
        return list(self._nodes)

    def actors(self) -> list[int]:
        """Return the processes of extraction actors on any of its nodes."""
        raylets = {self._raylet(node) for node in (self._cluster.head_node, *self._nodes)}
        return sorted(
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if _parent(pid) in raylets and _title(pid).startswith("ray::EncodingActor")
        )  # fmt: skip

    def kill_actor(self, position: int = 0) -> None:
        """Kill the process of an actor."""
        os.kill(self.actors()[position], signal.SIGKILL)

    def shut_down(self) -> None:
        """End it."""
        self._cluster.shutdown()

    @staticmethod
    def _raylet(node: Any) -> int:
        [raylet] = node.all_processes.get("raylet", [None])
        return raylet.process.pid if raylet is not None else -1


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return -2


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
