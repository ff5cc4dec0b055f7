"""The deal of a mixture says which store each rank of a dose draws from, and which of that store's rows it gets.

The slots of a stage are ranked once (see `riffle`), and a dose of m slots takes the ranks below m.
The ranks in a window of the mixture are dealt out to its stores by halving the list of stores again
and again: of the first n ranks, the left half of the stores gets n * left / both, rounded. So

  - what a rank draws depends on its own number alone, and not on how many ranks the dose takes;
  - if b is the common denominator of a window's shares, every block of b ranks there, counted from
    rank 0 of the window, gives each store its exact number of rows;
  - the next block makes up for what a block lacks: wherever a dose ends, a store is off its share of the window's
    ranks by less than one row with up to four stores (by half a row more each time their number doubles).

A store's use of a rank is the number of lower ranks, in all windows, that draw from the same store. So
the uses of a store are 0, 1, 2, ... without gaps, whatever the dose is. All of it is closed form.

A ramp of shares is dealt as up to 64 even steps. Before rounding down, each step gets a head start of a different
fraction of a row. These fractions are evenly spread, so that the errors of the steps do not add up.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.mixture.riffle import RAMP_STEPS, Riffle, in_slots
from alignpre_jax.mixture.shares import Ramp, Shares, Window

Indices = NDArray[np.int64]

_CELLS = 1 << 16  # numbers worked on at a time: the arrays stay in cache

# Before a halving of the stores rounds down, it adds a part of a row: in step n of a ramp 1/2 + n * stride / _FINE,
# without whole rows. With these strides the additions are evenly spread, and so are those of every second or fourth
# step, from which a ranking takes the first rows of a ramp. Each level of halving has a stride of its own.
_FINE = 128
_STRIDES = (53, 94, 39, 21)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the stage, from share `start` of it to share `end`, in which the shares are constant.

    Attributes:
      start: where the part begins, as a share of the stage.
      end: where it ends (exclusive).
      shares: the share of each store, in the order of `Deal.stores`; they add up to 1.
      step: the part's number within a ramp of shares; 0 where the shares are not a ramp.
    """

    start: Fraction
    end: Fraction
    shares: tuple[Fraction, ...]
    step: int


@dataclasses.dataclass(frozen=True)
class Deal:
    """The ranks of a stage's slots and what each rank draws.

    Attributes:
      order: ranks the slots. Each of its windows lies in one of `parts`.
      stores: the stores that are dealt to.
      parts: the parts of the mixture that hold slots of the order, in order.
      part_of: the number of the part in which each window of `order` lies; the numbers never fall.
    """

    order: Riffle
    stores: tuple[str, ...]
    parts: tuple[Part, ...]
    part_of: tuple[int, ...]

    def touch(self, slots: Indices, taken: int) -> tuple[Indices, Indices, Indices]:
        """Finds those of `slots` (int64[n]) that have a rank below `taken`.

        Returns their positions in `slots`, the store that each draws from, and the number of that store's use there.
        """
        at, ranks = self.order.touch(slots, taken)
        if len(self.stores) == 1 or not len(at):
            return at, np.zeros_like(at), ranks
        which, uses = np.empty_like(ranks), np.empty_like(ranks)
        part = self._part_of_window[self.order.window_of(slots[at])] if len(self.parts) > 1 else np.zeros_like(at)
        step = max(1, _CELLS // len(self.parts))
        for first in range(0, len(at), step):
            some = slice(first, first + step)
            before = self._before(ranks[some])
            which[some], own = self._dealt(part[some], before[part[some], np.arange(before.shape[1])])
            uses[some] = own if len(self.parts) == 1 else self._given(which[some], before)
        return at, which, uses

    def slots_of(self, which: int, uses: Indices, taken: int) -> Indices:
        """Returns the slots of the given uses (int64[n]) of one store, all of which have a rank below `taken`."""
        if len(self.stores) == 1:
            return self.order.slots_of(uses)
        low, high, stores = np.zeros_like(uses), np.full_like(uses, taken - 1), np.full_like(uses, which)
        while np.any(low < high):  # finds the first rank up to and with which the store has had more than `uses` rows
            middle = (low + high) // 2
            enough = self._given(stores, self._before(middle + 1)) > uses
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return self.order.slots_of(low)

    def counts(self, taken: int) -> tuple[int, ...]:
        """Returns how many of the ranks below `taken` draw from each store."""
        if len(self.stores) == 1:
            return (taken,)
        stores = np.arange(len(self.stores))
        return tuple(self._given(stores, self._before(np.full_like(stores, taken))).tolist())

    def proportions(self) -> tuple[Fraction, ...]:
        """Returns the exact part of a dose that is asked of each store."""
        weights = list(zip(self.order.proportions(), self.part_of, strict=True))
        return tuple(
            sum((weight * self.parts[part].shares[store] for weight, part in weights), Fraction(0))
            for store in range(len(self.stores))
        )

    def describe(self) -> list[tuple[int, dict[str, str], int]]:
        """Returns (the first slot of the order, the shares by store, the step of a ramp) for each part."""
        described = []
        for number, part in enumerate(self.parts):
            first, _ = in_slots(self.order.windows[self.part_of.index(number)], self.order.slots)
            shares = {store: str(share) for store, share in zip(self.stores, part.shares, strict=True) if share}
            described.append((first, shares, part.step))
        return described

    def _before(self, ranks: Indices) -> Indices:
        """Returns how many of the ranks below each of `ranks` (int64[n]) are in each part: int64[parts, n]."""
        if len(self.parts) == 1:
            return ranks[None]
        return np.add.reduceat(self.order.taken(ranks), np.flatnonzero(np.diff(self.part_of, prepend=-1)), axis=0)

    def _dealt(self, part: Indices, place: Indices) -> tuple[Indices, Indices]:
        """Returns the store that each place in a part's ranks draws from, and how many places in it did before."""
        first, place = np.zeros_like(part), place.astype(self._ends.dtype)
        for half in self._halves:
            before, after = (self._left(part, first, half, place + more) for more in (0, 1))
            goes_left = after > before
            place = np.where(goes_left, before, place - before)
            first = np.where(goes_left, first, first + half)
        return first, place.astype(np.int64)

    def _given(self, which: Indices, before: Indices) -> Indices:
        """Returns the rows store `which` (int64[n]) has had after `before` ranks (int64[parts, n]) of each part."""
        part, first, count = np.arange(len(self.parts))[:, None], np.zeros_like(which), before.astype(self._ends.dtype)
        for half in self._halves:
            left = self._left(part, first, half, count)
            goes_left = (which & half) == 0
            count = np.where(goes_left, left, count - left)
            first = np.where(goes_left, first, first + half)
        return count.sum(axis=0).astype(np.int64)

    def _left(self, part: Indices, first: Indices, half: int, count: NDArray[Any]) -> NDArray[Any]:
        """Returns how many rows of a part the left half of the 2 * `half` stores from `first` on has had, once all of
        these stores together have had `count` rows of it.
        """
        start, middle, end = (self._ends[part, first + more] for more in (0, half, 2 * half))
        both = np.maximum(end - start, 1)  # where none of them has a share, count is 0
        head_start = self._head_starts[part, half.bit_length() - 1]
        return (_FINE * count * (middle - start) + head_start * both) // (_FINE * both)

    @functools.cached_property
    def _halves(self) -> list[int]:
        """The sizes of the halves into which the stores are divided, from large to small."""
        return [1 << bit for bit in range((len(self.stores) - 1).bit_length())][::-1]

    @functools.cached_property
    def _ends(self) -> NDArray[Any]:
        """For each part, where the shares of the stores end when they are laid end to end, as whole numbers."""
        padding, ends = (1 << len(self._halves)) - len(self.stores), []
        for part in self.parts:
            whole = math.lcm(*(share.denominator for share in part.shares))
            laid = accumulate((int(share * whole) for share in part.shares), initial=0)
            ends.append([*laid, *[whole] * padding])
        largest = _FINE * (self.order.slots + 1) * max(row[-1] for row in ends)
        return np.array(ends, np.int64 if largest < 1 << 62 else object)

    @functools.cached_property
    def _head_starts(self) -> NDArray[Any]:
        """The head starts in units of 1 / _FINE of a row, by part and by the logarithm of the half: [parts, halves]."""
        strides = [_STRIDES[level % len(_STRIDES)] for level in range(len(self._halves))]
        starts = [[(_FINE // 2 + part.step * stride) % _FINE for stride in strides] for part in self.parts]
        return np.array(starts, self._ends.dtype)

    @functools.cached_property
    def _part_of_window(self) -> Indices:
        return np.array(self.part_of, np.int64)


def make_deal(windows: tuple[Window, ...], shares: Shares, slots: int, key: int) -> Deal:
    """Makes the deal of a dose in `windows` whose rows come from a mixture.

    Where the windows lie in several parts of the mixture, they are cut at the edges of these parts, so that
    each piece has a ranking of its own slots. Where one part holds them all, they stay whole.

    Args:
      windows: the windows of the dose, in order; at least one holds a slot.
      shares: the shares of the mixture.
      slots: length of the stage.
      key: chooses the order of the slots.
    """
    stores = used_stores(shares)
    parts = list(_parts(shares, stores, slots))
    pieces = [
        (_cut(window, max(window.start, part.start), min(window.end, part.end)), number)
        for window in windows
        for number, part in enumerate(parts)
        if math.floor(max(window.start, part.start) * slots) < math.floor(min(window.end, part.end) * slots)
    ]
    met = sorted({number for _, number in pieces})
    cut = tuple(piece for piece, _ in pieces) if len(met) > 1 else windows
    part_of = tuple(met.index(number) for _, number in pieces) if len(met) > 1 else (0,) * len(windows)
    return Deal(Riffle(cut, slots, key), stores, tuple(parts[number] for number in met), part_of)


def used_stores(shares: Shares) -> tuple[str, ...]:
    """Returns the stores with a share above zero, sorted."""
    return tuple(sorted(name for name, share in shares.items() if share))


def _parts(shares: Shares, stores: tuple[str, ...], slots: int) -> Iterator[Part]:
    """Yields the parts of a stage: the windows of the shares, with ramps cut into up to RAMP_STEPS even steps."""
    none = Ramp(Fraction(0), Fraction(0))
    for (start, end), given in zip(pairwise(shares.edges), shares.windows, strict=True):
        ramps = [given.get(store, none) for store in stores]
        first, stop = in_slots(Window(start, end, none), slots)
        steps = max(1, min(RAMP_STEPS, stop - first)) if any(ramp.first != ramp.last for ramp in ramps) else 1
        for step in range(steps):
            middle = Fraction(2 * step + 1, 2 * steps)
            yield Part(
                start=start + (end - start) * Fraction(step, steps),
                end=start + (end - start) * Fraction(step + 1, steps),
                shares=tuple(ramp.first + (ramp.last - ramp.first) * middle for ramp in ramps),
                step=step,
            )


def _cut(window: Window, start: Fraction, end: Fraction) -> Window:
    """Returns the piece of a window from `start` to `end`, with the strength that the window has there."""
    strength, length = window.strength, window.end - window.start

    def at(place: Fraction) -> Fraction:
        return strength.first + (strength.last - strength.first) * (place - window.start) / length

    return Window(start, end, Ramp(at(start), at(end)))
