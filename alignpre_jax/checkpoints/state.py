"""What training carries from one step to the next, and therefore what a checkpoint holds."""

from __future__ import annotations

from typing import Any, NamedTuple


class GuardState(NamedTuple):
    """What the guard remembers; see `training.GuardConfig`."""

    losses_W: Any  # float32, of the last good steps; NaN where there were fewer
    streak: Any  # int32, bad steps in a row up to now


class State(NamedTuple):
    """What an update reads and writes; parameters that are frozen (see `model.adapters`) are no part of it.

    `step` counts the batches that were gone through: their slots are [0, step * batch rows). A step that the guard
    skips counts, and changes nothing else of the parameters and the optimizer.
    """

    trained: Any  # the parameters that are learnt: float32 master weights
    optimizer: Any
    step: Any  # int32[]
    guard: Any = None  # GuardState, where the guard is on
    ema: Any = None  # moving average of `trained`, where there is one
