"""This module takes a 32-bit fingerprint of a global batch, the same on the host and on a sharded device array.

Every value of every column is hashed together with its place (row of the global batch, position) and its
column's name, and the hashes are added modulo 2^32. Addition is exact and commutes, so it does not matter in which
order, or on how many devices, the sum is taken; a changed value or two swapped rows change it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint32(0x9E3779B9)
_FIRST = np.uint32(0x85EBCA6B)
_SECOND = np.uint32(0xC2B2AE35)
_WIDE, _NARROW = np.uint32(16), np.uint32(13)


def fingerprint(columns: Mapping[str, NDArray[Any]], first_row: int = 0) -> np.uint32:
    """Returns the fingerprint of a batch's columns on the host.

    Args:
      columns: arrays [B, L] by name, "tokens" among them. Rows of text have no other column but "segments", and their
        fingerprint is that of the tokens alone; with any further column, all columns count.
      first_row: the place of the first row in the global batch. With it, the fingerprints of the hosts'
        slices add up, modulo 2^32, to that of the whole batch.
    """
    shape = columns["tokens"].shape
    rows = np.arange(first_row, first_row + shape[0], dtype=np.uint32)
    places = np.arange(shape[1], dtype=np.uint32)
    total = np.uint32(0)
    with np.errstate(over="ignore"):
        for name in _counted(columns):
            column = np.asarray(columns[name])
            words = column.view(np.uint32) if column.dtype == np.float32 else column.astype(np.uint32)
            total += _hash(words, rows, places, _salt(name)).sum(dtype=np.uint32)
    return total


def fingerprint_on_device(columns: Mapping[str, jax.Array]) -> jax.Array:
    """Returns the same value as a uint32 scalar, inside jit, for global [B, L] arrays however they are sharded."""
    rows, places = (jnp.arange(size, dtype=jnp.uint32) for size in columns["tokens"].shape)
    total = jnp.uint32(0)
    for name in _counted(columns):
        column = columns[name]
        is_float = column.dtype == jnp.float32
        words = jax.lax.bitcast_convert_type(column, jnp.uint32) if is_float else column.astype(jnp.uint32)
        total += _hash(words, rows, places, _salt(name)).sum(dtype=jnp.uint32)
    return total


def _counted(columns: Mapping[str, Any]) -> list[str]:
    return ["tokens"] if set(columns) <= {"tokens", "segments"} else sorted(columns)


def _salt(name: str) -> np.uint32:
    """Returns a number that tells columns apart, so that values which change their column are noticed; 0 for tokens."""
    return np.uint32(0 if name == "tokens" else zlib.crc32(name.encode()))


def _hash(words: Any, rows: Any, places: Any, salt: np.uint32) -> Any:
    """Hashes each of `words` (uint32[B, L]) with its row and its place, for numpy and jax arrays alike."""
    word = _stir(words + places * _GOLDEN)
    return _stir(word + (_stir(rows + _GOLDEN) ^ salt)[:, None])


def _stir(word: Any) -> Any:
    """Applies the 32-bit finaliser of MurmurHash3 (Appleby 2011): an input bit flips each output bit half the time."""
    word = (word ^ (word >> _WIDE)) * _FIRST
    word = (word ^ (word >> _NARROW)) * _SECOND
    return word ^ (word >> _WIDE)
