"""Evals during training: when they are due, and that none is lost.

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
    """Evals by step or by token; the later of two runs of the same step finds its work done.

    Args:
      run: given the step, the parameters and the mesh that they are on, and whom to report progress to (each report
        renews the deadline, `loop.eval_minutes`); returns when the results are on disk.
      every_steps: due at multiples of it; 0: not by step.
      every_tokens: due at the first step at which another so many tokens are through; 0: not by token.
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
        """Whether the state after `step` steps is to be evaluated."""
        by_step = self.every_steps > 0 and step % self.every_steps == 0
        if by_step or not self.every_tokens:
            return by_step
        return step * tokens_per_step // self.every_tokens > (step - 1) * tokens_per_step // self.every_tokens


def pending_steps(meta: Mapping[str, Any]) -> tuple[int, ...]:
    """The steps that a checkpoint's facts name as pending."""
    return tuple(meta.get(PENDING, ()))
