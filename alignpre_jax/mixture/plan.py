"""The plan of one arm's stage sends each slot to (store, row), by a pure function in O(1) memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError, digest
from alignpre_jax.mixture.base import BasePlan, require_epochs
from alignpre_jax.mixture.overlays import Overlay, Remove
from alignpre_jax.mixture.permutation import derive_key, mix, permute, unpermute

UNTOUCHED = -1
CHUNK = 1 << 14  # slots that are worked on at a time, so that the arrays stay in cache


class Lookup(NamedTuple):
    """The rows that stand in some slots, and what put them there.

    Attributes:
      store: int16[n], index into `Plan.stores`.
      row: int64[n], index of the row in that store.
      overlay: int16[n], index into `Plan.overlays` of the overlay that put it there, or -1 where none did.
    """

    store: NDArray[np.int16]
    row: NDArray[np.int64]
    overlay: NDArray[np.int16]


class Streams(NamedTuple):
    """The sequences that slots draw from, all [streams]: first the base plan's sources, then each overlay's stores."""

    store: NDArray[np.int16]
    rows: NDArray[np.int64]
    key: NDArray[np.uint64]
    overlay: NDArray[np.int16]
    limit: NDArray[np.int64]  # all uses of the stream are below this number


class Laid(NamedTuple):
    """An overlay that touches something: its index in `Plan.overlays`, and the stream of the first of its stores."""

    number: int
    stream: int
    overlay: Overlay


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
        filters = [(number, o) for number, _, o in self.laid if isinstance(o, Remove)]
        removed = [overlay.stratum for _, overlay in filters]
        for number, overlay in filters:
            if overlay.refill in removed:
                what = f"{overlay.stratum!r} is refilled with {overlay.refill!r}, which is removed as well"
                raise UserError(what, where=f"overlays[{number}].refill", fix="refill with a stratum that stays")
            if removed.count(overlay.stratum) > 1:
                what = f"{overlay.stratum!r} is removed twice"
                raise UserError(what, where=f"overlays[{number}].stratum", fix="filter each stratum once")
        self._require_epochs()

    @property
    def slots(self) -> int:
        """The number of slots of the stage."""
        return self.base.slots

    @functools.cached_property
    def stores(self) -> tuple[str, ...]:
        """The names of the stores that `Lookup.store` numbers."""
        return tuple(self.rows)

    @functools.cached_property
    def used_stores(self) -> tuple[str, ...]:
        """The stores that the plan may draw from."""
        used = set(self.streams.store.tolist())
        return tuple(name for number, name in enumerate(self.stores) if number in used)

    def lookup(self, slots: NDArray[np.int64]) -> Lookup:
        """Looks up what stands in `slots` (int64[n], any order, each in [0, plan.slots))."""
        slots = np.asarray(slots, np.int64)
        if not len(slots):
            return Lookup(np.empty(0, np.int16), np.empty(0, np.int64), np.empty(0, np.int16))
        assert 0 <= slots.min() <= slots.max() < self.slots, "slot outside the stage"
        parts = [self._lookup(slots[first : first + CHUNK]) for first in range(0, len(slots), CHUNK)]
        return parts[0] if len(parts) == 1 else Lookup(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def slots_of(self, store: str, row: int) -> NDArray[np.int64]:
        """Returns the slots at which a row is used, sorted: int64[uses]. This is closed form: no other slot is read."""
        assert 0 <= row < self.rows[store], f"{store!r} has no row {row}"
        number, streams = self.stores.index(store), self.streams
        found = []
        for stream in np.flatnonzero(streams.store == number).tolist():
            size, limit = int(streams.rows[stream]), int(streams.limit[stream])
            epochs = np.arange(-(-limit // size), dtype=np.int64)
            keys = mix(streams.key[stream], self._order(epochs))
            uses = epochs * size + unpermute(np.full_like(epochs, row), size, keys)
            uses = uses[uses < limit]
            if stream < len(self.base.sources):
                found.append(self.base.slots_of(stream, uses))
            else:
                laid = self.laid_at(stream)
                found.append(laid.overlay.slots_of(self.base, stream - laid.stream, uses))
        slots = np.unique(np.concatenate([*found, np.empty(0, np.int64)]))
        stands = self.lookup(slots)  # a later overlay may have taken the slot
        return slots[(stands.store == number) & (stands.row == row)]

    def row_of(self, stream: int | NDArray[np.int64], use: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the row of its store that each use (int64[n]) of one stream, or of int64[n] streams, draws."""
        size = self.streams.rows[stream]
        epoch = (use / size).astype(np.int64)  # exact: numbers below 2^52 never round up to the next integer
        return permute(use - epoch * size, size, mix(self.streams.key[stream], self._order(epoch)))

    def draws(self, stream: int, rows: NDArray[np.int64], epoch: int) -> NDArray[np.bool_]:
        """Returns which of `rows` a stream draws in one of its epochs: bool[n]."""
        size, key = int(self.streams.rows[stream]), mix(self.streams.key[stream], self._order(np.array([epoch])))
        return unpermute(rows, size, key) < self.streams.limit[stream] - epoch * size

    def chunks(self, size: int = 1 << 18) -> Iterator[NDArray[np.int64]]:
        """Yields all slots in order, in arrays of at most `size`."""
        for first in range(0, self.slots, size):
            yield np.arange(first, min(first + size, self.slots), dtype=np.int64)

    def digest(self) -> str:
        """Returns hex digits that are equal for plans with equal rows in equal slots, whatever their arms are called.

        The digest covers all that determines `lookup`, and no more: shares of zero, unused stores, `max_epochs`
        and overlays that touch nothing leave it as it is.
        """
        covered: dict[str, Any] = {
            "format": 1,
            "slots": self.slots,
            "seed": self.base.seed,
            "shares": self.base.describe(),
            "rows": {store: self.rows[store] for store in self.used_stores},
            "overlays": [laid.overlay.describe(self.base) for laid in self.laid],
        }
        if self.base.epoch_order != "fresh" and np.any(self.streams.limit > self.streams.rows):
            covered["epoch_order"] = self.base.epoch_order
        return digest(covered, 32)

    def _require_epochs(self) -> None:
        """Raises `UserError` when the base plan and the overlays together go through a store too often.

        Slots that one overlay takes from another count for both. What refills a filtered stratum is
        resampled: it has the filter's limit, not the base plan's.
        """
        for store in self.used_stores:
            drawn = {"the base plan": self.base.counts.get(store, 0)}
            resampled, limit = {}, math.inf
            for number, _, overlay in self.laid:
                place, counts = f"overlays[{number}]", dict(zip(overlay.stores, overlay.counts(self.base), strict=True))
                if isinstance(overlay, Remove) and overlay.stratum == store:
                    drawn["the base plan"] = overlay.kept(self.base)
                if store in counts and isinstance(overlay, Remove):
                    resampled[place], limit = counts[store], min(limit, overlay.max_epochs)
                elif store in counts:
                    drawn[place] = counts[store]
            for draws, cap in ((drawn, self.base.max_epochs), (drawn | resampled, limit)):
                drawers = ", ".join(f"{count} by {who}" for who, count in draws.items() if count)
                require_epochs(store, self.rows[store], sum(draws.values()), cap, where=drawers)

    def _lookup(self, slots: NDArray[np.int64]) -> Lookup:
        sources, uses = self.base.uses(slots)
        stream, use = sources, uses
        if self.laid:
            stream, use = sources.copy(), uses.copy()
        for _, first, overlay in self.laid:
            at, which, taken = overlay.touch(self.base, slots, sources, uses)
            stream[at], use[at] = first + which, taken
        return Lookup(self.streams.store[stream], self.row_of(stream, use), self.streams.overlay[stream])

    def _order(self, epochs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the number of the order in which each epoch goes through a store."""
        return epochs if self.base.epoch_order == "fresh" else epochs * 0

    @functools.cached_property
    def laid(self) -> tuple[Laid, ...]:
        """The overlays that touch something, in order."""
        found, stream = list[Laid](), len(self.base.sources)
        for number, overlay in enumerate(self.overlays):
            if overlay.asked(self.base):
                found.append(Laid(number, stream, overlay))
                stream += len(overlay.stores)
        return tuple(found)

    def laid_at(self, stream: int) -> Laid:
        """Returns the overlay that a stream belongs to."""
        return next(laid for laid in self.laid if laid.number == self.streams.overlay[stream])

    @functools.cached_property
    def streams(self) -> Streams:
        """The sequences that slots draw from: first the base plan's sources, then the stores of the laid overlays."""
        base = self.base
        drawn = [(name, base.seed, "base", UNTOUCHED, count) for name, count in base.counts.items()]
        drawn += [
            (store, overlay.seed, type(overlay).__name__, number, reach)
            for number, _, overlay in self.laid
            for store, reach in zip(overlay.stores, overlay.reach(base), strict=True)
        ]
        return Streams(
            store=np.array([self.stores.index(name) for name, *_ in drawn], np.int16),
            rows=np.array([self.rows[name] for name, *_ in drawn], np.int64),
            key=np.array([derive_key(seed, kind, "rows", name) for name, seed, kind, *_ in drawn], np.uint64),
            overlay=np.array([number for *_, number, _ in drawn], np.int16),
            limit=np.array([limit for *_, limit in drawn], np.int64),
        )
