"""Whatever happens, and in whatever order: nothing that a learner wrote is lost."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorlib import lessons, workcopy

TOPICS = {"00": "00_start", "01": "01_dataloader"}


def notebook(*sources: str, executed: bool = True) -> str:
    """A stored notebook: one text, then code cells with an output."""
    cells = [{"cell_type": "markdown", "id": "text", "metadata": {}, "source": "# A lesson"}]
    for number, source in enumerate(sources, 1):
        output = {"output_type": "stream", "name": "stdout", "text": f"out {number}\n"}
        cells.append(
            {
                "cell_type": "code",
                "id": f"code-{number}",
                "metadata": {},
                "source": source.splitlines(keepends=True),
                "execution_count": number if executed else None,
                "outputs": [output] if executed else [],
            }
        )
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def publish(root: Path, number: str, version: int) -> None:
    """The upstream lesson in its `version`, in both languages."""
    for language in ("en", "zh"):
        (root / language).mkdir(parents=True, exist_ok=True)
        text = notebook(f"print('{language} version {version}')", "answer = ...\n# solution\nanswer = 42")
        (root / language / f"{TOPICS[number]}.ipynb").write_text(text)
    (root / "src").mkdir(exist_ok=True)
    (root / "src" / f"{TOPICS[number]}.py").touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in TOPICS:
        publish(tmp_path / "clone" / "notebooks", number, 1)
    return tmp_path / "clone" / "notebooks"


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def write(path: Path, text: str) -> None:
    """What a learner does: one more cell."""
    book = json.loads(path.read_text())
    book["cells"].append(
        {"cell_type": "code", "id": "mine", "metadata": {}, "source": [text], "execution_count": None, "outputs": []}
    )
    path.write_text(json.dumps(book))


def execute(path: Path) -> None:
    """What JupyterLab does when a learner runs everything: outputs, counts, its own layout, an empty cell at the end."""
    book = json.loads(path.read_text())
    for number, cell in enumerate((c for c in book["cells"] if c["cell_type"] == "code"), 1):
        cell["execution_count"] = number
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["learner's run\n"]}]
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    book["cells"].append(
        {"cell_type": "code", "id": "empty", "metadata": {}, "source": [], "execution_count": None, "outputs": []}
    )
    path.write_text(json.dumps(book, indent=2))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Laying out -----------------------------------------------------------------------------------------------------------


def test_a_first_copy_has_both_languages_without_solutions_and_outputs(root, tmp_path):
    made = workcopy.make(tmp_path / "my lessons", "zh", root)
    assert made.start() == "zh/00_start.ipynb"
    assert str(made) == (
        "working copy of 2 lessons in 2 languages: 4 delivered\n"
        "lesson         en         zh\n"
        "00_start       delivered  delivered\n"
        "01_dataloader  delivered  delivered"
    )
    for name in made.states:
        text = (tmp_path / "my lessons" / name).read_text(encoding="utf-8")
        assert "solution" not in text and "42" not in text and "out 1" not in text and '"execution_count": 1' not in text


def test_the_language_of_the_last_time_is_remembered(root, tmp_path):
    assert workcopy.make(tmp_path / "w", None, root).start() == "en/00_start.ipynb"
    workcopy.make(tmp_path / "w", "zh", root)
    assert workcopy.make(tmp_path / "w", None, root).start() == "zh/00_start.ipynb"


@pytest.mark.parametrize("name", ["with space", "中文 文件夹", "a/deep/er/one", "dots.and-dashes"])
def test_any_name_of_a_folder_will_do(root, tmp_path, name):
    folder = tmp_path / name
    workcopy.make(folder, "en", root)
    write(folder / "en/00_start.ipynb", "mine = 1")
    assert workcopy.make(folder, "en", root).states["en/00_start.ipynb"] == "yours"
    assert workcopy.reset(folder, "00", root).backups["en/00_start.ipynb"] == "en/00_start.backup.ipynb"


def test_a_second_time_touches_nothing(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "w").rglob("*") if p.is_file()}
    made = workcopy.make(tmp_path / "w", "en", root)
    assert set(made.states.values()) == {"kept"}
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "w").rglob("*") if p.is_file()}


def test_a_deleted_notebook_comes_back(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    (tmp_path / "w/zh/01_dataloader.ipynb").unlink()
    assert workcopy.make(tmp_path / "w", "en", root).states["zh/01_dataloader.ipynb"] == "delivered"
    assert (tmp_path / "w/zh/01_dataloader.ipynb").is_file()


# Keeping what the learner did ------------------------------------------------------------------------------------------


def test_running_a_notebook_is_no_change_and_its_outputs_stay(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    execute(tmp_path / "w/en/00_start.ipynb")
    before = (tmp_path / "w/en/00_start.ipynb").read_bytes()
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "kept"
    assert (tmp_path / "w/en/00_start.ipynb").read_bytes() == before


def test_a_lesson_that_was_only_run_is_updated_in_place(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    execute(tmp_path / "w/en/00_start.ipynb")
    publish(root, "00", 2)
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "updated"
    assert "print('en version 2')" in sources(tmp_path / "w/en/00_start.ipynb")


def test_when_both_changed_the_new_lesson_is_put_beside_once(root, tmp_path):
    mine = tmp_path / "w/en/00_start.ipynb"
    workcopy.make(tmp_path / "w", "en", root)
    write(mine, "mine = 1")
    publish(root, "00", 2)
    before = mine.read_bytes()
    made = workcopy.make(tmp_path / "w", "en", root)
    assert made.rows()[0] == {"lesson": "00_start", "en": "beside: 00_start.new.ipynb", "zh": "updated"}
    assert mine.read_bytes() == before
    assert "print('en version 2')" in sources(tmp_path / "w/en/00_start.new.ipynb")

    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "yours, new beside"
    (tmp_path / "w/en/00_start.new.ipynb").unlink()  # the learner does not want it
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "yours"
    assert not (tmp_path / "w/en/00_start.new.ipynb").exists()


def test_a_lesson_beside_is_renewed_while_untouched_and_kept_once_the_learner_wrote_in_it(root, tmp_path):
    beside = tmp_path / "w/en/00_start.new.ipynb"
    workcopy.make(tmp_path / "w", "en", root)
    write(tmp_path / "w/en/00_start.ipynb", "mine = 1")
    for version in (2, 3):
        publish(root, "00", version)
        workcopy.make(tmp_path / "w", "en", root)
        assert f"print('en version {version}')" in sources(beside)
    write(beside, "mine too")
    publish(root, "00", 4)
    assert workcopy.make(tmp_path / "w", "en", root).files == {"en/00_start.ipynb": "en/00_start.new-2.ipynb"}
    assert sources(beside)[-1] == "mine too"


def test_taking_over_the_lesson_beside_counts_as_up_to_date(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    write(tmp_path / "w/en/00_start.ipynb", "mine = 1")
    publish(root, "00", 2)
    workcopy.make(tmp_path / "w", "en", root)
    (tmp_path / "w/en/00_start.new.ipynb").replace(tmp_path / "w/en/00_start.ipynb")
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "kept"
    publish(root, "00", 3)
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "updated"


def test_a_pasted_picture_is_the_learners_content(root, tmp_path):
    path = tmp_path / "w/en/00_start.ipynb"
    workcopy.make(tmp_path / "w", "en", root)
    book = json.loads(path.read_text())
    book["cells"][0]["attachments"] = {"sketch.png": {"image/png": "AAAA"}}
    path.write_text(json.dumps(book))
    publish(root, "00", 2)
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "beside"


@pytest.mark.parametrize("broken", [b"", b"not json", b"[]", b'{"cells": 3}', b"\xff\xfe\x00"])
def test_a_notebook_that_is_none_any_more_is_the_learners(root, tmp_path, broken):
    workcopy.make(tmp_path / "w", "en", root)
    (tmp_path / "w/en/00_start.ipynb").write_bytes(broken)
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "yours"
    publish(root, "00", 2)
    assert workcopy.make(tmp_path / "w", "en", root).states["en/00_start.ipynb"] == "beside"
    assert (tmp_path / "w/en/00_start.ipynb").read_bytes() == broken


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b'{"format": 99, "delivered": {}}', b'{"format": 1, "delivered": {"a": 1}}']
)
def test_without_a_readable_record_nothing_is_replaced(root, tmp_path, record):
    workcopy.make(tmp_path / "w", "en", root)
    write(tmp_path / "w/en/00_start.ipynb", "mine = 1")
    (tmp_path / "w" / workcopy.STATE).write_bytes(record)
    made = workcopy.make(tmp_path / "w", "en", root)
    assert made.states["en/00_start.ipynb"] == "beside"
    assert made.states["zh/00_start.ipynb"] == "kept"
    assert "the record of what was delivered was unreadable" in made.summary()
    assert sources(tmp_path / "w/en/00_start.ipynb")[-1] == "mine = 1"


def test_a_lesson_that_is_no_more_stays(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    for path in (root / "src/01_dataloader.py", root / "en/01_dataloader.ipynb", root / "zh/01_dataloader.ipynb"):
        path.unlink()
    assert workcopy.make(tmp_path / "w", "en", root).states["en/01_dataloader.ipynb"] == "retired"
    assert (tmp_path / "w/en/01_dataloader.ipynb").is_file()


# Reset ----------------------------------------------------------------------------------------------------------------


def test_reset_keeps_each_changed_version_under_a_number(root, tmp_path):
    path = tmp_path / "w/en/01_dataloader.ipynb"
    workcopy.make(tmp_path / "w", "en", root)
    for text in ("first try", "second try"):
        write(path, text)
        last = workcopy.reset(tmp_path / "w", 1, root)
    assert str(last) == (
        "lesson 01_dataloader is fresh again; 1 changed version kept beside\n"
        "notebook                your version\n"
        "en/01_dataloader.ipynb  en/01_dataloader.backup-2.ipynb\n"
        "zh/01_dataloader.ipynb  -"
    )
    assert sources(path.with_name("01_dataloader.backup.ipynb"))[-1] == "first try"
    assert sources(path.with_name("01_dataloader.backup-2.ipynb"))[-1] == "second try"
    assert sources(path)[-1] == "answer = ..."


def test_reset_of_an_unchanged_lesson_clears_its_outputs_and_keeps_no_backup(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    execute(tmp_path / "w/en/00_start.ipynb")
    assert set(workcopy.reset(tmp_path / "w", "00", root).backups.values()) == {None}
    assert "learner's run" not in (tmp_path / "w/en/00_start.ipynb").read_text()


def test_reset_wants_a_working_copy_and_a_lesson_that_exists(root, tmp_path):
    with pytest.raises(workcopy.WorkcopyError, match=r"nowhere is no working copy; `tutorlib lab .*` makes one"):
        workcopy.reset(tmp_path / "nowhere", "00", root)
    assert not (tmp_path / "nowhere").exists()
    workcopy.make(tmp_path / "w", "en", root)
    with pytest.raises(lessons.LessonError, match="no lesson 42: expected one of 00, 01"):
        workcopy.reset(tmp_path / "w", 42, root)


# Refusals: one clear error, nothing touched ------------------------------------------------------------------------------


def refused(root: Path, folder: Path, expected: str) -> None:
    inside = root.parent.parent
    before = everything(inside)
    with pytest.raises(workcopy.WorkcopyError, match=expected) as caught:
        workcopy.make(folder, "en", root)
    assert "\n" not in str(caught.value)
    assert everything(inside) == before


@pytest.mark.parametrize("place", ["notebooks", "notebooks/en", "notebooks/mine", "tutorlib", "tests/mine", ".git"])
def test_the_clones_own_folders_are_refused(root, place):
    refused(root, root.parent / place, rf"lies in {place.split('/')[0]}/ of the repository; name a folder of your own")


def test_the_clone_itself_is_refused(root):
    refused(root, root.parent, "is the repository itself; name a folder of your own, for example .*my-lessons")


def test_a_folder_of_ones_own_in_the_clone_is_welcome(root):
    assert workcopy.make(root.parent / "my-lessons", "en", root).states


def test_a_link_into_the_clone_is_seen_through(root, tmp_path):
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    refused(root, tmp_path / "link", "lies in notebooks/ of the repository")


def test_a_file_is_refused(root, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(root, tmp_path / "file", "file is a file, expected a folder or a name that is free")
    refused(root, tmp_path / "file" / "below", "file is a file, expected a folder or a name that is free")


def test_things_in_the_way_are_refused(root, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w/zh").write_text("mine")
    refused(root, tmp_path / "w", "zh is a file where a folder is needed")
    (tmp_path / "v/en/00_start.ipynb").mkdir(parents=True)
    refused(root, tmp_path / "v", r"00_start\.ipynb is not a file, and a notebook belongs there")


def test_a_folder_inside_a_working_copy_is_refused(root, tmp_path):
    workcopy.make(tmp_path / "w", "en", root)
    refused(root, tmp_path / "w/en", r"w/en lies inside the working copy .*w; name that one")


def test_a_place_that_cannot_be_written_is_refused(root, tmp_path):
    if sys.platform == "linux":
        place = Path("/proc/lessons")  # holds for root as well
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        place = tmp_path / "locked" / "lessons"
    refused(root, place, r"cannot be written.*; name a folder of your own, for example .*my-lessons")


@pytest.mark.parametrize("locked", ["", "en", ".tutorlib"])
def test_a_copy_that_is_read_only_is_refused_before_anything_is_written(root, tmp_path, monkeypatch, locked):
    """What the system would say of a learner is asked with os.access; said here, because the tests may run as root."""
    place = tmp_path / "w"
    workcopy.make(place, "en", root)
    publish(root, "00", 2)
    before = everything(place)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != place / locked and allowed(path, mode))
    way = r"make it writable or name another folder" if locked else r"name a folder of your own, for example .*my-lessons"
    for call in (lambda: workcopy.make(place, "en", root), lambda: workcopy.reset(place, "00", root)):
        with pytest.raises(workcopy.WorkcopyError, match=rf"{re.escape(str(place / locked))} cannot be written; {way}"):
            call()
    assert everything(place) == before


def test_a_disk_that_fills_up_is_one_error_and_leaves_whole_notebooks(root, tmp_path, monkeypatch):
    workcopy.make(tmp_path / "w", "en", root)
    before = everything(tmp_path / "w")
    for number in TOPICS:
        publish(root, number, 2)
    written = []

    def full(handle):
        written.append(handle)
        if len(written) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(workcopy.WorkcopyError, match="No space left on device"):
        workcopy.make(tmp_path / "w", "en", root)
    monkeypatch.undo()
    after = everything(tmp_path / "w")
    assert set(after) == set(before), "nothing half-written stays"
    assert sum(after[name] != before[name] for name in before) == 1
    assert sorted(workcopy.make(tmp_path / "w", "en", root).states.values()) == ["kept", "updated", "updated", "updated"]


def test_a_clone_that_is_not_whole_is_named(root, tmp_path):
    (root / "zh/01_dataloader.ipynb").unlink()
    refused(root, tmp_path / "w", r"01_dataloader\.ipynb is missing; `git checkout .*` brings it back")
    (root / "zh/01_dataloader.ipynb").write_text("{")
    refused(root, tmp_path / "w", r"01_dataloader\.ipynb is not a notebook")


def test_an_unknown_language_is_refused(root, tmp_path):
    with pytest.raises(ValueError, match="language 'fr': expected one of en, zh"):
        workcopy.make(tmp_path / "w", "fr", root)


# The law --------------------------------------------------------------------------------------------------------------

# One lesson and mostly one language, so that the acts of a history meet each other.
language = st.sampled_from(["en", "en", "en", "zh"])
steps = st.one_of(
    st.tuples(st.sampled_from(["write", "write beside", "execute", "delete", "take new"]), language),
    st.tuples(st.just("write"), language),
    st.tuples(st.just("publish"), st.integers(1, 4)),
    st.tuples(st.just("make"), language),
    st.tuples(st.just("publish and make"), st.integers(1, 4)),
    st.tuples(st.just("reset")),
    st.tuples(st.just("lose record")),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(steps, min_size=6, max_size=30))
def test_no_history_loses_what_a_learner_wrote(history):
    # What a sync is for, a power cut, is not in these histories, and it takes most of the time.
    with tempfile.TemporaryDirectory() as place, mock.patch.object(os, "fsync"):
        root, folder = Path(place) / "clone/notebooks", Path(place) / "w"
        publish(root, "00", 1)
        workcopy.make(folder, "en", root)
        lost = False
        for count, (act, *what) in enumerate(history):
            before = writings(folder)
            if act.startswith("publish"):
                publish(root, "00", what[0])
            if act.endswith("make"):
                workcopy.make(folder, None, root)
                assert writings(folder) == before
                again = everything(folder)
                workcopy.make(folder, None, root)
                assert everything(folder) == again, "a second time changes nothing"
            elif act == "reset":
                workcopy.reset(folder, "00", root)
                assert writings(folder) == before
            elif act == "lose record":
                lost = True
                (folder / workcopy.STATE).unlink(missing_ok=True)
            elif act != "publish":
                learner(act, folder / what[0] / "00_start.ipynb", f"written {count}.")
            if not lost and act.endswith(("make", "reset")):
                up_to_date(root, folder)


def learner(act: str, path: Path, text: str) -> None:
    beside = sorted(path.parent.glob(f"{path.stem}.new*.ipynb"))
    if act == "delete":
        path.unlink(missing_ok=True)
    elif act == "take new" and beside:
        beside[0].replace(path)
    elif act == "write beside" and beside:
        write(beside[0], text)
    elif act == "write" and path.exists():
        write(path, text)
    elif act == "execute" and path.exists():
        execute(path)


def up_to_date(root: Path, folder: Path) -> None:
    """What the learner did not touch is the upstream lesson."""
    for path in folder.glob("??/00_start.ipynb"):
        if "written" not in path.read_text():
            assert json.loads((root / path.parent.name / path.name).read_text())["cells"][1]["source"][0] in sources(path)


def writings(folder: Path) -> set[str]:
    return {text for p in folder.rglob("*.ipynb") for text in re.findall(r"written \d+\.", p.read_text())}


def test_pages_for_reading_are_laid_out_and_kept_if_the_learner_wrote_in_them(executed, tmp_path):
    folder, page = tmp_path / "copy", executed / "en" / "glossary.md"
    page.write_text("# Words\n", encoding="utf-8")
    workcopy.make(folder, root=executed)
    assert (folder / "en" / "glossary.md").read_text(encoding="utf-8") == "# Words\n"
    written = (folder / "en" / "glossary.md").stat().st_mtime_ns
    workcopy.make(folder, root=executed)
    assert (folder / "en" / "glossary.md").stat().st_mtime_ns == written, "what is in step is not written again"
    page.write_text("# More words\n", encoding="utf-8")
    made = workcopy.make(folder, root=executed)
    assert (folder / "en" / "glossary.md").read_text(encoding="utf-8") == "# More words\n"
    assert set(made.states.values()) == {"kept"}
    (folder / "en" / "glossary.md").write_text("# More words\nmine\n", encoding="utf-8")
    page.write_text("# Other words\n", encoding="utf-8")
    workcopy.make(folder, root=executed)
    assert (folder / "en" / "glossary.md").read_text(encoding="utf-8") == "# More words\nmine\n"
