"""The plan of one arm's stage: slot -> (store, row), a pure function in O(1) memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError, digest
from alignpre_jax.mixture.base import BasePlan
from alignpre_jax.mixture.overlays import Overlay, Remove
from alignpre_jax.mixture.permutation import derive_key, mix, permute, unpermute

UNTOUCHED = -1
CHUNK = 1 << 14  # slots worked on at a time: the arrays stay in cache


class Lookup(NamedTuple):
    """What stands in some slots.

    Attributes:
      store: int16[n], index into `Plan.stores`.
      row: int64[n], index of the row in that store.
      overlay: int16[n], index into `Plan.overlays` of the overlay that put it there, or -1: untouched.
    """

    store: NDArray[np.int16]
    row: NDArray[np.int64]
    overlay: NDArray[np.int16]


class _Streams(NamedTuple):
    """The sequences that slots draw from: one per source of the base plan, then one per overlay; all [streams]."""

    store: NDArray[np.int16]
    rows: NDArray[np.int64]
    key: NDArray[np.uint64]
    overlay: NDArray[np.int16]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A base plan and an arm's overlays. Where overlays touch the same slot, the later one has it.

    Attributes:
      base: the order shared by all arms.
      overlays: what this arm changes; an overlay that touches nothing (dose 0) is no change at all.
      rows: the number of rows of every store. Arms over the same `rows` number their stores alike.
    """

    base: BasePlan
    overlays: tuple[Overlay, ...]
    rows: Mapping[str, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "overlays", tuple(self.overlays))
        for store in self.base.sources:
            if self.rows.get(store) != self.base.rows[store]:
                what = f"{store!r} has {self.base.rows[store]} rows in the base plan, {self.rows.get(store)} in the arm"
                raise UserError(what, where="rows", fix="plan all arms over the same stores")
        for number, overlay in enumerate(self.overlays):
            overlay.validate(self.base, self.rows, f"overlays[{number}]")
        removed = {o.stratum for _, o in self._effective if isinstance(o, Remove)}
        for number, overlay in self._effective:
            if isinstance(overlay, Remove) and overlay.refill in removed:
                what = f"{overlay.stratum!r} is refilled with {overlay.refill!r}, which is removed as well"
                raise UserError(what, where=f"overlays[{number}].refill", fix="refill with a stratum that stays")

    @property
    def slots(self) -> int:
        """The number of slots of the stage."""
        return self.base.slots

    @functools.cached_property
    def stores(self) -> tuple[str, ...]:
        """The names that `Lookup.store` counts."""
        return tuple(self.rows)

    @functools.cached_property
    def used_stores(self) -> tuple[str, ...]:
        """The stores that the plan may draw from."""
        used = set(self._streams.store.tolist())
        return tuple(name for number, name in enumerate(self.stores) if number in used)

    def lookup(self, slots: NDArray[np.int64]) -> Lookup:
        """What stands in `slots` (int64[n], any order, each in [0, plan.slots))."""
        slots = np.asarray(slots, np.int64)
        if not len(slots):
            return Lookup(np.empty(0, np.int16), np.empty(0, np.int64), np.empty(0, np.int16))
        assert 0 <= slots.min() <= slots.max() < self.slots, "slot outside the stage"
        parts = [self._lookup(slots[first : first + CHUNK]) for first in range(0, len(slots), CHUNK)]
        return parts[0] if len(parts) == 1 else Lookup(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def slots_of(self, store: str, row: int) -> NDArray[np.int64]:
        """The slots at which a row is used, sorted: int64[uses]. Closed form; looks at no other slot."""
        assert 0 <= row < self.rows[store], f"{store!r} has no row {row}"
        number, streams = self.stores.index(store), self._streams
        limits = [*self.base.counts.values(), *(overlay.reach(self.base) for _, overlay in self._effective)]
        found = []
        for stream in np.flatnonzero(streams.store == number).tolist():
            size = int(streams.rows[stream])
            epochs = np.arange(-(-limits[stream] // size), dtype=np.int64)
            uses = epochs * size + unpermute(np.full_like(epochs, row), size, mix(streams.key[stream], epochs))
            uses = uses[uses < limits[stream]]
            if stream < len(self.base.sources):
                found.append(self.base.slots_of(stream, uses))
            else:
                found.append(self._effective[stream - len(self.base.sources)][1].slots_of(self.base, uses))
        slots = np.unique(np.concatenate([*found, np.empty(0, np.int64)]))
        stands = self.lookup(slots)  # a later overlay may have taken the slot
        return slots[(stands.store == number) & (stands.row == row)]

    def chunks(self, size: int = 1 << 18) -> Iterator[NDArray[np.int64]]:
        """All slots in order, in arrays of at most `size`."""
        for first in range(0, self.slots, size):
            yield np.arange(first, min(first + size, self.slots), dtype=np.int64)

    def digest(self) -> str:
        """Hex digits that are equal for plans with equal rows in equal slots, whatever their arms are called.

        Covers all that determines `lookup`, and no more: shares of zero, unused stores, `max_epochs`
        and overlays that touch nothing leave it as it is.
        """
        return digest(
            {
                "format": 1,
                "slots": self.slots,
                "seed": self.base.seed,
                "shares": {source: str(self.base.shares[source]) for source in self.base.sources},
                "rows": {store: self.rows[store] for store in self.used_stores},
                "overlays": [overlay.describe(self.base) for _, overlay in self._effective],
            },
            32,
        )

    def _lookup(self, slots: NDArray[np.int64]) -> Lookup:
        sources, uses = self.base.uses(slots)
        stream, use = sources, uses
        if self._effective:
            stream, use = sources.copy(), uses.copy()
        for position, (_, overlay) in enumerate(self._effective, len(self.base.sources)):
            at, taken = overlay.touch(self.base, slots, sources, uses)
            stream[at], use[at] = position, taken
        streams = self._streams
        size = streams.rows[stream]
        epoch = (use / size).astype(np.int64)  # exact: numbers below 2^52 never round up to the next integer
        row = permute(use - epoch * size, size, mix(streams.key[stream], epoch))
        return Lookup(streams.store[stream], row, streams.overlay[stream])

    @functools.cached_property
    def _effective(self) -> tuple[tuple[int, Overlay], ...]:
        return tuple((number, o) for number, o in enumerate(self.overlays) if o.asked(self.base))

    @functools.cached_property
    def _streams(self) -> _Streams:
        drawn = [(name, self.base.seed, "base", UNTOUCHED) for name in self.base.sources]
        drawn += [(o.store, o.seed, type(o).__name__, number) for number, o in self._effective]
        return _Streams(
            store=np.array([self.stores.index(name) for name, *_ in drawn], np.int16),
            rows=np.array([self.rows[name] for name, *_ in drawn], np.int64),
            key=np.array([derive_key(seed, kind, "rows", name) for name, seed, kind, _ in drawn], np.uint64),
            overlay=np.array([number for *_, number in drawn], np.int16),
        )
