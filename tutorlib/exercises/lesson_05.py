"""Lesson 05: what one rank reads, and every rank's answers put together without the padding."""

from __future__ import annotations

import math
from typing import Any

from torch.utils.data import DistributedSampler

from tutorlib.exercises import Ask, Exercise, Wrong

# --- deal ----------------------------------------------------------------------------------------------------------------


def _deal_law(deal: Any, ask: Ask) -> None:
    drawn = ask.cases(40, range(1, 12), range(1, 6))
    for size, world in [(1, 4), (2, 5), *drawn]:
        order = ask.random.sample(range(20), size)
        for rank in sorted({0, world - 1}):
            # torch deals the places of the order; which index stands there is ours
            sampler: DistributedSampler[Any] = DistributedSampler(order, world, rank, shuffle=False)  # type: ignore[arg-type]
            ask(deal, list(order), rank, world).gives([order[place] for place in sampler])


def _no_padding(order: list[int], rank: int, world: int) -> list[int]:
    return order[rank::world]


def _contiguous(order: list[int], rank: int, world: int) -> list[int]:
    each = math.ceil(len(order) / world)
    padded = [order[place % len(order)] for place in range(each * world)]
    return padded[rank * each : (rank + 1) * each]


def _pads_once(order: list[int], rank: int, world: int) -> list[int]:
    total = math.ceil(len(order) / world) * world
    padded = order + order[: total - len(order)]
    return padded[rank::world]


def _repeats_its_own(order: list[int], rank: int, world: int) -> list[int]:
    each = math.ceil(len(order) / world)
    mine = order[rank::world]
    return mine + (mine or order)[: each - len(mine)]


def _drops(order: list[int], rank: int, world: int) -> list[int]:
    return order[: len(order) // world * world][rank::world]


deal = Exercise(
    "05_deal",
    _deal_law,
    wrong=[
        Wrong(
            _no_padding,
            "Your ranks do not all get as many: fill the order up before you deal.",
            "你的各个 rank 得到的个数不同：分发之前先把顺序填充好。",
        ),
        Wrong(
            _contiguous,
            "You cut contiguous slices. torch deals like cards: every world-th index.",
            "你切的是连续切片。torch 像发牌一样分发：每 world 个取一个索引。",
        ),
        Wrong(
            _pads_once,
            "With few samples and many ranks the beginning must be repeated more than once: 1 sample, 4 ranks.",
            "样本少而 rank 多时，开头要重复不止一次：1 个样本、4 个 rank。",
        ),
        Wrong(
            _repeats_its_own,
            "You fill each rank up with its own first index. The padding is the beginning of the whole order.",
            "你用每个 rank 自己的第一个索引来凑数。填充用的是整个顺序的开头。",
        ),
        Wrong(
            _drops,
            "You cut the rest off: that is drop_last=True. Here nothing may be lost.",
            "你截掉了零头：那是 drop_last=True。这里什么也不能丢。",
        ),
    ],
    hints=[
        (
            "How many indices does each rank get? The smallest number that is enough for all, times world, is the padded length.",
            "每个 rank 得到几个索引？取足够分完的最小个数，再乘以 world，就是填充后的长度。",
        ),
        (
            "In the padded order the place p holds order[p % len(order)], however often the beginning is repeated.",
            "填充后的顺序里，位置 p 上是 order[p % len(order)]，开头重复多少次都一样。",
        ),
        (
            "each = -(-len(order) // world); the places of a rank are range(rank, each * world, world).",
            "each = -(-len(order) // world)；一个 rank 的位置是 range(rank, each * world, world)。",
        ),
    ],
)


# --- every_answer_once ---------------------------------------------------------------------------------------------------


def _once_law(every_answer_once: Any, ask: Ask) -> None:
    for size, world in [(10, 4), (1, 3), *ask.cases(40, range(1, 12), range(1, 6))]:
        truth = [ask.random.randrange(10) for _ in range(size)]
        samplers: list[DistributedSampler[Any]] = [
            DistributedSampler(truth, world, rank, shuffle=False)  # type: ignore[arg-type]
            for rank in range(world)
        ]
        ask(every_answer_once, [[truth[index] for index in sampler] for sampler in samplers], size).gives(truth)


def _rank_after_rank(answers: list[list[int]], size: int) -> list[int]:
    return [answer for part in answers for answer in part][:size]


def _with_padding(answers: list[list[int]], size: int) -> list[int]:
    return [answer for step in zip(*answers, strict=True) for answer in step]


def _without_repeats(answers: list[list[int]], size: int) -> list[int]:
    return list(dict.fromkeys(answer for step in zip(*answers, strict=True) for answer in step))


def _drops_a_step(answers: list[list[int]], size: int) -> list[int]:
    full = size // len(answers)
    return [answer for step in list(zip(*answers, strict=True))[:full] for answer in step]


every_answer_once = Exercise(
    "05_every_answer_once",
    _once_law,
    wrong=[
        Wrong(
            _rank_after_rank,
            "You put one rank behind the other. Rank 0 read the samples 0, world, 2 * world, ...: take from the ranks in turn.",
            "你把各 rank 首尾相接了。rank 0 读的是样本 0、world、2 * world……：要从各 rank 轮流取。",
        ),
        Wrong(
            _with_padding,
            "The padding is still there. It stands at the end, after `size` answers.",
            "填充还在里面。它在末尾，排在 `size` 个答案之后。",
        ),
        Wrong(
            _without_repeats,
            "You remove equal answers, but two samples may have the same answer. Remove by place, not by value.",
            "你去掉了相等的答案，但两个样本的答案可以相同。要按位置去掉，不要按值。",
        ),
        Wrong(
            _drops_a_step,
            "You drop the whole last step. Only a part of it is padding.",
            "你丢掉了整个最后一步。其中只有一部分是填充。",
        ),
    ],
    hints=[
        (
            "The answer number n of a rank belongs to the place n * world + rank.",
            "一个 rank 的第 n 个答案属于位置 n * world + rank。",
        ),
        (
            "zip(*answers) gives the first answers of all ranks, then the second ones, and so on.",
            "zip(*answers) 先给出各 rank 的第一个答案，再给出第二个，依此类推。",
        ),
        (
            "Write those into one list and keep the first `size` of it.",
            "把它们写进一个列表，只留前 `size` 个。",
        ),
    ],
)
