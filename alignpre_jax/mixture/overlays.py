"""Overlays: what an arm changes in the base plan, and nothing else.

An overlay picks some slots and says, for each, which use of which store stands there instead. The
choice is a seeded ranking that does not depend on the dose, so the slots of a smaller dose, and
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
from alignpre_jax.mixture.permutation import derive_key, permute, unpermute
from alignpre_jax.mixture.riffle import Riffle, in_slots
from alignpre_jax.mixture.shares import Ramp, Window, decimal, parse_schedule, parse_share, round_half_up

Indices = NDArray[np.int64]

_PART = 1 << 16  # uses worked on at a time


class Overlay(Protocol):
    """What `Plan` asks of an overlay."""

    @property
    def store(self) -> str:
        """The store whose rows it brings in."""
        ...

    @property
    def seed(self) -> int:
        """Chooses its slots and the order of its rows."""
        ...

    def validate(self, base: BasePlan, rows: Mapping[str, int], where: str) -> None:
        """Raises `UserError`, naming `where`, when it cannot be laid over `base`."""
        ...

    def asked(self, base: BasePlan) -> int:
        """The number of slots it touches, were it the last overlay."""
        ...

    def reach(self, base: BasePlan) -> int:
        """The number of uses it chooses from: all are below."""
        ...

    def touch(self, base: BasePlan, slots: Indices, sources: Indices, uses: Indices) -> tuple[Indices, Indices]:
        """Of `slots` and what the base has there: the positions it touches, and the use of `store` for each."""
        ...

    def slots_of(self, base: BasePlan, uses: Indices) -> Indices:
        """The slots of the given uses of `store`, those that it does not touch left out."""
        ...

    def describe(self, base: BasePlan) -> Mapping[str, Any]:
        """Everything that determines what it does, for `Plan.digest`."""
        ...


@dataclasses.dataclass(frozen=True)
class Replace:
    """Puts rows of `source` into slots chosen evenly from a window of the stage, or by a schedule.

    Attributes:
      source: the store whose rows come in.
      dose: exact share of the *stage's* slots (of its tokens: rows have one length) to replace.
      seed: chooses the slots, and the order of the rows. Overlays with the same seed and window prefer
        the same slots: right for arms that are compared, wrong within one arm.
      start: where in the stage the window begins, as a share of it.
      end: where it ends (exclusive).
      schedule: instead of one window, several and ramps, e.g. `"[0.1,0.2) 1; [0.5,1) 1->3"`: how strong the
        dose is there, relatively (see `parse_schedule`). The dose stays the share of the whole stage.
    """

    source: str
    dose: Fraction
    seed: int
    start: Fraction = Fraction(0)
    end: Fraction = Fraction(1)
    schedule: str | tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        for name in ("dose", "start", "end"):
            object.__setattr__(self, name, parse_share(getattr(self, name), where=name))
        if self.schedule and (self.start, self.end) != (0, 1):
            what = f"a window from {decimal(self.start)} to {decimal(self.end)} and a schedule"
            raise UserError(what, where="start, end and schedule", fix="write the window into the schedule")
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", parse_schedule(self.schedule) if self.schedule else ())

    @property
    def store(self) -> str:
        """The store whose rows it brings in."""
        return self.source

    @property
    def windows(self) -> tuple[Window, ...]:
        """Where in the stage it is, and how strong."""
        assert not isinstance(self.schedule, str)
        return self.schedule or (Window(self.start, self.end, Ramp(Fraction(1), Fraction(1))),)

    def asked(self, base: BasePlan) -> int:
        """The number of slots it replaces: the dose of the stage, to the nearest slot."""
        return round_half_up(self.dose * base.slots)

    def reach(self, base: BasePlan) -> int:
        """Its uses are the ranks below the number of slots asked for."""
        return self.asked(base)

    def validate(self, base: BasePlan, rows: Mapping[str, int], where: str) -> None:
        """Raises `UserError` for a dose that gets no slot, rows that run out, or a window that is too small."""
        if self.source not in rows:
            raise UserError(f"unknown store {self.source!r}", where=f"{where}.source", fix=suggest(self.source, rows))
        if self.dose == 0:
            return
        require_rows(self.source, rows, where=f"{where}.source")
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
        overfull = self._order(base).overfull(asked)
        if overfull:
            first, size, count = overfull
            what, place = f"a dose of {decimal(self.dose)} is {asked} slots, ", f"{where}.dose"
            if len(self.windows) == 1 and count == asked:
                what += f"but its window holds {size}"
            else:
                what += f"{count} of them among the {size} slots from slot {first} on"
                place += f" and {where}.schedule"
            fix = "the dose is a share of the whole stage: lower it or widen the window (start, end, schedule)"
            raise UserError(what, where=place, fix=fix)
        require_epochs(self.source, rows[self.source], asked, base.max_epochs, where=f"{where}.dose")

    def touch(self, base: BasePlan, slots: Indices, sources: Indices, uses: Indices) -> tuple[Indices, Indices]:
        """The positions whose rank in the windows is below the number of slots asked for; the rank is the use."""
        del sources, uses
        return self._order(base).touch(slots, self.asked(base))

    def slots_of(self, base: BasePlan, uses: Indices) -> Indices:
        """The slots whose rank is among `uses`."""
        return self._order(base).slots_of(uses[uses < self.asked(base)])

    def describe(self, base: BasePlan) -> Mapping[str, Any]:
        """Its store, seed, windows and count, in slots."""
        windows: dict[str, Any] = {"window": in_slots(self.windows[0], base.slots)}
        pieces = self._order(base).describe()
        if len(pieces) > 1:
            windows = {"schedule": pieces}
        return {"kind": "replace", "store": self.source, "seed": self.seed, "slots": self.asked(base)} | windows

    def _order(self, base: BasePlan) -> Riffle:
        return _riffle(self.windows, base.slots, self.seed)


@functools.lru_cache(maxsize=64)
def _riffle(windows: tuple[Window, ...], slots: int, seed: int) -> Riffle:
    return Riffle(windows, slots, derive_key(seed, "replace"))


@dataclasses.dataclass(frozen=True)
class Remove:
    """A filter: takes the rows of `stratum` out and resamples rows of `refill` into their slots.

    Refilling may go through `refill` more often than the base plan's `max_epochs`: the budget is
    kept by repeating what stays, the ledger says how often, and it has a limit of its own. It works
    on the base plan's slots of the stratum; rows of the same store that another overlay brings in are
    not its business.

    Attributes:
      stratum: the store to take out.
      refill: the store to draw from instead, in an order of its own.
      seed: chooses what leaks, and the order of the refill.
      keep: share of the stratum's slots that leak through the filter.
      max_epochs: how often `refill` may be gone through, its slots in the base plan and in other overlays counted.
    """

    stratum: str
    refill: str
    seed: int
    keep: Fraction = Fraction(0)
    max_epochs: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", parse_share(self.keep, where="keep"))

    @property
    def store(self) -> str:
        """The store whose rows it brings in."""
        return self.refill

    def kept(self, base: BasePlan) -> int:
        """The number of the stratum's slots that leak through."""
        return round_half_up(self.keep * base.counts[self.stratum])

    def asked(self, base: BasePlan) -> int:
        """The number of slots it refills."""
        return base.counts[self.stratum] - self.kept(base)

    def reach(self, base: BasePlan) -> int:
        """Its uses are numbered like the stratum's, leaks included."""
        return base.counts[self.stratum]

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

    def touch(self, base: BasePlan, slots: Indices, sources: Indices, uses: Indices) -> tuple[Indices, Indices]:
        """The positions of the stratum that do not leak; the u-th use of the stratum becomes the refill's u-th."""
        del slots
        found = np.flatnonzero(sources == base.sources.index(self.stratum))
        found = found[self._removed(base, uses[found])]
        return found, uses[found]

    def slots_of(self, base: BasePlan, uses: Indices) -> Indices:
        """The base plan's slots of those uses of the stratum that do not leak."""
        uses = uses[uses < base.counts[self.stratum]]
        return base.slots_of(base.sources.index(self.stratum), uses[self._removed(base, uses)])

    def uses(self, base: BasePlan) -> Iterator[Indices]:
        """The uses of the stratum whose slots it refills, a part at a time."""
        for first in range(0, self.reach(base), _PART):
            uses = np.arange(first, min(first + _PART, self.reach(base)))
            yield uses[self._removed(base, uses)]

    def leaks(self, base: BasePlan) -> Iterator[Indices]:
        """The uses of the stratum that leak, a part at a time."""
        for first in range(0, self.kept(base), _PART):
            places = np.arange(first, min(first + _PART, self.kept(base)))
            yield unpermute(places, self.reach(base), derive_key(self.seed, "leak"))

    def describe(self, base: BasePlan) -> Mapping[str, Any]:
        """Its stores, seed and count, in slots."""
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
