"""Half an epoch on some ranks, the rest on others: what each rank read, written to a folder. Used by test_samplers_ranks.py.

    torchrun --nproc-per-node=2 torchrun_epochs.py FOLDER STEPS

goes on where FOLDER/state.json says, if there is one, and stops after STEPS steps or at the end of the epoch.
"""

import itertools
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from tutorlib import ranks
from tutorlib.samplers import EpochSampler

SIZE = 101


def some_steps(state: dict | None, steps: int, batch_size: int, workers: int = 0) -> tuple[list[list[int]], dict, bool]:
    """This rank's batches, the state after them, and whether all ranks agree on it; at each step all meet, as in training."""
    sampler = EpochSampler(SIZE, batch_size, seed=5)  # its rank comes from the group
    if state is not None:
        sampler.load_state_dict(state)
    loader = DataLoader(range(SIZE), batch_sampler=sampler, num_workers=workers)
    batches = []
    for batch in itertools.islice(sampler.follow(loader), steps):
        batches.append(batch.tolist())
        together = torch.tensor([1.0, sampler.weight])
        dist.all_reduce(together)  # would hang if a rank had fewer steps
        assert together[0] == dist.get_world_size() and abs(together[1] - together[0]) < 1e-4
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, sampler.state_dict())
    return batches, sampler.state_dict(), all(one == states[0] for one in states)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with ranks.here() as place:
        saved = folder / "state.json"
        before = json.loads(saved.read_text()) if saved.exists() else None
        dist.barrier()  # all have read it before one writes it
        found, state, agreed = some_steps(before, int(sys.argv[2]), batch_size=4 + place.world)
        assert agreed
        (folder / f"{place.world}-{place.rank}.json").write_text(json.dumps(found))
        if place.rank == 0:
            saved.write_text(json.dumps(state))
