"""Lesson 15: balanced step sizes, the rest of an epoch for other ranks, and an audit of one's own."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from tutorlib import sharding
from tutorlib.exercises import Ask, Exercise, Wrong

Sizes = list[list[int]]

# --- step_sizes ----------------------------------------------------------------------------------------------------------


def _sizes_law(step_sizes: Any, ask: Ask) -> None:
    for samples, ranks, batch_size in ask.cases(60, range(6, 40), range(1, 7), range(2, 6)):
        fewest = len(sharding.plan(samples, ranks, batch_size))
        found = ask(step_sizes, samples, ranks, batch_size, then=lambda steps: [list(step) for step in steps])
        found.satisfies(lambda steps: sum(map(sum, steps)) == samples, f"{samples} samples in all")
        found.satisfies(
            lambda steps: all(len(step) == ranks and all(1 <= size <= batch_size for size in step) for step in steps),
            f"in every step {ranks} sizes from 1 to {batch_size}",
        )
        found.satisfies(lambda steps: len(steps) == fewest, f"{fewest} steps, the fewest possible")


def _dealt_until_empty(samples: int, ranks: int, batch_size: int) -> Sizes:
    steps = []
    while samples > 0:
        step = []
        for _ in range(ranks):
            step.append(min(batch_size, samples))
            samples -= step[-1]
        steps.append(step)
    return steps


def _padded(samples: int, ranks: int, batch_size: int) -> Sizes:
    full, rest = divmod(samples, ranks * batch_size)
    steps = [[batch_size] * ranks for _ in range(full)]
    return [*steps, [-(-rest // ranks)] * ranks] if rest else steps


def _dropped(samples: int, ranks: int, batch_size: int) -> Sizes:
    return [[batch_size] * ranks for _ in range(samples // (ranks * batch_size))]


def _only_the_last(samples: int, ranks: int, batch_size: int) -> Sizes:
    full, rest = divmod(samples, ranks * batch_size)
    steps = [[batch_size] * ranks for _ in range(full)]
    if rest:
        least, more = divmod(rest, ranks)
        steps.append([least + (rank < more) for rank in range(ranks)])
    return steps


def _one_step_more(samples: int, ranks: int, batch_size: int) -> Sizes:
    steps = samples // (ranks * batch_size) + 1
    least, more = divmod(samples, steps * ranks)
    sizes = [least + (batch < more) for batch in range(steps * ranks)]
    return [sizes[step * ranks : (step + 1) * ranks] for step in range(steps)]


step_sizes = Exercise(
    "15_step_sizes",
    _sizes_law,
    wrong=[
        Wrong(
            _dealt_until_empty,
            "Every sample comes once, but in the last step some ranks get nothing, and the others wait for them.",
            "每个样本都恰好一次，但最后一步有的 rank 什么也没有，其他 rank 会一直等它。",
        ),
        Wrong(
            _padded,
            "This is padding: the last step holds more samples than are left, so some are read twice.",
            "这是填充：最后一步的样本比剩下的多，所以有的样本读了两次。",
        ),
        Wrong(
            _dropped,
            "This is dropping: what does not fill a step is read by nobody.",
            "这是丢弃：填不满一步的样本谁也不读。",
        ),
        Wrong(
            _only_the_last,
            "Where fewer samples than ranks are left, some rank gets a batch of 0. Take samples from the step before as well.",
            "剩下的样本比 rank 少时，有的 rank 得到大小为 0 的批次。前面那一步的样本也要拿来分。",
        ),
        Wrong(
            _one_step_more,
            "Where the samples divide exactly you make one step too many. Round up: -(-samples // (ranks * batch_size)).",
            "样本刚好整除时，你多做了一步。请向上取整：-(-samples // (ranks * batch_size))。",
        ),
    ],
    hints=[
        (
            "How many steps are needed at least? Then how many batches are that over all ranks?",
            "最少需要几步？那么所有 rank 一共有几个批次？",
        ),
        (
            "Share the samples over all those batches as equally as possible. No batch need be full.",
            "把样本尽量平均地分给所有这些批次。没有哪个批次必须是满的。",
        ),
        (
            "`least, more = divmod(samples, steps * ranks)`: `more` of the batches have `least + 1` samples, the others `least`.",
            "`least, more = divmod(samples, steps * ranks)`：其中 `more` 个批次有 `least + 1` 个样本，其余有 `least` 个。",
        ),
    ],
)


# --- rest_of_epoch -------------------------------------------------------------------------------------------------------


def _rest_law(rest_of_epoch: Any, ask: Ask) -> None:
    for size, share, ranks in ask.cases(40, range(1, 16), range(0, 5), range(1, 5)):
        seen = size * share // 4
        order = sharding.order(size, seed=size, epoch=share).tolist()
        expected = sorted(order[seen:])
        everybody = ask(
            lambda: [list(rest_of_epoch(list(order), seen, rank, ranks)) for rank in range(ranks)],
            case=f"rest_of_epoch({order}, {seen}, rank, {ranks}) for all {ranks} ranks",
        )
        everybody.satisfies(
            lambda parts: sorted(index for part in parts for index in part) == expected, f"together exactly {expected}"
        )
        everybody.satisfies(lambda parts: max(map(len, parts)) - min(map(len, parts)) <= 1, "parts that differ by at most one")


def _skips_for_each(order: list[int], seen: int, rank: int, ranks: int) -> list[int]:
    return order[rank::ranks][seen:]


def _skips_a_share(order: list[int], seen: int, rank: int, ranks: int) -> list[int]:
    return order[rank::ranks][seen // ranks :]


def _sorts(order: list[int], seen: int, rank: int, ranks: int) -> list[int]:
    return sorted(order)[seen:][rank::ranks]


def _forgets_ranks(order: list[int], seen: int, rank: int, ranks: int) -> list[int]:
    return order[seen:]


rest_of_epoch = Exercise(
    "15_rest_of_epoch",
    _rest_law,
    wrong=[
        Wrong(
            _skips_for_each,
            "`seen` counts the samples of all ranks together. You skip that many on each rank and lose the rest.",
            "`seen` 数的是所有 rank 一共读过的样本。你让每个 rank 都跳过这么多，于是丢了样本。",
        ),
        Wrong(
            _skips_a_share,
            "`seen // ranks` is right only if `seen` divides by the new number of ranks: 5 seen, 2 ranks, and one is read again.",
            "只有 `seen` 能被新的 rank 数整除时，`seen // ranks` 才对：读过 5 个、有 2 个 rank 时，有一个会再读一次。",
        ),
        Wrong(
            _sorts,
            "The first `seen` samples of the order are done, not the samples with the numbers below `seen`.",
            "读完的是顺序里的前 `seen` 个样本，不是编号小于 `seen` 的样本。",
        ),
        Wrong(
            _forgets_ranks,
            "Every rank reads the whole rest here: each sample comes once for each rank.",
            "这里每个 rank 都读完整的剩余部分：有几个 rank，每个样本就来几次。",
        ),
    ],
    hints=[
        ("Which comes first: leaving out what was seen, or dealing to the ranks?", "哪一步在前：去掉读过的，还是分给各个 rank？"),
        (
            "The rest is `order[seen:]`, and it is the same list on every rank.",
            "剩余部分是 `order[seen:]`，它在每个 rank 上都相同。",
        ),
        (
            "Deal the rest like cards: start at `rank`, step by `ranks`.",
            "像发牌一样分剩余部分：从 `rank` 开始，每 `ranks` 个取一个。",
        ),
    ],
)


# --- my_audit ------------------------------------------------------------------------------------------------------------


def _epoch(draw: random.Random) -> tuple[list[list[list[int]]], int]:
    """Batches of each rank, with now and then a sample too many, one too few, or a rank that has another number of steps."""
    size, ranks, batch_size = draw.randint(2, 9), draw.randint(1, 3), draw.randint(1, 3)
    indices = list(range(size))
    if draw.random() < 0.5:
        indices.append(draw.randrange(size))
    if draw.random() < 0.4:
        indices.remove(draw.randrange(size))
    draw.shuffle(indices)
    parts = [indices[rank::ranks] for rank in range(ranks)]
    return [[part[i : i + batch_size] for i in range(0, len(part), batch_size)] for part in parts], size


def _audit_law(my_audit: Any, ask: Ask) -> None:
    cases = [([[[0, 1], [2]], [[3]]], 4), ([[[0], [1]], [[1], [2]]], 4), *ask.cases(40, _epoch)]
    for ranks, size in cases:
        read = Counter(index for rank in ranks for batch in rank for index in batch)
        expected = {
            "missing": [index for index in range(size) if not read[index]],
            "repeated": sorted(index for index, times in read.items() if times > 1),
            "equal_steps": len(set(map(len, ranks))) == 1,
        }
        ask(my_audit, ranks, size).gives(expected)


def _found(missing: set[int], repeated: set[int], equal: bool) -> dict[str, Any]:
    return {"missing": sorted(missing), "repeated": sorted(repeated), "equal_steps": equal}


def _flat(rank: list[list[int]]) -> list[int]:
    return [index for batch in rank for index in batch]


def _each_rank_alone(ranks: list[list[list[int]]], size: int) -> dict[str, Any]:
    parts = [_flat(rank) for rank in ranks]
    repeated = {index for part in parts for index in part if part.count(index) > 1}
    return _found(set(range(size)) - set().union(*parts), repeated, len({len(rank) for rank in ranks}) == 1)


def _by_totals(ranks: list[list[list[int]]], size: int) -> dict[str, Any]:
    read = [index for rank in ranks for index in _flat(rank)]
    missing = set(range(size)) - set(read) if len(read) != size else set()
    repeated = {index for index in read if read.count(index) > 1} if len(read) > size else set()
    return _found(missing, repeated, len({len(rank) for rank in ranks}) == 1)


def _counts_samples(ranks: list[list[list[int]]], size: int) -> dict[str, Any]:
    read = [index for rank in ranks for index in _flat(rank)]
    repeated = {index for index in read if read.count(index) > 1}
    return _found(set(range(size)) - set(read), repeated, len({len(_flat(rank)) for rank in ranks}) == 1)


my_audit = Exercise(
    "15_my_audit",
    _audit_law,
    wrong=[
        Wrong(
            _each_rank_alone,
            "You look for repeats within each rank. Two ranks that read the same sample are the usual case.",
            "你只在每个 rank 内部找重复。更常见的是两个 rank 读了同一个样本。",
        ),
        Wrong(
            _by_totals,
            "A right total proves nothing: one sample twice and another never give the same number.",
            "总数正确说明不了什么：一个样本读两次、另一个没读，总数不变。",
        ),
        Wrong(
            _counts_samples,
            "Ranks wait for each other once a batch. Compare the numbers of batches, not of samples.",
            "各个 rank 每个批次互相等一次。要比较的是批次数，不是样本数。",
        ),
    ],
    hints=[
        ("Put the indices of all ranks and batches into one `Counter`.", "把所有 rank、所有批次的索引放进一个 `Counter`。"),
        (
            "Missing: in `range(size)`, but not in the counter. Repeated: counted more than once.",
            "缺失：在 `range(size)` 里，但不在计数器里。重复：计数大于 1。",
        ),
        ("Equal steps: `len(set(map(len, ranks))) == 1`.", "步数相等：`len(set(map(len, ranks))) == 1`。"),
    ],
)
