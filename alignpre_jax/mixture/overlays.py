"""Overlays are what an arm changes in the base plan, and nothing else.

An overlay picks some slots and says, for each of them, which use of which of its stores stands there instead.
The choice is a seeded ranking that does not depend on the dose, so the slots of a smaller dose, and
the rows in them, are among those of a larger one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.mixture.base import BasePlan, require_epochs, require_rows
from alignpre_jax.mixture.dealing import Deal, make_deal, used_stores
from alignpre_jax.mixture.permutation import derive_key, permute, unpermute
from alignpre_jax.mixture.riffle import in_slots
from alignpre_jax.mixture.shares import (
    Ramp,
    Shares,
    Window,
    decimal,
    parse_schedule,
    parse_share,
    parse_shares,
    round_half_up,
)

Indices = NDArray[np.int64]

_PART = 1 << 16  # uses worked on at a time


class Overlay(Protocol):
    """This protocol is what `Plan` asks of an overlay.

    An overlay has a stream for each of its stores: a seeded sequence of that store's rows. The key of
    the sequence depends on the seed, the overlay's class and the store, not on what else is mixed in.
    """

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores whose rows it brings in, sorted; the methods below number them in this order."""
        ...

    @property
    def seed(self) -> int:
        """The seed that chooses its slots and the order of its rows."""
        ...

    def validate(self, base: BasePlan, rows: Mapping[str, int], where: str) -> None:
        """Raises `UserError`, naming `where`, when it cannot be laid over `base`."""
        ...

    def asked(self, base: BasePlan) -> int:
        """Returns the number of slots that it has if no later overlay takes any of them."""
        ...

    def ideals(self, base: BasePlan) -> tuple[Fraction, ...]:
        """Returns the exact number of slots that each store should have; the numbers add up to about `asked`."""
        ...

    def counts(self, base: BasePlan) -> tuple[int, ...]:
        """Returns the slots that each store has if no later overlay takes any of them; they add up to `asked`."""
        ...

    def reach(self, base: BasePlan) -> tuple[int, ...]:
        """Returns, for each store, a number that is larger than all of its uses."""
        ...

    def touch(
        self, base: BasePlan, slots: Indices, sources: Indices, uses: Indices
    ) -> tuple[Indices, Indices, Indices]:
        """Finds which of `slots` it touches, given the sources and uses that the base plan has in them.

        Returns their positions in `slots`, the number of the store that each then draws from, and its use there.
        """
        ...

    def slots_of(self, base: BasePlan, which: int, uses: Indices) -> Indices:
        """Returns the slots of the given uses of store `which`; uses that have no slot are left out."""
        ...

    def touched(self, base: BasePlan) -> Iterator[Indices]:
        """Yields the slots that it touches, each once, a part at a time."""
        ...

    def describe(self, base: BasePlan) -> Mapping[str, Any]:
        """Returns everything that determines what it does, for `Plan.digest`."""
        ...


@dataclasses.dataclass(frozen=True)
class Replace:
    """Puts rows of a mixture into slots chosen evenly from a window of the stage, or by a schedule.

    A seeded ranking of the slots decides which slots a dose takes: a dose of m slots takes the first m.
    The window of the mixture in which a slot lies decides how the ranks there are dealt out to the stores
    (see `dealing`). A store counts the ranks that it is dealt, and the count is the row's place in the
    store's own seeded order. None of these steps looks at the dose. Therefore

      - of two overlays that differ in the dose alone, the smaller one's (slot, store, row) are among the
        larger one's, and each draws from the beginning of every store's order, without gaps;
      - the slots depend on the seed and the windows, and not on the stores or their shares;
      - a store has the same order of rows in every mixture with the same seed.

    If the shares of the mixture change within the dose's windows, the windows are cut at the mixture's edges, and
    each piece ranks its own slots, because there is no closed form for how many slots of a part of a ranking lie
    below a rank. All of the above still holds, but a mixture with other edges takes other slots. If arms are to
    have equal slots whatever their mixtures are, write the same cuts into the `schedule` of each arm, for example
    `"[0,1/4) 1; [1/4,1) 1"`: the mixture's own edges then cut nothing more.

    In each of its windows the mixture gives every store its share of the dose's slots to within one row, and
    exactly where the numbers allow it (see `dealing` for windows of more than four stores, and for ramps).

    Attributes:
      mixture: a store, or shares, or a schedule of shares over the stage, as in `parse_shares`: `"k1"`,
        `"k1:2/3,k2:1/3"`, `"[0,1/2) k1:1; [1/2,1) k1:1/2,k2:1/2"`.
      dose: exact share of the *stage's* slots (of its tokens: rows have one length) to replace.
      seed: chooses the slots, and the order of the rows. Overlays with the same seed and window prefer
        the same slots: right for arms that are compared, wrong within one arm.
      start: where in the stage the window begins, as a share of it.
      end: where it ends (exclusive).
      schedule: instead of one window, several and ramps, e.g. `"[0.1,0.2) 1; [0.5,1) 1->3"`: how strong the
        dose is there, relatively (see `parse_schedule`). The dose stays the share of the whole stage.
    """

    mixture: str
    dose: Fraction
    seed: int
    start: Fraction = Fraction(0)
    end: Fraction = Fraction(1)
    schedule: str | tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixture", _canonical(self.mixture))
        for name in ("dose", "start", "end"):
            object.__setattr__(self, name, parse_share(getattr(self, name), where=name))
        if self.schedule and (self.start, self.end) != (0, 1):
            what = f"a window from {decimal(self.start)} to {decimal(self.end)} and a schedule"
            raise UserError(what, where="start, end and schedule", fix="write the window into the schedule")
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", parse_schedule(self.schedule) if self.schedule else ())

    @functools.cached_property
    def stores(self) -> tuple[str, ...]:
        """The stores with a share above zero, sorted."""
        return used_stores(_shares(self.mixture))

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows of the stage that the dose is in, each with its strength."""
        assert not isinstance(self.schedule, str)
        return self.schedule or (Window(self.start, self.end, Ramp(Fraction(1), Fraction(1))),)

    def asked(self, base: BasePlan) -> int:
        """Returns the number of slots that it replaces: the dose of the stage, to the nearest slot."""
        return round_half_up(self.dose * base.slots)

    def ideals(self, base: BasePlan) -> tuple[Fraction, ...]:
        """Returns the exact dose in slots, divided among the stores by their shares and the windows' strengths."""
        if len(self.stores) == 1 or not self.dose:
            return (self.dose * base.slots,) * len(self.stores)
        return tuple(self.dose * base.slots * part for part in self._deal(base).proportions())

    def counts(self, base: BasePlan) -> tuple[int, ...]:
        """Returns how many of the ranks below `asked` are dealt to each store."""
        asked = self.asked(base)
        return self._deal(base).counts(asked) if asked else (0,) * len(self.stores)

    def reach(self, base: BasePlan) -> tuple[int, ...]:
        """Returns the counts, because the uses of a store have no gaps: they are all those below its count."""
        return self.counts(base)

    def validate(self, base: BasePlan, rows: Mapping[str, int], where: str) -> None:
        """Raises `UserError` for an unknown store, a dose or a store without a slot, or too few rows or slots."""
        for store in self.stores:
            if store not in rows:
                raise UserError(f"unknown store {store!r}", where=f"{where}.mixture", fix=suggest(store, rows))
        if self.dose == 0:
            return
        for store in self.stores:
            require_rows(store, rows, where=f"{where}.mixture")
        for window in self.windows:
            first, stop = in_slots(window, base.slots)
            if stop <= first:
                what = f"the window from {decimal(window.start)} to {decimal(window.end)} of the stage holds no slot"
                place = f"{where}.schedule" if self.schedule else f"{where}.start, {where}.end"
                raise UserError(what, where=place, fix="let the window end after it starts")
        asked = self.asked(base)
        if asked == 0:
            what = f"a dose of {decimal(self.dose)} of {base.slots} slots is less than half a slot"
            raise UserError(what, where=f"{where}.dose", fix="raise the dose, lengthen the stage or set the dose to 0")
        order = self._deal(base).order
        overfull = order.overfull(asked)
        if overfull:
            first, size, count = overfull
            what, place = f"a dose of {decimal(self.dose)} is {asked} slots, ", f"{where}.dose"
            if len(order.windows) == 1 and count == asked:
                what += f"but its window holds {size}"
            else:
                what += f"{count} of them among the {size} slots from slot {first} on"
                place += f" and {where}.schedule"
            fix = "the dose is a share of the whole stage: lower it or widen the window (start, end, schedule)"
            raise UserError(what, where=place, fix=fix)
        for store, count in zip(self.stores, self.counts(base), strict=True):
            if not count:
                what = f"{store!r} is in the mixture but gets none of the dose's {asked} slots"
                fix = "raise its share or the dose, lengthen the stage, or take the store out of the mixture"
                raise UserError(what, where=f"{where}.mixture", fix=fix)
            require_epochs(store, rows[store], count, base.max_epochs, where=f"{where}.dose")

    def touch(
        self, base: BasePlan, slots: Indices, sources: Indices, uses: Indices
    ) -> tuple[Indices, Indices, Indices]:
        """Finds the positions whose rank in the windows is below the number of slots asked for, and what they draw."""
        del sources, uses
        return self._deal(base).touch(slots, self.asked(base))

    def slots_of(self, base: BasePlan, which: int, uses: Indices) -> Indices:
        """Returns the slots whose ranks are dealt to the store as the given uses."""
        return self._deal(base).slots_of(which, uses[uses < self.counts(base)[which]], self.asked(base))

    def touched(self, base: BasePlan) -> Iterator[Indices]:
        """Yields the slots of the ranks below the number asked for, by rank."""
        for first in range(0, self.asked(base), _PART):
            yield self._deal(base).order.slots_of(np.arange(first, min(first + _PART, self.asked(base))))

    def describe(self, base: BasePlan) -> Mapping[str, Any]:
        """Returns its store or mixture, its seed, and its windows and count in slots."""
        deal = self._deal(base)
        windows: dict[str, Any] = {"window": in_slots(deal.order.windows[0], base.slots)}
        pieces = deal.order.describe()
        if len(pieces) > 1:
            windows = {"schedule": pieces}
        brought = {"store": self.stores[0]} if len(self.stores) == 1 else {"mixture": deal.describe()}
        return {"kind": "replace", **brought, "seed": self.seed, "slots": self.asked(base)} | windows

    def _deal(self, base: BasePlan) -> Deal:
        return _deal(self.windows, self.mixture, base.slots, self.seed)


@functools.lru_cache(maxsize=64)
def _deal(windows: tuple[Window, ...], mixture: str, slots: int, seed: int) -> Deal:
    return make_deal(windows, _shares(mixture), slots, derive_key(seed, "replace"))


def _shares(mixture: str | Mapping[str, Any]) -> Shares:
    """Returns the shares of a mixture; a store's name alone is a mixture, too."""
    if isinstance(mixture, str) and not any(mark in mixture for mark in ":;,["):
        mixture = {mixture: 1}
    return parse_shares(mixture, where="mixture")


def _canonical(mixture: str | Mapping[str, Any]) -> str:
    """Returns the one text that stands for a mixture however it was written; for a single store this is its name."""
    shares = _shares(mixture)
    stores = used_stores(shares)
    return stores[0] if len(stores) == 1 else str(shares)


@dataclasses.dataclass(frozen=True)
class Remove:
    """A filter: takes the rows of `stratum` out and resamples rows of `refill` into their slots.

    Refilling may go through `refill` more often than the base plan's `max_epochs`: the budget is kept by
    repeating what stays, the ledger says how often, and the filter has a limit of its own. A filter works
    on the base plan's slots of the stratum; rows of the same store that another overlay brings in stay.

    Attributes:
      stratum: the store to take out.
      refill: the store to draw from instead, in an order of its own.
      seed: chooses what leaks, and the order of the refill.
      keep: share of the stratum's slots that leak through the filter.
      max_epochs: how often `refill` may be gone through, counting its slots in the base plan and in other overlays.
    """

    stratum: str
    refill: str
    seed: int
    keep: Fraction = Fraction(0)
    max_epochs: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", parse_share(self.keep, where="keep"))

    @property
    def stores(self) -> tuple[str]:
        """The store whose rows it brings in."""
        return (self.refill,)

    def kept(self, base: BasePlan) -> int:
        """Returns the number of the stratum's slots that leak through."""
        return round_half_up(self.keep * base.counts[self.stratum])

    def asked(self, base: BasePlan) -> int:
        """Returns the number of slots that it refills."""
        return base.counts[self.stratum] - self.kept(base)

    def ideals(self, base: BasePlan) -> tuple[Fraction]:
        """Returns the number of slots that it refills."""
        return (Fraction(self.asked(base)),)

    def counts(self, base: BasePlan) -> tuple[int]:
        """Returns the number of slots that it refills."""
        return (self.asked(base),)

    def reach(self, base: BasePlan) -> tuple[int]:
        """Returns the stratum's count, because its uses are numbered like the stratum's, leaks included."""
        return (base.counts[self.stratum],)

    def validate(self, base: BasePlan, rows: Mapping[str, int], where: str) -> None:
        """Raises `UserError` for stores that do not exist or cannot be used, or a leak that gets no slot."""
        if self.stratum not in base.sources:
            what = f"the base plan has no slots of {self.stratum!r} to remove"
            raise UserError(what, where=f"{where}.stratum", fix=suggest(self.stratum, base.sources))
        require_rows(self.refill, rows, where=f"{where}.refill")
        if self.refill == self.stratum:
            what = f"{self.stratum!r} cannot be refilled with itself"
            raise UserError(what, where=f"{where}.refill", fix="name a stratum that stays")
        if self.keep and not self.kept(base):
            what = f"keeping {decimal(self.keep)} of {base.counts[self.stratum]} slots of {self.stratum!r} keeps none"
            raise UserError(what, where=f"{where}.keep", fix="raise keep, lengthen the stage or set keep to 0")

    def touch(
        self, base: BasePlan, slots: Indices, sources: Indices, uses: Indices
    ) -> tuple[Indices, Indices, Indices]:
        """Finds the stratum's positions that do not leak; the u-th use of the stratum becomes the refill's u-th use."""
        del slots
        found = np.flatnonzero(sources == base.sources.index(self.stratum))
        found = found[self._removed(base, uses[found])]
        return found, np.zeros_like(found), uses[found]

    def slots_of(self, base: BasePlan, which: int, uses: Indices) -> Indices:
        """Returns the base plan's slots of those uses of the stratum that do not leak."""
        assert which == 0, which
        uses = uses[uses < base.counts[self.stratum]]
        return base.slots_of(base.sources.index(self.stratum), uses[self._removed(base, uses)])

    def touched(self, base: BasePlan) -> Iterator[Indices]:
        """Yields the base plan's slots of the uses of the stratum that do not leak."""
        for uses in self.uses(base):
            yield base.slots_of(base.sources.index(self.stratum), uses)

    def uses(self, base: BasePlan) -> Iterator[Indices]:
        """Yields the uses of the stratum whose slots it refills, a part at a time."""
        for first in range(0, base.counts[self.stratum], _PART):
            uses = np.arange(first, min(first + _PART, base.counts[self.stratum]))
            yield uses[self._removed(base, uses)]

    def leaks(self, base: BasePlan) -> Iterator[Indices]:
        """Yields the uses of the stratum that leak, a part at a time."""
        for first in range(0, self.kept(base), _PART):
            places = np.arange(first, min(first + _PART, self.kept(base)))
            yield unpermute(places, base.counts[self.stratum], derive_key(self.seed, "leak"))

    def describe(self, base: BasePlan) -> Mapping[str, Any]:
        """Returns its stores, its seed, and the number of slots that leak."""
        return {
            "kind": "remove",
            "stratum": self.stratum,
            "store": self.refill,
            "seed": self.seed,
            "kept": self.kept(base),
        }

    def _removed(self, base: BasePlan, uses: Indices) -> NDArray[np.bool_]:
        kept = self.kept(base)
        if not kept or not len(uses):
            return np.ones(len(uses), bool)
        return permute(uses, base.counts[self.stratum], derive_key(self.seed, "leak")) >= kept
