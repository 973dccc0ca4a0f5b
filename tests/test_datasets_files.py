"""Array files, text split by bytes, a log that grows, a server that stops: what is particular to each."""

import pickle
import re
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, StackDataset

from tutorlib import datasets
from tutorlib.datasets import ArrayFile, Blocks, Lines, Log, LogLine, arrays, joined, locations, serve, text, together
from tutorlib.samplers import EpochSampler

# An array file


def saved(path, array):
    np.save(path, array)
    return path


def test_rows_are_those_of_the_array(tmp_path):
    values = np.arange(60, dtype="float64").reshape(10, 2, 3)
    for array in (values, np.asfortranarray(values), values.astype(">i2"), values > 7, values[:0], values[:, :0]):
        with ArrayFile(saved(tmp_path / "a.npy", array)) as rows:
            expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
            assert len(rows) == len(array) and rows.shape == array.shape and rows.dtype == expected.dtype
            assert all(torch.equal(rows[i], expected[i]) for i in range(-len(array), len(array)))
            if len(array):
                assert torch.equal(torch.stack(rows.__getitems__([4, -1, 4])), expected[[4, -1, 4]])
            assert rows.__getitems__([]) == []


def test_a_sample_is_a_copy_that_may_be_written(tmp_path):
    rows = ArrayFile(saved(tmp_path / "a.npy", np.ones((2, 3))))
    rows[0].zero_()
    rows.__getitems__([0, 1])[1].zero_()
    assert rows[0].sum() == rows[1].sum() == 3
    rows.close()


def test_batches_as_torch_makes_them_and_as_one_tensor(tmp_path):
    path = saved(tmp_path / "a.npy", np.arange(14).reshape(7, 2))
    plain = [batch.tolist() for batch in DataLoader(ArrayFile(path), batch_size=3)]
    whole = ArrayFile(path, together=True)
    assert [batch.tolist() for batch in DataLoader(whole, batch_size=3, collate_fn=together)] == plain
    assert isinstance(whole.__getitems__([1, 2]), torch.Tensor) and whole[1].tolist() == [2, 3]
    pairs = StackDataset(ArrayFile(path), ArrayFile(saved(tmp_path / "labels.npy", np.arange(7))))
    rows, labels = next(iter(DataLoader(pairs, batch_size=3)))
    assert rows.tolist() == plain[0] and labels.tolist() == [0, 1, 2]


def test_the_file_is_opened_once_in_each_process(tmp_path, monkeypatch):
    rows = ArrayFile(saved(tmp_path / "a.npy", np.arange(6)))
    assert rows._opened is None  # not before it is read
    assert rows[1] == 1
    mine = rows._opened
    assert rows[2] == 2 and rows._opened is mine
    copy = pickle.loads(pickle.dumps(rows))  # noqa: S301 - our own bytes
    assert copy._opened is None and copy[5] == 5
    monkeypatch.setattr(arrays.os, "getpid", lambda: -1)
    assert rows[3] == 3 and rows._opened is not mine


def test_memory_holds_a_batch_and_not_the_file(tmp_path):
    size = 200_000_000
    with (tmp_path / "big.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (size // 100, 100)})
        file.truncate(file.tell() + size)  # no blocks on the disk
    rows = ArrayFile(tmp_path / "big.npy")
    rows[0]
    tracemalloc.start()
    try:
        for begin in range(0, len(rows), len(rows) // 50):
            assert len(rows.__getitems__(range(begin, begin + 64))) == 64
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("array", "options", "text"),
    [
        (np.zeros((3, 8, 8)), {"shape": (None, 28, 28)}, r"a.npy holds an array of shape \(3, 8, 8\): expected \(None, 28, 28\)"),
        (np.zeros((3, 8)), {"shape": (None, 8, 8)}, r"of shape \(3, 8\): expected \(None, 8, 8\) \(None is any length\)"),
        (np.zeros(3), {"dtype": torch.float32}, "holds torch.float64: expected torch.float32"),
        (np.array(3), {}, "holds a single value, which has no rows"),
        (np.array([None]), {}, "holds Python objects, that is a pickle, which is never loaded: save numbers"),
        (np.array(["a"]), {}, "holds <U1, for which torch has no dtype: save numbers"),
        (np.zeros(2, dtype=[("a", "i4")]), {}, "for which torch has no dtype: save numbers"),
    ],
)
def test_an_array_that_does_not_fit(tmp_path, array, options, text):
    with pytest.raises(ValueError, match=text):
        ArrayFile(saved(tmp_path / "a.npy", array), **options)
    path = saved(tmp_path / "b.npy", np.zeros((3, 8)))
    assert ArrayFile(path, shape=(None, 8), dtype=torch.float64).shape == (3, 8)


def test_files_that_are_no_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.npy is not a file: give the path of an array that numpy.save wrote"):
        ArrayFile(tmp_path / "gone.npy")
    for content in (b"", b"some text\n", b"\x93NUMPY\x01\x00\xff", b"\x93NUMPY\x09\x00"):
        (tmp_path / "text.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"text.npy is no array file that can be read \(.+\): give one that"):
            ArrayFile(tmp_path / "text.npy")


def test_a_file_that_is_cut_off_before_and_while_it_is_read(tmp_path):
    path = saved(tmp_path / "a.npy", np.arange(100))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"a.npy is cut off: 928 bytes expected for torch.int64 \(100,\), found 923: copy"):
        ArrayFile(path)
    path.write_bytes(whole)
    rows = ArrayFile(path)
    assert rows[99] == 99
    copy = pickle.loads(pickle.dumps(rows))  # noqa: S301 - our own bytes
    try:
        with path.open("r+b") as file:
            file.truncate(400)
    except OSError:
        pytest.skip("this system does not cut a file that is mapped")
    with pytest.raises(ValueError, match="was cut to 400 of its 928 bytes while it is read: restore it"):
        rows[99]
    with pytest.raises(ValueError, match="is cut off: 928 bytes expected"):
        copy[0]
    rows.close()
    saved(path, np.arange(50))
    with pytest.raises(ValueError, match=r"holds torch.int64 \(50,\), it was torch.int64 \(100,\): make the dataset anew"):
        copy[0]


def test_an_index_out_of_range_is_named(tmp_path):
    rows = ArrayFile(saved(tmp_path / "a.npy", np.arange(5)))
    for read in (lambda: rows[5], lambda: rows.__getitems__([0, 5, -5]), lambda: list(DataLoader(rows, sampler=[5]))):
        with pytest.raises(IndexError, match=r"a.npy has 5 rows, so its indices go from 0 to 4: found \[5\]"):
            read()
    rows.close()


# Text split by bytes


TEXT = st.lists(st.sampled_from([b"x", b"yy", b"\n", b"\r\n", b"\xe4"]), max_size=20).map(b"".join)


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXT, max_size=3), st.integers(1, 20), st.integers(1, 9), st.integers(0, 9))
def test_every_line_is_in_the_block_in_which_it_begins(tmp_path_factory, contents, size, chunk, margin):
    folder = tmp_path_factory.mktemp("text")
    paths = [folder / f"{number}.txt" for number in range(len(contents) + 1)]
    for path, content in zip(paths, [*contents, b"last\n"], strict=True):
        path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locations, "CHUNK", chunk)
        patch.setattr(text, "_MARGIN", margin)
        lines, blocks = list(Lines(paths, "latin-1")), list(Blocks(paths, size, "latin-1"))
    expected = [
        line
        for content in [*contents, b"last\n"]
        for line in content.decode("latin-1").split("\n")[: None if content[-1:] not in (b"\n", b"") else -1]
    ]
    assert lines == [line.removesuffix("\r") for line in expected]
    assert len(blocks) == sum(-(-path.stat().st_size // size) for path in paths)
    assert joined(blocks) == lines


def test_blocks_are_dealt_shuffled_and_resumed_by_an_epoch_sampler(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(100)))
    blocks = Blocks(path, 50)
    samplers = [EpochSampler(len(blocks), 2, seed=3, rank=rank, world=2) for rank in range(2)]
    loaders = [
        DataLoader(blocks, batch_sampler=sampler, collate_fn=joined, num_workers=rank) for rank, sampler in enumerate(samplers)
    ]
    found = [line for loader in loaders for batch in loader for line in batch]
    assert sorted(found) == sorted(Lines(path)) and found != list(Lines(path))


def test_more_workers_than_files_and_than_blocks(tmp_path):
    from tutorlib.sharding import Place

    (tmp_path / "a.txt").write_bytes(b"one\ntwo\nthree\n")
    blocks = Blocks(tmp_path / "a.txt", 7)
    shares = [joined(Place(rank, 3, worker, 2).share(blocks)) for rank in range(3) for worker in range(2)]
    assert shares == [["one", "two"], [], ["three"], [], [], []]
    assert len(Blocks(tmp_path / "a.txt")) == 1


def test_an_unfinished_last_line_is_taken_or_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw")
    text = r"a.txt: the last line has no line end, so it may be cut off: b'tw' from byte 4 on; finish the file, or"
    for make in (Lines, Blocks):
        assert joined([make(path)] if make is Lines else make(path)) == ["one", "tw"]
        with pytest.raises(ValueError, match=text):
            make(path, complete=True)
    path.write_bytes(b"x" * 200_000)
    with pytest.raises(ValueError, match=r"cut off: b'x{40}' from byte 0 on"):
        Lines(path, complete=True)
    for content in (b"", b"\n", b"one\r\n"):
        path.write_bytes(content)
        assert list(Lines(path, complete=True)) == content.decode().splitlines()


def test_a_line_that_does_not_decode_is_named_by_its_bytes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nb\xe4d\n")
    blocks = Blocks(tmp_path / "a.txt", 4)
    assert blocks[0] == ["good"]
    with pytest.raises(ValueError, match=r"a.txt, the line from byte 5 on: not utf-8 .*example Blocks\(path, encoding='latin-1'"):
        blocks[1]


def test_a_text_file_that_changes_its_size_is_another_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n")
    lines, blocks = Lines(path), Blocks(path, 4)
    for content in (b"one\n", b"one\ntwo\nthree\n"):
        path.write_bytes(content)
        for read in (lambda: list(lines), lambda: blocks[0]):
            with pytest.raises(ValueError, match=rf"a.txt has {len(content)} bytes, it had 8 when this source was made: .*Log"):
                read()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda folder: Blocks([folder / "a.txt", folder / "b.txt", folder / "c.txt"]),
            FileNotFoundError,
            r"b.txt, .*c.txt is not",
        ),
        (lambda folder: Lines([]), ValueError, "no file is given: expected at least one path or URL"),
        (lambda folder: Blocks(folder / "a.txt", 0), ValueError, "size is the bytes of a block, at least 1: found 0"),
        (lambda folder: Blocks(folder / "a.txt", encoding="utf-16"), ValueError, "cannot be told apart by bytes in utf-16"),
        (lambda folder: Blocks(folder / "a.txt")[1], IndexError, "there are 1 blocks, so their numbers go from 0 to 0: found 1"),
        (lambda folder: Log(folder / "a.txt", -1), ValueError, "offset and idle are at least 0, poll is more: found offset=-1"),
        (lambda folder: Log(folder / "b.txt"), FileNotFoundError, "b.txt is not a file: start what writes the log first"),
        (lambda folder: Log(folder / "a.txt", encoding="utf-16"), ValueError, "cannot be told apart by bytes in utf-16"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, make, error, text):
    (tmp_path / "a.txt").write_bytes(b"a\n")
    with pytest.raises(error, match=text):
        make(tmp_path)


# A log


def append(path, content):
    with path.open("ab") as file:
        file.write(content)


def is_end(text):
    return text == "end"


def test_a_log_is_followed_while_it_grows(tmp_path):
    path = tmp_path / "run.log"
    path.write_bytes(b"one\nt")
    reading = iter(Log(path, stop=is_end, idle=None, poll=0.001))
    assert next(reading) == LogLine("one", 4)
    append(path, b"wo\r\nthr")
    assert next(reading) == LogLine("two", 9)  # "thr" is not complete
    threading.Timer(0.05, append, (path, b"ee\nend\nlater\n")).start()
    assert list(reading) == [LogLine("three", 15), LogLine("end", 19)]


def test_a_log_is_resumed_by_the_position_that_travels_with_the_line(tmp_path):
    path = tmp_path / "run.log"
    path.write_bytes(b"".join(b"step %d\n" % n for n in range(7)))
    for workers in (0, 1):
        seen, offset = [], 0
        while len(seen) < 7:
            for batch in DataLoader(Log(path, offset, idle=0), batch_size=2, num_workers=workers):
                seen += batch.text
                offset = int(batch.end[-1])
                break  # a worker has read further
        assert seen == [f"step {n}" for n in range(7)]
    assert list(Log(path, offset, idle=0)) == []
    append(path, b"step 7\n")
    assert [line.text for line in Log(path, offset, idle=0)] == ["step 7"]


def test_idle_begins_anew_with_every_line(tmp_path):
    path = tmp_path / "run.log"
    path.write_bytes(b"one\ntwo\n")
    reading = iter(Log(path, idle=0.0, poll=0.001))
    next(reading), next(reading)
    append(path, b"three\n")  # while the reader was busy with "two"
    assert list(reading) == [LogLine("three", 14)]


def test_a_rotated_log_is_noticed_after_its_last_line(tmp_path):
    path = tmp_path / "run.log"
    path.write_bytes(b"one\n")
    reading = iter(Log(path, idle=60, poll=0.001))
    next(reading)
    append(path, b"two\n")
    try:
        path.rename(tmp_path / "run.log.1")
    except PermissionError:
        reading.close()
        pytest.skip("this system does not rename a file that is open")
    path.write_bytes(b"other\n")
    assert next(reading) == LogLine("two", 8)
    with pytest.raises(ValueError, match=r"run.log was replaced by another file \(rotated\); .* up to byte 8, .*offset=0"):
        next(reading)
    reading = iter(Log(path, idle=60, poll=0.001))
    next(reading)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"run.log is gone; its lines were given up to byte 6"):
        next(reading)


def test_a_log_that_is_cut_or_does_not_fit_the_offset(tmp_path):
    path = tmp_path / "run.log"
    path.write_bytes(b"one\ntwo\n")
    reading = iter(Log(path, idle=60, poll=0.001))
    next(reading), next(reading)
    path.write_bytes(b"new\n")
    with pytest.raises(ValueError, match=r"run.log was cut to 4 bytes, its lines were given up to byte 8: begin .*offset=0"):
        next(reading)
    with pytest.raises(ValueError, match="was cut to 4 bytes, its lines were given up to byte 8"):
        Log(path, 8)
    with pytest.raises(ValueError, match="no line begins at byte 3, so this offset is of another file: begin again"):
        Log(path, 3)
    path.write_bytes(b"good\nb\xe4d\n")
    reading = iter(Log(path, idle=0))
    next(reading)
    with pytest.raises(ValueError, match=r"run.log, the line from byte 5 on: not utf-8 .*Log\(path, encoding='latin-1'\)"):
        next(reading)


# A server


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(locations, "_PAUSE", 0.001)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"".join(b"word %d\n" % n for n in range(50)))
    (tmp_path / "empty.txt").write_bytes(b"")
    return tmp_path


WORDS = [f"word {n}" for n in range(50)]


def test_a_server_that_stops_in_the_middle_is_resumed_where_it_stopped(folder):
    with serve(folder, stops=[100, 0, 31]) as served:
        lines = Lines(f"{served.url}/words.txt")
        assert list(lines) == WORDS
        assert served.requests == [f"words.txt {span}" for span in ("0-0", "0-389", "100-389", "100-389", "131-389")]
        served.stops += [7, 3]
        blocks = Blocks(f"{served.url}/words.txt", 100)
        assert joined(blocks) == WORDS


def test_a_server_that_stops_too_often_is_one_clear_error(folder):
    with serve(folder) as served:
        lines = Lines(f"{served.url}/words.txt", retries=1)
        served.stops += [10, 20, 5]
        found = []
        with pytest.raises(
            ConnectionError,
            match=re.escape(
                "/words.txt: the server stopped at byte 30 of 390, 2 times (360 of 380 promised bytes did not come): "
                "start it and resume, or allow more (retries=...)"
            ),
        ):
            found.extend(lines)
        strict = Lines(f"{served.url}/words.txt", retries=0)
        with pytest.raises(ConnectionError, match="the server stopped at byte 5 of 390, once"):
            list(strict)
        with pytest.raises(ConnectionError, match="the server stopped at byte 0"):
            served.stops += [0, 0]
            list(DataLoader(lines, num_workers=0))
    with pytest.raises(ConnectionError, match=r"stopped at byte 0 of 390, 2 times \(ConnectionRefusedError\)"):
        list(lines)
    with pytest.raises(ConnectionError, match=r"does not answer, asked 2 times \(ConnectionRefusedError\): is it running\?"):
        Lines(f"{served.url}/words.txt", retries=1)


def test_a_file_that_changes_on_the_server_is_another_file(folder):
    with serve(folder, stops=[200]) as served:
        lines, blocks = Lines(f"{served.url}/words.txt"), Blocks(f"{served.url}/words.txt", 100)
        reading = iter(lines)
        assert next(reading) == "word 0"
        (folder / "words.txt").write_bytes(b"WORD 0\n" * 55 + b"12345")  # as many bytes, another content
        for read in (lambda: list(reading), lambda: blocks[0]):
            with pytest.raises(ValueError, match=r"changed on the server: expected 390 bytes, version \"\w+\"; found 390"):
                read()
        (folder / "words.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"words.txt: the server has no such file \(status 404\)"):
            blocks[1]


def test_a_server_without_ranges_is_read_in_one_piece_or_not_at_all(folder):
    with serve(folder, ranges=False) as served:
        url = f"{served.url}/words.txt"
        with pytest.raises(ValueError, match=r"the server gives no parts \(it ignores Range\): use Lines"):
            Blocks(url, 100)
        lines = Lines(url)
        assert list(lines) == WORDS and joined(Blocks(url)) == WORDS
        served.stops.append(300)
        with pytest.raises(ValueError, match=r"gives no parts .* so bytes 300 to 390 cannot be had alone"):
            list(lines)


def test_small_files_missing_files_and_complete_lines_on_a_server(folder):
    (folder / "cut.txt").write_bytes(b"one\ntw")
    with serve(folder) as served:
        assert list(Lines(f"{served.url}/empty.txt")) == [] and len(Blocks(f"{served.url}/empty.txt")) == 0
        for name in ("gone.txt", "../words.txt", ".hidden", ""):
            with pytest.raises(FileNotFoundError, match="the server has no such file"):
                Lines(f"{served.url}/{name}")
        with pytest.raises(ValueError, match=r"cut.txt: the last line has no line end, .*b'tw' from byte 4 on"):
            Lines(f"{served.url}/cut.txt", complete=True)
        assert list(Lines([folder / "cut.txt", f"{served.url}/cut.txt"])) == ["one", "tw"] * 2
    with (
        pytest.raises(NotADirectoryError, match="is not a folder: give the folder whose files are to be served"),
        serve(folder / "x"),
    ):
        pass


def test_only_the_named_server_is_asked(monkeypatch, folder):
    """No proxy of the environment, and no redirect to another place."""
    import http.server

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path == "/a" else 503 if self.path == "/b" else 200)
            self.send_header("Location", "http://127.0.0.1:9/other")
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with pytest.raises(ValueError, match=r"the server redirects to http://127.0.0.1:9/other: give that URL"):
                Lines(f"{url}/a")
            with pytest.raises(ConnectionError, match=r"does not answer, asked 4 times \(status 503\)"):
                Lines(f"{url}/b")
            with pytest.raises(ValueError, match="answers with status 200 and does not say how many bytes there are"):
                Lines(f"{url}/c")
        finally:
            server.shutdown()
            thread.join()
    assert datasets.serve is serve
