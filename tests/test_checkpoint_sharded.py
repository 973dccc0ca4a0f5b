"""Written by two ranks, read by one and by three, committed whole or not at all, and nothing in it is ever run."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import pickletools
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tutorlib import ranks
from tutorlib.checkpoint import CheckpointError, RandomState, inspect_sharded, load_sharded, save_sharded, sharded

QUICK = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def server_with(modules):
    """A new server from which ranks fork: one that runs already keeps what it imported, and no more."""
    if QUICK == "forkserver":
        with contextlib.suppress(AttributeError):  # not public; without it the ranks are only slower
            multiprocessing.forkserver._forkserver._stop()
        multiprocessing.set_forkserver_preload(modules)


@pytest.fixture(scope="module")
def quick():
    server_with(["tutorlib.ranks", "torch.distributed.tensor", "torch.distributed.checkpoint", "torch._dynamo"])
    yield QUICK
    server_with(["tutorlib.ranks"])


def whole():
    return torch.arange(24.0).reshape(6, 4)


class Net(nn.Module):
    """One weight cut over the ranks, as under `fully_shard`, one tensor that all hold, and a module without state."""

    def __init__(self, value=0.0, cut=True):
        super().__init__()
        weight = whole() + value
        if cut and dist.is_initialized():
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.tensor import Shard, distribute_tensor

            weight = distribute_tensor(weight, init_device_mesh("cpu", (dist.get_world_size(),)), [Shard(0)])
        self.weight = nn.Parameter(weight)
        self.norm = nn.BatchNorm1d(3)
        self.act = nn.ReLU()


def made(value=0.0, steps=0):
    model = Net(value)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters() if steps else ():  # as `steps` steps would; a first step imports for seconds
        with torch.no_grad():
            parameter -= steps
        optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter.detach(), steps)
    return {"model": model, "optimizer": optimizer}


def seen(model, optimizer):
    """The weight and its momentum, whole."""
    momentum = optimizer.state[model.weight].get("momentum_buffer")
    pieces = [model.weight.detach(), momentum]
    return [piece.full_tensor() if hasattr(piece, "full_tensor") else piece for piece in pieces]


def trial(work):
    try:
        return work()
    except CheckpointError as error:
        return str(error)


# ----------------------------------------------------------------------------------------------------- on real ranks


def saves(room):
    """All that two ranks do in one run: each run costs seconds."""
    rank = dist.get_rank()
    parts = made(steps=2)
    facts = save_sharded(f"{room}/plain", **parts, epoch=3, **{f"mine_{rank}": rank * 10})
    later = made(steps=2)
    handle = save_sharded(f"{room}/later", wait=False, **later, epoch=4)
    going = threading.active_count()
    with torch.no_grad():
        for parameter in later["model"].parameters():
            parameter.zero_()  # training goes on; so does a collective of its own
    dist.all_reduce(torch.ones(1))
    late = handle.wait(60)
    with torch.no_grad():
        parts["model"].norm.bias += rank
    texts = [
        trial(lambda: save_sharded(f"{room}/differs", model=parts["model"], rank=rank)),
        trial(lambda: save_sharded(f"{room}/one", **({"good": 1} if rank == 0 else {"bad": lambda: 0}))),
        trial(lambda: load_sharded(f"{room}/plain", **(parts if rank == 0 else {"model": parts["model"], "none": nn.ReLU()}))),
    ]
    return {"rows": facts.rows(), "late": late.rows(), "going": going > 1, "texts": texts, "weight": seen(**made(steps=2))}


def loads(room):
    parts = made(value=7.0)
    loaded = load_sharded(f"{room}/plain", **parts)
    late = made(value=7.0)
    load_sharded(f"{room}/later", **late)
    return {"parts": seen(**parts), "late": seen(**late), "values": loaded.values, "local": len(parts["model"].weight.to_local())}


@pytest.fixture(scope="module")
def room(tmp_path_factory, quick):
    room = tmp_path_factory.mktemp("sharded")
    found = ranks.run(saves, str(room), world=2, start_method=quick)
    return room, found


def test_two_ranks_each_write_their_share(room):
    _, (one, two) = room
    assert one["rows"] == two["rows"], "all are told the same"
    told = {(row["key"], row["part"]): (row["rank"], row["bytes"]) for row in one["rows"]}
    assert told["model.weight", "[0:3, 0:4]"] == (0, 48) and told["model.weight", "[3:6, 0:4]"] == (1, 48)
    assert told["optimizer.state.0.momentum_buffer", "[3:6, 0:4]"] == (1, 48)
    once = [row for row in one["rows"] if row["key"] == "model.norm.running_var"]
    assert len(once) == 1, "what all hold is written once"
    assert {row["key"]: row["rank"] for row in one["rows"] if row["key"].startswith("mine")} == {"mine_0": 0, "mine_1": 1}


def test_one_process_loads_what_two_ranks_saved(room):
    folder, (one, _) = room
    for name, epoch in (("plain", 3), ("later", 4)):
        parts = made(value=7.0)
        loaded = load_sharded(folder / name, **parts)
        for found, expected in zip(seen(**parts), one["weight"], strict=True):
            assert torch.equal(found, expected), f"{name}: as it was when save_sharded was called"
        assert loaded.values["epoch"] == epoch
        assert parts["optimizer"].param_groups[0]["lr"] == 0.1
    assert load_sharded(folder / "plain").values == {"epoch": 3, "mine_0": 0, "mine_1": 10}


def test_three_ranks_load_what_two_ranks_saved(room, quick):
    folder, (one, _) = room
    for found in ranks.run(loads, str(folder), world=3, start_method=quick):
        assert found["local"] == 2 and found["values"] == {"epoch": 3, "mine_0": 0, "mine_1": 10}
        for kind in ("parts", "late"):
            assert all(torch.equal(a, b) for a, b in zip(found[kind], one["weight"], strict=True)), kind


def test_an_asynchronous_save_goes_on_beside_the_training(room):
    _, found = room
    assert all(one["going"] for one in found)
    assert found[0]["late"] == [row for row in found[0]["rows"] if not row["key"].startswith("mine")]


def test_one_error_on_every_rank_and_nothing_written(room):
    folder, (one, two) = room
    assert one["texts"] == two["texts"]
    differs, bad, absent = one["texts"]
    assert "model.norm.bias is another value on rank 0 than on rank 1; rank is another value on rank 0" in differs
    assert "only one of them would be written: make them equal, or give each rank's a name of its own" in differs
    assert "rank 1 of 2: bad is the function or class <lambda>, which load would refuse" in bad
    assert "rank 1 of 2: there is no none: it holds model, optimizer, epoch, mine_" in absent
    assert all(text.endswith("; nothing was changed") for text in one["texts"])
    assert sorted(path.name for path in folder.iterdir()) == ["later", "plain"]


def test_torch_alone_reads_the_folder_too(room):
    import torch.distributed.checkpoint as dcp

    folder, (one, _) = room
    state = {"model": {"weight": torch.zeros(6, 4)}, "epoch": 0}
    with pytest.warns(UserWarning, match="assuming the intent is to load in a single process"):
        dcp.load(state, checkpoint_id=folder / "plain")
    assert torch.equal(state["model"]["weight"], one["weight"][0]) and state["epoch"] == 3


def my_piece(value):
    """Plain tensors with a name of their own for each rank: a DTensor would import for seconds in every rank."""
    return {f"piece_{dist.get_rank()}": torch.full((5,), value)}


def saved_by_torch(folder):
    import torch.distributed.checkpoint as dcp

    dcp.save(my_piece(1.0), checkpoint_id=folder)


def saved_by_us(folder):
    save_sharded(folder, **my_piece(1.0))


def killed_in_the_middle(folder, way):
    """Rank 1 is killed when its bytes are written and not yet flushed."""
    import torch.distributed.checkpoint as dcp

    if dist.get_rank() == 1:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    if way == "torch":
        dcp.save(my_piece(2.0), checkpoint_id=folder)
    else:
        save_sharded(folder, **my_piece(2.0))


def both_pieces(folder, verify=True):
    pieces = {f"piece_{rank}": torch.zeros(5) for rank in range(2)}
    load_sharded(folder, verify=verify, **pieces)
    return [piece.unique().tolist() for piece in pieces.values()]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL there")
def test_a_rank_killed_in_the_middle_leaves_the_checkpoint_before_or_none(tmp_path, quick):
    for name, save in (("torch", saved_by_torch), ("ours", saved_by_us)):
        ranks.run(save, str(tmp_path / name), world=2, start_method=quick)
        assert both_pieces(tmp_path / name, verify=name == "ours") == [[1.0], [1.0]]
    for name, way in (("torch", "torch"), ("ours", "ours"), ("fresh", "ours")):
        with pytest.raises(ranks.RankError, match="rank 1 of 2 died without an error of its own: killed by SIGKILL"):
            ranks.run(killed_in_the_middle, str(tmp_path / name), way, world=2, start_method=quick)

    assert both_pieces(tmp_path / "ours") == [[1.0], [1.0]], "the checkpoint before, bit by bit"
    assert both_pieces(tmp_path / "torch", verify=False) != [[1.0], [1.0]], "torch's own is no longer that, and says nothing"

    fresh = tmp_path / "fresh"
    assert not fresh.exists()
    with pytest.raises(CheckpointError, match=r"cannot load .*: there is no such folder; beside it are ours, torch; nothing was"):
        load_sharded(fresh)
    save_sharded(fresh, epoch=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "ours", "torch"], "and what the dead left is swept"


# ----------------------------------------------------------------------------------------------------- one process


def saved(folder, **more):
    model = Net(cut=False)
    save_sharded(folder, model=model, epoch=3, **more)
    return model


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_kind_of_state_comes_back_as_it_was(tmp_path):
    """Where torch's own gives text for numbers as keys, and loses empty dictionaries."""
    torch.manual_seed(0)
    odd = {1: "a", "1x": {}, "l": [torch.ones(2), {"n": None}], "t": (torch.zeros(1), 2), 2.5: [], None: True, "s": {1, 2}}
    model, generator = Net(cut=False), torch.Generator().manual_seed(5)
    optimizer = torch.optim.Adam(model.parameters())
    save_sharded(
        tmp_path / "c", odd=odd, relu=nn.ReLU(), fresh=optimizer, random=RandomState(), generator=generator, tensor=whole()
    )
    expected, drawn = torch.rand(3), torch.rand(2, generator=generator)

    tensor, other = torch.zeros(6, 4), torch.Generator()
    parts = {"relu": nn.ReLU(), "fresh": torch.optim.Adam(model.parameters()), "random": RandomState()}
    loaded = load_sharded(tmp_path / "c", **parts, generator=other, tensor=tensor, odd=Holder(got := {}))
    assert (
        torch.equal(torch.rand(3), expected)
        and torch.equal(torch.rand(2, generator=other), drawn)
        and torch.equal(tensor, whole())
    )
    assert list(got) == list(odd) and got["l"][0].tolist() == [1, 1] and got["t"][1] == 2
    assert {key: value for key, value in got.items() if key not in ("l", "t")} == {
        k: v for k, v in odd.items() if k not in ("l", "t")
    }
    assert loaded.rows()[0] == {"part": "relu", "kind": "ReLU", "tensors": 0, "outcome": "resumed"}


class Holder:
    """A part of one's own."""

    def __init__(self, into):
        self.into = into

    def state_dict(self):
        return dict(self.into)

    def load_state_dict(self, state):
        self.into.clear()
        self.into.update(state)
        if "refuse" in state:
            raise KeyError("no such thing")


@settings(max_examples=15, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab.", max_size=3) | st.just(torch.arange(3)),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2) | st.integers(0, 3), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_a_value_comes_back_or_is_refused(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("law") / "c"
    try:
        save_sharded(folder, value=value)
    except CheckpointError as error:
        assert "duplicated flatten key" in str(error)
        return
    into = {}
    if sharded.inspect_sharded(folder).shapes and isinstance(value, dict):
        load_sharded(folder, value=Holder(into))
        found = into
    elif not sharded.inspect_sharded(folder).shapes:
        found = load_sharded(folder).values["value"]
    else:
        return
    assert repr(found) == repr(value)


def test_versions_of_modules_travel(tmp_path):
    saved(tmp_path / "c")
    heard = []
    model = Net(cut=False)
    model.norm._load_from_state_dict = lambda state, prefix, meta, *_: heard.append(meta.get("version"))
    load_sharded(tmp_path / "c", model=model)
    assert heard == [2]


def test_a_new_save_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "c"
    saved(folder)
    before = files(folder)
    save_sharded(folder, model=Net(5.0, cut=False), epoch=4)
    assert files(folder) == [".metadata", "2.json", "2__0_0.distcp"] and before == [".metadata", "1.json", "1__0_0.distcp"]
    assert load_sharded(folder, model=(model := Net(cut=False))).values == {"epoch": 4}
    assert torch.equal(model.weight, whole() + 5)


def test_a_save_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    saved(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharded, "_write", full)
    for goal in (folder, tmp_path / "new"):
        with pytest.raises(CheckpointError, match=r"cannot save .*: rank 0: No space left on device; nothing was changed"):
            save_sharded(goal, model=Net(cut=False))
        with pytest.raises(CheckpointError, match="No space left on device; nothing was changed"):
            save_sharded(goal, wait=False, model=Net(cut=False)).wait()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and files(tmp_path) == ["c"]


def test_a_failed_save_that_nobody_waited_for_is_told_by_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sharded, "_write", lambda path, content: 1 / 0)
        handle = save_sharded(tmp_path / "c", wait=False, model=Net(cut=False))
        with contextlib.suppress(TimeoutError):
            handle.wait(0)
        while not handle.done:
            pass
    with pytest.raises(
        CheckpointError, match=r"the save before failed, and nobody waited for it: cannot save .*ZeroDivisionError"
    ):
        save_sharded(tmp_path / "d", model=Net(cut=False))
    save_sharded(tmp_path / "d", model=Net(cut=False))
    assert repr(handle) == "<saving 'c': done>"


def test_a_wait_with_a_limit(tmp_path, monkeypatch):
    write, go_on = sharded._write, threading.Event()
    monkeypatch.setattr(sharded, "_write", lambda *arguments: go_on.wait(30) and write(*arguments))
    handle = save_sharded(tmp_path / "c", wait=False, model=Net(cut=False))
    with pytest.raises(TimeoutError, match=r"'c' is not saved within 0.05 s"):
        handle.wait(0.05)
    assert not handle.done and not (tmp_path / "c").exists() and repr(handle) == "<saving 'c': going on>"
    go_on.set()
    assert handle.wait(60).rows() == handle.wait().rows() == inspect_sharded(tmp_path / "c").rows()


def test_folders_of_other_things_are_left_alone(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"the folder holds other things \(thesis.txt\): name a new folder"):
        saved(tmp_path / "home")
    with pytest.raises(CheckpointError, match="it is a file: name a folder"):
        saved(tmp_path / "file")
    with pytest.raises(CheckpointError, match="the folder in which it should stand does not exist"):
        saved(tmp_path / "no" / "c")
    with pytest.raises(CheckpointError, match=r"name the parts, for example save_sharded\(folder, model=model, epoch=3\)"):
        save_sharded(tmp_path / "c")
    saved(tmp_path / "empty")
    assert files(tmp_path) == ["empty", "file", "home"] and files(tmp_path / "home") == ["thesis.txt"]


@pytest.mark.skipif(sharded.saving.fcntl is None, reason="no locks there")
def test_two_saves_do_not_mix(tmp_path):
    saved(tmp_path / "c")
    stage = sharded._Stage(tmp_path / "c")
    stage.make()
    with pytest.raises(CheckpointError, match="another save into it is going on: wait for it"):
        saved(tmp_path / "c")
    stage.give_up()
    saved(tmp_path / "c")
    living, other = sharded._Stage(tmp_path / "d"), sharded._Stage(tmp_path / "d")
    living.make()
    other.make()
    assert living.path.is_dir(), "what a living save writes is not swept"
    living.give_up()
    other.give_up()
    assert files(tmp_path) == ["c"]


# ----------------------------------------------------------------------------------------------------- damage


def test_no_flipped_bit_loads_silently(tmp_path):
    folder = tmp_path / "c"
    saved(folder)
    expected, names = load_sharded(folder).values, files(folder)
    random = torch.Generator().manual_seed(0)
    silent = []
    for name in names:
        content = (folder / name).read_bytes()
        for _ in range(40):
            bit = int(torch.randint(len(content) * 8, (1,), generator=random))
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(damaged)
            model = Net(9.0, cut=False)
            try:
                load_sharded(folder, model=model)
                silent.append((name, bit))
            except CheckpointError:
                assert torch.equal(model.weight, whole() + 9), "nothing was changed"
        for cut in (0, 1, len(content) // 2, len(content) - 1):
            (folder / name).write_bytes(content[:cut])
            with pytest.raises(CheckpointError):
                load_sharded(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError):
            load_sharded(folder)
        (folder / name).write_bytes(content)
    assert silent == [] and load_sharded(folder).values == expected


def test_damage_is_told_with_the_file_and_who_wrote_it(tmp_path):
    folder = tmp_path / "c"
    saved(folder)
    data = folder / "1__0_0.distcp"
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        CheckpointError, match=r"cannot load .*: 1__0_0.distcp, written by rank 0, is damaged: its sha256 is another; noth"
    ):
        load_sharded(folder)
    data.write_bytes(content + b"x")
    with pytest.raises(CheckpointError, match=r"written by rank 0, has \d+ bytes, expected \d+: it is damaged"):
        load_sharded(folder)
    data.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match=r"lies beyond the end of 1__0_0.distcp: it is cut off"):
        load_sharded(folder)


def test_parts_that_do_not_fit_are_told_all_at_once(tmp_path):
    folder = tmp_path / "c"
    model = saved(folder, optimizer=torch.optim.SGD(Net(cut=False).parameters(), lr=0.1))
    other = nn.ModuleDict({"norm": nn.BatchNorm1d(4), "more": nn.Linear(1, 1)}).double()
    with pytest.raises(CheckpointError) as error:
        load_sharded(folder, model=other, optimizer=torch.optim.Adam(model.parameters()), none=nn.ReLU())
    for text in (
        "model.more.weight is missing",
        "model.weight is not expected",
        "model.norm.bias is float32 (3,) there, float64 (4,) here",
        "optimizer was saved from SGD, here it is Adam",
        "there is no none: it holds model, epoch, optimizer",
    ):
        assert text in str(error.value) or text == "model.more.weight is missing" or "and" in str(error.value)
    assert "nothing was changed" in str(error.value)
    with pytest.raises(TypeError, match="epoch is an int without load_state_dict: plain values come back in"):
        load_sharded(folder, epoch=3)


def test_an_optimizer_of_another_model_is_refused(tmp_path):
    def stepped(*shape):
        parameter = nn.Parameter(torch.ones(shape))
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
        optimizer.state[parameter]["momentum_buffer"] = torch.ones(shape)
        return optimizer

    save_sharded(tmp_path / "c", optimizer=stepped(2, 3))
    with pytest.raises(
        CheckpointError, match=r"optimizer.state.0.momentum_buffer is \(2, 3\) there, its parameter \(3, 2\) here"
    ):
        load_sharded(tmp_path / "c", optimizer=torch.optim.SGD([nn.Parameter(torch.ones(3, 2))], lr=0.1))


def test_a_part_that_refuses_undoes_the_rest(tmp_path):
    save_sharded(tmp_path / "c", one={"a": 1}, two={"refuse": 1}, model=Net(cut=False))
    into, model = {"before": True}, Net(9.0, cut=False)
    with pytest.raises(CheckpointError, match="two refuses its state: KeyError: 'no such thing'; nothing was changed"):
        load_sharded(tmp_path / "c", one=Holder(into), two=Holder({}), model=model)
    assert into == {"before": True} and torch.equal(model.weight, whole() + 9)


# ----------------------------------------------------------------------------------------------------- untrusted


def ran(path):
    Path(path).write_text("ran")


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return ran, (self.path,)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_crafted_metadata_runs_nothing(tmp_path):
    import torch.distributed.checkpoint as dcp

    folder, proof = tmp_path / "c", tmp_path / "proof"
    saved(folder)
    (folder / ".metadata").write_bytes(pickle.dumps(Runs(str(proof))))
    for call in (lambda: load_sharded(folder), lambda: load_sharded(folder, verify=False), lambda: inspect_sharded(folder)):
        with pytest.raises(CheckpointError, match=r"its .metadata asks for .*ran, which is never run here"):
            call()
    assert not proof.exists()
    with contextlib.suppress(dcp.CheckpointException, Exception):
        dcp.load({"epoch": 0}, checkpoint_id=folder)
    assert proof.exists(), "torch's own runs it"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_crafted_value_runs_nothing(tmp_path):
    """Torch's own reads plain values with weights_only=False."""
    import torch.distributed.checkpoint as dcp

    folder, proof = tmp_path / "c", tmp_path / "proof"
    dcp.save({"epoch": Runs(str(proof)), "w": torch.ones(2)}, checkpoint_id=folder)
    with pytest.raises(
        CheckpointError, match=r"it has no checksums, as torch alone writes it: load_sharded\(folder, verify=False"
    ):
        load_sharded(folder)
    with pytest.raises(
        CheckpointError, match=r"rank 0: epoch asks for .*ran, which load_sharded never runs; nothing was changed"
    ):
        load_sharded(folder, verify=False)
    assert not proof.exists()
    dcp.load({"epoch": 0}, checkpoint_id=folder)
    assert proof.exists(), "torch's own runs it"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_torch_wrote_is_read_without_checksums(tmp_path):
    import torch.distributed.checkpoint as dcp

    parts = made(steps=1)
    dcp.save({name: part.state_dict() for name, part in parts.items()} | {"epoch": 3}, checkpoint_id=tmp_path / "c")
    facts = inspect_sharded(tmp_path / "c")
    assert not facts.checked and facts.summary().endswith("written by 1 rank, without checksums")
    again = made(value=5.0)
    assert load_sharded(tmp_path / "c", verify=False, **again).values == {"epoch": 3}
    assert all(torch.equal(a, b) for a, b in zip(seen(**again), seen(**parts), strict=True))


def crafted(folder, change):
    """The metadata of a real checkpoint with something changed in it."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 (we wrote it)
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def leave(metadata):
    for info in metadata.storage_data.values():
        info.relative_path = "../secret"


def absolute(metadata):
    for info in metadata.storage_data.values():
        info.relative_path = "/etc/passwd"


def gap(metadata):
    metadata.state_dict_metadata["model.weight"].chunks = []


def huge(metadata):
    entry = metadata.state_dict_metadata["model.weight"]
    entry.size = entry.chunks[0].sizes = torch.Size([1 << 40, 4])


def outside(metadata):
    metadata.state_dict_metadata["model.weight"].chunks[0].sizes = torch.Size([7, 4])


def twice(metadata):
    metadata.state_dict_metadata["model.weight"].chunks *= 2


def far(metadata):
    next(iter(metadata.storage_data.values())).length = 1 << 40


def steps(metadata):
    metadata.planner_data["epoch"] = ("epoch", 1 << 40)


def extension(metadata):
    next(iter(metadata.storage_data.values())).transform_descriptors = ["zstd"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (leave, r"lies in '../secret', which is no file of this folder"),
        (absolute, r"lies in '/etc/passwd', which is no file of this folder"),
        (gap, "pieces of model.weight are missing: 0 of 24 numbers"),
        (huge, "a piece of model.weight is larger than its bytes in"),
        (outside, "a piece of model.weight lies outside of it"),
        (twice, "two pieces of model.weight overlap"),
        (far, "lies beyond the end of"),
        (steps, "leads to place 1099511627776 of a list"),
        (extension, "was written through an extension"),
    ],
)
def test_metadata_that_lies_is_refused(tmp_path, change, text):
    (tmp_path / "secret").write_text("x" * 9999)
    saved(tmp_path / "c")
    crafted(tmp_path / "c", change)
    for call in (inspect_sharded, lambda folder: load_sharded(folder, verify=False, model=Net(cut=False))):
        with pytest.raises(CheckpointError, match=text):
            call(tmp_path / "c")


def test_a_pickle_cannot_change_a_class_through_us(tmp_path):
    """BUILD on a class sets attributes of it: here only of a class that lives for one load."""
    from torch.distributed.checkpoint.metadata import Metadata

    saved(tmp_path / "c")
    content = b"ctorch.distributed.checkpoint.metadata\nMetadata\n(N}(S'evil'\nI1\nutb."
    assert [op.name for op, *_ in pickletools.genops(content)][-2:] == ["BUILD", "STOP"]
    (tmp_path / "c" / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or not as torch writes it"):
        inspect_sharded(tmp_path / "c")
    assert not hasattr(Metadata, "evil")


def test_a_small_file_takes_no_large_memory(tmp_path):
    """Python's unpickler makes a table for as many objects as a file claims to number: gigabytes for a few bytes."""
    saved(tmp_path / "c")
    (tmp_path / "c" / ".metadata").write_bytes(b"\x80\x02Nr" + (1 << 28).to_bytes(4, "little") + b".")
    with pytest.raises(CheckpointError, match="it numbers 268435456 objects in 9 bytes"):
        inspect_sharded(tmp_path / "c")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bytes_are_metadata_or_one_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        saved(folder)
        shutil.copy(folder / ".metadata", folder.with_suffix(".good"))
    good = bytearray(folder.with_suffix(".good").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    (folder / ".metadata").write_bytes(good)
    with contextlib.suppress(CheckpointError):
        inspect_sharded(folder)


def test_the_wrong_place_is_told(tmp_path):
    saved(tmp_path / "step_3")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot inspect .*step_4.*: there is no such folder; beside it is step_3"):
        inspect_sharded(tmp_path / "step_4")
    with pytest.raises(CheckpointError, match=r"it is a file: load\(path\) reads it"):
        load_sharded(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"it holds no .metadata: no save into it was ever committed"):
        load_sharded(tmp_path / "empty")


def test_the_facts_are_the_same_twice_and_can_be_drawn(tmp_path):
    saved(tmp_path / "c")
    saved(tmp_path / "d")
    one, two = inspect_sharded(tmp_path / "c"), inspect_sharded(tmp_path / "d")
    assert str(one) == str(two) and str(tmp_path) not in str(one)
    assert one.grid()["rows"][0]["label"] == "rank 0" and one.bars()["bars"][0]["value"] == sum(
        row["bytes"] for row in one.rows() if row["bytes"]
    )
