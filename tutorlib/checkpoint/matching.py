"""From a state to a model: planned by names, then applied, all of it or nothing."""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from tutorlib.checkpoint.base import (
    CheckpointError,
    an,
    counted,
    described,
    listed,
    memory_of,
    numel,
    same,
    shape_of,
)
from tutorlib.facts import Facts

Rule = Mapping[Any, str | None] | Callable[[str], str | None]
Rename = Rule | Sequence[Rule] | None

_EXTRA = "_extra_state"  # the last part of a name under which torch keeps what get_extra_state returned
_REASON = 400  # characters of what a module says when it refuses
_NAMES = 4  # names shown of each side in an error
_RULES = 4  # renamings that a suggestion combines, each of which
_WORTH = 20  # mends at least one in so many of the values that do not fit
_ALIKE = 8  # names, and renamings, that are tried at a time


# --- Names: rules, and what becomes of a state's names --------------------------------------------------------------------


class _Names(NamedTuple):
    """A state under new names: `origin` says where each name comes from, `collisions` which names became the same one."""

    state: OrderedDict[str, Any]
    origin: dict[str, str]
    collisions: dict[str, tuple[str, ...]]
    dropped: tuple[str, ...]
    idle: tuple[str, ...]


def without_prefix(state: Mapping[str, Any], prefix: str) -> OrderedDict[str, Any]:
    """The state with `prefix` taken off every name that has it; `_metadata` travels along, and `state` stays as it is.

    `prefix` is the name of a part, with or without its dot: `"module."` of DataParallel and DistributedDataParallel,
    `"_orig_mod."` of a compiled model. Torch's `consume_prefix_in_state_dict_if_present` does the same in place. Raises
    `CheckpointError` when two names would become one. Claims: DP-01, DP-03.

    >>> wrapped = torch.nn.DataParallel(torch.nn.Linear(2, 2)).state_dict()
    >>> list(wrapped), list(without_prefix(wrapped, "module."))
    (['module.weight', 'module.bias'], ['weight', 'bias'])
    """
    return _one_to_one(state, {_prefix(prefix): ""}, f"without the prefix {prefix!r}")


def with_prefix(state: Mapping[str, Any], prefix: str) -> OrderedDict[str, Any]:
    """The state with `prefix` put before every name, the inverse of `without_prefix`: for a wrapped or compiled model.

    >>> list(with_prefix(torch.nn.Linear(2, 2).state_dict(), "module."))
    ['module.weight', 'module.bias']
    """
    return _one_to_one(state, {"": _prefix(prefix)}, f"with the prefix {prefix!r}")


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix.strip("."):
        raise ValueError(f"prefix={prefix!r}: expected the name of a part, such as 'module.'")
    return prefix


def _one_to_one(state: Mapping[str, Any], rule: Rule, when: str) -> OrderedDict[str, Any]:
    names = _renamed(_checked(state), rule)
    if names.collisions:
        raise CheckpointError(f"{when} {listed(_collided(names.collisions))}")
    return names.state


def _collided(collisions: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{' and '.join(old)} would both be {new}" for new, old in collisions.items()]


def _renamed(state: Mapping[str, Any], rename: Rename) -> _Names:
    """Every name through the rules, in the order in which they are stated."""
    rules = _rules(rename)
    used: set[int] = set()
    origins: dict[str, list[str]] = {}
    dropped = []
    for name in state:
        new: str | None = name
        for rule in rules:
            new = rule(name if new is None else new, used)
            if new is None:
                dropped.append(name)
                break
        else:
            origins.setdefault(str(new), []).append(name)
    collisions = {new: tuple(old) for new, old in origins.items() if len(old) > 1}
    origin = {new: old[0] for new, old in origins.items() if len(old) == 1}
    result = OrderedDict((new, state[old]) for new, old in origin.items())
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        result._metadata = _metadata(metadata, origin)  # type: ignore[attr-defined]
    idle = tuple(rule.said(i) for rule in rules for i in rule.numbers if i not in used)
    return _Names(result, origin, collisions, tuple(dropped), idle)


class _Rules:
    """One mapping or function of names; the first entry of a mapping that fits a name is the one that counts."""

    def __init__(self, rule: Rule, first: int) -> None:
        self._function = None if isinstance(rule, Mapping) else rule
        self._entries = list(rule.items()) if isinstance(rule, Mapping) else []
        self.numbers = range(first, first + len(self._entries))
        for old, new in self._entries:
            pattern = isinstance(old, re.Pattern) and isinstance(old.pattern, str)
            if not (isinstance(old, str) or pattern) or not (new is None or isinstance(new, str)):
                raise TypeError(
                    f"rename={{{old!r}: {new!r}}}: expected a name or a re.compile(...) of names, and the new name; "
                    "None leaves it out"
                )

    def said(self, number: int) -> str:
        old, new = self._entries[number - self.numbers.start]
        return f"{getattr(old, 'pattern', old)!r}: {new!r}"

    def __call__(self, name: str, used: set[int]) -> str | None:
        if self._function is not None:
            new = self._function(name)
            if not (new is None or isinstance(new, str)):
                raise TypeError(f"rename gave {an(new)} for {name!r}, expected a name, or None to leave it out")
            return _not_empty(name, new)
        for number, (old, new) in zip(self.numbers, self._entries, strict=True):
            fits, found = _by_pattern(name, old, new) if isinstance(old, re.Pattern) else _by_name(name, old, new)
            if fits:
                used.add(number)
                return _not_empty(name, found)
        return name


def _by_name(name: str, old: str, new: str | None) -> tuple[bool, str | None]:
    """A rule fits whole parts of a name: `fc` fits `fc` and `fc.weight`, never `fc2.weight`."""
    old = old.rstrip(".")
    rest = name if not old else name[len(old) + 1 :] if name.startswith(f"{old}.") else None
    if rest is None:
        return name == old and new != "", new
    return True, None if new is None else ".".join(filter(None, (new.rstrip("."), rest)))


def _by_pattern(name: str, old: re.Pattern[str], new: str | None) -> tuple[bool, str | None]:
    if not old.search(name):
        return False, None
    try:
        return True, None if new is None else old.sub(new, name)
    except (re.error, IndexError) as error:
        raise ValueError(f"rename={{re.compile({old.pattern!r}): {new!r}}}: {error}") from None


def _not_empty(name: str, new: str | None) -> str | None:
    if new == "":
        raise ValueError(f"rename leaves nothing of {name!r}: None leaves a name out")
    return new


def _rules(rename: Rename) -> list[_Rules]:
    given: Iterable[Rule] = () if rename is None else rename if isinstance(rename, (list, tuple)) else (rename,)  # type: ignore[assignment]
    rules: list[_Rules] = []
    for rule in given:
        if not isinstance(rule, Mapping) and not callable(rule):
            raise TypeError(f"rename={rule!r}: expected a mapping of names, a function of a name, or a list of these")
        rules.append(_Rules(rule, rules[-1].numbers.stop if rules else 0))
    return rules


def _metadata(metadata: Mapping[str, Any], origin: Mapping[str, str]) -> OrderedDict[str, Any]:
    """The versions of modules under the new names: two names that end alike come from the same modules."""
    source: dict[str, str] = {}
    for new, old in origin.items():
        ours, theirs = new.split(".")[:-1], old.split(".")[:-1]
        while True:
            source.setdefault(".".join(ours), ".".join(theirs))
            if not ours or not theirs or ours.pop() != theirs.pop():
                break
    target = {old: new for new, old in reversed(source.items())}
    if "" not in target:
        source.setdefault("", "")
    for path in metadata:  # a module without tensors goes where the modules around it go
        above = path
        while above and above not in target:
            above = above.rpartition(".")[0]
        if above != path and above in target:
            source.setdefault(_joined(target[above], path[len(above) :].lstrip(".")), path)
    moved = OrderedDict((new, dict(metadata[old])) for new, old in source.items() if old in metadata)
    for path in list(moved):  # a wrapper that the state did not have, as torch writes it
        while path:
            path = path.rpartition(".")[0]
            moved.setdefault(path, {"version": 1})
    return moved


def _joined(*parts: str) -> str:
    return ".".join(filter(None, parts))


# --- The report -----------------------------------------------------------------------------------------------------------

_OUTCOMES = ("collisions", "ambiguous", "shape", "dtype", "missing", "unexpected", "tied", "filled")
_WORDS = {"collisions": "collision"}


@dataclass(frozen=True, repr=False)
class LoadReport(Facts):
    """What a state does to a model, by name: torch's words, and some more. One row for each name that is not simply loaded.

    `loaded` fit exactly. `missing` are in the model only, `unexpected` in the state only; `shape` and `dtype` are in both
    but differ (torch refuses the first and converts the second without a word). `tied` are absent from the state but share
    their memory with a loaded name; `filled` are absent too, and made by a module that reads older files. `collisions` are
    names that the rules give to several; `ambiguous` are two names of one memory with different values in the state.
    `renamed` holds the name in the state for each name that the rules changed, `dropped` what they leave out, `idle` the
    rules that fit no name. `share` is the part of the model's values that is loaded, from 0 to 1. `fix` is a rule for
    `rename` that would make more of them fit, or None, and `fixed` the share then. `applied` says that it was done.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shape: tuple[str, ...]
    dtype: tuple[str, ...]
    tied: tuple[str, ...]
    share: float
    inside: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    collisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ambiguous: Mapping[str, str] = field(default_factory=dict)
    filled: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    fix: Mapping[str, str] | None = None
    fixed: float = 0.0
    applied: bool = False

    @property
    def complete(self) -> bool:
        """Whether every name of both sides fits exactly, so that the model becomes bit-equal to what was saved."""
        return not (self.missing or self.unexpected or self.shape or self.dtype or self.collisions or self.ambiguous)

    @property
    def suggestion(self) -> str | None:
        """The renaming that would help, in words."""
        if self.fix is None:
            return None
        (old, new), *more = self.fix.items()
        if more:
            return f"{_percent(self.fixed)} would fit with rename={dict(self.fix)!r}"
        how = f"{old + '.'!r} were removed" if not new else f"{new + '.'!r} were added"
        if old and new:
            how = f"{old + '.'!r} were replaced by {new + '.'!r}"
        return f"{_percent(self.fixed)} would fit if the prefix {how}"

    def summary(self) -> str:
        fit = len(self.loaded) + len(self.dtype) - len(self._lossy())
        text = f"{fit} of {len(self.inside)} tensors {'loaded' if self.applied else 'fit'} ({_percent(self.share)} of the values)"
        if fit > len(self.loaded):
            text += f", {fit - len(self.loaded)} of them converted"
        if self.renamed:
            text += f", {len(self.renamed)} renamed"
        texts = [text, *(f"the rule {rule} fits no name" for rule in self.idle), *filter(None, [self.suggestion])]
        return "; ".join(texts)

    def rows(self) -> list[dict[str, object]]:
        heads = Counter(_heads(old, new) for new, old in self.renamed.items())
        rows: list[dict[str, object]] = []

        def row(key: str, outcome: str, here: str | None, there: str | None) -> None:
            rows.append({"key": key, "outcome": outcome, "in the model": here, "in the state": there})

        for (old, new), number in heads.items():
            row(_joined(new, "*"), "renamed", counted(number, "tensor"), _joined(old, "*"))
        for outcome in _OUTCOMES:
            for key in getattr(self, outcome):
                row(key, _WORDS.get(outcome, outcome), self.inside.get(key), self._in_the_state(key, outcome))
        for key, there in self.dropped.items():
            row(key, "left out", None, there)
        return rows

    def _in_the_state(self, key: str, outcome: str) -> str | None:
        if outcome == "collisions":
            return " and ".join(self.collisions[key])
        if outcome == "ambiguous":
            return f"other values than {self.ambiguous[key]}"
        if key in self.renamed and key in self.stored:
            return f"{self.stored[key]} as {self.renamed[key]}"
        return self.stored.get(key)

    def _lossy(self) -> list[str]:
        """Names whose values the model's dtype cannot hold: fractions in whole numbers, for one."""
        return [key for key in self.dtype if not _castable(self.stored[key], self.inside[key])]

    def problems(self) -> list[str]:
        """What keeps the model from becoming what was saved: one text each, none when `complete`."""
        texts = [f"{key} is missing ({self.inside[key]})" for key in self.missing]
        texts += [f"{key} is unexpected ({self.stored[key]})" for key in self.unexpected]
        texts += [f"{key} is {self.stored[key]} in the file, {self.inside[key]} here" for key in (*self.shape, *self.dtype)]
        return self.conflicts() + texts

    def conflicts(self) -> list[str]:
        """Where two names of the state want the same place of the model: both are named."""
        texts = _collided(self.collisions)
        texts += [f"{a} and {b} are one tensor here, with different values in the state" for b, a in self.ambiguous.items()]
        return texts

    heads = ("name", "in the state", "outcome", "in the model")

    def tree(self) -> list[dict[str, object]]:
        """The key map for `pictures.tree`: each name of the model, where it comes from, and what happens to it."""
        outcome = {key: word for word in reversed(("loaded", *_OUTCOMES)) for key in getattr(self, word)}
        lines: list[dict[str, object]] = []
        shown: set[str] = set()
        for key in dict.fromkeys([*self.inside, *outcome]):
            word = outcome[key]
            before, rule = self._in_the_state(key, word), _WORDS.get(word, word)
            if key in self.renamed and word not in ("collisions", "ambiguous"):
                before, rule = f"{self.renamed[key]} {self.stored[key]}", "renamed" if word == "loaded" else rule
            surprise = word not in ("loaded", "tied", "filled")
            lines += _branch(key, shown, before, rule, self.inside.get(key), surprise)
        for key, there in self.dropped.items():
            lines += _branch(key, shown, there, "left out", None, False)
        return lines


def _branch(
    key: str, shown: set[str], before: str | None, rule: str, after: str | None, surprise: bool
) -> list[dict[str, object]]:
    """The lines of the modules around a name that are not shown yet, and its own."""
    *modules, last = key.split(".")
    lines: list[dict[str, object]] = []
    for depth, name in enumerate(modules):
        path = ".".join(modules[: depth + 1])
        if path not in shown:
            shown.add(path)
            lines.append({"depth": depth, "path": name, "before": "", "rule": "", "after": "", "surprise": False})
    own = {"depth": len(modules), "path": last, "before": before or "", "rule": rule, "after": after or "", "surprise": surprise}
    return [*lines, own]


def _percent(share: float) -> str:
    """Never 100 % of less than all, nor 0 % of more than nothing."""
    if share in (0, 1) or 0.005 <= share < 0.995:
        return f"{share:.0%}"
    return "over 99%" if share > 0.5 else "under 1%"


def _heads(old: str, new: str) -> tuple[str, str]:
    """The beginnings in which two names differ; both end alike."""
    theirs, ours = old.split("."), new.split(".")
    while theirs and ours and theirs[-1] == ours[-1]:
        theirs.pop()
        ours.pop()
    return ".".join(theirs), ".".join(ours)


def _castable(stored: str, inside: str) -> bool:
    there, here = (getattr(torch, text.split(" ")[0], None) for text in (stored, inside))
    return isinstance(there, torch.dtype) and isinstance(here, torch.dtype) and torch.can_cast(there, here)


# --- The plan -------------------------------------------------------------------------------------------------------------


def compare(model: torch.nn.Module, state: Mapping[str, Any], *, prefix: str = "", rename: Rename = None) -> LoadReport:
    """Say what loading `state` into `model` would do, without changing either; `warm_start` does it.

    `state` is a state_dict, or a dictionary that holds one as `model`, `model_state_dict` or `state_dict`. `prefix` is
    taken off the names that have it. `rename` maps names: `{"encoder": "backbone"}` moves a part with all that is under it,
    `{"": "module"}` puts a prefix before every name, `{"head": None}` leaves a part out, a key made by `re.compile` replaces
    wherever it fits, and the first entry that fits a name counts; a function of a name gives the new one; a list applies one
    after the other. Modules that read older files have their say, as when torch loads.

    Raises `TypeError` for a model, state or rule of another kind, and `CheckpointError` when two dictionaries of the state
    could be meant. Claims: SL-03, SL-06, CK-05, WS-02.

    >>> small, wrapped = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    >>> compare(small, wrapped.state_dict())
    0 of 2 tensors fit (0% of the values); 100% would fit if the prefix '0.' were removed
    key       outcome     in the model    in the state
    weight    missing     float32 (2, 3)  -
    bias      missing     float32 (2,)    -
    0.weight  unexpected  -               float32 (2, 3)
    0.bias    unexpected  -               float32 (2,)
    >>> compare(small, wrapped.state_dict(), prefix="0.")
    2 of 2 tensors fit (100% of the values), 2 renamed
    key  outcome  in the model  in the state
    *    renamed  2 tensors     0.*
    """
    return _planned(model, state, prefix, rename, "compare")[0]


def _planned(
    model: torch.nn.Module, state: Mapping[str, Any], prefix: str, rename: Rename, verb: str
) -> tuple[LoadReport, OrderedDict[str, Any]]:
    """The report, and the state under the model's names."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{verb} needs a model and a state, the first argument is {an(model)}")
    if not isinstance(state, Mapping):
        raise TypeError(f"{verb} needs a state_dict, found {an(state)}: {verb}(model, load(path))")
    rules: list[Rule] = [{_prefix(prefix): ""}] if prefix else []
    rules += [] if rename is None else rename if isinstance(rename, (list, tuple)) else [rename]  # type: ignore[list-item]
    weights = _checked(_weights(state))
    ours, names = model.state_dict(), _renamed(weights, rules)
    report = _matched(ours, _as_read(model, names.state), names, weights)
    fix = _fix(ours, names.state) if report.missing and report.unexpected else None
    if fix is not None:
        again = _renamed(names.state, fix)
        fixed = _matched(ours, _as_read(model, again.state), again, names.state).share
        report = replace(report, fix=fix, fixed=fixed) if fixed > report.share else report
    return report, names.state


def _weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state_dict itself, wherever the common conventions put it."""
    if any(isinstance(value, torch.Tensor) for value in state.values()):
        return state
    found = [name for name in ("model", "model_state_dict", "state_dict") if isinstance(state.get(name), Mapping)]
    if len(found) > 1:
        raise CheckpointError(f"the state holds {' and '.join(found)}: say which is meant, such as state[{found[0]!r}]")
    return state[found[0]] if found else state


def _checked(state: Mapping[Any, Any]) -> Mapping[str, Any]:
    other = [name for name in state if not isinstance(name, str)]
    if other:
        raise TypeError(f"a state_dict has names, found {an(other[0])} among them: {other[0]!r}")
    return state


class _Read(NamedTuple):
    """A state as the modules read it: `moved` says which names they changed, `filled` which they made."""

    state: dict[str, Any]
    moved: dict[str, str]
    filled: tuple[str, ...]


def _as_read(model: torch.nn.Module, state: OrderedDict[str, Any]) -> _Read:
    """The state as modules that read older files see it; neither side is touched.

    Such a module (batch norm is one) changes the names in its own way while it loads, by its version. A twin of it does
    so here: the same class and attributes, with parameters that have no memory, so that nothing is loaded.
    """
    metadata = getattr(state, "_metadata", None) or {}
    seen, moved = dict(state), dict[str, str]()
    under = _by_module(seen, {})
    for path, module in model.named_modules(remove_duplicate=False):
        if not _reads_older(module):
            continue
        start = f"{path}." if path else ""
        before = {name: seen[name] for name in under.get(path, ()) if name in seen and name != start + _EXTRA}
        after = OrderedDict(before)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # torch says that nothing is loaded into the twin, as it should be
                _twin(module)._load_from_state_dict(after, start, dict(metadata.get(path, {})), True, [], [], [])
        except Exception:  # what it refuses it refuses again when it is loaded, and then everything is taken back
            continue
        gone = {id(seen.pop(name)): moved.pop(name, name) for name in before if name not in after}
        for name, value in after.items():
            if name not in before and id(value) in gone:
                moved[name] = gone[id(value)]
            if name not in before or before[name] is not value:
                seen[name] = value
        _by_module([name for name in after if name not in before], under)
    return _Read(seen, moved, tuple(name for name in seen if name not in state and name not in moved))


def _by_module(names: Iterable[str], under: dict[str, list[str]]) -> dict[str, list[str]]:
    """The names under each module, the whole model's under an empty path, added to `under`."""
    for name in names:
        path = name
        while path:
            path = path.rpartition(".")[0]
            under.setdefault(path, []).append(name)
    return under


def _reads_older(module: torch.nn.Module) -> bool:
    own = type(module)._load_from_state_dict is not torch.nn.Module._load_from_state_dict
    hooks = bool(module._load_state_dict_pre_hooks)
    lazy = any(map(torch.nn.parameter.is_lazy, (*module._parameters.values(), *module._buffers.values())))  # type: ignore[arg-type]
    patched = "_load_from_state_dict" in vars(module) or isinstance(module, torch.jit.ScriptModule)
    return (own or hooks) and not lazy and not patched


def _twin(module: torch.nn.Module) -> torch.nn.Module:
    twin = object.__new__(type(module))
    for name, value in vars(module).items():
        vars(twin)[name] = copy.copy(value) if isinstance(value, (dict, list, set)) else value
    vars(twin)["_parameters"] = {
        name: p if p is None else torch.nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for name, p in module._parameters.items()
    }
    vars(twin)["_buffers"] = {name: b if b is None else torch.empty_like(b, device="meta") for name, b in module._buffers.items()}
    return twin


def _matched(ours: Mapping[str, Any], read: _Read, names: _Names, weights: Mapping[str, Any]) -> LoadReport:
    theirs, moved, filled = read
    clashing = names.collisions
    origin = {key: names.origin[moved.get(key, key)] for key in theirs if key not in filled}
    both = [key for key in ours if key in theirs and key not in clashing]
    ambiguous = _ambiguous({key: ours[key] for key in both}, theirs)
    shape = [key for key in both if not _fits(ours[key], theirs[key])]
    other = {*shape, *ambiguous}
    dtype = [key for key in both if key not in other and _dtype(ours[key]) not in (None, _dtype(theirs[key]))]
    other |= {*dtype, *filled}
    loaded = [key for key in both if key not in other]
    missing = [key for key in ours if key not in theirs and key not in clashing]
    present = {memory_of(ours[key]) for key in (*loaded, *dtype)} - {None}
    tied = dict.fromkeys(key for key in missing if memory_of(ours[key]) in present)
    inside = {key: _described(value) for key, value in ours.items()}
    stored = {key: _described(theirs[key]) for key in origin}
    sizes = {key: numel(theirs.get(key) if torch.nn.parameter.is_lazy(ours[key]) else ours[key]) for key in ours}
    fitting = [*loaded, *tied, *(key for key in dtype if _castable(stored[key], inside[key]))]
    total = sum(sizes.values())
    return LoadReport(
        loaded=tuple(loaded),
        missing=tuple(key for key in missing if key not in tied),
        unexpected=tuple(key for key in theirs if key not in ours),
        shape=tuple(shape),
        dtype=tuple(dtype),
        tied=tuple(tied),
        share=sum(sizes[key] for key in fitting) / total if total else float(len(fitting) == len(ours)),
        inside=inside,
        stored=stored,
        renamed={new: old for new, old in origin.items() if new != old},
        collisions=clashing,
        ambiguous=ambiguous,
        filled=tuple(key for key in filled if key in ours),
        dropped={name: _described(weights[name]) for name in names.dropped},
        idle=names.idle,
    )


def _ambiguous(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Names that share their memory in the model, and have different values in the state: one would be lost."""
    first: dict[object, str] = {}
    found = {}
    for key, value in ours.items():
        memory = memory_of(value)
        other = key if memory is None else first.setdefault(memory, key)
        if other != key and theirs[other] is not theirs[key] and not same(theirs[other], theirs[key]):
            found[key] = other
    return found


def _fits(here: Any, there: Any) -> bool:
    """Whether torch takes this value for this entry, up to the dtype."""
    if not isinstance(here, torch.Tensor):
        return True  # what get_extra_state returned: any value
    if not isinstance(there, torch.Tensor):
        return False
    if torch.nn.parameter.is_lazy(here):
        return True
    return shape_of(here) == shape_of(there) or (shape_of(here) == () and shape_of(there) == (1,))


def _dtype(value: Any) -> torch.dtype | None:
    return value.dtype if isinstance(value, torch.Tensor) else None


def _described(value: Any) -> str:
    lazy = torch.nn.parameter.is_lazy(value)
    return f"{str(value.dtype).removeprefix('torch.')} of any shape" if lazy else described(value)


def _fix(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str] | None:
    """The few renamings that make more of the values fit, the longest name first, so that each finds its own."""
    fix: dict[str, str] = {}
    best = _reached(ours, theirs, fix)
    worth = (sum(numel(value) + 1 for value in ours.values()) - best) / _WORTH
    for _ in range(_RULES):
        trials = [
            dict(sorted({**fix, old: new}.items(), key=lambda rule: (-len(rule[0]), rule[0])))
            for old, new in _candidates(ours, theirs, fix)
            if old not in fix
        ]
        reached = [_reached(ours, theirs, trial) for trial in trials]
        if not trials or max(reached) - best < worth:
            break
        best = max(reached)
        fix = trials[reached.index(best)]
    return fix or None


def _candidates(ours: Mapping[str, Any], theirs: Mapping[str, Any], fix: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of beginnings that would bring unmatched names together: the most values first, a whole prefix before a swap.

    Each name of the state meets the names of the model that end most like it.
    """
    state = _renamed(theirs, fix).origin
    ending: dict[str, list[str]] = {}
    for key in ours:
        if key not in state:
            for end in _ends(key):
                ending.setdefault(end, []).append(key)
    gains: Counter[tuple[str, str]] = Counter()
    tensors: Counter[tuple[str, str]] = Counter()
    for new, old in state.items():
        if new not in ours:
            alike = next((ending[end] for end in _ends(old) if end in ending), [])
            for key in alike[:_ALIKE]:
                if _fits(ours[key], theirs[old]):
                    heads = _heads(old, key)
                    gains[heads] += numel(theirs[old]) + 1
                    tensors[heads] += 1
    usable = [heads for heads in gains if not all(heads) or tensors[heads] > 1]
    return sorted(usable, key=lambda heads: (-gains[heads], all(heads), heads))[:_ALIKE]


def _ends(name: str) -> Iterator[str]:
    """The endings of a name, the longest first: a.b.weight, b.weight, weight."""
    while name:
        yield name
        name = name.partition(".")[2]


def _reached(ours: Mapping[str, Any], theirs: Mapping[str, Any], fix: Mapping[str, str]) -> int:
    pairs = _renamed(theirs, fix).origin.items()
    return sum(numel(theirs[old]) + 1 for new, old in pairs if new in ours and _fits(ours[new], theirs[old]))


# --- Applied --------------------------------------------------------------------------------------------------------------


def warm_start(
    model: torch.nn.Module, state: Mapping[str, Any], *, prefix: str = "", rename: Rename = None, strict: bool = False
) -> LoadReport:
    """Load what fits of another model's state: planned as `compare` says, then applied, all of it or nothing.

    A part that is only in the model keeps its values, one that is only in the state is left where it is; with `strict` both
    are errors, as is a rule that fits no name. Values are converted to the model's dtype if it can hold them. Whatever goes wrong
    on the way, in a module's own code or by an interrupt, each byte of the model is what it was.

    Raises `TypeError` as `compare`, and `CheckpointError` with every problem: nothing fits at all, another shape (torch
    raises as well, whatever `strict` says: leave the part out), a dtype that cannot hold the values, two names for one
    place, a model without memory, a module that refuses. Claims: WS-02, WS-03, WS-04.

    >>> old = torch.nn.ModuleDict({"body": torch.nn.Linear(4, 3), "head": torch.nn.Linear(3, 10)})
    >>> new = torch.nn.ModuleDict({"body": torch.nn.Linear(4, 3), "head": torch.nn.Linear(3, 2)})
    >>> warm_start(new, old.state_dict(), rename={"head": None})
    2 of 4 tensors loaded (65% of the values)
    key          outcome   in the model    in the state
    head.weight  missing   float32 (2, 3)  -
    head.bias    missing   float32 (2,)    -
    head.weight  left out  -               float32 (10, 3)
    head.bias    left out  -               float32 (10,)
    >>> torch.equal(new["body"].weight, old["body"].weight)
    True
    """
    report, weights = _planned(model, state, prefix, rename, "warm_start")
    problems = _obstacles(report, model, weights, strict)
    if problems:
        hint = f" ({report.suggestion})" if report.suggestion else ""
        raise CheckpointError(f"cannot load into {type(model).__name__}: {listed(problems)}{hint}; nothing was changed")
    with all_or_nothing(model):
        try:
            outcome = model.load_state_dict(_apart(weights, model), strict=False)
        except Exception as error:
            reason = " ".join(str(error).split())[:_REASON]
            raise CheckpointError(
                f"cannot load into {type(model).__name__}: {type(error).__name__}: {reason}; nothing was changed"
            ) from error
        left = sorted({*outcome.missing_keys} - {*report.missing, *report.tied} - {*report.collisions})
        if left:
            raise CheckpointError(f"{type(model).__name__} did not take {listed(left)}; nothing was changed")
    return replace(report, applied=True)


def _obstacles(report: LoadReport, model: torch.nn.Module, weights: Mapping[str, Any], strict: bool) -> list[str]:
    problems = report.conflicts()
    for key in report.shape:
        part = key.rpartition(".")[0] or key
        there = report.renamed.get(key, key)
        as_there, out = "", f"leave it out with rename={{{part!r}: None}}"
        if there != key:  # a rule sees the names as the rules before it have made them
            as_there, out = f" as {there}", f"leave it out with the rule {{{part!r}: None}} after the others"
        problems.append(f"{key} is {report.stored[key]}{as_there} in the state, {report.inside[key]} here: {out}")
    problems += [
        f"{key} is {report.stored[key]} in the state, which {report.inside[key]} here cannot hold" for key in report._lossy()
    ]
    fitting = {*report.loaded, *report.dtype}
    for where, entries, way in (
        ("in the model", model.state_dict(), "model.to_empty(device='cpu') gives it some"),
        ("in the state", weights, "load(path) gives values"),
    ):
        empty = [name for name, value in entries.items() if name in fitting and getattr(value, "is_meta", False)]
        if empty:
            problems.append(f"{empty[0]} {where} is on the meta device and has no memory: {way}")
    if strict:
        problems += [f"{key} is missing ({report.inside[key]})" for key in report.missing]
        problems += [f"{key} is unexpected ({report.stored[key]})" for key in report.unexpected]
        problems += [f"the rule {rule} fits no name" for rule in report.idle]
    if not problems and not fitting:
        problems.append(f"nothing fits: the model has {_some(report.inside)}; the state has {_some(report.stored)}")
    return problems


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return (", ".join(shown[:_NAMES]) or "no tensors") + (f" and {len(shown) - _NAMES} more" if len(shown) > _NAMES else "")


def _apart(weights: OrderedDict[str, Any], model: torch.nn.Module) -> OrderedDict[str, Any]:
    """The state with values of its own where it is this model's live memory under other names: loading would overwrite it."""
    live = {value.untyped_storage()._cdata for value in _tensors(model) if value.layout is torch.strided}
    result = OrderedDict((key, value.detach().clone() if _storage(value) in live else value) for key, value in weights.items())
    vars(result).update(vars(weights))
    return result


@contextlib.contextmanager
def all_or_nothing(model: torch.nn.Module) -> Iterator[None]:
    """Whatever is raised inside, an interrupt too, the model is afterwards what it was: each byte, object and attribute.

    >>> model = torch.nn.Linear(1, 1)
    >>> before = model.weight.item()
    >>> with contextlib.suppress(KeyboardInterrupt), all_or_nothing(model), torch.no_grad():
    ...     _ = model.weight.fill_(7)
    ...     raise KeyboardInterrupt
    >>> model.weight.item() == before
    True
    """
    kept = Snapshot(model)
    try:
        yield
    except BaseException:
        again: KeyboardInterrupt | None = None
        while True:
            try:
                kept.put_back()
                break
            except KeyboardInterrupt as interrupt:  # who interrupts twice gets the same model: from the start again
                again = interrupt
        if again is not None:
            raise again from None
        raise


class Snapshot:
    """A copy of all that loading can change: tensors, the containers that hold them, attributes, classes, extra state."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [(module, type(module), dict(vars(module))) for module in model.modules()]
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._tensors: dict[int, tuple[torch.Tensor, type, torch.Tensor, torch.Tensor | None, bool]] = {}
        for _, _, attributes in self._modules:
            self._keep(attributes.values())
        self._extra = [
            (module, copy.deepcopy(module.get_extra_state()))
            for module, kind, _ in self._modules
            if kind.set_extra_state is not torch.nn.Module.set_extra_state
        ]

    def _keep(self, values: Iterable[Any]) -> None:
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if isinstance(value, torch.Tensor):
                if id(value) not in self._tensors:
                    alias = value.data
                    lazy = torch.nn.parameter.is_lazy(value)
                    values_now = None if lazy or value.is_meta else alias.clone()
                    self._tensors[id(value)] = value, type(value), alias, values_now, value.requires_grad
            elif isinstance(value, (dict, list, set)):
                if id(value) not in self._containers:
                    self._containers[id(value)] = value, copy.copy(value) if value else ()
                    waiting += value.values() if isinstance(value, dict) else value
            elif isinstance(value, tuple):
                waiting += value

    def put_back(self) -> None:
        for module, kind, attributes in self._modules:
            if type(module) is not kind:
                module.__class__ = kind  # a lazy module becomes another one
            vars(module).clear()
            vars(module).update(attributes)
        for container, content in self._containers.values():
            if isinstance(container, list):
                container[:] = content
            else:
                container.clear()
                container.update(content)
        with torch.no_grad():
            for tensor, kind_of_tensor, alias, values, wants in self._tensors.values():
                if type(tensor) is not kind_of_tensor:
                    tensor.__class__ = kind_of_tensor  # a lazy parameter becomes an ordinary one
                if torch.nn.parameter.is_lazy(tensor) or memory_of(tensor) != memory_of(alias):
                    tensor.data = alias
                if values is not None:
                    alias.copy_(values)
                if tensor.is_leaf and tensor.requires_grad != wants:
                    tensor.requires_grad_(wants)
        for module, extra in self._extra:
            module.set_extra_state(extra)


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [value for value in (*model.parameters(), *model.buffers()) if not torch.nn.parameter.is_lazy(value)]


def _storage(value: Any) -> int | None:
    usable = isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value) and value.layout is torch.strided
    return value.untyped_storage()._cdata if usable else None
