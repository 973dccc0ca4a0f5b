"""Across devices: whatever device a file was saved on, it loads, resumes and is looked at on a machine without that device.

No GPU is needed: files are tagged as a GPU would have tagged them, the meta device and torch's fake tensors stand for one.
"""

import contextlib
import copy
import pickle

import laws
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tutorlib import checkpoint
from tutorlib.checkpoint import CheckpointError, compare, inspect, load, placing, resume, save, where_loaded, write_tagged

DEVICES = ["cpu", "cuda:0", "cuda:7", "mps", "xpu:0", "hpu:1", "mtia:0", "xla:0"]
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: everything else here stands for one")
quiet = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def trained(seed=0, steps=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(6, 3)).pow(2).mean().backward()
            optimizer.step()
    return model, optimizer


@contextlib.contextmanager
def as_if_on(device):
    """Whatever is saved in here is tagged for this device, by checkpoint.save too."""
    placing._register()
    placing._pretend.tag = device
    try:
        yield
    finally:
        placing._pretend.tag = None


def plain(state):
    return {key: value.clone() for key, value in state.items()}


def tensors_of(state):
    return list(placing._tensors(state))


# ----------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_from_any_device_loads_to_the_cpu_bit_for_bit(device, verify, tmp_path):
    model, optimizer = trained()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    write_tagged(tmp_path / "there.pt", state, device)
    found = load(tmp_path / "there.pt", verify=verify)
    assert {str(value.device) for value in tensors_of(found)} == {"cpu"}
    assert laws.same(plain(found["model"]), plain(model.state_dict()))
    assert laws.same(found["optimizer"]["state"], optimizer.state_dict()["state"]) and found["epoch"] == 3
    assert {entry.device for entry in inspect(tmp_path / "there.pt").tensors} == {device}


@pytest.mark.parametrize(
    "form",
    ["cpu", torch.device("cpu"), {"cuda:1": "cpu"}, lambda storage, tag: storage],
    ids=["name", "device", "dict", "function"],
)
def test_load_takes_every_form_of_map_location(form, tmp_path):
    write_tagged(tmp_path / "gpu.pt", {"w": torch.arange(3.0)}, "cuda:1")
    assert laws.same(load(tmp_path / "gpu.pt", map_location=form), {"w": torch.arange(3.0)})


def test_load_onto_the_meta_device_gives_shapes_without_values(tmp_path):
    write_tagged(tmp_path / "gpu.pt", {"w": torch.arange(3.0)}, "cuda:1")
    found = load(tmp_path / "gpu.pt", map_location="meta")["w"]
    assert found.is_meta and found.shape == (3,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the file asks for")
@pytest.mark.parametrize("form", [None, "cuda:0", {"cuda:0": "cpu"}], ids=str)
def test_a_device_that_is_not_there_is_one_clear_error(form, tmp_path):
    write_tagged(tmp_path / "gpu.pt", {"w": torch.ones(1)}, "cuda:1")
    with pytest.raises(CheckpointError) as error:
        load(tmp_path / "gpu.pt", map_location=form)
    text = str(error.value)
    assert "gpu.pt' cannot be read: RuntimeError: Attempting to deserialize object on a CUDA device" in text
    assert "torch.cuda.is_available() is False" in text and "\n" not in text


def test_what_is_no_map_location_is_refused_before_the_file_is_opened(tmp_path):
    for wrong, found in ((3, "an int"), (["cpu"], "a list")):
        with pytest.raises(TypeError) as error:
            load(tmp_path / "none.pt", map_location=wrong)
        assert str(error.value) == f"map_location is {found}, expected a device such as 'cpu', a dictionary or a function"
        with pytest.raises(TypeError, match=f"map_location is {found}"):
            resume(tmp_path / "none.pt", map_location=wrong, model=nn.Linear(1, 1))


TAGS = st.sampled_from(["cpu", "cuda:0", "cuda:1", "cuda:3"])
PLACES = st.sampled_from(["cpu", "cuda:0", "cuda:1"])
FORMS = st.none() | PLACES | PLACES.map(torch.device) | st.dictionaries(TAGS, PLACES, max_size=3)


@quiet
@given(TAGS, FORMS, st.integers(0, 4))
def test_on_any_machine_load_goes_where_torchs_load_goes(tag, form, gpus):
    def theirs(path):
        return torch.load(path, map_location=form)

    def ours(path):
        return load(path, map_location=form)

    there, here = where_loaded({"torch": theirs, "ours": ours}, saved=tag, gpus=gpus).outcomes
    assert there.device == here.device
    if there.error is not None:
        assert here.error == f"CheckpointError: the file cannot be read: {there.error}"


@quiet
@given(tag=TAGS, form=FORMS)
def test_with_fake_tensors_load_goes_where_torchs_load_goes(tag, form, tmp_path):
    write_tagged(tmp_path / "any.pt", {"w": torch.ones(2)}, tag)
    with FakeTensorMode():
        here = load(tmp_path / "any.pt", map_location=form)["w"].device
        assert here == torch.load(tmp_path / "any.pt", map_location=form)["w"].device
        assert load(tmp_path / "any.pt")["w"].device.type == "cpu"


# ---------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("device", DEVICES)
def test_training_saved_on_any_device_resumes_here_bit_for_bit(device, tmp_path):
    model, optimizer = trained(seed=1)
    with as_if_on(device):
        save(tmp_path / "last.pt", model=model, optimizer=optimizer, random=checkpoint.RandomState(), epoch=3)
    assert {entry.device for entry in inspect(tmp_path / "last.pt").tensors} == {device}
    mine, other = trained(seed=2, steps=1)
    resumed = resume(tmp_path / "last.pt", model=mine, optimizer=other, random=checkpoint.RandomState())
    assert resumed.values == {"epoch": 3}
    assert laws.same(plain(mine.state_dict()), plain(model.state_dict()))
    assert laws.same(other.state_dict()["state"], optimizer.state_dict()["state"])
    assert {value.device.type for value in tensors_of([mine, other.state_dict()])} == {"cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the file asks for")
@pytest.mark.parametrize("form", [None, "cuda:0", {"cuda:0": "cpu"}], ids=str)
def test_a_resume_onto_a_device_that_is_not_there_changes_nothing(form, tmp_path):
    model, optimizer = trained(seed=1)
    write_tagged(tmp_path / "gpu.pt", {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "cuda:1")
    mine, other = trained(seed=2)
    before = copy.deepcopy([plain(mine.state_dict()), other.state_dict()])
    with pytest.raises(CheckpointError, match="Attempting to deserialize object on a CUDA device"):
        resume(tmp_path / "gpu.pt", model=mine, optimizer=other, map_location=form)
    assert laws.same([plain(mine.state_dict()), other.state_dict()], before)


def test_a_resume_without_values_changes_nothing(tmp_path):
    model, _ = trained(seed=1)
    write_tagged(tmp_path / "gpu.pt", {"model": model.state_dict()}, "cuda:1")
    mine, _ = trained(seed=2)
    before = plain(mine.state_dict())
    with pytest.raises(CheckpointError, match="nothing was changed"):
        resume(tmp_path / "gpu.pt", model=mine, map_location="meta")
    assert laws.same(plain(mine.state_dict()), before)


def test_a_model_without_memory_is_refused_with_the_way_out(tmp_path):
    save(tmp_path / "last.pt", model=nn.Linear(2, 2))
    with pytest.raises(CheckpointError) as error:
        resume(tmp_path / "last.pt", model=nn.Linear(2, 2, device="meta"))
    assert "model.weight is on the meta device and has no memory: model.to_empty(device='cpu')" in str(error.value)
    mine = nn.Linear(2, 2, device="meta").to_empty(device="cpu")
    assert resume(tmp_path / "last.pt", model=mine).parts[0][3] == "resumed"


# ------------------------------------------------------------------------------------------------- looking and comparing


def test_inspect_tells_the_device_of_each_tensor(tmp_path, monkeypatch):
    placing._register()
    tags = iter(["cpu", "cuda:3"])
    monkeypatch.setattr(placing._Pretend, "tag", property(lambda self: next(tags)))
    torch.save({"here": torch.ones(1), "there": torch.ones(2)}, tmp_path / "both.pt")
    assert {entry.key: entry.device for entry in inspect(tmp_path / "both.pt").tensors} == {"here": "cpu", "there": "cuda:3"}


@quiet
@given(device=st.sampled_from(DEVICES), meta=st.booleans(), fake=st.booleans())
def test_compare_says_the_same_whatever_the_devices(device, meta, fake, tmp_path):
    model, _ = trained()
    write_tagged(tmp_path / "any.pt", model.state_dict(), device)
    expected = str(compare(model, model.state_dict()))
    if fake:
        with FakeTensorMode():
            on_gpu = nn.Sequential(*(nn.Linear(3, 4, device="cuda:0"), nn.BatchNorm1d(4, device="cuda:0")))
            on_gpu.append(nn.Linear(4, 2, device="cuda:0"))
            assert str(compare(on_gpu, load(tmp_path / "any.pt", map_location="cuda:1"))) == expected
        return
    mine = copy.deepcopy(model).to("meta") if meta else model
    assert str(compare(mine, load(tmp_path / "any.pt"))) == expected
    assert str(compare(mine, load(tmp_path / "any.pt", map_location="meta"))) == expected


def test_browse_takes_fake_and_meta_tensors_for_what_they_are(tmp_path):
    write_tagged(tmp_path / "gpu.pt", nn.Linear(2, 2).state_dict(), "cuda:0")
    with FakeTensorMode():
        model = nn.Linear(2, 2, device="cuda:0")
        assert [entry.live for entry in checkpoint.browse(model).entries] == [True, True]
        assert [entry.live for entry in checkpoint.browse(load(tmp_path / "gpu.pt"), model).entries] == [False, False]
    assert checkpoint.browse(load(tmp_path / "gpu.pt", map_location="meta")).bytes == 24


# ------------------------------------------------------------------------------ what the lesson says of torch itself


def test_filling_a_model_does_not_move_it(tmp_path):
    write_tagged(tmp_path / "gpu.pt", nn.Linear(2, 2).state_dict(), "cuda:1")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "cpu.pt")
    with FakeTensorMode():
        on_cpu, on_gpu = nn.Linear(2, 2), nn.Linear(2, 2, device="cuda:0")
        on_cpu.load_state_dict(torch.load(tmp_path / "gpu.pt"))
        on_gpu.load_state_dict(torch.load(tmp_path / "cpu.pt"))
    assert (str(on_cpu.weight.device), str(on_gpu.weight.device)) == ("cpu", "cuda:0")


# ----------------------------------------------------------------------------------------------- other readers of a file


@pytest.mark.parametrize("device", ["cuda:1", "mps", "xpu:0"])
def test_every_reader_of_a_file_takes_one_from_any_device(device, tmp_path):
    model, _ = trained(seed=1)
    write_tagged(tmp_path / "gpu.pt", model.state_dict(), device)
    want = plain(model.state_dict())
    filled = trained(seed=2)[0]
    checkpoint.load_into(filled, tmp_path / "gpu.pt")
    built = checkpoint.build(lambda: trained(seed=3, steps=0)[0], tmp_path / "gpu.pt")
    warm = trained(seed=4)[0]
    checkpoint.warm_start(warm, load(tmp_path / "gpu.pt"))
    for one in (filled, built, warm):
        assert laws.same(plain(one.state_dict()), want)
        assert {value.device.type for value in one.state_dict().values()} == {"cpu"}
    some = checkpoint.tensors(tmp_path / "gpu.pt", "0.weight")
    assert torch.equal(some["0.weight"], want["0.weight"]) and some["0.weight"].device.type == "cpu"


def test_nothing_runs_while_a_tagged_file_is_read(tmp_path):
    class Crafted:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    write_tagged(tmp_path / "crafted.pt", {"w": torch.ones(1), "x": Crafted()}, "cuda:0")
    with pytest.raises(CheckpointError, match=r"asks for .*open, which load never runs"):
        load(tmp_path / "crafted.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "crafted.pt", map_location="cpu")
    assert not (tmp_path / "ran").exists()


# -------------------------------------------------------------------------------------------------- where there is a GPU


@GPU
def test_on_a_real_gpu(tmp_path):
    model, _ = trained()
    moved = copy.deepcopy(model).to("cuda:0")
    save(tmp_path / "gpu.pt", model=moved, epoch=3)
    assert {entry.device for entry in inspect(tmp_path / "gpu.pt").tensors} == {"cuda:0"}
    assert load(tmp_path / "gpu.pt")["model"]["0.weight"].device.type == "cpu"
    assert str(load(tmp_path / "gpu.pt", map_location=None)["model"]["0.weight"].device) == "cuda:0"
    for device in ("cpu", "cuda:0"):
        mine = trained(seed=5)[0].to(device)
        resume(tmp_path / "gpu.pt", model=mine)
        assert str(mine[0].weight.device) == device
        assert laws.same(plain(mine.cpu().state_dict()), plain(model.state_dict()))
