"""Lesson 29: an augmentation that can be repeated, and the gradient of a step that several ranks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tutorlib import sharding
from tutorlib.exercises import Ask, Exercise, Wrong

# --- moved ---------------------------------------------------------------------------------------------------------------


def _image() -> torch.Tensor:
    """A small image without a zero, so that each of its nine places can be told apart."""
    return torch.arange(1.0, 17.0).reshape(1, 4, 4)


def _placed(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    found = torch.zeros_like(image)
    height, width = image.shape[1:]
    found[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
        :, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return found


_STEPS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def _step(found: Any) -> Any:
    """By how much the image was moved, as (down, right), or what is wrong with it."""
    image = _image()
    if not isinstance(found, tuple) or len(found) != 2:
        return f"{type(found).__name__} instead of (image, label)"
    moved, label = found
    if label != 7:
        return f"label {label}"
    if not isinstance(moved, torch.Tensor) or moved.shape != image.shape or moved.dtype != image.dtype:
        return f"{type(moved).__name__} {tuple(getattr(moved, 'shape', ()))}"
    for down, right in _STEPS:
        if torch.equal(moved, _placed(image, down, right)):
            return down, right
    return "not the image moved by at most one pixel, with zeros at the edge"


def _moved_law(moved: Any, ask: Ask) -> None:
    seen: dict[tuple[int, int], Any] = {}

    def once(epoch: int, index: int) -> Any:
        with sharding.randomness(0, epoch, index):
            return _step(moved((_image(), 7)))

    def judged(epoch: int, index: int) -> Any:
        found = seen[epoch, index] = once(epoch, index)
        return "moved by at most one pixel" if found in _STEPS else found

    # What is noted is the judgement, not the move: so a wrong answer that draws anew each time is recognized as well.
    for epoch, index in [(epoch, index) for epoch in (0, 1) for index in range(20)]:
        case = f"moved((image, 7)) as sample {index} of epoch {epoch}"
        ask(judged, epoch, index, case=case).gives("moved by at most one pixel")

    def repeats() -> bool:
        return all(str(once(*place)) == str(found) for place, found in seen.items())

    ask(repeats, case="the same 40 samples once more: all equal").gives(True)
    for axis, name in ((1, "left and right"), (0, "up and down")):
        ask(lambda axis=axis: len({move[axis] for move in seen.values()}) == 3, case=f"40 samples: some moved {name}").gives(True)
    image = _image()

    def kept() -> list[Any]:
        moved((image, 7))
        return image.flatten().tolist()

    ask(kept, case="the image given, afterwards").gives(_image().flatten().tolist())


def _drawn() -> tuple[int, int]:
    down, right = (torch.randint(3, (2,)) - 1).tolist()
    return down, right


def _rolled(sample: Any) -> Any:
    image, label = sample
    return torch.roll(image, _drawn(), (1, 2)), label


def _own_generator(sample: Any) -> Any:
    image, label = sample
    down, right = (torch.randint(3, (2,), generator=torch.Generator().manual_seed(0)) - 1).tolist()
    return _placed(image, down, right), label


def _unseeded(sample: Any) -> Any:
    image, label = sample
    down, right = (np.random.default_rng().integers(0, 3, 2) - 1).tolist()
    return _placed(image, down, right), label


def _without_label(sample: Any) -> Any:
    return _placed(sample[0], *_drawn())


def _one_axis(sample: Any) -> Any:
    image, label = sample
    return _placed(image, 0, int(torch.randint(3, (1,))) - 1), label


moved = Exercise(
    "29_moved",
    _moved_law,
    wrong=[
        Wrong(
            _rolled,
            "torch.roll brings back at one edge what leaves at the other. What is empty becomes 0.",
            "torch.roll 会把从一边移出的像素从另一边补回来。空出的地方应为 0。",
        ),
        Wrong(
            _own_generator,
            "A generator made anew with one seed draws the same for every sample. Draw from torch's global one: Keyed seeds it.",
            "每次用同一个种子新建生成器，每个样本抽到的都一样。请用 torch 的全局生成器：Keyed 会设好它的种子。",
        ),
        Wrong(
            _unseeded,
            "numpy's default_rng() takes its seed from the system: the same sample looks different each time.",
            "numpy 的 default_rng() 从系统取种子：同一个样本每次都不一样。",
        ),
        Wrong(
            _without_label,
            "A sample is (image, label): give the label back as well.",
            "样本是 (image, label)：标签也要一并返回。",
        ),
        Wrong(
            _one_axis,
            "You move along one axis only. Draw a number for each of the two.",
            "你只沿一个方向移动。两个方向各抽一个数。",
        ),
    ],
    hints=[
        (
            "torch.randint(3, (2,)) - 1 draws two numbers from -1, 0 and 1.",
            "torch.randint(3, (2,)) - 1 从 -1、0、1 中抽出两个数。",
        ),
        (
            "Pad by one pixel on each side, then cut out 8 x 8 at another place.",
            "四周各补一个像素，再从另一处裁出 8 x 8。",
        ),
        (
            "torch.nn.functional.pad(image, (1, 1, 1, 1)), then [:, down : down + height, right : right + width].",
            "先 torch.nn.functional.pad(image, (1, 1, 1, 1))，再取 [:, down : down + height, right : right + width]。",
        ),
    ],
)


# --- mean_gradient -------------------------------------------------------------------------------------------------------


def _mean_law(mean_gradient: Any, ask: Ask) -> None:
    for sizes in ((1,), (4, 4), (3, 1), (1, 3), (2, 1, 1), (5, 2, 1)):
        total = sum(sizes)  # a power of two: the quotients are exact
        per_sample = [[float(8 * rank + number) for number in range(size)] for rank, size in enumerate(sizes)]
        gradients = [torch.tensor([sum(values) / len(values), 1.0]) for values in per_sample]
        wanted = [sum(map(sum, per_sample)) / total, 1.0]
        case = f"mean_gradient({[g.tolist() for g in gradients]}, {list(sizes)})"
        ask(lambda g=gradients, s=sizes: torch.as_tensor(mean_gradient(g, list(s))).tolist(), case=case).gives(wanted)


def _plain_mean(gradients: Any, sizes: Any) -> Any:
    return sum(gradients) / len(gradients)


def _sum(gradients: Any, sizes: Any) -> Any:
    return sum(gradients)


def _weighted_sum(gradients: Any, sizes: Any) -> Any:
    return sum(g * s for g, s in zip(gradients, sizes, strict=True))


def _over_ranks(gradients: Any, sizes: Any) -> Any:
    return _weighted_sum(gradients, sizes) / len(sizes)


mean_gradient = Exercise(
    "29_mean_gradient",
    _mean_law,
    wrong=[
        Wrong(
            _plain_mean,
            "The mean of means counts a sample in a small batch for more. Weigh each rank by its number of samples.",
            "平均值的平均值里，小批次中的样本算得更重。请按样本数给每个 rank 加权。",
        ),
        Wrong(
            _sum,
            "A sum grows with the number of ranks: the step would be too long.",
            "求和会随 rank 数增长：这一步会迈得太大。",
        ),
        Wrong(
            _weighted_sum,
            "Divide by the number of samples of the step.",
            "还要除以这一步的样本总数。",
        ),
        Wrong(
            _over_ranks,
            "You divide by the number of ranks. The step has sum(sizes) samples.",
            "你除以了 rank 的个数。这一步有 sum(sizes) 个样本。",
        ),
    ],
    hints=[
        ("A mean over 4 samples, times 4, is their sum.", "4 个样本的平均值乘以 4，就是它们的和。"),
        (
            "Add gradient times size over all ranks; divide once, by sum(sizes).",
            "对所有 rank 累加 梯度乘以大小，最后除以一次 sum(sizes)。",
        ),
    ],
)
