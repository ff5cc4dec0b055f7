"""This module runs an experiment as one of XManager's, on TPUs that XManager's own executors do not know.

`QueuedTpu` is an executor like XManager's own: `experiment.add(xm.Job(executable, QueuedTpu(target=...)))`. It is
registered when it is made, and hands every job to a `clouds.Target`, which books slices and watches over them.
"""

from __future__ import annotations

import asyncio
import functools
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attr
from xmanager import xm, xm_local
from xmanager.xm import job_operators, utils
from xmanager.xm_local import handles, registry, status

from alignpre_jax.foundation import UserError
from alignpre_jax.launch.clouds import Target
from alignpre_jax.launch.experiment import Experiment, bundles
from alignpre_jax.launch.remote import command_of


@attr.s(auto_attribs=True)
class QueuedTpuSpec(xm.ExecutorSpec):
    """The specification of `QueuedTpu`: commands run as they are, in the checkout that was packaged."""


@attr.s(auto_attribs=True)
class QueuedTpu(xm.Executor):
    """Runs a job's command on TPU slices that a target books and gives back.

    Attributes:
      target: books slices and runs commands on them.
      after: the futures of the jobs that have to be done before.
      threads: the pool from which each running job takes a thread; None for asyncio's own.
    """

    target: Target
    after: tuple[asyncio.Future[Any], ...] = ()
    threads: ThreadPoolExecutor | None = None

    Spec = QueuedTpuSpec

    def __attrs_post_init__(self) -> None:
        registry.register(QueuedTpu, launch=_launch)

    @classmethod
    async def launch(cls, local_experiment_unit: Any, job_group: xm.JobGroup) -> Sequence[Any]:
        """XManager calls this with all jobs of a unit."""
        return await registry.get_launch_method(cls)(local_experiment_unit, job_group)


@attr.s(auto_attribs=True)
class Command(xm.Executable):
    """A command of the packaged checkout. Its name is the job's name, which stays the same from launch to launch."""

    name: str
    words: Sequence[str] = ()


class _Handle(handles.LocalExecutionHandle):
    """The handle of a job that a thread sees through; XManager waits for it and asks for its status."""

    def __init__(self, task: asyncio.Task[None]):
        self._task = task

    async def wait(self) -> None:
        await asyncio.wait([self._task])
        if error := self._task.exception():
            raise RuntimeError(str(error)) from error  # what XManager takes for a unit that has failed

    async def monitor(self) -> None:
        await asyncio.wait([self._task])

    def get_status(self) -> status.LocalWorkUnitStatus:
        states = status.LocalWorkUnitStatusEnum
        if not self._task.done():
            return status.LocalWorkUnitStatus(states.RUNNING)
        error = self._task.exception()
        return status.LocalWorkUnitStatus(states.FAILED if error else states.COMPLETED, str(error or ""))

    def terminate(self) -> None:
        """Stops watching, as XManager is leaving. The machines stay at work; the same launch finds them by name."""
        self._task.cancel()


async def _launch(unit: Any, job_group: xm.JobGroup) -> list[_Handle]:
    found = []
    for job in job_operators.collect_jobs_by_filter(job_group, lambda job: isinstance(job.executor, QueuedTpu)):
        if not isinstance(job.executable, Command):
            raise TypeError(f"QueuedTpu runs a Command, not {job.executable!r}")
        arguments = [shlex.split(each)[0] for each in job.args.to_list(utils.ARGV_ESCAPER)]
        words = [*job.executable.words, *arguments]
        found.append(_Handle(asyncio.ensure_future(_see_through(job.executor, job.executable.name, words))))
    # A unit of XManager 0.8 waits only for the handles of its own three executors, so these are added to them.
    unit._local_execution_handles.extend(found)
    return found


async def _see_through(executor: QueuedTpu, name: str, words: Sequence[str]) -> None:
    for needed in executor.after:
        await needed
    say = functools.partial(print, f"{name}:", flush=True)
    await asyncio.get_running_loop().run_in_executor(executor.threads, executor.target.run, name, words, say)


def run_xmanager(experiment: Experiment, url: str, target: Target, parallel: int = 8) -> None:
    """Adds a work unit for each bundle; units wait for the units they need, and at most `parallel` run at a time.

    Raises:
      UserError: some bundles failed.
    """
    failed: list[str] = []

    async def settle(label: str, unit: Any, done: asyncio.Future[None]) -> None:
        try:
            await (await unit).wait_until_complete()
        except xm.ExperimentUnitError as error:
            failed.append(f"{label}: {error}")
            done.set_exception(RuntimeError(f"{label} has failed"))
            done.exception()  # marks it as read, so that asyncio does not complain where nobody waits for it
        else:
            done.set_result(None)

    async def whole() -> None:
        made = bundles(experiment)
        done = {name: asyncio.get_running_loop().create_future() for name in made}
        with ThreadPoolExecutor(parallel) as threads:
            async with xm_local.create_experiment(experiment_title=experiment.name) as xm_experiment:
                waits = []
                for name, bundle in made.items():
                    executor = QueuedTpu(target, tuple(done[need] for need in bundle.needs), threads)
                    job = xm.Job(Command(name, command_of(experiment, bundle, url)), executor, name=name)
                    waits.append(settle(bundle.label, xm_experiment.add(job), done[name]))
                await asyncio.gather(*waits)

    try:
        asyncio.run(whole())
    except RuntimeError:  # at its end XManager waits once more for every unit, those that failed too
        if not failed:
            raise
    if failed:
        fix = "mend the cause and launch again: finished work is kept"
        raise UserError(f"{len(failed)} jobs failed, the first: {failed[0]}", where="xmanager", fix=fix)
