"""A small server on 127.0.0.1 for lessons and tests: it gives files, whole or in part, and breaks off on demand."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Served:
    """A running server: its address, what it was asked for, and after how many bytes it will break off next."""

    url: str = ""
    requests: list[str] = field(default_factory=list)  # "words.txt 0-99", in order of arrival
    stops: list[int] = field(default_factory=list)


@contextlib.contextmanager
def serve(folder: str | os.PathLike[str], *, stops: Sequence[int] = (), ranges: bool = True) -> Iterator[Served]:
    """Serve the files of a folder on 127.0.0.1 within the block: `http://127.0.0.1:PORT/NAME`; only this machine can reach it.

    Each number in `stops` lets the server break off once, after so many bytes of the next answer that is longer: the way
    to see what a reader does then. `ranges=False`: parts are not given, as by Python's own http.server. Not for use
    outside of lessons and tests. Errors: NotADirectoryError.

    >>> import tempfile
    >>> from tutorlib import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "words.txt").write_bytes(b"one\\ntwo\\n")
    ...     with datasets.serve(folder, stops=[5]) as served:
    ...         print(list(datasets.Lines(f"{served.url}/words.txt")), served.requests)
    ['one', 'two'] ['words.txt 0-0', 'words.txt 0-7', 'words.txt 5-7']
    """
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder: give the folder whose files are to be served")
    served, alone = Served(stops=list(stops)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the reader has gone: it needs no answer
                self._answer()

        def _answer(self) -> None:
            name = self.path.removeprefix("/")
            if not re.fullmatch(r"[\w-][\w.-]*", name) or not (root / name).is_file():
                self.send_error(404)
                return
            content = (root / name).read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "") if ranges else None
            begin, last = (int(asked[1]), min(int(asked[2]), len(content) - 1)) if asked else (0, len(content) - 1)
            with alone:
                served.requests.append(f"{name} {begin}-{last}" if asked else name)
                stop = served.stops.pop(0) if served.stops and last + 1 - begin > served.stops[0] else None
            if asked and begin > last:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("ETag", f'"{zlib.crc32(content):08x}"')
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{last}/{len(content)}")
            self.send_header("ETag", f'"{zlib.crc32(content):08x}"')
            self.send_header("Content-Length", str(last + 1 - begin))
            self.end_headers()
            self.wfile.write(content[begin : last + 1][:stop])

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr: `Served.requests` holds what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
