#!/usr/bin/env bash
# accelerate 1.15.0 (torch 2.13.0): a training saved in its second epoch (save_state) and resumed in a new process
# (load_state, skip_first_batches), with use_seedable_sampler=True, goes on in the FIRST epoch's order, without an error:
# some items come twice, others never. The epoch a loader is in is not part of what is saved: in the new process the
# loader counts from 0 and sets the sampler's epoch by that. loader.set_epoch(1) before iterating mends it.
#
# Seen: twelve numbers in batches of two, saved after three of six batches of epoch 1: the resumed run gives the last three
# batches of epoch 0. Exits with 0 while this is so, with 1 when it changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 accelerate==1.15.0 numpy==2.4.6
cat >"$folder/run.py" <<'PYTHON'
import json
import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

step, folder = sys.argv[1:]
accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
torch.manual_seed(0)
loader = accelerator.prepare(DataLoader(list(range(12)), batch_size=2, shuffle=True))


def numbers(batches):
    return [batch.tolist() for batch in batches]


if step == "whole":
    print(json.dumps([numbers(loader), numbers(loader)]))
elif step == "save":
    numbers(loader)
    for number, _ in enumerate(loader, 1):
        if number == 3:
            accelerator.save_state(folder)
            break
else:
    accelerator.load_state(folder)
    if step == "set":
        loader.set_epoch(1)
    print(json.dumps(numbers(accelerator.skip_first_batches(loader, 3))))
PYTHON
run() { "$folder/venv/bin/python" "$folder/run.py" "$1" "$folder/state" 2>/dev/null; }
whole=$(run whole); run save; resumed=$(run resume)
echo "undisturbed, epochs 0 and 1: $whole"
echo "resumed in epoch 1 after three batches: $resumed"
python3 - "$whole" "$resumed" <<'PYTHON'
import json
import sys

(first, second), resumed = map(json.loads, sys.argv[1:])
print("rest of epoch 0:", first[3:], " rest of epoch 1:", second[3:])
sys.exit(not (resumed == first[3:] != second[3:]))
PYTHON
