"""Many checkpoints of one training: the last ones and the best one stay, the others go."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutorlib.checkpoint import saving
from tutorlib.checkpoint.base import AnyPath, CheckpointError, an, counted, listed, quoted
from tutorlib.checkpoint.reading import load
from tutorlib.checkpoint.resuming import Resumed, resume
from tutorlib.facts import Facts

_NAME = re.compile(r"step-(\d{8,18})\.pt")
_TEMPORARY = re.compile(r"\.(step-\d{8,18}\.pt)\.[0-9a-f]{12}\.tmp")
_OWN = ("step", "metrics")  # what save adds to the parts


class _File(NamedTuple):
    """One checkpoint of the folder; `problem` says why it is not whole, and is empty for a whole one."""

    step: int
    path: Path
    metrics: Mapping[str, Any]
    problem: str


@dataclass(frozen=True, repr=False)
class Kept(Facts):
    """What a keeper's folder holds: one row for each file. `removed` are the steps whose files the last `save` removed.

    `folder` is where they are, `name` the metric by which the best one is chosen, `latest` and `best` the steps of these
    two (None where there is none), `damaged` says for each file that is not whole why.
    """

    folder: Path
    name: str | None
    files: tuple[_File, ...]
    latest: int | None
    best: int | None
    removed: tuple[int, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        return tuple(f"{file.path.name} ({file.problem})" for file in self.files if file.problem)

    def summary(self) -> str:
        text = counted(len(self.files), "checkpoint")
        text += f", latest is step {self.latest}" if self.latest is not None else ""
        text += f", best is step {self.best}" if self.best is not None else ""
        text += f"; removed step {', '.join(map(str, self.removed))}" if self.removed else ""
        return "; ".join([text, *(f"not whole: {file}" for file in self.damaged)])

    def rows(self) -> list[dict[str, object]]:
        rows = []
        for file in self.files:
            role = [word for word, step in (("latest", self.latest), ("best", self.best)) if step == file.step]
            row: dict[str, object] = {"file": file.path.name, "step": file.step}
            if self.name is not None:
                row[self.name] = file.metrics.get(self.name)
            rows.append(row | {"is": "damaged" if file.problem else " and ".join(role) or "kept"})
        return rows

    def ruler(self) -> dict[str, object]:
        cells = [
            {"text": str(row["step"]), "state": "missing" if file.problem else "same" if row["is"] != "kept" else ""}
            for file, row in zip(self.files, self.rows(), strict=True)
        ]
        return {"unit": "file", "tracks": [{"name": "steps", "cells": cells}]}


class Keeper:
    """The checkpoints of one training in one folder: the last `keep`, and the best one however old it is.

    `best` is the name of the metric that tells which is the best, the smallest (`mode="min"`) or the largest (`"max"`);
    the earlier of two equal ones, and never one that is NaN. `best=None`: only the last ones are kept. All that it knows
    stands in the files, `step-00000012.pt` and so on, ordinary checkpoints that also hold `step` and `metrics`: a new
    keeper on the same folder goes on where an earlier one was killed. Files of other names are left alone.

    A file counts only if it is whole: every byte is held against its checksums. Nothing is removed before the new file
    was read back; then the last `keep` whole ones and the best whole one stay. So the disk needs room for `keep` + 2 files.
    In a training of many ranks only rank 0 keeps.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keeper, model = Keeper(folder, keep=2, best="loss"), torch.nn.Linear(2, 1)
    ...     for step, loss in enumerate([0.9, 0.2, 0.5, float("nan"), 0.4]):
    ...         kept = keeper.save(step, {"loss": loss}, model=model)
    ...     resumed = Keeper(folder).resume(model=model)
    >>> kept
    3 checkpoints, latest is step 4, best is step 1; removed step 2
    file              step  loss  is
    step-00000001.pt     1   0.2  best
    step-00000003.pt     3   nan  kept
    step-00000004.pt     4   0.4  latest
    >>> resumed.values
    {'step': 4, 'metrics': {'loss': 0.4}}
    """

    def __init__(self, folder: AnyPath, *, keep: int = 3, best: str | None = "loss", mode: str = "min") -> None:
        if type(keep) is not int or keep < 1:
            raise ValueError(f"keep is {keep!r}, expected how many of the last checkpoints stay, 1 or more")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}, expected 'min' or 'max': whether a small or a large {best} is good")
        if best is not None and not isinstance(best, str):
            raise TypeError(f"best is {an(best)}, expected the name of a metric such as 'loss', or None")
        self.folder, self.keep, self.metric, self.mode = Path(folder), keep, best, mode
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"{quoted(folder)} is a file, expected a folder for the checkpoints")
        self._seen: dict[str, tuple[tuple[int, ...], _File]] = {}  # what was verified, while a file's size and time stay

    def save(self, step: int, metrics: Mapping[str, Any] | None = None, /, **parts: Any) -> Kept:
        """Save the parts as the checkpoint of this step, see `checkpoint.save`, then remove what need not stay.

        `metrics` are numbers by name, `best` among them. The same step again replaces its file. The folder is made if it
        is not there.

        Raises `TypeError` for a step or a metric that is no number; `CheckpointError`, with all files as they were, if the
        metric for `best` is lacking, if the folder holds a later step (its training would be taken for this one), and for
        all that `checkpoint.save` refuses, a full disk included.
        """
        if type(step) is not int or not 0 <= step < 10**18:
            raise TypeError(f"step is {step!r}, expected a whole number from 0")
        numbers = self._numbers(metrics)
        taken = [name for name in _OWN if name in parts]
        if taken:
            raise TypeError(f"{' and '.join(taken)} cannot be the name of a part: the keeper stores its own there")
        later = [file for file in self._look() if file.step > step and not file.problem]
        if later:
            raise CheckpointError(
                f"cannot save step {step}: {quoted(self.folder)} holds {later[-1].path.name}, which would stay the latest: "
                f"resume from it, remove the later files, or take another folder"
            )
        path = self.folder / f"step-{step:08d}.pt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot save {quoted(path)}: {error.strerror or error}; nothing was written") from error
        self._sweep()
        saving.save(path, **parts, step=step, metrics=numbers)
        return self._prune(path)

    def latest(self) -> Path | None:
        """The newest whole checkpoint, verified now; None in a folder without checkpoints.

        Raises `CheckpointError` if there are files and none of them is whole: to begin anew would be no way out.
        """
        found = self._whole(self._look(anew=True))
        return found[-1].path if found else None

    def best(self) -> Path | None:
        """The best whole checkpoint, verified now; None if none has the metric, or it is NaN in all.

        Raises `CheckpointError` if there are files and none of them is whole.
        """
        found = self._best(self._whole(self._look(anew=True)))
        return found.path if found else None

    def files(self) -> Kept:
        """What is there, all of it verified now."""
        return self._facts(self._look(anew=True))

    @property
    def next(self) -> int:
        """The step after that of the newest whole checkpoint: where a training begins, or goes on; 0 in an empty folder."""
        found = self._whole(self._look())
        return found[-1].step + 1 if found else 0

    def resume(self, which: str = "latest", /, **parts: Any) -> Resumed | None:
        """Put the latest (or `"best"`) whole checkpoint back into the parts, see `checkpoint.resume`; None in an empty folder.

        `.skipped` of the result names newer files that were passed over because they are not whole. `.values` holds `step`
        and `metrics`.

        Raises the errors of `latest` and `checkpoint.resume`.
        """
        if which not in ("latest", "best"):
            raise ValueError(f"which is {which!r}, expected 'latest' or 'best'")
        while True:
            files = self._look(anew=True)
            whole = self._whole(files)
            chosen = self._best(whole) if which == "best" else whole[-1] if whole else None
            if chosen is None:
                if whole:
                    raise CheckpointError(f"no checkpoint in {quoted(self.folder)} has a {self.metric} that is a number")
                return None
            try:
                resumed = resume(chosen.path, **parts)
            except FileNotFoundError:  # another process keeps here too, and removed it meanwhile
                continue
            skipped = tuple(f"{f.path.name} ({f.problem})" for f in files if f.problem and f.step > chosen.step)
            return replace(resumed, skipped=skipped)

    def __repr__(self) -> str:
        return f"Keeper({self.folder.name!r}, keep={self.keep}, best={self.metric!r}, mode={self.mode!r})"

    def _numbers(self, metrics: Mapping[str, Any] | None) -> dict[str, float]:
        if metrics is not None and not isinstance(metrics, Mapping):
            raise TypeError(f"metrics is {an(metrics)}, expected numbers by name, such as {{'loss': 0.25}}")
        numbers = {}
        for name, value in (metrics or {}).items():
            try:
                if isinstance(value, (str, bytes)):
                    raise TypeError
                numbers[str(name)] = float(value.detach() if isinstance(value, torch.Tensor) else value)
            except (TypeError, ValueError, RuntimeError, OverflowError):
                raise TypeError(f"metrics[{name!r}] is {an(value)}, expected one number") from None
        if self.metric is not None and self.metric not in numbers:
            given = ", ".join(numbers) or "nothing"
            raise CheckpointError(
                f"metrics holds {given}, expected {self.metric}, by which the best is chosen: "
                "give it, or make Keeper(folder, best=None); nothing was written"
            )
        return numbers

    def _look(self, *, anew: bool = False) -> list[_File]:
        """The checkpoints of the folder by step; a file is read again if it changed, or all of them `anew`."""
        found, seen = [], {}
        try:
            entries = list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"cannot read the folder {quoted(self.folder)}: {error.strerror or error}") from error
        for path in entries:
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process keeps here too
                continue
            mark = stat.st_size, stat.st_mtime_ns, stat.st_ino
            known = self._seen.get(path.name)
            if anew or known is None or known[0] != mark:
                file = _read(int(match[1]), path)
                if file is None:
                    continue
                known = mark, file
            seen[path.name] = known
            found.append(known[1])
        self._seen = seen
        return sorted(found)

    def _whole(self, files: list[_File]) -> list[_File]:
        whole = [file for file in files if not file.problem]
        if files and not whole:
            problems = [f"{file.path.name} ({file.problem})" for file in files]
            raise CheckpointError(f"no checkpoint in {quoted(self.folder)} is whole: {listed(problems)}")
        return whole

    def _best(self, whole: list[_File]) -> _File | None:
        if self.metric is None:
            return None
        sign = 1 if self.mode == "min" else -1
        rated = [(file.metrics[self.metric], file) for file in whole if _is_number(file.metrics.get(self.metric))]
        return min(rated, key=lambda pair: (sign * pair[0], pair[1].step))[1] if rated else None

    def _prune(self, path: Path) -> Kept:
        """Read the new file back, then remove all but the last whole ones and the best whole one."""
        files = self._look()
        new = next((file for file in files if file.path == path), None)
        if new is not None and new.problem:
            raise CheckpointError(f"{quoted(path)} was written, but does not read back: {new.problem}; nothing was removed")
        whole = [file for file in files if not file.problem]
        last, best = whole[-self.keep :], self._best(whole)
        oldest = last[0].step if last else 0
        removed = []
        for file in files:
            if file.step < oldest and file != best:
                with contextlib.suppress(OSError):  # in use (Windows), or not ours to remove: the next save tries again
                    file.path.unlink(missing_ok=True)
                    removed.append(file)
        return replace(self._facts([file for file in files if file not in removed]), removed=tuple(f.step for f in removed))

    def _sweep(self) -> None:
        """Remove the temporary files of killed processes, also of steps that are never saved again."""
        names = {match[1] for entry in self.folder.iterdir() if (match := _TEMPORARY.fullmatch(entry.name))}
        for name in names:
            saving._sweep(self.folder / name)

    def _facts(self, files: list[_File]) -> Kept:
        whole = [file for file in files if not file.problem]
        best = self._best(whole)
        latest = whole[-1].step if whole else None
        return Kept(self.folder, self.metric, tuple(files), latest, best.step if best else None)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isnan(value)


def _read(step: int, path: Path) -> _File | None:
    """Verify one file and read its metrics, without memory for its tensors; None if it is gone."""
    try:
        content = load(path, map_location="meta")
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        text = str(error).replace(quoted(path), "it").replace(str(path), path.name)
        return _File(step, path, {}, text.split(": take an earlier copy")[0].removeprefix("it is "))
    metrics = content.get("metrics") if isinstance(content, Mapping) else None
    return _File(step, path, metrics if isinstance(metrics, Mapping) else {}, "")
