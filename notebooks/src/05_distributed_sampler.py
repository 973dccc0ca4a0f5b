# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "The distributed sampler", zh: "分布式采样器"}
#     sections: ["000: 2. Data Loading Order and Sampler"]
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 05 · The distributed sampler
#
# **You will be able to** say which samples each rank reads, which ones are read twice, change the order in every epoch, and measure
# over several ranks without counting a sample twice.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [04](04_samplers.ipynb), and to have seen a training loop | 50 | 2. Data Loading Order and Sampler | [简体中文](../zh/05_distributed_sampler.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 05 · 分布式采样器
#
# **学完本课，你能够**：说出每个 rank 读哪些样本、哪些样本读了两次，让每轮的顺序都不同，并在多个 rank 上评估而不重复计数。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [04](04_samplers.ipynb) 课，见过训练循环 | 50 | 2. Data Loading Order and Sampler | [English](../en/05_distributed_sampler.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# Distributed training runs the same script in several processes. Each process is a **rank**: it has its own copy of the dataset,
# its own loader and its own sampler.

# %% [markdown] lang="zh"
# ## 准备
#
# 分布式训练在几个进程里运行同一个脚本。每个进程是一个 **rank**（分布式训练中进程的编号）：
# 它有自己的数据集副本、自己的加载器和自己的采样器（sampler）。

# %% tags=["setup"]
import inspect
from collections import Counter
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, DistributedSampler

from tutorlib import exercises, facts, pictures, ranks, widgets

# %load_ext tutorlib.cells
print("ready")

# %% [markdown] lang="en"
# ## Wrong first
#
# The notes say that each process loads a subset of the dataset that belongs to it alone. Here are 10 samples and 4 ranks.
# A sampler that is told its rank needs no second process, so all four can be asked here.
#
# How many samples do the four ranks read together? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 笔记说，每个进程加载数据集的一个专有子集。这里有 10 个样本、4 个 rank。
# 告诉采样器它的 rank，就不需要第二个进程，所以四个采样器都可以在这里问。
#
# 四个 rank 一共读多少个样本？先写下你的预测，再运行单元格。


# %% tags=["wrong-first", "predict", "claim:SA-08"]
def parts(size, world, **arguments):
    """What each rank reads: one list of indices for each rank."""
    return [
        list(DistributedSampler(range(size), world, rank, **arguments)) for rank in range(world)
    ]


my_guess = ...  # how many samples?

in_order = parts(10, 4, shuffle=False)
for rank, indices in enumerate(in_order):
    print("rank", rank, "reads", indices)
exercises.predict(my_guess, torch=sum(map(len, in_order)))

# %% [markdown] lang="en"
# ## The idea
#
# Samples 0 and 1 are read twice. The sampler takes three steps: it makes an **order** of all indices; it **pads** the order with
# its own beginning until the ranks can share it equally; it **deals** like cards, `order[rank::world]`.
#
# Why pad? In each step the ranks average their gradients, and each waits for all others. A rank with one more step would wait
# for a partner that has finished. So equal steps come first, and "exclusive" gives way. A stream that was split as in lesson
# [03](03_iterable_datasets.ipynb) has this problem too; lesson [15](15_exactly_once.ipynb) solves it.
#
# `drop_last=True` cuts the order instead.

# %% [markdown] lang="zh"
# ## 概念
#
# 样本 0 和 1 读了两次。采样器分三步工作：给所有索引排一个**顺序**；用顺序的开头把它**填充**到各 rank 能平分；
# 然后像发牌一样**分发**：`order[rank::world]`。
#
# 为什么要填充？每一步里，各个 rank 要对梯度取平均，并互相等待。多出一步的 rank 会等一个已经结束的同伴。
# 所以步数相等排在第一位，“专有”只好让步。
# 像第 [03](03_iterable_datasets.ipynb) 课那样切分的数据流也有这个问题，第 [15](15_exactly_once.ipynb) 课解决它。
#
# `drop_last=True` 则改为截短这个顺序。


# %% tags=["claim:SA-08"]
def told(size, world, drop_last):
    found = parts(size, world, shuffle=False, drop_last=drop_last)
    times = Counter(index for part in found for index in part)
    return {
        "samples": size,
        "ranks": world,
        "drop_last": drop_last,
        "each rank": len(found[0]),
        "read more than once": [index for index, count in times.items() if count > 1],
        "never read": [index for index in range(size) if index not in times],
    }


cases = [(8, 4), (10, 4), (3, 4), (1, 4)]
facts.Table(
    "equal parts",
    [told(size, world, drop_last) for drop_last in (False, True) for size, world in cases],
)

# %% [markdown] lang="en"
# Only 8 over 4 is exclusive and complete. With one sample all four ranks read the same one. With `drop_last=True` and fewer samples
# than ranks, nobody reads anything: an epoch without a step, and no error.
#
# ## A wrong accuracy
#
# A model is wrong about sample 0 and right about the 9 others: accuracy 0.9. Four ranks measure it together, with the
# sampler as above. What do they report?

# %% [markdown] lang="zh"
# 只有 8 个样本分给 4 个 rank 时既专有又完整。只有一个样本时，四个 rank 读的是同一个。
# `drop_last=True` 而样本比 rank 少时，谁也不读：一轮（epoch）没有一步，也不报错。
#
# ## 错误的准确率
#
# 一个模型只在样本 0 上答错，其余 9 个都对：准确率 0.9。四个 rank 用上面的采样器一起评估。它们报告多少？

# %% tags=["predict"]
my_guess = ...  # for example 0.9

right = [index != 0 for index in range(10)]  # the model's 10 answers
answers = [right[index] for part in parts(10, 4, shuffle=False) for index in part]
shorter = [right[index] for part in parts(10, 4, shuffle=False, drop_last=True) for index in part]
print("with drop_last=True:", sum(shorter), "of", len(shorter), "=", sum(shorter) / len(shorter))
print("with padding:", sum(answers), "of", len(answers))
exercises.predict(my_guess, torch=round(sum(answers) / len(answers), 3))

# %% [markdown] lang="en"
# Neither is 0.9, and the figure changes with the number of ranks. For training this is noise; for a test result it is an error.
# Exercise 2 mends it.
#
# ## Who am I?
#
# `num_replicas` is the number of ranks, the world size. Both it and `rank` may be left out. Where do they come from then?

# %% [markdown] lang="zh"
# 两个都不是 0.9，而且结果随 rank 总数改变。对训练来说这是噪声，对测试结果来说这是错误。练习 2 会修好它。
#
# ## 我是谁
#
# `num_replicas` 是 rank 总数（world size）。它和 `rank` 都可以不写。那么它们从哪里来？


# %% tags=["claim:SA-07"]
def attempt(*arguments, **named):
    try:
        sampler = DistributedSampler(range(10), *arguments, **named)
        return f"rank {sampler.rank} of {sampler.num_replicas}"
    except ValueError as error:
        return f"ValueError: {str(error).partition(',')[0]}"


parameters = inspect.signature(DistributedSampler).parameters.values()
print({p.name: "required" if p.default is p.empty else p.default for p in parameters})
facts.Table(
    "in this process, which belongs to no group",
    [
        {"call": "DistributedSampler(data)", "result": attempt()},
        {"call": "DistributedSampler(data, num_replicas=4)", "result": attempt(num_replicas=4)},
        {"call": "DistributedSampler(data, 4, 3)", "result": attempt(4, 3)},
        {"call": "DistributedSampler(data, 4, 4)", "result": attempt(4, 4)},
    ],
)

# %% [markdown] lang="en"
# They come from the **process group**: the ranks that talk to each other. Every rank joins it at the start. Without a group, both
# must be given.
#
# ## On real ranks
#
# The next cell is the usual pattern of a training script: `sampler=`, `shuffle=(sampler is None)`, and `set_epoch` in the loop. It
# trains on 9 real digits. `%%importable` puts it where new processes can find it.

# %% [markdown] lang="zh"
# 它们来自**进程组**（process group），也就是彼此通信的全部 rank；每个 rank 一开始就加入它。没有进程组时，两个都必须给出。
#
# ## 在真实的 rank 上
#
# 下一个单元格是训练脚本的常见写法：`sampler=`、`shuffle=(sampler is None)`，循环里调用 `set_epoch`。
# 它用 9 个真实的数字图像训练。`%%importable` 把它放到新进程找得到的地方。

# %%
# %%importable training
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tutorlib import datasets


def train(is_distributed, epochs):
    digits = [datasets.digits("train")[index] for index in range(9)]
    images, labels = (
        torch.stack([image.flatten() for image, _ in digits]),
        torch.tensor([label for _, label in digits]),
    )
    data = TensorDataset(torch.arange(9), images, labels)
    sampler = DistributedSampler(data) if is_distributed else None
    loader = DataLoader(data, batch_size=2, shuffle=(sampler is None), sampler=sampler)
    torch.manual_seed(dist.get_rank() if is_distributed else 0)  # other first weights on each rank
    model = torch.nn.Linear(64, 10)
    if is_distributed:
        model = DistributedDataParallel(model)
    read = []
    for epoch in range(epochs):
        if is_distributed:
            sampler.set_epoch(epoch)
        read.append([])
        for keys, inputs, targets in loader:
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            with torch.no_grad():  # a step of plain SGD; torch.optim would take seconds to import
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
            read[-1] += keys.tolist()
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    if not is_distributed:
        return {"read": read}
    everybody = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, weights)
    same = all(torch.equal(weights, other) for other in everybody)
    return {
        "rank": f"{sampler.rank} of {sampler.num_replicas}",
        "steps": len(loader),
        "same weights": same,
        "read": read,
    }


# %% [markdown] lang="en"
# First one process trains alone, without a sampler. Then two new processes train together for two epochs. Who reads what?
# (The notes write `DistributedDatparallel`. The cell asks whether that name exists.)

# %% [markdown] lang="zh"
# 先由一个进程单独训练，不用采样器；再由两个新进程一起训练两轮。谁读到了什么？
# （笔记写作 `DistributedDatparallel`，单元格顺便查一查有没有这个名字。）

# %% tags=["claim:SA-09", "claim:SA-12", "claim:SA-07"]
for name in ("DistributedDatparallel", "DistributedDataParallel"):
    print(f"torch.nn.parallel.{name} exists:", hasattr(torch.nn.parallel, name))

alone = train(False, epochs=2)["read"]
different = [len(set(epoch)) for epoch in alone]
print("in one process, without a sampler:", different, "different samples in the two epochs")

real = ranks.run(train, True, epochs=2, world=2)
rows = [
    {"rank": found["rank"], "steps": found["steps"], "same weights": found["same weights"]}
    | {f"epoch {epoch}": keys for epoch, keys in enumerate(found["read"])}
    for found in real
]
facts.Table("two real ranks, batch_size=2", rows)

# %% [markdown] lang="en"
# The class is `DistributedDataParallel`. It first gives all ranks the weights of rank 0, and then averages the gradients in each step.
# So they end with the same weights, although their first weights differed.
#
# The group told each sampler its rank. Both made 3 steps, although 9 samples cannot be halved: in each epoch one sample was read
# twice. And `batch_size=2` on 2 ranks is a step of 4 samples.
#
# ## Explore: the padding
#
# The first picture repeats epoch 0 of the run above in this process, checked against the real ranks. What a rank reads only
# to fill up is marked `again`; what was cut stands below. Two things to change: switch `shuffle` off; then `drop_last` on.

# %% [markdown] lang="zh"
# 类名是 `DistributedDataParallel`。它先把 rank 0 的权重发给所有 rank，
# 以后每一步都对梯度取平均。所以各 rank 的初始权重虽然不同，最后的权重却相同。
#
# 每个采样器的 rank 是进程组告诉它的。9 个样本无法平分，两个 rank 却都走了 3 步：每轮都有一个样本读了两次。
# 另外，2 个 rank 各用 `batch_size=2`，一步就是 4 个样本。
#
# ## 动手探索：看见填充
#
# 一开始的图在本进程里重现上面的第 0 轮，并与真实的 rank 比对。只为凑数而读的样本标有 `again`，截掉的列在下面。
# 试着改两处：关掉 `shuffle`；再打开 `drop_last`。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Padded(facts.Table):
    never: list

    def grid(self):
        rows = []
        for row in self.content:
            filled = len(row["reads"]) - len(row["again"])  # what fills up stands at the end
            items = [
                {"text": str(key), "sign": "again" if n >= filled else ""}
                for n, key in enumerate(row["reads"])
            ]
            rows.append(
                {"label": f"rank {row['rank']}", "cells": [{"label": "reads", "items": items}]}
            )
        return {"rows": rows, "missing": [str(key) for key in self.never]}


# %% tags=["explore", "claim:SA-08"]
def padding(samples, world, shuffle, drop_last, epoch):
    rows = []
    for rank in range(world):
        sampler = DistributedSampler(
            range(samples), world, rank, shuffle=shuffle, drop_last=drop_last
        )
        sampler.set_epoch(epoch)
        reads = list(sampler)
        # the sample number n of a rank stands at the place n * world + rank of the common order
        again = [key for n, key in enumerate(reads) if n * world + rank >= samples]
        rows.append({"rank": rank, "reads": reads, "again": again})
    read = {key for row in rows for key in row["reads"]}
    caption = f"{samples} samples, {world} ranks, {sum(len(row['reads']) for row in rows)} reads"
    return Padded(caption, rows, [key for key in range(samples) if key not in read])


here = padding(9, 2, True, False, epoch=0)
print(
    "as the real ranks read:",
    [row["reads"] for row in here.rows()] == [found["read"][0] for found in real],
)
widgets.explore(
    padding,
    pictures.grid,
    samples=[9, 1, 8, 10],
    world=[2, 3, 4],
    shuffle=True,
    drop_last=False,
    epoch=[0, 1, 2],
)

# %% [markdown] lang="en"
# With `shuffle` different samples are repeated in each epoch. Without it they are always the same, and these weigh double
# in the whole training.
#
# ## Forgotten: `set_epoch`
#
# Three epochs, `shuffle=True`. The column `forgotten` shows a loop without `set_epoch`. How many different orders are there in it?

# %% [markdown] lang="zh"
# 打开 `shuffle` 时，每轮重复的样本不同。关掉它，重复的总是同样几个，它们在整个训练里分量加倍。
#
# ## 忘了 `set_epoch`
#
# 三轮，`shuffle=True`。`forgotten` 这一列没有调用 `set_epoch`。这一列有几种不同的顺序？

# %% tags=["predict", "claim:SA-11"]
my_guess = ...  # 1, 2 or 3

sampler = DistributedSampler(range(10), num_replicas=2, rank=0)
loader = DataLoader(range(10), sampler=sampler, batch_size=None)
forgotten = [list(loader) for epoch in range(3)]
called = []
for epoch in range(3):
    sampler.set_epoch(epoch)
    called.append(list(loader))

columns = zip(forgotten, called, strict=True)
print(
    facts.Table(
        "rank 0 of 2",
        [
            {"epoch": n, "forgotten": one, "set_epoch(epoch)": two}
            for n, (one, two) in enumerate(columns)
        ],
    )
)
exercises.predict(my_guess, torch=len({tuple(order) for order in forgotten}))

# %% [markdown] lang="en"
# One. `shuffle=True` shuffled once and for all. Worse: rank 0 reads the same 5 samples in every epoch and never sees the others.
#
# ## Seed and epoch
#
# You repeat an experiment with `seed=1` to see how much luck was in it. How many of the 10 positions agree between
# **seed 0, epoch 1** and **seed 1, epoch 0**?

# %% [markdown] lang="zh"
# 一种。`shuffle=True` 只打乱了一次。更糟的是：rank 0 每轮都读同样的 5 个样本，从未见过其余的。
#
# ## 种子与轮次
#
# 你用 `seed=1` 重做一次实验，看看结果里有多少运气。**种子 0、第 1 轮**与**种子 1、第 0 轮**的 10 个位置里，有几个相同？


# %% tags=["predict", "claim:SA-11"]
def order(seed, epoch):
    sampler = DistributedSampler(range(10), num_replicas=1, rank=0, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


my_guess = ...  # a number from 0 to 10

for seed in (0, 1):
    print("seed", seed, [order(seed, epoch) for epoch in range(3)])
by_hand = torch.randperm(10, generator=torch.Generator().manual_seed(0 + 1)).tolist()
print("randperm with seed 0 + 1:", by_hand == order(0, 1))
exercises.predict(
    my_guess, torch=sum(one == two for one, two in zip(order(0, 1), order(1, 0), strict=True))
)

# %% [markdown] lang="en"
# All. The generator is seeded with `seed + epoch`, so the second experiment is the first one, an epoch later. For independent runs
# choose seeds further apart than the number of epochs, for example 0, 1000, 2000.
#
# ## How late is too late?
#
# The notes: call `set_epoch` before the iterator is made. The next cell makes the iterator, calls `set_epoch(1)`, and only then
# reads. Is epoch 1 read?

# %% [markdown] lang="zh"
# 全部相同。生成器的种子是 `seed + epoch`，所以第二次实验就是第一次实验晚一轮。
# 要做独立的实验，种子之间的距离要大于轮数，例如 0、1000、2000。
#
# ## 多晚算太晚
#
# 笔记说：先调用 `set_epoch`，再创建迭代器。下一个单元格先创建迭代器，再调用 `set_epoch(1)`，然后才读。读到的是第 1 轮吗？


# %% tags=["claim:SA-11"]
def read_late(**loading):
    sampler = DistributedSampler(range(10), num_replicas=2, rank=0)
    iterator = iter(DataLoader(range(10), sampler=sampler, **loading))
    sampler.set_epoch(1)
    found = [int(key) for batch in iterator for key in torch.as_tensor(batch).reshape(-1)]
    return next((f"epoch {n}" for n in (0, 1) if found == order(0, n)[::2]), "neither")


facts.Table(
    "set_epoch(1) after iter(loader)",
    [
        {"loader": "batch_size=2, no workers", "what was read": read_late(batch_size=2)},
        {
            "loader": "batch_size=2, 1 worker",
            "what was read": read_late(batch_size=2, num_workers=1),
        },
        {"loader": "batch_size=None, no workers", "what was read": read_late(batch_size=None)},
    ],
)

# %% [markdown] lang="en"
# The order is fixed when the sampler's own `__iter__` runs. Without workers that waits for the first batch; a worker is sent batches at
# once, and without batching the sampler is started at once. Code that calls `set_epoch` too late can work for a year and
# break the day you add workers. Before `iter` is right in every case.
#
# ## A dataset that changes
#
# The sampler measures the dataset once, when it is made. What if the length changes afterwards?
# And each rank has a copy of its own. What if the copies differ?

# %% [markdown] lang="zh"
# 采样器自己的 `__iter__` 运行时，顺序就定了。没有工作进程（worker）时，它要等到第一个批次；
# 有工作进程时，批次立刻发出去；关闭自动成批时，采样器立刻启动。
# `set_epoch` 调用太晚的代码可以用上一年，加工作进程的那天才出错。放在 `iter` 之前总是对的。
#
# ## 会变的数据集
#
# 采样器只在创建时量一次数据集的长度。之后长度变了会怎样？每个 rank 有自己的副本，各份副本不一样又会怎样？


# %% tags=["claim:SA-10"]
def after(change, drop_last):
    data = list(range(4))
    sampler = DistributedSampler(data, num_replicas=2, rank=0, shuffle=False, drop_last=drop_last)
    change(data)
    try:
        return f"rank 0: {list(sampler)}"
    except AssertionError as error:
        return f"AssertionError: {error}"


def shrink(data):
    del data[2:]


def grow(data):
    data += [4, 5, 6, 7]


files = ["a.png", "b.png", "c.png", "d.png"]
listed = [files, files[::-1]]  # rank 1 has the same files, listed the other way round
rows = [
    {"dataset": name, "drop_last": drop_last, "what happens": after(change, drop_last)}
    for name, change in (("shrunk to 2", shrink), ("grown to 8", grow))
    for drop_last in (False, True)
]
print(facts.Table("made for 4 samples, 2 ranks", rows))
facts.Table(
    "4 files, 2 ranks",
    [
        {"rank": rank, "indices": part, "files": [listed[rank][index] for index in part]}
        for rank, part in enumerate(parts(4, 2, shuffle=False))
    ],
)

# %% [markdown] lang="en"
# Half of the changes are noticed. Padding hides what is gone: `[0, 0]` is one sample twice. `drop_last=True` hides what is new.
#
# A changed order is never noticed. The indices are exclusive and the files are not: `b.png` and `d.png` are never read.
# `os.listdir` promises no order, so **sort** what you list.
#
# ## Exercise 1: deal like torch
#
# `order` is a list of indices that is not empty. Give what one rank reads, with padding. The check compares with torch's sampler.
# Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 只有一半的变化会报错。填充掩盖了减少：`[0, 0]` 是同一个样本读两次。`drop_last=True` 掩盖了增加。
#
# 顺序变了则从不报错。索引是专有的，文件却不是：`b.png` 和 `d.png` 从未读到。
# `os.listdir` 不保证顺序，所以列出的文件要**排序**。
#
# ## 练习 1：像 torch 一样分发
#
# `order` 是一个非空的索引列表。给出一个 rank 所读的索引，包括填充（padding）。检查时与 torch 的采样器比较。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:05_deal"]
def deal(order, rank, world):
    """The indices of one rank, as many for every rank."""
    ...


# solution
def deal(order, rank, world):
    each = -(-len(order) // world)
    return [order[place % len(order)] for place in range(rank, each * world, world)]


# %% tags=["check"]
exercises.check("05_deal", deal)  # stuck? exercises.hint("05_deal")

# %% [markdown] lang="en"
# ## Exercise 2: every answer once
#
# The ranks evaluated a test set of `size` samples, with `shuffle=False` and padding. `answers[rank]` is the list of what one rank
# found, in the order it read. Give the `size` answers in the order of the dataset, without what was only padding.

# %% [markdown] lang="zh"
# ## 练习 2：每个答案恰好一次
#
# 各 rank 评估了一个有 `size` 个样本的测试集，`shuffle=False`，有填充。`answers[rank]` 是一个 rank 按所读顺序得到的答案。
# 按数据集的顺序给出 `size` 个答案，不含只是填充的部分。


# %% tags=["exercise:05_every_answer_once"]
def every_answer_once(answers, size):
    """The answers in the order of the dataset, one for each sample."""
    ...


# solution
def every_answer_once(answers, size):
    return [answer for step in zip(*answers, strict=True) for answer in step][:size]


# %% tags=["check"]
# stuck? exercises.hint("05_every_answer_once")
exercises.check("05_every_answer_once", every_answer_once)

# %% [markdown] lang="en"
# ## Bug hunt
#
# Two ranks share 8 samples, so there is no padding. Yet some samples come twice and others never. Which line of `epoch_of` is
# to blame? The cell mends one line at a time and counts what is read.

# %% [markdown] lang="zh"
# ## 找错
#
# 两个 rank 分 8 个样本，没有填充。可是有的样本来了两次，有的从未来过。`epoch_of` 里哪一行有错？
# 这个单元格每次只修一行，再数读到了什么。


# %% tags=["bug-hunt"]
def epoch_of(rank, mend=None):
    sampler = DistributedSampler(range(8), 2, rank, seed=0 if mend == 1 else rank)  # line 1
    sampler.set_epoch(0 if mend == 2 else 5)  # line 2
    loader = DataLoader(range(8), sampler=sampler, batch_size=4 if mend == 3 else 3)  # line 3
    return [key for batch in loader for key in batch.tolist()]


my_guess = ...  # 1, 2 or 3

rows = []
for mend in (None, 1, 2, 3):
    read = epoch_of(0, mend) + epoch_of(1, mend)
    never = sorted(set(range(8)) - set(read))
    rows.append({"mended line": mend, "rank 0 and rank 1 read": read, "never": never})
print(facts.Table("8 samples, 2 ranks", rows))
exercises.predict(my_guess, torch=next(row["mended line"] for row in rows if not row["never"]))

# %% [markdown] lang="en"
# A different seed on each rank is right for augmentation (random changes to the images) and wrong here: two ranks deal from two
# different orders. The seed of the sampler must be the same on all ranks.

# %% [markdown] lang="zh"
# 每个 rank 用不同的种子，对数据增强（augmentation，随机改动图像）是对的，在这里却是错的：两个 rank 从两种不同的顺序里分发。
# 所有 rank 的采样器必须用同一个种子。

# %% [markdown] lang="en"
# ## Recap
#
# Each rank makes the same order, pads or cuts it, and takes every `world`-th index. Subsets are exclusive only when the
# length divides evenly. The order depends on `seed + epoch` and nothing else, so call `set_epoch` before each epoch.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Default process group has not been initialized` | no group, and rank or world size not given | Who am I? |
# | `Invalid rank 4` | ranks count from 0 | Who am I? |
# | `Number of indices (12) does not match total_size (4)` | the dataset grew or shrank | A dataset that changes |
# | no message, one order for all epochs | `set_epoch` forgotten or too late | Forgotten, How late is too late? |
# | no message, a wrong accuracy | padding was counted | A wrong accuracy |
# | no message, samples missing | another seed or file order on a rank | Bug hunt, A dataset that changes |
#
# What next: lesson [06](06_batching.ipynb), from indices to batches.

# %% [markdown] lang="zh"
# ## 小结
#
# 每个 rank 排出同样的顺序，填充或截短，再每 `world` 个取一个索引。只有长度能整除时，子集才是专有的。
# 顺序只取决于 `seed + epoch`，所以每轮之前都要调用 `set_epoch`。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Default process group has not been initialized` | 没有进程组，也没给出 rank 或 rank 总数 | 我是谁 |
# | `Invalid rank 4` | rank 从 0 数起 | 我是谁 |
# | `Number of indices (12) does not match total_size (4)` | 数据集变长或变短了 | 会变的数据集 |
# | 没有报错，所有轮同一个顺序 | 忘了 `set_epoch`，或调用太晚 | 忘了 `set_epoch`、多晚算太晚 |
# | 没有报错，准确率错误 | 填充也计入了 | 错误的准确率 |
# | 没有报错，样本缺失 | 某个 rank 的种子或文件顺序不同 | 找错、会变的数据集 |
#
# 下一步：第 [06](06_batching.ipynb) 课，从索引到批次。

# %%
exercises.progress("05")
