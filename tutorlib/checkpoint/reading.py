"""From a file back: verified, safe, or only looked at."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tutorlib import archive
from tutorlib.checkpoint.base import AnyPath, CheckpointError, counted, first_line, quoted
from tutorlib.facts import Facts


def load(path: AnyPath, *, map_location: Any = "cpu", verify: bool = True) -> Any:
    """Read a checkpoint back as the dictionary that was saved: verified first, and nothing in it is ever run.

    All tensors come to `map_location` (the CPU unless told otherwise), so a file saved on a GPU loads anywhere. Always
    `weights_only`, whatever the environment says. `verify` holds every byte against the checksums in the file; torch
    does not look at them. A file that holds something else than a dictionary gives that.

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
    if Path(path).is_dir():
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
    # One open file for the check and for the reading: what was verified is what is read, even if the name is replaced.
    with opened(path) as file:
        if verify:
            if file.read(4) != b"PK\3\4":
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
            file.seek(0)
        return _unpickle(path, file, map_location)


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


def refused(file: BinaryIO) -> list[str]:
    """The functions and classes that the file names and that torch does not admit."""
    try:
        file.seek(0)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))  # type: ignore[arg-type]
    except Exception:  # an older form of file, or none at all
        return []


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
        except archive.Damaged as error:
            raise CheckpointError(f"{quoted(path)} cannot be inspected: {error}") from None
        except Exception as error:
            text = f"{type(error).__name__}: {first_line(error)}"
            raise CheckpointError(f"{quoted(path)} cannot be inspected: its structure is damaged: {text}") from error
        names = refused(file)
    return Inspection(Path(path), found.tensors, found.values, found.names, tuple(names), size)
