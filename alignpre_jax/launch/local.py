"""Runs a study's jobs on this machine: in this process, or in one process per CPU core.

A tiny model cannot keep two cores busy, two runs can: on CPU-only machines every worker gets
its share of the cores, the same whatever is left to do, and takes one job after another. A
machine with an accelerator runs the jobs one by one in this process, each on all devices.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from alignpre_jax.foundation import Event, Report, UserError, accelerator_present, cores, disk_errors
from alignpre_jax.study import Job, Workspace, is_done, run_job
from alignpre_jax.study import jobs as all_jobs

STOP_SECONDS = 60  # for a worker to save a checkpoint and leave


def run(space: Workspace, jobs: Mapping[str, Job], report: Report, workers: int = 0) -> None:
    """Runs the jobs that are not done, each after those it needs.

    Args:
      space: the study's folder.
      jobs: in an order in which every job follows its needs.
      report: is told of progress.
      workers: processes; 0 chooses: none with an accelerator, else one per core and at most one per job.
    """
    # XLA's sums depend in their last bits on how many threads make them: a study that goes on with one job left must
    # not give it other threads than it would have had beside the others.
    threads = max(cores() // (workers or min(cores(), len(all_jobs(space.config)))), 1)
    with lock(space, report) as lock_file:
        todo = {name: job for name, job in jobs.items() if not is_done(space, job)}
        if not todo:
            report(Event(space.config.name, note="nothing left to do: all of it is done"))
        # What everything waits for needs no process of its own.
        for name in [name for name, job in todo.items() if job.kind in ("import", "prepare")]:
            run_job(space, todo.pop(name), report)
        if not todo:
            return
        if workers == 0:
            workers = 0 if accelerator_present() else min(cores(), len(todo))
        if workers == 0:
            for job in todo.values():
                run_job(space, job, report)
        else:
            _Pool(space, todo, report, workers, threads, lock_file).run()


@contextlib.contextmanager
def lock(space: Workspace, report: Report) -> Iterator[IO[str]]:
    """Keeps other processes out of the folder; waits for those that are just leaving it.

    The lock is held by the workers too, so it outlives a parent that was killed until they have gone.
    """
    path = Path(space.root) / ".lock"
    with disk_errors(path), open(path, "w") as file:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"another process is at work in {space.root}",
                        where="--workdir",
                        fix="wait for it, stop it, or give another --workdir",
                    ) from None
                report(Event("waiting for another process to leave the folder"))
                time.sleep(1)
        yield file


@dataclasses.dataclass
class _Worker:
    process: subprocess.Popen[str]
    job: Job | None = None


class _Pool:
    """Hands jobs to worker processes, those with the longest chain of followers first."""

    def __init__(
        self,
        space: Workspace,
        jobs: Mapping[str, Job],
        report: Report,
        workers: int,
        threads: int,
        lock_file: IO[str],
    ):
        self._space, self._report = space, report
        self._todo = dict(jobs)
        self._waiting_for = {name: {need for need in job.needs if need in jobs} for name, job in jobs.items()}
        self._height = _heights(jobs)
        self._messages: queue.Queue[tuple[_Worker, dict[str, Any]]] = queue.Queue()
        self._logs = Path(space.root) / "logs"
        with disk_errors(self._logs):
            self._logs.mkdir(exist_ok=True)
        self._workers = [self._start(index, threads, lock_file) for index in range(workers)]

    def run(self) -> None:
        try:
            while self._todo or any(worker.job for worker in self._workers):
                for worker in self._workers:
                    if worker.job is None and (job := self._next()):
                        self._give(worker, job)
                self._handle(*self._messages.get())
        finally:
            self._stop()

    def _next(self) -> Job | None:
        ready = [name for name in self._todo if not self._waiting_for[name]]
        return self._todo.pop(max(ready, key=self._height.__getitem__)) if ready else None

    def _give(self, worker: _Worker, job: Job) -> None:
        worker.job = job
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its death is reported by the reader thread
            worker.process.stdin.write(job.name + "\n")
            worker.process.stdin.flush()

    def _handle(self, worker: _Worker, message: dict[str, Any]) -> None:
        match message:
            case {"event": event}:
                self._report(Event(**event))
            case {"done": name}:
                worker.job = None
                for waiting in self._waiting_for.values():
                    waiting.discard(name)
            case {"user_error": error}:
                raise UserError(**error)
            case {"died": status}:
                if worker.job is None and not self._todo:
                    return
                log = self._logs / f"worker{self._workers.index(worker)}.log"
                tail = "\n    ".join(collections.deque(log.read_text(errors="replace").splitlines(), maxlen=15))
                name = worker.job.name if worker.job else "no job"
                raise UserError(
                    f"a worker died (status {status}) while running {name}:\n    {tail}",
                    where=str(log),
                    fix="finished work is kept: mend the cause and run the same command again",
                )

    def _start(self, index: int, threads: int, lock_file: IO[str]) -> _Worker:
        # NPROC sizes XLA's thread pool. Without the malloc settings glibc gives every step's buffers back to
        # the system, and page faults then cost more than the arithmetic.
        keep = str(1 << 33)
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "NPROC": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "MALLOC_TRIM_THRESHOLD_": keep,
            "MALLOC_MMAP_THRESHOLD_": keep,
        }
        with open(self._logs / f"worker{index}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "alignpre_jax.launch.worker", os.fspath(self._space.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                pass_fds=[lock_file.fileno()],
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the workers in order
            )
        worker = _Worker(process)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self._messages.put((worker, json.loads(line)))
        self._messages.put((worker, {"died": worker.process.wait()}))

    def _stop(self) -> None:
        """Closes the workers' input, at which they save and leave."""
        for worker in self._workers:
            assert worker.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def _heights(jobs: Mapping[str, Job]) -> dict[str, int]:
    """For each job the length of the longest chain of jobs that wait for it."""
    heights = dict.fromkeys(jobs, 0)
    for name in reversed(list(jobs)):
        for need in jobs[name].needs:
            if need in heights:
                heights[need] = max(heights[need], heights[name] + 1)
    return heights
