"""Lesson 19: what belongs into a checkpoint, and how it is saved so that a crash loses nothing."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from tutorlib.exercises import Ask, Exercise, Wrong


def _trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(steps)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model(torch.eye(3)).pow(2).mean()
            loss.backward()
            optimizer.step()
    return model, optimizer, loss


def _pack_law(pack: Any, ask: Ask) -> None:
    for steps, epoch in ask.cases(6, range(1, 5), range(0, 9)):
        model, optimizer, loss = _trained(steps)
        case = f"pack(model, optimizer, {epoch}, loss)"

        def packed(model=model, optimizer=optimizer, epoch=epoch, loss=loss) -> Any:
            return pack(model, optimizer, epoch, loss)

        def read_back(packed=packed) -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                torch.save(packed(), Path(folder, "c.pt"))
                return torch.load(Path(folder, "c.pt"), weights_only=True)

        ask(packed, case=case, then=_keys).gives(["epoch", "loss", "model", "optimizer"])
        ask(lambda packed=packed: type(packed()["loss"]).__name__, case=f"type of the loss in {case}").gives("float")
        ask(_outcome, read_back, case=f"torch.load of {case}").gives("loads")
        content = ask(read_back, case=f"torch.load of {case}").satisfies(lambda found: isinstance(found, dict), "a dictionary")
        ask(lambda c=content: c["epoch"], case=f"epoch in {case}").gives(epoch)
        weights = {name: value.tolist() for name, value in model.state_dict().items()}
        ask(lambda c=content: {name: v.tolist() for name, v in c["model"].items()}, case=f"model in {case}").gives(weights)
        buffers = [s["momentum_buffer"].tolist() for s in optimizer.state_dict()["state"].values()]
        ask(
            lambda c=content: [s["momentum_buffer"].tolist() for s in c["optimizer"]["state"].values()],
            case=f"momentum in {case}",
        ).gives(buffers)


def _keys(found: Any) -> Any:
    return sorted(found) if isinstance(found, dict) else type(found).__name__


def _outcome(read: Callable[[], object]) -> str:
    try:
        read()
    except Exception as error:
        return type(error).__name__
    return "loads"


pack = Exercise(
    "19_pack",
    _pack_law,
    wrong=[
        Wrong(
            lambda model, optimizer, epoch, loss: dict(
                epoch=epoch, loss=loss, model=model.state_dict(), optimizer=optimizer.state_dict()
            ),
            "The loss goes in as a tensor that wants gradients. Store the number: loss.item().",
            "损失以需要梯度的张量存了进去。请存数值：loss.item()。",
        ),
        Wrong(
            lambda model, optimizer, epoch, loss: dict(
                epoch=epoch, loss=loss.item(), model=model, optimizer=optimizer.state_dict()
            ),
            "The model itself is in the dictionary. torch.load refuses whole objects: store model.state_dict().",
            "字典里放的是模型本身。torch.load 会拒绝整个对象：请存 model.state_dict()。",
        ),
        Wrong(
            lambda model, optimizer, epoch, loss: dict(epoch=epoch, loss=loss.item(), model=model.state_dict()),
            "The optimizer is missing: without its buffers the training goes on differently.",
            "少了优化器：没有它的缓冲区，接下来的训练就不一样了。",
        ),
    ],
    hints=[
        (
            "Which object has a state_dict()? Which value is a plain number already?",
            "哪些对象有 state_dict()？哪些值本来就是普通的数？",
        ),
        ("loss is a tensor: loss.item() is its number.", "loss 是张量，loss.item() 是它的数值。"),
    ],
    limit=60,  # the first step of an optimizer in a process imports torch's compiler: seconds on a small machine
)


def _save_law(safe_save: Any, ask: Ask) -> None:
    old, new = {"epoch": 1}, {"epoch": 2, "weights": torch.arange(8)}
    for name in ask.cases(3, ["last.pt", "best.tar", "model.pth"]):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)

            def saved(state: Any = new, path: Path = path) -> list[str]:
                safe_save(state, path)
                return sorted(entry.name for entry in path.parent.iterdir())

            torch.save(old, path)
            ask(saved, case=f"files after safe_save(state, {name!r})").gives([name])
            ask(_epoch, path, case=f"epoch in {name!r} after the save").gives(2)

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            torch.save(old, path)

            def broken(path: Path = path) -> Any:
                with mock.patch.object(torch, "save", _breaks_off), contextlib.suppress(OSError):
                    safe_save(new, path)
                return _epoch(path)

            ask(broken, case=f"epoch in {name!r} after a save that broke off").gives(1)


def _breaks_off(state: object, path: Any, *args: object, **kwargs: object) -> None:
    """What a full disk does: half of the bytes are written, then an error."""
    if hasattr(path, "write"):
        path.write(b"half of a file")
    else:
        Path(path).write_bytes(b"half of a file")
    raise OSError(28, "No space left on device")


def _epoch(path: Path) -> Any:
    if not path.exists():
        return "no file"
    try:
        return torch.load(path, weights_only=True)["epoch"]
    except Exception:
        return "a broken file"


def _direct(state: Any, path: Any) -> None:
    torch.save(state, path)


def _removes_first(state: Any, path: Any) -> None:
    beside = Path(path).with_suffix(".part")
    Path(path).unlink()
    torch.save(state, beside)
    beside.replace(path)


def _keeps_a_backup(state: Any, path: Any) -> None:
    backup = Path(path).with_suffix(".backup")
    backup.write_bytes(Path(path).read_bytes())
    torch.save(state, path)


safe_save = Exercise(
    "19_safe_save",
    _save_law,
    wrong=[
        Wrong(
            _direct,
            "The save broke off, and the checkpoint is broken: torch.save empties the old file before it writes.",
            "保存中断，检查点也坏了：torch.save 在写之前先清空旧文件。",
        ),
        Wrong(
            _removes_first,
            "The old file is removed before the new one is there. Between the two nothing is left.",
            "新文件还没写好，旧文件就删了。中间的那一刻什么都不剩。",
        ),
        Wrong(
            _keeps_a_backup,
            "A second file stays behind, and the checkpoint itself is still overwritten in place.",
            "留下了第二个文件，而检查点本身仍在原处被覆盖。",
        ),
    ],
    hints=[
        ("Where can you write without touching the old file?", "写到哪里才不会碰到旧文件？"),
        ("Save to another name in the same folder first.", "先用另一个名字存到同一个文件夹里。"),
        (
            "Path(other).replace(path) renames in one step, over the old file.",
            "Path(other).replace(path) 一步改名，直接替换旧文件。",
        ),
    ],
)
