"""What summary and export share: the error, the words of its texts, and a model that is left as it was."""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

AnyPath = str | os.PathLike[str]

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class ExportError(RuntimeError):
    """What cannot be summarized, exported, proven or run, with the way out; nothing was written.

    `report` holds the facts where an exported model was refused because it is not the module; else it is None.
    """

    report: Any = None


@contextlib.contextmanager
def undisturbed(model: nn.Module, training: bool) -> Iterator[None]:
    """Within the block every module is in this mode and nothing records gradients; afterwards all is as it was before.

    That is: the mode of each module (a frozen batch norm inside a training model included), the values and the identity of
    all buffers, all hooks, and the random state of python, numpy and torch. Also when the block raises.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    copies = {id(b): b.detach().clone() for kept in buffers for b in kept.values() if isinstance(b, torch.Tensor)}
    hooks = [{name: dict(getattr(module, name)) for name in _HOOKS if hasattr(module, name)} for module in modules]
    try:
        with _random_kept(), torch.no_grad():
            for module in modules:
                module.training = training
            yield
    finally:
        for module, mode, kept, hooked in zip(modules, modes, buffers, hooks, strict=True):
            module.training = mode
            module._buffers.clear()
            module._buffers.update(kept)
            for name, before in hooked.items():
                live = getattr(module, name)
                if dict(live) != before:
                    live.clear()
                    live.update(before)
        with torch.no_grad():
            for buffer in {id(b): b for kept in buffers for b in kept.values() if isinstance(b, torch.Tensor)}.values():
                if not torch.nn.parameter.is_lazy(buffer) and not _same_bits(buffer, copies[id(buffer)]):
                    buffer.copy_(copies[id(buffer)])


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.is_meta or (a.shape == b.shape and bool(torch.equal(a, b)))  # nan differs from itself, and is copied back


@contextlib.contextmanager
def _random_kept() -> Iterator[None]:
    numpy: Any = sys.modules.get("numpy")
    states = random.getstate(), torch.get_rng_state(), numpy.random.get_state(legacy=False) if numpy else None
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        if numpy:
            numpy.random.set_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors of a nested result, in the order in which torch flattens it."""
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def check_model(model: object, who: str) -> None:
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise TypeError(f"{who} needs a model, found the class {model.__name__}: make one, {model.__name__}(...)")
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who} needs a torch.nn.Module: found {type(model).__name__}")


def first_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0].strip() if text else ""


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}" if first_line(error) else type(error).__name__


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def listed(words: Any) -> str:
    words = [str(word) for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def require(package: str, who: str) -> None:
    """ModuleNotFoundError, with the command that mends it, when an optional package is not there."""
    import importlib

    try:
        importlib.import_module(package)
    except ImportError as error:
        if error.name not in (package, None):  # installed, and lacks something itself
            raise
        raise ModuleNotFoundError(f"{who} needs the package {package}, which is not installed: pip install {package}") from None
