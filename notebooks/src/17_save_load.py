# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Save and load: the best model, really kept", zh: "保存与加载：真正留住最好的模型"}
#     sections:
#       - "001: 1、需要掌握3个重要的函数"
#       - "001: 2.2 保存和加载 `state_dict` (已经训练完，无需继续训练)"
#       - "002: 保存&读取模型(torch.save&torch.load)"
#       - "002: 保存阶段性模型训练过程"
#       - "003: Saving & Loading Model for Inference"
#       - "004: 3. PyTorch 保存和加载模型"
#       - "004: 3. ... 2）（1）保存/加载 state_dict（推荐）"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 17 · Save and load: the best model, really kept
#
# **You will be able to** keep the best model of a training, save it and bring it back bit for bit, and say why its outputs differ
# when they do.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [16](16_state_dict.ipynb) | 50 | Saving and loading a model for inference | [简体中文](../zh/17_save_load.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 17 · 保存与加载：真正留住最好的模型
#
# **学完本课，你能够**：留住训练中最好的模型；存下来，再逐位不差地取回；输出不一样时，说出原因。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [16](16_state_dict.ipynb) 课 | 50 | Saving and loading a model for inference | [English](../en/17_save_load.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# A small network learns digits for six epochs. Something goes wrong: from epoch 4 on the learning rate is 60 instead of 0.1.
# `epochs` trains and gives, after each epoch, how many of the images held out from training are read right.

# %% [markdown] lang="zh"
# ## 准备
#
# 一个小网络学认数字，共六轮（epoch）。中途出了差错：从第 4 轮起，学习率是 60，而不是 0.1。
# `epochs` 负责训练，每一轮之后给出留出的图片（不参加训练）中认对的个数。

# %% tags=["setup"]
import copy
import dataclasses
import io
import pickle
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from tutorlib import checkpoint, datasets, exercises, facts, pictures, widgets


def everything(split):
    data = datasets.digits(split)
    return next(iter(DataLoader(data, batch_size=len(data))))


images, labels = everything("train")
test_images, test_labels = everything("test")
room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


def make():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(32, 10),
    )


def epochs(model, count=6):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(count):
        optimizer.param_groups[0]["lr"] = 0.1 if epoch < 4 else 60.0
        model.train()
        for _ in range(10):
            picked = torch.randint(len(images), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[picked]), labels[picked]).backward()
            optimizer.step()
        model.eval()
        yield epoch, int((model(test_images).argmax(1) == test_labels).sum())


print("ready:", len(images), "images to learn,", len(test_images), "held out")

# %% [markdown] lang="en"
# ## Wrong first
#
# You keep the `state_dict` of the best epoch. At the end you save it. Whose weights are in the file: those of the `"best"` epoch
# or of the `"last"`?

# %% [markdown] lang="zh"
# ## 先看错误
#
# 你留下最好那一轮的 `state_dict`，训练结束后存盘。文件里是哪一轮的权重：最好的（`"best"`）还是最后的（`"last"`）？

# %% tags=["wrong-first", "predict", "claim:SL-07"]
my_guess = ...  # "best" or "last"

torch.manual_seed(0)
model = make()
highest = -1
for epoch, correct in epochs(model):
    if correct > highest:
        highest, best_epoch = correct, epoch
        best = model.state_dict()  # as in many a training script
        photo = model[1].weight.detach().clone()
torch.save(best, folder / "best.pt")

in_file = torch.load(folder / "best.pt")["1.weight"]
print("the best epoch was", best_epoch, "of", list(range(6)))
print("the file holds its weights:", torch.equal(in_file, photo))
exercises.predict(my_guess, torch="last" if torch.equal(in_file, model[1].weight) else "best")

# %% [markdown] lang="en"
# No error and no warning: `best` quietly became the last model, which is ruined.
#
# ## The idea
#
# `model.state_dict()` is the model's own memory, listed by name. Training writes into that memory. To keep a moment, **copy the
# values**: `copy.deepcopy(model.state_dict())`, or write them to a file at that moment.
#
# Which of these ways copy values?

# %% [markdown] lang="zh"
# 没有报错，没有警告：`best` 悄悄变成了最后的模型，而那个模型已经毁了。
#
# ## 概念
#
# `model.state_dict()` 就是模型自己的内存，只是按名字列了出来。训练正是往这块内存里写。想留住某一刻，就要**复制其中的值**：
# `copy.deepcopy(model.state_dict())`，或者当场写进文件。
#
# 下面哪些做法复制了值？


# %% tags=["claim:SL-07"]
def through_a_file(state):
    torch.save(state, folder / "moment.pt")
    return torch.load(folder / "moment.pt")


ways = {
    "model.state_dict()": lambda state: state,
    "dict(state)": dict,
    "state.copy()": lambda state: state.copy(),
    "copy.deepcopy(state)": copy.deepcopy,
    "torch.save, torch.load": through_a_file,
}
line = nn.Linear(2, 1)
kept = {name: keep(line.state_dict()) for name, keep in ways.items()}
alive = {name: checkpoint.browse(state, line).entries[0].live for name, state in kept.items()}
before = line.weight.detach().clone()
with torch.no_grad():
    line.weight.add_(1)
rows = []
for name, state in kept.items():
    unchanged = torch.equal(state["weight"], before)
    rows.append(
        {"kept by": name, "model's memory": alive[name], "still the old weights": unchanged}
    )
facts.Table("five ways to keep a state, then one step of training", rows)

# %% [markdown] lang="en"
# A dictionary copied with `dict` or `.copy()` is a new list of names over the same tensors.
#
# ## The three functions
#
# `torch.save` writes an object to a file, `torch.load` reads it back, `load_state_dict` puts values into a model. What is such a
# file?

# %% [markdown] lang="zh"
# 用 `dict` 或 `.copy()` 复制字典，只是换了一份名单，张量还是同一批。
#
# ## 三个函数
#
# `torch.save` 把对象写进文件，`torch.load` 读回来，`load_state_dict` 把值放进模型。这种文件里究竟是什么？

# %% tags=["claim:SL-01", "claim:SL-02"]
thing = {"weights": torch.ones(2), "name": "digits", "history": [0.5, 0.25]}
torch.save(thing, folder / "thing.pt")
with zipfile.ZipFile(folder / "thing.pt") as archive:
    for record in archive.infolist():
        name = record.filename.partition("/")[2]
        print(f"{name:24} pickle" if name.endswith(".pkl") else name)
try:
    pickle.loads((folder / "thing.pt").read_bytes())
except pickle.UnpicklingError as error:
    print("pickle alone:", type(error).__name__)
back = torch.load(folder / "thing.pt")
print("torch.load:", back)
weights = torch.load(folder / "thing.pt", map_location="meta")["weights"]
print("on a device of your choice, here meta:", weights.device)

# %% [markdown] lang="en"
# A zip archive, so pickle alone cannot read it. The pickle inside holds the structure, `data/0` the bytes of the tensor. `torch.load` gives plain values and tensors;
# what it refuses is the subject of lesson [18](18_torch_load.ipynb).
#
# ## The name of the file
#
# By custom `.pt` or `.pth`. Does torch look at it?

# %% [markdown] lang="zh"
# 是一个 zip 归档，所以单用 pickle 读不了。里面的 pickle 是结构，`data/0` 是张量的字节。`torch.load` 给出普通的值和张量；
# 它拒绝什么，是第 [18](18_torch_load.ipynb) 课的内容。
#
# ## 文件名
#
# 习惯上用 `.pt` 或 `.pth`。torch 看后缀吗？

# %% tags=["claim:SL-05"]
for name in ("model.pt", "model.pth", "model", "model.txt"):
    torch.save([1, 2], folder / name)
    print(f"{name:9} {torch.load(folder / name)}")
buffer = io.BytesIO()
torch.save([1, 2], buffer)
buffer.seek(0)
print("no file at all:", torch.load(buffer))

# %% [markdown] lang="en"
# No. The suffix is for people.
#
# ## A path is not a state
#
# `load_state_dict` wants the dictionary, not the file.

# %% [markdown] lang="zh"
# 不看，后缀是给人看的。
#
# ## 路径不是状态
#
# `load_state_dict` 要的是字典，不是文件。

# %% tags=["raises-exception", "claim:SL-06"]
make().load_state_dict("best.pt")

# %% [markdown] lang="en"
# ## Into the model
#
# The source is float64, the model float32. After loading: is the weight still the same object? What is its dtype?

# %% [markdown] lang="zh"
# ## 放进模型
#
# 来源是 float64，模型是 float32。加载之后：权重还是原来那个对象吗？数据类型是什么？

# %% tags=["predict", "claim:SL-03"]
my_guess = ...  # [same object?, dtype], for example [False, "float64"]

source = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
source[1].running_mean.fill_(7)
target = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
weight = target[0].weight
print(target.load_state_dict(source.state_dict()))
print("values arrived:", torch.equal(weight, source[0].weight.float()))
print("buffers too:", target[1].running_mean.tolist())
outcome = [target[0].weight is weight, str(weight.dtype).removeprefix("torch.")]
target.load_state_dict(source.state_dict(), assign=True)
now = target[0].weight
print("with assign=True: same object:", now is weight, "| dtype:", now.dtype)
exercises.predict(my_guess, torch=outcome)

# %% [markdown] lang="en"
# Values are copied into the tensors that are there. So an optimizer made before keeps working. The float64 values were rounded, and
# nobody said so. `assign=True` puts the loaded tensors themselves in place. Then make the optimizer after loading: an older one still
# holds the old tensors.
#
# ## The recipe
#
# Save the state, make a new model, fill it, call `eval()`. Are the outputs equal bit for bit?

# %% [markdown] lang="zh"
# 值复制进了原有的张量，所以先前造好的优化器照样能用。float64 的值被舍入了，没有任何提示。
# `assign=True` 则把加载来的张量本身换上去。这时要先加载再造优化器：先造的那个还握着旧张量。
#
# ## 标准做法
#
# 存下状态，造一个新模型，填进去，调用 `eval()`。输出逐位相同吗？

# %% tags=["claim:SL-04"]
model = make()
correct = [correct for _, correct in epochs(model, count=4)]
torch.save(model.state_dict(), folder / "model.pt")

loaded = make()
loaded.load_state_dict(torch.load(folder / "model.pt"))
loaded.eval()
print("the last of four epochs is the best:", correct[-1] == max(correct))
print("equal outputs, bit for bit:", torch.equal(model(test_images), loaded(test_images)))

# %% [markdown] lang="en"
# ## "Only the parameters are needed"
#
# So says one of the notes. Save the parameters only, and load them. A **strict** load, the default, refuses missing and unexpected
# keys. You add `strict=False`. Does the model now give the outputs of the one you saved?

# %% [markdown] lang="zh"
# ## “只需要参数”
#
# 有一篇笔记这样说。那就只存参数再加载。默认的**严格**（strict）加载遇到缺键或多键都会拒绝，于是你加上 `strict=False`。
# 这个模型的输出与存下的那个一样吗？

# %% tags=["predict", "claim:SL-08"]
my_guess = ...  # True or False: equal outputs

torch.save(dict(model.named_parameters()), folder / "parameters.pt")
only_parameters = torch.load(folder / "parameters.pt")
incomplete = make()
try:
    incomplete.load_state_dict(only_parameters)
except RuntimeError as error:
    print(str(error).splitlines()[1].strip())
print("not in the file:", sorted(set(model.state_dict()) - set(only_parameters)))
incomplete.load_state_dict(only_parameters, strict=False)
incomplete.eval()
exercises.predict(my_guess, torch=torch.equal(model(test_images), incomplete(test_images)))

# %% [markdown] lang="en"
# The running statistics of batch norm are buffers. Without them `eval()` uses the mean 0 and variance 1 of a new layer. Save
# the whole `state_dict`. (Torch fills `num_batches_tracked` in by itself; lesson [23](23_prefixes.ipynb) says when.)
#
# ## And the mode?
#
# You call `eval()`, save, and load into a new model. Is the new model in training mode?

# %% [markdown] lang="zh"
# 批归一化的滑动统计量是缓冲区。没有它们，`eval()` 用的是新层的均值 0、方差 1。请存整个 `state_dict`。
# （`num_batches_tracked` 由 torch 自己补上，何时会补见第 [23](23_prefixes.ipynb) 课。）
#
# ## 那么模式呢
#
# 你先调用 `eval()`，存盘，再加载到新模型。新模型处于训练模式吗？

# %% tags=["predict", "claim:SL-09"]
my_guess = ...  # True or False: in training mode

model.eval()
torch.save(model.state_dict(), folder / "model.pt")
fresh = make()
fresh.load_state_dict(torch.load(folder / "model.pt"))
mode = fresh.training

few = test_images[:4]
twice = fresh(few), fresh(few)
print("training mode: the same images twice, equal outputs:", torch.equal(*twice))
moved = not torch.equal(fresh[2].running_mean, model[2].running_mean)
print("training mode: using it has changed its running mean:", moved)
fresh.load_state_dict(torch.load(folder / "model.pt"))
fresh.eval()
twice = fresh(few), fresh(few)
as_saved = torch.equal(twice[0], model(few))
print("eval mode: equal outputs:", torch.equal(*twice), "| as saved:", as_saved)
unchanged = torch.equal(fresh[2].running_mean, model[2].running_mean)
print("eval mode: running mean unchanged:", unchanged)
print("eval mode: gradients are still recorded:", twice[0].requires_grad)
exercises.predict(my_guess, torch=mode)

# %% [markdown] lang="en"
# In training mode dropout drops units, and batch norm uses the batch and moves its statistics: using the model damages it.
# `eval()` switches to **evaluation mode** and stops both. It does not stop gradients; `torch.no_grad()` does.
#
# ## Explore: what have you kept?
#
# The folded cell only draws whether you still hold the best model after each epoch.

# %% [markdown] lang="zh"
# 训练模式下，dropout 会丢弃单元，批归一化用当前批次并更新统计量：用一次就改坏一点。
# `eval()` 切换到**评估模式**（evaluation mode），让两者停下；它不停止记录梯度，那是 `torch.no_grad()` 的事。
#
# ## 动手探索：你留下的是什么
#
# 折叠的单元格只负责画图：每一轮之后，你手里的是否仍是最好的模型。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclasses.dataclass(frozen=True, repr=False)
class Kept(facts.Facts):
    """For each way to keep a state: after each epoch, is it the best model so far?"""

    compared: str
    same: dict

    def summary(self):
        lost = [way for way, epochs in self.same.items() if not epochs[-1]]
        lost = f"{len(lost)} of {len(self.same)} ways"
        return f"{self.compared} at the end: {lost} have lost the best model"

    def rows(self):
        return [
            {"kept by": way}
            | {f"epoch {n}": "best" if same else "not the best" for n, same in enumerate(epochs)}
            for way, epochs in self.same.items()
        ]

    def ruler(self):
        tracks = [
            {
                "name": way,
                "cells": [
                    {"text": str(n), "state": "same" if same else "different"}
                    for n, same in enumerate(epochs)
                ],
            }
            for way, epochs in self.same.items()
        ]
        return {"unit": "epoch", "tracks": tracks}


# %% [markdown] lang="en"
# Each picture trains real epochs. A cell marked as different is an epoch after which you no longer hold the best model.
#
# Two things to change: set `count` to 4, so that training stops before the accident. Then set `count` to 6 and `compare` to `outputs`:
# the outputs are lost with the weights. While each epoch is the best so far, nobody notices.

# %% [markdown] lang="zh"
# 每张图都真实训练了若干轮。标为不同的格子表示：那一轮之后，你手里的已经不是最好的模型。
#
# 试着改两处：把 `count` 改成 4，让训练在出事之前结束；再把 `count` 改回 6，把 `compare` 改成 `outputs`：
# 输出和权重一起丢了。只要每一轮都是目前最好的，就没有人发现。


# %% tags=["explore", "claim:SL-07"]
spare = make().eval()


def outputs_of(state):
    spare.load_state_dict(state)
    with torch.no_grad():
        return spare(test_images)


def keep(count, compare):
    torch.manual_seed(0)
    model = make()
    highest, held, same = -1, {}, {way: [] for way in ways}
    for _, correct in epochs(model, count):
        if correct > highest:
            highest = correct
            held = {way: copied(model.state_dict()) for way, copied in ways.items()}
            weights = [value.clone() for value in model.state_dict().values()]
            outputs = outputs_of(model.state_dict())
        for way, state in held.items():
            if compare == "outputs":
                same[way].append(torch.equal(outputs_of(state), outputs))
            else:
                same[way].append(all(map(torch.equal, state.values(), weights)))
    return Kept(compare, same)


widgets.explore(keep, pictures.ruler, count=[6, 5, 4], compare=["weights", "outputs"])

# %% [markdown] lang="en"
# ## Exercise 1: keep the best
#
# Write `keep_best`. It trains for some epochs and returns the state of the epoch with the highest score.

# %% [markdown] lang="zh"
# ## 练习 1：留住最好的
#
# 写出 `keep_best`。它训练若干轮，返回分数最高那一轮的状态。


# %% tags=["exercise:17_keep_best"]
def keep_best(model, train_epoch, score, epochs):
    """In each epoch call train_epoch(model), then score(model); return the state of the best."""
    ...


# solution
def keep_best(model, train_epoch, score, epochs):
    best, highest = None, None
    for _ in range(epochs):
        train_epoch(model)
        now = score(model)
        if highest is None or now > highest:
            best, highest = copy.deepcopy(model.state_dict()), now
    return best


# %% tags=["check"]
exercises.check("17_keep_best", keep_best)  # stuck? exercises.hint("17_keep_best")

# %% [markdown] lang="en"
# ## Exercise 2: restore
#
# Write `restore`. It gets a function that makes the model, and the path of a saved state. It returns a model that is ready for use.

# %% [markdown] lang="zh"
# ## 练习 2：取回
#
# 写出 `restore`：给你造模型的函数和状态文件的路径，返回一个可以直接使用的模型。


# %% tags=["exercise:17_restore"]
def restore(make, path):
    """A model with the saved values, ready for inference."""
    ...


# solution
def restore(make, path):
    model = make()
    model.load_state_dict(torch.load(path))
    return model.eval()


# %% tags=["check"]
exercises.check("17_restore", restore)  # stuck? exercises.hint("17_restore")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements in the style of the notes. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法，写法与笔记相同。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:SL-01", "claim:SL-07"]
my_guess = ...  # 1, 2, 3 or 4

trained = nn.Linear(1, 1, bias=False)
state = trained.state_dict()
torch.save(state, folder / "state.pt")
snapshot = copy.copy(state)
with torch.no_grad():
    trained.weight.fill_(9)
statements = {
    1: zipfile.is_zipfile(folder / "state.pt"),
    2: torch.load(folder / "state.pt")["weight"].item() != 9,
    3: snapshot["weight"].item() != 9,
    4: list(torch.load(folder / "state.pt")) == ["weight"],
}
print("the file holds the old weight:", statements[2])
print("in the snapshot:", snapshot["weight"].item())
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# `copy.copy` is a shallow copy, as `dict` is. What is in the file cannot change any more.

# %% [markdown] lang="zh"
# `copy.copy` 与 `dict` 一样，只是浅拷贝（shallow copy）。写进文件的就不会再变了。

# %% [markdown] lang="en"
# ## Recap
#
# A `state_dict` that you keep goes on changing: copy its values or save it at once. Loading copies values into the model that is
# there. The mode is not in the file: call `eval()` after loading.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, the best model is the last one | `best = model.state_dict()` | Wrong first, Explore |
# | `Expected state_dict to be dict-like` | a path instead of a state | A path is not a state |
# | `Missing key(s) in state_dict: "2.running_mean"` | only parameters were saved | "Only the parameters are needed" |
# | no message, other outputs each time | training mode | And the mode? |
#
# What next: lesson [18](18_torch_load.ipynb), what `torch.load` refuses, and why.

# %% [markdown] lang="zh"
# ## 小结
#
# 你留下的 `state_dict` 会继续变化：请复制其中的值，或者立刻存盘。加载就是把值复制进已有的模型。
# 文件里没有模式：加载之后要调用 `eval()`。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，最好的模型变成了最后的模型 | `best = model.state_dict()` | 先看错误、动手探索 |
# | `Expected state_dict to be dict-like` | 给的是路径，不是状态 | 路径不是状态 |
# | `Missing key(s) in state_dict: "2.running_mean"` | 只存了参数 | “只需要参数” |
# | 没有报错，每次输出都不同 | 处于训练模式 | 那么模式呢 |
#
# 下一步：第 [18](18_torch_load.ipynb) 课，`torch.load` 拒绝什么，为什么。

# %%
exercises.progress("17")
