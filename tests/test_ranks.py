"""One function on real ranks: results in order, one clear error for what goes wrong, and nothing left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torchrun_script

from tutorlib import ranks
from tutorlib.ranks import RankError, here, run

# The default, spawn, imports torch anew in each rank: seconds. Most tests let ranks fork from a server that has imported it.
QUICK = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@pytest.fixture(scope="module", autouse=True)
def server():
    multiprocessing.set_forkserver_preload(["tutorlib.ranks"])
    run(os.getpid, world=1, start_method=QUICK)


def about_me(*values, **names):
    """All that a rank can see, in one call: each run of two processes costs seconds."""
    rank = dist.get_rank()
    print(f"hello from {rank}")
    print("a warning", file=sys.stderr)
    return {
        "place": here_place(),
        "total": torchrun_script.total(10),
        "variables": {n: os.environ[n] for n in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")},
        "values": values,
        "names": names,
        "tensor": torch.full((2,), float(rank)),
        "pid": os.getpid(),
    }


def here_place():
    with here() as place:
        return tuple(place)


def test_each_rank_runs_the_function_in_one_group_and_its_result_comes_back(capfd):
    found = run(about_me, 1, torch.ones(1), world=2, word="x")
    out, err = capfd.readouterr()
    assert out == "hello from 0\nhello from 1\n" and err == ""
    for rank, one in enumerate(found):
        assert one["place"] == (rank, 2) and one["total"] == [21, 10, 11]
        assert one["variables"] == {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        assert one["values"] == (1, torch.ones(1)) and one["names"] == {"word": "x"}
        assert one["tensor"].tolist() == [rank, rank]
        assert gone(one["pid"])
    assert "RANK" not in os.environ and not dist.is_initialized()


def gone(pid: int) -> bool:
    """Whether no such process is alive (one that only waits to be collected is not)."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OSError):
            return True
        with contextlib.suppress(OSError):  # no /proc on this system, or the process ended since the line above
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        time.sleep(0.1)
    return False


def raise_on_one(folder):
    Path(folder, str(dist.get_rank())).write_text(str(os.getpid()))
    dist.barrier()
    print("before", dist.get_rank())
    if dist.get_rank() == 1:
        raise ValueError("no samples\nfor this rank")
    dist.barrier()


def pids(folder: Path) -> list[int]:
    return [int(entry.read_text()) for entry in folder.iterdir()]


def test_a_rank_that_raises_is_named_with_its_line_and_the_others_are_ended(tmp_path, capfd):
    with pytest.raises(RankError) as caught:
        run(raise_on_one, tmp_path, start_method=QUICK)
    assert str(caught.value) == "rank 1 of 2 raised ValueError: no samples; the other rank was ended"
    assert caught.value.rank == 1 and caught.value.line == "ValueError: no samples"
    assert 'raise ValueError("no samples' in caught.value.logs[1]
    assert capfd.readouterr().out == "before 0\nbefore 1\n"
    assert len(pids(tmp_path)) == 2 and all(map(gone, pids(tmp_path)))


def die_on_one(folder):
    Path(folder, str(dist.get_rank())).write_text(str(os.getpid()))
    dist.barrier()
    if dist.get_rank() == 1:
        os._exit(3)
    dist.barrier()


def test_a_rank_that_dies_is_named_before_those_that_miss_it(tmp_path):
    with pytest.raises(RankError) as caught:
        run(die_on_one, tmp_path, start_method=QUICK)
    assert str(caught.value) == "rank 1 of 2 died without an error of its own: exit code 3; the other rank was ended"
    assert all(map(gone, pids(tmp_path)))


def wait_on_one(folder):
    Path(folder, str(dist.get_rank())).write_text(str(os.getpid()))
    if dist.get_rank() == 1:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        Path(folder, "worker").write_text(str(worker.pid))
        worker.wait()
    return 0


def test_a_rank_that_is_not_done_in_time_is_ended_with_its_workers(tmp_path):
    with pytest.raises(RankError) as caught:
        run(wait_on_one, tmp_path, limit=10, start_method=QUICK)
    assert str(caught.value) == "rank 1 of 2: not done within 10 s; all ranks were ended"
    assert len(pids(tmp_path)) == 3 and all(map(gone, pids(tmp_path)))


def return_a_lock():
    return threading.Lock()


class Unknown:
    """Pickles well here, and cannot be loaded elsewhere."""

    def __reduce__(self):
        return missing, ()


def missing():
    raise AttributeError("Can't get attribute 'Squares' on <module '__main__'>")


def test_what_cannot_travel(monkeypatch):
    with pytest.raises(TypeError) as caught:
        run(lambda: 1)
    assert str(caught.value) == (
        "the ranks cannot import test_what_cannot_travel.<locals>.<lambda>: "
        "define it in a module, or in a cell under %%importable"
    )
    with pytest.raises(
        TypeError, match=r"about_me and its arguments cannot be sent to the ranks: .*lock.*: define it in a module"
    ):
        run(about_me, threading.Lock())
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(about_me, "__module__", "__main__")
    with pytest.raises(
        TypeError, match="the ranks cannot import about_me: define it in a module, or in a cell under %%importable"
    ):
        run(about_me)


def test_arguments_that_cannot_be_loaded_and_results_that_cannot_be_sent():
    with pytest.raises(RankError) as caught:
        run(about_me, Unknown(), world=1, start_method=QUICK)
    assert str(caught.value) == (
        "rank 0 of 1 cannot load the function or its arguments: AttributeError: "
        "Can't get attribute 'Squares' on <module '__main__'>: define it in a module, or in a cell under %%importable"
    )
    with pytest.raises(
        RankError, match="rank 0 of 1 raised TypeError: it returned lock, which cannot be sent back: TypeError: cannot"
    ):
        run(return_a_lock, world=1, start_method=QUICK)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"world": 0}, "world is 0, expected the number of ranks, 1 or more"),
        ({"world": True}, "world is True, expected the number of ranks, 1 or more"),
        ({"limit": 0}, "limit is 0, expected seconds, more than 0"),
        ({"start_method": "thread"}, "start_method is 'thread', expected one of "),
    ],
)
def test_bad_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        run(about_me, **settings)


def test_on_windows_the_store_does_without_libuv(monkeypatch):
    """Torch's Windows builds have none. Only the parent's store can be asked here; the ranks ask the same question."""
    kept = []
    real = ranks.dist.TCPStore
    monkeypatch.setattr(ranks.dist, "TCPStore", lambda *args, **kwargs: kept.append(kwargs["use_libuv"]) or real(*args, **kwargs))
    monkeypatch.setattr(ranks, "_libuv", lambda: False)
    assert ranks.run(dist.get_rank, world=1, start_method=QUICK) == [0] and kept == [False], "this backend works too"
    monkeypatch.undo()
    for system, libuv in (("win32", False), ("linux", True), ("darwin", True)):
        monkeypatch.setattr(ranks.sys, "platform", system)
        assert ranks._libuv() is libuv


def test_ranks_end_when_the_process_that_started_them_is_killed(tmp_path):
    call = f"run(test_ranks.wait_on_one, {str(tmp_path)!r}, start_method={QUICK!r})"
    code = f"import test_ranks; from tutorlib.ranks import run; {call}"
    folder = tempfile.mkdtemp()  # its own, and short: a socket's path must be
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": folder}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env)
    try:
        for _ in range(1200):
            if len(list(tmp_path.iterdir())) == 3:
                break
            time.sleep(0.1)
    finally:
        parent.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        parent.wait()
    assert len(pids(tmp_path)) == 3 and all(map(gone, pids(tmp_path)))
    assert list(Path(folder).glob("tutorlib-ranks-*")) == []
    shutil.rmtree(folder, ignore_errors=True)


def test_the_same_function_runs_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", torchrun_script.__file__]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0 of 2: [21, 10, 11]", "1 of 2: [21, 10, 11]"]


def test_alone_a_process_is_the_only_rank():
    with ranks.here() as place:
        assert tuple(place) == (0, 1) and torchrun_script.total(10) == [10, 10]
        with ranks.here() as inner:
            assert inner == place
        assert dist.is_initialized()
    assert not dist.is_initialized() and "GLOO_SOCKET_IFNAME" not in os.environ
