"""Lesson 30: the lines of a range of bytes, and a download that is broken off."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

from tutorlib.exercises import Ask, Exercise, Wrong

# --- lines_of ------------------------------------------------------------------------------------------------------------


def _text(draw: random.Random) -> bytes:
    """Short lines of letters, some empty, with a line end after the last."""
    return b"".join(bytes(draw.choices(b"abcde", k=draw.randrange(5))) + b"\n" for _ in range(draw.randint(1, 5)))


def _right(data: bytes, begin: int, stop: int) -> list[bytes]:
    found, position = [], 0
    for line in data.split(b"\n")[:-1]:
        if begin <= position < stop:
            found.append(line)
        position += len(line) + 1
    return found


def _lines_law(lines_of: Any, ask: Ask) -> None:
    for data, size in [(b"ab\nc\n", 3), *ask.cases(30, _text, range(1, 9))]:
        for begin in range(0, len(data), size):
            stop = min(begin + size, len(data))
            ask(lines_of, data, begin, stop, then=list).gives(_right(data, begin, stop))


def _torn(data: bytes, begin: int, stop: int) -> list[bytes]:
    return data[begin:stop].splitlines()


def _drops_the_first(data: bytes, begin: int, stop: int) -> list[bytes]:
    if begin:
        begin = data.index(b"\n", begin) + 1
    return _right(data, begin, stop)


def _takes_the_next(data: bytes, begin: int, stop: int) -> list[bytes]:
    return _right(data, begin, stop + 1)


def _ends_inside(data: bytes, begin: int, stop: int) -> list[bytes]:
    found, position = [], 0
    for line in data.split(b"\n")[:-1]:
        if begin <= position and position + len(line) < stop:
            found.append(line)
        position += len(line) + 1
    return found


lines_of = Exercise(
    "30_lines_of",
    _lines_law,
    wrong=[
        Wrong(
            _torn,
            "Cutting the bytes tears the lines at both ends. A line belongs to the range in which it begins, and all of it does.",
            "直接切字节会把两端的行撕开。一行属于它开头所在的范围，而且整行都属于它。",
        ),
        Wrong(
            _drops_the_first,
            "If a line begins exactly at `begin`, it is yours: look at the byte before `begin`.",
            "如果恰好有一行从 `begin` 开始，它属于你：看一看 `begin` 前面的那个字节。",
        ),
        Wrong(
            _takes_the_next,
            "A line that begins at `stop` belongs to the next range: it would be read twice.",
            "从 `stop` 开始的行属于下一个范围：这样它会读两次。",
        ),
        Wrong(
            _ends_inside,
            "A line that begins in the range but ends behind it is lost here: nobody else takes it.",
            "从范围内开始、到范围外才结束的行在这里丢了：别人不会再读它。",
        ),
    ],
    hints=[
        (
            "Go through all lines and keep count of the byte where each begins. (A real reader looks only near its range.)",
            "走一遍所有的行，记下每行从哪个字节开始。（真正的读取器只看自己范围的附近。）",
        ),
        (
            "Keep a line if `begin <= position < stop`, whatever its length.",
            "只要 `begin <= position < stop` 就留下，不管这行多长。",
        ),
        ("The next line begins `len(line) + 1` bytes further.", "下一行在 `len(line) + 1` 个字节之后开始。"),
    ],
)


# --- fetch_all -----------------------------------------------------------------------------------------------------------


def _server(data: bytes, stops: list[int]) -> Callable[[int], bytes]:
    """A server that gives the bytes from a position on, each time at most as many as the next of `stops` says."""
    left = list(stops)

    def get(start: int) -> bytes:
        return data[start:][: left.pop(0)] if left else data[start:]

    return get


def _stops(draw: random.Random) -> list[int]:
    return [draw.randrange(4) for _ in range(draw.randrange(4))]


def _fetch_law(fetch_all: Any, ask: Ask) -> None:
    for data, stops in [(b"abcdef", []), (b"abcdef", [2]), *ask.cases(30, lambda draw: _text(draw)[:8], _stops)]:
        case = f"fetch_all(get, {len(data)}, tries=4), the server holds {data!r} and stops after {stops} bytes"
        ask(lambda: fetch_all(_server(data, stops), len(data), 4), case=case).gives(data)
    for tries in (1, 2, 3):
        case = f"fetch_all(get, 6, tries={tries}), a server that gives nothing any more"
        ask(lambda tries=tries: fetch_all(_server(b"abcdef", [2] + [0] * 50), 6, tries), case=case).raises(ConnectionError)
    counted: list[int] = []

    def dead(start: int) -> bytes:
        counted.append(start)
        return b""

    def calls() -> int:
        counted.clear()
        with contextlib.suppress(ConnectionError):
            fetch_all(dead, 6, 3)
        return len(counted)

    ask(calls, case="how often fetch_all(get, 6, tries=3) asks a dead server").gives(3)


def _believes(get: Callable[[int], bytes], size: int, tries: int) -> bytes:
    return get(0)


def _starts_over(get: Callable[[int], bytes], size: int, tries: int) -> bytes:
    data = b""
    for _ in range(tries):
        data += get(0)
        if len(data) >= size:
            return data
    raise ConnectionError("gave up")


def _never_says(get: Callable[[int], bytes], size: int, tries: int) -> bytes:
    data = b""
    for _ in range(tries):
        if len(data) < size:
            data += get(len(data))
    return data


def _hurries(get: Callable[[int], bytes], size: int, tries: int) -> bytes:
    data = b""
    for _ in range(tries):
        more = get(len(data))
        if not more:
            break
        data += more
        if len(data) == size:
            return data
    raise ConnectionError("gave up")


fetch_all = Exercise(
    "30_fetch_all",
    _fetch_law,
    wrong=[
        Wrong(
            _believes,
            "A short answer looks like a whole one. Compare its length with `size` before you believe it.",
            "不完整的应答看上去和完整的一样。先把长度和 `size` 比较，再相信它。",
        ),
        Wrong(
            _starts_over,
            "You ask from byte 0 again and append: the beginning is there twice. Ask from `len(data)`.",
            "你又从第 0 个字节要起，再接上去：开头出现了两次。应该从 `len(data)` 要起。",
        ),
        Wrong(
            _never_says,
            "After the last try you return what you have, as if it were all. Raise ConnectionError.",
            "最后一次尝试之后，你把已有的部分当作全部返回。应当抛出 ConnectionError。",
        ),
        Wrong(
            _hurries,
            "An answer of 0 bytes is no reason to give up: tries are left.",
            "应答是 0 个字节并不是放弃的理由：还有尝试次数。",
        ),
    ],
    hints=[
        (
            "Keep what has come in `data`. The next call is `get(len(data))`.",
            "把到手的放进 `data`。下一次调用是 `get(len(data))`。",
        ),
        (
            "Loop `for _ in range(tries)`, and return as soon as `len(data) == size`.",
            "写 `for _ in range(tries)` 循环，`len(data) == size` 时立刻返回。",
        ),
        ("After the loop: `raise ConnectionError(...)`.", "循环之后：`raise ConnectionError(...)`。"),
    ],
)
