# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Order and samplers", zh: "顺序与采样器"}
#     sections: ["000: 2. Data Loading Order and Sampler"]
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 04 · Order and samplers
#
# **You will be able to** say in which order samples come, epoch by epoch, write a sampler of your own, and find the samples that
# no epoch ever reads.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [03](03_iterable_datasets.ipynb) | 50 | 2. Data Loading Order and Sampler | [简体中文](../zh/04_samplers.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 04 · 顺序与采样器
#
# **学完本课，你能够**：逐轮说出样本按什么顺序到来，写出自己的采样器，并找出哪些样本始终没人读。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [03](03_iterable_datasets.ipynb) 课 | 50 | 2. Data Loading Order and Sampler | [English](../en/04_samplers.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
from collections import Counter
from dataclasses import dataclass

import torch
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tutorlib import datasets, exercises, facts, pictures, samplers, widgets

digits = datasets.digits("train")
ink = torch.stack([digits[i][0].sum() for i in range(len(digits))])
print("ready:", len(digits), "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# Easy images first: this sampler sorts the digits by the ink they hold. It is written as the notes' example is, with
# `data_source` handed to the base class.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 先读简单的图像：这个采样器（sampler）按墨迹多少给数字图像排序。写法与笔记的示例相同，把 `data_source` 交给基类。


# %% tags=["raises-exception", "wrong-first", "claim:SA-05"]
class LightestFirst(Sampler):
    def __init__(self, data_source):
        super().__init__(data_source)
        self.data_source = data_source

    def __iter__(self):
        yield from ink.argsort(stable=True).tolist()

    def __len__(self):
        return len(self.data_source)


print("Sampler has an __init__ of its own:", "__init__" in vars(Sampler))
LightestFirst(digits)

# %% [markdown] lang="en"
# Once `Sampler` took a `data_source` and ignored it. Torch 2.1 warned, and torch 2.10 removed the constructor.
# Code that follows the notes breaks today. The cure is to pass nothing:

# %% [markdown] lang="zh"
# 从前 `Sampler` 接受 `data_source`，然后不用它。torch 2.1 开始警告，torch 2.10 删掉了这个构造函数。
# 照笔记写的代码如今会报错。补救的办法是什么也不传：


# %% tags=["claim:SA-05"]
class Mended(LightestFirst):
    def __init__(self, data_source):
        Sampler.__init__(self)  # no argument; the line may also be left out
        self.data_source = data_source


def attempt(act):
    try:
        return str(act())
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


lightest = [images for images, _ in DataLoader(digits, batch_size=500, sampler=Mended(digits))]
facts.Table(
    "the constructor of Sampler",
    [
        {"call": "Sampler(digits)", "result": attempt(lambda: Sampler(digits))},
        {"call": "LightestFirst(digits)", "result": attempt(lambda: LightestFirst(digits))},
        {
            "call": "Mended(digits), mean ink of its batches",
            "result": str([round(float(x.sum() / len(x))) for x in lightest]),
        },
    ],
)

# %% [markdown] lang="en"
# ## The idea
#
# A map-style dataset knows its samples, not their order. The **sampler** knows the order, and nothing else: it is an iterable of
# indices. The loader asks it for one index after the other and reads `dataset[index]`.
#
# An iterable needs `__iter__`. The notes ask for `__len__` as well. Below, a sampler without it yields 4, 0, 4 for five samples.
# Which samples arrive? Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 概念
#
# 映射式数据集知道自己的样本，不知道顺序。**采样器**只知道顺序：它是由索引组成的可迭代对象。
# 加载器一个接一个地向它要索引，然后读 `dataset[index]`。
#
# 可迭代对象需要 `__iter__`。笔记还要求 `__len__`。下面的采样器没有它，对五个样本给出 4、0、4。
# 到达哪些样本？先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。


# %% tags=["predict", "claim:SA-06"]
class NoLength(Sampler):
    def __iter__(self):
        return iter([4, 0, 4])


def numbers(loader):
    return [int(sample) for sample in loader]


my_guess = ...  # for example [0, 4], or "TypeError"

loader = DataLoader(range(5), sampler=NoLength())
print("Sampler has a __len__:", hasattr(Sampler, "__len__"))
print("len(loader):", attempt(lambda: len(loader)))
exercises.predict(my_guess, torch=numbers(loader))

# %% [markdown] lang="en"
# Loading works. Only `len(loader)` fails; progress bars and learning rate schedulers need it. Nobody checks that each sample comes,
# or comes once: sample 4 came twice, and 1, 2, 3 never.
#
# Any iterable will do, and the entries may be any key that the dataset understands:

# %% [markdown] lang="zh"
# 加载照常。只有 `len(loader)` 报错，而用到它的是进度条和学习率调度器。
# 没有人检查每个样本来没来、来了几次：样本 4 来了两次，1、2、3 一次也没来。
#
# 任何可迭代对象都可以，其中的每一项可以是数据集认识的任意键：

# %% tags=["claim:SA-02"]
heights = {"Ann": 171, "Bo": 165, "Cleo": 180}
facts.Table(
    "samplers for a dictionary",
    [
        {"sampler": str(keys), "samples": numbers(DataLoader(heights, sampler=keys))}
        for keys in (["Cleo", "Ann"], ("Bo",), sorted(heights))
    ],
)

# %% [markdown] lang="en"
# Any iterable? A Python generator is one too. One pass over the data is an **epoch**. The first epoch gives 3, 1, 2, 0.
# What does the second epoch give?

# %% [markdown] lang="zh"
# 任何可迭代对象？Python 的生成器也算。把数据读一遍叫一**轮**（epoch）。第一轮给出 3、1、2、0。第二轮给出什么？

# %% tags=["predict", "claim:SA-02"]
my_guess = ...  # for example [3, 1, 2, 0]

loader = DataLoader(range(4), sampler=(index for index in [3, 1, 2, 0]))
first, second = numbers(loader), numbers(loader)
print("first epoch: ", first)
exercises.predict(my_guess, torch=second)

# %% [markdown] lang="en"
# Nothing, and no message: a generator can be walked once. A sampler must give a fresh iterator each time `iter()` is called on it.
# An object with `__iter__` does, a list does, a generator does not.
#
# ## Which sampler does the loader build?
#
# Mostly you write no sampler. You write `shuffle`, and the loader builds one.

# %% [markdown] lang="zh"
# 什么也没有，也没有报错：生成器只能走一遍。采样器必须在每次 `iter()` 时给出新的迭代器。
# 带 `__iter__` 的对象可以，列表可以，生成器不行。
#
# ## 加载器造哪个采样器
#
# 多数时候你不写采样器，只写 `shuffle`，由加载器来造。

# %% tags=["claim:SA-03"]
arguments = {
    "nothing": {},
    "shuffle=False": {"shuffle": False},
    "shuffle=True": {"shuffle": True},
    "sampler=[2, 0]": {"sampler": [2, 0]},
}
print("both given:", attempt(lambda: DataLoader(range(3), sampler=[2, 0], shuffle=True)))
facts.Table(
    "loader.sampler",
    [
        {"argument": name, "type": type(DataLoader(range(3), **given).sampler).__name__}
        for name, given in arguments.items()
    ],
)

# %% [markdown] lang="en"
# ## How far ahead is the sampler read?
#
# The notes: the sampler is asked whenever the next index is needed. The sampler below counts how often it was asked.
# Batches of two, two workers: how many indices are gone after `iter(loader)`, before you ask for the **first** batch?

# %% [markdown] lang="zh"
# ## 采样器会提前读多远
#
# 笔记说：需要下一个索引时，才向采样器要。下面这个采样器数自己被问了几次。每批两个。
# 用两个工作进程（worker）时：调用 `iter(loader)` 之后、向它要**第一个**批次之前，已经取走了几个索引？


# %% tags=["predict", "claim:SA-02"]
class Spy(Sampler):
    def __init__(self, size):
        self.size, self.asked = size, 0

    def __iter__(self):
        for index in range(self.size):
            self.asked += 1
            yield index


def asked(workers):
    spy = Spy(32)
    batches = iter(DataLoader(range(32), sampler=spy, batch_size=2, num_workers=workers))
    row = {"workers": workers, "before the first batch": spy.asked}
    next(batches)
    row["after it"] = spy.asked
    next(batches)
    return {**row, "after the second": spy.asked}


my_guess = ...  # how many indices?

rows = [asked(0), asked(2)]
print(facts.Table("indices that the sampler gave", rows))
exercises.predict(my_guess, torch=rows[1]["before the first batch"])

# %% [markdown] lang="en"
# Without workers the sampler is read batch by batch. With two workers it is four batches ahead: `prefetch_factor` (2) times
# `num_workers` (2), and stays so.
#
# So a sampler cannot know what you have trained on. Do not save "how many indices I gave" in a checkpoint (a file from which
# training goes on later): with workers that is too many.
#
# ## Shuffle, epoch after epoch
#
# `shuffle=True` draws a new order in each epoch. With a seeded random `generator` the orders can be repeated.
# Here two loaders start with seed 0. The second one is to begin with epoch 2 (the third pass). Does its first pass equal epoch 2 of
# the first loader?

# %% [markdown] lang="zh"
# 没有工作进程时，采样器一个批次一个批次地读。有两个工作进程时，它领先四个批次：
# `prefetch_factor`（2）乘以 `num_workers`（2），并且一直如此。
#
# 所以采样器不可能知道你训练过哪些样本。不要把“我给出了几个索引”存进检查点（checkpoint，以后从中继续训练的文件）：
# 有工作进程时这个数偏大。
#
# ## 一轮又一轮地打乱
#
# `shuffle=True` 每轮抽一个新的顺序。给了设好种子的随机数生成器（`generator`），这些顺序就可以重现。下面两个加载器都从种子 0 开始。
# 第二个想直接从第 2 轮（第三遍）开始。它的第一遍等于第一个加载器的第 2 轮吗？


# %% tags=["predict", "claim:SA-03"]
def shuffled(seed):
    return DataLoader(range(6), shuffle=True, generator=torch.Generator().manual_seed(seed))


my_guess = ...  # True or False

loader = shuffled(0)
epochs = [numbers(loader) for _ in range(3)]
late = numbers(shuffled(0))
print("seed 0, epochs 0, 1, 2:", epochs)
print("a fresh loader, pass 1:", late)
print("equal to epoch 0:", late == epochs[0])
exercises.predict(my_guess, torch=late == epochs[2])

# %% [markdown] lang="en"
# The order depends on the state of the random generator, and the state on all passes before. To begin at epoch 2 you would have to
# walk through epochs 0 and 1.
#
# Better: the order as a function of seed **and epoch**. Exercise 1 asks you to write it. `tutorlib`'s `EpochSampler` does so.
# It is a **batch sampler**: it gives lists of indices, one list a batch.

# %% [markdown] lang="zh"
# 顺序取决于随机数生成器的状态，状态又取决于之前的每一遍。想从第 2 轮开始，就得先走完第 0 轮和第 1 轮。
#
# 更好的做法：让顺序成为种子**和轮次**的函数。练习 1 由你来写。`tutorlib` 的 `EpochSampler` 就是这样。
# 它是一个**批采样器**（batch sampler）：每次给出一个索引的列表，一个列表就是一个批次。


# %%
def flat(loader):
    return [int(sample) for batch in loader for sample in batch]


walked = DataLoader(range(10), batch_sampler=samplers.EpochSampler(10, batch_size=5, seed=0))
passes = [flat(walked) for _ in range(3)]
jump = samplers.EpochSampler(10, batch_size=5, seed=0)
jump.set_epoch(2)
jumped = flat(DataLoader(range(10), batch_sampler=jump))
facts.Table(
    "EpochSampler with seed 0",
    [
        {
            "question": "each epoch has every sample once",
            "answer": all(sorted(one) == list(range(10)) for one in passes),
        },
        {"question": "the three orders differ", "answer": len({tuple(one) for one in passes}) == 3},
        {"question": "set_epoch(2) equals the third pass", "answer": jumped == passes[2]},
    ],
)

# %% [markdown] lang="en"
# ## Lists of indices
#
# A batch sampler may be any iterable of lists. Give it as `batch_sampler`; then nothing else may speak about order or size.

# %% [markdown] lang="zh"
# ## 索引的列表
#
# 任何由列表组成的可迭代对象都可以当批采样器。把它传给 `batch_sampler`；这时别的参数不能再管顺序和大小。

# %% tags=["claim:SA-04"]
pairs = [[1, 2, 3], [9]]
given = DataLoader(range(10), batch_sampler=pairs)
print("batches:", [batch.tolist() for batch in given], "| loader.batch_size:", given.batch_size)
facts.Table(
    "batch_sampler and one more argument",
    [
        {
            "argument": f"{name}={value}",
            "result": attempt(
                lambda extra={name: value}: DataLoader(range(10), batch_sampler=pairs, **extra)
            ),
        }
        for name, value in {
            "batch_size": 2,
            "shuffle": True,
            "sampler": [0],
            "drop_last": True,
        }.items()
    ],
)

# %% [markdown] lang="en"
# ## Streams have no sampler
#
# An iterable-style dataset decides its order alone. The loader refuses everything that would change it:

# %% [markdown] lang="zh"
# ## 数据流没有采样器
#
# 可迭代式数据集自己决定顺序。凡是会改变顺序的参数，加载器一律拒绝：

# %% tags=["claim:SA-01"]
print("its own order:", numbers(DataLoader(datasets.Numbers(0, 4))))
facts.Table(
    "a stream and one argument",
    [
        {
            "argument": f"{name}={value}",
            "result": attempt(
                lambda extra={name: value}: DataLoader(datasets.Numbers(0, 4), **extra)
            ),
        }
        for name, value in {"sampler": [0], "batch_sampler": [[0]], "shuffle": True}.items()
    ],
)

# %% [markdown] lang="en"
# ## Explore: order and coverage over epochs
#
# Eight samples, batches of four. Every picture is a real run of one loader: a row for each epoch. A sample that came twice in
# an epoch carries x2, three times x3; below stands what never came in any epoch. With replacement means: each draw is from all samples, so one can
# come again.
# Two things to change: set `order` to `a generator`; then to `shuffled once`, and look at the column `new order`.

# %% [markdown] lang="zh"
# ## 动手探索：各轮的顺序与覆盖情况
#
# 八个样本，每批四个。每张图都是同一个加载器的真实运行：每轮一行。一轮里来了两次的样本标 x2，三次标 x3；最下面是哪一轮都没来的样本。
# 有放回（with replacement）：每次都从全部样本里抽，所以同一个可以再来。
# 试着改两处：把 `order` 改成 `a generator`；再改成 `shuffled once`，看 `new order` 这一列。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Epochs(facts.Table):
    batches: list  # for each epoch its batches
    never: list

    def grid(self):
        rows = []
        for epoch, batches in enumerate(self.batches):
            times = Counter(key for batch in batches for key in batch)
            cells = [
                {
                    "label": f"batch {number}",
                    "items": [
                        {"text": str(key), "sign": f"x{times[key]}" if times[key] > 1 else ""}
                        for key in batch
                    ],
                }
                for number, batch in enumerate(batches)
            ]
            rows.append(
                {"label": f"epoch {epoch}", "cells": cells or [{"label": "no batch", "items": []}]}
            )
        return {"rows": rows, "missing": [str(key) for key in self.never]}


# %% tags=["explore"]
def order_of(order, epochs):
    def generator():  # with this seed three epochs with replacement leave a sample out
        return torch.Generator().manual_seed(8)

    once = torch.randperm(8, generator=generator()).tolist()
    choices = {
        "with replacement": lambda: {
            "sampler": RandomSampler(range(8), replacement=True, generator=generator())
        },
        "shuffle=True": lambda: {"shuffle": True, "generator": generator()},
        "shuffled once": lambda: {"sampler": once},
        "a generator": lambda: {"sampler": (index for index in once)},
        "a subset": lambda: {"sampler": SubsetRandomSampler([0, 2, 4, 6], generator=generator())},
        "EpochSampler": lambda: {"batch_sampler": samplers.EpochSampler(8, batch_size=4, seed=0)},
    }
    arguments = choices[order]()
    loader = DataLoader(
        range(8), **({} if "batch_sampler" in arguments else {"batch_size": 4}), **arguments
    )
    runs = [[batch.tolist() for batch in loader] for _ in range(epochs)]
    orders = [[key for batch in run for key in batch] for run in runs]
    rows = [
        {
            "epoch": epoch,
            "order": one,
            "repeated": sorted(key for key, times in Counter(one).items() if times > 1),
            "missing": sorted(set(range(8)) - set(one)),
            "new order": bool(one) and one not in orders[:epoch],
        }
        for epoch, one in enumerate(orders)
    ]
    never = sorted(set(range(8)).difference(*orders))
    return Epochs(f"of 8 samples never read: {never or 'none'}", rows, runs, never)


widgets.explore(
    order_of,
    pictures.grid,
    order=[
        "with replacement",
        "shuffle=True",
        "shuffled once",
        "a generator",
        "a subset",
        "EpochSampler",
    ],
    epochs=[3, 1, 2, 5],
)

# %% [markdown] lang="en"
# With replacement an "epoch" is eight draws, not eight samples. How large is the hole for real data? Predict the share of the 1437
# digits that one epoch with replacement reads at least once, to one decimal.

# %% [markdown] lang="zh"
# 有放回抽样时，“一轮”是抽八次，不是八个样本。换成真实数据，漏掉多少？
# 请预测：有放回的一轮里，1437 个数字图像中至少读到一次的占几成？写一位小数。

# %% tags=["predict"]
my_guess = ...  # for example 0.9

drawn = list(RandomSampler(digits, replacement=True, generator=torch.Generator().manual_seed(0)))
print("draws:", len(drawn), "| len(digits):", len(digits))
exercises.predict(my_guess, torch=round(len(set(drawn)) / len(digits), 1))

# %% [markdown] lang="en"
# One draw misses a given sample with probability 1 - 1/n, n draws miss it with (1 - 1/n)^n, about 1/e. So 1 - 1/e are read, that is
# 63 percent. More than a third of the data is not read, and as many reads are repeats.
#
# ## Weighted sampling
#
# `WeightedRandomSampler` draws by weight. It is used so that rare classes come more often. There are ten classes, so somebody gives ten weights. How many
# **different** images does an epoch of 1437 draws read?

# %% [markdown] lang="zh"
# 抽一次错过某个样本的概率是 1 - 1/n，抽 n 次都错过是 (1 - 1/n)^n，约为 1/e。所以读到的约占 1 - 1/e，即 63%。
# 超过三分之一的数据没有读到，重复的读取也正好这么多。
#
# ## 加权采样
#
# `WeightedRandomSampler` 按权重抽样，常用来让少见的类别来得更多。一共十个类别，于是有人给了十个权重。
# 抽 1437 次的一轮，会读到几张**不同**的图像？

# %% tags=["predict"]
my_guess = ...  # how many different images?

labels = [digits[i][1] for i in range(len(digits))]
class_weights = [1 / labels.count(label) for label in range(10)]
sampler = WeightedRandomSampler(
    class_weights, num_samples=len(digits), generator=torch.Generator().manual_seed(0)
)
read = list(sampler)
print("draws:", len(read), "| largest index:", max(read))
exercises.predict(my_guess, torch=len(set(read)))

# %% [markdown] lang="en"
# Ten. The sampler wants one weight for each **sample**, and believes that there are as many samples as weights. So it reads images 0
# to 9 again and again, and there is no message. Exercise 2 mends it.
#
# And there is a limit: more than 2^24 weights are refused, not when the sampler is made, but when it is first read.

# %% [markdown] lang="zh"
# 十张。这个采样器要的是每个**样本**一个权重，并把权重的个数当作样本数。于是它反复读第 0 到第 9 张图像。
# 没有任何报错。练习 2 来补救。
#
# 还有一个上限：权重超过 2^24 个会报错，但不在创建采样器时，而在第一次读它时。

# %%
# One number, seen 16,777,217 times: it takes no memory.
many = torch.ones(1, dtype=torch.double).expand(2**24 + 1)
too_many = WeightedRandomSampler(many, num_samples=1)
facts.Table(
    "16,777,217 weights",
    [
        {"step": "make the sampler", "result": f"works, len is {len(too_many)}"},
        {"step": "read it", "result": attempt(lambda: list(too_many))},
    ],
)

# %% [markdown] lang="en"
# ## Exercise 1: an order for each epoch
#
# In epoch `e` give the order that torch's `RandomSampler` gives with a generator seeded with `seed + e`, however often and in
# which sequence the epochs are asked for. The check compares on random cases. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# ## 练习 1：每一轮一个顺序
#
# 在第 `e` 轮，给出 torch 的 `RandomSampler` 用种子为 `seed + e` 的生成器给出的顺序；
# 无论各轮按什么次序、问了几次，都要如此。检查时在随机情况上比较。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:04_epoch_order"]
class EpochOrder(Sampler):
    """A shuffle that depends on nothing but the seed and the attribute `epoch`."""

    def __init__(self, size, seed):
        self.size, self.seed, self.epoch = size, seed, 0

    def __iter__(self): ...

    def __len__(self): ...


# solution
class EpochOrder(Sampler):
    def __init__(self, size, seed):
        self.size, self.seed, self.epoch = size, seed, 0

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.randperm(self.size, generator=generator).tolist()

    def __len__(self):
        return self.size


# %% tags=["check"]
exercises.check("04_epoch_order", EpochOrder)  # stuck? exercises.hint("04_epoch_order")

# %% [markdown] lang="en"
# ## Exercise 2: one weight a sample
#
# Every class shall have the same chance. Give a list as long as `labels`, in which the weights of each class add up to 1.

# %% [markdown] lang="zh"
# ## 练习 2：每个样本一个权重
#
# 每个类别的机会要相等。给出一个与 `labels` 一样长的列表，其中每个类别的权重之和为 1。


# %% tags=["exercise:04_sample_weights"]
def sample_weights(labels):
    """One weight for each sample; together the samples of a class weigh 1."""
    ...


# solution
def sample_weights(labels):
    counts = Counter(labels)
    return [1 / counts[label] for label in labels]


# %% tags=["check"]
exercises.check("04_sample_weights", sample_weights)  # stuck? exercises.hint("04_sample_weights")

# %% [markdown] lang="en"
# ## Bug hunt
#
# This sampler keeps only the even samples; the rest is written as in the notes' example. Which line does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 这个采样器只保留偶数样本，其余照笔记的示例写。哪一行不成立？单元格会给出证明。


# %% tags=["bug-hunt", "claim:SA-06"]
class Even(Sampler):
    def __init__(self, data_source):
        self.data_source = data_source

    def __iter__(self):
        return iter(range(0, len(self.data_source), 2))

    def __len__(self):
        return len(self.data_source)


my_guess = ...  # 1, 2, 3 or 4

loader = DataLoader(range(10), sampler=Even(range(10)))
lines = {
    1: isinstance(DataLoader(range(10)).sampler, SequentialSampler),
    2: numbers(loader) == [0, 2, 4, 6, 8],
    3: numbers(loader) == numbers(loader),
    4: len(loader) == len(numbers(loader)),
}
print("len(loader):", len(loader), "| batches that came:", len(numbers(loader)))
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# `len` is a promise that nobody checks. A wrong `__len__` is worse than none: without it, `len(loader)` at least raises.

# %% [markdown] lang="zh"
# `len` 是一个没人检查的承诺。写错的 `__len__` 比没有更糟：没有它，`len(loader)` 至少会报错。

# %% [markdown] lang="en"
# ## Recap
#
# A sampler is an iterable of keys that each epoch walks anew; nobody checks that every sample comes. Workers read it ahead,
# so it does not know what was consumed. An order that is a function of seed and epoch can begin anywhere.
#
# | Message | Cause | Where |
# |---|---|---|
# | `object.__init__() takes exactly one argument` | `super().__init__(data_source)` | Wrong first |
# | `object of type 'NoLength' has no len()` | a sampler without `__len__` | The idea |
# | no message, the second epoch is empty | a generator as sampler | The idea |
# | `sampler option is mutually exclusive with shuffle` | said the order twice | Which sampler does the loader build? |
# | `expected unspecified shuffle option` | a stream has no sampler | Streams have no sampler |
# | no message, the same ten images again and again | a weight for each class, not each sample | Weighted sampling |
# | `number of categories cannot exceed 2^24` | too many weights | Weighted sampling |
#
# What next: lesson [05](05_distributed_sampler.ipynb), one order shared by several ranks.

# %% [markdown] lang="zh"
# ## 小结
#
# 采样器是由键组成的可迭代对象，每轮从头走一遍；没有人检查样本是否到齐。工作进程会提前读它，所以它不知道哪些样本已经用过。
# 顺序若是种子和轮次的函数，就可以从任意一轮开始。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `object.__init__() takes exactly one argument` | `super().__init__(data_source)` | 先看错误 |
# | `object of type 'NoLength' has no len()` | 采样器没有 `__len__` | 概念 |
# | 没有报错，第二轮是空的 | 用生成器当采样器 | 概念 |
# | `sampler option is mutually exclusive with shuffle` | 顺序说了两遍 | 加载器造哪个采样器 |
# | `expected unspecified shuffle option` | 数据流没有采样器 | 数据流没有采样器 |
# | 没有报错，永远是那十张图像 | 每个类别一个权重，而不是每个样本一个 | 加权采样 |
# | `number of categories cannot exceed 2^24` | 权重太多 | 加权采样 |
#
# 下一步：第 [05](05_distributed_sampler.ipynb) 课，几个 rank 分同一个顺序。

# %%
exercises.progress("04")
