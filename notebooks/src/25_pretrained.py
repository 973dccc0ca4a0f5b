# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Pretrained weights and the cache", zh: "预训练权重与缓存"}
#     sections:
#       - "004: 2. ... 1）直接修改源码，改为本地地址"
#       - "004: 2. ... 2）把模型权重下载至 torch 的缓存文件夹"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# # 25 · Pretrained weights and the cache
#
# **You will be able to** load pretrained weights without a network, say which file torch really took, and notice one that is
# not what its name says.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lesson [24](24_load_checkpoint.ipynb) | 50 | Loading pretrained weights quickly | [简体中文](../zh/25_pretrained.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 25 · 预训练权重与缓存
#
# **学完本课，你能够**：不联网加载预训练权重；说出 torch 真正用了哪个文件；发现名不副实的文件。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [24](24_load_checkpoint.ipynb) 课 | 50 | 快速加载预训练模型参数 | [English](../en/25_pretrained.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# No real weights are downloaded here. A small server of this machine stands for the internet, and small files for large ones.
# What it serves under `/half/` breaks off in the middle.

# %% [markdown] lang="zh"
# ## 准备
#
# 本课不下载真正的权重。本机上的一个小服务器代替互联网，小文件代替大文件。
# 它在 `/half/` 下提供的文件会在中途断掉。

# %% tags=["setup"]
import builtins
import contextlib
import functools
import gc
import hashlib
import http.server
import io
import os
import re
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils import model_zoo
from torchvision import models

from tutorlib import checkpoint, exercises, facts, pictures, widgets

room = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # removed when the kernel ends
shelf, home = Path(room.name, "shelf"), Path(room.name, "home")
shelf.mkdir()
os.environ.update(TORCH_HOME=str(home), no_proxy="127.0.0.1")
cache = Path(torch.hub.get_dir(), "checkpoints")
cache.mkdir(parents=True)


class Shelf(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        way, _, name = self.path[1:].rpartition("/")
        content = (shelf / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if way == "half" else content)

    def log_message(self, *text):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
threading.Thread(target=server.serve_forever, daemon=True).start()
site = f"http://127.0.0.1:{server.server_port}"


def quietly(load, *arguments, **named):
    """What `load` gives, or its error as text.

    What torch.hub says about paths stays out, and so do files that it leaves open.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return load(*arguments, **named)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".replace(room.name, "").replace(site, "SITE")
        gc.collect()  # closes them now
        return text


hub = functools.partial(torch.hub.load_state_dict_from_url, progress=False)
print("ready: the cache holds", len(list(cache.iterdir())), "files")

# %% [markdown] lang="en"
# ## Wrong first
#
# You have the weights on your disk. So you replace the address in the source by your path, as the notes advise.
# Your file is called `net.pth` and holds the number 1. Some time ago, another `net.pth` was downloaded. It holds the number 0.
#
# What does `model_zoo.load_url(your_path)` give: 1, 0, or `"error"`?

# %% [markdown] lang="zh"
# ## 先看错误
#
# 权重已经在你的硬盘上。于是你照笔记的建议，把源码里的地址改成自己的路径。
# 你的文件叫 `net.pth`，里面存的是数 1。以前还下载过另一个 `net.pth`，里面存的是数 0。
#
# `model_zoo.load_url(你的路径)` 给出什么：1、0，还是 `"error"`（报错）？

# %% tags=["wrong-first", "predict", "claim:PW-01"]
my_guess = ...  # 1, 0 or "error"

mine = shelf / "net.pth"
torch.save({"w": torch.ones(1)}, mine)
load = functools.partial(quietly, model_zoo.load_url, progress=False)
said = load(mine.as_posix())
print("with an empty cache:", said.split(":")[0], "| unknown url type:", "unknown url type" in said)

torch.save({"w": torch.zeros(1)}, cache / "net.pth")
found = load(mine.as_posix())
print("with another net.pth in the cache:", found)
print("a path that does not exist:", load("/no/such/place/net.pth"))

left = list(cache.glob("*.partial"))
size = left[0].stat().st_size
print("and what the error left in the cache:", len(left), "file of", size, "bytes")
for file in (*left, cache / "net.pth"):
    file.unlink()
print("as a file: address, with an empty cache:", load(mine.as_uri()))
exercises.predict(my_guess, torch=int(found["w"]))

# %% [markdown] lang="en"
# Your path was never opened. Only its last part was looked at, `net.pth`, and the cache has a file of that name.
# With an empty cache you get an error, because a path is no address. A `file:` address works.
#
# ## The idea
#
# torch keeps downloads in one folder. Before it downloads, it looks there for a file with the **base name** of the address.
# Nothing else is compared: not the host, not the path before the name, not the content.
#
# Where is that folder? We set one place after the other:

# %% [markdown] lang="zh"
# 你的路径根本没有打开。torch 只看它的最后一段 `net.pth`，而缓存里恰好有同名文件。
# 缓存为空时会报错，因为路径不是地址。`file:` 地址则可以。
#
# ## 概念
#
# torch 把下载的文件放在一个文件夹里，即缓存（cache）。下载之前，它先在那里找与地址的**基本名**（base name）相同的文件。
# 别的都不比较：不看主机，不看名字前面的路径，也不看内容。
#
# 这个文件夹在哪里？我们一处一处地设：


# %% tags=["claim:PW-06"]
def shown_cache():
    place = Path(torch.hub.get_dir()).as_posix().replace(Path.home().as_posix(), "~")
    return re.sub(r"^[A-Za-z]:", "", place) + "/checkpoints"


before = dict(os.environ)
for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
    os.environ.pop(variable, None)
rows = [{"set": "nothing", "cache": shown_cache()}]
for variable in ("XDG_CACHE_HOME", "TORCH_HOME"):
    os.environ[variable] = f"/{variable.lower()}"
    rows.append({"set": f"and {variable}", "cache": shown_cache()})
torch.hub.set_dir("/set_dir")
rows.append({"set": "and torch.hub.set_dir", "cache": shown_cache()})
os.environ.update(before)
torch.hub.set_dir(cache.parent)
print(facts.Table("where torch looks: the later row wins", rows))

torch.save({"w": torch.full((1,), 5.0)}, cache / "my.pth")
print("from a host that does not exist:", hub("https://no.such.host.invalid/any/my.pth"))

# %% [markdown] lang="en"
# So a file that you put there by hand is used without a download. That is the second way of the notes, and it works.
#
# ## Is it the right file?
#
# Many names carry a **hash**, a long checksum of the content: `net-0123abcd.pth` says that its SHA-256 begins with `0123abcd`.
# Here is such a name, but the file in the cache holds something else. You ask with `check_hash=True`.
# Predict: `"error"` or `"loads"`?

# %% [markdown] lang="zh"
# 所以，手工放进去的文件不用下载就会用上。这是笔记里的第二种方法，它有效。
#
# ## 文件对不对？
#
# 许多文件名带有**哈希值**（hash），即由内容算出的一个很长的校验和：`net-0123abcd.pth` 表示内容的 SHA-256 以 `0123abcd` 开头。
# 下面就有这样一个名字，但缓存里的文件内容是别的东西。你用 `check_hash=True` 去取。
# 预测：`"error"`（报错）还是 `"loads"`（加载成功）？

# %% tags=["predict", "claim:PW-07"]
my_guess = ...  # "error" or "loads"

digest = hashlib.sha256(mine.read_bytes()).hexdigest()
good, wrong = f"good-{digest[:8]}.pth", "wrong-0123abcd.pth"
for name in (good, wrong):
    (shelf / name).write_bytes(mine.read_bytes())

print("good name, downloaded:", quietly(hub, f"{site}/{good}", check_hash=True))
said = quietly(hub, f"{site}/{wrong}", check_hash=True)
print("wrong name, downloaded:", said.split(" (")[0])
(cache / wrong).write_bytes(mine.read_bytes())
from_cache = quietly(hub, f"{site}/{wrong}", check_hash=True)
print("wrong name, in the cache:", from_cache)
exercises.predict(my_guess, torch="loads" if isinstance(from_cache, dict) else "error")

# %% [markdown] lang="en"
# The hash is compared while downloading, and never again. A download that breaks off is kept, too:
# the server promised all bytes and sent half of them. And one thing more: may such a file run code?

# %% [markdown] lang="zh"
# 哈希值只在下载时比较，以后再也不比。中途断掉的下载也会留下：
# 服务器答应发送全部字节，却只发了一半。还有一件事：这样的文件能运行代码吗？


# %% tags=["claim:PW-07"]
class Evil:
    def __reduce__(self):
        return exec, ("import builtins; builtins.RAN = True",)


torch.save({"w": torch.arange(9)}, shelf / "cut.pth")
for attempt in (1, 2):
    said = quietly(hub, f"{site}/half/cut.pth")
    kept, loads = (cache / "cut.pth").exists(), isinstance(said, dict)
    print(f"broken off, attempt {attempt}: in the cache {kept}, loads {loads}")

torch.save(Evil(), shelf / "evil.pth")
said = quietly(torch.load, shelf / "evil.pth").split(":")[0]
print("torch.load:", said, "| ran:", hasattr(builtins, "RAN"))
quietly(hub, f"{site}/evil.pth")
print("load_state_dict_from_url: ran:", hasattr(builtins, "RAN"))

# %% [markdown] lang="en"
# `load_state_dict_from_url` still has `weights_only=False` by default. Say `weights_only=True`.
#
# What is in the cache by now? `checkpoint.cached` checks every file against the hash in its name:

# %% [markdown] lang="zh"
# `load_state_dict_from_url` 的默认值仍是 `weights_only=False`。请写上 `weights_only=True`。
#
# 现在缓存里有什么？`checkpoint.cached` 拿每个文件与名字里的哈希值核对：

# %%
print(checkpoint.cached().summary())
rows = [
    {key: row[key] for key in ("file", "hash", "as fetched")} for row in checkpoint.cached().rows()
]
facts.Table("checked", [row | {"file": row["file"].replace(digest[:8], "HASH")} for row in rows])

# %% [markdown] lang="en"
# Four of the six cannot be checked: nobody wrote down what they were. `checkpoint.load` takes the same addresses.
# It checks on **every** use: the hash in the name, or the one it wrote down when it fetched the file.

# %% [markdown] lang="zh"
# 六个里有四个无从核对：没有人记下它们原来是什么。`checkpoint.load` 接受同样的地址。
# 它在**每次**使用时都核对：用名字里的哈希值，或者取文件时记下的那个。

# %%
ours = Path(room.name, "ours")
torch.hub.set_dir(ours)
rows = []
for what, uri in (
    ("good name", good),
    ("wrong name", wrong),
    ("broken off", "half/cut.pth"),
    ("evil", "evil.pth"),
):
    said = quietly(checkpoint.load, f"{site}/{uri}")
    text = said.replace(digest[:8], "HASH") if isinstance(said, str) else f"loads {list(said)}"
    kept = any(
        file.name.startswith(uri.rpartition("/")[2].partition(".")[0])
        for file in (ours / "checkpoints").iterdir()
    )
    rows.append(
        {
            "file": what,
            "checkpoint.load": text.partition(": their")[0]
            .partition(";")[0]
            .partition(", which")[0],
            "kept": kept,
        }
    )
facts.Table("the same four files", rows)

# %% [markdown] lang="en"
# A download that broke off, or that is not what its name says, is not kept. The evil file is: its bytes are what the server sent, only loading is refused.
#
# Now one bit of a good file changes on the disk:

# %% [markdown] lang="zh"
# 中途断掉的下载和名不副实的文件都不会留下。恶意文件留下了：字节确实是服务器发来的，只是拒绝加载。
#
# 现在，硬盘上一个好文件里有一个比特变了：

# %%
damaged = bytearray((ours / "checkpoints" / good).read_bytes())
damaged[damaged.index(b"\x00\x00\x80\x3f")] ^= 1  # in the number 1.0
(ours / "checkpoints" / good).write_bytes(damaged)
found = quietly(hub, f"{site}/{good}", check_hash=True, weights_only=True)
print("torch.hub loads it, w is more than 1:", (found["w"] > 1).item())
said = quietly(checkpoint.load, f"{site}/{good}").partition(": ")[2]
said = re.sub(r"'.*?[/\\]checkpoints[/\\]+", "'", said).replace(digest[:8], "HASH")
print("checkpoint.load:", re.sub(r"is [0-9a-f]{8},", "is OTHER,", said))

# %% [markdown] lang="en"
# torch.hub loaded the damaged number, though `check_hash=True` was asked for. `checkpoint.load` refused it.
#
# ## torchvision's weights
#
# The notes edit a dictionary `model_urls` in torchvision's source. Is it still there? And the two file names of the notes,
# are they still asked for?

# %% [markdown] lang="zh"
# 尽管写了 `check_hash=True`，torch.hub 还是加载了损坏的数；`checkpoint.load` 拒绝了它。
#
# ## torchvision 的权重
#
# 笔记修改 torchvision 源码里的字典 `model_urls`。它还在吗？笔记里的两个文件名，现在还会用到吗？

# %% tags=["claim:PW-02", "claim:PW-03"]
torch.hub.set_dir(cache.parent)
print("models.resnet.model_urls exists:", hasattr(models.resnet, "model_urls"))
wanted = {}
for model in ("resnet50", "vgg16"):
    for name, weights in models.get_model_weights(model).__members__.items():
        wanted[model, name] = weights.url.rpartition("/")[2]
rows = [
    {"model": model, "weights": name, "file": file}
    for (model, name), file in wanted.items()
    if "FEATURES" not in name
]
print(facts.Table("what torchvision asks for", rows))
for old in ("resnet50-19c8e357.pth", "vgg16-397923af.pth"):
    print(f"{old}, as in the notes: still asked for: {old in wanted.values()}")
print("from:", models.ResNet50_Weights.DEFAULT.url.rpartition("/")[0])

# %% [markdown] lang="en"
# `pretrained=True` still works. How many warnings does it give? For the test, a stand-in lies in the cache: an untrained network
# under the official name of resnet18's weights.

# %% [markdown] lang="zh"
# `pretrained=True` 仍然能用。它给出几个警告？为了测试，缓存里放了一个替身：一个没训练过的网络，却用 resnet18 权重的正式文件名。

# %% tags=["predict", "claim:PW-04", "claim:PW-07"]
my_guess = ...  # a number

official = models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
torch.manual_seed(0)
standin = models.resnet18(weights=None)
torch.save(standin.state_dict(), cache / official)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    old_way = models.resnet18(pretrained=True)
new_way = models.resnet18(weights="DEFAULT")
untrained = models.resnet18(weights=None)
print("deprecated since 0.13:", "since 0.13" in str(caught[0].message))
for name, model in (
    ("pretrained=True", old_way),
    ("weights='DEFAULT'", new_way),
    ("weights=None", untrained),
):
    print(f"{name}: the stand-in's weights: {torch.equal(model.fc.weight, standin.fc.weight)}")
said = quietly(checkpoint.local_path, "torchvision://resnet18")
print(
    "checkpoint.local_path('torchvision://resnet18') refuses it:",
    said.partition("; ")[0].rpartition(", ")[2],
)
exercises.predict(my_guess, torch=len(caught))

# %% [markdown] lang="en"
# torchvision took the stand-in for trained weights. Its name says `f37072fd`; only `checkpoint` looked.
#
# The plain way needs no cache: build the model, load your file. May the last layer have another size than the weights?

# %% [markdown] lang="zh"
# torchvision 把替身当成了训练好的权重。它的名字写着 `f37072fd`，只有 `checkpoint` 核对了。
#
# 最直接的做法不需要缓存：造出模型，加载你的文件。最后一层的大小可以与权重不同吗？

# %% tags=["claim:PW-05"]
torch.save(standin.state_dict(), shelf / "local.pth")
model = models.resnet18(weights=None)
print(
    model.load_state_dict(torch.load(shelf / "local.pth")),
    torch.equal(model.fc.weight, standin.fc.weight),
)
print("weights and num_classes=7:", quietly(models.resnet18, weights="DEFAULT", num_classes=7))

seven = models.resnet18(weights=None, num_classes=7)
# The last layer stays new.
report = checkpoint.warm_start(seven, torch.load(shelf / "local.pth"), rename={"fc": None})
print("warm_start without the last layer:", report.summary())

# %% [markdown] lang="en"
# ## Explore: who notices?
#
# A file is fetched once by each tool. Then the copy in the cache is changed, and the file is asked for again.
#
# Two things to change: `change`, to see what each tool notices; then `name`.

# %% [markdown] lang="zh"
# ## 动手探索：谁会发现？
#
# 每个工具先把文件取来一次。然后缓存里的副本变了，再取一次。
#
# 试着改两处：`change`（怎么变），看每个工具能发现什么；再改 `name`（名字）。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
@dataclass(frozen=True, repr=False)
class Noticed(facts.Table):
    heads = ("asked by", "change", "compares", "outcome")

    def tree(self):
        return [
            {
                "depth": 0,
                "path": r["asked by"],
                "before": r["change"],
                "rule": r["compares"],
                "after": r["outcome"],
            }
            | {"surprise": r["outcome"] == "loads" and r["change"] != "nothing"}
            for r in self.content
        ]


# %% tags=["explore"]
def noticed(change, name):
    file = {"with a hash": good, "without a hash": "net.pth"}[name]
    tools = {
        "torch.hub": ("the name", functools.partial(hub, weights_only=True)),
        "torch.hub, check_hash=True": (
            "the name",
            functools.partial(hub, weights_only=True, check_hash=True),
        ),
        "checkpoint.load": ("sha256", checkpoint.load),
    }
    rows = []
    for tool, (compares, load) in tools.items():
        with tempfile.TemporaryDirectory() as place:
            torch.hub.set_dir(place)
            quietly(load, f"{site}/{file}")
            (copy,) = [
                entry for entry in Path(place, "checkpoints").iterdir() if entry.suffix == ".pth"
            ]
            content = bytearray(copy.read_bytes())
            if change == "one bit":
                content[content.index(b"\x00\x00\x80\x3f")] ^= 1  # in the number 1.0
            elif change == "cut off":
                del content[len(content) // 2 :]
            elif change == "another file":
                torch.save({"w": torch.zeros(1)}, copy)
                content = copy.read_bytes()
            copy.write_bytes(content)
            said = quietly(load, f"{site}/{file}")
            torch.hub.set_dir(cache.parent)
        outcome = "loads" if isinstance(said, dict) else said.split(":")[0]
        rows.append({"asked by": tool, "change": change, "compares": compares, "outcome": outcome})
    return Noticed(f"a file {name} in its name, asked for a second time", rows)


widgets.explore(
    noticed,
    pictures.tree,
    change=["one bit", "another file", "cut off", "nothing"],
    name=["with a hash", "without a hash"],
)

# %% [markdown] lang="en"
# A hash in the name makes no difference: on the second use torch looks at the name alone, and `checkpoint` wrote the hash down.
#
# ## Exercise 1: the name in the cache
#
# Where does torch look for an address? Write the file's path: the folder, and the base name of the address.
# An address may have a question mark and more behind its path.

# %% [markdown] lang="zh"
# 名字里有没有哈希值，结果都一样：torch 第二次使用时只看名字，而 `checkpoint` 已经记下了哈希值。
#
# ## 练习 1：缓存里的名字
#
# 对于一个地址，torch 去哪里找文件？写出文件路径：文件夹，加上地址的基本名。
# 地址的路径后面可能还有问号和别的内容。


# %% tags=["exercise:25_cache_file"]
def cache_file(address, folder):
    """The path of the cached file, as a Path."""
    ...


# solution
def cache_file(address, folder):
    from urllib.parse import urlparse

    return Path(folder, urlparse(address).path.rpartition("/")[2])


# %% tags=["check"]
exercises.check("25_cache_file", cache_file)  # stuck? exercises.hint("25_cache_file")

# %% [markdown] lang="en"
# ## Exercise 2: as its name says
#
# Write the check that torch leaves out: does the file's SHA-256 begin with the hash in its name? The name is
# `anything-HASH.suffix`, where `HASH` has 8 or more of the characters `0-9a-f`. Without such a hash, return `None`.

# %% [markdown] lang="zh"
# ## 练习 2：名副其实
#
# 写出 torch 没有做的检查：文件的 SHA-256 是否以名字里的哈希值开头？名字的形式是 `anything-HASH.suffix`，
# 其中 `HASH` 是 8 个或更多的 `0-9a-f` 字符。没有这样的哈希值时返回 `None`。


# %% tags=["exercise:25_as_named"]
def as_named(path):
    """True, False, or None where the name holds no hash."""
    ...


# solution
def as_named(path):
    found = re.search(r"-([0-9a-f]{8,})\.", Path(path).name)
    if found is None:
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest().startswith(found[1])


# %% tags=["check"]
exercises.check("25_as_named", as_named)  # stuck? exercises.hint("25_as_named")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements from project notes. Which one is not true? The cell proves it.
#
# 1. `load_url` loads a local file, given as a `file:` address.
# 2. A file in the cache is used even if its host is gone.
# 3. `resnet50-19c8e357.pth` in the cache saves the download for `resnet50(weights="DEFAULT")`.
# 4. `resnet18(weights=None)` needs no file at all.

# %% [markdown] lang="zh"
# ## 找错
#
# 项目笔记里的四个说法。哪一个不成立？单元格会给出证明。
#
# 1. 以 `file:` 地址给出本地文件，`load_url` 能加载。
# 2. 文件在缓存里，即使主机已不存在也会用上。
# 3. 缓存里有 `resnet50-19c8e357.pth`，`resnet50(weights="DEFAULT")` 就不用下载。
# 4. `resnet18(weights=None)` 完全不需要文件。

# %% tags=["bug-hunt", "claim:PW-03"]
my_guess = ...  # 1, 2, 3 or 4

with tempfile.TemporaryDirectory() as empty:
    torch.hub.set_dir(empty)
    lines = {
        1: isinstance(quietly(model_zoo.load_url, mine.as_uri(), progress=False), dict),
        4: models.resnet18(weights=None) is not None
        and not (Path(empty) / "checkpoints" / official).exists(),
    }
    torch.hub.set_dir(cache.parent)
lines[2] = isinstance(quietly(hub, "https://no.such.host.invalid/any/my.pth"), dict)
lines[3] = models.ResNet50_Weights.DEFAULT.url.endswith("resnet50-19c8e357.pth")
print("asked for:", models.ResNet50_Weights.DEFAULT.url.rpartition("/")[2])
exercises.predict(my_guess, torch=next(number for number in sorted(lines) if not lines[number]))

# %% [markdown] lang="en"
# ## Recap
#
# The cache knows files by their base name alone. torch compares a hash only while it downloads; `checkpoint` on every use.
# Weights that you have already: build with `weights=None`, then load your file.
#
# | Message | Cause | Where |
# |---|---|---|
# | `ValueError: unknown url type` | a path where an address belongs | Wrong first |
# | no message, the weights of another file | the same base name in the cache | Wrong first |
# | `invalid hash value` | the download is not what its name says | Is it the right file? |
# | `model_urls exists: False` | gone from torchvision | torchvision's weights |
# | `The parameter 'num_classes' expected value 1000` | pretrained weights with another last layer | torchvision's weights |
#
# What next: lesson [26](26_sharded_checkpoints.ipynb), one checkpoint written by many ranks. `tutorlib claims --section 25` lists what you
# proved here.

# %% [markdown] lang="zh"
# ## 小结
#
# 缓存只凭基本名认文件。torch 只在下载时比较哈希值，`checkpoint` 每次使用都比较。
# 权重已经在手上时：用 `weights=None` 造出模型，再加载你的文件。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `ValueError: unknown url type` | 该写地址的地方写了路径 | 先看错误 |
# | 没有报错，却是另一个文件的权重 | 缓存里有同名文件 | 先看错误 |
# | `invalid hash value` | 下载的内容与名字不符 | 文件对不对？ |
# | `model_urls exists: False` | torchvision 已去掉它 | torchvision 的权重 |
# | `The parameter 'num_classes' expected value 1000` | 预训练权重配了另一种最后一层 | torchvision 的权重 |
#
# 下一步：第 [26](26_sharded_checkpoints.ipynb) 课，由许多 rank 写成的一份检查点。`tutorlib claims --section 25` 列出你在本课证明过的论断。

# %%
server.shutdown()
exercises.progress("25")
