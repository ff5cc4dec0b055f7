"""This module checks what must hold exactly before the first update: fresh adapters change nothing.

A model with fresh adapters is the base, because one factor of each is zero. A run in which that does not hold starts
from another model than it says, and so does every comparison with it. It is checked in every such run, on the real
batch, mesh and precision. Both sides go through the same compiled program, which differs in nothing but the values of
the factors: so the losses must agree to the last bit, and there is no tolerance to choose.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alignpre_jax.checkpoints import State
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Batch
from alignpre_jax.training.step import Fixed, StepConfig, microbatches, models_of


def check_adapters_off(config: StepConfig, mesh: Mesh, state: State, fixed: Fixed, batch: Batch) -> None:
    """Compares the loss of every token of the first microbatch, with fresh adapters and with adapters that are zero.

    It costs two forward passes of one microbatch and the compilation of one.

    Raises:
      UserError: a loss differs; the error gives the figures.
    """
    part, _ = microbatches(mesh, config.optimizer.accumulate, batch.tokens.shape[0])

    @jax.jit
    def losses(trained, fixed: Fixed, batch: Batch) -> jax.Array:
        rows = jax.tree.map(lambda x: part(x)[0], batch)
        return config.objective.terms(models_of(config, trained, fixed), rows)[1]["losses_BL"]

    zeros = jax.tree.map(jnp.zeros_like, state.trained)
    fresh, off = (losses(trained, fixed, batch) for trained in (state.trained, zeros))
    different, largest = jax.device_get(_difference(fresh, off))
    if different:
        raise UserError(
            f"fresh adapters change the loss of {int(different):,} of {fresh.size:,} tokens, by up to {largest:.3g}",
            where="stages.STAGE.learn",
            fix="check that the model it starts from has no values that are not finite; if it has none, report this",
        )


@jax.jit
def _difference(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(~(a == b)), jnp.max(jnp.abs(a - b))
