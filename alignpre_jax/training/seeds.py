"""Several seeds of one run in one program: small models leave a device idle, several of them at once do not.

Every seed keeps its own loop, as if it ran alone: its own batches, checkpoints, metrics and faults. The loops run in
threads, and where each would hand its step to the device, they meet: the last to come stacks the states and batches
and runs one program for all, `jax.vmap` of the step that a single run takes.
"""

from __future__ import annotations

import dataclasses
import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alignpre_jax.checkpoints import State, several_at_a_time
from alignpre_jax.foundation import Interrupted, Report, UserError, silent
from alignpre_jax.mixture import Batch
from alignpre_jax.model.mesh import parse_mesh
from alignpre_jax.training.faults import StopSignal
from alignpre_jax.training.loop import is_done, train
from alignpre_jax.training.run import Run
from alignpre_jax.training.step import TrainStep


def train_seeds(runs: Sequence[Run], report: Report = silent) -> None:
    """Trains runs that differ in seed, plan and folder alone; each ends as it would have alone, but for rounding.

    A run that is done is left out; one that was interrupted goes on from its own checkpoint. One that fails leaves,
    and the others go on to their end.

    Raises:
      UserError: the runs are not of one kind, or one of them failed.
      Interrupted: SIGTERM came; everything is saved.
    """
    runs = [run for run in runs if not is_done(run.run_dir)]
    if len(runs) <= 1:
        for run in runs:
            train(run, report)
        return
    check_alike(runs)
    together = Together(len(runs))
    errors: dict[int, BaseException] = {}

    def train_one(index: int) -> None:
        try:
            train(runs[index], report, together.member(index))
        except BaseException as error:  # raised below, in the main thread
            errors[index] = error
        finally:
            together.leave(index)

    threads = [threading.Thread(target=train_one, args=(index,), name=run.name) for index, run in enumerate(runs)][1:]
    with (
        several_at_a_time(),
        StopSignal(),
    ):  # the loop of the first run has one of its own, and may end before the others
        for thread in threads:
            thread.start()
        train_one(0)
        for thread in threads:
            thread.join()
    for error in sorted(errors.values(), key=lambda error: isinstance(error, Interrupted)):
        raise error


def check_alike(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot share a program."""
    first = runs[0]
    for run in runs[1:]:
        for name in ("step", "loop", "batch_rows"):
            if getattr(run, name) != getattr(first, name):
                raise UserError(
                    f"{first.name} and {run.name} differ in more than the seed ({name})",
                    where="vmap_seeds",
                    fix="set vmap_seeds=1",
                )
    devices = parse_mesh(first.loop.mesh).size
    if devices > 1 or jax.process_count() > 1:
        raise UserError(
            f"seeds share one device, and there are {devices}",
            where="vmap_seeds and training.mesh",
            fix="set vmap_seeds=1: several devices are kept busy by one run",
        )


class Together:
    """Where the loops meet: `size` members at first, each of which leaves when it has ended."""

    def __init__(self, size: int):
        self._size = size
        self._changed = threading.Condition()
        self._active = set(range(size))
        self._posted: dict[int, tuple[State, Batch]] = {}
        self._given: dict[int, Any] = {}
        self._program: Callable[..., Any] | None = None

    def member(self, index: int) -> Callable[[TrainStep], TrainStep]:
        """What a member's loop makes of its step."""

        def wrap(step: TrainStep) -> TrainStep:
            return dataclasses.replace(step, run=lambda state, batch: self._meet(index, step, state, batch))

        return wrap

    def leave(self, index: int) -> None:
        """This member has ended, well or not; the others do not wait for it."""
        with self._changed:
            self._active.discard(index)
            self._run_if_all_are_here()
            self._changed.notify_all()

    def _meet(self, index: int, step: TrainStep, state: State, batch: Batch) -> Any:
        with self._changed:
            self._program = self._program or _program(step)
            self._posted[index] = (state, batch)
            self._run_if_all_are_here()
            self._changed.wait_for(lambda: index in self._given)
            found = self._given.pop(index)
        if isinstance(found, BaseException):
            raise found
        return found

    def _run_if_all_are_here(self) -> None:
        if not self._posted or self._posted.keys() < self._active:
            return
        here = sorted(self._posted)
        # Copies of one member take the places of those that have left: the program stays the same.
        places = here + [here[0]] * (self._size - len(here))
        states = [self._posted[index][0] for index in here]
        with jax.transfer_guard("allow"):
            states += [jax.tree.map(jnp.copy, states[0]) for _ in places[len(here) :]]
        batches = [self._posted[index][1] for index in places]
        assert self._program is not None
        try:
            found: Sequence[Any] = self._program(tuple(states), tuple(batches))
        except Exception as error:  # every member hears of it
            found = [error] * self._size
        self._given.update(zip(here, found, strict=False))
        self._posted.clear()
        self._changed.notify_all()


def _program(step: TrainStep) -> Callable[..., Any]:
    """(states, batches) -> (state, metrics) of each, compiled as one."""

    def run(states: tuple[State, ...], batches: tuple[Batch, ...]) -> list[Any]:
        stacked = jax.vmap(step.run)(_stack(states), _stack(batches))
        return [jax.tree.map(operator.itemgetter(index), stacked) for index in range(len(states))]

    return jax.jit(run, donate_argnums=0)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
