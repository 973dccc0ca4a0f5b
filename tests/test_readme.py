"""What the READMEs promise exists: lessons, links, commands, and every name of the package that they use."""

import importlib
import re
from pathlib import Path

import pytest

from tutorlib import cli, lessons

ROOT = Path(__file__).parents[1]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")}


@pytest.mark.parametrize("language, name", [("en", "README.md"), ("zh", "README.zh.md")])
def test_every_lesson_is_listed_by_its_title_and_in_order(language, name):
    listed = re.findall(r"(?m)^\| (\d\d) \| \[(.+?)\]\((\S+)\) \| \S", TEXTS[name])
    titles = [(one.number, one.title[language], f"notebooks/{language}/{one.name}.ipynb") for one in lessons.headings()]
    assert listed == titles


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_of_the_clone_leads_somewhere(name):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXTS[name]) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links), links


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_is_understood(name, monkeypatch):
    monkeypatch.setattr(cli, "_check_test", lambda args: None)
    commands = set(re.findall(r"python3 -m tutorlib ([a-z]+(?: [^`。；\n]*)?)", TEXTS[name]))
    assert {"lab", "test"} <= {command.split()[0] for command in commands}
    for command in commands:
        cli.parser().parse_args(command.split())


def test_every_name_of_the_package_that_is_used_exists():
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.S)
    modules = re.findall(r"from tutorlib import (.*)", code)[0].split(", ")
    used = re.findall(rf"\b({'|'.join(modules)})\.(\w+)", code)
    assert {module for module, _ in used} == set(modules)
    for module, attribute in used:
        assert hasattr(importlib.import_module(f"tutorlib.{module}"), attribute), f"{module}.{attribute}"


def test_both_tell_the_same_story():
    heads = {name: len(re.findall(r"^## ", text, re.M)) for name, text in TEXTS.items()}
    assert heads["README.zh.md"] >= 4 and "README.zh.md" in TEXTS["README.md"] and "README.md" in TEXTS["README.zh.md"]
