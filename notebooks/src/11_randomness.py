# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Random numbers in workers", zh: "工作进程里的随机数"}
#     sections: ["000: 4.4 Randomness in multi-process data loading"]
#     minutes: 60
# ---

# %% [markdown] lang="en"
# # 11 · Random numbers in workers
#
# **You will be able to** predict which random numbers repeat across workers and epochs, seed every library in a worker,
# and write augmentation that is the same for any number of workers.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [10](10_start_methods.ipynb) | 60 | 4.4 Randomness in multi-process data loading | [简体中文](../zh/11_randomness.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 11 · 工作进程里的随机数
#
# **学完本课，你能够**：预测哪些随机数会在工作进程（worker）之间、轮（epoch）之间重复；在工作进程里给每个库设置随机种子；写出结果与工作进程数无关的数据增强。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [10](10_start_methods.ipynb) 课 | 60 | 4.4 Randomness in multi-process data loading | [English](../en/11_randomness.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# Two datasets that play dice. `OwnDice` keeps a generator of its own, with seed 0. `Dice` throws with four
# generators at once: the three that everybody shares (`random`, `np.random`, `torch`) and one of its own.

# %% [markdown] lang="zh"
# ## 准备
#
# 两个掷骰子的数据集。`OwnDice` 自带一个随机数生成器（random generator），种子是 0。
# `Dice` 同时用四个生成器：大家共用的三个（`random`、`np.random`、`torch`），再加一个自带的。

# %% tags=["setup"]
import multiprocessing
import traceback
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from tutorlib import exercises, facts, pictures, widgets

# %load_ext tutorlib.cells
if "forkserver" in multiprocessing.get_all_start_methods():
    # Where forkserver is the default, workers start quicker.
    multiprocessing.set_forkserver_preload(["torch"])
print("ready")

# %%
# %%importable dice
import random

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

SIDES = 2**30  # so many that two equal throws are no accident


class OwnDice(Dataset):
    """Each sample is a throw, from 0 to 999, of a generator that belongs to the dataset."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return int(self.rng.integers(1000))


class Dice(OwnDice):
    """Each sample is one throw of four generators, and who threw."""

    def __getitem__(self, index):
        me = get_worker_info()
        return {
            "worker": None if me is None else me.id,
            "seed": torch.initial_seed(),
            "random": random.randrange(SIDES),
            "np.random": int(np.random.randint(SIDES)),
            "torch": int(torch.randint(SIDES, ())),
            "own": int(self.rng.integers(SIDES)),
        }


# %% [markdown] lang="en"
# ## Wrong first
#
# Four samples, two workers, two epochs: eight throws of `OwnDice`. How many **different** numbers arrive?
# Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 四个样本，两个工作进程，两轮：`OwnDice` 一共掷八次。会得到几个**不同的**数？
# 先写下你的预测，再运行单元格。


# %% tags=["wrong-first", "predict", "claim:RN-02"]
def two_epochs(dataset, **arguments):
    loader = DataLoader(dataset, batch_size=None, **arguments)
    return list(loader), list(loader)


my_guess = ...  # from 1 to 8

first, second = two_epochs(OwnDice(), num_workers=2)
print("epoch 1:", first)
print("epoch 2:", second)
exercises.predict(my_guess, torch=len({*first, *second}))

# %% [markdown] lang="en"
# ## The idea
#
# A generator is a state that each throw changes. A worker gets a **copy** of the dataset, with the generator
# in it. Two copies of one state throw the same numbers.
#
# The second epoch starts new workers from the object in the main process. Nobody has thrown with that one, so it
# all begins again. If this were image augmentation, four images would share two distortions, in every epoch.
#
# The notes warn: other libraries' seeds may be duplicated, so all workers return the same random numbers.
# For which of the four generators of `Dice` is that so? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 概念
#
# 生成器就是一份状态，每掷一次就变一次。工作进程拿到数据集的一份**副本**，生成器也在里面。
# 同一份状态的两个副本，掷出的数相同。
#
# 第二轮从主进程里的那个对象重新启动工作进程。那个对象谁也没有掷过，于是一切从头再来。
# 如果这是数据增强（augmentation），四张图像就只有两种变形，轮轮如此。
#
# 笔记提醒：其他库的种子可能重复，导致每个工作进程返回相同的随机数。
# 对 `Dice` 的四个生成器，哪些真是这样？先写下你的预测，再运行单元格。

# %% tags=["predict", "claim:RN-02"]
GENERATORS = ["random", "np.random", "torch", "own"]


def throws(samples, generator, worker=None):
    return {sample[generator] for sample in samples if worker in (None, sample["worker"])}


def repetition(first, second, generator):
    return {
        "different numbers": len(throws(first + second, generator)),
        "worker 1 repeats worker 0": bool(
            throws(first, generator, 0) & throws(first, generator, 1)
        ),
        "epoch 2 repeats epoch 1": bool(throws(first, generator) & throws(second, generator)),
    }


my_guess = ...  # a list, for example ["np.random", "own"]

first, second = two_epochs(Dice(), num_workers=2)
rows = [{"generator": name, **repetition(first, second, name)} for name in GENERATORS]
repeating = [row["generator"] for row in rows if row["different numbers"] < 8]
print(exercises.predict(my_guess, torch=repeating))
facts.Table("8 throws of each generator", rows)

# %% [markdown] lang="en"
# Since torch 1.9 each worker seeds `random`, `torch` **and** the global `np.random`. The warning is out of date for
# them. It holds for every generator that you keep in the dataset, with or without a seed: torch does not know that it
# exists. (A `torch.Generator` there is worse still: on Linux its `spawn` and `forkserver` workers die at the start.)
#
# ## Where a worker's seed comes from
#
# The main process draws one 64-bit number, `base_seed`, and worker `i` gets `base_seed + i`. It draws from the
# loader's `generator=`, or else from torch's global generator. The cell draws along, from a generator in the same state.

# %% [markdown] lang="zh"
# 自 torch 1.9 起，每个工作进程都给 `random`、`torch` **以及**全局的 `np.random` 设置种子。对这三个，笔记的提醒已经过时。
# 存放在数据集里的生成器仍会重复，给没给种子都一样：torch 不知道它存在。
# （放 `torch.Generator` 更糟：在 Linux 上，`spawn` 和 `forkserver` 的工作进程一启动就死掉。）
#
# ## 工作进程的种子从哪里来
#
# 主进程抽取一个 64 位的数 `base_seed`，第 `i` 个工作进程得到 `base_seed + i`。抽取时用加载器的 `generator=`；
# 没有给，就用 torch 的全局生成器。下面的单元格用状态相同的生成器跟着抽。

# %% tags=["claim:RN-01"]
ours = torch.Generator().manual_seed(7)
rows = []
for epoch, samples in enumerate(
    two_epochs(Dice(), num_workers=2, generator=torch.Generator().manual_seed(7)), start=1
):
    base_seed = torch.empty((), dtype=torch.int64).random_(generator=ours).item()
    row = {
        f"seed of worker {w} - base_seed": throws(samples, "seed", w).pop() - base_seed
        for w in (0, 1)
    }
    rows.append({"epoch": epoch, **row})
facts.Table("base_seed, drawn here by hand, beside the seeds of real workers", rows)

# %% [markdown] lang="en"
# Your own draw gave the very same number, in both epochs. So one seeded `generator=` fixes every worker's global generators.
#
# A draw also moves the generator that it is drawn from. You seed torch, make an iterator without workers and without
# shuffling, and throw it away. Is the next `torch.rand(1)` another number than it would have been?

# %% [markdown] lang="zh"
# 你自己抽到的正是同一个数，两轮都是。所以只要给 `generator=` 定一个种子，所有工作进程的全局生成器就都定了。
#
# 每抽一次，被抽的生成器也前进一步。你给 torch 设好种子，创建一个迭代器，没有工作进程，也不打乱，然后把它丢掉。
# 接下来的 `torch.rand(1)` 与本该得到的数不同吗？


# %% tags=["predict", "claim:RN-01"]
def next_number(action):
    torch.manual_seed(0)
    action()
    return torch.rand(1).item()


my_guess = ...  # "yes" or "no"

data, undisturbed = range(4), next_number(lambda: None)
actions = {
    "DataLoader(data)": lambda: DataLoader(data),
    "iter(DataLoader(data))": lambda: iter(DataLoader(data)),
    "iter(DataLoader(data, generator=g))": lambda: iter(
        DataLoader(data, generator=torch.Generator())
    ),
    "list(DataLoader(data, shuffle=True))": lambda: list(DataLoader(data, shuffle=True)),
    "list(DataLoader(data, shuffle=True, generator=g))": lambda: list(
        DataLoader(data, shuffle=True, generator=torch.Generator())
    ),
}
moved = {name: next_number(action) != undisturbed for name, action in actions.items()}
print(exercises.predict(my_guess, torch="yes" if moved["iter(DataLoader(data))"] else "no"))
facts.Table(
    "torch.rand(1) afterwards",
    [{"in between": name, "another number": other} for name, other in moved.items()],
)

# %% [markdown] lang="en"
# A harmless look at one batch, before the model is built, gives the model other initial weights. With `generator=` the
# loader has its own source, and the global generator stays where it is.
#
# ## Seeding other libraries
#
# Inside `worker_init_fn` the seed is at hand in two ways: `get_worker_info().seed` and `torch.initial_seed()`. With it you can seed
# other libraries. Each function below runs once in each worker, and writes its finding into its copy of the dataset.

# %% [markdown] lang="zh"
# 建模型之前随手看了一个批次，模型的初始权重就变了。给了 `generator=`，加载器就有自己的来源，全局生成器原地不动。
#
# ## 给其他库设置种子
#
# 在 `worker_init_fn` 里有两种办法得到种子：`get_worker_info().seed` 和 `torch.initial_seed()`。用它可以给其他库设置种子。
# 下面每个函数在每个工作进程里运行一次，把结果写进自己那份数据集副本。


# %%
# %%importable seeding
import random

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

SEEDERS = {
    "random.seed": random.seed,
    "np.random.seed": np.random.seed,
    "np.random.default_rng": np.random.default_rng,
    "torch.manual_seed": torch.manual_seed,
}


class Told(Dataset):
    """Two samples, each of them what a worker_init_fn left here."""

    told = "nothing"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.told


def tell_seed(worker_id):
    me = get_worker_info()
    me.dataset.told = {
        "worker": worker_id,
        "info.seed == torch.initial_seed()": me.seed == torch.initial_seed(),
    }


def tell_seeders(worker_id):
    me = get_worker_info()
    me.dataset.told = {}
    for name, seeder in SEEDERS.items():
        try:
            seeder(me.seed)
            me.dataset.told[name] = "accepted"
        except ValueError as error:
            me.dataset.told[name] = f"ValueError: {error}"


def seed_numpy_as_it_is(worker_id):
    np.random.seed(get_worker_info().seed)


# %% tags=["claim:RN-03"]
facts.Table(
    "the seed, asked for in two ways",
    list(DataLoader(Told(), batch_size=None, num_workers=2, worker_init_fn=tell_seed)),
)

# %% [markdown] lang="en"
# Both are the same number. Which of these four take it as it is: `random.seed`, `np.random.seed`,
# `np.random.default_rng`, `torch.manual_seed`?

# %% [markdown] lang="zh"
# 两者是同一个数。这四个当中，哪些能原样接受它：`random.seed`、`np.random.seed`、
# `np.random.default_rng`、`torch.manual_seed`？

# %% tags=["predict", "claim:RN-04"]
my_guess = ...  # a list of names, in the order above


def read_with(function):
    generator = torch.Generator().manual_seed(7)
    loading = {"batch_size": None, "num_workers": 1, "generator": generator}
    return list(DataLoader(Told(), worker_init_fn=function, **loading))


told = read_with(tell_seeders)[0]
try:
    read_with(seed_numpy_as_it_is)
except ValueError as error:
    lines = str(error).strip().splitlines()
    print("the whole loader stops:", lines[0])
    print(lines[-1], "\n")
    traceback.clear_frames(error.__traceback__)  # they hold the iterator, and with it the worker
accepted = [name for name, answer in told.items() if answer == "accepted"]
print(exercises.predict(my_guess, torch=accepted))
facts.Table(
    "given the 64-bit seed of a worker",
    [{"function": name, "answer": answer} for name, answer in told.items()],
)

# %% [markdown] lang="en"
# The seed has 64 bits, and `np.random.seed` takes 32. Write `np.random.seed(seed % 2**32)`, or leave it out: torch has
# already seeded the global `np.random`. What needs you is the generator of your own.
#
# ## Workers that stay
#
# With `persistent_workers=True` the same two workers serve both epochs. How many different numbers are
# among the eight throws of `own` now?

# %% [markdown] lang="zh"
# 种子有 64 位，`np.random.seed` 只收 32 位。写 `np.random.seed(seed % 2**32)`，或者干脆不写：
# 全局的 `np.random`，torch 已经设置过了。需要你动手的是自己的生成器。
#
# ## 留下来的工作进程
#
# 设置 `persistent_workers=True`，两轮由同样的两个工作进程服务。现在 `own` 的八次投掷里有几个不同的数？

# %% tags=["predict", "claim:RN-02"]
my_guess = ...  # from 1 to 8

rows = []
for kept in (False, True):
    first, second = two_epochs(Dice(), num_workers=2, persistent_workers=kept)
    seeds_stay = throws(first, "seed") == throws(second, "seed")
    rows.append(
        {
            "persistent_workers": kept,
            "the seeds stay": seeds_stay,
            **repetition(first, second, "own"),
        }
    )
print(exercises.predict(my_guess, torch=rows[1]["different numbers"]))
facts.Table("8 throws of own", rows)

# %% [markdown] lang="en"
# Workers that stay keep their copies, and the copies have moved on. So epochs differ, and workers still repeat each other.
# They are seeded once, when they start: `get_worker_info().seed` is the same in every epoch.
#
# ## Explore: which numbers repeat
#
# A letter stands for a number. Within one generator, the same letter twice is the same number twice. Two things to change: set
# `workers` to 0, then to 2 again with `persistent` ticked.

# %% [markdown] lang="zh"
# 留下来的工作进程保留自己的副本，副本已经往前走了。所以两轮不同，但工作进程之间仍然重复。
# 它们只在启动时设置一次种子：`get_worker_info().seed` 每轮都一样。
#
# ## 动手探索：哪些数会重复
#
# 一个字母代表一个数。在同一个生成器里，同一个字母出现两次，就是同一个数出现两次。试着改两处：把 `workers` 改成 0；再改回 2，并勾选 `persistent`。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Repeats(facts.Facts):
    """Which numbers repeat, by generator, epoch and worker: equal numbers have equal letters."""

    epochs: tuple

    def lines(self):
        for generator in GENERATORS:
            thrown = [sample[generator] for samples in self.epochs for sample in samples]
            letter = dict(zip(dict.fromkeys(thrown), "ABCDEFGH", strict=False))
            for number, samples in enumerate(self.epochs, start=1):
                hands = {}
                for sample in samples:
                    who = "main" if sample["worker"] is None else f"worker {sample['worker']}"
                    times = thrown.count(sample[generator])
                    sign = f"x{times}" if times > 1 else ""
                    hands.setdefault(who, []).append(
                        {"text": letter[sample[generator]], "sign": sign}
                    )
                yield generator, number, hands

    def summary(self):
        found = [
            f"{len(throws(self.epochs[0] + self.epochs[1], name))} of {name}" for name in GENERATORS
        ]
        return f"different numbers in 8 throws: {', '.join(found)}"

    def rows(self):
        return [
            {
                "generator": name,
                "epoch": epoch,
                **{who: " ".join(t["text"] for t in hand) for who, hand in hands.items()},
            }
            for name, epoch, hands in self.lines()
        ]

    def grid(self):
        cells = [
            (f"{g}, epoch {e}", [{"label": w, "items": h} for w, h in hands.items()])
            for g, e, hands in self.lines()
        ]
        rows = [{"label": label, "cells": row} for label, row in cells]
        return {"unit": "throw", "rows": rows, "missing": []}


# %% tags=["explore"]
def throw(workers, persistent):
    return Repeats(
        two_epochs(Dice(), num_workers=workers, persistent_workers=persistent and workers > 0)
    )


def draw(repeats):
    return pictures.grid(repeats, title="Which numbers repeat")


widgets.explore(throw, draw, workers=[2, 1, 0], persistent=False)

# %% [markdown] lang="en"
# Without workers there is one copy, and nothing repeats. That is why the mistake passes every test on a laptop with
# `num_workers=0`.
#
# ## Exercise 1: the seeds of torch's workers
#
# Say which seeds the workers of a loader have, without starting them. Your answer is compared with torch's own.
# Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 没有工作进程时只有一份副本，什么都不重复。所以在笔记本电脑上用 `num_workers=0` 测试，这个错误查不出来。
#
# ## 练习 1：torch 的工作进程的种子
#
# 不启动工作进程，说出它们的种子。你的答案要与 torch 自己的对照。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:11_worker_seeds"]
def worker_seeds(seed, epoch, workers):
    """The seed of each worker in that epoch, counted from 0, of a new loader with
    generator=torch.Generator().manual_seed(seed) and no shuffling."""
    ...


# solution
def worker_seeds(seed, epoch, workers):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epoch + 1):
        base_seed = torch.empty((), dtype=torch.int64).random_(generator=generator).item()
    return [base_seed + worker for worker in range(workers)]


# %% tags=["check"]
exercises.check("11_worker_seeds", worker_seeds)  # stuck? exercises.hint("11_worker_seeds")

# %% [markdown] lang="en"
# ## Exercise 2: mend the dataset's own generator
#
# `reseed` is what a `worker_init_fn` calls with `get_worker_info()`. Give the copy a new generator: other numbers in each
# worker and each epoch, and the same numbers again when the whole run is repeated.

# %% [markdown] lang="zh"
# ## 练习 2：修好数据集自己的生成器
#
# `worker_init_fn` 会用 `get_worker_info()` 调用 `reseed`。给副本换一个新生成器：每个工作进程、每一轮的数都不同；
# 整个训练重跑一遍，又得到同样的数。


# %% tags=["exercise:11_reseed"]
def reseed(info):
    """Give info.dataset.rng a new NumPy generator. info has id, num_workers, seed and dataset."""
    ...


# solution
def reseed(info):
    info.dataset.rng = np.random.default_rng(info.seed)


# %% tags=["check"]
exercises.check("11_reseed", reseed)  # stuck? exercises.hint("11_reseed")

# %% [markdown] lang="en"
# ## The same sample, another machine
#
# Another machine often has another number of workers. Nothing repeats now, but is the run reproducible? Same loader, same `generator=`, once with 1 worker and once with 2.
# For how many of the four samples does `torch` throw the same number in both?

# %% [markdown] lang="zh"
# ## 同一个样本，换一台机器
#
# 换一台机器，工作进程数往往也变了。现在什么都不重复了，但训练可复现吗？同样的加载器，同样的 `generator=`，一次用 1 个工作进程，一次用 2 个。
# 四个样本里，有几个在两次中由 `torch` 掷出同一个数？

# %% tags=["predict"]
my_guess = ...  # from 0 to 4


def thrown(workers):
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(Dice(), batch_size=None, num_workers=workers, generator=generator)
    return [sample["torch"] for sample in loader]


same = [one == two for one, two in zip(thrown(1), thrown(2), strict=True)]
exercises.predict(my_guess, torch=sum(same))

# %% [markdown] lang="en"
# Only sample 0: it is the first throw of worker 0 in both runs. All others came from another worker, or as another throw. A seed per
# worker makes a run repeatable on **this** number of workers only.
#
# The way out: seed by the **sample**, not by the worker. A fresh generator for each (seed, epoch, index) needs no memory.
# The digits below are shifted by such a generator. The epoch comes from `dataset.epoch`, or with the key.

# %% [markdown] lang="zh"
# 只有样本 0 在两次中都是 0 号工作进程的第一次投掷。其余样本换了工作进程，或不再是同一次投掷。
# 按工作进程设置种子，只有工作进程数**不变**时才能重现。
#
# 出路：按**样本**设置种子，而不是按工作进程。为每个（种子、轮次、索引）新建一个生成器，什么都不用记。
# 下面的数字图像就用这样的生成器平移。轮次来自 `dataset.epoch`，或随键一起来。

# %%
# %%importable keyed
import random

import torch
from torch.utils.data import Dataset

from tutorlib import datasets


class ShiftedDigits(Dataset):
    """Digits, shifted by up to 3 pixels both ways; the shift depends on seed, epoch and index."""

    def __init__(self, seed):
        self.digits, self.seed, self.epoch = datasets.digits("train"), seed, 0

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (self.epoch, key)
        rng = random.Random(f"{self.seed} {epoch} {index}")
        image, label = self.digits[index]
        shift = rng.randint(-3, 3), rng.randint(-3, 3)
        return torch.roll(image, shift, dims=(1, 2)), label


# %% [markdown] lang="en"
# Between two loops you set `dataset.epoch = 1`, as many libraries ask you to. New workers get a new copy.
# Do **persistent workers** (those that `persistent_workers=True` keeps) shift the images as epoch 1 demands?

# %% [markdown] lang="zh"
# 两次循环之间，你设置 `dataset.epoch = 1`，许多库都要求这样做。新的工作进程拿到新的副本。
# **常驻工作进程**（persistent workers，即 `persistent_workers=True` 留下的那些）会按第 1 轮的要求平移图像吗？


# %% tags=["predict"]
def images(loader):
    return torch.cat([batch for batch, labels in loader])


def by_attribute(**workers):
    dataset = ShiftedDigits(seed=5)
    loader = DataLoader(dataset, batch_size=8, sampler=range(16), **workers)
    before = images(loader)
    dataset.epoch = 1
    return before, images(loader)


def by_key(**workers):
    keys = []  # the sampler: the main process reads it anew in each loop
    loader = DataLoader(ShiftedDigits(seed=5), batch_size=8, sampler=keys, **workers)
    found = []
    for epoch in (0, 1):
        keys[:] = [(epoch, index) for index in range(16)]
        found.append(images(loader))
    return found


my_guess = ...  # "yes" or "no"

right = by_attribute()  # in the main process
kept = {"num_workers": 2, "persistent_workers": True}
rows = [
    {
        "the epoch travels": how,
        "workers": who,
        **{f"epoch {e} right": torch.equal(run[e], right[e]) for e in (0, 1)},
    }
    for how, who, run in [
        ("in dataset.epoch", "2, new", by_attribute(num_workers=2)),
        ("in dataset.epoch", "2, persistent", by_attribute(**kept)),
        ("with the key", "2, persistent", by_key(**kept)),
        ("with the key", "none", by_key()),
    ]
]
print(exercises.predict(my_guess, torch="yes" if rows[1]["epoch 1 right"] else "no"))
facts.Table(f"16 real digits; the two epochs differ: {facts.cell(not torch.equal(*right))}", rows)

# %% [markdown] lang="en"
# Persistent workers never heard of `epoch = 1`: it was written into the main process's object. A key travels anew with
# each request, so what belongs to the moment belongs in the key.
#
# ## Exercise 3: a generator for each sample
#
# The same idea for NumPy.

# %% [markdown] lang="zh"
# 常驻工作进程没有听说 `epoch = 1`：它写进了主进程的对象。键却随每次请求重新送来，所以属于当下的东西应当放进键里。
#
# ## 练习 3：每个样本一个生成器
#
# 用 NumPy 实现同样的想法。


# %% tags=["exercise:11_sample_rng"]
def sample_rng(seed, epoch, index):
    """A NumPy generator: the same throws for the same three numbers, others for any others."""
    ...


# solution
def sample_rng(seed, epoch, index):
    return np.random.default_rng([seed, epoch, index])


# %% tags=["check"]
exercises.check("11_sample_rng", sample_rng)  # stuck? exercises.hint("11_sample_rng")

# %% [markdown] lang="en"
# ## Bug hunt
#
# "In `worker_init_fn`, seed the other libraries yourself." Four lines from training scripts follow that advice. With one of
# them the second epoch repeats the random numbers of the first. Which line is no longer good advice? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# “在 `worker_init_fn` 里，自己给其他库设置种子。”训练脚本里的四行代码照做了。其中一行让第二轮重复第一轮的随机数。
# 哪一行如今不再是好建议？单元格会给出证明。

# %%
# %%importable advice
import random

import numpy as np
import torch
from torch.utils.data import get_worker_info


def line_1(worker_id):
    random.seed(torch.initial_seed())


def line_2(worker_id):
    np.random.seed(worker_id)


def line_3(worker_id):
    np.random.seed(get_worker_info().seed % 2**32)


def line_4(worker_id):
    get_worker_info().dataset.rng = np.random.default_rng(get_worker_info().seed)


# %% tags=["bug-hunt", "claim:RN-04", "claim:RN-02"]
my_guess = ...  # 1, 2, 3 or 4

rows = []
lines = [(line_1, "random"), (line_2, "np.random"), (line_3, "np.random"), (line_4, "own")]
for number, (line, generator) in enumerate(lines, start=1):
    first, second = two_epochs(Dice(), num_workers=2, worker_init_fn=line)
    rows.append({"line": number, "generator": generator, **repetition(first, second, generator)})
wrong = next(row["line"] for row in rows if row["epoch 2 repeats epoch 1"])
print(exercises.predict(my_guess, torch=wrong))
facts.Table("8 throws of the generator that the line seeds", rows)

# %% [markdown] lang="en"
# Before torch 1.9, `np.random.seed(worker_id)` was half a cure: the workers differed. Today the global `np.random`
# needs no cure, and the line brings the repetition back: the ids are 0 and 1 in every epoch.

# %% [markdown] lang="zh"
# 在 torch 1.9 之前，`np.random.seed(worker_id)` 还算半个办法：工作进程之间不同了。如今全局的 `np.random` 不需要补救，
# 这一行反而把重复带回来：每一轮的编号都是 0 和 1。

# %% [markdown] lang="en"
# ## Recap
#
# torch seeds the global generators of each worker when it starts: `random` and `torch` with `base_seed + id`, `np.random` with 32-bit
# numbers made from the same two. A generator of
# your own is copied, and repeats across workers and epochs. Seed by (seed, epoch, index), and the number of workers no
# longer matters.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, equal random numbers | a generator kept in the dataset | Wrong first |
# | no message, other initial weights | `iter(loader)` moved torch's generator | Where a worker's seed comes from |
# | `Seed must be between 0 and 2**32 - 1` | `np.random.seed` with the 64-bit seed | Seeding other libraries |
# | no message, epoch 2 like epoch 1 | `np.random.seed(worker_id)` | Bug hunt |
# | no message, the epoch does not change | an attribute set while workers persist | The same sample, another machine |
#
# What next: lesson [12](12_pinning.ipynb), pinned memory.

# %% [markdown] lang="zh"
# ## 小结
#
# 每个工作进程启动时，torch 都给它的全局生成器设置种子：`random` 和 `torch` 用 `base_seed + 编号`，`np.random` 用由这两个数算出的 32 位数。
# 你自己的生成器会被复制，于是在工作进程之间、轮之间重复。按（种子、轮次、索引）设置种子，工作进程数就不再有影响。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，随机数相同 | 数据集里存着生成器 | 先看错误 |
# | 没有报错，初始权重不同 | `iter(loader)` 让 torch 的生成器前进了 | 工作进程的种子从哪里来 |
# | `Seed must be between 0 and 2**32 - 1` | 把 64 位种子给了 `np.random.seed` | 给其他库设置种子 |
# | 没有报错，第 2 轮与第 1 轮相同 | `np.random.seed(worker_id)` | 找错 |
# | 没有报错，轮次不变 | 工作进程常驻时改了属性 | 同一个样本，换一台机器 |
#
# 下一步：第 [12](12_pinning.ipynb) 课，锁页内存。

# %%
exercises.progress("11")
