"""Summaries leave a model as it was, exported files are proven, and what cannot be done is said in one sentence."""

import copy
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import laws
from tutorlib import datasets, export
from tutorlib.export import exporting, proving
from tutorlib.export.base import undisturbed


class Own(nn.Module):
    """A parameter of another name, a layer used twice, one never called, a container that is no Sequential."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(7))
        self.layer = nn.Linear(3, 3)
        self.unused = nn.Linear(2, 2)
        self.rest = nn.ModuleList([nn.Linear(3, 3), nn.BatchNorm1d(3)])

    def forward(self, x):
        return self.rest[1](self.rest[0](self.layer(self.layer(x)))) * self.scale.sum()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 3)
        self.out = nn.Linear(3, 9, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, words):
        return {"scores": self.out(self.embedding(words))}


class Draws(nn.Module):
    """Draws random numbers and changes a buffer in every mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        self.seen = self.seen + 1
        np.random.rand()
        random.random()
        return self.layer(x) + 0 * torch.rand(1)


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        self.norm.eval()
        self.norm.running_mean.add_(1)
        raise ValueError("broken in forward")


class Choice(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return 2 * x
        return -x


class Pair(nn.Module):
    def forward(self, a, b):
        return {"sum": a + b, "more": (a * b, [a - 1])}


def network(norm=True, dropout=True):
    layers = [nn.Conv2d(1, 4, 3, padding=1), *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), *([nn.Dropout(0.5)] if dropout else []), nn.Linear(64, 10))


def everything(model):
    """All that a look at a model must leave as it was."""
    return {
        "modes": [m.training for m in model.modules()],
        "hooks": [[len(getattr(m, name)) for name in ("_forward_hooks", "_forward_pre_hooks")] for m in model.modules()],
        "buffers": [(name, id(b), b.clone()) for name, b in model.named_buffers()],
        "parameters": [(name, id(p), p.detach().clone(), p.grad, p.device.type) for name, p in model.named_parameters()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": list(np.random.get_state(legacy=False)["state"]["key"]),
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def words(error):
    return " ".join(str(error.value).split())


IMAGE = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BATCH = ({0: "batch"},)
EVAL = {"mode": "eval", "external_data": False}


# --- summary


@pytest.mark.parametrize(
    ("make", "args", "total"),
    [
        (Own, (torch.ones(2, 3),), 43),
        (Tied, (torch.zeros(2, 5, dtype=torch.long),), 27),
        (lambda: nn.LSTM(4, 5), (torch.ones(6, 1, 4),), 220),
        (lambda: nn.Linear(3, 2).double(), (torch.ones(1, 3).double(),), 8),
        (lambda: nn.Bilinear(2, 2, 3), (torch.ones(1, 2), torch.ones(1, 2)), 15),
        (nn.ReLU, (torch.ones(1, 2),), 0),
    ],
    ids=["own", "tied", "lstm", "double", "two inputs", "none"],
)
def test_each_parameter_is_counted_once_and_the_column_adds_up(make, args, total):
    model = make()
    found = export.summary(model, *args)
    assert found.parameters == sum(p.numel() for p in model.parameters()) == total
    assert sum(row["parameters"] for row in found.rows()) == total
    laws.same_text_twice(lambda: export.summary(model, *args))


def test_rows_say_what_was_called_again_shared_or_not_at_all():
    notes = {(layer.path, layer.note) for layer in export.summary(Own(), torch.ones(2, 3)).layers}
    assert {("layer", ""), ("layer", "again"), ("unused", "not called"), ("rest", ""), ("rest.1", "")} <= notes
    shares = export.summary(Tied(), torch.zeros(2, 5, dtype=torch.long)).layers[-1]
    assert (shares.path, shares.note, shares.parameters) == ("out", "shares embedding.weight", 0)


def test_shapes_and_memory_are_those_of_the_run():
    found = export.summary(network(), torch.zeros(3, 1, 8, 8))
    assert [layer.shape for layer in found.layers[1:]] == [*[(3, 4, 8, 8)] * 3, (3, 4, 4, 4), (3, 64), (3, 64), (3, 10)]
    assert found.parameter_bytes == 698 * 4 and found.buffer_bytes == 4 * 4 * 2 + 8
    assert found.output_bytes == 4 * (3 * (3 * 4 * 64) + 3 * 64 + 2 * 3 * 64 + 30)
    frozen = nn.Linear(3, 2).requires_grad_(False)
    assert "8 parameters, 8 of them frozen" in str(export.summary(frozen, torch.ones(1, 3)))


def test_a_summary_leaves_the_model_as_it_was():
    for make, x in ((network, IMAGE), (Draws, torch.ones(2, 3))):
        model = make()
        model[1].eval() if isinstance(model, nn.Sequential) else None
        model.register_forward_hook(lambda *_: None)
        before = everything(model)
        export.summary(model, x)
        assert laws.same(everything(model), before)


def test_a_summary_that_fails_leaves_the_model_as_it_was_and_says_who_failed():
    model = Breaks()
    before = everything(model)
    with pytest.raises(export.ExportError, match="the model fails on these inputs: ValueError: broken in forward"):
        export.summary(model, torch.ones(2, 3))
    assert laws.same(everything(model), before)


def test_what_cannot_be_summarized_is_said():
    with pytest.raises(TypeError, match=r"summary needs a model, found the class Linear: make one, Linear\(...\)"):
        export.summary(nn.Linear, torch.ones(1))
    with pytest.raises(TypeError, match=r"summary needs a torch.nn.Module: found dict"):
        export.summary({}, torch.ones(1))
    with pytest.raises(export.ExportError, match="give example tensors"):
        export.summary(nn.Linear(1, 1))
    with pytest.raises(export.ExportError, match="lazy layers, whose shapes its first run decides: run model"):
        export.summary(nn.LazyLinear(2), torch.ones(1, 3))
    two = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"))
    with pytest.raises(export.ExportError, match="lies on cpu and meta, and torchinfo would move it"):
        export.summary(two, torch.ones(1, 1))


def test_a_summary_of_a_model_without_memory():
    found = export.summary(nn.Linear(3, 2, device="meta"), torch.ones(4, 3, device="meta"))
    assert found.layers[0].shape == (4, 2) and found.parameters == 8


def test_a_summary_keeps_no_model_alive():
    import gc
    import weakref

    model = nn.Linear(3, 2)
    gone = weakref.ref(model)
    export.summary(model, torch.ones(1, 3))
    del model
    gc.collect()
    assert gone() is None


def test_torchsummary_is_as_lesson_27_says(capsys):
    torchsummary = pytest.importorskip("torchsummary")
    torchsummary.summary(Own(), (3,), device="cpu")
    assert "Total params: 42" in capsys.readouterr().out  # 12 + 12 for two calls of one layer, 12 + 6; nothing for scale
    model = network()
    torchsummary.summary(model, (1, 8, 8), device="cpu")
    assert model[1].num_batches_tracked == 1


# --- undisturbed


def test_undisturbed_gives_back_modes_buffers_hooks_and_random_state():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), Draws())
    model[0].eval()
    before = everything(model)
    with pytest.raises(KeyError), undisturbed(model, training=True):
        assert all(m.training for m in model.modules()) and not torch.is_grad_enabled()
        model(torch.ones(4, 3))
        model[0].register_forward_hook(lambda *_: None)
        model[0].running_mean = torch.ones(3)
        raise KeyError
    assert laws.same(everything(model), before) and torch.is_grad_enabled()


# --- to_onnx


def test_an_exported_model_is_proven_at_each_size_and_left_as_it_was(tmp_path):
    model = network()
    model[1].eval()
    before = everything(model)
    report = export.to_onnx(
        model, IMAGE, tmp_path / "m.onnx", **EVAL, dynamic_shapes=BATCH, input_names=["image"], output_names=["scores"]
    )
    assert laws.same(everything(model), before)
    assert report.proven and report.largest < 1e-5 and len(report.differences) == 3
    assert [dict(size) for size in report.sizes] == [{"batch": 1}, {"batch": 2}, {"batch": 5}]
    assert list(map(str, (*report.inputs, *report.outputs))) == ["image float32 (batch, 1, 8, 8)", "scores float32 (batch, 10)"]
    assert "proven at batch = 1, 2, 5: within 0.0001 of the module" in str(report) and "evaluation mode" in str(report)
    assert report.files == ("m.onnx",) and names(tmp_path) == ["m.onnx"] and report.size == (tmp_path / "m.onnx").stat().st_size
    (scores,) = export.run(tmp_path / "m.onnx", IMAGE[:1])
    torch.testing.assert_close(scores, copy.deepcopy(model).eval()(IMAGE[:1]).detach(), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        model(IMAGE)  # still trains: nothing of the exporter is left in it

    graph = report.graph
    assert [(n.operator, n.module, n.kind) for n in graph.nodes] == [
        ("Conv", "1", "BatchNorm2d"),
        ("Relu", "2", "ReLU"),
        ("MaxPool", "3", "MaxPool2d"),
        ("Reshape", "4", "Flatten"),
        ("Gemm", "6", "Linear"),
    ]
    assert all(node.difference < 1e-5 for node in graph.nodes) and "2 modules without a node" in graph.summary()
    lines = {line["path"]: line for line in graph.graph()}
    assert lines["0"]["after"] == "no node" and lines["0"]["surprise"] and lines["5"]["surprise"] and not lines["6"]["surprise"]


def test_nothing_of_this_machine_is_in_the_file_and_nothing_is_said(tmp_path, capfd):
    export.to_onnx(nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "m.onnx", **EVAL)
    content = (tmp_path / "m.onnx").read_bytes()
    assert b"Linear" in content and b"site-packages" not in content and str(Path(__file__).parent).encode() not in content
    assert capfd.readouterr() == ("", "")


def test_digits_are_read_from_the_file(tmp_path):
    data = datasets.digits("test")
    images = (data.images.float() / 16).unsqueeze(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    export.to_onnx(model, images[:2], tmp_path / "m.onnx", **EVAL, dynamic_shapes=BATCH)
    assert torch.equal(export.run(tmp_path / "m.onnx", images)[0].argmax(1), model(images).argmax(1))


def test_two_files_and_how_they_replace_each_other(tmp_path):
    def write(value, external):
        model = nn.Linear(3, 2, bias=False)
        nn.init.constant_(model.weight, value)
        return export.to_onnx(model, torch.ones(2, 3), tmp_path / "m.onnx", mode="eval", external_data=external)

    def found():
        return export.run(tmp_path / "m.onnx", torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))[0][0].tolist()

    for value, external, files in (
        (1.0, True, ["m.onnx", "m.onnx.data"]),
        (2.0, True, ["m.onnx", "m.onnx.data2"]),
        (3.0, False, ["m.onnx"]),
        (4.0, True, ["m.onnx", "m.onnx.data"]),
    ):
        report = write(value, external)
        assert names(tmp_path) == files == sorted(report.files)
        assert found() == [value, value]
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(export.ExportError, match=r"m.onnx keeps its weights in m.onnx.data, which is not beside it"):
        found()


def test_a_broken_off_export_leaves_the_earlier_files_whole(tmp_path, monkeypatch):
    model = nn.Linear(3, 2)
    export.to_onnx(model, torch.ones(2, 3), tmp_path / "m.onnx", mode="eval", external_data=True)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    def killed(self, target):
        if self.name == "m.onnx":
            raise KeyboardInterrupt  # between the two files
        return replace(self, target)

    replace = Path.replace
    other = nn.Linear(3, 2)
    with monkeypatch.context() as patch:
        patch.setattr("onnx.save_model", full)
        with pytest.raises(export.ExportError, match=r"cannot write m\.onnx: No space left on device; nothing was written"):
            export.to_onnx(other, torch.ones(2, 3), tmp_path / "m.onnx", mode="eval", external_data=True)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            export.to_onnx(other, torch.ones(2, 3), tmp_path / "m.onnx", mode="eval", external_data=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_several_inputs_and_nested_outputs(tmp_path):
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    report = export.to_onnx(Pair(), (a, b), tmp_path / "p.onnx", **EVAL, dynamic_shapes={"a": {0: "batch"}, "b": {0: "batch"}})
    assert [value.shape for value in report.outputs] == [("batch", 3)] * 3 and report.proven
    with pytest.raises(
        export.ExportError, match=r"p.onnx takes a float32 \(batch, 3\) and b float32 \(batch, 3\), found 1 input"
    ):
        export.run(tmp_path / "p.onnx", a)
    with pytest.raises(export.ExportError, match=r"b has the shape \(batch, 3\) in the file with batch = 2, found \(1, 3\)"):
        export.run(tmp_path / "p.onnx", a, b[:1])
    with pytest.raises(export.ExportError, match="a is float32 in the file, found float64"):
        export.run(tmp_path / "p.onnx", a.double(), b)
    fixed = export.to_onnx(Pair(), (a, b), tmp_path / "f.onnx", **EVAL)
    assert fixed.sizes == ({},) and fixed.proven
    with pytest.raises(export.ExportError, match=r"f.onnx: a has the shape \(2, 3\) in the file, found \(5, 3\)"):
        export.run(tmp_path / "f.onnx", torch.ones(5, 3), torch.ones(5, 3))


def test_axes_that_did_not_vary_are_named_and_sizes_can_vary_them(tmp_path):
    convolution = nn.Conv2d(1, 2, 3)
    axes = ({0: "batch", 2: "height"},)
    report = export.to_onnx(convolution, IMAGE, tmp_path / "c.onnx", **EVAL, dynamic_shapes=axes, sizes=(1, 2))
    assert report.fixed == ("height",) and "not varied: height" in str(report)
    sizes = [{"batch": 1, "height": 5}, {"height": 9}]
    report = export.to_onnx(convolution, IMAGE, tmp_path / "c.onnx", **EVAL, dynamic_shapes=axes, sizes=sizes)
    assert report.fixed == () and [dict(s) for s in report.sizes] == [{"batch": 1, "height": 5}, {"batch": 2, "height": 9}]
    content = proving.opened(tmp_path / "c.onnx")
    with pytest.raises(export.ExportError, match="sizes names width, the axes that may vary are batch and height"):
        proving.prove(content, convolution, (IMAGE,), False, [{"width": 3}], 1e-4)
    with pytest.raises(export.ExportError, match="the model itself fails with batch = 2 and height = 1: RuntimeError"):
        proving.prove(content, convolution, (IMAGE,), False, [{"height": 1}], 1e-4)
    unproven = export.to_onnx(nn.ReLU(), IMAGE, tmp_path / "r.onnx", **EVAL, sizes=())
    assert not unproven.proven and unproven.largest is None and "not compared: no sizes were given" in str(unproven)


def test_training_mode_is_said_and_a_graph_that_is_not_the_module_is_refused(tmp_path):
    goal = tmp_path / "t.onnx"
    model = network().eval()
    before = everything(model)
    report = export.to_onnx(model, IMAGE, goal, mode="train", external_data=False, dynamic_shapes=BATCH)
    assert laws.same(everything(model), before)
    assert report.mode == "train" and not report.proven and report.random == ("Dropout (5)",)
    assert "training mode" in str(report) and "not compared: Dropout (5) draws random numbers" in str(report)
    assert all(node.difference is None for node in report.graph.nodes)
    earlier = goal.read_bytes()
    with pytest.raises(export.ExportError) as error:  # torch 2.15 uses the running statistics in training mode too
        export.to_onnx(network(dropout=False), IMAGE, goal, mode="train", external_data=False, dynamic_shapes=BATCH, sizes=(2, 3))
    assert "is not the module" in words(error) and "first at the node Conv of module '1' (BatchNorm2d)" in words(error)
    assert goal.read_bytes() == earlier and error.value.report.largest > 0.01
    wrong = error.value.report.graph.graph()[2]
    assert wrong["surprise"] and "differs by" in wrong["after"] and "NOT the module" in str(error.value.report)
    written = export.to_onnx(
        network(dropout=False),
        IMAGE,
        goal,
        mode="train",
        external_data=False,
        dynamic_shapes=BATCH,
        sizes=(2,),
        tolerance=float("inf"),
    )
    assert written.largest > 0.01 and goal.read_bytes() != earlier


def test_attention_and_recurrent_layers(tmp_path):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    report = export.to_onnx(layer, torch.rand(2, 6, 8), tmp_path / "a.onnx", **EVAL, dynamic_shapes=BATCH, sizes=(1, 3))
    assert report.proven and "no" not in [row["within 0.0001"] for row in report.graph.rows()]
    compared = {node.module for node in report.graph.nodes if node.difference is not None}
    assert {"self_attn", "linear1", "linear2", "norm1", "norm2"} <= compared
    lstm = nn.LSTM(4, 5, batch_first=True)
    wanted = lstm(torch.ones(2, 6, 4))[0]
    report = export.to_onnx(lstm, torch.rand(2, 6, 4), tmp_path / "l.onnx", **EVAL, dynamic_shapes=BATCH, sizes=(1, 3))
    assert report.proven and torch.equal(lstm(torch.ones(2, 6, 4))[0], wanted)


def test_what_torch_cannot_export_is_said_in_one_sentence(tmp_path):
    goal = tmp_path / "m.onnx"
    cases = [
        (
            Choice(),
            torch.ones(2, 3),
            {},
            "decides by the values of a tensor in forward: `if x.sum() > 0:`; a graph has no such choice",
        ),
        (Singular(), torch.ones(2, 2), {}, "ONNX has no operator for aten::_linalg_svd: compute that outside the model"),
        (
            nn.Conv2d(3, 2, 3),
            torch.ones(2, 3, 8, 8),
            {"dynamic_shapes": ({1: "C"},), "input_names": ["X"]},
            "axis 1 of X cannot vary",
        ),
        (nn.Linear(3, 2), torch.ones(2, 3), {"opset_version": 99}, "opset 99 was asked for, torch made opset"),
        (nn.Linear(3, 2), torch.ones(2, 4), {}, "the model itself fails on args: RuntimeError"),
        (Nothing(), torch.ones(2), {}, "the model gives str, expected at least one tensor"),
    ]
    for model, args, more, said in cases:
        with pytest.raises(export.ExportError) as error:
            export.to_onnx(model, args, goal, **EVAL, **more)
        assert said in words(error) and "\n" not in str(error.value)
    assert names(tmp_path) == []


class Singular(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1]


class Nothing(nn.Module):
    def forward(self, x):
        return "nothing"


def test_arguments_that_do_not_fit_are_refused_before_anything_is_done(tmp_path):
    model, x, goal = nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "m.onnx"

    def refused(kind, said, *, args=x, path=goal, model=model, **more):
        with pytest.raises(kind) as error:
            export.to_onnx(model, args, path, **{**EVAL, **more})
        assert said in words(error)

    refused(ValueError, "mode is 'training', expected 'eval' or 'train': the mode of the exported model is said", mode="training")
    refused(TypeError, "external_data is None, expected False for one file or True for a second one", external_data=None)
    refused(TypeError, "to_onnx needs a model, found the class Linear", model=nn.Linear)
    refused(ValueError, "args is empty", args=())
    refused(TypeError, "args[1] is float, expected a tensor", args=(x, 0.5))
    refused(ValueError, "input_names has 2 names, args has 1 tensor", input_names=["a", "b"])
    refused(ValueError, "output_names has 2 names, the model gives 1 tensor", output_names=["a", "b"])
    refused(ValueError, "the name 'a' is given twice", input_names=["a"], output_names=["a"])
    refused(FileNotFoundError, "does not exist: make it first", path=tmp_path / "no" / "m.onnx")
    refused(export.ExportError, "is a folder or a device", path=tmp_path)
    refused(ValueError, "expected one entry for each of 1 input", dynamic_shapes=({0: "a"}, None))
    refused(ValueError, "expected one entry for each of 1 input", dynamic_shapes="batch")
    refused(ValueError, "dynamic_shapes names 'x', the model's forward takes input", dynamic_shapes={"x": {0: "a"}})
    refused(ValueError, "dynamic_shapes[0] names axis 2, input 0 has 2 axes", dynamic_shapes=({2: "a"},))
    refused(ValueError, "dynamic_shapes[0][0] is 'a b', expected a name", dynamic_shapes=({0: "a b"},))
    refused(ValueError, "dynamic_shapes[0] is 'batch', expected a dictionary", dynamic_shapes=("batch",))
    assert names(tmp_path) == []
    with pytest.raises(TypeError, match="mode"):
        export.to_onnx(model, x, goal, external_data=False)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {package}, which is not installed: pip install {package}"):
        export.to_onnx(nn.Linear(1, 1), torch.ones(1, 1), tmp_path / "m.onnx", **EVAL)
    assert names(tmp_path) == []


def test_the_other_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchinfo", None)
    with pytest.raises(ModuleNotFoundError, match="summary needs the package torchinfo"):
        export.summary(nn.Linear(1, 1), torch.ones(1, 1))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="running an ONNX file needs the package onnx"):
        export.run(tmp_path / "m.onnx", torch.ones(1))


def test_what_is_no_onnx_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        export.run(tmp_path / "none.onnx")
    for content in (b"", b"hello, this is no model at all", b"\x00" * 100, b"PK\x03\x04 a zip"):
        (tmp_path / "no.onnx").write_bytes(content)
        with pytest.raises(export.ExportError, match=r"no\.onnx is not an ONNX file"):
            export.run(tmp_path / "no.onnx")


# --- the comparison itself must be able to fail


def test_differences_see_every_kind_of_difference():
    a = np.array([1.0, -2.0, 100.0], np.float32)
    assert proving.difference(a, a) == 0
    assert proving.difference(a, a + np.array([0, 0.25, 0], np.float32)) == pytest.approx(0.25 / 1.75)
    assert proving.difference(a, a + np.array([0, 0, 1], np.float32)) == pytest.approx(1 / 101)
    nan, inf = np.float32("nan"), np.float32("inf")
    assert proving.difference(np.array([nan, inf]), np.array([nan, inf])) == 0
    for wrong in (
        np.array([nan, -2.0, 100.0], np.float32),
        np.array([inf, -2.0, 100.0], np.float32),
        a.astype(np.float64),
        a[:2],
    ):
        assert proving.difference(wrong, a) == float("inf")
    assert proving.difference(np.array([1, 2]), np.array([1, 3])) == float("inf")
    assert proving.difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0
    assert proving.difference(np.array([1 + 1j]), np.array([1 + 1.5j])) > 0.2


def test_a_file_with_another_weight_is_found_at_its_node(tmp_path):
    import onnx

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.rand(2, 3)
    export.to_onnx(model, x, tmp_path / "m.onnx", **EVAL, dynamic_shapes=BATCH)
    content = proving.opened(tmp_path / "m.onnx")
    for tensor in content.graph.initializer:
        if tensor.name == "2.weight":
            values = onnx.numpy_helper.to_array(tensor) + np.float32(0.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "2.weight"))
    proof = proving.prove(content, model, (x,), False, [2], 1e-4)
    assert max(proof.differences) > 0.01
    assert [node.difference <= 1e-4 for node in proof.graph.nodes] == [True, True, False]
    assert exporting._first_apart(proof.graph) == ", first at the node Gemm of module '2' (Linear)"


def test_warnings_of_the_exporter_become_notes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = export.to_onnx(nn.LSTM(2, 2), torch.rand(3, 1, 2), tmp_path / "l.onnx", **EVAL)
    assert all(isinstance(note, str) and "\n" not in note for note in report.notes)
