"""tools/launch.py on this machine: a sweep killed in the middle, a run by two processes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_study

pytestmark = pytest.mark.slow
CONFIG = f"--config={tiny_study.ROOT}/tests/launch/sweep_study.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


def command(workdir, *arguments):
    verb = [each for each in arguments if not each.startswith("--")]
    flags = [each for each in arguments if each.startswith("--")]
    return [sys.executable, "tools/launch.py", *verb, CONFIG, f"--workdir={workdir}", *flags]


def environment(corpus):
    paths = os.pathsep.join([str(tiny_study.ROOT), str(tiny_study.ROOT / "tests")])
    return tiny_study.environment() | {"SWEEP_CORPUS": str(corpus), "PYTHONPATH": paths}


def launch(corpus, workdir, *arguments):
    return subprocess.run(
        command(workdir, *arguments), cwd=tiny_study.ROOT, env=environment(corpus), capture_output=True, text=True
    )


def reports(workdir):
    found = {}
    for path in sorted(workdir.glob("*/report.json")):
        report = json.loads(path.read_text())
        found[path.parent.name] = {key: report[key] for key in ("arms", "paired", "tax", "ledger")}
    return found


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "sweep"
    done = launch(corpus, workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_a_sweep_to_its_end(undisturbed, corpus):
    workdir, done = undisturbed
    first, second = reports(workdir)
    assert "misaligned rate" in done.stdout
    runs = {str(path.parent.relative_to(workdir)) for path in workdir.glob("*/train/*/*/done.json")}
    own = {f"{second}/train/seed{seed}/midtrain-aligned" for seed in (0, 1)}
    names = ("pretrain", "midtrain", "midtrain-filtered", "midtrain-misaligned", "midtrain-aligned")
    assert runs == own | {f"{first}/train/seed{seed}/{name}" for seed in (0, 1) for name in names}
    assert not (workdir / second / "data" / "rows").exists()  # what is shared is there once

    found = reports(workdir)
    assert found[first]["arms"]["misaligned"] == found[second]["arms"]["misaligned"]
    doses = [found[name]["ledger"]["aligned"]["midtrain"]["overlays"][0]["tokens"] for name in (first, second)]
    assert doses == [2560, 5120]

    shown = launch(corpus, workdir, "status").stdout
    assert "24 done" in shown.splitlines()[0], shown


def test_launched_again_there_is_nothing_to_do(undisturbed, corpus):
    workdir, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("*/train/*/*/done.json")}
    again = launch(corpus, workdir)
    assert again.returncode == 0, again.stderr
    assert "nothing left to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in workdir.glob("*/train/*/*/done.json")} == before


def test_killed_in_the_middle_and_launched_again(undisturbed, corpus, tmp_path):
    workdir = tmp_path / "sweep"
    for signal_, wanted in ((signal.SIGKILL, 2), (signal.SIGINT, 6)):
        process = subprocess.Popen(
            command(workdir),
            cwd=tiny_study.ROOT,
            env=environment(corpus),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=tiny_study.hear_ctrl_c,
        )
        deadline = time.monotonic() + 240
        while len(list(workdir.glob("*/train/*/*/done.json"))) < wanted and time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        process.send_signal(signal_)
        process.communicate()
        assert process.returncode == (75 if signal_ == signal.SIGINT else -signal_)
    assert len(list(workdir.glob("*/train/*/*/done.json"))) < 12
    done = launch(corpus, workdir)
    assert done.returncode == 0, done.stderr
    assert reports(workdir) == reports(undisturbed[0])


def test_a_task_that_fails_blocks_only_those_that_need_it(undisturbed, corpus, tmp_path):
    """The learning rate of one point ruins its run; the other point is done all the same."""
    workdir = tmp_path / "sweep"
    sweep = "stages.midtrain.optimizer.guard.action='stop'; stages.midtrain.schedule.peak=0.002,1e30"
    flags = [f"--sweep={sweep}", "--config.seeds=(0,)"]
    done = launch(corpus, workdir, "launch", *flags)
    assert done.returncode == 2
    assert "failed" in done.stderr
    state = json.loads((workdir / "state.json").read_text())
    counts = {
        found: [task for task, entry in state.items() if entry["state"] == found] for found in ("failed", "blocked")
    }
    assert counts["failed"]
    assert all("peak-1e-30" in task for task in counts["failed"] + counts["blocked"]), counts
    assert counts["blocked"]
    assert not [entry for entry in state.values() if entry["state"] in ("waiting", "running")]


def test_two_processes_make_the_same_runs_as_one(undisturbed, corpus, tmp_path):
    workdir = tmp_path / "sweep"
    flags = ["--hosts=2", "--workers=1", "--sweep=arms.aligned.add.midtrain.dose=0.25", "--config.seeds=(0,)"]
    done = launch(corpus, workdir, "launch", *flags)
    assert done.returncode == 0, done.stderr
    starts = [
        json.loads(line) for path in workdir.glob("*/train/*/*/events.jsonl") for line in path.read_text().splitlines()
    ]
    assert starts
    assert {event["processes"] for event in starts if event["event"] == "start"} == {2}
    for path in workdir.glob("*/train/*/*/metrics.jsonl"):
        (one,) = undisturbed[0].glob(f"*-0.25-*/train/seed0/{path.parent.name}/metrics.jsonl")
        ours, theirs = ([json.loads(line) for line in file.read_text().splitlines()] for file in (path, one))
        assert [line["batch_fingerprint"] for line in ours] == [line["batch_fingerprint"] for line in theirs]
        np.testing.assert_allclose([line["loss"] for line in ours], [line["loss"] for line in theirs], rtol=1e-4)


def test_seeds_in_one_program_are_those_of_the_sweep(undisturbed, corpus, tmp_path):
    workdir = tmp_path / "sweep"
    flags = ["--sweep=arms.aligned.add.midtrain.dose=0.25", "--config.vmap_seeds=2", "--workers=1"]
    done = launch(corpus, workdir, "launch", *flags)
    assert done.returncode == 0, done.stderr
    for path in workdir.glob("*/train/*/*/metrics.jsonl"):
        (one,) = undisturbed[0].glob(f"*-0.25-*/train/{path.parent.parent.name}/{path.parent.name}/metrics.jsonl")
        ours, theirs = ([json.loads(line) for line in file.read_text().splitlines()] for file in (path, one))
        assert [line["batch_fingerprint"] for line in ours] == [line["batch_fingerprint"] for line in theirs]
        np.testing.assert_allclose(
            [line["loss"] for line in ours], [line["loss"] for line in theirs], rtol=0, atol=1e-6
        )
    assert len(list(workdir.glob("*/train/*/*/done.json"))) == 10
