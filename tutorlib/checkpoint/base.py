"""What every step of a checkpoint needs: the error, the words of its texts, and bits compared."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import torch

AnyPath = str | os.PathLike[str]


_SHOWN = 8  # problems in one error text


class CheckpointError(RuntimeError):
    """What cannot be saved, read or put back, with the way out; nothing was changed."""


def listed(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


def quoted(path: object) -> str:
    return repr(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else "the file"


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def an(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def first_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0].strip() if text else ""


def kind_of(part: object) -> str:
    return "a value" if part is None else type(part).__name__


def is_part(part: object) -> bool:
    return not isinstance(part, type) and (callable(getattr(part, "state_dict", None)) or isinstance(part, torch.Generator))


def state_of(name: str, part: Any) -> Any:
    if isinstance(part, type) and hasattr(part, "state_dict"):
        raise CheckpointError(f"{name} is the class {part.__name__}, expected an object of it: {part.__name__}(...)")
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if is_part(part) else part


def parameter_names(parts: Mapping[str, Any]) -> dict[int, str]:
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    return {id(p): f"{name}.{key}" for name, module in reversed(modules.items()) for key, p in module.named_parameters()}


def shape_of(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, torch.Tensor) or torch.nn.parameter.is_lazy(value):
        return None
    return tuple(value.shape)


def described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if torch.nn.parameter.is_lazy(value):
        return "not yet initialized"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def numel(value: Any) -> int:
    return value.numel() if shape_of(value) is not None else 0


def memory_of(value: Any) -> tuple[object, ...] | None:
    if shape_of(value) is None or value.layout is not torch.strided or value.numel() == 0:
        return None
    without = value.is_meta or hasattr(value, "fake_mode")  # memory, of which there would be an address
    where = value.untyped_storage()._cdata if without else value.data_ptr()
    return value.device, where, value.dtype, tuple(value.shape), value.stride()


def tensors_in(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return 1
    children = state.values() if isinstance(state, Mapping) else state if isinstance(state, (list, tuple)) else ()
    return sum(map(tensors_in, children))


def same(a: Any, b: Any) -> bool:
    return not differences(a, b, "")


def differences(live: Any, state: Any, place: str) -> list[str]:
    """Where two states are not equal bit for bit; what only the live side has (newer defaults) does not count."""
    if isinstance(live, torch.Tensor) and isinstance(state, torch.Tensor):
        return [] if _equal_bits(live, state) else [_unequal(place, live, state)]
    if isinstance(live, Mapping) and isinstance(state, Mapping):
        found = []
        for key, value in state.items():
            inner = f"{place}.{key}"
            found += differences(live[key], value, inner) if key in live else [f"{inner} is gone"]
        return found
    if isinstance(live, (list, tuple)) and isinstance(state, (list, tuple)) and len(live) == len(state):
        return [text for i, (a, b) in enumerate(zip(live, state, strict=True)) for text in differences(a, b, f"{place}.{i}")]
    if isinstance(live, float) and isinstance(state, float):
        return [] if struct.pack("d", live) == struct.pack("d", state) else [f"{place} is {live} instead of {state}"]
    if isinstance(live, torch.Tensor) or isinstance(state, torch.Tensor):
        return [f"{place} is {described(live)} instead of {described(state)}"]
    return [] if type(live) is type(state) and live == state else [f"{place} is {live!r} instead of {state!r}"]


def _unequal(place: str, live: torch.Tensor, state: torch.Tensor) -> str:
    if described(live) != described(state):
        return f"{place} is {described(live)} instead of {described(state)}"
    return f"{place} has other values"


def _equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
        return False
    if a.layout is not torch.strided or a.is_quantized or a.is_meta or b.is_meta:
        return a.is_meta == b.is_meta and (a.is_meta or bool(torch.equal(a, b)))
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # of none or one element torch says contiguous whatever the stride, but cannot view it
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)
