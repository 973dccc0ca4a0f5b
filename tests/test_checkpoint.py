"""Checkpoints that cannot lie, lose or be hijacked: the laws of save, load, inspect and resume."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import enum
import errno
import functools
import io
import math
import os
import pathlib
import pickle
import random
import re
import stat
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from tutorlib import checkpoint
from tutorlib.checkpoint import (
    CheckpointError,
    base,
    inspect,
    load,
    overwrite_killed,
    resume,
    resume_proof,
    save,
    saving,
)

quiet = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def bits(value):
    """A value as something that == compares bit for bit, with types, shapes, dtypes and the order of keys."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
        return type(value), value.dtype, tuple(value.shape), value.requires_grad, bytes(flat.view(torch.uint8).tolist())
    if isinstance(value, dict):
        return type(value), [(bits(k), bits(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [bits(v) for v in value]
    if isinstance(value, set):
        return type(value), sorted(map(repr, value))
    return type(value), repr(value)


def trained(seed=0, steps=2, width=3, **settings):
    """A small model and its optimizer after some steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **settings)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(5, 4)).pow(2).mean().backward()
            optimizer.step()
    return model, optimizer


def strays(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


# ------------------------------------------------------------------------------------------------------------ round trips


def test_torch_reads_what_save_wrote_and_load_reads_what_torch_wrote(tmp_path):
    model, optimizer = trained()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    facts = save(tmp_path / "ours.pt", model=model, optimizer=optimizer, epoch=3)
    torch.save(state, tmp_path / "torch.pt")
    assert bits(dict(torch.load(tmp_path / "ours.pt"))) == bits(state) == bits(load(tmp_path / "ours.pt"))
    assert bits(load(tmp_path / "torch.pt")) == bits(state)
    assert type(load(tmp_path / "ours.pt")) is dict
    assert load(tmp_path / "ours.pt")["model"]._metadata == state["model"]._metadata
    assert facts.size == (tmp_path / "ours.pt").stat().st_size and facts.swept == 0 and facts.seconds > 0
    assert [row["part"] for row in facts.rows()] == ["model", "optimizer", "epoch"]


keys = st.text(max_size=5) | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text(max_size=2))
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**2000), 2**2000)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.binary(min_size=1, max_size=8)
    | st.binary(max_size=4).map(bytearray)
    | st.sampled_from([torch.float32, torch.uint16, torch.strided, torch.device("cpu"), torch.Size([2, 0])])
    | st.sets(st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3).map(Counter)
)
plain = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=12,
)


@quiet
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=4), plain, min_size=1, max_size=3))
def test_plain_values_come_back_as_they_were(tmp_path, parts):
    save(tmp_path / "plain.pt", **parts)
    assert bits(load(tmp_path / "plain.pt")) == bits(parts)


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
DTYPES += [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn]


@st.composite
def tensors(draw):
    """Tensors of every dtype, among them empty, zero-dimensional, strided, shifted and expanded ones."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    raw = torch.tensor(draw(st.binary(min_size=16 * 3 * 64, max_size=16 * 3 * 64).map(list)), dtype=torch.uint8)
    dtype = draw(st.sampled_from(DTYPES))
    flat = (raw & 1).bool() if dtype is torch.bool else raw.view(dtype)
    how = draw(st.sampled_from(["whole", "shifted", "transposed", "stepped", "expanded", "parameter"]))
    size = math.prod(shape)
    if how == "shifted":
        return flat[1 : 1 + size].view(shape)
    if how == "stepped":
        return flat[: 2 * size : 2].as_strided(shape, [2 * s for s in torch.empty(shape).stride()])
    if how == "transposed":
        return flat[:size].view(shape).permute(tuple(reversed(range(len(shape)))))
    if how == "expanded":
        return flat[:size].view(shape).unsqueeze(0).expand(2, *shape)
    if how == "parameter":
        return nn.Parameter(flat[:size].view(shape), requires_grad=False)
    return flat[:size].clone().view(shape)


@quiet
@given(st.lists(tensors(), min_size=1, max_size=3))
def test_tensors_come_back_with_their_bits_strides_and_sharing_and_inspect_agrees(tmp_path, found):
    state = {"list": found, "tied": found[0], "view": found[0].view(found[0].shape)}
    save(tmp_path / "tensors.pt", state=state)
    back = load(tmp_path / "tensors.pt")["state"]
    assert bits(back) == bits(state) and base.differences(back, state, "") == []
    assert [t.stride() for t in back["list"]] == [t.stride() for t in found]
    assert back["tied"] is back["list"][0]
    assert back["view"].untyped_storage()._cdata == back["tied"].untyped_storage()._cdata
    entries = {entry.key: entry for entry in inspect(tmp_path / "tensors.pt").tensors}
    for number, tensor in enumerate(found):
        entry = entries[f"state.list.{number}"]
        assert (entry.shape, entry.stride, f"torch.{entry.dtype}") == (tuple(tensor.shape), tensor.stride(), str(tensor.dtype))
        assert entry.bytes == tensor.nbytes and entry.storage_bytes == tensor.untyped_storage().nbytes()
        assert entry.offset == tensor.storage_offset()
    assert entries["state.tied"].storage == entries["state.view"].storage == entries["state.list.0"].storage


def test_bits_are_compared_also_where_strides_are_odd_and_values_are_not_equal_to_themselves():
    same = lambda a, b: base.differences(a, b, "x")  # noqa: E731
    nan = torch.tensor([float("nan")])
    assert same({"a": [nan, float("nan")]}, {"a": [nan.clone(), float("nan")]}) == []
    assert same(torch.ones(1).as_strided([1], [2]), torch.ones(1)) == []
    assert same(torch.tensor([0.0]), torch.tensor([-0.0])) == ["x has other values"]
    assert same([0.0], [-0.0]) == ["x.0 is 0.0 instead of -0.0"]
    assert same({"a": 1}, {"a": True}) == ["x.a is 1 instead of True"]
    assert same({}, {"a": 1}) == ["x.a is gone"]
    assert same(torch.ones(1), torch.ones(1).double()) == ["x is float32 (1,) instead of float64 (1,)"]


def test_the_second_name_of_a_tied_tensor_shares_its_memory_after_loading(tmp_path):
    weight = torch.ones(3)
    save(tmp_path / "tied.pt", a=weight, b=weight)
    back = load(tmp_path / "tied.pt")
    back["a"][0] = 7
    assert back["b"][0] == 7


# ------------------------------------------------------------------------------------------------------------ refused

Point = collections.namedtuple("Point", "x y")


class Colour(enum.Enum):
    red = 1


class Level(enum.IntEnum):
    low = 1


def cycle():
    found = []
    found.append(found)
    return found


LOADABLE_ALTERNATIVE = ", which load would refuse: store "


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(0.5), "loss is a numpy.float64, which load would refuse: store its .item()"),
        ([0.5, np.float32(1)], "loss[1] is a numpy.float32, which load would refuse: store its .item()"),
        ({"best": np.ones(2)}, "loss['best'] is a numpy.ndarray, which load would refuse: store torch.from_numpy(it)"),
        ({"a": {1: pathlib.Path("x")}}, "loss['a'][1] is a path, which load would refuse: store str(it)"),
        (Colour.red, "loss is a test_checkpoint.Colour, which load would refuse: store its .name"),
        (Level.low, "loss is a test_checkpoint.Level, which load would refuse: store its .name"),
        (datetime.date(2026, 1, 2), "loss is a datetime.date, which load would refuse: store its .isoformat()"),
        (argparse.Namespace(lr=1), "loss is a argparse.Namespace, which load would refuse: store vars(it)"),
        (Point(1, 2), "loss is a test_checkpoint.Point, which load would refuse: store its ._asdict()"),
        (collections.defaultdict(int), "loss is a collections.defaultdict, which load would refuse: store dict(it)"),
        (frozenset([1]), "loss is a frozenset, which load would refuse: store set(it)"),
        (range(3), "loss is a range, which load would refuse: store a plain value or a tensor"),
        ({"k": len}, "loss['k'] is the function or class len, which load would refuse: "
                     "store its name, and look it up after loading"),
        (lambda: 1, "loss is the function or class <lambda>, which load would refuse: "
                    "store its name, and look it up after loading"),
        ([nn.Linear(1, 1)], "loss[0] is a torch.nn.modules.linear.Linear, which load would refuse: store its state_dict(), "
                            "or give it a name of its own: save(path, name=it)"),
        (b"", "loss is an empty bytes object, which load would refuse: store None or bytearray()"),
        (2**3000, "loss is an int of 3001 bits, which load would refuse: store str(it)"),
        ({(1, np.int64(2)): 0}, "loss key (1, np.int64(2))[1] is a numpy.int64, which load would refuse: store its .item()"),
        ({np.int64(2)}, "loss element is a numpy.int64, which load would refuse: store its .item()"),
        (torch.ones(1, requires_grad=True) * 2, "loss is a tensor that still has its gradient history: "
                                                "store its .detach() or .item()"),
        (cycle(), "loss[0] contains itself: store its parts apart"),
        (functools.reduce(lambda v, _: [v], range(300), 1), "a value lies more than 200 containers deep: "
                                                            "store a flatter structure"),
        (nn.LazyLinear(2).state_dict(), "loss['weight'] has no shape yet: run the lazy module once before saving; "
                                        "loss['bias'] has no shape yet: run the lazy module once before saving"),
    ],
)  # fmt: skip
def test_what_would_not_come_back_is_refused_with_its_place_and_what_to_store(tmp_path, value, text):
    path = tmp_path / "last.pt"
    save(path, epoch=1)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=re.escape(f"{text}; nothing was written")) as caught:
        save(path, loss=value)
    assert str(caught.value).startswith(f"cannot save '{path}': ")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_all_offenders_are_named_at_once_up_to_eight(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path / "x.pt", loss=[np.float64(i) for i in range(11)])
    assert str(caught.value).count("numpy.float64") == 8 and "; and 3 more; nothing was written" in str(caught.value)


def test_nothing_to_save_and_a_class_instead_of_an_object(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing to save to 'x.pt': name the parts, for example save\(path, model=model"):
        save("x.pt")
    with pytest.raises(CheckpointError, match=r"model is the class Linear, expected an object of it: Linear\(...\)"):
        save(tmp_path / "x.pt", model=nn.Linear)


def test_what_torch_itself_refuses_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "last.pt"
    save(path, epoch=1)
    weight = torch.ones(4)
    with pytest.raises(CheckpointError, match=r"Cannot save multiple tensors or storages .* the earlier file is untouched"):
        save(path, a=weight, b=weight.view(torch.int32))
    assert load(path) == {"epoch": 1} and strays(tmp_path) == []


# ------------------------------------------------------------------------------------------------------------ atomic and durable

KILLS = """
import os, random, signal, subprocess, sys, time
import torch
from tutorlib import checkpoint

torch.set_num_threads(1)  # a forked copy waits for ever for the threads that it has lost

def overwrite(path, value):
    while True:
        value += 1
        checkpoint.save(path, weights=torch.full((50_000,), float(value)), value=value)

if len(sys.argv) > 2:
    overwrite(sys.argv[1], int(sys.argv[2]))
path, value, rng = sys.argv[1], 0, random.Random(0)
checkpoint.save(path, weights=torch.zeros(50_000), value=0)
for _ in range(20 if hasattr(os, "fork") else 2):
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            overwrite(path, value)
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    else:
        child = subprocess.Popen([sys.executable, __file__, path, str(value)])
        time.sleep(8 + rng.random())
        child.kill()
        child.wait()
    found = checkpoint.load(path)
    assert (found["weights"] == found["value"]).all() and found["value"] >= value, (found["value"], value)
    value = found["value"]
stray = len(os.listdir(os.path.dirname(path))) - 1
swept = checkpoint.save(path, epoch=1).swept
assert swept == stray and len(os.listdir(os.path.dirname(path))) == 1, (swept, stray)
print("whole", value > 0)
"""


def test_twenty_kills_at_random_moments_lose_nothing_and_the_next_save_cleans_up(tmp_path):
    script = tmp_path / "kills.py"
    script.write_text(KILLS)
    (tmp_path / "run").mkdir()
    done = subprocess.run([sys.executable, script, tmp_path / "run" / "last.pt"], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "whole True", done.stderr


class Full:
    """A file on a disk with room for `room` bytes."""

    def __init__(self, file, room, number=errno.ENOSPC):
        self.file, self.room, self.number = file, room, number

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        if self.file.tell() + len(data) > self.room:
            raise OSError(self.number, os.strerror(self.number))
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 100, 700, 3000])
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch, room):
    path = tmp_path / "last.pt"
    save(path, epoch=1)
    before = path.read_bytes()
    beside = saving._beside

    def full(goal):
        fresh, file = beside(goal)
        return fresh, Full(file, room)

    monkeypatch.setattr(saving, "_beside", full)
    with pytest.raises(CheckpointError) as caught:
        save(path, weights=torch.ones(1000))
    assert str(caught.value) == f"cannot save '{path}': {os.strerror(errno.ENOSPC)}; the earlier file is untouched"
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["_beside", "_flush_to_disk", "_sweep"])
def test_an_error_of_the_system_at_any_step_is_one_text_and_loses_nothing(tmp_path, monkeypatch, step):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "last.pt"
    monkeypatch.setattr(saving, step, refuse)  # as in a folder that cannot be written; root may write anywhere
    with pytest.raises(CheckpointError) as caught:
        save(path, epoch=1)
    assert str(caught.value) == f"cannot save '{path}': Permission denied; nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "_flush_to_disk", stop)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "last.pt", epoch=1)
    assert list(tmp_path.iterdir()) == []


def test_goals_that_cannot_be_files(tmp_path):
    with pytest.raises(CheckpointError, match="its folder does not exist: make it first"):
        save(tmp_path / "no" / "last.pt", epoch=1)
    with pytest.raises(CheckpointError, match="it is a folder: name a file in it"):
        save(tmp_path, epoch=1)
    with pytest.raises(CheckpointError, match="it is a device: name a file in it"):
        save(os.devnull, epoch=1)
    assert pathlib.Path(os.devnull).exists() and list(tmp_path.iterdir()) == []


def test_temporary_files_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path):
    goal = tmp_path / "last.pt"
    (tmp_path / f".last.pt.{'0' * 12}.tmp").write_bytes(b"half")
    (tmp_path / f".other.pt.{'0' * 12}.tmp").write_bytes(b"half")
    fresh, held = saving._beside(goal)
    with held:
        assert save(goal, epoch=1).swept == 1
        assert strays(tmp_path) == [f".{'last.pt'}.{fresh.name.split('.')[3]}.tmp", f".other.pt.{'0' * 12}.tmp"]
    assert save(goal, epoch=2).swept == 1
    assert strays(tmp_path) == [f".other.pt.{'0' * 12}.tmp"]


def test_a_link_and_the_permissions_of_the_earlier_file_are_kept(tmp_path):
    real = tmp_path / "real" / "epoch_3.pt"
    real.parent.mkdir()
    save(real, epoch=1)
    real.chmod(0o640)
    link = tmp_path / "last.pt"
    link.symlink_to(real)
    save(link, epoch=2)
    assert link.is_symlink() and load(real) == {"epoch": 2}
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_saving_at_once_from_several_threads_leaves_one_whole_file(tmp_path):
    path = tmp_path / "last.pt"
    threads = [threading.Thread(target=save, args=(path,), kwargs={"value": i, "t": torch.full((9999,), i)}) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = load(path)
    assert (found["t"] == found["value"]).all() and list(tmp_path.iterdir()) == [path]


def test_checksums_are_written_whatever_torch_was_told(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        save(tmp_path / "ours.pt", weights=torch.ones(3))
        assert torch.serialization.get_crc32_options() is False
        torch.save({"weights": torch.ones(3)}, tmp_path / "torch.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load(tmp_path / "ours.pt")["weights"].sum() == 3
    with pytest.raises(CheckpointError, match=r"it was written without checksums \(torch.serialization.set_crc32_options\)"):
        load(tmp_path / "torch.pt")
    assert load(tmp_path / "torch.pt", verify=False)["weights"].sum() == 3


# ------------------------------------------------------------------------------------------------------------ verified and safe


def test_of_two_hundred_flips_cuts_and_zeroed_pages_none_loads_silently(tmp_path):
    model, optimizer = trained(width=40)
    path = tmp_path / "whole.pt"
    save(path, model=model, optimizer=optimizer, epoch=3)
    whole, rng = path.read_bytes(), random.Random(0)
    damages = []
    for _ in range(160):
        byte = rng.randrange(len(whole))
        damages.append(whole[:byte] + bytes([whole[byte] ^ (1 << rng.randrange(8))]) + whole[byte + 1 :])
    damages += [whole[: rng.randrange(len(whole))] for _ in range(20)]
    for _ in range(20):
        start = rng.randrange(0, len(whole) // 512) * 512
        damages.append(whole[:start] + bytes(len(whole[start : start + 512])) + whole[start + 512 :])
    silent = []
    for number, content in enumerate(damages):
        path.write_bytes(content)
        try:
            load(path)
        except CheckpointError as error:
            assert "is damaged: " in str(error) or "cannot be verified: " in str(error)
        else:
            silent.append(number)
    assert silent == []


def legacy(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    return tmp_path / "old.pt"


def test_a_file_without_checksums_is_read_only_when_told_so(tmp_path):
    path = legacy(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"cannot be verified: .* torch before 1.6 have no checksums: load\(path, verify=False"
    ):
        load(path)
    assert load(path, verify=False)["a"].tolist() == [1, 1]


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no checkpoint '{path}'")):
        load(path)
    with pytest.raises(CheckpointError, match="is a folder, expected a checkpoint file"):
        load(tmp_path)
    for content in (b"", b"PK", b"PK\3\4", b"hello world" * 50):
        path.write_bytes(content)
        for read in (load, functools.partial(load, verify=False), inspect):
            with pytest.raises(CheckpointError, match=r"x\.pt' (is damaged|cannot be)"):
                read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "hello")
    for read in (load, inspect):
        with pytest.raises(CheckpointError, match="it is a zip file, but not one of torch"):
            read(path)


class Attack:
    def __reduce__(self):
        return os.system, ("echo run > /tmp/should_not_exist_tutorlib",)


def rewritten(path, change):
    """The same archive with another pickle, correct checksums and all, written by Python's own zip writer."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_a_crafted_file_runs_nothing_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "crafted.pt"
    torch.save({"a": torch.ones(1)}, path)
    rewritten(path, lambda _: pickle.dumps({"a": Attack()}, protocol=2))
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value) == (
        f"'{path}' asks for posix.system, which load never runs: save a state_dict() and plain values instead; "
        "or, if you trust the file, name them in torch.serialization.safe_globals([...]) around load"
    ).replace("posix", os.name)
    assert inspect(path).refused == (f"{os.name}.system",)
    assert ran == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_inspect_runs_nothing_in_any_form_of_pickle(tmp_path, monkeypatch, protocol):
    path = tmp_path / "crafted.pt"
    torch.save({"a": torch.ones(1)}, path)
    rewritten(path, lambda _: pickle.dumps([Attack(), os.system, {"b": Attack()}], protocol=protocol))
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    assert f"{os.name}.system" in inspect(path).globals and ran == []


def test_a_whole_model_is_refused_but_can_be_inspected_and_allowed(tmp_path):
    path = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 3), path)
    with pytest.raises(CheckpointError, match=r"asks for torch.nn.modules.linear.Linear, which load never runs"):
        load(path)
    found = inspect(path)
    assert {(t.key.rsplit(".", 1)[-1], t.shape) for t in found.tensors} == {("weight", (3, 2)), ("bias", (3,))}
    assert "load refuses it: torch.nn.modules.linear.Linear" in found.summary()
    allowed = [nn.Linear, getattr, set]
    with torch.serialization.safe_globals(allowed):
        assert type(load(path)) is nn.Linear


def test_weights_only_stands_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(nn.Linear(2, 3), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"asks for torch.nn.modules.linear.Linear"):
        load(tmp_path / "whole.pt")


def test_a_file_of_a_gpu_loads_on_a_machine_without_one(tmp_path):
    path = tmp_path / "gpu.pt"
    torch.save({"a": torch.arange(3)}, path)
    rewritten(path, lambda data: data.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:7"))
    assert inspect(path).tensors[0].device == "cuda:7"
    assert load(path)["a"].tolist() == [0, 1, 2] and load(path)["a"].device.type == "cpu"
    assert load(path, map_location="meta")["a"].is_meta


# ------------------------------------------------------------------------------------------------------------ inspect


def test_inspect_shows_views_sharing_and_waste(tmp_path):
    big = torch.zeros(1000)
    save(tmp_path / "x.pt", head=big[:3], tail=big[2:5], own=torch.ones(2), names=["a", "b"], empty={})
    found = inspect(tmp_path / "x.pt")
    assert str(found) == textwrap.dedent(
        """\
        3 tensors in 4008 bytes, 3 plain values, 3980 bytes that no tensor shows
        key   shape  dtype    bytes  storage  stored
        head  (3,)   float32     12  0          4000
        tail  (3,)   float32     12  0          4000
        own   (2,)   float32      8  1             8"""
    )
    assert found.shared == (("head", "tail"),) and found.wasted == 3980 and found.stored == 4008
    assert found.values == {"names.0": "a", "names.1": "b", "empty": {}}
    assert found.bars()["bars"][0] == {"name": "head", "value": 4000, "note": "storage 0, shared"}
    assert found.size == (tmp_path / "x.pt").stat().st_size


def test_inspect_reads_a_large_file_in_little_memory(tmp_path):
    save(tmp_path / "large.pt", a=torch.zeros(4_000_000), b=torch.zeros(4_000_000))
    tracemalloc.start()
    inspect(tmp_path / "large.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_structure_that_refers_to_itself_or_lies_about_sizes_is_an_error(tmp_path):
    path = tmp_path / "x.pt"
    bomb = functools.reduce(lambda inner, _: [inner, inner], range(60), [1])
    texts = ["refers to itself again and again", "refers to itself again and again", "reaches beyond its storage"]
    lie = lambda data: data.replace(b"K\3\x85", b"K\x63\x85")  # noqa: E731 (the size of the only tensor)
    for change, text in zip((lambda _: pickle.dumps(bomb, 2), lambda _: pickle.dumps(cycle(), 2), lie), texts, strict=True):
        torch.save({"a": torch.ones(3)}, path)
        rewritten(path, change)
        with pytest.raises(CheckpointError, match=text):
            inspect(path)


@quiet
@given(st.data())
def test_inspect_survives_any_pickle(tmp_path, data):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3), "b": [1, {"c": nn.Parameter(torch.ones(2))}]}, path)

    def damage(content):
        content = bytearray(content)
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        return bytes(content)

    rewritten(path, damage)
    try:
        inspect(path)
    except CheckpointError as error:
        assert "cannot be inspected" in str(error)


# ------------------------------------------------------------------------------------------------------------ resume


class Counts:
    """A part of one's own that refuses some states after having changed itself."""

    def __init__(self, count=0):
        self.count, self.log = count, []

    def state_dict(self):
        return {"count": self.count, "log": list(self.log)}

    def load_state_dict(self, state):
        self.log = list(state["log"])
        if state["count"] < 0:
            raise ValueError("a count below zero")
        self.count = state["count"]


def everything(seed=0, **settings):
    model, optimizer = trained(seed, **settings)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    generator = torch.Generator().manual_seed(seed)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "generator": generator, "counts": Counts(seed)}


def state_of(parts):
    taken = {k: p.get_state() if isinstance(p, torch.Generator) else p.state_dict() for k, p in parts.items()}
    return bits(copy.deepcopy(taken)), bits(torch.get_rng_state()), random.getstate()


def test_resume_brings_every_part_back_bit_for_bit(tmp_path):
    saved, fresh = everything(1), everything(2)
    save(tmp_path / "x.pt", **saved, random=checkpoint.RandomState(), epoch=7, note="x")
    state = state_of(saved)
    torch.rand(1), random.random(), np.random.rand()
    resumed = resume(tmp_path / "x.pt", **fresh, random=checkpoint.RandomState())
    assert state_of(fresh) == state
    assert resumed.values == {"epoch": 7, "note": "x"}
    assert [row["outcome"] for row in resumed.rows()] == ["resumed"] * 6 + ["in .values"] * 2
    assert [row["kind"] for row in resumed.rows()[:3]] == ["Sequential", "SGD", "StepLR"]


def test_resume_says_which_settings_the_file_replaced_and_what_was_not_asked_for(tmp_path):
    model, optimizer = trained()
    save(tmp_path / "x.pt", model=model, optimizer=optimizer, counts=Counts(3))
    optimizer.param_groups[0]["lr"] = 99.0
    resumed = resume(tmp_path / "x.pt", optimizer=optimizer)
    assert resumed.changed == ("lr 99 -> 0.1",) and optimizer.param_groups[0]["lr"] == 0.1
    assert [(row["part"], row["outcome"]) for row in resumed.rows()] == [
        ("model", "in .values, not asked for"),
        ("optimizer", "resumed; lr 99 -> 0.1"),
        ("counts", "in .values, not asked for"),
    ]


def test_the_random_state_of_python_numpy_and_torch_comes_back(tmp_path):
    save(tmp_path / "x.pt", random=checkpoint.RandomState())
    draw = lambda: (random.random(), float(np.random.rand()), float(np.random.randn()), torch.rand(1).item())  # noqa: E731
    expected = draw()
    draw()
    resume(tmp_path / "x.pt", random=checkpoint.RandomState())
    assert draw() == expected
    with pytest.raises(KeyError, match="the random state lacks torch"):
        checkpoint.RandomState().load_state_dict({"python": ()})


def wrong_shape(parts):
    parts["model"] = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def wrong_dtype(parts):
    parts["model"] = parts["model"].double()


def other_class(parts):
    parts["optimizer"] = torch.optim.Adam(parts["model"].parameters())


def other_groups(parts):
    optimizer = torch.optim.SGD(list(parts["model"].parameters())[:2], lr=0.1)
    parts["optimizer"] = optimizer


def two_groups(parts):
    halves = list(parts["model"].parameters())
    parts["optimizer"] = torch.optim.SGD([{"params": halves[:2]}, {"params": halves[2:]}], lr=0.1)


def other_shapes(parts):
    del parts["model"]
    parts["optimizer"] = torch.optim.SGD(nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 7)).parameters(), lr=0.1)


def other_scheduler(parts):
    parts["scheduler"] = torch.optim.lr_scheduler.ExponentialLR(parts["optimizer"], 0.5)


def not_in_file(parts):
    parts["ema"] = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (wrong_shape, "model.0.weight is float32 (3, 4) in the file, float32 (5, 4) here; "),
        (wrong_dtype, "model.0.weight is float32 (3, 4) in the file, float64 (3, 4) here; "),
        (other_class, "optimizer was saved from SGD, here it is Adam; nothing was changed"),
        (other_groups, "optimizer has groups of [6] parameters in the file, [2] here; nothing was changed"),
        (two_groups, "optimizer has groups of [6] parameters in the file, [2, 4] here; nothing was changed"),
        (other_shapes, "optimizer parameter 0 has the shape (3, 4) in the file, (7, 7) here; "),
        (other_scheduler, "scheduler was saved from StepLR, here it is ExponentialLR; nothing was changed"),
        (not_in_file, "has no ema: it holds model, optimizer, scheduler, generator, counts; nothing was changed"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_byte_changes(tmp_path, change, text):
    path = tmp_path / "x.pt"
    save(path, **everything(1))
    parts = everything(2)
    change(parts)
    before = state_of(parts)
    with pytest.raises(CheckpointError) as caught:
        resume(path, **parts)
    assert text in str(caught.value) and str(caught.value).endswith("nothing was changed")
    assert state_of(parts) == before


def test_a_part_that_fails_after_others_were_loaded_changes_no_byte(tmp_path):
    path = tmp_path / "x.pt"
    saved = everything(1)
    saved["counts"].count, saved["counts"].log = -1, ["seen"]
    save(path, **saved)
    parts = everything(2)
    before, momentum = state_of(parts), parts["optimizer"].state
    with pytest.raises(CheckpointError) as caught:
        resume(path, **parts)
    reason = "counts refused its state: ValueError: a count below zero; nothing was changed"
    assert str(caught.value) == f"cannot resume from '{path}': {reason}"
    assert state_of(parts) == before and parts["optimizer"].state is momentum


def test_an_interruption_while_loading_changes_no_byte(tmp_path, monkeypatch):
    save(tmp_path / "x.pt", **everything(1))
    parts = everything(2)
    before = state_of(parts)

    def stop(state):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts["counts"], "load_state_dict", stop)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "x.pt", **parts)
    monkeypatch.undo()
    assert state_of(parts) == before


def test_a_state_that_torch_would_convert_without_a_word_is_refused(tmp_path):
    """An optimizer's state is cast to its parameter's dtype by torch: resumed training would not be the same."""

    def half():
        weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        optimizer.state[weight]["momentum_buffer"] = torch.full((3,), 0.1)
        return optimizer

    save(tmp_path / "x.pt", optimizer=half())
    other = half()
    other.state.clear()
    text = "optimizer.state.0.momentum_buffer is bfloat16 (3,) instead of float32 (3,); nothing was changed"
    with pytest.raises(CheckpointError, match=re.escape(f"not bit-equal after loading: {text}")):
        resume(tmp_path / "x.pt", optimizer=other)
    assert not other.state


def test_a_damaged_file_and_a_plain_value_as_a_part(tmp_path):
    path = tmp_path / "x.pt"
    save(path, **everything(1), epoch=3)
    with pytest.raises(
        TypeError, match=r"epoch is an int without load_state_dict: plain values come back in resume\(...\).values"
    ):
        resume(path, epoch=0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    parts = everything(2)
    before = state_of(parts)
    with pytest.raises(CheckpointError, match="is damaged"):
        resume(path, **parts)
    assert state_of(parts) == before
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list, expected a dictionary of parts; nothing was changed"):
        resume(path, **parts)


def test_optimizer_state_follows_the_names_when_the_order_of_parameters_changed(tmp_path):
    model, optimizer = trained()
    save(tmp_path / "x.pt", model=model, optimizer=optimizer)
    other, _ = trained(5)
    turned = torch.optim.SGD(list(other.parameters())[::-1], lr=0.5, momentum=0.9)
    resume(tmp_path / "x.pt", model=other, optimizer=turned)
    mine = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        assert torch.equal(turned.state[parameter]["momentum_buffer"], optimizer.state[mine[name]]["momentum_buffer"])


def test_optimizer_state_of_another_model_is_refused_by_name(tmp_path):
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    make = lambda module: torch.optim.SGD(module.parameters(), lr=0.1)  # noqa: E731
    save(tmp_path / "x.pt", generator=first, critic=second, optimizer=make(first))
    with pytest.raises(CheckpointError, match=r"optimizer group 0 belongs to other parameters: critic.bias, critic.weight, gen"):
        resume(tmp_path / "x.pt", generator=first, critic=second, optimizer=make(second))


@pytest.mark.parametrize(
    "name", ["Adam", "AdamW", "Adamax", "Adagrad", "RMSprop", "Rprop", "NAdam", "RAdam", "ASGD", "Adadelta", "Adafactor"]
)
def test_every_optimizer_of_torch_resumes_also_from_a_file_of_torch_save(tmp_path, name):
    def make(steps):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).pow(2).sum().backward()
            optimizer.step()
        return model, optimizer

    model, optimizer = make(2)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    fresh, other = make(0)
    resume(tmp_path / "x.pt", model=fresh, optimizer=other)
    assert bits(other.state_dict()["state"]) == bits(optimizer.state_dict()["state"])


def test_lbfgs_resumes(tmp_path):
    def make():
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return {"model": model, "optimizer": torch.optim.LBFGS(model.parameters(), max_iter=3)}

    def step(model, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = (model(torch.eye(4)) - 1).pow(2).sum()
            loss.backward()
            return loss

        return optimizer.step(closure)

    assert resume_proof(make, step, 2, 2).equal


def test_optimizer_state_of_another_shape_in_a_file_of_torch_save_is_refused(tmp_path):
    model, optimizer = nn.Linear(4, 1), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    other = torch.optim.SGD(nn.Linear(7, 7).parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(
        CheckpointError, match=re.escape("optimizer parameter 0: momentum_buffer has the shape (1, 4) in the file, (7, 7) here")
    ):
        resume(tmp_path / "x.pt", optimizer=other)
    adam = torch.optim.Adam(nn.Linear(4, 1).parameters())
    with pytest.raises(
        CheckpointError, match="optimizer holds the settings dampening, momentum, nesterov of another optimizer than Adam"
    ):
        resume(tmp_path / "x.pt", optimizer=adam)
    assert not other.state and not adam.state


def test_tied_weights_resume_from_a_file_that_has_one_name(tmp_path):
    def make(value):
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        nn.init.constant_(model[0].weight, value)
        return model

    state = make(2.0).state_dict()
    del state["1.weight"]
    torch.save({"model": state}, tmp_path / "x.pt")
    model = make(1.0)
    resume(tmp_path / "x.pt", model=model)
    assert model[0].weight is model[1].weight and (model[1].weight == 2).all()


# ------------------------------------------------------------------------------------------------------------ proofs


class Order:
    """The position in the data: which permutation, and how far."""

    def __init__(self):
        self.order, self.position = torch.randperm(12).tolist(), 0

    def next(self):
        self.position += 2
        return self.order[self.position - 2 : self.position]

    def state_dict(self):
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state):
        self.order, self.position = state["order"], state["position"]


DATA = torch.linspace(-1, 1, 48).view(12, 4)


def make_training():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "order": Order(),
        "random": checkpoint.RandomState(),
    }


def train_step(model, optimizer, order, random):
    optimizer.zero_grad()
    loss = (model(DATA[order.next()]) - 1).pow(2).mean()
    loss.backward()
    optimizer.step()
    return loss


def test_the_proof_says_that_nothing_and_which_part_was_forgotten():
    before = torch.get_rng_state(), random.getstate()
    proof = resume_proof(make_training, train_step, 3, 2)
    assert proof.equal and proof.needed == ("model", "optimizer", "order", "random")
    assert str(proof) == textwrap.dedent(
        """\
        3 steps, save, resume, 2 steps against 5 steps straight: bit-equal; needed: model, optimizer, order, random
        run                first different step  model  optimizer  order  random
        resumed                               -  yes    yes        yes    yes
        without model                         3  no     no         yes    yes
        without optimizer                     4  no     no         yes    yes
        without order                         3  no     no         no     yes
        without random                        3  no     no         yes    no"""
    )
    ruler = proof.ruler()
    assert ruler["unit"] == "step" and ruler["cut"] == 3 and len(ruler["tracks"]) == 6
    assert [cell["state"] for cell in ruler["tracks"][3]["cells"]] == ["same"] * 4 + ["different"]
    assert {cell["state"] for cell in ruler["tracks"][0]["cells"]} == {""}
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_a_training_without_randomness_does_not_need_the_random_state():
    def make():
        model = nn.Linear(2, 1)
        return {"model": model, "random": checkpoint.RandomState()}

    def step(model, random):
        loss = model(torch.eye(2)).pow(2).mean()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        return loss.item()

    assert resume_proof(make, step).needed == ("model",)


def test_a_part_that_forgets_some_of_its_state_is_found_out():
    class Forgetful(Order):
        def load_state_dict(self, state):
            self.order = state["order"]

    def make():
        parts = make_training()
        parts["order"] = Forgetful()
        return parts

    proof = resume_proof(make, train_step, 2, 2)
    assert not proof.equal and proof.runs[1].equal == {"model": False, "optimizer": False, "order": False, "random": True}


def test_bad_input_of_the_proof():
    counter = iter(range(100))
    with pytest.raises(
        CheckpointError, match=r"step 0 gives another loss each time, from the same seed: make\(\) or step\(\) keeps"
    ):
        resume_proof(lambda: {"model": nn.Linear(1, 1)}, lambda model: next(counter))
    with pytest.raises(TypeError, match=r"step\(\) returned None, expected its loss as a number"):
        resume_proof(lambda: {"model": nn.Linear(1, 1)}, lambda model: None)
    with pytest.raises(TypeError, match=r"make\(\) returned a tuple, expected a dictionary of parts"):
        resume_proof(lambda: (1, 2), lambda: 0)
    with pytest.raises(
        TypeError, match=r"make\(\) returned values without state_dict\(\): epoch: keep them in an object that has it"
    ):
        resume_proof(lambda: {"epoch": 1}, lambda epoch: 0)
    with pytest.raises(ValueError, match="at least one step before and after the stop, found k=0 and m=3"):
        resume_proof(make_training, train_step, 0)


def save_in_place(state, path):
    """The common way, by hand: the old file is gone before the new one is there."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getvalue())


def test_a_killed_overwrite_loses_the_file_of_the_common_ways_and_never_ours():
    killed = overwrite_killed(save_in_place, save, times=3, size=100_000)
    assert killed.rows() == [
        {"save": "test_checkpoint.save_in_place", "old whole": 0, "new whole": 0, "lost": 3, "stray files": 0},
        {"save": "checkpoint.save", "old whole": 3, "new whole": 0, "lost": 0, "stray files": 0},
    ]
    assert killed.ruler()["tracks"][0]["cells"][0] == {"text": "lost", "state": "missing"}


def test_bad_input_of_the_killed_overwrite():
    with pytest.raises(
        TypeError, match=r"a new process cannot import .*<lambda>': define it in a module, or in a cell under %%importable"
    ):
        overwrite_killed(lambda state, path: None)
    with pytest.raises(ValueError, match="needs a way of saving and times and size of at least 1, found 0 and 1000000"):
        overwrite_killed(save, times=0)


def test_a_killed_overwrite_does_not_wait_for_threads_that_a_fork_has_lost(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch; from tutorlib import checkpoint\n"
        "if __name__ == '__main__': print(checkpoint.overwrite_killed(checkpoint.save, times=1).outcomes)",
        encoding="utf-8",
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=100)
    assert ended.stdout.strip() == "{'checkpoint.save': ('old',)}", ended.stderr


def test_a_missing_file_is_told_with_what_stands_beside_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '.*last\.pt': its folder holds none; checkpoint\.save"):
        load(tmp_path / "last.pt")
    for number in range(7):
        save(tmp_path / f"epoch{number}.pt", epoch=number)
    with pytest.raises(FileNotFoundError, match=r"holds epoch0\.pt, .*, epoch4\.pt and 2 more; "):
        load(tmp_path / "last.pt")
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*gone' either; "):
        load(tmp_path / "gone" / "last.pt")
