"""The learner's working copy: laid out, brought up to date and reset, without ever losing what the learner wrote.

A working copy mirrors the committed tree, so that the links between languages work in both::

    FOLDER/en/NN_topic.ipynb    the lessons without solutions and outputs
    FOLDER/zh/NN_topic.ipynb
    FOLDER/en/glossary.md       pages for reading
    FOLDER/.tutorlib/           what was delivered (state.json) and the progress of the exercises

The rule: a notebook is replaced only when its content is exactly what was delivered there before. What a learner
wrote is the content of the cells (their kinds, sources and attachments); outputs and run counts are not, but they too
stay as long as the lesson does not change.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import lessons
from .facts import Facts

__all__ = ["Made", "Reset", "WorkcopyError", "make", "reset"]

STATE = ".tutorlib/state.json"
FORMAT = 1
OURS = ("notebooks", "tutorlib", "tests", "benchmarks", ".git", ".ci", ".venv")  # the clone's own folders


class WorkcopyError(ValueError):
    """A working copy cannot be made there; the message names the folder, what was found and the way out."""


@dataclass(frozen=True, repr=False)
class Made(Facts):
    """What `make` did, by lesson and language.

    `delivered`: laid out for the first time, or again after it was deleted. `kept`: nothing to do. `updated`: the
    lesson changed and the learner had not. `yours`: the learner changed it, the lesson did not. `beside`: both
    changed, and the new lesson was put beside the learner's (`files` says where). `yours, new beside`: that was done
    at an earlier time. `retired`: no lesson any more, left as it is.
    """

    folder: Path
    language: str
    states: Mapping[str, str]
    files: Mapping[str, str]
    recovered: bool

    def start(self) -> str:
        """The notebook to open first, relative to the folder: `en/00_start.ipynb`."""
        return next((name for name in self.states if name.startswith(f"{self.language}/")), self.language)

    def summary(self) -> str:
        counts: dict[str, int] = {}
        for state in self.states.values():
            counts[state] = counts.get(state, 0) + 1
        text = ", ".join(f"{count} {state}" for state, count in counts.items())
        lost = "; the record of what was delivered was unreadable and is made anew" if self.recovered else ""
        return f"working copy of {len(self._lessons())} lessons in {len(lessons.LANGUAGES)} languages: {text or 'empty'}{lost}"

    def rows(self) -> list[dict[str, object]]:
        return [
            {"lesson": name} | {lang: self._cell(f"{lang}/{name}.ipynb") for lang in lessons.LANGUAGES}
            for name in self._lessons()
        ]

    def _lessons(self) -> list[str]:
        return sorted({Path(name).stem for name in self.states})

    def _cell(self, name: str) -> str | None:
        state = self.states.get(name)
        return f"{state}: {Path(self.files[name]).name}" if name in self.files else state


@dataclass(frozen=True, repr=False)
class Reset(Facts):
    """What `reset` did: for each language's notebook the backup of the learner's version, if there was one to keep."""

    folder: Path
    lesson: str
    backups: Mapping[str, str | None]

    def summary(self) -> str:
        kept = sum(name is not None for name in self.backups.values())
        return f"lesson {self.lesson} is fresh again; {kept or 'no'} changed {'version' if kept == 1 else 'versions'} kept beside"

    def rows(self) -> list[dict[str, object]]:
        return [{"notebook": name, "your version": backup} for name, backup in self.backups.items()]


def make(folder: str | Path, language: str | None = None, root: str | Path | None = None) -> Made:
    """Makes a learner's working copy in `folder`, or brings it up to date; never replaces what the learner wrote.

    Both languages are laid out (links lead from one to the other); `language` says which one opens first, and None
    means the one of the last time, else "en". `root`: the folder `notebooks/`, by default the clone's.

    Raises `WorkcopyError` before anything is touched: the folder is a file, lies in a folder of the clone, cannot be
    written, or holds something that is in the way.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     first = make(Path(place) / "my lessons", "en")
    ...     again = make(Path(place) / "my lessons")
    >>> set(first.states.values()) <= {"delivered"}, set(again.states.values()) <= {"kept"}
    (True, True)
    """
    if language is not None and language not in lessons.LANGUAGES:
        raise ValueError(f"language {language!r}: expected one of {', '.join(lessons.LANGUAGES)}")
    folder, fresh = Path(folder).expanduser().absolute(), _fresh(root)
    check(folder, root)
    state, recovered = _read_state(folder)
    delivered: dict[str, str] = dict(state.get("delivered", {}))
    offered: dict[str, dict[str, str]] = {name: dict(files) for name, files in state.get("offered", {}).items()}
    language = language or state.get("language") or "en"
    states: dict[str, str] = {}
    files: dict[str, str] = {}
    with _writing(folder):
        for name, text in fresh.items():
            path, new = folder / name, _content(text)
            mine = _content(path.read_text("utf-8", "replace")) if path.exists() else None
            if mine is None:
                _write(path, text)
                states[name] = "delivered"
            elif mine == new:
                states[name] = "kept"
            elif mine == delivered.get(name):
                _write(path, text)
                states[name] = "updated"
            elif new == delivered.get(name):
                states[name] = "yours"
                continue
            else:
                before = offered.setdefault(name, {})
                if new in before.values():  # offered before; if it is gone, the learner did not want it
                    there = any((path.parent / made).exists() for made, content in before.items() if content == new)
                    states[name] = "yours, new beside" if there else "yours"
                else:
                    beside = _beside(path, before)
                    _write(beside, text)
                    before[beside.name] = new
                    states[name], files[name] = "beside", f"{path.parent.name}/{beside.name}"
                continue
            delivered[name] = new
            offered.pop(name, None)
        for name, text in _pages(root).items():  # for reading; one in which the learner wrote stays as it is
            path = folder / name
            mine = _content(path.read_text("utf-8", "replace")) if path.exists() else None
            if mine is None or mine == delivered.get(name) != _content(text):
                _write(path, text)
                delivered[name] = _content(text)
        for name in sorted(set(delivered) - set(fresh)):
            if name.endswith(".ipynb") and (folder / name).exists():
                states[name] = "retired"
        _write_state(folder, language, delivered, offered)
    return Made(folder, language, states, files, recovered)


def reset(folder: str | Path, number: str | int, root: str | Path | None = None) -> Reset:
    """Lays out one lesson afresh in both languages; a version that the learner changed is kept as a numbered backup beside.

    Raises `WorkcopyError` when `folder` is no working copy, and `lessons.LessonError` for a lesson that does not exist.
    """
    folder, fresh = Path(folder).expanduser().absolute(), _fresh(root)
    (wanted,) = lessons.numbers([number], root)
    check(folder, root)
    if not (folder / ".tutorlib").is_dir():
        raise WorkcopyError(f"{folder} is no working copy; `tutorlib lab {folder}` makes one")
    state, _ = _read_state(folder)
    delivered: dict[str, str] = dict(state.get("delivered", {}))
    offered = dict(state.get("offered", {}))
    backups: dict[str, str | None] = {}
    with _writing(folder):
        for name, text in fresh.items():
            if not Path(name).name.startswith(f"{wanted}_"):
                continue
            path, new = folder / name, _content(text)
            backups[name] = None
            if path.exists():
                mine = path.read_bytes()
                if _content(mine.decode("utf-8", "replace")) not in (new, delivered.get(name)):
                    backups[name] = f"{path.parent.name}/{_backup(path, mine).name}"
            _write(path, text)
            delivered[name] = new
            offered.pop(name, None)
        _write_state(folder, state.get("language"), delivered, offered)
    return Reset(folder, next(Path(name).stem for name in backups), backups)


def check(folder: str | Path, root: str | Path | None = None) -> None:
    """Raises `WorkcopyError` when a working copy cannot be in `folder`; touches nothing."""
    folder = Path(folder).expanduser().absolute()
    clone, real = lessons.find_root(root).parent, folder.resolve()
    if real == clone:
        raise WorkcopyError(f"{folder} is the repository itself; {_elsewhere(clone / 'my-lessons')}")
    if real.is_relative_to(clone) and (inside := real.relative_to(clone).parts[0]) in OURS:
        raise WorkcopyError(f"{folder} lies in {inside}/ of the repository; {_elsewhere(clone / 'my-lessons')}")
    for outer in folder.parents:
        if (outer / STATE).exists():
            raise WorkcopyError(f"{folder} lies inside the working copy {outer}; name that one, or a folder outside it")
    for part in (folder, *folder.parents):
        if part.is_dir():
            if not os.access(part, os.W_OK | os.X_OK):
                raise WorkcopyError(f"{part} cannot be written; {_elsewhere(Path.home() / 'my-lessons')}")
            break
        if part.exists() or part.is_symlink():
            raise WorkcopyError(f"{part} is a file, expected a folder or a name that is free; name another one")
    for name in (".tutorlib", *lessons.LANGUAGES):
        inner = folder / name
        if (inner.exists() or inner.is_symlink()) and not inner.is_dir():
            raise WorkcopyError(f"{inner} is a file where a folder is needed; move it away or name another folder")
        if inner.is_dir() and not os.access(inner, os.W_OK | os.X_OK):
            raise WorkcopyError(f"{inner} cannot be written; make it writable or name another folder")
        for notebook in inner.glob("[0-9][0-9]_*.ipynb") if name in lessons.LANGUAGES else ():
            if not notebook.is_file():
                raise WorkcopyError(
                    f"{notebook} is not a file, and a notebook belongs there; move it away or name another folder"
                )


def _fresh(root: str | Path | None) -> dict[str, str]:
    """The learner's notebooks as texts by relative name, from the committed ones."""
    from nbformat.v4 import nbjson

    place, found = lessons.find_root(root), {}
    for language in lessons.LANGUAGES:
        for source in lessons.sources(root):
            stored = place / language / f"{source.stem}.ipynb"
            try:
                notebook = nbjson.reads(stored.read_text(encoding="utf-8"))
                found[f"{language}/{source.stem}.ipynb"] = lessons.text_of(lessons.learner(notebook))
            except FileNotFoundError:
                raise WorkcopyError(
                    f"{stored} is missing; `git checkout {stored}` brings it back, `tutorlib refresh {source.stem[:2]}` makes it"
                ) from None
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise WorkcopyError(f"{stored} is not a notebook ({error}); `git checkout {stored}` brings it back") from error
    return found


def _pages(root: str | Path | None) -> dict[str, str]:
    """The pages for readers that stand beside the lessons: the glossary, and what the notes say."""
    place = lessons.find_root(root)
    found = [path for language in lessons.LANGUAGES for path in sorted((place / language).glob("*.md"))]
    return {path.relative_to(place).as_posix(): path.read_text(encoding="utf-8") for path in found}


def _content(text: str) -> str:
    """A hash of what a learner writes in a notebook: the cells that are not empty, by kind, source and attachments.

    Empty cells do not count, because running the last cell adds one. A text that is no notebook is its own content.
    """
    try:
        kept: Any = [
            (cell["cell_type"], "".join(cell["source"]), cell.get("attachments", {}))
            for cell in json.loads(text)["cells"]
            if "".join(cell["source"]).strip() or cell.get("attachments")
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        kept = text
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _beside(path: Path, before: Mapping[str, str]) -> Path:
    """Where to put a new lesson beside the learner's: the first `.new` name that is free or untouched since we wrote it."""
    for name in _numbered(path, "new"):
        if not name.exists() or before.get(name.name) == _content(name.read_text("utf-8", "replace")):
            return name
    raise AssertionError("unreachable")


def _backup(path: Path, content: bytes) -> Path:
    for name in _numbered(path, "backup"):
        with suppress(FileExistsError), name.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            return name
    raise AssertionError("unreachable")


def _numbered(path: Path, word: str) -> Iterator[Path]:
    number = 1
    while True:
        yield path.with_name(f"{path.stem}.{word}{'' if number == 1 else f'-{number}'}{path.suffix}")
        number += 1


def _read_state(folder: Path) -> tuple[dict[str, Any], bool]:
    """What was delivered, and whether the record was lost: then nothing counts as delivered, so nothing is replaced."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        hashes = [*state["delivered"].values(), *(known for made in state["offered"].values() for known in made.values())]
        whole = state["format"] == FORMAT and state["language"] in (None, *lessons.LANGUAGES)
        return (state, False) if whole and all(isinstance(known, str) for known in hashes) else ({}, True)
    except FileNotFoundError:
        return {}, False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, True


def _write_state(folder: Path, language: str | None, delivered: Mapping[str, str], offered: Mapping[str, Any]) -> None:
    state = {"format": FORMAT, "language": language, "delivered": delivered, "offered": offered}
    text = json.dumps(state, indent=1, sort_keys=True) + "\n"
    if not (folder / STATE).is_file() or (folder / STATE).read_bytes() != text.encode():
        _write(folder / STATE, text)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Makes the folder, and turns what the system says about it into one clear error."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # before the first notebook: can files be made here at all?
            pass
        yield
    except OSError as error:
        raise WorkcopyError(
            f"{error.filename or folder} cannot be written ({error.strerror}); {_elsewhere(Path.home() / 'my-lessons')}"
        ) from error


def _elsewhere(example: Path) -> str:
    return f"name a folder of your own, for example {example}"


def _write(path: Path, text: str) -> None:
    """All or nothing: the text goes to a file beside, is synced, and takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
