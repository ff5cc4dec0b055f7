"""This module converts trees of parameters to a flat form by path, and back: "blocks.q" is at ["blocks"]["q"]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx


def nest(leaves: Mapping[str, Any]) -> nnx.State:
    """Returns the tree of `nnx.Param`s in which "blocks.q" is found at ["blocks"]["q"]."""
    flat: dict[Any, Any] = {tuple(path.split(".")): nnx.Param(leaf) for path, leaf in leaves.items()}
    return nnx.from_flat_state(flat)


def by_path(tree: nnx.State) -> dict[str, Any]:
    """Inverts `nest`: returns the leaves of a tree by path."""
    flat = nnx.to_flat_state(tree)
    return {
        ".".join(map(str, path)): leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf for path, leaf in flat
    }
