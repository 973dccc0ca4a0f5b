"""A batch in one read against one read a sample, in turns; exits 1 when a goal is missed.

    python benchmarks/fetching.py [ROUNDS]

Both sides give the same collated batches of a plain DataLoader without workers, in the same shuffled order. Array file: the
peer is the usual dataset over `numpy.load(path, mmap_mode="r")`, whose `__getitem__` copies one row; ours reads the rows of
a batch at once into one tensor (`ArrayFile(together=True)`). SQLite: the peer asks the same table for one key at a time;
the rows are collated as they are (text, whole number, bytes), and once more decoded to images.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tutorlib.datasets import ArrayFile, SqliteTable, digit_row, together, write_sqlite
from tutorlib.facts import Table

SIZE, BATCH = 50_000, 64
GOALS = {"array file": 0.1, "SQLite": 0.35}  # of the other rows no goal: decoding is the same work on both sides


class OneRow(Dataset):
    """The usual way to read a memory-mapped array: row by row."""

    def __init__(self, path: Path) -> None:
        self.rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.rows[index].copy())


class OneByOne(Dataset):
    """A source without its `__getitems__`."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __getitem__(self, key: Any) -> Any:
        return self.source[key]


def seconds(loader: DataLoader) -> float:
    begun = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begun


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other if isinstance(one, (str, bytes)) else all(map(equal, values(one), values(other)))


def values(batch: Any) -> Any:
    return batch.values() if isinstance(batch, dict) else batch


def compared(name: str, peer: Dataset, ours: Dataset, keys: Sequence[Any], rounds: int) -> dict[str, Any]:
    loaders = [
        DataLoader(peer, BATCH, sampler=keys, collate_fn=None),
        DataLoader(ours, BATCH, sampler=keys, collate_fn=together if isinstance(ours, ArrayFile) else None),
    ]
    times: tuple[list[float], list[float]] = ([], [])
    if not all(map(equal, *loaders)):  # the first reads, which bring the files into memory too
        raise SystemExit(f"{name}: the two sides gave different batches")
    for _ in range(rounds):
        for spent, loader in zip(times, loaders, strict=True):
            spent.append(seconds(loader))
    middle = [statistics.median(spent) / len(loaders[0]) * 1e6 for spent in times]
    ratio = middle[1] / middle[0]
    row = {"source": name, "one read a sample, us": round(middle[0], 1), "one read a batch, us": round(middle[1], 1)}
    return {**row, "ratio": round(ratio, 3), "goal": GOALS.get(name), "ok": ratio <= GOALS.get(name, 1)}


def main(rounds: int) -> int:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        np.save(path, np.random.default_rng(0).integers(0, 256, (SIZE, 28, 28), dtype=np.uint8))
        with (
            ArrayFile(path, together=True) as array,
            SqliteTable(write_sqlite(Path(folder, "digits.db")), "digits") as table,
            SqliteTable(Path(folder, "digits.db"), "digits", decode=digit_row) as decoded,
        ):
            peer = OneRow(path)
            keys = draw.sample(table.keys(), 1_280)
            rows = [
                compared("array file", peer, array, draw.sample(range(SIZE), SIZE), rounds),
                compared("SQLite", OneByOne(table), table, keys, rounds),
                compared("SQLite, decoded to images", OneByOne(decoded), decoded, keys, rounds),
            ]
            del peer
    caption = f"microseconds a batch of {BATCH}, medians of {rounds} rounds, 0 workers"
    print(Table(f"{caption}; torch {version('torch')}, numpy {version('numpy')}", rows))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
