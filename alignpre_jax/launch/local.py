"""This module runs jobs on this machine: in this process, or in one process per CPU core.

A tiny model cannot keep two cores busy, but two runs can: on CPU-only machines every worker gets its share of the
cores, which does not depend on what is left to do, and takes one job after another. A machine with an accelerator runs
the jobs one by one in this process, each on all devices. Where this process is one of several that make a run together,
on the hosts of a TPU slice, all of them run the jobs one by one.
"""

from __future__ import annotations

import contextlib
import fcntl
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from alignpre_jax.foundation import Event, Report, UserError, accelerator_present, cores, disk_errors
from alignpre_jax.launch.experiment import Task
from alignpre_jax.launch.queue import Board, Messages, drain
from alignpre_jax.launch.together import run_together
from alignpre_jax.launch.workers import STOP_SECONDS, Workers, threads_for
from alignpre_jax.study import Job, Workspace, enable_compilation_cache, is_done, job_graph, run_job
from alignpre_jax.training import initialize


def run(space: Workspace, jobs: Mapping[str, Job], report: Report, workers: int = 0) -> None:
    """Runs a study's jobs that are not done, each after the jobs it needs.

    Args:
      space: the study's folder.
      jobs: the jobs, in an order in which every job follows its needs.
      report: is told of progress.
      workers: the number of worker processes; 0 chooses: none with an accelerator, else one per core and at most one
        per job.
    """
    process, processes = initialize()
    if processes > 1:
        with lock(space, report) if process == 0 else contextlib.nullcontext():
            for job in jobs.values():
                if not is_done(space, job):
                    run_together(space, job, report)
        return
    tasks = {name: Task(name, space, job, job.needs) for name, job in jobs.items()}
    with lock(space, report) as lock_file:
        run_tasks(tasks, Path(space.root), report, workers=workers, locks=(lock_file,))


def run_tasks(
    tasks: Mapping[str, Task],
    root: Path,
    report: Report,
    *,
    workers: int = 0,
    processes: int = 1,
    keep_going: bool = False,
    attempts: int = 1,
    changed: Callable[[Board], None] = lambda board: None,
    locks: tuple[IO[str], ...] = (),
) -> None:
    """Does the tasks that are not done.

    Args:
      tasks: the tasks, in an order in which every task follows its needs.
      root: the folder that gets logs/ and cache/.
      report: is told of progress.
      workers: how many tasks are done at a time; 0 chooses, see `run`.
      processes: how many processes make one task together, as on the hosts of a TPU slice.
      keep_going: see `drain`.
      attempts: see `drain`.
      changed: called when a task's state changes.
      locks: open lock files, which worker processes are to hold too.
    """
    board = Board({name: task.needs for name, task in tasks.items()}, changed)
    board.done(*(name for name, task in tasks.items() if is_done(task.space, task.job)))
    todo = {name: task for name, task in tasks.items() if board.entries[name].state != "done"}
    if not todo:
        report(Event(str(root), note="nothing left to do: all of it is done"))
        return
    enable_compilation_cache(root / "cache" / "xla")
    if workers == 0 and processes == 1 and accelerator_present():
        _run_here(board, todo, report, keep_going)
        return
    # Everything waits for these jobs, so they need no process of their own.
    if processes == 1 and len({id(task.space) for task in tasks.values()}) == 1:
        for name in [name for name, task in todo.items() if task.job.kind in ("import", "prepare")]:
            taken = board.take()
            assert taken == name
            run_job(todo[name].space, todo.pop(name).job, report)
            board.done(name)
    if not todo:
        return
    # XLA's sums depend in their last bits on the number of threads: a task that is left alone after a restart must get
    # as many threads as it would have had beside the others.
    every = sum(
        len(job_graph(space.tree)) for space in {id(task.space): task.space for task in tasks.values()}.values()
    )
    threads = threads_for((workers or min(max(cores() // processes, 1), every)) * processes)
    workers = min(workers or max(cores() // processes, 1), len(todo))
    messages: Messages = queue.Queue()
    logs = root / "logs"
    with disk_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
    folders = {name: (str(task.space.root), task.job.name) for name, task in todo.items()}
    with contextlib.ExitStack() as stack:
        slots = []
        for index in range(workers):
            slot = Workers(
                index,
                folders,
                logs,
                messages,
                threads=threads,
                processes=processes,
                cache=root / "cache" / "xla",
                locks=locks,
            )
            slots.append(slot)
        stack.callback(_stop_all, slots)
        drain(board, slots, messages, report, keep_going=keep_going, attempts=attempts)


@contextlib.contextmanager
def lock(space: Workspace, report: Report) -> Iterator[IO[str]]:
    """Keeps other processes out of a study's folder; see `lock_folder`."""
    with lock_folder(Path(space.root), report) as file:
        yield file


@contextlib.contextmanager
def lock_folder(root: Path, report: Report) -> Iterator[IO[str]]:
    """Keeps other processes out of the folder, after waiting for those that are just leaving it.

    The workers hold the lock too. So if their parent is killed, the lock stays until they have gone.
    """
    path = root / ".lock"
    with disk_errors(path), open(path, "w") as file:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"another process is at work in {root}",
                        where="--workdir",
                        fix="wait for it, stop it, or give another --workdir",
                    ) from None
                report(Event("waiting for another process to leave the folder"))
                time.sleep(1)
        yield file


def _run_here(board: Board, tasks: Mapping[str, Task], report: Report, keep_going: bool) -> None:
    """Does the tasks one after the other, in this process."""
    errors = []
    while (name := board.take()) is not None:
        try:
            run_job(tasks[name].space, tasks[name].job, report)
        except UserError as error:
            board.failed(name, error.what.splitlines()[0])
            errors.append(error)
            if not keep_going:
                break
        else:
            board.done(name)
    if errors:
        raise errors[0]


def _stop_all(slots: Sequence[Workers]) -> None:
    for slot in slots:
        slot.close()
    for slot in slots:
        slot.stop()
