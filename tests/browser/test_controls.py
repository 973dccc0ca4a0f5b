"""Every kind of control that `explore` makes, worked by keyboard alone, in the JupyterLab that `tutorlib lab` opens."""

from __future__ import annotations

import re

import nbformat.v4 as v4
import pytest
from playwright.sync_api import Locator, expect

from tutorlib import lessons

from .conftest import PATIENCE
from .test_lab import Learner

CELLS = [
    """from tutorlib import widgets
from tutorlib.facts import Table

def sample(size=6, rate=0.5, order="forward", drop=False, word="x"):
    return Table("done", [{"size": size, "rate": rate, "order": order, "drop": drop, "word": word}])

widgets.explore(sample, None, size=(0, 9), rate=(0.0, 1.0), order=["forward", "backward"], drop=False, word="x")""",
    """def slow(size=6):
    return Table("done", [{"size": size}])

widgets.explore(slow, None, run="button", size=(0, 9))""",
]


@pytest.fixture
def learner(browser, request) -> Learner:
    page = browser.new_page(viewport={"width": 1360, "height": 1000})
    request.addfinalizer(page.close)
    return Learner(page)


def test_every_kind_of_control_is_worked_by_keyboard(learner, lab, artefacts):
    address, folder = lab
    cells = [v4.new_code_cell(source) for source in CELLS]
    book = v4.new_notebook(cells=cells, metadata={"kernelspec": lessons.KERNELSPEC})
    (folder / "en" / "99_controls.ipynb").write_text(v4.writes(book), encoding="utf-8")
    learner.open(address, "99_controls")
    press = learner.page.keyboard.press

    def reach(control: Locator) -> None:
        for _ in range(40):
            if control.evaluate("one => one === document.activeElement"):
                return
            press("Tab")
        pytest.fail(f"the Tab key does not reach {control}")

    def write(control: Locator, text: str) -> None:
        reach(control)
        press("Control+A")
        learner.page.keyboard.type(text)
        press("Enter")

    learner.run(0)
    view = learner.cell(0).locator(".tutorlib-view")
    status = view.get_by_role("status")
    size, rate = view.get_by_role("spinbutton", name="size"), view.get_by_role("spinbutton", name="rate")

    def says(text: str) -> None:
        expect(status).to_have_text(re.compile(re.escape(text)), timeout=PATIENCE)

    says("size = 6, rate = 0.5, order = forward, drop = no, word = x")
    learner.select(0)
    write(size, "3")
    says("size = 3, rate = 0.5, order = forward, drop = no, word = x")
    press("ArrowUp")
    says("size = 4, ")
    assert learner.active() == 0, "an arrow key in a field does not walk to another cell"

    # out of range: said, the field and the facts stay as they were
    write(size, "99")
    refused = "size=99 is out of range: expected a whole number from 0 to 9; size stays 4"
    expect(view.get_by_role("alert")).to_have_text(re.compile(re.escape(refused)), timeout=PATIENCE)
    expect(size).to_have_value("4")
    learner.shot(0, artefacts / "controls-refused.png")

    write(rate, "0.75")
    says("size = 4, rate = 0.75, order = forward, drop = no, word = x")
    reach(view.get_by_role("button", name="backward"))
    press("Enter")
    says("order = backward, drop = no, word = x")
    reach(view.get_by_role("checkbox", name="drop"))
    press("Space")
    says("order = backward, drop = yes, word = x")
    write(view.get_by_role("textbox", name="word"), "tensor 张量")
    says("size = 4, rate = 0.75, order = backward, drop = yes, word = tensor 张量")
    assert "tensor 张量" in view.locator("table").inner_text()
    learner.shot(0, artefacts / "controls.png")

    press("Shift+Tab")  # out of the text field, in which arrow keys move the cursor
    learner.run(1)
    view = learner.cell(1).locator(".tutorlib-view")
    status = view.get_by_role("status")
    says("size = 6: done")
    learner.select(1)
    write(view.get_by_role("spinbutton", name="size"), "2")
    says("changed: press Run")
    assert "6" in view.locator("table").inner_text(), "nothing was measured yet"
    reach(view.get_by_role("button", name="Run"))
    press("Enter")
    says("size = 2: done")
    assert "2" in view.locator("table").inner_text()
