"""Lesson 28: a forward without choices, and the proof that an exported model is the module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutorlib.exercises import Ask, Exercise, Wrong

# --- inverted ------------------------------------------------------------------------------------------------------------


class _Operators(TorchDispatchMode):
    """The operators that a function calls, in order: what a graph would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def _images(means: tuple[float, ...]) -> torch.Tensor:
    """Small images of these means, pixels on both sides of 0.5, exact in float32."""
    return torch.stack([torch.tensor([m - 0.25, m + 0.25, m, m]).reshape(1, 2, 2) for m in means])


def _right(images: torch.Tensor) -> torch.Tensor:
    return torch.where(images.mean((1, 2, 3), keepdim=True) > 0.5, 1 - images, images)


def _decides(inverted: Callable[..., Any]) -> str:
    """Whether it works on tensors that have a shape but no values."""
    try:
        inverted(torch.empty(2, 1, 2, 2, device="meta"))
    except Exception:
        return "asks for a value"
    return "works"


def _operators(inverted: Callable[..., Any], batch: int) -> int:
    with _Operators() as seen:
        inverted(torch.zeros(batch, 1, 2, 2))
    return len(seen.names)


def _inverted_law(inverted: Any, ask: Ask) -> None:
    choices = [0.25, 0.375, 0.625, 0.75]
    for means in ask.cases(8, lambda random: tuple(random.choice(choices) for _ in range(random.randint(1, 3)))):
        images = _images(means)
        wanted = _right(images).flatten(1).tolist()
        case = f"inverted(images of the means {list(means)})"
        ask(lambda images=images: inverted(images.clone()).flatten(1).tolist(), case=case).gives(wanted)
    ask(_decides, inverted, case="inverted(tensor with a shape and no values)").gives("works")
    few = ask(_operators, inverted, 2, case="operators called for 2 images").satisfies(lambda n: n > 0, "a number")
    ask(_operators, inverted, 5, case="operators called for 5 images").gives(few)


def _of_the_batch(images: torch.Tensor) -> torch.Tensor:
    return torch.where(images.mean() > 0.5, 1 - images, images)


def _with_if(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - image if image.mean() > 0.5 else image for image in images])


def _unrolled(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.where(image.mean() > 0.5, 1 - image, image) for image in images])


def _each_pixel(images: torch.Tensor) -> torch.Tensor:
    return torch.where(images > 0.5, 1 - images, images)


inverted = Exercise(
    "28_inverted",
    _inverted_law,
    wrong=[
        Wrong(
            _with_if,
            "An if asks for the value of a tensor. A graph has no values yet: use torch.where.",
            "if 要问张量的值。图里还没有值：请用 torch.where。",
        ),
        Wrong(
            _unrolled,
            "The loop runs once for each image, so the graph would fit one batch size only. Work on the whole batch.",
            "循环对每张图像执行一次，得到的图只适合一种批次大小。请对整个批次一起计算。",
        ),
        Wrong(
            _of_the_batch,
            "You take the mean of the whole batch. Each image has its own: mean((1, 2, 3), keepdim=True).",
            "你取的是整个批次的平均值。每张图像各有自己的平均值：mean((1, 2, 3), keepdim=True)。",
        ),
        Wrong(
            _each_pixel,
            "You decide pixel by pixel. The mean of the image decides for all its pixels.",
            "你按像素逐个决定。应由整张图像的平均值决定它的所有像素。",
        ),
    ],
    hints=[
        ("torch.where(condition, a, b) computes both and picks.", "torch.where(condition, a, b) 两边都算，再挑选。"),
        (
            "images.mean((1, 2, 3), keepdim=True) has the shape (batch, 1, 1, 1).",
            "images.mean((1, 2, 3), keepdim=True) 的形状是 (batch, 1, 1, 1)。",
        ),
    ],
)


# --- largest_difference --------------------------------------------------------------------------------------------------


class _Model(nn.Module):
    """Doubles in evaluation mode; draws random numbers in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.drop(x)


def _exported(apart: dict[int, list[float]]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A run of an exported model that is off by these amounts, number by number, at these batch sizes."""

    def run(x: torch.Tensor) -> torch.Tensor:
        off = torch.zeros_like(x)
        for place, amount in enumerate(apart.get(len(x), [])):
            off.view(-1)[place] = amount
        return 2 * x + off

    return run


def _difference_law(largest_difference: Any, ask: Ask) -> None:
    example = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    cases: list[tuple[dict[int, list[float]], tuple[int, ...], float]] = [
        ({}, (1, 2, 3), 0.0),
        ({2: [0.25]}, (1, 2), 0.25),
        ({3: [0.0, 0.5]}, (1, 2, 3), 0.5),
        ({1: [-0.75]}, (2, 1), 0.75),
        ({2: [0.5, -0.5]}, (2,), 0.5),
        ({1: [0.25], 4: [0.0, 0.0, 0.0, 0.0, 1.0]}, (4, 1), 1.0),
    ]
    for apart, sizes, expected in cases:
        model = _Model()

        def found(model: nn.Module = model, apart: Any = apart, sizes: Any = sizes) -> Any:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                answer = largest_difference(model, _exported(apart), example, sizes)
            return answer.item() if isinstance(answer, torch.Tensor) else answer

        off = f"off by {apart}" if apart else "never off"
        ask(found, case=f"sizes {sizes}, the exported model {off}").gives(expected)
        with contextlib.suppress(Exception):
            ask(lambda model=model: model.training, case="model.training afterwards").gives(True)


def _batch(example: torch.Tensor, size: int) -> torch.Tensor:
    return example[torch.arange(size) % len(example)]


def _each(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> list[torch.Tensor]:
    mode = model.training
    model.eval()
    found = [run(_batch(example, size)) - model(_batch(example, size)) for size in sizes]
    model.train(mode)
    return found


def _answer(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    return max(one.abs().max().item() for one in _each(model, run, example, sizes))


def _of_the_example(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    return _answer(model, run, example, [len(example)])


def _signed(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    return max(one.max().item() for one in _each(model, run, example, sizes))


def _mean(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    return max(one.abs().mean().item() for one in _each(model, run, example, sizes))


def _last(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    return _each(model, run, example, sizes)[-1].abs().max().item()


def _training(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    return max((run(_batch(example, s)) - model(_batch(example, s))).abs().max().item() for s in sizes)


def _left_in_eval(model: nn.Module, run: Any, example: torch.Tensor, sizes: Any) -> float:
    model.eval()
    return _answer(model, run, example, sizes)


largest_difference = Exercise(
    "28_largest_difference",
    _difference_law,
    wrong=[
        Wrong(
            _training,
            "The model runs in training mode: dropout draws, and nothing agrees. Call eval() before, and give the mode back.",
            "模型在训练模式下运行：dropout 在抽随机数，结果不可能一致。先调用 eval()，再把模式还回去。",
        ),
        Wrong(
            _left_in_eval,
            "The model stays in evaluation mode. Give it back the mode that it had.",
            "模型停在了评估模式。请把原来的模式还给它。",
        ),
        Wrong(
            _of_the_example,
            "You only compare at the example's own batch size. The exported model may be wrong at another.",
            "你只在例子自己的批次大小上比较。导出的模型在别的大小上可能是错的。",
        ),
        Wrong(
            _last,
            "You keep the difference of the last size only. The largest of all counts.",
            "你只保留了最后一种大小的差异。要取所有大小中最大的。",
        ),
        Wrong(
            _signed,
            "A difference of -0.75 is large too: take abs() before max().",
            "-0.75 的差异也很大：先取 abs() 再取 max()。",
        ),
        Wrong(
            _mean,
            "A mean hides one wrong number among many right ones: take the largest.",
            "平均值会掩盖众多正确数值中的一个错误：要取最大值。",
        ),
    ],
    hints=[
        (
            "example[torch.arange(size) % len(example)] is a batch of any size.",
            "example[torch.arange(size) % len(example)] 能给出任意大小的批次。",
        ),
        (
            "Note model.training, call model.eval(), compare, then model.train(what you noted).",
            "记下 model.training，调用 model.eval()，比较，再调用 model.train(记下的值)。",
        ),
        (
            "(run(batch) - model(batch)).abs().max() for each size; the largest of these.",
            "对每种大小算 (run(batch) - model(batch)).abs().max()，再取其中最大的。",
        ),
    ],
)
