"""The door of a fresh clone: it refuses plainly, sets up once, mends what was interrupted, and never goes in circles."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tutorlib import __main__ as door
from tutorlib.__main__ import NotReady, Setup

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.delenv("TUTORLIB_VENV", raising=False)
    monkeypatch.delenv(door.AGAIN, raising=False)
    root = tmp_path / "a clone 课"
    (root / ".ci").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]")
    (root / ".ci/constraints.txt").write_text("torch==2.15.0")
    return root


class Machine:
    """Stands for uv, venv and pip: writes down every command and leaves behind what they would leave."""

    def __init__(self, answer: Callable[[list[str]], int] = lambda command: 0):
        self.commands: list[list[str]] = []
        self.said: list[str] = []
        self.answer = answer

    def call(self, command: list[str], folder: Path) -> int:
        assert (folder / "pyproject.toml").is_file()
        self.commands.append(command)
        code = self.answer(command)
        if code == 0 and "venv" in command:
            python = Path(command[-1]) / PYTHON
            python.parent.mkdir(parents=True)
            python.touch()
            (Path(command[-1]) / "pyvenv.cfg").touch()
            if command[0] != "uv":
                (Path(command[-1]) / "lib/python3/site-packages/pip").mkdir(parents=True)
        return code

    def setup(self, root: Path, **settings) -> Setup:
        return Setup(root, call=self.call, say=self.said.append, **{"installers": ["pip"], **settings})


def made(clone: Path, **settings) -> Machine:
    machine = Machine()
    machine.setup(clone, **settings).run()
    return machine


# Refusing ---------------------------------------------------------------------------------------------------------------


def test_the_door_can_be_read_by_an_old_python():
    source = Path(door.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {a.name.split(".")[0] for node in top for a in node.names if isinstance(node, ast.Import)}
    names |= {node.module.split(".")[0] for node in top if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)
    assert not {node.module for node in top if isinstance(node, ast.ImportFrom)} & {"__future__", "dataclasses"}, "newer than 3.6"
    ast.parse((ROOT / "tutorlib/__init__.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6, 0), (3, 8, 10), (3, 10, 14), (3, 15, 0), (4, 0, 0)])
def test_a_python_out_of_range_is_named_with_what_is_expected_and_the_way_out(version):
    text = door.refusal(version, ["lab"], which=lambda name: None)
    assert f"Python 3.11 to 3.14 is needed, this is Python {'.'.join(map(str, version))} ({sys.executable})" in text
    assert "install Python 3.13" in text and text.endswith("-m tutorlib lab") and "\n" not in text


def test_an_installed_python_that_fits_is_the_way_out():
    text = door.refusal((3, 9, 2), ["test", "01"], which=lambda name: "/bin/x" if name in ("python3.11", "python3.13") else None)
    assert text.endswith("python3.13 is installed: run  python3.13 -m tutorlib test 01")


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9), (3, 13, 1), (3, 14, 2)])
def test_a_python_in_range_is_welcome(version):
    assert door.refusal(version, machine=("linux", "x86_64")) == ""


def test_a_mac_without_a_build_of_torch_is_told_so():
    assert "no build for Macs with an Intel processor" in door.refusal((3, 12, 0), machine=("darwin", "x86_64"))
    assert door.refusal((3, 12, 0), machine=("darwin", "arm64")) == ""


def test_the_refusal_comes_before_anything_is_imported():
    code = (
        "import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0); sys.modules['tutorlib.cli'] = None; "
        "sys.argv = ['tutorlib', 'lab']; runpy.run_module('tutorlib', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("tutorlib: Python 3.11 to 3.14 is needed, this is Python 3.9.2")
    assert done.stderr.count("\n") == 1


# Setting up ----------------------------------------------------------------------------------------------------------------


def test_with_pip_a_fresh_clone_gets_an_environment_with_the_pins(clone):
    machine = made(clone)
    venv = clone / ".venv"
    assert machine.commands == [
        [sys.executable, "-m", "venv", str(venv)],
        [
            *(str(venv / PYTHON), "-m", "pip", "install", "--disable-pip-version-check"),
            *("--constraint", ".ci/constraints.txt", "--editable", "."),
        ],
    ]
    assert json.loads((venv / door.STAMP).read_text())["state"] == "ready"


def test_with_uv_and_the_test_tools(clone):
    machine = made(clone, installers=["uv", "pip"], extras=["test"])
    venv = clone / ".venv"
    assert machine.commands == [
        ["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)],
        [
            *("uv", "pip", "install", "--python", str(venv / PYTHON)),
            *("--constraint", ".ci/constraints.txt", "--editable", ".[test]"),
        ],
    ]


def test_it_says_what_it_costs_before_the_first_step(clone, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    said = made(clone).said
    assert said[0] == f"setting up PyTorch, JupyterLab and what the lessons need, once, in {clone / '.venv'}"
    assert said[1].startswith("this downloads about 3 GB, takes about 6 GB of disk and 1 to 6 minutes")
    assert said[2].startswith("a CPU-only build is smaller: give --torch-index URL")
    assert said[3:5] == ["step 1 of 2: making the virtual environment", "step 2 of 2: installing everything with pip"]
    assert said[5].startswith("set up in 0 min")


def test_elsewhere_it_is_smaller(clone, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert made(clone).said[1].startswith("this downloads a few hundred MB")


def test_torch_and_torchvision_come_from_the_same_index(clone):
    machine = made(clone, torch_index="https://index.example/cpu")
    both = machine.commands[1]
    assert both[-5:] == ["--no-deps", "--index-url", "https://index.example/cpu", "torch", "torchvision"]
    assert "--index-url" not in machine.commands[2]
    assert any("torch and torchvision come from https://index.example/cpu" in line for line in machine.said)


def test_the_index_is_remembered_and_another_one_means_a_new_environment(clone):
    made(clone, torch_index="https://index.example/cpu")
    assert made(clone).commands == []
    (clone / ".ci/constraints.txt").write_text("torch==2.16.0")
    update = made(clone).commands
    assert "https://index.example/cpu" in update[0] and not any("venv" in c for c in update)
    assert "venv" in made(clone, torch_index="https://index.example/other").commands[0]


def test_a_complete_environment_is_left_alone(clone):
    made(clone, extras=["test"])
    for extras in ((), ("test",)):
        machine = Machine()
        setup = machine.setup(clone, extras=extras)
        assert setup.complete()
        setup.run()
        assert machine.commands == [] and machine.said == []


def test_new_pins_and_more_tools_bring_it_up_to_date_in_place(clone):
    made(clone)
    keep = clone / ".venv/keep"
    keep.touch()
    assert made(clone, extras=["test"]).commands[-1][-1] == ".[test]"
    (clone / ".ci/constraints.txt").write_text("torch==2.15.1")
    machine = made(clone)
    assert machine.commands[-1][-1] == ".[test]", "what was there stays there"
    assert machine.said[0].startswith("bringing") and keep.exists()


def test_pip_is_brought_where_uv_made_the_environment(clone):
    made(clone, installers=["uv"])
    machine = made(clone, extras=["test"])
    assert [c[1:3] for c in machine.commands] == [["-m", "ensurepip"], ["-m", "pip"]]


def test_a_clone_that_moved_is_mended(clone):
    made(clone)
    other = clone.rename(clone.with_name("elsewhere"))
    machine = Machine()
    assert not machine.setup(other).complete()


@pytest.mark.parametrize("at", ["venv", "install"])
def test_an_interrupted_set_up_is_done_again_from_the_start(clone, at):
    def stop(command):
        if at in command:
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        Machine(stop).setup(clone).run()
    assert json.loads((clone / ".venv" / door.STAMP).read_text())["state"] == "begun"
    (clone / ".venv" / "half").touch()
    machine = made(clone)
    assert "venv" in machine.commands[0] and not (clone / ".venv/half").exists()
    assert machine.said[0].endswith("was interrupted; it begins again, with what was already downloaded")
    assert Machine().setup(clone).complete()


def test_an_interruption_while_the_old_one_is_deleted_can_be_mended_too(clone, monkeypatch):
    made(clone, torch_index="https://index.example/cpu")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(door.shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            made(clone, torch_index="https://index.example/other")
    assert "venv" in made(clone).commands[0]


def test_a_place_that_cannot_be_written_is_named(clone, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda self, *args, **kwargs: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(
        NotReady, match=r"\.venv cannot be made: Read-only file system; set TUTORLIB_VENV to a folder that can be"
    ):
        made(clone)


def test_an_environment_whose_python_is_gone_is_made_anew(clone):
    made(clone)
    (clone / ".venv" / PYTHON).unlink()
    (clone / ".venv" / "old").touch()
    assert "venv" in made(clone).commands[0]
    assert not (clone / ".venv/old").exists()


def test_where_uv_fails_pip_is_tried_on_a_clean_folder(clone):
    machine = Machine(lambda command: int(command[0] == "uv" and "install" in command))
    machine.setup(clone, installers=["uv", "pip"]).run()
    assert [c[0] == "uv" for c in machine.commands] == [True, True, False, False]


def test_a_failed_install_is_one_sentence_with_the_way_out(clone):
    machine = Machine(lambda command: int("install" in command))
    with pytest.raises(
        NotReady, match=r"the set-up did not finish: `.*pip install .*` failed.*connect it and run the same command again"
    ):
        machine.setup(clone).run()
    assert not machine.setup(clone).complete()


def test_a_python_without_venv_is_told_what_brings_it(clone, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    machine = Machine(lambda command: int("venv" in command))
    with pytest.raises(NotReady, match="-m venv"):
        machine.setup(clone).run()
    assert "sudo apt install python3-venv" in machine.said[-1]


def test_an_environment_of_the_users_own_is_used_but_never_cleared(clone):
    (clone / ".venv" / PYTHON).parent.mkdir(parents=True)
    (clone / ".venv" / PYTHON).touch()
    (clone / ".venv/pyvenv.cfg").touch()
    with pytest.raises(NotReady):
        Machine(lambda command: int("install" in command)).setup(clone, installers=["uv"]).run()
    machine = made(clone, installers=["uv"])
    assert [c[:3] for c in machine.commands] == [["uv", "pip", "install"]]
    assert (clone / ".venv/pyvenv.cfg").exists()


def test_a_folder_that_is_no_environment_is_not_touched(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv/mine.txt").write_text("mine")
    with pytest.raises(NotReady, match=r"\.venv exists and is no virtual environment; move it away, or set TUTORLIB_VENV"):
        made(clone)
    assert (clone / ".venv/mine.txt").read_text() == "mine"
    (clone / "file").touch()
    with pytest.raises(NotReady, match="file exists and is no virtual environment"):
        made(clone, venv=clone / "file")


def test_another_place_can_be_named(clone, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORLIB_VENV", str(tmp_path / "else where"))
    made(clone)
    assert (tmp_path / "else where" / door.STAMP).is_file() and not (clone / ".venv").exists()
    assert not Setup(clone).unneeded(), "the environment that was named is the one to use"


def test_too_small_a_disk_is_refused_before_the_first_step(clone, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(door.shutil, "disk_usage", lambda place: door.shutil._ntuple_diskusage(10, 9, 1_500_000_000))
    machine = Machine()
    with pytest.raises(NotReady, match=r"has 1\.5 GB free, and the set-up needs 7 GB; free some space, or set TUTORLIB_VENV"):
        machine.setup(clone).run()
    assert machine.commands == []


def test_two_set_ups_at_once_do_not_meet(clone):
    def second(command):
        with pytest.raises(NotReady, match=r"another tutorlib is setting up .*\.venv right now"):
            Machine().setup(clone).run()
        return 0

    machine = Machine(second)
    machine.setup(clone).run()
    assert len(machine.commands) == 2


def test_an_incomplete_clone_is_named(clone):
    (clone / ".ci/constraints.txt").unlink()
    with pytest.raises(NotReady, match=r"constraints\.txt is missing; run this in a complete clone"):
        made(clone)


def test_a_broken_stamp_counts_as_none(clone):
    made(clone)
    (clone / ".venv" / door.STAMP).write_text("[1")
    assert not Machine().setup(clone).complete()


# Handing over --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def handed(clone, monkeypatch) -> list[list[str]]:
    """The door of `clone` on a bare Python; what it hands over to."""
    commands: list[list[str]] = []
    monkeypatch.setattr(door, "ROOT", clone)
    monkeypatch.setattr(door, "missing", lambda extras=(): None)
    monkeypatch.setattr(door, "_hand_over", lambda command: commands.append(command) or 0)
    monkeypatch.setattr(door, "_installers", lambda: ["pip"])
    return commands


def test_after_the_set_up_the_same_command_runs_in_the_environment(clone, handed, monkeypatch, tmp_path):
    machine = Machine()
    monkeypatch.setattr(door, "_call", machine.call)
    assert door.main(["lab", str(tmp_path / "w"), "--lang", "zh"]) == 0
    assert handed == [[str(clone / ".venv" / PYTHON), "-m", "tutorlib", "lab", str(tmp_path / "w"), "--lang", "zh"]]
    assert door.main(["lab", str(tmp_path / "w")]) == 0
    assert len(machine.commands) == 2 and len(handed) == 2, "the second time nothing is installed"


@pytest.mark.parametrize(
    "words", [["tset"], ["lab", "--port", "0"], ["test", "99"], ["refresh", "99"], ["lab", str(ROOT / "notebooks")]]
)
def test_bad_input_is_refused_before_anything_is_set_up(clone, handed, words, capsys):
    assert door.main(words) == 2
    assert handed == [] and not (clone / ".venv").exists()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["lab", "--help"]])
def test_help_needs_no_set_up(clone, handed, words, capsys):
    assert door.main(words) == 0
    assert handed == [] and not (clone / ".venv").exists()
    assert "tutorlib" in capsys.readouterr().out


def test_doctor_sets_nothing_up_but_looks_at_a_complete_environment(clone, handed, monkeypatch):
    monkeypatch.setattr("tutorlib.cli._doctor", lambda args: 3)
    assert door.main(["doctor"]) == 3
    assert handed == [] and not (clone / ".venv").exists()
    made(clone)
    assert door.main(["doctor"]) == 0
    assert handed == [[str(clone / ".venv" / PYTHON), "-m", "tutorlib", "doctor"]]


def test_a_failed_set_up_is_exit_code_3_and_one_line(clone, handed, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(door, "_call", lambda command, folder: 1)
    assert door.main(["lab", str(tmp_path / "w")]) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("tutorlib: the set-up did not finish: `")
    assert handed == []


def test_ctrl_c_during_the_set_up_is_no_traceback(clone, handed, monkeypatch, capsys, tmp_path):
    def stop(command, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "_call", stop)
    assert door.main(["lab", str(tmp_path / "w")]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "tutorlib: interrupted; the same command goes on from here"


def test_it_does_not_set_up_twice_in_a_row(clone, handed, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(door.AGAIN, "1")
    assert door.main(["lab", str(tmp_path / "w")]) == 3
    assert "was set up and still lacks tutorlib; delete that folder and run the command again" in capsys.readouterr().err


def test_where_everything_is_installed_nothing_is_set_up():
    assert door.missing(("test",)) == []
    assert Setup(ROOT, extras=["test"]).unneeded()


def test_what_is_missing_is_named(monkeypatch):
    import importlib.metadata as metadata

    monkeypatch.setattr(metadata, "requires", lambda name: ["json5>=0.1", "no-such-thing>=1", "nor-this; extra == 'test'"])
    assert door.missing() == ["no-such-thing"]
    assert door.missing(("test",)) == ["no-such-thing", "nor-this"]


def test_the_installers_output_does_not_mix_with_the_commands(tmp_path):
    code = "from tutorlib import __main__ as d; import sys; print('out', d._call([sys.executable, '-c', 'print(1)'], '.'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("out 0\n", "1\n")
    code = "from tutorlib import __main__ as d; print(d._call(['no-such-program'], '.'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("127\n", "tutorlib: no-such-program: No such file or directory\n")
