"""Sharded, resumable iteration against the documentation's own pattern, in turns; exits 1 when a goal is missed.

    python benchmarks/sharding.py [ROUNDS] [WORKERS ...]

The peer is the documentation's sharded IterableDataset in the raw DataLoader: 50,000 images of 28 x 28 with a label, batches of
64, without workers and with 2. It shares out among workers, forgets ranks, and cannot be resumed. Ours are

  - `Sharded` with `follow`, sample by sample: goal <= 1.02 of the peer's time;
  - `Batched` under an EpochSampler with `follow`, a batch at a time, slices of the plan: goal <= 0.1 as views of the source
    (`copy=False`, without workers), <= 0.8 with 2 workers;
  - the same as copies, and shuffled, where rows are gathered: told beside it. A copy is bound by the memory, not by Python.

Before anything is timed each is audited: every sample exactly once, and half an epoch is resumed by the state.
A round runs each once, in an order that changes from round to round; the ratios are those of a round, their medians are told.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tutorlib.audit import audit
from tutorlib.facts import Table
from tutorlib.samplers import Batched, EpochSampler
from tutorlib.sharding import Sharded

SIZE, BATCH = 50_000, 64
GOALS = {"Sharded": {0: 1.02, 2: 1.02}, "Batched, views": {0: 0.1}, "Batched": {2: 0.8}}
PEER = "documented"


class Images(torch.utils.data.Dataset):
    """50,000 images with a label, which is the number of the sample."""

    def __init__(self, size: int = SIZE) -> None:
        self.images, self.labels = torch.rand(size, 28, 28), torch.arange(size)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index], self.labels[index]


class Documented(IterableDataset):
    """The example of torch.utils.data.IterableDataset: each worker reads its part, from start to end."""

    def __init__(self, data: Images) -> None:
        self.data, self.start, self.end = data, 0, len(data)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        if info is None:
            start, end = self.start, self.end
        else:
            per_worker = math.ceil((self.end - self.start) / info.num_workers)
            start = self.start + info.id * per_worker
            end = min(start + per_worker, self.end)
        return iter(self.data[index] for index in range(start, end))


Reading = Callable[[], Iterable[Any]]


def documented(data: Images, workers: int) -> Reading:
    return lambda: DataLoader(Documented(data), batch_size=BATCH, num_workers=workers)


def sharded(data: Images, workers: int) -> Reading:
    def read() -> Iterable[Any]:
        stream = Sharded(data, chunk=BATCH)
        return stream.follow(DataLoader(stream, batch_size=BATCH, num_workers=workers))

    return read


def batched(data: Images, workers: int, shuffle: bool = False, copy: bool = True) -> Reading:
    def read() -> Iterable[Any]:
        sampler = EpochSampler(len(data), BATCH, shuffle=shuffle)
        source = Batched((data.images, data.labels), copy=copy)
        return sampler.follow(DataLoader(source, sampler=sampler, batch_size=None, num_workers=workers))

    return read


def check(data: Images, workers: int) -> None:
    """Every sample once, as often as one runs it, and the rest of a half epoch is the rest."""
    for read in (sharded(data, workers), batched(data, workers), batched(data, workers, shuffle=True)):
        audit(lambda read=read: _Once(read), expected=len(data), key=lambda batch: batch[1]).require()
    whole = [batch[1].tolist() for batch in batched(data, workers)()]
    stream, sampler = Sharded(data, chunk=BATCH), EpochSampler(len(data), BATCH, shuffle=False)
    loaders = (
        DataLoader(stream, batch_size=BATCH, num_workers=workers),
        DataLoader(Batched((data.images, data.labels)), sampler=sampler, batch_size=None, num_workers=workers),
    )
    for state_of, loader in zip((stream, sampler), loaders, strict=True):
        half = len(whole) // 2
        read = [batch[1].tolist() for batch in itertools.islice(state_of.follow(loader), half)]
        state_of.load_state_dict(state_of.state_dict())
        if [*read, *(batch[1].tolist() for batch in state_of.follow(loader))] != whole:
            raise SystemExit(f"{type(state_of).__name__} lost or repeated something when it was resumed")


class _Once:
    """A loader for the audit: what `read` begins."""

    def __init__(self, read: Reading) -> None:
        self.read = read

    def __iter__(self) -> Iterator[Any]:
        return iter(self.read())


def seconds(read: Reading) -> float:
    begun = time.perf_counter()
    samples = sum(len(images) for images, _ in read())
    spent = time.perf_counter() - begun
    if samples != SIZE:
        raise SystemExit(f"{samples} samples came, {SIZE} were expected")
    return spent


def main(rounds: int, workers: list[int]) -> int:
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
    data, rows = Images(), []
    for count in workers:
        check(Images(1000), count)
        ways = {
            PEER: documented(data, count),
            "Sharded": sharded(data, count),
            "Batched": batched(data, count),
            "Batched, shuffled": batched(data, count, shuffle=True),
        }
        if not count:  # in a worker it is a copy, into shared memory
            ways["Batched, views"] = batched(data, count, copy=False)
        for read in ways.values():
            seconds(read)  # the first pass pays for memory and for what is loaded lazily
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            names = list(ways)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                times[name].append(seconds(ways[name]))
        for name, found in times.items():
            ratio = statistics.median(mine / peer for mine, peer in zip(found, times[PEER], strict=True))
            goal = GOALS.get(name, {}).get(count)
            row: dict[str, object] = {"workers": count, "what": name, "ms": round(statistics.median(found) * 1000)}
            rows.append({**row, "ratio": round(ratio, 3), "goal": goal, "ok": None if goal is None else ratio <= goal})
    title = f"{SIZE} images of 28 x 28, batches of {BATCH}, medians of {rounds} rounds; torch {version('torch')}"
    print(Table(title, rows))
    return 1 if any(row["ok"] is False for row in rows) else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(given[0] if given else 9, given[1:] or [0, 2]))
