"""Kernels that start in a moment: forked from one process that has already imported what notebooks import.

Starting a kernel and importing torch and torchvision costs seconds, and a suite of notebooks pays it for each. Here one
*template* process imports once (`tutorlib.warm.template`); every kernel is a fork of it (`tutorlib.warm.provisioner`, a
kernel provisioner of jupyter_client), and a fork is a process of its own: what one notebook does to its modules, seeds,
environment, folder or threads, the next one never sees. The fork server of a kernel's multiprocessing is forked from it too.

    with warm.Template(["torch", "torchvision"]) as template:
        template.use()                 # kernels that this process starts from now on are forks
        ...

Where a process cannot be forked safely (`why_not`), and whenever the template does not answer, kernels start as ever.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["BASE", "SOCKET", "Imports", "Template", "WarmError", "imports", "soonest", "why_not"]

SOCKET = "TUTORLIB_WARM"  # the variable that tells child processes (pytest's workers) where the template listens
PATIENCE = 180.0  # seconds: a busy machine needs long for its imports
# What every kernel loads while it starts, and when it shows an error.
BASE = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "matplotlib_inline.config",
    "tornado.platform.asyncio",
    "sqlite3",
    "psutil",
    "stack_data.formatting",
    "pygments.formatters.terminal256",
    "pygments.lexers.python",
    "pygments.styles.default",
)
# Libraries that import a large part of themselves when it is first used, by words of the code that uses it.
_AT_FIRST_USE = {
    r"tutorlib\.widgets|import.*\bwidgets\b": ("ipywidgets",),
    r"\boptim\b|torchvision|fake_tensor|torch\.compile\(|torch\.(export|onnx)\b|\.to_onnx\(": ("torch._dynamo",),
    r"torch\.compile\(": ("torch._inductor.compile_fx",),
    r"torch\.(export|onnx)\b|\.to_onnx\(": ("torch._functorch.aot_autograd",),
    r"torch\.onnx\b|\.to_onnx\(": ("torch.onnx._internal.exporter._compat", "onnx.reference", "onnxscript"),
}
_SLOW = "torch._dynamo"  # takes longer than all of torch; notebooks that can do without it need not wait for it
_SCRIPT = str(Path(__file__).with_name("template.py"))  # by path: kernels find modules where they would find them anyway


class WarmError(RuntimeError):
    """The template could not start; kernels can still start as ever."""


def why_not() -> str:
    """Why kernels cannot be forked here, or nothing if they can.

    Linux only: macOS forbids most of its libraries after a fork, Windows has none.

    >>> isinstance(why_not(), str)
    True
    """
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return "fork is safe on Linux only"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return "this Linux has no pidfd_open (5.3)"
    if find_spec("ipykernel") is None or find_spec("jupyter_client") is None:
        return "ipykernel or jupyter_client is not installed"
    return ""


class Imports(NamedTuple):
    """Modules that notebooks import: `early`, and `late` those that are wanted only together with what takes long."""

    early: tuple[str, ...]
    late: tuple[str, ...]


def imports(notebooks: Iterable[str | os.PathLike[str]]) -> Imports:
    """The installed modules that code cells of these notebooks import at their top level, those of most notebooks first.

    And what a few libraries import by themselves when they are first used. Of what is late, nothing is imported for only one
    of several notebooks: the others would wait. What cannot be read or is no Python counts as importing nothing; modules
    beside a notebook are left out, for each notebook must find its own.

    >>> imports([])
    Imports(early=(), late=())
    """
    found = [_wanted(Path(path)) for path in notebooks]
    counts = Counter(name for wanted in found for name in wanted)
    soon = {name for wanted in found if _SLOW not in wanted for name in wanted}
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    late = [name for name in ranked if name not in soon and (counts[name] > 1 or len(found) == 1)]
    return Imports(tuple(filter(_installed, [n for n in ranked if n in soon])), tuple(filter(_installed, late)))


def soonest(socket: str, notebook: str | os.PathLike[str]) -> str:
    """The name of a template's socket that serves a notebook as soon as what it imports is there.

    >>> soonest("/tmp/socket", "no/such.ipynb")
    '/tmp/socket.early'
    """
    return socket if _SLOW in _wanted(Path(notebook)) else f"{socket}.early"


def _wanted(path: Path) -> set[str]:
    found: set[str] = set()
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError):
        return found
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = "".join(cell.get("source", ""))
            found |= _imported(source)
            found |= {name for words, names in _AT_FIRST_USE.items() if re.search(words, source) for name in names}
    beside = {entry.stem for entry in path.parent.iterdir()}
    return {name for name in found if name.split(".")[0] not in beside}


def _imported(source: str) -> set[str]:
    lines = [line for line in source.split("\n") if not line.lstrip().startswith(("%", "!"))]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return set()
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _installed(name: str) -> bool:
    """Whether the name is a module here: `torch.nn` is, `torch.Tensor` is not; nothing but packages' folders is imported."""
    package, _, rest = name.partition(".")
    if package in sys.builtin_module_names or package == "__main__":
        return False
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    if spec is None or not rest:
        return spec is not None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest.split("."))
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            return True
    return False


class Template:
    """The process from which kernels are forked; it ends when this object is closed, or with the process that made it.

    `modules` are imported in it, in this order, after `BASE`; one that is missing or fails is left out, and one that says
    something while it is imported (a warning, a line) is left out too, so that it says that again in each notebook.
    `late` come after them, and while they do, a fork of it serves kernels that can do without (see `soonest`).
    `environment` (as now, if not given) decides how libraries load: kernels with other values start as ever.
    Starting does not wait: `wait()` does, and so does the first kernel.

    Errors: `WarmError` from `wait()`, with what the process said, and when `why_not()` has a reason.
    """

    def __init__(
        self, modules: Sequence[str] = (), environment: Mapping[str, str] | None = None, late: Sequence[str] = ()
    ) -> None:
        reason = why_not()
        if reason:
            raise WarmError(f"kernels cannot be forked: {reason}")
        self.environment = dict(os.environ if environment is None else environment)
        self.folder = Path(tempfile.mkdtemp(prefix="tutorlib-warm-"))  # mode 700: who may connect may run code
        self.socket = self.folder / "socket"
        self._before: str | None = None
        self._used = False
        reading, self._owner = os.pipe()  # the template sees its end when this process is gone, however it goes
        try:
            with (self.folder / "said").open("w") as said:
                self.process = subprocess.Popen(
                    [sys.executable, _SCRIPT, str(self.socket), str(reading), *BASE, "--", *modules, "--", *late],
                    env=self.environment,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    pass_fds=(reading,),
                    start_new_session=True,  # Ctrl-C in a terminal is for this process, which ends the template
                )
        except BaseException:
            os.close(self._owner)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            os.close(reading)
        (self.folder / "pid").write_text(str(self.process.pid))
        from tutorlib.warm.template import same_start  # not everywhere

        (self.folder / "start.json").write_text(json.dumps([sys.executable, same_start(self.environment)]), encoding="utf-8")

    def wait(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until it is ready; what it says of itself: `modules`, `left_out` with reasons, `threads`."""
        end = time.monotonic() + patience
        while not self.socket.exists():
            code = self.process.poll()
            if code is not None or time.monotonic() > end:
                said = (self.folder / "said").read_text(errors="replace").strip().splitlines()
                state = "did not get ready" if code is None else f"ended with code {code}"
                raise WarmError(f"the process that kernels are forked from {state}: {said[-1] if said else 'it said nothing'}")
            time.sleep(0.02)
        return dict(json.loads((self.folder / "about.json").read_text(encoding="utf-8")))

    def use(self) -> None:
        """From now on jupyter_client in this process, and in child processes, forks its Python kernels from here."""
        self._before, self._used = os.environ.get(SOCKET), True
        os.environ[SOCKET] = str(self.socket)
        install()

    def close(self) -> None:
        """End the template and every kernel that was forked from it."""
        if self._used:
            self._used = False
            if self._before is None:
                os.environ.pop(SOCKET, None)
            else:
                os.environ[SOCKET] = self._before
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Template:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def install() -> None:
    """Make the provisioner the default of this process's kernels; where there is no template it starts them as ever."""
    from importlib.metadata import EntryPoint

    from jupyter_client.provisioning.factory import KernelProvisionerFactory

    factory = KernelProvisionerFactory.instance()
    name, group = "tutorlib-warm", KernelProvisionerFactory.GROUP_NAME
    factory.provisioners[name] = EntryPoint(name, "tutorlib.warm.provisioner:WarmProvisioner", group)
    factory.default_provisioner_name = name
