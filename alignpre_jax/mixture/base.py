"""The base plan says which store each slot of a stage draws from, and how many slots drew from that store before.

A stage of N slots is cut into blocks of nearly equal size; where the shares follow a schedule, each
of its windows is cut by itself. At every block boundary the number of rows drawn from each store so
far is its exact ideal, rounded by largest remainder. So it is off by less than one row, and the next
block makes up for what a block lacks. Blocks are long enough for every ideal to grow by two rows, so
every store with a share gets at least one row in every block. Inside a block a seeded bijection
spreads the stores. All of it is closed form: nothing is stored, nothing is replayed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.mixture.permutation import MAX_SIZE, derive_key, mix, permute, unpermute
from alignpre_jax.mixture.quotas import Quotas
from alignpre_jax.mixture.shares import Shares, parse_shares

MAX_SLOTS = 1 << 40


class _Segments(NamedTuple):
    """The windows of the shares' schedule; each array is int64[segments], and `block` has one entry more."""

    start: NDArray[np.int64]
    slots: NDArray[np.int64]
    blocks: NDArray[np.int64]  # how many blocks the window is cut into
    block: NDArray[np.int64]  # the number of the window's first block, and at the end the number of all blocks


@dataclasses.dataclass(frozen=True)
class BasePlan:
    """The training order that all arms of a study share.

    Attributes:
      shares: share of the slots per store, or a schedule of shares (see `parse_shares`); their order does not matter.
      rows: number of rows that each store has; it may name more stores than `shares`.
      slots: length of the stage: steps x global batch rows.
      seed: chooses the order.
      max_epochs: how often a store may be gone through; more raises `UserError`.
      epoch_order: "fresh" shuffles a store's rows anew for every epoch, "same" repeats the first epoch's order.
    """

    shares: Mapping[str, Fraction]
    rows: Mapping[str, int]
    slots: int
    seed: int
    max_epochs: float = 1.0
    epoch_order: Literal["fresh", "same"] = "fresh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", parse_shares(self.shares, known=self.rows))
        if self.epoch_order not in ("fresh", "same"):
            what = f"{self.epoch_order!r} is no order of epochs"
            raise UserError(what, where="epoch_order", fix="write fresh or same")
        if not 0 < self.slots < MAX_SLOTS:
            raise UserError(f"{self.slots} slots", where="slots", fix=f"a stage has 1 to {MAX_SLOTS - 1} slots")
        for source in self.sources:
            require_rows(source, self.rows, where=f"shares.{source}")
        self._quotas.require_rows()
        for source, count in self.counts.items():
            require_epochs(source, self.rows[source], count, self.max_epochs, where=f"shares.{source}")

    @functools.cached_property
    def schedule(self) -> Shares:
        """The parsed shares."""
        return parse_shares(self.shares)

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """The stores with a share above zero, sorted: `uses` numbers them in this order."""
        return tuple(sorted(name for name, share in self.schedule.items() if share))

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """The number of rows that each source gives in the whole stage."""
        return dict(zip(self.sources, self.realised(np.array([self.slots]))[:, 0].tolist(), strict=True))

    @functools.cached_property
    def asked(self) -> dict[str, Fraction]:
        """The exact number of rows that is asked of each source: its share, added up over the slots."""
        return dict(zip(self.sources, self._quotas.ideals, strict=True))

    @functools.cached_property
    def blocks(self) -> int:
        """The number of blocks in the stage."""
        return int(self._segments.block[-1])

    def boundaries(self, numbers: ArrayLike) -> NDArray[np.int64]:
        """Returns the first slot of each of the blocks `numbers` (0 to `blocks`; the last is the end of the stage)."""
        numbers = np.asarray(numbers, np.int64)
        start, slots, blocks, block = self._segments
        if len(slots) == 1:
            return numbers * self.slots // self.blocks
        at = np.minimum(np.searchsorted(block, numbers, "right"), len(slots)) - 1
        return start[at] + (numbers - block[at]) * slots[at] // blocks[at]

    def realised(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the rows drawn from each source before each of the block boundaries `slots`: int64[sources, n]."""
        return self._quotas.realised(slots)

    def ideals(self, slot: int) -> dict[str, Fraction]:
        """Returns the exact ideal of each source before `slot`, which `realised` rounds."""
        return dict(zip(self.sources, self._quotas.at(slot), strict=True))

    def uses(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns, for slots int64[n], the source of each and the number of that source's use there, both int64[n].

        Over the whole stage each source's uses are 0, 1, ..., counts - 1, each exactly once.
        """
        block = self._block_of(slots)
        first, last = int(block.min()), int(block.max())
        if last - first < len(slots):  # the slots are neighbours, so each block is worked out once
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
        """Returns the slots of the given uses (int64[n]) of one source: the inverse of `uses`."""
        low, high = np.zeros_like(uses), np.full_like(uses, self.blocks)
        while np.any(high - low > 1):  # finds the last boundary with at most `uses` rows drawn
            middle = (low + high) // 2
            before = self.realised(self.boundaries(middle))[source] <= uses
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        start, stop = self.boundaries(low), self.boundaries(low + 1)
        _, ahead = self._layout(start, stop)
        return start + unpermute(uses - ahead[source], stop - start, mix(self._key, low))

    def _layout(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns where in a block each source's uses end, and what to add to a place to get its use.

        Before the shuffle, a block holds all uses of the first source, then those of the second, and so on. Both
        arrays are int64[sources, blocks].
        """
        after = self.realised(stop)
        edges = np.cumsum(after - self.realised(start), axis=0)
        return edges, after - edges

    def describe(self) -> Mapping[str, Any]:
        """Returns everything about the shares that determines the plan, for `Plan.digest`."""
        if self.schedule.constant:
            return {source: str(self.schedule[source]) for source in self.sources}
        ramps = [[(str(ramp.first), str(ramp.last)) for ramp in segment.ramps] for segment in self._quotas.segments]
        starts = [segment.start for segment in self._quotas.segments]
        return {"sources": self.sources, "starts": starts, "ramps": ramps}

    def _block_of(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        start, length, blocks, block = self._segments
        if len(length) == 1:
            return ((slots + 1) * self.blocks - 1) // self.slots
        at = np.searchsorted(start, slots, "right") - 1
        return block[at] + ((slots - start[at] + 1) * blocks[at] - 1) // length[at]

    @functools.cached_property
    def _quotas(self) -> Quotas:
        return Quotas(self.schedule, self.sources, self.slots)

    @functools.cached_property
    def _segments(self) -> _Segments:
        segments = self._quotas.segments
        blocks = np.array([segment.blocks for segment in segments])
        return _Segments(
            start=np.array([segment.start for segment in segments]),
            slots=np.array([segment.slots for segment in segments]),
            blocks=blocks,
            block=np.concatenate([[0], np.cumsum(blocks)]),
        )

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
