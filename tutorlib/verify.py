"""Are the committed notebooks what their sources say, and what this machine's torch does?

`stale` looks without a kernel: sources and notebooks in step, everything executed in order, both languages equal,
nothing stored that differs by machine, the anatomy of a lesson. `run` executes every lesson again through nbval and
compares every output. nbval alone passes a notebook that was never executed and looks neither into images nor at the
order of outputs; loaded as a pytest plugin (`pytest --nbval -p tutorlib.verify`) this module closes those gaps.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty
from typing import Any

from . import lessons
from .facts import Facts
from .lessons import LANGUAGES, Lesson, LessonError, Progress

__all__ = ["Difference", "Finding", "Report", "VerifyError", "differences", "run", "stale"]

MOST_CELLS = 25
MOST_BYTES = 300_000
MOST_WORDS = {"en": 120, "zh": 260}  # of running text in a cell: a table and a block of code are not read as prose
MOST_WORDS_TITLE = {"en": 200, "zh": 420}
PIXEL_TOLERANCE = 2  # of 255: other builds of zlib and libpng round alike, other fonts do not
CELL_SECONDS = 300  # as in lessons: a machine that is busy needs its time
TAGS = ("setup", "wrong-first", "raises-exception", "predict", "explore", "check", "bug-hunt")
TAG_PREFIXES = ("claim", "exercise")


class VerifyError(ValueError):
    """Verification could not start; the message names what is missing and the way out."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be, and the way out."""

    lesson: str
    cell: str
    what: str
    expected: str
    found: str
    mend: str
    details: str = ""  # a readable difference, for those who ask for more than a row


@dataclass(frozen=True, repr=False)
class Report(Facts):
    """What a verification found; `ok` is True when nothing. `details()` is the long text, `seconds` is for progress."""

    check: str
    lessons: tuple[str, ...]
    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]

    @property
    def ok(self) -> bool:
        return not self.findings

    def summary(self) -> str:
        bad = sorted({f.lesson for f in self.findings})
        found = f"{_count(len(self.findings), 'finding')} in {', '.join(bad)}" if bad else "nothing to mend"
        return f"{self.check}: {_count(len(self.lessons), 'lesson')}, {found}"

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "lesson": f.lesson,
                "cell": f.cell or None,
                "what": f.what,
                "expected": f.expected,
                "found": f.found,
                "way out": f.mend,
            }
            for f in self.findings
        ]

    def details(self) -> str:
        """Every finding with its difference, as lines for a terminal."""
        parts = []
        for f in self.findings:
            head = f"lesson {f.lesson}{f' cell {f.cell}' if f.cell else ''}: {f.what}"
            said = [f"  expected {f.expected}", f"  found    {f.found}"] if f.expected or f.found else []
            parts.append("\n".join([head, *said, *(f"  {line}" for line in f.details.splitlines()), f"  way out: {f.mend}"]))
        return "\n\n".join(parts)


# Comparing outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One part of a cell's outputs that is not the same: `where` it is, and both texts."""

    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}\n{_unified(self.expected, self.found, 'stored', 'now')}"


def differences(expected: Iterable[Any], found: Iterable[Any]) -> list[Difference]:
    """Compares two lists of notebook outputs completely, after `lessons.normalised`; an empty list means equal.

    Order and kinds, stream names, every mime type's content (SVG inside data URIs is decoded, so that a changed label
    can be read), an error's type and message, and images by their pixels (`PIXEL_TOLERANCE` of 255 is forgiven).
    Not compared: execution counts of results, tracebacks beyond the message, live widget views.

    >>> from nbformat.v4 import new_output
    >>> said = [[new_output("stream", name="stdout", text=f"ready\\nworker {n}\\n")] for n in (0, 1)]
    >>> print(*differences(*said))
    output 1: stdout text
    --- stored
    +++ now
    @@ -1,2 +1,2 @@
     ready
    -worker 0
    +worker 1
    """
    mine, other = (lessons.normalised(outputs) for outputs in (expected, found))
    if [_kind(o) for o in mine] != [_kind(o) for o in other]:
        return [Difference("outputs, their kinds and order", _listing(mine), _listing(other))]
    made = []
    for number, (a, b) in enumerate(zip(mine, other, strict=True), 1):
        left, right = _parts(a), _parts(b)
        for name in [*left, *(n for n in right if n not in left)]:
            x, y = left.get(name), right.get(name)
            if x == y or (name in ("image/png", "image/jpeg") and x and y and _same_pixels(x, y)):
                continue
            made.append(Difference(f"output {number}: {_kind(a)} {name}", *_told_apart(_readable(name, x), _readable(name, y))))
    return made


def _kind(output: Any) -> str:
    return {"display_data": "display", "execute_result": "result", "stream": output.get("name", "")}.get(
        output.output_type, "error"
    )


def _parts(output: Any) -> dict[str, str]:
    if output.output_type == "stream":
        return {"text": output.text}
    if output.output_type == "error":
        return {"type": output.ename, "message": output.evalue}
    parts = {mime: _text(content) for mime, content in sorted(output.data.items())}
    return parts | ({"metadata": json.dumps(output.metadata, sort_keys=True)} if output.metadata else {})


def _text(content: Any) -> str:
    if isinstance(content, list) and all(isinstance(c, str) for c in content):
        return "".join(content)
    return content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False)


def _listing(outputs: Sequence[Any]) -> str:
    lines = []
    for number, output in enumerate(outputs, 1):
        lines.append(f"output {number}: {_kind(output)}")
        for name, content in _parts(output).items():
            lines += [f"  {name}:", *(f"    {line}" for line in _readable(name, content).splitlines())]
    return "\n".join(lines) or "no outputs"


_DATA_URI = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")


def _readable(name: str, content: str | None) -> str:
    """A part as lines that a difference can show: markup one tag a line, drawings decoded, images as their size."""
    if content is None:
        return "(not there)"
    if name.startswith("image/") and name != "image/svg+xml":
        return _image_facts(content)
    if name in ("text/html", "image/svg+xml"):
        decoded = _DATA_URI.sub(lambda match: f"data:image/svg+xml:\n{_decoded(match.group(1))}\n", content)
        return re.sub(r">\s*<", ">\n<", decoded)
    return content


def _told_apart(x: str, y: str) -> tuple[str, str]:
    """Drawings name their parts by a hash of the whole: where more than that differs, it only hides what does."""
    a, b = (re.sub(r"\bt[0-9a-f]{8}", "t", text) for text in (x, y))
    return (a, b) if a != b else (x, y)


def _decoded(text: str) -> str:
    import base64  # here and below: what costs milliseconds is imported where it is used
    import binascii

    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        return f"(not base64 of text: {error})"


def _unified(expected: str, found: str, left: str, right: str) -> str:
    """A unified difference, cut to what a terminal can show."""
    import difflib

    lines = list(difflib.unified_diff(expected.splitlines(), found.splitlines(), left, right, lineterm="", n=1))
    shown = [line if len(line) <= 300 else f"{line[:300]}... ({len(line)} characters)" for line in lines[:60]]
    return "\n".join([*shown, *([f"... {len(lines) - 60} more lines"] if len(lines) > 60 else [])])


def _pixels(content: str) -> Any:
    import base64
    from io import BytesIO

    import numpy
    from PIL import Image

    with Image.open(BytesIO(base64.b64decode(content))) as image:
        return numpy.asarray(image.convert("RGBA")).astype(int)


def _same_pixels(a: str, b: str) -> bool:
    try:
        x, y = _pixels(a), _pixels(b)
    except (ImportError, OSError, ValueError):
        return False  # without Pillow, or with a broken image, only equal bytes are equal, and those were compared
    return bool(x.shape == y.shape and abs(x - y).max(initial=0) <= PIXEL_TOLERANCE)


def _image_facts(content: str) -> str:
    try:
        pixels = _pixels(content)
    except (ImportError, OSError, ValueError):
        return f"an image of {len(content)} base64 characters"
    height, width = pixels.shape[:2]
    rows = [f"row {n}: {pixels[n].sum(axis=0).tolist()}" for n in range(height)]
    return "\n".join([f"image {width} x {height}, sums of red, green, blue, alpha by row:", *rows])


# Without a kernel -----------------------------------------------------------------------------------------------------


def stale(
    wanted: Iterable[str | int] | None = None, *, root: str | Path | None = None, progress: Progress | None = None
) -> Report:
    """Checks lessons without executing anything: `Report.ok` when sources and both notebooks are in step and sound.

    `wanted`: lesson numbers, `None` for all. `progress(number, state, seconds)` is called after each, with state
    `passed` or `failed`. Raises `LessonError` for a number that does not exist; a source that
    cannot be parsed and a broken ledger are findings.

    >>> stale(["99"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tutorlib.lessons.LessonError: no lesson 99: expected one of ...
    """
    where = lessons.find_root(root)
    chosen = lessons.numbers(wanted, root)
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    try:
        ledger: list[lessons.Claim] | None = lessons.ledger(root)
    except LessonError as error:
        ledger = None
        findings.append(Finding("-", "", "ledger", "claims.toml as its format says", str(error), "edit notebooks/claims.toml"))
    for number in chosen:
        start, before = time.monotonic(), len(findings)
        path = next(p for p in lessons.sources(root) if p.name.startswith(number))
        try:
            one = lessons.parse(path)
        except LessonError as error:
            findings.append(Finding(number, "", "source", "a lesson source", str(error), f"edit notebooks/src/{path.name}"))
        else:
            findings += _stored(one)
            findings += _anatomy(one)
            if ledger is not None:
                findings += _claims(one, ledger)
        seconds[number] = time.monotonic() - start
        if progress is not None:
            progress(number, "passed" if len(findings) == before else "failed", seconds[number])
    if not wanted:
        findings += _orphans(where)
    return Report("stale", chosen, tuple(findings), seconds)


def _orphans(root: Path) -> Iterator[Finding]:
    names = {p.stem for p in lessons.sources(root)}
    for language in LANGUAGES:
        for path in sorted((root / language).glob("*.ipynb")):
            if path.stem not in names:
                place = f"{language}/{path.name}"
                yield Finding(
                    path.name[:2], "", "a notebook without a source", f"src/{path.stem}.py", place, f"delete notebooks/{place}"
                )
    for path in sorted((root / "src").glob("*.py")):
        if not re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem):
            yield Finding(
                "-", "", "a source's name", "NN_topic.py in small letters", path.name, f"rename notebooks/src/{path.name}"
            )


def _stored(one: Lesson) -> Iterator[Finding]:
    """What is stored, against the source and against the rules for what may be stored."""
    import nbformat.v4

    mend = f"tutorlib refresh {one.number}"
    books: dict[str, Any] = {}
    for language in LANGUAGES:
        path = one.stored(language)
        place = f"{language}/{path.name}"
        if not path.is_file():
            yield Finding(one.number, "", "never executed", place, "no such file", mend)
            continue
        text = path.read_text(encoding="utf-8")
        if broken := _broken(text):
            yield Finding(one.number, "", f"{place} is no notebook", "a valid notebook", broken, mend)
            continue
        books[language] = book = nbformat.v4.reads(text)  # not nbformat.reads: that one repairs
        if len(text.encode()) > MOST_BYTES:
            yield Finding(
                one.number,
                "",
                f"size of {place}",
                f"at most {MOST_BYTES} bytes",
                str(len(text.encode())),
                "store smaller pictures",
            )
        found = [*_in_step(one, language, book, mend), *_executed(one, language, book, mend)]
        yield from found
        if not found and lessons.text_of(book) != text:
            yield Finding(one.number, "", f"form of {place}", "as refresh writes it", "written by another program", mend)
    if len(books) == len(LANGUAGES):
        yield from _languages(one, books["en"], books["zh"], mend)
    if "en" in books:
        yield from _outputs(one, books["en"])


def _broken(text: str) -> str:
    from nbformat.validator import iter_validate

    try:
        content = json.loads(text)
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(content, dict) or content.get("nbformat") != 4:
        return "not a notebook of format 4"
    errors = [" ".join([*map(str, e.path), e.message]) for e in iter_validate(content, version=4, version_minor=5)]
    return _brief(errors[0]) if errors else ""


def _in_step(one: Lesson, language: str, book: Any, mend: str) -> Iterator[Finding]:
    """The notebook without its outputs must be what the source gives."""
    fresh = one.notebook(language)
    for key in sorted({*fresh.metadata, *book.metadata}):
        if fresh.metadata.get(key) != book.metadata.get(key):
            expected = json.dumps(fresh.metadata.get(key), ensure_ascii=False)
            found = json.dumps(book.metadata.get(key), ensure_ascii=False)
            yield Finding(one.number, "", f"{language}: metadata {key}", _brief(expected), _brief(found), mend)
    if (book.nbformat, book.nbformat_minor) != (fresh.nbformat, fresh.nbformat_minor):
        expected, found = f"{fresh.nbformat}.{fresh.nbformat_minor}", f"{book.nbformat}.{book.nbformat_minor}"
        yield Finding(one.number, "", f"{language}: notebook format", expected, found, mend)
    if [c.get("id") for c in fresh.cells] != [c.get("id") for c in book.cells]:
        # An id is a hash of its cell's source: the texts tell what changed, wherever it stands.
        mine, other = ([f"[{c.get('id')}]\n{c.source}" for c in b.cells] for b in (fresh, book))
        details = _unified("\n".join(mine), "\n".join(other), "source", "notebook")
        new, old = len({*mine} - {*other}), len({*other} - {*mine})
        yield Finding(
            one.number,
            "",
            f"{language}: cells not as in the source",
            f"{len(mine)} cells, {new} new",
            f"{len(other)} cells, {old} old",
            mend,
            details,
        )
        return
    for number, (a, b) in enumerate(zip(fresh.cells, book.cells, strict=True), 1):
        for what in ("cell_type", "source", "metadata"):
            if a.get(what) != b.get(what):
                x, y = (v if isinstance(v, str) else json.dumps(v) for v in (a.get(what), b.get(what)))
                details = _unified(x, y, "source", "notebook")
                left, right = _first_difference(x, y)
                yield Finding(
                    one.number, f"{number} ({a.id})", f"{language}: {what} not as in the source", left, right, mend, details
                )
                break


def _never_run(book: Any) -> bool:
    return not any(c.get("execution_count") or c.get("outputs") for c in book["cells"] if c["cell_type"] == "code")


def _executed(one: Lesson, language: str, book: Any, mend: str) -> Iterator[Finding]:
    if _never_run(book):
        yield Finding(one.number, "", "never executed", f"{language}/{one.name}.ipynb with outputs", "none", mend)
        return
    for number, cell in enumerate((c for c in book.cells if c.cell_type == "code"), 1):
        if cell.execution_count != number:
            found = "never executed" if cell.execution_count is None else f"[{cell.execution_count}]"
            yield Finding(one.number, f"[{number}]", f"{language}: execution count", f"[{number}]", found, mend)
        if lessons.normalised(cell.outputs) != cell.outputs:
            yield Finding(
                one.number,
                f"[{number}]",
                f"{language}: outputs not in stored form",
                "as refresh writes them",
                "raw outputs",
                mend,
            )
        errors = [o for o in cell.outputs if o.output_type == "error"]
        raising = "raises-exception" in cell.metadata.get("tags", [])
        if errors and not raising:
            yield Finding(
                one.number,
                f"[{number}]",
                f"{language}: an error",
                "none in a cell without raises-exception",
                errors[0].ename,
                mend,
            )
        if raising and not errors and cell.execution_count is not None:
            yield Finding(one.number, f"[{number}]", f"{language}: no error", "one in a cell with raises-exception", "none", mend)
        for output in cell.outputs:
            if output.output_type == "execute_result" and output.execution_count != number:
                found = f"[{output.execution_count}]"
                yield Finding(one.number, f"[{number}]", f"{language}: execution count of the result", f"[{number}]", found, mend)


def _languages(one: Lesson, en: Any, zh: Any, mend: str) -> Iterator[Finding]:
    codes = [[c for c in book.cells if c.cell_type == "code"] for book in (en, zh)]
    for number, (a, b) in enumerate(zip(*codes, strict=False), 1):
        found = differences(a.outputs, b.outputs)
        # What `differences` forgives (a pixel's rounding) between two runs it need not forgive between two copies.
        if found or a.outputs != b.outputs:
            details = "\n".join(map(str, found)).replace("--- stored", "--- en").replace("+++ now", "+++ zh")
            left, right = _first_difference(found[0].expected, found[0].found) if found else ("equal bytes", "other bytes")
            yield Finding(one.number, f"[{number}]", "outputs of en and zh", left, right, mend, details)


_VOLATILE = {  # compiled when they are used: a dozen of them would be half of the import
    "an address": r"\b0x[0-9a-fA-F]{6,}\b",
    "a temporary path": r"/tmp/|/var/folders/|\\Temp\\|ipykernel_\d+",
    "a path of this machine": r"site-packages|/home/\w+|/Users/\w+|/root/|[A-Z]:\\Users",
    "a process id": r"(?i)\bpid(?:\(s\))?\W{0,2}\d+",
    "a time": r"\b\d\d:\d\d:\d\d\b|\b20\d\d-\d\d-\d\d[T ]\d\d|\b\d+\.\d+ ?(?:s|ms|µs|us|seconds)\b",
    "a colour code": r"\x1b\[",
    "an address of a network": r"(?i)(?:https?:)?//[\w.-]*(?:cdn|unpkg|jsdelivr|cloudflare)[\w.-]*",
}


def _outputs(one: Lesson, book: Any) -> Iterator[Finding]:
    """Nothing in outputs that differs by run or machine, and most cells say something."""
    cells = [] if _never_run(book) else [c for c in book.cells if c.cell_type == "code"]
    mend = f"print something else in notebooks/src/{one.path.name}, then tutorlib refresh {one.number}"
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            for name, content in _parts(output).items():
                if name.startswith("image/") and name != "image/svg+xml":
                    continue
                text = _readable(name, content)
                for what, pattern in _VOLATILE.items():
                    if match := re.search(pattern, text):
                        found = " ".join(text[max(0, match.start() - 20) : match.end() + 20].split()).replace("\x1b", "ESC")
                        yield Finding(
                            one.number, f"[{number}]", f"{what} in {_kind(output)}", "the same on every machine", found, mend
                        )
    silent = [number for number, c in enumerate(cells, 1) if not c.outputs]
    if 2 * len(silent) > len(cells):
        expected = "most code cells print something"
        yield Finding(one.number, "", "silent cells", expected, f"{len(silent)} of {len(cells)} print nothing: {silent}", mend)


# The anatomy of a lesson ----------------------------------------------------------------------------------------------


def _anatomy(one: Lesson) -> Iterator[Finding]:
    mend = f"edit notebooks/src/{one.path.name}"
    code, texts = one.code, [c for c in one.cells if not c.is_code]

    def finding(what: str, expected: str, found: str, cell: str = "") -> Finding:
        return Finding(one.number, cell, what, expected, found, mend)

    def tagged(*tags: str) -> list[int]:
        return [n for n, c in enumerate(code, 1) if set(tags) & set(c.tags)]

    first = one.cells[0] if one.cells else None
    if first is None or first.is_code or not (first.en.startswith("# ") and first.zh.startswith("# ")):
        yield finding("title", "the first cell is a text that begins with `# ` in both languages", "another first cell")
    for cell in texts[1:]:
        if any(re.match(r"# ", text) for text in (cell.en, cell.zh)):
            yield finding("title", "one heading `# ` in a lesson", f"another in line {cell.line}")
    if tagged("setup") != [1]:
        yield finding("setup", "the first code cell, and only it, tagged setup", f"setup in code cells {tagged('setup')}")
    for what, tags in (
        ("wrong first", ("wrong-first", "raises-exception")),
        ("predict", ("predict",)),
        ("explore", ("explore",)),
    ):
        if not tagged(*tags):
            yield finding(what, f"at least one code cell tagged {' or '.join(tags)}", "none")
    if len(tagged("bug-hunt")) != 1:
        yield finding("bug hunt", "one code cell tagged bug-hunt", f"{len(tagged('bug-hunt'))}")
    if not texts or not re.match(r"##+ .*\brecap\b", texts[-1].en, re.IGNORECASE):
        yield finding(
            "recap",
            "the last text begins with a heading `## ... Recap`",
            (texts[-1].en.split("\n")[0] if texts else "no text")[:60],
        )
    if len(code) > MOST_CELLS:
        yield finding("length", f"at most {MOST_CELLS} code cells", str(len(code)))
    yield from _exercises(one, finding)
    for number, cell in enumerate(code, 1):
        for tag in cell.tags:
            if tag not in TAGS and tag.partition(":")[0] not in TAG_PREFIXES:
                expected = f"one of {', '.join([*TAGS, *(f'{p}:...' for p in TAG_PREFIXES)])}"
                yield finding("unknown tag", expected, tag, f"[{number}]")
        if "NBVAL_" in cell.source:
            yield finding("a comment to nbval", "none: every output is compared", "NBVAL_...", f"[{number}]")
        if "explore" in cell.tags and "explore(" not in cell.source:
            yield finding("explore", "a call widgets.explore(...)", "none in the cell", f"[{number}]")
        if "predict" in cell.tags and not ("predict(" in cell.source and re.search(r"= \.\.\.(\s|$)", cell.source)):
            yield finding(
                "predict", "`my_guess = ...` and a call exercises.predict(my_guess, ...)", "another cell", f"[{number}]"
            )
    for cell in texts:
        for language, text in (("en", cell.en), ("zh", cell.zh)):
            most = (MOST_WORDS_TITLE if cell is first else MOST_WORDS)[language]
            words = _words(text, language)
            if words > most:
                unit = "words" if language == "en" else "characters"
                yield finding(
                    f"long text in {language}", f"at most {most} {unit}", f"{words}: {text[:30]!r}", f"line {cell.line}"
                )
            if re.search(r"https?://[\w.-]*(?:cdn|unpkg|jsdelivr)", text, re.IGNORECASE):
                yield finding(f"a CDN in {language}", "no content from the network", "a URL", f"line {cell.line}")


def _exercises(one: Lesson, finding: Any) -> Iterator[Finding]:
    code = one.code
    try:
        found = lessons.exercises(one)
    except LessonError as error:
        yield finding("exercise", f"a line `{lessons.SOLUTION}` in every exercise cell", str(error))
        return
    least = 1 if one.number == "00" else 2
    if len(found) < least:
        yield finding("exercises", f"at least {least} code cells tagged exercise:NAME", str(len(found)))
    names = [e.name for e in found]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield finding("exercise", "each name once", f"{name} twice")
    for exercise in found:
        following = code[exercise.cell] if exercise.cell < len(code) else None
        call = re.compile(rf"check\(\s*[\"']{re.escape(exercise.name)}[\"']")
        if following is None or "check" not in following.tags or not call.search(following.source):
            expected = f'the next code cell, tagged check, calls exercises.check("{exercise.name}", ...)'
            yield finding("exercise without check", expected, "another cell" if following else "no cell", f"[{exercise.cell}]")
        if not exercise.starter.strip() or not exercise.solution.strip():
            yield finding("exercise", f"code before and after `{lessons.SOLUTION}`", "nothing", f"[{exercise.cell}]")
    checks = [n for n, c in enumerate(code, 1) if "check" in c.tags]
    for number in checks:
        if number - 1 not in [e.cell for e in found]:
            yield finding("check without exercise", "an exercise in the code cell before", "another cell", f"[{number}]")


_HAN = re.compile(r"[\u3400-\u9fff]")


def _words(text: str, language: str) -> int:
    """How much prose a text holds: words, and for zh every Chinese character; without tables, code and link targets."""
    prose = re.sub(r"(?ms)^```.*?^```", " ", text)
    prose = re.sub(r"(?m)^\s*\|.*$", " ", prose)
    prose = re.sub(r"\]\([^)]*\)|<[^>]+>", " ", prose)
    han = len(_HAN.findall(prose)) if language == "zh" else 0
    return han + len([w for w in _HAN.sub(" ", prose).split() if re.search(r"\w", w)])


def _claims(one: Lesson, ledger: Sequence[lessons.Claim]) -> Iterator[Finding]:
    known = {c.id: c for c in ledger}
    mend = f"edit notebooks/src/{one.path.name} or notebooks/claims.toml"
    path = one.stored("en")
    stored = _outputs_by_id(path) if path.is_file() else {}
    proven = set()
    for number, cell in enumerate(one.code, 1):
        for claim in cell.tagged("claim"):
            proven.add(claim)
            if claim not in known:
                yield Finding(one.number, f"[{number}]", "unknown claim", "an id of claims.toml", claim, mend)
            elif stored.get(cell.id) == 0:
                yield Finding(
                    one.number,
                    f"[{number}]",
                    f"claim {claim}",
                    "an output that shows it",
                    "no output",
                    f"print it in notebooks/src/{one.path.name}",
                )
    for entry in ledger:
        if entry.lesson == one.number and entry.id not in proven:
            yield Finding(one.number, "", "claim without a proof", f"a code cell tagged claim:{entry.id}", "none", mend)


def _outputs_by_id(path: Path) -> dict[str, int]:
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        return {} if _never_run(book) else {c["id"]: len(c["outputs"]) for c in book["cells"] if c["cell_type"] == "code"}
    except (ValueError, KeyError, TypeError):
        return {}  # a finding of its own already


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _brief(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _first_difference(expected: str, found: str) -> tuple[str, str]:
    """The first line in which two texts differ, from both."""
    a, b = expected.splitlines(), found.splitlines()
    for number in range(max(len(a), len(b))):
        x = a[number] if number < len(a) else "(ends)"
        y = b[number] if number < len(b) else "(ends)"
        if x != y:
            same = next((n for n, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
            start = max(0, same - 40) if max(len(x), len(y)) > 80 else 0
            left, right = (_brief(f"...{line[start:]}" if start else line.strip()) for line in (x, y))
            return left, right
    return _brief(expected[-40:]), _brief(found[-40:])


# With a kernel: nbval, made strict ------------------------------------------------------------------------------------

_EVENT = "@@tutorlib "  # begins a line of JSON that the pytest process says to `run`


def run(
    wanted: Iterable[str | int] | None = None, *, root: str | Path | None = None, jobs: int = 2, progress: Progress | None = None
) -> Report:
    """Executes the stored English notebooks again, each in a fresh kernel in an empty folder, and compares everything.

    `jobs`: lessons at a time. `progress(number, state, seconds)` is called when a lesson ends, with state `passed` or
    `failed`. The findings hold a unified difference (`Report.details()`) and the command that accepts the new output.
    Raises `LessonError` for an unknown number and `VerifyError` when nbval is not installed.

    >>> run(["99"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tutorlib.lessons.LessonError: no lesson 99: expected one of ...
    """
    missing = [name for name in ("pytest", "nbval") if find_spec(name) is None]
    if missing:
        raise VerifyError(
            f'{", ".join(missing)} not installed: verification needs the test extra: pip install -e ".[test]" in the clone'
        )
    chosen = [lessons.lesson(number, root) for number in lessons.numbers(wanted, root)]
    tell = progress or (lambda number, state, seconds: None)
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="tutorlib-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "ipython").mkdir()
        (folder / "pytest.ini").write_text("[pytest]\n")
        waiting: dict[str, int] = {}
        for one in chosen:
            if one.stored("en").is_file():
                shutil.copy(one.stored("en"), folder / f"{one.name}.ipynb")
                cells = json.loads((folder / f"{one.name}.ipynb").read_text(encoding="utf-8"))["cells"]
                waiting[one.name] = sum(c["cell_type"] == "code" for c in cells)
            else:
                expected = f"en/{one.name}.ipynb"
                findings.append(
                    Finding(one.number, "", "never executed", expected, "no such file", f"tutorlib refresh {one.number}")
                )
                tell(one.number, "failed", 0.0)
        seconds = _run_pytest(folder, waiting, jobs, findings, tell) if waiting else {}
    return Report("test", tuple(one.number for one in chosen), tuple(sorted(findings, key=lambda f: f.lesson)), seconds)


def _run_pytest(folder: Path, waiting: dict[str, int], jobs: int, findings: list[Finding], tell: Progress) -> dict[str, float]:
    import subprocess

    parallel = min(jobs, len(waiting)) if find_spec("xdist") else 1
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "no:cacheprovider", "-p", "nbval.plugin"]
    command += ["-p", "tutorlib.verify", "--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}"]
    command += ["--nbval-kernel-startup-timeout=180"]
    command += ["--strict-lessons", "-q", "-s", "--color=no", "--no-header"]
    command += ["-p", "xdist.plugin", "-n", str(parallel), "--dist", "loadfile"] if parallel > 1 else []
    command += [f"{name}.ipynb" for name in waiting]
    seconds: dict[str, float] = dict.fromkeys((name[:2] for name in waiting), 0.0)
    left = dict(waiting)
    said: list[str] = []
    environment = lessons.kernel_environment(folder / "ipython") | {
        "PYTHONPATH": _import_path(),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.startswith(_EVENT):
                    said.append(line)
                    continue
                event = json.loads(line.removeprefix(_EVENT))
                name = event["lesson"]
                seconds[name[:2]] += event["seconds"]
                findings += [f for f in (Finding(name[:2], **found) for found in event["findings"]) if f not in findings]
                left[name] -= event["done"]
                if event["done"] and not left[name]:
                    failed = any(f.lesson == name[:2] for f in findings)
                    tell(name[:2], "failed" if failed else "passed", seconds[name[:2]])
        except BaseException:
            process.terminate()  # pytest ends its kernels; a kernel also ends by itself when its parent is gone
            raise
    for name, cells in left.items():
        if cells:
            last = [line.rstrip() for line in said if line.strip() and not re.fullmatch(r"[.Fx\s]*", line)][-12:]
            expected, found = f"{waiting[name]} cells verified", f"{waiting[name] - cells}"
            again = f"tutorlib test {name[:2]}"
            findings.append(Finding(name[:2], "", "verification ended early", expected, found, again, "\n".join(last)))
            tell(name[:2], "failed", seconds[name[:2]])
    return seconds


def _import_path() -> str:
    """Kernels must import the tutorlib that is running, also when it is not installed or the folder is another one."""
    return os.pathsep.join(p for p in (str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")) if p)


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--strict-lessons", action="store_true", help="say each cell's result as a line of JSON, for tutorlib test")


def pytest_configure(config: Any) -> None:
    if config.getoption("--nbval", default=False):
        config.pluginmanager.register(_strict_nbval(config), "tutorlib-strict-nbval")


def _strict_nbval(config: Any) -> Any:
    """The plugin object; its classes derive from nbval's, which only pytest needs to import.

    nbval collects, starts the kernel, executes and compares; what is added: a clean environment and an empty folder,
    cells that were never executed fail, and outputs must also agree in what nbval leaves out.
    """
    import nbformat
    import pytest
    from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

    class Differs(AssertionError):
        """The stored outputs are not what this machine gives; the text is ready to be read."""

    class KernelEnded(Exception):
        """Said at once: nbval alone waits for the whole cell timeout."""

    class StrictFile(IPyNbFile):
        folder: Any = None
        fspath: Any
        ended = False

        def setup(self) -> None:
            self.folder = tempfile.TemporaryDirectory(prefix="tutorlib-", ignore_cleanup_errors=True)
            work, ipython = Path(self.folder.name, "work"), Path(self.folder.name, "ipython")
            work.mkdir()
            ipython.mkdir()
            before, place = dict(os.environ), self.fspath
            # PYTEST_CURRENT_TEST would make the kernel leave out what child processes write.
            clean = lessons.kernel_environment(ipython)
            try:
                os.environ.clear()
                os.environ.update(clean)
                self.fspath = type(place)(work / self.path.name)  # nbval takes the kernel's folder from here
                super().setup()
            finally:
                self.fspath = place
                os.environ.clear()
                os.environ.update(before)
            self.heard: list[Any] = []
            self.kernel.get_message = self.listen(self.kernel.get_message)

        def listen(self, get: Any) -> Any:
            def get_message(stream: str, timeout: float | None = None) -> Any:
                end = float("inf") if timeout is None else time.monotonic() + timeout
                while True:
                    try:
                        return get(stream, timeout=max(0.0, min(1.0, end - time.monotonic())))
                    except Empty:
                        if not self.kernel.is_alive():
                            raise KernelEnded from None
                        if time.monotonic() >= end:
                            raise

            return get_message

        def get_kernel_message(self, timeout: Any = None, stream: str = "iopub") -> Any:
            message = super().get_kernel_message(timeout=timeout, stream=stream)
            self.heard.append(message)
            return message

        def collect(self) -> Iterator[Any]:
            for item in super().collect():
                options = defaultdict(bool, item.options, check=True, skip=False)  # a comment in a cell cannot switch it off
                yield StrictCell.from_parent(self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=options)

        def teardown(self) -> None:
            super().teardown()
            if self.folder is not None:
                self.folder.cleanup()

    class StrictCell(IPyNbCell):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.stored = copy.deepcopy(self.cell.outputs)  # nbval joins streams in place
            self.found: list[Difference] = []
            self.comparison_traceback: list[str] = []  # nbval's own words
            self.output_timeout = 60  # nbval's 5 s are not enough where many kernels share two cores

        def runtest(self) -> None:
            if self.parent.ended:
                pytest.skip("the kernel ended in an earlier cell")
            if self.cell.execution_count is None and self.cell.source.strip():
                self.fail(
                    "never executed", "an execution count", "none", "the stored outputs of this cell are no outputs of a run"
                )
            self.parent.heard.clear()
            try:
                super().runtest()
            except NbCellError as error:
                if self.found:
                    first = self.found[0]
                    self.fail("outputs differ", *_first_difference(first.expected, first.found), "\n".join(map(str, self.found)))
                if self.comparison_traceback:
                    self.fail(str(error), "the stored outputs", "others", "\n".join(self.comparison_traceback))
                raised = [m["content"] for m in self.parent.heard if m["msg_type"] == "error"]
                said = "; ".join(lessons.normalised([_error(raised[-1])])[0].traceback) if raised else "no answer"
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(raised[-1]["traceback"][-3:])) if raised else ""
                self.fail("a cell fails" if raised else str(error), "no error", said, trace, accepts=False)
            except KernelEnded:
                self.parent.ended = True
                self.fail("the kernel ended", "a kernel that lives", "it ended in this cell", "", accepts=False)

        def compare_outputs(self, test: Any, ref: Any, skip_compare: Any = None) -> bool:
            now = _collected(self.parent.heard, nbformat)
            self.found = differences(self.stored, now)
            if self.found:
                return False
            return super().compare_outputs(lessons.normalised(now), lessons.normalised(self.stored), skip_compare)

        def fail(self, what: str, expected: str, found: str, details: str, accepts: bool = True) -> None:
            source = "\n".join(f"> {line}" for line in self.cell.source.split("\n")[:4])
            number, cell = self.path.stem[:2], f"[{self.cell_num + 1}] ({self.cell.get('id', '-')})"
            mend = f"tutorlib refresh {number} accepts the new output" if accepts else f"edit notebooks/src/{self.path.stem}.py"
            finding = {
                "cell": cell,
                "what": what,
                "expected": expected,
                "found": found,
                "mend": mend,
                "details": f"{source}\n{details}",
            }
            self.user_properties.append(("tutorlib", finding))
            raise Differs(Report("test", (number,), (Finding(number, **finding),), {}).details())

        def repr_failure(self, excinfo: Any) -> str:
            return str(excinfo.value) if isinstance(excinfo.value, Differs) else super().repr_failure(excinfo)

    class Plugin:
        @pytest.hookimpl(wrapper=True)
        def pytest_collect_file(self, file_path: Path, parent: Any) -> Any:
            found = yield
            return [StrictFile.from_parent(parent, path=f.path) if type(f) is IPyNbFile else f for f in found]

        def pytest_runtest_logreport(self, report: Any) -> None:
            failed = report.outcome == "failed"
            if (
                hasattr(config, "workerinput")
                or not config.getoption("--strict-lessons")
                or (report.when != "call" and not failed)
            ):
                return
            found = [value for key, value in report.user_properties if key == "tutorlib"]
            if failed and not found:
                details = str(report.longrepr)[-2000:]
                found = [
                    {"cell": "", "what": f"{report.when} failed", "expected": "a kernel that starts", "found": _last(details)}
                ]
                found[0] |= {"mend": "tutorlib doctor", "details": details}
            event = {
                "lesson": Path(report.nodeid.split("::")[0]).stem,
                "done": report.when != "teardown",
                "seconds": report.duration,
                "findings": found,
            }
            print(f"\n{_EVENT}{json.dumps(event)}", flush=True)

    return Plugin()


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "nothing said")


def _error(content: Mapping[str, Any]) -> Any:
    import nbformat.v4

    return nbformat.v4.new_output("error", ename=content["ename"], evalue=content["evalue"], traceback=[])


def _collected(messages: Sequence[Any], nbformat: Any) -> list[Any]:
    """The outputs of the cell that just ended, from all that its kernel said."""
    ended = [m for m in messages if m["msg_type"] == "status" and m["content"].get("execution_state") == "idle"]
    if not ended:
        return []
    cell = ended[-1]["parent_header"].get("msg_id")
    outputs: list[Any] = []
    shown: dict[str, list[int]] = {}
    clear = False
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != cell:
            continue
        if kind == "clear_output":
            clear = bool(content.get("wait"))
            if not clear:
                outputs.clear()
            continue
        if kind == "update_display_data":
            for place in shown.get(content["transient"]["display_id"], []):
                outputs[place].data, outputs[place].metadata = content["data"], content["metadata"]
            continue
        if kind not in ("stream", "display_data", "execute_result", "error"):
            continue
        if clear:
            outputs.clear()
            clear = False
        if display := content.get("transient", {}).get("display_id"):
            shown.setdefault(display, []).append(len(outputs))
        outputs.append(nbformat.v4.output_from_msg({"header": {"msg_type": kind}, "content": content}))
    return outputs
