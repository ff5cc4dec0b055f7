"""This module trains several seeds of one run in one program: one small model leaves a device idle, several do not.

Every seed keeps its own loop, as if it ran alone: its own batches, checkpoints, metrics and faults. The loops run in
threads, and where each would hand its step to the device, they meet: the last to come stacks the states and batches
and runs one program for all, `jax.vmap` of the step that a single run takes.
"""

from __future__ import annotations

import dataclasses
import operator
import threading
from collections.abc import Callable, Iterable, Sequence
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
from alignpre_jax.training.step import Fixed, TrainStep


def train_seeds(runs: Sequence[Run], report: Report = silent, places: int = 0) -> None:
    """Trains runs that differ only in seed, plan and folder; each ends as it would have by itself, but for rounding.

    A run that is done is left out; a run that was interrupted goes on from its own checkpoint. A run that fails leaves,
    and the others go on to their end. Every run has a place of its own in the program, which always has the places of
    all `runs`: so the bits of a run depend neither on which of the others were done before, nor on when they left.

    Args:
      runs: in the order of their places.
      report: is told of the progress of all.
      places: the program has at least this many, so that runs that are added to the group later change no bit.

    Raises:
      UserError: the runs cannot share a program, or one of them failed.
      Interrupted: SIGTERM came; everything is saved.
    """
    open_places = [place for place, run in enumerate(runs) if not is_done(run.run_dir)]
    if not open_places:
        return
    size = max(places, len(runs))
    if size == 1:
        train(runs[0], report)
        return
    check_alike(runs)
    together = Together(size, open_places)
    errors: dict[int, BaseException] = {}

    def train_one(place: int) -> None:
        try:
            train(runs[place], report, together.member(place))
        except BaseException as error:  # raised below, in the main thread
            errors[place] = error
        finally:
            together.leave(place)

    first, *others = open_places
    threads = [threading.Thread(target=train_one, args=(place,), name=runs[place].name) for place in others]
    with (
        several_at_a_time(),
        StopSignal(),
    ):  # the loop of the first run has its own `StopSignal`, but may end before the others
        for thread in threads:
            thread.start()
        train_one(first)
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
            where="vmap_seeds and loop.mesh",
            fix="set vmap_seeds=1: several devices are kept busy by one run",
        )


class Together:
    """`Together` is where the loops meet: a program of `size` places, of which `members` are taken.

    Each member leaves when it has ended.
    """

    def __init__(self, size: int, members: Iterable[int]):
        self._size = size
        self._changed = threading.Condition()
        self._active = set(members)
        self._posted: dict[int, tuple[State, Fixed, Batch]] = {}
        self._fixed: Fixed | None = None  # what is fixed of every place, stacked once
        self._given: dict[int, Any] = {}
        self._program: Callable[..., Any] | None = None

    def member(self, index: int) -> Callable[[TrainStep], TrainStep]:
        """Returns the function by which a member's loop replaces its step with one that meets the other members."""

        def wrap(step: TrainStep) -> TrainStep:
            return dataclasses.replace(step, run=lambda *arguments: self._meet(index, step, *arguments))

        return wrap

    def leave(self, index: int) -> None:
        """Records that a member has ended, well or not, so that the others do not wait for it."""
        with self._changed:
            self._active.discard(index)
            self._run_if_all_are_here()
            self._changed.notify_all()

    def _meet(self, index: int, step: TrainStep, state: State, fixed: Fixed, batch: Batch) -> Any:
        with self._changed:
            self._program = self._program or _program(step)
            self._posted[index] = (state, fixed, batch)
            self._run_if_all_are_here()
            self._changed.wait_for(lambda: index in self._given)
            found = self._given.pop(index)
        if isinstance(found, BaseException):
            raise found
        return found

    def _run_if_all_are_here(self) -> None:
        if not self._posted or self._posted.keys() < self._active:
            return
        # Every member stays at its own place, and copies of one fill the places of those that have left or were done
        # before: the program, and what it makes of a member, stay the same.
        filler = min(self._posted)
        places = [place if place in self._posted else filler for place in range(self._size)]
        with jax.transfer_guard("allow"):
            states = [
                self._posted[member][0] if member == place else jax.tree.map(jnp.copy, self._posted[member][0])
                for place, member in enumerate(places)
            ]
            if self._fixed is None:  # a member that leaves later takes nothing away that another one reads
                self._fixed = jax.jit(_stack)([self._posted[member][1] for member in places])
        batches = [self._posted[member][2] for member in places]
        assert self._program is not None
        try:
            found: Sequence[Any] = self._program(tuple(states), self._fixed, tuple(batches))
        except Exception as error:  # every member hears of it
            found = [error] * self._size
        self._given.update({place: found[place] for place in self._posted})
        self._posted.clear()
        self._changed.notify_all()


def _program(step: TrainStep) -> Callable[..., Any]:
    """Compiles one program that takes the states, what is fixed of all of them (stacked), and the batches, and returns
    (state, metrics) of each.
    """

    def run(states: tuple[State, ...], fixed: Fixed, batches: tuple[Batch, ...]) -> list[Any]:
        stacked = jax.vmap(step.run)(_stack(states), fixed, _stack(batches))
        return [jax.tree.map(operator.itemgetter(index), stacked) for index in range(len(states))]

    return jax.jit(run, donate_argnums=0)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
