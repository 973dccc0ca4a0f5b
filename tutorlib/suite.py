"""Notebooks executed again, every output compared: this course's lessons, or anybody's folder of notebooks.

nbval collects, executes and compares. Loaded as a pytest plugin (`pytest --nbval -p tutorlib.suite FOLDER`) this module
closes what it cannot see (cells that were never executed, the order and kinds of outputs, stdout against stderr, pixels
of images, dropped and added forms of an output: all that `verify.differences` compares), makes it fast (kernels are
forked from one process that has imported what the notebooks import, see `warm`) and adds `--accept`.
A cell asks for a tolerance by its tag: `tolerance:1e-6` lets numbers with a decimal point or an exponent differ by that
much, relatively or absolutely. Everything else is compared exactly, and no comment in a cell can switch that off.

`run` does it for lessons, `check` for other notebooks; both return a report and take no pytest knowledge.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pprint
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from . import lessons, verify, warm
from .lessons import Progress
from .verify import Difference, Finding, Report, differences

__all__ = ["SuiteError", "check", "labels", "run"]

CELL_SECONDS = 300  # as in lessons: a machine that is busy needs its time
KERNELS = ("warm", "cold")
_EVENT = "@@tutorlib "  # begins a line of JSON that the pytest process says to `run` and `check`


class SuiteError(ValueError):
    """The suite could not start; the message names what is missing and the way out."""


def run(
    wanted: Iterable[str | int] | None = None,
    *,
    root: str | Path | None = None,
    jobs: int = 2,
    kernels: str = "warm",
    accept: bool = False,
    junit: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Executes the stored English notebooks again, each in a fresh kernel in an empty folder, and compares everything.

    `jobs`: lessons at a time. `kernels`: "warm" forks them from one process where the system allows it, "cold" starts each
    as ever. `accept` refreshes the lessons whose outputs differ, and only those. `junit`: a file for the results.
    `progress(number, state, seconds)` is called when a lesson ends, with state `passed` or `failed`. The findings hold a
    unified difference (`Report.details()`) and the command that accepts the new output. What a claim of the ledger says to
    differ on the installed torch (`differs`) is no finding: it stands in `Report.known`.
    Raises `LessonError` for an unknown number and `SuiteError` when nbval is not installed.

    >>> run(["99"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tutorlib.lessons.LessonError: no lesson 99: expected one of ...
    """
    import shutil  # milliseconds each: here and below imported where it is used
    import tempfile

    target = _checked(jobs, kernels, junit)
    numbers = lessons.numbers(wanted, root)
    chosen = {path.name[:2]: path for path in lessons.sources(root) if path.name[:2] in numbers}  # read only where it is needed
    tell = progress or (lambda number, state, seconds: None)
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="tutorlib-", ignore_cleanup_errors=True) as name:
        books = []
        for number, source in chosen.items():
            stored = lessons.stored(source, "en")
            place = Path(name, stored.name)
            if stored.is_file():
                shutil.copy(stored, place)
                books.append(_Book(number, place, len(_code(place))))
            else:
                found = (f"en/{stored.name}", "no such file", f"tutorlib refresh {number}")
                findings.append(Finding(number, "", "never executed", *found))
                tell(number, "failed", 0.0)
        told = _run_pytest(Path(name), books, ["--lessons"], jobs, kernels, target, tell)
    findings += told.findings
    known = [] if accept else _known(findings, root)
    findings = [f for f in findings if f not in known]
    accepted: tuple[str, ...] = ()
    if accept:
        good = {f.lesson for f in findings if f.accepts} - {f.lesson for f in findings if not f.accepts}
        if good:
            lessons.refresh(sorted(good), root=root)
        accepted = tuple(sorted(good))
        findings = [f for f in findings if f.lesson not in good]
    findings.sort(key=lambda f: f.lesson)
    return Report("test", numbers, tuple(findings), told.seconds, kernels=told.kernels, accepted=accepted, known=tuple(known))


def _known(findings: Sequence[Finding], root: str | Path | None) -> list[Finding]:
    """The differences that the ledger marks for the installed version of torch."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = ".".join(version("torch").split(".")[:2])
    except PackageNotFoundError:
        return []
    marked = {claim.id for claim in lessons.ledger(root) if installed in claim.differs}
    concerned = [lessons.lesson(number, root) for number in sorted({f.lesson for f in findings})] if marked else []
    cells = {(one.number, cell.id) for one in concerned for cell in one.code if marked & set(cell.tagged("claim"))}
    return [f for f in findings if (f.lesson, f.cell.partition("(")[2].rstrip(")")) in cells]


def check(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    jobs: int = 2,
    kernels: str = "warm",
    accept: bool = False,
    junit: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Executes anybody's notebooks again, each in a fresh kernel in its own folder, and compares everything.

    `paths`: one or several notebooks, or folders that are searched for notebooks (not in hidden folders). `accept` writes
    new outputs into the cells whose outputs differ or that were never executed, and changes nothing else; a cell that
    raises an error without the tag `raises-exception` is never accepted. The rest is as in `run`.
    Raises `SuiteError` for a path that does not exist or holds no notebook.

    >>> check(["no/such/folder"])
    Traceback (most recent call last):
    tutorlib.suite.SuiteError: no/such/folder: no such file or folder; expected a notebook, or a folder that holds some
    """
    import tempfile

    target = _checked(jobs, kernels, junit)
    places = _notebooks(paths)
    books = [_Book(label, path, len(_code(path))) for label, path in places.items()]
    with tempfile.TemporaryDirectory(prefix="tutorlib-", ignore_cleanup_errors=True) as name:
        more = ["--accept"] if accept else []
        told = _run_pytest(Path(name), books, more, jobs, kernels, target, progress or (lambda label, state, seconds: None))
    labels = tuple(book.label for book in books)
    report = Report("test", labels, tuple(told.findings), told.seconds, "notebook", told.kernels, tuple(sorted(told.accepted)))
    return report


def labels(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """What `check` calls the notebooks of these paths: their path in the folder that was named, without the suffix."""
    return tuple(_notebooks(paths))


def _checked(jobs: int, kernels: str, junit: str | Path | None) -> Path | None:
    missing = [name for name in ("pytest", "nbval") if find_spec(name) is None]
    if missing:
        raise SuiteError(
            f'{", ".join(missing)} not installed: verification needs the test extra: pip install -e ".[test]" in the clone'
        )
    if kernels not in KERNELS:
        raise SuiteError(f"kernels={kernels!r}: expected one of {', '.join(KERNELS)}")
    if jobs < 1:
        raise SuiteError(f"jobs={jobs}: expected at least 1")
    if junit is not None and not Path(junit).absolute().parent.is_dir():
        raise SuiteError(f"{junit}: its folder does not exist: make it first")
    return None if junit is None else Path(junit).absolute()


class _Book(NamedTuple):
    """A notebook to be verified: how it is called, where it lies, and how many code cells it has."""

    label: str
    path: Path
    cells: int


def _notebooks(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for asked in map(Path, [paths] if isinstance(paths, (str, os.PathLike)) else paths):
        if not asked.exists():
            raise SuiteError(f"{asked}: no such file or folder; expected a notebook, or a folder that holds some")
        inside = sorted(asked.rglob("*.ipynb")) if asked.is_dir() else [asked]
        inside = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(asked).parts)]
        if not inside or any(p.suffix != ".ipynb" for p in inside):
            raise SuiteError(f"{asked}: {'no notebook in it' if asked.is_dir() else 'not a notebook, expected .ipynb'}")
        for path in inside:
            label = (path.relative_to(asked) if asked.is_dir() else Path(path.name)).as_posix().removesuffix(".ipynb")
            found[label if label not in found else path.as_posix().removesuffix(".ipynb")] = path.resolve()
    if not found:
        raise SuiteError("no notebook was named: give a notebook or a folder")
    return found


def _code(path: Path) -> list[Any]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [cell for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SuiteError(f"{path.name} is not a notebook of format 4: {type(error).__name__}: {error}") from None


# The pytest process, from outside ---------------------------------------------------------------------------------------


class _Told(NamedTuple):
    findings: list[Finding]
    seconds: dict[str, float]
    kernels: str
    accepted: list[str]


def _run_pytest(
    folder: Path,
    books: Sequence[_Book],
    more: Sequence[str],
    jobs: int,
    kernels: str,
    junit: Path | None,
    tell: Progress,
) -> _Told:
    import subprocess

    told = _Told([], {book.label: 0.0 for book in books}, "", [])
    if not books:
        return told
    (folder / "ipython").mkdir()
    (folder / "pytest.ini").write_text("[pytest]\njunit_suite_name = notebooks\n")
    parallel = min(jobs, len(books)) if find_spec("xdist") else 1
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "no:cacheprovider"]
    command += ["-p", "tutorlib.suite", "-p", "nbval.plugin", "--nbval", "--nbval-current-env"]
    command += [
        f"--nbval-cell-timeout={CELL_SECONDS}",
        "--nbval-kernel-startup-timeout=180",
        "--events",
        f"--kernels={kernels}",
        *more,
    ]
    command += ["-q", "-s", "--color=no", "--no-header"]
    # The names of tests are paths from here on: elsewhere pytest would give the cells of all notebooks the same names.
    command += [f"--rootdir={os.path.commonpath([book.path.parent for book in books])}"]
    if parallel > 1:  # in the order that was asked for, not by the number of cells, which says little about time
        command += ["-p", "xdist.plugin", "-n", str(parallel), "--dist", "loadfile", "--no-loadscope-reorder"]
    command += [f"--junit-xml={junit}"] if junit else []
    command += [str(book.path) for book in books]
    environment = _environment("--lessons" in more, folder / "ipython") | {"PYTHONPATH": _import_path()}
    template, told_kernels = _template([book.path for book in books], kernels, environment)
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", _ONLY_NOTEBOOKS: "1"} | (
        {warm.SOCKET: str(template.socket)} if template else {}
    )
    by_path = {str(book.path): book for book in books}
    left = {book.label: book.cells for book in books}
    said: list[str] = []

    def ended(label: str) -> None:
        failed = any(f.lesson == label for f in told.findings)
        state = "failed" if failed else "accepted" if label in told.accepted else "passed"
        tell(label, state, told.seconds[label])

    piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    with template or contextlib.nullcontext(), subprocess.Popen(command, cwd=folder, env=environment, **piped) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.startswith(_EVENT):
                    said.append(line)
                    continue
                event = json.loads(line.removeprefix(_EVENT))
                label = by_path[event["path"]].label
                told.seconds[label] += event["seconds"]
                if event["finding"] is not None:
                    finding = Finding(label, **event["finding"])
                    if finding not in told.findings:
                        told.findings.append(finding)
                if event["accepted"] and label not in told.accepted:
                    told.accepted.append(label)
                left[label] -= event["done"]
                if event["done"] and not left[label]:
                    ended(label)
        except BaseException:
            process.terminate()  # pytest ends its kernels; a kernel also ends by itself when its parent is gone
            raise
    for book in books:
        if left[book.label]:
            last = [line.rstrip() for line in said if line.strip() and not re.fullmatch(r"[.Fx\s]*", line)][-12:]
            expected, found = f"{book.cells} cells verified", f"{book.cells - left[book.label]}"
            again = f"tutorlib test {book.label if more[:1] == ['--lessons'] else book.path.name}"
            early = Finding(book.label, "", "verification ended early", expected, found, again, "\n".join(last))
            told.findings.append(early)
            ended(book.label)
    return told._replace(kernels=told_kernels)


def _template(
    paths: Sequence[Path], kernels: str, environment: Mapping[str, str], modules: Sequence[str] | None = None
) -> tuple[Any, str]:
    """The process that kernels of these notebooks are forked from, or None; and how kernels start, in words."""
    reason = "as asked" if kernels == "cold" else warm.why_not()
    if not reason:
        wanted = warm.imports(paths) if modules is None else warm.Imports(tuple(modules), ())
        try:
            names = wanted.early + wanted.late
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            text = f"kernels: forked from one process that has imported {', '.join(names[:6]) or 'nothing'}{more}"
            return warm.Template(wanted.early, environment, wanted.late), text
        except (OSError, warm.WarmError) as error:
            reason = str(error)
    return None, f"kernels: started one by one ({reason})"


def _environment(as_lessons: bool, ipython: str | Path) -> dict[str, str]:
    return lessons.lesson_environment(ipython) if as_lessons else lessons.kernel_environment(ipython)


def _import_path() -> str:
    """Kernels must import the tutorlib that is running, also when it is not installed or the folder is another one."""
    return os.pathsep.join(p for p in (str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")) if p)


# The pytest process, from inside ----------------------------------------------------------------------------------------


_ONLY_NOTEBOOKS = "TUTORLIB_ONLY_NOTEBOOKS"  # set where `run` and `check` started pytest: nothing else is tested there
_GRAMMAR = "rfc3987_syntax"


def pytest_addoption(parser: Any) -> None:
    # nbval, which is loaded next, imports jsonschema, and that builds the grammar of internet addresses if it finds it, which
    # takes a second. No notebook is checked with it, and without it jsonschema leaves that check out: for the whole process, so
    # not in one that may also run somebody's tests of jsonschema.
    if _ONLY_NOTEBOOKS in os.environ:
        sys.modules.setdefault(_GRAMMAR, None)  # type: ignore[arg-type]
    group = parser.getgroup("tutorlib", "notebooks verified strictly and fast (with --nbval)")
    group.addoption("--accept", action="store_true", help="store new outputs where they differ, and nothing else")
    group.addoption(
        "--kernels",
        choices=KERNELS,
        default="warm",
        help="warm: fork kernels from one process that has imported what the notebooks import, where that is possible; "
        "cold: start each as ever",
    )
    group.addoption(
        "--preload", metavar="MODULES", help="what that process imports, with commas (default: what notebooks import)"
    )
    group.addoption("--lessons", action="store_true", help="as lessons: in an empty folder, and new outputs by tutorlib refresh")
    group.addoption("--events", action="store_true", help="say each cell's result as a line of JSON, for tutorlib test")


def pytest_configure(config: Any) -> None:
    if sys.modules.get(_GRAMMAR, config) is None:
        del sys.modules[_GRAMMAR]
    if config.getoption("--nbval", default=False):
        config.pluginmanager.register(_plugin(config), "tutorlib-strict-nbval")


class _Seen(NamedTuple):
    """What a cell's test found, on its way from a worker of xdist to the process that reports."""

    path: str
    finding: dict[str, Any] | None = None
    now: dict[str, Any] | None = None  # {"cell": index among code cells, "outputs": [...]} if they may be stored


def _plugin(config: Any) -> Any:
    """The plugin object; its classes derive from nbval's, which only pytest needs to import.

    nbval collects, starts the kernel, executes and compares; what is added: a clean environment, cells that were never
    executed fail, and outputs must also agree in what nbval leaves out.
    """
    import tempfile
    from queue import Empty

    import nbformat
    import nbval.kernel
    import pytest
    from jupyter_client.manager import KernelManager
    from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

    accept, as_lessons = config.getoption("--accept"), config.getoption("--lessons")

    class Differs(AssertionError):
        """The stored outputs are not what this machine gives; the text is ready to be read."""

    class KernelEnded(Exception):
        """Said at once: nbval alone waits for the whole cell timeout."""

    def start_new_kernel(startup_timeout: float = 60, kernel_name: str = "python", **settings: Any) -> Any:
        """As nbval's, without the fifth of a second in which jupyter_client listens to a kernel that has said it is ready.

        What that would throw away does no harm: nbval asks the kernel again, and leaves out what answers other questions.
        """
        manager = KernelManager(kernel_name=kernel_name, kernel_spec_manager=nbval.kernel.NbvalKernelspecManager())
        manager.start_kernel(**settings)
        client = manager.client()
        client.start_channels()
        end, asked = time.monotonic() + startup_timeout, client.kernel_info()
        while True:
            with contextlib.suppress(Empty):
                if client.get_shell_msg(timeout=1)["parent_header"].get("msg_id") == asked:
                    return manager, client
            if not manager.is_alive() or time.monotonic() > end:
                client.stop_channels()
                ended = "ended before it answered" if not manager.is_alive() else f"did not answer in {startup_timeout:g} s"
                manager.shutdown_kernel(now=True)
                raise RuntimeError(f"the kernel {ended}")

    nbval.kernel.start_new_kernel = start_new_kernel

    class Pretty:
        """A message for nbval's log: written out if somebody reads that, where nbval alone writes out every one."""

        def __init__(self, message: Any) -> None:
            self.message = message

        def __str__(self) -> str:
            return pprint.pformat(self.message)

    nbval.kernel.pformat = Pretty

    class StrictFile(IPyNbFile):
        folder: Any = None
        fspath: Any
        ended = False

        def setup(self) -> None:
            self.folder = tempfile.TemporaryDirectory(prefix="tutorlib-", ignore_cleanup_errors=True)
            work, ipython = Path(self.folder.name, "work"), Path(self.folder.name, "ipython")
            work.mkdir()
            ipython.mkdir()
            before, place = dict(os.environ), self.fspath
            # PYTEST_CURRENT_TEST would make the kernel leave out what child processes write.
            clean = _environment(as_lessons, ipython)
            if socket := before.get(warm.SOCKET):
                clean[warm.SOCKET] = warm.soonest(socket, self.path)
            try:
                os.environ.clear()
                os.environ.update(clean)
                if as_lessons:
                    self.fspath = type(place)(work / self.path.name)  # nbval takes the kernel's folder from here
                super().setup()
            finally:
                self.fspath = place
                os.environ.clear()
                os.environ.update(before)
            self.heard: list[Any] = []
            self.kernel.get_message = self.listen(self.kernel.get_message)

        def listen(self, get: Any) -> Any:
            def get_message(stream: str, timeout: float | None = None) -> Any:
                end = float("inf") if timeout is None else time.monotonic() + timeout
                while True:
                    try:
                        return get(stream, timeout=max(0.0, min(1.0, end - time.monotonic())))
                    except Empty:
                        if not self.kernel.is_alive():
                            raise KernelEnded from None
                        if time.monotonic() >= end:
                            raise

            return get_message

        def get_kernel_message(self, timeout: Any = None, stream: str = "iopub") -> Any:
            message = super().get_kernel_message(timeout=timeout, stream=stream)
            self.heard.append(message)
            return message

        def collect(self) -> Iterator[Any]:
            for number, item in enumerate(super().collect()):
                options = defaultdict(bool, item.options, check=True, skip=False)  # a comment in a cell cannot switch it off
                made = StrictCell.from_parent(self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=options)
                made.number = number
                yield made

        def teardown(self) -> None:
            super().teardown()
            if self.folder is not None:
                self.folder.cleanup()

    class StrictCell(IPyNbCell):
        number = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.stored = copy.deepcopy(self.cell.outputs)  # nbval joins streams in place
            self.seen = _Seen(str(self.path))
            self.found: list[Difference] = []
            self.comparison_traceback: list[str] = []  # nbval's own words
            self.output_timeout = 60  # nbval's 5 s are not enough where many kernels share two cores

        def runtest(self) -> None:
            if self.parent.ended:
                pytest.skip("the kernel ended in an earlier cell")
            never = self.cell.execution_count is None and bool(self.cell.source.strip())
            self.parent.heard.clear()
            try:
                super().runtest()
            except NbCellError as error:
                raised = [m["content"] for m in self.parent.heard if m["msg_type"] == "error"]
                if never and not (raised and "raises-exception" not in self.cell.get("metadata", {}).get("tags", [])):
                    return self.never()  # nbval has looked no further
                if self.comparison_traceback or self.found:
                    first = self.found[0] if self.found else Difference("", "the stored outputs", "others")
                    details = "\n".join(map(str, self.found)) or "\n".join(self.comparison_traceback)
                    sides = verify.first_difference(first.expected, first.found) if self.found else (first.expected, first.found)
                    return self.fail("outputs differ" if self.found else str(error), *sides, details)
                said = "; ".join(lessons.normalised([_error(raised[-1])])[0].traceback) if raised else "no answer"
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(raised[-1]["traceback"][-3:])) if raised else ""
                self.fail("a cell fails" if raised else str(error), "no error", said, trace, accepts=False)
            except KernelEnded:
                self.parent.ended = True
                self.fail("the kernel ended", "a kernel that lives", "it ended in this cell", "", accepts=False)
            if never:
                self.never()

        def never(self) -> None:
            what = "the stored outputs of this cell are no outputs of a run"
            self.fail("never executed", "an execution count", "none", what)

        def compare_outputs(self, test: Any, ref: Any, skip_compare: Any = None) -> bool:
            now = _collected(self.parent.heard, nbformat)
            tolerance = verify.tolerance(self.cell.get("metadata", {}).get("tags", []))
            self.found = differences(self.stored, now, tolerance=tolerance)
            if self.found:
                return False
            if tolerance:
                return True  # nbval knows no tolerance, and `differences` has looked at all that it looks at
            return super().compare_outputs(lessons.normalised(now), lessons.normalised(self.stored), skip_compare)

        def fail(self, what: str, expected: str, found: str, details: str, accepts: bool = True) -> None:
            source = "\n".join(f"> {line}" for line in self.cell.source.split("\n")[:4])
            name, cell = self.path.stem, f"[{self.cell_num + 1}] ({self.cell.get('id', '-')})"
            label = name[:2] if as_lessons else name
            if as_lessons:
                mend = f"tutorlib refresh {label} accepts the new output" if accepts else f"edit notebooks/src/{name}.py"
            else:
                mend = "--accept stores the new output" if accepts else f"edit {self.path.name}"
            finding: dict[str, Any] = {
                "cell": cell,
                "what": what,
                "expected": expected,
                "found": found,
                "mend": mend,
                "details": f"{source}\n{details}",
                "accepts": accepts,
            }
            if accept and accepts:
                outputs = lessons.normalised(_collected(self.parent.heard, nbformat))
                self.seen = self.seen._replace(now={"cell": self.number, "outputs": outputs})
                return
            self.seen = self.seen._replace(finding=finding)
            raise Differs(Report("test", (label,), (Finding(label, **finding),), {}).details())

        def repr_failure(self, excinfo: Any) -> str:
            return str(excinfo.value) if isinstance(excinfo.value, Differs) else super().repr_failure(excinfo)

    class Plugin:
        template: Any = None
        kernels = ""

        def __init__(self) -> None:
            self.seconds: dict[str, float] = {}
            self.accepted: dict[str, list[dict[str, Any]]] = {}

        # Kernels ----------------------------------------------------------------------------------------------------------

        def start(self) -> None:
            """The template in the process that reports; others find it by their environment."""
            if warm.SOCKET in os.environ:  # in a worker, or under `run` and `check`
                warm.install()
            if hasattr(config, "workerinput") or config.getoption("--events"):
                return
            if config.getoption("--collect-only", default=False):
                return
            asked = config.getoption("--preload")
            environment = _environment(as_lessons, "none")
            modules = asked.split(",") if asked else None
            self.template, self.kernels = _template(_asked_for(config), config.getoption("--kernels"), environment, modules)
            if self.template is not None:
                self.template.use()

        def pytest_unconfigure(self) -> None:
            if self.template is not None:
                self.template.close()

        def pytest_report_header(self) -> str:
            return self.kernels

        # Tests ------------------------------------------------------------------------------------------------------------

        @pytest.hookimpl(wrapper=True)
        def pytest_collect_file(self, file_path: Path, parent: Any) -> Any:
            found = yield
            return [StrictFile.from_parent(parent, path=f.path) if type(f) is IPyNbFile else f for f in found]

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(self, item: Any) -> Any:
            report = yield
            if isinstance(item, StrictCell):  # a plain attribute travels from workers; a property would also be in the JUnit file
                report.tutorlib = item.seen._asdict() if report.when == "call" else _Seen(str(item.path))._asdict()
            return report

        def pytest_runtest_logreport(self, report: Any) -> None:
            if hasattr(config, "workerinput") or not hasattr(report, "tutorlib"):
                return
            seen, failed = _Seen(**report.tutorlib), report.outcome == "failed"
            self.seconds[seen.path] = self.seconds.get(seen.path, 0.0) + report.duration
            if seen.now is not None:
                self.accepted.setdefault(seen.path, []).append(seen.now)
            if not config.getoption("--events"):
                return
            finding: dict[str, Any] | None = seen.finding
            if failed and finding is None:
                details = str(report.longrepr)[-2000:]
                sides: dict[str, Any] = {"expected": "a kernel that starts", "found": _said(details), "mend": "tutorlib doctor"}
                finding = {"cell": "", "what": f"{report.when} failed", **sides, "details": details}
            event = {
                "path": seen.path,
                "done": report.when == "call" or (failed and report.when == "setup"),
                "seconds": report.duration,
                "finding": finding,
                "accepted": seen.now is not None,
            }
            print(f"\n{_EVENT}{json.dumps(event)}", flush=True)

        def pytest_sessionfinish(self) -> None:
            for path, cells in self.accepted.items():
                _store(Path(path), cells, nbformat)

        def pytest_terminal_summary(self, terminalreporter: Any) -> None:
            if config.getoption("--events") or not self.seconds:
                return
            terminalreporter.section("notebooks")
            for path, seconds in self.seconds.items():
                stored = f"  {len(self.accepted[path])} cells accepted" if path in self.accepted else ""
                terminalreporter.write_line(f"{seconds:7.1f} s  {Path(path).name}{stored}")

    plugin = Plugin()
    plugin.start()
    return plugin


def _asked_for(config: Any) -> list[Path]:
    found: list[Path] = []
    for argument in config.args:
        path = Path(config.invocation_params.dir, str(argument).split("::")[0])
        found += sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
    return [path for path in found if path.suffix == ".ipynb" and path.is_file()]


def _store(path: Path, cells: Sequence[Mapping[str, Any]], nbformat: Any) -> None:
    """New outputs into a notebook, in one step, nothing else of it changed."""
    text = path.read_text(encoding="utf-8")
    book = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for now in cells:
        code[now["cell"]].outputs = [nbformat.from_dict(output) for output in now["outputs"]]
    for number, cell in enumerate((c for c in code if c.source.strip()), 1):
        if cell.execution_count is None or any(now["cell"] == code.index(cell) for now in cells):
            cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(nbformat.writes(book).rstrip("\n") + text[len(text.rstrip("\n")) :], encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _said(text: str) -> str:
    """The error in a report of pytest, which marks its lines with E; else the last line."""
    lines = [line for line in text.split("\n") if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return marked[0] if marked else lines[-1].strip() if lines else "nothing said"


def _error(content: Mapping[str, Any]) -> Any:
    import nbformat.v4

    return nbformat.v4.new_output("error", ename=content["ename"], evalue=content["evalue"], traceback=[])


def _collected(messages: Sequence[Any], nbformat: Any) -> list[Any]:
    """The outputs of the cell that just ended, from all that its kernel said."""
    ended = [m for m in messages if m["msg_type"] == "status" and m["content"].get("execution_state") == "idle"]
    if not ended:
        return []
    cell = ended[-1]["parent_header"].get("msg_id")
    outputs: list[Any] = []
    shown: dict[str, list[int]] = {}
    clear = False
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != cell:
            continue
        if kind == "clear_output":
            clear = bool(content.get("wait"))
            if not clear:
                outputs.clear()
            continue
        if kind == "update_display_data":
            for place in shown.get(content["transient"]["display_id"], []):
                outputs[place].data, outputs[place].metadata = content["data"], content["metadata"]
            continue
        if kind not in ("stream", "display_data", "execute_result", "error"):
            continue
        if clear:
            outputs.clear()
            clear = False
        if display := content.get("transient", {}).get("display_id"):
            shown.setdefault(display, []).append(len(outputs))
        outputs.append(nbformat.v4.output_from_msg({"header": {"msg_type": kind}, "content": content}))
    return outputs
