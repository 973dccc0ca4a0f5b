"""Runs a learner's code so that nothing it does can harm the kernel, and says how it ended.

Two ways, one result. On Linux (and other POSIX systems that can fork safely) the work runs in a forked child: an endless
loop, `sys.exit`, `os._exit`, a segmentation fault, megabytes of print and too much memory all stay there. Elsewhere, and
when an accelerator has been started (it does not survive a fork), the work runs in this process: an endless loop of
Python code is interrupted by a timer, `sys.exit`, `os._exit` and print are caught; a loop inside C code, a segmentation
fault and too much memory are not, and neither is any loop when the check is called outside of the main thread.
"""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import gc
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["MEMORY", "Ended", "isolated", "run"]

MEMORY = 2 * 2**30  # bytes that an answer may take on top of what the kernel already holds

Message = dict[str, Any]
Work = Callable[[Callable[[Message], None]], None]


@dataclass(frozen=True)
class Ended:
    """What the work reported, and how it ended: "done", "time" (past the limit), "exit" (with a code) or "crash"."""

    how: str
    messages: list[Message] = field(default_factory=list)
    code: int | None = None


def run(work: Work, limit: float) -> Ended:
    """Call `work(send)` under a time limit in seconds; `send` takes small dicts of JSON values.

    The work's prints are swallowed. An exception that the work lets through ends it ("exit" with code 1).
    """
    return _in_child(work, limit) if isolated() else _in_this_process(work, limit)


def isolated() -> bool:
    """Whether answers run in a child process here: fork exists, is safe on this system, and no accelerator has been started."""
    if not hasattr(os, "fork") or sys.platform == "darwin" or multiprocessing.current_process().daemon:
        return False  # macOS: the system's own libraries may crash a forked child, and a right answer would be called a crash
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return not (cuda is not None and cuda.is_initialized())


def _in_child(work: Work, limit: float) -> Ended:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(work, sender, limit))  # type: ignore[attr-defined]
    messages: list[Message] = []
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of fork beside threads; the child takes no lock of theirs (see _child)
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        sender.close()
        return _listen(process, receiver, messages, time.monotonic() + limit)
    finally:
        sender.close()
        _end_group(process)
        receiver.close()


def _listen(process: Any, receiver: Any, messages: list[Message], deadline: float) -> Ended:
    while (left := deadline - time.monotonic()) > 0:
        ready = multiprocessing.connection.wait([receiver, process.sentinel], timeout=min(left, 0.2))
        if receiver in ready:
            try:
                message = json.loads(receiver.recv_bytes())
            except EOFError:
                process.join(max(0.0, deadline - time.monotonic()))
                return _how_it_died(process, messages)
            if message == {"done": True}:
                return Ended("done", messages)
            messages.append(message)
        elif not process.is_alive() and not receiver.poll():  # its own children may hold the pipe open: no EOF comes
            return _how_it_died(process, messages)
    return Ended("time", messages)


def _how_it_died(process: Any, messages: list[Message]) -> Ended:
    if process.exitcode is None:
        return Ended("time", messages)
    return Ended("crash", messages) if process.exitcode < 0 else Ended("exit", messages, code=process.exitcode)


def _end_group(process: Any) -> None:
    """End the child and whatever it started (DataLoader workers), all of one process group."""
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.join()
    process.close()


def _child(work: Work, sender: Any, limit: float) -> None:
    os.setsid()
    code = 1
    try:
        _calm_child(limit)

        def send(message: Message) -> None:
            sender.send_bytes(json.dumps(message).encode())

        work(send)
        send({"done": True})
        code = 0
    finally:
        os._exit(code)  # nothing of the parent is flushed or finalized twice


def _calm_child(limit: float) -> None:
    gc.freeze()  # what the parent holds is never finalized here: a live DataLoader would tell its workers to stop
    signal.set_wakeup_fd(-1)  # the kernel's event loop keeps its signals to itself
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(limit) + 5)  # should the kernel be killed, the child does not stay behind
    faulthandler.disable()  # it would write a crash into the kernel's log
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (lives as long as the child)
    builtins.input = _no_input
    warnings.simplefilter("ignore")
    _limit_memory()
    _forget_forkserver()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # OpenMP's threads are not there after a fork; one thread needs none of them


def _no_input(prompt: object = "") -> str:
    raise EOFError("input() has nobody to ask while an answer is checked")


def _limit_memory() -> None:
    """Linux only: elsewhere the size of this process in address space cannot be read or limited in a like manner."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY,) * 2)


def _forget_forkserver() -> None:
    """The parent's fork server is no child of this child: waiting for it fails, so a new one starts when it is needed."""
    module = sys.modules.get("multiprocessing.forkserver")
    server = getattr(module, "_forkserver", None)
    for name in ("_forkserver_pid", "_forkserver_alive_fd", "_forkserver_address"):
        if hasattr(server, name):
            setattr(server, name, None)


class _ProcessExit(BaseException):
    def __init__(self, code: int) -> None:
        self.code = code


class _Sink(io.TextIOBase):
    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def _in_this_process(work: Work, limit: float) -> Ended:
    messages: list[Message] = []
    try:
        with _timer(limit) as fired, _caught_exits(), _silence():
            work(messages.append)
    except _ProcessExit as end:
        return Ended("exit", messages, code=end.code)
    except KeyboardInterrupt:
        if fired.is_set():
            return Ended("time", messages)
        raise  # the learner's own interrupt
    except BaseException:
        return Ended("exit", messages, code=1)
    return Ended("done", messages)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(_Sink()), contextlib.redirect_stderr(_Sink()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _timer(limit: float) -> Iterator[threading.Event]:
    """Interrupts the main thread when the limit is over, and once a second from then on, for code that catches it."""
    fired, over = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield fired  # only the main thread can be interrupted
        return

    def watch() -> None:
        pause = limit
        while not over.wait(pause):
            fired.set()
            _interrupt()
            pause = 1.0

    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # a process that a shell started in the background ignores interrupts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield fired
    finally:
        while thread.is_alive() or not over.is_set():
            with contextlib.suppress(KeyboardInterrupt):  # one that was on its way when the work ended arrives here
                over.set()
                thread.join()
                time.sleep(0)
        if not callable(before):
            signal.signal(signal.SIGINT, before)


def _interrupt() -> None:
    """A real signal: `_thread.interrupt_main` would not wake a sleep."""
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@contextlib.contextmanager
def _caught_exits() -> Iterator[None]:
    home, real, asked = os.getpid(), os._exit, builtins.input

    def leave(code: int) -> None:
        if os.getpid() != home:  # a worker that was forked from here ends by it
            real(code)
        raise _ProcessExit(code)

    os._exit, builtins.input = leave, _no_input  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit, builtins.input = real, asked  # type: ignore[assignment]
