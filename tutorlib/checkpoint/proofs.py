"""Proofs that a reader can run: what a kill costs, and whether a resume is bit-equal."""

from __future__ import annotations

import contextlib
import copy
import functools
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutorlib import processes
from tutorlib.checkpoint.base import CheckpointError, an, differences, first_line, is_part, same, state_of
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
    context = processes.fresh("tutorlib.checkpoint")
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
    """A TypeError for what a new process could not import: a lambda, a function in a function or of an ordinary cell."""
    inner = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    alone = getattr(inner, "__module__", "") == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    if not alone and "<lambda>" not in name and "<locals>" not in name:
        with contextlib.suppress(Exception):  # whatever a pickle's protocol raises, the answer is the same
            pickle.dumps(function)
            return
    raise TypeError(f"a new process cannot import {name!r}: define it in a module, or in a cell under %%importable")


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
    """One run of `resume_proof`: its losses, the first step that differs from the straight run, and the parts that do not.

    `lost` says where a part, right after it was resumed, was not what had been saved.
    """

    name: str
    losses: tuple[float, ...]
    first: int | None
    equal: Mapping[str, bool]
    lost: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        return self.first is None and all(self.equal.values())


_RESUMED, _ANEW, _RANDOM = "resumed", "resumed in a new process", "resumed, random state too"
_WITHOUT = "without "


@dataclass(frozen=True, repr=False)
class ResumeProof(Facts):
    """Whether training resumed from a checkpoint is the training that was never stopped; one row for each run.

    `runs` are the straight one, those resumed with all parts, and for each part one in which it was forgotten. `equal` says
    whether the resumed runs are bit-equal; if not, `forgotten` says what was. `needed` names the parts whose absence
    changes a loss, another part, or the model that the part is.
    """

    k: int
    m: int
    runs: tuple[Run, ...]
    models: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return all(run.same for run in self.runs[1:] if not run.name.startswith((_WITHOUT, _RANDOM)))

    @property
    def needed(self) -> tuple[str, ...]:
        changed = []
        for run in self.runs:
            part = run.name.removeprefix(_WITHOUT)
            if run.name == part:
                continue
            if run.first is not None or not all(same for name, same in run.equal.items() if name != part or name in self.models):
                changed.append(part)
        return tuple(changed)

    @property
    def forgotten(self) -> tuple[str, ...]:
        """What the resumed runs lacked, as far as it can be told; empty if they are equal."""
        if self.equal:
            return ()
        runs = {run.name: run for run in self.runs}
        if runs[_RESUMED].lost:
            return runs[_RESUMED].lost
        if _RANDOM in runs and runs[_RANDOM].same:
            return ("the random state: make() needs random=checkpoint.RandomState()",)
        if runs[_RESUMED].same:
            return runs[_ANEW].lost or ("a state of the process that is in no part (a global variable, a default of torch)",)
        different = ", ".join(name for name, equal in runs[_RESUMED].equal.items() if not equal)
        return (f"a state that is in no state_dict(); different in the end: {different or 'no part'}",)

    def summary(self) -> str:
        verdict = "bit-equal" if self.equal else "not equal"
        where = ", also in a new process" if any(run.name == _ANEW for run in self.runs) and self.equal else ""
        text = f"{self.k} steps, save, resume, {self.m} steps against {self.k + self.m} steps straight: {verdict}{where}"
        for word, found in (("forgotten", self.forgotten), ("needed", self.needed)):
            text += f"; {word}: {', '.join(found)}" if found else ""
        return text

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
                        "state": "" if run is self.runs[0] else "same" if same(loss, straight[i]) else "different",
                    }
                    for i, loss in enumerate(run.losses)
                ],
            }
            for run in self.runs
        ]
        return {"unit": "step", "cut": self.k, "tracks": tracks}


def resume_proof(
    make: Callable[[], Mapping[str, Any]],
    step: Callable[..., Any],
    k: int = 3,
    m: int = 3,
    *,
    seed: int = 0,
    process: str = "same",
) -> ResumeProof:
    """Train k + m steps straight, and k steps, save, fresh parts, resume, m steps: is it the same, bit for bit?

    `make()` gives fresh parts by name, as for `save` and `resume`; `step(**parts)` does one step and returns its loss.
    Then once more with each part forgotten, to see which of them matter. Fresh parts are made under another random seed,
    as in a new process. The random state of the caller is left as it was. Steps are counted from 0.

    `process="new"` does the second half in a new process as well, which finds what the first one keeps outside of the
    parts; the runs with a part forgotten are all done there. It imports torch, which takes seconds, and `make` and `step`:
    they must live in a module, or in a cell under %%importable.

    When the resumed training differs, `.forgotten` says what is missing: a part that comes back incomplete, the random
    state, a state of the process.

    Raises `CheckpointError` when the step does not repeat itself from the same seed, a part cannot be saved or resumed, or
    the new process fails; `TypeError` for functions that it cannot import. Claims: CK-01, CK-02.

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
    if process not in ("same", "new"):
        raise ValueError(f"process is {process!r}, expected 'same' or 'new'")
    if process == "new":
        for function in (make, step):
            _importable(function)
    caller = RandomState().state_dict()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return _proof(make, step, k, m, seed, Path(folder), process == "new")
    finally:
        RandomState().load_state_dict(caller)


class _Half(NamedTuple):
    """What the second half of a run gave: its losses, the final states, and what did not come back when it was resumed."""

    losses: tuple[float, ...]
    final: dict[str, Any]
    lost: tuple[str, ...]


def _proof(
    make: Callable[[], Mapping[str, Any]], step: Callable[..., Any], k: int, m: int, seed: int, folder: Path, anew: bool
) -> ResumeProof:
    straight, parts = _steps(make, step, k + m, seed)
    wanted = _final(parts)
    models = tuple(name for name, part in parts.items() if isinstance(part, torch.nn.Module))
    before, parts = _steps(make, step, k, seed)
    for number, (a, b) in enumerate(zip(straight, before, strict=False)):
        if not same(a, b):
            raise CheckpointError(
                f"step {number} gives another loss each time, from the same seed: make() or step() keeps a state"
            )
    save(folder / "proof.pt", **parts, **{_HIDDEN: RandomState()})
    del parts

    def judged(name: str, half: _Half) -> Run:
        losses = before + half.losses
        first = next((i for i, (a, b) in enumerate(zip(losses, straight, strict=True)) if not same(a, b)), None)
        return Run(name, losses, first, {part: same(half.final[part], wanted[part]) for part in wanted}, half.lost)

    forgetting: list[str | None] = list(wanted)
    runs = [Run("straight", straight, None, dict.fromkeys(wanted, True))]
    runs.append(judged(_RESUMED, _second_half(make, step, m, seed, folder, None)))
    if not runs[1].same:
        again = judged(_RANDOM, _second_half(make, step, m, seed, folder, None, random_too=True))
        runs += [again] if again.same else []
    halves: Iterator[_Half]
    if anew:
        halves = _in_a_new_process(make, step, m, seed, folder, [None, *forgetting])
        runs.append(judged(_ANEW, next(halves)))
    else:
        halves = (_second_half(make, step, m, seed, folder, part) for part in forgetting)
    runs += [judged(f"{_WITHOUT}{part}", half) for part, half in zip(forgetting, halves, strict=True)]
    return ResumeProof(k, m, tuple(runs), models)


_HIDDEN = "the random state, saved by the proof"


def _second_half(
    make: Callable[[], Any],
    step: Callable[..., Any],
    m: int,
    seed: int,
    folder: Path,
    without: str | None,
    random_too: bool = False,
) -> _Half:
    """Fresh parts, all but one resumed, and the m steps after the stop."""
    path = folder / "proof.pt"
    _seed(seed + 1)
    parts = _made(make)
    chosen = {name: part for name, part in parts.items() if name != without}
    if random_too:
        chosen[_HIDDEN] = RandomState()
    lost: list[str] = []
    if chosen:
        resume(path, **chosen)
        if without is None:
            saved = load(path)
            for name, part in parts.items():
                lost += differences(state_of(name, part), saved[name], name)
    losses = tuple(_loss(step, parts) for _ in range(m))
    return _Half(losses, _final(parts), tuple(f"{text} after resume" for text in lost[:3]))


def _in_a_new_process(
    make: Callable[[], Any], step: Callable[..., Any], m: int, seed: int, folder: Path, forgetting: Sequence[str | None]
) -> Iterator[_Half]:
    """The second halves, one after the other, in one process that knows nothing of this one but its files."""
    context = processes.fresh("tutorlib.checkpoint")
    answer, asked = context.Pipe(duplex=False)
    work = (make, step, m, seed, folder, forgetting, torch.get_num_threads(), asked)
    process = context.Process(target=_all_second_halves, args=work)
    failure: str | None = None
    try:
        process.start()
        asked.close()
        with contextlib.suppress(EOFError):
            failure = answer.recv()
        process.join(10)
    finally:
        if process.is_alive():  # we were interrupted, or threads of the step keep it
            process.terminate()
            process.join()
        asked.close()
        answer.close()
    if failure is None:
        failure = f"it ended without a result (exit code {process.exitcode})"
    if failure:
        raise CheckpointError(f"the new process failed: {failure}")
    for number in range(len(forgetting)):
        found = load(folder / f"{number}.pt")
        yield _Half(tuple(found["losses"]), found["final"], tuple(found["lost"]))


def _all_second_halves(
    make: Any, step: Any, m: int, seed: int, folder: Path, forgetting: Sequence[str | None], threads: int, answer: Any
) -> None:
    torch.set_num_threads(threads)  # sums are split among threads, which shows in their last bit
    try:
        for number, without in enumerate(forgetting):
            half = _second_half(make, step, m, seed, folder, without)
            save(folder / f"{number}.pt", losses=list(half.losses), final=half.final, lost=list(half.lost))
        answer.send("")
    except BaseException as error:
        answer.send(f"{type(error).__name__}: {first_line(error)}")


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
