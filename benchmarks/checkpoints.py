"""Checkpoints read and written against the classic way of torch, in turns; exits 1 when a goal is missed.

    python benchmarks/checkpoints.py [ROUNDS] [FOLDER]

The state has about 450 MB: ten large tensors and several hundred small ones, as a language model's. The classic way is
torch.load(weights_only=True) and load_state_dict, which verifies nothing; to save, torch.save and fsync. Every run is a
fresh process on a warm file cache, which times its work only and says how much anonymous memory it took at most, above
what it had before (`VmHWM` counts the file cache's mapped pages too, so a thread looks at `RssAnon`). Needs 2 GB in the
temporary folder, or in FOLDER, and removes what it wrote.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tutorlib.facts import Table

WIDTH, LAYERS, WORDS = 768, 48, 27_000
MB = 1 << 20


def made() -> Any:
    """Embeddings, a head and eight wide matrices; 48 blocks of norms and narrow matrices: 298 tensors, 445 MB."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.narrow = nn.Linear(WIDTH, 64)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, WIDTH)
            self.wide = nn.ModuleList(nn.Linear(WIDTH, 16 * WIDTH, bias=False) for _ in range(8))
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.head = nn.Linear(WIDTH, 16_000, bias=False)

    return Model()


def anonymous() -> int:
    """Bytes of memory that belong to this process alone and to no file; 0 where the system does not say."""
    try:
        with Path("/proc/self/status").open() as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return 0


class Peak:
    """The most anonymous memory while a block runs, above what there was before, and how long it took."""

    def __enter__(self) -> Peak:
        self.before = self.most = anonymous()
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        self.begun = time.perf_counter()
        return self

    def _watch(self) -> None:
        while not self.ended.wait(0.01):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.begun
        self.ended.set()
        self.watcher.join()
        self.extra = max(self.most, anonymous()) - self.before


def classic_load(folder: Path) -> Callable[[], Any]:
    import torch

    model = made()
    return lambda: model.load_state_dict(torch.load(folder / "state.pt", weights_only=True))


def classic_build(folder: Path) -> Callable[[], Any]:
    import torch

    def work() -> Any:
        model = made()
        model.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
        return model

    return work


def classic_save(folder: Path) -> Callable[[], Any]:
    import torch

    model = made()

    def work() -> None:
        with (folder / "classic.pt").open("wb") as file:
            torch.save({"model": model.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())

    return work


def our_save(folder: Path) -> Callable[[], Any]:
    from tutorlib import checkpoint

    model = made()
    return lambda: checkpoint.save(folder / "ours.pt", model=model)


def load_into(folder: Path, verify: bool) -> Callable[[], Any]:
    from tutorlib import checkpoint

    model = made()
    return lambda: checkpoint.load_into(model, folder / "state.pt", verify=verify)


def build(folder: Path, mapped: bool, verify: bool = False) -> Callable[[], Any]:
    from tutorlib import checkpoint

    return lambda: checkpoint.build(made, folder / "state.pt", mapped=mapped, verify=verify)


def three(folder: Path) -> Callable[[], Any]:
    from tutorlib import checkpoint

    keys = ("blocks.5.norm.weight", "blocks.20.narrow.weight", "blocks.40.narrow.bias")
    return lambda: checkpoint.tensors(folder / "state.pt", *keys)


def inspect(folder: Path) -> Callable[[], Any]:
    from tutorlib import checkpoint

    return lambda: checkpoint.inspect(folder / "state.pt")


# name: the work, what it is measured against, the goal of the ratio, the goal of the extra memory in MB
ROWS: dict[str, tuple[Callable[[Path], Callable[[], Any]], str, float | None, float | None]] = {
    "load and load_state_dict": (classic_load, "", None, None),
    "load_into, verified": (lambda f: load_into(f, True), "load and load_state_dict", 0.7, 10),
    "load_into, not verified": (lambda f: load_into(f, False), "load and load_state_dict", 0.3, 10),
    "three tensors, verified": (three, "load and load_state_dict", 0.05, 16),
    "inspect": (inspect, "load and load_state_dict", 0.05, 5),
    "class, load, load_state_dict": (classic_build, "", None, None),
    "build": (lambda f: build(f, False), "class, load, load_state_dict", 0.3, None),
    "build, mapped": (lambda f: build(f, True), "class, load, load_state_dict", 0.12, None),
    "build, verified": (lambda f: build(f, False, True), "class, load, load_state_dict", None, None),
    "torch.save and fsync": (classic_save, "", None, None),
    "save": (our_save, "torch.save and fsync", 1.1, None),
}


def one(name: str, folder: Path) -> None:
    """One run in this process, which is fresh: its seconds and bytes as JSON."""
    import torch

    torch.set_num_threads(1)
    work = ROWS[name][0](folder)
    with (folder / "state.pt").open("rb", buffering=0) as file:  # into the file cache, for all alike
        while file.read(MB):
            pass
    with Peak() as peak:
        kept = work()
    print(json.dumps({"seconds": peak.seconds, "extra": peak.extra, "kept": kept is not None}))


def main(rounds: int, folder: Path) -> int:
    import torch

    model = made()
    torch.save(model.state_dict(), folder / "state.pt")
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    about = f"{size / 1e6:.0f} MB in {len(model.state_dict())} tensors; torch {version('torch')}"
    del model
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS}
    # A new block of a virtual disk costs more than one that was written before, and saving beside the old file needs two sets
    # of them: both ways write theirs twice before anything is measured.
    for name in [name for name in ROWS if "save" in name.split()[0]] * 2:
        subprocess.run([sys.executable, __file__, "--one", name, str(folder)], capture_output=True, check=True)
    for _ in range(rounds):
        for name in ROWS:
            command = [sys.executable, __file__, "--one", name, str(folder)]
            found[name].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    middle = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    rows = []
    for name, (_, against, goal, most) in ROWS.items():
        extra = statistics.median(run["extra"] for run in found[name]) / MB
        ratio = middle[name] / middle[against] if against else 1.0
        ok = (goal is None or ratio <= goal) and (most is None or extra <= most)
        rows.append(
            {
                "what": name,
                "ms": round(middle[name] * 1000, 1),
                "ratio": round(ratio, 3),
                "goal": goal,
                "extra MB": round(extra, 1),
                "at most": most,
                "ok": ok,
            }
        )
    print(Table(f"medians of {rounds} rounds; {about}", rows))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as place:
            sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, Path(place)))
