"""pyproject.toml decides what is needed; the pins, the conda file and what is installed here follow it."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
PIN_LINES = [
    line for line in (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
]
PINS = [Requirement(line) for line in PIN_LINES]
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}  # conda-forge's playwright is the Node program
PIP_ONLY = {"torchsummary"}  # comes with tutorlib itself, which the file installs with pip

MACHINES = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.4", "sys_platform": system, "os_name": name, **more}
    for minor in (11, 12, 13, 14)
    for system, name, more in (
        ("linux", "posix", {"platform_system": "Linux", "platform_machine": "x86_64"}),
        ("linux", "posix", {"platform_system": "Linux", "platform_machine": "aarch64"}),
        ("darwin", "posix", {"platform_system": "Darwin", "platform_machine": "arm64"}),
        ("win32", "nt", {"platform_system": "Windows", "platform_machine": "AMD64"}),
    )
]


def holds(marker: Marker | None, machine: dict[str, str]) -> bool:
    return marker is None or marker.evaluate({**default_environment(), "implementation_name": "cpython", **machine})


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m['python_version']}-{m['sys_platform']}-{m['platform_machine']}")
def test_every_dependency_has_exactly_one_pin_on_every_machine(machine):
    for needed in NEEDED:
        pins = [p for p in PINS if canonicalize_name(p.name) == canonicalize_name(needed.name) and holds(p.marker, machine)]
        assert len(pins) == 1, f"{needed}: {[str(p) for p in pins]} in .ci/constraints.txt, expected one pin; make the file again"
        (exact,) = pins[0].specifier
        assert exact.operator == "==" and needed.specifier.contains(exact.version), f"{pins[0]} does not satisfy {needed}"


def test_the_pins_are_pins_and_name_no_place():
    assert all([s.operator for s in pin.specifier] == ["=="] and pin.url is None for pin in PINS)
    text = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|--index|--find-links|file:|@ ", text)


def test_torch_and_torchvision_are_pinned_as_a_pair():
    pins = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in PINS}
    (needs,) = [r for r in map(Requirement, requires("torchvision") or []) if r.name == "torch" and holds(r.marker, MACHINES[0])]
    assert needs.specifier.contains(pins["torch"]), f"torchvision needs {needs}, torch is pinned to {pins['torch']}"


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_the_conda_file_asks_for_the_same():
    lines = [line for line in conda()["dependencies"] if isinstance(line, str)]
    found = {r.name: r.specifier for r in map(Requirement, lines)}
    expected = {CONDA_NAMES.get(needed.name, needed.name): needed.specifier for needed in NEEDED if needed.name not in PIP_ONLY}
    expected |= {"python": SpecifierSet(PROJECT["requires-python"]), "pip": SpecifierSet()}
    assert found == expected


def test_the_conda_file_installs_this_clone_and_pins_nothing():
    content = conda()
    assert content["name"] == "tutorlib" and content["channels"] == ["conda-forge"]
    assert [line for line in content["dependencies"] if not isinstance(line, str)] == [{"pip": ["-e ."]}]
    assert "==" not in (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_each_dependency_is_justified_on_its_line():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for needed in NEEDED:
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f'"{needed}"')]
        assert re.search(r"# .{10,}", line), f"{line!r} says not why"


def test_the_python_range_is_the_one_that_the_door_checks():
    from tutorlib.__main__ import NEWEST, OLDEST

    assert PROJECT["requires-python"] == f">={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}"


def test_no_file_of_the_set_up_names_a_registry():
    for name in (
        "pyproject.toml",
        "environment.yml",
        ".ci/run",
        ".ci/constraints.txt",
        "tutorlib/__main__.py",
        "tutorlib/cli.py",
    ):
        assert not re.search(r"(pypi|pythonhosted|download\.pytorch|simple/)\S*", (ROOT / name).read_text(encoding="utf-8")), name


def test_the_licence_is_complete():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (
        text.startswith("MIT License\n\nCopyright (c) 2026 tutorlib contributors\n")
        and 'THE SOFTWARE IS PROVIDED "AS IS"' in text
    )
    assert PROJECT["license"] == "MIT" and PROJECT["license-files"] == ["LICENSE"]
