import json
import os
import signal
import subprocess
import sys
import time

import stub_run
import tiny_study
from stub_endpoint import KEY, prose, serving


def slowly(seconds):
    def answer(asked, count):
        made = prose(asked)
        made.wait = seconds
        return made

    return answer


def start(stub, folder):
    command = [sys.executable, stub_run.__file__, stub.url, str(folder)]
    path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command,
        preexec_fn=tiny_study.hear_ctrl_c,
        env=path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, child, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_killed_run_goes_on_without_paying_twice(tmp_path):
    cache = tmp_path / "completions.cache"
    with serving(slowly(0.05)) as stub:
        child = start(stub, tmp_path)
        wait_for(lambda: cache.exists() and cache.read_bytes().count(b"\n") > 6, child)
        child.kill()
        said, _ = child.communicate()
        time.sleep(0.2)  # the stub's last answers find nobody
        kept = [json.loads(line)["key"] for line in cache.read_bytes().split(b"\n")[1:-1]]
        asked = len(stub.bodies)
        assert 6 <= len(kept) <= asked <= len(kept) + 3  # what was under way is lost, and no more
        with open(cache, "ab") as file:
            file.write(b'{"key": "half a li')  # as a kill in the middle of a write leaves it
        report = stub_run.run(stub.url, tmp_path)
    assert report.documents == 12
    assert report.calls_now == len(stub.bodies) - asked == stub_run.CALLS - len(kept)
    keys = [json.loads(line)["key"] for line in cache.read_bytes().splitlines()[1:]]
    assert keys[: len(kept)] == kept
    assert len(set(keys)) == len(keys) == stub_run.CALLS
    assert KEY not in said
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_request_to_stop_takes_in_what_is_under_way(tmp_path):
    with serving(slowly(0.15)) as stub:
        child = start(stub, tmp_path)
        wait_for(lambda: len(stub.bodies) > 4, child)
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=60)
        assert "Interrupted" in said
        answered = sum(stub.answered.values())
        assert answered == (tmp_path / "completions.cache").read_bytes().count(b"\n") - 1 < stub_run.CALLS
        report = stub_run.run(stub.url, tmp_path)
    assert (report.documents, report.calls_now) == (12, stub_run.CALLS - answered)
    assert set(stub.answered.values()) == {1}
    assert len(stub.bodies) == stub_run.CALLS


def test_a_second_request_to_stop_does_not_wait(tmp_path):
    with serving(slowly(30)) as stub:
        child = start(stub, tmp_path)
        wait_for(lambda: len(stub.bodies) == 3, child)
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=10)
        assert "KeyboardInterrupt" in said
