"""The pages for readers: in step with the ledger and the glossary, every link leads somewhere, and a word is one word."""

import json
import re

import pytest

from tutorlib import lessons, pages

ROOT = lessons.find_root()
TERMS = {term.name["en"]: term for term in pages.glossary()}


@pytest.mark.parametrize("name", sorted(pages.pages()))
def test_a_committed_page_is_what_the_ledger_gives(name):
    assert (ROOT / name).read_text(encoding="utf-8") == pages.pages()[name], f"tutorlib refresh writes {name}"


@pytest.mark.parametrize("language", lessons.LANGUAGES)
def test_every_claim_stands_on_the_page_with_its_verdict_and_a_link_to_a_cell_that_exists(language):
    text = pages.claims_page(language)
    rows = {row.split("|")[1].strip(): row for row in text.splitlines() if re.match(r"\| [A-Z]{2}-\d\d ", row)}
    assert list(rows) == [claim.id for claim in lessons.ledger()]
    for claim in lessons.ledger():
        assert f"**{pages._SAYS[language]['verdicts'][claim.verdict]}**" in rows[claim.id]
        assert (claim.since in rows[claim.id]) if claim.since else True
        links = re.findall(r"\]\(([^)#]+)#cell-id=([^)]+)\)", rows[claim.id])
        assert links, f"{claim.id} has no proof on the page"
        for notebook, cell in links:
            cells = json.loads((ROOT / language / notebook).read_text(encoding="utf-8"))["cells"]
            assert cell in [one["id"] for one in cells]


def test_each_page_leads_to_its_other_language_and_to_the_lessons():
    for name, text in pages.pages().items():
        language, page = name.split("/")
        other = "zh" if language == "en" else "en"
        assert f"](../{other}/{page})" in text and "](00_start.ipynb)" in text
        assert {match for match in re.findall(r"\]\(([0-9a-z_]+\.ipynb)", text)} <= {p.name for p in (ROOT / language).iterdir()}


@pytest.mark.parametrize("word", TERMS)
def test_a_word_of_the_glossary_is_used_by_the_lesson_that_introduces_it(word):
    term = TERMS[word]
    one = lessons.lesson(term.lesson)
    text = "\n".join([*(c.en for c in one.cells), *(c.source for c in one.cells)])
    stem = re.sub(r"(e|ing|ed|s)$", "", word.split("-")[0].split()[0].casefold())
    assert stem in text.casefold(), f"lesson {term.lesson} does not use {word!r}"
    chinese = re.sub(r"（.*?）", "", term.name["zh"]).strip()
    assert chinese.casefold() in "\n".join(c.zh + c.source for c in one.cells).casefold(), f"lesson {term.lesson}: {chinese}"
    assert term.meaning["en"].endswith(".") and term.meaning["zh"].endswith("。")


def test_pages_are_written_once(executed):
    assert pages.write(executed) == ("en/claims.md", "zh/claims.md", "en/glossary.md", "zh/glossary.md")
    assert pages.write(executed) == ()
    assert (
        "| TI-02 | torch says [0, 1]. | **changed** since 2.0 | It says [0, 2]. | [lesson 00, cell 3](00_tiny.ipynb#cell-id="
        in (executed / "en" / "claims.md").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[term]", r"glossary\.toml: not TOML: "),
        ('[[term]]\nen = "a"\n', r"term 'a': has en; expected en, zh, lesson, meaning\.en, meaning\.zh"),
        (
            '[[term]]\nen="a"\nzh="b"\nlesson="1"\nmeaning.en="x"\nmeaning.zh="y"\n',
            r"term 'a': lesson is '1', expected two",
        ),
        ('[[term]]\nen="a"\nzh="b"\nlesson="07"\nmeaning.en="x"\nmeaning.zh="y"\n', r"term 'a': there is no lesson 07"),
        ('[[term]]\nen="a"\nzh="b"\nlesson="00"\nmeaning.en="x"\nmeaning.zh="y"\n' * 2, r"term 'a' stands twice"),
    ],
)
def test_a_broken_glossary_is_one_error(executed, text, said):
    (executed / "glossary.toml").write_text(text, encoding="utf-8")
    with pytest.raises(lessons.LessonError, match=said):
        pages.glossary_page("en", root=executed)
