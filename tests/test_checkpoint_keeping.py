"""Best, latest and the last k: whatever happens, the latest whole checkpoint and the best one are there."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import threading
import time

import laws
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tutorlib import checkpoint
from tutorlib.checkpoint import CheckpointError, Keeper, load, saving

NAN, INF = float("nan"), float("inf")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def kept(folder):
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("*.pt"))


def flip(path):
    """One bit of the tensor's bytes, where no structure notices."""
    content = bytearray(path.read_bytes())
    content[content.index(b"\x11\x22\x33\x44" * 4)] ^= 1
    path.write_bytes(content)


MARK = torch.frombuffer(bytearray(b"\x11\x22\x33\x44" * 8), dtype=torch.int32)


def saved(keeper, step, **metrics):
    return keeper.save(step, metrics, mark=MARK, weights=torch.full((3,), float(step)))


def test_the_last_ones_and_the_best_one_stay(tmp_path):
    keeper = Keeper(tmp_path, keep=2, best="loss")
    for step, loss in enumerate([0.9, 0.2, 0.5, 0.8]):
        facts = saved(keeper, step, loss=loss)
    assert str(facts).splitlines() == [
        "3 checkpoints, latest is step 3, best is step 1",
        "file              step  loss  is",
        "step-00000001.pt     1   0.2  best",
        "step-00000002.pt     2   0.5  kept",
        "step-00000003.pt     3   0.8  latest",
    ]
    facts = saved(keeper, 4, loss=0.1)
    assert facts.removed == (1, 2) and (facts.latest, facts.best) == (4, 4) and facts.rows()[-1]["is"] == "latest and best"
    assert facts.summary() == "2 checkpoints, latest is step 4, best is step 4; removed step 1, 2"
    assert keeper.latest() == keeper.best() == tmp_path / "step-00000004.pt" and keeper.next == 5
    assert load(keeper.best())["metrics"] == {"loss": 0.1} and load(keeper.best())["step"] == 4
    assert facts.ruler()["tracks"][0]["cells"] == [{"text": "3", "state": ""}, {"text": "4", "state": "same"}]
    laws.same_text_twice(keeper.files)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, 2.0, INF, -INF, NAN]), st.sampled_from(["", "", "restart", "damage"])
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
    st.sampled_from(["min", "max"]),
    st.randoms(use_true_random=False),
)
def test_a_model_of_the_keeper_agrees_with_the_folder(tmp_path_factory, story, keep, mode, dice):
    """After every save: the last `keep` whole ones, the best whole one of all that were there, and older damaged ones gone."""
    folder = tmp_path_factory.mktemp("kept")
    keeper = Keeper(folder, keep=keep, best="loss", mode=mode)
    whole, damaged = {}, set()
    sign = 1 if mode == "min" else -1

    def best():
        rated = [(sign * loss, step) for step, loss in whole.items() if not math.isnan(loss)]
        return min(rated)[1] if rated else None

    for step, (loss, then) in enumerate(story):
        saved(keeper, step, loss=loss)
        whole[step] = loss
        last, chosen = sorted(whole)[-keep:], best()
        whole = {s: value for s, value in whole.items() if s in last or s == chosen}
        damaged = {s for s in damaged if s > last[0]}
        assert kept(folder) == sorted({*whole, *damaged})
        assert load(keeper.latest())["step"] == step
        if then == "restart":
            keeper = Keeper(folder, keep=keep, best="loss", mode=mode)
        if then == "damage" and len(whole) > 1:
            hurt = dice.choice(sorted(whole))
            flip(folder / f"step-{hurt:08d}.pt")
            del whole[hurt]
            damaged.add(hurt)
        facts = keeper.files()
        assert facts.latest == max(whole) and facts.best == best() == (load(p)["step"] if (p := keeper.best()) else None)
        assert len(facts.damaged) == len(damaged) and keeper.next == max(whole) + 1
    assert names(folder) == [f"step-{step:08d}.pt" for step in kept(folder)]


def test_the_best_model_is_a_copy_and_no_second_name_of_the_one_in_training(tmp_path):
    """The notes' trap: best = model.state_dict() goes on changing with the model."""
    model = nn.Linear(3, 1)
    keeper = Keeper(tmp_path, keep=1)
    keeper.save(0, {"loss": 0.1}, model=model)
    then, alias = model.weight.detach().clone(), model.state_dict()
    for step in range(1, 4):
        with torch.no_grad():
            model.weight += 1
        keeper.save(step, {"loss": float(step)}, model=model)
    assert torch.equal(alias["weight"], model.weight) and not torch.equal(alias["weight"], then)
    resumed = keeper.resume("best", model=model)
    assert torch.equal(model.weight, then) and resumed.values == {"step": 0, "metrics": {"loss": 0.1}}
    assert kept(tmp_path) == [0, 3]


def test_a_damaged_or_cut_latest_is_skipped_and_said(tmp_path):
    keeper, model = Keeper(tmp_path), nn.Linear(2, 1)
    for step in range(3):
        keeper.save(step, {"loss": 1.0 - step / 10}, model=model, mark=MARK)
    flip(tmp_path / "step-00000002.pt")
    resumed = keeper.resume(model=model)
    assert resumed.values["step"] == 1 and keeper.next == 2
    assert resumed.skipped[0].startswith("step-00000002.pt (damaged: ") and "; skipped step-00000002.pt (" in str(resumed)
    assert str(tmp_path) not in str(resumed)
    assert keeper.best() == tmp_path / "step-00000001.pt"
    facts = keeper.files()
    assert facts.rows()[2]["is"] == "damaged" and "not whole: step-00000002.pt (damaged: " in facts.summary()
    assert facts.ruler()["tracks"][0]["cells"][2] == {"text": "2", "state": "missing"}
    whole = (tmp_path / "step-00000001.pt").read_bytes()
    (tmp_path / "step-00000003.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "step-00000004.pt").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("left alone")
    fresh = Keeper(tmp_path)
    assert fresh.latest() == tmp_path / "step-00000001.pt" and len(fresh.files().damaged) == 3
    fresh.save(2, {"loss": 3.0}, model=model)  # the training goes on, the damaged file is replaced
    assert fresh.next == 3 and (tmp_path / "notes.txt").exists()


def test_damage_after_the_file_was_seen_is_found_where_it_counts(tmp_path):
    keeper = Keeper(tmp_path)
    for step in range(2):
        saved(keeper, step, loss=0.5)
    path = tmp_path / "step-00000001.pt"
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # nothing but the content tells
    assert keeper.latest() == tmp_path / "step-00000000.pt" == keeper.best()


def test_no_whole_checkpoint_at_all_is_an_error_and_an_empty_folder_is_none(tmp_path):
    keeper = Keeper(tmp_path / "new" / "run")
    assert keeper.latest() is None and keeper.best() is None and keeper.resume(model=nn.Linear(1, 1)) is None and keeper.next == 0
    assert str(keeper.files()) == "0 checkpoints"
    saved(keeper, 7, loss=0.5)
    flip(keeper.latest())
    for ask in (keeper.latest, keeper.best, keeper.resume, lambda: keeper.next):
        with pytest.raises(CheckpointError, match=r"no checkpoint in '.*run' is whole: step-00000007.pt \(damaged: .*\)$"):
            ask()
    saved(keeper, 8, loss=0.5)
    assert keeper.next == 9 and kept(keeper.folder) == [8]


def test_metrics_that_are_nan_or_other_numbers(tmp_path):
    keeper = Keeper(tmp_path, keep=1, best="accuracy", mode="max")
    saved(keeper, 0, accuracy=NAN)
    assert keeper.best() is None and keeper.latest() is not None
    with pytest.raises(CheckpointError, match=r"no checkpoint in '.*' has a accuracy that is a number"):
        keeper.resume("best")
    for step, value in enumerate([np.float64(0.5), torch.tensor(0.75, requires_grad=True), 0, True], 1):
        saved(keeper, step, accuracy=value, other=3)
    assert kept(tmp_path) == [4] and load(keeper.best())["metrics"] == {"accuracy": 1.0, "other": 3.0}
    saved(keeper, 5, accuracy=1.0)  # not better: the earlier one stays the best
    assert kept(tmp_path) == [4, 5]
    saved(keeper, 6, accuracy=NAN)
    assert kept(tmp_path) == [4, 6]


def test_without_a_metric_only_the_last_ones_stay(tmp_path):
    keeper = Keeper(tmp_path, keep=2, best=None)
    for step in (0, 5, 10, 10):  # the same step again replaces its file
        facts = keeper.save(step, weights=torch.ones(1))
    assert kept(tmp_path) == [5, 10] and keeper.best() is None
    assert facts.rows()[1] == {"file": "step-00000010.pt", "step": 10, "is": "latest"}


def test_bad_input_writes_nothing(tmp_path):
    for settings_, error, text in [
        ({"keep": 0}, ValueError, "keep is 0, expected how many of the last checkpoints stay, 1 or more"),
        (
            {"mode": "smallest"},
            ValueError,
            "mode is 'smallest', expected 'min' or 'max': whether a small or a large loss is good",
        ),
        ({"best": 3}, TypeError, "best is an int, expected the name of a metric such as 'loss', or None"),
    ]:
        with pytest.raises(error, match=text):
            Keeper(tmp_path / "run", **settings_)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file' is a file, expected a folder for the checkpoints"):
        Keeper(tmp_path / "file")
    keeper = Keeper(tmp_path / "run")
    for step, metrics, parts, error, text in [
        (-1, {"loss": 1}, {}, TypeError, "step is -1, expected a whole number from 0"),
        (True, {"loss": 1}, {}, TypeError, "step is True"),
        (1, None, {}, CheckpointError, r"metrics holds nothing, expected loss, .* make Keeper\(folder, best=None\); nothing was"),
        (1, {"accuracy": 1}, {}, CheckpointError, "metrics holds accuracy, expected loss"),
        (1, {"loss": "0.5"}, {}, TypeError, r"metrics\['loss'\] is a str, expected one number"),
        (1, {"loss": torch.ones(2)}, {}, TypeError, r"metrics\['loss'\] is a Tensor, expected one number"),
        (1, {"loss": None}, {}, TypeError, r"metrics\['loss'\] is a NoneType, expected one number"),
        (1, 0.5, {}, TypeError, "metrics is a float, expected numbers by name"),
        (1, {"loss": 1}, {"step": 3, "metrics": 4}, TypeError, "step and metrics cannot be the name of a part"),
    ]:
        with pytest.raises(error, match=text):
            keeper.save(step, metrics, **parts)
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="which is 'newest', expected 'latest' or 'best'"):
        keeper.resume("newest")
    with pytest.raises(CheckpointError, match="model is"):
        keeper.save(1, {"loss": 1.0}, model=object())
    assert kept(tmp_path / "run") == []


def test_an_earlier_step_than_the_latest_is_refused(tmp_path):
    saved(Keeper(tmp_path), 8, loss=0.5)
    with pytest.raises(
        CheckpointError,
        match=r"cannot save step 0: '.*' holds step-00000008.pt, which would stay the latest: resume from it, rem",
    ):
        saved(Keeper(tmp_path), 0, loss=0.5)
    assert kept(tmp_path) == [8]


def test_a_full_disk_or_a_file_that_does_not_read_back_removes_nothing(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path, keep=1)
    saved(keeper, 0, loss=0.5)
    before = (tmp_path / "step-00000000.pt").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(saving, "_flush_to_disk", full)
        with pytest.raises(CheckpointError, match=f"cannot save '.*step-00000001.pt': {os.strerror(errno.ENOSPC)}"):
            saved(keeper, 1, loss=0.1)
    assert names(tmp_path) == ["step-00000000.pt"]
    save = saving.save

    def lying(path, /, **parts):
        save(path, **parts)
        flip(path)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save", lying)  # as a disk that stores other bytes than it was given
        with pytest.raises(
            CheckpointError, match=r"step-00000001.pt' was written, but does not read back: .*; nothing was removed"
        ):
            saved(keeper, 1, loss=0.1)
    assert (tmp_path / "step-00000000.pt").read_bytes() == before and keeper.next == 1
    saved(keeper, 1, loss=0.1)
    assert kept(tmp_path) == [1]


def test_the_temporary_files_of_killed_processes_are_swept_whatever_their_step(tmp_path):
    keeper = Keeper(tmp_path)
    (tmp_path / ".step-00000099.pt.0123456789ab.tmp").write_bytes(b"half")
    (tmp_path / ".other.pt.0123456789ab.tmp").write_bytes(b"not ours")
    saved(keeper, 1, loss=0.5)
    assert names(tmp_path) == [".other.pt.0123456789ab.tmp", "step-00000001.pt"]


KILLS = """
import os, random, signal, sys, time
import torch
from tutorlib.checkpoint import Keeper, load

torch.set_num_threads(1)  # a forked copy waits for ever for the threads that it has lost

def loss_of(step):
    return random.Random(step).random()

def train(folder, told):
    keeper = Keeper(folder, keep=2)
    for step in range(keeper.next, 10**6):
        keeper.save(step, {"loss": loss_of(step)}, weights=torch.full((50_000,), float(step)))
        os.write(told, b"%d\\n" % step)

folder, dice, done = sys.argv[1], random.Random(0), -1
for _ in range(20):
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        train(folder, there)
    os.close(there)
    time.sleep(0.02 + dice.random() * 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(here) as lines:
        told = lines.read().split()
    done = int(told[-1]) if told else done
    keeper = Keeper(folder, keep=2)
    latest, best = keeper.latest(), keeper.best()
    if latest is None:
        assert done == -1, done
        continue
    found = load(latest)
    assert (found["weights"] == found["step"]).all() and found["step"] in (done, done + 1), (found["step"], done)
    assert load(best)["step"] == min(range(found["step"] + 1), key=loss_of), (best, found["step"])
    done = found["step"]
keeper.save(done + 1, {"loss": 2.0}, weights=torch.ones(1))
assert len(os.listdir(folder)) <= 3, os.listdir(folder)
print("whole", done > 20)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to start 20 processes that have imported torch")
def test_twenty_kills_at_random_moments_leave_the_latest_whole_and_the_best_there(tmp_path):
    script = tmp_path / "kills.py"
    script.write_text(KILLS)
    done = subprocess.run([sys.executable, script, tmp_path / "run"], capture_output=True, text=True, timeout=200)
    assert done.stdout.split()[:1] == ["whole"], done.stderr


TWO = """
import os, sys
import torch
from tutorlib.checkpoint import CheckpointError, Keeper

torch.set_num_threads(1)
folder = sys.argv[1]
children = []
for number in (0, 1):
    child = os.fork()
    if child == 0:
        keeper, saved = Keeper(folder, keep=2), 0
        for step in range(number, 60, 2):
            try:
                keeper.save(step, {"loss": abs(step - 20)}, weights=torch.full((1000,), float(step)))
                saved += 1
            except CheckpointError as error:
                assert "would stay the latest" in str(error), error
        os._exit(0 if saved else 1)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_in_one_folder_keep_whole_files_and_the_best(tmp_path):
    script, folder = tmp_path / "two.py", tmp_path / "run"
    script.write_text(TWO)
    running = subprocess.Popen([sys.executable, script, folder], stderr=subprocess.PIPE, text=True)
    reader, best = Keeper(folder, keep=2), None
    while running.poll() is None:  # a third one reads meanwhile: what it is given is there and whole, or just removed
        found = reader.files()
        assert not found.damaged
        if found.best is not None:
            loss = abs(found.best - 20)
            assert best is None or loss <= best
            best = loss
        time.sleep(0.05)
    assert running.returncode == 0, running.stderr.read()
    running.stderr.close()
    found = reader.files()
    assert not found.damaged and found.latest in (58, 59) and len(found.files) <= 5
    assert best is None or abs(found.best - 20) <= best


def test_a_file_that_vanishes_between_two_looks_is_no_error(tmp_path, monkeypatch):
    from tutorlib.checkpoint import keeping

    writer, reader = Keeper(tmp_path, keep=1), Keeper(tmp_path)
    saved(writer, 0, loss=0.5)
    really, times = keeping.resume, []

    def late(path, **parts):
        if not times:
            times.append(path)
            saved(writer, 1, loss=0.1)
            assert not path.exists()
        return really(path, **parts)

    monkeypatch.setattr(keeping, "resume", late)
    assert reader.resume().values["step"] == 1 and len(times) == 1


def test_threads_that_save_at_once_leave_whole_files(tmp_path):
    def run(number):
        keeper = Keeper(tmp_path, keep=3)
        for step in range(number, 24, 3):
            try:
                saved(keeper, step, loss=float(step))
            except CheckpointError as error:
                assert "would stay the latest" in str(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    facts = Keeper(tmp_path).files()
    assert not facts.damaged and facts.latest in (21, 22, 23) and not list(tmp_path.glob(".*"))


def test_a_training_killed_and_restarted_counts_on_and_is_bit_equal(tmp_path):
    """Law 5 and law 6 together: straight, against stopped anywhere and resumed by a new keeper."""

    def made():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer, "random": checkpoint.RandomState()}

    def train(folder, steps):
        parts, keeper = made(), Keeper(folder, keep=1)
        keeper.resume(**parts)
        for step in range(keeper.next, steps):
            loss = (parts["model"](torch.eye(2)) - 1).pow(2).mean()
            parts["optimizer"].zero_grad()
            loss.backward()
            parts["optimizer"].step()
            keeper.save(step, {"loss": loss}, **parts)
        return parts["model"].state_dict()

    straight = train(tmp_path / "straight", 6)
    for stop in (1, 4):
        train(tmp_path / f"stopped {stop}", stop)
        torch.rand(3)
        again = train(tmp_path / f"stopped {stop}", 6)
        assert laws.same(dict(straight), dict(again))
