"""On which device a load puts its tensors: files as a GPU would have written them, read as on a machine with GPUs."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutorlib.checkpoint.base import AnyPath, an, counted, first_line
from tutorlib.facts import Facts

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Placed:
    """One file read in one way: the devices its tensors came to, or the error (`device` is then None)."""

    saved: str
    call: str
    device: str | None
    error: str | None


@dataclass(frozen=True, repr=False)
class Placement(Facts):
    """Where each way of reading put the tensors of each file; one row for each. `gpus` is what the machine was said to have."""

    gpus: int
    outcomes: tuple[Placed, ...]

    def summary(self) -> str:
        failed = sum(outcome.device is None for outcome in self.outcomes)
        return f"a machine with {counted(self.gpus, 'GPU')}: {failed} of {counted(len(self.outcomes), 'load')} failed"

    def rows(self) -> list[dict[str, object]]:
        return [{"saved on": o.saved, "call": o.call, "outcome": o.device or o.error} for o in self.outcomes]

    heads = ("file", "saved on", "call", "ends on")

    def tree(self) -> list[dict[str, object]]:
        """Lines for `pictures.tree`: each file, and below it what each call makes of it; marked is what fails."""
        lines: list[dict[str, object]] = []
        for outcome in self.outcomes:
            if not lines or lines[-1]["before"] != outcome.saved:
                lines.append({"depth": 0, "path": "file", "before": outcome.saved, "rule": "", "after": "", "surprise": False})
            after = outcome.device or (outcome.error or "").split(":")[0]
            odd = outcome.device is None
            lines.append({"depth": 1, "path": "", "before": outcome.saved, "rule": outcome.call, "after": after, "surprise": odd})
        return lines


def where_loaded(reads: Mapping[str, Read], *, saved: Sequence[str] = ("cpu", "cuda:0", "cuda:1"), gpus: int = 0) -> Placement:
    """Read a file from each device in each way, as on a machine with `gpus` GPUs, and say where its tensors came to.

    `reads` maps a text to a function of a path: `{"torch.load(path)": torch.load}`. It may return a state, nested as it
    likes, or a model. `saved` are the devices the files were saved on; no GPU is needed to write or to read them: torch
    reads each file and decides itself, only the last step, the copy to a GPU, is left out. For the length of each load
    `torch.cuda` says that it has `gpus` devices, in this process. Other accelerators stay as they are on this machine.
    Raises `TypeError` and `ValueError` for reads, devices and numbers that make no sense. Claims: DV-01 to DV-04, DV-09.

    >>> where_loaded({"torch.load(path)": torch.load}, gpus=1)
    a machine with 1 GPU: 1 of 3 loads failed
    saved on  call              outcome
    cpu       torch.load(path)  cpu
    cuda:0    torch.load(path)  cuda:0
    cuda:1    torch.load(path)  RuntimeError: Attempting to deserialize object on CUDA device 1 but torch.cuda.device_count() is 1
    """
    if not isinstance(reads, Mapping) or not reads or not all(map(callable, reads.values())):
        raise TypeError(f"where_loaded needs functions of a path by name, such as {{'torch.load': torch.load}}, found {reads!r}")
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 0:
        raise ValueError(f"gpus={gpus!r}: expected a whole number from 0")
    tags = [_tag(device) for device in ([saved] if isinstance(saved, str) else saved)]
    outcomes = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for number, tag in enumerate(tags):
            path = Path(folder, f"{number}.pt")
            write_tagged(path, {"weight": torch.arange(4.0), "bias": torch.zeros(2)}, tag)
            outcomes += [Placed(tag, call, *_outcome(read, path, gpus)) for call, read in reads.items()]
    return Placement(gpus, tuple(outcomes))


def write_tagged(path: AnyPath, state: Any, device: Any) -> None:
    """`torch.save(state, path)` as a machine would write it whose tensors lie on `device`; the device itself is not needed.

    Every storage in the file carries the device's name, as if `state` had been moved there before it was saved; the
    values are those of `state`. Raises `ValueError` for what is no device, and whatever `torch.save` raises.
    Claims: DV-01, DV-02.

    >>> from tutorlib import checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tagged(f"{folder}/gpu.pt", {"weight": torch.ones(2)}, "cuda:1")
    ...     checkpoint.inspect(f"{folder}/gpu.pt").tensors[0].device, checkpoint.load(f"{folder}/gpu.pt")["weight"]
    ('cuda:1', tensor([1., 1.]))
    """
    _register()
    _pretend.tag = _tag(device)
    try:
        torch.save(state, path)
    finally:
        _pretend.tag = None


def _tag(device: Any) -> str:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{device!r} is no device ({first_line(error)}): expected for example 'cpu' or 'cuda:0'") from None
    alone = found.index is not None or found.type in ("cpu", "mps", "meta")  # of the others torch always writes the number
    return str(found) if alone else f"{found}:0"


class _Pretend(threading.local):
    """What this thread pretends, only while one file is written or read."""

    tag: str | None = None
    gpus: int | None = None
    placed: dict[int, tuple[Any, str]] | None = None  # the storage is held, so that its address stays its own


_pretend = _Pretend()


@functools.cache
def _register() -> None:
    """Stand before torch's own devices (the CPU has priority 10): inert unless this thread pretends."""
    torch.serialization.register_package(9, lambda storage: _pretend.tag, _restored)


def _restored(storage: Any, location: str) -> Any:
    """What torch asks for each storage of a file: None leaves the answer to torch itself."""
    if _pretend.gpus is None or _pretend.placed is None or not location.startswith("cuda"):
        return None
    from unittest import mock

    count = _pretend.gpus
    said = {"is_available": count > 0, "device_count": count, "current_device": 0}
    with contextlib.ExitStack() as stack:
        for name, answer in said.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, return_value=answer))
        index = torch.serialization.validate_cuda_device(location)  # raises what torch raises on such a machine
    _pretend.placed[storage._cdata] = storage, f"cuda:{index}"
    return storage


def _outcome(read: Read, path: Path, gpus: int) -> tuple[str | None, str | None]:
    _register()
    _pretend.gpus, _pretend.placed = gpus, {}
    try:
        found = read(path)
        devices = dict.fromkeys(map(_device, _tensors(found)))
        return (", ".join(devices), None) if devices else (None, f"no tensor in {an(found)}")
    except Exception as error:
        text = first_line(error).split(". ")[0].replace(repr(str(path)), "the file").replace(str(path), "the file")
        return None, f"{type(error).__name__}: {text}"
    finally:
        _pretend.gpus = _pretend.placed = None


def _device(tensor: torch.Tensor) -> str:
    placed = _pretend.placed or {}
    if tensor.layout is not torch.strided:
        return str(tensor.device)
    return placed.get(tensor.untyped_storage()._cdata, (None, str(tensor.device)))[1]


def _tensors(found: Any) -> Iterator[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, torch.nn.Module):
        yield from found.state_dict().values()
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _tensors(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from _tensors(value)
