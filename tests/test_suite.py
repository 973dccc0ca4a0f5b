"""Notebooks executed again: what the suite finds and says, what it leaves in peace, and what `--accept` stores."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import conftest
import nbformat
import nbformat.v4 as v4
import pytest

from tutorlib import lessons, suite, warm

SOURCE = conftest.SOURCE
HEADER = SOURCE.split("# %%")[0]


def source(root, text, name="00_tiny"):
    (root / "src" / f"{name}.py").write_text(text, encoding="utf-8")


def stored(root, language="en", name="00_tiny"):
    return v4.reads((root / language / f"{name}.ipynb").read_text(encoding="utf-8"))


def store(root, book, language="en", name="00_tiny"):
    (root / language / f"{name}.ipynb").write_text(lessons.text_of(book), encoding="utf-8")


# Lessons --------------------------------------------------------------------------------------------------------------


def test_an_unknown_number_is_refused(executed):
    with pytest.raises(lessons.LessonError, match="no lesson 09: expected one of 00"):
        suite.run(["09"], root=executed)


def test_two_lessons_are_verified_side_by_side(tiny):
    source(tiny, HEADER + '# %%\nimport os\nprint(os.listdir("."))\nopen("left_here", "w").close()\n', "00_tiny")
    source(tiny, HEADER + '# %%\nimport os\nprint(os.listdir("."), "PYTEST_CURRENT_TEST" in os.environ)\n', "01_more")
    lessons.refresh(root=tiny)
    told = []
    report = suite.run(root=tiny, jobs=2, progress=lambda number, state, seconds: told.append((number, state, seconds > 0)))
    assert report.ok and sorted(told) == [("00", "passed", True), ("01", "passed", True)]
    assert str(report) == "test: 2 lessons, nothing to mend" and set(report.seconds) == {"00", "01"}


FAILS = (
    HEADER
    + """# %%
print("kept", 1)

# %%
import random
print("changing")
print(random.random())

# %%
raise LookupError("not any more")

# %%
print("after")

# %%
import os
os._exit(3)

# %%
print("never reached")
"""
)


def test_what_fails_is_said_readably_with_the_way_out(tiny):
    source(tiny, FAILS)
    for language in lessons.LANGUAGES:
        (tiny / language).mkdir()
    book = lessons.lesson(0, tiny).notebook("en")
    for number, (cell, text) in enumerate(
        zip(book.cells, ["kept 1\n", "changing\n0.5\n", "", "after\n", "", "x"], strict=True), 1
    ):
        cell.execution_count = number
        cell.outputs = [v4.new_output("stream", name="stdout", text=text)] if text else []
    store(tiny, book)
    told = []
    report = suite.run([0], root=tiny, jobs=1, progress=lambda number, state, seconds: told.append((number, state)))
    assert told == [("00", "failed")]
    ids = [c.id for c in book.cells]
    assert [(f.cell, f.what, f.found) for f in report.findings if f.what != "outputs differ"] == [
        (f"[3] ({ids[2]})", "a cell fails", "LookupError: not any more"),
        (f"[5] ({ids[4]})", "the kernel ended", "it ended in this cell"),
    ]
    (differs,) = [f for f in report.findings if f.what == "outputs differ"]
    assert (differs.cell, differs.expected) == (f"[2] ({ids[1]})", "0.5") and differs.found.startswith("0.")
    assert differs.details.startswith('> import random\n> print("changing")\n') and "\n changing\n-0.5\n+0." in differs.details
    assert differs.mend == "tutorlib refresh 00 accepts the new output"
    assert {f.mend for f in report.findings if f is not differs} == {"edit notebooks/src/00_tiny.py"}


def test_a_lesson_without_a_notebook_fails_without_a_kernel(tiny):
    told = []
    report = suite.run(root=tiny, progress=lambda number, state, seconds: told.append((number, state)))
    (finding,) = report.findings
    assert (finding.what, finding.mend) == ("never executed", "tutorlib refresh 00") and told == [("00", "failed")]


def test_a_verification_that_breaks_off_is_no_success(executed, monkeypatch):
    monkeypatch.setattr(suite, "CELL_SECONDS", "no number")  # pytest refuses the option and ends
    report = suite.run(root=executed, jobs=1)
    (finding,) = report.findings
    assert (finding.what, finding.expected, finding.found) == ("verification ended early", "13 cells verified", "0")
    assert "--nbval-cell-timeout" in finding.details


def test_without_nbval_the_way_out_is_named(executed, monkeypatch):
    monkeypatch.setattr(suite, "find_spec", lambda name: None)
    with pytest.raises(
        suite.SuiteError, match=r'pytest, nbval not installed: verification needs the test extra: pip install -e ".\[test\]"'
    ):
        suite.run(root=executed)


def test_it_is_an_ordinary_pytest_plugin(executed):
    book = stored(executed)
    book.cells[4].outputs[0].text = "first line\nsecond line 18\n"
    book.cells[5].source = "# NBVAL_IGNORE_OUTPUT\n" + book.cells[5].source
    book.cells[5].outputs[0].text = "said otherwise\n"
    store(executed, book)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "tutorlib.suite",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    done = subprocess.run([*command, "00_tiny.ipynb"], cwd=executed / "en", capture_output=True, text=True)
    assert done.returncode == 1 and "2 failed, 11 passed" in done.stdout, done.stdout
    assert (
        "-second line 18" in done.stdout and "+second line 17" in done.stdout and "--accept stores the new output" in done.stdout
    )
    assert "-said otherwise" in done.stdout, "a comment in a cell must not switch comparing off"
    assert "@@tutorlib" not in done.stdout


def test_a_verified_notebook_is_not_changed(executed):
    before = (executed / "en" / "00_tiny.ipynb").read_bytes()
    assert suite.run(root=executed, jobs=1).ok
    assert (executed / "en" / "00_tiny.ipynb").read_bytes() == before
    nbformat.validate(nbformat.read(executed / "en" / "00_tiny.ipynb", as_version=4))


def test_accept_refreshes_the_lessons_that_differ_and_only_those(executed):
    source(executed, SOURCE.replace("00 · ", "01 · "), "01_other")
    for language in lessons.LANGUAGES:
        store(executed, stored(executed, language), language, "01_other")
    lessons.refresh(["01"], root=executed)
    for language in lessons.LANGUAGES:
        book = stored(executed, language)
        book.cells[4].outputs[0].text = "first line\nsecond line 18\n"
        store(executed, book, language)
    before = {path: path.stat().st_mtime_ns for path in executed.glob("??/01_*.ipynb")}
    report = suite.run(root=executed, accept=True)
    assert report.ok and report.accepted == ("00",) and str(report) == "test: 2 lessons, nothing to mend, accepted 00"
    for language in lessons.LANGUAGES:
        assert stored(executed, language).cells[4].outputs[0].text == "first line\nsecond line 17\n"
    assert {path: path.stat().st_mtime_ns for path in executed.glob("??/01_*.ipynb")} == before


def test_what_differs_by_version_is_marked_on_the_claim_and_not_hidden(executed):
    import torch

    installed = ".".join(torch.__version__.split(".")[:2])
    for language in lessons.LANGUAGES:
        book = stored(executed, language)
        book.cells[3].outputs[0].text = "as another torch says\n"
        store(executed, book, language)
    ledger = executed / "claims.toml"
    text = ledger.read_text(encoding="utf-8")
    cell = stored(executed).cells[3]
    assert "claim:TI-02" in cell.metadata["tags"]
    (finding,) = suite.run(root=executed, jobs=1).findings
    ledger.write_text(text.replace('since = "2.0"', f'since = "2.0"\ndiffers = ["{installed}"]'), encoding="utf-8")
    report = suite.run(root=executed, jobs=1)
    assert report.ok and report.known == (finding,)
    assert str(report) == "test: 1 lesson, nothing to mend, 1 cell marked to differ on this torch"
    ledger.write_text(text.replace('since = "2.0"', 'since = "2.0"\ndiffers = ["torch"]'), encoding="utf-8")
    with pytest.raises(lessons.LessonError, match=r"claim TI-02: differs is \['torch'\], expected a list of versions of torch"):
        lessons.ledger(executed)


# Anybody's notebooks --------------------------------------------------------------------------------------------------


def notebook(*cells, tags=()):
    """A notebook of (source, what it is said to print) pairs; None for a cell that was never executed."""
    book = v4.new_notebook(cells=[v4.new_markdown_cell("# Somebody's notes")])
    for number, (text, printed) in enumerate(cells, 1):
        outputs = [v4.new_output("stream", name="stdout", text=printed)] if printed else []
        cell = v4.new_code_cell(text, execution_count=None if printed is None else number, outputs=outputs)
        cell.metadata["tags"] = list(tags)
        book.cells.append(cell)
    book.metadata["kernelspec"] = {"display_name": "Mine", "language": "python", "name": "mine"}
    return book


def written(folder, name, *cells, **more):
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(*cells, **more), path)
    return path


def test_a_folder_of_somebodys_notebooks_is_verified_in_place(tmp_path):
    (tmp_path / "helper.py").write_text("WORD = 'mine'\n")
    (tmp_path / "data.txt").write_text("7\n")
    written(tmp_path, "good", ("import helper\nprint(helper.WORD, open('data.txt').read())", "mine 7\n\n"))
    written(tmp_path / "part", "bad", ("print(1)", "1\n"), ("print(2)", "3\n"), ("print(4)", None))
    written(tmp_path / ".ipynb_checkpoints", "old", ("print(1)", "2\n"))
    told = []
    report = suite.check([tmp_path], progress=lambda *event: told.append(event[:2]), junit=tmp_path / "result.xml")
    assert sorted(told) == [("good", "passed"), ("part/bad", "failed")]
    assert [(f.lesson, f.cell.split()[0], f.what, f.expected, f.found, f.mend) for f in report.findings] == [
        ("part/bad", "[2]", "outputs differ", "3", "2", "--accept stores the new output"),
        ("part/bad", "[3]", "never executed", "an execution count", "none", "--accept stores the new output"),
    ]
    assert str(report).startswith("test: 2 notebooks, 2 findings in part/bad\n") and set(report.seconds) == {"good", "part/bad"}
    assert "notebook part/bad cell [2]" in report.details() and "> print(2)" in report.details()
    cases = list(ElementTree.parse(tmp_path / "result.xml").getroot().iter("testcase"))
    assert len(cases) == 4 and sum(case.find("failure") is not None for case in cases) == 2


def test_accept_stores_what_differs_and_nothing_else(tmp_path):
    path = written(
        tmp_path,
        "mine",
        ("print(1)", "1\n"),
        ("print(2)", "3\n"),
        ("4 + 4", None),
        ("raise KeyError('x')", ""),
        ("print(5)", "5\n"),
    )
    before = nbformat.read(path, as_version=4)
    report = suite.check([path], accept=True, kernels="cold")
    assert report.accepted == ("mine",) and [(f.cell.split()[0], f.what) for f in report.findings] == [("[4]", "a cell fails")]
    assert report.findings[0].mend == "edit mine.ipynb"
    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    assert after.cells[2].outputs[0].text == "2\n"
    assert (after.cells[3].execution_count, after.cells[3].outputs[0].data["text/plain"]) == (3, "8")
    for number in (0, 1, 4, 5):
        assert after.cells[number] == before.cells[number]
    assert after.metadata == before.metadata and list(tmp_path.iterdir()) == [path]
    text = path.read_bytes()
    again = suite.check([path], accept=True)
    assert again.accepted == () and path.read_bytes() == text


def test_a_cell_asks_for_a_tolerance_by_its_tag(tmp_path):
    cells = [("print('loss', 0.5, 3)", "loss 0.5000001 3\n")]
    with_tag, without = written(tmp_path, "a", *cells, tags=["tolerance:1e-6"]), written(tmp_path, "b", *cells)
    report = suite.check([with_tag, without])
    assert [f.lesson for f in report.findings] == ["b"]


def test_a_number_beyond_the_tolerance_is_found(tmp_path):
    path = written(tmp_path, "a", ("print('loss', 0.5, 3)", "loss 0.6 3\n"), tags=["tolerance:1e-6"])
    (finding,) = suite.check([path]).findings
    assert (finding.what, finding.expected, finding.found) == ("outputs differ", "loss 0.6 3", "loss 0.5 3")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: ["no/such/place"], "no/such/place: no such file or folder; expected a notebook, or a folder that holds some"),
        (lambda p: "no/such/place", "no/such/place: no such file or folder"),  # one path is no list of letters
        (lambda p: [p], r".*: no notebook in it"),
        (lambda p: p, r".*: no notebook in it"),
        (lambda p: [written(p, "x").rename(p / "x.txt")], r".*x\.txt: not a notebook, expected \.ipynb"),
        (lambda p: [], "no notebook was named: give a notebook or a folder"),
        (
            lambda p: [(p / "x.ipynb", (p / "x.ipynb").write_text("{"))[0]],
            r"x\.ipynb is not a notebook of format 4: JSONDecodeError",
        ),
    ],
)
def test_what_is_no_notebook_is_refused_before_anything_starts(tmp_path, make, text):
    with pytest.raises(suite.SuiteError, match=text):
        suite.check(make(tmp_path))


def test_settings_that_make_no_sense_are_refused(tmp_path):
    path = written(tmp_path, "a", ("print(1)", "1\n"))
    for settings, text in (
        ({"kernels": "hot"}, "kernels='hot': expected one of warm, cold"),
        ({"jobs": 0}, "jobs=0: expected at least 1"),
        ({"junit": tmp_path / "no" / "x.xml"}, "its folder does not exist: make it first"),
    ):
        with pytest.raises(suite.SuiteError, match=text):
            suite.check([path], **settings)


# Kernels --------------------------------------------------------------------------------------------------------------

CHANGES_EVERYTHING = """import builtins, json, os, random, signal, sys, threading, warnings
import numpy, torch
torch.set_default_dtype(torch.float64); torch.manual_seed(1); numpy.random.seed(1); random.seed(1)
json.detect_encoding = None; builtins.left_behind = 1; sys.path.insert(0, "/left/behind")
warnings.filterwarnings("ignore", "left")
os.environ["LEFT"] = "behind"; os.chdir("/"); signal.signal(signal.SIGTERM, signal.SIG_IGN); torch.set_num_threads(3)
threading.Thread(target=threading.Event().wait, daemon=True).start()
torch.nn.Linear.forward = None; sys.setrecursionlimit(50_000); os.nice(1)
print("changed")
"""
ASKS = """import builtins, json, os, random, signal, sys, threading
import torch
print(torch.get_default_dtype(), json.detect_encoding is None, hasattr(builtins, "left_behind"), "/left/behind" in sys.path)
print("LEFT" in os.environ, os.getcwd() == "/", signal.getsignal(15) is signal.SIG_IGN, torch.nn.Linear.forward is None)
print(sys.getrecursionlimit() == 50_000, torch.get_num_threads() == 3, os.nice(0) > 0)
"""
CLEAN = "torch.float32 False False False\nFalse False False False\nFalse False False\n"


@pytest.mark.skipif(bool(warm.why_not()), reason=f"kernels are not forked here: {warm.why_not()}")
def test_what_one_notebook_does_to_its_process_no_other_one_sees(tmp_path):
    written(tmp_path, "a_changes", (CHANGES_EVERYTHING, "changed\n"))
    written(tmp_path, "b_asks", (ASKS, CLEAN))
    written(tmp_path, "c_dies", ("import os, torch\nos._exit(3)", ""))
    written(tmp_path, "d_asks", (ASKS, CLEAN))
    report = suite.check([tmp_path], jobs=1)
    assert [(f.lesson, f.what) for f in report.findings] == [("c_dies", "the kernel ended")], report.details()
    assert report.kernels.startswith("kernels: forked from one process that has imported ") and "torch" in report.kernels


def test_where_kernels_cannot_be_forked_they_start_as_ever_and_it_says_so(tmp_path):
    path = written(tmp_path, "a", ("print(1)", "1\n"))
    plugin = tmp_path / "elsewhere.py"
    plugin.write_text("from tutorlib import warm\nwarm.why_not = lambda: 'fork is safe on Linux only'\n")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "elsewhere", "-p", "tutorlib.suite"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(warm.__file__).parents[2])])}
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and "kernels: started one by one (fork is safe on Linux only)" in done.stdout, done.stdout
    assert re.search(r"= notebooks =+\n+ +\d+\.\d s  a\.ipynb\n", done.stdout), "it says how long each took"
    assert suite.check([path], kernels="cold").kernels == "kernels: started one by one (as asked)"


def test_a_kernel_that_ends_while_it_starts_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os, sys\nif 'ipykernel_launcher' in sys.orig_argv: os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    report = suite.check([written(tmp_path, "a", ("print(1)", "1\n"))], kernels="cold")
    assert not report.ok and report.findings[0].what == "setup failed"
    assert report.findings[0].found == "RuntimeError: the kernel ended before it answered"


def test_only_lessons_leave_out_what_torch_says_of_cores(tmp_path):
    asked = "import os\nprint(os.environ.get('PYTHONWARNINGS'))"
    report = suite.check([written(tmp_path, "a", (asked, "None\n"))])
    assert report.ok, report.details()
    assert "DataLoader" in lessons.lesson_environment("none")["PYTHONWARNINGS"]


def test_jsonschema_is_whole_where_more_than_notebooks_may_be_tested(tmp_path):
    pytest.importorskip("rfc3987_syntax")
    (tmp_path / "test_addresses.py").write_text(
        "from jsonschema import FormatChecker\ndef test_it():\n    assert not FormatChecker().conforms('not an iri', 'iri')\n"
    )
    written(tmp_path, "a", ("print(1)", "1\n"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "tutorlib.suite",
        "--kernels=cold",
        ".",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout
