# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Single samples: batching switched off", zh: "单个样本：关闭自动成批"}
#     sections: ["000: 3.2 Disable automatic batching"]
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 07 · Single samples: batching switched off
#
# **You will be able to** switch batching off, read a whole batch with one query, and say in each of the four fetch modes what
# the loader asks of a dataset.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [06](06_batching.ipynb) | 50 | 3.2 Disable automatic batching | [简体中文](../zh/07_single_samples.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 07 · 单个样本：关闭自动成批
#
# **学完本课，你能够**：关闭自动成批，用一次查询读出整个批次，并说出四种读取方式下加载器各向数据集要什么。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [06](06_batching.ipynb) 课 | 50 | 3.2 Disable automatic batching | [English](../en/07_single_samples.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
import pathlib
import sqlite3
import tempfile
from collections import namedtuple
from itertools import islice

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_convert,
)

from tutorlib import datasets, exercises, facts, pictures, trace, widgets

digits = datasets.digits("train")
print("ready:", len(digits), "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# Four scans with pixels from 0 to 16. The loop body scales each to 0..1, in place. It notes the brightest pixel that it meets,
# epoch by epoch. With `batch_size=1` it meets 16 every time.
#
# What does it meet with `batch_size=None`? Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 四张扫描图，像素从 0 到 16。循环体把每张图原地缩放到 0..1，并逐轮（epoch）记下遇到的最亮像素。
# `batch_size=1` 时，每轮遇到的都是 16。
#
# `batch_size=None` 时会遇到什么？先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。


# %% tags=["wrong-first", "predict"]
def brightest(batch_size):
    scans = [digits.images[i].numpy().astype("float64") for i in range(4)]
    loader = DataLoader(scans, batch_size=batch_size)
    met = []
    for _epoch in range(3):
        met.append(0.0)
        for image in loader:
            met[-1] = max(met[-1], image.max().item())
            image /= 16
    return met


my_guess = ...  # three numbers, for example [16, 16, 16]

print("batch_size=1:", brightest(1))
exercises.predict(my_guess, torch=brightest(None))

# %% [markdown] lang="en"
# The dataset itself was changed. With `batch_size=None` nothing is stacked, so nothing is copied: the tensor you get shares its memory with the
# array in the dataset. Write `image = image / 16`. (With workers these arrays are copied on their way, so the dataset stays as it
# was. Tensors are shared, not copied: with `persistent_workers=True` the worker's dataset changes too.)
#
# ## The idea
#
# Batching is **off** when `batch_size` and `batch_sampler` are both `None`. Then the loop gets each element of the dataset by
# itself, with no dimension added. Order and workers stay. The collate function is still called, but with one sample, and its default
# is now `default_convert`.

# %% [markdown] lang="zh"
# 被改掉的是数据集本身。`batch_size=None` 时什么也不堆叠，也就什么也不复制：你拿到的张量和数据集里的数组共用一块内存。
# 请写 `image = image / 16`。（有工作进程时，这些数组在路上会被复制，数据集不变。
# 张量则是共享而不是复制：`persistent_workers=True` 时，工作进程里的数据集照样被改。）
#
# ## 概念
#
# `batch_size` 和 `batch_sampler` 都是 `None` 时，自动成批就**关闭**了。
# 循环一个个拿到数据集的元素，不多出任何一维。顺序和工作进程（worker）不变。
# 整理函数（`collate_fn`）照样调用，但每次只拿到一个样本，默认的换成了 `default_convert`。


# %% tags=["claim:BA-10"]
def described(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(str(described(part)) for part in value)
    return f"tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else value


def attempt(**arguments):
    try:
        loader = DataLoader(Subset(digits, range(10)), **arguments)
    except ValueError as error:
        return {"items": None, "the first one, or the error": f"ValueError: {error}"}
    return {"items": len(loader), "the first one, or the error": described(next(iter(loader)))}


calls = {
    "batch_size=None": {"batch_size": None},
    "batch_size=1": {"batch_size": 1},
    "batch_sampler=[[0, 1]]": {"batch_sampler": [[0, 1]]},
    "batch_size=None, drop_last=True": {"batch_size": None, "drop_last": True},
    "batch_size=None, a batch_sampler": {"batch_size": None, "batch_sampler": [[0, 1]]},
}
facts.Table("10 digits", [{"arguments": name, **attempt(**call)} for name, call in calls.items()])

# %% [markdown] lang="en"
# `batch_size=None` is enough: `batch_sampler` is `None` by default.
#
# ## The collate function is still called
#
# The notes say that the default one then only turns NumPy arrays into tensors and leaves everything else alone.
# Here is a sample that holds no array at all: the tuple `(7, "seven")`. Which type comes back?

# %% [markdown] lang="zh"
# 写 `batch_size=None` 就够了：`batch_sampler` 默认就是 `None`。
#
# ## 整理函数照样调用
#
# 笔记说，默认的那一个这时只把 NumPy 数组变成张量，其余都不动。
# 这里的样本根本没有数组：元组 `(7, "seven")`。回来的是什么类型？

# %% tags=["predict", "claim:BA-12"]
my_guess = ...  # "tuple" or "list"

loader = DataLoader([(7, "seven")], batch_size=None)
sample = next(iter(loader))
print("collate_fn:", loader.collate_fn.__name__, "| sample:", sample)
exercises.predict(my_guess, torch=type(sample).__name__)

# %% [markdown] lang="en"
# `default_convert` walks into tuples, lists and dicts, and builds them anew. What else does it touch?

# %% [markdown] lang="zh"
# `default_convert` 走进元组、列表和字典，并重新造一遍。它还动了什么？

# %% tags=["claim:BA-12"]
Point = namedtuple("Point", "x y")
kinds = {
    "array of numbers": np.ones(2),
    "array of strings": np.array(["a", "b"]),
    "NumPy number": np.float64(2),
    "int": 2,
    "str": "a",
    "None": None,
    "tuple": (1, 2),
    "namedtuple": Point(1, 2),
    "tuple in a dict": {"size": (8, 8)},
    "set": {1, 2},
}
rows = []
for name, value in kinds.items():
    (out,) = DataLoader([value], batch_size=None)
    inner = (value["size"], out["size"]) if isinstance(value, dict) else (value, out)
    before, after = (type(one).__name__ for one in inner)
    rows.append(
        {"sample": name, "type": before, "comes back as": after, "changed": before != after}
    )
facts.Table("default_convert, value by value", rows)

# %% [markdown] lang="en"
# So three kinds change: arrays of numbers, NumPy's own numbers, and plain tuples. `None` passes here, while
# `default_collate` refuses it.
#
# ## The two loops
#
# For map-style data: `collate_fn(dataset[index])` for each index of the sampler. For streams: `collate_fn(sample)` for each sample.
# This time the notes can be taken at their word.

# %% [markdown] lang="zh"
# 所以变的有三种：由数字组成的数组、NumPy 自己的数字、普通元组。`None` 在这里能通过，`default_collate` 却拒绝它。
#
# ## 两个循环
#
# 映射式数据：对采样器的每个索引，计算 `collate_fn(dataset[index])`。数据流：对每个样本，计算 `collate_fn(sample)`。
# 这一次，笔记可以照字面相信。


# %% tags=["claim:BA-13"]
class Rows(IterableDataset):
    def __iter__(self):
        for i in range(5):
            yield digits.images[i].numpy(), i


def on_map(dataset, sampler, collate_fn):
    for index in sampler:
        yield collate_fn(dataset[index])


def on_stream(dataset, collate_fn):
    for sample in iter(dataset):
        yield collate_fn(sample)


def same(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return all(type(a) is type(b) and torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in pairs)


order, stream, table = [3, 0, 4], Rows(), list(Rows())
pairs = {
    "map-style": (
        on_map(table, order, default_convert),
        DataLoader(table, batch_size=None, sampler=order),
    ),
    "stream": (on_stream(stream, default_convert), DataLoader(stream, batch_size=None)),
}
compared = {name: (list(ours), list(theirs)) for name, (ours, theirs) in pairs.items()}
facts.Table(
    "the loops of the notes beside the loader",
    [
        {
            "dataset": name,
            "labels": [label for _, label in theirs],
            "the same samples": same(ours, theirs),
        }
        for name, (ours, theirs) in compared.items()
    ],
)

# %% [markdown] lang="en"
# ## Reason 1: one query for a whole batch
#
# There are three reasons to switch batching off. The first: the dataset can read a whole batch at once.
#
# The labels of the digits lie in a database. The loader gives `dataset[key]` whatever its sampler gives. Usually that is a
# number. It may also be a **list**: then the dataset can read all of them at once. The database itself counts the queries.

# %% [markdown] lang="zh"
# ## 理由一：一次查询读出整个批次
#
# 关闭自动成批有三个理由。第一个：数据集可以一次读出整个批次。
#
# 数字的标签放在数据库里。采样器给什么，加载器就向 `dataset[key]` 要什么。通常是一个数，也可以是一个**列表**：
# 这时数据集可以一次读出全部。查询次数由数据库自己数。

# %% tags=["claim:BA-11"]
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
database = datasets.write_sqlite(pathlib.Path(folder.name, "digits.db"), "all")


class Labels(Dataset):
    """labels[7] is one label, labels[[7, 8]] is a tensor of two: one query each."""

    def __init__(self):
        self.queries = []
        self.connection = sqlite3.connect(database)
        self.connection.set_trace_callback(self.queries.append)

    def read(self, indices):
        keys = [f"{index:04d}" for index in indices]
        marks = ", ".join("?" for _ in keys)
        found = dict(
            self.connection.execute(f"SELECT key, label FROM digits WHERE key IN ({marks})", keys)
        )
        return [found[key] for key in keys]

    def __getitem__(self, key):
        return torch.tensor(self.read(key)) if isinstance(key, list) else self.read([key])[0]


class LabelsTogether(Labels):
    def __getitems__(self, indices):
        return self.read(indices)


twelve = range(12)
lists = BatchSampler(SequentialSampler(twelve), 4, drop_last=False)
ways = {
    "batch_size=4": (Labels(), {"sampler": twelve, "batch_size": 4}),
    "batch_size=4, with __getitems__": (LabelsTogether(), {"sampler": twelve, "batch_size": 4}),
    "sampler of lists, batch_size=None": (Labels(), {"sampler": lists, "batch_size": None}),
    "batch_size=None": (Labels(), {"sampler": twelve, "batch_size": None}),
}
rows = []
for name, (labels, arguments) in ways.items():
    got = list(DataLoader(labels, **arguments))
    rows.append(
        {
            "loader": name,
            "items": len(got),
            "the first one": str(got[0]),
            "queries": len(labels.queries),
        }
    )
    labels.connection.close()
facts.Table("12 labels from a database", rows)

# %% [markdown] lang="en"
# Three queries in place of twelve, and the batch comes out as the dataset made it. `__getitems__` (lesson [02](02_map_datasets.ipynb))
# does the same with batching on; then `collate_fn` still gets single samples.
#
# Now the slip that everybody makes once. The sampler gives lists of four, and `batch_size=None` is forgotten. One image has the
# shape `(8, 8)`. Which shape arrives?

# %% [markdown] lang="zh"
# 3 次查询代替了 12 次，批次就是数据集做好的样子。开启自动成批时，`__getitems__`（第 [02](02_map_datasets.ipynb) 课）也能做到，
# 只是 `collate_fn` 拿到的仍是一个个样本。
#
# 现在看人人都会犯一次的疏忽。采样器给出四个索引的列表，却忘了写 `batch_size=None`。一张图像的形状是 `(8, 8)`。
# 到达的形状是什么？

# %% tags=["predict", "claim:BA-11"]
my_guess = ...  # for example [4, 8, 8]

pixels = digits.images[:12]  # a tensor is a map-style dataset; pixels[[0, 1, 2, 3]] reads four rows
right = next(iter(DataLoader(pixels, sampler=lists, batch_size=None)))
forgot = next(iter(DataLoader(pixels, sampler=lists)))
print("with batch_size=None:", list(right.shape))
exercises.predict(my_guess, torch=list(forgot.shape))

# %% [markdown] lang="en"
# `batch_size` is 1 by default: a batch of one batch. And a plain Python list cannot be read with a list of keys at all:

# %% [markdown] lang="zh"
# `batch_size` 默认是 1：一个批次里装着一个批次。而普通的 Python 列表根本不能用由键组成的列表来读：

# %% tags=["raises-exception"]
list(DataLoader([10, 20, 30, 40], sampler=[[0, 1], [2, 3]], batch_size=None))

# %% [markdown] lang="en"
# ## Reasons 2 and 3: the data decides, or you want single samples
#
# Reason 2: the data decides how long a batch is. The stream below yields all images of one label at once, as many as there are.
#
# Reason 3: the program wants one sample at a time, as in the last row.

# %% [markdown] lang="zh"
# ## 理由二和理由三：由数据决定，或者就要单个样本
#
# 理由二：批次多长由数据决定。下面的数据流每次给出同一标签的全部图像，有多少给多少。
#
# 理由三：程序就要一个个样本，见最后一行。


# %% tags=["claim:BA-11"]
class ByLabel(IterableDataset):
    def __iter__(self):
        for label in range(4):
            yield digits.images[digits.labels == label]


def shapes_of(dataset, **arguments):
    try:
        return [list(item.shape) for item in DataLoader(dataset, **arguments)]
    except RuntimeError as error:
        return f"RuntimeError: {str(error).split(',')[0]}"


facts.Table(
    "what the loop gets",
    [
        {
            "dataset": "ByLabel",
            "batch_size": "None",
            "shapes": shapes_of(ByLabel(), batch_size=None),
        },
        {"dataset": "ByLabel", "batch_size": "2", "shapes": shapes_of(ByLabel(), batch_size=2)},
        {
            "dataset": "3 images",
            "batch_size": "None",
            "shapes": shapes_of(digits.images[:3], batch_size=None),
        },
    ],
)

# %% [markdown] lang="en"
# ## The price with workers
#
# A worker sends one item at a time through a queue: a batch, or with `batch_size=None` one sample. And `prefetch_factor=2` counts
# items. Two workers, batches of 8: 32 samples are requested ahead. How many with `batch_size=None`?

# %% [markdown] lang="zh"
# ## 有工作进程时的代价
#
# 工作进程每次通过队列送一件东西：一个批次；`batch_size=None` 时是一个样本。`prefetch_factor=2` 数的也是件数。
# 两个工作进程、每批 8 个：提前请求 32 个样本。`batch_size=None` 时是几个？

# %% tags=["predict"]
my_guess = ...  # how many samples?

batched = trace.record(Subset(digits, range(64)), batch_size=8, num_workers=2)
single = trace.record(Subset(digits, range(16)), batch_size=None, num_workers=2)
print("batch_size=8:   ", batched.summary())
print("batch_size=None:", single.summary())
exercises.predict(my_guess, torch=single.requests_ahead)

# %% [markdown] lang="en"
# Four: one sample for each request. So 16 samples take sixteen trips, and in batches 64 samples take eight. Single samples and workers go together where a sample is large or already a
# batch.
#
# ## Explore: four fetch modes
#
# Map-style or stream, batched or single. Each sample carries the call by which it was read, so the picture shows what the loader
# asked for, which function collated, and what the loop got. All four are real runs.
#
# Two things to change: set `together` on (the map-style dataset then has `__getitems__`), and see which of the two map-style modes
# ignores it. Then set `batch_size` to 1 and compare with single.

# %% [markdown] lang="zh"
# 4 个：每个请求一个样本。所以 16 个样本要走 16 趟，成批时 64 个样本只走 8 趟。样本很大，或者本身就是批次时，单个样本才适合配工作进程。
#
# ## 动手探索：四种读取方式
#
# 映射式或数据流，成批或单个。每个样本都带着读出它的那次调用，所以图上能看到加载器要了什么、由哪个函数整理、循环得到什么。
# 四种都是真实的运行。
#
# 试着改两处：打开 `together`（映射式数据集就有了 `__getitems__`），看映射式的两种方式里哪一种不理会它；再把 `batch_size` 改成 1，与单个样本比较。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
class Modes(facts.Table):
    heads = ("mode", "asked of the dataset", "collate_fn", "the loop gets")

    def tree(self):  # a line for each mode, and below it a line for each request
        lines, mode = [], None
        for row in self.content:
            line = {
                "before": row["asked of the dataset"],
                "rule": row["collate_fn"],
                "after": row["the loop gets"],
            }
            if row["mode"] != mode:
                mode = row["mode"]
                lines.append(
                    {
                        "depth": 0,
                        "path": mode,
                        "before": "",
                        "rule": "",
                        "after": "",
                        "surprise": False,
                    }
                )
            lines.append(
                {"depth": 1, "path": f"request {row['request']}", **line, "surprise": False}
            )
        return lines


# %% tags=["explore"]
class Keyed(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, key):
        return key, f"dataset[{key}]"


class KeyedTogether(Keyed):
    def __getitems__(self, keys):
        return [(key, f"dataset.__getitems__({keys})") for key in keys]


class Streamed(IterableDataset):
    def __iter__(self):
        for number in range(4):
            yield number, "next(stream)"


def fetch_modes(batch_size, together):
    rows = []
    for style, dataset in (
        ("map-style", KeyedTogether() if together else Keyed()),
        ("stream", Streamed()),
    ):
        for how, size in (("batched", batch_size), ("single", None)):
            collate = DataLoader(dataset, batch_size=size).collate_fn.__name__
            run = trace.record(dataset, batch_size=size)
            for number, (values, calls) in enumerate(run.batches):
                calls = [calls] if size is None else calls
                asked = calls[:1] if "__getitems__" in calls[0] else calls
                text = (
                    f"{asked[0]} x {len(asked)}"
                    if style == "stream" and len(asked) > 1
                    else ", ".join(asked)
                )
                rows.append(
                    {
                        "mode": f"{style}, {how}",
                        "request": number,
                        "asked of the dataset": text,
                        "collate_fn": collate,
                        "the loop gets": str(values),
                    }
                )
    return Modes(f"4 samples, batched by {batch_size} and single", rows)


widgets.explore(fetch_modes, pictures.tree, batch_size=[3, 2, 1], together=False)

# %% [markdown] lang="en"
# ## Exercise 1: your own default_convert
#
# Arrays of numbers and NumPy's own numbers become tensors, also deep inside. A plain tuple becomes a list, a namedtuple and a dict stay what they
# are, everything else is left alone. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# ## 练习 1：你自己的 default_convert
#
# 由数字组成的数组和 NumPy 自己的数字变成张量，藏在深处的也一样。普通元组变成列表，具名元组（namedtuple）和字典保持原样，其余都不动。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:07_my_convert"]
def my_convert(value):
    """What default_convert makes of numbers, arrays, strings, dicts, lists, tuples, namedtuples."""
    ...


# solution
def my_convert(value):
    if isinstance(value, (np.ndarray, np.number)):
        return torch.as_tensor(value)
    if isinstance(value, dict):
        return {key: my_convert(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(my_convert(part) for part in value))
    if isinstance(value, (list, tuple)):
        return [my_convert(part) for part in value]
    return value


# %% tags=["check"]
exercises.check("07_my_convert", my_convert)  # stuck? exercises.hint("07_my_convert")

# %% [markdown] lang="en"
# ## Exercise 2: batches under a budget
#
# The samples are sequences. Fill each batch, in order, as long as the sum of its lengths stays within the budget. A sample that is
# longer than the budget gets a batch of its own. Such a generator is the heart of a stream for `batch_size=None`.

# %% [markdown] lang="zh"
# ## 练习 2：按预算成批
#
# 样本是序列。按顺序装满每个批次，只要总长度不超过预算。比预算还长的样本自成一批。
# 配合 `batch_size=None` 的数据流，核心就是这样一个生成器。


# %% tags=["exercise:07_by_budget"]
def by_budget(samples, budget):
    """Yield lists of samples: by_budget(["aa", "b", "cc"], 3) gives ["aa", "b"], then ["cc"]."""
    ...


# solution
def by_budget(samples, budget):
    batch, used = [], 0
    for sample in samples:
        if batch and used + len(sample) > budget:
            yield batch
            batch, used = [], 0
        batch.append(sample)
        used += len(sample)
    if batch:
        yield batch


# %% tags=["check"]
exercises.check("07_by_budget", by_budget)  # stuck? exercises.hint("07_by_budget")

# %% [markdown] lang="en"
# ## Exercise 3: all four modes
#
# One generator for map-style datasets and streams, with a batch size or `None`. Batches are plain lists; no collate function.

# %% [markdown] lang="zh"
# ## 练习 3：四种方式合一
#
# 一个生成器，既能读映射式数据集，也能读数据流；批次大小可以是数，也可以是 `None`。批次就是普通列表，不用整理函数。


# %% tags=["exercise:07_four_modes"]
def four_modes(dataset, batch_size):
    """What DataLoader(dataset, batch_size=batch_size, collate_fn=<leave alone>) gives."""
    ...


# solution
def four_modes(dataset, batch_size):
    stream = isinstance(dataset, IterableDataset)
    samples = iter(dataset) if stream else (dataset[index] for index in range(len(dataset)))
    if batch_size is None:
        yield from samples
    else:
        while batch := list(islice(samples, batch_size)):
            yield batch


# %% tags=["check"]
exercises.check("07_four_modes", four_modes)  # stuck? exercises.hint("07_four_modes")

# %% [markdown] lang="en"
# ## Bug hunt
#
# The notes: when `batch_size` and `batch_sampler` are both `None`, the loader returns each member of the dataset by itself. This
# loader reads 12 images. Which line does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 笔记说：`batch_size` 和 `batch_sampler` 都是 `None` 时，加载器把数据集的成员一个个返回。这个加载器读 12 张图像。
# 哪一行不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:BA-11"]
my_guess = ...  # 1, 2, 3 or 4

bulk = DataLoader(pixels, sampler=lists, batch_size=None)
lines = {
    1: bulk.batch_size is None and bulk.batch_sampler is None,
    2: bulk.collate_fn is default_convert,
    3: len(bulk) == len(pixels),
    4: torch.equal(torch.cat(list(bulk)), pixels),
}
print("items:", len(bulk), "| images:", len(pixels))
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# The members come four at a time, so `len` counts lists.

# %% [markdown] lang="zh"
# 成员四个一组地来，所以 `len` 数的是列表。

# %% [markdown] lang="en"
# ## Recap
#
# With `batch_size=None` the loop gets what `dataset[key]` or the stream gives, uncopied if there are no workers. `default_convert` still turns arrays into
# tensors and tuples into lists. A key may be a list: then one read makes a whole batch.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, the data changes | an in-place operation on a single sample | Wrong first |
# | `mutually exclusive with drop_last` | `drop_last` where no batches are made | The idea |
# | no message, a list | a tuple went through `default_convert` | The collate function is still called |
# | no message, shape `(1, 4, 8, 8)` | a sampler of lists without `batch_size=None` | Reason 1 |
# | `list indices must be integers or slices, not list` | the dataset cannot read many keys at once | Reason 1 |
#
# What next: lesson [08](08_collate.ipynb), how samples become a batch.

# %% [markdown] lang="zh"
# ## 小结
#
# `batch_size=None` 时，`dataset[key]` 或数据流给什么，循环就得到什么；没有工作进程时不复制。`default_convert` 照样把数组变成张量、把元组变成列表。
# 键可以是一个列表：这时读一次就得到整个批次。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，数据变了 | 对单个样本做了原地操作 | 先看错误 |
# | `mutually exclusive with drop_last` | 不做批次却写了 `drop_last` | 概念 |
# | 没有报错，得到列表 | 元组经过了 `default_convert` | 整理函数照样调用 |
# | 没有报错，形状 `(1, 4, 8, 8)` | 采样器给列表，却没写 `batch_size=None` | 理由一 |
# | `list indices must be integers or slices, not list` | 数据集不能一次读多个键 | 理由一 |
#
# 下一步：第 [08](08_collate.ipynb) 课，样本怎样变成批次。

# %%
exercises.progress("07")
