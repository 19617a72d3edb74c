#!/usr/bin/env bash
# torch 2.13.0: torch.load(map_location="cpu:0") raises RuntimeError ("don't know how to restore data location"), though
# torch accepts the device "cpu:0" everywhere else, and torch.load accepts "cpu" and "cuda:0".
#
# Who meets it: libraries that give each process a device with a number, also on a CPU, and load an optimizer with
# map_location=device when a training is resumed.
#
# Seen: tensor on cpu: ok; load with "cpu": ok; load with "cpu:0": RuntimeError.
# Exits with 0 while this is so, with 1 when it changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import torch

saved = io.BytesIO()
torch.save(torch.arange(3.0), saved)


def load(location):
    saved.seek(0)
    try:
        return torch.load(saved, map_location=location).tolist()
    except RuntimeError as error:
        return f"RuntimeError: {str(error).splitlines()[0][:60]}"


made = torch.arange(3.0, device="cpu:0").tolist()
found = {location: load(location) for location in ("cpu", "cpu:0", torch.device("cpu", 0))}
print("torch", torch.__version__)
print("torch.arange(3.0, device='cpu:0'):", made)
for location, result in found.items():
    print(f"torch.load(map_location={location!r}):", result)
as_known = found["cpu"] == made and all("restore data location" in str(r) for k, r in found.items() if k != "cpu")
sys.exit(not as_known)
PYTHON
