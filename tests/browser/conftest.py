"""A real JupyterLab, opened as `tutorlib lab` opens it, in a real Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 180_000  # milliseconds: a 2-core machine starts a kernel, imports torch and runs a lesson
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")


def chromium() -> str | None:
    """The browser to use: TUTORLIB_CHROMIUM, or the first of the usual names on the path."""
    return os.environ.get("TUTORLIB_CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextlib.contextmanager
def running_browser(path: str) -> Iterator[Any]:
    """Chromium at `path`, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*QUIET, *(["--no-sandbox"] if root else [])])
        yield started
        started.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    path = chromium()
    if path is None:
        reason = f"no Chromium found: looked for {', '.join(NAMES)} on the path; TUTORLIB_CHROMIUM=PATH names another"
        if os.environ.get("TUTORLIB_REQUIRE_BROWSER"):
            pytest.fail(f"TUTORLIB_REQUIRE_BROWSER is set, but {reason}")
        pytest.skip(reason)
    with running_browser(path) as started:
        yield started


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept: TUTORLIB_SHOTS, or `.pytest_cache/shots` in the clone."""
    folder = Path(os.environ.get("TUTORLIB_SHOTS") or Path(__file__).parents[2] / ".pytest_cache" / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def running_lab(folder: Path) -> Iterator[str]:
    """The address that `tutorlib lab` prints for a working copy in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tutorlib", "lab", str(folder), "--port", str(port), "--no-browser"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    said: list[str] = []
    address, ready = None, False
    for line in process.stdout:  # ends when the process does, so a lab that dies is seen at once
        said.append(line)
        ready = ready or "JupyterLab is ready" in line
        address = next(iter(re.findall(r"http://\S+token=\w+", line)), None)
        if ready and address:
            break
    else:
        raise AssertionError("tutorlib lab ended before it was ready:\n" + "".join(said[-20:]))
    reader = threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True)  # an unread pipe would stop it
    reader.start()
    try:
        yield address
    finally:
        process.terminate()
        code = process.wait(30)
        reader.join(10)
        process.stdout.close()
    assert code == 0


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address that `tutorlib lab` prints, and the learner's working copy."""
    folder = tmp_path_factory.mktemp("lab") / "my lessons 课"
    with running_lab(folder) as address:
        yield address, folder
