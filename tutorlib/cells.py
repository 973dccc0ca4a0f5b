"""A notebook cell becomes an importable module, so that workers started by spawn or forkserver find its classes.

A class defined in an ordinary cell lives in `__main__`, and a worker that is not forked has another `__main__`.
Load the extension once, then name the cell:

    %load_ext tutorlib.cells

    %%importable squares
    class Squares:
        def __len__(self):
            return 4
        def __getitem__(self, index):
            return index * index

After that `Squares` can be used in the notebook as usual and by the workers of every start method.
"""

from __future__ import annotations

import atexit
import importlib.util
import keyword
import linecache
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import MutableMapping
from importlib.machinery import PathFinder
from pathlib import Path

__all__ = ["CellError", "define", "load_ipython_extension", "unload_ipython_extension"]


class CellError(ValueError):
    """A cell that cannot become a module; nothing was replaced. In a notebook it is shown as one `UsageError` line."""


def define(name: str, source: str, namespace: MutableMapping[str, object]) -> types.ModuleType:
    """Make `source` the importable module `name` and put its public names into `namespace`; again to redefine it.

    The module is a file in a temporary folder of this process, which stands on `sys.path` (multiprocessing hands that
    path to its children) and is removed at exit. Public names are those of `__all__`, or all without a leading
    underscore; names that an earlier definition made and that are gone leave the namespace. What it only imported stays,
    for the notebook may have imported the same.

    Raises `CellError`, with nothing replaced, for a name that is no identifier or would hide an installed module, and
    for a source that does not compile or does not run. Claims: PL-04, PL-06.

    >>> names = {}
    >>> module = define("doc_squares", "class Square:\\n    side = 3\\n", names)
    >>> names["Square"].__module__, names["Square"].side
    ('doc_squares', 3)
    >>> define("json", "", names)
    Traceback (most recent call last):
    tutorlib.cells.CellError: 'json' is already a module of Python's standard library: choose another name
    """
    _check_name(name)
    path = _folder() / f"{name}.py"
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise CellError(
            f"{name}: syntax error{line}: {message}: a module holds plain Python only; nothing was replaced"
        ) from None

    before = sys.modules.get(name)
    module = _run(name, path, code, source)
    _write(path, source)
    old = _public(before) if before is not None else {}
    for gone in old.keys() - _public(module).keys():
        if namespace.get(gone) is old[gone] and not _imported(old[gone], name):
            del namespace[gone]
    namespace.update(_public(module))
    return module


def load_ipython_extension(shell) -> None:
    """Called by `%load_ext tutorlib.cells`: adds the cell magic `%%importable NAME`."""
    from IPython.core.error import UsageError

    def importable(line: str, cell: str) -> None:
        """Make this cell the importable module NAME:  %%importable NAME"""
        names = line.split()
        if len(names) != 1:
            raise UsageError(f"%%importable needs one name for the module, found {len(names)}: for example %%importable my_data")
        try:
            define(names[0], cell, shell.user_ns)
        except CellError as error:
            raise UsageError(f"%%importable {error}") from error.__cause__

    shell.register_magic_function(importable, magic_kind="cell", magic_name="importable")


def unload_ipython_extension(shell) -> None:
    """Called by `%unload_ext tutorlib.cells`: removes the magic, the modules that it made and their folder."""
    shell.magics_manager.magics["cell"].pop("importable", None)
    _remove()


# NOTE [ One folder for each process ]
# A forked worker inherits this state; it must neither write into its parent's folder nor remove it, so the owner's pid
# is part of the state and of the folder's name, and only the owner cleans up. A Jupyter kernel that has started a spawn
# worker is killed at its shutdown (Python's resource tracker ignores the polite signal), and then no exit function runs:
# the next process that needs a folder removes those of dead owners.
_PREFIX = "tutorlib-cells-"
_place: tuple[int, Path] | None = None


def _folder() -> Path:
    global _place
    if _place is None or _place[0] != os.getpid() or not _place[1].is_dir():
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
            if _dead(folder.name.removeprefix(_PREFIX).split("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)
        _place = (os.getpid(), Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")))
        sys.path.insert(0, str(_place[1]))
        atexit.register(_remove)
    return _place[1]


def _remove() -> None:
    global _place
    if _place is None or _place[0] != os.getpid():
        return
    folder = _place[1]
    _place = None
    for name in [n for n, module in sys.modules.items() if _inside(module, folder)]:
        del sys.modules[name]
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _dead(pid: str) -> bool:
    if os.name != "posix" or not pid.isdecimal():  # on Windows the question itself, os.kill, would end the process
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _inside(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).parent == folder


def _check_name(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CellError(f"{name!r} cannot be imported, it is no Python name: use letters, digits and _, for example my_data")
    if name in sys.stdlib_module_names or name in ("__main__", "__mp_main__"):
        raise CellError(f"{name!r} is already a module of Python's standard library: choose another name")
    folder = _folder()
    loaded = sys.modules.get(name)
    elsewhere = [entry for entry in sys.path if Path(entry) != folder]
    if (loaded is not None and not _inside(loaded, folder)) or PathFinder.find_spec(name, elsewhere) is not None:
        raise CellError(f"{name!r} is already an installed module, which the cell would hide: choose another name")


def _run(name: str, path: Path, code: types.CodeType, source: str) -> types.ModuleType:
    """Execute in a fresh module; what failed leaves the earlier module, its file and its source lines in place."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    key = str(path)
    before, lines = sys.modules.get(name), linecache.cache.get(key)
    sys.modules[name] = module  # dataclasses and pickle look their class up there while the cell runs
    linecache.cache[key] = (len(source), None, source.splitlines(keepends=True), key)
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if lines is None:
            linecache.cache.pop(key, None)
        else:
            linecache.cache[key] = lines
        if not isinstance(error, Exception):
            raise
        where = "".join(f" in line {number}" for number in _lines(error, key)[-1:])
        advice = ": a module sees only what it imports or defines itself" if isinstance(error, NameError) else ""
        raise CellError(f"{name}: {type(error).__name__}{where}: {error}{advice}; nothing was replaced") from error
    return module


def _lines(error: BaseException, file: str) -> list[int]:
    found, frame = [], error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == file:
            found.append(frame.tb_lineno)
        frame = frame.tb_next
    return found


def _write(path: Path, source: str) -> None:
    """Replace the file in one step, with a time stamp that no earlier version had.

    A worker trusts compiled code when the source's size and its time in whole seconds are unchanged: two runs of an
    edited cell within one second would otherwise give workers the old definition.
    """
    stamp = int(time.time())
    if path.exists():
        stamp = max(stamp, int(path.stat().st_mtime) + 1)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(source, encoding="utf-8", newline="\n")
    os.utime(fresh, (stamp, stamp))
    fresh.replace(path)
    importlib.invalidate_caches()


def _imported(thing: object, module: str) -> bool:
    if isinstance(thing, (type, types.FunctionType, types.BuiltinFunctionType)):
        return thing.__module__ != module
    return isinstance(thing, types.ModuleType)


def _public(module: types.ModuleType) -> dict[str, object]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    return {name: getattr(module, name) for name in names}
