"""Where samples come from: real data without a network, in both of torch's dataset styles.

Map-style: `digits`, `SqliteTable` (any key type). Iterable-style: `SqliteStream`, `Lines`, `Numbers`.
Nothing here knows about ranks or workers: give any of these sources to `sharding.Sharded`, which does.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

__all__ = [
    "Digits",
    "Lines",
    "MissingKey",
    "Numbers",
    "SqliteStream",
    "SqliteTable",
    "digit_row",
    "digits",
    "write_image_tree",
    "write_sqlite",
]

SPLITS = ("all", "train", "test")
Row = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------------
# Digits


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
    import numpy as np

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


# ---------------------------------------------------------------------------------------------------------------
# The same digits as files


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
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with SqliteTable(write_sqlite(Path(folder, "digits.db"), "test"), "digits") as table:
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
    pixels = torch.frombuffer(bytearray(row["pixels"]), dtype=torch.uint8)
    return pixels.to(torch.float32).div_(16).reshape(1, 8, 8), row["label"]


# ---------------------------------------------------------------------------------------------------------------
# SQLite


class MissingKey(KeyError):
    """A key that a table does not hold. Unlike KeyError it prints its message as it is."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SqliteTable(Dataset):
    """One table of an SQLite file, map-style by any key: `table["0007"]`; a batch of keys is one query.

    A sample is the row as a dict of its columns, or what `decode(row)` makes of it (a top-level function, so that it
    survives spawn). `keys()` are all keys in sorted order, `len` their number: give `sampler=table.keys()` to the
    DataLoader unless the keys are 0..n-1. The file is opened read-only, once in each process that reads, never
    pickled, and closed by `close()`, `with`, or with the object. `timeout`: seconds to wait for a lock.

    Errors: FileNotFoundError, ValueError for a file, table or key column that is none (naming those there are) or
    keys that repeat, MissingKey (a KeyError) naming every key that is not there, TimeoutError for a locked table.
    Claims: DS-02, DS-06.

    >>> import tempfile
    >>> from torch.utils.data import DataLoader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with SqliteTable(write_sqlite(Path(folder, "digits.db")), "digits", decode=digit_row) as table:
    ...         images, labels = next(iter(DataLoader(table, sampler=table.keys(), batch_size=4)))
    >>> tuple(images.shape), labels.tolist()
    ((4, 1, 8, 8), [1, 2, 3, 4])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        key: str = "key",
        *,
        decode: Callable[[Row], Any] | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.path, self.table, self.key = Path(path), table, key
        self.decode, self.timeout = decode, timeout
        self._file = _File(self.path, timeout)
        with _said(self.path, timeout):
            self._check(self._file.connection())

    def _check(self, connection: sqlite3.Connection) -> None:
        columns = _columns(connection, self.table)
        if not columns:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
            raise ValueError(f"{self.path} has no table {self.table!r}: it has {[name for (name,) in names]}")
        if self.key not in columns:
            raise ValueError(f"table {self.table!r} has no column {self.key!r} to use as its key: it has {columns}")
        twice = connection.execute(
            f"SELECT {_quoted(self.key)}, count(*) FROM {_quoted(self.table)} GROUP BY 1 HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise ValueError(
                f"column {self.key!r} of table {self.table!r} is no key: {twice[0]!r} stands in {twice[1]} rows; "
                "use a column without repeated values"
            )

    def keys(self) -> list[Any]:
        """All keys in sorted order (SQLite's order of values)."""
        return [key for (key,) in self._all(f"SELECT {_quoted(self.key)} FROM {_quoted(self.table)} ORDER BY 1")]

    def __len__(self) -> int:
        return self._all(f"SELECT count(*) FROM {_quoted(self.table)}")[0][0]

    def __contains__(self, key: object) -> bool:
        return bool(self._rows([key]))

    def __getitem__(self, key: Any) -> Any:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        """The samples of these keys, in their order (a key may repeat), read by one query."""
        keys = [_plain(key) for key in keys]
        rows = self._rows(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in rows]
        if missing:
            kinds = {type(key).__name__ for key in missing}
            raise MissingKey(
                f"table {self.table!r} of {self.path.name} has no {self.key} {', '.join(map(repr, missing[:5]))}"
                f"{' ...' if len(missing) > 5 else ''} ({' and '.join(sorted(kinds))}); its keys begin with "
                f"{self._first()}: give the DataLoader sampler=table.keys()"
            )
        return [dict(rows[key]) if self.decode is None else self.decode(dict(rows[key])) for key in keys]

    def _first(self) -> str:
        few = self._all(f"SELECT {_quoted(self.key)} FROM {_quoted(self.table)} ORDER BY 1 LIMIT 3")
        return ", ".join(repr(key) for (key,) in few) if few else "nothing, the table is empty"

    def _rows(self, keys: Sequence[Any]) -> dict[Any, Row]:
        unique = list(dict.fromkeys(keys))
        with _said(self.path, self.timeout):
            connection = self._file.connection()
            limit = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)  # 32766, so a batch is one query
            found: dict[Any, Row] = {}
            for start in range(0, len(unique), limit):
                part = unique[start : start + limit]
                marks = ", ".join("?" * len(part))
                cursor = connection.execute(f"SELECT * FROM {_quoted(self.table)} WHERE {_quoted(self.key)} IN ({marks})", part)
                names = [column[0] for column in cursor.description]
                found.update((row[self.key], row) for row in (dict(zip(names, values, strict=True)) for values in cursor))
            return found

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        with _said(self.path, self.timeout):
            return self._file.connection().execute(query).fetchall()

    def close(self) -> None:
        """Close this process's connection; the next read opens a new one."""
        self._file.close()

    def __enter__(self) -> SqliteTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SqliteTable({self.path.name!r}, {self.table!r}, key={self.key!r})"


class SqliteStream(IterableDataset):
    """The rows of a query on an SQLite file, iterable-style, one after the other: nothing is held in memory.

    A sample is the row as a dict of its columns, or `decode(row)`. Each iteration opens its own read-only connection.
    Without ORDER BY the order is SQLite's choice; `sharding.Sharded` needs one that all workers agree on, so give it.
    Errors: FileNotFoundError, ValueError for a file that is no database or a query that SQLite refuses (both when the
    stream is made), TimeoutError for a locked table.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_sqlite(Path(folder, "digits.db"))
    ...     list(SqliteStream(path, "SELECT key, label FROM digits WHERE label = ? ORDER BY key LIMIT 2", (7,)))
    [{'key': '0007', 'label': 7}, {'key': '0017', 'label': 7}]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        query: str,
        parameters: Sequence[Any] = (),
        *,
        decode: Callable[[Row], Any] | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.path, self.query, self.parameters = Path(path), query, tuple(parameters)
        self.decode, self.timeout = decode, timeout
        with _said(self.path, timeout):
            connection = _connect(self.path, timeout)
            try:
                connection.execute(f"EXPLAIN {query}", self.parameters).close()  # compiles the query, reads nothing
            finally:
                connection.close()

    def __iter__(self) -> Iterator[Any]:
        with _said(self.path, self.timeout):
            connection = _connect(self.path, self.timeout)
            try:
                cursor = connection.execute(self.query, self.parameters)
                names = [column[0] for column in cursor.description or ()]
                for values in cursor:
                    row = dict(zip(names, values, strict=True))
                    yield row if self.decode is None else self.decode(row)
            finally:
                connection.close()

    def __repr__(self) -> str:
        return f"SqliteStream({self.path.name!r}, {self.query!r})"


# Connections made before a fork, kept alive in the child: SQLite says that closing them there is not safe.
_INHERITED: list[sqlite3.Connection] = []


class _File:
    """A read-only connection that belongs to the process that opened it: neither pickled nor shared with a fork."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.path, self.timeout = path, timeout
        self._opened: tuple[int, sqlite3.Connection] | None = None

    def connection(self) -> sqlite3.Connection:
        if self._opened is not None and self._opened[0] != os.getpid():
            self.close()
        if self._opened is None:
            self._opened = (os.getpid(), _connect(self.path, self.timeout))
        return self._opened[1]

    def close(self) -> None:
        if self._opened is not None:
            pid, connection = self._opened
            self._opened = None
            if pid == os.getpid():
                connection.close()
            else:
                _INHERITED.append(connection)

    def __del__(self) -> None:
        if getattr(self, "_opened", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "timeout": self.timeout, "_opened": None}


class _said:
    """SQLite's errors in this module's words: what, where and the way out."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.path, self.timeout = path, timeout

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise TimeoutError(
                f"{self.path} is locked by another connection, still after {self.timeout:g} s: "
                "let it commit or close, or wait longer (timeout=seconds)"
            ) from None
        if name == "SQLITE_NOTADB":
            raise ValueError(f"{self.path} is not an SQLite database: give a file that SQLite wrote") from None
        if name == "SQLITE_CANTOPEN":
            raise FileNotFoundError(f"{self.path} cannot be opened: it is gone, or it is not a readable file") from None
        raise ValueError(f"{self.path}: SQLite says: {error}") from None


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: write it first, for example with datasets.write_sqlite({path.name!r})")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    # A widget may read from another thread than the one that opened; SQLite itself serialises the calls.
    return sqlite3.connect(uri, uri=True, timeout=timeout, check_same_thread=False)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [column[1] for column in connection.execute(f"PRAGMA table_info({_quoted(table)})")]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(key: Any) -> Any:
    """A sampler may give numbers of NumPy or torch; SQLite knows only Python's."""
    return key.item() if hasattr(key, "item") else key


# ---------------------------------------------------------------------------------------------------------------
# Streams


class Lines(IterableDataset):
    r"""The lines of a text file, iterable-style, without their line ends; the file is opened by each iteration.

    Lines end with LF or CRLF. Errors: FileNotFoundError, or ValueError for an encoding whose line end is not one
    byte (UTF-16), when made; ValueError naming the line that does not decode.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "words.txt")
    ...     _ = path.write_bytes(b"one\ntwo\r\n\nlast")
    ...     list(Lines(path))
    ['one', 'two', '', 'last']
    """

    def __init__(self, path: str | os.PathLike[str], encoding: str = "utf-8") -> None:
        self.path, self.encoding = Path(path), encoding
        if "\n".encode(encoding) != b"\n":
            raise ValueError(f"lines cannot be told apart by bytes in {encoding}: convert the file to utf-8")
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} is not a file: give the path of a text file")

    def __iter__(self) -> Iterator[str]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield line.removesuffix(b"\n").removesuffix(b"\r").decode(self.encoding)
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{self.path}, line {number}: not {self.encoding} ({error.reason}); "
                        "give the file's encoding, for example Lines(path, 'latin-1')"
                    ) from None

    def __repr__(self) -> str:
        return f"Lines({self.path.name!r})"


class Numbers(IterableDataset):
    """The whole numbers from `start` up to, not including, `stop`, iterable-style: the smallest stream there is.

    On purpose it knows nothing of workers: two of them give every number twice (claim IT-04); wrap it in
    `sharding.Sharded`. An empty range is a fine stream (claim IT-11). Errors: ValueError if stop is before start.

    >>> list(Numbers(3, 7))
    [3, 4, 5, 6]
    """

    def __init__(self, start: int, stop: int) -> None:
        if stop < start:
            raise ValueError(f"stop must not be before start: found start={start}, stop={stop}")
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def __repr__(self) -> str:
        return f"Numbers({self.start}, {self.stop})"
