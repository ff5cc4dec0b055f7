"""The compiled half of generation: prompts are read, put into rows of a cache, and rows go on token by token.

Legend: B rows that generate, P prompts that are read together, L prompt length, T cache slots, D width, V vocab
(padded), W = V / 32 words of bits, E end tokens, N tokens of one call.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignpre_jax.model import Cache, DecoderConfig, InferenceWeights, inference, init_cache
from alignpre_jax.model import cache as caches
from alignpre_jax.model.cache import KV
from alignpre_jax.model.sharding import constrain
from alignpre_jax.sampling import strategies
from alignpre_jax.sampling.strategies import Settings

ENDS = 4  # how many end tokens a request has room for


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoding:
    """Where each row stands: its cache, the hidden state that its next token is computed from, how many new tokens it
    has so far, and a bit for each token that it has seen."""

    cache: Cache
    hidden_BD: jax.Array
    count_B: jax.Array
    seen_BW: jax.Array


class Asked(NamedTuple):
    """What each row was asked for, as arrays [B, ...] that live on the host; none of it is compiled into a program.

    Attributes:
      settings: the settings of its strategy.
      key_B2: uint32; its random stream, which is a seed and a number.
      ends_BE: int32; the tokens that end its text, filled up with -1.
      allowed_BW: uint32; a bit for each token that it may choose.
      going_B: bool; False for a row that nobody uses.
    """

    settings: Settings
    key_B2: np.ndarray
    ends_BE: np.ndarray
    allowed_BW: np.ndarray
    going_B: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 1))
def empty(config: DecoderConfig, sizes: tuple[int, int], weights: InferenceWeights) -> Decoding:
    """Returns rows that hold nothing yet; `sizes` is (B, T)."""
    del weights
    rows, slots = sizes
    hidden_BD = jnp.zeros((rows, config.width), config.dtype)
    seen_BW = jnp.zeros((rows, words(config)), jnp.uint32)
    return _lay_out(Decoding(init_cache(config, rows, slots), hidden_BD, jnp.zeros(rows, jnp.int32), seen_BW))


@functools.partial(jax.jit, static_argnums=(0, 1))
def prefill(
    config: DecoderConfig, sizes: tuple[int, int, int], weights: InferenceWeights, rows: tuple, paths_PL: jax.Array
) -> tuple[KV, jax.Array]:
    """Reads packed prompts, and returns the keys and values [P, K, L, h] of each and its last hidden state [P, D].

    Args:
      config: the decoder's config.
      sizes: the number of rows, their length L, and P.
      weights: the decoder's weights.
      rows: (tokens, positions, until); see `packing.Packed`.
      paths_PL: int32, the flat places of each prompt's tokens, filled up by repeating the last place.
    """
    del sizes
    hidden_BLD, kv = inference.read(config, weights, *rows)

    def of_prompts(x_BKLh: jax.Array) -> jax.Array:
        x_SKh = x_BKLh.swapaxes(1, 2).reshape(-1, x_BKLh.shape[1], x_BKLh.shape[3])
        return constrain(x_SKh[paths_PL].swapaxes(1, 2), (None, "kv_heads", None, None), "prompts' keys and values")

    last_PD = hidden_BLD.reshape(-1, hidden_BLD.shape[-1])[paths_PL[:, -1]]
    return jax.tree.map(of_prompts, kv), constrain(last_PD, (None, None), "prompts' ends")


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def insert(
    config: DecoderConfig, sizes: tuple, weights: InferenceWeights, state: Decoding, read: tuple, into: tuple
) -> Decoding:
    """Puts prompts that `prefill` has read into rows.

    Args:
      config: the decoder's config.
      sizes: (B, T, P, L).
      weights: the decoder's weights.
      state: the state of all rows.
      read: what `prefill` returned.
      into: (source [P], the number of a prompt; row [P], the row that gets it, or B for none; length [P], the prompt's
        length; seen [P, W], a bit for each of its tokens).
    """
    del weights
    kv, last_PD = read
    source_P, row_P, length_P, seen_PW = into
    cache = caches.put(state.cache, kv, source_P, row_P, length_P)
    hidden_BD = state.hidden_BD.at[row_P].set(last_PD[source_P], mode="drop")
    count_B = state.count_B.at[row_P].set(0, mode="drop")
    return _lay_out(Decoding(cache, hidden_BD, count_B, state.seen_BW.at[row_P].set(seen_PW, mode="drop")))


@functools.partial(jax.jit, static_argnums=(0, 1))
def resize(
    config: DecoderConfig, sizes: tuple, weights: InferenceWeights, state: Decoding, from_B: jax.Array
) -> Decoding:
    """Returns a new number of rows, with as many slots or more; each new row is the row `from_B` of the old ones.

    `sizes` is (B, T, new B, new T).
    """
    del config, weights
    state = jax.tree.map(lambda x: x[from_B], state)
    return _lay_out(dataclasses.replace(state, cache=caches.resized(state.cache, sizes[3])))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def decode(
    config: DecoderConfig, sizes: tuple[int, int, int], weights: InferenceWeights, state: Decoding, asked: Asked
) -> tuple[Decoding, jax.Array]:
    """Decodes N tokens, and returns the new state and the tokens of each row, int32 [B, N].

    The tokens of a row after one of its end tokens mean nothing. A row's random key is folded with the number of its
    own tokens alone, so what the other rows do changes nothing. `sizes` is (B, T, N).
    """
    keys_B = jax.vmap(lambda seed, number: jax.random.fold_in(jax.random.key(seed), number))(
        asked.key_B2[:, 0], asked.key_B2[:, 1]
    )

    def one(carried: tuple[Decoding, jax.Array], _: None) -> tuple[tuple[Decoding, jax.Array], jax.Array]:
        state, going_B = carried
        logits_BV = inference.logits_of(config, weights, state.hidden_BD)
        logits_BV = strategies.penalised(logits_BV, state.seen_BW, asked.settings)
        logits_BV = jnp.where(strategies.unpack(asked.allowed_BW, logits_BV.shape[1]), logits_BV, -jnp.inf)
        keys = jax.vmap(jax.random.fold_in)(keys_B, state.count_B)
        chosen_B = strategies.choose(logits_BV, asked.settings, keys)
        going_B = going_B & ~jnp.any(chosen_B[:, None] == asked.ends_BE, axis=1)
        hidden_BD, cache = inference.step(config, weights, chosen_B, state.cache)
        # The cache of a row that has ended stands still, so that it never overflows.
        cache = dataclasses.replace(cache, length_B=jnp.where(going_B, cache.length_B, state.cache.length_B))
        word_B1, bit_B1 = chosen_B[:, None] // 32, jnp.uint32(1) << (chosen_B[:, None] % 32).astype(jnp.uint32)
        old_B1 = jnp.take_along_axis(state.seen_BW, word_B1, axis=1)
        seen_BW = state.seen_BW.at[jnp.arange(len(chosen_B))[:, None], word_B1].set(old_B1 | bit_B1)
        return (_lay_out(Decoding(cache, hidden_BD, state.count_B + 1, seen_BW)), going_B), chosen_B

    (state, _), chosen_NB = jax.lax.scan(one, (state, jnp.asarray(asked.going_B)), None, length=sizes[2])
    return _lay_out(state), constrain(chosen_NB.T, (None, None), "new tokens")


def words(config: DecoderConfig) -> int:
    """Returns W, the number of uint32 words that have a bit for each token of the vocabulary."""
    return -(-config.padded_vocab // 32)


def _lay_out(state: Decoding) -> Decoding:
    rest = (constrain(x, (None,) * x.ndim, "rows") for x in (state.hidden_BD, state.count_B, state.seen_BW))
    return Decoding(caches.lay_out(state.cache), *rest)
