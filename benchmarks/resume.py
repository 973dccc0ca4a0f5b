"""Resuming at batch 10,000 against skipping to it, in turns; exits 1 when the goal is missed.

    python benchmarks/resume.py [ROUNDS]

Both begin with nothing and end with the same batch in hand: one loads the sampler's state into a new loader, the other
loops over a new loader and throws 10,000 batches away, as one has to where a loader has no state. Goal: a ratio of at most
0.01, and resuming at batch 10,000 takes no longer than at batch 100, but for noise (a factor of 2).
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from torch.utils.data import DataLoader

from tutorlib.facts import Table
from tutorlib.samplers import EpochSampler

SIZE, BATCH, AT, EARLY = 200_000, 16, 10_000, 100
GOAL = 0.01


class Images(torch.utils.data.Dataset):
    """As many images of 28 x 28 as wanted, from a thousand that are kept."""

    def __init__(self) -> None:
        self.kept = torch.rand(1000, 28, 28)

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.kept[index % 1000], index


def made(data: Images) -> tuple[EpochSampler, DataLoader]:
    sampler = EpochSampler(SIZE, BATCH, seed=1)
    return sampler, DataLoader(data, batch_sampler=sampler)


def skipped(data: Images) -> Any:
    sampler, loader = made(data)
    return next(itertools.islice(sampler.follow(loader), AT, None))


def resumed(data: Images, at: int) -> Any:
    sampler, loader = made(data)
    sampler.load_state_dict({"seed": 1, "epoch": 0, "seen": at * BATCH, "size": SIZE})
    return next(sampler.follow(loader))


def seconds(run: Any, *arguments: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    batch = run(*arguments)
    return time.perf_counter() - begun, batch


def main(rounds: int) -> int:
    data = Images()
    resumed(data, AT)  # the first call pays for what is loaded lazily
    times: dict[str, list[float]] = {"skip": [], "resume": [], "early": []}
    for _ in range(rounds):
        spent, batch = seconds(skipped, data)
        times["skip"].append(spent)
        for _ in range(5):
            spent, other = seconds(resumed, data, AT)
            times["resume"].append(spent)
            if not torch.equal(batch[1], other[1]):
                raise SystemExit("resuming gave another batch than skipping")
            times["early"].append(seconds(resumed, data, EARLY)[0])
    middle = {name: statistics.median(found) for name, found in times.items()}
    ratio, growth = middle["resume"] / middle["skip"], middle["resume"] / middle["early"]
    rows = [
        {"what": f"skip to batch {AT}", "ms": round(middle["skip"] * 1000, 2), "ratio": 1.0, "goal": None, "ok": True},
        {
            "what": f"resume at batch {AT}",
            "ms": round(middle["resume"] * 1000, 2),
            "ratio": ratio,
            "goal": GOAL,
            "ok": ratio <= GOAL,
        },
        {
            "what": f"... against batch {EARLY}",
            "ms": round(middle["early"] * 1000, 2),
            "ratio": growth,
            "goal": 2.0,
            "ok": growth <= 2,
        },
    ]
    print(Table(f"medians of {rounds} rounds, {SIZE} samples in batches of {BATCH}; torch {version('torch')}", rows))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
