"""Fixtures that many tests share: where the shared corpora are, and an encoder small enough for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch is imported, and for the processes that tests start: the tiny model gains nothing from threads,
# and threads that wait for each other on busy cores take seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TINY_ELMO = ROOT / "tests" / "golden" / "elmo-tiny"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Returns a path under ../shared, or skips the test with the reason."""

    def require(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"needs {path}, which is not here")
        return path

    return require


@pytest.fixture(scope="session")
def tiny_elmo_spec() -> str:
    """A real ELMo of 32 dimensions with random weights in two files."""
    return f"elmo:{TINY_ELMO / 'options.json'},{TINY_ELMO / 'weights.hdf5'}"


@pytest.fixture(scope="session")
def tiny_elmo(tiny_elmo_spec):
    """The encoder of :func:`tiny_elmo_spec` on the CPU, layers averaged."""
    from featurestore import load_encoder

    return load_encoder(tiny_elmo_spec, device="cpu")


class SmallDisks:
    """Mounts real, tiny file systems: calling it with a size returns an empty one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mounted: list[Path] = []

    def __call__(self, size: str) -> Path:
        disk = self._folder / f"disk{len(self._mounted)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "featurestore-test", str(disk)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs mount(8), which is not here")
        if done.returncode:
            pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
        self._mounted.append(disk)
        return disk

    def resize(self, disk: Path, size: str) -> None:
        """Change the size of a disk, and what else mount(8) takes after it (``1m,ro``)."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)

    def unmount_all(self) -> None:
        for disk in self._mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def tmpfs(tmp_path):
    """:class:`SmallDisks`, unmounted when the test ends."""
    disks = SmallDisks(tmp_path)
    yield disks
    disks.unmount_all()
