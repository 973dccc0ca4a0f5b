"""A learner works through lessons 01 and 03 and follows the map, with the keyboard alone; nothing is clicked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .conftest import PATIENCE

TYPED = {
    "01_my_loader": (
        # wrong: the last, smaller batch is lost
        """class MyLoader:
    def __init__(self, dataset, batch_size):
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self):
        for start in range(0, len(self.dataset) - self.batch_size + 1, self.batch_size):
            yield [self.dataset[index] for index in range(start, start + self.batch_size)]""",
        "The last, smaller batch is missing.",
        # right
        """class MyLoader:
    def __init__(self, dataset, batch_size):
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self):
        for start in range(0, len(self.dataset), self.batch_size):
            yield [self.dataset[index] for index in range(start, min(start + self.batch_size, len(self.dataset)))]""",
    ),
    "03_fair_share": (
        """import math
def fair_share(samples, worker, workers):
    length = math.ceil(len(samples) / workers)
    return samples[worker * length : (worker + 1) * length]""",
        "can leave the last worker with nothing",
        """def fair_share(samples, worker, workers):
    return samples[worker::workers]""",
    ),
}


class Learner:
    """One page, worked by the keyboard only. Cells are counted among all cells of the notebook, from 0."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, address: str, lesson: str) -> None:
        # The working copy remembers its open tabs, and another test's notebook would come to the front: begin without.
        self.page.goto(re.sub(r"00_start", lesson, address) + "&reset", timeout=PATIENCE)
        tab = self.page.locator("#jp-main-dock-panel .lm-DockPanel-tabBar .lm-mod-current")
        expect(tab).to_have_count(1, timeout=PATIENCE)
        expect(tab).to_contain_text(lesson[:10], timeout=PATIENCE)
        self.notebook = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook")
        expect(self.notebook).to_have_count(1, timeout=PATIENCE)
        expect(self.page.get_by_text(re.compile(r"\| Idle$"))).to_be_visible(timeout=PATIENCE)
        self.notebook.locator(".jp-Cell").first.wait_for(state="attached", timeout=PATIENCE)

    def cell(self, number: int):
        return self.notebook.locator(".jp-Cell").nth(number)

    def find(self, text: str) -> int:
        """The number of the code cell whose source holds the text; a notebook that was just opened gets its cells one by one."""

        def numbers() -> list[int]:
            source = "(c.querySelector('.jp-InputArea') || c).textContent"  # a folded cell has no input to look into
            sources = self.notebook.locator(".jp-Cell").evaluate_all(
                f"cells => cells.map(c => c.classList.contains('jp-CodeCell') ? {source} : '')"
            )
            return [number for number, source in enumerate(sources) if text in source]

        self.until(numbers, f"a code cell that holds {text!r}")
        return numbers()[0]

    def select(self, number: int) -> None:
        """Walk to a cell with the arrow keys, in command mode."""
        self.page.keyboard.press("Escape")
        for _ in range(2 * self.notebook.locator(".jp-Cell").count()):
            at = self.notebook.locator(".jp-Cell").evaluate_all(
                "cells => cells.findIndex(c => c.classList.contains('jp-mod-active'))"
            )
            if at == number:
                return
            self.page.keyboard.press("ArrowDown" if at < number else "ArrowUp")
        pytest.fail(f"the arrow keys did not reach cell {number}")

    def prompt(self, number: int) -> str:
        return self.cell(number).locator(".jp-InputArea-prompt").first.text_content() or ""

    def run(self, number: int) -> None:
        """Select the cell, press Ctrl+Enter, and wait until it is done."""
        before = self.prompt(number)
        self.select(number)
        self.page.keyboard.press("Control+Enter")
        self.until(
            lambda: re.fullmatch(r"\[\d+\]:", self.prompt(number)) and self.prompt(number) != before, f"cell {number} to run"
        )

    def run_all(self) -> None:
        """From top to bottom with Shift+Enter, as a learner does."""
        self.select(0)
        count = self.notebook.locator(".jp-Cell").count()
        for number in range(count):
            self.until(lambda number=number: self.active() == number, f"cell {number} to be selected")
            self.page.keyboard.press("Shift+Enter")
        self.until(lambda: not self.waiting(), "all cells to run")

    def active(self) -> int:
        return self.notebook.locator(".jp-Cell").evaluate_all(
            "cells => cells.findIndex(c => c.classList.contains('jp-mod-active'))"
        )

    def waiting(self) -> list[str]:
        """Prompts of cells that are not done; Shift+Enter on the last cell adds an empty one, which is none of them."""
        prompts = self.notebook.locator(".jp-CodeCell .jp-InputArea-prompt").all_text_contents()
        return [prompt for prompt in prompts[:-1] if not re.fullmatch(r"\[\d+\]:", prompt)]

    def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(PATIENCE // 250):
            if condition():
                return
            self.page.wait_for_timeout(250)
        pytest.fail(f"waited in vain for {what}; prompts of cells that are not done: {self.waiting()}")

    def write(self, number: int, source: str) -> None:
        self.select(number)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Escape")

    def output(self, number: int) -> str:
        return self.cell(number).locator(".jp-OutputArea").first.text_content() or ""

    def shot(self, number: int, path: Path) -> None:
        self.cell(number).scroll_into_view_if_needed()
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=path)


@pytest.fixture
def learner(browser, request) -> Learner:
    page = browser.new_page(viewport={"width": 1360, "height": 1000})
    request.addfinalizer(page.close)
    return Learner(page)


@pytest.mark.parametrize(
    ("lesson", "control", "choice", "exercise"),
    [
        ("01_dataloader", "workers", "0", "01_my_loader"),
        ("03_iterable_datasets", "how", "tutorlib", "03_fair_share"),
    ],
)
def test_a_learner_works_through_a_lesson_by_keyboard(learner, lab, artefacts, lesson, control, choice, exercise):
    address, folder = lab
    learner.open(address, lesson)
    assert learner.page.get_by_text("Would you like to get notified").count() == 0, "a news pop-up needs the network"
    learner.run_all()
    learner.page.screenshot(path=artefacts / f"{lesson}-end.png")

    # a control, by Tab and Enter: the picture and the text under it change
    explore = learner.find("widgets.explore(")
    view = learner.cell(explore).locator(".tutorlib-view").last
    learner.shot(explore, artefacts / f"{lesson}-explore.png")
    status, picture = view.get_by_role("status"), view.locator("svg").first
    said, drawn, table = status.inner_text(), picture.inner_html(), view.locator("table").inner_text()
    learner.select(explore)
    wanted = view.get_by_role("button", name=re.compile(rf"^{choice}$")).first
    for _ in range(60):
        if wanted.evaluate("button => button === document.activeElement"):
            break
        learner.page.keyboard.press("Tab")
    else:
        pytest.fail(f"the Tab key does not reach {control} = {choice}")
    learner.page.keyboard.press("Enter")
    learner.until(lambda: f"{control} = {choice}" in status.inner_text() and "running" not in status.inner_text(), "the new run")
    assert status.inner_text() != said
    assert picture.inner_html() != drawn
    assert view.locator("table").inner_text() != table
    learner.shot(explore, artefacts / f"{lesson}-explored.png")

    # an exercise: not attempted, then wrong with its own message, then right
    wrong, message, right = TYPED[exercise]
    check = learner.find(f'check("{exercise}"')
    answer = check - 1
    assert "not attempted" in learner.output(check)
    learner.write(answer, wrong)
    learner.run(answer)
    learner.run(check)
    assert message in learner.output(check)
    learner.shot(check, artefacts / f"{lesson}-wrong.png")
    learner.write(answer, right)
    learner.run(answer)
    learner.run(check)
    assert f"{exercise}: passed" in learner.output(check)

    # the progress is seen, and kept beside the learner's work
    progress = learner.find("exercises.progress(")
    learner.run(progress)
    assert "1 of 2 exercises passed" in learner.output(progress)
    learner.shot(progress, artefacts / f"{lesson}-progress.png")
    kept = json.loads((folder / ".tutorlib" / "progress.json").read_text(encoding="utf-8"))
    assert exercise in json.dumps(kept)


def test_the_map_leads_to_a_lesson_and_a_folded_cell_opens_by_keyboard(learner, lab, artefacts):
    address, _ = lab
    learner.open(re.sub(r"/(en|zh)/", "/zh/", address), "00_start")
    learner.run_all()
    learner.select(learner.find("exercises.progress()"))
    learner.page.get_by_role("link", name="映射式数据集").press("Enter")
    tab = learner.page.locator("#jp-main-dock-panel .lm-DockPanel-tabBar .lm-mod-current")
    expect(tab).to_contain_text("02_map", timeout=PATIENCE)
    learner.notebook = learner.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook")
    cells = learner.notebook.locator(".jp-Cell")
    learner.until(lambda: cells.count() > 20 and cells.first.is_visible(), "the lesson to be shown")

    folded = learner.notebook.locator(".jp-CodeCell", has=learner.page.locator(".jp-Placeholder"))
    learner.until(lambda: folded.count() == 1, "the folded cell to be drawn")
    number = cells.evaluate_all("cells => cells.findIndex(c => c.querySelector('.jp-Placeholder'))")
    learner.select(number - 1)
    learner.page.keyboard.press("Shift+Enter")  # goes into a folded cell; the arrow keys pass it by
    learner.until(lambda: learner.active() == number, "the folded cell to be selected")
    expect(folded).to_contain_text("Only draws what was measured")
    learner.page.screenshot(path=artefacts / "02-folded.png")
    learner.page.keyboard.press("Control+Shift+C")
    learner.page.keyboard.type("Expand Selected Code")
    expect(learner.page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text("Expand Selected Code")
    learner.page.keyboard.press("Enter")
    expect(folded).to_have_count(0)
    assert "class Reads(facts.Facts)" in learner.cell(learner.active()).inner_text()

    # a page of text is shown as a page
    learner.open(re.sub(r"/(en|zh)/", "/zh/", address), "00_start")
    learner.select(learner.find("exercises.progress()") - 1)
    learner.notebook.get_by_role("link", name="术语表").press("Enter")
    expect(learner.page.locator(".jp-MarkdownViewer h1")).to_contain_text("术语表", timeout=PATIENCE)
    learner.page.screenshot(path=artefacts / "glossary.png")
