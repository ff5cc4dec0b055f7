"""Attention in plain XLA, with any mask: the reference of all other kernels, and what runs where none of them does.

Legend: B rows, L queries, T keys, H heads, K kv heads, G = H / K, h head_dim.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

MASKED = -1e30  # finite, so that a query without a visible key gives no NaN


def causal_mask(segments_BL: jax.Array | None, length: int) -> jax.Array:
    """bool [B or 1, L, L]: a token sees itself and what is before it in its own segment."""
    mask_1LL = jnp.tril(jnp.ones((1, length, length), bool))
    if segments_BL is None:
        return mask_1LL
    return mask_1LL & (segments_BL[:, :, None] == segments_BL[:, None, :])


def xla_attention(q_BHLh: jax.Array, k_BKTh: jax.Array, v_BKTh: jax.Array, mask_BLT: jax.Array) -> jax.Array:
    """Softmax attention, [B, H, L, h] in the dtype of `v`; scores and softmax in float32.

    The G queries that share a key head are in one product with it, and keys are never repeated in memory.
    """
    B, H, L, h = q_BHLh.shape
    K = k_BKTh.shape[1]
    q_BKGLh = q_BHLh.reshape(B, K, H // K, L, h)
    scores = jnp.einsum("bkgqh,bkth->bkgqt", q_BKGLh, k_BKTh, preferred_element_type=jnp.float32) * (1 / math.sqrt(h))
    weights = jax.nn.softmax(jnp.where(mask_BLT[:, None, None], scores, MASKED), axis=-1).astype(v_BKTh.dtype)
    return jnp.einsum("bkgqt,bkth->bkgqh", weights, v_BKTh).reshape(B, H, L, h)
