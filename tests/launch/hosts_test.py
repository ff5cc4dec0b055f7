"""The same command on two hosts, which here are two processes that share a folder and read rows from a bucket."""

import contextlib
import json
import socket
import subprocess
import sys

import fake_gcs
import pytest
import tiny_study

pytestmark = pytest.mark.slow


def test_the_same_eval_on_two_hosts(tmp_path):
    tiny_study.write_corpus(tmp_path / "corpus")
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    config = f"--config={tiny_study.ROOT}/tests/launch/sweep_study.py"
    flags = [config, f"--workdir={tmp_path / 'study'}", "--arm=aligned", "--seed=0"]
    flags.append("--config.data.rows_url=gs://bucket/rows")
    several = {"ALIGNPRE_COORDINATOR": f"localhost:{port}", "ALIGNPRE_PROCESSES": "2"}
    with fake_gcs.serve() as bucket:
        environment = tiny_study.environment() | several | {"SWEEP_CORPUS": str(tmp_path / "corpus")}
        environment["PYTHONPATH"] += f":{tiny_study.ROOT}/tests"
        hosts = [
            subprocess.Popen(
                [sys.executable, "-m", "alignpre_jax.cli", "eval", *flags],
                cwd=tiny_study.ROOT,
                env=environment | {"ALIGNPRE_PROCESS": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        outputs = [host.communicate(timeout=400) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    run = tmp_path / "study" / "train" / "seed0" / "midtrain-aligned"
    (start,) = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert start["processes"] == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})  # each step written once
    read = [name for name, times in bucket.count("GET").items() if "/rows-" in name and times]
    assert read
    assert (tmp_path / "study" / "evals" / "seed0" / "midtrain-aligned" / "tax" / "results.jsonl").exists()
