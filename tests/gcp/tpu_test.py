"""gcp/tpu.sh against a gcloud that writes down what it is asked."""

import os
import shlex
import subprocess
import sys
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
        env = os.environ | {"PYTHON": sys.executable, "PATH": path, "CALLS": str(calls), "STATES": str(states)}
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


def test_runtimes_come_from_the_table_of_slices(tpu):
    from alignpre_jax.foundation import accelerators

    for each in list(accelerators().values())[::9]:
        done, calls = tpu("create", "ap", f"--type={each.type}", "--dry-run")
        assert calls == []
        if each.runtime == "-":
            assert done.returncode == 2
        else:
            assert f"--runtime-version={each.runtime}" in shlex.split(done.stdout)
    assert "v5litepod-256" in tpu("types")[0].stdout


def test_several_slices(tpu):
    _, calls = tpu("create", "ap", "--type=v6e-16", "--slices=2", "--reserved", "--account=me@p")
    assert {"--node-prefix=ap", "--node-count=2", "--reserved", "--service-account=me@p"} <= set(calls[0])
    _, calls = tpu("run", "ap", "--slices=2", "--", "hostname")
    assert [call[4] for call in calls] == ["ap-0", "ap-1"]


def test_a_connection_that_drops_is_made_again(tpu, tmp_path):
    drops = tmp_path / "bin" / "gcloud"
    drops.write_text(GCLOUD + '\n[[ $(wc -l < "$CALLS") -ge $DROPS ]] || exit 255\n[[ $* != *fails* ]] || exit 3\n')
    for count, tries, status in ((3, 5, 0), (3, 2, 2)):
        drops.write_text(drops.read_text().replace("$DROPS", str(count)))
        done, calls = tpu("run", "ap", "--poll=0", f"--tries={tries}", "--", "hostname")
        assert (done.returncode, len(calls)) == (status, min(count, tries)), done.stderr
    assert "dropped 2 times" in done.stderr
    done, calls = tpu("run", "ap", "--poll=0", "--", "fails")
    assert (done.returncode, len(calls)) == (3, 3)  # the command's own status, and no further try


def test_babysit_hands_over(tpu):
    flags = ["--type=v5litepod-16", "--slices=2", "--spot", "--folder=gs://my-bucket/x", "--zone=z", "--dry-run"]
    done, calls = tpu("babysit", "ap", *flags, "--", "alignpre", "train", "--workdir=/mnt/alignpre/my x")
    assert done.returncode == 0, done.stderr
    assert calls == []
    create = shlex.split(done.stdout.splitlines()[-1])
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "ap"]
    assert {"--node-count=2", "--spot", "--zone=z"} <= set(create)
    assert tpu("babysit", "ap", "--type=v6e-8", "--", "x")[0].returncode == 2
