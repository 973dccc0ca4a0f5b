"""Lesson 16, state_dict: your own state_dict, whose memory a state is, and which parameter an optimizer's position means."""

from __future__ import annotations

import copy
from functools import partial
from random import Random
from typing import Any

import torch
from torch import nn

from tutorlib.exercises import Ask, Exercise, Wrong


def _model(random: Random) -> nn.Sequential:
    """A small model of two to four layers, some with buffers, some with nothing to store."""
    kinds = {
        "linear": lambda: nn.Linear(2, 2),
        "norm": lambda: nn.BatchNorm1d(2),
        "plain norm": lambda: nn.BatchNorm1d(2, affine=False),
        "relu": nn.ReLU,
    }
    return nn.Sequential(nn.Linear(2, 2), *(kinds[random.choice(list(kinds))]() for _ in range(random.randint(1, 3))))


def _text(model: nn.Sequential) -> str:
    names = ", ".join(type(layer).__name__ for layer in model)
    return f"Sequential({names})"


# --- my_state_dict -------------------------------------------------------------------------------------------------------


def _own_state_law(my_state_dict: Any, ask: Ask) -> None:
    models = [
        nn.Sequential(nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)),
        *(_model(ask.random) for _ in range(10)),
    ]
    for model in models:
        case = f"my_state_dict({_text(model)})"
        expected = model.state_dict()
        ask(my_state_dict, model, case=f"keys of {case}", then=_keys).gives(sorted(expected))
        ask(my_state_dict, model, case=f"requires_grad in {case}", then=_wanting).gives([])
        ask(my_state_dict, model, case=f"copied in {case}", then=partial(_copied, expected=expected)).gives([])


def _keys(found: Any) -> Any:
    return sorted(found) if isinstance(found, dict) else type(found).__name__


def _wanting(found: Any) -> Any:
    return sorted(key for key, value in found.items() if value.requires_grad)


def _copied(found: Any, expected: Any) -> Any:
    return sorted(key for key, value in found.items() if value.data_ptr() != expected[key].data_ptr())


def _parameters_only(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def _with_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _clones(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in _with_gradients(model).items()}


own_state = Exercise(
    "16_my_state_dict",
    _own_state_law,
    wrong=[
        Wrong(
            _parameters_only,
            "The buffers are missing, such as the running mean of batch norm. named_buffers() gives them.",
            "少了缓冲区，例如批归一化的 running_mean。用 named_buffers() 取到它们。",
        ),
        Wrong(
            _with_gradients,
            "The values still want gradients: a state_dict holds value.detach().",
            "这些值仍然需要梯度：state_dict 里放的是 value.detach()。",
        ),
        Wrong(
            _clones,
            "These are copies. torch's state_dict holds the model's own memory: leave .clone() out.",
            "这些是复制。torch 的 state_dict 里就是模型自己的内存：去掉 .clone()。",
        ),
    ],
    hints=[
        (
            "Two methods of a module give names and tensors: named_parameters() and named_buffers().",
            "模块有两个方法同时给出名字和张量：named_parameters() 和 named_buffers()。",
        ),
        (
            "value.detach() is the same memory without a gradient.",
            "value.detach() 是同一块内存，只是不再需要梯度。",
        ),
        (
            "held = [*model.named_parameters(), *model.named_buffers()]; then {name: value.detach() for name, value in held}.",
            "held = [*model.named_parameters(), *model.named_buffers()]，再写 {name: value.detach() for name, value in held}。",
        ),
    ],
)


# --- alive ---------------------------------------------------------------------------------------------------------------


def _alive_law(alive: Any, ask: Ask) -> None:
    kept = ["model.state_dict()", "copy.deepcopy(model.state_dict())", "half of it cloned"]
    for how in kept * 4:
        model = _model(ask.random)
        state: dict[str, Any] = model.state_dict()
        if how == kept[1]:
            state = copy.deepcopy(state)
        elif how == kept[2]:
            state = {key: value.clone() if number % 2 else value for number, (key, value) in enumerate(state.items())}
        own = {key: value.data_ptr() for key, value in model.state_dict().items()}
        expected = sorted(key for key, value in state.items() if value.data_ptr() == own[key])
        ask(alive, model, state, case=f"alive(model, {how}), model = {_text(model)}", then=_sorted).gives(expected)


def _sorted(found: Any) -> Any:
    return sorted(found) if isinstance(found, (list, tuple, set, dict)) else found


def _equal_values(model: nn.Module, state: Any) -> list[str]:
    return [key for key, value in model.state_dict().items() if torch.equal(value, state[key])]


def _same_objects(model: nn.Module, state: Any) -> list[str]:
    live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return [key for key, value in state.items() if value is live[key]]


def _live_parameters_only(model: nn.Module, state: Any) -> list[str]:
    return [key for key, value in model.named_parameters() if value.data_ptr() == state[key].data_ptr()]


alive = Exercise(
    "16_alive",
    _alive_law,
    wrong=[
        Wrong(
            _equal_values,
            "A copy has equal values too. Ask for the memory: value.data_ptr().",
            "复制的值也相等。要比较的是内存：value.data_ptr()。",
        ),
        Wrong(
            _same_objects,
            "`is` compares Python objects. state_dict() makes new ones each time, over the same memory: compare data_ptr().",
            "`is` 比较的是 Python 对象。state_dict() 每次都造新对象，内存却是同一块：请比较 data_ptr()。",
        ),
        Wrong(
            _live_parameters_only,
            "The buffers are left out: compare with model.state_dict(), which holds both.",
            "漏掉了缓冲区：请与 model.state_dict() 比较，它两样都有。",
        ),
    ],
    hints=[
        ("Which number says where a tensor's values lie in memory?", "哪个数说明一个张量的值放在内存的什么位置？"),
        (
            "tensor.data_ptr() is that address. Two tensors over one memory have the same.",
            "tensor.data_ptr() 就是地址；同一块内存上的两个张量地址相同。",
        ),
        (
            "Walk over model.state_dict().items() and keep the keys with value.data_ptr() == state[key].data_ptr().",
            "遍历 model.state_dict().items()，留下 value.data_ptr() == state[key].data_ptr() 的键。",
        ),
    ],
)


# --- positions -----------------------------------------------------------------------------------------------------------


def _positions_law(positions: Any, ask: Ask) -> None:
    for number in range(8):
        model = _model(ask.random) if number else nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        named = list(model.named_parameters())
        ask.random.shuffle(named)
        if number == 0:
            named = list(model.named_parameters())
        elif number == 1:
            named.sort(key=lambda pair: pair[0].endswith("weight"))  # biases first
        cut = ask.random.randint(1, len(named) - 1) if number > 1 else len(named)
        groups = [group for group in (named[:cut], named[cut:]) if group]
        optimizer = torch.optim.SGD([{"params": [value for _, value in group]} for group in groups], lr=0.1)
        expected = {position: name for position, (name, _) in enumerate(named)}
        said = " and ".join(str([name for name, _ in group]) for group in groups)
        ask(positions, model, optimizer, case=f"positions(model, optimizer of {said})", then=_plain).gives(expected)


def _plain(found: Any) -> Any:
    return dict(enumerate(found)) if isinstance(found, (list, tuple)) else found


def _names(model: nn.Module) -> dict[int, str]:
    return {id(value): name for name, value in model.named_parameters()}


def _models_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    return {position: name for position, (name, _) in enumerate(model.named_parameters())}


def _first_group(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    names = _names(model)
    return {position: names[id(value)] for position, value in enumerate(optimizer.param_groups[0]["params"])}


def _starts_again(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    names = _names(model)
    return {n: names[id(value)] for group in optimizer.param_groups for n, value in enumerate(group["params"])}


positions = Exercise(
    "16_positions",
    _positions_law,
    wrong=[
        Wrong(
            _models_order,
            "This is the model's order. A position counts in the order in which the optimizer was given its parameters.",
            "这是模型里的顺序。位置是按参数交给优化器的顺序来数的。",
        ),
        Wrong(
            _first_group,
            "Only the first group was counted. The positions go on through all of optimizer.param_groups.",
            "只数了第一组。位置要一直数过 optimizer.param_groups 的所有组。",
        ),
        Wrong(
            _starts_again,
            "Each group starts again at 0, and the later one overwrites the earlier. Count on.",
            "每一组都从 0 数起，后面的盖掉了前面的。请接着数。",
        ),
    ],
    hints=[
        (
            "optimizer.param_groups holds the parameters themselves, group by group. The model knows their names.",
            "optimizer.param_groups 一组一组地装着参数本身；名字在模型那里。",
        ),
        (
            "Make a table of names first: {id(value): name for name, value in model.named_parameters()}.",
            "先做一张名字表：{id(value): name for name, value in model.named_parameters()}。",
        ),
        (
            "given = [value for group in optimizer.param_groups for value in group['params']]; then enumerate(given).",
            "given = [value for group in optimizer.param_groups for value in group['params']]，再用 enumerate(given)。",
        ),
    ],
)
