"""Padding against a hand-written preallocated copy, and `strict` against default_collate; exits 1 when a goal is missed.

    python benchmarks/collating.py [ROUNDS]

Batches of 64: sequences of 10 to 200 vectors of 32 numbers, words (whole numbers), images of 20 to 60 pixels a side.
Goal: padding takes at most 1.3 of the time of a loop that copies into a batch made once, with a mask and without.
A round runs both of a pair, one after the other, some calls each, of which the quickest counts; the ratios are those of a round,
their medians are told.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from tutorlib.collate import pad, strict
from tutorlib.facts import Table

GOAL, BATCH, CALLS = 1.3, 64, 20


def by_hand(samples: list[Tensor]) -> Tensor:
    """What one writes who knows the shapes: (batch, longest, ...), zeros behind each sample."""
    longest = max(len(sample) for sample in samples)
    batch = samples[0].new_zeros(len(samples), longest, *samples[0].shape[1:])
    for i, sample in enumerate(samples):
        batch[i, : len(sample)] = sample
    return batch


def by_hand_with_mask(samples: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The same with a mask of shape (batch, longest)."""
    batch = by_hand(samples)
    mask = torch.zeros(batch.shape[:2], dtype=torch.bool)
    for i, sample in enumerate(samples):
        mask[i, : len(sample)] = True
    return batch, mask


def images_by_hand(samples: list[Tensor]) -> Tensor:
    """Images of different height and width: (batch, 3, highest, widest)."""
    height, width = (max(sample.shape[d] for sample in samples) for d in (1, 2))
    batch = samples[0].new_zeros(len(samples), 3, height, width)
    for i, sample in enumerate(samples):
        batch[i, :, : sample.shape[1], : sample.shape[2]] = sample
    return batch


def seconds(collate: Callable[[list[Any]], Any], samples: list[Any]) -> float:
    """The quickest of some calls: what else the machine does makes others slower."""
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        collate(samples)
        times.append(time.perf_counter() - begun)
    return min(times)


def tensors(result: Any) -> Iterable[Tensor]:
    return [result] if isinstance(result, Tensor) else result.values() if isinstance(result, dict) else result


def main(rounds: int) -> int:
    torch.manual_seed(0)
    lengths = torch.randint(10, 201, (BATCH,)).tolist()
    vectors, words = [torch.rand(n, 32) for n in lengths], [torch.randint(0, 30_000, (n,)) for n in lengths]
    images = [torch.rand(3, *torch.randint(20, 61, (2,)).tolist()) for _ in range(BATCH)]
    rows_of_a_table = [{"image": torch.rand(1, 28, 28), "label": i, "weight": i / 2} for i in range(BATCH)]
    pairs: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Any], float | None]] = {
        "pad, vectors": (pad, by_hand, vectors, GOAL),
        "pad, words": (pad, by_hand, words, GOAL),
        "pad(mask=True), vectors": (pad(mask=True), by_hand_with_mask, vectors, GOAL),
        "pad(mask=True), words": (pad(mask=True), by_hand_with_mask, words, GOAL),
        "pad(side='left'), words": (pad(side="left"), by_hand, words, GOAL),
        "pad(multiple=8), words": (pad(multiple=8), by_hand, words, GOAL),
        "pad(dims=(1, 2)), images": (pad(dims=(1, 2)), images_by_hand, images, GOAL),
        "strict, against default_collate": (strict, default_collate, rows_of_a_table, None),
    }
    rows: list[dict[str, object]] = []
    for name, (ours, peer, samples, goal) in pairs.items():
        made, expected = tensors(ours(samples)), tensors(peer(samples))
        if "left" not in name and "multiple" not in name:
            for one, other in zip(made, expected, strict=True):
                if not torch.equal(one, other):
                    raise SystemExit(f"{name}: another batch than that of the peer")
        times = [(seconds(ours, samples), seconds(peer, samples)) for _ in range(rounds)]
        ratio = statistics.median(mine / theirs for mine, theirs in times)
        microseconds = [round(statistics.median(column) * 1e6) for column in zip(*times, strict=True)]
        row: dict[str, object] = {"what": name, "us": microseconds[0], "peer us": microseconds[1], "ratio": round(ratio, 2)}
        rows.append({**row, "goal": goal, "ok": None if goal is None else ratio <= goal})
    print(Table(f"batches of {BATCH}, medians of {rounds} rounds of {CALLS} calls; torch {version('torch')}", rows))
    return 1 if any(row["ok"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
