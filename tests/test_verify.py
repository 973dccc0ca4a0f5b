"""What `stale` and the comparing of outputs find, what they say about it, and what they leave in peace."""

import json
import re
import shutil

import conftest
import nbformat.v4 as v4
import pytest

from tutorlib import lessons, verify

SOURCE = conftest.SOURCE
DRAWING = "data:image/svg+xml;base64,"


def source(root, text, name="00_tiny"):
    (root / "src" / f"{name}.py").write_text(text, encoding="utf-8")


def stored(root, language="en", name="00_tiny"):
    return v4.reads((root / language / f"{name}.ipynb").read_text(encoding="utf-8"))


def store(root, book, language="en", name="00_tiny"):
    (root / language / f"{name}.ipynb").write_text(lessons.text_of(book), encoding="utf-8")


def found(root, *numbers):
    return {(f.cell, f.what) for f in verify.stale(numbers, root=root).findings}


# Without a kernel: what is stored -------------------------------------------------------------------------------------


def test_a_refreshed_lesson_has_nothing_to_mend(executed):
    report = verify.stale(root=executed)
    assert report.ok and report.lessons == ("00",) and str(report) == "stale: 1 lesson, nothing to mend"
    assert report.details() == ""


def test_a_lesson_that_was_never_executed(tiny):
    report = verify.stale(root=tiny)
    assert [(f.what, f.expected, f.mend) for f in report.findings] == [
        ("never executed", "en/00_tiny.ipynb", "tutorlib refresh 00"),
        ("never executed", "zh/00_tiny.ipynb", "tutorlib refresh 00"),
    ]
    for language in lessons.LANGUAGES:
        (tiny / language).mkdir()
        store(tiny, lessons.lesson(0, tiny).notebook(language), language)
    assert found(tiny) == {("", "never executed")}


def test_a_changed_text_is_found_with_both_sides_and_the_way_out(executed):
    source(executed, SOURCE.replace("# 三句话。", "# 两句话。"))
    report = verify.stale(root=executed)
    (finding,) = report.findings
    assert (finding.what, finding.expected, finding.found) == ("zh: source not as in the source", "两句话。", "三句话。")
    assert report.details() == (
        f"lesson 00 cell {finding.cell}: zh: source not as in the source\n"
        "  expected 两句话。\n  found    三句话。\n"
        "  --- source\n  +++ notebook\n  @@ -2,2 +2,2 @@\n   \n  -两句话。\n  +三句话。\n"
        "  way out: tutorlib refresh 00"
    )


def test_a_changed_cell_and_a_new_one_are_shown_as_a_difference(executed):
    text = SOURCE.replace('print("second line 17")', 'print("second line 18")').replace(
        "# %% [markdown]", "# %%\nprint(5)\n\n# %% [markdown]", 1
    )
    source(executed, text)
    report = verify.stale(root=executed)
    assert [(f.what, f.expected, f.found) for f in report.findings if "cells" in f.what] == [
        (f"{language}: cells not as in the source", "16 cells, 2 new", "15 cells, 1 old") for language in lessons.LANGUAGES
    ]
    assert '-print("second line 18")' in report.details() and '+print("second line 17")' in report.details()


def test_a_long_difference_is_cut():
    long = "\n".join(map(str, range(200)))
    text = str(verify.Difference("here", long, "x" * 400))
    assert text.endswith("more lines") and "x... (401 characters)" not in text and len(text.splitlines()) == 62
    assert "+" + "x" * 299 + "... (401 characters)" in str(verify.Difference("here", "", "x" * 400))


def test_an_unknown_number_is_refused(executed):
    with pytest.raises(lessons.LessonError, match="no lesson 09: expected one of 00"):
        verify.stale(["09"], root=executed)


def test_a_broken_source_and_a_broken_ledger_are_findings(executed):
    source(executed, SOURCE + "\n# %%\ny = = 2\n")
    (executed / "claims.toml").write_text("[[claim]]\nid = 3\n", encoding="utf-8")
    ledger, broken = verify.stale(root=executed).findings
    assert (ledger.what, ledger.mend) == ("ledger", "edit notebooks/claims.toml") and "id is 3, expected a text" in ledger.found
    assert (broken.what, broken.mend) == ("source", "edit notebooks/src/00_tiny.py") and "SyntaxError" in broken.found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[]", "not a notebook of format 4"),
        ('{"nbformat": 3}', "not a notebook of format 4"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}', "'id' is a required property"),
    ],
)
def test_a_file_that_is_no_notebook(executed, text, said):
    (executed / "zh" / "00_tiny.ipynb").write_text(text)
    (finding,) = verify.stale(root=executed).findings
    assert finding.what == "zh/00_tiny.ipynb is no notebook" and finding.found.startswith(said)


def test_a_notebook_saved_by_another_program(executed):
    path = executed / "zh" / "00_tiny.ipynb"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    (finding,) = verify.stale(root=executed).findings
    assert (finding.what, finding.found) == ("form of zh/00_tiny.ipynb", "written by another program")


def test_notebooks_without_a_source_and_badly_named_sources(executed):
    shutil.copy(executed / "zh" / "00_tiny.ipynb", executed / "zh" / "12_gone.ipynb")
    source(executed, SOURCE, "lesson12")
    report = verify.stale(root=executed)
    assert [(f.lesson, f.what, f.mend) for f in report.findings] == [
        ("12", "a notebook without a source", "delete notebooks/zh/12_gone.ipynb"),
        ("-", "a source's name", "rename notebooks/src/lesson12.py"),
    ]
    assert verify.stale(["00"], root=executed).ok


VOLATILE = {
    "an address": "<object at 0x7f00aa11bb22>",
    "a temporary path": "/tmp/tmpab12/file.pt",
    "a path of this machine": "/home/somebody/file.pt",
    "a process id": "worker pid=4711",
    "a time": "took 0.31 s",
    "a colour code": "\x1b[31mred\x1b[0m",
    "an address of a network": "<script src='https://cdn.example.org/x.js'>",
}


@pytest.mark.parametrize("what", VOLATILE)
@pytest.mark.parametrize("form", ["stdout", "text/plain", "text/html", "drawing"])
def test_what_differs_by_machine_is_found_wherever_it_is_stored(executed, what, form):
    import base64

    text = VOLATILE[what]
    if form == "stdout":
        output = v4.new_output("stream", name="stdout", text=text)
    elif form == "drawing":
        uri = DRAWING + base64.b64encode(f"<svg><text>{text}</text></svg>".encode()).decode()
        output = v4.new_output("display_data", data={"text/html": f"<img src='{uri}'>"})
    else:
        output = v4.new_output("display_data", data={form: text})
    for language in lessons.LANGUAGES:
        book = stored(executed, language)
        book.cells[4].outputs = [output]
        store(executed, book, language)
    findings = verify.stale(root=executed).findings
    assert [(f.cell, f.what.split(" in ")[0]) for f in findings] == [("[4]", what)], findings
    assert findings[0].mend == "print something else in notebooks/src/00_tiny.py, then tutorlib refresh 00"


@pytest.mark.parametrize(
    "text", ["shape (3, 4) 0.25", "2.5 samples", "rapid 12", "epoch 3: 0x10", "worker 1 of 2, batch 12:30", "12.5 %"]
)
def test_what_is_the_same_everywhere_is_left_in_peace(executed, text):
    for language in lessons.LANGUAGES:
        book = stored(executed, language)
        book.cells[4].outputs = [v4.new_output("stream", name="stdout", text=text)]
        store(executed, book, language)
    assert verify.stale(root=executed).ok


def test_a_big_notebook_and_silent_cells(executed, monkeypatch):
    monkeypatch.setattr(verify, "MOST_BYTES", 3000)
    for language in lessons.LANGUAGES:
        book = stored(executed, language)
        for cell in book.cells[4:13]:
            cell.outputs = []
        store(executed, book, language)
    report = verify.stale(root=executed)
    assert {f.what for f in report.findings} == {"size of en/00_tiny.ipynb", "size of zh/00_tiny.ipynb", "silent cells"}
    assert "8 of 13 print nothing" not in str(report) and re.search(r"\d+ of 13 print nothing", str(report))


# Without a kernel: the anatomy ----------------------------------------------------------------------------------------

CELL = '\n# %% tags=["{}"]\n{}\n'
ANATOMY = {
    "no title": (lambda s: s.replace("# # 00 · A tiny lesson", "# A tiny lesson"), "title", "begins with `# ` in both languages"),
    "two titles": (lambda s: s.replace("# ## Recap", "# # Recap"), "title", "one heading `# ` in a lesson"),
    "no setup": (lambda s: s.replace('tags=["setup"]', ""), "setup", "the first code cell, and only it"),
    "two setups": (
        lambda s: s.replace('tags=["bug-hunt"]', 'tags=["bug-hunt", "setup"]'),
        "setup",
        "the first code cell, and only it",
    ),
    "nothing wrong first": (
        lambda s: s.replace('tags=["raises-exception", "claim:TI-01"]', 'tags=["claim:TI-01"]').replace(
            "raise ValueError", "print"
        ),
        "wrong first",
        "at least one code cell tagged wrong-first or raises-exception",
    ),
    "no prediction": (lambda s: s.replace('"predict", ', ""), "predict", "at least one code cell tagged predict"),
    "a prediction filled in": (
        lambda s: s.replace("my_guess = ...  #", "my_guess = 2  #"),
        "predict",
        "`my_guess = ...` and a call",
    ),
    "nothing to explore": (lambda s: s.replace('tags=["explore"]', ""), "explore", "at least one code cell tagged explore"),
    "an explore cell without call": (lambda s: s.replace("explore(", "look("), "explore", "a call widgets.explore(...)"),
    "no exercise": (
        lambda s: s.replace(' tags=["exercise:three"]', "").replace(' tags=["check"]', ""),
        "exercises",
        "at least 1 code cells tagged exercise:NAME",
    ),
    "an exercise without solution": (
        lambda s: s.replace("# solution\n", "# way\n"),
        "exercise",
        "a line `# solution` in every exercise cell",
    ),
    "an exercise that is all solution": (
        lambda s: s.replace("def three():\n    return None\n", "", 1),
        "exercise",
        "code before and after `# solution`",
    ),
    "an exercise without check": (
        lambda s: s.replace('exercises.check("00_three"', 'exercises.check("00_four"'),
        "exercise without check",
        'the next code cell, tagged check, calls exercises.check("00_three", ...)',
    ),
    "a check without exercise": (
        lambda s: s.replace('tags=["bug-hunt"]', 'tags=["bug-hunt", "check"]'),
        "check without exercise",
        "an exercise in the code cell before",
    ),
    "an exercise twice": (
        lambda s: s.replace(
            '# %% tags=["bug-hunt"]',
            '# %% tags=["exercise:three"]\nx = 1\n# solution\nx = 2\n\n'
            '# %% tags=["check"]\nexercises.check("00_three", three)\n\n'
            '# %% tags=["bug-hunt"]',
        ),
        "exercise",
        "each name once",
    ),
    "no bug hunt": (lambda s: s.replace('tags=["bug-hunt"]', ""), "bug hunt", "one code cell tagged bug-hunt"),
    "no recap": (
        lambda s: s.replace("# ## Recap", "# ## The end"),
        "recap",
        "the last text begins with a heading `## ... Recap`",
    ),
    "too long": (lambda s: s + "".join(f"\n# %%\nprint({n})\n" for n in range(13)), "length", "at most 25 code cells"),
    "an unknown tag": (
        lambda s: s + CELL.format("skip", "print(1)"),
        "unknown tag",
        "one of setup, wrong-first, raises-exception",
    ),
    "a word to nbval": (
        lambda s: s + "\n# %%\n# NBVAL_IGNORE_OUTPUT\nprint(1)\n",
        "a comment to nbval",
        "none: every output is compared",
    ),
    "a folded cell that does not say what it holds": (
        lambda s: s + CELL.format("folded", "x = 1\nprint(x)"),
        "a folded cell",
        "a first line `# ...`",
    ),
    "a recap that leads nowhere": (
        lambda s: s.replace(
            "# ## Recap\n", "# ## Recap\n#\n# | Message | Where |\n# |---|---|\n# | `no` | Recap |\n# | `yes` | Nowhere |\n"
        ),
        "the recap in en",
        "a heading of this lesson",
    ),
    "a wide line": (
        lambda s: s + CELL.format("setup", "print(" + "1" * 94 + ")"),
        "a wide line of code",
        "at most 100 characters",
    ),
    "many words": (lambda s: s.replace("# Three sentences.", "# " + "word " * 121), "long text in en", "at most 120 words"),
    "many characters": (lambda s: s.replace("# 三句话。", "# " + "字" * 261), "long text in zh", "at most 260 characters"),
    "content from the network": (
        lambda s: s.replace("# Three sentences.", "# ![x](https://cdn.example.org/x.png)"),
        "a CDN in en",
        "no content from the network",
    ),
    "an unknown claim": (lambda s: s.replace("claim:TI-02", "claim:TI-03"), "unknown claim", "an id of claims.toml"),
    "a claim without proof": (
        lambda s: s.replace(', "claim:TI-02"', ""),
        "claim without a proof",
        "a code cell tagged claim:TI-02",
    ),
}


@pytest.mark.parametrize("kind", ANATOMY)
def test_the_anatomy_is_held(tiny, kind):
    change, what, expected = ANATOMY[kind]
    assert change(SOURCE) != SOURCE
    source(tiny, change(SOURCE))
    findings = [f for f in verify.stale(root=tiny).findings if f.what != "never executed"]
    assert any(f.what == what and expected in f.expected for f in findings), findings
    assert all("notebooks/src/00_tiny.py" in f.mend for f in findings)


def test_only_lesson_00_may_have_one_exercise(tiny):
    source(tiny, SOURCE.replace("00_three", "01_three").replace(', "claim:TI-01"', "").replace(', "claim:TI-02"', ""), "01_tiny")
    findings = [f for f in verify.stale(["01"], root=tiny).findings if f.what != "never executed"]
    assert [(f.what, f.expected, f.found) for f in findings] == [("exercises", "at least 2 code cells tagged exercise:NAME", "1")]


def test_tables_code_and_links_are_not_prose(tiny):
    extra = "# Three.\n#\n" + "# | a b c | d e f |\n" * 60 + "#\n# ```python\n" + "# x = 1 + 2\n" * 60 + "# ```\n"
    source(tiny, SOURCE.replace("# Three sentences.", extra))
    assert {f.what for f in verify.stale(root=tiny).findings} == {"never executed"}


def test_a_claim_must_be_shown_by_an_output(executed):
    for language in lessons.LANGUAGES:
        book = stored(executed, language)
        book.cells[3].outputs = []
        store(executed, book, language)
    assert [(f.cell, f.what, f.found) for f in verify.stale(root=executed).findings] == [("[3]", "claim TI-02", "no output")]


# Comparing outputs ----------------------------------------------------------------------------------------------------


def test_a_changed_drawing_can_be_read():
    import base64

    def shown(label):
        svg = f"<svg><title>workers</title><text>{label}</text></svg>"
        uri = DRAWING + base64.b64encode(svg.encode()).decode()
        return [v4.new_output("display_data", data={"text/html": f"<figure><img src='{uri}' alt='x'></figure>"})]

    (difference,) = verify.differences(shown("two"), shown("three"))
    assert str(difference) == (
        "output 1: display text/html\n--- stored\n+++ now\n@@ -4,3 +4,3 @@\n"
        " <title>workers</title>\n-<text>two</text>\n+<text>three</text>\n </svg>"
    )


def test_other_kinds_of_outputs_are_listed_in_order():
    stored = [v4.new_output("stream", name="stdout", text="a\n"), v4.new_output("display_data", data={"text/plain": "b"})]
    (difference,) = verify.differences(stored, stored[:1])
    assert difference.where == "outputs, their kinds and order"
    assert difference.found == "output 1: stdout\n  text:\n    a"
    assert verify.differences(stored, [])[0].found == "no outputs"
    assert verify.differences([], [])[0:] == []


def test_a_broken_drawing_and_a_broken_picture_are_only_equal_to_themselves():
    for mime, one, two in (
        ("text/html", f"<img src='{DRAWING}abc'>", f"<img src='{DRAWING}abd'>"),
        ("image/png", "AAAA", "AAAB"),
    ):
        a, b = ([v4.new_output("display_data", data={mime: text})] for text in (one, two))
        assert verify.differences(a, a) == [] and len(verify.differences(a, b)) == 1


def test_counts_of_results_and_live_views_are_not_compared():
    live = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    a = [v4.new_output("execute_result", data={"text/plain": "x"}, execution_count=3)]
    b = [v4.new_output("execute_result", data={"text/plain": "x", **live}, execution_count=None)]
    assert verify.differences(a, b) == []


@pytest.mark.parametrize(
    ("one", "other", "asked", "equal"),
    [
        ("loss 0.5 after 3 steps", "loss 0.5000001 after 3 steps", 1e-6, True),
        ("loss 0.5 after 3 steps", "loss 0.50001 after 3 steps", 1e-6, False),
        ("loss 0.5 after 3 steps", "loss 0.5 after 4 steps", 1e9, False),  # whole numbers are exact
        ("loss 0.5 after 3 steps", "Loss 0.5 after 3 steps", 1e9, False),
        ("1e-12 and -2.5", "-1e-12 and -2.5", 1e-9, True),
        ("-2.5", "2.5", 1e-9, False),
        ("0.5", "nan", 1e9, False),
        ("0.5 0.25", "0.5", 1e9, False),
        ("version 1.2", "version 1.3", 0.0, False),
    ],
)
def test_a_tolerance_is_for_numbers_that_are_not_whole_and_for_nothing_else(one, other, asked, equal):
    said = [[v4.new_output("stream", name="stdout", text=text)] for text in (one, other)]
    assert (verify.differences(*said, tolerance=asked) == []) is equal
    shown = [[v4.new_output("display_data", data={"text/html": f"<td>{text}</td>"})] for text in (one, other)]
    assert (verify.differences(*shown, tolerance=asked) == []) is equal
