"""Where bytes lie: in a file of this machine, or on a server. Both are read from any position, and opened by each reading."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 1 << 16  # bytes read at a time
_PAUSE = 0.05  # seconds before a server is asked again, doubled each time

Where = str | os.PathLike[str]


@dataclass(frozen=True)
class Local:
    """A file, with the size that it had when it was found: another size means another file, so positions are void."""

    path: Path
    size: int

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from start up to stop, a chunk at a time. Errors: FileNotFoundError, ValueError for another size."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path} is gone: it was there when this source was made") from None
        with file:
            file.seek(start)
            while start < stop:
                size = os.fstat(file.fileno()).st_size
                if size != self.size:
                    raise ValueError(
                        f"{self.path} has {size} bytes, it had {self.size} when this source was made: make the source anew, "
                        "or follow a growing file with Log"
                    )
                chunk = file.read(min(CHUNK, stop - start))
                start += len(chunk)
                yield chunk


@dataclass(frozen=True)
class Remote:
    """What a server gives for a URL, read by ranges; only this server is asked: no proxy, no redirect."""

    url: str
    size: int
    version: str | None  # what the server says to tell versions apart: ETag or Last-Modified
    ranges: bool
    timeout: float
    retries: int

    @property
    def name(self) -> str:
        return self.url

    def __str__(self) -> str:
        return self.url

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from start up to stop, a chunk at a time; a server that stops is asked for the rest `retries` times.

        Errors: ConnectionError when it has stopped too often; ValueError if it has another version by now.
        """
        failures = 0
        while start < stop:
            try:
                for chunk in self._ask(start, stop):
                    start += len(chunk)
                    yield chunk
            except _Stopped as stopped:
                failures += 1
                if failures > self.retries:
                    raise ConnectionError(
                        f"{self.url}: the server stopped at byte {start} of {self.size}, {_times(failures)} ({stopped}): "
                        "start it and resume, or allow more (retries=...)"
                    ) from None
                time.sleep(_PAUSE * 2 ** (failures - 1))

    def _ask(self, start: int, stop: int) -> Iterator[bytes]:
        if not self.ranges and (start, stop) != (0, self.size):
            raise ValueError(
                f"{self.url}: the server gives no parts (it ignores Range), so bytes {start} to {stop} cannot be had alone: "
                "read it in one piece with Lines, or fetch the file first"
            )
        with _Exchange(self.url, self.timeout, start, stop if self.ranges else None) as answer:
            found = answer.described()
            if (found.size, found.version) != (self.size, self.version):
                raise ValueError(
                    f"{self.url} has changed on the server: expected {self.size} bytes, version {self.version}; "
                    f"found {found.size}, version {found.version}: make the source anew"
                )
            yield from answer.body(stop - start)


def find(places: Where | Sequence[Where], timeout: float, retries: int) -> tuple[Local | Remote, ...]:
    """Each place as something to read. Errors: ValueError for none, FileNotFoundError naming every file that is missing."""
    wanted = [places] if isinstance(places, (str, os.PathLike)) else list(places)
    if not wanted:
        raise ValueError("no file is given: expected at least one path or URL")
    missing = [str(place) for place in wanted if not _is_url(place) and not Path(place).is_file()]
    if missing:
        few = f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        raise FileNotFoundError(f"{few} is not a file: give the path of a text file")
    return tuple(
        _asked(str(place), timeout, retries) if _is_url(place) else Local(Path(place), Path(place).stat().st_size)
        for place in wanted
    )


def _is_url(place: Where) -> bool:
    return isinstance(place, str) and place.startswith(("http://", "https://"))


def _asked(url: str, timeout: float, retries: int) -> Remote:
    for failures in range(retries + 1):
        try:
            with _Exchange(url, timeout, 0, 1) as answer:
                found = answer.described()
                return Remote(url, found.size, found.version, found.ranges, timeout, retries)
        except _Stopped as stopped:
            reason = stopped
            time.sleep(_PAUSE * 2**failures if failures < retries else 0)
    raise ConnectionError(f"{url}: the server does not answer, asked {_times(retries + 1)} ({reason}): is it running?")


class _Stopped(Exception):
    """The server broke off, or did not answer: worth asking again."""


@dataclass(frozen=True)
class _Described:
    size: int
    version: str | None
    ranges: bool


class _Exchange:
    """One request and its answer, on a connection of its own."""

    def __init__(self, url: str, timeout: float, start: int, stop: int | None) -> None:
        self.url, self.timeout, self.start, self.stop = url, timeout, start, stop

    def __enter__(self) -> _Exchange:
        import http.client  # 20 ms, for those who read from a server
        from urllib.parse import quote, urlsplit

        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._broken = (OSError, http.client.HTTPException)
        self._connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept-Encoding": "identity"}
        if self.stop is not None:
            headers["Range"] = f"bytes={self.start}-{self.stop - 1}"
        try:
            self._connection.request("GET", path, headers=headers)
            self._answer = self._connection.getresponse()
        except self._broken as error:
            self._connection.close()
            raise _Stopped(type(error).__name__) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()

    def described(self) -> _Described:
        """What the answer says about the whole file. Errors: FileNotFoundError, ValueError for an answer of no use."""
        status, header = self._answer.status, self._answer.getheader
        version = header("ETag") or header("Last-Modified")
        whole = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", header("Content-Range") or "")
        if status == 416 and whole and whole[2] == "0":
            return _Described(0, version, True)
        if status == 206 and whole and whole[1] == str(self.start):
            return _Described(int(whole[2]), version, True)
        if status == 200 and (header("Content-Length") or "").isdecimal() and header("Content-Encoding") in (None, "identity"):
            return _Described(int(self._answer.getheader("Content-Length") or 0), version, False)
        if status in (404, 410):
            raise FileNotFoundError(f"{self.url}: the server has no such file (status {status})")
        if status >= 500:
            raise _Stopped(f"status {status}")
        if 300 <= status < 400:
            raise ValueError(f"{self.url}: the server redirects to {header('Location')}: give that URL if you trust it")
        raise ValueError(
            f"{self.url}: the server answers with status {status} and does not say how many bytes there are: give a plain file"
        )

    def body(self, expected: int) -> Iterator[bytes]:
        """The answer's bytes; a body shorter than what was promised is noticed."""
        promised = int(self._answer.getheader("Content-Length") or expected)
        if promised != expected:
            raise ValueError(f"{self.url}: {expected} bytes asked for, the server promises {promised}")
        while expected:
            try:
                chunk = self._answer.read(min(CHUNK, expected))
            except self._broken as error:
                raise _Stopped(type(error).__name__) from None
            if not chunk:
                raise _Stopped(f"{expected} of {promised} promised bytes did not come")
            expected -= len(chunk)
            yield chunk


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def lines(chunks: Iterator[bytes] | Any) -> Iterator[bytes]:
    """The lines in chunks of bytes, with their line ends; the last may have none."""
    rest: list[bytes] = []  # the beginning of a line: joined once, however long it is
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest.append(first)
        for other in others:
            yield b"".join(rest) + b"\n"
            rest = [other]
    if last := b"".join(rest):
        yield last
