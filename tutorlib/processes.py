"""New processes that know nothing of this one, started as quickly as the system allows."""

from __future__ import annotations

import multiprocessing
from typing import Any

__all__ = ["fresh"]


def fresh(*modules: str) -> Any:
    """A multiprocessing context whose processes begin without anything of this one, and with `modules` imported once for all.

    It is forkserver where the system has it: the server imports the modules when the first process is started, which for
    torch takes seconds, and each process is a fork of that server, a matter of milliseconds. Elsewhere (Windows) it is spawn,
    and each process imports for itself. Modules that the program itself has chosen by `set_forkserver_preload` stay chosen, and
    a server that runs is used as it is. Source: PL-02.

    A process of a server has the environment variables of the moment in which the server was started.

    >>> fresh("json").get_start_method() in ("forkserver", "spawn")
    True
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver  # not everywhere

    server = getattr(forkserver, "_forkserver", None)  # what was chosen is told nowhere else
    if getattr(server, "_preload_modules", None) == ["__main__"] and getattr(server, "_forkserver_pid", None) is None:
        multiprocessing.set_forkserver_preload(list(modules))
    return multiprocessing.get_context("forkserver")
