"""What several tests need: a small complete lesson, and a notebooks folder in which it was executed once."""

import shutil
from pathlib import Path

import pytest

SOURCE = """# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   tutorlib:
#     title: {en: "A tiny lesson", zh: "小课"}
#     sections: ["000: 0. Tiny"]
#     minutes: 5
# ---

# %% [markdown] lang="en"
# # 00 · A tiny lesson
#
# Every kind of output, once.

# %% [markdown] lang="zh"
# # 00 · 小课
#
# 每种输出各一次。

# %% tags=["setup"]
import base64
import io
import sys

from IPython.display import display
from ipywidgets import HTML
from PIL import Image


def html(markup):
    display({"text/html": markup, "text/plain": "a table"}, raw=True)


class exercises:
    def check(name, answer):
        print(name, "passed" if answer() == 3 else "failed")

    def predict(mine, torch):
        print("yours", "not attempted" if mine is ... else mine, "torch", torch)


print("ready")

# %% tags=["raises-exception", "claim:TI-01"]
raise ValueError("wrong first: 12 is not 21")

# %% tags=["predict", "claim:TI-02"]
my_guess = ...  # your prediction, for example [0, 1]
exercises.predict(my_guess, torch=[0, 2])

# %%
print("first line")
print("second line 17")

# %%
print("said aside", file=sys.stderr)

# %%
html("<table><tr><th scope='row'>worker 0</th><td>keys 0 2</td></tr></table>")

# %%
drawing = "<svg xmlns='http://www.w3.org/2000/svg'><text>worker one</text></svg>"
coded = base64.b64encode(drawing.encode()).decode()
html(f"<img src='data:image/svg+xml;base64,{coded}' alt='one worker'>")

# %%
file = io.BytesIO()
Image.new("RGB", (8, 4), (200, 30, 60)).save(file, "png")
coded = base64.b64encode(file.getvalue()).decode()
display({"image/png": coded, "text/plain": "a picture"}, raw=True)

# %%
print("one")
display({"text/plain": "two"}, raw=True)
{"three": 3}


# %% tags=["explore"]
class View(HTML):
    def _repr_mimebundle_(self, **kwargs):
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": "2 workers read 10 samples"}


def explore(compute):
    return View(compute())


explore(lambda: "<b>10</b>")

# %% tags=["exercise:three"]
def three():
    return None


# solution
def three():
    return 3


# %% tags=["check"]
exercises.check("00_three", three)

# %% tags=["bug-hunt"]
print("line 2 is no longer true")

# %% [markdown] lang="en"
# ## Recap
#
# Three sentences.

# %% [markdown] lang="zh"
# ## 小结
#
# 三句话。
"""

LEDGER = """
[[claim]]
id = "TI-01"
source = "000"
section = "0. Tiny"
lesson = "00"
verdict = "true"
statement.en = "12 is not 21."
statement.zh = "12 不是 21。"
note.en = "Shown by an error."
note.zh = "由一个错误说明。"

[[claim]]
id = "TI-02"
source = "000"
section = "0. Tiny"
also = ["001: 1. Other"]
lesson = "00"
verdict = "changed"
since = "2.0"
statement.en = "torch says [0, 1]."
statement.zh = "torch 给出 [0, 1]。"
note.en = "It says [0, 2]."
note.zh = "给出 [0, 2]。"
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A notebooks folder with one lesson that was never executed."""
    root = tmp_path / "notebooks"
    (root / "src").mkdir(parents=True)
    (root / "src" / "00_tiny.py").write_text(SOURCE, encoding="utf-8")
    (root / "claims.toml").write_text(LEDGER, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def executed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tutorlib import lessons

    root = tmp_path_factory.mktemp("executed") / "notebooks"
    (root / "src").mkdir(parents=True)
    (root / "src" / "00_tiny.py").write_text(SOURCE, encoding="utf-8")
    (root / "claims.toml").write_text(LEDGER, encoding="utf-8")
    lessons.refresh(root=root)
    return root


@pytest.fixture
def executed(executed_once: Path, tmp_path: Path) -> Path:
    """A notebooks folder with one executed lesson, the test's own."""
    return Path(shutil.copytree(executed_once, tmp_path / "notebooks"))
