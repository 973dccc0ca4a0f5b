"""Lesson 12, pinning: torch's walk through a batch, and the pin_memory() of a batch type of one's own."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import torch
from torch.utils.data._utils.pin_memory import pin_memory as torch_pin

from tutorlib.exercises import Ask, Exercise, Wrong

Point = namedtuple("Point", "x y")


class Leaf:
    """Stands for a tensor where there is no accelerator: like a tensor's, its pin_memory() returns another object."""

    def __init__(self, number: int, pinned: bool = False) -> None:
        self.number, self.pinned = number, pinned

    def pin_memory(self) -> Leaf:
        return Leaf(self.number, pinned=True)

    def __repr__(self) -> str:
        return f"Leaf({self.number}{', pinned' if self.pinned else ''})"


def shown(value: Any) -> Any:
    """A batch as plain values: containers stay what they are, a leaf is its text."""
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {type(value).__name__: {name: shown(inner) for name, inner in zip(value._fields, value, strict=True)}}
    if isinstance(value, (list, tuple)):
        return type(value)(shown(inner) for inner in value)
    if isinstance(value, set):
        return "{" + ", ".join(sorted(map(repr, value))) + "}"
    return repr(value) if isinstance(value, Leaf) else value


# --- pin -----------------------------------------------------------------------------------------------------------------


def _batch(random: Random, depth: int = 2) -> Any:
    kind = random.choice(["list", "tuple", "Point", "dict", "leaf"] if depth else ["leaf", "leaf", "str", "int", "set"])
    inner = [_batch(random, depth - 1) for _ in range(2)] if kind in ("list", "tuple", "Point", "dict") else []
    made = {
        "list": inner,
        "tuple": tuple(inner),
        "Point": Point(*inner) if inner else None,
        "dict": dict(zip("ab", inner, strict=False)),
        "str": "ink",
        "int": random.randrange(10),
        "set": {Leaf(7)},
        "leaf": Leaf(random.randrange(10)),
    }
    return made[kind]


def _pins(pin: Any, ask: Ask) -> None:
    first = [Leaf(1), [Leaf(1), 2], (Leaf(1), Leaf(2)), {"a": Leaf(1)}, Point(Leaf(1), Leaf(2)), ["ink", None], [{Leaf(1)}]]
    for batch in [*first, *ask.cases(30, _batch)]:
        expected = {"result": shown(torch_pin(copy.deepcopy(batch))), "batch afterwards": shown(batch)}
        given = copy.deepcopy(batch)
        ask(
            lambda: {"result": shown(pin(given)), "batch afterwards": shown(given)},
            case=f"pin({batch!r})",
        ).gives(expected)


def _rules(data: Any, again: Any, *, named: bool = True, mapping: bool = True) -> Any:
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, str):
        return data
    if mapping and isinstance(data, Mapping):
        return {key: again(value) for key, value in data.items()}
    if named and hasattr(data, "_fields"):
        return type(data)(*(again(value) for value in data))
    if isinstance(data, Sequence):
        return type(data)(again(value) for value in data)  # type: ignore[call-arg]
    return data


def _plain_namedtuple(data: Any) -> Any:
    return _rules(data, _plain_namedtuple, named=False)


def _no_dicts(data: Any) -> Any:
    return _rules(data, _no_dicts, mapping=False)


def _into_strings(data: Any) -> Any:
    if isinstance(data, str):
        return [_into_strings(value) for value in data]
    return _rules(data, _into_strings)


def _any_iterable(data: Any) -> Any:
    if isinstance(data, Iterable) and not isinstance(data, (str, Mapping, Sequence)):
        return type(data)(_any_iterable(value) for value in data)  # type: ignore[call-arg]
    return _rules(data, _any_iterable)


def _lists(data: Any) -> Any:
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_lists(value) for value in data]
    return _rules(data, _lists)


def _in_place(data: Any) -> Any:
    if isinstance(data, list):
        for number, value in enumerate(data):
            data[number] = _in_place(value)
        return data
    if isinstance(data, dict):
        for key, value in data.items():
            data[key] = _in_place(value)
        return data
    return _rules(data, _in_place)


def _tensors_only(data: Any) -> Any:
    if hasattr(data, "pin_memory"):
        return data.pin_memory() if isinstance(data, torch.Tensor) else data
    return _rules(data, _tensors_only)


pin = Exercise(
    "12_pin",
    _pins,
    wrong=[
        Wrong(
            _plain_namedtuple,
            "A namedtuple takes its fields one by one: type(data)(*values). A plain tuple takes one iterable.",
            "具名元组要逐个接收字段：type(data)(*values)。普通元组接收一个可迭代对象。",
        ),
        Wrong(
            _no_dicts,
            "The values of a dict were not pinned: a mapping is no sequence and needs a rule of its own.",
            "字典的值没有锁页：映射不是序列，需要自己的规则。",
        ),
        Wrong(
            _into_strings,
            "A str is a sequence of str, each of which is a sequence again. Return it before you ask for a sequence.",
            "str 是由 str 组成的序列，里面每一个又是序列。先把它返回，再判断是不是序列。",
        ),
        Wrong(
            _any_iterable,
            "Torch leaves sets and generators alone: it asks for a sequence, not for an iterable.",
            "torch 不动集合和生成器：它判断的是序列，不是可迭代对象。",
        ),
        Wrong(
            _lists,
            "Every sequence became a list. Keep the type: a tuple stays a tuple.",
            "所有序列都变成了列表。要保住类型：元组仍是元组。",
        ),
        Wrong(
            _in_place,
            "The batch that was given has changed. Build new lists and dicts, as torch does.",
            "传入的批次变了。像 torch 那样新建列表和字典。",
        ),
        Wrong(
            _tensors_only,
            "A type of one's own with a pin_memory() counts like a tensor: ask hasattr(data, 'pin_memory').",
            "自定义类型只要有 pin_memory()，就与张量一样对待：用 hasattr(data, 'pin_memory') 判断。",
        ),
    ],
    hints=[
        (
            "Five questions in this order: has it pin_memory? is it a str? a dict? a namedtuple? a list or tuple? Else leave it.",
            "按这个顺序问五个问题：有 pin_memory 吗？是 str 吗？字典？具名元组？列表或元组？否则原样返回。",
        ),
        (
            "For a container, call `pin` for each value and build the same type again: type(data)(...).",
            "遇到容器，对每个值调用 `pin`，再造一个同类型的：type(data)(...)。",
        ),
        (
            "dict: {key: pin(value) for key, value in data.items()}; namedtuple: type(data)(*map(pin, data)); "
            "list or tuple: type(data)(map(pin, data)).",
            "字典：{key: pin(value) for key, value in data.items()}；具名元组：type(data)(*map(pin, data))；"
            "列表或元组：type(data)(map(pin, data))。",
        ),
    ],
)


# --- pin_batch -----------------------------------------------------------------------------------------------------------


class Padded:
    """A batch type of one's own, as in the lesson."""

    def __init__(self, values: Any, lengths: Any, names: list[str]) -> None:
        self.values, self.lengths, self.names = values, lengths, names


def _told(answer: Any) -> Any:
    if isinstance(answer, Padded):
        return {"Padded": [repr(answer.values), repr(answer.lengths), answer.names]}
    return shown(answer)


def _pins_its_fields(pin_batch: Any, ask: Ask) -> None:
    for first, second in ask.cases(12, range(10), range(10)):
        names = [f"{first}.png", f"{second}.png"]
        expected = {"Padded": [f"Leaf({first}, pinned)", f"Leaf({second}, pinned)", names]}
        case = f"pin_batch(Padded(Leaf({first}), Leaf({second}), {names}))"
        ask(pin_batch, Padded(Leaf(first), Leaf(second), list(names)), case=case, then=_told).gives(expected)


def _forgets(batch: Any) -> Any:
    batch.values, batch.lengths = batch.values.pin_memory(), batch.lengths.pin_memory()


def _not_kept(batch: Any) -> Any:
    batch.values.pin_memory()
    batch.lengths.pin_memory()
    return batch


def _values_only(batch: Any) -> Any:
    batch.values = batch.values.pin_memory()
    return batch


def _a_tuple(batch: Any) -> Any:
    return batch.values.pin_memory(), batch.lengths.pin_memory(), batch.names


def _every_field(batch: Any) -> Any:
    for name, value in vars(batch).items():
        setattr(batch, name, value.pin_memory())
    return batch


pin_batch = Exercise(
    "12_pin_batch",
    _pins_its_fields,
    wrong=[
        Wrong(
            _forgets,
            "The method returns nothing, so None replaces the batch. End with `return batch`.",
            "方法没有返回值，于是 None 取代了批次。最后要写 `return batch`。",
        ),
        Wrong(
            _not_kept,
            "The pinned tensors were thrown away: pin_memory() returns a copy. Assign it: batch.values = ...",
            "锁页后的张量丢掉了：pin_memory() 返回一个副本。要赋值：batch.values = ...",
        ),
        Wrong(
            _values_only,
            "The lengths are still in ordinary memory.",
            "lengths 仍在普通内存里。",
        ),
        Wrong(
            _a_tuple,
            "A tuple took the place of the batch: the loop would find no `batch.values`. Return the batch itself.",
            "元组取代了批次：循环里就没有 `batch.values` 了。请返回批次本身。",
        ),
        Wrong(
            _every_field,
            "`names` is a list of str, and a list has no pin_memory(). Pin the two tensors only.",
            "`names` 是字符串的列表，列表没有 pin_memory()。只给两个张量锁页。",
        ),
    ],
    hints=[
        (
            "Two tensors are to be pinned. What does `tensor.pin_memory()` change, and what does it return?",
            "有两个张量要锁页。`tensor.pin_memory()` 改变了什么，又返回什么？",
        ),
        (
            "It changes nothing and returns a copy: batch.values = batch.values.pin_memory(). What must the method return?",
            "它什么也不改，返回一个副本：batch.values = batch.values.pin_memory()。方法应该返回什么？",
        ),
    ],
)
