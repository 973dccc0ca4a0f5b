"""What batching by length saves: padding as a share of the padded batches, against random batches; exits 1 if the goal is missed.

    python benchmarks/padding.py [SAMPLES]

The lengths are long-tailed, as those of sentences and documents are. Nothing is timed but the planning; the shares are the
same in every run. Goal: at most 0.2 of the padding of random batches, with the same limit on a batch, for each limit.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from tutorlib.facts import Table
from tutorlib.samplers import LengthBatches

GOAL = 0.2


def main(samples: int) -> int:
    lengths = np.minimum(2048, np.random.RandomState(0).lognormal(4, 1, samples).astype(np.int64) + 1)
    rows: list[dict[str, object]] = []
    limits: list[dict[str, Any]] = [{"budget": 16384}, {"batch_size": 64}, {"budget": 16384, "batch_size": 64}]
    for limit in limits:
        for world in (1, 8):
            begun = time.perf_counter()
            sampler = LengthBatches(lengths, seed=1, rank=0, world=world, **limit)
            planned = time.perf_counter() - begun
            found = sampler.padding()
            ratio = found.share / found.random
            row = {
                "limit": ", ".join(f"{name} {value}" for name, value in limit.items()),
                "ranks": world,
                "steps": len(sampler.plan),
            }
            shares = {"by length": found.share, "random": found.random, "ratio": ratio, "goal": GOAL, "ok": ratio <= GOAL}
            rows.append({**row, **shares, "ms to plan": round(planned * 1000)})
    print(Table(f"{samples} samples of 1 to {lengths.max()}, {lengths.mean():.0f} on average: share of padding", rows))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
