import html
import re
import subprocess
import sys
import threading

import ipywidgets
import pytest
from laws import same_text_twice

from tutorlib import pictures, trace, widgets
from tutorlib.facts import Table
from tutorlib.widgets import explore


class Split(Table):
    def grid(self):
        cells = [
            {"label": f"worker {row['worker']}", "items": [{"text": str(k), "sign": ""} for k in row["samples"]]}
            for row in self.content
        ]
        return {"rows": [{"label": "", "cells": cells}], "missing": []}


def split(size=6, workers=2, order="forward", drop=False, rate=0.5, name="x"):
    if name == "fail":
        raise ValueError(f"no split of {size}\nsecond line")
    samples = list(range(size))[:: -1 if order == "backward" else 1]
    said = f"{size} samples over {workers} workers in the order {order}, so long a sentence"
    said += f" that ipywidgets' own text would cut it short {name}"
    return Split(said, [{"worker": w, "samples": samples[w::workers]} for w in range(workers)])


CONTROLS = {
    "size": (0, 9),
    "workers": (1, 3),
    "order": ["forward", "backward"],
    "drop": False,
    "rate": (0.0, 1.0),
    "name": "x",
}


def control(view, name):
    return view._controls[name]


def status(view):
    return html.unescape(re.sub("<[^>]*>", "", view._status.value))


def test_a_view_prints_its_facts_whole():
    view = explore(split, pictures.grid, size=(0, 9))
    bundle = view._repr_mimebundle_()
    assert bundle["text/plain"] == repr(view) == str(view.facts) == str(split())
    assert len(bundle["text/plain"].splitlines()[0]) > 110
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == pictures.grid(split()).stored and "<svg" not in bundle["text/html"]
    assert "<svg" in view._picture.value and "<table" in view._picture.value
    same_text_twice(lambda: explore(split, pictures.grid, size=(0, 9)).facts)


def test_what_is_stored_of_a_real_run_is_the_same_each_time():
    def run(workers=2):
        return trace.record(range(6), batch_size=2, num_workers=workers)

    one, other = (explore(run, lambda facts: pictures.timeline(facts, clock="seconds"), workers=(0, 2)) for _ in range(2))
    assert one._repr_mimebundle_()["text/html"] == other._repr_mimebundle_()["text/html"]
    assert one._picture.value != other._picture.value, "the live one shows measured time"


def test_every_control_is_one_that_a_keyboard_can_work_and_has_a_name():
    view = explore(split, pictures.grid, **CONTROLS)
    kinds = {name: type(c) for name, c in view._controls.items()}
    assert kinds == {
        "size": ipywidgets.IntText,
        "workers": ipywidgets.IntText,
        "order": ipywidgets.ToggleButtons,
        "drop": ipywidgets.Checkbox,
        "rate": ipywidgets.FloatText,
        "name": ipywidgets.Text,
    }
    assert all(c.description == name for name, c in view._controls.items())
    assert control(view, "order").tooltips == ("order: forward", "order: backward")
    assert control(view, "size").tooltip == "size: from 0 to 9" and control(view, "rate").tooltip == "rate: from 0.0 to 1.0"
    assert view.settings == {"size": 6, "workers": 2, "order": "forward", "drop": False, "rate": 0.5, "name": "x"}


def test_a_control_starts_at_the_default_of_the_parameter_else_where_ipywidgets_would():
    assert explore(lambda n: split(n), n=(0, 9)).settings == {"n": 4}
    assert explore(lambda n=7: split(n), n=(0, 9)).settings == {"n": 7}
    assert explore(lambda n=7: split(n), n=3).settings == {"n": 3}
    assert explore(lambda n: split(n), n=(0, 8, 2)).settings == {"n": 4}
    assert explore(lambda o="backward": split(order=o), o=["forward", "backward"]).settings == {"o": "backward"}
    labelled = explore(lambda n: split(n), n={"few": 2, "many": 9})
    assert labelled.settings == {"n": 2} and control(labelled, "n").tooltips == ("n: few", "n: many")
    mine = ipywidgets.IntSlider(5, 0, 9, description="mine")
    assert control(explore(lambda n: split(n), n=mine), "n") is mine
    assert explore(lambda n, m: split(n + m), n=(0, 2), m=ipywidgets.fixed(4)).facts.summary().startswith("5 samples")


def test_changing_a_control_measures_again_and_says_so():
    view = explore(split, pictures.grid, **CONTROLS)
    before = view._picture.value
    control(view, "size").value = 3
    assert view.facts.rows() == split(3).rows() and view._picture.value != before
    assert status(view).startswith(
        "size = 3, workers = 2, order = forward, drop = no, rate = 0.5, name = x: 3 samples over 2 workers"
    )
    assert 'role="status" aria-live="polite"' in view._status.value
    control(view, "order").value = "backward"
    assert view.facts.rows() == split(3, order="backward").rows()
    assert view._repr_mimebundle_()["text/plain"] == str(split(3, order="backward"))


def test_set_does_by_argument_what_the_controls_do_in_one_run():
    runs = []

    def counted(**settings):
        runs.append(settings)
        return split(**settings)

    view = explore(counted, pictures.grid, **CONTROLS)
    assert view.set(size=2, workers=1, order="backward") is view
    assert len(runs) == 2 and runs[1] == {**runs[0], "size": 2, "workers": 1, "order": "backward"}
    assert (control(view, "size").value, control(view, "workers").value) == (2, 1) and view.facts.rows()[0]["samples"] == [1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 10}, "size=10 is out of range: expected a whole number from 0 to 9"),
        ({"size": -1}, "size=-1 is out of range: expected a whole number from 0 to 9"),
        ({"size": 2.5}, "size=2.5 is out of range: expected a whole number from 0 to 9"),
        ({"size": True}, "size=True is out of range: expected a whole number from 0 to 9"),
        ({"rate": float("nan")}, "rate=nan is out of range: expected a number from 0.0 to 1.0"),
        ({"rate": "high"}, "rate='high' is out of range: expected a number from 0.0 to 1.0"),
        ({"order": "sideways"}, "order='sideways' is no choice: expected one of 'forward', 'backward'"),
        ({"drop": 1}, "drop=1: expected True or False"),
        ({"name": 3}, "name=3: expected a text"),
        ({"sise": 3}, "unknown setting 'sise': this view has size, workers, order, drop, rate, name"),
        ({"workers": 3, "size": 99}, "size=99 is out of range: expected a whole number from 0 to 9"),
    ],
)
def test_a_bad_setting_is_one_clear_error_and_changes_nothing(settings, message):
    view = explore(split, pictures.grid, **CONTROLS)
    before = (view.settings, view.facts, view._picture.value, view._status.value)
    with pytest.raises(ValueError) as error:
        view.set(**settings)
    assert str(error.value) == message
    assert (view.settings, view.facts, view._picture.value, view._status.value) == before


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("size", 99, "! size=99 is out of range: expected a whole number from 0 to 9; size stays 6"),
        ("size", -1, "! size=-1 is out of range: expected a whole number from 0 to 9; size stays 6"),
        ("rate", 1.5, "! rate=1.5 is out of range: expected a number from 0.0 to 1.0; rate stays 0.5"),
        ("rate", float("nan"), "! rate=nan is out of range: expected a number from 0.0 to 1.0; rate stays 0.5"),
    ],
)
@pytest.mark.parametrize("run", ["change", "button"])
def test_a_number_out_of_range_in_a_field_is_said_and_taken_back(name, wrong, said, run):
    view = explore(split, pictures.grid, run=run, **CONTROLS)
    before = (view.settings, view.facts, view._picture.value)
    control(view, name).value = wrong
    assert status(view) == said and 'role="alert"' in view._status.value
    assert (view.settings, view.facts, view._picture.value) == before
    control(view, "size").value = 3
    assert 'role="status"' in view._status.value and view.settings["size"] == 3


def test_what_compute_raises_is_one_line_in_the_view_and_the_last_picture_stays():
    view = explore(split, pictures.grid, **CONTROLS)
    picture, facts = view._picture.value, view.facts
    control(view, "name").value = "fail"
    assert status(view) == "! ValueError: no split of 6" and 'role="alert"' in view._status.value
    assert view._picture.value == picture and view.facts is facts
    control(view, "name").value = "y"
    assert 'role="status"' in view._status.value and view.facts.summary().endswith("y")
    with pytest.raises(ValueError, match="no split of 6"):
        view.set(name="fail")
    assert view.settings["name"] == "y"
    with pytest.raises(ValueError, match="no split of 6"):
        explore(split, pictures.grid, name="fail")


def test_of_a_workers_traceback_the_message_is_shown():
    text = (
        "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\nKeyError: 'a < b'\n"
    )
    assert widgets._line(RuntimeError(text)) == "KeyError: 'a < b'"
    assert widgets._line(ValueError()) == "ValueError"
    view = explore(lambda n: split(n) if n < 3 else 1 / 0, n=[1, 3])
    control(view, "n").value = 3
    assert status(view) == "! ZeroDivisionError: division by zero"


def test_a_draw_that_fails_leaves_the_last_picture():
    view = explore(lambda n: split(n), lambda facts: facts.rows() if facts.summary()[0] == "3" else "<p>two</p>", n=[2, 3])
    control(view, "n").value = 3
    assert status(view) == "! TypeError: draw must return one HTML string, found list"
    assert "<p>two</p>" in view._picture.value and view.facts.summary().startswith("2 samples")


def test_the_table_is_there_once_whatever_draw_gives():
    for draw in (None, lambda facts: "<p>mine</p>", pictures.grid):
        view = explore(split, draw, size=(0, 9))
        assert view._picture.value.count("<table") == 1 == view._repr_mimebundle_()["text/html"].count("<table")


def test_a_button_starts_what_takes_long_and_running_is_said():
    seen = []

    def slow(n):
        seen.append((n, status(box[0]) if box else None, box[0]._button.disabled if box else None))
        return split(n)

    box = []
    box.append(explore(slow, pictures.grid, run="button", n=(0, 9)))
    view = box[0]
    control(view, "n").value = 5
    assert len(seen) == 1 and status(view) == "changed: press Run" and view.facts.summary().startswith("4 samples")
    view._button.click()
    assert seen[1] == (5, "running…", True) and not view._button.disabled
    assert view.facts.summary().startswith("5 samples")
    assert view.set(n=6).facts.summary().startswith("6 samples")


def test_controls_and_parameters_must_fit():
    with pytest.raises(TypeError, match=r"split\(\) has no parameter sise: it takes size, workers, order, drop, rate, name"):
        explore(split, sise=(0, 9))
    with pytest.raises(TypeError, match=r"needs n: give each a control or a default"):
        explore(lambda n, m=1: split(n))
    with pytest.raises(TypeError, match=r"size=None is no control: give a range \(0, 4\), a list, True, a text or an ipywidget"):
        explore(split, size=None)
    with pytest.raises(ValueError, match="size=6 is out of range: expected a whole number from 0 to 3"):
        explore(split, size=(0, 3))
    with pytest.raises(ValueError, match="run='always': expected 'change' or 'button'"):
        explore(split, run="always", size=(0, 9))


def test_names_and_messages_are_escaped():
    def bad(name="<b>x</b>"):
        if name == "fail":
            raise ValueError("<img src=x onerror=alert(1)>")
        return split(name=name)

    view = explore(bad, pictures.grid, name="<b>x</b>")
    assert "<b>" not in view._status.value and "<b>" not in view._picture.value
    control(view, "name").value = "fail"
    assert "<img" not in view._status.value


def test_a_measurement_in_a_thread_is_shown_too():
    view = explore(split, pictures.grid, size=(0, 9))
    worker = threading.Thread(target=lambda: view.set(size=2))
    worker.start()
    worker.join()
    assert view.facts.summary().startswith("2 samples")


WITHOUT = """
import sys
from tutorlib import pictures, widgets
from tutorlib.facts import Table
assert "ipywidgets" not in sys.modules, "importing widgets must not import ipywidgets"
sys.modules["ipywidgets"] = None
def given(size, even, word, order, rate=0.5):
    return Table("given", [{"size": size, "even": even, "word": word, "order": order, "rate": rate}])
print(widgets.explore(given, None, size=(0, 9, 2), even=True, word="x", order=["a", "b"], rate=(0.0, 2.0)))
print(widgets.explore(given, None, size=3, even=True, word="x", order={"first": "a"}))
try:
    widgets.explore(lambda size=12: given(size, True, "x", "a"), None, size=(0, 9))
except ValueError as error:
    print(error)
"""


def test_without_ipywidgets_the_facts_come_back():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        "given",
        "size  even  word  order  rate",
        "   4  yes   x     a       0.5",
        "given",
        "size  even  word  order  rate",
        "   3  yes   x     a       0.5",
        "size=12 is out of range: expected a whole number from 0 to 9",
    ]
