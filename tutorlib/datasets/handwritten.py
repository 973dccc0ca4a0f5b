"""The real hand-written digits that come with scikit-learn: as tensors, as a folder of images, as an SQLite file."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import os
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tutorlib.datasets.sqlite import Row, _columns, _connect

SPLITS = ("all", "train", "test")


class Digits(Dataset):
    """Real hand-written digits, map-style: sample i is `(image, label)`.

    The image is float32 of shape (1, 8, 8) in 0..1 (0 is paper), the label a Python int from 0 to 9. As tensors:
    `images` uint8 (n, 8, 8) in 0..16, `labels` int64 (n,), `index` int64 (n,) the place of each in the whole set
    of 1797, which is also its name in `write_image_tree` and `write_sqlite`. Every sample is a fresh tensor.
    Make one with `digits`. Source: scikit-learn's bundled copy of the UCI digits.
    """

    def __init__(self, images: Tensor, labels: Tensor, index: Tensor) -> None:
        self.images, self.labels, self.index = images, labels, index

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"digits has {len(self)} samples, so its indices go from 0 to {len(self) - 1}: found {index}")
        return (self.images[index].to(torch.float32) / 16).unsqueeze(0), int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """All samples of a batch in one read; the DataLoader calls this instead of `__getitem__` where it exists."""
        outside = [i for i in indices if not -len(self) <= i < len(self)]
        if outside:
            raise IndexError(f"digits has {len(self)} samples, so its indices go from 0 to {len(self) - 1}: found {outside}")
        rows = torch.as_tensor(indices, dtype=torch.int64)
        images = (self.images[rows].to(torch.float32) / 16).unsqueeze(1)
        return list(zip(images.unbind(), self.labels[rows].tolist(), strict=True))

    def __repr__(self) -> str:
        return f"Digits({len(self)} samples)"


def digits(split: str = "all") -> Digits:
    """The 1797 digits that come with scikit-learn: "all", or every fifth as "test" (360) and the others as "train" (1437).

    Errors: ValueError for another split, ModuleNotFoundError without scikit-learn. Needs no network.

    >>> train = digits("train")
    >>> image, label = train[0]
    >>> len(train), tuple(image.shape), image.dtype, label
    (1437, (1, 8, 8), torch.float32, 1)
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} does not exist: use one of {', '.join(map(repr, SPLITS))}")
    images, labels = _whole_set()
    index = torch.arange(len(labels))
    if split != "all":
        index = index[(index % 5 == 0) == (split == "test")]
    return Digits(images[index], labels[index], index)


@functools.cache
def _whole_set() -> tuple[Tensor, Tensor]:
    """The file that `sklearn.datasets.load_digits` reads; reading it here saves importing scikit-learn (seconds)."""
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    file = Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if file.exists():
        with gzip.open(file, "rt") as lines:
            table = np.loadtxt(lines, delimiter=",")
        pixels, labels = table[:, :-1], table[:, -1]
    else:  # another layout of scikit-learn: ask it
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels.reshape(-1, 8, 8).astype("uint8")), torch.from_numpy(labels.astype("int64"))


# The same digits as files.


def write_image_tree(root: str | os.PathLike[str], split: str = "train", per_class: int | None = None) -> Path:
    """Write the digits as a folder of images for torchvision's ImageFolder: `root/<digit>/<index>.png`; returns root.

    Grey PNG files of 8 x 8 pixels, the same bytes on every machine; `per_class` keeps the first that many of each digit.
    A second call with the same arguments writes the same files again. Errors: ValueError for a bad split or
    per_class, NotADirectoryError or FileExistsError if root holds anything that this call would not write.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = write_image_tree(folder, "test", per_class=2)
    ...     print(sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.png"))[:3])
    ['0/0000.png', '0/0010.png', '1/0070.png']
    """
    root, wanted = Path(root), digits(split)
    if per_class is not None and per_class < 1:
        raise ValueError(f"per_class must be at least 1: found {per_class}")
    files: dict[Path, bytes] = {}
    counts = [0] * 10
    for image, label, index in zip(wanted.images, wanted.labels.tolist(), wanted.index.tolist(), strict=True):
        if per_class is None or counts[label] < per_class:
            counts[label] += 1
            files[root / str(label) / f"{index:04d}.png"] = _png(image)
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root} is a file: give a folder that is new or empty")
    folders = {path.parent for path in files}
    strangers = sorted(set(root.rglob("*")) - set(files) - folders)
    if strangers:
        raise FileExistsError(
            f"{root} already holds {strangers[0].relative_to(root).as_posix()}: give a folder that is new or empty"
        )
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_bytes(content)
    return root


def _png(image: Tensor) -> bytes:
    """A grey PNG of one uint8 image in 0..16. Stored, not deflated: compressed bytes differ between zlib's versions."""
    height, width = image.shape
    grey = ((image.to(torch.int64) * 255 + 8) // 16).tolist()
    raw = b"".join(b"\0" + bytes(line) for line in grey)
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw + struct.pack(">I", zlib.adler32(raw))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")


def write_sqlite(path: str | os.PathLike[str], split: str = "train") -> Path:
    """Write the digits as an SQLite file with one table `digits(key TEXT, label INTEGER, pixels BLOB)`; returns its path.

    The key is the place in the whole set, as text ("0007"); pixels are 64 bytes in 0..16, row by row. The file appears
    complete or not at all, and replaces an older one of this function. Errors: ValueError for a bad split,
    FileNotFoundError if the folder does not exist, FileExistsError if the path holds something else.

    >>> import tempfile
    >>> from tutorlib import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with datasets.SqliteTable(write_sqlite(Path(folder, "digits.db"), "test"), "digits") as table:
    ...         print(len(table), table.keys()[:3], table["0005"]["label"])
    360 ['0000', '0005', '0010'] 5
    """
    path, wanted = Path(path), digits(split)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist: make it first")
    if path.exists() and not _holds_digits(path):
        raise FileExistsError(f"{path} exists and is not a database of digits: give another path")
    keys = (f"{i:04d}" for i in wanted.index.tolist())
    pixels = (bytes(image) for image in wanted.images.flatten(1).tolist())
    building = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        connection = sqlite3.connect(building)
        try:
            with connection:
                connection.execute("CREATE TABLE digits (key TEXT PRIMARY KEY, label INTEGER NOT NULL, pixels BLOB NOT NULL)")
                connection.executemany(
                    "INSERT INTO digits VALUES (?, ?, ?)", zip(keys, wanted.labels.tolist(), pixels, strict=True)
                )
        finally:
            connection.close()
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)
    return path


def _holds_digits(path: Path) -> bool:
    if not path.is_file():
        return False
    connection = _connect(path, 5.0)
    try:
        return _columns(connection, "digits") == ["key", "label", "pixels"]
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


def digit_row(row: Row) -> tuple[Tensor, int]:
    """A row of `write_sqlite`'s table as the sample that `digits` gives: the `decode` for SqliteTable and SqliteStream.

    >>> image, label = digit_row({"key": "0007", "label": 7, "pixels": bytes(63) + bytes([16])})
    >>> tuple(image.shape), image.dtype, image.max().item(), label
    ((1, 8, 8), torch.float32, 1.0, 7)
    """
    # NumPy's overhead is a third of torch's, and 64 values are all overhead
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(1, 8, 8)
    return torch.from_numpy(np.multiply(pixels, 1 / 16, dtype=np.float32)), row["label"]
