"""Every arrow points down: who may import what, read from the sources, and what an import may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tutorlib

PACKAGE = Path(tutorlib.__file__).parent
FLOOR_0 = {"facts", "processes"}
FLOOR_1 = {"datasets", "sharding", "collate", "cells", "ranks", "archive", "warm"}
FLOOR_2 = {
    "trace",
    "samplers",
    "audit",
    "checkpoint",
    "pictures",
    "export",
    "lessons",
    "doctor",
    "verify",
    "suite",
    "pages",
    "workcopy",
}
MAY_IMPORT = {
    "facts": set(),
    "processes": set(),
    "datasets": {"facts"},
    "sharding": {"facts"},
    "collate": {"facts"},
    "cells": {"facts"},
    "ranks": {"facts", "processes"},
    "archive": set(),
    "trace": {"facts", "sharding"},
    "samplers": {"facts", "sharding"},
    "audit": {"facts", "trace"},
    "checkpoint": {"facts", "processes", "archive"},
    "export": {"facts"},
    "pictures": {"facts"},
    "lessons": {"facts"},
    "doctor": {"facts"},
    "verify": {"facts", "lessons"},
    "pages": {"lessons"},
    "warm": set(),
    "suite": {"lessons", "verify", "warm"},
    "workcopy": {"facts", "lessons"},
    "widgets": {"facts", "pictures"},
    "exercises": {*FLOOR_0, *FLOOR_1, *FLOOR_2},
    "cli": {"facts", "lessons", "verify", "suite", "pages", "workcopy", "doctor", "checkpoint"},
    "__main__": {"cli"},
    "__init__": set(),
}
WORKSHOP = ("lessons", "verify", "suite", "warm", "pages", "workcopy", "doctor", "cli")  # the wing that starts without torch
NEVER_AT_THE_TOP = {"torchvision", "sklearn", "matplotlib", "PIL", "onnx", "onnxscript", "pandas", "torchinfo"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """`facts` for facts.py; the content of a package belongs to the package: exercises/lesson_01.py is `exercises`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, tree: ast.AST) -> list[tuple[str, int, bool]]:
    """Every module a file imports, its line, and whether it stands at the top (so that importing the file loads it)."""
    top = {id(node) for node in ast.walk(tree) if not isinstance(node, ast.Module)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            top -= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            top -= {id(inner) for inner in ast.walk(node)}
    package = ["tutorlib", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])]) if node.level else node.module
            )
            names = [f"{base}.{alias.name}" for alias in node.names] if base in ("tutorlib", "tutorlib.exercises") else [base]
            found += [(name, node.lineno, id(node) in top) for name in names]
    return found


def arrows() -> list[tuple[str, str, str, bool]]:
    """(module, imported name, place, at the top) for every import of the package."""
    return [
        (module_of(path), name, f"{path.relative_to(PACKAGE.parent)}:{line}", top)
        for path in FILES
        for name, line, top in imported(path, ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_every_module_stands_in_the_table():
    unknown = {module_of(path) for path in FILES} - set(MAY_IMPORT)
    assert not unknown, f"add {sorted(unknown)} to MAY_IMPORT, with what it may import"


def test_the_table_itself_points_down():
    floors = [FLOOR_0, FLOOR_1, FLOOR_2, set(MAY_IMPORT) - FLOOR_0 - FLOOR_1 - FLOOR_2]
    floor = {name: number for number, names in enumerate(floors) for name in names}
    # verify and workcopy stand on lessons, audit on trace, cli on its floor's door __main__: named here, so that no other may.
    level = {
        ("audit", "trace"),
        ("verify", "lessons"),
        ("suite", "verify"),
        ("suite", "lessons"),
        ("pages", "lessons"),
        ("workcopy", "lessons"),
        ("__main__", "cli"),
    }
    for module, others in MAY_IMPORT.items():
        for other in others:
            assert floor[other] < floor[module] or (module, other) in level, f"{module} imports {other}, which is not below it"


def test_imports_within_the_package_follow_the_table():
    wrong = []
    for module, name, place, _ in arrows():
        if name == "tutorlib" or not name.startswith("tutorlib."):
            continue
        target = name.split(".")[1]
        if target not in MAY_IMPORT:  # a name such as __version__
            continue
        if target not in MAY_IMPORT.get(module, set()) and target != module:
            wrong.append(f"{place}: {module} imports {target}, it may import {sorted(MAY_IMPORT[module]) or 'nothing'}")
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_pytest_or_nbval_at_the_top():
    wrong = [
        place for _, name, place, top in arrows() if top and name.split(".")[0] in ("pytest", "nbval", "hypothesis", "playwright")
    ]
    assert not wrong, f"the test extra is not always installed: {wrong}"


def test_heavy_libraries_are_imported_where_they_are_used():
    wrong = [f"{place}: {name}" for _, name, place, top in arrows() if top and name.split(".")[0] in NEVER_AT_THE_TOP]
    assert not wrong, "\n".join(wrong)


def test_only_widgets_imports_ipywidgets():
    wrong = [
        f"{place}: {name}" for module, name, place, _ in arrows() if name.split(".")[0] == "ipywidgets" and module != "widgets"
    ]
    # doctor only asks for its version, and does that without importing it
    assert not wrong, "\n".join(wrong)


def test_the_door_needs_only_the_standard_library():
    wrong = [
        f"{place}: {name}"
        for module, name, place, top in arrows()
        if module == "__main__" and top and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


def test_import_tutorlib_imports_nothing():
    assert [place for module, _, place, _ in arrows() if module == "__init__"] == []


@pytest.mark.parametrize("module", [m for m in WORKSHOP if (PACKAGE / f"{m}.py").exists()])
def test_the_workshop_wing_starts_without_heavy_libraries(module):
    heavy = ("torch", "torchvision", "numpy", "nbformat", "nbclient", "jupytext", "ipywidgets", "IPython", "pytest")
    code = f"import sys, tutorlib.{module}; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_the_reading_of_imports_sees_every_form(tmp_path):
    text = (
        "import torch.nn\nfrom . import facts\nfrom .lessons import parse\nfrom tutorlib import trace\n"
        "def f():\n    import sklearn\nif TYPE_CHECKING:\n    import onnx\n"
    )
    assert imported(PACKAGE / "made_up.py", ast.parse(text)) == [
        ("torch.nn", 1, True),
        ("tutorlib.facts", 2, True),
        ("tutorlib.lessons", 3, True),
        ("tutorlib.trace", 4, True),
        ("sklearn", 6, False),
        ("onnx", 8, False),
    ]
    assert imported(PACKAGE / "exercises" / "lesson_09.py", ast.parse("from . import law\nfrom .. import facts\n")) == [
        ("tutorlib.exercises.law", 1, True),
        ("tutorlib.facts", 2, True),
    ]
