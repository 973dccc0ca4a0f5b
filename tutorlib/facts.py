"""A result prints the same text everywhere: in a terminal, in a cell, under a widget and in a test.

Every public function of tutorlib that has something to tell returns facts: a frozen dataclass that
derives from `Facts` and says what it holds as rows. A view only draws them; a test only compares them.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Facts", "Link", "Table", "cell", "width"]

Row = Mapping[str, object]


class Facts:
    """A result that knows its own text: one sentence (`summary`) and a table (`rows`).

    Subclasses are frozen dataclasses made with `repr=False`. What `summary` and `rows` return must be the
    same on every machine and in every run: no time, pid, address, temporary path, version or core count.
    Such things are plain attributes, there for the views.

    >>> @dataclass(frozen=True, repr=False)
    ... class Split(Facts):
    ...     size: int
    ...     def summary(self):
    ...         return f"{self.size} samples over 2 workers"
    ...     def rows(self):
    ...         return [{"worker": w, "samples": list(range(self.size))[w::2]} for w in (0, 1)]
    >>> Split(5)
    5 samples over 2 workers
    worker  samples
         0  [0, 2, 4]
         1  [1, 3]
    """

    def summary(self) -> str:
        """One sentence that says what was found; it is also the caption and the accessible title of a view."""
        return ""

    def rows(self) -> Sequence[Row]:
        """The facts as rows of a table; every row has the same columns, in the order of the first row."""
        raise NotImplementedError(f"{type(self).__name__} must define rows()")

    def __str__(self) -> str:
        return "\n".join(part for part in (self.summary(), _aligned(self.rows())) if part)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return _html(self.summary(), self.rows())


@dataclass(frozen=True, repr=False)
class Table(Facts):
    """Facts given as ready rows: `Table("two workers", [{"worker": 0, "samples": [0, 2]}])`.

    >>> Table("what came out", [{"call": "list(loader)", "batches": 2, "equal": True}])
    what came out
    call          batches  equal
    list(loader)        2  yes
    """

    caption: str
    content: Sequence[Row]

    def summary(self) -> str:
        return self.caption

    def rows(self) -> Sequence[Row]:
        return self.content


@dataclass(frozen=True)
class Link:
    """A value with an address: its text in a text, a link in a notebook.

    >>> Table("next", [{"lesson": "01", "title": Link("Samplers", "04_samplers.ipynb")}])
    next
    lesson  title
    01      Samplers
    """

    text: str
    address: str

    def __str__(self) -> str:
        return self.text


def cell(value: object) -> str:
    """The text of one value: `yes`/`no` for bools, `-` for None, floats with six digits, sets sorted, one line.

    The same inside lists, tuples, sets and dicts, and for NumPy's scalars.

    >>> [cell(v) for v in (True, None, 0.1 + 0.2, {3, 1}, (1, 2.0))]
    ['yes', '-', '0.3', '{1, 3}', '(1, 2)']
    """
    value = _plain(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted((_inner(v) for v in value), key=_natural)) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_inner, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(_inner, value)) + ("," if len(value) == 1 else "") + ")"
    if type(value) is dict:
        return "{" + ", ".join(f"{_inner(k)}: {_inner(v)}" for k, v in value.items()) + "}"
    return " ".join(str(value).split())


def width(text: str) -> int:
    """Columns that a text takes in a terminal: Chinese characters take two, combining marks none.

    >>> width("worker"), width("工作进程")
    (6, 8)
    """
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _plain(value: object) -> object:
    """A NumPy scalar as Python's own; nothing is imported to know one."""
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if is_scalar else value  # type: ignore[attr-defined]


def _inner(value: object) -> str:
    return repr(value) if isinstance(value, str) else cell(value)


def _natural(text: str) -> tuple[int, float, str]:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (1, 0.0, text) if math.isnan(number) else (0, number, text)  # nan has no place among numbers


def _columns(rows: Sequence[Row]) -> list[str]:
    names = list(rows[0])
    for number, row in enumerate(rows):
        if list(row) != names:
            raise ValueError(
                f"row {number} has the columns {list(row)}, expected {names} as in row 0: give every row the same columns"
            )
    return names


def _numeric(column: Iterable[object]) -> bool:
    return all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in map(_plain, column))


def _aligned(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    names = _columns(rows)
    right = {n: _numeric(row[n] for row in rows) for n in names}
    table = [names, *([cell(row[n]) for n in names] for row in rows)]
    widths = [max(width(line[i]) for line in table) for i in range(len(names))]

    def line(texts: Sequence[str]) -> str:
        padded = (
            " " * (w - width(t)) + t if right[n] else t + " " * (w - width(t))
            for t, w, n in zip(texts, widths, names, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, table))


_LEFT = "text-align:left"  # inline: JupyterLab's own sheet sets every cell of a table to the right


def _markup(value: object) -> str:
    text = html.escape(cell(value))
    return f'<a href="{html.escape(value.address)}">{text}</a>' if isinstance(value, Link) else text


def _html(caption: str, rows: Sequence[Row]) -> str:
    """An accessible table: a caption and scoped headers; the first column names its row. Without rows, a paragraph."""
    if not rows:
        return f"<p>{html.escape(caption)}</p>" if caption else ""
    # A caption is as wide as its table unless told; a long one may wrap.
    look = f"{_LEFT};white-space:nowrap" if width(caption) <= 100 else _LEFT
    head = f'<caption style="{look}">{html.escape(caption)}</caption>' if caption else ""
    names = _columns(rows)
    side = {n: "" if _numeric(row[n] for row in rows) else f' style="{_LEFT}"' for n in names}
    top = "".join(f'<th scope="col"{side[n]}>{html.escape(n)}</th>' for n in names)

    def line(row: Row) -> str:
        texts = [_markup(row[n]) for n in names]
        first = f'<th scope="row"{side[names[0]]}>{texts[0]}</th>'
        return first + "".join(f"<td{side[n]}>{text}</td>" for n, text in zip(names[1:], texts[1:], strict=True))

    body = "".join(f"<tr>{line(row)}</tr>" for row in rows)
    return f"<table>{head}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
