"""This objective is maximum likelihood: the cross-entropy of the next token."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from alignpre_jax.foundation import UserError
from alignpre_jax.objectives.contract import Aux, Columns, Models, Terms
from alignpre_jax.objectives.cross_entropy import token_losses


@dataclasses.dataclass(frozen=True)
class Mle:
    """`Mle` is the mean of -log p(token t+1 | the tokens up to t of the same segment) over all targets of the batch.

    The batch is the global one. The last token of a document predicts the <|endoftext|> that begins the next one; the
    last position of a row predicts nothing. Padding (segment 0) and tokens that the batch's mask leaves out are not
    predicted: on rows of chats with a mask this is the loss of supervised finetuning.

    Args:
      name: the tag by which a config names this objective.
      z_loss: weight of mean((log Z)^2), which keeps the softmax's normaliser near 1 (PaLM, arXiv 2204.02311,
        section 5, uses 1e-4); 0 leaves it out.
      chunk_bytes: bytes for one chunk of float32 logits on one device; 0 chooses them by platform.
    """

    name: Literal["mle"] = "mle"
    z_loss: float = 0.0
    chunk_bytes: int = 0

    reads: ClassVar[tuple[str, ...]] = ("tokens", "segments")
    heads: ClassVar[tuple[str, ...]] = ()
    needs_reference: ClassVar[bool] = False

    def __post_init__(self):
        for name in ("z_loss", "chunk_bytes"):
            if getattr(self, name) < 0:
                raise UserError(f"{getattr(self, name)} is negative", where=name, fix="give 0 or more")

    def weights(self, batch: Columns) -> dict[str, jax.Array]:
        """Returns the number of targets for both terms, because both are means over the targets of the batch."""
        targets = jnp.sum(next_tokens(batch)[1])
        return {"nll": targets} | ({"z": targets} if self.z_loss else {})

    def terms(self, models: Models, batch: Columns) -> tuple[Terms, Aux]:
        """Returns the sums of -log p and (log Z)^2 over the targets of these rows, and the figures of `Contract`."""
        targets_BL, counted_BL = next_tokens(batch)
        hidden_BLD = models.policy(batch.tokens, batch.segments)
        losses_BL, log_z_BL = token_losses(models.policy, hidden_BLD, targets_BL, self.chunk_bytes)
        losses_BL = losses_BL * counted_BL
        loss_sum_B, targets_B = jnp.sum(losses_BL, axis=1), jnp.sum(counted_BL, axis=1)
        terms: Terms = {"nll": (1.0, jnp.sum(loss_sum_B))}
        if self.z_loss:
            terms["z"] = (self.z_loss, jnp.sum(jnp.square(log_z_BL) * counted_BL))
        aux = {"loss_sum_B": loss_sum_B, "targets_B": targets_B, "losses_BL": losses_BL, "counted_BL": counted_BL}
        return terms, aux


def next_tokens(batch: Columns) -> tuple[jax.Array, jax.Array]:
    """Returns (targets int32 [B, L], counted float32 [B, L]): what each position predicts, and 1 where that counts.

    The mask belongs to the token, and this is the one place where it is shifted to the position that predicts the
    token. A target counts unless it is padding (segment 0) or the batch has a `mask` that is 0 there.
    """
    counts_BL = batch.segments > 0
    mask_BL = getattr(batch, "mask", None)
    if mask_BL is not None:
        counts_BL = counts_BL & (mask_BL > 0)
    counted_BL = jnp.roll(counts_BL, -1, axis=1).at[:, -1].set(False).astype(jnp.float32)
    return jnp.roll(batch.tokens, -1, axis=1), counted_BL
