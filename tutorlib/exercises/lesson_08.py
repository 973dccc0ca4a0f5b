"""Lesson 08, collate: tuples that stay tuples, rows padded to one length, samples whose keys must agree."""

from __future__ import annotations

import re
from collections import namedtuple
from random import Random
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from tutorlib.exercises import Ask, Exercise, Wrong

Point = namedtuple("Point", "x y")


def shown(batch: Any) -> Any:
    """A batch as plain values: containers stay what they are, a tensor is its dtype, its shape and its numbers."""
    if isinstance(batch, torch.Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)} {batch.tolist()}"
    if isinstance(batch, dict):
        return {key: shown(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return {type(batch).__name__: {name: shown(value) for name, value in zip(batch._fields, batch, strict=True)}}
    if isinstance(batch, (list, tuple)):
        return type(batch)(shown(value) for value in batch)
    return batch


# --- keep_tuples ---------------------------------------------------------------------------------------------------------


def _sample_maker(random: Random, depth: int) -> Any:
    """A function that makes samples of one random structure: numbers in tuples and dicts."""
    kind = random.choice(["tuple", "tuple", "dict", "int", "float"] if depth else ["int", "float"])
    if kind == "int":
        return lambda: random.randrange(10)
    if kind == "float":
        return lambda: random.randrange(40) / 4
    inner = [_sample_maker(random, depth - 1) for _ in range(random.randint(1, 2))]
    if kind == "tuple":
        return lambda: tuple(make() for make in inner)
    return lambda: {name: make() for name, make in zip("ab", inner, strict=False)}


def _samples(random: Random) -> list[Any]:
    make = _sample_maker(random, depth=2)
    return [make() for _ in range(random.randint(1, 3))]


def _as_the_sample(sample: Any, batch: Any) -> Any:
    """Torch's own batch, with a tuple wherever the sample has one."""
    if isinstance(sample, dict):
        return {key: _as_the_sample(sample[key], batch[key]) for key in sample}
    if type(sample) is tuple:
        return tuple(_as_the_sample(one, column) for one, column in zip(sample, batch, strict=True))
    return batch


def _keeps_tuples(keep_tuples: Any, ask: Ask) -> None:
    cases = [[(0, 1), (2, 3)], [{"a": (1,)}, {"a": (2,)}], [Point(1, 2), Point(3, 4)], *ask.cases(30, _samples)]
    for samples in cases:
        expected = _as_the_sample(samples[0], default_collate(samples))
        ask(keep_tuples, samples, case=f"keep_tuples({samples!r})", then=shown).gives(shown(expected))


def _outermost(samples: Any) -> Any:
    batch = default_collate(samples)
    return tuple(batch) if type(samples[0]) is tuple else batch


def _outermost_and_named(samples: Any) -> Any:
    batch = default_collate(samples)
    return tuple(batch) if isinstance(samples[0], tuple) else batch


def _always_a_tuple(samples: Any) -> Any:
    return tuple(default_collate(samples))


def _names_lost(samples: Any) -> Any:
    first = samples[0]
    if isinstance(first, tuple):
        return tuple(_names_lost(column) for column in zip(*samples, strict=True))
    if isinstance(first, dict):
        return {key: _names_lost([sample[key] for sample in samples]) for key in first}
    return default_collate(samples)


def _dicts_not_entered(samples: Any) -> Any:
    if type(samples[0]) is tuple:
        return tuple(_dicts_not_entered(column) for column in zip(*samples, strict=True))
    return default_collate(samples)


_ONLY_OUTSIDE = (
    "Only the outermost tuple was kept: one inside a tuple or a dict still comes back as a list. Call yourself for each column.",
    "只保住了最外层的元组：元组或字典里面的元组仍然变成列表。对每一列再调用自己。",
)

keep_tuples = Exercise(
    "08_keep_tuples",
    _keeps_tuples,
    wrong=[
        Wrong(
            default_collate,
            "This is still `default_collate`: a tuple goes in and a list comes out.",
            "这还是 `default_collate`：进去的是元组，出来的是列表。",
        ),
        Wrong(_outermost, *_ONLY_OUTSIDE),
        Wrong(_outermost_and_named, *_ONLY_OUTSIDE),
        Wrong(
            _always_a_tuple,
            "`tuple(...)` also hits a dict, and keeps only its keys. Ask first whether the sample is a tuple.",
            "不论什么都套上 `tuple(...)`，字典也会遭殃：只剩下键。先问样本是不是元组。",
        ),
        Wrong(
            _names_lost,
            "A namedtuple lost its names: it is a tuple too. It has an attribute `_fields`; leave it to `default_collate`.",
            "具名元组丢了名字：它也是元组。它有属性 `_fields`；把它交给 `default_collate`。",
        ),
        Wrong(
            _dicts_not_entered,
            "A tuple inside a dict still becomes a list: go into dicts as well, one key at a time.",
            "字典里面的元组仍然变成列表：字典也要逐个键走进去。",
        ),
    ],
    hints=[
        (
            "Do what torch does: look at the first sample only. What happens for a tuple, what for a dict, what for the rest?",
            "照 torch 的办法做：只看第一个样本。元组怎么办？字典怎么办？其余的怎么办？",
        ),
        (
            "`zip(*samples)` turns the samples over and gives the columns. Each column is a list of samples for `keep_tuples`.",
            "`zip(*samples)` 把样本翻转过来，给出各列。每一列又是一组样本，可以再交给 `keep_tuples`。",
        ),
        (
            "if isinstance(first, tuple) and not hasattr(first, '_fields'): "
            "return tuple(keep_tuples(column) for column in zip(*samples)). "
            "A dict: {key: keep_tuples([s[key] for s in samples]) for key in first}. The rest: default_collate(samples).",
            "if isinstance(first, tuple) and not hasattr(first, '_fields'): "
            "return tuple(keep_tuples(column) for column in zip(*samples))。"
            "字典：{key: keep_tuples([s[key] for s in samples]) for key in first}。其余：default_collate(samples)。",
        ),
    ],
)


# --- pad_rows ------------------------------------------------------------------------------------------------------------


def _batch_and_lengths(answer: Any) -> Any:
    """What `pad_rows` returned, as plain values; the lengths may be a tensor or a list."""
    if not (isinstance(answer, (tuple, list)) and len(answer) == 2):
        return shown(answer)
    batch, lengths = answer
    if isinstance(lengths, torch.Tensor) and not lengths.is_floating_point():
        lengths = lengths.tolist()
    return {"lengths": shown(list(lengths) if isinstance(lengths, tuple) else lengths), "batch": shown(batch)}


def _pads(pad_rows: Any, ask: Ask) -> None:
    random_cases = ask.cases(
        30, lambda random: [random.randint(1, 4) for _ in range(random.randint(1, 4))], [1, 2], [torch.float32, torch.int64]
    )
    for lengths, width, dtype in [([2, 1], 1, torch.int64), *random_cases]:
        rows = [torch.tensor([[ask.random.randint(1, 9) for _ in range(width)] for _ in range(n)], dtype=dtype) for n in lengths]
        shapes = ", ".join(f"({n}, {width})" for n in lengths)
        expected = pad_sequence(rows, batch_first=True), lengths
        case = f"pad_rows of shapes {shapes}, {str(dtype).removeprefix('torch.')}"
        ask(pad_rows, rows, case=case, then=_batch_and_lengths).gives(_batch_and_lengths(expected))


def _lengths(rows: Any) -> list[int]:
    return [len(row) for row in rows]


def _samples_second(rows: Any) -> Any:
    return pad_sequence(rows), _lengths(rows)


def _always_float(rows: Any) -> Any:
    return pad_sequence(rows, batch_first=True).to(torch.float32), _lengths(rows)


def _padded_lengths(rows: Any) -> Any:
    batch = pad_sequence(rows, batch_first=True)
    return batch, [batch.shape[1]] * len(rows)


def _cut(rows: Any) -> Any:
    shortest = min(_lengths(rows))
    return torch.stack([row[:shortest] for row in rows]), _lengths(rows)


def _padded_in_front(rows: Any) -> Any:
    batch = pad_sequence(rows, batch_first=True)
    return torch.stack([one.roll(batch.shape[1] - len(row), 0) for one, row in zip(batch, rows, strict=True)]), _lengths(rows)


def _to_eight(rows: Any) -> Any:
    batch = pad_sequence(rows, batch_first=True)
    return torch.nn.functional.pad(batch, (0, 0, 0, 8 - batch.shape[1])), _lengths(rows)


def _no_lengths(rows: Any) -> Any:
    return pad_sequence(rows, batch_first=True)


pad_rows = Exercise(
    "08_pad_rows",
    _pads,
    wrong=[
        Wrong(
            _no_lengths,
            "The lengths are missing: nobody can tell padding from a real 0 without them. Return (batch, lengths).",
            "缺少长度：没有长度，谁也分不清填充和真正的 0。返回 (batch, lengths)。",
        ),
        Wrong(
            _samples_second,
            "The batch has the shape (longest, samples, width). The batch dimension comes first: (samples, longest, width).",
            "批次的形状是（最长，样本数，宽度）。批次维应在最前面：（样本数，最长，宽度）。",
        ),
        Wrong(
            _always_float,
            "Integers became float32: `torch.zeros` makes float32 unless you pass `dtype=` of the rows.",
            "整数变成了 float32：不给 `dtype=`，`torch.zeros` 就产生 float32。用各行自己的 dtype。",
        ),
        Wrong(
            _padded_lengths,
            "Every length is the padded one. Keep the length that each sample had before padding.",
            "所有长度都是填充后的长度。请保留每个样本填充前的长度。",
        ),
        Wrong(
            _cut,
            "The rows were cut to the shortest one: real data is lost. Fill up to the longest.",
            "各行截到了最短的长度，丢了真实数据。应填充到最长。",
        ),
        Wrong(
            _padded_in_front,
            "The zeros stand in front. `pad_sequence` puts them behind the real rows.",
            "零填在了前面。`pad_sequence` 把零放在真实数据后面。",
        ),
        Wrong(
            _to_eight,
            "Always 8 rows: that is right for whole digits only. Pad to the longest sample of this batch.",
            "总是填到 8 行：这只适用于完整的数字图像。应填充到本批次中最长的样本。",
        ),
    ],
    hints=[
        (
            "First collect the lengths. Then make zeros that are large enough for all, and copy each sample into its place.",
            "先收集长度，再造一个足够大的全零张量，然后把每个样本复制到它的位置。",
        ),
        (
            "The shape is (len(samples), max(lengths), width). `samples[0].new_zeros(shape)` gives zeros of the right dtype.",
            "形状是 (len(samples), max(lengths), width)。`samples[0].new_zeros(shape)` 给出数据类型正确的零。",
        ),
        (
            "for place, row in zip(batch, samples): place[: len(row)] = row. Then return batch, torch.tensor(lengths).",
            "for place, row in zip(batch, samples): place[: len(row)] = row。最后返回 batch, torch.tensor(lengths)。",
        ),
    ],
)


# --- same_keys -----------------------------------------------------------------------------------------------------------


def _dicts(random: Random) -> list[dict[str, int]]:
    """Some dicts, mostly with the same keys, in any order; sometimes one with a key more or less."""
    names = random.sample("abc", 2)
    samples = []
    for number in range(random.randint(2, 4)):
        mine = random.sample(names, 2)
        if number and random.random() < 0.3:
            mine = [*mine, "d"] if random.random() < 0.5 else mine[:1]
        samples.append({name: random.randrange(10) for name in mine})
    return samples


def _answer_or_refusal(answer: Any, samples: list[dict[str, int]]) -> Any:
    try:
        return shown(answer(samples))
    except ValueError as error:
        number = re.search(r"sample\s+(\d+)", str(error))
        return f"ValueError, sample {number[1]}" if number else "ValueError that names no sample"


def _demands_keys(same_keys: Any, ask: Ask) -> None:
    first = [[{"a": 1, "b": 2}, {"b": 3, "a": 4}], [{"a": 1}, {"a": 2, "b": 3}], [{"a": 1, "b": 2}, {"a": 3}]]
    for samples in [*first, *ask.cases(30, _dicts)]:
        others = [number for number, sample in enumerate(samples) if sample.keys() != samples[0].keys()]
        expected = f"ValueError, sample {others[0]}" if others else shown(default_collate(samples))
        ask(_answer_or_refusal, same_keys, samples, case=f"same_keys({samples})").gives(expected)


def _no_sample_named(samples: Any) -> Any:
    if any(sample.keys() != samples[0].keys() for sample in samples):
        raise ValueError("keys differ")
    return default_collate(samples)


def _missing_only(samples: Any) -> Any:
    for number, sample in enumerate(samples):
        if samples[0].keys() - sample.keys():
            raise ValueError(f"sample {number}")
    return default_collate(samples)


def _extra_only(samples: Any) -> Any:
    for number, sample in enumerate(samples):
        if sample.keys() - samples[0].keys():
            raise ValueError(f"sample {number}")
    return default_collate(samples)


def _order_counts(samples: Any) -> Any:
    for number, sample in enumerate(samples):
        if list(sample) != list(samples[0]):
            raise ValueError(f"sample {number}")
    return default_collate(samples)


same_keys = Exercise(
    "08_same_keys",
    _demands_keys,
    wrong=[
        Wrong(
            default_collate,
            "This is still `default_collate`: an extra key vanishes and a missing one is a bare KeyError.",
            "这还是 `default_collate`：多出的键悄悄消失，缺少的键只得到一个 KeyError，没有说明。",
        ),
        Wrong(
            _missing_only,
            "Missing keys are found, extra keys still vanish. Compare the two sets of keys in both directions: `!=` does.",
            "找到了缺少的键，但多出的键仍然消失。两个方向都要比较：用 `!=` 比较两组键。",
        ),
        Wrong(
            _extra_only,
            "Extra keys are found, a missing key is still a bare KeyError. Compare in both directions: `!=` does.",
            "找到了多出的键，但缺少的键仍然只得到一个 KeyError。两个方向都要比较：用 `!=`。",
        ),
        Wrong(
            _order_counts,
            "Equal keys in another order are no mistake. Compare `sample.keys()`, which has no order, and not `list(sample)`.",
            "键相同、顺序不同并不是错误。请比较没有顺序的 `sample.keys()`，不要比较 `list(sample)`。",
        ),
        Wrong(
            _no_sample_named,
            'The message names no sample. Write for example "sample 2: ...", so that its reader finds it in the data.',
            "报错信息没有指出是哪个样本。写成 “sample 2: ...”，读者才能在数据里找到它。",
        ),
    ],
    hints=[
        (
            "Walk over the samples with `enumerate` and compare the keys of each with those of the first.",
            "用 `enumerate` 走过所有样本，把每个样本的键与第一个样本的键比较。",
        ),
        (
            "`sample.keys() != samples[0].keys()` compares as sets: order does not count, missing and extra keys do.",
            "`sample.keys() != samples[0].keys()` 按集合比较：不看顺序，缺键和多键都算。",
        ),
        (
            'raise ValueError(f"sample {number}: {sorted(sample.keys() ^ samples[0].keys())}") inside the loop; '
            "after it, return default_collate(samples).",
            '在循环里 raise ValueError(f"sample {number}: {sorted(sample.keys() ^ samples[0].keys())}")；'
            "循环之后 return default_collate(samples)。",
        ),
    ],
)
