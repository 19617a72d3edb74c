#!/usr/bin/env bash
# ray 2.60.0: ray.init() replaces the program's SIGTERM handler without a word, and ray.shutdown() does not give it back.
#
# Who meets it: programs that save their work on SIGTERM (batch systems send it before they kill a job) and use Ray for a
# part of it: the handler has to be set again after ray.init(), and after ray.shutdown().
#
# Seen: handler after signal.signal: the program's; after ray.init: Ray's; after ray.shutdown: still not the program's.
# Exits with 0 while this is so, with 1 when it changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cd "$folder"
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" - <<'PYTHON'
import signal
import sys

import ray


def save(number, frame):
    """Where a program would save its work."""


signal.signal(signal.SIGTERM, save)
found = {"signal.signal": signal.getsignal(signal.SIGTERM) is save}
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
found["ray.init"] = signal.getsignal(signal.SIGTERM) is save
ray.shutdown()
found["ray.shutdown"] = signal.getsignal(signal.SIGTERM) is save
print("ray", ray.__version__)
for step, ours in found.items():
    print(f"after {step}: {'the program' if ours else 'not the program'}'s handler")
sys.exit(list(found.values()) != [True, False, False])
PYTHON
