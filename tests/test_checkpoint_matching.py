"""From a state to a model: the report is exact, renaming can be taken back, and a load that fails changes no byte."""

from __future__ import annotations

import copy
import re
import textwrap
import types
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from tests.laws import same, same_text_twice
from tutorlib import pictures
from tutorlib.checkpoint import CheckpointError, compare, load, matching, resume, save, warm_start, with_prefix, without_prefix

quiet = settings(deadline=None, max_examples=60)


def trace(value):
    """All that a load could change in a value, as something that == compares: bits, objects, places, flags."""
    if isinstance(value, torch.Tensor):
        if torch.nn.parameter.is_lazy(value):
            return id(value), type(value), value.requires_grad
        flat = value.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
        bits = bytes(flat.view(torch.uint8).tolist()) if not value.is_meta else b""
        place = value.data_ptr() if not value.is_meta else 0
        return id(value), type(value), value.dtype, tuple(value.shape), value.stride(), value.requires_grad, place, bits
    if isinstance(value, dict):
        return id(value), [(key, trace(entry)) for key, entry in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [trace(entry) for entry in value]
    return value if isinstance(value, (int, float, str, bool, set)) else id(value)


def whole(model):
    """All that a load could change in a model."""
    return [(type(module), trace(vars(module))) for module in model.modules()]


def net(seed=0, outputs=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
        model = nn.ModuleDict({"body": body, "head": nn.Linear(4, outputs)})
        for buffer in model.buffers():
            buffer.copy_(torch.randint(1, 9, buffer.shape))
    return model


def parallel(model):
    """Wrapped, on the CPU also where there are GPUs."""
    return nn.DataParallel(model).cpu()


def equal(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


# --- Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        (None, ["a.fc.weight", "a.fc2.weight", "scale"]),
        ({"a": "b"}, ["b.fc.weight", "b.fc2.weight", "scale"]),
        ({"a.fc.": "x."}, ["x.weight", "a.fc2.weight", "scale"]),
        ({"a": ""}, ["fc.weight", "fc2.weight", "scale"]),
        ({"": "module"}, ["module.a.fc.weight", "module.a.fc2.weight", "module.scale"]),
        ({"scale": "gain", "a.fc.weight": "w"}, ["w", "a.fc2.weight", "gain"]),
        ({"a.fc": "b.fc", "a": "c"}, ["b.fc.weight", "c.fc2.weight", "scale"]),  # the first that fits
        ({"a.fc": "a.fc2", "a.fc2": "a.fc"}, ["a.fc2.weight", "a.fc.weight", "scale"]),  # an exchange
        ([{"a": "b"}, {"b.fc": "c"}], ["c.weight", "b.fc2.weight", "scale"]),  # one after the other
        ({"a": None}, ["scale"]),
        ({re.compile(r"fc(\d*)\."): r"linear\1."}, ["a.linear.weight", "a.linear2.weight", "scale"]),
        ({re.compile("^a.fc$"): None, re.compile("scale"): None}, ["a.fc.weight", "a.fc2.weight"]),
        (str.upper, ["A.FC.WEIGHT", "A.FC2.WEIGHT", "SCALE"]),
        (lambda name: None if "fc2" in name else name, ["a.fc.weight", "scale"]),
        ({"fc": "head"}, ["a.fc.weight", "a.fc2.weight", "scale"]),  # parts of a name count from its beginning
    ],
)
def test_rules_in_the_order_in_which_they_are_stated(rename, expected):
    state = {name: torch.ones(1) for name in ("a.fc.weight", "a.fc2.weight", "scale")}
    assert list(matching._renamed(state, rename).state) == expected
    assert list(state) == ["a.fc.weight", "a.fc2.weight", "scale"]


@pytest.mark.parametrize(
    ("rename", "error", "text"),
    [
        ("module.", TypeError, "rename='module.': expected a mapping of names, a function of a name, or a list of these"),
        ({1: "a"}, TypeError, "rename={1: 'a'}: expected a name or a re.compile(...) of names, and the new name"),
        ({"a": 1}, TypeError, "rename={'a': 1}: expected a name or a re.compile"),
        ({re.compile(b"a"): "b"}, TypeError, "expected a name or a re.compile(...) of names"),
        ({re.compile("a"): r"\7"}, ValueError, "invalid group reference 7"),
        ({re.compile(".*"): ""}, ValueError, "rename leaves nothing of 'a.weight': None leaves a name out"),
        (lambda name: 3, TypeError, "rename gave an int for 'a.weight', expected a name, or None to leave it out"),
        ([{"a": "b"}, 5], TypeError, "rename=5: expected a mapping"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rename, error, text):
    with pytest.raises(error, match=re.escape(text)):
        compare(nn.Linear(1, 1), {"a.weight": torch.ones(1, 1)}, rename=rename)


names_of_parts = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


@quiet
@given(st.data())
def test_a_renaming_and_its_inverse_give_the_same_state(data):
    names = data.draw(st.lists(names_of_parts, min_size=1, max_size=6, unique=True))
    state = OrderedDict((name, torch.full((1,), float(i))) for i, name in enumerate(names))
    state._metadata = OrderedDict({"": {"version": 1}})
    for name in names:
        *modules, _ = name.split(".")
        for depth in range(len(modules)):
            path = ".".join(modules[: depth + 1])
            state._metadata.setdefault(path, {"version": len(state._metadata)})
    prefix = data.draw(st.sampled_from(["module.", "_orig_mod", "a.b."]))
    there = with_prefix(state, prefix)
    back = without_prefix(there, prefix)
    assert list(back.items()) == list(state.items())
    assert dict(back._metadata) == dict(state._metadata)
    parts = data.draw(st.permutations(["a", "b", "c"]))
    swap = dict(zip("abc", parts, strict=True))
    moved = matching._renamed(state, swap)
    again = matching._renamed(moved.state, {new: old for old, new in swap.items()})
    assert not moved.collisions and list(again.state.items()) == list(state.items())
    assert dict(again.state._metadata) == dict(state._metadata)


@pytest.mark.parametrize("prefix", ["module.", "module"])
def test_prefixes_are_taken_off_as_torch_does_and_the_argument_stays(prefix):
    wrapped = parallel(net()).state_dict()
    torchs = copy.copy(wrapped)
    torchs._metadata = OrderedDict(wrapped._metadata)
    consume_prefix_in_state_dict_if_present(torchs, "module.")
    before, versions = list(wrapped), dict(wrapped._metadata)
    ours = without_prefix(wrapped, prefix)
    assert list(ours) == list(torchs) == list(net().state_dict())
    assert dict(ours._metadata) == dict(torchs._metadata) == dict(net().state_dict()._metadata)
    assert list(wrapped) == before and dict(wrapped._metadata) == versions
    again = with_prefix(ours, prefix)
    assert list(again) == before and dict(again._metadata) == versions
    assert all(again[name] is wrapped[name] for name in before)
    ours._metadata["body.1"]["version"] = 77
    assert wrapped._metadata["module.body.1"]["version"] == 2


def test_prefixes_on_some_names_only_and_collisions():
    state = {"module.f1.weight": torch.ones(1), "f2.weight": torch.ones(1)}
    assert list(without_prefix(state, "module.")) == ["f1.weight", "f2.weight"]
    assert list(without_prefix({"modules.x": 1, "module": 2}, "module.")) == ["modules.x", "module"]
    with pytest.raises(CheckpointError, match=r"without the prefix 'm\.' m\.x and x would both be x"):
        without_prefix({"m.x": torch.ones(1), "x": torch.ones(1)}, "m.")
    for wrong in ("", ".", None, 3):
        with pytest.raises(ValueError, match=r"prefix=.*: expected the name of a part, such as 'module\.'"):
            with_prefix({}, wrong)
    with pytest.raises(TypeError, match="a state_dict has names, found an int among them: 3"):
        without_prefix({3: 1}, "a")


def test_versions_travel_with_any_rule():
    state = nn.ModuleDict({"old": net()}).state_dict()
    for rename in ({"old.body": "trunk", "old": ""}, lambda n: n.replace("old.body", "trunk").replace("old.", "")):
        moved = matching._renamed(state, rename).state
        assert moved._metadata["trunk.1"] == {"version": 2} and "old.body.1" not in moved._metadata
        assert moved._metadata["trunk.2"] == {"version": 1}, "a module without a tensor goes along"
    assert not hasattr(matching._renamed(dict(state), {"old": ""}).state, "_metadata")


# --- The report -----------------------------------------------------------------------------------------------------------


def test_compare_names_what_fits_and_what_does_not_and_changes_nothing():
    model, other = nn.Module(), nn.Module()
    for name, shape in {"same": 2, "other_shape": 3, "other_type": 2, "absent": 4}.items():
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    for name, value in {
        "same": torch.ones(2),
        "other_shape": torch.ones(5),
        "other_type": torch.ones(2, dtype=torch.float64),
    }.items():
        other.register_parameter(name, nn.Parameter(value))
    other.register_buffer("extra", torch.ones(1, dtype=torch.int64))
    before = whole(model)
    report = compare(model, other.state_dict())
    assert str(report) == textwrap.dedent(
        """\
        2 of 4 tensors fit (36% of the values), 1 of them converted
        key          outcome     in the model  in the state
        other_shape  shape       float32 (3,)  float32 (5,)
        other_type   dtype       float32 (2,)  float64 (2,)
        absent       missing     float32 (4,)  -
        extra        unexpected  -             int64 (1,)"""
    )
    assert report.loaded == ("same",) and not report.complete
    assert report.problems() == [
        "absent is missing (float32 (4,))",
        "extra is unexpected (int64 (1,))",
        "other_shape is float32 (5,) in the file, float32 (3,) here",
        "other_type is float64 (2,) in the file, float32 (2,) here",
    ]
    assert whole(model) == before
    assert compare(model, model.state_dict()).complete
    assert str(compare(model, model.state_dict())) == "4 of 4 tensors fit (100% of the values)"
    same_text_twice(lambda: compare(model, other.state_dict()))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s, "epoch": 1}, lambda s: {"model_state_dict": s}, lambda s: {"state_dict": s}]
)
def test_compare_understands_the_usual_wrappings(wrap):
    model = nn.Linear(2, 2)
    assert compare(model, wrap(model.state_dict())).complete


def test_two_states_in_one_dictionary_are_ambiguous():
    model = nn.Linear(2, 2)
    state = {"model": model.state_dict(), "state_dict": model.state_dict()}
    with pytest.raises(CheckpointError, match=r"the state holds model and state_dict: say which is meant.*state\['model'\]"):
        compare(model, state)


def test_compare_wants_a_model_and_a_state():
    with pytest.raises(TypeError, match=r"compare needs a state_dict, found a str: compare\(model, load\(path\)\)"):
        compare(nn.Linear(1, 1), "m.pt")
    with pytest.raises(TypeError, match=r"warm_start needs a state_dict, found a str: warm_start\(model, load\(path\)\)"):
        warm_start(nn.Linear(1, 1), "m.pt")
    with pytest.raises(TypeError, match="compare needs a model and a state, the first argument is a dict"):
        compare({}, {})
    with pytest.raises(TypeError, match="a state_dict has names, found an int among them: 0"):
        compare(nn.Linear(1, 1), {0: torch.ones(1)})


def test_the_suggestion_is_what_would_help_and_keeps_its_promise():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    wrapped = {f"module.{k}": v for k, v in model.state_dict().items()}
    report = compare(model, wrapped)
    assert report.suggestion == "100% would fit if the prefix 'module.' were removed" and report.fix == {"module": ""}
    assert compare(model, wrapped, rename=report.fix).complete
    backbone = nn.ModuleDict({"backbone": model, "head": nn.Linear(2, 2)})
    report = compare(backbone, model.state_dict())
    assert report.suggestion == "67% would fit if the prefix 'backbone.' were added"
    assert compare(backbone, model.state_dict(), rename=report.fix).share == report.fixed == pytest.approx(2 / 3)
    assert compare(model, {"x": torch.ones(1)}).suggestion is None
    other = {f"encoder.{k}": v for k, v in model.state_dict().items()}
    assert "replaced" in compare(nn.ModuleDict({"net": model}), other).suggestion
    several = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 5)})
    state = {f"module.{k.replace('a.', 'a._orig_mod.')}": v for k, v in several.state_dict().items()}
    report = compare(several, state)
    assert report.suggestion == "100% would fit with rename={'module.a._orig_mod': 'a', 'module': ''}"
    assert compare(several, state, rename=report.fix).complete


@quiet
@given(st.data())
def test_a_suggestion_says_exactly_what_it_would_reach(data):
    model = net()
    state = model.state_dict()
    rules = data.draw(
        st.dictionaries(st.sampled_from(["body", "body.0", "head"]), st.sampled_from(["x", "y.z", "head"]), max_size=2)
    )
    moved = matching._renamed(state, [rules, {"": data.draw(st.sampled_from(["module", "a.b"]))}]).state
    for name in data.draw(st.lists(st.sampled_from(list(moved)), max_size=3)) if moved else []:
        moved.pop(name, None)
    report = compare(model, moved)
    if report.fix is not None:
        assert report.fixed > report.share
        assert compare(model, moved, rename=report.fix).share == report.fixed
    if not rules:
        assert compare(model, moved, rename=report.fix).share == sum(
            model.state_dict()[k].numel() for k in state if any(n.endswith(k) for n in moved)
        ) / sum(v.numel() for v in state.values())


class Counting(nn.Module):
    """A part with state beyond tensors."""

    def __init__(self, count=0):
        super().__init__()
        self.weight, self.count, self.history = nn.Parameter(torch.zeros(2)), count, [{"count": count}]
        self.own = types.SimpleNamespace(count=count)

    def get_extra_state(self):
        return {"count": self.own.count}

    def set_extra_state(self, state):
        self.count = self.own.count = state["count"]
        self.history[-1]["count"] = self.count


KINDS = [
    lambda: nn.Linear(3, 2),
    lambda: nn.BatchNorm1d(3),
    lambda: nn.BatchNorm1d(2, affine=False),
    lambda: nn.Embedding(3, 2),
    lambda: nn.GRU(2, 2),
    lambda: nn.MultiheadAttention(2, 1),
    lambda: nn.ParameterList([torch.ones(2), torch.zeros(())]),
    lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    nn.ReLU,
    Counting,
]
trees = st.recursive(
    st.sampled_from(range(len(KINDS))),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=5,
)


def built(tree, seed):
    """A model of this shape, with values of its own."""

    def grown(tree):
        return nn.ModuleDict({k: grown(v) for k, v in tree.items()}) if isinstance(tree, dict) else KINDS[tree]()

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = grown(tree)
        for value in (*model.parameters(), *model.buffers()):
            value.copy_(torch.randint(1, 100, value.shape))
    return model


def damaged(data, state):
    """A state after random damages."""
    state = OrderedDict(state)
    for _ in range(data.draw(st.integers(0, 4))):
        name = data.draw(st.sampled_from(sorted(state))) if state else "x"
        value = state.get(name)
        kinds = ["remove", "add", "rename"]
        if isinstance(value, torch.Tensor):
            kinds += ["shape", "dtype", "kind", "values"]
        kind = data.draw(st.sampled_from(kinds))
        if kind == "remove":
            state.pop(name, None)
        elif kind == "add":
            state[f"{name}.more"] = torch.ones(2)
        elif kind == "shape":
            state[name] = torch.ones(5, 1)
        elif kind == "dtype":
            state[name] = value.to(data.draw(st.sampled_from([torch.float64, torch.float16, torch.int32])))
        elif kind == "kind":
            state[name] = "no tensor"
        elif kind == "values":
            state[name] = value + 1
        elif name in state:
            state[f"other.{name}"] = state.pop(name)
    return state


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_report_is_what_torch_does_and_a_load_that_fails_changes_no_byte(data):
    tree = data.draw(trees)
    model, donor = built(tree, 1), built(tree, 0)
    state = damaged(data, donor.state_dict())
    if data.draw(st.booleans()):
        state._metadata = donor.state_dict()._metadata
    before = whole(model)
    report = compare(model, state)
    assert whole(model) == before

    other = copy.deepcopy(model)
    try:
        found, refused = other.load_state_dict(state, strict=False), ""
    except RuntimeError as error:
        refused = str(error)
    if refused:
        assert all(f" {name}:" in refused or f'"{name}"' in refused for name in report.shape)
        assert len(report.shape) == refused.count("size mismatch for") + refused.count("expected torch.Tensor") > 0
    else:
        assert not report.shape
        assert sorted(report.missing) == sorted(found.missing_keys)
        assert sorted(report.unexpected) == sorted(found.unexpected_keys)
        for name in report.loaded:
            loaded, given = other.state_dict()[name], state[report.renamed.get(name, name)]
            assert trace(loaded)[1:4] == trace(given)[1:4] and same(loaded, given)

    strict = data.draw(st.booleans())
    fails = report.shape or report._lossy() or not (report.loaded or report.dtype)
    fails = fails or (strict and (report.missing or report.unexpected))
    if fails:
        with pytest.raises(CheckpointError, match="nothing was changed"):
            warm_start(model, state, strict=strict)
        assert whole(model) == before
    else:
        assert warm_start(model, state, strict=strict) == replace(report, applied=True)
        assert same(model.state_dict(), other.state_dict())


def test_tied_names_are_not_missing_and_values_that_differ_are_ambiguous():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    state = model.state_dict()
    del state["1.weight"]
    report = compare(model, state)
    assert report.complete and report.tied == ("1.weight",) and report.share == 1
    assert warm_start(model, {"1.weight": torch.ones(3, 3)}).tied == ("0.weight",) and model[0].weight.eq(1).all()
    both = {"0.weight": torch.ones(3, 3), "1.weight": torch.ones(3, 3)}
    assert compare(model, both).complete, "twice the same is no question"
    both["0.weight"] = torch.zeros(3, 3)
    report, before = compare(model, both), whole(model)
    assert report.ambiguous == {"1.weight": "0.weight"} and not report.complete
    text = "0.weight and 1.weight are one tensor here, with different values in the state"
    assert report.problems() == [text]
    assert report.rows()[0]["in the state"] == "other values than 0.weight"
    with pytest.raises(CheckpointError, match=text):
        warm_start(model, both)
    assert whole(model) == before


def test_collisions_name_both():
    model, state = nn.Linear(2, 2), {f"{p}{k}": v for p in ("", "module.") for k, v in nn.Linear(2, 2).state_dict().items()}
    report, before = compare(model, state, prefix="module."), whole(model)
    assert report.collisions == {"weight": ("weight", "module.weight"), "bias": ("bias", "module.bias")}
    assert not report.complete and not report.missing
    assert report.rows()[0] == {
        "key": "weight",
        "outcome": "collision",
        "in the model": "float32 (2, 2)",
        "in the state": "weight and module.weight",
    }
    with pytest.raises(CheckpointError, match=r"weight and module\.weight would both be weight; bias and module\.bias would"):
        warm_start(model, state, prefix="module.")
    assert whole(model) == before
    assert warm_start(model, state, rename={"module": None}).dropped.keys() == {"module.weight", "module.bias"}


def test_lazy_modules_take_their_shape_from_the_state():
    donor = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    lazy = nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())
    report = compare(lazy, donor.state_dict())
    assert report.complete and report.share == 1 and torch.nn.parameter.is_lazy(lazy[0].weight)
    assert report.inside["0.weight"] == "float32 of any shape"
    assert warm_start(lazy, donor.state_dict(), strict=True) == replace(report, applied=True)
    assert equal(lazy, donor.state_dict()) and lazy(torch.ones(4, 3)).shape == (4, 2)
    report = compare(nn.Linear(3, 2), nn.LazyLinear(2).state_dict())
    assert report.shape == ("weight", "bias")
    assert compare(nn.LazyLinear(2), {"x": torch.ones(1)}).share == 0


def test_extra_state_is_loaded_and_taken_back():
    model, state = nn.ModuleDict({"a": Counting(1), "z": Refusing()}), nn.ModuleDict({"a": Counting(7), "z": Refusing()})
    before = whole(model)
    assert compare(model, state.state_dict()).complete and whole(model) == before
    with pytest.raises(CheckpointError, match="ValueError: halfway; nothing was changed"):
        warm_start(model, state.state_dict())
    assert whole(model) == before and model["a"].history == [{"count": 1}] and model["a"].own.count == 1
    part = nn.ModuleDict({"a": Counting(1)})
    report = warm_start(part, with_prefix(Counting(7).state_dict(), "a."))
    assert report.loaded == ("a.weight", "a._extra_state") and part["a"].count == 7
    assert compare(model["a"], {"weight": torch.ones(2)}).missing == ("_extra_state",)
    assert compare(nn.Linear(2, 1), {"_extra_state": 3}).unexpected == ("_extra_state",)


def test_versions_older_forms_and_what_a_module_fills_in():
    model, donor = net(1), net(0)
    state = donor.state_dict()
    del state["body.1.num_batches_tracked"]
    assert compare(model, state).missing == ("body.1.num_batches_tracked",), "version 2 has the counter"
    old = OrderedDict(state)
    report = compare(model, old)
    assert report.filled == ("body.1.num_batches_tracked",) and report.complete, "without versions it is an old file"
    assert report.rows()[-1]["outcome"] == "filled"
    assert warm_start(model, old, strict=True) == replace(report, applied=True)
    state = parallel(donor).state_dict()
    del state["module.body.1.num_batches_tracked"]
    with pytest.raises(CheckpointError, match=r"body\.1\.num_batches_tracked is missing"):
        warm_start(model, state, prefix="module.", strict=True)

    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    older = {"bias": torch.ones(2), "weight_g": torch.full((2, 1), 2.0), "weight_v": torch.ones(2, 3)}
    report = compare(normed, older)
    assert report.complete and report.renamed["parametrizations.weight.original0"] == "weight_g"
    assert list(older) == ["bias", "weight_g", "weight_v"]
    warm_start(normed, older, strict=True)
    assert normed.parametrizations.weight.original0.eq(2).all()


class Versioned(nn.Linear):
    _version = 3

    def __init__(self):
        super().__init__(2, 2)
        self.versions = []

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        self.versions.append(local_metadata.get("version"))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


@pytest.mark.parametrize(
    ("prefix", "rename"), [("module.", None), ("", {"module": ""}), ("", lambda name: name.partition(".")[2])]
)
def test_a_module_is_told_its_version_after_renaming(prefix, rename):
    model, state = nn.Sequential(Versioned(), nn.ReLU()), parallel(nn.Sequential(Versioned(), nn.ReLU())).state_dict()
    before = whole(model)
    assert compare(model, state, prefix=prefix, rename=rename).complete
    assert whole(model) == before and model[0].versions == [], "planning leaves its notes alone"
    warm_start(model, state, prefix=prefix, rename=rename)
    assert model[0].versions == [3]


def test_attention_and_other_stock_modules_come_back_under_any_prefix():
    for made in (
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        lambda: nn.LSTM(3, 2, bidirectional=True),
        lambda: nn.BatchNorm2d(3),
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        lambda: nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 1)),
        lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
    ):
        torch.manual_seed(1)
        model, donor = made(), made()
        report = warm_start(model, parallel(donor).state_dict(), prefix="module.", strict=True)
        assert report.complete and equal(model, donor.state_dict())
        wrapped = parallel(model)
        assert warm_start(wrapped, made().state_dict(), rename={"": "module"}, strict=True).complete


def test_wrapped_and_compiled_models_give_and_take(tmp_path):
    donor, model = net(0), net(1)
    compiled = torch.compile(donor)
    save(tmp_path / "c.pt", model=compiled)
    state = load(tmp_path / "c.pt")
    assert "_orig_mod.body.0.weight" in state["model"]
    assert warm_start(model, state, prefix="_orig_mod.", strict=True).complete and equal(model, donor.state_dict())
    assert warm_start(compiled, net(2).state_dict(), rename={"": "_orig_mod"}, strict=True).complete
    assert equal(donor, net(2).state_dict())
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net(3))
        assert warm_start(model, wrapped.state_dict(), prefix="module.", strict=True).complete
    finally:
        torch.distributed.destroy_process_group()
    assert equal(model, net(3).state_dict())


# --- All or nothing -------------------------------------------------------------------------------------------------------


class Refusing(nn.Module):
    """A part whose own loading code changes what it can reach, and then fails."""

    def __init__(self, error=ValueError):
        super().__init__()
        self.error, self.weight, self.moved, self.seen = error, nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3)), []
        self.register_buffer("hidden", torch.zeros(2), persistent=False)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        if self.weight.is_meta:
            return super()._load_from_state_dict(state_dict, prefix, *rest)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        with torch.no_grad():
            self.hidden.fill_(9)
        self.seen.append(prefix)
        self.moved.data = torch.ones(5)
        self.__class__ = Refused
        self.weight.requires_grad_(False)
        self.weight = nn.Parameter(torch.ones(7))
        self.register_buffer("new", torch.ones(1))
        self.late = torch.ones(3)
        raise self.error("halfway")


class Refused(Refusing):
    """What it has become by then, as a lazy module becomes another one."""


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError, MemoryError, KeyboardInterrupt, SystemExit])
def test_a_part_that_raises_halfway_changes_nothing(error):
    model = nn.ModuleDict({"first": net(1), "part": Refusing(error), "lazy": nn.LazyLinear(2), "tied": nn.Linear(4, 2)})
    model["tied"].weight = model["first"]["head"].weight
    model["first"]["head"].bias.requires_grad_(False)
    donor = nn.ModuleDict({"first": net(2), "part": Refusing(error), "lazy": nn.Linear(3, 2)}).state_dict()
    order = ["lazy", "first", "tied", "part"]
    model = nn.ModuleDict({name: model[name] for name in order})  # all others are loaded before it raises
    before = whole(model)
    raised = CheckpointError if issubclass(error, Exception) else error
    with pytest.raises(raised, match="halfway"):
        warm_start(model, donor)
    assert whole(model) == before


def test_an_interrupt_at_every_moment_of_loading_changes_nothing(monkeypatch):
    """The n-th tensor that is copied is interrupted, for every n; then the taking back is interrupted as well."""
    donor, original = net(0).state_dict(), torch.Tensor.copy_
    copies, moments = 0, set()

    def counting(self, *args, **kwargs):
        nonlocal copies
        copies += 1
        original(self, *args, **kwargs)
        if copies in moments:  # torch makes a text of an Exception here, but lets an interrupt pass
            raise KeyboardInterrupt
        return self

    model, other = net(1), net(1)
    monkeypatch.setattr(torch.Tensor, "copy_", counting)
    assert warm_start(other, donor).complete and equal(other, donor)
    assert copies > len(donor), "planning copies too, into nothing"
    before = whole(model)
    for first in range(1, copies + 1):
        for more in ((), (1,), (3,), (1, 2, 9)):  # while it is taken back, and again
            copies, moments = 0, {first, *(first + n for n in more)}
            with pytest.raises(KeyboardInterrupt):
                warm_start(model, donor)
            moments = set()
            assert whole(model) == before, (first, more)


HAS = "has body.0.weight, body.0.bias, body.1.weight, body.1.bias and 5 more"
WRAPPED = "the state has " + ", ".join(f"module.body.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")) + " and 5 more"


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        (
            {"head.weight": torch.ones(9, 4)},
            {},
            "head.weight is float32 (9, 4) in the state, float32 (2, 4) here: leave it out with rename={'head': None}",
        ),
        ({"head.bias": "text"}, {}, "head.bias is str in the state, float32 (2,) here"),
        (
            {"body.1.num_batches_tracked": torch.tensor(0.5)},
            {},
            "body.1.num_batches_tracked is float32 () in the state, which int64 () here cannot hold",
        ),
        ({"head.bias": None}, {"strict": True}, "head.bias is missing (float32 (2,))"),
        ({"more": torch.ones(1)}, {"strict": True}, "more is unexpected (float32 (1,))"),
        ({}, {"strict": True, "rename": {"backbnoe": ""}}, "the rule 'backbnoe': '' fits no name"),
        (dict.fromkeys(net().state_dict()), {}, f"nothing fits: the model {HAS}; the state has no tensors"),
        (
            {},
            {"rename": {"": "module"}},
            f"nothing fits: the model {HAS}; {WRAPPED} (100% would fit if the prefix 'module.' were removed)",
        ),
        ({}, {"rename": lambda name: "head.bias"}, "would both be head.bias"),
        ({"head.bias": nn.parameter.UninitializedParameter()}, {}, "head.bias is float32 of any shape in the state"),
    ],
)
def test_each_failure_has_its_text_and_changes_nothing(change, options, text):
    model, state = net(1), OrderedDict(net(0).state_dict())
    state.update(change)
    state = OrderedDict((name, value) for name, value in state.items() if value is not None)
    if "rename" not in options:
        state._metadata = net().state_dict()._metadata
    before, names = whole(model), list(state)
    with pytest.raises(CheckpointError, match=re.escape(text)) as caught:
        warm_start(model, state, **options)
    assert str(caught.value).startswith("cannot load into ModuleDict: ") and str(caught.value).endswith("nothing was changed")
    assert whole(model) == before and list(state) == names


def test_the_advice_for_another_shape_can_be_followed():
    model, plain = net(1, outputs=3), net(0).state_dict()
    for state, options, after in (
        (plain, {}, {"rename": {"head": None}}),
        (with_prefix(plain, "module."), {"prefix": "module."}, {"prefix": "module.", "rename": {"head": None}}),
        (with_prefix(plain, "a."), {"rename": {"a": ""}}, {"rename": [{"a": ""}, {"head": None}]}),
    ):
        advice = r"leave it out with rename={'head': None}" if not options else r"with the rule {'head': None} after the others"
        with pytest.raises(CheckpointError, match=advice):
            warm_start(model, state, **options)
        assert warm_start(model, state, **after).missing == ("head.weight", "head.bias")


def test_shares_are_never_rounded_to_all_or_nothing():
    assert [matching._percent(share) for share in (0, 0.001, 0.25, 0.999, 1)] == ["0%", "under 1%", "25%", "over 99%", "100%"]


def test_what_a_module_says_is_passed_on(monkeypatch):
    model = net(1)
    monkeypatch.setattr(nn.BatchNorm1d, "_load_from_state_dict", lambda *args: args[-1].append("too old:\n\tfirst, convert it"))
    before = whole(model)
    with pytest.raises(CheckpointError, match=r"RuntimeError: Error\(s\) in loading .* too old: first, convert it; nothing was"):
        warm_start(model, net(0).state_dict())
    assert whole(model) == before


def test_a_side_without_memory_can_be_planned_and_is_refused():
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    model = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"weight in the model is on the meta device .*: model\.to_empty"):
        warm_start(empty, model.state_dict())
    before = whole(model)
    with pytest.raises(CheckpointError, match=r"weight in the state is on the meta device .*: load\(path\) gives values"):
        warm_start(model, empty.state_dict())
    assert whole(model) == before
    assert compare(empty, model.state_dict()).complete and compare(model, empty.state_dict()).complete


def test_values_go_to_the_device_of_the_model_whichever_they_are_on():
    """Devices that this machine need not have, by fake tensors: the plan is by names, and the model stays where it is."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {"weight": torch.empty(2, 3, device="cuda:1"), "bias": torch.empty(2, device="cuda:0")}
        model = nn.Linear(3, 2, device="cuda:0")
        for given in (state, nn.Linear(3, 2, device="cpu").state_dict()):
            assert warm_start(model, given, strict=True).complete
            assert {value.device for value in model.parameters()} == {torch.device("cuda:0")}
    assert compare(nn.Linear(3, 2), state).complete


def test_parts_that_only_one_side_has_and_conversion():
    model, donor = net(1, outputs=5), net(0)
    head = model["head"].weight.detach().clone()
    wide = {k: v.double() if v.is_floating_point() else v for k, v in donor.state_dict().items()}
    report = warm_start(model, wide | {"other.w": torch.ones(1)}, rename={"head": None})
    assert set(report.dtype) == {k for k, v in donor.state_dict().items() if v.is_floating_point() and k.startswith("body")}
    assert report.unexpected == ("other.w",) and report.missing == ("head.weight", "head.bias")
    assert torch.equal(model["head"].weight, head) and torch.equal(model["body"][0].weight, donor["body"][0].weight)
    assert model["body"][0].weight.dtype == torch.float32
    assert "7 of 9 tensors loaded (57% of the values), 6 of them converted" in report.summary()


def test_a_models_own_state_under_other_names_is_not_overwritten_while_it_is_read():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    before = copy.deepcopy(model.state_dict())
    warm_start(model, model.state_dict(), rename={"a": "b", "b": "a"}, strict=True)
    for name in ("weight", "bias"):
        assert torch.equal(model["a"].state_dict()[name], before[f"b.{name}"])
        assert torch.equal(model["b"].state_dict()[name], before[f"a.{name}"])


def test_a_resume_is_put_back_in_the_same_way(tmp_path):
    donor = nn.ModuleDict({"lazy": nn.Linear(3, 2), "part": Refusing()})
    save(tmp_path / "c.pt", model=donor)
    model = nn.ModuleDict({"lazy": nn.LazyLinear(2), "part": Refusing()})
    before = whole(model)
    with pytest.raises(CheckpointError, match="model refused its state: ValueError: halfway; nothing was changed"):
        resume(tmp_path / "c.pt", model=model)
    assert whole(model) == before
    save(tmp_path / "c.pt", model=donor["lazy"])
    assert resume(tmp_path / "c.pt", model=model["lazy"]) and equal(model["lazy"], donor["lazy"].state_dict())


def test_the_key_map_is_drawn():
    state = {**parallel(net(0)).state_dict(), "module.more.weight": torch.ones(1), "old.weight": torch.ones(1)}
    del state["module.head.bias"]
    report = compare(net(1, outputs=3), state, rename=[{"old": None}, {"module": ""}])
    lines = {(line["depth"], line["path"], line["rule"]): line for line in reversed(report.tree())}
    assert lines[0, "body", ""]["before"] == ""
    assert lines[2, "weight", "renamed"]["before"] == "module.body.0.weight float32 (4, 3)"
    assert lines[1, "weight", "shape"]["before"] == "module.head.weight float32 (2, 4)"
    assert lines[1, "bias", "missing"]["surprise"] and lines[1, "bias", "missing"]["before"] == ""
    assert lines[1, "weight", "unexpected"]["after"] == "" and lines[1, "weight", "left out"]["before"] == "float32 (1,)"
    picture = pictures.tree(report, title="Key map")
    assert "module.body.0.weight" in picture and "left out" in picture and report.summary() in picture
