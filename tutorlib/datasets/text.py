"""The lines of text, in files or on a server: as a stream, or split by bytes into blocks that anyone can read alone."""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from tutorlib.datasets.locations import CHUNK, Local, Remote, Where, find, lines

_MARGIN = 1 << 10  # bytes read beyond a block, where its last line most likely ends: one request instead of two


class _Text:
    """What `Lines` and `Blocks` share: the places, each with its size, and how a line is read."""

    def __init__(self, places: Any, encoding: str, complete: bool, timeout: float, retries: int) -> None:
        if "\n".encode(encoding) != b"\n":
            raise ValueError(f"lines cannot be told apart by bytes in {encoding}: convert the file to utf-8")
        self.encoding = encoding
        self.parts = find(places, timeout, retries)
        for part in self.parts if complete else ():
            self._check_end(part)

    def _check_end(self, part: Local | Remote) -> None:
        if not part.size or b"".join(part.read(part.size - 1, part.size)) == b"\n":
            return
        begin, last = part.size, b""
        while begin and b"\n" not in last:
            begin, more = max(0, begin - CHUNK), begin
            last = b"".join(part.read(begin, more)) + last
        last = last.rpartition(b"\n")[2]
        raise ValueError(
            f"{part}: the last line has no line end, so it may be cut off: {last[:40]!r} from byte {part.size - len(last)} on; "
            "finish the file, or take it as it is with complete=False"
        )

    def _decoded(self, line: bytes, part: Local | Remote, where: str) -> str:
        try:
            return line.removesuffix(b"\n").removesuffix(b"\r").decode(self.encoding)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{part}, {where}: not {self.encoding} ({error.reason}); "
                f"give the file's encoding, for example {type(self).__name__}(path, encoding='latin-1')"
            ) from None

    def _names(self) -> str:
        return repr(self.parts[0].name) if len(self.parts) == 1 else f"{len(self.parts)} files"


class Lines(_Text, IterableDataset):
    r"""The lines of text files, iterable-style, one file after the other, without line ends (LF or CRLF).

    `places` is a path, a URL (http or https), or several of them. Each iteration opens them anew and holds one line.
    `complete=True` refuses a file whose last line has no line end. From a server the bytes are counted: one that stops
    in the middle is asked for the rest up to `retries` times, and nothing is lost or repeated; `timeout` is in seconds.
    Only the servers that you name are asked. Another size than when the source was made is an error, not another stream.

    Errors: FileNotFoundError naming what is missing; ValueError for an encoding whose line end is not one byte (UTF-16),
    an unfinished last line, a changed file, or naming the line that does not decode; ConnectionError for a server that
    does not answer or stops too often.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "words.txt")
    ...     _ = path.write_bytes(b"one\ntwo\r\n\nlast")
    ...     list(Lines(path))
    ['one', 'two', '', 'last']
    """

    def __init__(
        self,
        places: Where | Sequence[Where],
        encoding: str = "utf-8",
        *,
        complete: bool = False,
        timeout: float = 10.0,
        retries: int = 3,
    ) -> None:
        super().__init__(places, encoding, complete, timeout, retries)

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            for number, line in enumerate(lines(part.read(0, part.size)), 1):
                yield self._decoded(line, part, f"line {number}")

    def __repr__(self) -> str:
        return f"Lines({self._names()})"


class Blocks(_Text, Dataset):
    r"""Text files split by bytes, map-style: sample k is the list of the lines that begin in block k.

    A range of bytes is a key, so a reader reads its own bytes and no others. Every line belongs to the one block in
    which it begins, so any way to deal out the numbers of the blocks deals out every line exactly once: `Sharded(blocks)`
    over ranks and workers, `EpochSampler(len(blocks), ...)` in a shuffled order, each resumable by a count of blocks.
    A block is `size` bytes of one file (the last of a file may be shorter); one with no beginning of a line is `[]`. With
    `batch_size=None` a batch is a block; `collate_fn=joined` makes one list of several. Take blocks small against the
    files and large against a request: 64 kB to a few MB. A saved position counts blocks, so keep `size` and the files.

    Arguments and errors as in `Lines`, with bytes in place of line numbers; a server must give parts of a file (Range).

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "words.txt")
    ...     _ = path.write_bytes(b"one\ntwo\nthree\nfour")
    ...     [*Blocks(path, 6)]
    [['one', 'two'], ['three'], ['four']]
    """

    def __init__(
        self,
        places: Where | Sequence[Where],
        size: int = 1 << 20,
        encoding: str = "utf-8",
        *,
        complete: bool = False,
        timeout: float = 10.0,
        retries: int = 3,
    ) -> None:
        self.size = operator.index(size)
        if self.size < 1:
            raise ValueError(f"size is the bytes of a block, at least 1: found {size}")
        super().__init__(places, encoding, complete, timeout, retries)
        for part in self.parts:
            if isinstance(part, Remote) and not part.ranges and part.size > self.size:
                raise ValueError(f"{part}: the server gives no parts (it ignores Range): use Lines, or fetch the file first")
        self._ends = list(itertools.accumulate(-(-part.size // self.size) for part in self.parts))  # blocks up to each file

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> list[str]:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"there are {len(self)} blocks, so their numbers go from 0 to {len(self) - 1}: found {number}")
        number %= len(self)
        file = bisect.bisect_right(self._ends, number)
        part = self.parts[file]
        begin = (number - (self._ends[file - 1] if file else 0)) * self.size
        found = []
        for start, line in _beginning_in(part, begin, min(begin + self.size, part.size)):
            found.append(self._decoded(line, part, f"the line from byte {start} on"))
        return found

    def __iter__(self) -> Iterator[list[str]]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        return f"Blocks({self._names()}, size={self.size})"


def _beginning_in(part: Local | Remote, begin: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """(position, line) for the lines that begin in these bytes: the last is read to its end, wherever that is."""
    first = max(begin - 1, 0)  # a line begins at `begin` if a line end stands before it
    reach = min(stop + _MARGIN, part.size)
    data = b"".join(part.read(first, reach))
    end = data.find(b"\n", stop - 1 - first) + 1  # of the last line: from stop - 1 on, since a line end there is its own
    data = data[:end] if end else data + _up_to_a_line_end(part, reach)
    if begin:
        before, line_end, data = data.partition(b"\n")
        first += len(before + line_end)
    for line in lines([data]):
        yield first, line
        first += len(line)


def _up_to_a_line_end(part: Local | Remote, start: int) -> bytes:
    """The rest of a line: asked for in steps that double, since every step may be a request."""
    found, step = [], 1 << 10
    while start < part.size:
        more = b"".join(part.read(start, min(start + step, part.size)))
        line, end, _ = more.partition(b"\n")
        found.append(line + end)
        if end:
            break
        start, step = start + len(more), min(2 * step, 1 << 20)
    return b"".join(found)


def joined(blocks: Iterable[Sequence[Any]]) -> list[Any]:
    """Several blocks as one list of lines: the collate function for `Blocks`.

    >>> joined([["one", "two"], [], ["three"]])
    ['one', 'two', 'three']
    """
    return list(itertools.chain.from_iterable(blocks))
