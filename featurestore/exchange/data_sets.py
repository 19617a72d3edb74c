"""Folders of the package datasets: what ``load_from_disk`` opens, and ``load_dataset("arrow")`` file by file.

A folder holds ``data-*.arrow`` (Arrow streams of at most 500 MB of vectors), ``dataset_info.json`` and
``state.json``; of several corpora there is such a folder each, and ``dataset_dict.json``. Rows are those of
:mod:`~featurestore.exchange.columns`, but for labels, which are numbers that a ClassLabel names, -1 for one
that is ignored. The origin is the description of the info, and in the schema of each file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from featurestore.corpora.contract.example import IGNORED
from featurestore.errors import UsageError
from featurestore.exchange.columns import Rows, needed_pyarrow, record_batches, table_schema
from featurestore.exchange.origin import origin_text
from featurestore.exchange.sentences import Exported, ExportedSentence

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD_BYTES = 500_000_000
"""Bytes of vectors in one file; datasets itself writes files of this size."""

_MISSING = -1
"""Number of an ignored label: what ClassLabel takes for no label."""


def write_data_set(exported: Exported, path: Path, step: Any, *, rows: Rows = "sentence") -> None:
    """Write the folder of a Dataset.

    Parameters
    ----------
    exported : Exported
    path : Path
        The folder, which is made.
    step : callable
        Called with each sentence written.
    rows : {"sentence", "token"}
        What a row is.

    Raises
    ------
    UsageError
        If pyarrow is missing.
    """
    _write(exported, path, step, rows, _label_names(exported), None)


def write_splits(splits: Mapping[str, Exported], path: Path, step: Any, *, rows: Rows = "sentence") -> None:
    """Write the folder of a DatasetDict, whose splits have the same numbers for the same labels.

    Parameters
    ----------
    splits : mapping of str to Exported
        The corpora by the names of their splits.
    path, step, rows
        As for :func:`write_data_set`.

    Raises
    ------
    UsageError
        If pyarrow is missing.
    """
    found = [_label_names(exported) for exported in splits.values()]
    names = None if None in found else sorted({name for some in found for name in some or ()})
    path.mkdir()
    for split, exported in splits.items():
        _write(exported, path / split, step, rows, names, split)
    _put(path / "dataset_dict.json", {"splits": list(splits)})


def split_names(paths: Sequence[str]) -> list[str]:
    """Return names of splits for corpora: their file names without the beginning that all have in common.

    Raises
    ------
    UsageError
        If two would be called the same.
    """
    stems = [Path(path).name.split(".")[0] or "corpus" for path in paths]
    shared = [start for start in _beginnings(stems[0]) if all(stem.startswith(start) for stem in stems)]
    names = [re.sub(r"\W", "_", stem[len(shared[-1]) :] or stem) for stem in stems]
    if len(set(names)) < len(names):
        raise UsageError(
            f"the corpora would be splits called {', '.join(names)}: give them different names, or export "
            "them one by one"
        )
    return names


def _beginnings(stem: str) -> list[str]:
    """Return the empty text, and what a name begins with up to each of its hyphens and underscores."""
    return ["", *(stem[: found.end()] for found in re.finditer("[-_]", stem))]


def _write(
    exported: Exported, path: Path, step: Any, rows: Rows, names: list[str] | None, split: str | None
) -> None:
    pa = needed_pyarrow()
    path.mkdir()
    features, description = _features(exported, rows, names), origin_text(exported)
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "featurestore": description}
    schema = _numbered(table_schema(exported, rows), names).with_metadata(metadata)
    sentences = _with_numbers(exported, names)
    # Transforms of datasets keep their results by this: what differs must not have the same.
    digest = xxhash.xxh3_64(json.dumps([metadata, rows, split]).encode())
    n, n_shards = exported.n_sentences, _n_shards(exported)
    bounds = [n * i // n_shards for i in range(n_shards + 1)]
    files = [f"data-{i:05}-of-{n_shards:05}.arrow" for i in range(n_shards)]
    for file, begin, end in zip(files, bounds, bounds[1:], strict=False):
        part = _hashed(islice(sentences, end - begin), digest)
        with pa.OSFile(str(path / file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in record_batches(exported, rows, step, schema, part, begin):
                writer.write_batch(batch)
    info = {"citation": "", "description": description, "features": features, "homepage": "", "license": ""}
    _put(path / "dataset_info.json", info)
    state: dict[str, Any] = {
        "_data_files": [{"filename": file} for file in files],
        "_fingerprint": digest.hexdigest(),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    _put(path / "state.json", state)


def _n_shards(exported: Exported) -> int:
    n_bytes = exported.n_tokens * math.prod(exported.token_shape) * exported.value_type.itemsize
    return max(1, min(exported.n_sentences, math.ceil(n_bytes / _SHARD_BYTES)))


def _label_names(exported: Exported) -> list[str] | None:
    """Return the labels of a corpus in alphabetical order, None where there are none."""
    if exported.label_kind is None or exported.corpus is None:
        return None
    found: set[str] = set()
    for example in exported.corpus:
        labels = example.labels
        if isinstance(labels, str):
            found.add(labels)
        else:
            found.update(label for label in labels or () if label is not IGNORED)
    return sorted(found)


def _with_numbers(exported: Exported, names: list[str] | None) -> Iterator[ExportedSentence]:
    """Yield the sentences, their labels as numbers."""
    numbers = {name: number for number, name in enumerate(names or ())}
    for sentence in exported:
        labels: Any = sentence.labels
        if isinstance(labels, str):
            labels = numbers[labels]
        elif labels is not None:
            labels = tuple(_MISSING if label is IGNORED else numbers[label] for label in labels)
        yield replace(sentence, labels=labels)


def _hashed(sentences: Iterator[ExportedSentence], digest: Any) -> Iterator[ExportedSentence]:
    for sentence in sentences:
        digest.update(sentence.key + repr(sentence.labels).encode())
        yield sentence


def _numbered(schema: pa.Schema, names: list[str] | None) -> pa.Schema:
    """Return a schema with labels as numbers."""
    pa = needed_pyarrow()
    types = {} if names is None else {"label": pa.int64(), "labels": pa.list_(pa.int64())}
    return pa.schema([(field.name, types.get(field.name, field.type)) for field in schema])


def _features(exported: Exported, rows: Rows, names: list[str] | None) -> dict[str, Any]:
    """Return what datasets calls the columns' types, as versions before and after 4 read them."""
    vector = _value(exported.value_type.name)
    for size in reversed(exported.token_shape):
        vector = _list(vector, size)
    label = None if names is None else {"names": names, "_type": "ClassLabel"}
    if rows == "token":
        features = {"sentence": _value("int64"), "position": _value("int32"), "token": _value("string")}
        return features | {"vector": vector} | ({} if label is None else {"label": label})
    features = {"key": _value("binary"), "tokens": _list(_value("string")), "vectors": _list(vector)}
    if label is None:
        return features
    return features | ({"labels": _list(label)} if exported.label_kind == "token" else {"label": label})


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}


def _list(feature: dict[str, Any], length: int = -1) -> dict[str, Any]:
    return {"feature": feature, "length": length, "_type": "Sequence"}


def _put(path: Path, values: dict[str, Any]) -> None:
    with open(path, "xb") as file:
        file.write(json.dumps(values, indent=2).encode())
