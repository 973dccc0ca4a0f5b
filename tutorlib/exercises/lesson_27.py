"""Lesson 27: count parameters once, and look at a model without leaving a trace on it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from tutorlib.exercises import Ask, Exercise, Wrong


class _Own(nn.Module):
    """A parameter that is neither a weight nor a bias, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(7))
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x)) * self.scale.sum()


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding(x))


def _linear() -> nn.Module:
    return nn.Linear(3, 2)


def _norm() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


# --- count ---------------------------------------------------------------------------------------------------------------

_COUNTED = {
    "Linear(3, 2)": (_linear, (8, 8)),
    "Linear(3, 4) and BatchNorm1d(4)": (_norm, (24, 24)),
    "Linear(3, 4), frozen, and Linear(4, 2)": (_frozen, (26, 10)),
    "a model with its own parameter of 7 and Linear(3, 3), used twice": (_Own, (19, 19)),
    "Embedding(5, 3), its weight shared by Linear(3, 5, bias=False)": (_Tied, (15, 15)),
}


def _count_law(count: Any, ask: Ask) -> None:
    for name, (make, expected) in _COUNTED.items():
        ask(lambda make=make: tuple(count(make())), case=f"count of {name}").gives(expected)


def _by_weight_and_bias(model: nn.Module) -> tuple[int, int]:
    found = [p for m in model.modules() for p in (getattr(m, "weight", None), getattr(m, "bias", None)) if p is not None]
    return sum(p.numel() for p in found), sum(p.numel() for p in found if p.requires_grad)


def _by_state(model: nn.Module) -> tuple[int, int]:
    every = sum(value.numel() for value in model.state_dict().values())
    return every, sum(p.numel() for p in model.parameters() if p.requires_grad)


def _with_duplicates(model: nn.Module) -> tuple[int, int]:
    found = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return sum(p.numel() for p in found), sum(p.numel() for p in found if p.requires_grad)


def _all_trainable(model: nn.Module) -> tuple[int, int]:
    every = sum(p.numel() for p in model.parameters())
    return every, every


def _tensors(model: nn.Module) -> tuple[int, int]:
    found = list(model.parameters())
    return len(found), sum(p.requires_grad for p in found)


count = Exercise(
    "27_count",
    _count_law,
    wrong=[
        Wrong(
            _by_weight_and_bias,
            "You count what is called weight or bias, as torchsummary does. A parameter may have any name.",
            "你只数名叫 weight 和 bias 的参数，和 torchsummary 一样。参数可以叫任何名字。",
        ),
        Wrong(
            _by_state,
            "state_dict holds buffers too: the statistics of a batch norm are no parameters.",
            "state_dict 里还有缓冲区（buffer）：批归一化的统计量不是参数。",
        ),
        Wrong(
            _with_duplicates,
            "A shared parameter counts twice: it is one tensor under two names.",
            "共享的参数数了两次：它是同一个张量，只是有两个名字。",
        ),
        Wrong(
            _all_trainable,
            "A frozen parameter is not trained: ask each one for requires_grad.",
            "冻结的参数不会训练：看一看每个参数的 requires_grad。",
        ),
        Wrong(
            _tensors,
            "You count tensors. A tensor of shape (2, 3) holds 6 parameters: numel().",
            "你数的是张量的个数。形状 (2, 3) 的张量含 6 个参数：用 numel()。",
        ),
    ],
    hints=[
        ("Which method of a model gives each of its parameters once?", "模型的哪个方法把每个参数恰好给出一次？"),
        (
            "sum(p.numel() for p in model.parameters()) is the first number.",
            "sum(p.numel() for p in model.parameters()) 就是第一个数。",
        ),
    ],
)


# --- shapes --------------------------------------------------------------------------------------------------------------


def _stack() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    model[1].eval()  # a frozen batch norm inside a training model
    return model


class _Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer(x)
        raise RuntimeError("the model itself fails")


def _traces(model: nn.Module) -> dict[str, Any]:
    return {
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        "training": [m.training for m in model.modules()],
        "batches seen": [int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")],
    }


def _shapes_law(shapes: Any, ask: Ask) -> None:
    for batch in ask.cases(3, [1, 2, 5]):
        model = _stack()
        before = _traces(model)
        wanted = {"0": (batch, 4), "1": (batch, 4), "2": (batch, 4), "3": (batch, 2)}
        case = f"shapes(model, torch.zeros({batch}, 3))"
        ask(lambda m=model, b=batch: _plain(shapes(m, torch.zeros(b, 3))), case=case).gives(wanted)
        ask(lambda m=model: _traces(m), case=f"the model after {case}").gives(before)
    for training in (True, False):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train(training)
        before = _traces(model)
        case = f"shapes of a model in {'training' if training else 'evaluation'} mode"
        ask(lambda m=model: _plain(shapes(m, torch.zeros(2, 3))), case=case).gives({"0": (2, 4), "1": (2, 4)})
        ask(lambda m=model: _traces(m), case=f"the model after {case}").gives(before)
    broken = _Fails()
    before = _traces(broken)

    def fails() -> dict[str, Any]:
        with contextlib.suppress(RuntimeError):
            shapes(broken, torch.zeros(2, 3))
        return _traces(broken)

    ask(fails, case="a model whose forward fails, afterwards").gives(before)


def _plain(found: Any) -> Any:
    return {name: tuple(shape) for name, shape in found.items()} if isinstance(found, dict) else found


def _watched(model: nn.Module, found: dict[str, Any]) -> list[Any]:
    def watch(name: str) -> Any:
        return lambda module, args, output: found.update({name: tuple(output.shape)})

    return [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if not list(m.children())]


def _leaves_hooks(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    modes = [m.training for m in model.modules()]
    _watched(model, found)
    try:
        model.eval()(x)
    finally:
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    return found


def _leaves_hooks_after_a_crash(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    modes = [m.training for m in model.modules()]
    handles = _watched(model, found)
    try:
        model.eval()(x)
    finally:
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
    for handle in handles:
        handle.remove()
    return found


def _in_training_mode(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    handles = _watched(model, found)
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _one_mode_for_all(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    mode = model.training
    handles = _watched(model, found)
    try:
        model.eval()(x)
    finally:
        model.train(mode)
        for handle in handles:
            handle.remove()
    return found


def _stays_in_eval(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    handles = _watched(model, found)
    try:
        model.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


shapes = Exercise(
    "27_shapes",
    _shapes_law,
    wrong=[
        Wrong(
            _leaves_hooks,
            "The hooks stay on the model. Each register_forward_hook gives a handle: call its remove().",
            "钩子（hook）留在了模型上。register_forward_hook 返回一个句柄：要调用它的 remove()。",
        ),
        Wrong(
            _leaves_hooks_after_a_crash,
            "When the model fails, the hooks stay, as after torchsummary. Remove them in finally.",
            "模型出错时钩子留了下来，和 torchsummary 一样。请在 finally 里移除。",
        ),
        Wrong(
            _in_training_mode,
            "The model ran in training mode: its batch norm has seen a batch of zeros.",
            "模型在训练模式下运行：批归一化把这个全零的批次也统计进去了。",
        ),
        Wrong(
            _one_mode_for_all,
            "model.train(mode) sets every module. Here one batch norm was in evaluation mode: note the mode of each module.",
            "model.train(mode) 会设置所有模块。这里有一个批归一化本来处于评估模式：请逐个记下每个模块的模式。",
        ),
        Wrong(
            _stays_in_eval,
            "The model stays in evaluation mode. Give each module back the mode that it had.",
            "模型停在了评估模式。请把每个模块原来的模式还给它。",
        ),
    ],
    hints=[
        ("A module without children has list(module.children()) == [].", "没有子模块的模块满足 list(module.children()) == []。"),
        (
            "Note {module: module.training} for model.modules() before eval().",
            "在 eval() 之前，为 model.modules() 记下 {module: module.training}。",
        ),
        (
            "try: model.eval()(x), and in finally: remove every handle, set every module.training.",
            "try 里写 model.eval()(x)；finally 里移除每个句柄，并恢复每个 module.training。",
        ),
    ],
)
