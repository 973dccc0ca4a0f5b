"""Lesson 25: where the cache keeps a file, and whether it is what its name says."""

from __future__ import annotations

import hashlib
import random
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tutorlib.exercises import Ask, Exercise, Wrong

# --- cache_file ----------------------------------------------------------------------------------------------------------


def _cache_law(cache_file: Any, ask: Ask) -> None:
    hosts = [
        "https://host/net.pth",
        "https://host/a/b/net-0123abcd.pth",
        "file:///disk/net.pth",
        "http://127.0.0.1:8000/x/net.pth",
    ]
    for address, tail in ask.cases(16, hosts, ["", "?download=true", "?from=a/b", "#weights"]):
        expected = Path("cache", urlparse(address + tail).path.rpartition("/")[2])
        ask(cache_file, address + tail, "cache", then=lambda found: Path(found).as_posix()).gives(expected.as_posix())


def _last_part(address: str, folder: Any) -> Path:
    return Path(folder, address.rpartition("/")[2])


def _cut_at_the_mark(address: str, folder: Any) -> Path:
    return Path(folder, address.partition("?")[0].rpartition("/")[2])


def _whole_path(address: str, folder: Any) -> Path:
    return Path(folder, urlparse(address).path.lstrip("/"))


cache_file = Exercise(
    "25_cache_file",
    _cache_law,
    wrong=[
        Wrong(
            _last_part,
            "What follows the question mark is no part of the file's name, and it may hold a slash of its own.",
            "问号后面的内容不是文件名的一部分，而且里面可能有斜杠。",
        ),
        Wrong(
            _cut_at_the_mark,
            "A question mark is not the only end of a path: an address may go on with #.",
            "路径的结尾不只是问号：地址后面还可能跟着 #。",
        ),
        Wrong(
            _whole_path,
            "The folders before the name are not kept: only the base name counts. That is why files of one name collide.",
            "名字前面的文件夹不保留：只算基本名。同名文件正因此相撞。",
        ),
    ],
    hints=[
        (
            "First cut the address into its parts, then take the last part of its path.",
            "先把地址拆成几部分，再取路径的最后一段。",
        ),
        (
            "`urllib.parse.urlparse(address).path` is the path alone.",
            "`urllib.parse.urlparse(address).path` 就是单独的路径。",
        ),
    ],
)

# --- as_named ------------------------------------------------------------------------------------------------------------


def _content(draw: random.Random) -> bytes:
    return bytes(draw.randrange(256) for _ in range(draw.randint(0, 40)))


def _named_law(as_named: Any, ask: Ask) -> None:
    digests = {
        "net-{:.8}.pth": True,
        "net-{:.16}.pth": True,
        "net-{}.pth": True,
        "my-net-{:.8}.tar": True,
        "net-00000000.pth": False,
        "net.pth": None,
        "net-{:.7}.pth": None,
        "net-large.pth": None,
        "{:.8}.pth": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        for form, content in ask.cases(40, list(digests), _content):
            digest = hashlib.sha256(content).hexdigest()
            path = Path(folder, form.format(digest))
            path.write_bytes(content)
            expected = digests[form]
            case = f"as_named({path.name[:30]!r}), of {len(content)} bytes whose SHA-256 is {digest[:8]}..."
            ask(as_named, path, case=case).gives(expected)
            path.unlink()


def _pattern(least: int) -> re.Pattern[str]:
    return re.compile(rf"-([0-9a-f]{{{least},}})\.")


def _digest(path: Any) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _whole_digest(path: Any) -> bool | None:
    found = _pattern(8).search(Path(path).name)
    return None if found is None else _digest(path) == found[1]


def _nothing_is_fine(path: Any) -> bool | None:
    found = _pattern(8).search(Path(path).name)
    return True if found is None else _digest(path).startswith(found[1])


def _any_length(path: Any) -> bool | None:
    found = _pattern(1).search(Path(path).name)
    return None if found is None else _digest(path).startswith(found[1])


def _anywhere(path: Any) -> bool | None:
    found = re.search(r"([0-9a-f]{8,})\.", Path(path).name)
    return None if found is None else _digest(path).startswith(found[1])


def _md5(path: Any) -> bool | None:
    found = _pattern(8).search(Path(path).name)
    return None if found is None else hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest().startswith(found[1])


as_named = Exercise(
    "25_as_named",
    _named_law,
    wrong=[
        Wrong(
            _whole_digest,
            "The name holds only the beginning of the hash: compare with startswith.",
            "名字里只有哈希值的开头：请用 startswith 比较。",
        ),
        Wrong(
            _nothing_is_fine,
            "A name without a hash says nothing about the file: that is None, not True.",
            "没有哈希值的名字说明不了什么：应返回 None，不是 True。",
        ),
        Wrong(
            _any_length,
            "Fewer than 8 characters are no hash.",
            "不到 8 个字符不算哈希值。",
        ),
        Wrong(
            _anywhere,
            "The hash stands behind a hyphen: a name of nothing but hex characters has none.",
            "哈希值在连字符后面：整个名字都是十六进制字符时并没有哈希值。",
        ),
        Wrong(
            _md5,
            "That is MD5. torch's names hold the beginning of the SHA-256.",
            "这是 MD5。torch 的文件名里是 SHA-256 的开头。",
        ),
    ],
    hints=[
        (
            "Two steps: find the hash in the name, then compare it with the file's.",
            "两步：先在名字里找出哈希值，再与文件的哈希值比较。",
        ),
        (
            r"`re.search(r'-([0-9a-f]{8,})\.', name)` finds it, or gives None.",
            r"`re.search(r'-([0-9a-f]{8,})\.', name)` 找到它，或给出 None。",
        ),
        (
            "`hashlib.sha256(path.read_bytes()).hexdigest().startswith(...)`.",
            "比较：`hashlib.sha256(path.read_bytes()).hexdigest().startswith(...)`。",
        ),
    ],
)
