"""What an objective is: sums that the model gives, divided by weights that it does not need a model for.

An objective is one frozen dataclass in one file; its fields are its settings. A step first asks for the weights of the
whole global batch, and then, microbatch by microbatch, for the sums. Each sum is divided by the weight of the whole
batch, so neither the split into microbatches nor a microbatch without anything to learn changes the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from alignpre_jax.model import Decoder

# By term: (coefficient, sum over the rows at hand, a float32 scalar).
Terms: TypeAlias = dict[str, tuple[float, jax.Array]]
# Figures of the rows at hand; the end of a name says the shape: "_B" one for each row, "_BL" one for each token.
Aux: TypeAlias = dict[str, jax.Array]


class Columns(Protocol):
    """A batch as an objective reads it: named columns of equal length, [B, L]."""

    @property
    def tokens(self) -> Any:
        """Token ids, int32."""

    @property
    def segments(self) -> Any:
        """Which document of its row a token is from, counted from 1; 0 is padding."""


class Models(NamedTuple):
    """The models that an objective may ask: the one that learns, and the one that it is compared with."""

    policy: Decoder
    reference: Decoder | None = None  # where the objective says `needs_reference`


class Contract(Protocol):
    """What the training step asks of an objective, beside its settings.

    Attributes:
      reads: the columns of a batch without which the objective cannot be computed.
      heads: the names of the heads that it trains beside the decoder.
      needs_reference: whether `terms` reads `models.reference`.
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """See the class."""

    @property
    def heads(self) -> tuple[str, ...]:
        """See the class."""

    @property
    def needs_reference(self) -> bool:
        """See the class."""

    def weights(self, batch: Columns) -> dict[str, jax.Array]:
        """By term: what its sum is divided by, a float32 scalar over the whole global batch."""

    def terms(self, models: Models, batch: Columns) -> tuple[Terms, Aux]:
        """The sums over the rows of `batch`, which may be a microbatch, with figures of these rows for the metrics.

        The figures must hold "loss_sum_B" and "targets_B" (the sum of the losses and the number of targets of each
        row), "losses_BL" and "counted_BL" (the loss and 1 at every position that predicts a target, 0 elsewhere).
        """


def total(terms: Terms, weights: Mapping[str, jax.Array]) -> jax.Array:
    """The loss: the sum over the terms of coefficient x sum / weight; a term whose weight is 0 is 0."""
    assert terms.keys() == weights.keys(), (sorted(terms), sorted(weights))
    parts = [
        coefficient * value / jnp.where(weights[name] > 0, weights[name], 1.0)
        for name, (coefficient, value) in terms.items()
    ]
    return sum(parts[1:], parts[0])
