"""In which order, in which batches: samplers for the plain DataLoader that deal every sample exactly once, and resume.

    sampler = EpochSampler(len(data), batch_size=64, seed=1)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=2)
    for epoch in range(sampler.epoch, 10):
        for batch in sampler.follow(loader):
            ...                               # save sampler.state_dict() wherever you like

The order is a function of (seed, epoch); `sharding.plan` cuts it into steps and deals each step to the ranks. So what is
read does not depend on the number of ranks or workers, every rank has the same number of steps, and the number of samples
seen says where a run is: it can go on with other ranks, another batch size, other workers.

Where the data can be read many at a time (tensors, arrays, a table), `Batched` lets each sample be a whole batch; and `Keyed`
makes what is random about a sample a function of (seed, epoch, index).

DataLoader reads a sampler ahead (with 2 workers 4 batches), so a sampler cannot know by itself what was consumed. `follow`
counts in the main process what the loop was handed. A plain loop over the loader works as well: each pass is the next epoch;
only the state in the middle of it cannot be told, and `state_dict` says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from tutorlib import sharding
from tutorlib.facts import Facts
from tutorlib.sharding import Plan

__all__ = ["Batched", "EpochSampler", "Grouped", "Keyed", "Keys", "LengthBatches", "Padding", "Weighted"]


class Keys(list[int]):
    """The indices of one batch: a list, which also knows the `seed` and the `epoch` of its order, even in a worker.

    `rows` is the slice that they are, where that is known because the order is 0, 1, 2, ..., or None.

    >>> keys = Keys([4, 2], seed=0, epoch=3)
    >>> keys, keys.epoch, keys == [4, 2]
    ([4, 2], 3, True)
    """

    def __init__(self, indices: Sequence[int] = (), seed: int = 0, epoch: int = 0) -> None:
        super().__init__(indices)
        self.seed, self.epoch = seed, epoch
        self.rows = slice(indices.start, indices.stop) if isinstance(indices, range) and indices.step == 1 else None

    def __reduce__(self) -> tuple[Any, ...]:
        same = range(self.rows.start, self.rows.stop) if self.rows else list(self)
        return Keys, (same, self.seed, self.epoch)


def _changing(name: str) -> Callable[..., Any]:
    def method(self: Keys, *arguments: Any, **options: Any) -> Any:
        self.rows = None
        return getattr(list, name)(self, *arguments, **options)

    return method


for _name in (
    *("__setitem__", "__delitem__", "__iadd__", "__imul__"),
    *("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
):
    setattr(Keys, _name, _changing(_name))  # a list that was changed is no slice any more


class EpochSampler(Sampler[list[int]]):
    """Batches of indices for one rank: an epoch is every sample exactly once over all ranks, in equally many steps.

    Give it to a DataLoader as `batch_sampler=`; or as `sampler=` with `batch_size=None`, then the dataset gets the whole
    list of indices at once. `size` is the number of samples. `rank` and `world` are taken from torch.distributed when the
    object is made (see `sharding.this_process`), or given; every rank gives the same of all else. `remainder`: what becomes
    of samples that do not fill the last step, see `sharding.plan`. `shuffle=False` keeps the order 0, 1, 2, ...
    `len(sampler)`, and so `len(loader)`, is the number of this rank's batches in the current iteration, or in the next one.

    `epoch` counts the complete iterations, each has its own order (after a plain loop it moves on when the next one begins).
    `set_epoch` is not needed, but there for frameworks.

    Resuming: `state_dict()` is four values, `seed` (None without shuffle), `epoch`, `seen` (samples that all ranks have had
    in this epoch) and `size`; it is the same on every rank at the same step. After `load_state_dict` the next iteration goes
    on from there, on any number of ranks and workers, with any batch size; the one after that is a whole one. Nothing is
    read twice to get there. The state says where the next batch comes from: with the last batch of an epoch it is already
    the beginning of the next. An iteration that was broken off begins anew, as any loader's does; to go on instead, load the
    sampler's own state.

    Errors: those of `sharding.plan` (at once if a whole epoch cannot be planned), ValueError for a state that does not fit.

    >>> for rank in (0, 1):
    ...     sampler = EpochSampler(7, batch_size=2, seed=0, rank=rank, world=2)
    ...     print([batch.tolist() for batch in DataLoader(range(7), batch_sampler=sampler)], len(sampler))
    [[6, 4], [0, 1]] 2
    [[2, 5], [3]] 2
    """

    def __init__(
        self,
        size: int,
        batch_size: int = 1,
        *,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        remainder: str = "balance",
        shuffle: bool = True,
    ) -> None:
        self._set_up(size, batch_size, seed, rank, world, remainder, shuffle)

    def _set_up(
        self, size: int, batch_size: int | None, seed: int, rank: int | None, world: int | None, remainder: str, shuffle: bool
    ) -> None:
        if not hasattr(size, "__index__"):
            raise TypeError(f"size is the number of samples, give len(dataset): found {type(size).__name__}")
        if type(seed) is not int:
            raise TypeError(f"seed is a whole number: found {seed!r}")
        here = sharding.this_process(rank, world)
        self.size, self.rank, self.world, self.batch_size = int(size), here.rank, here.world, batch_size
        self.seed, self.shuffle, self.remainder = seed, bool(shuffle), remainder
        self.epoch = 0
        self.weight = 1.0  # of the batch that follow gave last: see Plan.weight
        self._start = 0  # the position where this iteration, or the next one, begins
        self._steps = 0  # how many batches of it were handed out
        self._loaded = False  # the next iteration begins at _start, not at 0
        self._followed = False  # follow counts, not the drawing
        self._drawing: str | None = None  # a plain loop: "begun" or "ended"
        self._turn: object = None  # the iteration that counts, if several are alive
        self._cache: tuple[tuple[Any, ...], Any, Any] | None = None
        self._here()  # what cannot be planned is an error now

    # What subclasses change: the order of an epoch, and the plan of its rest.

    def _order(self, epoch: int) -> torch.Tensor:
        return sharding.order(self.size, self.seed, epoch) if self.shuffle else torch.arange(self.size)

    def _plan(self, order: torch.Tensor | None, start: int) -> Plan:
        assert self.batch_size is not None
        return sharding.plan(self.size, self.world, self.batch_size, self.remainder, start=start)

    _plan_needs_order = False
    _kept: tuple[str, ...] = ()  # further whole numbers on which the order depends

    # The plan and the order of the current iteration.

    @property
    def plan(self) -> Plan:
        """The plan of the current iteration, or of the next one: steps, sizes and weights of all ranks."""
        return self._here()[0]

    def order(self) -> torch.Tensor:
        """The order of the same epoch: the index that stands at each position, int64 of shape (size,)."""
        return self._here(order=True)[1].clone()

    def _here(self, order: bool = False) -> tuple[Plan, Any]:
        """The plan and, if asked for, the order: made once for an iteration."""
        # After a plain loop drew an epoch to its end, what comes is the next one.
        epoch, start = (self.epoch + 1, 0) if self._drawing == "ended" else (self.epoch, self._start)
        limits = (self.batch_size, self.world, self.remainder, *(getattr(self, name) for name in self._kept))
        key = (self.seed, epoch, start, *limits)
        if self._cache is None or self._cache[0] != key:
            found = self._order(epoch) if order or self._plan_needs_order else None
            self._cache = key, self._plan(found, start), found
        elif order and self._cache[2] is None:
            self._cache = key, self._cache[1], self._order(epoch)
        return self._cache[1], self._cache[2]

    def __len__(self) -> int:
        return self.plan.count(self.rank)

    # Iterating.

    def __iter__(self) -> Iterator[Keys]:
        if self._followed:
            return self._batches()
        self._begin()
        return self._drawn(self._batches(), turn=self._new_turn())

    def _batches(self) -> Iterator[Keys]:
        plan, order = self._here(order=True)
        return self._indices(plan, order, self.seed, self.epoch)

    def _indices(self, plan: Plan, order: torch.Tensor, seed: int, epoch: int) -> Iterator[Keys]:
        size, numbers = plan.size, order.numpy()  # which slices faster than a tensor
        in_order = not self.shuffle and bool((numbers == np.arange(len(numbers))).all())
        for begin, stop in plan.of(self.rank):
            if stop <= size and in_order:
                yield Keys(range(begin, stop), seed, epoch)
            elif stop <= size:
                yield Keys(numbers[begin:stop].tolist(), seed, epoch)
            else:
                yield Keys([int(numbers[position % size]) for position in range(begin, stop)], seed, epoch)

    def _drawn(self, batches: Iterator[Keys], turn: object) -> Iterator[Keys]:
        self._drawing = "begun"
        yield from batches
        if turn is self._turn:
            self._drawing = "ended"

    def _begin(self) -> None:
        """A new iteration: of the next epoch if a plain loop drew this one to its end, whole unless a state was loaded."""
        if self._drawing == "ended":
            self._next_epoch()
        if not self._loaded:
            self._start = 0
        self._loaded, self._steps, self._drawing = False, 0, None

    def _next_epoch(self) -> None:
        self.epoch += 1
        self._start, self._steps, self._loaded, self._drawing = 0, 0, False, None

    def _new_turn(self) -> object:
        self._turn = object()
        return self._turn

    def follow(self, loader: DataLoader) -> Iterator[Any]:
        """The batches of `loader`, counted as they are handed out: the way to be resumable, with workers or without.

        The loader must draw from this sampler. Meanwhile `weight` is the weight of the loss of the batch at hand (see
        `Plan.weight`; 1.0 except in the smaller batches of a last step). Errors, before the first batch: ValueError for
        another loader, or with workers and in_order=False, where a count could not say what was consumed.

        >>> sampler = EpochSampler(8, batch_size=3, shuffle=False)
        >>> for batch in sampler.follow(DataLoader(range(8), batch_sampler=sampler)):
        ...     print(batch.tolist(), sampler.state_dict())
        [0, 1, 2] {'seed': None, 'epoch': 0, 'seen': 3, 'size': 8}
        [3, 4, 5] {'seed': None, 'epoch': 0, 'seen': 6, 'size': 8}
        [6, 7] {'seed': None, 'epoch': 1, 'seen': 0, 'size': 8}
        """
        if loader.batch_sampler is not self and not (loader.sampler is self and loader.batch_size is None):
            raise ValueError(
                "follow counts what its own sampler dealt, the loader draws from another: "
                "use DataLoader(dataset, batch_sampler=this_sampler)"
            )
        if loader.num_workers > 1 and not getattr(loader, "in_order", True):
            raise ValueError("in_order=False gives batches in no known order, a count cannot resume it: use in_order=True")
        return self._follow(loader)

    def _follow(self, loader: DataLoader) -> Iterator[Any]:
        self._begin()
        turn, plan = self._new_turn(), self._here()[0]
        self._followed = True
        try:
            batches = iter(loader)  # the loader asks for the sampler's iterator here, and nowhere else
        finally:
            self._followed = False
        last, full = len(plan), plan.full  # a full step is asked for nothing: its batches are equal
        tail = (step for step in range(full, last) if plan.at(step, self.rank)[1] > plan.at(step, self.rank)[0])
        for step, batch in zip(itertools.chain(range(full), tail), batches, strict=True):
            if turn is self._turn:
                self._steps, self.weight = step + 1, 1.0 if step < full else plan.weight(step, self.rank)
                if self._steps == last:
                    self._next_epoch()
                    self._turn = None
            yield batch
        if turn is self._turn:  # this rank had no batch in the last step, or there was no step at all
            self._next_epoch()
            self._turn = None

    # The state.

    def set_epoch(self, epoch: int) -> None:
        """Begin `epoch` with the next iteration. In the epoch where the sampler already is this changes nothing.

        >>> sampler = EpochSampler(4)
        >>> sampler.set_epoch(3)
        >>> sampler.epoch
        3
        """
        if type(epoch) is not int or epoch < 0:
            raise ValueError(f"epoch is a whole number from 0: found {epoch!r}")
        if self._drawing is None and epoch == self.epoch:
            return
        self.epoch, self._start, self._steps, self._loaded, self._drawing, self._turn = epoch, 0, 0, False, None, None

    def state_dict(self) -> dict[str, int | None]:
        """Where the run is: `seed`, `epoch`, `seen`, `size`, four values that JSON keeps.

        Errors: RuntimeError in or after a plain loop over the loader, which reads ahead of what it hands out.
        """
        if self._drawing is not None:
            raise RuntimeError(
                "a loader reads its sampler ahead, so what a plain loop has consumed is unknown here: "
                "loop over sampler.follow(loader) instead of the loader, or say set_epoch(the next epoch) first"
            )
        seen = self._start if self._steps == 0 else self._here()[0].seen(self._steps)
        kept = {name: getattr(self, name) for name in self._kept}
        return {"seed": self.seed if self.shuffle else None, "epoch": self.epoch, "seen": seen, "size": self.size, **kept}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """Begin the next iteration where `state` says, in its order; nothing is changed if it does not fit.

        The seed is the state's. Errors: ValueError for missing or extra entries, values out of range, another size or a
        state with shuffle for a sampler without; and what cannot be planned, as 3 samples left for 4 ranks.
        """
        names = ["seed", "epoch", "seen", "size", *self._kept]
        if sorted(state) != sorted(names):
            raise ValueError(f"a state of {type(self).__name__} has the entries {names}: found {list(state)}")
        whole = {name: value for name, value in state.items() if name != "seed"}
        for name, value in whole.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"state[{name!r}] must be an int of at least 0: found {value!r}")
        seed = state["seed"]
        if seed is not None and type(seed) is not int:
            raise ValueError(f"state['seed'] must be an int, or None without shuffle: found {seed!r}")
        if (seed is None) == self.shuffle:
            what = ("without", "with") if seed is None else ("with", "without")
            raise ValueError(f"the state was taken {what[0]} shuffle, this sampler is {what[1]}: the orders differ")
        if whole["size"] != self.size:
            raise ValueError(f"the state is of {whole['size']} samples, this sampler has {self.size}: begin a new epoch instead")
        seen = whole["seen"]
        assert seen is not None
        if seen > self.size:
            raise ValueError(f"state['seen'] must be at most size, {self.size}: found {seen}")
        before = dict(self.__dict__)
        self.seed = self.seed if seed is None else seed
        for name in ("epoch", *self._kept):
            setattr(self, name, whole[name])
        self._start, self._steps, self._loaded, self._drawing, self._turn = seen, 0, True, None, None
        if seen == self.size and self.size:
            self._next_epoch()
        try:
            self._here()
        except ValueError:
            self.__dict__.update(before)
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_turn": None, "_cache": None}

    def __repr__(self) -> str:
        named = {
            "batch_size": self.batch_size,
            "seed": self.seed if self.shuffle else None,
            "rank": self.rank,
            "world": self.world,
        }
        text = ", ".join(f"{name}={value}" for name, value in named.items() if value is not None)
        return f"{type(self).__name__}({self.size}, {text})"


class Weighted(EpochSampler):
    """An epoch of `size` draws, sample i with a probability proportional to `weights[i]`.

    With replacement (the default) the draws are independent, an epoch is `size` of them (the number of samples, if left
    out), and "exactly once" is true of draws: over all ranks each is read once. Without replacement no sample comes twice.
    Unlike torch's WeightedRandomSampler there is no limit of 2**24 samples, the draws are a function of (seed, epoch), and
    they are dealt to ranks and resumed as those of EpochSampler. A weight of 0 is never drawn.

    Errors: ValueError for weights that are negative, not finite or all 0, or more draws than can be drawn.

    >>> sampler = Weighted([1.0, 0.0, 3.0], size=400, seed=0)
    >>> sampler.order().bincount(minlength=3)
    tensor([102,   0, 298])
    """

    def __init__(
        self,
        weights: Any,
        batch_size: int = 1,
        *,
        size: int | None = None,
        replacement: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        remainder: str = "balance",
    ) -> None:
        found = np.asarray(weights, dtype=np.float64)
        if found.ndim != 1 or not len(found):
            raise ValueError(f"weights are one number a sample: found shape {found.shape}")
        bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
        if len(bad):
            raise ValueError(f"weights must be finite and at least 0: found {found[bad[0]]} at {int(bad[0])}")
        positive = int(np.count_nonzero(found))
        draws = len(found) if size is None else size
        if not positive:
            raise ValueError(f"all {len(found)} weights are 0: nothing can be drawn")
        if not replacement and draws > positive:
            raise ValueError(
                f"{draws} draws without replacement, but {positive} samples of a weight above 0: give a smaller size"
            )
        self.weights, self.replacement = found, replacement
        self._last = len(found) - 1 - int(np.argmax(found[::-1] > 0))
        super().__init__(draws, batch_size, seed=seed, rank=rank, world=world, remainder=remainder)

    def _order(self, epoch: int) -> torch.Tensor:
        draws = sharding._draws(self.seed, epoch)
        if self.replacement:
            reached = np.cumsum(self.weights)
            found = np.searchsorted(reached, draws.random_sample(self.size) * reached[-1], side="right")
            # The product may round up to the total itself, whose place is behind the last sample that can be drawn.
            found = np.minimum(found, self._last)
        else:
            # The first of waiting times at rates `weights`: drawing without replacement (Efraimidis and Spirakis, 2006).
            with np.errstate(divide="ignore"):
                waiting = -np.log1p(-draws.random_sample(len(self.weights))) / self.weights
            waiting[self.weights == 0] = np.inf
            found = np.argsort(waiting, kind="stable")[: self.size]
        return torch.from_numpy(found.astype(np.int64, copy=False))


class _Planned(EpochSampler):
    """What LengthBatches and Grouped share: the plan depends on which samples stand where."""

    _plan_needs_order = True


class LengthBatches(_Planned):
    """Batches of samples of similar length, so that padding wastes little; as many as fit into a budget.

    `lengths` is one whole number a sample. `budget` is the most that a batch may cost once padded, its number of samples
    times its longest (tokens, say); `batch_size` the most samples; give one or both. The order: the epoch's own, in pools of
    `pool` samples, each sorted by length, by turns upwards and downwards, so that neighbours are alike everywhere. Batches
    are neighbours, and so are those that the ranks have in one step: ranks carry alike and wait little for each other.
    A larger pool wastes less, a smaller one mixes more; the default is 128 full batches.

    As of EpochSampler: every sample once, equally many steps (see `sharding.plan_lengths`), `len` is true, the state fits
    any number of ranks and workers, budget and batch size (`pool` is part of it, since the order depends on it).

    Errors: those of `sharding.plan_lengths`, as for a sample longer than the budget.

    >>> sampler = LengthBatches([3, 9, 2, 8, 3, 9, 1], budget=18, shuffle=False)
    >>> list(sampler), len(sampler)
    ([[6, 2, 0, 4], [3, 1], [5]], 3)
    >>> sampler.padding()
    7 samples in 3 batches: 10 % of 39 is padding, 34 % without regard to length
    rank  batches  samples  longest  cost  padding
       0        3        7        9    39        4
    """

    _kept = ("pool",)

    def __init__(
        self,
        lengths: Any,
        *,
        budget: int | None = None,
        batch_size: int | None = None,
        pool: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        remainder: str = "balance",
        shuffle: bool = True,
    ) -> None:
        self.lengths = np.asarray(sharding._whole_numbers("lengths", lengths), dtype=np.int64)
        self.budget = budget
        if pool is None:
            mean = max(1.0, float(self.lengths.mean())) if len(self.lengths) else 1.0
            fit = [batch_size or len(self.lengths), int(budget / mean) if budget else len(self.lengths)]
            pool = max(1, 128 * min(fit))
        self.pool = sharding._at_least_one("pool", pool)
        self._set_up(len(self.lengths), batch_size, seed, rank, world, remainder, shuffle)

    def _order(self, epoch: int) -> torch.Tensor:
        found = super()._order(epoch).numpy()
        pools = np.arange(self.size) // self.pool
        keys = self.lengths[found] * np.where(pools % 2, -1, 1)  # the sorted pools go up and down in turn
        return torch.from_numpy(found[np.lexsort((keys, pools))])

    def _plan(self, order: torch.Tensor | None, start: int) -> Plan:
        assert order is not None
        limits: dict[str, Any] = {"budget": self.budget, "batch_size": self.batch_size, "remainder": self.remainder}
        return sharding.plan_lengths(self.lengths[order.numpy()], self.world, start=start, **limits)

    def padding(self) -> Padding:
        """How much of this epoch's padded batches is padding, by rank, and how much it would be in random batches."""
        plan, order = self._here()
        ranks = tuple(self._padded(order, plan.of(rank)) for rank in range(self.world))
        mixed = EpochSampler._order(self, self.epoch)
        spans = (span for step in self._plan(mixed, 0).steps for span in step if span[1] > span[0])
        random = self._padded(mixed, spans)
        return Padding(ranks, random["padding"] / random["cost"] if random["cost"] else 0.0)

    def _padded(self, order: torch.Tensor, spans: Iterable[tuple[int, int]]) -> dict[str, int]:
        found = dict.fromkeys(("batches", "samples", "longest", "cost", "padding"), 0)
        for span in spans:
            batch = self.lengths[order.numpy()[np.arange(*span) % self.size]]
            longest = int(batch.max())
            found["batches"] += 1
            found["samples"] += len(batch)
            found["longest"] = max(found["longest"], longest)
            found["cost"] += longest * len(batch)
            found["padding"] += longest * len(batch) - int(batch.sum())
        return found


@dataclass(frozen=True, repr=False)
class Padding(Facts):
    """What padding costs over an epoch, by rank; made by `LengthBatches.padding`."""

    ranks: tuple[dict[str, int], ...]
    random: float  # the share of padding in batches under the same limits, but without regard to length

    def _total(self, name: str) -> int:
        return sum(row[name] for row in self.ranks)

    @property
    def share(self) -> float:
        """The part of the padded batches that is padding, from 0 to 1."""
        return self._total("padding") / self._total("cost") if self._total("cost") else 0.0

    def summary(self) -> str:
        return (
            f"{self._total('samples')} samples in {self._total('batches')} batches: {self.share:.0%} of {self._total('cost')} "
            f"is padding, {self.random:.0%} without regard to length"
        ).replace("%", " %")

    def rows(self) -> Sequence[Mapping[str, object]]:
        return [{"rank": rank, **row} for rank, row in enumerate(self.ranks)]

    def bars(self) -> dict[str, Any]:
        """Share of padding by length and at random, in percent, for `pictures.bars`."""
        shares = {"by length": self.share, "random batches": self.random}
        return {"unit": "% padding", "bars": [{"name": name, "value": round(100 * x, 1)} for name, x in shares.items()]}


class Grouped(_Planned):
    """Batches whose samples all have the same group: a language, a resolution, a source.

    `groups` is one label a sample. The epoch's order is followed, and a group's samples are collected until there are `run`
    of them (by default `batch_size`); then they come one after the other. So groups mix as they do in the data, and only
    the last run of a group is short. The ranks' batches of one step may be of different groups.

    As of EpochSampler: every sample once, equally many steps, `len` is true, the state fits any number of ranks and workers
    and any batch size (`run` is part of it, since the order depends on it).

    >>> sampler = Grouped("aabababb", batch_size=2, shuffle=False)
    >>> list(sampler), len(sampler)
    ([[0, 1], [2, 4], [3, 5], [6, 7]], 4)
    """

    _kept = ("run",)

    def __init__(
        self,
        groups: Any,
        batch_size: int,
        *,
        run: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        remainder: str = "balance",
        shuffle: bool = True,
    ) -> None:
        labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
        numbers: dict[Any, int] = {}
        try:
            self.groups = np.asarray([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
        except TypeError:
            raise TypeError("a group is a label, something hashable such as a word or a number, one for each sample") from None
        self.run = sharding._at_least_one("run", batch_size if run is None else run)
        self.batch_size = sharding._at_least_one("batch_size", batch_size)
        super().__init__(len(self.groups), batch_size, seed=seed, rank=rank, world=world, remainder=remainder, shuffle=shuffle)

    def _order(self, epoch: int) -> torch.Tensor:
        found = super()._order(epoch).numpy()
        groups = self.groups[found]
        by_group = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups) if self.size else np.zeros(0, dtype=np.int64)
        firsts = np.cumsum(sizes) - sizes
        place = np.empty(self.size, dtype=np.int64)  # of each sample among those of its group
        place[by_group] = np.arange(self.size) - np.repeat(firsts, sizes)
        # A run comes out when its last sample is met; a group's last, short run after all full ones.
        last = np.minimum((place // self.run + 1) * self.run, sizes[groups]) - 1
        short = (last + 1) % self.run != 0
        met = by_group[firsts[groups] + last] + np.where(short, self.size, 0)
        return torch.from_numpy(found[np.lexsort((place, met))])

    def _plan(self, order: torch.Tensor | None, start: int) -> Plan:
        assert order is not None
        limits: dict[str, Any] = {"batch_size": self.batch_size, "remainder": self.remainder}
        groups = self.groups[order.numpy()].tolist()
        return sharding.plan_lengths([1] * self.size, self.world, start=start, groups=groups, **limits)


class Keyed(Dataset):
    """A map-style dataset whose randomness is keyed by (seed, epoch, index): sample i in epoch e is always made alike.

    Augmentation in workers usually draws from generators whose state depends on how many samples that worker has made:
    another number of workers or ranks, or a resume, and sample i looks different. Here `transform(sample)` runs with
    `random`, `numpy.random` and torch seeded from the epoch's seed, the epoch and the index, which the samplers of this
    module send along with the indices (`Keys`). Without `transform` the reading itself is what is random, sample by sample;
    with it the samples of a batch are read together if the dataset has `__getitems__`.

    The generators are put back after each batch. About 20 microseconds a sample. `transform` must be importable under spawn.
    Errors: TypeError for indices that do not tell their epoch, as from torch's own samplers.

    >>> data = Keyed([10.0, 20.0], transform=lambda value: value + torch.rand(()).item())
    >>> data.sample(1, seed=0, epoch=3) == data.sample(1, seed=0, epoch=3) != data.sample(1, seed=0, epoch=4)
    True
    >>> loader = DataLoader(data, batch_sampler=EpochSampler(2, 2, shuffle=False))
    >>> next(iter(loader))[1].item() == data.sample(1, seed=0, epoch=0)
    True
    """

    def __init__(self, dataset: Any, transform: Callable[[Any], Any] | None = None) -> None:
        if transform is not None and not callable(transform):
            raise TypeError(f"transform is a function of one sample: found {type(transform).__name__}")
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int, seed: int, epoch: int) -> Any:
        """Sample `index` as it is in that epoch, wherever and however it is loaded."""
        return self.__getitems__(Keys([index], seed, epoch))[0]

    def __getitem__(self, keys: Any) -> Any:
        return self.__getitems__(keys)  # batch_size=None: the keys of a whole batch

    def __getitems__(self, keys: Any) -> list[Any]:
        if not isinstance(keys, Keys):
            raise TypeError(
                f"{keys!r} does not tell its epoch: use a sampler of tutorlib.samplers, "
                "or sample(index, seed=..., epoch=...) for a single one"
            )
        bulk = getattr(self.dataset, "__getitems__", None) if self.transform else None
        made = []
        with sharding._generators_kept():
            found = bulk(list(keys)) if bulk else None
            for place, key in enumerate(keys):
                sharding._seed_generators(sharding.seed_of(keys.seed, keys.epoch, key))
                sample = found[place] if found is not None else self.dataset[key]
                made.append(self.transform(sample) if self.transform else sample)
        return made


class Batched(Dataset):
    """A source read a batch at a time: each sample is a whole batch, read by one slice, and collated once.

        sampler = EpochSampler(len(images), 64)
        loader = DataLoader(Batched((images, labels)), sampler=sampler, batch_size=None)

    `source`: a tensor or an array of one sample a row (a memory-mapped one too), or a tuple, namedtuple or dict of those with
    equally many rows: neighbours (`shuffle=False`) are a slice, others are gathered; the batch is what default_collate makes of
    the samples, a copy of its own. `copy=False`: without workers a slice is a view of the source, and writing into the batch
    writes into the source. A worker reads the columns of a batch into one piece of shared memory. Or any map-style dataset,
    `Keyed` and torch's Subset included: its `__getitems__`, if it has one, is asked for all of a batch, and `collate_fn`
    (default_collate) makes the batch.

    The plan is the sampler's, so ranks, steps, `len(loader)`, `follow`, resuming and `audit` are as ever; every sampler of this
    module will do. Errors: TypeError for a source that is none of these, ValueError for columns that differ in rows,
    IndexError for an index out of range.

    >>> images, labels = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    >>> sampler = EpochSampler(6, 4, shuffle=False, rank=1, world=2)
    >>> next(sampler.follow(DataLoader(Batched((images, labels)), sampler=sampler, batch_size=None)))
    [tensor([[ 6.,  7.],
            [ 8.,  9.],
            [10., 11.]]), tensor([3, 4, 5])]
    """

    def __init__(self, source: Any, collate_fn: Callable[[list[Any]], Any] = default_collate, *, copy: bool = True) -> None:
        self.source, self.collate_fn, self.copy = source, collate_fn, copy
        self._columns = _columns(source)
        if self._columns is None and not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
            raise TypeError(f"{type(source).__name__} is no source: it needs __len__ and __getitem__, or is made of tensors")
        rows = list(dict.fromkeys(len(column) for column in self._columns or [source]))
        if len(rows) > 1:
            raise ValueError(f"columns hold one row a sample: found {' and '.join(map(str, rows))} rows")
        self._rows = rows[0]

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, keys: Any) -> Any:
        """The batch of these indices."""
        if not isinstance(keys, list):
            raise TypeError(
                f"Batched reads the list of indices of a batch: found {keys!r}; use "
                "DataLoader(batched, sampler=EpochSampler(...), batch_size=None)"
            )
        if self._columns is None:
            many = getattr(self.source, "__getitems__", None)
            return self.collate_fn(many(keys) if many else [self.source[key] for key in keys])
        rows: Rows = getattr(keys, "rows", None) or _rows(keys)
        lowest, highest = (rows.start, rows.stop - 1) if isinstance(rows, slice) else (min(keys), max(keys))
        if lowest < 0 or highest >= self._rows:
            raise IndexError(f"index {lowest if lowest < 0 else highest}: the source has {self._rows} samples, from 0")
        if get_worker_info() is not None:
            batch = _shared(self._columns, rows, len(keys))
        else:
            batch = [_read(column, rows, self.copy) for column in self._columns]
        if isinstance(self.source, dict):
            return dict(zip(self.source, batch, strict=True))
        if isinstance(self.source, tuple):
            return type(self.source)(*batch) if hasattr(self.source, "_fields") else tuple(batch)
        return batch[0]


Column = torch.Tensor | np.ndarray
Rows = slice | torch.Tensor  # of neighbours, or any


def _columns(source: Any) -> list[Column] | None:
    """The tensors and arrays of which a source is made; None if it is made otherwise."""
    found = list(source.values()) if isinstance(source, dict) else list(source) if isinstance(source, tuple) else [source]
    return found if found and all(isinstance(one, (torch.Tensor, np.ndarray)) and one.ndim for one in found) else None


def _rows(keys: list[int]) -> Rows:
    first = keys[0] if keys else 0
    neighbours = range(first, first + len(keys))
    return slice(first, neighbours.stop) if keys == [*neighbours] else torch.tensor(keys)


def _read(column: Column, rows: Rows, copy: bool) -> torch.Tensor:
    if isinstance(column, torch.Tensor):
        if isinstance(rows, slice):
            return column[rows].clone() if copy else column[rows]
        return column.index_select(0, rows)
    found = column[rows if isinstance(rows, slice) else rows.numpy()]
    return torch.from_numpy(found if not copy and found.flags.writeable else np.array(found))


def _shared(columns: list[Column], rows: Rows, count: int) -> list[torch.Tensor]:
    """These `count` rows of all columns, read straight into one piece of shared memory.

    A worker hands over a descriptor for each piece, and the main process asks for it through a socket. That takes longer than
    to copy a batch, so the columns of a batch share one. (A view would take the whole of its column into shared memory.)
    """
    kinds = [
        column if isinstance(column, torch.Tensor) else torch.from_numpy(np.empty((0, *column.shape[1:]), column.dtype))
        for column in columns
    ]
    shapes = [(count, *kind.shape[1:]) for kind in kinds]
    sizes = [math.prod(shape) * kind.itemsize for shape, kind in zip(shapes, kinds, strict=True)]
    starts = [*itertools.accumulate((-(-size // 64) * 64 for size in sizes), initial=0)]
    memory = torch.empty(starts[-1], dtype=torch.uint8).share_memory_()
    batch = []
    for column, kind, shape, size, start in zip(columns, kinds, shapes, sizes, starts, strict=False):
        place = memory[start : start + size].view(kind.dtype).view(shape)
        if isinstance(column, np.ndarray):
            if isinstance(rows, slice):
                np.copyto(place.numpy(), column[rows])
            else:
                np.take(column, rows.numpy(), axis=0, out=place.numpy(), mode="clip")  # any other mode makes a copy first
        elif isinstance(rows, slice) or column.device.type != "cpu":
            place.copy_(column.detach()[rows])
        else:
            torch.index_select(column.detach(), 0, rows, out=place)
        batch.append(place)
    return batch
