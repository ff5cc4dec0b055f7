"""The compiled half of generation: prefill, then decode a few tokens at a time with a KV cache.

Legend: B rows, L prompt length, N tokens of one call, D width, V vocab.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from alignpre_jax.model import Cache, DecoderConfig, bind, init_cache
from alignpre_jax.sampling.strategies import Strategy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoding:
    """Where each row stands: its cache, the logits [B, V] of its next token, its key, its step, and if it is done."""

    cache: Cache
    logits_BV: jax.Array
    keys_B: jax.Array
    step: jax.Array
    done_B: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 4))
def prefill(
    config: DecoderConfig, params: nnx.State, prompts_BL: jax.Array, lengths_B: jax.Array, slots: int, keys_B: jax.Array
) -> Decoding:
    """Reads left-aligned prompts of `lengths_B` tokens (0 for a row that is not used) into a cache of `slots`."""
    B, L = prompts_BL.shape
    decoder = bind(config, params)
    valid_BL = (jnp.arange(L) < lengths_B[:, None]).astype(jnp.int32)
    hidden_BLD, cache = decoder(prompts_BL, valid_BL, cache=init_cache(config, B, slots))
    last_BD = jnp.take_along_axis(hidden_BLD, jnp.maximum(lengths_B - 1, 0)[:, None, None], axis=1)[:, 0]
    return Decoding(cache, decoder.unembed(last_BD), keys_B, jnp.zeros((), jnp.int32), lengths_B == 0)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5), donate_argnums=2)
def decode(
    config: DecoderConfig, params: nnx.State, state: Decoding, strategy: Strategy, stop: int, count: int
) -> tuple[Decoding, jax.Array]:
    """The next `count` tokens of each row, int32 [B, count]; a row that is done goes on with `stop`.

    A row's random key is folded with the step alone, so what the other rows do changes nothing.
    """
    decoder = bind(config, params)

    def step(state: Decoding, _: None) -> tuple[Decoding, jax.Array]:
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(state.keys_B, state.step)
        chosen_B = jnp.where(state.done_B, stop, strategy.choose(state.logits_BV, keys_B))
        hidden_B1D, cache = decoder(chosen_B[:, None], cache=state.cache)
        done_B = state.done_B | (chosen_B == stop)
        # A finished row stands still: its cache never runs over.
        cache = dataclasses.replace(cache, length_B=jnp.where(done_B, state.cache.length_B, cache.length_B))
        logits_BV = decoder.unembed(hidden_B1D[:, 0])
        return Decoding(cache, logits_BV, state.keys_B, state.step + 1, done_B), chosen_B

    state, chosen_NB = jax.lax.scan(step, state, None, length=count)
    return state, chosen_NB.T
