"""This module makes optimizers as optax chains, and the learning rate as a function of the step alone.

A chain gives the update for a learning rate of 1, weight decay included; the step multiplies it by the rate. So the
rate at a step does not depend on how many steps before it were skipped.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from alignpre_jax.training.config import OptimizerConfig, ScheduleConfig

MUON_UPDATE_RMS = 0.2  # the RMS of AdamW's updates: Liu et al. 2025, arXiv 2502.16982, section 2.2


def learning_rate(config: ScheduleConfig, steps: int) -> optax.Schedule:
    """Returns the schedule that gives the learning rate at each step in [0, steps)."""
    warmup = round(config.warmup_share * steps)
    rest = max(steps - warmup, 1)
    if config.shape == "cosine":
        tail = optax.cosine_decay_schedule(config.peak, rest, alpha=config.final / config.peak)
    elif config.shape == "linear":
        tail = optax.linear_schedule(config.peak, config.final, rest)
    elif config.shape == "wsd":
        decay = max(round(config.decay_share * steps), 1)
        tail = optax.join_schedules([optax.constant_schedule(config.peak), _decay(config, decay)], [rest - decay])
    else:
        tail = optax.constant_schedule(config.peak)
    # The first update is made with peak/warmup, not with 0: no step is wasted.
    ramp = optax.linear_schedule(config.peak / max(warmup, 1), config.peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, tail], [warmup]) if warmup else tail


def _decay(config: ScheduleConfig, steps: int) -> optax.Schedule:
    if config.decay == "linear":
        return optax.linear_schedule(config.peak, config.final, steps)

    def sqrt(step):
        share = jnp.sqrt(jnp.clip(step / steps, 0, 1))
        return config.peak + (config.final - config.peak) * share

    return sqrt


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Makes the optimizer that `OptimizerConfig.name` names, with clipping by global norm; sources are named there."""
    adam = {"b1": config.beta1, "b2": config.beta2, "eps": config.eps}
    decay = optax.add_decayed_weights(config.weight_decay, decays)
    if config.name == "adamw":
        chain = optax.adamw(1.0, **adam, weight_decay=config.weight_decay, mask=decays)
    elif config.name == "adafactor":
        chain = optax.chain(
            optax.scale_by_factored_rms(), _clip_by_layer_rms(1.0), _scale_by_layer_rms(1e-3), decay, optax.scale(-1.0)
        )
    elif config.name == "muon":
        matrices = optax.chain(
            optax.contrib.scale_by_muon(beta=config.momentum, weight_dimension_numbers=_inputs_and_outputs),
            _scale_by_larger_side(MUON_UPDATE_RMS),
        )
        parts = {"matrix": matrices, "other": optax.scale_by_adam(**adam)}
        chain = optax.chain(optax.partition(parts, _kinds), decay, optax.scale(-1.0))
    else:
        chain = optax.chain(
            optax.trace(config.momentum) if config.momentum else optax.identity(), decay, optax.scale(-1.0)
        )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), chain) if config.clip_norm else chain


def decays(params: Any) -> Any:
    """Returns a tree of bools: True for matrices and embeddings, False for norms and biases, by the leaves' names.

    Layers are stacked and heads are axes of their own, so the rank of an array does not tell a vector from a matrix.
    """

    def is_matrix(path, _) -> bool:
        return not any(name.endswith(("_norm", "_bias")) for name in _names(path))

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def state_shardings(state: Any, params: Any, shardings: Any, rest: Any) -> Any:
    """Returns the shardings of an optimizer's arrays: an array with the path and shape of a parameter is split as the
    parameter is.

    Args:
      state: the shapes of the optimizer's state.
      params: the shapes of the parameters.
      shardings: the shardings of the parameters.
      rest: the sharding of all other arrays (counts, Adafactor's factored moments), which are small.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    places = {_names(path): (leaf.shape, s) for (path, leaf), s in zip(leaves, jax.tree.leaves(shardings), strict=True)}

    def place(path, leaf):
        names = _names(path)
        for start in range(len(names)):
            shape, sharding = places.get(names[start:], (None, None))
            if shape == leaf.shape:
                return sharding
        return rest

    return jax.tree_util.tree_map_with_path(place, state)


def _names(path) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)


def _kinds(params: Any) -> Any:
    """Labels parameters for Muon: "matrix" for the matrices of the blocks, "other" for everything else."""

    def kind(path, decayed: bool) -> str:
        return "matrix" if decayed and "blocks" in _names(path) else "other"

    return jax.tree_util.tree_map_with_path(kind, decays(params))


def _inputs_and_outputs(matrices: Any) -> Any:
    """Tells Muon which axes of a stack of matrices (axis 0 counts the layers) are inputs, and which are outputs."""

    def axes(path, leaf) -> MuonDimensionNumbers:
        last = leaf.ndim - 1
        if {"o", "o_lora_a", "down"} & set(_names(path)):
            return MuonDimensionNumbers(tuple(range(1, last)), (last,))
        return MuonDimensionNumbers((1,), tuple(range(2, last + 1)))

    return jax.tree_util.tree_map_with_path(axes, matrices)


def _scale_by_larger_side(rms: float) -> optax.GradientTransformation:
    """Gives orthogonal updates the root mean square `rms` (Liu et al. 2025, arXiv 2502.16982, eq. 4)."""

    def scale(updates, params):
        del params

        def one(u, axes):
            inputs, outputs = (math.prod(u.shape[i] for i in part) for part in axes)
            return u * (rms * math.sqrt(max(inputs, outputs)))

        return jax.tree.map(one, updates, _inputs_and_outputs(updates))

    return optax.stateless(scale)


def _layer_rms(path, x: jax.Array) -> jax.Array:
    """Returns the root mean square of a parameter, or of each layer of a stack of them; it broadcasts against `x`."""
    axes = tuple(range(1 if "blocks" in _names(path) else 0, x.ndim))
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))


def _clip_by_layer_rms(most: float) -> optax.GradientTransformation:
    """Clips an update so that its RMS is at most `most` (Adafactor, algorithm 4, line 9)."""

    def clip(updates, params):
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, u: u / jnp.maximum(1.0, _layer_rms(path, u) / most), updates
        )

    return optax.stateless(clip)


def _scale_by_layer_rms(least: float) -> optax.GradientTransformation:
    """Multiplies updates by the parameter's own RMS, or by `least` if that is more (Adafactor, algorithm 4, line 4)."""

    def scale(updates, params):
        return jax.tree_util.tree_map_with_path(
            lambda path, u, p: u * jnp.maximum(_layer_rms(path, p), least), updates, params
        )

    return optax.stateless(scale)
