"""Maximum likelihood: the next token's cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from alignpre_jax.model import Decoder
from alignpre_jax.objectives.cross_entropy import token_losses
from alignpre_jax.objectives.registry import Aux, ObjectiveConfig, RowBatch, register


@register("mle")
def mle(config: ObjectiveConfig, decoder: Decoder, batch: RowBatch) -> tuple[jax.Array, Aux]:
    """Mean of -log p(token t+1 | tokens up to t of the same segment).

    The last token of a document predicts the <|endoftext|> that begins the next one; the last position of a row
    predicts nothing. Padding (segment 0) and tokens that the batch's mask leaves out are not predicted.

    Returns:
      The loss (float32 scalar, z-loss included) and aux: "loss" (without z-loss); "weight", the number of targets
      that the loss is the mean over (1 where there is none); "loss_sum_B" and "targets_B" (float32 [B], the sum of
      the losses and the number of targets of each row, for losses per source); "losses_BL" and "counted_BL" (float32
      [B, L], at the position that predicts: the loss of a target, and 1 for a target; 0 where there is none).
    """
    targets_BL, counted_BL = next_tokens(batch)
    hidden_BLD = decoder(batch.tokens, batch.segments)
    losses_BL, log_z_BL = token_losses(decoder, hidden_BLD, targets_BL, config.chunk_bytes)
    losses_BL = losses_BL * counted_BL
    loss_sum_B, targets_B = jnp.sum(losses_BL, axis=1), jnp.sum(counted_BL, axis=1)
    targets = jnp.maximum(jnp.sum(targets_B), 1.0)
    loss = jnp.sum(loss_sum_B) / targets
    aux = {"loss": loss, "weight": targets, "loss_sum_B": loss_sum_B, "targets_B": targets_B}
    aux |= {"losses_BL": losses_BL, "counted_BL": counted_BL}
    if config.z_loss:
        loss = loss + config.z_loss * jnp.sum(jnp.square(log_z_BL) * counted_BL) / targets
    return loss, aux


def next_tokens(batch: RowBatch) -> tuple[jax.Array, jax.Array]:
    """(targets int32 [B, L], counted float32 [B, L]): what each position predicts, and 1 where that counts.

    A target counts unless it is padding (segment 0) or the batch has a `mask` that is 0 there.
    """
    counts_BL = batch.segments > 0
    mask_BL = getattr(batch, "mask", None)
    if mask_BL is not None:
        counts_BL = counts_BL & (mask_BL > 0)
    counted_BL = jnp.roll(counts_BL, -1, axis=1).at[:, -1].set(False).astype(jnp.float32)
    return jnp.roll(batch.tokens, -1, axis=1), counted_BL
