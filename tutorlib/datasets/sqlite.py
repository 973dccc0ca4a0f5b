"""A table of an SQLite file by key, map-style, and a query as a stream, iterable-style."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset

Row = dict[str, Any]


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
    >>> from tutorlib.datasets import digit_row, write_sqlite
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
        return bool(self._rows([key])[1])

    def __getitem__(self, key: Any) -> Any:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        """The samples of these keys, in their order (a key may repeat), read by one query."""
        keys = [_plain(key) for key in keys]
        names, rows = self._rows(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in rows]
        if missing:
            kinds = {type(key).__name__ for key in missing}
            raise MissingKey(
                f"table {self.table!r} of {self.path.name} has no {self.key} {', '.join(map(repr, missing[:5]))}"
                f"{' ...' if len(missing) > 5 else ''} ({' and '.join(sorted(kinds))}); its keys begin with "
                f"{self._first()}: give the DataLoader sampler=table.keys()"
            )
        found = (dict(zip(names, rows[key], strict=True)) for key in keys)
        return list(found if self.decode is None else map(self.decode, found))

    def _first(self) -> str:
        few = self._all(f"SELECT {_quoted(self.key)} FROM {_quoted(self.table)} ORDER BY 1 LIMIT 3")
        return ", ".join(repr(key) for (key,) in few) if few else "nothing, the table is empty"

    def _rows(self, keys: Sequence[Any]) -> tuple[list[str], dict[Any, tuple[Any, ...]]]:
        """The names of the columns, and the values of each key that is there."""
        unique = list(dict.fromkeys(keys))
        with _said(self.path, self.timeout):
            connection = self._file.connection()
            limit = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)  # 32766, so a batch is one query
            names: list[str] = []
            found: dict[Any, tuple[Any, ...]] = {}
            for start in range(0, len(unique), limit):
                part = unique[start : start + limit]
                marks = ", ".join("?" * len(part))
                cursor = connection.execute(f"SELECT * FROM {_quoted(self.table)} WHERE {_quoted(self.key)} IN ({marks})", part)
                names = [column[0] for column in cursor.description]
                key = names.index(self.key)
                found.update((values[key], values) for values in cursor)
            return names, found

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
    >>> from tutorlib.datasets import write_sqlite
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
