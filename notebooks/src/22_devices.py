# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Devices: saved there, loaded here", zh: "设备：存在那里，加载到这里"}
#     sections:
#       - "001: 2.7 保存在 GPU, 加载到 CPU"
#       - "001: 2.8 保存在 GPU, 加载到 GPU"
#       - "001: 2.9 保存在 CPU, 加载到 GPU"
#       - "002: GPU上保存，CPU上加载"
#       - "003: Saving & Loading Model Across Devices"
#       - "004: 3. ... 3）（1）保存到 GPU，加载到 CPU"
#       - "004: 3. ... 3）（2）保存到 GPU，加载到 GPU"
#       - "004: 3. ... 3）（3）保存到 CPU，加载到 GPU"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 22 · Devices: saved there, loaded here
#
# **You will be able to** load any file on any machine, say on which device each tensor ends, and move a model and its input
# together.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [17](17_save_load.ipynb) and [19](19_checkpoint.ipynb); no GPU | 50 | Saving and loading a model across devices | [简体中文](../zh/22_devices.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 22 · 设备：存在那里，加载到这里
#
# **学完本课，你能够**：在任何机器上加载任何文件；说出每个张量最后在哪个设备上；把模型和输入一起搬过去。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [17](17_save_load.ipynb)、[19](19_checkpoint.ipynb) 课；不需要 GPU | 50 | Saving and loading a model across devices | [English](../en/22_devices.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# You need no GPU. If you have one, the first lines hide it, so that everybody sees the same.
#
# A file remembers the device of each tensor by a **tag** such as `cuda:1`. `write_tagged` writes the file that a machine with
# this device would have written.

# %% [markdown] lang="zh"
# ## 准备
#
# 不需要 GPU。如果你有，开头几行会把它藏起来，让所有人看到相同的结果。
#
# 文件用**标签**（tag）记住每个张量所在的设备，例如 `cuda:1`。`write_tagged` 写出的文件，与有那个设备的机器写出来的一样。

# %% tags=["setup"]
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import functools
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tutorlib import checkpoint, exercises, facts, pictures, widgets

room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)
model = nn.Linear(2, 2)
files = {device: folder / f"{device.replace(':', '')}.pt" for device in ("cpu", "cuda:0", "cuda:1")}
for device, path in files.items():
    checkpoint.write_tagged(path, model.state_dict(), device)
print("ready:", [checkpoint.inspect(path).tensors[0].device for path in files.values()])

# %% [markdown] lang="en"
# ## Wrong first
#
# A colleague trained on the second GPU of a large machine and sends you the weights. You load them on your laptop.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 同事在一台大机器的第二块 GPU 上训练，把权重发给你。你在自己的笔记本电脑上加载。

# %% tags=["wrong-first", "raises-exception", "claim:DV-02"]
torch.load(files["cuda:1"])

# %% [markdown] lang="en"
# ## The idea
#
# The values in the file are plain bytes. Only the tag says `cuda:1`, and torch follows it: it copies each tensor to the device of the
# tag. **`map_location`** changes the tag while loading.
#
# Four forms of it: a name, a device, a dictionary from tag to device, a function. Predict: does the dictionary
# `{"cuda:0": "cpu"}` load this file?

# %% [markdown] lang="zh"
# ## 概念
#
# 文件里的值只是字节，写着 `cuda:1` 的只有标签。torch 照标签办：把每个张量复制到标签所说的设备上。
# **`map_location`** 在加载时改写标签。
#
# 它有四种写法：设备名、设备对象、从标签到设备的字典、函数。预测：字典 `{"cuda:0": "cpu"}` 能加载这个文件吗？


# %% tags=["predict", "claim:DV-02"]
def outcome(path, **arguments):
    try:
        state = torch.load(path, **arguments)
    except RuntimeError as error:
        return type(error).__name__
    return str(state["weight"].device)


my_guess = ...  # True or False: it loads

forms = {
    "nothing": None,
    '"cpu"': "cpu",
    'torch.device("cpu")': torch.device("cpu"),
    '{"cuda:1": "cpu"}': {"cuda:1": "cpu"},
    "lambda storage, tag: storage": lambda storage, tag: storage,
    '{"cuda:0": "cpu"}': {"cuda:0": "cpu"},
}
rows = [
    {"map_location": name, "outcome": outcome(files["cuda:1"], map_location=form)}
    for name, form in forms.items()
]
print(facts.Table("a file saved on cuda:1", rows))
exercises.predict(my_guess, torch=rows[-1]["outcome"] == "cpu")

# %% [markdown] lang="en"
# A dictionary must name the tag exactly. `"cpu"` needs to know nothing about the file.
#
# ## GPU to CPU
#
# The notes load with `map_location=torch.device("cpu")`. That holds. And for a file that was saved on the CPU it changes nothing: it is a
# safe habit.

# %% [markdown] lang="zh"
# 字典必须准确写出标签；`"cpu"` 则不必知道文件里写了什么。
#
# ## 从 GPU 到 CPU
#
# 笔记用 `map_location=torch.device("cpu")` 加载，这个做法成立。对在 CPU 上保存的文件，它什么也不改变：这是一个稳妥的习惯。

# %% tags=["claim:DV-03"]
for device, path in files.items():
    mine = nn.Linear(2, 2)
    mine.load_state_dict(torch.load(path, map_location=torch.device("cpu")))
    same = torch.equal(mine.weight, model.weight)
    print(f"saved on {device:6} | model on {mine.weight.device} | same values: {same}")

# %% [markdown] lang="en"
# ## A GPU that is not there
#
# What happens on a machine with a GPU? `FakeTensorMode` is torch's own way to find out. Its tensors have a shape and a device, but
# no values. You load the state and fill a model that you have just made. On which devices are the two?

# %% [markdown] lang="zh"
# ## 一块不存在的 GPU
#
# 在有 GPU 的机器上会怎样？torch 自己的 `FakeTensorMode` 可以回答：其中的张量有形状、有设备，没有值。
# 你加载状态，再填进刚造好的模型。两者各在哪个设备上？

# %% tags=["predict", "claim:DV-01", "claim:DV-04"]
my_guess = ...  # [state, model], for example ["cpu", "cpu"]

with FakeTensorMode():
    state = torch.load(files["cuda:0"])
    fresh = nn.Linear(2, 2)
    fresh.load_state_dict(state)
found = [str(state["weight"].device), str(fresh.weight.device)]
exercises.predict(my_guess, torch=found)

# %% [markdown] lang="en"
# The state went to the GPU. The model stays where it was made, so the notes are right: `model.to(device)` is still needed.
#
# They also say: no `map_location` for GPU to GPU. `where_loaded` pretends that the machine has as many GPUs as you like. Here it
# has one.

# %% [markdown] lang="zh"
# 状态到了 GPU 上；模型仍在它被造出来的地方。所以笔记说得对：还需要 `model.to(device)`。
#
# 笔记还说：从 GPU 到 GPU 不需要 `map_location`。`where_loaded` 假装机器有任意多块 GPU。下面是一块。

# %% tags=["claim:DV-01", "claim:DV-04"]
renumbered = functools.partial(torch.load, map_location={"cuda:1": "cuda:0"})
reads = {"torch.load(path)": torch.load, 'map_location={"cuda:1": "cuda:0"}': renumbered}
checkpoint.where_loaded(reads, gpus=1)

# %% [markdown] lang="en"
# It holds while the same GPU number exists. A file from the second GPU needs `map_location` on a machine with one.
#
# ## Read before you run
#
# The notes' code for GPU to GPU begins with `place="cuda:0"device = ...`, all on one line. Can Python read it?

# %% [markdown] lang="zh"
# 只有编号相同的 GPU 存在时才成立。在第二块 GPU 上保存的文件，在只有一块的机器上就需要 `map_location`。
#
# ## 先读再运行
#
# 笔记里从 GPU 到 GPU 的代码以 `place="cuda:0"device = ...` 开头，写在一行里。Python 读得懂吗？

# %% tags=["claim:DV-05"]
snippets = {
    "as in the notes": 'place="cuda:0"device = torch.device("cuda")',
    "mended": 'device = torch.device("cuda")',
}
for name, snippet in snippets.items():
    try:
        compile(snippet, name, "exec")
        print(f"{name}: compiles")
    except SyntaxError as error:
        print(f"{name}: {type(error).__name__}")

# %% [markdown] lang="en"
# ## Moving a tensor, moving a model
#
# The `meta` device is on every machine: shapes without values. It stands for a GPU here. After `x.to("meta")` and
# `mover.to("meta")`, where are `x` and the model?

# %% [markdown] lang="zh"
# ## 搬张量，搬模型
#
# 每台机器都有 `meta` 设备：只有形状，没有值。这里用它代替 GPU。执行 `x.to("meta")` 和 `mover.to("meta")` 之后，`x` 和模型在哪里？

# %% tags=["predict", "claim:DV-06"]
my_guess = ...  # [x, model], for example ["meta", "cpu"]

x, mover = torch.ones(1, 2), nn.Linear(2, 2)
x.to("meta")
mover.to("meta")
found = [str(x.device), str(mover.weight.device)]
print("x.to returns another tensor:", x.to("meta") is not x)
print("model.to returns the model itself:", mover.to("meta") is mover)
exercises.predict(my_guess, torch=found)

# %% [markdown] lang="en"
# `tensor.to` gives a **new** tensor, unless it is there already: write `x = x.to(device)`. `module.to` changes the module in place.
#
# Forget the assignment, and the next line of your training says:

# %% [markdown] lang="zh"
# `tensor.to` 给出**新**张量（除非它本来就在那里），要写 `x = x.to(device)`；`module.to` 就地改变模块。
#
# 忘了赋值，训练代码的下一行就会说：

# %% tags=["claim:DV-06"]
with FakeTensorMode():
    on_gpu = nn.Linear(2, 2, device="cuda:0")
    x = torch.ones(1, 2)
    x.to("cuda:0")
    try:
        on_gpu(x)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
    x = x.to("cuda:0")
    print("assigned:", on_gpu(x).device)

# %% [markdown] lang="en"
# ## CPU to GPU
#
# A file from the CPU, on a machine with two GPUs. Where does a plain `torch.load` put it?

# %% [markdown] lang="zh"
# ## 从 CPU 到 GPU
#
# 一个在 CPU 上保存的文件，一台有两块 GPU 的机器。只写 `torch.load`，它会到哪里？

# %% tags=["claim:DV-07"]
print("here:", torch.load(files["cpu"])["weight"].device)
checkpoint.where_loaded({"torch.load(path)": torch.load}, saved="cpu", gpus=2)

# %% [markdown] lang="en"
# To the CPU. The notes conclude: to fill a model on the GPU, `map_location="cuda:0"` is required. Is it? Below, the model lives on
# the GPU and the state on the CPU. Predict where the model is after loading.

# %% [markdown] lang="zh"
# 到 CPU。笔记由此得出：要填 GPU 上的模型，必须写 `map_location="cuda:0"`。真的必须吗？
# 下面模型在 GPU 上，状态在 CPU 上。预测：加载之后，模型在哪里？

# %% tags=["predict", "claim:DV-08"]
my_guess = ...  # "cpu", "cuda:0" or "RuntimeError"

with FakeTensorMode():
    on_gpu = nn.Linear(2, 2, device="cuda:0")
    state = torch.load(files["cpu"])
    try:
        print(on_gpu.load_state_dict(state))
        found = str(on_gpu.weight.device)
    except RuntimeError as error:
        found = type(error).__name__
print("state on", state["weight"].device, "| model on", found)
exercises.predict(my_guess, torch=found)

# %% [markdown] lang="en"
# It is not required. `load_state_dict` copies values to wherever the parameters live. Loading to the CPU also spares the GPU a
# second copy of the weights.
#
# The notes' recipe works as well, where there is a GPU. Without one, `map_location="cuda:0"` makes even a CPU file fail.

# %% [markdown] lang="zh"
# 不必。`load_state_dict` 把值复制到参数所在的地方。先加载到 CPU，还省得在 GPU 上多放一份权重。
#
# 笔记的做法在有 GPU 时也可用。没有 GPU 时，`map_location="cuda:0"` 连 CPU 的文件也加载不了。

# %% tags=["claim:DV-09"]
print("no GPU:", outcome(files["cpu"], map_location="cuda:0"))
with FakeTensorMode():
    print("with one:", torch.load(files["cpu"], map_location="cuda:0")["weight"].device)

# %% [markdown] lang="en"
# ## Our own functions
#
# `checkpoint.load` and `checkpoint.resume` use the CPU unless you say otherwise, and copy into your model where it is. `inspect`
# reads the tag without loading.

# %% [markdown] lang="zh"
# ## 我们自己的函数
#
# `checkpoint.load` 和 `checkpoint.resume` 默认用 CPU，再复制进你的模型，模型在哪里就复制到哪里。`inspect` 不加载就能读出标签。

# %%
checkpoint.write_tagged(folder / "last.pt", {"model": model.state_dict(), "epoch": 3}, "cuda:1")
print("saved on", checkpoint.inspect(folder / "last.pt").tensors[0].device)
mine = nn.Linear(2, 2)
resumed = checkpoint.resume(folder / "last.pt", model=mine)
print("model on", mine.weight.device, "| same values:", torch.equal(mine.weight, model.weight))
resumed

# %% [markdown] lang="en"
# ## Explore: saved on, call, ends on
#
# Each line is a real call. torch reads the file and decides; only the last step, the copy to a GPU, is left out. `!` marks what
# fails.
#
# Two things to change: set `gpus` to 1, then to 2. Which calls work on every machine? Then set `saved` to `cpu` and
# `gpus` back to 0: which call fails?

# %% [markdown] lang="zh"
# ## 动手探索：存在哪里，怎样加载，到了哪里
#
# 每一行都是一次真实调用。torch 读文件并作出决定，只省去最后一步，即复制到 GPU。`!` 标出失败的。
#
# 试着改两处：把 `gpus` 改成 1，再改成 2，哪些调用在每台机器上都行？再把 `saved` 改成 `cpu`、`gpus` 改回 0：哪个调用失败？

# %% tags=["explore"]
calls = {
    "torch.load(path)": torch.load,
    'map_location="cpu"': functools.partial(torch.load, map_location="cpu"),
    'map_location="cuda:0"': functools.partial(torch.load, map_location="cuda:0"),
    'map_location={"cuda:1": "cuda:0"}': renumbered,
    "checkpoint.load(path)": checkpoint.load,
}


def ends_on(saved, gpus):
    return checkpoint.where_loaded(calls, saved=saved, gpus=gpus)


widgets.explore(ends_on, pictures.tree, saved=["cuda:1", "cuda:0", "cpu"], gpus=[0, 1, 2])

# %% [markdown] lang="en"
# ## Exercise 1: from anywhere
#
# Write `load_anywhere`. Its tensors must come to the CPU, whatever device the file was saved on. The check has no GPU.

# %% [markdown] lang="zh"
# ## 练习 1：来自任何地方
#
# 写出 `load_anywhere`。不管文件在哪个设备上保存，张量都要到 CPU 上。检查时没有 GPU。


# %% tags=["exercise:22_load_anywhere"]
def load_anywhere(path):
    """The state in the file, on the CPU."""
    ...


# solution
def load_anywhere(path):
    return torch.load(path, map_location="cpu")


# %% tags=["check"]
exercises.check("22_load_anywhere", load_anywhere)  # stuck? exercises.hint("22_load_anywhere")

# %% [markdown] lang="en"
# ## Exercise 2: move a batch
#
# A batch may be a tensor, a list, a tuple (no namedtuple here) or a dict, also inside each other. Return the batch with all tensors on
# the device. Everything else stays as it is, and the batch you were given must not change.

# %% [markdown] lang="zh"
# ## 练习 2：搬一个批次
#
# 批次可能是张量、列表、元组（这里没有具名元组）或字典，也可能层层嵌套。返回搬到设备上的批次；不是张量的原样保留，传进来的批次不能改变。


# %% tags=["exercise:22_move"]
def move(batch, device):
    """The batch with every tensor on the device."""
    ...


# solution
def move(batch, device):
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(move(value, device) for value in batch)
    return batch


# %% tags=["check"]
exercises.check("22_move", move)  # stuck? exercises.hint("22_move")

# %% [markdown] lang="en"
# ## Exercise 3: a place for each
#
# A file was saved by a machine with more GPUs than yours. `saved` is a list of its GPU tags. Write the dictionary for `map_location`: number N goes to N modulo `gpus`.
# Without a GPU all go to the CPU.

# %% [markdown] lang="zh"
# ## 练习 3：各得其所
#
# 文件来自一台 GPU 比你多的机器。`saved` 是它的 GPU 标签的列表。写出给 `map_location` 的字典：编号 N 放到 N 对 `gpus` 取余的那块；没有 GPU 就全放 CPU。


# %% tags=["exercise:22_places"]
def places(saved, gpus):
    """places(["cuda:0", "cuda:3"], 2) is {"cuda:0": "cuda:0", "cuda:3": "cuda:1"}."""
    ...


# solution
def places(saved, gpus):
    numbers = {tag: int(tag.split(":")[1]) for tag in saved}
    return {tag: f"cuda:{number % gpus}" if gpus else "cpu" for tag, number in numbers.items()}


# %% tags=["check"]
exercises.check("22_places", places)  # stuck? exercises.hint("22_places")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements in the style of the notes. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 四条说法，写法与笔记相同。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:DV-04"]
my_guess = ...  # 1, 2, 3 or 4

with FakeTensorMode():
    state = torch.load(files["cuda:1"])
    filled = nn.Linear(2, 2)
    filled.load_state_dict(state)
    assigned = nn.Linear(2, 2)
    assigned.load_state_dict(state, assign=True)
statements = {
    1: str(state["weight"].device) == "cuda:1",
    2: str(filled.weight.device) == "cuda:1",
    3: str(assigned.weight.device) == "cuda:1",
    4: torch.load(files["cuda:1"], map_location="meta")["weight"].is_meta,
}
print("filled:", filled.weight.device, "| with assign=True:", assigned.weight.device)
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# Loading does not move a model. `assign=True` puts the loaded tensors in place, and with them their device.

# %% [markdown] lang="zh"
# 加载不会搬动模型。`assign=True` 把加载来的张量换上去，设备也就跟着变了。

# %% [markdown] lang="en"
# ## Recap
#
# A file carries a tag for each tensor, and `torch.load` follows it. `map_location="cpu"` works everywhere. A model stays where it
# is when it is filled; `model.to` moves it, `x.to` must be assigned.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Attempting to deserialize object on a CUDA device` | the tag names a GPU, there is none | Wrong first |
# | `CUDA device 1 but torch.cuda.device_count() is 1` | the tag names a GPU that this machine lacks | A GPU that is not there |
# | `Expected all tensors to be on the same device` | `x.to(device)` was not assigned | Moving a tensor, moving a model |
# | `SyntaxError` | two lines glued together | Read before you run |
#
# What next: lesson [23](23_prefixes.ipynb), names that do not fit.

# %% [markdown] lang="zh"
# ## 小结
#
# 文件里每个张量都带着标签，`torch.load` 照标签办。`map_location="cpu"` 处处可用。
# 填模型时，模型留在原处；搬它用 `model.to`，而 `x.to` 必须赋值。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Attempting to deserialize object on a CUDA device` | 标签写的是 GPU，这里没有 | 先看错误 |
# | `CUDA device 1 but torch.cuda.device_count() is 1` | 标签写的那块 GPU，这台机器没有 | 一块不存在的 GPU |
# | `Expected all tensors to be on the same device` | `x.to(device)` 没有赋值 | 搬张量，搬模型 |
# | `SyntaxError` | 两行粘成了一行 | 先读再运行 |
#
# 下一步：第 [23](23_prefixes.ipynb) 课，对不上的名字。

# %%
exercises.progress("22")
