"""A checkpoint written by many ranks, each its own share: whole or not there, checked, and read by any number of ranks.

`torch.distributed.checkpoint` cuts, writes and reads. Around it stands what it lacks: a commit in one step, checksums,
one error for all ranks, and a reader that runs nothing that the files name.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutorlib.checkpoint import base, saving
from tutorlib.checkpoint.base import (
    AnyPath,
    CheckpointError,
    an,
    counted,
    first_line,
    is_part,
    kind_of,
    listed,
    quoted,
    state_of,
    tensors_in,
)
from tutorlib.checkpoint.places import digest_of
from tutorlib.checkpoint.resuming import Resumed
from tutorlib.facts import Facts

# NOTE [ The folder ]
# `.metadata` and `N__RANK_FILE.distcp` are torch's own: `torch.distributed.checkpoint.load` reads them. `N.json` is ours:
# who wrote which file, its sha256, and what torch forgets of a state's structure. N counts the saves into this folder and
# is the save_id within `.metadata`, so the replacement of that one file is the moment in which a new checkpoint takes the
# place of the old one. A new folder is written under another name and renamed: before that moment it does not exist.
_METADATA = ".metadata"
_DATA = re.compile(r"(\d*)__\d+_\d+\.distcp|(\d+)\.json|\.metadata(\.tmp)?")


class Chunk(NamedTuple):
    """A piece of a tensor, or one plain value (`where` is empty): which rank wrote it, into which file, how many bytes.

    `bytes` are those of its numbers, `stored` those that it takes in the file.
    """

    key: str
    rank: int
    where: tuple[tuple[int, int], ...]
    bytes: int
    file: str
    stored: int

    @property
    def place(self) -> str:
        return f"[{', '.join(f'{low}:{high}' for low, high in self.where)}]" if self.where else ""


@dataclass(frozen=True, repr=False)
class Shards(Facts):
    """What a sharded checkpoint holds, and which rank wrote which bytes of it: one row for each piece.

    `chunks` (Chunk), `shapes` by key, `folder`, `checked` (whether checksums are there), `world` (ranks that wrote).
    """

    folder: Path
    chunks: tuple[Chunk, ...]
    shapes: Mapping[str, tuple[int, ...]]
    world: int
    checked: bool

    def summary(self) -> str:
        values = sum(1 for chunk in self.chunks if chunk.key not in self.shapes)
        size = sum(chunk.bytes for chunk in self.chunks if chunk.key in self.shapes)
        text = f"{counted(len(self.shapes), 'tensor')} in {size} bytes and {counted(values, 'plain value')}"
        return f"{text}, written by {counted(self.world, 'rank')}" + ("" if self.checked else ", without checksums")

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "key": chunk.key,
                "shape": self.shapes.get(chunk.key),
                "rank": chunk.rank,
                "part": chunk.place or "-",
                "bytes": chunk.bytes if chunk.key in self.shapes else None,
            }
            for chunk in self.chunks
        ]

    def grid(self) -> dict[str, object]:
        rows = []
        for rank in range(self.world):
            cells: dict[str, list[dict[str, str]]] = {}
            for chunk in self.chunks:
                if chunk.rank == rank:
                    part, _, key = chunk.key.partition(".")
                    cells.setdefault(part, []).append({"text": f"{key or part}{chunk.place}", "sign": ""})
            rows.append({"label": f"rank {rank}", "cells": [{"label": part, "items": items} for part, items in cells.items()]})
        return {"unit": "piece", "rows": rows, "missing": []}

    def bars(self) -> dict[str, object]:
        sizes = [sum(c.bytes for c in self.chunks if c.rank == rank and c.key in self.shapes) for rank in range(self.world)]
        return {"unit": "bytes", "bars": [{"name": f"rank {rank}", "value": size, "note": ""} for rank, size in enumerate(sizes)]}


# ----------------------------------------------------------------------------------------------------- all ranks together


class _Team(NamedTuple):
    """The ranks that save or load together; one process without a group is a team of one."""

    group: Any
    rank: int
    world: int

    def tell(self, mine: Any) -> list[Any]:
        if self.group is None:
            return [mine]
        everybody: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(everybody, mine, group=self.group)
        return everybody

    def agree(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives on each rank; if one fails, all raise the same error, and none is left waiting."""
        result, text = None, ""
        try:
            result = work()
        except CheckpointError as error:
            text = str(error)
        except Exception as error:
            text = f"{type(error).__name__}: {first_line(error)}"
        with _lost():
            everybody = self.tell((result, text))
        failed = [(rank, text) for rank, (_, text) in enumerate(everybody) if text]
        if failed:
            rank, text = failed[0]
            raise CheckpointError(text if self.world == 1 else f"rank {rank} of {self.world}: {text}")
        return [result for result, _ in everybody]


_groups: dict[int, tuple[Any, Any]] = {}  # a group of our own beside each default group: training may go on in that


def _team() -> _Team:
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        return _Team(None, 0, 1)
    default = dist.group.WORLD
    known = _groups.get(id(default))
    if known is None or known[0] is not default:
        _groups.clear()
        known = _groups[id(default)] = (default, dist.new_group(backend="gloo"))
    return _Team(known[1], dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"a rank ended while the others waited for it: {first_line(error)}") from error


@contextlib.contextmanager
def _told(doing: str, end: Callable[[], str]) -> Iterator[None]:
    """Torch's errors in one line: which rank, what."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        with _lost(), warnings.catch_warnings():
            _quiet()
            yield
    except CheckpointError as error:
        raise CheckpointError(f"{doing}: {error}; {end()}") from error
    except CheckpointException as error:
        rank, (reason, _) = min(error.failures.items(), key=lambda item: item[0])
        raise CheckpointError(f"{doing}: rank {rank}: {_reason(reason)}; {end()}") from error
    except Exception as error:
        raise CheckpointError(f"{doing}: {_reason(error)}; {end()}") from error


def _quiet() -> None:
    """Told that there is no group, torch says that it assumes just that."""
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {first_line(error)}"


# ----------------------------------------------------------------------------------------------------- saving


class Saving:
    """A save that goes on while training does. `wait()` ends it and returns its `Shards`; `done` never waits."""

    def __init__(self, folder: Path, future: Any, end: Callable[[], Shards]) -> None:
        self.folder = folder
        self._future, self._end = future, end
        self._result: Shards | CheckpointError | None = None

    @property
    def done(self) -> bool:
        return bool(self._future.done())

    @property
    def told(self) -> bool:
        """Whether somebody has heard how it ended."""
        return self._result is not None

    def wait(self, timeout: float | None = None) -> Shards:
        """The facts of the save; raises what `save_sharded` would have raised, and `TimeoutError` after `timeout` seconds."""
        import concurrent.futures

        if not concurrent.futures.wait([self._future], timeout).done:
            raise TimeoutError(f"{self.folder.name!r} is not saved within {timeout:g} s")
        if self._result is None:
            try:
                self._result = self._end()
            except CheckpointError as error:
                self._result = error
        if isinstance(self._result, CheckpointError):
            raise self._result
        return self._result

    def __repr__(self) -> str:
        return f"<saving {self.folder.name!r}: {'done' if self.done else 'going on'}>"


_going_on: list[Saving] = []  # at most one


def save_sharded(folder: AnyPath, /, *, wait: bool = True, **parts: Any) -> Any:
    """Write the parts to one folder, each rank its own share of them, and commit it in one step; called by all ranks.

    Parts are those of `save`. A DTensor (as in the state of a model under `fully_shard`) is written in pieces by the ranks
    that hold them; everything else must be equal on all ranks and is written once. A new folder appears whole; over an
    existing checkpoint, the old one is there until the new one is. All ranks must see one disk. `wait=False` copies the
    state, returns a `Saving`, and writes while training goes on; the next save waits for it first.

    Returns `Shards`. Raises `CheckpointError` on every rank, with nothing changed: a value that would not come back, one
    that differs between ranks, a folder of other things, a full disk, a rank that ended.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as room:
    ...     save_sharded(f"{room}/step_3", model=torch.nn.Linear(2, 1), epoch=3)
    2 tensors in 12 bytes and 1 plain value, written by 1 rank
    key           shape   rank  part        bytes
    epoch         -          0  -               -
    model.bias    (1,)       0  [0:1]           4
    model.weight  (1, 2)     0  [0:1, 0:2]      8
    """
    import torch.distributed.checkpoint as dcp

    from tutorlib.checkpoint.dcp import Writer

    _end_earlier()
    goal = Path(os.path.realpath(folder))
    team, stage = _team(), _Stage(goal)
    doing = f"cannot save {quoted(folder)}"

    def end() -> str:
        return "it was committed all the same" if stage.committed else "nothing was changed"

    states: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []  # each rank's: a part may be there on one rank only

    def prepared() -> tuple[dict[str, str], dict[str, Any], str, int]:
        if not parts:
            raise CheckpointError("name the parts, for example save_sharded(folder, model=model, epoch=3)")
        states.update({name: state_of(name, part) for name, part in parts.items()})
        survey = saving._Survey()
        for name, state in states.items():
            survey.walk(_local(state), name)
        if survey.problems:
            raise CheckpointError(listed(survey.problems))
        flat, paths = _flat(states)
        mine = _notes(parts, states, paths)
        if team.rank == 0:
            stage.make()
        return _fingerprints(flat) if team.world > 1 else {}, mine, str(stage.path), stage.number

    def commit(metadata: bytes, files: Mapping[str, Mapping[str, Any]]) -> None:
        everywhere = {kind: {k: v for one in reversed(notes) for k, v in one[kind].items()} for kind in notes[0]}
        own = {"world": team.world, "metadata": hashlib.sha256(metadata).hexdigest(), "files": files}
        stage.commit(metadata, {**own, **everywhere})

    if not wait and team.group is None:
        _quiet()  # for good: the thread outlives any block here
    with _told(doing, end):
        try:
            everybody = team.agree(prepared)
            _alike([prints for prints, *_ in everybody])
            notes.extend(one[1] for one in everybody)
            path, number = everybody[0][2:]
            writer = Writer(Path(path), goal.name, number, commit)
            options: dict[str, Any] = {"storage_writer": writer, "process_group": team.group, "no_dist": team.group is None}
            if wait:
                dcp.save(states, **options)
                return inspect_sharded(folder)
            future: Any = dcp.async_save(states, **options)
        except BaseException:
            stage.give_up()
            raise

    def ended() -> Shards:
        with _told(doing, end):
            try:
                future.result()
            except BaseException:
                stage.give_up()
                raise
        return inspect_sharded(folder)

    def given_up(ended: Any) -> None:
        if ended.exception() is not None:
            stage.give_up()

    future.add_done_callback(given_up)
    handle = Saving(goal, future, ended)
    _going_on.append(handle)
    return handle


def _end_earlier() -> None:
    """Two saves never run at once; an earlier one that failed unheard is told now."""
    while _going_on:
        earlier = _going_on.pop()
        heard = earlier.told
        try:
            earlier.wait()
        except CheckpointError as error:
            if not heard:
                raise CheckpointError(f"the save before failed, and nobody waited for it: {error}") from error


class _Stage:
    """Where rank 0 lets the ranks write, and how that becomes the checkpoint. The other ranks' stages do nothing."""

    def __init__(self, goal: Path) -> None:
        self.goal, self.path, self.number = goal, goal, 1
        self.open, self.committed = False, False
        self._lock: int | None = None
        self._turn = threading.Lock()  # the thread that saves and the one that waits may both give up

    def make(self) -> None:
        goal = self.goal
        if not goal.parent.is_dir():
            raise CheckpointError("the folder in which it should stand does not exist: make it first")
        if goal.exists() and not goal.is_dir():
            raise CheckpointError("it is a file: name a folder")
        _sweep(goal)
        there = sorted(entry.name for entry in goal.iterdir()) if goal.is_dir() else []
        others = [name for name in there if not _DATA.fullmatch(name)]
        if others:
            raise CheckpointError(f"the folder holds other things ({listed(others)}): name a new folder or a checkpoint")
        if there:
            numbers = [int(text) for name in there for text in _DATA.fullmatch(name).groups()[:2] if text]  # type: ignore[union-attr]
            self.number = 1 + max(numbers, default=0)
        else:
            self.path = goal.parent / f".{goal.name}.{secrets.token_hex(6)}.tmp"
            self.path.mkdir()
        self._hold()
        self.open = True

    def _hold(self) -> None:
        """A lock on the folder, which ends with the process: a living save is not swept, and two do not mix."""
        if saving.fcntl is None:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        if not saving._lock(self._lock):
            self._release()
            raise CheckpointError("another save into it is going on: wait for it")

    def _release(self) -> None:
        self.open = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def commit(self, metadata: bytes, record: Mapping[str, Any]) -> None:
        body = json.dumps(record)
        _write(self.path / f"{self.number}.json", f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}".encode())
        _write(self.path / f"{_METADATA}.tmp", metadata)
        (self.path / f"{_METADATA}.tmp").replace(self.path / _METADATA)
        saving._flush_folder(self.path)
        if self.path != self.goal:
            if self.goal.is_dir():
                self.goal.rmdir()  # an empty one, which Windows does not replace
            self.path.rename(self.goal)
            saving._flush_folder(self.goal.parent)
            self.path = self.goal
        self.committed = True
        keep = {_METADATA, f"{self.number}.json", *record["files"]}
        for entry in [entry for entry in self.goal.iterdir() if _DATA.fullmatch(entry.name) and entry.name not in keep]:
            with contextlib.suppress(OSError):  # an earlier save's; the next commit tries again
                entry.unlink()
        self._release()

    def give_up(self) -> None:
        """Nothing of this save stays; what was committed does."""
        with self._turn:
            if not self.open:
                return
            if self.path != self.goal:
                shutil.rmtree(self.path, ignore_errors=True)
            elif self.goal.is_dir():
                for entry in self.goal.iterdir():
                    if re.match(rf"{self.number}(__|\.json)|\{_METADATA}\.tmp", entry.name):
                        with contextlib.suppress(OSError):
                            entry.unlink()
            self._release()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        saving._flush_to_disk(file.fileno())


def _sweep(goal: Path) -> None:
    """Remove what saves of dead processes left beside the goal."""
    pattern = re.compile(re.escape(f".{goal.name}.") + r"[0-9a-f]{12}\.tmp")
    for entry in [e for e in goal.parent.iterdir() if pattern.fullmatch(e.name) and e.is_dir()]:
        with contextlib.suppress(OSError):
            handle = os.open(entry, os.O_RDONLY) if saving.fcntl is not None else None
            try:
                if handle is None or saving._free(handle):
                    shutil.rmtree(entry, ignore_errors=True)
            finally:
                if handle is not None:
                    os.close(handle)


# ----------------------------------------------------------------------------------------------------- states


def _is_sharded(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and hasattr(value, "to_local") and hasattr(value, "device_mesh")


def _local(state: Any) -> Any:
    """A state with each DTensor as this rank's piece of it."""
    if _is_sharded(state):
        return state.to_local()
    if isinstance(state, dict) and type(state) in (dict, OrderedDict):
        return {key: _local(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(_local, state))
    return state


def _flat(states: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    from torch.distributed.checkpoint._nested_dict import flatten_state_dict

    flat, paths = flatten_state_dict(dict(states))
    return flat, paths


def _fingerprints(flat: Mapping[str, Any]) -> dict[str, str]:
    """Of each value that is not cut in pieces: only one rank writes it, so it must be the same on all."""
    return {key: _print_of(value) for key, value in flat.items() if not _is_sharded(value)}


def _print_of(value: Any) -> str:
    told = hashlib.blake2b(digest_size=16)

    def add(one: Any) -> None:
        if isinstance(one, torch.Tensor):
            told.update(f"tensor {base.described(one)} {one.layout}".encode())
            if one.layout is torch.strided and not one.is_quantized and not one.is_meta:
                told.update(base._bytes(one).numpy().data)
            else:
                told.update(repr(one).encode())
        elif isinstance(one, Mapping):
            told.update(f"mapping {len(one)}".encode())
            for key, child in one.items():
                add(key)
                add(child)
        elif isinstance(one, (list, tuple)):
            told.update(f"{type(one).__name__} {len(one)}".encode())
            for child in one:
                add(child)
        elif isinstance(one, (set, frozenset)):
            told.update(f"set {sorted(map(repr, one))}".encode())
        else:
            told.update(f"{type(one).__name__} {one!r};".encode())

    add(value)
    return told.hexdigest()


def _alike(everybody: Sequence[Mapping[str, str]]) -> None:
    problems: list[str] = []
    first: dict[str, tuple[int, str]] = {}
    for rank, prints in enumerate(everybody):
        for key, print_ in prints.items():
            known = first.setdefault(key, (rank, print_))
            if known[1] != print_ and len(problems) < 9 and not any(text.startswith(f"{key} is") for text in problems):
                problems.append(f"{key} is another value on rank {known[0]} than on rank {rank}")
    if problems:
        raise CheckpointError(
            f"{listed(problems)}: only one of them would be written: make them equal, "
            "or give each rank's a name of its own: save_sharded(folder, **{f'random_{rank}': random})"
        )


def _notes(parts: Mapping[str, Any], states: Mapping[str, Any], paths: Mapping[str, Any]) -> dict[str, Any]:
    """What torch forgets: classes of parts, versions of modules, keys that are no text, empty dictionaries."""
    versions = {
        name: {prefix: one.get("version") for prefix, one in state._metadata.items()}
        for name, state in states.items()
        if isinstance(getattr(state, "_metadata", None), Mapping)
    }
    return {
        "kinds": {name: type(part).__name__ for name, part in parts.items() if is_part(part)},
        "versions": versions,
        "structure": {name: _structure(state, name, paths) for name, state in states.items()},
    }


def _structure(value: Any, place: str, paths: Mapping[str, Any]) -> Any:
    """A state without its values: `null` is one, under its place; an object's pairs keep the keys' types and order."""
    if isinstance(value, Mapping):
        return {"pairs": [[key, _structure(child, f"{place}.{key}", paths)] for key, child in value.items()]}
    if place in paths or not isinstance(value, list):
        return None
    return {"list": [_structure(child, f"{place}.{index}", paths) for index, child in enumerate(value)]}


def _built(structure: Any, place: str, values: Mapping[str, Any]) -> Any:
    """The state again; `_structure` backwards. What this rank was not to read stays out."""
    if structure is None:
        return values[place]
    if "pairs" in structure:
        return {key: _built(child, f"{place}.{key}", values) for key, child in structure["pairs"]}
    return [_built(child, f"{place}.{index}", values) for index, child in enumerate(structure["list"])]


# ----------------------------------------------------------------------------------------------------- looking


class _Found(NamedTuple):
    """A checked `.metadata`, and our record beside it (empty where torch alone wrote)."""

    metadata: Any
    record: Mapping[str, Any]


def _found(folder: AnyPath) -> _Found:
    from tutorlib.checkpoint import dcp

    where = Path(folder)
    if not where.is_dir():
        what = "it is a file: load(path) reads it" if where.exists() else f"there is no such folder{_near(where)}"
        raise CheckpointError(what)
    try:
        content = (where / _METADATA).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"it holds no {_METADATA}: no save into it was ever committed") from None
    metadata = dcp.read_metadata(where, content)
    number = getattr(metadata.storage_meta, "save_id", None) or ""
    path = where / f"{number}.json"
    if not number.isdigit() or not path.is_file():
        return _Found(metadata, {})
    digest, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        raise CheckpointError(f"its {path.name} is damaged: take an earlier copy")
    record = json.loads(body)
    if record["metadata"] != hashlib.sha256(content).hexdigest():
        raise CheckpointError(f"its {_METADATA} is not the one that was committed: take an earlier copy")
    return _Found(metadata, record)


def _near(where: Path) -> str:
    if not where.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in where.parent.iterdir() if (entry / _METADATA).is_file() and entry.name[0] != ".")
    return f"; beside it {'are' if len(names) > 1 else 'is'} {', '.join(names[-5:])}" if names else ""


def _damaged(folder: Path, record: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        due = record["files"][name]
        size = (folder / name).stat().st_size
        if size != due["bytes"]:
            raise CheckpointError(
                f"{name}, written by rank {due['rank']}, has {size} bytes, expected {due['bytes']}: it is damaged"
            )
        if digest_of(folder / name) != due["sha256"]:
            raise CheckpointError(f"{name}, written by rank {due['rank']}, is damaged: its sha256 is another")


def inspect_sharded(folder: AnyPath) -> Shards:
    """Say what a sharded checkpoint holds and which rank wrote which bytes, without reading a tensor or running anything.

    Reads what `torch.distributed.checkpoint.save` wrote, too. Raises `CheckpointError` for a folder that was never
    committed, and for metadata that asks for anything to be run or that torch would not have written.
    """
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        metadata, record = _found(folder)
    except CheckpointError as error:
        raise CheckpointError(f"cannot inspect {quoted(folder)}: {error}") from None
    chunks, shapes = [], {}
    for index, info in metadata.storage_data.items():
        entry = metadata.state_dict_metadata.get(index.fqn)
        if isinstance(entry, TensorStorageMetadata):
            shapes[index.fqn] = tuple(entry.size)
            wide = next((chunk.sizes for chunk in entry.chunks if chunk.offsets == index.offset), None)
            if wide is None:
                continue
            where = tuple((low, low + size) for low, size in zip(index.offset, wide, strict=True))
            size = math.prod(wide) * entry.properties.dtype.itemsize
        else:
            where, size = (), info.length
        rank = _rank_of(info.relative_path, record)
        chunks.append(Chunk(index.fqn, rank, where, size, info.relative_path, info.length))
    world = record.get("world") or 1 + max((chunk.rank for chunk in chunks), default=0)
    ordered = tuple(sorted(chunks, key=lambda chunk: (chunk.key, chunk.where, chunk.rank)))
    return Shards(Path(folder), ordered, dict(sorted(shapes.items())), world, bool(record))


def _rank_of(name: str, record: Mapping[str, Any]) -> int:
    if record:
        return int(record["files"][name]["rank"])
    found = re.match(r"\d*__(\d+)_", name)  # as torch names its files
    return int(found[1]) if found else 0


# ----------------------------------------------------------------------------------------------------- loading


def load_sharded(folder: AnyPath, /, *, verify: bool = True, **parts: Any) -> Resumed:
    """Put a sharded checkpoint back into the parts, on any number of ranks, all of it or nothing; called by all ranks.

    A part is an object with `load_state_dict`, a `torch.Generator`, or a tensor, which is filled. Each rank reads only the
    pieces that its DTensors need. Keys, shapes and dtypes are checked first, then (`verify`) each file against its sha256,
    the files shared out among the ranks; plain values that no part takes come back in `.values`.

    Raises `TypeError` for a part that cannot be filled, and on every rank `CheckpointError`, with nothing changed: no
    committed checkpoint, a damaged one, one without checksums (torch's own: `verify=False`), one that asks for anything to
    be run, parts that do not fit.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as room:
    ...     _ = save_sharded(f"{room}/step_3", model=torch.nn.Linear(2, 1), epoch=3)
    ...     loaded = load_sharded(f"{room}/step_3", model=torch.nn.Linear(2, 1))
    >>> loaded
    1 part resumed, 1 value given back
    part   kind    tensors  outcome
    model  Linear        2  resumed
    epoch  int           0  in .values
    >>> loaded.values
    {'epoch': 3}
    """
    import torch.distributed.checkpoint as dcp

    from tutorlib.checkpoint.dcp import Planner, Reader

    _end_earlier()
    for name, part in parts.items():
        fillable = isinstance(part, (torch.Tensor, torch.Generator)) or hasattr(part, "load_state_dict")
        if isinstance(part, type) or not fillable:
            raise TypeError(f"{name} is {an(part)} without load_state_dict: plain values come back in load_sharded(...).values")
    where, team = Path(folder), _team()
    targets: dict[str, Any] = {}
    seen: list[_Found] = []

    def planned() -> str:
        found = _found(where)
        seen.append(found)
        if verify and not found.record:
            raise CheckpointError("it has no checksums, as torch alone writes it: load_sharded(folder, verify=False, ...)")
        targets.update(_targets(found, parts))
        return str(found.record.get("metadata", ""))

    def checked() -> None:
        if verify:
            _damaged(where, seen[0].record, sorted(seen[0].record["files"])[team.rank :: team.world])

    with _told(f"cannot load {quoted(folder)}", lambda: "nothing was changed"):
        if len(set(team.agree(planned))) > 1:
            raise CheckpointError(
                "the ranks see different checkpoints: a new one was committed meanwhile, or it is no shared disk"
            )
        team.agree(checked)
        metadata, record = seen[0]
        dcp.load(
            targets,
            storage_reader=Reader(where, metadata),
            planner=Planner(),
            process_group=team.group,
            no_dist=team.group is None,
        )
        states = _states(metadata, record, targets)
        team.agree(lambda: _fill(parts, states))
    return _told_what(where, record, states, parts)


def _targets(found: _Found, parts: Mapping[str, Any]) -> dict[str, Any]:
    """For each key that this rank is to read, new memory of the right kind; every part that does not fit is told."""
    entries, paths = found.metadata.state_dict_metadata, found.metadata.planner_data
    names: dict[str, list[str]] = {str(name): [] for name in found.record.get("structure", {})}
    for key in entries:
        names.setdefault(str(paths[key][0]), []).append(key)
    targets: dict[str, Any] = {}
    problems: list[str] = []
    for name, part in parts.items():
        if name not in names:
            problems.append(f"there is no {name}: it holds {', '.join(names) or 'nothing'}")
            continue
        saved, here = found.record.get("kinds", {}).get(name), type(part).__name__
        if saved not in (None, here) and not isinstance(part, (torch.nn.Module, torch.Tensor)):
            problems.append(f"{name} was saved from {saved}, here it is {here}")
        mine = {key: entries[key] for key in names[name]}
        if isinstance(part, (torch.nn.Module, torch.Tensor)):
            live, _ = _flat({name: state_of(name, part)})
            problems += _unfit(live, mine)
            targets.update({key: _memory(entry, live.get(key)) for key, entry in mine.items()})
        elif isinstance(part, torch.optim.Optimizer):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            for key, entry in mine.items():
                targets[key] = _memory(entry, _parameter_of(key, entry, paths[key], parameters, problems))
        else:
            targets.update({key: _memory(entry, None) for key, entry in mine.items()})
    for name, keys in names.items():
        if name not in parts and not any(map(_is_tensor, map(entries.__getitem__, keys))):
            targets.update(dict.fromkeys(keys))
    if problems:
        raise CheckpointError(listed(problems))
    return targets


def _is_tensor(entry: Any) -> bool:
    return hasattr(entry, "chunks")


def _told_entry(entry: Any) -> str:
    return f"{str(entry.properties.dtype).removeprefix('torch.')} {tuple(entry.size)}" if _is_tensor(entry) else "a plain value"


def _unfit(live: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    problems = [f"{key} is missing" for key in live if key not in mine]
    problems += [f"{key} is not expected" for key in mine if key not in live]
    for key, value in live.items():
        there = _told_entry(mine[key]) if key in mine else ""
        here = base.described(value) if isinstance(value, torch.Tensor) else "a plain value"
        if there and here != there:
            problems.append(f"{key} is {there} there, {here} here")
        elif getattr(value, "is_meta", False):
            problems.append(f"{key} is on the meta device: call to_empty(device=...) first")
    return problems


def _parameter_of(key: str, entry: Any, path: Sequence[Any], parameters: Sequence[Any], problems: list[str]) -> Any:
    """The parameter whose memory an optimizer's state is like (and is sharded like); None for plain values and counters."""
    if len(path) < 4 or path[1] != "state" or not str(path[2]).isdigit():
        return None
    number = int(path[2])
    if number >= len(parameters):
        problems.append(f"{key} belongs to parameter {number}, here are {len(parameters)}")
        return None
    if not _is_tensor(entry) or math.prod(entry.size) <= 1:
        return None
    parameter, size = parameters[number], tuple(entry.size)
    fits = len(size) == parameter.dim() and all(n in (1, m) for n, m in zip(size, parameter.shape, strict=True))
    if not fits:
        problems.append(f"{key} is {size} there, its parameter {tuple(parameter.shape)} here")
    return parameter if size == tuple(parameter.shape) else None


def _memory(entry: Any, like: Any) -> Any:
    if not _is_tensor(entry):
        return None
    dtype = entry.properties.dtype
    if isinstance(like, torch.Tensor) and tuple(like.shape) == tuple(entry.size):
        return torch.empty_like(like.detach(), dtype=dtype)
    return torch.empty(entry.size, dtype=dtype)


def _states(metadata: Any, record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were read, as nested states by part; a part of which nothing was read is left out."""
    by_part: dict[str, list[str]] = {}
    for key in metadata.state_dict_metadata:
        by_part.setdefault(str(metadata.planner_data[key][0]), []).append(key)
    read = [name for name in [*record.get("structure", by_part)] if all(key in values for key in by_part.get(name, ()))]
    if record:
        states = {name: _built(record["structure"][name], name, values) for name in read}
        for name, versions in record["versions"].items():
            if name in states:
                states[name] = OrderedDict(states[name])
                states[name]._metadata = OrderedDict((prefix, {"version": version}) for prefix, version in versions.items())
        return states
    from torch.distributed.checkpoint._nested_dict import unflatten_state_dict

    keys = {key: values[key] for name in read for key in by_part[name]}
    return dict(unflatten_state_dict(keys, metadata.planner_data))


def _fill(parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Into the parts; models last, because they were checked to the last key. A part that refuses its state undoes the rest."""
    undo: list[Callable[[], object]] = []
    order = sorted(parts, key=lambda name: isinstance(parts[name], (torch.nn.Module, torch.Tensor)))
    for name in order:
        part, state = parts[name], states.get(name, {})
        try:
            if isinstance(part, torch.Tensor):
                with torch.no_grad():
                    part.copy_(state)
            elif isinstance(part, torch.Generator):
                undo.append(functools.partial(part.set_state, part.get_state()))
                part.set_state(state)
            elif isinstance(part, torch.nn.Module):
                part.load_state_dict(state)
            elif isinstance(part, torch.optim.Optimizer):
                undo.append(functools.partial(part.load_state_dict, part.state_dict()))
                numbered = {int(key) if str(key).isdigit() else key: value for key, value in state.get("state", {}).items()}
                part.load_state_dict({**state, "state": numbered})
            else:
                undo.append(functools.partial(part.load_state_dict, copy.deepcopy(part.state_dict())))
                part.load_state_dict(state)
        except Exception as error:
            for back in reversed(undo):
                with contextlib.suppress(Exception):
                    back()
            raise CheckpointError(f"{name} refuses its state: {_reason(error)}") from error


def _told_what(folder: Path, record: Mapping[str, Any], states: Mapping[str, Any], parts: Mapping[str, Any]) -> Resumed:
    kinds, rows = record.get("kinds", {}), []
    for name in [*parts, *(name for name in record.get("structure", states) if name not in parts)]:
        state = states.get(name)
        kind = kinds.get(name) or (type(parts[name]).__name__ if name in parts else kind_of(state) if name in states else "-")
        how = "resumed" if name in parts else "in .values" if name in states else "not asked for"
        rows.append((name, kind, tensors_in(state), how))
    return Resumed(folder, tuple(rows), {name: state for name, state in states.items() if name not in parts}, ())
