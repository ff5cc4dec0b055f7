"""Quotas say how many rows each store has had by any slot of a stage: exact ideals, rounded to whole rows.

A store's ideal is the integral of its share over the slots so far, an exact rational number. Between
two edges of the schedule it is a polynomial of the slot, of degree one (constant share) or two (ramp).
At a block boundary all ideals are rounded down or up by largest remainder. That never takes a row back
as long as each ideal grows by two rows between boundaries, and blocks are made long enough for that. A
store whose share is zero in a window keeps the count with which it entered the window; these counts are
chosen so that the other stores can always make up for them with less than one row each.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture.shares import Ramp, Shares, apportion, deal, decimal

MAX_BLOCKS = 1 << 22  # MAX_BLOCKS times 2^40 slots fits an int64
MIN_BLOCK = 64  # shorter blocks would spread their sources over too few orders
_NONE = Ramp(Fraction(0), Fraction(0))


@dataclasses.dataclass(frozen=True)
class Segment:
    """A window of a schedule in slots: each ideal is before + slope * d + bend * d^2, d slots after `start`."""

    start: int
    slots: int
    ramps: tuple[Ramp, ...]  # the share of each source
    before: tuple[Fraction, ...]  # the ideals at the start

    @property
    def stop(self) -> int:
        """The slot after its last."""
        return self.start + self.slots

    @functools.cached_property
    def after(self) -> tuple[Fraction, ...]:
        """The ideals at its end."""
        return tuple(before + self.slots * ramp.mean for before, ramp in zip(self.before, self.ramps, strict=True))

    @functools.cached_property
    def idle(self) -> frozenset[int]:
        """The sources that get nothing in the window."""
        return frozenset(source for source, ramp in enumerate(self.ramps) if not ramp.mean)

    @functools.cached_property
    def blocks(self) -> int:
        """The number of blocks: as many as still give two rows in each to every source that gets something."""
        longest = max(self._length_of_two(ramp) for ramp in self.ramps if ramp.mean)
        return max(1, min(MAX_BLOCKS, self.slots // max(MIN_BLOCK, longest)))

    def ideals(self, slots: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
        """Returns the ideals before `slots` (int64[n]) of the segment: whole rows, and numerators of what is left.

        The numerators have a common denominator. Both arrays are [sources, n], of int64 where that is large enough,
        else of Python integers.
        """
        whole, lines, common, curved = self._polynomials
        steep = (2 * self.slots + 2) if curved else common
        kind = np.int64 if steep * common * len(lines) < 1 << 62 else object
        past = (slots - self.start).astype(kind)
        times = past * 0 if curved else past // common
        rest = past - times * common
        start, slope, bend = (np.array(column, kind)[:, None] for column in zip(*lines, strict=True))
        over = start + (slope + bend * rest) * rest
        more = over // common
        return np.array(whole, kind)[:, None] + times * slope + more, over - more * common

    @functools.cached_property
    def _polynomials(self) -> tuple[list[int], list[tuple[int, int, int]], int, bool]:
        """The ideals in integers: (whole rows at the start, lines, the lines' common denominator, whether any bends).

        The line of a source is (what its ideal at the start has beyond whole rows, slope, bend), all as numerators.
        """
        whole = [math.floor(ideal) for ideal in self.before]
        lines = [
            (ideal % 1, ramp.first, (ramp.last - ramp.first) / (2 * self.slots))
            for ideal, ramp in zip(self.before, self.ramps, strict=True)
        ]
        common = math.lcm(*(part.denominator for line in lines for part in line))
        scaled = [tuple(int(part * common) for part in line) for line in lines]
        return whole, scaled, common, any(bend for *_, bend in scaled)  # type: ignore[return-value]

    def _length_of_two(self, ramp: Ramp) -> int:
        """Returns the least number of slots, where the share is smallest, in which the ideal grows by two rows.

        If it grows by less in the whole segment, this is all slots of the segment.
        """
        least, bend = min(ramp.first, ramp.last), abs(ramp.last - ramp.first) / (2 * self.slots)
        low, high = 0, self.slots
        if (least + bend * high) * high < 2:
            return self.slots
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if (least + bend * middle) * middle >= 2 else (middle, high)
        return high


@dataclasses.dataclass(frozen=True)
class Quotas:
    """The number of rows that each source has had by any boundary of a stage of `slots`.

    Attributes:
      shares: the schedule.
      sources: the stores with a share above zero, in the order in which ties are broken.
      slots: length of the stage.
    """

    shares: Shares
    sources: tuple[str, ...]
    slots: int

    @functools.cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The windows of the schedule, in slots."""
        edges = [int(edge * self.slots // 1) for edge in self.shares.edges]
        before: tuple[Fraction, ...] = (Fraction(0),) * len(self.sources)
        found = []
        for number, (start, stop) in enumerate(pairwise(edges)):
            ramps = tuple(self.shares.windows[number].get(source, _NONE) for source in self.sources)
            if start == stop:
                raise UserError(
                    f"the window {self._window(number)} of {self.slots} slots holds no slot",
                    where="shares",
                    fix="widen it or lengthen the stage",
                )
            found.append(Segment(start, stop - start, ramps, before))
            before = found[-1].after
        return tuple(found)

    @functools.cached_property
    def ideals(self) -> tuple[Fraction, ...]:
        """The exact number of rows that the whole stage asks for from each source."""
        return self.segments[-1].after

    def at(self, slot: int) -> tuple[Fraction, ...]:
        """Returns the exact ideals before a slot."""
        segment = next(segment for segment in self.segments if slot <= segment.stop)
        past = slot - segment.start
        return tuple(
            before + (ramp.first + (ramp.last - ramp.first) * Fraction(past, 2 * segment.slots)) * past
            for before, ramp in zip(segment.before, segment.ramps, strict=True)
        )

    def require_rows(self) -> None:
        """Raises `UserError` when a source gets no row in a window in which it has a share."""
        for number, segment in enumerate(self.segments):
            gained = np.diff(self.realised(np.array([segment.start, segment.stop])), axis=1)[:, 0]
            for source, gain in enumerate(gained.tolist()):
                if gain < 1 and source not in segment.idle:
                    where, store, ramp = "", self.sources[source], segment.ramps[source]
                    if len(self.segments) > 1:
                        where = f" of the window {self._window(number)}"
                    raise UserError(
                        f"{store!r} has a share of {ramp} but gets none of {segment.slots} slots{where}",
                        where=f"shares.{store}",
                        fix="raise its share, lengthen the stage or drop it",
                    )

    def realised(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the rows drawn from each source before each of the boundaries `slots`: int64[sources, n]."""
        if self.shares.constant:
            return apportion(self._weights, slots)
        counts = np.empty((len(self.sources), len(slots)), np.int64)
        for number, segment in enumerate(self.segments):
            for zone, inside in (
                (2 * number, slots == segment.start),
                (2 * number + 1, (slots > segment.start) & (slots < segment.stop)),
                (2 * number + 2, (slots == self.slots) & (segment.stop == self.slots)),
            ):
                if inside.any():
                    floors, remainders = segment.ideals(slots[inside])
                    for run in self._runs:
                        if zone in run.zones:
                            floors[run.source], remainders[run.source] = run.count, -1
                    counts[:, inside] = deal(floors, remainders, slots[inside])
        return counts

    def _window(self, number: int) -> str:
        start, end = (decimal(edge) for edge in self.shares.edges[number : number + 2])
        return f"[{start},{end})"

    @functools.cached_property
    def _runs(self) -> tuple[_Run, ...]:
        """The times that sources are idle, each with the count that the source keeps meanwhile."""
        runs = []
        for source in range(len(self.sources)):
            idle = [source in segment.idle for segment in self.segments]
            starts = [n for n, now in enumerate(idle) if now and (n == 0 or not idle[n - 1])]
            for first in starts:
                last = next((n for n in range(first, len(idle)) if not idle[n]), len(idle))
                runs.append(_Run(source, range(2 * first, 2 * last + 1), self.segments[first].before[source]))
        runs.sort(key=lambda run: (run.zones.start, run.source))
        settled = next(_settle(runs, []))  # one exists: the constraints are totally unimodular, and the ideals fit
        return tuple(settled)

    @functools.cached_property
    def _weights(self) -> NDArray[np.int64]:
        shares = [self.shares[source] for source in self.sources]
        whole = math.lcm(*(share.denominator for share in shares))
        return np.array([int(share * whole) for share in shares], dtype=np.int64 if whole < 1 << 62 else object)


@dataclasses.dataclass(frozen=True)
class _Run:
    """A source that is idle in `zones`: zone 2s is the start of segment s, zone 2s + 1 its inside."""

    source: int
    zones: range
    ideal: Fraction
    count: int = 0

    @property
    def error(self) -> Fraction:
        """The part of a row that the other sources must make up for."""
        return self.ideal - self.count


def _settle(runs: Sequence[_Run], settled: list[_Run]) -> Iterator[list[_Run]]:
    """Yields the ways to round the runs' ideals such that idle sources together are less than a row off in every zone.

    The search is depth first and tries the nearest integers first. With such counts the other sources can share the
    rest of the rows by rounding their ideals down or up: their remainders add up to an integer k plus the part of a row
    that the idle sources lack, so that k or k + 1 of at least k + 1 sources are rounded up.
    """
    open_zones = range(runs[len(settled)].zones.start) if len(settled) < len(runs) else range(_last(runs))
    for zone in open_zones:
        if abs(sum((run.error for run in settled if zone in run.zones), Fraction(0))) >= 1:
            return
    if len(settled) == len(runs):
        yield settled
        return
    run = runs[len(settled)]
    around = {math.floor(run.ideal), math.ceil(run.ideal)}
    for count in sorted(around, key=lambda count: abs(run.ideal - count)):
        yield from _settle(runs, [*settled, dataclasses.replace(run, count=count)])


def _last(runs: Sequence[_Run]) -> int:
    return max((run.zones.stop for run in runs), default=0)
