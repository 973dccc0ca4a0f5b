import itertools
import json
import math
import multiprocessing
import pickle
import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from laws import exactly_once, resumes_anywhere, same, same_text_twice
from torch.utils.data import DataLoader, Dataset, Subset, WeightedRandomSampler

from tutorlib import audit, pictures, trace
from tutorlib.samplers import Batched, EpochSampler, Grouped, Keyed, Keys, LengthBatches, Weighted

QUICK = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
LENGTHS = [int(x) for x in np.random.RandomState(0).geometric(0.1, 60)]
GROUPS = [int(x) for x in np.random.RandomState(1).randint(0, 3, 60)]

# Every kind, made for one rank of several: the laws hold for all.
KINDS = {
    "plain": lambda size, **at: EpochSampler(60, size, seed=3, **at),
    "in order": lambda size, **at: EpochSampler(60, size, shuffle=False, **at),
    "weighted": lambda size, **at: Weighted(range(1, 41), size, size=60, seed=3, **at),
    "by length": lambda size, **at: LengthBatches(LENGTHS, batch_size=size, budget=60 * size, pool=20, seed=3, **at),
    "grouped": lambda size, **at: Grouped(GROUPS, size, seed=3, **at),
}


@pytest.fixture(scope="module", autouse=True)
def server():
    multiprocessing.set_forkserver_preload(["tutorlib.ranks", "tutorlib.samplers"])


def loader_of(sampler, workers=0, data=range(60), **kwargs):
    return DataLoader(data, batch_sampler=sampler, num_workers=workers, collate_fn=list, **kwargs)


def of_all_ranks(kind, world, size, **kwargs):
    return [KINDS[kind](size, rank=rank, world=world, **kwargs) for rank in range(world)]


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_once_with_equal_steps_and_a_true_len_in_an_order_that_does_not_know_the_ranks(kind):
    for world, size in itertools.product((1, 2, 3, 7), (2, 5, 16)):
        samplers = of_all_ranks(kind, world, size)
        if kind == "grouped":  # its order knows batch_size, but neither ranks nor workers
            canonical = KINDS[kind](size, rank=0, world=1).order().tolist()
        else:
            canonical = KINDS[kind](3, rank=0, world=1).order().tolist()
        loaders = [loader_of(sampler) for sampler in samplers]
        promised = [len(loader) for loader in loaders]
        steps = list(zip(*loaders, strict=True))
        assert [index for step in steps for batch in step for index in batch] == canonical
        assert promised == [len(steps)] * world
        assert all(1 <= len(batch) <= size for step in steps for batch in step)
        if kind != "weighted":
            exactly_once([canonical], range(60))


@pytest.mark.parametrize("remainder", ["pad", "drop", "uneven", "error"])
def test_other_remainders(remainder):
    samplers = [EpochSampler(60, 7, rank=rank, world=4, remainder=remainder) for rank in range(4)] if remainder != "error" else []
    shares = [[index for batch in sampler for index in batch] for sampler in samplers]
    if remainder == "pad":
        assert {len(share) for share in shares} == {15} and len(samplers[0]) == 3
        assert {len(share) for share in ([*EpochSampler(61, 7, rank=r, world=4, remainder="pad")] for r in range(4))} == {3}
    elif remainder == "drop":
        assert {len(share) for share in shares} == {14} and len(set(itertools.chain(*shares))) == 56
    elif remainder == "uneven":
        exactly_once(shares, range(60))
        assert [len([*EpochSampler(60, 7, rank=r, world=4, remainder="uneven")]) for r in range(4)] == [3, 2, 2, 2]
        assert [len(EpochSampler(60, 7, rank=r, world=4, remainder="uneven")) for r in range(4)] == [3, 2, 2, 2]
    else:
        with pytest.raises(ValueError, match="60 samples do not divide into steps of 4 ranks x 7, 4 are left over"):
            EpochSampler(60, 7, rank=0, world=4, remainder="error")


def test_padding_begins_again_at_the_epochs_first_samples():
    samplers = [EpochSampler(5, 2, seed=1, rank=rank, world=4, remainder="pad") for rank in range(4)]
    canonical = samplers[0].order().tolist()
    assert [next(iter(sampler)) for sampler in samplers] == [
        canonical[:2],
        canonical[2:4],
        [canonical[4], canonical[0]],
        canonical[1:3],
    ]


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create [34] worker"
)  # more than this machine may have cores: it is meant
@pytest.mark.parametrize(
    ("workers", "method", "persistent"),
    [(1, "fork", True), (3, "fork", True), (4, "fork", False), (2, QUICK, True), (1, "spawn", False)],
)
def test_the_same_batches_for_any_workers(workers, method, persistent):
    alone = EpochSampler(23, 3, seed=1, rank=1, world=2)
    whole = [[batch.tolist() for batch in DataLoader(range(23), batch_sampler=alone)] for _ in range(2)]
    sampler = EpochSampler(23, 3, seed=1, rank=1, world=2)
    loader = DataLoader(
        range(23), batch_sampler=sampler, num_workers=workers, multiprocessing_context=method, persistent_workers=persistent
    )
    for epoch in range(2 if persistent else 1):
        assert [batch.tolist() for batch in sampler.follow(loader)] == whole[epoch]
        assert sampler.state_dict() == {"seed": 1, "epoch": epoch + 1, "seen": 0, "size": 23}


def test_a_batch_at_a_time_where_the_dataset_takes_many_indices():
    data = torch.arange(40) * 10
    sampler = EpochSampler(40, 6, seed=1)
    loader = DataLoader(data, sampler=sampler, batch_size=None)
    batches = list(sampler.follow(loader))
    assert len(loader) == len(batches) == 7 and same(torch.cat(batches), data[EpochSampler(40, 6, seed=1).order()])
    assert sampler.epoch == 1


def test_the_trace_sees_the_batches():
    sampler = EpochSampler(10, 4, shuffle=False, rank=1, world=2)
    assert trace.record(range(10), batch_sampler=sampler).keys() == [[4, 5, 6, 7], [9]]


# Epochs.


def test_each_pass_of_a_plain_loop_is_the_next_epoch():
    sampler = EpochSampler(12, 5, seed=2)
    loader = loader_of(sampler, data=range(12))
    passes = [list(loader) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2]
    again = EpochSampler(12, 5, seed=2)
    for epoch in (2, 0, 1):
        again.set_epoch(epoch)
        assert list(again) == passes[epoch]
    again.set_epoch(3)
    assert sampler.epoch == 2 and same(sampler.order(), again.order())  # the next pass is epoch 3


def test_asking_for_len_in_a_plain_loop_changes_nothing():
    """Workers have drawn the epoch to its end long before the loop has seen it."""
    sampler = EpochSampler(12, 2, seed=2)
    loader = loader_of(sampler, 2, range(12))
    for _ in loader:
        assert len(loader) == 6 and len(sampler.order()) == len(sampler.plan) * 2
        with pytest.raises(RuntimeError, match="a loader reads its sampler ahead"):
            sampler.state_dict()
    by_length = LengthBatches(LENGTHS, budget=60, seed=1)
    for _ in range(4):
        promised = len(by_length)
        assert len(list(by_length)) == promised


def test_a_look_at_the_first_batch_does_not_end_the_epoch():
    sampler = EpochSampler(12, 5, seed=2)
    first = next(iter(loader_of(sampler, data=range(12))))
    sampler.set_epoch(0)
    followed = list(sampler.follow(loader_of(sampler, data=range(12))))
    assert followed[0] == first and len(followed) == 3 and sampler.epoch == 1


def test_a_broken_off_iteration_begins_anew_and_its_own_state_goes_on():
    sampler = EpochSampler(12, 5, seed=2)
    loader = loader_of(sampler, data=range(12))
    whole = list(EpochSampler(12, 5, seed=2))
    old = sampler.follow(loader)
    next(old)
    assert next(sampler.follow(loader)) == whole[0]
    next(old)
    assert sampler.state_dict()["seen"] == 5  # the newest iteration counts
    sampler.load_state_dict(sampler.state_dict())
    assert len(sampler) == 2 and list(sampler.follow(loader)) == whole[1:] and len(sampler) == 3
    sampler.load_state_dict({"seed": 2, "epoch": 0, "seen": 5, "size": 12})
    assert next(sampler.follow(loader)) == whole[1] and next(sampler.follow(loader)) == whole[0]  # a state is loaded once
    sampler.load_state_dict({"seed": 2, "epoch": 1, "seen": 0, "size": 12})
    next(old, None)
    assert sampler.state_dict() == {"seed": 2, "epoch": 1, "seen": 0, "size": 12}


def test_set_epoch_keeps_a_loaded_place_in_the_same_epoch():
    sampler = EpochSampler(12, 5, seed=2)
    sampler.load_state_dict({"seed": 2, "epoch": 1, "seen": 5, "size": 12})
    sampler.set_epoch(1)
    assert sampler.state_dict()["seen"] == 5
    sampler.set_epoch(2)
    assert sampler.state_dict() == {"seed": 2, "epoch": 2, "seen": 0, "size": 12}


def test_nothing_to_read_is_an_epoch_too():
    sampler = EpochSampler(0, 4, world=2, rank=0)
    assert len(sampler) == 0 and list(sampler.follow(DataLoader([], batch_sampler=sampler))) == [] and sampler.epoch == 1


# Resuming.


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_anywhere_counted_where_batches_are_consumed(workers):
    def read(sampler):
        return sampler.follow(loader_of(sampler, workers, range(11)))

    resumes_anywhere(lambda: EpochSampler(11, 3, shuffle=False), read)


@pytest.mark.parametrize("kind", KINDS)
def test_two_shuffled_epochs_lose_and_repeat_nothing_wherever_they_are_stopped(kind):
    whole = KINDS[kind](7, rank=0, world=2)
    expected = [list(whole), list(whole)]
    for stop in range(len(expected[0]) + len(expected[1])):
        first = KINDS[kind](7, rank=0, world=2)
        batches = itertools.chain(first.follow(loader_of(first)), first.follow(loader_of(first)))
        found = list(itertools.islice(batches, stop))
        state = json.loads(json.dumps(first.state_dict()))
        other = KINDS[kind](7, rank=0, world=2)
        other.load_state_dict(state)
        assert other.state_dict() == state
        while other.epoch < 2:
            found += other.follow(loader_of(other))
        assert found == [*expected[0], *expected[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_histories_of_ranks_batch_sizes_and_stops_lose_and_repeat_nothing(kind):
    chance = random.Random(7)
    for _ in range(60):
        state, found = None, []
        canonical = None
        while state is None or state["epoch"] == 0:
            left = 60 if state is None else 60 - state["seen"]
            world, size = chance.randrange(1, min(5, left + 1)), chance.randrange(3, 12)
            samplers = of_all_ranks(kind, world, size)
            try:
                for sampler in samplers:
                    if state is not None:
                        sampler.load_state_dict(state)
            except ValueError as error:
                assert "impossible" in str(error)  # single long samples left for several ranks: the same again with others
                continue
            canonical = canonical or samplers[0].order().tolist()
            together = zip(*(sampler.follow(loader_of(sampler)) for sampler in samplers), strict=True)
            for step in itertools.islice(together, chance.randrange(1, 6)):
                found += itertools.chain(*step)
            states = [json.loads(json.dumps(sampler.state_dict())) for sampler in samplers]
            assert all(one == states[0] for one in states)
            state = states[0]
        assert found == canonical


def test_workers_that_read_ahead_do_not_spoil_the_count():
    drawn = []

    class Spy(EpochSampler):
        def __iter__(self):
            for keys in super().__iter__():
                drawn.append(keys)
                yield keys

    sampler = EpochSampler(60, 3, seed=1)
    batches = sampler.follow(loader_of(sampler, 2, prefetch_factor=5))
    assert [sampler.state_dict()["seen"] for _ in zip(range(4), batches, strict=False)] == [3, 6, 9, 12]
    plain = Spy(60, 3, seed=1)
    assert next(iter(loader_of(plain, 2, prefetch_factor=5))) and len(drawn) > 4  # read ahead
    with pytest.raises(RuntimeError, match=r"a loader reads its sampler ahead.*loop over sampler.follow\(loader\)"):
        plain.state_dict()
    plain.set_epoch(1)
    assert plain.state_dict() == {"seed": 1, "epoch": 1, "seen": 0, "size": 60}


def test_an_uneven_rank_waits_for_the_epoch_to_end_everywhere():
    sampler = EpochSampler(5, 2, shuffle=False, rank=1, world=2, remainder="uneven")
    batches = sampler.follow(loader_of(sampler, data=range(5)))
    next(batches)
    assert sampler.state_dict()["seen"] == 4  # as on rank 0, which has one more batch
    assert list(batches) == [] and sampler.state_dict() == {"seed": None, "epoch": 1, "seen": 0, "size": 5}


def test_what_is_left_may_be_impossible_and_says_so():
    sampler = EpochSampler(10, 4, rank=0, world=4)
    before = sampler.state_dict()
    with pytest.raises(ValueError, match="impossible: 3 samples over 4 ranks"):
        sampler.load_state_dict({"seed": 0, "epoch": 2, "seen": 7, "size": 10})
    assert sampler.state_dict() == before and list(sampler)
    padding = EpochSampler(10, 4, rank=0, world=4, remainder="pad")
    padding.load_state_dict({"seed": 0, "epoch": 2, "seen": 7, "size": 10})
    assert len(padding) == 1


def test_the_weight_of_the_batch_at_hand():
    samplers = [EpochSampler(10, 4, rank=rank, world=4) for rank in range(4)]
    weights = [[sampler.weight for _ in sampler.follow(loader_of(sampler, data=range(10)))] for sampler in samplers]
    assert weights == [[1.2], [1.2], [0.8], [0.8]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epoch": -1}, r"state\['epoch'\] must be an int of at least 0: found -1"),
        ({"seen": 1.0}, r"state\['seen'\] must be an int of at least 0: found 1.0"),
        ({"seen": 61}, r"state\['seen'\] must be at most size, 60: found 61"),
        ({"size": 61}, "the state is of 61 samples, this sampler has 60"),
        ({"seed": None}, "the state was taken without shuffle, this sampler is with"),
        ({"seed": "0"}, r"state\['seed'\] must be an int, or None without shuffle: found '0'"),
        ({"run": 3}, r"a state of EpochSampler has the entries \['seed', 'epoch', 'seen', 'size'\]: found"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, text):
    sampler = EpochSampler(60, 4, seed=9)
    good = {"seed": 1, "epoch": 3, "seen": 8, "size": 60}
    sampler.load_state_dict(good)
    with pytest.raises(ValueError, match=text):
        sampler.load_state_dict({**good, **change})
    assert sampler.state_dict() == good
    with pytest.raises(ValueError, match="the state was taken with shuffle, this sampler is without"):
        EpochSampler(60, shuffle=False).load_state_dict(good)


def test_follow_refuses_what_it_cannot_count():
    sampler = EpochSampler(60, 4)
    with pytest.raises(ValueError, match="the loader draws from another"):
        sampler.follow(DataLoader(range(60), batch_size=4))
    with pytest.raises(ValueError, match="in_order=False gives batches in no known order"):
        sampler.follow(loader_of(sampler, 2, in_order=False))
    with pytest.raises(ValueError, match="epoch is a whole number from 0: found -1"):
        sampler.set_epoch(-1)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: EpochSampler([1, 2]), TypeError, r"size is the number of samples, give len\(dataset\): found list"),
        (lambda: EpochSampler(4, 0), ValueError, "batch_size must be at least 1: found 0"),
        (lambda: EpochSampler(4, seed=0.5), TypeError, "seed is a whole number: found 0.5"),
        (lambda: EpochSampler(4, rank=1), ValueError, "rank and world go together"),
        (lambda: EpochSampler(3, 2, rank=0, world=4), ValueError, "impossible: 3 samples over 4 ranks"),
        (lambda: Weighted([1, -1]), ValueError, "weights must be finite and at least 0: found -1.0 at 1"),
        (lambda: Weighted([1, math.nan]), ValueError, "found nan at 1"),
        (lambda: Weighted([0, 0]), ValueError, "all 2 weights are 0"),
        (lambda: Weighted([[1]]), ValueError, r"weights are one number a sample: found shape \(1, 1\)"),
        (lambda: Weighted([1, 0, 1], size=3, replacement=False), ValueError, "3 draws without replacement, but 2 samples"),
        (lambda: LengthBatches([3, 9], budget=8), ValueError, "is 9 long, the budget of a batch is 8"),
        (lambda: LengthBatches([3, 9]), ValueError, "give budget .* found neither"),
        (lambda: LengthBatches([3, 0.5], budget=8), ValueError, "lengths must be whole numbers from 0: found 0.5"),
        (lambda: LengthBatches([3], budget=8, pool=0), ValueError, "pool must be at least 1"),
        (lambda: Grouped([[1], [2]], 2), TypeError, "a group is a label, something hashable"),
        (lambda: Keyed([1], transform=3), TypeError, "transform is a function of one sample: found int"),
    ],
)
def test_bad_input_is_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_pickles_and_says_what_it_is():
    sampler = EpochSampler(12, 5, seed=2, rank=1, world=2)
    next(sampler.follow(loader_of(sampler, data=range(12))))
    copy = pickle.loads(pickle.dumps(sampler))  # noqa: S301 - our own bytes
    assert copy.state_dict() == sampler.state_dict() and list(copy) == list(EpochSampler(12, 5, seed=2, rank=1, world=2))
    assert repr(copy) == "EpochSampler(12, batch_size=5, seed=2, rank=1, world=2)"
    assert repr(LengthBatches([1], budget=4, shuffle=False)) == "LengthBatches(1, rank=0, world=1)"
    keys = pickle.loads(pickle.dumps(Keys([1, 2], 3, 4)))  # noqa: S301
    assert (keys, keys.seed, keys.epoch) == ([1, 2], 3, 4)


# Weighted.


def test_weighted_draws_follow_their_weights():
    weights = [0.0, 1.0, 2.0, 5.0, 0.0]
    counts = Weighted(weights, size=20000, seed=1).order().bincount(minlength=5)
    assert counts[0] == counts[4] == 0
    for count, weight in zip(counts.tolist(), weights, strict=True):
        share = weight / 8
        assert abs(count - 20000 * share) <= 5 * math.sqrt(20000 * share * (1 - share))


def test_without_replacement_nothing_comes_twice_and_the_first_follow_the_weights():
    firsts = []
    sampler = Weighted([1.0, 0.0, 3.0], size=2, replacement=False)
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        draws = sampler.order().tolist()
        assert sorted(draws) == [0, 2]
        firsts.append(draws[0])
    assert abs(firsts.count(2) / 2000 - 0.75) < 0.05


def test_more_samples_than_torch_can_weigh():
    weights = np.zeros(2**24 + 1)
    weights[[3, 2**24]] = 1.0
    with pytest.raises(RuntimeError, match=r"number of categories cannot exceed 2\^24"):
        list(WeightedRandomSampler(weights, 1))
    assert set(Weighted(weights, size=40).order().tolist()) == {3, 2**24}


# By length.


def test_padding_is_small_the_budget_is_kept_and_ranks_carry_alike():
    lengths = np.minimum(500, np.random.RandomState(0).lognormal(3, 1, 4000).astype(int) + 1)
    samplers = [LengthBatches(lengths, budget=4000, seed=1, rank=rank, world=4) for rank in range(4)]
    found = samplers[0].padding()
    assert found.share <= 0.2 * found.random and found.random > 0.3
    assert sum(row["samples"] for row in found.ranks) == 4000 and len({row["batches"] for row in found.ranks}) == 1
    costs = [[len(batch) * lengths[batch].max() for batch in sampler] for sampler in samplers]
    assert max(map(max, costs)) <= 4000
    assert sum(map(max, zip(*costs, strict=True))) < 1.1 * sum(map(sum, costs)) / 4  # waiting for the slowest rank
    same_text_twice(samplers[0].padding)
    assert "by length" in str(pictures.bars(found))


def test_pools_mix_and_epochs_differ():
    sampler = LengthBatches(LENGTHS, batch_size=4, pool=20, seed=1)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append(sampler.order().tolist())
        ways = [[LENGTHS[index] for index in orders[-1][at : at + 20]] for at in (0, 20, 40)]
        assert ways[0] == sorted(ways[0]) and ways[1] == sorted(ways[1], reverse=True) and ways[2] == sorted(ways[2])
    assert set(orders[0][:20]) != set(orders[1][:20])
    assert LengthBatches([], budget=4).padding().share == 0.0


def test_the_pool_of_a_state_is_the_pool_of_its_epoch():
    sampler = LengthBatches(LENGTHS, batch_size=4, pool=20)
    next(sampler.follow(loader_of(sampler)))
    other = LengthBatches(LENGTHS, budget=100, pool=7)
    other.load_state_dict(sampler.state_dict())
    assert other.order().tolist() == sampler.order().tolist() and other.state_dict()["pool"] == 20


# Grouped.


def test_every_batch_is_of_one_group_and_only_a_groups_last_run_is_short():
    for size in (1, 4, 7):
        batches = list(Grouped(GROUPS, size, seed=5))
        assert all(len({GROUPS[index] for index in batch}) == 1 for batch in batches)
        assert len(batches) == sum(-(-GROUPS.count(group) // size) for group in set(GROUPS))
    canonical = EpochSampler(60, 4, seed=5).order().tolist()
    batches = list(Grouped(GROUPS, 4, seed=5))
    short = [len(batch) < 4 for batch in batches]
    assert short == sorted(short) and 0 < sum(short) <= 3  # after all that are full
    assert len({GROUPS[batch[0]] for batch in batches[:6]}) > 1  # groups mix
    for group in set(GROUPS):  # within a group the order is the epoch's
        mine = [index for batch in batches for index in batch if GROUPS[index] == group]
        assert mine == [index for index in canonical if GROUPS[index] == group]


# Randomness by (seed, epoch, index).


def shaken(sample):
    return sample, random.random(), float(np.random.rand()), float(torch.rand(()))


class Shaking(Dataset):
    """Random where it is read."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return shaken(index)


class Bulk:
    def __init__(self):
        self.reads = []

    def __len__(self):
        return 12

    def __getitem__(self, index):
        raise AssertionError("read one by one")

    def __getitems__(self, indices):
        self.reads.append(indices)
        return list(indices)


def samples_of(world, size, workers, data, epoch, seen=0):
    found = {}
    for rank in range(world):
        sampler = EpochSampler(12, size, seed=4, rank=rank, world=world)
        sampler.load_state_dict({"seed": 4, "epoch": epoch, "seen": seen, "size": 12})
        for batch in sampler.follow(loader_of(sampler, workers, data)):
            found |= {sample[0]: sample[1:] for sample in batch}
    return found


def test_a_sample_is_made_alike_for_any_ranks_workers_and_resumes():
    expected = samples_of(1, 4, 0, Keyed(Shaking()), epoch=1)
    assert len(expected) == len(set(expected.values())) == 12
    for world, size, workers in [(2, 3, 0), (3, 2, 0), (1, 5, 2), (2, 2, 1)]:
        for data in (Keyed(Shaking()), Keyed(range(12), shaken)):
            assert samples_of(world, size, workers, data, epoch=1) == expected
    part = samples_of(2, 2, 0, Keyed(range(12), shaken), epoch=1, seen=5)
    assert len(part) == 7 and all(expected[index] == value for index, value in part.items())
    other = samples_of(1, 4, 0, Keyed(Shaking()), epoch=2)
    assert not set(expected.values()) & set(other.values())


def test_keyed_reads_in_bulk_and_leaves_the_generators_alone():
    source = Bulk()
    data = Keyed(source, shaken)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    assert data.sample(3, seed=1, epoch=2) == data.sample(3, seed=1, epoch=2)
    assert same(torch.rand(2), expected) and source.reads == [[3], [3]] and len(data) == 12
    many = DataLoader(data, sampler=EpochSampler(12, 4, shuffle=False), batch_size=None, collate_fn=list)
    assert [sample[0] for sample in next(iter(many))] == [0, 1, 2, 3]
    with pytest.raises(TypeError, match=r"\[0, 1\] does not tell its epoch: use a sampler of tutorlib.samplers"):
        next(iter(DataLoader(data, batch_size=2)))


# A batch at a time.


class Columns(NamedTuple):
    image: object
    label: object


IMAGES, LABELS = torch.arange(120.0).reshape(60, 2), torch.arange(60)
SOURCES = {
    "tensor": (IMAGES, lambda i: IMAGES[i]),
    "array": (IMAGES.numpy(), lambda i: IMAGES.numpy()[i]),
    "tuple": ((IMAGES, LABELS.numpy()), lambda i: (IMAGES[i], LABELS.numpy()[i])),
    "namedtuple": (Columns(IMAGES, LABELS), lambda i: Columns(IMAGES[i], LABELS[i])),
    "dict": ({"image": IMAGES, "label": LABELS}, lambda i: {"image": IMAGES[i], "label": LABELS[i]}),
    "dataset": (range(60), lambda i: i),
    "subset": (Subset(range(100, 160), range(60)), lambda i: 100 + i),
}


class Single(Dataset):
    def __init__(self, one):
        self.one = one

    def __len__(self):
        return 60

    def __getitem__(self, index):
        return self.one(index)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_batches_are_those_that_the_loader_makes_of_single_samples(name, kind):
    source, one = SOURCES[name]
    for rank in range(2):
        alone, whole = (KINDS[kind](7, rank=rank, world=2) for _ in range(2))
        loader = DataLoader(Batched(source), sampler=whole, batch_size=None)
        expected = list(DataLoader(Single(one), batch_sampler=alone))
        assert len(loader) == len(expected) and same(list(whole.follow(loader)), expected)


MIXED = {
    "odd": torch.arange(60, dtype=torch.uint8).reshape(60, 1).expand(60, 3),
    "bool": np.arange(60) % 3 == 0,
    "none": torch.empty(60, 0),
    "float": torch.arange(120.0).reshape(60, 2).double(),
    "learned": torch.arange(60.0).requires_grad_(),
}


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_worker_hands_over_a_batch_in_one_piece(context, shuffle):
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} here")
    columns = {name: Batched(source[0]) for name, source in SOURCES.items() if name not in ("dataset", "subset")}
    for data in [Batched(MIXED)] if context == "spawn" else [Batched(MIXED), *columns.values()]:
        here, there = (EpochSampler(60, 7, shuffle=shuffle) for _ in range(2))
        alone = [batch for batch in DataLoader(data, sampler=here, batch_size=None)]
        sent = list(DataLoader(data, sampler=there, batch_size=None, num_workers=1, multiprocessing_context=context))
        assert same(sent, alone) and type(sent[0]) is type(alone[0])
        batch = sent[0]
        leaves = [batch] if isinstance(batch, torch.Tensor) else list(batch.values() if isinstance(batch, dict) else batch)
        assert len({leaf.untyped_storage().data_ptr() for leaf in leaves}) == 1
        leaves[0].detach().zero_()  # and each column has its own place in it
        kept = [alone[0]] if len(leaves) == 1 else list(alone[0].values() if isinstance(alone[0], dict) else alone[0])
        assert same(leaves[1:], kept[1:]) and same(sent[1:], alone[1:])


def test_keys_in_order_are_a_slice_until_they_are_changed():
    first = next(iter(EpochSampler(6, 4, shuffle=False)))
    assert first == [0, 1, 2, 3] and first.rows == slice(0, 4)
    sent = pickle.loads(pickle.dumps(first))  # noqa: S301
    assert sent == first and sent.rows == first.rows and (sent.seed, sent.epoch) == (0, 0)
    first[0] = 5
    assert first.rows is None and Batched(LABELS)[first].tolist() == [5, 1, 2, 3]
    for change in ("reverse", "clear", "pop"):
        keys = Keys(range(2, 5))
        getattr(keys, change)()
        assert keys.rows is None and Batched(LABELS)[keys].tolist() == list(keys)
    shuffled = next(iter(EpochSampler(6, 4)))
    assert shuffled.rows is None and pickle.loads(pickle.dumps(shuffled)) == shuffled  # noqa: S301


def test_whole_batches_are_audited_resumed_and_keyed(tmp_path):
    def loaders(shuffle, workers=0):
        samplers = [EpochSampler(60, 7, rank=rank, world=3, shuffle=shuffle) for rank in range(3)]
        return [DataLoader(Batched(IMAGES), sampler=one, batch_size=None, num_workers=workers) for one in samplers]

    for shuffle in (False, True):
        assert audit.audit(lambda shuffle=shuffle: loaders(shuffle)).require().exactly_once
    assert same(list(loaders(True, 2)[1]), list(loaders(True)[1]))
    resumes_anywhere(
        lambda: EpochSampler(60, 16, shuffle=False),
        lambda one: one.follow(DataLoader(Batched(IMAGES), sampler=one, batch_size=None)),
    )
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.int64, (60,))
    array[:] = LABELS
    array.flush()
    mapped = Batched(np.load(tmp_path / "a.npy", mmap_mode="r"))
    batch = mapped[[3, 4]].add_(1)  # a copy: the file is as it was
    assert batch.tolist() == [4, 5] and mapped[[4, 3]].tolist() == [4, 3]
    view = Batched(IMAGES)[[0, 1]].zero_()
    assert Batched(IMAGES)[[]].shape == (0, 2)
    assert IMAGES[1].tolist() == [2.0, 3.0] and view.untyped_storage().nbytes() == 16
    keyed = Keyed(range(12), shaken)
    sampler = EpochSampler(12, 4, seed=4)
    loader = DataLoader(Batched(keyed, collate_fn=list), sampler=sampler, batch_size=None, collate_fn=list)
    assert [s for batch in sampler.follow(loader) for s in batch] == [
        keyed.sample(i, seed=4, epoch=0) for i in EpochSampler(12, 4, seed=4).order().tolist()
    ]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Batched(iter([1])), TypeError, "list_iterator is no source: it needs __len__ and __getitem__"),
        (lambda: Batched((IMAGES, LABELS[:3])), ValueError, "columns hold one row a sample: found 60 and 3 rows"),
        (lambda: Batched(IMAGES)[3], TypeError, r"reads the list of indices of a batch: found 3; use DataLoader\(batched"),
        (lambda: Batched(IMAGES)[[3, 60]], IndexError, "index 60: the source has 60 samples, from 0"),
        (lambda: Batched(IMAGES)[[-1, 0]], IndexError, "index -1: the source has 60 samples, from 0"),
    ],
)
def test_a_bad_source_or_index_is_one_clear_error(call, error, text):
    with pytest.raises(error, match=text):
        call()
