import base64
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorlib import pictures
from tutorlib.facts import Table
from tutorlib.pictures import Picture, bars, graph, grid, ruler, stored, timeline, tree

NASTY = "<script>alert('工作进程')</script> & \"x\" \x07"


class Drawn(Table):
    """Facts that hand out the plain data of a protocol."""

    def __init__(self, data, rows=({"worker": 0, "samples": [0, 2]},), caption="two workers"):
        super().__init__(caption, rows)
        object.__setattr__(self, "data", data)

    def grid(self):
        return self.data

    tree = graph = ruler = bars = grid

    def lanes(self, clock):
        return self.data.get(clock, self.data)


def span(start, stop, kind="fetch", label="0", ticks=()):
    return {"start": start, "stop": stop, "kind": kind, "label": label, "ticks": list(ticks)}


def lanes(batches, text="main"):
    spans = [span(3 * n, 3 * n + 2, "fetch", str(n), [3 * n + 1]) for n in range(batches)]
    return {"unit": "steps", "lanes": [{"name": text, "spans": [span(0, 1, "wait", "0")]}, {"name": "worker 0", "spans": spans}]}


def cells(number, text="3", sign="x2"):
    items = [{"text": text, "sign": sign}] * number
    return {
        "rows": [{"label": text, "cells": [{"label": text, "items": items}, {"label": "worker 1", "items": []}]}],
        "missing": [text],
    }


def lines(number, text="batch"):
    return [
        {"depth": min(i, 3), "path": text, "before": text, "rule": text, "after": text, "surprise": i % 2 == 0}
        for i in range(number)
    ]


def tracks(number, text="0.25", state="different"):
    row = [{"text": text, "state": state}] * number
    return {
        "unit": text,
        "cut": number // 2,
        "tracks": [{"name": text, "cells": row}, {"name": "resumed", "cells": [None, *row[1:]]}],
    }


def amounts(number, text="big[:3]", value=4_000_000):
    return {"unit": text, "bars": [{"name": text, "value": value * i, "note": text} for i in range(number)]}


EACH = {
    "timeline": (timeline, lanes),
    "grid": (grid, cells),
    "tree": (tree, lines),
    "graph": (graph, lines),
    "ruler": (ruler, tracks),
    "bars": (bars, amounts),
}
each = pytest.mark.parametrize(("draw", "make"), EACH.values(), ids=list(EACH))


def inline(picture):
    return ElementTree.fromstring(re.search(r"<svg.*?</svg>", picture, re.S)[0])


def image(picture):
    data = re.search(r'<img src="data:image/svg\+xml;base64,([^"]*)"', picture.stored)[1]
    return ElementTree.fromstring(base64.b64decode(data))


def words(svg):
    return " ".join("".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text"))


@each
def test_a_picture_says_what_it_shows(draw, make):
    picture = draw(Drawn(make(3)), title="A title")
    for svg in (inline(picture), image(picture)):
        assert svg.get("role") == "img"
        said = {element.get("id"): element.text for element in svg if element.get("id")}
        assert [said[name] for name in svg.get("aria-labelledby").split()] == ["A title", "two workers"]
    assert 'alt="A title: two workers"' in picture.stored
    for form in (str(picture), picture.stored):
        assert form.count(">two workers</caption>") == 1 and 'scope="col"' in form
    assert "<svg" not in picture.stored, "an untrusted notebook shows no inline SVG"
    assert picture._repr_html_() == picture.stored


@each
def test_the_same_facts_give_the_same_bytes_and_nothing_is_fetched(draw, make):
    one, other = draw(Drawn(make(5))), draw(Drawn(make(5)))
    assert one == other and one.stored == other.stored
    assert "font-face" not in one and "@import" not in one and "href" not in one
    assert set(re.findall(r"https?://[^\"' ]*", one)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)", one)) <= {f"#{name}" for name in re.findall(r'<pattern id="([^"]*)"', one)}


@each
def test_every_text_is_escaped(draw, make):
    picture = draw(Drawn(make(3, NASTY), rows=[{NASTY: NASTY}], caption=NASTY), title=NASTY)
    assert "<script" not in picture and "<script" not in picture.stored
    for svg in (inline(picture), image(picture)):
        assert not [element for element in svg.iter() if element.tag.endswith("script")]
        assert "alert('工作进程')" in "".join(svg.itertext())


@each
@pytest.mark.parametrize("number", [0, 1, 8, 200, 1797])
def test_a_stored_picture_stays_small_and_says_what_it_leaves_out(draw, make, number):
    picture = draw(Drawn(make(number)))
    assert len(picture.stored.split("<table")[0]) < 12_000
    told = re.search(r"\+ \d+ more|the first \d+ of \d+", words(image(picture)))
    assert bool(told) is (number > 100)


@each
@settings(deadline=None, max_examples=25)
@given(number=st.integers(0, 90), text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60))
def test_nothing_leaves_the_canvas_whatever_the_text(draw, make, number, text):
    picture = draw(Drawn(make(number, text)))
    for svg in (inline(picture), image(picture)):
        wide, tall = (float(n) for n in svg.get("viewBox").split()[2:])
        boxes = [e for e in svg.iter() if e.tag.endswith("rect") and e.get("x")]
        assert all(
            float(e.get("x")) >= 0
            and float(e.get("x")) + float(e.get("width")) <= wide + 1
            and float(e.get("y")) + float(e.get("height")) <= tall + 1
            and float(e.get("width")) >= 0
            for e in boxes
        )
        paths = [e.get("d") for e in svg.iter() if e.tag.endswith("path") and e.get("d").startswith("M")]
        assert all(0 <= float(x) <= wide for d in paths for x in re.findall(r"[MH](-?[\d.]+)", d))
        assert all(float(w) >= 0 for d in paths for w in re.findall(r"h(-?[\d.]+)v", d))
        assert all(
            0 <= float(e.get("x")) <= wide and 0 <= float(e.get("y")) <= tall
            for e in svg.iter()
            if e.tag.endswith("text") and e.get("x")
        )


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [pictures._LIGHT, pictures._DARK], ids=["light", "dark"])
def test_text_is_readable_in_both_themes(theme):
    for ground in ("paper", "panel", "a", "b", "c", "r", "n"):
        assert contrast(theme["ink"], theme[ground]) >= 4.5, ground
    for ground in ("paper", "panel"):
        assert contrast(theme["soft"], theme[ground]) >= 4.5
    for ground in ("paper", "r", "c"):  # signs, in the strong red
        assert contrast(theme["R"], theme[ground]) >= 4.5, ground
    for letter in "abcrn":  # outlines against what they stand on
        assert contrast(theme[letter.upper()], theme["paper"]) >= 3


def test_both_themes_are_in_the_picture():
    picture = grid(Drawn(cells(2)))
    for form in (str(picture), ElementTree.tostring(image(picture), "unicode")):
        assert (
            pictures._LIGHT["a"] in form
            and pictures._DARK["a"] in form
            and "prefers-color-scheme:dark" in form.replace("&#58;", ":")
        )
    assert "data-jp-theme-light=false" in picture


def test_colour_is_never_alone():
    def styles(picture):
        return {e.get("class") for e in inline(picture).iter() if e.get("class")}

    twice = grid(Drawn(cells(2, sign="x2")))
    assert "rh" in styles(twice) and "x2" in words(inline(twice)) and "never came" in words(inline(twice))
    for state, sign in (("different", "≠"), ("missing", "?"), ("repeated", "×2")):
        picture = ruler(Drawn(tracks(4, state=state)))
        assert sign in words(inline(picture)) and state in words(inline(picture))
    assert "≠" not in words(inline(ruler(Drawn(tracks(4, state="same")))))
    assert "!" in words(inline(tree(Drawn(lines(2))))) and "!" not in words(
        inline(tree(Drawn([{**lines(1)[0], "surprise": False}])))
    )
    kinds = [span(n, n + 1, kind, str(n)) for n, kind in enumerate(("start", "fetch", "collate", "wait", "use"))]
    shown = timeline(Drawn({"unit": "ms", "lanes": [{"name": "main", "spans": kinds}]}))
    assert {"nx", "a", "bh", "w", "cd"} <= styles(shown)
    assert "start workers fetch samples collate main waits loop body" in words(inline(shown))


def test_a_graph_names_modules_and_nodes_over_its_columns():
    said = words(inline(graph(Drawn(lines(2)))))
    assert all(head in said for head in ("module", "class", "node", "gives")) and "before" not in said


def test_live_time_is_measured_and_stored_time_is_logical():
    both = {"order": lanes(2), "seconds": {"unit": "ms", "lanes": [{"name": "main", "spans": [span(0, 17.5, "fetch", "0")]}]}}
    picture = timeline(Drawn(both), clock="seconds")
    assert words(inline(picture)).endswith("0") and "ms" in words(inline(picture))
    assert "steps" in words(image(picture)) and "ms" not in words(image(picture))
    assert timeline(Drawn(both)).stored == picture.stored


def test_amounts_that_differ_from_run_to_run_are_not_stored():
    one, other = ({**amounts(2, "s", value), "measured": True} for value in (3, 5))
    assert bars(Drawn(one)).stored == bars(Drawn(other)).stored
    assert "3 s" in words(inline(bars(Drawn(one)))) and "3 s" not in words(image(bars(Drawn(one))))


def test_a_ruler_shows_where_it_was_cut():
    assert "stopped here" in words(inline(ruler(Drawn(tracks(6)))))
    assert "stopped here" not in words(inline(ruler(Drawn({**tracks(6), "cut": None}))))
    assert json.dumps(tracks(2))  # plain data: what a protocol promises


def test_stored_turns_any_inline_svg_into_an_image():
    drawing = '<p>before</p><svg role="img"><title>One</title><desc>a &lt; b</desc><text>x</text></svg><p>after</p>'
    found = stored(drawing)
    assert found.startswith('<p>before</p><img src="data:image/svg+xml;base64,') and found.endswith("<p>after</p>")
    assert 'alt="One: a &lt; b"' in found
    data = base64.b64decode(re.search(r"base64,([^\"]*)", found)[1]).decode()
    assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
    facts = Table("two", [{"n": 1}])
    assert stored("<p>x</p>", facts).count("<table") == 1 == stored(grid(Drawn(cells(1))), facts).count("<table")


def test_pictures_can_be_added():
    one, other = grid(Drawn(cells(1))), bars(Drawn(amounts(2)))
    both = one + other
    assert isinstance(both, Picture) and both == str(one) + str(other) and both.stored == one.stored + other.stored
    assert (one + "<p>text</p>").stored == one.stored + "<p>text</p>"


def test_a_grid_says_what_its_items_are():
    assert "2 samples" in words(inline(pictures.grid(Drawn(cells(2)))))
    said = words(inline(pictures.grid(Drawn(cells(1) | {"unit": "piece"}))))
    assert "1 piece" in said and "0 pieces" in said and "sample" not in said


def test_a_tree_has_the_columns_that_the_facts_name():
    class Named(Drawn):
        heads = ("mode", "asked", "by whom", "the loop gets")

    assert all(head in words(inline(pictures.tree(Named(lines(2))))) for head in Named.heads)
    assert "where before rule after" in words(inline(pictures.tree(Drawn(lines(2)))))


def test_the_loop_shows_which_batch_it_uses():
    spans = [span(0, 4, "fetch", "7"), span(4, 8, "use", "7"), span(8, 12, "wait", "8")]
    said = words(inline(pictures.timeline(Drawn({"unit": "steps", "lanes": [{"name": "main", "spans": spans}]}))))
    assert said.split().count("7") == 2
