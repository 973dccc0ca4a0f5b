# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Start methods: fork, spawn, forkserver", zh: "启动方式：fork、spawn、forkserver"}
#     sections: ["000: 4.3 Platform-specific behaviors"]
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 10 · Start methods: fork, spawn, forkserver
#
# **You will be able to** say how a worker process comes to life on any system, find what cannot travel to it, and mend
# a dataset so that it works everywhere.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [09](09_workers.ipynb) | 55 | 4.3 Platform-specific behaviors | [简体中文](../zh/10_start_methods.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it on Linux and is compared again in each test run.
# Windows has no `fork` and no `forkserver`: there the tables have fewer rows, and the rows for `spawn` are the same.

# %% [markdown] lang="zh"
# # 10 · 启动方式：fork、spawn、forkserver
#
# **学完本课，你能够**：说出工作进程（worker）在任何系统上怎样诞生，找出到不了工作进程的东西，并把数据集改到处处可用。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [09](09_workers.ipynb) 课 | 55 | 4.3 Platform-specific behaviors | [English](../en/10_start_methods.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它在 Linux 上真实产生，每次测试都会重新比对。
# Windows 没有 `fork`，也没有 `forkserver`：在那里表格少几行，`spawn` 的行相同。

# %% [markdown] lang="en"
# ## Set-up
#
# Python can start a process in up to three ways; `methods` lists those of your system.
# `set_forkserver_preload` saves you time: the helper process of `forkserver` imports torch once, and its workers inherit it.

# %% [markdown] lang="zh"
# ## 准备
#
# Python 最多有三种方式启动一个进程；`methods` 列出你的系统所支持的几种。
# `set_forkserver_preload` 替你省时间：`forkserver` 的助手进程只导入一次 torch，它的工作进程直接继承。

# %% tags=["setup"]
import functools
import multiprocessing
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from tutorlib import datasets, exercises, facts, pictures, trace, widgets

# %load_ext tutorlib.cells
supported = multiprocessing.get_all_start_methods()
methods = [method for method in ("fork", "forkserver", "spawn") if method in supported]
if "forkserver" in methods:
    multiprocessing.set_forkserver_preload(["torch"])
print("ready")

# %% [markdown] lang="en"
# ## Wrong first
#
# A class with two short methods, written in a cell. One worker reads it three times, started in three ways.
# How many of the three ways deliver? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 一个只有两个短方法的类，写在单元格里。一个工作进程读它三次，三次的启动方式（start method）各不相同。
# 三种方式中，有几种能送达？先写下你的预测，再运行单元格。


# %% tags=["wrong-first", "predict", "claim:PL-06"]
class Squares(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index * index


my_guess = ...  # 0, 1, 2 or 3

tried = trace.start_methods(Squares(), methods)
print(exercises.predict(my_guess, torch=sum(row["batches"] is not None for row in tried.rows())))
tried

# %% [markdown] lang="en"
# ## The idea
#
# A worker is a second Python process. There are three ways to make one.
#
# | Start method | The new process is | Your dataset arrives by |
# |---|---|---|
# | `fork` | a clone of this process | being there already |
# | `spawn` | a fresh Python | pickle |
# | `forkserver` | a clone of a small, clean helper | pickle |
#
# Pickle does not carry classes. It writes a **name**: take `Squares` from the module `__main__`. The worker is
# another process with another `__main__`, and nobody has run your cell there.
#
# The same cell therefore works for one reader and fails for the next. Who decides which way is used?

# %% [markdown] lang="zh"
# ## 概念
#
# 工作进程是另一个 Python 进程。造出它有三种方式。
#
# | 启动方式 | 新进程是 | 你的数据集怎样到达 |
# |---|---|---|
# | `fork` | 当前进程的克隆 | 本来就在 |
# | `spawn` | 全新的 Python | 序列化（pickle） |
# | `forkserver` | 一个干净的助手进程的克隆 | 序列化 |
#
# pickle 不搬运类，它只写下一个**名字**：到模块 `__main__` 里取 `Squares`。工作进程是另一个进程，
# 有另一个 `__main__`，那里没有人运行过你的单元格。
#
# 所以同一个单元格，在一位读者那里能用，换一位读者就报错。用哪种方式由谁决定？

# %% tags=["claim:PL-01"]
same = torch.multiprocessing.get_start_method() == multiprocessing.get_start_method()
choices = {
    "None": None,
    "'spawn'": "spawn",
    "get_context('spawn')": multiprocessing.get_context("spawn"),
}
rows = []
for written, choice in choices.items():
    loader = DataLoader(range(2), num_workers=1, multiprocessing_context=choice)
    context = loader.multiprocessing_context
    method = "Python's default" if context is None else context.get_start_method()
    rows.append({"multiprocessing_context": written, "workers start by": method})
facts.Table(f"each loader may choose; torch's default is Python's: {facts.cell(same)}", rows)

# %% [markdown] lang="en"
# Without a choice, torch leaves it to Python's `multiprocessing`. Its default depends on the system **and** on the
# version of Python. The notes say: `fork` on Unix, `spawn` on Windows and macOS. Python 3.14 changed the first, because a clone of a process with
# running threads can hang. Here is the rule, and a check that your machine obeys it.

# %% [markdown] lang="zh"
# 你不选，torch 就交给 Python 的 `multiprocessing`。它的默认值取决于操作系统，**也**取决于 Python 的版本。
# 笔记说：Unix 上是 `fork`，Windows 和 macOS 上是 `spawn`。Python 3.14 改了前一半，因为克隆一个有线程在跑的进程可能卡死。
# 下面是这条规则，并检查你的机器是否遵守它。

# %% tags=["claim:PL-02", "claim:PL-04"]
rule = {
    ("Linux", "up to 3.13"): "fork",
    ("Linux", "from 3.14"): "forkserver",
    ("macOS", "any"): "spawn",
    ("Windows", "any"): "spawn",
}
system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, "Linux")
python = "from 3.14" if sys.version_info >= (3, 14) else "up to 3.13"
if system != "Linux":
    python = "any"
obeys = rule[system, python] == multiprocessing.get_start_method()
facts.Table(
    f"the default start method; this machine follows the rule: {facts.cell(obeys)}",
    [
        {
            "system": where,
            "Python": version,
            "default": method,
            "as the notes say": version != "from 3.14",
        }
        for (where, version), method in rule.items()
    ],
)

# %% [markdown] lang="en"
# ## Nothing travels under fork
#
# `Sealed` holds a lambda and refuses to be pickled. Who can read it, and where do the others fail?

# %% [markdown] lang="zh"
# ## fork 什么也不用搬
#
# `Sealed` 里有一个 lambda，而且拒绝被序列化。谁能读它？其余的在哪里失败？


# %% tags=["claim:PL-03"]
class Sealed(Dataset):
    def __init__(self):
        self.change = lambda index: index * 10

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.change(index)

    def __reduce__(self):  # pickle calls this
        raise TypeError("somebody tries to pickle me")


trace.start_methods(Sealed(), methods)

# %% [markdown] lang="en"
# `fork` never asked: the clone has the object in its own memory, lambda included. The other two asked at once,
# before a worker existed.
#
# So there are two moments to fail. **Early**, in the main process: pickle refuses, and the message is clear.
# **Late**, in the worker: pickle was content, but the name leads nowhere. That was `Squares`. The **X-ray** below shows which is which.

# %% [markdown] lang="zh"
# `fork` 从没问过：克隆的内存里本来就有这个对象，连 lambda 一起。另外两种立刻就问了，那时工作进程还不存在。
#
# 所以失败有两个时刻。**早**：在主进程里，pickle 拒绝，报错信息清楚。
# **晚**：在工作进程里，pickle 没有异议，可名字找不到东西。`Squares` 就是这样。下面的 **X 光图**分清二者。


# %% tags=["claim:PL-06"]
def first(samples):
    return samples[0]


trace.pickled(
    a_library_function=default_collate,
    a_function_of_this_notebook=first,
    a_class_of_this_notebook=Squares,
    its_instance=Squares(),
    a_lambda=lambda samples: samples[0],
    a_partial=functools.partial(default_collate),
    an_array=np.zeros(3),
    a_tensor=torch.zeros(3),
    a_lock=threading.Lock(),
)

# %% [markdown] lang="en"
# A function travels **by reference**: its name, not its code. A lambda has no name that leads back to it.
# See for yourself what is in the parcel.

# %% [markdown] lang="zh"
# 函数**按引用**（by reference）传递：传的是名字，不是代码。lambda 没有能找回自己的名字。
# 看看包裹里到底有什么。

# %% tags=["claim:PL-06"]
parcel = pickle.dumps(default_collate)
looked_for = {
    "the name of its module": default_collate.__module__.encode(),
    "its own name": b"default_collate",
    "its code": default_collate.__code__.co_code,
}
facts.Table(
    "default_collate, pickled",
    [{"in the parcel": what, "found": text in parcel} for what, text in looked_for.items()],
)

# %% [markdown] lang="en"
# ## The cell that everybody can import
#
# The documentation's advice: define such things at the top level of a module. A notebook is not a module, but a cell can become one.
# `%%importable NAME` writes the cell to a file `NAME.py` that workers find. Whatever the cell needs, it imports itself.

# %% [markdown] lang="zh"
# ## 谁都能导入的单元格
#
# 文档的建议：把这些东西定义在模块顶层（top level）。笔记本不是模块，但单元格可以变成模块。
# `%%importable 名字` 把单元格写进工作进程找得到的文件 `名字.py`。单元格需要什么，就自己导入什么。

# %%
# %%importable squares
import numpy as np
import torch
from torch.utils.data import Dataset

FACTOR = 1


class MarkedSquares(Dataset):
    """Squares times FACTOR; each read leaves a mark in a tensor and in an array."""

    def __init__(self):
        self.tensor = torch.zeros(4, dtype=torch.int64)
        self.array = np.zeros(4, dtype=np.int64)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.tensor[index] = 1
        self.array[index] = 1
        return FACTOR * index * index


# %% [markdown] lang="en"
# Now a worker of each kind reads the four squares. Just before, you change a setting of the module: `squares.FACTOR = 10`.
# What arrives from the `spawn` worker? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# 现在每种方式各有一个工作进程读这四个平方数。就在这之前，你改了模块里的一个设置：`squares.FACTOR = 10`。
# `spawn` 工作进程送来的是什么？先写下你的预测，再运行单元格。

# %% tags=["predict", "claim:PL-03", "claim:PL-04", "claim:PL-06"]
import squares

my_guess = ...  # [0, 1, 4, 9] or [0, 10, 40, 90]

squares.FACTOR = 10
delivered, read = {}, {}
for method in methods:
    read[method] = MarkedSquares()
    loading = {"batch_size": None, "num_workers": 1, "multiprocessing_context": method}
    loader = DataLoader(read[method], **loading)
    delivered[method] = [int(sample) for sample in loader]
    print(f"{method:<10}", delivered[method])
exercises.predict(my_guess, torch=delivered["spawn"])

# %% [markdown] lang="en"
# All methods deliver: what is pickled by its name can be imported now. But the numbers differ, without any error. The fresh Python
# imported `squares` anew and found `FACTOR = 1`. Only the clone knew about your change.
# The way out: a setting belongs in the dataset object, because objects travel with their values.
#
# `MarkedSquares` left four marks in a tensor and four in an array. How many does the main process see?

# %% [markdown] lang="zh"
# 这次所有方式都送到了：pickle 只写名字，而这个名字现在能导入。但数字却不同，也没有报错。
# 全新的 Python 重新导入了 `squares`，看到的是 `FACTOR = 1`。只有克隆知道你的改动。
# 出路：设置应当放进数据集对象，因为对象带着自己的值一起走。
#
# `MarkedSquares` 在张量里留下四个记号，在数组里也留下四个。主进程看得到几个？

# %% tags=["predict", "claim:PL-03"]
my_guess = ...  # marks seen after spawn, for example [0, 0]: in the tensor, in the array

marks = {method: [int(one.tensor.sum()), int(one.array.sum())] for method, one in read.items()}
print("marks that the main process sees, in the tensor and in the array")
for method, seen in marks.items():
    print(f"{method:<10}", seen)
exercises.predict(my_guess, torch=marks["spawn"])

# %% [markdown] lang="en"
# A clone writes into its own copy of the memory: no marks. An array is copied into the parcel: no marks.
# But torch teaches the loader's pickle a trick: a **tensor** is moved to shared memory, and only a handle travels.
# Under `spawn` and `forkserver` all workers and the main process look at the same numbers. A worker that changes them
# changes them for all.
#
# ## The script that runs twice
#
# In a script, a spawned worker first runs the script itself again, under another name, to find your classes. The main guard,
# `if __name__ == "__main__":`, decides what is left out. Four small scripts, run for real; all but the last start a worker by hand,
# without torch.

# %% [markdown] lang="zh"
# 克隆写进自己那份内存：没有记号。数组抄进了包裹：没有记号。
# 但 torch 教了加载器的 pickle 一招：**张量**移进共享内存（shared memory），传过去的只是一个句柄。
# 在 `spawn` 和 `forkserver` 下，所有工作进程和主进程看的是同一批数。一个工作进程改了，大家都变。
#
# ## 运行两遍的脚本
#
# 在脚本里，spawn 出来的工作进程先把脚本再运行一遍，只是换了名字。它这样找到你的类。
# 哪些不再运行，由主程序保护（main guard，即 `if __name__ == "__main__":`）决定。四个小脚本，真实运行；
# 除最后一个外，都不用 torch，手动启动一个工作进程。

# %% tags=["claim:PL-04", "claim:PL-05"]
guarded = """
import multiprocessing
print("top level runs as", __name__, flush=True)

if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=abs, args=[-1])
    worker.start()
    worker.join()
    print("exit code", worker.exitcode)
"""
unguarded = guarded.replace('if __name__ == "__main__":', "if True:")
loader = """
from torch.utils.data import DataLoader
print("top level runs as", __name__, flush=True)

print(len(DataLoader(range(2))), "batches without workers")
spawned = DataLoader(range(2), num_workers=1, multiprocessing_context="spawn")
print(len(list(spawned)), "batches with one")
"""
scripts = {"guard, spawn": guarded, "no guard, spawn": unguarded}
if "fork" in methods:
    scripts["no guard, fork"] = unguarded.replace('"spawn"', '"fork"')
scripts["no guard, spawn, a loader"] = loader

rows = []
with tempfile.TemporaryDirectory() as folder:
    for name, text in scripts.items():
        Path(folder, f"{name}.py").write_text(text, encoding="utf-8")
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    running = {}
    for name in scripts:
        running[name] = subprocess.Popen([sys.executable, f"{name}.py"], **settings)
    for name, process in running.items():
        out, err = process.communicate()
        last = (err if process.returncode else out).strip().splitlines()[-1]
        last = re.sub(r"\(pid\(s\) [\d, ]+\) ", "", last)
        complaint = re.search("An attempt has been made to start a new process", err)
        ran_as = re.findall(r"runs as (\w+)", out)
        row = {"script": name, "its top level ran as": ran_as, "last line": last}
        rows.append({**row, "higher up": complaint and complaint[0]})
facts.Table("scripts", rows)

# %% [markdown] lang="en"
# Without the guard, the second run wants to start a worker of its own. Python stops it and the worker dies, with exit code 1.
# All that a loader knows then is "exited unexpectedly". The real reason stands higher up in the output. Under `fork` the mistake
# stays hidden until the script meets another system.
#
# ## Explore: what a start costs
#
# Each run starts real workers on real digits.
#
# Two things to change: set `workers` to 2 and press Run. Does `spawn` take twice as long? Then set `dataset` to `notebook class` and
# press Run. Which methods serve it?

# %% [markdown] lang="zh"
# 没有保护，第二遍运行又想启动自己的工作进程。Python 拦住它，工作进程死掉，退出码是 1。
# 加载器这时只知道 “exited unexpectedly”。
# 真正的原因在输出里更靠上的位置。在 `fork` 下这个错误一直藏着，直到脚本换了系统。
#
# ## 动手探索：启动要花多少时间
#
# 每次运行都让真实的工作进程读真实的数字图像。
#
# 试着改两处：把 `workers` 改成 2，按 Run：`spawn` 要花两倍时间吗？再把 `dataset` 改成 `notebook class`，按 Run：哪些方式能用它？

# %% tags=["explore"]
datasets_to_try = {
    "digits": lambda: Subset(datasets.digits("train"), range(4)),
    "importable class": MarkedSquares,
    "notebook class": Squares,
    "lambda inside": Sealed,
}


def start(dataset, workers):
    return trace.start_methods(datasets_to_try[dataset](), methods, num_workers=workers)


widgets.explore(start, pictures.bars, run="button", dataset=list(datasets_to_try), workers=[1, 2])

# %% [markdown] lang="en"
# The bars are measured. A clone costs almost nothing. A fresh Python imports torch again: seconds, for every worker of
# every epoch, unless you set `persistent_workers=True`. `forkserver` is quick here because the set-up cell gave it torch.
#
# ## Exercise 1: your own X-ray
#
# Replace the `...` and run both cells. Your answer is compared with real parcels of functions, classes, arrays,
# lambdas and locks.

# %% [markdown] lang="zh"
# 条形的长短是测出来的。克隆几乎不花时间。全新的 Python 要重新导入 torch：每轮（epoch）、每个工作进程都要几秒，
# 除非你设置 `persistent_workers=True`。这里的 `forkserver` 快，是因为准备单元格已经给了它 torch。
#
# ## 练习 1：你自己的 X 光检查
#
# 把 `...` 换成你的代码，然后运行这两个单元格。你的答案要与函数、类、数组、lambda 和锁的真实结果对照。


# %% tags=["exercise:10_how_it_travels"]
def how_it_travels(thing):
    """Say "by reference" (only the name travels), "by value" (a copy arrives) or "refused"."""
    ...


# solution
def how_it_travels(thing):
    try:
        arrived = pickle.loads(pickle.dumps(thing))
    except Exception:
        return "refused"
    return "by reference" if arrived is thing else "by value"


# %% tags=["check"]
exercises.check("10_how_it_travels", how_it_travels)  # stuck? exercises.hint("10_how_it_travels")

# %% [markdown] lang="en"
# ## Exercise 2: a collate function with a setting
#
# A function made inside a function is the usual way to remember a setting. It cannot be pickled. Write a `make_scaler` whose result
# can. (To serve workers from a notebook, its class belongs in an importable cell.)

# %% [markdown] lang="zh"
# ## 练习 2：带设置的整理函数
#
# 要记住一个设置，常见的写法是在函数里再造一个函数，但它不能序列化。写一个 `make_scaler`，让它的返回值能序列化。
# （要在笔记本里供工作进程使用，它的类要写进可导入的单元格。）


# %% tags=["exercise:10_scaler"]
def make_scaler(factor):
    """make_scaler(10) collates [1, 2] to tensor([10, 20]), after pickle too."""
    ...


# solution
class Scaler:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, samples):
        return default_collate(samples) * self.factor


def make_scaler(factor):
    return Scaler(factor)


# %% tags=["check"]
exercises.check("10_scaler", make_scaler)  # stuck? exercises.hint("10_scaler")

# %% [markdown] lang="en"
# ## After one look
#
# `Late` opens its SQLite file at the first read, so a fresh object travels well. You look at one sample, as everybody does.
# Can you still start a `spawn` worker? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 看了一眼之后
#
# `Late` 到第一次读取才打开 SQLite 文件，所以刚建好的对象传得过去。你和所有人一样，先看了一个样本。
# 还能启动 `spawn` 工作进程吗？先写下你的预测，再运行单元格。

# %%
# %%importable late
import sqlite3

from torch.utils.data import Dataset


class Late(Dataset):
    def __init__(self, path):
        self.path, self.connection = path, None

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.connection is None:
            self.connection = sqlite3.connect(self.path)
        query = "SELECT label FROM digits ORDER BY key LIMIT 1 OFFSET ?"
        return self.connection.execute(query, [index]).fetchone()[0]


# %% tags=["predict"]
my_guess = ...  # "yes" or "no"

with tempfile.TemporaryDirectory() as folder:
    shelf = Late(str(datasets.write_sqlite(Path(folder, "digits.sqlite"), "test")))
    print(trace.pickled(fresh=shelf))
    print("\nthe first label is", shelf[0], "\n")
    peeked = trace.start_methods(shelf, ["spawn"])
    shelf.connection.close()
print(peeked)
exercises.predict(my_guess, torch="no" if peeked.rows()[0]["batches"] is None else "yes")

# %% [markdown] lang="en"
# The open connection sits in the object now, and pickle refuses it. The line that breaks the loader is a harmless
# `shelf[0]` far away.
#
# ## Exercise 3: leave the connection at home
#
# An object may say what travels: `__getstate__` returns the values to pickle. Mend `Late`. The object that stays
# must keep its connection. (To serve workers from a notebook, `Reader` itself belongs in an importable cell.)

# %% [markdown] lang="zh"
# 打开的连接现在就在对象里，pickle 拒绝它。弄坏加载器的那一行，是远处一句无害的 `shelf[0]`。
#
# ## 练习 3：把连接留在家里
#
# 对象可以自己说带什么走：`__getstate__` 返回要序列化的值。改好 `Late`。留下来的那个对象必须保住自己的连接。
# （要在笔记本里供工作进程使用，`Reader` 自己也要写进可导入的单元格。）


# %% tags=["exercise:10_reader"]
class Reader(Late):
    """Like Late, but it travels at any time, and each process opens its own connection."""

    ...


# solution
class Reader(Late):
    def __getstate__(self):
        return {**self.__dict__, "connection": None}


# %% tags=["check"]
exercises.check("10_reader", Reader)  # stuck? exercises.hint("10_reader")

# %% [markdown] lang="en"
# ## Bug hunt
#
# All four lines of the next cell stand at the top level of a module, as the notes ask. One of the four objects cannot travel to a
# worker all the same. Which line makes it? The cell after it proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 下面单元格里的四行都写在模块顶层，正如笔记所要求的。可是其中一行造出的对象仍然传不到工作进程。是哪一行？再下一个单元格会给出证明。

# %%
# %%importable habits
import collections
import functools
from operator import itemgetter

first = itemgetter(0)  # line 1
half = functools.partial(round, ndigits=1)  # line 2
names = collections.defaultdict(list)  # line 3
Pair = collections.namedtuple("Sample", "image label")  # line 4

# %% tags=["bug-hunt", "claim:PL-06"]
my_guess = ...  # 1, 2, 3 or 4

lines = trace.pickled(line_1=first, line_2=half, line_3=names, line_4=Pair)
print(lines)
exercises.predict(my_guess, torch=[row["travels"] for row in lines.rows()].index("refused") + 1)

# %% [markdown] lang="en"
# `Pair` stands at the top level, but the class calls itself `Sample`, and the module has nothing of that name. The parcel needs a
# **name** that leads back to the thing. Top level is the means; a name that can be found is the end.

# %% [markdown] lang="zh"
# `Pair` 在顶层，可这个类自称 `Sample`，而模块里没有叫这个名字的东西。包裹里需要一个能找回原物的**名字**。
# 顶层只是手段，找得到的名字才是目的。

# %% [markdown] lang="en"
# ## Recap
#
# `fork` clones; `spawn` and `forkserver` start afresh and get your dataset through pickle. Pickle carries values, and of
# functions and classes only names. So: names that can be imported, settings inside the object, connections left at home,
# scripts with a guard.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Can't get attribute 'Squares' on` | a class of a notebook cell | Wrong first |
# | `DataLoader worker exited unexpectedly` | the worker died; the reason stands higher up | Wrong first |
# | `An attempt has been made to start a new process` | a script without a main guard | The script that runs twice |
# | `a lambda cannot be imported by name` (Python: `Can't pickle ...`) | a lambda, on its own or inside | Nothing travels under fork |
# | `cannot be imported by name` | a class that calls itself by another name | Bug hunt |
# | `a sqlite3.Connection cannot be pickled` | an open connection in the dataset | After one look |
# | no message, other numbers | a global changed at run time | The cell that everybody can import |
#
# What next: lesson [11](11_randomness.ipynb), which random numbers repeat.

# %% [markdown] lang="zh"
# ## 小结
#
# `fork` 克隆；`spawn` 和 `forkserver` 从头开始，通过 pickle 得到你的数据集。pickle 搬运值；对函数和类，它只搬名字。
# 所以：名字要能导入，设置放进对象，连接留在家里，脚本加上保护。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Can't get attribute 'Squares' on` | 单元格里的类 | 先看错误 |
# | `DataLoader worker exited unexpectedly` | 工作进程死了，原因在更靠上的输出里 | 先看错误 |
# | `An attempt has been made to start a new process` | 脚本没有主程序保护 | 运行两遍的脚本 |
# | `a lambda cannot be imported by name`（Python 的原话：`Can't pickle ...`） | lambda，单独出现或藏在里面 | fork 什么也不用搬 |
# | `cannot be imported by name` | 类自称的名字是另一个 | 找错 |
# | `a sqlite3.Connection cannot be pickled` | 数据集里有打开的连接 | 看了一眼之后 |
# | 没有报错，数字不同 | 运行途中改了全局变量 | 谁都能导入的单元格 |
#
# 下一步：第 [11](11_randomness.ipynb) 课，哪些随机数会重复。

# %%
exercises.progress("10")
