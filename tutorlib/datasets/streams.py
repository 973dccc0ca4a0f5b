"""Streams without a known end or a file: a log that is followed while it grows, and whole numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset

from tutorlib.datasets.locations import CHUNK


class LogLine(NamedTuple):
    """One complete line of a log, and the byte after it: where a reader that resumes begins."""

    text: str
    end: int


class Log(IterableDataset):
    r"""The lines of a log that is followed while it grows, iterable-style: each sample is a `LogLine` (text, end).

    Only complete lines are given; one that is half written waits for its line end. The stream ends after the first line
    for which `stop(text)` is true (a top-level function, to survive spawn), or when nothing was written for `idle`
    seconds (None: never). The position travels with the line, so it is right however far workers read ahead: to resume,
    make `Log(path, offset=line.end)` from the last line that you used (in a default batch: `batch.end[-1]`).

    The file is opened by each iteration. Several readers (`Sharded`) must agree on the end: give them `stop`, since each
    measures `idle` for itself. A log cut in place and written beyond the old position between two looks cannot be noticed.
    Errors: FileNotFoundError for a log that is not there or vanishes; ValueError if it is replaced (rotated) or cut,
    naming the byte up to which lines were given, if `offset` is not the beginning of a line, or naming the line that does
    not decode. What was written before a rotation is given first.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "run.log")
    ...     _ = path.write_bytes(b"step 1\nstep 2\nste")
    ...     list(Log(path, idle=0))
    [LogLine(text='step 1', end=7), LogLine(text='step 2', end=14)]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset: int = 0,
        *,
        idle: float | None = 5.0,
        stop: Callable[[str], bool] | None = None,
        encoding: str = "utf-8",
        poll: float = 0.05,
    ) -> None:
        if "\n".encode(encoding) != b"\n":
            raise ValueError(f"lines cannot be told apart by bytes in {encoding}: write the log in utf-8")
        if offset < 0 or poll <= 0 or (idle is not None and idle < 0):
            raise ValueError(f"offset and idle are at least 0, poll is more: found offset={offset}, idle={idle}, poll={poll}")
        self.path, self.offset, self.idle, self.stop = Path(path), offset, idle, stop
        self.encoding, self.poll = encoding, poll
        with self._open() as file:
            self._begin(file)

    def _open(self) -> Any:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} is not a file: start what writes the log first")
        return self.path.open("rb")

    def _begin(self, file: Any) -> None:
        size = os.fstat(file.fileno()).st_size
        if size < self.offset:
            raise self._cut(size, self.offset)
        file.seek(max(self.offset - 1, 0))
        if self.offset and file.read(1) != b"\n":
            raise ValueError(
                f"{self.path}: no line begins at byte {self.offset}, so this offset is of another file: begin again with offset=0"
            )

    def __iter__(self) -> Iterator[LogLine]:
        with self._open() as file:
            self._begin(file)
            end, rest, quiet = self.offset, b"", time.monotonic()
            while True:
                trouble = self._trouble(file, end)  # before the reading: what was written until then is still given
                if chunk := file.read(CHUNK):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        text = self._decoded(line, end)
                        end += len(line) + 1
                        yield LogLine(text, end)
                        if self.stop is not None and self.stop(text):
                            return
                    quiet = time.monotonic()
                    continue
                if trouble is not None:
                    raise trouble
                left = self.poll if self.idle is None else quiet + self.idle - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(self.poll, left))

    def _trouble(self, file: Any, end: int) -> Exception | None:
        mine = os.fstat(file.fileno())
        if mine.st_size < file.tell():
            return self._cut(mine.st_size, end)
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return FileNotFoundError(f"{self.path} is gone; its lines were given up to byte {end}")
        if (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino):
            return ValueError(
                f"{self.path} was replaced by another file (rotated); the old one's lines were given up to byte {end}, its end: "
                "read the new one with offset=0"
            )
        return None

    def _cut(self, size: int, end: int) -> ValueError:
        return ValueError(
            f"{self.path} was cut to {size} bytes, its lines were given up to byte {end}: begin the new content with offset=0"
        )

    def _decoded(self, line: bytes, begin: int) -> str:
        try:
            return line.removesuffix(b"\r").decode(self.encoding)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}, the line from byte {begin} on: not {self.encoding} ({error.reason}); "
                "give the log's encoding, for example Log(path, encoding='latin-1')"
            ) from None

    def __repr__(self) -> str:
        return f"Log({self.path.name!r}, offset={self.offset})"


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
