"""Facts as pictures: six generic drawings in HTML and SVG, for a widget and for a stored notebook.

Each function takes facts, asks them for plain data by one method, and returns a `Picture`: an HTML string with an
inline SVG and the facts' own table. The facts know nothing of pictures; the protocols are plain lists and dicts.

| picture | asks for | plain data |
|---|---|---|
| `timeline` | `lanes(clock)` | `{"unit": "ms", "lanes": [{"name": "main", "spans": [{"start": 0, "stop": 2, "kind": "fetch", "label": "0", "ticks": [1]}]}]}` |
| `grid` | `grid()` | `{"rows": [{"label": "rank 0", "cells": [{"label": "worker 0", "items": [{"text": "3", "sign": "x2"}]}]}], "missing": ["7"]}` |
| `tree` | `tree()` | `[{"depth": 0, "path": "batch", "before": "3 x tuple", "rule": "per field", "after": "list", "surprise": True}]` |
| `graph` | `graph()` | the lines of `tree`: `path` and `before` a module and its class, `rule` a node, `after` what it gives |
| `ruler` | `ruler()` | `{"unit": "batch", "cut": 2, "tracks": [{"name": "resumed", "cells": [{"text": "0", "state": "same"}]}]}` |
| `bars` | `bars()` | `{"unit": "bytes", "bars": [{"name": "big[:3]", "value": 4000000, "note": "the whole storage"}]}` |

Kinds of span: `start`, `fetch`, `collate`, `wait`, `use`. States of a cell: `same`, `different`, `missing`, `repeated`,
`""`. Signs: any short text, such as `x2`. A grid's `"unit"` says what its items are, where they are no samples. What matters is never said by colour alone: it has a hatch or a sign too.
"""  # noqa: E501 - a table

from __future__ import annotations

import base64
import functools
import hashlib
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tutorlib.facts import Facts, width

__all__ = ["Picture", "bars", "graph", "grid", "ruler", "stored", "timeline", "tree"]

WIDTH = 760
_BYTES = 12_000  # of one stored picture; what does not fit is counted, not drawn
_LABEL = 200.0  # room for the name of a lane, a track or a row
_MOST = (64, 48, 40, 32, 24, 16, 12, 8)  # things drawn in one picture: as many as fit in those bytes


class Picture(str):
    """An HTML string (live form) that also knows its stored form; pictures can be added to each other."""

    stored: str

    def __new__(cls, live: str, stored: str) -> Picture:
        picture = super().__new__(cls, live)
        picture.stored = stored
        return picture

    def __add__(self, other: str) -> Picture:
        return Picture(str(self) + str(other), self.stored + getattr(other, "stored", str(other)))

    def _repr_html_(self) -> str:
        return self.stored


def stored(picture: Any, facts: Facts | None = None) -> str:
    """The form for a notebook file: `<img src="data:image/svg+xml...">`, which JupyterLab shows before it trusts it.

    `picture` is what a function here returned, or any HTML; inline `<svg>` elements in it become images. `facts`, if
    given, add their table where the HTML has none. The same facts give the same bytes.

    >>> stored("<p>two workers</p>")
    '<p>two workers</p>'
    """
    text = picture.stored if isinstance(picture, Picture) else re.sub(r"<svg\b.*?</svg>", _as_image, str(picture), flags=re.S)
    if facts is not None and "<table" not in text:
        text += facts._repr_html_()
    return text


def timeline(facts: Any, *, title: str = "Timeline", clock: str = "order") -> Picture:
    """Lanes over time: what the main process and each worker did; `facts.lanes(clock)`.

    `clock="order"` is logical: a sample takes one step, and nothing starts before what it needs. `clock="seconds"` shows
    the measured time, worth it where fetching a sample takes milliseconds. Stored is always the order: it is the same in
    every run. Errors: ValueError for another clock.
    """
    return _both(facts, title, _timeline, facts.lanes(clock), facts.lanes("order"))


def grid(facts: Any, *, title: str = "Who got which sample") -> Picture:
    """Rank x worker: the keys that each got, what came twice and what never came; `facts.grid()`."""
    return _both(facts, title, _grid, facts.grid())


def tree(facts: Any, *, title: str = "Before and after") -> Picture:
    """A nested structure before and after, with the rule that fired at each place; `facts.tree()`.

    Facts that call the four columns by other names have these as `facts.heads`.
    """
    heads = getattr(facts, "heads", ("where", "before", "rule", "after"))
    return _both(facts, title, functools.partial(_tree, heads=heads), facts.tree())


def graph(facts: Any, *, title: str = "Nodes beside modules") -> Picture:
    """The nodes of an exported graph beside the modules that they come from; `facts.graph()`."""
    return _both(facts, title, functools.partial(_tree, heads=("module", "class", "node", "gives")), facts.graph())


def ruler(facts: Any, *, title: str = "Step by step") -> Picture:
    """Sequences laid side by side, cell under cell, with a cut where a run stopped; `facts.ruler()`."""
    return _both(facts, title, _ruler, facts.ruler())


def bars(facts: Any, *, title: str = "Sizes") -> Picture:
    """Amounts compared; `facts.bars()`. With `"measured": True` they differ from run to run: stored without the amounts."""
    data = facts.bars()
    kept = {**data, "bars": [{**entry, "value": None} for entry in data["bars"]]} if data.get("measured") else None
    return _both(facts, title, _bars, data, kept)


# The five drawings: each gives the inner SVG and its height, of at most `most` things.

_Drawing = tuple[str, float]

_KINDS = {  # kind of span -> class of its box, words of the legend
    "start": ("nx", "start workers"),
    "fetch": ("a", "fetch samples"),
    "collate": ("bh", "collate"),
    "wait": ("w", "main waits"),
    "use": ("cd", "loop body"),
}


def _timeline(data: Mapping[str, Any], most: int) -> _Drawing:
    lanes = [(_fit(lane["name"], _LABEL), list(lane["spans"])) for lane in data["lanes"]]
    numbers = sorted({int(s["label"]) for _, spans in lanes for s in spans if str(s["label"]).isdecimal()})
    hidden = len(numbers) - most
    if hidden > 0:
        shown = {str(n) for n in numbers[:most]}
        lanes = [(n, [s for s in spans if str(s["label"]) in shown or not str(s["label"]).isdecimal()]) for n, spans in lanes]
    left = 24.0 + max((_wide(name) for name, _ in lanes), default=0)
    right, top, lane_height, gap = WIDTH - 16.0, 46.0, 30.0, 12.0
    end = max((s["stop"] for _, spans in lanes for s in spans), default=1) or 1
    step = _nice(end / 8)
    scale = (right - left) / end

    def x(t: float) -> float:
        return left + t * scale

    bottom = top + len(lanes) * (lane_height + gap) - gap + 8
    parts: list[str] = []
    kinds = [k for k in _KINDS if any(s["kind"] == k for _, spans in lanes for s in spans)]
    at = 16.0
    for kind in kinds:
        parts.append(_rect(at, 12, 18, 12, _KINDS[kind][0], 3) + _text(at + 24, 22, _KINDS[kind][1], "s"))
        at += 24 + _wide(_KINDS[kind][1], 11) + 18
    t = 0.0
    while t <= end * 1.0001:
        parts.append(_line(x(t), top - 8, x(t), bottom, "g") + _text(x(t), bottom + 14, _number(t), "s m"))
        t += step
    parts.append(_text(right, bottom + 28, _fit(data["unit"], 300, 11), "s e"))
    boxes: dict[str, list[str]] = {}  # all of one kind in one path: a timeline has hundreds
    ticks: list[str] = []
    texts: list[str] = []
    for row, (name, spans) in enumerate(lanes):
        y = top + row * (lane_height + gap)
        texts.append(_text(16, y + lane_height / 2 + 4, name, ""))
        for s in spans:
            start, wide = x(s["start"]), max(0.6, (s["stop"] - s["start"]) * scale)
            inset = 9 if s["kind"] == "wait" else 0
            tall = lane_height - 2 * inset
            boxes.setdefault(s["kind"], []).append(f"M{_n(start)} {_n(y + inset)}h{_n(wide)}v{_n(tall)}H{_n(start)}z")
            marks = [x(t) for t in s.get("ticks", ())]
            if marks and wide / (len(marks) + 1) >= 4:
                ticks += [f"M{_n(m)} {_n(y + lane_height - 6)}v5" for m in marks]
            if s["kind"] in ("fetch", "use") and wide >= _wide(s["label"], 11) + 3:
                look = "s m k" if s["kind"] == "fetch" else "s m k l"  # on dots a number needs a ground of its own
                texts.append(_text(start + wide / 2, y + lane_height / 2 + 3.5, s["label"], look))
    parts += [f'<path class="{_KINDS[kind][0]}" d="{"".join(boxes[kind])}"/>' for kind in kinds]
    if ticks:
        parts.append(f'<path class="t" d="{"".join(ticks)}"/>')
    parts += texts
    if hidden > 0:
        parts.append(_text(16, bottom + 28, f"the first {most} of {len(numbers)} batches", "s"))
    return "".join(parts), bottom + 38


def _grid(data: Mapping[str, Any], most: int) -> _Drawing:
    rows = [  # four cells side by side at most: there are machines with many workers
        {"label": row["label"] if first == 0 else "", "cells": row["cells"][first : first + 4]}
        for row in data["rows"]
        for first in range(0, max(1, len(row["cells"])), 4)
    ]
    missing, unit = list(data.get("missing", ())), data.get("unit", "sample")
    labels = max((_wide(_fit(row["label"], _LABEL)) for row in rows), default=0)
    left = 16.0 + (labels + 12 if labels else 0)
    columns = max((len(row["cells"]) for row in rows), default=1) or 1
    most = max(3, most // max(1, sum(len(row["cells"]) for row in rows)))
    gap = 10.0
    cell_width = (WIDTH - 16 - left - gap * (columns - 1)) / columns
    y = 12.0
    parts: list[str] = []

    def chips(items: Sequence[Mapping[str, str]], x0: float, y0: float, room: float, style: str = "") -> float:
        """Draws items in lines from (x0, y0); returns the height used."""
        x, line = x0, 0
        more = len(items) - most
        for item in items[:most] if more > 0 else items:
            text = _fit(item["text"], min(140.0, room - 40))
            sign = str(item.get("sign") or "")
            plain = max(26.0, _wide(text) + 13)
            wide = plain + (_wide(sign, 11) + 8 if sign else 0)
            if x > x0 and x + wide > x0 + room:
                x, line = x0, line + 1
            top = y0 + line * 28
            parts.append(_rect(x, top, wide, 22, style or ("rh" if sign else "a"), 5))
            if sign:  # the hatch shows beneath the sign only: the key stays easy to read
                parts.append(_rect(x, top, plain, 22, "r", 5))
                parts.append(_text((x + plain + x + wide) / 2, top + 15, sign, "u m"))
            parts.append(_text(x + plain / 2, top + 15.5, text, "m"))
            x += wide + 6
        if more > 0:
            if x + 80 > x0 + room:
                x, line = x0, line + 1
            parts.append(_text(x + 2, y0 + line * 28 + 15.5, f"+ {more} more", "s"))
        return (line + 1) * 28.0 - 6

    for row in rows:
        tallest = 0.0
        slot = len(parts)
        for i, cell in enumerate(row["cells"]):
            x = left + i * (cell_width + gap)
            items = list(cell["items"])
            parts.append(_text(x + 10, y + 19, _fit(cell["label"], cell_width - 90), ""))
            parts.append(_text(x + cell_width - 10, y + 19, _counted(len(items), unit), "s e"))
            used = chips(items, x + 10, y + 30, cell_width - 20) if items else 22.0
            if not items:
                parts.append(_text(x + 10, y + 45, "nothing", "s"))
            tallest = max(tallest, 30 + used + 10)
        boxes = [_rect(left + i * (cell_width + gap), y, cell_width, tallest, "p", 8) for i in range(len(row["cells"]))]
        parts[slot:slot] = boxes
        if row["label"]:
            parts.append(_text(16, y + 19, _fit(row["label"], _LABEL), ""))
        y += tallest + 10
    if missing:
        parts.append(_text(16, y + 16, f"never came ({len(missing)})", ""))
        start = 16 + _wide(f"never came ({len(missing)})") + 14
        y += chips([{"text": m, "sign": ""} for m in missing], start, y, WIDTH - 16 - start, "o") + 10
    return "".join(parts), y + 4


def _tree(lines: Sequence[Mapping[str, Any]], most: int, heads: Sequence[str]) -> _Drawing:
    hidden = len(lines) - most
    lines = lines[:most]
    cells = [[_short(str(line.get(c) or ""), 40) for c in ("path", "before", "rule", "after")] for line in lines]
    indent = 16.0
    wants = [
        max(
            [_wide(row[c]) + (int(line["depth"]) * indent if c == 0 else 0) for row, line in zip(cells, lines, strict=True)]
            + [max(60.0, _wide(heads[c], 11))]
        )
        for c in range(4)
    ]
    mark, room = 22.0, WIDTH - 32 - 22.0 - 3 * 22
    shrink = min(1.0, room / sum(wants))
    spare = max(0.0, room - sum(wants)) / 4
    wide = [w * shrink + spare for w in wants]
    xs = [16 + mark + sum(wide[:c]) + 22 * c for c in range(4)]
    height, top = 26.0, 40.0
    parts = [_text(xs[c], 22, head, "s") for c, head in enumerate(heads)]
    parts.append(_line(16, 30, WIDTH - 16, 30, "g"))
    any_surprise = False
    for i, (line, row) in enumerate(zip(lines, cells, strict=True)):
        y = top + i * height
        base = y + 12
        if line.get("surprise"):
            any_surprise = True
            parts.append(_rect(14, y - 5, WIDTH - 28, height - 2, "r", 5) + _text(26, base + 1, "!", "m u"))
        depth = int(line["depth"])
        if depth:
            parent = next((j for j in range(i - 1, -1, -1) if int(lines[j]["depth"]) < depth), i - 1)
            x = xs[0] + (depth - 1) * indent + 4
            parts.append(f'<path class="v" d="M{_n(x)} {_n(top + parent * height + 18)}V{_n(y + 8)}h8"/>')
        for c in range(4):
            room_here = wide[c] - (depth * indent if c == 0 else 0)
            text = _fit(row[c], room_here)
            if c == 2 and text:
                box = _wide(text, 11) + 18 + 0.4 * 11 * sum(c in "mwMW@%" for c in text)
                parts.append(_rect(xs[c] - 7, y - 2, box, 19, "b", 9) + _text(xs[c], base, text, "s k"))
            elif text:
                parts.append(_text(xs[c] + (depth * indent if c == 0 else 0), base, text, "" if c else "f"))
    y = top + len(lines) * height
    notes = []
    if any_surprise:
        notes.append("!  not what one may expect")
    if hidden > 0:
        notes.append(f"+ {hidden} more lines")
    for note in notes:
        parts.append(_text(16, y + 14, note, "s"))
        y += 18
    return "".join(parts), y + 6


_STATES = {"": "a", "same": "a", "different": "rh", "missing": "o", "repeated": "ch"}
_SIGNS = {"different": "\N{NOT EQUAL TO}", "missing": "?", "repeated": "\N{MULTIPLICATION SIGN}2"}


def _ruler(data: Mapping[str, Any], most: int) -> _Drawing:
    tracks = list(data["tracks"])
    cut = data.get("cut")
    left = 28.0 + max((_wide(_fit(track["name"], _LABEL)) for track in tracks), default=0)
    longest = max((len(track["cells"]) for track in tracks), default=1) or 1
    shown = min(longest, most)
    pitch = min(60.0, (WIDTH - 16 - left) / shown)
    signed = any(c and c.get("state") in _SIGNS for t in tracks for c in t["cells"][:shown])
    height, gap, top = (38.0 if signed else 28.0), 12.0, 34.0
    labels = all(_wide(str(c["text"])) + 2 <= pitch - 4 for t in tracks for c in t["cells"][:shown] if c)
    parts: list[str] = []
    every = max(1, math.ceil(22 / pitch))
    for i in range(0, shown, every):
        parts.append(_text(left + (i + 0.5) * pitch, 22, str(i), "s m"))
    parts.append(_text(16, 22, _fit(data.get("unit", ""), left - 30, 11), "s"))
    used: set[str] = set()
    boxes: dict[str, list[str]] = {}
    for row, track in enumerate(tracks):
        y = top + row * (height + gap)
        parts.append(_text(16, y + height / 2 + 4.5, _fit(track["name"], _LABEL), ""))
        words: dict[tuple[float, str], list[tuple[float, str]]] = {}  # the words of a line share one element: there are many
        for i, item in enumerate(track["cells"][:shown]):
            if item is None:
                continue
            state = str(item.get("state") or "")
            used.add(state)
            x, wide = left + i * pitch, pitch - 4
            boxes.setdefault(_STATES.get(state, "a"), []).append(f"M{_n(x)} {_n(y)}h{_n(wide)}v{_n(height)}H{_n(x)}z")
            if labels:
                line = y + (15 if state in _SIGNS else height / 2 + 4)
                words.setdefault((line, "m"), []).append((x + wide / 2, str(item["text"])))
            if state in _SIGNS:
                words.setdefault((y + (30 if labels else 23), "u m"), []).append((x + wide / 2, _SIGNS[state]))
        for (line, style), many in words.items():
            spans = "".join(f'<tspan x="{_n(x)}">{_escape(word)}</tspan>' for x, word in many)
            parts.append(f'<text y="{_n(line)}" class="{style}">{spans}</text>')
    parts[:0] = [f'<path class="{style}" d="{"".join(paths)}"/>' for style, paths in boxes.items()]
    bottom = top + len(tracks) * (height + gap) - gap
    if cut is not None and 0 <= cut <= shown:
        x = left + cut * pitch - 2
        parts.append(_line(x, top - 6, x, bottom + 6, "q") + _text(x, bottom + 19, "stopped here", "s m"))
    y = bottom + 30
    at = 16.0
    for state in (state for state in _SIGNS if state in used):
        parts.append(_rect(at, y - 6, 24, 16, _STATES[state], 4) + _text(at + 12, y + 6, _SIGNS[state], "u m"))
        parts.append(_text(at + 30, y + 6, state, "s"))
        at += 30 + _wide(state, 11) + 20
    if longest > shown:
        parts.append(_text(at, y + 6, f"the first {shown} of {longest}", "s"))
    if at > 16 or longest > shown:
        y += 20
    return "".join(parts), y


def _bars(data: Mapping[str, Any], most: int) -> _Drawing:
    entries = list(data["bars"])
    hidden = len(entries) - most
    entries = entries[:most]
    unit = _fit(data.get("unit", ""), 80)
    left = 28.0 + min(260.0, max((_wide(e["name"]) for e in entries), default=0))
    values = ["measured when you run it" if e["value"] is None else f"{_number(e['value'])} {unit}".strip() for e in entries]
    notes = [_fit(e.get("note") or "", 220, 11) for e in entries]
    tail = max((_wide(v) + (_wide(n, 11) + 14 if n else 0) for v, n in zip(values, notes, strict=True)), default=0)
    room = max(120.0, WIDTH - 16 - left - min(tail, 330.0) - 12)
    top_value = max((abs(float(e["value"])) for e in entries if e["value"]), default=0) or 1
    parts: list[str] = []
    height, y = 32.0, 12.0
    for entry, value, note in zip(entries, values, notes, strict=True):
        wide = max(2.0, abs(float(entry["value"])) / top_value * room) if entry["value"] else 0.0
        parts.append(_text(16, y + 15.5, _fit(entry["name"], left - 26), ""))
        parts.append(_line(left, y - 2, left, y + 24, "g"))
        if wide:
            parts.append(_rect(left, y, wide, 22, "ch" if note else "a", 3))
        x = left + wide + 8
        parts.append(_text(x, y + 15.5, value, "") + (_text(x + _wide(value) + 12, y + 15, note, "s") if note else ""))
        y += height
    if hidden > 0:
        parts.append(_text(16, y + 10, f"+ {hidden} more", "s"))
        y += 18
    return "".join(parts), y


# From a drawing to the two forms.

# Classes: a b c r n = the palette (blue, green, amber, red, grey), with h d x = hatched; w o p = outlines.
_LIGHT = {
    "ink": "#1f2328",
    "soft": "#59636e",
    "line": "#d5dae1",
    "paper": "#ffffff",
    "panel": "#f7f8fa",
    **{"a": "#dce8ff", "A": "#3566c8", "b": "#d4f0e2", "B": "#1b7f57", "c": "#ffebc4", "C": "#9a5b00"},
    **{"r": "#ffe0e1", "R": "#b3262f", "n": "#e9ecf0", "N": "#6e7783"},
}
_DARK = {
    "ink": "#e8eaed",
    "soft": "#aab2bd",
    "line": "#41474f",
    "paper": "#15181c",
    "panel": "#1d2126",
    **{"a": "#213a6b", "A": "#86adff", "b": "#14422f", "B": "#5fd0a0", "c": "#4a370d", "C": "#f0b955"},
    **{"r": "#551f25", "R": "#ff8d93", "n": "#2c3138", "N": "#98a1b0"},
}
_FONTS = (
    "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Noto Sans CJK SC','PingFang SC','Microsoft YaHei',"
    "'WenQuanYi Zen Hei',sans-serif"
)
_RULES = (
    f"path{{stroke-linejoin:round}}text{{font:13px {_FONTS};fill:var(--ink)}}"
    ".s{font-size:11px;fill:var(--soft)}.k{fill:var(--ink)}.u{font-size:10px;font-weight:700;fill:var(--R)}"
    ".l{paint-order:stroke;stroke:var(--c);stroke-width:5;stroke-linejoin:round}"
    ".m{text-anchor:middle}.e{text-anchor:end}.f{font-weight:600}"
    + "".join(f".{c}{{fill:var(--{c});stroke:var(--{c.upper()})}}" for c in "abcrn")
    + ".w{fill:none;stroke:var(--N);stroke-dasharray:3 2}.o{fill:none;stroke:var(--R);stroke-dasharray:4 3}"
    ".p{fill:var(--panel);stroke:var(--line)}.g{stroke:var(--line)}.q{stroke:var(--R);stroke-width:2;stroke-dasharray:5 3}"
    ".t{stroke:var(--A);stroke-opacity:.7}.v{fill:none;stroke:var(--N)}"
)


_HATCHED = ("bh", "ch", "rh", "cd", "nx")
_TURNED = ' patternTransform="rotate(45)"'
_HATCHES = {"h": (_TURNED, "M1 0V6"), "d": ("", "M1 2h2M4 5h2"), "x": (_TURNED, "M0 0V6M0 0H6")}


def _palette(colours: Mapping[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colours.items())


def _both(facts: Any, title: str, draw: Callable[[Any, int], _Drawing], data: Any, kept: Any = None) -> Picture:
    says, table = facts.summary(), facts._repr_html_()
    inline = _svg(draw(data, _MOST[0]), title, says, live=True)
    for most in _MOST:
        drawing = draw(data if kept is None else kept, most)
        image = _image(_svg(drawing, title, says, live=False), f"{title}: {says}", drawing[1])
        if len(image) <= _BYTES:
            break
    # The class is JupyterLab's own, and gives the table the look of any other output.
    below = f'<div class="jp-RenderedHTMLCommon" style="overflow-x:auto;padding:0;width:fit-content;max-width:100%">{table}</div>'
    return Picture(f'<figure class="tutorlib" style="margin:0 0 8px">{inline}</figure>{below}', image + table)


def _svg(drawing: _Drawing, title: str, says: str, *, live: bool) -> str:
    inner, height = drawing
    # Ids are shared by a whole page, so they carry a digest of what they are part of.
    key = "t" + hashlib.blake2s((inner + title + says).encode(), digest_size=4).hexdigest()
    if live:
        # JupyterLab says by an attribute of the body whether its theme is dark; anywhere else the browser knows.
        themes = (
            f".{key}{{{_palette(_LIGHT)}}}@media(prefers-color-scheme:dark){{.{key}{{{_palette(_DARK)}}}}}"
            f"body[data-jp-theme-light=true] .{key}{{{_palette(_LIGHT)}}}"
            f"body[data-jp-theme-light=false] .{key}{{{_palette(_DARK)}}}"
        )
        rules = re.sub(r"(^|\})(?=[^}])", lambda m: f"{m[1]}.{key} ", _RULES)
    else:
        themes = f"svg{{{_palette(_LIGHT)}}}@media(prefers-color-scheme:dark){{svg{{{_palette(_DARK)}}}}}"
        rules = _RULES
    hatched = [name for name in _HATCHED if f'class="{name}"' in inner]
    hatches = "".join(
        f'<pattern id="{key}{name}" width="6" height="6" patternUnits="userSpaceOnUse"{_HATCHES[name[1]][0]}>'
        f'<rect width="6" height="6" style="fill:var(--{name[0]});stroke:none"/>'
        f'<path d="{_HATCHES[name[1]][1]}" style="fill:none;stroke:var(--{name[0].upper()});stroke-opacity:.4"/></pattern>'
        for name in hatched
    )
    rules += "".join(
        f"{f'.{key} ' if live else ''}.{name}{{fill:url(#{key}{name});stroke:var(--{name[0].upper()})}}" for name in hatched
    )
    size = f'width="{WIDTH}" height="{_n(height)}" viewBox="0 0 {WIDTH} {_n(height)}"'
    style = ' style="max-width:100%;height:auto;display:block"' if live else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{key}" role="img" aria-labelledby="{key}t {key}s" {size}{style}>'
        f'<title id="{key}t">{_escape(title)}</title><desc id="{key}s">{_escape(says)}</desc>'
        f"<style>{themes}{rules}</style><defs>{hatches}</defs>"
        f'<rect width="100%" height="100%" rx="10" style="fill:var(--paper);stroke:none"/>{inner}</svg>'
    )


def _image(svg: str, alt: str, height: float) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<img src="data:image/svg+xml;base64,{data}" alt="{_escape(alt)}" width="{WIDTH}" height="{_n(height)}" '
        'style="max-width:100%;height:auto">'
    )


def _as_image(match: re.Match[str]) -> str:
    svg = match[0]
    if "xmlns=" not in svg[: svg.index(">")]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    said = [
        html.unescape(re.sub(r"<[^>]*>", "", m)) for m in re.findall(r"<(?:title|desc)\b[^>]*>(.*?)</(?:title|desc)>", svg, re.S)
    ]
    data = base64.b64encode(svg.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{_escape(": ".join(said))}" style="max-width:100%;height:auto">'


# Words and marks.


def _escape(text: object) -> str:
    return html.escape("".join(c for c in str(text) if c >= " " or c in "\t\n"))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rect(x: float, y: float, wide: float, tall: float, style: str, radius: float) -> str:
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(wide)}" height="{_n(tall)}" rx="{_n(radius)}" class="{style}"/>'


def _line(x: float, y: float, x2: float, y2: float, style: str) -> str:
    return f'<path class="{style}" d="M{_n(x)} {_n(y)}L{_n(x2)} {_n(y2)}"/>'


def _text(x: float, y: float, text: object, style: str) -> str:
    mark = f' class="{style}"' if style else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{mark}>{_escape(text)}</text>'


def _wide(text: object, size: float = 13) -> float:
    """Room that a text needs, in pixels: generous, for the font is the reader's own."""
    return width(str(text)) * size * 0.57


def _fit(text: object, room: float, size: float = 13) -> str:
    text = str(text)
    if _wide(text, size) <= room:
        return text
    while text and _wide(text, size) + size > room:
        text = text[:-1]
    return text + "\N{HORIZONTAL ELLIPSIS}"


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _nice(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... from a value: the step of an axis."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= value * 0.999)
