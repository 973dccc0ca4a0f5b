"""From training to a file: one step, durable, and refused at once if it would not come back."""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import os
import re
import secrets
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import torch

from tutorlib import archive
from tutorlib.checkpoint.base import (
    AnyPath,
    CheckpointError,
    an,
    counted,
    first_line,
    is_part,
    kind_of,
    listed,
    memory_of,
    parameter_names,
    quoted,
    state_of,
)
from tutorlib.checkpoint.reading import VERSIONS
from tutorlib.facts import Facts

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]


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
        return f"{counted(len(self.parts), 'part')}, {counted(tensors, 'tensor')}, {size} bytes of storage, saved in one step"

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
        raise CheckpointError(f"nothing to save to {quoted(path)}: name the parts, for example save(path, model=model, epoch=3)")
    states = {name: state_of(name, part) for name, part in parts.items()}
    survey = _Survey()
    totals = {}
    for name, state in states.items():
        tensors, size = survey.tensors, sum(survey.storages.values())
        survey.walk(state, name)
        totals[name] = (survey.tensors - tensors, sum(survey.storages.values()) - size)
    if survey.problems:
        raise CheckpointError(f"cannot save {quoted(path)}: {listed(survey.problems)}; nothing was written")

    content: OrderedDict[str, Any] = OrderedDict(states)
    # NOTE [ What only resume needs ]
    # It travels as an attribute of the outer dictionary, as torch's own `_metadata` does in a model's state: invisible to
    # a reader of the dictionary, and admitted by weights_only.
    content._tutorlib = _notes(parts)  # type: ignore[attr-defined]

    def write(file: BinaryIO) -> None:
        with _checksums():
            torch.save(content, file)

    def check(file: BinaryIO) -> None:  # whatever the walk above did not foresee
        torch.load(file, map_location="meta", weights_only=True)

    size, swept = _replace(path, write, check)
    facts = tuple((name, kind_of(part), *totals[name]) for name, part in parts.items())
    return Saved(Path(path), facts, size, time.perf_counter() - began, swept)


def save_weights(
    path: AnyPath, weights: torch.nn.Module | Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> Saved:
    """Write a model's weights to one safetensors file in one step, as `save` does: the form in which models are shared.

    `weights` is a model or a state_dict. The form holds tensors and text only: `metadata` is text by name, `inspect` shows
    it. A tensor under several names is stored once and comes back under all of them, and the modules' versions travel along.
    Any program that knows the form reads the file; `load`, `load_into`, `build`, `tensors` and `inspect` do. It has no
    checksums, so `load` verifies its header and its length, not its values.

    Raises `TypeError` for something else than a model or a dictionary, and `CheckpointError`, with the earlier file
    untouched, for what the form cannot hold: other values than tensors, tensors that overlap, other layouts.

    >>> import tempfile
    >>> from tutorlib.checkpoint import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(f"{folder}/model.safetensors", torch.nn.Linear(2, 1), metadata={"trained on": "digits"})
    ...     sorted(load(f"{folder}/model.safetensors"))
    1 part, 2 tensors, 12 bytes of storage, saved in one step
    part     kind    tensors  bytes
    weights  Linear        2     12
    ['bias', 'weight']
    """
    from safetensors.torch import save as in_bytes

    began = time.perf_counter()
    state = weights.state_dict() if isinstance(weights, torch.nn.Module) else weights
    if not isinstance(state, Mapping):
        raise TypeError(
            f"save_weights needs a model or a state_dict, found {an(weights)}: save(path, name=value) stores the rest"
        )
    notes: dict[str, str] = dict(metadata or {})
    problems = [f"metadata {k!r} is {v!r}, expected text" for k, v in notes.items() if not (type(k) is type(v) is str)]
    stored: dict[str, torch.Tensor] = {}
    owners: dict[object, str] = {}
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for key, value in state.items():
        problem = _not_for_safetensors(key, value)
        if problem:
            problems.append(f"{key} is {problem}")
            continue
        owner = owners.setdefault(memory_of(value) or key, key)
        if owner != key:
            if key in notes:
                problems.append(f"{key} is the name of a tensor and of a text in metadata: rename the text")
            notes[key] = owner
            continue
        stored[key] = value.detach().to("cpu").contiguous()
        if value.numel():
            low = value.data_ptr()
            reach = 1 + sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True))
            spans.setdefault(value.untyped_storage().data_ptr(), []).append((low, low + reach * value.itemsize, key))
    for places in spans.values():
        ordered = sorted(places)
        for (_, end, one), (start, _, other) in itertools.pairwise(ordered):
            if start < end:
                problems.append(f"{one} and {other} overlap in memory: store .clone() of one")
    if problems:
        raise CheckpointError(f"cannot save {quoted(path)}: {listed(problems)}; nothing was written")
    versions = getattr(state, "_metadata", None)
    if isinstance(versions, Mapping):
        with contextlib.suppress(TypeError, ValueError):  # what is no plain value stays behind
            notes.setdefault(VERSIONS, json.dumps({str(name): dict(entry) for name, entry in versions.items()}))

    def write(file: BinaryIO) -> None:
        file.write(in_bytes(stored, notes or None))

    size, swept = _replace(path, write, archive.verify)
    count, total = len(state), sum(value.nbytes for value in stored.values())
    kind = type(weights).__name__
    return Saved(Path(path), (("weights", kind, count, total),), size, time.perf_counter() - began, swept)


def _not_for_safetensors(key: object, value: Any) -> str | None:
    if not isinstance(key, str) or key == "__metadata__":
        return "no name that safetensors can store: it takes text"
    if not isinstance(value, torch.Tensor):
        return f"{an(value)}, and safetensors holds tensors only: save(path, name=value) stores the rest"
    if torch.nn.parameter.is_lazy(value):
        return "without a shape yet: run the lazy module once before saving"
    if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_conj() or value.is_neg():
        return "no plain tensor in memory: store its .to_dense(), .dequantize() or .resolve_conj()"
    if str(value.dtype).removeprefix("torch.") not in archive.SAFE:
        return f"of dtype {value.dtype}, which safetensors does not know"
    return None


def _notes(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Which parts have state, of which class, and the names and shapes of each optimizer's parameters, by position."""
    names = parameter_names(parts)
    return {
        "kinds": {name: type(part).__name__ for name, part in parts.items() if is_part(part)},
        "optimizers": {
            name: [[[names.get(id(p), ""), list(p.shape)] for p in group["params"]] for group in part.param_groups]
            for name, part in parts.items()
            if isinstance(part, torch.optim.Optimizer)
        },
    }


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
    if isinstance(value, torch.nn.Module) or is_part(value):
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


def _replace(path: AnyPath, write: Callable[[BinaryIO], object], check: Callable[[BinaryIO], object]) -> tuple[int, int]:
    """Write beside the goal, flush it to the disk, check that it can be read, rename; the size, and how many were swept."""
    goal = Path(os.path.realpath(path))  # a link keeps pointing where it points
    if not goal.parent.is_dir():
        raise CheckpointError(f"cannot save {quoted(path)}: its folder does not exist: make it first")
    if goal.exists() and not goal.is_file():
        raise CheckpointError(f"cannot save {quoted(path)}: it is a {'folder' if goal.is_dir() else 'device'}: name a file in it")
    fresh: Path | None = None
    try:
        swept = _sweep(goal)
        fresh, file = _beside(goal)
        with file:
            sink = _Sink(file)
            write(sink)  # type: ignore[arg-type]
            if sink.error is not None:
                raise sink.error
            file.flush()
            _flush_to_disk(file.fileno())
            size = file.tell()
            file.seek(0)
            check(file)
            if fcntl is not None:
                fresh.replace(goal)  # while our lock holds, so that nobody takes the file for a dead process's
        if fcntl is None:
            fresh.replace(goal)
        fresh = None
    except OSError as error:
        raise CheckpointError(f"cannot save {quoted(path)}: {error.strerror or error}; {_untouched(goal)}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"cannot save {quoted(path)}: {reason}; {_untouched(goal)}") from error
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
