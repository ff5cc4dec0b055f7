"""The compiled half of scoring: hidden states of packed rows, and log-probs at the places that are asked for.

Legend: B rows, L length, S = B * L, D width, R reads, V vocab.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from alignpre_jax.model import DecoderConfig, bind
from alignpre_jax.sampling.packing import Packed

Started: TypeAlias = list[tuple[jax.Array, jax.Array]]


@functools.partial(jax.jit, static_argnums=0)
def hidden_states(
    config: DecoderConfig, params: nnx.State, tokens_BL: jax.Array, positions_BL: jax.Array, until_BL: jax.Array
) -> jax.Array:
    """Hidden states [S, D] of packed rows; the token at place t is seen from places t up to its `until` - 1."""
    place_L = jnp.arange(tokens_BL.shape[1])
    mask_BLL = (place_L[:, None] >= place_L) & (place_L[:, None] < until_BL[:, None, :])
    hidden_BLD = bind(config, params)(tokens_BL, positions_BL=positions_BL, mask_BLL=mask_BLL)
    return hidden_BLD.reshape(-1, hidden_BLD.shape[-1])


@functools.partial(jax.jit, static_argnums=0)
def read_out(
    config: DecoderConfig, params: nnx.State, hidden_SD: jax.Array, reads_R: jax.Array, targets_R: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(log p(target), is the target the most probable token): float32 and bool [R]; no other logits are computed."""
    logits_RV = bind(config, params).unembed(hidden_SD[reads_R])
    target_R = jnp.take_along_axis(logits_RV, targets_R[:, None], axis=-1)[:, 0]
    return target_R - jax.nn.logsumexp(logits_RV, axis=-1), jnp.argmax(logits_RV, axis=-1) == targets_R


def score_batch(config: DecoderConfig, params: nnx.State, packed: Packed, reads_per_call: int) -> Started:
    """Starts the computation of one batch; the results of `read_out` for each `reads_per_call` reads, in order.

    Nothing waits here, so that the host packs the next batch while the device computes this one.
    """
    hidden_SD = hidden_states(config, params, packed.tokens, packed.positions, packed.until)
    started = []
    for start in range(0, len(packed.reads), reads_per_call):
        ask = [part[start : start + reads_per_call] for part in (packed.reads, packed.targets)]
        reads, targets = (np.pad(part, (0, reads_per_call - len(part))) for part in ask)
        started.append(read_out(config, params, hidden_SD, reads, targets))
    return started


def inference_params(config: DecoderConfig, params: nnx.State) -> nnx.State:
    """The parameters in the dtype of the computation, where the decoder would round them anyway (not the norms)."""

    def rounded(path: tuple, leaf: jax.Array) -> jax.Array:
        return leaf if "norm" in jax.tree_util.keystr(path[:2]) else leaf.astype(config.dtype)

    return jax.tree_util.tree_map_with_path(rounded, params)
