"""Lesson 03: a fair share of a stream, for workers and for ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tutorlib.exercises import Ask, Exercise, Wrong


def _share_law(fair_share: Any, ask: Ask) -> None:
    for size, workers in ask.cases(30, range(0, 14), range(1, 6)):
        samples = list(range(size))
        everybody = ask(
            lambda: [list(fair_share(samples, worker, workers)) for worker in range(workers)],
            case=f"fair_share({samples}, worker, {workers}) for all {workers} workers",
        )
        everybody.satisfies(lambda shares: sorted(s for share in shares for s in share) == samples, "every sample once")
        everybody.satisfies(lambda shares: max(map(len, shares)) - min(map(len, shares)) <= 1, "shares differ by at most one")


def _contiguous(samples: list[Any], worker: int, workers: int) -> list[Any]:
    length = math.ceil(len(samples) / workers)
    return samples[worker * length : (worker + 1) * length]


def _floor(samples: list[Any], worker: int, workers: int) -> list[Any]:
    length = len(samples) // workers
    return samples[worker * length : (worker + 1) * length]


fair_share = Exercise(
    "03_fair_share",
    _share_law,
    wrong=[
        Wrong(
            _contiguous,
            "Every sample comes once, but slices of ceil(n / workers) can leave the last worker with nothing.",
            "每个样本都恰好出现一次，但长度为 ceil(n / workers) 的切片可能让最后的工作进程什么也没有。",
        ),
        Wrong(
            _floor,
            "Rounding down loses the samples that are left over at the end.",
            "向下取整会丢掉末尾剩下的样本。",
        ),
        Wrong(
            lambda samples, worker, workers: samples,
            "This gives every worker everything, as the unsharded stream does.",
            "这样每个工作进程都拿到全部样本，和没有切分的数据流一样。",
        ),
    ],
    hints=[
        (
            "Deal the samples out like cards: one to each worker, then again from the first.",
            "像发牌一样分样本：给每个工作进程一个，再从第一个开始。",
        ),
        ("A slice has a third part, the step: samples[start::step].", "切片有第三部分，即步长：samples[start::step]。"),
    ],
)


def _rank_law(read: Any, ask: Ask) -> None:
    for size, world, workers in ask.cases(30, range(0, 14), range(1, 4), range(0, 4)):
        samples = list(range(size))
        infos: list[Any] = [SimpleNamespace(id=number, num_workers=workers) for number in range(workers)] or [None]
        ask(
            lambda: sorted(s for rank in range(world) for info in infos for s in read(samples, rank, world, info)),
            case=f"read {size} samples, {_count(world, 'rank')} with {_count(workers, 'worker')} each, all together",
        ).gives(samples)


def _count(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def _worker_only(samples: list[Any], rank: int, world: int, info: Any) -> Iterator[Any]:
    worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
    yield from samples[worker::workers]


def _rank_only(samples: list[Any], rank: int, world: int, info: Any) -> Iterator[Any]:
    yield from samples[rank::world]


def _collides(samples: list[Any], rank: int, world: int, info: Any) -> Iterator[Any]:
    worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
    yield from samples[rank + worker :: world * workers]


rank_aware = Exercise(
    "03_rank_aware",
    _rank_law,
    wrong=[
        Wrong(
            _worker_only,
            "Your share forgets the rank: every rank reads the same samples, as in the documentation's example.",
            "你的份额忘了 rank：每个 rank 都读同样的样本，和文档的示例一样。",
        ),
        Wrong(
            _rank_only,
            "Your share forgets the worker: each worker of a rank reads all samples of that rank.",
            "你的份额忘了工作进程：同一个 rank 的每个工作进程都读这个 rank 的全部样本。",
        ),
        Wrong(
            _collides,
            "rank + worker gives two readers the same number: rank 0, worker 1 and rank 1, worker 0 collide.",
            "rank + worker 会让两个读者同号：rank 0 的 1 号工作进程和 rank 1 的 0 号工作进程撞在一起。",
        ),
    ],
    hints=[
        (
            "There are world * workers readers. Give each of them its own number, from 0 on, and deal out as in exercise 1.",
            "一共有 world * workers 个读者。给每个读者一个从 0 开始的编号，再像练习 1 那样分。",
        ),
        (
            "Without workers (info is None) there is 1 reader in each rank, and its number is 0.",
            "没有工作进程时（info 是 None），每个 rank 有 1 个读者，编号是 0。",
        ),
        (
            "The number of a reader is worker * world + rank, of world * workers readers.",
            "读者的编号是 worker * world + rank，读者总数是 world * workers。",
        ),
    ],
)
