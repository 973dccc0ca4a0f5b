# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Real sources", zh: "真实的数据源"}
#     sections: []
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 30 · Real sources
#
# **You will be able to** split text by bytes so that every line is read once, read a huge array a batch at a time, and follow logs
# and servers that stop in the middle without losing or repeating a line.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [02](02_map_datasets.ipynb), [03](03_iterable_datasets.ipynb), [15](15_exactly_once.ipynb) | 55 | beyond the notes | [简体中文](../zh/30_real_sources.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 30 · 真实的数据源
#
# **学完本课，你能够**：按字节切分文本，使每一行恰好读一次；一批一批地读取巨大的数组；
# 跟踪日志和中途停下的服务器，一行不丢，一行不重。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [02](02_map_datasets.ipynb)、[03](03_iterable_datasets.ipynb)、[15](15_exactly_once.ipynb) 课 | 55 | 笔记之外 | [English](../en/30_real_sources.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# Three text files with 40 lines in all, in a folder that is removed at the end. `told` shows an error without the path of this machine.

# %% [markdown] lang="zh"
# ## 准备
#
# 三个文本文件，共 40 行，放在一个用完就删的文件夹里。`told` 显示报错信息，去掉本机的路径。

# %% tags=["setup"]
import json
import operator
import pickle
import tempfile
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, StackDataset

from tutorlib import datasets, exercises, facts, pictures, sharding, trace, widgets

kept = tempfile.TemporaryDirectory()
folder = Path(kept.name)
lines = [f"line {number:02d} {'.' * (number * 7 % 20)}" for number in range(40)]
paths = [folder / f"part{number}.txt" for number in range(3)]
for path, part in zip(paths, (lines[:22], lines[22:34], lines[34:]), strict=True):
    path.write_bytes("".join(f"{line}\n" for line in part).encode())


def told(act):
    try:
        return act()
    except Exception as error:
        said = str(error).replace(str(folder), "FOLDER").replace("FOLDER/", "")
        return f"{type(error).__name__}: {said}"


print("ready:", [path.stat().st_size for path in paths], "bytes")

# %% [markdown] lang="en"
# ## Wrong first
#
# Four readers share the first file. Each takes a quarter of its bytes and splits them into lines.
# The file has 22 lines. How many arrive whole? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 四个读者分读第一个文件。每个取四分之一的字节，再切成行。
# 文件有 22 行。有几行完整到达？先写下你的预测，再运行单元格。


# %% tags=["wrong-first", "predict"]
def quarter(reader):
    data = paths[0].read_bytes()
    size = -(-len(data) // 4)
    return data[reader * size : (reader + 1) * size].decode().splitlines()


my_guess = ...  # how many lines?

found = [line for reader in range(4) for line in quarter(reader)]
torn = [piece for piece in found if piece not in lines]
print("pieces:", torn)
exercises.predict(my_guess, torch=len(found) - len(torn))

# %% [markdown] lang="en"
# Two of the three cuts tear a line; the first one fell between two lines by luck. No error appears: a torn piece looks like a line.
#
# ## The idea
#
# Give each line to the range **in which it begins**. A reader skips the end of a line that began before its range, and reads its own last
# line to the end, beyond its range. Then the ranges may be cut anywhere.
#
# So a range of bytes is a **key**: block 0, block 1, ... Text becomes a map-style dataset, and everything that deals out indices
# works: samplers, ranks, workers, resuming.

# %% [markdown] lang="zh"
# 三刀里有两刀撕开了一行；第一刀碰巧落在两行之间。没有任何报错：撕开的每一截看上去都像一行。
#
# ## 概念
#
# 把每一行交给**它开头所在的**范围。读者跳过在自己范围之前就开始的那行的尾巴，而自己的最后一行要读到底，哪怕超出范围。
# 这样，从哪里切都可以。
#
# 于是一段字节就是一个**键**：第 0 块、第 1 块……文本变成了映射式数据集，凡是分配索引的工具都能用：
# 采样器、rank（分布式训练中进程的编号）、工作进程（worker）、恢复。

# %%
blocks = datasets.Blocks(paths, size=80)
facts.Table(
    f"{len(blocks)} blocks of 80 bytes, {sum(map(len, blocks))} lines",
    [
        {"block": number, "lines": len(block), "first": block[0], "last": block[-1]}
        for number, block in enumerate(blocks)
    ],
)

# %% [markdown] lang="en"
# No line is torn. Blocks never cross from one file into the next, and the numbers simply go on.
#
# What if a line is longer than a block? Here a block has 4 bytes, and the file is `ab`, `cdefghijkl`, `m`. Write the blocks.

# %% [markdown] lang="zh"
# 没有一行被撕开。块不会从一个文件跨到下一个，编号则接着往下排。
#
# 如果一行比一块还长呢？这里每块 4 个字节，文件内容是 `ab`、`cdefghijkl`、`m`。写出各个块。

# %% tags=["predict"]
my_guess = ...  # for example [["ab"], ["cdefghijkl"], ["m"]]

(folder / "long.txt").write_bytes(b"ab\ncdefghijkl\nm\n")
exercises.predict(my_guess, torch=list(datasets.Blocks(folder / "long.txt", size=4)))

# %% [markdown] lang="en"
# A long line is in the block where it begins; the blocks inside it are empty.
#
# ## Exactly once
#
# `sharding.Sharded` from lesson [03](03_iterable_datasets.ipynb) deals out the blocks. `batch_size=None` gives a block at a time.

# %% [markdown] lang="zh"
# 长的行属于它开头所在的块；它中间的那些块是空的。
#
# ## 恰好一次
#
# 第 [03](03_iterable_datasets.ipynb) 课的 `sharding.Sharded` 负责分块。`batch_size=None` 每次给出一块。


# %%
def read(ranks, workers, size):
    source = datasets.Blocks(paths, size)
    loaders = [
        DataLoader(sharding.Sharded(source, rank, ranks), batch_size=None, num_workers=workers)
        for rank in range(ranks)
    ]
    return Counter(line for loader in loaders for block in loader for line in block)


rows = []
for ranks, workers, size in ((1, 0, 80), (2, 2, 80), (3, 1, 30), (2, 2, 10_000)):
    counts = read(ranks, workers, size)
    row = {"ranks": ranks, "workers": workers, "block": size, "lines": len(counts)}
    rows.append(
        {
            **row,
            "twice": sum(n > 1 for n in counts.values()),
            "never": len(set(lines) - set(counts)),
        }
    )
facts.Table("40 lines in 3 files", rows)

# %% [markdown] lang="en"
# The last row has one block a file: 3 blocks for 4 readers. Nothing is lost; one reader is idle.
#
# ## Explore: who reads which block
#
# Each block is named by its first line. The loaders and workers are real. Two things to change: set `size` to 10000, one block a file;
# then add a rank.

# %% [markdown] lang="zh"
# 最后一行里，一个文件就是一块：3 块给 4 个读者。什么也没丢，只是有一个读者闲着。
#
# ## 动手探索：谁读哪一块
#
# 每一块用它的第一行命名。加载器和工作进程都是真的。
# 试着改两处：把 `size` 改成 10000，即一个文件一块；再加一个 rank。


# %% tags=["explore"]
def who_reads(ranks, workers, size):
    source = datasets.Blocks(paths, size)
    loading = {"name": operator.itemgetter(0), "batch_size": None, "num_workers": workers}
    runs = [trace.record(sharding.Sharded(source, rank, ranks), **loading) for rank in range(ranks)]
    return trace.coverage(runs, expected=[block[0] for block in source])


widgets.explore(
    who_reads, pictures.grid, ranks=[2, 1, 3], workers=[2, 0, 1], size=[80, 150, 10_000]
)

# %% [markdown] lang="en"
# ## Bytes on a server
#
# `Blocks` and `Lines` read a URL as they read a file. `datasets.serve` is a small server on this machine that notes what it was asked for.
#
# Two ranks share a file of 5000 lines: once its **lines** (`Lines`, a stream), once its **blocks**.
# How many times the size of the file does the server send, for lines and for blocks? Round to whole numbers.

# %% [markdown] lang="zh"
# ## 服务器上的字节
#
# `Blocks` 和 `Lines` 读 URL 和读文件一样。`datasets.serve` 是本机上的一个小服务器，它记下别人向它要了什么。
#
# 两个 rank 分读一个 5000 行的文件：一次按**行**分（`Lines`，数据流），一次按**块**分。
# 两种情况下，服务器发送的总量各是文件大小的几倍？取整数。


# %% tags=["predict"]
def sent(source, served):
    """The bytes that the server sends while two ranks share a source."""
    served.requests.clear()
    for rank in range(2):
        list(sharding.Place(rank, 2).share(source))
    spans = [request.split()[1].split("-") for request in served.requests]
    return sum(int(last) - int(first) + 1 for first, last in spans)


my_guess = ...  # for example (1, 1)

(folder / "many.txt").write_bytes(b"".join(b"line %04d\n" % number for number in range(5000)))
with datasets.serve(folder) as served:
    url = f"{served.url}/many.txt"
    by_lines, by_blocks = (
        sent(datasets.Lines(url), served),
        sent(datasets.Blocks(url, size=20_000), served),
    )
    print("asked for blocks:", served.requests)
print("bytes sent for lines:", by_lines, "| for blocks:", by_blocks)
exercises.predict(my_guess, torch=(round(by_lines / 50_000), round(by_blocks / 50_000)))

# %% [markdown] lang="en"
# A stream has no keys, so each rank reads all of it and throws the other's lines away. Blocks are asked for one by one.
# Each request begins one byte early (does a line begin here?) and ends 1 kB late, where the last line most likely ends.
#
# ## A server that stops
#
# A connection can break after any byte, and what has arrived looks like a shorter file. The header `Content-Length` says how much
# was promised. Below the server breaks off after 200 bytes, then after 100 more. Which byte does the reader ask for last?

# %% [markdown] lang="zh"
# 数据流没有键，所以每个 rank 都读完整的文件，再扔掉对方的行。块则可以一块一块地要。
# 每次请求都早一个字节开始（看这里是不是行首），晚 1 kB 结束（最后一行多半在那里结束）。
#
# ## 中途停下的服务器
#
# 连接可能在任何一个字节之后断开，而收到的部分看上去就是一个短一些的文件。应答头 `Content-Length` 说明答应给多少。
# 下面的服务器先在 200 字节后断开，再在 100 字节后断开。读者最后一次从哪个字节要起？

# %% tags=["predict"]
my_guess = ...  # a number of bytes

with datasets.serve(folder, stops=[200, 100]) as served:
    source = datasets.Lines(f"{served.url}/part0.txt")
    whole = list(source) == lines[:22]
    print("asked:", served.requests)
    print("all lines, none twice:", whole)
    last = int(served.requests[-1].split()[1].split("-")[0])

    served.stops += [50, 60, 70]  # once more, and worse
    impatient = datasets.Lines(f"{served.url}/part0.txt", retries=2)
    print(told(lambda: list(impatient)).partition(served.url)[2])
exercises.predict(my_guess, torch=last)

# %% [markdown] lang="en"
# The first request, `0-0`, asks for the size only. After a stop the source asks for the rest, a bounded number of times (`retries`). After that there is one clear error, never a short file.
#
# ## Files that are not what they were
#
# A source notes the size of its files when it is made. `complete=True` wants a line end after the last line. Five accidents (the fourth
# is an encoding), and what you are told:

# %% [markdown] lang="zh"
# 第一个请求 `0-0` 只是问大小。中断之后，它去要剩下的部分，次数有上限（`retries`）。超过上限就给出一个清楚的报错，绝不会当成一个短文件。
#
# ## 文件变了样
#
# 数据源在创建时记下文件的大小。`complete=True` 要求最后一行也有行结束符。下面是五种意外（第四种是编码不对）和对应的报错：

# %%
(folder / "note.txt").write_bytes(b"one\ntwo\nthr")
source = datasets.Lines(folder / "note.txt")
print(told(lambda: datasets.Lines(folder / "note.txt", complete=True)), "\n")
(folder / "note.txt").write_bytes(b"one\n")
print(told(lambda: list(source)), "\n")
(folder / "note.txt").unlink()
print(told(lambda: list(source)), "\n")
(folder / "note.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
print(told(lambda: list(datasets.Lines(folder / "note.txt"))), "\n")
print(told(lambda: datasets.Blocks([*paths, folder / "part3.txt"])))

# %% [markdown] lang="en"
# ## Resuming
#
# Two workers read ahead, you stop after 4 blocks. The state says how many blocks you had. Then you go on without workers:

# %% [markdown] lang="zh"
# ## 恢复
#
# 两个工作进程会提前读，你在 4 块之后停下。状态说明你得到了几块。之后不用工作进程继续：

# %%
first = sharding.Sharded(datasets.Blocks(paths, size=80))
seen = []
for number, block in enumerate(first.follow(DataLoader(first, batch_size=None, num_workers=2)), 1):
    seen += block
    if number == 4:
        break
state = json.dumps(first.state_dict())
second = sharding.Sharded(datasets.Blocks(paths, size=80))
second.load_state_dict(json.loads(state))
for block in second.follow(DataLoader(second, batch_size=None)):
    seen += block
print(state)
print("lines:", len(seen), "| each once and in order:", seen == lines)

# %% [markdown] lang="en"
# ## A large array
#
# `ArrayFile` maps a file of `numpy.save` into memory: only the rows that are asked for are read. The array below has 40 MB.
# Three rows are read in each way. How many MB does Python allocate with `ArrayFile`, rounded?

# %% [markdown] lang="zh"
# ## 巨大的数组
#
# `ArrayFile` 把 `numpy.save` 的文件映射到内存（memory-mapped）：只读要用的那些行。下面的数组有 40 MB。
# 两种方式都读三行。用 `ArrayFile` 时，Python 大约分配多少 MB（取整）？


# %% tags=["predict"]
def allocated(act):
    tracemalloc.start()
    act()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(most / 1e6)


my_guess = ...  # how many MB?

np.save(folder / "big.npy", np.zeros((10_000, 1000), dtype="float32"))
loaded = allocated(lambda: np.load(folder / "big.npy")[[5, 9000, 7]])
mapped = allocated(lambda: datasets.ArrayFile(folder / "big.npy").__getitems__([5, 9000, 7]))
print("numpy.load:", loaded, "MB")
exercises.predict(my_guess, torch=mapped)

# %% [markdown] lang="en"
# Three rows are 12 kB: 0 MB, rounded. `numpy.load` read all 10,000.
#
# ## A batch is one read
#
# `__getitems__` reads all rows of a batch at once. With `together=True` the batch is one tensor from the start, and
# `datasets.together` passes it on: nothing is stacked. Torch's `StackDataset` sets images and labels side by side.
# Two errors at the end: another shape, and a file that is cut off.

# %% [markdown] lang="zh"
# 三行共 12 kB，取整是 0 MB。`numpy.load` 则读了全部 10000 行。
#
# ## 一批只读一次
#
# `__getitems__` 一次读出一批的所有行。设 `together=True` 时，这一批从一开始就是一个张量，
# `datasets.together` 原样传下去：不需要再堆叠。torch 的 `StackDataset` 把图像和标签并排放在一起。
# 最后是两个报错：另一种形状，和被截断的文件。

# %%
digits = datasets.digits("train")
np.save(folder / "images.npy", digits.images.numpy())
np.save(folder / "labels.npy", digits.labels.numpy())
images = datasets.ArrayFile(folder / "images.npy", shape=(None, 8, 8), dtype=torch.uint8)
labels = datasets.ArrayFile(folder / "labels.npy")
pictures_first, labels_first = next(iter(DataLoader(StackDataset(images, labels), batch_size=32)))

whole = datasets.ArrayFile(folder / "images.npy", together=True)
batch = next(iter(DataLoader(whole, batch_size=32, collate_fn=datasets.together)))
kinds = [type(one.__getitems__([0, 1])).__name__ for one in (images, whole)]
print("kind of a batch:", " or ".join(kinds))
same = torch.equal(batch, pictures_first)
print("equal batches:", same, tuple(batch.shape), labels_first[:5].tolist())
print(told(lambda: datasets.ArrayFile(folder / "images.npy", shape=(None, 28, 28))))
(folder / "cut.npy").write_bytes((folder / "images.npy").read_bytes()[:50_000])
print(told(lambda: datasets.ArrayFile(folder / "cut.npy")))

# %% [markdown] lang="en"
# ## Opened where it is read
#
# A dataset travels to a worker as a pickle, or as a copy of the process. An open file should do neither. The first dataset below opens
# its file in `__init__`. The others keep a name and open it in the process that reads.

# %% [markdown] lang="zh"
# ## 在读取的地方打开
#
# 数据集以 pickle 的形式，或者作为进程的副本，到达工作进程。打开的文件哪一种都不适合。
# 下面第一个数据集在 `__init__` 里打开文件。其余的只记名字，由读取的进程自己打开。


# %%
class OpensAtOnce(Dataset):
    def __init__(self, path):
        self.file = path.open()


opened = OpensAtOnce(paths[0])
table = datasets.SqliteTable(
    datasets.write_sqlite(folder / "digits.db"), "digits", decode=datasets.digit_row
)
table["0007"], images[7]  # open here, in the main process
rows = []
for source in (opened, table, images, blocks):
    try:
        travels = len(pickle.dumps(source)) < 4000
    except TypeError:
        travels = "TypeError"
    rows.append({"source": type(source).__name__, "pickles to less than 4 kB": travels})
opened.file.close()
keys = table.keys()[:6]
print(
    "two workers, each with its own connection:",
    [int(n) for _, n in DataLoader(table, sampler=keys, num_workers=2)],
)
table.close()
facts.Table("what travels", rows)

# %% [markdown] lang="en"
# ## A log that grows
#
# `Log` follows a file while it is written. The log below holds `step 1`, `step 2` and the beginning of a third line.
# How many lines does it give?

# %% [markdown] lang="zh"
# ## 不断增长的日志
#
# 文件一边写，`Log` 一边读。下面的日志里有 `step 1`、`step 2` 和第三行的开头。
# 它给出几行？

# %% tags=["predict"]
my_guess = ...  # how many lines?

log = folder / "run.log"
log.write_bytes(b"step 1\nstep 2\nst")
found = list(datasets.Log(log, idle=0))  # idle=0: stop where nothing more is written
print(found)
exercises.predict(my_guess, torch=len(found))

# %% [markdown] lang="en"
# A half-written line waits for its line end. Each line carries `end`, the position just after it. The position travels with the data, so a worker
# that has read ahead cannot spoil it: go on from the last `end` that you used.
#
# Below a worker follows the log in batches of 2, and we stop after the first. Then a thread writes on while a second reader follows.

# %% [markdown] lang="zh"
# 写了一半的行要等到行结束符才给出。每一行带着它后面那个字节的位置 `end`。位置和数据一起走，所以工作进程提前读也不会弄乱它：
# 从你用过的最后一个 `end` 继续就行。
#
# 下面由一个工作进程跟踪日志，每批 2 行，我们在第一批之后停下。然后一个线程接着写，第二个读者同时跟着读。


# %%
def is_end(text):
    return text == "end"


def write(content):
    with log.open("ab") as file:
        file.write(content)


write(b"ep 3\nstep 4\n")
batch = next(iter(DataLoader(datasets.Log(log, idle=0), batch_size=2, num_workers=1)))
print("first reader:", batch.text, "| resume at byte", int(batch.end[-1]))

writer = threading.Timer(0.2, write, [b"step 5\nend\nnever read\n"])
writer.start()
following = datasets.Log(log, offset=int(batch.end[-1]), stop=is_end, idle=60)
print("second reader:", [line.text for line in following])
writer.join()

# %% [markdown] lang="en"
# The second reader waited for `step 5` and stopped at `end`, by its rule. Other logs stop when nothing was written for `idle` seconds.
#
# Logs are cut and replaced. A position in the old file means nothing in the new one, and the reader says so:

# %% [markdown] lang="zh"
# 第二个读者等到了 `step 5`，并按照规则在 `end` 停下。别的日志可以规定：`idle` 秒没有新内容就停。
#
# 日志会被截断、被替换。旧文件里的位置在新文件里没有意义，读者会说明这一点：

# %%
log.write_bytes(b"fresh\n")
print(told(lambda: datasets.Log(log, offset=14)))
log.write_bytes(b"a fresh log with long lines\n")
print(told(lambda: datasets.Log(log, offset=14)))

# %% [markdown] lang="en"
# ## Exercise 1: the lines of a range
#
# `data` holds a whole file, as bytes; every line ends with `\n`. Return the lines (without `\n`) that begin at a byte from `begin` up to,
# not including, `stop`. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# ## 练习 1：一段范围里的行
#
# `data` 是整个文件的字节，每行都以 `\n` 结束。返回从 `begin` 到 `stop`（不含 `stop`）之间的字节开头的那些行，不带 `\n`。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:30_lines_of"]
def lines_of(data, begin, stop):
    """For b"ab\\nc\\n": bytes 0 to 3 give [b"ab"], bytes 3 to 5 give [b"c"]."""
    ...


# solution
def lines_of(data, begin, stop):
    found, position = [], 0
    for line in data.split(b"\n")[:-1]:
        if begin <= position < stop:
            found.append(line)
        position += len(line) + 1
    return found


# %% tags=["check"]
exercises.check("30_lines_of", lines_of)  # stuck? exercises.hint("30_lines_of")

# %% [markdown] lang="en"
# ## Exercise 2: a server that breaks off
#
# `get(start)` asks a server for all bytes from `start` on. It may give fewer, even none, when the connection breaks.
# Return all `size` bytes with at most `tries` calls of `get`, or raise `ConnectionError`.

# %% [markdown] lang="zh"
# ## 练习 2：会断开的服务器
#
# `get(start)` 向服务器要从 `start` 开始的所有字节。连接断开时，它给的会少一些，甚至一个也没有。
# 最多调用 `tries` 次 `get`，返回全部 `size` 个字节；做不到就抛出 `ConnectionError`。


# %% tags=["exercise:30_fetch_all"]
def fetch_all(get, size, tries):
    """All bytes of the file, in order, each once."""
    ...


# solution
def fetch_all(get, size, tries):
    data = b""
    for _ in range(tries):
        data += get(len(data))
        if len(data) == size:
            return data
    raise ConnectionError(f"{len(data)} of {size} bytes after {tries} tries")


# %% tags=["check"]
exercises.check("30_fetch_all", fetch_all)  # stuck? exercises.hint("30_fetch_all")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements. Which one does not hold? The cell proves it.
#
# 1. `Blocks` gives the same lines for every `size`.
# 2. Three files are read exactly once by 5 readers.
# 3. A state that counts blocks can be loaded with another `size`.
# 4. A log that is resumed at `line.end` repeats nothing.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法。哪一条不成立？单元格会给出证明。
#
# 1. 不管 `size` 是多少，`Blocks` 给出的行都一样。
# 2. 三个文件由 5 个读者恰好读一次。
# 3. 数块数的状态可以用另一个 `size` 加载。
# 4. 从 `line.end` 恢复的日志什么也不重复。


# %% tags=["bug-hunt"]
def flat(source):
    return datasets.joined(source)


my_guess = ...  # 1, 2, 3 or 4

holds = {1: all(flat(datasets.Blocks(paths, size)) == lines for size in (1, 7, 64, 1000))}
shares = [flat(sharding.Place(rank, 5).share(datasets.Blocks(paths, 50))) for rank in range(5)]
holds[2] = sorted(line for share in shares for line in share) == lines
before = flat(list(datasets.Blocks(paths, 80))[:4])  # a state that says: 4 blocks seen
other = sharding.Sharded(datasets.Blocks(paths, 40))
other.load_state_dict(json.loads(state))
after = flat(other)
print(
    "4 blocks of 80 bytes, then the rest by 40:", len(before) + len(after), "lines of", len(lines)
)
holds[3] = before + after == lines
every = list(datasets.Log(paths[0], idle=0))
holds[4] = all(
    list(datasets.Log(paths[0], line.end, idle=0)) == every[n:] for n, line in enumerate(every, 1)
)
exercises.predict(my_guess, torch=next(number for number, right in holds.items() if not right))

# %% [markdown] lang="en"
# ## Recap
#
# A line belongs to the range in which it begins, so a range of bytes is a key, and text can be dealt out, shuffled and resumed.
# A source keeps a name and opens it where it is read; what it was promised (sizes, lengths, line ends) it checks.
# Where data has no end, the position travels with it.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, torn lines | bytes were cut without looking for line ends | Wrong first |
# | `the server stopped at byte` | fewer bytes than promised, too often | A server that stops |
# | `the last line has no line end` | the file is cut off, or still being written | Files that are not what they were |
# | `bytes, it had ... when this source was made` | the file has changed since | Files that are not what they were |
# | `is cut off: ... bytes expected` | an array file copied in part | A batch is one read |
# | `was cut to`, `no line begins at byte` | the log was replaced | A log that grows |
#
# What next: try it with files of your own. Then go back to the map in lesson [00](00_start.ipynb): it shows what is left. Lesson
# [19](19_checkpoint.ipynb) keeps the state of a source beside the model.

# %% [markdown] lang="zh"
# ## 小结
#
# 一行属于它开头所在的范围，所以一段字节就是一个键，文本可以分配、打乱、恢复。
# 数据源只记名字，在读取的地方打开；别人答应过的（大小、长度、行结束符），它都要核对。
# 没有终点的数据，位置和它一起走。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，行被撕开 | 切字节时没有找行结束符 | 先看错误 |
# | `the server stopped at byte` | 收到的字节比答应的少，次数太多 | 中途停下的服务器 |
# | `the last line has no line end` | 文件被截断，或者还在写 | 文件变了样 |
# | `bytes, it had ... when this source was made` | 文件后来变了 | 文件变了样 |
# | `is cut off: ... bytes expected` | 数组文件只复制了一部分 | 一批只读一次 |
# | `was cut to`、`no line begins at byte` | 日志被替换了 | 不断增长的日志 |
#
# 下一步：换成你自己的文件试一试。然后回到第 [00](00_start.ipynb) 课的地图，看看还剩哪些课。
# 第 [19](19_checkpoint.ipynb) 课把数据源的状态和模型存在一起。

# %%
kept.cleanup()
exercises.progress("30")
