"""Lesson 20: several models in one file, and which checkpoints of a training may go."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutorlib.exercises import Ask, Exercise, Wrong


def _made(names: list[str], seed: int, steps: int) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models: dict[str, nn.Module] = {name: nn.Linear(3, 1) for name in names}
        optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, model in models.items():
            optimizers[name] = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            for _ in range(steps):
                optimizers[name].zero_grad()
                model(torch.eye(3)).pow(2).mean().backward()
                optimizers[name].step()
    return models, optimizers


def _weights(models: dict[str, nn.Module]) -> dict[str, Any]:
    return {name: model.state_dict()["weight"].tolist() for name, model in models.items()}


def _momentum(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Any]:
    return {
        name: [kept["momentum_buffer"].tolist() for kept in optimizer.state_dict()["state"].values()]
        for name, optimizer in optimizers.items()
    }


def _pack_law(suitcase: Any, ask: Ask) -> None:
    for names, steps in ask.cases(5, [["G", "D"], ["left", "right"], ["a", "b", "c"]], range(1, 4)):
        models, optimizers = _made(names, steps, steps)
        case = f"models and optimizers called {', '.join(names)}"

        def stored(models=models, optimizers=optimizers) -> Any:
            packed = suitcase().pack(models, optimizers)
            with tempfile.TemporaryDirectory() as folder:
                torch.save(packed, Path(folder, "c.pt"))
                try:
                    return torch.load(Path(folder, "c.pt"), weights_only=True)
                except Exception as error:
                    return type(error).__name__

        content = ask(stored, case=f"torch.load of pack, {case}").satisfies(lambda found: isinstance(found, dict), "a dictionary")

        def filled(content=content, names=names) -> Any:
            fresh = _made(names, 99, 0)
            suitcase().unpack(content, *fresh)
            return fresh

        ask(lambda filled=filled: _weights(filled()[0]), case=f"weights after unpack, {case}").gives(_weights(models))
        ask(lambda filled=filled: _momentum(filled()[1]), case=f"momentum after unpack, {case}").gives(_momentum(optimizers))


class _Merged:
    def pack(self, models: Any, optimizers: Any) -> Any:
        return {
            "model": {key: value for model in models.values() for key, value in model.state_dict().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        }

    def unpack(self, content: Any, models: Any, optimizers: Any) -> None:
        for name in models:
            models[name].load_state_dict(content["model"])
            optimizers[name].load_state_dict(content["optimizers"][name])


class _Whole:
    def pack(self, models: Any, optimizers: Any) -> Any:
        return {"models": models, "optimizers": optimizers}

    def unpack(self, content: Any, models: Any, optimizers: Any) -> None:
        models.update(content["models"])
        optimizers.update(content["optimizers"])


class _OnlyModels:
    def pack(self, models: Any, optimizers: Any) -> Any:
        return {name: model.state_dict() for name, model in models.items()}

    def unpack(self, content: Any, models: Any, optimizers: Any) -> None:
        for name, model in models.items():
            model.load_state_dict(content[name])


class _OneName:
    def pack(self, models: Any, optimizers: Any) -> Any:
        packed = {name: model.state_dict() for name, model in models.items()}
        return packed | {name: optimizer.state_dict() for name, optimizer in optimizers.items()}

    def unpack(self, content: Any, models: Any, optimizers: Any) -> None:
        for name in models:
            models[name].load_state_dict(content[name])
            optimizers[name].load_state_dict(content[name])


pack = Exercise(
    "20_pack",
    _pack_law,
    wrong=[
        Wrong(
            _Merged,
            "All models share one dictionary: their keys are the same, so the last one overwrote the others.",
            "所有模型共用一个字典：键都相同，最后一个覆盖了其余的。",
        ),
        Wrong(
            _Whole,
            "Whole models are in the dictionary. torch.load refuses them: store each state_dict().",
            "字典里放的是整个模型，torch.load 会拒绝：请存各自的 state_dict()。",
        ),
        Wrong(
            _OnlyModels,
            "The optimizers are missing: their momentum starts from nothing.",
            "少了优化器：动量要从零开始。",
        ),
        Wrong(
            _OneName,
            "A model and its optimizer have the same name, and in one dictionary the second one replaces the first.",
            "模型和它的优化器同名，放进同一个字典，后者替换了前者。",
        ),
    ],
    hints=[
        ("Which two things would get the same key?", "哪两样东西会得到相同的键？"),
        (
            "A dictionary may hold dictionaries: one for the models, one for the optimizers.",
            "字典里可以再放字典：一个给模型，一个给优化器。",
        ),
        (
            "pack: {'models': {name: model.state_dict(), ...}, 'optimizers': ...}; unpack walks the same names.",
            "pack：{'models': {name: model.state_dict(), ...}, 'optimizers': ...}；unpack 按同样的名字逐个取回。",
        ),
    ],
    limit=60,  # the first step of an optimizer in a process imports torch's compiler: seconds on a small machine
)


_NAN = math.nan


def _right(losses: list[float], keep: int) -> list[int]:
    steps = range(len(losses))
    best = min((s for s in steps if not math.isnan(losses[s])), key=lambda s: losses[s], default=None)
    return [s for s in steps[:-keep] if s != best]


def _remove_law(remove: Any, ask: Ask) -> None:
    known = [[0.3, 0.1, 0.2], [0.1, 0.1, 0.2, 0.3], [_NAN, 0.5, 0.4, 0.6, 0.7], [0.5, _NAN, 0.4, 0.6], [_NAN, _NAN], [], [1.0]]
    cases = [(losses, keep) for losses in known for keep in (1, 2)]
    cases += ask.cases(30, lambda dice: [dice.choice([0.1, 0.2, 0.3, 0.5, _NAN]) for _ in range(dice.randrange(8))], range(1, 4))
    for losses, keep in cases:
        ask(remove, list(losses), keep, case=f"remove({losses}, {keep})").gives(_right(losses, keep))


def _loses_the_best(losses: Any, keep: int) -> Any:
    return list(range(len(losses)))[:-keep]


def _believes_nan(losses: Any, keep: int) -> Any:
    steps = range(len(losses))
    best = min(steps, key=lambda step: losses[step], default=None)
    return [step for step in steps[:-keep] if step != best]


def _counts_the_best(losses: Any, keep: int) -> Any:
    steps = range(len(losses))
    best = min((s for s in steps if losses[s] == losses[s]), key=lambda s: losses[s], default=None)
    others = [step for step in steps if step != best]
    return others[: max(0, len(losses) - keep)]


def _later_of_two(losses: Any, keep: int) -> Any:
    steps = range(len(losses))
    best = min((s for s in steps if losses[s] == losses[s]), key=lambda s: (losses[s], -s), default=None)
    return [step for step in steps[:-keep] if step != best]


remove = Exercise(
    "20_remove",
    _remove_law,
    wrong=[
        Wrong(
            _loses_the_best,
            "The best checkpoint is removed as soon as it is old.",
            "最佳检查点一变旧就被删掉了。",
        ),
        Wrong(
            _believes_nan,
            "NaN was taken for the best: min() keeps a NaN that comes first, because no number is smaller than it.",
            "NaN 被当成了最佳：min() 会留下排在最前的 NaN，因为没有数比它小。",
        ),
        Wrong(
            _counts_the_best,
            "The best one was counted among the last: it comes on top of them.",
            "把最佳也算进了最近几份：它应在此之外另外保留。",
        ),
        Wrong(
            _later_of_two,
            "Of two equal losses the later one was kept. The earlier one was the best first.",
            "两个损失相等时保留了较晚的。较早的先成为最佳。",
        ),
    ],
    hints=[
        ("First find the best step. Then leave out the last `keep` steps.", "先找出最佳的一步，再去掉最近 `keep` 步。"),
        (
            "A comparison with NaN is always false: take out NaN before you look for the smallest.",
            "与 NaN 的比较总为假：找最小值之前先去掉 NaN。",
        ),
        (
            "losses[:-keep] leaves out the last ones; x == x is False for NaN.",
            "losses[:-keep] 去掉最近几步；x 为 NaN 时 x == x 为假。",
        ),
    ],
)
