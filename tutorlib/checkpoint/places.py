"""From a URI to a file of this machine: fetched once, whole, and checked on every use."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import http.client
import json
import os
import re
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch

from tutorlib.checkpoint.base import AnyPath, CheckpointError, counted, first_line, quoted
from tutorlib.facts import Facts

# What an opener may return: another URI to be taken instead, a file of this machine, or the content.
Opened = str | Path | BinaryIO
Opener = Callable[[str], Opened]

_openers: dict[str, Opener] = {}  # by prefix
_HOPS = 10  # URIs that lead to URIs
_PATIENCE = 30.0  # seconds that a server may say nothing
_RECORD = ".origin.json"


def register(prefix: str, opener: Opener, *, force: bool = False) -> None:
    """Teach `local_path` a scheme: `opener(uri)` is called for URIs that begin with `prefix`; the longest prefix wins.

    The opener returns a binary file (which goes into the cache), a `Path` of this machine, or a `str`: another URI to be
    taken instead. `http://`, `https://`, `file:` and `torchvision://` are registered already.

    Raises `ValueError` for a prefix without `scheme:`, and for one that is taken, unless forced. Claims: LC-01, PW-01.

    >>> register("doc://", lambda uri: uri.replace("doc://", "file:/weights/"), force=True)
    >>> local_path("doc://net.pth").name
    'net.pth'
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", prefix):
        raise ValueError(f"prefix is {prefix!r}, expected a scheme of two letters or more and a colon, such as 's3://'")
    if not callable(opener):
        raise TypeError(f"the opener of {prefix!r} is {type(opener).__name__}, expected a function of the URI")
    if prefix.lower() in _openers and not force:
        raise ValueError(f"{prefix!r} is registered already: choose a longer prefix, or register(..., force=True) to replace it")
    _openers[prefix.lower()] = opener


def is_uri(path: object) -> bool:
    """Whether a string is more than a path: a registered prefix, or `scheme://`. `C:\\net.pth` is a path."""
    return isinstance(path, str) and (_opener(path) is not None or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None)


def _opener(uri: str) -> Opener | None:
    fitting = [prefix for prefix in _openers if uri.lower().startswith(prefix)]
    return _openers[max(fitting, key=len)] if fitting else None


def local_path(uri: AnyPath, *, cache: AnyPath | None = None, sha256: str | None = None, alone: bool = False) -> Path:
    """The file of this machine that holds what the URI names; a path is its own answer, whether it exists or not.

    What is fetched goes into `cache` (`torch.hub`'s folder `checkpoints` unless told otherwise): whole or not at all, and
    its hash is checked on every use, against `sha256` (64 hex digits), the hash in its name (`net-0123abcd.pth`, torch.hub's
    convention) and the sha256 recorded beside it when it was fetched. A name without a hash gets a mark of its URI, so that
    `net.pth` of two servers are two files.

    Where `torch.distributed` is ready, all ranks must call it: rank 0 goes first, then local rank 0 of each other machine,
    then the rest, who find the file in the cache; if one fails, all are told. `alone=True`: only this process.

    Raises `CheckpointError`: unreachable or refused, cut off, another hash (then nothing is kept), a cached file that was
    changed, an unknown scheme. The text says where a file can be put by hand. Claims: LC-02, LC-11, LC-12, PW-01, PW-06, PW-07.

    >>> local_path("weights/net.pth").as_posix()
    'weights/net.pth'
    >>> local_path("file:///weights/net.pth").name
    'net.pth'
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 is {sha256!r}, expected 64 hex digits")
    wanted = sha256.lower() if sha256 else None
    if not is_uri(uri):
        path = Path(uri)
        if wanted and path.is_file():
            _check(path, [_Wanted(wanted, "asked for")], "take another copy")
        return path
    folder = Path(cache) if cache is not None else Path(torch.hub.get_dir(), "checkpoints")

    def work() -> Path:
        return _located(os.fspath(cast(str, uri)), folder, wanted)

    return work() if alone else _in_turn(work)


# ----------------------------------------------------------------------------------------------------- one after the other


class _Told(NamedTuple):
    """How a rank's turn ended, for all ranks."""

    rank: int
    error: str


def _in_turn(work: Callable[[], Path]) -> Path:
    """Call `work` on every rank, those that fetch before those that will find it; one failure is everybody's.

    NOTE [ Turns ] Nothing is assumed about disks. Rank 0 fetches. On the same disk all others find the file; on another
    machine its local rank 0 fetches once more, and its neighbours find that.
    """
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return work()
    rank = dist.get_rank()
    mine = 0 if rank == 0 else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    found: Path | None = None
    for turn in range(3):
        told = _Told(rank, "")
        if turn == mine:
            try:
                found = work()
            except Exception as error:
                text = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {first_line(error)}"
                told = _Told(rank, text or type(error).__name__)
        everybody: list[Any] = [None] * dist.get_world_size()
        try:
            dist.all_gather_object(everybody, told)
        except RuntimeError as error:
            raise CheckpointError(f"a rank ended while the others waited for the file: {first_line(error)}") from error
        failed = [one for one in everybody if one.error]
        if failed:
            raise CheckpointError(f"rank {failed[0].rank} of {len(everybody)}: {failed[0].error}")
    assert found is not None
    return found


# ----------------------------------------------------------------------------------------------------- from a URI to a file


class _Wanted(NamedTuple):
    """What a file's sha256 must begin with, and how we know; an empty text is not known."""

    sha256: str
    why: str


def _located(uri: str, folder: Path, sha256: str | None) -> Path:
    """Follow the openers to a file; what the cache holds is not asked for again."""
    asked = uri
    for _ in range(_HOPS):
        opener = _opener(uri)
        if opener is None and is_uri(uri):
            known = ", ".join(sorted({f"{prefix.partition(':')[0]}:" for prefix in _openers}))
            raise CheckpointError(
                f"{shown(uri)!r} has a scheme that nobody registered: known are {known}; "
                "checkpoint.register(prefix, opener) adds one"
            )
        if opener is not None and opener is not _file:
            cached = _cached(uri, folder, sha256)
            if cached is not None:
                return cached
        answer = Path(uri) if opener is None else _asked(opener, uri, folder / cache_name(uri, sha256))
        if isinstance(answer, Path):
            if sha256 and answer.is_file():
                _check(answer, [_Wanted(sha256, "asked for")], "take another copy")
            return answer
        if not isinstance(answer, str):
            return _fetched(uri, answer, folder, sha256)
        uri = answer
    raise CheckpointError(f"{shown(asked)!r} leads from URI to URI more than {_HOPS} times")


def _asked(opener: Opener, uri: str, path: Path) -> Opened:
    with _reaching(uri, f"without a network, put the file at {quoted(path)} yourself"):
        answer = opener(uri)
    if not isinstance(answer, (str, Path)) and not hasattr(answer, "read"):
        kind = type(answer).__name__
        raise CheckpointError(f"the opener of {shown(uri)!r} returned {kind}, expected a str, a Path or a binary file")
    return answer


@contextlib.contextmanager
def _reaching(uri: str, way_out: str) -> Iterator[None]:
    """What goes wrong on the way to the source, as one line with the way out."""
    try:
        yield
    except CheckpointError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        text = f"the server answers {error.code} {error.reason}"
        raise CheckpointError(f"cannot fetch {shown(uri)!r}: {text}: is the address right? {_capital(way_out)}") from error
    except (ConnectionError, TimeoutError, http.client.IncompleteRead) as error:
        raise CheckpointError(f"{shown(uri)!r} broke off: {type(error).__name__}; {way_out}") from error
    except Exception as error:
        reason = getattr(error, "reason", error)  # URLError wraps the system's own
        text = (getattr(reason, "strerror", "") or first_line(reason)) if isinstance(reason, Exception) else str(reason)
        raise CheckpointError(f"cannot fetch {shown(uri)!r}: {text or type(error).__name__}; {way_out}") from error


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def shown(uri: str) -> str:
    """A URI for texts and records: without passwords and tokens."""
    parts = urllib.parse.urlsplit(uri)
    if not parts.netloc:
        return uri
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


# ----------------------------------------------------------------------------------------------------- the cache


def cache_name(uri: str, sha256: str | None = None) -> str:
    """The file's name in the cache: told by its content where the hash is known, else marked with its URI.

    >>> cache_name("https://host/resnet18-f37072fd.pth"), cache_name("https://host/net.pth")
    ('resnet18-f37072fd.pth', 'net.uri-b6f98f4a.pth')
    """
    path = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    name = re.sub(r'[\x00-\x1f<>:"|?*\\]', "_", path.rstrip("/").rpartition("/")[2]).lstrip(".") or "file"
    if _hash_in(name) and (not sha256 or sha256.startswith(_hash_in(name))):
        return name
    stem, suffix = Path(name).stem, Path(name).suffix
    mark = f"-{sha256[:16]}" if sha256 else f".uri-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
    return f"{stem}{mark}{suffix or '.pt'}"


def _hash_in(name: str) -> str:
    """The hash in `name-<8 or more hex digits>.ext`, torch.hub's convention; fewer digits are no hash."""
    found = re.search(r"-([a-f0-9]{8,64})\.", name)
    return found[1] if found and ".uri-" not in name else ""


def _wanted(name: str, sha256: str | None, record: Mapping[str, Any]) -> list[_Wanted]:
    known = _Wanted(record.get("sha256", ""), "recorded when it was fetched")
    # Eight digits may be a date: who gives the sha256 knows better than the name.
    return [_Wanted(sha256, "asked for") if sha256 else _Wanted(_hash_in(name), "in its name"), known]


def _cached(uri: str, folder: Path, sha256: str | None) -> Path | None:
    """The cache's file for the URI, checked; None where it has none."""
    path = folder / cache_name(uri, sha256)
    if not path.exists():
        return None
    record = _recorded(path)
    digest = _check(path, _wanted(path.name, sha256, record), f"remove it, and {shown(uri)} is fetched again")
    if not record:  # put there by hand or by torch: from now on its content is known
        _record(path, uri, digest, path.stat().st_size)
    return path


def _check(path: Path, wanted: Sequence[_Wanted], way_out: str) -> str:
    digest = digest_of(path)
    for sha256, why in wanted:
        if not digest.startswith(sha256):
            found = f"its sha256 is {_cut(digest, sha256)}, {why} is {_cut(sha256, sha256)}"
            raise CheckpointError(f"{quoted(path)} is another file than expected: {found}; {way_out}")
    return digest


def _cut(digest: str, like: str) -> str:
    return digest[: len(like)] if len(like) <= 16 else f"{digest[:16]}..."


def digest_of(path: AnyPath) -> str:
    """The sha256 of a file, as 64 hex digits."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {quoted(path)}: {error.strerror or error}") from error


def _recorded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.with_name(path.name + _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(found, dict) and re.fullmatch(r"[0-9a-f]{64}", str(found.get("sha256")))
    return found if whole else {}


def _record(path: Path, uri: str, digest: str, size: int) -> None:
    """Beside the file, in one step; a cache that others filled and that cannot be written goes without."""
    record = path.with_name(path.name + _RECORD)
    fresh = _beside(record)
    with contextlib.suppress(OSError):
        fresh.write_text(json.dumps({"uri": shown(uri), "sha256": digest, "bytes": size}) + "\n", encoding="utf-8")
        fresh.replace(record)
    with contextlib.suppress(OSError):
        fresh.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _fetched(uri: str, source: BinaryIO, folder: Path, sha256: str | None) -> Path:
    """What the source gives, in the cache: beside its goal first, checked, then renamed. An error leaves nothing behind."""
    path = folder / cache_name(uri, sha256)
    fresh = _beside(path)
    digest, size, due = hashlib.sha256(), 0, _length(source)
    try:
        with contextlib.closing(source):
            folder.mkdir(parents=True, exist_ok=True)
            with fresh.open("xb") as file:
                while chunk := _more(source, uri, path):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                if due is not None and size != due:
                    raise CheckpointError(f"{shown(uri)!r} broke off after {size} of {due} bytes; nothing was kept: try again")
                file.flush()
                os.fsync(file.fileno())
        for expected, why in _wanted(path.name, sha256, {}):
            if not digest.hexdigest().startswith(expected):
                found = f"their sha256 is {_cut(digest.hexdigest(), expected)}, {why} is {_cut(expected, expected)}"
                raise CheckpointError(f"{shown(uri)!r} gave other bytes: {found}; nothing was kept: {_doubt(why)}")
        # The record first: a file without one would be taken as put there by hand.
        _record(path, uri, digest.hexdigest(), size)
        fresh.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {quoted(path)}: {error.strerror or error}; nothing was kept: give cache=... where there is room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    return path


def _doubt(why: str) -> str:
    return "ask who serves the file" + ("; if that is no hash but a date, give sha256=..." if why == "in its name" else "")


def _more(source: BinaryIO, uri: str, path: Path) -> bytes:
    with _reaching(uri, f"nothing was kept: try again, or put the file at {quoted(path)} yourself"):
        return source.read(1 << 20)


def _length(source: Any) -> int | None:
    """How many bytes the source promised: without this, the half of a file looks like a whole one."""
    headers = getattr(source, "headers", None)
    text = headers.get("Content-Length") if headers is not None else None
    return int(text) if text and text.isdigit() else None


@dataclass(frozen=True, repr=False)
class Cached(Facts):
    """What a cache folder holds: one row for each file. `origins` says where each came from, as far as it was recorded."""

    folder: Path
    files: tuple[tuple[str, int, str, bool | None], ...]
    origins: Mapping[str, str]

    def summary(self) -> str:
        bad = sum(1 for file in self.files if file[3] is False)
        unknown = sum(1 for file in self.files if file[3] is None)
        text = f"{counted(len(self.files), 'file')} in the cache, {bad} changed"
        return f"{text}, {unknown} without a hash to check" if unknown else text

    def rows(self) -> list[dict[str, object]]:
        return [{"file": name, "bytes": size, "hash": known, "as fetched": sound} for name, size, known, sound in self.files]

    def bars(self) -> dict[str, object]:
        notes = {True: "", False: "not the file that was fetched", None: "no hash to check"}
        return {"unit": "bytes", "bars": [{"name": f[0], "value": f[1], "note": notes[f[3]]} for f in self.files]}


def cached(folder: AnyPath | None = None) -> Cached:
    """Check every file of a cache folder (`torch.hub`'s folder `checkpoints` unless given) against the hash that is known.

    `as fetched` is yes, no, or - where neither the name nor a record tells the hash. Claims: PW-06, PW-07.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "net-2cf24dba.pth").write_bytes(b"hello")
    ...     _ = Path(folder, "other.pth").write_bytes(b"hello")
    ...     cached(folder)
    2 files in the cache, 0 changed, 1 without a hash to check
    file              bytes  hash         as fetched
    net-2cf24dba.pth      5  in its name  yes
    other.pth             5  -            -
    """
    where = Path(folder) if folder is not None else Path(torch.hub.get_dir(), "checkpoints")
    files, origins = [], {}
    entries = sorted(where.iterdir()) if where.is_dir() else []
    for path in entries:
        if not path.is_file() or path.name.startswith(".") or path.name.endswith(_RECORD):
            continue
        record = _recorded(path)
        wanted = [one.sha256 for one in _wanted(path.name, None, record) if one.sha256]
        digest = digest_of(path) if wanted else ""
        known = "recorded" if record else "in its name" if wanted else "-"
        sound = all(digest.startswith(one) for one in wanted) if wanted else None
        files.append((path.name, path.stat().st_size, known, sound))
        if record:
            origins[path.name] = str(record.get("uri", ""))
    return Cached(where, tuple(files), origins)


# ----------------------------------------------------------------------------------------------------- the schemes


def _file(uri: str) -> Path:
    parts = urllib.parse.urlsplit(uri)
    if parts.netloc not in ("", "localhost") and os.name != "nt":
        raise CheckpointError(f"{uri!r} names a file of the machine {parts.netloc!r}, expected file:///path of this one")
    host = f"//{parts.netloc}" if parts.netloc not in ("", "localhost") else ""
    return Path(urllib.request.url2pathname(host + parts.path))


def _http(uri: str) -> BinaryIO:
    request = urllib.request.Request(uri, headers={"User-Agent": "tutorlib"})
    local = urllib.parse.urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
    # A proxy of the network cannot reach this machine's own servers.
    handlers = [urllib.request.ProxyHandler({})] if local else []
    return cast(BinaryIO, urllib.request.build_opener(*handlers).open(request, timeout=_PATIENCE))


def _torchvision(uri: str) -> str:
    """`torchvision://resnet18` are its default weights; `torchvision://resnet18/IMAGENET1K_V1` are those."""
    from torchvision import models  # seconds to import, so only here

    name, _, which = uri.partition("://")[2].strip("/").partition("/")
    try:
        weights = models.get_model_weights(name)
    except ValueError:
        near = difflib.get_close_matches(name, models.list_models(), 3)
        raise CheckpointError(
            f"torchvision has no model {name!r}" + (f": did you mean {', '.join(near)}?" if near else "")
        ) from None
    names = [*weights.__members__]
    if which and which not in names:
        raise CheckpointError(f"{name} has no weights {which!r}: there are {', '.join(names) or 'none'}")
    if not which and "DEFAULT" not in names:
        raise CheckpointError(f"torchvision has no weights for {name}")
    return str(weights[which or "DEFAULT"].url)


for _prefix, _built_in in (("file:", _file), ("http://", _http), ("https://", _http), ("torchvision://", _torchvision)):
    register(_prefix, _built_in)
