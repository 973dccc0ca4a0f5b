"""torch.distributed.checkpoint, held to our rules: names that are never used twice, checksums, and nothing unpickled blindly.

Imported where it is used: it loads what torch itself loads only on demand.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo, _StoragePrefix
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan
from torch.futures import Future

from tutorlib.checkpoint.base import CheckpointError, first_line
from tutorlib.checkpoint.places import digest_of

METADATA = ".metadata"

# ----------------------------------------------------------------------------------------------------- writing

Commit = Callable[[bytes, Mapping[str, Mapping[str, Any]]], None]


class Writer(FileSystemWriter):
    """Writes `NUMBER__RANK_FILE.distcp`, tells the coordinator each file's sha256, and leaves the commit to `commit`.

    `commit` gets the content of `.metadata` and, by file, the rank that wrote it, its bytes and its sha256.
    """

    def __init__(self, path: Path, goal: str, number: int, commit: Commit) -> None:
        super().__init__(path)
        self.goal, self.number, self.commit = goal, number, commit

    def reset(self, checkpoint_id: Any = None) -> None:
        """Torch would draw another name for the save."""

    def storage_meta(self) -> StorageMeta:
        # A name, not a Path: pickled paths of Linux cannot be read on Windows.
        return StorageMeta(checkpoint_id=self.goal, save_id=str(self.number))

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        if not Path(self.path).is_dir():
            raise CheckpointError("it does not see the folder that rank 0 made: all ranks need the same disk")
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        for rank, plan in enumerate(plans):
            object.__setattr__(plan, "storage_data", _StoragePrefix(f"{self.number}__{rank}_"))
        return plans

    def write_data(self, plan: Any, planner: Any) -> Future[list[Any]]:
        future = super().write_data(plan, planner)
        results = future.value()
        digests = {name: digest_of(Path(self.path, name)) for name in {one.storage_data.relative_path for one in results}}
        for one in results:
            object.__setattr__(one, "digest", digests[one.storage_data.relative_path])
        return future

    def finish(self, metadata: Metadata, results: list[list[Any]]) -> None:
        """On the coordinator, once every rank has written all of its bytes to the disk."""
        from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION

        written = [(rank, one) for rank, many in enumerate(results) for one in many]
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {one.index: one.storage_data for _, one in written}
        metadata.storage_meta = self.storage_meta()
        files = {one.storage_data.relative_path: {"rank": rank, "sha256": one.digest} for rank, one in written}
        for name, file in files.items():
            file["bytes"] = Path(self.path, name).stat().st_size
        self.commit(pickle.dumps(metadata), files)


# ----------------------------------------------------------------------------------------------------- reading


class Reader(FileSystemReader):
    """Reads what a metadata says that was read by `read_metadata`; it opens no `.metadata` itself."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.metadata = metadata

    def read_metadata(self) -> Metadata:  # type: ignore[override]  # without **kwargs, so that torch tries no other file
        return self.metadata


class Planner(DefaultLoadPlanner):
    """Torch's own, but for one argument: it unpickles plain values with weights_only=False."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)  # our keys are flat already

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        try:
            self.original_state_dict[name] = torch.load(value, map_location="cpu", weights_only=True)
        except Exception as error:
            names = _refused(value)
            if names:
                raise CheckpointError(f"{name} asks for {', '.join(names)}, which load_sharded never runs") from None
            raise CheckpointError(f"{name} cannot be read: {first_line(error)}") from error


def _refused(value: io.BytesIO) -> list[str]:
    try:
        value.seek(0)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(value))  # type: ignore[arg-type]
    except Exception:
        return []


# ----------------------------------------------------------------------------------------------------- untrusted metadata

# NOTE [ Untrusted metadata ]
# `.metadata` is a pickle, and torch unpickles it with no restriction: it can run anything. Here only names in this table are
# known, and each stands for an inert object of ours that holds what it was given: no class, no function of torch's or
# Python's is ever called by the file. What came out is then checked and built anew from plain values: names of files that
# stay in the folder, pieces that lie within their tensor, cover it, and are no larger than their bytes in the file. So a
# crafted file can lie about values, as any file can, but it can run nothing, read no other file, and leave no gap.

_KNOWN = {
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "TensorProperties"),
    ("torch.distributed.checkpoint.metadata", "StorageMeta"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
}


_MOST_PIECES = 20_000  # of one tensor: more ranks than that have not been seen


class _Inert:
    """Stands for an object that a pickle names: it keeps arguments and state, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        one = super().__new__(cls)
        one.args, one.state = args, {}  # type: ignore[attr-defined]
        return one

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Every known name becomes a class of this one load; torch's dtypes are themselves."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.classes: dict[str, type] = {}
        self.refused: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return self.classes.setdefault(name, type(name, (_Inert,), {}))
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        self.refused.append(f"{module}.{name}")
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id")


class _Wrong(Exception):
    """What is not as torch writes it."""


def read_metadata(folder: Path, content: bytes) -> Metadata:
    """The metadata in `content`, built from plain values alone; see NOTE [ Untrusted metadata ].

    Raises `CheckpointError`: a name that is not known (it is told), or anything that torch would not have written.
    """
    unpickler = _Unpickler(io.BytesIO(content))
    try:
        _measured(content)
        return _metadata(unpickler.load(), folder)
    except Exception as error:
        if unpickler.refused:
            names = ", ".join(unpickler.refused)
            raise CheckpointError(
                f"its {METADATA} asks for {names}, which is never run here: it was not written by torch.distributed.checkpoint"
            ) from None
        reason = str(error) if isinstance(error, _Wrong) else f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"its {METADATA} is damaged or not as torch writes it: {reason}") from None


def _measured(content: bytes) -> None:
    """Refuse what would take memory out of all proportion: Python's unpickler makes a table as long as a file says."""
    for code, argument, _ in pickletools.genops(content):  # which itself refuses texts that are longer than the file
        if "PUT" in code.name and int(argument or 0) > len(content):
            raise _Wrong(f"it numbers {argument} objects in {len(content)} bytes")


def _fields(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, _Inert) or type(value).__name__ != name or not isinstance(value.state, dict):  # type: ignore[attr-defined]
        raise _Wrong(f"{type(value).__name__} where {name} belongs")
    return value.state  # type: ignore[attr-defined]


def _plain(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise _Wrong(f"{what} is {type(value).__name__}")
    return value


def _sizes(value: Any, what: str) -> torch.Size:
    if isinstance(value, _Inert) and type(value).__name__ == "Size":
        value = value.args[0] if value.args else ()  # type: ignore[attr-defined]
    numbers = [_plain(number, int, what) for number in _plain(value, (tuple, list), what)]
    if len(numbers) > 64 or any(not 0 <= number < 1 << 62 for number in numbers):
        raise _Wrong(f"{what} is {tuple(numbers[:4])}...")
    return torch.Size(numbers)


def _metadata(value: Any, folder: Path) -> Metadata:
    found = _fields(value, "Metadata")
    storage = {}
    for index, info in _plain(found.get("storage_data"), dict, "storage_data").items():
        where, at = _fields(index, "MetadataIndex"), _fields(info, "_StorageInfo")
        fqn = _plain(where.get("fqn"), str, "a key")
        offset = None if where.get("offset") is None else _sizes(where["offset"], f"the offset of {fqn}")
        storage[MetadataIndex(fqn, offset, where.get("index") and _plain(where["index"], int, "an index"))] = _info(
            at, fqn, folder
        )
    entries = {}
    for key, entry in _plain(found.get("state_dict_metadata"), dict, "state_dict_metadata").items():
        entries[_plain(key, str, "a key")] = _entry(key, entry, storage)
    paths = {}
    for key, path in _plain(found.get("planner_data") or {}, dict, "planner_data").items():
        steps = _plain(path, tuple, f"the path of {key}")
        if key not in entries or not steps or any(type(step) not in (str, int) for step in steps):
            raise _Wrong(f"the path of {key!r}")
        if any(type(step) is int and not 0 <= step < len(entries) for step in steps):
            raise _Wrong(f"the path of {key!r} leads to place {max(s for s in steps if type(s) is int)} of a list")
        paths[key] = steps
    for key in entries:
        paths.setdefault(key, (key,))
    meta = found.get("storage_meta")
    save_id = _fields(meta, "StorageMeta").get("save_id") if meta is not None else None
    return Metadata(entries, paths, storage, StorageMeta(save_id=save_id if isinstance(save_id, str) else None))


def _info(at: Mapping[str, Any], fqn: str, folder: Path) -> _StorageInfo:
    name = _plain(at.get("relative_path"), str, f"the file of {fqn}")
    if not re.fullmatch(r"[0-9A-Za-z_][0-9A-Za-z_.-]*", name):
        raise _Wrong(f"{fqn} lies in {name!r}, which is no file of this folder")
    if at.get("transform_descriptors"):
        raise _Wrong(f"{fqn} was written through an extension of torch's, which is not known here")
    offset, length = (_plain(at.get(what), int, f"the {what} of {fqn}") for what in ("offset", "length"))
    path = folder / name
    if not path.is_file() or path.is_symlink():
        raise _Wrong(f"there is no {name}, where {fqn} lies")
    if offset < 0 or length < 0 or offset + length > path.stat().st_size:
        raise _Wrong(f"{fqn} lies beyond the end of {name}: it is cut off")
    return _StorageInfo(name, offset, length)


def _entry(key: str, entry: Any, storage: Mapping[MetadataIndex, _StorageInfo]) -> TensorStorageMetadata | BytesStorageMetadata:
    if type(entry).__name__ == "BytesStorageMetadata" and isinstance(entry, _Inert):
        if MetadataIndex(key) not in storage:
            raise _Wrong(f"{key} lies in no file")
        return BytesStorageMetadata()
    found = _fields(entry, "TensorStorageMetadata")
    properties = found.get("properties")
    state = getattr(properties, "state", None)
    if type(properties).__name__ != "TensorProperties" or not isinstance(state, tuple) or len(state) not in (5, 6):
        raise _Wrong(f"the properties of {key}")
    dtype, layout = state[0], state[1]
    if not isinstance(dtype, torch.dtype) or getattr(layout, "args", None) != ("torch.strided",):
        raise _Wrong(f"the dtype or layout of {key}")
    size = _sizes(found.get("size"), f"the size of {key}")
    chunks = []
    for chunk in _plain(found.get("chunks"), list, f"the pieces of {key}"):
        at = _fields(chunk, "ChunkStorageMetadata")
        chunks.append(ChunkStorageMetadata(_sizes(at.get("offsets"), key), _sizes(at.get("sizes"), key)))
    _covered(key, size, chunks, dtype, storage)
    return TensorStorageMetadata(TensorProperties(dtype), size, chunks)


def _covered(
    key: str,
    size: torch.Size,
    chunks: Sequence[ChunkStorageMetadata],
    dtype: torch.dtype,
    storage: Mapping[MetadataIndex, _StorageInfo],
) -> None:
    """The pieces lie within the tensor, apart from each other, fill it, and are as many bytes as their file has of them."""
    filled = 0
    open_: list[ChunkStorageMetadata] = []  # pieces that reach beyond the row where this one begins
    if len(chunks) > _MOST_PIECES:
        raise _Wrong(f"{key} is in {len(chunks)} pieces")
    for chunk in sorted(chunks, key=lambda chunk: tuple(chunk.offsets)):
        low, wide = chunk.offsets, chunk.sizes
        if len(low) != len(size) or len(wide) != len(size) or any(a + n > s for a, n, s in zip(low, wide, size, strict=True)):
            raise _Wrong(f"a piece of {key} lies outside of it")
        info = storage.get(MetadataIndex(key, low))
        if info is None:
            raise _Wrong(f"a piece of {key} lies in no file")
        if math.prod(wide) * dtype.itemsize > info.length:
            raise _Wrong(f"a piece of {key} is larger than its bytes in {info.relative_path}")
        open_ = [other for other in open_ if size and other.offsets[0] + other.sizes[0] > low[0]]
        for other in open_:
            apart = (b + m <= a or a + n <= b for a, n, b, m in zip(low, wide, other.offsets, other.sizes, strict=True))
            if math.prod(wide) and math.prod(other.sizes) and not any(apart):
                raise _Wrong(f"two pieces of {key} overlap")
        open_.append(chunk)
        filled += math.prod(wide)
    if filled != math.prod(size):
        raise _Wrong(f"pieces of {key} are missing: {filled} of {math.prod(size)} numbers")
