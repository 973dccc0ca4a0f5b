"""The door's inside: what it prints, what it refuses, and the exit code that says how it went."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutorlib import cli, doctor, facts, lessons, pages, workcopy

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("lab", "reset", "test", "refresh", "claims", "inspect", "doctor")


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """A clone with two lessons, which the commands take for theirs, and the present folder."""
    for name in ("00_start", "01_dataloader"):
        for place in ("src", "en", "zh"):
            (tmp_path / "clone/notebooks" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"clone/notebooks/src/{name}.py").touch()
        cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": ["1"], "execution_count": 1, "outputs": []}
        for language in ("en", "zh"):
            book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
            (tmp_path / f"clone/notebooks/{language}/{name}.ipynb").write_text(json.dumps(book))
    take(tmp_path / "clone", monkeypatch)
    return tmp_path


def take(clone: Path, monkeypatch) -> None:
    monkeypatch.setattr(lessons, "__file__", str(clone / "tutorlib/lessons.py"))
    monkeypatch.setattr(cli, "CLONE", clone)
    monkeypatch.chdir(clone.parent)


def said(capsys) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


# Help ---------------------------------------------------------------------------------------------------------------------


def test_help_names_every_command_examples_and_exit_codes(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^    {name} +\w", text, re.M), name
        assert f"-m tutorlib {name}" in text
    assert "exit codes: 0 done, 1 something failed or differs, 2 bad input, 3 this machine is not ready" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_own_help(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: tutorlib {name}")
    assert all(len(line) > len("  --option") for line in text.splitlines() if line.startswith("  "))


def test_nothing_asked_is_help_and_version_is_a_version(capsys):
    from tutorlib import __version__

    assert cli.main([]) == 0
    assert capsys.readouterr().out.startswith("usage: tutorlib")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tutorlib {__version__}\n"


def test_help_is_there_at_once_and_imports_nothing_big():
    code = (
        "import sys, time\nfrom tutorlib import __main__ as door\ndoor.main(['--help'])\n"
        "big = {'torch', 'numpy', 'nbformat', 'jupytext', 'ipywidgets', 'tutorlib.lessons'} & set(sys.modules)\n"
        "print(big or 'none', time.process_time(), file=sys.stderr)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True) for _ in range(3)]
    assert all(run.stderr.startswith("none ") for run in runs), runs[0].stderr
    assert min(float(run.stderr.split()[-1]) for run in runs) < 0.5


# Bad input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tset"], r"invalid choice: 'tset' \(choose from .*lab.*\); `tutorlib --help` shows what there is"),
        (["lab", "--lang", "fr"], r"argument --lang: invalid choice: 'fr' .*; `tutorlib lab --help` shows what there is"),
        (["lab", "--port", "http"], r"'http' is no port, expected a number from 1 to 65535"),
        (["lab", "--port", "70000"], r"'70000' is no port, expected a number from 1 to 65535"),
        (["lab", "one", "two"], r"unrecognized arguments: two"),
        (["lab", "clone/notebooks/en"], r"lies in notebooks/ of the repository; name a folder of your own"),
        (["lab", "clone"], r"is the repository itself; name a folder of your own"),
        (["lab", "file"], r"file is a file, expected a folder or a name that is free"),
        (["reset"], r"the following arguments are required: NN"),
        (["reset", "42"], r"no lesson 42: expected one of 00, 01"),
        (["reset", "00", "nowhere"], r"nowhere is no working copy; `tutorlib lab .*nowhere` makes one"),
        (["test", "01", "99", "abc"], r"no lesson 99, abc: expected one of 00, 01"),
        (["test", "--lessons", "01"], r"--lessons means all lessons; give it or numbers, not both"),
        (["refresh", "7"], r"no lesson 7: expected one of 00, 01"),
        (["refresh", "1.5"], r"no lesson 1\.5: expected one of 00, 01"),
        (["doctor", "--limit", "-1"], r"'-1' is no time, expected a number of seconds above 0"),
        (["doctor", "--limit", "soon"], r"'soon' is no time, expected a number of seconds above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(here, words, expected, capsys):
    (here / "file").write_text("mine")
    before = sorted(here.rglob("*"))
    assert cli.main(words) == 2
    line = said(capsys)
    assert line.startswith("tutorlib: ") and re.search(expected, line), line
    assert sorted(here.rglob("*")) == before, "nothing was touched"


def test_a_package_that_is_missing_is_exit_code_3_with_the_way_out(here, capsys, monkeypatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'jupytext'", name="jupytext")

    monkeypatch.setattr(lessons, "claims", missing)
    assert cli.main(["claims", "--json"]) == 3
    assert (
        said(capsys) == f"tutorlib: jupytext is not installed; `{cli.PYTHON} -m tutorlib claims --json` in the clone sets it up"
    )


def test_what_the_system_refuses_is_a_line_and_a_mistake_of_ours_is_a_traceback(here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "x.ipynb")

    monkeypatch.setattr(lessons, "lesson", lambda number: None)
    monkeypatch.setattr(lessons, "refresh", full)
    assert cli.main(["refresh"]) == 1
    assert said(capsys) == "tutorlib: x.ipynb: No space left on device"
    monkeypatch.setattr(lessons, "refresh", lambda *args, **kwargs: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main(["refresh"])


def test_exit_codes_and_lines_hold_through_the_shell(tmp_path):
    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tutorlib", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "120"},
        )
        return done.returncode, done.stdout, done.stderr

    assert run("--version")[0] == 0
    code, out, err = run("test", "9x")
    assert (code, out) == (2, "") and err.startswith("tutorlib: no lesson 9x: expected one of 00") and err.count("\n") == 1
    (tmp_path / "file").touch()
    code, out, err = run("lab", str(tmp_path / "file"))
    assert (code, out) == (2, "") and "is a file, expected a folder" in err and err.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    command = [sys.executable, "-m", "tutorlib", "claims"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_an_old_console_shows_a_mark_instead_of_failing(here, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", narrow)
    assert cli.main(["test", "课"]) == 2
    narrow.flush()
    assert b"no lesson ?" in narrow.buffer.getvalue()


# lab and reset ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening():
    """A program on a port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_in_use_that_was_asked_for_is_refused_before_anything_is_made(here, listening, capsys):
    assert cli.main(["lab", "w", "--port", str(listening)]) == 2
    assert said(capsys) == (
        f"tutorlib: port {listening} is in use by another program; leave --port away to take the next free one, or name another"
    )
    assert not (here / "w").exists()


def test_a_port_that_was_not_asked_for_is_the_next_free_one(here, listening, monkeypatch):
    ports = []
    monkeypatch.setattr(cli, "FIRST_PORT", listening)
    monkeypatch.setattr(cli, "_serve", lambda made, port, browser: (True, ports.append((port, browser)) or 0))
    assert cli.main(["lab", "w"]) == 0
    assert cli.main(["lab", "w", "--no-browser"]) == 0
    assert [browser for _, browser in ports] == [True, False]
    assert all(port > listening for port, _ in ports)


def test_a_port_on_the_other_loopback_address_counts_as_used():
    if not socket.has_ipv6:
        return
    with socket.socket(socket.AF_INET6) as server:
        try:
            server.bind(("::1", 0))
        except OSError:  # a machine that has IPv6 switched off
            return
        server.listen()
        assert not cli._free(server.getsockname()[1])


def test_the_server_is_this_python_on_the_working_copy_and_asks_no_network(here):
    made = workcopy.make(here / "my lessons", "zh")
    command = cli.server(made, 9001, browser=False)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={here / 'my lessons'}" in command
    assert "--LabApp.default_url=/lab/tree/zh/00_start.ipynb" in command
    assert f"--LabApp.workspaces_dir={here / 'my lessons/.tutorlib/jupyter/workspaces'}" in command
    assert {"--ServerApp.port=9001", "--ServerApp.port_retries=0", "--ServerApp.open_browser=False"} <= set(command)
    assert "--LabApp.news_url=None" in command
    assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in command


SERVER = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
open(sys.argv[2], "w").write("\\n".join([os.environ["JUPYTER_TOKEN"], os.environ["TUTORLIB_LANG"]]))

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers["Authorization"] == "token " + os.environ["JUPYTER_TOKEN"] else 403)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def test_lab_makes_the_copy_says_the_address_and_ends_with_the_server(here, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_TOKEN", "secret")
    code = SERVER.replace(".serve_forever()", ".handle_request()")
    monkeypatch.setattr(cli, "server", lambda made, port, browser: [sys.executable, "-c", code, str(port), str(here / "env")])
    assert cli.main(["lab", "w", "--lang", "zh", "--no-browser"]) == 0
    out = capsys.readouterr().out
    assert "working copy of 2 lessons in 2 languages: 4 delivered" in out
    assert re.search(
        r"JupyterLab is ready\. Its address:\n\n    http://localhost:\d+/lab/tree/zh/00_start.ipynb\?token=secret\n", out
    )
    assert f"Your work is in {here / 'w'}; go on with  {cli.PYTHON} -m tutorlib lab {here / 'w'}" in out
    assert (here / "env").read_text() == "secret\nzh"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_a_signal_ends_the_server_too_and_is_exit_code_0(here, how, tmp_path):
    code = (
        "import sys; from tutorlib import cli, lessons\n"
        f"lessons.__file__ = {str(here / 'clone/tutorlib/lessons.py')!r}\n"
        f"cli.server = lambda made, port, browser: [sys.executable, '-c', {SERVER!r}, str(port), 'env']\n"
        "sys.exit(cli.main(['lab', 'w']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=here, env=path_to_package())
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C here ends it" in line:
            break
    port = int(re.search(r"localhost:(\d+)", "".join(lines)).group(1))
    process.send_signal(how)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Your work is in" in rest
    assert cli._free(port), "no server stays behind"


def path_to_package() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_a_port_that_is_taken_in_the_same_moment_is_left_for_the_next(here, monkeypatch, capsys, listening):
    """Another program answers there, and our server finds the port in use."""
    code = SERVER.replace(".serve_forever()", ".handle_request()")
    monkeypatch.setattr(cli, "server", lambda made, port, browser: [sys.executable, "-c", code, str(port), str(here / "env")])
    monkeypatch.setattr(cli, "FIRST_PORT", listening)
    really_free, asked = cli._free, []

    def free(port):
        asked.append(port)
        return asked == [listening] or really_free(port)

    monkeypatch.setattr(cli, "_free", free)
    assert cli.main(["lab", "w", "--no-browser"]) == 0
    out = capsys.readouterr().out
    assert f"Port {listening} was taken in the same moment" in out and out.count("JupyterLab is ready") == 1


def test_a_server_that_does_not_start_is_exit_code_3(here, monkeypatch, capsys):
    monkeypatch.setattr(cli, "server", lambda made, port, browser: [sys.executable, "-c", "raise SystemExit(7)"])
    assert cli.main(["lab", "w"]) == 3
    assert said(capsys) == "tutorlib: JupyterLab ended with code 7; what it said stands above"


def test_a_server_that_ignores_the_end_is_ended(monkeypatch):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert cli._end(process, patience=(0.3, 0.3)) == 0
    process.stdout.close()
    assert process.poll() is not None


def test_jupyterlab_itself_serves_the_copy_and_ends_cleanly(here):
    """The one test with the real server: first lesson, the other language, the token, Ctrl-C."""
    code = f"import sys; from tutorlib import cli, lessons; lessons.__file__ = {str(here / 'clone/tutorlib/lessons.py')!r}\n"
    code += "sys.exit(cli.main(['lab', 'my lessons 课', '--no-browser']))"
    environment = path_to_package() | {"JUPYTER_TOKEN": "t0ken", "HOME": str(here), "JUPYTER_CONFIG_DIR": str(here / "config")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=here, env=environment
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C here ends it" in line:
            break
    try:
        port = int(re.search(r"localhost:(\d+)/lab/tree/en/00_start\.ipynb\?token=t0ken", "".join(lines)).group(1))

        def get(path: str) -> bytes:
            connection = http.client.HTTPConnection("localhost", port, timeout=60)
            connection.request("GET", f"{path}?token=t0ken")
            with contextlib.closing(connection):
                return connection.getresponse().read()

        assert b"jupyter-config-data" in get("/lab/tree/en/00_start.ipynb")
        assert {e["name"] for e in json.loads(get("/api/contents"))["content"]} == {"en", "zh"}
        assert json.loads(get("/api/contents/zh/01_dataloader.ipynb"))["content"]["cells"][0]["outputs"] == []
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, "".join(lines) + rest
    assert f"Your work is in {here / 'my lessons 课'}" in rest


def test_reset_says_what_it_kept(here, capsys):
    workcopy.make("w")
    path = here / "w/en/01_dataloader.ipynb"
    path.write_text(path.read_text().replace('"1"', '"mine"'))
    assert cli.main(["reset", "1", "w"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("lesson 01_dataloader is fresh again; 1 changed version kept beside\n")
    assert "en/01_dataloader.backup.ipynb" in out and '"mine"' in (here / "w/en/01_dataloader.backup.ipynb").read_text()


# refresh, claims, doctor ------------------------------------------------------------------------------------------------------


def test_claims_as_text_and_as_json(executed, monkeypatch, capsys):
    take(executed.parent, monkeypatch)
    assert cli.main(["claims"]) == 0
    assert capsys.readouterr().out.startswith("2 claims: 1 true, 1 changed, 0 false, 0 platform; 2 proven by a cell\n")
    assert cli.main(["claims", "--section", "TI", "--lang", "zh", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[1] == {
        "claim": "TI-02",
        "section": "000: 0. Tiny",
        "verdict": "changed",
        "since": "2.0",
        "proven by": "00 [3]",
        "statement": "torch 给出 [0, 1]。",
        "today": "给出 [0, 2]。",
    }
    assert [row["claim"] for row in rows] == ["TI-01", "TI-02"]
    assert cli.main(["claims", "--section", "nothing"]) == 2
    assert said(capsys).startswith("tutorlib: no claim in section 'nothing'; expected a part of one of: 000: 0. Tiny")


@pytest.mark.parametrize("command", ["refresh", "claims"])
def test_a_source_that_cannot_be_read_is_exit_code_2_and_nothing_is_run(executed, monkeypatch, capsys, command):
    take(executed.parent, monkeypatch)
    source = executed / "src/00_tiny.py"
    source.write_text(source.read_text(encoding="utf-8").replace("import base64", "import base64 as"), encoding="utf-8")
    before = {path: path.read_bytes() for path in executed.rglob("*.*")}
    assert cli.main([command]) == 2
    assert re.fullmatch(r"tutorlib: 00_tiny\.py, line \d+: SyntaxError: .*; nothing was run or written", said(capsys))
    assert {path: path.read_bytes() for path in executed.rglob("*.*")} == before


def test_a_cell_that_raises_is_exit_code_1_and_the_old_notebooks_stay(executed, monkeypatch, capsys):
    take(executed.parent, monkeypatch)
    source = executed / "src/00_tiny.py"
    source.write_text(source.read_text(encoding="utf-8").replace('print("ready")', "1 / 0"), encoding="utf-8")
    before = {path: path.read_bytes() for path in executed.rglob("*.*")}
    assert cli.main(["refresh"]) == 1
    progress, line = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"lesson 00  failed +\d+\.\d s  \(1 of 1\)", progress)
    assert re.fullmatch(
        r"tutorlib: 00_tiny\.py, line \d+, cell \[1\] `import base64` raised ZeroDivisionError: division by zero; "
        "old notebooks kept",
        line,
    )
    assert {path: path.read_bytes() for path in executed.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('id = "TI-02"', 'id = "TI-99"', r"claims\.toml: unknown id in the tags of 00 \[3\] claim:TI-02; mend the tag or add"),
        ('id = "TI-02"', 'id = "TI-01"', r"claims\.toml: claim TI-01 stands twice \(the second is number 2\)"),
        (
            'verdict = "true"',
            'verdict = "maybe"',
            r"claims\.toml: claim TI-01: verdict is 'maybe', expected one of true",
        ),
        ("[[claim]]", "[[claim", r"claims\.toml: not TOML: "),
    ],
)
def test_a_broken_ledger_is_one_line_and_exit_code_2(executed, monkeypatch, capsys, before, after, expected):
    take(executed.parent, monkeypatch)
    ledger = executed / "claims.toml"
    ledger.write_text(ledger.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
    assert cli.main(["claims"]) == 2
    assert re.match(rf"tutorlib: {expected}", said(capsys))


def test_refresh_says_what_it_wrote(here, monkeypatch, capsys):
    monkeypatch.setattr(lessons, "lesson", lambda number: None)

    def refresh(wanted, texts, progress):
        asked.append(texts)
        for number in wanted:
            progress(number, "running", 0.0)
            progress(number, "unchanged", 1.25)
        return facts.Table("2 lessons executed, 0 written", [{"lesson": n} for n in wanted])

    asked = []
    monkeypatch.setattr(lessons, "refresh", refresh)
    monkeypatch.setattr(pages, "write", lambda: ("en/claims.md",))
    assert cli.main(["refresh", "--texts"]) == 0 and asked == [True]
    assert capsys.readouterr().out.endswith("\npages for readers: en/claims.md written anew\n")

    def refuse():
        raise lessons.LessonError("claims.toml: unknown id in the tags of 00 [2] claim:XX-01")

    monkeypatch.setattr(pages, "write", refuse)
    assert cli.main(["refresh"]) == 1
    assert "the lessons are written, the pages for readers not: claims.toml: unknown id" in capsys.readouterr().err
    monkeypatch.setattr(pages, "write", lambda: ())
    assert cli.main(["refresh"]) == 0
    got = capsys.readouterr()
    assert got.out == "2 lessons executed, 0 written\nlesson\n00\n01\n"
    assert got.err == "lesson 00  unchanged     1.2 s  (1 of 2)\nlesson 01  unchanged     1.2 s  (2 of 2)\n"


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 3)])
def test_doctor_says_by_its_exit_code_whether_the_machine_is_ready(monkeypatch, capsys, ok, code):
    asked = []

    def check(progress=None, **settings):
        asked.append(settings)
        found = doctor.Doctor((doctor.Check("Python", True, "3.13"), doctor.Check("torch", ok, "2.15", "" if ok else "mend it")))
        for one in found.checks if progress else ():
            progress(one)
        return found

    monkeypatch.setattr(doctor, "check", check)
    assert cli.main(["doctor", "--limit", "2.5"]) == code
    assert capsys.readouterr().out == str(doctor.check()) + "\n"
    assert cli.main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["ok"] is ok
    assert asked == [{"limit": 2.5}, {}, {}]


# test -------------------------------------------------------------------------------------------------------------------------


def report(check: str, chosen, *bad: str):
    from tutorlib import verify

    found = tuple(verify.Finding(n, "[1]", "output", "1", "2", f"tutorlib refresh {n}", "- 1\n+ 2") for n in bad)
    return verify.Report(check, tuple(chosen), found, {})


@pytest.fixture
def suite(here, monkeypatch):
    """`tutorlib test` with every runner replaced: what was run, and what each says."""
    from tutorlib import suite as runner
    from tutorlib import verify

    ran: list[tuple] = []
    told = SimpleNamespace(ran=ran, stale=(), run=(), pytest={}, broken=())

    def lesson(number):
        if number in told.broken:
            raise lessons.LessonError(f"{number}_x.py, line 3: SyntaxError")

    def run(chosen, progress, **settings):
        ran.append(("run", *chosen))
        told.settings = settings
        for number in chosen:
            progress(number, "failed" if number in told.run else "passed", 1.0)
        return report("test", chosen, *told.run)

    monkeypatch.setattr(lessons, "lesson", lesson)
    monkeypatch.setattr(
        verify, "stale", lambda wanted, progress: ran.append(("stale", wanted)) or report("stale", ["00", "01"], *told.stale)
    )
    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(cli, "_pytest", lambda *words: ran.append(("pytest", *words)) or told.pytest.get(words[0], (5, 0, 0)))
    monkeypatch.setattr(cli, "_needs_tests", lambda: None)
    return told


def test_test_runs_everything_cheapest_first_and_ends_with_the_count(suite, capsys):
    assert cli.main(["test"]) == 0
    assert suite.ran == [
        ("stale", None),
        ("pytest", "tests", "tutorlib", "--doctest-modules", "--ignore=tests/browser", "-n", "2", "--dist", "worksteal"),
        ("run", "00", "01"),
        ("pytest", "tests/browser", "-rs"),
    ]
    got = capsys.readouterr()
    assert got.out.endswith("\n\n14 passed, 0 failed\n") and "=== 2 of 4: unit tests" in got.out
    assert got.err == "lesson 00  passed        1.0 s  (1 of 2)\nlesson 01  passed        1.0 s  (2 of 2)\n"


def test_numbers_and_lessons_run_lessons_only(suite, capsys):
    assert cli.main(["test", "1"]) == 0
    assert suite.ran == [("stale", ["1"]), ("run", "01")]
    suite.ran.clear()
    assert cli.main(["test", "--lessons"]) == 0
    assert suite.ran == [("stale", None), ("run", "00", "01")]
    assert capsys.readouterr().out.endswith("\n\n4 passed, 0 failed\n")


def test_the_settings_of_the_suite_are_handed_on(suite):
    assert cli.main(["test", "01"]) == 0
    assert suite.settings == {"jobs": 2, "kernels": "warm", "accept": False, "junit": None}
    assert cli.main(["test", "01", "--accept", "--junit", "r.xml", "--jobs", "1", "--kernels", "cold"]) == 0
    assert suite.settings == {"jobs": 1, "kernels": "cold", "accept": True, "junit": "r.xml"}


def test_paths_are_somebodys_own_notebooks(suite, tmp_path, monkeypatch, capsys):
    from tutorlib import suite as runner

    asked = []

    def check(paths, progress, **settings):
        asked.append((paths, settings["accept"]))
        progress("a", "accepted", 1.0)
        return report("test", ["a"])

    monkeypatch.setattr(runner, "check", check)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.ipynb").write_text('{"cells": []}')
    monkeypatch.chdir(tmp_path)
    assert cli.main(["test", "mine", "--accept"]) == 0
    assert asked == [(["mine"], True)] and suite.ran == []
    got = capsys.readouterr()
    assert got.err == "notebook a  accepted      1.0 s  (1 of 1)\n" and got.out.endswith("\n1 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["test", "no/such"], "no/such: no such file or folder; lessons are named by number, notebooks by path"),
        (["test", "01", "--junit", "no/such/r.xml"], "--junit no/such/r.xml: its folder does not exist: make it first"),
        (["test", "--accept"], "--accept and --junit are for notebooks: name lessons or paths, or give --lessons for all"),
        (["test", "./", "--lessons"], "--lessons means the course's lessons; give it or paths of notebooks, not both"),
        (
            ["test", "--jobs", "0"],
            "argument --jobs: '0' is no number of jobs, expected 1 to 64; `tutorlib test --help` shows what",
        ),
    ],
)
def test_bad_input_of_the_suite_is_one_line(here, words, text, capsys):
    assert cli.main(words) == 2
    assert said(capsys).startswith(f"tutorlib: {text}")


def test_a_failure_anywhere_is_exit_code_1_and_the_rest_still_runs(suite, capsys):
    suite.run = ("01",)
    assert cli.main(["test"]) == 1
    out = capsys.readouterr().out
    assert out.endswith("\n\n13 passed, 1 failed\n")
    assert "lesson 01 cell [1]: output\n  expected 1\n  found    2\n  - 1\n  + 2\n  way out: tutorlib refresh 01\n" in out
    assert suite.ran[-1][1] == "tests/browser"


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"stale": ("00",)}, "13 passed, 1 failed"),
        ({"stale": ("-",)}, "14 passed, 1 failed"),
        ({"broken": ("00",)}, "13 passed, 1 failed"),
    ],
)
def test_every_kind_of_failure_counts(suite, change, count, capsys):
    for name, value in change.items():
        setattr(suite, name, value)
    assert cli.main(["test"]) == 1
    assert capsys.readouterr().out.endswith(f"\n\n{count}\n")


def test_a_skipped_browser_test_is_said(suite, capsys):
    suite.pytest = {"tests/browser": (0, 0, 2)}
    assert cli.main(["test"]) == 0
    out = capsys.readouterr().out
    assert "browser: 0 passed, 0 failed, 2 skipped in" in out and out.endswith("\n\n9 passed, 0 failed, 2 skipped\n")


def test_without_the_test_tools_the_way_out_is_named(here, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("xdist", "nbval") else True)
    assert cli.main(["test"]) == 3
    assert said(capsys) == f"tutorlib: xdist, nbval not installed; `{cli.PYTHON} -m tutorlib test` in the clone sets them up"


def test_pytest_is_counted_from_its_own_report(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(cli, "CLONE", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pass\ndef test_c(): assert 0\n"
        "def test_d(): pytest.skip('no Chromium')\ndef test_e(x): pass\n"
    )
    assert cli._pytest("test_a.py") == (2, 2, 1)
    (tmp_path / "test_a.py").write_text("def broken(:")
    assert cli._pytest("test_a.py") == (0, 1, 0)
    assert cli._pytest("no_such_folder") == (0, 1, 0), "what cannot run has failed"
    assert capfd.readouterr().out.count("short test summary info") == 2


def test_a_lesson_that_differs_is_told_by_the_command_itself(executed, monkeypatch, capfd):
    take(executed.parent, monkeypatch)
    for language in ("en", "zh"):
        path = executed / language / "00_tiny.ipynb"
        path.write_text(path.read_text(encoding="utf-8").replace("second line 17", "second line 18"), encoding="utf-8")
    assert cli.main(["test", "00"]) == 1
    out = capfd.readouterr().out
    assert "second line 17" in out and "second line 18" in out
    assert re.search(r"^1? ?\d+ passed, [12] failed$", out, re.M)


# Progress ---------------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_that_is_gone_at_the_end():
    stream = Terminal()
    with cli.Progress(["00", "01"], stream=stream) as progress:
        progress("00", "running", 0.0)
        until = time.monotonic() + 10
        while "[" + "." * 24 + "] 0 of 2 lessons" not in stream.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
        progress("00", "passed", 3.0)
    text = stream.getvalue()
    assert "[" + "." * 24 + "] 0 of 2 lessons" in text
    assert "\rlesson 00  passed        3.0 s  (1 of 2)\n" in text
    assert re.search(r"(\r +\r|\n)$", text), "the bar is wiped away"
    assert "\x1b" not in text, "a Windows console would print escape codes"


def test_the_doctors_lines_are_results_and_its_bar_is_not(capsys):
    """The lines go to stdout, where they can be kept; the bar is out of their way first."""
    stream = Terminal()
    with cli.Progress(["Python", "torch"], "checks", stream) as progress:
        progress.step("OK    Python")
        until = time.monotonic() + 10
        while "] 1 of 2 checks, 0 s" not in stream.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
        progress.step()
    assert "[" + "#" * 12 + "." * 12 + "] 1 of 2 checks, " in stream.getvalue()
    assert "Python" not in stream.getvalue() and capsys.readouterr().out == "OK    Python\n"
    assert re.search(r"\r +\r$", stream.getvalue()), "the bar is wiped away"


def test_elsewhere_there_are_only_lines():
    stream = io.StringIO()
    with cli.Progress(["00"], stream=stream) as progress:
        progress("00", "running", 0.0)
        progress("00", "failed", 61.04)
    assert stream.getvalue() == "lesson 00  failed       61.0 s  (1 of 1)\n"


# inspect --------------------------------------------------------------------------------------------------------------


def test_inspect_prints_what_is_in_a_file_and_says_in_one_line_why_not(tmp_path, capsys, monkeypatch):
    import torch

    class Attack:
        def __reduce__(self):
            return os.system, ("echo run",)

    weight, ran = torch.zeros(6), []
    torch.save({"a": weight[:2], "b": weight, "epoch": 3, "crafted": Attack()}, tmp_path / "x.pt")
    monkeypatch.setattr(os, "system", ran.append)
    assert cli.main(["inspect", str(tmp_path / "x.pt")]) == cli.OK
    assert capsys.readouterr().out.splitlines()[:7] == [
        f"2 tensors in 24 bytes, 2 plain values; load refuses it: {os.name}.system",
        "key  shape  dtype    bytes  storage  stored  device",
        "a    (2,)   float32      8  0            24  cpu",
        "b    (6,)   float32     24  0            24  cpu",
        "",
        "share one storage: a, b",
        "",
    ]
    assert cli.main(["inspect", "--json", str(tmp_path / "x.pt")]) == cli.OK
    found = json.loads(capsys.readouterr().out)
    assert found["refused"] == [f"{os.name}.system"] and found["tensors"][1]["shape"] == [6] and found["values"]["epoch"] == 3
    assert ran == []
    (tmp_path / "x.pt").write_bytes(b"hello")
    assert cli.main(["inspect", str(tmp_path / "x.pt")]) == cli.FAILED
    assert said(capsys) == f"tutorlib: '{tmp_path / 'x.pt'}' cannot be inspected: its end is missing: take an earlier copy"
    assert cli.main(["inspect", str(tmp_path / "none.pt")]) == cli.BAD_INPUT
    assert said(capsys) == f"tutorlib: {tmp_path / 'none.pt'}: no such file; its folder holds x.pt"
    assert cli.main(["inspect", str(tmp_path / "no" / "none.pt")]) == 2
    assert said(capsys).endswith("no such file, nor its folder; look from the current folder, or give the whole path")
    assert cli.main(["inspect", str(tmp_path)]) == cli.BAD_INPUT
    assert said(capsys) == f"tutorlib: {tmp_path} is a folder, expected a checkpoint file: name one in it"
