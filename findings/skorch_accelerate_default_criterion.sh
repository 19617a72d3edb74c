#!/usr/bin/env bash
# skorch 1.4.0 with accelerate 1.15.0 (torch 2.13.0): AccelerateMixin in two CPU processes fails with the default criterion
# of NeuralNetClassifier (NLLLoss). The mixin prepares the criterion as it prepares the module, and
# DistributedDataParallel refuses a module without parameters. In one process the same code trains.
#
# Seen: one process: trained; two processes: RuntimeError "DistributedDataParallel is not needed when a module doesn't have
# any parameter that requires a gradient". Exits with 0 while this is so, with 1 when it changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 skorch==1.4.0 accelerate==1.15.0 numpy==2.4.6
cat >"$folder/run.py" <<'PYTHON'
import numpy as np
import torch
from accelerate import Accelerator
from skorch import NeuralNetClassifier
from skorch.hf import AccelerateMixin


class Net(AccelerateMixin, NeuralNetClassifier):
    pass


random = np.random.default_rng(0)
x, y = random.normal(size=(20, 4)).astype(np.float32), random.integers(0, 2, 20)
module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.LogSoftmax(-1))
net = Net(module, accelerator=Accelerator(cpu=True), max_epochs=1, batch_size=5, verbose=0, train_split=None)
try:
    net.fit(x, y)
    print("trained", flush=True)
except RuntimeError as error:
    print("RuntimeError:", str(error).splitlines()[0], flush=True)
PYTHON
one=$("$folder/venv/bin/python" "$folder/run.py" 2>/dev/null | tail -1)
two=$("$folder/venv/bin/torchrun" --standalone --nproc-per-node 2 "$folder/run.py" 2>/dev/null | tail -1 || true)
echo "one process:   $one"
echo "two processes: $two"
[[ $one == trained && $two == *"doesn't have any parameter that requires a gradient"* ]]
