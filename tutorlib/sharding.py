"""Who reads which sample: every sample exactly once over all ranks and workers, in an order that can be told.

A rank is one training process of many, a worker one loading process of its DataLoader. The canonical stream is the
source read from its beginning by nobody else. It is dealt out in runs of `chunk` samples, like cards: run q belongs to
rank q % world, and within that rank to each of its workers in turn. Three laws follow, and tests hold them:

1. Exactly once: for any length, any number of ranks and of workers, each sample reaches one place.
2. Which samples a rank gets does not depend on its workers. Its loader's order is the canonical order, for any number
   of workers, when `chunk` equals the loader's batch_size (or both are left out: `batch_size=None`, chunk 1). With
   another chunk and several workers each batch still holds its own samples, but the batches interleave.
3. A position is a count of samples, so a few plain integers resume a run, with other workers and even other ranks.

What it does not promise: equal numbers of steps. Rank 0 may get one run more than the last rank; where ranks must step
together (gradients are averaged at each step) the shorter ones have to be waited for (`torch.distributed.algorithms.join`)
or the surplus run dropped.
"""

from __future__ import annotations

import collections.abc
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

__all__ = ["Place", "Sharded", "this_process"]

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

    Errors: TypeError for an iterator (it can be read only once), a set or another Sharded; ValueError for rank, world,
    chunk or a state that do not fit.

    >>> from torch.utils.data import DataLoader
    >>> [[batch.tolist() for batch in DataLoader(Sharded(range(7), rank, 2, chunk=2), batch_size=2)] for rank in (0, 1)]
    [[[0, 1], [4, 5]], [[2, 3], [6]]]
    """

    def __init__(self, source: Iterable[Any], rank: int | None = None, world: int | None = None, *, chunk: int = 1) -> None:
        _check_source(source)
        if isinstance(source, collections.abc.Iterator):
            raise TypeError(
                f"a {type(source).__name__} can be read only once, a dataset again and again: give a list, a dataset, "
                "or an object whose __iter__ begins anew"
            )
        here = this_process(rank, world)
        self.source, self.rank, self.world, self.chunk = source, here.rank, here.world, _at_least_one("chunk", chunk)
        self.epoch = 0
        self._start, self._part, self._given = 0, 0, 0  # where this iteration began, and how many were handed out since
        self._loaded = False  # the next iteration begins at _start
        self._followed = False  # follow counts, not the iteration
        self._turn: object = None  # the iteration that counts, if several are alive

    def place(self) -> Place:
        """The place of the running process among all ranks and workers."""
        return this_process(self.rank, self.world)

    def __iter__(self) -> Iterator[Any]:
        place = self.place()
        if self._followed:
            return _deal(self.source, place, self.chunk, *self._begin())
        if self._loaded and get_worker_info() is not None:
            raise RuntimeError(
                "a loaded state needs the main process to count what is consumed, workers read ahead: "
                "loop over sharded.follow(loader) instead of the loader"
            )
        return self._counted(_deal(self.source, place, self.chunk, *self._begin()), 1)

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
    return itertools.islice(runs(source, start + place.index * chunk, chunk, (place.count - 1) * chunk), skipped, None)


def _indexed_runs(source: Any, first: int, chunk: int, gap: int) -> Iterator[Any]:
    keys = list(source.keys()) if hasattr(source, "keys") else range(len(source))
    if chunk == 1:
        yield from map(source.__getitem__, keys[first :: gap + 1])
        return
    bulk = getattr(source, "__getitems__", None)
    for start in range(first, len(keys), chunk + gap):
        run = keys[start : start + chunk]
        yield from bulk(list(run)) if bulk else map(source.__getitem__, run)


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
    if number < 1:
        raise ValueError(f"{name} must be at least 1: found {number}")
    return number
