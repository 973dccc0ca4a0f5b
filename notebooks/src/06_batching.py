# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Automatic batching", zh: "自动成批"}
#     sections: ["000: 3. Loading Batched and Non-Batched Data", "000: 3.1 Automatic batching (default)"]
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 06 · Automatic batching
#
# **You will be able to** say how many batches arrive and which samples never do, take the loader's loop apart, and write it
# yourself.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [02](02_map_datasets.ipynb) and [04](04_samplers.ipynb) | 55 | 3. and 3.1 Automatic batching | [简体中文](../zh/06_batching.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 06 · 自动成批
#
# **学完本课，你能够**：说出会到达几个批次、哪些样本永远不来，拆开加载器的循环，并自己写出来。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [02](02_map_datasets.ipynb)、[04](04_samplers.ipynb) 课 | 55 | 3. 与 3.1 Automatic batching | [English](../en/06_batching.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
from dataclasses import dataclass
from itertools import islice

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate

from tutorlib import datasets, exercises, facts, pictures, trace, widgets

# %load_ext tutorlib.cells
digits = datasets.digits("train")
print("ready:", len(digits), "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# A small model reads the digits in batches of four. 359 steps work. Then comes the last one.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 一个小模型每批读四个数字图像。前 359 步都正常，然后来了最后一步。

# %% tags=["raises-exception", "wrong-first"]
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64))
for step, (images, _) in enumerate(DataLoader(digits, batch_size=4)):
    if step >= 358:
        print("step", step, "images", tuple(images.shape))
    model(images)

# %% [markdown] lang="en"
# 1437 is 359 times 4, and 1 is left over. Batch normalization cannot normalize one sample.
# The usual cure is `drop_last=True`. What does it cost?

# %% [markdown] lang="zh"
# 1437 等于 359 乘 4，还剩 1 个。批归一化无法归一化单独一个样本。
# 常用的办法是 `drop_last=True`。代价是什么？


# %%
def sizes(**arguments):
    loader = DataLoader(digits, **arguments)
    lengths = [len(labels) for _, labels in loader]
    return {
        "len(loader)": len(loader),
        "last batch": lengths[-1],
        "samples": sum(lengths),
        "dropped": 1437 - sum(lengths),
    }


calls = [
    {"batch_size": 4},
    {"batch_size": 4, "drop_last": True},
    {"batch_size": 1000, "drop_last": True},
]
facts.Table(
    "1437 digits",
    [
        {"arguments": ", ".join(f"{name}={value}" for name, value in call.items()), **sizes(**call)}
        for call in calls
    ],
)

# %% [markdown] lang="en"
# One sample, or 437: the remainder. Later in this lesson `drop_last` drops more than the remainder, without a word.
#
# ## Batches by default
#
# First the default. `DataLoader(digits)` is called with no batch size at all. One image has the shape `(1, 8, 8)`.
# Which shape arrives? Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# 丢掉 1 个或 437 个：就是零头。本课后面，`drop_last` 丢掉的会比零头更多，而且一声不响。
#
# ## 默认就是批次
#
# 先看默认值。`DataLoader(digits)` 根本没写批次大小。一张图像的形状是 `(1, 8, 8)`。
# 到达的形状是什么？先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。

# %% tags=["predict", "claim:BA-02"]
my_guess = ...  # for example [1, 8, 8]

plain = DataLoader(digits)
image, label = next(iter(plain))
print("batch_size:", plain.batch_size, "| label:", label)
exercises.predict(my_guess, torch=list(image.shape))

# %% [markdown] lang="en"
# `batch_size=1` is still a batch. Only `batch_size=None` gives single samples: lesson [07](07_single_samples.ipynb).
#
# A batch has one dimension more than a sample, and it stands in front. That holds for every tensor in the sample.

# %% [markdown] lang="zh"
# `batch_size=1` 仍然是批次。只有 `batch_size=None` 才给出单个样本：见第 [07](07_single_samples.ipynb) 课。
#
# 批次比样本多一维，即批次维（batch dimension），排在最前面。样本里的每个张量都是如此。


# %% tags=["claim:BA-01"]
def shapes(value):
    if isinstance(value, dict):
        return {key: shapes(part) for key, part in value.items()}
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


samples = {
    "number": [5, 6, 7, 8],
    "image": [digits[i][0] for i in range(4)],
    "matrix": [torch.zeros(3, 2)] * 4,
    "dict": [{"image": digits[i][0], "label": digits[i][1]} for i in range(4)],
}
facts.Table(
    "four samples, batch_size=4",
    [
        {
            "kind": kind,
            "one sample": shapes(four[0]),
            "the batch": shapes(next(iter(DataLoader(four, batch_size=4)))),
        }
        for kind, four in samples.items()
    ],
)

# %% [markdown] lang="en"
# ## Who makes the batches?
#
# The loader keeps a `sampler`, which gives one index after the other, and a `batch_sampler`, which gathers them into lists.
# `batch_size` and `drop_last` are needed once: to build the batch sampler.
#
# Below, `batch_size=2` builds the loader. Then somebody changes the batch sampler. How long is the first batch?

# %% [markdown] lang="zh"
# ## 批次是谁做的
#
# 加载器里有一个采样器（`sampler`），一个接一个地给出索引；还有一个批采样器（`batch_sampler`），把索引收集成列表。
# `batch_size` 和 `drop_last` 只用一次：造出这个批采样器。
#
# 下面用 `batch_size=2` 造加载器，然后有人改了批采样器。第一个批次有多长？

# %% tags=["predict", "claim:BA-03"]
my_guess = ...  # 2 or 3

loader = DataLoader(range(6), batch_size=2)
loader.batch_sampler.batch_size = 3
print([batch.tolist() for batch in loader], "| loader.batch_size still says", loader.batch_size)
exercises.predict(my_guess, torch=len(next(iter(loader))))

# %% [markdown] lang="en"
# The batch sampler decides; `loader.batch_size` is only a label. Never do this at work. The loader guards its own
# attribute, but not the one inside.
#
# So you can give the whole batch sampler yourself: any iterable of lists. Then nothing may be said twice.

# %% [markdown] lang="zh"
# 说了算的是批采样器；`loader.batch_size` 只是一张标签。工作中不要这样改。
# 加载器保护自己的属性，却不保护里面那一个。
#
# 所以你可以自己给出整个批采样器：任何由列表组成的可迭代对象都行。这时同一件事不能说两遍。


# %% tags=["claim:BA-03"]
def attempt(act):
    try:
        return str(act())
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


made = DataLoader(range(5), batch_size=2, drop_last=True)
own = [[4], [0, 1, 2]]
inner = made.batch_sampler
around = type(inner) is BatchSampler, inner.sampler is made.sampler
print("a BatchSampler around loader.sampler:", *around)
print("it carries:", inner.batch_size, inner.drop_last)
facts.Table(
    "who may say how batches are made",
    [
        {
            "call": "batch_size=2, drop_last=True",
            "result": attempt(lambda: [b.tolist() for b in made]),
        },
        {
            "call": "batch_sampler=[[4], [0, 1, 2]]",
            "result": attempt(
                lambda: [b.tolist() for b in DataLoader(range(5), batch_sampler=own)]
            ),
        },
        {
            "call": "batch_size=2 and a batch_sampler",
            "result": attempt(lambda: DataLoader(range(5), batch_size=2, batch_sampler=own)),
        },
        {
            "call": "loader.batch_size = 3",
            "result": attempt(lambda: setattr(made, "batch_size", 3)),
        },
    ],
)

# %% [markdown] lang="en"
# ## The loop for map-style datasets
#
# For each list of indices the loader reads the samples and hands them to `collate_fn`, the function that makes one batch of them.
# It always gets a **list**, also when only one sample is left:

# %% [markdown] lang="zh"
# ## 映射式数据集的循环
#
# 对每个索引列表，加载器读出样本，交给整理函数（`collate_fn`），由它做成一个批次。它得到的永远是一个**列表**，只剩一个样本时也一样：

# %% tags=["claim:BA-06"]
for got in DataLoader(
    "abc", batch_size=2, collate_fn=lambda samples: (type(samples).__name__, samples)
):
    print(got)

# %% [markdown] lang="en"
# The notes write the loop in two lines: `notes_map_loop` below. Is it the whole truth? The second dataset offers `__getitems__` and counts
# how often it is asked.

# %% [markdown] lang="zh"
# 笔记用两行写出这个循环，即下面的 `notes_map_loop`。它说全了吗？第二个数据集提供 `__getitems__`，并数出自己被问了几次。


# %% tags=["claim:BA-07"]
class Counted(Dataset):
    def __init__(self):
        self.single, self.together = 0, 0

    def __len__(self):
        return 7

    def __getitem__(self, index):
        self.single += 1
        return digits[index]


class Together(Counted):
    def __getitems__(self, indices):
        self.together += 1
        return [digits[index] for index in indices]


def notes_map_loop(dataset, batch_sampler, collate_fn):
    for indices in batch_sampler:
        yield collate_fn([dataset[i] for i in indices])


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        torch.equal(x, y)
        for a, b in zip(ours, theirs, strict=True)
        for x, y in zip(a, b, strict=True)
    )


rows = []
for dataset in (Counted(), Together()):
    loader = DataLoader(dataset, batch_size=3)
    theirs = list(loader)
    row = {
        "dataset": type(dataset).__name__,
        "__getitem__": dataset.single,
        "__getitems__": dataset.together,
    }
    ours = list(notes_map_loop(dataset, loader.batch_sampler, default_collate))
    rows.append({**row, "batches": len(theirs), "equal to the notes' loop": same(ours, theirs)})
facts.Table("7 digits, batch_size=3: calls by the loader", rows)

# %% [markdown] lang="en"
# The batches are equal. But where `__getitems__` exists, the loader asks once for each batch.
#
# ## The loop for streams
#
# A stream has no indices. The notes write `next(stream)` once for each entry of the lists that the batch sampler gives. Seven numbers, batches of
# three. How many batches does that loop deliver?

# %% [markdown] lang="zh"
# 批次完全相同。但有 `__getitems__` 时，加载器每个批次只问一次。
#
# ## 数据流的循环
#
# 数据流没有索引。笔记的写法是：批采样器给出的列表里每有一项，就调用一次 `next(stream)`。七个数，每批三个。这个循环送出几个批次？


# %% tags=["predict", "claim:BA-08"]
def notes_loop(dataset, batch_sampler, collate_fn):
    dataset_iter = iter(dataset)
    for indices in batch_sampler:
        yield collate_fn([next(dataset_iter) for _ in indices])


def collect(batches):
    came = []
    try:
        for batch in batches:
            came.append(batch.tolist())
    except RuntimeError as error:
        return came, f"RuntimeError: {error}"
    return came, "the end"


my_guess = ...  # how many batches?

seven = DataLoader(datasets.Numbers(0, 7), batch_size=3)
ours, ending = collect(notes_loop(datasets.Numbers(0, 7), seven.batch_sampler, default_collate))
theirs, good_ending = collect(seven)
rows = [
    {"loop": "of the notes", "batches": ours, "then": ending},
    {"loop": "of torch", "batches": theirs, "then": good_ending},
]
print(facts.Table("a stream of 7, batch_size=3", rows))
exercises.predict(my_guess, torch=len(ours))

# %% [markdown] lang="en"
# When the stream is empty, `next` raises `StopIteration`. Inside a generator Python turns that into `RuntimeError` (PEP 479),
# and the third batch, half made, is lost. Torch catches it and keeps what it has.
#
# Why does the loop not simply end with its batch sampler? Because that one never ends:

# %% [markdown] lang="zh"
# 数据流取空时，`next` 抛出 `StopIteration`。在生成器里，Python 把它变成 `RuntimeError`（PEP 479），
# 做了一半的第三个批次就丢了。torch 会捕获它，留下已有的样本。
#
# 为什么循环不随批采样器一起结束？因为它永远不结束：

# %% tags=["claim:BA-04"]
facts.Table(
    "the sampler of a stream",
    [
        {"question": "type(loader.sampler)", "answer": type(seven.sampler).__name__},
        {"question": "its first 5 entries", "answer": str(list(islice(seven.sampler, 5)))},
        {
            "question": "entry 1,000,000 of the batch sampler",
            "answer": str(next(islice(seven.batch_sampler, 1_000_000, None))),
        },
        {"question": "len(loader.sampler)", "answer": attempt(lambda: len(seven.sampler))},
        {
            "question": "batch_sampler=[[0]] for a stream",
            "answer": attempt(lambda: DataLoader(datasets.Numbers(0, 7), batch_sampler=[[0]])),
        },
    ],
)

# %% [markdown] lang="en"
# The sampler is a dummy: it gives `None` for ever, and the batch sampler counts to `batch_size`. Nobody knows where the stream ends,
# except whoever reads it.
#
# ## What two workers drop
#
# So far one process read the stream. Now two workers do. This stream has 14 numbers, says so, and splits itself correctly: each worker has 7.

# %% [markdown] lang="zh"
# 这个采样器是假的：它不停地给出 `None`，由批采样器数到 `batch_size`。数据流在哪里结束，只有读它的人知道。
#
# ## 两个工作进程会丢掉什么
#
# 到目前为止，数据流只有一个读者。现在有两个，即两个工作进程（worker）。下面的数据流有 14 个数，也报出了长度，切分也正确：每个工作进程 7 个。

# %%
# %%importable shared_stream
from torch.utils.data import IterableDataset, get_worker_info


class SharedStream(IterableDataset):
    """The numbers from 0 up to size; each worker takes every workers-th of them."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __iter__(self):
        me = get_worker_info()
        first, step = (0, 1) if me is None else (me.id, me.num_workers)
        return iter(range(first, self.size, step))


# %% [markdown] lang="en"
# `drop_last=True`, batches of 4. `len(loader)` says 3. How many batches arrive with two workers?

# %% [markdown] lang="zh"
# `drop_last=True`，每批 4 个。`len(loader)` 说有 3 个批次。用两个工作进程时，到达几个？

# %% tags=["predict", "claim:BA-05"]
my_guess = ...  # how many batches?

loader = DataLoader(SharedStream(14), batch_size=4, num_workers=2, drop_last=True)
arrived = [batch.tolist() for batch in loader]
print("len(loader):", len(loader), "| arrived:", arrived)
exercises.predict(my_guess, torch=len(arrived))

# %% [markdown] lang="en"
# Each worker makes its own batches: 4 of its 7, and drops its own 3. Six samples are gone, and `len` does not know.
#
# With fewer samples it is worse. With map-style data it does not happen, because the main process makes the lists of indices.

# %% [markdown] lang="zh"
# 每个工作进程自己做批次：7 个里取 4 个，再丢掉自己的 3 个。六个样本没了，而 `len` 并不知道。
#
# 样本更少时更糟。映射式数据不会这样，因为索引列表由主进程来做。

# %% tags=["claim:BA-05"]
rows = []
for dataset, workers in ((SharedStream(14), 0), (SharedStream(6), 2), (range(14), 2)):
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, drop_last=True)
    arrived = [batch.tolist() for batch in loader]
    rows.append(
        {
            "dataset": "map-style" if isinstance(dataset, range) else "stream",
            "samples": len(dataset),
            "workers": workers,
            "len(loader)": len(loader),
            "arrived": len(arrived),
            "dropped": len(dataset) - sum(map(len, arrived)),
        }
    )
facts.Table("batch_size=4, drop_last=True", rows)

# %% [markdown] lang="en"
# Six samples, two workers: an epoch without a single step. No error, no warning, and a loss that is never computed.
#
# ## Explore: batches, and what was dropped
#
# Every picture is one real run. It shows the batches of each worker, and below them what never came.
# Two things to change: set `style` to `map-style`; then back to `stream`, with `drop_last` off and
# `samples` 10, and compare `len(loader)` with the batches that came.

# %% [markdown] lang="zh"
# 六个样本，两个工作进程：一轮（epoch）下来一步也没有。没有报错，没有警告，损失从未算过。
#
# ## 动手探索：批次，以及丢掉了什么
#
# 每张图都是一次真实的运行：上面是每个工作进程的批次，下面是始终没来的样本。
# 试着改两处：把 `style` 改成 `map-style`；再改回 `stream`，关掉 `drop_last`，把 `samples` 改成 10，比较 `len(loader)` 说的个数和真正到达的批次数。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Batches(facts.Table):
    dropped: list

    def grid(self):  # a row for each worker, a cell for each of its batches
        workers = {}
        for row in self.content:
            items = [{"text": str(sample), "sign": ""} for sample in row["samples"]]
            workers.setdefault(row["worker"], []).append(
                {"label": f"batch {row['batch']}", "items": items}
            )
        names = {"main": "main process", 0: "worker 0", 1: "worker 1"}
        rows = [{"label": names[worker], "cells": cells} for worker, cells in workers.items()]
        return {"rows": rows, "missing": [str(sample) for sample in self.dropped]}


# %% tags=["explore"]
def batches(samples, style, workers, drop_last):
    source = SharedStream(samples) if style == "stream" else range(samples)
    run = trace.record(source, name=int, batch_size=4, num_workers=workers, drop_last=drop_last)
    promised = len(DataLoader(source, batch_size=4, drop_last=drop_last))
    dropped = run.missing(range(samples))
    came = len(run.batches)
    caption = (
        f"len(loader) = {promised}, batches that came = {came}; dropped {dropped or 'nothing'}"
    )
    rows = [
        {"worker": row["worker"], "batch": row["batch"], "samples": keys}
        for row, keys in zip(run.rows(), run.keys(), strict=True)
    ]
    return Batches(caption, rows, dropped)


widgets.explore(
    batches,
    pictures.grid,
    samples=[14, 6, 10, 16],
    style=["stream", "map-style"],
    workers=[2, 1, 0],
    drop_last=True,
)

# %% [markdown] lang="en"
# Without `drop_last` nothing is lost, but `len` can err the other way: for 10 samples it says 3 batches, and 4 come.
# The way out is lesson [15](15_exactly_once.ipynb): a plan that is made before the workers start.
#
# ## Batches of your own making
#
# `collate_fn` may do anything with the list: pad, put the batch dimension elsewhere, or build a type of your own.

# %% [markdown] lang="zh"
# 不用 `drop_last` 时什么也不丢，但 `len` 会错在另一边：10 个样本时它说 3 个批次，却来了 4 个。
# 出路在第 [15](15_exactly_once.ipynb) 课：在工作进程启动之前就做好的计划。
#
# ## 自己做批次
#
# `collate_fn` 可以对这个列表做任何事：填充（padding），把批次维放到别处，或者造出你自己的类型。


# %% tags=["claim:BA-09"]
@dataclass
class Scan:
    image: torch.Tensor
    name: str


columns = [digits[i][0][0].sum(0) for i in (0, 1, 5)]  # the ink in each column of an image
inked = [column[column > 0] for column in columns]
scans = [Scan(digits[i][0], f"{i:04d}.png") for i in range(3)]


def pad(samples):
    return pad_sequence(samples, batch_first=True)


def along_1(samples):
    return torch.stack(samples, dim=1)


def as_scans(samples):
    return Scan(torch.stack([scan.image for scan in samples]), [scan.name for scan in samples])


def first_batch(dataset, collate_fn=None):
    try:
        batch = next(iter(DataLoader(dataset, batch_size=3, collate_fn=collate_fn)))
    except (RuntimeError, TypeError) as error:
        return type(error).__name__
    return (
        f"Scan of {shapes(batch.image)}, {batch.name}" if isinstance(batch, Scan) else shapes(batch)
    )


print("columns with ink:", [len(one) for one in inked])
facts.Table(
    "three samples to a batch",
    [
        {
            "samples": kind,
            "default_collate": first_batch(dataset),
            "collate_fn": own.__name__,
            "batch": first_batch(dataset, own),
        }
        for kind, dataset, own in (
            ("lengths differ", inked, pad),
            ("(8,) each", columns, along_1),
            ("Scan", scans, as_scans),
        )
    ],
)

# %% [markdown] lang="en"
# Lesson [08](08_collate.ipynb) is about this function.
#
# ## Exercise 1: your own batch sampler
#
# `order` is any iterable of indices. It promises `__iter__` and nothing else. The check compares with torch's `BatchSampler` on
# random cases. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 第 [08](08_collate.ipynb) 课专讲这个函数。
#
# ## 练习 1：你自己的批采样器
#
# `order` 是任意由索引组成的可迭代对象，它只承诺有 `__iter__`。检查时会在随机情况上与 torch 的 `BatchSampler` 比较。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:06_index_batches"]
def index_batches(order, batch_size, drop_last):
    """Yield lists of batch_size indices; the rest is a shorter list, or dropped."""
    ...


# solution
def index_batches(order, batch_size, drop_last):
    batch = []
    for index in order:
        batch.append(index)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch and not drop_last:
        yield batch


# %% tags=["check"]
exercises.check("06_index_batches", index_batches)  # stuck? exercises.hint("06_index_batches")

# %% [markdown] lang="en"
# ## Exercise 2: mend the loop of the notes
#
# `batch_sampler` gives lists, perhaps for ever; only their lengths matter. The loop ends when the stream does, and keeps what it
# has.

# %% [markdown] lang="zh"
# ## 练习 2：修好笔记的循环
#
# `batch_sampler` 不断给出列表，也许永不结束；有用的只是长度。数据流取完，循环就结束，并留下已有的样本。


# %% tags=["exercise:06_mended_loop"]
def mended_loop(dataset, batch_sampler, collate_fn):
    """Yield collate_fn(samples) for each list of the batch sampler, until the stream ends."""
    ...


# solution
def mended_loop(dataset, batch_sampler, collate_fn):
    stream = iter(dataset)
    for entries in batch_sampler:
        samples = list(islice(stream, len(entries)))
        if samples:
            yield collate_fn(samples)
        if len(samples) < len(entries):
            return


# %% tags=["check"]
exercises.check("06_mended_loop", mended_loop)  # stuck? exercises.hint("06_mended_loop")

# %% [markdown] lang="en"
# ## Exercise 3: what really arrives
#
# Give the length that `len(loader)` should have said for `SharedStream(samples)`. With 0 workers the main process reads alone.

# %% [markdown] lang="zh"
# ## 练习 3：真正到达几个批次
#
# 对 `SharedStream(samples)`，`len(loader)` 本该说几个批次？0 个工作进程表示主进程独自读取。


# %% tags=["exercise:06_batches_arrive"]
def batches_arrive(samples, workers, batch_size, drop_last):
    """How many batches does a loader over SharedStream(samples) deliver?"""
    ...


# solution
def batches_arrive(samples, workers, batch_size, drop_last):
    readers = max(1, workers)
    shares = [len(range(reader, samples, readers)) for reader in range(readers)]
    return sum(share // batch_size if drop_last else -(-share // batch_size) for share in shares)


# %% tags=["check"]
exercises.check("06_batches_arrive", batches_arrive)  # stuck? exercises.hint("06_batches_arrive")

# %% [markdown] lang="en"
# ## Bug hunt
#
# The notes: `batch_size` is 1 by default, and whenever it is not `None` the loader makes batches. Somebody turns this round: where
# batches come, `batch_size` is not `None`. Which of the four lines does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 笔记说：`batch_size` 默认为 1，只要它不是 `None`，加载器就会做批次。
# 有人把它反过来说：有批次，`batch_size` 就不是 `None`。四行里哪一行不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:BA-02"]
my_guess = ...  # 1, 2, 3 or 4

given = DataLoader(range(5), batch_sampler=[[4], [0, 1, 2]])
lines = {
    1: DataLoader(range(5)).batch_size == 1,
    2: len(given) == 2,
    3: given.batch_size is not None,
    4: [batch.tolist() for batch in given] == [[4], [0, 1, 2]],
}
print("batch_size:", given.batch_size, "| drop_last:", given.drop_last)
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# With a batch sampler of your own, `batch_size` is `None` and batches are made all the same. Do not ask `loader.batch_size`
# whether a loader makes batches; ask whether `loader.batch_sampler` is `None`.

# %% [markdown] lang="zh"
# 用了自己的批采样器，`batch_size` 就是 `None`，批次却照样有。
# 想知道加载器是否做批次，别问 `loader.batch_size`，问 `loader.batch_sampler` 是不是 `None`。

# %% [markdown] lang="en"
# ## Recap
#
# A batch sampler makes lists of indices; the loader reads them and collates each list. A stream has no indices, so each reader makes
# its own batches. `drop_last` then drops once for each worker, and `len` counts as if there were one reader.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Expected more than 1 value per channel when training` | one sample is left for the last batch | Wrong first |
# | `batch_sampler option is mutually exclusive with batch_size` | said twice how batches are made | Who makes the batches? |
# | `batch_size attribute should not be set` | changed after the loader was made | Who makes the batches? |
# | `generator raised StopIteration` | the loop of the notes, run as it stands | The loop for streams |
# | `expected unspecified batch_sampler option` | a stream has no indices | The loop for streams |
# | no message, fewer batches than `len` | `drop_last`, a stream and workers | What two workers drop |
#
# What next: lesson [07](07_single_samples.ipynb), with batching switched off.

# %% [markdown] lang="zh"
# ## 小结
#
# 批采样器做出索引列表；加载器读出样本，再把每个列表整理成批次。数据流没有索引，所以每个读者各做各的批次。
# 于是 `drop_last` 在每个工作进程里各丢一次，而 `len` 当作只有一个读者来数。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Expected more than 1 value per channel when training` | 最后一个批次只剩一个样本 | 先看错误 |
# | `batch_sampler option is mutually exclusive with batch_size` | 怎样做批次说了两遍 | 批次是谁做的 |
# | `batch_size attribute should not be set` | 加载器造好以后再改 | 批次是谁做的 |
# | `generator raised StopIteration` | 照搬笔记的循环 | 数据流的循环 |
# | `expected unspecified batch_sampler option` | 数据流没有索引 | 数据流的循环 |
# | 没有报错，批次比 `len` 少 | `drop_last`、数据流加工作进程 | 两个工作进程会丢掉什么 |
#
# 下一步：第 [07](07_single_samples.ipynb) 课，关闭自动成批。

# %%
exercises.progress("06")
