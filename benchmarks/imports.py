"""What each module of tutorlib adds to importing what it needs of torch, and how soon the commands speak.

    python benchmarks/imports.py [ROUNDS] [MODULE ...]

A module's own cost is measured in a fresh process that has already imported the parts of torch the module uses; the
modules take turns, ROUNDS times (5), and the median counts. "cpu ms" is the time in which the process really ran: on a
busy machine it is the better figure. Goals: at most 50 ms a module, and the first line of
`tutorlib --help` and `tutorlib doctor` within 0.5 s. The exit code is 1 if a goal is missed.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import tutorlib
from tutorlib.facts import Table

# As for a user: compiled once and kept (a shell may forbid that; then each start compiles every module anew).
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
MODULE_GOAL, COMMAND_GOAL = 0.050, 0.5
COMMANDS = (["--help"], ["doctor"])

NEEDS = """
import sys
import {module}
print(__import__("json").dumps([name for name in sys.modules if name == "torch" or name.startswith("torch.")]))
"""
ADDS = """
import json, sys, time
import {first}
for name in json.loads(sys.argv[1]):
    try:
        __import__(name)
    except ImportError:  # a module that torch makes at run time
        pass
start, busy = time.perf_counter(), time.process_time()
import {module}
print(json.dumps([time.perf_counter() - start, time.process_time() - busy]))
"""


def modules() -> list[str]:
    package = Path(tutorlib.__file__).parent
    files = [path for path in package.glob("*.py") if path.stem not in ("__init__", "__main__")]
    folders = [path for path in package.iterdir() if (path / "__init__.py").exists()]
    return ["tutorlib", *sorted(f"tutorlib.{path.stem}" for path in [*files, *folders])]


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"a measuring process failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip().splitlines()[-1]


def first_line(arguments: list[str]) -> float:
    """Seconds until `tutorlib` has written its first line; the rest is not waited for."""
    start = time.perf_counter()
    code = "import sys; from tutorlib.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-u", "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.kill()
    if not line.strip():
        raise SystemExit(f"tutorlib {' '.join(arguments)} wrote no line")
    return seconds


def main(rounds: int, wanted: list[str]) -> int:
    names = [name for name in modules() if not wanted or name.removeprefix("tutorlib.") in wanted]
    needs = {name: json.loads(python(NEEDS.format(module=name))) for name in names}
    added: dict[str, list[list[float]]] = {name: [] for name in names}
    spoke: dict[str, list[float]] = {" ".join(command): [] for command in COMMANDS}
    for _ in range(rounds):
        for name in names:
            first = "torch" if needs[name] else "sys"
            added[name].append(json.loads(python(ADDS.format(module=name, first=first), json.dumps(needs[name]))))
        for command in COMMANDS:
            spoke[" ".join(command)].append(first_line(command))
    rows: list[dict[str, object]] = []
    for name, times in added.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append(row(name, wall, MODULE_GOAL, cpu, bool(needs[name])))
    rows += [row(f"tutorlib {name}: first line", statistics.median(times), COMMAND_GOAL) for name, times in spoke.items()]
    print(Table(f"median of {rounds} alternating runs; Python {sys.version.split()[0]}, torch {version('torch')}", rows))
    return 0 if all(line["ok"] for line in rows) else 1


def row(what: str, seconds: float, goal: float, cpu: float | None = None, torch: bool = False) -> dict[str, object]:
    figures = {"ms": round(seconds * 1000, 1), "cpu ms": None if cpu is None else round(cpu * 1000, 1), "goal ms": goal * 1000}
    return {"what": what, **figures, "ok": seconds <= goal, "after torch": torch}


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    sys.exit(main(numbers[0] if numbers else 5, [argument for argument in sys.argv[1:] if not argument.isdecimal()]))
