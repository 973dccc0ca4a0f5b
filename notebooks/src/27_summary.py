# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Looking at a model", zh: "查看模型"}
#     sections:
#       - "004: 1. 使用 torchsummary 打印 torch 模型结构"
#     minutes: 45
# ---

# %% [markdown] lang="en"
# # 27 · Looking at a model
#
# **You will be able to** say what each layer of a model gives and owns, count parameters without counting one twice, and look at a
# model without changing it.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [17](17_save_load.ipynb) | 45 | Model summaries | [简体中文](../zh/27_summary.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 27 · 查看模型
#
# **学完本课，你能够**：说出模型的每一层给出什么、拥有什么；数清参数，一个也不重复；查看模型而不改变它。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [17](17_save_load.ipynb) 课 | 45 | 打印模型结构 | [English](../en/27_summary.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# The notes use the package torchsummary. It prints and returns nothing; `printed` catches the text. `make` builds a small network
# for digits, as in training: batch norm keeps statistics, dropout draws random numbers.

# %% [markdown] lang="zh"
# ## 准备
#
# 笔记使用 torchsummary 这个包。它只打印，不返回结果；`printed` 把文字接住。
# `make` 造一个认数字的小网络，与训练时一样：批归一化（batch norm）记录统计量，dropout 抽取随机数。

# %% tags=["setup"]
import contextlib
import inspect
import io
import re

import torch
import torchinfo
import torchsummary
from torch import nn

from tutorlib import exercises, export, facts, pictures, widgets


def make(channels=4):
    convolution = [
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(*convolution, nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * channels, 10))


def printed(model, size):
    """What torchsummary prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        torchsummary.summary(model, size, device="cpu")
    return out.getvalue()


def total(text):
    return int(re.search(r"Total params: ([\d,]+)", text)[1].replace(",", ""))


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


model = make()
print("ready:", len(model.state_dict()), "entries in the state")

# %% [markdown] lang="en"
# ## Wrong first
#
# In the middle of training you want to see the shapes once more. You call torchsummary and train on.
#
# How many of the 9 entries of the state does looking change? Write your prediction, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 训练到一半，你想再看一眼各层的形状。你调用 torchsummary，然后继续训练。
#
# 状态共 9 个条目，“看一眼”改变了几个？先写下你的预测，再运行单元格。

# %% tags=["wrong-first", "predict", "claim:TS-06"]
my_guess = ...  # 0 to 9

before = copied(model)
text = printed(model, (1, 8, 8))
changed = [
    name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
]
print("changed:", changed)
exercises.predict(my_guess, torch=len(changed))

# %% [markdown] lang="en"
# To learn the shapes, torchsummary runs the model on random numbers. The model was in training mode, so its batch norm took those
# numbers into its statistics. A glance became a training step.
#
# It can be worse. This model has an LSTM, whose output is nested, and torchsummary crashes. Is the model usable afterwards?

# %% [markdown] lang="zh"
# 为了得知形状，torchsummary 用随机数运行模型。模型处于训练模式，批归一化便把这些随机数算进了统计量。
# 看一眼，就成了一步训练。
#
# 还有更糟的。下面的模型含 LSTM，输出是嵌套的，torchsummary 会崩溃。此后这个模型还能用吗？


# %% tags=["raises-exception", "claim:TS-06"]
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5)

    def forward(self, x):
        return self.lstm(x)[0]


def fails(call, *arguments):
    try:
        call(*arguments)
        return "works"
    except Exception as error:
        return type(error).__name__


reader, x = Reader(), torch.ones(1, 6, 4)
print("before:", fails(reader, x))
print("torchsummary:", fails(printed, reader, (6, 4)))
print("hooks left on the LSTM:", len(reader.lstm._forward_hooks))
reader(x)

# %% [markdown] lang="en"
# The model itself is broken now. Its hooks were never removed, and they crash on each call.
#
# ## The idea
#
# A **hook** is a function that a module calls after its forward. A summary puts one on each module, runs the model once, notes what
# came out, and takes the hooks off. So a summary is a run, and a good one leaves no trace: right mode, no gradients, hooks removed
# also after a crash.
#
# Without a run you only see what the constructor made. The last three layers:

# %% [markdown] lang="zh"
# 现在坏掉的是模型本身。钩子没有移除，每次调用都会崩溃。
#
# ## 概念
#
# **钩子**（hook）是模块在前向计算之后调用的函数。做摘要（summary）时，给每个模块挂一个钩子，运行一次模型，
# 记下结果，再取下钩子。所以摘要就是一次运行。好的摘要不留痕迹：模式正确，不算梯度，崩溃之后也会取下钩子。
#
# 不运行，就只能看到构造函数造出了什么。最后三层：

# %% tags=["claim:TS-03"]
print(model[4:])

# %% [markdown] lang="en"
# No shapes of outputs, no counts, and the order is that of the constructor, not of the forward pass.
#
# This is what torchsummary prints for the whole model, batch size shown as -1:

# %% [markdown] lang="zh"
# 没有输出形状，没有参数个数；顺序是构造的顺序，不是前向计算的顺序。
#
# 对整个模型，torchsummary 打印如下，批次大小写作 -1：

# %% tags=["claim:TS-01"]
print(text.split("Input size")[0].rstrip("-\n"))
with contextlib.redirect_stdout(io.StringIO()):
    answer = torchsummary.summary(make(), (1, 8, 8), device="cpu")
device = inspect.signature(torchsummary.summary).parameters["device"].default
print("returns:", answer, "| its device, unless told:", device)

# %% [markdown] lang="en"
# It works for a plain convolutional network. (With a GPU, say `device="cpu"` for a model on the CPU.) A program cannot ask it for a
# number, though: it returns None.
#
# ## The notes' arguments
#
# The notes try it on `resnet50(pretrained=False, num_classes=7, scale=1)`. Does torchvision know these arguments? We ask its smaller
# sister, `resnet18`.

# %% [markdown] lang="zh"
# 对普通的卷积网络，它可以用。（有 GPU 时，模型若在 CPU 上，要写 `device="cpu"`。）但程序没法向它要一个数：它返回 None。
#
# ## 笔记里的参数
#
# 笔记里用的模型是 `resnet50(pretrained=False, num_classes=7, scale=1)`。torchvision 认识这些参数吗？
# 我们用小一些的 `resnet18` 来问。

# %% tags=["claim:TS-02"]
from torchvision import models

for arguments in ({"num_classes": 7, "scale": 1}, {"num_classes": 7}):
    try:
        resnet = models.resnet18(weights=None, **arguments)
        print(arguments, "gives outputs:", resnet.fc.out_features)
    except TypeError as error:
        print(arguments, "TypeError:", str(error).partition("() got an ")[2])

# %% [markdown] lang="en"
# There is no `scale`. The number of classes is an argument, and `weights=None` has replaced `pretrained=False`.
#
# ## Totals
#
# This model has a parameter called `scale` with 7 numbers, and one `Linear(3, 3)` (9 weights, 3 biases) that it uses twice.
# Four count it: torchsummary; torchinfo, a newer package; `export.summary` of this course; and a plain sum. How many does torchsummary
# find?

# %% [markdown] lang="zh"
# 没有 `scale` 这个参数。类别数可以指定；`pretrained=False` 已由 `weights=None` 取代。
#
# ## 总数
#
# 下面的模型有一个叫 `scale` 的参数，含 7 个数；还有一个 `Linear(3, 3)`（9 个权重、3 个偏置），用了两次。
# 四种数法：torchsummary；较新的 torchinfo；本课程的 `export.summary`；直接求和。torchsummary 数出多少个？


# %% tags=["predict", "claim:TS-05"]
class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(7))
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x)) * self.scale.sum()


my_guess = ...  # how many?

scaled = Scaled()
found = {
    "torchsummary": total(printed(scaled, (3,))),
    "torchinfo": torchinfo.summary(scaled, (1, 3), verbose=0).total_params,
    "export.summary": export.summary(scaled, torch.ones(1, 3)).parameters,
    "sum over model.parameters()": sum(p.numel() for p in scaled.parameters()),
}
print(
    facts.Table(
        "parameters of one model",
        [{"counted by": name, "parameters": number} for name, number in found.items()],
    )
)
exercises.predict(my_guess, torch=found["torchsummary"])

# %% [markdown] lang="en"
# torchsummary adds `weight` and `bias` at each call: 12 + 12, and nothing for `scale`. torchinfo gets both right.
#
# One case is left. Language models often share one weight: the embedding's is also the last layer's.

# %% [markdown] lang="zh"
# torchsummary 在每次调用时累加 `weight` 和 `bias`：12 + 12，而 `scale` 一个也没数。torchinfo 两点都对。
#
# 还剩一种情况。语言模型常常共享权重：嵌入层的权重同时也是最后一层的权重。


# %%
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 3)
        self.out = nn.Linear(3, 9, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, words):
        return {"scores": self.out(self.embedding(words))}


words = torch.zeros(2, 5, dtype=torch.long)
print("torchinfo:", torchinfo.summary(Tied(), input_data=words, verbose=0).total_params)
export.summary(Tied(), words)

# %% [markdown] lang="en"
# torchinfo counts the shared weight for both layers. `export.summary` asks torchinfo for the layers and counts each parameter
# itself, once: the column adds up to the total.
#
# ## Which models?
#
# Is torchsummary good for any model? In how many of these six cases does it work?

# %% [markdown] lang="zh"
# torchinfo 把共享的权重给两层各算一次。`export.summary` 向 torchinfo 要各层的信息，参数则自己数，每个只数一次：
# 这一列加起来就是总数。
#
# ## 哪些模型？
#
# torchsummary 适用于任何模型吗？下面六种情况，它能应付几种？


# %% tags=["predict", "claim:TS-04"]
class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return {"y": self.layer(x)}


cases = {
    "a plain network": (lambda: nn.Sequential(nn.Linear(3, 2)), torch.ones(2, 3)),
    "one layer alone": (lambda: nn.Linear(3, 2), torch.ones(2, 3)),
    "nested outputs (LSTM)": (Reader, torch.ones(2, 6, 4)),
    "a dict as output": (lambda: nn.Sequential(Named()), torch.ones(2, 3)),
    "whole numbers as input": (
        lambda: nn.Sequential(nn.Embedding(9, 3)),
        torch.zeros(2, 6, dtype=torch.long),
    ),
    "double precision": (
        lambda: nn.Sequential(nn.Linear(3, 2)).double(),
        torch.ones(2, 3).double(),
    ),
}
my_guess = ...  # 0 to 6

rows = [
    {
        "model": name,
        "torchsummary": fails(printed, build(), tuple(x.shape[1:])),
        "export.summary": fails(export.summary, build(), x),
    }
    for name, (build, x) in cases.items()
]
print(facts.Table("six models", rows))
exercises.predict(my_guess, torch=sum(row["torchsummary"] == "works" for row in rows))

# %% [markdown] lang="en"
# torchsummary invents its input: always float, always a batch. You give `export.summary` a real one.
#
# Now the test that matters: what is left on the model afterwards? Of its two batch norms one is frozen (in evaluation mode) while
# the model trains. That is usual in fine-tuning.

# %% [markdown] lang="zh"
# torchsummary 自己编造输入：总是浮点数，总有批次维。而 `export.summary` 用的是你给的真实输入。
#
# 最要紧的一问：看过之后，模型上留下了什么？下面的模型在训练，它有两个批归一化，其中一个是冻结的（处于评估模式）。微调时常常如此。


# %%
def traces(look):
    model = nn.Sequential(make(), nn.BatchNorm1d(10))
    model[0][1].eval()
    before, modes, random = (
        copied(model),
        [m.training for m in model.modules()],
        torch.get_rng_state(),
    )
    look(model)
    return {
        "state kept": all(
            torch.equal(value, before[name]) for name, value in model.state_dict().items()
        ),
        "modes kept": [m.training for m in model.modules()] == modes,
        "random state kept": torch.equal(torch.get_rng_state(), random),
    }


image = torch.zeros(2, 1, 8, 8)
looks = {
    "torchsummary": lambda model: printed(model, (1, 8, 8)),
    "torchinfo": lambda model: torchinfo.summary(model, input_data=image, verbose=0),
    "export.summary": lambda model: export.summary(model, image),
}
facts.Table(
    "a model before and after", [{"look": name} | traces(look) for name, look in looks.items()]
)

# %% [markdown] lang="en"
# torchinfo runs in evaluation mode and then calls `train()`, which also wakes the frozen batch norm. `export.summary` notes the mode
# of each module. It also leaves no trace when the model fails:

# %% [markdown] lang="zh"
# torchinfo 在评估模式下运行，随后调用 `train()`，把冻结的批归一化也唤醒了。`export.summary` 记下每个模块各自的模式。
# 即使模型出错，它也不留痕迹：

# %%
reader = Reader()
try:
    export.summary(reader, torch.ones(1, 6, 3))
except export.ExportError as error:
    print(error)
hooks = len(reader.lstm._forward_hooks)
print("hooks left:", hooks, "| the model:", fails(reader, torch.ones(1, 6, 4)))

# %% [markdown] lang="en"
# ## Explore: where the memory goes
#
# Each bar is measured in one forward pass: the bytes of the parameters, and of what each layer gives.
#
# Two things to change: raise `batch`; then raise `channels`. Which bars grow, and which do not?

# %% [markdown] lang="zh"
# ## 动手探索：内存去了哪里
#
# 每根条都在一次前向计算中测得：参数的字节数，以及每层输出的字节数。
#
# 试着改两处：增大 `batch`；再增大 `channels`。哪些条变长，哪些不变？


# %% tags=["explore"]
def look(batch, channels):
    return export.summary(make(channels), torch.zeros(batch, 1, 8, 8))


widgets.explore(look, pictures.bars, batch=[2, 1, 16, 64], channels=[4, 8, 16])

# %% [markdown] lang="en"
# Parameters do not care about the batch. Outputs grow with it, and in training they are kept for the backward pass.
#
# ## Exercise 1: count
#
# Return two numbers: all parameters, and those that are trained. Each parameter counts once, whatever its name.

# %% [markdown] lang="zh"
# 参数与批次大小无关。输出随批次增长，训练时还要留着供反向传播使用。
#
# ## 练习 1：数参数
#
# 返回两个数：全部参数的个数，以及会被训练的参数个数。每个参数只数一次，不管它叫什么名字。


# %% tags=["exercise:27_count"]
def count(model):
    """(all parameters, trained parameters); for nn.Linear(3, 2), for example, (8, 8)."""
    ...


# solution
def count(model):
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


# %% tags=["check"]
exercises.check("27_count", count)  # stuck? exercises.hint("27_count")

# %% [markdown] lang="en"
# ## Exercise 2: look without a trace
#
# Write a summary of your own: for each module without children, its name and the shape of its output. Afterwards no hook is left,
# each module is in its own mode again, and batch norm has seen nothing. This must hold when the model fails too.

# %% [markdown] lang="zh"
# ## 练习 2：不留痕迹地查看
#
# 写一个自己的摘要：对每个没有子模块的模块，给出名字和输出形状。
# 之后不留钩子，每个模块恢复各自的模式，批归一化什么也没统计。模型出错时也必须如此。


# %% tags=["exercise:27_shapes"]
def shapes(model, x):
    """{"0": (2, 4), "1": (2, 4)} for two layers in a Sequential; outputs are tensors."""
    ...


# solution
def shapes(model, x):
    found, modes = {}, {module: module.training for module in model.modules()}

    def watch(name):
        return lambda module, args, output: found.update({name: tuple(output.shape)})

    handles = [
        m.register_forward_hook(watch(name))
        for name, m in model.named_modules()
        if not list(m.children())
    ]
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


# %% tags=["check"]
exercises.check("27_shapes", shapes)  # stuck? exercises.hint("27_shapes")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements about the summary of a model whose two layers share their weight. Which one is not true? The cell proves it.
#
# 1. The first row is the model itself, with the shape of its output.
# 2. The column of parameters adds up to the total.
# 3. torchsummary counts the same.
# 4. torch knows three parameters: one weight and two biases.

# %% [markdown] lang="zh"
# ## 找错
#
# 一个模型的两层共用权重。关于它的摘要有四个说法。哪一个不成立？单元格会给出证明。
#
# 1. 第一行是模型自己，带着输出的形状。
# 2. 参数那一列加起来等于总数。
# 3. torchsummary 数出来一样多。
# 4. torch 认得三个参数：一个权重和两个偏置。

# %% tags=["bug-hunt", "claim:TS-05"]
my_guess = ...  # 1, 2, 3 or 4

branch = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
branch[1].weight = branch[0].weight
seen = export.summary(branch, torch.ones(5, 3))
lines = {
    1: seen.layers[0].shape == (5, 3),
    2: sum(layer.parameters for layer in seen.layers) == seen.parameters,
    3: total(printed(branch, (3,))) == seen.parameters,
    4: len(list(branch.parameters())) == 3,
}
print(seen)
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# ## Recap
#
# A summary is a run with hooks, so it can change a model: its statistics, its mode, its hooks. Count over `model.parameters()`, where
# each one comes once. Give a real input, and look in evaluation mode.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, worse results after a summary | batch norm has seen random numbers | Wrong first |
# | `AttributeError` in every call of the model | hooks are left after a crash | Wrong first |
# | `unexpected keyword argument 'scale'` | the notes' arguments are not torchvision's | The notes' arguments |
# | no message, another total | calls are counted, or a shared weight twice | Totals |
#
# What next: lesson [28](28_onnx.ipynb), where the model leaves torch.

# %% [markdown] lang="zh"
# ## 小结
#
# 摘要是一次带钩子的运行，所以它可能改变模型：统计量、模式、钩子。数参数要用 `model.parameters()`，每个参数只出现一次。
# 给它真实的输入，并在评估模式下查看。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，看过之后效果变差 | 批归一化统计了随机数 | 先看错误 |
# | 每次调用模型都 `AttributeError` | 崩溃之后留下了钩子 | 先看错误 |
# | `unexpected keyword argument 'scale'` | 笔记里的参数不是 torchvision 的 | 笔记里的参数 |
# | 没有报错，总数不同 | 按调用次数数，或共享权重数了两次 | 总数 |
#
# 下一步：第 [28](28_onnx.ipynb) 课，模型离开 torch。

# %%
exercises.progress("27")
