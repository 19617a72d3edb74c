"""How far the vectors of the canaries differ between code for older and newer processors, by precision.

Run by hand, ``python -m tests.bench.encoding.processors [SPEC...]``: each row is this processor, told it is
another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from featurestore.encoders.loading import load_encoder
from featurestore.store.canaries import SENTENCES
from featurestore.vectors import PRECISION_TOLERANCE, relative_l2
from tests.kit.programs import environment, program

SPECS = ["elmo:demo", "elmo:untrained-small?seed=0"]
PROCESSORS = {
    "as it is": {},
    "torch without AVX": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN for SSE 4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL for any": {"MKL_CBWR": "COMPATIBLE", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
PROCESSORS["all of these, one thread"] = {
    name: value for told in list(PROCESSORS.values()) for name, value in told.items()
} | {"OMP_NUM_THREADS": "1"}


def encode(folder: Path, specs: list[str]) -> None:
    for i, spec in enumerate(specs):
        for precision in PRECISION_TOLERANCE:
            encoder = load_encoder(spec, layers="all", precision=precision, device="cpu")
            vectors = [encoder.encode([tokens])[0] for tokens in SENTENCES]
            np.savez(folder / f"{i}-{precision}.npz", *vectors)


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--encode":
        encode(Path(sys.argv[2]), sys.argv[3:])
        return
    specs = sys.argv[1:] or SPECS
    largest: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = {told: Path(name, str(i)) for i, told in enumerate(PROCESSORS)}
        for told, folder in folders.items():
            folder.mkdir()
            command = program("tests.bench.encoding.processors", "--encode", folder, *specs)
            subprocess.run(command, env=environment(**PROCESSORS[told]), check=True)
        first = folders["as it is"]
        for told, folder in folders.items():
            largest[told] = dict.fromkeys(PRECISION_TOLERANCE, 0.0)
            for file in folder.iterdir():
                with np.load(file, allow_pickle=False) as now, np.load(first / file.name) as then:
                    found = max(relative_l2(now[key], then[key]) for key in now.files)
                precision = file.stem.partition("-")[2]
                largest[told][precision] = max(largest[told][precision], found)
    print(json.dumps({"specs": specs, "tolerance": PRECISION_TOLERANCE, "largest": largest}, indent=1))


if __name__ == "__main__":
    main()
