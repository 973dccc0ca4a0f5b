import dataclasses
import html.parser
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import same_text_twice

from tutorlib.facts import Facts, Link, Table, cell, width

TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs", "Mn")), max_size=8)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.frozensets(TEXTS, max_size=3),
    st.lists(st.integers(), max_size=3),
)
TABLES = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), max_size=4))


def table(content):
    return Table("what came", [{f"column {i}": value for i, value in enumerate(row)} for row in content])


class Cells(html.parser.HTMLParser):
    """The texts of a table: caption (or lone paragraph), headers with their scope, and the cells of each row."""

    def __init__(self, text):
        super().__init__()
        self.caption, self.rows, self.scopes, self.where = "", [], [], []
        self.feed(text)
        self.close()
        assert not self.where, f"not closed: {self.where}"

    def handle_starttag(self, tag, attributes):
        self.where.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            if tag == "th":
                self.scopes.append(dict(attributes)["scope"])

    def handle_endtag(self, tag):
        assert self.where.pop() == tag

    def handle_data(self, data):
        if self.where[-1] in ("caption", "p"):  # without rows there is no table
            self.caption += data
        else:
            self.rows[-1][-1] += data


@settings(deadline=None)
@given(TABLES)
def test_every_row_is_one_line_and_every_column_starts_or_ends_in_one_place(content):
    facts = table(content)
    lines = str(facts).split("\n")
    assert lines[0] == "what came" and len(lines) == (2 + len(content) if content else 1)
    assert all(line == line.rstrip() for line in lines)
    same_text_twice(lambda: table(content))
    if content:
        texts = [[f"column {i}" for i in range(len(content[0]))], *(list(map(cell, row)) for row in content)]
        widths = [max(width(row[i]) for row in texts) for i in range(len(texts[0]))]
        assert max(map(width, lines[1:])) <= sum(widths) + 2 * (len(widths) - 1)


@settings(deadline=None)
@given(TABLES)
def test_the_html_table_says_what_the_text_says(content):
    found = Cells(table(content)._repr_html_())
    assert found.caption == "what came"
    if content:
        assert found.rows[0] == [f"column {i}" for i in range(len(content[0]))]
        assert found.rows[1:] == [list(map(cell, row)) for row in content]
        assert found.scopes == ["col"] * len(content[0]) + ["row"] * len(content)


def test_chinese_keeps_the_columns():
    text = str(Table("两个进程", [{"工作进程": "甲", "n": 1}, {"工作进程": "abc", "n": 20}]))
    assert text == "两个进程\n工作进程   n\n甲         1\nabc       20"
    assert width("é") == width("e\N{COMBINING ACUTE ACCENT}") == 1 and width("（") == 2 and width("") == 0


def test_numbers_go_right_and_everything_else_left():
    text = str(
        Table("", [{"a": 1, "b": "x", "c": True, "d": None, "e": 0.5}, {"a": 10, "b": 2, "c": False, "d": None, "e": None}])
    )
    assert text == " a  b  c    d    e\n 1  x  yes  -  0.5\n10  2  no   -    -"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (1 / 3, "0.333333"),
        (float("nan"), "nan"),
        (-0.0, "-0"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.float32(1 / 3), "0.333333"),
        ({float("nan"), 2.0, 1.0}, "{1, 2, nan}"),
        (10, "10"),
        ("a\n b\tc ", "a b c"),
        (["a", 1.0, None], "['a', 1, -]"),
        ((1,), "(1,)"),
        ((), "()"),
        ({"b", "a"}, "{'a', 'b'}"),
        ({10, 9, 1.5}, "{1.5, 9, 10}"),
        (frozenset({("b", 1), ("a", 2)}), "{('a', 2), ('b', 1)}"),
        (set(), "{}"),
        ([{3, 1}, (2, [4])], "[{1, 3}, (2, [4])]"),
        ({"a": 0.1 + 0.2, "b": [True]}, "{'a': 0.3, 'b': [yes]}"),
        (torch.Size([2, 3]), "torch.Size([2, 3])"),
        (torch.float32, "torch.float32"),
        (range(3), "range(0, 3)"),
    ],
)
def test_the_text_of_one_value(value, text):
    assert cell(value) == text


@given(st.sets(st.one_of(st.integers(), TEXTS)))
def test_a_set_has_one_text(values):
    assert cell(values) == cell(set(sorted(values, key=repr))) == cell(frozenset(values))


def test_rows_must_have_the_same_columns():
    facts = Table("", [{"a": 1}, {"a": 1, "b": 2}])
    for show in (str, Facts._repr_html_):
        with pytest.raises(
            ValueError, match=r"row 1 has the columns \['a', 'b'\], expected \['a'\] as in row 0: give every row the same columns"
        ):
            show(facts)


def test_what_is_not_there_is_not_shown():
    assert str(Table("", [])) == "" and Table("", [])._repr_html_() == ""
    assert str(Table("nothing came", [])) == "nothing came"
    assert Table("nothing came", [])._repr_html_() == "<p>nothing came</p>"
    assert str(Table("", [{"a": 1}])) == "a\n1"


def test_html_is_escaped():
    found = Table("a < b & c", [{"<script>": "<b>", "x": ["<", '"']}])._repr_html_()
    assert "<script>" not in found and "<b>" not in found
    assert Cells(found).rows == [["<script>", "x"], ["<b>", "['<', '\"']"]] and Cells(found).caption == "a < b & c"


def test_a_link_is_text_in_a_text_and_a_link_in_a_notebook():
    table = Table("next", [{"lesson": 4, "title": Link("<Samplers>", 'a"b.ipynb')}])
    assert str(table).splitlines()[-1].split() == ["4", "<Samplers>"]
    assert '<a href="a&quot;b.ipynb">&lt;Samplers&gt;</a>' in table._repr_html_()


def test_facts_of_ones_own():
    @dataclass(frozen=True, repr=False)
    class Silent(Facts):
        size: int

    @dataclass(frozen=True, repr=False)
    class Speaking(Silent):
        def summary(self):
            return f"{self.size} samples"

        def rows(self):
            return [{"size": self.size}]

    with pytest.raises(NotImplementedError, match=r"Silent must define rows\(\)"):
        str(Silent(1))
    same_text_twice(lambda: Speaking(2))
    assert repr(Speaking(2)) == "2 samples\nsize\n   2" and Speaking(2) == Speaking(2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Speaking(2).size = 3
