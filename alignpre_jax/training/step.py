"""One update: `train_step(state, batch) -> (state, metrics)`, pure, jitted once with its shardings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alignpre_jax.mixture import Batch, fingerprint_on_device
from alignpre_jax.model import DecoderConfig, bind, init_params, param_shardings
from alignpre_jax.objectives import ObjectiveConfig, get_objective
from alignpre_jax.training.config import OptimizerConfig, ScheduleConfig
from alignpre_jax.training.mesh import batch_sharding
from alignpre_jax.training.optimizer import learning_rate, make_optimizer


class State(NamedTuple):
    """What an update reads and writes. `step` counts the updates that were made."""

    params: Any  # fp32 master weights
    optimizer: Any
    step: Any  # int32[]


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything that the compiled step depends on."""

    model: DecoderConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    steps: int  # of the stage; the schedule ends there
    sources: int  # strata that the loss is reported for


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """A compiled step with the shardings of its state, and how to make the first state."""

    run: Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]
    init: Callable[[Any], State]  # from parameters
    fresh_params: Callable[[int], Any]  # from a seed
    shardings: State
    batch: NamedSharding

    def abstract(self) -> State:
        """The state's shapes and shardings without its values."""
        shapes = jax.eval_shape(lambda: self.init(self.fresh_params(0)))
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.shardings,
        )


@functools.lru_cache(maxsize=16)
def make_train_step(config: StepConfig, mesh: Mesh) -> TrainStep:
    """Builds the step for a mesh. The same arguments give the same compiled function."""
    optimizer = make_optimizer(config.optimizer, config.schedule, config.steps)
    rate = learning_rate(config.schedule, config.steps)
    objective = get_objective(config.objective.name)
    whole = NamedSharding(mesh, PartitionSpec())
    params = param_shardings(config.model, mesh)
    fresh_params = jax.jit(functools.partial(init_params, config.model), out_shardings=params)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, jax.eval_shape(fresh_params, 0)),
        params,
        transform_non_params=lambda _: whole,
    )
    shardings = State(params, moments, whole)

    def init(params) -> State:
        return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def run(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        def loss_of(params):
            return objective(config.objective, bind(config.model, params), batch)

        (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        by_source = functools.partial(jax.ops.segment_sum, segment_ids=batch.sources, num_segments=config.sources)
        metrics = {
            "loss": loss,
            "learning_rate": rate(state.step),
            "gradient_norm": optax.global_norm(gradients),
            "update_norm": optax.global_norm(updates),
            "batch_fingerprint": fingerprint_on_device(batch.tokens),
            "source_loss": by_source(aux["loss_sum_B"]),
            "source_tokens": by_source(aux["targets_B"]),
        }
        return State(optax.apply_updates(state.params, updates), moments, state.step + 1), metrics

    batch = batch_sharding(mesh)
    return TrainStep(
        run=jax.jit(run, in_shardings=(shardings, batch), out_shardings=(shardings, whole), donate_argnums=0),
        init=jax.jit(init, in_shardings=(params,), out_shardings=shardings),
        fresh_params=fresh_params,
        shardings=shardings,
        batch=batch,
    )
