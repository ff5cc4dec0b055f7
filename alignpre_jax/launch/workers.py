"""A slot of the queue on this machine is a worker process, or several processes that make one run together."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from alignpre_jax.foundation import cores
from alignpre_jax.launch.queue import Messages

STOP_SECONDS = 60  # for a worker to save a checkpoint and leave


class Workers:
    """A slot whose processes do one task at a time, together where there are several (the "hosts" of one run).

    Args:
      index: the number of the slot, which names its logs.
      folders: for each task, (its study's folder, its job's name).
      logs: the folder of the logs.
      messages: the queue into which messages are put.
      threads: the number of threads of each process.
      processes: the number of processes.
      cache: the folder of compiled programs.
      locks: open lock files, which the processes hold too.
    """

    def __init__(
        self,
        index: int,
        folders: Mapping[str, tuple[str, str]],
        logs: Path,
        messages: Messages,
        *,
        threads: int,
        processes: int = 1,
        cache: Path,
        locks: tuple[IO[str], ...] = (),
    ):
        self._index, self._folders, self._logs, self._messages = index, folders, logs, messages
        self._threads, self._count, self._cache, self._locks = threads, processes, cache, locks
        self._processes: list[subprocess.Popen[str]] = []
        self._task, self._left = "", 0  # what is being done, and by how many processes still
        self._lock = threading.Lock()
        self._start_processes()

    def start(self, name: str) -> None:
        """Gives a task to the processes."""
        root, job = self._folders[name]
        with self._lock:
            self._task, self._left = name, self._count
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its death is reported by the thread that listens to it
                process.stdin.write(json.dumps({"task": name, "root": root, "job": job}) + "\n")
                process.stdin.flush()

    def recover(self) -> None:
        """Starts new processes in the place of those that died; where several make a run, all of them start anew."""
        if self._count > 1 or any(process.poll() is not None for process in self._processes):
            self.stop(grace=0)
            self._start_processes()

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """Closes the processes' input and waits until they have left; after `grace` seconds it kills them."""
        self.close()
        deadline = time.monotonic() + grace
        for process in self._processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []

    def close(self) -> None:
        """Closes the processes' input, upon which they save and leave."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _start_processes(self) -> None:
        several = {}
        if self._count > 1:
            with contextlib.closing(socket.socket()) as free:
                free.bind(("localhost", 0))
                port = free.getsockname()[1]
            several = {"ALIGNPRE_COORDINATOR": f"localhost:{port}", "ALIGNPRE_PROCESSES": str(self._count)}
        generation: list[subprocess.Popen[str]] = []
        for number in range(self._count):
            process = self._start(number, several | ({"ALIGNPRE_PROCESS": str(number)} if several else {}))
            generation.append(process)
        with self._lock:
            self._processes = generation
        for number, process in enumerate(generation):
            threading.Thread(target=self._listen, args=(process, self._log(number)), daemon=True).start()

    def _log(self, number: int) -> Path:
        return self._logs / (f"worker{self._index}.log" if self._count == 1 else f"worker{self._index}-{number}.log")

    def _start(self, number: int, several: Mapping[str, str]) -> subprocess.Popen[str]:
        # NPROC sets the size of XLA's thread pool. Without the malloc settings glibc gives every step's buffers back
        # to the system, and page faults then cost more than the arithmetic.
        keep, threads = str(1 << 33), str(self._threads)
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "NPROC": threads,
            "OMP_NUM_THREADS": threads,
            "MALLOC_TRIM_THRESHOLD_": keep,
            "MALLOC_MMAP_THRESHOLD_": keep,
            **several,
        }
        with open(self._log(number), "w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "alignpre_jax.launch.worker", os.fspath(self._cache)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                pass_fds=[lock.fileno() for lock in self._locks],
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the workers in order
            )

    def _listen(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._pass_on(process, json.loads(line))
        status = process.wait()
        tail = "\n    ".join(collections.deque(log.read_text(errors="replace").splitlines(), maxlen=15))
        self._pass_on(process, {"crashed": f"a worker died (status {status})\n{log}\n    {tail}"})

    def _pass_on(self, process: subprocess.Popen[str], message: dict[str, Any]) -> None:
        """Turns what one process says into what the slot says: "done" when all are, and only the first failure."""
        with self._lock:
            if process not in self._processes:
                return  # of a generation that was given up
            if "done" in message:
                self._left -= 1
                if self._left:
                    return
            if {"done", "user_error", "crashed"} & message.keys():
                if not self._task:
                    return
                self._task = ""
        self._messages.put((self, message))


def threads_for(processes: int) -> int:
    """The number of threads for each of a number of processes that share this machine's cores."""
    return max(cores() // processes, 1)
