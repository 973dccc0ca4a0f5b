"""Is this machine, or this room, ready for the lessons? One line for each thing they need, with the command that mends it.

What could harm or delay the doctor (torch, a DataLoader's workers, Jupyter) is tried in processes of its own under a time
limit, so it answers where `import torch` fails, hangs or crashes. Unlike other facts, these speak about one machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorlib.facts import Facts

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Check", "Doctor", "check", "names"]

GB = 2**30
LEARNER = 0.5 * GB  # a kernel with torch and torchvision, measured
PYTHONS = ((3, 11), (3, 14))
CLONE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, repr=False)
class Check(Facts):
    """One thing that lessons need: whether it is there, what was found, and the command (or advice) that mends it.

    >>> print(Check("disk", False, "0.2 GB free", "free 1 GB on this disk"))
    mend  disk                  0.2 GB free
          -> free 1 GB on this disk
    """

    name: str
    ok: bool
    found: str
    mend: str = ""

    def rows(self) -> list[dict[str, object]]:
        return [{"check": self.name, "state": "OK" if self.ok else "mend", "found": self.found, "command": self.mend or None}]

    def __str__(self) -> str:
        line = f"{'OK' if self.ok else 'mend':4}  {self.name:20}  {self.found}".rstrip()
        return f"{line}\n      -> {self.mend}" if self.mend else line


@dataclass(frozen=True, repr=False)
class Doctor(Facts):
    """All checks of one machine, in the order in which they were made.

    >>> found = Doctor((Check("Python", True, "3.13.1"), Check("torch", False, "not installed", "pip install torch")))
    >>> found.ok, found.summary()
    (False, 'not ready: 1 of 2 checks needs mending')
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(one.ok for one in self.checks)

    def summary(self) -> str:
        bad = sum(not one.ok for one in self.checks)
        if not bad:
            return "ready for all lessons"
        return f"not ready: {bad} of {len(self.checks)} checks {'needs' if bad == 1 else 'need'} mending"

    def rows(self) -> list[dict[str, object]]:
        return [row for one in self.checks for row in one.rows()]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.checks), self.summary()])

    def as_json(self) -> str:
        """`{"ok": bool, "checks": [{"check", "ok", "found", "mend"}]}`, indented."""
        checks = [{"check": one.name, "ok": one.ok, "found": one.found, "mend": one.mend} for one in self.checks]
        return json.dumps({"ok": self.ok, "checks": checks}, indent=2, ensure_ascii=False)


def check(limit: float = 60.0, progress: Callable[[Check], object] | None = None) -> Doctor:
    """Look at Python, the packages, torch, workers, shared memory, disk, memory, Jupyter and the lessons.

    `limit`: seconds that any one trial (an import, a loader with two workers) may take. `progress` is called with each
    `Check` as soon as it and those before it are finished. Never raises because of the machine; ValueError for a limit
    that is not above zero. Takes about 20 s on 2 cores, most of it for starting workers.
    """
    if not limit > 0:
        raise ValueError(f"limit is {limit!r}, expected seconds above zero")
    done: list[Check] = []
    for one in _checks(limit):
        done.append(one)
        if progress is not None:
            progress(one)
    return Doctor(tuple(done))


def names() -> tuple[str, ...]:
    """The name of each check that `check` makes on this machine, in its order.

    >>> names()[0], "torch" in names()
    ('Python', True)
    """
    return (
        *_AT_ONCE,
        *("torch", "torchvision", "JupyterLab", "widgets", "kernel"),
        *(f"workers, {method}" for method in _methods()),
    )


def _methods() -> list[str]:
    import multiprocessing

    return multiprocessing.get_all_start_methods()


def _checks(limit: float) -> Iterator[Check]:
    for name, look in _AT_ONCE.items():
        yield from _safely(name, look)
    with _Trials(limit) as trials:
        torch, pair, jupyter = trials.start(_TORCH), trials.start(_PAIR), trials.start(_JUPYTER)
        imports = torch.result()
        yield from _safely("torch", lambda: _torch(imports))
        yield from _safely("torchvision", lambda: _pair(imports, pair.result()))
        yield from _safely("Jupyter", lambda: _jupyter(jupyter.result()))
        methods = _methods()
        loads = {method: trials.start(_LOADER.format(method=method)) for method in methods} if imports.ok else {}
        for method in methods:
            yield from _safely(f"workers, {method}", partial(_workers, method, loads.get(method)))


def _safely(name: str, look: Callable[[], Check | Sequence[Check]]) -> Sequence[Check]:
    try:
        found = look()
    except Exception as error:  # the doctor must answer, whatever the machine does to it
        return [Check(name, False, f"this check itself failed: {_line(error)}", "report it to the authors of tutorlib")]
    return [found] if isinstance(found, Check) else found


# --- Python and packages -------------------------------------------------------------------------------------------------


def _python() -> Check:
    low, high = (".".join(map(str, version)) for version in PYTHONS)
    bits = 64 if sys.maxsize > 2**32 else 32
    found = f"{'.'.join(map(str, sys.version_info[:3]))}, {bits} bit"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1] and bits == 64:
        return Check("Python", True, found)
    return Check("Python", False, found, f"install a 64-bit Python {low} to {high} and set tutorlib up with it again")


def _environment() -> Check:
    kind = (
        "virtual environment"
        if sys.prefix != sys.base_prefix
        else "conda"
        if os.environ.get("CONDA_PREFIX")
        else "no virtual one"
    )
    if importlib.util.find_spec("pip") or shutil.which("uv"):
        return Check("environment", True, f"{kind}, {'pip' if importlib.util.find_spec('pip') else 'uv'} installs packages")
    return Check("environment", False, f"{kind}, neither pip nor uv", f"{_command(sys.executable, '-m', 'ensurepip')}")


def _packages() -> Check:
    from importlib import metadata  # it brings half of the standard library along: not before the first line

    needs = _requirements()
    bad = []
    for name, least in needs.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            bad.append(f"{name} is missing")
            continue
        if _numbers(version) < _numbers(least):
            bad.append(f"{name} {version} is older than {least}")
    if bad:
        return Check("packages", False, "; ".join(bad), _install())
    return Check("packages", True, f"all {len(needs)} that tutorlib asks for")


def _requirements() -> dict[str, str]:
    """Name and least version of each dependency, from the clone, else from the installed package."""
    if (CLONE / "pyproject.toml").is_file():
        import tomllib

        lines = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        from importlib import metadata

        lines = [line for line in metadata.requires("tutorlib") or [] if "extra ==" not in line]
    found = [re.match(r"\s*([\w.-]+)[^><=~;]*(?:>=\s*([\w.]+))?", line) for line in lines]
    return {match[1]: match[2] or "0" for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", version)[0]))


# --- torch, tried in processes of its own --------------------------------------------------------------------------------

_SAY = """
import json, os, sys
def say(**found):
    print("\\ndoctor:" + json.dumps(found), flush=True)
try:
{body}
except BaseException as error:
    text = [line for line in str(error).splitlines() if line.strip()] or [""]
    last = text[-1] if any("Original Traceback" in line for line in text) else type(error).__name__ + ": " + text[0]
    say(error=last, missing=getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None)
    sys.stdout.flush()
    os._exit(1)
"""
_TORCH = """
import torch
cuda = torch.cuda.is_available()
device = torch.cuda.get_device_name() if cuda else "mps" if torch.backends.mps.is_available() else None
say(version=torch.__version__, device=device, answer=int((torch.ones(3) + 1).sum()))
"""
_PAIR = """
import torch
import torchvision
boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
say(torch=torch.__version__, torchvision=torchvision.__version__, kept=kept)
"""
_LOADER = """
import multiprocessing, time, warnings
warnings.simplefilter("ignore")
from torch.utils.data import DataLoader
start = time.monotonic()
loader = DataLoader(range(8), batch_size=2, num_workers=2, multiprocessing_context="{method}")
said = [batch.tolist() for batch in loader]
say(batches=said, seconds=time.monotonic() - start, default=multiprocessing.get_start_method())
"""


@dataclass(frozen=True)
class _Answer:
    """What a trial said, or in one line why it said nothing."""

    said: dict[str, Any]
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error


def _torch(imports: _Answer) -> Check:
    if imports.ok:
        device = imports.said["device"] or "no accelerator, none is needed"
        return Check("torch", True, f"{imports.said['version']}, {device}")
    if imports.said.get("missing") == "torch":
        return Check("torch", False, "not installed", _install())
    return Check("torch", False, imports.error, _pip("--force-reinstall", "torch", "torchvision"))


def _pair(imports: _Answer, pair: _Answer) -> Check:
    """The two are built against each other: both must come from the same place, at versions that belong together."""
    again = _pip("--force-reinstall", "torch", "torchvision")
    if not imports.ok:
        return _waits("torchvision")
    if not pair.ok:
        if pair.said.get("missing") == "torchvision":
            return Check("torchvision", False, "not installed", _pip("torchvision"))
        versions = [f"{name} {version}" for name in ("torch", "torchvision") if (version := _version(name))]
        why = f"{' and '.join(versions)} do not fit together" if len(versions) == 2 else "cannot be imported"
        return Check(
            "torchvision", False, f"{why}: {pair.error}", f"{again}  (both from the same place, also the CPU-only builds)"
        )
    builds = [pair.said[name].partition("+")[2] for name in ("torch", "torchvision")]
    found = f"{pair.said['torchvision']} with torch {pair.said['torch']}"
    if builds[0] and builds[1] and builds[0] != builds[1]:
        return Check("torchvision", False, f"{found}: built for {builds[1]} and {builds[0]}", again)
    return Check("torchvision", True, found)


def _version(package: str) -> str:
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def _workers(method: str, trial: Future[_Answer] | None) -> Check:
    name = f"workers, {method}"
    if trial is None:
        return _waits(name)
    load = trial.result()
    if load.ok and load.said["batches"] == [[0, 1], [2, 3], [4, 5], [6, 7]]:
        default = ", the default here" if load.said["default"] == method else ""
        return Check(name, True, f"2 workers gave 4 batches in {load.said['seconds']:.1f} s{default}")
    found = load.error or f"2 workers gave {load.said['batches']}"
    if "shm" in found or "bus error" in found.lower() or "shared memory" in found:
        return Check(name, False, found, "give this machine more shared memory (see that check)")
    if "did not end" in found:
        return Check(name, False, found, "try `tutorlib doctor --limit 300`; if that helps, this machine is only slow")
    return Check(name, False, found, _pip("--force-reinstall", "torch", "torchvision"))


def _waits(name: str) -> Check:
    return Check(name, False, "not tried: torch cannot be imported", "mend torch first")


class _Trials:
    """Runs snippets of Python in processes of their own, two at a time, each under the limit; ends them all at the end."""

    def __init__(self, limit: float) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._limit = limit
        self._pool = ThreadPoolExecutor(2)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def __enter__(self) -> _Trials:
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        for process in list(self._running):
            _kill(process)
        self._pool.shutdown(cancel_futures=True)

    def start(self, body: str) -> Future[_Answer]:
        return self._pool.submit(self._run, _SAY.format(body="".join(f"    {line}\n" for line in body.strip().splitlines())))

    def _run(self, source: str) -> _Answer:
        if self._over:
            return _Answer({}, "not tried")
        try:
            process = subprocess.Popen(
                # -P: a file of the learner's called random.py is no part of the machine
                [sys.executable, "-P", "-W", "ignore", "-c", source],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return _Answer({}, f"no process could be started: {error}")
        self._running.add(process)
        try:
            out, err = process.communicate(timeout=self._limit)
        except subprocess.TimeoutExpired:
            return _Answer({}, f"did not end within {self._limit:g} s")
        finally:
            _kill(process)
            self._running.discard(process)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            process.wait()
        return _read(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, which is of the same session."""
    with contextlib.suppress(OSError):
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        process.kill()


def _read(code: int, out: str, err: str) -> _Answer:
    lines = [line for line in out.splitlines() if line.startswith("doctor:")]
    if lines:
        said = json.loads(lines[-1].removeprefix("doctor:"))
        return _Answer(said, said.get("error", ""))
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "it said nothing")
    if code < 0:
        with contextlib.suppress(ValueError):
            return _Answer({}, f"crashed ({signal.Signals(-code).name})")
    return _Answer({}, f"ended with exit code {code}: {last[:200]}")


# --- The machine ---------------------------------------------------------------------------------------------------------


def _shared_memory() -> Check:
    """Batches travel from workers through it; containers often have 64 MB, and then workers die with "Bus error"."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Check("shared memory", True, "no limit of its own on this system")
    free, total = shutil.disk_usage(place).free, shutil.disk_usage(place).total
    found = f"{_size(free)} free of {_size(total)}"
    if free >= 0.25 * GB:
        return Check("shared memory", True, found)
    return Check(
        "shared memory",
        False,
        f"{found}, 0.25 GB are needed",
        "mount -o remount,size=1g /dev/shm  (a container: docker run --shm-size=1g)",
    )


def _disk() -> Check:
    places = [Path.cwd(), Path(tempfile.gettempdir())]
    free, place = min((shutil.disk_usage(place).free, str(place)) for place in places)
    if free >= GB:
        return Check("disk", True, f"{_size(free)} free")
    return Check("disk", False, f"{_size(free)} free at {place}", f"free 1 GB there, or set TMPDIR to a larger disk: {place}")


def _memory() -> Check:
    total, free = _memory_sizes()
    if free is None or total is None:
        return Check("memory", True, "cannot be read here; a lesson takes up to 1.5 GB")
    room = max(0, int((free - GB) // LEARNER))
    found = f"{_size(free)} free of {_size(total)}; as a server for a room, about {room} learners"
    return Check(
        "memory", free >= 1.5 * GB, found, "" if free >= 1.5 * GB else "close other programs: a lesson takes up to 1.5 GB"
    )


def _memory_sizes() -> tuple[float | None, float | None]:
    """Total and free bytes; a container's limit counts where there is one."""
    total = free = None
    with contextlib.suppress(Exception):  # comes with Jupyter's kernel; without it Linux still answers
        import psutil

        total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    if total is None:
        with contextlib.suppress(OSError, KeyError, ValueError):
            lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
            total, free = sizes["MemTotal"], sizes["MemAvailable"]
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):
            most, now = (int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii")) for name in (limit, used))
            if total is not None and free is not None and most < total:
                total, free = most, min(free, most - now)
    return total, free


def _loopback() -> Check:
    """Jupyter's kernels and the ranks of a lesson talk over it."""
    import socket

    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2], timeout=5):
            return Check("loopback", True, "programs on this machine reach each other at 127.0.0.1")
    except OSError as error:
        return Check("loopback", False, f"no connection to 127.0.0.1: {error}", "allow local connections in the firewall")


def _fonts() -> Check:
    """Only the browser needs them, and it may run elsewhere: never a reason to be not ready."""
    if not sys.platform.startswith("linux") or not shutil.which("fc-list"):
        return Check("fonts", True, "the browser's own")
    found = subprocess.run(["fc-list", ":lang=zh", "family"], capture_output=True, text=True, timeout=10, check=False)
    if found.stdout.strip():
        return Check("fonts", True, "Chinese can be shown")
    return Check("fonts", True, "none for Chinese on this machine", "optional: apt install fonts-wqy-zenhei")


def _lessons() -> Check:
    notebooks = CLONE / "notebooks"
    counts = {
        place: len([p for p in (notebooks / place).glob(f"*.{end}") if re.match(r"\d\d_", p.name)]) for place, end in _PLACES
    }
    found = ", ".join(f"{count} in {place}" for place, count in counts.items())
    if counts["en"] and counts["zh"]:
        return Check("lessons", True, found)
    return Check("lessons", False, f"{found} of {notebooks}", "install from a clone of the repository: " + _pip("-e", "CLONE"))


_PLACES = (("en", "ipynb"), ("zh", "ipynb"))


# --- Jupyter -------------------------------------------------------------------------------------------------------------

_JUPYTER = """
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
found = dict(ipywidgets=None, jupyterlab=None, jupyterlab_widgets=None, extension=None, disabled=False, kernel=None, failed={})
for name in ("ipywidgets", "jupyterlab", "jupyterlab_widgets", "ipykernel"):
    try:
        __import__(name)
        found[name] = version(name)
    except Exception as error:
        found["failed"][name] = type(error).__name__ + ": " + str(error).partition("\\n")[0]
from jupyter_core.paths import jupyter_config_path, jupyter_path
places = [Path(p, "@jupyter-widgets", "jupyterlab-manager", "package.json") for p in jupyter_path("labextensions")]
found["extension"] = next((json.loads(p.read_text())["version"] for p in places if p.is_file()), None)
for place in jupyter_config_path():
    settings = Path(place, "labconfig", "page_config.json")
    if settings.is_file():
        disabled = json.loads(settings.read_text()).get("disabledExtensions", {})
        found["disabled"] |= bool(disabled.get("@jupyter-widgets/jupyterlab-manager")) if isinstance(disabled, dict) else False
from jupyter_client.kernelspec import KernelSpecManager
try:
    found["kernel"] = KernelSpecManager().get_kernel_spec("python3").argv[0]
except Exception as error:
    found["failed"]["kernel"] = type(error).__name__ + ": " + str(error)
say(**found)
"""


def _jupyter(answer: _Answer) -> list[Check]:
    if not answer.ok:
        command = _install() if answer.said.get("missing") else _pip("--force-reinstall", "jupyterlab", "ipywidgets")
        return [Check(name, False, answer.error, command) for name in ("JupyterLab", "widgets", "kernel")]
    return [_lab(answer.said), _widgets(answer.said), _kernel(answer.said)]


def _lab(said: dict[str, Any]) -> Check:
    if said["jupyterlab"]:
        return Check("JupyterLab", True, said["jupyterlab"])
    return Check("JupyterLab", False, said["failed"]["jupyterlab"], _pip("--force-reinstall", "jupyterlab"))


def _widgets(said: dict[str, Any]) -> Check:
    """ipywidgets 8 in the kernel belongs to the lab extension 5, which jupyterlab_widgets 3 carries."""
    python, lab, extension = said["ipywidgets"], said["jupyterlab_widgets"], said["extension"]
    again = _pip("--force-reinstall", "ipywidgets", "jupyterlab_widgets")
    if not python or not lab:
        return Check("widgets", False, said["failed"].get("ipywidgets") or said["failed"]["jupyterlab_widgets"], again)
    found = f"ipywidgets {python}, jupyterlab_widgets {lab}"
    if not extension:
        return Check("widgets", False, f"{found}, but no extension where JupyterLab looks for it", again)
    if said["disabled"]:
        command = _command(sys.executable, "-m", "jupyter", "labextension", "enable", "@jupyter-widgets/jupyterlab-manager")
        return Check("widgets", False, f"{found}, extension {extension} is disabled", command)
    if (_numbers(python)[0], _numbers(lab)[0], _numbers(extension)[0]) != (8, 3, 5):
        return Check("widgets", False, f"{found}, extension {extension}: expected 8, 3 and 5", again)
    return Check("widgets", True, f"{found}, extension {extension}")


def _kernel(said: dict[str, Any]) -> Check:
    if not said.get("ipykernel") or not said["kernel"]:
        why = said["failed"].get("ipykernel") or said["failed"]["kernel"]
        return Check("kernel", False, why, _pip("--force-reinstall", "ipykernel"))
    used = shutil.which(said["kernel"]) or said["kernel"]
    if not Path(used).is_file() or (
        Path(used).name != said["kernel"] and _environment_of(used) != _environment_of(sys.executable)
    ):
        command = _command(sys.executable, "-m", "ipykernel", "install", "--sys-prefix")
        return Check("kernel", False, f"python3 starts another Python: {said['kernel']}", command)
    return Check("kernel", True, "python3 starts this Python")


def _environment_of(python: str) -> Path:
    """Where an interpreter lives, links not followed: two virtual environments may share one binary."""
    return Path(os.path.abspath(python)).parent  # noqa: PTH100 (resolve would follow the links)


_AT_ONCE: dict[str, Callable[[], Check]] = {
    "Python": _python,
    "environment": _environment,
    "packages": _packages,
    "lessons": _lessons,
    "disk": _disk,
    "memory": _memory,
    "shared memory": _shared_memory,
    "loopback": _loopback,
    "fonts": _fonts,
}


# --- Words ---------------------------------------------------------------------------------------------------------------


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _install() -> str:
    """What brings everything: in a clone that nobody has set up, the door; else the installer of this environment."""
    if not (CLONE / "pyproject.toml").is_file():
        return _pip("tutorlib")
    if not _version("tutorlib"):
        return f"{'py' if sys.platform == 'win32' else 'python3'} -m tutorlib lab"
    return _pip("-e", str(CLONE))


def _pip(*arguments: str) -> str:
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        arguments = tuple("--reinstall" if argument == "--force-reinstall" else argument for argument in arguments)
        return _command("uv", "pip", "install", "--python", sys.executable, *arguments)
    return _command(sys.executable, "-m", "pip", "install", *arguments)


def _command(*words: str) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
