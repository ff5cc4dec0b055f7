"""Targets in the cloud through tools that play back states, and the manifests they are told."""

import os
import shlex
import subprocess
import sys

import pytest
import tiny_study
import yaml
from fakes import MISSING, Fake, states

from alignpre_jax.foundation import UserError
from alignpre_jax.launch.cloud import Tool
from alignpre_jax.launch.clouds import GkeSlices, SkyPilot, Xpk, split_url
from alignpre_jax.launch.manifests import Container, jobset, skypilot, to_yaml

GOLDENS = tiny_study.ROOT / "gcp" / "examples"
COMMAND = ["alignpre", "job", "train/seed0/pretrain", "eval/seed0/pretrain", "--workdir=/mnt/alignpre/my study"]
IMAGE = "us-docker.pkg.dev/p/alignpre/alignpre:abc"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = Fake(tmp_path / "fake")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.mark.parametrize("name", ["jobset_v5litepod-16", "jobset_2x_v5p-32_spot", "skypilot_v6e-8_spot"])
def test_manifests_are_those_that_were_looked_at(name):
    """To change one deliberately: GOLDENS=write pytest, and read the difference."""
    container = Container(IMAGE, COMMAND, "my-bucket")
    made = {
        "jobset_v5litepod-16": lambda: jobset("run-1", "v5litepod-16", 1, container),
        "jobset_2x_v5p-32_spot": lambda: jobset("run-2", "v5p-32", 2, container, spot=True),
        "skypilot_v6e-8_spot": lambda: skypilot(
            "run-3", "v6e-8", COMMAND, "my-bucket", spot=True, mount="/mnt/alignpre"
        ),
    }[name]()
    path = GOLDENS / f"{name}.yaml"
    if os.environ.get("GOLDENS") == "write":
        path.write_text(to_yaml(made))
    assert yaml.safe_load(path.read_text()) == made
    assert path.read_text() == to_yaml(made)


def test_a_jobset_has_a_pod_for_every_host():
    made = jobset("x", "v5p-32", 2, Container(IMAGE, COMMAND, "b"))
    (slices,) = made["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    assert (slices["replicas"], job["parallelism"], job["completions"]) == (2, 4, 4)
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == COMMAND
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}


@pytest.fixture
def xpk(fake):
    place = GkeSlices("v5litepod-16", 2, "us-west4-a", "p")
    return Xpk("my-cluster", place, IMAGE, poll=60.0, sleep=lambda seconds: None)


TABLE = "Jobset Name   Status\\nrun-1         x"
NONE = "Jobset Name   Status"
DROPPED = "!ERROR: Connection reset by peer"


def test_xpk_submits_and_waits(fake, xpk):
    fake.answer(EVERYTHING=[NONE], SUCCESSFUL=[NONE, NONE, DROPPED, NONE, TABLE], FAILED=[NONE], RUNNING=[NONE, TABLE])
    said = []
    xpk.run("run-1", COMMAND, said.append)
    (call,) = fake.calls("xcreate")
    assert call == [
        *("xpk", "workload", "create", "--workload=run-1", "--tpu-type=v5litepod-16", "--num-slices=2"),
        f"--docker-image={IMAGE}",
        f"--command={shlex.join(COMMAND)}",
        "--max-restarts=20",
        "--cluster=my-cluster",
        "--zone=us-west4-a",
        "--project=p",
    ]
    assert said == [
        "submitted",
        "QUEUED",
        "RUNNING",
        "a call failed, tried again: ERROR: Connection reset by peer",
        "RUNNING",
    ]


def test_xpk_takes_over_a_workload_that_is_there_and_replaces_one_that_failed(fake, xpk):
    fake.answer(EVERYTHING=[TABLE], SUCCESSFUL=[TABLE], FAILED=[NONE])
    xpk.run("run-1", COMMAND, print)
    assert not fake.calls("xcreate")
    fake.answer(FAILED=[TABLE, TABLE, NONE])
    xpk.run("run-1", COMMAND, print)
    assert [call[2] for call in fake.calls() if call[2] != "list"] == ["delete", "create"]


def test_xpk_says_when_it_failed_or_may_not(fake, xpk):
    fake.answer(EVERYTHING=[NONE], SUCCESSFUL=[NONE], FAILED=[NONE, TABLE])
    with pytest.raises(UserError, match="has failed"):
        xpk.run("run-1", COMMAND, print)
    fake.answer(SUCCESSFUL=["!ERROR: PERMISSION_DENIED"], FAILED=[NONE])
    with pytest.raises(UserError, match="PERMISSION_DENIED"):
        xpk.run("run-1", COMMAND, print)


def test_skypilot_follows_a_managed_job(fake):
    row = "1   -   run-3   1x[TPU]   2 mins   1h   0   {}"
    rows = [row.format(state) for state in ("PENDING", "STARTING", "RUNNING", "RECOVERING", "RUNNING", "SUCCEEDED")]
    fake.answer(queue=["No jobs", *rows])
    said = []
    target = SkyPilot("v6e-8", "my-bucket", spot=True, poll=0.0, sleep=lambda seconds: None)
    target.run("run-3", COMMAND, said.append)
    assert said == ["submitted", "PENDING", "STARTING", "RUNNING", "RECOVERING", "RUNNING"]
    (call,) = fake.calls("launch")
    assert call[:6] == ["sky", "jobs", "launch", "--name=run-3", "--detach-run", "--yes"]
    assert (fake.folder / "task.yaml").read_text() == (GOLDENS / "skypilot_v6e-8_spot.yaml").read_text()
    fake.answer(queue=[row.format("RUNNING"), row.format("FAILED_SETUP")])
    with pytest.raises(UserError, match="FAILED_SETUP"):
        target.run("run-3", COMMAND, print)
    assert len(fake.calls("launch")) == 1


def test_folders_in_buckets():
    assert split_url("gs://my-bucket/a/b/") == ("my-bucket", "a/b")
    for wrong in ("my-bucket/a", "gs://my-bucket", "s3://b/c"):
        with pytest.raises(UserError, match="not a folder in a bucket"):
            split_url(wrong)


def launch(fake, *arguments):
    paths = os.pathsep.join([str(tiny_study.ROOT), str(tiny_study.ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "tools/launch.py", *arguments],
        cwd=tiny_study.ROOT,
        env=os.environ | fake.environment | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_launcher_on_tpu_vms(fake):
    """Every bundle of two seeds is booked once, in order, with its own script; then all is done, and shown as such."""
    small = "--config=configs/studies/small_world.py"
    flags = [small, "--config.seeds=(0,1)", "--workdir=gs://my-bucket/x", "--target=tpu_vm"]
    flags += ["--type=v5litepod-8", "--tier=spot", "--zone=z", "--project=p", f"--launched={fake.folder}/launched"]

    shown = launch(fake, *flags, "--dry_run")
    assert shown.returncode == 0, shown.stderr
    assert not fake.calls()
    assert shown.stdout.count("queued-resources create") == 13
    assert "# seed1/aligned after seed1/pretrain" in shown.stdout

    fake.answer(exit=["0"])
    done = launch(fake, *flags)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "prepare: done" in done.stdout
    copied = [call for call in fake.calls() if call[1:3] == ["storage", "cp"]]
    assert any(call[-1].startswith("gs://my-bucket/x/") and "packages/alignpre-" in call[-1] for call in copied)
    table = launch(fake, "status", *flags).stdout
    assert "13 done" in table

    fake.answer(exit=[MISSING], describe=states("SUSPENDED"))
    before = len(fake.calls("delete"))
    given_back = launch(fake, "delete", *flags)
    assert given_back.returncode == 0, given_back.stderr
    assert len(fake.calls("delete")) - before == 13

    fake.answer(config=['{"name": "other"}'])
    refused = launch(fake, *flags)
    assert refused.returncode == 2
    assert "made with another config" in refused.stderr


def test_tools_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no command 'sky'"):
        Tool("sky")("jobs", "queue")
