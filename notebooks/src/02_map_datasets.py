# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Map-style datasets", zh: "映射式数据集"}
#     sections: ["000: 1.1 Map-style datasets"]
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 02 · Map-style datasets
#
# **You will be able to** turn anything with keys into a dataset, say when a missing length or key will fail, and read a whole batch with one query.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [01](01_dataloader.ipynb) | 50 | 1.1 Map-style datasets | [简体中文](../zh/02_map_datasets.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 02 · 映射式数据集
#
# **学完本课，你能够**：把任何带键的东西变成数据集，说出缺少长度或键时会在哪一刻报错，并用一次查询读出整个批次。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [01](01_dataloader.ipynb) 课 | 50 | 1.1 Map-style datasets | [English](../en/02_map_datasets.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
import dataclasses
import itertools
import tempfile
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from tutorlib import datasets, exercises, facts, pictures, widgets

room = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # removed when the kernel ends
file = datasets.write_sqlite(Path(room.name, "digits.db"))
print("ready: a table of real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# A map-style dataset answers `dataset[key]`, and the notes say that a key need not be an integer.
# A dict answers `ages["Ada"]`. Run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 映射式（map-style）数据集回答 `dataset[key]`；笔记说，键不一定是整数。
# 字典能回答 `ages["Ada"]`。运行这个单元格。

# %% tags=["raises-exception", "wrong-first", "claim:DS-06"]
ages = {"Ada": 36, "Alan": 41, "Grace": 85}
print("Ada is", ages["Ada"])
list(DataLoader(ages))

# %% [markdown] lang="en"
# ## The idea
#
# Nobody wrote a 0. Who asked for it?
#
# The loader never looks at the keys of a dataset. A **sampler** hands it the keys. The default sampler knows one thing about
# the dataset, `len(dataset)`, and counts: 0, 1, 2. For other keys, give a sampler of your own. A list of keys is enough.

# %% [markdown] lang="zh"
# ## 概念
#
# 谁也没有写过 0。是谁在要它？
#
# 加载器从不查看数据集有哪些键。把键交给它的是**采样器**（sampler）。默认的采样器对数据集只知道一件事，即
# `len(dataset)`，然后开始数：0、1、2。键不是这样的数时，给一个自己的采样器；由键组成的列表就够了。

# %% tags=["claim:DS-02", "claim:DS-06"]
default = DataLoader(ages)
print(type(default.sampler).__name__, "hands out", list(default.sampler))
by_name = DataLoader(ages, sampler=["Grace", "Ada", "Ada"], batch_size=2)
print("a list of keys gives", [batch.tolist() for batch in by_name])

# %% [markdown] lang="en"
# A key may repeat, and a key may be left out: the sampler decides.
#
# ## Predict, run, compare
#
# The keys of this dict are integers, but it was written in the order 2, 0, 1. There is no sampler.
# What does the loader give? Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# 键可以重复，也可以不出现：由采样器决定。
#
# ## 预测、运行、对照
#
# 这个字典的键是整数，但写的顺序是 2、0、1。没有给采样器。
# 加载器会给出什么？先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。

# %% tags=["predict", "claim:DS-06"]
my_guess = ...  # for example ["two", "zero", "one"]

words = {2: "two", 0: "zero", 1: "one"}
print("the dict itself:", list(words.values()))
exercises.predict(my_guess, torch=list(DataLoader(words, batch_size=None)))

# %% [markdown] lang="en"
# The order of the dict plays no part. Begin the keys at 1, and the first request fails.
#
# ## What counts as a dataset?
#
# `len(x)` and `x[key]` are enough; it need not be a `Dataset`. Which of these six can the loader read? Guess how many.

# %% [markdown] lang="zh"
# 字典自己的顺序不起作用。键若从 1 开始，第一个请求就会报错。
#
# ## 什么算数据集
#
# 有 `len(x)` 和 `x[key]` 就够了，不必是 `Dataset`。下面六个里，加载器能读哪些？猜猜有几个。


# %% tags=["predict", "claim:DS-02"]
def first_batch(dataset):
    try:
        batch = next(iter(DataLoader(dataset, batch_size=2)))
    except (TypeError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


my_guess = ...  # a number from 0 to 6

candidates = {
    "list": [5, 6, 7],
    "range": range(5, 8),
    "str": "torch",
    "tensor": torch.tensor([[1, 2], [3, 4], [5, 6]]),
    "dict from 1": {1: "one", 2: "two"},
    "set": {5, 6, 7},
}
results = {name: first_batch(dataset) for name, dataset in candidates.items()}
rows = [
    {"object": n, "Dataset?": isinstance(candidates[n], Dataset), "first batch of 2": r}
    for n, r in results.items()
]
print(facts.Table("none of them is a Dataset", rows))
exercises.predict(my_guess, torch=sum(isinstance(result, list) for result in results.values()))

# %% [markdown] lang="en"
# Even a text is a dataset: of its letters. Pass a file's **name** where its content was meant, and training begins on letters.
#
# ## What does the class `Dataset` add?
#
# The notes show a constructor `__init__(self, *args, **kwds)` and call the class abstract. Five attempts
# (`+` joins two datasets):

# %% [markdown] lang="zh"
# 连一段文字也是数据集：它的样本是字母。本该给内容却给了**文件名**，训练就会在字母上开始。
#
# ## `Dataset` 这个类添了什么
#
# 笔记给它写了构造函数 `__init__(self, *args, **kwds)`，并称它为抽象类。试五次（`+` 把两个数据集接起来）：


# %% tags=["claim:DS-03", "claim:DS-04"]
class Empty(Dataset):
    pass


class Squares(Dataset):
    def __getitem__(self, index):
        return index * index


def attempt(make):
    try:
        return str(make())
    except (TypeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"


print("Dataset has a constructor of its own:", Dataset.__init__ is not object.__init__)
tries = {
    "Dataset(1)": lambda: Dataset(1),
    "type(Empty()).__name__": lambda: type(Empty()).__name__,
    "Empty()[0]": lambda: Empty()[0],
    "len(Squares())": lambda: len(Squares()),
    "type(Squares() + Squares()).__name__": lambda: type(Squares() + Squares()).__name__,
}
facts.Table(
    "what the base class does",
    [{"call": call, "result": attempt(make)} for call, make in tries.items()],
)

# %% [markdown] lang="en"
# There is no constructor: the signature in the notes is an artifact of old documentation tools. "Abstract" is not enforced when
# an object is made; it fails on the first read. What a subclass does inherit is `+`, and that asks both sides for a length.
#
# ## Without a length
#
# `Squares` has no `__len__`, which is allowed. A loader for it must fail somewhere. Where?
# 1: `DataLoader(...)`, 2: `iter(loader)`, 3: `next(...)`.

# %% [markdown] lang="zh"
# 它没有构造函数：笔记里的签名是旧文档工具留下的痕迹。“抽象”在创建对象时并不强制，读第一个样本时才报错。
# 子类真正继承到的是 `+`，而它要问两边的长度。
#
# ## 没有长度
#
# `Squares` 没有 `__len__`，这是允许的。它的加载器总会在某处报错。在哪里？
# 1：`DataLoader(...)`，2：`iter(loader)`，3：`next(...)`。

# %% tags=["predict", "claim:DS-05"]
my_guess = ...  # 1, 2 or 3

moment = 0
try:
    moment = 1
    loader = DataLoader(Squares(), batch_size=2)
    moment = 2
    iterator = iter(loader)
    moment = 3
    next(iterator)
except TypeError as error:
    print(f"TypeError: {error}")
exercises.predict(my_guess, torch=moment)

# %% [markdown] lang="en"
# With workers, 2 is right: they are sent requests at once. The moment depends on who needs the length. Three loaders:

# %% [markdown] lang="zh"
# 有工作进程（worker）时，答案是 2：请求在那一刻就发出。报错的时刻取决于谁需要长度。看三个加载器：


# %% tags=["claim:DS-05"]
def lived_until(use, **arguments):
    try:
        loader = DataLoader(Squares(), batch_size=2, **arguments)
    except TypeError:
        return "fails when it is made"
    try:
        return str(use(loader))
    except TypeError:
        return "fails when it is used"


def batches(loader):
    return [batch.tolist() for batch in loader]


asked = {
    "shuffle=True": {"shuffle": True},
    "default order": {},
    "sampler=[4, 2, 3]": {"sampler": [4, 2, 3]},
}
facts.Table(
    "a dataset without __len__",
    [
        {
            "loader": name,
            "len(loader)": lived_until(len, **loader),
            "loop": lived_until(batches, **loader),
        }
        for name, loader in asked.items()
    ],
)

# %% [markdown] lang="en"
# A sampler that knows its own length needs nothing from the dataset.
#
# ## Two ends
#
# This shelf says that it holds two samples, but a third one stands there.
# How many come from a plain `for` loop over the dataset, and how many from a loader?

# %% [markdown] lang="zh"
# 采样器知道自己的长度，就不再需要数据集的长度。
#
# ## 两个终点
#
# 这个书架说自己有两个样本，架上却还有第三个。
# 直接用 `for` 遍历数据集得到几个？用加载器得到几个？


# %% tags=["predict", "claim:DS-05"]
class Shelf(Dataset):
    books = ("A", "B", "C")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.books[index]


my_guess = ...  # for example [2, 2]: loop, loader

looped, loaded = list(Shelf()), list(DataLoader(Shelf(), batch_size=None))
print("loop:", looped, "| loader:", loaded)
print("loop over Squares, cut after 6:", list(itertools.islice(Squares(), 6)))
exercises.predict(my_guess, torch=[len(looped), len(loaded)])

# %% [markdown] lang="en"
# A `for` loop never asks for `__len__`. It counts up from 0 until `IndexError`. `Squares` never raises one, so its loop never ends.
# A dataset that can be trusted has both ends at the same place.
#
# ## Real keys: a table
#
# `datasets.SqliteTable` gives a row of a table by its key. Here a key is a text of four digits. Every
# fifth image is kept for testing, so the keys have gaps.

# %% [markdown] lang="zh"
# `for` 循环从不问 `__len__`。它从 0 数起，直到 `IndexError`。`Squares` 从不抛出它，所以循环没有尽头。
# 可靠的数据集，两个终点在同一处。
#
# ## 真实的键：一张表
#
# `datasets.SqliteTable` 按键给出表中的一行。这里的键是四位数字的文本。每五张图像留一张作测试，所以键不连续。

# %% tags=["claim:DS-02", "claim:DS-06"]
table = datasets.SqliteTable(file, "digits", decode=datasets.digit_row)
names = table.keys()
print(len(table), "rows, the first keys are", names[:3])
image, label = table["0007"]
print("table['0007'] is an image", tuple(image.shape), "of a", label)
try:
    next(iter(DataLoader(table, batch_size=4)))
except KeyError as error:
    print("no sampler:", error)
images, labels = next(iter(DataLoader(table, sampler=names, batch_size=4)))
print("sampler=keys:", tuple(images.shape), labels.tolist())

# %% [markdown] lang="en"
# A list of keys as the sampler gives one fixed order, and then `shuffle=True` is refused.
#
# A neater way: `Subset(table, keys)`. It maps positions to **whatever stands in the list**, so position 0 becomes the key `"0001"`.
# The default sampler, `shuffle=True` and `len` all work again. The `generator` below only makes the random order the same in
# every run; lesson [04](04_samplers.ipynb) is about that.

# %% [markdown] lang="zh"
# 用键的列表作采样器，顺序就固定了，而且不能再写 `shuffle=True`。
#
# 更巧的办法：`Subset(table, keys)`。它把位置换成**列表里的任何东西**，位置 0 就成了键 `"0001"`。
# 默认的采样器、`shuffle=True` 和 `len` 又都能用了。下面的 `generator` 只是让随机顺序每次运行都相同，
# 第 [04](04_samplers.ipynb) 课会讲到。

# %% tags=["claim:DS-02", "claim:DS-06"]
try:
    DataLoader(table, sampler=names, shuffle=True)
except ValueError as error:
    print("ValueError:", error)
by_place = Subset(table, names[:6])
print("positions 0 to 5 are the keys", by_place.indices)
order = torch.Generator().manual_seed(0)
print(
    "shuffled labels:",
    next(iter(DataLoader(by_place, batch_size=6, shuffle=True, generator=order)))[1].tolist(),
)

# %% [markdown] lang="en"
# ## A whole batch in one read
#
# A batch of four keys: four calls of `__getitem__`, four queries. If the dataset has a method `__getitems__`, the loader calls it
# once for each batch, with the list of keys. It is optional, and the notes do not mention it.
#
# `Counted` shows what happens: each sample carries the number of the query that read it. `SqliteTable` turns one call of
# `__getitems__` into one SQL query; `table[key]` calls it with one key.

# %% [markdown] lang="zh"
# ## 一次读出整个批次
#
# 一个批次四个键：调用四次 `__getitem__`，就是四次查询。数据集若有 `__getitems__` 方法，加载器对每个批次只调用它一次，参数是键的列表。
# 这个方法可有可无，笔记没有提到它。
#
# `Counted` 让你看到过程：每个样本都带着读出它的那次查询的编号。`SqliteTable` 把一次 `__getitems__` 调用变成一次 SQL 查询；
# `table[key]` 就是用一个键调用它。


# %%
class Counted(datasets.SqliteTable):
    queries = 0

    def __getitems__(self, keys):
        self.queries += 1
        return [
            {"key": row["key"], "label": row["label"], "query": self.queries}
            for row in super().__getitems__(keys)
        ]


class OneByOne(Dataset):
    """The same samples without `__getitems__`."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


bulk = next(iter(DataLoader(Subset(Counted(file, "digits"), names), batch_size=4)))
single = next(iter(DataLoader(OneByOne(Subset(Counted(file, "digits"), names)), batch_size=4)))
print("keys         ", bulk["key"])
print("__getitems__ ", bulk["query"].tolist())
print("__getitem__  ", single["query"].tolist())

# %% [markdown] lang="en"
# Now two tables with `__getitems__`, five keys each, joined by `+`. The loader makes batches of 4: 4, 4, 2.
# How many queries read the ten samples?

# %% [markdown] lang="zh"
# 现在有两张带 `__getitems__` 的表，各五个键，用 `+` 接起来。加载器每批 4 个：4、4、2。
# 读出这十个样本要几次查询？

# %% tags=["predict"]
my_guess = ...  # a number

left, right = Counted(file, "digits"), Counted(file, "digits")
joined = Subset(left, names[:5]) + Subset(right, names[5:10])
keys = [batch["key"] for batch in DataLoader(joined, batch_size=4)]
print(type(joined).__name__, "has __getitems__:", hasattr(joined, "__getitems__"))
exercises.predict(my_guess, torch=left.queries + right.queries)

# %% [markdown] lang="en"
# `ConcatDataset` has no `__getitems__`, so it hides that of its parts. No message, only one query for each sample again.
# `Subset` passes it on.
#
# `Reads` shows the batches of a run as text and as a picture: here batch 0 was read with `__getitems__`, batch 1 without. Its cell is folded, since it only counts and draws.
# A click on its line opens it, and so does *Expand Selected Code* in the View menu.

# %% [markdown] lang="zh"
# `ConcatDataset` 没有 `__getitems__`，于是挡住了各部分的同名方法。没有报错，只是又变成每个样本查询一次。`Subset` 会把它传下去。
#
# `Reads` 用文字和图显示一次运行的批次：这里批次 0 用了 `__getitems__`，批次 1 没用。
# 它的单元格是折叠的，因为它只负责数数和画图；点一下那一行，或用 View 菜单里的 *Expand Selected Code*，就能展开。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclasses.dataclass(frozen=True, repr=False)
class Reads(facts.Facts):
    """Batches whose samples carry the number of their query, as text and for `pictures.grid`."""

    batches: list

    def summary(self):
        queries = sum(row["queries"] for row in self.rows())
        samples = sum(row["samples"] for row in self.rows())
        return f"{samples} samples in {len(self.batches)} batches by {queries} queries"

    def rows(self):
        return [
            {
                "batch": number,
                "keys": batch["key"],
                "labels": batch["label"].tolist(),
                "samples": len(batch["key"]),
                "queries": len(batch["query"].unique()),
            }
            for number, batch in enumerate(self.batches)
        ]

    def grid(self):
        rows = []
        for number, batch in enumerate(self.batches):
            boxes = {}
            for key, query in zip(batch["key"], batch["query"].tolist(), strict=True):
                boxes.setdefault(query, []).append({"text": key})
            rows.append(
                {
                    "label": f"batch {number}",
                    "cells": [{"label": f"query {q}", "items": k} for q, k in boxes.items()],
                }
            )
        return {"rows": rows}


Reads([bulk, single])

# %% [markdown] lang="en"
# ## Explore: who reads what, how often
#
# A row is a batch, a box is one query, with the keys that it read. Every picture is a real run.
#
# Two things to change: set `dataset` to `ConcatDataset`; then back to `Subset`, and `batch_size` to 10.

# %% [markdown] lang="zh"
# ## 动手探索：谁读了什么，读了几次
#
# 一行是一个批次（batch），一个框是一次查询，框里是它读出的键。每张图都来自一次真实的运行。
#
# 试着改两处：把 `dataset` 改成 `ConcatDataset`；再改回 `Subset`，把 `batch_size` 改成 10。


# %% tags=["explore"]
def reads(dataset, batch_size, shuffle):
    whole = Subset(Counted(file, "digits"), names[:10])
    halves = [Subset(whole, range(5)), Subset(whole, range(5, 10))]
    joined = ConcatDataset(halves)
    choices = {"Subset": whole, "OneByOne": OneByOne(whole), "ConcatDataset": joined}
    order = torch.Generator().manual_seed(0)
    loading = {"batch_size": batch_size, "shuffle": shuffle, "generator": order}
    return Reads(list(DataLoader(choices[dataset], **loading)))


def queries_of_batches(found):
    return pictures.grid(found, title="Queries of each batch")


widgets.explore(
    reads,
    queries_of_batches,
    dataset=["Subset", "OneByOne", "ConcatDataset"],
    batch_size=[4, 3, 10],
    shuffle=[False, True],
)

# %% [markdown] lang="en"
# ## Trust that nobody checks
#
# The loader believes what `__getitems__` returns. This one loses keys that do not exist, as a bare `WHERE key IN (...)` does.

# %% [markdown] lang="zh"
# ## 没有人核对的信任
#
# `__getitems__` 返回什么，加载器就信什么。下面这个会弄丢不存在的键，只写一句 `WHERE key IN (...)` 就会这样。


# %%
store = {0: 10, 1: 11, 3: 13}


class Loses(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, key):
        return store[key]


class LosesQuietly(Loses):
    def __getitems__(self, keys):
        return [store[key] for key in keys if key in store]


def result(dataset):
    try:
        return batches(DataLoader(dataset, batch_size=4))
    except KeyError as error:
        return f"KeyError: {error}"


facts.Table(
    "keys 0, 1, 2, 3, but 2 is gone",
    [{"dataset": type(d).__name__, "batches of 4": result(d)} for d in (Loses(), LosesQuietly())],
)

# %% [markdown] lang="en"
# A smaller batch, no message. So a read in bulk has three duties: every key, in the order asked for, repeats included.
#
# ## Exercise 1: read a batch with one query
#
# The table is `digits(key, label)`. For 3 keys the query is `SELECT key, label FROM digits WHERE key IN (?, ?, ?)`.
# `connection.execute(query, keys)` returns pairs, in the order of the **table**.
# The check counts your queries. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 批次变小了，没有任何提示。所以成批读取有三项责任：每个键都要有，按要求的顺序，重复的键也要给。
#
# ## 练习 1：一次查询读一个批次
#
# 表是 `digits(key, label)`。有 3 个键时，查询是 `SELECT key, label FROM digits WHERE key IN (?, ?, ?)`。
# `connection.execute(query, keys)` 返回二元组，按**表**的顺序排列。
# 检查时会数你的查询次数。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:02_read_batch"]
def read_batch(connection, keys):
    """The labels of these keys, in their order, by one query; KeyError if the table lacks one."""
    ...


# solution
def read_batch(connection, keys):
    marks = ", ".join("?" * len(keys))
    found = dict(connection.execute(f"SELECT key, label FROM digits WHERE key IN ({marks})", keys))
    return [found[key] for key in keys]


# %% tags=["check"]
exercises.check("02_read_batch", read_batch)  # stuck? exercises.hint("02_read_batch")

# %% [markdown] lang="en"
# ## Exercise 2: your own `ConcatDataset`
#
# Join two datasets with integer keys. The check compares with torch's on random cases: with `len`, with every index from both ends,
# and with a plain `for` loop, which must end. Beyond either end, raise `IndexError`.

# %% [markdown] lang="zh"
# ## 练习 2：你自己的 `ConcatDataset`
#
# 把两个以整数为键的数据集接起来。检查时会在随机情况上与 torch 的比较：比较 `len`，比较从两端数起的每个索引，
# 还有 `for` 循环，它必须停下来。超出任何一端时，抛出 `IndexError`。


# %% tags=["exercise:02_joined"]
class Joined(Dataset):
    """Joined(["a", "b"], ["c"]) has the samples a, b, c; Joined(...)[-1] is the last one."""

    ...


# solution
class Joined(Dataset):
    def __init__(self, first, second):
        self.first, self.second = first, second

    def __len__(self):
        return len(self.first) + len(self.second)

    def __getitem__(self, index):
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} is outside of {len(self)} samples")
        return (
            self.first[place] if place < len(self.first) else self.second[place - len(self.first)]
        )


# %% tags=["check"]
exercises.check("02_joined", Joined)  # stuck? exercises.hint("02_joined")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements in the style of the notes. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法，写法与笔记相同。哪一条不成立？单元格会给出证明。


# %% tags=["bug-hunt", "claim:DS-03", "claim:DS-05"]
class Folder(Dataset):
    def __init__(self, root, **kwds):
        super().__init__(root, **kwds)  # the base class takes any arguments


my_guess = ...  # 1, 2, 3 or 4

statements = {
    1: lambda: len(DataLoader(Squares(), sampler=[3, 1, 2], batch_size=2)) == 2,
    2: lambda: batches(DataLoader({"a": 1, "b": 2}, sampler=["b", "a"], batch_size=2)) == [[2, 1]],
    3: lambda: isinstance(Folder("digits"), Dataset),
    4: lambda: isinstance(Empty(), Dataset),
}
results = {number: attempt(holds) for number, holds in statements.items()}
print(facts.Table("proof", [{"statement": n, "result": r} for n, r in results.items()]))
exercises.predict(
    my_guess, torch=next(number for number, found in results.items() if found != "True")
)

# %% [markdown] lang="en"
# The comment was the lie: `Dataset` has no constructor that takes arguments.

# %% [markdown] lang="zh"
# 说谎的是那句注释：`Dataset` 没有接受参数的构造函数。

# %% [markdown] lang="en"
# ## Recap
#
# A dataset is anything with `len` and `[key]`; the sampler says which keys are read. Without `__len__`, the moment of failure
# depends on who needs the length. `__getitems__` reads a batch at once, and wrappers such as `ConcatDataset` hide it.
#
# | Message | Cause | Where |
# |---|---|---|
# | `KeyError: 0` | keys that are not 0, 1, 2, and no sampler | Wrong first |
# | `Dataset() takes no arguments` | `Dataset(1)` | What does the class `Dataset` add? |
# | `object.__init__() takes exactly one argument` | arguments passed on to the base class | Bug hunt |
# | `Subclasses of Dataset should implement __getitem__` | a subclass without `__getitem__` | What does the class `Dataset` add? |
# | `object of type 'Squares' has no len()` | no `__len__`, and a sampler that needs it | Without a length |
# | no message, a loop without end | `__getitem__` never raises `IndexError` | Two ends |
# | no message, many queries | a wrapper without `__getitems__` | A whole batch in one read |
# | no message, a smaller batch | `__getitems__` leaves keys out | Trust that nobody checks |
#
# What next: lesson [03](03_iterable_datasets.ipynb), datasets without keys.

# %% [markdown] lang="zh"
# ## 小结
#
# 有 `len` 和 `[key]` 的东西都是数据集；读哪些键由采样器决定。没有 `__len__` 时，在哪一刻报错取决于谁需要长度。
# `__getitems__` 一次读出整个批次，而 `ConcatDataset` 这样的包装会挡住它。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `KeyError: 0` | 键不是 0、1、2，又没有给采样器 | 先看错误 |
# | `Dataset() takes no arguments` | `Dataset(1)` | `Dataset` 这个类添了什么 |
# | `object.__init__() takes exactly one argument` | 把参数传给了基类 | 找错 |
# | `Subclasses of Dataset should implement __getitem__` | 子类没有 `__getitem__` | `Dataset` 这个类添了什么 |
# | `object of type 'Squares' has no len()` | 没有 `__len__`，而采样器需要它 | 没有长度 |
# | 没有报错，循环没有尽头 | `__getitem__` 从不抛出 `IndexError` | 两个终点 |
# | 没有报错，查询次数很多 | 包装没有 `__getitems__` | 一次读出整个批次 |
# | 没有报错，批次变小 | `__getitems__` 漏掉了键 | 没有人核对的信任 |
#
# 下一步：第 [03](03_iterable_datasets.ipynb) 课，没有键的数据集。

# %%
exercises.progress("02")
