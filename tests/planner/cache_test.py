"""Compiling in a process of its own: what it leaves behind, and how it ends. A stand-in takes the compiler's place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignpre_jax.foundation import UserError, write_json
from alignpre_jax.planner import cache, parse_topology
from alignpre_jax.planner.cache import Program, compiled
from alignpre_jax.planner.compile import TooLarge

TOPOLOGY = parse_topology("v5e:2x2")
PROGRAM = Program("alignpre_jax.planner.compile:train_step", {"mesh": "fsdp:-1"})


@pytest.fixture
def child(monkeypatch):
    """Puts a result in place of the compiler's process; gives the requests it got."""
    requests = []

    def put(result):
        def fake(request, folder):
            requests.append(request)
            write_json(folder / "request.json", request)
            write_json(folder / "result.json", result)

        monkeypatch.setattr(cache, "_compile", fake)
        monkeypatch.setattr(cache.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "1.0")
        return requests

    return put


def test_what_was_compiled_once_is_read(child, tmp_path, monkeypatch):
    requests = child({"too_large": {"needed": 2e10, "available": 1.5e10}})
    for _ in range(2):
        assert compiled(PROGRAM, TOPOLOGY, tmp_path) == TooLarge(2e10, 1.5e10)
    assert len(requests) == 1
    compiled(Program(PROGRAM.entry, {"mesh": "data:-1"}), TOPOLOGY, tmp_path)
    compiled(PROGRAM, parse_topology("v5e:2x2", 2), tmp_path)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_something=1")
    compiled(PROGRAM, TOPOLOGY, tmp_path)
    monkeypatch.setattr(cache, "_sources", lambda: "other code")
    compiled(PROGRAM, TOPOLOGY, tmp_path)
    assert len(requests) == 5


def test_a_mistake_is_told_and_not_kept(child, tmp_path):
    child({"mistake": {"what": "no mesh axis 'x'", "where": "loop.mesh", "fix": "known: fsdp"}})
    with pytest.raises(UserError, match="no mesh axis 'x'"):
        compiled(PROGRAM, TOPOLOGY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_breaks_down_is_told_and_leaves_nothing(child, tmp_path, monkeypatch):
    run = cache._compile
    child({})
    monkeypatch.setattr(cache, "_compile", run)
    with pytest.raises(UserError, match=r"(?s)ended with status 1.*No module named 'alignpre_jax.no_such"):
        compiled(Program("alignpre_jax.no_such:function", {}), TOPOLOGY, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_compiler_ends_with_what_started_it(signal_sent):
    waits = (
        "import sys, threading; from alignpre_jax.planner import child; "
        "threading.Thread(target=child._end_with_parent, daemon=True).start(); print('ready', flush=True); "
        "threading.Event().wait()"
    )
    parent = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {waits!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=os.environ) as process:
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        process.send_signal(signal_sent)
        process.wait(timeout=60)
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the compiler's process is still there")
