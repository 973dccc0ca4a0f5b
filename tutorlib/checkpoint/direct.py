"""From a file straight into a model: planned from the file's structure, then read to where each tensor belongs.

Nothing is unpickled and no second copy of the weights exists on the way: a few bytes for each tensor say where its bytes
stand (see `archive.structure`). What torch has to read itself (other containers, other layouts, modules with code of their
own) is handed over to it: the results are the same, only slower.
"""

from __future__ import annotations

import difflib
import itertools
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import torch
from torch.overrides import TorchFunctionMode

from tutorlib import archive
from tutorlib.checkpoint.base import AnyPath, CheckpointError, an, first_line, listed, quoted
from tutorlib.checkpoint.matching import LoadReport, compare, warm_start
from tutorlib.checkpoint.matching import _weights as weights_of
from tutorlib.checkpoint.reading import made, memory_as_bytes, opened, over, read_open, verified

_FAILURES = (archive.Damaged, OSError, ValueError, RuntimeError)


def load_into(model: torch.nn.Module, path: AnyPath, *, verify: bool = True) -> LoadReport:
    """Fill a model from a file, straight into its memory: everything fits and is verified first, or no byte is changed.

    As `model.load_state_dict(load(path))`, on whatever device the model is, without a second copy of the weights in memory.
    The file is a torch file or a safetensors file that holds a state_dict, or a dictionary that has one as `model`,
    `model_state_dict` or `state_dict`. Each key must fit in shape and dtype; for less, `warm_start(model, load(path))`.

    `verify` holds every byte against the checksums before the first one is written. Raises `TypeError` for another thing
    than a model, `FileNotFoundError`, and `CheckpointError` as `load` does and with every key that does not fit. When the
    disk fails or the file is changed by others between the check and the reading, the text says what became of the model.
    Claims: SL-03, SL-06, SL-10.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", model=model, epoch=3)
    ...     load_into(other, f"{folder}/last.pt")
    2 of 2 tensors fit (100% of the values)
    >>> torch.equal(model.weight, other.weight)
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"load_into fills a model, the first argument is {an(model)}: load(path) gives what is in the file")
    with opened(path) as file:
        before = os.fstat(file.fileno())
        if verify:
            verified(path, file)
        found = _simple(file)
        return _filled(model, path, file, found, before, verify)


def _simple(file: BinaryIO) -> archive.Structure | None:
    """The structure of the file if its tensors can be read without torch. What is wrong with others, torch or `load` says."""
    try:
        found = archive.structure(file)
    except Exception:
        return None
    return found if found.simple and isinstance(found.root, dict) else None


def _filled(
    model: torch.nn.Module, path: AnyPath, file: BinaryIO, found: archive.Structure | None, before: Any, verify: bool
) -> LoadReport:
    if found is None or not _takes_bytes(model):
        state = read_open(path, file, "cpu")
        if not isinstance(state, Mapping):
            raise CheckpointError(f"{quoted(path)} holds {an(state)}, expected a state_dict; nothing was changed")
        return warm_start(model, state, strict=True)
    views, report = _planned(model, path, found)
    goals = {key: tensor for key, tensor in model.state_dict(keep_vars=True).items() if key in views}
    if any(tensor.is_meta for tensor in goals.values()):
        raise CheckpointError(f"the model has no memory (device meta): build(make, {quoted(path)}) makes one that has")
    _unchanged(path, file, before)
    # In a thread of its own, so that Ctrl-C takes effect when all is read, not in the middle.
    with ThreadPoolExecutor(1) as writer:
        try:
            writer.submit(_fill, file, found, [(goals[key], views[key]) for key in goals]).result()
        except _FAILURES as error:
            text = f"{type(error).__name__}: {first_line(error)}"
            raise CheckpointError(
                f"{quoted(path)} could not be read to its end: {text}; the model is part old, part new: load again"
            ) from error
    _unchanged(path, file, before, "; the model may be part old, part new: load again")
    return report


def _unchanged(path: AnyPath, file: BinaryIO, before: Any, so: str = "; nothing was changed") -> None:
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise CheckpointError(f"{quoted(path)} was overwritten in place while it was read{so}")


_READERS = (torch.nn.Module._load_from_state_dict, torch.nn.modules.batchnorm._NormBase._load_from_state_dict)


def _takes_bytes(model: torch.nn.Module) -> bool:
    """Whether loading means nothing more than copying: no module has code of its own that runs when a state is loaded."""
    for module in model.modules():
        cls, own = type(module), vars(module)
        standard = cls._load_from_state_dict in _READERS and "_load_from_state_dict" not in own
        standard &= cls.load_state_dict is torch.nn.Module.load_state_dict and cls.state_dict is torch.nn.Module.state_dict
        standard &= cls.set_extra_state is torch.nn.Module.set_extra_state
        standard &= cls._save_to_state_dict is torch.nn.Module._save_to_state_dict
        hooks = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_state_dict_hooks", "_state_dict_pre_hooks")
        if not standard or any(own.get(name) for name in hooks):
            return False
    tensors = itertools.chain(model.parameters(), model.buffers())
    return all(type(t) in (torch.Tensor, torch.nn.Parameter) and t.layout is torch.strided for t in tensors)


def _planned(model: torch.nn.Module, path: AnyPath, found: archive.Structure) -> tuple[dict[str, archive.View], LoadReport]:
    """The view of the file for each key, and the report; raises when a key of either side does not fit exactly."""
    state, views = _described(found)
    report = compare(model, state)
    if not report.complete:
        hint = f" ({report.suggestion})" if report.suggestion else ""
        raise CheckpointError(
            f"{quoted(path)} does not fit {type(model).__name__}: {listed(report.problems())}{hint}; nothing was changed; "
            "warm_start(model, load(path)) loads what fits"
        )
    return {key: views[key] for key in report.loaded}, report


def _described(found: archive.Structure) -> tuple[Mapping[str, Any], dict[str, archive.View]]:
    """The state_dict of the file as tensors of the meta device, which have no bytes, and the views that they stand for."""
    storages: dict[str, torch.UntypedStorage] = {}
    metas: dict[int, torch.Tensor] = {}

    def described(value: Any) -> Any:
        if not isinstance(value, archive.View):
            return value
        if id(value) not in metas:
            storage = storages.get(value.storage.key)
            if storage is None:
                storage = torch.UntypedStorage(value.storage.bytes, device="meta")
                storages[value.storage.key] = storage
            metas[id(value)] = over(storage, value, 0)
        return metas[id(value)]

    def level(content: Mapping[str, Any], inner: bool) -> OrderedDict[str, Any]:
        items = OrderedDict.items(content) if isinstance(content, OrderedDict) else content.items()
        result = OrderedDict((k, level(v, False) if inner and isinstance(v, dict) else described(v)) for k, v in items)
        metadata = vars(content).get("_metadata") if isinstance(content, OrderedDict) else None
        if isinstance(metadata, dict):
            result._metadata = metadata  # type: ignore[attr-defined]
        return result

    state = weights_of(level(found.root, True))
    back = {id(tensor): key for key, tensor in metas.items()}
    by_id = {id(v): v for v in _views(found.root)}
    return state, {k: by_id[back[id(v)]] for k, v in state.items() if id(v) in back}


def _views(content: Any) -> Iterable[archive.View]:
    """The views of a dictionary and of the dictionaries in it."""
    for value in OrderedDict.values(content) if isinstance(content, OrderedDict) else content.values():
        if isinstance(value, archive.View):
            yield value
        elif isinstance(value, dict):
            yield from (v for v in dict.values(value) if isinstance(v, archive.View))


# ------------------------------------------------------------------------------------------------------ bytes to tensors


def _fill(file: BinaryIO, found: archive.Structure, pairs: Iterable[tuple[torch.Tensor, archive.View]]) -> None:
    """Bring the bytes of each view into the tensor, in this order."""
    with torch.no_grad():
        for tensor, view in pairs:
            goal = tensor.detach()
            if _as_in_file(goal, view):
                begin = archive.begin(file, found.places[view.storage.key]) if goal.numel() else 0
                archive.read_into(file, begin + view.offset * goal.itemsize, memory_as_bytes(goal))
                torch.autograd.graph.increment_version(tensor)  # as copy_ does, for a graph that still needs the old values
            else:
                tensor.copy_(made(file, found, [view])[0])


def _as_in_file(tensor: torch.Tensor, view: archive.View) -> bool:
    """Whether the tensor's memory is, byte for byte, a piece of the file."""
    packed = tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
    same = all(size < 2 or step == other for size, step, other in zip(view.size, view.stride, tensor.stride(), strict=True))
    return tensor.device.type == "cpu" and packed and same and tensor.dtype is getattr(torch, view.dtype)


def tensors(path: AnyPath, *keys: str, verify: bool = True) -> dict[str, torch.Tensor]:
    """Read some tensors out of a file, however large it is: a few kB for its structure, and their own bytes.

    The keys are those that `inspect` shows, such as `"model.head.weight"`; without keys, all tensors come. They come to the
    CPU; those that share memory in the file share it here. `verify` holds their storages and the structure against the
    checksums. Raises `FileNotFoundError`, and `CheckpointError` as `load` does and for keys that are not there (with similar
    ones) or no tensors. Claims: SL-01, SL-16.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", model=torch.nn.Linear(3, 2), head=torch.arange(3))
    ...     tensors(f"{folder}/last.pt", "head")
    {'head': tensor([0, 1, 2])}
    """
    with opened(path) as file:
        found = _simple(file)
        if found is None:
            file.seek(0)
            if verify:
                verified(path, file)
            content = dict(_tensors_in(read_open(path, file, "cpu")))
            return {key: content[key] for key in _asked(path, keys, list(content), ())}
        names = _asked(path, keys, [entry.key for entry in found.tensors], found.values)
        by_key: dict[str, archive.View] = dict(archive.views(found.root))
        views = [by_key[name] for name in names]
        try:
            if verify:
                places = [found.places[key] for key in dict.fromkeys(view.storage.key for view in views)]
                for place in (found.record, *places):
                    if isinstance(place, archive.Record):
                        archive.check(file, place)
            return dict(zip(names, made(file, found, views), strict=True))
        except _FAILURES as error:
            raise CheckpointError(f"{quoted(path)} is damaged: {first_line(error)}: take an earlier copy") from None


def _asked(path: AnyPath, keys: tuple[str, ...], there: list[str], values: Iterable[str]) -> list[str]:
    problems = []
    for key in dict.fromkeys(keys or there):
        if there.count(key) > 1:
            problems.append(f"two of its tensors are called {key!r}: take them from load(path)")
        elif key in values:
            problems.append(f"{key!r} is a plain value: take it from load(path) or inspect(path).values")
        elif key not in there:
            close = difflib.get_close_matches(str(key), there, 1, 0.4)
            problems.append(f"it has no tensor {key!r}" + (f", but {close[0]!r}" if close else ""))
    if problems:
        raise CheckpointError(f"cannot take from {quoted(path)}: {listed(problems)}")
    return list(dict.fromkeys(keys or there))


def _tensors_in(content: Any, key: str = "") -> Iterable[tuple[str, torch.Tensor]]:
    """The tensors of what torch loaded, by the keys that `inspect` shows."""
    if isinstance(content, torch.Tensor):
        yield key, content
        return
    pairs = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, (list, tuple)) else ()
    for name, inner in pairs:
        yield from _tensors_in(inner, f"{key}.{name}" if key else str(name))


# ------------------------------------------------------------------------------------------------------ class and file to model


def build(make: Callable[[], torch.nn.Module], path: AnyPath, *, mapped: bool = False, verify: bool = True) -> torch.nn.Module:
    """Make a model and fill it from a file, without computing initial values that are thrown away.

    `make` is the class or a function without arguments, such as `lambda: Net(width=64)`. While it runs, each parameter is
    put aside as soon as a module has it, so nothing is drawn for it; torch's random state does not move. A model whose code
    needs the values of its parameters, or keeps weak references to them (recurrent layers), is made as ever. The rest is as
    in `load_into`.

    With `mapped`, the parameters are a private window on the file: pages are read when they are first used, and written
    ones become the model's own. The file must stay as it is meanwhile, as it does when `save` replaces it (on Windows a
    mapped file cannot be replaced). The file's order of strides wins, as with `load_state_dict(assign=True)`.

    Raises `TypeError` when `make` gives no model, and what `load_into` raises. Claims: SL-03, SL-06.

    >>> import tempfile
    >>> from tutorlib.checkpoint import save
    >>> model = torch.nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/last.pt", model=model, epoch=3)
    ...     other = build(lambda: torch.nn.Linear(3, 2), f"{folder}/last.pt")
    >>> torch.equal(model.weight, other.weight)
    True
    """
    if not callable(make) or isinstance(make, torch.nn.Module):
        raise TypeError(f"build makes the model itself: expected its class or a function, found {an(make)}: load_into fills one")
    with opened(path) as file:
        before = os.fstat(file.fileno())
        if verify:
            verified(path, file)
        found = _simple(file)
        if found is not None:
            model = _without_values(make)
            _unchanged(path, file, before)
            if model is not None and _takes_bytes(model) and _given_bytes(model, path, file, found, mapped):
                return model
        model = _checked(make())
        _filled(model, path, file, found, before, verify)
        return model


def _checked(model: Any) -> torch.nn.Module:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"make() gave {an(model)}, expected a model")
    return model


def _without_values(make: Callable[[], torch.nn.Module]) -> torch.nn.Module | None:
    """The model with its parameters on the meta device; None if its code does not do without their values."""
    thread = threading.get_ident()

    def put_aside(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if type(parameter) is torch.nn.Parameter and parameter.device.type == "cpu" and threading.get_ident() == thread:
            _become(parameter, torch.empty_like(parameter, device="meta"))

    handle = torch.nn.modules.module.register_module_parameter_registration_hook(put_aside)
    try:
        with _Undrawn():
            model = make()
    except Exception:  # it is called once more, as ever, and then the error is told
        return None
    finally:
        handle.remove()
    return _checked(model)


class _Undrawn(TorchFunctionMode):
    """Draws nothing for a tensor without memory. (The meta device would too, after importing a compiler.)"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        draws = getattr(func, "__module__", None) == "torch.nn.init" or getattr(func, "__name__", None) in _DRAWS
        if draws and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **(kwargs or {}))


_DRAWS = ("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "geometric_", "log_normal_")


class _Held(Exception):
    """Somebody refers to a parameter in a way that does not let its memory be exchanged, as recurrent layers do."""


def _become(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Another memory for the same parameter, whoever holds it."""
    fresh = torch.nn.Parameter(value, requires_grad=parameter.requires_grad)
    vars(fresh).update(vars(parameter))
    try:
        torch.utils.swap_tensors(parameter, fresh)
    except RuntimeError as error:
        raise _Held from error


def _given_bytes(model: torch.nn.Module, path: AnyPath, file: BinaryIO, found: archive.Structure, mapped: bool) -> bool:
    """Give the parameters of the file to a model without values; whether none of it still lacks values."""
    views, _ = _planned(model, path, found)
    state = model.state_dict(keep_vars=True)
    goals = {id(state[key]): (state[key], view) for key, view in views.items()}
    plain = []
    try:
        window = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if mapped else None
        storages: dict[str, torch.UntypedStorage] = {}
        for tensor, view in goals.values():
            if tensor.is_meta and window is not None and _aligned(file, found, view):
                key = view.storage.key
                if key not in storages:
                    begin = archive.begin(file, found.places[key])
                    whole = torch.frombuffer(window, dtype=torch.uint8, count=view.storage.bytes, offset=begin)
                    storages[key] = whole.untyped_storage()
                _become(tensor, over(storages[key], view, 0))
                continue
            if tensor.is_meta:
                _become(tensor, torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype))
            plain.append((tensor, view))
        _fill(file, found, plain)
    except _Held:
        return False
    except _FAILURES as error:
        raise CheckpointError(f"{quoted(path)} could not be read: {type(error).__name__}: {first_line(error)}") from error
    return not any(tensor.is_meta for tensor in _held(model))


def _aligned(file: BinaryIO, found: archive.Structure, view: archive.View) -> bool:
    begin = archive.begin(file, found.places[view.storage.key]) if view.storage.bytes else 1
    return begin % 16 == 0


def _held(model: torch.nn.Module) -> Iterable[torch.Tensor]:
    """The tensors of a model, also those in plain attributes and in lists, tuples and dictionaries there."""
    yield from itertools.chain(model.parameters(), model.buffers())
    for module in model.modules():
        for value in vars(module).values():
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            yield from (one for one in inner if isinstance(one, torch.Tensor))
