# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Prefixes: names that wrappers give", zh: "前缀：包装加上的名字"}
#     sections:
#       - "002: GPU上保存，CPU上加载"
#       - "003: Saving & Loading Model Across Devices"
#       - "004: 3. ... 3）（4）保存/加载 torch.nn.DataParallel 模型"
#     minutes: 45
# ---

# %% [markdown] lang="en"
# # 23 · Prefixes: names that wrappers give
#
# **You will be able to** tell where `module.` and `_orig_mod.` come from, take them off without harm to other names,
# and put them on where a wrapped model needs them.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | loading by name, lesson [21](21_warm_start.ipynb) | 45 | Saving & Loading Model Across Devices; Saving torch.nn.DataParallel Models | [简体中文](../zh/23_prefixes.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 23 · 前缀：包装加上的名字
#
# **学完本课，你能够**：说出 `module.` 和 `_orig_mod.` 从哪里来；去掉它们而不伤及别的名字；在被包装的模型需要时把它们加回去。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 按名字加载，第 [21](21_warm_start.ipynb) 课 | 45 | GPU上保存，CPU上加载；保存/加载 torch.nn.DataParallel 模型 | [English](../en/23_prefixes.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# A small network with a batch norm (`BatchNorm1d`), so that its state holds more than weights.

# %% [markdown] lang="zh"
# ## 准备
#
# 一个小网络，带批归一化（`BatchNorm1d`），这样状态里不只有权重。

# %% tags=["setup"]
import copy
import os
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from tutorlib import checkpoint, exercises, facts, pictures, widgets

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no GPU in this lesson, whatever the machine has
room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.f1 = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.f2 = nn.Linear(4, 2)

    def forward(self, x):
        return self.f2(self.norm(self.f1(x)))


def equal(model, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


print("ready:", len(Net(0).state_dict()), "tensors")

# %% [markdown] lang="en"
# ## Wrong first
#
# The famous recipe cuts the first seven characters off every name: `k[7:]`, because `module.` has seven.
# Your file has no prefix. What does the recipe make of `f1.weight`? Predict the new name.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 著名的做法是把每个名字的前七个字符砍掉：`k[7:]`，因为 `module.` 正好七个字符。
# 你的文件没有前缀。这个做法会把 `f1.weight` 变成什么？预测新名字。

# %% tags=["wrong-first", "predict", "claim:DP-03"]
my_guess = ...  # a text

state = Net(0).state_dict()
cut = {k[7:]: v for k, v in state.items()}
print("after k[7:]:", list(cut))
print("entries before and after:", len(state), len(cut))
Net(1).load_state_dict(cut, strict=False)  # not a word
print("names that the model knows:", sum(name in state for name in cut))
exercises.predict(my_guess, torch=next(iter(cut)))

# %% [markdown] lang="en"
# The names are cut to pieces, and some became the same one: entries are lost. With `strict=False` nobody hears of it.
#
# ## Where the prefix comes from
#
# The notes say: from training on several GPUs. In this lesson there is none. Does the prefix appear?

# %% [markdown] lang="zh"
# 名字被砍碎了，有些还变得相同，条目就丢了。用 `strict=False` 时没人会知道。
#
# ## 前缀从哪里来
#
# 笔记说：因为用了多块 GPU 训练。本课一块 GPU 也没有。前缀会出现吗？

# %% tags=["predict", "claim:DP-02"]
my_guess = ...  # "module.f1.weight" or "f1.weight"

wrapped = nn.DataParallel(Net(0))
compiled = torch.compile(Net(0))
inside = Net(0)
inside.f2 = torch.compile(inside.f2)  # only one layer
both = torch.compile(nn.DataParallel(inside))
models = {
    "plain": Net(0),
    "DataParallel": wrapped,
    "compiled": compiled,
    "f2 compiled": inside,
    "all of it": both,
}
print("GPUs used by the wrapper:", wrapped.device_ids)
print("it works without:", tuple(wrapped(torch.ones(5, 3)).shape))
names = {kind: list(model.state_dict()) for kind, model in models.items()}
rows = [{"model": kind, "first": n[0], "last": n[-1]} for kind, n in names.items()]
print(facts.Table("names", rows))
exercises.predict(my_guess, torch=names["DataParallel"][0])

# %% [markdown] lang="en"
# A **wrapper** is a module that holds the real one as an attribute, and attributes are parts of names.
# `DataParallel` and `DistributedDataParallel` call it `module`. A module compiled by `torch.compile` calls it `_orig_mod`.
# The number of GPUs plays no role. A single compiled layer has its prefix in the middle.
#
# Now load such a file into a plain model, and a plain file into a wrapped one. Predict: `"KeyError"` or `"RuntimeError"`?

# %% [markdown] lang="zh"
# **包装（wrapper）** 也是一个模块，它把真正的模型存成属性，而属性名会成为名字的一段。
# `DataParallel` 和 `DistributedDataParallel` 把它叫作 `module`，用 `torch.compile` 编译过的模块把它叫作 `_orig_mod`。
# 与 GPU 的数量无关。只编译一层时，前缀就在名字中间。
#
# 现在把这样的文件装进普通模型，再把普通文件装进被包装的模型。预测：`"KeyError"` 还是 `"RuntimeError"`？

# %% tags=["predict", "claim:DP-01"]
my_guess = ...  # "KeyError" or "RuntimeError"

torch.save(wrapped.state_dict(), folder / "wrapped.pt")
torch.save(Net(0).state_dict(), folder / "plain.pt")
for into, file in ((Net(1), "wrapped.pt"), (nn.DataParallel(Net(1)), "plain.pt")):
    try:
        into.load_state_dict(torch.load(folder / file))
    except (KeyError, RuntimeError) as error:
        happened = type(error).__name__
        print(f"{file} into {type(into).__name__}: {happened}")
        for line in str(error).splitlines()[1:]:
            print("   ", line.split(",")[0].strip())
exercises.predict(my_guess, torch=happened)

# %% [markdown] lang="en"
# ## Saving so that the prefix never gets into the file
#
# The wrapper's attribute leads to the model itself. Save that.

# %% [markdown] lang="zh"
# ## 保存时就不让前缀进文件
#
# 包装的属性就是模型本身，保存它。

# %% tags=["claim:DP-04"]
torch.save(wrapped.module.state_dict(), folder / "dp.pt")
model = Net(1)
print(model.load_state_dict(torch.load(folder / "dp.pt", map_location="cpu")))
print("equal:", equal(model, wrapped.module))
print("compiled:", next(iter(compiled._orig_mod.state_dict())))

# %% [markdown] lang="en"
# ## Taking it off
#
# Four ways, on a state in which one name has the prefix and one has not. Which of them keep `f1.weight` whole?

# %% [markdown] lang="zh"
# ## 去掉前缀
#
# 下面的状态里，一个名字有前缀，一个没有。四种办法中，哪些能让 `f1.weight` 完好？


# %% tags=["claim:DP-03"]
def torchs_own(mixed):
    mixed = copy.deepcopy(mixed)
    consume_prefix_in_state_dict_if_present(mixed, "module.")  # changes its argument
    return mixed


ways = {
    "k[7:]": lambda s: {k[7:]: v for k, v in s.items()},
    "removeprefix": lambda s: {k.removeprefix("module."): v for k, v in s.items()},
    "torch's consume_prefix...": torchs_own,
    "checkpoint.without_prefix": lambda s: checkpoint.without_prefix(s, "module."),
}
mixed = {"module.f2.weight": 1, "f1.weight": 2}
facts.Table("names after", [{"way": way, "names": list(take(mixed))} for way, take in ways.items()])

# %% [markdown] lang="en"
# Three keep it whole. Is there a difference between them? A state has a second list, `_metadata`: the version of each
# module's format. It has prefixes, too. A plain dictionary has no such list.
#
# Here one entry of the batch norm is lost. A strict load must say so. Predict the result of the second way, `removeprefix`:
# `"loads"` or `"RuntimeError"`?

# %% [markdown] lang="zh"
# 三种都行。它们之间有区别吗？状态里还有第二张表 `_metadata`：每个模块的格式版本，里面也有前缀。普通字典没有这张表。
#
# 下面，批归一化的一个条目丢了，严格加载应当报错。预测第二种办法 `removeprefix` 的结果：`"loads"` 还是 `"RuntimeError"`？

# %% tags=["predict"]
my_guess = ...  # "loads" or "RuntimeError"

damaged = wrapped.state_dict()
del damaged["module.norm.num_batches_tracked"]
rows = []
for way in ("removeprefix", "torch's consume_prefix...", "checkpoint.without_prefix"):
    names_off = ways[way](damaged)
    try:
        Net(1).load_state_dict(names_off)
        outcome = "loads"
    except RuntimeError as error:
        outcome = str(error).splitlines()[1].strip()
    rows.append(
        {"way": way, "has _metadata": hasattr(names_off, "_metadata"), "strict load": outcome}
    )
print(facts.Table("an entry is missing", rows))
exercises.predict(my_guess, torch=rows[0]["strict load"])

# %% [markdown] lang="en"
# Without versions torch takes the file for one from before that entry existed, and fills it in without a word.
# So names and versions must move together. Torch's own function moves both, but it changes the state that you give it.
#
# ## Explore: keys before and after
#
# Choose what the file was saved from and which `rule` is applied. Each line is a name of the plain model.
# `suggested` is the rule that the report itself proposes; *filled* is an entry that torch makes up. With `apply` the plan is carried
# out.
#
# Two things to change: set `saved_from` to `all of it` (`f2` compiled, all in `DataParallel`, compiled again) and find the rule that
# helps; then apply it.

# %% [markdown] lang="zh"
# 没有版本信息，torch 就以为这是该条目出现之前的旧文件，悄悄补上。所以名字和版本必须一起改。
# torch 自己的函数也一起改，但它改的是你传进去的那份。
#
# ## 动手探索：键的前与后
#
# 选择文件由哪种模型保存、用哪条规则（`rule`）。每一行是普通模型里的一个名字。
# `suggested` 是报告自己提出的规则；*filled* 是 torch 自己补上的条目。勾选 `apply` 就执行计划。
#
# 试着改两处：把 `saved_from` 改成 `all of it`（先编译 `f2`，再放进 `DataParallel`，最后整个编译），找出有用的规则；然后执行它。


# %% tags=["explore"]
def keys(saved_from="DataParallel", rule="module", apply=False):
    state = models[saved_from].state_dict()
    report = checkpoint.compare(Net(1), state)
    rules = {
        "none": None,
        "module": {"module": ""},
        "_orig_mod": {"_orig_mod": ""},
        "suggested": report.fix,
    }
    do = checkpoint.warm_start if apply else checkpoint.compare
    return do(Net(1), state, rename=rules[rule])


widgets.explore(
    keys,
    pictures.tree,
    saved_from=list(models),
    rule=["none", "module", "_orig_mod", "suggested"],
    apply=False,
)

# %% [markdown] lang="en"
# The same without the controls: a file of the deepest wrapping, and the suggested rule applied.

# %% [markdown] lang="zh"
# 不用控件再做一次：包装最深的文件，执行建议的规则。

# %%
report = checkpoint.compare(Net(1), both.state_dict())
print("suggested:", report.fix)
plain = Net(1)
print(checkpoint.warm_start(plain, both.state_dict(), rename=report.fix))
print("equal:", equal(plain, Net(0)))

# %% [markdown] lang="en"
# ## Putting it on
#
# A wrapped model wants names with the prefix. An empty old name means "before every name".

# %% [markdown] lang="zh"
# ## 加上前缀
#
# 被包装的模型要的是带前缀的名字。旧名字写成空，意思是“加在每个名字前面”。

# %%
target = nn.DataParallel(Net(1))
print(checkpoint.warm_start(target, Net(0).state_dict(), rename={"": "module"}, strict=True))
start = Net(0).state_dict()
there = checkpoint.with_prefix(start, "module.")
back = checkpoint.without_prefix(there, "module.")
print("there and back:", list(back) == list(start), dict(back._metadata) == dict(start._metadata))

# %% [markdown] lang="en"
# ## Two names become one
#
# A file may hold both `f1.weight` and `module.f1.weight`. Taken off, one overwrites the other: which one stays depends on
# their order. `checkpoint` refuses, and names both.

# %% [markdown] lang="zh"
# ## 两个名字变成一个
#
# 文件里可能同时有 `f1.weight` 和 `module.f1.weight`。去掉前缀后，一个会覆盖另一个，留下谁取决于顺序。
# `checkpoint` 会拒绝，并说出两个名字。

# %% tags=["raises-exception"]
two = {"f1.weight": torch.zeros(4, 3), "module.f1.weight": torch.ones(4, 3)}
print("removeprefix keeps:", ways["removeprefix"](two)["f1.weight"][0, 0].item())
checkpoint.warm_start(Net(1), two, prefix="module.")

# %% [markdown] lang="en"
# ## Exercise 1: strip
#
# Write the safe form of the recipe, for the names (the versions are left out here). Names without the prefix stay, and the argument is
# left alone.

# %% [markdown] lang="zh"
# ## 练习 1：去掉前缀
#
# 写出那个做法的安全版本，只管名字（这里不管版本）。没有前缀的名字原样保留，传入的字典不能改动。


# %% tags=["exercise:23_strip"]
def strip(state, prefix):
    """A new dictionary: `prefix` is taken off the beginning of each name that has it."""
    ...


# solution
def strip(state, prefix):
    return {name.removeprefix(prefix): value for name, value in state.items()}


# %% tags=["check"]
exercises.check("23_strip", strip)  # stuck? exercises.hint("23_strip")

# %% [markdown] lang="en"
# ## Exercise 2: the plain name
#
# Wrappers are nested, and stand in the middle of names. Write the name that the plain model has.
# Wrappers are called `module` and `_orig_mod`; a layer called `submodule` is not a wrapper.

# %% [markdown] lang="zh"
# ## 练习 2：本来的名字
#
# 包装会嵌套，也会出现在名字中间。写出普通模型里的名字。
# 包装叫作 `module` 和 `_orig_mod`；名为 `submodule` 的层不是包装。


# %% tags=["exercise:23_plain"]
def plain_name(name):
    """The name without what wrappers added: 'module.f1._orig_mod.weight' gives 'f1.weight'."""
    ...


# solution
def plain_name(name):
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


# %% tags=["check"]
exercises.check("23_plain", plain_name)  # stuck? exercises.hint("23_plain")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four lines in the style of the notes. Which one is not true? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四行代码，写法与笔记相同。哪一行不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:DP-02"]
my_guess = ...  # 1, 2, 3 or 4

one_device = nn.DataParallel(Net(0))  # trained on one device, or on none
file = one_device.state_dict()
lines = {
    1: set(Net(0).state_dict()) == {k[7:] for k in file},
    2: "f1.weight" in one_device.module.state_dict(),
    3: not any(name.startswith("module.") for name in file),  # one device: no prefix
    4: len(file) == len(Net(0).state_dict()),
}
print("names:", list(file)[:2])
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# ## Recap
#
# The prefix is the attribute of a wrapper, with or without GPUs. Save `model.module`, or take the prefix off only where it is.
# Names and versions move together, and two names never become one unnoticed.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Unexpected key(s) in state_dict: "module.f1.weight"` | saved from a wrapper | Where the prefix comes from |
# | `Missing key(s) in state_dict: "module.f1.weight"` | a plain file, a wrapped model | Where the prefix comes from |
# | names such as `ht` | `k[7:]` on names without the prefix | Wrong first |
# | `would both be f1.weight` | the file has the name with and without | Two names become one |
#
# What next: lesson [24](24_load_checkpoint.ipynb), a whole loader taken apart, step by step.

# %% [markdown] lang="zh"
# ## 小结
#
# 前缀是包装的属性名，与有没有 GPU 无关。保存 `model.module`；或者只在确有前缀时去掉它。
# 名字和版本一起改，两个名字绝不悄悄变成一个。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Unexpected key(s) in state_dict: "module.f1.weight"` | 由被包装的模型保存 | 前缀从哪里来 |
# | `Missing key(s) in state_dict: "module.f1.weight"` | 普通文件装进被包装的模型 | 前缀从哪里来 |
# | 出现 `ht` 这样的名字 | 对没有前缀的名字用了 `k[7:]` | 先看错误 |
# | `would both be f1.weight` | 文件里带前缀和不带前缀的名字都有 | 两个名字变成一个 |
#
# 下一步：第 [24](24_load_checkpoint.ipynb) 课，把一个完整的加载函数逐步拆开来看。

# %%
exercises.progress("23")
