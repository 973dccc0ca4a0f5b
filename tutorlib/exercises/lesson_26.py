"""Lesson 26: which files a rank needs, and a folder that appears as a whole."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutorlib.exercises import Ask, Exercise, Wrong

# --- files_needed --------------------------------------------------------------------------------------------------------


def _piece(rows: int, ranks: int, number: int) -> range:
    size = math.ceil(rows / ranks)
    return range(min(number * size, rows), min((number + 1) * size, rows))


def _needed(rows: int, savers: int, readers: int, rank: int) -> list[int]:
    mine = set(_piece(rows, readers, rank))
    return [saver for saver in range(savers) if mine & set(_piece(rows, savers, saver))]


def _files_law(files_needed: Any, ask: Ask) -> None:
    for rows, savers, readers, rank in ask.cases(60, range(1, 13), range(1, 6), range(1, 6), range(0, 5)):
        if rank < readers:
            ask(files_needed, rows, savers, readers, rank, then=list).gives(_needed(rows, savers, readers, rank))


def _all_files(rows: int, savers: int, readers: int, rank: int) -> list[int]:
    return list(range(savers)) if len(_piece(rows, readers, rank)) else []


def _same_number(rows: int, savers: int, readers: int, rank: int) -> list[int]:
    return [rank]


def _floor(rows: int, savers: int, readers: int, rank: int) -> list[int]:
    def piece(number: int, ranks: int) -> set[int]:
        return set(range(number * rows // ranks, (number + 1) * rows // ranks))

    return [saver for saver in range(savers) if piece(saver, savers) & piece(rank, readers)]


def _touching(rows: int, savers: int, readers: int, rank: int) -> list[int]:
    mine = _piece(rows, readers, rank)
    pieces = [_piece(rows, savers, saver) for saver in range(savers)]
    return [saver for saver, one in enumerate(pieces) if one.start <= mine.stop and mine.start <= one.stop]


files_needed = Exercise(
    "26_files_needed",
    _files_law,
    wrong=[
        Wrong(
            _same_number,
            "The file of the same number is right only if as many ranks read as saved.",
            "只有读的 rank 数与保存的相同时，同号的文件才对。",
        ),
        Wrong(
            _all_files,
            "You open every file. A rank reads only the pieces that it needs.",
            "你打开了所有文件。一个 rank 只读它需要的那几片。",
        ),
        Wrong(
            _floor,
            "torch does not share out equally: every piece has ceil(rows / ranks) rows, and the last ones get what is left.",
            "torch 不是平均分：每片 ceil(rows / ranks) 行，最后几片拿剩下的。",
        ),
        Wrong(
            _touching,
            "Two pieces that only touch share no row: where one stops, the other starts.",
            "只是相邻的两片没有公共的行：一片在哪里结束，另一片就从哪里开始。",
        ),
    ],
    hints=[
        (
            "Write the rows of a piece as a range first, once for savers and once for readers.",
            "先把一片的行写成 range，保存者和读者各一次。",
        ),
        (
            "`size = math.ceil(rows / ranks)`; a piece goes from `number * size` to `(number + 1) * size`, at most `rows`.",
            "`size = math.ceil(rows / ranks)`；这一片从 `number * size` 到 `(number + 1) * size`，两者都不超过 `rows`。",
        ),
        (
            "A file is needed if the two sets of rows have one in common: `set(a) & set(b)`.",
            "两组行有公共元素时才需要该文件：`set(a) & set(b)`。",
        ),
    ],
)

# --- commit --------------------------------------------------------------------------------------------------------------

_FILES = {".metadata": b"what lies where", "0.distcp": b"the rows of rank 0", "1.distcp": b"the rows of rank 1"}


def _seen(room: Path, goal: Path) -> str:
    """All that stands in the room, in words that an error text can hold."""
    if not any(room.iterdir()):
        return "nothing there"
    others = [entry.name for entry in room.iterdir() if entry != goal]
    found = {entry.name: entry.read_bytes() for entry in goal.iterdir()} if goal.is_dir() else None
    state = (
        "no goal"
        if found is None
        else "the whole goal"
        if found == _FILES
        else f"a goal with {len(found)} of {len(_FILES)} files"
    )
    return state + (f", and beside it {len(others)} more" if others else "")


def _commit_law(commit: Any, ask: Ask) -> None:
    for name, fails in ask.cases(8, ["step_3", "last", "epoch.12"], [None, 1, 2, 0]):

        def run(name: str = name, fails: int | None = fails) -> list[str]:
            with tempfile.TemporaryDirectory() as folder:
                room, goal, midway = Path(folder), Path(folder, name), []

                def write(place: Any) -> None:
                    for number, (file, content) in enumerate(_FILES.items()):
                        if number == fails:
                            raise OSError(28, "No space left on device")
                        Path(place, file).write_bytes(content)
                        if number == 1:
                            midway.append("the goal is there too early" if goal.exists() else "")

                said = "returned"
                try:
                    commit(goal, write)
                except OSError:
                    said = "raised OSError"
                return [said, *filter(None, midway), _seen(room, goal)]

        expected = ["returned", "the whole goal"] if fails is None else ["raised OSError", "nothing there"]
        how = "" if fails is None else f", where write fails after {fails} of {len(_FILES)} files"
        ask(run, case=f"commit({name!r}, write){how}").gives(expected)


def _beside(goal: Any) -> Path:
    return Path(goal).with_name("." + Path(goal).name)


def _direct(goal: Any, write: Callable[[Any], object]) -> None:
    Path(goal).mkdir()
    write(goal)


def _direct_and_clean(goal: Any, write: Callable[[Any], object]) -> None:
    Path(goal).mkdir()
    try:
        write(goal)
    except BaseException:
        shutil.rmtree(goal)
        raise


def _leaves(goal: Any, write: Callable[[Any], object]) -> None:
    _beside(goal).mkdir()
    write(_beside(goal))
    _beside(goal).rename(goal)


def _swallows(goal: Any, write: Callable[[Any], object]) -> None:
    _beside(goal).mkdir()
    with contextlib.suppress(OSError):
        write(_beside(goal))
        _beside(goal).rename(goal)
    shutil.rmtree(_beside(goal), ignore_errors=True)


def _copies(goal: Any, write: Callable[[Any], object]) -> None:
    _beside(goal).mkdir()
    try:
        write(_beside(goal))
    except BaseException:
        shutil.rmtree(_beside(goal))
        raise
    shutil.copytree(_beside(goal), goal)


commit = Exercise(
    "26_commit",
    _commit_law,
    wrong=[
        Wrong(
            _direct,
            "The files are written into the goal itself: when write fails, half a checkpoint stands there.",
            "文件直接写进了 goal：write 失败时，那里就留下半份检查点。",
        ),
        Wrong(
            _direct_and_clean,
            "While write runs, the goal is there already: whoever looks, or a kill, finds half of it.",
            "write 还在运行，goal 就已经存在了：这时有人来看，或者进程突然结束，得到的都是一半。",
        ),
        Wrong(
            _leaves,
            "When write fails, the folder beside the goal stays behind.",
            "write 失败时，旁边的那个文件夹留了下来。",
        ),
        Wrong(
            _swallows,
            "The error is swallowed: training goes on and believes that it has a checkpoint.",
            "错误丢掉了：训练继续，还以为有了检查点。",
        ),
        Wrong(
            _copies,
            "The folder beside the goal stays. And copying is no single step: rename it.",
            "旁边的文件夹留了下来。而且复制不是一步完成的：请改名。",
        ),
    ],
    hints=[
        ("As with one file: where can you write so that nobody sees it yet?", "和一个文件时一样：写到哪里，别人还看不见？"),
        (
            "Make a folder beside the goal, let write fill it, then `folder.rename(goal)`: one step.",
            "在 goal 旁边建一个文件夹，让 write 填满它，再 `folder.rename(goal)`：只有一步。",
        ),
        (
            "If anything fails: `shutil.rmtree(folder)`, then `raise`.",
            "如果出错：先 `shutil.rmtree(folder)`，再 `raise`。",
        ),
    ],
)
