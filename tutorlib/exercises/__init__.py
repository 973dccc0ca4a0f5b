"""Checks a learner's answer against a law, with hints, solutions and progress.

A learner uses five verbs, all of which return facts: `check`, `predict`, `hint`, `solution`, `progress`.

An author writes `lesson_NN.py`: for each exercise a law, the wrong answers that deserve their own message, and hints
(see `lesson_00.py`). A law asks the answer about cases:

    def law(steps, ask):
        for samples, batch_size in ask.cases(30, range(0, 40), range(1, 9)):
            ask(steps, samples, batch_size).gives(-(-samples // batch_size))

    steps = Exercise("00_steps", law, wrong=[Wrong(floor, "english", "chinese")], hints=[("english", "chinese"), ...])

When the answer fails, the named wrong answers meet the same cases; one that behaves as the answer does lends its message.
Messages are in the language of the notebook: Chinese in the folder `zh` of a working copy, English in `en`; elsewhere
Chinese where the environment variable TUTORLIB_LANG is zh, else English.
"""

from __future__ import annotations

import contextlib
import dis
import html
import importlib
import json
import linecache
import math
import os
import random
import re
import sys
import sysconfig
import traceback
import types
import warnings
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutorlib import facts, lessons
from tutorlib.facts import Facts, Link

__all__ = [
    "Ask",
    "Exercise",
    "Hint",
    "Prediction",
    "Progress",
    "Refused",
    "Solution",
    "Verdict",
    "Wrong",
    "check",
    "hint",
    "predict",
    "progress",
    "solution",
]

LIMIT = 10.0  # seconds an answer may take, unless its exercise says otherwise
_TEXT = 160  # characters of one value in a message


# --- What an author writes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """A wrong answer that deserves its own message: a function, class or value of the same kind as the answer."""

    answer: Any
    en: str
    zh: str


@dataclass(frozen=True)
class Exercise:
    """One exercise: its name "NN_slug", the law of its answer, named wrong answers, and two or three hints (en, zh).

    `law(answer, ask)` asks the answer about cases; see `Ask`. It may also raise `Refused` itself. `limit` is in seconds.

    >>> Exercise("0_steps", lambda answer, ask: None, hints=[("a", "b"), ("c", "d")])
    Traceback (most recent call last):
    ValueError: exercise '0_steps': a name is two digits, an underscore and a lower-case identifier, such as '03_share'
    """

    name: str
    law: Callable[[Any, Ask], object]
    wrong: Sequence[Wrong] = ()
    hints: Sequence[tuple[str, str]] = ()
    limit: float = LIMIT

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                f"exercise {self.name!r}: a name is two digits, an underscore and a lower-case identifier, such as '03_share'"
            )
        if not 2 <= len(self.hints) <= 3:
            raise ValueError(f"exercise {self.name!r}: {len(self.hints)} hints, expected 2 or 3")
        for texts in [*self.hints, *((wrong.en, wrong.zh) for wrong in self.wrong)]:
            if len(texts) != 2 or not all(isinstance(text, str) and text.strip() for text in texts):
                raise ValueError(f"exercise {self.name!r}: expected the text twice, (english, chinese), found {texts!r}")


class Refused(Exception):
    """What a law raises when it judges a case itself instead of by `Ask`."""

    def __init__(self, case: str, expected: object, found: object) -> None:
        super().__init__(f"{case}: expected {_text(expected)}, found {_text(found)}")
        self.case, self.expected, self.found = case, expected, found


class Ask:
    """How a law questions an answer: `ask(answer, 7, 3).gives(3)`; the case is then named `answer(7, 3)`.

    - `ask(call, *args, **kwargs)` calls nothing yet; `.gives(expected)`, `.satisfies(test, "text")` and
      `.raises(ValueError)` do, compare, note the case, and return what was found.
    - `case="..."` names the case when `call` is not the answer itself: `ask(list, loader, case="list(loader)")`.
      `then=list` is applied to what the call returns. A `call` that cannot be called is itself what was found.
    - `ask.cases(count, *choices)` draws cases, the same on every machine, smallest first; a choice is a sequence, or
      a function of a `random.Random`.
    - `ask.random` is that `random.Random`, seeded by the exercise's name.

    Values are compared as plain values: a tensor or an array equals the list of its numbers, numbers may differ by
    rounding; a list is no tuple.
    """

    def __init__(self, answer: object, name: str, seed: str, note: Callable[[str, Any, Any, bool], None]) -> None:
        self._answer, self._name, self._note = answer, name, note
        self.random = random.Random(seed)

    def __call__(
        self, call: Any, *args: Any, case: str | None = None, then: Callable[[Any], Any] | None = None, **kwargs: Any
    ) -> _Question:
        if case is None:
            if call is not self._answer:
                raise TypeError(f"ask({_text(call)}, ...): name the case with case=..., since this is not the answer itself")
            shown = [*map(_text, args), *(f"{key}={_text(value)}" for key, value in kwargs.items())]
            case = f"{self._name}({', '.join(shown)})" if callable(call) else self._name

        def find() -> Any:
            found = call(*args, **kwargs) if callable(call) else call
            return then(found) if then is not None else found

        return _Question(_short(case), find, self._note)

    def cases(self, count: int, *choices: Sequence[Any] | Callable[[random.Random], Any]) -> list[Any]:
        """At most `count` different draws, one value from each choice, smallest first; a single choice gives bare values."""
        drawn = [tuple(c(self.random) if callable(c) else self.random.choice(c) for c in choices) for _ in range(count)]
        different = {repr(case): case for case in drawn}
        ordered = [different[key] for key in sorted(different, key=lambda key: (len(key), key))]
        return [case[0] for case in ordered] if len(choices) == 1 else ordered


class _Question:
    """One case before it is answered."""

    def __init__(self, case: str, find: Callable[[], Any], note: Callable[[str, Any, Any, bool], None]) -> None:
        self._case, self._find, self._note = case, find, note

    def gives(self, expected: Any) -> Any:
        found = self._found(expected)
        self._note(self._case, expected, found, _same(expected, found))
        return found

    def satisfies(self, test: Callable[[Any], bool], expected: str) -> Any:
        found = self._found(_Words(expected))
        self._note(self._case, _Words(expected), found, bool(test(found)))
        return found

    def raises(self, error: type[BaseException], words: str = "") -> None:
        expected = _Words(error.__name__ + (f": ... {words} ..." if words else ""))
        try:
            found = self._find()
        except error as raised:
            self._note(self._case, expected, _Words(_last_line(raised)), words in str(raised))
        except Exception as raised:
            self._note(self._case, expected, _Words(_last_line(raised)), False)
        else:
            self._note(self._case, expected, found, False)

    def _found(self, expected: Any) -> Any:
        self._note(self._case, expected, ..., True)  # begun: known should the call never return
        try:
            return self._find()
        except (Exception, SystemExit) as error:
            raise _Raised(self._case, expected, error) from error


class _Words(str):
    """A description that stands where a value would stand; shown without quotes."""


class _Raised(Exception):
    """The answer raised inside a case."""

    def __init__(self, case: str, expected: object, error: BaseException) -> None:
        super().__init__(case)
        self.case, self.expected, self.error = case, expected, error


# --- What a learner gets -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Verdict(Facts):
    """The outcome of a check: "not attempted", "passed", "failed" or "error"; where it failed, the case and both sides."""

    name: str
    outcome: str
    message: str
    case: str | None = None
    expected: str | None = None
    found: str | None = None

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    def summary(self) -> str:
        return f"{self.name}: {self.message}"

    def rows(self) -> list[dict[str, object]]:
        if self.case is None:
            return []
        return [{_say("case"): self.case, _say("expected"): self.expected, _say("found"): self.found}]


@dataclass(frozen=True, repr=False)
class Prediction(Facts):
    """A learner's prediction beside what torch did; `agrees` is None where there is no prediction yet."""

    mine: object
    torch: object
    agrees: bool | None

    def summary(self) -> str:
        return _say({True: "agrees", False: "differs from torch", None: "no prediction"}[self.agrees])

    def rows(self) -> list[dict[str, object]]:
        return [{"who": "you", "value": _text(self.mine)}, {"who": "torch", "value": _text(self.torch)}]


@dataclass(frozen=True, repr=False)
class Hint(Facts):
    """One hint of an exercise."""

    name: str
    number: int
    count: int
    text: str

    def summary(self) -> str:
        line = _say("hint", name=self.name, number=self.number, count=self.count, text=self.text)
        return line + (_say("last hint", name=self.name) if self.number == self.count else "")

    def rows(self) -> list[dict[str, object]]:
        return []


@dataclass(frozen=True, repr=False)
class Solution(Facts):
    """The solution of an exercise as source text, or the reason why it is not shown yet (`source` is None)."""

    name: str
    source: str | None

    def summary(self) -> str:
        return _say("solution" if self.source is not None else "no solution yet", name=self.name)

    def rows(self) -> list[dict[str, object]]:
        return [{"line": number, "code": line} for number, line in enumerate((self.source or "").splitlines(), start=1)]

    def __str__(self) -> str:
        return self.summary() if self.source is None else f"{self.summary()}\n{self.source}"

    def _repr_html_(self) -> str:
        code = f"<pre><code>{html.escape(self.source)}</code></pre>" if self.source is not None else ""
        return f"<p>{html.escape(self.summary())}</p>{code}"


@dataclass(frozen=True, repr=False)
class Progress(Facts):
    """What has been passed: of all lessons, the map of the course, one row a lesson; of one lesson, one row an exercise."""

    states: Mapping[str, str]
    lesson: str | None = None
    headings: Mapping[str, lessons.Heading] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        return sum(state == "passed" for state in self.states.values())

    @property
    def total(self) -> int:
        return len(self.states)

    def summary(self) -> str:
        return _say("progress", passed=self.passed, total=self.total)

    def rows(self) -> list[dict[str, object]]:
        if self.lesson is not None:
            return [{"exercise": name, "state": state} for name, state in self.states.items()]
        rows: list[dict[str, object]] = []
        for number in sorted({name[:2] for name in self.states}):
            heading = self.headings.get(number)
            states = [state for name, state in self.states.items() if name[:2] == number]
            rows.append(
                {
                    "lesson": number,
                    "title": heading and Link(heading.title[_language()], f"{heading.name}.ipynb"),
                    "minutes": heading and heading.minutes,
                    "passed": states.count("passed"),
                    "exercises": len(states),
                }
            )
        return rows


# --- The verbs -----------------------------------------------------------------------------------------------------------


def check(name: str, answer: object, *, limit: float | None = None) -> Verdict:
    """Judge a learner's answer (a function, a class or a value) by the law of the exercise `name`.

    The answer runs apart from the kernel and under a time limit in seconds (see `tutorlib.exercises.limits`), so an endless
    loop, an exit or a crash is a verdict too. An answer that still is `...`, None or an empty body is "not attempted".
    Passing is noted in `.tutorlib/progress.json` of the working copy around the current folder, if there is one.

    Raises ValueError for a name that no lesson has.

    >>> def steps(samples, batch_size):
    ...     return samples // batch_size
    >>> check("00_steps", steps)
    00_steps: not yet. The last, smaller batch is a step too: 7 samples in batches of 3 are 3 steps, not 2.
    case         expected  found
    steps(1, 2)  1         0
    """
    exercise = _exercise(name)
    empty = _empty_part(answer)
    if empty == "all":
        return Verdict(name, "not attempted", _say("not attempted", name=name))
    verdict = _judge(exercise, answer, exercise.limit if limit is None else limit)
    if verdict.passed:
        _store(name, "passed")
    elif empty:
        return Verdict(name, "not attempted", _say("unfinished", name=name, part=empty))
    return verdict


def predict(mine: object, *, torch: object) -> Prediction:
    """Put a prediction beside what torch did; `...` (or anything that still holds one) is no prediction yet.

    Tensors and arrays are compared by their numbers, dtypes, devices, classes and exceptions also by name, shapes as
    list or tuple. A list does not equal a tuple.

    >>> predict([0, 1], torch=[0, 1])
    your prediction agrees with torch
    who    value
    you    [0, 1]
    torch  [0, 1]
    >>> predict(..., torch=2)
    no prediction yet: replace the ... and run the cell again
    who    value
    you    ...
    torch  2
    """
    return Prediction(mine, torch, None if _holds_dots(mine) else _same(torch, mine, names=True))


def hint(name: str) -> Hint:
    """The next hint of an exercise; after the last one, the last one again.

    >>> hint("00_steps").number, hint("00_steps").number
    (1, 2)
    """
    exercise = _exercise(name)
    number = min(_hints_given.get(name, 0) + 1, len(exercise.hints))
    _hints_given[name] = number
    english, chinese = exercise.hints[number - 1]
    return Hint(name, number, len(exercise.hints), chinese if _language() == "zh" else english)


def solution(name: str, *, give_up: bool = False) -> Solution:
    """The solution of an exercise, once it has been passed, or with `give_up=True` (which progress then says).

    Raises `lessons.LessonError` where the lesson's source is not beside the package.
    """
    _exercise(name)
    state = _states([name])[name]
    if state == "open" and not give_up:
        return Solution(name, None)
    (source,) = (one.solution for one in lessons.exercises(lessons.lesson(name[:2])) if one.name == name)
    if state == "open":
        _store(name, "solution shown")
    return Solution(name, source)


def progress(lesson: str | int | None = None) -> Progress:
    """What this learner has passed: by lesson, or by exercise for one lesson such as "03".

    The record is `.tutorlib/progress.json` of the working copy, found by walking up from the current folder; without a
    working copy it lasts as long as this process.

    Raises ValueError for a lesson without exercises.
    """
    if lesson is None:
        names = [name for number in _lessons() for name in _exercises(number)]
        with contextlib.suppress(lessons.LessonError):  # where the sources are not beside the package, lessons have no titles
            return Progress(_states(names), headings={one.number: one for one in lessons.headings()})
        return Progress(_states(names))
    number = f"{int(lesson):02d}" if str(lesson).isdecimal() else str(lesson)
    if number not in _lessons():
        raise ValueError(f"lesson {lesson!r} has no exercises; lessons that have: {', '.join(_lessons())}")
    return Progress(_states(list(_exercises(number))), number)


_hints_given: dict[str, int] = {}


# --- Exercises by name ---------------------------------------------------------------------------------------------------


def _lessons() -> list[str]:
    import pkgutil

    return sorted(
        found.name[len("lesson_") :] for found in pkgutil.iter_modules(__path__) if re.fullmatch(r"lesson_\d\d", found.name)
    )


def _exercises(number: str) -> dict[str, Exercise]:
    module = importlib.import_module(f"{__name__}.lesson_{number}")
    return {value.name: value for value in vars(module).values() if isinstance(value, Exercise)}


def _exercise(name: str) -> Exercise:
    number = str(name)[:2]
    known = _exercises(number) if number in _lessons() else {}
    if name in known:
        return known[name]
    every = [other for lesson in _lessons() for other in _exercises(lesson)]
    import difflib  # here and below: what costs milliseconds is imported where a learner's call needs it

    near = difflib.get_close_matches(str(name), every, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known or every)}"
    raise ValueError(f"no exercise is called {name!r}: {meant}")


# --- Judging -------------------------------------------------------------------------------------------------------------


def _judge(exercise: Exercise, answer: object, limit: float) -> Verdict:
    """Run law and wrong answers apart; read what they reported, down to a process that died in the middle of a case."""
    from tutorlib.exercises import limits

    ended = limits.run(lambda send: _trial(exercise, answer, send), limit)
    last: dict[str, dict[str, Any]] = {message["kind"]: message for message in ended.messages}
    case = last.get("begun", {})
    if "passed" in last:
        return Verdict(exercise.name, "passed", _say("passed", cases=last["passed"]["cases"]))
    if "broken" in last:
        raise RuntimeError(f"the law of {exercise.name} asked nothing: use ask(...).gives(...) in it")
    if "refused" in last:
        refused = last["refused"]
        sides = {side: refused[side] for side in ("case", "expected", "found")}
        if "wrong" in last:
            wrong = exercise.wrong[last["wrong"]["index"]]
            message = wrong.zh if _language() == "zh" else wrong.en
            return Verdict(exercise.name, "failed", _say("failed", message=message), **sides)
        if "error" in refused:
            return Verdict(
                exercise.name,
                "error",
                _say("error at" if refused["where"] else "error", line=refused["error"], where=refused["where"]),
                **sides,
            )
        return Verdict(exercise.name, "failed", _say("failed", message=_say("differs", name=exercise.name)), **sides)
    if ended.how == "time":
        message = _say("time", limit=f"{limit:g}")
    elif ended.how == "crash":
        message = _say("crash")
    else:
        message = _say("exit", code=ended.code)
    return Verdict(exercise.name, "error", message, case.get("case"), case.get("expected"), _say("nothing") if case else None)


def _trial(exercise: Exercise, answer: object, send: Callable[[dict[str, Any]], None]) -> None:
    name = getattr(answer, "__name__", exercise.name[3:])
    name = exercise.name[3:] if name == "<lambda>" else name
    seen = _behaviour(exercise, answer, name, send)
    if all(ok for _, _, ok in seen):
        return
    for index, wrong in enumerate(exercise.wrong):
        theirs = _behaviour(exercise, wrong.answer, name, lambda message: None)
        if len(theirs) == len(seen) and all(a[0] == b[0] and _same(a[1], b[1]) for a, b in zip(theirs, seen, strict=True)):
            send({"kind": "wrong", "index": index})
            return


def _behaviour(
    exercise: Exercise, answer: object, name: str, send: Callable[[dict[str, Any]], None]
) -> list[tuple[str, Any, bool]]:
    """(case, found, ok) of every case of the law, up to an exception; reports the first case that is not ok, or passing."""
    seen: list[tuple[str, Any, bool]] = []

    def refuse(case: str | None, expected: object, found: object, **more: Any) -> None:
        if all(ok for _, _, ok in seen):
            send({"kind": "refused", "case": case, "expected": _text(expected), "found": _text(found), **more})
        seen.append((case or "", _plain(found), False))

    def note(case: str, expected: object, found: object, ok: bool) -> None:
        if found is ... and ok:
            send({"kind": "begun", "case": case, "expected": _text(expected)})
        elif ok:
            seen.append((case, _plain(found), True))
        else:
            refuse(case, expected, found)

    def raised(error: BaseException, case: str | None = None, expected: object = None) -> None:
        more = {"error": _last_line(error), "where": _where(error)}
        refuse(case, expected, _Words(_last_line(error)), **more)
        seen[-1] = (case or "", _Words(type(error).__name__), False)  # messages may differ where behaviour does not

    try:
        with _seeded():
            exercise.law(answer, Ask(answer, name, exercise.name, note))
    except Refused as refusal:
        refuse(refusal.case, refusal.expected, refusal.found)
    except _Raised as inside:
        raised(inside.error, inside.case, inside.expected)
        _release(inside)
    except (Exception, SystemExit) as error:
        if all(ok for _, _, ok in seen):  # after a refusal the law itself may stumble over what it got
            raised(error)
        _release(error)
    if not seen:
        send({"kind": "broken"})
        seen.append(("", None, False))
    elif all(ok for _, _, ok in seen):
        send({"kind": "passed", "cases": len(seen)})
    return seen


def _release(error: BaseException) -> None:
    """Let go of what the frames of an error hold: the workers of a loader that failed should end now, not at some later time."""
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain.__traceback__, chain = None, chain.__cause__ or chain.__context__


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Random numbers start alike for every check, and a check in this process leaves the learner's where they were."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    before = random.getstate(), numpy and numpy.random.get_state(), torch and torch.get_rng_state()
    try:
        random.seed(0)
        if numpy is not None:
            numpy.random.seed(0)
        if torch is not None:
            torch.manual_seed(0)
        yield
    finally:
        random.setstate(before[0])
        if numpy is not None:
            numpy.random.set_state(before[1])
        if torch is not None:
            torch.set_rng_state(before[2])


# --- What has not been filled in -----------------------------------------------------------------------------------------


def _empty_part(answer: object) -> str:
    """What of an answer is still to be written: "all", the name of a part of it, or "" for nothing."""
    if answer is None or _holds_dots(answer):
        return "all"
    if isinstance(answer, type):
        methods = {name: method for name, value in vars(answer).items() if (method := _method(value)) is not None}
        own = {
            name for name in vars(answer) if not (name.startswith("__") and name.endswith("__")) and not name.startswith("_abc_")
        }
        if all(_is_stub(method) for method in methods.values()) and own <= methods.keys():
            return "all"
        empty = [name for name, method in methods.items() if _is_stub(method) and name not in ("__init__", "close")]
        return empty[0] if empty else next((name for name, method in methods.items() if _has_dots(method.__code__)), "")
    if isinstance(answer, types.FunctionType):
        return "all" if _is_stub(answer) else answer.__name__ if _has_dots(answer.__code__) else ""
    return ""


def _holds_dots(value: object, depth: int = 3) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return value is ... or (
        depth > 0 and isinstance(value, (list, tuple)) and any(_holds_dots(inner, depth - 1) for inner in value)
    )


def _method(value: object) -> types.FunctionType | None:
    value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    return value if isinstance(value, types.FunctionType) else None


def _is_stub(function: types.FunctionType) -> bool:
    """Whether a body is only a docstring, `...`, `pass`, `return ...` or `raise NotImplementedError`, read from its bytecode."""
    steps = [step for step in dis.get_instructions(function) if step.opname not in _SILENT]
    loaded = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    others = {step.opname for step in steps} - {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    if not others:
        return all(value is None or value is ... for value in loaded)
    raises = (
        others <= {"LOAD_GLOBAL", "LOAD_COMMON_CONSTANT", "RAISE_VARARGS", "CALL", "PRECALL", "PUSH_NULL"}
        and "RAISE_VARARGS" in others
    )
    return raises and any("NotImplementedError" in step.argrepr for step in steps)


_SILENT = {"RESUME", "NOP", "CACHE", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP", "NOT_TAKEN"}


def _has_dots(code: types.CodeType) -> bool:
    """Whether a body still uses `...` as a value; inside of an index, as in `x[..., 0]`, it is no gap."""
    steps = list(dis.get_instructions(code))
    for at, step in enumerate(steps):
        if step.opname in ("LOAD_CONST", "RETURN_CONST") and step.argval is ...:
            line = step.positions.lineno if step.positions else None
            rest = [s for s in steps[at:] if s.positions and s.positions.lineno == line]
            if not any(s.opname == "BINARY_SUBSCR" or (s.opname == "BINARY_OP" and s.argrepr == "[]") for s in rest):
                return True
    return any(isinstance(inner, types.CodeType) and _has_dots(inner) for inner in code.co_consts)


# --- Values: made plain, compared, shown ---------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Tensors, arrays, ranges and views as lists, numpy scalars as numbers, mappings as dicts, inside as well."""
    kind = type(value)
    if kind.__module__.partition(".")[0] in ("torch", "numpy") and callable(getattr(value, "tolist", None)):
        with contextlib.suppress(Exception):  # jagged and meta tensors have no list: they stay as they are
            return (value.detach() if hasattr(value, "detach") else value).tolist()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if kind.__name__ == "Size" or isinstance(value, _Words):
        return value
    if isinstance(value, tuple):
        return tuple(_plain(inner) for inner in value)
    if isinstance(value, (list, range, KeysView, ValuesView, ItemsView)):
        return [_plain(inner) for inner in value]
    return value


def _same(expected: Any, found: Any, *, names: bool = False) -> bool:
    """Whether two values are equal as plain values; with `names`, a name may stand for a class, an error or a dtype."""
    a, b = _plain(expected), _plain(found)
    if isinstance(a, (bool, int, float)) and isinstance(b, (bool, int, float)):
        if isinstance(a, bool) or isinstance(b, bool):
            return a is b
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) or (a != a and b != b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key], names=names) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        alike = isinstance(a, list) == isinstance(b, list) or "Size" in (type(a).__name__, type(b).__name__)
        return alike and len(a) == len(b) and all(_same(x, y, names=names) for x, y in zip(a, b, strict=True))
    if names and _names(a) & _names(b):
        return True
    try:
        return bool(a == b)
    except Exception:
        return False


def _names(value: object) -> set[str]:
    if isinstance(value, str):
        return {value, value.removeprefix("torch.")}
    if isinstance(value, BaseException):
        return {type(value).__name__}
    if isinstance(value, type):
        return {value.__name__}
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device", "layout"):
        return {str(value).removeprefix("torch.")}
    return set()


def _text(value: object) -> str:
    return _short(_scrub(_show(_plain(value))))


def _show(value: Any) -> str:
    if isinstance(value, _Words):
        return str(value)
    if value is ...:
        return "..."
    if isinstance(value, float):
        return facts.cell(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_show(key)}: {_show(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_show, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_show, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, (set, frozenset)):
        return facts.cell(value)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return value.__name__
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 4] + " ..."


def _scrub(text: str) -> str:
    """Without what differs by run or machine: addresses, process ids, the temporary file that stands for a cell."""
    text = re.sub(r"<(?:__main__\.)?([\w.]+)(?: object)? at 0x[0-9a-fA-F]+>", r"<\1>", text)
    text = re.sub(r"\bat 0x[0-9a-fA-F]+", "at 0x...", text)
    text = re.sub(r"(\(pids?(?:\(s\))?) [\d, ]+", r"\1 ...", text)
    return re.sub(r"[^\s'\"]*ipykernel_\d+[/\\]\d+\.py", "cell", text)


# --- What a learner's exception says -------------------------------------------------------------------------------------


def _last_line(error: BaseException) -> str:
    """`ValueError: what it says`, on one line; for an error out of a DataLoader worker, the worker's own."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:
        lines = []
    if isinstance(error, MemoryError) or any("can't allocate memory" in line for line in lines):
        from tutorlib.exercises import limits

        return f"MemoryError: more than {limits.MEMORY / 2**30:g} GB"
    if any(line.startswith("Original Traceback") for line in lines):
        return _short(_scrub(lines[-1]))
    return _short(_scrub(type(error).__name__ + (f": {lines[0]}" if lines else "")))


def _where(error: BaseException) -> str:
    """The last line of the learner's own code that the exception passed through, as `line 3: return 1 / 0`, or ""."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    worker = re.findall(r'File "([^"\n]+)", line (\d+)', str(error)) if "Original Traceback" in str(error) else []
    own = [(file, int(line)) for file, line in [*frames, *worker] if not _is_library(file)]
    if not own:
        return ""
    file, number = own[-1]
    return _short(f"line {number}: {linecache.getline(file, number).strip()}".rstrip(": "))


def _is_library(file: str) -> bool:
    path = Path(file)
    if file.startswith("<frozen") or {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in (Path(__file__).parents[1], sysconfig.get_path("stdlib")))


# --- Progress ------------------------------------------------------------------------------------------------------------

_session: dict[str, str] = {}  # what this process knows, for where there is no working copy


def _states(names: Sequence[str]) -> dict[str, str]:
    known = dict(_session)
    folder = _folder()
    if folder is not None:
        with _locked(folder):
            known = _merged(_read(folder), known)
    return {name: known.get(name, "open") for name in names}


def _store(name: str, state: str) -> None:
    _session.update(_merged(_session, {name: state}))
    folder = _folder()
    if folder is None:
        return
    try:
        with _locked(folder):
            before = _read(folder)
            after = _merged(before, {name: state})
            if after != before:
                _replace(folder / "progress.json", json.dumps({"exercises": after}, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        warnings.warn(f"your progress is kept only until this kernel ends: {error}", stacklevel=3)


def _merged(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    rank = {"passed": 2, "solution shown": 1}
    return {name: max((d[name] for d in (one, other) if name in d), key=lambda s: rank.get(s, 0)) for name in {**one, **other}}


def _folder() -> Path | None:
    """The `.tutorlib` folder of the working copy around the current folder."""
    with contextlib.suppress(OSError):
        here = Path.cwd()
        return next((up / ".tutorlib" for up in (here, *here.parents) if (up / ".tutorlib").is_dir()), None)
    return None


def _read(folder: Path) -> dict[str, str]:
    path = folder / "progress.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["exercises"]
        if isinstance(entries, dict) and all(isinstance(state, str) for state in entries.values()):
            return entries
    except FileNotFoundError:
        return {}
    except OSError as error:
        warnings.warn(f"your earlier progress cannot be read: {error}", stacklevel=4)
        return {}
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    aside = path.with_name("progress.damaged.json")
    with contextlib.suppress(OSError):
        path.replace(aside)
        warnings.warn(f"{path.name} was damaged: it is set aside as {aside.name}, and progress starts anew", stacklevel=4)
    return {}


def _replace(path: Path, text: str) -> None:
    import tempfile

    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One kernel at a time reads and writes; a lock that the system does not give (a read-only folder) is done without."""
    try:
        file = (folder / "progress.lock").open("a+b")
    except OSError:
        yield
        return
    with file:  # closing it frees the lock, as the end of the process would
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- Words ---------------------------------------------------------------------------------------------------------------


def _language() -> str:
    with contextlib.suppress(OSError):  # the folder may be gone
        here = Path.cwd()  # a kernel works in its notebook's folder
        if here.name in lessons.LANGUAGES and (here.parent / ".tutorlib").is_dir():
            return here.name
    return "zh" if os.environ.get("TUTORLIB_LANG", "").lower().startswith("zh") else "en"


def _say(key: str, **values: object) -> str:
    return _WORDS[key][_language() == "zh"].format(**values)


_WORDS = {
    "case": ("case", "情况"),
    "expected": ("expected", "期望"),
    "found": ("found", "得到"),
    "nothing": ("nothing", "没有结果"),
    "passed": ("passed ({cases} cases)", "通过（{cases} 个情况）"),
    "failed": ("not yet. {message}", "还不对。{message}"),
    "differs": ('This case differs; exercises.hint("{name}") helps.', '下面的情况不一致；exercises.hint("{name}") 有提示。'),
    "error": ("your answer raised {line}", "你的答案抛出了 {line}"),
    "error at": ("your answer raised {line} ({where})", "你的答案抛出了 {line}（{where}）"),
    "time": ("stopped after {limit} s: does it loop forever?", "{limit} 秒后被停止：是不是死循环？"),
    "crash": ("your answer crashed its process", "你的答案使进程崩溃了"),
    "exit": ("your answer ended its process with exit code {code}", "你的答案结束了进程，退出码 {code}"),
    "not attempted": (
        'not attempted: replace the ... and run both cells again; exercises.hint("{name}") helps',
        '尚未作答：替换 ... 后重新运行这两个单元格；exercises.hint("{name}") 有提示',
    ),
    "unfinished": (
        'not attempted: {part} is still to be written; exercises.hint("{name}") helps',
        '尚未作答：{part} 还没有写完；exercises.hint("{name}") 有提示',
    ),
    "agrees": ("your prediction agrees with torch", "你的预测与 torch 一致"),
    "differs from torch": ("your prediction differs from torch", "你的预测与 torch 不同"),
    "no prediction": ("no prediction yet: replace the ... and run the cell again", "还没有预测：替换 ... 后重新运行这个单元格"),
    "hint": ("{name}, hint {number} of {count}: {text}", "{name}，提示 {number}/{count}：{text}"),
    "last hint": (
        ' That was the last one; exercises.solution("{name}", give_up=True) shows a solution.',
        ' 这是最后一条；exercises.solution("{name}", give_up=True) 显示答案。',
    ),
    "solution": ("{name}: a solution", "{name}：一种答案"),
    "no solution yet": (
        '{name}: pass the check first, or give up with exercises.solution("{name}", give_up=True)',
        '{name}：先通过检查，或用 exercises.solution("{name}", give_up=True) 放弃作答',
    ),
    "progress": ("{passed} of {total} exercises passed", "已通过 {passed}/{total} 个练习"),
}
