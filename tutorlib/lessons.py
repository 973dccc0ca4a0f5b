"""One source per lesson, two executed notebooks, a learner's copy, and the ledger of proven statements.

The data travels like this: `notebooks/src/NN_topic.py` (jupytext's percent format, the only place where a lesson is
written) is parsed to a `Lesson`; `refresh` executes it once in a fresh kernel and writes `notebooks/en/` and
`notebooks/zh/` with the same code cells and outputs; `learner` cuts the solutions for a working copy; `claims` reads
`notebooks/claims.toml` and says which cell proves what.
"""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .facts import Facts

__all__ = [
    "LANGUAGES",
    "Cell",
    "Claim",
    "Claims",
    "Exercise",
    "Heading",
    "Lesson",
    "LessonError",
    "Proof",
    "Refreshed",
    "claims",
    "exercises",
    "find_root",
    "headings",
    "kernel_environment",
    "learner",
    "ledger",
    "lesson",
    "lesson_environment",
    "normalised",
    "numbers",
    "parse",
    "proofs",
    "refresh",
    "sources",
    "stored",
    "text_of",
]

LANGUAGES = ("en", "zh")
VERDICTS = ("true", "changed", "false", "platform")
CELL_SECONDS = 300  # a cell that takes longer than this is stuck: a whole lesson should take 60 s
SOLUTION = "# solution"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
Progress = Callable[[str, str, float], None]
Notebook = Any  # a nbformat.NotebookNode: nbformat is imported where it is used, `tutorlib --help` does without


class LessonError(ValueError):
    """A lesson or the ledger is not as it must be; the message names the file, the place and what is expected."""


# Finding lessons ------------------------------------------------------------------------------------------------------


def find_root(root: str | Path | None = None) -> Path:
    """The folder `notebooks/`: the given one, or the one beside the package in a clone.

    Raises `LessonError` when it holds no `src/`.

    >>> find_root().name
    'notebooks'
    """
    found = Path(__file__).resolve().parent.parent / "notebooks" if root is None else Path(root).resolve()
    if not (found / "src").is_dir():
        raise LessonError(
            f"{found}: no folder src/ with lessons here; expected a clone's notebooks/ folder: install with pip -e from a clone"
        )
    return found


def sources(root: str | Path | None = None) -> tuple[Path, ...]:
    """The lesson sources `src/NN_topic.py`, in teaching order.

    >>> [path.suffix for path in sources()][:1]
    ['.py']
    """
    return tuple(sorted(p for p in (find_root(root) / "src").glob("*.py") if re.match(r"\d\d_", p.name)))


def stored(source: Path, language: str) -> Path:
    """Where the executed notebook of a source belongs.

    >>> stored(Path("notebooks/src/01_dataloader.py"), "en").as_posix()
    'notebooks/en/01_dataloader.ipynb'
    """
    return source.parent.parent / language / f"{source.stem}.ipynb"


def numbers(wanted: Iterable[str | int] | None = None, root: str | Path | None = None) -> tuple[str, ...]:
    """Lesson numbers as two digits, checked against the sources: `1`, `"1"`, `"01"` and `"01_dataloader"` are one lesson.

    `None` (or nothing) means all lessons. Raises `LessonError` for one that does not exist.

    >>> numbers([1, "03", "01_dataloader"])
    ('01', '03')
    """
    known = [p.name[:2] for p in sources(root)]
    asked = list(wanted or ())
    if not asked:
        return tuple(known)
    spelled = {str(w): re.fullmatch(r"(\d{1,2})(_.*)?", Path(str(w)).name) for w in asked}
    wished = {w: found.group(1).zfill(2) if found else "" for w, found in spelled.items()}
    unknown = [w or "''" for w, number in wished.items() if number not in known]
    if unknown:
        raise LessonError(
            f"no lesson {', '.join(unknown)}: expected one of {', '.join(known) or 'none, there are no lessons yet'}"
        )
    return tuple(sorted(set(wished.values())))


def lesson(number: str | int, root: str | Path | None = None) -> Lesson:
    """The lesson with this number (`1`, `"01"` or `"01_dataloader"`); the errors are those of `numbers` and `parse`.

    >>> lesson(1).name
    '01_dataloader'
    """
    (found,) = numbers([number], root)
    return parse(next(p for p in sources(root) if p.name.startswith(found)))


# From a source to a Lesson --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One cell of a source: code (`source` and `tags`), or a text that stands in two languages (`en` and `zh`)."""

    id: str
    line: int
    source: str = ""
    tags: tuple[str, ...] = ()
    en: str = ""
    zh: str = ""

    @property
    def is_code(self) -> bool:
        return not self.en

    def tagged(self, prefix: str) -> tuple[str, ...]:
        """What follows `prefix:` in the tags: `tagged("claim")` of `["claim:DL-01"]` is `("DL-01",)`."""
        return tuple(t.removeprefix(f"{prefix}:") for t in self.tags if t.startswith(f"{prefix}:"))


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson: the name for `exercises.check`, and which code cell (from 1) holds it."""

    name: str
    cell: int
    starter: str
    solution: str


@dataclass(frozen=True)
class Heading:
    """What the header of a source says: the lesson's title by language, its minutes, its sections of the documentation."""

    path: Path
    title: Mapping[str, str]
    minutes: int
    sections: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def topic(self) -> str:
        return self.name[3:]


@dataclass(frozen=True, repr=False)
class Lesson(Heading, Facts):
    """A parsed source: what it is called, how long it takes, and its cells in order."""

    cells: tuple[Cell, ...]

    @property
    def code(self) -> tuple[Cell, ...]:
        """The code cells; the cell that Jupyter shows as `[n]` is `code[n - 1]`."""
        return tuple(c for c in self.cells if c.is_code and c.source.strip())

    def stored(self, language: str) -> Path:
        """Where the executed notebook of this lesson belongs."""
        return stored(self.path, language)

    def notebook(self, language: str) -> Notebook:
        """The lesson as a notebook in one language, not executed."""
        if language not in LANGUAGES:
            raise ValueError(f"language {language!r}: expected one of {', '.join(LANGUAGES)}")
        import nbformat.v4 as v4

        cells = []
        for one in self.cells:
            if one.is_code:
                meta: dict[str, object] = {"tags": list(one.tags)} if one.tags else {}
                if "folded" in one.tags:  # JupyterLab shows its first line; a click opens it
                    meta["jupyter"] = {"source_hidden": True}
                cells.append(v4.new_code_cell(one.source, id=one.id, metadata=meta))
            else:
                cells.append(v4.new_markdown_cell(one.en if language == "en" else one.zh, id=one.id))
        metadata = {
            "kernelspec": dict(KERNELSPEC),
            "language_info": copy.deepcopy(LANGUAGE_INFO),
            "tutorlib": {"language": language, "lesson": self.name},
        }
        return v4.new_notebook(cells=cells, metadata=metadata)

    def summary(self) -> str:
        return f"lesson {self.number}: {self.title['en']} ({self.minutes} minutes)"

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "line": c.line,
                "kind": "code" if c.is_code else "text",
                "tags": " ".join(c.tags),
                "begins": (c.source or c.en).strip().split("\n")[0][:60],
            }
            for c in self.cells
        ]


def parse(path: str | Path) -> Lesson:
    """Reads a source in jupytext's percent format; the code is not run.

    Raises `LessonError` naming the file, the line and what is expected: a header without title, sections or minutes,
    a text without its other language, a code cell that is no Python (cells tagged `raises-exception` may be).

    >>> one = parse(sources()[0])
    >>> one.number, one.code[0].tags
    ('00', ('setup',))
    """
    path = Path(path)
    import jupytext

    text = path.read_text(encoding="utf-8")
    heading = _heading(path, text)
    try:
        book = jupytext.reads(text, fmt="py:percent")
    except Exception as error:  # jupytext raises classes of its own: the door gives them one name
        raise LessonError(
            f"{path.name}: not a jupytext percent file: {getattr(error, 'message', _last_line(str(error)))}"
        ) from error
    markers = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"# %%(\s|$)", line)]
    lines = markers if len(markers) == len(book.cells) else [0] * len(book.cells)
    cells = tuple(_cells(path.name, book.cells, lines))
    return Lesson(heading.path, heading.title, heading.minutes, heading.sections, cells)


def headings(root: str | Path | None = None) -> tuple[Heading, ...]:
    """The headings of all lessons, in order; the cells are not read. The errors are those of `parse`.

    >>> headings()[1].title["en"]
    'The DataLoader at a glance'
    """
    return tuple(_heading(path, path.read_text(encoding="utf-8")) for path in sources(root))


def _heading(path: Path, text: str) -> Heading:
    import yaml  # alone: a map of the course does not wait for jupytext

    head = re.match(r"# ---\n((?:#.*\n)*?)# ---\n", text)
    lines = re.sub(r"(?m)^# ?", "", head[1] if head else "")
    try:
        jupyter = (yaml.safe_load(lines) or {}).get("jupyter", {})
    except (yaml.YAMLError, AttributeError) as error:
        raise LessonError(f"{path.name}: the header is no YAML of names and values: {_last_line(str(error))}") from error
    header = jupyter.get("tutorlib") if isinstance(jupyter, Mapping) else None
    if not isinstance(header, Mapping):
        raise LessonError(f"{path.name}: no `tutorlib:` in the header; expected title: {{en, zh}}, sections: [...], minutes: 45")
    title, minutes, sections = header.get("title"), header.get("minutes"), header.get("sections")
    if not isinstance(title, Mapping) or not all(isinstance(title.get(lang), str) for lang in LANGUAGES):
        raise LessonError(f"{path.name}: header title is {title!r}, expected {{en: text, zh: text}}")
    if type(minutes) is not int:
        raise LessonError(f"{path.name}: header minutes is {minutes!r}, expected a whole number such as 45")
    if not isinstance(sections, list) or not all(isinstance(s, str) for s in sections):
        raise LessonError(
            f'{path.name}: header sections is {sections!r}, expected a list of texts such as ["000: 1. Dataset Types"]'
        )
    return Heading(path, dict(title), minutes, tuple(sections))


def _cells(name: str, cells: Sequence[Any], lines: Sequence[int]) -> Iterator[Cell]:
    seen: dict[str, int] = {}

    def identity(content: str) -> str:
        import hashlib  # milliseconds each: here and below what is used rarely is imported where it is used

        key = hashlib.sha256(content.encode()).hexdigest()[:12]
        seen[key] = seen.get(key, 0) + 1
        return key if seen[key] == 1 else f"{key}-{seen[key]}"

    waiting: tuple[str, int] | None = None
    for cell, line in zip(cells, lines, strict=True):
        language = cell.metadata.get("lang")
        if waiting and language != "zh":
            raise LessonError(
                f'{name}, line {waiting[1]}: a text in en without zh; expected `# %% [markdown] lang="zh"` directly after it'
            )
        if cell.cell_type == "markdown":
            if language not in LANGUAGES:
                raise LessonError(
                    f'{name}, line {line}: a text with lang {language!r}; expected `# %% [markdown] lang="en"`, then lang="zh"'
                )
            if not cell.source.strip():
                raise LessonError(f"{name}, line {line}: an empty text; write it or take it out")
            if language == "en":
                waiting = (cell.source, line)
            elif waiting is None:
                raise LessonError(
                    f'{name}, line {line}: a text in zh without en; expected `# %% [markdown] lang="en"` directly before it'
                )
            else:
                yield Cell(identity("text\n" + waiting[0]), waiting[1], en=waiting[0], zh=_joined(cell.source))
                waiting = None
        elif cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            if language is not None:
                raise LessonError(
                    f"{name}, line {line}: a code cell with lang {language!r}; code is the same in both languages: take lang out"
                )
            if not cell.source.strip():
                raise LessonError(f"{name}, line {line}: an empty code cell; write it or take it out")
            if "raises-exception" not in tags:
                _check_syntax(name, line, cell.source)
            yield Cell(identity("code\n" + cell.source), line, source=cell.source, tags=tuple(tags))
        else:
            raise LessonError(f"{name}, line {line}: a {cell.cell_type} cell; expected code or markdown")
    if waiting:
        raise LessonError(
            f'{name}, line {waiting[1]}: a text in en without zh; expected `# %% [markdown] lang="zh"` directly after it'
        )


_WIDE = "\u3000-\u303f\u3400-\u9fff\uff00-\uffef\u2018-\u201d"  # Chinese characters and their punctuation


def _joined(text: str) -> str:
    """A Chinese paragraph in one line: Markdown shows a line break as a space, which Chinese does not have.

    >>> _joined("先说出你的预期，\\n再运行。\\n\\n| 表 |\\n| 格 |")
    '先说出你的预期，再运行。\\n\\n| 表 |\\n| 格 |'
    """
    if "```" in text:
        return text
    after = r"(?<=[。，、：；！？）”])\n(?![\n|#>\s]|[-*+] |\d+[.)] )"
    return re.sub(rf"{after}|(?<=[{_WIDE}])\n(?=[{_WIDE}])", "", text)


def _check_syntax(name: str, line: int, source: str) -> None:
    import ast

    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    with suppress(SyntaxError):
        compile(source, name, "exec", flags=flags)
        return
    # Line magics become `pass`, so that line numbers stay; the body of a cell magic of ours is Python as well.
    code = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)
    try:
        compile(code, name, "exec", flags=flags)
    except SyntaxError as error:
        where = line + (error.lineno or 0)
        raise LessonError(
            f"{name}, line {where}: SyntaxError: {error.msg}: {(error.text or '').strip()!r}; nothing was run or written"
        ) from error


def exercises(one: Lesson) -> tuple[Exercise, ...]:
    """The exercises of a lesson: cells tagged `exercise:NAME` (or `exercise:NN_NAME`), checked under the name `NN_NAME`.

    Raises `LessonError` when such a cell has no line that is exactly `# solution`.

    >>> all(exercise.name.startswith("01_") for exercise in exercises(lesson(1)))
    True
    """
    found = []
    for number, cell in enumerate(one.code, 1):
        for name in cell.tagged("exercise"):
            starter, solution = _split(cell.source)
            if solution is None:
                raise LessonError(
                    f"{one.path.name}, line {cell.line}: exercise {name} has no line `{SOLUTION}` that ends the starter"
                )
            full = name if name.startswith(f"{one.number}_") else f"{one.number}_{name}"
            found.append(Exercise(full, number, starter, solution))
    return tuple(found)


def learner(notebook: Notebook) -> Notebook:
    """A learner's copy of a notebook: solutions cut, outputs and execution counts cleared; the argument is left alone.

    >>> from nbformat.v4 import new_code_cell, new_notebook
    >>> book = new_notebook(cells=[new_code_cell("def one(): ...\\n\\n# solution\\ndef one(): return 1", execution_count=4)])
    >>> learner(book).cells[0].source
    'def one(): ...'
    """
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source = _split(cell.source)[0]
            cell.outputs = []
            cell.execution_count = None
    return made


def _split(source: str) -> tuple[str, str | None]:
    lines = source.split("\n")
    for number, line in enumerate(lines):
        if line.rstrip() == SOLUTION:
            return "\n".join(lines[:number]).rstrip(), "\n".join(lines[number + 1 :]).strip("\n")
    return source, None


# What an output is, free of what differs by run and machine -----------------------------------------------------------

WIDGET_MIMES = ("application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Only texts of errors are washed: what a lesson prints itself, it can print without such things (`stale` holds that).
_WASH = (
    (r" at 0x[0-9a-fA-F]+", " at 0x..."),
    (r"\b(pid(?:\(s\))?:?) ?\d+(?:, ?\d+)*", r"\1 ..."),
    (r"(?:[A-Za-z]:)?[^\s'\":]*[/\\]site-packages[/\\]", "site-packages/"),
    (r"(?:/private)?(?:/tmp|/var/folders/[^\s'\"/]+/[^\s'\"/]+/T)/[^\s'\"/:,)]+", "<temporary>"),
    (r"[A-Za-z]:[^\s'\"]*[/\\]Temp[/\\]+[^\s'\"/\\:,)]+", "<temporary>"),
)


def normalised(outputs: Iterable[Any]) -> list[Any]:
    """Outputs of a cell as lessons store and compare them; the argument is left alone.

    Streams between two other outputs are joined, stdout before stderr: a kernel flushes them by time, so their order
    is chance. Widget views lose the key of the live view and keep text and picture. An error keeps its type and
    message; its traceback shrinks to the last lines, without colours, addresses, process ids and paths of the machine.

    >>> from nbformat.v4 import new_output
    >>> said = [new_output("stream", name=name, text=text) for name, text in [("stdout", "a"), ("stderr", "b"), ("stdout", "c")]]
    >>> [(output.name, output.text) for output in normalised(said)]
    [('stdout', 'ac'), ('stderr', 'b')]
    """
    made: list[Any] = []
    streams: dict[str, Any] = {}

    def flush() -> None:
        made.extend(streams[name] for name in sorted(streams, reverse=True) if streams[name].text)
        streams.clear()

    for output in copy.deepcopy(list(outputs)):
        kind = output.output_type
        if kind == "stream":
            if output.name in streams:
                streams[output.name].text += output.text
            else:
                streams[output.name] = output
            continue
        flush()
        if kind in ("display_data", "execute_result"):
            for mime in WIDGET_MIMES:
                output.data.pop(mime, None)
                output.metadata.pop(mime, None)
            output.pop("transient", None)
            if not output.data:
                continue
        elif kind == "error":
            output.evalue = _error_text(output.evalue)
            output.traceback = f"{output.ename}: {output.evalue}".split("\n")
        made.append(output)
    flush()
    return made


def _error_text(text: str) -> str:
    """An error's message without the traceback that a worker pastes into it: what was said before it, and its last lines."""
    lines = _ANSI.sub("", text).rstrip().split("\n")
    start = next((n for n, line in enumerate(lines) if line.rstrip().endswith("Traceback (most recent call last):")), None)
    if start is not None:
        frames = [n for n, line in enumerate(lines) if n > start and line.startswith(" ")]
        lines = lines[:start] + lines[(frames[-1] if frames else start) + 1 :]
    kept = "\n".join(line.rstrip() for line in lines)
    for pattern, instead in _WASH:
        kept = re.sub(pattern, instead, kept)
    return kept


def text_of(notebook: Notebook) -> str:
    """The text of a notebook file: one form for one content, so that a second refresh changes no byte.

    >>> text_of(lesson(1).notebook("en")) == text_of(lesson(1).notebook("en"))
    True
    """
    import nbformat.v4

    return nbformat.v4.writes(notebook).rstrip("\n") + "\n"


# Executing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Refreshed(Facts):
    """What `refresh` did to each lesson: `written` or `unchanged`; `seconds` by lesson is for progress lines."""

    lessons: tuple[tuple[str, str, int], ...]
    seconds: Mapping[str, float]
    executed: bool = True

    def summary(self) -> str:
        written = sum(state == "written" for _, state, _ in self.lessons)
        done = "executed" if self.executed else "with the outputs that were stored"
        return f"{len(self.lessons)} {'lesson' if len(self.lessons) == 1 else 'lessons'} {done}, {written} written"

    def rows(self) -> list[dict[str, object]]:
        return [{"lesson": name, "notebooks": state, "code cells": cells} for name, state, cells in self.lessons]


def refresh(
    wanted: Iterable[str | int] | None = None,
    *,
    root: str | Path | None = None,
    jobs: int = 2,
    texts: bool = False,
    progress: Progress | None = None,
) -> Refreshed:
    """Executes lessons once, each in a fresh kernel in an empty folder, and writes `en/` and `zh/` from that one run.

    `wanted`: lesson numbers, `None` for all. `jobs`: kernels at a time. `progress(number, state, seconds)` is called
    with state `running`, then `written`, `unchanged` or `failed`. All sources are parsed before anything runs; the
    notebooks of a lesson are replaced only when every cell of it ran. `texts` executes nothing and keeps the stored outputs:
    for a lesson of which only the words changed; one whose code changed is refused. Raises `LessonError` with one line for each
    lesson that failed, after the others are done.

    >>> refresh(["99"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tutorlib.lessons.LessonError: no lesson 99: expected one of ...
    """
    lessons = [lesson(n, root) for n in numbers(wanted, root)]
    tell = progress or (lambda number, state, seconds: None)

    from concurrent.futures import ThreadPoolExecutor

    tasks: list[tuple[Any, Any]] = []

    def one(item: Lesson) -> tuple[Lesson, str, float]:
        start = time.monotonic()
        tell(item.number, "running", 0.0)
        try:
            state = "written" if _write(item, _stored_run(item) if texts else _execute(item, tasks)) else "unchanged"
        except LessonError as error:
            tell(item.number, "failed", time.monotonic() - start)
            return item, str(error), time.monotonic() - start
        seconds = time.monotonic() - start
        tell(item.number, state, seconds)
        return item, state, seconds

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        try:
            done = list(pool.map(one, lessons))
        except BaseException:  # Ctrl-C: end the kernels now, not when their lessons are done
            pool.shutdown(wait=False, cancel_futures=True)
            for loop, task in tasks:
                with suppress(RuntimeError):  # a loop that is closed has ended its kernel
                    loop.call_soon_threadsafe(task.cancel)
            raise
    failed = [state for _, state, _ in done if state not in ("written", "unchanged")]
    if failed:
        raise LessonError("\n".join(failed))
    return Refreshed(
        tuple((item.name, state, len(item.code)) for item, state, _ in done),
        {item.number: seconds for item, _, seconds in done},
        executed=not texts,
    )


def _stored_run(item: Lesson) -> Notebook:
    """The lesson in English with the outputs that are stored, if its code is what they came from."""
    import nbformat.v4 as v4

    book, path = item.notebook("en"), item.stored("en")
    mend = f"`tutorlib refresh {item.number}` executes it"
    if not path.is_file():
        raise LessonError(f"{item.path.name}: en/{path.name} does not exist: {mend}")
    stored = [c for c in v4.reads(path.read_text(encoding="utf-8")).cells if c.cell_type == "code"]
    fresh = [c for c in book.cells if c.cell_type == "code"]
    for number, (new, old) in enumerate(zip(fresh, stored, strict=False), 1):
        raising = ["raises-exception" in c.metadata.get("tags", []) for c in (new, old)]
        if new.source != old.source or raising[0] != raising[1] or old.execution_count != number:
            raise LessonError(f"{_place(item, number)} is not the code that was executed: {mend}")
    if len(fresh) != len(stored):
        raise LessonError(f"{item.path.name} has {len(fresh)} code cells, {len(stored)} were executed: {mend}")
    for new, old in zip(fresh, stored, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    return book


def kernel_environment(ipython: str | Path) -> dict[str, str]:
    """The environment in which lessons are executed and verified: the same on every machine as far as it can be.

    `ipython` is an empty folder that stands for the user's IPython profile. Colours, terminals and settings of
    tutorlib, pytest and Python's warnings are taken out; hashes are fixed, so that the order of sets is.

    >>> kernel_environment("empty")["PYTHONHASHSEED"]
    '0'
    """
    gone = re.compile(
        r"TUTORLIB_.*|PYTEST_.*|PYTHONWARNINGS|PYTHONSTARTUP|FORCE_COLOR|CLICOLOR.*|COLUMNS|LINES|COLORTERM|MPLBACKEND"
    )
    kept = {name: value for name, value in os.environ.items() if not gone.fullmatch(name)}
    return kept | {
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHON_COLORS": "0",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "IPYTHONDIR": str(ipython),
    }


def lesson_environment(ipython: str | Path) -> dict[str, str]:
    """The same for this course's lessons: torch does not tell that a loader has more workers than the machine has cores.

    What is compared must not depend on the number of cores, and a learner on one core is told all the same.

    >>> lesson_environment("empty").keys() - kernel_environment("empty").keys()
    {'PYTHONWARNINGS'}
    """
    return kernel_environment(ipython) | {"PYTHONWARNINGS": "ignore:This DataLoader will create:UserWarning"}


@contextmanager
def _empty_folder() -> Iterator[Path]:
    # On Windows a kernel that ends may still hold a file for a moment: an empty folder left behind is no failure.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tutorlib-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _execute(item: Lesson, tasks: list[tuple[Any, Any]]) -> Notebook:
    """The lesson in English with outputs, from a fresh kernel of this interpreter; `tasks` says how to stop it."""
    import asyncio

    import ipykernel.kernelspec
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    class ThisPython(KernelSpecManager):
        """`python3` is this interpreter, whatever kernels the user has installed under that name."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(resource_dir=ipykernel.kernelspec.RESOURCES, **ipykernel.kernelspec.get_kernel_dict())

    book = item.notebook("en")
    with _empty_folder() as folder, Path(os.devnull).open("w") as nowhere:
        (folder / "ipython").mkdir()
        (folder / "work").mkdir()
        started = 0

        def count(cell: Notebook, cell_index: int) -> None:
            nonlocal started
            started += cell.cell_type == "code"

        async def execute() -> None:
            tasks.append((asyncio.get_running_loop(), asyncio.current_task()))
            await client.async_execute(env=lesson_environment(folder / "ipython"), stderr=nowhere, cleanup_kc=True)

        client = NotebookClient(
            book,
            on_cell_start=count,
            km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython()),
            timeout=CELL_SECONDS,
            startup_timeout=180,
            iopub_timeout=60,  # a busy machine: late outputs must not be lost in silence
            raise_on_iopub_timeout=True,
            store_widget_state=False,
            record_timing=False,
            resources={"metadata": {"path": str(folder / "work")}},
        )
        try:
            # A loop of its own in each thread; a selector loop, because zmq has no other on Windows.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(execute())
        except CellExecutionError as error:
            raise LessonError(
                f"{_place(item, started)} raised {_last_line(f'{error.ename}: {_error_text(error.evalue)}')}; old notebooks kept"
            ) from error
        except CellTimeoutError as error:
            raise LessonError(f"{_place(item, started)} did not end within {CELL_SECONDS} s; old notebooks kept") from error
        except DeadKernelError as error:
            where = f"{_place(item, started)} ended the kernel" if started else f"{item.path.name}: the kernel did not start"
            raise LessonError(f"{where}; old notebooks kept") from error
    for number, cell in enumerate((c for c in book.cells if c.cell_type == "code"), 1):
        cell.outputs = normalised(cell.outputs)
        cell.metadata.pop("execution", None)
        tags = cell.metadata.get("tags", [])
        if "raises-exception" in tags and not any(o.output_type == "error" for o in cell.outputs):
            raise LessonError(
                f"{_place(item, number)} is tagged raises-exception but raised nothing: mend it or drop the tag; "
                "old notebooks kept"
            )
    return book


def _place(item: Lesson, number: int) -> str:
    cell = item.code[number - 1]
    return f"{item.path.name}, line {cell.line}, cell [{number}] `{_first_line(cell.source)}`"


def _write(item: Lesson, executed: Notebook) -> bool:
    """Writes both notebooks, each beside its place and then moved; True when a byte changed."""
    outputs = {c.id: c for c in executed.cells if c.cell_type == "code"}
    texts = {}
    for language in LANGUAGES:
        book = item.notebook(language)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs = copy.deepcopy(outputs[cell.id].outputs)
                cell.execution_count = outputs[cell.id].execution_count
        texts[item.stored(language)] = text_of(book)
    changed = {path: text for path, text in texts.items() if not path.is_file() or path.read_bytes() != text.encode()}
    import tempfile

    written: list[tuple[Path, Path]] = []
    try:
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            written.append((Path(name), path))
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
            Path(name).chmod(0o644)
        for made, path in written:
            made.replace(path)
    finally:
        for made, _ in written:
            with suppress(FileNotFoundError):
                made.unlink()
    return bool(changed)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.split("\n") if line.strip()), "")[:60]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(_ANSI.sub("", text).split("\n")) if line.strip()), "no message")


# The ledger of statements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """One statement of the notes and what became of it: `true`, `changed`, `false`, or true only on a `platform`.

    `differs` are the versions of torch, such as "2.14", on which a proving cell prints something else than what is stored.
    """

    id: str
    source: str
    section: str
    lesson: str
    verdict: str
    statement: Mapping[str, str]
    note: Mapping[str, str]
    since: str = ""
    also: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    @property
    def sections(self) -> tuple[str, ...]:
        """Every section of the notes that says it, as `source: section`."""
        return (f"{self.source}: {self.section}", *self.also)


@dataclass(frozen=True)
class Proof:
    """The code cell that shows a claim: `cell` is the number that Jupyter shows as `[n]`."""

    claim: str
    lesson: str
    cell: int
    cell_id: str


@dataclass(frozen=True, repr=False)
class Claims(Facts):
    """The ledger with verdicts and proving cells."""

    claims: tuple[Claim, ...]
    proofs: Mapping[str, tuple[Proof, ...]]
    language: str = "en"

    def summary(self) -> str:
        counts = ", ".join(f"{sum(c.verdict == v for c in self.claims)} {v}" for v in VERDICTS)
        proven = sum(c.id in self.proofs for c in self.claims)
        return f"{len(self.claims)} claims: {counts}; {proven} proven by a cell"

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "claim": c.id,
                "section": f"{c.source}: {c.section}",
                "verdict": c.verdict,
                "since": c.since or None,
                "proven by": self._proven(c),
                "statement": c.statement[self.language],
                "today": c.note[self.language],
            }
            for c in self.claims
        ]

    def _proven(self, claim: Claim) -> str | None:
        return ", ".join(f"{p.lesson} [{p.cell}]" for p in self.proofs.get(claim.id, ())) or None

    def __str__(self) -> str:
        """Three lines a claim, under the title of its section: two sentences in a row of a table are too wide to read."""
        lines, section = [self.summary()], ""
        for c in self.claims:
            if c.sections[0] != section:
                section = c.sections[0]
                lines += ["", section]
            since = f" since {c.since}" if c.since else ""
            proven = self._proven(c)
            lines.append(f"  {c.id}  {c.verdict}{since}, {f'proven by {proven}' if proven else 'not proven by a cell'}")
            lines += [f"    notes: {c.statement[self.language]}", f"    today: {c.note[self.language]}"]
        return "\n".join(lines)


def ledger(root: str | Path | None = None) -> list[Claim]:
    """The claims of `claims.toml`, in the order of the file; an absent file is an empty ledger.

    Raises `LessonError` naming the file, the claim and what is expected: a missing or unknown field, an unknown
    verdict, an id that stands twice.

    >>> ledger()[0].id
    'DL-01'
    """
    import tomllib

    path = find_root(root) / "claims.toml"
    if not path.is_file():
        return []
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LessonError(f"{path.name}: not TOML: {error}") from error
    extra = [key for key in content if key != "claim"]
    if extra or not isinstance(content.get("claim", []), list):
        raise LessonError(f"{path.name}: found {', '.join(extra) or 'one [claim]'}, expected only [[claim]] tables")
    made: dict[str, Claim] = {}
    for number, table in enumerate(content.get("claim", []), 1):
        one = _claim(path.name, number, table)
        if one.id in made:
            raise LessonError(f"{path.name}: claim {one.id} stands twice (the second is number {number}); expected each id once")
        made[one.id] = one
    return list(made.values())


def _claim(name: str, number: int, table: Mapping[str, Any]) -> Claim:
    which = f"claim {table['id']}" if isinstance(table.get("id"), str) else f"claim number {number}"
    needed, known = ("id", "source", "section", "lesson", "verdict"), ("since", "also", "differs", "statement", "note")
    for field in needed:
        if not isinstance(table.get(field), str) or not table[field].strip():
            asked = f"every claim has {', '.join(needed)}, statement, note"
            raise LessonError(f"{name}: {which}: {field} is {table.get(field)!r}, expected a text; {asked}")
    if not isinstance(table.get("since", ""), str):
        raise LessonError(f"{name}: {which}: since is {table['since']!r}, expected a text")
    also = table.get("also", [])
    if not isinstance(also, list) or not all(isinstance(s, str) and re.match(r"\d{3}: ", s) for s in also):
        raise LessonError(
            f'{name}: {which}: also is {also!r}, expected a list of texts such as ["000: 2. Data Loading Order and Sampler"]'
        )
    differs = table.get("differs", [])
    if not isinstance(differs, list) or not all(isinstance(v, str) and re.fullmatch(r"\d+\.\d+", v) for v in differs):
        raise LessonError(f'{name}: {which}: differs is {differs!r}, expected a list of versions of torch such as ["2.14"]')
    unknown = [field for field in table if field not in needed + known]
    if unknown:
        raise LessonError(f"{name}: {which}: unknown field {', '.join(unknown)}; expected {', '.join(needed + known)}")
    for field in ("statement", "note"):
        texts = table.get(field)
        if (
            not isinstance(texts, Mapping)
            or set(texts) != set(LANGUAGES)
            or not all(isinstance(t, str) and t.strip() for t in texts.values())
        ):
            raise LessonError(f"{name}: {which}: {field} is {texts!r}, expected [claim.{field}] with en and zh")
    if table["verdict"] not in VERDICTS:
        raise LessonError(f"{name}: {which}: verdict is {table['verdict']!r}, expected one of {', '.join(VERDICTS)}")
    if not re.fullmatch(r"\d\d", table["lesson"]):
        raise LessonError(f'{name}: {which}: lesson is {table["lesson"]!r}, expected two digits such as "01"')
    return Claim(
        **{
            **table,
            "statement": dict(table["statement"]),
            "note": dict(table["note"]),
            "also": tuple(also),
            "differs": tuple(differs),
        }
    )


def proofs(root: str | Path | None = None) -> dict[str, tuple[Proof, ...]]:
    """Which code cells are tagged `claim:<id>`, by claim, read from the sources; ids are not checked here.

    >>> proofs()["DL-01"][0].lesson
    '01'
    """
    found: dict[str, list[Proof]] = {}
    for path in sources(root):
        for number, cell in enumerate(parse(path).code, 1):
            for claim in cell.tagged("claim"):
                found.setdefault(claim, []).append(Proof(claim, path.stem[:2], number, cell.id))
    return {claim: tuple(cells) for claim, cells in found.items()}


def claims(section: str | None = None, *, root: str | Path | None = None, language: str = "en") -> Claims:
    """The ledger with verdicts and proving cells, all of it or one section.

    `section`: a source (three digits, "000"), a lesson (two, "01"), the start of an id ("DL") or a part of a section's
    title ("Dataset Types"). Raises `LessonError` when nothing matches, and when a cell is tagged with a claim that the
    ledger lacks.

    >>> claims("DL").rows()[0]["verdict"]
    'true'
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: expected one of {', '.join(LANGUAGES)}")
    known, proving = ledger(root), proofs(root)
    ids = {c.id for c in known}
    unknown = [f"{p.lesson} [{p.cell}] claim:{claim}" for claim, cells in proving.items() if claim not in ids for p in cells]
    if unknown:
        raise LessonError(
            f"claims.toml: unknown id in the tags of {', '.join(unknown)}; mend the tag or add the claim to the ledger"
        )
    if section is not None:
        wish = section.casefold().strip()
        chosen = [c for c in known if _matches(c, wish)]
        if not chosen:
            there = sorted({s for c in known for s in c.sections})
            raise LessonError(
                f"no claim in section {section!r}; expected a part of one of: {'; '.join(there) or 'none, the ledger is empty'}"
            )
        known = chosen
    return Claims(tuple(known), {c.id: proving[c.id] for c in known if c.id in proving}, language)


def _matches(claim: Claim, wish: str) -> bool:
    if re.fullmatch(r"\d\d", wish):
        return wish == claim.lesson
    if re.fullmatch(r"\d{3}", wish):
        return any(s.startswith(f"{wish}: ") for s in claim.sections)
    return claim.id.casefold().startswith(f"{wish}-") or any(wish in s.casefold() for s in claim.sections)
