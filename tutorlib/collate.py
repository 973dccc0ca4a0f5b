"""How samples become a batch: rules by type and by field, strict about what torch's default_collate lets pass.

A rule takes the list of a batch's values at one place and returns what stands there in the batch. Each rule below is
itself a collate_fn, is picklable (so it reaches workers under any start method), and is used in one grammar:
`pad(samples)` batches, `pad(side="left")` gives a changed rule, `fields({"boxes": pad})` puts it at a place. `uncollate`
goes back from a batch to its samples, `to` carries a batch to a device.

`strict`, the rule for all that no other rule names, agrees with torch's default_collate on everything that both accept,
and calls torch's own functions for the leaves. On purpose it is stricter, whatever the order of the samples: missing
and extra keys are errors (torch drops extra ones), samples of different kinds at one place are errors, and a mix of
Python numbers is float64 (torch takes the dtype of the first). Dataclasses become a dataclass of batches. As in torch
a tuple comes back as a list and a namedtuple as itself.

Errors name the place and the sample: `batch[3]["boxes"]: (7, 4), others (5, 4): use pad, jagged or listed`. They are
TypeErrors where a kind is wrong and ValueErrors elsewhere. `explain` shows the tree before and after.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import copy
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence, unpack_sequence
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from tutorlib.facts import Facts

__all__ = [
    "BadSamples",
    "Batch",
    "CollateTree",
    "Flattened",
    "Kept",
    "Node",
    "Padded",
    "Replaced",
    "Rule",
    "Untouched",
    "bad_samples",
    "explain",
    "fields",
    "flat",
    "jagged",
    "keep",
    "listed",
    "packed",
    "pad",
    "replace_none",
    "skip_none",
    "strict",
    "to",
    "uncollate",
    "with_rules",
]


# ---------------------------------------------------------------------------------------------------------------
# What a batch may be made of. Each can be pinned, by DataLoader(pin_memory=True), and moved: `batch.to(device)`.


class Padded(NamedTuple):
    """A padded batch and its mask: True where a value is real."""

    values: Tensor
    mask: Tensor

    def pin_memory(self) -> Padded:
        """The same in pinned memory."""
        return _inside(self, "pin_memory")

    def to(self, device: Any, non_blocking: bool = False) -> Padded:
        """The same on another device."""
        return _inside(self, "to", device, non_blocking=non_blocking)


class Flattened(NamedTuple):
    """Samples one after the other: sample i is `values[offsets[i]:offsets[i + 1]]`."""

    values: Tensor
    offsets: Tensor

    def pin_memory(self) -> Flattened:
        """The same in pinned memory."""
        return _inside(self, "pin_memory")

    def to(self, device: Any, non_blocking: bool = False) -> Flattened:
        """The same on another device."""
        return _inside(self, "to", device, non_blocking=non_blocking)


class Kept(NamedTuple):
    """A batch without its bad samples (None if none was good), how many were kept and how many skipped."""

    batch: Any
    kept: int
    skipped: int

    def pin_memory(self) -> Kept:
        """The same in pinned memory."""
        return _inside(self, "pin_memory")

    def to(self, device: Any, non_blocking: bool = False) -> Kept:
        """The same on another device."""
        return _inside(self, "to", device, non_blocking=non_blocking)


class Replaced(NamedTuple):
    """A batch with good samples in the place of its bad ones, and its mask: True where a sample is its own, bool (batch,)."""

    batch: Any
    mask: Tensor

    def pin_memory(self) -> Replaced:
        """The same in pinned memory."""
        return _inside(self, "pin_memory")

    def to(self, device: Any, non_blocking: bool = False) -> Replaced:
        """The same on another device."""
        return _inside(self, "to", device, non_blocking=non_blocking)


class Untouched(tuple[Any, ...]):
    """Values as they came, which stay what and where they are: neither pinned nor moved."""

    __slots__ = ()

    def pin_memory(self) -> Untouched:
        """Itself."""
        return self

    def to(self, device: Any, non_blocking: bool = False) -> Untouched:
        """Itself."""
        return self


class Batch:
    """A base for your dataclasses, whose batches are then pinned: torch's own pinning does not look into dataclasses.

    >>> @dataclass
    ... class Sample(Batch):
    ...     image: Tensor
    ...     name: str
    >>> batch = strict([Sample(torch.ones(2), "a"), Sample(torch.ones(2), "b")])
    >>> batch.to("meta").image.device.type
    'meta'
    """

    def pin_memory(self) -> Any:
        """The same in pinned memory."""
        return _inside(self, "pin_memory")

    def to(self, device: Any, non_blocking: bool = False) -> Any:
        """The same on another device."""
        return _inside(self, "to", device, non_blocking=non_blocking)


def to(batch: Any, device: Any, *, non_blocking: bool = False) -> Any:
    """The batch on another device: every tensor in dicts, lists, tuples, dataclasses and the types of this module.

    What has a `to` of its own is asked for it; numbers, texts and what `keep` made stay as they are.

    >>> batch = to({"boxes": pad(mask=True)([[1, 2], [3]]), "name": ["a", "b"]}, "meta")
    >>> batch["boxes"].mask.device.type, batch["name"]
    ('meta', ['a', 'b'])
    """
    return _carried(batch, "to", device, non_blocking=non_blocking)


def _carried(value: Any, method: str, *arguments: Any, **options: Any) -> Any:
    if hasattr(value, method):
        return getattr(value, method)(*arguments, **options)
    return _inside(value, method, *arguments, **options)


def _inside(value: Any, method: str, *arguments: Any, **options: Any) -> Any:
    """A container like this one in which every value was carried along."""
    kind = _kind(type(value), {})
    if not isinstance(kind, _Container):
        return value
    steps = _steps(value, kind)
    results = [_carried(_at(value, kind, step), method, *arguments, **options) for step in steps]
    return tuple(results) if type(value) is tuple else _rebuilt(value, kind, steps, results)


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

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        """The samples of `batch`, a list; or `_Every`, where nothing tells how many they are."""
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
            if walk.nodes is None:  # nobody asks which rule it was
                return _leaf(first, values)
            walk.rule, _ = _leaf_rule(values, None)
            result = _leaf(first, values)
            walk.rule, walk.note = _leaf_rule(values, result)
            return result
        if first is _UNKNOWN:
            walk.rule = "no rule"
            raise _Offence(TypeError, 0, _kind_text(values[0]), None, _no_rule(values[0]))
        return _container(values, first, lambda step: self, walk)

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if like is not _UNSEEN:
            kind = _kind(type(like), self.rules)
            if isinstance(kind, _Own):
                return _back(self.rules[kind.type], batch, like, path)
            if kind is _UNKNOWN:
                raise TypeError(f"batch{path}: samples like {_kind_text(like)} make no batch: {_no_rule(like)}")
            if isinstance(kind, _Container):
                return _places_back(batch, kind, like, lambda step: self, path)
            return _leaf_back(batch, like, path)
        maker = _maker(batch)
        if maker is not None:  # the batch itself says by which rule it was made
            mine = [rule for rule in self.rules.values() if type(rule) is type(maker)] or [maker]
            if any(rule != mine[0] for rule in mine):
                raise _needs_like(f"{_text(batch)} may be of {_listing_of(map(_named, mine))}", path)
            return _back(mine[0], batch, like, path)
        kind = _kind(type(batch), {})
        if not isinstance(kind, _Container) or (kind.style == "sequence" and len(batch) and _all_text(batch)):
            return _leaf_back(batch, like, path)
        if self.rules and kind.style == "sequence":
            raise _needs_like(f"{_text(batch)} may be places of a sample, or values of a type with a rule", path)
        return _places_back(batch, kind, like, lambda step: self, path)

    def _name(self) -> str:
        return "with_rules" if self.rules else "strict"

    def __repr__(self) -> str:
        if not self.rules:
            return "strict"
        return "with_rules({" + ", ".join(f"{t.__name__}: {_named(rule)}" for t, rule in self.rules.items()) + "})"


@dataclass(frozen=True, repr=False)
class Fields(Rule):
    """By place: a rule for each key, index or attribute that is named, `others` for the rest; made with `fields`."""

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

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        kind = _kind(type(batch if like is _UNSEEN else like), {})
        if not isinstance(kind, _Container):
            raise _not_made(batch, "fields", path)
        return _places_back(batch, kind, like, lambda step: self.rules.get(step, self.others), path)

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
    steps = _steps(first, kind)
    if kind.style == "mapping":
        walk.rule = f"{type(first).__name__}: the same keys in every sample"
        _check_keys(values)
        columns: Iterable[Sequence[Any]] = ([value[key] for value in values] for key in steps)
    elif kind.style == "sequence":
        walk.rule, walk.note = _sequence_rule(first)
        if len(set(map(len, values))) > 1:
            raise _uneven(ValueError, [f"{type(v).__name__} of {len(v)}" for v in values], "use pad, jagged or listed")
        columns = zip(*values, strict=True)
    else:
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


def _steps(value: Any, kind: _Container) -> list[Any]:
    """The places in a container: keys, indices or names."""
    if kind.style == "mapping":
        return list(value)
    if kind.style == "sequence":
        return list(range(len(value)))
    return list(value._fields) if kind.style == "namedtuple" else [f.name for f in dataclasses.fields(value)]


def _at(value: Any, kind: _Container, step: Any) -> Any:
    return getattr(value, step) if kind.style in ("namedtuple", "dataclass") else value[step]


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
    return "use pad, jagged or listed" if differ == (0,) else f"use pad(dims={differ}) or listed"


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
    shapes = {t.shape for t in tensors}
    if (
        len({tuple(size for d, size in enumerate(shape) if d not in dims) for shape in shapes}) > 1
        or len(set(map(len, shapes))) > 1
    ):
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
        dtypes = {t.dtype for t in tensors}
        dtype = tensors[0].dtype if len(dtypes) == 1 else functools.reduce(torch.promote_types, (t.dtype for t in tensors))
        if not dtype.is_floating_point:
            self._check_value(dtype)
        if self.dims == (0,) and len(dtypes) == 1 and self.multiple == 1:
            batch = pad_sequence(tensors, batch_first=True, padding_value=self.value, padding_side=self.side)  # a loop in C++
        else:
            batch = self._copied(tensors, dtype)
        return Padded(batch, self._mask(tensors, batch)) if self.mask else batch

    def _copied(self, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        size = list(tensors[0].shape)
        for d in self.dims:
            longest = max(t.shape[d] for t in tensors)
            size[d] = -(-longest // self.multiple) * self.multiple
        batch = tensors[0].new_full((len(tensors), *size), self.value, dtype=dtype)
        whole: list[Any] = [slice(None)] * (max(self.dims) + 1)
        for i, tensor in enumerate(tensors):
            shape, place = tensor.shape, [i, *whole]
            for d in self.dims:
                place[1 + d] = slice(shape[d]) if self.side == "right" else slice(size[d] - shape[d], None)
            batch[tuple(place)] = tensor
        return batch

    def _mask(self, tensors: list[Tensor], batch: Tensor) -> Tensor:
        """Where batch[i] is real: in all padded dimensions at once."""
        mask = None
        for at, d in enumerate(self.dims):
            size = batch.shape[1 + d]
            places = torch.arange(size, device=batch.device)
            lengths = torch.tensor([t.shape[d] for t in tensors], device=batch.device).unsqueeze(1)
            real = places < lengths if self.side == "right" else places >= size - lengths
            real = real.reshape(len(tensors), *(size if other == at else 1 for other in range(len(self.dims))))
            mask = real if mask is None else mask & real
        assert mask is not None
        return mask

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if isinstance(batch, Tensor) and not self.mask:
            raise ValueError(f"batch{path}: pad without a mask forgets the lengths: use pad(mask=True), flat or jagged")
        if not isinstance(batch, Padded):
            raise _not_made(batch, repr(self), path)
        sizes = tuple(batch.values.shape[1 + d] for d in self.dims if d < batch.values.ndim - 1)
        if tuple(batch.mask.shape[1:]) != sizes:
            raise ValueError(
                f"batch{path}: {_text(batch)} is not padded in {_dims_text(self.dims)}: name the rule, "
                "uncollate(batch, pad(dims=..., mask=True))"
            )
        tensors = []
        for value, mask in zip(batch.values.unbind(), batch.mask.unbind(), strict=True):
            for at, d in enumerate(self.dims):
                real = mask.movedim(at, 0).flatten(1).any(1) if mask.ndim > 1 else mask
                value = value[(slice(None),) * d + (real,)]
            tensors.append(value)
        return _as_like(tensors, like)

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
class Jagged(Rule):
    """Tensors of different lengths as torch's jagged nested tensor of shape (batch, *, ...): nothing is filled up.

    Takes tensors, arrays and lists of numbers that differ in dimension 0 only. The first jagged tensor of a process
    takes seconds, because torch then loads sympy.

    >>> batch = jagged([torch.ones(2, 4), torch.ones(3, 4)])
    >>> batch.is_nested, [tuple(part.shape) for part in batch.unbind()]
    (True, [(2, 4), (3, 4)])
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Tensor:
        walk.rule = "jagged: nested tensor"
        tensors = _tensors(values, "jagged")
        _check_rest(tensors, (0,), "jagged differs only in dimension 0: use pad(dims=...) or listed")
        with _without_advice():
            return torch.nested.nested_tensor_from_jagged(torch.cat(tensors), _offsets(tensors))

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, Tensor) or not batch.is_nested:
            raise _not_made(batch, "jagged", path)
        return _as_like(list(batch.unbind()), like)


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

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, Flattened):
            raise _not_made(batch, "flat", path)
        pairs = itertools.pairwise(batch.offsets.tolist())
        return _as_like([batch.values[begin:stop] for begin, stop in pairs], like)


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
                raise _Offence(ValueError, i, _text(tensor), None, "torch cannot pack an empty sequence: use pad or jagged")
        return pack_sequence(tensors, enforce_sorted=False)

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, PackedSequence):
            raise _not_made(batch, "packed", path)
        return _as_like(list(unpack_sequence(batch)), like)


@dataclass(frozen=True, repr=False)
class Listed(Rule):
    """The values as they are, in a list: for what no tensor can hold (None, paths, pictures).

    Tensors among them are pinned and moved like those of the rest of the batch; see `keep`.

    >>> listed([None, "a"])
    [None, 'a']
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> list[Any]:
        walk.rule = "listed: as they are"
        return list(values)

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, (list, tuple)):
            raise _not_made(batch, self._name(), path)
        return list(batch)


@dataclass(frozen=True, repr=False)
class Keep(Rule):
    """The values passed through, the very same objects, and left where they are: neither pinned nor moved to a device.

    For what the loss or a log needs on the CPU while the rest of the batch travels: sizes of images, keys, file names.

    >>> to(fields({"size": keep})([{"image": torch.ones(2), "size": torch.tensor([3, 4])}]), "meta")
    {'image': tensor(..., device='meta', size=(1, 2)), 'size': (tensor([3, 4]),)}
    """

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Untouched:
        walk.rule = "keep: passed through"
        return Untouched(values)

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, (list, tuple)):
            raise _not_made(batch, "keep", path)
        return list(batch)


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

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, Kept):
            raise _not_made(batch, "skip_none", path)
        return [] if batch.batch is None else _back(self.then, batch.batch, like, path)

    def _name(self) -> str:
        return "skip_none"

    def __repr__(self) -> str:
        return f"skip_none(then={_named(self.then)}{', inside=True' if self.inside else ''})"


@dataclass(frozen=True, repr=False)
class ReplaceNone(Rule):
    """Put the next good sample of the batch in the place of each that is None, and batch by `then`: Replaced(batch, mask).

    The batch keeps its size and the loader its number of samples; `mask` (bool, shape (batch,)) is False where a sample is
    borrowed, so that a loss can leave it out. After the last good sample comes the first. `inside=True` also replaces
    samples with a None anywhere in them. `spare`, a sample, stands in where a batch has no good one; without it that is
    a ValueError.

    >>> replace_none([1, None, 3])
    Replaced(batch=tensor([1, 3, 3]), mask=tensor([ True, False,  True]))
    """

    then: Callable[[list[Any]], Any] = field(default_factory=WithRules)
    inside: bool = False
    spare: Any = None

    def _batch(self, values: Sequence[Any], walk: _Walk) -> Replaced:
        walk.rule = "replace_none"
        good = [i for i, value in enumerate(values) if not (_holds_none(value) if self.inside else value is None)]
        if not good and self.spare is None:
            found = f"none of {len(values)} samples is good"
            raise _Offence(ValueError, None, found, None, "use replace_none(spare=a_sample) or skip_none")
        nexts = [good[bisect.bisect_left(good, i) % len(good)] for i in range(len(values))] if good else []
        try:
            batch = _run(self.then, [values[i] for i in nexts] or [self.spare] * len(values), walk)
        except _Offence as offence:
            if offence.sample is not None and good:
                offence.sample = nexts[offence.sample]
            raise
        borrowed = len(values) - len(good)
        walk.rule = f"replace_none, then {walk.rule}"
        walk.note = f"{borrowed} of {len(values)} samples replaced" if borrowed else walk.note
        mask = torch.zeros(len(values), dtype=torch.bool)
        mask[good] = True
        return Replaced(batch, mask)

    def _back(self, batch: Any, like: Any, path: str) -> Any:
        if not isinstance(batch, Replaced):
            raise _not_made(batch, "replace_none", path)
        samples = _back(self.then, batch.batch, like, path)
        if isinstance(samples, _Every):
            samples = [samples.value] * len(batch.mask)
        return [sample if own else None for sample, own in zip(samples, batch.mask.tolist(), strict=True)]

    def _name(self) -> str:
        return "replace_none"

    def __repr__(self) -> str:
        spare = "" if self.spare is None else ", spare=..."
        return f"replace_none(then={_named(self.then)}{', inside=True' if self.inside else ''}{spare})"


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
jagged = Jagged()
flat = Flat()
packed = Packed()
listed = Listed()
keep = Keep()
skip_none = SkipNone()
replace_none = ReplaceNone()


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
# Back to samples


def uncollate(batch: Any, rule: Callable[[list[Any]], Any] = strict, *, like: Any = None) -> list[Any]:
    """The list of samples of which `rule` made this batch: `uncollate(rule(samples), rule, like=samples[0]) == samples`.

    `rule` is a rule of this module, or torch's default_collate. `like`, one of the samples, tells what a batch does not
    keep. Without it the nearest kin comes back: a tuple as a list, an array as a tensor; a 0-dimensional tensor whose dtype
    Python numbers have as a number. What no batch keeps stays lost: the own dtype of each sample where they were mixed,
    which samples `skip_none` left out (the others come back; `replace_none` gives each None back), lengths that were padded
    without a mask. Tensors may be views of the batch.

    Errors: ValueError for a batch that does not tell its samples, TypeError for one that the rule does not make or a rule
    that is not of this module; each names the place.

    >>> samples = [{"ink": torch.ones(2), "label": 3}, {"ink": torch.ones(1), "label": 4}]
    >>> rule = fields({"ink": flat})
    >>> uncollate(rule(samples), rule)
    [{'ink': tensor([1., 1.]), 'label': 3}, {'ink': tensor([1.]), 'label': 4}]
    """
    samples = _back(rule, batch, _UNSEEN if like is None else like, "")
    if isinstance(samples, _Every):
        raise ValueError(f"batch: {_text(batch)} holds no values: how many samples it was made of cannot be known")
    return samples


_UNSEEN: Any = object()  # no sample was given, or none reaches this place


class _Every:
    """What each sample has at a place without values, as an empty list; it does not tell how many samples there are."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _maker(batch: Any) -> Rule | None:
    """The rule that made this batch, where the batch itself tells."""
    if isinstance(batch, Tensor):
        return jagged if batch.is_nested else None
    return next((rule for kind, rule in _MAKERS.items() if isinstance(batch, kind)), None)


_MAKERS: dict[type, Rule] = {
    Padded: Pad(mask=True),
    Flattened: flat,
    PackedSequence: packed,
    Untouched: keep,
    Kept: skip_none,
    Replaced: replace_none,
}


def _back(rule: Callable[[list[Any]], Any], batch: Any, like: Any, path: str) -> Any:
    if rule is default_collate:
        rule = strict
    if rule in (list, tuple):
        rule = listed
    if not isinstance(rule, Rule):
        raise TypeError(f"batch{path}: made by {_named(rule)}, which has no way back: use a rule of tutorlib.collate")
    return rule._back(batch, like, path)


def _needs_like(what: str, path: str) -> ValueError:
    return ValueError(f"batch{path}: {what}: give uncollate(batch, rule, like=one_of_the_samples)")


def _not_made(batch: Any, rule: str, path: str) -> TypeError:
    return TypeError(f"batch{path}: {_text(batch)} is nothing that {rule} makes: name the rule that made the batch")


def _places_back(batch: Any, kind: _Container, like: Any, rule_for: Callable[[Any], Any], path: str) -> Any:
    """The samples of a container of batches, place by place."""
    model = batch if like is _UNSEEN else like
    steps, there = _steps(model, kind), _kind(type(batch), {})
    if not isinstance(there, _Container) or there.style != kind.style or len(_steps(batch, kind)) != len(steps):
        raise TypeError(f"batch{path}: {_text(batch)} was not made of samples like {_text(like)}")
    columns = [
        _back(rule_for(step), _at(batch, kind, step), like if like is _UNSEEN else _at(like, kind, step), inner)
        for step, inner in ((step, path + _step_text(kind, step)) for step in steps)
    ]
    sizes = list(dict.fromkeys(len(column) for column in columns if not isinstance(column, _Every)))
    if len(sizes) > 1:
        raise ValueError(f"batch{path}: its places hold {' and '.join(map(str, sizes))} samples: this is no batch")

    def sample(values: list[Any]) -> Any:
        return tuple(values) if type(model) is tuple else _rebuilt(model, kind, steps, values)

    if not sizes:
        return _Every(sample([column.value for column in columns]))
    return [sample([c.value if isinstance(c, _Every) else c[i] for c in columns]) for i in range(sizes[0])]


_PYTHON_DTYPES = (torch.int64, torch.float64, torch.bool, torch.complex128)


def _leaf_back(batch: Any, like: Any, path: str) -> list[Any]:
    if not isinstance(batch, Tensor):
        if isinstance(batch, (list, tuple)) and _all_text(batch):
            return list(batch)
        raise _not_made(batch, "strict", path)
    if batch.ndim == 0:
        raise ValueError(f"batch{path}: a number is no batch: found {_text(batch)}")
    if isinstance(like, np.ndarray):
        return [np.asarray(row.numpy(force=True)) for row in batch.unbind()]
    if isinstance(like, np.generic):
        return [type(like)(value) for value in batch.tolist()]
    if isinstance(like, (bool, int, float, complex)):
        return [made if (made := type(like)(value)) == value else value for value in batch.tolist()]  # 2.5 is no int
    if like is _UNSEEN and batch.ndim == 1 and batch.dtype in _PYTHON_DTYPES:
        return list(batch.tolist())
    return list(batch.unbind())


def _as_like(tensors: list[Tensor], like: Any) -> list[Any]:
    """Tensors as what they were before a rule for lengths made them: arrays, lists or tuples of numbers, or tensors."""
    if isinstance(like, np.ndarray):
        return [tensor.numpy(force=True) for tensor in tensors]
    if isinstance(like, (list, tuple)):
        return [type(like)(tensor.tolist()) for tensor in tensors]
    return tensors


def _all_text(values: Any) -> bool:
    return all(isinstance(value, (str, bytes)) for value in values)


# ---------------------------------------------------------------------------------------------------------------
# Bad samples, counted


@dataclass(frozen=True, repr=False)
class BadSamples(Facts):
    """How many samples of each batch were good, skipped and replaced: made with `bad_samples`."""

    batches: tuple[dict[str, int], ...]

    def _total(self, name: str) -> int:
        return sum(row[name] for row in self.batches)

    @property
    def read(self) -> int:
        """How many samples were read."""
        return self._total("read")

    @property
    def good(self) -> int:
        """How many of them were good."""
        return self._total("good")

    @property
    def skipped(self) -> int:
        """How many were left out by `skip_none`."""
        return self._total("skipped")

    @property
    def replaced(self) -> int:
        """How many were replaced by `replace_none`."""
        return self._total("replaced")

    def summary(self) -> str:
        samples = f"{self.read} {'sample' if self.read == 1 else 'samples'}"
        batches = f"{len(self.batches)} {'batch' if len(self.batches) == 1 else 'batches'}"
        return f"{samples} read in {batches}: {self.good} good, {self.skipped} skipped, {self.replaced} replaced"

    def rows(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = [{"batch": number, **row} for number, row in enumerate(self.batches)]
        if len(rows) <= _ROWS_SHOWN:
            return rows
        gap: dict[str, object] = dict.fromkeys(rows[0], "...")
        gap["read"] = f"({len(rows) - _ROWS_SHOWN + 1} more)"
        return [*rows[: _ROWS_SHOWN - 2], gap, rows[-1]]


_ROWS_SHOWN = 40


def bad_samples(batches: Iterable[Any]) -> BadSamples:
    """How many samples were skipped and replaced in these batches: of a loader (one pass over it) or a list.

    The counts travel in the batches, so they are exact for any number of workers. Errors: TypeError for a batch that
    neither skip_none nor replace_none made.

    >>> bad_samples([skip_none([1, None, 3]), replace_none([None, 5])])
    5 samples read in 2 batches: 3 good, 1 skipped, 1 replaced
    batch  read  good  skipped  replaced
        0     3     2        1         0
        1     2     1        0         1
    """
    rows = []
    for number, batch in enumerate(batches):
        if isinstance(batch, Kept):
            read, good, skipped = batch.kept + batch.skipped, batch.kept, batch.skipped
        elif isinstance(batch, Replaced):
            read, good, skipped = len(batch.mask), int(batch.mask.sum()), 0
        else:
            raise TypeError(
                f"batch {number} is a {type(batch).__name__}, which does not tell its bad samples: "
                "use collate_fn=skip_none(then=...) or replace_none(then=...)"
            )
        rows.append({"read": read, "good": good, "skipped": skipped, "replaced": read - good - skipped})
    return BadSamples(tuple(rows))


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
    if isinstance(value, Replaced):
        return f"Replaced {int((~value.mask).sum())} of {len(value.mask)}"
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
