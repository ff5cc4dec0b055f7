"""Several hosts do a job together: every process of a run calls the same functions, and the first one writes."""

from __future__ import annotations

import time

import jax

from alignpre_jax.foundation import Report, UserError, silent
from alignpre_jax.study import Job, Workspace, is_done, run_job

POLL_SECONDS = 2.0


def run_together(space: Workspace, job: Job, report: Report) -> None:
    """Does a job with all processes of the run (see `training.initialize`); all of them return when it is done.

    Training takes all processes. Data is prepared by the first one while the others wait. A checkpoint is scored by
    each of them on its own first device: this is a small part of the work, and all of them find the same.
    """
    first = jax.process_index() == 0
    if job.kind == "prepare" and not first:
        while not is_done(space, job):
            time.sleep(POLL_SECONDS)
        return
    run_job(space, job, report if first else silent)


def wait_for(space: Workspace, jobs: list[Job], minutes: float = 10) -> None:
    """Waits until jobs that other machines have finished are seen here: a mounted bucket shows files with some delay.

    Raises:
      UserError: a job is still not done after so many minutes.
    """
    deadline = time.monotonic() + 60 * minutes
    while missing := [job.name for job in jobs if not is_done(space, job)]:
        if time.monotonic() > deadline:
            raise UserError(
                f"{missing[0]} is not done", where=str(space.root), fix="run it first, or all of it: alignpre study"
            )
        time.sleep(POLL_SECONDS)
