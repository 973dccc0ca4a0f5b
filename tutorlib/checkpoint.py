"""From training to a file and back: atomically, verified, safely, and all or nothing.

| verb | what it does |
|---|---|
| `save(path, **parts)` | writes the parts to one file; whatever happens, the earlier or the new file is whole |
| `load(path)` | reads it back, verified and without running anything that the file names |
| `inspect(path)` | says what is in it without building a tensor |
| `compare(model, state)` | says what would be loaded, and what would not |
| `resume(path, **parts)` | puts the state back into the parts: all of it, or nothing |
| `overwrite_killed(save)` | proves what a kill in the middle of saving costs |
| `resume_proof(make, step)` | proves that training goes on as if it had never stopped |

The file is an ordinary torch file: `torch.load(path)` reads what `save` wrote, and `load` reads what `torch.save` wrote.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import multiprocessing
import os
import random
import re
import secrets
import signal
import stat
import struct
import sys
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple

import torch

from tutorlib import archive
from tutorlib.facts import Facts

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CheckpointError",
    "Inspection",
    "Killed",
    "LoadReport",
    "RandomState",
    "ResumeProof",
    "Resumed",
    "Saved",
    "compare",
    "inspect",
    "load",
    "overwrite_killed",
    "resume",
    "resume_proof",
    "save",
]

AnyPath = str | os.PathLike[str]

_SHOWN = 8  # problems in one error text


class CheckpointError(RuntimeError):
    """What cannot be saved, read or put back, with the way out; nothing was changed."""


def _all(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


# ------------------------------------------------------------------------------------------------------------ save


@dataclass(frozen=True, repr=False)
class Saved(Facts):
    """What `save` wrote: one row for each part. `path`, `size` (bytes of the file), `seconds` and `swept` are attributes.

    `swept` counts the temporary files of killed processes that were found beside the file and removed.
    """

    path: Path
    parts: tuple[tuple[str, str, int, int], ...]
    size: int
    seconds: float
    swept: int

    def summary(self) -> str:
        tensors, size = sum(p[2] for p in self.parts), sum(p[3] for p in self.parts)
        return f"{_count(len(self.parts), 'part')}, {_count(tensors, 'tensor')}, {size} bytes of storage, saved in one step"

    def rows(self) -> list[dict[str, object]]:
        return [{"part": name, "kind": kind, "tensors": tensors, "bytes": size} for name, kind, tensors, size in self.parts]


def save(path: AnyPath, /, **parts: Any) -> Saved:
    """Write the parts to one file in one step: at every moment, the earlier file or the new one is whole.

    A part is an object with `state_dict()` (model, optimizer, scheduler, `RandomState()`, ...), a `torch.Generator`, or a
    plain value: None, bool, int, float, complex, str, bytes, tensor, and list, tuple, set, dict, OrderedDict, Counter of
    these. The file holds `{name: state}`. It is written beside its goal, flushed to the disk and then renamed; temporary
    files that a killed process left there are removed.

    Raises `CheckpointError`, with the earlier file untouched and nothing left behind, when a value would not come back
    from `load` (the text gives its place and what to store instead: numpy scalars, paths, enums, ...) and when the disk
    is full or the folder cannot be written. Claims: CK-03, CK-04, CK-06, SL-16.

    >>> import tempfile
    >>> model = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/last.pt", model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), epoch=3)
    3 parts, 2 tensors, 12 bytes of storage, saved in one step
    part       kind    tensors  bytes
    model      Linear        2     12
    optimizer  SGD           0      0
    epoch      int           0      0
    """
    began = time.perf_counter()
    if not parts:
        raise CheckpointError(f"nothing to save to {_name(path)}: name the parts, for example save(path, model=model, epoch=3)")
    states = {name: _state(name, part) for name, part in parts.items()}
    survey = _Survey()
    totals = {}
    for name, state in states.items():
        tensors, size = survey.tensors, sum(survey.storages.values())
        survey.walk(state, name)
        totals[name] = (survey.tensors - tensors, sum(survey.storages.values()) - size)
    if survey.problems:
        raise CheckpointError(f"cannot save {_name(path)}: {_all(survey.problems)}; nothing was written")

    content: OrderedDict[str, Any] = OrderedDict(states)
    # NOTE [ What only resume needs ]
    # It travels as an attribute of the outer dictionary, as torch's own `_metadata` does in a model's state: invisible to
    # a reader of the dictionary, and admitted by weights_only.
    content._tutorlib = _notes(parts)  # type: ignore[attr-defined]
    size, swept = _replace(path, content)
    facts = tuple((name, _kind(part), *totals[name]) for name, part in parts.items())
    return Saved(Path(path), facts, size, time.perf_counter() - began, swept)


def _name(path: object) -> str:
    return repr(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else "the file"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _kind(part: object) -> str:
    return "a value" if part is None else type(part).__name__


def _is_part(part: object) -> bool:
    return not isinstance(part, type) and (callable(getattr(part, "state_dict", None)) or isinstance(part, torch.Generator))


def _state(name: str, part: Any) -> Any:
    if isinstance(part, type) and hasattr(part, "state_dict"):
        raise CheckpointError(f"{name} is the class {part.__name__}, expected an object of it: {part.__name__}(...)")
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if _is_part(part) else part


def _notes(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Which parts have state, of which class, and the names and shapes of each optimizer's parameters, by position."""
    names = _parameter_names(parts)
    return {
        "kinds": {name: type(part).__name__ for name, part in parts.items() if _is_part(part)},
        "optimizers": {
            name: [[[names.get(id(p), ""), list(p.shape)] for p in group["params"]] for group in part.param_groups]
            for name, part in parts.items()
            if isinstance(part, torch.optim.Optimizer)
        },
    }


def _parameter_names(parts: Mapping[str, Any]) -> dict[int, str]:
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    return {id(p): f"{name}.{key}" for name, module in reversed(modules.items()) for key, p in module.named_parameters()}


_PLAIN = (type(None), bool, float, complex, str, bytearray, torch.Size, torch.dtype, torch.device, torch.layout)


class _Survey:
    """A walk over a state: the values that would not come back, the tensors, and the storages with their bytes."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.storages: dict[int, int] = {}
        self.tensors = 0
        self.above: list[int] = []

    def walk(self, value: Any, place: str) -> None:
        kind = type(value)
        if isinstance(value, torch.Tensor):
            self._tensor(value, place)
        elif kind in (dict, OrderedDict, Counter, list, tuple, set):
            if id(value) in self.above:
                self.problems.append(f"{place} contains itself: store its parts apart")
                return
            if len(self.above) == archive.DEPTH:
                self.problems.append(f"a value lies more than {archive.DEPTH} containers deep: store a flatter structure")
                return
            self.above.append(id(value))
            for label, child in _children(value):
                self.walk(child, f"{place}{label}")
            self.above.pop()
        elif kind is int:
            if value.bit_length() >= 255 * 8:
                bits = value.bit_length()
                self.problems.append(f"{place} is an int of {bits} bits, which load would refuse: store str(it)")
        elif kind is bytes:
            if not value:
                self.problems.append(f"{place} is an empty bytes object, which load would refuse: store None or bytearray()")
        elif kind not in _PLAIN:
            called, instead = _advice(value)
            self.problems.append(f"{place} is {called}, which load would refuse: store {instead}")

    def _tensor(self, value: torch.Tensor, place: str) -> None:
        self.tensors += 1
        if torch.nn.parameter.is_lazy(value):
            self.problems.append(f"{place} has no shape yet: run the lazy module once before saving")
            return
        if value.grad_fn is not None:
            self.problems.append(f"{place} is a tensor that still has its gradient history: store its .detach() or .item()")
        if value.layout is torch.strided and not value.is_meta:
            storage = value.untyped_storage()
            self.storages[storage._cdata] = storage.nbytes()
        for name, attribute in vars(value).items():
            self.walk(attribute, f"{place}.{name}")


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            if type(key) not in (str, int, float, bool, type(None)):
                yield f" key {key!r}", key
            yield f"[{key!r}]", child
        for name, attribute in getattr(value, "__dict__", {}).items():
            yield f".{name}", attribute
    elif isinstance(value, set):
        for child in value:
            yield " element", child
    else:
        for index, child in enumerate(value):
            yield f"[{index}]", child


def _advice(value: Any) -> tuple[str, str]:
    """How a refused value is called, the same on every system, and what to store instead."""
    kind = type(value)
    called = f"a {kind.__module__}.{kind.__qualname__}".replace("a builtins.", "a ")
    if kind.__module__ == "numpy":
        return called, "torch.from_numpy(it)" if kind.__name__ == "ndarray" else "its .item()"
    if isinstance(value, PurePath):
        return "a path", "str(it)"
    if isinstance(value, enum.Enum):
        return called, "its .name"
    if kind.__module__ == "datetime":
        return called, "its .isoformat()"
    if isinstance(value, torch.nn.Module) or _is_part(value):
        return called, "its state_dict(), or give it a name of its own: save(path, name=it)"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return called, "its ._asdict()"
    for plain in (dict, list, tuple, set, frozenset, bool, int, float, str, bytes):
        if isinstance(value, plain):
            return called, f"{'set' if plain is frozenset else plain.__name__}(it)"
    if callable(value):
        return f"the function or class {getattr(value, '__name__', '?')}", "its name, and look it up after loading"
    return called, "vars(it)" if hasattr(value, "__dict__") else "a plain value or a tensor"


class _Sink:
    """A file for torch.save that keeps the first error of the system for us.

    Torch's writer, told of a failing write, raises one of its own about positions while it cleans up. So the writer is
    told that all is well, writes on into nothing, and we raise what really happened.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.file.flush()
            except OSError as error:
                self.error = error


def _replace(path: AnyPath, content: object) -> tuple[int, int]:
    """Write `content` beside the goal, flush it to the disk, check that it can be read, rename; the file's size."""
    goal = Path(os.path.realpath(path))  # a link keeps pointing where it points
    if not goal.parent.is_dir():
        raise CheckpointError(f"cannot save {_name(path)}: its folder does not exist: make it first")
    if goal.exists() and not goal.is_file():
        raise CheckpointError(f"cannot save {_name(path)}: it is a {'folder' if goal.is_dir() else 'device'}: name a file in it")
    fresh: Path | None = None
    try:
        swept = _sweep(goal)
        fresh, file = _beside(goal)
        with file:
            with _checksums():
                sink = _Sink(file)
                torch.save(content, sink)  # type: ignore[arg-type]
            if sink.error is not None:
                raise sink.error
            file.flush()
            _flush_to_disk(file.fileno())
            size = file.tell()
            file.seek(0)
            torch.load(file, map_location="meta", weights_only=True)  # whatever the walk above did not foresee
            if fcntl is not None:
                fresh.replace(goal)  # while our lock holds, so that nobody takes the file for a dead process's
        if fcntl is None:
            fresh.replace(goal)
        fresh = None
    except OSError as error:
        raise CheckpointError(f"cannot save {_name(path)}: {error.strerror or error}; {_untouched(goal)}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise CheckpointError(f"cannot save {_name(path)}: {reason}; {_untouched(goal)}") from error
    finally:
        if fresh is not None:
            fresh.unlink(missing_ok=True)
    _flush_folder(goal.parent)
    return size, swept


def _untouched(goal: Path) -> str:
    return "the earlier file is untouched" if goal.exists() else "nothing was written"


def _beside(goal: Path) -> tuple[Path, BinaryIO]:
    """A new locked file in the goal's folder, with the permissions of the file that it will replace."""
    while True:
        fresh = goal.parent / f".{goal.name}.{secrets.token_hex(6)}.tmp"
        file = fresh.open("x+b")
        try:
            if _lock(file.fileno()) and (fcntl is None or os.fstat(file.fileno()).st_nlink):
                if goal.exists():
                    with contextlib.suppress(OSError):
                        fresh.chmod(stat.S_IMODE(goal.stat().st_mode))
                return fresh, file
        except BaseException:
            file.close()
            fresh.unlink(missing_ok=True)
            raise
        file.close()  # another process took it for a dead one's, between our open and our lock
        fresh.unlink(missing_ok=True)


def _lock(file: int) -> bool:
    """Whether this process holds the file now. A lock ends with its process, however that ends."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _sweep(goal: Path) -> int:
    """Remove the temporary files for this goal that no living process holds; how many."""
    swept = 0
    pattern = re.compile(re.escape(f".{goal.name}.") + r"[0-9a-f]{12}\.tmp")
    for entry in [e for e in goal.parent.iterdir() if pattern.fullmatch(e.name)]:
        with contextlib.suppress(OSError):  # gone meanwhile, not ours to remove, or in use (Windows)
            with entry.open("rb") as file:
                dead = fcntl is None or _free(file.fileno())
            if dead:
                entry.unlink()
                swept += 1
    return swept


def _free(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _checksums() -> Iterator[None]:
    """torch.save with checksums, whatever `torch.serialization.set_crc32_options` was told."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _flush_to_disk(file: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves the data in the drive's own memory
        with contextlib.suppress(OSError):
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)


def _flush_folder(folder: Path) -> None:
    """Make the new name durable too, where the system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0].strip() if text else ""


# ------------------------------------------------------------------------------------------------------------ load


def load(path: AnyPath, *, map_location: Any = "cpu", verify: bool = True) -> Any:
    """Read a checkpoint back as the dictionary that was saved: verified first, and nothing in it is ever run.

    All tensors come to `map_location` (the CPU unless told otherwise), so a file saved on a GPU loads anywhere. Always
    `weights_only`, whatever the environment says. `verify` holds every byte against the checksums in the file; torch
    does not look at them. A file that holds something else than a dictionary gives that.

    Raises `FileNotFoundError`; `CheckpointError` for a file that is cut off or damaged, that names functions or classes
    to be run (each is named, with the choices), or whose checksums are missing. Claims: SL-02, SL-10, CK-08.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", epoch=3, history=[0.5, 0.25])
    ...     load(f"{folder}/last.pt")
    {'epoch': 3, 'history': [0.5, 0.25]}
    """
    content = _read(path, map_location, verify)
    return dict(content) if hasattr(content, "_tutorlib") else content


def _beside_it(path: AnyPath) -> str:
    """What stands where a file was looked for: the way out of a wrong name or a wrong folder."""
    folder = Path(os.fspath(path)).parent
    if not folder.is_dir():
        return f"there is no folder {os.fspath(folder)!r} either; look from the current folder, or give the whole path"
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".pt", ".pth", ".tar", ".bin"))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"its folder holds {shown or 'none'}; checkpoint.save(path, model=model) writes one"


@contextlib.contextmanager
def _opened(path: AnyPath) -> Iterator[BinaryIO]:
    if Path(path).is_dir():
        raise CheckpointError(f"{_name(path)} is a folder, expected a checkpoint file")
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below, where its errors are not a missing file's)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {_name(path)}: {_beside_it(path)}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {_name(path)}: {error.strerror or error}") from error
    with file:
        yield file


def _read(path: AnyPath, map_location: Any, verify: bool) -> Any:
    # One open file for the check and for the reading: what was verified is what is read, even if the name is replaced.
    with _opened(path) as file:
        if verify:
            if file.read(4) != b"PK\3\4":
                raise CheckpointError(
                    f"{_name(path)} cannot be verified: it is damaged or no zip file; "
                    "files of torch before 1.6 have no checksums: load(path, verify=False)"
                )
            try:
                archive.verify(file)
            except (archive.Damaged, struct.error, ValueError, OSError) as error:
                raise CheckpointError(
                    f"{_name(path)} is damaged: {error}: take an earlier copy, or look at it with load(path, verify=False)"
                ) from None
            file.seek(0)
        return _unpickle(path, file, map_location)


def _unpickle(path: AnyPath, file: BinaryIO, map_location: Any) -> Any:
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:
        refused = _refused(file)
        if refused:
            raise CheckpointError(
                f"{_name(path)} asks for {', '.join(refused)}, which load never runs: save a state_dict() and plain values "
                "instead; or, if you trust the file, name them in torch.serialization.safe_globals([...]) around load"
            ) from None
        reason = _first_line(error).removeprefix("Weights only load failed.").strip() or "its content is not as torch writes it"
        raise CheckpointError(f"{_name(path)} cannot be read: {type(error).__name__}: {reason}") from error


def _refused(file: BinaryIO) -> list[str]:
    """The functions and classes that the file names and that torch does not admit."""
    try:
        file.seek(0)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))  # type: ignore[arg-type]
    except Exception:  # an older form of file, or none at all
        return []


# ------------------------------------------------------------------------------------------------------------ inspect


@dataclass(frozen=True, repr=False)
class Inspection(Facts):
    """What a checkpoint holds, found without building a tensor: one row for each tensor.

    `tensors` (TensorEntry), `values` (plain values by key), `globals` (functions and classes that the file names, in
    torch's own words), `refused` (those of them that `load` never runs), `shared` (keys that live in one storage),
    `wasted` (bytes stored that no tensor of the file shows), `size` of the file.
    """

    path: Path
    tensors: tuple[archive.TensorEntry, ...]
    values: Mapping[str, Any]
    globals: tuple[str, ...]
    refused: tuple[str, ...]
    size: int

    @property
    def stored(self) -> int:
        """Bytes of all storages, each counted once."""
        return sum({t.storage: t.storage_bytes for t in self.tensors}.values())

    @property
    def shared(self) -> tuple[tuple[str, ...], ...]:
        groups: dict[str, list[str]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.storage, []).append(tensor.key)
        return tuple(tuple(keys) for name, keys in groups.items() if len(keys) > 1 and name)

    @property
    def wasted(self) -> int:
        groups: dict[str, list[archive.TensorEntry]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.storage, []).append(tensor)
        return sum(_wasted(group) for group in groups.values())

    def summary(self) -> str:
        text = f"{_count(len(self.tensors), 'tensor')} in {self.stored} bytes, {_count(len(self.values), 'plain value')}"
        if self.wasted:
            text += f", {self.wasted} bytes that no tensor shows"
        if self.refused:
            text += f"; load refuses it: {', '.join(self.refused)}"
        return text

    def rows(self) -> list[dict[str, object]]:
        return [
            {"key": t.key, "shape": t.shape, "dtype": t.dtype, "bytes": t.bytes, "storage": t.storage, "stored": t.storage_bytes}
            for t in self.tensors
        ]

    def bars(self) -> dict[str, object]:
        shared = {key: keys for keys in self.shared for key in keys}
        return {
            "unit": "bytes",
            "bars": [
                {"name": t.key, "value": t.storage_bytes, "note": f"storage {t.storage}, shared" if t.key in shared else ""}
                for t in self.tensors
            ],
        }


def _wasted(group: Sequence[archive.TensorEntry]) -> int:
    """Bytes of one storage outside of what its tensors span."""
    covered, reached = 0, 0
    for low, high in sorted(archive.span(t) for t in group):
        covered += max(0, high - max(low, reached))
        reached = max(reached, high)
    return max(0, group[0].storage_bytes - covered)


def inspect(path: AnyPath) -> Inspection:
    """Say what is in a checkpoint without building a tensor or running anything: only its directory and structure are read.

    Works for files that `load` refuses, too: whole models, crafted files. Raises `FileNotFoundError`, and
    `CheckpointError` for a file that is cut off, damaged or not a zip file. Claims: SL-01, SL-10.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", model=torch.nn.Linear(3, 2), epoch=3)
    ...     inspect(f"{folder}/last.pt")
    2 tensors in 32 bytes, 1 plain value
    key           shape   dtype    bytes  storage  stored
    model.weight  (2, 3)  float32     24  0            24
    model.bias    (2,)    float32      8  1             8
    """
    with _opened(path) as file:
        try:
            size = file.seek(0, os.SEEK_END)
            found = archive.structure(file)
        except archive.Damaged as error:
            raise CheckpointError(f"{_name(path)} cannot be inspected: {error}") from None
        except Exception as error:
            text = f"{type(error).__name__}: {_first_line(error)}"
            raise CheckpointError(f"{_name(path)} cannot be inspected: its structure is damaged: {text}") from error
        refused = _refused(file)
    return Inspection(Path(path), found.tensors, found.values, found.names, tuple(refused), size)


# ------------------------------------------------------------------------------------------------------------ compare


@dataclass(frozen=True, repr=False)
class LoadReport(Facts):
    """What `model.load_state_dict(state)` would do: torch's words, and two more. One row for each key that has a problem.

    `loaded` fit exactly; `missing` are in the model only; `unexpected` in the state only; `shape` and `dtype` are in both
    but differ (torch refuses the first and converts the second without a word); `tied` are absent from the state but
    share their memory with a loaded key. `suggestion` is a renaming that would help, or None.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shape: tuple[str, ...]
    dtype: tuple[str, ...]
    tied: tuple[str, ...]
    share: float
    suggestion: str | None
    inside: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every key of both sides fits exactly, so that the model becomes bit-equal to what was saved."""
        return not (self.missing or self.unexpected or self.shape or self.dtype)

    def summary(self) -> str:
        text = f"{len(self.loaded)} of {len(self.inside)} tensors fit ({self.share:.0%} of the values)"
        return f"{text}; {self.suggestion}" if self.suggestion else text

    def rows(self) -> list[dict[str, object]]:
        return [
            {"key": key, "outcome": outcome, "in the model": self.inside.get(key), "in the state": self.stored.get(key)}
            for outcome in ("missing", "unexpected", "shape", "dtype", "tied")
            for key in getattr(self, outcome)
        ]

    def problems(self) -> list[str]:
        texts = [f"{key} is missing ({self.inside[key]})" for key in self.missing]
        texts += [f"{key} is unexpected ({self.stored[key]})" for key in self.unexpected]
        texts += [f"{key} is {self.stored[key]} in the file, {self.inside[key]} here" for key in (*self.shape, *self.dtype)]
        return texts


def compare(model: torch.nn.Module, state: Mapping[str, Any]) -> LoadReport:
    """Say what loading `state` into `model` would do, without changing either.

    `state` is a state_dict, or a dictionary that holds one as `model`, `model_state_dict` or `state_dict`. Raises
    `TypeError` for anything else. Claims: SL-03, SL-06, CK-05.

    >>> small, wrapped = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    >>> compare(small, wrapped.state_dict())
    0 of 2 tensors fit (0% of the values); 100% would fit if the prefix '0.' were removed
    key       outcome     in the model    in the state
    weight    missing     float32 (2, 3)  -
    bias      missing     float32 (2,)    -
    0.weight  unexpected  -               float32 (2, 3)
    0.bias    unexpected  -               float32 (2,)
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"compare needs a model and a state, the first argument is {_an(model)}")
    if not isinstance(state, Mapping):
        raise TypeError(f"compare needs a state_dict, found {_an(state)}: compare(model, load(path))")
    ours, theirs = model.state_dict(), _weights(state)
    inside, stored = {k: _described(v) for k, v in ours.items()}, {k: _described(v) for k, v in theirs.items()}
    both = [key for key in ours if key in theirs]
    shape = [k for k in both if _shape(ours[k]) != _shape(theirs[k])]
    dtype = [k for k in both if k not in shape and inside[k] != stored[k]]
    loaded = [k for k in both if k not in shape and k not in dtype]
    missing = [k for k in ours if k not in theirs]
    unexpected = [k for k in theirs if k not in ours]
    present = {_memory(ours[k]) for k in loaded} - {None}
    tied = [k for k in missing if _memory(ours[k]) in present]
    missing = [k for k in missing if k not in tied]
    total = sum(_numel(v) for v in ours.values())
    share = sum(_numel(ours[k]) for k in (*loaded, *tied)) / total if total else 1.0
    suggestion = _suggestion(ours, theirs, missing, unexpected, share)
    return LoadReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        shape=tuple(shape),
        dtype=tuple(dtype),
        tied=tuple(tied),
        share=share,
        suggestion=suggestion,
        inside=inside,
        stored=stored,
    )


def _an(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state_dict itself, wherever the common conventions put it."""
    for name in ("model", "model_state_dict", "state_dict"):
        inner = state.get(name)
        if isinstance(inner, Mapping) and not any(isinstance(value, torch.Tensor) for value in state.values()):
            return inner
    return state


def _shape(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, torch.Tensor) or torch.nn.parameter.is_lazy(value):
        return None
    return tuple(value.shape)


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if torch.nn.parameter.is_lazy(value):
        return "not yet initialized"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _numel(value: Any) -> int:
    return value.numel() if _shape(value) is not None else 0


def _memory(value: Any) -> tuple[object, ...] | None:
    if _shape(value) is None or value.layout is not torch.strided or value.numel() == 0:
        return None
    where = value.untyped_storage()._cdata if value.is_meta else value.data_ptr()
    return value.device, where, value.dtype, tuple(value.shape), value.stride()


def _suggestion(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], missing: Sequence[str], unexpected: Sequence[str], share: float
) -> str | None:
    """One prefix to remove or to add that would make more of the values fit."""
    candidates: Counter[tuple[str, str]] = Counter()
    wanted: dict[str, list[str]] = {}
    for key in missing:
        wanted.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    for theirs_key in unexpected:
        for ours_key in wanted.get(theirs_key.rsplit(".", 1)[-1], ()):
            if _shape(ours[ours_key]) != _shape(theirs[theirs_key]):
                continue
            for verb, long, short in (("removed", theirs_key, ours_key), ("added", ours_key, theirs_key)):
                if long.endswith("." + short):
                    candidates[verb, long.removesuffix(short)] += _numel(ours[ours_key])
    if not candidates:
        return None
    (verb, prefix), gain = max(candidates.items(), key=lambda item: (item[1], item[0]))
    after = share + gain / max(1, sum(_numel(v) for v in ours.values()))
    return f"{after:.0%} would fit if the prefix {prefix!r} were {verb}"


# ------------------------------------------------------------------------------------------------------------ resume


@dataclass(frozen=True, repr=False)
class Resumed(Facts):
    """What `resume` put back: one row for each name in the file. `values` holds what no part took, such as the epoch.

    `changed` are the settings of optimizers that the file replaced: a learning rate given to the constructor is gone.
    """

    path: Path
    parts: tuple[tuple[str, str, int, str], ...]
    values: Mapping[str, Any]
    changed: tuple[str, ...]

    def summary(self) -> str:
        taken = sum(1 for part in self.parts if part[3].startswith("resumed"))
        return f"{_count(taken, 'part')} resumed, {_count(len(self.values), 'value')} given back"

    def rows(self) -> list[dict[str, object]]:
        return [{"part": name, "kind": kind, "tensors": tensors, "outcome": how} for name, kind, tensors, how in self.parts]


class _Plan(NamedTuple):
    """How one part is put back: `apply` does it, `undo` takes it back, `check` says what differs afterwards."""

    name: str
    apply: Callable[[], object]
    undo: Callable[[], object]
    check: Callable[[], list[str]]
    changed: list[str]
    tensors: int
    last: bool


def resume(path: AnyPath, /, *, map_location: Any = "cpu", verify: bool = True, **parts: Any) -> Resumed:
    """Put the state of a checkpoint back into the parts, all of it or nothing; plain values come back in `.values`.

    Everything is checked before anything is changed: the file (see `load`), the keys, shapes and dtypes of each model,
    the class, groups and parameters of each optimizer (torch matches these by position and accepts any shape; here they
    are matched by name where the model is a part too, and by shape). If a part then still refuses its state, or does not
    come back bit-equal, all parts get back what they had.

    Raises `FileNotFoundError`, `TypeError` for a part without `load_state_dict`, and `CheckpointError` with every
    problem found. Claims: CK-01, CK-02, CK-05, CK-08.

    >>> import tempfile
    >>> def made(lr):
    ...     model = torch.nn.Linear(2, 1)
    ...     return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=lr)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", **made(lr=0.1), epoch=3)
    ...     resumed = resume(f"{folder}/last.pt", **made(lr=99.0))
    >>> resumed
    2 parts resumed, 1 value given back
    part       kind    tensors  outcome
    model      Linear        2  resumed
    optimizer  SGD           0  resumed; lr 99 -> 0.1
    epoch      int           0  in .values
    >>> resumed.values
    {'epoch': 3}
    """
    for name, part in parts.items():
        if not isinstance(part, torch.Generator) and (isinstance(part, type) or not hasattr(part, "load_state_dict")):
            raise TypeError(f"{name} is {_an(part)} without load_state_dict: plain values come back in resume(...).values")
    content = _read(path, map_location, verify)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{_name(path)} holds {_an(content)}, expected a dictionary of parts; nothing was changed")
    notes = getattr(content, "_tutorlib", {})
    absent = [name for name in parts if name not in content]
    if absent:
        found = ", ".join(map(str, content)) or "nothing"
        raise CheckpointError(f"{_name(path)} has no {', '.join(absent)}: it holds {found}; nothing was changed")

    problems: list[str] = []
    plans = [_planned(name, part, content[name], notes, parts, problems) for name, part in parts.items()]
    if problems:
        raise CheckpointError(f"cannot resume from {_name(path)}: {_all(problems)}; nothing was changed")
    _apply_all(path, plans)

    rows = []
    for name, state in content.items():
        kind = notes.get("kinds", {}).get(name) or (type(parts[name]).__name__ if name in parts else _kind(state))
        plan = next((p for p in plans if p.name == name), None)
        if plan is not None:
            rows.append((name, kind, plan.tensors, "; ".join(["resumed", *plan.changed])))
        else:
            how = "in .values, not asked for" if name in notes.get("kinds", {}) else "in .values"
            rows.append((str(name), kind, _tensors(state), how))
    values = {name: value for name, value in content.items() if name not in parts}
    return Resumed(Path(path), tuple(rows), values, tuple(text for plan in plans for text in plan.changed))


def _planned(name: str, part: Any, state: Any, notes: Mapping[str, Any], parts: Mapping[str, Any], problems: list[str]) -> _Plan:
    """Check one part against its state; add what is wrong to `problems`."""
    saved, here = notes.get("kinds", {}).get(name), type(part).__name__
    changed: list[str] = []
    if not isinstance(part, torch.nn.Module) and saved not in (None, here):
        problems.append(f"{name} was saved from {saved}, here it is {here}")
    elif isinstance(part, torch.Generator):
        if not isinstance(state, torch.Tensor) or _described(state) != _described(part.get_state()):
            problems.append(f"{name} does not hold the state of a generator")
    elif not isinstance(state, Mapping):
        problems.append(f"{name} is {_an(state)} in the file, expected the state of {here}")
    elif isinstance(part, torch.nn.Module):
        report = compare(part, OrderedDict(state))
        found = [f"{name}.{text}" for text in report.problems()]
        if found and report.suggestion:
            found.insert(0, f"{name}: {report.suggestion}")
        problems.extend(found)
        state = _with_tied(state, part, report)
    elif isinstance(part, torch.optim.Optimizer):
        found, state = _optimizer(name, part, state, notes.get("optimizers", {}).get(name), parts)
        problems.extend(found)
        changed = [] if found else _changed(part, state)
    elif isinstance(part, torch.optim.lr_scheduler.LRScheduler):
        differing = sorted(part.state_dict().keys() ^ state.keys())
        if differing and saved is None:
            problems.append(f"{name} does not hold the state of {here}: {', '.join(differing)} on one side only")
    apply, undo, check = _ways(name, part, state)
    return _Plan(name, apply, undo, check, changed, _tensors(state), isinstance(part, RandomState))


def _with_tied(state: Mapping[str, Any], model: torch.nn.Module, report: LoadReport) -> Mapping[str, Any]:
    """Fill in the second name of a shared parameter, so that torch does not call it missing; `_metadata` travels along."""
    if not report.tied:
        return state
    ours = model.state_dict()
    by_memory = {_memory(ours[key]): key for key in report.loaded}
    filled = OrderedDict(state)
    vars(filled).update(getattr(state, "__dict__", {}))
    filled.update({key: state[by_memory[_memory(ours[key])]] for key in report.tied})
    return filled


def _optimizer(
    name: str, part: torch.optim.Optimizer, state: Mapping[str, Any], notes: Any, parts: Mapping[str, Any]
) -> tuple[list[str], Mapping[str, Any]]:
    """What keeps the state from belonging to these parameters, and the state in the order of these parameters."""
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not isinstance(state.get("state"), Mapping):
        return [f"{name} does not hold the state of an optimizer"], state
    here, there = [len(g["params"]) for g in part.param_groups], [len(g["params"]) for g in groups]
    if here != there:
        return [f"{name} has groups of {there} parameters in the file, {here} here"], state
    allowed = {"param_names", "initial_lr", "swa_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
    foreign = sorted({key for ours, theirs in zip(part.param_groups, groups, strict=True) for key in theirs.keys() - ours.keys()})
    if set(foreign) - allowed:
        return [f"{name} holds the settings {', '.join(foreign)} of another optimizer than {type(part).__name__}"], state

    problems = []
    names = _parameter_names(parts)
    reordered: dict[Any, Any] = {k: v for k, v in state["state"].items() if k not in {i for g in groups for i in g["params"]}}
    new_groups, position = [], 0
    for number, (live, group) in enumerate(zip(part.param_groups, groups, strict=True)):
        ids = list(group["params"])
        order = list(range(len(ids)))
        written: list[tuple[str, Any]] = notes[number] if notes else [("", None) for _ in ids]
        ours, theirs = [names.get(id(p), "") for p in live["params"]], [label for label, _ in written]
        if all(ours) and all(theirs) and ours != theirs:
            if sorted(ours) != sorted(theirs):
                only = sorted(set(theirs) ^ set(ours))
                problems.append(f"{name} group {number} belongs to other parameters: {', '.join(only)} on one side only")
                continue
            order = [theirs.index(label) for label in ours]
        for index, (parameter, source) in enumerate(zip(live["params"], order, strict=True)):
            label = f"{name} parameter {position + index}" + (f" ({ours[index]})" if ours[index] else "")
            kept = state["state"].get(ids[source])
            shape = written[source][1]
            if shape is not None and tuple(shape) != tuple(parameter.shape):
                problems.append(f"{label} has the shape {tuple(shape)} in the file, {tuple(parameter.shape)} here")
            elif kept is not None:
                problems.extend(_misfits(label, part, parameter, kept))
            if kept is not None:
                reordered[position + index] = kept
        new_groups.append({**group, "params": list(range(position, position + len(ids)))})
        position += len(ids)
    return problems, {**state, "state": reordered, "param_groups": new_groups}


def _misfits(label: str, part: torch.optim.Optimizer, parameter: torch.Tensor, kept: Any) -> list[str]:
    """State tensors that cannot belong to this parameter; for torch's own optimizers, whose state has its shape.

    Exceptions: LBFGS keeps one flat vector for all parameters, Adafactor the rows and columns of each.
    """
    known = type(part).__module__.startswith("torch.optim.") and not isinstance(part, torch.optim.LBFGS)
    if not known or not isinstance(kept, Mapping):
        return []
    return [
        f"{label}: {key} has the shape {tuple(value.shape)} in the file, {tuple(parameter.shape)} here"
        for key, value in kept.items()
        if isinstance(value, torch.Tensor) and value.ndim and key not in ("row_var", "col_var", "variance", "step")
        if value.shape != parameter.shape
    ]


def _changed(part: torch.optim.Optimizer, state: Mapping[str, Any]) -> list[str]:
    """Settings of the optimizer that the file replaces."""
    texts = []
    for number, (live, group) in enumerate(zip(part.param_groups, state["param_groups"], strict=True)):
        where = f" of group {number}" if len(part.param_groups) > 1 else ""
        for key, value in group.items():
            if key != "params" and key in live and not _same(live[key], value):
                texts.append(f"{key}{where} {_short(live[key])} -> {_short(value)}")
    return texts


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _ways(name: str, part: Any, state: Any) -> tuple[Callable[[], object], Callable[[], object], Callable[[], list[str]]]:
    """How this kind of part takes its state, how it gets back what it had, and what differs afterwards."""
    if isinstance(part, torch.Generator):
        before = part.get_state()
        return lambda: part.set_state(state), lambda: part.set_state(before), lambda: []
    if isinstance(part, torch.nn.Module):
        kept = {key: value for key, value in part.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
        copies: dict[str, torch.Tensor] = {}
        extra: dict[str, Any] = {}

        def apply() -> None:
            # torch.nn.Module.load_state_dict copies in place, so only copies made now can bring the old values back
            copies.update({key: value.detach().clone() for key, value in kept.items()})
            extra.update(copy.deepcopy({k: v for k, v in part.state_dict().items() if k not in kept}))
            part.load_state_dict(state)

        def undo() -> None:
            with torch.no_grad():
                for key, value in copies.items():
                    kept[key].detach().copy_(value)
            now = part.state_dict(keep_vars=True)
            if extra or any(now.get(key) is not value for key, value in kept.items()):
                part.load_state_dict(OrderedDict({**copies, **extra}), strict=False)

        return apply, undo, lambda: _differences(part.state_dict(), state, name)
    if isinstance(part, torch.optim.Optimizer):
        old = dict(vars(part))  # load_state_dict makes new dictionaries and leaves these as they are

        def back() -> None:
            vars(part).clear()
            vars(part).update(old)

        return lambda: part.load_state_dict(dict(state)), back, lambda: _differences(part.state_dict(), state, name)
    earlier: list[Any] = []

    def take() -> None:
        earlier.append(copy.deepcopy(part.state_dict()))
        part.load_state_dict(state)

    def give_back() -> None:
        if earlier:
            part.load_state_dict(earlier[0])

    return take, give_back, lambda: []


def _apply_all(path: AnyPath, plans: Sequence[_Plan]) -> None:
    """Apply every plan, or take back what was done; random state last, because loading may draw random numbers."""
    ordered = sorted(plans, key=lambda plan: plan.last)
    done: list[_Plan] = []
    try:
        for plan in ordered:
            done.append(plan)
            try:
                plan.apply()
            except Exception as error:
                raise CheckpointError(f"{plan.name} refused its state: {type(error).__name__}: {_first_line(error)}") from error
        different = [text for plan in ordered for text in plan.check()]
        if different:
            raise CheckpointError(f"not bit-equal after loading: {_all(different)}")
    except BaseException as error:
        stuck = []
        for plan in reversed(done):
            try:
                plan.undo()
            except BaseException as failure:  # whatever happens to one, the others get back what they had
                stuck.append(f"{plan.name} ({type(failure).__name__}: {_first_line(failure)})")
        if not isinstance(error, CheckpointError):
            raise
        end = f"could not be taken back: {', '.join(stuck)}" if stuck else "nothing was changed"
        raise CheckpointError(f"cannot resume from {_name(path)}: {error}; {end}") from error.__cause__


def _tensors(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return 1
    children = state.values() if isinstance(state, Mapping) else state if isinstance(state, (list, tuple)) else ()
    return sum(map(_tensors, children))


def _same(a: Any, b: Any) -> bool:
    return not _differences(a, b, "")


def _differences(live: Any, state: Any, place: str) -> list[str]:
    """Where two states are not equal bit for bit; what only the live side has (newer defaults) does not count."""
    if isinstance(live, torch.Tensor) and isinstance(state, torch.Tensor):
        return [] if _equal_bits(live, state) else [_unequal(place, live, state)]
    if isinstance(live, Mapping) and isinstance(state, Mapping):
        found = []
        for key, value in state.items():
            inner = f"{place}.{key}"
            found += _differences(live[key], value, inner) if key in live else [f"{inner} is gone"]
        return found
    if isinstance(live, (list, tuple)) and isinstance(state, (list, tuple)) and len(live) == len(state):
        return [text for i, (a, b) in enumerate(zip(live, state, strict=True)) for text in _differences(a, b, f"{place}.{i}")]
    if isinstance(live, float) and isinstance(state, float):
        return [] if struct.pack("d", live) == struct.pack("d", state) else [f"{place} is {live} instead of {state}"]
    if isinstance(live, torch.Tensor) or isinstance(state, torch.Tensor):
        return [f"{place} is {_described(live)} instead of {_described(state)}"]
    return [] if type(live) is type(state) and live == state else [f"{place} is {live!r} instead of {state!r}"]


def _unequal(place: str, live: torch.Tensor, state: torch.Tensor) -> str:
    if _described(live) != _described(state):
        return f"{place} is {_described(live)} instead of {_described(state)}"
    return f"{place} has other values"


def _equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
        return False
    if a.layout is not torch.strided or a.is_quantized or a.is_meta or b.is_meta:
        return a.is_meta == b.is_meta and (a.is_meta or bool(torch.equal(a, b)))
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # of none or one element torch says contiguous whatever the stride, but cannot view it
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


class RandomState:
    """The random state of python, numpy and torch as a part: `save(path, ..., random=RandomState())`, and `resume` alike.

    `state_dict()` holds plain values and tensors only, so it comes back under `weights_only` (numpy's own tuple does not).
    Numpy is left alone when it is not loaded; CUDA devices count as many as both sides have.

    >>> state = RandomState().state_dict()
    >>> first = torch.rand(1), random.random()
    >>> RandomState().load_state_dict(state)
    >>> (torch.rand(1), random.random()) == first
    True
    """

    def state_dict(self) -> dict[str, Any]:
        version, numbers, gauss = random.getstate()
        state: dict[str, Any] = {"python": (version, torch.tensor(numbers), gauss), "torch": torch.get_rng_state()}
        if "numpy" in sys.modules:
            name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
            state["numpy"] = (str(name), torch.tensor(keys.tolist()), int(position), int(has_gauss), float(cached))
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        missing = [name for name in ("python", "torch") if name not in state]
        if missing:
            raise KeyError(f"the random state lacks {', '.join(missing)}")
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers.tolist()), gauss))
        torch.set_rng_state(state["torch"].cpu())
        if "numpy" in state:
            import numpy

            name, keys, position, has_gauss, cached = state["numpy"]
            numpy.random.set_state((name, numpy.array(keys.tolist(), dtype=numpy.uint32), position, has_gauss, cached))
        if "cuda" in state and torch.cuda.is_available():
            for device, kept in enumerate(state["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(kept.cpu(), device)


# ------------------------------------------------------------------------------------------------------------ proofs


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

    >>> overwrite_killed(torch.save, save, times=2)
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
            name = "torch.save" if function is torch.save else f"{function.__module__.rsplit('.', 1)[-1]}.{function.__qualname__}"
            place = Path(folder, str(number))
            place.mkdir()
            outcomes[name], stray[name] = _overwrite(function, times, size, place / "last.pt")
        answer.send((outcomes, stray))
    except BaseException as error:
        answer.send(CheckpointError(f"the process that overwrites failed: {type(error).__name__}: {_first_line(error)}"))


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
    return next((word for word, value in (("old", 1.0), ("new", 2.0)) if _same(weights, _marked(value, size)["weights"])), "lost")


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
        if not _same(a, b):
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
        first = next((i for i, (a, b) in enumerate(zip(losses, straight, strict=True)) if not _same(a, b)), None)
        final = _final(parts)
        runs.append(Run(name, losses, first, {part: _same(final[part], wanted[part]) for part in wanted}))
    return ResumeProof(k, m, tuple(runs))


def _steps(make: Callable[[], Any], step: Callable[..., Any], number: int, seed: int) -> tuple[tuple[float, ...], dict[str, Any]]:
    _seed(seed)
    parts = _made(make)
    return tuple(_loss(step, parts) for _ in range(number)), parts


def _made(make: Callable[[], Any]) -> dict[str, Any]:
    parts = make()
    if not isinstance(parts, Mapping) or not parts:
        raise TypeError(
            f"make() returned {_an(parts)}, expected a dictionary of parts such as {{'model': ..., 'optimizer': ...}}"
        )
    plain = [name for name, part in parts.items() if not _is_part(part)]
    if plain:
        raise TypeError(f"make() returned values without state_dict(): {', '.join(plain)}: keep them in an object that has it")
    return dict(parts)


def _loss(step: Callable[..., Any], parts: Mapping[str, Any]) -> float:
    loss = step(**parts)
    if loss is None:
        raise TypeError("step() returned None, expected its loss as a number")
    return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)


def _final(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(_state(name, part)) for name, part in parts.items()}


def _seed(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
