"""Lesson 07: what happens to a single sample, batches under a budget, and the four fetch modes in one generator."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_convert

from tutorlib.exercises import Ask, Exercise, Wrong

# --- my_convert ----------------------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


def _shown(value: Any) -> Any:
    """A sample as plain values that keep their types apart: a tensor is no number, an array no tensor."""
    if isinstance(value, torch.Tensor):
        return f"tensor {str(value.dtype).removeprefix('torch.')} {value.tolist()}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{'array' if isinstance(value, np.ndarray) else 'number of'} NumPy {value.dtype} {value.tolist()}"
    if isinstance(value, dict):
        return {key: _shown(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {type(value).__name__: [_shown(part) for part in value]}
    if isinstance(value, (list, tuple)):
        return type(value)(_shown(part) for part in value)
    return value


def _sample(random: Random, depth: int = 2) -> Any:
    leaves = ["array", "number", "int", "str", "none"]
    kind = random.choice([*leaves, "tuple", "tuple", "list", "dict", "point"] if depth else leaves)
    if kind == "array":
        return np.arange(random.randint(1, 2), dtype=random.choice(["float32", "int64"]))
    if kind == "number":
        return np.float64(random.randrange(8) / 4)
    if kind in ("int", "str", "none"):
        return {"int": random.randrange(9), "str": random.choice("abc"), "none": None}[kind]
    one, two = _sample(random, depth - 1), _sample(random, depth - 1)
    return {"tuple": (one, two), "list": [one, two], "dict": {"a": one, "b": two}, "point": Point(one, two)}[kind]


def _convert_law(my_convert: Any, ask: Ask) -> None:
    fixed = [np.ones(2), np.float32(3), 3, "a", None, (1, 2), [np.ones(1)], {"a": (np.ones(1), 1)}, Point(np.ones(1), 2)]
    for sample in [*fixed, *ask.cases(30, _sample)]:
        case = f"my_convert of {_shown(sample)}"
        ask(my_convert, sample, case=case, then=_shown).gives(_shown(default_convert(sample)))


def _keeps_tuples(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.number)):
        return torch.as_tensor(value)
    if isinstance(value, dict):
        return {key: _keeps_tuples(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_keeps_tuples(part) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_keeps_tuples(part) for part in value)
    return value


def _outermost(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, (np.ndarray, np.number)) else value


def _arrays_only(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if isinstance(value, dict):
        return {key: _arrays_only(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_arrays_only(part) for part in value))
    if isinstance(value, (list, tuple)):
        return [_arrays_only(part) for part in value]
    return value


def _forgets_named(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.number)):
        return torch.as_tensor(value)
    if isinstance(value, dict):
        return {key: _forgets_named(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_forgets_named(part) for part in value]
    return value


my_convert = Exercise(
    "07_my_convert",
    _convert_law,
    wrong=[
        Wrong(
            _keeps_tuples,
            "A plain tuple comes back as a list. Yours stays a tuple: more sensible, but not what torch does.",
            "普通元组回来时是列表。你的仍是元组：更合理，但 torch 不是这样做的。",
        ),
        Wrong(
            _outermost,
            "You look at the sample only, not into it: an array inside a dict or a list becomes a tensor too.",
            "你只看样本本身，没有走进去：字典或列表里的数组也会变成张量。",
        ),
        Wrong(
            _arrays_only,
            "NumPy's own numbers, such as np.float64(2), become tensors too. They are no arrays.",
            "NumPy 自己的数字（例如 np.float64(2)）也会变成张量。它们不是数组。",
        ),
        Wrong(
            _forgets_named,
            "A namedtuple is a tuple with _fields. It keeps its type: build it anew with type(value)(*parts).",
            "具名元组是带 _fields 的元组，它的类型要保留：用 type(value)(*parts) 重新造一个。",
        ),
    ],
    hints=[
        (
            "Decide by the type of the value. For containers call my_convert again for each part.",
            "按值的类型决定做什么。遇到容器，就对每一部分再调用 my_convert。",
        ),
        (
            "np.ndarray and np.number become torch.as_tensor(value). Python's own int and float stay.",
            "np.ndarray 和 np.number 变成 torch.as_tensor(value)。Python 自己的 int 和 float 不动。",
        ),
        (
            "Ask in this order: array or NumPy number, dict, tuple with _fields, list or tuple, anything else.",
            "按这个顺序问：数组或 NumPy 数字、字典、带 _fields 的元组、列表或元组、其他。",
        ),
    ],
)


# --- by_budget -----------------------------------------------------------------------------------------------------------


def _greedy(samples: Iterable[str], budget: int) -> list[list[str]]:
    batches: list[list[str]] = []
    for sample in samples:
        if batches and sum(map(len, batches[-1])) + len(sample) <= budget:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return batches


def _words(random: Random) -> list[str]:
    return [letter * random.randint(1, 6) for letter in "abcdefgh"[: random.randint(0, 8)]]


def _budget_law(by_budget: Any, ask: Ask) -> None:
    for samples, budget in [([], 3), (["aa", "b", "cc"], 3), *ask.cases(40, _words, range(2, 9))]:
        ask(lambda: list(by_budget(iter(samples), budget)), case=f"list(by_budget({samples}, {budget}))").gives(
            _greedy(samples, budget)
        )


def _loses_the_last(samples: Iterable[str], budget: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for sample in samples:
        if batch and sum(map(len, batch)) + len(sample) > budget:
            yield batch
            batch = []
        batch.append(sample)


def _spends_too_much(samples: Iterable[str], budget: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for sample in samples:
        batch.append(sample)
        if sum(map(len, batch)) >= budget:
            yield batch
            batch = []
    if batch:
        yield batch


def _starts_empty(samples: Iterable[str], budget: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for sample in samples:
        if sum(map(len, batch)) + len(sample) > budget:
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _drops_long_ones(samples: Iterable[str], budget: int) -> Iterator[list[str]]:
    yield from _greedy([sample for sample in samples if len(sample) <= budget], budget)


by_budget = Exercise(
    "07_by_budget",
    _budget_law,
    wrong=[
        Wrong(
            _loses_the_last,
            "The last batch is missing: what is left when the samples end must be given too.",
            "少了最后一个批次：样本取完时剩下的也要给出来。",
        ),
        Wrong(
            _spends_too_much,
            "You add the sample first and ask about the budget after that. Ask before you add.",
            "你先放进样本，再问预算。应该先问再放。",
        ),
        Wrong(
            _starts_empty,
            "When the first sample is too long you give an empty batch before it. Give only batches that hold something.",
            "第一个样本太长时，你在它前面给了一个空的批次。只有装了东西的批次才给出来。",
        ),
        Wrong(
            _drops_long_ones,
            "A sample that is longer than the budget must not be lost: it gets a batch of its own.",
            "比预算还长的样本不能丢：它自成一批。",
        ),
    ],
    hints=[
        (
            "Keep two things: the batch so far and the length used so far.",
            "记住两样东西：目前的批次和已用的长度。",
        ),
        (
            "Before you add a sample: would it go over the budget? If so, and if the batch is not empty, yield the batch first.",
            "放进样本之前问：会超预算吗？会超而且批次不空，就先 yield 这个批次。",
        ),
        (
            "if batch and used + len(sample) > budget: yield batch; start a new one. After the loop yield what is left.",
            "if batch and used + len(sample) > budget：先 yield batch，再开新的。循环之后把剩下的也 yield 出来。",
        ),
    ],
)


# --- four_modes ----------------------------------------------------------------------------------------------------------


class _Map(Dataset):
    """Reads by key only: looping over it, as over a list, is refused."""

    def __init__(self, samples: list[int]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> int:
        return self.samples[index] if index < len(self.samples) else -1  # no IndexError: only len() says where it ends


class _Stream(IterableDataset):
    def __init__(self, samples: list[int]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[int]:
        return iter(self.samples)


def _leave_alone(samples: Any) -> Any:
    return samples


def _modes_law(four_modes: Any, ask: Ask) -> None:
    for size, batch_size, style in ask.cases(40, range(0, 9), (None, 1, 2, 3, 4), ("map-style", "stream")):
        samples = [10 * (number + 1) for number in range(size)]
        dataset: Any = _Map(samples) if style == "map-style" else _Stream(samples)
        expected = list(DataLoader(dataset, batch_size=batch_size, collate_fn=_leave_alone))
        ask(
            lambda: _at_most(four_modes(dataset, batch_size), size + 3),
            case=f"{style} dataset of {samples}, batch_size={batch_size}",
        ).gives(expected)


def _at_most(batches: Iterable[Any], most: int) -> list[Any]:
    return [batch for _, batch in zip(range(most), batches, strict=False)]


def _none_is_one(dataset: Any, batch_size: int | None) -> Iterator[Any]:
    yield from _gathered(_samples(dataset), batch_size or 1)


def _by_key_only(dataset: Any, batch_size: int | None) -> Iterator[Any]:
    samples = (dataset[index] for index in range(len(dataset)))
    yield from samples if batch_size is None else _gathered(samples, batch_size)


def _by_loop_only(dataset: Any, batch_size: int | None) -> Iterator[Any]:
    yield from iter(dataset) if batch_size is None else _gathered(iter(dataset), batch_size)


def _drops_the_rest(dataset: Any, batch_size: int | None) -> Iterator[Any]:
    if batch_size is None:
        yield from _samples(dataset)
    else:
        yield from (batch for batch in _gathered(_samples(dataset), batch_size) if len(batch) == batch_size)


def _samples(dataset: Any) -> Iterator[Any]:
    return iter(dataset) if isinstance(dataset, IterableDataset) else (dataset[index] for index in range(len(dataset)))


def _gathered(samples: Iterator[Any], batch_size: int) -> Iterator[list[Any]]:
    batch = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


four_modes = Exercise(
    "07_four_modes",
    _modes_law,
    wrong=[
        Wrong(
            _none_is_one,
            "None is not 1: without batching each sample comes bare, not in a list of one.",
            "None 不是 1：关闭自动成批时，每个样本直接给出，不放在只有一个元素的列表里。",
        ),
        Wrong(
            _by_key_only,
            "A stream has no keys and no len(): go through iter(dataset) when it is an IterableDataset.",
            "数据流没有键，也没有 len()：是 IterableDataset 时，请用 iter(dataset) 遍历。",
        ),
        Wrong(
            _by_loop_only,
            "A map-style dataset is read by its keys from 0 to len(dataset) - 1; a `for` over it does not know where to stop.",
            "映射式数据集要按键读取，从 0 到 len(dataset) - 1；直接对它写 `for`，不知道在哪里停。",
        ),
        Wrong(
            _drops_the_rest,
            "The last, smaller batch is missing. torch keeps it, unless you say drop_last=True.",
            "少了最后那个不满的批次。除非写 drop_last=True，torch 会保留它。",
        ),
    ],
    hints=[
        (
            "Two questions: is it an IterableDataset? Is batch_size None? First make one iterator of samples.",
            "两个问题：是不是 IterableDataset？batch_size 是不是 None？先得到一个样本的迭代器。",
        ),
        (
            "For map-style: (dataset[index] for index in range(len(dataset))). For a stream: iter(dataset).",
            "映射式：(dataset[index] for index in range(len(dataset)))。数据流：iter(dataset)。",
        ),
        (
            "None: `yield from samples`. Else: `while batch := list(islice(samples, batch_size)): yield batch`.",
            "None：`yield from samples`。否则：`while batch := list(islice(samples, batch_size)): yield batch`。",
        ),
    ],
)
