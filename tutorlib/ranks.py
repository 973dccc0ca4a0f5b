"""Run one function on real torch.distributed ranks of this machine; under torchrun the same function runs on many machines.

    from tutorlib import ranks

    def total(values):                      # in a module, or in a cell under %%importable
        mine = torch.tensor(values[dist.get_rank()])
        dist.all_reduce(mine)
        return mine.item()

    ranks.run(total, [1, 2], world=2)       # [3, 3]: what rank 0 returned, what rank 1 returned

In a script for torchrun, the same function is called inside `with ranks.here():`.
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from tutorlib import processes

__all__ = ["Here", "RankError", "here", "run"]

_IMPORTABLE = "define it in a module, or in a cell under %%importable"
_GRACE = 0.5  # seconds in which the other ranks may say what they saw after the first failure


class RankError(RuntimeError):
    """A rank that failed. `rank` is its number, `line` the last line of its error, `logs` what each rank wrote to stderr."""

    def __init__(self, text: str, rank: int, line: str, logs: Mapping[int, str]) -> None:
        super().__init__(text)
        self.rank, self.line, self.logs = rank, line, dict(logs)


def run(
    function: Callable[..., Any],
    *args: Any,
    world: int = 2,
    limit: float = 120.0,
    start_method: str | None = None,
    **kwargs: Any,
) -> list[Any]:
    """Call `function(*args, **kwargs)` on `world` new processes that form a gloo group; each rank's result, in order.

    Within it `torch.distributed` is ready, and the variables that torchrun sets (RANK, LOCAL_RANK, WORLD_SIZE, ...) are set.
    What the ranks print comes out here afterwards, rank by rank. Function, arguments and results travel by pickle.
    `start_method`: by default the quickest that shares nothing with this process. That is forkserver with torch imported once,
    so that only the first call takes seconds; on Windows it is spawn, and each rank imports torch.

    Raises `TypeError` for a function that a new process cannot import (a lambda, one of an ordinary notebook cell), and
    `RankError`, with all ranks ended, when a rank raises, dies, or is not done within `limit` seconds.

    >>> run(torch.distributed.get_rank, world=2)
    [0, 1]
    """
    if type(world) is not int or world < 1:
        raise ValueError(f"world is {world!r}, expected the number of ranks, 1 or more")
    if not limit > 0:
        raise ValueError(f"limit is {limit!r}, expected seconds, more than 0")
    methods = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in methods:
        raise ValueError(f"start_method is {start_method!r}, expected one of {', '.join(methods)}")
    call = _packed(function, args, kwargs)
    context: Any = processes.fresh(__name__) if start_method is None else multiprocessing.get_context(start_method)
    environment = dict(os.environ)
    deadline = time.monotonic() + limit
    # Port 0 lets the system choose: the store listens before anybody is told the number, so no other program can take it.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, use_libuv=_libuv())
    with tempfile.TemporaryDirectory(prefix="tutorlib-ranks-", ignore_cleanup_errors=True) as folder:
        ranks: list[_Rank] = []
        try:
            for rank in range(world):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_main, args=(rank, world, store.port, limit, call, environment, folder, sender), name=f"rank {rank}"
                )
                with warnings.catch_warnings():
                    # From Python 3.12 on a fork beside threads is deprecated; who asks for "fork" here wants just that.
                    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
                    process.start()
                sender.close()
                ranks.append(_Rank(rank, process, receiver))
            ends = _wait(ranks, deadline)
        finally:
            _end(ranks)
            for rank in range(world):
                sys.stdout.write(_written(folder, rank, "out"))
        failure = _failure(ends, world, limit)
        if failure is not None:
            rank, text, line = failure
            raise RankError(text, rank, line, {r: _written(folder, r, "err") for r in range(world)})
    return [pickle.loads(end.content) for _, end in sorted(ends.items())]  # noqa: S301 (our own processes wrote it)


class Here(NamedTuple):
    """Where this process stands: `rank` of `world`."""

    rank: int
    world: int


@contextlib.contextmanager
def here(limit: float = 120.0) -> Iterator[Here]:
    """Within this block the process is a rank: of the group that exists, of torchrun's, or the only one of its own.

    So one script runs alone with `python script.py` and on many ranks with `torchrun --nproc-per-node=2 script.py`. A group
    that was made here is taken down again. `limit` is the group's timeout in seconds.

    >>> with here() as place:
    ...     print(place, torch.distributed.is_initialized())
    Here(rank=0, world=1) True
    """
    if dist.is_initialized():
        yield Here(dist.get_rank(), dist.get_world_size())
        return
    timeout = datetime.timedelta(seconds=limit)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo", timeout=timeout)
    else:
        with _loopback():
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    try:
        yield Here(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Gloo talks over the machine's own interface: it needs neither a network nor a host name that can be looked up."""
    name = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if name is None or "GLOO_SOCKET_IFNAME" in os.environ:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]


def _libuv() -> bool:
    """As torch's own rendezvous: its builds for Windows come without libuv, and a store that is not told so raises there."""
    return sys.platform != "win32"


# ------------------------------------------------------------------------------------------------------------ in the rank


class _End(NamedTuple):
    """How a rank ended: `how` is done, raised, unknown (the function could not be loaded) or died."""

    how: str
    moment: float
    content: Any


def _main(
    rank: int, world: int, port: int, limit: float, call: bytes, environment: dict[str, str], folder: str, answer: Any
) -> None:
    os.environ.clear()  # a process of a forkserver has what the variables were when that was started
    os.environ.update(environment)
    if hasattr(os, "setsid"):
        os.setsid()  # a group of processes of its own, so that its workers can be ended with it
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    _redirect(folder, rank)
    try:
        try:
            function, args, kwargs = pickle.loads(call)  # noqa: S301 (our own parent wrote it)
        except Exception as error:
            answer.send(_End("unknown", time.time(), _line(error)))
            return
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
        os.environ.update({name: str(value) for name, value in variables.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
        timeout = datetime.timedelta(seconds=limit)
        with _loopback():
            store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timeout, use_libuv=_libuv())
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)
        result = function(*args, **kwargs)
        try:
            content = pickle.dumps(result)
        except Exception as error:
            text = f"it returned {type(result).__name__}, which cannot be sent back: {_line(error)}"
            raise TypeError(text) from None
        sys.stdout.flush()
        answer.send(_End("done", time.time(), content))
        dist.destroy_process_group()
    except BaseException as error:
        traceback.print_exc()
        sys.stdout.flush()
        # Told before the connections to the other ranks break, so that their complaint about that comes second.
        answer.send(_End("raised", time.time(), _line(error)))


def _end_with_parent(folder: str) -> None:
    """Watch for the end of a parent that could not end its ranks itself, such as a killed kernel, and clean up for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        _kill(os.getpid())


def _redirect(folder: str, rank: int) -> None:
    """Prints go to one file; stderr and what libraries write past Python (gloo greets on stdout) to another."""
    err = os.open(Path(folder, f"{rank}.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(err, 1)
    os.dup2(err, 2)
    out = os.open(Path(folder, f"{rank}.out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout, sys.stderr = (os.fdopen(f, "w", buffering=1, encoding="utf-8", errors="backslashreplace") for f in (out, err))


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0].strip()}" if text else type(error).__name__


# ------------------------------------------------------------------------------------------------------------ in the parent


class _Rank(NamedTuple):
    number: int
    process: Any
    answer: Any


def _packed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    name = getattr(function, "__qualname__", repr(function))
    interactive = not hasattr(sys.modules["__main__"], "__file__")
    if "<lambda>" in name or "<locals>" in name or (getattr(function, "__module__", "") == "__main__" and interactive):
        raise TypeError(f"the ranks cannot import {name}: {_IMPORTABLE}")
    try:
        return pickle.dumps((function, args, kwargs))
    except Exception as error:
        raise TypeError(f"{name} and its arguments cannot be sent to the ranks: {_line(error)}: {_IMPORTABLE}") from error


def _wait(ranks: list[_Rank], deadline: float) -> dict[int, _End]:
    """Each rank's end; once one has failed, only what the others say within a moment."""
    ends: dict[int, _End] = {}
    while len(ends) < len(ranks):
        waiting = [rank for rank in ranks if rank.number not in ends]
        left = max(0.0, deadline - time.monotonic())
        ready = multiprocessing.connection.wait([rank.answer for rank in waiting], timeout=left)
        if not ready:
            break
        for rank in waiting:
            if rank.answer in ready:
                try:
                    ends[rank.number] = rank.answer.recv()
                except (EOFError, OSError):
                    rank.process.join(5)
                    ends[rank.number] = _End("died", time.time(), rank.process.exitcode)
        if any(end.how != "done" for end in ends.values()):
            deadline = min(deadline, time.monotonic() + _GRACE)
    return ends


def _failure(ends: Mapping[int, _End], world: int, limit: float) -> tuple[int, str, str] | None:
    """Which rank failed first, the text and the line; a rank that died is the cause of what the others then saw."""
    order = {"died": 0, "unknown": 1, "raised": 2}
    failed = sorted((order[end.how], end.moment, rank) for rank, end in ends.items() if end.how != "done")
    others = "" if world == 1 else "; the other rank was ended" if world == 2 else "; the other ranks were ended"
    if failed:
        rank = failed[0][2]
        how, _, content = ends[rank]
        if how == "died":
            line = _exit(content)
            return rank, f"rank {rank} of {world} died without an error of its own: {line}{others}", line
        if how == "unknown":
            return rank, f"rank {rank} of {world} cannot load the function or its arguments: {content}: {_IMPORTABLE}", content
        return rank, f"rank {rank} of {world} raised {content}{others}", content
    late = [rank for rank in range(world) if rank not in ends]
    if late:
        line = f"not done within {limit:g} s"
        who = f"rank {late[0]}" if len(late) == 1 else f"ranks {', '.join(map(str, late))}"
        return late[0], f"{who} of {world}: {line}; all ranks were ended", line
    return None


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _end(ranks: list[_Rank]) -> None:
    """No process stays behind: those that are done get a moment to leave, the others none."""
    until = time.monotonic() + _GRACE
    for rank in ranks:
        rank.answer.close()
    for rank in ranks:
        rank.process.join(max(0.0, until - time.monotonic()))
        _kill(rank.process.pid, rank.process)
        rank.process.join()
        rank.process.close()


def _kill(pid: int, process: Any = None) -> None:
    """End a rank and, where the system has process groups, all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    if process is not None:
        process.kill()
    elif not hasattr(os, "killpg"):
        os._exit(1)


def _written(folder: str, rank: int, kind: str) -> str:
    path = Path(folder, f"{rank}.{kind}")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
