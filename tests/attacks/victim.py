"""A process that uses hostile stores, one child of its own for each: what it says, needs, opens and dies of.

The long-lived process has everything imported. For each store it forks a child with limits on memory and
time, which uses the store in every way a user would and reports. Nothing hostile is opened elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.kit.places import ROOT
from tests.kit.programs import environment, program

MOST_MEMORY = 50 << 20
"""What a hostile store may cost above a harmless one."""

_MOST_DATA = 1 << 30
_MOST_CPU_SECONDS = 20

_WATCHED = re.compile(
    r"open$|os\.(listdir|scandir|remove|rename|link|symlink|mkdir|rmdir|truncate|chmod|exec|system|posix_spawn)|"
    r"shutil\.|socket\.|subprocess\.|ctypes\.dlopen|pickle\."
)


@dataclass
class Report:
    """What became of one use of a store.

    Attributes
    ----------
    stages : dict
        For each way of using the store: ``"fine"``, or exit code and message of the package's error.
    memory : int
        Bytes by which the child grew.
    seconds : float
        Of the processor, for all stages together.
    outside : list of str
        What the child opened or changed outside the store.
    died : str
        Why the child did not report, empty if it did.
    foreign : str
        The traceback of an error that is not the package's, empty if there was none.
    """

    stages: dict[str, list[Any]] = field(default_factory=dict)
    memory: int = 0
    seconds: float = 0.0
    outside: list[str] = field(default_factory=list)
    died: str = ""
    foreign: str = ""

    def exit_code(self, stage: str) -> int:
        return int(self.stages[stage][0])

    def message(self, stage: str) -> str:
        return str(self.stages[stage][1])


class Victim:
    """The long-lived process; a context manager."""

    def __enter__(self) -> Victim:
        self._process = subprocess.Popen(
            program("tests.attacks.victim"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def use(self, store: Path, *, stages: tuple[str, ...] = ()) -> Report:
        """Use a store in a process of its own; all stages unless some are named."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"store": str(store), "stages": stages}), file=self._process.stdin, flush=True)
        return Report(**json.loads(self._process.stdout.readline()))


# -- the long-lived process


def _serve() -> None:
    # Imported here: the test's own process needs none of it.
    heard: list[tuple[str, tuple[object, ...]]] = []
    sys.addaudithook(lambda event, arguments: heard.append((event, arguments)) if heard_from(event) else None)
    watching = [False]

    def heard_from(event: str) -> bool:
        return watching[0] and _WATCHED.match(event) is not None

    stages = _stages()
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as answer:
                watching[0] = True
                chosen = {name: stages[name] for name in request["stages"] or stages}
                json.dump(_report(Path(request["store"]), chosen, heard), answer)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            text = answer.read()
        _, status = os.waitpid(child, 0)
        report = json.loads(text) if text else {"died": _cause(status)}
        print(json.dumps(report), flush=True)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit status {os.WEXITSTATUS(status)} without a report"


def _stages() -> dict[str, Callable[[Path], None]]:
    """Return the ways of using a store, everything they need imported."""
    import numpy as np

    from featurestore.cli.main import main
    from featurestore.errors import FeaturestoreError
    from featurestore.store.store import Store
    from featurestore.store.verification import verify
    from tests.kit.stores import vectors_of

    def command(*arguments: str) -> None:
        shown = io.StringIO()
        code: object = 0
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            try:
                main(arguments)
            except SystemExit as stop:
                code = stop.code
        if code != 0:
            error = FeaturestoreError(shown.getvalue())
            error.exit_code = int(str(code))
            raise error

    def read(path: Path, access: Any) -> None:
        store = Store.open(path, access=access)
        listed = [tokens for _, _, tokens in store.sentences()]
        located = store.locate([reader.key(row) for reader, row in _rows(store)])
        lengths = store.lengths(located)
        for tokens, length, found in zip(listed, lengths, store.get_many(listed), strict=True):
            expected = vectors_of(tokens, dim=store.dim, n_layers=store.n_layers)
            if length != len(tokens) or not np.allclose(found, expected, rtol=2e-2, atol=2e-2):
                raise AssertionError(f"WRONG VECTOR of {tokens!r}")
        for _ in store:
            pass

    def append(path: Path) -> None:
        store = Store.open(path)
        if store.n_layers * store.dim < 1 << 20:
            require_canaries(store, KitEncoder(store.dim, store.n_layers))

    def write(path: Path) -> None:
        with Store.open(path).write() as session:
            shape = session.store.vector_shape(1)
            if np.prod(shape) < 1 << 20:
                session.add(("one", "more")[:1], np.zeros(shape, np.float32))

    def check(path: Path) -> None:
        command("verify", str(path))

    def sweep(path: Path) -> None:
        command("gc", str(path), "--keep-last", "1", "--older-than", "0s")

    def mend(path: Path) -> None:
        command("repair", str(path), "--no-progress")

    # Once for nothing, so that no import, cache or lazily made table counts as an attack's doing.
    import tempfile

    from featurestore.store.canaries import require_canaries
    from tests.kit.stores import KitEncoder, create, fill, sentences

    with tempfile.TemporaryDirectory() as folder:
        warm = fill(create(Path(folder) / "warm"), sentences(3))
        for access in ("mmap", "pread"):
            read(warm.path, access)
        list(verify(warm))
        command("info", str(warm.path))
        check(warm.path)
        append(warm.path)
        write(warm.path)
        sweep(warm.path)
        mend(warm.path)
        with contextlib.suppress(FeaturestoreError):
            check(Path(folder))
    return {
        "info": lambda path: command("info", str(path)),
        "mmap": lambda path: read(path, "mmap"),
        "pread": lambda path: read(path, "pread"),
        "verify": check,
        "quick": lambda path: command("verify", "--quick", str(path)),
        "append": append,
        "write": write,
        "gc": sweep,
        "repair": mend,
    }


def _rows(store: Any) -> Any:
    for shard in range(len(store.manifest.shards)):
        reader = store.reader(shard)
        for row in range(len(reader)):
            yield reader, row


def _report(
    path: Path, stages: dict[str, Callable[[Path], None]], heard: list[tuple[str, tuple[object, ...]]]
) -> dict[str, Any]:
    from featurestore.errors import FeaturestoreError

    # A child of SIGALRM's default dies by it: the parent sees a hang as a death.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_SECONDS, _MOST_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_DATA, _MOST_DATA))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/clear_refs").write_text("5")
    before, began, outcomes, foreign = _peak(), time.process_time(), {}, ""
    heard.clear()
    for name, stage in stages.items():
        try:
            stage(path)
            outcomes[name] = [0, "fine"]
        except FeaturestoreError as error:
            outcomes[name] = [error.exit_code, str(error)]
        except BaseException:  # noqa: BLE001  anything else is what the tests look for
            outcomes[name] = [-1, "foreign"]
            foreign += f"{name}: {traceback.format_exc()}\n"
    outside = _outside(path, heard)
    return {
        "stages": outcomes,
        "memory": _peak() - before,
        "seconds": time.process_time() - began,
        "outside": outside,
        "foreign": foreign,
    }


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) << 10


def _outside(path: Path, heard: list[tuple[str, tuple[object, ...]]]) -> list[str]:
    """Return what was opened or changed outside the store, Python's own files left out."""
    inside = os.path.realpath(path) + os.sep
    # The project's file is that of whoever runs the command, not of the store.
    own = (sys.prefix, sys.base_prefix, str(ROOT / "featurestore"), str(ROOT / "pyproject.toml"))
    found = []
    for event, arguments in list(heard):
        if event == "open" and not isinstance(arguments[0], (str, bytes, os.PathLike)):
            continue
        if event == "open" and arguments[0] == str(path.parent) and int(str(arguments[2])) & os.O_DIRECTORY:
            # Syncing the entry of the store itself.
            continue
        if event == "os.listdir" and arguments[0] in sys.path:
            # Python looks for a module again where a folder has changed: other tests' files come and go.
            continue
        for argument in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
            if isinstance(argument, (str, bytes, os.PathLike)):
                name = os.path.abspath(os.fsdecode(argument))
                # Where a name leads counts; a link that was not followed leads nowhere.
                real = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
                if not (real + os.sep).startswith(inside) and not real.startswith(own):
                    found.append(f"{event} {real}")
            elif event not in ("open", "os.listdir", "os.scandir"):
                found.append(f"{event} {argument!r}")
    return found


if __name__ == "__main__":
    _serve()
