# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "state_dict: what a model stores, and what it does not", zh: "state_dict：模型存了什么，没存什么"}
#     sections:
#       - "001: 2.1 `state_dict` 介绍"
#       - "002: 保存&读取模型(torch.save&torch.load)"
#       - "003: What is a `state_dict`?"
#       - "004: 3. ... 1）什么是 state_dict"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 16 · state_dict: what a model stores, and what it does not
#
# **You will be able to** say which entries a model stores, name what it leaves out, and read the state of an optimizer.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | to have written a model in PyTorch, lesson [00](00_start.ipynb) | 50 | What is a state_dict | [简体中文](../zh/16_state_dict.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 16 · state_dict：模型存了什么，没存什么
#
# **学完本课，你能够**：说出一个模型会存下哪些条目；指出它漏掉了什么；读懂优化器的状态。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 用 PyTorch 写过模型，第 [00](00_start.ipynb) 课 | 50 | What is a state_dict | [English](../en/16_state_dict.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# Two models. `Net` is the small network of the notes. `Normed` has a convolution, batch norm and a linear layer.

# %% [markdown] lang="zh"
# ## 准备
#
# 两个模型。`Net` 是笔记里的小网络。`Normed` 有一个卷积层、批归一化（batch norm）和一个线性层。

# %% tags=["setup"]
import copy
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from tutorlib import checkpoint, exercises, facts, pictures, widgets

room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu()).flatten(1)
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.relu(self.bn1(self.conv1(x))).mean((2, 3)))


print("ready:", Net()(torch.ones(1, 3, 32, 32)).shape, Normed()(torch.ones(2, 3, 8, 8)).shape)

# %% [markdown] lang="en"
# ## Wrong first
#
# The notes say two things. One: only layers with learnable parameters have entries in a `state_dict`.
# Two: pooling layers are among them.
#
# Here are batch norm without parameters (`affine=False`) and max pooling. Predict the number of entries of each. Then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 笔记里有两个说法。一：只有含可学习参数的层才在 `state_dict` 里有条目。二：池化层（pooling layer）属于这样的层。
#
# 下面是不带参数的批归一化（`affine=False`）和最大池化。预测它们各有几个条目，再运行单元格。

# %% tags=["wrong-first", "predict", "claim:SD-04", "claim:SD-05"]
my_guess = ...  # [batch norm, pooling], for example [0, 1]

plain_norm = nn.BatchNorm1d(2, affine=False)
pools = [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)]
rows = []
for layer in [plain_norm, *pools]:
    learnable = len(list(layer.parameters()))
    row = {"layer": type(layer).__name__, "parameters": learnable}
    rows.append(row | {"entries": list(layer.state_dict())})
print(facts.Table("four layers", rows))
exercises.predict(my_guess, torch=[len(plain_norm.state_dict()), len(pools[0].state_dict())])

# %% [markdown] lang="en"
# Both are wrong. Batch norm has no parameter here and three entries. Pooling has nothing at all.
#
# ## The idea
#
# A module holds two kinds of tensors. A **parameter** is learned by the optimizer. A **buffer** is kept by the layer itself, such
# as the running mean of batch norm. The module's **state_dict** maps a name to a tensor: one entry for each parameter and each buffer, with
# the path of the layer in front.
#
# `checkpoint.browse` is the X-ray of this lesson: it lists every entry, and every layer that has none.

# %% [markdown] lang="zh"
# 两个说法都不对。这里的批归一化没有参数，却有三个条目；池化层什么都没有。
#
# ## 概念
#
# 模块里有两种张量。**参数**（parameter）由优化器学习。**缓冲区**（buffer）由层自己维护，例如批归一化的滑动均值。
# **state_dict** 把名字映射到张量：每个参数、每个缓冲区各一个条目，名字前面是层的路径。
#
# `checkpoint.browse` 是本课的 X 光机：列出每个条目，也列出没有条目的层。

# %% tags=["claim:SD-03", "claim:SD-09"]
checkpoint.browse(Net())

# %% [markdown] lang="en"
# Ten entries, two for each layer with weights, and the shapes that the notes print. The pooling layer stands in the list with
# nothing to store.
#
# ## Parameters are not all
#
# `model.parameters()` gives tensors without names. Is its length the number of entries?

# %% [markdown] lang="zh"
# 十个条目，每个带权重的层两个，形状与笔记里打印的相同。池化层也列了出来，它没有东西可存。
#
# ## 参数不是全部
#
# `model.parameters()` 给出张量，不给名字。它的个数等于条目数吗？

# %% tags=["predict", "claim:SD-01", "claim:SD-11"]
my_guess = ...  # [parameters, entries] of Normed, for example [5, 5]

normed = Normed()
print(checkpoint.browse(normed))
print("all parameters are learnable:", all(p.requires_grad for p in normed.parameters()))
exercises.predict(my_guess, torch=[len(list(normed.parameters())), len(normed.state_dict())])

# %% [markdown] lang="en"
# Three of the eight are buffers. `num_batches_tracked` is a single whole number, shape `()`. It counts batches, in training mode only:

# %% [markdown] lang="zh"
# 八个条目里有三个是缓冲区。`num_batches_tracked` 只是一个整数，形状为 `()`。它给批次计数，只在训练模式下计：

# %% tags=["claim:SD-11"]
images = torch.ones(2, 3, 8, 8)
for call in ("train", "train", "eval", "train"):
    getattr(normed, call)()
    normed(images)
    counter = normed.state_dict()["bn1.num_batches_tracked"]
    print(f"{call + '()':8} then one batch: {counter.item()} ({counter.dtype})")

# %% [markdown] lang="en"
# ## What kind of dictionary?
#
# The notes call it a simple dictionary that maps each **layer** to its tensor. Look closer.

# %% [markdown] lang="zh"
# ## 是哪种字典
#
# 笔记说它是一个简单的字典，把每一**层**映射到它的张量。仔细看看。

# %% tags=["claim:SD-02"]
model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
state = model.state_dict()
weight = state["0.weight"]
facts.Table(
    "a closer look",
    [
        {"question": "type", "answer": type(state).__name__},
        {"question": "layers", "answer": len(model)},
        {"question": "entries", "answer": len(state)},
        {"question": "versions of the layers", "answer": checkpoint.browse(state).versions},
        {"question": "is it the Parameter object?", "answer": weight is model[0].weight},
        {"question": "does it want gradients?", "answer": weight.requires_grad},
        {"question": "same memory?", "answer": weight.data_ptr() == model[0].weight.data_ptr()},
    ],
)

# %% [markdown] lang="en"
# One entry a tensor, not a layer. The versions let torch read old files; they travel in the attribute `_metadata`.
#
# The last line matters most. You take a `state_dict`. Then you set all weights of the first layer to 7. What is in the state that
# you took before: `"old"` or `"new"` values?

# %% [markdown] lang="zh"
# 每个张量一个条目，而不是每层一个。版本号让 torch 读得懂旧文件，放在属性 `_metadata` 里。
#
# 最后一行最要紧。你取出一份 `state_dict`，然后把第一层的权重全改成 7。先前取出的那份里，是旧值还是新值？
# 预测：`"old"` 或 `"new"`。

# %% tags=["predict", "claim:SD-02"]
my_guess = ...  # "old" or "new"

taken = model.state_dict()
with torch.no_grad():
    model[0].weight.fill_(7)
print(taken["0.weight"])
exercises.predict(my_guess, torch="new" if (taken["0.weight"] == 7).all() else "old")

# %% [markdown] lang="en"
# A `state_dict` is a window, not a photograph. Its values are the model's own memory. Lesson [17](17_save_load.ipynb) shows what
# that costs.
#
# ## What is not stored
#
# This module holds five tensors and two layers. Its buffer `mask` is not **persistent**: it moves with the model and is not saved.
# Predict the keys of the `state_dict`.

# %% [markdown] lang="zh"
# `state_dict` 是一扇窗，不是一张照片：它的值就是模型自己的内存。这会带来什么后果，见第 [17](17_save_load.ipynb) 课。
#
# ## 什么没有存
#
# 下面的模块里有五个张量和两个层。缓冲区 `mask` 不是持久的（persistent）：它随模型移动，但不保存。预测 `state_dict` 有哪些键。


# %% tags=["predict", "claim:SD-03"]
class Five(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("mask", torch.ones(2), persistent=False)
        self.scale = torch.ones(2)
        self.history = [torch.ones(2)]
        self.act = nn.ReLU()
        self.drop = nn.Dropout()


my_guess = ...  # for example ["weight", "mask"]

print(checkpoint.browse(Five()))
exercises.predict(my_guess, torch=list(Five().state_dict()))

# %% [markdown] lang="en"
# A plain tensor attribute and a tensor in a list are Python, not state. `browse` names the attribute; the list it cannot see.
# If a tensor must be stored, make it a parameter or a buffer.
#
# ## A method nobody calls
#
# The last note writes `farward` instead of `forward`. Its example prints the `state_dict` and looks right. When does the mistake show?

# %% [markdown] lang="zh"
# 普通的张量属性、列表里的张量只是 Python 对象，不是状态。`browse` 会指出那个属性；列表里的它看不见。
# 必须存下来的张量，请做成参数或缓冲区。
#
# ## 没有人调用的方法
#
# 最后一篇笔记把 `forward` 写成了 `farward`。它的例子只打印 `state_dict`，看上去没有问题。错误什么时候才暴露？


# %% tags=["raises-exception", "claim:SD-12"]
class Typo(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def farward(self, x):
        return self.fc(x)


typo = Typo()
print("entries:", list(typo.state_dict()))
typo(torch.ones(1, 2))

# %% [markdown] lang="en"
# A state says nothing about the computation. Two models may share all keys and shapes and compute different things.
#
# ## The optimizer has a state too
#
# It has two keys: `state` and `param_groups`. A **scheduler** changes the learning rate as training goes on; it has a state of its
# own. What is in the optimizer's `state` before the first step?

# %% [markdown] lang="zh"
# 状态与计算过程无关。两个模型的键和形状可以完全相同，算的却不是一回事。
#
# ## 优化器也有状态
#
# 它有两个键：`state` 和 `param_groups`。**学习率调度器**（scheduler）随训练改变学习率，另有自己的状态。
# 第一步之前，优化器的 `state` 里有什么？

# %% tags=["claim:SD-06", "claim:SD-07"]
line = nn.Linear(2, 1)
optimizer = torch.optim.SGD(line.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
print("keys:", list(optimizer.state_dict()))
print("state before the first step:", optimizer.state_dict()["state"])
line(torch.ones(1, 2)).sum().backward()
optimizer.step()
print("the scheduler's own state has last_epoch:", scheduler.state_dict()["last_epoch"])
checkpoint.browse(optimizer)

# %% [markdown] lang="en"
# One step filled it: a momentum buffer for each parameter. The learning rate stands in it too.
#
# ## Numbers, not names
#
# The notes print `params: [4675713712, ...]`: addresses in memory. Above stands `[0, 1]`. Now the bias is given first, the weight
# second. Predict what stands there then.

# %% [markdown] lang="zh"
# 走一步就填上了：每个参数一个动量缓冲区（momentum buffer）。学习率也在里面。
#
# ## 是编号，不是名字
#
# 笔记里打印的是 `params: [4675713712, ...]`，即内存地址；上面打印的是 `[0, 1]`。现在先给偏置，再给权重。预测：这时打印什么？

# %% tags=["predict", "claim:SD-10"]
my_guess = ...  # for example [1, 0]

group = torch.optim.SGD(line.parameters(), lr=0.1).state_dict()["param_groups"][0]
shown = {"lr", "momentum", "dampening", "weight_decay", "nesterov", "params"}
print("newer settings:", sorted(set(group) - shown))
turned = torch.optim.SGD([line.bias, line.weight], lr=0.1)
print("weight given first:", group["params"])
named = torch.optim.SGD(line.named_parameters(), lr=0.1)
print("given with names:", named.state_dict()["param_groups"][0]["param_names"])
exercises.predict(my_guess, torch=turned.state_dict()["param_groups"][0]["params"])

# %% [markdown] lang="en"
# A position is the order in which you gave the parameters. Give the bias first, and the state looks the same and means something
# else. With `named_parameters()` the names travel along.
#
# ## Edit it
#
# It is a dictionary, so renaming a layer is one line. What gets lost?

# %% [markdown] lang="zh"
# 位置就是你交出参数的先后。先给偏置，状态看上去一样，意思却变了。改用 `named_parameters()`，名字就会一起带上。
#
# ## 改一改
#
# 它是字典，所以给一层改名只要一行。改名会丢掉什么？

# %% tags=["claim:SD-08"]
old = nn.ModuleDict({"old": nn.BatchNorm1d(2)})
new = nn.ModuleDict({"new": nn.BatchNorm1d(2)})
with torch.no_grad():
    old["old"].weight.fill_(5)
renamed = {key.replace("old.", "new."): value for key, value in old.state_dict().items()}
print(new.load_state_dict(renamed))
print("weights arrived:", torch.equal(old["old"].weight, new["new"].weight))
print("before:", type(old.state_dict()).__name__, checkpoint.browse(old.state_dict()).versions)
print("after: ", type(renamed).__name__, checkpoint.browse(renamed).versions)

# %% [markdown] lang="en"
# The versions are lost. That does no harm to a state of today. It matters for layers whose entries have changed over the years,
# such as batch norm.
#
# ## Explore: the state_dict browser
#
# Each line is a tensor or a layer: what the model holds, its kind, what the state holds. `!` marks what is not stored, or lies
# in the memory of another entry.
#
# Two things to change: set `model` to `tied weights` (one parameter under two names), and look for the entry that lies in the memory of
# another. Then set `look_at` to `its state_dict`, `a deep copy` and `a file`, and watch the column "model's memory".

# %% [markdown] lang="zh"
# 丢掉了版本号。对今天的状态没有害处；对条目随版本变过的层（例如批归一化）就有影响。
#
# ## 动手探索：state_dict 浏览器
#
# 每一行是一个张量或一个层：模型里是什么，属于哪一种，状态里是什么。`!` 标出没有存的，或与另一个条目共用内存的。
#
# 试着改两处：把 `model` 改成 `tied weights`（共享权重：同一个参数有两个名字），找出与别的条目共用内存的那一条；
# 再把 `look_at` 依次改成 `its state_dict`、`a deep copy`、`a file`，注意“model's memory”这一列。


# %% tags=["explore"]
def tied():
    model = nn.Sequential(OrderedDict(embed=nn.Embedding(10, 4), head=nn.Linear(4, 10, bias=False)))
    model.head.weight = model.embed.weight
    return model


models = {
    "five tensors": Five,
    "conv, batch norm": Normed,
    "tied weights": tied,
    "LSTM": lambda: nn.LSTM(3, 4),
}


def browse(model, look_at):
    made = models[model]()
    if look_at == "the model":
        return checkpoint.browse(made)
    if look_at == "its optimizer":
        return checkpoint.browse(torch.optim.SGD(made.parameters(), lr=0.1))
    state = made.state_dict()
    if look_at == "a deep copy":
        state = copy.deepcopy(state)
    elif look_at == "a file":
        torch.save(state, folder / "state.pt")
        state = torch.load(folder / "state.pt")
    return checkpoint.browse(state, made)


views = ["the model", "its state_dict", "a deep copy", "a file", "its optimizer"]
widgets.explore(browse, pictures.tree, model=list(models), look_at=views)

# %% [markdown] lang="en"
# ## Exercise 1: your own state_dict
#
# Write `my_state_dict`. It must have the keys of torch's, hold the same memory, and want no gradients. All buffers in the tests
# are persistent.

# %% [markdown] lang="zh"
# ## 练习 1：自己写 state_dict
#
# 写出 `my_state_dict`。键要与 torch 的相同，值要是同一块内存，并且不需要梯度。检查用到的缓冲区都会存（persistent）。


# %% tags=["exercise:16_my_state_dict"]
def my_state_dict(model):
    """A dict like model.state_dict(), without calling it."""
    ...


# solution
def my_state_dict(model):
    held = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach() for name, value in held}


# %% tags=["check"]
exercises.check("16_my_state_dict", my_state_dict)  # stuck? exercises.hint("16_my_state_dict")

# %% [markdown] lang="en"
# ## Exercise 2: alive or not?
#
# Somebody hands you a model and a state with the same keys. Say which keys of the state are the model's own memory.

# %% [markdown] lang="zh"
# ## 练习 2：是活的吗
#
# 有人给你一个模型和一份键相同的状态。说出状态里哪些键就是模型自己的内存。


# %% tags=["exercise:16_alive"]
def alive(model, state):
    """The keys of `state` whose values change when the model is trained."""
    ...


# solution
def alive(model, state):
    own = model.state_dict()
    return [key for key, value in state.items() if value.data_ptr() == own[key].data_ptr()]


# %% tags=["check"]
exercises.check("16_alive", alive)  # stuck? exercises.hint("16_alive")

# %% [markdown] lang="en"
# ## Exercise 3: who is number 3?
#
# Give the name of the parameter for each position in an optimizer's state. The optimizer may have two groups.

# %% [markdown] lang="zh"
# ## 练习 3：3 号是谁
#
# 给出优化器状态里每个位置对应的参数名。优化器可能有两个参数组。


# %% tags=["exercise:16_positions"]
def positions(model, optimizer):
    """{0: "0.weight", 1: "0.bias", ...} in the order of the optimizer."""
    ...


# solution
def positions(model, optimizer):
    names = {id(value): name for name, value in model.named_parameters()}
    given = [value for group in optimizer.param_groups for value in group["params"]]
    return {position: names[id(value)] for position, value in enumerate(given)}


# %% tags=["check"]
exercises.check("16_positions", positions)  # stuck? exercises.hint("16_positions")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements in the style of the notes. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法，写法与笔记相同。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:SD-03", "claim:SD-06"]
my_guess = ...  # 1, 2, 3 or 4

frozen = nn.Linear(2, 2).requires_grad_(False)
statements = {
    1: len(Net().state_dict()) == len(list(Net().parameters())),
    2: nn.Dropout(0.5).state_dict() == {},
    3: "lr" in torch.optim.SGD(line.parameters(), lr=0.1).state_dict()["param_groups"][0],
    4: "weight" not in frozen.state_dict(),
}
print("a frozen layer stores:", list(frozen.state_dict()))
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# A frozen parameter is still a parameter. Whether it is frozen is not stored.

# %% [markdown] lang="zh"
# 冻结的参数仍然是参数；是否冻结，状态里并不记录。

# %% [markdown] lang="en"
# ## Recap
#
# A `state_dict` has one entry for each parameter and each persistent buffer; layers without them have none. Its values are the
# model's own memory. An optimizer's state counts parameters by position.
#
# | What you see | Cause | Where |
# |---|---|---|
# | entries without a parameter | buffers | Wrong first |
# | a tensor of yours is missing | no parameter, no buffer, or `persistent=False` | What is not stored |
# | an earlier state changes by itself | it is the model's memory | What kind of dictionary? |
# | `is missing the required "forward" function` | the method has another name | A method nobody calls |
# | `params: [0, 1]` | positions | Numbers, not names |
#
# What next: lesson [17](17_save_load.ipynb), saving and loading it.

# %% [markdown] lang="zh"
# ## 小结
#
# `state_dict` 里每个参数、每个会存的缓冲区各一个条目；两样都没有的层没有条目。它的值就是模型自己的内存。
# 优化器的状态按位置给参数编号。
#
# | 你看到的 | 原因 | 位置 |
# |---|---|---|
# | 没有参数却有条目 | 缓冲区 | 先看错误 |
# | 自己的张量不见了 | 不是参数，也不是缓冲区，或 `persistent=False` | 什么没有存 |
# | 先前取出的状态自己变了 | 它就是模型的内存 | 是哪种字典 |
# | `is missing the required "forward" function` | 方法名写错了 | 没有人调用的方法 |
# | `params: [0, 1]` | 位置编号 | 是编号，不是名字 |
#
# 下一步：第 [17](17_save_load.ipynb) 课，保存和加载它。

# %%
exercises.progress("16")
