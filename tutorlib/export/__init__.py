"""Looking at a model and handing it on: what its layers do, and an ONNX file that is proven to compute the same.

| verb | what it does |
|---|---|
| `summary(model, *args)` | layers, shapes, parameters and memory, and leaves the model as it was |
| `to_onnx(model, args, path, mode=..., external_data=...)` | writes an ONNX file in one step, after proving it |
| `run(path, *inputs)` | runs an ONNX file with onnx's own evaluator, which knows nothing of torch |

A proof is a run: the file as it lies on the disk is read back and evaluated without torch, at several batch sizes, and every
value that a module gives is compared with the value of the node that came from it.
"""

from __future__ import annotations

from tutorlib.export.base import ExportError
from tutorlib.export.exporting import ExportReport, to_onnx
from tutorlib.export.proving import Graph, Node, Value, run
from tutorlib.export.summarizing import Layer, Summary, summary

__all__ = ["ExportError", "ExportReport", "Graph", "Layer", "Node", "Summary", "Value", "run", "summary", "to_onnx"]
