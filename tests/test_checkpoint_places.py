"""A URI becomes a file of this machine: fetched once, whole or not at all, and checked on every use. Only 127.0.0.1."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorlib import ranks
from tutorlib.checkpoint import CheckpointError, cached, inspect, load, local_path, places, register, resume, save

QUICK = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
BODY = bytes(range(256)) * 64
SHA = hashlib.sha256(BODY).hexdigest()
HASHED = f"net-{SHA[:8]}.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    """What a server may do to us, by the first part of the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        how = self.path.split("/")[1]
        getattr(self, f"say_{how}", self.say_missing)()

    def say_good(self, body=BODY):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say_other(self):
        self.say_good(b"another file of the same name")

    def say_half(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2])
        self.close_connection = True

    def say_chunked(self):
        """Chunks, and no end."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"100\r\n" + BODY[:256] + b"\r\n")
        self.close_connection = True

    def say_silent(self):
        self.connection.close()
        self.close_connection = True

    def say_stuck(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:100])
        self.server.go_on.wait(20)
        self.close_connection = True

    def say_moved(self):
        self.send_response(302)
        self.send_header("Location", self.path.replace("moved", "good"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def say_missing(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


@pytest.fixture(scope="module")
def running():
    server = Server(("127.0.0.1", 0), Handler)
    server.asked, server.go_on = [], threading.Event()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    server.base = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running):
    running.asked.clear()
    return running


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(places, "_openers", dict(places._openers))


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ----------------------------------------------------------------------------------------------------- which is a URI


@pytest.mark.parametrize("path", ["net.pth", "a/b:c.pth", "C:\\nets\\net.pth", "c:/net.pth", "odd:name.pth", ""])
def test_a_path_is_its_own_answer(path):
    assert local_path(path) == Path(path) and not places.is_uri(path)


def test_a_path_object_is_never_a_uri(tmp_path):
    assert local_path(tmp_path / "x.pt") == tmp_path / "x.pt"
    assert not places.is_uri(Path("file:/x"))


def test_file_uris_name_files_of_this_machine(tmp_path):
    odd = tmp_path / "a folder" / "net 100%.pth"
    assert local_path(odd.as_uri()) == odd
    assert local_path(odd.as_uri().replace("file:///", "file://localhost/")) == odd
    assert local_path("file:net.pth") == Path("net.pth")


@pytest.mark.skipif(os.name == "nt", reason="there it is a network path")
def test_a_file_of_another_machine_is_refused():
    with pytest.raises(CheckpointError, match=r"names a file of the machine 'other'"):
        local_path("file://other/net.pth")


def test_an_unknown_scheme_is_told_with_the_known_ones():
    with pytest.raises(
        CheckpointError, match=r"'s3://b/net.pth' has a scheme that nobody registered: known are file:, http:, .*"
    ):
        local_path("s3://b/net.pth?token=s3cr3t")
    with pytest.raises(CheckpointError) as error:
        local_path("s3://me:hush@b/net.pth?token=s3cr3t")
    assert "s3cr3t" not in str(error.value) and "hush" not in str(error.value)


def test_the_sha256_of_a_path_is_checked_too(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(BODY)
    assert local_path(path, sha256=SHA) == path
    assert local_path(path.as_uri(), sha256=SHA.upper()) == path
    for uri in (path, path.as_uri()):
        with pytest.raises(
            CheckpointError, match=r"another file than expected: its sha256 is .*, asked for is 0000000000000000\.\.\."
        ):
            local_path(uri, sha256="0" * 64)
    with pytest.raises(ValueError, match="expected 64 hex digits"):
        local_path(path, sha256="abc")


# ----------------------------------------------------------------------------------------------------- own schemes


def test_the_longest_prefix_wins(registry, tmp_path):
    register("lab://", lambda uri: tmp_path / "short")
    register("lab://deep/er/", lambda uri: tmp_path / "longest")
    register("lab://deep/", lambda uri: tmp_path / "longer")
    assert [local_path(f"lab://{u}").name for u in ("x", "deep/x", "deep/er/x")] == ["short", "longer", "longest"]
    assert local_path("LAB://x").name == "short", "schemes have no case"


@settings(max_examples=30, deadline=None)
@given(st.sets(st.text("ab/", max_size=5), min_size=1), st.text("ab/", max_size=8))
def test_the_longest_prefix_wins_whatever_the_order(prefixes, rest):
    before = dict(places._openers)
    try:
        for prefix in prefixes:
            register(f"law://{prefix}", lambda uri, prefix=prefix: Path(prefix or "none"))
        fitting = [prefix for prefix in prefixes if rest.startswith(prefix)]
        if fitting:
            assert local_path(f"law://{rest}") == Path(max(fitting, key=len) or "none")
        else:
            with pytest.raises(CheckpointError, match="nobody registered"):
                local_path(f"law://{rest}")
    finally:
        places._openers.clear()
        places._openers.update(before)


def test_a_duplicate_is_an_error_unless_forced(registry):
    register("lab://", lambda uri: Path("one"))
    with pytest.raises(ValueError, match="'lab://' is registered already: choose a longer prefix"):
        register("lab://", lambda uri: Path("two"))
    with pytest.raises(ValueError, match="registered already"):
        register("HTTP://", lambda uri: Path("two"))
    register("lab://", lambda uri: Path("two"), force=True)
    assert local_path("lab://x") == Path("two")


@pytest.mark.parametrize("prefix", ["", "c:", "lab", "://", "1ab://"])
def test_a_prefix_that_is_no_scheme_is_refused(registry, prefix):
    with pytest.raises(ValueError, match="expected a scheme of two letters or more"):
        register(prefix, lambda uri: Path("x"))


def test_an_opener_must_be_a_function_and_return_something_useful(registry):
    with pytest.raises(TypeError, match="expected a function of the URI"):
        register("lab://", "path")
    register("lab://", lambda uri: 3)
    with pytest.raises(CheckpointError, match="returned int, expected a str, a Path or a binary file"):
        local_path("lab://x")
    register("loop://", lambda uri: uri)
    with pytest.raises(CheckpointError, match="leads from URI to URI more than 10 times"):
        local_path("loop://x")

    def broken(uri):
        raise KeyError("no bucket")

    register("bad://", broken)
    with pytest.raises(CheckpointError, match="cannot fetch 'bad://x': 'no bucket'; without a network, put the file at "):
        local_path("bad://x")


def test_a_stream_goes_into_the_cache_and_is_asked_for_once(registry, tmp_path):
    calls = []

    def opener(uri):
        calls.append(uri)
        return io.BytesIO(BODY)

    register("mem://", opener)
    first, second = (local_path("mem://shelf/net.pth", cache=tmp_path) for _ in range(2))
    assert first == second and first.read_bytes() == BODY and len(calls) == 1


# ----------------------------------------------------------------------------------------------------- the server


def test_a_file_is_fetched_once_and_then_found(server, tmp_path):
    cache = tmp_path / "not" / "yet"
    found = [local_path(f"{server.base}/good/{HASHED}", cache=cache) for _ in range(3)]
    assert found == [cache / HASHED] * 3 and found[0].read_bytes() == BODY
    assert server.asked == [f"/good/{HASHED}"]
    assert json.loads((cache / f"{HASHED}.origin.json").read_text())["sha256"] == SHA
    assert files(cache) == [HASHED, f"{HASHED}.origin.json"]


def test_the_folder_of_torch_hub_is_the_default(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert local_path(f"{server.base}/good/{HASHED}") == tmp_path / "hub" / "checkpoints" / HASHED
    assert [row["file"] for row in cached().rows()] == [HASHED]


def test_redirects_are_followed(server, tmp_path):
    path = local_path(f"{server.base}/moved/net.pth", cache=tmp_path)
    assert path.read_bytes() == BODY and server.asked == ["/moved/net.pth", "/good/net.pth"]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (
            "half",
            rf"broke off after {len(BODY) // 2} of {len(BODY)} bytes; nothing was kept: try again|broke off: IncompleteRead",
        ),
        ("chunked", "broke off: IncompleteRead; nothing was kept: try again, or put the file at .* yourself"),
        ("silent", "broke off: RemoteDisconnected|broke off: ConnectionResetError"),
        ("missing", r"the server answers 404 Not Found: is the address right\? Without a network, put the file at .*"),
    ],
)
def test_what_comes_broken_leaves_nothing_behind(server, tmp_path, how, text):
    with pytest.raises(CheckpointError, match=text):
        local_path(f"{server.base}/{how}/net.pth", cache=tmp_path)
    assert files(tmp_path) == []
    assert local_path(f"{server.base}/good/net.pth", cache=tmp_path).read_bytes() == BODY, "and the next try is free"


def test_a_server_that_says_nothing_more_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_PATIENCE", 0.3)
    with pytest.raises(CheckpointError, match="broke off: TimeoutError; nothing was kept"):
        local_path(f"{server.base}/stuck/net.pth", cache=tmp_path)
    assert files(tmp_path) == []


def test_the_wrong_bytes_are_not_kept(server, tmp_path):
    with pytest.raises(
        CheckpointError, match=rf"gave other bytes: their sha256 is \w{{8}}, in its name is {SHA[:8]}; nothing was kept"
    ):
        local_path(f"{server.base}/other/{HASHED}", cache=tmp_path)
    with pytest.raises(
        CheckpointError, match=r"gave other bytes: .* asked for is .*; nothing was kept: ask who serves the file$"
    ):
        local_path(f"{server.base}/other/net.pth", cache=tmp_path, sha256=SHA)
    assert files(tmp_path) == []


def test_eight_digits_may_be_a_date(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"if that is no hash but a date, give sha256=\.\.\.$"):
        local_path(f"{server.base}/good/net-20240131.pth", cache=tmp_path)
    path = local_path(f"{server.base}/good/net-20240131.pth", cache=tmp_path, sha256=SHA)
    assert path.name == f"net-20240131-{SHA[:16]}.pth" and path.read_bytes() == BODY
    assert local_path(f"{server.base}/good/net-20240131.pth", cache=tmp_path, sha256=SHA) == path


def test_a_disk_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match=r"cannot write .*; nothing was kept: give cache="):
        local_path(f"{server.base}/good/net.pth", cache=tmp_path / "cache")


def test_nobody_listening_says_what_is_missing_and_where_to_put_it(tmp_path):
    with Server(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_port
    uri = f"http://127.0.0.1:{port}/good/{HASHED}"
    with pytest.raises(CheckpointError) as error:
        local_path(uri, cache=tmp_path)
    where = tmp_path / HASHED
    assert uri in str(error.value) and f"put the file at {str(where)!r} yourself" in str(error.value)
    where.write_bytes(BODY)  # so does the reader
    assert local_path(uri, cache=tmp_path) == where


def test_what_is_private_in_an_address_is_neither_told_nor_recorded(server, tmp_path):
    uri = f"{server.base.replace('//', '//me:hush@')}/good/net.pth?token=s3cr3t"
    with contextlib.suppress(CheckpointError):  # urllib takes no password from an address
        local_path(uri, cache=tmp_path)
    local_path(f"{server.base}/good/net.pth?token=s3cr3t", cache=tmp_path)
    with pytest.raises(CheckpointError) as error:
        local_path(f"{server.base}/none/net.pth?token=s3cr3t", cache=tmp_path)
    texts = str(error.value) + "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert "s3cr3t" not in texts and "hush" not in texts


# ----------------------------------------------------------------------------------------------------- the cache


def test_a_changed_file_is_noticed_on_every_use(server, tmp_path):
    """With a hash in its name, and with one that was only recorded; also where the change keeps the size."""
    for name in (HASHED, "net.pth"):
        uri = f"{server.base}/good/{name}"
        path = local_path(uri, cache=tmp_path)
        damaged = bytearray(BODY)
        damaged[5000] ^= 1
        path.write_bytes(damaged)
        for _ in range(2):
            with pytest.raises(
                CheckpointError, match=r"is another file than expected: .*; remove it, and http.* is fetched again"
            ):
                local_path(uri, cache=tmp_path)
        assert path.read_bytes() == damaged, "it is the reader's to remove"
        path.unlink()
        assert local_path(uri, cache=tmp_path).read_bytes() == BODY


def test_torch_takes_any_file_of_that_name_and_we_do_not(server, tmp_path):
    """PW-01, PW-07: torch.hub compares base names only."""
    (tmp_path / HASHED).write_bytes(b"anything")
    torch.save({"w": torch.zeros(1)}, tmp_path / "net.pth")
    got = torch.hub.load_state_dict_from_url(f"{server.base}/good/net.pth", str(tmp_path), progress=False, weights_only=True)
    assert got["w"] == 0 and server.asked == []
    assert local_path(f"{server.base}/good/net.pth", cache=tmp_path).read_bytes() == BODY
    with pytest.raises(CheckpointError, match=f"in its name is {SHA[:8]}"):
        local_path(f"{server.base}/good/{HASHED}", cache=tmp_path)


def test_one_name_from_two_servers_is_two_files(server, tmp_path):
    one, two = (local_path(f"{server.base}/{how}/net.pth", cache=tmp_path) for how in ("good", "other"))
    assert one != two and one.read_bytes() == BODY and two.read_bytes() != BODY
    same = local_path(f"{server.base}/good/net.pth", cache=tmp_path, sha256=SHA)
    assert same.name == f"net-{SHA[:16]}.pth", "a known content is a name of its own, wherever it comes from"
    asked = len(server.asked)
    assert local_path(f"{server.base}/half/net.pth", cache=tmp_path, sha256=SHA) == same and len(server.asked) == asked


def test_what_was_put_there_by_hand_is_known_from_its_first_use_on(tmp_path):
    uri = "http://127.0.0.1:9/net.pth"
    path = tmp_path / places.cache_name(uri)
    path.write_bytes(BODY)
    assert local_path(uri, cache=tmp_path) == path
    path.write_bytes(b"changed later")
    with pytest.raises(CheckpointError, match="recorded when it was fetched"):
        local_path(uri, cache=tmp_path)


def test_a_damaged_record_is_no_record(server, tmp_path):
    uri = f"{server.base}/good/{HASHED}"
    path = local_path(uri, cache=tmp_path)
    for content in ("", "[]", '{"sha256": 3}', "\0"):
        path.with_name(f"{HASHED}.origin.json").write_text(content)
        assert local_path(uri, cache=tmp_path) == path


@pytest.mark.parametrize(
    "uri", ["http://h/", "http://h", "http://h/..", "http://h/a/../..", "http://h/%2e%2e%2fx", "http://h/.x"]
)
def test_a_name_in_the_cache_stays_in_the_cache(uri):
    name = places.cache_name(uri)
    assert Path(name).name == name and not name.startswith(".") and "/" not in name and "\\" not in name


def test_the_cache_as_facts(server, tmp_path):
    for name in (HASHED, "net.pth"):
        local_path(f"{server.base}/good/{name}", cache=tmp_path)
    (tmp_path / f"bad-{SHA[8:16]}.pth").write_bytes(BODY)
    (tmp_path / "stray.pth").write_bytes(b"1234")
    found = cached(tmp_path)
    assert found.summary() == "4 files in the cache, 1 changed, 1 without a hash to check"
    assert {row["file"]: row["as fetched"] for row in found.rows()} == {
        f"bad-{SHA[8:16]}.pth": False,
        HASHED: True,
        places.cache_name(f"{server.base}/good/net.pth"): True,
        "stray.pth": None,
    }
    assert sorted(found.origins.values()) == [f"{server.base}/good/{name}" for name in sorted([HASHED, "net.pth"])]
    assert len(found.bars()["bars"]) == 4
    assert cached(tmp_path / "none").rows() == []


# ----------------------------------------------------------------------------------------------------- the verbs


def test_load_inspect_and_resume_take_uris(server, tmp_path, monkeypatch, registry):
    """LC-02: `map_location` means the same for a path and for a URI."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    model, path = torch.nn.Linear(2, 2), tmp_path / "net.pt"
    save(path, model=model, epoch=3)
    monkeypatch.setattr(Handler, "say_net", lambda self: self.say_good(path.read_bytes()), raising=False)
    register("lab://", lambda uri: path)
    for uri in (f"{server.base}/net/net.pt", path.as_uri(), "lab://net"):
        assert load(uri)["epoch"] == 3
        assert load(uri, map_location="meta")["model"]["weight"].is_meta
        assert [row["key"] for row in inspect(uri).rows()] == ["model.weight", "model.bias"]
        other = torch.nn.Linear(2, 2)
        assert resume(uri, model=other).values == {"epoch": 3} and torch.equal(other.weight, model.weight)
    assert server.asked == ["/net/net.pt"]
    for uri in (f"{server.base}/none/net.pt", "s3://bucket/net.pt"):
        with pytest.raises(CheckpointError, match=r"the server answers 404|has a scheme that nobody registered"):
            load(uri)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load((tmp_path / "none.pt").as_uri())


# ----------------------------------------------------------------------------------------------------- torchvision


def test_torchvision_names_lead_to_the_weights_of_that_model(tmp_path):
    models = pytest.importorskip("torchvision.models")
    for uri, weights in (
        ("torchvision://resnet18", models.ResNet18_Weights.DEFAULT),
        ("torchvision://resnet50/IMAGENET1K_V1", models.ResNet50_Weights.IMAGENET1K_V1),
    ):
        name = weights.url.rpartition("/")[2]
        (tmp_path / name).write_bytes(b"stand-in")
        with pytest.raises(CheckpointError, match=f"in its name is {places._hash_in(name)}; remove it"):
            local_path(uri, cache=tmp_path)  # nothing but the right file passes, and nothing was fetched
    with pytest.raises(CheckpointError, match=r"torchvision has no model 'resnet19': did you mean .*resnet18"):
        local_path("torchvision://resnet19", cache=tmp_path)
    with pytest.raises(CheckpointError, match=r"resnet18 has no weights 'V9': there are IMAGENET1K_V1"):
        local_path("torchvision://resnet18/V9", cache=tmp_path)


def test_a_torchvision_file_is_taken_from_the_cache_if_it_is_the_right_one(tmp_path, registry):
    pytest.importorskip("torchvision")
    url = places._torchvision("torchvision://resnet18")
    fake = url.replace(places._hash_in(url.rpartition("/")[2]), SHA[:8])
    register("torchvision://", lambda uri: fake, force=True)
    path = tmp_path / fake.rpartition("/")[2]
    path.write_bytes(BODY)
    assert local_path("torchvision://resnet18", cache=tmp_path) == path


# ----------------------------------------------------------------------------------------------------- on real ranks


def asked_by_a_rank(uri, caches, local_ranks=None):
    rank = dist.get_rank()
    if local_ranks:
        os.environ["LOCAL_RANK"] = str(local_ranks[rank])
    try:
        return hashlib.sha256(local_path(uri, cache=caches[rank]).read_bytes()).hexdigest()
    except CheckpointError as error:
        return str(error)


def several_by_ranks(calls):
    return [asked_by_a_rank(*call) for call in calls]


def dies_while_it_fetches(uri, cache):
    if dist.get_rank() == 0:
        register("dies://", lambda uri: os._exit(3))
        local_path("dies://x", cache=cache)
    try:
        return local_path(uri, cache=cache)
    except CheckpointError as error:
        Path(cache, "told").write_text(str(error))
        raise


@pytest.fixture(scope="module")
def quick():
    if QUICK == "forkserver":
        multiprocessing.set_forkserver_preload(["tutorlib.ranks"])
    return QUICK


def test_rank_0_fetches_once_and_all_are_told(server, tmp_path, quick):
    shared, own = [tmp_path / "s"] * 3, [tmp_path / f"own{r}" for r in range(3)]
    alike = f"{server.base}/good/{HASHED}"
    calls = [
        (alike, shared),
        (f"{server.base}/half/net.pth", shared),
        (f"{server.base}/good/net.pth", [own[0], own[1], own[1]], (0, 0, 1)),  # two machines: ranks 1 and 2 share the second
    ]
    found = ranks.run(several_by_ranks, calls, world=3, start_method=quick)
    assert [one[0] for one in found] == [SHA] * 3
    assert {one[1] for one in found} == {found[0][1]}
    assert found[2][1].startswith("rank 0 of 3: ") and "broke off" in found[2][1]
    assert [one[2] for one in found] == [SHA] * 3
    assert server.asked == [f"/good/{HASHED}", "/half/net.pth", "/good/net.pth", "/good/net.pth"]


def test_a_rank_that_dies_while_it_fetches_does_not_leave_the_others_waiting(server, tmp_path, quick):
    with pytest.raises(ranks.RankError, match="rank 0 of 2 died"):
        ranks.run(dies_while_it_fetches, f"{server.base}/good/{HASHED}", str(tmp_path), world=2, start_method=quick, limit=60)
    if (tmp_path / "told").exists():  # the other rank has half a second to say so
        assert "a rank ended while the others waited for the file" in (tmp_path / "told").read_text()
