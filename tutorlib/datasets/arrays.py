"""The rows of an array file, map-style and memory-mapped: only the rows that are asked for are read."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate


class ArrayFile(Dataset):
    """The rows of an array in a `.npy` file (as `numpy.save` writes it), map-style: sample i is row i, a fresh tensor.

    The file is memory-mapped: however large it is, the process holds the rows of one batch. It is opened once in each
    process that reads and pickled by its path; `shape` and `dtype` are those of the whole array, and if given they must
    fit (None stands for any length: `shape=(None, 8, 8)`). A batch is one read. Usually it is a list of rows, as torch
    expects; with `together=True` it is one tensor from the start, for `DataLoader(..., collate_fn=datasets.together)`.
    Images and labels in two files: torch's `StackDataset`; several files: `ConcatDataset`.

    Errors: FileNotFoundError; ValueError for a file that is no array, one that is cut off (now or while it is read),
    holds Python objects (a pickle, never loaded) or is not as given; IndexError naming the indices out of range.

    >>> import tempfile
    >>> from torch.utils.data import DataLoader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rows.npy")
    ...     np.save(path, np.arange(12, dtype="int32").reshape(6, 2))
    ...     with ArrayFile(path) as rows:
    ...         print(len(rows), rows[4], next(iter(DataLoader(rows, batch_size=2))).tolist())
    6 tensor([8, 9], dtype=torch.int32) [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shape: Sequence[int | None] | None = None,
        dtype: torch.dtype | None = None,
        together: bool = False,
    ) -> None:
        self.path, self.together = Path(path), together
        self._opened: tuple[int, mmap.mmap, np.ndarray] | None = None
        self.shape, self.dtype = self._checked(shape, dtype)

    def _checked(self, shape: Sequence[int | None] | None, dtype: torch.dtype | None) -> tuple[tuple[int, ...], torch.dtype]:
        with self.path.open("rb") if self.path.is_file() else _gone(self.path) as file:
            found, kind, *_ = _header(self.path, file)
        if shape is not None and (
            len(shape) != len(found) or any(want not in (None, have) for want, have in zip(shape, found, strict=True))
        ):
            raise ValueError(f"{self.path} holds an array of shape {found}: expected {tuple(shape)} (None is any length)")
        if dtype not in (None, kind):
            raise ValueError(f"{self.path} holds {kind}: expected {dtype}")
        return found, kind

    def _rows(self) -> np.ndarray:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *self._map())
        _, mapping, rows = self._opened
        if mapping.size() < len(mapping):  # reading what is gone would end the process
            raise ValueError(f"{self.path} was cut to {mapping.size()} of its {len(mapping)} bytes while it is read: restore it")
        return rows

    def _map(self) -> tuple[mmap.mmap, np.ndarray]:
        with self.path.open("rb") if self.path.is_file() else _gone(self.path) as file:
            shape, kind, dtype, fortran, begin = _header(self.path, file)
            if (shape, kind) != (self.shape, self.dtype):
                raise ValueError(f"{self.path} holds {kind} {shape}, it was {self.dtype} {self.shape}: make the dataset anew")
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        values = np.frombuffer(mapping, dtype, math.prod(shape), begin) if math.prod(shape) else np.empty(0, dtype)
        return mapping, values.reshape(shape, order="F" if fortran else "C")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        return self._read([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor] | Tensor:
        """The rows of a batch, copied by one read: a list of them, or one tensor (n, ...) with `together=True`."""
        rows = self._read(indices)
        return rows if self.together else list(rows.unbind())

    def _read(self, indices: Sequence[int]) -> Tensor:
        numbers = np.asarray(indices, dtype=np.int64)
        try:
            rows = self._rows().take(numbers, axis=0)
        except IndexError:
            size = len(self)
            outside = [int(i) for i in numbers if not -size <= i < size]
            raise IndexError(
                f"{self.path.name} has {size} rows, so its indices go from 0 to {size - 1}: found {outside}"
            ) from None
        return torch.from_numpy(rows if rows.dtype.isnative else rows.astype(rows.dtype.newbyteorder("=")))

    def close(self) -> None:
        """Let go of the file in this process; the next read opens it again."""
        self._opened = None

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        return f"ArrayFile({self.path.name!r}, shape={self.shape}, dtype={self.dtype})"


def together(samples: Any) -> Any:
    """A batch that a source read as one tensor passes as it is; anything else goes to torch's default_collate.

    >>> together(torch.zeros(3, 2)).shape, together([1, 2])
    (torch.Size([3, 2]), tensor([1, 2]))
    """
    return samples if isinstance(samples, Tensor) else default_collate(samples)


def _header(path: Path, file: Any) -> tuple[tuple[int, ...], torch.dtype, np.dtype, bool, int]:
    """Shape, torch's dtype, NumPy's, whether columns come first, and where the values begin; the file must hold them all."""
    form = np.lib.format
    try:
        version = form.read_magic(file)
        read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = read(file)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is no array file that can be read ({reason}): give one that numpy.save wrote") from None
    if dtype.hasobject:
        raise ValueError(f"{path} holds Python objects, that is a pickle, which is never loaded: save numbers")
    try:
        kind = torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        raise ValueError(f"{path} holds {dtype}, for which torch has no dtype: save numbers") from None
    if not shape:
        raise ValueError(f"{path} holds a single value, which has no rows: save an array of at least one dimension")
    begin = file.tell()
    size, needed = os.fstat(file.fileno()).st_size, begin + math.prod(shape) * dtype.itemsize
    if size < needed:
        raise ValueError(f"{path} is cut off: {needed} bytes expected for {kind} {tuple(shape)}, found {size}: copy it again")
    return tuple(shape), kind, dtype, fortran, begin


def _gone(path: Path) -> Any:
    raise FileNotFoundError(f"{path} is not a file: give the path of an array that numpy.save wrote")
