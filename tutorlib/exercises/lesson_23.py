"""Lesson 23: the names that wrappers give, taken off without harm to the others."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from tutorlib.exercises import Ask, Exercise, Wrong

_PARTS = ["f1", "conv1", "module", "submodule", "modules", "_orig_mod"]


def _name(random: Any) -> str:
    return ".".join([*random.choices(_PARTS, k=random.randint(0, 3)), random.choice(["weight", "bias"])])


def _names(random: Any) -> list[str]:
    drawn = {random.choice(["", "module."]) + random.choice(["f1", "conv1", "submodule", "modules"]) for _ in range(3)}
    return sorted(f"{part}.{last}" for part in drawn for last in random.choice([["weight"], ["weight", "bias"]]))


def _strip_law(strip: Any, ask: Ask) -> None:
    for names in ask.cases(25, _names):
        expected = [name.removeprefix("module.") for name in names]
        if len(set(expected)) < len(names):  # two names would become one: another question
            continue
        state = OrderedDict((name, number) for number, name in enumerate(names))
        case = f"strip(names {names}, 'module.')"
        ask(strip, state, "module.", case=case, then=_items).gives([[name, i] for i, name in enumerate(expected)])
        ask(list, state, case=f"names of the argument after {case}").gives(names)


def _items(found: Any) -> Any:
    return [list(pair) for pair in found.items()] if isinstance(found, dict) else type(found).__name__


def _in_place(state: Any, prefix: str) -> Any:
    for name in list(state):
        state[name.removeprefix(prefix)] = state.pop(name)
    return state


strip = Exercise(
    "23_strip",
    _strip_law,
    wrong=[
        Wrong(
            lambda state, prefix: {name[len(prefix) :]: value for name, value in state.items()},
            "A name without the prefix loses its first letters: 'f1.weight' becomes 'ht'. Cut only what is there.",
            "没有前缀的名字被砍掉了开头：'f1.weight' 变成 'ht'。只去掉确实存在的前缀。",
        ),
        Wrong(
            lambda state, prefix: {name.replace(prefix, ""): value for name, value in state.items()},
            "'submodule.weight' became 'subweight': replace works anywhere in a name, a prefix stands at its beginning.",
            "'submodule.weight' 变成了 'subweight'：replace 在名字的任何位置都起作用，而前缀只在开头。",
        ),
        Wrong(
            lambda state, prefix: {name.lstrip(prefix): value for name, value in state.items()},
            "lstrip takes a set of letters, not a text: it goes on as long as any of them follows. Use removeprefix.",
            "lstrip 接收的是一组字符而不是一段文本：只要后面还是其中的字符就继续删。请用 removeprefix。",
        ),
        Wrong(
            lambda state, prefix: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)},
            "The names without the prefix are gone. They must stay as they are.",
            "没有前缀的名字丢了。它们应当原样保留。",
        ),
        Wrong(
            _in_place,
            "The argument was changed. Make a new dictionary, so that the caller's state stays as it is.",
            "参数被改动了。请新建一个字典，让调用者的状态保持原样。",
        ),
    ],
    hints=[
        ("What should happen to 'f1.weight', which has no prefix?", "没有前缀的 'f1.weight' 应该怎样？"),
        ("str has a method that removes a prefix only where there is one.", "str 有一个方法，只在确有前缀时才去掉它。"),
        (
            "Make a new dictionary: {name.removeprefix(prefix): value for name, value in state.items()}",
            "新建一个字典：{name.removeprefix(prefix): value for name, value in state.items()}",
        ),
    ],
)


def _plain_law(plain: Any, ask: Ask) -> None:
    for name in ask.cases(40, _name):
        ask(plain, name).gives(".".join(part for part in name.split(".") if part not in ("module", "_orig_mod")))


def _first_only(name: str) -> str:
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def _loop(name: str) -> str:
    while name.startswith(("module.", "_orig_mod.")):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name


plain = Exercise(
    "23_plain",
    _plain_law,
    wrong=[
        Wrong(
            lambda name: name.replace("module.", "").replace("_orig_mod.", ""),
            "'submodule.weight' became 'subweight'. Compare whole parts between the dots.",
            "'submodule.weight' 变成了 'subweight'。请按点号之间的整段比较。",
        ),
        Wrong(
            _first_only,
            "Wrappers can be nested, and stand in the middle of a name: 'f1._orig_mod.weight'. Look at each part.",
            "包装可以嵌套，也可以出现在名字中间：'f1._orig_mod.weight'。每一段都要看。",
        ),
        Wrong(
            _loop,
            "One inside of the model is wrapped, too: 'f1._orig_mod.weight' has it in the middle. Look at each part.",
            "模型内部的某一层也可能被包装：'f1._orig_mod.weight' 的包装在中间。每一段都要看。",
        ),
        Wrong(
            lambda name: name.rsplit(".", 1)[-1],
            "Only the last part is left: 'f1.weight' and 'conv1.weight' would be one name.",
            "只剩下最后一段：'f1.weight' 与 'conv1.weight' 会变成同一个名字。",
        ),
    ],
    hints=[
        (
            "A name is a list of parts between dots. Which parts come from wrappers?",
            "名字由点号隔开的若干段组成。哪些段来自包装？",
        ),
        (
            "name.split('.') gives the parts, '.'.join(parts) puts them together.",
            "name.split('.') 得到各段，'.'.join(parts) 再拼回去。",
        ),
    ],
)
