"""Lesson 14, image folders: the index of a folder, classes in the order of their numbers, the shape that Resize gives."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from tutorlib.exercises import Ask, Exercise, Wrong

# Those of torchvision.datasets.folder.
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def _write(root: Path, names: list[str]) -> None:
    """Empty files: an index is made from names, nothing is opened."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class _Folder:
    """What an ImageFolder finds while it is built, in brief."""

    def __init__(self, root: Any) -> None:
        self.classes, self.class_to_idx = self.find_classes(root)
        self.samples = sorted((str(path), i) for name, i in self.class_to_idx.items() for path in _pictures(Path(root, name)))
        self.targets = [index for _, index in self.samples]

    def find_classes(self, directory: Any) -> Any:
        names = sorted(entry.name for entry in Path(directory).iterdir() if entry.is_dir())
        return names, {name: index for index, name in enumerate(names)}


def _pictures(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in _ENDINGS]


def _image_folder() -> Any:
    """Torchvision's own class where it is loaded, as in every kernel of this lesson.

    It is not imported here: that takes seconds, and more memory than the process of an answer has.
    """
    loaded = sys.modules.get("torchvision.datasets")
    return loaded.ImageFolder if loaded else _Folder


# --- index_folder --------------------------------------------------------------------------------------------------------


def _tree(random: Random) -> list[str]:
    """Some files of a few classes, with a picture in each class."""
    files = ["b.PNG", "c.txt", "d.gif", "more/e.jpg", "more/deep/f.bmp"]
    names = []
    for label in random.sample(["7", "9", "10", "12", "Cat", "dog"], random.randint(1, 3)):
        names += [f"{label}/a.png", *(f"{label}/{file}" for file in random.sample(files, random.randint(0, 3)))]
    return [*names, "cover.png"] if random.random() < 0.3 else names


def _found(answer: Any, root: Path) -> Any:
    """What the answer returned, as plain values: paths from the root on, with forward slashes, sorted."""
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        return answer
    classes, samples = answer
    pairs = [(Path(os.path.relpath(path, root)).as_posix(), target) for path, target in samples]
    return {"classes": list(classes), "samples": sorted(pairs, key=repr)}


def _indexes(index_folder: Any, ask: Ask) -> None:
    first = [
        ["9/a.png", "10/a.png"],
        ["9/a.png", "cover.png"],
        ["9/a.png", "9/c.txt"],
        ["9/b.PNG"],
        ["9/a.jpg"],
        ["9/more/e.png"],
    ]
    for names in [*first, ["Cat/a.png", "dog/a.png", "Bee/a.png"], ["ant/a.png", "Bee/a.png"], *ask.cases(20, _tree)]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            _write(root, names)
            true = _image_folder()(root)
            expected = _found((true.classes, true.samples), root)
            ask(index_folder, root, case=f"files {', '.join(names)}", then=lambda answer: _found(answer, root)).gives(expected)


def _numbered(name: str) -> Any:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _index(root: Any, key: Any = None, pattern: str = "**/*", endings: Any = _ENDINGS, small: bool = True) -> Any:
    classes = sorted((folder.name for folder in root.iterdir() if folder.is_dir()), key=key)
    files = [(path, index) for index, name in enumerate(classes) for path in (root / name).glob(pattern) if path.is_file()]
    return classes, [(str(p), i) for p, i in files if (p.name.lower() if small else p.name).endswith(endings)]


def _counted(root: Any) -> Any:
    return _index(root, key=_numbered)


def _as_a_browser(root: Any) -> Any:
    return _index(root, key=str.lower)


def _flat(root: Any) -> Any:
    return _index(root, pattern="*")


def _small_letters(root: Any) -> Any:
    return _index(root, small=False)


def _every_file(root: Any) -> Any:
    return _index(root, endings="")


def _png_only(root: Any) -> Any:
    return _index(root, endings=".png")


def _names(root: Any) -> Any:
    classes, samples = _index(root)
    return classes, [(path, classes[index]) for path, index in samples]


def _files_too(root: Any) -> Any:
    classes = sorted(entry.name for entry in root.iterdir())
    return classes, [(path, classes.index(Path(os.path.relpath(path, root)).parts[0])) for path, _ in _index(root)[1]]


index_folder = Exercise(
    "14_index_folder",
    _indexes,
    wrong=[
        Wrong(
            _counted,
            "The classes are sorted as numbers. ImageFolder sorts their names as text: '10' stands before '9'.",
            "类别按数值排了序。ImageFolder 按文本给名字排序：'10' 排在 '9' 前面。",
        ),
        Wrong(
            _as_a_browser,
            "Capital letters do not count in your order, as in a file browser. In plain text order 'Bee' stands before 'ant'.",
            "你的顺序不分大小写，像文件管理器那样。按纯文本顺序，'Bee' 排在 'ant' 前面。",
        ),
        Wrong(
            _flat,
            "Files deeper down are missing: a picture in a folder inside a class folder belongs to that class.",
            "缺少更深处的文件：类别文件夹里，子文件夹中的图片也属于这个类别。",
        ),
        Wrong(
            _small_letters,
            "'b.PNG' is missing: the ending is compared in small letters.",
            "缺少 'b.PNG'：比较扩展名之前先变成小写。",
        ),
        Wrong(
            _every_file,
            "Not every file is a sample: only names with an ending from IMG_EXTENSIONS count.",
            "不是每个文件都是样本：只有扩展名在 IMG_EXTENSIONS 里的才算。",
        ),
        Wrong(
            _png_only,
            "More endings than '.png' count: take all of IMG_EXTENSIONS.",
            "算数的不只有 '.png'：使用 IMG_EXTENSIONS 里的全部扩展名。",
        ),
        Wrong(
            _names,
            "Your pairs hold the name of the class. The second member is its index.",
            "你的二元组里放的是类别的名字。第二个成员应是它的索引。",
        ),
        Wrong(
            _files_too,
            "A file beside the class folders is no class: ask `is_dir()`.",
            "与类别文件夹并列的文件不是类别：用 `is_dir()` 判断。",
        ),
    ],
    hints=[
        (
            "Two steps: first the sorted names of the folders directly under the root, then the files of each, with its number.",
            "分两步：先取根目录下各文件夹的名字并排序，再取每个文件夹里的文件，配上它的编号。",
        ),
        (
            "`(root / name).rglob('*')` walks through all depths. `path.suffix.lower() in IMG_EXTENSIONS` asks for the ending.",
            "`(root / name).rglob('*')` 走遍所有深度。用 `path.suffix.lower() in IMG_EXTENSIONS` 判断扩展名。",
        ),
        (
            "classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir()); then "
            "for index, name in enumerate(classes): for path in (root / name).rglob('*'): append (str(path), index).",
            "classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())；然后 "
            "for index, name in enumerate(classes): for path in (root / name).rglob('*')：加入 (str(path), index)。",
        ),
    ],
)


# --- by_number -----------------------------------------------------------------------------------------------------------


def _made(folder: Any, root: Path) -> Any:
    pairs = [(Path(os.path.relpath(path, root)).as_posix(), index) for path, index in folder.samples]
    numbers = {"classes": folder.classes, "class_to_idx": folder.class_to_idx, "targets": sorted(folder.targets)}
    return numbers | {"samples": sorted(pairs)}


def _in_order(by_number: Any, ask: Ask) -> None:
    several = ask.cases(15, lambda random: tuple(random.sample(range(1, 130), random.randint(1, 4))))
    for numbers in [(9, 10), (2, 10, 100), *several]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            _write(root, [f"{number}/a.png" for number in numbers])
            place = {str(number): index for index, number in enumerate(sorted(numbers))}
            expected = {"classes": list(place), "class_to_idx": place, "targets": list(range(len(numbers)))}
            expected["samples"] = sorted((f"{name}/a.png", index) for name, index in place.items())
            case = f"ByNumber of folders {', '.join(map(str, numbers))}"
            ask(by_number, root, case=case, then=lambda made: _made(made, root)).gives(expected)


def _unchanged(root: Any) -> Any:
    return _image_folder()(root)


def _too_late(root: Any) -> Any:
    made = _unchanged(root)
    made.classes = sorted(made.classes, key=int)
    made.class_to_idx = {name: index for index, name in enumerate(made.classes)}
    return made


def _only_the_list(root: Any) -> Any:
    made = _unchanged(root)
    made.classes = sorted(made.classes, key=int)
    return made


def _with_indices(root: Any, index_of: Any) -> Any:
    class Numbered(_image_folder()):  # type: ignore[misc]
        def find_classes(self, directory: Any) -> Any:
            return index_of(super().find_classes(directory)[0])

    return Numbered(root)


def _value_as_index(root: Any) -> Any:
    return _with_indices(root, lambda names: (sorted(names, key=int), {name: int(name) for name in names}))


by_number = Exercise(
    "14_by_number",
    _in_order,
    wrong=[
        Wrong(
            _unchanged,
            "This still is the order of text: '10' stands before '9'. Sort with key=int.",
            "这仍是文本的顺序：'10' 排在 '9' 前面。排序时用 key=int。",
        ),
        Wrong(
            _too_late,
            "`classes` changed too late: `samples` and `targets` were made with the old indices. Override `find_classes`.",
            "`classes` 改得太晚：`samples` 和 `targets` 已经用旧索引建好了。请重写 `find_classes`。",
        ),
        Wrong(
            _only_the_list,
            "Only the list `classes` changed; `class_to_idx`, `samples` and `targets` still hold the old indices.",
            "只改了列表 `classes`；`class_to_idx`、`samples` 和 `targets` 里仍是旧索引。",
        ),
        Wrong(
            _value_as_index,
            "An index is a place, 0, 1, 2 without gaps, and not the number in the name: a loss needs it so.",
            "索引是位置，即没有空缺的 0、1、2，不是名字里的那个数：损失函数需要这样的索引。",
        ),
    ],
    hints=[
        (
            "`ImageFolder` calls its own method `find_classes(directory)` before it collects any file. Override that method.",
            "`ImageFolder` 在收集文件之前先调用自己的方法 `find_classes(directory)`。重写这个方法。",
        ),
        (
            "It returns two things: the list of names, and a dict from name to index. Both must tell of the same order.",
            "它返回两样东西：名字的列表，以及从名字到索引的字典。两者的顺序必须一致。",
        ),
        (
            "names = sorted(super().find_classes(directory)[0], key=int); "
            "return names, {name: index for index, name in enumerate(names)}",
            "先 names = sorted(super().find_classes(directory)[0], key=int)，再 "
            "return names, {name: index for index, name in enumerate(names)}",
        ),
    ],
)


# --- resized -------------------------------------------------------------------------------------------------------------


def _shapes(resized: Any, ask: Ask) -> None:
    for width, height, size in [(16, 8, 4), (8, 16, 4), (5, 3, 5), *ask.cases(60, range(1, 40), range(1, 40), range(1, 30))]:
        ask(resized, width, height, size, then=_plain).gives(_true_shape(width, height, size))


def _true_shape(width: int, height: int, size: int) -> tuple[int, int]:
    transforms = sys.modules.get("torchvision.transforms")  # not imported: see _image_folder
    if transforms is None:
        return int(size * height / min(width, height)), int(size * width / min(width, height))
    _, high, wide = transforms.Resize(size)(torch.zeros(1, height, width)).shape
    return high, wide


def _plain(answer: Any) -> Any:
    return tuple(answer) if isinstance(answer, list) else answer


def _square(width: int, height: int, size: int) -> Any:
    return size, size


def _longer(width: int, height: int, size: int) -> Any:
    scale = size / max(width, height)
    return int(scale * height), int(scale * width)


def _width_first(width: int, height: int, size: int) -> Any:
    return int(size * width / min(width, height)), int(size * height / min(width, height))


def _rounded(width: int, height: int, size: int) -> Any:
    return round(size * height / min(width, height)), round(size * width / min(width, height))


def _height_is_size(width: int, height: int, size: int) -> Any:
    return size, int(size * width / height)


resized = Exercise(
    "14_resized",
    _shapes,
    wrong=[
        Wrong(
            _square,
            "That is `Resize((size, size))`. One number keeps the ratio of the sides.",
            "这是 `Resize((size, size))` 的结果。只给一个数时，边长之比不变。",
        ),
        Wrong(
            _longer,
            "You scaled the longer side to `size`. It is the shorter one.",
            "你把较长的边缩放到了 `size`。应该是较短的边。",
        ),
        Wrong(
            _width_first,
            "Height and width are swapped: a tensor's shape has the height first, PIL's size the width.",
            "高和宽写反了：张量的形状先写高，PIL 的 size 先写宽。",
        ),
        Wrong(
            _rounded,
            "The longer side is cut to a whole number, not rounded: `int(...)`.",
            "较长的边是截断成整数，不是四舍五入：用 `int(...)`。",
        ),
        Wrong(
            _height_is_size,
            "The height always becomes `size`: that is right for wide images only. Ask which side is the shorter one.",
            "高总是变成 `size`：这只对宽的图像成立。先看哪条边较短。",
        ),
    ],
    hints=[
        (
            "Look at the shapes above: which side of a wide image became 224?",
            "看看上面的形状：宽的图像，哪条边变成了 224？",
        ),
        (
            "The shorter side becomes `size`. The longer one keeps the ratio: size * longer / shorter, cut to a whole number.",
            "较短的边变成 `size`。较长的边保持比例：size * longer / shorter，截断成整数。",
        ),
        (
            "shorter = min(width, height); return int(size * height / shorter), int(size * width / shorter)",
            "先 shorter = min(width, height)，再 return int(size * height / shorter), int(size * width / shorter)",
        ),
    ],
)
