"""Lesson 22, devices: load a file from any device, move a whole batch, and give every saved device a place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from tutorlib import checkpoint
from tutorlib.exercises import Ask, Exercise, Wrong

# --- load_anywhere -------------------------------------------------------------------------------------------------------


def _load_anywhere_law(load_anywhere: Any, ask: Ask) -> None:
    for device in ["cpu", "cuda:0", "cuda:1", *ask.cases(4, ["cpu", "cuda:0", "cuda:3", "mps"])]:
        values = [float(ask.random.randrange(10)) for _ in range(3)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.pt")
            checkpoint.write_tagged(path, {"weight": torch.tensor(values)}, device)
            # One file for all: the machine that checks is one without a GPU, also where there is one.
            found = ask(
                lambda path=path: _without_a_gpu(load_anywhere, path), case=f"load_anywhere(a file saved on {device})"
            ).satisfies(lambda state: isinstance(state, dict) and "weight" in state, "the state, with its key 'weight'")
            ask(lambda s=found: str(s["weight"].device), case=f"device of a file saved on {device}").gives("cpu")
            ask(lambda s=found: s["weight"].tolist(), case=f"values of a file saved on {device}").gives(values)


def _without_a_gpu(read: Any, path: Path) -> Any:
    answers: list[Any] = []
    errors: list[Exception] = []

    def kept(place: Path) -> Any:
        try:
            answers.append(read(path))
        except Exception as error:
            errors.append(error)

    checkpoint.where_loaded({"answer": kept}, saved="cpu", gpus=0)
    if errors:
        raise errors[0]
    return answers[0]


load_anywhere = Exercise(
    "22_load_anywhere",
    _load_anywhere_law,
    wrong=[
        Wrong(
            lambda path: torch.load(path),
            "Without map_location torch wants the device that the file names. This machine has none.",
            "不给 map_location，torch 就要用文件里写的设备，而这台机器上没有。",
        ),
        Wrong(
            lambda path: torch.load(path, map_location="cuda:0"),
            "This asks for a GPU, even for a file saved on the CPU. Ask for the CPU.",
            "这样即使文件是在 CPU 上保存的，也要用 GPU。请要求 CPU。",
        ),
        Wrong(
            lambda path: torch.load(path, map_location={"cuda:0": "cpu"}),
            "A dictionary moves only the devices that it names: a file saved on cuda:1 is left where it was.",
            "字典只搬它写到的设备：在 cuda:1 上保存的文件仍要回到 cuda:1。",
        ),
    ],
    hints=[
        ("torch.load has an argument that says where all tensors shall go.", "torch.load 有一个参数，说明所有张量放到哪里。"),
        (
            'torch.load(path, map_location="cpu") works for every file.',
            '对任何文件都可以用 torch.load(path, map_location="cpu")。',
        ),
    ],
)


# --- move ----------------------------------------------------------------------------------------------------------------


def _batch(random: Random, depth: int = 2) -> Any:
    kind = random.choice(["tensor", "tensor", "list", "tuple", "dict", "number"] if depth else ["tensor", "number"])
    if kind == "tensor":
        return torch.zeros(random.randint(1, 3))
    if kind == "number":
        return random.randrange(10)
    inner = [_batch(random, depth - 1) for _ in range(random.randint(1, 2))]
    if kind == "dict":
        return dict(zip("ab", inner, strict=False))
    return tuple(inner) if kind == "tuple" else inner


def shown(batch: Any) -> Any:
    """A batch with each tensor as its device and shape; containers stay what they are."""
    if isinstance(batch, torch.Tensor):
        return f"{batch.device} {tuple(batch.shape)}"
    if isinstance(batch, dict):
        return {key: shown(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(shown(value) for value in batch)
    return batch


def _replaced(batch: Any, old: str, new: str) -> Any:
    if isinstance(batch, str):
        return batch.replace(old, new)
    if isinstance(batch, dict):
        return {key: _replaced(value, old, new) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_replaced(value, old, new) for value in batch)
    return batch


def _move_law(move: Any, ask: Ask) -> None:
    first = [torch.zeros(2), [torch.zeros(2), torch.zeros(1)], (torch.zeros(2), 3), {"image": torch.zeros(2), "label": 3}]
    for batch in [*first, *(_batch(ask.random) for _ in range(20))]:
        before = shown(batch)
        case = f"move({before}, 'meta')"
        ask(move, batch, "meta", case=case, then=shown).gives(_replaced(before, "cpu", "meta"))
        ask(lambda b=batch: shown(b), case=f"the batch itself after {case}").gives(before)


def _not_assigned(batch: Any, device: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        batch.to(device)
    return batch


def _tensors_only(batch: Any, device: Any) -> Any:
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch


def _all_lists(batch: Any, device: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _all_lists(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_all_lists(value, device) for value in batch]
    return batch


def _in_place(batch: Any, device: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        for key in batch:
            batch[key] = _in_place(batch[key], device)
    elif isinstance(batch, list):
        for number, value in enumerate(batch):
            batch[number] = _in_place(value, device)
    elif isinstance(batch, tuple):
        return tuple(_in_place(value, device) for value in batch)
    return batch


def _no_dicts(batch: Any, device: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, (list, tuple)):
        return type(batch)(_no_dicts(value, device) for value in batch)
    return batch


move = Exercise(
    "22_move",
    _move_law,
    wrong=[
        Wrong(
            _not_assigned,
            "The result of tensor.to(device) was thrown away: it is a new tensor. Return it.",
            "tensor.to(device) 的结果被丢掉了：它是一个新张量。请返回它。",
        ),
        Wrong(
            _tensors_only,
            "Tensors inside a list stay where they are. Call yourself for each element.",
            "列表里的张量没有搬走。对每个元素再调用自己。",
        ),
        Wrong(
            _all_lists,
            "A tuple became a list: type(batch)(...) keeps the type.",
            "元组变成了列表：用 type(batch)(...) 保住类型。",
        ),
        Wrong(
            _no_dicts,
            "Tensors inside a dictionary stay where they are.",
            "字典里的张量没有搬走。",
        ),
        Wrong(
            _in_place,
            "The batch that was given has changed, too. Build a new list or dictionary instead of writing into it.",
            "传进来的批次也被改了。请新建列表或字典，不要往里写。",
        ),
    ],
    hints=[
        ("Three cases: a tensor, a container, anything else.", "三种情况：张量、容器、其他。"),
        (
            "A list or a tuple: type(batch)(move(value, device) for value in batch).",
            "列表或元组：type(batch)(move(value, device) for value in batch)。",
        ),
        (
            "A dict: {key: move(value, device) for key, value in batch.items()}. Anything else: return batch.",
            "字典：{key: move(value, device) for key, value in batch.items()}。其他：return batch。",
        ),
    ],
)


# --- places --------------------------------------------------------------------------------------------------------------


def _places_law(places: Any, ask: Ask) -> None:
    drawn = ask.cases(12, [["cuda:0"], ["cuda:1", "cuda:3"], ["cuda:0", "cuda:1", "cuda:2", "cuda:5"]], range(0, 4))
    for saved, gpus in [(["cuda:0", "cuda:1"], 2), (["cuda:0", "cuda:1"], 1), (["cuda:1"], 0), (["cuda:2"], 2), *drawn]:
        expected = {tag: f"cuda:{int(tag[5:]) % gpus}" if gpus else "cpu" for tag in saved}
        ask(places, saved, gpus).gives(expected)
        call = f"torch.load(path, map_location=places({saved}, {gpus}))"
        ask(_errors, places, saved, gpus, case=f"errors of {call}, {gpus} GPUs").gives([])


def _errors(places: Any, saved: list[str], gpus: int) -> list[str]:
    mapping = places(saved, gpus)
    table = checkpoint.where_loaded({"it": lambda path: torch.load(path, map_location=mapping)}, saved=saved, gpus=gpus)
    return [f"{outcome.saved}: {outcome.error}" for outcome in table.outcomes if outcome.error]


def _all_to_first(saved: Any, gpus: Any) -> Any:
    return {tag: "cuda:0" if gpus else "cpu" for tag in saved}


def _as_saved(saved: Any, gpus: Any) -> Any:
    return {tag: tag if gpus else "cpu" for tag in saved}


def _modulo_only(saved: Any, gpus: Any) -> Any:
    return {tag: f"cuda:{int(tag.split(':')[1]) % gpus}" for tag in saved}


def _last_one(saved: Any, gpus: Any) -> Any:
    return {tag: f"cuda:{min(int(tag[5:]), gpus - 1)}" if gpus else "cpu" for tag in saved}


places = Exercise(
    "22_places",
    _places_law,
    wrong=[
        Wrong(
            _all_to_first,
            "Everything went to cuda:0, although there are more GPUs. Use number modulo gpus.",
            "所有东西都放到了 cuda:0，可机器上不止一块 GPU。请用编号对 gpus 取余。",
        ),
        Wrong(
            _as_saved,
            "cuda:1 was left alone on a machine that has only cuda:0: torch.load fails there.",
            "机器上只有 cuda:0，cuda:1 却没有改：torch.load 会失败。",
        ),
        Wrong(
            _modulo_only,
            "Without a GPU there is nothing to divide by: then everything goes to the CPU.",
            "没有 GPU 就没有可以取余的数：这时全部放到 CPU。",
        ),
        Wrong(
            _last_one,
            "What has no GPU of its own all went to the last one. The modulo spreads it.",
            "没有对应 GPU 的全挤到了最后一块上。取余可以分散开。",
        ),
    ],
    hints=[
        ("The number of 'cuda:3' is int('cuda:3'.split(':')[1]).", "'cuda:3' 的编号是 int('cuda:3'.split(':')[1])。"),
        (
            "number % gpus is always one of 0 to gpus - 1. Treat gpus == 0 apart.",
            "编号 % gpus 总在 0 到 gpus - 1 之间。gpus == 0 要单独处理。",
        ),
    ],
)
