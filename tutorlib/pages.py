"""Pages for readers, generated from the ledger and the glossary, in both languages.

`notebooks/en/claims.md` and `zh/claims.md` say for each statement of the notes whether it is true, and lead to the cell that
proves it; `glossary.md` says what the course's words mean. `tutorlib refresh` writes them, a test holds them in step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import lessons
from .lessons import LANGUAGES, LessonError

__all__ = ["Term", "claims_page", "glossary", "glossary_page", "pages", "write"]

_SAYS = {
    "en": {
        "title": "# What the notes say, and what holds today",
        "intro": "Each statement was put to the test on torch 2.15. The link leads to the cell whose output shows it.",
        "count": "{n} statements: {true} true, {changed} changed, {false} false, {platform} that depend on the system.",
        "head": "| | The notes say | | Today | Proof |",
        "cell": "lesson {lesson}, cell {cell}",
        "since": "since {since}",
        "verdicts": {"true": "true", "changed": "changed", "false": "false", "platform": "depends on the system"},
        "other": "[简体中文](../zh/{page}) · [lessons](00_start.ipynb)",
    },
    "zh": {
        "title": "# 笔记说了什么，今天还成立吗",
        "intro": "每条论断都在 torch 2.15 上检验过。链接指向给出证明的单元格。",
        "count": "共 {n} 条：{true} 条成立，{changed} 条已改变，{false} 条不成立，{platform} 条因系统而异。",
        "head": "| | 笔记的说法 | | 今天 | 证明 |",
        "cell": "第 {lesson} 课，单元格 {cell}",
        "since": "自 {since}",
        "verdicts": {"true": "成立", "changed": "已改变", "false": "不成立", "platform": "因系统而异"},
        "other": "[English](../en/{page}) · [课程](00_start.ipynb)",
    },
}
_WORDS = {
    "en": ("# Glossary", "The words of this course, and the lesson that introduces each.", "| Word | 中文 | Meaning | Lesson |"),
    "zh": ("# 术语表", "本课程用到的术语，以及最先讲到它的那一课。", "| 术语 | English | 含义 | 课 |"),
}


def claims_page(language: str = "en", *, root: str | Path | None = None) -> str:
    """The ledger as a Markdown page: a table for each section, a link to each proving cell.

    Raises `LessonError` as `lessons.claims` does.

    >>> claims_page("en").splitlines()[0]
    '# What the notes say, and what holds today'
    """
    found, says = lessons.claims(root=root, language=language), _SAYS[language]
    names = {path.stem[:2]: path.stem for path in lessons.sources(root)}
    counts = {verdict: sum(c.verdict == verdict for c in found.claims) for verdict in lessons.VERDICTS}
    lines = [str(says["title"]), "", str(says["intro"]), "", str(says["count"]).format(n=len(found.claims), **counts)]
    lines += ["", str(says["other"]).format(page="claims.md")]
    section = ""
    verdicts: Mapping[str, str] = says["verdicts"]  # type: ignore[assignment]
    for claim in found.claims:
        if claim.sections[0] != section:
            section = claim.sections[0]
            lines += ["", f"## {_plain(section)}", "", str(says["head"]), "|---|---|---|---|---|"]
        since = f" {str(says['since']).format(since=claim.since)}" if claim.since else ""
        links = [
            f"[{str(says['cell']).format(lesson=p.lesson, cell=p.cell)}]({names[p.lesson]}.ipynb#cell-id={p.cell_id})"
            for p in found.proofs.get(claim.id, ())
        ]
        cells = [
            claim.id,
            claim.statement[language],
            f"**{verdicts[claim.verdict]}**{since}",
            claim.note[language],
            ", ".join(links),
        ]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Term:
    """A word of the course: how it is called in each language, the lesson that introduces it, and what it means."""

    name: Mapping[str, str]
    lesson: str
    meaning: Mapping[str, str]


def glossary(root: str | Path | None = None) -> list[Term]:
    """The terms of `glossary.toml`, by their English name; an absent file is an empty glossary.

    Raises `LessonError` naming the term and what is expected.

    >>> "worker" in [term.name["en"] for term in glossary()]
    True
    """
    import tomllib

    path = lessons.find_root(root) / "glossary.toml"
    if not path.is_file():
        return []
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LessonError(f"{path.name}: not TOML: {error}") from error
    made: dict[str, Term] = {}
    for number, table in enumerate(content.get("term", []), 1):
        which = f"term {table.get('en', number)!r}"
        expected = {"en", "zh", "lesson", "meaning"}
        if set(table) != expected or set(table["meaning"]) != set(LANGUAGES):
            raise LessonError(f"{path.name}: {which}: has {', '.join(table)}; expected en, zh, lesson, meaning.en, meaning.zh")
        if not re.fullmatch(r"\d\d", table["lesson"]):
            raise LessonError(f'{path.name}: {which}: lesson is {table["lesson"]!r}, expected two digits such as "01"')
        if table["en"] in made:
            raise LessonError(f"{path.name}: {which} stands twice; expected each term once")
        made[table["en"]] = Term({"en": table["en"], "zh": table["zh"]}, table["lesson"], dict(table["meaning"]))
    return sorted(made.values(), key=lambda term: term.name["en"].casefold())


def glossary_page(language: str = "en", *, root: str | Path | None = None) -> str:
    """The glossary as a Markdown page.

    >>> glossary_page("zh").splitlines()[0]
    '# 术语表'
    """
    title, intro, head = _WORDS[language]
    other = next(one for one in LANGUAGES if one != language)
    names = {path.stem[:2]: path.stem for path in lessons.sources(root)}
    lines = [title, "", intro, "", str(_SAYS[language]["other"]).format(page="glossary.md"), "", head, "|---|---|---|---|"]
    for term in glossary(root):
        if term.lesson not in names:
            raise LessonError(f"glossary.toml: term {term.name['en']!r}: there is no lesson {term.lesson}")
        link = f"[{term.lesson}]({names[term.lesson]}.ipynb)"
        cells = (term.name[language], term.name[other], term.meaning[language])
        lines.append(f"| {' | '.join([*map(_cell, cells), link])} |")
    return "\n".join(lines) + "\n"


def pages(root: str | Path | None = None) -> dict[str, str]:
    """Every page by its place below `notebooks/`.

    >>> sorted(pages())
    ['en/claims.md', 'en/glossary.md', 'zh/claims.md', 'zh/glossary.md']
    """
    made = {f"{language}/claims.md": claims_page(language, root=root) for language in LANGUAGES}
    return made | {f"{language}/glossary.md": glossary_page(language, root=root) for language in LANGUAGES}


def write(root: str | Path | None = None) -> tuple[str, ...]:
    """Write the pages that are not in step; which they were. A second time changes nothing."""
    where, changed = lessons.find_root(root), []
    for name, text in pages(root).items():
        path = where / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            changed.append(name)
    return tuple(changed)


def _cell(text: str) -> str:
    """Text of one cell of a table: a bar would end it."""
    return " ".join(text.replace("|", "\\|").split())


def _plain(section: str) -> str:
    return section.replace("`", "")
