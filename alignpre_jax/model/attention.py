"""Attention kernels: a reference in plain XLA, and splash attention on TPU.

Legend: B rows, L queries, T keys, H heads, K kv heads, G = H / K, h head_dim.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from alignpre_jax.foundation import UserError
from alignpre_jax.model import sharding
from alignpre_jax.model.config import LANES, DecoderConfig

MASKED = -1e30  # finite, so that a query without a visible key gives no NaN


def choose_kernel(config: DecoderConfig, length: int, platform: str | None = None) -> str:
    """Which kernel runs for rows of `length` tokens on `platform`: "xla" or "splash".

    `platform` ("cpu", "gpu", "tpu") defaults to that of the mesh in force, else of the default device. "auto" takes
    splash on a TPU when `length` is a multiple of 128. Calls with a cache or a mask of their own always run on XLA.
    """
    fits = length % LANES == 0
    if config.attention == "splash" and not fits:
        raise UserError(
            f"splash attention works on rows of a multiple of {LANES} tokens, not {length}",
            where="attention",
            fix="change the row length, or set attention='auto'",
        )
    if config.attention != "auto":
        return config.attention
    return "splash" if fits and (platform or sharding.platform()) == "tpu" else "xla"


def causal_mask(segments_BL: jax.Array | None, length: int) -> jax.Array:
    """bool [B or 1, L, L]: a token sees itself and what is before it in its own segment."""
    mask_1LL = jnp.tril(jnp.ones((1, length, length), bool))
    if segments_BL is None:
        return mask_1LL
    return mask_1LL & (segments_BL[:, :, None] == segments_BL[:, None, :])


def xla_attention(q_BHLh: jax.Array, k_BKTh: jax.Array, v_BKTh: jax.Array, mask_BLT: jax.Array) -> jax.Array:
    """Softmax attention, [B, H, L, h] in the dtype of `v`; scores and softmax in float32.

    The G queries that share a key head are stacked along the query axis: one batched product per key head, and keys
    are never repeated in memory.
    """
    B, H, L, h = q_BHLh.shape
    K, T = k_BKTh.shape[1:3]
    G = H // K
    scores = jnp.einsum("bkqh,bkth->bkqt", q_BHLh.reshape(B, K, G * L, h), k_BKTh, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, K, G, L, T) * (1 / math.sqrt(h))
    weights = jax.nn.softmax(jnp.where(mask_BLT[:, None, None], scores, MASKED), axis=-1)
    weights = weights.astype(v_BKTh.dtype).reshape(B, K, G * L, T)
    return jnp.einsum("bkqt,bkth->bkqh", weights, v_BKTh).reshape(B, H, L, h)


def splash_attention(
    q_BHLh: jax.Array, k_BKLh: jax.Array, v_BKLh: jax.Array, segments_BL: jax.Array | None, *, interpret: bool = False
) -> jax.Array:
    """The TPU's block-sparse flash attention, causal inside segments: [B, H, L, h], no [L, L] array.

    Under a mesh every device runs the kernel on its own rows and heads (`shard_map`). `interpret` runs it on a CPU.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    L, h = q_BHLh.shape[2:]
    block = next(size for size in (512, 256, 128) if L % size == 0)
    blocks = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        mask = masks.MultiHeadMask([masks.CausalMask((L, L))] * q.shape[1])
        kernel = kernels.make_splash_mha(mask, block_sizes=blocks, head_shards=1, q_seq_shards=1, interpret=interpret)
        return jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=kernels.SegmentIds(s, s)))(q, k, v, segments)

    if segments_BL is None:
        segments_BL = jnp.ones((q_BHLh.shape[0], L), jnp.int32)
    operands = (q_BHLh * (1 / math.sqrt(h)), k_BKLh, v_BKLh, segments_BL)
    if not sharding.mesh_axes():
        return attend(*operands)
    q_spec = sharding.compute_spec(("batch", "heads", None, None), q_BHLh.shape, "queries")
    kv_spec = sharding.compute_spec(("batch", "kv_heads", None, None), k_BKLh.shape, "keys")
    rows = P(q_spec[0])
    return jax.shard_map(attend, in_specs=(q_spec, kv_spec, kv_spec, rows), out_specs=q_spec, check_vma=False)(
        *operands
    )
