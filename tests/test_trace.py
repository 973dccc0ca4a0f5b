import collections
import math
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading
from collections import Counter, namedtuple
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import exactly_once, same, same_text_twice
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler, get_worker_info

from tutorlib import trace
from tutorlib.trace import Tracer, coverage, pickled, record, start_methods

Pair = namedtuple("Pair", "left right")


class Squares(Dataset):
    """Samples of many kinds, and whether the worker's dataset is this very object."""

    def __init__(self, size=11):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        info = get_worker_info()
        mine = info is None or (info.dataset is self and isinstance(info.dataset, Squares))
        return {"x": torch.full((2,), float(i)), "pair": Pair(i, str(i)), "mine": mine, "y": np.float32(i * i)}


class Whole(Squares):
    """Fetches a batch in one go, and gives it ready made."""

    def __getitems__(self, keys):
        return {"keys": list(keys), "sum": sum(keys)}


class Seeds(Squares):
    def __getitem__(self, i):
        info = get_worker_info()
        return i, 0 if info is None else info.seed, torch.rand(1).item()


class Span(IterableDataset):
    """The documentation's range, shared out by `cut`."""

    def __init__(self, start, end):
        self.start, self.end = start, end

    def __iter__(self):
        return iter(range(self.start, self.end))


class Sized(Span):
    def __len__(self):
        return self.end - self.start


def cut(worker_id):
    info = get_worker_info()
    mine = info.dataset
    per = math.ceil((mine.end - mine.start) / info.num_workers)
    mine.start += worker_id * per
    mine.end = min(mine.start + per, mine.end)


class Strided(Span):
    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.start + info.id, self.end, info.num_workers) if info else range(self.start, self.end))


class Uneven(Span):
    """Worker 0 has one item, the others all."""

    def __iter__(self):
        info = get_worker_info()
        return iter(range(1) if info and info.id == 0 else range(self.start, self.end))


class Broken(Squares):
    def __getitem__(self, i):
        if i == 3:
            raise KeyError("sample 3 is broken")
        return i


class Dying(Squares):
    def __getitem__(self, i):
        os._exit(3)


class Slow(Squares):
    def __getitem__(self, i):
        threading.Event().wait(600)


def as_list(samples):
    return list(samples)


def untouched(sample):
    return sample


def left(sample):
    return sample["pair"].left


MAP = {
    "main process": {"batch_size": 4},
    "workers": {"batch_size": 4, "num_workers": 2},
    "no batches": {"batch_size": None},
    "no batches, workers": {"batch_size": None, "num_workers": 2},
    "shuffled": {"batch_size": 3, "shuffle": True, "drop_last": True},
    "shuffled, workers": {"batch_size": 3, "shuffle": True, "num_workers": 2, "prefetch_factor": 1},
    "sampler": {"batch_size": 2, "sampler": [5, 1, 1, 9], "num_workers": 1},
    "tensor keys": {"batch_size": 2, "sampler": torch.tensor([4, 2, 0])},
    "weighted": {"batch_size": 2, "sampler": WeightedRandomSampler([1.0] * 11, 6)},
    "batch sampler": {"batch_sampler": [[0, 10], [3], [7, 8, 9]], "num_workers": 2},
    "collate": {"batch_size": 4, "collate_fn": as_list, "num_workers": 1},
    "persistent": {"batch_size": 4, "num_workers": 2, "persistent_workers": True},
    "generator": {"batch_size": 4, "shuffle": True, "generator": torch.Generator()},
}


def flat(lists):
    return [item for each in lists for item in each]


def untraced(dataset, loader):
    torch.manual_seed(7)
    if "generator" in loader:
        loader["generator"].manual_seed(7)
    return list(iter(DataLoader(dataset, **loader)))


def traced(dataset, loader, **more):
    torch.manual_seed(7)
    if "generator" in loader:
        loader["generator"].manual_seed(7)
    return record(dataset, **loader, **more)


@pytest.mark.parametrize("loader", MAP.values(), ids=list(MAP))
def test_the_batches_are_those_of_the_untraced_loader(loader):
    found = traced(Squares(), loader)
    assert same(found.batches, untraced(Squares(), loader))
    assert found.complete
    assert [f.key for f in found.fetches] == flat(found.keys())


@settings(deadline=None, max_examples=40)
@given(
    order=st.lists(st.integers(0, 10), max_size=12),
    size=st.one_of(st.none(), st.integers(1, 5)),
    stop=st.none() | st.integers(0, 4),
)
def test_any_order_and_batch_size_comes_out_as_untraced(order, size, stop):
    found = record(Squares(), sampler=order, batch_size=size, batches=stop)
    assert same(found.batches, list(DataLoader(Squares(), sampler=order, batch_size=size))[:stop])
    assert flat(found.keys()) == order[: None if stop is None else stop * (size or 1)]
    assert Counter(f.key for f in found.fetches) == Counter(found.by_worker()[None])
    assert found.missing(range(11)) == [i for i in range(11) if i not in found.by_worker()[None]]


def test_workers_get_the_same_seeds_and_the_main_process_the_same_random_numbers():
    for loader in (
        {"num_workers": 2, "shuffle": True},
        {"shuffle": True},
        {"sampler": Subset(range(9), [3, 1]), "num_workers": 1},
    ):
        expected, after = untraced(Seeds(), loader), torch.rand(1)
        assert same(traced(Seeds(), loader).batches, expected)
        assert torch.equal(torch.rand(1), after), "the record must not draw from the random state"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset", [Span(3, 12), Sized(3, 12), Strided(3, 12), Uneven(3, 12)], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("size", [None, 4])
def test_an_iterable_comes_out_as_untraced(dataset, workers, size):
    loader = {"num_workers": workers, "batch_size": size}
    found = record(dataset, **loader, name=int)
    assert same(found.batches, list(iter(DataLoader(dataset, **loader))))
    values = [int(x) for batch in found.batches for x in torch.as_tensor(batch).reshape(-1)]
    assert [f.key for f in found.fetches] == values
    assert found.requests_ahead is None


def test_a_worker_init_fn_shares_out_the_real_dataset():
    loader = {"num_workers": 2, "worker_init_fn": cut}
    found = record(Span(3, 7), **loader, name=int)
    assert same(found.batches, list(DataLoader(Span(3, 7), **loader)))
    assert found.by_worker() == {0: [3, 4], 1: [5, 6]}
    exactly_once(found.by_worker().values(), range(3, 7))


def test_a_batch_fetched_in_one_go_stays_whole():
    for dataset, loader in (
        (Whole(), {"batch_size": 4, "collate_fn": untouched}),
        (Subset(Squares(), [8, 2, 4]), {"batch_size": 2}),
    ):
        found = record(dataset, **loader)
        assert same(found.batches, list(DataLoader(dataset, **loader)))
    assert found.keys() == [[0, 1], [2]]
    first, second, _ = record(TensorDataset(torch.arange(3)), batch_size=2).fetches
    assert (first.key, second.key) == (0, 1)
    whole = record(Whole(), batch_size=4, collate_fn=untouched).fetches
    assert whole[0].start == whole[3].start < whole[0].stop == whole[3].stop, "fetched together, so at the same time"


def test_a_list_of_keys_counts_as_its_samples():
    found = record(torch.arange(10), batch_size=None, sampler=[[0, 1], [2, 3, 4]])
    assert found.keys() == [[0, 1], [2, 3, 4]]
    assert found.missing(range(6)) == [5]


def test_persistent_workers_live_on_from_record_to_record():
    tracer = Tracer(Squares(), batch_size=4, num_workers=2, persistent_workers=True)
    first, stopped, third = tracer.record(), tracer.record(batches=1), tracer.record()
    assert len({f.pid for t in (first, stopped, third) for f in t.fetches}) == 2
    assert first.keys() == third.keys() and stopped.keys() == first.keys()[:1] and not stopped.complete
    assert first.requests_ahead == third.requests_ahead == 3


def test_spawn_workers_give_the_same_batches():
    loader = {
        "batch_size": 4,
        "num_workers": 1,
        "multiprocessing_context": "spawn",
        "collate_fn": as_list,
        "worker_init_fn": None,
    }
    found = record(Squares(5), **loader, name=left)
    assert same(found.batches, list(DataLoader(Squares(5), batch_size=4, collate_fn=as_list)))
    assert found.keys() == [[0, 1, 2, 3], [4]]
    assert found.by_worker() == {0: [0, 1, 2, 3, 4]}


def test_the_text_is_structure():
    found = record(Squares(5), batch_size=2, num_workers=2, prefetch_factor=1)
    assert str(found) == textwrap.dedent("""\
        5 samples in 3 batches, fetched by 2 workers; 2 requests ahead of the first batch
        batch  keys    worker
            0  [0, 1]       0
            1  [2, 3]       1
            2  [4]          0""")
    same_text_twice(lambda: record(Squares(20), batch_size=2, num_workers=2))
    same_text_twice(lambda: record(Strided(0, 9), num_workers=2, name=int))
    assert str(record(range(1), batches=0)) == "0 samples in 0 batches, fetched by the main process"


def test_a_race_is_named_and_kept_out_of_the_text():
    loader = {"batch_size": 2, "num_workers": 2, "in_order": False}
    found = record(Squares(9), **loader)
    assert sorted(map(str, found.batches)) == sorted(map(str, DataLoader(Squares(9), batch_size=2)))
    assert "differs from run to run" in found.summary()
    assert [row["keys"] for row in found.rows()] == ["[0, 1]", "[2, 3]", "[4, 5]", "[6, 7]", "[8]"]
    assert all("worker" not in row for row in found.rows())
    same_text_twice(lambda: record(Squares(9), **loader))
    streams = record(Strided(0, 7), **loader, name=int)
    assert [(row["worker"], row["keys"]) for row in streams.rows()] == [(0, "[0, 2]"), (0, "[4, 6]"), (1, "[1, 3]"), (1, "[5]")]
    assert record(Squares(9), **loader, batches=2).rows() == [], "which two come first is a race"
    assert not record(Squares(9), batch_size=2, num_workers=1, in_order=False).racy
    assert found.lanes() == record(Squares(9), **loader).lanes()


def test_a_long_record_is_cut_in_its_text_only():
    found = record(range(3000), batch_size=20)
    assert len(found.rows()) < 50 and len(found.batches) == 150 and len(found.fetches) == 3000
    assert found.rows()[0]["keys"] == "[0, 1, 2, 3, 4, 5, 6, 7, ..., 18, 19] (20)"
    assert "(112 more)" in str(found) and found.rows()[-1]["batch"] == 149


def test_what_is_recorded_can_go_to_another_process():
    found = record(Squares(5), batch_size=2)
    again = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own
    assert str(again) == str(found) and again.fetches == found.fetches and same(again.batches, found.batches)


def test_a_long_record_leaves_shared_memory():
    found = record(TensorDataset(torch.arange(300.0)), num_workers=1, batch_size=1)
    assert [x.item() for (x,) in found.batches] == list(range(300))
    assert found.batches[0][0].is_shared() and not found.batches[-1][0].is_shared()


@pytest.mark.parametrize(
    "loader",
    [
        {"prefetch_factor": 2},
        {"sampler": [1], "shuffle": True},
        {"batch_size": 0},
        {"num_workers": -1},
        {"multiprocessing_context": "spawn"},
        {"batch_sampler": [[0]], "drop_last": True},
    ],
)
def test_the_loaders_own_errors_come_through(loader):
    with pytest.raises((ValueError, TypeError)) as plain:
        DataLoader(Squares(), **loader)
    with pytest.raises(type(plain.value)) as mine:
        record(Squares(), **loader)
    assert str(mine.value) == str(plain.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_datasets_own_errors_come_through(workers):
    with pytest.raises(KeyError, match="sample 3 is broken"):
        record(Broken(), num_workers=workers)


def test_bad_input_is_one_clear_error():
    with pytest.raises(TypeError, match=r"'num_worker' is not an argument of DataLoader: did you mean num_workers\?"):
        record(Squares(), num_worker=2)
    with pytest.raises(TypeError, match="'xyz' is not an argument of DataLoader; it has batch_size, shuffle"):
        record(Squares(), xyz=2)
    with pytest.raises(TypeError, match="name='int': expected a function that gives a sample's key, found str"):
        record(Span(0, 3), name="int")
    for wrong in (-1, 1.0, True):
        with pytest.raises(ValueError, match="expected None or a whole number from 0"):
            record(Squares(), batches=wrong)
    with pytest.raises(ValueError, match=r"clock='hours': expected 'order' or 'seconds'"):
        record(Squares()).lanes("hours")


def test_an_unnamed_stream_does_not_pretend_to_know_its_samples():
    found = record(Span(3, 6), num_workers=2)
    assert found.keys() == [[0], [0], [1], [1], [2], [2]], "positions in each worker's stream"
    for ask in (found.repeated, lambda: found.missing([3]), lambda: coverage([found], None)):
        with pytest.raises(ValueError, match=r"an iterable dataset has no keys: give record\(..., name=function\)"):
            ask()
    assert [len(cell["items"]) for cell in found.grid()["rows"][0]["cells"]] == [3, 3]


def test_the_documentations_unshared_stream_is_seen_to_repeat():
    found = record(Span(3, 7), num_workers=2, name=int)
    assert found.repeated() == {3: 2, 4: 2, 5: 2, 6: 2}
    assert found.missing(range(3, 8)) == [7]


@pytest.mark.parametrize("clock", ["order", "seconds"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset", [Squares(9), Whole(9), Strided(0, 9), Uneven(0, 9)], ids=lambda d: type(d).__name__)
def test_lanes_are_in_order_and_do_not_overlap(dataset, workers, clock):
    found = record(dataset, batch_size=2, num_workers=workers, collate_fn=untouched)
    lanes = {lane["name"]: lane["spans"] for lane in found.lanes(clock)["lanes"]}
    assert list(lanes) == ["main", "worker 0", "worker 1"][: workers + 1]
    for spans in lanes.values():
        edges = [t for s in spans for t in (s["start"], *s["ticks"], s["stop"])]
        assert edges == sorted(edges)
    every = [s for spans in lanes.values() for s in spans]
    by = {(s["kind"], s["label"]): s for s in every}
    for n in range(len(found.batches)):
        fetch, collate, use = (by[kind, str(n)] for kind in ("fetch", "collate", "use"))
        assert fetch["stop"] <= collate["start"] <= collate["stop"] <= use["start"]
    if clock == "order":
        again = record(dataset, batch_size=2, num_workers=workers, collate_fn=untouched)
        assert again.lanes() == found.lanes(), "the logical clock is the same in each run"


def test_coverage_puts_ranks_together():
    ranks = [record(Subset(range(12), range(r, 12, 3)), batch_size=2, name=int, num_workers=2 * (r == 0)) for r in range(3)]
    found = coverage(ranks, expected=range(12))
    assert found.exactly_once and not found.repeated and not found.missing and not found.unexpected
    assert str(found) == textwrap.dedent("""\
        12 samples of 12 expected over 3 ranks: every sample exactly once; batches per rank [2, 2, 2]
        rank  worker  samples  keys
           0  0             2  [0, 3]
           0  1             2  [6, 9]
           1  main          4  [1, 4, 7, 10]
           2  main          4  [2, 5, 8, 11]""")


def test_coverage_names_what_is_wrong():
    found = coverage({0: {0: [1, 2], 1: [2]}, 1: [4, 9]}, expected=[1, 2, 3, 4])
    assert found.repeated == {2: 2} and found.missing == [3] and found.unexpected == [9] and not found.exactly_once
    assert found.summary() == "5 samples of 4 expected over 2 ranks: 1 repeated [2], 1 missing [3], 1 unexpected [9]"
    assert found.grid() == {
        "rows": [
            {
                "label": "rank 0",
                "cells": [
                    {"label": "worker 0", "items": [{"text": "1", "sign": ""}, {"text": "2", "sign": "x2"}]},
                    {"label": "worker 1", "items": [{"text": "2", "sign": "x2"}]},
                ],
            },
            {"label": "rank 1", "cells": [{"label": "main", "items": [{"text": "4", "sign": ""}, {"text": "9", "sign": ""}]}]},
        ],
        "missing": ["3"],
    }
    assert coverage([[1, 1]], None).summary() == "2 samples: 1 repeated [1]"
    uneven = coverage([record(range(3)), record(range(2))], None)
    assert uneven.summary().endswith("batches per rank [3, 2], not equal")
    with pytest.raises(TypeError, match="rank 1: expected a Trace, worker -> keys or a list of keys, found int"):
        coverage([[1], 3], None)


def test_coverage_of_a_race_says_no_worker():
    same_text_twice(lambda: coverage(record(range(8), num_workers=2, in_order=False), range(8)))
    assert coverage(record(range(8), num_workers=2, in_order=False), range(8)).rows() == [
        {"rank": 0, "worker": "any of 2", "samples": 8, "keys": "[0, 1, 2, 3, 4, 5, 6, 7]"}
    ]


def test_pickled_says_how_things_travel():
    def local():
        return 0

    found = pickled(
        data=Squares(), cls=Squares, function=as_list, torch_function=torch.add, number=3, lock=threading.Lock(), local=local,
        lam=lambda: 0,
        alias=collections.namedtuple("Other", "x"),
        nested=[Squares(), Squares], path=pathlib.Path("x"), tensor=torch.ones(3), inside={"x": [torch.ones(3)]},
        array=np.ones(3),
    )  # fmt: skip
    table = {row["object"]: (row["travels"], row["names"], row["note"]) for row in found.rows()}
    here = __name__
    assert table == {
        "data": ("by value", f"{here}.Squares", None),
        "cls": ("by reference", f"{here}.Squares", None),
        "function": ("by reference", f"{here}.as_list", None),
        "torch_function": table["torch_function"],
        "number": ("by value", None, None),
        "lock": ("refused", None, "a thread.lock cannot be pickled"),
        "local": (
            "refused",
            None,
            "test_pickled_says_how_things_travel().local is local to a function and cannot be imported by name",
        ),
        "lam": ("refused", None, "a lambda cannot be imported by name"),
        "alias": ("refused", None, f"{here}.Other cannot be imported by name"),
        "nested": ("by value", f"{here}.Squares", None),
        "path": ("by value", None, None),  # pathlib.PosixPath, or pathlib._local.PosixPath in Python 3.13, or WindowsPath
        "tensor": ("by value", None, "its numbers as shared memory, not a copy"),
        "inside": ("by value", None, "the tensors in it as shared memory, not a copy"),
        "array": ("by value", None, None),
    }
    assert found.sizes["lam"] == 0 < found.sizes["cls"]
    same_text_twice(lambda: pickled(data=Squares(), lam=lambda: 0, t=torch.ones(3)))


def test_the_note_about_tensors_is_true_and_pickled_itself_moves_none():
    tensor, array = torch.ones(3), np.ones(3)
    pickled(tensor=tensor, array=array)
    assert not tensor.is_shared()
    there, copied = ForkingPickler.loads(ForkingPickler.dumps((tensor, array)))
    there[0], copied[0] = 7.0, 7.0
    assert tensor.is_shared() and tensor[0] == 7.0 and array[0] == 1.0, "the loader's pickle shares the one and copies the other"


IN_A_CELL = """
from torch.utils.data import Dataset
from tutorlib import trace

class Mine(Dataset):
    def __len__(self): return 3
    def __getitem__(self, i): return i

print(trace.pickled(mine=Mine(), cls=Mine))
print(trace.start_methods(Mine(), METHODS))
"""


def test_a_class_of_a_notebook_cell_is_not_found_by_a_fresh_worker():
    methods = [m for m in ("fork", "forkserver", "spawn") if m in torch.multiprocessing.get_all_start_methods()]
    code = IN_A_CELL.replace("METHODS", repr(methods))  # like a notebook's, this __main__ is no file
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = run.stdout.splitlines()
    assert run.stderr == "", "the workers' tracebacks must not litter the screen"
    assert lines[:4] == [
        "2 objects for a spawn worker: 1 by value, 1 by reference",
        "object  travels       names          worker finds them  note",
        "mine    by value      __main__.Mine  no                 __main__.Mine exists only in this process",
        "cls     by reference  __main__.Mine  no                 __main__.Mine exists only in this process",
    ]
    told = {line.split()[0]: line.split(maxsplit=2)[2] for line in lines[6:]}
    assert list(told) == methods
    for method, text in told.items():
        assert text.rstrip().startswith(
            "-" if method == "fork" else "DataLoader worker exited unexpectedly  AttributeError: Can't get"
        )
        assert ("'Mine' on module __main__" in text) is (method != "fork")


def test_start_methods_tell_what_went_wrong_without_pids_and_addresses():
    (served,) = start_methods(range(5), ["spawn"], batch_size=2).rows()
    assert served == {"method": "spawn", "batches": 3, "error": None, "in the worker": None}


def test_start_methods_name_a_broken_dataset_and_end_a_slow_one():
    quick = "fork" if "fork" in torch.multiprocessing.get_all_start_methods() else "spawn"
    (broken,) = start_methods(Broken(), [quick]).rows()
    assert broken == {"method": quick, "batches": None, "error": "KeyError: 'sample 3 is broken'", "in the worker": None}
    (dead,) = start_methods(Dying(), [quick]).rows()
    assert dead["error"] == "DataLoader worker exited unexpectedly"
    (late,) = start_methods(Slow(), [quick], limit=0.2).rows()
    assert late["error"] == "DataLoader timed out"


def test_start_methods_know_what_is_not_here(monkeypatch):
    monkeypatch.setattr(trace.torch.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    (absent,) = start_methods(range(2), ["fork"]).rows()
    assert absent == {"method": "fork", "batches": None, "error": "this platform has no fork", "in the worker": None}
    with pytest.raises(ValueError, match="unknown start method 'threads': expected some of fork, forkserver, spawn"):
        start_methods(range(2), ["threads"])
