"""This module checks what must hold exactly before the first update: fresh adapters and a reference change nothing.

A model with fresh adapters is the base, because one factor of each is zero. A run in which that does not hold starts
from another model than it says, and so does every comparison with it. It is checked in every such run, on the real
batch, mesh and precision. Both sides go through the same compiled program, which differs in nothing but the values of
the factors: so the losses must agree to the last bit, and there is no tolerance to choose.

A run that goes on from the model that its objective compares with begins with margins of 0. That is checked in the same
way: one program is asked for the log-probs of the answers under the policy, and then under the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alignpre_jax.checkpoints import State
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Batch
from alignpre_jax.model import Lora
from alignpre_jax.objectives import Dpo
from alignpre_jax.objectives.pairs import LogProbs, Pairs, find_pairs, log_probs
from alignpre_jax.training.step import Fixed, StepConfig, microbatches, models_of

Divide: TypeAlias = Callable[[Any, int], tuple[Any, Any]]  # (trained, frozen) of a whole model


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


def check_margins(config: StepConfig, mesh: Mesh, divide: Divide, state: State, fixed: Fixed, batch: Batch) -> None:
    """Compares the log-probs of the first microbatch's answers under a policy and under a reference that is its equal.

    It costs two forward passes of one microbatch and the compilation of one. `divide` is the step's `split`: the
    reference is given to the program in two parts, as the policy is, with adapters that are zero. In the step itself,
    where only the policy is differentiated, the compiler may round the two a little differently.

    Raises:
      UserError: a margin is not 0.0, or the loss is not that of margins of 0 (ln 2 for DPO), with the figures.
    """
    objective = config.objective
    assert isinstance(objective, Dpo)
    part, _ = microbatches(mesh, config.optimizer.accumulate, batch.tokens.shape[0])

    def place(batch: Batch) -> tuple[Batch, Pairs]:
        rows = jax.tree.map(lambda x: part(x)[0], batch)
        return rows, find_pairs(rows)

    @jax.jit
    def ask(trained, frozen, batch: Batch) -> LogProbs:
        policy = models_of(config, trained, Fixed(frozen)).policy
        return log_probs(policy, *place(batch), objective.chunk_bytes)

    @jax.jit
    def compare(ours: LogProbs, theirs: LogProbs, batch: Batch) -> tuple[jax.Array, ...]:
        _, pairs = place(batch)
        margins_BS = objective.margins(pairs, ours, theirs)
        count = jnp.sum(pairs.paired_BS)
        loss = jnp.sum(objective.pair_losses(margins_BS) * pairs.paired_BS) / jnp.maximum(count, 1.0)
        return jnp.sum((margins_BS != 0) & (pairs.paired_BS > 0)), jnp.max(jnp.abs(margins_BS)), loss, count

    trained, frozen = divide(fixed.reference, 0)
    if isinstance(config.learn, Lora):
        trained = jax.tree.map(jnp.zeros_like, state.trained)
    ours, theirs = ask(state.trained, fixed.frozen, batch), ask(trained, frozen, batch)
    different, largest, loss, count = (float(x) for x in jax.device_get(compare(ours, theirs, batch)))
    if different or (count and abs(loss - objective.start_loss) > 1e-6 * objective.start_loss):
        raise UserError(
            f"the run starts from its reference, and {different:,.0f} of {count:,.0f} margins are not 0 (up to "
            f"{largest:.3g}); the loss is {loss:.7g} where {objective.start_loss:.7g} is due",
            where="stages.STAGE.reference",
            fix="check that the model it starts from has no values that are not finite; if it has none, report this",
        )


@jax.jit
def _difference(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(~(a == b)), jnp.max(jnp.abs(a - b))
