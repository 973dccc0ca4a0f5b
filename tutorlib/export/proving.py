"""From an ONNX file to a proof: it is read from the disk and run by onnx's own evaluator, without torch."""

from __future__ import annotations

import ast
import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutorlib.export.base import AnyPath, ExportError, counted, listed, require, said, tensors_in, undisturbed
from tutorlib.facts import Facts

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")


@dataclass(frozen=True)
class Value:
    """An input or output of an ONNX file: name, dtype, and shape with a name for each axis that may vary."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Node:
    """A node of the graph: its operator, the module whose forward pass it comes from, and how far it is from that module.

    `module` is the path in the model, "" for the model's own forward, `kind` the module's class. `shape` is what the node
    gave in the last run. `difference` is the largest over all runs, None where no module gave this very value.
    """

    operator: str
    module: str
    kind: str
    shape: tuple[int, ...]
    difference: float | None


@dataclass(frozen=True, repr=False)
class Graph(Facts):
    """The nodes of an ONNX file beside the modules of the model that it came from, in the model's order.

    A module without a node has a row too: its work was done before (folded into another node), or is none (dropout in
    evaluation mode).
    """

    nodes: tuple[Node, ...]
    modules: tuple[tuple[str, str, bool], ...]
    tolerance: float

    def summary(self) -> str:
        without = sum(not any(n.module == path for n in self.nodes) for path, _, leaf in self.modules if leaf)
        compared = [n for n in self.nodes if n.difference is not None]
        close = sum(n.difference <= self.tolerance for n in compared if n.difference is not None)
        text = f"{counted(len(self.nodes), 'node')}, {len(compared)} of them compared with their modules: "
        text += f"{close} within {self.tolerance:g}"
        return f"{text}; {counted(without, 'module')} without a node" if without else text

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "module": line["path"] or "(model)",
                "class": kind,
                "node": node.operator if node else None,
                "gives": node.shape if node else None,
                f"within {self.tolerance:g}": within(node.difference, self.tolerance) if node else None,
            }
            for line, kind, node in self._lines()
        ]

    def graph(self) -> list[dict[str, object]]:
        """For `pictures.graph`: one line for each module and for each further node of it."""
        lines: list[dict[str, object]] = []
        before = ""
        for line, kind, node in self._lines():
            again = bool(lines) and line["path"] == before
            before = str(line["path"])
            bad = node is not None and node.difference is not None and not node.difference <= self.tolerance
            lines.append(
                {
                    "depth": line["depth"],
                    "path": "" if again else str(line["path"]).rpartition(".")[2] or "(model)",
                    "before": "" if again else kind,
                    "rule": node.operator if node else "",
                    "after": _told(node, self.tolerance) if node else "no node" if line["leaf"] else "",
                    "surprise": bad or (node is None and bool(line["leaf"])),
                }
            )
        return lines

    def _lines(self) -> Iterator[tuple[dict[str, object], str, Node | None]]:
        for path, kind, leaf in self.modules:
            line: dict[str, object] = {"path": path, "depth": path.count(".") + 1 if path else 0, "leaf": leaf}
            mine = [node for node in self.nodes if node.module == path]
            for node in mine or [None]:  # type: ignore[list-item]
                yield line, kind, node


def _told(node: Node, tolerance: float) -> str:
    shape = f"({', '.join(map(str, node.shape))}{',' if len(node.shape) == 1 else ''})"
    if node.difference is None:
        return shape
    return f"{shape} {'within' if node.difference <= tolerance else 'differs by'} {bound(node.difference, tolerance)}"


def within(difference: float | None, tolerance: float) -> object:
    """For a table: yes, nothing to compare, or by how much (one digit: the others differ between processors)."""
    if difference is None:
        return None
    return True if difference <= tolerance else f"no, {bound(difference, tolerance)}"


def bound(difference: float, tolerance: float) -> str:
    return f"{tolerance:g}" if difference <= tolerance else f"{difference:.1g}"


def run(path: AnyPath, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run an ONNX file on `inputs`, in the order in which the file names them; its outputs, in order.

    onnx's own ReferenceEvaluator does it, in numpy: independent of torch, and slow (a check, not a way to serve). The
    dtypes and shapes that the file declares are checked first, as every runtime does.

    Errors: FileNotFoundError; `ExportError` for a file that is no ONNX file, whose second file is missing, whose inputs are
    others, or which fails; ModuleNotFoundError without onnx. Claims: ON-01, ON-05.

    >>> import tempfile
    >>> from tutorlib import export
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = f"{folder}/relu.onnx"
    ...     report = export.to_onnx(torch.nn.ReLU(), torch.ones(3), file, mode="eval", external_data=False)
    ...     run(file, torch.tensor([-1.0, 0.0, 2.0]))
    (tensor([0., 0., 2.]),)
    """
    model = opened(path)
    values, _ = interface(model)
    for number, tensor in enumerate(inputs):
        if not isinstance(tensor, torch.Tensor):
            raise ExportError(f"input {number} is {type(tensor).__name__}, expected a tensor")
    check_inputs(
        values, [tuple(t.shape) for t in inputs], [str(t.dtype).removeprefix("torch.") for t in inputs], str(Path(path).name)
    )
    found = evaluate(model, {v.name: t.detach().cpu().numpy() for v, t in zip(values, inputs, strict=True)})
    return tuple(torch.from_numpy(np.array(found[out.name])) for out in model.graph.output)


def opened(path: AnyPath) -> Any:
    """The file's model with its weights, also those of a second file."""
    require("onnx", "running an ONNX file")
    import onnx

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ExportError(f"{path.name} is not an ONNX file: {said(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ExportError(f"{path.name} is not an ONNX file: it has no graph")
    names = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    for name in sorted(names):
        if not (path.parent / name).is_file():
            raise ExportError(f"{path.name} keeps its weights in {name}, which is not beside it: keep the two files together")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ExportError(f"the weights of {path.name} cannot be read: {said(error)}") from error
    return model


def interface(model: Any) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """What the file takes and what it gives."""
    from onnx import helper

    weights = {tensor.name for tensor in model.graph.initializer}

    def value(info: Any) -> Value:
        tensor = info.type.tensor_type
        shape = tuple(d.dim_param or d.dim_value if d.WhichOneof("value") else "?" for d in tensor.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else "?"
        return Value(info.name, str(dtype), shape)

    graph = model.graph
    return tuple(value(i) for i in graph.input if i.name not in weights), tuple(map(value, graph.output))


def check_inputs(values: Sequence[Value], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str], name: str) -> None:
    """As a runtime does: the number of inputs, their dtypes, and each axis; an axis of one name has one size."""
    if len(values) != len(shapes):
        takes = listed(values) if values else "no inputs"
        raise ExportError(f"{name} takes {takes}, found {counted(len(shapes), 'input')}")
    sizes: dict[str, int] = {}
    for value, shape, dtype in zip(values, shapes, dtypes, strict=True):
        if dtype != value.dtype:
            raise ExportError(f"{name}: {value.name} is {value.dtype} in the file, found {dtype}")
        fits = len(shape) == len(value.shape)
        for axis, size in zip(value.shape, shape, strict=False):
            fits = fits and size == (axis if isinstance(axis, int) else sizes.setdefault(axis, size))
        if not fits:
            fixed = ", ".join(f"{axis} = {sizes[axis]}" for axis in value.shape if isinstance(axis, str) and axis in sizes)
            raise ExportError(
                f"{name}: {value.name} has the shape ({', '.join(map(str, value.shape))}) in the file"
                f"{f' with {fixed}' if fixed else ''}, found {shape}"
            )


def evaluate(model: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Every value of the graph by name."""
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(model).run(None, dict(feeds), intermediate=True)
    except Exception as error:
        raise ExportError(f"onnx's evaluator fails on the file: {said(error)}") from error
    return dict(found)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays: absolute below 1, relative to `b` above; inf where they cannot be compared.

    >>> difference(np.array([1.0, 100.0]), np.array([1.0, 101.0])) == 1 / 101
    True
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return math.inf
    if a.size == 0:
        return 0.0
    if a.dtype.kind in "biu":
        return 0.0 if np.array_equal(a, b) else math.inf
    x, y = (v.astype(np.complex128 if v.dtype.kind == "c" else np.float64) for v in (a, b))
    with np.errstate(all="ignore"):
        found = np.abs(x - y) / np.maximum(1.0, np.abs(y))
    equal = (x == y) | (np.isnan(x) & np.isnan(y))
    found = np.where(equal, 0.0, found)
    return float(np.where(np.isnan(found), math.inf, found).max())


# ------------------------------------------------------------------------------------- the file against the model it came from


@dataclass(frozen=True)
class Proof:
    """`sizes` and `differences` belong together; `differences` is empty where random nodes forbid a comparison."""

    sizes: tuple[Mapping[str, int], ...]
    differences: tuple[float, ...]
    graph: Graph
    random: tuple[str, ...]


def prove(
    onnx_model: Any, model: nn.Module, args: Sequence[torch.Tensor], training: bool, sizes: Sequence[Any], tolerance: float
) -> Proof:
    """Run the module and the file on the same inputs of each size, and compare all outputs and all that modules gave."""
    inputs, outputs = interface(onnx_model)
    runs = _runs(inputs, args, sizes)
    origin = {path: module for path, module in model.named_modules(remove_duplicate=False)}
    paths = [_path(node, origin) for node in onnx_model.graph.node]
    random = _random_nodes(onnx_model, paths)
    nearest: list[float | None] = [None] * len(paths)
    shapes: list[tuple[int, ...]] = [()] * len(paths)
    differences = []
    for sized in runs:
        feeds = [_resized(value, tensor, sized) for value, tensor in zip(inputs, args, strict=True)]
        wanted, given = _observed(model, feeds, training, sized)
        check_inputs(inputs, [tuple(f.shape) for f in feeds], [v.dtype for v in inputs], "the exported model")
        found = evaluate(onnx_model, {v.name: f.detach().cpu().numpy() for v, f in zip(inputs, feeds, strict=True)})
        if len(wanted) != len(outputs):
            raise ExportError(f"the model gives {counted(len(wanted), 'tensor')}, the exported model {listed(outputs)}")
        apart = {o.name: difference(np.asarray(found[o.name]), w) for o, w in zip(outputs, wanted, strict=True)}
        differences.append(max(apart.values()))
        for index, node in enumerate(onnx_model.graph.node):
            shapes[index] = tuple(np.asarray(found[node.output[0]]).shape) if node.output[0] in found else ()
        here: dict[int, float] = {}
        for index, array in _last_nodes(onnx_model, paths, origin, given):
            value = np.asarray(found[onnx_model.graph.node[index].output[0]])
            if value.shape == array.shape:  # of several tensors that the module gave, the one that this node makes
                here[index] = min(difference(value, array), here.get(index, math.inf))
        for index, node in enumerate(onnx_model.graph.node):
            if node.output[0] in apart:
                here[index] = apart[node.output[0]]
        for index, one in here.items():
            nearest[index] = max(one, nearest[index] or 0.0)
    modules = tuple((path, type(m).__name__, next(m.children(), None) is None) for path, m in origin.items())
    nodes = tuple(
        Node(node.op_type, path, type(origin[path]).__name__, shape, None if random else near)
        for node, path, shape, near in zip(onnx_model.graph.node, paths, shapes, nearest, strict=True)
    )
    return Proof(tuple(runs), () if random else tuple(differences), Graph(nodes, modules, tolerance), random)


def _runs(inputs: Sequence[Value], args: Sequence[torch.Tensor], sizes: Sequence[Any]) -> list[dict[str, int]]:
    """For each wanted size: the size of every named axis; the example's own where nothing is named or wanted."""
    own: dict[str, int] = {}
    batch = []
    for value, tensor in zip(inputs, args, strict=True):
        for number, (axis, size) in enumerate(zip(value.shape, tensor.shape, strict=True)):
            if isinstance(axis, str):
                own.setdefault(axis, size)
                if number == 0:
                    batch.append(axis)
    runs: list[dict[str, int]] = []
    for wanted in sizes if own else [{}][: len(sizes)]:
        named = wanted if isinstance(wanted, Mapping) else {axis: wanted for axis in batch or own}
        strange = sorted(set(named) - set(own))
        if strange:
            raise ExportError(f"sizes names {listed(strange)}, the axes that may vary are {listed(sorted(own))}")
        one = {**own, **named}
        if one not in runs:
            runs.append(one)
    return runs


def _resized(value: Value, tensor: torch.Tensor, sized: Mapping[str, int]) -> torch.Tensor:
    """The example at another size: along each named axis its entries from the start, again and again."""
    for number, axis in enumerate(value.shape):
        if isinstance(axis, str) and sized[axis] != tensor.shape[number]:
            if not tensor.shape[number]:
                raise ExportError(f"the example for {value.name} is empty along axis {number}: give one with entries")
            index = torch.arange(sized[axis], device=tensor.device) % tensor.shape[number]
            tensor = tensor.index_select(number, index)
    return tensor


def _observed(
    model: nn.Module, feeds: Sequence[torch.Tensor], training: bool, sized: Mapping[str, int]
) -> tuple[list[np.ndarray], dict[int, list[list[np.ndarray]]]]:
    """What the model gives, and what each module gave in each of its calls."""
    given: dict[int, list[list[np.ndarray]]] = {}

    def note(module: nn.Module, args: Any, result: Any) -> None:
        given.setdefault(id(module), []).append([_array(t) for t in tensors_in(result)])

    with undisturbed(model, training), contextlib.ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_hook(note).remove)
        try:
            result = model(*feeds)
        except Exception as error:
            at = f" with {_sized(sized)}" if sized else ""
            raise ExportError(f"the model itself fails{at}: {said(error)}: give `sizes` that it can take") from error
    return [_array(t) for t in tensors_in(result)], given


def _sized(sized: Mapping[str, int]) -> str:
    return listed(f"{axis} = {size}" for axis, size in sized.items())


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:
        import onnx

        return tensor.view(torch.uint16).numpy().view(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)).copy()
    return tensor.numpy().copy()  # a later layer may work in place


def _path(node: Any, modules: Mapping[str, nn.Module]) -> str:
    """The path of the module in whose forward the node was made, as torch's exporter notes it; "" where it does not say."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            with contextlib.suppress(ValueError, SyntaxError, IndexError, TypeError):
                path = re.sub(r"@\d+", "", ast.literal_eval(entry.value)[-2])
                return path if path in modules else ""
    return ""


def _last_nodes(
    onnx_model: Any, paths: Sequence[str], modules: Mapping[str, nn.Module], given: Mapping[int, list[list[np.ndarray]]]
) -> Iterator[tuple[int, np.ndarray]]:
    """The nodes that end a call of a module, each with what the module gave: the last of each unbroken run of its nodes."""
    runs: dict[int, list[list[int]]] = {}
    origin = {id(module): module for module in modules.values()}
    before = 0
    for index, path in enumerate(paths):
        module = id(modules[path])
        if module != before:
            runs.setdefault(module, []).append([])
        runs[module][-1].append(index)
        before = module
    for module, found in runs.items():
        calls, single = given.get(module, []), [index for run in found for index in run]
        inner = {id(one) for one in origin[module].modules()}
        if len(inner) > 1:  # it gives what its last node gives, if that is its own and not one of its children's
            whole = [index for index, path in enumerate(paths) if id(modules[path]) in inner]
            found = [single] if len(calls) == 1 and whole[-1] == single[-1] else []
            if not found:
                continue
        if len(found) == len(calls):
            ends = [run[-1] for run in found]
        elif len(single) == len(calls):  # calls that follow each other, of one node each
            ends = single
        else:
            ends, calls = single[-1:], calls[-1:]
        for index, arrays in zip(ends, calls, strict=False):
            for array in arrays:
                yield index, array


def _random_nodes(onnx_model: Any, paths: Sequence[str]) -> tuple[str, ...]:
    """The nodes that draw random numbers, each with its module."""
    constants = {t.name: t for t in onnx_model.graph.initializer}
    found = []
    for node, path in zip(onnx_model.graph.node, paths, strict=True):
        draws = node.op_type in _RANDOM
        if node.op_type == "Dropout" and len(node.input) > 2:
            from onnx import numpy_helper

            draws = node.input[2] not in constants or bool(numpy_helper.to_array(constants[node.input[2]]))
        if draws:
            found.append(f"{node.op_type} ({path or 'the model itself'})")
    return tuple(found)
