"""Laws that every source obeys, old and new: pickled, under every start method, over ranks and workers, resumed."""

import itertools
import multiprocessing
import os
import pickle
import sqlite3

import numpy as np
import pytest
from laws import exactly_once, resumes_anywhere, same, survives_spawn
from torch import Tensor
from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, StackDataset, Subset

from tutorlib import datasets
from tutorlib.sharding import Place, Sharded

# Python 3.12 and newer warn of forking beside a thread, here the server's: it holds no lock that a reader needs
# and torch warns where there are more workers than cores
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

WORDS = [["zero", "one", "", "three, a long line that begins in one block and ends in another"], ["four"], ["five", "6", "seven"]]


def is_end(text):
    return text == "end"


def plain(sample):
    """A sample as something that can be counted: tensors and containers as nested tuples."""
    if isinstance(sample, Tensor):
        return tuple(sample.shape), tuple(sample.flatten().tolist())
    if isinstance(sample, dict):
        return tuple((name, plain(value)) for name, value in sample.items())
    if isinstance(sample, (list, tuple)):
        return tuple(map(plain, sample))
    return sample


def read(source):
    """All samples of a source, by key or one after the other, as plain values."""
    return [plain(sample) for sample in Place().share(source)]


def grey(picture):
    return plain(list(picture.convert("L").tobytes()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for number, words in enumerate(WORDS):
        (folder / f"{number}.txt").write_bytes("\r\n".join(words).encode() + (b"" if number == 1 else b"\n"))
    (folder / "run.log").write_bytes(b"".join(b"step %d\n" % n for n in range(8)) + b"end\nlater\n")
    np.save(folder / "rows.npy", np.arange(24, dtype="int32").reshape(8, 3))
    np.save(folder / "labels.npy", np.arange(8))
    connection = sqlite3.connect(folder / "table.db")
    with connection:
        connection.execute("CREATE TABLE items (name TEXT PRIMARY KEY, n INTEGER)")
        connection.executemany("INSERT INTO items VALUES (?, ?)", [(f"k{n}", n) for n in range(9)])
    connection.close()
    datasets.write_image_tree(folder / "images", "test", per_class=1)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with datasets.serve(folder) as served:
        yield served


def image_folder(folder, url):
    from torchvision.datasets import ImageFolder

    return ImageFolder(folder / "images", transform=grey)


def texts(folder):
    return [folder / f"{number}.txt" for number in range(3)]


SOURCES = {
    "digits": lambda folder, url: Subset(datasets.digits("test"), range(9)),
    "ImageFolder": image_folder,
    "SqliteTable": lambda folder, url: datasets.SqliteTable(folder / "table.db", "items", "name"),
    "SqliteStream": lambda folder, url: datasets.SqliteStream(folder / "table.db", "SELECT * FROM items ORDER BY name"),
    "ArrayFile": lambda folder, url: datasets.ArrayFile(folder / "rows.npy"),
    "ArrayFile, together": lambda folder, url: datasets.ArrayFile(folder / "rows.npy", together=True),
    "two ArrayFiles, stacked": lambda folder, url: StackDataset(
        datasets.ArrayFile(folder / "rows.npy"), datasets.ArrayFile(folder / "labels.npy")
    ),
    "two ArrayFiles, in a row": lambda folder, url: ConcatDataset([datasets.ArrayFile(folder / "labels.npy")] * 2),
    "Lines": lambda folder, url: datasets.Lines(texts(folder)),
    "Lines, chained": lambda folder, url: ChainDataset([datasets.Lines(path) for path in texts(folder)]),
    "Lines from a server": lambda folder, url: datasets.Lines([f"{url}/0.txt", f"{url}/2.txt"]),
    "Blocks": lambda folder, url: datasets.Blocks(texts(folder), 16),
    "Blocks from a server": lambda folder, url: datasets.Blocks([f"{url}/0.txt", f"{url}/2.txt"], 16),
    "Log": lambda folder, url: datasets.Log(folder / "run.log", stop=is_end, idle=60),
    "Numbers": lambda folder, url: datasets.Numbers(2, 11),
}


@pytest.fixture(params=SOURCES)
def make(request, folder, served):
    return lambda: SOURCES[request.param](folder, served.url)


def test_a_source_is_read_again_and_again_and_pickles_after_it_was_read(make):
    source = make()
    samples = read(source)
    assert 6 <= len(samples) <= 16 and read(source) == samples
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes
    assert read(copy) == samples == read(source)
    assert len(pickle.dumps(copy)) < 40_000


def test_exactly_once_over_places_and_real_workers(make):
    source = make()
    samples = read(source)  # in this process first: what is open here must not be used in a worker
    for world, workers, chunk in itertools.product((1, 2, 5), (1, 3), (1, 4)):
        places = [Place(rank, world, worker, workers) for rank in range(world) for worker in range(workers)]
        exactly_once([map(plain, place.share(source, chunk)) for place in places], samples)
    here = Place().share(source)
    next(here)  # in the middle of reading while the workers read
    for world, workers in ((1, 1), (2, 2), (1, 4)):
        loaders = [DataLoader(Sharded(source, rank, world), None, num_workers=workers, collate_fn=plain) for rank in range(world)]
        exactly_once(loaders, samples)
    assert [plain(sample) for sample in here] == samples[1:]


def test_resumes_anywhere(make):
    source = make()
    resumes_anywhere(
        lambda: Sharded(source, chunk=2),
        lambda stream: stream.follow(DataLoader(stream, batch_size=2, collate_fn=lambda batch: [*map(plain, batch)])),
    )
    resumes_anywhere(lambda: Sharded(make(), 1, 3), lambda stream: map(plain, stream))


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_the_same_samples_under_every_start_method(method, folder, served):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    # ImageFolder needs torchvision in a new process, which takes seconds; a forked one has it
    sources = [make(folder, served.url) for name, make in SOURCES.items() if name != "ImageFolder" or method == "fork"]
    for source in sources:
        read(source)
    survives_spawn((read_all, (sources,)), method=method)


def read_all(sources):
    return [read(source) for source in sources]


def test_resumed_with_workers_counted_by_consumption(folder, served):
    for make in (SOURCES["Blocks from a server"], SOURCES["Lines"], SOURCES["Log"], SOURCES["ArrayFile"]):
        source = make(folder, served.url)
        samples = read(source)
        first = Sharded(source)
        reading = first.follow(DataLoader(first, None, num_workers=2, collate_fn=plain))
        begun = [next(reading) for _ in range(3)]
        reading.close()
        second = Sharded(make(folder, served.url))
        second.load_state_dict(first.state_dict())
        assert begun + list(second.follow(DataLoader(second, None, num_workers=1, collate_fn=plain))) == samples


def test_a_file_that_vanishes_is_named_by_every_source_that_opens_it_anew(folder, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\nb\n")
    np.save(tmp_path / "rows.npy", np.zeros((3, 2)))
    datasets.write_sqlite(tmp_path / "t.db", "test")
    sources = [
        datasets.Lines(tmp_path / "a.txt"),
        datasets.Blocks(tmp_path / "a.txt"),
        datasets.Log(tmp_path / "a.txt"),
        datasets.ArrayFile(tmp_path / "rows.npy"),
        datasets.SqliteTable(tmp_path / "t.db", "digits"),
        datasets.SqliteStream(tmp_path / "t.db", "SELECT * FROM digits"),
    ]
    sources[4].close()
    for name in ("a.txt", "rows.npy", "t.db"):
        (tmp_path / name).unlink()
    for source in sources:
        with pytest.raises(FileNotFoundError, match=rf"{'t.db' if 'Sql' in repr(source) else '[as]'}.* is (gone|not a file)"):
            read(source)
        if "Array" in repr(source) and os.name == "posix":
            with pytest.raises(FileNotFoundError, match="is not a file"):
                list(DataLoader(source, num_workers=1))


def test_places_share_what_the_bytes_are(folder, served):
    """Readers of blocks ask for their own bytes, readers of a stream for all of them."""
    (folder / "many.txt").write_text("".join(f"line {n}\n" for n in range(2000)), encoding="utf-8", newline="\n")
    url = f"{served.url}/many.txt"
    size = (folder / "many.txt").stat().st_size

    def asked(source):
        served.requests.clear()
        list(Place(1, 2).share(source))
        spans = [request.split()[1].split("-") for request in served.requests]
        return sum(int(last) + 1 - int(first) for first, last in spans)

    lines, blocks = datasets.Lines(url), datasets.Blocks(url, size // 2 + 1)
    assert asked(lines) == size
    assert size // 2 <= asked(blocks) <= size // 2 + 1100
    assert same([line for block in blocks for line in block], list(lines))
