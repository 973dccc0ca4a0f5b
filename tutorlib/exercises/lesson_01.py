"""Lesson 01: how far a loader reads ahead, and the smallest loader of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from tutorlib.exercises import Ask, Exercise, Wrong


def _asked_law(asked_ahead: Any, ask: Ask) -> None:
    for batches, workers, ahead in ask.cases(40, range(1, 12), range(0, 4), range(1, 5)):
        ask(asked_ahead, batches, workers, ahead).gives(min(batches, max(1, workers * ahead)))


asked_ahead = Exercise(
    "01_asked_ahead",
    _asked_law,
    wrong=[
        Wrong(
            lambda batches, workers, ahead: min(batches, workers * ahead),
            "Without workers the main process still asks for the batch that it needs now: 1, not 0.",
            "没有工作进程时，主进程仍要请求眼前需要的那个批次：是 1，不是 0。",
        ),
        Wrong(
            lambda batches, workers, ahead: max(1, workers * ahead),
            "Nobody can ask for more batches than there are.",
            "请求的批次数不会超过批次总数。",
        ),
        Wrong(
            lambda batches, workers, ahead: min(batches, max(1, ahead)),
            "prefetch_factor counts for each worker, not for all of them together.",
            "prefetch_factor 是每个工作进程的数目，不是全部工作进程合起来的数目。",
        ),
    ],
    hints=[
        (
            "Set workers to 2 and change ahead: 1, 2, 3. What happens to the number of requests?",
            "把 workers 设为 2，把 ahead 改成 1、2、3，看请求数怎样变化。",
        ),
        (
            "Each worker is sent `ahead` requests at once. Then set workers to 0.",
            "每个工作进程一开始收到 `ahead` 个请求。再把 workers 设为 0 看看。",
        ),
        ("workers * ahead, but at least 1 and at most `batches`.", "workers * ahead，但至少是 1，至多是 `batches`。"),
    ],
)


def _loader_law(loader_class: Any, ask: Ask) -> None:
    for samples, batch_size in ask.cases(20, range(1, 10), range(1, 5)):
        data: Any = list(range(10, 10 + samples))
        expected = [batch.tolist() for batch in DataLoader(data, batch_size=batch_size)]
        shown = f"MyLoader({data}, {batch_size})"
        ask(lambda: _loops(loader_class(data, batch_size), 1), case=f"list({shown})").gives(expected)
        ask(lambda: _loops(loader_class(data, batch_size), 2), case=f"the second list({shown})").gives(expected)
        ask(lambda: hasattr(loader_class(data, batch_size), "__next__"), case=f"is {shown} an iterator?").gives(False)


def _loops(loader: Any, times: int) -> list[Any]:
    for _ in range(times):
        batches = list(loader)
    return batches


class _Exhausted:
    """Iterates over itself once."""

    def __init__(self, dataset: Any, batch_size: int) -> None:
        self._batches = _batches(dataset, batch_size)

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class _DropsTheRest:
    def __init__(self, dataset: Any, batch_size: int) -> None:
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.dataset) - self.batch_size + 1, self.batch_size):
            yield [self.dataset[index] for index in range(start, start + self.batch_size)]


def _batches(dataset: Any, batch_size: int) -> Iterator[Any]:
    for start in range(0, len(dataset), batch_size):
        yield [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]


my_loader = Exercise(
    "01_my_loader",
    _loader_law,
    wrong=[
        Wrong(
            _Exhausted,
            "The second loop is empty: you hand out one iterator for ever. Make a new one in each call of __iter__.",
            "第二次循环是空的：你一直交出同一个迭代器。每次调用 __iter__ 都要新建一个。",
        ),
        Wrong(
            _batches,
            "A generator function makes an iterator, and that is used up after one loop. Write a class with __iter__.",
            "生成器函数给出的是迭代器，循环一次就用完了。请写一个带 __iter__ 的类。",
        ),
        Wrong(
            _DropsTheRest,
            "The last, smaller batch is missing. torch keeps it, unless you say drop_last=True.",
            "少了最后那个不满的批次。除非写 drop_last=True，torch 会保留它。",
        ),
    ],
    hints=[
        (
            "Keep the dataset and the batch size in __init__. Do the reading in __iter__.",
            "在 __init__ 里记下数据集和批次大小，在 __iter__ 里读取。",
        ),
        (
            "Inside __iter__, `yield` makes a new iterator for each loop.",
            "在 __iter__ 里用 `yield`，每次循环都会得到新的迭代器。",
        ),
        (
            "Go through range(0, len(dataset), batch_size), and stop each batch at len(dataset).",
            "遍历 range(0, len(dataset), batch_size)，每个批次到 len(dataset) 为止。",
        ),
    ],
)
