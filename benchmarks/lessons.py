"""How long each lesson runs and how large its stored notebooks are; exits 1 when a goal is missed.

    python benchmarks/lessons.py [ROUNDS] [NN ...]

A lesson is run as `tutorlib test NN` runs it: a fresh kernel, every cell, every output compared. Lessons take turns,
ROUNDS times (3), and the median counts. Goals: at most 60 s a lesson (the kernel's start and the imports included), and
at most 300 kB for each committed notebook. "of goal" is the ratio of the median to the goal.
"""

import os
import statistics
import sys
import time
from importlib.metadata import version

from tutorlib import lessons, suite
from tutorlib.facts import Table

SECONDS, BYTES = 60.0, 300_000


def seconds(number: str) -> float:
    start = time.perf_counter()
    report = suite.run([number], jobs=1)
    spent = time.perf_counter() - start
    if not report.ok:
        raise SystemExit(f"lesson {number} does not pass, so its time means nothing: `tutorlib test {number}` says why")
    return spent


def main(rounds: int, wanted: list[str]) -> int:
    chosen = [lessons.lesson(number) for number in lessons.numbers(wanted)]
    times: dict[str, list[float]] = {one.number: [] for one in chosen}
    for _ in range(rounds):
        for number, kept in times.items():
            kept.append(seconds(number))
    rows = []
    for one in chosen:
        median = statistics.median(times[one.number])
        sizes = {language: one.stored(language).stat().st_size for language in lessons.LANGUAGES}
        rows.append(
            {
                "lesson": one.name,
                "s": round(median, 1),
                "of goal": round(median / SECONDS, 2),
                **{f"kB {language}": round(size / 1000, 1) for language, size in sizes.items()},
                "ok": median <= SECONDS and max(sizes.values()) <= BYTES,
            }
        )
    said = f"median of {rounds} rounds in turns on {os.cpu_count()} cores; torch {version('torch')}; goals {SECONDS:g} s, 300 kB"
    print(Table(said, rows))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    arguments = sys.argv[1:]
    rounds = int(arguments.pop(0)) if arguments and arguments[0].isdecimal() and len(arguments[0]) == 1 else 3
    sys.exit(main(rounds, arguments))
