# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Splitting a dataset", zh: "拆分数据集"}
#     sections: ["000: 6. Else"]
#     minutes: 45
# ---

# %% [markdown] lang="en"
# # 13 · Splitting a dataset
#
# **You will be able to** predict the lengths of a random split, repeat it exactly, and keep test samples out of training when data grows.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [02](02_map_datasets.ipynb) and [04](04_samplers.ipynb) | 45 | 6. Else | [简体中文](../zh/13_splits.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 13 · 拆分数据集
#
# **学完本课，你能够**：预测随机拆分得到的长度，原样重复一次拆分，并在数据变多时让测试样本不混进训练集。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [02](02_map_datasets.ipynb)、[04](04_samplers.ipynb) 课 | 45 | 6. Else | [English](../en/13_splits.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
import dataclasses
import inspect
import itertools
import math
import warnings
import zlib

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, random_split

from tutorlib import datasets, exercises, facts, pictures, widgets

digits = datasets.digits("train")
print("ready:", len(digits), "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# The notes say: give `random_split` a list of fractions that add up to 1.
# Two tenths, four tenths, three tenths and one tenth. Run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 笔记说：给 `random_split` 一个和为 1 的比例列表。
# 十分之二、十分之四、十分之三、十分之一。运行这个单元格。

# %% tags=["raises-exception", "wrong-first", "claim:SP-05"]
shares = np.array([2, 4, 3, 1]) / 10
print("shares:", shares.tolist())
random_split(range(100), shares)

# %% [markdown] lang="en"
# ## The idea
#
# `random_split` takes **lengths** or **fractions**. It adds the numbers up. A sum that is close to 1 and **not above it** means fractions.
# Any other sum means lengths, and those must give `len(dataset)`. So 1.0000000000000002 is read as a length, and the message speaks of lengths.
#
# NumPy's numbers are added one by one. So are Python's own up to Python 3.11; from 3.12 on `sum` is more exact, and the plain list
# `[0.2, 0.4, 0.3, 0.1]` passes there.

# %% [markdown] lang="zh"
# ## 概念
#
# `random_split` 接受**长度**或**比例**。它先把这些数加起来。和接近 1 且**不超过** 1，就当作比例；
# 否则当作长度，而长度之和必须等于 `len(dataset)`。所以 1.0000000000000002 被当成了长度，报错信息说的也是长度。
#
# NumPy 的数是逐个相加的。到 Python 3.11 为止，Python 自己的浮点数也一样；自 3.12 起 `sum` 更精确，
# 普通列表 `[0.2, 0.4, 0.3, 0.1]` 在那里能通过。


# %% tags=["claim:SP-05"]
def lengths_of(size, shares):
    try:
        return [len(part) for part in random_split(range(size), shares)]
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


tries = [np.array([2, 4, 3, 1]) / 10, np.array([1, 2, 3, 4]) / 10, np.array([0.333, 0.333, 0.333])]
for shares in tries:
    print("added one by one:", *itertools.accumulate(shares.tolist()))
facts.Table(
    "100 samples",
    [
        {
            "given": shares.tolist(),
            "math.fsum": math.fsum(shares),
            "lengths": lengths_of(100, shares),
        }
        for shares in [*tries, np.array([20, 40, 30, 10])]
    ],
)

# %% [markdown] lang="en"
# The same four shares pass in another order. Whole numbers have no such trouble: give lengths, not fractions.
#
# ## The signature
#
# The notes write `random_split(dataset, generator)`. Call it like that:

# %% [markdown] lang="zh"
# 同样四个比例，换个顺序就通过了。整数没有这种麻烦：给长度，不要给比例。
#
# ## 签名
#
# 笔记写的是 `random_split(dataset, generator)`。照这样调用：

# %% tags=["claim:SP-01"]
print("parameters:", list(inspect.signature(random_split).parameters))
print(lengths_of(10, torch.Generator()))

# %% [markdown] lang="en"
# `lengths` is missing in the notes, and the generator landed in its place.
#
# ## What comes out
#
# Three and seven of ten, with a seeded generator, as in the notes:

# %% [markdown] lang="zh"
# 笔记漏掉了 `lengths`，生成器就占了它的位置。
#
# ## 得到什么
#
# 和笔记一样：十个样本拆成三个和七个，用设好种子的生成器：


# %% tags=["claim:SP-02"]
def seeded(seed):
    return torch.Generator().manual_seed(seed)


def split(data, lengths, seed=42):
    return [list(part) for part in random_split(data, lengths, generator=seeded(seed))]


once, again, other = (
    split(range(10), [3, 7]),
    split(range(10), [3, 7]),
    split(range(10), [3, 7], seed=7),
)
print("seed 42:", once, "| again the same:", again == once)
print("seed 7: ", other)
print("every sample once:", sorted(itertools.chain(*once)) == list(range(10)))

# %% [markdown] lang="en"
# ## One generator, two splits
#
# A seeded generator makes a split repeatable. Here one generator is made, seeded once, and used for two splits.
# Are the two splits equal? Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 一个生成器，拆分两次
#
# 设好种子的生成器使拆分可复现。这里只创建一个生成器，设一次种子，用它拆分两次。
# 两次拆分相等吗？先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。

# %% tags=["predict", "claim:SP-02"]
my_guess = ...  # True or False

generator = seeded(42)
first = [part.indices for part in random_split(range(10), [3, 7], generator=generator)]
second = [part.indices for part in random_split(range(10), [3, 7], generator=generator)]
print(first, second, sep="\n")
exercises.predict(my_guess, torch=first == second)

# %% [markdown] lang="en"
# A generator moves on with every draw. Make a new one for each split, and store its seed. Without `generator` the global one is
# used, and then the split depends on everything that was drawn before: a new layer in the model moves the test samples.
#
# ## Fractions to lengths
#
# Half, 29 hundredths, 21 hundredths, of 100 samples. Which lengths?

# %% [markdown] lang="zh"
# 生成器每抽一次数就向前走一步。每次拆分都新建一个，并把种子存下来。不给 `generator` 就用全局的那个，
# 拆分于是取决于之前抽过的一切数：模型里多加一层，测试样本就换了。
#
# ## 从比例到长度
#
# 100 个样本，二分之一、百分之二十九、百分之二十一。长度各是多少？

# %% tags=["predict", "claim:SP-04"]
my_guess = ...  # for example [50, 29, 21]

print("100 * 0.29 =", 100 * 0.29)
exercises.predict(my_guess, torch=lengths_of(100, [0.5, 0.29, 0.21]))

# %% [markdown] lang="en"
# Each length is `floor(fraction * len)`, and 28.999999999999996 becomes 28. What is left over goes out one by one, **from the first
# subset on**. So the first one gets the sample that the second one lost.

# %% [markdown] lang="zh"
# 每个长度是 `floor(比例 * len)`，28.999999999999996 就成了 28。余数**从第一个子集开始**，一个一个发下去。
# 于是第二个子集丢掉的样本给了第一个。

# %% tags=["claim:SP-03", "claim:SP-04"]
cases = [
    (30, [0.3, 0.3, 0.4]),
    (10, [1 / 3] * 3),
    (11, [0.25] * 4),
    (100, [0.5, 0.29, 0.21]),
    (10, [0.9, 0.09, 0.01]),
]
rows = []
for size, shares in cases:
    # The table shows what was said: on its own a warning shows a path.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lengths = lengths_of(size, shares)
    floors = [math.floor(size * share) for share in shares]
    rows.append(
        {
            "samples": size,
            "shares": shares,
            "floors": floors,
            "lengths": lengths,
            "warnings": len(said),
        }
    )
print("a warning:", said[0].message)
facts.Table("floors, then the rest from the first subset on", rows)

# %% [markdown] lang="en"
# The last row asked for 90%, 9% and 1%. It got everything, nothing and nothing, with a warning for each empty subset. Nothing stops.
#
# ## One more sample
#
# 1437 digits, 20% for the test, seed 42: 287 test samples. Next week **one** digit is added at the end. You split again, same seed.
# How many of the 287 are still test samples?

# %% [markdown] lang="zh"
# 最后一行要的是 90%、9% 和 1%，得到的是全部、零个和零个。每个空的子集只有一条警告，程序照常往下走。
#
# ## 多一个样本
#
# 1437 个数字样本，20% 用作测试，种子 42：287 个测试样本。下周末尾添了**一个**样本，你用同样的种子再拆一次。
# 那 287 个里，还有多少仍是测试样本？


# %% tags=["predict", "claim:SP-02"]
def test_set(size):
    return set(random_split(range(size), [0.8, 0.2], generator=seeded(42))[1].indices)


my_guess = ...  # a number up to 287

before, after = test_set(1437), test_set(1438)
print("test samples:", len(before), "| now in training:", len(before - after))
exercises.predict(my_guess, torch=len(before & after))

# %% [markdown] lang="en"
# About what chance leaves: a fifth. A model that was trained before knows most of the new test set, and its score is worth nothing.
# The seed repeats a split of **the same length** only. Here are 25 samples, and then 26: not one of the 5 test samples (B) stays.

# %% [markdown] lang="zh"
# 只剩下碰巧留下的约五分之一。此前训练过的模型已经见过新测试集的大部分，它的分数不再有意义。
# 种子只能重复**同样长度**的拆分。下面先是 25 个样本，再是 26 个：5 个测试样本（B）一个也没留下。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclasses.dataclass(frozen=True, repr=False)
class TwoSplits(facts.Facts):
    """Two splits of the same samples, as text and for `pictures.ruler`: sample -> subset."""

    first: dict
    second: dict

    def moved(self):
        return [sample for sample in self.first if self.first[sample] != self.second[sample]]

    def summary(self):
        moved = len(self.moved())
        return f"{len(self.first)} samples, of which {moved} went elsewhere the second time"

    def rows(self):
        return [
            {
                "subset": letter,
                "first split": sorted(s for s in self.first if self.first[s] == letter),
                "second split": sorted(s for s in self.second if self.second[s] == letter),
            }
            for letter in sorted(set(self.first.values()))
        ]

    def ruler(self):
        gone = set(self.moved())
        before = [{"text": self.first[s]} if s in self.first else None for s in sorted(self.second)]
        after = [
            {"text": self.second[s], "state": "different" if s in gone else ""}
            for s in sorted(self.second)
        ]
        return {
            "unit": "sample",
            "tracks": [
                {"name": "first split", "cells": before},
                {"name": "second split", "cells": after},
            ],
        }


# %%
def subset_of(size, shares, generator):
    parts = random_split(range(size), shares, generator=generator)
    return {
        sample: letter
        for letter, part in zip("ABC", parts, strict=False)
        for sample in part.indices
    }


TwoSplits(subset_of(25, [0.8, 0.2], seeded(42)), subset_of(26, [0.8, 0.2], seeded(42)))

# %% [markdown] lang="en"
# ## Explore: who went where
#
# Each picture is two real calls of `random_split`. Every column is a sample, its letter the subset; what changed sides carries a sign.
#
# Two things to change: set `second` to `same seed`; then to `same generator`, with `shares` of 0.5, 0.3, 0.2.

# %% [markdown] lang="zh"
# ## 动手探索：谁去了哪里
#
# 每张图都是 `random_split` 的两次真实调用。一列是一个样本，字母是它所在的子集；换了边的带有记号。
#
# 试着改两处：把 `second` 改成 `same seed`；再改成 `same generator`，并把 `shares` 改成 0.5, 0.3, 0.2。


# %% tags=["explore"]
def twice(second, size, shares):
    generator = seeded(42)
    first = subset_of(size, shares, generator)
    more = size + (second == "one more sample")
    return TwoSplits(
        first, subset_of(more, shares, generator if second == "same generator" else seeded(42))
    )


def where(splits):
    return pictures.ruler(splits, title="Who went where")


widgets.explore(
    twice,
    where,
    second=["one more sample", "same seed", "same generator"],
    size=[25, 12, 30],
    shares={"0.8, 0.2": (0.8, 0.2), "0.5, 0.3, 0.2": (0.5, 0.3, 0.2)},
)

# %% [markdown] lang="en"
# ## A subset shares the dataset
#
# `Brighter` makes its images brighter when `augment` is on. It stands for any augmentation. You split the dataset, then switch `augment` on
# **for the training part** only. Does the validation part change too?

# %% [markdown] lang="zh"
# ## 子集共用数据集
#
# `Brighter` 在 `augment` 打开时把图像调亮，这里代表任意的数据增强（augmentation）。你拆分数据集，然后只想**为训练部分**打开 `augment`。
# 验证部分会跟着变吗？


# %% tags=["predict", "claim:SP-02"]
class Brighter(Dataset):
    def __init__(self, inner, augment=False):
        self.inner, self.augment = inner, augment

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        image, label = self.inner[index]
        return (image + 1 if self.augment else image), label


my_guess = ...  # True or False

train, val = random_split(Brighter(digits), [1100, 337], generator=seeded(42))
clean = val[0][0].mean().item()
train.dataset.augment = True
print(type(val).__name__, "| the same dataset inside:", val.dataset is train.dataset)
print(f"mean of validation image 0: {clean:.3f} before, {val[0][0].mean().item():.3f} after")
exercises.predict(my_guess, torch=val[0][0].mean().item() != clean)

# %% [markdown] lang="en"
# A `Subset` is the whole dataset plus a list of indices. It copies nothing, and it has none of the dataset's own attributes.
#
# The way out: split **indices**, then use them on two datasets.

# %% [markdown] lang="zh"
# `Subset` 就是整个数据集加上一个索引列表。它什么也不复制，也没有数据集自己的属性。
#
# 出路：拆分**索引**，再把它们放到两个数据集上。

# %% tags=["claim:SP-02"]
part = random_split(digits, [1100, 337], generator=seeded(42))[1]
try:
    part.labels
except AttributeError as error:
    print("AttributeError:", error)
print("labels of the first five:", part.dataset.labels[part.indices[:5]].tolist())

train = Subset(Brighter(digits, augment=True), train.indices)
val = Subset(Brighter(digits), val.indices)
print("mean of validation image 0 is clean:", val[0][0].mean().item() == clean)
inner, _ = random_split(val, [10, 327], generator=seeded(42))
first = inner.indices[:3]
into_digits = [val.indices[i] for i in first]
print("split twice, indices into the part:", first, "| into the digits:", into_digits)

# %% [markdown] lang="en"
# The last line: indices of a split of a split count inside the part. Do not use them on the whole dataset.
# And `random_split` does not look at labels: the shares of the classes differ by chance.
#
# ## Exercise 1: the lengths
#
# Say which lengths `random_split` will make of fractions, its float errors included. The check compares with torch on random cases.
# Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# 最后一行：拆分再拆分，索引是在那一部分里数的，不能直接用到整个数据集上。
# 另外，`random_split` 不看标签：各类别的比例会随机波动。
#
# ## 练习 1：长度
#
# 说出 `random_split` 会把比例变成哪些长度，连它的浮点误差也算进去。检查时会用随机的例子与 torch 比较。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:13_split_lengths"]
def split_lengths(size, shares):
    """split_lengths(100, [0.5, 0.29, 0.21]) is [51, 28, 21]."""
    ...


# solution
def split_lengths(size, shares):
    lengths = [math.floor(size * share) for share in shares]
    for extra in range(size - sum(lengths)):
        lengths[extra % len(lengths)] += 1
    return lengths


# %% tags=["check"]
exercises.check("13_split_lengths", split_lengths)  # stuck? exercises.hint("13_split_lengths")

# %% [markdown] lang="en"
# ## Exercise 2: a test set that stays
#
# Let the **key** of a sample decide, and nothing else: not the other samples, not a position, not the run. Then new data moves
# nobody. Turn the key (a text) into a number that looks random and is the same in every process, and compare it with the share.
# `zlib.crc32(b"some bytes")` gives a whole number below 2 ** 32.

# %% [markdown] lang="zh"
# ## 练习 2：不会变动的测试集
#
# 只让样本的**键**决定：不看别的样本，不看位置，不看是哪次运行。这样添了新数据，谁也不会换边。
# 把键（一段文本）变成一个看似随机、在每个进程里都相同的数，再与比例比较。
# `zlib.crc32(b"some bytes")` 给出一个小于 2 ** 32 的整数。


# %% tags=["exercise:13_in_test"]
def in_test(key, share):
    """True for about `share` of all keys; for one key the same answer always and everywhere."""
    ...


# solution
def in_test(key, share):
    return zlib.crc32(key.encode()) < share * 2**32


# %% tags=["check"]
exercises.check("13_in_test", in_test)  # stuck? exercises.hint("13_in_test")

# %% [markdown] lang="en"
# Photos of one person, or pages of one book: use the name of the person or the book as the key. Then near-copies stay on one side.
#
# ## Bug hunt
#
# Four statements in the style of the notes. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# 同一个人的照片、同一本书的页面：用人名或书名作键，近乎相同的样本就留在同一边。
#
# ## 找错
#
# 四条说法，写法与笔记相同。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:SP-03", "claim:SP-04"]
my_guess = ...  # 1, 2, 3 or 4

statements = {
    1: lengths_of(30, [0.3, 0.3, 0.4]) == [9, 9, 12],
    2: lengths_of(100, [0.57, 0.43]) == [57, 43],
    3: lengths_of(100, [0.43, 0.57]) == [43, 57],
    4: split(range(10), [3, 7]) == split(range(10), [0.3, 0.7]),
}
print("100 * 0.57 =", 100 * 0.57, "and 0.43 first gives", lengths_of(100, [0.43, 0.57]))
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# With 0.57 first, the rest goes back to where it was lost: right by luck.
#
# Statement 4 holds: the order is drawn first, then cut, so equal lengths give equal splits.

# %% [markdown] lang="zh"
# 0.57 排在第一时，余数正好补回丢掉的地方：碰巧算对了。
#
# 第 4 条成立：先抽出顺序，再切开，所以长度相同，拆分就相同。

# %% [markdown] lang="en"
# ## Recap
#
# Fractions are added and rounded down as floats, and the rest goes to the first subsets. A seed repeats a split of the same length
# only; a split by key survives new data. Subsets share one dataset.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Sum of input lengths does not equal the length of the input dataset!` | fractions whose sum is above 1, or far from it | Wrong first |
# | `'torch._C.Generator' object is not iterable` | `lengths` left out | The signature |
# | no message, another split | a generator used twice, or none | One generator, two splits |
# | no message, 51, 28, 21 | `floor` of a float | Fractions to lengths |
# | `Length of split at index 1 is 0` | a share smaller than one sample | Fractions to lengths |
# | no message, test samples in training | the dataset grew | One more sample |
# | no message, validation is augmented | both subsets share one dataset | A subset shares the dataset |
# | `'Subset' object has no attribute 'labels'` | attributes stay with the dataset | A subset shares the dataset |
#
# What next: lesson [14](14_image_folder.ipynb), a folder of pictures as a dataset.

# %% [markdown] lang="zh"
# ## 小结
#
# 比例按浮点数相加、向下取整，余数归前面的子集。种子只能重复同样长度的拆分；按键拆分不怕数据变多。子集共用一个数据集。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Sum of input lengths does not equal the length of the input dataset!` | 比例之和超过 1，或离 1 太远 | 先看错误 |
# | `'torch._C.Generator' object is not iterable` | 漏了 `lengths` | 签名 |
# | 没有报错，拆分变了 | 生成器用了两次，或没有给 | 一个生成器，拆分两次 |
# | 没有报错，51、28、21 | 对浮点数取 `floor` | 从比例到长度 |
# | `Length of split at index 1 is 0` | 比例不够一个样本 | 从比例到长度 |
# | 没有报错，测试样本进了训练集 | 数据集变长了 | 多一个样本 |
# | 没有报错，验证数据也被增强 | 两个子集共用一个数据集 | 子集共用数据集 |
# | `'Subset' object has no attribute 'labels'` | 属性留在数据集上 | 子集共用数据集 |
#
# 下一步：第 [14](14_image_folder.ipynb) 课，把图片文件夹当作数据集。

# %%
exercises.progress("13")
