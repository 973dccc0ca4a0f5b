"""The cell magic, in a real kernel and with real workers; the rules of names and redefinition without one."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tutorlib import cells

DATASET = """
class Tens:
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return index * 10
"""

LOAD = """
from torch.utils.data import DataLoader
def load(data, how):
    return [batch.tolist() for batch in DataLoader(data, num_workers=1, multiprocessing_context=how)]
"""

FAILS = """
try:
    load(Plain(), "spawn")
except RuntimeError as error:
    print(str(error)[:17], str(error)[-19:])
"""

FORKSERVER = "forkserver" if sys.platform == "linux" else "spawn"


@pytest.fixture(scope="module")
def kernel():
    """The outputs of one notebook in one kernel, by the name of each cell."""
    sources = {
        "load": "%load_ext tutorlib.cells\n" + LOAD,
        "magic": "%%importable tens_data\n" + DATASET,
        "spawn": "print(load(Tens(), 'spawn'))",
        "forkserver": f"print(load(Tens(), '{FORKSERVER}'))",
        "again": "%%importable tens_data\n" + DATASET.replace("* 10", "* 99"),
        "new definition": f"print(load(Tens(), '{FORKSERVER}'))",
        "plain": DATASET.replace("Tens", "Plain"),
        "plain under spawn": FAILS,
        "no name": "%%importable\nx = 1",
        "two names": "%%importable a b\nx = 1",
        "no identifier": "%%importable my-data\nx = 1",
        "shadow": "%%importable torch\nx = 1",
        "syntax": "%%importable tens_data\nclass Tens(:\n    pass",
        "kept": "print(Tens()[1], Tens.__module__)",
        "folder": "import tens_data\nprint(tens_data.__file__)",
    }
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources.values()])
    NotebookClient(notebook, timeout=180, allow_errors=True).execute()
    return dict(zip(sources, (_text(cell) for cell in notebook.cells), strict=True))


def _text(cell) -> str:
    parts = [
        o.get("text") or f"{o['ename']}: {o['evalue']}"
        for o in cell.outputs
        if o.get("name") != "stderr" or "UsageError" in o.text
    ]
    return "".join(parts).strip()


def test_a_class_of_a_named_cell_works_under_spawn_and_forkserver(kernel):
    assert kernel["load"] == kernel["magic"] == ""
    assert kernel["spawn"] == "[[0], [10], [20]]"
    assert kernel["forkserver"] == "[[0], [10], [20]]"


def test_workers_see_the_cell_as_it_was_run_last(kernel):
    assert kernel["new definition"] == "[[0], [99], [198]]"


def test_a_class_of_an_ordinary_cell_fails_under_spawn(kernel):
    assert kernel["plain under spawn"] == "DataLoader worker exited unexpectedly"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("no name", "UsageError: %%importable needs one name for the module, found 0: for example %%importable my_data"),
        ("two names", "UsageError: %%importable needs one name for the module, found 2: for example %%importable my_data"),
        (
            "no identifier",
            "UsageError: %%importable 'my-data' cannot be imported, it is no Python name: "
            "use letters, digits and _, for example my_data",
        ),
        (
            "shadow",
            "UsageError: %%importable 'torch' is already an installed module, which the cell would hide: choose another name",
        ),
        (
            "syntax",
            "UsageError: %%importable tens_data: syntax error in line 1: invalid syntax: "
            "a module holds plain Python only; nothing was replaced",
        ),
    ],
)
def test_bad_use_of_the_magic_is_one_line(kernel, cell, text):
    assert kernel[cell] == text


def test_a_syntax_error_replaces_nothing(kernel):
    assert kernel["kept"] == "99 tens_data"


def test_the_folder_of_a_killed_kernel_is_removed_by_the_next_use(kernel):
    folder = Path(kernel["folder"]).parent
    assert folder.name.startswith("tutorlib-cells-")
    cells._remove()
    cells.define("cell_next", "", {})
    cells._remove()
    assert not folder.exists()


def test_the_folder_is_gone_when_its_process_ends():
    code = "from tutorlib import cells; print(cells.define('cell_end', '', {}).__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("cell_end.py")
    assert not Path(done.stdout.strip()).parent.exists()


def test_a_forked_child_leaves_its_parents_folder_alone(names):
    folder = Path(cells.define("cell_parent", "x = 1", names).__file__).parent
    assert cells._place is not None
    owner, cells._place = cells._place, (cells._place[0] + 1, cells._place[1])  # as a child sees it
    cells._remove()
    cells._place = owner
    assert folder.exists() and "cell_parent" in sys.modules


@pytest.fixture
def names():
    found: dict[str, object] = {}
    yield found
    cells._remove()


def test_public_names_land_in_the_namespace(names):
    cells.define("cell_names", "import math\none = 1\n_two = 2\n", names)
    assert names == {"math": __import__("math"), "one": 1}
    cells.define("cell_all", "__all__ = ['_two']\none = 3\n_two = 2\n", names)
    assert names["one"] == 1 and names["_two"] == 2


def test_what_an_earlier_definition_only_imported_stays_in_the_namespace(names):
    import math
    from textwrap import dedent

    names.update(math=math, dedent=dedent, sin=math.sin)  # as a set-up cell imports them
    first = "import math\nfrom math import sin\nfrom textwrap import dedent\ndef own(): ...\nclass Own: ...\ninstance = Own()\n"
    cells.define("cell_imports", first, names)
    assert {"own", "Own", "instance"} <= names.keys()
    cells.define("cell_imports", "", names)
    assert names == {"math": math, "dedent": dedent, "sin": math.sin}


def test_a_name_that_is_gone_leaves_the_namespace_unless_it_was_rebound(names):
    cells.define("cell_gone", "first = [1]\nsecond = [2]\n", names)
    names["second"] = "mine"
    cells.define("cell_gone", "third = [3]\n", names)
    assert names == {"second": "mine", "third": [3]}


def test_instances_travel_by_reference_and_show_their_source(names):
    source = "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n"
    cells.define("cell_point", source, names)
    point = names["Point"](3)
    assert pickle.loads(pickle.dumps(point)) == point  # noqa: S301 (made on this line)
    assert inspect.getsource(names["Point"]) == "@dataclasses.dataclass\nclass Point:\n    x: int\n"
    assert dataclasses.asdict(point) == {"x": 3}


def test_a_redefinition_within_one_second_reaches_an_interpreter_that_has_compiled_the_first(names):
    module = cells.define("cell_fast", "value = 1\n", names)
    folder = Path(module.__file__).parent

    def elsewhere() -> str:
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import cell_fast; print(cell_fast.value)"
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.strip()

    assert elsewhere() == "1"
    assert list(folder.glob("__pycache__/cell_fast*.pyc"))
    cells.define("cell_fast", "value = 2\n", names)
    assert elsewhere() == "2"


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("class", "", "'class' cannot be imported, it is no Python name: use letters, digits and _, for example my_data"),
        ("pathlib", "", "'pathlib' is already a module of Python's standard library: choose another name"),
        ("__main__", "", "'__main__' is already a module of Python's standard library: choose another name"),
        ("numpy", "", "'numpy' is already an installed module, which the cell would hide: choose another name"),
        (
            "cell_bad",
            "a = 1\n!ls\n",
            "cell_bad: syntax error in line 2: invalid syntax: a module holds plain Python only; nothing was replaced",
        ),
        (
            "cell_bad",
            "a = 1\nb = torch.ones(1)\n",
            "cell_bad: NameError in line 2: name 'torch' is not defined: a module sees only what it imports or defines itself; "
            "nothing was replaced",
        ),
        (
            "cell_bad",
            "def f():\n    return 1 / 0\nf()\n",
            "cell_bad: ZeroDivisionError in line 2: division by zero; nothing was replaced",
        ),
    ],
)
def test_what_cannot_be_a_module_is_refused_and_replaces_nothing(names, name, source, text):
    cells.define("cell_bad", "kept = 1\n", names)
    before = dict(sys.modules)
    with pytest.raises(cells.CellError) as caught:
        cells.define(name, source, names)
    assert str(caught.value) == text
    assert names == {"kept": 1}
    assert sys.modules == before
    assert Path(sys.modules["cell_bad"].__file__).read_text() == "kept = 1\n"


def test_unloading_takes_everything_back(names):
    class Shell:
        user_ns = names
        magics_manager = types.SimpleNamespace(magics={"cell": {}})

        def register_magic_function(self, function, magic_kind, magic_name):
            self.magics_manager.magics[magic_kind][magic_name] = function

    shell = Shell()
    cells.load_ipython_extension(shell)
    shell.magics_manager.magics["cell"]["importable"]("cell_unload", "x = 1")
    folder = Path(sys.modules["cell_unload"].__file__).parent
    cells.unload_ipython_extension(shell)
    assert shell.magics_manager.magics["cell"] == {}
    assert "cell_unload" not in sys.modules and str(folder) not in sys.path and not folder.exists()
