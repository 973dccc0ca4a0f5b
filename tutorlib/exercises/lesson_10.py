"""Exercises of lesson 10: how things travel to a worker that is no clone."""

from __future__ import annotations

import functools
import math
import operator
import pickle
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from tutorlib import datasets, trace
from tutorlib.exercises import Ask, Exercise, Wrong


def _travel(thing: Any) -> Any:
    """What a worker would hold: the thing, pickled and opened again."""
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 - bytes made on the same line


# --- 1: by reference, by value, refused ----------------------------------------------------------------------------------


def _things(ask: Ask) -> dict[str, Any]:
    numbers = [ask.random.randrange(100) for _ in range(3)]
    key = ask.random.choice(["image", "label"])

    def inner() -> None: ...

    return {
        "len": len,
        "math.sqrt": math.sqrt,
        "default_collate": default_collate,
        "the class Dataset": Dataset,
        f"{numbers}": list(numbers),
        f"{{{key!r}: {numbers[0]}}}": {key: numbers[0]},
        f"itemgetter({numbers[1] % 3})": operator.itemgetter(numbers[1] % 3),
        f"partial(max, {numbers[2]})": functools.partial(max, numbers[2]),
        "a lambda": lambda samples: samples[0],
        "a lock": threading.Lock(),
        "a function made inside a function": inner,
        "a generator": (number for number in numbers),
        f"the array {numbers}": np.array(numbers),
        f"the tensor {numbers}": torch.tensor(numbers),
    }


def _how_it_travels(answer: Any, ask: Ask) -> None:
    for name, thing in _things(ask).items():
        expected = trace.pickled(thing=thing).rows()[0]["travels"]
        ask(answer, thing, case=f"how_it_travels({name})").gives(expected)


def _always_copied(thing: Any) -> str:
    try:
        pickle.dumps(thing)
    except Exception:
        return "refused"
    return "by value"


def _by_callable(thing: Any) -> str:
    try:
        pickle.dumps(thing)
    except Exception:
        return "refused"
    return "by reference" if callable(thing) else "by value"


def _by_equality(thing: Any) -> str:
    try:
        return "by reference" if _travel(thing) == thing else "by value"
    except Exception:
        return "refused"


def _narrow(thing: Any) -> str:
    try:
        return "by reference" if _travel(thing) is thing else "by value"
    except pickle.PicklingError:
        return "refused"


how_it_travels = Exercise(
    "10_how_it_travels",
    _how_it_travels,
    wrong=[
        Wrong(
            _always_copied,
            "Not everything that pickle accepts arrives as a copy. Of len only the name travels; the worker has its own len.",
            "pickle 接受的东西并不都以副本到达。len 只传名字，工作进程找到的是它自己的 len。",
        ),
        Wrong(
            _by_callable,
            "An object can be called and still travel by value: partial(max, 3) and itemgetter(0) carry their arguments along.",
            "能调用的对象也可能按值传递：partial(max, 3) 和 itemgetter(0) 会带上自己的参数。",
        ),
        Wrong(
            _by_equality,
            "A copy of a list equals the list. Ask for the same object with `is`, not for an equal one with `==`.",
            "列表的副本与列表相等。要用 `is` 问是不是同一个对象，而不是用 `==` 问是否相等。",
        ),
        Wrong(
            _narrow,
            "A refusal is not always a PicklingError: a lock raises TypeError, an inner function AttributeError before 3.14.",
            "拒绝时抛出的不都是 PicklingError：锁抛出 TypeError，内层函数在 Python 3.14 之前抛出 AttributeError。",
        ),
    ],
    hints=[
        (
            "Do what a loader does: pickle the thing, and open the parcel again.",
            "照加载器的做法：先把东西序列化，再把包裹打开。",
        ),
        (
            "What was only named is found again, so it is the very same object. What was copied is a new one.",
            "只传名字的东西会被重新找到，所以正是同一个对象。复制过的则是新对象。",
        ),
        (
            "try: arrived = pickle.loads(pickle.dumps(thing)). Any exception means refused; then look at `arrived is thing`.",
            "try: arrived = pickle.loads(pickle.dumps(thing))。出现任何异常就是 refused；然后看 `arrived is thing`。",
        ),
    ],
)


# --- 2: a collate function with a setting --------------------------------------------------------------------------------


def _scaler(answer: Any, ask: Ask) -> None:
    cases = ask.cases(8, range(2, 10), lambda random: [random.randrange(20) for _ in range(random.randrange(2, 5))])
    for factor, samples in cases:
        case, right = f"make_scaler({factor})({samples})", [sample * factor for sample in samples]
        made = ask(lambda f=factor, s=samples: answer(f)(list(s)), case=case).satisfies(torch.is_tensor, "a tensor")
        ask(made, case=case).gives(right)
        ask(lambda f=factor, s=samples: _travel(answer(f))(list(s)), case=f"{case}, after pickle").gives(right)
    (one, samples), (other, _) = cases[0], (cases[0][0] + 1, None)

    def both() -> Any:
        first = answer(one)
        answer(other)
        return first(list(samples))

    ask(both, case=f"a, b = make_scaler({one}), make_scaler({other}); a({samples})").gives([sample * one for sample in samples])


def _closure(factor: int) -> Any:
    def scale(samples: list[int]) -> torch.Tensor:
        return default_collate(samples) * factor

    return scale


class _RepeatedList:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, samples: list[int]) -> torch.Tensor:
        return default_collate(samples * self.factor)


class _PlainList:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, samples: list[int]) -> list[int]:
        return [sample * self.factor for sample in samples]


_factor = 1


def _by_global(samples: list[int]) -> torch.Tensor:
    return default_collate(samples) * _factor


def _sets_global(factor: int) -> Any:
    global _factor
    _factor = factor
    return _by_global


scaler = Exercise(
    "10_scaler",
    _scaler,
    wrong=[
        Wrong(
            _closure,
            "A function made inside a function (a lambda too, even inside an attribute) has no name that a worker could import.",
            "在函数里造的函数（lambda 也算，放在属性里也一样）没有工作进程能导入的名字。",
        ),
        Wrong(
            _RepeatedList,
            "samples is a list, and a list times 2 is the list twice. Collate first, then multiply the tensor.",
            "samples 是列表，列表乘 2 是把列表重复两遍。先整理成张量，再相乘。",
        ),
        Wrong(
            _PlainList,
            "The numbers are right, but a batch is a tensor: finish with default_collate.",
            "数字对了，但批次应当是张量：最后用 default_collate。",
        ),
        Wrong(
            _sets_global,
            "A global is shared by all scalers, and a spawn worker starts with its first value. Keep the factor in the object.",
            "模块的全局变量由所有 scaler 共用，spawn 工作进程看到的还是它的初始值。把 factor 放进对象。",
        ),
    ],
    hints=[
        (
            "What travels by value? An object of a class at the top level takes its attributes along.",
            "什么按值传递？顶层的类的对象会带上自己的属性。",
        ),
        (
            "Write a class with __init__(self, factor) and __call__(self, samples), above make_scaler.",
            "在 make_scaler 上面写一个类，带 __init__(self, factor) 和 __call__(self, samples)。",
        ),
        (
            "__call__ returns default_collate(samples) * self.factor. functools.partial of a top-level function does it as well.",
            "__call__ 返回 default_collate(samples) * self.factor。对顶层函数用 functools.partial 也可以。",
        ),
    ],
)


# --- 3: leave the connection at home -------------------------------------------------------------------------------------


class _Late:
    """The lesson's dataset: opens its connection at the first read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if self.connection is None:
            self.connection = sqlite3.connect(self.path)
        return self.connection.execute("SELECT label FROM digits ORDER BY key LIMIT 1 OFFSET ?", [index]).fetchone()[0]


def _reader(answer: Any, ask: Ask) -> None:
    labels = datasets.digits("test").labels.tolist()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = str(datasets.write_sqlite(Path(folder, "digits.sqlite"), "test"))
        here, there = ask.random.sample(range(4), 2)
        ask(lambda: answer(path)[here], case=f"Reader(path)[{here}]").gives(labels[here])
        ask(lambda: _travel(answer(path))[there], case=f"a fresh reader, pickled: [{there}]").gives(labels[there])

        reader = answer(path)
        ask(lambda: reader[here], case=f"reader[{here}]").gives(labels[here])
        before = getattr(reader, "connection", None)
        ask(lambda: _travel(reader)[there], case=f"reader[{here}] was read, pickled: [{there}]").gives(labels[there])
        ask(lambda: reader[there], case=f"the reader that stays: [{there}]").gives(labels[there])
        kept = getattr(reader, "connection", None) is before
        ask(lambda: kept, case="the reader that stays kept its connection").gives(True)
        if before is not None:
            before.close()


class _MendedTooLate(_Late):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.connection = None


class _SharedDict(_Late):
    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__
        state["connection"] = None
        return state


class _Deleted(_Late):
    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["connection"]
        return state


class _Closed(_Late):
    def __getstate__(self) -> dict[str, Any]:
        if self.connection is not None:
            self.connection.close()
        return {**self.__dict__, "connection": None}


class _PathOnly(_Late):
    def __getstate__(self) -> Any:
        return self.path


reader = Exercise(
    "10_reader",
    _reader,
    wrong=[
        Wrong(
            _MendedTooLate,
            "After one read the connection is in the object, and pickle refuses it. Act where it is packed: __getstate__.",
            "读过一次，连接就在对象里，pickle 拒绝打包。要在打包的一侧处理：__getstate__。",
        ),
        Wrong(
            _SharedDict,
            "self.__dict__ is no copy: the reader that stays has lost its connection. Copy it first: {**self.__dict__, ...}.",
            "self.__dict__ 不是副本：留下来的 reader 丢了连接。先复制：{**self.__dict__, ...}。",
        ),
        Wrong(
            _Deleted,
            "The reader that arrives has no attribute connection at all. Send None in its place.",
            "到达的 reader 连 connection 这个属性都没有。用 None 代替它。",
        ),
        Wrong(
            _Closed,
            "Do not close the connection: the reader that stays still needs it. Leave it out of what travels.",
            "不要关闭连接：留下来的 reader 还要用。只要不把它带走。",
        ),
        Wrong(
            _PathOnly,
            "__getstate__ returns a dictionary of attributes. With the path alone, the object arrives without them.",
            "__getstate__ 要按名字返回属性，即一个字典。只给 path，到达的对象得不到属性。",
        ),
    ],
    hints=[
        (
            "Pickle asks an object for its state. Add a method __getstate__ to Reader.",
            "pickle 会向对象索取状态。给 Reader 加一个 __getstate__ 方法。",
        ),
        (
            "The state is a dictionary: a copy of self.__dict__, with another value for one key.",
            "状态是一个字典：self.__dict__ 的副本，其中一个键换一个值。",
        ),
        (
            'It is one line: return {**self.__dict__, "connection": None}',
            '只要一行：return {**self.__dict__, "connection": None}',
        ),
    ],
)
