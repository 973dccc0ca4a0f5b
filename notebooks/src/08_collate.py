# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Collate: how samples become a batch", zh: "整理：样本怎样变成批次"}
#     sections: ["000: 3.3 Working with collate_fn"]
#     minutes: 60
# ---

# %% [markdown] lang="en"
# # 08 · Collate: how samples become a batch
#
# **You will be able to** predict the type, shape and dtype of every batch, find the sample that breaks one, and write your
# own collate function.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [06](06_batching.ipynb) and [07](07_single_samples.ipynb) | 60 | 3.3 Working with collate_fn | [简体中文](../zh/08_collate.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 08 · 整理：样本怎样变成批次
#
# **学完本课，你能够**：预测每个批次的类型、形状和数据类型，找出让批次出错的样本，并写出自己的整理函数。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [06](06_batching.ipynb)、[07](07_single_samples.ipynb) 课 | 60 | 3.3 Working with collate_fn | [English](../en/08_collate.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% tags=["setup"]
import json
import pathlib
import tempfile
from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder

from tutorlib import collate, datasets, exercises, facts, pictures, widgets

digits = datasets.digits("train")
print("ready:", len(digits), "real digits")

# %% [markdown] lang="en"
# ## Wrong first
#
# The notes say: a value that cannot become a tensor is put into a list.
# Here is a folder with one picture of each digit. It gives PIL images, not tensors. Run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 笔记说：无法变成张量的值会放进列表。
# 这里有一个图片文件夹，每个数字一张图。读出来的是 PIL 图像，不是张量。运行这个单元格。


# %% tags=["raises-exception", "wrong-first", "claim:CO-10"]
room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = datasets.write_image_tree(pathlib.Path(room.name, "digits"), per_class=1)
photos = [image for image, label in ImageFolder(folder)]
next(iter(DataLoader(photos, batch_size=2)))

# %% [markdown] lang="en"
# ## The idea
#
# To **collate** is to turn a list of samples into one batch. `default_collate` looks at the **first** sample only,
# picks the rule for its type, and applies that rule to all samples:
#
# - tensor or array: stack; number: one tensor; `str` and `bytes`: leave alone;
# - dict, namedtuple, tuple, list: go inside and start again, one field at a time;
# - anything else, such as the images above: `TypeError`.
#
# Most surprises of this lesson come from the words "the first sample only". The **X-ray** below shows each field before and
# after, and the rule that fired.

# %% [markdown] lang="zh"
# ## 概念
#
# **整理**（collate）就是把一组样本变成一个批次（batch）。
# `default_collate` 只看**第一个**样本，按它的类型选一条规则，再用于所有样本：
#
# - 张量或数组：堆叠；数字：合成一个张量；`str` 和 `bytes`：原样保留；
# - 字典、具名元组（namedtuple）、元组、列表：走进去，对每个字段重新开始；
# - 其他任何东西，例如上面的图像：`TypeError`。
#
# 本课的意外大多来自“只看第一个样本”这几个字。下面的 **X 光图**列出每个字段整理前后的样子，以及生效的规则。

# %% tags=["claim:CO-11"]
collate.explain([digits[0], digits[1], digits[2]])

# %% [markdown] lang="en"
# ## When is `collate_fn` called, and with what?
#
# With automatic batching: once for each batch, with a list of samples. With `batch_size=None`: once for each sample.
# The default differs too.

# %% [markdown] lang="zh"
# ## 何时调用 `collate_fn`，参数是什么
#
# 开启自动成批时：每个批次调用一次，参数是样本的列表。`batch_size=None` 时：每个样本调用一次。
# 默认的整理函数也不同。


# %% tags=["claim:CO-01", "claim:CO-02"]
def called_with(**arguments):
    return list(DataLoader([10, 20, 30], collate_fn=lambda got: got, **arguments))


calls = [{"batch_size": 2}, {"batch_sampler": [[2, 0], [1]]}, {"batch_size": None}]
print("default_collate is public:", "default_collate" in torch.utils.data.__all__)
facts.Table(
    "three samples: 10, 20, 30",
    [
        {
            "arguments": ", ".join(f"{name}={value}" for name, value in call.items()),
            "collate_fn was called with": called_with(**call),
            "default collate_fn": DataLoader([10, 20, 30], **call).collate_fn.__name__,
        }
        for call in calls
    ],
)

# %% [markdown] lang="en"
# ## Tuple in, what comes out?
#
# A digit is a tuple `(image, label)`. The notes promise a tuple of two tensors; the X-ray says list.
# A **namedtuple** is a tuple too. Predict the type of a batch of `Point(x, y)` samples.
# Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 元组进去，出来的是什么
#
# 一个数字样本是元组 `(image, label)`。笔记承诺得到一个元组，含两个张量；X 光图说是列表。
# **具名元组**也是元组。样本是 `Point(x, y)` 时，预测批次的类型。
# 先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。

# %% tags=["predict", "claim:CO-06", "claim:CO-08"]
my_guess = ...  # "tuple", "list" or "Point"

batch = next(iter(DataLoader(digits, batch_size=4)))
images, labels = batch
print("a batch of digits is a", type(batch).__name__)
print("unpacking works:", tuple(images.shape), labels.tolist())

Point = namedtuple("Point", "x y")
points = default_collate([Point(1, 2), Point(3, 4), Point(5, 6)])
exercises.predict(my_guess, torch=type(points).__name__)

# %% [markdown] lang="en"
# Unpacking hides the list, `isinstance(batch, tuple)` does not. Which other containers are kept?

# %% [markdown] lang="zh"
# 解包时看不出是列表，`isinstance(batch, tuple)` 看得出来。还有哪些容器保得住自己的类型？

# %% tags=["claim:CO-05", "claim:CO-06", "claim:CO-07", "claim:CO-08"]
pairs = {
    "list": [[1, 2], [3, 4], [5, 6]],
    "tuple": [(1, 2), (3, 4), (5, 6)],
    "namedtuple": [Point(1, 2), Point(3, 4), Point(5, 6)],
    "dict": [{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}],
    "OrderedDict": [OrderedDict(x=x, y=x + 1) for x in (1, 3, 5)],
    "defaultdict": [defaultdict(int, x=x, y=x + 1) for x in (1, 3, 5)],
}
rows = []
for sample, samples in pairs.items():
    out = default_collate(samples)
    fields = out.values() if isinstance(out, dict) else out
    columns = [field.tolist() for field in fields]
    rows.append({"sample": sample, "batch": type(out).__name__, "columns": columns})
facts.Table("three samples of two fields", rows)

# %% [markdown] lang="en"
# Every row shows the same turn: three samples of two fields became two fields of three values. Only the plain tuple lost its
# type; torch's source calls that backwards compatibility.
#
# ## One more dimension in front
#
# Tensors, arrays and numbers gain a batch dimension, also where the batch is a single sample. Their shapes must agree,
# and so must the lengths of lists.

# %% [markdown] lang="zh"
# 每一行都是同样的翻转：三个样本、两个字段，变成两个字段、各三个值。只有普通元组丢了类型；torch 的源码称之为向后兼容。
#
# ## 最前面多一维
#
# 张量、数组和数字都多出一个批次维（batch dimension），批次里只有一个样本也一样。
# 它们的形状必须相同，列表的长度也必须相同。


# %% tags=["claim:CO-03", "claim:CO-04", "claim:CO-07", "claim:CO-09"]
def batched(samples):
    try:
        out = default_collate(samples)
    except (TypeError, RuntimeError) as error:
        return {"shape": type(error).__name__, "dtype or message": str(error).split(";")[0]}
    return {"shape": tuple(out.shape), "dtype or message": str(out.dtype)}


kinds = {
    "4 tensors (2, 3)": [torch.ones(2, 3)] * 4,
    "3 arrays (2,)": [np.ones(2, dtype=np.float32)] * 3,
    "1 array (2, 2)": [np.zeros((2, 2))],
    "2 NumPy numbers": [np.float32(1), np.float32(2)],
    "1 int": [3],
    "2 bools": [True, False],
    "2 complex": [1j, 2j],
    "tensors (2,) and (3,)": [torch.ones(2), torch.ones(3)],
    "lists of 1 and 2": [[1], [2, 3]],
    "array of strings": [np.array(["a", "b"])],
}
rows = [{"samples": name, **batched(samples)} for name, samples in kinds.items()]
facts.Table("what default_collate makes", rows)

# %% [markdown] lang="en"
# ## Same numbers, another order
#
# Two batches of the same two numbers, in two orders: `[1, 2.5]` and `[2.5, 1]`. Predict both dtypes.

# %% [markdown] lang="zh"
# ## 同样的数，换个顺序
#
# 两个批次，同样的两个数，顺序不同：`[1, 2.5]` 和 `[2.5, 1]`。预测两者的数据类型。


# %% tags=["predict", "claim:CO-04"]
def dtype_of(samples):
    return str(default_collate(samples).dtype).removeprefix("torch.")


my_guess = ...  # for example ["int64", "int64"]

exercises.predict(my_guess, torch=[dtype_of([1, 2.5]), dtype_of([2.5, 1])])

# %% [markdown] lang="en"
# The first sample decides. An `int` goes to `torch.tensor(batch)`, which makes float32 of mixed numbers.
# A `float` goes to `torch.tensor(batch, dtype=torch.float64)`.
#
# JSON writes `3` and `2.5` side by side. So the order of the data decides the dtype of each batch, and a shuffled loader
# changes it from step to step:

# %% [markdown] lang="zh"
# 第一个样本说了算。`int` 走 `torch.tensor(batch)`，混合的数字得到 float32。
# `float` 走 `torch.tensor(batch, dtype=torch.float64)`。
#
# JSON 里 `3` 和 `2.5` 常常并排出现。于是数据的顺序决定每个批次的数据类型；打乱顺序的加载器每一步都可能不同：

# %% tags=["claim:CO-04"]
weights = json.loads("[3, 2.5, 4, 1.5]")


def dtypes_in_order(order):
    batches = DataLoader(weights, batch_size=2, sampler=order)
    return [str(batch.dtype).removeprefix("torch.") for batch in batches]


def times_a_model(batch):
    try:
        return str((batch @ torch.ones(2)).item())
    except RuntimeError as error:
        return type(error).__name__


for pair in ([1, 2.5], [2.5, 1]):
    print(pair, "times float32 weights:", times_a_model(default_collate(pair)))
orders = ([0, 1, 2, 3], [1, 0, 3, 2], [0, 2, 1, 3])
rows = [
    {"order": [weights[i] for i in order], "dtypes": dtypes_in_order(order)} for order in orders
]
facts.Table("the same four numbers in batches of 2", rows)

# %% [markdown] lang="en"
# float64 meets the float32 weights of a model and fails, far from the place where it was made. The way out: decide in the
# dataset, for example `torch.tensor(value, dtype=torch.float32)`.
#
# ## Keys that differ
#
# The second digit carries a note. Which keys has the batch?

# %% [markdown] lang="zh"
# float64 遇到模型的 float32 权重就会报错，报错的地方离它产生的地方已经很远。
# 出路：在数据集里就定下来，例如 `torch.tensor(value, dtype=torch.float32)`。
#
# ## 键不一样时
#
# 第二个数字样本带着一条备注。批次里有哪些键？

# %% tags=["predict", "claim:CO-05"]
my_guess = ...  # for example ["image", "label", "note"]

plain = {"image": digits[0][0], "label": digits[0][1]}
noted = {"image": digits[1][0], "label": digits[1][1], "note": "smudged"}
exercises.predict(my_guess, torch=list(default_collate([plain, noted])))

# %% [markdown] lang="en"
# The first sample has no note, so nobody asks for one. The same two samples the other way round:

# %% [markdown] lang="zh"
# 第一个样本没有备注，于是没有人再问起它。同样的两个样本，换个顺序：

# %% tags=["raises-exception", "claim:CO-05"]
default_collate([noted, plain])

# %% [markdown] lang="en"
# A bare `KeyError`: no sample, no file, no hint that a batch was being made. With `shuffle=True` the same data loses a key
# in one epoch and stops in the next. You will mend that in exercise 3.
#
# ## What cannot be collated
#
# "Put into a list" holds for two types only.

# %% [markdown] lang="zh"
# 只有一个 `KeyError`：没说是哪个样本、哪个文件，也没说正在整理批次。
# `shuffle=True` 时，同样的数据这一轮（epoch）丢键，下一轮报错。练习 3 来修好它。
#
# ## 什么不能整理
#
# “放进列表”只对两种类型成立。


# %% tags=["claim:CO-10"]
def collated(samples):
    try:
        return str(default_collate(samples))
    except (TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).split(';')[0]}"


values = {
    "str": ["a", "b"],
    "bytes": [b"a", b"b"],
    "None": [None, None],
    "image": photos[:2],
    "path": [pathlib.PurePosixPath("0.png"), pathlib.PurePosixPath("1.png")],
    "set": [{1}, {2}],
    "None after an int": [3, None],
    "None after a float": [2.5, None],
}
rows = [{"samples": name, "default_collate": collated(two)} for name, two in values.items()]
facts.Table("two samples each", rows)

# %% [markdown] lang="en"
# `None` has three faces. As the first sample it is refused by its type. Later it meets the rule of another type, and the
# message no longer speaks of collating at all.
#
# The way out for a type of your own is a rule of your own. `with_rules` adds it to those of torch. Here `list` is the rule:
# the images of a batch stay a list.
#
# `fields` gives a key its own rule. With `keep` its values pass through, and stay where they are when the rest of the batch is moved
# (`to`; here the device `meta` stands for a GPU).

# %% [markdown] lang="zh"
# `None` 有三副面孔。排在第一个时，它因类型遭到拒绝；排在后面时，它碰上别的类型的规则，报错信息里连整理都不提了。
#
# 自己的类型，出路是自己的规则。`with_rules` 把它加到 torch 的规则里。这里的规则是 `list`：一个批次的图像仍是一个列表。
#
# `fields` 给一个键指定它自己的规则。用 `keep`，值原样通过；批次的其余部分搬走（`to`，这里用设备 `meta` 代表 GPU）时，它留在原处。

# %%
collate_photos = collate.with_rules({PIL.Image.Image: list})
pictures_of_batch, labels = collate_photos([(photos[0], 0), (photos[1], 1)])
print([picture.size for picture in pictures_of_batch], labels)

two = [{"image": digits[i][0], "size": torch.tensor([8, 8])} for i in (0, 1)]
moved = collate.to(collate.fields({"size": collate.keep})(two), "meta")
print("image on", moved["image"].device, "| sizes on", [size.device.type for size in moved["size"]])

# %% [markdown] lang="en"
# ## A bad sample
#
# One file of four cannot be read, and the dataset returns `None` for it. Two rules keep the count exact:
#
# - `skip_none` leaves it out, and says how many it kept and skipped;
# - `replace_none` puts the next good sample in its place, and the mask says which are real. The batch keeps its size.
#
# The labels of the four files are 1, 2, 3 and 4; the third cannot be read. Which labels has the batch of `replace_none`?

# %% [markdown] lang="zh"
# ## 一个坏样本
#
# 四个文件里有一个读不出来，数据集就返回 `None`。有两条规则能让计数保持准确：
#
# - `skip_none` 跳过它，并说明留下几个、跳过几个；
# - `replace_none` 用下一个好样本顶替它，掩码（mask）标出哪些是真的。批次大小不变。
#
# 四个文件的标签是 1、2、3、4，第三个读不出来。`replace_none` 得到的批次有哪些标签？

# %% tags=["predict"]
my_guess = ...  # a list, for example [1, 2, 3, 4]

read = [digits[0], digits[1], None, digits[3]]
skipped, replaced = collate.skip_none(read), collate.replace_none(read)
labels = skipped.batch[1].tolist()
print("skip_none:   ", labels, "| kept:", skipped.kept, "| skipped:", skipped.skipped)
print("replace_none:", replaced.batch[1].tolist(), "| real:", replaced.mask.tolist())
print(collate.bad_samples([skipped, replaced]), end="\n\n")
exercises.predict(my_guess, torch=replaced.batch[1].tolist())

# %% [markdown] lang="en"
# ## Lengths that differ
#
# Cut the blank columns off a digit, and digits have different widths: the 1 below has 5 columns, the 6 has 7. Each sample is now a sequence
# of columns, shape `(width, 8)`. `default_collate` refuses. There are five ways out:
#
# - `pad` fills up to the longest sample of this batch;
# - `flat` (one after the other, with offsets), `jagged` (a jagged nested tensor) and `packed` (a `PackedSequence`) store only what
#   is real;
# - `listed` gives up stacking.
#
# Each of them takes a list of samples, so each is a `collate_fn`. `uncollate(batch, rule)` goes back from a batch to the list of
# samples. In one line of the table it cannot. Which one, and why?

# %% [markdown] lang="zh"
# ## 长度不同
#
# 切掉数字两边的空白列，数字就有了不同的宽度：下面的 1 宽 5 列，6 宽 7 列。每个样本现在是一列列像素组成的序列，形状 `(width, 8)`。
# `default_collate` 拒绝整理。出路有五条：
#
# - `pad` 填充（padding）到本批次中最长的样本；
# - `flat`（首尾相接，另记偏移）、`jagged`（锯齿状张量，jagged tensor）和 `packed`（压紧序列，`PackedSequence`）只存真实数据；
# - `listed` 放弃堆叠。
#
# 它们都接受样本的列表，所以都可以当 `collate_fn`。`uncollate(batch, rule)` 从批次还原出样本的列表。
# 表里有一行还原不了。是哪一行，为什么？


# %%
def ink(image):
    """The columns of a digit from the first to the last that has ink, shape (width, 8)."""
    columns = image[0].T
    used = columns.sum(1).nonzero().flatten()
    return columns[used[0] : used[-1] + 1]


def line(pixels):
    return "".join(".-+#"[int(3 * pixel)] for pixel in pixels)


strokes = [ink(digits[i][0]) for i in (0, 1, 5)]
for row in range(8):
    print("    ".join(line(stroke[:, row]) for stroke in strokes))
print("widths:", [len(stroke) for stroke in strokes])
print(collated(strokes))


def way_back(rule):
    try:
        samples = collate.uncollate(rule(strokes), rule)
        return all(map(torch.equal, samples, strokes))
    except ValueError as error:
        return f"{type(error).__name__}: {str(error).split(':')[1].strip()}"


padded, offsets = collate.pad(mask=True)(strokes), collate.flat(strokes).offsets.tolist()
ways = {
    collate.pad: [padded.values],
    collate.pad(mask=True): [padded.values],
    collate.flat: [collate.flat(strokes).values],
    collate.jagged: [collate.jagged(strokes).values()],
    collate.packed: [collate.packed(strokes).data],
    collate.listed: collate.listed(strokes),
}
rows = []
for rule, tensors in ways.items():
    shapes, count = [tuple(one.shape) for one in tensors], sum(one.numel() for one in tensors)
    rows.append({"rule": rule, "tensors": shapes, "numbers": count, "way back": way_back(rule)})
mean_of_all, mean_of_real = padded.values.mean().item(), padded.values[padded.mask].mean().item()
print(f"mean of the padded batch: {mean_of_all:.3f} | of the real columns: {mean_of_real:.3f}")
print(f"offsets of flat: {offsets}")
facts.Table("three strokes, 18 columns of 8 pixels", rows)

# %% [markdown] lang="en"
# The two means differ: padding is not data. A padded batch needs its mask or its lengths; without them nobody can find the samples
# again, `uncollate` included.
#
# ## Where to look first
#
# The notes advise: if a batch surprises you, look at `collate_fn` first. It runs where the samples are read. With workers, it
# runs in a worker.
#
# Two strokes, 6 and 5 columns wide, then the same two in the other order. Does a worker give the same message for both orders?

# %% [markdown] lang="zh"
# 两个平均值不同：填充不是数据。填充过的批次需要掩码或长度；没有它们，谁也找不回样本，`uncollate` 也不行。
#
# ## 先看哪里
#
# 笔记建议：批次出乎意料时，先检查 `collate_fn`。它在读取样本的地方运行；有工作进程（worker）时，就在工作进程里运行。
#
# 两个样本，宽 6 列和 5 列；然后是同样的两个，顺序相反。两种顺序下，工作进程的报错信息相同吗？


# %% tags=["predict", "claim:CO-09", "claim:CO-11"]
def three_batches(workers):
    data = [ink(digits[i][0]) for i in (1, 2, 1, 0, 0, 1)]  # widths 6 and 6, 6 and 5, 5 and 6
    batches = iter(DataLoader(data, batch_size=2, num_workers=workers))
    yield f"a batch, in shared memory: {next(batches).is_shared()}"
    for _ in range(2):
        try:
            next(batches)
        except RuntimeError as error:
            yield str(error)
    next(batches, None)  # the end of the epoch lets the worker go


my_guess = ...  # True or False: the same message for both orders

in_main, in_worker = list(three_batches(0)), list(three_batches(1))
print("the worker's message begins:", in_worker[1].splitlines()[0])
print("default_collate stands in its traceback:", "in default_collate" in in_worker[1])
rows = [
    {"widths": widths, "made in": place, "outcome": told.splitlines()[-1].split(", but")[0]}
    for place, texts in (("main process", in_main), ("worker", in_worker))
    for widths, told in zip(([6, 6], [6, 5], [5, 6]), texts, strict=True)
]
print(facts.Table("two strokes to a batch", rows))
exercises.predict(my_guess, torch=rows[4]["outcome"] == rows[5]["outcome"])

# %% [markdown] lang="en"
# A worker stacks straight into shared memory. It reserves room for all numbers, 6 × 8 + 5 × 8 = 88, then asks for two of the
# **first** shape: 96 do not fit, 80 do. So "not resizable" and "equal size" are one mistake. Neither message names the field.
# The X-ray does.
#
# ## Explore: which rule, at which place?
#
# Every picture is one real call of a collate function. It starts with the note that vanished.
#
# Two things to change: set `function` to `strict`; then set `samples` to `widths differ` and `function` to `pad`.

# %% [markdown] lang="zh"
# 工作进程直接在共享内存里堆叠。它按数字总数留出空间：6 × 8 + 5 × 8 = 88。
# 然后要两份**第一个**样本的形状：96 放不下，80 放得下。所以 “not resizable” 和 “equal size” 是同一个错误。
# 两条信息都没说是哪个字段。X 光图会说。
#
# ## 动手探索：哪条规则，在哪个位置
#
# 每张图都是整理函数的一次真实调用。第一张就是那条消失的备注。
#
# 试着改两处：把 `function` 改成 `strict`；再把 `samples` 改成 `widths differ`，把 `function` 改成 `pad`。

# %% tags=["explore"]
samples_of = {
    "one has a note": [plain, noted],
    "image, label": [digits[0], digits[1], digits[2]],
    "widths differ": [{"ink": stroke, "label": 1} for stroke in strokes],
    "one label is None": [{"ink": strokes[0], "label": 1}, {"ink": strokes[0], "label": None}],
    "numbers": [{"point": (1, 2.5)}, {"point": (2.5, 1)}],
}
function_of = {
    "default_collate": default_collate,
    "strict": collate.strict,
    "pad": collate.with_rules({torch.Tensor: collate.pad}),
    "jagged": collate.with_rules({torch.Tensor: collate.jagged}),
    "listed": collate.listed,
}


def xray(samples, function):
    return collate.explain(samples_of[samples], function_of[function])


widgets.explore(xray, pictures.tree, samples=list(samples_of), function=list(function_of))

# %% [markdown] lang="en"
# `strict` is tutorlib's answer to "the first sample only": it looks at all samples, and its message names the sample and
# the field.
#
# ## Exercise 1: keep the tuples
#
# A namedtuple is a tuple too, and it must keep its type, as `default_collate` does. Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# `strict` 是 tutorlib 对“只看第一个样本”的回答：它看所有样本，报错信息会指出是哪个样本、哪个字段。
#
# ## 练习 1：保住元组
#
# 具名元组也是元组，它的类型同样要保住，`default_collate` 就是这样做的。把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:keep_tuples"]
def keep_tuples(samples):
    """Like default_collate, but a tuple stays a tuple, also inside tuples and dicts."""
    ...


# solution
def keep_tuples(samples):
    first = samples[0]
    if isinstance(first, tuple) and not hasattr(first, "_fields"):
        return tuple(keep_tuples(column) for column in zip(*samples, strict=True))
    if isinstance(first, dict):
        return {key: keep_tuples([sample[key] for sample in samples]) for key in first}
    return default_collate(samples)


# %% tags=["check"]
exercises.check("08_keep_tuples", keep_tuples)  # stuck? exercises.hint("08_keep_tuples")

# %% [markdown] lang="en"
# ## Exercise 2: your own padding
#
# Samples are tensors of shape `(length, width)`. Give one batch and the true lengths. The check compares with torch's
# `pad_sequence(samples, batch_first=True)` on random cases.

# %% [markdown] lang="zh"
# ## 练习 2：自己写填充
#
# 样本是形状 `(length, width)` 的张量。给出一个批次和真实的长度。检查时会用随机的例子与 torch 的
# `pad_sequence(samples, batch_first=True)` 比较。


# %% tags=["exercise:pad_rows"]
def pad_rows(samples):
    """(batch, lengths): zeros behind each sample, up to the longest of the batch; same dtype."""
    ...


# solution
def pad_rows(samples):
    lengths = [len(sample) for sample in samples]
    batch = samples[0].new_zeros(len(samples), max(lengths), samples[0].shape[1])
    for place, sample in zip(batch, samples, strict=True):
        place[: len(sample)] = sample
    return batch, torch.tensor(lengths)


# %% tags=["check"]
exercises.check("08_pad_rows", pad_rows)  # stuck? exercises.hint("08_pad_rows")

# %% [markdown] lang="en"
# ## Exercise 3: no key gets lost
#
# Samples are dicts. Refuse a batch whose keys differ from those of sample 0, and name the first such sample: `sample 1`,
# counted from 0.

# %% [markdown] lang="zh"
# ## 练习 3：一个键也不能丢
#
# 样本是字典。有样本的键与 0 号样本不同，就拒绝这个批次，并说出第一个这样的样本：`sample 1`，从 0 数起。


# %% tags=["exercise:same_keys"]
def same_keys(samples):
    """Like default_collate; ValueError("sample 1: ...") if its keys are not those of sample 0."""
    ...


# solution
def same_keys(samples):
    for number, sample in enumerate(samples):
        if sample.keys() != samples[0].keys():
            different = sorted(sample.keys() ^ samples[0].keys())
            raise ValueError(f"sample {number}: {different} not in every sample")
    return default_collate(samples)


# %% tags=["check"]
exercises.check("08_same_keys", same_keys)  # stuck? exercises.hint("08_same_keys")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements in the style of the notes. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法，写法与笔记相同。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:CO-06", "claim:CO-09", "claim:CO-10"]
my_guess = ...  # 1, 2, 3 or 4

files, labels = default_collate([("0.png", 0), ("1.png", 1)])
statements = {
    1: default_collate([3]).shape == (1,),
    2: default_collate([{"file": "0.png"}, {"file": "1.png"}]) == {"file": ["0.png", "1.png"]},
    3: files == ["0.png", "1.png"],
    4: type(default_collate([Point(1, 2)])) is Point,
}
print(files, labels)
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# Strings are left as the column came: a list out of dicts, a tuple out of tuples.

# %% [markdown] lang="zh"
# 字符串原样留在所在的列里：字典样本得到列表，元组样本得到元组。

# %% [markdown] lang="en"
# ## Recap
#
# `default_collate` looks at the first sample and treats the others alike. Only `str` and `bytes` are left as they are; what
# has no rule is a `TypeError`. Your own collate function is an ordinary function of a list of samples.
#
# | Message | Cause | Where |
# |---|---|---|
# | `batch must contain tensors, numpy arrays, numbers, dicts or lists` | `None`, an image, a path, a set | Wrong first |
# | no message, a list | a tuple went in | Tuple in, what comes out? |
# | no message, float64 | the first number is a `float` | Same numbers, another order |
# | no message, a key is missing | the first sample lacks it | Keys that differ |
# | `KeyError: 'note'` | a later sample lacks it | Keys that differ |
# | `Could not infer dtype of NoneType` | `None` behind an `int` | What cannot be collated |
# | `stack expects each tensor to be equal size` | lengths differ | Lengths that differ |
# | `Trying to resize storage that is not resizable` | lengths differ, in a worker | Where to look first |
#
# What next: lesson [09](09_workers.ipynb), what happens inside the workers.

# %% [markdown] lang="zh"
# ## 小结
#
# `default_collate` 看第一个样本，其余照样处理。只有 `str` 和 `bytes` 原样保留；没有规则的类型抛出 `TypeError`。
# 你自己的整理函数就是一个普通函数，参数是样本的列表。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `batch must contain tensors, numpy arrays, numbers, dicts or lists` | `None`、图像、路径、集合 | 先看错误 |
# | 没有报错，得到列表 | 样本是元组 | 元组进去，出来的是什么 |
# | 没有报错，float64 | 第一个数是 `float` | 同样的数，换个顺序 |
# | 没有报错，少了一个键 | 第一个样本没有它 | 键不一样时 |
# | `KeyError: 'note'` | 后面的样本没有它 | 键不一样时 |
# | `Could not infer dtype of NoneType` | `None` 排在 `int` 后面 | 什么不能整理 |
# | `stack expects each tensor to be equal size` | 长度不同 | 长度不同 |
# | `Trying to resize storage that is not resizable` | 长度不同，在工作进程里 | 先看哪里 |
#
# 下一步：第 [09](09_workers.ipynb) 课，工作进程里发生了什么。

# %%
exercises.progress("08")
