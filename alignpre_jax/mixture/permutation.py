"""This module has seeded bijections on [0, n): shuffles with random access in both directions that store nothing.

`permute` writes an index as a pair (left, right) and mixes the two halves into each other in
Feistel rounds with modular addition; the few results that fall outside [0, n) are sent through
again ("cycle walking"). Both are from Black & Rogaway (2002), "Ciphers with Arbitrary Finite
Domains", sections 3 and 4. All arithmetic is on unsigned 64-bit integers, so every machine
computes the same order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignpre_jax.foundation import digest

MAX_SIZE = 1 << 48
ROUNDS = 6

Words = NDArray[np.uint64]

_ONE, _LEAST, _HALF = np.uint64(1), np.uint64(8), np.uint64(32)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STIR = np.uint64(0xBF58476D1CE4E5B9)
_FOLD = np.uint64(0x94D049BB133111EB)
_WEYL = np.arange(ROUNDS, dtype=np.uint64) * _GOLDEN


def derive_key(*labels: int | str) -> int:
    """Returns a 64-bit key that is a pure function of `labels`, e.g. `derive_key(seed, "epoch", store)`."""
    return int(digest(list(labels), 16), 16)


def mix(key: ArrayLike, number: ArrayLike) -> Words:
    """Returns the key of child `number` of `key`, elementwise: SplitMix64 (Steele et al. 2014) at that position."""
    word = _words(key) + (_words(number) + _ONE) * _GOLDEN
    word = (word ^ (word >> np.uint64(30))) * _STIR
    word = (word ^ (word >> np.uint64(27))) * _FOLD
    return word ^ (word >> np.uint64(31))


def permute(index: ArrayLike, size: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Sends each index to its place under the bijection of [0, size) that `key` chooses.

    Args:
      index: int64[n], each in [0, size).
      size: one size or int64[n], each in [1, 2^48].
      key: one key or uint64[n] (see `derive_key` and `mix`).

    Returns:
      int64[n], each in [0, size).
    """
    return _walk(index, size, key, _encipher)


def unpermute(place: ArrayLike, size: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Returns the index that `permute` sends to each place: it is the inverse of `permute`."""
    return _walk(place, size, key, _decipher)


def _walk(
    index: ArrayLike, size: ArrayLike, key: ArrayLike, cipher: Callable[[Words, Words, Words], Words]
) -> NDArray[np.int64]:
    limit, key = _words(size), _words(key)
    place = cipher(_words(index), limit, key)
    outside = np.flatnonzero(place >= limit)
    while outside.size:
        again = cipher(place[outside], _at(limit, outside), _at(key, outside))
        place[outside] = again
        outside = outside[again >= _at(limit, outside)]
    return place.view(np.int64)


def _encipher(index: Words, size: Words, key: Words) -> Words:
    left_size, right_size = _halves(size)
    left = _quotient(index, right_size)
    right = index - left * right_size
    for number in range(0, ROUNDS, 2):
        left = _add(_noise(right, key, number, left_size), left, left_size)
        right = _add(_noise(left, key, number + 1, right_size), right, right_size)
    return left * right_size + right


def _decipher(place: Words, size: Words, key: Words) -> Words:
    left_size, right_size = _halves(size)
    left = _quotient(place, right_size)
    right = place - left * right_size
    for number in range(ROUNDS - 2, -1, -2):
        right = _add(right_size - _noise(left, key, number + 1, right_size), right, right_size)
        left = _add(left_size - _noise(right, key, number, left_size), left, left_size)
    return left * right_size + right


def _halves(size: Words) -> tuple[Words, Words]:
    """Returns two nearly equal numbers below 2^25 whose product covers `size` closely.

    Each is at least 8, because over smaller halves six rounds do not reach every order equally often.
    """
    left: Words = np.maximum(_words(np.ceil(np.sqrt(size))), _LEAST)
    return left, np.maximum(_quotient(size + (left - _ONE), left), _LEAST)


def _noise(half: Words, key: Words, number: int, size: Words) -> Words:
    """Computes the round function: 32 hashed bits of the other half, scaled to [0, size)."""
    word = half + (key + _WEYL[number : number + 1])
    word *= _STIR
    word ^= word >> _HALF
    word *= _FOLD
    word >>= _HALF
    word *= size
    word >>= _HALF
    return word


def _add(noise: Words, half: Words, size: Words) -> Words:
    """Returns (noise + half) mod size, in the memory of `noise`.

    Where the sum is less than `size`, subtracting `size` wraps around to a huge number, so the minimum is the sum.
    """
    noise += half
    return np.minimum(noise, noise - size, out=noise)


def _quotient(number: Words, divisor: Words) -> Words:
    """Returns number // divisor, exactly: in floats, a quotient of numbers below 2^52 never rounds up to an integer."""
    return (number / divisor).astype(np.uint64)


def _words(values: ArrayLike) -> Words:
    """Returns `values` as uint64[n], a single one as uint64[1], because numpy checks lone scalars for overflow."""
    return np.atleast_1d(np.asarray(values)).astype(np.uint64, copy=False)


def _at(values: Words, positions: NDArray[np.int64]) -> Words:
    return values if values.size == 1 else values[positions]
