"""Lesson 04: a sampler whose order is a function of seed and epoch, and weights that give every class the same chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import RandomSampler, Sampler

from tutorlib.exercises import Ask, Exercise, Wrong

# --- epoch_order ---------------------------------------------------------------------------------------------------------


def _next_draw(sampler: Any) -> list[int]:
    """What the global generator gives after the sampler was read."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(5)
        list(sampler)
        return torch.randint(1000, (3,)).tolist()
    finally:
        torch.random.set_rng_state(state)


def _order_law(epoch_order: Any, ask: Ask) -> None:
    for size, seed in ask.cases(12, range(4, 12), range(100)):
        sampler = epoch_order(size, seed)
        for epoch in (0, 1, 2, 1, 0):
            sampler.epoch = epoch
            generator = torch.Generator().manual_seed(seed + epoch)
            expected = list(RandomSampler(range(size), generator=generator))
            ask(lambda: list(sampler), case=f"list(EpochOrder({size}, {seed})) with epoch = {epoch}").gives(expected)
        ask(lambda: len(sampler), case=f"len(EpochOrder({size}, {seed}))").gives(size)
    untouched = _next_draw([])
    ask(lambda: _next_draw(epoch_order(4, 0)), case="three numbers of the global generator after a pass").gives(untouched)


class _Sized(Sampler[int]):
    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def __len__(self) -> int:
        return self.size


class _MadeOnce(_Sized):
    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self.order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)


class _GoesOn(_Sized):
    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.size, generator=self.generator).tolist())


class _SeedsEverybody(_Sized):
    def __iter__(self) -> Iterator[int]:
        torch.manual_seed(self.seed + self.epoch)
        return iter(torch.randperm(self.size).tolist())


class _NotSeeded(_Sized):
    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        return iter(torch.randperm(self.size, generator=generator).tolist())


epoch_order = Exercise(
    "04_epoch_order",
    _order_law,
    wrong=[
        Wrong(
            _MadeOnce,
            "Every epoch has the same order: the seed alone decides it. Let self.epoch take part.",
            "每一轮的顺序都相同：只有种子在起作用。让 self.epoch 也参与进来。",
        ),
        Wrong(
            _GoesOn,
            "Your generator goes on from pass to pass, so the order depends on how often the sampler was read. "
            "Make a new generator in __iter__.",
            "你的随机数生成器一遍接一遍地往下走，顺序取决于采样器读过几次。请在 __iter__ 里新建生成器。",
        ),
        Wrong(
            _SeedsEverybody,
            "The order is right, but torch.manual_seed resets the global generator for everybody, dropout included. "
            "Use a torch.Generator of your own.",
            "顺序对，但 torch.manual_seed 重设了大家共用的全局生成器，dropout 也受影响。请用自己的 torch.Generator。",
        ),
        Wrong(
            _NotSeeded,
            "Your generator was never seeded with seed + epoch. A new torch.Generator always begins with the same default seed.",
            "你的生成器没有用 seed + epoch 设种子。新建的 torch.Generator 总是从同一个默认种子开始。",
        ),
    ],
    hints=[
        (
            "What must be made anew in each pass, so that the same epoch gives the same order again?",
            "为了让同一轮再次给出同一个顺序，每一遍要重新建立什么？",
        ),
        (
            "torch.randperm(size, generator=...) gives the order; torch.Generator().manual_seed(...) returns a seeded generator.",
            "torch.randperm(size, generator=...) 给出顺序；torch.Generator().manual_seed(...) 返回设好种子的生成器。",
        ),
        (
            "generator = torch.Generator().manual_seed(self.seed + self.epoch), then yield from torch.randperm(...).tolist().",
            "generator = torch.Generator().manual_seed(self.seed + self.epoch)，再 yield from torch.randperm(...).tolist()。",
        ),
    ],
)


# --- sample_weights ------------------------------------------------------------------------------------------------------


def _weights_law(sample_weights: Any, ask: Ask) -> None:
    for labels in ask.cases(30, lambda random: [random.choice((2, 5, 7)) for _ in range(random.randrange(1, 9))]):
        ask(sample_weights, labels).gives([1 / labels.count(label) for label in labels])


def _one_a_class(labels: Sequence[int]) -> list[float]:
    return [1 / count for _, count in sorted(Counter(labels).items())]


def _as_often(labels: Sequence[int]) -> list[float]:
    counts = Counter(labels)
    return [float(counts[label]) for label in labels]


def _all_alike(labels: Sequence[int]) -> list[float]:
    return [1 / len(labels) for _ in labels]


def _by_share(labels: Sequence[int]) -> list[float]:
    counts = Counter(labels)
    return [len(labels) / counts[label] for label in labels]


sample_weights = Exercise(
    "04_sample_weights",
    _weights_law,
    wrong=[
        Wrong(
            _one_a_class,
            "This is one weight a class. The sampler takes its length for the number of samples: give one weight a sample.",
            "这是每个类别一个权重。采样器会把它的长度当作样本数：请给每个样本一个权重。",
        ),
        Wrong(
            _as_often,
            "A frequent class gets heavier still. Divide by the count.",
            "常见的类别反而更重了。应当除以数量。",
        ),
        Wrong(
            _all_alike,
            "All samples weigh the same, so a frequent class still comes more often. Count each class on its own.",
            "所有样本一样重，常见的类别仍然来得更多。请分别数每个类别。",
        ),
        Wrong(
            _by_share,
            "The proportions are right, but the weights of each class shall add up to 1: divide 1 by the count of the class.",
            "比例对，但这里要求每个类别的权重之和为 1：用 1 除以该类别的数量。",
        ),
    ],
    hints=[
        (
            "The result is as long as labels. Three samples of one class share the weight 1: how much has each?",
            "结果与 labels 一样长。同一类别的三个样本分享权重 1：每个得到多少？",
        ),
        (
            "collections.Counter(labels) counts each class once.",
            "collections.Counter(labels) 把每个类别数一遍。",
        ),
        (
            "counts = Counter(labels), then [1 / counts[label] for label in labels].",
            "counts = Counter(labels)，然后 [1 / counts[label] for label in labels]。",
        ),
    ],
)
