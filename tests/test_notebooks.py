"""The lessons of this clone: in step with their sources, executed, equal in both languages, and built as a lesson is."""

import pytest

from tutorlib import lessons, verify

NUMBERS = lessons.numbers()


def test_there_are_lessons():
    assert NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_is_in_step_and_sound(number):
    report = verify.stale([number])
    assert report.ok, report.details()


def test_nothing_lies_beside_the_lessons():
    stray = [f for f in verify.stale().findings if f.what in ("a notebook without a source", "a source's name", "ledger")]
    assert not stray, stray


@pytest.mark.parametrize("number", NUMBERS)
def test_a_learners_copy_holds_no_solution(number):
    one = lessons.lesson(number)
    for language in lessons.LANGUAGES:
        sources = [c.source for c in lessons.learner(one.notebook(language)).cells if c.cell_type == "code"]
        assert lessons.SOLUTION not in "\n".join(sources).split("\n")
        for exercise in lessons.exercises(one):
            assert sources[exercise.cell - 1] == exercise.starter
