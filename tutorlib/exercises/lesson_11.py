"""Exercises of lesson 11: which seeds workers have, and generators that do not repeat."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tutorlib.exercises import Ask, Exercise, Wrong


def _draw(generator: torch.Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())


# --- 1: the seeds of torch's workers -------------------------------------------------------------------------------------


class _Two(Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return index


def _torch_seeds(seed: int, epoch: int, workers: int) -> list[int]:
    """What torch hands to its workers, read from real iterators; without workers the base seed is the same."""
    loader: DataLoader[int] = DataLoader(_Two(), generator=torch.Generator().manual_seed(seed))
    for _ in range(epoch + 1):
        iterator: Any = iter(loader)
    return [iterator._base_seed + worker for worker in range(workers)]


def _worker_seeds(answer: Any, ask: Ask) -> None:
    for seed, epoch, workers in ask.cases(30, range(0, 100), range(0, 4), range(1, 5)):
        ask(answer, seed, epoch, workers).gives(_torch_seeds(seed, epoch, workers))


def _first_epoch(seed: int, epoch: int, workers: int) -> list[int]:
    base = _draw(torch.Generator().manual_seed(seed))
    return [base + worker for worker in range(workers)]


def _plus_epoch(seed: int, epoch: int, workers: int) -> list[int]:
    base = _draw(torch.Generator().manual_seed(seed + epoch))
    return [base + worker for worker in range(workers)]


def _one_draw_each(seed: int, epoch: int, workers: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epoch + 1):
        seeds = [_draw(generator) for _ in range(workers)]
    return seeds


def _one_draw_less(seed: int, epoch: int, workers: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    base = seed
    for _ in range(epoch):
        base = _draw(generator)
    return [base + worker for worker in range(workers)]


worker_seeds = Exercise(
    "11_worker_seeds",
    _worker_seeds,
    wrong=[
        Wrong(
            _first_epoch,
            "Epoch 0 is right. The generator goes on from epoch to epoch: draw once for each epoch that went before.",
            "第 0 轮对了。生成器一轮一轮往前走：前面每过一轮，就要多抽一次。",
        ),
        Wrong(
            _plus_epoch,
            "The generator is seeded once, not anew with seed + epoch. Draw from the same one, once for each epoch.",
            "生成器只设置一次种子，不会每轮改用 seed + epoch。从同一个生成器每轮抽一次。",
        ),
        Wrong(
            _one_draw_each,
            "The main process draws one number for all workers: the seeds of workers 0, 1, 2 are neighbours.",
            "主进程只为所有工作进程抽一个数：0、1、2 号工作进程的种子是相邻的数。",
        ),
        Wrong(
            lambda seed, epoch, workers: [seed + worker for worker in range(workers)],
            "The base is not the seed itself, but the number that a generator with this seed draws.",
            "基数不是 seed 本身，而是以它为种子的生成器抽出的数。",
        ),
        Wrong(
            _one_draw_less,
            "Epoch 0 has its draw too: it takes epoch + 1 draws to reach the base of an epoch.",
            "第 0 轮也要抽一次：到达某一轮的基数，共抽 epoch + 1 次。",
        ),
    ],
    hints=[
        (
            "The lesson draws base_seed by hand. How often was that generator drawn from before this epoch?",
            "课里亲手抽过 base_seed。在这一轮之前，那个生成器抽过几次？",
        ),
        (
            "Make one generator, draw epoch + 1 times, keep the last number; worker i has that number plus i.",
            "建一个生成器，抽 epoch + 1 次，留下最后一个数；第 i 个工作进程的种子是它加 i。",
        ),
        (
            "One draw: torch.empty((), dtype=torch.int64).random_(generator=generator).item()",
            "抽一次：torch.empty((), dtype=torch.int64).random_(generator=generator).item()",
        ),
    ],
)


# --- 2: reseed the dataset's own generator -------------------------------------------------------------------------------


def _throws(rng: Any, times: int = 2) -> list[int]:
    return [int(rng.integers(2**30)) for _ in range(times)]


def _letters(hands: list[list[int]]) -> str:
    """`AB CD`: equal throws have equal letters. What an unseeded generator throws differs by run, its letters do not."""
    letter: dict[int, str] = {}
    return " ".join("".join(letter.setdefault(n, chr(ord("A") + len(letter))) for n in hand) for hand in hands)


def _reseeded(answer: Any, workers: int, *bases: int) -> list[list[int]]:
    """The first throws of each worker, epoch by epoch; every worker starts with its own copy of the same generator."""
    found = []
    for base in bases:
        for worker in range(workers):
            dataset = SimpleNamespace(rng=np.random.default_rng(0))
            answer(SimpleNamespace(id=worker, num_workers=workers, seed=base + worker, dataset=dataset))
            found.append(_throws(dataset.rng))
    return found


def _reseed(answer: Any, ask: Ask) -> None:
    for base, workers in ask.cases(8, lambda random: random.randrange(2**33, 2**63 - 9), range(2, 5)):
        other = base // 2 + 12345
        all_different = _letters([[2 * n, 2 * n + 1] for n in range(2 * workers)])
        name = f"{workers} workers, 2 throws each"
        ask(
            lambda: _letters(_reseeded(answer, workers, base)), case=f"{name}, base seed {base}; equal letters, equal throws"
        ).gives(all_different[: 3 * workers - 1])
        ask(lambda: _letters(_reseeded(answer, workers, base, other)), case=f"{name}, base seeds {base} and {other}").gives(
            all_different
        )
        again = ask(
            lambda: _reseeded(answer, workers, base) == _reseeded(answer, workers, base), case=f"{name}, run twice: equal"
        )
        again.gives(True)


def _by_id(info: Any) -> None:
    info.dataset.rng = np.random.default_rng(info.id)


def _global_only(info: Any) -> None:
    np.random.seed(info.seed % 2**32)


def _raw_global(info: Any) -> None:
    np.random.seed(info.seed)


def _from_the_system(info: Any) -> None:
    info.dataset.rng = np.random.default_rng()


def _base_only(info: Any) -> None:
    info.dataset.rng = np.random.default_rng(info.seed - info.id)


reseed = Exercise(
    "11_reseed",
    _reseed,
    wrong=[
        Wrong(
            _by_id,
            "The ids are 0, 1, ... in every epoch, so the second epoch repeats the first. The seed changes with the epoch.",
            "每一轮的编号都是 0、1……，第二轮就重复第一轮。随轮变化的是 seed。",
        ),
        Wrong(
            _global_only,
            "info.dataset.rng is still the old copy. np.random.seed reaches only the global one: assign to info.dataset.rng.",
            "info.dataset.rng 仍是旧的副本。np.random.seed 只管全局的 np.random：请给 info.dataset.rng 赋值。",
        ),
        Wrong(
            _raw_global,
            "np.random.seed takes 32 bits, and it is not the generator in question: put a new one into info.dataset.rng.",
            "np.random.seed 只收 32 位，而且它管的不是这个生成器：请把新的生成器放进 info.dataset.rng。",
        ),
        Wrong(
            _from_the_system,
            "default_rng() without a seed takes one from the system: the run cannot be repeated. Use info.seed.",
            "不给种子的 default_rng() 向系统要随机数，训练就无法重现。请用 info.seed。",
        ),
        Wrong(
            _base_only,
            "info.seed - info.id is the base seed, the same for all workers. Use info.seed as it is.",
            "info.seed - info.id 是基数，所有工作进程都一样。直接用 info.seed。",
        ),
    ],
    hints=[
        (
            "Which of id, num_workers and seed differs between workers and between epochs?",
            "id、num_workers、seed 当中，哪一个在工作进程之间、轮之间都不同？",
        ),
        (
            "Make a generator with np.random.default_rng and put it where the dataset looks: info.dataset.rng.",
            "用 np.random.default_rng 建一个生成器，放到数据集会用的地方：info.dataset.rng。",
        ),
        (
            "One line: info.dataset.rng = np.random.default_rng(info.seed)",
            "只要一行：info.dataset.rng = np.random.default_rng(info.seed)",
        ),
    ],
)


# --- 3: a generator for each sample --------------------------------------------------------------------------------------


def _sample_rng(answer: Any, ask: Ask) -> None:
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1), (0, 1, 11), (0, 11, 1)]
    keys += [(0, 1, 0), (0, 0, 10), (0, 0, 100), (0, 0, 1000), (0, 1, 1000), (0, 2, 0), (10, 0, 0), (1, 0, 1000)]
    keys += ask.cases(12, range(0, 50), range(0, 300), range(0, 60000))
    seen: dict[int, tuple[int, int, int]] = {}
    for key in dict.fromkeys(keys):
        case = f"sample_rng{key}"
        ask(lambda: type(answer(*key)).__name__, case=f"the type of {case}").gives("Generator")
        ask(lambda: _throws(answer(*key)) == _throws(answer(*key)), case=f"{case} throws the same again").gives(True)
        earlier = seen.setdefault(_throws(answer(*key))[0], key)
        ask(earlier, case=f"the first to throw the numbers of {case}").gives(key)
    state = np.random.get_state(legacy=False)["state"]["pos"]
    answer(3, 4, 5)
    ask(np.random.get_state(legacy=False)["state"]["pos"] == state, case="the global np.random stays as it is").gives(True)


def _sum(seed: int, epoch: int, index: int) -> Any:
    return np.random.default_rng(seed + epoch + index)


def _digits(seed: int, epoch: int, index: int) -> Any:
    return np.random.default_rng(int(f"{seed}{epoch}{index}"))


def _thousand(seed: int, epoch: int, index: int) -> Any:
    return np.random.default_rng(seed * 1_000_000 + epoch * 1000 + index)


def _without_epoch(seed: int, epoch: int, index: int) -> Any:
    return np.random.default_rng([seed, index])


def _hash(seed: int, epoch: int, index: int) -> Any:
    return np.random.default_rng(hash((seed, epoch, index)))


def _global(seed: int, epoch: int, index: int) -> Any:
    np.random.seed([seed, epoch, index])
    return np.random


def _unseeded(seed: int, epoch: int, index: int) -> Any:
    return np.random.default_rng()


def _standard(seed: int, epoch: int, index: int) -> Any:
    return random.Random(f"{seed} {epoch} {index}")


sample_rng = Exercise(
    "11_sample_rng",
    _sample_rng,
    wrong=[
        Wrong(
            _sum,
            "Adding mixes them up: epoch 0, index 1 and epoch 1, index 0 get the same sum, and so the same numbers.",
            "相加会混淆：第 0 轮的索引 1 与第 1 轮的索引 0，和相同，随机数也就相同。",
        ),
        Wrong(
            _digits,
            'Writing them side by side mixes them up: 1 and 11, or 11 and 1, both make "111".',
            '并排写会混淆：1 和 11、11 和 1，拼出来都是 "111"。',
        ),
        Wrong(
            _thousand,
            "With more than 1000 samples, index 1000 of epoch 0 meets index 0 of epoch 1.",
            "样本超过 1000 个时，第 0 轮的索引 1000 就与第 1 轮的索引 0 相撞。",
        ),
        Wrong(
            _without_epoch,
            "The epoch is missing: each sample is augmented the same in every epoch.",
            "漏了轮次：每个样本在每一轮的增强都相同。",
        ),
        Wrong(
            _hash,
            "hash() is negative half of the time, and default_rng refuses a negative seed. Give it the three numbers as a list.",
            "hash() 有一半时候是负数，default_rng 不接受负的种子。把三个数作为列表交给它。",
        ),
        Wrong(
            _global,
            "This reseeds the global np.random, which other code uses too. Make a generator of its own: np.random.default_rng.",
            "这样会重设全局的 np.random，别的代码也在用它。请用 np.random.default_rng 另建一个。",
        ),
        Wrong(
            _unseeded,
            "Without a seed the throws come from the system, and never again. Give default_rng the three numbers as a list.",
            "不给种子，随机数就来自系统，无法重现。把三个数作为列表交给 default_rng。",
        ),
        Wrong(
            _standard,
            "Right idea, but this is Python's own generator. Make NumPy's: np.random.default_rng.",
            "思路对，但这是 Python 自己的生成器。请用 NumPy 的：np.random.default_rng。",
        ),
    ],
    hints=[
        (
            "Adding the three numbers, or writing them side by side, can give the same for different samples.",
            "三个数相加，或并排写在一起，不同的样本可能得到相同的结果。",
        ),
        (
            "np.random.default_rng accepts more than one number as its seed: look at its help.",
            "np.random.default_rng 的种子可以不止一个数：看看它的帮助。",
        ),
        (
            "One line: return np.random.default_rng([seed, epoch, index])",
            "只要一行：return np.random.default_rng([seed, epoch, index])",
        ),
    ],
)
