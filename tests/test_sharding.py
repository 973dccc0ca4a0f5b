import itertools
import json
import multiprocessing
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import exactly_once, resumes_anywhere
from torch.utils.data import DataLoader, IterableDataset

from tutorlib import sharding
from tutorlib.datasets import Numbers, SqliteTable, digits, write_sqlite
from tutorlib.sharding import Place, Sharded, this_process


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
