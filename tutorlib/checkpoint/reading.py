"""From a file back: verified, safe, or only looked at."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tutorlib import archive
from tutorlib.checkpoint.base import AnyPath, CheckpointError, an, counted, first_line, quoted
from tutorlib.checkpoint.places import local_path
from tutorlib.facts import Facts, Table


def load(path: AnyPath, *, map_location: Any = "cpu", verify: bool = True) -> Any:
    """Read a checkpoint back as the dictionary that was saved: verified first, and nothing in it is ever run.

    All tensors come to `map_location` (the CPU unless told otherwise), so a file saved on a GPU loads anywhere. Always
    `weights_only`, whatever the environment says. `verify` holds every byte against the checksums in the file; torch
    does not look at them. A file that holds something else than a dictionary gives that. A safetensors file, known by its
    content, gives a state_dict; it has no checksums, so only its header and its length are verified.

    Raises `FileNotFoundError`; `CheckpointError` for a file that is cut off or damaged, that names functions or classes
    to be run (each is named, with the choices), or whose checksums are missing. Claims: SL-02, SL-10, CK-08.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", epoch=3, history=[0.5, 0.25])
    ...     load(f"{folder}/last.pt")
    {'epoch': 3, 'history': [0.5, 0.25]}
    """
    content = read(path, map_location, verify)
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
def opened(path: AnyPath) -> Iterator[BinaryIO]:
    path = local_path(path)
    if path.is_dir():
        raise CheckpointError(f"{quoted(path)} is a folder, expected a checkpoint file")
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below, where its errors are not a missing file's)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {quoted(path)}: {_beside_it(path)}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {quoted(path)}: {error.strerror or error}") from error
    with file:
        yield file


def read(path: AnyPath, map_location: Any, verify: bool) -> Any:
    if not (map_location is None or isinstance(map_location, (str, torch.device, dict)) or callable(map_location)):
        raise TypeError(f"map_location is {an(map_location)}, expected a device such as 'cpu', a dictionary or a function")
    # One open file for the check and for the reading: what was verified is what is read, even if the name is replaced.
    with opened(path) as file:
        if verify:
            verified(path, file)
        return read_open(path, file, map_location)


def verified(path: AnyPath, file: BinaryIO) -> None:
    """Hold every byte of the file against its checksums; of a safetensors file, which has none, the header."""
    file.seek(0)
    if file.read(4) != b"PK\3\4" and not archive.is_safetensors(file):
        raise CheckpointError(
            f"{quoted(path)} cannot be verified: it is damaged or no zip file; "
            "files of torch before 1.6 have no checksums: load(path, verify=False)"
        )
    try:
        archive.verify(file)
    except (archive.Damaged, struct.error, ValueError, OSError) as error:
        raise CheckpointError(
            f"{quoted(path)} is damaged: {error}: take an earlier copy, or look at it with load(path, verify=False)"
        ) from None


def read_open(path: AnyPath, file: BinaryIO, map_location: Any) -> Any:
    file.seek(0)
    if archive.is_safetensors(file):
        return _safetensors(path, file, map_location)
    file.seek(0)
    return _unpickle(path, file, map_location)


VERSIONS = "tutorlib.versions"  # under this name of a safetensors file's metadata, `_metadata` travels


def _safetensors(path: AnyPath, file: BinaryIO, map_location: Any) -> OrderedDict[str, torch.Tensor]:
    """A state_dict: the tensors under all their names, and the modules' versions if `save_weights` wrote it."""
    try:
        found = archive.structure(file)
        here = made(file, found, found.root.values())
    except Exception as error:
        raise CheckpointError(f"{quoted(path)} cannot be read: {type(error).__name__}: {first_line(error)}") from error
    moved = {id(tensor): _moved(tensor, map_location) for tensor in here}
    state = OrderedDict(zip(found.root, (moved[id(tensor)] for tensor in here), strict=True))
    with contextlib.suppress(ValueError, AttributeError, TypeError):  # somebody else's note under our name
        versions = json.loads(found.values.get(f"metadata.{VERSIONS}", "null"))
        if isinstance(versions, dict):
            state._metadata = OrderedDict((name, dict(entry)) for name, entry in versions.items())  # type: ignore[attr-defined]
    return state


def _moved(tensor: torch.Tensor, map_location: Any) -> torch.Tensor:
    """To where torch.load would bring a tensor that was saved on the CPU."""
    if isinstance(map_location, dict):
        map_location = map_location.get("cpu")
    elif callable(map_location):
        found = map_location(tensor.untyped_storage(), "cpu")
        map_location = None if found is None else found.device
    return tensor if map_location is None else tensor.to(map_location)


def over(storage: torch.UntypedStorage, view: archive.View, skipped: int) -> torch.Tensor:
    """The tensor over a storage from which the first `skipped` bytes were left out."""
    dtype = getattr(torch, view.dtype)
    empty = torch.empty(0, dtype=dtype, device=storage.device)
    return empty.set_(storage, view.offset - skipped // dtype.itemsize, view.size, view.stride)  # type: ignore[call-overload]


def memory_as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor of the CPU, to write to."""
    flat = torch.empty(0, dtype=torch.uint8)
    flat.set_(tensor.untyped_storage(), tensor.storage_offset() * tensor.itemsize, (tensor.nbytes,), (1,))  # type: ignore[call-overload]
    return memoryview(flat.numpy())  # type: ignore[arg-type]


def made(file: BinaryIO, found: archive.Structure, views: Iterable[archive.View]) -> list[torch.Tensor]:
    """Tensors of their own memory; those that share a storage in the file share memory, of which only the part is read."""
    views = list(views)
    parts: dict[str, tuple[int, int]] = {}
    for view in views:
        low, high = archive.reach(view)
        before = parts.get(view.storage.key, (low, high))
        parts[view.storage.key] = min(low, before[0]) // 16 * 16, max(high, before[1])
    storages = {}
    for key, (low, high) in parts.items():
        memory = torch.empty(high - low, dtype=torch.uint8)
        if high > low:
            archive.read_into(file, archive.begin(file, found.places[key]) + low, memory_as_bytes(memory))
        storages[key] = memory.untyped_storage()
    tensors: dict[int, torch.Tensor] = {}
    for view in views:
        if id(view) not in tensors:
            low = parts[view.storage.key][0] if archive.reach(view)[1] else view.offset * getattr(torch, view.dtype).itemsize
            tensor = over(storages[view.storage.key], view, low)
            if view.parameter:
                tensor = torch.nn.Parameter(tensor, requires_grad=view.requires_grad)
            tensors[id(view)] = tensor.requires_grad_(view.requires_grad)
    return [tensors[id(view)] for view in views]


def _unpickle(path: AnyPath, file: BinaryIO, map_location: Any) -> Any:
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:
        names = refused(file)
        if names:
            raise CheckpointError(
                f"{quoted(path)} asks for {', '.join(names)}, which load never runs: save a state_dict() and plain values "
                "instead; or, if you trust the file, name them in torch.serialization.safe_globals([...]) around load"
            ) from None
        reason = first_line(error).removeprefix("Weights only load failed.").strip() or "its content is not as torch writes it"
        raise CheckpointError(f"{quoted(path)} cannot be read: {type(error).__name__}: {reason}") from error


def refused(file: BinaryIO, named: Sequence[str] = ()) -> list[str]:
    """The functions and classes that the file names and that torch does not admit; `named` are all, where torch cannot look."""
    try:
        file.seek(0)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))  # type: ignore[arg-type]
    except Exception:  # from before torch 1.6, or no torch file at all
        from torch._weights_only_unpickler import _get_allowed_globals, _get_user_allowed_globals

        return sorted({*named} - {*_get_allowed_globals(), *_get_user_allowed_globals()})


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
        text = f"{counted(len(self.tensors), 'tensor')} in {self.stored} bytes, {counted(len(self.values), 'plain value')}"
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

    def details(self) -> str:
        """All of it as text: the tensors with their devices, then what is shared, plain values and names."""
        rows = [{**row, "device": t.device} for row, t in zip(self.rows(), self.tensors, strict=True)]
        parts = [str(Table(self.summary(), rows))]
        parts += [f"share one storage: {', '.join(keys)}" for keys in self.shared]
        if self.values:
            parts.append(str(Table("plain values", [{"key": key, "value": value} for key, value in self.values.items()])))
        if self.globals:
            names = [{"name": name, "load": "refuses it" if name in self.refused else "admits it"} for name in self.globals]
            parts.append(str(Table("functions and classes that it names", names)))
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, for JSON."""
        return {
            "size": self.size,
            "stored": self.stored,
            "wasted": self.wasted,
            "tensors": [{**row, "device": t.device} for row, t in zip(self.rows(), self.tensors, strict=True)],
            "shared": self.shared,
            "values": self.values,
            "globals": self.globals,
            "refused": self.refused,
        }

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

    Works for files that `load` refuses, too: whole models, crafted files; for files from before torch 1.6, and for
    safetensors files, whose metadata are values. Raises `FileNotFoundError`, and `CheckpointError` for a file that is cut
    off, damaged or something else. Claims: SL-01, SL-10.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", model=torch.nn.Linear(3, 2), epoch=3)
    ...     inspect(f"{folder}/last.pt")
    2 tensors in 32 bytes, 1 plain value
    key           shape   dtype    bytes  storage  stored
    model.weight  (2, 3)  float32     24  0            24
    model.bias    (2,)    float32      8  1             8
    """
    with opened(path) as file:
        try:
            size = file.seek(0, os.SEEK_END)
            found = archive.structure(file)
            names = [] if found.simple else refused(file, found.names)
        except archive.Damaged as error:
            raise CheckpointError(f"{quoted(path)} cannot be inspected: {error}: take an earlier copy") from None
        except Exception as error:
            text = f"{type(error).__name__}: {first_line(error)}"
            raise CheckpointError(f"{quoted(path)} cannot be inspected: its structure is damaged: {text}") from error
    return Inspection(Path(path), found.tensors, found.values, found.names, tuple(names), size)
