"""alignpre doctor, completion and help."""

import json
import shutil
import subprocess

import pytest

from alignpre_jax import cli
from alignpre_jax.cli import doctor
from alignpre_jax.cli.main import STATUSES
from alignpre_jax.cli.shell import completion_script
from alignpre_jax.foundation import UserError


def test_the_help_documents_exit_statuses_and_more_examples(capsys):
    cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{status}  {meaning}" in shown for status, meaning in STATUSES.items())
    cli.main(["study", "--help"])
    shown = capsys.readouterr().out
    assert shown.count("alignpre study --config=") == 3
    assert "--workers= processes on a CPU machine" in shown


def test_the_doctor_finds_this_machine_well(tmp_path, capsys):
    assert cli.main(["doctor", f"--workdir={tmp_path / 'not' / 'made'}", f"--json={tmp_path / 'found.json'}"]) == 0
    found = {each["what"]: each for each in json.loads((tmp_path / "found.json").read_text())}
    assert found["devices"]["state"] == found["disk"]["state"] == found["jax"]["state"] == "ok"
    assert "cpu" in found["devices"]["found"]
    assert not (tmp_path / "not").exists()
    assert "all that is needed is there" in capsys.readouterr().out


@pytest.fixture
def without_devices(monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda: iter(()))


def gcloud(folder, monkeypatch, body):
    folder.mkdir()
    (folder / "gcloud").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_doctor_says_what_is_missing(tmp_path, capsys, monkeypatch, without_devices):
    monkeypatch.setattr(doctor, "FREE_GB", 1e9)
    gcloud(
        tmp_path / "bin", monkeypatch, 'case "$2" in get-value) ;; *) echo "ERROR: 403 Forbidden" >&2; exit 1 ;; esac'
    )
    assert cli.main(["doctor", f"--workdir={tmp_path}", "--bucket=gs://my-bucket"]) == 2
    captured = capsys.readouterr()
    assert "2 of" in captured.err
    assert "disk, bucket" in captured.err
    assert "cannot write in gs://my-bucket: ERROR: 403 Forbidden" in captured.out
    assert "gcloud auth login" in captured.out


def test_what_stands_in_brackets_is_shown(monkeypatch, capsys):
    found = [doctor.Finding("extras", "note", "no [launch] here", "pip install -e '.[launch]'")]
    monkeypatch.setattr(doctor, "examine", lambda *_: found)
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "no [launch] here" in shown
    assert "'.[launch]'" in shown


def test_a_bucket_is_written_read_and_cleaned(tmp_path, monkeypatch):
    gcloud(tmp_path / "bin", monkeypatch, f'echo "$@" >> {tmp_path}/calls')
    assert doctor._bucket(str(tmp_path / "bin" / "gcloud"), "b").state == "ok"
    did = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [words[1] for words in did] == ["cp", "cat", "rm"]
    assert len({words[-1] for words in did}) == 1


def test_devices_are_asked_for_in_another_process(monkeypatch):
    monkeypatch.setattr(doctor, "DEVICES", "raise SystemExit('the TPU is busy')")
    (found,) = doctor._devices()
    assert (found.state, "the TPU is busy" in found.found) == ("missing", True)


def complete(*words):
    script = completion_script("bash", cli.VERBS)
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; compopt() {{ :; }}; _alignpre; echo ${{COMPREPLY[@]}}"
    return subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_verbs_flags_and_files(tmp_path):
    assert complete("alignpre", "re") == ["report"]
    assert "--workdir=" in complete("alignpre", "study", "--w")
    assert complete("alignpre", "report", "--conf") == ["--config="]
    assert f"{tmp_path}" in complete("alignpre", "study", "--config", "=", str(tmp_path)[:-1])


def test_zsh_script_is_one():
    script = completion_script("zsh", cli.VERBS)
    assert script.startswith("#compdef alignpre\n")
    assert all(f"    '{name}:" in script for name in cli.VERBS)
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, text=True, check=True)


def test_shells_that_are_not_known():
    with pytest.raises(UserError, match="no completion for 'fish'"):
        completion_script("fish", cli.VERBS)
    with pytest.raises(UserError, match="which shell"):
        completion_script("", cli.VERBS)
