"""Lesson 21: what of another model's state fits, and a load that leaves the model alone when it fails."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tutorlib.exercises import Ask, Exercise, Wrong

_SHAPES = [(2,), (3,), (2, 3), (3, 2), (6,)]


def _model(shapes: dict[str, tuple[int, ...]]) -> nn.ParameterDict:
    return nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})


def _shapes(random: Any) -> dict[str, tuple[int, ...]]:
    names = random.sample(["body_weight", "body_bias", "head_weight", "head_bias"], random.randint(1, 4))
    return {name: random.choice(_SHAPES) for name in names}


def _fitting_law(fitting: Any, ask: Ask) -> None:
    simplest = {"head_bias": (2,)}, {"head_bias": (3,)}
    for there, here in [simplest, *ask.cases(25, _shapes, _shapes)]:
        model = _model(here)
        state = {name: torch.ones(shape) for name, shape in there.items()}
        expected = sorted(name for name, shape in there.items() if here.get(name) == shape)
        case = f"fitting(state of {there}, model of {here})"

        def found(state: Any = state, model: nn.Module = model) -> Any:
            return fitting(state, model)

        kept = ask(found, case=case, then=_names).gives(expected)
        ask(lambda state=state: len(state), case=f"entries of the state after {case}").gives(len(there))

        def loads(found: Any = found, model: nn.Module = model, kept: Any = kept) -> Any:
            model.load_state_dict(found(), strict=False)
            return sorted(name for name, value in model.state_dict().items() if value.eq(1).all())

        ask(loads, case=f"parts loaded after load_state_dict({case}, strict=False)").gives(expected)


def _names(found: Any) -> Any:
    return sorted(found) if isinstance(found, dict) else type(found).__name__


def _by_name(state: Any, model: Any) -> dict[str, Any]:
    ours = model.state_dict()
    return {name: value for name, value in state.items() if name in ours}


def _by_size(state: Any, model: Any) -> dict[str, Any]:
    ours = model.state_dict()
    return {name: value for name, value in state.items() if name in ours and value.numel() == ours[name].numel()}


def _by_shape(state: Any, model: Any) -> dict[str, Any]:
    shapes = {tuple(value.shape) for value in model.state_dict().values()}
    return {name: value for name, value in state.items() if tuple(value.shape) in shapes}


def _other_way(state: Any, model: Any) -> dict[str, Any]:
    ours = model.state_dict()
    return {name: value for name, value in ours.items() if name in state and state[name].shape == value.shape}


fitting = Exercise(
    "21_fitting",
    _fitting_law,
    wrong=[
        Wrong(
            _by_name,
            "The name fits, the shape does not: load_state_dict raises a size mismatch, even with strict=False.",
            "名字对得上，形状对不上：即使 strict=False，load_state_dict 也会报 size mismatch。",
        ),
        Wrong(
            _by_size,
            "As many values, but another shape: (2, 3) and (6,) are different for load_state_dict. Compare the shapes.",
            "元素个数相同，形状却不同：对 load_state_dict 来说 (2, 3) 与 (6,) 不是一回事。请比较形状。",
        ),
        Wrong(
            _by_shape,
            "The shape occurs somewhere in the model, but under another name. Compare with the entry of the same name.",
            "模型里有这个形状，但不在这个名字下。请与同名的那一项比较。",
        ),
        Wrong(
            _other_way,
            "These are the model's own values. Give the entries of the state.",
            "这些是模型自己的值。请返回状态里的条目。",
        ),
    ],
    hints=[
        (
            "What must be equal for torch to copy an entry: its name, and what else?",
            "torch 要复制一项，除了名字，还有什么必须相同？",
        ),
        ("model.state_dict() gives the model's entries by name.", "model.state_dict() 按名字给出模型的各项。"),
        (
            "Keep an entry if `name in ours and ours[name].shape == value.shape`.",
            "满足 `name in ours and ours[name].shape == value.shape` 的才保留。",
        ),
    ],
)


def _careful_law(careful_load: Any, ask: Ask) -> None:
    full = {"body_weight": (2, 3), "head_weight": (2,)}
    for kind, first in ask.cases(8, ["whole", "missing", "shape", "unexpected"], [1.0, 2.0, 3.0]):
        model = _model(full)
        with torch.no_grad():
            for value in model.parameters():
                value.fill_(first)
        state = {name: torch.full(shape, 9.0) for name, shape in full.items()}
        if kind == "missing":
            del state["head_weight"]
        elif kind == "shape":
            state["head_weight"] = torch.full((5,), 9.0)
        elif kind == "unexpected":
            state["more"] = torch.ones(1)
        objects, names = _places(model), list(state)
        case = f"careful_load(model of {first:g}s, state of 9s: {kind})"

        def outcome(model: nn.Module = model, state: Any = state) -> str:
            try:
                careful_load(model, state)
            except RuntimeError:
                return "RuntimeError"
            return "loads"

        ask(outcome, case=case).gives("loads" if kind == "whole" else "RuntimeError")
        ask(_values, model, case=f"values after {case}").gives([9.0] if kind == "whole" else [first])
        ask(_are, model, objects, case=f"the same parameters after {case}").gives(True)
        ask(list, state, case=f"names of the state after {case}").gives(names)


def _values(model: nn.Module) -> list[float]:
    return sorted({value for parameter in model.parameters() for value in parameter.flatten().tolist()})


def _places(model: nn.Module) -> list[int]:
    return [id(value) for value in model.parameters()]


def _are(model: nn.Module, objects: list[int]) -> bool:
    return _places(model) == objects


def _alias(model: Any, state: Any) -> None:
    before = model.state_dict()
    try:
        model.load_state_dict(state)
    except RuntimeError:
        model.load_state_dict(before)
        raise


def _silent(model: Any, state: Any) -> None:
    before = copy.deepcopy(model.state_dict())
    try:
        model.load_state_dict(state)
    except RuntimeError:
        model.load_state_dict(before)


def _lenient(model: Any, state: Any) -> None:
    before = copy.deepcopy(model.state_dict())
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError:
        model.load_state_dict(before)
        raise


careful_load = Exercise(
    "21_careful_load",
    _careful_law,
    wrong=[
        Wrong(
            _alias,
            "The load failed, and half of the model has the new values. A kept state_dict() is no help: it holds the live "
            "weights and changes along with the model. Make a copy.",
            "加载失败了，模型却有一半换成了新值。留下 state_dict() 没有用：里面就是模型正在用的权重，会跟着变。请做一份复制。",
        ),
        Wrong(
            _silent,
            "The model is as before, but nobody learns that the load failed: raise the error again.",
            "模型恢复了原样，但没人知道加载失败：请把错误再次抛出。",
        ),
        Wrong(
            _lenient,
            "With strict=False a state that lacks names is loaded without a word. Load strictly.",
            "strict=False 时，缺了名字的状态也会悄悄装进去。请用严格模式加载。",
        ),
    ],
    hints=[
        ("What do you need to bring back, and when must you take it?", "要恢复什么？必须在什么时候留下它？"),
        (
            "state_dict() is alive: copy.deepcopy(model.state_dict()) is not.",
            "state_dict() 会跟着模型变，copy.deepcopy(model.state_dict()) 不会。",
        ),
        (
            "try: load; except RuntimeError: load the copy, then `raise`.",
            "try 里加载；except RuntimeError 里装回复制，再 `raise`。",
        ),
    ],
)
