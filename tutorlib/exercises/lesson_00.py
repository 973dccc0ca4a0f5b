"""Lesson 00: the tiny exercise that shows how exercises work."""

from __future__ import annotations

import math
from typing import Any

from tutorlib.exercises import Ask, Exercise, Wrong


def law(steps: Any, ask: Ask) -> None:
    for samples, batch_size in ask.cases(30, range(0, 40), range(1, 9)):
        ask(steps, samples, batch_size).gives(math.ceil(samples / batch_size))


steps = Exercise(
    "00_steps",
    law,
    wrong=[
        Wrong(
            lambda samples, batch_size: samples // batch_size,
            "The last, smaller batch is a step too: 7 samples in batches of 3 are 3 steps, not 2.",
            "最后一个不满的批次也算一步：7 个样本，每批 3 个，是 3 步，不是 2 步。",
        ),
        Wrong(
            lambda samples, batch_size: samples // batch_size + 1,
            "One too many where nothing is left over: 6 samples in batches of 3 are 2 steps.",
            "整除时多算了一步：6 个样本，每批 3 个，是 2 步。",
        ),
        Wrong(
            lambda samples, batch_size: samples / batch_size,
            "A step is a whole one: round up, also where the last batch is not full.",
            "步数是整数：即使最后一批不满，也要向上取整。",
        ),
    ],
    hints=[
        ("How many full batches are there? What is left over for one more?", "有几个满的批次？剩下的样本还需要几个批次？"),
        ("-(-7 // 3) is 3: the floor of the negative number rounds up.", "-(-7 // 3) 等于 3：对负数向下取整就是向上取整。"),
    ],
)
