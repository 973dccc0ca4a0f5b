"""Are the committed notebooks what their sources say, and what this machine's torch does?

`stale` looks without a kernel: sources and notebooks in step, everything executed in order, both languages equal,
nothing stored that differs by machine, the anatomy of a lesson. `differences` compares outputs completely; `suite` asks it
when notebooks are executed again.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import lessons
from .facts import Facts
from .lessons import LANGUAGES, Lesson, LessonError, Progress

__all__ = ["Difference", "Finding", "Report", "differences", "first_difference", "stale", "tolerance"]

MOST_CELLS = 25
MOST_BYTES = 300_000
MOST_CHARACTERS = 100  # in a line of code: as wide as JupyterLab is beside its file browser on a laptop of 1366 pixels
MOST_WORDS = {"en": 120, "zh": 260}  # of running text in a cell: a table and a block of code are not read as prose
MOST_WORDS_TITLE = {"en": 200, "zh": 420}
PIXEL_TOLERANCE = 2  # of 255: other builds of zlib and libpng round alike, other fonts do not
TAGS = ("setup", "wrong-first", "raises-exception", "predict", "explore", "folded", "check", "bug-hunt")
TAG_PREFIXES = ("claim", "exercise", "tolerance")


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
    accepts: bool = False  # whether the new output may be stored: an error may not


@dataclass(frozen=True, repr=False)
class Report(Facts):
    """What a verification found; `ok` is True when nothing. `details()` is the long text, `seconds` is for progress.

    `thing` is what was verified, `kernels` says how kernels were started, `accepted` are those whose new outputs were stored,
    `known` are differences that the ledger marks for the installed version of torch.
    """

    check: str
    lessons: tuple[str, ...]
    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]
    thing: str = "lesson"
    kernels: str = ""
    accepted: tuple[str, ...] = ()
    known: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.findings

    def summary(self) -> str:
        bad = sorted({f.lesson for f in self.findings})
        found = f"{_count(len(self.findings), 'finding')} in {', '.join(bad)}" if bad else "nothing to mend"
        stored = f", accepted {', '.join(self.accepted)}" if self.accepted else ""
        stored += f", {_count(len(self.known), 'cell')} marked to differ on this torch" if self.known else ""
        return f"{self.check}: {_count(len(self.lessons), self.thing)}, {found}{stored}"

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
            head = f"{self.thing} {f.lesson}{f' cell {f.cell}' if f.cell else ''}: {f.what}"
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


def differences(expected: Iterable[Any], found: Iterable[Any], *, tolerance: float = 0.0) -> list[Difference]:
    """Compares two lists of notebook outputs completely, after `lessons.normalised`; an empty list means equal.

    Order and kinds, stream names, every mime type's content (SVG inside data URIs is decoded, so that a changed label
    can be read), an error's type and message, and images by their pixels (`PIXEL_TOLERANCE` of 255 is forgiven).
    `tolerance`: how far numbers with a decimal point or an exponent may differ, relatively or absolutely; whole numbers
    and all that stands between numbers must be equal. Not compared: execution counts of results, tracebacks beyond the
    message, live widget views.

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
            if tolerance and x and y and not name.startswith("image/") and _agree(x, y, tolerance):
                continue
            made.append(Difference(f"output {number}: {_kind(a)} {name}", *_told_apart(_readable(name, x), _readable(name, y))))
    return made


def tolerance(tags: Iterable[str]) -> float:
    """What a cell asks for by its tag `tolerance:1e-6`, or 0; a tag that is no number above 0 asks for nothing.

    >>> tolerance(["claim:SA-01", "tolerance:1e-6"]), tolerance(["tolerance:much"])
    (1e-06, 0.0)
    """
    for tag in tags:
        if tag.startswith("tolerance:"):
            try:
                asked = float(tag.removeprefix("tolerance:"))
            except ValueError:
                return 0.0
            return asked if 0 < asked < float("inf") else 0.0
    return 0.0


_NUMBER = r"([-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?)"


def _agree(x: str, y: str, tolerance: float) -> bool:
    a, b = re.split(_NUMBER, x), re.split(_NUMBER, y)
    return len(a) == len(b) and all(
        p == q or (n % 2 and math.isclose(float(p), float(q), rel_tol=tolerance, abs_tol=tolerance))
        for n, (p, q) in enumerate(zip(a, b, strict=True))
    )


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
        for what in ("cell_type", "source", "metadata", "attachments"):
            if a.get(what) != b.get(what):
                x, y = (v if isinstance(v, str) else json.dumps(v) for v in (a.get(what), b.get(what)))
                details = _unified(x, y, "source", "notebook")
                left, right = first_difference(x, y)
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
            left, right = first_difference(found[0].expected, found[0].found) if found else ("equal bytes", "other bytes")
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
    yield from _recap(texts, finding)
    if len(code) > MOST_CELLS:
        yield finding("length", f"at most {MOST_CELLS} code cells", str(len(code)))
    yield from _exercises(one, finding)
    for number, cell in enumerate(code, 1):
        for tag in cell.tags:
            if tag not in TAGS and tag.partition(":")[0] not in TAG_PREFIXES:
                expected = f"one of {', '.join([*TAGS, *(f'{p}:...' for p in TAG_PREFIXES)])}"
                yield finding("unknown tag", expected, tag, f"[{number}]")
        if "folded" in cell.tags and not re.match(r"(%%.*\n)?# \S", cell.source):
            first_line = cell.source.partition("\n")[0][:60]
            yield finding("a folded cell", "a first line `# ...`: it stays to be seen", first_line, f"[{number}]")
        wide = max(cell.source.splitlines(), key=len, default="")
        if len(wide) > MOST_CHARACTERS:
            found = f"{len(wide)}: {wide.strip()[:30]!r}"
            yield finding("a wide line of code", f"at most {MOST_CHARACTERS} characters", found, f"[{number}]")
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


def _recap(texts: Sequence[Any], finding: Any) -> Iterator[Finding]:
    """The last column of the recap's table says where: by headings of this lesson, whole or up to their colon."""
    for language in LANGUAGES:
        written = [getattr(cell, language) for cell in texts]
        heads = [head.strip() for text in written for head in re.findall(r"(?m)^##+ (.*)$", text)]
        known = {*heads, *(re.split("[:：]", head)[0] for head in heads)}
        title, *places = re.findall(r"(?m)^\|.*\| ([^|]*?) \|$", written[-1] if written else "") or [""]
        for where in places if title in ("Where", "位置") else ():  # the line below the head has no spaces
            if where not in known and not all(part in known for part in re.split(", |、", where)):
                yield finding(f"the recap in {language}", "a heading of this lesson in the column that says where", where)


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


def first_difference(expected: str, found: str) -> tuple[str, str]:
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
