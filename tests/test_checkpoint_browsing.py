"""What a state_dict holds and what it leaves out; where a load puts its tensors, held against torch's own fake tensors."""

import copy
import threading

import laws
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tutorlib import checkpoint, pictures
from tutorlib.checkpoint import CheckpointError, browse, where_loaded, write_tagged


class Everything(nn.Module):
    """Each kind of thing that a module can hold."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.MaxPool2d(2))
        self.head = nn.Linear(2, 2)
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = self.head.weight
        self.register_buffer("mask", torch.ones(4), persistent=False)
        self.register_parameter("nothing", None)
        self.scale = torch.ones(2, dtype=torch.float64)
        self.head.bias.requires_grad_(False)

    def get_extra_state(self):
        return {"epochs": 3}

    def set_extra_state(self, state):
        pass


def found(contents, field):
    return {entry.key: getattr(entry, field) for entry in contents.entries}


def test_every_entry_of_a_model_and_all_that_has_none():
    model = Everything()
    contents = browse(model)
    assert sorted(contents.keys) == sorted(model.state_dict())
    assert found(contents, "kind") == {
        "mask": "buffer",
        "scale": "attribute",
        "_extra_state": "extra state",
        "body.0.weight": "parameter",
        "body.0.bias": "parameter",
        "body.1.running_mean": "buffer",
        "body.1.running_var": "buffer",
        "body.1.num_batches_tracked": "buffer",
        "body.2": "MaxPool2d",
        "head.weight": "parameter",
        "head.bias": "parameter",
        "tied.weight": "parameter",
    }
    assert [e.key for e in contents.entries if not e.stored] == ["mask", "scale", "body.2"]
    assert {key: other for key, other in found(contents, "shared").items() if other} == {"tied.weight": "head.weight"}
    grads = found(contents, "requires_grad")
    assert grads["head.weight"] and not grads["head.bias"] and grads["body.2"] is None
    assert found(contents, "shape")["body.0.weight"] == (2, 1, 3, 3) and found(contents, "dtype")["scale"] == "float64"
    assert all(e.live for e in contents.entries if e.stored and e.dtype)
    assert contents.bytes == sum(v.numel() * v.itemsize for k, v in model.state_dict().items() if k not in NOT_COUNTED)
    assert contents.versions["body.1"] == 2
    assert contents.summary() == (
        "9 entries: 5 parameters, 3 buffers, 1 other value; 2 tensors not stored; 8 of 8 tensors are the model's own memory"
    )
    laws.same_text_twice(lambda: browse(model))


NOT_COUNTED = ("tied.weight", "_extra_state")


def test_browsing_changes_and_copies_nothing():
    model = Everything()
    before = copy.deepcopy(model.state_dict())
    browse(model), browse(model.state_dict(), model)
    assert laws.same({k: v for k, v in before.items()}, {k: v for k, v in model.state_dict().items()})
    assert model.training and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "keep, alive",
    [(dict, True), (lambda s: s.copy(), True), (copy.deepcopy, False), (lambda s: s, True)],
    ids=["dict", "copy", "deepcopy", "itself"],
)
def test_a_state_held_against_its_model_says_whose_memory_it_is(keep, alive):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    contents = browse(keep(model.state_dict()), model)
    assert set(found(contents, "live").values()) == {alive}
    assert list(found(contents, "kind").values()) == ["parameter"] * 4 + ["buffer"] * 3
    assert not any(found(contents, "requires_grad").values())
    assert contents.summary().endswith(f"{7 if alive else 0} of 7 tensors are the model's own memory")


def test_part_of_the_memory_may_be_the_models():
    model = nn.Linear(2, 2)
    state = dict(model.state_dict())
    state["bias"] = state["bias"].clone()
    assert found(browse(state, model), "live") == {"weight": True, "bias": False}


def test_a_plain_dict_has_lost_the_versions():
    state = nn.BatchNorm1d(2).state_dict()
    assert browse(state).versions == {"": 2} and browse(dict(state)).versions == {}


def test_an_optimizer_and_a_nested_checkpoint():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert browse(optimizer).entries[0].content == "{}"
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    contents = browse({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loss": [0.5, 0.25]})
    assert contents.keys[:4] == (
        "model.weight",
        "model.bias",
        "optimizer.state.0.momentum_buffer",
        "optimizer.state.1.momentum_buffer",
    )
    kinds = found(contents, "kind")
    assert kinds["optimizer.param_groups.0.params"] == "list" and kinds["loss"] == "list"
    assert found(contents, "content")["optimizer.param_groups.0.params"] == "[0, 1]"
    assert list(contents.rows()[0]) == ["key", "kind", "content", "requires_grad"]


def test_views_of_one_storage_are_seen_as_shared():
    big = torch.zeros(10)
    contents = browse({"first": big[:3], "last": big[3:], "own": torch.zeros(2)})
    assert found(contents, "shared") == {"first": None, "last": "first", "own": None}


def test_lazy_meta_sparse_and_empty_tensors():
    lazy = browse(nn.LazyLinear(3))
    assert [e.content for e in lazy.entries] == ["not yet initialized"] * 2 and lazy.bytes == 0
    meta = browse(nn.Linear(2, 3, device="meta"))
    assert all(e.live for e in meta.entries) and found(meta, "shared") == {"weight": None, "bias": None}
    odd = browse({"sparse": torch.eye(2).to_sparse(), "none": torch.empty(0), "other": torch.empty(0)})
    assert set(found(odd, "shared").values()) == {None} and found(odd, "shape")["sparse"] == (2, 2)


def test_what_a_hook_adds_is_told_too():
    model = nn.Linear(2, 2)
    model.register_state_dict_post_hook(lambda module, state, prefix, local: state.update(note="kept"))
    entry = browse(model).entries[-1]
    assert (entry.key, entry.kind, entry.stored, entry.content) == ("note", "str", True, "kept")


def test_pictures_show_layers_and_mark_what_is_not_stored_or_shared():
    lines = browse(Everything()).tree()
    assert {line["path"] for line in lines if line["surprise"]} == {"mask", "scale", "weight"}
    assert [line["after"] for line in lines if line["before"] == "MaxPool2d"] == ["no entry"]
    assert [line["path"] for line in lines if line["depth"] == 0] == ["mask", "scale", "_extra_state", "body", "head", "tied"]
    assert "no entry" in pictures.tree(browse(Everything()))
    bare = browse(nn.Linear(1, 1).state_dict()).tree()
    assert [line["before"] for line in bare] == ["", ""] and pictures.tree(browse({}))


@pytest.mark.parametrize(
    "wrong, text",
    [
        (3, "found an int"),
        ("last.pt", "found the path 'last.pt': browse(load(path)), or inspect(path)"),
        (nn.Linear, "found the class Linear"),
        ([torch.ones(1)], "found a list"),
    ],
)
def test_browse_refuses_what_is_no_state(wrong, text):
    with pytest.raises(TypeError) as error:
        browse(wrong)
    assert text in str(error.value)


def test_browse_refuses_a_second_argument_that_is_no_model_and_a_state_that_holds_itself():
    with pytest.raises(TypeError, match="the second argument is a dict"):
        browse({}, {})
    state = {}
    state["again"] = state
    with pytest.raises(ValueError, match="nested more than 100 deep: does the state hold itself"):
        browse(state)


blocks = st.recursive(
    st.sampled_from(["linear", "norm", "plain norm", "relu", "pool", "lazy"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def built(block):
    if isinstance(block, list):
        return nn.Sequential(*map(built, block))
    return {
        "linear": lambda: nn.Linear(2, 2),
        "norm": lambda: nn.BatchNorm1d(2),
        "plain norm": lambda: nn.BatchNorm1d(2, affine=False),
        "relu": nn.ReLU,
        "pool": lambda: nn.MaxPool1d(2),
        "lazy": lambda: nn.LazyLinear(2),
    }[block]()


@settings(deadline=None, max_examples=40)
@given(blocks)
def test_of_any_model_browse_tells_exactly_the_keys_and_kinds_that_torch_has(block):
    model = built([block])
    contents = browse(model)
    kinds = found(contents, "kind")
    assert sorted(contents.keys) == sorted(model.state_dict())
    assert {k for k in contents.keys if kinds[k] == "parameter"} == {k for k, _ in model.named_parameters()}
    assert {k for k in contents.keys if kinds[k] == "buffer"} == {k for k, _ in model.named_buffers()}
    leaves = {k for k, m in model.named_modules() if k and not list(m.children()) and not m.state_dict()}
    assert {e.key for e in contents.entries if not e.stored} == leaves


# ----------------------------------------------------------------------------------------------- files tagged for a device


def test_a_tagged_file_names_the_device_and_holds_the_values(tmp_path):
    state = {"weight": torch.arange(4.0), "epoch": 3}
    write_tagged(tmp_path / "gpu.pt", state, "cuda:1")
    torch.save(state, tmp_path / "cpu.pt")
    assert [t.device for t in checkpoint.inspect(tmp_path / "gpu.pt").tensors] == ["cuda:1"]
    assert [t.device for t in checkpoint.inspect(tmp_path / "cpu.pt").tensors] == ["cpu"]  # the next save is an ordinary one
    assert laws.same(checkpoint.load(tmp_path / "gpu.pt"), state)
    for device, tag in ((torch.device("cuda"), "cuda:0"), ("mps", "mps"), ("xpu", "xpu:0"), ("cpu", "cpu")):
        write_tagged(tmp_path / "gpu.pt", state, device)
        assert checkpoint.inspect(tmp_path / "gpu.pt").tensors[0].device == tag


def test_a_failed_save_leaves_no_tag_behind(tmp_path):
    with pytest.raises(Exception, match="pickle"):
        write_tagged(tmp_path / "gpu.pt", {"f": lambda: 0}, "cuda:1")
    torch.save({"w": torch.ones(1)}, tmp_path / "cpu.pt")
    assert checkpoint.inspect(tmp_path / "cpu.pt").tensors[0].device == "cpu"
    with pytest.raises(ValueError, match=r"'gpu' is no device .*expected for example 'cpu' or 'cuda:0'"):
        write_tagged(tmp_path / "gpu.pt", {}, "gpu")
    with pytest.raises(ValueError, match="None is no device"):
        write_tagged(tmp_path / "gpu.pt", {}, None)


def test_another_thread_is_not_drawn_in(tmp_path):
    def elsewhere():
        torch.save({"w": torch.ones(1)}, tmp_path / "cpu.pt")

    class Slow(dict):
        def __reduce__(self):  # called while the tagged file is written
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            return dict, ()

    write_tagged(tmp_path / "gpu.pt", [Slow(), torch.ones(1)], "cuda:1")
    assert checkpoint.inspect(tmp_path / "cpu.pt").tensors[0].device == "cpu"


CALLS = {"none": None, "cpu": "cpu", "device": torch.device("cpu"), "cuda:0": "cuda:0", "dict": {"cuda:1": "cuda:0"}}


@pytest.mark.parametrize("name", CALLS)
def test_with_enough_gpus_a_load_goes_where_torchs_fake_tensors_go(name, tmp_path):
    def read(path):
        return torch.load(path, map_location=CALLS[name])

    for outcome in where_loaded({name: read}, gpus=2).outcomes:
        write_tagged(tmp_path / "file.pt", {"w": torch.ones(2)}, outcome.saved)
        with FakeTensorMode():
            assert outcome.device == str(read(tmp_path / "file.pt")["w"].device)


def test_without_a_gpu_and_with_one_the_errors_are_torchs_own(tmp_path):
    def first(path):
        return torch.load(path)

    none, one = where_loaded({"first": first}), where_loaded({"first": first}, gpus=1)
    famous = "RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False"
    assert [o.device or o.error for o in none.outcomes] == ["cpu", famous, famous]
    beyond = "RuntimeError: Attempting to deserialize object on CUDA device 1 but torch.cuda.device_count() is 1"
    assert [o.device or o.error for o in one.outcomes] == ["cpu", "cuda:0", beyond]
    assert none.summary() == "a machine with 0 GPUs: 2 of 3 loads failed" and one.summary().startswith(
        "a machine with 1 GPU: 1 of"
    )
    if not torch.cuda.is_available():
        write_tagged(tmp_path / "gpu.pt", {"w": torch.ones(1)}, "cuda:0")
        with pytest.raises(RuntimeError) as error:
            torch.load(tmp_path / "gpu.pt")
        assert str(error.value).startswith(famous.removeprefix("RuntimeError: "))


def test_load_brings_every_file_to_the_cpu_whatever_the_machine_has():
    for gpus in (0, 1, 2):
        assert {o.device for o in where_loaded({"load": checkpoint.load}, gpus=gpus).outcomes} == {"cpu"}


def test_outcomes_name_no_path_and_draw():
    table = where_loaded({"load as saved": lambda path: checkpoint.load(path, map_location=None), "nothing": lambda path: 3})
    assert table.rows()[2]["outcome"].startswith("CheckpointError: the file cannot be read: RuntimeError: Attempting")
    assert table.rows()[1]["outcome"] == "no tensor in an int"
    laws.same_text_twice(lambda: where_loaded({"torch.load(path)": torch.load}, saved="cuda:3", gpus=2))
    lines = table.tree()
    assert [line["before"] for line in lines if line["depth"] == 0] == ["cpu", "cuda:0", "cuda:1"]
    assert "CheckpointError" in pictures.tree(table)
    with torch.serialization.safe_globals([]):
        model = where_loaded({"a model": lambda path: nn.Linear(1, 1)}, saved="cuda:0", gpus=1)
    assert model.outcomes[0].device == "cpu"


def test_torch_is_itself_again_afterwards(tmp_path):
    available = torch.cuda.is_available, torch.cuda.device_count
    where_loaded({"torch.load(path)": torch.load}, gpus=3)
    assert (torch.cuda.is_available, torch.cuda.device_count) == available
    torch.save({"w": torch.ones(1)}, tmp_path / "cpu.pt")
    assert torch.load(tmp_path / "cpu.pt")["w"].device.type == "cpu"


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (({},), TypeError, "needs functions of a path by name"),
        ((torch.load,), TypeError, "needs functions of a path by name"),
        (({"a": 3},), TypeError, "needs functions of a path by name"),
    ],
)
def test_where_loaded_refuses_what_is_no_table_of_functions(arguments, error, text):
    with pytest.raises(error, match=text):
        where_loaded(*arguments)


def test_where_loaded_refuses_numbers_and_devices_that_make_no_sense():
    for gpus in (-1, 1.0, True):
        with pytest.raises(ValueError, match=f"gpus={gpus!r}: expected a whole number from 0"):
            where_loaded({"a": torch.load}, gpus=gpus)
    with pytest.raises(ValueError, match="'gpu' is no device"):
        where_loaded({"a": torch.load}, saved=["gpu"])


def test_an_interrupt_passes_through():
    def interrupted(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        where_loaded({"a": interrupted})
    assert isinstance(CheckpointError(""), RuntimeError)
