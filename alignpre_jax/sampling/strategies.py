"""Strategies say how the next token is chosen; these small frozen objects become numbers in arrays, one for each row.

So a new strategy compiles nothing. Legend: B rows, V vocab (padded), W = V / 32 words of bits, n = V / 256 blocks.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignpre_jax.foundation import UserError

_BLOCK = 256  # probabilities are summed over blocks of this many tokens, then inside one of the blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy:
    """A strategy samples from softmax(logits / temperature), cut in the order of its fields; the defaults cut nothing.

    Args:
      repetition_penalty: the logits of tokens that are in the prompt or the text are divided by it where they are
        positive, and multiplied by it where not (Keskar et al. 2019, arXiv 1909.05858, section 4.1).
      temperature: 0 takes the most probable token.
      top_k: keeps only the k most probable tokens; 0 keeps all.
      top_p: keeps only the smallest set of tokens whose mass reaches it (Holtzman et al. 2020, arXiv 1904.09751, 3.1).
      min_p: keeps only tokens with at least this share of the largest probability (Nguyen et al. 2024, arXiv
        2407.01082).

    Equally probable tokens are kept or cut together.

    Raises:
      UserError: a value outside its range.
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"{self.temperature} is no temperature", where="temperature", fix="give 0 or more")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UserError(
                f"{self.repetition_penalty} is not above 0", where="repetition_penalty", fix="give e.g. 1.2; 1 is none"
            )
        if self.top_k < 0:
            raise UserError(f"{self.top_k} is not a number of tokens", where="top_k", fix="give 0 for all")
        for name in ("top_p", "min_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"{getattr(self, name)} is not a probability", where=name, fix="give a number in [0, 1]"
                )


def Greedy(*, repetition_penalty: float = 1.0) -> Strategy:
    """Returns the strategy that takes the most probable token."""
    return Strategy(temperature=0.0, repetition_penalty=repetition_penalty)


def Temperature(temperature: float = 1.0) -> Strategy:
    """Returns the strategy that samples from softmax(logits / temperature)."""
    return Strategy(temperature=temperature)


def TopK(k: int, temperature: float = 1.0) -> Strategy:
    """Returns the strategy that samples from the k most probable tokens."""
    return Strategy(top_k=k, temperature=temperature)


def TopP(p: float = 0.95, temperature: float = 1.0) -> Strategy:
    """Returns the strategy that samples from the smallest set of tokens whose mass reaches `p`."""
    return Strategy(top_p=p, temperature=temperature)


def MinP(p: float = 0.05, temperature: float = 1.0) -> Strategy:
    """Returns the strategy that samples from the tokens that have at least `p` of the largest probability."""
    return Strategy(min_p=p, temperature=temperature)


class Settings(NamedTuple):
    """The strategies of all rows as arrays [B], which are float32, and int32 for `top_k`."""

    repetition_penalty: np.ndarray | jax.Array
    temperature: np.ndarray | jax.Array
    top_k: np.ndarray | jax.Array
    top_p: np.ndarray | jax.Array
    min_p: np.ndarray | jax.Array

    @classmethod
    def of(cls, strategies: list[Strategy]) -> Settings:
        """Returns the settings of rows with these strategies."""
        columns = zip(*map(dataclasses.astuple, strategies), strict=True)
        types = [np.int32 if name == "top_k" else np.float32 for name in cls._fields]
        return cls(*(np.array(column, kind) for column, kind in zip(columns, types, strict=True)))


def penalised(logits_BV: jax.Array, seen_BW: jax.Array, settings: Settings) -> jax.Array:
    """Returns the logits after the repetition penalty; a set bit of `seen_BW` marks a token that was there before."""

    def penalise() -> jax.Array:
        penalty_B1 = settings.repetition_penalty[:, None]
        changed_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
        return jnp.where(unpack(seen_BW, logits_BV.shape[1]), changed_BV, logits_BV)

    return jax.lax.cond(jnp.any(settings.repetition_penalty != 1), penalise, lambda: logits_BV)


def choose(logits_BV: jax.Array, settings: Settings, keys_B: jax.Array) -> jax.Array:
    """Chooses the next token of each row, int32 [B], from float32 logits and a random key for each row.

    Whole-vocabulary work that no row asks for is skipped: without sampling there is nothing but an argmax, and
    without top_k, top_p and min_p no threshold is looked for.
    """
    best_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    greedy_B = settings.temperature == 0

    def draw() -> jax.Array:
        chances_BV = jax.nn.softmax(logits_BV / jnp.where(greedy_B, 1, settings.temperature)[:, None], axis=-1)
        cut = jnp.any((settings.top_k > 0) | (settings.top_p < 1) | (settings.min_p > 0))
        kept_BV = jax.lax.cond(cut, lambda: _cut(chances_BV, settings), lambda: chances_BV)
        uniform_B = jax.vmap(jax.random.uniform)(keys_B)
        return jnp.where(greedy_B, best_B, _inverse(kept_BV, uniform_B))

    return jax.lax.cond(jnp.all(greedy_B), lambda: best_B, draw)


def pack(tokens: np.ndarray | list[int], vocab: int) -> np.ndarray:
    """Returns a bit for each token of the vocabulary, uint32 [W], which is set for the tokens given."""
    bits = np.zeros(-(-vocab // 32) * 32, bool)
    bits[np.asarray(tokens, np.int64)] = True
    return np.packbits(bits.reshape(-1, 32), axis=1, bitorder="little").view(np.uint32)[:, 0]


def unpack(bits_BW: jax.Array | np.ndarray, vocab: int) -> jax.Array:
    """Returns the bits as bool [B, vocab]."""
    bits = (jnp.asarray(bits_BW)[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return bits.reshape(len(bits_BW), -1)[:, :vocab] > 0


def _cut(chances_BV: jax.Array, settings: Settings) -> jax.Array:
    """Returns the chances, with 0 for the tokens that are cut, which are all those below one threshold in each row."""
    largest_B = jnp.max(chances_BV, axis=-1)
    k_B = jnp.where(settings.top_k > 0, settings.top_k, chances_BV.shape[1])
    by_k_B = _threshold(lambda least_B1: jnp.sum(chances_BV >= least_B1, axis=-1) >= k_B, len(k_B))
    first_BV = jnp.where(chances_BV >= by_k_B[:, None], chances_BV, 0)
    mass_B = jnp.sum(first_BV, axis=-1) * settings.top_p

    def enough(least_B1: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(first_BV >= least_B1, first_BV, 0), axis=-1) >= mass_B

    by_p_B = jnp.where(settings.top_p < 1, _threshold(enough, len(k_B)), 0)
    least_B = jnp.minimum(jnp.maximum(by_p_B, settings.min_p * largest_B), largest_B)
    return jnp.where(first_BV >= least_B[:, None], first_BV, 0)


def _threshold(enough, rows: int) -> jax.Array:
    """Returns the largest float32 t [B] >= 0 for which `enough(t[:, None])` holds; it must hold for all smaller t, too.

    It is found bit by bit, which needs no sorted vocabulary: floats that are not negative have the same order when
    their bits are read as integers.
    """

    def try_bit(number: jax.Array, found_B: jax.Array) -> jax.Array:
        higher_B = found_B | (jnp.int32(1) << (29 - number))
        at_B = jax.lax.bitcast_convert_type(higher_B, jnp.float32)
        return jnp.where(enough(at_B[:, None]), higher_B, found_B)

    # Probabilities are at most 1 = 0x3F800000: bits 29 down to 0 can be set.
    bits_B = jax.lax.fori_loop(0, 30, try_bit, jnp.zeros(rows, jnp.int32))
    return jax.lax.bitcast_convert_type(bits_B, jnp.float32)


def _inverse(chances_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """Returns the token at which the cumulated chances pass uniform * their sum; its chance is never 0."""
    B, V = chances_BV.shape
    chances_Bnm = jnp.pad(chances_BV, ((0, 0), (0, -V % _BLOCK))).reshape(B, -1, _BLOCK)
    until_Bn = jnp.cumsum(jnp.sum(chances_Bnm, axis=-1), axis=-1)
    block_B, before_B, goal_B = _passed(until_Bn, uniform_B * until_Bn[:, -1])
    inside_Bm = jnp.cumsum(jnp.take_along_axis(chances_Bnm, block_B[:, None, None], axis=1)[:, 0], axis=-1)
    place_B, _, _ = _passed(inside_Bm, goal_B - before_B)
    return (block_B * _BLOCK + place_B).astype(jnp.int32)


def _passed(until_Bn: jax.Array, goal_B: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (the first place whose sum is above the goal, the sum before it, the goal lowered below the last sum)."""
    goal_B = jnp.minimum(goal_B, jnp.nextafter(until_Bn[:, -1], jnp.zeros(())))
    place_B = jnp.sum(until_Bn <= goal_B[:, None], axis=-1)
    before_B = jnp.take_along_axis(until_Bn, jnp.maximum(place_B - 1, 0)[:, None], axis=1)[:, 0]
    return place_B, jnp.where(place_B > 0, before_B, 0), goal_B
