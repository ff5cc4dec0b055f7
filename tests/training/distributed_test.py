"""Several processes on one machine: the same run whatever their number; one that vanishes ends the others."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from alignpre_jax.foundation import UserError, read_json
from alignpre_jax.training import HOST_LOST, TIMES, first_says, initialize
from alignpre_jax.training.distributed import others_may_vanish

DRILL = Path(__file__).parents[2] / "tools" / "drill_faults.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows to train on, and the compiled programs."""
    folder = tmp_path_factory.mktemp("processes")
    sys.path.insert(0, str(DRILL.parents[1]))
    from tools.drill_faults import make_rows

    make_rows(folder)
    return folder


def start(folder, run, processes, *flags):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(DRILL.parents[1]), *sys.path])
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    command = [sys.executable, str(DRILL), "--child", f"--folder={folder}", f"--run={folder / run}", *flags]
    several = {"ALIGNPRE_COORDINATOR": f"localhost:{port}", "ALIGNPRE_PROCESSES": str(processes)}
    return [
        subprocess.Popen(
            command,
            env=env | (several | {"ALIGNPRE_PROCESS": str(number)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]


def finish(started):
    outputs = [process.communicate(timeout=300) for process in started]
    return [process.returncode for process in started], [errors for _, errors in outputs]


def lines_of(folder, run):
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def compare(found, wanted):
    """Loss curves within rounding (sums over devices come in another order), batches bit for bit."""
    assert [row["step"] for row in found] == [row["step"] for row in wanted]
    for exact in ("batch_fingerprint", "stratum_rows"):
        assert [row[exact] for row in found] == [row[exact] for row in wanted]
    np.testing.assert_allclose([row["loss"] for row in found], [row["loss"] for row in wanted], rtol=1e-5)


@pytest.mark.slow
def test_one_two_and_four_processes_and_a_checkpoint_from_four(folder):
    for count in (1, 2, 4):
        statuses, errors = finish(start(folder, f"run{count}", count, "--steps=20"))
        assert statuses == [0] * count, errors
    wanted = lines_of(folder, "run1")
    assert wanted[-1]["loss"] < wanted[0]["loss"] - 0.5
    for count in (2, 4):
        compare(lines_of(folder, f"run{count}"), wanted)
        assert len(read_json(folder / f"run{count}" / "done.json")["parameters"]) == 64

    stopped = start(folder, "from4", 4, "--steps=20", "--pause=0.05")
    for line in stopped[0].stdout:
        if line.startswith("step 6"):
            break
    stopped[2].send_signal(signal.SIGTERM)  # one is told, and all stop at the same step
    statuses, errors = finish(stopped)
    assert statuses == [75] * 4, errors
    for count in (2, 1):  # gone on with by two and by one
        run = f"from4to{count}"
        shutil.copytree(folder / "from4", folder / run)
        statuses, errors = finish(start(folder, run, count, "--steps=20"))
        assert statuses == [0] * count, errors
        compare(lines_of(folder, run), wanted)


@pytest.mark.slow
def test_adapters_in_one_and_two_processes(folder):
    for count in (1, 2):
        statuses, errors = finish(start(folder, f"lora{count}", count, "--steps=12", "--lora"))
        assert statuses == [0] * count, errors
    wanted = lines_of(folder, "lora1")
    compare(lines_of(folder, "lora2"), wanted)
    np.testing.assert_allclose(
        [row["loss"] for row in lines_of(folder, "lora2")], [row["loss"] for row in wanted], atol=1e-5, rtol=0
    )
    assert wanted[-1]["loss"] != wanted[0]["loss"]


@pytest.mark.slow
def test_a_process_that_vanishes_ends_the_other(folder):
    pair = start(folder, "vanish", 2, "--pause=0.05")
    for line in pair[0].stdout:
        if line.startswith("step 6"):
            break
    pair[1].kill()
    statuses, errors = finish(pair)
    assert statuses == [HOST_LOST, -signal.SIGKILL]
    assert "process 0 of 2: lost the connection to another process" in errors[0]


SAYS = """
import sys
from alignpre_jax.training import first_says, initialize
number, _ = initialize(sys.argv[1], 2, int(sys.argv[2]))
print([first_says(number == 0), first_says(number == 1)])
"""


@pytest.mark.slow
def test_what_the_first_process_says_goes():
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(DRILL.parents[1]), *sys.path])}
    command = [sys.executable, "-c", SAYS, address]
    pair = [
        subprocess.Popen([*command, str(n)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    shown = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], shown
    assert [out.split("\n")[-2] for out, _ in shown] == ["[True, False]"] * 2


def test_alone_the_only_process_is_the_first():
    assert [first_says(True), first_says(False)] == [True, False]


def test_one_process_joins_nothing(monkeypatch):
    for name in list(os.environ):
        if name.startswith("ALIGNPRE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert initialize() == (0, 1)
    with pytest.raises(UserError, match="do not make a run"):
        initialize("localhost:1234", processes=2)
    with pytest.raises(UserError, match="do not make a run"):
        initialize("localhost:1234", processes=2, process=2)


def test_alone_an_error_of_the_runtime_stays_one():
    with pytest.raises(jax.errors.JaxRuntimeError), others_may_vanish():
        raise jax.errors.JaxRuntimeError("INTERNAL: something")


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("FAILED_PRECONDITION: Buffer Definition Event: Gloo all-reduce failed: closed"),
        ValueError("UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error: Connection reset by peer"),
        TimeoutError("Timed out while waiting for async_write_complete barrier."),
    ],
)
def test_what_a_vanished_process_raises_in_the_others(error, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with others_may_vanish():
        raise error
    assert left == [HOST_LOST]
    assert "lost the connection" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a mistake"), jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes")])
def test_a_mistake_of_the_program_is_not_a_vanished_process(error, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(type(error)), others_may_vanish():
        raise error
