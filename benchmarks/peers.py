"""The same images through other libraries' loaders, in turns; exits 1 when ours is not ahead of each, 2 when no peer is here.

    python benchmarks/peers.py [ROUNDS] [SIZE] [PEER ...]

Peers: torchdata's StatefulDataLoader, Hugging Face datasets, webdataset, litdata; each reads 28 x 28 images with a label from the
kind of files that it is made for, in batches of 64, without workers and with 2. Ours reads array files: `Sharded` through
`datasets.ArrayFile`, `Batched` through numpy's own map of them. torchdata brings no files of its own: like the documentation's
own pattern it reads that map sample by sample. None of the peers is needed by tutorlib. To measure against all, in an
environment of their own:

    python -m venv peers
    peers/bin/pip install torch torchdata datasets webdataset litdata
    PYTHONPATH=. peers/bin/python benchmarks/peers.py

A round runs each once, in an order that changes from round to round; the ratios, ours to the peer, are those of a round, their
medians are told. Every pass is checked to have given every label once. Nothing is fetched from a network.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, StackDataset, get_worker_info

from tutorlib.datasets import ArrayFile
from tutorlib.facts import Table
from tutorlib.samplers import Batched, EpochSampler
from tutorlib.sharding import Sharded

BATCH, SHARDS = 64, 8
PEERS = ("torchdata", "datasets", "webdataset", "litdata")
Reading = Callable[[int], Iterable[Any]]  # a number of workers -> batches


class Images(Dataset):
    """Memory-mapped images; the label is the number of the sample."""

    def __init__(self, path: Path) -> None:
        self.images = np.load(path, mmap_mode="r")
        self.labels = np.arange(len(self.images))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(np.array(self.images[index])), index


class Documented(IterableDataset):
    """The documentation's pattern: a share for each worker."""

    def __init__(self, data: Images) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(self.data[index] for index in range(first, len(self.data), step))


def ours(folder: Path) -> dict[str, Reading]:
    data = StackDataset(*(ArrayFile(folder / name) for name in ("images.npy", "labels.npy")))

    def sharded(workers: int) -> Iterable[Any]:
        stream = Sharded(data, chunk=BATCH)
        return stream.follow(DataLoader(stream, batch_size=BATCH, num_workers=workers))

    def batched(workers: int) -> Iterable[Any]:
        columns = tuple(np.load(folder / name, mmap_mode="r") for name in ("images.npy", "labels.npy"))
        sampler, source = EpochSampler(len(data), BATCH, shuffle=False), Batched(columns)
        return sampler.follow(DataLoader(source, sampler=sampler, batch_size=None, num_workers=workers))

    return {"Sharded": sharded, "Batched": batched}


def torchdata(data: Images, folder: Path) -> Reading:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return lambda workers: StatefulDataLoader(Documented(data), batch_size=BATCH, num_workers=workers)


def datasets(data: Images, folder: Path) -> Reading:
    from datasets import Array2D, Features, Value, load_from_disk
    from datasets import Dataset as Arrow

    features = Features({"image": Array2D((28, 28), "float32"), "label": Value("int64")})
    Arrow.from_dict({"image": np.asarray(data.images), "label": data.labels}, features=features).save_to_disk(folder / "arrow")
    stored = load_from_disk(folder / "arrow").with_format("torch")

    def read(workers: int) -> Iterable[Any]:
        return ((batch["image"], batch["label"]) for batch in DataLoader(stored, batch_size=BATCH, num_workers=workers))

    return read


def webdataset(data: Images, folder: Path) -> Reading:
    import webdataset as wds

    names = [str(folder / f"{shard}.tar") for shard in range(SHARDS)]
    for shard, name in enumerate(names):
        with wds.TarWriter(name) as tar:
            for index in range(shard, len(data), SHARDS):
                tar.write({"__key__": f"{index:06d}", "image.npy": np.array(data.images[index]), "label.cls": index})
    stream = wds.WebDataset(names, shardshuffle=False).decode().to_tuple("image.npy", "label.cls")
    return lambda workers: DataLoader(stream, batch_size=BATCH, num_workers=workers)


def litdata(data: Images, folder: Path) -> Reading:
    import litdata as lit

    where, method = str(folder / "chunks"), multiprocessing.get_start_method()
    lit.optimize(data.__getitem__, list(range(len(data))), where, chunk_bytes="16MB", num_workers=1)
    multiprocessing.set_start_method(method, force=True)  # litdata changes it for the whole process: as before, for all alike
    return lambda workers: lit.StreamingDataLoader(
        lit.StreamingDataset(where, shuffle=False), batch_size=BATCH, num_workers=workers
    )


def seconds(read: Reading, workers: int, size: int) -> float:
    begun = time.perf_counter()
    batches = [labels for _, labels in read(workers)]
    spent = time.perf_counter() - begun
    if not torch.equal(torch.cat(batches).sort().values, torch.arange(size)):
        raise SystemExit("not every label came exactly once")
    return spent


def main(rounds: int, size: int, wanted: Sequence[str] = PEERS) -> int:
    if unknown := set(wanted) - set(PEERS):
        raise SystemExit(f"no peer {', '.join(sorted(unknown))}: expected some of {', '.join(PEERS)}")
    warnings.filterwarnings("ignore")  # the peers' own
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    here = [name for name in wanted if importlib.util.find_spec(name)]
    for name in wanted:
        if name not in here:
            print(f"{name} is not here: pip install {name}, best in an environment of its own (see the head of this file)")
    if not here:
        return 2
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
        folder = Path(room)
        np.save(folder / "images.npy", np.random.RandomState(0).rand(size, 28, 28).astype(np.float32))
        data = Images(folder / "images.npy")
        np.save(folder / "labels.npy", data.labels)
        mine = ours(folder)
        peers: dict[str, Reading] = {
            "the documentation's": lambda workers: DataLoader(Documented(data), BATCH, num_workers=workers)
        }
        for name in here:
            with contextlib.redirect_stdout(sys.stderr):  # their progress
                peers[name] = globals()[name](data, folder)
        ways = {**mine, **peers}
        for workers in (0, 2):
            times: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(-1, rounds):  # the first round warms up
                names = list(ways)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    spent = seconds(ways[name], workers, size)
                    if turn >= 0:
                        times[name].append(spent)
            for name in ways:
                row: dict[str, object] = {"workers": workers, "what": name}
                row["version"] = version(name) if name in here else None
                row["us a sample"] = round(statistics.median(times[name]) / size * 1e6, 1)
                for one in mine:
                    ratios = [a / b for a, b in zip(times[one], times[name], strict=True)]
                    row[f"{one} / it"] = round(statistics.median(ratios), 2)
                row["ok"] = all(row[f"{one} / it"] < 1 for one in mine) if name in here else None  # type: ignore[operator]
                rows.append(row)
    title = f"{size} images of 28 x 28 with a label, batches of {BATCH}, medians of {rounds} rounds; torch {version('torch')}"
    print(Table(f"{title}; goal: ahead of each peer, a ratio below 1", rows))
    return 1 if any(row["ok"] is False for row in rows) else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    sys.exit(main(given[0] if given else 5, given[1] if len(given) > 1 else 50_000, sys.argv[3:] or PEERS))
