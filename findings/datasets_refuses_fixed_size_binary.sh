#!/usr/bin/env bash
# datasets 5.0.0: load_dataset("parquet") raises ValueError for a file with a column of Arrow's fixed_size_binary, though
# Parquet has the type (FIXED_LEN_BYTE_ARRAY) and pyarrow, with which datasets reads, reads it back as it was written.
#
# Who meets it: who writes keys, hashes or UUIDs of one length beside the data; binary() of any length loads.
#
# Seen: pyarrow reads fixed_size_binary[16]; datasets: "Arrow type fixed_size_binary[16] does not have a datasets dtype
# equivalent"; the same bytes as binary: loaded.
# Exits with 0 while this is so, with 1 when it changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.0.0 pyarrow==26.0.1
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

keys = [b"0123456789abcdef", b"fedcba9876543210"]
found = {}
for kind in (pa.binary(16), pa.binary()):
    path = f"of-{len(found)}.parquet"
    pq.write_table(pa.table({"key": pa.array(keys, kind)}), path)
    try:
        loaded = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir="cache")["key"][:]
    except ValueError as error:
        loaded = f"ValueError: {error}"
    found[str(kind)] = (str(pq.read_table(path).schema.field("key").type), loaded)
print("datasets", datasets.__version__, "pyarrow", pa.__version__)
for written, (read, loaded) in found.items():
    print(f"written as {written}: pyarrow reads {read}, datasets: {loaded}")
fixed, free = found["fixed_size_binary[16]"], found["binary"]
sys.exit(not (fixed[0] == "fixed_size_binary[16]" and "dtype equivalent" in str(fixed[1]) and list(free[1]) == keys))
PYTHON
