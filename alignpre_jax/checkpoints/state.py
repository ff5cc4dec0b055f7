"""This module defines what training carries from one step to the next, and therefore what a checkpoint holds."""

from __future__ import annotations

from typing import Any, NamedTuple


class GuardState(NamedTuple):
    """A `GuardState` is what the guard remembers; see `training.GuardConfig`."""

    losses_W: Any  # float32, the losses of the last good steps; NaN where there were fewer
    streak: Any  # int32, the number of bad steps in a row up to now


class State(NamedTuple):
    """A `State` is what an update reads and writes; frozen parameters (see `model.adapters`) are not part of it.

    `step` counts the batches that the run has gone through, whose slots are [0, step * batch rows). A step that the
    guard skips is counted too, and changes neither the parameters nor the optimizer.
    """

    trained: Any  # the parameters that are learnt: float32 master weights
    optimizer: Any
    step: Any  # int32[]
    guard: Any = None  # GuardState, where the guard is on
    ema: Any = None  # moving average of `trained`, where there is one
