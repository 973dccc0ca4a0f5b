"""EpochSampler on real torch.distributed ranks: of one machine, and under torchrun."""

import json
import multiprocessing
import os
import subprocess
import sys

import torchrun_epochs
from laws import exactly_once

from tutorlib import ranks

QUICK = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def test_real_ranks_read_everything_once_and_go_on_with_others():
    multiprocessing.set_forkserver_preload(["tutorlib.ranks", "tutorlib.samplers"])
    done = ranks.run(torchrun_epochs.some_steps, None, 4, 6, 1, world=2, start_method=QUICK)
    assert all(agreed for _, _, agreed in done) and done[0][1] == {"seed": 5, "epoch": 0, "seen": 48, "size": 101}
    rest = ranks.run(torchrun_epochs.some_steps, done[0][1], 99, 7, world=3, start_method=QUICK)
    assert rest[2][1] == {"seed": 5, "epoch": 1, "seen": 0, "size": 101}
    exactly_once([batch for batches, _, _ in [*done, *rest] for batch in batches], range(101))
    assert {len(batches) for batches, _, _ in rest} == {3}


def test_under_torchrun_an_epoch_begun_by_two_processes_is_finished_by_three(tmp_path):
    for world, steps in ((2, 5), (3, 99)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        arguments = [torchrun_epochs.__file__, str(tmp_path), str(steps)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("?-?.json")}
    assert sorted(found) == ["2-0", "2-1", "3-0", "3-1", "3-2"]
    exactly_once([batch for batches in found.values() for batch in batches], range(101))
    assert {len(found["2-0"]), len(found["2-1"])} == {5} and len({len(found[f"3-{rank}"]) for rank in range(3)}) == 1
    assert json.loads((tmp_path / "state.json").read_text()) == {"seed": 5, "epoch": 1, "seen": 0, "size": 101}
