"""An objective consists of sums that a model gives, divided by weights that can be had without a model.

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

# For each term by name: (its coefficient, its sum over the rows at hand, which is a float32 scalar).
Terms: TypeAlias = dict[str, tuple[float, jax.Array]]
# Figures of the rows at hand. The end of a name says the shape: "_B" has one value for each row, "_BL" one per token.
Aux: TypeAlias = dict[str, jax.Array]


class Columns(Protocol):
    """`Columns` are a batch as an objective reads it: named columns of the same shape, [B, L]."""

    @property
    def tokens(self) -> Any:
        """Token ids, int32."""

    @property
    def segments(self) -> Any:
        """The number of the document that a token is from, int32, counted from 1 in each row; 0 is padding."""


class Models(NamedTuple):
    """`Models` are the models that an objective may ask: the one that learns, and the one that it is compared with."""

    policy: Decoder
    reference: Decoder | None = None  # given where the objective says `needs_reference`


class Contract(Protocol):
    """The `Contract` is what the training step asks of an objective, beside its settings.

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
        """Returns what the sum of each term is divided by: a float32 scalar over the whole global batch."""

    def terms(self, models: Models, batch: Columns) -> tuple[Terms, Aux]:
        """Returns the sums over the rows of `batch`, which may be a microbatch, and figures of them for the metrics.

        The figures must hold "loss_sum_B" and "targets_B" (the sum of the losses and the number of targets of each
        row), "losses_BL" and "counted_BL" (the loss and 1 at every position that predicts a target, 0 elsewhere).
        """


def total(terms: Terms, weights: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the loss: the sum over the terms of coefficient x sum / weight.

    A weight of 0 means that there is nothing to learn, so the sum is 0 as well; it is then divided by 1 instead.
    """
    assert terms.keys() == weights.keys(), (sorted(terms), sorted(weights))
    parts = [
        coefficient * value / jnp.where(weights[name] > 0, weights[name], 1.0)
        for name, (coefficient, value) in terms.items()
    ]
    return sum(parts[1:], parts[0])
