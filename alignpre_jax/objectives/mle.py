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
    predicts nothing, and neither is padding (segment 0) predicted.

    Returns:
      The loss (float32 scalar, z-loss included) and aux: "loss" (without z-loss), "loss_sum_B" and "targets_B"
      (float32 [B], the sum of the losses and the number of targets of each row, for losses per source).
    """
    targets_BL = jnp.roll(batch.tokens, -1, axis=1)
    counted_BL = (jnp.roll(batch.segments, -1, axis=1) > 0).at[:, -1].set(False).astype(jnp.float32)
    hidden_BLD = decoder(batch.tokens, batch.segments)
    losses_BL, log_z_BL = token_losses(decoder, hidden_BLD, targets_BL, config.chunk_bytes)
    loss_sum_B, targets_B = jnp.sum(losses_BL * counted_BL, axis=1), jnp.sum(counted_BL, axis=1)
    targets = jnp.maximum(jnp.sum(targets_B), 1.0)
    loss = jnp.sum(loss_sum_B) / targets
    aux = {"loss": loss, "loss_sum_B": loss_sum_B, "targets_B": targets_B}
    if config.z_loss:
        loss = loss + config.z_loss * jnp.sum(jnp.square(log_z_BL) * counted_BL) / targets
    return loss, aux
