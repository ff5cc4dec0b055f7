"""gcp/tpu.sh against a gcloud that writes down what it is asked."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "gcp" / "tpu.sh"
GCLOUD = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$CALLS"
printf '\\n' >> "$CALLS"
case "$*" in
  *describe*)
    head -n 1 "$STATES"
    sed -i 1d "$STATES"
    ;;
esac
"""


@pytest.fixture
def tpu(tmp_path):
    """Runs the script; returns the finished process and the calls of gcloud as lists of arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    calls, states = tmp_path / "calls", tmp_path / "states"

    def run(*arguments, answers=()):
        calls.write_text("")
        states.write_text("".join(f"{state}\n" for state in answers))
        path = f"{folder}:{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "CALLS": str(calls), "STATES": str(states)}
        done = subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
        return done, [shlex.split(line) for line in calls.read_text().splitlines()]

    return run


def test_create(tpu):
    done, calls = tpu("create", "ap", "--type=v5litepod-8", "--zone=us-west4-a", "--spot")
    assert done.returncode == 0, done.stderr
    expected = (
        "compute tpus queued-resources create ap --node-id=ap --accelerator-type=v5litepod-8 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot --zone=us-west4-a"
    )
    assert calls == [expected.split()]


def test_wait_polls_until_the_slice_is_there(tpu):
    states = ["WAITING_FOR_RESOURCES", "PROVISIONING", "PROVISIONING", "ACTIVE"]
    done, calls = tpu("wait", "ap", "--poll=0", answers=states)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 4
    assert done.stdout.split() == ["ap:", "WAITING_FOR_RESOURCES", "ap:", "PROVISIONING", "ap:", "ACTIVE"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_wait_gives_up_on_what_never_comes(tpu, state):
    done, calls = tpu("wait", "ap", "--poll=0", answers=["PROVISIONING", state, "ACTIVE"])
    assert done.returncode == 2
    assert len(calls) == 2
    assert state in done.stderr
    assert "create it again" in done.stderr


def test_wait_has_an_end(tpu):
    done, _ = tpu("wait", "ap", "--poll=1", "--timeout=1", answers=["PROVISIONING"] * 9)
    assert done.returncode == 2
    assert "after 1 s" in done.stderr


def test_run_passes_a_line_of_shell_as_it_is(tpu):
    line = "cd 'my folder' && alignpre train --workdir=gs://b/x --config.stages.a.mixture='web:1'"
    _, calls = tpu("run", "ap", "--project=p", "--", line)
    assert calls == [["compute", "tpus", "tpu-vm", "ssh", "ap", "--worker=all", f"--command={line}", "--project=p"]]


def test_run_keeps_the_words_of_a_command_apart(tpu):
    _, calls = tpu("run", "ap", "--", "echo", "two words", "$HOME", "it's")
    (command,) = [word.removeprefix("--command=") for word in calls[0] if word.startswith("--command=")]
    assert shlex.split(command) == ["echo", "two words", "$HOME", "it's"]


def test_copy_and_delete(tpu):
    _, calls = tpu("copy", "ap", "--", "a file.gz")
    assert calls == [["compute", "tpus", "tpu-vm", "scp", "a file.gz", "ap:", "--worker=all"]]
    _, calls = tpu("delete", "ap", "--zone=z")
    assert calls == [["compute", "tpus", "queued-resources", "delete", "ap", "--force", "--quiet", "--zone=z"]]


def test_dry_run_only_prints(tpu):
    done, calls = tpu("run", "ap", "--dry-run", "--", "echo", "two words")
    assert calls == []
    assert shlex.split(done.stdout)[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh"]
    for verb in (["create", "ap", "--type=v6e-8"], ["wait", "ap"], ["delete", "ap"]):
        done, calls = tpu(*verb, "--dry-run")
        assert (done.returncode, calls) == (0, [])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["burn", "ap"],
        ["create"],
        ["create", "ap"],
        ["create", "ap", "--type=v9-1"],
        ["run", "ap"],
        ["wait", "ap", "zone"],
    ],
)
def test_mistakes_call_nothing(tpu, arguments):
    done, calls = tpu(*arguments)
    assert done.returncode == 2
    assert calls == []
    assert done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck():
    subprocess.run(["shellcheck", SCRIPT], check=True)
