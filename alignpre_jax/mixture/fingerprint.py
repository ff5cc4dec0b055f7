"""A 32-bit fingerprint of a global batch, the same on the host and on a sharded device array.

Every token is hashed together with its place (row of the global batch, column), and the hashes are
added modulo 2^32. Addition is exact and commutes, so it does not matter in which order, or on how
many devices, the sum is taken; a changed token or two swapped rows change it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint32(0x9E3779B9)
_FIRST = np.uint32(0x85EBCA6B)
_SECOND = np.uint32(0xC2B2AE35)
_WIDE, _NARROW = np.uint32(16), np.uint32(13)


def fingerprint(tokens: NDArray[np.int32], first_row: int = 0) -> np.uint32:
    """The fingerprint of a batch on the host.

    Args:
      tokens: int32[B, L].
      first_row: the place of the first row in the global batch: the fingerprints of the hosts'
        slices add up, modulo 2^32, to that of the whole.
    """
    rows = np.arange(first_row, first_row + tokens.shape[0], dtype=np.uint32)
    columns = np.arange(tokens.shape[1], dtype=np.uint32)
    return _hash(tokens, rows, columns).sum(dtype=np.uint32)


def fingerprint_on_device(tokens: jax.Array) -> jax.Array:
    """The same value as a uint32 scalar, inside jit, of a global int32[B, L] array however it is sharded."""
    rows, columns = (jnp.arange(size, dtype=jnp.uint32) for size in tokens.shape)
    return _hash(tokens, rows, columns).sum(dtype=jnp.uint32)


def _hash(tokens: Any, rows: Any, columns: Any) -> Any:
    """uint32[B, L] for numpy and jax arrays alike."""
    word = _stir(tokens.astype(np.uint32) + columns * _GOLDEN)
    return _stir(word + _stir(rows + _GOLDEN)[:, None])


def _stir(word: Any) -> Any:
    """The 32-bit finaliser of MurmurHash3 (Appleby 2011): every input bit flips each output bit half the time."""
    word = (word ^ (word >> _WIDE)) * _FIRST
    word = (word ^ (word >> _NARROW)) * _SECOND
    return word ^ (word >> _WIDE)
