import hashlib
import pickle
import sqlite3
from pathlib import Path

import pytest
import torch
from laws import same, survives_spawn
from torch.utils.data import DataLoader

from tutorlib.datasets import (
    Lines,
    MissingKey,
    Numbers,
    SqliteStream,
    SqliteTable,
    digit_row,
    digits,
    handwritten,
    sqlite,
    write_image_tree,
    write_sqlite,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return write_sqlite(tmp_path_factory.mktemp("sqlite") / "digits.db", "test")


@pytest.fixture
def table(database):
    with SqliteTable(database, "digits", decode=digit_row) as table:
        yield table


def integers(path, keys, table="squares"):
    connection = sqlite3.connect(path)
    name = table.replace('"', '""')
    with connection:
        connection.execute(f'CREATE TABLE "{name}" (n INTEGER PRIMARY KEY, square INTEGER)')
        connection.executemany(f'INSERT INTO "{name}" VALUES (?, ?)', [(n, n * n) for n in keys])
    connection.close()
    return path


def second(row):
    return row["square"]


# Digits


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    ours = digits()
    assert torch.equal(ours.images.flatten(1), torch.from_numpy(images).to(torch.uint8))
    assert ours.labels.tolist() == labels.tolist() and ours.images.dtype == torch.uint8


def test_the_splits_share_nothing_and_lose_nothing():
    train, test, everything = digits("train"), digits("test"), digits("all")
    assert sorted([*train.index.tolist(), *test.index.tolist()]) == everything.index.tolist() == list(range(1797))
    assert [label for _, label in test] == everything.labels[::5].tolist()
    assert min(torch.bincount(test.labels)) > 25  # every digit is tested


def test_a_sample_is_a_float_image_and_an_int():
    image, label = digits()[3]
    assert image.shape == (1, 8, 8) and image.dtype == torch.float32 and type(label) is int
    assert torch.equal(image[0] * 16, digits().images[3].float()) and image.min() >= 0 and image.max() <= 1
    image.zero_()
    assert digits()[3][0].sum() > 0  # a sample is a copy


def test_a_batch_read_at_once_is_the_samples_read_one_by_one():
    data = digits("test")
    indices = [5, 0, 359, 5, -1]
    assert same(data.__getitems__(indices), [data[i] for i in indices])
    assert data.__getitems__([]) == []
    images, labels = next(iter(DataLoader(data, batch_size=4)))
    assert images.shape == (4, 1, 8, 8) and labels.tolist() == data.labels[:4].tolist()


@pytest.mark.parametrize("read", [lambda d: d[360], lambda d: d[-361], lambda d: d.__getitems__([0, 360])])
def test_an_index_that_is_none_says_which_there_are(read):
    with pytest.raises(IndexError, match=r"digits has 360 samples, so its indices go from 0 to 359: found .*36[01]"):
        read(digits("test"))


def test_a_split_that_does_not_exist():
    with pytest.raises(ValueError, match="split 'valid' does not exist: use one of 'all', 'train', 'test'"):
        digits("valid")


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(handwritten.importlib.util, "find_spec", lambda name: None)
    handwritten._whole_set.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        digits()


# A folder of images


def test_the_image_tree_is_what_torchvision_reads(tmp_path):
    from torchvision.datasets import ImageFolder

    root = write_image_tree(tmp_path / "new" / "digits", "test", per_class=3)
    folder = ImageFolder(root)
    assert folder.classes == list("0123456789") and len(folder) == 30
    data = digits("test")
    by_index = dict(zip(data.index.tolist(), data.images, strict=True))
    for (path, label), (picture, again) in zip(folder.samples, folder, strict=True):
        grey = torch.frombuffer(bytearray(picture.convert("L").tobytes()), dtype=torch.uint8).reshape(8, 8)
        original = by_index[int(Path(path).stem)]
        assert label == again == int(Path(path).parent.name)
        assert torch.equal((grey.float() * 16 / 255).round().to(torch.uint8), original)


def test_the_images_are_the_same_bytes_everywhere(tmp_path):
    write_image_tree(tmp_path, per_class=2)
    first = (tmp_path / "1" / "0001.png").read_bytes()
    assert hashlib.sha256(first).hexdigest()[:16] == "061414acdbe48fac"
    write_image_tree(tmp_path, per_class=2)  # again, over itself
    assert (tmp_path / "1" / "0001.png").read_bytes() == first and len(list(tmp_path.rglob("*.png"))) == 20


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    write_image_tree(tmp_path / "tree", per_class=1)
    (tmp_path / "tree" / "1" / "mine.png").write_text("precious")
    with pytest.raises(FileExistsError, match=r"already holds 1/mine.png: give a folder that is new or empty"):
        write_image_tree(tmp_path / "tree", per_class=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: give a folder"):
        write_image_tree(tmp_path / "file")
    with pytest.raises(ValueError, match="per_class must be at least 1: found 0"):
        write_image_tree(tmp_path / "other", per_class=0)
    assert not (tmp_path / "other").exists()


# An SQLite table


def test_a_table_gives_the_digits(table):
    data = digits("test")
    assert table.keys() == [f"{i:04d}" for i in data.index.tolist()] and len(table) == len(data)
    assert same(table.__getitems__(table.keys()), data.__getitems__(range(len(data))))
    assert "0005" in table and "0006" not in table


def test_a_batch_is_one_query_in_the_order_asked(table):
    queries = []
    table._file.connection().set_trace_callback(queries.append)
    keys = ["0010", "0000", "0005", "0010"]
    loader = DataLoader(table, batch_sampler=[keys])
    _, labels = next(iter(loader))
    assert len(queries) == 1 and queries[0].startswith("SELECT")
    assert labels.tolist() == [table[key][1] for key in keys]


def test_integer_keys_and_numbers_of_torch(tmp_path):
    path = integers(tmp_path / "a.db", range(6), table='odd "name"')
    with SqliteTable(path, 'odd "name"', "n", decode=second) as table:
        assert [batch.tolist() for batch in DataLoader(table, batch_size=4)] == [[0, 1, 4, 9], [16, 25]]
        assert table[torch.tensor(3)] == 9 and table.__getitems__([2, 2]) == [4, 4]
        with pytest.raises(MissingKey, match=r"^table 'odd \"name\"' of a.db has no n 6, 7 \(int\); its keys begin with 0, 1, 2"):
            table.__getitems__([1, 6, 7, 6])


def test_more_keys_than_sqlite_takes_in_one_query(tmp_path):
    with SqliteTable(integers(tmp_path / "a.db", range(50)), "squares", "n", decode=second) as table:
        table._file.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 7)
        assert table.__getitems__(range(49, -1, -1)) == [n * n for n in range(49, -1, -1)]


def test_the_default_sampler_meets_text_keys(table):
    with pytest.raises(KeyError) as caught:
        next(iter(DataLoader(table, batch_size=2)))
    assert str(caught.value) == (
        "table 'digits' of digits.db has no key 0, 1 (int); its keys begin with '0000', '0005', '0010': "
        "give the DataLoader sampler=table.keys()"
    )


def test_workers_open_their_own_connections(table):
    keys = table.keys()[:12]  # opened here first
    loader = DataLoader(table, sampler=keys, batch_size=3, num_workers=2)
    assert torch.cat([labels for _, labels in loader]).tolist() == [table[key][1] for key in keys]
    with pytest.raises(MissingKey, match="has no key 'x'"):
        list(DataLoader(table, sampler=["0000", "x"], num_workers=1))


def test_a_connection_is_neither_pickled_nor_shared_with_a_child(table, monkeypatch):
    table.keys()
    opened = table._file.connection()
    copy = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own bytes
    assert copy._file._opened is None and copy.keys() == table.keys()
    copy.close()
    with monkeypatch.context() as child:
        child.setattr(sqlite.os, "getpid", lambda: -1)
        assert table._file.connection() is not opened and opened in sqlite._INHERITED
        table.close()
    sqlite._INHERITED.remove(opened)
    assert opened.execute("SELECT 1").fetchone() == (1,)  # the child did not close it
    opened.close()


def test_sources_survive_spawn(tmp_path, database):
    table = SqliteTable(database, "digits")
    lines = tmp_path / "lines.txt"
    lines.write_text("a\nb\n", encoding="utf-8")
    survives_spawn(
        (table.__getitems__, (table.keys()[:3],)),
        (list, (SqliteStream(database, "SELECT key, label FROM digits ORDER BY key LIMIT 3"),)),
        (list, (Lines(lines),)),
        (list, (Numbers(2, 5),)),
        (digits("test").__getitem__, (7,)),
    )
    table.close()


def test_a_locked_table_says_so(tmp_path):
    path = integers(tmp_path / "a.db", range(3))
    with SqliteTable(path, "squares", "n", timeout=0.05) as table:
        stream = SqliteStream(path, "SELECT * FROM squares", timeout=0.05)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for read in (lambda: table[1], table.keys, lambda: list(stream), lambda: SqliteTable(path, "squares", "n", timeout=0.05)):
            with pytest.raises(
                TimeoutError, match=r"a.db is locked by another connection, still after 0.05 s: .*timeout=seconds"
            ):
                read()
        other.execute("COMMIT")
        other.close()
        assert table[2] == {"n": 2, "square": 4} and len(list(stream)) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("images",), r"has no table 'images': it has \['digits'\]"),
        (("digits", "name"), r"table 'digits' has no column 'name' to use as its key: it has \['key', 'label', 'pixels'\]"),
        (("digits", "label"), r"column 'label' of table 'digits' is no key: 0 stands in \d+ rows"),
    ],
)
def test_a_table_that_is_none(database, arguments, text):
    with pytest.raises(ValueError, match=text):
        SqliteTable(database, *arguments)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.db is not a file: write it first"):
        SqliteTable(tmp_path / "gone.db", "digits")
    with pytest.raises(FileNotFoundError, match=r"gone.db is not a file"):
        SqliteStream(tmp_path / "gone.db", "SELECT 1")
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(ValueError, match="text is not an SQLite database: give a file that SQLite wrote"):
        SqliteTable(tmp_path / "text", "digits")
    with pytest.raises(FileExistsError, match="text exists and is not a database of digits: give another path"):
        write_sqlite(tmp_path / "text")
    with pytest.raises(FileExistsError, match=r"a.db exists and is not a database of digits"):
        write_sqlite(integers(tmp_path / "a.db", range(2)))
    with pytest.raises(FileNotFoundError, match="does not exist: make it first"):
        write_sqlite(tmp_path / "no" / "digits.db")


def test_a_file_that_vanishes(tmp_path):
    path = integers(tmp_path / "a.db", range(3))
    table, stream = SqliteTable(path, "squares", "n"), SqliteStream(path, "SELECT * FROM squares")
    table.close()
    path.unlink()
    for read in (lambda: table[1], lambda: list(stream)):
        with pytest.raises(FileNotFoundError, match=r"a.db is not a file"):
            read()


def test_the_database_is_replaced_whole(tmp_path, monkeypatch):
    path = write_sqlite(tmp_path / "digits.db", "test")
    assert write_sqlite(path, "train") == path
    with SqliteTable(path, "digits") as table:
        assert len(table) == 1437
    monkeypatch.setattr(handwritten.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_sqlite(path, "test")
    with SqliteTable(path, "digits") as table:
        assert len(table) == 1437
    assert [file.name for file in tmp_path.iterdir()] == ["digits.db"]


# Streams


def test_a_query_as_a_stream(database):
    stream = SqliteStream(database, "SELECT * FROM digits WHERE label = ? ORDER BY key", (3,), decode=digit_row)
    data = digits("test")
    expected = [data[i] for i in range(len(data)) if data.labels[i] == 3]
    assert same(list(stream), expected) and same(list(stream), expected)  # again and again
    images, labels = next(iter(DataLoader(stream, batch_size=5)))
    assert images.shape == (5, 1, 8, 8) and set(labels.tolist()) == {3}
    reading = iter(stream)
    next(reading)
    reading.close()  # broken off: its connection is closed, or a ResourceWarning would fail this test


def test_a_query_that_sqlite_refuses(database):
    with pytest.raises(ValueError, match=r"digits.db: SQLite says: no such column: nome"):
        SqliteStream(database, "SELECT nome FROM digits")
    with pytest.raises(ValueError, match="SQLite says: attempt to write a readonly database"):
        list(SqliteStream(database, "DELETE FROM digits"))


def test_lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("one\r\n\n二\nlast".encode())
    assert list(Lines(path)) == ["one", "", "二", "last"]
    path.write_bytes(b"good\nb\xe4d\n")
    assert list(Lines(path, "latin-1")) == ["good", "bäd"]
    reading = iter(Lines(path))
    assert next(reading) == "good"
    with pytest.raises(ValueError, match=r"lines.txt, line 2: not utf-8 \(invalid continuation byte\); give the file's encoding"):
        next(reading)
    with pytest.raises(ValueError, match="cannot be told apart by bytes in utf-16: convert the file to utf-8"):
        Lines(path, "utf-16")
    with pytest.raises(LookupError, match="unknown encoding: utf-88"):
        Lines(path, "utf-88")
    with pytest.raises(FileNotFoundError, match=r"gone.txt is not a file"):
        Lines(tmp_path / "gone.txt")


def test_numbers_are_not_sharded_on_purpose():
    assert [int(x) for x in DataLoader(Numbers(3, 7), num_workers=2)] == [3, 3, 4, 4, 5, 5, 6, 6]
    assert list(Numbers(3, 3)) == []
    with pytest.raises(ValueError, match="stop must not be before start: found start=3, stop=2"):
        Numbers(3, 2)
