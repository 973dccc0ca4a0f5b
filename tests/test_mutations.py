"""A verification that passes proves nothing until a change makes it fail: one change of each kind, and each is caught.

What an output can lose or gain is checked by `differences`, the comparer of strict nbval; what a file can, by `stale`;
one run of the real nbval over a lesson with a change in every cell shows that the comparer is really asked.
"""

import base64
import copy
import io
import re
import shutil

import nbformat
import nbformat.v4 as v4
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tutorlib import lessons, suite, verify

HTML, PNG, PLAIN = "text/html", "image/png", "text/plain"
URI = re.compile(r"(data:image/svg\+xml;base64,)([A-Za-z0-9+/=]+)")


def streams(outputs, name=None):
    return [o for o in outputs if o.output_type == "stream" and name in (None, o.name)]


def shown(outputs, mime):
    return [o for o in outputs if "data" in o and mime in o.data]


def errors(outputs):
    return [o for o in outputs if o.output_type == "error"]


def other_digit(match):
    return str((int(match.group()) + 1) % 10)


def a_digit(outputs):
    for o in streams(outputs):
        o.text = re.sub(r"\d", other_digit, o.text, count=1)


def a_line_lost(outputs):
    for o in streams(outputs)[:1]:
        o.text = "".join(o.text.splitlines(keepends=True)[1:])


def a_line_added(outputs):
    for o in streams(outputs)[:1]:
        o.text += "one more\n"


def lines_swapped(outputs):
    for o in streams(outputs)[:1]:
        o.text = "".join(reversed(o.text.splitlines(keepends=True)))


def redrawn(outputs, change):
    def draw(match):
        drawing = change(base64.b64decode(match.group(2)).decode())
        return match.group(1) + base64.b64encode(drawing.encode()).decode()

    for o in shown(outputs, HTML):
        o.data[HTML] = URI.sub(draw, o.data[HTML], count=1)


def a_label_in_a_drawing(outputs):
    redrawn(outputs, lambda drawing: re.sub(r"(<text[^>]*>)([^<]+)", r"\1another label", drawing, count=1))


def the_sentence_of_a_drawing(outputs):
    for o in shown(outputs, HTML):
        o.data[HTML] = re.sub(r"alt=(['\"])[^'\"]*\1", r"alt=\1\1", o.data[HTML], count=1)


def a_table_cell(outputs):
    for o in shown(outputs, HTML):
        o.data[HTML] = re.sub(r"(<td[^>]*>)[^<]*", r"\1other", o.data[HTML], count=1)


def a_table_header(outputs):
    for o in shown(outputs, HTML):
        o.data[HTML] = re.sub(r"(<th[^>]*>)[^<]*", r"\1other", o.data[HTML], count=1)


def the_facts_of_a_view(outputs):
    for o in shown(outputs, PLAIN):
        o.data[PLAIN] = re.sub(r"\w+", "changed", o.data[PLAIN], count=1)


def an_error_type(outputs):
    for o in errors(outputs):
        o.ename = "LookupError"


def an_error_message(outputs):
    for o in errors(outputs):
        o.evalue = o.evalue[:-1] + "?"


def an_error_forgiven(outputs):
    outputs[:] = [o for o in outputs if o.output_type != "error"]


def an_error_new(outputs):
    outputs.append(v4.new_output("error", ename="KeyError", evalue="'x'", traceback=["KeyError: 'x'"]))


def an_output_lost(outputs):
    del outputs[-1:]


def an_output_added(outputs):
    outputs.append(v4.new_output("display_data", data={PLAIN: "one more"}))


def outputs_reordered(outputs):
    outputs.reverse()


def stdout_to_stderr(outputs):
    for o in streams(outputs):
        o.name = {"stdout": "stderr", "stderr": "stdout"}[o.name]


def a_result_becomes_a_display(outputs):
    for n, o in enumerate(outputs):
        if o.output_type == "execute_result":
            outputs[n] = v4.new_output("display_data", data=o.data, metadata=o.metadata)


def a_form_lost(outputs):
    for o in shown(outputs, HTML) + shown(outputs, PNG):
        del o.data[PLAIN]


def a_form_added(outputs):
    for o in shown(outputs, PLAIN):
        o.data["text/latex"] = "$x$"


def a_pixel(outputs):
    for o in shown(outputs, PNG):
        o.data[PNG] = repainted(o.data[PNG], 40)


def a_picture_resized(outputs):
    for o in shown(outputs, PNG):
        with Image.open(io.BytesIO(base64.b64decode(o.data[PNG]))) as image:
            o.data[PNG] = encoded(image.resize((image.width + 1, image.height)))


def a_sign(outputs):
    for o in streams(outputs)[:1]:
        o.text = re.sub(r"(?<![-\w])(\d)", r"-\1", o.text, count=1)


def a_small_letter(outputs):
    for o in streams(outputs)[:1]:
        o.text = o.text.swapcase()


def a_blank_at_the_end(outputs):
    for o in streams(outputs)[:1]:
        o.text = o.text.replace("\n", " \n", 1)


def an_empty_line(outputs):
    for o in streams(outputs)[:1]:
        o.text = o.text.replace("\n", "\n\n", 1)


def the_end_of_line_lost(outputs):
    for o in streams(outputs)[:1]:
        o.text = o.text.rstrip("\n")


def a_letter_that_looks_alike(outputs):
    for o in streams(outputs)[:1]:
        o.text = o.text.replace("e", "\u0435", 1)


def text_twice(outputs):
    for o in streams(outputs)[:1]:
        o.text *= 2


def a_stream_becomes_a_display(outputs):
    for n, o in enumerate(outputs):
        if o.output_type == "stream":
            outputs[n] = v4.new_output("display_data", data={PLAIN: o.text})


def a_table_row_lost(outputs):
    for o in shown(outputs, HTML):
        o.data[HTML] = re.sub(r"(?s)<tr>.*?</tr>", "", o.data[HTML], count=1)


def a_table_column_is_no_header(outputs):
    for o in shown(outputs, HTML):
        o.data[HTML] = re.sub(r"(?s)<th[^>]*>(.*?)</th>", r"<td>\1</td>", o.data[HTML], count=1)


def a_drawing_lost(outputs):
    for o in shown(outputs, HTML):
        o.data[HTML] = re.sub(r"<img[^>]*>", "", o.data[HTML], count=1)


def a_drawing_of_another_kind(outputs):
    redrawn(outputs, lambda drawing: drawing.replace("<text", "<tspan", 1))


def a_picture_mirrored(outputs):
    for o in shown(outputs, PNG):
        with Image.open(io.BytesIO(base64.b64decode(o.data[PNG]))) as image:
            turned = image.convert("RGB")
            turned.putpixel((0, 0), (0, 0, 0))
            o.data[PNG] = encoded(turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def a_picture_see_through(outputs):
    for o in shown(outputs, PNG):
        with Image.open(io.BytesIO(base64.b64decode(o.data[PNG]))) as image:
            clear = image.convert("RGBA")
            clear.putalpha(128)
            o.data[PNG] = encoded(clear)


def a_picture_replaced_by_text(outputs):
    for o in shown(outputs, PNG):
        o.data = {PLAIN: o.data[PLAIN]}


def metadata_of_an_output(outputs):
    for o in [o for o in outputs if "data" in o]:
        o.metadata = {"isolated": True}


def outputs_twice(outputs):
    outputs.extend(copy.deepcopy(outputs))


def all_outputs_lost(outputs):
    outputs.clear()


def repainted(content, by):
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        image = image.convert("RGB")
    red, green, blue = image.getpixel((1, 1))
    image.putpixel((1, 1), (red + by if red < 128 else red - by, green, blue))
    return encoded(image)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "png", **options)
    return base64.b64encode(file.getvalue()).decode()


OF_OUTPUTS = {
    "a digit": a_digit,
    "a line lost": a_line_lost,
    "a line added": a_line_added,
    "lines swapped": lines_swapped,
    "a label in a drawing": a_label_in_a_drawing,
    "the sentence of a drawing": the_sentence_of_a_drawing,
    "a table cell": a_table_cell,
    "a table header": a_table_header,
    "the facts of a view": the_facts_of_a_view,
    "an error's type": an_error_type,
    "an error's message": an_error_message,
    "an error forgiven": an_error_forgiven,
    "an error new": an_error_new,
    "an output lost": an_output_lost,
    "an output added": an_output_added,
    "outputs reordered": outputs_reordered,
    "stdout to stderr": stdout_to_stderr,
    "a result becomes a display": a_result_becomes_a_display,
    "a form lost": a_form_lost,
    "a form added": a_form_added,
    "a pixel": a_pixel,
    "a picture resized": a_picture_resized,
    "a sign": a_sign,
    "small and large letters": a_small_letter,
    "a blank at the end of a line": a_blank_at_the_end,
    "an empty line": an_empty_line,
    "the last end of line lost": the_end_of_line_lost,
    "a letter that looks alike": a_letter_that_looks_alike,
    "text twice": text_twice,
    "a stream becomes a display": a_stream_becomes_a_display,
    "a table row lost": a_table_row_lost,
    "a header becomes a cell": a_table_column_is_no_header,
    "a drawing lost": a_drawing_lost,
    "another shape in a drawing": a_drawing_of_another_kind,
    "a picture mirrored": a_picture_mirrored,
    "a picture see-through": a_picture_see_through,
    "a picture replaced by text": a_picture_replaced_by_text,
    "metadata of an output": metadata_of_an_output,
    "outputs twice": outputs_twice,
    "all outputs lost": all_outputs_lost,
}


def code(book):
    return [c for c in book.cells if c.cell_type == "code"]


def no_count(book):
    code(book)[3].execution_count = None


def another_count(book):
    code(book)[3].execution_count = 9


def never_run(book):
    for cell in code(book):
        cell.execution_count, cell.outputs = None, []


def another_source(book):
    code(book)[3].source += "\nprint('more')"


def another_tag(book):
    code(book)[0].metadata["tags"] = ["setup", "raises-exception"]


def another_text(book):
    next(c for c in book.cells if c.cell_type == "markdown").source += "!"


def a_cell_lost(book):
    del book.cells[5]


def cells_swapped(book):
    book.cells[5], book.cells[6] = book.cells[6], book.cells[5]


def an_id_twice(book):
    book.cells[3].id = book.cells[2].id


def another_id(book):
    book.cells[3].id = "handmade"


def live_widgets(book):
    book.metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}
    }


def a_live_view(book):
    view = {"model_id": "0123", "version_major": 2, "version_minor": 0}
    shown(code(book)[9].outputs, PLAIN)[0].data["application/vnd.jupyter.widget-view+json"] = view


def times(book):
    code(book)[0].metadata["execution"] = {"iopub.execute_input": "2025-01-01T00:00:00Z"}


def another_kernel(book):
    book.metadata["kernelspec"]["name"] = "my-own-env"


def a_python_version(book):
    book.metadata["language_info"]["version"] = "3.11.7"


def a_split_stream(book):
    cell = code(book)[3]
    lines = cell.outputs[0].text.splitlines(keepends=True)
    cell.outputs = [v4.new_output("stream", name="stdout", text=line) for line in lines]


def a_raw_cell(book):
    cell = code(book)[3]
    for key in ("outputs", "execution_count"):
        del cell[key]
    cell.cell_type = "raw"


def an_attachment(book):
    next(c for c in book.cells if c.cell_type == "markdown")["attachments"] = {"x.txt": {"text/plain": "aGk="}}


def a_cell_added(book):
    book.cells.append(v4.new_markdown_cell("one more", id="onemore0"))


def a_hidden_source(book):
    code(book)[3].metadata["jupyter"] = {"source_hidden": True}


def another_language(book):
    book.metadata["language_info"]["name"] = "julia"


def an_old_format(book):
    book.nbformat_minor = 4
    for cell in book.cells:
        cell.pop("id", None)


def all_counts_shifted(book):
    for cell in code(book):
        cell.execution_count += 1


def counts_swapped(book):
    one, two = code(book)[3], code(book)[4]
    one.execution_count, two.execution_count = two.execution_count, one.execution_count


OF_FILES = {
    "a count lost": no_count,
    "a count changed": another_count,
    "never run": never_run,
    "source changed": another_source,
    "tag changed": another_tag,
    "text changed": another_text,
    "a cell lost": a_cell_lost,
    "cells swapped": cells_swapped,
    "an id twice": an_id_twice,
    "another id": another_id,
    "live widgets": live_widgets,
    "a live view": a_live_view,
    "times of execution": times,
    "another kernel": another_kernel,
    "a Python version": a_python_version,
    "a split stream": a_split_stream,
    "a raw cell": a_raw_cell,
    "an attachment": an_attachment,
    "a cell added": a_cell_added,
    "a hidden source": a_hidden_source,
    "another language": another_language,
    "an old format": an_old_format,
    "all counts shifted": all_counts_shifted,
    "counts swapped": counts_swapped,
}


def read(root, language, name="00_tiny"):
    return nbformat.reads((root / language / f"{name}.ipynb").read_text(encoding="utf-8"), as_version=4)


def write(root, language, book, name="00_tiny"):
    (root / language / f"{name}.ipynb").write_text(lessons.text_of(book), encoding="utf-8")


def mutants(book, mutate):
    """(number of the code cell, its outputs, its outputs changed) for every cell in which the mutation changes something."""
    for number, cell in enumerate(code(book)):
        changed = copy.deepcopy(cell.outputs)
        mutate(changed)
        if changed != cell.outputs:
            yield number, cell.outputs, changed


def test_there_are_at_least_fifty_kinds_of_change():
    assert len({**OF_OUTPUTS, **OF_FILES}) >= 50


@pytest.mark.parametrize("kind", OF_OUTPUTS)
def test_strict_comparing_catches_every_change_of_outputs(kind, executed_once):
    made = list(mutants(read(executed_once, "en"), OF_OUTPUTS[kind]))
    assert made, f"the tiny lesson has no output for {kind}: give it one"
    for number, before, after in made:
        assert verify.differences(before, after), f"{kind} in cell {number + 1} passes as stored"
        assert verify.differences(after, before), f"{kind} in cell {number + 1} passes as new"


@pytest.mark.parametrize("language", lessons.LANGUAGES)
@pytest.mark.parametrize("kind", OF_OUTPUTS)
def test_stale_catches_every_change_of_outputs_in_one_language(kind, language, executed):
    book = read(executed, language)
    number, _, after = next(iter(mutants(book, OF_OUTPUTS[kind])))
    code(book)[number].outputs = after
    write(executed, language, book)
    found = verify.stale(root=executed).findings
    assert any(f.cell == f"[{number + 1}]" and f.what == "outputs of en and zh" for f in found), found


@pytest.mark.parametrize("kind", OF_FILES)
def test_stale_catches_every_change_of_files_made_in_both_languages(kind, executed):
    for language in lessons.LANGUAGES:
        book = read(executed, language)
        before = copy.deepcopy(book)
        OF_FILES[kind](book)
        assert book != before
        write(executed, language, book)
    report = verify.stale(root=executed)
    assert not report.ok and all("refresh 00" in f.mend for f in report.findings), report


def test_an_unchanged_lesson_passes_both(executed_once):
    assert verify.stale(root=executed_once).ok
    for cell in code(read(executed_once, "en")):
        assert verify.differences(cell.outputs, copy.deepcopy(cell.outputs)) == []


@pytest.mark.parametrize(
    ("by", "caught"), [(0, False), (verify.PIXEL_TOLERANCE, False), (verify.PIXEL_TOLERANCE + 1, True), (90, True)]
)
def test_pixels_have_a_small_tolerance(by, caught):
    picture = encoded(Image.new("RGB", (8, 4), (200, 30, 60)))
    stored = [v4.new_output("display_data", data={PNG: picture})]
    now = [v4.new_output("display_data", data={PNG: repainted(picture, by)})]
    assert bool(verify.differences(stored, now)) is caught


def test_one_picture_in_two_files_is_one_picture():
    image = Image.new("RGB", (80, 40), (200, 30, 60))
    one, two = encoded(image, compress_level=0), encoded(image, compress_level=9)
    assert one != two
    assert (
        verify.differences([v4.new_output("display_data", data={PNG: one})], [v4.new_output("display_data", data={PNG: two})])
        == []
    )


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_single_character_can_change_unseen(executed_once_for_law, data):
    """Whatever text of an output changes in one place, wherever it is, the comparer says so."""
    cells = [c.outputs for c in code(executed_once_for_law) if c.outputs]
    before = data.draw(st.sampled_from(cells))
    after = copy.deepcopy(before)
    output = data.draw(st.sampled_from(after))
    if output.output_type == "stream":
        holder, key = output, "text"
    elif output.output_type == "error":
        holder, key = output, data.draw(st.sampled_from(["ename", "evalue"]))
    else:
        holder, key = output.data, data.draw(st.sampled_from(sorted(set(output.data) - {PNG})))
    text = holder[key]
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="ascii", exclude_categories=["Cc", "Zs"]).filter(lambda c: c != text[place]))
    holder[key] = text[:place] + letter + text[place + 1 :]
    assert verify.differences(before, after)


@pytest.fixture(scope="session")
def executed_once_for_law(executed_once):
    return read(executed_once, "en")


# (code cell from 1, what changes in it): another kind in each cell, so that one run of nbval judges all of them
END_TO_END = {
    1: "an output lost",
    2: "an error's message",
    3: "a digit",
    4: "lines swapped",
    5: "stdout to stderr",
    6: "a table cell",
    7: "a label in a drawing",
    8: "a pixel",
    9: "outputs reordered",
    10: "the facts of a view",
    11: "an output added",
    13: "a line added",
}
SECOND = {2: "an error's type", 4: "a line lost", 8: "a form lost", 9: "a result becomes a display"}


def test_the_real_nbval_catches_a_change_in_every_cell(executed):
    """Changed in both languages alike, so that only an execution can tell; two mutants and the healthy lesson in one run."""
    for name in ("01_first", "02_second"):
        shutil.copy(executed / "src" / "00_tiny.py", executed / "src" / f"{name}.py")
    for name, plan in (("01_first", END_TO_END), ("02_second", SECOND)):
        book = read(executed, "en")
        for number, kind in plan.items():
            OF_OUTPUTS[kind](code(book)[number - 1].outputs)
        if name == "02_second":
            code(book)[11].execution_count = None
        write(executed, "en", book, name)
    told = []
    report = suite.run(root=executed, jobs=1, progress=lambda number, state, seconds: told.append((number, state)))
    caught = {(f.lesson, int(re.match(r"\[(\d+)\]", f.cell).group(1))) for f in report.findings}
    assert caught == {("01", n) for n in END_TO_END} | {("02", n) for n in [*SECOND, 12]}, report
    assert sorted(told) == [("00", "passed"), ("01", "failed"), ("02", "failed")]
    text = report.details()
    assert "-<text>another label</text>" in text and "+<text>worker one</text>" in text
    assert "never executed" in text and "tutorlib refresh 01 accepts the new output" in text


REAL = [path.stem for path in lessons.sources() if (lessons.find_root() / "en" / f"{path.stem}.ipynb").is_file()]


@pytest.mark.parametrize("name", REAL)
def test_every_change_is_caught_in_the_real_lessons(name):
    book, caught = read(lessons.find_root(), "en", name), set()
    for kind, mutate in OF_OUTPUTS.items():
        for number, before, after in mutants(book, mutate):
            assert verify.differences(before, after), f"lesson {name}: {kind} in cell {number + 1} passes"
            caught.add(kind)
    assert {"a digit", "a line lost", "an output lost", "an output added"} <= caught


def test_the_real_lessons_hold_every_kind_of_output():
    kinds = {"a label in a drawing", "a table cell", "the facts of a view", "an error's type", "an error's message"}
    for name in REAL:
        book = read(lessons.find_root(), "en", name)
        kinds -= {kind for kind in kinds if next(mutants(book, OF_OUTPUTS[kind]), None)}
    assert not kinds
