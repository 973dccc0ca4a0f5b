# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Start here", zh: "从这里开始"}
#     sections: []
#     minutes: 15
# ---

# %% [markdown] lang="en"
# # 00 · Start here
#
# **You will be able to** run a lesson, write a prediction and compare it with what torch does, and check an answer.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | Python, and to have seen a tensor | 15 | none | [简体中文](../zh/00_start.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 00 · 从这里开始
#
# **学完本课，你能够**：运行一课，写下预测并与 torch 的结果对照，检查一道题的答案。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 会 Python，见过张量 | 15 | 无 | [English](../en/00_start.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## What this is
#
# These lessons are about two things: how PyTorch brings samples to a model, and how a model is kept in a file.
# They started from course notes with [many statements](claims.md). Each statement was put to the test.
# Some hold, some have changed, some were never true. In every lesson you see which: the proof runs in front of you.
#
# Click the cell below and press **Shift+Enter**. It runs, and the next cell is selected.

# %% [markdown] lang="zh"
# ## 这是什么
#
# 这些课讲两件事：PyTorch 怎样把样本送到模型面前，模型又怎样存进文件。
# 它们从几份课程笔记出发，笔记里有[许多论断](claims.md)，每一条都经过检验。
# 有的成立，有的已改变，有的从未成立。每一课都会让你看到是哪一种，因为证明就在你眼前运行。
#
# 点一下下面的单元格，按 **Shift+Enter**。它会运行，然后选中下一个单元格。

# %% tags=["setup"]
import os

from torch.utils.data import DataLoader, Subset

from tutorlib import datasets, exercises, pictures, trace, widgets

digits = datasets.digits()
print("ready:", len(digits), "images of handwritten digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# Each lesson begins with something that goes wrong. Run the next cell. It ends in an error, as it should.
#
# Read an error from its **last line**: it names the kind of error, the argument and the value that torch found.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 每一课都从一个出错的地方开始。运行下一个单元格，它以报错结束，本该如此。
#
# 报错从**最后一行**读起：那里写着错误的种类、参数的名字和 torch 看到的值。

# %% tags=["raises-exception"]
DataLoader(digits, batch_size=0)

# %% [markdown] lang="en"
# ## Predict, run, compare
#
# A **loader** reads the samples of a dataset and hands them out in **batches**, several samples at a time.
# You learn most when you say first what you expect. Here one sample is one image: seven images, in batches of three.
# How long is each batch? Replace the `...` with your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 预测、运行、对照
#
# **加载器**（loader）读取数据集里的样本（sample），每次交出一个**批次**（batch），里面有若干个样本。
# 先说出你的预期，收获最大。这里一个样本就是一张图像：七张图像，每批三张。
# 每个批次各有几张？把 `...` 换成你的预测，再运行单元格。不写也可以，后面的单元格照常运行。

# %% tags=["predict"]
my_guess = ...  # your prediction, for example [3, 4]

lengths = [len(labels) for images, labels in DataLoader(Subset(digits, range(7)), batch_size=3)]
exercises.predict(my_guess, torch=lengths)

# %% [markdown] lang="en"
# The last batch is smaller. Nothing was thrown away and nothing was repeated.
#
# ## One true fact about this machine
#
# A loader can read with **workers**: other processes, beside the one that runs your cells.
# The next cell starts two of them and looks at the process ids that the samples bring along.

# %% [markdown] lang="zh"
# 最后一个批次小一些。没有样本被丢掉，也没有样本重复。
#
# ## 关于这台机器的一个事实
#
# 加载器可以借助**工作进程**（worker）读取：它们是另外的进程，不是运行单元格的那一个。
# 下一个单元格启动两个工作进程，并查看样本带回来的进程号。

# %%
run = trace.record(Subset(digits, range(8)), batch_size=2, num_workers=2)
processes = {fetch.pid for fetch in run.fetches}
print("processes that fetched samples:", len(processes))
print("this process among them:", os.getpid() in processes)
run

# %% [markdown] lang="en"
# ## Explore
#
# A picture in these lessons is a measurement. Each change of a control runs a real loader.
# The line above the picture and the table below it say the same as the picture.
#
# This one shows who did what, and in which order. It shows no seconds: each box is one step, and its number
# is the batch.
# To **collate** is to make one batch of several samples.
#
# Two things to change: set `batch_size` to 4, then set `shuffle` to `True`. The Tab key reaches every control.

# %% [markdown] lang="zh"
# ## 动手探索
#
# 这些课里的图都是测量结果。每动一次控件，都会运行一个真实的加载器。
# 图上方的一行文字、图下方的表格，与图说的是同样的事。
#
# 这张图画的是谁做了什么、先后怎样，不是秒数：每一格是一步，里面的数字是批次的编号。**整理**（collate）就是把若干样本做成一个批次。
#
# 试着改两处：把 `batch_size` 改成 4；再把 `shuffle` 改成 `True`。用 Tab 键可以走到每个控件。


# %% tags=["explore"]
def read(batch_size, shuffle):
    return trace.record(Subset(digits, range(12)), batch_size=batch_size, shuffle=shuffle)


widgets.explore(read, pictures.timeline, batch_size=[3, 4, 5], shuffle=[False, True])

# %% [markdown] lang="en"
# ## Exercise 1: how many steps?
#
# Write `steps`: the number of batches in one pass over the samples. Replace the `...` and run both cells.
# Stuck? Run `exercises.hint("00_steps")`. It gives one hint at a time.

# %% [markdown] lang="zh"
# ## 练习 1：一共几步
#
# 写出 `steps`：把样本读一遍需要几个批次。把 `...` 换成你的代码，然后运行这两个单元格。
# 卡住了？运行 `exercises.hint("00_steps")`，每次给一条提示。


# %% tags=["exercise:00_steps"]
def steps(samples, batch_size):
    """How many batches does a loader give for so many samples?"""
    ...


# solution
def steps(samples, batch_size):
    return -(-samples // batch_size)


# %% tags=["check"]
exercises.check("00_steps", steps)

# %% [markdown] lang="en"
# ## Bug hunt
#
# Each lesson has a short hunt: some lines, one of them wrong. `drop_last` is new here: guess what it does.
# Which line is not true? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 每一课都有一次找错：几行代码，其中一行不对。`drop_last` 第一次出现：猜猜它做什么。
# 哪一行不成立？单元格会给出证明。

# %% tags=["bug-hunt"]
my_guess = ...  # 1, 2 or 3

lines = {
    1: len(DataLoader(range(7), batch_size=3)) == 3,
    2: len(DataLoader(range(7), batch_size=3, drop_last=True)) == 3,
    3: len(DataLoader(range(6), batch_size=3, drop_last=True)) == 2,
}
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# `drop_last=True` drops the last batch when it is not full: 7 samples give 2 batches of 3.

# %% [markdown] lang="zh"
# 最后一个批次不满时，`drop_last=True` 把它丢掉：7 个样本只给出 2 个批次，每批 3 个。

# %% [markdown] lang="en"
# ## Recap
#
# Run cells from top to bottom. Predict before you run. Check what you wrote.
#
# | Message | Cause | Where |
# |---|---|---|
# | `batch_size should be a positive integer value` | `batch_size=0` | Wrong first |
#
# Your work is in your own copy of the lessons. Two commands for a terminal in the folder of the clone (on Windows `py` for `python3`):
# `python3 -m tutorlib reset 00` brings a lesson back to its start and keeps your version,
# `python3 -m tutorlib doctor` says whether this machine is ready. The [glossary](glossary.md) has the words of the course in both languages.
#
# What next: lesson [01](01_dataloader.ipynb), one class that does five jobs. The map below shows all lessons and your progress.

# %% [markdown] lang="zh"
# ## 小结
#
# 从上到下运行单元格。运行之前先预测。写完之后检查。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `batch_size should be a positive integer value` | `batch_size=0` | 先看错误 |
#
# 你写的内容都在你自己的工作副本里。下面两条命令在克隆所在文件夹的终端里运行（Windows 上用 `py` 代替 `python3`）：
# `python3 -m tutorlib reset 00` 让一课回到最初，并保留你的版本；
# `python3 -m tutorlib doctor` 告诉你这台机器是否就绪。[术语表](glossary.md)列出课程用词的中英文。
#
# 下一步：第 [01](01_dataloader.ipynb) 课，一个类做五件事。下面的地图列出所有课程和你的进度。

# %%
exercises.progress()
