"""A process that has imported everything, and forks one that runs ``featurestore`` for each line it reads.

A line is JSON: the arguments, and the file that takes what the command says. The answer is the number of the
new process, and, after another line, how it ended; until then its number belongs to nobody else. Each command
is a real process that may be killed for real; what this saves is the seconds of importing.
"""

from __future__ import annotations

import json
import os
import sys

import h5py  # noqa: F401 - loaded here once, as are those below

import featurestore.cli.commands.extract
import featurestore.encoders.elmo.encoder
import featurestore.extraction.runner  # noqa: F401
from featurestore.cli.display import progress
from featurestore.cli.main import main

# After every batch, not every ten seconds: how much a kill cost is read from these lines.
progress._SECONDS_BETWEEN_LINES = 0.0


def run(arguments: list[str], said: str) -> None:
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 1
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


while line := sys.stdin.readline():
    child = os.fork()
    if not child:
        run(*json.loads(line))
    print(child, flush=True)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
