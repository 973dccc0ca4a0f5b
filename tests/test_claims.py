"""Every statement of the notes that a lesson is about is in the ledger, and a cell of that lesson shows what is true."""

import json
from pathlib import Path

import pytest

from tutorlib import lessons

LESSONS = {number: lessons.lesson(number) for number in lessons.numbers()}
LEDGER = {claim.id: claim for claim in lessons.ledger()}
PROOFS = lessons.proofs()
LINES = Path(__file__).with_name("statements.tsv").read_text(encoding="utf-8").splitlines()[1:]
STATEMENTS: dict[str, str] = dict(line.split("\t") for line in LINES)


def test_there_are_claims_and_they_print():
    assert LEDGER
    text = str(lessons.claims())
    assert all(claim in text for claim in LEDGER) and f"{len(LEDGER)} claims: " in text


def test_the_ledger_holds_every_statement_of_the_notes_and_every_section():
    assert len(STATEMENTS) == len(LINES) == 191
    assert not set(STATEMENTS) - set(LEDGER), "statements of the notes without an entry in claims.toml"
    assert set(STATEMENTS) <= set(PROOFS), f"not proven by a cell: {sorted(set(STATEMENTS) - set(PROOFS))}"
    said = {section for claim in LEDGER.values() for section in claim.sections}
    assert set(STATEMENTS.values()) <= said, sorted(set(STATEMENTS.values()) - said)
    assert {claim.lesson for claim in LEDGER.values()} <= set(LESSONS)


@pytest.mark.parametrize("claim", [c.id for c in LEDGER.values() if c.lesson in LESSONS])
def test_every_claim_is_proven_by_an_executed_cell_with_an_output(claim):
    own = [p for p in PROOFS.get(claim, ()) if p.lesson == LEDGER[claim].lesson]
    assert own, f"no code cell of lesson {LEDGER[claim].lesson} is tagged claim:{claim}"
    for proof in own:
        cells = json.loads(LESSONS[proof.lesson].stored("en").read_text(encoding="utf-8"))["cells"]
        cell = {c["id"]: c for c in cells}.get(proof.cell_id, {"execution_count": None})
        assert cell["execution_count"] == proof.cell and cell["outputs"], (
            f"{proof} shows nothing: tutorlib refresh {proof.lesson}"
        )


def test_every_tag_names_a_claim():
    assert set(PROOFS) <= set(LEDGER), sorted(set(PROOFS) - set(LEDGER))


@pytest.mark.parametrize("number", LESSONS)
def test_every_section_of_a_lesson_has_claims(number):
    said = {section for claim in LEDGER.values() for section in claim.sections}
    assert set(LESSONS[number].sections) <= said, "a lesson names a section of the notes about which the ledger says nothing"


def test_a_claim_belongs_to_a_lesson_of_its_section():
    for claim in LEDGER.values():
        if claim.lesson in LESSONS:
            assert set(claim.sections) & set(LESSONS[claim.lesson].sections), f"{claim.id}: no section of lesson {claim.lesson}"


@pytest.mark.parametrize("claim", LEDGER)
def test_a_changed_claim_says_what_is_true_today_in_both_languages(claim):
    one = LEDGER[claim]
    assert one.note["en"] != one.statement["en"] and one.note["zh"] != one.statement["zh"]
    assert all(any("\u3400" <= c <= "\u9fff" for c in text["zh"]) for text in (one.statement, one.note)), (
        "the zh text is not Chinese"
    )
    assert not any("\u3400" <= c <= "\u9fff" for text in (one.statement, one.note) for c in text["en"]), "the en text is Chinese"
