"""Packing what has to be scored: each prefix once, its continuations behind it as branches.

A *tree* is a prefix and its continuations laid out as [prefix | continuation 1 | continuation 2 ...], each
continuation without its last token, which nothing follows. Branches see the prefix and themselves, and their
positions go on from the prefix: what the model computes is the same as for each continuation alone. Several trees
share a row and do not see each other, so that rows of a few lengths, each compiled once, are well filled.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

Ids: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tree:
    """Token ids of a prefix (never empty) and of its continuations (never empty)."""

    prefix: Ids
    branches: tuple[Ids, ...]

    @property
    def size(self) -> int:
        """Tokens that the model reads."""
        return len(self.prefix) + sum(len(branch) - 1 for branch in self.branches)


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows of trees, int32 [rows, length], and where each branch's tokens are predicted.

    `tree` is 0 for padding; `branch` is 0 in a prefix. `reads` are flat indices into the rows, `targets` the tokens
    predicted there, and `owners` (tree index, branch index, number of tokens) runs along them.
    """

    tokens: np.ndarray
    positions: np.ndarray
    tree: np.ndarray
    branch: np.ndarray
    reads: np.ndarray
    targets: np.ndarray
    owners: tuple[tuple[int, int, int], ...]


def grow(prefix: Ids, branches: Sequence[Ids], lengths: Sequence[int]) -> list[Tree]:
    """One tree, or several when the branches together do not fit the row length that the longest of them needs."""
    needed = len(prefix) + max(map(len, branches), default=1) - 1
    room = next(length for length in lengths if needed <= length) - len(prefix)
    parts: list[list[Ids]] = []
    left = -1
    for branch in branches:
        left -= len(branch) - 1
        if left < 0:
            parts.append([])
            left = room - (len(branch) - 1)
        parts[-1].append(branch)
    return [Tree(prefix, tuple(part)) for part in parts]


def fill_rows(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which items go into which row of `length` tokens: best fit, the largest first.

    At most 11/9 of the fewest possible rows, plus 4 (Johnson et al. 1974).
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        assert sizes[item] <= length
        place = bisect.bisect_left(room, (sizes[item], -1))
        free, row = room.pop(place) if place < len(room) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(item)
        bisect.insort(room, (free - sizes[item], row))
    return rows


def pack(trees: Sequence[Tree], rows: Sequence[Sequence[int]], height: int, length: int) -> Packed:
    """Lays out `rows` (of indices into `trees`) as the first of `height` rows; the rest is padding."""
    tokens, positions, tree, branch = np.zeros((4, height, length), np.int32)
    reads: list[np.ndarray] = []
    targets: list[Ids] = []
    owners = []
    for row, items in enumerate(rows):
        place = 0
        for number, item in enumerate(items, 1):
            prefix = trees[item].prefix
            trunk = place + len(prefix)
            tokens[row, place:trunk], tree[row, place:trunk] = prefix, number
            positions[row, place:trunk] = np.arange(len(prefix))
            place = trunk
            for twig, ids in enumerate(trees[item].branches, 1):
                here = slice(place, place + len(ids) - 1)
                tokens[row, here], tree[row, here], branch[row, here] = ids[:-1], number, twig
                positions[row, here] = len(prefix) + np.arange(len(ids) - 1)
                reads.append(row * length + np.r_[trunk - 1, here.start : here.stop])
                targets.append(ids)
                owners.append((item, twig - 1, len(ids)))
                place = here.stop
        assert place <= length
    flat = np.concatenate(reads).astype(np.int32), np.concatenate([np.asarray(ids, np.int32) for ids in targets])
    return Packed(tokens, positions, tree, branch, *flat, tuple(owners))


def batches(trees: Sequence[Tree], lengths: Sequence[int], heights: dict[int, tuple[int, ...]]) -> Iterator[Packed]:
    """All trees in batches of a few shapes: the shortest of `lengths` that holds a tree, then the fewest rows.

    Args:
      trees: what is to be scored.
      lengths: row lengths, ascending; every tree fits the last one.
      heights: for each row length the allowed numbers of rows, ascending.
    """
    by_length: dict[int, list[int]] = {length: [] for length in lengths}
    for item, tree in enumerate(trees):
        by_length[next(length for length in lengths if tree.size <= length)].append(item)
    for length, items in by_length.items():
        rows = [[items[i] for i in row] for row in fill_rows([trees[item].size for item in items], length)]
        while rows:
            height = next((size for size in heights[length] if size >= len(rows)), heights[length][-1])
            yield pack(trees, rows[:height], height, length)
            rows = rows[height:]
