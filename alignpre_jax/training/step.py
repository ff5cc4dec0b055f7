"""This module makes one update, `run(state, fixed, batch) -> (state, metrics)`: pure, and jitted once with its
shardings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alignpre_jax.checkpoints import GuardState, State
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Batch, fingerprint_on_device
from alignpre_jax.model import (
    DecoderConfig,
    Full,
    Learn,
    bind,
    extras_of,
    init_params,
    join,
    merge,
    param_shardings,
    split,
)
from alignpre_jax.model.mesh import BATCH_AXES, batch_sharding
from alignpre_jax.model.sharding import shardings_by_path
from alignpre_jax.model.trees import by_path, nest
from alignpre_jax.objectives import Aux, Models, Objective, total
from alignpre_jax.training.config import GuardConfig, OptimizerConfig, ScheduleConfig
from alignpre_jax.training.optimizer import learning_rate, make_optimizer, state_shardings

METRICS = (
    *("loss", "learning_rate", "gradient_norm", "update_norm"),
    *("batch_fingerprint", "source_loss", "source_tokens", "source_rows"),
)
TOKEN_METRICS = ("token_losses", "token_counts")

# KiB of a TPU core's fast memory (VMEM, 128 MiB on these chips) that one operation may take; the compiler's default is
# 16 MiB. With twice that, matrix multiplications keep their full rate with norms, SwiGLU, residuals and the gathering
# of the next weights merged into them.
VMEM = {"TPU v5 lite": 32768, "TPU v5": 32768, "TPU v6 lite": 32768}


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """A `StepConfig` is everything that the compiled step depends on."""

    model: DecoderConfig
    objective: Objective
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    steps: int  # of the stage; the schedule ends there
    sources: int  # the number of strata that the loss is reported for
    learn: Learn = dataclasses.field(default_factory=Full)  # what of the model is trained
    token_losses: bool = False  # the metrics hold "token_losses" and "token_counts", float32 [batch rows, row length]


class Fixed(NamedTuple):
    """`Fixed` is what an update reads and never writes."""

    frozen: Any = None  # the parameters that are not learnt; None where all are
    reference: Any = None  # a whole model's parameters, where the objective compares with one


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """A `TrainStep` is a compiled step, the shardings of what it takes, and the functions that make its first state.

    Attributes:
      run: the step itself; the arrays of `state` are given up to it (donated), those of `fixed` are not.
      init: makes the first state from the parameters that are trained.
      fresh_params: makes a whole model from a seed.
      split: splits a whole model into (trained, frozen); the seed is that of fresh adapters.
      whole: makes the whole model, without adapters, from a state and what is fixed.
      shardings: the shardings of the state.
      fixed: the shardings of what is not trained.
      batch: the sharding of every column of a batch.
    """

    run: Callable[[State, Fixed, Batch], tuple[State, dict[str, jax.Array]]]
    init: Callable[[Any], State]
    fresh_params: Callable[[int], Any]
    split: Callable[[Any, int], tuple[Any, Any]]
    whole: Callable[[State, Fixed], Any]
    shardings: State
    fixed: Fixed
    batch: NamedSharding

    def start(self, params: Any, seed: int = 0) -> tuple[State, Fixed]:
        """Makes the first state, and what stays as it is, from a whole model; `seed` is that of fresh adapters."""
        trained, frozen = self.split(params, seed)
        return self.init(trained), Fixed(frozen)

    def abstract(self) -> tuple[State, Fixed]:
        """Returns the shapes and shardings of the state and of what is fixed, without their values."""
        state, fixed = jax.eval_shape(lambda: self.start(self.fresh_params(0)))
        if self.fixed.reference is not None:
            fixed = fixed._replace(reference=jax.eval_shape(self.fresh_params, 0))
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            (state, fixed),
            (self.shardings, self.fixed),
        )


@functools.lru_cache(maxsize=16)
def make_train_step(config: StepConfig, mesh: Mesh) -> TrainStep:
    """Builds the step for a mesh. The same arguments give the same compiled function."""
    optimizer = make_optimizer(config.optimizer)
    rate = learning_rate(config.schedule, config.steps)
    guard, ema_decay = config.optimizer.guard, config.optimizer.ema_decay
    whole = NamedSharding(mesh, PartitionSpec())
    params = param_shardings(config.model, mesh)
    fresh_params = jax.jit(functools.partial(init_params, config.model), out_shardings=params)
    divide = functools.partial(split, config.model, config.learn)
    shapes = jax.eval_shape(divide, jax.eval_shape(fresh_params, 0), 0)
    places = shardings_by_path(config.model, mesh, extras_of(config.learn))
    trained, frozen = (
        None if part is None else nest({path: places[path] for path in by_path(part)}) for part in shapes
    )
    shardings = State(
        trained=trained,
        optimizer=state_shardings(jax.eval_shape(optimizer.init, shapes[0]), shapes[0], trained, whole),
        step=whole,
        guard=None if guard.action == "stop" else GuardState(whole, whole),
        ema=trained if ema_decay else None,
    )
    fixed_shardings = Fixed(frozen, params if config.objective.needs_reference else None)

    def init(trained) -> State:
        watch = GuardState(jnp.full(guard.window, jnp.nan, jnp.float32), jnp.zeros((), jnp.int32))
        return State(
            trained=trained,
            optimizer=optimizer.init(trained),
            step=jnp.zeros((), jnp.int32),
            guard=None if guard.action == "stop" else watch,
            ema=jax.tree.map(jnp.copy, trained) if ema_decay else None,
        )

    def run(state: State, fixed: Fixed, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        loss, weight, aux, gradients = _gradients(config, mesh, shardings.trained, state.trained, fixed, batch)
        gradient_norm = optax.tree.norm(gradients)
        directions, moments = optimizer.update(gradients, state.optimizer, state.trained)
        updates = jax.tree.map(lambda direction: rate(state.step) * direction, directions)
        new = State(optax.apply_updates(state.trained, updates), moments, state.step + 1)
        if ema_decay:
            new = new._replace(ema=optax.tree.update_moment(new.trained, state.ema, ema_decay, 1))
        by_source = functools.partial(jax.ops.segment_sum, segment_ids=batch.stores, num_segments=config.sources)
        metrics = {
            "loss": loss,
            "learning_rate": rate(state.step),
            "gradient_norm": gradient_norm,
            "update_norm": optax.tree.norm(updates),
            "batch_fingerprint": fingerprint_on_device(batch.columns),
            "source_loss": by_source(aux["loss_sum_B"]),
            "source_tokens": by_source(aux["targets_B"]),
            "source_rows": by_source(jnp.ones_like(batch.stores)),
            **{name: jnp.sum(aux[f"{name}_B"]) / weight for name in config.objective.figures},
        }
        if config.token_losses:
            metrics |= {"token_losses": aux["losses_BL"], "token_counts": aux["counted_BL"]}
        if guard.action != "stop":
            new, metrics["bad_streak"] = _guarded(guard, state, new, loss, gradient_norm)
        return new, metrics

    batch = batch_sharding(mesh)
    names = (*METRICS, *config.objective.figures, *(() if guard.action == "stop" else ("bad_streak",)))
    outputs = dict.fromkeys(names, whole) | (dict.fromkeys(TOKEN_METRICS, batch) if config.token_losses else {})
    return TrainStep(
        run=jax.jit(
            run,
            in_shardings=(shardings, fixed_shardings, batch),
            out_shardings=(shardings, outputs),
            donate_argnums=0,
            compiler_options=compiler_options(mesh),
        ),
        init=jax.jit(init, in_shardings=(trained,), out_shardings=shardings),
        fresh_params=fresh_params,
        split=divide if frozen is None else jax.jit(divide, out_shardings=(trained, frozen)),
        whole=lambda state, fixed: merge(fixed.frozen, state.trained, config.learn, dtype="float32"),
        shardings=shardings,
        fixed=fixed_shardings,
        batch=batch,
    )


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """Returns the compiler's options for the chips of a mesh; None leaves it its defaults."""
    limit = VMEM.get(mesh.devices.flat[0].device_kind)
    return {"xla_tpu_scoped_vmem_limit_kib": str(limit)} if limit else None


def models_of(config: StepConfig, trained: Any, fixed: Fixed) -> Models:
    """Returns the models that the objective asks; this is to be called inside a jitted function."""
    policy = bind(config.model, join(trained, fixed.frozen), extras_of(config.learn))
    return Models(policy, None if fixed.reference is None else bind(config.model, fixed.reference))


def _gradients(
    config: StepConfig, mesh: Mesh, shardings: Any, trained: Any, fixed: Fixed, batch: Batch
) -> tuple[jax.Array, jax.Array, Aux, Any]:
    """Returns (loss, weight of the first term, aux, gradients) of the batch, at once or in `accumulate` microbatches.

    The weights are those of the whole batch, and every microbatch's sums are divided by them: the losses and gradients
    of the microbatches add up to those of the batch, whatever number of targets a microbatch has.
    """
    objective, count = config.objective, config.optimizer.accumulate
    weights = objective.weights(batch)
    first = jnp.maximum(next(iter(weights.values())), 1.0)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_of(trained: Any, rows: Batch) -> tuple[jax.Array, Aux]:
        terms, aux = objective.terms(models_of(config, trained, fixed), rows)
        return total(terms, weights), aux

    if count == 1:
        (loss, aux), gradients = loss_of(trained, batch)
        return loss, first, aux, gradients

    def add(so_far: Any, rows: Batch) -> tuple[Any, Aux]:
        (loss, aux), gradients = loss_of(trained, rows)
        loss_so_far, sums = jax.tree.map(jnp.add, so_far, (loss, gradients))
        return (loss_so_far, jax.lax.with_sharding_constraint(sums, shardings)), aux

    part, whole = microbatches(mesh, count, batch.tokens.shape[0])
    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
    (loss, gradients), aux = jax.lax.scan(add, nothing, jax.tree.map(part, batch))
    return loss, first, {name: whole(values) for name, values in aux.items()}, gradients


def microbatches(mesh: Mesh, count: int, rows: int) -> tuple[Callable, Callable]:
    """Returns two functions: one splits [rows, ...] into [count, rows / count, ...], the other joins them again.

    A device's rows stay on that device, because every part has some of the rows of each device.

    Raises:
      UserError: the rows do not divide.
    """
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if rows % (shards * count):
        raise UserError(
            f"a batch of {rows} rows does not divide into {count} microbatches over {shards} shards",
            where="stages.STAGE.batch_rows, stages.STAGE.optimizer.accumulate and loop.mesh",
            fix=f"make batch_rows a multiple of {shards * count}",
        )

    def place(x: jax.Array, *axes: Any) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))

    def split(x: jax.Array) -> jax.Array:
        apart = place(x.reshape(shards, count, rows // (shards * count), *x.shape[1:]), BATCH_AXES)
        return place(apart.swapaxes(0, 1).reshape(count, rows // count, *x.shape[1:]), None, BATCH_AXES)

    def join(x: jax.Array) -> jax.Array:
        apart = place(x.reshape(count, shards, rows // (shards * count), *x.shape[2:]), None, BATCH_AXES)
        return place(apart.swapaxes(0, 1).reshape(rows, *x.shape[2:]), BATCH_AXES)

    return split, join


def _guarded(
    config: GuardConfig, old: State, new: State, loss: jax.Array, gradient_norm: jax.Array
) -> tuple[State, jax.Array]:
    """Returns (the state to go on with, how many bad steps in a row this step makes: 0 for a good one)."""
    losses_W = old.guard.losses_W
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(gradient_norm))
    if config.spike_mads:
        median = jnp.nanmedian(losses_W)
        spread = jnp.nanmedian(jnp.abs(losses_W - median))
        is_known = jnp.sum(~jnp.isnan(losses_W)) >= (config.window + 1) // 2
        bad |= is_known & (loss > median + config.spike_mads * spread)
    streak = jnp.where(bad, old.guard.streak + 1, 0)
    remembered_W = jnp.roll(losses_W, -1).at[-1].set(loss) if config.spike_mads else losses_W
    new = new._replace(guard=old.guard._replace(losses_W=remembered_W))
    kept = jax.tree.map(lambda before, after: jnp.where(bad, before, after), old, new)
    return kept._replace(step=new.step, guard=kept.guard._replace(streak=streak)), streak
