"""The layouts vectors are commonly kept in, each written and read by its own library, as its users do well.

Every one holds the same (n_tokens, dim) float16 vectors of the same sentences and fills the same padded
batches. A layout whose library is not installed says so (:func:`missing`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float16]
Numbers = NDArray[np.int64]


class Layout:
    """Vectors of sentences on disk.

    Subclasses write all sentences, open what they wrote, and return a sentence, or fill a whole batch where
    that is the better way.

    Parameters
    ----------
    folder : Path
        An empty folder of its own.
    bounds : (n_sentences + 1,) int64
        Where each sentence's tokens start and end.
    dim : int
    """

    name: ClassVar[str]
    library: ClassVar[str]

    def __init__(self, folder: Path, bounds: Numbers, dim: int) -> None:
        self.folder, self.bounds, self.dim = folder, bounds, dim
        self.lengths: Numbers = np.diff(bounds)

    def write(self, vectors: Array) -> None:
        raise NotImplementedError

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what open() holds."""

    def sentence(self, index: int) -> Array:
        raise NotImplementedError

    def fill(self, out: Tensor, indices: Sequence[int]) -> None:
        """Fill a (batch, longest, dim) tensor, zeros behind each sentence."""
        put(out, (torch.from_numpy(self.sentence(index)) for index in indices))

    def pieces(self, vectors: Array) -> list[Array]:
        return np.split(vectors, self.bounds[1:-1])


class PerSentenceHDF5(Layout):
    """What AllenNLP's `elmo` command writes: a dataset per sentence, named by its number."""

    name, library = "HDF5, a dataset per sentence (AllenNLP)", "h5py"

    def write(self, vectors: Array) -> None:
        import h5py

        with h5py.File(self.folder / "elmo.hdf5", "w") as file:
            for index, piece in enumerate(self.pieces(vectors)):
                file.create_dataset(str(index), data=piece)

    def open(self) -> None:
        import h5py

        self._file = h5py.File(self.folder / "elmo.hdf5", "r")

    def close(self) -> None:
        self._file.close()

    def sentence(self, index: int) -> Array:
        return self._file[str(index)][()]


class FlatHDF5(PerSentenceHDF5):
    """All tokens in one contiguous dataset, sentences as slices of it."""

    name = "HDF5, one flat dataset, h5py slices"

    def write(self, vectors: Array) -> None:
        import h5py

        with h5py.File(self.folder / "elmo.hdf5", "w") as file:
            file.create_dataset("values", data=vectors)

    def open(self) -> None:
        super().open()
        self._values = self._file["values"]

    def sentence(self, index: int) -> Array:
        return self._values[self.bounds[index] : self.bounds[index + 1]]


class Lmdb(Layout):
    """A record per sentence, written in the order of the keys, read without a copy."""

    name, library = "LMDB", "lmdb"

    def write(self, vectors: Array) -> None:
        import lmdb

        with (
            lmdb.open(str(self.folder / "lmdb"), map_size=2 * vectors.nbytes + (1 << 28)) as environment,
            environment.begin(write=True) as transaction,
        ):
            for index, piece in enumerate(self.pieces(vectors)):
                transaction.put(index.to_bytes(8, "big"), piece.tobytes(), append=True)

    def open(self) -> None:
        import lmdb

        self._environment = lmdb.open(str(self.folder / "lmdb"), readonly=True, lock=False, readahead=False)
        self._transaction = self._environment.begin(buffers=True)

    def close(self) -> None:
        self._transaction.abort()
        self._environment.close()

    def sentence(self, index: int) -> Array:
        record = self._transaction.get(int(index).to_bytes(8, "big"))
        return np.frombuffer(record, np.float16).reshape(-1, self.dim)


class ArrowDataset(Layout):
    """A row per sentence of a memory-mapped Hugging Face dataset; the lists are read as Arrow holds them."""

    name, library = "HF datasets (Arrow)", "datasets"

    def write(self, vectors: Array) -> None:
        import datasets
        import pyarrow

        datasets.disable_progress_bars()
        schema = datasets.Features({"vectors": datasets.Sequence(datasets.Value("float16"))})
        with datasets.arrow_writer.ArrowWriter(features=schema, path=str(self.folder / "x.arrow")) as writer:
            for start in range(0, len(self.lengths), 1000):
                bounds = self.bounds[start : start + 1001]
                values = pyarrow.array(vectors[bounds[0] : bounds[-1]].reshape(-1))
                offsets = pyarrow.array(((bounds - bounds[0]) * self.dim).astype(np.int32))
                lists = pyarrow.ListArray.from_arrays(offsets, values)
                writer.write_table(pyarrow.table({"vectors": lists}))
            writer.finalize()

    def open(self) -> None:
        import datasets

        whole = datasets.Dataset.from_file(str(self.folder / "x.arrow"))
        self._rows = whole.with_format("arrow")

    def close(self) -> None:
        del self._rows

    def fill(self, out: Tensor, indices: Sequence[int]) -> None:
        values = self._rows[list(indices)]["vectors"].combine_chunks().flatten()
        flat = torch.from_numpy(values.to_numpy(zero_copy_only=True)).view(-1, self.dim)
        put(out, flat.split(self.lengths[np.asarray(indices)].tolist()))


class PtFiles(Layout):
    """A file of torch.save per sentence."""

    name, library = "a .pt file per sentence", "torch"

    def write(self, vectors: Array) -> None:
        for index, piece in enumerate(self.pieces(vectors)):
            # A copy: torch.save writes all of the storage that a view looks at.
            torch.save(torch.from_numpy(piece.copy()), self.folder / f"{index}.pt")

    def open(self) -> None:
        pass

    def fill(self, out: Tensor, indices: Sequence[int]) -> None:
        put(out, (torch.load(self.folder / f"{index}.pt", weights_only=True) for index in indices))


class Safetensors(Layout):
    """One file with a tensor of all tokens, which torch maps into memory; sentences are slices of it."""

    name, library = "safetensors, slices of one tensor", "safetensors"

    def write(self, vectors: Array) -> None:
        from safetensors.torch import save_file

        save_file({"values": torch.from_numpy(vectors)}, self.folder / "x.safetensors")

    def open(self) -> None:
        from safetensors.torch import load_file

        self._values = load_file(self.folder / "x.safetensors")["values"]

    def close(self) -> None:
        del self._values

    def fill(self, out: Tensor, indices: Sequence[int]) -> None:
        put(out, (self._values[self.bounds[index] : self.bounds[index + 1]] for index in indices))


class MappedNpy(Layout):
    """A memory-mapped .npy; one np.take for the whole batch, padding taken from a row of zeros at its end."""

    name, library = "memory-mapped .npy, np.take", "numpy"

    def write(self, vectors: Array) -> None:
        whole = np.lib.format.open_memmap(
            self.folder / "x.npy", "w+", np.float16, (len(vectors) + 1, self.dim)
        )
        whole[:-1] = vectors
        whole.flush()

    def open(self) -> None:
        # As a plain array: the subclass for maps costs half the speed.
        self._values = np.asarray(np.load(self.folder / "x.npy", mmap_mode="r"))

    def close(self) -> None:
        del self._values

    def fill(self, out: Tensor, indices: Sequence[int]) -> None:
        steps = np.arange(out.shape[1])
        at = np.asarray(indices)
        rows = np.where(
            steps < self.lengths[at][:, None], self.bounds[at][:, None] + steps, len(self._values) - 1
        )
        if out.dtype == torch.float16:
            np.take(self._values, rows, axis=0, out=out.numpy(), mode="clip")
        else:
            out.copy_(torch.from_numpy(np.take(self._values, rows, axis=0)))


LAYOUTS: tuple[type[Layout], ...] = (
    PerSentenceHDF5,
    FlatHDF5,
    Lmdb,
    ArrowDataset,
    PtFiles,
    Safetensors,
    MappedNpy,
)


def put(out: Tensor, pieces: Iterable[Tensor]) -> None:
    """Copy a sentence into each row of a padded batch."""
    for row, vectors in zip(out, pieces, strict=True):
        row[: len(vectors)].copy_(vectors)
        row[len(vectors) :].zero_()


def missing(layout: type[Layout]) -> bool:
    """Return whether the library of a layout is not installed."""
    return importlib.util.find_spec(layout.library) is None
