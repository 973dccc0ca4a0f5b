"""New processes know nothing of the one that starts them, and what a program has chosen stays chosen."""

import multiprocessing
import subprocess
import sys
import textwrap

import pytest

from tutorlib import processes, ranks

HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()


def said(source):
    """What a program prints, in words."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not HAS_SERVER, reason="this system has no forkserver")
def test_modules_are_imported_once_and_the_choice_of_the_program_stays():
    asks = """
        import multiprocessing.forkserver, os
        from tutorlib import processes
        os.mark = "set by the program"
        CHOSEN
        with processes.fresh("colorsys").Pool(1) as pool:
            print("sees" if pool.apply(eval, ("hasattr(__import__('os'), 'mark')",)) else "new")
            print(pool.apply(eval, ("'colorsys' in __import__('sys').modules",)))
    """
    assert said(asks.replace("CHOSEN", "")) == ["new", "True"]
    assert said(asks.replace("CHOSEN", "multiprocessing.set_forkserver_preload(['csv'])")) == ["new", "False"]


def test_where_there_is_no_fork_server_processes_are_spawned(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert processes.fresh("torch").get_start_method() == "spawn"


def environment_of(name):
    import os

    return os.environ.get(name)


def test_a_rank_has_the_environment_of_the_moment_and_not_of_the_server(monkeypatch):
    assert ranks.run(environment_of, "TUTORLIB_TEST", world=1) == [None]
    monkeypatch.setenv("TUTORLIB_TEST", "7")
    assert ranks.run(environment_of, "TUTORLIB_TEST", world=1) == ["7"]
    monkeypatch.delenv("TUTORLIB_TEST")
    assert ranks.run(environment_of, "TUTORLIB_TEST", world=1) == [None]
