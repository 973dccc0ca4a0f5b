"""What a state_dict holds, entry by entry, and what of the model it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tutorlib.checkpoint.base import an, counted, described, numel
from tutorlib.facts import Facts, cell

_DEEP = 100  # containers inside containers
_MOST = 60  # characters of a plain value


@dataclass(frozen=True)
class Entry:
    """One tensor or plain value: what `browse` found out about it; `None` where it cannot be told.

    `kind` is `parameter`, `buffer`, `extra state`, `tensor` (a state does not say which) or the type of a plain value; for
    what is not stored, `buffer` (registered with persistent=False), `attribute` (a plain tensor) or the class of a layer
    that has nothing to store. `content` is the dtype and shape, or the value. `shared` is the first key that lies in the
    same storage, `live` whether the stored tensor is the model's own memory.
    """

    key: str
    kind: str
    stored: bool
    content: str
    requires_grad: bool | None = None
    shared: str | None = None
    live: bool | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    bytes: int = 0


@dataclass(frozen=True, repr=False)
class Contents(Facts):
    """The entries of a state_dict, and what of the model has none; one row for each.

    `layers` names the class of each module by its path, where a model was browsed. `versions` are the module versions
    that travel with the keys (`_metadata`) and that a plain dict of the same entries has lost.
    """

    entries: tuple[Entry, ...]
    layers: Mapping[str, str]
    versions: Mapping[str, int]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are stored, in the order of the state."""
        return tuple(entry.key for entry in self.entries if entry.stored)

    @property
    def bytes(self) -> int:
        """Bytes of the stored tensors, each storage counted once."""
        return sum(entry.bytes for entry in self.entries if entry.stored and entry.shared is None)

    def summary(self) -> str:
        stored = [entry for entry in self.entries if entry.stored]
        tensors = [entry for entry in stored if entry.dtype is not None]
        kinds = [entry.kind for entry in tensors]
        parts = ", ".join(counted(kinds.count(kind), kind) for kind in ("parameter", "buffer", "tensor") if kind in kinds)
        values = len(stored) - len(tensors)
        found = [parts] if parts else []
        found += [counted(values, "other value")] if values else []
        noun = "entry" if len(stored) == 1 else "entries"
        text = f"{len(stored)} {noun}" + (f": {', '.join(found)}" if found else "")
        left = [entry for entry in self.entries if not entry.stored and entry.dtype is not None]
        text += f"; {counted(len(left), 'tensor')} not stored" if left else ""
        alive = sum(1 for entry in tensors if entry.live)
        return f"{text}; {alive} of {len(tensors)} tensors are the model's own memory" if self._knows_the_model else text

    @property
    def _knows_the_model(self) -> bool:
        return any(entry.live is not None for entry in self.entries)

    def rows(self) -> list[dict[str, object]]:
        names = {"key": "key", "kind": "kind", "content": "content"}
        if any(not entry.stored for entry in self.entries):
            names["stored"] = "stored"
        if any(entry.dtype is not None for entry in self.entries):
            names["requires_grad"] = "requires_grad"
        if any(entry.shared for entry in self.entries):
            names["shared"] = "same storage as"
        if self._knows_the_model:
            names["live"] = "model's memory"
        return [{shown: getattr(entry, field) for field, shown in names.items()} for entry in self.entries]

    heads = ("name", "in the model", "kind", "in the state")

    def tree(self) -> list[dict[str, object]]:
        """Lines for `pictures.tree`: the model's layers with their entries below them; before is the model, after the state."""
        lines: list[dict[str, object]] = []
        seen: set[str] = set()
        for entry in self.entries:
            *steps, name = entry.key.split(".")
            for depth in range(len(steps)):
                path = ".".join(steps[: depth + 1])
                if path not in seen:
                    seen.add(path)
                    lines.append(self._line(depth, steps[depth], before=self.layers.get(path, "")))
            if entry.key in self.layers:
                lines.append(self._line(len(steps), name, before=entry.kind, after="no entry"))
                continue
            where = f"storage of {entry.shared}" if entry.shared else ""
            after = ", ".join(filter(None, [entry.content, where])) if entry.stored else "not stored"
            odd = bool(entry.shared) or (not entry.stored and entry.dtype is not None)
            lines.append(self._line(len(steps), name, entry.content if self.layers else "", entry.kind, after, odd))
        return lines

    @staticmethod
    def _line(depth: int, path: str, before: str = "", rule: str = "", after: str = "", odd: bool = False) -> dict[str, object]:
        return {"depth": depth, "path": path, "before": before, "rule": rule, "after": after, "surprise": odd}


def browse(state: Any, live: torch.nn.Module | None = None) -> Contents:
    """Say what a state holds, entry by entry, without changing or copying anything.

    `state` is a module (then what it holds but does not store is told, too), anything else with a `state_dict()`, or a
    state: a dictionary of tensors and plain values, also nested (keys are joined by dots). `live` is the model to hold a
    state against: kinds come from it, and whether the tensors are its own memory, so that training goes on changing them.
    `requires_grad` is that of the tensor browsed: the model's own, or the state's. Raises `TypeError` for anything else.
    Claims: SD-01 to SD-07, SL-07.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.BatchNorm1d(3, affine=False))
    >>> browse(model)
    5 entries: 2 parameters, 3 buffers; 5 of 5 tensors are the model's own memory
    key                    kind       content         stored  requires_grad  model's memory
    0.weight               parameter  float32 (3, 2)  yes     yes            yes
    0.bias                 parameter  float32 (3,)    yes     yes            yes
    1                      ReLU       -               no      -              -
    2.running_mean         buffer     float32 (3,)    yes     no             yes
    2.running_var          buffer     float32 (3,)    yes     no             yes
    2.num_batches_tracked  buffer     int64 ()        yes     no             yes
    >>> browse(torch.optim.SGD(model.parameters(), lr=0.1)).keys[:3]
    ('state', 'param_groups.0.lr', 'param_groups.0.momentum')
    """
    if live is not None and not isinstance(live, torch.nn.Module):
        raise TypeError(f"browse holds a state against a model, the second argument is {an(live)}")
    if isinstance(state, torch.nn.Module) and live is None:
        return _module(state)
    if isinstance(state, (str, bytes)) or hasattr(state, "__fspath__"):
        raise TypeError(f"browse needs a model or a state, found the path {state!r}: browse(load(path)), or inspect(path)")
    if isinstance(state, type) or not (isinstance(state, Mapping) or callable(getattr(state, "state_dict", None))):
        found = f"the class {state.__name__}" if isinstance(state, type) else an(state)
        raise TypeError(f"browse needs a model, another part with a state_dict(), or a state, found {found}")
    return _state(state if isinstance(state, Mapping) else state.state_dict(), live)


def _module(model: torch.nn.Module) -> Contents:
    """The model's layers in their own order: what each stores, what it keeps for itself, and which have nothing."""
    state = model.state_dict()
    layers = {path: type(module).__name__ for path, module in model.named_modules(remove_duplicate=False) if path}
    entries: list[Entry] = []
    first: dict[int, str] = {}
    told: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        held = [(prefix + name, kind, value) for name, kind, value in _held(module)]
        own = [key for key, _, _ in held] + [key for key in state if key == f"{prefix}_extra_state"]
        for key, kind, value in held:
            stored = state.get(key)
            entries.append(_tensor(key, kind, key in state, value, first, _same_memory(stored, value) if key in state else None))
        entries += [Entry(key, "extra state", True, _text(state[key])) for key in own if key.endswith("_extra_state")]
        told.update(own)
        if path and not own and not list(module.children()):
            entries.append(Entry(path, type(module).__name__, False, "-"))
    for key, value in state.items():  # what a hook of the model renamed or added
        if key not in told:
            entries += _entries(key, value, {}, first, None, 0)
    return Contents(tuple(entries), layers, _versions(state))


def _held(module: torch.nn.Module) -> Iterator[tuple[str, str, Any]]:
    """(name, kind, tensor) of what a module itself holds, its children aside."""
    for kind, table in (("parameter", module._parameters), ("buffer", module._buffers)):
        yield from ((name, kind, value) for name, value in table.items() if value is not None)
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            yield name, "attribute", value


def _state(state: Mapping[Any, Any], live: torch.nn.Module | None) -> Contents:
    held: dict[str, tuple[str, Any]] = {}
    if live is not None:
        for path, module in live.named_modules(remove_duplicate=False):
            for name, kind, value in _held(module):
                held[f"{path}.{name}" if path else name] = kind, value
    entries: list[Entry] = []
    first: dict[int, str] = {}
    for key, value in state.items():
        entries += _entries(str(key), value, held, first, live, 0)
    return Contents(tuple(entries), {}, _versions(state))


def _entries(
    key: str, value: Any, held: Mapping[str, tuple[str, Any]], first: dict[int, str], live: object, depth: int
) -> Iterator[Entry]:
    if depth > _DEEP:
        raise ValueError(f"{key[:_MOST]}... is nested more than {_DEEP} deep: does the state hold itself?")
    if isinstance(value, torch.Tensor):
        kind, own = held.get(key, ("tensor", None))
        yield _tensor(key, kind, True, value, first, _same_memory(value, own) if live is not None else None)
        return
    children = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
    if not children or not isinstance(children, Mapping) or (children is not value and not _holds_tensors(value)):
        kind = "extra state" if key.rpartition(".")[2] == "_extra_state" else type(value).__name__
        yield Entry(key, kind, True, _text(value))
        return
    for name, inner in children.items():
        yield from _entries(f"{key}.{name}", inner, held, first, live, depth + 1)


def _tensor(key: str, kind: str, stored: bool, value: torch.Tensor, first: dict[int, str], live: bool | None) -> Entry:
    memory = _storage(value)
    shared = first.setdefault(memory, key) if memory is not None and stored else key
    known = numel(value) or not torch.nn.parameter.is_lazy(value)
    return Entry(
        key,
        kind,
        stored,
        described(value),
        requires_grad=value.requires_grad,
        shared=shared if shared != key else None,
        live=live,
        shape=tuple(value.shape) if known else None,
        dtype=str(value.dtype).removeprefix("torch."),
        bytes=numel(value) * value.dtype.itemsize if known else 0,
    )


def _storage(value: Any) -> int | None:
    """What names the memory that a tensor lies in; None for one that has no memory of its own kind (sparse, lazy, empty)."""
    if not isinstance(value, torch.Tensor) or torch.nn.parameter.is_lazy(value) or value.layout is not torch.strided:
        return None
    storage = value.untyped_storage()
    if value.is_meta or hasattr(value, "fake_mode"):  # no memory, of which there would be an address
        return int(storage._cdata)
    return storage.data_ptr() or None


def _same_memory(one: Any, other: Any) -> bool:
    if torch.nn.parameter.is_lazy(one) and one is other:
        return True
    return _storage(one) is not None and _storage(one) == _storage(other)


def _holds_tensors(values: Any) -> bool:
    """Whether a list is worth going into: one of plain values, such as the parameters of an optimizer's group, is one value."""
    return any(isinstance(value, (torch.Tensor, Mapping, list, tuple)) for value in values)


def _text(value: Any) -> str:
    text = cell(value)
    return text if len(text) <= _MOST else text[: _MOST - 3] + "..."


def _versions(state: Any) -> dict[str, int]:
    kept = getattr(state, "_metadata", None) or {}
    return {path: data["version"] for path, data in kept.items() if isinstance(data, Mapping) and "version" in data}
