"""What tracing costs: `trace.record` against the plain DataLoader on the digits, in turns; exits 1 when a goal is missed.

    python benchmarks/tracing.py [rounds]

Goals: at most 5 % of an epoch with 2 workers, and at most 10 microseconds a sample with none.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from tutorlib.datasets import digits
from tutorlib.trace import record

BATCH = 32
RATIO, MICROSECONDS = 1.05, 10.0


def seconds(run: Callable[[], object]) -> float:
    gc.collect()
    begun = time.perf_counter()
    kept = run()
    spent = time.perf_counter() - begun
    del kept
    return spent


class Stream(IterableDataset):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


def compare(data: Any, rounds: int, **loader: int) -> tuple[float, float, float]:
    """Medians of the plain and the traced epoch in seconds, and of the ratio of neighbours: what else the machine does hits both.

    Both keep their batches, and they take turns at going first.
    """

    def plain() -> object:
        return list(iter(DataLoader(data, batch_size=BATCH, **loader)))

    def traced() -> object:
        return record(data, batch_size=BATCH, **loader)

    plain(), traced()
    times: dict[Callable[[], object], list[float]] = {plain: [], traced: []}
    for turn in range(rounds):
        for run in (plain, traced) if turn % 2 == 0 else (traced, plain):
            times[run].append(seconds(run))
    ratios = [t / p for p, t in zip(times[plain], times[traced], strict=True)]
    return statistics.median(times[plain]), statistics.median(times[traced]), statistics.median(ratios)


def main(rounds: int) -> int:
    data = digits()
    size, samples = len(data), list(data)
    missed = []
    print(f"peer: torch {torch.__version__} DataLoader; {size} digits, batches of {BATCH}, {rounds} rounds in turns, medians")
    plain, traced, ratio = compare(data, rounds, num_workers=2)
    print(f"2 workers: plain {plain * 1e3:.1f} ms, traced {traced * 1e3:.1f} ms an epoch: {ratio:.3f} (goal {RATIO})")
    if ratio > RATIO:
        missed.append("2 workers")
    for name, source in (("batch by batch", data), ("sample by sample", samples), ("a stream", Stream(samples))):
        plain, traced, times = compare(source, rounds * 2, num_workers=0)
        cost = plain * (times - 1) / size * 1e6
        print(f"0 workers, {name}: {plain * 1e3:.1f} ms, {traced * 1e3:.1f} ms: {cost:.2f} us a sample (goal {MICROSECONDS:g})")
        if cost > MICROSECONDS:
            missed.append(f"0 workers, {name}")
    print(f"missed: {'; '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
