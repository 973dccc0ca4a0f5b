"""The door: `python3 -m tutorlib lab` works in a fresh clone with nothing but Python.

Where the command's needs are installed it goes straight to `tutorlib.cli`. Elsewhere it first makes a virtual
environment in the clone, says what that costs, and runs the same command again in there. This file uses the standard
library only and the syntax of Python 3.6, so that an old Python gets a sentence instead of a traceback.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["NotReady", "Setup", "main", "missing", "refusal"]

OLDEST, NEWEST = (3, 11), (3, 14)
ROOT = Path(__file__).resolve().parent.parent
STAMP = "tutorlib.json"  # inside the environment; says "begun" before the first step and "ready" after the last
AGAIN = "TUTORLIB_SET_UP"  # set for the second run, which must not set up once more


class NotReady(Exception):
    """This machine cannot run the command yet; the text names what was expected, what was found, and the way out."""


def main(argv=None):
    """Run one command of tutorlib, after setting up what it needs, and return its exit code.

    0: done; 1: something failed or differs; 2: bad input; 3: this machine is not ready.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    reason = refusal(sys.version_info[:3], argv)
    if reason:
        return _stop(reason)

    from tutorlib import cli  # not before the check: an old Python cannot read it

    def prepare(extras, torch_index):
        try:
            setup = Setup(ROOT, extras=extras or (), torch_index=torch_index)
            if setup.unneeded():
                return None
            if extras is None and (os.environ.get(AGAIN) or not setup.complete()):
                return None
            if os.environ.get(AGAIN):
                lacks = ", ".join(missing(extras) or ["tutorlib"])
                raise NotReady(f"{setup.venv} was set up and still lacks {lacks}; delete that folder and run the command again")
            setup.run()
            return _hand_over([str(setup.python), "-m", "tutorlib", *argv])
        except NotReady as reason:
            return _stop(str(reason))
        except KeyboardInterrupt:
            return _stop("interrupted; the same command goes on from here")

    return cli.main(argv, prepare)


def refusal(version, argv=(), machine=None, which=shutil.which):
    """Why this Python cannot run tutorlib, in one sentence with the way out; empty if it can.

    >>> print(refusal((3, 9, 2), ["lab"], which=lambda name: name if name == "python3.12" else None).split(" (")[0])
    Python 3.11 to 3.14 is needed, this is Python 3.9.2
    >>> refusal((3, 12, 1))
    ''
    """
    name = ".".join(map(str, version))
    command = " ".join(["-m tutorlib", *argv])
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        start = "py -" if os.name == "nt" else "python"
        others = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        found = next((other for other in others if which(other)), None)
        if found:
            way = f"{found} is installed: run  {found} {command}"
        else:
            way = f"install Python 3.13 (python.org has it, and so have package managers), then run  {start}3.13 {command}"
        return f"Python 3.11 to 3.14 is needed, this is Python {name} ({sys.executable}); {way}"
    system, processor = machine or (sys.platform, platform.machine())
    if sys.maxsize < 2**32:
        return f"a 64-bit Python is needed, because PyTorch is, and this one has 32 bits ({sys.executable}); install one with 64"
    if system == "darwin" and processor == "x86_64":
        return (
            "PyTorch 2.14 or newer is needed, which has no build for Macs with an Intel processor, "
            f"and this Python is one for Intel ({sys.executable}); "
            "on a Mac with an Apple processor install a Python for arm64, else use another machine"
        )
    return ""


def missing(extras=()):
    """The requirements of tutorlib that the running Python lacks; None where tutorlib itself is not installed."""
    from importlib import metadata  # not in Python 3.6

    try:
        lines = metadata.requires("tutorlib") or []
    except metadata.PackageNotFoundError:
        return None
    names = []
    for line in lines:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if extra is None or extra.group(1) in extras:
            names += re.findall(r"^[A-Za-z0-9._-]+", line)
    return [name for name in names if not _installed(name)]


def _installed(name):
    from importlib import metadata

    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


class Setup:
    """The virtual environment of a clone: is it complete, and if not, make or mend it.

    `call(command, folder)` runs one command there and returns its exit code (tests give another); `say(text)` prints a line.
    An environment that tutorlib made carries a stamp: a set-up that was interrupted left it at "begun", and is done
    again from the start (what was downloaded is kept by uv or pip); one made from other pins is brought up to date.
    """

    def __init__(self, root, extras=(), torch_index=None, venv=None, call=None, say=None, installers=None):
        self.root = Path(root)
        self.extras = tuple(extras)
        named = venv or os.environ.get("TUTORLIB_VENV")
        self.named = bool(named)
        self.venv = Path(named or self.root / ".venv").absolute()
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.call = call or _call
        self.say = say or _say
        self.installers = installers
        self.stamp = _read(self.venv / STAMP)
        self.torch_index = torch_index or self.stamp.get("torch_index")
        self.inside = os.path.realpath(sys.prefix) == os.path.realpath(str(self.venv))

    def inputs(self):
        """What the environment is made from, as one hash: the pins, the requirements, and where the clone lies."""
        digest = hashlib.sha256(str(self.root).encode())
        for name in ("pyproject.toml", ".ci/constraints.txt"):
            path = self.root / name
            if not path.is_file():
                raise NotReady(f"{path} is missing; run this in a complete clone of the repository")
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def complete(self):
        """Is the environment whole and made from the present pins, with all extras that are asked for?"""
        stamp = self.stamp
        return (
            stamp.get("state") == "ready"
            and stamp.get("inputs") == self.inputs()
            and set(self.extras) <= set(stamp.get("extras", []))
            and stamp.get("torch_index") == self.torch_index
            and self.python.exists()
        )

    def unneeded(self):
        """Can the running Python do the command as it is? Not if another environment was named for it."""
        if self.inside and self.stamp:
            return self.complete()
        if self.named and not self.inside:
            return False
        return missing(self.extras) == []

    def run(self):
        """Make, mend or update the environment, unless it is complete. Raises NotReady, with the way out."""
        with _alone(self.venv):
            self.stamp = _read(self.venv / STAMP)
            if self.complete():
                return
            free = not self.venv.exists() or (self.venv.is_dir() and not any(self.venv.iterdir()))
            ours = bool(self.stamp.get("ours", free))
            if not ours and not (self.venv / "pyvenv.cfg").is_file():
                raise NotReady(
                    f"{self.venv} exists and is no virtual environment; move it away, "
                    f"or set TUTORLIB_VENV to a folder that does not exist yet"
                )
            whole = self.python.exists() and self.stamp.get("state") == "ready"
            fresh = ours and not self.inside and not (whole and self.stamp.get("torch_index") == self.torch_index)
            if not fresh:
                self.extras = tuple(sorted({*self.extras, *self.stamp.get("extras", ())}))
            self._announce(fresh)
            if fresh:
                self._check_space()
            begun = time.monotonic()
            failed = []
            for installer in self.installers or _installers():
                failed = self._install(installer, ours, fresh)
                if not failed:
                    break
            if failed:
                raise NotReady(
                    f"the set-up did not finish: `{' '.join(failed)}` failed, and what it said stands above. "
                    f"If this machine is offline or cannot reach its package index, connect it and run the same command again: "
                    f"what was downloaded is kept. If packages come from a mirror here, pip and uv must be told its address "
                    f"(`pip config set global.index-url`, UV_DEFAULT_INDEX)"
                )
            self._write("ready", ours)
            seconds = round(time.monotonic() - begun)
            self.say(f"set up in {seconds // 60} min {seconds % 60} s; the next start takes seconds")

    def _announce(self, fresh):
        if not fresh:
            self.say(f"bringing {self.venv} up to date with this clone (it downloads only what changed)")
            return
        if self.stamp.get("state") == "begun":
            self.say(f"the set-up of {self.venv} was interrupted; it begins again, with what was already downloaded")
        self.say(f"setting up PyTorch, JupyterLab and what the lessons need, once, in {self.venv}")
        if self.torch_index:
            self.say(f"torch and torchvision come from {self.torch_index}; the size depends on that build")
        elif sys.platform == "linux":
            self.say(
                "this downloads about 3 GB, takes about 6 GB of disk and 1 to 6 minutes: PyTorch for Linux brings GPU libraries"
            )
            self.say("a CPU-only build is smaller: give --torch-index URL if you can reach an index that has it")
        else:
            self.say("this downloads a few hundred MB, takes about 2 GB of disk and 1 to 4 minutes")

    def _check_space(self):
        needed = 7 if sys.platform == "linux" and not self.torch_index else 3
        place = next(folder for folder in (self.venv, *self.venv.parents) if folder.is_dir())
        free = shutil.disk_usage(str(place)).free / 1e9
        if free < needed:
            raise NotReady(
                f"{place} has {free:.1f} GB free, and the set-up needs {needed} GB; free some space, "
                f"or set TUTORLIB_VENV to a folder on a larger disk"
            )

    def _install(self, installer, ours, fresh):
        """Do all steps with uv or pip; the command that failed, or an empty list."""
        steps = []
        try:
            self._write("begun", ours)  # first, and it stays until the end: whenever this is interrupted, the stamp tells
            if fresh:
                for old in self.venv.iterdir():
                    if old.is_dir() and not old.is_symlink():
                        shutil.rmtree(str(old), ignore_errors=True)
                    elif old.name != STAMP:
                        old.unlink()
        except OSError as error:
            raise NotReady(_unwritable(self.venv, error)) from None
        if fresh:
            if installer == "uv":
                make = ["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(self.venv)]
            else:
                make = [sys.executable, "-m", "venv", str(self.venv)]
            steps.append(("making the virtual environment", make))
        elif installer == "pip" and not any(self.venv.glob("[Ll]ib/**/site-packages/pip")):
            steps.append(("bringing pip", [str(self.python), "-m", "ensurepip"]))  # uv makes environments without it
        if installer == "uv":
            install = ["uv", "pip", "install", "--python", str(self.python)]
        else:
            install = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        install += ["--constraint", ".ci/constraints.txt"]  # the commands run in the clone
        if self.torch_index:
            # Both from one index, or torchvision's compiled operators do not fit torch; --no-deps, because such an
            # index need not carry the rest.
            both = [*install, "--no-deps", "--index-url", self.torch_index, "torch", "torchvision"]
            steps.append(("installing torch and torchvision", both))
        target = "." + (f"[{','.join(self.extras)}]" if self.extras else "")
        steps.append((f"installing everything with {installer}", [*install, "--editable", target]))
        for number, (text, command) in enumerate(steps, 1):
            self.say(f"step {number} of {len(steps)}: {text}")
            if self.call(command, self.root) != 0:
                if installer == "pip" and command[1:3] == ["-m", "venv"] and sys.platform == "linux":
                    self.say("this Python has no venv; on Debian and Ubuntu  sudo apt install python3-venv  brings it")
                return command
        return []

    def _write(self, state, ours):
        content = {
            "state": state,
            "ours": ours,
            "inputs": self.inputs(),
            "extras": list(self.extras),
            "torch_index": self.torch_index,
        }
        self.venv.mkdir(parents=True, exist_ok=True)
        temporary = self.venv / (STAMP + ".new")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self.venv / STAMP)


def _installers():
    """uv where it runs, because it is faster; pip always, also when uv fails."""
    try:
        works = subprocess.call(["uv", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        works = False
    return ["uv", "pip"] if works else ["pip"]


def _call(command, folder):
    """Run an installer; what it prints goes to stderr, since stdout belongs to the command that comes after."""
    settings = dict(os.environ, PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0")
    settings.pop("PYTHONHOME", None)
    try:
        return subprocess.call(command, cwd=str(folder), stdout=sys.stderr.fileno(), env=settings)
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        return 127


@contextlib.contextmanager
def _alone(venv):
    """Hold the set-up of one environment for this process; the system releases it however the process ends."""
    try:
        venv.parent.mkdir(parents=True, exist_ok=True)
        handle = venv.with_name(venv.name + ".lock").open("w")
    except OSError as error:
        raise NotReady(_unwritable(venv, error)) from None
    with handle:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotReady(f"another tutorlib is setting up {venv} right now; wait for it, then run the command again") from None
        yield


def _unwritable(venv, error):
    return f"{venv} cannot be made: {error.strerror}; set TUTORLIB_VENV to a folder that can be written"


def _read(stamp):
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hand_over(command):
    """Become the same command in the environment; on Windows, which cannot, wait for it."""
    os.environ[AGAIN] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the command got it too, and ends by itself


def _say(text):
    print(f"tutorlib: {text}", file=sys.stderr, flush=True)


def _stop(reason):
    _say(reason)
    return 3


if __name__ == "__main__":
    sys.exit(main())
