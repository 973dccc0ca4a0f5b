import itertools
import json
import multiprocessing
import pickle
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import exactly_once, resumes_anywhere, same_text_twice
from torch.utils.data import DataLoader, IterableDataset

from tutorlib import pictures, sharding
from tutorlib.datasets import Numbers, SqliteTable, digits, write_sqlite
from tutorlib.samplers import Keyed
from tutorlib.sharding import Place, Sharded, order, plan, plan_lengths, randomness, seed_of, this_process


class Batches:
    """A map-style source that remembers what was read, and how."""

    def __init__(self, size):
        self.size, self.reads = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.reads.append(index)
        return index

    def __getitems__(self, indices):
        self.reads.append(list(indices))
        return list(indices)


class Asking(IterableDataset):
    """Asks for its place where it is iterated, without rank and world: right for one rank only."""

    def __iter__(self):
        yield this_process().count


def loaded_in_turn(shares, size):
    """What a DataLoader with one worker for each share makes of them: a batch of each worker in turn."""
    queues = [[share[i : i + size] for i in range(0, len(share), size)] for share in shares]
    return [batch for turn in itertools.zip_longest(*queues) for batch in turn if batch is not None]


GRID = list(itertools.product((0, 1, 2, 5, 7, 12, 13), (1, 2, 3), (1, 2, 3), (1, 2, 4)))


@pytest.mark.parametrize(
    "style",
    [
        range,
        lambda n: list(range(n)),
        Batches,
        lambda n: Numbers(0, n),
        lambda n: dict(zip("abcdefghijklm", range(n), strict=False)),
    ],
)
def test_every_sample_reaches_exactly_one_place(style):
    for size, world, workers, chunk in GRID:
        source = style(size)
        shares = [[list(Place(r, world, w, workers).share(source, chunk)) for w in range(workers)] for r in range(world)]
        exactly_once((share for rank in shares for share in rank), range(size))


def test_a_ranks_samples_and_their_order_do_not_depend_on_its_workers():
    for size, world, workers, chunk in GRID:
        for rank in range(world):
            alone = list(Place(rank, world).share(range(size), chunk))
            shares = [list(Place(rank, world, w, workers).share(range(size), chunk)) for w in range(workers)]
            batches = loaded_in_turn(shares, chunk)
            assert list(itertools.chain(*batches)) == alone == sorted(alone)
            assert batches == [list(range(size))[q * chunk : (q + 1) * chunk] for q in range(rank, -(-size // chunk), world)]


def test_shares_of_places_differ_by_at_most_one_run():
    for size, world, workers, chunk in GRID:
        sizes = [len(list(Place(r, world, w, workers).share(range(size), chunk))) for r in range(world) for w in range(workers)]
        assert max(sizes) - min(sizes) <= chunk


def test_a_map_style_source_is_read_only_where_the_place_is_and_a_run_at_a_time():
    source = Batches(10)
    assert list(Place(1, 2).share(source, 3)) == [3, 4, 5, 9]
    assert source.reads == [[3, 4, 5], [9]]
    share = Place(1, 2).share(source, 3)
    assert next(share) == 3 and source.reads[2:] == [[3, 4, 5]]  # lazily


def test_a_stream_is_read_lazily():
    endless = Sharded(SimpleNamespaceStream(), 1, 2)
    assert list(itertools.islice(endless, 3)) == [1, 3, 5]


class SimpleNamespaceStream(IterableDataset):
    def __iter__(self):
        return itertools.count()


def test_sources_of_this_library(tmp_path):
    images = digits("test")
    assert [label for _, label in Sharded(images, 1, 4)] == images.labels[1::4].tolist()
    with SqliteTable(write_sqlite(tmp_path / "digits.db", "test"), "digits") as table:
        shares = [[row["key"] for row in Sharded(table, rank, 3, chunk=8)] for rank in range(3)]
        exactly_once(shares, table.keys())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_real_loader_gives_the_canonical_order_for_any_number_of_workers(workers):
    for rank, batches in enumerate([[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10]]]):
        loader = DataLoader(Sharded(Numbers(0, 11), rank, 2, chunk=3), batch_size=3, num_workers=workers)
        assert [batch.tolist() for batch in loader] == batches
    assert list(DataLoader(Sharded(Numbers(0, 7)), batch_size=None, num_workers=workers)) == list(range(7))


def test_another_batch_size_interleaves_but_loses_nothing():
    batches = [batch.tolist() for batch in DataLoader(Sharded(range(8)), batch_size=2, num_workers=2)]
    assert batches == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_rank_is_captured_where_the_object_is_made_and_workers_are_spawned(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stream = Sharded(range(10))
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert list(loader) == [1, 3, 5, 7, 9]


def test_the_place_of_this_process(monkeypatch):
    assert this_process() == Place() and this_process(2, 3) == Place(2, 3)
    monkeypatch.setattr(sharding.torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(sharding.torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(sharding.torch.distributed, "get_world_size", lambda: 4)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert this_process() == Place(1, 4)  # torch.distributed is nearer to the truth than the environment
    monkeypatch.setattr(sharding, "get_worker_info", lambda: SimpleNamespace(id=1, num_workers=2))
    assert this_process(1, 4) == Place(1, 4, 1, 2)
    with pytest.raises(RuntimeError, match=r"cannot be sure of its rank \(here it looks like rank 1 of 4.*__init__"):
        this_process()


def test_a_real_worker_refuses_to_guess_its_rank(monkeypatch):
    assert list(DataLoader(Asking(), batch_size=None, num_workers=2)) == [2, 2]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="a worker process cannot be sure of its rank"):
        list(DataLoader(Asking(), batch_size=None, num_workers=1))


# Resuming


@pytest.mark.parametrize(("world", "chunk", "batch_size"), [(1, 1, 3), (2, 1, 3), (3, 2, 2), (2, 3, 2), (1, 4, 3)])
def test_resumes_anywhere_without_workers(world, chunk, batch_size):
    for rank in range(world):

        def make(rank=rank):
            return Sharded(Numbers(0, 14), rank, world, chunk=chunk)

        resumes_anywhere(make, lambda stream: (batch.tolist() for batch in DataLoader(stream, batch_size=batch_size)))
        resumes_anywhere(make, iter)
        resumes_anywhere(make, lambda stream: ([*batch] for batch in stream.follow(DataLoader(stream, batch_size=batch_size))))


def test_a_short_last_batch_ends_the_epoch_when_the_loop_does_if_followed():
    for follow, states in ((True, [(0, 2), (0, 4), (1, 0)]), (False, [(0, 2), (1, 0), (1, 0)])):
        stream = Sharded(range(3))
        loader = DataLoader(stream, batch_size=2)
        found = []
        for _ in stream.follow(loader) if follow else loader:
            found.append((stream.epoch, stream.state_dict()["seen"]))
        assert [*found, (stream.epoch, stream.state_dict()["seen"])] == states


def test_resumes_with_other_workers_counted_by_consumption():
    whole = [[0, 1], [4, 5], [8, 9], [12, 13]]
    for before, after in ((2, 0), (0, 2), (2, 1)):
        first = Sharded(Numbers(0, 15), 0, 2, chunk=2)
        reading = first.follow(DataLoader(first, batch_size=2, num_workers=before))
        assert [next(reading).tolist() for _ in range(2)] == whole[:2]  # two workers have read further by now
        state = json.loads(json.dumps(first.state_dict()))
        assert state == {"epoch": 0, "seen": 8, "part": 0, "world": 2, "chunk": 2}
        reading.close()
        second = Sharded(Numbers(0, 15), 0, 2, chunk=2)
        second.load_state_dict(state)
        loader = DataLoader(second, batch_size=2, num_workers=after)
        assert [batch.tolist() for batch in second.follow(loader)] == whole[2:]
        assert [batch.tolist() for batch in second.follow(loader)] == whole  # the epoch after is a whole one
        assert second.state_dict() == {"epoch": 2, "seen": 0, "part": 0, "world": 2, "chunk": 2}


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 60), st.data())
def test_elastic_other_ranks_and_chunks_at_every_stop(size, data):
    state, found = {"epoch": 0, "seen": 0, "part": 0, "world": 1, "chunk": 1}, []
    while state["seen"] < size:
        world, chunk = data.draw(st.integers(1, 4), "world"), data.draw(st.integers(1, 5), "chunk")
        streams = [Sharded(range(size), rank, world, chunk=chunk) for rank in range(world)]
        for stream in streams:
            stream.load_state_dict(state)
        readers = [iter(stream) for stream in streams]
        left = size - state["seen"]
        for _ in range(data.draw(st.integers(1, -(-left // (world * chunk))), "steps")):
            for reader in readers:
                found += itertools.islice(reader, chunk)
        state = streams[0].state_dict() if len(found) < size else {**state, "seen": size}
        if len(found) < size:  # in step: the states of all ranks are one
            assert all(stream.state_dict() == state for stream in streams)
    assert found == list(range(size))


def test_a_broken_off_iteration_does_not_disturb_the_next():
    stream = Sharded(range(6))
    old = iter(stream)
    next(old)
    assert list(stream) == list(range(6))
    new = iter(stream)
    next(new), next(new), next(old)
    assert stream.state_dict()["seen"] == 2  # the newest iteration counts


def test_persistent_workers_begin_every_epoch_anew():
    stream = Sharded(range(6), chunk=2)
    stream.load_state_dict({"epoch": 0, "seen": 2, "part": 0, "world": 1, "chunk": 2})
    loader = DataLoader(stream, batch_size=2, num_workers=1, persistent_workers=True)
    assert [batch.tolist() for batch in stream.follow(loader)] == [[2, 3], [4, 5]]
    assert [batch.tolist() for batch in stream.follow(loader)] == [[0, 1], [2, 3], [4, 5]]
    stream.load_state_dict({"epoch": 0, "seen": 4, "part": 0, "world": 1, "chunk": 2})
    with pytest.raises(ValueError, match="persistent workers do not hear of a state loaded after they started"):
        stream.follow(loader)


def test_a_loaded_state_with_workers_needs_follow():
    stream = Sharded(range(6))
    stream.load_state_dict({"epoch": 0, "seen": 3, "part": 0, "world": 1, "chunk": 1})
    with pytest.raises(RuntimeError, match=r"loop over sharded.follow\(loader\) instead of the loader"):
        list(DataLoader(stream, batch_size=None, num_workers=1))
    assert list(stream.follow(DataLoader(stream, batch_size=None, num_workers=1))) == [3, 4, 5]


# Bad input


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"loader": {"batch_size": 4, "num_workers": 2}}, r"found chunk=2, batch_size=4: use Sharded\(source, chunk=4\)"),
        ({"loader": {"batch_size": None, "num_workers": 2}}, r"found chunk=2, batch_size=None: use Sharded\(source, chunk=1\)"),
        ({"loader": {"batch_size": 2, "num_workers": 2, "in_order": False}}, "in_order=False gives batches in no known order"),
        ({"loader": {"batch_size": 2, "num_workers": 2}, "part": 1}, r"stops inside a run \(1 of 2 samples\): .*num_workers=0"),
    ],
)
def test_follow_refuses_what_a_count_cannot_resume(kwargs, text):
    stream = Sharded(range(8), 0, 2, chunk=2)
    stream.load_state_dict({"epoch": 0, "seen": 0, "part": kwargs.get("part", 0), "world": 2, "chunk": 2})
    with pytest.raises(ValueError, match=text):
        stream.follow(DataLoader(stream, **kwargs["loader"]))
    with pytest.raises(ValueError, match="the loader reads Numbers"):
        stream.follow(DataLoader(Numbers(0, 3)))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"epoch": 0, "seen": 1}, r"has the entries \['epoch', 'seen', 'part', 'world', 'chunk'\]: found \['epoch', 'seen'\]"),
        ({"epoch": 0, "seen": -1, "part": 0, "world": 1, "chunk": 1}, r"state\['seen'\] must be an int of at least 0: found -1"),
        (
            {"epoch": 0, "seen": 0, "part": 0, "world": 1.0, "chunk": 1},
            r"state\['world'\] must be an int of at least 1: found 1.0",
        ),
        ({"epoch": 0, "seen": 0, "part": 1, "world": 2, "chunk": 3}, "it fits only world=2, chunk=3: found world=1, chunk=4"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state, text):
    stream = Sharded(range(9), chunk=4)
    stream.load_state_dict({"epoch": 0, "seen": 4, "part": 0, "world": 2, "chunk": 2})
    with pytest.raises(ValueError, match=text):
        stream.load_state_dict(state)
    assert stream.state_dict() == {"epoch": 0, "seen": 4, "part": 0, "world": 1, "chunk": 4}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Place(2, 2), ValueError, "rank must be from 0 to world - 1: found rank=2, world=2"),
        (lambda: Place(0, 1, -1, 2), ValueError, "worker must be from 0 to workers - 1: found worker=-1, workers=2"),
        (lambda: Place().share([1], 0), ValueError, "chunk must be at least 1: found 0"),
        (lambda: Place().share({1}), TypeError, r"a set has no order that all processes share: give sorted\(the_set\)"),
        (lambda: Place().share(3), TypeError, "int is no source: it needs __iter__, or __len__ and __getitem__"),
        (lambda: this_process(1), ValueError, "rank and world go together: found rank=1, world=None"),
        (lambda: Sharded([1], 0), ValueError, "rank and world go together"),
        (lambda: Sharded(iter([1])), TypeError, "a list_iterator can be read only once"),
        (lambda: Sharded(Sharded([1])), TypeError, "already Sharded"),
        (lambda: Sharded([1], chunk=0), ValueError, "chunk must be at least 1: found 0"),
    ],
)
def test_bad_input_is_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_pickles_in_the_middle_of_an_iteration():
    stream = Sharded(range(5), 1, 2)
    next(iter(stream))
    copy = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
    assert list(copy) == [1, 3] and repr(copy) == "Sharded(range(0, 5), rank=1, world=2, chunk=1)"
    assert "spawn" in multiprocessing.get_all_start_methods()


# The plan.

EVERY = [(n, world, size) for n in range(130) for world in range(1, 9) for size in range(1, 9)]


def pieces(found):
    """All batches of a plan, in the order of the epoch; consecutive, so what lies between first and last comes once."""
    spans = [span for step in found.steps for span in step]
    for (_, stop), (begin, _) in itertools.pairwise(spans):
        assert stop == begin, f"{stop} is not {begin}: a gap or an overlap"
    return spans


def test_balance_is_exactly_once_with_equal_steps_wherever_it_is_possible():
    impossible = 0
    for n, world, size in EVERY:
        # A step holds at least one sample a rank, and exactly one if the batch is 1: nobody could do these.
        if n and (n < world or (size == 1 and n % world)):
            impossible += 1
            with pytest.raises(ValueError, match=f"impossible: {n} sample"):
                plan(n, world, size)
            continue
        found = plan(n, world, size)
        spans = pieces(found)
        assert not spans or (spans[0][0], spans[-1][1]) == (0, n)
        assert all(1 <= stop - begin <= size for begin, stop in spans)
        assert len(found) == -(-n // (world * size))  # the fewest that can hold them
        assert [found.count(rank) for rank in range(world)] == [len(found)] * world
        tail = [stop - begin for step in found.tail for begin, stop in step]
        assert len(found.tail) <= 2 and (not tail or max(tail) - min(tail) <= 1)
        assert all(stop - begin == size for begin, stop in spans[: found.full * world])
        assert (found.repeated, found.dropped) == (0, 0)
    assert impossible == sum(1 for n, world, size in EVERY if n and (n < world or (size == 1 and n % world))) > 0


def test_pad_gives_every_rank_as_much_and_reads_few_again():
    for n, world, size in EVERY:
        found = plan(n, world, size, "pad")
        spans = pieces(found)
        assert len(found) == -(-n // (world * size)) and found.dropped == 0
        assert all(len({stop - begin for begin, stop in step}) == 1 for step in found.steps)
        assert found.repeated < world and (not spans or spans[-1][1] == n + found.repeated)
        assert n == 0 or found.repeated == -n % world  # as many as torch's DistributedSampler adds


def test_drop_uneven_and_error():
    for n, world, size in EVERY:
        step = world * size
        dropping = plan(n, world, size, "drop")
        assert {stop - begin for begin, stop in pieces(dropping)} <= {size} and len(dropping) == n // step
        assert dropping.dropped == n % step
        uneven = plan(n, world, size, "uneven")
        spans = [span for span in pieces(uneven) if span[0] < span[1]]
        assert not spans or (spans[0][0], spans[-1][1]) == (0, n)
        assert all(stop - begin == size for begin, stop in spans[:-1])
        counts = [uneven.count(rank) for rank in range(world)]
        assert counts == sorted(counts, reverse=True) and counts[0] - counts[-1] <= 1 and counts[0] == len(uneven)
        if n % step:
            with pytest.raises(ValueError, match=f"{n % step} are left over"):
                plan(n, world, size, "error")
        else:
            assert plan(n, world, size, "error").steps == plan(n, world, size).steps


@pytest.mark.parametrize("remainder", ["balance", "pad", "drop", "uneven"])
def test_the_plan_of_the_rest_is_the_rest_of_the_plan(remainder):
    for n, world, size in itertools.product(range(0, 60), (1, 2, 3, 5), (1, 2, 3, 7)):
        try:
            whole = plan(n, world, size, remainder)
        except ValueError:
            continue
        for done in range(len(whole) + 1):
            rest = plan(n, world, size, remainder, start=whole.seen(done))
            assert rest.steps == whole.steps[done:], (n, world, size, done)
            assert rest.seen(len(rest)) == whole.seen(len(whole))


def test_three_thousand_histories_of_ranks_and_batch_sizes_lose_and_repeat_nothing():
    chance = random.Random(3)
    for _ in range(3000):
        n, seen, found = chance.randrange(8, 400), 0, []
        while seen < n:
            world, size = chance.randrange(1, 7), chance.randrange(2, 9)
            rest = plan(n, min(world, n - seen), size, start=seen)
            steps = chance.randrange(1, len(rest) + 1)
            found += [position for step in rest.steps[:steps] for span in step for position in range(*span)]
            seen = rest.seen(steps)
        assert found == list(range(n))


def test_weights_make_the_average_over_ranks_the_mean_over_samples():
    values = [float(i * i) for i in range(40)]
    for n, world, size in [(10, 4, 4), (33, 4, 8), (40, 3, 4), (7, 7, 2)]:
        found = plan(n, world, size)
        for step, row in enumerate(found.steps):
            means = [sum(values[slice(*span)]) / (span[1] - span[0]) for span in row]
            mean = sum(found.weight(step, rank) * value for rank, value in enumerate(means)) / world
            assert mean == pytest.approx(sum(values[row[0][0] : row[-1][1]]) / (row[-1][1] - row[0][0]))


def test_a_plan_of_a_trillion_samples_costs_nothing():
    began = time.perf_counter()
    found = plan(10**12 + 5, world=512, batch_size=64, start=512 * 64)
    assert found.seen(len(found)) == 10**12 + 5 and len(found.rows()) == 24 and len(found.of(7).__next__()) == 2
    assert time.perf_counter() - began < 1


def test_a_plan_is_facts_and_a_picture():
    for remainder in ("balance", "pad", "uneven"):
        same_text_twice(lambda remainder=remainder: plan(10, 4, 2, remainder))
    padded = plan(10, 4, 2, "pad")
    assert padded.summary() == "10 samples, 4 ranks, batches of at most 2: 2 steps for every rank, 2 read again"
    assert padded.rows()[1] == {"step": 1, "rank 0": "8:9", "rank 1": "9:10", "rank 2": "0", "rank 3": "1"}
    assert plan(10, 4, 2, "drop").summary().endswith("1 step for every rank, 2 dropped")
    assert plan(10, 4, 2, "uneven").summary().endswith("2 steps, but only 1 for the last rank, each sample once")
    assert plan(3).summary() == "3 samples, 1 rank, batches of at most 1: 3 steps, each sample once"
    assert plan(9, 2, 2, start=4).summary().startswith("5 samples from position 4, 2 ranks")
    assert padded.grid()["rows"][2]["cells"][1] == {"label": "step 1", "items": [{"text": "0", "sign": "x2"}]}
    assert plan(10, 4, 2, "drop").grid()["missing"] == ["8", "9"]
    assert "rank 3" in str(pictures.grid(padded))


def feasible(lengths, groups, at, stop, most, budget):
    return (
        stop - at <= most
        and (budget is None or max(lengths[at:stop]) * (stop - at) <= budget)
        and (groups is None or len(set(groups[at:stop])) == 1)
    )


def fewest(lengths, groups, start, most, budget):
    """The fewest batches of neighbours, by trying every first batch: what the planner must not exceed."""
    best = {len(lengths): 0}
    for at in range(len(lengths) - 1, start - 1, -1):
        stops = [stop for stop in range(at + 1, len(lengths) + 1) if feasible(lengths, groups, at, stop, most, budget)]
        best[at] = 1 + min(best[stop] for stop in stops)
    return best[start]


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_batches_by_length_are_exactly_once_within_the_budget_in_the_fewest_steps(data):
    lengths = data.draw(st.lists(st.integers(0, 9), max_size=24))
    n, world = len(lengths), data.draw(st.integers(1, 4))
    budget = data.draw(st.none() | st.integers(max([1, *lengths]), 30))
    batch_size = data.draw(st.integers(1, 6) if budget is None else st.none() | st.integers(1, 6))
    groups = data.draw(st.none() | st.lists(st.sampled_from("ab"), min_size=n, max_size=n))
    limits = {"budget": budget, "batch_size": batch_size, "groups": groups}
    steps = -(-fewest(lengths, groups, 0, batch_size or n, budget) // world)
    if n < steps * world:
        with pytest.raises(ValueError, match=f"impossible: {n} sample"):
            plan_lengths(lengths, world, **limits)
    else:
        found = plan_lengths(lengths, world, **limits)
        assert len(found) == steps and all(begin < stop for begin, stop in pieces(found))
        assert found.seen(steps) == n and (found.repeated, found.dropped) == (0, 0)
        assert all(feasible(lengths, groups, *span, batch_size or n, budget) for span in pieces(found))
        for done in range(steps + 1):
            assert plan_lengths(lengths, world, start=found.seen(done), **limits).steps == found.steps[done:]
    for remainder in ("pad", "drop", "uneven"):
        found = plan_lengths(lengths, world, remainder=remainder, **limits)
        assert all(
            feasible(lengths, groups, begin % n, (stop - 1) % n + 1, batch_size or n, budget)
            for begin, stop in pieces(found)
            if begin < stop
        )
        assert len(found) == steps - (found.dropped > 0)
        assert remainder == "pad" or found.repeated == 0
        assert remainder == "drop" or found.dropped == 0
        assert remainder == "uneven" or {found.count(rank) for rank in range(world)} == {len(found)}


def test_the_last_step_by_length_is_shared_out_evenly():
    assert plan_lengths([1] * 10, 2, budget=8).sizes(0) == (5,)
    assert plan_lengths([4, 4, 1, 1, 1, 1, 1, 1, 1, 1], 2, budget=40).steps == (((0, 2), (2, 10)),)
    with pytest.raises(ValueError, match="3 batches do not divide into steps of 2 ranks, 1 are left over"):
        plan_lengths([5, 5, 5], 2, budget=5, remainder="error")


# Order and randomness.


def test_the_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(1)
    first = order(50, 3, 4)
    torch.manual_seed(2)
    assert torch.equal(first, order(50, 3, 4)) and sorted(first.tolist()) == list(range(50)) and first.dtype == torch.int64
    # Written down once: this must be the order for ever, or last year's checkpoints mean another one.
    assert order(10, 0, 0).tolist() == [6, 4, 7, 3, 5, 8, 2, 1, 0, 9] and order(0, 0, 0).tolist() == []
    seen = {tuple(order(20, seed, epoch).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(seen) == 400  # (seed, epoch) and (seed + 1, epoch - 1) among them


def test_every_place_is_equally_likely():
    counts = np.zeros((6, 6))
    for epoch in range(1500):
        counts[np.arange(6), order(6, 0, epoch).numpy()] += 1
    assert abs(counts / 1500 - 1 / 6).max() < 0.05  # five standard deviations


def test_seeds_are_well_mixed():
    numbers = [seed_of(seed, epoch) for seed in range(-20, 80) for epoch in range(100)]
    numbers += [seed_of(seed, epoch, index) for seed in range(10) for epoch in range(10) for index in range(100)]
    assert len(set(numbers)) == 20000 and all(0 <= number < 2**64 for number in numbers)
    bits = np.array([[number >> bit & 1 for bit in range(64)] for number in numbers[:10000]])
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.025
    assert seed_of(1, 23) != seed_of(12, 3) and seed_of(2**70, 1) != seed_of(0, 1)
    with pytest.raises(TypeError, match="float"):
        seed_of(0.5, 1)


def drawn():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist(), torch.randn(1).item()


def test_randomness_is_keyed_and_disturbs_nothing():
    def around(inside):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        found = [drawn()]  # half of a pair of normal numbers is now kept by Python and by NumPy
        inside()
        return [*found, drawn(), drawn()]

    def inside():
        with randomness(1, 2, 3):
            first = drawn()
            with randomness(1, 2, 4):
                other = drawn()
            with randomness(1, 2, 4):
                assert drawn() == other != first
            second = drawn()
        with randomness(1, 2, 3):
            assert (drawn(), drawn()) == (first, second)
        with pytest.raises(KeyError), randomness(1, 2):
            raise KeyError(drawn())

    assert around(inside) == around(lambda: None)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: plan(-1), ValueError, "size must be at least 0: found -1"),
        (lambda: plan(1.5), TypeError, "size is a whole number: found 1.5"),
        (lambda: plan(3, 0), ValueError, "world must be at least 1: found 0"),
        (lambda: plan(3, 1, 2.0), TypeError, "batch_size is a whole number: found 2.0"),
        (lambda: plan(3, remainder="fill"), ValueError, "remainder='fill': expected one of 'balance', 'pad', 'drop'"),
        (lambda: plan(3, start=4), ValueError, "start is a position of the 3 samples, from 0 to 3: found 4"),
        (lambda: plan(3, 4, 2), ValueError, "impossible: 3 samples over 4 ranks in batches of at most 2, each once"),
        (lambda: plan(3).at(3, 0), IndexError, "step 3, rank 0: the plan has 3 steps and 1 ranks"),
        (lambda: plan_lengths([1]), ValueError, "give budget .* or both: found neither"),
        (lambda: plan_lengths([1, 9], budget=8), ValueError, "the sample at position 1 is 9 long, the budget of a batch is 8"),
        (lambda: plan_lengths([1, -1], budget=8), ValueError, "lengths must be whole numbers from 0: found -1 at position 1"),
        (lambda: plan_lengths([1, 2], budget=8, groups="a"), ValueError, "one group for each sample: found 1 groups, 2 lengths"),
        (lambda: order(-1, 0, 0), ValueError, "size must be at least 0"),
    ],
)
def test_bad_plans_are_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()


# Randomness of a stream, by (seed, epoch, position).


def noisy(sample):
    return sample, random.random(), float(np.random.rand()), float(torch.rand(()))


def noisy_samples(source, world, chunk, epoch, workers=0, stop=None, state=None, **loader):
    """What the transform made of each sample of an epoch, over all ranks; stopped after `stop` batches, and the state then."""
    found, streams = {}, []
    for rank in range(world):
        stream = Sharded(source, rank, world, chunk=chunk, transform=noisy, seed=4)
        stream.load_state_dict(state or {**stream.state_dict(), "epoch": epoch})
        batches = stream.follow(DataLoader(stream, batch_size=chunk, num_workers=workers, collate_fn=list, **loader))
        for batch in itertools.islice(batches, stop):
            found |= {sample[0]: sample[1:] for sample in batch}
        streams.append(stream)
    return found, streams[0].state_dict()


@pytest.mark.parametrize("style", [range, lambda n: Numbers(0, n), Batches])
def test_a_stream_makes_a_sample_alike_for_any_ranks_chunks_and_resumes(style):
    expected, _ = noisy_samples(style(12), 1, 1, epoch=1)
    assert sorted(expected) == list(range(12)) and len(set(expected.values())) == 12
    for world, chunk in [(1, 3), (2, 3), (3, 2), (5, 1), (1, 20)]:
        assert noisy_samples(style(12), world, chunk, epoch=1)[0] == expected
    part, state = noisy_samples(style(12), 2, 2, epoch=1, stop=1)
    assert len(part) == 4 and state["seen"] == 4
    rest, _ = noisy_samples(style(12), 3, 3, epoch=1, state={**state, "part": 0})
    assert not set(part) & set(rest) and {**part, **rest} == expected
    assert not set(expected.values()) & set(noisy_samples(style(12), 2, 3, epoch=2)[0].values())


def test_a_stream_is_as_random_as_the_map_style_dataset():
    data = Keyed(range(12), noisy)
    assert noisy_samples(range(12), 2, 3, epoch=1)[0] == {i: data.sample(i, seed=4, epoch=1)[1:] for i in range(12)}


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_persistent_workers_hear_of_each_epoch(method):
    multiprocessing.set_forkserver_preload(["tutorlib.ranks", "tutorlib.samplers"])
    stream = Sharded(Numbers(0, 7), chunk=2, transform=noisy, seed=4)
    loader = DataLoader(stream, 2, num_workers=1, collate_fn=list, persistent_workers=True, multiprocessing_context=method)
    first = next(stream.follow(loader))[0]  # broken off: the epoch begins again
    assert first[1:] == noisy_samples(range(7), 1, 1, epoch=0)[0][0]
    for epoch in range(2):
        found = {sample[0]: sample[1:] for batch in stream.follow(loader) for sample in batch}
        assert found == noisy_samples(range(7), 1, 1, epoch)[0]


def test_a_keyed_stream_disturbs_no_generator_and_counts_its_own_epochs():
    stream = Sharded(range(4), chunk=3, transform=noisy)
    torch.manual_seed(0)
    expected = torch.rand(2).tolist()
    torch.manual_seed(0)
    reading = iter(stream)
    assert [next(reading), torch.rand(()).item()][1] == expected[0]
    assert [*reading, torch.rand(()).item()][-1] == expected[1] and stream.epoch == 1
    whole = list(Sharded(range(4), transform=noisy))
    assert list(stream) != whole and pickle.loads(pickle.dumps(stream)).epoch == 2  # noqa: S301 - our own bytes
    with pytest.raises(RuntimeError, match=r"a transform keyed by the epoch needs .*: loop over sharded.follow\(loader\)"):
        list(DataLoader(stream, num_workers=1))
    with pytest.raises(TypeError, match="transform is a function of one sample: found int"):
        Sharded(range(4), transform=3)
    with pytest.raises(TypeError, match=r"seed is a whole number: found 0\.5"):
        Sharded(range(4), seed=0.5)
