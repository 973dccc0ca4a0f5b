"""Lesson 17, save and load: the best model really kept, and a file restored to a model that is ready to be used."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutorlib.exercises import Ask, Exercise, Wrong

# --- keep_best -----------------------------------------------------------------------------------------------------------


class _Training:
    """A training whose epochs set every value of the model to the number of the epoch, with scores known beforehand."""

    def __init__(self, scores: list[int]) -> None:
        self.model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
        self.scores, self.epoch = scores, 0

    def train(self, model: nn.Module) -> None:
        self.epoch += 1
        with torch.no_grad():
            for value in model.state_dict().values():
                value.fill_(self.epoch)

    def score(self, model: nn.Module) -> int:
        return self.scores[self.epoch - 1]


def _keep_best_law(keep_best: Any, ask: Ask) -> None:
    drawn = ask.cases(8, lambda random: random.sample(range(10, 100), random.randint(2, 5)))
    for scores in [[30, 50, 20], [10, 20, 30], [30, 20, 10], *drawn]:
        training = _Training(scores)
        keys = list(training.model.state_dict())

        def kept(training: _Training = training) -> Any:
            best = keep_best(training.model, training.train, training.score, len(training.scores))
            training.train(training.model)  # life goes on
            return best

        def epochs(found: Any) -> Any:
            if not isinstance(found, dict):
                return type(found).__name__
            return {key: int(value.flatten()[0]) for key, value in found.items()}

        best = scores.index(max(scores)) + 1
        case = f"the epoch of each value, with the scores {scores}"
        ask(kept, case=case, then=epochs).gives(dict.fromkeys(keys, best))


Step = Callable[[nn.Module], Any]


def _watching(keep: Callable[[nn.Module], Any], better: Callable[[int, int], bool] = lambda new, old: new > old) -> Any:
    def keep_best(model: nn.Module, train_epoch: Step, score: Step, epochs: int) -> Any:
        best, highest = None, None
        for _ in range(epochs):
            train_epoch(model)
            now = score(model)
            if highest is None or better(now, highest):
                best, highest = keep(model), now
        return best

    return keep_best


def _copied(model: nn.Module) -> Any:
    return copy.deepcopy(model.state_dict())


_ALIVE = (
    "What you kept went on changing with the model: it is the model's own memory. Copy the values: copy.deepcopy(...).",
    "你留下的东西跟着模型一起变：那就是模型自己的内存。请复制其中的值：copy.deepcopy(...)。",
)

keep_best = Exercise(
    "17_keep_best",
    _keep_best_law,
    wrong=[
        Wrong(_watching(lambda model: model.state_dict()), *_ALIVE),
        Wrong(_watching(lambda model: dict(model.state_dict())), *_ALIVE),
        Wrong(
            _watching(lambda model: {name: value.detach().clone() for name, value in model.named_parameters()}),
            "The buffers are missing: the running statistics of batch norm belong to the best model, too.",
            "少了缓冲区：批归一化的统计量也属于最好的模型。",
        ),
        Wrong(
            _watching(_copied, better=lambda new, old: True),
            "This keeps the last epoch. Copy only when the score is higher than the highest so far.",
            "这样留下的是最后一轮。只有分数超过此前最高分时才复制。",
        ),
        Wrong(
            _watching(_copied, better=lambda new, old: new < old),
            "This keeps the lowest score. Here a higher score is better.",
            "这样留下的是分数最低的一轮。这里分数越高越好。",
        ),
        Wrong(
            _watching(_copied, better=lambda new, old: False),
            "This keeps the first epoch, whatever comes later. Compare each score with the highest so far.",
            "这样总是留下第一轮。请把每一轮的分数与此前最高分比较。",
        ),
    ],
    hints=[
        (
            "In each epoch: train_epoch(model), then score(model). Remember the highest score and what belongs to it.",
            "每一轮：先 train_epoch(model)，再 score(model)。记住最高分，以及与它对应的状态。",
        ),
        (
            "model.state_dict() is the model's own memory. Keep copy.deepcopy(model.state_dict()).",
            "model.state_dict() 是模型自己的内存。请留下 copy.deepcopy(model.state_dict())。",
        ),
    ],
)


# --- restore -------------------------------------------------------------------------------------------------------------


def _maker(width: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 1))

    return make


def _restore_law(restore: Any, ask: Ask) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    for width in ask.cases(5, range(1, 9)):
        make = _maker(width)
        model = make()
        for _ in range(3):
            model(torch.randn(8, 2) * 3 + 5)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "best.pt")
            torch.save(model.state_dict(), path)
            model.eval()
            case = f"restore(make, 'best.pt'), width {width}"

            def restored(path: Path = path, make: Any = make) -> Any:
                return restore(make, path)

            ask(restored, case=f"training mode of {case}", then=lambda found: found.training).gives(False)
            ask(
                restored,
                case=f"keys whose values did not arrive, in {case}",
                then=partial(_not_arrived, model=model),
            ).gives([])
            ask(
                restored,
                case=f"outputs of {case} are those of the saved model",
                then=partial(_equal, model=model, x=x),
            ).gives(True)
            ask(restored, case=f"{case} twice gives two models", then=partial(_is_again, restored=restored)).gives(False)


def _is_again(found: nn.Module, restored: Callable[[], Any]) -> bool:
    return found is restored()


def _not_arrived(found: nn.Module, model: nn.Module) -> list[str]:
    now = found.state_dict()
    return [key for key, value in model.state_dict().items() if not torch.equal(now[key], value)]


def _equal(found: nn.Module, model: nn.Module, x: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(found(x), model(x))


def _no_eval(make: Any, path: Any) -> Any:
    model = make()
    model.load_state_dict(torch.load(path))
    return model


def _path_given(make: Any, path: Any) -> Any:
    model = make()
    model.load_state_dict(path)
    return model.eval()


def _not_loaded(make: Any, path: Any) -> Any:
    torch.load(path)
    return make().eval()


def _parameters_only(make: Any, path: Any) -> Any:
    model = make()
    names = dict(model.named_parameters())
    model.load_state_dict({key: value for key, value in torch.load(path).items() if key in names}, strict=False)
    return model.eval()


def _the_state(make: Any, path: Any) -> Any:
    return make().load_state_dict(torch.load(path))


restore = Exercise(
    "17_restore",
    _restore_law,
    wrong=[
        Wrong(
            _no_eval,
            "The model is in training mode: a new model always is. Call eval() after loading.",
            "模型处于训练模式：新建的模型总是这样。加载之后请调用 eval()。",
        ),
        Wrong(
            _path_given,
            "load_state_dict takes a dictionary, not a path: give it torch.load(path).",
            "load_state_dict 要的是字典，不是路径：请把 torch.load(path) 交给它。",
        ),
        Wrong(
            _not_loaded,
            "The file was read, but its values never came into the model: call load_state_dict.",
            "文件读了，值却没有进模型：请调用 load_state_dict。",
        ),
        Wrong(
            _parameters_only,
            "Only the parameters were loaded. Without its buffers, batch norm uses the statistics of a new model.",
            "只加载了参数。没有缓冲区，批归一化用的就是新模型的统计量。",
        ),
        Wrong(
            _the_state,
            "load_state_dict returns a report of the keys, not the model. Keep the model in a name of its own.",
            "load_state_dict 返回的是关于键的报告，不是模型。请先用一个名字留住模型。",
        ),
    ],
    hints=[
        ("Three steps: make a model, fill it, choose its mode.", "三步：造模型，填进去，选模式。"),
        (
            "model = make(), then model.load_state_dict(torch.load(path)).",
            "先 model = make()，再 model.load_state_dict(torch.load(path))。",
        ),
        (
            "model.eval() returns the model, so return model.eval() is enough.",
            "model.eval() 返回模型本身，所以 return model.eval() 就够了。",
        ),
    ],
)
