"""Lesson 13: the lengths of a random split, and a test set that stays when the data grows."""

from __future__ import annotations

import functools
import math
import operator
import random
import warnings
import zlib
from fractions import Fraction
from typing import Any

from torch.utils.data import random_split

from tutorlib.exercises import Ask, Exercise, Wrong

# --- split_lengths -------------------------------------------------------------------------------------------------------


def _lengths_law(split_lengths: Any, ask: Ask) -> None:
    drawn = [case for case in ask.cases(60, range(1, 120), _shares) if _accepted(case[1])]
    for size, shares in [(11, [0.25] * 4), (100, [0.5, 0.29, 0.21]), (10, [1 / 3] * 3), *drawn]:
        ask(split_lengths, size, shares, then=_whole).gives(_torchs(size, shares))


def _shares(drawn: random.Random) -> list[float]:
    cuts = sorted(drawn.sample(range(1, 100), drawn.randint(1, 3)))
    return [(stop - start) / 100 for start, stop in zip([0, *cuts], [*cuts, 100], strict=True)]


def _accepted(shares: list[float]) -> bool:
    """Added one by one, as `sum` does in Python 3.11: what passes so passes in every Python (SP-05)."""
    return functools.reduce(operator.add, shares) <= 1


def _torchs(size: int, shares: list[float]) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty subset is a case like others here
        everything: Any = range(size)
        return [len(part) for part in random_split(everything, shares)]


def _whole(found: Any) -> Any:
    return list(found) if isinstance(found, (tuple, map)) else found


def _floors(size: int, shares: list[float]) -> list[int]:
    return [math.floor(size * share) for share in shares]


def _rounded(size: int, shares: list[float]) -> list[int]:
    return [round(size * share) for share in shares]


def _rest_to_last(size: int, shares: list[float]) -> list[int]:
    lengths = _floors(size, shares)
    return [*lengths[:-1], size - sum(lengths[:-1])]


def _rest_to_first(size: int, shares: list[float]) -> list[int]:
    lengths = _floors(size, shares)
    return [size - sum(lengths[1:]), *lengths[1:]]


def _on_paper(size: int, shares: list[float]) -> list[int]:
    lengths = [math.floor(size * Fraction(share).limit_denominator(1000)) for share in shares]
    for extra in range(size - sum(lengths)):
        lengths[extra % len(lengths)] += 1
    return lengths


split_lengths = Exercise(
    "13_split_lengths",
    _lengths_law,
    wrong=[
        Wrong(
            _floors,
            "Rounding down leaves samples over. Hand them out one by one, from the first subset on.",
            "向下取整会剩下一些样本。从第一个子集开始，一个一个发下去。",
        ),
        Wrong(
            _rounded,
            "Rounding to the nearest can give more samples than there are: 11 in four quarters are 2.75 each. Round down first.",
            "四舍五入可能发出比实际更多的样本：11 个分四份，每份 2.75。先向下取整。",
        ),
        Wrong(
            _rest_to_last,
            "The whole rest went to the last subset. torch hands it out one by one, from the first subset on.",
            "余数全给了最后一个子集。torch 从第一个子集开始，一个一个发。",
        ),
        Wrong(
            _rest_to_first,
            "The whole rest went to the first subset. torch gives one sample each, to the first, the second, and so on.",
            "余数全给了第一个子集。torch 每个子集发一个：第一个、第二个，依次下去。",
        ),
        Wrong(
            _on_paper,
            "Right on paper, but torch rounds the float down: 100 * 0.29 is 28.999999999999996 and becomes 28.",
            "纸面上是对的，但 torch 对浮点数向下取整：100 * 0.29 是 28.999999999999996，变成 28。",
        ),
    ],
    hints=[
        (
            "First math.floor(size * share) for each share. How many samples are left over?",
            "先对每个比例算 math.floor(size * share)。还剩几个样本？",
        ),
        (
            "Go through range(size - sum(lengths)) and add 1 to one length in each turn; `%` starts over at the front.",
            "遍历 range(size - sum(lengths))，每次给一个长度加 1；用 `%` 可以回到最前面。",
        ),
        (
            "for extra in range(size - sum(lengths)): lengths[extra % len(lengths)] += 1.",
            "写成 for extra in range(size - sum(lengths)): lengths[extra % len(lengths)] += 1。",
        ),
    ],
)


# --- in_test -------------------------------------------------------------------------------------------------------------


class _Key(str):
    """A text whose hash() depends on the process, as that of every text does: `salt` stands for the process."""

    salt: str

    def __new__(cls, text: str, salt: str) -> _Key:
        key = super().__new__(cls, text)
        key.salt = salt
        return key

    def __hash__(self) -> int:
        return zlib.crc32(f"{self.salt}/{self}/{self.salt}".encode())


def _test_law(in_test: Any, ask: Ask) -> None:
    keys = [f"{number:04d}" for number in range(300)] + [f"cat-{number}.png" for number in range(300)]
    for share in (0.5, 0.2, 0.8):
        for key in keys[:20] + keys[-20:]:
            ask(
                lambda: len({bool(in_test(_Key(key, "one"), share)) for _ in range(30)}),
                case=f"answers of in_test({key!r}, {share}) to 30 calls",
            ).gives(1)
            ask(
                lambda: len({bool(in_test(_Key(key, salt), share)) for salt in ("one", "two", "three", "four", "five")}),
                case=f"answers of in_test({key!r}, {share}) in 5 processes",
            ).gives(1)
        for name, some in (("'0000' to '0299'", keys[:300]), ("'cat-0.png' to 'cat-299.png'", keys[300:])):
            ask(
                lambda: sum(bool(in_test(_Key(key, "one"), share)) for key in some) / len(some),
                case=f"the part of the keys {name} for which in_test(key, {share}) is true",
            ).satisfies(lambda part: abs(part - share) <= 0.1, f"about {share}")


def _by_hash(key: str, share: float) -> bool:
    return hash(key) % 1000 < share * 1000


def _by_chance(key: str, share: float) -> bool:
    return random.random() < share


def _every_fifth(key: str, share: float) -> bool:
    return zlib.crc32(key.encode()) % 5 == 0


def _other_side(key: str, share: float) -> bool:
    return zlib.crc32(key.encode()) >= share * 2**32


in_test = Exercise(
    "13_in_test",
    _test_law,
    wrong=[
        Wrong(
            _by_chance,
            "The same key gets another answer each time: chance must come from the key, not from a generator.",
            "同一个键每次得到不同的回答：随机要来自键，不能来自随机数生成器。",
        ),
        Wrong(
            _by_hash,
            "`hash` of a text is different in every process, so tomorrow's test set is another one. Use zlib.crc32 or hashlib.",
            "文本的 `hash` 在每个进程里都不同，明天的测试集就变了。用 zlib.crc32 或 hashlib。",
        ),
        Wrong(
            _every_fifth,
            "The share plays no part: this is one key in five, whatever was asked for.",
            "没有用到比例：不管要多少，这里总是五个键里取一个。",
        ),
        Wrong(
            _other_side,
            "This is the other side: the keys of the training set. A number below share * 2**32 belongs to the test.",
            "这是另一边：训练集的键。小于 share * 2**32 的数才属于测试集。",
        ),
    ],
    hints=[
        (
            "`key.encode()` turns the text into bytes, and `zlib.crc32` turns bytes into a number below 2**32: always the same.",
            "`key.encode()` 把文本变成字节，`zlib.crc32` 把字节变成小于 2**32 的数，每次都一样。",
        ),
        (
            "Those numbers are spread evenly from 0 to 2**32. Which part of them lies below share * 2**32?",
            "这些数均匀分布在 0 到 2**32 之间。其中有多大一部分小于 share * 2**32？",
        ),
        (
            "return zlib.crc32(key.encode()) < share * 2**32.",
            "写成 return zlib.crc32(key.encode()) < share * 2**32。",
        ),
    ],
)
