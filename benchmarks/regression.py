"""The regression suite against stock `pytest --nbval` on the same lessons, in turns; exits 1 when a goal is missed.

    python benchmarks/regression.py [ROUNDS [NN ... | WAY ...]]        # a WAY is written nbval-2; without one, all are run

Ways: `nbval 1` and `suite 1` verify one lesson after the other on one core; `nbval 2` and `suite 2` two at a time on two
cores (pytest-xdist, a file a process); `exec 1` runs all cells of all lessons in one process on one core and compares
nothing: what is left when kernels cost nothing. The suite's time includes the process that kernels are forked from.
What importing torch and torchvision takes here is told too, for the ratios depend on it: the suite pays for it once, and
stock nbval once a lesson. It takes half the time where Python keeps bytecode (pip compiles what it installs; a venv made
by uv beside PYTHONDONTWRITEBYTECODE has none).
Goals: suite 1 at most 0.35 of nbval 1, suite 2 at most 0.30 of nbval 2, suite 1 at most 1.3 of exec 1.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tutorlib import lessons
from tutorlib.facts import Table

GOALS = {("suite 1", "nbval 1"): 0.35, ("suite 2", "nbval 2"): 0.30, ("suite 1", "exec 1"): 1.3}

ALL_CELLS = """
import contextlib, io, json, os, sys, tempfile
from IPython.core.interactiveshell import InteractiveShell
shell, raised = InteractiveShell.instance(), 0
for path in sys.argv[1:]:
    shell.reset(new_session=True)
    shell.user_module.__spec__ = None  # reset takes it out, and processes that are spawned ask for it
    os.chdir(tempfile.mkdtemp())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for cell in json.load(open(path, encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                ended = shell.run_cell("".join(cell["source"]), store_history=False)
                raised += not ended.success and "raises-exception" not in cell["metadata"].get("tags", [])
sys.exit(min(raised, 100))
"""
SUITE = "import sys; from tutorlib import suite; print(suite.run(sys.argv[2:], jobs=int(sys.argv[1])))"


def timed(command: Sequence[str], cores: int, folder: str) -> tuple[float, int]:
    """The seconds of a command, and its exit status."""
    environment = lessons.lesson_environment(folder) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    pin: Callable[[], None] | None = None
    if hasattr(os, "sched_setaffinity"):

        def pin() -> None:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    start = time.perf_counter()
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=pin
    )
    return time.perf_counter() - start, ended.returncode


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    words = sys.argv[2:]
    wanted = {word.replace("-", " ") for word in words if "-" in word}
    chosen = lessons.numbers([word for word in words if "-" not in word])
    notebooks = [str(lessons.lesson(number).stored("en")) for number in chosen]
    cells = sum(c["cell_type"] == "code" for path in notebooks for c in json.loads(Path(path).read_text("utf-8"))["cells"])
    nbval = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", *notebooks]
    suite = [sys.executable, "-c", SUITE]
    ways: dict[str, tuple[list[str], int]] = {
        "nbval 1": (nbval, 1),
        "suite 1": ([*suite, "1", *chosen], 1),
        "nbval 2": ([*nbval, "-n", "2", "--dist", "loadfile"], 2),
        "suite 2": ([*suite, "2", *chosen], 2),
        "exec 1": ([sys.executable, "-c", ALL_CELLS, *notebooks], 1),
    }
    if wanted - ways.keys():
        raise SystemExit(f"no way {', '.join(sorted(wanted - ways.keys()))}: expected some of {', '.join(ways)}")
    ways = {name: way for name, way in ways.items() if name in wanted or not wanted}
    found: dict[str, list[float]] = {name: [] for name in ways}
    status: dict[str, int] = {}
    for _ in range(rounds):
        for name, (command, cores) in ways.items():
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                seconds, status[name] = timed(command, cores, folder)
                found[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    ended = {name: "all well" if not code else f"status {code}" for name, code in status.items()}
    if status.get("exec 1"):
        ended["exec 1"] = f"cells that raised unasked: {status['exec 1']}"
    print(Table("seconds (median)", [{"way": n, "seconds": round(s, 1), "ended": ended[n]} for n, s in medians.items()]))
    rows, missed = [], 0
    for (ours, peer), goal in GOALS.items():
        if ours not in ways or peer not in ways:
            continue
        ratio = statistics.median(a / b for a, b in zip(found[ours], found[peer], strict=True))
        missed += ratio > goal
        rows.append({"ours": ours, "peer": peer, "ratio": round(ratio, 2), "goal": goal, "reached": ratio <= goal})
    peers = f"nbval {version('nbval')}, pytest {version('pytest')}, pytest-xdist {version('pytest-xdist')}"
    print(Table(f"{len(chosen)} lessons, {cells} cells, {rounds} rounds in turns, against {peers}", rows))
    with tempfile.TemporaryDirectory() as folder:
        imported = statistics.median(timed([sys.executable, "-c", "import torch, torchvision"], 1, folder)[0] for _ in range(3))
    print(f"importing torch and torchvision: {imported:.1f} s")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
