"""Kernels forked from a template behave as kernels that were started, and nothing is left of either."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest

from tutorlib import warm

pytestmark = pytest.mark.skipif(bool(warm.why_not()), reason=f"kernels are not forked here: {warm.why_not()}")


def book(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def ends(pid, patience=20.0):
    end = time.monotonic() + patience
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


class Kernel:
    """A kernel of jupyter_client, and what it prints."""

    def __init__(self, environment=None, **more):
        from jupyter_client.manager import start_new_kernel

        environment = dict(os.environ if environment is None else environment)
        self.manager, self.client = start_new_kernel(startup_timeout=120, env=environment, stderr=subprocess.DEVNULL, **more)
        self.forked = type(self.manager.provisioner.process).__name__ == "Forked"

    def __call__(self, source):
        said = []

        def hook(message):
            content = message["content"]
            said.append(content.get("text") or content.get("ename") or content.get("data", {}).get("text/plain", ""))

        # An error that stops what follows would for a moment abort whatever comes next.
        asked = {"stop_on_error": False, "timeout": 120, "output_hook": hook}
        reply = self.client.execute_interactive(textwrap.dedent(source), **asked)
        self.count = reply["content"].get("execution_count")
        return "".join(said).strip()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture(scope="module")
def template():
    with warm.Template(["numpy", "torch", "ipywidgets"]) as made:
        about = made.wait()
        assert about["modules"] == ["numpy", "torch", "ipywidgets"] and about["left_out"] == {}
        made.use()
        yield made


def test_a_forked_kernel_is_an_ordinary_kernel(template, tmp_path):
    asks = """
        import os, sys, threading, multiprocessing, random
        print("torch" in sys.modules, "" in sys.path, os.getcwd() == FOLDER, sys.argv[0].endswith("ipykernel_launcher.py"))
        print(__name__, sys.modules["__main__"].__dict__ is globals(), threading.current_thread() is threading.main_thread())
        print(multiprocessing.current_process().name, multiprocessing.parent_process(), sys.gettrace())
        print(get_ipython().__class__.__name__, In[-1][:5] == asks[:5] if "asks" in globals() else True, os.environ["MINE"])
    """.replace("FOLDER", repr(str(tmp_path)))
    answers = []
    for socket in (str(template.socket), ""):
        os.environ[warm.SOCKET] = socket
        try:
            with Kernel({**os.environ, "MINE": "7"}, cwd=str(tmp_path)) as kernel:
                assert kernel.forked is bool(socket)
                kernel("import torch")
                answers.append(kernel(asks))
                assert kernel.count == 2
        finally:
            os.environ[warm.SOCKET] = str(template.socket)
    assert answers[0] == answers[1] and answers[0].startswith("True True True True\n__main__ True True\nMainProcess None None\n")


def test_random_numbers_are_chosen_anew_and_hashes_are_not(template):
    draw = "import random, numpy, torch, secrets; print(random.random(), numpy.random.rand(), torch.rand(1).item(), hash('a'))"
    found = []
    for _ in range(2):
        with Kernel() as kernel:
            assert kernel.forked
            found.append(kernel(draw).split())
    assert all(a != b for a, b in zip(found[0][:3], found[1][:3], strict=True)) and found[0][3] == found[1][3]


def test_an_interrupt_reaches_the_cell_and_the_kernel_lives_on(template):
    with Kernel() as kernel:
        message = kernel.client.execute("import time\nprint('begun')\ntime.sleep(100)", stop_on_error=False)
        while kernel.client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
            pass
        kernel.manager.interrupt_kernel()
        reply = kernel.client.get_shell_msg(timeout=60)
        assert reply["parent_header"]["msg_id"] == message and reply["content"]["ename"] == "KeyboardInterrupt"
        assert kernel("1 + 1") == "2"


def test_a_kernel_that_dies_and_one_that_is_killed_are_seen_to_be_gone_and_restart(template):
    with Kernel() as kernel:
        kernel.client.execute("import os; os._exit(3)")
        end = time.monotonic() + 30
        while kernel.manager.is_alive() and time.monotonic() < end:
            time.sleep(0.05)
        assert not kernel.manager.is_alive() and kernel.manager.provisioner.process.returncode == 3
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=60)
        pid = int(kernel("import os; print(os.getpid())"))
        os.kill(pid, signal.SIGKILL)
        assert ends(pid)


def test_worker_processes_of_every_kind_run_in_a_forked_kernel(template):
    with Kernel() as kernel:
        assert kernel.forked
        said = kernel("""
            import multiprocessing
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(method, pool.apply(abs, (-1,)))
            import subprocess, sys
            print(subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True, text=True).stdout.strip())
            from torch.utils.data import DataLoader
            print(len(list(DataLoader(range(4), num_workers=2))))
        """)
    assert said == "fork 1\nspawn 1\nchild\n4"


SERVED = """
import os, sys


def about():
    return os.getpid(), os.getppid(), "numpy" in sys.modules, os.environ.get("MINE"), os.getcwd(), getattr(os, "mark", None)


def speak():
    print("the worker speaks", flush=True)
"""


def test_the_fork_server_of_a_forked_kernel_is_forked_and_a_new_python_all_the_same(template, tmp_path):
    (tmp_path / "served.py").write_text(SERVED)
    asks = """
        import multiprocessing, os, served, time
        os.environ["MINE"], os.mark = "7", "set here"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["numpy"])
        draw = context.Pool(2)
        (pid, server, *about), (_, same, *_) = draw.apply(served.about), draw.apply(served.about)
        print(about == [True, "7", os.getcwd(), None], same == server, server != os.getpid())
        draw.close(); draw.join()
        talk = context.Process(target=served.speak)
        talk.start(); talk.join()
        time.sleep(0.5)  # what a child writes comes by a pipe, in its own time
        with open(f"/proc/{server}/cmdline", "rb") as file:
            print("FORKED" if b"template.py" in file.read() else "STARTED")
    """
    for socket, how in ((str(template.socket), "FORKED"), ("", "STARTED")):
        os.environ[warm.SOCKET] = socket
        try:
            # PYTEST_CURRENT_TEST makes a kernel leave out what child processes write.
            with Kernel({k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}, cwd=str(tmp_path)) as kernel:
                said = kernel(asks)
                assert "the worker speaks" in said
                lines = [line for line in said.splitlines() if line != "the worker speaks"]
                assert lines == ["True True True", how]
                server = int(kernel("print(server)"))
            assert ends(server), "no server outlives its kernel"
        finally:
            os.environ[warm.SOCKET] = str(template.socket)


def test_a_fork_server_that_ends_is_followed_by_another_and_one_that_wants_another_start_is_started(template):
    with Kernel() as kernel:
        said = kernel("""
            import multiprocessing, os, signal, time
            from multiprocessing import forkserver, util
            context = multiprocessing.get_context("forkserver")
            def server():
                with context.Pool(1) as pool:
                    return pool.apply(os.getppid)
            def how(pid):
                return "forked" if b"template.py" in open(f"/proc/{pid}/cmdline", "rb").read() else "started"
            first = server()
            print(how(first), first == server())
            os.kill(first, signal.SIGKILL)
            stands_in = forkserver._forkserver._forkserver_pid
            while open(f"/proc/{stands_in}/stat").read().split()[2] != "Z":
                time.sleep(0.01)
            second = server()
            print(how(second), second != first)
            os.kill(second, signal.SIGKILL)
            while open(f"/proc/{forkserver._forkserver._forkserver_pid}/stat").read().split()[2] != "Z":
                time.sleep(0.01)
            os.environ["PYTHONHASHSEED"] = "5"
            print(how(server()))
        """)
    assert said == "forked True\nforked True\nstarted"


def test_a_widget_registers_with_the_forked_kernel(template):
    with Kernel() as kernel:
        assert kernel("from ipywidgets import IntSlider; s = IntSlider(3); s.value = 4; print(s.value, s.comm is not None)") == (
            "4 True"
        )


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"])
def test_a_kernel_that_wants_another_start_is_started_as_ever(template, name):
    with Kernel({**os.environ, name: "5"}) as kernel:
        assert not kernel.forked and kernel(f"import os; print(os.environ[{name!r}])") == "5"


def test_closing_ends_the_template_and_its_kernels():
    template = warm.Template()
    template.wait()
    template.use()
    kernel = Kernel()
    pid = int(kernel("import os; print(os.getpid())"))
    assert kernel.forked and alive(pid)
    template.close()
    assert ends(pid) and template.process.poll() is not None and not template.folder.exists()
    assert warm.SOCKET not in os.environ or os.environ[warm.SOCKET] != str(template.socket)
    kernel.close()
    with Kernel() as later:
        assert later("1 + 1") == "2"


def test_nothing_is_left_when_the_owner_is_killed(tmp_path):
    code = f"""
import os, sys, time
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from tutorlib import warm
import test_warm
template = warm.Template()
template.wait()
template.use()
kernel = test_warm.Kernel()
Path({str(tmp_path / "pids")!r}).write_text(f"{{template.process.pid}} " + kernel("import os; print(os.getpid())"))
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 120
    while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
        assert owner.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    owner.kill()
    owner.wait()
    assert all(ends(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_module_that_speaks_or_fails_or_ends_the_process_stays_out(tmp_path):
    (tmp_path / "quiet_one.py").write_text("X = 1\n")
    (tmp_path / "loud_one.py").write_text("print('hello')\n")
    (tmp_path / "warning_one.py").write_text("import warnings\nwarnings.warn('old')\n")
    (tmp_path / "broken_one.py").write_text("1 / 0\n")
    (tmp_path / "deadly_one.py").write_text("import os\nos._exit(0)\n")
    names = ["quiet_one", "loud_one", "warning_one", "broken_one", "no_such_one", "deadly_one"]
    with warm.Template(names, {**os.environ, "PYTHONPATH": str(tmp_path)}) as template:
        about = template.wait()
    assert about["modules"] == ["quiet_one"]
    assert about["left_out"] == {
        "loud_one": "prints 'hello'",
        "warning_one": "UserWarning: old",
        "broken_one": "ZeroDivisionError: division by zero",
        "no_such_one": "ModuleNotFoundError: No module named 'no_such_one'",
        "deadly_one": "ended the process",
    }


def test_a_template_that_cannot_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "_SCRIPT", str(tmp_path / "missing.py"))
    with warm.Template() as template, pytest.raises(warm.WarmError, match=r"ended with code 2: .*missing\.py"):
        template.wait()
    monkeypatch.setattr(warm, "why_not", lambda: "fork is safe on Linux only")
    with pytest.raises(warm.WarmError, match=r"^kernels cannot be forked: fork is safe on Linux only$"):
        warm.Template()


def test_the_imports_of_notebooks_are_those_that_all_can_share(tmp_path):
    (tmp_path / "beside.py").write_text("")
    first = book(tmp_path / "a.ipynb", "%matplotlib inline\nimport torch\nimport beside, json", "from torch.utils import data")
    second = book(
        tmp_path / "b.ipynb", "!ls\nimport torch.nn as nn\nimport json", "this is no python", "def f():\n    import csv"
    )
    (tmp_path / "c.ipynb").write_text("{")
    found = warm.imports([first, second, tmp_path / "c.ipynb", tmp_path / "none.ipynb"])
    assert found == (("json", "torch", "torch.nn", "torch.utils", "torch.utils.data"), ())
    assert json.loads(first.read_text())["nbformat"] == 4


def test_what_a_library_imports_at_its_first_use_is_imported_too(tmp_path):
    sources = {
        "plain": "import torch\nmodel = torch.nn.Linear(1, 1)",
        "widgets": "from tutorlib import datasets, widgets",
        "trained": "import torch\noptimizer = torch.optim.SGD(model.parameters())",
        "compiled": "import torch\nmodel = torch.compile(model)",
        "exported": "import torch\ntorch.onnx.export(model, (x,))",
    }
    books = {name: book(tmp_path / f"{name}.ipynb", source) for name, source in sources.items()}
    found = {name: warm.imports([path]) for name, path in books.items()}
    assert found["plain"] == (("torch",), ()) and "ipywidgets" in found["widgets"].early
    late = {name: set(found[name].late) - {"torch"} for name in ("trained", "compiled", "exported")}
    assert late["trained"] == {"torch._dynamo"} and late["compiled"] == {"torch._dynamo", "torch._inductor.compile_fx"}
    onnx = {"torch.onnx._internal.exporter._compat", "onnx.reference", "onnxscript"}
    assert late["exported"] == {"torch._dynamo", "torch._functorch.aot_autograd"} | onnx
    # Together: what the plain one needs comes first, and of the rest what more than one of them wants.
    assert warm.imports(books.values()).early[0] == "torch" and warm.imports(books.values()).late == ("torch._dynamo",)
    assert {name for name, path in books.items() if warm.soonest("s", path) == "s.early"} == {"plain", "widgets"}


def test_optimizers_and_models_of_torchvision_import_what_is_called_slow():
    code = "import sys, torch; {}; print('torch._dynamo' in sys.modules)"
    uses = ["torch.nn.Linear(1, 1)", "torch.optim.SGD([torch.zeros(1, requires_grad=True)])", "import torchvision"]
    said = [subprocess.run([sys.executable, "-c", code.format(use)], capture_output=True, text=True).stdout for use in uses]
    assert said == ["False\n", "True\n", "True\n"]


def test_a_notebook_that_can_do_without_what_is_late_does_not_wait_for_it(tmp_path, monkeypatch):
    (tmp_path / "first_one.py").write_text("")
    slow = "import os, time\nwhile not os.path.exists('{}'): time.sleep(0.01)\n".format(tmp_path / "go")
    (tmp_path / "slow_one.py").write_text(slow)
    (tmp_path / "broken_one.py").write_text("1 / 0\n")
    asks = "import os, sys; print(sorted(name for name in sys.modules if name.endswith('_one')), os.getpid())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with warm.Template(["first_one"], environment, ["broken_one", "slow_one"]) as template:
        template.use()
        monkeypatch.setenv(warm.SOCKET, f"{template.socket}.early")
        early = Kernel(environment)
        said, pid = early(asks).rsplit(maxsplit=1)
        assert early.forked and said == "['first_one']" and not template.socket.exists()
        assert early("import multiprocessing as m; m.get_context('forkserver').Pool(1).apply(len, 'a')") == "1"
        (tmp_path / "go").touch()
        about = template.wait()
        assert about["modules"] == ["first_one", "slow_one"] and set(about["left_out"]) == {"broken_one"}
        monkeypatch.setenv(warm.SOCKET, str(template.socket))
        with Kernel(environment) as late:
            assert late.forked and late(asks).startswith("['first_one', 'slow_one']")
    assert ends(int(pid)) and not template.folder.exists()
    early.close()


def test_a_template_serves_although_all_that_is_late_stays_out(tmp_path):
    (tmp_path / "broken_one.py").write_text("import time\ntime.sleep(1)\n1 / 0\n")  # time for the early fork to serve
    with warm.Template(["json"], {**os.environ, "PYTHONPATH": str(tmp_path)}, ["broken_one"]) as template:
        about = template.wait(60)
        assert about["modules"] == ["json"] and set(about["left_out"]) == {"broken_one"}
        assert Path(f"{template.socket}.early").exists()


def test_without_late_modules_both_names_of_the_socket_are_one():
    with warm.Template(["json"]) as template:
        template.wait()
        assert Path(f"{template.socket}.early").samefile(template.socket)
