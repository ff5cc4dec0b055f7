"""This module runs the processes that build rows: one per core, fed through pipes, replaced when they are killed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from alignpre_jax.foundation import UserError, cores
from alignpre_jax.rows.blocks import Recipe
from alignpre_jax.rows.shards import perform
from alignpre_jax.rows.tokenizer import Tokenizer

ATTEMPTS = 3  # attempts at one task, if its worker is killed each time
_SMALL = 4  # up to this number, blocks are done in this process, sooner than other processes would start

Reply = concurrent.futures.Future[dict[str, Any]]


class Crew:
    """A crew does tasks (`shards.perform`) in processes of its own, or in this process when there are few tasks.

    Processes are started afresh with `python -m`, not forked: the parent may have threads (JAX has), and its program
    need not be importable. They get the tokenizer, the recipe and the documents as bytes and answer in JSON. None of
    them outlives the parent for longer than one task.
    """

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, workers: int = 0, lock: int | None = None):
        """Prepares the crew; processes are started only when there is work for them.

        Args:
          recipe: the recipe of all tasks.
          tokenizer: the tokenizer of all tasks.
          workers: the number of processes; 1 is this process alone, whose tokenizer uses threads; 0 chooses one per
            core, or this process alone for a few blocks.
          lock: the descriptor of a file that the processes keep open, so that a lock on it outlives a killed parent
            until they are gone.
        """
        self.workers = workers or cores()
        self._recipe, self._tokenizer, self._lock_file = recipe, tokenizer, lock
        chooses = workers == 0 and self.workers > 1
        self._waiting: list[tuple[Reply, dict[str, Any], bytes]] | None = [] if chooses else None
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._own = threading.local()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_closed = True
            for process in self._processes:
                process.kill()
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()

    def submit(self, task: dict[str, Any], payload: bytes = b"") -> Reply:
        """Has a task done, now or later; the reply will hold its result or its error."""
        if self._waiting is not None and len(self._waiting) < _SMALL:
            self._waiting.append((Reply(), task, payload))
            return self._waiting[-1][0]
        if self.workers == 1:
            return _do(Reply(), perform, task, payload, self._recipe, self._tokenizer)
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(self.workers)
        waiting, self._waiting = self._waiting or [], None
        for reply, *work in waiting:
            self._threads.submit(_do, reply, self._ask, *work)
        return self._threads.submit(self._ask, task, payload)

    def flush(self) -> None:
        """Does in this process the blocks that are still waiting, because no further blocks will come."""
        if self._waiting is None:
            return
        waiting, self._waiting, self.workers = self._waiting, None, 1
        for reply, *work in waiting:
            _do(reply, perform, *work, self._recipe, self._tokenizer)

    def _ask(self, task: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Has the task done by this thread's process, or by a new process if that one dies."""
        for _ in range(ATTEMPTS):
            process = self._process()
            assert process.stdin
            assert process.stdout
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(task | {"bytes": len(payload)}).encode() + b"\n" + payload)
                process.stdin.flush()
            line = process.stdout.readline()
            if line.endswith(b"\n"):
                return _understand(json.loads(line))
            self._own.process = None
            with self._lock:
                if self._is_closed:
                    raise concurrent.futures.CancelledError
                self._processes.discard(process)
            process.kill()
            process.communicate()
        raise UserError(
            f"the process at work on it died {ATTEMPTS} times, the last time by {_cause(process.returncode)}",
            where=task["to"],
            fix="if memory is short, give fewer workers; what is finished is kept, and the same command goes on",
        )

    def _process(self) -> subprocess.Popen[bytes]:
        process = getattr(self._own, "process", None)
        if process is None:
            with self._lock:
                if self._is_closed:
                    raise concurrent.futures.CancelledError
                process = self._own.process = _start(self._lock_file)
                self._processes.add(process)
            hello = {"recipe": dataclasses.asdict(self._recipe), "eot": self._tokenizer.eot}
            data = self._tokenizer.data
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(hello | {"bytes": len(data)}).encode() + b"\n" + data)
        return process


def _start(lock: int | None) -> subprocess.Popen[bytes]:
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    # Each process is one core's, so the tokenizer in it has one thread.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, "-m", "alignpre_jax.rows.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        pass_fds=() if lock is None else (lock,),
        process_group=0,  # Ctrl-C then reaches only the parent, which ends its processes
    )


def _do(reply: Reply, function: Any, *arguments: Any) -> Reply:
    try:
        reply.set_result(function(*arguments))
    except Exception as error:
        reply.set_exception(error)
    return reply


def _understand(answer: dict[str, Any]) -> dict[str, Any]:
    if "mistake" in answer:
        what, where, fix = answer["mistake"]
        raise UserError(what, where=where, fix=fix)
    if "failure" in answer:
        raise RuntimeError(f"a worker failed:\n{answer['failure']}")
    return answer


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
