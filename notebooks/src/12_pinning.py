# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Pinned memory: which parts of a batch", zh: "锁页内存：批次的哪些部分"}
#     sections: ["000: 5. Memory Pinning"]
#     minutes: 45
# ---

# %% [markdown] lang="en"
# # 12 · Pinned memory: which parts of a batch
#
# **You will be able to** say which tensors of a batch `pin_memory=True` reaches, what it does without an accelerator, and
# make a batch type of your own pinnable.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [08](08_collate.ipynb); no GPU | 45 | 5. Memory Pinning | [简体中文](../zh/12_pinning.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 12 · 锁页内存：批次的哪些部分
#
# **学完本课，你能够**：说出 `pin_memory=True` 会碰到批次里的哪些张量、没有加速器时它做什么，并让自己的批次类型支持锁页。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [08](08_collate.ipynb) 课；不需要 GPU | 45 | 5. Memory Pinning | [English](../en/12_pinning.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# A loader asks one question before it pins: is there an **accelerator** (a GPU, or another device that computes beside the
# processor)? Here `machine(accelerator=...)` answers for your
# computer, so that you can see both machines on any of them.
#
# `Page` is a tensor that needs no accelerator: its `pin_memory()` returns a marked copy. A real tensor's returns a copy, too.
# All else is torch's own code: the loader, its way through the batch, its rules.

# %% [markdown] lang="zh"
# ## 准备
#
# 加载器锁页之前只问一个问题：有**加速器**（accelerator，即 GPU 或在处理器之外负责计算的其他设备）吗？这里由 `machine(accelerator=...)` 替你的电脑回答，于是在任何电脑上都能看到两种机器。
#
# `Page` 是不需要加速器的张量：它的 `pin_memory()` 返回一个带标记的副本。真正的张量返回的也是副本。
# 其余都是 torch 自己的代码：加载器、它走过批次的路线、它的规则。

# %% tags=["setup"]
import contextlib
import dataclasses
import statistics
import time
import types
import warnings
from collections import OrderedDict, deque, namedtuple
from collections.abc import Mapping, Sequence
from unittest import mock

import numpy as np
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader

from tutorlib import datasets, exercises, facts, pictures, widgets

digits = datasets.digits("train")


@contextlib.contextmanager
def machine(accelerator):
    """Answers the loader's question whether there is an accelerator."""
    cuda = torch.device("cuda")
    with (
        mock.patch.object(torch.accelerator, "is_available", return_value=accelerator),
        mock.patch.object(
            torch.accelerator, "current_accelerator", return_value=cuda if accelerator else None
        ),
    ):
        yield


class Page(torch.Tensor):
    """A tensor whose pin_memory() works on any machine."""

    def pin_memory(self, device=None):
        copy = self.clone()
        copy.marked = True
        return copy

    def is_pinned(self, device=None):
        return getattr(self, "marked", False)


def page(*shape):
    return torch.ones(shape).as_subclass(Page)


pinned = page(2).is_pinned(), page(2).pin_memory().is_pinned()
print("ready:", len(digits), "real digits; pinned:", *pinned)

# %% [markdown] lang="en"
# ## Wrong first
#
# A batch type of your own, with a `pin_memory()` as the notes advise. On a laptop without an accelerator it has worked for weeks.
# Now it runs on a server that has one. Run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 一个自定义的批次类型，按笔记的建议写了 `pin_memory()`。在没有加速器的笔记本电脑上，它好好地跑了几个星期。
# 现在换到有加速器的服务器上。运行这个单元格。


# %% tags=["raises-exception", "wrong-first", "claim:PM-05"]
class Forgetful:
    def __init__(self, samples):
        self.images = torch.stack([image for image, _ in samples]).as_subclass(Page)

    def pin_memory(self):
        self.images = self.images.pin_memory()


for name, accelerator in {"laptop": False, "server": True}.items():
    # the laptop's warning is what a later cell is about
    with machine(accelerator), warnings.catch_warnings(action="ignore"):
        batch = next(iter(DataLoader(digits, batch_size=4, collate_fn=Forgetful, pin_memory=True)))
    print(name, tuple(batch.images.shape))

# %% [markdown] lang="en"
# ## The idea
#
# An accelerator copies fastest from **pinned** (page-locked) memory: pages that the system promises not to move. From ordinary
# memory, the driver first copies to a pinned buffer of its own.
#
# With `pin_memory=True` the loader walks through each finished batch, in the main process (if there are workers, in a thread of its own),
# and calls `pin_memory()` on what it
# finds. **What the call returns takes the place of what was there.** `Forgetful.pin_memory` returns nothing, so the batch
# became `None`.

# %% [markdown] lang="zh"
# ## 概念
#
# 加速器从**锁页内存**（pinned memory）复制最快：系统承诺不移动这些内存页。
# 从普通内存复制时，驱动程序要先复制到自己的锁页缓冲区。
#
# 设置 `pin_memory=True` 后，加载器在主进程里（有工作进程时，在单独的线程里）走过每个做好的批次，对遇到的东西调用 `pin_memory()`。
# **调用的返回值取代原来的东西。** `Forgetful.pin_memory` 什么也没返回，于是批次变成了 `None`。

# %% [markdown] lang="en"
# ## Without an accelerator
#
# No accelerator, plain tensors, `pin_memory=True`. What is `batch.is_pinned()`: `True`, `False`, or `"RuntimeError"`?
# Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 没有加速器时
#
# 没有加速器，普通张量，`pin_memory=True`。`batch.is_pinned()` 是什么：`True`、`False`，还是 `"RuntimeError"`？
# 先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。


# %% tags=["predict", "claim:PM-02"]
def told(work):
    """What `work` returns, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        return work(), [str(one.message) for one in given]


my_guess = ...  # True, False or "RuntimeError"

with machine(accelerator=False):
    loader, while_made = told(
        lambda: DataLoader([1.0, 2.0], pin_memory=True, pin_memory_device="cuda")
    )
    batch, while_read = told(lambda: next(iter(loader)))
print("warnings while the loader was made:", len(while_made))
for message in while_read:
    print("warning at iter(loader):", message)
exercises.predict(my_guess, torch=batch.is_pinned())

# %% [markdown] lang="en"
# A warning, and an ordinary tensor. So `pin_memory=True` is safe to leave in code that runs anywhere. Two details: the warning
# comes at `iter(loader)`, for each iterator, and `pin_memory_device` is deprecated and has no effect.
#
# Now four digits, on both machines, with and without `pin_memory=True`:

# %% [markdown] lang="zh"
# 一条警告，一个普通张量。所以到处运行的代码里可以放心写 `pin_memory=True`。
# 两个细节：警告出现在 `iter(loader)`，每个迭代器一次；`pin_memory_device` 已弃用，不起作用。
#
# 现在用四个数字图像，在两种机器上，`pin_memory=True` 设与不设各试一次：


# %% tags=["claim:PM-02"]
pages = [
    (image.as_subclass(Page), torch.tensor(label).as_subclass(Page))
    for image, label in (digits[i] for i in range(8))
]

rows = []
for accelerator in (False, True):
    for pin in (False, True):
        # the warning was shown above
        with machine(accelerator), warnings.catch_warnings(action="ignore"):
            images, labels = next(iter(DataLoader(pages, batch_size=4, pin_memory=pin)))
        setting = {"accelerator": accelerator, "pin_memory": pin}
        rows.append(
            setting | {"images pinned": images.is_pinned(), "labels pinned": labels.is_pinned()}
        )
facts.Table("a batch of 4 digits", rows)

# %% [markdown] lang="en"
# ## Is a copy from pinned memory faster?
#
# The notes say much faster. That takes a GPU to measure, and the machine that wrote these outputs has none: here the speed is
# **not** proven. The cell measures where it finds a GPU: there, type `seconds` in a new cell. What it prints can be shown on every
# machine: without an accelerator `tensor.pin_memory()` is refused.

# %% [markdown] lang="zh"
# ## 从锁页内存复制真的更快吗
#
# 笔记说快得多。这要有 GPU 才能测，而产生这些输出的机器没有 GPU：速度在这里**没有**得到证明。
# 找得到 GPU 时，这个单元格就会测：在那里新建一个单元格，输入 `seconds`。它打印的是任何机器上都能证明的部分：
# 没有加速器时，`tensor.pin_memory()` 会被拒绝。


# %% tags=["claim:PM-01"]
def can_pin():
    try:
        return torch.ones(2).pin_memory().is_pinned()
    except RuntimeError:
        return False


def copy_seconds(device, megabytes=64):
    """The median time of a copy to `device`, from ordinary and from pinned memory."""
    ordinary = torch.ones(megabytes * 2**18)
    seconds = {}
    for name, source in {"ordinary": ordinary, "pinned": ordinary.pin_memory()}.items():
        times = []
        for _ in range(9):
            start = time.perf_counter()
            source.to(device)
            torch.accelerator.synchronize()
            times.append(time.perf_counter() - start)
        seconds[name] = statistics.median(times)
    return seconds


device = "cuda" if torch.cuda.is_available() else "xpu" if torch.xpu.is_available() else None
seconds = copy_seconds(device) if device else "not measured: no CUDA or XPU device"
refused = not can_pin()
here = torch.accelerator.is_available()
print("without an accelerator pin_memory() raises RuntimeError:", here or refused)

# %% [markdown] lang="en"
# Pinning is itself a copy, and pinned pages are lost to the rest of the system. It pays together with
# `tensor.to(device, non_blocking=True)`: only a copy from pinned memory can run beside the computation.
#
# ## How deep does it look?
#
# The notes say: tensors, and mappings and **iterables** that contain tensors. Here are nine batches, each with one `Page`
# inside. In which is it **not** pinned?

# %% [markdown] lang="zh"
# 锁页本身就是一次复制，锁住的内存页别的程序也用不了。它要和 `tensor.to(device, non_blocking=True)` 配合才划算：
# 只有从锁页内存出发的复制，才能与计算同时进行。
#
# ## 它看得多深
#
# 笔记说：张量，以及包含张量的映射和**可迭代对象**。这里有九个批次，里面各有一个 `Page`。哪些里面的**没有**锁页？


# %% tags=["predict", "claim:PM-03", "claim:PM-04"]
def through_the_loader(batch):
    """The batch as a loader hands it over on a machine with an accelerator."""
    with machine(accelerator=True):
        return next(
            iter(
                DataLoader(
                    [batch], batch_size=None, collate_fn=lambda given: given, pin_memory=True
                )
            )
        )


Point = namedtuple("Point", "x")


@dataclasses.dataclass
class Record:
    x: Page


batches = {
    "dict": {"x": page(2)},
    "OrderedDict": OrderedDict(x=page(2)),
    "list": [page(2)],
    "tuple": (page(2),),
    "namedtuple": Point(page(2)),
    "deque": deque([page(2)]),
    "set": {page(2)},
    "generator": (page(2) for _ in range(1)),
    "dataclass": Record(page(2)),
}
my_guess = ...  # for example ["deque", "set"]

rows = []
for name, batch in batches.items():
    after = through_the_loader(batch)
    inside = (
        after.values() if isinstance(after, dict) else [after.x] if name == "dataclass" else after
    )
    same = {"comes out as": type(after).__name__, "the same object": after is batch}
    rows.append({"batch": name} | same | {"pinned": all(one.is_pinned() for one in inside)})
print(facts.Table("one tensor in each", rows))
exercises.predict(my_guess, torch=[row["batch"] for row in rows if not row["pinned"]])

# %% [markdown] lang="en"
# **Sequences**, not iterables. Sets and generators are iterable, and they come out as they went in. So does a dataclass, with
# no message: everything runs, only slower than you think.
#
# ## Not in place
#
# Two `Record`s are pinned by hand, in two ways. Which of the two is pinned afterwards?

# %% [markdown] lang="zh"
# 是**序列**，不是可迭代对象。集合和生成器可以遍历，却原样出来。dataclass 也是这样，而且没有任何提示：
# 一切照常运行，只是比你以为的慢。
#
# ## 不是原地修改
#
# 用两种写法手动给两个 `Record` 锁页。之后哪个是锁页的？

# %% tags=["predict", "claim:PM-04"]
my_guess = ...  # a list of two, for example [False, False]

kept, thrown = Record(page(2)), Record(page(2))
kept.x = kept.x.pin_memory()
thrown.x.pin_memory()
exercises.predict(my_guess, torch=[kept.x.is_pinned(), thrown.x.is_pinned()])

# %% [markdown] lang="en"
# `pin_memory()` returns a copy and leaves the tensor where it is.
#
# ## A method of your own
#
# Whatever has an attribute `pin_memory` is asked **first**, before its type counts. Five batch types, one tensor each:

# %% [markdown] lang="zh"
# `pin_memory()` 返回副本，原来的张量留在原处。
#
# ## 自己的方法
#
# 只要有 `pin_memory` 这个属性，就**最先**调用它，然后才看类型。五种批次类型，各有一个张量：


# %% tags=["claim:PM-04", "claim:PM-05"]
class Silent(Record):
    """No method."""


class Right(Record):
    def pin_memory(self):
        self.x = self.x.pin_memory()
        return self


class Lost(Record):
    def pin_memory(self):
        self.x.pin_memory()
        return self


class Nothing(Record):
    def pin_memory(self):
        self.x = self.x.pin_memory()


class Greedy(dict):
    """A dict, which torch could pin alone."""

    def pin_memory(self):
        return self


def pinned_inside(after):
    if after is None:
        return None
    return (after["x"] if isinstance(after, dict) else after.x).is_pinned()


rows = []
for batch in (Silent(page(2)), Right(page(2)), Lost(page(2)), Nothing(page(2)), Greedy(x=page(2))):
    after = through_the_loader([batch])[0]
    came = {"comes out as": type(after).__name__, "the same object": after is batch}
    rows.append({"type": type(batch).__name__} | came | {"pinned": pinned_inside(after)})
facts.Table("a list with one batch of its own type", rows)

# %% [markdown] lang="en"
# Only `Right` does its work. `Greedy` shows that a method also switches torch's own rule off.
#
# ## Explore: tensor by tensor
#
# Each picture is a real batch that went through a real loader. A `!` marks a tensor that was not pinned, or a type that changed.
#
# Two things to change: set `batch` to `a set and a generator`; then to `a field called pin_memory`.

# %% [markdown] lang="zh"
# 只有 `Right` 做到了。`Greedy` 说明：有了方法，torch 自己的规则就不再起作用。
#
# ## 动手探索：逐个张量
#
# 每张图都是一个真实的批次，经过了真实的加载器。`!` 标出没有锁页的张量，或变了的类型。
#
# 试着改两处：把 `batch` 改成 `a set and a generator`；再改成 `a field called pin_memory`。


# %% tags=["folded"]
# Only for the picture; "rule" is this lesson's own reading of torch's code. Open it if you like.
class XRay(facts.Table):
    def tree(self):
        def line(row):
            deep = {
                "depth": row["where"].count("."),
                "path": row["where"],
                "surprise": row["note"] is not None,
            }
            return deep | {name: row[name] for name in ("before", "rule", "after")}

        return [line(row) for row in self.content]


def parts(value):
    """What lies inside, as (name, value); of a generator, what it still gives."""
    if isinstance(value, (str, bytes, torch.Tensor, np.ndarray)):
        return []
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (Sequence, set)) or hasattr(value, "__next__"):
        return list(enumerate(value))
    return list(vars(value).items()) if hasattr(value, "__dict__") else []


def rule_for(value):
    if hasattr(value, "pin_memory"):
        return "its own pin_memory()"
    if isinstance(value, (str, bytes)):
        return "text: left alone"
    if isinstance(value, (Mapping, Sequence)):
        return "go inside"
    return "no rule: left alone"


def look(path, before, after, rows, outside="go inside"):
    beyond = "up to its owner" if outside == "its own pin_memory()" else "not reached"
    rule = rule_for(before) if outside == "go inside" else beyond
    if isinstance(after, torch.Tensor):
        note = None if after.is_pinned() else "ordinary memory"
        found = "pinned" if after.is_pinned() else "not pinned"
    else:
        found = type(after).__name__
        note = None if type(before) is type(after) else f"was a {type(before).__name__}"
    rows.append(
        {"where": path, "before": type(before).__name__, "rule": rule, "after": found, "note": note}
    )
    for (name, one), (_, other) in zip(parts(before), parts(after), strict=False):
        look(f"{path}.{name}", one, other, rows, rule)


# %% tags=["explore"]
batch_of = {
    "own types": lambda: [Silent(page(2)), Right(page(2)), Lost(page(2)), Nothing(page(2))],
    "digits": lambda: next(iter(DataLoader(pages, batch_size=4))),
    "dict with a box and names": lambda: {
        "image": page(2),
        "box": Point(page(4)),
        "names": ("a", "b"),
    },
    "a set and a generator": lambda: {
        "set": {page(2)},
        "generator": (page(2) for _ in range(2)),
        "range": range(2),
    },
    "packed sequence": lambda: {"packed": pack_sequence([page(3), page(2)])},
    "an array": lambda: {"array": np.ones(2), "tensor": page(2)},
    "a field called pin_memory": lambda: {"settings": types.SimpleNamespace(pin_memory=True)},
}


def xray(batch):
    before, given = batch_of[batch](), batch_of[batch]()
    try:
        after = through_the_loader(given)
    except TypeError as error:
        row = {
            "where": "batch",
            "before": type(given).__name__,
            "rule": "go inside",
            "after": type(error).__name__,
        }
        return XRay("no batch", [row | {"note": str(error)}])
    rows = []
    look("batch", before, after, rows)
    states = [row["after"] for row in rows]
    pinned, others = states.count("pinned"), states.count("not pinned")
    return XRay(f"{pinned} pinned, {others} not pinned", rows)


widgets.explore(xray, pictures.tree, batch=list(batch_of))

# %% [markdown] lang="en"
# torch only asks whether the attribute `pin_memory` is there, and calls it. A field of that name stops the loader.
#
# ## Exercise 1: torch's walk
#
# Write the walk: whatever has a `pin_memory` gets it called; dicts, namedtuples, lists and tuples are rebuilt with pinned contents;
# all else stays. The check compares with torch's own function on random batches. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# torch 只看有没有 `pin_memory` 这个属性，有就调用。字段碰巧叫这个名字，加载器就会停下。
#
# ## 练习 1：torch 的路线
#
# 写出这条路线：有 `pin_memory` 的就调用它；字典、具名元组（namedtuple）、列表和元组用锁页后的内容重建；其余原样返回。
# 检查时在随机的批次上与 torch 自己的函数比较。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:12_pin"]
def pin(data):
    """The batch with everything pinned that torch would pin; `data` itself stays as it is."""
    ...


# solution
def pin(data):
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        return {key: pin(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(pin, data))
    if isinstance(data, (list, tuple)):
        return type(data)(map(pin, data))
    return data


# %% tags=["check"]
exercises.check("12_pin", pin)  # stuck? exercises.hint("12_pin")

# %% [markdown] lang="en"
# ## Exercise 2: a batch of your own
#
# `Padded` holds two tensors, `values` and `lengths`, and `names`, a list of `str`. Write its method `pin_memory`, as a function
# of the batch. The class would take it over by `Padded.pin_memory = pin_batch`.

# %% [markdown] lang="zh"
# ## 练习 2：你自己的批次
#
# `Padded` 里有两个张量 `values` 和 `lengths`，还有字符串列表 `names`。把它的方法 `pin_memory` 写成一个以批次为参数的函数。
# 类可以这样使用它：`Padded.pin_memory = pin_batch`。


# %% tags=["exercise:12_pin_batch"]
def pin_batch(batch):
    """The batch, with batch.values and batch.lengths pinned."""
    ...


# solution
def pin_batch(batch):
    batch.values = batch.values.pin_memory()
    batch.lengths = batch.lengths.pin_memory()
    return batch


# %% tags=["check"]
exercises.check("12_pin_batch", pin_batch)  # stuck? exercises.hint("12_pin_batch")

# %% [markdown] lang="en"
# ## Bug hunt
#
# A batch type in the style of the notes. Four numbered lines; one of them does not do what it seems to. Which? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 一个批次类型，写法与笔记相同。四行有编号，其中一行没有做到它看起来在做的事。是哪一行？单元格会给出证明。


# %% tags=["bug-hunt", "claim:PM-05"]
class Batch:
    def __init__(self, samples):
        self.images = torch.stack([image for image, _ in samples])  # 1
        self.extras = [label for _, label in samples]

    def pin_memory(self):
        self.images = self.images.pin_memory()  # 2
        for one in self.extras:
            one = one.pin_memory()  # 3
        return self  # 4


my_guess = ...  # 1, 2, 3 or 4

with machine(accelerator=True):
    batch = next(iter(DataLoader(pages, batch_size=4, collate_fn=Batch, pin_memory=True)))
statements = {
    1: batch.images.shape == (4, 1, 8, 8),
    2: batch.images.is_pinned(),
    3: all(one.is_pinned() for one in batch.extras),
    4: isinstance(batch, Batch),
}
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# Line 3 gives the copy a name and drops it: the list still holds the ordinary tensors. Nothing warns.

# %% [markdown] lang="zh"
# 第 3 行只给副本起了个名字，随即丢掉：列表里仍是普通的张量。没有任何提示。

# %% [markdown] lang="en"
# ## Recap
#
# With an accelerator, the loader pins tensors, whatever has a `pin_memory()`, and what lies in mappings and sequences. What the
# method returns takes the place of the batch. Without an accelerator it warns and goes on.
#
# | Message | Cause | Where |
# |---|---|---|
# | `'NoneType' object has no attribute 'images'` | a `pin_memory()` that returns nothing | Wrong first |
# | `no accelerator is found` (a warning) | `pin_memory=True` on a machine without one | Without an accelerator |
# | no message, slow copies | tensors in a set, a generator or a type of your own | How deep does it look? |
# | no message, slow copies | `tensor.pin_memory()` without an assignment | Not in place |
# | `'bool' object is not callable` | a field that is called `pin_memory` | Explore: tensor by tensor |
#
# What next: lesson [13](13_splits.ipynb), who goes into training and who into test.

# %% [markdown] lang="zh"
# ## 小结
#
# 有加速器时，加载器给这些东西锁页：张量，有 `pin_memory()` 的对象，以及映射和序列里面的内容。
# 方法的返回值取代批次。没有加速器时，它给出警告，然后照常继续。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `'NoneType' object has no attribute 'images'` | `pin_memory()` 没有返回值 | 先看错误 |
# | `no accelerator is found`（警告） | 在没有加速器的机器上设置 `pin_memory=True` | 没有加速器时 |
# | 没有报错，复制很慢 | 张量在集合、生成器或自定义类型里 | 它看得多深 |
# | 没有报错，复制很慢 | 写了 `tensor.pin_memory()` 却没有赋值 | 不是原地修改 |
# | `'bool' object is not callable` | 有个字段名叫 `pin_memory` | 动手探索：逐个张量 |
#
# 下一步：第 [13](13_splits.ipynb) 课，谁进训练集，谁进测试集。

# %%
exercises.progress("12")
