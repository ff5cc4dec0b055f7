"""The optimizer as one optax chain."""

from __future__ import annotations

from typing import Any

import jax
import optax

from alignpre_jax.training.config import OptimizerConfig, ScheduleConfig


def learning_rate(config: ScheduleConfig, steps: int) -> optax.Schedule:
    """The learning rate at each step in [0, steps)."""
    warmup = round(config.warmup_share * steps)
    rest = max(steps - warmup, 1)
    if config.shape == "cosine":
        tail = optax.cosine_decay_schedule(config.peak, rest, alpha=config.final / config.peak)
    elif config.shape == "linear":
        tail = optax.linear_schedule(config.peak, config.final, rest)
    else:
        tail = optax.constant_schedule(config.peak)
    # The first update is made with peak/warmup, not with 0: no step is wasted.
    ramp = optax.linear_schedule(config.peak / max(warmup, 1), config.peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, tail], [warmup]) if warmup else tail


def make_optimizer(config: OptimizerConfig, schedule: ScheduleConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with a decay mask."""
    adamw = optax.adamw(
        learning_rate(schedule, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decays,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def decays(params: Any) -> Any:
    """A tree of bools: True for matrices and embeddings, False for norms and biases, by the name of the leaf.

    Layers are stacked and heads are axes of their own, so the rank of an array does not tell a vector from a matrix.
    """

    def is_matrix(path, _) -> bool:
        names = [str(getattr(key, "key", "")) for key in path]
        return not any(name.endswith(("_norm", "_bias")) for name in names)

    return jax.tree_util.tree_map_with_path(is_matrix, params)
