"""This module makes digests of parameters: quick ones of every array, which are the same on any mesh, and one SHA-256
that names a model.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

_GOLDEN, _MIX = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B)
_CHUNK_BYTES = 256 << 20  # of a parameter gathered from the other hosts at a time


def tree_digests(tree: Any) -> dict[str, int]:
    """Returns a digest of 32 bits for every array of a tree, by its path.

    Equal digests mean equal bytes, but for one chance in 2^32. Every word is mixed with its place and the results are
    added modulo 2^32, so neither the order of the sum nor how the array is spread over devices and hosts matters. With
    several hosts, all of them must call this.
    """
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree), strict=True)
    on_host = all(leaf.is_fully_addressable and _platform(leaf) == "cpu" for leaf in leaves)
    values = [_digest(np.asarray(leaf), np) for leaf in jax.device_get(leaves)] if on_host else _on_device(leaves)
    return {jax.tree_util.keystr(path): int(value) for path, value in zip(paths, jax.device_get(values), strict=True)}


def parameters_digest(params: Any) -> str:
    """Returns the SHA-256 of the names, shapes, dtypes and bytes of all parameters; equal digests mean equal models.

    Where the parameters are spread over several hosts, all of these hosts must call this, and get the same digest.
    """
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {np.dtype(leaf.dtype)}".encode())
        if leaf.is_fully_addressable:
            sha.update(np.ascontiguousarray(jax.device_get(leaf)).data)
            continue
        rows = max(_CHUNK_BYTES // max(leaf.nbytes // max(leaf.shape[0], 1), 1), 1)
        for first in range(0, leaf.shape[0], rows):  # bytes are in row-major order
            part = multihost_utils.process_allgather(leaf[first : first + rows], tiled=True)
            sha.update(np.ascontiguousarray(part).data)
    return sha.hexdigest()


def _platform(leaf: jax.Array) -> str:
    return min(device.platform for device in leaf.devices())


@jax.jit
def _on_device(leaves: tuple[jax.Array, ...]) -> list[jax.Array]:
    return [_digest(leaf, jnp) for leaf in leaves]


def _digest(x: Any, lib: Any) -> Any:
    """Returns the digest, a uint32, of a numpy (lib = np) or jax (lib = jnp) array."""
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize]
    word = x.reshape(x.shape or (1,)).view(unsigned).astype(np.uint32)
    place, stride = lib.zeros((), np.uint32), 1
    for axis in reversed(range(word.ndim)):
        along = lib.arange(word.shape[axis], dtype=np.uint32) * np.uint32(stride & 0xFFFFFFFF)
        place = place + along.reshape(-1, *[1] * (word.ndim - 1 - axis))
        stride *= word.shape[axis]
    word = (word ^ (place * _GOLDEN + _MIX)) * _MIX
    word = (word ^ (word >> np.uint32(15))) * _GOLDEN
    return (word ^ (word >> np.uint32(13))).sum(dtype=np.uint32)
