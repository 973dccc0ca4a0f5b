# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Iterable-style datasets and sharding", zh: "可迭代式数据集与切分"}
#     sections: ["000: 1.2 Iterable-style datsets"]
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 03 · Iterable-style datasets and sharding
#
# **You will be able to** predict what several workers deliver from one stream, split a stream so that every sample comes
# exactly once, and prove it for workers and ranks.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [01](01_dataloader.ipynb) | 55 | 1.2 Iterable-style datasets | [简体中文](../zh/03_iterable_datasets.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 03 · 可迭代式数据集与切分
#
# **学完本课，你能够**：预测几个工作进程会从同一个数据流里送出什么；切分数据流，使每个样本恰好出现一次；并对工作进程和 rank 给出证明。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [01](01_dataloader.ipynb) 课 | 55 | 1.2 Iterable-style datasets | [English](../en/03_iterable_datasets.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# `%%importable NAME` at the top of a cell puts the cell's classes where worker processes can find them:
# into a module of that name, which later cells can import. Lesson [10](10_start_methods.ipynb) shows why this is needed.

# %% [markdown] lang="zh"
# ## 准备
#
# 单元格开头的 `%%importable 名字` 把其中的类放到工作进程找得到的地方：
# 一个叫这个名字的模块，后面的单元格可以导入它。第 [10](10_start_methods.ipynb) 课说明原因。

# %% tags=["setup"]
import dataclasses
import math
import multiprocessing
import warnings

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils import worker

from tutorlib import datasets, exercises, facts, pictures, sharding, trace, widgets

# %load_ext tutorlib.cells
print("ready")

# %% [markdown] lang="en"
# ## Wrong first
#
# An iterable-style dataset is also called a **stream**. `Span(3, 7)` is a stream of four numbers: 3, 4, 5, 6.
# Two workers read it. How many samples arrive? The first cell makes the stream. Write your prediction in the second, then run both.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 可迭代式（iterable-style）数据集也叫**数据流**（stream）。`Span(3, 7)` 这个数据流有四个数：3、4、5、6。
# 两个工作进程（worker）来读它。会到达几个样本？第一个单元格定义数据流；在第二个里写下你的预测，然后运行两个。

# %%
# %%importable spans
from torch.utils.data import IterableDataset


class Span(IterableDataset):
    """The numbers start, start + 1, ... up to but not including stop."""

    def __init__(self, start, stop):
        super().__init__()
        self.start, self.stop = start, stop

    def __iter__(self):
        return iter(range(self.start, self.stop))


# %% tags=["wrong-first", "predict", "claim:IT-04"]
my_guess = ...  # how many samples?

arrived = [int(sample) for sample in DataLoader(Span(3, 7), num_workers=2)]
print(arrived)
exercises.predict(my_guess, torch=len(arrived))

# %% [markdown] lang="en"
# ## The idea
#
# A worker is another process. It gets its own **copy** of the dataset and walks through all of it.
# With a map-style dataset the main process says which keys each worker reads. A stream has no keys.
# So nobody divides the work, and two workers deliver everything twice.
#
# A copy has its own attributes too. The next dataset counts its own reads.

# %% [markdown] lang="zh"
# ## 概念
#
# 工作进程是另一个进程。它拿到数据集的一份**副本**，并把整份副本读完。
# 对映射式数据集，主进程会说明每个工作进程读哪些键。数据流没有键。
# 于是没有人分工，两个工作进程把所有样本各送一遍。
#
# 副本也有自己的属性。下面的数据集数自己被读了几次。

# %%
# %%importable counting
from torch.utils.data import Dataset, get_worker_info


class Counting(Dataset):
    """Each sample is the number of reads so far, as this copy of the dataset counts them."""

    reads = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.reads += 1
        return self.reads


class AboutMe(Dataset):
    """Each sample is what a worker knows about itself."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        me = get_worker_info()
        try:
            me.id = 9
            fixed = False
        except AttributeError:  # a frozen dataclass refuses
            fixed = True
        return {
            "id": me.id,
            "num_workers": me.num_workers,
            "seed is an int": isinstance(me.seed, int),
            "dataset is my copy": me.dataset is self,
            "fields are fixed": fixed,
        }


class Seeds(Dataset):
    """Each sample is the seed of the worker that read it."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return get_worker_info().seed


# %% [markdown] lang="en"
# Four reads, two workers. Which four numbers arrive? And what does `counting.reads` say in the main process afterwards?

# %% [markdown] lang="zh"
# 读四次，两个工作进程。会到达哪四个数？之后主进程里的 `counting.reads` 是多少？

# %% tags=["predict", "claim:IT-07"]
my_guess = ...  # for example [1, 2, 3, 4, 4]: the four samples, then counting.reads

counting = Counting()
samples = [int(sample) for sample in DataLoader(counting, num_workers=2)]
print("no workers:", [int(sample) for sample in DataLoader(Counting())])
exercises.predict(my_guess, torch=[*samples, counting.reads])

# %% [markdown] lang="en"
# Each worker counted alone. What happens in a copy stays in that copy: the main process counted nothing.
# A cache that a worker fills is lost to everybody else.
#
# ## Who am I?
#
# Inside a worker, `get_worker_info()` answers. In the main process it returns `None`.

# %% [markdown] lang="zh"
# 每个工作进程各数各的。副本里发生的事只留在副本里：主进程什么也没数到。
# 工作进程填好的缓存，别的进程都用不上。
#
# ## 我是谁
#
# 在工作进程里，`get_worker_info()` 给出答案；在主进程里它返回 `None`。

# %% tags=["claim:IT-05"]
print("main process:", get_worker_info())
print("fields:", [field.name for field in dataclasses.fields(worker.WorkerInfo)])
facts.Table("what each worker knows", list(DataLoader(AboutMe(), batch_size=None, num_workers=2)))

# %% [markdown] lang="en"
# A **random generator** makes numbers that look like chance. Its **seed** is the number that it starts from: the same seed, the
# same numbers. A worker's seed comes from two things: the random generator of the main process and the id of the worker.

# %% [markdown] lang="zh"
# **随机数生成器**（random generator）造出看起来随机的数。**种子**（seed）是它的起点：种子相同，随机数就相同。
# 工作进程的种子来自两样东西：主进程的随机数生成器和工作进程的编号。


# %% tags=["claim:IT-06"]
def worker_seeds(main_seed):
    torch.manual_seed(main_seed)
    return list(DataLoader(Seeds(), batch_size=None, num_workers=2))


one, same, other = worker_seeds(5), worker_seeds(5), worker_seeds(6)
print("seed of worker 1 minus seed of worker 0:", one[1] - one[0])
print("main seed 5 again, equal:", one == same, "| main seed 6, equal:", one == other)

# %% [markdown] lang="en"
# ## What the class promises
#
# `IterableDataset` asks for one method, `__iter__`. The loader yields what that iterator yields, **chunks** of any length included.
# With a `batch_size` it stacks them, and unequal lengths fail.
# The class takes no arguments of its own, and today a subclass without `__iter__` cannot be instantiated.

# %% [markdown] lang="zh"
# ## 这个类承诺什么
#
# `IterableDataset` 只要求一个方法：`__iter__`。迭代器给什么，加载器就给什么，长短不一的**数据块**（chunk）也照样通过。
# 写了 `batch_size` 就要堆叠，长短不一便会报错。这个类本身不接受参数；如今，没有 `__iter__` 的子类根本无法创建对象。


# %% tags=["claim:IT-01", "claim:IT-02", "claim:IT-03"]
class Letters(IterableDataset):
    def __iter__(self):
        yield from "xyz"


class Chunks(IterableDataset):
    def __iter__(self):
        for length in (1, 3, 2):
            yield torch.arange(length)


class Half(IterableDataset):
    pass


def attempt(make):
    try:
        return str(make())
    except (TypeError, RuntimeError) as error:
        # the end of the message differs between Python versions
        return f"{type(error).__name__}: {str(error).partition(' with')[0]}"


chunks = [chunk.tolist() for chunk in DataLoader(Chunks(), batch_size=None)]
stacked = attempt(lambda: list(DataLoader(Chunks(), batch_size=3)))
facts.Table(
    "batch_size=None hands over what the iterator yields",
    [
        {"dataset": "Letters", "result": list(DataLoader(Letters(), batch_size=None))},
        {"dataset": "Chunks", "result": chunks},
        {"dataset": "Chunks, batch_size=3", "result": stacked},
        {"dataset": "Half, without __iter__", "result": attempt(Half)},
        {"dataset": "Letters with an argument", "result": attempt(lambda: Letters(3))},
    ],
)

# %% [markdown] lang="en"
# ## Split inside `__iter__`
#
# What one reader gets of the data is its **shard**. The documentation cuts the stream into contiguous shards of
# `ceil(n / workers)` samples. Each copy asks who it is and keeps its own.
#
# A second way leaves the dataset alone: a `worker_init_fn` changes the copy once, when its worker starts.

# %% [markdown] lang="zh"
# ## 在 `__iter__` 里切分
#
# 一个读者分到的那部分数据叫它的**分片**（shard）。文档把数据流切成连续的分片，每片 `ceil(n / 工作进程数)` 个样本。
# 每份副本问清自己是谁，只留下自己那一片。
#
# 第二种办法不动数据集：工作进程启动时，由 `worker_init_fn` 改一次副本。

# %%
# %%importable slices
import math

from spans import Span
from torch.utils.data import get_worker_info


def slice_of(start, stop, worker, workers):
    """The contiguous slice of one worker, as the documentation cuts it."""
    length = math.ceil((stop - start) / workers)
    return start + worker * length, min(start + (worker + 1) * length, stop)


class SlicedSpan(Span):
    def __iter__(self):
        me = get_worker_info()
        if me is None:
            return super().__iter__()
        return iter(range(*slice_of(self.start, self.stop, me.id, me.num_workers)))


def slice_my_copy(worker):
    me = get_worker_info()
    mine = me.dataset
    mine.start, mine.stop = slice_of(mine.start, mine.stop, worker, me.num_workers)


# %% [markdown] lang="en"
# Worker 0 has 3 and 4, worker 1 has 5 and 6. In which order do the four samples arrive?

# %% [markdown] lang="zh"
# 0 号工作进程有 3 和 4，1 号有 5 和 6。四个样本按什么顺序到达？


# %% tags=["predict", "claim:IT-08", "claim:IT-12"]
def numbers(loader):
    return [int(sample) for sample in loader]


def never(worker):
    1 / 0


my_guess = ...  # for example [3, 4, 5, 6]

in_iter = numbers(DataLoader(SlicedSpan(3, 7), num_workers=2))
kept = DataLoader(Span(3, 7), num_workers=2, worker_init_fn=slice_my_copy, persistent_workers=True)
first_loop, second_loop = numbers(kept), numbers(kept)
print("no workers:                      ", numbers(DataLoader(SlicedSpan(3, 7))))
print("worker_init_fn, first loop:      ", first_loop)
print("second loop of the same workers: ", second_loop)
print("worker_init_fn without workers:  ", numbers(DataLoader(Span(3, 7), worker_init_fn=never)))
exercises.predict(my_guess, torch=in_iter)

# %% [markdown] lang="en"
# The loader takes one batch from each worker in turn: 3 from worker 0, 5 from worker 1, then 4, then 6.
#
# Two more facts stand in the output. `persistent_workers=True` keeps the workers for the second loop, and there `slice_my_copy`
# did not run again: a second cut would have left less. Without workers a `worker_init_fn` is never called: `never` would have
# divided by zero.
#
# Now 12 workers for the same four numbers. The notes print 3, 5, 4, 6 here as well. What does torch print?

# %% [markdown] lang="zh"
# 加载器轮流从每个工作进程取一个批次：0 号的 3，1 号的 5，然后 4，然后 6。
#
# 输出里还有两件事。`persistent_workers=True` 让工作进程留到第二次循环，这时 `slice_my_copy` 没有再运行：再切一次，数就变少了。
# 没有工作进程时，`worker_init_fn` 根本不运行：否则 `never` 已经除以零了。
#
# 现在用 12 个工作进程读同样的四个数。笔记在这里也写 3、5、4、6。torch 会给出什么？

# %% tags=["predict", "claim:IT-09"]
my_guess = ...  # for example [3, 5, 4, 6]

# a forked process starts at once, and here are 12 of them
quick = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
with warnings.catch_warnings():
    # more workers than cores: torch warns, with the number of cores of this machine
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    loader = DataLoader(SlicedSpan(3, 7), num_workers=12, multiprocessing_context=quick)
    crowd = numbers(loader)
exercises.predict(my_guess, torch=crowd)

# %% [markdown] lang="en"
# The first four workers have one number each, the other eight have none. So the order is 3, 4, 5, 6, and the notes are wrong.
#
# Idle workers also appear with few workers. Nine samples, four workers:

# %% [markdown] lang="zh"
# 前四个工作进程各有一个数，其余八个没有。所以顺序是 3、4、5、6，笔记写错了。
#
# 工作进程不多时也会有人闲着。九个样本，四个工作进程：

# %% tags=["claim:IT-13"]
rows = []
for me in range(4):
    contiguous = list(range(*slice_of(0, 9, me, 4)))
    strided = list(sharding.Place(worker=me, workers=4).share(range(9)))
    lengths = {"contiguous: how many": len(contiguous), "strided: how many": len(strided)}
    rows.append({"worker": me, "contiguous": contiguous, "strided": strided} | lengths)
facts.Table("9 samples over 4 workers", rows)

# %% [markdown] lang="en"
# A strided slice takes every fourth sample: 0, 4, 8. Shares then differ by at most one, and nobody is idle while another
# has two. Exercise 1 asks you to write it.
#
# ## Two slips in the notes' example
#
# Their `Span` calls `super(Span).__init__()`, with the class and without `self`. And it asserts `end > start` with the message
# `end >= start`. Do these lines do what they say?

# %% [markdown] lang="zh"
# 间隔切片每四个取一个：0、4、8。这样份额最多相差一个，不会有人闲着而别人有两个。练习 1 由你来写。
#
# ## 笔记示例里的两处疏忽
#
# 笔记里的 `Span` 写 `super(Span).__init__()`，给了类却没给 `self`。它还断言 `end > start`，报错信息却写 `end >= start`。
# 这两行真的做到了它们所说的吗？


# %% tags=["claim:IT-10", "claim:IT-11"]
class Base:
    def __init__(self):
        self.ready = True


class Unbound(Base):
    def __init__(self):
        super(Unbound).__init__()


class Bound(Base):
    def __init__(self):
        super().__init__()


def guard(start, end):
    assert end > start, "this example code only works with end >= start"


def outcome(start, end):
    try:
        guard(start, end)
        return "accepted"
    except AssertionError as error:
        return f"AssertionError: {error}"


empty = numbers(DataLoader(SlicedSpan(3, 3)))
facts.Table(
    "what the two lines do",
    [
        {"try": "super(Unbound).__init__()", "result": f"Base ran: {hasattr(Unbound(), 'ready')}"},
        {"try": "super().__init__()", "result": f"Base ran: {hasattr(Bound(), 'ready')}"},
        {"try": "Dataset has its own __init__", "result": str("__init__" in vars(Dataset))},
        {"try": "guard(3, 3): 3 >= 3 is true", "result": outcome(3, 3)},
        {"try": "the split of an empty range", "result": str(empty)},
    ],
)

# %% [markdown] lang="en"
# `super(Unbound)` has no object to work on, so `Base` is left out. It does no harm in the notes' example: `Dataset` has no
# `__init__` of its own. The guard refuses an empty range, although the split could handle it.
#
# ## Explore: ranks times workers
#
# Distributed training runs several main processes. Each is a **rank**, and each rank has its own workers.
# The documentation's example asks for the worker only. It does not know about ranks.
#
# The grid is a measurement: for every rank a real loader runs with real workers. Two things to change: set `how` to `tutorlib`;
# then set `ranks` to 1.

# %% [markdown] lang="zh"
# `super(Unbound)` 没有绑定对象，所以跳过了 `Base`。笔记的示例没有出事，因为 `Dataset` 自己没有 `__init__`。
# 断言拒绝空区间，而切分本来可以处理它。
#
# ## 动手探索：rank × 工作进程
#
# 分布式训练同时运行几个主进程。每个主进程是一个 **rank**（分布式训练中进程的编号），每个 rank 有自己的工作进程。
# 文档的示例只问工作进程是谁，不知道还有 rank。
#
# 这张图是测量结果：每个 rank 都有真实的加载器和真实的工作进程在跑。
# 试着改两处：把 `how` 改成 `tutorlib`；再把 `ranks` 改成 1。


# %% tags=["explore"]
def who_got_what(ranks, workers, how):
    def source(rank):
        if how == "documentation":
            return SlicedSpan(0, 10)
        return sharding.Sharded(datasets.Numbers(0, 10), rank=rank, world=ranks)

    loading = {"name": int, "batch_size": None, "num_workers": workers}
    runs = [trace.record(source(rank), **loading) for rank in range(ranks)]
    return trace.coverage(runs, expected=range(10))


widgets.explore(
    who_got_what,
    pictures.grid,
    ranks=[2, 1, 3],
    workers=[2, 0, 1],
    how=["documentation", "tutorlib"],
)

# %% [markdown] lang="en"
# With `documentation`, both ranks train on the same ten samples: everything twice.
#
# The remedy: number all readers, over all ranks. A dataset asks for its rank where it is **built** (in the main process)
# and for its worker where it is **iterated** (in the worker).
#
# ## Exercise 1: a fair share
#
# `samples` is a list. Give each worker its strided slice. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 选 `documentation` 时，两个 rank 都在同样的十个样本上训练：全部重复。
#
# 补救的办法是给所有 rank 的所有读者统一编号。
# 数据集在**创建**时（主进程里）问自己的 rank，在**遍历**时（工作进程里）问自己是哪个工作进程。
#
# ## 练习 1：公平的份额
#
# `samples` 是一个列表。取出每个工作进程的间隔切片。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:03_fair_share"]
def fair_share(samples, worker, workers):
    """The samples of one worker: together every sample once, shares differ by at most one."""
    ...


# solution
def fair_share(samples, worker, workers):
    return samples[worker::workers]


# %% tags=["check"]
exercises.check("03_fair_share", fair_share)  # stuck? exercises.hint("03_fair_share")

# %% [markdown] lang="en"
# ## Exercise 2: ranks too
#
# Write what the `__iter__` of a rank-aware dataset does. It runs in every worker of every rank, and `world` is the number
# of ranks (the **world size**). How many readers are there, and which number has this one?

# %% [markdown] lang="zh"
# ## 练习 2：再加上 rank
#
# 数据集知道自己的 rank，写出它的 `__iter__` 要做的事。每个 rank 的每个工作进程都运行它，`world` 是 rank 总数（world size）。
# 一共有几个读者？当前的读者是第几个？


# %% tags=["exercise:03_rank_aware"]
def read(samples, rank, world, info):
    """Yield the samples of one reader; `info` is what get_worker_info() returns there."""
    ...


# solution
def read(samples, rank, world, info):
    worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
    yield from samples[worker * world + rank :: world * workers]


# %% tags=["check"]
exercises.check("03_rank_aware", read)  # stuck? exercises.hint("03_rank_aware")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements in the style of the notes, about `SlicedSpan(3, 7)`. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法，写法与笔记相同，都关于 `SlicedSpan(3, 7)`。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:IT-08"]
my_guess = ...  # 1, 2, 3 or 4

pairs = [batch.tolist() for batch in DataLoader(SlicedSpan(3, 7), batch_size=2, num_workers=2)]
statements = {
    1: numbers(DataLoader(SlicedSpan(3, 7), num_workers=0)) == [3, 4, 5, 6],
    2: in_iter == [3, 5, 4, 6],
    3: pairs == [[3, 5], [4, 6]],
    4: sorted(crowd) == sorted(in_iter),
}
print("batches of 2:", pairs)
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# Each worker makes batches of its own samples. The loader takes the finished batches in turn and mixes nothing.

# %% [markdown] lang="zh"
# 每个工作进程用自己的样本组成批次。加载器轮流取走现成的批次，不会再混合。

# %% [markdown] lang="en"
# ## Recap
#
# Each worker reads its own copy of a stream, all of it, unless the copy is told its share. Strided shares differ by at most one.
# A share must count ranks as well as workers.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, every sample twice | an unsharded stream with 2 workers | Wrong first |
# | `Can't instantiate abstract class Half` | a subclass without `__iter__` | What the class promises |
# | `only works with end >= start` | the guard demands more than it says | Two slips in the notes' example |
# | no message, ranks train on the same samples | the share forgets ranks | Explore |
#
# What next: lesson [04](04_samplers.ipynb), who decides the order. An extra for later: lesson [30](30_real_sources.ipynb) reads
# streams from files, servers and growing logs, after lesson 15.

# %% [markdown] lang="zh"
# ## 小结
#
# 每个工作进程都把自己那份副本完整读一遍，除非告诉它自己的份额。间隔切片的份额最多相差一个。
# 份额既要数工作进程，也要数 rank。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，每个样本出现两次 | 数据流没有切分，却用 2 个工作进程 | 先看错误 |
# | `Can't instantiate abstract class Half` | 子类没有 `__iter__` | 这个类承诺什么 |
# | `only works with end >= start` | 断言要求的比它说的多 | 笔记示例里的两处疏忽 |
# | 没有报错，各个 rank 在同样的样本上训练 | 份额忘了 rank | 动手探索 |
#
# 下一步：第 [04](04_samplers.ipynb) 课，顺序由谁决定。以后可以选学第 [30](30_real_sources.ipynb) 课（在第 15 课之后）：
# 从文件、服务器和不断增长的日志读取数据流。

# %%
exercises.progress("03")
