"""From a model to an ONNX file: said in every respect, proven before it takes its place, and in one step."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutorlib.export.base import (
    AnyPath,
    ExportError,
    check_model,
    counted,
    first_line,
    listed,
    require,
    said,
    tensors_in,
    undisturbed,
)
from tutorlib.export.proving import Graph, Value, bound, interface, opened, prove, within
from tutorlib.facts import Facts

_MODES = {"eval": "evaluation", "train": "training"}


@dataclass(frozen=True, repr=False)
class ExportReport(Facts):
    """What `to_onnx` wrote and proved: one row for each input and output of the file.

    `differences` are the largest differences of any output from the module, one for each of `sizes`; `graph` has them node by
    node. `fixed` names axes that may vary in the file but did not vary in the proof. `random` names nodes that draw random
    numbers: then nothing was compared. `path`, `files`, `size` (bytes), `seconds` and `notes` (what torch warned of) are
    attributes.
    """

    path: Path
    files: tuple[str, ...]
    size: int
    mode: str
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sizes: tuple[Mapping[str, int], ...]
    differences: tuple[float, ...]
    tolerance: float
    graph: Graph
    fixed: tuple[str, ...]
    random: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def largest(self) -> float | None:
        """The largest difference of all; None where nothing was compared."""
        return max(self.differences, default=None)

    @property
    def proven(self) -> bool:
        """Whether every output was within the tolerance at every size."""
        return bool(self.differences) and max(self.differences) <= self.tolerance

    def summary(self) -> str:
        text = f"{counted(len(self.files), 'file')}, opset {self.opset}, {_MODES[self.mode]} mode, "
        text += f"{counted(len(self.graph.nodes), 'node')}; {self._verdict()}"
        return f"{text}; not varied: {listed(self.fixed)}" if self.fixed else text

    def _verdict(self) -> str:
        if self.random:
            return f"not compared: {listed(self.random)} draws random numbers"
        if not self.differences:
            return "not compared: no sizes were given"
        largest, varied = (
            max(self.differences),
            [axis for axis in (self.sizes[0] if self.sizes else {}) if axis not in self.fixed],
        )
        at = "".join(f" at {axis} = {', '.join(str(s[axis]) for s in self.sizes)}" for axis in varied[:1])
        if largest <= self.tolerance:
            return f"proven{at}: within {self.tolerance:g} of the module"
        return f"NOT the module{at}: differs by {bound(largest, self.tolerance)}"

    def rows(self) -> list[dict[str, object]]:
        same = within(self.largest, self.tolerance)
        return [
            {
                "value": value.name,
                "is": kind,
                "dtype": value.dtype,
                "shape": f"({', '.join(map(str, value.shape))})",
                f"within {self.tolerance:g}": same if kind == "output" else None,
            }
            for kind, values in (("input", self.inputs), ("output", self.outputs))
            for value in values
        ]


def to_onnx(
    model: nn.Module,
    args: torch.Tensor | Sequence[torch.Tensor],
    path: AnyPath,
    *,
    mode: str,
    external_data: bool,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    sizes: Sequence[int | Mapping[str, int]] = (1, 2, 5),
    tolerance: float = 1e-4,
) -> ExportReport:
    """Export `model` to an ONNX file that is proven to compute the same, through torch.onnx.export.

    `args`: an example tensor for each input of the model's forward. `mode`: "eval" or "train", the mode of the exported
    graph (torch takes the one that the model happens to be in). `external_data`: False for one file, True for the graph in
    `path` and the weights in a second file beside it (needed above 2 GB). `dynamic_shapes`, as torch takes it: for each input
    the axes that may vary, by name, such as `({0: "batch"},)`; every other shape is fixed to the example's. Names default to
    those of forward. `opset_version`: torch's default, unless given; the report says which.

    The proof: the file is read back from the disk and run by onnx's ReferenceEvaluator on examples of each of `sizes` (an
    int for the first axis of the inputs, or `{"batch": 2, "height": 9}`), made from `args`; the differences from the module
    are facts. Differences count absolutely below 1 and relatively above. Nodes that draw random numbers, such as dropout in
    training mode, cannot be compared, and the report says so. Then the file takes its place in one step: at every moment
    `path` is the earlier model or the new one, whole. The model is left as it was. Torch's notes of source files are not
    written. Claims: ON-01 to ON-11.

    Errors: `ExportError`, with nothing written, when the model fails on `args`, decides by the values of a tensor, uses an
    operator that ONNX lacks, fixes an axis that should vary, or when the file differs from the module by more than
    `tolerance` (`float("inf")` writes it nevertheless); its `report` attribute then holds the facts. TypeError and ValueError
    for arguments that do not fit; ModuleNotFoundError without onnx or onnxscript.

    >>> import tempfile
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_onnx(model, torch.ones(2, 4), f"{folder}/model.onnx", mode="eval", external_data=False, opset_version=18,
    ...             dynamic_shapes=({0: "batch"},), input_names=["image"], output_names=["scores"])
    1 file, opset 18, evaluation mode, 2 nodes; proven at batch = 1, 2, 5: within 0.0001 of the module
    value   is      dtype    shape       within 0.0001
    image   input   float32  (batch, 4)  -
    scores  output  float32  (batch, 3)  yes
    """
    began = time.perf_counter()
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    goal = _checked(model, args, path, mode, external_data, input_names, output_names)
    training = mode == "train"
    given = _first_run(model, args, training)
    if output_names is not None and len(output_names) != given:
        raise ValueError(f"output_names has {counted(len(output_names), 'name')}, the model gives {counted(given, 'tensor')}")
    shapes = _dynamic(dynamic_shapes, args, model)
    for package in ("onnx", "onnxscript"):
        require(package, "torch.onnx.export")

    content, notes = _exported(model, args, training, shapes, input_names, output_names, opset_version)
    _strip(content)
    with tempfile.TemporaryDirectory(prefix=f".{goal.name}.", suffix=".tmp", dir=goal.parent) as folder:
        fresh = Path(folder, goal.name)
        data = _data_name(goal) if external_data else None
        _write(content, fresh, data)
        written = opened(fresh)
        inputs, outputs = interface(written)
        _check_asked(written, inputs, shapes, opset_version)
        proof = prove(written, model, args, training, list(sizes), tolerance)
        files = tuple(name for name in (goal.name, data) if name is not None and Path(folder, name).exists())
        varied = {axis for axis in (proof.sizes[0] if proof.sizes else {}) if len({s[axis] for s in proof.sizes}) > 1}
        named = [axis for value in inputs for axis in value.shape if isinstance(axis, str)]
        report = ExportReport(
            goal,
            files,
            sum(Path(folder, name).stat().st_size for name in files),
            mode,
            _opset(written),
            inputs,
            outputs,
            proof.sizes,
            proof.differences,
            tolerance,
            proof.graph,
            tuple(dict.fromkeys(axis for axis in named if axis not in varied)) if proof.differences else (),
            proof.random,
            notes,
            time.perf_counter() - began,
        )
        if proof.differences and not report.proven:
            error = ExportError(
                f"the exported model is not the module: its outputs differ by {bound(max(report.differences), tolerance)}"
                f"{_first_apart(report.graph)}; nothing was written (tolerance=float('inf') writes it nevertheless)"
            )
            error.report = report
            raise error
        _take_place(Path(folder), goal, files)
    return report


# ------------------------------------------------------------------------------------------------------- before anything is done


def _checked(
    model: nn.Module, args: Sequence[Any], path: AnyPath, mode: str, external_data: bool, *names: Sequence[str] | None
) -> Path:
    check_model(model, "to_onnx")
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}, expected 'eval' or 'train': the mode of the exported model is said, not guessed")
    if type(external_data) is not bool:
        raise TypeError(f"external_data is {external_data!r}, expected False for one file or True for a second one with weights")
    if not args:
        raise ValueError("args is empty, expected an example tensor for each input of the model")
    for number, value in enumerate(args):
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"args[{number}] is {type(value).__name__}, expected a tensor: bind other arguments in a small module around it"
            )
    if names[0] is not None and len(names[0]) != len(args):
        raise ValueError(f"input_names has {counted(len(names[0]), 'name')}, args has {counted(len(args), 'tensor')}")
    every = [name for some in names for name in some or ()]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise ValueError(f"the name {twice[0]!r} is given twice: inputs and outputs need names of their own")
    goal = Path(os.path.realpath(path))  # a link keeps pointing where it points
    if not goal.parent.is_dir():
        raise FileNotFoundError(f"the folder of {os.fspath(path)!r} does not exist: make it first")
    if goal.exists() and not goal.is_file():
        raise ExportError(f"{os.fspath(path)!r} is a folder or a device: name a file in it")
    return goal


def _first_run(model: nn.Module, args: Sequence[torch.Tensor], training: bool) -> int:
    """How many tensors the model gives; its own errors come out here, before torch's exporter wraps them."""
    with undisturbed(model, training):
        try:
            result = model(*args)
        except Exception as error:
            raise ExportError(f"the model itself fails on args: {said(error)}") from error
    given = len(tensors_in(result))
    if not given:
        raise ExportError(f"the model gives {type(result).__name__}, expected at least one tensor")
    return given


def _dynamic(shapes: Any, args: Sequence[torch.Tensor], model: nn.Module) -> tuple[Any, ...] | None:
    """One entry for each input: a dictionary from axis to name, or None."""
    if shapes is None:
        return None
    if isinstance(shapes, Mapping):
        parameters = list(inspect.signature(model.forward).parameters)[: len(args)]
        strange = [name for name in shapes if name not in parameters]
        if strange:
            raise ValueError(f"dynamic_shapes names {strange[0]!r}, the model's forward takes {listed(parameters)}")
        shapes = tuple(shapes.get(name) for name in parameters)
    if not isinstance(shapes, Sequence) or isinstance(shapes, str) or len(shapes) != len(args):
        raise ValueError(
            f"dynamic_shapes is {shapes!r}, expected one entry for each of {counted(len(args), 'input')}, "
            'such as ({0: "batch"},), or {"x": {0: "batch"}} by the names of forward'
        )
    entries = []
    for number, (entry, tensor) in enumerate(zip(shapes, args, strict=True)):
        if entry is not None and not isinstance(entry, Mapping):
            raise ValueError(f"dynamic_shapes[{number}] is {entry!r}, expected a dictionary such as {{0: 'batch'}}, or None")
        for axis, name in (entry or {}).items():
            if type(axis) is not int or not 0 <= axis < tensor.dim():
                raise ValueError(f"dynamic_shapes[{number}] names axis {axis!r}, input {number} has {tensor.dim()} axes")
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"dynamic_shapes[{number}][{axis}] is {name!r}, expected a name such as 'batch'")
        entries.append(dict(entry) if entry else None)
    return tuple(entries)


# ------------------------------------------------------------------------------------------------------------- torch's exporter


def _exported(
    model: nn.Module,
    args: tuple[torch.Tensor, ...],
    training: bool,
    shapes: tuple[Any, ...] | None,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    opset_version: int | None,
) -> tuple[Any, tuple[str, ...]]:
    """The model as torch exports it, and what torch warned of."""
    try:
        with undisturbed(model, training), _quiet() as caught:
            program = torch.onnx.export(
                model,
                args,
                None,
                dynamic_shapes=shapes,
                input_names=list(input_names) if input_names is not None else None,
                output_names=list(output_names) if output_names is not None else None,
                opset_version=opset_version,
                verbose=False,
            )
            assert program is not None
            content = program.model_proto
    except torch.onnx.OnnxExporterError as error:
        # Torch's own report is some hundred lines; it is the `__context__` of this error, for who needs it.
        raise ExportError(_reason(error, shapes, input_names)) from None
    # The axis name: what became of it stands in the shapes of the report. Training mode: it was asked for.
    noise = ("# The axis name", "Exporting a model while it is in training mode")
    texts = [" ".join(str(w.message).split()) for w in caught]
    return content, tuple(dict.fromkeys(text for text in texts if not text.startswith(noise)))


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Torch's exporter prints its progress, and its logs hold whole programs; what matters comes back as an error or a note."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(before)


def _reason(error: BaseException, shapes: tuple[Any, ...] | None, input_names: Sequence[str] | None) -> str:
    """The one sentence in torch's long texts, and the way out."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for one in chain:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(one))
        if type(one).__name__ == "GuardOnDataDependentSymNode" or "data-dependent" in first_line(one):
            at = re.search(r"raised this error:\s*\n\s*File \"[^\"]*\", line \d+, in (\w+)\n\s*(.+)", text)
            line = f" in {at[1]}: `{at[2].strip()}`" if at else ""
            return (
                f"the model decides by the values of a tensor{line}; a graph has no such choice, its nodes are always the same: "
                "use torch.where or torch.cond"
            )
        static = re.search(r"inferred a static shape of (\d+) for dimension inputs\[(\d+)\]\.shape\[(\d+)\]", text)
        if static:
            number, axis = int(static[2]), int(static[3])
            name = input_names[number] if input_names else f"input {number}"
            label = (shapes[number] or {}).get(axis) if shapes else None
            return (
                f"axis {axis} of {name} cannot vary: the model fixes it to {static[1]}; "
                f"leave {label!r} out of dynamic_shapes, or make the model independent of it"
            )
        lacks = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
        if lacks:
            operator = lacks[1].replace(".", "::", 1) if "." in lacks[1] else lacks[1]
            return (
                f"ONNX has no operator for {operator}: compute that outside the model, replace it, or teach torch.onnx.export "
                "by its custom_translation_table"
            )
    last = next((one for one in chain[1:] if first_line(one)), error)
    return f"torch cannot export the model: {said(last)}"


def _strip(content: Any) -> None:
    """Take out what torch notes of source files: paths of this machine have no place in a file for others."""
    for holder in [content, content.graph, *content.functions, *content.graph.node]:
        kept = [entry for entry in holder.metadata_props if not entry.key.endswith("stack_trace")]
        if len(kept) != len(holder.metadata_props):
            del holder.metadata_props[:]
            holder.metadata_props.extend(kept)


def _opset(content: Any) -> int:
    return next((int(entry.version) for entry in content.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _check_asked(content: Any, inputs: Sequence[Value], shapes: tuple[Any, ...] | None, opset_version: int | None) -> None:
    """Torch falls back in silence where it cannot do what was asked."""
    if opset_version is not None and _opset(content) != opset_version:
        raise ExportError(
            f"opset {opset_version} was asked for, torch made opset {_opset(content)}: ask for that, or leave opset_version out"
        )
    for value, entry in zip(inputs, shapes or (), strict=False):
        for axis, name in (entry or {}).items():
            if isinstance(value.shape[axis], int):
                raise ExportError(
                    f"axis {axis} of {value.name} ({name}) cannot vary: the model fixes it to {value.shape[axis]}; "
                    "leave it out of dynamic_shapes"
                )


def _first_apart(graph: Graph) -> str:
    for node in graph.nodes:
        if node.difference is not None and not node.difference <= graph.tolerance:
            place = f"module {node.module!r}" if node.module else "the model's own forward"
            return f", first at the node {node.operator} of {place} ({node.kind})"
    return ""


# ----------------------------------------------------------------------------------------------------------------- onto the disk


def _data_name(goal: Path) -> str:
    """The name of the second file: one that the earlier file at `goal`, which stays whole until the end, does not use."""
    usual = f"{goal.name}.data"
    return f"{goal.name}.data2" if usual in _locations(goal) else usual


def _locations(path: Path) -> set[str]:
    import onnx

    if not path.is_file():
        return set()
    try:
        earlier = onnx.load(path, load_external_data=False)
    except Exception:  # not an ONNX file: it will be replaced
        return set()
    return {e.value for tensor in earlier.graph.initializer for e in tensor.external_data if e.key == "location"}


def _write(content: Any, path: Path, data: str | None) -> None:
    import onnx

    try:
        if data is None:
            onnx.save_model(content, path)
        else:
            onnx.save_model(
                content, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data, size_threshold=0
            )
        onnx.checker.check_model(path, full_check=data is None)  # shapes are inferred from weights in the file itself only
    except OSError as error:
        raise ExportError(f"cannot write {path.name}: {error.strerror or error}; nothing was written") from error
    except ValueError as error:
        raise ExportError(f"cannot write {path.name}: {said(error)}; above 2 GB use external_data=True") from error


def _take_place(folder: Path, goal: Path, files: Sequence[str]) -> None:
    """Weights first, under a name that nothing uses yet; the graph, which names them, then replaces the earlier one."""
    earlier = _locations(goal)
    try:
        for name in reversed(files):
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())
            (folder / name).replace(goal.parent / name)
    except OSError as error:
        raise ExportError(f"cannot write {goal.name}: {error.strerror or error}; the earlier file is untouched") from error
    for name in earlier & {f"{goal.name}.data", f"{goal.name}.data2"} - set(files):
        (goal.parent / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # where the system lets a folder be flushed, the new names are durable too
        handle = os.open(goal.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
