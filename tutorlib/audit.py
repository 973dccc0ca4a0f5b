"""Does this loader give every sample once, in equally many steps on every rank, in an order that can be repeated?

    audit.audit(loader)                                          # one loader
    audit.audit([loader_of(rank) for rank in range(4)])          # one per rank, built here
    audit.audit(lambda: [loader_of(rank) for rank in range(4)])  # built anew for each run: is the order repeatable?
    audit.audit(ranks.run(observe_mine, world=4))                # observed on real ranks: each returns observe(its loader)

It works for any loader, ours or not. What it says are facts; `require()` makes a failed audit an error, for a test.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from tutorlib.facts import Facts
from tutorlib.trace import Tracer, coverage

__all__ = ["Audit", "AuditError", "Observed", "audit", "observe"]

_SHOWN = 8  # keys named in a sentence; more are counted
_ROWS_SHOWN = 40


class AuditError(AssertionError):
    """A loader does not do what was required of it; the text holds the audit."""


@dataclass(frozen=True, repr=False)
class Observed(Facts):
    """What one loader gave in one pass: the keys of each batch; made by `observe`. It travels between processes."""

    steps: tuple[tuple[Any, ...], ...]
    promised: int | None  # len(loader), if it has one
    expected: tuple[Any, ...] | None  # the keys of its dataset, if they can be known

    def keys(self) -> list[Any]:
        """All keys, in order."""
        return [key for step in self.steps for key in step]

    def summary(self) -> str:
        return f"{_count(sum(map(len, self.steps)), 'sample')} in {_count(len(self.steps), 'step')}"

    def rows(self) -> Sequence[Mapping[str, object]]:
        table: list[Mapping[str, object]] = [{"step": n, "keys": _few(keys)} for n, keys in enumerate(self.steps)]
        if len(table) <= _ROWS_SHOWN:
            return table
        more = len(table) - _ROWS_SHOWN + 1
        return [*table[: _ROWS_SHOWN - 2], {"step": "...", "keys": f"({more} more)"}, table[-1]]


def observe(loader: Any, *, key: Callable[[Any], Any] | None = None) -> Observed:
    """Run one pass of `loader` and note the keys of every batch.

    For a DataLoader of a map-style dataset the keys are the indices that were really fetched, through its own workers,
    sampler and collate function. For any other loader `key(batch)` gives the keys of the samples in a batch (a list, a
    tensor, an array or one key); it may be left out where the batches are whole numbers themselves. The pass is a real
    one: counters of epochs and random generators move on. Errors: TypeError when the keys cannot be known.

    >>> observe(DataLoader(range(5), batch_size=2))
    5 samples in 3 steps
    step  keys
       0  [0, 1]
       1  [2, 3]
       2  [4]
    """
    if key is not None and not callable(key):
        raise TypeError(f"key is a function from a batch to the keys of its samples: found {type(key).__name__}")
    if not isinstance(loader, Iterable):
        raise TypeError(f"{type(loader).__name__} is no loader: it cannot be looped over")
    promised = _length(loader)
    if key is None and isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return Observed(_fetched(loader), promised, _all_keys(loader.dataset))
    return Observed(tuple(_keys_of(batch, key) for batch in loader), promised, None)


def audit(
    loaders: Any, expected: Iterable[Any] | int | None = None, *, key: Callable[[Any], Any] | None = None, runs: int = 2
) -> Audit:
    """Run the loaders and say what is missing, what is repeated, how many steps each rank made, and whether it repeats.

    `loaders`: one loader; a list of them in the order of the ranks; a function that builds either; or `Observed` from real
    ranks, in a list (or a list of such lists, one for each fresh run). `expected`: the keys that should come, or their
    number n for 0 to n - 1; left out, it is the indices of a map-style dataset that has a length, else it is unknown what
    is missing. `key`: see `observe`. `runs`: how many passes; a function builds anew for each, so equal orders mean that
    the order is repeatable; given objects make their next pass, so another order is what shuffling should give.

    Errors: TypeError when keys cannot be known, ValueError for no loaders or runs < 1.

    >>> from torch.utils.data import DistributedSampler
    >>> sampled = [DistributedSampler(range(5), 2, rank, shuffle=False) for rank in (0, 1)]
    >>> audit([DataLoader(range(5), sampler=sampler) for sampler in sampled])
    6 samples of 5 expected over 2 ranks: 1 repeated [0], 0 missing; 3 steps on every rank; both passes in one order
    run  rank  steps  len  samples  keys
      0     0      3    3        3  [0, 2, 4]
      0     1      3    3        3  [1, 3, 0]
      1     0      3    3        3  [0, 2, 4]
      1     1      3    3        3  [1, 3, 0]
    """
    if type(runs) is not int or runs < 1:
        raise ValueError(f"runs is how many passes to make, at least 1: found {runs!r}")
    observed = _observed(loaders)
    if observed:
        return Audit(tuple(map(tuple, observed)), _wanted(observed, expected), fresh=True)
    builds = callable(loaders) and not isinstance(loaders, Iterable)
    found = [[observe(loader, key=key) for loader in _one_per_rank(loaders() if builds else loaders)] for _ in range(runs)]
    return Audit(tuple(map(tuple, found)), _wanted(found, expected), fresh=builds)


@dataclass(frozen=True, repr=False)
class Audit(Facts):
    """What loaders really gave; made by `audit`. `runs[run][rank]` is what one rank had in one pass."""

    runs: tuple[tuple[Observed, ...], ...]
    expected: tuple[Any, ...] | None
    fresh: bool  # each run was built anew

    def _counted(self, run: int) -> collections.Counter[Any]:
        return collections.Counter(key for rank in self.runs[run] for step in rank.steps for key in step)

    def repeated(self, run: int = 0) -> dict[Any, int]:
        """The keys that came more than once, over all ranks, and how often."""
        return {key: times for key, times in self._counted(run).items() if times > 1}

    def missing(self, run: int = 0) -> list[Any]:
        """The expected keys that never came; empty where nothing is known to be expected."""
        came = self._counted(run)
        return [key for key in self.expected or () if key not in came]

    def unexpected(self, run: int = 0) -> list[Any]:
        """The keys that came although nobody expected them."""
        known = set(self.expected or ())
        return [] if self.expected is None else [key for key in self._counted(run) if key not in known]

    def steps(self, run: int = 0) -> tuple[int, ...]:
        """How many batches each rank had."""
        return tuple(len(rank.steps) for rank in self.runs[run])

    def _wrong(self, run: int) -> bool:
        return bool(self.repeated(run) or self.missing(run) or self.unexpected(run))

    @property
    def exactly_once(self) -> bool | None:
        """In every run each expected sample once and nothing else; None if none repeats but it is unknown what to expect."""
        if any(map(self._wrong, range(len(self.runs)))):
            return False
        return None if self.expected is None else True

    @property
    def equal_steps(self) -> bool:
        """In every run all ranks had the same number of steps: none waits for ever for another."""
        return all(len(set(self.steps(run))) == 1 for run in range(len(self.runs)))

    @property
    def same_order(self) -> bool | None:
        """All runs gave the same batches in the same order on each rank; None after a single run."""
        if len(self.runs) < 2:
            return None
        return all([rank.steps for rank in run] == [rank.steps for rank in self.runs[0]] for run in self.runs)

    @property
    def true_length(self) -> bool:
        """Every loader that has a len made as many steps in its pass."""
        return all(rank.promised in (None, len(rank.steps)) for run in self.runs for rank in run)

    def require(self) -> Audit:
        """This audit itself, if nothing is wrong with it: a line for a test.

        Errors: AuditError unless every sample is known to have come exactly once, the ranks made equally many steps, each
        len was true, and runs that were built anew came in one order.

        >>> audit(DataLoader([7, 8, 9], shuffle=True)).require().equal_steps
        True
        """
        found = {
            "not every sample came exactly once": self.exactly_once is False,
            "it is not known which samples to expect, give expected=": self.exactly_once is None,
            "the ranks differ in steps": not self.equal_steps,
            "len(loader) is not true": not self.true_length,
            "a fresh run gives another order": self.fresh and self.same_order is False,
        }
        wrong = [text for text, bad in found.items() if bad]
        if wrong:
            raise AuditError("; ".join(wrong) + f"\n{self}")
        return self

    def summary(self) -> str:
        runs = range(len(self.runs))
        run = next(filter(self._wrong, runs), 0)
        number, world = sum(self._counted(run).values()), len(self.runs[run])
        of = "" if self.expected is None else f" of {len(self.expected)} expected"
        over = f" over {_count(world, 'rank')}" if world > 1 else ""
        steps = self.steps(next((r for r in runs if len(set(self.steps(r))) > 1), 0))
        parts = ["every sample exactly once" if self.exactly_once else self._offenders(run) + (f" (in run {run})" if run else "")]
        if len(set(steps)) > 1:
            parts.append(f"steps differ by rank {_few(steps)}")
        else:
            parts.append(_count(steps[0], "step") + (" on every rank" if world > 1 else ""))
        if not self.true_length:
            parts.append("len(loader) is not true")
        if self.same_order is not None:
            several = "both" if len(self.runs) == 2 else f"all {len(self.runs)}"
            order = "one order" if self.same_order else "different orders"
            parts.append(f"{several} {'fresh runs' if self.fresh else 'passes'} in {order}")
        return f"{_count(number, 'sample')}{of}{over}: {'; '.join(parts)}"

    def _offenders(self, run: int) -> str:
        lists = {"repeated": list(self.repeated(run))}
        if self.expected is not None:
            lists["missing"] = self.missing(run)
            if self.unexpected(run):
                lists["unexpected"] = self.unexpected(run)
        return ", ".join(f"{len(keys)} {name}" + (f" {_few(keys)}" if keys else "") for name, keys in lists.items())

    def rows(self) -> Sequence[Mapping[str, object]]:
        return [
            {
                **({"run": number} if len(self.runs) > 1 else {}),
                "rank": rank,
                "steps": len(one.steps),
                "len": one.promised,
                "samples": sum(map(len, one.steps)),
                "keys": _few(one.keys()),
            }
            for number, run in enumerate(self.runs)
            for rank, one in enumerate(run)
        ]

    def grid(self, run: int = 0) -> dict[str, Any]:
        """Rank by rank for `pictures.grid`: the keys that each had, a sign on what is repeated, a row of what is missing."""
        return coverage([one.keys() for one in self.runs[run]], self.expected).grid()


def _observed(loaders: Any) -> list[list[Observed]]:
    """`Observed` given instead of loaders, as runs of ranks; else empty."""
    if isinstance(loaders, Observed):
        return [[loaders]]
    if not isinstance(loaders, (list, tuple)) or not loaders:
        return []
    runs = loaders if all(isinstance(run, (list, tuple)) and run for run in loaders) else [loaders]
    return [list(run) for run in runs] if all(isinstance(one, Observed) for run in runs for one in run) else []


def _one_per_rank(loaders: Any) -> list[Any]:
    """A list or tuple is one loader for each rank; anything else is a loader."""
    found = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    if not found:
        raise ValueError("no loaders: give one, or a list of them, one for each rank")
    return found


def _wanted(found: list[list[Observed]], expected: Iterable[Any] | int | None) -> tuple[Any, ...] | None:
    if expected is not None:
        return tuple(map(_plain, range(expected) if isinstance(expected, int) else expected))
    known = {one.expected for run in found for one in run}
    return known.pop() if len(known) == 1 else None


class _Forget:
    """The loader's own collate function, with its errors; the batch itself is not needed and stays where it was made."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> None:
        self.collate(samples)


def _fetched(loader: DataLoader) -> tuple[tuple[Any, ...], ...]:
    """The keys of each batch of a map-style loader, by a traced loader like it that draws from the same sampler."""
    names = ("num_workers", "timeout", "worker_init_fn", "multiprocessing_context", "generator", "in_order")
    arguments: dict[str, Any] = {name: getattr(loader, name) for name in names}
    if loader.num_workers:
        arguments["prefetch_factor"] = loader.prefetch_factor
    if loader.batch_sampler is not None:
        arguments["batch_sampler"] = loader.batch_sampler
    else:
        arguments |= {"sampler": loader.sampler, "batch_size": None}
    trace = Tracer(loader.dataset, collate_fn=_Forget(loader.collate_fn), **arguments).record()
    return tuple(map(tuple, trace.keys()))


def _all_keys(dataset: Any) -> tuple[Any, ...] | None:
    if hasattr(dataset, "keys"):
        return tuple(dataset.keys())
    size = _length(dataset)
    return None if size is None else tuple(range(size))


def _length(thing: Any) -> int | None:
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return None


def _keys_of(batch: Any, key: Callable[[Any], Any] | None) -> tuple[Any, ...]:
    found = _plain(batch if key is None else key(batch))
    keys = tuple(map(_plain, found)) if isinstance(found, (list, tuple)) else (found,)
    if key is None and not all(type(one) is int for one in keys):
        raise TypeError(
            f"which samples are in a batch cannot be seen from a {type(batch).__name__}: "
            'give key=, a function from a batch to its keys, for example key=lambda batch: batch["id"]'
        )
    return keys


def _plain(key: Any) -> Any:
    """A key that can be counted and printed: tensors and arrays as numbers, lists as tuples."""
    if hasattr(key, "tolist"):
        key = key.tolist()
    return tuple(map(_plain, key)) if isinstance(key, list) else key


def _count(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else one + 's'}"


def _few(keys: Sequence[Any]) -> str:
    shown = [repr(key) for key in keys]
    if len(shown) > _SHOWN:
        return f"[{', '.join([*shown[: _SHOWN - 3], '...', *shown[-2:]])}] ({len(keys)})"
    return f"[{', '.join(shown)}]"
