# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Several models in one file; best, latest and the last few", zh: "一个文件存多个模型；最佳、最新与最近几份"}
#     sections:
#       - "001: 2.5 把多个模型存进一个文件"
#       - "002: 保存阶段性模型训练过程"
#       - "000: 1. Introduction"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 20 · Several models in one file; best, latest and the last few
#
# **You will be able to** keep several models and optimizers in one file, say whose state each parameter gets,
# and keep the best and the latest checkpoint of a training whatever happens.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [19](19_checkpoint.ipynb) | 50 | Saving multiple models in one file | [简体中文](../zh/20_several_models.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 20 · 一个文件存多个模型；最佳、最新与最近几份
#
# **学完本课，你能够**：把多个模型和优化器存进一个文件；说出每个参数拿到谁的状态；无论发生什么，都保住训练的最佳与最新检查点。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [19](19_checkpoint.ipynb) 课 | 50 | Saving multiple models in one file | [English](../en/20_several_models.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# Two small networks of the **same** architecture learn to read digits. `left` sees only the left half of each picture,
# `right` only the right half. Each has its own optimizer.

# %% [markdown] lang="zh"
# ## 准备
#
# 两个**结构相同**的小网络学习认数字。`left` 只看图像的左半边，`right` 只看右半边。
# 每个网络有自己的优化器（optimizer）。

# %% tags=["setup"]
import copy
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from tutorlib import checkpoint, datasets, exercises, facts, pictures, widgets

digits = datasets.digits("train")
images, labels = next(iter(DataLoader(digits, batch_size=len(digits))))
halves = {"left": images[..., :4].flatten(1), "right": images[..., 4:].flatten(1)}
room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


def make():
    parts = {
        name: nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)) for name in halves
    }
    for name in halves:
        parts[f"optimizer_{name}"] = torch.optim.SGD(parts[name].parameters(), lr=0.1, momentum=0.9)
    return parts


def step(**parts):
    total = 0.0
    for name, half in halves.items():
        optimizer = parts[f"optimizer_{name}"]
        loss = nn.functional.cross_entropy(parts[name](half), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


def reads(model, half):
    """Whether the model names more than half of the digits; guessing names one in ten."""
    with torch.no_grad():
        return (model(halves[half]).argmax(1) == labels).float().mean().item() > 0.5


torch.manual_seed(0)
trained = make()
for _ in range(150):
    step(**trained)
print("ready: both read their half:", [reads(trained[name], name) for name in halves])

# %% [markdown] lang="en"
# ## Wrong first
#
# All four go into one dictionary, and one file. Then someone mixes up two names while loading.
#
# Predict: `"RuntimeError"`, or `"loads"`?

# %% [markdown] lang="zh"
# ## 先看错误
#
# 四样东西放进一个字典，存成一个文件。加载时，有人弄混了两个名字。
#
# 预测：`"RuntimeError"` 还是 `"loads"`（加载成功）？

# %% tags=["wrong-first", "predict", "claim:CK-09"]
my_guess = ...  # "RuntimeError" or "loads"

torch.save({name: part.state_dict() for name, part in trained.items()}, folder / "both.tar")
content = torch.load(folder / "both.tar")
fresh = make()
try:
    fresh["left"].load_state_dict(content["right"])
    fresh["right"].load_state_dict(content["left"])
    outcome = "loads"
except RuntimeError:
    outcome = "RuntimeError"
print("both read their half:", [reads(fresh[name], name) for name in halves])
exercises.predict(my_guess, torch=outcome)

# %% [markdown] lang="en"
# No message, and both models are useless. The keys inside each state are the same: `0.weight`, `0.bias`, ...
# Only the outer name says whose state it is.
#
# ## The idea
#
# One file holds one dictionary. Give each model and each optimizer a **name of its own** in it, the same on both sides.
# Then restore them one by one.

# %% [markdown] lang="zh"
# 没有任何提示，两个模型却都废了。两份状态里面的键完全相同：`0.weight`、`0.bias`……
# 只有外层的名字说明它属于谁。
#
# ## 概念
#
# 一个文件装一个字典。每个模型、每个优化器在其中都有**自己的名字**，存与取两边一致。
# 然后逐个恢复。

# %% tags=["claim:CK-09"]
for name, part in fresh.items():
    part.load_state_dict(content[name])
rows = []
for name in halves:
    pairs = zip(fresh[name].parameters(), trained[name].parameters(), strict=True)
    equal = all(torch.equal(mine, other) for mine, other in pairs)
    rows.append(
        {"model": name, "equal to the saved one": equal, "reads its half": reads(fresh[name], name)}
    )
print("in the file:", list(content))
facts.Table("restored one by one", rows)

# %% [markdown] lang="en"
# `checkpoint.save` and `checkpoint.resume` use the names of the arguments. So the same names stand on both sides by themselves,
# and all parts are filled, or none.

# %% [markdown] lang="zh"
# `checkpoint.save` 和 `checkpoint.resume` 直接用参数名作名字。于是两边的名字自然一致；
# 所有部分要么全部填好，要么一个不动。

# %%
checkpoint.save(folder / "both.pt", **trained, epoch=3)
fresh = make()
checkpoint.resume(folder / "both.pt", **fresh)

# %% [markdown] lang="en"
# `checkpoint.save` also wrote down which optimizer trains which parameters. Now mix up the optimizers. Every shape fits, torch would take them.

# %% [markdown] lang="zh"
# `checkpoint.save` 还记下了每个优化器训练哪些参数。现在把两个优化器弄混。形状处处相符，torch 会照单全收。

# %% tags=["raises-exception"]
mixed = {"optimizer_left": fresh["optimizer_right"], "optimizer_right": fresh["optimizer_left"]}
checkpoint.resume(folder / "both.pt", **{**fresh, **mixed})

# %% [markdown] lang="en"
# ## By position, or by name?
#
# Torch gives the first state to the first parameter, the second to the second. It looks at no name and no shape.
# Someone now lists the biases first. How many of the four momentum buffers of `left` then have a wrong shape?

# %% [markdown] lang="zh"
# ## 按位置，还是按名字？
#
# torch 把第一份状态给第一个参数，第二份给第二个。它不看名字，也不看形状。
# 现在有人把偏置（bias）排在前面。`left` 的四个动量缓冲区里，有几个形状不对？


# %% tags=["predict"]
def biases_first(model):
    return sorted(model.parameters(), key=lambda parameter: parameter.dim())


my_guess = ...  # 0 to 4

model = make()["left"]
optimizer = torch.optim.SGD(biases_first(model), lr=0.1, momentum=0.9)
optimizer.load_state_dict(content["optimizer_left"])
rows = []
for parameter in biases_first(model):
    buffer = optimizer.state[parameter]["momentum_buffer"]
    shapes = {"parameter": tuple(parameter.shape), "buffer": tuple(buffer.shape)}
    rows.append(shapes | {"fits": parameter.shape == buffer.shape})
print(facts.Table("what torch loaded", rows))
model(torch.ones(1, 32)).sum().backward()
try:
    optimizer.step()
except RuntimeError as error:
    print("the first step:", str(error).split(" at ")[0])
exercises.predict(my_guess, torch=sum(not row["fits"] for row in rows))

# %% [markdown] lang="en"
# All four are wrong. Loading said nothing; the first step crashes.
#
# ## Explore: who matched whom
#
# This X-ray reads the file and shows, for each parameter of `left`, whose state torch would give it, and whose state `resume` gives it.
# Nothing is loaded.
#
# Two things to change: set `order` to `as saved`; then set `hidden` to 24. Which rows are refused? One is enough, and `resume` fills
# nothing.

# %% [markdown] lang="zh"
# 四个全错。加载时一声不吭，走第一步就崩溃。
#
# ## 动手探索：谁匹配了谁
#
# 这张 X 光图读取文件，对 `left` 的每个参数显示：torch 会给它谁的状态，`resume` 给它谁的状态。
# 什么也不加载。
#
# 试着改两处：把 `order` 改成 `as saved`；再把 `hidden` 改成 24。哪些行被拒绝？只要有一行，`resume` 就什么也不填。

# %% tags=["explore"]
orders = {
    "biases first": biases_first,
    "as saved": lambda model: list(model.parameters()),
    "reversed": lambda model: list(model.parameters())[::-1],
}


def matched(order, hidden):
    model = nn.Sequential(nn.Linear(32, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.SGD(orders[order](model), lr=0.1, momentum=0.9)
    return checkpoint.match(folder / "both.pt", left=model, optimizer_left=optimizer)


widgets.explore(matched, pictures.tree, order=list(orders), hidden=[16, 24])

# %% [markdown] lang="en"
# With the names in the file, the order of parameters may change between two runs. `resume` finds each its own state.
#
# ## From one optimizer into another
#
# Everybody says that loading copies. Put the state of `optimizer_left` straight into a second optimizer, without a file.
# Then train the first one. Does the momentum of the second one change?

# %% [markdown] lang="zh"
# 文件里有名字，参数的顺序在两次运行之间就可以改变。`resume` 为每个参数找到它自己的状态。
#
# ## 从一个优化器到另一个
#
# 大家都说，加载就是复制。不经过文件，把 `optimizer_left` 的状态直接装进第二个优化器。
# 然后训练第一个。第二个的动量会变吗？

# %% tags=["predict", "claim:CK-10"]
my_guess = ...  # True or False

state = trained["optimizer_left"].state_dict()
ways = {
    "load_state_dict(state)": lambda part: part.load_state_dict(state),
    "load_state_dict(deepcopy(state))": lambda part: part.load_state_dict(copy.deepcopy(state)),
    "through a file": lambda part: checkpoint.resume(folder / "both.pt", optimizer_left=part),
}
others, before = {}, {}
for way, load in ways.items():
    other = make()
    load(other["optimizer_left"])
    others[way] = other["optimizer_left"].state[other["left"][0].weight]["momentum_buffer"]
    before[way] = others[way].clone()
twin = make()["left"]
twin.load_state_dict(trained["left"].state_dict())
weight = twin[0].weight.detach().clone()

step(**trained)
rows = [
    {"what": f"optimizer, {way}", "changed": not torch.equal(others[way], before[way])}
    for way in ways
]
rows.append(
    {"what": "model, load_state_dict(state)", "changed": not torch.equal(twin[0].weight, weight)}
)
print(facts.Table("after one step of the first", rows))
exercises.predict(my_guess, torch=rows[0]["changed"])

# %% [markdown] lang="en"
# A module copies values into its own tensors. An optimizer keeps the very tensors that you give it: two optimizers then share one
# momentum. Until torch 2.0 it made a copy. A file, or `deepcopy`, keeps them apart.
#
# ## Is one file enough to go on?
#
# The proof of lesson [19](19_checkpoint.ipynb), now with four parts. Each is forgotten once.

# %% [markdown] lang="zh"
# 模块把值复制进自己的张量。优化器却直接留用你给的张量：两个优化器于是共用同一份动量。
# 直到 torch 2.0，它都会复制。经过文件，或用 `deepcopy`，两者才互不相干。
#
# ## 一个文件够继续训练吗？
#
# 第 [19](19_checkpoint.ipynb) 课的证明，这次有四个部分。每次忘掉一个。

# %%
checkpoint.resume_proof(make, step, k=3, m=3)

# %% [markdown] lang="en"
# Yes. Nothing here is random, so no random state is needed.
#
# ## Best, latest, and the last few
#
# A training writes many checkpoints. You want the **latest** to go on, the **best** to use, and not all the others on your disk.
# By custom one writes `best = model.state_dict()`. Lesson [17](17_save_load.ipynb) showed why that is no copy.
#
# `checkpoint.Keeper` keeps the last `keep` files and the best one. A file is a copy by nature.
# Seven steps with these validation losses: which files are left?

# %% [markdown] lang="zh"
# 够。这里没有随机的东西，所以不需要随机状态。
#
# ## 最佳、最新与最近几份
#
# 一次训练会写很多检查点。你要用**最新**的继续训练，真正使用**最佳**的，其余的不该占满磁盘。
# 常见写法是 `best = model.state_dict()`。第 [17](17_save_load.ipynb) 课已说明，那不是副本。
#
# `checkpoint.Keeper` 保留最近 `keep` 份和最佳的一份。文件天然就是副本。
# 七步训练，验证损失如下：最后留下哪些文件？

# %% tags=["predict"]
losses = [0.9, 0.6, 0.2, 0.5, float("nan"), 0.4, 0.3]

my_guess = ...  # a list of steps, for example [0, 1, 2]

keeper = checkpoint.Keeper(folder / "run", keep=2, best="loss")
for number, loss in enumerate(losses):
    step(**trained)
    kept = keeper.save(number, {"loss": loss}, **trained)
print(kept)
exercises.predict(my_guess, torch=[row["step"] for row in kept.rows()])

# %% [markdown] lang="en"
# Step 2 is old, but it is the best. Steps 5 and 6 are the last two. NaN is never the best, though no number is smaller than it.
#
# ## Half a file is no file
#
# The machine died while the newest file was copied: half of it is there. From the checkpoint of which step does a new process go on?

# %% [markdown] lang="zh"
# 第 2 步虽旧，却最好。第 5、6 步是最近两份。NaN 永远不是最佳，虽然没有数比它小。
#
# ## 半个文件不算文件
#
# 复制最新文件的途中机器死机，只剩半个文件。新进程会用哪一步的检查点继续？

# %% tags=["predict"]
my_guess = ...  # a step

newest = keeper.latest()
newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])

# As in a new process: all that it knows is in the folder.
again = checkpoint.Keeper(folder / "run", keep=2, best="loss")
tomorrow = make()
resumed = again.resume(**tomorrow)
print("skipped:", [text.split()[0] for text in resumed.skipped])
print("the next step:", again.next)
exercises.predict(my_guess, torch=resumed.values["step"])

# %% [markdown] lang="en"
# Only whole files count: every byte is checked against the checksums in the file. And the older files are removed only after the
# new one was read back. So one whole checkpoint is there at every moment.

# %% [markdown] lang="zh"
# 只有完整的文件才算数：每个字节都与文件里的校验和（checksum）核对。新文件读回无误之后，才删除旧文件。
# 所以任何时刻都有一份完整的检查点。

# %%
for number in (again.next, again.next + 1):
    step(**tomorrow)
    kept = again.save(number, {"loss": 0.35}, **tomorrow)
print("best is still step", kept.best)
facts.Table("after going on", kept.rows())

# %% [markdown] lang="en"
# ## Exercise 1: one dictionary for all
#
# Write the class. `pack` gets models by name and optimizers by name (the same names), and returns one dictionary for `torch.save`.
# `unpack` gets fresh ones and fills them from that dictionary.

# %% [markdown] lang="zh"
# ## 练习 1：一个字典装下所有
#
# 写出这个类。`pack` 得到按名字存放的模型和优化器（名字相同），返回一个可供 `torch.save` 使用的字典。
# `unpack` 得到全新的模型和优化器，用这个字典填好它们。


# %% tags=["exercise:20_pack"]
class Suitcase:
    def pack(self, models, optimizers):
        """One dictionary with all states; both arguments are dictionaries with the same keys."""
        ...

    def unpack(self, content, models, optimizers):
        """Fill all of them from what pack returned."""
        ...


# solution
class Suitcase:
    def pack(self, models, optimizers):
        return {
            "models": {name: model.state_dict() for name, model in models.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        }

    def unpack(self, content, models, optimizers):
        for name, model in models.items():
            model.load_state_dict(content["models"][name])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])


# %% tags=["check"]
exercises.check("20_pack", Suitcase)  # stuck? exercises.hint("20_pack")

# %% [markdown] lang="en"
# ## Exercise 2: what may go?
#
# `losses` is a list, one number for each step so far. Return the steps whose files may be removed, in order:
# all but the last `keep` and the best. The best is the smallest loss, the earliest if two are equal. NaN is never the best.

# %% [markdown] lang="zh"
# ## 练习 2：哪些可以删？
#
# `losses` 是列表，到目前为止每步一个数。按顺序返回可以删除的步：除了最近 `keep` 步和最佳的一步，其余都可删。
# 最佳是最小的损失；两个相等时取较早的。NaN 永远不是最佳。


# %% tags=["exercise:20_remove"]
def remove(losses, keep):
    """The steps whose files may be removed, for example remove([0.3, 0.1, 0.2], keep=1) == [0]."""
    ...


# solution
def remove(losses, keep):
    steps = range(len(losses))
    rated = [step for step in steps if losses[step] == losses[step]]  # NaN is not equal to itself
    best = min(rated, key=lambda step: losses[step], default=None)
    return [step for step in steps[:-keep] if step != best]


# %% tags=["check"]
exercises.check("20_remove", remove)  # stuck? exercises.hint("20_remove")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four lines. Which line is not true? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四行代码。哪一行不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:CK-10"]
my_guess = ...  # 1, 2, 3 or 4

teacher, student = make(), make()
step(**teacher)
student["left"].load_state_dict(teacher["left"].state_dict())
student["optimizer_left"].load_state_dict(teacher["optimizer_left"].state_dict())
theirs = teacher["optimizer_left"].state[teacher["left"][0].weight]["momentum_buffer"]
mine = student["optimizer_left"].state[student["left"][0].weight]["momentum_buffer"]
lines = {
    1: sorted(content) == ["left", "optimizer_left", "optimizer_right", "right"],
    2: torch.equal(student["left"][0].weight, teacher["left"][0].weight),
    3: student["left"][0].weight.data_ptr() != teacher["left"][0].weight.data_ptr(),
    4: mine.data_ptr() != theirs.data_ptr(),
}
print("weights apart:", lines[3], "| momentum apart:", lines[4])
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# The model copied, the optimizer did not: two optimizers, one momentum.

# %% [markdown] lang="zh"
# 模型复制了，优化器没有：两个优化器共用一份动量。

# %% [markdown] lang="en"
# ## Recap
#
# One file, one dictionary, a name for each part: only the name says whose state it is. Torch matches optimizer state by position,
# `checkpoint.resume` by name and shape. Keep the best, the latest and the last few as files, and count only whole ones.
#
# | Message | Cause | Where |
# |---|---|---|
# | no message, a useless model | two entries mixed up | Wrong first |
# | `belongs to other parameters` | the optimizer of another model | The idea |
# | `The size of tensor a (32) must match` in a training step | another order of parameters | By position, or by name? |
# | no message, the second optimizer goes astray | two optimizers share their momentum | From one optimizer into another |
#
# What next: lesson [21](21_warm_start.ipynb), where only a part of a model comes from a file.

# %% [markdown] lang="zh"
# ## 小结
#
# 一个文件，一个字典，每部分一个名字：只有名字说明状态属于谁。torch 按位置匹配优化器状态，`checkpoint.resume` 按名字和形状。
# 把最佳、最新和最近几份存成文件，只有完整的才算数。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | 没有报错，模型却废了 | 弄混了两个条目 | 先看错误 |
# | `belongs to other parameters` | 用了另一个模型的优化器 | 概念 |
# | 训练时 `The size of tensor a (32) must match` | 参数顺序变了 | 按位置，还是按名字？ |
# | 没有报错，第二个优化器更新异常 | 两个优化器共用动量 | 从一个优化器到另一个 |
#
# 下一步：第 [21](21_warm_start.ipynb) 课，模型只有一部分来自文件。

# %%
exercises.progress("20")
