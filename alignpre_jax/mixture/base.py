"""The base plan: which store each slot of a stage draws from, and that store's how-many-th row.

A stage of N slots is cut into K blocks of nearly equal size. At every block boundary the number
of rows drawn from each store so far is the largest-remainder rounding of its exact ideal, so it is
off by less than one row, and what a block lacks the next one carries. Blocks are long enough for
every ideal to grow by two rows, hence every store gets at least one row in every block. Inside a
block a seeded bijection spreads the stores. All of it is closed form: nothing is stored, nothing
is replayed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.mixture.permutation import MAX_SIZE, derive_key, mix, permute, unpermute
from alignpre_jax.mixture.shares import apportion, decimal, parse_shares

MAX_SLOTS = 1 << 40
MAX_BLOCKS = 1 << 22  # MAX_BLOCKS * MAX_SLOTS fits an int64
MIN_BLOCK = 64  # shorter blocks would spread their sources over too few orders


@dataclasses.dataclass(frozen=True)
class BasePlan:
    """The training order that all arms of a study share.

    Attributes:
      shares: share of the slots per store (see `parse_shares`); the order of the stores does not matter.
      rows: number of rows each store has. May name more stores than `shares`.
      slots: length of the stage: steps x global batch rows.
      seed: chooses the order.
      max_epochs: how often a store may be gone through; more raises `UserError`.
    """

    shares: Mapping[str, Fraction]
    rows: Mapping[str, int]
    slots: int
    seed: int
    max_epochs: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", parse_shares(self.shares, known=self.rows))
        if not 0 < self.slots < MAX_SLOTS:
            raise UserError(f"{self.slots} slots", where="slots", fix=f"a stage has 1 to {MAX_SLOTS - 1} slots")
        for source, count in self.counts.items():
            require_rows(source, self.rows, where=f"shares.{source}")
            if count == 0:
                what = f"{source!r} has a share of {decimal(self.shares[source])} but gets none of {self.slots} slots"
                raise UserError(what, where=f"shares.{source}", fix="raise its share, lengthen the stage or drop it")
            require_epochs(source, self.rows[source], count, self.max_epochs, where=f"shares.{source}")

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """The stores with a share above zero, sorted: `uses` numbers them in this order."""
        return tuple(sorted(name for name, share in self.shares.items() if share))

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """Rows each source gives in the whole stage."""
        counts = apportion(self._weights, np.array([self.slots]))[:, 0]
        return dict(zip(self.sources, counts.tolist(), strict=True))

    @functools.cached_property
    def blocks(self) -> int:
        """The number of blocks."""
        smallest = min(self.shares[source] for source in self.sources)
        return max(1, min(MAX_BLOCKS, self.slots // max(MIN_BLOCK, math.ceil(2 / smallest))))

    def boundaries(self, numbers: ArrayLike) -> NDArray[np.int64]:
        """First slot of each of the blocks `numbers` (0 to `blocks`; the last is the end of the stage)."""
        return np.asarray(numbers, np.int64) * self.slots // self.blocks

    def realised(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows drawn from each source before each of the block boundaries `slots`: int64[sources, n]."""
        return apportion(self._weights, slots)

    def uses(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For slots int64[n]: the source of each, and that it is the source's u-th use, both int64[n].

        Over the whole stage each source's uses are 0, 1, ..., counts - 1, each exactly once.
        """
        block = ((slots + 1) * self.blocks - 1) // self.slots
        first, last = int(block.min()), int(block.max())
        if last - first < len(slots):  # neighbours: each block is worked out once
            numbers, at = np.arange(first, last + 1), block - first
        else:
            numbers, at = block, np.arange(len(slots))
        start, stop = self.boundaries(numbers), self.boundaries(numbers + 1)
        edges, ahead = self._layout(start, stop)
        place = permute(slots - start[at], (stop - start)[at], mix(self._key, numbers)[at])
        source = np.zeros_like(place)
        for edge in edges[:-1]:
            source += place >= edge[at]
        return source, place + ahead.ravel()[source * len(numbers) + at]

    def slots_of(self, source: int, uses: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse of `uses`: the slots of the given uses (int64[n]) of one source."""
        low, high = np.zeros_like(uses), np.full_like(uses, self.blocks)
        while np.any(high - low > 1):  # the last boundary with at most `uses` rows drawn
            middle = (low + high) // 2
            before = self.realised(self.boundaries(middle))[source] <= uses
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        start, stop = self.boundaries(low), self.boundaries(low + 1)
        _, ahead = self._layout(start, stop)
        return start + unpermute(uses - ahead[source], stop - start, mix(self._key, low))

    def _layout(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Before the shuffle a block holds each source's uses one after the other; both int64[sources, blocks].

        Returns where in the block each source's uses end, and what to add to a place to get its use.
        """
        after = self.realised(stop)
        edges = np.cumsum(after - self.realised(start), axis=0)
        return edges, after - edges

    @functools.cached_property
    def _weights(self) -> NDArray[np.int64]:
        shares = [self.shares[source] for source in self.sources]
        whole = math.lcm(*(share.denominator for share in shares))
        return np.array([int(share * whole) for share in shares], dtype=np.int64 if whole < 1 << 62 else object)

    @functools.cached_property
    def _key(self) -> int:
        return derive_key(self.seed, "block")


def require_rows(store: str, rows: Mapping[str, int], *, where: str) -> None:
    """Raises `UserError` unless `store` exists and has rows."""
    if store not in rows:
        raise UserError(f"unknown store {store!r}", where=where, fix=suggest(store, rows))
    if rows[store] == 0:
        fix = "give it documents that fill at least one row, or set its share to 0"
        raise UserError(f"{store!r} has no rows to draw from", where=where, fix=fix)
    assert 0 < rows[store] <= MAX_SIZE, rows[store]


def require_epochs(store: str, available: int, needed: int, max_epochs: float, *, where: str) -> None:
    """Raises `UserError` when `needed` draws go through `available` rows more than `max_epochs` times."""
    if needed > available * max_epochs:
        what = (
            f"{store!r} has {available} rows but {needed} are needed: "
            f"{needed / available:.4g} epochs, and max_epochs is {max_epochs:g}"
        )
        fix = f"add documents, lower the share or set max_epochs to {math.ceil(needed / available)}"
        raise UserError(what, where=where, fix=fix)
