# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "The DataLoader at a glance", zh: "DataLoader 一览"}
#     sections: ["000: torch.utils.data", "000: 1. Dataset Types"]
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 01 · The DataLoader at a glance
#
# **You will be able to** read a `DataLoader` call, predict its batches, and see which worker fetched them.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [00](00_start.ipynb) | 50 | torch.utils.data; 1. Dataset Types | [简体中文](../zh/01_dataloader.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 01 · DataLoader 一览
#
# **学完本课，你能够**：读懂一次 `DataLoader` 调用，预测它给出的批次，并看到每个批次由哪个工作进程取得。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [00](00_start.ipynb) 课 | 50 | torch.utils.data；1. Dataset Types | [English](../en/01_dataloader.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
import inspect

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from tutorlib import datasets, exercises, facts, pictures, trace, widgets

digits = datasets.digits("train")
print("ready:", len(digits), "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# Here is an object that can be looped over. A loader accepts it without a word.
# Run the cell and see what happens one line later.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 这里有一个可以循环遍历的对象，加载器一声不响地收下了它。
# 运行这个单元格，看看下一行发生什么。


# %% tags=["raises-exception", "claim:DS-01"]
class Countdown:
    def __iter__(self):
        return iter([3, 2, 1])


loader = DataLoader(Countdown())
print("made a loader")
list(loader)

# %% [markdown] lang="en"
# The loader asked for a length that nobody had promised. Why?
#
# ## The idea
#
# There are two kinds of dataset. A **map-style** dataset answers `dataset[key]`.
# An **iterable-style** dataset hands out samples one after the other.
# The loader decides between them by one question only: is the object an instance of `IterableDataset`?
# What the object can do does not matter. Everything else counts as map-style.

# %% [markdown] lang="zh"
# 加载器要知道长度，可这个对象从没说过自己有长度。为什么？
#
# ## 概念
#
# 数据集（dataset）分两种。**映射式**（map-style）数据集回答 `dataset[key]`；
# **可迭代式**（iterable-style）数据集把样本一个接一个地交出来。
# 加载器只问一个问题来区分二者：这个对象是不是 `IterableDataset` 的实例？
# 对象能做什么，它不管。其余一切都算映射式。


# %% tags=["claim:DS-01"]
class Stream(IterableDataset):
    def __iter__(self):
        return iter([3, 2, 1])


def outcome(dataset):
    try:
        return [batch.tolist() for batch in DataLoader(dataset, batch_size=2)]
    except TypeError as error:
        return f"TypeError: {error}"


candidates = {
    "list": [3, 2, 1],
    "range": range(3),
    "only __iter__": Countdown(),
    "IterableDataset": Stream(),
}
facts.Table(
    "one question decides the style",
    [
        {
            "dataset": name,
            "IterableDataset?": isinstance(dataset, IterableDataset),
            "batches of 2": outcome(dataset),
        }
        for name, dataset in candidates.items()
    ],
)

# %% [markdown] lang="en"
# ## Predict, run, compare
#
# A loader over four numbers gives two batches. You loop over the **same** loader twice.
# How many batches does each loop see? Write your prediction, then run the cell.
# Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 预测、运行、对照
#
# 加载器读四个数，给出两个批次。你把**同一个**加载器遍历两遍。
# 每一遍各看到几个批次？先写下你的预测，再运行单元格。
# 不写也可以，后面的单元格照常运行。

# %% tags=["predict", "claim:DL-01"]
my_guess = ...  # your prediction, for example [2, 0]

loader = DataLoader(range(4), batch_size=2)
first, second = list(loader), list(loader)
exercises.predict(my_guess, torch=[len(first), len(second)])

# %% [markdown] lang="en"
# A loader is an **iterable**: each loop asks it for a new iterator, which starts from the beginning.
# It is not itself an **iterator**, so it has no "next":

# %% [markdown] lang="zh"
# 加载器是一个**可迭代对象**（iterable）：每次循环都向它要一个新的迭代器，从头开始。
# 它自己不是**迭代器**（iterator），所以没有“下一个”：

# %% tags=["raises-exception", "claim:DL-01"]
next(loader)

# %% [markdown] lang="en"
# Want one batch? Write `next(iter(loader))`. Each `iter(loader)` starts over.

# %% [markdown] lang="zh"
# 只要一个批次？写 `next(iter(loader))`。每个 `iter(loader)` 都从头开始。

# %% tags=["claim:DL-01"]
one, again = next(iter(loader)), next(iter(loader))
print(one.tolist(), again.tolist(), "two iterators:", iter(loader) is not iter(loader))

# %% [markdown] lang="en"
# ## One class, five jobs
#
# Both kinds of dataset, your own order, batches, worker processes and pinned memory (memory from which a GPU can copy
# by itself, lesson [12](12_pinning.ipynb)): all are arguments of one class.

# %% [markdown] lang="zh"
# ## 一个类，五件事
#
# 两种数据集、自定顺序、组成批次、工作进程（worker）、锁页内存（pinned memory，GPU 可以自己从中复制，见第 [12](12_pinning.ipynb) 课）：
# 都是同一个类的参数。

# %% tags=["claim:DL-02"]
calls = {
    "map-style": DataLoader(range(4), batch_size=2),
    "iterable-style": DataLoader(Stream(), batch_size=2),
    "own order": DataLoader(range(4), batch_size=2, sampler=[3, 1, 2, 0]),
    "no batches": DataLoader(range(4), batch_size=None),
    "one worker": DataLoader(range(4), batch_size=2, num_workers=1),
}
rows = []
for job, loader in calls.items():
    out = [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in loader]
    rows.append({"job": job, "out": out})
parameters = inspect.signature(DataLoader).parameters
rows.append({"job": "pinned memory", "out": f"a parameter: {'pin_memory' in parameters}"})
facts.Table("the same class each time", rows)

# %% [markdown] lang="en"
# ## What a batch looks like
#
# Each sample below is a **tuple** of three integers. Eight samples, four to a batch.
# Predict the type of one batch: `"tuple"` or `"list"`?

# %% [markdown] lang="zh"
# ## 批次长什么样
#
# 下面每个样本是由三个整数组成的**元组**（tuple）。共八个样本，每批四个。
# 预测一个批次的类型：`"tuple"` 还是 `"list"`？


# %% tags=["predict", "claim:DL-05"]
class Triple(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index, index, index


my_guess = ...  # "tuple" or "list"

batches = list(DataLoader(Triple(), batch_size=4))
for number, batch in enumerate(batches):
    print(number, batch)
exercises.predict(my_guess, torch=type(batches[0]).__name__)

# %% [markdown] lang="en"
# The fields were transposed: four tuples of three became one list of three tensors.
# Torch makes a list where you gave a tuple, an old habit. Lesson [08](08_collate.ipynb) is about this step.
#
# The same with real data: an image and its label.

# %% [markdown] lang="zh"
# 字段转置了：四个三元组变成一个列表，里面是三个张量。
# 元组变成列表，是 torch 的老习惯。第 [08](08_collate.ipynb) 课专讲这一步。
#
# 换成真实数据也一样：一张图像和它的标签。

# %%
images, labels = next(iter(DataLoader(digits, batch_size=4)))
print(tuple(images.shape), images.dtype, labels.tolist(), labels.dtype)

# %% [markdown] lang="en"
# ## The defaults today
#
# The notes list 13 parameters, with `shuffle=False` and `prefetch_factor=2`. Ask the class itself.
# The table shows every parameter that the notes lack or whose default has changed.

# %% [markdown] lang="zh"
# ## 如今的默认值
#
# 笔记列出 13 个参数，其中 `shuffle=False`、`prefetch_factor=2`。直接问这个类。
# 表中是笔记里没有的参数，以及默认值已经改变的参数。

# %% tags=["claim:DL-03"]
noted = dict(
    dataset=inspect.Parameter.empty, batch_size=1, shuffle=False, sampler=None, batch_sampler=None,
    num_workers=0, collate_fn=None, pin_memory=False, drop_last=False, timeout=0,
    worker_init_fn=None, prefetch_factor=2, persistent_workers=False,
)  # fmt: skip
today = {name: parameter.default for name, parameter in parameters.items()}
rows = []
for name, default in today.items():
    if name not in noted or noted[name] is not default:
        was = repr(noted[name]) if name in noted else "(not there)"
        rows.append({"parameter": name, "in the notes": was, "today": repr(default)})
facts.Table(f"{len(noted)} parameters in the notes, {len(today)} today", rows)

# %% [markdown] lang="en"
# `None` means "decide for me". With workers the loader still reads two batches ahead for each of them: it **prefetches**.
# Without workers there is nobody to read ahead, and asking for it is an error.
# The same holds for `persistent_workers=True`, which keeps the workers for the next loop.
#
# The four new parameters come in later lessons: `generator` [04](04_samplers.ipynb), `in_order` [09](09_workers.ipynb),
# `multiprocessing_context` [10](10_start_methods.ipynb), `pin_memory_device` [12](12_pinning.ipynb).

# %% [markdown] lang="zh"
# `None` 的意思是“替我决定”。有工作进程时，加载器仍为每个工作进程提前读两个批次，这叫**预取**（prefetch）。
# 没有工作进程，就没有谁能预取；这时要求预取会报错。
# `persistent_workers=True`（让工作进程留到下一次循环）也是这样。
#
# 四个新参数在后面的课里讲：`generator` 见第 [04](04_samplers.ipynb) 课，`in_order` 见第 [09](09_workers.ipynb) 课，
# `multiprocessing_context` 见第 [10](10_start_methods.ipynb) 课，`pin_memory_device` 见第 [12](12_pinning.ipynb) 课。


# %% tags=["claim:DL-04"]
def prefetch(**arguments):
    try:
        loader = DataLoader(range(4), **arguments)
    except ValueError as error:
        return f"ValueError: {str(error).split('.')[0]}"
    kept = loader.persistent_workers
    return f"prefetch_factor={loader.prefetch_factor}, persistent_workers={kept}"


tries = [{}, {"num_workers": 1}, {"prefetch_factor": 2}, {"persistent_workers": True}]
rows = [{"arguments": str(given or "none"), "result": prefetch(**given)} for given in tries]
facts.Table("who may read ahead", rows)

# %% [markdown] lang="en"
# ## Explore: who fetched what, and in which order
#
# This is a measurement, drawn in steps and not in seconds. Each change runs a real loader over 24 digits, and each sample carries
# the record of its own fetch.
#
# Two things to change: set `workers` to 0; then set `workers` back to 2 and `ahead` to 1.

# %% [markdown] lang="zh"
# ## 动手探索：谁按什么顺序取了什么
#
# 这是一次测量，按步画出，不按秒。每次改动，真实的加载器都把 24 张数字图像读一遍，每个样本都带着自己的读取记录。
#
# 试着改两处：把 `workers` 改成 0；再把 `workers` 改回 2，把 `ahead` 改成 1。


# %% tags=["explore"]
def one_epoch(workers, batch_size, ahead):
    reading = {"prefetch_factor": ahead} if workers else {}
    few = Subset(digits, range(24))
    return trace.record(few, batch_size=batch_size, num_workers=workers, **reading)


widgets.explore(
    one_epoch,
    pictures.timeline,
    workers=[2, 0, 1],
    batch_size=[4, 6, 8],
    ahead=[2, 1, 3],
)

# %% [markdown] lang="en"
# ## Exercise 1: reading ahead
#
# How many batches has a loader asked for while you wait for the first one? With workers the line above the picture counts these
# requests. Without workers it counts none: think, the main process asks and fetches by itself.
# Try some settings, find the rule, and write it down.
# Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# ## 练习 1：预取
#
# 你在等第一个批次的时候，加载器一共请求了几个批次？有工作进程时，图上方的一行写着请求（requests）的个数；
# 没有工作进程时不写：想一想，主进程自己请求、自己读。换几种设置，找出规律并写下来。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:01_asked_ahead"]
def asked_ahead(batches, workers, ahead):
    """How many of the `batches` are asked for while you wait for one? `ahead`: prefetch_factor."""
    ...


# solution
def asked_ahead(batches, workers, ahead):
    return min(batches, max(1, workers * ahead))


# %% tags=["check"]
exercises.check("01_asked_ahead", asked_ahead)  # stuck? exercises.hint("01_asked_ahead")

# %% [markdown] lang="en"
# ## Exercise 2: your own loader
#
# Build the smallest loader for a map-style dataset: it gives lists of samples, in order, and can be looped over again and again.

# %% [markdown] lang="zh"
# ## 练习 2：你自己的加载器
#
# 为映射式数据集造一个最小的加载器：按顺序给出样本列表，而且可以一遍又一遍地遍历。


# %% tags=["exercise:01_my_loader"]
class MyLoader:
    """MyLoader(range(5), 2) gives [0, 1], [2, 3], [4] in every loop."""

    ...


# solution
class MyLoader:
    def __init__(self, dataset, batch_size):
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self):
        for start in range(0, len(self.dataset), self.batch_size):
            stop = min(start + self.batch_size, len(self.dataset))
            yield [self.dataset[index] for index in range(start, stop)]


# %% tags=["check"]
exercises.check("01_my_loader", MyLoader)  # stuck? exercises.hint("01_my_loader")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four lines in the style of the notes. Which line is no longer true? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四行代码，写法与笔记相同。哪一行已经不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:DL-04"]
my_guess = ...  # 1, 2, 3 or 4

plain = DataLoader(range(8), batch_size=4)
lines = {
    1: len(plain) == 2,
    2: plain.prefetch_factor == 2,
    3: plain.num_workers == 0,
    4: DataLoader(range(8), num_workers=1).prefetch_factor == 2,
}
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# Without workers nobody reads ahead, so today the value is `None`.

# %% [markdown] lang="zh"
# 没有工作进程就没有预取，所以如今它的值是 `None`。

# %% [markdown] lang="en"
# ## Recap
#
# The class of a dataset, not its abilities, decides how it is read. A loader starts anew in every loop. Only workers read ahead.
#
# | Message | Cause | Where |
# |---|---|---|
# | `object of type 'Countdown' has no len()` | an iterable that is not an `IterableDataset` | Wrong first |
# | `'DataLoader' object is not an iterator` | `next(loader)` in place of `next(iter(loader))` | Predict, run, compare |
# | `prefetch_factor option could only be specified in multiprocessing` | reading ahead without workers | The defaults today |
#
# What next: lesson [02](02_map_datasets.ipynb), everything that answers `dataset[key]`.

# %% [markdown] lang="zh"
# ## 小结
#
# 决定读取方式的是数据集的类，而不是它的能力。加载器在每次循环中都重新开始。只有工作进程会预取。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `object of type 'Countdown' has no len()` | 可迭代，但不是 `IterableDataset` | 先看错误 |
# | `'DataLoader' object is not an iterator` | 把 `next(iter(loader))` 写成了 `next(loader)` | 预测、运行、对照 |
# | `prefetch_factor option could only be specified in multiprocessing` | 没有工作进程却要预取 | 如今的默认值 |
#
# 下一步：第 [02](02_map_datasets.ipynb) 课，凡是能回答 `dataset[key]` 的东西。

# %%
exercises.progress("01")
