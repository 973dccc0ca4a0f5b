# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Anatomy of a checkpoint loader", zh: "解剖一个检查点加载函数"}
#     sections: ["003: Load Checkpoint"]
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 24 · Anatomy of a checkpoint loader
#
# **You will be able to** follow a checkpoint from its address to a filled model, say which step of a loader went wrong, and
# let many ranks share one download.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [05](05_distributed_sampler.ipynb), [18](18_torch_load.ipynb) and [23](23_prefixes.ipynb) | 55 | Load Checkpoint | [简体中文](../zh/24_load_checkpoint.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 24 · 解剖一个检查点加载函数
#
# **学完本课，你能够**：跟着检查点从地址一路走到填好的模型；说出加载函数错在哪一步；让多个 rank 只下载一次。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [05](05_distributed_sampler.ipynb)、[18](18_torch_load.ipynb)、[23](23_prefixes.ipynb) 课 | 55 | Load Checkpoint | [English](../en/24_load_checkpoint.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# A small web server of this machine stands for the internet. It serves one folder and notes what it is asked for.
# Downloads go to a temporary folder.

# %% [markdown] lang="zh"
# ## 准备
#
# 本机上的一个小网页服务器代替互联网。它提供一个文件夹里的文件，并记下每次请求。
# 下载的文件放进临时文件夹。

# %% tags=["setup"]
import builtins
import contextlib
import dis
import functools
import http.server
import inspect
import io
import os
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tutorlib import checkpoint, exercises, facts, pictures, ranks, widgets

# %load_ext tutorlib.cells
room = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # removed when the kernel ends
shelf, home = Path(room.name, "shelf"), Path(room.name, "home")
shelf.mkdir()
os.environ.update(TORCH_HOME=str(home), no_proxy="127.0.0.1")
asked = []


class Shelf(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        super().do_GET()

    def log_message(self, *text):
        pass


server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Shelf, directory=shelf)
)
threading.Thread(target=server.serve_forever, daemon=True).start()
site = f"http://127.0.0.1:{server.server_port}"


def make():
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(body=nn.Linear(4, 3), norm=nn.BatchNorm1d(3), head=nn.Linear(3, 2))
    )


trained = {key: torch.ones_like(value) for key, value in make().state_dict().items()}
print("ready:", len(trained), "tensors")

# %% [markdown] lang="en"
# ## Wrong first
#
# Many projects carry a loader like this one, copied from a library. It takes a path or an address and fills the model.
# Its definitions run without an error. Then you call it with a path, in the third cell below. What happens?
#
# Write the type of the error, or `"loads"`.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 许多项目里都有这样一个加载函数，是从某个库里抄来的。它接受路径或地址，然后填好模型。
# 执行这段定义没有报错。接着在下面第三个单元格里用一个路径调用它，会怎样？
#
# 写下错误类型，或者 `"loads"`（加载成功）。

# %%
# %%importable recipe
import os

import torch
import torch.distributed as dist
from torch.hub import load_state_dict_from_url


def load_checkpoint(model, filename, map_location=None, strict=False):
    if filename.startswith("torchvision://"):
        content = load_url_dist(model_urls[filename[14:]])
    elif filename.startswith("open-mmlab://"):
        content = load_url_dist(open_mmlab_model_urls[filename[13:]])
    elif filename.startswith(("http://", "https://")):
        content = load_url_dist(filename)
    else:
        if not osp.isfile(filename):
            raise IOError(filename + " is not a checkpoint file")
        content = torch.load(filename, map_location=map_location)
    if isinstance(content, OrderedDict):
        state = content
    elif isinstance(content, dict) and "state_dict" in content:
        state = content["state_dict"]
    else:
        raise RuntimeError("No state_dict found in " + filename)
    if list(state)[0].startswith("module."):
        state = {key[7:]: value for key, value in content["state_dict"].items()}
    load_state_dict(model.module if hasattr(model, "module") else model, state, strict)
    return content


def get_dist_info():
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def load_url_dist(url):
    rank, world = get_dist_info()
    rank = int(os.environ.get("LOCAL_RANK", rank))
    if rank == 0:
        content = load_state_dict_from_url(url, progress=False)
    if world > 1:
        dist.barrier()
        if rank > 0:
            content = load_state_dict_from_url(url, progress=False)
    return content


def load_state_dict(module, state, strict=False):
    own, unexpected, shapes = module.state_dict(), [], []
    for name, value in state.items():
        if name not in own:
            unexpected.append(name)
        elif value.size() != own[name].size():
            shapes.append(name)
        else:
            own[name].copy_(value.data if isinstance(value, torch.nn.Parameter) else value)
    missing = [name for name in own if name not in state and "num_batches_tracked" not in name]
    report = [("unexpected", unexpected), ("missing", missing), ("shape", shapes)]
    if any(names for _, names in report) and get_dist_info()[0] == 0:
        if strict:
            raise RuntimeError(AsciiTable(report).table)
        print(AsciiTable(report).table)


# %% tags=["folded"]
# Two helpers: how a call ended, and which names nobody defined. Open them if you like.
def outcome(call, *arguments, **named):
    try:
        return call(*arguments, **named)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).replace(room.name, '').replace(site, '')}"


def undefined(namespace):
    functions = [
        value
        for value in namespace.values()
        if inspect.isfunction(value) and value.__globals__ is namespace
    ]
    used = {
        step.argval
        for function in functions
        for step in dis.get_instructions(function)
        if step.opname == "LOAD_GLOBAL"
    }
    return sorted(used - set(namespace) - set(dir(builtins)))


# %% tags=["wrong-first", "predict", "claim:LC-01"]
import recipe

my_guess = ...  # for example "ValueError"

torch.save(OrderedDict(trained), shelf / "bare.pth")
said = outcome(recipe.load_checkpoint, make(), str(shelf / "bare.pth"))
print("defined by nobody:", undefined(vars(recipe)))
print("load_checkpoint(model, path):", said)
exercises.predict(my_guess, torch=said.split(":")[0])

# %% [markdown] lang="en"
# Python looks a name up when the line runs, not when the function is defined. Five names were left behind in the old file.
#
# ## The idea
#
# Every loader takes the same five steps, and each has its own ways to fail:
#
# 1. **Address to file**: a path, or a download into a cache.
# 2. **File to content**: `torch.load`, with `map_location`.
# 3. **Content to state**: bare, or inside a larger dictionary.
# 4. **Names**: a wrapper's prefix comes off.
# 5. **State to model**, with a report.
#
# We give the recipe its five names and walk through. First step 1, with a path that is wrong, and one that is right:

# %% [markdown] lang="zh"
# Python 在执行到那一行时才查找名字，定义函数时并不查。有五个名字留在了原来的文件里。
#
# ## 概念
#
# 任何加载函数都走同样的五步，每一步都有自己的出错方式：
#
# 1. **从地址到文件**：路径，或者下载到缓存。
# 2. **从文件到内容**：`torch.load`，带 `map_location`。
# 3. **从内容到状态**：单独的 `state_dict`，或者放在更大的字典里。
# 4. **名字**：去掉包装的前缀。
# 5. **从状态到模型**，并给出报告。
#
# 我们给这段代码补上那五个名字，再一步步走。先看第 1 步，一个错的路径，一个对的路径：


# %% tags=["claim:LC-13"]
class AsciiTable:
    def __init__(self, report):
        self.table = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in report if names)


recipe.osp, recipe.OrderedDict, recipe.AsciiTable = os.path, OrderedDict, AsciiTable
recipe.model_urls, recipe.open_mmlab_model_urls = {}, {}
load_checkpoint = recipe.load_checkpoint

print("still undefined:", undefined(vars(recipe)), "| IOError is OSError:", IOError is OSError)
print(outcome(load_checkpoint, make(), "nope.pth"))
torch.save({"state_dict": trained, "epoch": 3}, shelf / "whole.pth")
content = load_checkpoint(make(), str(shelf / "whole.pth"))
print("returned:", list(content), "| epoch", content["epoch"])

# %% [markdown] lang="en"
# ## Step 3: content to state
#
# The same weights, saved in four ways, and an empty state. How many of the five does the recipe load?

# %% [markdown] lang="zh"
# ## 第 3 步：从内容到状态
#
# 同样的权重，用四种方式保存；另有一个空的状态。这五种里，这段代码能加载几种？


# %% tags=["predict", "claim:LC-03"]
def loads(content, model=None, **named):
    torch.save(content, shelf / "layout.pth")
    said = outcome(load_checkpoint, model or make(), str(shelf / "layout.pth"), **named)
    return "loads" if isinstance(said, dict) else said


my_guess = ...  # a number from 0 to 5

layouts = {
    "OrderedDict": OrderedDict(trained),
    "{'state_dict': ...}": {"state_dict": trained},
    "dict": dict(trained),
    "{'model_state_dict': ...}": {"model_state_dict": trained},
    "empty OrderedDict": OrderedDict(),
}
table = facts.Table(
    "five contents",
    [{"content": name, "recipe": loads(content)} for name, content in layouts.items()],
)
print(table)
exercises.predict(my_guess, torch=sum(row["recipe"] == "loads" for row in table.rows()))

# %% [markdown] lang="en"
# A bare dictionary passes only as an `OrderedDict`. Rename the keys with a comprehension `{...}`, and you have a plain one.
#
# ## Step 4: names
#
# Now the model was saved inside `DataParallel`: each key begins with `module.`. The recipe takes that off.
# Does it work for a bare `state_dict`, too? Predict `"loads"` or the type of the error.

# %% [markdown] lang="zh"
# 单独的字典必须是 `OrderedDict` 才能通过。用字典推导式 `{...}` 改一次键名，它就成了普通字典。
#
# ## 第 4 步：名字
#
# 现在，模型是在 `DataParallel` 的包装里保存的：每个键都以 `module.` 开头。这段代码会去掉它。
# 对单独的 `state_dict` 也有效吗？预测 `"loads"` 或错误类型。

# %% tags=["predict", "claim:LC-04"]
my_guess = ...  # "loads", or for example "ValueError"

wrapped = nn.DataParallel(make()).state_dict()
mixed = OrderedDict(wrapped)
mixed["projector.weight"] = torch.ones(1)  # a part that was not wrapped
with contextlib.redirect_stdout(io.StringIO()) as printed:
    inside, bare, both = (
        loads({"state_dict": wrapped}),
        loads(wrapped),
        loads({"state_dict": mixed}),
    )
print("inside {'state_dict': ...}:", inside)
print("bare:", bare)
print("with a key that has no prefix:", both, "|", printed.getvalue().strip())
exercises.predict(my_guess, torch=bare.split(":")[0])

# %% [markdown] lang="en"
# The bare one dies: the line that strips looks into `content["state_dict"]` again. And it looks at the first key only,
# then cuts 7 letters off every key: `projector.weight` becomes `or.weight`.
#
# The other way round: the *new* model may be wrapped. Then the weights must go to the inner one.

# %% [markdown] lang="zh"
# 单独的 `state_dict` 失败了：去前缀的那一行又去找 `content["state_dict"]`。而且它只看第一个键，
# 然后把每个键都切掉 7 个字母：`projector.weight` 变成了 `or.weight`。
#
# 反过来：**新**模型也可能有包装。这时权重必须进到里面的模型。

# %% tags=["claim:LC-05"]
parallel = nn.DataParallel(make())
# No wrapper: a part has that name.
named_so = nn.Sequential(OrderedDict(top=nn.Linear(2, 1), module=nn.Linear(1, 1)))
loads(OrderedDict(trained), parallel)
print("inner model of DataParallel filled:", bool((parallel.module.head.weight == 1).all()))
print("a model with a part called module, given its own state:")
said = loads(named_so.state_dict(), named_so)

# %% [markdown] lang="en"
# `hasattr(model, "module")` takes any model with such a part for a wrapper.
#
# ## Step 5: state to model
#
# With `strict=False` the recipe skips what does not fit and says so. It says nothing about a missing `num_batches_tracked`.
# Does torch itself? Twice the same state without that key. Once it is an `OrderedDict` that kept its `_metadata`, once a plain `dict`.
# For which does torch report it: `"OrderedDict"`, `"dict"`, `"both"` or `"none"`?

# %% [markdown] lang="zh"
# `hasattr(model, "module")` 会把任何模型都当作包装，只要它有一个部件叫这个名字。
#
# ## 第 5 步：从状态到模型
#
# `strict=False` 时，这段代码跳过对不上的条目，并列出来。缺少 `num_batches_tracked` 时它什么也不说。
# torch 自己呢？同一个状态去掉这个键，有两份：一份是保留了 `_metadata` 的 `OrderedDict`，一份是普通 `dict`。
# torch 对哪一份报告缺失：`"OrderedDict"`、`"dict"`、`"both"`（都报告）还是 `"none"`（都不报告）？

# %% tags=["predict", "claim:LC-06", "claim:LC-07"]
my_guess = ...  # "OrderedDict", "dict", "both" or "none"

odd = OrderedDict(trained)
odd["head.weight"] = torch.ones(9, 9)
odd["extra"] = torch.ones(1)
del odd["norm.bias"], odd["norm.num_batches_tracked"]
model = make()
print("lenient:", loads(odd, model), "| bias filled:", bool((model.body.bias == 1).all()))
print("strict:", loads(odd, strict=True))

old = make().state_dict()
del old["norm.num_batches_tracked"]
told = {}
for state in (old, dict(old)):
    told[type(state).__name__] = make().load_state_dict(state, strict=False).missing_keys
print("torch:", told)
exercises.predict(
    my_guess,
    torch="none" if not any(told.values()) else "/".join(name for name in told if told[name]),
)

# %% [markdown] lang="en"
# Without `_metadata` torch takes the file for an old one, from before that counter, and fills it in.
#
# How can `own[name].copy_(value)` change the model, when `own` is only its `state_dict()`?

# %% [markdown] lang="zh"
# 没有 `_metadata`，torch 就当它是那个计数器出现之前的旧文件，自己补上。
#
# `own` 只是 `state_dict()` 的结果，为什么 `own[name].copy_(value)` 能改变模型？

# %% tags=["claim:LC-08", "claim:LC-09"]
model = make()
own = model.state_dict()
print("the same memory:", own["head.weight"].data_ptr() == model.head.weight.data_ptr())
own["head.weight"].copy_(torch.ones(2, 3))
print("the model changed:", bool((model.head.weight == 1).all()))

# Parameters, not plain tensors:
torch.save(dict(model.named_parameters()), shelf / "parameters.pth")
read = torch.load(shelf / "parameters.pth")
print("saved and loaded as:", type(read["head.weight"]).__name__)
print("torch takes them:", make().load_state_dict(read, strict=False).unexpected_keys == [])
whole = OrderedDict(read, **dict(model.named_buffers()))
print("the recipe takes them:", loads({"state_dict": whole}))

# %% [markdown] lang="en"
# A `state_dict` shows the model's own memory (lesson [16](16_state_dict.ipynb)). And a file of `Parameter`s loads like one of tensors.
#
# ## Step 2: where do the tensors go?
#
# This file was saved on a GPU. You load it with `map_location="cpu"`: once by its path, once by its address.
# Which of the two work? Predict `"both"`, `"path"`, `"address"` or `"none"`.
#
# (The tag says GPU number 99, so that no machine has it.)

# %% [markdown] lang="zh"
# `state_dict` 里的张量用的就是模型自己的内存（见第 [16](16_state_dict.ipynb) 课）。文件里存的是 `Parameter`，也一样能加载。
#
# ## 第 2 步：张量放到哪里？
#
# 这个文件是在 GPU 上保存的。你用 `map_location="cpu"` 加载两次：一次用路径，一次用地址。
# 哪个成功？预测 `"both"`（都成功）、`"path"`（路径）、`"address"`（地址）或 `"none"`（都失败）。
#
# （标签写的是 99 号 GPU，所以哪台机器上都没有它。）

# %% tags=["predict", "claim:LC-02"]
my_guess = ...  # "both", "path", "address" or "none"

checkpoint.write_tagged(shelf / "gpu.pth", OrderedDict(trained), "cuda:99")
works = {}
for kind, place in (("path", str(shelf / "gpu.pth")), ("address", f"{site}/gpu.pth")):
    with contextlib.redirect_stdout(io.StringIO()):  # torch.hub says where it writes
        said = outcome(load_checkpoint, make(), place, map_location="cpu")
    works[kind] = isinstance(said, dict)
    if works[kind]:
        print(f"{kind}: loads")
    else:
        error, asks = said.split(":")[0], "CUDA device" in said
        print(f"{kind}: {error}, it asks for a CUDA device: {asks}")
exercises.predict(my_guess, torch="/".join(kind for kind in works if works[kind]) or "none")

# %% [markdown] lang="en"
# For an address the recipe calls `load_state_dict_from_url(url)` and forgets `map_location`.
#
# ## Step 1 again: many ranks
#
# `get_dist_info` says which rank this process is. Here there is no process group. In the environment an old `LOCAL_RANK=1` is left,
# which torch's launcher sets for each rank of a machine. What does `load_url_dist` do: `"loads"`, or which error?

# %% [markdown] lang="zh"
# 对于地址，这段代码调用 `load_state_dict_from_url(url)`，忘了 `map_location`。
#
# ## 再看第 1 步：多个 rank
#
# `get_dist_info` 说出本进程是哪个 rank。这里没有进程组。环境变量里还留着旧的 `LOCAL_RANK=1`，
# 那是 torch 的启动程序为一台机器上的每个 rank 设置的。
# `load_url_dist` 会怎样：`"loads"`，还是哪种错误？

# %% tags=["predict", "claim:LC-10", "claim:LC-12"]
my_guess = ...  # "loads", or for example "RuntimeError"

print("rank, world:", recipe.get_dist_info())
with ranks.here():  # a group of this one process
    print("in a group of one:", recipe.get_dist_info())
os.environ["LOCAL_RANK"] = "1"
said = outcome(recipe.load_url_dist, f"{site}/bare.pth")
del os.environ["LOCAL_RANK"]
print("with LOCAL_RANK=1:", said.split(":")[0])
exercises.predict(my_guess, torch=said.split(":")[0])

# %% [markdown] lang="en"
# Rank 1 waits for rank 0 to download. But there is no rank 0, and no branch sets `content`.
#
# With a real group, the pattern is right: rank 0 downloads, all meet at a barrier, the others read the cache.
# Two real ranks run it. Then they run `checkpoint.load` on a good and on a bad address.

# %% [markdown] lang="zh"
# rank 1 要等 rank 0 下载。可这里没有 rank 0，于是没有任何分支给 `content` 赋值。
#
# 有真正的进程组时，这个写法是对的：rank 0 下载，大家在屏障（barrier）处会合，其余的读缓存。
# 下面用两个真实的 rank 运行它，再用 `checkpoint.load` 加载一个正确的地址和一个错误的地址。

# %%
# %%importable sharing
import contextlib
import io
import os

import torch.distributed as dist
from torch.hub import load_state_dict_from_url

from tutorlib import checkpoint


def by_turns(url):
    """As the notes do it: rank 0 first, a barrier, then the others."""
    if dist.get_rank() == 0:
        content = load_state_dict_from_url(url, progress=False, weights_only=True)
    dist.barrier()
    if dist.get_rank() > 0:
        content = load_state_dict_from_url(url, progress=False, weights_only=True)
    return content


def share(site, home):
    os.environ["TORCH_HOME"] = home
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        content = by_turns(f"{site}/bare.pth")
    ours = checkpoint.load(f"{site}/whole.pth")
    try:
        checkpoint.load(f"{site}/nope.pth")
    except checkpoint.CheckpointError as error:
        told = str(error).replace(site, "").partition(" File")[0]
    return {
        "rank": dist.get_rank(),
        "by turns": len(content),
        "downloads": printed.getvalue().count("Downloading"),
        "checkpoint.load": len(ours["state_dict"]),
        "of a bad address": told.split(": is the")[0],
    }


# %% tags=["claim:LC-11"]
asked.clear()
rows = ranks.run(share, site, str(home / "shared"), world=2)
print(facts.Table("two real ranks", rows))
print("the server was asked for:", asked)

# %% [markdown] lang="en"
# Each file was fetched once. **Both** ranks were told of the bad address. In the pattern of the notes rank 0 raises before the barrier.
# If its process ends there, rank 1 gets `Connection closed by peer`, and no word of the address. If rank 0 catches its error and goes
# on, rank 1 waits, by default up to 30 minutes.
#
# ## Explore: the five steps
#
# Each change makes a file, loads it through all five steps with the functions of `checkpoint`, and asks the recipe as well.
#
# Two things to change: the `layout`; then the `prefix`. Our five steps always arrive. What becomes of the recipe in the last row?

# %% [markdown] lang="zh"
# 每个文件只取了一次。错误的地址**两个** rank 都得知了。按笔记的写法，rank 0 在屏障之前就抛出错误。
# 如果它的进程就此结束，rank 1 只得到 `Connection closed by peer`，看不出是地址错了。如果 rank 0 捕获错误后继续运行，rank 1 就一直等，默认最多 30 分钟。
#
# ## 动手探索：五个步骤
#
# 每改一次，都会造出一个文件，用 `checkpoint` 的函数走完五步，同时也让那段代码试一试。
#
# 试着改两处：`layout`（布局），再改 `prefix`（前缀）。我们的五步总能走完。最后一行里，那段代码怎么样了？


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Journey(facts.Table):
    heads = ("step", "before", "by", "after")

    def tree(self):
        lines = []
        for row in self.content:
            places = {
                "path": row["step"],
                "before": row["before"],
                "rule": row["by"],
                "after": row["after"],
            }
            lines.append({"depth": 0, "surprise": "Error" in row["after"], **places})
        return lines


# %% tags=["explore"]
def journey(layout, prefix, address):
    state = OrderedDict((prefix + key, value) for key, value in trained.items())
    content = state if layout == "bare" else {layout: state, "epoch": 3}
    torch.save(content, shelf / "trip.pth")
    uri = {
        "path": str(shelf / "trip.pth"),
        "file:": (shelf / "trip.pth").as_uri(),
        "http:": f"{site}/trip.pth?{layout}{prefix}",
    }[address]
    model = make()
    file = checkpoint.local_path(uri)
    read = checkpoint.load(file)
    found = read if layout == "bare" else read[layout]
    named = checkpoint.without_prefix(found, prefix) if prefix else found
    report = checkpoint.warm_start(model, named, strict=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        said = outcome(load_checkpoint, make(), str(file))
    if isinstance(said, str):
        told = said.replace(str(shelf), "")
    else:
        told = "Error, only printed" if printed.getvalue() else "all loaded"
    steps = [
        ("address", address, "local_path", "a file"),
        ("content", "a file", "load", f"{len(read)} entries"),
        ("state", f"{len(read)} entries", layout, next(iter(found))),
        ("names", next(iter(found)), "without_prefix" if prefix else "-", next(iter(named))),
        ("model", f"{len(named)} tensors", "warm_start", f"{report.share:.0%} loaded"),
        ("the recipe", "a file", "load_checkpoint", told),
    ]
    rows = [dict(zip(Journey.heads, step, strict=True)) for step in steps]
    return Journey("from an address to a filled model", rows)


widgets.explore(
    journey,
    pictures.tree,
    layout=["bare", "state_dict", "model_state_dict"],
    prefix={"module.": "module.", "(none)": "", "_orig_mod.": "_orig_mod."},
    address=["path", "file:", "http:"],
)

# %% [markdown] lang="en"
# ## Exercise 1: find the state
#
# Write step 3. The content may be a bare `state_dict` (of any kind of dictionary), or hold one under `"state_dict"`,
# `"model_state_dict"` or `"model"`. Anything else is a `ValueError`.

# %% [markdown] lang="zh"
# ## 练习 1：找到状态
#
# 写出第 3 步。内容可能是单独的 `state_dict`（任何一种字典），也可能把它放在 `"state_dict"`、`"model_state_dict"` 或 `"model"` 下面。
# 其他情况一律 `ValueError`。


# %% tags=["exercise:24_find_state"]
def find_state(content):
    """The state_dict in what torch.load returned: a dictionary of tensors only, and not empty."""
    ...


# solution
def find_state(content):
    if isinstance(content, dict):
        for found in [
            content,
            *(content.get(key) for key in ("state_dict", "model_state_dict", "model")),
        ]:
            if (
                isinstance(found, dict)
                and found
                and all(isinstance(value, torch.Tensor) for value in found.values())
            ):
                return found
    raise ValueError("no state_dict found")


# %% tags=["check"]
exercises.check("24_find_state", find_state)  # stuck? exercises.hint("24_find_state")

# %% [markdown] lang="en"
# ## Exercise 2: in turn
#
# Write step 1 for many ranks. `fetch()` downloads, or finds the file in the cache. `wait()` is the barrier: it returns when
# every rank has called it. Rank 0 fetches before, the others after. And if `fetch` fails, nobody may be left waiting.

# %% [markdown] lang="zh"
# ## 练习 2：轮流
#
# 写出多个 rank 时的第 1 步。`fetch()` 下载文件，或在缓存里找到它。`wait()` 是屏障：每个 rank 都调用了它，它才返回。
# rank 0 在它之前取，其余在它之后取。如果 `fetch` 失败，不能让任何 rank 一直等下去。


# %% tags=["exercise:24_in_turn"]
def in_turn(rank, fetch, wait):
    """What `fetch()` gives, or its error; each rank calls `wait()` once, whatever happens."""
    ...


# solution
def in_turn(rank, fetch, wait):
    if rank > 0:
        wait()
        return fetch()
    try:
        return fetch()
    finally:
        wait()


# %% tags=["check"]
exercises.check("24_in_turn", in_turn)  # stuck? exercises.hint("24_in_turn")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements about the recipe. Which one is not true? The cell proves it.
#
# 1. It returns the whole content, so the epoch can be read from it.
# 2. A wrong path raises before the model is touched.
# 3. With `strict=True` and a wrong shape it raises, so the model is as before.
# 4. Two ranks download one file once.

# %% [markdown] lang="zh"
# ## 找错
#
# 关于这段代码的四个说法。哪一个不成立？单元格会给出证明。
#
# 1. 它返回完整的内容，所以能从里面读出轮次。
# 2. 路径写错时，它在碰到模型之前就抛出错误。
# 3. `strict=True` 且形状不对时它抛出错误，所以模型保持原样。
# 4. 两个 rank 只下载一次。

# %% tags=["bug-hunt", "claim:LC-06"]
my_guess = ...  # 1, 2, 3 or 4


def untouched(content, call, *arguments, **named):
    model = make()
    outcome(call, model, *arguments, **named)
    return all(
        torch.equal(value, make().state_dict()[key]) for key, value in model.state_dict().items()
    )


torch.save(odd, shelf / "odd.pth")
lines = {
    1: content["epoch"] == 3,
    2: untouched(odd, load_checkpoint, "nope.pth"),
    3: untouched(odd, load_checkpoint, str(shelf / "odd.pth"), strict=True),
    4: sum(row["downloads"] for row in rows) == 1,
}
as_before = untouched(odd, checkpoint.warm_start, odd, strict=True)
print("checkpoint.warm_start(strict=True) leaves it as before:", as_before)
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# What fits was copied before the error. `torch`'s own strict load does the same. `checkpoint.warm_start` plans first.

# %% [markdown] lang="zh"
# 报错之前，能放进去的已经复制了。`torch` 自己的严格加载也是如此。`checkpoint.warm_start` 先计划，再动手。

# %% [markdown] lang="en"
# ## Recap
#
# A loader takes five steps: address, content, state, names, model. Each can fail without a word, so ask each for a report.
# With many ranks, one fetches, the others wait, and all must hear how it ended.
#
# | Message | Cause | Where |
# |---|---|---|
# | `NameError: name 'osp' is not defined` | a copied function left its imports behind | Wrong first |
# | `No state_dict found` | a plain `dict`, or another key | Step 3 |
# | `KeyError: 'state_dict'` | a bare state with a prefix | Step 4 |
# | `RuntimeError`, it asks for a CUDA device | `map_location` forgotten for an address | Step 2 |
# | `UnboundLocalError` | `LOCAL_RANK` without a process group | Step 1 again |
#
# What next: lesson [25](25_pretrained.ipynb), what the cache holds. `tutorlib claims --section "Load Checkpoint"` lists what you
# proved here.

# %% [markdown] lang="zh"
# ## 小结
#
# 加载函数走五步：地址、内容、状态、名字、模型。每一步都可能悄悄失败，所以每一步都要一份报告。
# 有多个 rank 时，一个去取，其余等待，结果要让所有 rank 知道。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `NameError: name 'osp' is not defined` | 抄来的函数没有带上导入 | 先看错误 |
# | `No state_dict found` | 普通 `dict`，或键名不同 | 第 3 步 |
# | `KeyError: 'state_dict'` | 单独的状态带有前缀 | 第 4 步 |
# | `RuntimeError`，要求有 CUDA 设备 | 对地址忘了 `map_location` | 第 2 步 |
# | `UnboundLocalError` | 有 `LOCAL_RANK` 却没有进程组 | 再看第 1 步 |
#
# 下一步：第 [25](25_pretrained.ipynb) 课，缓存里有什么。`tutorlib claims --section "Load Checkpoint"` 列出你在本课证明过的论断。

# %%
server.shutdown()
exercises.progress("24")
