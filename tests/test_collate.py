import collections
import contextlib
import dataclasses
import itertools
import pathlib
import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import round_trips, same, same_text_twice, survives_spawn
from torch.nn.utils.rnn import pad_packed_sequence, pad_sequence, unpack_sequence
from torch.utils.data import DataLoader, default_collate

from tutorlib import collate, pictures
from tutorlib.collate import (
    Kept,
    Padded,
    bad_samples,
    explain,
    fields,
    flat,
    jagged,
    keep,
    listed,
    packed,
    pad,
    replace_none,
    skip_none,
    strict,
    to,
    uncollate,
    with_rules,
)

ones = torch.ones


class Point(NamedTuple):
    x: object
    y: object


@dataclasses.dataclass(frozen=True)
class Box:
    corners: object
    label: object


@dataclasses.dataclass
class Carried(collate.Batch):
    image: object
    name: object


def longest(values):
    return max(map(len, values))


def broken(values):
    raise OverflowError("too much\nand more")


# Agreement with torch

LEAVES = st.sampled_from(
    [
        lambda i: i,
        lambda i: i / 2,
        lambda i: bool(i % 2),
        lambda i: f"s{i}",
        lambda i: b"b",
        lambda i: np.float32(i),
        lambda i: np.int64(i),
        lambda i: torch.full((2, 3), i),
        lambda i: torch.tensor(float(i)),
        lambda i: np.full((3,), i, dtype=np.int16),
        lambda i: np.array(i / 4),
    ]
)
SHAPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda makes: lambda i: [make(i) for make in makes]),
        st.lists(inner, max_size=3).map(lambda makes: lambda i: tuple(make(i) for make in makes)),
        st.tuples(inner, inner).map(lambda makes: lambda i: Point(*(make(i) for make in makes))),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda makes: lambda i: {k: m(i) for k, m in makes.items()}
        ),
        st.dictionaries(st.integers(0, 3), inner, max_size=2).map(
            lambda makes: lambda i: collections.OrderedDict((k, m(i)) for k, m in makes.items())
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(SHAPES, st.integers(1, 4))
def test_strict_agrees_with_default_collate(make, size):
    samples = [make(i) for i in range(size)]
    assert same(strict(samples), default_collate(samples))


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(1, 3))
def test_explain_runs_what_it_explains(make, size):
    samples = [make(i) for i in range(size)]
    ours, torchs = explain(samples, strict), explain(samples)
    assert [(n.path, n.depth, n.before, n.after) for n in ours.nodes] == [
        (n.path, n.depth, n.before, n.after) for n in torchs.nodes
    ]
    assert not any(node.failed for node in torchs.nodes)
    batch = default_collate(samples)
    for node in torchs.nodes:  # each place is in the real batch, and its text is that of what stands there
        value = batch
        with contextlib.suppress(SyntaxError):
            value = eval(f"batch{node.path}", {"batch": batch})  # noqa: S307 - our own path
        assert not isinstance(value, torch.Tensor) or node.after == f"{str(value.dtype)[6:]} {tuple(value.shape)}"


@pytest.mark.parametrize("samples", [[1, 2.5, True], [True, 2.5], [np.float64(0.5), 1], [2, np.float32(1)]])
def test_mixed_numbers_do_not_depend_on_their_order(samples):
    for order in itertools.permutations(samples):
        assert strict(list(order)).dtype == torch.float64
    assert len({default_collate(list(order)).dtype for order in itertools.permutations([1, 2.5])}) == 2  # torch's do (CO-04)


def test_a_dataclass_becomes_a_dataclass_of_batches():
    batch = strict([Box(ones(4), 1), Box(ones(4), 2)])
    assert type(batch) is Box and batch.corners.shape == (2, 4) and batch.label.tolist() == [1, 2]


def test_containers_are_rebuilt_as_torch_does():
    class Settings(dict):
        extra = "kept"

    samples = [collections.defaultdict(list, a=1), collections.defaultdict(list, a=2)]
    assert strict(samples).default_factory is list
    assert strict([Settings(a=1)]).extra == "kept" and same(strict([range(2)] * 2), default_collate([range(2)] * 2))
    samples = [{"a": [1]}, {"a": [2]}]
    strict(samples)
    assert samples == [{"a": [1]}, {"a": [2]}]  # arguments stay as they were


# Rules for tensors of different lengths

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5)


def sequences(lengths, *rest):
    return [torch.arange(n * int(np.prod(rest)), dtype=torch.float32).reshape(n, *rest) + i for i, n in enumerate(lengths)]


@settings(deadline=None)
@given(LENGTHS, st.sampled_from(["left", "right"]), st.integers(1, 4))
def test_pad_agrees_with_pad_sequence_and_its_mask_gives_the_samples_back(lengths, side, multiple):
    samples = sequences(lengths, 2)
    expected = pad_sequence(samples, batch_first=True, padding_value=-1.0, padding_side=side)
    assert same(pad(side=side, value=-1)(samples), expected)
    values, mask = pad(side=side, value=-1, multiple=multiple, mask=True)(samples)
    assert values.shape[1] % multiple == 0 and 0 <= values.shape[1] - max(lengths) < multiple
    assert (values[~mask] == -1).all()
    round_trips(pad(side=side, multiple=multiple, mask=True), lambda p: [v[m] for v, m in zip(*p, strict=True)], samples)


@settings(deadline=None, max_examples=30)
@given(LENGTHS)
def test_ragged_flat_and_packed_give_the_samples_back(lengths):
    samples = sequences(lengths, 3)
    round_trips(jagged, lambda batch: list(batch.unbind()), samples)
    round_trips(flat, lambda batch: [batch.values[a:b] for a, b in itertools.pairwise(batch.offsets)], samples)
    whole = [sample for sample in samples if len(sample)] or [ones(1, 3)]
    round_trips(packed, unpack_sequence, whole)
    assert pad_packed_sequence(packed(whole))[1].tolist() == list(map(len, whole))


def test_pad_in_several_dimensions():
    images = [ones(3, 2, 4), ones(3, 5, 1)]
    values, mask = pad(dims=(1, 2), mask=True, side="left")(images)
    assert values.shape == (2, 3, 5, 4) and mask.shape == (2, 5, 4) and mask.sum((1, 2)).tolist() == [8, 5]
    assert all(torch.equal(v[:, m].sum(), i.sum()) for v, m, i in zip(values, mask, images, strict=True))


def test_pad_takes_arrays_and_lists_and_the_wider_dtype():
    assert pad([np.array([1, 2], np.int16), [3]]).dtype == torch.int64
    assert pad([[1], [2.5, 3.0]]).tolist() == [[1, 0], [2.5, 3]]
    assert pad(value=float("inf"))([ones(1), ones(2)])[0, 1] == float("inf")
    assert pad(value=True)([torch.zeros(1, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)]).dtype == torch.bool


# Rules at places and for types


def test_fields_of_every_kind_of_sample():
    assert fields({"x": pad})([Point(ones(1), 0), Point(ones(2), 1)]).x.shape == (2, 2)
    assert fields({"corners": listed})([Box(None, 0)]) == Box([None], torch.tensor([0]))
    assert same(fields({0: flat}, others=listed)([([1], "a"), ([2, 3], "b")]), [flat([[1], [2, 3]]), ["a", "b"]])
    deep = fields({"a": fields({"b": listed})})
    assert same(deep([{"a": {"b": None, "c": 1}}]), {"a": {"b": [None], "c": torch.tensor([1])}})


def test_rules_by_type_exact_first_then_bases_in_order():
    rules = with_rules({int: listed, bool: len, torch.Tensor: pad, type(None): listed, pathlib.PurePath: listed})
    samples = [(True, 1, ones(1), None, pathlib.Path("a")), (False, 2, ones(2), None, pathlib.Path("b"))]
    batch = rules(samples)
    assert (
        batch[:2] == [2, [1, 2]]
        and batch[2].shape == (2, 2)
        and batch[3:] == [[None] * 2, [pathlib.Path("a"), pathlib.Path("b")]]
    )


def test_skip_none_counts_exactly():
    assert same(skip_none([None, 1, None, 2]), Kept(torch.tensor([1, 2]), 2, 2))
    assert skip_none([None, None]) == Kept(None, 0, 2)
    assert skip_none(then=listed)([(1, None)]) == Kept([(1, None)], 1, 0)
    samples = [{"a": [1, None]}, Point(1, 2), Box(None, 1), 3]
    assert skip_none(then=listed, inside=True)(samples) == Kept([Point(1, 2), 3], 2, 2)
    with pytest.raises(ValueError, match=r"^batch\[3\]: \(2,\), others \(1,\): use pad"):  # its number as it was read
        skip_none([ones(1), None, ones(1), ones(2)])


def test_in_real_workers_nothing_is_lost():
    samples = [None if i % 3 == 0 else {"n": i, "x": ones(i)} for i in range(10)]
    batches = list(DataLoader(samples, batch_size=4, collate_fn=skip_none(then=fields({"x": jagged})), num_workers=2))
    assert sum(b.kept + b.skipped for b in batches) == 10 and sum(b.skipped for b in batches) == 4
    assert [b.batch["n"].tolist() for b in batches] == [[1, 2], [4, 5, 7], [8]]
    assert [[len(x) for x in b.batch["x"].unbind()] for b in batches] == [[1, 2], [4, 5, 7], [8]]


RULES = [
    strict,
    pad,
    pad(side="left", mask=True),
    flat,
    listed,
    packed,
    keep,
    skip_none,
    replace_none(then=pad),
    with_rules({list: pad}),
    fields({0: listed}, others=listed),
]


def test_rules_survive_pickling_and_spawn():
    for rule in [*RULES, jagged]:
        assert pickle.loads(pickle.dumps(rule)) == rule  # noqa: S301 - our own bytes
    survives_spawn(*((rule, ([[1, 2], [3, 4]],)) for rule in RULES if rule is not packed))


def test_rules_know_their_names():
    assert list(map(repr, RULES)) == [
        "strict",
        "pad",
        "pad(side='left', mask=True)",
        "flat",
        "listed",
        "packed",
        "keep",
        "skip_none(then=strict)",
        "replace_none(then=pad)",
        "with_rules({list: pad})",
        "fields({0: listed})",
    ]


# Errors: the place, the sample, both sides and the way out


@pytest.mark.parametrize(
    ("rule", "samples", "error", "text"),
    [
        (strict, [{"boxes": ones(5, 4)}] * 3 + [{"boxes": ones(7, 4)}], ValueError,
         'batch[3]["boxes"]: (7, 4), others (5, 4): use pad, jagged or listed'),
        (strict, [ones(2, 3), ones(3, 2)], ValueError, "batch[1]: (3, 2), others (2, 3): use pad(dims=(0, 1)) or listed"),
        (strict, [ones(2), ones(2), ones(1, 2)], ValueError, "batch[2]: (1, 2), others (2,): use listed"),
        (strict, [{"a": 1}, {"a": 1, "b": 2}], ValueError,
         "batch[1]: an extra key 'b', others have 'a': give every sample the same keys"),
        (strict, [{"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2}], ValueError,
         "batch[0]: no key 'b', others have 'a', 'b': give every"),
        (strict, [[[1, 2]], [[1]]], ValueError, "batch[1][0]: list of 1, others list of 2: use pad, jagged or listed"),
        (strict, [Point(1, 2), Point(1, None)], TypeError, "batch[1].y: None, others int: use skip_none(inside=True) or listed"),
        (strict, [None, None], TypeError, "batch[0]: None: use skip_none, listed, or with_rules({type(None): function})"),
        (strict, [Point(1, 1), (1, 1)], TypeError,
         "batch[1]: tuple, others Point: give every sample the same kind, or use listed"),
        (strict, [np.ones(1), ones(1)], TypeError,
         "batch[1]: Tensor, others ndarray: give every sample the same kind, or use listed"),
        (strict, [{"p": {1}}], TypeError,
         'batch[0]["p"]: set: no rule for this type: use listed, or with_rules({set: function})'),
        (strict, [{3: 2**70}], ValueError, "batch[:][3]: int, "),
        (pad, [ones(2, 3), ones(2, 4)], ValueError,
         "batch[1]: (2, 4), others (2, 3): pad changes only dimension 0: name more in pad(dims=...)"),
        (pad, [ones(2), "a"], TypeError,
         "batch[1]: str: pad takes tensors, arrays and lists of numbers: use fields or with_rules({Tensor: pad})"),
        (pad, [ones(2), 3], ValueError, "batch[1]: int: pad needs at least one dimension: use strict for numbers"),
        (pad(dims=(1,)), [ones(2)], ValueError, "batch[0]: float32 (2,): pad(dims=(1,)) needs more dimensions"),
        (pad(value=-1), [torch.ones(1, dtype=torch.uint8)], ValueError,
         "batch[:]: pad value -1 is no uint8: give another pad(value=...)"),
        (pad(value=0.5), [[1], [2]], ValueError, "pad value 0.5 is no int64"),
        (flat, [ones(2, 3), ones(2, 4)], ValueError,
         "batch[1]: (2, 4), others (2, 3): flat differs only in dimension 0: use pad(dims=...) or listed"),
        (jagged, [ones(2, 3), ones(2)], ValueError, "jagged differs only in dimension 0"),
        (packed, [ones(2), ones(0)], ValueError,
         "batch[1]: float32 (0,): torch cannot pack an empty sequence: use pad or jagged"),
        (fields({"boxs": pad}), [{"boxes": 1}], ValueError, "batch[:]: no field 'boxs': fields may name 'boxes'"),
        (fields({"a": pad}), [3], TypeError, "batch[0]: int has no fields: use fields for dicts, tuples and dataclasses"),
        (fields({"a": fields({0: pad})}), [{"a": (ones(1, 1),)}, {"a": (ones(1, 2),)}], ValueError,
         'batch[1]["a"][0]: (1, 2), others (1, 1)'),
        (strict, [], ValueError, "a batch needs at least one sample: found an empty list"),
        (strict, ones(3), TypeError,
         "a rule takes the list of samples of a batch: found Tensor; with batch_size=None the loader calls"),
    ],
)  # fmt: skip
def test_an_error_names_the_place_and_the_sample(rule, samples, error, text):
    with pytest.raises(error) as caught:
        rule(samples)
    assert text in str(caught.value) and type(caught.value) is error
    if samples != [] and not isinstance(samples, torch.Tensor):  # and explain shows it at its place
        assert str(caught.value) in explain(samples, rule).errors


def test_an_error_in_a_worker_keeps_its_text():
    with pytest.raises(ValueError, match=r'batch\[1\]\["x"\]: \(2,\), others \(1,\): use pad, jagged or listed'):
        list(DataLoader([{"x": ones(1)}, {"x": ones(2)}], batch_size=2, collate_fn=strict, num_workers=1))


def test_an_error_of_a_rule_that_is_not_ours_keeps_its_type_and_gains_its_place():
    with pytest.raises(OverflowError, match="too much") as caught:
        fields({"a": broken})([{"a": 1}])
    assert caught.value.__notes__ == ['raised by the rule broken for batch[:]["a"]']


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: pad(side="up"), ValueError, "side must be 'left' or 'right': found 'up'"),
        (lambda: pad(multiple=0), ValueError, "multiple must be a whole number of at least 1: found 0"),
        (lambda: pad(dims=()), ValueError, r"dims must be different whole numbers from 0: found \(\)"),
        (
            lambda: pad(padding=1),
            TypeError,
            r"pad has no option 'padding': it has \['side', 'value', 'multiple', 'mask', 'dims'\]",
        ),
        (lambda: flat(value=1), TypeError, "flat has no option 'value': it has none"),
        (lambda: pad(), TypeError, "call pad with the list of samples of a batch, or with options by keyword"),
        (lambda: pad([ones(1)], value=1), TypeError, "call pad with the list of samples of a batch, or with options by keyword"),
        (
            lambda: with_rules({"boxes": pad}),
            TypeError,
            "with_rules takes types as keys: found 'boxes'; to name a place use fields",
        ),
        (lambda: with_rules({int: 3}), TypeError, "the rule for int must be a function of the list of values: found 3"),
        (lambda: fields({"a": None}), TypeError, "the rule for 'a' must be a function of the list of values: found None"),
        (lambda: explain([]), ValueError, "a batch needs at least one sample"),
    ],
)
def test_bad_options_are_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()


# Back to samples


def has_values(sample):
    """Whether anything in a sample tells how many of it a batch has."""
    if isinstance(sample, dict):
        return any(map(has_values, sample.values()))
    return any(map(has_values, sample)) if isinstance(sample, (list, tuple)) else True


@settings(deadline=None, max_examples=200)
@given(SHAPES, st.integers(1, 4))
def test_uncollate_gives_the_samples_back(make, size):
    samples = [make(i) for i in range(size)]
    if has_values(samples[0]):
        round_trips(strict, lambda batch: uncollate(batch, like=samples[0]), samples)
        assert same(uncollate(default_collate(samples), default_collate, like=samples[0]), samples)
    else:
        with pytest.raises(ValueError, match="holds no values: how many samples it was made of cannot be known"):
            uncollate(strict(samples), like=samples[0])


def kin(value):
    """What stands for a value where no sample is given as a model."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        return value.item() if value.ndim == 0 and value.dtype in (torch.int64, torch.float64) else value
    if isinstance(value, dict):
        return type(value)((key, kin(inner)) for key, inner in value.items())
    if isinstance(value, Point):
        return Point(*map(kin, value))
    return list(map(kin, value)) if isinstance(value, (list, tuple)) else value


@settings(deadline=None, max_examples=100)
@given(SHAPES, st.integers(1, 3))
def test_without_a_model_the_nearest_kin_come_back(make, size):
    samples = [make(i) for i in range(size)]
    if has_values(samples[0]):
        assert same(uncollate(strict(samples)), list(map(kin, samples)))


LAWFUL = {
    "pad(mask=True)": pad(mask=True),
    "left": pad(side="left", mask=True, multiple=3, value=7),
    "flat": flat,
    "jagged": jagged,
    "packed": packed,
    "listed": listed,
    "keep": keep,
}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(LAWFUL)), LENGTHS, st.sampled_from(["tensor", "array", "list"]), st.booleans())
def test_uncollate_law_for_every_rule_of_lengths(name, lengths, kind, by_type):
    if name == "packed" or kind == "list":  # an empty sequence cannot be packed, an empty list has no dtype
        lengths = [max(1, n) for n in lengths]
    if kind == "list":
        made = [list(range(n)) for n in lengths]
    else:
        made = sequences(lengths, 2) if kind == "tensor" else [tensor.numpy() for tensor in sequences(lengths, 2)]
    rule = LAWFUL[name]
    round_trips(rule, lambda batch: uncollate(batch, rule, like=made[0]), made)
    whole = with_rules({type(made[0]): rule}) if by_type else fields({"x": rule})
    samples = [{"x": values, "n": i, "t": ("a", i / 2)} for i, values in enumerate(made)]
    round_trips(whole, lambda batch: uncollate(batch, whole, like=samples[0]), samples)
    if kind == "tensor" and not by_type:  # the rule alone says enough; only the tuple needs a model
        found = uncollate(whole(samples), whole)
        assert same(found, [{**sample, "t": list(sample["t"])} for sample in samples])


def test_uncollate_of_bad_samples_dataclasses_and_several_dimensions():
    samples = [None, (1, "a"), None, (2, "b")]
    assert uncollate(skip_none(samples), skip_none, like=samples[1]) == [(1, "a"), (2, "b")]
    assert uncollate(replace_none(samples), replace_none, like=samples[1]) == samples
    spared = replace_none(then=listed, spare=0)
    assert uncollate(skip_none([None]), skip_none) == [] and uncollate(spared([None]), spared) == [None]
    assert uncollate(replace_none([None, []])) == [None, []]
    boxes = [Box(1, "a"), Box(2, "b")]
    assert uncollate(strict(boxes)) == boxes
    images = [ones(3, 2, 4), ones(3, 5, 1) * 2]
    rule = pad(dims=(1, 2), mask=True, side="left")
    assert same(uncollate(rule(images), rule), images)
    assert uncollate(strict([1, 2.5]), like=1) == [1, 2.5] and uncollate([["a"], [b"b"]]) == [["a", b"b"]]
    assert same(uncollate(with_rules({list: flat})([([1],), ([2, 3],)])), [[torch.tensor([1])], [torch.tensor([2, 3])]])
    assert uncollate(with_rules({str: list})([{"x": "a"}]), with_rules({str: list}), like={"x": "b"}) == [{"x": "a"}]


@pytest.mark.parametrize(
    ("batch", "rule", "like", "error", "text"),
    [
        ({"boxes": ones(2, 3)}, fields({"boxes": pad}), None, ValueError,
         'batch["boxes"]: pad without a mask forgets the lengths: use pad(mask=True), flat or jagged'),
        ([[None]], with_rules({type(None): listed}), None, ValueError,
         "batch: list of 1 may be places of a sample, or values of a type with a rule: give uncollate(batch, rule, like="),
        (pad(mask=True)([[1]]), with_rules({list: pad(mask=True), tuple: pad(mask=True, side="left")}), None, ValueError,
         "may be of pad(mask=True) or pad(side='left', mask=True): give uncollate"),
        (Padded(ones(1, 2, 3), torch.ones(1, 2, 3, dtype=torch.bool)), strict, None, ValueError,
         "is not padded in dimension 0: name the rule, uncollate(batch, pad(dims=..., mask=True))"),
        ([ones(2), ones(3)], strict, None, ValueError, "batch: its places hold 2 and 3 samples: this is no batch"),
        (torch.tensor(3), strict, None, ValueError, "batch: a number is no batch: found int64 ()"),
        ({"a": None}, strict, None, TypeError, 'batch["a"]: None is nothing that strict makes: name the rule that made'),
        ({"a": ones(1)}, fields({"a": len}), None, TypeError, 'batch["a"]: made by len, which has no way back'),
        ({"a": ones(1)}, fields({"a": flat}), None, TypeError, 'batch["a"]: float32 (1,) is nothing that flat makes'),
        (ones(1), fields({"a": flat}), None, TypeError, "batch: float32 (1,) is nothing that fields makes"),
        ({"a": ones(1)}, strict, [1], TypeError, "batch: dict of 1 was not made of samples like list of 1"),
        ({"a": ones(1)}, strict, {1}, TypeError, "batch: samples like set make no batch: no rule for this type"),
        ({"a": {}}, strict, None, ValueError, "batch: dict of 1 holds no values"),
    ],
)  # fmt: skip
def test_what_does_not_tell_its_samples_is_one_clear_error(batch, rule, like, error, text):
    with pytest.raises(error) as caught:
        uncollate(batch, rule, like=like)
    assert text in str(caught.value)
    for wrong in (jagged, packed, listed, keep, skip_none, replace_none, pad(mask=True)):
        with pytest.raises(TypeError, match=r"^batch: int is nothing that .* makes"):
            uncollate(3, wrong)


# Bad samples: the count stays exact


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=9))
def test_replace_none_keeps_the_size_and_marks_what_is_borrowed(samples):
    good = [sample for sample in samples if sample is not None]
    batch = replace_none(spare=-1)(samples)
    assert batch.batch.shape == batch.mask.shape == (len(samples),)
    assert batch.batch[batch.mask].tolist() == good and batch.mask.tolist() == [sample is not None for sample in samples]
    if good:
        for i, value in enumerate(batch.batch.tolist()):  # the next good one, after the last the first
            assert value == next(one for one in [*samples[i:], *samples] if one is not None)
    else:
        assert batch.batch.tolist() == [-1] * len(samples)


def test_bad_samples_are_counted_over_a_whole_loader():
    samples = [None if i % 3 == 0 else {"n": i, "x": ones(i)} for i in range(10)]
    loader = DataLoader(samples, batch_size=4, collate_fn=replace_none(then=fields({"x": flat})), num_workers=1)
    found = bad_samples(loader)
    assert (found.read, found.good, found.skipped, found.replaced) == (10, 6, 0, 4) and len(loader) == len(found.batches)
    assert found.summary() == "10 samples read in 3 batches: 6 good, 0 skipped, 4 replaced"
    same_text_twice(lambda: bad_samples([skip_none([1, None])] * 50))
    assert len(bad_samples([skip_none([1])] * 50).rows()) == 40 and "(11 more)" in str(bad_samples([skip_none([1])] * 50))
    assert bad_samples([skip_none([1])]).summary() == "1 sample read in 1 batch: 1 good, 0 skipped, 0 replaced"
    with pytest.raises(TypeError, match="batch 1 is a Tensor, which does not tell its bad samples: use collate_fn=skip_none"):
        bad_samples([skip_none([1]), ones(2)])
    with pytest.raises(ValueError, match=r"^batch\[3\]: \(2,\), others \(1,\): use pad"):
        replace_none([ones(1), None, ones(1), ones(2)])
    assert replace_none(inside=True)([(1, None), (2, 3)]).mask.tolist() == [False, True]
    tree = explain([None, 1], replace_none)
    assert tree.surprises == ["sample: 1 of 2 samples replaced"] and tree.nodes[0].after == "Replaced 1 of 2"
    assert repr(replace_none(inside=True, spare=ones(2))) == "replace_none(then=strict, inside=True, spare=...)"


# Pinned and moved


class Pinned(torch.Tensor):
    """What stands for a pinned tensor where there is no accelerator."""


def own_batches():
    sequence = [ones(1), ones(2)]
    yield pad(mask=True)(sequence)
    yield flat(sequence)
    yield skip_none([*sequence, None][::2])
    yield replace_none([ones(2), None])
    yield strict([Carried(ones(2), "a")])
    yield strict([{"a": Carried(ones(2), "b")}])
    yield fields({"a": pad(mask=True)})([{"a": ones(1), "b": (ones(1), "c")}])


def leaves(batch):
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in leaves(value)]
    if isinstance(batch, Carried):
        return leaves(batch.image)
    return [leaf for value in batch for leaf in leaves(value)] if isinstance(batch, (list, tuple)) else []


def test_own_batch_types_are_pinned_and_moved(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, device=None: tensor.as_subclass(Pinned))
    for batch in own_batches():
        pinned = pin_memory(batch)  # what DataLoader(pin_memory=True) does in its thread
        assert type(pinned) is type(batch) and len(leaves(pinned)) == len(leaves(batch)) >= 1
        assert all(type(leaf) is Pinned for leaf in leaves(pinned)) and all(type(leaf) is torch.Tensor for leaf in leaves(batch))
        moved = to(batch, "meta", non_blocking=True)
        assert type(moved) is type(batch) and {leaf.device.type for leaf in leaves(moved)} == {"meta"}
        if hasattr(batch, "to"):
            assert {leaf.device.type for leaf in leaves(batch.to("meta"))} == {"meta"}
            assert all(type(leaf) is Pinned for leaf in leaves(batch.pin_memory()))


def test_what_is_kept_stays_where_it_is(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, device=None: tensor.as_subclass(Pinned))
    size, name = torch.tensor([2, 3]), object()
    batch = fields({"size": keep, "name": keep, "listed": listed})([{"size": size, "name": name, "listed": size, "x": 1}])
    assert batch["size"][0] is size and batch["name"][0] is name
    for carried in (pin_memory(batch), to(batch, "meta")):
        assert carried["size"][0] is size and carried["name"][0] is name
        assert type(carried["listed"][0]) is Pinned or carried["listed"][0].device.type == "meta"
    assert keep([size]).pin_memory()[0] is keep([size]).to("meta")[0] is size
    assert to((1, "a", None, [ones(1)], packed([ones(2)]), range(2)), "meta")[:3] == (1, "a", None)


# Explain

SURPRISES = [
    {"a": 1, "t": (1.5, "s"), "x": np.zeros(2)},
    {"a": 2.5, "t": (2.5, "s"), "x": np.zeros(2), "z": 1},
]


def test_explain_shows_what_default_collate_does_and_surprises_with():
    tree = explain(SURPRISES)
    assert str(tree) == (
        "2 samples make a batch by default_collate, 4 surprises\n"
        "where     before                 rule                                after           note\n"
        "sample    dict of 3 | dict of 4  dict: keys of the first sample      dict of 3       -\n"
        '["a"]     int | float            int -> float32 tensor               float32 (2,)    '
        "the first sample decides the dtype\n"
        '["t"]     tuple of 2             tuple -> list                       list of 2       a tuple comes back as a list\n'
        '["t"][0]  float                  float -> float64 tensor             float64 (2,)    '
        "float64, torch's layers are float32\n"
        '["t"][1]  str                    str: kept as they are               tuple of 2      -\n'
        '["x"]     ndarray float64 (2,)   ndarray -> float64 tensor, stacked  float64 (2, 2)  -\n'
        '["z"]     int                    no key of the first sample          dropped         batch[1] has it, the batch does not'
    )
    assert tree.surprises[1] == '["t"]: a tuple comes back as a list' and tree.errors == []
    same_text_twice(lambda: explain(SURPRISES))


def test_explain_says_where_torch_fails_and_goes_on():
    tree = explain([{"a": None, "x": ones(1), "k": 1}, {"a": None, "x": ones(2)}])
    found = {node.path: (node.rule, node.after, node.failed) for node in tree.nodes}
    assert found == {
        "": ("dict: keys of the first sample", "fails below", True),
        '["a"]': ("no rule", "TypeError", True),
        '["x"]': ("stack", "RuntimeError", True),
        '["k"]': ("a key of the first sample", "KeyError", True),
    }
    assert tree.summary() == "2 samples make no batch by default_collate"
    assert tree.errors[0].startswith('["a"]: default_collate: batch must contain tensors') and tree.errors[2].endswith(
        "has no such key"
    )
    for samples in ([[1], [1, 2]], [Point(1, 1), 3], [{"a": 1}, 2], [(1,), 2]):
        assert explain(samples).nodes[0].failed


def test_explain_knows_our_rules_and_takes_any_function():
    samples = [None, {"x": [1, 2], "n": None}, {"x": [1], "n": None}]
    tree = explain(samples, skip_none(then=fields({"x": pad(mask=True), "n": listed})))
    assert [(node.path, node.rule, node.after) for node in tree.nodes] == [
        ("", "skip_none, then dict: the same keys in every sample", "Kept 2 of 3"),
        ('["x"]', "pad(mask=True)", "Padded(int64 (2, 2), bool (2, 2))"),
        ('["n"]', "listed: as they are", "list of 2"),
    ]
    assert tree.surprises == ["sample: 1 of 3 samples skipped"]
    assert [(n.rule, n.after) for n in explain(["ab", "c"], longest).nodes] == [("longest", "int")]
    assert explain([1], broken).errors == ["batch[:]: too much: raised by the rule"]
    assert explain([{"a": ones(1)}] * 2, with_rules({torch.Tensor: torch.stack})).nodes[1].rule == "stack"
    assert [n.after for n in explain([[1], [2, 3]], jagged).nodes] == ["jagged int64 (2, *)"]


def test_the_tree_can_be_drawn():
    tree = explain(SURPRISES)
    assert [line["depth"] for line in tree.tree()] == [0, 1, 1, 2, 2, 1, 1]
    drawn = pictures.tree(tree)
    assert "<svg" in drawn and "tuple -&gt; list" in drawn and tree.summary() in drawn
