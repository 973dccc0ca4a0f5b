# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Exactly once", zh: "恰好一次"}
#     sections: []
#     minutes: 60
# ---

# %% [markdown] lang="en"
# # 15 · Exactly once
#
# **You will be able to** give every sample to exactly one rank in equally many steps, stop in the middle of an epoch and go on with
# other ranks, and find out what any loader does wrong.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [05](05_distributed_sampler.ipynb), [07](07_single_samples.ipynb), [11](11_randomness.ipynb) | 60 | beyond the notes | [简体中文](../zh/15_exactly_once.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 15 · 恰好一次
#
# **学完本课，你能够**：把每个样本恰好分给一个 rank，且各 rank 步数相等；在一轮中间停下，换一组 rank 继续；查出任何加载器的错误。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [05](05_distributed_sampler.ipynb)、[07](07_single_samples.ipynb)、[11](11_randomness.ipynb) 课 | 60 | 笔记之外 | [English](../en/15_exactly_once.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# Samplers that are told their rank need no other process. So one notebook can ask all ranks, one after the other.

# %% [markdown] lang="zh"
# ## 准备
#
# 告诉采样器（sampler）它的 rank（分布式训练中进程的编号），就不需要别的进程。所以一个笔记本可以依次询问所有 rank。

# %% tags=["setup"]
import json
from collections import Counter

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tutorlib import audit, datasets, exercises, facts, pictures, ranks, sharding, widgets
from tutorlib.samplers import Batched, EpochSampler, Keyed
from tutorlib.sharding import Sharded

# %load_ext tutorlib.cells
digits = datasets.digits("train")
size = len(digits)
print("ready:", size, "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# A job on 4 ranks with batches of 32 is killed after 5 steps. Two machines are left, so it goes on with 2 ranks.
# The script does the obvious: same seed, same epoch, skip the first 5 batches.
#
# How many digits does this epoch read more than once? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 一个任务用 4 个 rank、每批 32 个样本，走了 5 步后被强行终止。只剩两台机器，于是用 2 个 rank 继续。
# 脚本的做法看上去很自然：种子相同，轮（epoch）相同，跳过前 5 个批次。
#
# 这一轮里有多少个数字图像读了不止一次？先写下你的预测，再运行单元格。


# %% tags=["wrong-first", "predict"]
def dealt(world, batch_size):
    """What torch deals: for each rank the list of its batches."""
    samplers = [DistributedSampler(digits, world, rank) for rank in range(world)]
    return [
        [batch.tolist() for batch in DataLoader(range(size), batch_size, sampler=sampler)]
        for sampler in samplers
    ]


def resumed_by_skipping(before, after, steps):
    """Read the first steps of one job, then the other steps of another; count what was read."""
    read = Counter(index for rank in dealt(before, 32) for batch in rank[:steps] for index in batch)
    read.update(index for rank in dealt(after, 32) for batch in rank[steps:] for index in batch)
    return {"twice": sum(times > 1 for times in read.values()), "never": size - len(read)}


my_guess = ...  # how many digits?

found = {
    (before, after): resumed_by_skipping(before, after, 5)
    for before, after in ((4, 4), (4, 2), (2, 4))
}
print(
    facts.Table(
        f"{size} digits, stopped after 5 steps",
        [{"ranks": f"{a}, then {b}", **row} for (a, b), row in found.items()],
    )
)
exercises.predict(my_guess, torch=found[4, 2]["twice"])

# %% [markdown] lang="en"
# 320 digits were due to be skipped and were not; one more is padding. From 2 ranks to 4, 320 are lost.
# Even 4 and 4 read 3 digits twice. No message appears.
#
# ## The idea
#
# A step is no measure of progress: its size changes with the ranks. Count **samples** instead. Three parts make that work:
#
# 1. An **order**: which sample stands at which position. It depends on seed and epoch, nothing else.
# 2. A **plan**: which positions each rank reads at each step.
# 3. A **state**: how many samples all ranks have read together.

# %% [markdown] lang="zh"
# 有 320 个数字图像本该跳过却没有跳过；另有一个是填充。从 2 个 rank 到 4 个，则丢掉 320 个。
# 就连 4 个到 4 个，也有 3 个读了两次。没有任何报错信息。
#
# ## 概念
#
# 步数不能衡量进度：一步有多大，取决于 rank 总数。应该数**样本**。这需要三样东西：
#
# 1. **顺序**：哪个位置是哪个样本。只由种子和轮次决定。
# 2. **计划**：每个 rank 在每一步读哪些位置。
# 3. **状态**：所有 rank 一共读了多少个样本。

# %% [markdown] lang="en"
# ## The order
#
# Torch seeds its order with the sum `seed + epoch`. `sharding.order` mixes the two numbers. Compare the middle rows:

# %% [markdown] lang="zh"
# ## 顺序
#
# torch 用 `seed + epoch` 这个和来设定顺序的种子。`sharding.order` 则把两个数混合起来。比较中间两行：


# %%
def torch_order(seed, epoch):
    sampler = DistributedSampler(range(8), 1, 0, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


facts.Table(
    "8 samples",
    [
        {
            "seed": s,
            "epoch": e,
            "DistributedSampler": torch_order(s, e),
            "sharding.order": sharding.order(8, s, e).tolist(),
        }
        for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))
    ],
)

# %% [markdown] lang="en"
# With torch, seed 1 repeats the orders of seed 0 one epoch earlier. Two runs with "different" seeds are hardly different.
#
# `EpochSampler` puts order, plan and state together: it gives one rank its batches. The order knows nothing of ranks. So 1, 2 and 4
# ranks with 8 samples a step read the same 8 in the first step, and the same in each later one:

# %% [markdown] lang="zh"
# 在 torch 里，种子 1 只是提前一轮重复种子 0 的顺序。两次“不同种子”的运行几乎没有不同。
#
# `EpochSampler` 把顺序、计划和状态合在一起：它给一个 rank 发批次。顺序不知道 rank 的存在。
# 所以每步共 8 个样本时，1、2、4 个 rank 在第一步读到的是同样的 8 个，以后各步也一样：

# %%
rows = []
for world, batch_size in ((1, 8), (2, 4), (4, 2)):
    samplers = [
        EpochSampler(size, batch_size, seed=7, rank=rank, world=world) for rank in range(world)
    ]
    rows.append(
        {
            "ranks": world,
            "batch size": batch_size,
            "first step, rank by rank": [next(iter(one)) for one in samplers],
        }
    )
facts.Table("EpochSampler, seed=7", rows)

# %% [markdown] lang="en"
# ## The plan
#
# 10 samples, 4 ranks, batches of at most 2. One full step takes 8 samples, and 2 are left for 4 ranks.
# Wanted: every sample once, and the same number of steps on every rank. Which sizes do the batches of rank 0 have?

# %% [markdown] lang="zh"
# ## 计划
#
# 10 个样本，4 个 rank，每批最多 2 个。满的一步用去 8 个，还剩 2 个要给 4 个 rank。
# 要求：每个样本恰好一次，每个 rank 步数相同。rank 0 的各个批次有多大？

# %% tags=["predict"]
my_guess = ...  # for example [2, 2]

balanced = sharding.plan(10, world=4, batch_size=2)
print(balanced)
exercises.predict(my_guess, torch=list(balanced.sizes(0)))

# %% [markdown] lang="en"
# 2 samples cannot make 4 batches. So the full step before gives some of its own: 10 samples become 8 batches of 2 or 1.
# The table shows positions: `0:2` means positions 0 and 1.
#
# This is `remainder="balance"`, the default. There are four other answers. Here they share out the real digits:

# %% [markdown] lang="zh"
# 2 个样本做不成 4 个批次。于是前面满的那一步也拿出几个：10 个样本变成 8 个批次，每个 2 个或 1 个。
# 表里写的是位置：`0:2` 表示位置 0 和 1。
#
# 这就是默认的 `remainder="balance"`。另外还有四种做法。下面用它们来分真实的数字图像：


# %%
def attempt(act, *arguments):
    try:
        return act(*arguments)
    except (ValueError, RuntimeError, AssertionError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


rows = []
for remainder in sharding.REMAINDERS:
    made = attempt(sharding.plan, size, 4, 32, remainder)
    if isinstance(made, str):
        print(f'remainder="{remainder}":', made, "\n")
        continue
    row = {
        "remainder": remainder,
        "steps": [made.count(rank) for rank in range(4)],
        "twice": made.repeated,
    }
    last = len(made) - 1
    rows.append(
        {
            **row,
            "never": made.dropped,
            "last step": [stop - begin for begin, stop in made.steps[last]],
        }
    )
print(facts.Table(f"{size} digits, 4 ranks, batches of 32", rows))

for samples, batch_size in ((3, 2), (10, 1), (12, 1)):  # when can balance not be done?
    made = attempt(sharding.plan, samples, 4, batch_size)
    print()
    print(made if isinstance(made, str) else made.summary())

# %% [markdown] lang="en"
# `pad` does what `DistributedSampler` does. `drop` leaves out the last step, which is not full: 29 digits. (`DistributedSampler` with
# `drop_last=True` leaves out 1.) `error` refuses: the message above the table. `uneven` loses nothing, but rank 0
# makes a twelfth step alone and waits for ever. Only `balance` has 0 in both columns and equal steps.
#
# Fewer samples than ranks, or batches of 1 that do not divide: no plan exists, and the error says so before training begins.
#
# ## What balance costs
#
# The batches of a step may differ by one. Each rank takes the mean of its losses, and the ranks average their means.
# Five losses, 2 ranks. The true mean is 4. Which mean do the ranks agree on?

# %% [markdown] lang="zh"
# `pad` 与 `DistributedSampler` 的做法相同。`drop` 丢掉最后不满的一步：29 个。（`DistributedSampler` 设 `drop_last=True` 时，
# 只丢 1 个。）`error` 直接拒绝，就是表格上方那条报错。
# `uneven` 什么也不丢，但第 12 步只有 rank 0 在做：它等着永远不会来的梯度。只有 `balance` 两列都是 0，步数又相等。
#
# 样本比 rank 少，或者批次大小为 1 又除不尽：不存在这样的计划，而且训练开始之前就会报错。
#
# ## balance 的代价
#
# 同一步里，批次大小可能相差一。每个 rank 对自己的损失求平均，各个 rank 再对这些平均值求平均。
# 五个损失，2 个 rank。真正的平均值是 4。各个 rank 算出的是多少？

# %% tags=["predict"]
my_guess = ...  # for example 4.0

losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0])
split = sharding.plan(5, world=2, batch_size=4)
means = [losses[slice(*split.at(0, rank))].mean().item() for rank in (0, 1)]
weights = [split.weight(0, rank) for rank in (0, 1)]
weighted = sum(weight * mean for weight, mean in zip(weights, means, strict=True)) / 2
sizes = [split.sizes(rank) for rank in (0, 1)]
print("true mean:", losses.mean().item(), "| sizes:", sizes, "| means:", means)
print("weights:", weights, "| weighted:", weighted)
exercises.predict(my_guess, torch=sum(means) / 2)

# %% [markdown] lang="en"
# The mean of means counts a sample in the smaller batch for more. `Plan.weight` repairs it: size times ranks over the samples of the
# step. In a loop over `sampler.follow(loader)`, multiply the loss by `sampler.weight`. It is 1.0 in every full step.
#
# ## Audit
#
# Believe no sampler, this one included. `audit.audit` runs the loaders and notes which indices were really fetched.

# %% [markdown] lang="zh"
# 平均值的平均值里，小批次的样本算得更重。`Plan.weight` 可以纠正：批次大小乘 rank 数，再除以这一步的样本数。
# 在 `sampler.follow(loader)` 的循环里，把损失乘以 `sampler.weight`。在每个满的步里它都是 1.0。
#
# ## 审查
#
# 不要相信任何采样器，包括这一个。`audit.audit` 真正运行加载器，并记下确实读了哪些索引。


# %%
def by_torch():
    samplers = [DistributedSampler(digits, 4, rank) for rank in range(4)]
    return [DataLoader(digits, batch_size=32, sampler=sampler) for sampler in samplers]


def by_plan():
    return [
        DataLoader(digits, batch_sampler=EpochSampler(size, 32, seed=7, rank=rank, world=4))
        for rank in range(4)
    ]


print(audit.audit(by_torch, runs=1), end="\n\n")
audit.audit(by_plan, runs=1)

# %% [markdown] lang="en"
# `len` is the promise, `steps` what came. Both loaders keep it; only the second reads every digit once.
#
# ## Stop and resume
#
# Now the state. After `break` in the middle of an epoch, how many values must a checkpoint (the file from
# which training goes on) keep to say where the data stands, and to notice a dataset of another length? It must work for any number of
# ranks and workers and for any batch size.

# %% [markdown] lang="zh"
# `len` 是承诺，`steps` 是实际到来的。两组加载器都守信；只有第二组把每个数字图像恰好读一次。
#
# ## 停下与恢复
#
# 现在看状态。在一轮中间 `break` 之后，检查点（checkpoint，以后从中继续训练的文件）要保存几个值，才能说清数据读到了哪里，并发现数据集的长度变了？
# 要求适用于任意的 rank 数、工作进程（worker）数和批次大小。

# %% tags=["predict"]
my_guess = ...  # how many values?

sampler = EpochSampler(size, 32, seed=7, rank=0, world=4)
for step, _ in enumerate(sampler.follow(DataLoader(digits, batch_sampler=sampler)), 1):
    if step == 5:
        break
state = sampler.state_dict()
print(json.dumps(state))
exercises.predict(my_guess, torch=len(state))

# %% [markdown] lang="en"
# Seed and epoch give the order, `seen` the place: 5 steps of 4 times 32 are 640 samples. `size` is a check: with a dataset of
# another length, loading the state is an error. No rank, no batch size, no list of indices; every rank has the same state.
#
# Now three jobs share one epoch: 4 ranks with batches of 32, then 3 ranks with batches of 20, then one process with 2 workers
# and batches of 64.

# %% [markdown] lang="zh"
# 种子和轮次决定顺序，`seen` 是位置：5 步，每步 4 乘 32，就是 640 个样本。`size` 用来核对：数据集的长度不同，加载状态就会报错。
# 没有 rank，没有批次大小，没有索引列表；每个 rank 的状态都相同。
#
# 现在用三个任务读完同一轮：先是 4 个 rank、每批 32 个；再是 3 个 rank、每批 20 个；最后一个进程、2 个工作进程、每批 64 个。


# %%
def job(state, world, batch_size, stop=None, workers=0):
    """One job: every rank loads the state and reads until step `stop`.

    Returns the states of all ranks and what they read.
    """
    states, read = [], []
    for rank in range(world):
        sampler = EpochSampler(size, batch_size, seed=7, rank=rank, world=world)
        if state:
            sampler.load_state_dict(json.loads(state))
        loader = DataLoader(range(size), batch_sampler=sampler, num_workers=workers)
        for step, batch in enumerate(sampler.follow(loader), 1):
            read += batch.tolist()
            if step == stop:
                break
        states.append(json.dumps(sampler.state_dict()))
    return states, read


state, total, rows = "", Counter(), []
for world, batch_size, stop, workers in ((4, 32, 5, 0), (3, 20, 4, 0), (1, 64, None, 2)):
    states, read = job(state, world, batch_size, stop, workers)
    state = states[0]
    total.update(read)
    row = {"ranks": world, "batch size": batch_size, "workers": workers, "read": len(read)}
    rows.append({**row, "different states": len(set(states)), "state": state})
print(facts.Table("three jobs, one epoch", rows))
twice = sum(times > 1 for times in total.values())
print("digits read:", len(total), "| read twice:", twice, "| never:", size - len(total))

sampler = EpochSampler(size, 32, seed=7)
for _ in DataLoader(digits, batch_sampler=sampler):  # a plain loop, without follow
    break
print(attempt(sampler.state_dict))

# %% [markdown] lang="en"
# Nothing lost, nothing repeated, nothing re-read: the last state is the beginning of epoch 1.
#
# Who counts? The loader reads its sampler ahead, so the sampler cannot know what your loop has had. `follow` counts in your loop.
# The plain loop at the end gets an error in place of a wrong number.
#
# ## The same sample, the same noise
#
# The indices are right. Is the augmentation? Below each rank starts with seed 0, and each sample draws one number.
# `Keyed` draws from (seed, epoch, index) instead. A stream has no sampler: there `Sharded` deals the samples out, and with
# `transform=` it draws from (seed, epoch, position). `chunk` is how many samples in a row a rank gets.

# %% [markdown] lang="zh"
# 什么也没丢，什么也没重复，也不用重读。最后的状态就是第 1 轮的开头。
#
# 谁来数？加载器会提前读采样器，所以采样器不知道你的循环得到了什么。`follow` 在你的循环里数。
# 末尾的普通循环得到的是一个错误，而不是一个错的数。
#
# ## 同一个样本，同样的噪声
#
# 索引没问题了。数据增强呢？下面每个 rank 都用种子 0 开始，每个样本抽一个随机数。
# `Keyed` 则由（种子、轮次、索引）决定抽到什么。数据流没有采样器，由 `Sharded` 分配样本；给它 `transform=`，
# 抽到什么就由（种子、轮次、位置）决定。`chunk` 是一个 rank 一次连续拿到的样本数。


# %%
def noise(sample):
    return sample, torch.rand(()).item()


class Plain(Dataset):
    def __getitem__(self, index):
        return noise(index)


def noise_of_1(dataset, world, batch_size, seen=0, epoch=0):
    for rank in range(world):
        torch.manual_seed(0)
        sampler = EpochSampler(10, batch_size, rank=rank, world=world)
        sampler.load_state_dict({"seed": 7, "epoch": epoch, "seen": seen, "size": 10})
        for indices, numbers in DataLoader(dataset, batch_sampler=sampler):
            if 1 in indices:
                return round(numbers[indices.tolist().index(1)].item(), 4)


def noise_in_stream(world, chunk, seen=0, epoch=0):
    for rank in range(world):
        stream = Sharded(datasets.Numbers(0, 10), rank, world, chunk=chunk, transform=noise, seed=7)
        stream.load_state_dict(
            {"epoch": epoch, "seen": seen, "part": 0, "world": world, "chunk": chunk}
        )
        for indices, numbers in stream.follow(DataLoader(stream, batch_size=chunk)):
            if 1 in indices:
                return round(numbers[indices.tolist().index(1)].item(), 4)


print("order:", sharding.order(10, seed=7, epoch=0).tolist())
runs = {"1 rank": (1, 4), "2 ranks": (2, 2), "3 ranks": (3, 2), "1 rank, resumed": (1, 3, 1)}
runs["1 rank, epoch 1"] = (1, 4, 0, 1)
facts.Table(
    "the number that sample 1 draws",
    [
        {
            "run": name,
            "global generator": noise_of_1(Plain(), *how),
            "Keyed": noise_of_1(Keyed(range(10), noise), *how),
            "Sharded stream": noise_in_stream(*how),
        }
        for name, how in runs.items()
    ],
)

# %% [markdown] lang="en"
# With both, sample 1 gets its number whoever reads it, and whenever. In another epoch it gets another.
#
# ## A batch at a time
#
# `Batched` reads what a plan asks for at once: a slice where the positions are neighbours. Each sample of the loader is then a whole
# batch. 2 ranks, batches of 32: how often is the dataset asked for something, sample by sample and batch by batch?

# %% [markdown] lang="zh"
# 用这两种办法，不管由谁读、何时读，样本 1 都得到同一个数。换一轮，它得到另一个数。
#
# ## 一次一批
#
# `Batched` 一次读完计划要的东西：位置相邻时就是一个切片（slice）。于是加载器的每个“样本”就是一整个批次。
# 2 个 rank，每批 32 个：逐个样本和逐个批次，数据集各要回答多少次请求？

# %% tags=["predict"]
my_guess = ...  # how many requests, batch by batch, over both ranks?


class Asked(torch.utils.data.Dataset):
    def __init__(self, dataset):
        self.dataset, self.times = dataset, 0

    def __getitem__(self, key):
        self.times += 1
        return self.dataset[key]


columns = digits.images.unsqueeze(1) / 16, digits.labels  # the whole set as two tensors
asked = {"sample by sample": Asked(digits), "batch by batch": Asked(Batched(columns))}
batches = {name: [] for name in asked}
for rank in (0, 1):
    one = EpochSampler(size, 32, shuffle=False, rank=rank, world=2)
    batches["sample by sample"] += one.follow(
        DataLoader(asked["sample by sample"], batch_sampler=one)
    )
    many = EpochSampler(size, 32, shuffle=False, rank=rank, world=2)
    batches["batch by batch"] += many.follow(
        DataLoader(asked["batch by batch"], sampler=many, batch_size=None)
    )
alike = all(
    torch.equal(a, b)
    for pair in zip(*batches.values(), strict=True)
    for a, b in zip(*pair, strict=True)
)
whole = [
    DataLoader(
        Batched(digits.images), sampler=EpochSampler(size, 32, rank=rank, world=2), batch_size=None
    )
    for rank in (0, 1)
]
print({name: dataset.times for name, dataset in asked.items()}, "| the same batches:", alike)
print(audit.audit(whole, runs=1).summary())
exercises.predict(my_guess, torch=asked["batch by batch"].times)

# %% [markdown] lang="en"
# 46 requests in place of 1437. All else is as before: ranks, steps, state, audit.
#
# ## On real ranks
#
# So far one process played all ranks. Here is a whole training script. Nothing in it names a rank: the process group does.
# Save it as `training.py`, and it runs on any number of processes and machines:
#
# `torchrun --nproc-per-node=2 training.py`

# %% [markdown] lang="zh"
# 请求从 1437 次变成 46 次。其余照旧：rank、步数、状态、审查。
#
# ## 真实的 rank
#
# 到目前为止，一个进程扮演了所有 rank。下面是一个完整的训练脚本。里面没有写出任何 rank：由进程组给出。
# 把它存成 `training.py`，就能在任意数目的进程和机器上运行：
#
# `torchrun --nproc-per-node=2 training.py`

# %%
# %%importable training
import torch.distributed as dist
from torch.utils.data import DataLoader

from tutorlib import ranks
from tutorlib.audit import observe
from tutorlib.samplers import EpochSampler


def one_epoch(samples, batch_size):
    """What this rank reads in one epoch; all ranks meet at each step, as for the gradients."""
    sampler = EpochSampler(samples, batch_size, seed=7)  # rank and world come from the group
    loader = DataLoader(range(samples), batch_sampler=sampler)
    for _ in sampler.follow(loader):
        dist.barrier()  # would wait for ever if a rank had fewer steps
    sampler.set_epoch(0)
    return observe(loader)


if __name__ == "__main__":
    with ranks.here() as place:  # joins the group that torchrun describes
        print(place, one_epoch(10, 2).keys())

# %%
audit.audit(ranks.run(one_epoch, 10, 2, world=2), expected=10).require()

# %% [markdown] lang="en"
# `ranks.run` started two new processes on this machine, which met at every step, and each returned what it had read.
#
# ## Six suspects
#
# 9 samples, 2 ranks, batches of at most 4. Six ways to build the loaders, all of which look reasonable. Each pair of loaders is built twice,
# and the orders of the two builds are compared.
#
# How many of the six are without fault? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# `ranks.run` 在本机启动了两个新进程，它们每一步都会合，各自返回读到的东西。
#
# ## 六个嫌疑对象
#
# 9 个样本，2 个 rank，每批最多 4 个。六种建加载器的写法，看上去都合理。
# 每一对加载器都建两次，并比较两次的顺序。
#
# 六种里有几种没有错？先写下你的预测，再运行单元格。

# %% tags=["predict"]
my_guess = ...  # 0 to 6

nine = range(9)
suspects = {
    "shuffle=True on every rank": lambda: [DataLoader(nine, 4, shuffle=True) for rank in (0, 1)],
    "slices nine[rank::2]": lambda: [DataLoader(nine[rank::2], 4) for rank in (0, 1)],
    "a stream that forgets ranks": lambda: [
        DataLoader(datasets.Numbers(0, 9), 4) for rank in (0, 1)
    ],
    "DistributedSampler": lambda: [
        DataLoader(nine, 4, sampler=DistributedSampler(nine, 2, rank)) for rank in (0, 1)
    ],
    "the same, drop_last": lambda: [
        DataLoader(nine, 4, sampler=DistributedSampler(nine, 2, rank, drop_last=True))
        for rank in (0, 1)
    ],
    "EpochSampler": lambda: [
        DataLoader(nine, batch_sampler=EpochSampler(9, 4, rank=rank, world=2)) for rank in (0, 1)
    ],
}
torch.manual_seed(0)
found = {
    name: audit.audit(build, expected=9, key=torch.Tensor.tolist)
    for name, build in suspects.items()
}
rows = [
    {
        "loaders": name,
        "twice": len(one.repeated()),
        "never": len(one.missing()),
        "steps": list(one.steps()),
        "repeatable": one.same_order,
    }
    for name, one in found.items()
]
print(facts.Table("9 samples, 2 ranks, batches of at most 4", rows))
for name, one in found.items():
    verdict = attempt(one.require)
    print(f"{name}: {verdict if isinstance(verdict, str) else 'passed'}")
exercises.predict(
    my_guess,
    torch=sum(
        bool(one.exactly_once and one.equal_steps and one.same_order) for one in found.values()
    ),
)

# %% [markdown] lang="en"
# Put the check into your own tests: `audit.audit(build).require()`. A faultless loader passes; any other fails with its faults.
#
# ## Explore: the plan
#
# Each picture is a real plan. `x2` marks a position that is read again; what nobody reads stands below.
# Two things to change: go through the five settings of `remainder`; then go back to `balance`, set `samples` to 3 and read the message.

# %% [markdown] lang="zh"
# 把这项检查放进你自己的测试：`audit.audit(build).require()`。没有错的加载器通过，其他的报出错误。
#
# ## 动手探索：计划
#
# 每张图都是一份真实的计划。`x2` 表示再读一次的位置；没人读的列在下面。
# 试着改两处：把 `remainder` 的五个选项都看一遍；再改回 `balance`，把 `samples` 改成 3，读一读报错信息。


# %% tags=["explore"]
def planned(remainder, samples, ranks, batch_size):
    return sharding.plan(samples, ranks, batch_size, remainder)


widgets.explore(
    planned,
    pictures.grid,
    remainder=list(sharding.REMAINDERS),
    samples=[10, 3, 9, 16, 23],
    ranks=[4, 1, 2, 3],
    batch_size=[2, 1, 3, 4],
)

# %% [markdown] lang="en"
# ## Exercise 1: balanced steps
#
# Write the sizes of all batches: a list of steps, each a list with one size for every rank. All samples are used once, each size is
# from 1 to `batch_size`, and the steps are the fewest possible. There are at least as many samples as ranks, and `batch_size` is at
# least 2. Several answers are right. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# ## 练习 1：平衡的步
#
# 写出所有批次的大小：一个由步组成的列表，每一步是一个列表，每个 rank 一个大小。所有样本各用一次，大小从 1 到 `batch_size`，
# 步数要最少。样本不少于 rank，`batch_size` 至少是 2。正确答案不止一种。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:15_step_sizes"]
def step_sizes(samples, ranks, batch_size):
    """For 10 samples, 4 ranks, batches of 2, for example: [[2, 2, 1, 1], [1, 1, 1, 1]]."""
    ...


# solution
def step_sizes(samples, ranks, batch_size):
    steps = -(-samples // (ranks * batch_size))
    least, more = divmod(samples, steps * ranks)
    sizes = [least + (batch < more) for batch in range(steps * ranks)]
    return [sizes[begin : begin + ranks] for begin in range(0, len(sizes), ranks)]


# %% tags=["check"]
exercises.check("15_step_sizes", step_sizes)  # stuck? exercises.hint("15_step_sizes")

# %% [markdown] lang="en"
# ## Exercise 2: the rest of an epoch
#
# A job read the first `seen` samples of `order` and stopped. Now there are `ranks` ranks, perhaps another number than before.
# Return what this `rank` still reads. Together the ranks read the rest once, and their parts differ by at most one sample.

# %% [markdown] lang="zh"
# ## 练习 2：一轮的剩余部分
#
# 一个任务读完 `order` 的前 `seen` 个样本后停下。现在有 `ranks` 个 rank，可能与之前不同。
# 返回这个 `rank` 还要读的部分。所有 rank 合起来把剩余部分恰好读一次，各部分最多相差一个样本。


# %% tags=["exercise:15_rest_of_epoch"]
def rest_of_epoch(order, seen, rank, ranks):
    """The indices that this rank still reads in this epoch."""
    ...


# solution
def rest_of_epoch(order, seen, rank, ranks):
    return order[seen:][rank::ranks]


# %% tags=["check"]
exercises.check("15_rest_of_epoch", rest_of_epoch)  # stuck? exercises.hint("15_rest_of_epoch")

# %% [markdown] lang="en"
# ## Exercise 3: your own audit
#
# `ranks[rank]` is the list of the batches of one rank, each a list of indices; the indices from 0 to `size - 1` were expected.
# Return a dictionary: `missing` and `repeated` are sorted lists over all ranks, `equal_steps` is `True` or `False`.

# %% [markdown] lang="zh"
# ## 练习 3：你自己的审查
#
# `ranks[rank]` 是一个 rank 的批次列表，每个批次是一个索引列表；预期的索引是 0 到 `size - 1`。
# 返回一个字典：`missing`（缺失）和 `repeated`（重复）是所有 rank 合起来的有序列表，`equal_steps` 是 `True` 或 `False`。


# %% tags=["exercise:15_my_audit"]
def my_audit(ranks, size):
    """For [[[0, 1]], [[1], [2]]] and 4: {"missing": [3], "repeated": [1], "equal_steps": False}."""
    ...


# solution
def my_audit(ranks, size):
    read = Counter(index for batches in ranks for batch in batches for index in batch)
    return {
        "missing": [index for index in range(size) if index not in read],
        "repeated": sorted(index for index, times in read.items() if times > 1),
        "equal_steps": len({len(batches) for batches in ranks}) == 1,
    }


# %% tags=["check"]
exercises.check("15_my_audit", my_audit)  # stuck? exercises.hint("15_my_audit")

# %% [markdown] lang="en"
# ## Bug hunt
#
# This loop trains for 3 epochs of 10 samples. It is stopped in epoch 1 after 4 samples and started again with its state.
# Afterwards some samples were read too often. Which of the four lines is wrong? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 这个循环训练 3 轮，每轮 10 个样本。它在第 1 轮读了 4 个样本后停下，再带着状态重新启动。
# 结果有的样本读多了。四行里哪一行是错的？单元格会给出证明。


# %% tags=["bug-hunt"]
def train(state, read, stop=None):
    sampler = EpochSampler(10, 4, seed=7)
    loader = DataLoader(range(10), batch_sampler=sampler)
    sampler.load_state_dict(state)  # line 1
    for epoch in range(3):  # line 2
        sampler.set_epoch(epoch)  # line 3
        for batch in sampler.follow(loader):  # line 4
            read[epoch] += len(batch)
            if stop == (epoch, read[epoch]):
                return sampler.state_dict()


my_guess = ...  # 1, 2, 3 or 4

begin, read = {"seed": 7, "epoch": 0, "seen": 0, "size": 10}, Counter()
state = train(begin, read, stop=(1, 4))
train(state, read)
print("stopped at:", state, "| read in epochs 0, 1, 2:", [read[epoch] for epoch in range(3)])

sampler = EpochSampler(10, 4, seed=7)  # each line alone: is the run where it was?
sampler.load_state_dict(state)
holds = {1: sampler.state_dict() == state, 2: next(iter(range(3))) == state["epoch"]}
sampler.set_epoch(state["epoch"])
holds[3] = sampler.state_dict() == state
first = next(sampler.follow(DataLoader(range(10), batch_sampler=sampler)))
holds[4] = first.tolist() == sharding.order(10, seed=7, epoch=1)[4:8].tolist()
exercises.predict(my_guess, torch=next(number for number, right in holds.items() if not right))

# %% [markdown] lang="en"
# `range(3)` starts at 0 again. `set_epoch(0)` obeys, and the loaded position is gone: epoch 0 is read twice, and so are 4 samples of
# epoch 1. Start at the epoch of the sampler. There `set_epoch` changes nothing:

# %% [markdown] lang="zh"
# `range(3)` 又从 0 开始。`set_epoch(0)` 照办，加载的位置就没了：第 0 轮读了两遍，第 1 轮也有 4 个样本读了两次。
# 要从采样器所在的轮开始。在这一轮里，`set_epoch` 什么也不改：

# %%
read = Counter({0: 10, 1: 4})  # before the stop
sampler.load_state_dict(state)
loader = DataLoader(range(10), batch_sampler=sampler)
for epoch in range(sampler.epoch, 3):
    sampler.set_epoch(epoch)
    for batch in sampler.follow(loader):
        read[epoch] += len(batch)
print("read in epochs 0, 1, 2:", [read[epoch] for epoch in range(3)])

# %% [markdown] lang="en"
# ## Recap
#
# The order comes from seed and epoch, the plan deals its positions, and the number of samples seen says where a run is.
# A balanced plan gives every sample once in equal steps, and a weight repairs the loss of the smaller batches.
# What a loader really does is found by an audit.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, samples twice or never | batches are skipped, and the ranks have changed | Wrong first |
# | `samples do not divide into steps` | `remainder="error"` | The plan |
# | `impossible: ... each once and the same number of steps` | fewer samples than ranks, or batches of 1 that do not divide | The plan |
# | `a loader reads its sampler ahead` | the state was asked for in a plain loop | Stop and resume |
# | `not every sample came exactly once` | an audit with `require()` | Six suspects |
# | no message, an epoch read again | `range(epochs)` after a resume | Bug hunt |
#
# What next: lesson [16](16_state_dict.ipynb) begins the second half, how a model is kept in a file; lesson
# [19](19_checkpoint.ipynb) keeps this state beside the model.
# An extra: lesson [30](30_real_sources.ipynb), files, servers and logs.

# %% [markdown] lang="zh"
# ## 小结
#
# 顺序由种子和轮次决定，计划分配顺序里的位置，读过的样本数说明运行到了哪里。
# 平衡的计划让每个样本恰好一次、步数相等，小批次的损失用权重纠正。
# 加载器究竟做了什么，要靠审查来发现。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，样本读了两次或没读 | 跳过批次，而 rank 数变了 | 先看错误 |
# | `samples do not divide into steps` | `remainder="error"` | 计划 |
# | `impossible: ... each once and the same number of steps` | 样本比 rank 少，或批次大小为 1 又除不尽 | 计划 |
# | `a loader reads its sampler ahead` | 在普通循环里要状态 | 停下与恢复 |
# | `not every sample came exactly once` | 审查时用了 `require()` | 六个嫌疑对象 |
# | 没有报错，一轮读了两遍 | 恢复之后写 `range(epochs)` | 找错 |
#
# 下一步：第 [16](16_state_dict.ipynb) 课开始课程的后一半，模型怎样存进文件；第 [19](19_checkpoint.ipynb) 课把这个状态和模型存在一起。
# 选学：第 [30](30_real_sources.ipynb) 课，文件、服务器和日志。

# %%
exercises.progress("15")
