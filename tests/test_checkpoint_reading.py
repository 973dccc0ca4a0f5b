"""Straight from a file: what is read without torch agrees with torch, whatever stands in the file; and safetensors."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_checkpoint import bits, rewritten, strays
from test_checkpoint import tensors as any_tensor
from torch import nn

from tutorlib import archive
from tutorlib.checkpoint import CheckpointError, build, direct, inspect, load, load_into, save, save_weights, tensors

quiet = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Small(nn.Module):
    """Parameters, buffers that are stored and not stored, a tie, an empty and a zero-dimensional one, other dtypes."""

    def __init__(self, seed=None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.thin = nn.Parameter(torch.rand(3).to(torch.bfloat16))
        self.register_buffer("mask", torch.zeros(0, 3, dtype=torch.bool))
        self.register_buffer("angles", torch.arange(3.0), persistent=False)
        self.kept = [self.scale]
        if seed is not None:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for tensor in (*self.parameters(), *self.buffers()):
                    if tensor.is_floating_point():
                        tensor.copy_(torch.rand_like(tensor))
                self.angles.copy_(torch.arange(3.0))


def state_of(model):
    return bits({**model.state_dict(), "angles": model.get_buffer("angles")} if isinstance(model, Small) else model.state_dict())


def never(*_, **__):
    raise AssertionError("torch was asked")


@pytest.fixture
def without_torch(monkeypatch):
    """Nothing is handed over to torch."""
    monkeypatch.setattr(direct, "read_open", never)


# ------------------------------------------------------------------------------------------------------------ into a model


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}, lambda s: {"model_state_dict": s}]
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_model_is_filled_as_torch_would(tmp_path, without_torch, wrap, verify):
    source, goal = Small(seed=1), Small(seed=2)
    torch.save(wrap(source.state_dict()), tmp_path / "x.pt")
    before = {name: p.data_ptr() for name, p in goal.named_parameters()}
    report = load_into(goal, tmp_path / "x.pt", verify=verify)
    assert report.complete and state_of(goal) == state_of(source)
    assert before == {name: p.data_ptr() for name, p in goal.named_parameters()}
    assert goal.head.weight is goal.embed.weight and goal.kept[0] is goal.scale


def test_a_model_of_other_strides_and_of_views_is_filled(tmp_path, without_torch):
    source, goal = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    torch.save(source.state_dict(), tmp_path / "x.pt")
    load_into(goal, tmp_path / "x.pt")
    assert bits(goal.state_dict()) == bits(source.state_dict()) and not goal.weight.is_contiguous()
    torch.save(goal.state_dict(), tmp_path / "y.pt")
    with torch.no_grad():
        source.weight.zero_()
    load_into(source, tmp_path / "y.pt")
    assert bits(goal.state_dict()) == bits(source.state_dict())
    long = torch.arange(40.0)
    torch.save(OrderedDict(weight=long[2:14].view(4, 3).t(), bias=long[5:8]), tmp_path / "z.pt")
    line = nn.Linear(4, 3)
    load_into(line, tmp_path / "z.pt")
    assert torch.equal(line.weight, long[2:14].view(4, 3).t()) and torch.equal(line.bias, long[5:8])


def test_a_graph_that_needs_the_old_values_is_told(tmp_path):
    line = nn.Linear(2, 2)
    save(tmp_path / "x.pt", model=line)
    loss = line(torch.ones(1, 2, requires_grad=True)).sum()
    load_into(line, tmp_path / "x.pt")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_does_not_fit_is_told_and_changes_no_byte(tmp_path):
    goal = nn.Linear(3, 2)
    before = bits(goal.state_dict())
    for state, text in (
        (nn.Linear(4, 2).state_dict(), "weight is float32 (2, 4) in the file, float32 (2, 3) here"),
        (nn.Linear(3, 2, bias=False).state_dict(), "bias is missing"),
        (nn.Linear(3, 2).double().state_dict(), "weight is float64 (2, 3) in the file, float32 (2, 3) here"),
        (nn.Sequential(nn.Linear(3, 2)).state_dict(), "if the prefix '0.' were removed"),
    ):
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=re.escape(text)) as caught:
            load_into(goal, tmp_path / "x.pt")
        assert "nothing was changed; warm_start(model, load(path)) loads what fits" in str(caught.value)
        with pytest.raises(CheckpointError, match=re.escape(text)):
            build(lambda: nn.Linear(3, 2), tmp_path / "x.pt")
    assert bits(goal.state_dict()) == before


def test_of_two_hundred_damages_none_changes_a_byte_of_the_model(tmp_path):
    source, goal = Small(seed=1), Small(seed=2)
    path = tmp_path / "x.pt"
    save(path, model=source)
    whole, rng, before = path.read_bytes(), random.Random(0), state_of(goal)
    damages = []
    for _ in range(160):
        byte = rng.randrange(len(whole))
        damages.append(whole[:byte] + bytes([whole[byte] ^ (1 << rng.randrange(8))]) + whole[byte + 1 :])
    damages += [whole[: rng.randrange(len(whole))] for _ in range(20)]
    for _ in range(20):
        start = rng.randrange(0, len(whole) // 512) * 512
        damages.append(whole[:start] + bytes(len(whole[start : start + 512])) + whole[start + 512 :])
    for content in damages:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is damaged: |cannot be verified: "):
            load_into(goal, path)
        assert state_of(goal) == before


def test_a_cut_or_a_short_storage_is_seen_before_a_byte_is_written_also_when_not_verified(tmp_path):
    goal = nn.Linear(64, 64)
    before = bits(goal.state_dict())
    save(tmp_path / "x.pt", model=nn.Linear(64, 64))
    whole = (tmp_path / "x.pt").read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.pt").write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            load_into(goal, tmp_path / "x.pt", verify=False)
    assert bits(goal.state_dict()) == before


def test_a_file_that_others_overwrite_meanwhile_is_noticed(tmp_path, monkeypatch):
    goal, path = nn.Linear(3, 2), tmp_path / "x.pt"
    before = bits(goal.state_dict())
    save(path, model=nn.Linear(3, 2))
    plan = direct._planned

    def overwritten(*args):
        os.utime(path, ns=(1, 1))
        return plan(*args)

    monkeypatch.setattr(direct, "_planned", overwritten)
    with pytest.raises(CheckpointError, match="was overwritten in place while it was read; nothing was changed"):
        load_into(goal, path)
    assert bits(goal.state_dict()) == before


def test_a_disk_that_fails_in_the_middle_is_told_as_it_is(tmp_path, monkeypatch):
    goal, path = nn.Linear(3, 2), tmp_path / "x.pt"
    save(path, model=nn.Linear(3, 2))

    def fails(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(direct, "_fill", fails)
    with pytest.raises(CheckpointError, match="OSError: the disk is gone; the model is part old, part new: load again"):
        load_into(goal, path)


def test_modules_with_code_of_their_own_are_handed_to_torch(tmp_path):
    class Counts(nn.Linear):
        loads = 0

        def _load_from_state_dict(self, *args):
            Counts.loads += 1
            super()._load_from_state_dict(*args)

    class Extra(nn.Linear):
        note = 5

        def get_extra_state(self):
            return self.note

        def set_extra_state(self, state):
            self.note = state

    def hooked():
        made = nn.Linear(3, 2)
        made.register_load_state_dict_pre_hook(lambda *_: None)
        return made

    for make in (lambda: Counts(3, 2), lambda: Extra(3, 2), hooked, lambda: torch.nn.utils.spectral_norm(nn.Linear(3, 2))):
        source, goal = make(), make()
        if isinstance(source, Extra):
            source.note = 7
        save(tmp_path / "x.pt", model=source)
        assert not direct._takes_bytes(source)
        load_into(goal, tmp_path / "x.pt")
        made = build(make, tmp_path / "x.pt")
        assert bits(goal.state_dict()) == bits(source.state_dict()) == bits(made.state_dict())
        assert not isinstance(source, Extra) or goal.note == made.note == 7
    assert Counts.loads > 0


def test_bad_input_is_named(tmp_path):
    save(tmp_path / "x.pt", epoch=3)
    torch.save([1, 2], tmp_path / "list.pt")
    model = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"load_into fills a model, the first argument is a dict: load\(path\) gives"):
        load_into({}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="weight is missing"):
        load_into(model, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="holds a list, expected a state_dict; nothing was changed"):
        load_into(model, tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_into(model, tmp_path / "none.pt")
    save(tmp_path / "m.pt", model=model)
    with pytest.raises(CheckpointError, match=r"the model has no memory \(device meta\): build\(make, "):
        load_into(nn.Linear(3, 2, device="meta"), tmp_path / "m.pt")
    with pytest.raises(TypeError, match="expected its class or a function, found a Linear: load_into fills one"):
        build(model, tmp_path / "m.pt")
    with pytest.raises(TypeError, match=r"make\(\) gave an int, expected a model"):
        build(lambda: 3, tmp_path / "m.pt")


# ------------------------------------------------------------------------------------------------------------ class and file


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_a_class_and_a_file_make_a_model(tmp_path, without_torch, mapped, form):
    source, path = Small(seed=1), tmp_path / f"x.{form}"
    save(path, model=source) if form == "pt" else save_weights(path, source)
    content = path.read_bytes()
    torch.manual_seed(0)
    drawn = torch.get_rng_state()
    made = build(Small, path, mapped=mapped)
    assert state_of(made) == state_of(source) and type(made.thin) is nn.Parameter
    assert made.head.weight is made.embed.weight and made.kept[0] is made.scale and made.scale.requires_grad
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in source.named_parameters()]
    loss = made.head(made.embed(torch.tensor([1]))).sum() * made.scale
    loss.backward()
    torch.optim.SGD(made.parameters(), lr=0.1).step()
    assert state_of(made) != state_of(source) and path.read_bytes() == content
    assert torch.equal(drawn, torch.get_rng_state()) or any(b.numel() for b in [made.thin])


def test_initial_values_are_not_computed_and_the_random_state_does_not_move(tmp_path):
    make = lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.TransformerEncoderLayer(8, 2, 16))  # noqa: E731
    source = make()
    save(tmp_path / "x.pt", model=source)
    drawn = torch.get_rng_state()
    made = build(make, tmp_path / "x.pt")
    assert torch.equal(drawn, torch.get_rng_state()) and bits(made.state_dict()) == bits(source.state_dict())
    assert nn.Linear(2, 2).weight.device.type == "cpu"  # nothing stays behind


def test_recurrent_layers_keep_their_own_references_and_are_made_as_ever(tmp_path):
    source = nn.LSTM(4, 5)
    save(tmp_path / "x.pt", model=source)
    made = build(lambda: nn.LSTM(4, 5), tmp_path / "x.pt")
    assert all(a is b for a, b in zip(made._flat_weights, made.parameters(), strict=True))
    assert torch.equal(made(torch.ones(2, 4))[0], source(torch.ones(2, 4))[0])


class NeedsValues(nn.Module):
    def __init__(self, how="item"):
        super().__init__()
        self.line = nn.Linear(3, 2)
        if how == "item":
            self.norm = self.line.weight.norm().item()
        elif how == "attribute":
            self.copy = self.line.weight.detach() * 0 + 1
        else:
            self.register_buffer("copy", self.line.weight.detach() * 0 + 1, persistent=False)


@pytest.mark.parametrize("how", ["item", "attribute", "buffer"])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_model_whose_code_needs_its_values_is_made_as_ever(tmp_path, how, mapped):
    source = NeedsValues(how)
    save(tmp_path / "x.pt", model=source)
    made = build(lambda: NeedsValues(how), tmp_path / "x.pt", mapped=mapped)
    assert bits(made.state_dict()) == bits(source.state_dict())
    assert isinstance(made.norm, float) if how == "item" else torch.equal(made.copy, torch.ones(2, 3))


def test_an_error_in_the_class_is_told_as_it_is(tmp_path):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(2, 2)
            raise KeyError("mine")

    save(tmp_path / "x.pt", model=nn.Linear(2, 2))
    with pytest.raises(KeyError, match="mine"):
        build(Broken, tmp_path / "x.pt")
    assert not nn.Linear(2, 2).weight.is_meta


# ------------------------------------------------------------------------------------------------------------ some tensors


@quiet
@given(st.lists(any_tensor(), min_size=1, max_size=4), st.booleans())
def test_what_is_read_without_torch_is_what_torch_reads(tmp_path, found, nested):
    state = OrderedDict((f"t{i}", tensor) for i, tensor in enumerate(found))
    state["tied"], state["view"] = found[0], found[0].view(found[0].shape)
    content = {"model": state, "list": [found[-1], {"a": 1}], "epoch": 3} if nested else state
    torch.save(content, tmp_path / "x.pt")
    torchs = dict(direct._tensors_in(torch.load(tmp_path / "x.pt", weights_only=True)))
    with (tmp_path / "x.pt").open("rb") as file:
        assert archive.structure(file).simple
    ours = tensors(tmp_path / "x.pt")
    assert bits(ours) == bits(torchs)
    assert [t.stride() for t in ours.values()] == [t.stride() for t in torchs.values()]
    same = lambda a, b: a.untyped_storage()._cdata == b.untyped_storage()._cdata  # noqa: E731
    for one in ours:
        for other in ours:
            if ours[one].numel():
                assert same(ours[one], ours[other]) == same(torchs[one], torchs[other])
                assert (ours[one] is ours[other]) == (torchs[one] is torchs[other])


def others():
    """Contents that torch has to read itself."""
    with_attribute = nn.Parameter(torch.ones(2))
    with_attribute.note = 1
    return {
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "meta": torch.ones(2, device="meta"),
        "attribute": with_attribute,
        "storage": torch.ones(2).untyped_storage(),
        "device": torch.device("cpu"),
    }


@pytest.mark.parametrize("kind", ["sparse", "quantized", "conjugated", "meta", "attribute", "storage", "device"])
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:.*quantized.*", "ignore:.*[Nn]ested.*", "ignore:.*Sparse.*")
def test_what_it_does_not_know_is_handed_to_torch(tmp_path, kind):
    content = {"a": torch.ones(2), "b": others()[kind]}
    torch.save(content, tmp_path / "x.pt")
    with (tmp_path / "x.pt").open("rb") as file:
        assert not archive.structure(file).simple
    assert torch.equal(tensors(tmp_path / "x.pt", "a")["a"], content["a"])


def test_another_byte_order_old_files_and_other_archives_are_handed_to_torch(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(3)}, path)
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    swapped = torch.arange(3).numpy().byteswap().tobytes()
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            new.writestr(name, b"big" if name.endswith("byteorder") else swapped if name.endswith("data/0") else data)
    with path.open("rb") as file:
        assert not archive.structure(file).simple
    assert tensors(path)["a"].tolist() == [0, 1, 2]
    torch.save({"a": torch.arange(3)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"cannot be verified: .* torch before 1.6 have no checksums"):
        tensors(path)
    assert tensors(path, verify=False)["a"].tolist() == [0, 1, 2]
    line, goal = nn.Linear(2, 1), nn.Linear(2, 1)
    torch.save(line.state_dict(), path, _use_new_zipfile_serialization=False)
    assert load_into(goal, path, verify=False).complete and bits(goal.state_dict()) == bits(line.state_dict())


def test_fewer_names_are_admitted_than_by_torch():
    from torch._weights_only_unpickler import _get_allowed_globals

    assert {*archive._SIMPLE} < {*_get_allowed_globals()}


def test_keys_that_are_not_there_or_no_tensors_are_named(tmp_path):
    save(tmp_path / "x.pt", model=nn.Linear(3, 2), epoch=3)
    with pytest.raises(CheckpointError) as caught:
        tensors(tmp_path / "x.pt", "model.weigth", "epoch")
    assert str(caught.value) == (
        f"cannot take from '{tmp_path / 'x.pt'}': it has no tensor 'model.weigth', but 'model.weight'; "
        "'epoch' is a plain value: take it from load(path) or inspect(path).values"
    )
    torch.save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match=r"two of its tensors are called 'a.b': take them from load\(path\)"):
        tensors(tmp_path / "y.pt", "a.b")


def test_only_what_was_asked_for_is_read_and_verified(tmp_path):
    path = tmp_path / "x.pt"
    big = torch.arange(100_000.0)
    torch.save({"a": torch.ones(5000), "b": torch.zeros(5000), "head": big[10:13]}, path)
    found = tensors(path, "head")["head"]
    assert found.tolist() == [10, 11, 12] and found.untyped_storage().nbytes() < 100
    whole = bytearray(path.read_bytes())
    with path.open("rb") as file:
        structure = archive.structure(file)
        whole[archive.begin(file, structure.places["1"]) + 5] ^= 1
    path.write_bytes(whole)
    assert tensors(path, "a")["a"].sum() == 5000
    with pytest.raises(CheckpointError, match="is damaged: the checksum of record 'x/data/1' does not match"):
        tensors(path, "a", "b")
    assert tensors(path, "b", verify=False)["b"].count_nonzero() == 1
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(CheckpointError, match="it was written without checksums"):
        tensors(path)


# ------------------------------------------------------------------------------------------------------------ fuzzed


def torch_or_none(path):
    try:
        return dict(direct._tensors_in(torch.load(path, map_location="cpu", weights_only=True)))
    except Exception:
        return None


def is_simple(path):
    with path.open("rb") as file:
        try:
            return archive.structure(file).simple
        except Exception:
            return False


def agrees(path):
    """What the structure calls simple, torch reads, and finds the same; nothing else than our errors comes out."""
    simple = is_simple(path)
    try:
        ours = tensors(path, verify=False)
    except CheckpointError:
        return
    theirs = torch_or_none(path)
    if simple and theirs is not None:
        assert bits(ours) == bits(theirs)
    assert theirs is not None or not simple or not ours, "accepted what torch refuses"


@quiet
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_structures_are_refused_or_read_as_torch_reads_them(tmp_path, data):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(6).view(2, 3), "b": [1, {"c": nn.Parameter(torch.ones(2))}]}, path)

    def damage(content):
        content = bytearray(content)
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        return bytes(content)

    rewritten(path, damage)
    agrees(path)


@pytest.mark.parametrize(
    "change",
    [
        (b"\x89c", b")c"),  # requires_grad is no bool
        (b"\x89c", b"\x88c"),  # integers that want gradients
        (b"\x89ccollections", b"ccollections"),  # one argument too few
        (b"RtR", b"R)NtR"),  # one too many
        (b"K\6t", b"K\5t"),  # another size than the storage has
        (b"LongStorage", b"DoubleStorage"),
        (b"X\3\0\0\0cpu", b"K\1"),
    ],
    ids=["grad", "integers", "few", "many", "size", "class", "device"],
)
def test_a_tensor_that_torch_would_not_make_is_handed_to_torch(tmp_path, change):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(6)}, path)
    found = []

    def damage(data):
        result = re.sub(rb"R(q.)t(q.)R", b"RtR", data).replace(*change)  # without the memo's marks between them
        found.append(change[0] in re.sub(rb"R(q.)t(q.)R", b"RtR", data))
        return result

    rewritten(path, damage)
    assert found == [True]
    assert change[0] == b"LongStorage" or not is_simple(path)
    agrees(path)


@quiet
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\2", b"\x80\2}q\0", b"\x80\2ccollections\nOrderedDict\n"]))
@pytest.mark.filterwarnings("ignore")
def test_any_pickle_is_refused_or_read_as_torch_reads_it(tmp_path, tail, head):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3)}, path)
    rewritten(path, lambda _: head + tail + b".")
    agrees(path)


@quiet
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\3\4", archive._LEGACY, b"\x10\0\0\0\0\0\0\0{"]))
def test_any_bytes_are_one_error(tmp_path, tail, head):
    path = tmp_path / "x.pt"
    path.write_bytes(head + tail)
    for read in (load, inspect, tensors, lambda p: load_into(nn.Linear(2, 2), p)):
        with pytest.raises(CheckpointError):
            read(path)


@pytest.mark.parametrize("deep", [b")" + b"\x85" * 300_000, b")" + b"\x85" * 50 + b"q\0" + b"h\0\x86" * 1], ids=["deep", "wide"])
@pytest.mark.parametrize("form", ["key", "item", "set"])
def test_a_key_that_would_never_end_is_refused_before_python_hashes_it(tmp_path, deep, form):
    """Python dies of the first one: a tuple's hash is computed in C without a limit of depth."""
    if deep.endswith(b"\x86"):
        deep = b")q\0" + b"h\0h\0\x86q\0" * 200
    pickles = {
        "key": b"\x80\2}" + deep + b"K\1s.",
        "item": b"\x80\2}(" + deep + b"K\1u.",
        "set": b"\x80\2c__builtin__\nset\n](" + deep + b"e\x85R.",
    }
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    rewritten(tmp_path / "x.pt", lambda _: pickles[form])
    with pytest.raises(CheckpointError, match="a key is a tuple of tuples without end"):
        inspect(tmp_path / "x.pt")


def test_room_is_not_made_for_what_a_file_only_claims(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    for claim in (
        b"\x96" + (1 << 40).to_bytes(8, "little"),
        b"r\xff\xff\xff\xffX\xff\xff\xff\xff",
        b"\x8e" + b"\xff" * 7 + b"\x7f",
    ):
        rewritten(tmp_path / "x.pt", lambda _, claim=claim: b"\x80\5N" + claim + b".")
        with pytest.raises(CheckpointError, match="its structure is damaged"):
            inspect(tmp_path / "x.pt")


# ------------------------------------------------------------------------------------------------------------ before torch 1.6


def test_inspect_reads_files_from_before_torch_16(tmp_path):
    big = torch.arange(1000.0)
    content = {"a": big[:3], "b": big, "c": [nn.Parameter(torch.ones(2, 2)), 5], "d": torch.ones(2, dtype=torch.int8)}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(content, tmp_path / "new.pt")
    old, new = inspect(tmp_path / "old.pt"), inspect(tmp_path / "new.pt")
    shown = lambda found: [(t.key, t.shape, t.dtype, t.bytes, t.stride, t.storage_bytes) for t in found.tensors]  # noqa: E731
    assert shown(old) == shown(new) and old.values == new.values == {"c.1": 5} and old.refused == ()
    with (tmp_path / "old.pt").open("rb") as file:
        found = archive.structure(file)
        start = archive.begin(file, found.places[found.tensors[-1].storage])
        file.seek(start)
        assert file.read(2) == b"\1\1"
    whole = (tmp_path / "old.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="cannot be inspected: it is cut off"):
        inspect(tmp_path / "cut.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert "torch.nn.modules.linear.Linear" in inspect(tmp_path / "model.pt").refused


# ------------------------------------------------------------------------------------------------------------ safetensors


def written_safely(path, tensors, metadata=None):
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)


def test_a_safetensors_file_is_known_by_its_content(tmp_path, without_torch):
    path = tmp_path / "model.bin"
    dtypes = [
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint16,
        torch.bool,
        torch.complex64,
        torch.float8_e5m2,
    ]
    content = {f"t{i}": torch.ones(2, 3).to(dtype) for i, dtype in enumerate(dtypes)}
    content |= {"empty": torch.ones(0, 4), "zero": torch.tensor(7)}
    written_safely(path, content, {"format": "pt", "epoch": "3"})
    assert bits(dict(sorted(load(path).items()))) == bits(dict(sorted(content.items())))
    assert {k: bits(v) for k, v in tensors(path).items()} == {k: bits(v) for k, v in content.items()}
    found = inspect(path)
    assert found.values == {"metadata.epoch": "3", "metadata.format": "pt"} and found.refused == () and found.wasted == 0
    assert {t.key: t.shape for t in found.tensors} == {k: tuple(v.shape) for k, v in content.items()}
    assert load(path, map_location="meta")["zero"].is_meta


def test_weights_go_to_safetensors_and_back_with_ties_versions_and_metadata(tmp_path, without_torch):
    from safetensors.torch import load_model, save_model

    source, goal = Small(seed=1), Small(seed=2)
    path = tmp_path / "x.safetensors"
    save_weights(path, source, metadata={"trained on": "digits"})
    state = load(path)
    assert bits(dict(sorted(state.items()))) == bits(dict(sorted(source.state_dict().items())))
    assert state._metadata == source.state_dict()._metadata and state["head.weight"] is state["embed.weight"]
    assert inspect(path).values["metadata.trained on"] == "digits" and ("embed.weight", "head.weight") in [
        tuple(sorted(group)) for group in inspect(path).shared
    ]
    assert load_into(goal, path).complete and state_of(goal) == state_of(source)
    load_model(Small(seed=3), path)  # what safetensors itself makes of our file
    save_model(source, tmp_path / "theirs.safetensors")
    theirs = Small(seed=4)
    assert load_into(theirs, tmp_path / "theirs.safetensors").complete and state_of(theirs) == state_of(source)


def test_what_safetensors_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, {"a": torch.ones(2)})
    before, big = path.read_bytes(), torch.ones(6)
    for state, text in (
        ({"a": 1}, "a is an int, and safetensors holds tensors only: save(path, name=value) stores the rest"),
        ({1: torch.ones(1)}, "1 is no name that safetensors can store: it takes text"),
        ({"a": torch.eye(2).to_sparse()}, "a is no plain tensor in memory: store its .to_dense()"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, "a is of dtype torch.complex128, which safetensors does not know"),
        ({"a": big[:4], "b": big[3:]}, "a and b overlap in memory: store .clone() of one"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(text)) as caught:
            save_weights(path, state)
        assert "nothing was written" in str(caught.value)
    with pytest.raises(CheckpointError, match="metadata 'epoch' is 3, expected text"):
        save_weights(path, {"a": big}, metadata={"epoch": 3})
    with pytest.raises(TypeError, match="save_weights needs a model or a state_dict, found an int"):
        save_weights(path, 3)
    assert path.read_bytes() == before and strays(tmp_path) == []
    save_weights(path, {"a": big[:3], "b": big[3:], "c": torch.ones(2, 3).t()})
    assert load(path)["c"].shape == (3, 2)


def test_a_damaged_safetensors_header_or_length_never_loads(tmp_path):
    path = tmp_path / "x.safetensors"
    written_safely(path, {"a": torch.ones(3), "b": torch.zeros(2, 2)})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def other(**changes):
        text = json.dumps({**header, **changes}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    twice = whole[8 : 8 + length].replace(b'"b"', b'"a"')
    lies = [whole[:-1], whole + b"\0", other(a={**header["a"], "shape": [4]})]
    lies += [other(b={**header["b"], "data_offsets": [4, 20]})]
    lies += [
        other(a={**header["a"], "shape": [-3]}),
        other(a={**header["a"], "dtype": "F7"}),
        other(a=[1]),
        other(__metadata__={"a": 1}),
    ]
    lies += [whole[:8] + twice + whole[8 + length :], whole[:8] + b"{" * length + whole[8 + length :], whole[: 8 + length]]
    for content in lies:
        path.write_bytes(content)
        for read in (load, inspect, tensors, lambda p: load_into(nn.Linear(2, 2), p)):
            with pytest.raises(CheckpointError, match=r"is damaged|cannot be"):
                read(path)
    rng = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(8 + length)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = load(path)
        except CheckpointError:
            continue
        assert sum(t.nbytes for t in found.values()) == 28  # another name or dtype: the format cannot tell


# ------------------------------------------------------------------------------------------------------------ memory

MEMORY = """
import sys, torch
from tutorlib import checkpoint

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024, bias=False) for _ in range(16)])  # 64 MB
path = sys.argv[1]
checkpoint.save(path, model=model)
checkpoint.load_into(model, path)
into, look = lambda: checkpoint.load_into(model, path), lambda: checkpoint.inspect(path)
for work in (into, look, lambda: checkpoint.tensors(path, "model.3.weight")):
    before = anonymous()
    kept = work()
    print(int(anonymous() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count of a process's memory")
def test_a_large_file_needs_little_memory_of_its_own(tmp_path):
    (tmp_path / "memory.py").write_text(MEMORY)
    command = [sys.executable, tmp_path / "memory.py", tmp_path / "x.pt"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}).stdout
    into, looked, three = map(int, said.split())
    assert into <= 10 and looked <= 5 and three <= 16
