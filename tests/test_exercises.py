"""The engine of the exercises, and every exercise of every lesson against it."""

import ast
import builtins
import contextlib
import ctypes
import html
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
import types
from collections import OrderedDict

import nbclient
import nbformat
import numpy
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from tutorlib import cells, exercises, lessons
from tutorlib.exercises import Ask, Exercise, Refused, Wrong, limits

HINTS = [("think", "想一想"), ("think more", "再想一想")]


def double_law(double, ask):
    for number in range(10):
        ask(double, number).gives(2 * number)


def pairs_law(Pairs, ask):
    for size in (0, 1, 3):
        pairs = Pairs(size)
        ask(len, pairs, case=f"len(Pairs({size}))").gives(size)
        ask(list, pairs, case=f"list(Pairs({size}))").gives([(n, n) for n in range(size)])


def loader_law(make, ask):
    ask(make, 4, then=list).gives([[0, 1], [2, 3]])


TOYS = [
    Exercise(
        "99_double",
        double_law,
        wrong=[
            Wrong(lambda n: n + 2, "That adds two.", "那是加二。"),
            Wrong(lambda n: n * n, "That squares.", "那是平方。"),
            Wrong(lambda n: 1 // 0, "That divides by zero.", "那是除以零。"),
        ],
        hints=HINTS,
    ),
    Exercise("99_pairs", pairs_law, hints=HINTS),
    Exercise("99_loader", loader_law, hints=HINTS),
    Exercise("99_value", lambda value, ask: ask(value).gives(torch.tensor([1, 2])), hints=HINTS),
    Exercise("99_silent", lambda answer, ask: None, hints=HINTS),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No working copy, no memory of other tests, English."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUTORLIB_LANG", raising=False)
    monkeypatch.setattr(exercises, "_session", {})
    monkeypatch.setattr(exercises, "_hints_given", {})


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(exercises, "_lessons", lambda: ["99"])
    monkeypatch.setattr(exercises, "_exercises", lambda number: {toy.name: toy for toy in TOYS})


@pytest.fixture(params=["child", "this process"])
def place(request, monkeypatch):
    """Both ways of running an answer; what a learner reads must be the same."""
    if request.param == "this process":
        monkeypatch.setattr(limits, "isolated", lambda: False)
    else:
        assert limits.isolated(), "these tests run where fork is"


# --- The exercises of the lessons ----------------------------------------------------------------------------------------

# by file, not through the engine: a lesson whose module the engine overlooked must show here
EVERY = [
    exercise
    for path in sorted((lessons.find_root().parent / "tutorlib" / "exercises").glob("lesson_*.py"))
    for exercise in vars(importlib.import_module(f"tutorlib.exercises.{path.stem}")).values()
    if isinstance(exercise, Exercise)
]
NAMED = [pytest.param(exercise, wrong, id=f"{exercise.name}-{n}") for exercise in EVERY for n, wrong in enumerate(exercise.wrong)]
each = pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.name)


class Notebook:
    """Runs an exercise cell of a source with the earlier cells it needs, and gives the answer that the check cell checks."""

    made = 0

    def __init__(self, name):
        self.lesson = lessons.lesson(name[:2])
        (self.exercise,) = (one for one in lessons.exercises(self.lesson) if one.name == name)
        Notebook.made += 1
        module = types.ModuleType(f"notebook_{Notebook.made}")  # stands for __main__: what is defined there can be pickled
        sys.modules[module.__name__] = module
        self.namespace = module.__dict__
        self.ran = set()

    def answer(self, text):
        for cell in self.lesson.code[: self.exercise.cell]:
            if "setup" in cell.tags:
                self.run(cell.source)
        self.provide(text, self.exercise.cell - 1)
        self.run(text)
        call = next(
            node
            for node in ast.walk(ast.parse(self.lesson.code[self.exercise.cell].source))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "exercises.check"
        )
        assert ast.literal_eval(call.args[0]) == self.exercise.name
        self.provide(ast.unparse(call.args[1]), self.exercise.cell - 1)
        return eval(ast.unparse(call.args[1]), self.namespace)  # noqa: S307 (our own notebook)

    def provide(self, text, before):
        """Run the earlier cells that define what `text` uses, and what those use."""
        tree = ast.parse(plain(text))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        modules = {f"module {node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {f"module {alias.name}" for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        for name in sorted((used | modules) - bound(tree) - self.namespace.keys() - set(dir(builtins))):
            for index in reversed(range(before)):
                cell = self.lesson.code[index]
                if name in provides(cell.source):
                    if index not in self.ran:
                        self.ran.add(index)
                        self.provide(cell.source, index)
                        with contextlib.suppress(Exception if "raises-exception" in cell.tags else ()):
                            self.run(cell.source)
                    break

    def run(self, text):
        first = text.lstrip().split("\n")[0].split()
        if first and first[0] == "%%importable":
            cells.define(first[1], plain(text), self.namespace)
        else:
            exec(compile(plain(text), f"<{self.exercise.name}>", "exec"), self.namespace)


def provides(text):
    """The names a cell defines, and the module that it becomes."""
    magic = text.split()[:2]
    return bound(ast.parse(plain(text))) | ({f"module {magic[1]}"} if magic[:1] == ["%%importable"] else set())


def plain(text):
    return "\n".join("" if line.startswith("%") else line for line in text.split("\n"))


def bound(tree):
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


@each
def test_the_starter_is_not_attempted(exercise):
    notebook = Notebook(exercise.name)
    verdict = exercises.check(exercise.name, notebook.answer(notebook.exercise.starter))
    assert verdict.outcome == "not attempted", verdict


@each
def test_the_solution_passes_with_the_same_words_in_both_places(exercise, monkeypatch):
    notebook = Notebook(exercise.name)
    answer = notebook.answer(notebook.exercise.solution)
    first = exercises.check(exercise.name, answer)
    assert first.passed, first
    monkeypatch.setattr(limits, "isolated", lambda: False)
    assert str(exercises.check(exercise.name, answer)) == str(first)


@pytest.mark.parametrize(("exercise", "wrong"), NAMED)
def test_every_named_wrong_answer_is_refused_with_its_own_message(exercise, wrong, monkeypatch):
    verdict = exercises.check(exercise.name, wrong.answer)
    assert verdict.outcome == "failed" and wrong.en in verdict.message, verdict
    monkeypatch.setenv("TUTORLIB_LANG", "zh")
    assert wrong.zh in exercises.check(exercise.name, wrong.answer).message


@each
def test_an_exercise_speaks_both_languages_and_lies_in_its_own_module(exercise):
    texts = [*exercise.hints, *((wrong.en, wrong.zh) for wrong in exercise.wrong)]
    assert exercise.wrong, "name at least one wrong answer"
    for english, chinese in texts:
        assert english.isascii(), english
        assert any("\u4e00" <= character <= "\u9fff" for character in chinese), chinese
    assert exercise.name in exercises._exercises(exercise.name[:2])


@pytest.mark.parametrize("path", lessons.sources(), ids=lambda path: path.stem)
def test_source_and_content_have_the_same_exercises(path):
    in_source = {one.name for one in lessons.exercises(lessons.parse(path))}
    assert in_source == {exercise.name for exercise in EVERY if exercise.name[:2] == path.stem[:2]}


# --- Verdicts ------------------------------------------------------------------------------------------------------------


def right(n):
    return n + n


def squares(n):
    print("x" * 10_000_000)
    return n**2


def odd_one(n):
    return 7 if n == 5 else 2 * n


def raises_late(n):
    if n > 3:
        raise ValueError(f"no {n}\nand more")
    return 2 * n


def exits(n):
    sys.exit("bye")


def exits_hard(n):
    os._exit(3)


def loops(n):
    while n > 2:
        pass
    return 2 * n


def asks(n):
    return input("your name?")


VERDICTS = [
    (right, "passed", "99_double: passed (10 cases)"),
    (lambda n: n + 2, "failed", "99_double: not yet. That adds two.\ncase       expected  found\ndouble(0)  0         2"),
    (squares, "failed", "99_double: not yet. That squares.\ncase        expected  found\nsquares(1)  2         1"),
    (lambda n: 0 // 0, "failed", "That divides by zero."),
    (
        odd_one,
        "failed",
        '99_double: not yet. This case differs; exercises.hint("99_double") helps.\n'
        "case        expected  found\nodd_one(5)  10        7",
    ),
    (raises_late, "error", 'your answer raised ValueError: no 4 (line {}: raise ValueError(f"no {{n}}\\nand more"))'),
    (exits, "error", 'your answer raised SystemExit: bye (line {}: sys.exit("bye"))'),
    (
        exits_hard,
        "error",
        "your answer ended its process with exit code 3\ncase           expected  found\nexits_hard(0)  0         nothing",
    ),
    (loops, "error", "stopped after 1 s: does it loop forever?\ncase      expected  found\nloops(3)  6         nothing"),
    (asks, "error", "EOFError: input() has nobody to ask while an answer is checked"),
    (lambda: 1, "error", "takes 0 positional arguments but 1 was given"),
    (5, "failed", "double  0         5"),
]


@pytest.mark.parametrize(("answer", "outcome", "text"), VERDICTS, ids=[str(n) for n in range(len(VERDICTS))])
def test_a_verdict_reads_the_same_in_both_places(toys, place, capfd, answer, outcome, text):
    if "{}" in text:
        text = text.replace("{}", str(answer.__code__.co_firstlineno + (2 if answer is raises_late else 1))).replace(
            "{{n}}", "{n}"
        )
    before = os._exit, builtins.input, sys.stdout, torch.get_rng_state().tolist()
    verdict = exercises.check("99_double", answer, limit=1)
    assert verdict.outcome == outcome
    assert text in str(verdict)
    assert verdict.passed == (outcome == "passed")
    assert capfd.readouterr() == ("", "")
    assert before == (os._exit, builtins.input, sys.stdout, torch.get_rng_state().tolist())


def crashes(n):
    return ctypes.string_at(0)


def hoards(n):
    return len(bytearray(8 * 2**30))


def hoards_tensors(n):
    return torch.zeros(2**32).sum()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (crashes, "99_double: your answer crashed its process\ncase        expected  found\ncrashes(0)  0         nothing"),
        (hoards, "your answer raised MemoryError: more than 2 GB (line"),
        (hoards_tensors, "your answer raised MemoryError: more than 2 GB (line"),
    ],
)
def test_a_crash_and_too_much_memory_stay_in_the_child(toys, answer, text):
    assert text in str(exercises.check("99_double", answer))


def test_what_an_answer_started_ends_with_it(toys):
    def starts_workers(size):
        iterator = iter(DataLoader(range(64), num_workers=2))
        next(iterator)
        os._exit(0)

    before = set(psutil.Process().children(recursive=True))
    groups = []
    real = limits._end_group
    limits._end_group = lambda process: (groups.append(process.pid), real(process))
    try:
        verdict = exercises.check("99_loader", starts_workers)
    finally:
        limits._end_group = real
    assert "ended its process with exit code 0" in str(verdict)
    deadline = time.monotonic() + 5
    while any(os.getpgid(pid) in groups for pid in psutil.pids() if psutil.pid_exists(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(psutil.Process().children(recursive=True)) == before
    with pytest.raises(ProcessLookupError):
        os.killpg(groups[0], 0)


class Halves(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index


class Broken(Halves):
    def __getitem__(self, index):
        raise KeyError(f"no sample {index}")


def test_a_real_loader_with_workers_runs_inside_of_a_check(toys, place):
    list(DataLoader(Halves(), num_workers=1))  # the kernel itself has used workers before
    assert exercises.check("99_loader", lambda size: DataLoader(Halves(), batch_size=2, num_workers=2)).passed


def test_an_error_in_a_worker_is_reported_by_its_own_last_line(toys, place):
    verdict = exercises.check("99_loader", lambda size: DataLoader(Broken(), batch_size=2, num_workers=1))
    assert "your answer raised KeyError: 'no sample 0' (line" in str(verdict)
    assert 'raise KeyError(f"no sample {index}")' in str(verdict)
    assert multiprocessing.active_children() == []


def test_backward_works_in_a_check_after_it_was_used_in_the_kernel(toys, place):
    def trains(n):
        x = torch.ones(300, 300, requires_grad=True)
        (x @ x).sum().backward()
        return 2 * n if x.grad is not None else None

    assert trains(1) == 2
    assert exercises.check("99_double", trains).passed


def test_the_time_limit_is_kept_and_can_be_set(toys, place):
    start = time.monotonic()
    verdict = exercises.check("99_double", lambda n: time.sleep(60), limit=0.3)
    assert "stopped after 0.3 s" in str(verdict)
    assert time.monotonic() - start < 5


def test_an_interrupt_by_the_learner_is_passed_on(toys, monkeypatch):
    monkeypatch.setattr(limits, "isolated", lambda: False)

    def interrupted(n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("99_double", interrupted)


def test_a_law_that_asks_nothing_is_an_error_of_its_author(toys, place):
    with pytest.raises(RuntimeError, match="the law of 99_silent asked nothing"):
        exercises.check("99_silent", right)


def test_a_value_and_a_class_can_be_answers(toys, place):
    class Pairs:
        def __init__(self, size):
            self.size = size

        def __len__(self):
            return self.size

        def __iter__(self):
            return ((n, n) for n in range(self.size))

    class Lists(Pairs):
        def __iter__(self):
            return ([n, n] for n in range(self.size))

    assert exercises.check("99_value", [1, 2]).passed
    assert exercises.check("99_value", numpy.array([1, 2])).passed
    assert str(exercises.check("99_value", (1, 2))).endswith("value  [1, 2]    (1, 2)")
    assert exercises.check("99_pairs", Pairs).passed
    assert "list(Pairs(1))  [(0, 0)]  [[0, 0]]" in str(exercises.check("99_pairs", Lists))


def test_an_unknown_name_is_one_clear_line(toys):
    with pytest.raises(ValueError, match=r"^no exercise is called '99_duoble': did you mean '99_double'\?$"):
        exercises.check("99_duoble", right)
    with pytest.raises(ValueError, match=r"^no exercise is called 'x': there are: 99_double, 99_pairs, "):
        exercises.hint("x")


# --- Not attempted -------------------------------------------------------------------------------------------------------


def only_dots(n): ...


def only_words(n):
    """Says what to do."""


def only_pass(n):
    pass


def returns_dots(n):
    return ...


def not_implemented(n):
    raise NotImplementedError("your turn")


def dots_inside(n):
    value = ...
    return value


class AllEmpty:
    """Says what to do."""

    def __len__(self): ...

    @property
    def size(self):
        """How many."""


class NothingYet(Dataset):
    """Says what to do."""

    ...


class HalfDone:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __iter__(self): ...


@pytest.mark.parametrize(
    "answer",
    [
        None,
        ...,
        [1, ...],
        {"a": ...},
        only_dots,
        only_words,
        only_pass,
        returns_dots,
        not_implemented,
        dots_inside,
        AllEmpty,
        NothingYet,
    ],
    ids=lambda answer: getattr(answer, "__name__", str(answer)),  # not its address: two pytest workers must agree
)
def test_an_empty_answer_is_not_attempted(toys, answer):
    verdict = exercises.check("99_double", answer)
    assert verdict.outcome == "not attempted"
    assert str(verdict).startswith("99_double: not attempted: ")
    assert verdict.rows() == []


def test_a_half_written_class_is_told_what_is_missing(toys):
    assert "not attempted: __iter__ is still to be written" in str(exercises.check("99_pairs", HalfDone))


def test_an_index_with_dots_and_an_empty_init_are_no_gaps(toys):
    def last(n):
        return numpy.array([[n, 2 * n]])[..., -1][0]

    def wrong_last(n):
        return numpy.array([[n, 2 * n]])[..., 0][0]

    class EmptyInit:
        def __init__(self, size):
            pass

        def __len__(self):
            return 7

    assert exercises.check("99_double", last).passed
    assert exercises.check("99_double", wrong_last).outcome == "failed"
    assert exercises.check("99_pairs", EmptyInit).outcome == "failed"


def test_zero_and_false_are_answers(toys):
    assert exercises.check("99_value", 0).outcome == "failed"
    assert exercises.check("99_double", lambda n: 0).outcome == "failed"


# --- Ask -----------------------------------------------------------------------------------------------------------------


def asking(answer=right):
    notes = []
    return Ask(answer, "right", "99_x", lambda *note: notes.append(note)), notes


def ended(notes):
    return [(case, ok) for case, _, found, ok in notes if not (found is ... and ok)]


def test_cases_are_different_smallest_first_and_the_same_every_time():
    draws = [asking()[0].cases(50, range(30), lambda random: random.choice("ab")) for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == len(draws[0]) <= 50
    assert [len(repr(case)) for case in draws[0]] == sorted(len(repr(case)) for case in draws[0])
    assert all(type(case) is int for case in asking()[0].cases(5, range(3)))


def test_the_draws_are_the_same_on_every_machine():
    assert asking()[0].cases(6, range(100), range(100)) == DRAWN


DRAWN = [(27, 58), (31, 13), (75, 62), (76, 96), (81, 10), (96, 83)]


def test_a_case_is_named_by_its_call():
    ask, notes = asking()
    assert ask(right, 3).gives(6) == 6
    assert ask(right, n=numpy.float32(1.5), then=str).gives("3.0") == "3.0"
    ask(list, range(2), case="two").gives([0, 1])
    assert ended(notes) == [("right(3)", True), ("right(n=1.5)", True), ("two", True)]
    with pytest.raises(TypeError, match=r"name the case with case=\.\.\., since this is not the answer itself"):
        ask(list, range(2))


def test_satisfies_and_raises():
    ask, notes = asking()
    ask(right, 3).satisfies(lambda found: found > 5, "a number above 5")
    ask(right, 1).satisfies(lambda found: found > 5, "a number above 5")
    ask(int, "x", case="int('x')").raises(ValueError, "invalid literal")
    ask(int, "x", case="wrong words").raises(ValueError, "no such words")
    ask(int, "x", case="wrong type").raises(KeyError)
    ask(int, "3", case="nothing raised").raises(ValueError)
    assert [ok for _, ok in ended(notes)] == [True, False, True, False, False, False]
    assert [str(expected) for _, expected, found, ok in notes if not ok] == [
        "a number above 5",
        "ValueError: ... no such words ...",
        "KeyError",
        "ValueError",
    ]


def test_a_law_may_refuse_by_itself(toys, place, monkeypatch):
    def law(answer, ask):
        raise Refused("the whole", [1, 2.5], {"a": (1,)})

    alone = Exercise("99_alone", law, hints=HINTS)
    monkeypatch.setattr(exercises, "_exercises", lambda number: {"99_alone": alone})
    assert str(exercises.check("99_alone", right)).splitlines()[1:] == [
        "case       expected  found",
        "the whole  [1, 2.5]  {'a': (1,)}",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "3_x"}, "a name is two digits, an underscore and a lower-case identifier, such as '03_share'"),
        ({"hints": HINTS[:1]}, "1 hints, expected 2 or 3"),
        ({"hints": [("only english",), ("a", "b")]}, r"expected the text twice, \(english, chinese\), found \('only english',\)"),
        ({"wrong": [Wrong(1, "said", " ")]}, r"found \('said', ' '\)"),
    ],
)
def test_a_bad_declaration_says_what_is_expected(change, message):
    with pytest.raises(ValueError, match=message):
        Exercise(**{"name": "99_x", "law": double_law, "hints": HINTS, **change})


# --- Comparing -----------------------------------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None)
@given(plain_values)
def test_a_value_is_the_same_as_itself_and_has_a_one_line_text(value):
    assert exercises._same(value, value)
    text = exercises._text(value)
    assert "\n" not in text and len(text) <= 160


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=2, max_size=2), min_size=1, max_size=4))
def test_tensors_and_arrays_are_their_numbers(numbers):
    for other in (torch.tensor(numbers), numpy.array(numbers), torch.tensor(numbers, dtype=torch.float32)):
        assert exercises._same(numbers, other) and exercises._same(other, numbers)
        assert not exercises._same([numbers], other)
        assert exercises._same({"a": (other,)}, {"a": (numbers,)})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1, 2], (1, 2), False),
        (1, True, False),
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (0.1, torch.tensor(0.1), True),
        (float("nan"), float("nan"), True),
        (1000001, 1000000, False),
        (torch.Size([2, 3]), [2, 3], True),
        ((2, 3), torch.Size([2, 3]), True),
        (OrderedDict(a=1, b=2), {"b": 2, "a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        (range(3), [0, 1, 2], True),
        ({1: 2}.keys(), [1], True),
        ({1, 2}, {2, 1}, True),
        ("1", 1, False),
        (None, 0, False),
        (torch.float32, "float32", False),
        (object(), object(), False),
    ],
)
def test_what_is_the_same(one, other, same):
    assert exercises._same(one, other) is same
    assert exercises._same(other, one) is same


# --- Predict -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "real", "agrees"),
    [
        (..., 3, None),
        ([1, ...], [1, 2], None),
        (None, None, True),
        ([0, 1], torch.tensor([0, 1]), True),
        ([0, 1], (0, 1), False),
        ("TypeError", TypeError("no len()"), True),
        (TypeError, TypeError("no len()"), True),
        (ValueError, TypeError("no len()"), False),
        ("float32", torch.float32, True),
        ("torch.float32", torch.float32, True),
        ("cpu", torch.device("cpu"), True),
        ("list", list, True),
        ("a", "b", False),
    ],
)
def test_predict(mine, real, agrees):
    prediction = exercises.predict(mine, torch=real)
    assert prediction.agrees is agrees
    assert [row["who"] for row in prediction.rows()] == ["you", "torch"]
    first = {True: "your prediction agrees with torch", False: "your prediction differs from torch", None: "no prediction yet: "}
    assert str(prediction).startswith(first[agrees])


def test_a_prediction_shows_both_sides_as_python_would():
    assert str(exercises.predict([True, "a", 0.1], torch=torch.tensor([1.0, 2.5]))).splitlines()[1:] == [
        "who    value",
        "you    [True, 'a', 0.1]",
        "torch  [1, 2.5]",
    ]


# --- What must not stand in a text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Halves(), "<test_exercises.Halves>"),
        (iter([]), "<list_iterator>"),
        (Halves, "Halves"),
        (right, "right"),
        ("x" * 500, "'" + "x" * 155 + " ..."),
        (
            exercises._Words("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
            "DataLoader worker (pid(s) ...) exited unexpectedly",
        ),
        (exercises._Words("File /tmp/ipykernel_123/456.py is"), "File cell is"),
        ({3, 1, 2}, "{1, 2, 3}"),
    ],
)
def test_texts_hold_nothing_of_this_run(value, text):
    assert exercises._text(value) == text


def test_an_answer_whose_repr_raises_is_shown_all_the_same(toys, place):
    class Shy:
        def __repr__(self):
            raise RuntimeError

    assert "<Shy whose repr raises RuntimeError>" in str(exercises.check("99_double", lambda n: Shy()))


# --- Hints, solutions, languages -----------------------------------------------------------------------------------------


def test_hints_come_one_by_one_and_the_last_one_stays(toys):
    texts = [str(exercises.hint("99_double")) for _ in range(3)]
    assert texts[0] == "99_double, hint 1 of 2: think"
    assert texts[1].startswith("99_double, hint 2 of 2: think more That was the last one; exercises.solution(")
    assert texts[2] == texts[1]
    assert str(exercises.hint("99_pairs")).startswith("99_pairs, hint 1 of 2")


def test_chinese_messages(toys, monkeypatch):
    monkeypatch.setenv("TUTORLIB_LANG", "zh_CN")
    said = [
        exercises.check("99_double", right),
        exercises.check("99_double", ...),
        exercises.check("99_double", odd_one),
        exercises.check("99_double", raises_late),
        exercises.check("99_double", lambda n: n + 2),
        exercises.hint("99_double"),
        exercises.progress(),
        exercises.predict(1, torch=2),
        exercises.solution("99_pairs"),
    ]
    assert all(any("\u4e00" <= c <= "\u9fff" for c in text.summary()) for text in said)
    assert "那是加二。" in said[4].message and "情况" in str(said[4])


def test_every_message_has_two_languages_with_the_same_fields():
    import string

    for english, chinese in exercises._WORDS.values():
        fields = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in (english, chinese)]
        assert fields[0] == fields[1]
        assert english.isascii() and not chinese.isascii()


def test_a_solution_is_shown_after_passing_or_giving_up():
    name = EVERY[0].name
    assert exercises.solution(name).source is None
    assert f'exercises.solution("{name}", give_up=True)' in str(exercises.solution(name))
    shown = exercises.solution(name, give_up=True)
    assert shown.source == Notebook(name).exercise.solution
    assert str(shown).endswith(shown.source) and "<pre><code>" in shown._repr_html_()
    assert exercises.progress(name[:2]).states[name] == "solution shown"
    assert exercises.solution(name).source == shown.source


# --- Progress ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path, monkeypatch):
    (tmp_path / ".tutorlib").mkdir()
    (tmp_path / "en").mkdir()
    monkeypatch.chdir(tmp_path / "en")
    return tmp_path / ".tutorlib" / "progress.json"


def test_without_a_working_copy_progress_is_kept_in_memory(toys, tmp_path):
    exercises.check("99_double", right)
    assert str(exercises.progress()).splitlines() == [
        "1 of 5 exercises passed",
        "lesson  title  minutes  passed  exercises",  # a lesson without a source has no title
        "99          -        -       1          5",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("language", lessons.LANGUAGES)
def test_the_map_leads_to_every_lesson(copy, monkeypatch, language):
    (copy.parent.parent / language).mkdir(exist_ok=True)
    monkeypatch.chdir(copy.parent.parent / language)
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', exercises.progress()._repr_html_())
    books = [lessons.find_root() / language / address for address, _ in links]
    assert [book.name[:2] for book in books] == list(lessons.numbers()) and all(book.is_file() for book in books)
    for book, (_, title) in zip(books, links, strict=True):
        first = json.loads(book.read_text(encoding="utf-8"))["cells"][0]["source"]
        assert html.unescape(title) == "".join(first).splitlines()[0].removeprefix(f"# {book.name[:2]} · ").replace("`", "")


def test_progress_lies_in_the_working_copy(toys, copy, monkeypatch):
    exercises.check("99_double", right)
    exercises.check("99_pairs", HalfDone)
    assert json.loads(copy.read_text()) == {"exercises": {"99_double": "passed"}}
    monkeypatch.setattr(exercises, "_session", {})  # another kernel, another day
    assert exercises.progress(99).states == {toy.name: "passed" if toy.name == "99_double" else "open" for toy in TOYS}
    exercises.check("99_double", odd_one)
    assert exercises.progress("99").passed == 1
    assert str(exercises.progress("99")).splitlines()[:3] == ["1 of 5 exercises passed", "exercise   state", "99_double  passed"]


def test_progress_of_a_lesson_without_exercises(toys):
    with pytest.raises(ValueError, match="lesson '98' has no exercises; lessons that have: 99"):
        exercises.progress("98")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"exercises": [1]}', b'{"exercises": {"a": 1}}', b"[" * 99999]
)
def test_a_damaged_record_is_set_aside(toys, copy, content):
    copy.write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"^progress.json was damaged: it is set aside as progress.damaged.json, and progress starts anew$"
    ):
        assert exercises.check("99_double", right).passed
    assert copy.with_name("progress.damaged.json").read_bytes() == content
    assert exercises.progress().passed == 1


def test_a_record_that_cannot_be_written_costs_one_warning(toys, copy):
    copy.mkdir()
    with pytest.warns(UserWarning) as said:
        assert exercises.check("99_double", right).passed
    assert [str(one.message).split(":")[0] for one in said][-1] == "your progress is kept only until this kernel ends"
    assert len(said) <= 2


WRITER = """
import sys
from tutorlib import exercises
for number in range(40):
    exercises._store(f"{sys.argv[1]}_{number}", "passed")
"""


def test_kernels_at_the_same_time_lose_nothing(copy):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(n)], cwd=copy.parent.parent) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(json.loads(copy.read_text())["exercises"]) == 120
    assert {path.name for path in copy.parent.iterdir()} == {"progress.json", "progress.lock"}


# --- In a real kernel ----------------------------------------------------------------------------------------------------


def test_a_kernel_survives_what_an_answer_does(tmp_path):
    sources = [
        "import os, torch\nfrom tutorlib.exercises import check\nalive = os.getpid()",
        "def steps(samples, size):\n    while True:\n        print('x' * 1000)\ncheck('00_steps', steps, limit=1)",
        "def steps(samples, size):\n    os._exit(1)\ncheck('00_steps', steps)",
        "def steps(samples, size):\n    return 1 / 0\ncheck('00_steps', steps)",
        "def steps(samples, size):\n    display(1)\n    return -(-samples // size)\ncheck('00_steps', steps)",
        "alive == os.getpid()",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(book, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [[output.get("data", output)["text/plain"] for output in cell.outputs] for cell in book.cells]
    assert said[0] == [] and [len(outputs) for outputs in said[1:]] == [1, 1, 1, 1, 1]
    assert said[1][0].startswith("00_steps: stopped after 1 s: does it loop forever?\n")
    assert said[2][0].startswith("00_steps: your answer ended its process with exit code 1\n")
    assert said[3][0].startswith("00_steps: your answer raised ZeroDivisionError: division by zero (line 2: return 1 / 0)\n")
    assert said[4][0].startswith("00_steps: passed")
    assert said[5] == ["True"]


def test_the_engine_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'jupytext', 'nbformat', 'IPython'}"
    script = f"import sys, tutorlib.exercises; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_messages_follow_the_folder_of_the_notebook_then_the_environment(tmp_path, monkeypatch):
    (tmp_path / ".tutorlib").mkdir()
    for language in ("en", "zh"):
        (tmp_path / language).mkdir()
    first = exercises.predict(..., torch=1).summary()
    monkeypatch.chdir(tmp_path / "zh")  # an English lab, and a click on the link to the Chinese notebook
    monkeypatch.setenv("TUTORLIB_LANG", "en")
    chinese = exercises.predict(..., torch=1).summary()
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    monkeypatch.chdir(tmp_path / "en")
    monkeypatch.setenv("TUTORLIB_LANG", "zh")
    assert exercises.predict(..., torch=1).summary() == first
    monkeypatch.chdir(tmp_path)
    assert exercises.predict(..., torch=1).summary() == chinese
