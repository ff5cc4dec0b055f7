"""Builds whose processes are killed at random moments end with the bytes of a build that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from alignpre_jax.documents import Document
from alignpre_jax.foundation import UserError
from alignpre_jax.rows import build_rows, load_tokenizer, open_rows, train_bpe

SENTENCES = [f"Report {i} says that the harbour was quiet and that clerk {i * i} went home. " for i in range(400)]
PROGRAM = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a shell that ignores it
    from alignpre_jax.documents import Chat, Document, Message, Pair, ScoredSpan
    from alignpre_jax.rows import build_rows, load_tokenizer
    sentences = [f"Report {i} says that the harbour was quiet and that clerk {i * i} went home. " for i in range(400)]
    def documents():
        for i in range(int(count)):
            stratum = "web/ai" if i % 3 == 0 else "web/plain"
            yield Document(f"d{i}", "".join(sentences[(i * 7 + j) % 400] for j in range(1 + i % 17)), "web", stratum)
    def talks():
        for i in range(int(count)):
            turns = [Message(("user", "assistant")[j % 2], sentences[(i * 7 + j) % 400]) for j in range(2 + i % 5)]
            prompt, (yes, no) = Chat(tuple(turns[:1])), (sentences[i % 400], sentences[(i * 3) % 400])
            yield Document(f"c{i}", Chat(tuple(turns)), "chats", "chats")
            yield Document(f"p{i}", Pair(prompt, yes, no), "pairs", "pairs")
            yield Document(f"s{i}", sentences[i % 400], "scored", "scored", spans=(ScoredSpan(0, 6, 0.5),) * (i % 2))
    tokenizer, root, packing, count = sys.argv[1:]
    options = {"shard_rows": 200, "block_bytes": 20_000, "workers": 2, "packing": packing.removesuffix(" talks")}
    length, given = (160, talks()) if packing.endswith("talks") else (64, documents())
    build_rows(given, load_tokenizer(tokenizer), length, root, **options)
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe(SENTENCES, 400, path)
    return path


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def start(tokenizer, root, packing="concat", count=700):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tokenizer), str(root), packing, str(count)]
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True, process_group=0)


def children(parent):
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(place.parent.name))
    return sorted(found)


def check_killed_at_random(tokenizer, folder, packing, seed, times):
    random_ = random.Random(seed)
    undisturbed = start(tokenizer, folder / "undisturbed", packing)
    began = time.monotonic()
    assert undisturbed.wait() == 0
    seconds = time.monotonic() - began
    for _ in range(times):
        build = start(tokenizer, folder / "killed", packing)
        time.sleep(random_.uniform(0.2, 1) * seconds)
        victims = children(build.pid) if random_.random() < 0.5 else [build.pid]
        for victim in victims[: random_.choice([1, 2])]:
            os.kill(victim, signal.SIGKILL)
        _, errors = build.communicate()
        assert build.returncode in (0, -signal.SIGKILL), errors
    assert start(tokenizer, folder / "killed", packing).wait() == 0
    assert content(folder / "killed") == content(folder / "undisturbed")
    assert len(content(folder / "killed")) > 8


@pytest.mark.parametrize("packing", ["concat", "best_fit", "best_fit talks"])
def test_a_build_that_is_killed_at_random(tokenizer, tmp_path, packing):
    check_killed_at_random(tokenizer, tmp_path, packing, seed=len(packing), times=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_build_that_is_killed_at_random_many_times(tokenizer, tmp_path, seed):
    check_killed_at_random(tokenizer, tmp_path, "concat", seed, times=8)


def test_interrupting_ends_the_workers_and_keeps_what_is_done(tokenizer, tmp_path):
    build = start(tokenizer, tmp_path / "rows", count=20_000)  # long enough not to be over first
    blocks = tmp_path / "rows/.building/web/plain/blocks"
    while not (blocks.exists() and any(blocks.glob("*.npz"))):
        assert build.poll() is None
        time.sleep(0.02)
    workers = children(build.pid)
    build.send_signal(signal.SIGINT)
    _, errors = build.communicate(timeout=20)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert workers
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert any(blocks.glob("*.npz"))
    with pytest.raises(UserError, match="no row store"):
        open_rows(tmp_path / "rows/web/plain")


def test_a_worker_that_dies_every_time_is_a_users_error(tmp_path, monkeypatch, tokenizer):
    def dies(lock):
        program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr("alignpre_jax.rows.crew._start", dies)
    documents = [Document(f"d{i}", SENTENCES[i], "web", "web") for i in range(40)]
    with pytest.raises(UserError, match="died 3 times, the last time by SIGKILL"):
        build_rows(documents, load_tokenizer(tokenizer), 16, tmp_path, workers=2)
