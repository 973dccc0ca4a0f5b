"""Lesson 02: a batch read by one query, and two datasets joined."""

from __future__ import annotations

import sqlite3
from random import Random
from typing import Any

from torch.utils.data import ConcatDataset

from tutorlib.exercises import Ask, Exercise, Wrong

# --- read_batch ----------------------------------------------------------------------------------------------------------


def _batch_law(read_batch: Any, ask: Ask) -> None:
    """A real table of ten digits; keys `k0` to `k9`, of which `k9` was never written."""
    labels = {f"k{number}": (number * 7) % 10 for number in range(9)}
    first = [["k1", "k0"], ["k0", "k0"], ["k9"]]
    for keys in [*first, *ask.cases(30, _some_keys)]:
        shown = f"read_batch(connection, {keys})"
        expected = [labels.get(key) for key in keys]
        if None in expected:
            ask(_read, read_batch, labels, keys, case=f"{shown}, where k9 is not in the table").raises(KeyError)
        else:
            ask(_read, read_batch, labels, keys, case=shown).gives({"labels": expected, "queries": 1})


def _some_keys(random: Random) -> list[str]:
    return [f"k{random.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9])}" for _ in range(random.randint(1, 5))]


def _read(read_batch: Any, labels: dict[str, int], keys: list[str]) -> dict[str, Any]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE TABLE digits (key TEXT PRIMARY KEY, label INTEGER)")
        connection.executemany("INSERT INTO digits VALUES (?, ?)", labels.items())
        queries: list[str] = []
        connection.set_trace_callback(queries.append)
        found = read_batch(connection, list(keys))
        found = list(found) if isinstance(found, (tuple, map, filter)) else found
        return {"labels": found, "queries": len(queries)}
    finally:
        connection.close()


def _rows(connection: Any, keys: list[str]) -> list[tuple[str, int]]:
    marks = ", ".join("?" * len(keys))
    query = f"SELECT key, label FROM digits WHERE key IN ({marks})"
    return connection.execute(query, keys).fetchall()


def _one_query_a_key(connection: Any, keys: list[str]) -> list[int]:
    found = [connection.execute("SELECT label FROM digits WHERE key = ?", (key,)).fetchone() for key in keys]
    if None in found:
        raise KeyError(keys[found.index(None)])
    return [label for (label,) in found]


def _order_of_the_table(connection: Any, keys: list[str]) -> list[int]:
    return [label for _, label in _rows(connection, keys)]


def _tuples(connection: Any, keys: list[str]) -> list[tuple[str, int]]:
    found = dict(_rows(connection, keys))
    return [(key, found[key]) for key in keys]


def _skips_strangers(connection: Any, keys: list[str]) -> list[int]:
    found = dict(_rows(connection, keys))
    return [found[key] for key in keys if key in found]


def _none_for_strangers(connection: Any, keys: list[str]) -> list[int | None]:
    found = dict(_rows(connection, keys))
    return [found.get(key) for key in keys]


read_batch = Exercise(
    "02_read_batch",
    _batch_law,
    wrong=[
        Wrong(
            _one_query_a_key,
            "The labels are right, but this is one query for each key. Ask for all of them at once: WHERE key IN (...).",
            "标签都对，但每个键查询了一次。一次要齐：WHERE key IN (...)。",
        ),
        Wrong(
            _order_of_the_table,
            "The rows come in the order of the table, each once. Put them in a dict, then go through `keys`.",
            "查询结果按表的顺序排列，而且每行只出现一次。先放进字典，再按 `keys` 的顺序取。",
        ),
        Wrong(
            _tuples,
            "These are pairs (key, label). Return the labels alone.",
            "这是 (key, label) 的二元组。只返回标签。",
        ),
        Wrong(
            _skips_strangers,
            "A key that is not in the table makes the batch shorter without a word. Let `found[key]` raise KeyError.",
            "表中没有的键让批次悄悄变短。让 `found[key]` 抛出 KeyError。",
        ),
        Wrong(
            _none_for_strangers,
            "A key that is not in the table gives None, which fails far from here. Use `found[key]`, not `found.get(key)`.",
            "表中没有的键得到 None，错误要到很远的地方才出现。用 `found[key]`，不用 `found.get(key)`。",
        ),
    ],
    hints=[
        (
            "One query gives the rows in an order of its own. What lets you look a row up by its key afterwards?",
            "一次查询给出的行有它自己的顺序。之后用什么办法可以按键找到一行？",
        ),
        (
            "`dict(connection.execute(query, keys))` makes a dict of the pairs (key, label).",
            "`dict(connection.execute(query, keys))` 把 (key, label) 的二元组变成字典。",
        ),
        (
            'found = dict(connection.execute(f"SELECT key, label FROM digits WHERE key IN ({marks})", keys)), '
            "then [found[key] for key in keys].",
            'found = dict(connection.execute(f"SELECT key, label FROM digits WHERE key IN ({marks})", keys))，'
            "然后 [found[key] for key in keys]。",
        ),
    ],
)


# --- joined --------------------------------------------------------------------------------------------------------------


def _joined_law(joined: Any, ask: Ask) -> None:
    for few, many in [(1, 2), *ask.cases(20, range(1, 5), range(1, 5))]:
        first: Any = [f"a{number}" for number in range(few)]
        second: Any = [f"b{number}" for number in range(many)]
        torchs: Any = ConcatDataset([first, second])
        shown, size = f"Joined({first}, {second})", few + many
        ask(lambda: len(joined(first, second)), case=f"len({shown})").gives(len(torchs))
        for index in [*range(size), *range(-1, -size - 1, -1)]:
            ask(lambda: joined(first, second)[index], case=f"{shown}[{index}]").gives(torchs[index])
        for index in (-size - 1, size):
            ask(lambda: joined(first, second)[index], case=f"{shown}[{index}]").raises(IndexError)
        ask(lambda: _loop(joined(first, second), size), case=f"a for loop over {shown}").gives([*first, *second])


def _loop(dataset: Any, size: int) -> list[Any]:
    found = []
    for sample in dataset:
        found.append(sample)
        if len(found) > 2 * size:
            break
    return found


class _Two:
    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)


class _ForgetsNegative(_Two):
    def __getitem__(self, index: int) -> Any:
        if index < len(self.first):
            return self.first[index]
        return self.second[index - len(self.first)]


class _OneTooFar(_Two):
    def __getitem__(self, index: int) -> Any:
        index = index + len(self) if index < 0 else index
        return self.first[index] if index <= len(self.first) else self.second[index - len(self.first)]


class _WrapsRound(_Two):
    def __getitem__(self, index: int) -> Any:
        index %= len(self)
        return self.first[index] if index < len(self.first) else self.second[index - len(self.first)]


class _BelowTheStart(_Two):
    def __getitem__(self, index: int) -> Any:
        index = index + len(self) if index < 0 else index
        return self.first[index] if index < len(self.first) else self.second[index - len(self.first)]


class _NotShifted(_Two):
    def __getitem__(self, index: int) -> Any:
        index = index + len(self) if index < 0 else index
        return self.first[index] if index < len(self.first) else self.second[index]


joined = Exercise(
    "02_joined",
    _joined_law,
    wrong=[
        Wrong(
            _ForgetsNegative,
            "An index from the end, such as -1, must count from the end of both together: the last sample of the second dataset.",
            "从末尾数的索引（如 -1）要从合起来的末尾数：它是第二个数据集的最后一个样本。",
        ),
        Wrong(
            _OneTooFar,
            "Off by one at the border: index len(first) is already the first sample of the second dataset.",
            "边界差了一个：索引 len(first) 已经是第二个数据集的第一个样本。",
        ),
        Wrong(
            _WrapsRound,
            "An index beyond the end starts over from the front. It must raise IndexError, otherwise a for loop never ends.",
            "超出末尾的索引又从头开始了。必须抛出 IndexError，否则 for 循环没有尽头。",
        ),
        Wrong(
            _BelowTheStart,
            "An index below the start is still negative after adding the length, so the first dataset reads from its own end. "
            "Check the range first.",
            "小于起点的索引加上长度后仍是负数，第一个数据集就从自己的末尾去读。先检查范围。",
        ),
        Wrong(
            _NotShifted,
            "The second dataset has keys of its own, from 0 on: subtract len(first) from the index.",
            "第二个数据集有自己的索引，从 0 开始：要从索引里减去 len(first)。",
        ),
    ],
    hints=[
        (
            "First bring a negative index to its place from the front. Then ask whether the place exists at all.",
            "先把负的索引换成从前面数的位置，再问这个位置是否存在。",
        ),
        (
            "Places below len(first) belong to the first dataset. For the others, subtract len(first).",
            "小于 len(first) 的位置属于第一个数据集；其余的减去 len(first)。",
        ),
        (
            "place = index + len(self) if index < 0 else index; if not 0 <= place < len(self): raise IndexError(index).",
            "先 place = index + len(self) if index < 0 else index，再 if not 0 <= place < len(self): raise IndexError(index)。",
        ),
    ],
)
