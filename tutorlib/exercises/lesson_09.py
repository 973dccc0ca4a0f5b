"""Exercises of lesson 09: an exception that arrives, and names that do not make workers grow."""

from __future__ import annotations

import gc
import types
from typing import Any

import numpy as np
from torch._utils import ExceptionWrapper

from tutorlib.exercises import Ask, Exercise, Wrong

# --- 1: an exception that arrives ----------------------------------------------------------------------------------------


def _arrived(raised: BaseException) -> BaseException:
    """The exception that a loader's main process raises in place of one that a worker raised."""
    try:
        raise raised
    except Exception:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    try:
        wrapped.reraise()
    except Exception as error:
        return error
    raise AssertionError("reraise() returned")


def _bad_file(answer: Any, ask: Ask) -> None:
    cases = ask.cases(8, ["a.csv", "digits.csv", "train/7.png", "log.txt"], range(1, 100))
    ask(lambda: issubclass(answer, Exception), case="BadFile is an Exception").gives(True)
    for path, line in cases:
        made, text = f"BadFile({path!r}, {line})", f"{path}: line {line} is broken"
        ask(lambda: str(answer(path, line)), case=f"str({made})").gives(text)
        arrived = ask(lambda: type(_arrived(answer(path, line))).__name__, case=f"{made} from a worker arrives as")
        arrived.gives(answer.__name__)
        last = ask(lambda: str(_arrived(answer(path, line))).strip().splitlines()[-1].partition(": ")[2], case="its last line")
        last.gives(text)


def _named(answer: Any) -> Any:
    """A wrong answer under the learner's name: the law looks at it."""
    answer.__name__ = answer.__qualname__ = "BadFile"
    return answer


@_named
class _TwoNeeded(Exception):
    def __init__(self, path: str, line: int) -> None:
        super().__init__(f"{path}: line {line} is broken")


@_named
class _LineNone(Exception):
    def __init__(self, path: str, line: int | None = None) -> None:
        super().__init__(f"{path}: line {line} is broken")


@_named
class _Nothing(Exception):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)


@_named
class _KeyKind(KeyError):
    def __init__(self, path: str, line: int | None = None) -> None:
        super().__init__(path if line is None else f"{path}: line {line} is broken")


bad_file = Exercise(
    "09_bad_file",
    _bad_file,
    wrong=[
        Wrong(
            _TwoNeeded,
            "The main process calls BadFile(text), with one argument. Yours needs two, so a RuntimeError takes its place.",
            "主进程调用 BadFile(文本)，只有一个参数。你的要两个，于是换成了 RuntimeError。",
        ),
        Wrong(
            _LineNone,
            'It arrives, but the worker\'s text is followed by ": line None is broken". One argument is the whole text.',
            "到是到了，但工作进程的文本后面多了“: line None is broken”。只有一个参数时，它就是全部文本。",
        ),
        Wrong(
            _Nothing,
            "Exception's own str() shows the two arguments as a tuple. Build the sentence from path and line, in __init__.",
            "Exception 自带的 str() 会把两个参数显示成元组。请在 __init__ 里用 path 和 line 组成那句话。",
        ),
        Wrong(
            _KeyKind,
            "A KeyError shows its text in quotes, with every line break as \\n. Derive from Exception.",
            "KeyError 会给文本加引号，把每个换行写成 \\n。请从 Exception 派生。",
        ),
    ],
    hints=[
        (
            "It is made twice: by you with (path, line), and by the main process with one text.",
            "它要造两次：你用 (path, line) 造一次，主进程用一段文本再造一次。",
        ),
        (
            "Give line a default, line=None. When it is None, the first argument is the whole text.",
            "给 line 一个默认值：line=None。它是 None 时，第一个参数就是全部文本。",
        ),
        (
            'super().__init__(path if line is None else f"{path}: line {line} is broken")',
            '在 __init__ 里写：super().__init__(path if line is None else f"{path}: line {line} is broken")',
        ),
    ],
)


# --- 2: names in a few objects -------------------------------------------------------------------------------------------

_FEW = 60  # an array, its dtype, a dict, some numbers; a list of 200 names has more


def _objects(thing: Any) -> str:
    """What hangs on it: "few" objects, or which kind of them is too many."""
    seen: dict[int, Any] = {}
    waiting = [thing]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, types.ModuleType, types.FunctionType)):
            continue
        if isinstance(one, np.ndarray) and one.dtype.hasobject:  # the garbage collector does not see what it holds
            return "an array of objects"
        seen[id(one)] = one
        waiting += gc.get_referents(one)
    if len(seen) <= _FEW:
        return "few"
    return (
        "a text for each name" if sum(isinstance(one, (str, bytes)) for one in seen.values()) > _FEW else "a number for each name"
    )


def _name(random: Any) -> str:
    folder = random.choice(["train/", "", "a b/", "数字/", "été/"])
    return random.choice(
        ["", f"{folder}{random.randrange(10_000)}.png", f"{folder}{random.randrange(10)}\n{random.randrange(10)}"]
    )


def _packed(answer: Any, ask: Ask) -> None:
    lists = ask.cases(12, lambda random: [_name(random) for _ in range(random.randrange(7))])
    for names in lists:
        ask(lambda: len(answer(list(names))), case=f"len(Packed({names}))").gives(len(names))
        packed = ask(lambda: [answer(list(names))[i] for i in range(len(names))], case=f"Packed({names})[i] for all i")
        packed.gives(names)
    many = [f"train/{number % 10}/{number:08d}.png" for number in range(200)]
    ask(lambda: answer(list(many))[150], case="Packed(200 names)[150]").gives(many[150])
    ask(lambda: _objects(answer(list(many))), case="objects that hold 200 names").gives("few")
    long = [*many, "x" * 10_000]
    size = ask(
        lambda: "small" if _bytes(answer(list(long))) < 100_000 else "200 times the longest name", case="one long name more"
    )
    size.gives("small")


def _bytes(thing: Any) -> int:
    return sum(one.nbytes for one in vars(thing).values() if isinstance(one, np.ndarray))


class _Kept:
    def __init__(self, names: list[str]) -> None:
        self.names: Any = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        return self.names[index]


class _ObjectArray(_Kept):
    def __init__(self, names: list[str]) -> None:
        self.names = np.array([*names, None], dtype=object)[:-1]


class _FixedWidth(_Kept):
    def __init__(self, names: list[str]) -> None:
        self.names = np.array(names, dtype=np.str_)

    def __getitem__(self, index: int) -> Any:
        return str(self.names[index])


class _Lines(_Kept):
    def __init__(self, names: list[str]) -> None:
        self.text, self.size = "\n".join(names), len(names)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.text.split("\n")[index]


class _Characters(_Kept):
    def __init__(self, names: list[str]) -> None:
        self.letters = "".join(names).encode()
        self.ends = np.cumsum([0, *map(len, names)])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> Any:
        return self.letters[self.ends[index] : self.ends[index + 1]].decode(errors="replace")


class _ListOfEnds(_Kept):
    def __init__(self, names: list[str]) -> None:
        parts = [name.encode() for name in names]
        self.letters, self.ends = b"".join(parts), [0]
        for part in parts:
            self.ends.append(self.ends[-1] + len(part))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> Any:
        return self.letters[self.ends[index] : self.ends[index + 1]].decode()


packed = Exercise(
    "09_packed",
    _packed,
    wrong=[
        Wrong(
            _Kept,
            "All names are still objects of their own, each with a counter that a reader writes to.",
            "每个名字仍是单独的对象，各带一个计数，一读就写。",
        ),
        Wrong(
            _ObjectArray,
            "An array with dtype=object holds references to Python objects: it is a list in disguise.",
            "dtype=object 的数组存的是对 Python 对象的引用，只是换了样子的列表。",
        ),
        Wrong(
            _FixedWidth,
            "An array of strings gives each name the room of the longest: one long name makes it 200 times as big.",
            "字符串数组给每个名字留出最长者的位置：多一个长名字，它就大了 200 倍。",
        ),
        Wrong(
            _Lines,
            "A name may hold a line break itself. Remember where each name ends instead of marking it in the text.",
            "名字里本身可能有换行。不要在文本里做记号，请另外记下每个名字在哪里结束。",
        ),
        Wrong(
            _Characters,
            "The ends were counted in characters, but the letters are bytes: one Chinese character takes three of them.",
            "结束位置按字符数，内容却是字节：一个汉字占三个字节。",
        ),
        Wrong(
            _ListOfEnds,
            "The letters are one object now, but the ends are a list of numbers, each an object again. Use an array.",
            "字母现在是一个对象了，但结束位置是一列数字，每个又是对象。请用数组。",
        ),
    ],
    hints=[
        (
            "Write all names into one bytes object, one behind the other, and remember where each ends.",
            "把所有名字一个接一个写进同一个 bytes 对象，并记下各自在哪里结束。",
        ),
        (
            "Encode each name first: ends are counted in bytes. np.cumsum makes an array of ends, one object, from the lengths.",
            "先把每个名字编码：结束位置按字节数。结束位置的数组是一个对象：np.cumsum 从长度算出它。",
        ),
        (
            "With ends = [0, ...], name i is letters[ends[i]:ends[i + 1]].decode().",
            "设 ends = [0, ...]，第 i 个名字就是 letters[ends[i]:ends[i + 1]].decode()。",
        ),
    ],
)
