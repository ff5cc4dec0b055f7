"""Every parameter of a decoder in one table: its path, shape, logical axes and initial values.

The decoder, its sharding and its mapping to other formats all read this table.
Legend: D width, H heads, K kv heads, h head_dim, F mlp, V vocab (padded), N layers (always the leading axis).
"""

from __future__ import annotations

import dataclasses
import math
import zlib

import jax
import jax.numpy as jnp

from alignpre_jax.model.config import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One float32 tensor: `axes` names each dimension of `shape`; values start as `mean` + N(0, `std`)."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    std: float = 0.0
    mean: float = 0.0


def parameters(config: DecoderConfig) -> dict[str, Parameter]:
    """All parameters by path, "blocks.q" being the query kernels of all layers, stacked."""
    c = config
    D, H, K, h, F, V = c.width, c.heads, c.kv_heads, c.head_dim, c.mlp_width, c.padded_vocab
    inner, outer = {
        "gpt2": (0.02, 0.02 / math.sqrt(2 * c.layers)),
        "neox": (math.sqrt(2 / (5 * D)), 2 / (c.layers * math.sqrt(D))),
        "flat": (0.02, 0.02),
    }[c.init]
    heads, kv_heads = ("heads", "head_dim"), ("kv_heads", "head_dim")
    table: dict[str, Parameter] = {"embedding": Parameter((V, D), ("vocab", "embed"), inner)}
    if not c.tied_embeddings:
        table["unembedding"] = Parameter((D, V), ("embed", "vocab"), inner)

    def stack(name: str, shape: tuple[int, ...], axes: tuple[str, ...], std: float = 0.0, mean: float = 0.0) -> None:
        table[f"blocks.{name}"] = Parameter((c.layers, *shape), ("layers", *axes), std, mean)

    def linear(name: str, shape: tuple[int, ...], axes: tuple[str, ...], std: float, outputs: int) -> None:
        stack(name, shape, axes, std)
        if c.biases == "all":
            stack(f"{name}_bias", shape[-outputs:], axes[-outputs:])

    linear("q", (D, H, h), ("embed", *heads), inner, 2)
    linear("k", (D, K, h), ("embed", *kv_heads), inner, 2)
    linear("v", (D, K, h), ("embed", *kv_heads), inner, 2)
    linear("o", (H, h, D), (*heads, "embed"), outer, 1)
    if c.mlp == "swiglu":
        linear("gate", (D, F), ("embed", "mlp"), inner, 1)
    linear("up", (D, F), ("embed", "mlp"), inner, 1)
    linear("down", (F, D), ("mlp", "embed"), outer, 1)
    if c.qk_norm != "none":
        q_shape, k_shape = {"head": ((h,), (h,)), "full": ((H, h), (K, h))}[c.qk_norm]
        stack("q_norm", q_shape, heads[-len(q_shape) :], mean=1.0)
        stack("k_norm", k_shape, kv_heads[-len(k_shape) :], mean=1.0)
    for name in ("attention_norm", "mlp_norm"):
        stack(name, (D,), ("norm",), mean=1.0)
        if c.norm == "layernorm":
            stack(f"{name}_bias", (D,), ("norm",))
    table["final_norm"] = Parameter((D,), ("norm",), mean=1.0)
    if c.norm == "layernorm":
        table["final_norm_bias"] = Parameter((D,), ("norm",))
    return table


def initial_value(name: str, parameter: Parameter, key: jax.Array) -> jax.Array:
    """float32 of `parameter.shape`; the random stream depends on the name, so other parameters do not matter."""
    if not parameter.std:
        return jnp.full(parameter.shape, parameter.mean, jnp.float32)
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return parameter.mean + parameter.std * jax.random.normal(key, parameter.shape, jnp.float32)
