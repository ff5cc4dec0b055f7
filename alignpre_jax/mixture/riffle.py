"""A riffle is one order over the slots of several windows, each with its strength: the slots of a scheduled dose.

Every window orders its own slots by a seeded bijection. Two windows are merged into one order, like
two halves of a deck of cards, in proportion to their weight (strength times slots): of the first m
slots, the left window has m * left / both, rounded. Pairs are merged in turn, until one order remains.
A dose of m slots takes the first m, whatever m is. So doses are exact and nested, and each slot's place
in the order, its use, does not depend on the dose. A ramp is merged from up to 64 even steps, each with
the exact integral of the ramp as its weight. From slot to place and back, everything is closed form.

A merge moves a window's count off its ideal by at most half a row. Of up to four windows, each goes
through two merges at most, so it gets its integral to within one row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.mixture.permutation import mix, permute, unpermute
from alignpre_jax.mixture.shares import Window

RAMP_STEPS = 64

Indices = NDArray[np.int64]


class _Merge(NamedTuple):
    """The tree of merges; each array is by node.

    The leaves come first, then the merges, with children before parents; the root is last and its own parent.
    """

    parent: Indices
    is_left: NDArray[np.bool_]
    weight: NDArray[Any]  # of the node, in a unit in which its parent's is `both`
    both: NDArray[Any]
    left: Indices  # the children of a merge; -1 for leaves
    right: Indices
    windows: list[int]  # the node that holds the order of each window


@dataclasses.dataclass(frozen=True)
class Riffle:
    """The merged order of windows that hold some of the slots [0, slots) of a stage.

    Attributes:
      windows: the windows, in order and without overlaps.
      slots: length of the stage.
      key: chooses the order.
    """

    windows: tuple[Window, ...]
    slots: int
    key: int

    def touch(self, slots: Indices, taken: int) -> tuple[Indices, Indices]:
        """Returns the positions of those of `slots` that are among the first `taken` of the order, and their places."""
        start, size, keys = self._leaves
        if len(size) == 1:
            inside = np.flatnonzero((slots >= start[0]) & (slots < start[0] + size[0]))
            use = permute(slots[inside] - start[0], size[0], self.key)
            return inside[use < taken], use[use < taken]
        leaf = np.maximum(np.searchsorted(start, slots, "right") - 1, 0)
        inside = np.flatnonzero((slots >= start[leaf]) & (slots < start[leaf] + size[leaf]))
        leaf = leaf[inside]
        rank = permute(slots[inside] - start[leaf], size[leaf], keys[leaf])
        near = rank < self._counts(taken)[leaf]
        return inside[near], self._merged(leaf[near], rank[near])

    def slots_of(self, uses: Indices) -> Indices:
        """Returns the slots at these places of the order."""
        start, size, keys = self._leaves
        if len(size) == 1:
            return start[0] + unpermute(uses, size[0], self.key)
        leaf, rank = self._split(uses)
        return start[leaf] + unpermute(rank, size[leaf], keys[leaf])

    def taken(self, uses: Indices) -> Indices:
        """Returns how many of the first `uses` (int64[n]) places of the order are in each window: int64[windows, n]."""
        tree, root = self._tree, len(self._tree.parent) - 1
        counts = {root: uses.astype(tree.weight.dtype)}
        for node in range(root, root - len(self.windows) + 1, -1):  # the merges of windows: they were made last
            left, right = int(tree.left[node]), int(tree.right[node])
            counts[left] = _round(counts[node], tree.weight[left], tree.both[left])
            counts[right] = counts[node] - counts[left]
        return np.stack([counts[node] for node in tree.windows]).astype(np.int64)

    def window_of(self, slots: Indices) -> Indices:
        """Returns the number of the window that holds each of `slots`, all of which must be in some window."""
        start, owner = self._leaves[0], np.array(self._cells[3])
        return owner[np.searchsorted(start, slots, "right") - 1]

    def proportions(self) -> list[Fraction]:
        """Returns the exact part of a dose that is asked of each window."""
        parts = [Fraction(0)] * len(self.windows)
        for weight, owner in zip(*self._cells[2:], strict=True):
            parts[owner] += weight
        return [part / sum(parts) for part in parts]

    def overfull(self, uses: int) -> tuple[int, int, int] | None:
        """Finds a piece that has fewer slots than its part of the first `uses` places: (first slot, slots, places).

        Returns None if all pieces have slots enough.
        """
        start, size, *_ = self._cells
        pieces = zip(start, size, self._counts(uses).tolist(), strict=True)
        return next((piece for piece in pieces if piece[2] > piece[1]), None)

    def describe(self) -> list[tuple[int, int, str]]:
        """Returns (first slot, slots, part of the dose) of each piece of constant strength."""
        start, size, weight, _ = self._cells
        whole = sum(weight, Fraction(0))
        return [(first, n, str(part / whole)) for first, n, part in zip(start, size, weight, strict=True)]

    @functools.cached_property
    def _cells(self) -> tuple[list[int], list[int], list[Fraction], list[int]]:
        """The first slot, the slots, the weight and the number of the window of each piece of constant strength."""
        cells = []
        for number, window in enumerate(self.windows):
            first, stop = in_slots(window, self.slots)
            assert first < stop, window
            base, rise = window.strength.first, window.strength.last - window.strength.first
            steps = min(RAMP_STEPS, stop - first) if rise else 1
            cuts = [first + (stop - first) * step // steps for step in range(steps + 1)]
            for a, b in pairwise(cuts):
                middle = Fraction(a + b - 2 * first, 2 * (stop - first))
                cells.append((a, b - a, (base + rise * middle) * (b - a), number))
        start, size, weight, owner = (list(column) for column in zip(*cells, strict=True))
        return start, size, weight, owner

    @functools.cached_property
    def _leaves(self) -> tuple[Indices, Indices, NDArray[np.uint64]]:
        start, size = (np.array(column, np.int64) for column in self._cells[:2])
        return start, size, mix(mix(self.key, start), size)

    @functools.cached_property
    def _tree(self) -> _Merge:
        weights, owner = list(self._cells[2]), self._cells[3]
        leaves = range(len(weights))
        parent: dict[int, int] = {}
        children: dict[int, tuple[int, int]] = {}

        def merge(nodes: Sequence[int]) -> int:
            if len(nodes) == 1:
                return nodes[0]
            half = 1 << (len(nodes) - 1).bit_length() - 1
            left, right = merge(nodes[:half]), merge(nodes[half:])
            node = len(weights)
            weights.append(weights[left] + weights[right])
            parent[left], parent[right], children[node] = node, node, (left, right)
            return node

        windows = [merge([leaf for leaf in leaves if owner[leaf] == window]) for window in range(len(self.windows))]
        root = merge(windows)
        parent[root] = root
        nodes = range(len(weights))
        proportions = [weights[node] / weights[parent[node]] for node in nodes]
        large = 4 * self.slots * max(part.denominator for part in proportions) >= 1 << 62
        kind = object if large else np.int64
        return _Merge(
            parent=np.array([parent[node] for node in nodes]),
            is_left=np.array([children.get(parent[node], (-1,))[0] == node for node in nodes]),
            weight=np.array([part.numerator for part in proportions], kind),
            both=np.array([part.denominator for part in proportions], kind),
            left=np.array([children.get(node, (-1, -1))[0] for node in nodes]),
            right=np.array([children.get(node, (-1, -1))[1] for node in nodes]),
            windows=windows,
        )

    def _counts(self, uses: int) -> Indices:
        """Returns how many of the first `uses` places each leaf has: int64[leaves]."""
        if uses in self._known_counts:
            return self._known_counts[uses]
        tree, leaves = self._tree, len(self._leaves[0])
        counts = np.zeros(len(tree.parent), np.int64)
        counts[-1] = uses
        for node in range(len(counts) - 1, leaves - 1, -1):
            left, right = tree.left[node], tree.right[node]
            counts[left] = _round(int(counts[node]), int(tree.weight[left]), int(tree.both[left]))
            counts[right] = counts[node] - counts[left]
        self._known_counts[uses] = counts[:leaves]
        return counts[:leaves]

    @functools.cached_property
    def _known_counts(self) -> dict[int, Indices]:
        return {}

    def _merged(self, leaf: Indices, rank: Indices) -> Indices:
        """Turns a place in a leaf's order into the place in the order of all."""
        tree, node, place = self._tree, leaf, rank.astype(self._tree.weight.dtype)
        while np.any(tree.parent[node] != node):
            # The least k for which the first k + 1 places of the merged order include this one.
            scaled, twice = (2 * place + 1) * tree.both[node], 2 * tree.weight[node]
            up = np.where(tree.is_left[node], -(-scaled // twice) - 1, scaled // twice)
            place = np.where(tree.parent[node] == node, place, up)
            node = tree.parent[node]
        return place.astype(np.int64)

    def _split(self, uses: Indices) -> tuple[Indices, Indices]:
        """Turns a place in the order of all into (leaf, place in the leaf's order)."""
        tree, place = self._tree, uses.astype(self._tree.weight.dtype)
        node = np.full(len(uses), len(tree.parent) - 1)
        while np.any(merged := tree.left[node] >= 0):
            left = tree.left[node]
            before, after = (_round(place + more, tree.weight[left], tree.both[left]) for more in (0, 1))
            goes_left = after > before
            place = np.where(merged, np.where(goes_left, before, place - before), place)
            node = np.where(merged, np.where(goes_left, left, tree.right[node]), node)
        return node, place.astype(np.int64)


def in_slots(window: Window, slots: int) -> tuple[int, int]:
    """Returns the first slot of a window of a stage, and the slot after its last."""
    return int(window.start * slots // 1), int(window.end * slots // 1)


def _round(count: Any, weight: Any, both: Any) -> Any:
    """Rounds count * weight / both to the nearest integer, halves up, in exact integers or arrays of them."""
    return (2 * count * weight + both) // (2 * both)
