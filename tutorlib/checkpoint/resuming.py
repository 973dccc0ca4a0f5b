"""The state back into all parts of a training, or into none."""

from __future__ import annotations

import copy
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutorlib.checkpoint.base import (
    AnyPath,
    CheckpointError,
    an,
    counted,
    described,
    differences,
    first_line,
    kind_of,
    listed,
    memory_of,
    parameter_names,
    quoted,
    same,
    tensors_in,
)
from tutorlib.checkpoint.matching import LoadReport, Snapshot, compare
from tutorlib.checkpoint.reading import read
from tutorlib.facts import Facts


@dataclass(frozen=True, repr=False)
class Resumed(Facts):
    """What `resume` put back: one row for each name in the file. `values` holds what no part took, such as the epoch.

    `changed` are the settings of optimizers that the file replaced: a learning rate given to the constructor is gone.
    `skipped` are the files that a `Keeper` passed over because they are not whole.
    """

    path: Path
    parts: tuple[tuple[str, str, int, str], ...]
    values: Mapping[str, Any]
    changed: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def summary(self) -> str:
        taken = sum(1 for part in self.parts if part[3].startswith("resumed"))
        text = f"{counted(taken, 'part')} resumed, {counted(len(self.values), 'value')} given back"
        return "; ".join([text, *(f"skipped {file}" for file in self.skipped)])

    def rows(self) -> list[dict[str, object]]:
        return [{"part": name, "kind": kind, "tensors": tensors, "outcome": how} for name, kind, tensors, how in self.parts]


class _Plan(NamedTuple):
    """How one part is put back: `apply` does it, `undo` takes it back, `check` says what differs afterwards."""

    name: str
    apply: Callable[[], object]
    undo: Callable[[], object]
    check: Callable[[], list[str]]
    changed: list[str]
    tensors: int
    last: bool


def resume(path: AnyPath, /, *, map_location: Any = "cpu", verify: bool = True, **parts: Any) -> Resumed:
    """Put the state of a checkpoint back into the parts, all of it or nothing; plain values come back in `.values`.

    Everything is checked before anything is changed: the file (see `load`), the keys, shapes and dtypes of each model,
    the class, groups and parameters of each optimizer (torch matches these by position and accepts any shape; here they
    are matched by name where the model is a part too, and by shape). If a part then still refuses its state, or does not
    come back bit-equal, all parts get back what they had.

    Raises `FileNotFoundError`, `TypeError` for a part without `load_state_dict`, and `CheckpointError` with every
    problem found. Claims: CK-01, CK-02, CK-05, CK-08.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> def made(lr):
    ...     model = torch.nn.Linear(2, 1)
    ...     return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=lr)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", **made(lr=0.1), epoch=3)
    ...     resumed = resume(f"{folder}/last.pt", **made(lr=99.0))
    >>> resumed
    2 parts resumed, 1 value given back
    part       kind    tensors  outcome
    model      Linear        2  resumed
    optimizer  SGD           0  resumed; lr 99 -> 0.1
    epoch      int           0  in .values
    >>> resumed.values
    {'epoch': 3}
    """
    for name, part in parts.items():
        if not isinstance(part, torch.Generator) and (isinstance(part, type) or not hasattr(part, "load_state_dict")):
            raise TypeError(f"{name} is {an(part)} without load_state_dict: plain values come back in resume(...).values")
    content = read(path, map_location, verify)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{quoted(path)} holds {an(content)}, expected a dictionary of parts; nothing was changed")
    notes = getattr(content, "_tutorlib", {})
    absent = [name for name in parts if name not in content]
    if absent:
        found = ", ".join(map(str, content)) or "nothing"
        raise CheckpointError(f"{quoted(path)} has no {', '.join(absent)}: it holds {found}; nothing was changed")

    problems: list[str] = []
    plans = [_planned(name, part, content[name], notes, parts, problems) for name, part in parts.items()]
    if problems:
        raise CheckpointError(f"cannot resume from {quoted(path)}: {listed(problems)}; nothing was changed")
    _apply_all(path, plans)

    rows = []
    for name, state in content.items():
        kind = notes.get("kinds", {}).get(name) or (type(parts[name]).__name__ if name in parts else kind_of(state))
        plan = next((p for p in plans if p.name == name), None)
        if plan is not None:
            rows.append((name, kind, plan.tensors, "; ".join(["resumed", *plan.changed])))
        else:
            how = "in .values, not asked for" if name in notes.get("kinds", {}) else "in .values"
            rows.append((str(name), kind, tensors_in(state), how))
    values = {name: value for name, value in content.items() if name not in parts}
    return Resumed(Path(path), tuple(rows), values, tuple(text for plan in plans for text in plan.changed))


def _planned(name: str, part: Any, state: Any, notes: Mapping[str, Any], parts: Mapping[str, Any], problems: list[str]) -> _Plan:
    """Check one part against its state; add what is wrong to `problems`."""
    saved, here = notes.get("kinds", {}).get(name), type(part).__name__
    changed: list[str] = []
    if not isinstance(part, torch.nn.Module) and saved not in (None, here):
        problems.append(f"{name} was saved from {saved}, here it is {here}")
    elif isinstance(part, torch.Generator):
        if not isinstance(state, torch.Tensor) or described(state) != described(part.get_state()):
            problems.append(f"{name} does not hold the state of a generator")
    elif not isinstance(state, Mapping):
        problems.append(f"{name} is {an(state)} in the file, expected the state of {here}")
    elif isinstance(part, torch.nn.Module):
        report = compare(part, OrderedDict(state))
        found = [f"{name}.{text}" for text in report.problems()]
        if found and report.suggestion:
            found.insert(0, f"{name}: {report.suggestion}")
        empty = [key for key, value in part.state_dict().items() if getattr(value, "is_meta", False)]
        found += [f"{name}.{key} is on the meta device and has no memory: {name}.to_empty(device='cpu')" for key in empty[:1]]
        problems.extend(found)
        state = _with_tied(state, part, report)
    elif isinstance(part, torch.optim.Optimizer):
        found, state = _optimizer(name, part, state, notes.get("optimizers", {}).get(name), parts)
        problems.extend(found)
        changed = [] if found else _changed(part, state)
    elif isinstance(part, torch.optim.lr_scheduler.LRScheduler):
        differing = sorted(part.state_dict().keys() ^ state.keys())
        if differing and saved is None:
            problems.append(f"{name} does not hold the state of {here}: {', '.join(differing)} on one side only")
    apply, undo, check = _ways(name, part, state)
    return _Plan(name, apply, undo, check, changed, tensors_in(state), isinstance(part, RandomState))


def _with_tied(state: Mapping[str, Any], model: torch.nn.Module, report: LoadReport) -> Mapping[str, Any]:
    """Fill in the second name of a shared parameter, so that torch does not call it missing; `_metadata` travels along."""
    if not report.tied:
        return state
    ours = model.state_dict()
    by_memory = {memory_of(ours[key]): key for key in report.loaded}
    filled = OrderedDict(state)
    vars(filled).update(getattr(state, "__dict__", {}))
    filled.update({key: state[by_memory[memory_of(ours[key])]] for key in report.tied})
    return filled


def _optimizer(
    name: str, part: torch.optim.Optimizer, state: Mapping[str, Any], notes: Any, parts: Mapping[str, Any]
) -> tuple[list[str], Mapping[str, Any]]:
    """What keeps the state from belonging to these parameters, and the state in the order of these parameters."""
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not isinstance(state.get("state"), Mapping):
        return [f"{name} does not hold the state of an optimizer"], state
    here, there = [len(g["params"]) for g in part.param_groups], [len(g["params"]) for g in groups]
    if here != there:
        return [f"{name} has groups of {there} parameters in the file, {here} here"], state
    allowed = {"param_names", "initial_lr", "swa_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
    foreign = sorted({key for ours, theirs in zip(part.param_groups, groups, strict=True) for key in theirs.keys() - ours.keys()})
    if set(foreign) - allowed:
        return [f"{name} holds the settings {', '.join(foreign)} of another optimizer than {type(part).__name__}"], state

    problems = []
    names = parameter_names(parts)
    reordered: dict[Any, Any] = {k: v for k, v in state["state"].items() if k not in {i for g in groups for i in g["params"]}}
    new_groups, position = [], 0
    for number, (live, group) in enumerate(zip(part.param_groups, groups, strict=True)):
        ids = list(group["params"])
        order = list(range(len(ids)))
        written: list[tuple[str, Any]] = notes[number] if notes else [("", None) for _ in ids]
        ours, theirs = [names.get(id(p), "") for p in live["params"]], [label for label, _ in written]
        if not (all(ours) and all(theirs)) and "param_names" in live and _are_names(group.get("param_names"), len(ids)):
            ours, theirs = live["param_names"], group["param_names"]  # both optimizers were made from named_parameters()
        if all(ours) and all(theirs) and ours != theirs:
            if sorted(ours) != sorted(theirs):
                only = sorted(set(theirs) ^ set(ours))
                problems.append(f"{name} group {number} belongs to other parameters: {', '.join(only)} on one side only")
                continue
            order = [theirs.index(label) for label in ours]
        for index, (parameter, source) in enumerate(zip(live["params"], order, strict=True)):
            label = f"{name} parameter {position + index}" + (f" ({ours[index]})" if ours[index] else "")
            kept = state["state"].get(ids[source])
            shape = written[source][1]
            if shape is not None and tuple(shape) != tuple(parameter.shape):
                problems.append(f"{label} has the shape {tuple(shape)} in the file, {tuple(parameter.shape)} here")
            elif kept is not None:
                problems.extend(_misfits(label, part, parameter, kept))
            if kept is not None:
                reordered[position + index] = kept
        fresh = {**group, "params": list(range(position, position + len(ids)))}
        if _are_names(group.get("param_names"), len(ids)):
            fresh["param_names"] = [group["param_names"][source] for source in order]
        new_groups.append(fresh)
        position += len(ids)
    return problems, {**state, "state": reordered, "param_groups": new_groups}


def _are_names(value: Any, number: int) -> bool:
    return isinstance(value, list) and len(value) == len({n for n in value if isinstance(n, str)}) == number


def _misfits(label: str, part: torch.optim.Optimizer, parameter: torch.Tensor, kept: Any) -> list[str]:
    """State tensors that cannot belong to this parameter; for torch's own optimizers, whose state has its shape.

    Exceptions: LBFGS keeps one flat vector for all parameters, Adafactor the rows and columns of each.
    """
    known = type(part).__module__.startswith("torch.optim.") and not isinstance(part, torch.optim.LBFGS)
    if not known or not isinstance(kept, Mapping):
        return []
    return [
        f"{label}: {key} has the shape {tuple(value.shape)} in the file, {tuple(parameter.shape)} here"
        for key, value in kept.items()
        if isinstance(value, torch.Tensor) and value.ndim and key not in ("row_var", "col_var", "variance", "step")
        if value.shape != parameter.shape
    ]


def _changed(part: torch.optim.Optimizer, state: Mapping[str, Any]) -> list[str]:
    """Settings of the optimizer that the file replaces."""
    texts = []
    for number, (live, group) in enumerate(zip(part.param_groups, state["param_groups"], strict=True)):
        where = f" of group {number}" if len(part.param_groups) > 1 else ""
        for key, value in group.items():
            if key != "params" and key in live and not same(live[key], value):
                texts.append(f"{key}{where} {_short(live[key])} -> {_short(value)}")
    return texts


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _ways(name: str, part: Any, state: Any) -> tuple[Callable[[], object], Callable[[], object], Callable[[], list[str]]]:
    """How this kind of part takes its state, how it gets back what it had, and what differs afterwards."""
    if isinstance(part, torch.Generator):
        before = part.get_state()
        return lambda: part.set_state(state), lambda: part.set_state(before), lambda: []
    if isinstance(part, torch.nn.Module):
        kept: list[Snapshot] = []

        def apply() -> None:
            kept.append(Snapshot(part))
            part.load_state_dict(state)

        def undo() -> None:
            for snapshot in kept:
                snapshot.put_back()

        return apply, undo, lambda: differences(part.state_dict(), state, name)
    if isinstance(part, torch.optim.Optimizer):
        old = dict(vars(part))  # load_state_dict makes new dictionaries and leaves these as they are

        def back() -> None:
            vars(part).clear()
            vars(part).update(old)

        return lambda: part.load_state_dict(dict(state)), back, lambda: differences(part.state_dict(), state, name)
    earlier: list[Any] = []
    known = isinstance(part, (torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler))

    def take() -> None:
        earlier.append(copy.deepcopy(part.state_dict()))
        part.load_state_dict(state)

    def give_back() -> None:
        if earlier:
            part.load_state_dict(earlier[0])

    return take, give_back, lambda: differences(part.state_dict(), state, name) if known else []


def _apply_all(path: AnyPath, plans: Sequence[_Plan]) -> None:
    """Apply every plan, or take back what was done; random state last, because loading may draw random numbers."""
    ordered = sorted(plans, key=lambda plan: plan.last)
    done: list[_Plan] = []
    try:
        for plan in ordered:
            done.append(plan)
            try:
                plan.apply()
            except Exception as error:
                raise CheckpointError(f"{plan.name} refused its state: {type(error).__name__}: {first_line(error)}") from error
        different = [text for plan in ordered for text in plan.check()]
        if different:
            raise CheckpointError(f"not bit-equal after loading: {listed(different)}")
    except BaseException as error:
        stuck = []
        for plan in reversed(done):
            try:
                plan.undo()
            except BaseException as failure:  # whatever happens to one, the others get back what they had
                stuck.append(f"{plan.name} ({type(failure).__name__}: {first_line(failure)})")
        if not isinstance(error, CheckpointError):
            raise
        end = f"could not be taken back: {', '.join(stuck)}" if stuck else "nothing was changed"
        raise CheckpointError(f"cannot resume from {quoted(path)}: {error}; {end}") from error.__cause__


class _Pair(NamedTuple):
    """One parameter of an optimizer here, and whose state in the file it would get."""

    optimizer: str
    here: str
    shape: tuple[int, ...]
    by_position: str
    position_shape: tuple[int, ...] | None
    by_name: str | None


@dataclass(frozen=True, repr=False)
class Matched(Facts):
    """Who gets whose state: one row for each parameter of the optimizers here.

    `torch` matches by position and looks at no name and no shape; `resume` by name where the file knows names, and by shape.
    `crossed` counts the parameters to which torch would give the state of another one, `misfits` those of another shape.
    """

    pairs: tuple[_Pair, ...]

    @property
    def crossed(self) -> int:
        return sum(1 for pair in self.pairs if pair.by_name and pair.by_position not in ("", pair.here))

    @property
    def misfits(self) -> int:
        return sum(1 for pair in self.pairs if pair.position_shape not in (None, pair.shape))

    def summary(self) -> str:
        text = f"{counted(len(self.pairs), 'parameter')}; by position {self.crossed} would get the state of another one"
        return f"{text}, {self.misfits} of another shape"

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "optimizer": pair.optimizer,
                "parameter": pair.here,
                "shape": pair.shape,
                "torch gives": pair.by_position or "refused",
                "of shape": pair.position_shape,
                "resume gives": self._named(pair),
            }
            for pair in self.pairs
        ]

    heads = ("parameter", "torch gives", "it is", "resume gives")

    def tree(self) -> list[dict[str, object]]:
        lines = []
        for pair in self.pairs:
            misfit = pair.position_shape not in (None, pair.shape)
            crossed = pair.by_position != pair.here and pair.by_name is not None
            rule = "other shape" if misfit else "other parameter" if crossed else "same"
            line = {"path": f"{pair.here} {pair.shape}", "before": f"torch: {pair.by_position or 'refused'}", "rule": rule}
            lines.append({"depth": 0, **line, "after": f"resume: {self._named(pair)}", "surprise": misfit or crossed})
        return lines

    def _named(self, pair: _Pair) -> str:
        if pair.by_name is None:
            return "refused" if pair.position_shape not in (None, pair.shape) or not pair.by_position else pair.by_position
        return pair.by_name or "refused"


def match(path: AnyPath, /, **parts: Any) -> Matched:
    """Say whose state each optimizer parameter would get from a checkpoint, by position (torch) and by name (`resume`).

    Nothing is changed and no tensor is read into memory. Give the models too: their parameters' names are those of the
    file if `save` wrote it. Raises `FileNotFoundError`, `TypeError` without an optimizer, and `CheckpointError` for a file
    without its state. Claims: CK-05, CK-09.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> def made(turned):
    ...     model = torch.nn.Linear(3, 2)
    ...     parameters = list(model.parameters())[::-1] if turned else model.parameters()
    ...     return {"model": model, "optimizer": torch.optim.SGD(parameters, lr=0.1)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", **made(turned=False))
    ...     match(f"{folder}/last.pt", **made(turned=True))
    2 parameters; by position 2 would get the state of another one, 2 of another shape
    optimizer  parameter     shape   torch gives   of shape  resume gives
    optimizer  model.bias    (2,)    model.weight  (2, 3)    model.bias
    optimizer  model.weight  (2, 3)  model.bias    (2,)      model.weight
    """
    optimizers = {name: part for name, part in parts.items() if isinstance(part, torch.optim.Optimizer)}
    if not optimizers:
        raise TypeError("match needs an optimizer, and the model that it trains: match(path, model=model, optimizer=optimizer)")
    content = read(path, "meta", True)
    states = content if isinstance(content, Mapping) else {}
    notes = getattr(content, "_tutorlib", {}).get("optimizers", {})
    names = parameter_names(parts)
    pairs = []
    for name, part in optimizers.items():
        state = states.get(name)
        groups = state.get("param_groups") if isinstance(state, Mapping) else None
        if not isinstance(state, Mapping) or not isinstance(groups, list) or not isinstance(state.get("state"), Mapping):
            found = ", ".join(map(str, states)) or "nothing"
            raise CheckpointError(f"{quoted(path)} has no state of an optimizer called {name}: it holds {found}")
        position = 0
        for number, live in enumerate(part.param_groups):
            ids = list(groups[number]["params"]) if number < len(groups) else []
            theirs: list[tuple[str, tuple[int, ...] | None]]
            if notes.get(name) and number < len(groups):
                theirs = [(str(label), tuple(shape)) for label, shape in notes[name][number]]
            else:
                theirs = [("", _shape_in(state["state"].get(i))) for i in ids]
            for index, parameter in enumerate(live["params"]):
                label, shape = theirs[index] if len(theirs) == len(live["params"]) else ("", None)
                here = names.get(id(parameter), f"parameter {position}")
                whole = bool(theirs) and all(text for text, _ in theirs) and not here.startswith("parameter ")
                given = label or (f"parameter {position}" if len(theirs) == len(live["params"]) else "")
                fits = dict(theirs).get(here) == tuple(parameter.shape)
                by_name = (here if fits else "") if whole else None
                pairs.append(_Pair(name, here, tuple(parameter.shape), given, shape, by_name))
                position += 1
    return Matched(tuple(pairs))


def _shape_in(kept: Any) -> tuple[int, ...] | None:
    """The shape of the parameter whose state this is, as far as its tensors show it."""
    values = kept.values() if isinstance(kept, Mapping) else ()
    return next((tuple(value.shape) for value in values if isinstance(value, torch.Tensor) and value.ndim), None)


class RandomState:
    """The random state of python, numpy and torch as a part: `save(path, ..., random=RandomState())`, and `resume` alike.

    `state_dict()` holds plain values and tensors only, so it comes back under `weights_only` (numpy's own tuple does not).
    Numpy is left alone when it is not loaded; CUDA devices count as many as both sides have.

    >>> state = RandomState().state_dict()
    >>> first = torch.rand(1), random.random()
    >>> RandomState().load_state_dict(state)
    >>> (torch.rand(1), random.random()) == first
    True
    """

    def state_dict(self) -> dict[str, Any]:
        version, numbers, gauss = random.getstate()
        state: dict[str, Any] = {"python": (version, torch.tensor(numbers), gauss), "torch": torch.get_rng_state()}
        if "numpy" in sys.modules:
            name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
            state["numpy"] = (str(name), torch.tensor(keys.tolist()), int(position), int(has_gauss), float(cached))
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        missing = [name for name in ("python", "torch") if name not in state]
        if missing:
            raise KeyError(f"the random state lacks {', '.join(missing)}")
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers.tolist()), gauss))
        torch.set_rng_state(state["torch"].cpu())
        if "numpy" in state:
            import numpy

            name, keys, position, has_gauss, cached = state["numpy"]
            numpy.random.set_state((name, numpy.array(keys.tolist(), dtype=numpy.uint32), position, has_gauss, cached))
        if "cuda" in state and torch.cuda.is_available():
            for device, kept in enumerate(state["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(kept.cpu(), device)


class Batches:
    """The batches of a loader, epoch after epoch, as a part: `next(data)` gives the next one, the state says where we are.

    `position` is the `samplers.EpochSampler` from which the loader draws, or the `sharding.Sharded` that it reads; or any
    object with `follow(loader)`, `state_dict()` and `load_state_dict()`. With workers or without: what they have read ahead
    is not counted. `epoch` is that of the batch to come.

    A new pass over a DataLoader draws a number from torch's random state, and one more after a resume in the middle of an
    epoch: dropout would go other ways. Here the loader is copied and draws from a generator of its own, unless it has one.
    The workers of an epoch so get the same seeds each time; for augmentation that can go on in the middle of an epoch, let
    the dataset draw under `sharding.randomness(seed, epoch, index)`.

    Raises `TypeError` for a position that cannot be followed, and `ValueError` for a loader without batches.

    >>> from torch.utils.data import DataLoader
    >>> from tutorlib.samplers import EpochSampler
    >>> def make():
    ...     sampler = EpochSampler(8, batch_size=3, seed=0)
    ...     return Batches(sampler, DataLoader(range(8), batch_sampler=sampler))
    >>> data = make()
    >>> [next(data).tolist() for _ in range(4)]
    [[4, 5, 2], [7, 6, 0], [1, 3], [5, 2, 1]]
    >>> stopped, fresh = data.state_dict(), make()
    >>> fresh.load_state_dict(stopped)
    >>> next(fresh).tolist() == next(data).tolist(), stopped
    (True, {'seed': 0, 'epoch': 1, 'seen': 3, 'size': 8})
    """

    def __init__(self, position: Any, loader: torch.utils.data.DataLoader) -> None:
        lacking = [name for name in ("follow", "state_dict", "load_state_dict") if not callable(getattr(position, name, None))]
        if lacking:
            raise TypeError(f"{an(position)} has no {', '.join(lacking)}: give a samplers.EpochSampler or a sharding.Sharded")
        if not isinstance(loader, torch.utils.data.DataLoader):
            raise TypeError(f"the loader is {an(loader)}, expected a DataLoader")
        position.follow(loader)  # checks that they belong together; nothing is read before the first next()
        self.position, self.loader = position, copy.copy(loader)
        self._seeds: torch.Generator | None = None
        if loader.generator is None:
            self._seeds = self.loader.generator = torch.Generator()
        self._batches: Iterator[Any] | None = None

    @property
    def epoch(self) -> int:
        return int(self.position.state_dict()["epoch"])

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        for _ in range(3):  # what is left of this pass, if anything; nothing, after a state of its very end; a whole one
            if self._batches is None:
                if self._seeds is not None:
                    self._seeds.manual_seed(self.epoch)
                self._batches = iter(self.position.follow(self.loader))
            for batch in self._batches:
                return batch
            self._batches = None
        raise ValueError("the loader has no batches: its dataset is empty, or this rank has no share of it")

    def state_dict(self) -> dict[str, Any]:
        return dict(self.position.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position.load_state_dict(state)
        self._batches = None
