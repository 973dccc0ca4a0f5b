"""Lesson 18: plain values that torch.load admits, and files that hold no more than they show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutorlib.exercises import Ask, Exercise, Wrong


def _back(value: Any) -> Any:
    """What torch.load makes of a saved value, as plain values with the names of their types; or the error's name."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    try:
        return _told(torch.load(file, weights_only=True))
    except Exception as error:
        return type(error).__name__


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _told(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_told(inner) for inner in value]
    if isinstance(value, torch.Tensor):
        return f"tensor {value.tolist()}"
    return f"{type(value).__name__} {value}"


_LEAVES = [
    (lambda: np.float64(0.5), "np.float64(0.5)", "float 0.5"),
    (lambda: np.int64(3), "np.int64(3)", "int 3"),
    (lambda: np.bool_(True), "np.bool_(True)", "bool True"),
    (lambda: np.arange(2), "np.arange(2)", "tensor [0, 1]"),
    (lambda: Path("a"), "Path('a')", "str a"),
    (lambda: 7, "7", "int 7"),
    (lambda: "x", "'x'", "str x"),
    (lambda: torch.ones(1), "torch.ones(1)", "tensor [1.0]"),
]
_SHAPES = [
    (lambda leaf: leaf, "{}", lambda told: told),
    (lambda leaf: {"loss": leaf}, "{{'loss': {}}}", lambda told: {"loss": told}),
    (lambda leaf: [1, leaf], "[1, {}]", lambda told: ["int 1", told]),
    (lambda leaf: {"log": [{"loss": leaf}]}, "{{'log': [{{'loss': {}}}]}}", lambda told: {"log": [{"loss": told}]}),
]


def _plain_law(plain: Any, ask: Ask) -> None:
    for made, name, told in _LEAVES:
        for wrap, shape, expected in _SHAPES:
            text = shape.format(name)
            ask(lambda made=made, wrap=wrap: _back(plain(wrap(made()))), case=f"torch.load of plain({text})").gives(
                expected(told)
            )


def _only_top(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _leaf(inner) for key, inner in value.items()}
    return _leaf(value)


def _leaf(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return str(value) if isinstance(value, Path) else value


def _deep(leaf: Any) -> Any:
    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list) else leaf(value)

    return walk


plain = Exercise(
    "18_plain",
    _plain_law,
    wrong=[
        Wrong(
            lambda value: value,
            "The value goes into the file as it is. torch.save takes it, torch.load refuses the whole file.",
            "值原样进了文件。torch.save 照收，torch.load 却拒绝整个文件。",
        ),
        Wrong(
            _only_top,
            "Only the first level is looked at. Call plain itself for what lies in a dictionary or a list.",
            "只看了第一层。字典和列表里面的值，要对它们再次调用 plain。",
        ),
        Wrong(
            _deep(lambda value: float(value) if isinstance(value, np.generic) else _leaf(value)),
            "Every NumPy number becomes a float, whole numbers and truth values too. .item() keeps the kind.",
            "所有 NumPy 的数都变成了 float，整数和真假值也不例外。.item() 会保留种类。",
        ),
        Wrong(
            _deep(lambda value: value.tolist() if isinstance(value, np.ndarray) else _leaf(value)),
            "The array becomes a list. torch.from_numpy makes a tensor of it.",
            "数组变成了列表。torch.from_numpy 能把它变成张量。",
        ),
        Wrong(
            _deep(lambda value: value if isinstance(value, Path) else _leaf(value)),
            "The paths are still there: torch.load does not admit them. Store str(path).",
            "路径还在：torch.load 不放行它们。请存 str(path)。",
        ),
    ],
    hints=[
        (
            "Which kinds of value lie in a dictionary? Ask with isinstance, one after the other.",
            "字典里有哪几种值？用 isinstance 逐个询问。",
        ),
        (
            "For a dictionary: {key: plain(inner) for key, inner in value.items()}.",
            "对字典：{key: plain(inner) for key, inner in value.items()}。",
        ),
        (
            "np.generic is the class of all NumPy numbers; its .item() gives the Python number.",
            "np.generic 是所有 NumPy 数的父类，.item() 给出 Python 的数。",
        ),
    ],
)


def _stored(state: Any) -> Any:
    """Bytes of all storages of a dictionary of tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values() if t.numel()}
    return sum(storages.values())


def _small_law(small: Any, ask: Ask) -> None:
    for rows, first, many in ask.cases(8, range(4, 9), range(0, 3), range(1, 3)):
        big = torch.arange(rows * 4.0).view(rows, 4)
        cuts = {"rows": big[first : first + many], "column": big[:, 1], "own": torch.ones(2)}
        case = f"small of {many} of {rows} rows, a column and a tensor of its own"
        ask(lambda cuts=cuts: sorted(small(dict(cuts))), case=f"keys after {case}").gives(sorted(cuts))
        for key, tensor in cuts.items():
            ask(lambda cuts=cuts, key=key: small(dict(cuts))[key], case=f"{key} after {case}").gives(tensor.tolist())
        exact = sum(tensor.nbytes for tensor in cuts.values())
        ask(lambda cuts=cuts: _stored(small(dict(cuts))), case=f"bytes stored after {case}").gives(exact)


small = Exercise(
    "18_small",
    _small_law,
    wrong=[
        Wrong(
            lambda state: dict(state),
            "The tensors are still windows on the large one: the file stores all of it.",
            "这些张量仍是看向大张量的窗口：文件会存下整个大张量。",
        ),
        Wrong(
            lambda state: {key: tensor.contiguous() for key, tensor in state.items()},
            "contiguous() copies only what is not contiguous: some rows of a matrix are, and stay a view.",
            "contiguous() 只复制不连续的张量：矩阵的若干行本来就连续，仍旧是视图。",
        ),
    ],
    hints=[
        ("Which method of a tensor always makes a copy?", "张量的哪个方法一定会复制？"),
        (
            "tensor.clone() has a storage of its own, just as large as the tensor.",
            "tensor.clone() 有自己的存储，大小与张量相同。",
        ),
    ],
)
