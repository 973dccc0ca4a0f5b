"""How samples become a batch: rules by type and by field, strict about what torch's default_collate lets pass.

A rule takes the list of a batch's values at one place and returns what stands there in the batch. Each rule below is
itself a collate_fn, is picklable (so it reaches workers under any start method), and is used in one grammar:
`pad(samples)` batches, `pad(side="left")` gives a changed rule, `fields({"boxes": pad})` puts it at a place.

`strict`, the rule for all that no other rule names, agrees with torch's default_collate on everything that both accept,
and calls torch's own functions for the leaves. On purpose it is stricter, whatever the order of the samples: missing
and extra keys are errors (torch drops extra ones), samples of different kinds at one place are errors, and a mix of
Python numbers is float64 (torch takes the dtype of the first). Dataclasses become a dataclass of batches. As in torch
a tuple comes back as a list and a namedtuple as itself.

Errors name the place and the sample: `batch[3]["boxes"]: float32 (7, 4), others float32 (5, 4): use pad, ragged or
listed`. They are TypeErrors where a kind is wrong and ValueErrors elsewhere. `explain` shows the tree before and after.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from tutorlib.facts import Facts

__all__ = [
    "CollateTree",
    "Flattened",
    "Kept",
    "Node",
    "Padded",
    "Rule",
    "explain",
    "fields",
    "flat",
    "listed",
    "packed",
    "pad",
    "ragged",
    "skip_none",
    "strict",
    "with_rules",
]


class Padded(NamedTuple):
    """A padded batch and its mask: True where a value is real."""

    values: Tensor
    mask: Tensor


class Flattened(NamedTuple):
    """Samples one after the other: sample i is `values[offsets[i]:offsets[i + 1]]`."""

    values: Tensor
    offsets: Tensor


class Kept(NamedTuple):
    """A batch without its bad samples (None if none was good), how many were kept and how many skipped."""

    batch: Any
    kept: int
    skipped: int


class Node(NamedTuple):
    """One place of a batch: before, the rule that fired, after, and what may surprise or went wrong (`note`)."""

    path: str
    depth: int
    before: str
    rule: str
    after: str
    note: str | None
    failed: bool


# ---------------------------------------------------------------------------------------------------------------
# The grammar of rules


class _Offence(Exception):
    """What is wrong with one sample at one place; the place is added where it is known, the text at the door."""

    def __init__(self, kind: type[Exception], sample: int | None, found: str, others: str | None, way_out: str) -> None:
        super().__init__()
        self.kind, self.sample, self.found, self.others, self.way_out = kind, sample, found, others, way_out
        self.path: str | None = None

    def __str__(self) -> str:
        middle = f", others {self.others}" if self.others else ""
        return f"batch[{':' if self.sample is None else self.sample}]{self.path or ''}: {self.found}{middle}: {self.way_out}"


class Rule:
    """A way to batch: `rule(samples)` is the batch, `rule(option=value)` the rule with an option changed."""

    def __call__(self, *samples: Any, **options: Any) -> Any:
        if samples and not options and len(samples) == 1:
            return self._door(samples[0])
        if options and not samples:
            known = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
            unknown = sorted(set(options) - set(known))
            if unknown:
                raise TypeError(f"{self._name()} has no option {unknown[0]!r}: it has {known or 'none'}")
            return dataclasses.replace(self, **options)  # type: ignore[type-var]
        raise TypeError(f"call {self._name()} with the list of samples of a batch, or with options by keyword")

    def _door(self, samples: Any) -> Any:
        _check_batch(samples)
        try:
            return _apply(self, list(samples), _Walk())
        except _Offence as offence:
            error = offence.kind(str(offence))
        raise error

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Any:
        raise NotImplementedError

    def _name(self) -> str:
        return type(self).__name__.strip("_").lower()

    def __repr__(self) -> str:
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        ]
        return self._name() + (f"({', '.join(changed)})" if changed else "")


class _Walk:
    """Where the batching is, and, for `explain`, the nodes that it has passed."""

    def __init__(self, path: str = "", depth: int = 0, nodes: list[Node | None] | None = None) -> None:
        self.path, self.depth, self.nodes = path, depth, nodes
        self.rule, self.note = "", ""

    def into(self, step: str) -> _Walk:
        return _Walk(self.path + step, self.depth + 1, self.nodes)


def _check_batch(samples: Any) -> None:
    if not isinstance(samples, (list, tuple)) or hasattr(samples, "_fields"):
        raise TypeError(
            f"a rule takes the list of samples of a batch: found {type(samples).__name__}; "
            "with batch_size=None the loader calls collate_fn on each sample"
        )
    if not samples:
        raise ValueError("a batch needs at least one sample: found an empty list")


def _apply(rule: Callable[[list[Any]], Any], values: Sequence[Any], walk: _Walk) -> Any:
    """One node: the rule on the values of this place; `walk` knows the place, and remembers if asked to."""
    if walk.nodes is None:
        try:
            return _run(rule, values, walk)
        except _Offence as found:
            found.path = walk.path if found.path is None else found.path
            raise
    slot = len(walk.nodes)
    walk.nodes.append(None)
    try:
        result = _run(rule, values, walk)
    except Exception as error:
        offence = error if isinstance(error, _Offence) else _from_error(error)
        below = offence.path is not None
        offence.path = walk.path if offence.path is None else offence.path
        text = "fails below" if below else offence.kind.__name__
        note = None if below else str(offence)
        walk.nodes[slot] = Node(walk.path, walk.depth, _before(values), walk.rule or _named(rule), text, note, True)
        raise offence from None
    note = walk.note or None
    walk.nodes[slot] = Node(walk.path, walk.depth, _before(values), walk.rule or _named(rule), _text(result), note, False)
    return result


def _run(rule: Callable[[list[Any]], Any], values: Sequence[Any], walk: _Walk) -> Any:
    if isinstance(rule, Rule):
        return rule._batch(values, walk)
    walk.rule = _named(rule)
    try:
        return rule(list(values))
    except Exception as error:
        error.add_note(f"raised by the rule {_named(rule)} for batch[:]{walk.path}")
        raise


def _from_error(error: Exception) -> _Offence:
    return _Offence(type(error), None, _first_line(error), None, "raised by the rule")


def _named(rule: object) -> str:
    return repr(rule) if isinstance(rule, Rule) else getattr(rule, "__name__", type(rule).__name__)


def _odd_one(texts: Sequence[str]) -> tuple[int, str]:
    """The first value that is not like most, and what the others are."""
    usual = collections.Counter(texts).most_common(1)[0][0]
    odd = next(i for i, text in enumerate(texts) if text != usual)
    return odd, _listing_of(text for text in texts if text != texts[odd])


def _listing_of(texts: Iterable[str]) -> str:
    different = list(dict.fromkeys(texts))
    return " or ".join(different[:3]) + (" or others" if len(different) > 3 else "")


def _uneven(kind: type[Exception], texts: Sequence[str], way_out: str) -> _Offence:
    odd, others = _odd_one(texts)
    return _Offence(kind, odd, texts[odd], others, way_out)


# ---------------------------------------------------------------------------------------------------------------
# Rules for structures


@dataclass(frozen=True, repr=False)
class WithRules(Rule):
    """By type: a function for each type that has one, torch's for the other leaves, containers place by place.

    `strict` is the one without rules; make others with `with_rules`.
    """

    """By type: a function for each type that has one, torch's for the other leaves, containers place by place."""

    rules: Mapping[type, Callable[[list[Any]], Any]] = field(default_factory=dict)

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Any:
        kinds = {kind: _kind(kind, self.rules) for kind in set(map(type, values))}
        first = kinds[type(values[0])]
        if len(set(kinds.values())) > 1:
            if not all(kind in _NUMBERS for kind in kinds.values()):
                walk.rule = "one kind in every sample"
                raise _mixed_kinds(values)
            result = _mixed_numbers(values)
            walk.rule = f"mixed numbers -> {_dtype(result)} tensor"
            return result
        if isinstance(first, _Own):
            return _run(self.rules[first.type], values, walk)
        if callable(first):
            walk.rule, _ = _leaf_rule(values, None)
            result = _leaf(first, values)
            walk.rule, walk.note = _leaf_rule(values, result)
            return result
        if first is _UNKNOWN:
            walk.rule = "no rule"
            raise _Offence(TypeError, 0, _kind_text(values[0]), None, _no_rule(values[0]))
        return _container(values, first, lambda step: self, walk)

    def _name(self) -> str:
        return "with_rules" if self.rules else "strict"

    def __repr__(self) -> str:
        if not self.rules:
            return "strict"
        return "with_rules({" + ", ".join(f"{t.__name__}: {_named(rule)}" for t, rule in self.rules.items()) + "})"


@dataclass(frozen=True, repr=False)
class Fields(Rule):
    """By place: a rule for each key, index or attribute that is named, `others` for the rest; made with `fields`."""

    """By place: a rule for each key, index or attribute that is named, `others` for the rest."""

    rules: Mapping[Hashable, Callable[[list[Any]], Any]] = field(default_factory=dict)
    others: Callable[[list[Any]], Any] = field(default_factory=WithRules)

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Any:
        kinds = {kind: _kind(kind, {}) for kind in set(map(type, values))}
        if len(set(kinds.values())) > 1:
            raise _mixed_kinds(values)
        kind = kinds[type(values[0])]
        if not isinstance(kind, _Container):
            found = _kind_text(values[0])
            raise _Offence(TypeError, 0, f"{found} has no fields", None, "use fields for dicts, tuples and dataclasses")
        return _container(values, kind, lambda step: self.rules.get(step, self.others), walk, named=self.rules)

    def __repr__(self) -> str:
        return "fields({" + ", ".join(f"{step!r}: {_named(rule)}" for step, rule in self.rules.items()) + "})"


@dataclass(frozen=True)
class _Own:
    """A type with a rule of its own."""

    type: type


@dataclass(frozen=True)
class _Container:
    """A kind of value with values inside: mapping, sequence, or one named tuple or dataclass."""

    style: str
    type: type | None = None


_UNKNOWN = "unknown"
_NUMBERS = tuple(
    {default_collate_fn_map[float], default_collate_fn_map[int], default_collate_fn_map[(np.bool_, np.number, np.object_)]}
)


def _kind(kind: type, rules: Mapping[type, Any]) -> Any:
    """What torch's collate would look at for this type, after our own rules: a leaf's function, or a container."""
    if kind in rules:
        return _Own(kind)
    for base in rules:
        if issubclass(kind, base):
            return _Own(base)
    function = _registered(kind)
    if function is not None:
        return function
    if issubclass(kind, Mapping):
        return _Container("mapping")
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _Container("namedtuple", kind)
    if dataclasses.is_dataclass(kind):
        return _Container("dataclass", kind)
    if issubclass(kind, Sequence):
        return _Container("sequence")
    return _UNKNOWN


def _registered(kind: type) -> Callable[..., Any] | None:
    if kind in default_collate_fn_map:
        return default_collate_fn_map[kind]
    return next((function for types, function in default_collate_fn_map.items() if issubclass(kind, types)), None)


def _no_rule(value: object) -> str:
    if value is None:
        return "use skip_none, listed, or with_rules({type(None): function})"
    return f"no rule for this type: use listed, or with_rules({{{type(value).__name__}: function}})"


def _container(
    values: Sequence[Any],
    kind: _Container,
    rule_for: Callable[[Any], Callable[[list[Any]], Any]],
    walk: _Walk,
    named: Mapping[Hashable, Any] | None = None,
) -> Any:
    first = values[0]
    if kind.style == "mapping":
        steps = list(first)
        walk.rule = f"{type(first).__name__}: the same keys in every sample"
        _check_keys(values)
        columns: Iterable[Sequence[Any]] = ([value[key] for value in values] for key in steps)
    elif kind.style == "sequence":
        walk.rule, walk.note = _sequence_rule(first)
        if len(set(map(len, values))) > 1:
            raise _uneven(ValueError, [f"{type(v).__name__} of {len(v)}" for v in values], "use pad, ragged or listed")
        steps = list(range(len(first)))
        columns = zip(*values, strict=True)
    else:
        steps = list(first._fields) if kind.style == "namedtuple" else [f.name for f in dataclasses.fields(first)]
        walk.rule = f"{type(first).__name__}: field by field"
        rows = values if kind.style == "namedtuple" else [[getattr(value, step) for step in steps] for value in values]
        columns = zip(*rows, strict=True)
    strangers = [step for step in named or () if step not in steps]
    if strangers:
        there = ", ".join(map(repr, steps))
        raise _Offence(ValueError, None, f"no field {strangers[0]!r}", None, f"fields may name {there}")
    results, offence = [], None
    for step, column in zip(steps, columns, strict=True):
        try:
            results.append(_apply(rule_for(step), column, walk.into(_step_text(kind, step))))
        except _Offence as found:
            if walk.nodes is None:
                raise
            offence = offence or found  # explaining: look at the other places too
    if offence is not None:
        raise offence
    return _rebuilt(first, kind, steps, results)


def _step_text(kind: _Container, step: Any) -> str:
    if kind.style in ("namedtuple", "dataclass"):
        return f".{step}"
    return f'["{step}"]' if isinstance(step, str) else f"[{step!r}]"


def _check_keys(values: Sequence[Any]) -> None:
    first = values[0].keys()
    if all(value.keys() == first for value in values):
        return
    counts = collections.Counter(key for value in values for key in value)
    usual = [key for key, count in counts.items() if 2 * count > len(values) or (2 * count == len(values) and key in first)]
    for i, value in enumerate(values):
        missing, extra = [key for key in usual if key not in value], [key for key in value if key not in usual]
        if missing or extra:
            found = f"no key {_listing(missing)}" if missing else f"an extra key {_listing(extra)}"
            raise _Offence(ValueError, i, found, f"have {_listing(usual)}", "give every sample the same keys")


def _listing(keys: Sequence[Any]) -> str:
    return ", ".join(map(repr, keys)) or "none"


def _sequence_rule(first: Any) -> tuple[str, str]:
    if isinstance(first, tuple):
        return "tuple -> list", "a tuple comes back as a list"
    return f"{type(first).__name__}: place by place", ""


def _rebuilt(first: Any, kind: _Container, steps: list[Any], results: list[Any]) -> Any:
    """A container like the first sample's, made the way torch makes it: a copy with new contents where that works."""
    if kind.style == "namedtuple":
        return type(first)(*results)
    if kind.style == "dataclass":
        batch = copy.copy(first)
        for step, result in zip(steps, results, strict=True):
            object.__setattr__(batch, step, result)  # also into a frozen one, and without its __post_init__
        return batch
    if kind.style == "mapping":
        content = dict(zip(steps, results, strict=True))
        try:
            if isinstance(first, MutableMapping):
                clone = copy.copy(first)
                clone.update(content)
                return clone
            return type(first)(content)  # type: ignore[call-arg]
        except TypeError:
            return content
    if isinstance(first, tuple):
        return results
    try:
        if isinstance(first, MutableSequence):
            places = copy.copy(first)
            for i, result in enumerate(results):
                places[i] = result
            return places
        return type(first)(results)
    except TypeError:
        return results


# ---------------------------------------------------------------------------------------------------------------
# Rules for leaves


def _leaf(function: Callable[..., Any], values: Sequence[Any]) -> Any:
    try:
        return function(values, collate_fn_map=default_collate_fn_map)
    except Exception as error:  # only now look for the reason: most batches are right
        if hasattr(values[0], "shape") and len({value.shape for value in values}) > 1:
            raise _shapes(values, _shapes_way(values)) from None
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise _Offence(
            kind, None, f"{_before(values)}, {type(error).__name__}: {_first_line(error)}", None, "use listed"
        ) from error


def _mixed_kinds(values: Sequence[Any]) -> _Offence:
    texts = [_kind_text(value) for value in values]
    if "None" not in texts:
        return _uneven(TypeError, texts, "give every sample the same kind, or use listed")
    others = _listing_of(text for text in texts if text != "None")
    return _Offence(TypeError, texts.index("None"), "None", others, "use skip_none(inside=True) or listed")


def _mixed_numbers(values: Sequence[Any]) -> Tensor:
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    real = any(isinstance(value, float) for value in plain)
    return torch.tensor(plain, dtype=torch.float64 if real else None)


def _shapes(values: Sequence[Any], way_out: str) -> _Offence:
    return _uneven(ValueError, [str(tuple(value.shape)) for value in values], way_out)


def _shapes_way(values: Sequence[Any]) -> str:
    if len({len(value.shape) for value in values}) > 1:
        return "use listed"
    differ = tuple(d for d, sizes in enumerate(zip(*(value.shape for value in values), strict=True)) if len(set(sizes)) > 1)
    return "use pad, ragged or listed" if differ == (0,) else f"use pad(dims={differ}) or listed"


def _tensors(values: Sequence[Any], rule: str) -> list[Tensor]:
    """The values as tensors; arrays and lists of numbers become one, anything else is an offence."""
    tensors = []
    for i, value in enumerate(values):
        try:
            tensors.append(value if isinstance(value, Tensor) else torch.as_tensor(value))
        except (TypeError, ValueError, RuntimeError):
            way = f"{rule} takes tensors, arrays and lists of numbers: use fields or with_rules({{Tensor: {rule}}}) to say where"
            raise _Offence(TypeError, i, _kind_text(value), None, way) from None
        if tensors[-1].ndim == 0:
            raise _Offence(ValueError, i, _text(value), None, f"{rule} needs at least one dimension: use strict for numbers")
    return tensors


def _check_rest(tensors: list[Tensor], dims: Sequence[int], way_out: str) -> None:
    """All dimensions but `dims` must be equal."""
    rests = {tuple(size for d, size in enumerate(t.shape) if d not in dims) for t in tensors}
    if len(rests) > 1 or len({t.ndim for t in tensors}) > 1:
        raise _shapes(tensors, way_out)


@dataclass(frozen=True, repr=False)
class Pad(Rule):
    """Tensors of different lengths as one: shorter ones are filled up with `value`.

    `side`: where the filling goes, "right" or "left". `multiple`: lengths are rounded up to a multiple of it. `mask`:
    return Padded(values, mask), the mask bool of shape (batch, *padded lengths), True where a value is real. `dims`:
    the dimensions that may differ (0 by default); all others must be equal. Takes tensors, arrays and lists of numbers.
    Errors: ValueError for shapes that differ elsewhere, or a value that the dtype cannot hold.

    >>> pad([torch.tensor([1, 2, 3]), torch.tensor([4])]).tolist()
    [[1, 2, 3], [4, 0, 0]]
    >>> pad(side="left", value=-1, mask=True)([[1, 2], [3]])
    Padded(values=tensor([[ 1,  2],
            [-1,  3]]), mask=tensor([[ True,  True],
            [False,  True]]))
    """

    side: str = "right"
    value: float = 0
    multiple: int = 1
    mask: bool = False
    dims: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.side not in ("left", "right"):
            raise ValueError(f"side must be 'left' or 'right': found {self.side!r}")
        if type(self.multiple) is not int or self.multiple < 1:
            raise ValueError(f"multiple must be a whole number of at least 1: found {self.multiple!r}")
        if not self.dims or any(type(d) is not int or d < 0 for d in self.dims) or len(set(self.dims)) < len(self.dims):
            raise ValueError(f"dims must be different whole numbers from 0: found {self.dims!r}")

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Any:
        walk.rule = repr(self)
        tensors = _tensors(values, "pad")
        lowest = min(tensors, key=lambda t: t.ndim)
        if lowest.ndim <= max(self.dims):
            raise _Offence(ValueError, tensors.index(lowest), _text(lowest), None, f"pad(dims={self.dims}) needs more dimensions")
        _check_rest(tensors, self.dims, f"pad changes only {_dims_text(self.dims)}: name more in pad(dims=...), or use listed")
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
        self._check_value(dtype)
        size = list(tensors[0].shape)
        for d in self.dims:
            longest = max(t.shape[d] for t in tensors)
            size[d] = -(-longest // self.multiple) * self.multiple
        batch = tensors[0].new_full((len(tensors), *size), self.value, dtype=dtype)
        real = torch.zeros((len(tensors), *(size[d] for d in self.dims)), dtype=torch.bool) if self.mask else None
        for i, tensor in enumerate(tensors):
            place, true = batch[i], None if real is None else real[i]
            for at, d in enumerate(self.dims):
                start = 0 if self.side == "right" else size[d] - tensor.shape[d]
                place = place.narrow(d, start, tensor.shape[d])
                true = None if true is None else true.narrow(at, start, tensor.shape[d])
            place.copy_(tensor)
            if true is not None:
                true.fill_(True)
        return batch if real is None else Padded(batch, real)

    def _check_value(self, dtype: torch.dtype) -> None:
        try:
            kept = torch.full((), self.value, dtype=dtype).item()
        except (RuntimeError, TypeError):
            kept = None
        if not dtype.is_floating_point and kept != self.value:
            name = str(dtype).removeprefix("torch.")
            raise _Offence(ValueError, None, f"pad value {self.value!r} is no {name}", None, "give another pad(value=...)")


def _dims_text(dims: tuple[int, ...]) -> str:
    return "dimension 0" if dims == (0,) else f"dimensions {dims}"


@dataclass(frozen=True, repr=False)
class Ragged(Rule):
    """Tensors of different lengths as torch's jagged nested tensor of shape (batch, *, ...): nothing is filled up.

    Takes tensors, arrays and lists of numbers that differ in dimension 0 only. The first jagged tensor of a process
    takes seconds, because torch then loads sympy.

    >>> batch = ragged([torch.ones(2, 4), torch.ones(3, 4)])
    >>> batch.is_nested, [tuple(part.shape) for part in batch.unbind()]
    (True, [(2, 4), (3, 4)])
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Tensor:
        walk.rule = "ragged: jagged nested tensor"
        tensors = _tensors(values, "ragged")
        _check_rest(tensors, (0,), "ragged differs only in dimension 0: use pad(dims=...) or listed")
        with _without_advice():
            return torch.nested.nested_tensor_from_jagged(torch.cat(tensors), _offsets(tensors))


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """torch 2.15 logs, with time and pid, an advice to its own authors when it makes a jagged tensor; until it does not."""
    log = logging.getLogger("torch.fx._symbolic_trace")
    log.addFilter(_no_advice)
    try:
        yield
    finally:
        log.removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return "is_fx_tracing" not in record.getMessage()


@dataclass(frozen=True, repr=False)
class Flat(Rule):
    """Tensors of different lengths one after the other, with offsets: Flattened(values, offsets).

    Takes tensors, arrays and lists of numbers that differ in dimension 0 only; offsets are int64 of shape (batch + 1,).

    >>> flat([[7, 8], [9]])
    Flattened(values=tensor([7, 8, 9]), offsets=tensor([0, 2, 3]))
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Flattened:
        walk.rule = "flat: one after the other"
        tensors = _tensors(values, "flat")
        _check_rest(tensors, (0,), "flat differs only in dimension 0: use pad(dims=...) or listed")
        return Flattened(torch.cat(tensors), _offsets(tensors))


def _offsets(tensors: list[Tensor]) -> Tensor:
    lengths = torch.tensor([0, *(len(t) for t in tensors)])
    return lengths.cumsum(0).to(tensors[0].device)


@dataclass(frozen=True, repr=False)
class Packed(Rule):
    """Tensors of different lengths as torch's PackedSequence, in any order of lengths: what recurrent layers take.

    Takes tensors, arrays and lists of numbers that differ in dimension 0 only and are not empty.

    >>> packed([torch.tensor([3]), torch.tensor([1, 2])]).batch_sizes.tolist()
    [2, 1]
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> PackedSequence:
        walk.rule = "packed: PackedSequence"
        tensors = _tensors(values, "packed")
        _check_rest(tensors, (0,), "packed differs only in dimension 0: use pad(dims=...) or listed")
        for i, tensor in enumerate(tensors):
            if not len(tensor):
                raise _Offence(ValueError, i, _text(tensor), None, "torch cannot pack an empty sequence: use pad or ragged")
        return pack_sequence(tensors, enforce_sorted=False)


@dataclass(frozen=True, repr=False)
class Listed(Rule):
    """The values as they are, in a list: for what no tensor can hold (None, paths, pictures).

    >>> listed([None, "a"])
    [None, 'a']
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> list[Any]:
        walk.rule = "listed: as they are"
        return list(values)


@dataclass(frozen=True, repr=False)
class SkipNone(Rule):
    """Leave out the samples that are None and batch the others by `then` (strict): Kept(batch, kept, skipped).

    `inside=True` also leaves out samples with a None anywhere in them. The counts are exact and travel with the batch
    from the worker that made it; `kept + skipped` is what was read. A batch without a good sample has batch None.

    >>> skip_none([1, None, 3])
    Kept(batch=tensor([1, 3]), kept=2, skipped=1)
    >>> skip_none(then=listed, inside=True)([("a", 1), ("b", None)])
    Kept(batch=[('a', 1)], kept=1, skipped=1)
    """

    then: Callable[[list[Any]], Any] = field(default_factory=WithRules)
    inside: bool = False

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Kept:
        good = [i for i, value in enumerate(values) if not (_holds_none(value) if self.inside else value is None)]
        skipped = len(values) - len(good)
        try:
            batch = _run(self.then, [values[i] for i in good], walk) if good else None
        except _Offence as offence:
            if offence.sample is not None:
                offence.sample = good[offence.sample]  # the number that it has in the batch as it was read
            raise
        walk.rule = f"skip_none, then {walk.rule}" if good else "skip_none"
        walk.note = f"{skipped} of {len(values)} samples skipped" if skipped else walk.note
        return Kept(batch, len(good), skipped)

    def _name(self) -> str:
        return "skip_none"

    def __repr__(self) -> str:
        return f"skip_none(then={_named(self.then)}{', inside=True' if self.inside else ''})"


def _holds_none(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_none, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_none, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_holds_none(getattr(value, f.name)) for f in dataclasses.fields(value))
    return value is None


strict = WithRules()
pad = Pad()
ragged = Ragged()
flat = Flat()
packed = Packed()
listed = Listed()
skip_none = SkipNone()


def with_rules(rules: Mapping[type, Callable[[list[Any]], Any]]) -> Rule:
    """The collate_fn that batches values of these types by these functions, wherever they stand, and the rest strictly.

    A function takes the list of values at one place; any rule of this module is one. As in torch the exact type comes
    first, then base classes in the order given. To survive spawn the functions must be importable (no lambda).
    Errors: TypeError for a key that is no type or a rule that cannot be called.

    >>> with_rules({Tensor: pad})([(torch.ones(2), 0), (torch.ones(1), 1)])
    [tensor([[1., 1.],
            [1., 0.]]), tensor([0, 1])]
    """
    for kind, rule in rules.items():
        if not isinstance(kind, type):
            raise TypeError(f"with_rules takes types as keys: found {kind!r}; to name a place use fields")
        _check_callable(kind.__name__, rule)
    return WithRules(dict(rules))


def fields(rules: Mapping[Any, Callable[[list[Any]], Any]], others: Callable[[list[Any]], Any] = strict) -> Rule:
    """The collate_fn that batches these places of a sample by these rules, and its other places by `others`.

    A place is a key of a mapping, an index of a tuple or list, a name of a namedtuple or dataclass; for places deeper
    down give another `fields` as the rule. Errors: TypeError for a rule that cannot be called or a sample without
    fields; ValueError for a name that the samples do not have.

    >>> batch = fields({"boxes": pad, "name": listed})([
    ...     {"boxes": torch.ones(2, 4), "name": None, "label": 3},
    ...     {"boxes": torch.ones(5, 4), "name": "b", "label": 4},
    ... ])
    >>> tuple(batch["boxes"].shape), batch["name"], batch["label"].tolist()
    ((2, 5, 4), [None, 'b'], [3, 4])
    """
    for step, rule in rules.items():
        _check_callable(repr(step), rule)
    return Fields(dict(rules), others)


def _check_callable(name: str, rule: object) -> None:
    if not callable(rule):
        raise TypeError(f"the rule for {name} must be a function of the list of values: found {rule!r}")


# ---------------------------------------------------------------------------------------------------------------
# Before and after


@dataclass(frozen=True, repr=False)
class CollateTree(Facts):
    """What a collate function did with a batch, place by place: made with `explain`."""

    name: str
    size: int
    nodes: tuple[Node, ...]

    @property
    def surprises(self) -> list[str]:
        """The notes of places that worked, but not as one may think."""
        return [f"{node.path or 'sample'}: {node.note}" for node in self.nodes if node.note and not node.failed]

    @property
    def errors(self) -> list[str]:
        """What went wrong, at the places where it did."""
        failed = [(node.path or "sample", node.note) for node in self.nodes if node.note and node.failed]
        return [note if note.startswith("batch[") else f"{path}: {note}" for path, note in failed]

    def tree(self) -> list[dict[str, Any]]:
        """The places for `pictures.tree`, each before those inside it: depth, path, before, rule, after, surprise."""
        return [
            {
                "depth": n.depth,
                "path": n.path or "sample",
                "before": n.before,
                "rule": n.rule,
                "after": n.after,
                "surprise": n.note is not None,
            }
            for n in self.nodes
        ]

    def summary(self) -> str:
        samples = "1 sample" if self.size == 1 else f"{self.size} samples"
        if self.nodes[0].failed:
            return f"{samples} make no batch by {self.name}"
        count = len(self.surprises)
        surprises = "" if not count else ", 1 surprise" if count == 1 else f", {count} surprises"
        return f"{samples} make a batch by {self.name}{surprises}"

    def rows(self) -> list[dict[str, object]]:
        return [
            {"where": n.path or "sample", "before": n.before, "rule": n.rule, "after": n.after, "note": n.note}
            for n in self.nodes
        ]


def explain(samples: Sequence[Any], collate_fn: Callable[[list[Any]], Any] | None = None) -> CollateTree:
    """What `collate_fn` does with these samples, place by place: before, the rule that fired, after, and surprises.

    Without `collate_fn` it is torch's default_collate, which is run for real on every place, so that what it refuses
    stands where it is refused. Rules of this module tell about every place too; of any other function only before and
    after are known. What the function raises is a row, not an exception. Errors: TypeError or ValueError if `samples`
    is not a list with a sample. Source: claims CO-03 to CO-11.

    >>> explain([("a", 1.5), ("b", 2.0)])
    2 samples make a batch by default_collate, 2 surprises
    where   before      rule                     after         note
    sample  tuple of 2  tuple -> list            list of 2     a tuple comes back as a list
    [0]     str         str: kept as they are    tuple of 2    -
    [1]     float       float -> float64 tensor  float64 (2,)  float64, torch's layers are float32
    """
    _check_batch(samples)
    if collate_fn is None or collate_fn is default_collate:
        nodes: list[Node | None] = []
        _torch_node(list(samples), "", 0, nodes)
        return CollateTree("default_collate", len(samples), tuple(node for node in nodes if node))
    walk = _Walk(nodes=[])
    with contextlib.suppress(_Offence):  # it stands in the nodes
        _apply(collate_fn, list(samples), walk)
    return CollateTree(_named(collate_fn), len(samples), tuple(node for node in walk.nodes or () if node))


def _torch_node(values: Sequence[Any], path: str, depth: int, nodes: list[Node | None]) -> bool:
    """One place as torch batches it, and the places inside it; whether it failed."""
    slot = len(nodes)
    nodes.append(None)
    result, error = None, None
    try:
        result = default_collate(values)  # type: ignore[arg-type]
    except Exception as raised:
        error = raised
    kind = _kind(type(values[0]), {})
    below = False
    if isinstance(kind, _Container):
        for step, column in _torch_columns(values, kind):
            below = _torch_node(column, path + _step_text(kind, step), depth + 1, nodes) or below
        if kind.style == "mapping":
            below = _torch_keys(values, path, depth + 1, nodes) or below
    rule, note = _torch_rule(values, kind, result)
    text = _text(result)
    if error is not None:
        text, note = ("fails below", "") if below else (type(error).__name__, _first_line(error))
    nodes[slot] = Node(path, depth, _before(values), rule, text, note or None, error is not None)
    return error is not None


def _torch_columns(values: Sequence[Any], kind: _Container) -> list[tuple[Any, Sequence[Any]]]:
    """The places inside, as far as torch would get into them."""
    first = values[0]
    try:
        if kind.style == "mapping":
            return [(key, [value[key] for value in values]) for key in first if all(key in value for value in values)]
        if kind.style == "namedtuple":
            return list(zip(first._fields, zip(*values, strict=False), strict=False))
        if kind.style == "sequence" and len(set(map(len, values))) == 1:
            return list(enumerate(zip(*values, strict=True)))
    except TypeError:  # samples of different kinds
        pass
    return []


def _torch_keys(values: Sequence[Any], path: str, depth: int, nodes: list[Node | None]) -> bool:
    """The keys that not every sample has: torch asks only for those of the first sample; whether one is missed."""
    if not all(isinstance(value, Mapping) for value in values):
        return False
    first, missed = values[0], False
    for key in dict.fromkeys(key for value in values for key in value):
        there = [i for i, value in enumerate(values) if key in value]
        if len(there) == len(values):
            continue
        step, before = _step_text(_Container("mapping"), key), _before([values[i][key] for i in there])
        if key in first:
            lacks = next(i for i, value in enumerate(values) if key not in value)
            nodes.append(
                Node(path + step, depth, before, "a key of the first sample", "KeyError", f"batch[{lacks}] has no such key", True)
            )
            missed = True
        else:
            note = f"batch[{there[0]}] has it, the batch does not"
            nodes.append(Node(path + step, depth, before, "no key of the first sample", "dropped", note, False))
    return missed


def _torch_rule(values: Sequence[Any], kind: Any, result: Any) -> tuple[str, str]:
    """The rule of torch's collate that fired, and what may surprise about it."""
    first = values[0]
    if callable(kind):
        return _leaf_rule(values, result)
    if not isinstance(kind, _Container) or kind.style == "dataclass":
        return "no rule", ""
    if kind.style == "mapping":
        return f"{type(first).__name__}: keys of the first sample", ""
    return _sequence_rule(first) if kind.style == "sequence" else (f"{type(first).__name__}: field by field", "")


def _leaf_rule(values: Sequence[Any], result: Any) -> tuple[str, str]:
    """The rule for values without places inside them, and what may surprise; `result` is None if there is none (yet)."""
    first = values[0]
    if isinstance(first, (str, bytes)):
        return f"{_text(first)}: kept as they are", ""
    if isinstance(first, Tensor):
        return "stack", ""
    name = f"{'ndarray' if isinstance(first, np.ndarray) else _text(first)} -> "
    if result is not None and not isinstance(result, Tensor):
        return f"{name}{_text(result)}", ""  # somebody has added to torch's registry
    rule = f"{name}{_dtype(result)} tensor" if result is not None else f"{name}tensor"
    if isinstance(first, np.ndarray):
        return f"{rule}, stacked", ""
    if result is not None and len({type(value) for value in values}) > 1:
        return rule, "the first sample decides the dtype"
    if result is not None and type(first) is float:
        return rule, f"{_dtype(result)}, torch's layers are float32"
    return rule, ""


# ---------------------------------------------------------------------------------------------------------------
# The text of values


def _before(values: Sequence[Any]) -> str:
    texts = list(dict.fromkeys(map(_text, values)))
    return " | ".join(texts[:3]) + (" | ..." if len(texts) > 3 else "")


def _text(value: Any) -> str:
    """One value as kind, dtype and shape, never its content."""
    if isinstance(value, Tensor):
        if value.is_nested and value.layout == torch.jagged:
            return f"jagged {_dtype(value)} ({', '.join([str(value.shape[0]), '*', *map(str, value.shape[2:])])})"
        return f"{_dtype(value)} {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"ndarray {value.dtype} {tuple(value.shape)}"
    if isinstance(value, np.generic):
        return f"np.{value.dtype}"
    if isinstance(value, PackedSequence):
        return f"PackedSequence of {int(value.batch_sizes[0])}"
    if isinstance(value, (Padded, Flattened)):
        return f"{type(value).__name__}({', '.join(map(_text, value))})"
    if isinstance(value, Kept):
        return f"Kept {value.kept} of {value.kept + value.skipped}"
    if value is None:
        return "None"
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, (str, bytes)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _kind_text(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
