"""Who reads which sample: every sample exactly once over all ranks and workers, in an order that can be told.

A rank is one training process of many, a worker one loading process of its DataLoader. The canonical stream is the
source read from its beginning by nobody else. It is dealt out in runs of `chunk` samples, like cards: run q belongs to
rank q % world, and within that rank to each of its workers in turn. Three laws follow, and tests hold them:

1. Exactly once: for any length, any number of ranks and of workers, each sample reaches one place.
2. Which samples a rank gets does not depend on its workers. Its loader's order is the canonical order, for any number
   of workers, when `chunk` equals the loader's batch_size (or both are left out: `batch_size=None`, chunk 1). With
   another chunk and several workers each batch still holds its own samples, but the batches interleave.
3. A position is a count of samples, so a few plain integers resume a run, with other workers and even other ranks.

What a stream cannot promise: equal numbers of steps. Rank 0 may get one run more than the last rank; where ranks must step
together (gradients are averaged at each step) the shorter ones have to be waited for (`torch.distributed.algorithms.join`)
or the surplus run dropped.

Where the number of samples is known it can be promised, and `plan` does: a pure function from (samples, ranks, batch size)
to the positions of every batch, each sample once and the same number of steps for every rank. `order` says which sample
stands at a position, as a function of (seed, epoch) alone, and `randomness` makes what is random about a sample a function
of (seed, epoch, index). `samplers` brings the three into a DataLoader.
"""

from __future__ import annotations

import collections.abc
import contextlib
import hashlib
import itertools
import operator
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.random  # now, not first in each forked worker: an import there can fail when it was forked beside a thread
import torch.distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tutorlib.facts import Facts

__all__ = ["REMAINDERS", "Place", "Plan", "Sharded", "order", "plan", "plan_lengths", "randomness", "seed_of", "this_process"]

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """One reader among many: rank of world, and worker of workers within that rank.

    Places are numbered (`index` of `count`) so that a rank's workers are `world` apart: the samples of a rank are then
    the same for any number of workers. Errors: ValueError for a number out of range.

    >>> [Place(rank=1, world=2, worker=w, workers=2).index for w in (0, 1)]
    [1, 3]
    >>> [list(Place(rank, 2).share("abcde")) for rank in (0, 1)]
    [['a', 'c', 'e'], ['b', 'd']]
    """

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for name, of in (("rank", "world"), ("worker", "workers")):
            number, total = getattr(self, name), getattr(self, of)
            if not 0 <= number < total:
                raise ValueError(f"{name} must be from 0 to {of} - 1: found {name}={number}, {of}={total}")

    @property
    def index(self) -> int:
        """This place's number, from 0 to count - 1: worker * world + rank."""
        return self.worker * self.world + self.rank

    @property
    def count(self) -> int:
        """How many places there are: world * workers."""
        return self.world * self.workers

    def share(self, items: Iterable[T], chunk: int = 1) -> Iterator[T]:
        """This place's samples of `items`, lazily: every count-th run of `chunk` samples.

        Map-style items (`__len__` and `__getitem__`) are read only where this place's samples are, and a run at a time
        if they have `__getitems__`; those with `keys()` give their values, in the order of their keys. Other
        iterables are read to their end and the samples of other places thrown away. Errors: TypeError for a set
        (its order differs between processes), ValueError for chunk < 1.

        >>> list(Place(1, 2).share(range(10), chunk=3))
        [3, 4, 5, 9]
        """
        _check_source(items)
        return _deal(items, self, _at_least_one("chunk", chunk), start=0, part=0)


def this_process(rank: int | None = None, world: int | None = None) -> Place:
    """The place of the running process. Call it where the samples are read: in `__iter__`, not in `__init__`.

    The worker comes from torch's get_worker_info and is right anywhere. Rank and world are right only in the training
    process itself (from torch.distributed, else from torchrun's RANK and WORLD_SIZE), so a dataset asks for them when
    it is made and hands them in: inside a worker torch.distributed says "initialized" under fork and "not
    initialized" under spawn and forkserver, where every rank would take itself for the only one.

    Errors: RuntimeError if a worker would have to guess its rank among several; ValueError if only one of rank and
    world is given or they are out of range. Source: claim IT-05.

    >>> this_process()
    Place(rank=0, world=1, worker=0, workers=1)
    """
    if (rank is None) != (world is None):
        raise ValueError(f"rank and world go together: found rank={rank}, world={world}")
    info = get_worker_info()
    if rank is None or world is None:
        rank, world = _rank_and_world()
        if info is not None and world > 1:
            raise RuntimeError(
                f"a worker process cannot be sure of its rank (here it looks like rank {rank} of {world}, under another "
                "start method it would not): ask in the dataset's __init__, where rank and world are known, "
                "and call this_process(rank, world)"
            )
    return Place(rank, world) if info is None else Place(rank, world, info.id, info.num_workers)


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    # Before init_process_group, torchrun's variables are the only sign that there are other ranks.
    names = ("RANK", "WORLD_SIZE")
    if all(os.environ.get(name, "").isdecimal() for name in names):
        rank, world = (int(os.environ[name]) for name in names)
        return rank, world
    return 0, 1


class Sharded(IterableDataset):
    """Any source, dealt out over all ranks and workers: each sample exactly once, and resumable.

    `source` is anything that can be read again and again in the same order: a list, a map-style dataset (only this
    place's samples are read), an iterable-style dataset that does not shard itself (all is read, a share is given).
    `rank` and `world` are taken from torch.distributed when the object is made (see `this_process`), or given.
    `chunk`: samples dealt at a time; give it the loader's batch_size to have the batches in canonical order.
    There is no `len`: how many batches a loader makes of it depends on the number of its workers.

    `transform(sample)` runs with `random`, `numpy.random` and torch seeded from `seed`, the epoch and the sample's position in
    the canonical stream, as `samplers.Keyed` does for map-style datasets: the sample at a position in an epoch is made
    alike for any number of ranks and workers, any chunk and after any resume. The epoch is the one that `follow` counts;
    workers that nobody follows could not know it, and refuse. The samples of a run are read before the first is made.

    Resuming: `state_dict()` is five integers. `epoch` counts complete iterations. `seen` are the samples of the
    canonical stream that all ranks have had in this one when they are in step, `part` those that this rank has had of
    its next run (0 if chunk is batch_size). They count what was handed out, and who sees that differs:
      - with `follow(loader)` around the loader the main process counts each batch as you get it: exact with any number
        of workers, however far they have read ahead;
      - without it and without workers the dataset counts itself. The loader does not read ahead, so that is what you
        have had, except that a short last batch ends the epoch before you get it: go by `epoch`, not by a counter of
        your own;
      - without it and with workers the reading is done by copies in other processes, prefetch_factor batches each in
        advance. What they count says nothing about what was consumed: the state stays where it was, and a loaded
        state is refused.
    With `part` 0 a state taken by all ranks at the same step may be loaded by any number of ranks and workers, with any
    chunk. After `load_state_dict` the next iteration goes on from there; the one after that is a whole one.

    Errors: TypeError for an iterator (it can be read only once), a set or another Sharded, a transform that is no function;
    ValueError for rank, world, chunk or a state that do not fit.

    >>> from torch.utils.data import DataLoader
    >>> [[batch.tolist() for batch in DataLoader(Sharded(range(7), rank, 2, chunk=2), batch_size=2)] for rank in (0, 1)]
    [[[0, 1], [4, 5]], [[2, 3], [6]]]
    >>> noisy = [Sharded(range(3), 0, 1, chunk=chunk, transform=lambda x: x + random.random(), seed=7) for chunk in (1, 3)]
    >>> list(noisy[0]) == list(noisy[1]) != list(noisy[1])  # the second pass is the next epoch
    True
    """

    def __init__(
        self,
        source: Iterable[Any],
        rank: int | None = None,
        world: int | None = None,
        *,
        chunk: int = 1,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        _check_source(source)
        if isinstance(source, collections.abc.Iterator):
            raise TypeError(
                f"a {type(source).__name__} can be read only once, a dataset again and again: give a list, a dataset, "
                "or an object whose __iter__ begins anew"
            )
        if transform is not None and not callable(transform):
            raise TypeError(f"transform is a function of one sample: found {type(transform).__name__}")
        if type(seed) is not int:
            raise TypeError(f"seed is a whole number: found {seed!r}")
        here = this_process(rank, world)
        self.source, self.rank, self.world, self.chunk = source, here.rank, here.world, _at_least_one("chunk", chunk)
        self.transform, self.seed = transform, seed
        # Persistent workers are copies made once: in shared memory they see which epoch the main process is in.
        self._clock = None if transform is None else torch.zeros(1, dtype=torch.int64).share_memory_()
        self.epoch = 0
        self._start, self._part, self._given = 0, 0, 0  # where this iteration began, and how many were handed out since
        self._loaded = False  # the next iteration begins at _start
        self._followed = False  # follow counts, not the iteration
        self._turn: object = None  # the iteration that counts, if several are alive

    def place(self) -> Place:
        """The place of the running process among all ranks and workers."""
        return this_process(self.rank, self.world)

    def __iter__(self) -> Iterator[Any]:
        place, in_worker = self.place(), get_worker_info() is not None
        if self._followed:
            return self._read(place, in_worker)
        if in_worker and (self._loaded or self.transform is not None):
            what = "a loaded state needs the main process to count what is consumed, workers read ahead"
            if not self._loaded:
                what = "a transform keyed by the epoch needs the main process to count epochs, workers cannot"
            raise RuntimeError(f"{what}: loop over sharded.follow(loader) instead of the loader")
        return self._counted(self._read(place, in_worker), 1)

    def _read(self, place: Place, in_worker: bool) -> Iterator[Any]:
        """This place's samples, and made by the transform if there is one; which epoch it is, is asked now."""
        where = place, self.chunk, *self._begin()
        samples = _deal(self.source, *where)
        if self._clock is None:
            return samples
        epoch = int(self._clock) if in_worker else self.epoch
        return self._made(zip(_deal(range(sys.maxsize), *where), samples, strict=False), epoch)

    def _made(self, numbered: Iterator[tuple[int, Any]], epoch: int) -> Iterator[Any]:
        assert self.transform is not None
        while run := list(itertools.islice(numbered, self.chunk)):
            made = []
            with _generators_kept():
                for position, sample in run:
                    _seed_generators(seed_of(self.seed, epoch, position))
                    made.append(self.transform(sample))
            yield from made

    def _begin(self) -> tuple[int, int]:
        if not self._loaded:
            self._start = self._part = 0
        self._loaded, self._given = False, 0
        return self._start, self._part

    def _counted(self, items: Iterator[Any], size: int) -> Iterator[Any]:
        turn = self._turn = object()
        return self._counting(items, size, turn)

    def _counting(self, items: Iterator[Any], size: int, turn: object) -> Iterator[Any]:
        for item in items:
            if turn is self._turn:
                self._given += size
            yield item
        if turn is self._turn:
            self.epoch += 1
            self._begin()

    def follow(self, loader: DataLoader) -> Iterator[Any]:
        """The batches of `loader`, counted as they are handed out: the way to be resumable, with workers or without.

        The loader must read this dataset. With workers the order must be the canonical one, or a count could not say
        what was consumed: chunk equal to batch_size (or batch_size=None and chunk 1) and in_order=True.
        Errors, before the first batch: ValueError for another loader, naming both sides.

        >>> from torch.utils.data import DataLoader
        >>> stream = Sharded(range(8), chunk=2)
        >>> for batch in stream.follow(DataLoader(stream, batch_size=2)):
        ...     if 5 in batch: break
        >>> stream.state_dict()
        {'epoch': 0, 'seen': 6, 'part': 0, 'world': 1, 'chunk': 2}
        """
        if loader.dataset is not self:
            raise ValueError(f"follow counts what its own dataset gives: the loader reads {type(loader.dataset).__name__}")
        size = 1 if loader.batch_size is None else loader.batch_size
        if loader.num_workers > 0:
            if size != self.chunk:
                raise ValueError(
                    f"with workers the order is known only if chunk is the loader's batch_size: found chunk={self.chunk}, "
                    f"batch_size={loader.batch_size}: use Sharded(source, chunk={size})"
                )
            if not getattr(loader, "in_order", True):
                raise ValueError("in_order=False gives batches in no known order, a count cannot resume it: use in_order=True")
            if self._part:
                raise ValueError(
                    f"the state stops inside a run ({self._part} of {self.chunk} samples): finish this epoch with num_workers=0"
                )
            if self._loaded and getattr(loader, "_iterator", None) is not None and loader.persistent_workers:
                raise ValueError("persistent workers do not hear of a state loaded after they started: make a new DataLoader")
        return self._follow(loader, size)

    def _follow(self, loader: DataLoader, size: int) -> Iterator[Any]:
        self._followed = True
        if self._clock is not None:
            self._clock.fill_(self.epoch)
        try:
            batches = iter(loader)  # the samples' iterators, and the workers' copies, are made here: with _loaded as it is
        finally:
            self._followed = False
        if loader.num_workers > 0:
            self._begin()
        # A batch counts as `size` samples; the last may be shorter, but then no sample of this rank follows it.
        yield from self._counted(batches, size)

    def state_dict(self) -> dict[str, int]:
        """Where the run is, as plain integers: `epoch`, `seen`, `part`, `world`, `chunk` (see the class)."""
        runs, part = divmod(self._part + self._given, self.chunk)
        seen = self._start + runs * self.chunk * self.world
        if self.world == 1:
            seen, part = seen + part, 0
        return {"epoch": self.epoch, "seen": seen, "part": part, "world": self.world, "chunk": self.chunk}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration where `state` says; nothing is changed if it does not fit.

        Errors: ValueError for missing, extra or negative entries, or a `part` taken with another world or chunk.
        """
        names = ["epoch", "seen", "part", "world", "chunk"]
        if sorted(state) != sorted(names):
            raise ValueError(f"a state has the entries {names}: found {list(state)}")
        for name, least in zip(names, (0, 0, 0, 1, 1), strict=True):
            if type(state[name]) is not int or state[name] < least:
                raise ValueError(f"state[{name!r}] must be an int of at least {least}: found {state[name]!r}")
        found, mine = (state["world"], state["chunk"]), (self.world, self.chunk)
        if state["part"] and found != mine:
            raise ValueError(
                f"the state stops inside a run ({state['part']} of {found[1]} samples), so it fits only world={found[0]}, "
                f"chunk={found[1]}: found world={mine[0]}, chunk={mine[1]}; save it when chunk is the batch_size"
            )
        self.epoch, self._start, self._part, self._given = state["epoch"], state["seen"], state["part"], 0
        self._loaded, self._turn = True, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_turn": None}

    def __repr__(self) -> str:
        return f"Sharded({self.source!r}, rank={self.rank}, world={self.world}, chunk={self.chunk})"


def _deal(source: Any, place: Place, chunk: int, start: int, part: int) -> Iterator[Any]:
    """The samples of `place` from position `start` on, less the first `part` of its rank's next run."""
    runs = _indexed_runs if _is_map_style(source) else _streamed_runs
    skipped = part if place.worker == 0 else 0  # a rank's next run is its worker 0's first
    samples = runs(source, start + place.index * chunk, chunk, (place.count - 1) * chunk)
    return itertools.islice(samples, skipped, None) if skipped else samples


def _indexed_runs(source: Any, first: int, chunk: int, gap: int) -> Iterator[Any]:
    keys = list(source.keys()) if hasattr(source, "keys") else range(len(source))
    starts, bulk = range(first, len(keys), chunk + gap), getattr(source, "__getitems__", None)
    if bulk and chunk > 1:
        return itertools.chain.from_iterable(bulk(list(keys[start : start + chunk])) for start in starts)
    # One flat expression: each level of `yield from` or `map` would cost as much again for every sample.
    return (source[key] for start in starts for key in keys[start : start + chunk])


def _streamed_runs(source: Iterable[Any], first: int, chunk: int, gap: int) -> Iterator[Any]:
    samples = iter(source)
    next(itertools.islice(samples, first, first), None)  # step over `first` samples
    if chunk == 1:
        yield from itertools.islice(samples, 0, None, gap + 1)
        return
    end = object()
    while (sample := next(samples, end)) is not end:
        yield sample
        yield from itertools.islice(samples, chunk - 1)
        next(itertools.islice(samples, gap, gap), None)


def _is_map_style(source: Any) -> bool:
    return not isinstance(source, IterableDataset) and hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _check_source(source: Any) -> None:
    if isinstance(source, Sharded):
        raise TypeError("the source is already Sharded, twice would lose samples: give the source inside it")
    if isinstance(source, (set, frozenset)):
        raise TypeError("a set has no order that all processes share: give sorted(the_set)")
    if not _is_map_style(source) and not isinstance(source, collections.abc.Iterable):
        raise TypeError(f"{type(source).__name__} is no source: it needs __iter__, or __len__ and __getitem__")


def _at_least_one(name: str, number: int) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name} is a whole number: found {number!r}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1: found {number}")
    return operator.index(number)


# The plan: positions of every batch, for a number of samples that is known.

REMAINDERS = ("balance", "pad", "drop", "uneven", "error")
_STEPS_SHOWN = 24  # of a long plan: more are counted, not printed

Span = tuple[int, int]  # positions from start to stop, stop excluded


@dataclass(frozen=True, repr=False)
class Plan(Facts):
    """Which positions of the epoch's order each rank reads at each step; made by `plan` and `plan_lengths`.

    `len(plan)` is the number of steps, `plan.at(step, rank)` the positions (start, stop) of one batch. Within a step the
    ranks' batches follow one another, so the steps cut the order into consecutive pieces and one number, the samples
    `seen` so far, says where a run is. Positions from `size` on (only with "pad") begin again at 0: position p stands for
    p % size. The first `full` steps are all alike and are not stored, so a plan of a billion samples costs nothing.
    """

    size: int
    world: int
    batch_size: int | None  # the most samples in a batch; None where only a budget limits it
    remainder: str
    start: int
    full: int
    tail: tuple[tuple[Span, ...], ...]

    def __len__(self) -> int:
        return self.full + len(self.tail)

    def at(self, step: int, rank: int) -> Span:
        """The positions (start, stop) of the batch of `rank` at `step`; equal where the rank has none ("uneven").

        >>> plan(23, world=3, batch_size=4).at(1, 2)
        (20, 23)
        """
        if not (0 <= step < len(self) and 0 <= rank < self.world):
            raise IndexError(f"step {step}, rank {rank}: the plan has {len(self)} steps and {self.world} ranks")
        if step >= self.full:
            return self.tail[step - self.full][rank]
        size = self.batch_size or 0
        begin = self.start + (step * self.world + rank) * size
        return begin, begin + size

    @property
    def steps(self) -> tuple[tuple[Span, ...], ...]:
        """All of it, written out: `steps[step][rank]` is (start, stop)."""
        return tuple(tuple(self.at(step, rank) for rank in range(self.world)) for step in range(len(self)))

    def of(self, rank: int) -> Iterator[Span]:
        """The positions of each batch of one rank, in turn; steps in which it has none are left out."""
        for step in range(len(self)):
            begin, stop = self.at(step, rank)
            if stop > begin:
                yield begin, stop

    def count(self, rank: int) -> int:
        """How many batches a rank gets: `len(plan)` for every rank, unless the remainder is "uneven"."""
        return self.full + sum(row[rank][1] > row[rank][0] for row in self.tail)

    def sizes(self, rank: int) -> tuple[int, ...]:
        """How many samples a rank has at each step.

        >>> [plan(23, world=3, batch_size=4).sizes(rank) for rank in range(3)]
        [(4, 4), (4, 4), (4, 3)]
        """
        return tuple(stop - begin for begin, stop in (self.at(step, rank) for step in range(len(self))))

    def weight(self, step: int, rank: int) -> float:
        """What to multiply the mean loss of this batch by, so that averaging the ranks' gradients counts each sample once.

        It is the batch's size times the number of ranks over the samples of the whole step: 1.0 wherever the batches of a
        step are equal. A gradient averaged without it counts a sample in a smaller batch for more.

        >>> [plan(5, world=2, batch_size=4).weight(0, rank) for rank in range(2)]
        [1.2, 0.8]
        """
        begin, stop = self.at(step, rank)
        return (stop - begin) * self.world / (self.at(step, self.world - 1)[1] - self.at(step, 0)[0])

    def seen(self, steps: int) -> int:
        """How many samples of the epoch are done after that many steps: where another plan may go on.

        >>> [plan(23, world=3, batch_size=4).seen(steps) for steps in range(3)]
        [0, 12, 23]
        """
        return self.start if steps == 0 else min(self.size, self.at(steps - 1, self.world - 1)[1])

    @property
    def _stop(self) -> int:
        return self.at(len(self) - 1, self.world - 1)[1] if len(self) else self.start

    @property
    def repeated(self) -> int:
        """How many samples are read a second time, by "pad"."""
        return max(0, self._stop - self.size)

    @property
    def dropped(self) -> int:
        """How many samples are read by nobody, by "drop"."""
        return max(0, self.size - self._stop)

    def summary(self) -> str:
        samples = _count(self.size - self.start, "sample") + (f" from position {self.start}" if self.start else "")
        limit = "" if self.batch_size is None else f", batches of at most {self.batch_size}"
        if self.repeated or self.dropped:
            once = f"{self.repeated} read again" if self.repeated else f"{self.dropped} dropped"
        else:
            once = "each sample once"
        counts = {self.count(rank) for rank in range(self.world)}
        who = "" if self.world == 1 else " for every rank" if len(counts) == 1 else f", but only {min(counts)} for the last rank"
        return f"{samples}, {_count(self.world, 'rank')}{limit}: {_count(len(self), 'step')}{who}, {once}"

    def rows(self) -> Sequence[Mapping[str, object]]:
        shown: Sequence[int | None] = range(len(self))
        if len(self) > _STEPS_SHOWN:
            shown = [*range(_STEPS_SHOWN - 3), None, len(self) - 2, len(self) - 1]
        names = [f"rank {rank}" for rank in range(self.world)]
        gap = {"step": "...", **dict.fromkeys(names, "...")}
        return [
            gap if step is None else {"step": step, **{name: self._text(step, rank) for rank, name in enumerate(names)}}
            for step in shown
        ]

    def _text(self, step: int, rank: int) -> str:
        begin, stop = self.at(step, rank)
        if begin == stop:
            return "-"
        if stop <= self.size:
            return f"{begin}:{stop}"
        return ", ".join(str(position % self.size) for position in range(begin, stop))

    def grid(self) -> dict[str, Any]:
        """Rank x step for `pictures.grid`: the positions of each batch, a sign on what is read again, what is dropped."""

        def item(position: int) -> dict[str, str]:
            again = position >= self.size
            return {"text": str(position % self.size), "sign": "x2" if again else ""}

        rows = [
            {
                "label": f"rank {rank}",
                "cells": [
                    {"label": f"step {step}", "items": [item(position) for position in range(*self.at(step, rank))]}
                    for step in range(len(self))
                ],
            }
            for rank in range(self.world)
        ]
        return {"rows": rows, "missing": [str(position) for position in range(self._stop, self.size)]}


def plan(size: int, world: int = 1, batch_size: int = 1, remainder: str = "balance", *, start: int = 0) -> Plan:
    """Plan an epoch of `size` samples for `world` ranks in batches of at most `batch_size`: a pure function.

    Every step but the last one or two gives each rank `batch_size` samples. `remainder` says what becomes of those that
    do not fill a last step of world * batch_size:
      - "balance": each sample once, every rank the same number of steps, the fewest possible. The remainder is shared out,
        together with the last full step if it is smaller than the number of ranks. It costs one or two steps of smaller
        batches, whose sizes differ by at most one: `Plan.sizes` tells them, `Plan.weight` evens the loss out. It is
        possible unless there are fewer samples than ranks, or batch_size is 1 and world does not divide the samples;
      - "pad": every rank the same number in the last step; at most world - 1 samples, from the beginning, are read again;
      - "drop": only full batches; up to world * batch_size - 1 samples are read by nobody in this epoch;
      - "uneven": each sample once in full batches, ranks in turn; the last ranks may get one batch less (training that
        averages gradients at every step then waits for ever);
      - "error": refuse a size that does not divide.
    `start`: plan only the positions from there on, for resuming. With the same world and batch_size that is exactly the
    rest of the whole plan, with others it is a new plan for what is left: nothing is lost or repeated.

    Errors: ValueError for numbers out of range, for what "balance" cannot do, and by "error"; TypeError for a size that
    is no whole number.

    >>> plan(10, world=4, batch_size=2)
    10 samples, 4 ranks, batches of at most 2: 2 steps for every rank, each sample once
    step  rank 0  rank 1  rank 2  rank 3
       0  0:2     2:4     4:5     5:6
       1  6:7     7:8     8:9     9:10
    >>> plan(10, world=4, batch_size=2, remainder="pad").at(1, 2)  # positions 10 and 11 are 0 and 1 again
    (10, 11)
    """
    size, start = _at_least_zero("size", size), _at_least_zero("start", start)
    world, batch_size = _at_least_one("world", world), _at_least_one("batch_size", batch_size)
    _check_plan(size, start, remainder)
    step = world * batch_size
    full, rest = divmod(size - start, step)
    begin = start + full * step  # where the remainder begins
    tail: list[tuple[Span, ...]] = []
    if rest and remainder == "error":
        raise ValueError(
            f"{size - start} samples do not divide into steps of {world} ranks x {batch_size}, {rest} are left over: "
            f'choose remainder="balance" (each once, smaller batches at the end), "pad" or "drop"'
        )
    if rest and remainder == "pad":
        each = -(-rest // world)
        tail = [tuple((begin + rank * each, begin + (rank + 1) * each) for rank in range(world))]
    elif rest and remainder == "uneven":
        ends = [min(begin + rank * batch_size, size) for rank in range(world + 1)]
        tail = [tuple(itertools.pairwise(ends))]
    elif rest and remainder == "balance":
        if size - start < world or batch_size == 1:
            raise _impossible(size - start, world, f"batches of at most {batch_size}")
        steps = 1
        if rest < world:  # too few for one each: the last full step is shared out with them
            full, begin, steps = full - 1, begin - step, 2
        least, more = divmod(size - begin, steps * world)
        ends = [begin + least * batch + min(batch, more) for batch in range(steps * world + 1)]
        tail = _in_steps(ends, world)
    return Plan(size, world, batch_size, remainder, start, full, tuple(tail))


def plan_lengths(
    lengths: Sequence[int],
    world: int = 1,
    *,
    budget: int | None = None,
    batch_size: int | None = None,
    remainder: str = "balance",
    start: int = 0,
    groups: Sequence[Any] | None = None,
) -> Plan:
    """Plan an epoch of samples that differ in length: batches that cost at most `budget` once padded.

    `lengths` stand in the epoch's order. A batch is a run of neighbours; its cost is their number times the longest, which
    is what a padded batch takes. `batch_size` limits the number, and with `groups` (one label a sample) a batch ends where
    the label changes. Batches are filled one after the other, the fewest possible, and dealt to the ranks in turn, so that
    in an order where neighbours are alike the ranks of a step carry alike; the last step is shared out evenly.
    `remainder` is that of `plan`, with steps instead of samples: "balance" splits batches until every rank has one in every
    step (possible if there are as many samples left as batches needed), "pad" gives a rank without a batch one sample again,
    "drop" leaves out a last step in which not every rank has one. Costs O(samples).

    Errors: as for `plan`, and ValueError for a sample longer than the budget, or if neither limit is given.

    >>> plan_lengths([3, 3, 4, 9, 9, 12], world=2, budget=24)
    6 samples, 2 ranks: 2 steps for every rank, each sample once
    step  rank 0  rank 1
       0  0:3     3:4
       1  4:5     5:6
    """
    lengths, size = _whole_numbers("lengths", lengths), len(lengths)
    world, start = _at_least_one("world", world), _at_least_zero("start", start)
    if budget is None and batch_size is None:
        raise ValueError("give budget (the most a padded batch may cost), batch_size, or both: found neither")
    if batch_size is not None:
        batch_size = _at_least_one("batch_size", batch_size)
    if budget is not None:
        budget = _at_least_one("budget", budget)
        if size and max(lengths) > budget:
            worst = max(range(size), key=lengths.__getitem__)
            raise ValueError(
                f"the sample at position {worst} is {lengths[worst]} long, the budget of a batch is {budget}: "
                "give a larger budget, or leave long samples out"
            )
    if groups is not None and len(groups) != size:
        raise ValueError(f"one group for each sample: found {len(groups)} groups, {size} lengths")
    _check_plan(size, start, remainder)
    most = size if batch_size is None else batch_size
    cost = max(lengths, default=0) * most if budget is None else budget
    ends = _cut(lengths, groups, start, most, cost)
    steps, over = divmod(len(ends) - 1, world)
    if over:
        lacking = world - over
        if remainder == "error":
            raise ValueError(
                f"{len(ends) - 1} batches do not divide into steps of {world} ranks, {over} are left over: "
                f'choose remainder="balance" (batches are split), "pad" or "drop"'
            )
        if remainder == "drop":
            ends = ends[: steps * world + 1]
        elif remainder == "uneven":
            ends += [size] * lacking
        elif remainder == "pad":
            ends += [size + 1 + more for more in range(lacking)]
        else:
            ends = _split(ends, (steps + 1) * world, world)
    if remainder == "balance" and size > start:
        last = len(ends) - 1 - world
        ends[last:] = _evened(lengths, groups, ends[last], world, most, cost)
    return Plan(size, world, batch_size, remainder, start, 0, tuple(_in_steps(ends, world)))


def _cut(lengths: list[int], groups: Sequence[Any] | None, start: int, most: int, cost: int) -> list[int]:
    """Where batches end when each is filled as far as it may be; the first entry is `start`."""
    ends, begin, longest = [start], start, 0
    for position in range(start, len(lengths)):
        longest = max(longest, lengths[position])
        number = position - begin + 1
        if position > begin and (
            number > most or longest * number > cost or (groups is not None and groups[position] != groups[begin])
        ):
            ends.append(position)
            begin, longest = position, lengths[position]
    return [*ends, len(lengths)] if len(lengths) > start else ends


def _split(ends: list[int], wanted: int, world: int) -> list[int]:
    """As many batches as wanted: filled as before, while a sample is left for each that follows; then one sample each.

    What is decided at a position depends only on what follows it, so the plan of a rest is the rest of the plan.
    """
    size = ends[-1]
    if size - ends[0] < wanted:
        raise _impossible(size - ends[0], world, f"{wanted // world} steps, that is {wanted} batches")
    for batch, end in enumerate(ends):
        if end > size - (wanted - batch):
            return [*ends[:batch], *range(size - (wanted - batch), size + 1)]
    raise AssertionError("there were fewer batches than wanted, so the last end must exceed its limit")


def _evened(lengths: list[int], groups: Sequence[Any] | None, begin: int, world: int, most: int, cost: int) -> list[int]:
    """The last step, `world` batches from `begin` on: under the smallest limit with which they are enough."""
    low, high = 0, cost
    least = max(lengths[begin:])
    while low < high:
        middle = (low + high) // 2
        if middle >= least and len(_cut(lengths, groups, begin, most, middle)) - 1 <= world:
            high = middle
        else:
            low = middle + 1
    ends = _cut(lengths, groups, begin, most, high)
    return ends if len(ends) - 1 == world else _split(ends, world, world)


def _in_steps(ends: list[int], world: int) -> list[tuple[Span, ...]]:
    spans = list(itertools.pairwise(ends))
    return [tuple(spans[i : i + world]) for i in range(0, len(spans), world)]


def _check_plan(size: int, start: int, remainder: str) -> None:
    if remainder not in REMAINDERS:
        raise ValueError(f"remainder={remainder!r}: expected one of {', '.join(map(repr, REMAINDERS))}")
    if start > size:
        raise ValueError(f"start is a position of the {size} samples, from 0 to {size}: found {start}")


def _impossible(left: int, world: int, what: str) -> ValueError:
    return ValueError(
        f"impossible: {_count(left, 'sample')} over {_count(world, 'rank')} in {what}, each once and the same number of steps "
        'for every rank: use fewer ranks or a larger batch, or remainder="pad", "drop" or "uneven"'
    )


# Order and randomness, as functions of a few integers.


def seed_of(seed: int, epoch: int, index: int | None = None) -> int:
    """A well mixed whole number of 64 bits for (seed, epoch) or (seed, epoch, index).

    Neighbours are unrelated, and (seed, epoch) has nothing to do with (seed + 1, epoch - 1), for which a sum of the two,
    as in torch's DistributedSampler, is the same. It is blake2b of the numbers written out: the same in every version
    and on every machine. Source: SA-11.

    >>> seed_of(0, 1), seed_of(1, 0), seed_of(0, 1, 5)
    (4952996671628478330, 3072401858795139979, 2032038069647397387)
    """
    text = f"{operator.index(seed)} {operator.index(epoch)}" + ("" if index is None else f" {operator.index(index)}")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """The canonical order of an epoch: the numbers from 0 to size - 1, shuffled, int64 of shape (size,).

    A function of (seed, epoch) alone: the same for any number of ranks and workers, and for every version of torch.
    (NumPy's RandomState never changes what it draws; torch.randperm does not promise that, and a checkpoint of last
    year must mean the same order.) 0.7 ms for 50,000, 16 ms for a million.

    >>> order(8, seed=0, epoch=0), order(8, seed=0, epoch=1)
    (tensor([4, 5, 2, 7, 6, 0, 1, 3]), tensor([5, 2, 1, 0, 6, 7, 3, 4]))
    """
    size = _at_least_zero("size", size)
    return torch.from_numpy(_draws(seed, epoch).permutation(size).astype(np.int64, copy=False))


def _draws(seed: int, epoch: int) -> np.random.RandomState:
    return np.random.RandomState(_halves(seed_of(seed, epoch)))


def _halves(number: int) -> list[int]:
    return [number & 0xFFFFFFFF, number >> 32]


@contextlib.contextmanager
def randomness(seed: int, epoch: int, index: int | None = None) -> Iterator[None]:
    """Within the block, what `random`, `numpy.random` and torch draw depends on (seed, epoch, index) alone.

    The states of the three are put back afterwards, so drawing inside disturbs nothing outside. Torch's default generator of
    the CPU is seeded itself: `torch.manual_seed` also seeds every accelerator and takes a hundred times as long.
    About 0.1 ms a block; `samplers.Keyed` does it for whole batches with less.

    >>> with randomness(seed=0, epoch=1, index=5):
    ...     first = random.random(), np.random.rand(), torch.rand(()).item()
    >>> with randomness(seed=0, epoch=1, index=5):
    ...     first == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    with _generators_kept():
        _seed_generators(seed_of(seed, epoch, index))
        yield


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _seed_generators(number: int) -> None:
    random.seed(number)
    np.random.seed(_halves(number))
    torch.default_generator.manual_seed(number)


def _whole_numbers(name: str, values: Any) -> list[int]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    found = list(values)
    for position, value in enumerate(found):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be whole numbers from 0: found {value!r} at position {position}")
    return found


def _at_least_zero(name: str, number: int) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name} is a whole number: found {number!r}")
    if number < 0:
        raise ValueError(f"{name} must be at least 0: found {number}")
    return operator.index(number)


def _count(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else one + 's'}"
