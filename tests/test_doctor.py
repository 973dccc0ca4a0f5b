"""The doctor on this machine, on broken torches, and on machines that lack one thing."""

import importlib.metadata
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest

from tutorlib import doctor
from tutorlib.doctor import GB, Check, Doctor

METHODS = [f"workers, {method}" for method in multiprocessing.get_all_start_methods()]
NAMES = [
    "Python",
    "environment",
    "packages",
    "lessons",
    "disk",
    "memory",
    "shared memory",
    "loopback",
    "fonts",
    "torch",
    "torchvision",
    "JupyterLab",
    "widgets",
    "kernel",
    *METHODS,
]
Usage = namedtuple("Usage", "total used free")


def by_name(found):
    return {one.name: one for one in found.checks}


def module(folder, name, source):
    """A module that stands before the real one on the path of every trial."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick_jupyter(monkeypatch):
    """JupyterLab takes seconds to import, and the whole-machine test does it."""
    monkeypatch.setattr(doctor, "_JUPYTER", f"say(**{GOOD})")


GOOD = {
    "ipywidgets": "8.1.9",
    "jupyterlab": "4.4.1",
    "jupyterlab_widgets": "3.0.17",
    "ipykernel": "7.0",
    "extension": "5.0.16",
    "disabled": False,
    "kernel": "python",
    "failed": {},
}

# --- This machine, whole -------------------------------------------------------------------------------------------------


def test_this_machine_is_ready(monkeypatch, tmp_path):
    """Once, for real; disk and memory are the only checks that may find fault with a machine on which the tests run."""
    monkeypatch.chdir(tmp_path)
    heard = []
    found = doctor.check(limit=300, progress=heard.append)
    assert [one.name for one in found.checks] == NAMES == list(doctor.names())
    assert heard == list(found.checks)
    assert [
        str(one) for one in found.checks if not one.ok and one.name not in ("disk", "memory", "shared memory", "lessons")
    ] == []
    checks = by_name(found)
    assert checks["torch"].found.startswith(importlib.metadata.version("torch").partition("+")[0])
    assert all(checks[name].found.startswith("2 workers gave 4 batches in ") for name in METHODS)
    assert sum(checks[name].found.endswith(", the default here") for name in METHODS) == 1
    assert "learners" in checks["memory"].found
    assert list(tmp_path.iterdir()) == []
    assert [process for process in psutil.Process().children(recursive=True) if "doctor:" in " ".join(process.cmdline())] == []


def test_the_first_lines_come_before_any_process_and_without_torch():
    script = (
        "import sys\n"
        "from tutorlib import doctor\n"
        "def refuse(*a, **k): raise KeyboardInterrupt\n"
        "doctor._Trials.start = refuse\n"
        "try: doctor.check(progress=lambda one: print(one.name))\n"
        "except KeyboardInterrupt: pass\n"
        "print(sorted({'torch', 'numpy', 'ipywidgets', 'jupyterlab', 'IPython'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*NAMES[: NAMES.index("torch")], "[]"]
    assert done.stderr == ""


# --- Broken torches ------------------------------------------------------------------------------------------------------

RAISES = "raise {}\n"
TORCHES = {
    "missing": (RAISES.format("ModuleNotFoundError(\"No module named 'torch'\", name='torch')"), "not installed"),
    "a library is missing": (
        RAISES.format("OSError('libcudart.so.13: cannot open shared object file\\nand a long explanation')"),
        "OSError: libcudart.so.13: cannot open shared object file",
    ),
    "crashes": ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "crashed (SIGSEGV)"),
    "exits": ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
    "leaves": ("import os\nos.write(2, b'first\\nlast words\\n')\nos._exit(7)\n", "ended with exit code 7: last words"),
    "is another package": ("__version__ = '1'\n", "AttributeError: module 'torch' has no attribute 'cuda'"),
    "talks": ("import os\nos.write(1, b'x' * 10**7)\nraise ImportError('after all')\n", "ImportError: after all"),
}


@pytest.mark.parametrize(("source", "text"), TORCHES.values(), ids=TORCHES)
def test_a_broken_torch_is_one_line_and_the_rest_is_still_checked(fakes, quick_jupyter, source, text):
    module(fakes, "torch", source)
    found = doctor.check(limit=300)
    checks = by_name(found)
    assert [one.name for one in found.checks] == NAMES
    assert not found.ok and not checks["torch"].ok
    assert checks["torch"].found == text
    assert "install" in checks["torch"].mend
    for name in ("torchvision", *METHODS):
        assert (checks[name].ok, checks[name].found) == (False, "not tried: torch cannot be imported")
    assert checks["JupyterLab"].ok and checks["widgets"].ok and checks["kernel"].ok
    assert "Traceback" not in str(found)


def test_a_hanging_torch_is_stopped_with_all_that_it_started(fakes):
    note = fakes / "pids"
    module(
        fakes,
        "torch",
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'a').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "time.sleep(600)\n",
    )
    start = time.monotonic()
    found = doctor.check(limit=1.5)
    assert time.monotonic() - start < 30
    assert by_name(found)["torch"].found == "did not end within 1.5 s"
    pids = [int(pid) for pid in note.read_text().split()]
    assert len(pids) >= 2
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_interrupt_ends_the_trials(fakes):
    note = fakes / "pid"
    module(fakes, "torch", f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")

    class Interrupted(BaseException):
        pass

    start = time.monotonic()
    with pytest.raises(Interrupted), doctor._Trials(300) as trials:
        trials.start(doctor._TORCH)
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        raise Interrupted
    assert time.monotonic() - start < 60
    assert not alive(int(note.read_text()))


QUICK_TORCH = """
__version__ = "2.15.0+cpu"
class cuda:
    is_available = staticmethod(lambda: False)
class backends:
    class mps:
        is_available = staticmethod(lambda: False)
class ones(int):
    def __new__(cls, size): return super().__new__(cls, size)
    def sum(self): return self
ones.__add__ = lambda self, other: self
def tensor(values): return values
"""


def test_a_torchvision_of_another_build_gets_the_command_for_the_pair(fakes, quick_jupyter):
    module(fakes, "torch", QUICK_TORCH)
    module(fakes, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')\n")
    checks = by_name(doctor.check(limit=300))
    assert checks["torch"].ok and checks["torch"].found == "2.15.0+cpu, no accelerator, none is needed"
    pair = checks["torchvision"]
    assert not pair.ok
    assert pair.found.endswith("do not fit together: RuntimeError: operator torchvision::nms does not exist")
    assert "torch torchvision" in pair.mend and "CPU-only" in pair.mend
    assert all("No module named 'torch.utils'" in checks[name].found for name in METHODS)


def answer(**said):
    return doctor._Answer(said, said.get("error", ""))


@pytest.mark.parametrize(
    ("said", "ok", "text"),
    [
        ({"torch": "2.15.0+cpu", "torchvision": "0.30.0+cpu"}, True, "0.30.0+cpu with torch 2.15.0+cpu"),
        ({"torch": "2.15.0", "torchvision": "0.30.0"}, True, "0.30.0 with torch 2.15.0"),
        ({"torch": "2.15.0+cpu", "torchvision": "0.30.0+cu130"}, False, "built for cu130 and cpu"),
        ({"error": "ModuleNotFoundError: No module named 'torchvision'", "missing": "torchvision"}, False, "not installed"),
    ],
)
def test_the_pair(said, ok, text):
    found = doctor._pair(answer(version="2.15.0"), answer(**said))
    assert found.ok is ok and text in found.found
    assert bool(found.mend) is not ok


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        ("RuntimeError: unable to open shared memory object </torch_1> in read-write mode", "more shared memory"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "more shared memory"),
        ("did not end within 60 s", "tutorlib doctor --limit 300"),
        ("ImportError: something else", "torch torchvision"),
    ],
)
def test_workers_that_fail_get_the_advice_that_fits(error, mend):
    trial = Future()
    trial.set_result(answer(error=error))
    found = doctor._workers("spawn", trial)
    assert (found.name, found.ok, found.found) == ("workers, spawn", False, error)
    assert mend in found.mend


def test_wrong_batches_are_not_ready():
    trial = Future()
    trial.set_result(answer(batches=[[0, 1]], seconds=1.0, default="fork"))
    assert not doctor._workers("fork", trial).ok


# --- Machines that lack one thing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 14, 2), True), ((3, 15, 0), False)])
def test_python(monkeypatch, version, ok):
    monkeypatch.setattr(doctor.sys, "version_info", version)
    found = doctor._python()
    assert found.ok is ok and found.found == f"{'.'.join(map(str, version))}, 64 bit"
    assert ok or found.mend == "install a 64-bit Python 3.11 to 3.14 and set tutorlib up with it again"


def test_a_missing_and_an_old_package(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "jupytext":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.9.1+cpu" if name == "torch" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = doctor._packages()
    assert not found.ok
    assert found.found == "torch 2.9.1+cpu is older than 2.14; jupytext is missing"
    assert "install" in found.mend


def test_a_bare_clone_is_set_up_by_its_door(monkeypatch):
    """As in a fresh clone with a Python that has nothing: pip install -e would fill that Python, without the pins."""
    door = "py -m tutorlib lab" if sys.platform == "win32" else "python3 -m tutorlib lab"
    monkeypatch.setattr(doctor, "_version", lambda package: "")
    missing = doctor._Answer({"error": "ModuleNotFoundError: ...", "missing": "torch"}, "ModuleNotFoundError: ...")
    assert doctor._torch(missing).mend == door
    assert [one.mend for one in doctor._jupyter(missing)] == [door] * 3
    monkeypatch.undo()
    assert doctor._torch(missing).mend.endswith(f"-e {doctor.CLONE}"), "where tutorlib is installed, that environment is mended"
    monkeypatch.setattr(doctor, "CLONE", Path("nowhere"))
    assert doctor._torch(missing).mend.endswith(" tutorlib")


def test_the_requirements_are_the_projects_own(monkeypatch):
    from_clone = doctor._requirements()
    assert from_clone["torch"] == "2.14" and from_clone["torchvision"] == "0" and "pytest" not in from_clone
    monkeypatch.setattr(doctor, "CLONE", Path("nowhere"))
    lines = ["torch>=2.14", "torchvision", "scikit-learn>=1.6", "pytest>=8.4; extra == 'test'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor._requirements() == {"torch": "2.14", "torchvision": "0", "scikit-learn": "1.6"}


@pytest.mark.parametrize(
    ("older", "newer"), [("2.9", "2.14"), ("2.14.0rc1", "2.15"), ("1.2.3", "1.2.4+cpu"), ("8.1", "8.1.2"), ("2.14.0a1", "2.14.1")]
)
def test_versions_are_compared_by_number(older, newer):
    assert doctor._numbers(older) < doctor._numbers(newer)


@pytest.mark.parametrize(
    ("pip", "uv", "ok", "text"), [(1, 0, True, "pip"), (0, 1, True, "uv"), (0, 0, False, "neither pip nor uv")]
)
def test_environment(monkeypatch, pip, uv, ok, text):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: pip or None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/uv" if uv else None)
    found = doctor._environment()
    assert found.ok is ok and text in found.found
    assert ok or found.mend.endswith("-m ensurepip")
    assert doctor._pip("--force-reinstall", "x").endswith(
        "--reinstall x" if uv and not pip else "-m pip install --force-reinstall x"
    )


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: Usage(100 * GB, 99.8 * GB, 0.2 * GB))
    found = doctor._disk()
    assert not found.ok and found.found.startswith("0.2 GB free at ") and found.mend.startswith("free 1 GB there")


def test_a_containers_small_shared_memory(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: Usage(GB / 16, 0, GB / 16))
    monkeypatch.setattr(doctor.Path, "is_dir", lambda self: True)
    found = doctor._shared_memory()
    assert not found.ok and found.found == "0.1 GB free of 0.1 GB, 0.25 GB are needed" and "--shm-size=1g" in found.mend
    monkeypatch.setattr(doctor.Path, "is_dir", lambda self: False)
    assert doctor._shared_memory().ok


@pytest.mark.parametrize(
    ("sizes", "ok", "text"),
    [
        ((16 * GB, 11 * GB), True, "11.0 GB free of 16.0 GB; as a server for a room, about 20 learners"),
        ((2 * GB, 0.5 * GB), False, "about 0 learners"),
        ((None, None), True, "cannot be read here"),
    ],
)
def test_memory(monkeypatch, sizes, ok, text):
    monkeypatch.setattr(doctor, "_memory_sizes", lambda: sizes)
    found = doctor._memory()
    assert found.ok is ok and text in found.found
    assert bool(found.mend) is not ok


def test_a_containers_limit_counts_and_psutil_is_not_needed(monkeypatch):
    files = {
        "/proc/meminfo": f"MemTotal: {8 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {6 * GB // 1024} kB\nHugePages_Total: 0\n",
        "/sys/fs/cgroup/memory.max": f"{4 * GB}\n",
        "/sys/fs/cgroup/memory.current": f"{GB}\n",
    }

    def read(self, encoding=None):
        if self.as_posix() not in files:
            raise FileNotFoundError(self)
        return files[self.as_posix()]

    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(doctor.Path, "read_text", read)
    assert doctor._memory_sizes() == (4 * GB, 3 * GB)
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert doctor._memory_sizes() == (8 * GB, 6 * GB)
    files.clear()
    assert doctor._memory_sizes() == (None, None)


def test_no_loopback(monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError("Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    found = doctor._loopback()
    assert not found.ok and found.found == "no connection to 127.0.0.1: Permission denied" and "firewall" in found.mend


def test_fonts_are_only_advice(monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/fc-list")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "\n", ""))
    assert doctor._fonts().ok and doctor._fonts().mend.startswith("optional: ")


def test_no_lessons(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CLONE", tmp_path)
    found = doctor._lessons()
    assert not found.ok and found.found.startswith("0 in en, 0 in zh of ") and "clone" in found.mend
    for language in ("en", "zh"):
        (tmp_path / "notebooks" / language).mkdir(parents=True)
        (tmp_path / "notebooks" / language / "00_start.ipynb").touch()
    assert str(doctor._lessons()) == "OK    lessons               1 in en, 1 in zh"


@pytest.mark.parametrize(
    ("change", "bad", "found", "mend"),
    [
        ({"jupyterlab": None, "failed": {"jupyterlab": "ImportError: x"}}, "JupyterLab", "ImportError: x", "jupyterlab"),
        ({"ipywidgets": None, "failed": {"ipywidgets": "ImportError: y"}}, "widgets", "ImportError: y", "ipywidgets"),
        ({"extension": None}, "widgets", "no extension where JupyterLab looks for it", "jupyterlab_widgets"),
        (
            {"disabled": True},
            "widgets",
            "extension 5.0.16 is disabled",
            "labextension enable @jupyter-widgets/jupyterlab-manager",
        ),
        ({"ipywidgets": "7.7.1"}, "widgets", "expected 8, 3 and 5", "ipywidgets jupyterlab_widgets"),
        ({"kernel": None, "failed": {"kernel": "NoSuchKernel: z"}}, "kernel", "NoSuchKernel: z", "ipykernel"),
        ({"kernel": "/gone/bin/python"}, "kernel", "starts another Python: /gone/bin/python", "ipykernel install --sys-prefix"),
    ],
)
def test_jupyter(change, bad, found, mend):
    checks = {one.name: one for one in doctor._jupyter(answer(**{**GOOD, **change}))}
    assert [name for name, one in checks.items() if not one.ok] == [bad]
    assert found in checks[bad].found and mend in checks[bad].mend


def test_a_good_jupyter():
    assert [one.ok for one in doctor._jupyter(answer(**GOOD))] == [True, True, True]
    assert all(one.ok for one in doctor._jupyter(answer(**{**GOOD, "kernel": sys.executable})))


def test_jupyter_that_does_not_answer():
    checks = doctor._jupyter(answer(error="ModuleNotFoundError: No module named 'jupyter_core'", missing="jupyter_core"))
    assert [(one.name, one.ok) for one in checks] == [("JupyterLab", False), ("widgets", False), ("kernel", False)]


# --- Facts ---------------------------------------------------------------------------------------------------------------


def test_a_check_that_fails_itself_is_one_line(monkeypatch):
    def stumble():
        raise PermissionError("[Errno 13] /proc\nand more")

    monkeypatch.setattr(doctor, "_AT_ONCE", {"memory": stumble})
    monkeypatch.setattr(doctor._Trials, "start", lambda self, body: broken())
    found = doctor.check()
    assert str(found.checks[0]) == (
        "mend  memory                this check itself failed: PermissionError: [Errno 13] /proc\n"
        "      -> report it to the authors of tutorlib"
    )
    assert len(found.checks) == 1 + 2 + 3 + len(METHODS)


def broken():
    future = Future()
    future.set_result(answer(error="no process could be started: [Errno 12] Cannot allocate memory"))
    return future


def test_a_process_that_cannot_be_started(monkeypatch):
    monkeypatch.setattr(doctor.sys, "executable", os.path.join(os.sep, "no", "such", "python"))  # noqa: PTH118
    with doctor._Trials(10) as trials:
        assert trials.start("say()").result().error.startswith("no process could be started: ")


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_must_be_above_zero(limit):
    with pytest.raises(ValueError, match=r"^limit is .*, expected seconds above zero$"):
        doctor.check(limit=limit)


def test_json_and_rows_say_the_same():
    found = Doctor((Check("disk", True, "9.0 GB free"), Check("torch", False, "not installed", "pip install torch")))
    assert json.loads(found.as_json()) == {
        "ok": False,
        "checks": [
            {"check": "disk", "ok": True, "found": "9.0 GB free", "mend": ""},
            {"check": "torch", "ok": False, "found": "not installed", "mend": "pip install torch"},
        ],
    }
    assert [row["state"] for row in found.rows()] == ["OK", "mend"]
    assert str(found).endswith("not ready: 1 of 2 checks needs mending")
    assert Doctor(found.checks[:1]).summary() == "ready for all lessons"
    assert ">not ready" in found._repr_html_()
