"""This module computes cross-entropy over a large vocabulary without ever holding the logits of a whole batch.

Legend: B rows, L length, D width, V vocab, n chunks, l positions per chunk.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from alignpre_jax.model import Decoder, sharding

# Bytes of one chunk of logits. On a CPU the chunk stays in a core's cache (512 tokens of 2,048 words); on an
# accelerator it keeps the matrix unit busy and is still small beside the memory.
CHUNK_BYTES = {"cpu": 4 << 20}
ACCELERATOR_CHUNK_BYTES = 256 << 20


def chunk_length(rows: int, length: int, vocab: int, budget: int = 0) -> int:
    """Returns how many positions a chunk has if `rows` x positions x `vocab` float32 logits fit into `budget` bytes on
    each device.

    Every chunk holds all rows (all parts of rows, where a mesh splits rows), so that the loop never runs along an axis
    that a mesh splits. A budget of 0 is chosen by platform.
    """
    sizes = sharding.mesh_axes()
    budget = budget or CHUNK_BYTES.get(sharding.platform(), ACCELERATOR_CHUNK_BYTES)
    local_rows = math.ceil(rows / math.prod(sizes.get(axis, 1) for axis in ("data", "fsdp", "sequence")))
    local_vocab = math.ceil(vocab / sizes.get("tensor", 1))
    most = min(max(budget // (4 * local_rows * local_vocab), 1), length)
    return math.ceil(length / math.ceil(length / most))


def token_losses(
    decoder: Decoder, hidden_BLD: jax.Array, targets_BL: jax.Array, chunk_bytes: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Returns (-log p(target), log Z), both float32 [B, L].

    It scans over chunks of positions; the backward pass computes a chunk's logits again (jax.checkpoint).
    """
    rows, D = hidden_BLD.shape[0], hidden_BLD.shape[2]
    B = rows * sharding.mesh_axes().get("sequence", 1)  # parts of rows, on a mesh that splits them
    hidden_BLD = sharding.flatten(hidden_BLD).reshape(B, -1, D)
    targets_BL = sharding.flatten(targets_BL).reshape(B, -1)
    L = targets_BL.shape[1]
    length = chunk_length(B, L, decoder.config.padded_vocab, chunk_bytes)
    chunks = math.ceil(L / length)
    room = ((0, 0), (0, chunks * length - L))
    hidden_nSD = jnp.pad(hidden_BLD, (*room, (0, 0))).reshape(B, chunks, length, D).swapaxes(0, 1)
    targets_nS = jnp.pad(targets_BL, room).reshape(B, chunks, length).swapaxes(0, 1)

    groups = sharding.token_groups()
    table = decoder.output_copies(groups) if groups > 1 else None

    @jax.checkpoint
    def chunk_losses(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        tokens = ("tokens",) if groups == 1 else ("tokens", None)
        logits = sharding.constrain(decoder.unembed(hidden, table), (*tokens, "vocab"), "logits")
        log_z = jax.nn.logsumexp(logits, axis=-1)
        return log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0], log_z

    def step(_: None, chunk: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        return None, chunk_losses(*chunk)

    shape = (chunks, B * length) if groups == 1 else (chunks, groups, B * length // groups)
    _, out = jax.lax.scan(step, None, (hidden_nSD.reshape(*shape, D), targets_nS.reshape(shape)))
    losses, log_z = (x.reshape(chunks, B, length).swapaxes(0, 1).reshape(B, -1)[:, :L] for x in out)
    return sharding.unflatten(losses.reshape(-1), rows), sharding.unflatten(log_z.reshape(-1), rows)
