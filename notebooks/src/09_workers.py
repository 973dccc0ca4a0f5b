# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Worker processes", zh: "工作进程"}
#     sections: ["000: 4. Single- and Multi-process Data Loading", "000: 4.1 Single-process data loading (default)", "000: 4.2 Multi-process data loading"]
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 09 · Worker processes
#
# **You will be able to** say which step runs in which process, explain what one slow sample does to the queue, and keep
# the memory of workers from growing.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [03](03_iterable_datasets.ipynb) and [08](08_collate.ipynb) | 55 | 4., 4.1, 4.2: Single- and multi-process data loading | [简体中文](../zh/09_workers.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it on Linux and is compared again in each test run.

# %% [markdown] lang="zh"
# # 09 · 工作进程
#
# **学完本课，你能够**：说出每一步在哪个进程里运行，解释一个慢样本对队列的影响，并防止工作进程（worker）的内存越用越多。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [03](03_iterable_datasets.ipynb)、[08](08_collate.ipynb) 课 | 55 | 4.、4.1、4.2：Single- and multi-process data loading | [English](../en/09_workers.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它在 Linux 上真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# `children()` counts the processes that this notebook has started and that still live.

# %% [markdown] lang="zh"
# ## 准备
#
# `children()` 数出这个笔记本启动的、仍然活着的进程。

# %% tags=["setup"]
import functools
import inspect
import multiprocessing
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from tutorlib import exercises, facts, pictures, trace, widgets

# %load_ext tutorlib.cells
methods = multiprocessing.get_all_start_methods()
quick = "fork" if "fork" in methods else None  # how workers start below; None is Python's default
if "forkserver" in methods:
    multiprocessing.set_forkserver_preload(["torch"])


def children():
    return len(multiprocessing.active_children())


print("ready:", children(), "processes started")

# %% [markdown] lang="en"
# ## Wrong first
#
# A loader with `num_workers=2`. You make it, then `a = iter(loader)`, then `b = iter(loader)`.
# How many worker processes live after each of the three lines? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 一个 `num_workers=2` 的加载器。你先创建它，再写 `a = iter(loader)`，再写 `b = iter(loader)`。
# 这三行之后，各有几个工作进程活着？先写下你的预测，再运行单元格。

# %% tags=["wrong-first", "predict", "claim:WO-03", "claim:WO-06", "claim:WO-10"]
my_guess = ...  # for example [2, 2, 2]

rows = []


def moment(line, settle=None):
    deadline = time.monotonic() + 10  # a process that was told to stop needs a moment
    while settle is not None and children() != settle and time.monotonic() < deadline:
        time.sleep(0.01)
    rows.append({"after": line, "workers": children(), "processes in all": children() + 1})


loader = DataLoader(range(8), num_workers=2)
moment("loader = DataLoader(..., num_workers=2)")
a = iter(loader)
moment("a = iter(loader)")
b = iter(loader)
moment("b = iter(loader)")
list(a)
moment("list(a), to the end", settle=2)
del a, b
moment("del a, b", settle=0)
kept = DataLoader(range(8), num_workers=2, persistent_workers=True)
list(kept)
moment("list(kept), with persistent_workers=True", settle=2)
del kept
moment("del kept", settle=0)
print(exercises.predict(my_guess, torch=[row["workers"] for row in rows[:3]]))
facts.Table("who lives when", rows)

# %% [markdown] lang="en"
# ## The idea
#
# Workers belong to an **iterator**, not to the loader. Each `iter(loader)` starts `num_workers` processes; they end with the
# iteration, or with the iterator. Only `persistent_workers=True` ties them to the loader.
#
# A forgotten second iterator (a progress bar, a debugger, a `next(iter(loader))` in a loop) doubles the processes.
#
# There are two workers. Which of these run in the **main** process: the sampler, `dataset[index]`, `collate_fn`, `worker_init_fn`?

# %% [markdown] lang="zh"
# ## 概念
#
# 工作进程属于**迭代器**，不属于加载器。每个 `iter(loader)` 都启动 `num_workers` 个进程；遍历结束，或迭代器消失，它们就结束。
# 只有 `persistent_workers=True` 才把它们系在加载器上。
#
# 忘掉的第二个迭代器（进度条、调试器、循环里的 `next(iter(loader))`）会让进程数翻倍。
#
# 有两个工作进程时，下面哪些在**主**进程里运行：采样器、`dataset[index]`、`collate_fn`、`worker_init_fn`？

# %%
# %%importable places
import os

from torch.utils.data import Dataset, get_worker_info


class Where(Dataset):
    """Each sample says where it was read, and where worker_init_fn ran."""

    started = None

    def __len__(self):
        return 4

    def __getitem__(self, index):
        info = get_worker_info()
        return {
            "dataset[index]": os.getpid(),
            "worker_init_fn": self.started,
            "get_worker_info()": "None" if info is None else "an answer",
        }


def note_start(worker_id):
    get_worker_info().dataset.started = os.getpid()


def note_collate(samples):
    return [{**sample, "collate_fn": os.getpid()} for sample in samples]


# %% tags=["predict", "claim:WO-01", "claim:WO-07", "claim:WO-08", "claim:WO-09"]
STEPS = ["sampler", "dataset[index]", "collate_fn", "worker_init_fn"]


class SpyingSampler:
    def __init__(self):
        self.pids = set()

    def __iter__(self):
        for index in range(4):
            self.pids.add(os.getpid())
            yield index


def says(pids):
    if pids == {None}:
        return "never"
    return "main process" if pids == {os.getpid()} else f"{len(pids)} workers"


def where(workers):
    sampler = SpyingSampler()
    hooks = {"collate_fn": note_collate, "worker_init_fn": note_start}
    batches = list(DataLoader(Where(), batch_size=2, sampler=sampler, num_workers=workers, **hooks))
    samples = [sample for batch in batches for sample in batch]
    found = {"sampler": sampler.pids} | {
        step: {sample[step] for sample in samples} for step in STEPS[1:]
    }
    told = {step: says(pids) for step, pids in found.items()}
    return told | {"get_worker_info()": samples[0]["get_worker_info()"]}


my_guess = ...  # a list of names from STEPS

alone, helped = where(0), where(2)
print(exercises.predict(my_guess, torch=[step for step in STEPS if helped[step] == "main process"]))
facts.Table(
    "who does it",
    [{"step": s, "num_workers=0": alone[s], "num_workers=2": helped[s]} for s in alone],
)

# %% [markdown] lang="en"
# With workers only the sampler stays in the main process. It draws the indices and sends them; a worker reads **and** collates.
# Without workers everything runs between two steps of your training.
#
# Because the order is drawn in one place, it does not depend on the number of workers.

# %% [markdown] lang="zh"
# 有工作进程时，只有采样器留在主进程。它抽取索引并发出去；读样本**和**整理都由工作进程做。
# 没有工作进程时，一切都挤在两步训练之间。
#
# 顺序只在一处抽取，所以与工作进程数无关。


# %% tags=["claim:WO-09"]
def shuffled(workers):
    generator = torch.Generator().manual_seed(3)
    return [
        int(i) for i in DataLoader(range(8), shuffle=True, num_workers=workers, generator=generator)
    ]


rows = [{"num_workers": workers, "order": shuffled(workers)} for workers in (0, 1, 2)]
facts.Table("shuffle=True with one seed", rows)

# %% [markdown] lang="en"
# ## Why processes?
#
# Python's global interpreter lock (GIL) lets one thread at a time run Python code. The cell lets two threads count, and
# compares the processor time they used with the time that passed: 2 cores' worth, or 1?

# %% [markdown] lang="zh"
# ## 为什么用进程
#
# Python 的全局解释器锁（GIL）每次只让一个线程运行 Python 代码。下面让两个线程数数，
# 再比较它们用掉的处理器时间与流逝的时间：相当于两个核，还是一个核？


# %% tags=["claim:WO-02"]
def count():
    total = 0
    for number in range(2_000_000):
        total += number


def cores_used(threads):
    team = [threading.Thread(target=count) for _ in range(threads)]
    begun, used = time.perf_counter(), time.process_time()
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return (time.process_time() - used) / (time.perf_counter() - begun)


lock = getattr(sys, "_is_gil_enabled", lambda: True)()
arguments = inspect.signature(DataLoader).parameters
facts.Table(
    "threads",
    [
        {"question": "does this Python have the lock?", "answer": lock},
        {
            "question": "do two counting threads keep more than 1.5 cores busy?",
            "answer": cores_used(2) > 1.5,
        },
        {
            "question": "has DataLoader an argument for threads?",
            "answer": any("thread" in name for name in arguments),
        },
    ],
)

# %% [markdown] lang="en"
# A build of Python without the lock exists since 3.13, and it is optional. `DataLoader` offers processes only.
#
# ## When workers do not pay
#
# Forty numbers fit in memory and are read in no time. Starting two processes takes longer. The cell measures both, takes the best of
# three, and says only what holds on every machine.
#
# How many workers, then? Begin with 2, and add more as long as the loop still waits for batches.

# %% [markdown] lang="zh"
# 自 Python 3.13 起有一种不带这把锁的版本，可以选装。`DataLoader` 只提供进程。
#
# ## 工作进程什么时候不划算
#
# 40 个数放得进内存，一眨眼就读完；启动两个进程却要时间。下面两种都测，三次取最好的一次，只说在每台机器上都成立的话。
#
# 那么用几个？先用 2 个；只要训练循环还在等批次，就再加。


# %% tags=["claim:WO-04"]
def cost(workers):
    begun = time.perf_counter()
    list(DataLoader(range(40), batch_size=10, num_workers=workers))
    return time.perf_counter() - begun


alone, helped = (min(cost(workers) for _ in range(3)) for workers in (0, 2))
facts.Table(
    "40 samples in 4 batches",
    [
        {"question": "do 2 workers take longer than none?", "answer": helped > alone},
        {"question": "at least 5 times as long?", "answer": helped > 5 * alone},
    ],
)

# %% [markdown] lang="en"
# ## The same error, with and without a worker
#
# A dataset raises `KeyError`, another one an exception of its own, `BadFile`. In your training loop stands
# `except BadFile`. It works with 0 workers. What type arrives with 1 worker?

# %% [markdown] lang="zh"
# ## 同一个错误，有无工作进程
#
# 一个数据集抛出 `KeyError`，另一个抛出自己的异常 `BadFile`。你的训练循环里写着 `except BadFile`。
# 没有工作进程时它管用。有 1 个工作进程时，训练循环接到的是什么类型？


# %%
# %%importable faulty
from torch.utils.data import Dataset


class BadFile(Exception):
    def __init__(self, path, line):
        super().__init__(f"{path}: line {line} is broken")


class Faulty(Dataset):
    """Cannot be read: each sample raises."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if self.how == "KeyError":
            raise KeyError("label")
        raise BadFile("digits.csv", 7)


# %% tags=["predict", "claim:WO-05"]
my_guess = ...  # the name of a type

rows = []
for how in ("KeyError", "BadFile"):
    for workers in (0, 1):
        try:
            list(DataLoader(Faulty(how), num_workers=workers))
        except Exception as error:
            lines = str(error).strip().splitlines()
            row = {
                "raised": how,
                "num_workers": workers,
                "arrives as": type(error).__name__,
                "first line": lines[0],
            }
            rows.append({**row, "last line": lines[-1] if len(lines) > 1 else None})
            # The frames hold the loader's iterator, and with it the worker.
            traceback.clear_frames(error.__traceback__)
print(exercises.predict(my_guess, torch=rows[3]["arrives as"]))
facts.Table("what the training loop catches", rows)

# %% [markdown] lang="en"
# A worker sends the type and the traceback as text. The main process makes a new exception: `BadFile(text)`, with **one**
# argument. Where that fails, it takes `RuntimeError`. So look at the last line, and debug with `num_workers=0`.
# (The caught error also keeps the iterator and its workers alive until Python collects its garbage.)
#
# ## Exercise 1: an exception that arrives
#
# Write a `BadFile` that keeps its type on this way. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 工作进程把类型和回溯文本发过来。主进程用它造一个新异常：`BadFile(文本)`，只给**一个**参数。
# 造不成，就改用 `RuntimeError`。所以要看最后一行，调试时用 `num_workers=0`。
# （接住的错误还会让迭代器和它的工作进程活到 Python 回收垃圾为止。）
#
# ## 练习 1：到得了的异常
#
# 写一个 `BadFile`，走完这条路仍是原来的类型。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:09_bad_file"]
class BadFile(Exception):
    """str(BadFile("a.csv", 7)) is "a.csv: line 7 is broken"; from a worker
    it arrives as BadFile, with the worker's text."""

    ...


# solution
class BadFile(Exception):
    def __init__(self, path, line=None):
        super().__init__(path if line is None else f"{path}: line {line} is broken")


# %% tags=["check"]
exercises.check("09_bad_file", BadFile)  # stuck? exercises.hint("09_bad_file")

# %% [markdown] lang="en"
# ## One slow sample
#
# Sixteen digits in 8 batches of two. Reading digit 0 takes one second, all others next to nothing. While worker 0 is busy with
# batch 0, worker 1 has nothing else to do. How many of the other 7 batches are ready when batch 0 is?

# %% [markdown] lang="zh"
# ## 一个慢样本
#
# 16 个数字图像，每两个一批，共 8 个批次。读 0 号图像要一秒，其余几乎不花时间。0 号工作进程忙着第 0 批，
# 1 号工作进程没有别的事。等第 0 批好了，其余 7 个批次里有几个已经就绪？


# %%
# %%importable slow
import time

from torch.utils.data import Dataset

from tutorlib import datasets


class SlowDigits(Dataset):
    """Sixteen real digits; reading number 0 takes a second."""

    def __init__(self):
        self.digits = datasets.digits("train")

    def __len__(self):
        return 16

    def __getitem__(self, index):
        if index == 0:
            time.sleep(1.0)
        return self.digits[index]


# %% tags=["predict"]
my_guess = ...  # from 0 to 7

run = trace.record(SlowDigits(), batch_size=2, num_workers=2, multiprocessing_context=quick)
ready = max(fetch.stop for fetch in run.fetches if fetch.batch == 0)
late = {fetch.batch for fetch in run.fetches if fetch.stop > ready}
print(run, "\n")
exercises.predict(my_guess, torch=8 - 1 - len(late))

# %% [markdown] lang="en"
# Two. At the start each worker is given 2 requests (`prefetch_factor=2`), and the next is given out only when your loop
# receives a batch. Your loop waits for batch 0, because batches come **in order**. Batches 1 and 3 are ready; batch 2
# stands behind the slow one; nobody has asked for 4.
#
# Since torch 2.6 `in_order=False` hands over what is ready. Which batch arrives **last** then?

# %% [markdown] lang="zh"
# 两个。开始时每个工作进程领到 2 个请求（`prefetch_factor=2`），之后你的循环每收到一个批次，才再发一个。
# 你的循环在等第 0 批，因为批次要**按顺序**来。第 1、3 批已经就绪；第 2 批排在慢的后面；第 4 批还没有人要。
#
# 自 torch 2.6 起，`in_order=False` 会先交出就绪的批次。那么**最后**到达的是第几批？

# %% tags=["predict"]
my_guess = ...  # from 0 to 7

run = trace.record(
    SlowDigits(), batch_size=2, num_workers=2, in_order=False, multiprocessing_context=quick
)
order = [note.request for note in run.notes]
print("order of arrival:", order)
exercises.predict(my_guess, torch=order[-1])

# %% [markdown] lang="en"
# Not the slow batch: batch 2, which was given to worker 0 before anybody knew, and no one takes it back.
# Everything else went through worker 1 meanwhile. The price is an order that depends on the clock.
#
# ## Explore: the queue
#
# The picture draws the order that was measured; a slow sample counts 8 steps. Two things to change: untick `in_order`:
# how long does the main process wait now? Then set `prefetch` to 4: which batches are stuck behind batch 0? With `clock` on `seconds` you see your machine's real times.

# %% [markdown] lang="zh"
# 不是慢的那一批，而是第 2 批：谁也不知道会慢的时候，它就给了 0 号工作进程，之后没有人收回。
# 其余的都由 1 号工作进程读完了。代价是：顺序取决于时钟。
#
# ## 动手探索：队列
#
# 图中画的是测得的顺序，慢样本算 8 步。试着改两处：取消勾选 `in_order`，主进程现在要等多久？再把 `prefetch` 改成 4，哪些批次卡在第 0 批后面？
# 把 `clock` 改成 `seconds`，可以看到你机器上的真实时间。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Queue(facts.Facts):
    """One real run with a slow sample: who fetched which batch, and in which order they arrived."""

    run: trace.Trace
    clock: str

    def summary(self):
        return f"order of arrival: {[note.request for note in self.run.notes]}"

    def rows(self):
        return [
            {"arrives": place, "batch": note.request, "keys": note.keys, "worker": note.worker}
            for place, note in enumerate(self.run.notes)
        ]

    def lanes(self, clock):
        notes, order = self.run.notes, [note.request for note in self.run.notes]
        if clock == "seconds":
            measured = self.run.lanes("seconds")
            for span in (
                span
                for lane in measured["lanes"]
                for span in lane["spans"]
                if span["label"].isdecimal()
            ):
                span["label"] = str(order[int(span["label"])])
            return measured
        ahead, workers = self.run.requests_ahead or 1, self.run.workers
        steps = {note.request: 8 if 0 in note.keys else 1 for note in notes}
        mine = {
            note.request: [other.request for other in notes if other.worker == note.worker]
            for note in notes
        }

        @functools.cache
        def begins(batch):
            # When it has been asked for, and what its worker was given before is done.
            asked = 0 if batch < ahead else arrives(batch - ahead) + (not workers)
            return max([asked, *(ends(other) for other in mine[batch] if other < batch)])

        def ends(batch):
            return begins(batch) + steps[batch]

        @functools.cache
        def arrives(place):  # when it is done, and the batch before it is used
            return max(ends(order[place]), arrives(place - 1) + 1 if place else 0)

        lanes = {None: [], **{worker: [] for worker in range(workers)}}
        for place, note in enumerate(notes):
            label, now = str(note.request), arrives(place)
            lanes[note.worker].append(
                {
                    "start": begins(note.request),
                    "stop": ends(note.request),
                    "kind": "fetch",
                    "label": label,
                }
            )
            free = arrives(place - 1) + 1 if place else 0
            if workers and now > free:
                lanes[None].append({"start": free, "stop": now, "kind": "wait", "label": label})
            lanes[None].append({"start": now, "stop": now + 1, "kind": "use", "label": label})
        names = [
            ("main" if worker is None else f"worker {worker}", spans)
            for worker, spans in lanes.items()
        ]
        return {
            "unit": "steps, 8 for the slow one",
            "lanes": [{"name": name, "spans": spans} for name, spans in names],
        }


# %% tags=["explore"]
def queue(in_order, prefetch, workers, clock):
    helpers = {"prefetch_factor": prefetch, "multiprocessing_context": quick} if workers else {}
    run = trace.record(
        SlowDigits(), batch_size=2, num_workers=workers, in_order=in_order, **helpers
    )
    return Queue(run, clock)


def draw(found):
    return pictures.timeline(found, title="One slow sample", clock=found.clock)


widgets.explore(
    queue, draw, in_order=True, prefetch=[2, 1, 4], workers=[2, 1, 0], clock=["order", "seconds"]
)

# %% [markdown] lang="en"
# ## Memory that grows
#
# `fork` starts a worker as a clone of this process (lesson [10](10_start_methods.ipynb) compares the ways to start one). It shares
# memory: a worker copies a page (4 KB or more) only when it **writes** to it. Two hundred thousand file names, read once
# by a worker, never changed. Kept as a list or as a NumPy array: for which does the worker's own memory grow?

# %% [markdown] lang="zh"
# ## 越用越多的内存
#
# `fork` 把当前进程克隆成工作进程（第 [10](10_start_methods.ipynb) 课比较各种启动方式）。它共享内存：工作进程只有**写入**一页（4 KB 或更大）时才复制它。
# 20 万个文件名，由工作进程读一遍，从不改动。
# 存成列表，或存成 NumPy 数组：哪一种会让工作进程自己的内存增长？


# %%
# %%importable memory
import re
from pathlib import Path

from torch.utils.data import Dataset

BLOCK = 10_000


def private_memory():
    """The MB that belong to this process alone; None where the system does not say (Linux does)."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return None
    return sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+: +(\d+) kB", text)) / 1024


class Names(Dataset):
    """A sample reads ten thousand names; it says how much memory the worker had, and has now."""

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names) // BLOCK

    def __getitem__(self, block):
        before = private_memory()
        for name in self.names[block * BLOCK : (block + 1) * BLOCK]:
            len(name)
        return before, private_memory()


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Growth(facts.Facts):
    """By how many MB the workers' own memory grew; None where the system does not tell."""

    names: int
    megabytes: dict

    def grows(self, kind):
        return grows(self.megabytes[kind], self.names)

    def summary(self):
        return f"{self.names} file names, read once by forked workers"

    def rows(self):
        return [{"kept as": kind, "workers grow": self.grows(kind)} for kind in self.megabytes]

    def bars(self):
        entries = [
            {"name": k, "value": round(m or 0, 1), "note": "grows" if self.grows(k) else ""}
            for k, m in self.megabytes.items()
        ]
        return {"unit": "MB", "measured": True, "bars": entries}


# %% tags=["predict", "explore"]
my_guess = ...  # a list: ["list"], ["array"], both or none


def grows(megabytes, names):  # a list of names takes 80 bytes or more for each
    return None if megabytes is None else megabytes > 0.25 * 80e-6 * names


def growth(names, workers):
    paths = [f"train/{number % 10}/{number:08d}.png" for number in range(names)]
    found = {}
    for kind, kept in {"list": paths, "array": np.array(paths)}.items():
        loader = DataLoader(
            Names(kept), batch_size=None, num_workers=workers, multiprocessing_context=quick
        )
        told = [sample for sample in loader if quick and sample[0] is not None]
        found[kind] = sum(after - before for before, after in told) if told else None
    return Growth(names, found)


view = widgets.explore(growth, pictures.bars, run="button", names=[200_000, 50_000], workers=[1, 2])
growing = [kind for kind in view.facts.megabytes if view.facts.grows(kind)]
print(exercises.predict(my_guess, torch=growing))
view

# %% [markdown] lang="en"
# Reading a Python object **is** writing: Python counts its references inside the object itself. So each page with names is
# copied, in every worker, until each has the whole list. An array is one object; its numbers and letters have no counter.
#
# Under `spawn` and `forkserver`, the two other ways, each worker gets a full copy of lists and arrays at the start. Tensors are the
# exception: lesson [10](10_start_methods.ipynb).
#
# ## Exercise 2: pack the names
#
# An array of strings gives every name the room of the longest. Do better: few objects, however many names, no name lengthened.

# %% [markdown] lang="zh"
# 读一个 Python 对象**就是**写：Python 把引用计数记在对象自己身上。于是放着文件名的每一页都要复制，每个工作进程都如此，
# 直到人手一份完整的列表。数组是一个对象，里面的数字和字母没有计数。
#
# 在另外两种方式 `spawn` 和 `forkserver` 下，列表和数组在每个工作进程启动时就各复制一整份。张量是例外，见第 [10](10_start_methods.ipynb) 课。
#
# ## 练习 2：把文件名打包
#
# 字符串数组给每个名字留出最长者的位置。做得更好一些：名字再多，对象也只有几个，且不加长任何名字。


# %% tags=["exercise:09_packed"]
class Packed:
    """Packed(names)[i] == names[i], len(Packed(names)) == len(names); a few objects hold it all."""

    def __init__(self, names): ...

    def __len__(self): ...

    def __getitem__(self, index): ...


# solution
class Packed:
    def __init__(self, names):
        parts = [name.encode() for name in names]
        self.letters = b"".join(parts)
        self.ends = np.cumsum([0, *map(len, parts)])

    def __len__(self):
        return len(self.ends) - 1

    def __getitem__(self, index):
        return self.letters[self.ends[index] : self.ends[index + 1]].decode()


# %% tags=["check"]
exercises.check("09_packed", Packed)  # stuck? exercises.hint("09_packed")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four sentences in the style of the notes, about `num_workers=2`. One of them is not true. Which one? The cell proves it.
#
# 1. Two new processes read the data; with the main process that makes three.
# 2. The dataset is handed to each worker when an iterator is created.
# 3. Once the iteration is over, the worker threads are shut down.
# 4. The main process draws the indices and hands them out.

# %% [markdown] lang="zh"
# ## 找错
#
# 四句话，写法与笔记相同，都关于 `num_workers=2`。有一句不成立。是哪一句？单元格会给出证明。
#
# 1. 两个新进程读数据，加上主进程一共三个。
# 2. 创建迭代器时，数据集传给每个工作进程。
# 3. 遍历一结束，工作线程就关闭。
# 4. 主进程抽取索引，再分发出去。

# %% tags=["bug-hunt", "claim:WO-10", "claim:WO-03"]
my_guess = ...  # 1, 2, 3 or 4

sampler = SpyingSampler()
iterator = iter(
    DataLoader(Where(), batch_size=None, sampler=sampler, num_workers=2, worker_init_fn=note_start)
)
workers = multiprocessing.active_children()
readers = {sample["dataset[index]"] for sample in iterator}
proofs = {
    1: len({os.getpid(), *readers}) == 3,
    2: readers == {worker.pid for worker in workers},
    3: readers == {os.getpid()},  # the threads of a process share its number
    4: sampler.pids == {os.getpid()},
}
print("the readers are processes of their own:", os.getpid() not in readers)
print("they have ended:", not any(worker.is_alive() for worker in workers))
exercises.predict(my_guess, torch=next(number for number, holds in proofs.items() if not holds))

# %% [markdown] lang="en"
# They do end, as the notes say, but they are processes. That is why they have a memory, random numbers and a start method of
# their own.

# %% [markdown] lang="zh"
# 它们确实会结束，笔记说得对，但它们是进程。正因如此，它们有自己的内存、自己的随机数、自己的启动方式。

# %% [markdown] lang="en"
# ## Recap
#
# Each iterator starts its own workers; they read and collate, the main process draws the order. In order, one slow sample holds
# up everything behind it. Keep big data in arrays, tensors or bytes, not in Python lists.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, twice the processes | a second iterator | Wrong first |
# | `Caught KeyError in DataLoader worker process 0.` | an error in the dataset; the last line says which | The same error, with and without a worker |
# | no message, `except BadFile` catches nothing | the exception cannot be made from one text | The same error, with and without a worker |
# | no message, the other workers idle | one slow sample, in order | One slow sample |
# | no message, the memory of workers grows | a long Python list in the dataset | Memory that grows |
#
# What next: lesson [10](10_start_methods.ipynb), how a worker comes to life.

# %% [markdown] lang="zh"
# ## 小结
#
# 每个迭代器启动自己的工作进程；它们读样本并整理，主进程抽取顺序。按顺序交付时，一个慢样本会挡住后面的一切。
# 大量数据放进数组、张量或字节串，不要放进 Python 列表。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，进程数翻倍 | 第二个迭代器 | 先看错误 |
# | `Caught KeyError in DataLoader worker process 0.` | 数据集出错，最后一行说明是什么错 | 同一个错误，有无工作进程 |
# | 没有报错，`except BadFile` 什么也没接住 | 只用一段文本造不出这个异常 | 同一个错误，有无工作进程 |
# | 没有报错，其余工作进程闲着 | 一个慢样本，又要按顺序 | 一个慢样本 |
# | 没有报错，工作进程的内存增长 | 数据集里有很长的 Python 列表 | 越用越多的内存 |
#
# 下一步：第 [10](10_start_methods.ipynb) 课，工作进程怎样诞生。

# %%
exercises.progress("09")
