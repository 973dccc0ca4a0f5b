# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "Exporting to ONNX, with a proof", zh: "导出为 ONNX，并加以证明"}
#     sections:
#       - "000: torch.onnx"
#     minutes: 55
# ---

# %% [markdown] lang="en"
# # 28 · Exporting to ONNX, with a proof
#
# **You will be able to** export a trained model to ONNX, say in every respect what the file holds, and prove without torch that it
# computes the same.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [18](18_torch_load.ipynb), [27](27_summary.ipynb) | 55 | torch.onnx | [简体中文](../zh/28_onnx.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 28 · 导出为 ONNX，并加以证明
#
# **学完本课，你能够**：把训练好的模型导出为 ONNX；说清文件里的每一点；不用 torch，证明它的计算结果相同。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [18](18_torch_load.ipynb)、[27](27_summary.ipynb) 课 | 55 | torch.onnx | [English](../en/28_onnx.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# We train the model that we export: a small network that reads real digits. It takes a second or two.

# %% [markdown] lang="zh"
# ## 准备
#
# 要导出的模型由我们自己训练：一个识别真实手写数字的小网络。只需一两秒。

# %% tags=["setup"]
import contextlib
import io
import pickle
import shutil
import sys
import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from tutorlib import datasets, exercises, export, pictures, widgets

room = tempfile.TemporaryDirectory()  # removed when the kernel ends
folder = Path(room.name)


def make(norm=True, dropout=True):
    layers = OrderedDict(
        conv=nn.Conv2d(1, 8, 3, padding=1),
        norm=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
    )
    layers |= {"flatten": nn.Flatten(), "drop": nn.Dropout(0.2), "out": nn.Linear(128, 10)}
    left_out = {"norm": norm, "drop": dropout}
    return nn.Sequential(
        OrderedDict((name, layer) for name, layer in layers.items() if left_out.get(name, True))
    )


torch.manual_seed(0)
model = make()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(3):
    for images, labels in DataLoader(datasets.digits("train"), batch_size=64, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
model.eval()

test = datasets.digits("test")
images, labels = next(iter(DataLoader(test, batch_size=len(test))))
answers = model(images).argmax(1)
right = (answers == labels).float().mean().item()
print("ready:", len(test), "digits to read, more than 90 in 100 right:", right > 0.9)

# %% [markdown] lang="en"
# ## Wrong first
#
# The notes end with one block that exports a model. We repair it, failure by failure. It begins with `torch.load(f='model.pt')`,
# where `model.pt` holds the whole model.
#
# What happens on that line? Write `"loads"` or the name of an error, then run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 笔记最后用一段代码导出模型。我们把其中的错误一个一个改掉。它以 `torch.load(f='model.pt')` 开头，`model.pt` 里存的是整个模型。
#
# 这一行会怎样？写 `"loads"`（加载成功）或错误的名字，然后运行单元格。

# %% tags=["wrong-first", "predict", "claim:ON-03"]
my_guess = ...  # "loads" or the name of an error

torch.save(model, folder / "model.pt")
try:
    torch.load(f=folder / "model.pt")
    outcome = "loads"
except pickle.UnpicklingError as error:
    outcome = type(error).__name__
torch.save(model.state_dict(), folder / "weights.pt")
rebuilt = make()
print(rebuilt.load_state_dict(torch.load(f=folder / "weights.pt", weights_only=True)))
exercises.predict(my_guess, torch=outcome)

# %% [markdown] lang="en"
# The first repair: build the model in code, load its `state_dict` (lesson [18](18_torch_load.ipynb)).
#
# The second failure depends on your machine. Does torch export alone? We hide two packages for a moment.

# %% [markdown] lang="zh"
# 第一处修改：用代码造出模型，再加载它的 `state_dict`（见第 [18](18_torch_load.ipynb) 课）。
#
# 第二个错误取决于你的机器。只装 torch 能导出吗？我们把两个包暂时藏起来。


# %% tags=["claim:ON-11"]
@contextlib.contextmanager
def without(*names):
    kept = {name: sys.modules.pop(name, None) for name in names}
    sys.modules.update(dict.fromkeys(names))  # None: Python says that it is not installed
    try:
        yield
    finally:
        for name, module in kept.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def alone(call):
    with (
        without("onnx", "onnxscript"),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            call()
            return "the exporter is loaded already: restart the kernel to see its error"
        except (ImportError, RuntimeError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"


line, x = nn.Linear(1, 1).eval(), torch.ones(1, 1)
path = folder / "line.onnx"
print("torch:", alone(lambda: torch.onnx.export(line, (x,), path)))
print("torch, dynamo=False:", alone(lambda: torch.onnx.export(line, (x,), path, dynamo=False)))
print("tutorlib:", alone(lambda: export.to_onnx(line, x, path, mode="eval", external_data=False)))

# %% [markdown] lang="en"
# Torch needs `onnx` and `onnxscript`; both are installed here. (Really without them it says `No module named 'onnxscript'`.) Torch has two
# exporters: today's, and with `dynamo=False` the old one.
#
# The third failure: the block declares batch, channels, height and width as dynamic, for any image model. Can a convolution take
# images with any number of channels?

# %% [markdown] lang="zh"
# torch 需要 `onnx` 和 `onnxscript`，这里都装好了。（真的没装时，它说 `No module named 'onnxscript'`。）
# torch 有两个导出器：现在默认的，以及用 `dynamo=False` 选择的旧导出器。
#
# 第三个错误：这段代码把批次、通道、高、宽都声明为动态（dynamic），不管是什么图像模型。一个卷积层能接受任意通道数的图像吗？

# %% tags=["raises-exception", "claim:ON-08"]
import onnx


def declared(path):
    """The shape that the file declares for its first input."""
    return [
        d.dim_param or d.dim_value
        for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    ]


rgb, picture = nn.Conv2d(3, 2, 3).eval(), torch.zeros(2, 3, 8, 8)
axes = {0: "B", 1: "C", 2: "H", 3: "W"}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the old exporter announces its end
    old = {"input_names": ["X"], "dynamic_axes": {"X": axes}, "dynamo": False}
    torch.onnx.export(rgb, (picture,), folder / "old.onnx", **old)
print("the old exporter writes:", declared(folder / "old.onnx"))
try:
    export.run(folder / "old.onnx", torch.zeros(2, 4, 8, 8))
except export.ExportError as error:
    print("with 4 channels:", str(error).split(":")[0])

# the exporter of today:
now = {"mode": "eval", "external_data": False, "dynamic_shapes": (axes,), "input_names": ["X"]}
export.to_onnx(rgb, picture, folder / "rgb.onnx", **now)

# %% [markdown] lang="en"
# The weights of a convolution fix the number of channels. The old exporter writes a promise that no runtime can keep. Today's
# exporter refuses.
#
# ## The idea
#
# **ONNX** is an open format for a computation: a **graph** of nodes, each one operator, with the weights. Any runtime can run it,
# without Python and without your classes. Torch gets the graph by one run of your model. What that run did not show is not in the
# graph: the other branch of an `if`, other shapes, the other mode.

# %% [markdown] lang="zh"
# 卷积的权重决定了通道数。旧导出器写下一个任何运行时都无法兑现的承诺。如今的导出器则会拒绝。
#
# ## 概念
#
# **ONNX** 是描述计算的开放格式：一张由节点组成的**图**（graph），每个节点是一个算子，再加上权重。
# 任何运行时（runtime）都能执行它，不需要 Python，也不需要你的类。torch 让你的模型运行一次，由此得到图。
# 这次运行没有展现的东西就不在图里：`if` 的另一个分支、别的形状、另一种模式。

# %% [markdown] lang="en"
# ## Arguments that are ignored
#
# Now the rest of the block, with our digits model and only the batch dynamic. It asks for training mode, and the model has a dropout
# layer. How many nodes of the exported graph are called Dropout?

# %% [markdown] lang="zh"
# ## 不起作用的参数
#
# 现在是这段代码的其余部分，用我们的数字模型，只把批次设为动态。它要求训练模式，模型里有一层 dropout。
# 导出的图里有几个叫 Dropout 的节点？

# %% tags=["predict", "claim:ON-09"]
my_guess = ...  # how many?

asked = {
    "training": torch.onnx.TrainingMode.TRAINING,
    "do_constant_folding": False,
    "dynamic_axes": {"X": {0: "B"}},
}
names = {"input_names": ["X"], "output_names": ["Y"]}
said = io.StringIO()
with contextlib.redirect_stdout(said), warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    program = torch.onnx.export(
        model, (images[:2],), folder / "model.onnx", verbose=True, **asked, **names
    )
operators = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
print(
    "today:", operators, "| a warning about it:", any("training" in str(w.message) for w in warned)
)

before = rebuilt.norm.running_mean.clone()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.onnx.export(rebuilt, (images[:2],), folder / "old.onnx", **asked, **names, dynamo=False)
old = [
    node.op_type for node in onnx.load(folder / "old.onnx").graph.node if node.op_type != "Constant"
]
print("old:", old, "| has changed the model:", not torch.equal(rebuilt.norm.running_mean, before))
exercises.predict(my_guess, torch=operators.count("Dropout"))

# %% [markdown] lang="en"
# `training` and `do_constant_folding` are ignored without a word. Only `model.training` counts. The old exporter obeys, and moves the
# statistics of batch norm while it does.
#
# And the dynamic axis?

# %% [markdown] lang="zh"
# `training` 和 `do_constant_folding` 被忽略，没有任何提示。只有 `model.training` 起作用。
# 旧导出器照办，同时却改变了批归一化的统计量。
#
# 动态轴呢？

# %% tags=["claim:ON-07"]
print("declared shape:", declared(folder / "model.onnx"))
for words in ("'dynamic_axes' is not recommended", "deprecated"):
    print(f"a warning with {words!r}:", any(words in str(w.message) for w in warned))

# %% [markdown] lang="en"
# It works, but it is the old spelling. Today's is `dynamic_shapes=({0: "batch"},)`, one entry for each input.
#
# The notes expect one file, `model.onnx`, and a printed graph. How many files were written?

# %% [markdown] lang="zh"
# 有效，但这是旧写法。如今写 `dynamic_shapes=({0: "batch"},)`，每个输入一项。
#
# 笔记认为会写出一个文件 `model.onnx`，并打印出图。实际写了几个文件？

# %% tags=["predict", "claim:ON-10"]
my_guess = ...  # how many files?

written = sorted(file.name for file in folder.glob("model.onnx*"))
printed = "graph(" in said.getvalue()
print(written, "| returned:", type(program).__name__, "| a graph was printed:", printed)
(folder / "elsewhere").mkdir()
shutil.copy(folder / "model.onnx", folder / "elsewhere")
try:
    export.run(folder / "elsewhere" / "model.onnx", images[:2])
except export.ExportError as error:
    print("copied alone:", error)
exercises.predict(my_guess, torch=len(written))

# %% [markdown] lang="en"
# The weights stand in a second file. `external_data=False` gives one file.
#
# ## What an .onnx file is
#
# The notes say: export to a Protocol Buffer file *or* to ONNX. Are these two things?

# %% [markdown] lang="zh"
# 权重在第二个文件里。`external_data=False` 只写一个文件。
#
# ## .onnx 文件是什么
#
# 笔记说：导出为 Protocol Buffer 格式*或* ONNX 格式。这是两样东西吗？

# %% tags=["claim:ON-02"]
content = onnx.ModelProto.FromString((folder / "model.onnx").read_bytes())
print("read as a protocol buffer, it says: made by", content.producer_name)
print("nodes:", [node.op_type for node in content.graph.node])

# %% [markdown] lang="en"
# An ONNX file *is* a protocol buffer.
#
# ## Several inputs, fixed shapes
#
# A model with two inputs takes them as a tuple. Without `dynamic_shapes`, each shape is fixed to the example's.

# %% [markdown] lang="zh"
# ONNX 文件*就是*一个 protocol buffer。
#
# ## 多个输入，固定形状
#
# 有两个输入的模型，用元组传入例子。不写 `dynamic_shapes` 时，每个形状都固定为例子的形状。


# %% tags=["claim:ON-04", "claim:ON-05"]
class Add(nn.Module):
    def forward(self, a, b):
        return a + b


two = (torch.ones(2, 3), torch.ones(2, 3))
settings = {"mode": "eval", "external_data": False, "opset_version": 18}
unnamed = export.to_onnx(Add(), two, folder / "add.onnx", **settings)
print([value.name for value in unnamed.inputs], "without names")
settings |= {"input_names": ["X1", "X2"], "output_names": ["Y"]}
print(export.to_onnx(Add(), two, folder / "add.onnx", **settings))
try:
    export.run(folder / "add.onnx", torch.ones(5, 3), torch.ones(5, 3))
except export.ExportError as error:
    print(error)

# %% [markdown] lang="en"
# Must the example have a batch axis? That depends on the layers:

# %% [markdown] lang="zh"
# 例子必须有批次维吗？这取决于用了哪些层：

# %% tags=["claim:ON-06"]
one_image = torch.zeros(3, 8, 8)
print("Conv2d without a batch:", tuple(nn.Conv2d(3, 2, 3)(one_image).shape))
try:
    nn.BatchNorm2d(3).eval()(one_image)
except ValueError as error:
    print("BatchNorm2d:", error)

# %% [markdown] lang="en"
# ## An export that is proven
#
# `export.to_onnx` makes you say what torch guesses: the mode, one file or two. Then it reads the file back from the disk and runs it
# with onnx's own evaluator, which knows nothing of torch, at batch sizes 1, 2 and 5. Only then does the file take its place. `opset_version` says for which
# version of ONNX's list of operators (**opset**) the file is written.
#
# (The evaluator checks and is slow. To serve the file, use a runtime such as onnxruntime.)

# %% [markdown] lang="zh"
# ## 经过证明的导出
#
# torch 靠猜的，`export.to_onnx` 要你说明：哪种模式，一个文件还是两个。然后它从磁盘读回文件，
# 用 onnx 自带的、与 torch 无关的求值器（evaluator），以批次大小 1、2、5 运行。通过之后，文件才就位。
# `opset_version` 指定文件按 ONNX 算子表的哪个版本（**opset**）来写。
#
# （求值器用来检验，很慢；部署请用 onnxruntime 之类的运行时。）

# %% tags=["claim:ON-01"]
digits_file = folder / "digits.onnx"
how = {
    "external_data": False,
    "dynamic_shapes": ({0: "batch"},),
    "input_names": ["image"],
    "output_names": ["scores"],
}
report = export.to_onnx(
    model, images[:3], digits_file, mode="eval", opset_version=18, tolerance=1e-5, **how
)
report

# %% [markdown] lang="en"
# Does the file read real digits? All 360 that the model has never seen, in one batch:

# %% [markdown] lang="zh"
# 这个文件认得真实的数字吗？模型从未见过的 360 个，作为一个批次：

# %% tags=["claim:ON-01"]
(scores,) = export.run(digits_file, images)
print("the same answer as torch:", int((scores.argmax(1) == answers).sum()), "of", len(images))
print("more than 90 in 100 right:", (scores.argmax(1) == labels).float().mean().item() > 0.9)

# %% [markdown] lang="en"
# ## Explore: nodes beside modules
#
# Each node is shown beside the module that it comes from, with its difference from what this module gave in torch. `!` marks a module
# without a node, or a node that is not its module.
#
# Two things to change: set `mode` to train and press the button: dropout draws at random, so nothing can be compared. Then switch
# `dropout` off and press again. What is wrong with the batch norm now?

# %% [markdown] lang="zh"
# ## 动手探索：节点与模块
#
# 每个节点画在它所来自的模块旁边，并给出它与该模块在 torch 中的结果之间的差异。
# `!` 标出没有节点的模块，或与模块不符的节点。
#
# 试着改两处：把 `mode` 改成 train，按下按钮：dropout 是随机的，无从比较。再把 `dropout` 关掉，再按一次。批归一化出了什么问题？


# %% tags=["explore"]
def graph(mode, norm, dropout):
    torch.manual_seed(0)
    try:
        return export.to_onnx(
            make(norm, dropout), images[:3], folder / "seen.onnx", mode=mode, sizes=(2, 5), **how
        ).graph
    except export.ExportError as error:  # the proof failed: the facts are in the error
        return error.report.graph


widgets.explore(
    graph, pictures.graph, run="button", mode=["eval", "train"], norm=True, dropout=True
)

# %% [markdown] lang="en"
# The convolution has no node of its own: batch norm was folded into it, and the node stands for both. Dropout does nothing in
# evaluation mode, so it has none.
#
# In training mode, batch norm must use the statistics of the batch. Does the exported graph?

# %% [markdown] lang="zh"
# 卷积没有自己的节点：批归一化折叠（fold）进了卷积，一个节点代表两者。dropout 在评估模式下什么也不做，所以没有节点。
#
# 训练模式下，批归一化必须使用当前批次的统计量。导出的图做到了吗？

# %% tags=["raises-exception"]
torch.manual_seed(0)
export.to_onnx(
    make(dropout=False), images[:3], folder / "train.onnx", mode="train", sizes=(2, 5), **how
)

# %% [markdown] lang="en"
# No. Torch 2.15 exports the running statistics, also in training mode, and says nothing. The proof finds it, and names the node where
# it begins. Nothing was written.
#
# ## What cannot be a graph
#
# A graph has no choice that depends on values. The error names the line:

# %% [markdown] lang="zh"
# 没有。torch 2.15 在训练模式下导出的也是滑动统计量，而且不作声。证明发现了它，并指出是从哪个节点开始的。什么也没有写入。
#
# ## 什么不能成为图
#
# 图里没有取决于数值的选择。错误信息指出了那一行：


# %% tags=["raises-exception"]
class Invert(nn.Module):
    def forward(self, images):
        if images.mean() > 0.5:
            return 1 - images
        return images


export.to_onnx(Invert(), images[:2], folder / "invert.onnx", mode="eval", external_data=False)

# %% [markdown] lang="en"
# ## Exercise 1: without a choice
#
# Each image whose mean is above 0.5 becomes `1 - image`; the others stay. Write it for a batch of shape (batch, 1, height, width),
# without `if` and without a loop over images, so that it can be exported for any batch.

# %% [markdown] lang="zh"
# ## 练习 1：不用选择
#
# 平均值大于 0.5 的图像变成 `1 - image`，其余不变。输入形状是 (batch, 1, 高, 宽)。
# 不用 `if`，也不对图像循环，使它能为任意批次导出。


# %% tags=["exercise:28_inverted"]
def inverted(images):
    """Images like `images`, those with a mean above 0.5 inverted."""
    ...


# solution
def inverted(images):
    bright = images.mean((1, 2, 3), keepdim=True) > 0.5
    return torch.where(bright, 1 - images, images)


# %% tags=["check"]
exercises.check("28_inverted", inverted)  # stuck? exercises.hint("28_inverted")

# %% [markdown] lang="en"
# ## Exercise 2: your own proof
#
# `run(batch)` runs an exported model, `model(batch)` the module; both give one tensor. Return the largest absolute difference over
# all batch `sizes`, in evaluation mode. Make the batches from `example`, whose first axis is the batch. The model keeps its mode.

# %% [markdown] lang="zh"
# ## 练习 2：你自己的证明
#
# `run(batch)` 运行导出的模型，`model(batch)` 运行模块，两者都给出一个张量。
# 在评估模式下，返回所有批次大小 `sizes` 中最大的绝对差异。批次由 `example` 造出，它的第一维是批次。模型的模式要保持原样。


# %% tags=["exercise:28_largest_difference"]
def largest_difference(model, run, example, sizes):
    """The largest |run(batch) - model(batch)| as a float."""
    ...


# solution
def largest_difference(model, run, example, sizes):
    mode = model.training
    model.eval()
    found = []
    for size in sizes:
        batch = example[torch.arange(size) % len(example)]
        found.append((run(batch) - model(batch)).abs().max().item())
    model.train(mode)
    return max(found)


# %% tags=["check"]
# stuck? exercises.hint("28_largest_difference")
exercises.check("28_largest_difference", largest_difference)

# %% [markdown] lang="en"
# ## Bug hunt
#
# Four statements about `digits.onnx`. Which one is not true? The cell proves it.
#
# 1. Its input is called `image`.
# 2. It takes a single image as a batch of one.
# 3. From the raw pixels (0 to 16) it gives the scores that the model gives for the dataset's images.
# 4. The export has left the model in evaluation mode.

# %% [markdown] lang="zh"
# ## 找错
#
# 关于 `digits.onnx` 的四个说法。哪一个不成立？单元格会给出证明。
#
# 1. 它的输入叫 `image`。
# 2. 单张图像作为大小为 1 的批次，它也接受。
# 3. 给它原始像素（0 到 16），得到的分数与模型对数据集里的图像给出的相同。
# 4. 导出之后，模型仍处于评估模式。

# %% tags=["bug-hunt"]
my_guess = ...  # 1, 2, 3 or 4

raw = test.images[:8].unsqueeze(1).float()  # the pixels as they are stored: 0 to 16
lines = {
    1: [value.name for value in report.inputs] == ["image"],
    2: export.run(digits_file, images[:1])[0].shape == (1, 10),
    3: torch.allclose(export.run(digits_file, raw)[0], model(images[:8]), atol=1e-4),
    4: not model.training,
}
print("pixels up to:", int(raw.max()), "| as the model was trained:", images.max().item())
exercises.predict(my_guess, torch=next(number for number, holds in lines.items() if not holds))

# %% [markdown] lang="en"
# The dataset divides pixels by 16 before the model sees them. Only what the model's own forward does is in the file. Ship the
# preparation with it, or put it into the model.

# %% [markdown] lang="zh"
# 数据集先把像素除以 16，模型才看到。文件里只有模型自己的前向计算。请把预处理一并交付，或写进模型里。

# %% [markdown] lang="en"
# ## Recap
#
# An ONNX file is a graph of what one run did. Say the mode, the dynamic axes, the number of files. Prove the file by running it without
# torch at several batch sizes.
#
# | Message | Cause | Where |
# |---|---|---|
# | `UnpicklingError` | the whole model was saved | Wrong first |
# | `Module onnx is not installed!` | torch alone cannot export | Wrong first |
# | `axis 1 of X cannot vary` | weights fix this axis | Wrong first |
# | no message, no dropout | `training=` is ignored | Arguments that are ignored |
# | `keeps its weights in model.onnx.data` | the second file was not copied | Arguments that are ignored |
# | `the exported model is not the module` | batch norm in training mode | Explore |
# | `decides by the values of a tensor` | an `if` in forward | What cannot be a graph |
#
# What next: lesson [29](29_capstone.ipynb), everything once.

# %% [markdown] lang="zh"
# ## 小结
#
# ONNX 文件是一次运行的图。要说清模式、动态轴、文件个数。要证明它，就脱离 torch，用几种批次大小运行。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `UnpicklingError` | 存的是整个模型 | 先看错误 |
# | `Module onnx is not installed!` | 只有 torch 不能导出 | 先看错误 |
# | `axis 1 of X cannot vary` | 权重固定了这一维 | 先看错误 |
# | 没有报错，也没有 dropout | `training=` 被忽略 | 不起作用的参数 |
# | `keeps its weights in model.onnx.data` | 第二个文件没有一起复制 | 不起作用的参数 |
# | `the exported model is not the module` | 训练模式下的批归一化 | 动手探索 |
# | `decides by the values of a tensor` | forward 里有 `if` | 什么不能成为图 |
#
# 下一步：第 [29](29_capstone.ipynb) 课，把全部内容走一遍。

# %%
exercises.progress("28")
