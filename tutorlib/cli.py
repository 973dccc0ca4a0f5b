"""The door's inside: parses a command, calls one function, prints its facts, and says by the exit code how it went.

Nothing beyond the standard library is imported before a command needs it, so that `tutorlib --help` is there at once,
`tutorlib doctor` speaks where `import torch` fails, and a wrong argument is refused before anything is set up.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from .workcopy import Made

__all__ = ["BAD_INPUT", "FAILED", "NOT_READY", "OK", "Stop", "main", "parser"]

OK, FAILED, BAD_INPUT, NOT_READY = range(4)
FIRST_PORT = 8888  # JupyterLab's own; the next free one is taken unless a port was asked for
FOLDER = "my-lessons"
PYTHON = "py" if os.name == "nt" else "python3"
CLONE = Path(__file__).resolve().parent.parent

DESCRIPTION = """\
Learn PyTorch's data loading and model serialization in runnable, verified notebooks (English and Chinese)."""

EPILOG = f"""\
examples:
  {PYTHON} -m tutorlib lab                      set up what is missing, open the lessons in JupyterLab
  {PYTHON} -m tutorlib lab --lang zh            the same in Chinese
  {PYTHON} -m tutorlib lab ~/lessons --port 9000 --no-browser
  {PYTHON} -m tutorlib reset 03                 a fresh lesson 03; yours is kept beside it
  {PYTHON} -m tutorlib test                     everything: sources, unit tests, all lessons, browser
  {PYTHON} -m tutorlib test 01 08               run two lessons again and compare every output
  {PYTHON} -m tutorlib test path/to/notebooks   your own notebooks, as strictly; --accept stores what differs
  {PYTHON} -m tutorlib refresh 03               you changed lesson 03's source: write its notebooks
  {PYTHON} -m tutorlib claims --section 000     what the notes say and what holds today
  {PYTHON} -m tutorlib doctor                   is this machine ready?
  {PYTHON} -m tutorlib inspect last.pt          what is in a checkpoint, without loading it

exit codes: 0 done, 1 something failed or differs, 2 bad input, 3 this machine is not ready
In an environment that has it, `tutorlib` alone does the same as `{PYTHON} -m tutorlib`."""


Prepare = Callable[[Sequence[str] | None, str | None], int | None]


class Stop(Exception):
    """Ends a command: one line for stderr, and the exit code."""

    def __init__(self, text: str, code: int = BAD_INPUT):
        super().__init__(text)
        self.code = code


def main(argv: Sequence[str] | None = None, prepare: Prepare | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed or differs, 2 bad input, 3 machine not ready.

    `prepare(extras, torch_index)` is called when the arguments are found good and before anything is imported that
    must be installed; a number that it returns ends the command (the door in `__main__` sets up the machine so).
    `extras` None: the command wants the environment where there is one, and does without.

    >>> main(["lab", "--lang", "fr"])
    2
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a console that has no Chinese shows a mark instead
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        args = parser().parse_args(argv)
        args.check(args)
        if prepare is not None and args.prepared:
            code = prepare(args.needs, args.torch_index)
            if code is not None:
                return code
        return args.run(args)
    except SystemExit as end:  # argparse has printed a help text
        return end.code if isinstance(end.code, int) else BAD_INPUT
    except Stop as stop:
        return _stop(str(stop), stop.code)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "tutorlib":
            raise
        return _stop(f"{error.name} is not installed; `{PYTHON} -m tutorlib {_command(argv)}` in the clone sets it up", NOT_READY)
    except ValueError as error:
        if not type(error).__module__.startswith("tutorlib"):
            raise  # a mistake of ours, not of the input: the traceback is wanted
        return _stop(str(error), BAD_INPUT)
    except BrokenPipeError:  # `tutorlib claims | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        return _stop(f"{error.filename or 'the system'}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _stop("interrupted", FAILED)


def parser() -> argparse.ArgumentParser:
    """All commands with their options and help texts."""
    top = _Parser(prog="tutorlib", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    top.set_defaults(run=lambda args: _help(top), check=lambda args: None, prepared=False)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    setup = _Parser(add_help=False)
    setup.add_argument(
        "--torch-index",
        metavar="URL",
        help="when setting up: take torch and torchvision from this index (a CPU-only build is smaller)",
    )

    def command(name: str, run: Any, text: str, more: str = "", needs: Sequence[str] | None = (), check: Any = None) -> _Parser:
        made = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
            parents=[setup] if needs is not None else [],
        )
        made.set_defaults(run=run, prepared=True, needs=needs, torch_index=None, check=check or (lambda args: None))
        return made

    lab = command(
        "lab",
        _lab,
        "make or update your working copy and open it in JupyterLab",
        "Your changes are never overwritten: when a lesson was improved and you changed yours, the new one is put beside it.",
        check=_check_lab,
    )
    lab.add_argument("folder", nargs="?", default=FOLDER, metavar="FOLDER", help=f"your working copy (default: ./{FOLDER})")
    lab.add_argument("--lang", choices=("en", "zh"), help="language of the lessons (default: as the last time, else en)")
    lab.add_argument("--port", type=_port, metavar="N", help=f"port of JupyterLab (default: {FIRST_PORT} or the next free one)")
    lab.add_argument("--no-browser", action="store_true", help="only print the address")

    reset = command(
        "reset",
        _reset,
        "lay out one lesson afresh in your working copy",
        "What you changed is kept as a backup beside it.",
        check=_check_reset,
    )
    reset.add_argument("number", metavar="NN", help="number of the lesson, for example 03")
    reset.add_argument("folder", nargs="?", default=FOLDER, metavar="FOLDER", help=f"your working copy (default: ./{FOLDER})")

    test = command(
        "test",
        _test,
        "run the whole test suite, or verify single lessons",
        "Without numbers: sources and notebooks in step, unit tests, all lessons run again with every output compared, "
        "and a browser test where Chromium is installed. With paths: your own notebooks, run again and compared as strictly.",
        needs=("test",),
        check=_check_test,
    )
    test.add_argument(
        "numbers", nargs="*", metavar="NN|PATH", help="only these lessons, for example 01 08; or your own notebooks and folders"
    )
    test.add_argument("--lessons", action="store_true", help="only the lessons, all of them")
    test.add_argument("--accept", action="store_true", help="store new outputs where they differ, and only there")
    test.add_argument("--junit", metavar="FILE", help="write the notebooks' results as a JUnit file")
    test.add_argument("--jobs", type=_jobs, default=2, metavar="N", help="notebooks at a time (default: 2)")
    test.add_argument(
        "--kernels",
        choices=("warm", "cold"),
        default="warm",
        help="warm: fork kernels from one process that has imported what they need (default); cold: start each as ever",
    )

    refresh = command(
        "refresh",
        _refresh,
        "execute lesson sources and write both languages' notebooks",
        "A second time changes nothing.",
        check=_check_numbers,
    )
    refresh.add_argument("numbers", nargs="*", metavar="NN", help="only these lessons (default: all)")
    refresh.add_argument("--texts", action="store_true", help="only words changed: execute nothing, keep the stored outputs")

    claims = command("claims", _claims, "print what the notes say, what holds today, and which cell proves it")
    claims.add_argument("--section", metavar="TEXT", help="only one source (000), lesson (01), section title or kind of id (DL)")
    claims.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the statements (default: en)")
    claims.add_argument("--json", action="store_true", help="print JSON")

    inspect = command(
        "inspect",
        _inspect,
        "say what is in a checkpoint, without loading it or running anything that it names",
        "Torch files of every age and safetensors files, whatever their size; also those that load refuses.",
        check=_check_inspect,
    )
    inspect.add_argument("file", metavar="FILE", help="a checkpoint, for example last.pt")
    inspect.add_argument("--json", action="store_true", help="print JSON")

    doctor = command("doctor", _doctor, "check whether this machine is ready; each line is OK or says what mends it", needs=None)
    doctor.add_argument("--limit", type=_seconds, metavar="SECONDS", help="longest time for one check")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return top


# Arguments ------------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for bad input instead of a usage text and a line."""

    def error(self, message: str) -> NoReturn:
        raise Stop(f"{message}; `{self.prog} --help` shows what there is")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        from . import __version__

        print(f"tutorlib {__version__}")
        parser.exit()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, expected a number from 1 to 65535")
    return int(text)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs, expected 1 to 64")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time, expected a number of seconds above 0")
    return seconds


def _check_lab(args: argparse.Namespace) -> None:
    from . import workcopy

    workcopy.check(args.folder)
    if args.port is not None and not _free(args.port):
        raise Stop(f"port {args.port} is in use by another program; leave --port away to take the next free one, or name another")


def _check_reset(args: argparse.Namespace) -> None:
    from . import lessons, workcopy

    lessons.numbers([args.number])
    workcopy.check(args.folder)


def _check_numbers(args: argparse.Namespace) -> None:
    from . import lessons

    if args.numbers and getattr(args, "lessons", False):
        raise Stop("--lessons means all lessons; give it or numbers, not both")
    lessons.numbers(args.numbers)


def _check_test(args: argparse.Namespace) -> None:
    if args.junit is not None and not Path(args.junit).absolute().parent.is_dir():
        raise Stop(f"--junit {args.junit}: its folder does not exist: make it first")
    if not args.numbers and not args.lessons and (args.accept or args.junit):
        raise Stop("--accept and --junit are for notebooks: name lessons or paths, or give --lessons for all lessons")
    if not _are_paths(args.numbers):
        return _check_numbers(args)
    if args.lessons:
        raise Stop("--lessons means the course's lessons; give it or paths of notebooks, not both")
    missing = [word for word in args.numbers if not Path(word).exists()]
    if missing:
        raise Stop(f"{', '.join(missing)}: no such file or folder; lessons are named by number, notebooks by path")


def _check_inspect(args: argparse.Namespace) -> None:
    if not Path(args.file).exists():
        folder = Path(args.file).absolute().parent
        if not folder.is_dir():
            raise Stop(f"{args.file}: no such file, nor its folder; look from the current folder, or give the whole path")
        beside = sorted(e.name for e in folder.iterdir() if e.suffix in (".pt", ".pth", ".tar", ".bin", ".safetensors"))
        raise Stop(f"{args.file}: no such file; its folder holds {', '.join(beside[:5]) or 'no checkpoint'}")
    if Path(args.file).is_dir():
        raise Stop(f"{args.file} is a folder, expected a checkpoint file: name one in it")


def _command(argv: Sequence[str] | None) -> str:
    return shlex.join(sys.argv[1:] if argv is None else argv)


def _help(top: argparse.ArgumentParser) -> int:
    top.print_help()
    return OK


def _stop(text: str, code: int) -> int:
    print(f"tutorlib: {text}", file=sys.stderr, flush=True)
    return code


# lab and reset --------------------------------------------------------------------------------------------------------


def _lab(args: argparse.Namespace) -> int:
    from . import workcopy

    made = workcopy.make(args.folder, args.lang)
    print(f"{made}\n\nYour working copy: {made.folder}", flush=True)
    for port in [args.port] if args.port else range(FIRST_PORT, FIRST_PORT + 200):
        if args.port or _free(port):
            ready, code = _serve(made, port, browser=not args.no_browser)
            if code == 0 or ready or args.port or _free(port):
                break
            print(f"Port {port} was taken in the same moment", flush=True)
    else:
        raise Stop(f"no free port from {FIRST_PORT} to {FIRST_PORT + 199}; end a JupyterLab that runs, or name one with --port")
    print(f"Your work is in {made.folder}; go on with  {PYTHON} -m tutorlib lab {shlex.quote(str(made.folder))}", flush=True)
    if code != 0:
        raise Stop(f"JupyterLab ended with code {code}; what it said stands above", FAILED if ready else NOT_READY)
    return OK


def server(made: Made, port: int, browser: bool = True) -> list[str]:
    """The command that starts JupyterLab on a working copy with this interpreter; the token travels in JUPYTER_TOKEN."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={made.folder}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",  # the address that we print must be the one it has
        f"--ServerApp.open_browser={browser}",
        f"--LabApp.default_url=/lab/tree/{made.start()}",
        # Open tabs are remembered with the copy: in the home folder they would be those of any other JupyterLab, with kernels.
        f"--LabApp.workspaces_dir={_jupyter(made.folder) / 'workspaces'}",
        # Nothing of these belongs to a lesson, and each asks the network.
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        # In containers everyone is root, and JupyterLab refuses root unless told.
        *(["--ServerApp.allow_root=True"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]


def _serve(made: Made, port: int, browser: bool) -> tuple[bool, int]:
    """Runs the server until it ends or is ended; whether it was ready, and its exit code."""
    import secrets

    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    environment = os.environ | {"JUPYTER_TOKEN": token, "JUPYTER_PREFER_ENV_PATH": "1", "TUTORLIB_LANG": made.language}
    paths = [_defaults(made.folder), os.environ.get("JUPYTER_CONFIG_PATH")]
    environment["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, paths))
    address = f"http://localhost:{port}/lab/tree/{made.start()}?token={token}"
    print(f"Starting JupyterLab at {address}", flush=True)
    # In a group of its own, Ctrl-C reaches this process only: JupyterLab would ask whether to stop.
    group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
    process = subprocess.Popen(server(made, port, browser), env=environment, stdin=subprocess.DEVNULL, **group)
    ready = False
    try:
        with _signals():
            while process.poll() is None and not ready:
                ready = _answers(port, token)
                time.sleep(0 if ready else 0.2)
            if ready:
                print(f"\nJupyterLab is ready. Its address:\n\n    {address}\n\nCtrl-C here ends it.\n", flush=True)
            code = process.wait()
    except KeyboardInterrupt:
        print("\nEnding JupyterLab ...", flush=True)
        code = _end(process)
    except BaseException:
        _end(process)
        raise
    return ready, code


def _jupyter(folder: Path) -> Path:
    return folder / ".tutorlib" / "jupyter"


def _defaults(folder: Path) -> str:
    """A configuration folder in the working copy whose defaults ask no question and no network; a learner's own settings win.

    Pages of text, such as the glossary, are shown as pages and not as their source.
    """
    config = _jupyter(folder)
    (config / "labconfig").mkdir(parents=True, exist_ok=True)
    defaults = {
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    }
    (config / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(defaults, indent=2), encoding="utf-8")
    return str(config)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """A closed terminal and a `kill` end JupyterLab as Ctrl-C does, so that no server stays behind."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        names = []
    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _end(process: subprocess.Popen[bytes], patience: tuple[float, float] = (15.0, 5.0)) -> int:
    """Ends the server; a second Ctrl-C does not leave it behind. 0, because this is how a session is meant to end."""
    if os.name == "posix":
        process.terminate()  # on Windows the console has told it already
    for seconds, harder in zip(patience, (process.terminate, process.kill), strict=True):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(max(0.0, until - time.monotonic()))
                return OK
        harder()
    process.wait()
    return OK


def _free(port: int) -> bool:
    """Can a server listen there? JupyterLab listens on both loopback addresses."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            listening = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # a machine without IPv6
            continue
        with listening:
            if os.name == "posix":  # else a port that was just left counts as used for a minute
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((host, port))
            except PermissionError:
                return False
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True


def _answers(port: int, token: str) -> bool:
    """Does our server answer there? Another one would not know the token."""
    import http.client

    connection = http.client.HTTPConnection("localhost", port, timeout=2)
    try:
        connection.request("GET", "/api/status", headers={"Authorization": f"token {token}"})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reset(args: argparse.Namespace) -> int:
    from . import workcopy

    print(workcopy.reset(args.folder, args.number))
    return OK


# refresh, claims and doctor -------------------------------------------------------------------------------------------


def _refresh(args: argparse.Namespace) -> int:
    from . import lessons, pages

    chosen = lessons.numbers(args.numbers)
    for number in chosen:
        lessons.lesson(number)  # a source that cannot be read is bad input; what fails from here on has failed
    with Progress(chosen) as progress:
        try:
            done = lessons.refresh(chosen, texts=args.texts, progress=progress)
        except lessons.LessonError as error:
            raise Stop(str(error), FAILED) from error
    print(done)
    try:
        written = pages.write()
    except lessons.LessonError as error:
        raise Stop(f"the lessons are written, the pages for readers not: {error}", FAILED) from error
    if written:
        print(f"pages for readers: {', '.join(written)} written anew")
    return OK


def _claims(args: argparse.Namespace) -> int:
    from . import lessons

    found = lessons.claims(args.section, language=args.lang)
    print(_json(found.rows()) if args.json else found)
    return OK


def _doctor(args: argparse.Namespace) -> int:
    from . import doctor

    settings: dict[str, Any] = {} if args.limit is None else {"limit": args.limit}
    with Progress(doctor.names(), "checks") as progress:  # each line as soon as it is known: some take seconds
        found = doctor.check(progress=lambda one: progress.step("" if args.json else str(one)), **settings)
    print(found.as_json() if args.json else found.summary())
    return OK if found.ok else NOT_READY


def _inspect(args: argparse.Namespace) -> int:
    from . import checkpoint

    try:
        found = checkpoint.inspect(args.file)
    except checkpoint.CheckpointError as error:
        raise Stop(str(error), FAILED) from error
    print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2, default=repr) if args.json else found.details())
    return OK


def _json(rows: Sequence[Any]) -> str:
    return json.dumps([dict(row) for row in rows], ensure_ascii=False, indent=2)


# test -----------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How many tests passed, failed and were skipped, over all steps."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    steps: list[str] = field(default_factory=list)

    def add(self, name: str, passed: int, failed: int, skipped: int, seconds: float) -> None:
        self.passed, self.failed, self.skipped = self.passed + passed, self.failed + failed, self.skipped + skipped
        self.steps.append(f"{name}: {_counts(passed, failed, skipped)} in {seconds:.0f} s")

    def __str__(self) -> str:
        return _counts(self.passed, self.failed, self.skipped)


def _counts(passed: int, failed: int, skipped: int) -> str:
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def _test(args: argparse.Namespace) -> int:
    from . import lessons

    if _are_paths(args.numbers):
        return _notebooks(args)
    tally, chosen = Tally(), lessons.numbers(args.numbers)
    everything = not args.numbers and not args.lessons
    steps: list[tuple[str, Callable[[], tuple[int, int, int]]]] = [
        ("sources and notebooks in step", lambda: _stale(chosen, args.numbers)),
        ("lessons run again, every output compared", lambda: _lessons(chosen, _suite_settings(args))),
    ]
    if everything:
        _needs_tests()
        # A browser test leaves an event loop behind that breaks asyncio.run in tests after it: a process of its own.
        steps.insert(
            1,
            (
                "unit tests",
                lambda: _pytest(
                    "tests", "tutorlib", "--doctest-modules", "--ignore=tests/browser", "-n", "2", "--dist", "worksteal"
                ),
            ),
        )
        steps.append(("browser", lambda: _pytest("tests/browser", "-rs")))
    for number, (name, step) in enumerate(steps, 1):
        print(f"\n=== {number} of {len(steps)}: {name}", flush=True)
        start = time.monotonic()
        tally.add(name, *step(), time.monotonic() - start)
    print("\n" + "\n".join(["=== result", *tally.steps, "", str(tally)]), flush=True)
    return FAILED if tally.failed else OK


def _are_paths(words: Sequence[str]) -> bool:
    """Somebody's own notebooks, not lessons: whatever looks like a path or is a folder here."""
    return any(os.sep in word or "/" in word or word.endswith(".ipynb") or Path(word).is_dir() for word in words)


def _suite_settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"jobs": args.jobs, "kernels": args.kernels, "accept": args.accept, "junit": args.junit}


def _notebooks(args: argparse.Namespace) -> int:
    from . import suite

    names = suite.labels(args.numbers)
    with Progress(names, "notebooks", one="notebook") as progress:
        report = suite.check(args.numbers, progress=progress, **_suite_settings(args))
    passed, failed, _ = _reported(report, names)
    print(f"\n{_counts(passed, failed, 0)}", flush=True)
    return FAILED if failed else OK


def _stale(chosen: Sequence[str], asked: Sequence[str]) -> tuple[int, int, int]:
    from . import verify

    with Progress(chosen) as progress:
        report = verify.stale(asked or None, progress=lambda *_: progress.step())
    return _reported(report, chosen)


def _lessons(chosen: Sequence[str], settings: dict[str, Any]) -> tuple[int, int, int]:
    from . import lessons, suite

    broken = []
    for number in chosen:
        try:
            lessons.lesson(number)
        except lessons.LessonError as error:  # `stale` has told it as well; the other lessons can still run
            broken.append(number)
            print(error)
    whole = [number for number in chosen if number not in broken]
    if not whole:
        return 0, len(broken), 0
    with Progress(whole) as progress:
        report = suite.run(whole, progress=progress, **settings)
    passed, failed, skipped = _reported(report, whole)
    return passed, failed + len(broken), skipped


def _reported(report: Any, chosen: Sequence[str]) -> tuple[int, int, int]:
    """Prints what a verification found; lessons without a finding passed, a finding outside of lessons counts as one failed."""
    if report.kernels:
        print(report.kernels)
    if report.findings:
        print(report.details(), end="\n\n")
    print(report.summary(), flush=True)
    bad = {finding.lesson for finding in report.findings}
    return len(set(chosen) - bad), len(bad), 0


def _needs_tests() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("pytest", "xdist", "hypothesis", "nbval", "playwright") if find_spec(name) is None]
    if missing:
        raise Stop(f"{', '.join(missing)} not installed; `{PYTHON} -m tutorlib test` in the clone sets them up", NOT_READY)
    if not (CLONE / "tests").is_dir():
        raise Stop(f"{CLONE} has no tests/; the whole suite runs in a clone of the repository only", NOT_READY)


def _pytest(*arguments: str) -> tuple[int, int, int]:
    """One pytest process on the clone; its own report goes to the terminal, the counts come back."""
    import tempfile
    from xml.etree import ElementTree

    with tempfile.TemporaryDirectory(prefix="tutorlib-") as folder:
        result = Path(folder) / "result.xml"
        command = [sys.executable, "-m", "pytest", *arguments, "-q", f"--junit-xml={result}"]
        # Two pytest workers on two cores: more threads than that only wait for each other.
        code = subprocess.call(command, cwd=CLONE, env={"OMP_NUM_THREADS": "1"} | os.environ)
        try:
            suites = ElementTree.parse(result).getroot().iter("testsuite")
            counts = [{key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")} for suite in suites]
        except (OSError, ElementTree.ParseError):
            counts = []
    failed = sum(c["failures"] + c["errors"] for c in counts)
    skipped = sum(c["skipped"] for c in counts)
    passed = sum(c["tests"] for c in counts) - failed - skipped
    return passed, max(failed, int(code != 0)), skipped


# Progress -------------------------------------------------------------------------------------------------------------


class Progress:
    """Says how far a command is: called as `progress(number, state, seconds)` it prints a line for each lesson that ends.

    In a terminal a last line shows how many of `names` are done and since when, and is overwritten (with blanks: a Windows
    console may not know escape codes); elsewhere there is none.

    >>> with Progress(["00", "01"], stream=sys.stdout) as progress:
    ...     progress("01", "running", 0.0)
    ...     progress("01", "passed", 12.34)
    lesson 01  passed       12.3 s  (1 of 2)
    """

    def __init__(self, names: Sequence[str], what: str = "lessons", stream: IO[str] | None = None, one: str = "lesson"):
        self.names = tuple(names)
        self.what, self.one = what, one
        self.stream = stream or sys.stderr
        self.done = 0
        self.start = time.monotonic()
        self.terminal = self.stream.isatty()
        self._bar = 0  # columns of the bar that stands there
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        if self.terminal:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self.terminal:
            self._ticker.join()
        self._say("")

    def __call__(self, number: str, state: str, seconds: float) -> None:
        if state == "running":
            return
        self.done += 1
        self._say(f"{self.one} {number}  {state:<9} {seconds:7.1f} s  ({self.done} of {len(self.names)})\n")

    def step(self, line: str = "") -> None:
        """One more is done, in the order of `names`; its line, if it has one, is a result and goes to stdout."""
        self.done += 1
        if line:
            self._say("")
            print(line, flush=True)

    def _tick(self) -> None:
        while not self._ended.wait(0.5):
            filled = 24 * self.done // max(1, len(self.names))
            bar = "#" * filled + "." * (24 - filled)
            self._say(f"[{bar}] {self.done} of {len(self.names)} {self.what}, {time.monotonic() - self.start:.0f} s", bar=True)

    def _say(self, text: str, bar: bool = False) -> None:
        """Writes in the place of the bar, which comes again with the next tick."""
        with self._lock:
            self.stream.write(f"\r{' ' * self._bar}\r{text}" if self._bar else text)
            self.stream.flush()
            self._bar = len(text) if bar else 0


if __name__ == "__main__":
    sys.exit(main())
