"""This module holds attention kernels for NVIDIA GPUs that keep the segments of a packed row apart, and a trial that
tells whether they do.

jax.nn.dot_product_attention on cuDNN does not take segment ids, so they are given to it as a mask, [L, L] for each
row. The Triton kernel of jax.experimental.pallas takes segment ids as they are, and is therefore tried first.
Legend: B rows, L length, H heads, K kv heads, h head_dim.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from alignpre_jax.model.attention_xla import causal_mask, xla_attention

Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]

TRIAL_LENGTH, TOLERANCE = 256, 0.05  # tokens; the error in bfloat16, relative to the largest value


def triton_attention(
    q_BHLh: jax.Array, k_BKLh: jax.Array, v_BKLh: jax.Array, segments_BL: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Runs flash attention, causal within each segment, and returns [B, H, L, h].

    L must be a multiple of 128. `interpret` runs the kernel on a CPU.
    """
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    queries_per_key, h = q_BHLh.shape[1] // k_BKLh.shape[1], q_BHLh.shape[3]
    q, k, v = (x.swapaxes(1, 2) for x in (q_BHLh, k_BKLh, v_BKLh))
    k, v = (jnp.repeat(x, queries_per_key, axis=2) for x in (k, v))
    blocks = BlockSizes(block_q=128, block_k=64, block_q_dkv=32, block_kv_dkv=64, block_q_dq=64, block_kv_dq=32)
    out = mha(q, k, v, segments_BL, 1 / math.sqrt(h), causal=True, block_sizes=blocks, interpret=interpret)
    return out.swapaxes(1, 2)


def cudnn_attention(q_BHLh: jax.Array, k_BKLh: jax.Array, v_BKLh: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Runs cuDNN's flash attention, causal within each segment, and returns [B, H, L, h].

    A mask tells it which tokens share a segment.
    """
    q, k, v = (x.swapaxes(1, 2) for x in (q_BHLh, k_BKLh, v_BKLh))
    same_B1LL = (segments_BL[:, :, None] == segments_BL[:, None, :])[:, None]
    out = jax.nn.dot_product_attention(q, k, v, mask=same_B1LL, is_causal=True, implementation="cudnn")
    return out.swapaxes(1, 2)


KERNELS: dict[str, Kernel] = {"triton": triton_attention, "cudnn": cudnn_attention}


@functools.lru_cache(maxsize=64)
def keeps_segments_apart(name: str, queries_per_key: int, head_dim: int) -> bool:
    """Returns, and logs, whether a kernel runs here and gives the reference's values and gradients on a packed row.

    It is called while a step is being traced, so the trial runs in a thread of its own, which traces nothing.
    """
    with ThreadPoolExecutor(1) as thread:
        trouble = thread.submit(trial, KERNELS[name], queries_per_key, head_dim).result()
    verdict = f"is not used: {trouble}" if trouble else "keeps packed documents apart"
    logging.info("attention: %s with heads of %d %s", name, head_dim, verdict)
    return not trouble


def trial(kernel: Kernel, queries_per_key: int, head_dim: int) -> str:
    """Says what is wrong with a kernel on one packed row in bfloat16; returns "" if nothing is."""
    rng, device = np.random.default_rng(0), jax.local_devices()[0]
    shapes = [(1, heads, TRIAL_LENGTH, head_dim) for heads in (queries_per_key, 1, 1, queries_per_key)]
    q, k, v, slope = (jax.device_put(rng.normal(size=shape).astype(jnp.bfloat16), device) for shape in shapes)
    segments = jax.device_put(1 + np.arange(TRIAL_LENGTH, dtype=np.int32)[None] // 100, device)

    def run(attend: Kernel) -> tuple[jax.Array, ...]:
        out, back = jax.vjp(lambda q, k, v: attend(q, k, v, segments), q, k, v)
        return out, *back(slope)

    def reference(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return xla_attention(q, k, v, causal_mask(segments, TRIAL_LENGTH))

    wanted = jax.jit(run, static_argnums=0)(reference)
    try:
        found = jax.jit(run, static_argnums=0)(kernel)
        worst = max(_distance(a, b) for a, b in zip(found, wanted, strict=True))
    except Exception as error:  # a compiler or driver that cannot run it may raise any error
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    return "" if worst < TOLERANCE else f"{worst:.2g} away from the reference"


def _distance(a: jax.Array, b: jax.Array) -> float:
    """Returns the largest difference relative to the largest value of `b`, or inf if anything is not finite."""
    x, y = (np.asarray(jax.device_get(each), np.float32) for each in (a, b))
    distance = float(np.max(np.abs(x - y)) / np.max(np.abs(y)))
    return distance if math.isfinite(distance) else math.inf
