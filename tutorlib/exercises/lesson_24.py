"""Lesson 24: the state within what was loaded, and one download for many ranks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from tutorlib.exercises import Ask, Exercise, Wrong

# --- find_state ----------------------------------------------------------------------------------------------------------


def _weights(size: int) -> dict[str, torch.Tensor]:
    return {f"layer{number}.weight": torch.full((2,), float(number)) for number in range(size)}


def _plainly(found: Any) -> Any:
    """Names and numbers; a model's state may be any kind of dictionary."""
    return {key: getattr(value, "tolist", lambda value=value: value)() for key, value in found.items()}


def _find_law(find_state: Any, ask: Ask) -> None:
    for size, kind, key in ask.cases(24, range(1, 4), [dict, OrderedDict], ["", "state_dict", "model_state_dict", "model"]):
        state = kind(_weights(size))
        content = {key: state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}} if key else state
        holder = f"{{{key!r}: state, 'epoch': 3, ...}}" if key else f"a bare {kind.__name__} of {size} tensors"
        ask(find_state, content, case=f"find_state({holder})", then=_plainly).gives(_plainly(state))
    for content, case in (
        ({"epoch": 3, "loss": 0.5}, "{'epoch': 3, 'loss': 0.5}"),
        ({"weights": _weights(1)}, "{'weights': state}"),
        ({}, "{}"),
        ({"state_dict": {}}, "{'state_dict': {}}"),
        (torch.ones(2), "a tensor"),
        ({"state_dict": 3}, "{'state_dict': 3}"),
    ):
        ask(find_state, content, case=f"find_state({case})").raises(ValueError)


def _as_the_notes_do(content: Any) -> Any:
    if isinstance(content, OrderedDict):
        return content
    if isinstance(content, dict) and "state_dict" in content:
        return content["state_dict"]
    raise ValueError("no state_dict found")


def _get_or_all(content: Any) -> Any:
    if not isinstance(content, dict) or not content:
        raise ValueError("no state_dict found")
    return content.get("state_dict", content.get("model_state_dict", content.get("model", content)))


def _first_dictionary(content: Any) -> Any:
    if isinstance(content, dict):
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return content
        for value in content.values():
            if isinstance(value, dict) and value:
                return value
    raise ValueError("no state_dict found")


find_state = Exercise(
    "24_find_state",
    _find_law,
    wrong=[
        Wrong(
            _as_the_notes_do,
            "A bare state may be a plain dict: only an OrderedDict passes here. And two of the three keys are unknown.",
            "单独的状态也可能是普通 dict：这里只有 OrderedDict 能通过。而且三个键里有两个不认识。",
        ),
        Wrong(
            _get_or_all,
            "Where no state is found you return the content itself. {'epoch': 3} is no state: check that the values are tensors.",
            "找不到状态时，你返回了内容本身。{'epoch': 3} 不是状态：请检查值是不是张量。",
        ),
        Wrong(
            _first_dictionary,
            "You take the first dictionary, whatever its key: {'weights': ...} is none of the three keys.",
            "你取了第一个字典，不管键是什么：{'weights': ...} 不在那三个键里。",
        ),
    ],
    hints=[
        ("What is true of every value of a state_dict?", "状态字典的每个值有什么共同点？"),
        (
            "Try the content itself and what lies under the three keys, in this order, with the same test.",
            "依次检查内容本身和三个键下面的东西，用同一个判断。",
        ),
        (
            "The test: `isinstance(found, dict) and found and all(isinstance(v, torch.Tensor) for v in found.values())`.",
            "判断条件：`isinstance(found, dict) and found and all(isinstance(v, torch.Tensor) for v in found.values())`。",
        ),
    ],
)

# --- in_turn -------------------------------------------------------------------------------------------------------------


def _in_turn_law(in_turn: Any, ask: Ask) -> None:
    for rank, fails in ask.cases(12, range(0, 4), [False, True]):
        steps: list[str] = []

        def run(rank: int = rank, fails: bool = fails, steps: list[str] = steps) -> list[str]:
            steps.clear()

            def fetch() -> str:
                steps.append("fetch")
                if fails:
                    raise OSError("the server is gone")
                return "net.pth"

            try:
                steps.append(f"returns {in_turn(rank, fetch, lambda: steps.append('wait'))}")
            except OSError:
                steps.append("raises OSError")
            return list(steps)

        before = ["fetch", "wait"] if rank == 0 else ["wait", "fetch"]
        end = "raises OSError" if fails else "returns net.pth"
        case = f"in_turn({rank}, fetch, wait)" + (" where fetch fails" if fails else "")
        ask(run, case=f"the steps of {case}").gives([*before, end])


def _all_at_once(rank: int, fetch: Callable[[], Any], wait: Callable[[], Any]) -> Any:
    found = fetch()
    wait()
    return found


def _leaves_them_waiting(rank: int, fetch: Callable[[], Any], wait: Callable[[], Any]) -> Any:
    found = fetch() if rank == 0 else None
    wait()
    return found if rank == 0 else fetch()


def _only_rank_0(rank: int, fetch: Callable[[], Any], wait: Callable[[], Any]) -> Any:
    try:
        return fetch() if rank == 0 else None
    finally:
        wait()


def _swallows(rank: int, fetch: Callable[[], Any], wait: Callable[[], Any]) -> Any:
    if rank > 0:
        wait()
    try:
        found = fetch()
    except OSError:
        found = None
    if rank == 0:
        wait()
    return found


in_turn = Exercise(
    "24_in_turn",
    _in_turn_law,
    wrong=[
        Wrong(
            _all_at_once,
            "Every rank fetches before the barrier: as many downloads as ranks.",
            "每个 rank 都在屏障之前取：有几个 rank 就下载几次。",
        ),
        Wrong(
            _leaves_them_waiting,
            "If fetch fails on rank 0, it never comes to the barrier, and the others wait there.",
            "如果 rank 0 的 fetch 失败，它就到不了屏障，其余的会一直等。",
        ),
        Wrong(
            _only_rank_0,
            "Only rank 0 gets the file; the others return None. After the barrier they find it in the cache: call fetch() there.",
            "只有 rank 0 拿到文件，其余返回 None。屏障之后它们能在缓存里找到：请在那里调用 fetch()。",
        ),
        Wrong(
            _swallows,
            "The error of fetch is swallowed: whoever called gets None, and the crash comes later.",
            "fetch 的错误丢掉了：调用者得到 None，以后才崩溃。",
        ),
    ],
    hints=[
        (
            "Two cases: rank 0 calls fetch, then wait; all others wait, then fetch.",
            "两种情况：rank 0 先 fetch 再 wait；其余先 wait 再 fetch。",
        ),
        ("What runs even when an error flies past?", "什么代码在错误抛出时也会执行？"),
        ("`try: return fetch()` and `finally: wait()` on rank 0.", "在 rank 0 上：`try: return fetch()`，`finally: wait()`。"),
    ],
)
