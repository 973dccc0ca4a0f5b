"""Proofs that a reader can run: what a kill costs, and whether a resume is bit-equal."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutorlib.checkpoint.base import CheckpointError, an, first_line, is_part, same, state_of
from tutorlib.checkpoint.reading import load
from tutorlib.checkpoint.resuming import RandomState, resume
from tutorlib.checkpoint.saving import save
from tutorlib.facts import Facts


@dataclass(frozen=True, repr=False)
class Killed(Facts):
    """What was left of a checkpoint whose overwriting was killed; one row for each way of saving.

    `outcomes[name]` is `old`, `new` or `lost` for each kill, in the order of the moments; `stray[name]` counts files left
    beside the checkpoint after one more save.
    """

    outcomes: Mapping[str, tuple[str, ...]]
    stray: Mapping[str, int]

    def summary(self) -> str:
        times = len(next(iter(self.outcomes.values())))
        return f"a checkpoint is overwritten {times} times, each time the process is killed in the middle of writing"

    def rows(self) -> list[dict[str, object]]:
        return [
            {"save": name, **{f"{word} whole": found.count(word) for word in ("old", "new")}, "lost": found.count("lost")}
            | {"stray files": self.stray[name]}
            for name, found in self.outcomes.items()
        ]

    def ruler(self) -> dict[str, object]:
        tracks = [
            {"name": name, "cells": [{"text": word, "state": "missing" if word == "lost" else "same"} for word in found]}
            for name, found in self.outcomes.items()
        ]
        return {"unit": "kill", "tracks": tracks}


def overwrite_killed(*saves: Callable[..., Any], times: int = 4, size: int = 1_000_000) -> Killed:
    """Overwrite a checkpoint in a process that is killed in the middle of writing, and see what is left of it.

    Each `save` is `torch.save`, `checkpoint.save` or a function `save(state, path)` that a new process can import. The
    kill is real and its moment the same in each run: after 0, 1/times, 2/times, ... of the file's bytes the system ends
    the process, as `kill -9` does: no handler, no cleaning up. (On Windows a thread ends the process at about that size.)
    `size` is in bytes. Takes some seconds: the processes import torch once.

    >>> from tutorlib import checkpoint
    >>> overwrite_killed(torch.save, checkpoint.save, times=2)
    a checkpoint is overwritten 2 times, each time the process is killed in the middle of writing
    save             old whole  new whole  lost  stray files
    torch.save               0          0     2            0
    checkpoint.save          2          0     0            0
    """
    if not saves or times < 1 or size < 1:
        raise ValueError(f"overwrite_killed needs a way of saving and times and size of at least 1, found {times} and {size}")
    for function in saves:
        _importable(function)
    context = multiprocessing.get_context("spawn")
    answer, asked = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = context.Process(target=_overwrite_all, args=(saves, times, size, folder, asked))
        process.start()
        asked.close()
        try:
            outcome = answer.recv()
        except EOFError:
            outcome = CheckpointError("the process that overwrites ended without a result")
        finally:
            process.join()
            answer.close()
    if isinstance(outcome, BaseException):
        raise outcome
    return Killed(*outcome)


def _importable(function: Callable[..., Any]) -> None:
    name = getattr(function, "__qualname__", "")
    main = sys.modules["__main__"]
    if "<lambda>" in name or "<locals>" in name or (function.__module__ == "__main__" and not hasattr(main, "__file__")):
        raise TypeError(
            f"a new process cannot import {name or function!r}: define it in a module, or in a cell under %%importable"
        )


def _overwrite_all(saves: Sequence[Callable[..., Any]], times: int, size: int, folder: str, answer: Any) -> None:
    torch.set_num_threads(1)  # a forked copy of a process whose torch has threads waits for them for ever
    try:
        outcomes, stray = {}, {}
        for number, function in enumerate(saves):
            module = {torch.save: "torch", save: "checkpoint"}.get(function, function.__module__.rsplit(".", 1)[-1])
            name = f"{module}.{function.__qualname__}"
            place = Path(folder, str(number))
            place.mkdir()
            outcomes[name], stray[name] = _overwrite(function, times, size, place / "last.pt")
        answer.send((outcomes, stray))
    except BaseException as error:
        answer.send(CheckpointError(f"the process that overwrites failed: {type(error).__name__}: {first_line(error)}"))


def _overwrite(function: Callable[..., Any], times: int, size: int, path: Path) -> tuple[tuple[str, ...], int]:
    # One process has imported torch; where the system can fork, the processes that are killed are its copies.
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    _save_with(function, path, 2.0, size)
    whole = path.stat().st_size
    outcomes = []
    for moment in range(times):
        torch.save(_marked(1.0, size), path)
        process = context.Process(target=_killed_at, args=(whole * moment // times, function, path, size))
        process.start()
        process.join(60)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise CheckpointError("a process that was to be killed while saving did not end within 60 s")
        outcomes.append(_left(path, size))
    _save_with(function, path, 2.0, size)
    return tuple(outcomes), sum(1 for entry in path.parent.iterdir() if entry != path)


def _marked(value: float, size: int) -> dict[str, Any]:
    return {"weights": torch.full((max(1, size // 4),), value)}


def _save_with(function: Callable[..., Any], path: Path, value: float, size: int) -> None:
    if function is save:
        save(path, **_marked(value, size))
    else:
        function(_marked(value, size), path)


def _killed_at(moment: int, function: Callable[..., Any], path: Path, size: int) -> None:
    """Save, and be ended by the system when a file of this process reaches `moment` bytes."""
    if sys.platform == "win32":
        threading.Thread(target=_end_at, args=(moment, path.parent), daemon=True).start()
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it by default
        resource.setrlimit(resource.RLIMIT_FSIZE, (moment, moment))
    _save_with(function, path, 2.0, size)


def _end_at(moment: int, folder: Path) -> None:
    before = {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    while True:
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                found = entry.stat()
                if found.st_mtime_ns != before.get(entry) and found.st_size >= moment:
                    os.kill(os.getpid(), signal.SIGTERM)  # on Windows this ends the process at once
        time.sleep(0.0002)


def _left(path: Path, size: int) -> str:
    try:
        weights = load(path)["weights"]
    except (CheckpointError, FileNotFoundError):
        return "lost"
    return next((word for word, value in (("old", 1.0), ("new", 2.0)) if same(weights, _marked(value, size)["weights"])), "lost")


@dataclass(frozen=True)
class Run:
    """One run of `resume_proof`: its losses, the first step that differs from the straight run, and the parts that do not."""

    name: str
    losses: tuple[float, ...]
    first: int | None
    equal: Mapping[str, bool]


@dataclass(frozen=True, repr=False)
class ResumeProof(Facts):
    """Whether training resumed from a checkpoint is the training that was never stopped; one row for each run.

    `runs[0]` went straight, `runs[1]` was resumed with all parts, each further one with one part forgotten. `equal` says
    whether the resumed run is bit-equal; `needed` names the parts whose absence changes a loss or another part.
    """

    k: int
    m: int
    runs: tuple[Run, ...]

    @property
    def equal(self) -> bool:
        return self.runs[1].first is None and all(self.runs[1].equal.values())

    @property
    def needed(self) -> tuple[str, ...]:
        changed = []
        for run in self.runs[2:]:
            part = run.name.removeprefix("without ")
            if run.first is not None or not all(same for name, same in run.equal.items() if name != part):
                changed.append(part)
        return tuple(changed)

    def summary(self) -> str:
        verdict = "bit-equal" if self.equal else "not equal"
        text = f"{self.k} steps, save, resume, {self.m} steps against {self.k + self.m} steps straight: {verdict}"
        return f"{text}; needed: {', '.join(self.needed)}" if self.needed else text

    def rows(self) -> list[dict[str, object]]:
        return [{"run": run.name, "first different step": run.first, **run.equal} for run in self.runs[1:]]

    def ruler(self) -> dict[str, object]:
        straight = self.runs[0].losses
        tracks = [
            {
                "name": run.name,
                "cells": [
                    {
                        "text": f"{loss:.2f}",
                        "state": "" if run is self.runs[0] else "same" if loss == straight[i] else "different",
                    }
                    for i, loss in enumerate(run.losses)
                ],
            }
            for run in self.runs
        ]
        return {"unit": "step", "cut": self.k, "tracks": tracks}


def resume_proof(
    make: Callable[[], Mapping[str, Any]], step: Callable[..., Any], k: int = 3, m: int = 3, *, seed: int = 0
) -> ResumeProof:
    """Train k + m steps straight, and k steps, save, fresh parts, resume, m steps: is it the same, bit for bit?

    `make()` gives fresh parts by name, as for `save` and `resume`; `step(**parts)` does one step and returns its loss.
    Then once more with each part forgotten, to see which of them matter. Fresh parts are made under another random seed,
    as in a new process. The random state of the caller is left as it was. Steps are counted from 0.

    Raises `CheckpointError` when the step does not repeat itself from the same seed, or a part cannot be saved or resumed.
    Claims: CK-01, CK-02.

    >>> def make():
    ...     model = torch.nn.Linear(2, 1)
    ...     return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)}
    >>> def step(model, optimizer):
    ...     optimizer.zero_grad()
    ...     loss = (model(torch.eye(2)) - 1).pow(2).mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> resume_proof(make, step)
    3 steps, save, resume, 3 steps against 6 steps straight: bit-equal; needed: model, optimizer
    run                first different step  model  optimizer
    resumed                               -  yes    yes
    without model                         3  no     no
    without optimizer                     4  no     no
    """
    if k < 1 or m < 1:
        raise ValueError(f"resume_proof needs at least one step before and after the stop, found k={k} and m={m}")
    caller = RandomState().state_dict()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return _proof(make, step, k, m, seed, Path(folder) / "proof.pt")
    finally:
        RandomState().load_state_dict(caller)


def _proof(make: Callable[[], Mapping[str, Any]], step: Callable[..., Any], k: int, m: int, seed: int, path: Path) -> ResumeProof:
    straight, parts = _steps(make, step, k + m, seed)
    wanted = _final(parts)
    before, parts = _steps(make, step, k, seed)
    for number, (a, b) in enumerate(zip(straight, before, strict=False)):
        if not same(a, b):
            raise CheckpointError(
                f"step {number} gives another loss each time, from the same seed: make() or step() keeps a state"
            )
    save(path, **parts)

    runs = [Run("straight", straight, None, dict.fromkeys(wanted, True))]
    for name, forgotten in [("resumed", None), *((f"without {part}", part) for part in wanted)]:
        _seed(seed + 1)
        parts = _made(make)
        resume(path, **{part: parts[part] for part in parts if part != forgotten})
        losses = before + tuple(_loss(step, parts) for _ in range(m))
        first = next((i for i, (a, b) in enumerate(zip(losses, straight, strict=True)) if not same(a, b)), None)
        final = _final(parts)
        runs.append(Run(name, losses, first, {part: same(final[part], wanted[part]) for part in wanted}))
    return ResumeProof(k, m, tuple(runs))


def _steps(make: Callable[[], Any], step: Callable[..., Any], number: int, seed: int) -> tuple[tuple[float, ...], dict[str, Any]]:
    _seed(seed)
    parts = _made(make)
    return tuple(_loss(step, parts) for _ in range(number)), parts


def _made(make: Callable[[], Any]) -> dict[str, Any]:
    parts = make()
    if not isinstance(parts, Mapping) or not parts:
        raise TypeError(f"make() returned {an(parts)}, expected a dictionary of parts such as {{'model': ..., 'optimizer': ...}}")
    plain = [name for name, part in parts.items() if not is_part(part)]
    if plain:
        raise TypeError(f"make() returned values without state_dict(): {', '.join(plain)}: keep them in an object that has it")
    return dict(parts)


def _loss(step: Callable[..., Any], parts: Mapping[str, Any]) -> float:
    loss = step(**parts)
    if loss is None:
        raise TypeError("step() returned None, expected its loss as a number")
    return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)


def _final(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(state_of(name, part)) for name, part in parts.items()}


def _seed(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
