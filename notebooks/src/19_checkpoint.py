# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "General checkpoints: stop, and go on as if nothing had happened", zh: "通用检查点：停下来，再若无其事地继续"}
#     sections:
#       - "000: Saving and Loading a General Checkpoint in PyTorch"
#       - "000: 1. Introduction"
#       - "000: 2. Save the general checkpoint"
#       - "000: 3. Load the general checkpoint"
#       - "001: 2.4 保存和加载 `state_dict` (没有训练完，还会继续训练)"
#       - "003: Saving & Loading a General Checkpoint for Inference and/or Resuming Training"
#       - "004: 3. ... 2）（3）保存/加载"
#     minutes: 60
# ---

# %% [markdown] lang="en"
# # 19 · General checkpoints: stop, and go on as if nothing had happened
#
# **You will be able to** say what a checkpoint must hold, prove that resumed training is the training that never stopped,
# and save so that a crash loses nothing.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | to have written a training loop, lessons [10](10_start_methods.ipynb), [15](15_exactly_once.ipynb), [18](18_torch_load.ipynb) | 60 | Saving and Loading a General Checkpoint | [简体中文](../zh/19_checkpoint.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 19 · 通用检查点：停下来，再若无其事地继续
#
# **学完本课，你能够**：说出一份检查点（checkpoint）必须装什么；证明恢复后的训练与从未停过的训练完全相同；保存时不怕中途崩溃。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 写过训练循环，第 [10](10_start_methods.ipynb)、[15](15_exactly_once.ipynb)、[18](18_torch_load.ipynb) 课 | 60 | Saving and Loading a General Checkpoint | [English](../en/19_checkpoint.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# A small network learns to read digits. `make` builds everything that training needs. `step` does one step and returns the loss.
# Each step draws its own random batch, and the network drops random units.

# %% [markdown] lang="zh"
# ## 准备
#
# 一个小网络学习认数字。`make` 造出训练需要的一切。`step` 走一步并返回损失。
# 每一步随机抽一个批次，网络也会随机丢弃一些单元。

# %% tags=["setup"]
import pickle
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from tutorlib import checkpoint, datasets, exercises, facts, pictures, widgets

# %load_ext tutorlib.cells
digits = datasets.digits("train")
images, labels = next(iter(DataLoader(digits, batch_size=len(digits))))
room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


def make():
    layers = [nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)]
    model = nn.Sequential(*layers)
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "random": checkpoint.RandomState(),
    }


def step(model, optimizer, random):
    picked = torch.randint(len(images), (64,))
    loss = nn.functional.cross_entropy(model(images[picked]), labels[picked])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


print("ready:", len(images), "images")

# %% [markdown] lang="en"
# ## Wrong first
#
# You train four steps, save the model, and go home. Tomorrow you load the model and train four more.
# The random state is set right for you, with `torch.set_rng_state`. (The part `RandomState` will do that later, in a checkpoint.) Only
# the optimizer is new. Is that the same training?
#
# Write your prediction: the first step (0 to 7) whose loss differs from a run that never stopped. Then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 你训练四步，保存模型，下班。第二天加载模型，再训练四步。
# 随机状态已经用 `torch.set_rng_state` 替你恢复好（以后在检查点里由 `RandomState` 这个部分来做），只有优化器是新的。这还是同一次训练吗？
#
# 先写下你的预测：从第几步（0 到 7）起，损失与从未停过的那次不同？再运行单元格。

# %% tags=["wrong-first", "predict", "claim:CK-02"]
my_guess = ...  # a step from 0 to 7, or None if they never differ

torch.manual_seed(0)
straight = make()
through = [step(**straight) for _ in range(8)]

torch.manual_seed(0)
stopped = make()
resumed = [step(**stopped) for _ in range(4)]
torch.save(stopped["model"].state_dict(), folder / "model.pt")
random_state = torch.get_rng_state()

tomorrow = make()
tomorrow["model"].load_state_dict(torch.load(folder / "model.pt"))
torch.set_rng_state(random_state)
resumed += [step(**tomorrow) for _ in range(4)]

same = [a == b for a, b in zip(through, resumed, strict=True)]
print("same loss at each step:", same)
exercises.predict(my_guess, torch=same.index(False))

# %% [markdown] lang="en"
# Step 4 still agrees: its loss is computed before the optimizer moves anything. From step 5 on it is another training.
# There was no message.
#
# ## The idea
#
# An optimizer remembers. With momentum it keeps one buffer for each parameter, and each step changes it.
# A **general checkpoint** holds everything that changes during training: the model, the optimizer, where you are.

# %% [markdown] lang="zh"
# 第 4 步还相同：它的损失在优化器动手之前就算好了。从第 5 步起，这已是另一次训练。
# 没有任何提示。
#
# ## 概念
#
# 优化器有记忆。带动量（momentum）时，它为每个模型参数存一个缓冲区，每一步都会改变它。
# **通用检查点**装下训练中会变的一切：模型、优化器、训练到了哪里。

# %%
state = straight["optimizer"].state_dict()
rows = []
for number, (name, parameter) in enumerate(straight["model"].named_parameters()):
    buffer = state["state"][number]["momentum_buffer"]
    shapes = {"shape": tuple(parameter.shape), "momentum buffer": tuple(buffer.shape)}
    rows.append({"number": number, "parameter": name} | shapes)
facts.Table("what the optimizer remembers", rows)

# %% [markdown] lang="en"
# The settings are in the state too. You make an optimizer with `lr=99` and load the state of one with `lr=0.1`.
# Which learning rate does it have afterwards?

# %% [markdown] lang="zh"
# 设置也在状态里。你用 `lr=99` 造一个优化器，再加载一个 `lr=0.1` 的状态。
# 之后它的学习率是多少？

# %% tags=["predict", "claim:CK-02"]
my_guess = ...  # 99 or 0.1

fresh = make()["model"]
hot = torch.optim.SGD(fresh.parameters(), lr=99.0, momentum=0.5)
hot.load_state_dict(state)
exercises.predict(my_guess, torch=hot.param_groups[0]["lr"])

# %% [markdown] lang="en"
# The loaded one. Do you want another learning rate? Set it after loading.
#
# ## Matched by position
#
# The keys of that state are numbers, not names. So what happens when the optimizer belongs to quite another model?
# Predict: `"ValueError"`, or `"loads"`?

# %% [markdown] lang="zh"
# 是加载来的那个。想换学习率，请在加载之后再设。
#
# ## 按位置匹配
#
# 这份状态的键是编号，不是名字。那么，如果优化器属于完全不同的模型，会怎样？
# 预测：`"ValueError"` 还是 `"loads"`（加载成功）？


# %% tags=["predict", "claim:CK-05"]
def load_into(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        return f"ValueError: {error}"
    parameter = optimizer.param_groups[0]["params"][0]
    buffer = optimizer.state[parameter]["momentum_buffer"]
    return f"loads; parameter {tuple(parameter.shape)}, buffer {tuple(buffer.shape)}"


my_guess = ...  # "ValueError" or "loads"

other_shapes = load_into(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)))
print("4 parameters of other shapes:", other_shapes)
print("2 parameters:", load_into(nn.Linear(3, 5)))
exercises.predict(my_guess, torch=other_shapes.split(";")[0].split(":")[0])

# %% [markdown] lang="en"
# Only the number of parameters is checked. Wrong shapes go in without a word, and the crash comes later, in a training step.
#
# ## Saving: one dictionary, one file
#
# By custom the file is called `.tar`. Is it a tar archive? And what becomes of a loss that you store as a tensor?

# %% [markdown] lang="zh"
# 只检查参数的个数。形状不对也能悄悄装进去，等到某一步训练才崩溃。
#
# ## 保存：一个字典，一个文件
#
# 按习惯，文件后缀写作 `.tar`。它真的是 tar 归档吗？以张量存进去的损失又会变成什么？

# %% tags=["claim:CK-04", "claim:CK-06", "claim:CK-08"]
model, optimizer = straight["model"], straight["optimizer"]
loss = nn.functional.cross_entropy(model(images[:64]), labels[:64])
for epoch in range(3):  # each epoch overwrites the file
    torch.save(
        {
            "epoch": epoch,
            "loss": loss,
            "loss as a number": loss.item(),
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
        },
        folder / "last.tar",
    )

content = torch.load(folder / "last.tar")
number = content["loss as a number"]
facts.Table(
    "last.tar",
    [
        {"question": "opens as zip?", "answer": zipfile.is_zipfile(folder / "last.tar")},
        {"question": "opens as tar?", "answer": tarfile.is_tarfile(folder / "last.tar")},
        {"question": "epochs in the file", "answer": [content["epoch"]]},
        {"question": "loss comes back as", "answer": type(content["loss"]).__name__},
        {"question": "and wants gradients?", "answer": content["loss"].requires_grad},
        {"question": "and remembers how it was computed?", "answer": not content["loss"].is_leaf},
        {"question": "loss.item() comes back as", "answer": type(number).__name__},
    ],
)

# %% [markdown] lang="en"
# A tensor comes back as a tensor that wants gradients. So store `loss.item()`.
#
# The notes end the dictionary with a line of three dots. It stands for "more entries". Can Python read it?

# %% [markdown] lang="zh"
# 张量读回来仍是需要梯度的张量。所以存 `loss.item()`。
#
# 笔记里的字典以一行省略号结尾，意思是“其余条目”。Python 读得懂吗？

# %% tags=["claim:CK-07"]
snippets = {
    "dots as a dictionary entry": "torch.save({\n    'epoch': 3,\n    ...\n}, path)",
    "dots as a value": "torch.save({\n    'epoch': ...,\n}, path)",
}
for name, snippet in snippets.items():
    try:
        compile(snippet, name, "exec")
        print(f"{name}: compiles")
    except SyntaxError as error:
        print(f"{name}: {type(error).__name__}")

# %% [markdown] lang="en"
# ## Loading: first make, then fill
#
# A checkpoint holds values, not objects. You make the model and the optimizer as before, then fill both.
# Then you choose: `eval()` to use the model, `train()` to go on. The file does not know which.

# %% [markdown] lang="zh"
# ## 加载：先造，再填
#
# 检查点装的是值，不是对象。先照原样造出模型和优化器，再把两者填上。
# 最后由你选：要使用模型就写 `eval()`，要继续训练就写 `train()`。文件里没有这个信息。

# %% tags=["claim:CK-05", "claim:CK-08"]
parts = make()
parts["model"].load_state_dict(content["model_state_dict"])
parts["optimizer"].load_state_dict(content["optimizer_state_dict"])
dropout = parts["model"][3]
pairs = zip(parts["model"].parameters(), model.parameters(), strict=True)
print("model filled:", all(torch.equal(loaded, saved) for loaded, saved in pairs))
print("go on after epoch", content["epoch"], "| loss is a number:", isinstance(number, float))
parts["model"].eval()
print("eval(): drops units:", dropout.training)
parts["model"].train()
print("train(): drops units:", dropout.training)

# %% [markdown] lang="en"
# What lives outside the model is not in its state. A separate embedding layer must be saved under its own name.

# %% [markdown] lang="zh"
# 模型之外的东西不在它的状态里。单独的嵌入层要用自己的名字另存。

# %% tags=["claim:CK-03"]
embedding = nn.Embedding(5, 2)
print("keys of the model:", list(model.state_dict()))
print("embedding among them:", any("embedding" in key for key in model.state_dict()))
torch.save({"model": model.state_dict(), "embedding": embedding.state_dict()}, folder / "both.tar")
print("saved by its own name:", tuple(torch.load(folder / "both.tar")["embedding"]["weight"].shape))

# %% [markdown] lang="en"
# ## Explore: what a resume needs
#
# This ruler is a measurement. Training goes straight through. Then it stops after `before` steps, is saved, made anew and resumed.
# Then once more for each part, with this part forgotten. Losses are compared bit by bit.
#
# Two things to change: set `momentum` to 0; then set `dropout` to 0 as well. Which parts are still needed, and why `random`?

# %% [markdown] lang="zh"
# ## 动手探索：恢复训练需要什么
#
# 这把尺子是测量结果。先一口气训练到底；再训练 `before` 步停下，保存，重新造出来，恢复。
# 然后每次忘掉一个部分，各再来一遍。损失逐位比较。
#
# 试着改两处：把 `momentum` 改成 0；再把 `dropout` 也改成 0。哪些部分仍然需要？为什么还需要 `random`？


# %% tags=["explore", "claim:CK-01"]
def resume(before, after, momentum, dropout):
    def made():
        parts = make()
        parts["optimizer"].param_groups[0]["momentum"] = momentum
        parts["model"][3].p = dropout
        return parts

    return checkpoint.resume_proof(made, step, k=before, m=after)


widgets.explore(
    resume,
    pictures.ruler,
    before=[4, 2, 6],
    after=[4, 2],
    momentum=[0.9, 0.0],
    dropout=[0.2, 0.0],
)

# %% [markdown] lang="en"
# With model, optimizer and random state, the resumed training is bit-equal. The notes save only the first two.
# With shuffled data or dropout, their recipe gives another training.
#
# ## Everything, in a new process
#
# A real training has more parts: a scheduler, a gradient scaler for float16, a moving average of the weights, a place in the data.
# `checkpoint.Batches` turns a loader into a part: `next(data)` gives a batch, and the state says which one comes next.
#
# A new process knows only what it can import. So the next cell becomes a module, as in lesson [10](10_start_methods.ipynb).

# %% [markdown] lang="zh"
# 有了模型、优化器和随机状态，恢复后的训练逐位相同。笔记只保存前两样。
# 一旦数据打乱或有 dropout，照它的做法得到的就是另一次训练。
#
# ## 所有部分，换到新进程
#
# 真实的训练还有更多部分：学习率调度器（scheduler）、用于 float16 的梯度缩放器（gradient scaler）、权重的滑动平均、数据读到了哪里。
# `checkpoint.Batches` 把加载器变成一个部分：`next(data)` 给出一个批次，状态记着接下来是哪一个。
#
# 新进程只认识它能导入的东西。所以下面的单元格成为一个模块，与第 [10](10_start_methods.ipynb) 课相同。

# %%
# %%importable whole_training
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from tutorlib import checkpoint, datasets
from tutorlib.samplers import EpochSampler


def make_whole():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.2), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    digits = datasets.digits("train")
    sampler = EpochSampler(len(digits), batch_size=256, seed=1)
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, step_size=5),
        "scaler": torch.amp.GradScaler("cpu"),
        "averaged": AveragedModel(model),
        "data": checkpoint.Batches(sampler, DataLoader(digits, batch_sampler=sampler)),
        "random": checkpoint.RandomState(),
    }


def whole_step(model, optimizer, scheduler, scaler, averaged, data, random):
    images, labels = next(data)
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    scheduler.step()
    averaged.update_parameters(model)
    return loss.item()


# %% [markdown] lang="en"
# The first 4 steps run here, the other 6 in a new process. Each row `without ...` forgets one part; a column says whether this part is bit-equal at
# the end. Which of the seven parts may be forgotten without harm?

# %% [markdown] lang="zh"
# 前 4 步在这里运行，后 6 步在新进程里。每个 `without ...` 行忘掉一个部分；每一列说明：结束时这个部分是否逐位相同。
# 七个部分中，忘掉哪些也无妨？

# %% tags=["predict", "claim:CK-01"]
my_guess = ...  # a set of names, for example {"data", "averaged"}, or set()

whole = checkpoint.resume_proof(make_whole, whole_step, k=4, m=6, process="new")
print(whole)
exercises.predict(my_guess, torch=set(whole.runs[0].equal) - set(whole.needed))

# %% [markdown] lang="en"
# Without the scaler's state only the scaler itself differs. Its scale is a power of two, so no loss and no weight changes. With float16
# a fresh scaler may skip steps, so save it. The average is a model, so its difference counts, though no loss shows it.
# Copy this cell, and put in a `make` and a `step` of your own.
#
# ## A crash while saving
#
# Training overwrites its checkpoint again and again. The machine may die in the middle of it.
# Four times a real process is killed while it writes. After how many kills is the checkpoint lost with `torch.save`?

# %% [markdown] lang="zh"
# 忘了缩放器，只有它自己不同。它的倍数是 2 的幂，损失和权重一位都不变。用 float16 时，新的缩放器可能跳过几步，所以也要保存。
# 滑动平均本身是模型，所以它的差别算数，虽然损失看不出来。
# 换成你自己的 `make` 和 `step`，再运行这个单元格。
#
# ## 保存途中崩溃
#
# 训练会一次又一次覆盖同一份检查点。机器可能正好在中途死机。
# 下面有四次，真实的进程在写文件时突然终止。用 `torch.save`，有几次会丢掉检查点？

# %% tags=["predict"]
my_guess = ...  # 0 to 4

killed = checkpoint.overwrite_killed(torch.save, checkpoint.save, times=4)
print(killed)
exercises.predict(my_guess, torch=killed.outcomes["torch.save"].count("lost"))

# %% [markdown] lang="en"
# `torch.save` empties the old file first. `checkpoint.save` writes a second file beside it, waits until the disk has it,
# and then gives it the old name in one step. At every moment one whole checkpoint is there.
#
# It also refuses at once what could not be loaded tomorrow. A loss from NumPy looks like a number. `torch.save` takes it:

# %% [markdown] lang="zh"
# `torch.save` 先清空旧文件。`checkpoint.save` 在旁边写第二个文件，等磁盘真正写好，再一步换成旧名字。
# 任何时刻都有一份完整的检查点。
#
# 明天加载不了的东西，它今天就拒绝。来自 NumPy 的损失看上去只是一个数，`torch.save` 照收不误：

# %% tags=["raises-exception", "claim:CK-08"]
torch.save({"loss": np.float64(0.25)}, folder / "numpy.pt")
try:
    torch.load(folder / "numpy.pt")
except pickle.UnpicklingError as error:
    print("torch.save saved it; torch.load:", type(error).__name__)
checkpoint.save(folder / "last.pt", model=model, loss=np.float64(0.25))

# %% [markdown] lang="en"
# With a plain number it saves. `checkpoint.resume` fills all parts or none, and hands back the other values.

# %% [markdown] lang="zh"
# 换成普通的数就能保存。`checkpoint.resume` 要么填好所有部分，要么一个也不动，其余的值交还给你。

# %%
saved = checkpoint.save(folder / "last.pt", **straight, epoch=3, loss=0.25)
print(saved)
tomorrow = make()
checkpoint.resume(folder / "last.pt", **tomorrow)

# %% [markdown] lang="en"
# ## Exercise 1: pack
#
# Write the dictionary that goes into the file. It must hold the keys `epoch`, `loss`, `model` and `optimizer`,
# and come back from `torch.load`.

# %% [markdown] lang="zh"
# ## 练习 1：打包
#
# 写出要存进文件的字典。它要有 `epoch`、`loss`、`model`、`optimizer` 四个键，并且能由 `torch.load` 读回来。


# %% tags=["exercise:19_pack"]
def pack(model, optimizer, epoch, loss):
    """The dictionary to save; `loss` is the tensor that the training step computed."""
    ...


# solution
def pack(model, optimizer, epoch, loss):
    return {
        "epoch": epoch,
        "loss": loss.item(),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


# %% tags=["check"]
exercises.check("19_pack", pack)  # stuck? exercises.hint("19_pack")

# %% [markdown] lang="en"
# ## Exercise 2: save without fear
#
# Write `safe_save`. The checker lets `torch.save` break off in the middle. The earlier file must still be whole.
# No other file may stay behind when the save succeeds.

# %% [markdown] lang="zh"
# ## 练习 2：放心保存
#
# 写出 `safe_save`。检查程序会让 `torch.save` 中途断掉，原来的文件必须完好。
# 保存成功时，不能留下别的文件。


# %% tags=["exercise:19_safe_save"]
def safe_save(state, path):
    """Save with torch.save so that `path` holds the earlier or the new state at every moment."""
    ...


# solution
def safe_save(state, path):
    beside = Path(path).with_suffix(".part")
    torch.save(state, beside)
    beside.replace(path)


# %% tags=["check"]
exercises.check("19_safe_save", safe_save)  # stuck? exercises.hint("19_safe_save")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four lines in the style of the notes. Which line is not true? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四行代码，写法与笔记相同。哪一行不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:CK-08"]
my_guess = ...  # 1, 2, 3 or 4

torch.save(model.eval().state_dict(), folder / "eval.tar")
loaded = make()["model"]
loaded.load_state_dict(torch.load(folder / "eval.tar"))
again = torch.load(folder / "last.tar")
lines = {
    1: again["epoch"] == 2,
    2: set(again) >= {"epoch", "loss", "model_state_dict", "optimizer_state_dict"},
    3: loaded.training is model.training,
    4: again["optimizer_state_dict"]["param_groups"][0]["lr"] == 0.1,
}
print("saved in training mode:", model.training, "| after loading:", loaded.training)
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# The mode is no part of the state. `eval()` before saving does not help: call it after loading.

# %% [markdown] lang="zh"
# 模式不是状态的一部分。保存之前调用 `eval()` 没有用，要在加载之后调用。

# %% [markdown] lang="en"
# ## Recap
#
# A checkpoint holds what changes: model, optimizer, random state, where you are. Torch matches optimizer state by position and
# checks no shapes. Write beside the old file, then rename: a crash loses nothing.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, the loss drifts away | optimizer or random state forgotten | Wrong first, Explore |
# | `doesn't match the size of optimizer's group` | another number of parameters | Matched by position |
# | `SyntaxError` | three dots inside a dictionary | Saving: one dictionary, one file |
# | `loss is a numpy.float64, which load would refuse` | a NumPy number in the checkpoint | A crash while saving |
#
# What next: lesson [20](20_several_models.ipynb), with several models in one file, and the best and the latest checkpoint.

# %% [markdown] lang="zh"
# ## 小结
#
# 检查点装下会变的一切：模型、优化器、随机状态、训练到了哪里。torch 按位置匹配优化器状态，不检查形状。
# 先写到旁边，再改名：中途崩溃也不会丢。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，损失越走越偏 | 忘了优化器或随机状态 | 先看错误、动手探索 |
# | `doesn't match the size of optimizer's group` | 参数个数不同 | 按位置匹配 |
# | `SyntaxError` | 字典里的省略号 | 保存：一个字典，一个文件 |
# | `loss is a numpy.float64, which load would refuse` | 检查点里有 NumPy 的数 | 保存途中崩溃 |
#
# 下一步：第 [20](20_several_models.ipynb) 课，一个文件存多个模型，以及最佳与最新的检查点。

# %%
exercises.progress("19")
