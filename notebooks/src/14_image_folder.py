# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "ImageFolder: a folder of pictures as a dataset", zh: "ImageFolder：把图片文件夹当作数据集"}
#     sections: ["002: ImageFolder函数读取数据", "002: imagefolder方法返回一个dataset类对象实例"]
#     minutes: 60
# ---

# %% [markdown] lang="en"
# # 14 · ImageFolder: a folder of pictures as a dataset
#
# **You will be able to** predict the index of every class, find the folder or file that breaks a dataset, and choose
# transforms whose results fit into one batch.
#
# | You need | Minutes | Section of the documentation | 中文版 |
# |---|---|---|---|
# | lessons [08](08_collate.ipynb) and [13](13_splits.ipynb) | 60 | torchvision.datasets.ImageFolder | [简体中文](../zh/14_image_folder.ipynb) |
#
# Verified with torch 2.15: every output below was produced by it and is compared again in each test run.

# %% [markdown] lang="zh"
# # 14 · ImageFolder：把图片文件夹当作数据集
#
# **学完本课，你能够**：预测每个类别的索引，找出弄坏数据集的文件夹或文件，选出能让结果组成一个批次的变换（transform）。
#
# | 你需要 | 时长（分钟） | 对应的文档章节 | English version |
# |---|---|---|---|
# | 第 [08](08_collate.ipynb)、[13](13_splits.ipynb) 课 | 60 | torchvision.datasets.ImageFolder | [English](../en/14_image_folder.ipynb) |
#
# 验证环境：torch 2.15。下面每个输出都由它真实产生，每次测试都会重新比对。

# %% [markdown] lang="en"
# ## Set-up
#
# The pictures are whole numbers, glued together from real handwritten digits. A digit is 8 pixels high and 8 wide, so an
# 8 is a square, and a 10 is twice as wide as it is high. One folder holds the pictures of one number.

# %% [markdown] lang="zh"
# ## 准备
#
# 图片是整数，由真实的手写数字拼成。一个数字高 8 像素、宽 8 像素，所以 8 是正方形，10 的宽是高的两倍。
# 每个文件夹放同一个数的图片。

# %% tags=["setup"]
import inspect
import io
import shutil
import tempfile
from pathlib import Path

import PIL.Image
import torch
from IPython.display import Image, display
from torch.utils.data import DataLoader, Dataset, Subset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from tutorlib import datasets, exercises, facts, pictures, widgets

digits = datasets.digits("train")
room = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # removed when the kernel ends
root = Path(room.name)


def number(value, copy):
    """A whole number as a grey PIL image: real digits side by side."""
    wanted = [(digits.labels == int(figure)).nonzero()[copy].item() for figure in str(value)]
    return transforms.functional.to_pil_image(torch.cat([digits[i][0] for i in wanted], dim=2))


def write(folder, value, copies):
    (root / folder / str(value)).mkdir(parents=True, exist_ok=True)
    for copy in copies:
        number(value, copy).save(root / folder / str(value) / f"{'abcd'[copy]}.png")


for value in (8, 9, 10, 11):
    write("train", value, [0, 1, 2])
for value in (8, 9, 11):
    write("val", value, [3])
sizes = {part: len(ImageFolder(root / part)) for part in ("train", "val")}
print("ready:", sizes["train"], "pictures in train,", sizes["val"], "in val")

# %% [markdown] lang="en"
# ## Wrong first
#
# You write a note in JupyterLab and save it beside the class folders. Jupyter keeps a copy in a hidden folder of its own.
# Nothing else changes. Run the cell.

# %% [markdown] lang="zh"
# ## 先看错误
#
# 你在 JupyterLab 里写了一条备注，保存在类别文件夹旁边。Jupyter 会在一个隐藏文件夹里自留一份。
# 别的什么都没变。运行这个单元格。

# %% tags=["raises-exception", "wrong-first", "claim:IF-07"]
hidden = root / "train" / ".ipynb_checkpoints"
hidden.mkdir(exist_ok=True)
(hidden / "notes-checkpoint.txt").write_text("look at 10/b again")

ImageFolder(root / "train")

# %% [markdown] lang="en"
# ## The idea
#
# `ImageFolder` never looks at a picture while it is built. It reads **names**:
#
# - every folder directly under the root is a **class**, hidden folders included;
# - the class names, sorted as text, get the indices 0, 1, 2;
# - every file in a class folder, at any depth, whose name ends like an image is a **sample**;
# - each class must have at least one sample.
#
# The result is a map-style dataset: `folder[index]` opens one file and returns `(image, class index)`.

# %% [markdown] lang="zh"
# ## 概念
#
# `ImageFolder` 在创建时根本不看图片，它只读**名字**：
#
# - 根目录下的每个文件夹都是一个**类别**（class），隐藏文件夹也算；
# - 类别名按文本排序，依次得到索引 0、1、2；
# - 类别文件夹里不论多深，扩展名像图片的每个文件都是一个**样本**；
# - 每个类别至少要有一个样本。
#
# 得到的是映射式（map-style）数据集：`folder[index]` 打开一个文件，返回 `(图像, 类别索引)`。

# %% [markdown] lang="en"
# ## The order of the classes
#
# The hidden folder is gone again. Four folders are left: 8, 9, 10 and 11. In which order does `classes` list them?
# Write your prediction, then run the cell. Leave it empty if you like; nothing stops.

# %% [markdown] lang="zh"
# ## 类别的顺序
#
# 隐藏文件夹已经删掉，剩下四个文件夹：8、9、10、11。`classes` 按什么顺序列出它们？
# 先写下你的预测，再运行单元格。不写也可以，后面的单元格照常运行。

# %% tags=["predict", "claim:IF-02"]
my_guess = ...  # for example ["8", "9", "10", "11"]

shutil.rmtree(hidden, ignore_errors=True)
train = ImageFolder(root / "train")
exercises.predict(my_guess, torch=train.classes)

# %% [markdown] lang="en"
# Text order: "1" stands before "8", whatever follows. So the picture of an 8 has class index 2. Read a prediction as
# `train.classes[index]`, never as a number.
#
# The X-ray of the folder: class, index, files.

# %% [markdown] lang="zh"
# 这是文本顺序：“1” 排在 “8” 前面，不管后面跟着什么。所以 8 的图片，类别索引是 2。
# 模型的预测要读作 `train.classes[index]`，不能直接当成那个数。
#
# 文件夹的 X 光图：类别、索引、文件。


# %% tags=["claim:IF-02"]
def short(path, folder="train"):
    return Path(path).relative_to(root / folder).as_posix()


path, second = train.imgs[0]
print("imgs[0]:", (short(path), second), "| imgs is samples:", train.imgs is train.samples)
print("targets:", train.targets)
facts.Table(
    "class_to_idx and the files of each class",
    [
        {
            "class": name,
            "index": index,
            "files": [short(path) for path, target in train.samples if target == index],
        }
        for name, index in train.class_to_idx.items()
    ],
)

# %% [markdown] lang="en"
# ## Which files are samples?
#
# Six files in one class folder:
#
# | File | Content |
# |---|---|
# | `a.png` | a picture |
# | `b.PNG` | a picture |
# | `from Ann/c.png` | a picture, one folder deeper |
# | `d.gif` | a picture |
# | `e.txt` | a note |
# | `f.png` | a note that somebody renamed |
#
# Which of them are samples? Write the letters.

# %% [markdown] lang="zh"
# ## 哪些文件是样本
#
# 一个类别文件夹里有六个文件：
#
# | 文件 | 内容 |
# |---|---|
# | `a.png` | 图片 |
# | `b.PNG` | 图片 |
# | `from Ann/c.png` | 图片，在深一层的文件夹里 |
# | `d.gif` | 图片 |
# | `e.txt` | 备注 |
# | `f.png` | 有人改了扩展名的备注 |
#
# 哪些是样本？写出字母。

# %% tags=["predict", "claim:IF-02", "claim:IF-07"]
my_guess = ...  # for example "abcd"

nest = root / "messy" / "8"
(nest / "from Ann").mkdir(parents=True, exist_ok=True)
for copy, name in enumerate(["a.png", "b.PNG", "from Ann/c.png", "d.gif"]):
    number(8, copy).save(nest / name)
for name in ("e.txt", "f.png"):
    (nest / name).write_text("no picture")

messy = ImageFolder(root / "messy")
exercises.predict(my_guess, torch="".join(sorted(Path(path).stem for path, _ in messy.imgs)))

# %% [markdown] lang="en"
# The GIF is left out without a word, and the note is in: names decide. It fails later, when somebody reads it, perhaps in
# the middle of an epoch.
#
# `is_valid_file` is newer than the notes. With it, a function of yours decides instead of the name.

# %% [markdown] lang="zh"
# GIF 悄悄落选，备注却入选：名字说了算。那条备注要等到有人读它时才报错，可能正好在一轮（epoch）的中间。
#
# `is_valid_file` 比笔记新。它把“看名字”换成你自己的判断。


# %% tags=["claim:IF-01"]
def readable(path):
    try:
        with PIL.Image.open(path) as image:
            image.verify()
    except PIL.UnidentifiedImageError:
        return False
    return True


def read_all(folder):
    for index in range(len(folder)):
        try:
            folder[index]
        except PIL.UnidentifiedImageError as error:
            return f"{type(error).__name__} at {Path(folder.imgs[index][0]).name}"
    return "all read"


noted = ["root", "transform", "target_transform", "loader"]
today = list(inspect.signature(ImageFolder).parameters)
print("in the notes:", noted)
print("new today:   ", [name for name in today if name not in noted])
checked = ImageFolder(root / "messy", is_valid_file=readable)
facts.Table(
    "the messy folder",
    [
        {
            "call": call,
            "samples": sorted(Path(path).name for path, _ in folder.imgs),
            "reading": read_all(folder),
        }
        for call, folder in {"ImageFolder(root)": messy, "is_valid_file=readable": checked}.items()
    ],
)

# %% [markdown] lang="en"
# ## Silence the error?
#
# Jupyter's folder is back. The other new parameter makes the error go away: `allow_empty=True`.
# Index 2 was the class "8". Which class has index 2 now?

# %% [markdown] lang="zh"
# ## 让报错消失
#
# Jupyter 的文件夹又回来了。另一个新参数能让报错消失：`allow_empty=True`。
# 原来索引 2 是类别 “8”。现在索引 2 是哪个类别？

# %% tags=["predict", "claim:IF-01", "claim:IF-07"]
my_guess = ...  # for example "8"

hidden.mkdir(exist_ok=True)
silenced = ImageFolder(root / "train", allow_empty=True)
print("classes:", silenced.classes)
exercises.predict(my_guess, torch=silenced.classes[2])

# %% [markdown] lang="en"
# The dot sorts before digits and letters. The empty class takes index 0 and moves all others up by one. A trained model would
# now be wrong everywhere, without a message. Remove the folder instead. Which roots are refused?

# %% [markdown] lang="zh"
# 点号排在数字和字母前面。空类别占了索引 0，其余类别全部后移一位。已经训练好的模型从此处处出错，却没有任何报错。
# 正确的做法是删掉那个文件夹。哪些根目录会遭到拒绝？


# %% tags=["claim:IF-07"]
def attempt(folder, **arguments):
    try:
        return ImageFolder(folder, **arguments).class_to_idx
    except FileNotFoundError as error:
        told = str(error).split(". ")[0].split(" in ")[0]  # without the path of this machine
        return f"FileNotFoundError: {told}"


hidden.mkdir(exist_ok=True)
rows = [
    {"root": "with .ipynb_checkpoints", "result": attempt(root / "train")},
    {"root": "the same, allow_empty=True", "result": attempt(root / "train", allow_empty=True)},
]
shutil.rmtree(hidden)
(root / "train" / "12").mkdir(exist_ok=True)
rows += [{"root": "with an empty folder 12", "result": attempt(root / "train")}]
(root / "train" / "12").rmdir()
rows += [
    {"root": "pictures, no folder", "result": attempt(root / "train" / "8")},
    {"root": "as written", "result": attempt(root / "train")},
]
facts.Table("what a root must be", rows)

# %% [markdown] lang="en"
# ## From file to sample
#
# The **loader** opens the file. A **transform** is a function that turns what the loader returns into what the model gets;
# `ToTensor` makes a tensor of an image. `target_transform` gets the class index.
#
# Our files are grey. Here `target_transform` turns an index back into the number. What is `targets[0]` then?

# %% [markdown] lang="zh"
# ## 从文件到样本
#
# **loader** 打开文件。**变换**（transform）是一个函数，把 loader 返回的东西变成模型需要的东西；`ToTensor` 把图像变成张量。
# `target_transform` 得到类别索引。
#
# 文件是灰度的。这里的 `target_transform` 把索引变回那个数。这时 `targets[0]` 是多少？


# %% tags=["predict", "claim:IF-03"]
def grey(path):
    with PIL.Image.open(path) as image:
        return image.convert("L")


def one_batch(folder):
    try:
        images, _ = next(iter(DataLoader(folder, batch_size=2)))
    except TypeError as error:
        return f"TypeError: ...{str(error).split(';')[1]}"
    return tuple(images.shape)


my_guess = ...  # 0 or 10

valued = ImageFolder(root / "train", target_transform=lambda index: int(train.classes[index]))
to_tensor = transforms.ToTensor()
with PIL.Image.open(valued.imgs[0][0]) as image:
    print("mode on disk:", image.mode, "(grey)")
picture, target = valued[0]
print("valued[0]: mode", picture.mode, "target", target)
print("class_to_idx['10']:", valued.class_to_idx["10"])
rows = [
    {"arguments": "none", "batch of 2": one_batch(train)},
    {"arguments": "ToTensor", "batch of 2": one_batch(ImageFolder(root / "train", to_tensor))},
    {
        "arguments": "ToTensor, loader=grey",
        "batch of 2": one_batch(ImageFolder(root / "train", to_tensor, loader=grey)),
    },
]
print(facts.Table("how a batch begins", rows))
exercises.predict(my_guess, torch=valued.targets[0])

# %% [markdown] lang="en"
# Without `ToTensor` no batch can be made. The default loader converts every file to RGB, so three channels come out of a grey
# picture. `target_transform` works on
# what `valued[0]` returns; `targets`, `imgs` and `class_to_idx` keep the index.
#
# ## Resize
#
# The notes say: a single 224 is impossible, it must be `(224, 224)`. The first picture is 16 wide and 8 high.
# What shape does `Resize(224)` give it?

# %% [markdown] lang="zh"
# 没有 `ToTensor` 就组不成批次。默认的 loader 把每个文件都转成 RGB，所以灰度图片也变成三个通道。
# `target_transform` 只作用于 `valued[0]` 的返回值；`targets`、`imgs` 和 `class_to_idx` 里仍是索引。
#
# ## Resize
#
# 笔记说：不能只写一个 224，必须写 `(224, 224)`。第一张图片宽 16、高 8。
# `Resize(224)` 会给出什么形状？

# %% tags=["predict", "claim:IF-05"]
my_guess = ...  # "error", or a shape (3, height, width)

one_number = transforms.Compose([transforms.Resize(224), to_tensor])
sized = ImageFolder(root / "train", one_number)
exercises.predict(my_guess, torch=tuple(sized[0][0].shape))

# %% [markdown] lang="en"
# One number is legal: the **shorter** side becomes 224, and the ratio stays. So shapes differ from picture to picture.
#
# The folder is sorted by class. Batches of 6 in this order hold either wide pictures or square ones, and all goes well.
# Then the order changes:

# %% [markdown] lang="zh"
# 只写一个数是合法的：**较短**的边变成 224，边长之比不变。所以各张图片的形状可能不同。
#
# 文件夹按类别排好了序。按这个顺序每 6 张一批，一批里全是宽的或全是方的，一切正常。
# 然后顺序变了：

# %% tags=["raises-exception", "claim:IF-05"]
for images, targets in DataLoader(sized, batch_size=6):
    print("in order:", tuple(images.shape), "targets", sorted(set(targets.tolist())))

next(iter(DataLoader(sized, batch_size=2, sampler=[0, 6])))

# %% [markdown] lang="en"
# With `shuffle=True` it fails in almost every epoch. A folder of square pictures never fails.
#
# ## Five ways to size a picture
#
# Each row of the picture is one transform, applied to a 10, an 11 and an 8. The table has the sizes of the same rows.

# %% [markdown] lang="zh"
# `shuffle=True` 时，几乎每一轮都会报错。如果图片全是正方形，就永远不会报错。
#
# ## 五种调整尺寸的办法
#
# 图中每一行是一种变换，作用于一个 10、一个 11 和一个 8。表格给出同样各行的尺寸。


# %% tags=["folded"]
# Only draws: rows of pictures, each four times as large. Open it if you like.
def show(lines, alt):
    tops = [4]
    for line in lines:
        tops.append(tops[-1] + 4 * max(image.height for image in line) + 12)
    sheet = PIL.Image.new("L", (600, tops[-1]), 255)
    for top, line in zip(tops, lines, strict=False):
        for column, image in enumerate(line):
            big = image.resize((4 * image.width, 4 * image.height), PIL.Image.Resampling.NEAREST)
            sheet.paste(big, (4 + 200 * column, top))
    png = io.BytesIO()
    sheet.save(png, "PNG")
    display(Image(png.getvalue(), alt=alt))


# %% tags=["claim:IF-05"]
class Letterbox:
    """Shrink or grow until the picture fits into a square, then fill up with 0."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        scale = self.size / max(image.size)
        image = image.resize(
            [round(scale * side) for side in image.size], PIL.Image.Resampling.BILINEAR
        )
        square = PIL.Image.new(image.mode, (self.size, self.size))
        square.paste(image, [(self.size - side) // 2 for side in image.size])
        return square


ways = {
    "none": transforms.Compose([]),
    "Resize(24)": transforms.Resize(24),
    "Resize((24, 24))": transforms.Resize((24, 24)),
    "Resize(24), CenterCrop(24)": transforms.Compose(
        [transforms.Resize(24), transforms.CenterCrop(24)]
    ),
    "Letterbox(24)": Letterbox(24),
}
rows, lines = [], []
for name, way in ways.items():
    made = [way(grey(train.imgs[index][0])) for index in (0, 3, 6)]
    lines.append(made)
    rows.append({"transform": name, "width x height": [f"{i.width} x {i.height}" for i in made]})
    rows[-1]["one batch?"] = len({i.size for i in made}) == 1

show(lines, alt="five rows of three pictures, one row for each line of the table")
facts.Table("a 10, an 11 and an 8", rows)

# %% [markdown] lang="en"
# Three ways give one size, and each pays for it. `Resize((24, 24))` squeezes the digits. The crop keeps their form, but
# cuts half of each digit of a 10 or an 11 away. The letterbox keeps everything and stores empty rows.
#
# ## The training loop of the notes
#
# With its indentation repaired the loop runs. (As printed it is an error: one column in front of the first line, four in front of a
# later one.)

# %% [markdown] lang="zh"
# 三种办法得到同一尺寸，各有代价。`Resize((24, 24))` 把数字压窄；裁剪保住了形状，却把两个数字各切掉一半；
# 加边（letterbox）什么都不丢，但要存空白行。
#
# ## 笔记里的训练循环
#
# 改好缩进，循环就能运行。（照笔记原样会报错：首行缩进一列，后面又缩进四列。）

# %% tags=["claim:IF-06"]
steps = [
    transforms.RandomResizedCrop(224),
    transforms.RandomHorizontalFlip(),
    transforms.ToTensor(),
]
augmented = ImageFolder(root / "train", transform=transforms.Compose(steps))
for images, targets in DataLoader(augmented, batch_size=32, shuffle=True):
    print("images:", tuple(images.shape), images.dtype)
    print("targets:", tuple(targets.shape), targets.dtype)
    print("all in 0..1:", bool(images.min() >= 0 and images.max() <= 1))
    print("each class 3 times:", sorted(targets.tolist()) == train.targets)

try:
    compile(" first = 1\n    second = 2\n", "notes", "exec")
except IndentationError as error:
    print("indented as printed:", type(error).__name__)

# %% [markdown] lang="en"
# It runs, but does it fit these pictures? A flipped 10 reads 01, and a crop of a 10 may show only its 1. The target stays 10.
# An augmentation must keep the class true.
#
# ## Two parts, one transform
#
# You split the folder. The part for validation should not be augmented, so you set its transform. The same thing happens as
# in lesson [13](13_splits.ipynb):

# %% [markdown] lang="zh"
# 能运行，但适合这些图片吗？10 翻转后读作 01；从 10 里裁一块，可能只剩 1。目标却仍是 10。
# 数据增强（augmentation）不能改变图像所属的类别。
#
# ## 两个部分，一个变换
#
# 你把文件夹分成两部分。验证用的部分不该增强，于是你设置它的变换。结果与第 [13](13_splits.ipynb) 课一样：

# %% tags=["claim:IF-04"]
train_part, val_part = random_split(augmented, [9, 3])
val_part.dataset.transform = to_tensor
questions = {
    "train_part still augments": train_part.dataset.transform is not to_tensor,
    "ImageFolder is a Dataset": isinstance(augmented, Dataset),
    "a part is a Subset": type(val_part) is Subset,
    "a part has classes": hasattr(val_part, "classes"),
    "both parts hold the same folder": train_part.dataset is val_part.dataset is augmented,
}
facts.Table("after random_split", [{"question": q, "answer": a} for q, a in questions.items()])

# %% [markdown] lang="en"
# A part is a list of indices and the folder it came from. There is one folder, so there is one transform.
# The way out: build the folder twice, and take `Subset(second_folder, val_part.indices)`.
#
# ## Explore: class, index, files, transform
#
# A real `ImageFolder` is built, and each file goes through its transform. A `!` marks a shape that differs from the first one,
# a file that cannot be read, or an index that does not follow the order of the numbers.
#
# Two things to change: set `folder` to `messy`; then set `folder` to `train` and `transform` to `Letterbox`.

# %% [markdown] lang="zh"
# 一个部分就是一组索引，加上它所来自的文件夹。文件夹只有一个，变换也就只有一个。
# 出路：把文件夹创建两次，再取 `Subset(second_folder, val_part.indices)`。
#
# ## 动手探索：类别、索引、文件、变换
#
# 每次都创建真实的 `ImageFolder`，每个文件都经过变换。
# `!` 标出三种情况：形状与第一个不同，文件读不出来，索引与数的大小顺序不符。
#
# 试着改两处：把 `folder` 改成 `messy`；再把 `folder` 改回 `train`，把 `transform` 改成 `Letterbox`。


# %% tags=["folded"]
# Only draws what was measured: open it if you like.
class XRay(facts.Table):
    def tree(self):
        def line(row):
            deep = {
                "depth": int("/" in row["where"]),
                "path": row["where"],
                "surprise": row["note"] is not None,
            }
            return deep | {name: row[name] for name in ("before", "rule", "after")}

        return [line(row) for row in self.content]


# %% tags=["explore"]
def delivered(folder, index, shapes):
    """What folder[index] gives, and a note if it can be in no batch with the samples before."""
    try:
        shape = tuple(folder[index][0].shape)
    except PIL.UnidentifiedImageError as error:
        return type(error).__name__, "no picture inside"
    shapes.append(shape)
    return shape, None if shape == shapes[0] else "another shape than the first"


transform_of = {
    "Resize(64)": transforms.Resize(64),
    "Resize((64, 64))": transforms.Resize((64, 64)),
    "Letterbox": Letterbox(64),
}


def xray(folder, transform):
    whole = ImageFolder(root / folder, transforms.Compose([transform_of[transform], to_tensor]))
    in_order = sorted(whole.classes, key=int)
    rows, shapes = [], []
    for name, label in whole.class_to_idx.items():
        mine = [index for index, target in enumerate(whole.targets) if target == label]
        row = {"where": name, "before": f"folder, {len(mine)} files", "rule": "order of text"}
        expected = in_order.index(name)
        rows.append(
            row
            | {
                "after": f"class {label}",
                "note": None if label == expected else f"by number it is {expected}",
            }
        )
        for index in mine:
            path = whole.imgs[index][0]
            after, note = delivered(whole, index, shapes)
            before = (
                "text"
                if after == "UnidentifiedImageError"
                else "grey {} x {}".format(*grey(path).size)
            )
            row = {
                "where": short(path, folder),
                "before": before,
                "rule": transform,
                "after": str(after),
                "note": note,
            }
            rows.append(row)
    sizes = "1 shape" if len(set(shapes)) == 1 else f"{len(set(shapes))} shapes, no batch"
    classes = "1 class" if len(whole.classes) == 1 else f"{len(whole.classes)} classes"
    return XRay(f"{classes}, {len(whole)} samples, {sizes}", rows)


widgets.explore(xray, pictures.tree, folder=["train", "val", "messy"], transform=list(transform_of))

# %% [markdown] lang="en"
# ## Exercise 1: the index of a folder
#
# Write what `ImageFolder` does while it is built. The check makes real folders and compares with torchvision's.
# Replace the `...` and run both cells.

# %% [markdown] lang="zh"
# ## 练习 1：文件夹的索引
#
# 写出 `ImageFolder` 创建时所做的事。检查时会建真实的文件夹，与 torchvision 的结果比较。
# 把 `...` 换成你的代码，然后运行这两个单元格。


# %% tags=["exercise:14_index_folder"]
def index_folder(root):
    """(classes, samples) of the Path `root`; samples are pairs (path, class index), in any order.

    Endings: IMG_EXTENSIONS, such as ".png".
    """
    ...


# solution
def index_folder(root):
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    samples = []
    for index, name in enumerate(classes):
        for path in (root / name).rglob("*"):
            if path.is_file() and path.suffix.lower() in IMG_EXTENSIONS:
                samples.append((str(path), index))
    return classes, samples


# %% tags=["check"]
exercises.check("14_index_folder", index_folder)  # stuck? exercises.hint("14_index_folder")

# %% [markdown] lang="en"
# ## Exercise 2: the order of numbers
#
# `ImageFolder` asks its method `find_classes(directory)` for `(classes, class_to_idx)`. All class names are whole numbers. Give them indices in the order of the numbers: "9" before "10". `classes`, `class_to_idx`
# and `targets` must agree.

# %% [markdown] lang="zh"
# ## 练习 2：按数的大小排序
#
# `ImageFolder` 通过自己的方法 `find_classes(directory)` 得到 `(classes, class_to_idx)`。所有类别名都是整数。按数的大小给它们索引：“9” 在 “10” 前面。`classes`、`class_to_idx` 和 `targets` 必须一致。


# %% tags=["exercise:14_by_number"]
class ByNumber(ImageFolder):
    """ByNumber(root).classes == ["8", "9", "10", "11"]"""

    ...


# solution
class ByNumber(ImageFolder):
    def find_classes(self, directory):
        names = sorted(super().find_classes(directory)[0], key=int)
        return names, {name: index for index, name in enumerate(names)}


# %% tags=["check"]
exercises.check("14_by_number", ByNumber)  # stuck? exercises.hint("14_by_number")

# %% [markdown] lang="en"
# ## Exercise 3: the rule of Resize
#
# A picture is `width` wide and `height` high. Which `(height, width)` does `Resize(size)` give it? The check asks torchvision
# about random sizes.

# %% [markdown] lang="zh"
# ## 练习 3：Resize 的规则
#
# 一张图片宽 `width`、高 `height`。`Resize(size)` 给出怎样的 `(height, width)`？检查时用随机尺寸去问 torchvision。


# %% tags=["exercise:14_resized"]
def resized(width, height, size):
    """resized(16, 8, 224) == (224, 448)"""
    ...


# solution
def resized(width, height, size):
    shorter = min(width, height)
    return int(size * height / shorter), int(size * width / shorter)


# %% tags=["check"]
exercises.check("14_resized", resized)  # stuck? exercises.hint("14_resized")

# %% [markdown] lang="en"
# ## Bug hunt
#
# Train and validation lie in two folders, as in the notes. Four statements in their style. Which one does not hold? The cell proves it.

# %% [markdown] lang="zh"
# ## 找错
#
# 训练集和验证集放在两个文件夹里，与笔记相同。四条说法，写法也与笔记相同。哪一条不成立？单元格会给出证明。

# %% tags=["bug-hunt", "claim:IF-02"]
my_guess = ...  # 1, 2, 3 or 4

train, val = ImageFolder(root / "train"), ImageFolder(root / "val")
statements = {
    1: len(train.imgs) == len(train.targets) == len(train),
    2: {train.classes[index] for _, index in train.imgs} == set(train.classes),
    3: all(train.class_to_idx[name] == index for name, index in val.class_to_idx.items()),
    4: all(val.classes[index] == Path(path).parent.name for path, index in val.imgs),
}
rows = [
    {"class": name, "in train": train.class_to_idx[name], "in val": val.class_to_idx.get(name)}
    for name in train.classes
]
print(facts.Table("class_to_idx", rows))
exercises.predict(my_guess, torch=next(number for number, holds in statements.items() if not holds))

# %% [markdown] lang="en"
# Each folder numbers its own classes. `val` has no 10, so no class of it has the index that the model learned, and the measured
# accuracy means nothing. Check `val.class_to_idx == train.class_to_idx` before you train. If a class has no picture in `val`, make
# its empty folder there and pass `allow_empty=True`.

# %% [markdown] lang="zh"
# 每个文件夹各自给类别编号。`val` 里没有 10，于是它的每个类别都与模型学到的索引不符，算出的准确率毫无意义。
# 训练之前检查 `val.class_to_idx == train.class_to_idx`。
# 若某个类别在 `val` 里没有图片，就在那里建一个空文件夹，并传 `allow_empty=True`。

# %% [markdown] lang="en"
# ## Recap
#
# Folder names, sorted as text, become the class indices, and each root counts for itself. File names decide what is a sample;
# a picture is opened only when it is read. A batch needs one size, and one number in `Resize` does not give it.
#
# | Message | Cause | Where |
# |---|---|---|
# | `Found no valid file for the classes .ipynb_checkpoints` | Jupyter's hidden folder, or an empty class | Wrong first |
# | `Couldn't find any class folder` | pictures directly under the root | Silence the error? |
# | `UnidentifiedImageError` | a file whose name lies | Which files are samples? |
# | `found <class 'PIL.Image.Image'>` | no `ToTensor` | From file to sample |
# | `stack expects each tensor to be equal size` | `Resize(224)`, and pictures that are not square | Resize |
# | no message, all predictions wrong | `train` and `val` number their classes differently | Bug hunt |
#
# What next: lesson [15](15_exactly_once.ipynb), every sample exactly once, in equal steps.

# %% [markdown] lang="zh"
# ## 小结
#
# 文件夹的名字按文本排序，成为类别索引；每个根目录各编各的号。文件名决定什么是样本；读到一张图片时才打开它。
# 一个批次需要统一的尺寸，而 `Resize` 里只写一个数做不到。
#
# | 报错信息 | 原因 | 位置 |
# |---|---|---|
# | `Found no valid file for the classes .ipynb_checkpoints` | Jupyter 的隐藏文件夹，或空的类别 | 先看错误 |
# | `Couldn't find any class folder` | 图片直接放在根目录下 | 让报错消失 |
# | `UnidentifiedImageError` | 文件的名字骗人 | 哪些文件是样本 |
# | `found <class 'PIL.Image.Image'>` | 没有 `ToTensor` | 从文件到样本 |
# | `stack expects each tensor to be equal size` | 写了 `Resize(224)`，而图片不是正方形 | Resize |
# | 没有报错，预测全错 | `train` 和 `val` 给类别的编号不同 | 找错 |
#
# 下一步：第 [15](15_exactly_once.ipynb) 课，每个样本恰好一次，每个 rank 步数相等。

# %%
exercises.progress("14")
