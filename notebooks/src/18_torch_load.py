# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "torch.load: what a file may do, and what it must not", zh: "torch.load：文件能做什么，不能做什么"}
#     sections:
#       - "001: 1、需要掌握3个重要的函数"
#       - "001: 2.3 保存和加载整个模型 (已经训练完，无需继续训练)"
#       - "002: 保存&读取模型(torch.save&torch.load)"
#       - "004: 3. ... 2）（2）保存/加载整个模型"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 18 · torch.load: what a file may do, and what it must not
#
# **You will be able to** say what a checkpoint file holds without loading it, load files of strangers safely,
# and save only what will load tomorrow.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [16](16_state_dict.ipynb) and [17](17_save_load.ipynb) | 50 | Saving a whole model; torch.save and torch.load | [简体中文](../zh/18_torch_load.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 18 · torch.load：文件能做什么，不能做什么
#
# **学完本课，你能够**：不加载就说出检查点（checkpoint）文件里装了什么；安全地加载陌生人的文件；只保存明天还能加载的东西。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [16](16_state_dict.ipynb)、[17](17_save_load.ipynb) 课 | 50 | 保存整个模型；torch.save 与 torch.load | [English](../en/18_torch_load.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# `outcome` says how a call ended: the type of what came back, or the error.

# %% [markdown] lang="zh"
# ## 准备
#
# `outcome` 说明一次调用的结果：返回值的类型，或者报错的类型。

# %% tags=["setup"]
import argparse
import collections
import datetime
import inspect
import io
import pickle
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tutorlib import checkpoint, exercises, facts, pictures, widgets

# %load_ext tutorlib.cells
room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


def outcome(call, *args, **kwargs):
    try:
        return type(call(*args, **kwargs)).__name__
    except Exception as error:
        return type(error).__name__


model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
print("ready:", sum(p.numel() for p in model.parameters()), "parameters")

# %% [markdown] lang="en"
# ## Wrong first
#
# The notes save a whole model and load it back: `torch.save(model, PATH)`, then `torch.load(PATH)`.
# What does the second line give today? Predict: `"Sequential"`, or the name of an error.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 笔记保存整个模型，再读回来：`torch.save(model, PATH)`，然后 `torch.load(PATH)`。
# 第二行今天得到什么？预测：`"Sequential"`，或者某个错误的名字。

# %% tags=["wrong-first", "predict", "claim:SL-10"]
my_guess = ...  # "Sequential" or the name of an error

torch.save(model, folder / "whole.pt")
found = outcome(torch.load, folder / "whole.pt")
try:
    torch.load(folder / "whole.pt")
except pickle.UnpicklingError as error:
    print(str(error).split(".")[0], "...", re.search(r"Unsupported global: \S+ \S+", str(error))[0])
names = torch.serialization.get_unsafe_globals_in_checkpoint(folder / "whole.pt")
print("refused because it names:", *sorted(names), sep="\n  ")
with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.ReLU]):
    print("with these admitted by name:", outcome(torch.load, folder / "whole.pt"))
print("with weights_only=False:", outcome(torch.load, folder / "whole.pt", weights_only=False))
exercises.predict(my_guess, torch=found)

# %% [markdown] lang="en"
# ## The idea
#
# A file of `torch.save` is a zip archive. The numbers lie in it as plain bytes. The structure is a **pickle**: a small program
# that names functions and classes, and has them called. Whoever writes the file chooses the names.
#
# Since torch 2.6 `torch.load` admits a short list of names only (`weights_only=True`). A `state_dict` needs three of them.
# A whole model needs its classes, and they are not on the list.
#
# Torch's message proposes `weights_only=False`. That runs whatever the file names: do it with your own files only, or admit the
# classes by name (`safe_globals`), as above.
#
# `checkpoint.inspect` reads the structure and calls nothing. It also shows files that `load` refuses.

# %% [markdown] lang="zh"
# ## 概念
#
# `torch.save` 的文件是一个 zip 归档。数值以原始字节放在里面。结构则是一段 **pickle**：一个小程序，
# 它写出函数和类的名字，并要求调用它们。写哪些名字，由写文件的人决定。
#
# 从 torch 2.6 起，`torch.load` 只放行一张很短的名单（`weights_only=True`）。`state_dict` 只需要其中三个名字。
# 整个模型需要它的各个类，而这些类不在名单上。
#
# torch 的报错会建议 `weights_only=False`。那样会执行文件里写的一切：只对自己的文件这样做，或者像上面那样按名字放行（`safe_globals`）。
#
# `checkpoint.inspect` 只读结构，什么也不调用。`load` 拒绝的文件，它也能看。

# %%
torch.save(model.state_dict(), folder / "state.pt")
for name in ("state.pt", "whole.pt"):
    seen = checkpoint.inspect(folder / name)
    tensors, names, refused = len(seen.tensors), len(seen.globals), len(seen.refused)
    print(f"{name}: {tensors} tensors, names {names}, refused {refused}")
print(*checkpoint.inspect(folder / "state.pt").globals, sep="\n")

# %% [markdown] lang="en"
# ## A crafted file
#
# Here is a file with a program in it. `__reduce__` tells pickle what to call when the object is read: here `leave_a_mark`, which puts
# a word on the list `ran`. It could as well delete your files. We look at it, and we load it with the default. How many words are on the list then?

# %% [markdown] lang="zh"
# ## 一份动过手脚的文件
#
# 下面的文件里藏着程序。`__reduce__` 告诉 pickle：读这个对象时要调用什么。
# 这里是 `leave_a_mark`，它往列表 `ran` 里放一个词；换成删除你的文件也一样容易。
# 我们先查看它，再用默认方式加载它。这时列表里有几个词？

# %% tags=["predict"]
my_guess = ...  # a number

ran = []


def leave_a_mark(word):
    ran.append(word)


class Crafted:
    def __reduce__(self):
        return leave_a_mark, ("I was here",)


torch.save({"weight": torch.ones(2), "extra": Crafted()}, folder / "crafted.pt")
seen = checkpoint.inspect(folder / "crafted.pt")
print("inspect:", seen.summary())
print("torch.load:", outcome(torch.load, folder / "crafted.pt"))
print("checkpoint.load:", outcome(checkpoint.load, folder / "crafted.pt"))
exercises.predict(my_guess, torch=len(ran))

# %% [markdown] lang="en"
# Nothing ran. The notes write the signature as `torch.load(f, map_location=None, pickle_module=pickle)`. Is it still that?

# %% [markdown] lang="zh"
# 什么也没有运行。笔记里的签名是 `torch.load(f, map_location=None, pickle_module=pickle)`。今天还是这样吗？

# %% tags=["claim:SL-12"]
parameters = inspect.signature(torch.load).parameters.values()
rows = [
    {"parameter": p.name, "default": str(p.default)}
    for p in parameters
    if p.kind is not p.VAR_KEYWORD
]
facts.Table(
    "torch.load",
    [row | {"default": row["default"].replace(str(inspect.Parameter.empty), "-")} for row in rows],
)

# %% [markdown] lang="en"
# `pickle_module` defaults to `None` today. So you pass `pickle` yourself, as the notes say: "it must match the module used
# when saving". How many words are on the list after that?

# %% [markdown] lang="zh"
# 如今 `pickle_module` 默认是 `None`。于是你照笔记的话自己传入 `pickle`：“它必须与保存时所用的模块一致”。
# 之后列表里有几个词？

# %% tags=["predict", "claim:SL-15"]
my_guess = ...  # a number

print("whole model:", outcome(torch.load, folder / "whole.pt", pickle_module=pickle))
print("crafted file:", outcome(torch.load, folder / "crafted.pt", pickle_module=pickle))
print("on the list:", ran)
both = {"pickle_module": pickle, "weights_only": True}
print("and weights_only=True:", outcome(torch.load, folder / "whole.pt", **both))
exercises.predict(my_guess, torch=len(ran))

# %% [markdown] lang="en"
# **It ran.** `weights_only=None` counts as `True`, but only while no `pickle_module` is named. Naming one switches the protection off,
# without a word. Give both, and torch raises: the last line. Never pass a `pickle_module`. `checkpoint.load` has no such switch.
#
# ## What may be stored
#
# Ten values, each saved and loaded alone. How many do not come back?

# %% [markdown] lang="zh"
# **它运行了。** `weights_only=None` 相当于 `True`，但只在没有写 `pickle_module` 时如此。写出它，保护就悄悄关闭；
# 两个都写，torch 就报错（最后一行）。永远不要传 `pickle_module`。
# `checkpoint.load` 没有这样的开关。
#
# ## 能存哪些值
#
# 十个值，各自保存，再加载。有几个回不来？


# %% tags=["predict", "claim:SL-16"]
def back(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)


my_guess = ...  # 0 to 10

values = {
    "float": 0.5,
    "set": {1, 2},
    "torch.Size": torch.Size([2, 3]),
    "torch.dtype": torch.float32,
    "Counter": collections.Counter("aab"),
    "np.float64": np.float64(0.5),
    "np.ndarray": np.ones(2),
    "Path": Path("runs/1"),
    "date": datetime.date(2026, 1, 2),
    "Namespace": argparse.Namespace(lr=0.1),
}
rows = [{"value": name, "torch.load gives": outcome(back, value)} for name, value in values.items()]
print(facts.Table("saved, then loaded", rows))
exercises.predict(my_guess, torch=sum(row["torch.load gives"] == "UnpicklingError" for row in rows))

# %% [markdown] lang="en"
# All ten were saved without a complaint. One of the five bad ones is enough: **the whole file** is refused, weights and all.
# A loss averaged with NumPy is such a value. `checkpoint.save` refuses it at once, names its place, and says what to store.

# %% [markdown] lang="zh"
# 十个值都顺利存了进去。五个坏值里只要有一个，**整个文件**就被拒绝，连同权重。
# 用 NumPy 求平均的损失就是这样一个值。`checkpoint.save` 当场拒绝，指出位置，并说明该存什么。

# %%
history = [{"epoch": 0, "loss": np.mean([0.5, 0.25])}]
torch.save({"model": model.state_dict(), "history": history}, folder / "last.pt")
print("torch.load:", outcome(torch.load, folder / "last.pt"))
try:
    checkpoint.save(folder / "last.pt", model=model, history=history)
except checkpoint.CheckpointError as error:
    print(str(error).split(": ", 1)[1])
history = [{"epoch": 0, "loss": float(np.mean([0.5, 0.25]))}]
checkpoint.save(folder / "last.pt", model=model, history=history)

# %% [markdown] lang="en"
# ## The class must be there
#
# Suppose you trust the file. A whole model still stores only the *name* of its class. The next cell becomes a module, `my_nets`, as
# in lesson [10](10_start_methods.ipynb).

# %% [markdown] lang="zh"
# ## 类必须找得到
#
# 假设你信任这份文件。整个模型存下的也只是类的*名字*。下面的单元格成为一个模块 `my_nets`，
# 与第 [10](10_start_methods.ipynb) 课相同。

# %%
# %%importable my_nets
from torch import nn


class Net(nn.Linear):
    pass


# %% [markdown] lang="en"
# We save a `Net` in evaluation mode, then the module is gone: renamed, moved, another project.

# %% [markdown] lang="zh"
# 我们保存一个评估模式下的 `Net`，然后这个模块不见了：改了名，挪了地方，或换了项目。

# %% tags=["claim:SL-11"]
torch.save(Net(2, 1).eval(), folder / "net.pt")
print("in training mode after loading:", torch.load(folder / "net.pt", weights_only=False).training)
kept, sys.modules["my_nets"] = sys.modules["my_nets"], None  # as if the module were not there
print("without its module:", outcome(torch.load, folder / "net.pt", weights_only=False))
sys.modules["my_nets"] = kept
shapes = [entry.shape for entry in checkpoint.inspect(folder / "net.pt").tensors]
print("inspect needs no class:", shapes)

# %% [markdown] lang="en"
# A whole model keeps its mode, but not its code.
#
# ## Where from, and where to
#
# The notes want a file name or an object with a file descriptor. And `map_location`, which says where the tensors go
# (lesson [22](22_devices.ipynb)), should be a function or a dictionary. Both lists are too short. (The device `meta` holds shapes
# without values.)

# %% [markdown] lang="zh"
# 整个模型会带上模式，却不带代码。
#
# ## 从哪里读，放到哪里
#
# 笔记要求传入文件名，或者带文件描述符的对象。`map_location` 决定张量放到哪里（见第 [22](22_devices.ipynb) 课），
# 笔记说它应是函数或字典。这两张清单都太短。（设备 `meta` 只有形状，没有数值。）

# %% tags=["claim:SL-13", "claim:SL-14"]
path = folder / "state.pt"
memory = io.BytesIO(path.read_bytes())
print("BytesIO has a descriptor:", outcome(memory.fileno))
for name, source in {"str": str(path), "Path": path, "BytesIO": memory}.items():
    print(f"from {name}:", outcome(torch.load, source))

tags = set()


def function(storage, tag):
    tags.add(tag)
    return storage


for name, where in {
    "function": function,
    "dict": {"cpu": "cpu"},
    "str": "cpu",
    "torch.device": torch.device("cpu"),
    "str, no data": "meta",
}.items():
    print(f"map_location is a {name}:", torch.load(path, map_location=where)["0.weight"].device)
print("the function was told:", tags)

# %% [markdown] lang="en"
# ## A slice of a large tensor
#
# `big` has a million numbers of 4 bytes. We save three of them. How many bytes does the file store?

# %% [markdown] lang="zh"
# ## 大张量的一个切片
#
# `big` 有一百万个数，每个 4 字节。我们保存其中三个。文件里存了多少字节？

# %% tags=["predict"]
my_guess = ...  # a number of bytes

big = torch.zeros(1_000_000)
rows = []
for name, tensor in {"big[:3]": big[:3], "big[:3].clone()": big[:3].clone()}.items():
    torch.save({"head": tensor}, folder / "head.pt")
    seen = checkpoint.inspect(folder / "head.pt")
    bytes_of = {"shown": seen.tensors[0].bytes, "stored": seen.stored, "wasted": seen.wasted}
    rows.append({"saved": name} | bytes_of)
print(facts.Table("bytes", rows))
exercises.predict(my_guess, torch=rows[0]["stored"])

# %% [markdown] lang="en"
# A slice is a view: a window on the storage of the whole. `torch.save` writes storages, so that shared memory stays shared.
#
# ## Explore: a checkpoint X-ray
#
# Each bar is one tensor and the bytes that the file stores for it. Nothing is loaded, nothing runs.
#
# Two things to change: set `content` to `a view`, then to `a crafted file`. What does the sentence on top say?

# %% [markdown] lang="zh"
# 切片是视图（view）：看向整块存储（storage）的一扇窗。`torch.save` 写的是存储，这样共享的内存才能继续共享。
#
# ## 动手探索：给检查点拍 X 光
#
# 每根条形是一个张量，以及文件为它存下的字节数。什么也不加载，什么也不运行。
#
# 试着改两处：把 `content` 改成 `a view`，再改成 `a crafted file`。最上面那句话说了什么？

# %% tags=["explore"]
tied = torch.ones(10, 8)
contents = {
    "a model": lambda: model.state_dict(),
    "a whole model": lambda: model,
    "a view": lambda: {"head": big[:3]},
    "tied weights": lambda: {"embedding": tied, "output": tied},
    "a crafted file": lambda: {"weight": torch.ones(2), "extra": Crafted()},
}


def xray(content):
    torch.save(contents[content](), folder / "xray.pt")
    return checkpoint.inspect(folder / "xray.pt")


widgets.explore(xray, pictures.bars, content=list(contents))

# %% [markdown] lang="en"
# ## One flipped bit
#
# Each record of the zip archive carries a checksum. We flip one bit in the middle of a weight. Which of them sees it,
# `torch.load` or `checkpoint.load`?

# %% [markdown] lang="zh"
# ## 一个翻转的位
#
# zip 归档的每条记录都带有校验和（checksum）。我们在一个权重中间翻转一位。
# `torch.load` 和 `checkpoint.load`，谁会发现？

# %% tags=["predict"]
my_guess = ...  # "torch.load", "checkpoint.load", "both" or "none"

whole = bytearray(path.read_bytes())
place = whole.find(model[0].weight.detach().numpy().tobytes())  # where the weight begins
whole[place + 400 * 4 + 3] ^= 0b01000000  # one bit of the exponent of number 400
(folder / "flipped.pt").write_bytes(whole)

before, saw = model[0].weight.flatten()[400], []
for name, load in {"torch.load": torch.load, "checkpoint.load": checkpoint.load}.items():
    try:
        after = load(folder / "flipped.pt")["0.weight"].flatten()[400]
        print(f"{name}: loads; number 400 grew:", bool(after.abs() > 1e30 * before.abs()))
    except checkpoint.CheckpointError as error:
        print(f"{name}:", str(error).split(": ")[1])
        saw.append(name)
exercises.predict(my_guess, torch="both" if len(saw) == 2 else saw[0] if saw else "none")

# %% [markdown] lang="en"
# `torch.load` does not look at the checksum. The weight is now astronomically large, and there is no message.
#
# ## Only what you need
#
# `inspect` knows where each tensor lies. So a tensor can be read alone, and a model can be filled straight from the file:
# everything is checked first, then read to where it belongs, without a second copy in memory.
#
# The last lines write a **safetensors** file. It holds tensors and text, and no pickle.

# %% [markdown] lang="zh"
# `torch.load` 不看校验和。那个权重变得极大，却没有任何提示。
#
# ## 只读需要的
#
# `inspect` 知道每个张量在哪里。于是可以只读一个张量，也可以直接从文件填好一个模型：
# 先检查一切，再读到该去的地方，内存里没有第二份副本。
#
# 最后几行写一个 **safetensors** 文件。它只装张量和文本，没有 pickle。

# %%
print("one tensor:", list(checkpoint.tensors(path, "2.bias")))
other = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
print("load_into:", checkpoint.load_into(other, path))
pairs = zip(model.parameters(), other.parameters(), strict=True)
print("equal:", all(torch.equal(a, b) for a, b in pairs))
checkpoint.save_weights(folder / "model.safetensors", model, metadata={"trained on": "digits"})
seen = checkpoint.inspect(folder / "model.safetensors")
print("safetensors, its text:", seen.values["metadata.trained on"])
print("names a function or class:", seen.globals or "none")

# %% [markdown] lang="en"
# A safetensors file names nothing to be called. It carries no checksums: there a flipped bit in a weight is not seen.
#
# ## Exercise 1: plain
#
# Write `plain`: it turns any nested dictionary or list into one that comes back from `torch.load`. NumPy numbers become
# Python numbers, arrays become tensors, paths become text. Everything else stays as it is.

# %% [markdown] lang="zh"
# safetensors 文件里没有要调用的名字。它不带校验和：权重里翻转的一位，在那里发现不了。
#
# ## 练习 1：变成普通的值
#
# 写出 `plain`：把任意嵌套的字典或列表变成 `torch.load` 读得回来的样子。NumPy 的数变成 Python 的数，
# 数组变成张量，路径变成文本。其余保持原样。


# %% tags=["exercise:18_plain"]
def plain(value):
    """The same value from what torch.load admits: new dictionaries and lists of plain values."""
    ...


# solution
def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Path):
        return str(value)
    return value


# %% tags=["check"]
exercises.check("18_plain", plain)  # stuck? exercises.hint("18_plain")

# %% [markdown] lang="en"
# ## Exercise 2: small
#
# Write `small`: it turns a dictionary of tensors into one with the same values whose file wastes no byte. Each tensor gets a storage of
# its own, even where two shared one before.

# %% [markdown] lang="zh"
# ## 练习 2：变小
#
# 写出 `small`：由一个张量字典得到数值相同的字典，存成文件后不浪费一个字节。每个张量都有自己的存储，原来共享存储的也分开。


# %% tags=["exercise:18_small"]
def small(state):
    """The same tensors by the same keys, none of them a window on something larger."""
    ...


# solution
def small(state):
    return {key: tensor.clone() for key, tensor in state.items()}


# %% tags=["check"]
exercises.check("18_small", small)  # stuck? exercises.hint("18_small")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four lines as one finds them in scripts, each with what it promises. Which promise is not kept? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四行代码，都是脚本里常见的写法，各有一个承诺。哪个承诺没有兑现？单元格会给出证明。

# %% tags=["bug-hunt"]
my_guess = ...  # 1, 2, 3 or 4

torch.save(big[:3].contiguous(), folder / "packed.pt")
lines = {
    # Shapes without data.
    1: torch.load(path, map_location="meta")["0.weight"].is_meta,
    # A stranger's file is refused.
    2: outcome(torch.load, folder / "crafted.pt") == "UnpicklingError",
    # Contiguous, so it is small.
    3: (folder / "packed.pt").stat().st_size < 10_000,
    # One sees before loading what it names.
    4: checkpoint.inspect(folder / "whole.pt").refused != (),
}
print("bytes stored for big[:3].contiguous():", checkpoint.inspect(folder / "packed.pt").stored)
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# `big[:3]` is contiguous already, so `.contiguous()` copies nothing. `.clone()` does.

# %% [markdown] lang="zh"
# `big[:3]` 本来就是连续的，所以 `.contiguous()` 什么也不复制。`.clone()` 才会。

# %% [markdown] lang="en"
# ## Recap
#
# The structure of a checkpoint is a program; `torch.load` admits a short list of names, unless you name a `pickle_module`.
# Save a `state_dict` and plain values. Look before you load: `tutorlib inspect FILE` does it in the terminal.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Weights only load failed ... Unsupported global` | a whole model, a NumPy number, a path | Wrong first, What may be stored |
# | no message, a stranger's code ran | `pickle_module=pickle`, `weights_only=False` | A crafted file |
# | `ModuleNotFoundError` | a whole model without its module | The class must be there |
# | no message, a file of 4 MB | a view was saved | A slice of a large tensor |
# | no message, a wrong weight | a flipped bit; torch does not look at checksums | One flipped bit |
#
# What next: lesson [19](19_checkpoint.ipynb), with everything that training needs to go on.

# %% [markdown] lang="zh"
# ## 小结
#
# 检查点的结构是一个程序；`torch.load` 只放行一张很短的名单，除非你写出 `pickle_module`。
# 请保存 `state_dict` 和普通的值。先看，再加载：在终端里用 `tutorlib inspect FILE`。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Weights only load failed ... Unsupported global` | 整个模型、NumPy 的数、路径 | 先看错误、能存哪些值 |
# | 没有报错，陌生人的代码运行了 | `pickle_module=pickle`、`weights_only=False` | 一份动过手脚的文件 |
# | `ModuleNotFoundError` | 整个模型，却没有它的模块 | 类必须找得到 |
# | 没有报错，文件有 4 MB | 保存了视图 | 大张量的一个切片 |
# | 没有报错，权重错了 | 翻转的位；torch 不看校验和 | 一个翻转的位 |
#
# 下一步：第 [19](19_checkpoint.ipynb) 课，训练继续下去所需要的一切。

# %%
exercises.progress("18")
