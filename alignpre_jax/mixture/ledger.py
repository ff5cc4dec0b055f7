"""The ledger counts in integers what a plan was asked for and what it gives; it is printed before, checked after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture.census import census
from alignpre_jax.mixture.plan import Plan
from alignpre_jax.mixture.shares import round_half_up
from alignpre_jax.mixture.table import align


@dataclasses.dataclass(frozen=True)
class StoreLine:
    """One store's part of a stage.

    Attributes:
      store: its name.
      rows: the number of rows it has.
      asked_slots: the base plan's share of the stage, to the nearest slot.
      base_slots: the slots that the base plan gives it.
      slots: the slots that it has after the overlays.
      asked_tokens: the base plan's share of the stage, to the nearest token.
      tokens: the tokens that it has after the overlays.
      duplicates: the slots that repeat a row that another slot has used already.
      filled_tokens: how many of `tokens` are text and not padding, if the rows that are drawn are like all of the
        store's rows; this is exact for whole epochs. None where the store's text tokens were not given.
      learnt_tokens: how many of `tokens` the loss is to count, which are neither padding nor prompts, on the same
        assumption. None where the store's learnt tokens were not given.
    """

    store: str
    rows: int
    asked_slots: int
    base_slots: int
    slots: int
    asked_tokens: int
    tokens: int
    duplicates: int
    filled_tokens: int | None = None
    learnt_tokens: int | None = None

    @property
    def epochs(self) -> float:
        """How often the store is gone through."""
        return self.slots / self.rows if self.rows else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns a plain dict with `epochs` worked out, and with `learnt_tokens` where these are known."""
        plain = dataclasses.asdict(self) | {"epochs": self.epochs}
        if self.learnt_tokens is None:
            del plain["learnt_tokens"]
        return plain


@dataclasses.dataclass(frozen=True)
class BroughtLine:
    """What an overlay brings in from one of its stores.

    Attributes:
      store: the store's name.
      asked_slots: the store's share of the slots that the overlay was to touch, to the nearest slot.
      slots: the slots that the store's rows have; fewer where a later overlay took the same slot.
      asked_tokens: `asked_slots` in tokens.
      tokens: `slots` in tokens.
      duplicates: `slots` less the rows that only this line brings: what a filter's refill repeats.
    """

    store: str
    asked_slots: int
    slots: int
    asked_tokens: int
    tokens: int
    duplicates: int


@dataclasses.dataclass(frozen=True)
class OverlayLine:
    """One overlay's part of a stage.

    Attributes:
      overlay: its index in `Plan.overlays`.
      kind: "replace" or "remove".
      asked_slots: the slots that it was to touch.
      slots: the slots that it has; fewer than asked where a later overlay took the same slot.
      asked_tokens: `asked_slots` in tokens.
      tokens: `slots` in tokens.
      displaced: the slots that it has, by the store that the base plan had there.
      duplicates: `slots` less the rows that only this overlay brings: what a filter's refill repeats.
      stores: the part of all this that each of its stores brings in.
    """

    overlay: int
    kind: str
    asked_slots: int
    slots: int
    asked_tokens: int
    tokens: int
    displaced: dict[str, int]
    duplicates: int
    stores: tuple[BroughtLine, ...]

    @property
    def store(self) -> str:
        """The names of its stores."""
        return ", ".join(line.store for line in self.stores)

    def to_json(self) -> dict[str, Any]:
        """Returns a plain dict, with `stores` only where there are several."""
        plain = dataclasses.asdict(self) | {"store": self.store}
        stores = list(plain.pop("stores"))
        return plain | ({"stores": stores} if len(stores) > 1 else {})


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The counts of what a stage asks for and what it gets; every number is an integer."""

    digest: str
    slots: int
    row_length: int
    tokens: int
    stores: tuple[StoreLine, ...]
    overlays: tuple[OverlayLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts and lists, with `epochs` worked out."""
        plain = dataclasses.asdict(self)
        plain["stores"] = [line.to_json() for line in self.stores]
        plain["overlays"] = [change.to_json() for change in self.overlays]
        return plain


def ledger(
    plan: Plan,
    row_length: int,
    *,
    text_tokens: Mapping[str, int] | None = None,
    learnt_tokens: Mapping[str, int] | None = None,
) -> Ledger:
    """Counts a plan, in time and memory in proportion to what its overlays touch.

    Args:
      plan: the plan of one arm's stage.
      row_length: tokens per row.
      text_tokens: how many tokens of each store are text, for stores whose rows end in padding.
      learnt_tokens: how many tokens of each store the loss is to count, where that is known.
    """
    base, counted, streams = plan.base, census(plan), plan.streams
    assert counted.slots.sum() == plan.slots
    given, learnt = text_tokens or {}, learnt_tokens or {}
    streams_of = {name: np.flatnonzero(streams.store == number) for number, name in enumerate(plan.stores)}

    def line(store: str) -> StoreLine:
        asked, slots = base.asked.get(store, Fraction(0)), int(counted.slots[streams_of[store]].sum())

        def of_slots(counts: Mapping[str, int]) -> int | None:
            return round_half_up(Fraction(slots * counts[store], plan.rows[store])) if store in counts else None

        return StoreLine(
            store=store,
            rows=plan.rows[store],
            asked_slots=round_half_up(asked),
            base_slots=base.counts.get(store, 0),
            slots=slots,
            asked_tokens=round_half_up(asked * row_length),
            tokens=slots * row_length,
            duplicates=slots - counted.rows.get(store, 0),
            filled_tokens=of_slots(given),
            learnt_tokens=of_slots(learnt),
        )

    def change(number: int) -> OverlayLine:
        overlay = plan.overlays[number]
        found = np.flatnonzero(streams.overlay == number).tolist()  # empty where the overlay touches nothing
        slots, alone = (
            column[found].tolist() or [0] * len(overlay.stores) for column in (counted.slots, counted.alone)
        )
        displaced = counted.displaced[found].sum(axis=0).tolist()
        brought = []
        for at, (store, ideal) in enumerate(zip(overlay.stores, overlay.ideals(base), strict=True)):
            asked = round_half_up(ideal)
            tokens = (asked * row_length, slots[at] * row_length)
            brought.append(BroughtLine(store, asked, slots[at], *tokens, slots[at] - alone[at]))
        return OverlayLine(
            overlay=number,
            kind=type(overlay).__name__.lower(),
            asked_slots=overlay.asked(base),
            slots=sum(slots),
            asked_tokens=overlay.asked(base) * row_length,
            tokens=sum(slots) * row_length,
            displaced={source: count for source, count in zip(base.sources, displaced, strict=True) if count},
            duplicates=sum(slots) - sum(alone),
            stores=tuple(brought),
        )

    return Ledger(
        digest=plan.digest(),
        slots=plan.slots,
        row_length=row_length,
        tokens=plan.slots * row_length,
        stores=tuple(line(store) for store in plan.stores),
        overlays=tuple(change(number) for number in range(len(plan.overlays))),
    )


@dataclasses.dataclass(frozen=True)
class Counted:
    """The rows that a stage has trained on so far, by store, added up as batches go by.

    Attributes:
      stores: `Plan.stores`, the names of the stores that `Batch.stores` numbers.
      rows: int64[stores], the number of rows from each store.
    """

    stores: tuple[str, ...]
    rows: NDArray[np.int64]

    @classmethod
    def none(cls, plan: Plan) -> Counted:
        """Returns the count before the first step."""
        return cls(plan.stores, np.zeros(len(plan.stores), np.int64))

    def plus(self, sources: ArrayLike) -> Counted:
        """Returns the count after a batch, or one host's part of it, with rows from these `sources` (integers[b])."""
        return Counted(self.stores, self.rows + np.bincount(np.asarray(sources), minlength=len(self.stores)))

    def to_json(self) -> dict[str, int]:
        """Returns the rows by store, for a checkpoint and to be added up over hosts."""
        return dict(zip(self.stores, self.rows.tolist(), strict=True))

    @classmethod
    def from_json(cls, plan: Plan, rows: Mapping[str, int]) -> Counted:
        """Reads the count that `to_json` wrote."""
        return cls(plan.stores, np.array([rows.get(store, 0) for store in plan.stores], np.int64))


def check(ledger: Ledger, counted: Counted | Mapping[str, int]) -> None:
    """Compares what was trained on with the ledger.

    Args:
      ledger: the ledger of the stage's plan.
      counted: the rows by store, of all hosts together.

    Raises:
      UserError: a store has another number of rows than in the ledger; the error lists all such stores.
    """
    rows = counted.to_json() if isinstance(counted, Counted) else dict(counted)
    planned = {line.store: line.slots for line in ledger.stores}
    wrong = [
        f"{store!r}: {planned.get(store, 0)} planned, {rows.get(store, 0)} trained on"
        for store in dict.fromkeys([*planned, *rows])
        if planned.get(store, 0) != rows.get(store, 0)
    ]
    if wrong:
        raise UserError(
            f"the rows trained on are not those of the ledger: {'; '.join(wrong)}",
            where=f"plan {ledger.digest}",
            fix="the stage did not run to its end, or went on with another plan: it is no run of this arm",
        )


def render(ledger: Ledger) -> str:
    """Returns the ledger as a plain-text table."""
    padded = any(line.filled_tokens is not None for line in ledger.stores)
    stores = [["store", "rows", "asked tokens", "tokens", "slots", "base slots", "epochs", "duplicates"]]
    stores[0] += ["text tokens"] if padded else []
    for line in ledger.stores:
        figures = (line.rows, line.asked_tokens, line.tokens, line.slots, line.base_slots)
        stores.append([line.store, *(f"{n:,}" for n in figures), f"{line.epochs:.4f}", f"{line.duplicates:,}"])
        stores[-1] += [f"{line.tokens if line.filled_tokens is None else line.filled_tokens:,}"] if padded else []
    overlays = [["overlay", "store", "asked tokens", "tokens", "slots", "duplicates", "displaced (slots)"]]
    for change in ledger.overlays:
        displaced = ", ".join(f"{store} {count:,}" for store, count in change.displaced.items()) or "nothing"
        parts: list[tuple[str, OverlayLine | BroughtLine, str]] = [
            (f"{change.overlay} {change.kind}", change, displaced)
        ]
        parts += [("", line, "") for line in change.stores] if len(change.stores) > 1 else []
        for head, part, tail in parts:
            counts = (part.asked_tokens, part.tokens, part.slots, part.duplicates)
            overlays.append([head, part.store, *(f"{n:,}" for n in counts), tail])
    head = f"{ledger.tokens:,} tokens in {ledger.slots:,} slots of {ledger.row_length:,} (plan {ledger.digest})"
    return "\n\n".join([head, align(stores)] + ([align(overlays)] if ledger.overlays else []))
