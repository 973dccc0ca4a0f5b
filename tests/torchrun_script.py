"""One function on ranks: under torchrun, or alone with plain python. Used by test_ranks.py."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tutorlib import ranks


def total(base: int) -> list[int]:
    """The sum over the ranks of base + rank, and what each rank added."""
    mine = torch.tensor([base + dist.get_rank()])
    parts = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    dist.all_reduce(mine)
    return [int(mine), *(int(part) for part in parts)]


if __name__ == "__main__":
    with ranks.here() as place:
        # One file for each rank: torchrun lets the ranks write into one another's lines.
        Path(sys.argv[1], f"{place.rank}.txt").write_text(f"{place.rank} of {place.world}: {total(10)}")
    assert not dist.is_initialized()
