"""How jupyter_client gets a kernel from the template: by a fork where it can, as ever where it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner

from tutorlib.warm import PATIENCE, SOCKET
from tutorlib.warm.template import same_start

__all__ = ["WarmProvisioner"]


class Forked:
    """What LocalProvisioner uses of subprocess.Popen, for a process that is the template's child and not ours."""

    stdin = stdout = stderr = None

    def __init__(self, template: socket.socket) -> None:
        self._template = template
        self._said = b""
        self.returncode: int | None = None
        self.pid = int(self._next(None)["pid"])

    def _next(self, patience: float | None) -> dict[str, Any]:
        """The template's next line; TimeoutError when none comes in time, ConnectionError when it is gone."""
        end = None if patience is None else time.monotonic() + patience
        while b"\n" not in self._said:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self._template], [], [], left)[0]:
                raise TimeoutError
            data = self._template.recv(4096)
            if not data:
                raise ConnectionError("the template ended")
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return dict(json.loads(line))

    def _wait(self, patience: float | None) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = int(self._next(patience)["code"])
            except TimeoutError:
                return None
            except OSError:
                self.returncode = -int(signal.SIGKILL)  # with the template its kernels end
            self._template.close()
        return self.returncode

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("kernel", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmProvisioner(LocalProvisioner):
    """Forks Python kernels of this interpreter from the template that `TUTORLIB_WARM` names; all others start as ever."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        forked = _forked(list(cmd), kwargs)
        if forked is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = forked  # type: ignore[assignment]
        self.pid = self.pgid = forked.pid
        self.cwd = kwargs.get("cwd")
        await self._listening(forked)
        return self.connection_info

    async def _listening(self, kernel: Forked, patience: float = 10.0) -> None:
        """Until the kernel hears: a client that came too early tries again a tenth of a second later."""
        where = self.connection_info.get("ip"), self.connection_info.get("shell_port")
        end = time.monotonic() + patience
        while all(where) and self.connection_info.get("transport") == "tcp" and time.monotonic() < end and kernel.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(where, timeout=1):
                return
            await asyncio.sleep(0.005)

    async def kill(self, restart: bool = False) -> None:
        await super().kill(restart)
        end = time.monotonic() + 1.0
        while await self.poll() is None and time.monotonic() < end:
            await asyncio.sleep(0.002)  # the manager, which is next, looks ten times a second


def _forked(command: list[str], settings: dict[str, Any]) -> Forked | None:
    """The kernel, or None where a fork would not be the same as a start."""
    path = os.environ.get(SOCKET, "")
    arguments = _arguments(command)
    if not path or arguments is None or subprocess.PIPE in (settings.get("stdout"), settings.get("stderr")):
        return None
    environment = {k: v for k, v in dict(settings.get("env") or os.environ).items() if k != SOCKET}
    if not _ready(Path(path), environment):
        return None
    asked = {"argv": arguments, "env": environment, "cwd": str(Path(settings.get("cwd") or ".").resolve())}
    with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123 (a descriptor is wanted)
        streams = [nowhere.fileno(), *(_descriptor(settings.get(name), nowhere, n) for n, name in ((1, "stdout"), (2, "stderr")))]
        template = socket.socket(socket.AF_UNIX)
        try:
            template.connect(path)
            data = json.dumps(asked).encode() + b"\n"
            sent = socket.send_fds(template, [data], streams)
            template.sendall(data[sent:])
            return Forked(template)
        except (OSError, ValueError, KeyError):
            template.close()
            return None


def _arguments(command: list[str]) -> list[str] | None:
    """The kernel's own arguments, if the command is `this python -m ipykernel_launcher ...`."""
    if len(command) < 3 or not Path(command[0]).is_absolute() or Path(command[0]) != Path(sys.executable):
        return None
    flags = [word for word in command[1:-1] if word != "-Xfrozen_modules=off"]  # for debuggers only: it changes no result
    if flags[:2] != ["-m", "ipykernel_launcher"]:
        return None
    spec = find_spec("ipykernel_launcher")
    return [str(spec.origin if spec else ""), *flags[2:], command[-1]]


def _ready(path: Path, environment: dict[str, str]) -> bool:
    """Whether the template is there, and was started as this kernel wants to be."""
    try:
        began = json.loads(path.with_name("start.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if began != [sys.executable, same_start(environment)]:
        return False
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end or not path.parent.exists() or not _alive(path.with_name("pid")):
            return False
        time.sleep(0.02)
    return True


def _alive(file: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(file.read_text()), 0)
        return True
    return False


def _descriptor(stream: Any, nowhere: Any, usual: int) -> int:
    if stream is None:
        return usual
    if stream == subprocess.DEVNULL:
        return int(nowhere.fileno())
    return stream if isinstance(stream, int) else int(stream.fileno())
