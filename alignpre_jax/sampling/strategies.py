"""How the next token is chosen: small frozen objects, found equal by value, so that a compiled program is reused."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from alignpre_jax.foundation import UserError


class Strategy(Protocol):
    """Chooses token ids int32 [B] from float32 logits [B, V], with a random key for each row."""

    def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
        """The next token of each row."""


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The most probable token."""

    def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
        """The next token of each row; the keys are not used."""
        del keys_B
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """A sample of softmax(logits / temperature); `temperature` > 0."""

    temperature: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise UserError(f"{self.temperature} is not above 0", where="temperature", fix="use Greedy() for 0")

    def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
        """The next token of each row."""
        return jax.vmap(jax.random.categorical)(keys_B, logits_BV / self.temperature).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class TopP:
    """A sample from the smallest set of tokens whose mass reaches `p` (Holtzman et al. 2020, arXiv 1904.09751, 3.1).

    The mass is that of softmax(logits / temperature); the most probable token is always in the set.
    """

    p: float = 0.95
    temperature: float = 1.0

    def __post_init__(self):
        Temperature(self.temperature)
        if not 0 <= self.p <= 1:
            raise UserError(f"{self.p} is not a probability", where="top_p", fix="give a number in [0, 1]")

    def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
        """The next token of each row."""
        logits_BV = logits_BV / self.temperature
        ranked_BV = jnp.sort(jax.nn.softmax(logits_BV), axis=-1, descending=True)
        before_BV = jnp.cumsum(ranked_BV, axis=-1) - ranked_BV  # mass of what is more probable
        last_B = jnp.maximum(jnp.sum(before_BV < self.p, axis=-1), 1) - 1
        least_B1 = jnp.take_along_axis(ranked_BV, last_B[:, None], axis=-1)
        kept_BV = jnp.where(jax.nn.softmax(logits_BV) >= least_B1, logits_BV, -jnp.inf)
        return jax.vmap(jax.random.categorical)(keys_B, kept_BV).astype(jnp.int32)
