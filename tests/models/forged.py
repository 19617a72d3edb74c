"""Model files as a careful forger would change them."""

from __future__ import annotations

import hashlib
import json

import h5py
import numpy as np

from featurestore.recipe import canonical_json


def rewrite_metadata(path, change):
    """Change the metadata and everything that vouches for it, as a careful forger would."""
    with h5py.File(path, "r+") as file:
        metadata = json.loads(file["metadata"][...].tobytes())
        change(metadata)
        text = canonical_json(metadata).replace(b'"NaN"', b"NaN")
        del file["metadata"]
        file["metadata"] = np.frombuffer(text, "u1")
        file["metadata_sha256"][...] = np.frombuffer(hashlib.sha256(text).digest(), "u1")
