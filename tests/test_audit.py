import itertools
import multiprocessing
import pickle

import pytest
import torch
import torch.distributed as dist
from laws import same_text_twice
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, get_worker_info

from tutorlib import pictures, ranks
from tutorlib.audit import AuditError, Observed, audit, observe
from tutorlib.datasets import Numbers
from tutorlib.samplers import EpochSampler
from tutorlib.sharding import Sharded

QUICK = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class AsDocumented(IterableDataset):
    """The documentation's example: shares out among workers, forgets ranks."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n)) if info is None else iter(range(info.id, self.n, info.num_workers))


class Boasting(AsDocumented):
    def __len__(self):
        return self.n + 4


class Named(IterableDataset):
    def __iter__(self):
        return iter([{"id": name, "value": 1.0} for name in "abcde"])


def test_torchs_distributed_sampler_repeats_or_drops():
    def loaders(**kwargs):
        data = range(10)
        return [DataLoader(data, 2, sampler=DistributedSampler(data, 4, rank, shuffle=False, **kwargs)) for rank in range(4)]

    found = audit(loaders(), runs=1)
    assert found.repeated() == {0: 2, 1: 2} and found.missing() == [] and found.equal_steps and found.same_order is None
    assert found.summary() == "12 samples of 10 expected over 4 ranks: 2 repeated [0, 1], 0 missing; 2 steps on every rank"
    assert found.rows()[2] == {"rank": 2, "steps": 2, "len": 2, "samples": 3, "keys": "[2, 6, 0]"}
    dropped = audit(loaders(drop_last=True))
    assert dropped.missing() == [8, 9] and dropped.exactly_once is False and dropped.same_order is True
    with pytest.raises(AuditError, match="not every sample came exactly once\n8 samples of 10 expected over 4 ranks: 0 repeated"):
        dropped.require()


@pytest.mark.parametrize("workers", [0, 2])
def test_ours_passes_and_its_epochs_differ(workers):
    def build():
        samplers = [EpochSampler(10, 2, seed=1, rank=rank, world=4) for rank in range(4)]
        return [DataLoader(range(10), batch_sampler=sampler, num_workers=workers) for sampler in samplers]

    fresh = audit(build, runs=1 if workers else 2).require()
    assert fresh.exactly_once and fresh.equal_steps and fresh.true_length and fresh.steps() == (2, 2, 2, 2)
    if not workers:
        assert fresh.same_order and fresh.summary().endswith("2 steps on every rank; both fresh runs in one order")
        epochs = audit(build(), runs=3).require()  # the next epochs of the same objects: another order is right
        assert epochs.same_order is False and epochs.summary().endswith("all 3 passes in different orders")


def test_an_order_that_cannot_be_repeated_is_found():
    with pytest.raises(AuditError, match="a fresh run gives another order"):
        audit(lambda: DataLoader(range(50), 5, shuffle=True)).require()
    assert audit(lambda: DataLoader(range(50), 5, shuffle=True, generator=torch.Generator().manual_seed(0))).require().same_order


def test_the_documentations_stream_forgets_ranks_and_sharded_does_not():
    loaders = [DataLoader(AsDocumented(6), batch_size=2, num_workers=2) for _ in range(2)]
    found = audit(loaders, expected=6, runs=1)
    assert found.repeated() == dict.fromkeys([0, 2, 1, 3, 4, 5], 2) and "6 repeated" in found.summary()
    shared = [DataLoader(Sharded(Numbers(0, 6), rank, 2, chunk=2), batch_size=2) for rank in range(2)]
    found = audit(shared, expected=6)
    assert found.exactly_once and not found.equal_steps and found.summary().count("steps differ by rank [2, 1]")
    with pytest.raises(AuditError, match=r"^the ranks differ in steps\n"):
        found.require()


def test_a_len_that_is_not_true_is_found():
    loader = DataLoader(AsDocumented(9), batch_size=2, num_workers=2, drop_last=True)
    found = audit(loader, expected=9, runs=1)
    assert found.missing() == [8] and found.true_length  # no len, no lie
    promised = audit(DataLoader(Boasting(9), batch_size=2, num_workers=2), expected=9, runs=1)
    assert not promised.true_length and "len(loader) is not true" in promised.summary() and promised.runs[0][0].promised == 7
    with pytest.raises(AuditError, match=r"^len\(loader\) is not true\n"):
        promised.require()


def test_keys_of_any_loader():
    loader = DataLoader(Named(), batch_size=2)
    assert observe(loader, key=lambda batch: batch["id"]).steps == (("a", "b"), ("c", "d"), ("e",))
    with pytest.raises(TypeError, match=r"which samples are in a batch cannot be seen from a dict: give key="):
        observe(loader)
    with pytest.raises(TypeError, match="cannot be seen from a Tensor"):
        observe(DataLoader(Sharded([0.5, 1.5])))
    assert observe([torch.tensor([1, 2]), [3], 4, (5, 6)]).steps == ((1, 2), (3,), (4,), (5, 6))
    assert observe(iter([torch.tensor([[1, 2], [3, 4]])]), key=lambda batch: batch).steps == (((1, 2), (3, 4)),)
    assert observe(DataLoader({"x": 1, "y": 2}, sampler=["y", "x"])).expected == ("x", "y")
    assert observe(DataLoader(range(5), sampler=[4, 0], batch_size=None)).steps == ((4,), (0,))
    many = DataLoader(torch.arange(6), sampler=EpochSampler(6, 4, shuffle=False), batch_size=None)
    assert observe(many).steps == ((0, 1, 2, 3), (4, 5))


def refusing(samples):
    raise ValueError(f"no batch of {len(samples)}")


def test_the_loaders_own_collate_runs_and_its_errors_come_out():
    with pytest.raises(ValueError, match="no batch of 2"):
        observe(DataLoader(range(4), batch_size=2, collate_fn=refusing))


def test_what_is_unexpected_and_what_is_unknown():
    found = audit(DataLoader(range(4), sampler=RandomSampler(range(4))), expected=range(3), runs=1)
    assert found.unexpected() == [3] and found.summary().count("0 repeated, 0 missing, 1 unexpected [3]")
    unknown = audit([[1, 2]], runs=1)
    assert unknown.exactly_once is None and unknown.summary() == "2 samples: 0 repeated; 2 steps"
    with pytest.raises(AuditError, match="it is not known which samples to expect, give expected="):
        unknown.require()
    many = audit([list(range(50))], expected=40, runs=1)
    assert many.summary().count("10 unexpected [40, 41, 42, 43, 44, ..., 48, 49] (10)")


def test_a_run_that_goes_wrong_later_is_named():
    class Tiring:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([[0, 1], [2]] if self.passes == 1 else [[0, 1]])

    found = audit(Tiring(), expected=3)
    assert found.exactly_once is False and found.missing(0) == [] and found.missing(1) == [2]
    assert found.summary().startswith("2 samples of 3 expected: 0 repeated, 1 missing [2] (in run 1)")


def test_facts_pictures_and_pickles():
    def make():
        return audit([DataLoader(range(5), 2, sampler=DistributedSampler(range(5), 2, rank)) for rank in (0, 1)])

    same_text_twice(make)
    assert "x2" in str(pictures.grid(make()))
    one = observe(DataLoader(range(100)))
    assert len(one.rows()) == 40 and one.summary() == "100 samples in 100 steps" and "(61 more)" in str(one)
    copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes
    assert (
        copy == one and audit([copy]).exactly_once and audit([[copy], [copy]]).require().same_order and audit(copy).exactly_once
    )


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: audit([]), ValueError, "no loaders: give one, or a list of them"),
        (lambda: audit(5), TypeError, "int is no loader: it cannot be looped over"),
        (lambda: audit([[1]], runs=0), ValueError, "runs is how many passes to make, at least 1: found 0"),
        (lambda: observe([1], key="id"), TypeError, "key is a function from a batch to the keys of its samples: found str"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, text):
    with pytest.raises(error, match=text):
        call()


def observed_here(size):
    sampler = EpochSampler(size, 3, seed=2)
    assert (sampler.rank, sampler.world) == (dist.get_rank(), dist.get_world_size())
    return [observe(DataLoader(range(size), batch_sampler=sampler)) for _ in range(2)]


def test_observed_on_real_ranks():
    multiprocessing.set_forkserver_preload(["tutorlib.ranks", "tutorlib.samplers", "tutorlib.audit"])
    per_rank = ranks.run(observed_here, 20, world=3, start_method=QUICK)
    assert all(isinstance(one, Observed) for one in itertools.chain(*per_rank))
    found = audit(list(map(list, zip(*per_rank, strict=True))))  # two epochs
    assert found.exactly_once and found.equal_steps and found.true_length and found.same_order is False
