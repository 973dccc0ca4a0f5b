"""What stands in a torch file, byte by byte: a zip directory, checksums, and a pickled structure. Nothing here builds a tensor.

A file that torch.save wrote is a zip archive: `NAME/data.pkl` holds the structure, `NAME/data/0`, `NAME/data/1`, ... the
bytes of each storage. `records` reads the directory, `verify` holds every byte of the file against it, and `structure`
reads the pickle without running anything that it names.
"""

from __future__ import annotations

import codecs
import io
import os
import pickle
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch

__all__ = ["DEPTH", "Damaged", "Record", "Structure", "TensorEntry", "records", "span", "structure", "verify"]

DEPTH = 200  # containers inside containers; also what a crafted file may ask for


class Record(NamedTuple):
    """One record of a zip file as its directory tells it: `offset` is where its own header begins."""

    name: str
    fields: tuple[int, ...]  # version needed, flags, method, time, date: those that the record's own header repeats
    crc: int
    size: int
    offset: int
    wide: bool


class Damaged(ValueError):
    """A file that is not, byte for byte, as torch.save wrote it."""


def records(file: BinaryIO) -> list[Record]:
    """The records of a zip file in the order of the file; every field of the directory is held against the others."""
    total = file.seek(0, os.SEEK_END)
    begin = max(0, total - 22 - 56 - 20)
    file.seek(begin)
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end != 22:
        raise Damaged("its end is missing")
    disk, first_disk, here, count, size, offset, comment = struct.unpack("<HHHHIIH", tail[end + 4 :])
    stop = begin + end
    if tail[end - 20 : end - 16] == b"PK\6\7" and end >= 76:
        wide, (far_disk, at, disks) = tail[end - 76 : end - 20], struct.unpack("<IQI", tail[end - 16 : end])
        stop = begin + end - 76
        rest, *versions, disk64, first64, here64, count64, size64, offset64 = struct.unpack("<QHHIIQQQQ", wide[4:])
        narrow = (min(here64, 0xFFFF), min(count64, 0xFFFF), min(size64, 0xFFFFFFFF), min(offset64, 0xFFFFFFFF))
        known = versions in ([0x031E, 45], [45, 45])
        if wide[:4] != b"PK\6\6" or not known or (rest, disk64, first64, far_disk, disks, at) != (44, 0, 0, 0, 1, stop):
            raise Damaged("its end is not as written")
        if (here, count, size, offset) != narrow:
            raise Damaged("its end contradicts itself")
        here, count, size, offset = here64, count64, size64, offset64
    if disk or first_disk or comment or here != count or offset + size != stop:
        raise Damaged("its end contradicts itself")
    file.seek(offset)
    return sorted(_entries(file.read(size), count), key=lambda record: record.offset)


def _entries(data: bytes, count: int) -> Iterator[Record]:
    at, same, names = 0, None, set()
    for _ in range(count):
        if data[at : at + 4] != b"PK\1\2" or at + 46 > len(data):
            raise Damaged("its directory is not as written")
        made, *fields, crc, packed, size, length, extra, comment, disk, inside, outside, offset = struct.unpack_from(
            "<HHHHHHIIIHHHHHII", data, at + 4
        )
        name, more = data[at + 46 : at + 46 + length], data[at + 46 + length : at + 46 + length + extra]
        wide = _extra(more, allowed=(1,)).get(1, b"")
        numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
        try:
            size = next(numbers) if size == 0xFFFFFFFF else size
            packed = next(numbers) if packed == 0xFFFFFFFF else packed
            offset = next(numbers) if offset == 0xFFFFFFFF else offset
        except StopIteration:
            raise Damaged("its directory is not as written") from None
        if len(wide) % 8 or next(numbers, None) is not None or comment or disk or name in names:
            raise Damaged("its directory contradicts itself")
        if fields[2] != 0 or packed != size:
            raise Damaged("a record is compressed, which torch never does")
        if same not in (None, (made, inside, outside)):
            raise Damaged("its directory contradicts itself")
        same = (made, inside, outside)
        names.add(name)
        yield Record(name.decode("utf-8", "replace"), tuple(fields), crc, size, offset, bool(wide))
        at += 46 + length + extra
    if at != len(data):
        raise Damaged("its directory is not as written")


def _extra(data: bytes, allowed: tuple[int, ...]) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data):
        if at + 4 > len(data):
            raise Damaged("a header is not as written")
        kind, length = struct.unpack_from("<HH", data, at)
        if kind not in allowed or kind in found or at + 4 + length > len(data):
            raise Damaged("a header is not as written")
        found[kind] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return found


_PADDING = 0x4246  # "FB", by which torch aligns its records


def _start(file: BinaryIO, record: Record) -> int:
    """Where the record's data begins, after its own header, which must agree with the directory."""
    file.seek(record.offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise Damaged(f"the header of record {record.name!r} is missing")
    *fields, crc, packed, size, length, extra = struct.unpack("<HHHHHIIIHH", header[4:])
    name, more = file.read(length), file.read(extra)
    if tuple(fields) != record.fields or name != record.name.encode("utf-8", "replace"):
        raise Damaged(f"the header of record {record.name!r} contradicts the directory")
    found = _extra(more, allowed=(1, _PADDING))
    if found.get(_PADDING, b"").strip(b"Z"):
        raise Damaged(f"the padding of record {record.name!r} is not as written")
    later = bool(record.fields[1] & 8)  # checksum and sizes stand behind the data
    allowed = [(record.crc, record.size, record.size)]
    if later:
        allowed.append((0, 0, 0))
    if 1 in found:
        allowed.append((record.crc, 0xFFFFFFFF, 0xFFFFFFFF))
    if (crc, packed, size) not in allowed:
        raise Damaged(f"the header of record {record.name!r} contradicts the directory")
    if 1 in found:  # numbers of 64 bits: beside them torch writes zeros where others write all ones
        size, offset = record.size, record.offset
        wide = [(size, size), (size, 0), (offset,), (size, size, offset), (size, 0, offset)]
        if found[1] not in [struct.pack(f"<{len(numbers)}Q", *numbers) for numbers in wide]:
            raise Damaged(f"the header of record {record.name!r} contradicts the directory")
    return record.offset + 30 + length + extra


def verify(file: BinaryIO) -> None:
    """Hold every byte of the file against the checksums, the headers and the directory that torch.save wrote."""
    found = records(file)
    if found and all(record.crc == 0 for record in found):
        raise Damaged("it was written without checksums (torch.serialization.set_crc32_options)")
    prefixes = {record.name.split("/", 1)[0] for record in found}
    if len(prefixes) != 1 or f"{next(iter(prefixes))}/data.pkl" not in {record.name for record in found}:
        raise Damaged("it is a zip file, but not one of torch")
    position, buffer = 0, bytearray(1 << 18)
    for record in found:
        if record.offset != position:
            raise Damaged(f"record {record.name!r} does not begin where the one before it ends")
        position = _start(file, record)
        crc, left = 0, record.size
        while left:
            got = file.readinto(memoryview(buffer)[: min(left, len(buffer))])  # type: ignore[attr-defined]
            if not got:
                raise Damaged(f"record {record.name!r} is cut off")
            crc, left = zlib.crc32(memoryview(buffer)[:got], crc), left - got
        if crc != record.crc:
            raise Damaged(f"the checksum of record {record.name!r} does not match")
        position += record.size
        if record.fields[1] & 8:
            wide = record.wide or record.size > 0xFFFFFFFF
            expected = b"PK\7\x08" + struct.pack("<IQQ" if wide else "<III", record.crc, record.size, record.size)
            if file.read(len(expected)) != expected:
                raise Damaged(f"what follows record {record.name!r} contradicts the directory")
            position += len(expected)
    file.seek(0, os.SEEK_END)
    tail = file.tell() - position
    file.seek(position)
    if tail < 22 or file.read(4) not in (b"PK\1\2", b"PK\6\6", b"PK\5\6"):
        raise Damaged("something lies between its records and its directory")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: its key, shape, dtype, device as saved, bytes, and the storage record that holds it."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    bytes: int
    storage: str
    storage_bytes: int
    stride: tuple[int, ...]
    offset: int


def span(tensor: TensorEntry) -> tuple[int, int]:
    if 0 in tensor.shape:
        return 0, 0
    item = tensor.bytes // max(1, _product(tensor.shape))
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    return tensor.offset * item, (tensor.offset + last + 1) * item


def _product(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


@dataclass(frozen=True)
class Structure:
    """The tensors and plain values of a file by dotted key, in the file's order, and the functions and classes it names."""

    tensors: tuple[TensorEntry, ...]
    values: Mapping[str, Any]
    names: tuple[str, ...]


def structure(file: BinaryIO) -> Structure:
    """Read the structure of a torch file: a few bytes for each tensor, whatever the size of the file.

    Raises `Damaged` and whatever a crafted pickle makes Python's unpickler raise; it cannot make it run anything.
    """
    found = {record.name.split("/", 1)[-1]: record for record in records(file)}
    if "data.pkl" not in found:
        raise Damaged("it is a zip file, but not one of torch")
    _start(file, found["data.pkl"])
    data = file.read(found["data.pkl"].size)
    reader = _Reader(io.BytesIO(data), {name: record.size for name, record in found.items()})
    tensors, values = _flatten(reader.load(), limit=100_000 + len(data))
    return Structure(tuple(tensors), values, tuple(sorted(reader.names)))


class _Global:
    """A function or class that a file names. Calling it builds a description; nothing is looked up or run."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        match self.name, args:
            case (
                ("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2"),
                (_Storage() as s, offset, size, stride, *_),
            ):
                return _View(s, s.dtype, offset, size, stride)
            case "torch._utils._rebuild_tensor_v3", (_Storage() as s, offset, size, stride, _, _, _Global() as dtype, *_):
                return _View(s, dtype.name.removeprefix("torch."), offset, size, stride)
            case "torch._utils._rebuild_meta_tensor_no_storage", (_Global() as dtype, size, stride, _):
                name = dtype.name.removeprefix("torch.")
                return _View(_Storage("", name, "meta", 0), name, 0, size, stride)
            case (("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"), (data, *_)):
                return data
            case "torch._tensor._rebuild_from_type_v2", (_Global() as function, _, tuple() as inner, _):
                return function(*inner)
            case (("collections.OrderedDict" | "collections.Counter"), (*rest,)):
                return OrderedDict(*rest)
            case "builtins.set", (list() as items,):
                return set(items)
            case "builtins.complex", (float() as real, float() as imaginary):
                return complex(real, imaginary)
            case "_codecs.encode", (str() as text, "latin1"):
                return codecs.encode(text, "latin1")
            case "builtins.bytearray", (bytes() as content, *_):
                return bytearray(content)
            case "builtins.bytearray", ():
                return bytearray()
            case "torch.Size", (tuple() as size,):
                return size
        return _Opaque(self.name, args)

    def __repr__(self) -> str:
        return self.name


class _Opaque:
    """An object that the file wants to build with something that we never call: its name and its inert contents."""

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args, self.state, self.items = name, args, None, []  # type: ignore[var-annotated]

    def __call__(self, *args: Any) -> _Opaque:
        return _Opaque(self.name, args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        self.items.append((len(self.items), item))

    def __repr__(self) -> str:
        return self.name


class _Storage(NamedTuple):
    key: str
    dtype: str
    device: str
    bytes: int


class _View(NamedTuple):
    storage: _Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Reader(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Reads the structure of a torch file: every name becomes a `_Global`, so there is nothing in it that could run.

    Python's own unpickler in Python, not the one in C: that one reserves memory for whatever memo index a file claims.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, file: BinaryIO, sizes: Mapping[str, int]) -> None:
        super().__init__(file, encoding="latin1")
        self.sizes = sizes
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        import _compat_pickle

        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        self.names.add(f"{module}.{name}")
        return _Global(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, device, _ = pid
        if kind != "storage" or f"data/{key}" not in self.sizes:
            raise pickle.UnpicklingError(f"storage {key!r} is not in the file")
        return _Storage(str(key), _DTYPES.get(storage.name.rsplit(".", 1)[-1], "uint8"), str(device), self.sizes[f"data/{key}"])

    def _new(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.append(cls(*args))

    def _new_with_names(self) -> None:
        names, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.append(cls(*args, names))

    def _extension(self) -> None:
        raise pickle.UnpicklingError("extension codes stand for objects of this process")

    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.NEWOBJ_EX[0]] = _new_with_names
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_code[0]] = _extension


_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
}


def _flatten(root: Any, limit: int) -> tuple[list[TensorEntry], dict[str, Any]]:
    """All tensors and plain values with their dotted keys, in the order of the file; a file cannot make it run on forever."""
    tensors: list[TensorEntry] = []
    values: dict[str, Any] = {}
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        limit -= 1
        key, value, depth = waiting.pop()
        if limit < 0 or depth > DEPTH:
            raise Damaged("its structure refers to itself again and again")
        children: list[tuple[Any, Any]] = []
        if isinstance(value, _View):
            tensors.append(_entry(key, value))
            continue
        if isinstance(value, OrderedDict):
            children = list(OrderedDict.items(value))
        elif isinstance(value, dict):
            children = list(value.items())
        elif isinstance(value, (list, tuple)) and not isinstance(value, _Storage):
            children = list(enumerate(value))
        elif isinstance(value, _Opaque):
            inner: dict[Any, Any] = {} if value.state is None else {"state": value.state}
            if isinstance(value.state, dict):
                inner = value.state
            children = [*((i, a) for i, a in enumerate(value.args)), *inner.items(), *value.items]
        if children:
            waiting.extend((f"{key}.{name}" if key else str(name), child, depth + 1) for name, child in reversed(children))
        else:
            values[key] = value
    return tensors, values


def _entry(key: str, view: _View) -> TensorEntry:
    size, stride = tuple(view.size), tuple(view.stride)
    numbers = [view.offset, *size, *stride]
    dtype = getattr(torch, view.dtype, None)
    if not isinstance(dtype, torch.dtype) or len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise Damaged(f"the description of {key!r} makes no sense")
    entry = TensorEntry(
        key,
        size,
        view.dtype,
        view.storage.device,
        _product(size) * dtype.itemsize,
        view.storage.key,
        view.storage.bytes,
        stride,
        view.offset,
    )
    if view.storage.key and span(entry)[1] > view.storage.bytes:
        raise Damaged(f"{key!r} reaches beyond its storage")
    return entry
