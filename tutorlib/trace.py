"""What a real DataLoader run did: which sample was fetched by whom, in which batch, in which order.

The record travels with the data. `record` builds the loader that you describe, around a thin wrapper of your
dataset: each sample carries the record of its fetch through the loader's real queues, and a thin wrapper of
the collate function splits it off again. The batches are those of the untraced loader.

Structure (keys, batches, workers) is text; times are attributes and pictures, because they differ by run.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import io
import os
import pickle
import pickletools
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset, IterableDataset, IterDataPipe, MapDataPipe, get_worker_info

from tutorlib.facts import Facts

__all__ = [
    "Coverage",
    "Fetch",
    "Pickled",
    "StartMethods",
    "Trace",
    "Tracer",
    "coverage",
    "pickled",
    "record",
    "start_methods",
]

_KEYS_SHOWN = 12  # keys of one batch in a row, and
_ROWS_SHOWN = 40  # rows of one table: more are counted, not printed
_SHARED_KEPT = 64  # received batches left in shared memory; each holds file descriptors, so later ones are copied out


@dataclass(frozen=True, slots=True)
class Fetch:
    """One sample: its key, who fetched it (`worker` is None in the main process), when, and where it came out.

    `batch` is the number of the batch in which it arrived, `order` its place among all samples that arrived.
    `start` and `stop` are seconds of `time.perf_counter`, comparable between the processes of one machine;
    samples fetched together by `__getitems__` share them.
    """

    key: Any
    worker: int | None
    batch: int
    order: int
    start: float
    stop: float
    pid: int


@dataclass(frozen=True, slots=True)
class _Note:
    """The record of one batch, written where it is collated and sent along with it."""

    request: int | None  # number of the request in the sampler's order; None for an iterable dataset
    worker: int | None
    pid: int
    keys: list[Any]
    times: list[float]  # start, stop, start, stop, ... of each sample; one pair if all were fetched together
    collate: tuple[float, float]


@dataclass(frozen=True, repr=False, eq=False)
class Trace(Facts):
    """What one run of a loader did; made by `record`.

    `batches` are the real batches, `fetches` one `Fetch` a sample, both in the order of arrival. The text holds
    structure only; with `in_order=False` and two or more workers even the order of arrival and the worker of a
    batch are a race, so the text says so and leaves them out.
    """

    batches: list[Any]
    kind: str  # "map" or "iterable"
    workers: int
    in_order: bool
    named: bool  # the keys identify samples: always for map style, for iterable style if `name` was given
    requests_ahead: int | None
    complete: bool  # the loader ended by itself
    prefetch: int
    notes: list[_Note] = field(default_factory=list)
    begun: float = 0.0  # when iter(loader) was called, when it returned, and
    started: float = 0.0
    waits: list[tuple[float, float]] = field(default_factory=list)  # for each batch: next() called, next() returned
    asked: list[float] = field(default_factory=list)  # when the main process drew each request from the sampler

    @cached_property
    def fetches(self) -> tuple[Fetch, ...]:
        found: list[Fetch] = []
        for number, note in enumerate(self.notes):
            together = len(note.times) == 2
            for i, key in enumerate(note.keys):
                start, stop = note.times[:2] if together else note.times[2 * i : 2 * i + 2]
                found.append(Fetch(key, note.worker, number, len(found), start, stop, note.pid))
        return tuple(found)

    @property
    def racy(self) -> bool:
        """Whether the order of arrival and the worker of each batch are a race between workers."""
        return self.workers > 1 and not self.in_order

    def keys(self) -> list[list[Any]]:
        """The keys of each batch, in the order of arrival."""
        return [list(note.keys) for note in self.notes]

    def by_worker(self) -> dict[int | None, list[Any]]:
        """The keys that each worker fetched; `{None: [...]}` when the main process did it all."""
        found: dict[int | None, list[Any]] = {w: [] for w in range(self.workers)} if self.workers else {None: []}
        for note in self.notes:
            found[note.worker].extend(note.keys)
        return found

    def repeated(self) -> dict[Any, int]:
        """The keys that came more than once, with how often."""
        self._need_names("repeated")
        return _repeated(key for note in self.notes for key in note.keys)

    def missing(self, expected: Iterable[Any]) -> list[Any]:
        """Those of `expected` that never came, in their order."""
        self._need_names("missing")
        came = {_plain(key) for note in self.notes for key in note.keys}
        return [key for key in expected if _plain(key) not in came]

    def summary(self) -> str:
        by = f"{_count(self.workers, 'worker')}" if self.workers else "the main process"
        text = f"{_count(len(self.batches), 'batch', 'batches')}, fetched by {by}"
        if not (self.racy and not self.complete):
            text = f"{_count(sum(len(note.keys) for note in self.notes), 'sample')} in " + text
        if self.workers and self.requests_ahead is not None:
            text += f"; {_count(self.requests_ahead, 'request')} ahead of the first batch"
        if self.racy:
            text += "; in_order=False: which worker serves a batch, and when it arrives, differs from run to run"
        return text

    def rows(self) -> Sequence[Mapping[str, object]]:
        if not self.racy:
            who = ["main" if note.worker is None else note.worker for note in self.notes]
            table = [
                {"batch": n, "keys": _few(note.keys), "worker": w}
                for n, (note, w) in enumerate(zip(self.notes, who, strict=True))
            ]
            return _at_most(table)
        if not self.complete:
            return []
        if self.kind == "map":
            notes = sorted(self.notes, key=lambda note: note.request or 0)
            return _at_most([{"request": note.request, "keys": _few(note.keys)} for note in notes])
        return _at_most(
            [
                {"worker": w, "its batch": n, "keys": _few(note.keys)}
                for w in range(self.workers)
                for n, note in enumerate(note for note in self.notes if note.worker == w)
            ]
        )

    def lanes(self, clock: str = "order") -> dict[str, Any]:
        """The timeline for `pictures.timeline`: a lane for the main process and one for each worker.

        `clock="seconds"` gives what was measured, in milliseconds. `clock="order"` counts steps on a logical clock
        (a sample takes one step, collating and using a batch one each; nothing starts before what it needs): the
        same in every run, so that is what a notebook stores.
        """
        if clock not in ("order", "seconds"):
            raise ValueError(f"clock={clock!r}: expected 'order' or 'seconds'")
        lanes: dict[int | None, list[dict[str, Any]]] = {w: [] for w in (None, *range(self.workers))}
        (self._measured if clock == "seconds" else self._logical)(lanes)
        unit = "ms" if clock == "seconds" else "steps, in order"
        named = [{"name": "main" if w is None else f"worker {w}", "spans": spans} for w, spans in lanes.items()]
        return {"unit": unit, "lanes": named}

    def grid(self) -> dict[str, Any]:
        """Who fetched which key, for `pictures.grid`: one row, one cell a worker."""
        return coverage([self], None).grid() if self.named else _grid([(None, self.by_worker())], {}, [])

    def _measured(self, lanes: dict[int | None, list[dict[str, Any]]]) -> None:
        zero = self.begun

        def span(start: float, stop: float, kind: str, label: str, ticks: Sequence[float] = ()) -> dict[str, Any]:
            ms = [round((t - zero) * 1000, 4) for t in (start, stop, *ticks)]
            return {"start": ms[0], "stop": ms[1], "kind": kind, "label": label, "ticks": ms[2:]}

        main = lanes[None]
        if self.workers:
            main.append(span(zero, self.started, "start", "start workers"))
        for n, (note, (called, returned)) in enumerate(zip(self.notes, self.waits, strict=True)):
            label = f"{n}"
            lane = lanes[note.worker]
            lane.append(span(note.times[0], note.times[-1], "fetch", label, note.times[2::2]))
            lane.append(span(*note.collate, "collate", label))
            if self.workers:
                main.append(span(called, returned, "wait", label))
            after = self.waits[n + 1][0] if n + 1 < len(self.waits) else returned
            main.append(span(returned, after, "use", label))

    def _logical(self, lanes: dict[int | None, list[dict[str, Any]]]) -> None:
        def span(start: int, stop: int, kind: str, label: str, ticks: Iterable[int] = ()) -> dict[str, Any]:
            return {"start": start, "stop": stop, "kind": kind, "label": label, "ticks": list(ticks)}

        notes = sorted(self.notes, key=lambda note: note.request or 0) if self.racy and self.kind == "map" else self.notes
        ahead = self.requests_ahead if self.requests_ahead is not None else self.prefetch * self.workers
        free: dict[int | None, int] = dict.fromkeys(lanes, 0)
        received: list[int] = []
        now = 0  # the main process
        for n, note in enumerate(notes):
            # A race has no order of its own; drawn is the fair one, each worker in turn.
            worker = n % self.workers if self.racy else note.worker
            together = len(note.times) == 2
            size = 1 if together else max(1, len(note.keys))
            if not self.workers:
                free[None] = now
            asked = received[n - ahead] if n >= ahead and received and ahead else 0
            start = max(free[worker], asked)
            stop = start + size
            lanes[worker].append(span(start, stop, "fetch", f"{n}", range(start + 1, stop)))
            lanes[worker].append(span(stop, stop + 1, "collate", f"{n}"))
            free[worker] = stop + 1
            if self.workers and stop + 1 > now:
                lanes[None].append(span(now, stop + 1, "wait", f"{n}"))
            now = max(now, stop + 1)
            received.append(now)
            lanes[None].append(span(now, now + 1, "use", f"{n}"))
            now += 1

    def _need_names(self, what: str) -> None:
        if not self.named:
            raise ValueError(
                f"{what}() needs to know which sample is which, but an iterable dataset has no keys: "
                "give record(..., name=function), for example name=int"
            )


class Tracer:
    """A loader that records each of its epochs: `record` for when there are several, as with persistent workers.

    >>> tracer = Tracer(range(4), batch_size=2, shuffle=False)
    >>> [trace.keys() for trace in (tracer.record(), tracer.record(batches=1))]
    [[[0, 1], [2, 3]], [[0, 1]]]
    """

    def __init__(self, dataset: Any, *, name: Callable[[Any], Any] | None = None, **loader: Any) -> None:
        if name is not None and not callable(name):
            raise TypeError(f"name={name!r}: expected a function that gives a sample's key, found {type(name).__name__}")
        for argument in loader:
            if argument not in _ARGUMENTS:
                close = difflib.get_close_matches(argument, _ARGUMENTS, 1)
                hint = f": did you mean {close[0]}?" if close else f"; it has {', '.join(_ARGUMENTS)}"
                raise TypeError(f"{argument!r} is not an argument of DataLoader{hint}")
        if isinstance(dataset, (IterDataPipe, MapDataPipe)):
            raise TypeError(f"{type(dataset).__name__} is a DataPipe: record() traces Dataset and IterableDataset")
        plain: DataLoader[Any] = DataLoader(dataset, **loader)  # the loader's own errors, defaults and samplers
        batched = plain.batch_sampler is not None
        self.kind = "iterable" if isinstance(dataset, IterableDataset) else "map"
        self.name = name
        self._asked: list[float] = []
        traced = dict(loader)
        traced["collate_fn"] = _Split(plain.collate_fn, self.kind, batched, name)
        traced["worker_init_fn"] = _Unwrap(plain.worker_init_fn) if plain.num_workers else plain.worker_init_fn
        if self.kind == "map":
            for argument in ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"):
                traced.pop(argument, None)
            if plain.batch_sampler is not None:
                traced["batch_sampler"] = _Asked(plain.batch_sampler, self._asked)
            else:
                traced.update(batch_size=None, sampler=_Asked(plain.sampler, self._asked))
        wrap = _TracedIterable if self.kind == "iterable" else _TracedMap
        with warnings.catch_warnings():  # a warning about the arguments was given by `plain`: once is enough
            warnings.simplefilter("ignore")
            self.loader: DataLoader[Any] = DataLoader(wrap(dataset), **traced)

    def record(self, batches: int | None = None) -> Trace:
        """Run one epoch, or its first `batches` batches, and say what happened."""
        if batches is not None and (isinstance(batches, bool) or not isinstance(batches, int) or batches < 0):
            raise ValueError(f"batches={batches!r}: expected None or a whole number from 0")
        clock = time.perf_counter
        self._asked.clear()
        kept: list[Any] = []
        notes: list[_Note] = []
        waits: list[tuple[float, float]] = []
        workers, complete = self.loader.num_workers, False
        begun = clock()
        iterator = iter(self.loader)
        started, ahead = clock(), len(self._asked)
        while batches is None or len(kept) < batches:
            called = clock()
            try:
                batch, note = next(iterator)
            except StopIteration:
                complete = True
                break
            waits.append((called, clock()))
            kept.append(_out_of_shared_memory(batch) if workers and len(kept) >= _SHARED_KEPT else batch)
            notes.append(note)
        del iterator  # the workers end here, unless they are persistent
        return Trace(
            batches=kept,
            kind=self.kind,
            workers=workers,
            in_order=self.loader.in_order,
            named=self.kind == "map" or self.name is not None,
            requests_ahead=ahead if self.kind == "map" else None,
            complete=complete,
            prefetch=self.loader.prefetch_factor or 0,
            notes=notes,
            begun=begun,
            started=started,
            waits=waits,
            asked=list(self._asked),
        )


def record(dataset: Any, *, batches: int | None = None, name: Callable[[Any], Any] | None = None, **loader: Any) -> Trace:
    """Run `DataLoader(dataset, **loader)` for one epoch, or for its first `batches` batches, and say what happened.

    The batches are those of the untraced loader: map and iterable style, any sampler, `batch_size=None`, workers by
    fork, forkserver or spawn, `worker_init_fn`, `in_order=False`. Key of a sample: `name(sample)` when `name` is given
    (under spawn it must be importable, like a collate function); else its index, or for an iterable dataset its
    position in that worker's stream. Errors: the loader's own, untouched; TypeError for an unknown argument.
    Source: torch.utils.data, sections "Dataset Types", "Loading Batched Data", "Multi-process data loading".

    >>> record(range(5), batch_size=2)
    5 samples in 3 batches, fetched by the main process
    batch  keys    worker
        0  [0, 1]  main
        1  [2, 3]  main
        2  [4]     main
    """
    return Tracer(dataset, name=name, **loader).record(batches)


_ARGUMENTS = [p for p in inspect.signature(DataLoader.__init__).parameters if p not in ("self", "dataset")]


# What travels. A dataset wrapper writes the times, the collate wrapper takes them off again: public hooks only.


class _Request:
    """A sampler's keys on their way to a worker, with the number of the request."""

    __slots__ = ("keys", "number")

    def __init__(self, number: int, keys: Any) -> None:
        self.number, self.keys = number, keys

    def __reduce__(self) -> tuple[Any, ...]:
        return _Request, (self.number, self.keys)


class _Asked:
    """A sampler that notes when the main process draws from it. `iter` is as eager as the sampler's own."""

    def __init__(self, sampler: Any, times: list[float]) -> None:
        self.sampler, self.times = sampler, times

    def __iter__(self) -> Iterator[_Request]:
        return _numbered(iter(self.sampler), self.times)

    def __len__(self) -> int:
        return len(self.sampler)


def _numbered(keys: Iterator[Any], times: list[float]) -> Iterator[_Request]:
    for number, key in enumerate(keys):
        times.append(time.perf_counter())
        yield _Request(number, key)


class _TracedMap(Dataset):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, request: _Request) -> tuple[Any, ...]:
        start = time.perf_counter()
        sample = self.inner[request.keys]
        return sample, request.number, request.keys, [start, time.perf_counter()]

    def __getitems__(self, request: _Request) -> tuple[Any, ...]:
        clock, inner, keys = time.perf_counter, self.inner, request.keys
        together = getattr(inner, "__getitems__", None)  # asked for as torch's own fetcher does
        times = [clock()]
        if together:
            samples = together(keys)
            times.append(clock())
        else:
            samples = []
            for key in keys:
                samples.append(inner[key])
                now = clock()
                times += (now, now)
            del times[-1:]
        return samples, request.number, keys, times


class _TracedIterable(IterableDataset):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        return _TracedIterator(iter(self.inner))

    def __len__(self) -> int:
        return len(self.inner)


class _TracedIterator:
    def __init__(self, inner: Iterator[Any]) -> None:
        self.inner, self.position = inner, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        start = time.perf_counter()
        sample = next(self.inner)
        stop = time.perf_counter()
        position = self.position
        self.position += 1
        return sample, position, start, stop


class _Split:
    """The loader's collate function, which takes the record off the samples first and hands it on beside the batch."""

    def __init__(self, collate: Callable[[Any], Any], kind: str, batched: bool, name: Callable[[Any], Any] | None) -> None:
        self.collate, self.kind, self.batched, self.name = collate, kind, batched, name

    def __call__(self, told: Any) -> tuple[Any, _Note]:
        number: int | None = None
        if self.kind == "map":
            samples, number, keys, times = told
            if not self.batched:
                keys = keys if isinstance(keys, list) else [keys]
        elif self.batched:
            samples = [sample for sample, _, _, _ in told]
            keys = [position for _, position, _, _ in told]
            times = [t for _, _, start, stop in told for t in (start, stop)]
        else:
            samples, position, *times = told
            keys = [position]
        if self.name is not None:
            keys = [self.name(sample) for sample in samples] if self.batched else [self.name(samples)]
        keys = [_plain(key) for key in keys]
        worker = get_worker_info()
        start = time.perf_counter()
        batch = self.collate(samples)
        note = _Note(number, None if worker is None else worker.id, os.getpid(), keys, times, (start, time.perf_counter()))
        return batch, note


class _Unwrap:
    """Shows a worker its own dataset as `get_worker_info().dataset`, then calls the learner's `worker_init_fn`."""

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init = init

    def __call__(self, worker_id: int) -> None:
        info = get_worker_info()
        # WorkerInfo is frozen for good reason; but the wrapper is ours, and code in the worker expects its own dataset.
        object.__setattr__(info, "dataset", info.dataset.inner)  # type: ignore[union-attr]
        if self.init is not None:
            self.init(worker_id)


def _plain(key: Any) -> Any:
    """A key that can be counted and printed: tensors and arrays as numbers, lists as tuples."""
    if type(key) is int or type(key) is str:
        return key
    if hasattr(key, "tolist"):
        key = key.tolist()
    return tuple(map(_plain, key)) if isinstance(key, list) else key


def _out_of_shared_memory(batch: Any) -> Any:
    try:
        return copy.deepcopy(batch)
    except Exception:  # a batch that cannot be copied stays what it is
        return batch


# Many ranks.


@dataclass(frozen=True, repr=False)
class Coverage(Facts):
    """Which sample came to which rank and worker, how often, and which never; made by `coverage`."""

    ranks: tuple[tuple[int, dict[int | None, list[Any]]], ...]
    batches: tuple[int, ...]  # of each rank; empty where only keys were given
    expected: tuple[Any, ...] | None
    racy: bool = False

    def _keys(self) -> list[Any]:
        return [key for _, workers in self.ranks for keys in workers.values() for key in keys]

    @property
    def repeated(self) -> dict[Any, int]:
        """The keys that came more than once, over all ranks, with how often."""
        return _repeated(self._keys())

    @property
    def missing(self) -> list[Any]:
        """The expected keys that never came, in their order; empty when nothing was said to be expected."""
        came = {_plain(key) for key in self._keys()}
        return [key for key in self.expected or () if _plain(key) not in came]

    @property
    def unexpected(self) -> list[Any]:
        """The keys that came although nobody expected them."""
        if self.expected is None:
            return []
        known = {_plain(key) for key in self.expected}
        return [key for key in dict.fromkeys(map(_plain, self._keys())) if key not in known]

    @property
    def exactly_once(self) -> bool:
        """Whether every expected sample came once, and nothing else came."""
        return not (self.repeated or self.missing or self.unexpected)

    def summary(self) -> str:
        parts = [f"{len(self.repeated)} repeated {_few(list(self.repeated))}" if self.repeated else "0 repeated"]
        if self.expected is not None:
            parts.append(f"{len(self.missing)} missing {_few(self.missing)}" if self.missing else "0 missing")
            if self.unexpected:
                parts.append(f"{len(self.unexpected)} unexpected {_few(self.unexpected)}")
        number = len(self._keys())
        text = "every sample exactly once" if self.exactly_once and self.expected is not None else ", ".join(parts)
        of = "" if self.expected is None else f" of {len(self.expected)} expected"
        ranks = f" over {_count(len(self.ranks), 'rank')}" if len(self.ranks) > 1 else ""
        steps = ""
        if len(self.batches) > 1:
            equal = len(set(self.batches)) == 1
            steps = f"; batches per rank {_few(list(self.batches))}" + ("" if equal else ", not equal")
        return f"{_count(number, 'sample')}{of}{ranks}: {text}{steps}"

    def rows(self) -> Sequence[Mapping[str, object]]:
        table: list[Mapping[str, object]] = []
        for rank, workers in self.ranks:
            if self.racy and len(workers) > 1:  # which worker had it is a race
                keys = sorted((key for keys in workers.values() for key in keys), key=lambda key: (str(type(key)), key))
                table.append({"rank": rank, "worker": f"any of {len(workers)}", "samples": len(keys), "keys": _few(keys)})
                continue
            for worker, keys in workers.items():
                who = "main" if worker is None else worker
                table.append({"rank": rank, "worker": who, "samples": len(keys), "keys": _few(keys)})
        return _at_most(table)

    def grid(self) -> dict[str, Any]:
        """Rank x worker for `pictures.grid`, with signs on what is repeated and a row of what is missing."""
        shown = [(rank if len(self.ranks) > 1 else None, workers) for rank, workers in self.ranks]
        return _grid(shown, self.repeated, self.missing)


def coverage(traces: Any, expected: Iterable[Any] | None) -> Coverage:
    """Put the traces of several ranks together: what came to whom, what came twice, what never.

    `traces` is a list in the order of the ranks, or a mapping rank -> trace, or one trace. For each rank it may hold
    a `Trace`, a mapping worker -> keys, or a plain list of keys. `expected` are the keys that should come, or None.
    Errors: ValueError when a trace of an iterable dataset has no names for its samples. Source: IT-04, IT-08.

    >>> coverage([[0, 2, 4], [1, 3, 0]], expected=range(6))
    6 samples of 6 expected over 2 ranks: 1 repeated [0], 1 missing [5]
    rank  worker  samples  keys
       0  main          3  [0, 2, 4]
       1  main          3  [1, 3, 0]
    """
    if isinstance(traces, Trace):
        traces = [traces]
    by_rank = dict(traces) if isinstance(traces, Mapping) else dict(enumerate(traces))
    ranks: list[tuple[int, dict[int | None, list[Any]]]] = []
    batches: list[int] = []
    racy = False
    for rank, found in by_rank.items():
        if isinstance(found, Trace):
            found._need_names("coverage")
            ranks.append((rank, found.by_worker()))
            batches.append(len(found.batches))
            racy = racy or found.racy
        elif isinstance(found, Mapping):
            ranks.append((rank, {worker: [_plain(key) for key in keys] for worker, keys in found.items()}))
        elif isinstance(found, Iterable) and not isinstance(found, str):
            ranks.append((rank, {None: [_plain(key) for key in found]}))
        else:
            raise TypeError(f"rank {rank}: expected a Trace, worker -> keys or a list of keys, found {type(found).__name__}")
    wanted = None if expected is None else tuple(expected)
    return Coverage(tuple(ranks), tuple(batches) if len(batches) == len(ranks) else (), wanted, racy)


# Start methods.


@dataclass(frozen=True, repr=False)
class Pickled(Facts):
    """How each object would travel to a spawn worker; made by `pickled`."""

    objects: tuple[dict[str, object], ...]
    sizes: dict[str, int]  # bytes of each pickle; 0 where refused

    def summary(self) -> str:
        kinds = Counter(str(row["travels"]) for row in self.objects)
        return f"{_count(len(self.objects), 'object')} for a spawn worker: " + ", ".join(f"{n} {k}" for k, n in kinds.items())

    def rows(self) -> Sequence[Mapping[str, object]]:
        return self.objects


def pickled(**objects: Any) -> Pickled:
    """Say how each object travels to a worker started by spawn or forkserver.

    "by reference": only a module and a name go, and the worker imports them (functions, classes). "by value": the
    contents go, and their class by reference. "refused": pickle cannot. `names` are the references the worker must
    resolve, `worker finds them` whether a fresh process can: a name of a notebook's `__main__` is not there. Names that
    carry a value of torch, NumPy or the standard library are left out (those of the last move between Python versions).
    The loader's own pickle (`ForkingPickler`) moves the numbers of tensors to shared memory and sends a handle: a note
    says so, and nothing is moved or started here. Source: PL-04, PL-06.

    >>> pickled(test=torch.is_tensor, image=torch.ones(3), key=lambda row: row[0])
    3 objects for a spawn worker: 1 by reference, 1 by value, 1 refused
    object  travels       names            worker finds them  note
    test    by reference  torch.is_tensor  yes                -
    image   by value      -                yes                its numbers as shared memory, not a copy
    key     refused       -                -                  a lambda cannot be imported by name
    """
    rows: list[dict[str, object]] = []
    sizes: dict[str, int] = {}
    for name, thing in objects.items():
        row: dict[str, object] = {"object": name, "travels": "refused", "names": None, "worker finds them": None, "note": None}
        rows.append(row)
        try:
            data, tensors = _pickle(thing)
        except Exception as error:
            row["note"], sizes[name] = _pickling_reason(error), 0
            continue
        names, alone = _references(data)
        lost = [n for n in names if n.startswith("__main__.") and not _main_is_a_file()]
        told = [n for n in names if alone or not _is_plumbing(n)]
        row["travels"] = "by reference" if alone else "by value"
        row["names"] = ", ".join(told) or None
        row["worker finds them"] = not lost
        if lost:
            row["note"] = f"{lost[0]} exists only in this process"
        elif isinstance(thing, torch.Tensor):
            row["note"] = "its numbers as shared memory, not a copy"
        elif tensors:
            row["note"] = "the tensors in it as shared memory, not a copy"
        sizes[name] = len(data)
    return Pickled(tuple(rows), sizes)


def _pickle(thing: Any) -> tuple[bytes, bool]:
    """The bytes of pickle, and whether it met tensors; not ForkingPickler's, which would leave them in shared memory."""
    met = False

    class Watching(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            nonlocal met
            met = met or isinstance(value, torch.Tensor)
            return NotImplemented  # as pickle always does

    file = io.BytesIO()
    Watching(file).dump(thing)
    return file.getvalue(), met


def _is_plumbing(name: str) -> bool:
    return name.startswith(("torch._utils.", "torch.storage.", "numpy.")) or name.split(".")[0] in sys.stdlib_module_names


def _references(data: bytes) -> tuple[list[str], bool]:
    """The `module.name` references of a pickle, and whether the pickle is nothing but one."""
    names: list[str] = []
    strings: list[str] = []
    memo: list[str | None] = []
    work = set()
    last = ""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"):
            strings.append(str(argument))
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            if memo[int(argument)] is not None:  # type: ignore[arg-type]
                strings.append(memo[int(argument)] or "")  # type: ignore[arg-type]
        elif opcode.name == "MEMOIZE":
            memo.append(strings[-1] if last in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8") else None)
        elif opcode.name == "STACK_GLOBAL":
            names.append(".".join(strings[-2:]))
        elif opcode.name not in ("PROTO", "FRAME", "STOP"):
            work.add(opcode.name)
        last = opcode.name
    return list(dict.fromkeys(names)), len(names) == 1 and not work


def _main_is_a_file() -> bool:
    main = sys.modules.get("__main__")
    return getattr(main, "__file__", None) is not None or getattr(main, "__spec__", None) is not None


@dataclass(frozen=True, repr=False)
class StartMethods(Facts):
    """Which start method served the batches, and why the others did not; made by `start_methods`."""

    outcomes: tuple[dict[str, object], ...]
    seconds: dict[str, float]  # of each method, its workers' start included
    child_stderr: dict[str, str]  # what the workers of each method wrote there

    def summary(self) -> str:
        served = [str(row["method"]) for row in self.outcomes if row["batches"] is not None]
        failed = [str(row["method"]) for row in self.outcomes if row["batches"] is None]
        parts = [f"served: {', '.join(served) or 'none'}"]
        if failed:
            parts.append(f"failed: {', '.join(failed)}")
        return "; ".join(parts)

    def rows(self) -> Sequence[Mapping[str, object]]:
        return self.outcomes

    def bars(self) -> dict[str, Any]:
        """What each method took in seconds, for `pictures.bars`; measured, so a notebook stores no amounts."""
        notes = {str(row["method"]): "" if row["batches"] is not None else "failed" for row in self.outcomes}
        entries = [{"name": m, "value": round(s, 2), "note": notes[m]} for m, s in self.seconds.items()]
        return {"unit": "s", "measured": True, "bars": entries}


def start_methods(dataset: Any, methods: Sequence[str] | None = None, *, limit: float = 120.0, **loader: Any) -> StartMethods:
    """Load one epoch with each start method, and say which served the batches or with which message it failed.

    `methods` are "fork", "forkserver", "spawn"; by default those of this platform. One worker, unless `loader` says
    otherwise; `limit` seconds for each batch. What a failing worker writes on stderr is kept off the screen, and its
    last line told in the row (`in the worker`); pids, addresses and paths are removed. Errors: ValueError for an
    unknown method. Source: PL-01 to PL-06.

    >>> start_methods(range(3), ["spawn"], collate_fn=lambda samples: samples)
    served: none; failed: spawn
    method  batches  error                                in the worker
    spawn         -  a lambda cannot be imported by name              -
    """
    known = ("fork", "forkserver", "spawn")
    here = torch.multiprocessing.get_all_start_methods()
    chosen = [m for m in known if m in here] if methods is None else list(methods)
    for method in chosen:
        if method not in known:
            raise ValueError(f"unknown start method {method!r}: expected some of {', '.join(known)}")
    options = {"num_workers": 1, "timeout": min(_LOOK, limit), **loader}
    outcomes: list[dict[str, object]] = []
    seconds: dict[str, float] = {}
    stderr: dict[str, str] = {}
    for method in chosen:
        row: dict[str, object] = {"method": method, "batches": None, "error": None, "in the worker": None}
        outcomes.append(row)
        if method not in here:
            row["error"] = f"this platform has no {method}"
            continue
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            log = Path(folder) / "stderr.txt"
            log.touch()
            quiet = _Quiet(dataset, str(log)) if not isinstance(dataset, IterableDataset) else _QuietIterable(dataset, str(log))
            try:
                with warnings.catch_warnings():
                    # Torch's long advice beside a pickling error: the row says it in a line.
                    warnings.filterwarnings("ignore", message="Got pickle error")
                    # From Python 3.12 on a fork beside threads is deprecated: which method serves is the question here.
                    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
                    trial: DataLoader[Any] = DataLoader(quiet, multiprocessing_context=method, **options)
                    row["batches"] = _served(trial, limit)
            except Exception as error:
                row["error"] = _readable(error)
                # What a worker raised is part of a reference cycle that keeps the iterator alive. Collected at a later
                # moment, perhaps in a forked worker, the iterator would complain there that the children are not its own.
                traceback.clear_frames(error.__traceback__)
            stderr[method] = log.read_text(encoding="utf-8", errors="replace")
        seconds[method] = time.perf_counter() - begun
        if row["batches"] is None:
            row["in the worker"] = _last_line(stderr[method])
    return StartMethods(tuple(outcomes), seconds, stderr)


_LOOK = 0.5  # seconds after which a loader that waits is asked whether its worker still lives


def _served(loader: DataLoader[Any], limit: float) -> int:
    """The number of batches of one epoch; raises what the loader raises, a timeout only when a batch took `limit` seconds.

    A worker of forkserver is no child of this process, and Windows sends no signal: only a loader whose time is over
    looks whether its worker has died. So its time is short, and it may try again.
    """
    batches, begun, iterator = 0, time.monotonic(), iter(loader)
    while True:
        try:
            next(iterator)
        except StopIteration:
            return batches
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out") or time.monotonic() - begun >= limit:
                raise
        else:
            batches, begun = batches + 1, time.monotonic()


class _Quiet(Dataset):
    """Sends a dataset to a worker together with where that worker shall write its stderr.

    Python prints the traceback of a worker that cannot unpickle its dataset to stderr, where it would litter the
    learner's screen with a different text each time. So the dataset travels as bytes inside this wrapper, and the
    wrapper turns stderr to a file before it opens them.
    """

    def __init__(self, inner: Any, log: str) -> None:
        self.inner, self.log = inner, log

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_quietly, (type(self), self.log, bytes(ForkingPickler.dumps(self.inner)), os.getpid())

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __getitems__(self, keys: Any) -> Any:
        together = getattr(self.inner, "__getitems__", None)
        return together(keys) if together else [self.inner[key] for key in keys]


class _QuietIterable(_Quiet, IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)


def _open_quietly(kind: Any, log: str, data: bytes, sender: int) -> Any:
    if os.getpid() != sender:  # multiprocessing.parent_process() is not known yet while a worker unpickles itself
        with open(log, "ab") as file:  # noqa: PTH123 - a descriptor is wanted, nothing else
            os.dup2(file.fileno(), 2)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    return kind(pickle.loads(data), log)  # noqa: S301 - our own bytes, from our own parent


def _readable(error: BaseException) -> str:
    """One line for a learner: without pids, addresses and paths, the same words for the same trouble in each Python."""
    if _is_pickling(error):
        return _pickling_reason(error)
    text = str(error)
    if "exited unexpectedly" in text:
        return "DataLoader worker exited unexpectedly"
    if "timed out" in text:
        return "DataLoader timed out"
    lines = [line for line in text.splitlines() if line.strip()]
    line = lines[-1].strip() if lines else ""
    name = type(error).__name__
    return _clean(line if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line) else f"{name}: {line}" if line else name)


def _last_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return _clean(lines[-1]) if lines else None


def _clean(line: str) -> str:
    line = re.sub(r" at 0x[0-9a-fA-F]+", "", line)
    line = re.sub(r"\(pid(\(s\))? [\d, ]+\) ?", "", line)
    line = re.sub(r"<module '([\w.]+)'[^>]*>", r"module \1", line)
    return re.sub(r"(?<![\w.])(/|[A-Za-z]:\\)[^\s'\"]*[/\\]([^\s'\"/\\]+)", r"\2", line).strip()


def _is_pickling(error: BaseException) -> bool:
    # A local object is an AttributeError until Python 3.13 and a PicklingError from 3.14; a lock is a TypeError.
    text = str(error)
    return isinstance(error, pickle.PicklingError) or (
        isinstance(error, (AttributeError, TypeError, RuntimeError))
        and re.search(r"(?i)can't pickle|cannot pickle|can't get local object|between processes through inheritance", text)
        is not None
        and "Traceback" not in text
    )


def _pickling_reason(error: BaseException) -> str:
    text = str(error)
    if "<lambda>" in text:
        return "a lambda cannot be imported by name"
    local = re.search(r"([\w.]+\.<locals>\.[\w.<>]+)", text)
    if local:
        return f"{local[1].replace('.<locals>', '()')} is local to a function and cannot be imported by name"
    missing = re.search(r"Can't pickle <class '([\w.]+)'>: (?:attribute lookup|it's not found)", text)  # the latter from 3.14
    if missing:
        return f"{missing[1]} cannot be imported by name"
    thing = re.search(r"(?i)cannot pickle '([\w.]+)' objects?", text)
    if thing:
        return f"a {thing[1].lstrip('_')} cannot be pickled"
    return _clean(text.splitlines()[0] if text else type(error).__name__)


# Words.


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _repeated(keys: Iterable[Any]) -> dict[Any, int]:
    return {key: times for key, times in Counter(map(_plain, keys)).items() if times > 1}


def _few(keys: Sequence[Any]) -> str:
    """`[0, 1, 2]`, and a long list as its beginning, its end and its length."""
    shown = [repr(key) for key in keys]
    if len(shown) > _KEYS_SHOWN:
        shown = [*shown[: _KEYS_SHOWN - 4], "...", *shown[-2:]]
        return f"[{', '.join(shown)}] ({len(keys)})"
    return f"[{', '.join(shown)}]"


def _at_most(rows: Sequence[Mapping[str, object]]) -> Sequence[Mapping[str, object]]:
    if len(rows) <= _ROWS_SHOWN:
        return rows
    first, last = rows[: _ROWS_SHOWN - 4], rows[-2:]
    more = len(rows) - len(first) - len(last)
    names = list(rows[0])
    gap = {name: f"({more} more)" if i == 1 else "..." for i, name in enumerate(names)}
    return [*first, gap, *last]


def _grid(
    ranks: Sequence[tuple[int | None, Mapping[int | None, Sequence[Any]]]], repeated: Mapping[Any, int], missing: Sequence[Any]
) -> dict[str, Any]:
    def item(key: Any) -> dict[str, str]:
        times = repeated.get(_plain(key), 1)
        return {"text": str(key), "sign": f"x{times}" if times > 1 else ""}

    rows = [
        {
            "label": "" if rank is None else f"rank {rank}",
            "cells": [
                {"label": "main" if worker is None else f"worker {worker}", "items": [item(key) for key in keys]}
                for worker, keys in workers.items()
            ],
        }
        for rank, workers in ranks
    ]
    return {"rows": rows, "missing": [str(key) for key in missing]}
