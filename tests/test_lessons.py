"""From one source to two executed notebooks, a learner's copy and the ledger; and what each of them refuses."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import conftest
import nbformat
import nbformat.v4 as v4
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutorlib import lessons
from tutorlib.lessons import LessonError

SOURCE = conftest.SOURCE


def source(root: Path, text: str, name: str = "00_tiny") -> Path:
    path = root / "src" / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# Finding ---------------------------------------------------------------------------------------------------------------


def test_the_notebooks_of_the_clone_are_found():
    assert lessons.find_root().name == "notebooks"


def test_a_folder_without_lessons_is_refused(tmp_path):
    with pytest.raises(LessonError, match=r"no folder src/ with lessons here; expected a clone's notebooks/ folder"):
        lessons.find_root(tmp_path)


def test_numbers_have_many_spellings(tiny):
    source(tiny, SOURCE, "07_other")
    assert lessons.numbers(None, tiny) == ("00", "07")
    for spelling in (7, "7", "07", "07_other", "notebooks/src/07_other.py"):
        assert lessons.numbers([spelling], tiny) == ("07",)
    assert lessons.numbers([7, "00", "7"], tiny) == ("00", "07")


@pytest.mark.parametrize("wrong", ["42", 42, "tiny", "", "0x", "0.5", "-0", "000", "00x"])
def test_a_lesson_that_does_not_exist_is_named(tiny, wrong):
    said = re.escape(str(wrong)) or "''"
    with pytest.raises(LessonError, match=rf"^no lesson {said}: expected one of 00$"):
        lessons.numbers([wrong], tiny)


def test_no_lessons_yet(tmp_path):
    (tmp_path / "src").mkdir()
    assert lessons.numbers(None, tmp_path) == ()
    with pytest.raises(LessonError, match="no lesson 01: expected one of none, there are no lessons yet"):
        lessons.numbers(["01"], tmp_path)


# Parsing ---------------------------------------------------------------------------------------------------------------


def test_a_lesson_is_read(tiny):
    one = lessons.lesson(0, tiny)
    assert (one.number, one.topic, one.name, one.minutes) == ("00", "tiny", "00_tiny", 5)
    assert one.title == {"en": "A tiny lesson", "zh": "小课"} and one.sections == ("000: 0. Tiny",)
    assert [c.is_code for c in one.cells] == [False] + [True] * 13 + [False]
    assert one.cells[0].en.startswith("# 00 · A tiny") and one.cells[0].zh.startswith("# 00 · 小课")
    assert one.code[1].tags == ("raises-exception", "claim:TI-01") and one.code[1].tagged("claim") == ("TI-01",)
    lines = SOURCE.splitlines()
    assert all(lines[c.line - 1].startswith("# %%") for c in one.cells)
    assert str(one).startswith("lesson 00: A tiny lesson (5 minutes)\nline  kind  tags")


def test_ids_come_from_the_source_and_are_unique(tiny):
    one = lessons.lesson(0, tiny)
    again = SOURCE.replace('print("ready")', 'print("ready!")') + '\n# %%\nprint("x")\n\n# %%\nprint("x")\n'
    other = lessons.parse(source(tiny, again))
    assert len({c.id for c in other.cells}) == len(other.cells)
    assert other.cells[-1].id == f"{other.cells[-2].id}-2"
    assert [c.id for c in one.cells if c.source != one.code[0].source] == [
        c.id for c in other.cells[:-2] if c.source != other.code[0].source
    ]
    assert one.code[0].id != other.code[0].id


def test_magics_are_code(tiny):
    text = SOURCE.replace('print("ready")', '# %load_ext tutorlib.cells\nprint("ready")')
    text += "\n# %%\n# %%importable shapes\nclass Shape:\n    pass\n"
    one = lessons.parse(source(tiny, text))
    assert "%load_ext tutorlib.cells" in one.code[0].source.splitlines()
    assert one.code[-1].source.startswith("%%importable shapes\nclass Shape:")


def test_a_folded_cell_shows_its_first_line_until_it_is_opened(tiny):
    one = lessons.parse(source(tiny, SOURCE + '\n# %% tags=["folded"]\n# Draws.\nprint(1)\n'))
    *others, folded = [cell.metadata for cell in one.notebook("zh").cells if cell.cell_type == "code"]
    assert folded == {"tags": ["folded"], "jupyter": {"source_hidden": True}}
    assert not any("jupyter" in other for other in others)


def test_a_line_that_goes_on_with_an_operator_is_no_magic(tiny):
    one = lessons.parse(source(tiny, SOURCE + "\n# %%\nprint(\n    1\n    != 2,\n    7\n    % 4,\n)\n"))
    assert one.code[-1].source.splitlines()[2:5] == ["    != 2,", "    7", "    % 4,"]


BROKEN = {
    "no header": (lambda s: s.split("# ---\n")[2], r"no `tutorlib:` in the header; expected title: \{en, zh\}, sections"),
    "header is no yaml": (
        lambda s: s.replace("title: {en", "title: [{en"),
        r"00_tiny\.py: the header is no YAML of names and values: ",
    ),
    "header is a list": (lambda s: s.replace("# jupyter:\n", "# jupyter: [a]\n# more:\n"), r"no `tutorlib:` in the header"),
    "header is a number": (
        lambda s: re.sub(r"(?s)# ---\n.*# ---\n", "# ---\n# 3\n# ---\n", s, count=1),
        r"00_tiny\.py: the header is no YAML of names and values: ",
    ),
    "title in one language": (
        lambda s: s.replace(', zh: "小课"}', "}"),
        r"header title is .*'en': 'A tiny lesson'.*, expected \{en: text, zh: text\}",
    ),
    "minutes as text": (
        lambda s: s.replace("minutes: 5", "minutes: about 5"),
        r"header minutes is 'about 5', expected a whole number such as 45",
    ),
    "sections as text": (
        lambda s: s.replace('["000: 0. Tiny"]', '"000: 0. Tiny"'),
        r"header sections is '000: 0. Tiny', expected a list of texts",
    ),
    "en alone": (
        lambda s: s.replace('# %% [markdown] lang="zh"\n# # 00', '# %%\n"x"\n# # 00'),
        r"line 10: a text in en without zh; expected `# %% \[markdown\] lang=\"zh\"` directly after it",
    ),
    "en at the end": (lambda s: s + '\n# %% [markdown] lang="en"\n# more\n', r"line \d+: a text in en without zh"),
    "zh alone": (lambda s: s + '\n# %% [markdown] lang="zh"\n# 更多\n', r"line \d+: a text in zh without en"),
    "no language": (lambda s: s + "\n# %% [markdown]\n# more\n", r"line \d+: a text with lang None; expected"),
    "empty text": (
        lambda s: s + '\n# %% [markdown] lang="en"\n\n# %% [markdown] lang="zh"\n# 更多\n',
        r"line \d+: an empty text; write it or take it out",
    ),
    "code with a language": (
        lambda s: s + '\n# %% lang="en"\nx = 1\n',
        r"line \d+: a code cell with lang 'en'; code is the same in both",
    ),
    "tags as text": (
        lambda s: s + '\n# %% tags="predict"\nx = 1\n',
        r"not a jupytext percent file: 'predict' is not of type 'array'",
    ),
    "empty code": (lambda s: s + "\n# %%\n\n# %%\nx = 1\n", r"line \d+: an empty code cell; write it or take it out"),
    "a raw cell": (lambda s: s + "\n# %% [raw]\n# x\n", r"line \d+: a raw cell; expected code or markdown"),
    "a syntax error": (
        lambda s: s + "\n# %%\nx = 1\ny = = 2\n",
        r"SyntaxError: invalid syntax: 'y = = 2'; nothing was run or written",
    ),
    "a syntax error in a module cell": (
        lambda s: s + "\n# %%\n# %%importable shapes\nclass Shape\n",
        r"SyntaxError: expected ':': 'class Shape'",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_source_is_one_clear_error_and_nothing_is_touched(executed, kind):
    change, message = BROKEN[kind]
    source(executed, change(SOURCE))
    before = contents(executed)
    with pytest.raises(LessonError, match=message) as caught:
        lessons.refresh(root=executed)
    assert str(caught.value).startswith("00_tiny.py") and "\n" not in str(caught.value)
    assert contents(executed) == before


def test_a_syntax_error_names_its_line_in_the_file(tiny):
    path = source(tiny, SOURCE + "\n# %%\nx = 1\ny = = 2\n")
    line = path.read_text(encoding="utf-8").splitlines().index("y = = 2") + 1
    with pytest.raises(LessonError, match=rf"^00_tiny.py, line {line}: SyntaxError"):
        lessons.parse(path)


def test_a_cell_that_shows_a_syntax_error_may_hold_one(tiny):
    one = lessons.parse(source(tiny, SOURCE + '\n# %% tags=["raises-exception"]\ny = = 2\n'))
    assert one.code[-1].source == "y = = 2"


# Exercises and the learner's copy -----------------------------------------------------------------------------------------


def test_exercises_have_a_starter_and_a_solution(tiny):
    (exercise,) = lessons.exercises(lessons.lesson(0, tiny))
    assert (exercise.name, exercise.cell) == ("00_three", 11)
    assert exercise.starter == "def three():\n    return None"
    assert exercise.solution == "def three():\n    return 3"


def test_an_exercise_may_be_tagged_with_its_full_name(tiny):
    one = lessons.parse(source(tiny, SOURCE.replace("exercise:three", "exercise:00_three")))
    assert [e.name for e in lessons.exercises(one)] == ["00_three"]


def test_an_exercise_without_a_solution_is_refused(tiny):
    one = lessons.parse(source(tiny, SOURCE.replace("# solution\n", "# the solution\n")))
    with pytest.raises(LessonError, match=r"00_tiny.py, line \d+: exercise three has no line `# solution` that ends the starter"):
        lessons.exercises(one)


def test_a_learner_gets_no_solutions_and_no_outputs(executed):
    book = nbformat.read(executed / "zh" / "00_tiny.ipynb", as_version=4)
    before = lessons.text_of(book)
    copy = lessons.learner(book)
    assert lessons.text_of(book) == before, "the argument was changed"
    assert len(copy.cells) == len(book.cells)
    for mine, theirs in zip(copy.cells, book.cells, strict=True):
        assert mine.id == theirs.id
        if mine.cell_type == "code":
            assert mine.outputs == [] and mine.execution_count is None
            assert "return 3" not in mine.source and "# solution" not in mine.source
            if "# solution" not in theirs.source:
                assert mine.source == theirs.source
    assert "我" not in lessons.text_of(copy) and "小结" in lessons.text_of(copy)


@given(
    st.lists(st.sampled_from(["x = 1", "# solution", "    # solution", "# solution here", "", "print('# solution')"]), max_size=8)
)
def test_only_a_line_that_is_exactly_the_mark_ends_the_starter(lines):
    book = v4.new_notebook(cells=[v4.new_code_cell("\n".join(lines))])
    (cell,) = lessons.learner(book).cells
    expected = lines[: lines.index("# solution")] if "# solution" in lines else lines
    kept = "\n".join(expected)
    assert cell.source == (kept.rstrip() if "# solution" in lines else kept)


# Executing ------------------------------------------------------------------------------------------------------------


def test_both_notebooks_come_from_one_run(executed):
    en, zh = (json.loads((executed / lang / "00_tiny.ipynb").read_text(encoding="utf-8")) for lang in lessons.LANGUAGES)
    assert [c["id"] for c in en["cells"]] == [c["id"] for c in zh["cells"]]
    for a, b in zip(en["cells"], zh["cells"], strict=True):
        assert (a == b) is (a["cell_type"] == "code")
    assert "小课" in "".join(zh["cells"][0]["source"]) and "小课" not in "".join(en["cells"][0]["source"])
    assert [c["execution_count"] for c in en["cells"] if c["cell_type"] == "code"] == list(range(1, 14))


def test_stored_notebooks_hold_nothing_of_the_machine(executed):
    for language in lessons.LANGUAGES:
        text = (executed / language / "00_tiny.ipynb").read_text(encoding="utf-8")
        book = json.loads(text)
        assert set(book["metadata"]) == {"kernelspec", "language_info", "tutorlib"}
        assert book["metadata"]["kernelspec"]["name"] == "python3" and "version" not in book["metadata"]["language_info"]
        assert book["metadata"]["tutorlib"] == {"language": language, "lesson": "00_tiny"}
        assert "widget-view" not in text and "model_id" not in text and "iopub" not in text and "\\u001b" not in text
        assert {key for c in book["cells"] for key in c["metadata"]} == {"tags"}
        nbformat.validate(book)


def test_a_second_refresh_changes_no_byte(executed):
    before = contents(executed)
    told = []
    done = lessons.refresh([0], root=executed, progress=lambda number, state, seconds: told.append((number, state)))
    assert contents(executed) == before
    assert told == [("00", "running"), ("00", "unchanged")]
    assert str(done) == "1 lesson executed, 0 written\nlesson   notebooks  code cells\n00_tiny  unchanged          13"
    assert done.seconds["00"] > 0


KERNEL = (
    SOURCE.split("# %%")[0]
    + """# %%
import os, sys
from pathlib import Path
print(os.listdir("."))
print([name for name in os.environ if name.startswith(("TUTORLIB", "PYTEST", "COLUMNS", "LINES"))])
print(os.environ["PYTHONHASHSEED"], sys.executable == EXECUTABLE)
Path("left_here.txt").write_text("x")
import tutorlib
"""
)


def test_a_lesson_runs_in_a_clean_empty_place(tiny, monkeypatch):
    monkeypatch.setenv("TUTORLIB_LANG", "zh")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    source(tiny, KERNEL.replace("EXECUTABLE", repr(sys.executable)))
    here = sorted(Path.cwd().iterdir())
    lessons.refresh(root=tiny, jobs=1)
    book = nbformat.read(tiny / "en" / "00_tiny.ipynb", as_version=4)
    assert book.cells[0].outputs[0].text == "[]\n[]\n0 True\n"
    assert sorted(Path.cwd().iterdir()) == here and os.environ["TUTORLIB_LANG"] == "zh"


FAILING = {
    "a cell raises": ('"x" + 1\n', r"cell \[14\] `\"x\" \+ 1` raised TypeError: can only concatenate str"),
    "a cell ends the kernel": ("import os\nos._exit(3)\n", r"cell \[14\] `import os` ended the kernel"),
    "nothing raised": ("print(1)\n", r"cell \[14\] `print\(1\)` is tagged raises-exception but raised nothing"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_failing_cell_is_one_clear_error_and_the_old_notebooks_stay(executed, kind):
    code, message = FAILING[kind]
    tags = ' tags=["raises-exception"]' if kind == "nothing raised" else ""
    source(executed, f"{SOURCE}\n# %%{tags}\n{code}")
    before = contents(executed)
    told = []
    with pytest.raises(LessonError, match=rf"^00_tiny\.py, line \d+, {message}.*; old notebooks kept$"):
        lessons.refresh(root=executed, progress=lambda number, state, seconds: told.append(state))
    assert contents(executed) == before and told == ["running", "failed"]


def test_a_cell_without_end_is_stopped(executed, monkeypatch):
    monkeypatch.setattr(lessons, "CELL_SECONDS", 1)
    # The only cell: a busy machine may need more than the second for the imports of another.
    source(executed, SOURCE.split("# %%")[0] + "# %%\nwhile True:\n    pass\n")
    before = contents(executed)
    with pytest.raises(LessonError, match=r"cell \[1\] `while True:` did not end within 1 s; old notebooks kept"):
        lessons.refresh(root=executed)
    assert contents(executed) == before


def test_an_interruption_ends_the_kernels_at_once(executed):
    source(executed, f"{SOURCE}\n# %%\nimport time\ntime.sleep(100)\n")
    before = contents(executed)
    code = (
        f"from tutorlib import lessons; lessons.refresh(root={str(executed)!r}, progress=lambda *told: print(*told, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "00 running 0.0\n"
        deadline = time.monotonic() + 60
        while not (children := psutil.Process(process.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.CTRL_C_EVENT if sys.platform == "win32" else signal.SIGINT)
        start = time.monotonic()
        said = process.communicate(timeout=60)[1]
    assert time.monotonic() - start < 40 and process.returncode != 0 and "KeyboardInterrupt" in said
    assert children and not any(child.is_running() for child in children)
    assert contents(executed) == before


def test_a_failing_lesson_does_not_keep_another_from_being_written(tiny):
    short = SOURCE.split("# %%")[0]
    source(tiny, f"{short}# %%\nprint(1)\n", "01_good")
    source(tiny, f"{short}# %%\n1 / 0\n", "00_tiny")
    with pytest.raises(
        LessonError, match=r"^00_tiny\.py, line 10, cell \[1\] `1 / 0` raised ZeroDivisionError: division by zero"
    ):
        lessons.refresh(root=tiny, jobs=2)
    assert [p.name for p in sorted(tiny.glob("*/*.ipynb"))] == ["01_good.ipynb"] * 2


def test_at_most_so_many_kernels_run_at_a_time(tiny, monkeypatch):
    for number in range(5):
        source(tiny, SOURCE, f"{number:02}_tiny")
    running, most, lock = set(), [], threading.Lock()

    def execute(item, tasks):
        with lock:
            running.add(item.number)
            most.append(len(running))
        threading.Event().wait(0.05)
        with lock:
            running.remove(item.number)
        return item.notebook("en")

    monkeypatch.setattr(lessons, "_execute", execute)
    lessons.refresh(root=tiny, jobs=2)
    assert max(most) == 2


def test_writing_leaves_no_half_notebook(executed, monkeypatch):
    before = contents(executed)
    source(executed, SOURCE.replace("每种输出各一次", "每种输出一次").replace("Every kind", "Each kind"))

    def refuse(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        lessons.refresh(root=executed)
    after = contents(executed)
    assert {k: v for k, v in after.items() if k != "src/00_tiny.py"} == {k: v for k, v in before.items() if k != "src/00_tiny.py"}


# What an output is ----------------------------------------------------------------------------------------------------


def stream(name, text):
    return v4.new_output("stream", name=name, text=text)


def error(name, value):
    return v4.new_output("error", ename=name, evalue=value, traceback=["\x1b[31mFile /tmp/x.py\x1b[0m"])


def test_streams_are_joined_between_other_outputs():
    shown = v4.new_output("display_data", data={"text/plain": "x"})
    raw = [
        stream("stderr", "a"),
        stream("stdout", "b"),
        stream("stderr", "c"),
        stream("stdout", "d"),
        shown,
        stream("stdout", "e"),
    ]
    assert lessons.normalised(raw) == [stream("stdout", "bd"), stream("stderr", "ac"), shown, stream("stdout", "e")]
    assert raw[0].text == "a" and len(raw) == 6, "the argument was changed"


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr", "shown", "error"]), st.text("ab\n", max_size=3)), max_size=8))
def test_normal_form_is_reached_in_one_step(parts):
    made = {
        "shown": lambda text: v4.new_output("display_data", data={"text/plain": text}),
        "error": lambda text: error("ValueError", text),
    }
    raw = [made[kind](text) if kind in made else stream(kind, text) for kind, text in parts]
    once = lessons.normalised(raw)
    assert lessons.normalised(once) == once
    assert "".join(t for k, t in parts if k == "stdout") == "".join(o.text for o in once if o.get("name") == "stdout")


def test_a_widget_view_keeps_its_text_and_picture():
    live = "application/vnd.jupyter.widget-view+json"
    view = v4.new_output(
        "display_data", data={live: {"model_id": "a"}, "text/plain": "facts", "text/html": "<b>x</b>"}, metadata={live: {}}
    )
    only = v4.new_output("display_data", data={live: {"model_id": "a"}})
    assert lessons.normalised([view, only]) == [
        v4.new_output("display_data", data={"text/plain": "facts", "text/html": "<b>x</b>"})
    ]


WORKER = """Caught KeyError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/opt/lib/python3.11/site-packages/torch/utils/data/_utils/worker.py", line 349, in _worker_loop
    data = fetcher.fetch(index)
           ^^^^^^^^^^^^^^^^^^^^
  File "/tmp/ipykernel_77/1.py", line 3, in __getitem__
    return {}["x"]
KeyError: 'x'
"""
WASHED = {
    WORKER: "Caught KeyError in DataLoader worker process 0.\nKeyError: 'x'",
    "Can't pickle <function <lambda> at 0x7f00aa11bb22>: not found": "Can't pickle <function <lambda> at 0x...>: not found",
    "DataLoader worker (pid 4711) exited unexpectedly": "DataLoader worker (pid ...) exited unexpectedly",
    "DataLoader worker (pid(s) 4711, 4712) exited unexpectedly": "DataLoader worker (pid(s) ...) exited unexpectedly",
    "[Errno 2] No such file: '/tmp/tmpab12/x.pt'": "[Errno 2] No such file: '<temporary>/x.pt'",
    "[Errno 2] No such file: '/var/folders/ab/cd_12/T/tmpab12/x.pt'": "[Errno 2] No such file: '<temporary>/x.pt'",
    "[Errno 2] No such file: 'C:\\\\Users\\\\Temp\\\\tmpab12\\\\x.pt'": "[Errno 2] No such file: '<temporary>\\\\x.pt'",
    "see /opt/lib/python3.11/site-packages/torch/serialization.py": "see site-packages/torch/serialization.py",
    "\x1b[1mWeights only\x1b[0m load failed": "Weights only load failed",
    "size 12 of layer 3 is not 21": "size 12 of layer 3 is not 21",
}


@pytest.mark.parametrize("text", WASHED)
def test_an_error_keeps_its_message_and_loses_the_machine(text):
    (washed,) = lessons.normalised([error("SomeError", text)])
    assert washed.evalue == WASHED[text]
    assert "\n".join(washed.traceback) == f"SomeError: {WASHED[text]}"


# The ledger -----------------------------------------------------------------------------------------------------------


def test_the_ledger_is_read_and_proven(tiny):
    first, second = lessons.ledger(tiny)
    assert (first.id, first.verdict, first.since, first.also) == ("TI-01", "true", "", ())
    assert second.sections == ("000: 0. Tiny", "001: 1. Other") and second.statement["zh"] == "torch 给出 [0, 1]。"
    proven = lessons.proofs(tiny)
    assert {claim: [(p.lesson, p.cell) for p in cells] for claim, cells in proven.items()} == {
        "TI-01": [("00", 2)],
        "TI-02": [("00", 3)],
    }
    assert proven["TI-01"][0].cell_id == lessons.lesson(0, tiny).code[1].id


def test_claims_print_verdicts_cells_and_counts(tiny):
    assert str(lessons.claims(root=tiny)) == (
        "2 claims: 1 true, 1 changed, 0 false, 0 platform; 2 proven by a cell\n"
        "\n"
        "000: 0. Tiny\n"
        "  TI-01  true, proven by 00 [2]\n"
        "    notes: 12 is not 21.\n"
        "    today: Shown by an error.\n"
        "  TI-02  changed since 2.0, proven by 00 [3]\n"
        "    notes: torch says [0, 1].\n"
        "    today: It says [0, 2]."
    )
    assert lessons.claims(root=tiny, language="zh").rows()[0]["statement"] == "12 不是 21。"
    with pytest.raises(ValueError, match="language 'fr': expected one of en, zh"):
        lessons.claims(root=tiny, language="fr")


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ("000", ["TI-01", "TI-02"]),
        ("001", ["TI-02"]),
        ("other", ["TI-02"]),
        ("00", ["TI-01", "TI-02"]),
        ("ti", ["TI-01", "TI-02"]),
        (None, ["TI-01", "TI-02"]),
    ],
)
def test_a_section_is_chosen_by_source_title_lesson_or_prefix(tiny, section, found):
    assert [c.id for c in lessons.claims(section, root=tiny).claims] == found


def test_two_digits_are_a_lesson_and_three_a_source(tiny):
    """Lesson 01 and source 001 are two things: as parts of a text one would bring the other along."""
    (tiny / "src" / "01_other.py").write_text(re.sub(r', "claim:[^"]*"', "", SOURCE), encoding="utf-8")
    (tiny / "claims.toml").write_text(conftest.LEDGER.replace('lesson = "00"', 'lesson = "01"', 1), encoding="utf-8")
    assert [c.id for c in lessons.claims("01", root=tiny).claims] == ["TI-01"]
    assert [c.id for c in lessons.claims("001", root=tiny).claims] == ["TI-02"]


def test_a_section_that_is_not_there_is_named(tiny):
    with pytest.raises(
        LessonError, match=r"no claim in section 'collate'; expected a part of one of: 000: 0. Tiny; 001: 1. Other"
    ):
        lessons.claims("collate", root=tiny)


def test_without_a_ledger_there_are_no_claims(tiny):
    (tiny / "claims.toml").unlink()
    source(tiny, re.sub(r', "claim:[^"]*"', "", SOURCE))
    assert str(lessons.claims(root=tiny)) == "0 claims: 0 true, 0 changed, 0 false, 0 platform; 0 proven by a cell"


def test_a_tag_that_names_no_claim_is_refused(tiny):
    source(tiny, SOURCE.replace("claim:TI-02", "claim:TI-99"))
    with pytest.raises(
        LessonError, match=r"claims.toml: unknown id in the tags of 00 \[3\] claim:TI-99; mend the tag or add the claim"
    ):
        lessons.claims(root=tiny)


LEDGERS = {
    "no toml": (lambda s: s + "\nverdict = = 1", r"claims.toml: not TOML: .*line"),
    "another table": (lambda s: s + "\n[claims]\nx = 1", r"claims.toml: found claims, expected only \[\[claim\]\] tables"),
    "a single table": (
        lambda s: '[claim]\nid = "TI-01"',
        r"claims.toml: found one \[claim\], expected only \[\[claim\]\] tables",
    ),
    "an id twice": (
        lambda s: s.replace("TI-02", "TI-01"),
        r"claim TI-01 stands twice \(the second is number 2\); expected each id once",
    ),
    "no id": (lambda s: s.replace('id = "TI-02"\n', ""), r"claim number 2: id is None, expected a text"),
    "no verdict": (
        lambda s: s.replace('verdict = "changed"\n', ""),
        r"claim TI-02: verdict is None, expected a text; every claim has id, source",
    ),
    "unknown verdict": (
        lambda s: s.replace('"changed"', '"maybe"'),
        r"claim TI-02: verdict is 'maybe', expected one of true, changed, false, platform",
    ),
    "unknown field": (
        lambda s: s.replace("since =", "sinec ="),
        r"claim TI-02: unknown field sinec; expected id, source, section",
    ),
    "one language": (
        lambda s: s.replace('note.zh = "给出 [0, 2]。"\n', ""),
        r"claim TI-02: note is .*, expected \[claim.note\] with en and zh",
    ),
    "empty text": (
        lambda s: s.replace('note.zh = "给出 [0, 2]。"', 'note.zh = " "'),
        r"claim TI-02: note is .*, expected \[claim.note\] with en and zh",
    ),
    "a short lesson": (
        lambda s: s.replace('lesson = "00"', 'lesson = "0"', 1),
        r"claim TI-01: lesson is '0', expected two digits such as \"01\"",
    ),
    "also as text": (
        lambda s: s.replace('["001: 1. Other"]', '"001"'),
        r"claim TI-02: also is '001', expected a list of texts such as",
    ),
    "since as number": (lambda s: s.replace('since = "2.0"', "since = 2.0"), r"claim TI-02: since is 2.0, expected a text"),
}


@pytest.mark.parametrize("kind", LEDGERS)
def test_a_broken_ledger_is_one_clear_error(tiny, kind):
    change, message = LEDGERS[kind]
    path = tiny / "claims.toml"
    path.write_text(change(conftest.LEDGER), encoding="utf-8")
    with pytest.raises(LessonError, match=message) as caught:
        lessons.ledger(tiny)
    assert "\n" not in str(caught.value)


def test_a_lesson_is_frozen(tiny):
    with pytest.raises(dataclasses.FrozenInstanceError):
        lessons.lesson(0, tiny).minutes = 3


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("先说出你的预期，\n再运行。", "先说出你的预期，再运行。"),
        ("把它改成 0；\n`x` 不变", "把它改成 0；`x` 不变"),
        ("数据流没有\n键", "数据流没有键"),
        ("它用 `next`\n读取", "它用 `next`\n读取"),  # a space belongs between code and Chinese
        ("# 题目\n\n正文。\n- 一\n- 二", "# 题目\n\n正文。\n- 一\n- 二"),
        ("说明：\n\n| 表 |\n|---|\n| 格 |", "说明：\n\n| 表 |\n|---|\n| 格 |"),
        ("一段。\n\n```\n一，\n二\n```", "一段。\n\n```\n一，\n二\n```"),
    ],
)
def test_a_chinese_paragraph_has_no_space_where_its_source_has_a_line_break(written, shown):
    assert lessons._joined(written) == shown


def test_texts_are_refreshed_without_a_kernel_and_never_beside_other_code(executed, monkeypatch):
    source = executed / "src" / "00_tiny.py"
    text = source.read_text(encoding="utf-8")
    before = (executed / "en" / "00_tiny.ipynb").read_bytes()
    monkeypatch.setattr(lessons, "_execute", lambda *_: pytest.fail("a kernel was started"))
    assert [state for _, state, _ in lessons.refresh(root=executed, texts=True).lessons] == ["unchanged"]
    assert (executed / "en" / "00_tiny.ipynb").read_bytes() == before
    source.write_text(text.replace("Three sentences.", "Three good sentences."), encoding="utf-8")
    lessons.refresh(root=executed, texts=True)
    assert "Three good sentences." in (executed / "en" / "00_tiny.ipynb").read_text(encoding="utf-8")
    source.write_text(text.replace('print("first line")', 'print("another line")'), encoding="utf-8")
    with pytest.raises(lessons.LessonError, match=r"is not the code that was executed: `tutorlib refresh 00` executes it"):
        lessons.refresh(root=executed, texts=True)
    source.write_text(text + "\n# %%\nprint(1)\n", encoding="utf-8")
    with pytest.raises(lessons.LessonError, match=r"00_tiny\.py has 14 code cells, 13 were executed"):
        lessons.refresh(root=executed, texts=True)
    (executed / "en" / "00_tiny.ipynb").unlink()
    with pytest.raises(lessons.LessonError, match=r"en/00_tiny\.ipynb does not exist: `tutorlib refresh 00` executes it"):
        lessons.refresh(root=executed, texts=True)
