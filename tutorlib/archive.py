"""What stands in a torch file, byte by byte: a zip directory, checksums, and a pickled structure. Nothing here builds a tensor.

A file that torch.save wrote is a zip archive: `NAME/data.pkl` holds the structure, `NAME/data/0`, `NAME/data/1`, ... the
bytes of each storage. `records` reads the directory, `verify` holds every byte of the file against it, and `structure`
reads the pickle without running anything that it names; it also knows a torch file from before 1.6 (one pickle, then the
storages) and a safetensors file (a header in JSON, then the tensors), of which `verify` has less to hold on to. `begin`
says where the bytes of a storage stand, `read_into` brings them to where they are wanted, and `check` checks them alone.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import mmap
import os
import pickle
import struct
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch

__all__ = [
    "DEPTH",
    "SAFE",
    "Damaged",
    "Record",
    "Storage",
    "Structure",
    "TensorEntry",
    "View",
    "begin",
    "check",
    "is_safetensors",
    "reach",
    "read_into",
    "records",
    "span",
    "structure",
    "verify",
    "views",
]

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


_UNCHECKED = "it was written without checksums (torch.serialization.set_crc32_options)"


def verify(file: BinaryIO) -> None:
    """Hold every byte of the file against the checksums, the headers and the directory that torch.save wrote.

    A safetensors file has no checksums: its header is held against the length of the file, its tensors are not verified.
    """
    if is_safetensors(file):
        _safetensors(file)
        return
    found = records(file)
    if found and all(record.crc == 0 for record in found):
        raise Damaged(_UNCHECKED)
    prefixes = {record.name.split("/", 1)[0] for record in found}
    if len(prefixes) != 1 or f"{next(iter(prefixes))}/data.pkl" not in {record.name for record in found}:
        raise Damaged("it is a zip file, but not one of torch")
    position, starts = 0, []
    for record in found:
        if record.offset != position:
            raise Damaged(f"record {record.name!r} does not begin where the one before it ends")
        starts.append(_start(file, record))
        position = starts[-1] + record.size
        if record.fields[1] & 8:
            wide = record.wide or record.size > 0xFFFFFFFF
            expected = b"PK\7\x08" + struct.pack("<IQQ" if wide else "<III", record.crc, record.size, record.size)
            file.seek(position)
            if file.read(len(expected)) != expected:
                raise Damaged(f"what follows record {record.name!r} contradicts the directory")
            position += len(expected)
    file.seek(0, os.SEEK_END)
    tail = file.tell() - position
    file.seek(position)
    if tail < 22 or file.read(4) not in (b"PK\1\2", b"PK\6\6", b"PK\5\6"):
        raise Damaged("something lies between its records and its directory")
    # Large records first, so that no thread is left alone with one at the end; the first in the file is the one named.
    order = sorted(range(len(found)), key=lambda i: -found[i].size)
    wrong = set()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:  # zlib lets other threads run meanwhile
        for i, right in zip(order, threads.map(lambda i: _right(file, starts[i], found[i]), order), strict=True):
            if not right:
                wrong.add(i)
    if wrong:
        raise Damaged(f"the checksum of record {found[min(wrong)].name!r} does not match")


def check(file: BinaryIO, record: Record) -> None:
    """Hold the bytes of one record against its checksum, whatever its size in a few hundred kB of memory."""
    if not _right(file, _start(file, record), record):
        if record.crc == 0:
            raise Damaged(_UNCHECKED)
        raise Damaged(f"the checksum of record {record.name!r} does not match")


def _right(file: BinaryIO, start: int, record: Record) -> bool:
    buffer, crc, done = memoryview(bytearray(min(record.size, 1 << 18))), 0, 0
    while done < record.size:
        part = buffer[: record.size - done]
        try:
            read_into(file, start + done, part)
        except Damaged:
            raise Damaged(f"record {record.name!r} is cut off") from None
        crc, done = zlib.crc32(part, crc), done + len(part)
    return crc == record.crc


_TURN = threading.Lock()
_MOST = 1 << 30  # bytes that every system reads in one call


def read_into(file: BinaryIO, position: int, memory: memoryview) -> None:
    """Fill the memory (bytes) from the file at a position; several threads may read one file at once.

    Raises `Damaged` when the file ends before.
    """
    done = 0
    handle = file.fileno() if hasattr(os, "preadv") and not isinstance(file, io.BytesIO) else None
    while done < len(memory):
        if handle is not None:
            got = os.preadv(handle, [memory[done : done + _MOST]], position + done)
        else:  # Windows
            with _TURN:
                file.seek(position + done)
                got = file.readinto(memory[done:])  # type: ignore[attr-defined]
        if not got:
            raise Damaged("it is cut off")
        done += got


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
    """The first byte of its storage that a tensor shows, and the one behind the last."""
    return _span(tensor.dtype, tensor.offset, tensor.shape, tensor.stride)


def _span(dtype: str, offset: int, shape: Sequence[int], stride: Sequence[int]) -> tuple[int, int]:
    if 0 in shape:
        return 0, 0
    item, last = getattr(torch, dtype).itemsize, offset
    for size, step in zip(shape, stride, strict=True):
        last += (size - 1) * step
    return offset * item, (last + 1) * item


def _product(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


class Storage(NamedTuple):
    """The bytes that tensors are views of; `key` names its record, and is empty for tensors without bytes (meta)."""

    key: str
    dtype: str
    device: str
    bytes: int


class View(NamedTuple):
    """A tensor as its file describes it: a window on a storage. `offset` and `stride` count elements."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool = False
    parameter: bool = False
    plain: bool = True  # without hooks, conjugation and the like


def reach(view: View) -> tuple[int, int]:
    """As `span`, of a view."""
    return _span(view.dtype, view.offset, view.size, view.stride)


@dataclass(frozen=True)
class Structure:
    """The tensors and plain values of a file by dotted key, in the file's order, and the functions and classes it names.

    `root` is the whole content with a `View` for each tensor. `simple` says that nothing else is in it than tensors,
    plain values and the containers of torch.save, so that the tensors can be read without torch: see `begin`.
    """

    tensors: tuple[TensorEntry, ...]
    values: Mapping[str, Any]
    names: tuple[str, ...]
    root: Any
    simple: bool
    form: str  # "zip", "legacy" (before torch 1.6) or "safetensors"
    places: Mapping[str, Record | int]  # of each storage: its record, or where it begins
    record: Record | None = None  # of the structure itself


def structure(file: BinaryIO) -> Structure:
    """Read the structure of a torch file: a few bytes for each tensor, whatever the size of the file.

    Raises `Damaged` and whatever a crafted pickle makes Python's unpickler raise; it cannot make it run anything.
    """
    file.seek(0)
    begun = file.read(len(_LEGACY))
    if begun == _LEGACY:
        return _legacy(file)
    if is_safetensors(file):
        return _safetensors(file)
    total = file.seek(0, os.SEEK_END)
    listed = records(file)
    found = {record.name.split("/", 1)[-1]: record for record in listed}
    if "data.pkl" not in found:
        raise Damaged("it is a zip file, but not one of torch")
    data = _content(file, found["data.pkl"], total)
    reader = _Reader(data, {name: record.size for name, record in found.items()})
    root = reader.load()
    tensors, values, simple = _flatten(root, limit=100_000 + len(data))
    order = _content(file, found["byteorder"], total) if "byteorder" in found else _ASSUMED.get(_load_endianness(), b"?")
    simple &= (
        reader.simple
        and reader.names <= _SIMPLE
        and data[:2] == b"\x80\2"
        and order == b"little" == sys.byteorder.encode()
        and "constants.pkl" not in found  # a TorchScript file
        and len({record.name.split("/", 1)[0] for record in listed}) == 1
        and all(record.offset + record.size <= total for record in listed)
    )
    places: dict[str, Record | int]
    places = {name.removeprefix("data/"): record for name, record in found.items() if name.startswith("data/")}
    return Structure(tensors, values, tuple(sorted(reader.names)), root, simple, "zip", places, found["data.pkl"])


def views(content: Any, key: str = "") -> Iterator[tuple[str, View]]:
    """The views of a structure's `root` by dotted key."""
    if isinstance(content, View):
        yield key, content
    elif isinstance(content, (dict, list, tuple)):
        pairs = dict.items(content) if isinstance(content, dict) else enumerate(content)
        for name, inner in pairs:
            yield from views(inner, f"{key}.{name}" if key else str(name))


def begin(file: BinaryIO, place: Record | int) -> int:
    """Where the bytes of a storage begin in the file; `place` is one of `Structure.places`."""
    return place if isinstance(place, int) else _start(file, place)


def _content(file: BinaryIO, record: Record, total: int) -> bytes:
    begin = _start(file, record)
    if record.size > total:
        raise Damaged(f"record {record.name!r} is cut off")
    file.seek(begin)
    return file.read(record.size)


_ASSUMED = {None: b"little", "LITTLE": b"little"}  # of files without the record, as torch does


def _load_endianness() -> str | None:
    return getattr(torch.serialization.get_default_load_endianness(), "name", None)


# NOTE [ A file from before torch 1.6 ]
# Four pickles (a magic number, a version, the machine's sizes, the content), a fifth with the storages' keys in the order
# of the file, then for each storage its number of elements and its bytes. It has no checksums and no directory.
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def _legacy(file: BinaryIO) -> Structure:
    total = file.seek(0, os.SEEK_END)
    with contextlib.ExitStack() as stack:
        data: Any
        if isinstance(file, io.BytesIO):
            data = file.getvalue()
        else:
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        parts, reader = [], _Reader(data, {}, at=len(_LEGACY))
        for _ in range(4):
            parts.append(reader.load())
    (_, system, root, keys), at = parts, reader.at
    if not isinstance(system, dict) or not isinstance(keys, list):
        raise Damaged("it does not begin as torch wrote before 1.6")
    tensors, values, _ = _flatten(root, limit=100_000 + at)
    sizes, places = {t.storage: t.storage_bytes for t in tensors}, {}
    for key in keys:
        if str(key) not in sizes:  # of a storage that no tensor shows
            break
        places[str(key)] = at + 8
        at += 8 + sizes[str(key)]
    if at > total:
        raise Damaged("it is cut off")
    return Structure(tensors, values, tuple(sorted(reader.names)), root, False, "legacy", places)


# NOTE [ A safetensors file ]
# Eight bytes with the length of the header, the header in JSON, the tensors without a gap. There are no checksums: what can
# be held against each other are the lengths and offsets, the shapes and dtypes, and the length of the file.
_SAFE = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
SAFE = frozenset(_SAFE.values())  # the dtypes it knows, in torch's words
_HEADER = 100_000_000  # the longest header that the format allows


def is_safetensors(file: BinaryIO) -> bool:
    """Whether the file begins as a safetensors file does, whatever its name."""
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    begun = file.read(9)
    return len(begun) == 9 and begun[8:] == b"{" and int.from_bytes(begun[:8], "little") <= min(_HEADER, total - 8)


def _safetensors(file: BinaryIO) -> Structure:
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_once)
        notes = header.pop("__metadata__", {})
        described = {key: (_SAFE[e["dtype"]], tuple(e["shape"]), *e["data_offsets"]) for key, e in header.items()}
        texts = all(isinstance(note, str) for note in notes.values())
    except Damaged:
        raise
    except KeyError as error:
        raise Damaged(f"its header speaks of {error}, which is not known") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Damaged("its header is not as safetensors writes it") from None
    numbers = [n for _, shape, *offsets in described.values() for n in (*shape, *offsets)]
    if not texts or not all(type(n) is int and n >= 0 for n in numbers) or any(len(d) != 4 for d in described.values()):
        raise Damaged("its header is not as safetensors writes it")
    places: dict[str, Record | int] = {}
    root, at = OrderedDict[str, View](), 0
    for key, (dtype, shape, start, stop) in sorted(described.items(), key=lambda item: item[1][2:]):
        if start != at or stop - start != _product(shape) * getattr(torch, dtype).itemsize:
            raise Damaged(f"the place of {key!r} contradicts its shape or the tensor before it")
        steps = tuple(_product(shape[i + 1 :]) for i in range(len(shape)))
        places[key], at = 8 + length + start, stop
        root[key] = View(Storage(key, dtype, "cpu", stop - start), dtype, 0, shape, steps)
    if 8 + length + at != total:
        raise Damaged(f"it has {total} bytes, its header speaks of {8 + length + at}")
    root = OrderedDict((key, root[key]) for key in header)  # as written, which is not always the order of the bytes
    # Names that share one tensor are stored once: safetensors' save_model notes {the other name: the stored one}.
    root.update({alias: root[key] for alias, key in notes.items() if key in described and alias not in described})
    entries = [_entry(key, view) for key, view in root.items()]
    values = {f"metadata.{name}": text for name, text in notes.items() if name not in root}
    simple = sys.byteorder == "little"
    return Structure(tuple(entries), values, (), root, simple, "safetensors", places)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damaged("its header names something twice")
    return found


class _Global:
    """A function or class that a file names. Calling it builds a description; nothing is looked up or run."""

    __slots__ = ("name", "reader")

    def __init__(self, name: str, reader: _Reader) -> None:
        self.name, self.reader = name, reader

    @property
    def dtype(self) -> str:
        return self.name.removeprefix("torch.")

    def __call__(self, *args: Any) -> Any:
        match self.name, args:
            case "torch._utils._rebuild_tensor_v2", (Storage() as s, offset, size, stride, grad, hooks, *more):
                return View(s, s.dtype, offset, size, stride, grad, False, _bare(s.dtype, grad, hooks, more))
            case "torch._utils._rebuild_parameter", (View() as view, grad, hooks):
                plain = view.plain and _bare(view.dtype, grad, hooks, ())
                return view._replace(requires_grad=grad, parameter=True, plain=plain)
            case "torch._utils._rebuild_tensor_v3", (
                Storage() as s,
                offset,
                size,
                stride,
                grad,
                hooks,
                _Global() as dtype,
                *more,
            ):
                name = dtype.name.removeprefix("torch.")
                return View(s, name, offset, size, stride, grad, False, _bare(name, grad, hooks, more))
            case (
                ("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2"),
                (Storage() as s, offset, size, stride, *_),
            ):
                return View(s, s.dtype, offset, size, stride, plain=False)
            case "torch._utils._rebuild_meta_tensor_no_storage", (_Global() as kind, size, stride, grad):
                return View(Storage("", kind.dtype, "meta", 0), kind.dtype, 0, size, stride, grad, False, False)
            case "torch._utils._rebuild_parameter_with_state", (View() as view, *_):
                return view._replace(parameter=True, plain=False)
            case "torch._tensor._rebuild_from_type_v2", (_Global() as function, _, tuple() as inner, _):
                found = function(*inner)
                return found._replace(plain=False) if isinstance(found, View) else found
            case (("collections.OrderedDict" | "collections.Counter"), ()):
                return OrderedDict()
            case (("collections.OrderedDict" | "collections.Counter"), (dict() as pairs,)):
                return OrderedDict(pairs)
            case "collections.OrderedDict", (list() as pairs,):
                return OrderedDict([(_key(key), value) for key, value in pairs])
            case "builtins.set", (list() as items,):
                return set(map(_key, items))
            case "builtins.complex", (float() as real, float() as imaginary):
                return complex(real, imaginary)
            case "_codecs.encode", (str() as text, "latin1"):
                return codecs.encode(text, "latin1")
            case "builtins.bytearray", (bytes() as content, *_):
                return bytearray(content)
            case "builtins.bytearray", ():
                return bytearray()
            case "torch.Size", (tuple() as size,) if all(type(n) is int and n >= 0 for n in size):
                return size
        self.reader.simple = False
        return _Opaque(self.name, args)

    def __repr__(self) -> str:
        return self.name


def _bare(dtype: str, grad: Any, hooks: Any, more: Sequence[Any]) -> bool:
    """Whether a tensor is as torch would take it, and has no hooks and no marks of its own, such as being conjugated."""
    wanted = type(grad) is bool and (not grad or dtype.startswith(("float", "bfloat", "complex")))
    return wanted and type(hooks) is OrderedDict and not hooks and len(more) < 2 and not any(more)


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


def _key(value: Any) -> Any:
    """What may be a key: Python hashes a tuple of tuples of tuples ... without end, until the process dies."""
    if isinstance(value, tuple):
        waiting, seen = [value], 0
        while waiting:
            inner = [item for item in waiting.pop() if isinstance(item, tuple)]
            waiting += inner
            seen += len(inner)
            if seen > 1000:
                raise Damaged("a key is a tuple of tuples without end")
    return value


class _Reader(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Reads the structure of a torch file: every name becomes a `_Global`, so there is nothing in it that could run.

    Python's own unpickler in Python, not the one in C: that one reserves memory for whatever memo index a file claims. The
    codes that torch.save writes are read in one loop, three times as fast; `simple` tells that there were no others.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: Any, sizes: Mapping[str, int], at: int = 0) -> None:
        super().__init__(io.BytesIO(), encoding="latin1")
        self.data, self.at = data, at
        self.sizes = sizes  # of the records; none: the file is of the older form and says it in the pickle
        self.names: set[str] = set()
        self.storages: dict[str, Storage] = {}
        self.simple = True

    def read(self, size: int) -> bytes:
        found = bytes(self.data[self.at : self.at + max(0, size)])
        self.at += len(found)
        return found

    def readline(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        return self.read((len(self.data) if end < 0 else end + 1) - self.at)

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def load(self) -> Any:
        self.metastack, self.stack, self.memo = [], [], {}
        data, at, memo, dispatch = self.data, self.at, self.memo, self.dispatch
        stack = self.stack
        while at < len(data):
            code = data[at]
            at += 1
            if code == 0x72:  # LONG_BINPUT
                memo[data[at] + (data[at + 1] << 8) + (data[at + 2] << 16) + (data[at + 3] << 24)] = stack[-1]
                at += 4
            elif code == 0x68:  # BINGET
                stack.append(memo[data[at]])
                at += 1
            elif code == 0x4B:  # BININT1
                stack.append(data[at])
                at += 1
            elif code == 0x58:  # BINUNICODE
                end = at + 4 + int.from_bytes(data[at : at + 4], "little")
                if end > len(data):
                    break
                stack.append(str(data[at + 4 : end], "utf-8", "surrogatepass"))
                at = end
            elif code == 0x28:  # MARK
                self.metastack.append(stack)
                stack = []
            elif code == 0x74:  # TUPLE
                items, stack = stack, self.metastack.pop()
                stack.append(tuple(items))
            elif code == 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
            elif code == 0x86:  # TUPLE2
                last = stack.pop()
                stack[-1] = (stack[-1], last)
            elif code == 0x52:  # REDUCE
                args = stack.pop()
                stack[-1] = stack[-1](*args)
            elif code == 0x51:  # BINPERSID
                stack[-1] = self.persistent_load(stack[-1])
            elif code == 0x89:  # NEWFALSE
                stack.append(False)
            elif code == 0x71:  # BINPUT
                memo[data[at]] = stack[-1]
                at += 1
            elif code == 0x6A:  # LONG_BINGET
                stack.append(memo[int.from_bytes(data[at : at + 4], "little")])
                at += 4
            elif code == 0x4D:  # BININT2
                stack.append(data[at] + 256 * data[at + 1])
                at += 2
            elif code == 0x29:  # EMPTY_TUPLE
                stack.append(())
            elif code == 0x4A:  # BININT
                stack.append(int.from_bytes(data[at : at + 4], "little", signed=True))
                at += 4
            elif code == 0x2E:  # STOP
                self.at = at
                return stack.pop()
            else:
                self.simple &= code in _CODES
                self.at, self.stack, self.append = at, stack, stack.append
                dispatch[code](self)
                at, stack = self.at, self.stack
        raise EOFError("its structure ends too early")

    def find_class(self, module: str, name: str) -> Any:
        import _compat_pickle

        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        self.names.add(f"{module}.{name}")
        return _Global(f"{module}.{name}", self)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # before torch 1.6: a class of a model, with its source
            self.simple = False
            return pid[1]
        kind, named, key, device, count, *_ = pid
        name = named.name.rsplit(".", 1)[-1]
        dtype = _DTYPES.get(name, "uint8")
        size = count * getattr(torch, dtype).itemsize
        if self.sizes:
            if kind != "storage" or f"data/{key}" not in self.sizes:
                raise pickle.UnpicklingError(f"storage {key!r} is not in the file")
            known = name in _DTYPES and len(pid) == 5 and type(key) is type(device) is str and type(count) is int
            self.simple &= known and size == self.sizes[f"data/{key}"]
            size = self.sizes[f"data/{key}"]
        found = Storage(str(key), dtype, str(device), size)
        self.simple &= self.storages.setdefault(found.key, found) == found
        return found

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is OrderedDict and type(state) is dict:
            made.__dict__.update(state)
            return
        self.simple = False
        if isinstance(made, _Opaque):
            made.state = state
        elif not isinstance(made, OrderedDict):
            raise pickle.UnpicklingError(f"{type(made).__name__} takes no state")

    def _item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([(key, value)])

    def _items(self) -> None:
        items = self.pop_mark()
        self._put(list(zip(items[::2], items[1::2], strict=True)))

    def _put(self, pairs: list[tuple[Any, Any]]) -> None:
        made = self.stack[-1]
        self.simple &= isinstance(made, dict)
        for key, value in pairs:
            made[_key(key)] = value

    def _append(self) -> None:
        item = self.stack.pop()
        self.simple &= type(self.stack[-1]) is list
        self.stack[-1].append(item)

    def _appends(self) -> None:
        items = self.pop_mark()
        self.simple &= type(self.stack[-1]) is list
        for item in items:
            self.stack[-1].append(item)

    def _members(self) -> None:
        items, made = self.pop_mark(), self.stack[-1]
        made.update(map(_key, items))

    def _frozen(self) -> None:
        self.append(frozenset(map(_key, self.pop_mark())))

    def _new(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.append(cls(*args))

    def _new_with_names(self) -> None:
        names, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.append(cls(*args, names))

    def _extension(self) -> None:
        raise pickle.UnpicklingError("extension codes stand for objects of this process")

    def _frame(self) -> None:
        self.read(8)  # a hint for reading ahead; we have all of it

    def _bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > len(self.data):  # before room is made for it
            raise EOFError("its structure ends too early")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _item
    dispatch[pickle.SETITEMS[0]] = _items
    dispatch[pickle.APPEND[0]] = _append
    dispatch[pickle.APPENDS[0]] = _appends
    dispatch[pickle.ADDITEMS[0]] = _members
    dispatch[pickle.FROZENSET[0]] = _frozen
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.NEWOBJ_EX[0]] = _new_with_names
    dispatch[pickle.FRAME[0]] = _frame
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray
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
    "UntypedStorage": "uint8",
}
_SIMPLE = {
    "collections.OrderedDict",
    "collections.Counter",
    "builtins.set",
    "builtins.complex",
    "builtins.bytearray",
    "_codecs.encode",
    "torch.Size",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch.storage.UntypedStorage",
    *(f"torch.{name}" for name in _DTYPES if name.endswith("Storage") and not name.startswith(("Q", "Untyped"))),
    *(f"torch.{dtype}" for dtype in _SAFE.values()),
}
_CODES = {
    code[0]
    for code in (
        pickle.PROTO, pickle.GLOBAL, pickle.NONE, pickle.NEWTRUE, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.SETITEM,
        pickle.SETITEMS, pickle.APPEND, pickle.APPENDS, pickle.BUILD, pickle.TUPLE3, pickle.BINFLOAT, pickle.LONG1,
    )
}  # fmt: skip


def _flatten(root: Any, limit: int) -> tuple[tuple[TensorEntry, ...], dict[str, Any], bool]:
    """All tensors and plain values with their dotted keys, in the order of the file; a file cannot make it run on forever.

    And whether torch would find nothing in it that is not a tensor or a plain value.
    """
    tensors: list[TensorEntry] = []
    values: dict[str, Any] = {}
    simple = True
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        limit -= 1
        key, value, depth = waiting.pop()
        if limit < 0 or depth > DEPTH:
            raise Damaged("its structure refers to itself again and again")
        children: list[tuple[Any, Any]] = []
        if isinstance(value, View):
            tensors.append(_entry(key, value))
            simple &= value.plain
            continue
        if isinstance(value, OrderedDict):
            children = list(OrderedDict.items(value))
        elif isinstance(value, dict):
            children = list(value.items())
        elif isinstance(value, Storage):
            simple = False
        elif isinstance(value, (list, tuple)):
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
    return tuple(tensors), values, simple


def _entry(key: str, view: View) -> TensorEntry:
    size, stride = tuple(view.size), tuple(view.stride)
    dtype = getattr(torch, view.dtype, None)
    for number in (view.offset, *size, *stride):
        if type(number) is not int or not 0 <= number < 2**63:
            dtype = None
    if not isinstance(dtype, torch.dtype) or len(size) != len(stride) or type(view.requires_grad) is not bool:
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
