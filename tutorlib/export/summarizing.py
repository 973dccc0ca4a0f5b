"""From a model to a table of its layers, without a trace on the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tutorlib.export.base import ExportError, check_model, counted, listed, require, said, undisturbed
from tutorlib.facts import Facts


@dataclass(frozen=True)
class Layer:
    """One call of a module: its path in the model ("" is the model itself), its class, what it gave and what it owns.

    `shape` is that of the first tensor that it gave, None where the forward pass did not call it. `parameters` are those of
    this module itself that no layer before it has: their sum is the model's number. `bytes` are those of the tensor, for a
    module without children.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    note: str
    bytes: int


@dataclass(frozen=True, repr=False)
class Summary(Facts):
    """The layers of a model in the order of the forward pass, one row each. Sizes in bytes are attributes.

    `parameters` and `trainable` count each parameter once, however many modules use it. `parameter_bytes` and
    `buffer_bytes` are the memory of the model, `output_bytes` of all that its innermost layers gave in one forward pass.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[tuple[int, ...], ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    output_bytes: int

    def summary(self) -> str:
        frozen = self.parameters - self.trainable
        text = f"{counted(self.parameters, 'parameter')}{f', {frozen} of them frozen' if frozen else ''}"
        return f"{text}; {self.parameter_bytes + self.buffer_bytes} bytes of model, {self.output_bytes} bytes of outputs"

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "layer": layer.path or "(model)",
                "kind": layer.kind,
                "output": layer.shape,
                "parameters": layer.parameters,
                "note": layer.note,
            }
            for layer in self.layers
        ]

    def bars(self) -> dict[str, object]:
        """For `pictures.bars`: the bytes of the parameters and of the outputs of each layer that has some."""
        bars: list[dict[str, object]] = [
            {"name": f"{layer.path} {layer.kind}".strip(), "value": layer.bytes, "note": "output"}
            for layer in self.layers
            if layer.bytes
        ]
        return {"unit": "bytes", "bars": [{"name": "parameters", "value": self.parameter_bytes, "note": ""}, *bars]}


def summary(model: nn.Module, *args: Any) -> Summary:
    """What each layer of `model` gives for `args`, by one forward pass in evaluation mode, through torchinfo.

    `args` are what the model takes: tensors of any shape and dtype, also nested. The model is left as it was: the mode of
    each module, batch norm statistics and other buffers, hooks, random state, device and gradients, also when it fails.
    Parameters that several modules share are counted once. Claims: TS-03 to TS-06.

    Errors: `ExportError` when the model itself fails on `args` (the text names the module), or lies on several devices;
    ModuleNotFoundError without torchinfo.

    >>> summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 4))
    15 parameters; 60 bytes of model, 48 bytes of outputs
    layer    kind        output  parameters  note
    (model)  Sequential  (2, 3)           0
    0        Linear      (2, 3)          15
    1        ReLU        (2, 3)           0
    """
    check_model(model, "summary")
    if not args:
        raise ExportError("summary needs what the model takes: give example tensors, summary(model, torch.zeros(1, 3, 32, 32))")
    require("torchinfo", "summary")
    import torchinfo.torchinfo

    tensors = [*model.parameters(), *model.buffers()]
    if any(map(torch.nn.parameter.is_lazy, tensors)):
        raise ExportError("the model has lazy layers, whose shapes its first run decides: run model(*args) once, then summarize")
    devices = sorted({str(tensor.device) for tensor in tensors}) or ["cpu"]
    if len(devices) > 1:
        raise ExportError(f"the model lies on {listed(devices)}, and torchinfo would move it: bring it to one device first")
    with undisturbed(model, training=False):
        try:
            # torchinfo's own eval() would later call train() on modules that were in evaluation mode before.
            found = torchinfo.summary(model, input_data=list(args), device=devices[0], mode="eval", verbose=0, depth=99)
        except RuntimeError as error:
            cause = error.__cause__
            if cause is None:
                raise
            raise ExportError(f"the model fails on these inputs{_where(error)}: {said(cause)}") from cause
        finally:
            torchinfo.torchinfo.clear_cached_forward_pass()  # it keeps the model alive
    return _facts(model, found.summary_list, args)


def _where(error: RuntimeError) -> str:
    """After which layer, from torchinfo's text, which ends with the layers that were executed."""
    executed = str(error).rpartition("up to: [")[2].rstrip("]")
    return f" after {executed.rpartition(', ')[2]}" if executed else ""


def _facts(model: nn.Module, found: Sequence[Any], args: Sequence[Any]) -> Summary:
    owner: dict[int, str] = {}  # parameter -> the layer that has it first
    seen: set[int] = set()
    called = {layer.layer_id for layer in found if layer.executed}
    listed_ones = [(_path(layer), layer.module, layer) for layer in found]
    left = {layer.layer_id for layer in found}
    listed_ones += [(path, module, None) for path, module in model.named_modules() if id(module) not in left]
    layers = []
    for path, module, layer in listed_ones:
        own = {name: p for name, p in module._parameters.items() if p is not None}
        new = {name: p for name, p in own.items() if id(p) not in owner}
        ran = id(module) in called
        leaf = next(module.children(), None) is None
        note = ""
        if id(module) in seen:
            note = "again"
        elif not ran and (leaf or own):
            note = "not called"
        elif len(new) < len(own):
            note = "shares " + listed(sorted({owner[id(p)] for p in own.values() if id(p) in owner}))
        seen.add(id(module))
        owner.update({id(p): f"{path}.{name}".lstrip(".") for name, p in new.items()})
        shape = tuple(map(int, layer.output_size)) if ran else None
        size = int(layer.output_bytes) if leaf and ran else 0
        layers.append(Layer(path, type(module).__name__, shape, sum(p.numel() for p in new.values()), note, size))
    parameters, buffers = list(model.parameters()), list(model.buffers())  # torch gives each only once
    return Summary(
        tuple(layers),
        tuple(tuple(value.shape) for value in args if isinstance(value, torch.Tensor)),
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(p.numel() * p.element_size() for p in parameters),
        sum(b.numel() * b.element_size() for b in buffers),
        sum(layer.bytes for layer in layers),
    )


def _path(layer: Any) -> str:
    names = []
    while layer is not None and layer.depth > 0:
        names.append(layer.var_name)
        layer = layer.parent_info
    return ".".join(reversed(names))
