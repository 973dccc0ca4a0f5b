"""The process that kernels are forked from: `python template.py SOCKET OWNER MODULE ... -- MODULE ... -- MODULE ...`.

One connection a kernel. The client sends its standard input, output and error and a line of JSON (`argv`, `env`, `cwd`);
a line with the `pid` comes back at once, and one with the exit `code` when the kernel has ended. A client that hangs up
is gone or done, and its kernel is killed; when OWNER (a pipe) closes, all are, and the template ends.

The last modules may take long. While they are imported, a fork that has the others serves at SOCKET.early; without such
modules both names are the same socket.

A kernel is a client too: the fork server of its multiprocessing, a new Python that imports what it is told and forks workers,
comes from here as well (`code`, and descriptors with their `numbers`). What multiprocessing spawns is started as ever.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["main", "same_start"]

# What is read once, while Python or a library loads: a template stands only for processes that have the same values.
# (Matplotlib's backend can be changed afterwards, and `_as_if_new` does; TORCH_HOME is read when it is needed.)
_READ_AT_START = re.compile(
    "(PYTHON|OMP_|MKL_|OPENBLAS_|GOMP_|KMP_|TORCH(?!_HOME)|PYTORCH|CUDA|NVIDIA|LD_|MPL(?!BACKEND)|MALLOC_|LC_|LANG|VIRTUAL_ENV|ATEN_|TRITON_|HOME)"
)


def same_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that decide how Python and its libraries load.

    >>> same_start({"PYTHONHASHSEED": "0", "IPYTHONDIR": "x", "OMP_NUM_THREADS": "1"})
    {'PYTHONHASHSEED': '0', 'OMP_NUM_THREADS': '1'}
    """
    return {name: value for name, value in environment.items() if _READ_AT_START.match(name)}


class Request(NamedTuple):
    """What a client wants: a kernel with these arguments, or a process that runs `code`; where, and with which descriptors."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    streams: list[int]
    numbers: list[int]  # of the streams, in the new process
    code: str


def main(words: Sequence[str]) -> None:
    path, owner, *modules = words
    if sys.path and Path(sys.path[0]) == Path(__file__).parent:
        del sys.path[0]  # this file's folder: a kernel has its own there
    base, early, late = (group.split() for group in " ".join(modules).split("--"))
    left_out: dict[str, str] = {}
    # A module cannot be taken out of a process again. So a child imports, and if one of them has to stay out, the next does.
    while True:
        here, there = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(here)
            first, last = ([name for name in names if name not in left_out] for names in (early, late))
            _template(path, int(owner), base, first, last, left_out, there)
            return
        os.close(there)
        with os.fdopen(here) as told:
            lines = [json.loads(line) for line in told]  # of the modules that were imported, until it serves or ends
        if not lines or lines[-1][1] is None:
            _, status = os.waitpid(pid, 0)
            sys.exit(max(0, os.waitstatus_to_exitcode(status)))
        os.waitpid(pid, 0)
        name, words_of_it = lines[-1]
        left_out[name] = words_of_it or "ended the process"


# Imports --------------------------------------------------------------------------------------------------------------


def _template(
    path: str, owner: int, base: Sequence[str], early: Sequence[str], late: Sequence[str], left_out: dict[str, str], told: int
) -> None:
    before = dict(os.environ)
    gc.disable()  # no collection while everything is loaded, and what is loaded is not looked at again
    for name in base:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _import_all(early, told)
    first = Path(f"{path}.early")
    if late and not first.exists() and os.fork() == 0:
        os.close(told)
        _stand(str(first), owner, before)
        return
    _import_all(late, told)
    os.write(told, json.dumps(["", None]).encode() + b"\n")
    os.close(told)
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    about = {"modules": [*early, *late], "left_out": left_out, "threads": threads}
    Path(path).with_name("about.json").write_text(json.dumps(about), encoding="utf-8")
    with contextlib.suppress(FileExistsError):  # there it is the fork's own
        first.symlink_to(path)
    _stand(path, owner, before)


def _import_all(names: Sequence[str], told: int) -> None:
    for name in names:
        os.write(told, json.dumps([name, ""]).encode() + b"\n")
        words = _import(name)
        if words:
            os.write(told, json.dumps([name, words]).encode() + b"\n")
            os._exit(0)


def _stand(path: str, owner: int, before: Mapping[str, str]) -> None:
    """Serve, and in each process that comes of it be what was asked for."""
    gc.freeze()  # with what could be collected: to look for it takes half a second, and there is little of it
    added = {name: value for name, value in os.environ.items() if before.get(name) != value}  # by imports, as in any kernel
    request = _serve(path, owner)
    if request is not None and request.code:
        _become_server(request, added)
    elif request is not None:
        _become_kernel(request, added, path)
    else:
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()  # until all have ended
        os._exit(0)  # there is nothing to tidy up, and libraries take their time for it


def _import(name: str) -> str:
    """Import a module; what it said, for then it must say that in the notebook, or how it failed, or nothing."""
    caught: list[str] = []
    show, streams = warnings.showwarning, [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as said:
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        # Not catch_warnings: filters that a module adds must stay, as they do in a kernel.
        warnings.showwarning = lambda message, category, *_, **__: caught.append(f"{category.__name__}: {message}")
        try:
            importlib.import_module(name)
        except BaseException as error:
            caught.append(f"{type(error).__name__}: {error}")
        finally:
            warnings.showwarning = show
            sys.stdout.flush()
            sys.stderr.flush()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
        said.seek(0)
        printed = said.read().decode(errors="replace").strip()
    return caught[0] if caught else f"prints {printed.splitlines()[0]!r}" if printed else ""


# Serving --------------------------------------------------------------------------------------------------------------


class _Kernel(NamedTuple):
    pid: int
    ended: int  # a descriptor that becomes readable when the process has ended
    client: socket.socket


def _serve(path: str, owner: int) -> Request | None:
    """Fork a kernel for each request. Returns the request in the kernel, and None in the template when its owner is gone."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen(128)
    Path(f"{path}.new").rename(path)  # the name appears when all is ready
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ, "request")
    selector.register(owner, selectors.EVENT_READ, "owner")
    kernels: dict[int, _Kernel] = {}  # by either descriptor
    while True:
        for key, _ in selector.select():
            if key.data == "owner":
                for kernel in kernels.values():
                    _kill(kernel.pid)
                return None
            if key.data == "request":
                client, _ = listening.accept()
                try:
                    request = _received(client)
                except Exception:
                    client.close()
                    continue
                pid = _fork()
                if pid == 0:
                    for kernel in kernels.values():
                        kernel.client.close()
                        with contextlib.suppress(OSError):
                            os.close(kernel.ended)
                    selector.close()
                    listening.close()
                    client.close()
                    os.close(owner)
                    return request
                for stream in request.streams:
                    os.close(stream)
                kernel = _Kernel(pid, os.pidfd_open(pid), client)
                for descriptor in (kernel.ended, client.fileno()):
                    kernels[descriptor] = kernel
                    selector.register(descriptor, selectors.EVENT_READ, "kernel")
                _tell(client, {"pid": pid})
            else:
                if key.fd not in kernels:
                    continue  # told in the same round by its other descriptor
                kernel = kernels[key.fd]
                if key.fd != kernel.ended:
                    _kill(kernel.pid)  # the client hung up
                _, status = os.waitpid(kernel.pid, 0)
                _tell(kernel.client, {"code": os.waitstatus_to_exitcode(status)})
                for descriptor in (kernel.ended, kernel.client.fileno()):
                    selector.unregister(descriptor)
                    del kernels[descriptor]
                os.close(kernel.ended)
                kernel.client.close()


def _received(client: socket.socket) -> Request:
    client.settimeout(10)
    data, streams, _, _ = socket.recv_fds(client, 65536, 16)
    while not data.endswith(b"\n"):
        more = client.recv(65536)
        if not more:
            raise EOFError("the client hung up in its request")
        data += more
    client.settimeout(None)
    asked = json.loads(data)
    numbers = asked.get("numbers", [0, 1, 2])
    if len(numbers) != len(streams):
        raise ValueError(f"{len(streams)} descriptors came for {numbers}")
    return Request(asked["argv"], asked["env"], asked["cwd"], streams, numbers, asked.get("code", ""))


def _tell(client: socket.socket, facts: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # a client that is gone need not know
        client.sendall(json.dumps(facts).encode() + b"\n")


def _fork() -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on a fork beside threads warns. Those of numerical libraries know what a fork is and start anew.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _kill(pid: int) -> None:
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)
            return


# Becoming a kernel, or a fork server -----------------------------------------------------------------------------------


def _become(request: Request, added: dict[str, str]) -> None:
    """Be a new process of this client: in a session of its own, with its descriptors, environment and folder."""
    import fcntl  # not everywhere, and no system without it comes here

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    high = [fcntl.fcntl(stream, fcntl.F_DUPFD, 256) for stream in request.streams]  # out of the way of any number
    for stream in request.streams:
        os.close(stream)
    for stream, number in zip(high, request.numbers, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request.env | added)
    time.tzset()
    os.chdir(request.cwd)
    sys.argv = request.argv
    _as_if_new()
    gc.enable()


def _become_kernel(request: Request, added: dict[str, str], path: str) -> None:
    """Do what `python -m ipykernel_launcher` does, in a process that already has its modules, and nothing else from before."""
    _become(request, added)
    _fork_servers_from(path, dict(os.environ))
    try:
        from ipykernel.kernelapp import IPKernelApp

        IPKernelApp.clear_instance()
        app = IPKernelApp.instance(parent_handle=os.getppid())
        app.initialize(request.argv[1:])
        if "ipywidgets" in sys.modules:
            sys.modules["ipywidgets"]._handle_ipython()  # while it was imported there was no kernel to register with
        app.start()
    except Exception:
        traceback.print_exc()
        raise


def _become_server(request: Request, added: dict[str, str]) -> None:
    """Do what `python -c CODE` does."""
    _become(request, added)
    sys.path.insert(0, "")
    sys.modules["__main__"] = types.ModuleType("__main__")
    code = 0
    try:
        exec(request.code, sys.modules["__main__"].__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fork_servers_from(path: str, began: Mapping[str, str]) -> None:
    """In a kernel: when multiprocessing starts its fork server, a new Python for which nothing but modules counts, fork it."""
    from multiprocessing import util

    start: Any = util.spawnv_passfds
    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    kept: list[socket.socket] = []

    def spawnv_passfds(program: Any, arguments: Any, descriptors: Any) -> int:
        words, numbers = list(map(os.fsdecode, arguments)), [0, 1, 2, *sorted(map(int, descriptors))]
        usual = [sys.executable, *flags, "-c"]
        if (
            words[:-1] != usual
            or os.fsdecode(program) != sys.executable
            or not words[-1].startswith("from multiprocessing.forkserver import main")
            or same_start(os.environ) != same_start(began)
        ):
            return int(start(program, arguments, descriptors))
        asked = {"argv": ["-c"], "env": dict(os.environ), "cwd": str(Path.cwd()), "code": words[-1]}
        template = socket.socket(socket.AF_UNIX)
        ending, its_end = os.pipe()  # held by the server alone: it closes when that ends
        try:
            template.connect(path)
            template.settimeout(30)
            data = json.dumps({**asked, "numbers": [*numbers, max(numbers) + 1]}).encode() + b"\n"
            sent = socket.send_fds(template, [data], [*numbers, its_end])
            template.sendall(data[sent:])
            if not template.recv(4096):
                raise ConnectionError("the template did not answer")
            # A process can wait only for children of its own. So one stands for the server and ends when that does.
            wait = f"import os; os.read({ending}, 1)"
            pid = start(program, [program, b"-I", b"-S", b"-c", wait.encode()], [ending])
            kept.append(template)  # the template ends the server when this hangs up
            return int(pid)
        except (OSError, ValueError):
            template.close()
            return int(start(program, arguments, descriptors))
        finally:
            os.close(ending)
            os.close(its_end)

    util.spawnv_passfds = spawnv_passfds  # type: ignore[assignment]


def _as_if_new() -> None:
    """What Python and its libraries choose once, when they are loaded: a copy must choose again."""
    importlib.invalidate_caches()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.ORIGINAL_DIR = str(Path.cwd())  # type: ignore[attr-defined]
        process.current_process().authkey = os.urandom(32)  # type: ignore[attr-defined]
    # From the system, as both do when they are loaded; Python's own generator sees to it by itself.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None and os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]


if __name__ == "__main__":
    main(sys.argv[1:])
