"""Fixtures that many tests share: where the shared corpora are, and an encoder small enough for tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import hypothesis
import pytest

# A machine may be busy with something else.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Before torch is imported, and for the processes that tests start: the tiny model gains nothing from threads,
# and threads that wait for each other on busy cores take seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What tests open is remembered apart from what the user has opened, and by their processes too.
_CACHE = tempfile.TemporaryDirectory(prefix="featurestore-tests-")
os.environ["FEATURESTORE_CACHE"] = _CACHE.name

pytest.register_assert_rewrite("tests.kit")

from tests.kit.places import SHARED, TINY_ELMO  # noqa: E402


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


@pytest.fixture
def bundled(monkeypatch, tmp_path_factory) -> Path:
    """The folder of ``elmo:demo``, which is the tiny model's for this test, whether the real one is there."""
    from featurestore.encoders.elmo.files import catalog

    folder = tmp_path_factory.mktemp("bundled")
    for name in ("options.json", "weights.hdf5"):
        shutil.copy(TINY_ELMO / name, folder / name)
    monkeypatch.setattr(catalog, "BUNDLED_FOLDER", folder)
    monkeypatch.setattr(catalog, "BUNDLED_INITIAL_STATE", "zero")
    return folder


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


@pytest.fixture
def ctrl_c_interrupts():
    """Let SIGINT interrupt the test and the processes it starts, also where a shell made it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def examples():
    """Sixty distinct sentences with a label per token, as if read from corpus.conll."""
    from featurestore import Example

    random, drawn = Random(0), []
    for number in range(60):
        words = [f"s{number}", *(f"w{random.randrange(60)}" for _ in range(random.randrange(14)))]
        labels = ["NOUN" if word.endswith(("1", "2", "3")) else "VERB" for word in words]
        drawn.append(Example(tuple(words), tuple(labels), "corpus.conll", 10 * number + 1))
    return drawn


@pytest.fixture(scope="session")
def example_store(tmp_path_factory, tiny_elmo, examples) -> Path:
    """A store of several shards that holds :func:`examples`."""
    from featurestore import Store, extract

    path = tmp_path_factory.mktemp("examples") / "store"
    extract(examples, tiny_elmo, path, shard_bytes=8_000, progress=False)
    assert len(Store.open(path).manifest.shards) > 2
    return path
