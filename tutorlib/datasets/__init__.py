"""Where samples come from: real sources without a network, in both of torch's dataset styles.

| source | map-style: any key, at random | iterable-style: one after the other |
|---|---|---|
| digits, images | `digits`; `write_image_tree` for torchvision's ImageFolder | |
| an SQLite file | `SqliteTable`, a batch is one query | `SqliteStream` |
| an array file | `ArrayFile`, memory-mapped | |
| text: a file, several, or a URL | `Blocks`, split by bytes | `Lines` |
| a log that grows | | `Log` |
| whole numbers | | `Numbers` |

Each is pickled by its name (path, URL, query) and opens its file or connection in the process that reads. Each can be
read again and again in the same order, and nothing here knows about ranks or workers: give any of them to
`sharding.Sharded`, which deals it out exactly once and resumes it. Several of one kind: torch's `ConcatDataset`,
`StackDataset` and `ChainDataset`. `serve` is a server on 127.0.0.1, for lessons and tests.
"""

from __future__ import annotations

from tutorlib.datasets.arrays import ArrayFile, together
from tutorlib.datasets.handwritten import Digits, digit_row, digits, write_image_tree, write_sqlite
from tutorlib.datasets.server import Served, serve
from tutorlib.datasets.sqlite import MissingKey, SqliteStream, SqliteTable
from tutorlib.datasets.streams import Log, LogLine, Numbers
from tutorlib.datasets.text import Blocks, Lines, joined

__all__ = [
    "ArrayFile",
    "Blocks",
    "Digits",
    "Lines",
    "Log",
    "LogLine",
    "MissingKey",
    "Numbers",
    "Served",
    "SqliteStream",
    "SqliteTable",
    "digit_row",
    "digits",
    "joined",
    "serve",
    "together",
    "write_image_tree",
    "write_sqlite",
]
