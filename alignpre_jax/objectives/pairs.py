"""Packed pairs of answers: which segments of a row make a pair, and the log-probs of their answers.

A pair is two segments of one row: the chosen answer (side 1) and the rejected one that follows it (side -1), each after
the prompt. A row holds any number of pairs. Everything per segment is an array [B, S], where S is the most segments
that a row of pairs may have, because every side has two tokens or more.

The sums over a segment are sums over the whole row of what is 0 outside of the segment, rather than additions at an
index. So their order is fixed, they need no atomic additions, and a mesh may split the rows and the positions alike.

Legend: B rows, L length, S segments.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignpre_jax.model import Decoder
from alignpre_jax.objectives.contract import Aux, Columns
from alignpre_jax.objectives.cross_entropy import token_losses
from alignpre_jax.objectives.mle import next_tokens


class Pairs(NamedTuple):
    """Where the pairs of some rows are. What is about a pair stands at the chosen segment.

    Attributes:
      targets_BL: int32, the token that each position predicts.
      counted_BL: float32, 1 where that token is learnt and is of the same segment as the position.
      segments_BL: int32, the segment of that token.
      sides_BL: the side of that token.
      paired_BS: float32, 1 at the chosen segment of every pair.
      chosen_BS: float32, the learnt tokens of the chosen answer; 1 where there is no pair.
      rejected_BS: float32, the learnt tokens of the rejected answer; 1 where there is no pair.
    """

    targets_BL: jax.Array
    counted_BL: jax.Array
    segments_BL: jax.Array
    sides_BL: jax.Array
    paired_BS: jax.Array
    chosen_BS: jax.Array
    rejected_BS: jax.Array


class LogProbs(NamedTuple):
    """The log-probs of the answers of each pair under one model; 0 where there is no pair.

    Attributes:
      chosen_BS: float32, of the chosen answer: the sum over its learnt tokens.
      rejected_BS: float32, of the rejected answer.
      losses_BL: float32, -log p of every learnt token, 0 elsewhere.
    """

    chosen_BS: jax.Array
    rejected_BS: jax.Array
    losses_BL: jax.Array


def find_pairs(batch: Columns) -> Pairs:
    """Returns where the pairs of the rows are. A segment without its other side takes no part."""
    targets_BL, counted_BL = next_tokens(batch)
    segments_BL = jnp.roll(batch.segments, -1, axis=1)
    sides_BL = jnp.roll(batch.side, -1, axis=1)  # type: ignore[attr-defined]
    counted_BL = counted_BL * (segments_BL == batch.segments)
    chosen_BS = _by_segment(counted_BL * (sides_BL > 0), segments_BL)
    rejected_BS = _next(_by_segment(counted_BL * (sides_BL < 0), segments_BL))
    is_pair_BS = (chosen_BS > 0) & (rejected_BS > 0)
    return Pairs(
        targets_BL,
        counted_BL,
        segments_BL,
        sides_BL,
        is_pair_BS.astype(jnp.float32),
        jnp.where(is_pair_BS, chosen_BS, 1.0),
        jnp.where(is_pair_BS, rejected_BS, 1.0),
    )


def log_probs(decoder: Decoder, batch: Columns, pairs: Pairs, chunk_bytes: int) -> LogProbs:
    """Returns the log-probs of the answers of each pair under `decoder`."""
    hidden_BLD = decoder(batch.tokens, batch.segments)
    losses_BL = token_losses(decoder, hidden_BLD, pairs.targets_BL, chunk_bytes)[0] * pairs.counted_BL
    chosen_BS = _by_segment(-losses_BL * (pairs.sides_BL > 0), pairs.segments_BL)
    rejected_BS = _next(_by_segment(-losses_BL * (pairs.sides_BL < 0), pairs.segments_BL))
    return LogProbs(chosen_BS * pairs.paired_BS, rejected_BS * pairs.paired_BS, losses_BL)


def figures(pairs: Pairs, found: LogProbs, margins_BS: jax.Array) -> Aux:
    """Returns the figures of `Contract.terms`, and each of `FIGURES` summed over the pairs of each row."""
    wins_BS = (margins_BS > 0).astype(jnp.float32)
    by_pair = {
        "mean_margin": margins_BS,
        "mean_accuracy": wins_BS,
        "mean_chosen_log_prob": found.chosen_BS,
        "mean_rejected_log_prob": found.rejected_BS,
        "mean_chosen_log_prob_per_token": found.chosen_BS / pairs.chosen_BS,
        "mean_rejected_log_prob_per_token": found.rejected_BS / pairs.rejected_BS,
    }
    assert tuple(by_pair) == FIGURES
    return {
        "loss_sum_B": jnp.sum(found.losses_BL, axis=1),
        "targets_B": jnp.sum(pairs.counted_BL, axis=1),
        "losses_BL": found.losses_BL,
        "counted_BL": pairs.counted_BL,
        **{f"{name}_B": jnp.sum(values * pairs.paired_BS, axis=1) for name, values in by_pair.items()},
    }


FIGURES = (
    *("mean_margin", "mean_accuracy"),
    *("mean_chosen_log_prob", "mean_rejected_log_prob"),
    *("mean_chosen_log_prob_per_token", "mean_rejected_log_prob_per_token"),
)


def _by_segment(values_BL: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Returns the sums over segment 1, 2, ... of each row, float32 [B, S]."""
    numbers_S = jnp.arange(1, max(values_BL.shape[1] // 2, 1) + 1)
    is_of_BSL = segments_BL[:, None, :] == numbers_S[:, None]
    return jnp.sum(jnp.where(is_of_BSL, values_BL[:, None, :], 0.0), axis=-1)


def _next(values_BS: jax.Array) -> jax.Array:
    """Returns at each segment the value of the segment after it."""
    return jnp.roll(values_BS, -1, axis=1).at[:, -1].set(0.0)
