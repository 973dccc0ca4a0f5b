"""Lesson 06: a batch sampler of one's own, the loop for a stream, and how many batches really arrive."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from tutorlib.exercises import Ask, Exercise, Wrong

# --- index_batches -------------------------------------------------------------------------------------------------------


class _Order:
    """What a sampler promises: it can be iterated, and nothing else."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def _batches_law(index_batches: Any, ask: Ask) -> None:
    for size, batch_size, drop_last in ask.cases(40, range(0, 12), range(1, 6), (True, False)):
        indices = ask.random.sample(range(20), size)
        expected = list(BatchSampler(indices, batch_size, drop_last))
        ask(
            lambda: list(index_batches(_Order(indices), batch_size, drop_last)),
            case=f"list(index_batches({indices}, {batch_size}, {drop_last}))",
        ).gives(expected)


def _keeps_the_rest(order: Iterable[int], batch_size: int, drop_last: bool) -> Iterator[list[int]]:
    indices = list(order)
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


def _empty_at_the_end(order: Iterable[int], batch_size: int, drop_last: bool) -> Iterator[list[int]]:
    batch = []
    for index in order:
        batch.append(index)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if not drop_last:
        yield batch


def _one_list(order: Iterable[int], batch_size: int, drop_last: bool) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in order:
        batch.append(index)
        if len(batch) == batch_size:
            yield batch
            batch.clear()
    if batch and not drop_last:
        yield batch


def _needs_a_length(order: Any, batch_size: int, drop_last: bool) -> Iterator[list[int]]:
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        if len(batch) == batch_size or not drop_last:
            yield batch


index_batches = Exercise(
    "06_index_batches",
    _batches_law,
    wrong=[
        Wrong(
            _keeps_the_rest,
            "drop_last=True must leave out a last list that is too short.",
            "drop_last=True 时，最后那个不满的列表不能给出来。",
        ),
        Wrong(
            _empty_at_the_end,
            "Where nothing is left over you give one batch too many, an empty one.",
            "没有零头时，你多给了一个空的批次。",
        ),
        Wrong(
            _one_list,
            "All your batches are one and the same list, and clear() empties it for everybody. Make a new list for each batch.",
            "你的所有批次都是同一个列表，clear() 把它们全清空了。每个批次都要新建一个列表。",
        ),
        Wrong(
            _needs_a_length,
            "A sampler may have no len() and no slices. Go through it with `for`.",
            "采样器可以没有 len()，也不能切片。请用 `for` 遍历它。",
        ),
    ],
    hints=[
        (
            "Collect indices in a list. When is it full? What do you do then?",
            "把索引收进一个列表。什么时候满了？满了以后做什么？",
        ),
        (
            "Two places yield: inside the loop when the list is full, and after the loop for what is left.",
            "有两处 yield：循环里列表满了时，以及循环之后处理剩下的。",
        ),
        (
            "After `yield batch` write `batch = []`; after the loop `if batch and not drop_last: yield batch`.",
            "`yield batch` 之后写 `batch = []`；循环之后写 `if batch and not drop_last: yield batch`。",
        ),
    ],
)


# --- mended_loop ---------------------------------------------------------------------------------------------------------


class _Stream(IterableDataset):
    def __init__(self, samples: Iterable[int]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[int]:
        return iter(self.samples)


def _plain(samples: list[int]) -> list[int]:
    return samples


def _loop_law(mended_loop: Any, ask: Ask) -> None:
    for size, batch_size in ask.cases(30, range(0, 12), range(1, 6)):
        stream = _Stream(range(10, 10 + size))
        loader: DataLoader[Any] = DataLoader(stream, batch_size=batch_size, collate_fn=_plain)
        # The loader's batch sampler never ends: an answer that goes on with empty batches is stopped after a few.
        ask(
            lambda: list(itertools.islice(mended_loop(stream, loader.batch_sampler, _plain), size + 3)),
            case=f"a stream of {size} samples in batches of {batch_size}",
        ).gives(list(loader))
    for lengths in ([2, 1, 3], [1, 1, 1, 1]):
        stream = _Stream(range(4))
        samples = iter(stream)
        expected = [part for part in (list(itertools.islice(samples, length)) for length in lengths) if part]
        ask(
            lambda: list(mended_loop(stream, [[None] * length for length in lengths], _plain)),
            case=f"a stream of 4 samples, a batch sampler with lists of {lengths}",
        ).gives(expected)


_Collate = Callable[[list[Any]], Any]


def _as_noted(dataset: Any, batch_sampler: Any, collate_fn: _Collate) -> Iterator[Any]:
    stream = iter(dataset)
    for entries in batch_sampler:
        yield collate_fn([next(stream) for _ in entries])


def _loses_the_rest(dataset: Any, batch_sampler: Any, collate_fn: _Collate) -> Iterator[Any]:
    stream = iter(dataset)
    for entries in batch_sampler:
        try:
            samples = [next(stream) for _ in entries]
        except StopIteration:
            return
        yield collate_fn(samples)


def _gives_an_empty_one(dataset: Any, batch_sampler: Any, collate_fn: _Collate) -> Iterator[Any]:
    stream = iter(dataset)
    for entries in batch_sampler:
        samples = list(itertools.islice(stream, len(entries)))
        yield collate_fn(samples)
        if len(samples) < len(entries):
            return


def _never_ends(dataset: Any, batch_sampler: Any, collate_fn: _Collate) -> Iterator[Any]:
    stream = iter(dataset)
    for entries in batch_sampler:
        yield collate_fn(list(itertools.islice(stream, len(entries))))


mended_loop = Exercise(
    "06_mended_loop",
    _loop_law,
    wrong=[
        Wrong(
            _as_noted,
            "This is the loop of the notes: next() raises StopIteration, and inside a generator that is a RuntimeError.",
            "这就是笔记的循环：next() 抛出 StopIteration，在生成器里它变成 RuntimeError。",
        ),
        Wrong(
            _loses_the_rest,
            "You catch StopIteration, but the samples read before it are lost. The loader keeps them as a last, smaller batch.",
            "你捕获了 StopIteration，但在它之前读到的样本丢了。加载器会把它们留作最后那个不满的批次。",
        ),
        Wrong(
            _gives_an_empty_one,
            "Where nothing is left over you give one batch too many, an empty one.",
            "没有零头时，你多给了一个空的批次。",
        ),
        Wrong(
            _never_ends,
            "The batch sampler never ends, so your loop must: stop when the stream gives less than was asked for.",
            "`batch_sampler` 永不结束，所以你的循环要自己结束：数据流给的比要的少，就停下。",
        ),
    ],
    hints=[
        (
            "Call iter(dataset) once, before the loop. Then read one batch of samples without letting StopIteration out.",
            "在循环之前调用一次 iter(dataset)。然后读一个批次的样本，不要让 StopIteration 跑出来。",
        ),
        (
            "list(islice(stream, n)) reads at most n samples and never raises StopIteration.",
            "list(islice(stream, n)) 最多读 n 个样本，而且不会抛出 StopIteration。",
        ),
        (
            "Yield only if there are samples; return if there are fewer than len(entries).",
            "有样本才 yield；样本少于 len(entries) 就 return。",
        ),
    ],
)


# --- batches_arrive ------------------------------------------------------------------------------------------------------


def _arrive_law(batches_arrive: Any, ask: Ask) -> None:
    for samples, workers, batch_size, drop_last in ask.cases(40, range(0, 21), range(0, 5), range(1, 6), (True, False)):
        readers = max(1, workers)
        # What each worker does, torch's own loader does here for its share; no processes are needed for that.
        shares = [_Stream(range(reader, samples, readers)) for reader in range(readers)]
        expected = sum(len(list(DataLoader(share, batch_size=batch_size, drop_last=drop_last))) for share in shares)
        ask(batches_arrive, samples, workers, batch_size, drop_last).gives(expected)


def _as_len_says(samples: int, workers: int, batch_size: int, drop_last: bool) -> int:
    return samples // batch_size if drop_last else -(-samples // batch_size)


def _equal_shares(samples: int, workers: int, batch_size: int, drop_last: bool) -> int:
    readers = max(1, workers)
    share = samples // readers
    return readers * (share // batch_size if drop_last else -(-share // batch_size))


def _always_drops(samples: int, workers: int, batch_size: int, drop_last: bool) -> int:
    readers = max(1, workers)
    return sum(len(range(reader, samples, readers)) // batch_size for reader in range(readers))


def _divides_by_zero(samples: int, workers: int, batch_size: int, drop_last: bool) -> int:
    shares = [len(range(worker, samples, workers)) for worker in range(workers)]
    return sum(share // batch_size if drop_last else -(-share // batch_size) for share in shares)


batches_arrive = Exercise(
    "06_batches_arrive",
    _arrive_law,
    wrong=[
        Wrong(
            _as_len_says,
            "This is what len(loader) says: it counts as if one process read everything.",
            "这正是 len(loader) 的说法：它当作由一个进程读完全部样本来数。",
        ),
        Wrong(
            _equal_shares,
            "The shares are not all equal: 7 samples over 2 workers are 4 and 3.",
            "各份并不总是相等：7 个样本给 2 个工作进程，是 4 个和 3 个。",
        ),
        Wrong(
            _always_drops,
            "Without drop_last each worker also gives its last, smaller batch.",
            "没有 drop_last 时，每个工作进程还会给出自己最后那个不满的批次。",
        ),
        Wrong(
            _divides_by_zero,
            "With 0 workers there is still one reader: the main process.",
            "0 个工作进程时仍有一个读者：主进程。",
        ),
    ],
    hints=[
        (
            "How many samples does each worker get? len(range(worker, samples, workers)) counts them.",
            "每个工作进程得到几个样本？len(range(worker, samples, workers)) 可以数出来。",
        ),
        (
            "Count the batches of each share on its own, then add up. 0 workers are 1 reader.",
            "先分别数每一份的批次，再相加。0 个工作进程算 1 个读者。",
        ),
        (
            "A share gives share // batch_size full batches, and one more if a rest is left and drop_last is False.",
            "一份给出 share // batch_size 个满批次；有零头且 drop_last 为 False 时再加一个。",
        ),
    ],
)
