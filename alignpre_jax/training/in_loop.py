"""This module says when evals during training are due, and sees to it that none of them is lost.

At a step that is due the loop saves a checkpoint whose facts name the step as pending, and then runs the eval on the
state of that step. A run that is killed in between restores that checkpoint, finds the step pending, and runs the eval
before it goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from alignpre_jax.foundation import Report, UserError

PENDING = "pending_evals"  # in a checkpoint's facts: the steps whose evals are not known to have been run


@dataclasses.dataclass(frozen=True)
class InLoopEvals:
    """`InLoopEvals` are evals that are due by step or by token.

    If the evals of a step are run twice, the second run finds its work done.

    Args:
      run: runs the evals, given the step, the parameters, the mesh that they are on, and where to report progress (each
        report renews the deadline, `loop.eval_minutes`); it returns when the results are on disk.
      every_steps: evals are due at multiples of this step; 0: not by step.
      every_tokens: evals are due at each step that reaches another multiple of this number of tokens; 0: not by token.
    """

    run: Callable[[int, nnx.State, Mesh, Report], None]
    every_steps: int = 0
    every_tokens: int = 0

    def __post_init__(self):
        if self.every_steps < 0 or self.every_tokens < 0:
            raise UserError(
                f"evals every {min(self.every_steps, self.every_tokens)}", where="evals", fix="give 0 for none"
            )

    def due(self, step: int, tokens_per_step: int) -> bool:
        """Returns whether the state after `step` steps is to be evaluated."""
        by_step = self.every_steps > 0 and step % self.every_steps == 0
        if by_step or not self.every_tokens:
            return by_step
        return step * tokens_per_step // self.every_tokens > (step - 1) * tokens_per_step // self.every_tokens


def pending_steps(meta: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the steps that a checkpoint's facts name as pending."""
    return tuple(meta.get(PENDING, ()))
